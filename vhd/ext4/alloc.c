/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * alloc.c - which blocks are taken, in memory
 *
 * One bit per block: used on disk, or promised to data that is on its way there. It is a superset of libext2fs's bitmap,
 * which follows when extents are stored. (The journal will add a third kind: freed, but not committed yet; such a block
 * stays taken here.) Finding blocks takes alloc_mu only, never fs->mu and no I/O: it happens inside WRITE.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vhd/base/checked.h"
#include "vhd/ext4/ext4_int.h"

#define GOOD_RUN 16u   /* blocks: a run that is long enough to stop looking for a better one */
#define LOOK_RUNS 32u  /* runs that are looked at */
#define HOLD_MAX 4096u /* blocks that are out of everybody's reach at a time */

struct ext4_alloc {
	uint64_t first, end; /* block numbers */
	uint64_t free;
	uint64_t reserve; /* blocks that data leaves to metadata */
	uint32_t per_group;
	uint32_t *group_free;
	uint64_t *bits;   /* of block first + i; 1 is taken */
	uint64_t held;    /* blocks that are taken for a moment, and free then */
	struct cond cond; /* held became 0 */
};

static bool taken(const struct ext4_alloc *a, uint64_t i)
{
	return a->bits[i / 64] >> i % 64 & 1;
}

int ext4_alloc_init(struct ext4_fs *fs)
{
	ext2_filsys e2 = fs->e2;
	uint64_t first = e2->super->s_first_data_block, end = ext2fs_blocks_count(e2->super), n = end - first;
	struct ext4_alloc *a = calloc(1, sizeof *a);
	uint32_t groups = e2->group_desc_count;

	if (!a)
		return -ENOMEM;
	fs->alloc = a;
	cond_init(&a->cond);
	a->first = first;
	a->end = end;
	a->per_group = e2->super->s_blocks_per_group;
	a->bits = calloc((n + 63) / 64 + 1, sizeof *a->bits);
	a->group_free = calloc(groups, sizeof *a->group_free);
	if (!a->bits || !a->group_free)
		return -ENOMEM;
	for (uint64_t at = 0; at < n;) {
		uint64_t some = min_u64(n - at, 1u << 20);
		errcode_t e = ext2fs_get_block_bitmap_range2(e2->block_map, first + at, some, (char *)a->bits + at / 8);

		if (e)
			return ext4_errno(e);
		at += some;
	}
	for (uint64_t i = 0; i < n; i++)
		if (i % 64 == 0 && a->bits[i / 64] == UINT64_MAX) {
			i += 63;
		} else if (!taken(a, i)) {
			a->group_free[i / a->per_group]++;
			a->free++;
		}
	/* What the file system keeps for its superuser, whom we never are, also serves metadata. */
	a->reserve = max_u64(min_u64(n / 100, 512), min_u64(ext2fs_r_blocks_count(e2->super), n / 2));
	return 0;
}

void ext4_alloc_fini(struct ext4_fs *fs)
{
	if (!fs->alloc)
		return;
	cond_fini(&fs->alloc->cond);
	free(fs->alloc->bits);
	free(fs->alloc->group_free);
	free(fs->alloc);
	fs->alloc = NULL;
}

/* The next free block at or after i (and below end), or end. */
static uint64_t next_free(const struct ext4_alloc *a, uint64_t i, uint64_t end)
{
	while (i < end) {
		uint64_t w;

		if (i % a->per_group == 0 && a->group_free[i / a->per_group] == 0) {
			i += a->per_group;
			continue;
		}
		w = ~a->bits[i / 64] >> i % 64;
		if (w)
			return min_u64(i + (uint64_t)__builtin_ctzll(w), end);
		i = (i / 64 + 1) * 64;
		/* Word steps may jump over the start of a group: per_group is a multiple of 8, mostly of 64. */
	}
	return end;
}

static uint32_t run_at(const struct ext4_alloc *a, uint64_t i, uint64_t end, uint32_t want)
{
	uint32_t n = 0;

	while (n < want && i + n < end) {
		uint64_t at = i + n, w = a->bits[at / 64] >> at % 64;
		uint32_t here = w ? (uint32_t)__builtin_ctzll(w) : 64u - (uint32_t)(at % 64);

		here = here < 64u - (uint32_t)(at % 64) ? here : 64u - (uint32_t)(at % 64);
		n += here;
		if (w)
			break;
	}
	n = n < want ? n : want;
	return (uint32_t)min_u64(n, end - i);
}

/* The best of the first runs in [from, to): one that is long enough, else the longest seen. */
static uint32_t search(const struct ext4_alloc *a, uint64_t from, uint64_t to, uint32_t want, uint64_t *best)
{
	uint32_t good = want < GOOD_RUN ? want : GOOD_RUN, len = 0;
	uint64_t i = from;

	for (unsigned runs = 0; runs < LOOK_RUNS; runs++) {
		uint32_t n;

		i = next_free(a, i, to);
		if (i >= to)
			break;
		n = run_at(a, i, to, want);
		if (n > len) {
			len = n;
			*best = i;
		}
		if (len >= good)
			break;
		i += n;
	}
	return len;
}

static void set_bits(struct ext4_alloc *a, uint64_t i, uint64_t len, bool on)
{
	for (uint64_t k = i; k < i + len; k++) {
		uint64_t bit = UINT64_C(1) << k % 64;

		if (taken(a, k) == on)
			continue;
		a->bits[k / 64] ^= bit;
		a->group_free[k / a->per_group] += on ? -1u : 1u;
		a->free += on ? UINT64_MAX : 1;
	}
}

/* A run near g that is free now; its length, or 0. */
static uint32_t find_run(const struct ext4_alloc *a, uint64_t g, uint32_t want, bool data, uint64_t *at)
{
	uint32_t len;

	if (a->free <= (data ? a->reserve : 0))
		return 0;
	if (data)
		want = (uint32_t)min_u64(want, a->free - a->reserve);
	len = search(a, g, a->end - a->first, want, at);
	return len ? len : search(a, 0, g, want, at);
}

int ext4_alloc_run(struct ext4_fs *fs, uint64_t goal, uint32_t want, bool data, uint64_t *pblk, uint32_t *got)
{
	struct ext4_alloc *a = fs->alloc;
	uint64_t at = 0, g;
	uint32_t len;

	g = goal >= a->first && goal < a->end ? goal - a->first : 0;
	lock_take(&fs->alloc_mu);
	len = find_run(a, g, want, data, &at);
	/* Who writes data comes again (ext4_reap_now()); an operation cannot. */
	while (!len && !data && a->held) {
		cond_wait(&a->cond, &fs->alloc_mu);
		len = find_run(a, g, want, data, &at);
	}
	if (len)
		set_bits(a, at, len, true);
	lock_drop(&fs->alloc_mu);
	if (!len)
		return -ENOSPC;
	*pblk = a->first + at;
	*got = len;
	return 0;
}

void ext4_alloc_free(struct ext4_fs *fs, uint64_t pblk, uint64_t len)
{
	struct ext4_alloc *a = fs->alloc;

	if (!len || pblk < a->first || !range_ok(pblk - a->first, len, a->end - a->first))
		return;
	lock_take(&fs->alloc_mu);
	set_bits(a, pblk - a->first, len, false);
	ext4_trim_note(fs, pblk, len);
	lock_drop(&fs->alloc_mu);
}

bool ext4_alloc_hold(struct ext4_fs *fs, uint64_t from, uint64_t end, uint64_t *pblk, uint64_t *len)
{
	struct ext4_alloc *a = fs->alloc;
	uint64_t to = min_u64(end, a->end) - a->first, i;
	bool found;

	if (from < a->first || from >= min_u64(end, a->end))
		return false;
	lock_take(&fs->alloc_mu);
	i = next_free(a, from - a->first, to);
	found = i < to;
	if (found) {
		*pblk = a->first + i;
		*len = run_at(a, i, to, HOLD_MAX);
		set_bits(a, i, *len, true);
		a->held += *len;
	}
	lock_drop(&fs->alloc_mu);
	return found;
}

void ext4_alloc_unhold(struct ext4_fs *fs, uint64_t pblk, uint64_t len)
{
	lock_take(&fs->alloc_mu);
	set_bits(fs->alloc, pblk - fs->alloc->first, len, false);
	fs->alloc->held -= len;
	if (!fs->alloc->held)
		cond_broadcast(&fs->alloc->cond);
	lock_drop(&fs->alloc_mu);
}

void ext4_alloc_await(struct ext4_fs *fs)
{
	lock_take(&fs->alloc_mu);
	while (fs->alloc->held)
		cond_wait(&fs->alloc->cond, &fs->alloc_mu);
	lock_drop(&fs->alloc_mu);
}

uint64_t ext4_alloc_left(struct ext4_fs *fs)
{
	uint64_t n;

	lock_take(&fs->alloc_mu);
	n = fs->alloc->free;
	lock_drop(&fs->alloc_mu);
	return n;
}

uint64_t ext4_goal_of_inode(struct ext4_fs *fs, uint64_t ino)
{
	const struct ext2_super_block *s = fs->e2->super;

	return s->s_first_data_block + (ino - 1) / s->s_inodes_per_group * s->s_blocks_per_group;
}

/* ---- what is free, for tools ----------------------------------------------------------------------------------------------------- */

int ext4_op_unused(struct fs *f, int (*fn)(void *arg, uint64_t off, uint64_t len), void *arg) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of(f);
	const struct ext2_super_block *s = fs->e2->super;
	const struct ext4_alloc *a = fs->alloc;
	int err = 0;

	if (!ext4_is_sound(s) || s->s_feature_incompat & EXT3_FEATURE_INCOMPAT_RECOVER)
		return -EUCLEAN;
	for (uint64_t at = 0, n = a->end - a->first, end; at < n && !err; at = end) {
		bool used = taken(a, at);

		for (end = at + 1; end < n && taken(a, end) == used;)
			end++;
		if (!used)
			err = fn(arg, (a->first + at) << fs->block_bits, (end - at) << fs->block_bits);
	}
	return err;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * trim.c - the space of freed blocks goes back to the host
 *
 *     freed ──► noted ──► metadata flushed ──► still free? taken, punched, free again
 *
 * A block is punched only when the disk knows that it is free: else a crash would bring back a file without its data. While it is
 * punched it is taken in the allocator's bitmap, so nobody's new data can be in the way. Best effort: what does not fit into the
 * list, or is short, keeps its space until it is used again.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vhd/base/checked.h"
#include "vhd/base/log.h"
#include "vhd/ext4/journal.h"

#define NOTES_MAX 4096u
#define TRIM_MIN 65536u /* bytes: less is not worth a hole */

struct note {
	uint64_t pblk, len;
};

struct ext4_trim {
	unsigned n;
	struct note note[NOTES_MAX];
};

int ext4_trim_init(struct ext4_fs *fs)
{
	fs->trim = calloc(1, sizeof *fs->trim);
	return fs->trim ? 0 : -ENOMEM;
}

void ext4_trim_fini(struct ext4_fs *fs)
{
	free(fs->trim);
	fs->trim = NULL;
}

void ext4_trim_note(struct ext4_fs *fs, uint64_t pblk, uint64_t len)
{
	struct ext4_trim *t = fs->trim;
	struct note *last = t && t->n ? &t->note[t->n - 1] : NULL;

	if (!t)
		return;
	if (last && last->pblk + last->len == pblk)
		last->len += len;
	else if (last && pblk + len == last->pblk)
		*last = (struct note){pblk, last->len + len};
	else if (t->n < NOTES_MAX)
		t->note[t->n++] = (struct note){pblk, len};
}

static int by_place(const void *a, const void *b)
{
	const struct note *x = a, *y = b;

	return x->pblk < y->pblk ? -1 : x->pblk > y->pblk;
}

/* Neighbours become one. */
static unsigned merge(struct note *note, unsigned n)
{
	unsigned k = 0;

	if (n)
		qsort(note, n, sizeof *note, by_place);
	for (unsigned i = 1; i < n; i++) {
		uint64_t end = note[k].pblk + note[k].len;

		if (note[i].pblk <= end)
			note[k].len = max_u64(end, note[i].pblk + note[i].len) - note[k].pblk;
		else
			note[++k] = note[i];
	}
	return n ? k + 1 : 0;
}

static void punch(struct ext4_fs *fs, const struct note *note)
{
	uint64_t at = note->pblk, end = at + note->len, pblk, len;

	while (ext4_alloc_hold(fs, at, end, &pblk, &len)) {
		if (len << fs->block_bits >= TRIM_MIN)
			cache_trim(fs->dev, pblk << fs->block_bits, len << fs->block_bits);
		ext4_alloc_unhold(fs, pblk, len);
		at = pblk + len;
	}
}

static unsigned take_notes(struct ext4_fs *fs, struct note *to)
{
	unsigned n;

	lock_take(&fs->alloc_mu);
	n = fs->trim->n;
	memcpy(to, fs->trim->note, n * sizeof *to);
	fs->trim->n = 0;
	lock_drop(&fs->alloc_mu);
	return n;
}

void ext4_trim_now(struct ext4_fs *fs) NO_THREAD_SAFETY
{
	struct note *note = malloc(sizeof fs->trim->note);
	unsigned n;

	/* With a journal a run is noted when the transaction that freed it has committed. */
	ext4_journal_settle(fs);
	n = note ? take_notes(fs, note) : 0;
	/* Without, it was freed in memory: now on the disk too, or it is not touched. */
	if (n && !fs->journal && (ext4_store_all(fs) < 0 || cache_flush(fs->dev) < 0))
		n = 0;
	n = merge(note, n);
	for (unsigned i = 0; i < n; i++)
		punch(fs, &note[i]);
	if (n)
		log_debug("ext4: %u runs of free blocks given back to the host", n);
	free(note);
}

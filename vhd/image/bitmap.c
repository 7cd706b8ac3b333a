/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bitmap.c - sector bitmaps of blocks that are not full
 *
 * Most blocks are full, and a bit in state[] says so. Of the others the bitmap is in memory: read once, changed in memory
 * after the data was written, and written back by the next flush, between its two syncs (alloc.c rule 5).
 *
 *     absent ──load──► clean ⇄ dirty          clean ones leave memory coldest first, above KEEP_BYTES
 *                        set │ flush
 *
 * A bitmap that is being read from disk must not come in after a newer one was written and left: maps_seq counts those that
 * left after a change, and the reader starts again when it moved.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/image/vhd_int.h"

#define KEEP_BYTES (4u << 20) /* bitmaps in memory, above what is dirty */
#define DIRTY_MAX 4096u       /* bitmaps; then a writer flushes */
#define READ_AHEAD 16u        /* neighbours that are looked at together */

struct bitmap {
	struct list link; /* maps_lru or maps_dirty */
	struct bitmap *next;
	uint32_t block;
	bool changed;             /* since it was read: another copy from the disk may be older */
	uint32_t sets, sets_disk; /* how often bits were set; of that on disk */
	uint8_t bits[];
};

static struct bitmap *find(struct vhd *v, uint32_t block) REQUIRES(v->maps_mu)
{
	struct bitmap *m = v->map[block % MAP_BUCKETS];

	while (m && m->block != block)
		m = m->next;
	return m;
}

static void drop(struct vhd *v, struct bitmap *m) REQUIRES(v->maps_mu)
{
	struct bitmap **p = &v->map[m->block % MAP_BUCKETS];

	while (*p != m)
		p = &(*p)->next;
	*p = m->next;
	list_del(&m->link);
	v->maps_bytes -= v->bitmap_bytes;
	if (m->changed)
		v->maps_seq++;
	free(m);
}

static void make_room(struct vhd *v) REQUIRES(v->maps_mu)
{
	while (v->maps_bytes > KEEP_BYTES && !list_empty(&v->maps_lru))
		drop(v, list_first(&v->maps_lru, struct bitmap, link));
}

static bool all_ones(const struct vhd *v, const uint8_t *bits)
{
	uint32_t n = v->block_size / VHD_SECTOR;

	for (uint32_t i = 0; i < n / 8; i++)
		if (bits[i] != 0xff)
			return false;
	return n % 8 == 0 || (uint8_t)(bits[n / 8] | 0xff >> n % 8) == 0xff;
}

/* A bitmap came from the disk: remember it, or that the block is full. False: no memory. */
static bool accept(struct vhd *v, uint32_t block, const uint8_t *bits) REQUIRES(v->maps_mu)
{
	struct bitmap *m;

	if (block_is(v, block, BLOCK_FULL) || find(v, block))
		return true;
	if (all_ones(v, bits)) {
		atomic_fetch_or(&v->state[block], BLOCK_FULL);
		return true;
	}
	m = calloc(1, sizeof *m + v->bitmap_bytes);
	if (!m)
		return false;
	m->block = block;
	memcpy(m->bits, bits, v->bitmap_bytes);
	m->next = v->map[block % MAP_BUCKETS];
	v->map[block % MAP_BUCKETS] = m;
	v->maps_bytes += v->bitmap_bytes;
	make_room(v);
	list_push_back(&v->maps_lru, &m->link);
	atomic_fetch_or(&v->state[block], BLOCK_PARTIAL);
	return true;
}

int vhd_bitmap_new(struct vhd *v, uint32_t block)
{
	AUTO(freep) uint8_t *none = calloc(1, v->bitmap_bytes);
	bool ok = false;

	lock_take(&v->maps_mu);
	if (none)
		ok = accept(v, block, none);
	lock_drop(&v->maps_mu);
	return ok ? 0 : -ENOMEM;
}

static bool unseen(const struct vhd *v, uint32_t block)
{
	return block < v->blocks && bat_get(v, block) != VHD_UNUSED && !block_is(v, block, BLOCK_FULL | BLOCK_PARTIAL);
}

/* The bitmaps of at most READ_AHEAD blocks come into memory, or blocks turn out to be full; the first has to. */
static int read_bitmaps(struct vhd *v, const uint32_t *blocks, uint32_t n)
{
	struct hio_req req[READ_AHEAD];
	struct iovec iov[READ_AHEAD];
	AUTO(freep) uint8_t *buf = hio_alloc((size_t)n * v->bitmap_bytes);
	uint64_t seq;
	bool ok;
	int err;

	if (!buf)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		iov[i] = (struct iovec){buf + (size_t)i * v->bitmap_bytes, v->bitmap_bytes};
		req[i] = (struct hio_req){.op = HIO_OP_READ,
					  .off = (uint64_t)bat_get(v, blocks[i]) * VHD_SECTOR,
					  .iov = &iov[i],
					  .niov = 1};
	}
	for (;;) {
		lock_take(&v->maps_mu);
		seq = v->maps_seq;
		lock_drop(&v->maps_mu);
		hio_run(v->io, req, n);
		if ((err = req[0].result) < 0)
			return err;
		lock_take(&v->maps_mu);
		ok = seq == v->maps_seq;
		for (uint32_t i = n; ok && i-- > 0;) /* the first last: it is not the first to leave */
			if (!req[i].result && !accept(v, blocks[i], iov[i].iov_base) && i == 0)
				err = -ENOMEM;
		lock_drop(&v->maps_mu);
		if (ok || err)
			return err;
	}
}

/* A reader that walks forward gets those of the next blocks in the same batch; not from a disk with a head, which would go to each,
 * and come back for the data behind it. */
static int load(struct vhd *v, uint32_t block)
{
	bool walking = !hio_is_rotational(v->io) && (block == 0 || block_is(v, block - 1, BLOCK_FULL | BLOCK_PARTIAL));
	uint32_t want = walking ? READ_AHEAD : 1, n = 0, blocks[READ_AHEAD];

	for (uint32_t b = block; b - block < want && (b == block || unseen(v, b)); b++)
		blocks[n++] = b;
	return read_bitmaps(v, blocks, n);
}

static bool in_memory(struct vhd *v, uint32_t block)
{
	bool found;

	lock_take(&v->maps_mu);
	found = find(v, block) != NULL;
	lock_drop(&v->maps_mu);
	return found;
}

int vhd_bitmap_load(struct vhd *v, uint32_t first, uint32_t n, bool *full)
{
	uint32_t blocks[READ_AHEAD], k = 0;
	int err = 0;

	*full = true;
	for (uint32_t b = first; b < first + n && !err; b++) {
		bool there = bat_get(v, b) != VHD_UNUSED;

		if (there && !block_is(v, b, BLOCK_FULL) && !(block_is(v, b, BLOCK_PARTIAL) && in_memory(v, b)))
			blocks[k++] = b;
		if (k && (k == READ_AHEAD || b + 1 == first + n)) {
			err = read_bitmaps(v, blocks, k);
			k = 0;
		}
	}
	for (uint32_t b = first; b < first + n && *full; b++)
		*full = block_is(v, b, BLOCK_FULL);
	return err;
}

/* How many bits from @s on, up to @end, are as it is. */
static uint32_t same_bits(const uint8_t *bits, uint32_t s, uint32_t end, bool *set)
{
	uint32_t i = s;

	*set = bits[s / 8] & 0x80 >> s % 8;
	while (i < end && !!(bits[i / 8] & 0x80 >> i % 8) == *set) {
		if (i % 8 == 0 && end - i >= 8 && bits[i / 8] == (*set ? 0xff : 0))
			i += 8;
		else
			i++;
	}
	return i - s;
}

int vhd_bitmap_run(struct vhd *v, uint32_t block, uint32_t s, uint32_t max, bool *set, uint32_t *n)
{
	for (;;) {
		struct bitmap *m;
		int err;

		if (block_is(v, block, BLOCK_FULL)) {
			*set = true;
			*n = max;
			return 0;
		}
		lock_take(&v->maps_mu);
		m = find(v, block);
		if (m) {
			*n = same_bits(m->bits, s, s + max, set);
			if (m->sets == m->sets_disk) {
				list_del(&m->link);
				list_push_back(&v->maps_lru, &m->link);
			}
		}
		lock_drop(&v->maps_mu);
		if (m)
			return 0;
		if ((err = load(v, block)) < 0)
			return err;
	}
}

static bool set_bits(uint8_t *bits, uint32_t s, uint32_t n)
{
	bool changed = false;

	for (uint32_t i = s; i < s + n;) {
		if (i % 8 == 0 && s + n - i >= 8) {
			changed |= bits[i / 8] != 0xff;
			bits[i / 8] = 0xff;
			i += 8;
		} else {
			changed |= !(bits[i / 8] & 0x80 >> i % 8);
			bits[i / 8] |= (uint8_t)(0x80 >> i % 8);
			i++;
		}
	}
	return changed;
}

int vhd_bitmap_set(struct vhd *v, uint32_t block, uint32_t s, uint32_t n)
{
	for (;;) {
		struct bitmap *m;
		int err;

		if (block_is(v, block, BLOCK_FULL))
			return 0;
		lock_take(&v->maps_mu);
		m = find(v, block);
		if (m && set_bits(m->bits, s, n)) {
			if (m->sets++ == m->sets_disk) {
				list_del(&m->link);
				list_push_back(&v->maps_dirty, &m->link);
				v->maps_ndirty++;
			}
			m->changed = true;
			/* Full already for readers; the flush still has to write it. */
			if (all_ones(v, m->bits))
				atomic_fetch_or(&v->state[block], BLOCK_FULL);
		}
		lock_drop(&v->maps_mu);
		if (m)
			return 0;
		if ((err = load(v, block)) < 0)
			return err;
	}
}

bool vhd_bitmap_pressure(struct vhd *v)
{
	bool full;

	lock_take(&v->maps_mu);
	full = v->maps_ndirty > DIRTY_MAX;
	lock_drop(&v->maps_mu);
	return full;
}

/* ---- writing back ---------------------------------------------------------------------------------------------------- */

struct bitmap_save {
	uint32_t n;
	struct saved {
		uint32_t block, sets;
	} * of;
	uint8_t *bits; /* n of them */
};

void vhd_bitmap_save_free(struct bitmap_save *save)
{
	if (!save)
		return;
	free(save->of);
	free(save->bits);
	free(save);
}

uint32_t vhd_bitmap_saved(const struct bitmap_save *save)
{
	return save->n;
}

int vhd_bitmap_save(struct vhd *v, struct bitmap_save **out)
{
	struct bitmap_save *save = calloc(1, sizeof *save);
	uint64_t n;

	if (!save)
		return -ENOMEM;
	lock_take(&v->maps_mu);
	n = v->maps_ndirty;
	save->of = malloc((size_t)(n + 1) * sizeof *save->of);
	save->bits = hio_alloc((size_t)n * v->bitmap_bytes);
	if (save->of && save->bits)
		list_for_each (it, &v->maps_dirty) {
			struct bitmap *m = list_entry(it, struct bitmap, link);

			memcpy(save->bits + (size_t)save->n * v->bitmap_bytes, m->bits, v->bitmap_bytes);
			save->of[save->n++] = (struct saved){m->block, m->sets};
		}
	lock_drop(&v->maps_mu);
	if (!save->of || !save->bits) {
		vhd_bitmap_save_free(save);
		return -ENOMEM;
	}
	*out = save;
	return 0;
}

static void written(struct vhd *v, const struct saved *s)
{
	struct bitmap *m;

	lock_take(&v->maps_mu);
	m = find(v, s->block);
	if (m && m->sets != m->sets_disk) {
		m->sets_disk = s->sets;
		if (m->sets == m->sets_disk) {
			list_del(&m->link);
			list_push_back(&v->maps_lru, &m->link);
			v->maps_ndirty--;
			if (block_is(v, s->block, BLOCK_FULL))
				drop(v, m);
			make_room(v);
		}
	}
	lock_drop(&v->maps_mu);
}

int vhd_bitmap_write(struct vhd *v, struct bitmap_save *save)
{
	enum { BATCH = 64 };
	struct hio_req req[BATCH];
	struct iovec iov[BATCH];
	int err = 0;

	for (uint32_t i = 0; i < save->n;) {
		uint32_t k = 0;

		for (; k < BATCH && i + k < save->n; k++) {
			iov[k] = (struct iovec){save->bits + (size_t)(i + k) * v->bitmap_bytes, v->bitmap_bytes};
			req[k] = (struct hio_req){.op = HIO_OP_WRITE,
						  .iov = &iov[k],
						  .niov = 1,
						  .off = (uint64_t)bat_get(v, save->of[i + k].block) * VHD_SECTOR};
		}
		hio_run(v->io, req, k);
		for (uint32_t j = 0; j < k; j++)
			if (!req[j].result)
				written(v, &save->of[i + j]);
			else if (!err)
				err = req[j].result;
		i += k;
	}
	return err;
}

void vhd_bitmap_free_all(struct vhd *v)
{
	for (uint32_t i = 0; i < MAP_BUCKETS; i++)
		while (v->map[i]) {
			struct bitmap *m = v->map[i];

			v->map[i] = m->next;
			free(m);
		}
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * alloc.c - new blocks, the table, and the order in which they reach the disk
 *
 * Rules:
 *  1. A block is placed behind everything else, its data on a 4 KiB boundary, its bitmap just before it; what is in front of
 *     the first block (batmap, locators, slack) is never written to.
 *  2. The tail footer is moved before the space in front of it is used. It moves by many blocks at a time; its old place is
 *     never made part of a block, so it cannot show up as data, and it stays whole until the new one is on the disk. Before it
 *     moves for the first time, the copy at the start is made good: at every cut one of the two can be read.
 *  3. A block's data reads as zeros before its number appears in bat[]. Space that the file had when it was opened may hold old
 *     bytes: it is punched first. Space that the file grew into is zeros already.
 *  4. The table on disk names a block only after its bitmap (all ones; of a child all zeros, then rule 5), what was written to it, and the footer behind it are on
 *     stable storage: a flush writes bitmaps, syncs, writes the entries that are pending, and syncs again, however many there are.
 *  5. A bitmap on disk of a block that was there before gets a bit only after the sector is on stable storage: bitmaps are copied
 *     before the first sync of a flush and written between the two.
 *  6. After a failed sync nothing is reported as stable any more, and nothing new is allocated; what there is stays readable.
 *     A write of our own metadata that fails is tried again by the next flush.
 *
 * So at any cut the image opens, everything flushed is found, and at worst space behind the last block is unused; an image of
 * our own making uses it again.
 *
 *         bat[b] unused ──vhd_block_ready──► placed, pending ──flush──► ON_DISK
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/image/vhd_int.h"

#define AHEAD_BYTES (64u << 20) /* room that is made at a time, at most */
#define FILE_MAX (UINT64_C(0xffffffff) * VHD_SECTOR)

static int fail(struct vhd *v, int err)
{
	int none = 0;

	atomic_compare_exchange_strong(&v->failed, &none, err);
	return err;
}

/* A sync that failed is never made good, whatever it failed with: a host that had no room then may have it now, and what it did not
 * write is lost all the same. So the caller must not take it for an error that passes. Of other errors the next flush may be free. */
static int sync_file(struct vhd *v)
{
	int err = hio_flush(v->io);

	return err == -ENOSPC ? fail(v, -EIO) : err ? fail(v, err) : 0;
}

/* ---- places -------------------------------------------------------------------------------------------------------------- */

/* Rule 2: with a damaged copy at the start, the footer at the end must not be touched. */
static int mend_head(struct vhd *v) REQUIRES(v->mu)
{
	int err;

	if (!v->head_dirty)
		return 0;
	if ((err = hio_write(v->io, &v->footer, sizeof v->footer, 0)) < 0 || (err = sync_file(v)) < 0)
		return err;
	v->head_dirty = false;
	return 0;
}

static int move_tail(struct vhd *v, uint64_t at) REQUIRES(v->mu)
{
	int err = hio_write(v->io, &v->footer, sizeof v->footer, at);

	if (!err) {
		v->footer_at = at;
		v->tail_dirty = false;
		v->grown = true;
	} else if (!v->tail_dirty) {
		/* The file may be longer now: the old footer has to be its end again. */
		hio_truncate(v->io, v->footer_at + sizeof v->footer);
	}
	return err;
}

/* The footer goes behind `need`, with some room in between when the host has it. */
static int grow(struct vhd *v, uint64_t need) REQUIRES(v->mu)
{
	uint64_t whole = (uint64_t)v->bitmap_room + v->block_size, room = (v->ahead - 1) * whole;
	int err = mend_head(v);

	if (err)
		return err;
	if (room && need + room <= FILE_MAX && move_tail(v, need + room) == 0) {
		if (v->ahead * 2 * whole <= AHEAD_BYTES)
			v->ahead *= 2;
		return 0;
	}
	err = move_tail(v, need);
	if (!err && v->ahead == 1 && 2 * whole <= AHEAD_BYTES)
		v->ahead = 2;
	return err;
}

/* Room in pending[] for every allocation that may be under way: one per latch. */
static int reserve_pending(struct vhd *v) REQUIRES(v->mu)
{
	uint32_t cap = v->pending_cap ? v->pending_cap * 2 : 4 * LATCHES;
	uint32_t *p;

	if (v->npending + LATCHES <= v->pending_cap)
		return 0;
	p = realloc(v->pending, cap * sizeof *p);
	if (!p)
		return -ENOMEM;
	v->pending = p;
	v->pending_cap = cap;
	return 0;
}

/* Rules 1 to 3 up to the place: where a new block's data goes. */
int vhd_take_place(struct vhd *v, uint64_t *data)
{
	uint64_t from, after = 0, stale = 0;
	int err;

	lock_take(&v->mu);
	err = atomic_load(&v->failed);
	if (err)
		goto out;
	from = round_up_u64(v->end, HIO_ALIGN);
	after = from + v->bitmap_room + v->block_size;
	/* The present footer stays whole: step over it. */
	if (from < v->footer_at + VHD_SECTOR && after > v->footer_at) {
		from = round_up_u64(v->footer_at + VHD_SECTOR, HIO_ALIGN);
		after = from + v->bitmap_room + v->block_size;
	}
	if (after > FILE_MAX)
		err = -EFBIG;
	else
		err = reserve_pending(v);
	if (!err && after > v->footer_at)
		err = grow(v, after);
	if (err)
		goto out;
	*data = from + v->bitmap_room;
	v->end = after;
	stale = v->stale_end;
out:
	lock_drop(&v->mu);
	if (!err && from < stale)
		err = hio_punch(v->io, from, min_u64(stale, after) - from);
	return err;
}

static int allocate(struct vhd *v, uint32_t block)
{
	uint64_t data = 0;
	int err;

	/* What fails in here leaves space unused at worst: rule 3 keeps it from being seen. */
	if ((err = vhd_take_place(v, &data)) < 0)
		return err;
	if (v->type != VHD_DIFF)
		atomic_fetch_or(&v->state[block], BLOCK_FULL);
	else if ((err = vhd_bitmap_new(v, block)) < 0)
		return err;
	/* Together: whoever sees the place and then flushes must find the block pending. */
	lock_take(&v->mu);
	v->pending[v->npending++] = block;
	atomic_store_explicit(&v->bat[block], (uint32_t)((data - v->bitmap_bytes) / VHD_SECTOR), memory_order_release);
	lock_drop(&v->mu);
	return 0;
}

int vhd_block_ready(struct vhd *v, uint32_t block)
{
	struct lock *latch = &v->latch[block % LATCHES];
	int err = 0;

	if (bat_get(v, block) != VHD_UNUSED)
		return 0;
	lock_take(latch);
	if (bat_get(v, block) == VHD_UNUSED)
		err = allocate(v, block);
	lock_drop(latch);
	return err;
}

/* ---- flush --------------------------------------------------------------------------------------------------------------- */

#define BATCH 64u

/* In whole units of the host: the room in front of the bitmap is the block's own. Blocks that are ON_DISK have theirs there since a
 * flush that failed later, and bits in it. */
static int write_new_bitmaps(struct vhd *v, const uint32_t *block, uint32_t n)
{
	AUTO(freep) uint8_t *buf = n ? hio_alloc(v->bitmap_room) : NULL;
	uint32_t slack = v->bitmap_room - v->bitmap_bytes;
	struct iovec iov = {buf, v->bitmap_room};
	struct hio_req req[BATCH];
	int err = 0;

	if (!n)
		return 0;
	if (!buf)
		return -ENOMEM;
	memset(buf, 0, slack);
	memset(buf + slack, v->type == VHD_DIFF ? 0 : 0xff, v->bitmap_bytes);
	for (uint32_t i = 0, k; i < n && !err;) {
		for (k = 0; k < BATCH && i < n; i++)
			if (!block_is(v, block[i], BLOCK_ON_DISK))
				req[k++] = (struct hio_req){.op = HIO_OP_WRITE,
							    .off = (uint64_t)bat_get(v, block[i]) * VHD_SECTOR - slack,
							    .iov = &iov,
							    .niov = 1};
		err = hio_run(v->io, req, k);
	}
	return err;
}

static int by_number(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* Write the table's sectors [first, last] as the disk may see them: entries that are not to be there yet are unused. */
static int write_sectors(struct vhd *v, uint32_t first, uint32_t last)
{
	const uint32_t per = VHD_SECTOR / 4;
	uint64_t off = (uint64_t)first * VHD_SECTOR;
	uint64_t len = min_u64((uint64_t)(last - first + 1) * VHD_SECTOR, v->table_bytes - off);
	AUTO(freep) be32 *buf = hio_alloc(len);

	if (!buf)
		return -ENOMEM;
	for (uint32_t k = 0; k < len / 4; k++) {
		uint32_t b = first * per + k;

		buf[k] = be32_of(block_is(v, b, BLOCK_ON_DISK) ? bat_get(v, b) : VHD_UNUSED);
	}
	return hio_write(v->io, buf, len, v->table_off + off);
}

/* The table's sectors that hold these blocks (sorted), neighbours together. */
int vhd_write_entries(struct vhd *v, const uint32_t *block, uint32_t n)
{
	const uint32_t per = VHD_SECTOR / 4, most = 2048;
	int err = 0;

	for (uint32_t i = 0; i < n && !err;) {
		uint32_t first = block[i] / per, last = first;

		while (i < n && block[i] / per <= last + 1 && block[i] / per - first < most)
			last = block[i++] / per;
		err = write_sectors(v, first, last);
	}
	return err;
}

static int begin_flush(struct vhd *v, uint32_t **block, uint32_t *n)
{
	int err = 0;

	lock_take(&v->mu);
	if (v->tail_dirty)
		err = move_tail(v, v->footer_at);
	if (!err)
		err = mend_head(v);
	*n = v->npending;
	*block = malloc(((size_t)*n + 1) * sizeof **block);
	if (*block && *n)
		memcpy(*block, v->pending, *n * sizeof **block);
	else if (!*block)
		err = -ENOMEM;
	lock_drop(&v->mu);
	return err;
}

static void end_flush(struct vhd *v, uint32_t n)
{
	lock_take(&v->mu);
	v->npending -= n;
	memmove(v->pending, v->pending + n, v->npending * sizeof *v->pending);
	lock_drop(&v->mu);
}

static int flush_dynamic(struct vhd *v)
{
	AUTO(freep) uint32_t *block = NULL;
	struct bitmap_save *maps = NULL;
	bool any;
	uint32_t n;
	int err;

	/* In this order: a block whose bits are saved is pending in the copy too, unless the table names it already. With bits that are
	 * written before their block's first bitmap, which is empty, the next flush would wipe them out. */
	if ((err = vhd_bitmap_save(v, &maps)) < 0)
		return err;
	if ((err = begin_flush(v, &block, &n)) < 0)
		goto out;
	any = n || vhd_bitmap_saved(maps);
	/* Rules 4 and 5: first what is named, then the names. */
	if ((err = write_new_bitmaps(v, block, n)) < 0 || (err = sync_file(v)) < 0 || !any)
		goto out;
	for (uint32_t i = 0; i < n; i++)
		atomic_fetch_or(&v->state[block[i]], BLOCK_ON_DISK);
	qsort(block, n, sizeof *block, by_number);
	if ((err = vhd_write_entries(v, block, n)) < 0 || (err = vhd_bitmap_write(v, maps)) < 0 ||
	    (err = sync_file(v)) < 0)
		goto out;
	if (n)
		end_flush(v, n);
out:
	vhd_bitmap_save_free(maps);
	return err;
}

int vhd_flush(struct vhd *v)
{
	int err;

	if (!v->writable)
		return 0;
	lock_take(&v->flush_mu);
	err = atomic_load(&v->failed);
	if (!err && atomic_exchange(&v->wrote, false)) {
		err = v->type == VHD_FIXED ? sync_file(v) : flush_dynamic(v);
		if (err)
			atomic_store(&v->wrote, true);
	}
	lock_drop(&v->flush_mu);
	return err;
}

int vhd_trim_tail(struct vhd *v)
{
	uint64_t at;
	int err = 0;

	if (v->type == VHD_FIXED)
		return 0;
	lock_take(&v->mu);
	at = round_up_u64(v->end, VHD_SECTOR);
	if (v->grown && at < v->footer_at) {
		/* Both footers are good until the file is cut. */
		err = hio_write(v->io, &v->footer, sizeof v->footer, at);
		if (!err)
			err = sync_file(v);
		if (!err)
			err = hio_truncate(v->io, at + sizeof v->footer);
		if (!err)
			err = sync_file(v);
		if (!err)
			v->footer_at = at;
	}
	lock_drop(&v->mu);
	return err;
}

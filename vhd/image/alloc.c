/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * alloc.c - new blocks, the table, and the order in which they reach the disk
 *
 * Rules:
 *  1. A block is placed behind everything else, its data on a 4 KiB boundary, its bitmap just before it.
 *  2. The tail footer is moved before the space in front of it is used. It moves by many blocks at a time; its old place is
 *     never made part of a block, so nothing has to be written over it.
 *  3. A block's data reads as zeros and its bitmap is all ones before its number appears in bat[]. Space that the file had
 *     when it was opened may hold old bytes: it is punched first. Space that the file grew into is zeros already.
 *  4. The table on disk names a block only after block, bitmap and footer are on stable storage: vhd_flush() syncs, writes
 *     the entries that are pending, and syncs again, however many they are.
 *  5. After a failure to write our own metadata nothing more is allocated; what is allocated stays readable.
 *
 * So at any cut the image opens, everything flushed is found, and at worst space behind the last block is unused; it is
 * used again by the next opener.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/image/vhd_int.h"

#define AHEAD_BYTES (64u << 20) /* room that is made at a time, at most */
#define FILE_MAX (UINT64_C(0xffffffff) * VHD_SECTOR)

/* Rule 2: the footer goes behind [.., need). */
static int grow(struct vhd *v, uint64_t need) REQUIRES(v->mu)
{
	uint64_t whole = round_up_u64((uint64_t)v->bitmap_bytes + v->block_size, HIO_ALIGN);
	uint64_t at = need + (uint64_t)(v->ahead - 1) * whole;
	int err;

	at = round_up_u64(at, VHD_SECTOR);
	if (at > FILE_MAX)
		at = round_up_u64(need, VHD_SECTOR);
	err = hio_write(v->io, &v->footer, sizeof v->footer, at);
	if (err)
		return err;
	v->footer_at = at;
	v->footer_dirty = false;
	if ((uint64_t)v->ahead * 2 * whole <= AHEAD_BYTES)
		v->ahead *= 2;
	return 0;
}

/* Rules 1 to 3 up to the place: where a new block's bitmap goes, as a byte offset. */
static int take_place(struct vhd *v, uint64_t *at)
{
	uint64_t data, after, stale = 0;
	int err = 0;

	lock_take(&v->mu);
	err = v->failed;
	if (err)
		goto out;
	data = round_up_u64(v->end + v->bitmap_bytes, HIO_ALIGN);
	/* The present footer stays whole until the new one is there: step over it. */
	if (data + v->block_size > v->footer_at && data - v->bitmap_bytes < v->footer_at + VHD_SECTOR)
		data = round_up_u64(v->footer_at + VHD_SECTOR + v->bitmap_bytes, HIO_ALIGN);
	after = data + v->block_size;
	if (after > FILE_MAX) {
		err = -EFBIG;
		goto out;
	}
	if (after > v->footer_at && (err = grow(v, after)) < 0) {
		if (err != -ENOSPC)
			v->failed = err;
		goto out;
	}
	*at = data - v->bitmap_bytes;
	v->end = after;
	stale = v->stale_end;
out:
	lock_drop(&v->mu);
	if (!err && *at < stale)
		err = hio_punch(v->io, *at, min_u64(stale, after) - *at);
	return err;
}

static int add_pending(struct vhd *v, uint32_t block)
{
	int err = 0;

	lock_take(&v->mu);
	if (v->npending == v->pending_cap) {
		uint32_t cap = v->pending_cap ? v->pending_cap * 2 : 64;
		uint32_t *p = realloc(v->pending, cap * sizeof *p);

		if (p) {
			v->pending = p;
			v->pending_cap = cap;
		} else {
			err = -ENOMEM;
		}
	}
	if (!err)
		v->pending[v->npending++] = block;
	lock_drop(&v->mu);
	return err;
}

static int write_full_bitmap(struct vhd *v, uint64_t at)
{
	AUTO(freep) uint8_t *ones = malloc(v->bitmap_bytes);

	if (!ones)
		return -ENOMEM;
	memset(ones, 0xff, v->bitmap_bytes);
	return hio_write(v->io, ones, v->bitmap_bytes, at);
}

static int allocate(struct vhd *v, uint32_t block)
{
	uint64_t at = 0;
	int err;

	/* Every one of these may fail and leave space unused: rule 3 keeps it from being seen. */
	if ((err = take_place(v, &at)) < 0 || (err = write_full_bitmap(v, at)) < 0 || (err = add_pending(v, block)) < 0)
		return err;
	atomic_store_explicit(&v->state[block], BLOCK_FULL, memory_order_relaxed);
	atomic_store_explicit(&v->bat[block], (uint32_t)(at / VHD_SECTOR), memory_order_release);
	return 0;
}

/* A block that others left with a partial bitmap: its missing sectors become zeros on disk, then its bitmap all ones. */
static int complete(struct vhd *v, uint32_t block, uint32_t entry)
{
	uint32_t sectors = v->block_size / VHD_SECTOR;
	AUTO(freep) uint8_t *bits = malloc(v->bitmap_bytes);
	enum block_state st;
	int err;

	if (!bits)
		return -ENOMEM;
	if ((err = vhd_block_state(v, block, entry, bits, &st)) < 0 || st == BLOCK_FULL)
		return err;
	for (uint32_t i = 0; i < sectors;) {
		uint32_t from = i;

		while (i < sectors && !(bits[i / 8] & 0x80 >> i % 8))
			i++;
		if (i > from && (err = hio_punch(v->io, bat_data(v, entry) + (uint64_t)from * VHD_SECTOR,
						 (uint64_t)(i - from) * VHD_SECTOR)) < 0)
			return err;
		while (i < sectors && bits[i / 8] & 0x80 >> i % 8)
			i++;
	}
	if ((err = write_full_bitmap(v, (uint64_t)entry * VHD_SECTOR)) < 0)
		return err;
	atomic_store_explicit(&v->state[block], BLOCK_FULL, memory_order_release);
	vhd_forget_map(v, block);
	return 0;
}

int vhd_block_ready(struct vhd *v, uint32_t block)
{
	struct lock *latch = &v->latch[block % LATCHES];
	uint32_t entry = atomic_load_explicit(&v->bat[block], memory_order_acquire);
	int err;

	if (entry != VHD_UNUSED && atomic_load_explicit(&v->state[block], memory_order_acquire) == BLOCK_FULL)
		return 0;
	lock_take(latch);
	entry = atomic_load_explicit(&v->bat[block], memory_order_acquire);
	err = entry == VHD_UNUSED ? allocate(v, block) : complete(v, block, entry);
	lock_drop(latch);
	return err;
}

/* ---- the table -------------------------------------------------------------------------------------------------------- */

static int by_number(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* Write the table's sectors that hold these blocks, neighbours together. */
static int write_entries(struct vhd *v, uint32_t *block, uint32_t n)
{
	const uint32_t per = VHD_SECTOR / 4;
	AUTO(freep) be32 *buf = NULL;
	int err = 0;

	qsort(block, n, sizeof *block, by_number);
	for (uint32_t i = 0; i < n && !err;) {
		uint32_t first = block[i] / per, last = first, count;

		while (i < n && block[i] / per <= last + 1 && block[i] / per - first < 512)
			last = block[i++] / per;
		count = (last - first + 1) * per;
		free(buf);
		buf = malloc((size_t)count * 4);
		if (!buf)
			return -ENOMEM;
		lock_take(&v->mu);
		for (uint32_t k = 0; k < count; k++) {
			uint64_t b = (uint64_t)first * per + k;

			buf[k] = be32_of(b < v->blocks ? v->bat_disk[b] : VHD_UNUSED);
		}
		lock_drop(&v->mu);
		/* Entries past the disk's last block are not ours: a larger table keeps what it had. */
		count = (uint32_t)min_u64(count, v->blocks - (uint64_t)first * per);
		err = hio_write(v->io, buf, (size_t)count * 4, v->table_off + (uint64_t)first * VHD_SECTOR);
	}
	return err;
}

static int fail(struct vhd *v, int err)
{
	lock_take(&v->mu);
	if (!v->failed)
		v->failed = err;
	lock_drop(&v->mu);
	return err;
}

static int flush_dynamic(struct vhd *v)
{
	AUTO(freep) uint32_t *block = NULL;
	uint64_t footer_at;
	uint32_t n;
	bool dirty;
	int err;

	lock_take(&v->mu);
	block = v->pending;
	n = v->npending;
	v->pending = NULL;
	v->npending = v->pending_cap = 0;
	dirty = v->footer_dirty;
	footer_at = v->footer_at;
	v->footer_dirty = false;
	lock_drop(&v->mu);

	if (dirty && (err = hio_write(v->io, &v->footer, sizeof v->footer, footer_at)) < 0)
		return fail(v, err);
	if ((err = hio_flush(v->io)) < 0 || n == 0)
		return err ? fail(v, err) : 0;
	lock_take(&v->mu);
	for (uint32_t i = 0; i < n; i++)
		v->bat_disk[block[i]] = atomic_load_explicit(&v->bat[block[i]], memory_order_relaxed);
	lock_drop(&v->mu);
	if ((err = write_entries(v, block, n)) < 0 || (err = hio_flush(v->io)) < 0)
		return fail(v, err);
	return 0;
}

int vhd_flush(struct vhd *v)
{
	int err;

	if (!v->writable)
		return 0;
	if (v->type == VHD_FIXED)
		return hio_flush(v->io);
	lock_take(&v->flush_mu);
	lock_take(&v->mu);
	err = v->failed;
	lock_drop(&v->mu);
	if (!err)
		err = flush_dynamic(v);
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
	/* Only room that was made here is given back: what an opener found stays as it was. */
	if (v->ahead > 1 && at < v->footer_at && at >= v->stale_end) {
		err = hio_write(v->io, &v->footer, sizeof v->footer, at);
		if (!err)
			err = hio_flush(v->io);
		if (!err)
			err = hio_truncate(v->io, at + sizeof v->footer);
		if (!err)
			v->footer_at = at;
	}
	lock_drop(&v->mu);
	return err;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * modify.c - see modify.h
 *
 * To make room for a longer table of a dynamic image:
 *
 *     [head][header][table][b0][b1][b2]…[footer]
 *     [head][header][table][b0][b1][b2]…[b0'][b1'][footer]      1. copies behind the last block, synced
 *     [head][header][table]            …[b0'][b1'][footer]      2. the table names the copies, synced
 *     [head][header][table       ] …                            3. the table's new part is "unused", synced
 *                                                               4. the header says so, synced; 5. the footers say the size
 */
#include "vhd/image/modify.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/image/vhd_int.h"

#define PIECE (1u << 20)

typedef unsigned long long ull;

/* The copy, then the footer, each on stable storage. */
static int write_footers(struct vhd *v, uint64_t tail)
{
	int err = 0;

	vhd_footer_seal(&v->footer);
	if (v->type != VHD_FIXED && (err = hio_write(v->io, &v->footer, sizeof v->footer, 0)) == 0)
		err = hio_flush(v->io);
	if (!err && (err = hio_write(v->io, &v->footer, sizeof v->footer, tail)) == 0)
		err = hio_flush(v->io);
	return err;
}

static uint64_t tail_of(const struct vhd *v) NO_THREAD_SAFETY
{
	return v->type == VHD_FIXED ? v->tail_at : v->footer_at;
}

/* The footer stays as it is when a field is refused: closing may write it. */
static int take_fields(struct vhd *v, const struct vhd_fields *f, struct why *why)
{
	struct vhd_footer to = v->footer;

	if (f->set_creator)
		memcpy(to.creator, f->creator, sizeof to.creator);
	if (f->set_uuid)
		memcpy(to.uuid, f->uuid, sizeof to.uuid);
	if (f->set_time)
		to.timestamp = be32_of((uint32_t)(f->time - VHD_EPOCH));
	if (f->set_geometry) {
		bool max = f->cylinders == 65535 && f->heads == 16 && f->sectors == 255;

		to.cylinders = be16_of(f->cylinders);
		to.heads = f->heads;
		to.sectors = f->sectors;
		if (!max && vhd_chs_size(&to) > be64_get(to.current_size))
			return why_set(why, -EINVAL, "%s: geometry %u/%u/%u holds %llu bytes, the disk has %llu",
				       vhd_path(v), f->cylinders, f->heads, f->sectors, (ull)vhd_chs_size(&to),
				       (ull)be64_get(to.current_size));
	}
	v->footer = to;
	return 0;
}

/* Both footers are good before one of them is changed: a flush mends the other. */
static int open_mended(struct vhd **v, const char *path, unsigned flags, struct why *why)
{
	const struct vhd_open_opts o = {.flags = flags};
	int err = vhd_open(v, path, &o, why);

	if (err)
		return err;
	err = vhd_flush(*v);
	return err ? why_set(why, err, "%s: %s", path, strerror(-err)) : 0;
}

int vhd_set_fields(const char *path, const struct vhd_fields *f, struct why *why)
{
	AUTO(vhd_closep) struct vhd *v = NULL;
	int err = open_mended(&v, path, VHD_OPEN_WRITE | VHD_OPEN_ALONE, why);

	if (err || (err = take_fields(v, f, why)) < 0)
		return err;
	err = write_footers(v, tail_of(v));
	return err ? why_set(why, err, "%s: %s", path, strerror(-err)) : 0;
}

/* ---- size ------------------------------------------------------------------------------------------------------------------- */

/* Is there anything but zeros from @from on? */
static int check_free(struct vhd *v, uint64_t from, struct why *why)
{
	AUTO(freep) uint8_t *buf = hio_alloc(PIECE);
	uint64_t data, end, at = from;
	int err = buf ? 0 : -ENOMEM;

	while (!err && at < v->size) {
		if ((err = vhd_next_data(v, at, &data, &end)) < 0 || data >= v->size)
			break;
		at = round_down_u64(max_u64(data, from), VHD_SECTOR);
		for (end = min_u64(round_up_u64(end, VHD_SECTOR), v->size); !err && at < end;) {
			uint64_t n = min_u64(end - at, PIECE);

			err = vhd_read(v, buf, n, at);
			for (uint64_t i = 0; !err && i < n; i++)
				if (buf[i])
					return why_set(why, -ENOTEMPTY,
						       "%s: there is data at byte %llu, behind the new end at %llu",
						       vhd_path(v), (ull)(at + i), (ull)from);
			at += n;
		}
	}
	return err;
}

static void set_size(struct vhd *v, uint64_t size)
{
	uint16_t c;
	uint8_t h, s;

	vhd_geometry(size / VHD_SECTOR, &c, &h, &s);
	v->footer.current_size = be64_of(size);
	v->footer.cylinders = be16_of(c);
	v->footer.heads = h;
	v->footer.sectors = s;
}

static int resize_fixed(struct vhd *v, uint64_t size)
{
	uint64_t old = tail_of(v);
	int err;

	set_size(v, size);
	if (size >= old) {
		/* The old footer becomes part of the disk, which reads as zeros there; after a crash before that, as the footer. */
		if ((err = write_footers(v, size)) < 0)
			return err;
		if (size > old)
			err = hio_punch(v->io, old, min_u64(VHD_SECTOR, size - old));
		return err ? err : hio_flush(v->io);
	}
	/* A crash before the cut leaves the old size, with one sector of its zeros written over. */
	if ((err = write_footers(v, size)) < 0 || (err = hio_truncate(v->io, size + VHD_SECTOR)) < 0)
		return err;
	return hio_flush(v->io);
}

static int copy_range(struct vhd *v, uint64_t from, uint64_t to, uint64_t len, uint8_t *buf)
{
	int err = 0;

	for (uint64_t at = 0; !err && at < len; at += PIECE) {
		size_t n = (size_t)min_u64(len - at, PIECE);

		err = hio_read(v->io, buf, n, from + at);
		if (!err)
			err = hio_write(v->io, buf, n, to + at);
	}
	return err;
}

/* Entries past the disk's end, of whoever made it smaller: what they name is not known to be free, or zeros. */
static int drop_spare(struct vhd *v)
{
	enum { BATCH = 1024 };
	uint32_t batch[BATCH], n = 0;
	bool any = false;
	int err = 0;

	for (uint32_t i = v->blocks; !err && i < v->entries; i++) {
		if (bat_get(v, i) != VHD_UNUSED) {
			atomic_store(&v->bat[i], VHD_UNUSED);
			batch[n++] = i;
			any = true;
		}
		if (n == BATCH || (n && i + 1 == v->entries)) {
			err = vhd_write_entries(v, batch, n);
			n = 0;
		}
	}
	return err || !any ? err : hio_flush(v->io);
}

/* The footer of an image with few blocks lies where the table will be. */
static int push_footer(struct vhd *v, uint64_t limit)
{
	int err = 0;

	lock_take(&v->mu);
	v->end = max_u64(v->end, limit);
	if (v->footer_at < limit) {
		if ((err = hio_write(v->io, &v->footer, sizeof v->footer, limit)) == 0 &&
		    (err = hio_flush(v->io)) == 0) {
			v->footer_at = limit;
			v->grown = true;
		}
	}
	lock_drop(&v->mu);
	return err;
}

/* Steps 1 and 2: nothing lies below @limit afterwards. */
static int clear_way(struct vhd *v, uint64_t limit)
{
	uint64_t whole = (uint64_t)v->bitmap_bytes + v->block_size;
	AUTO(freep) uint32_t *moved = malloc((v->entries + 1) * sizeof *moved);
	AUTO(freep) uint8_t *buf = hio_alloc(PIECE);
	uint32_t n = 0;
	int err = moved && buf ? 0 : -ENOMEM;

	for (uint32_t i = 0; !err && i < v->entries; i++) {
		uint64_t at = (uint64_t)bat_get(v, i) * VHD_SECTOR, data;

		if (bat_get(v, i) == VHD_UNUSED || at >= limit)
			continue;
		if ((err = vhd_take_place(v, &data)) < 0 ||
		    (err = copy_range(v, at, data - v->bitmap_bytes, whole, buf)) < 0)
			return err;
		atomic_store(&v->bat[i], (uint32_t)((data - v->bitmap_bytes) / VHD_SECTOR));
		moved[n++] = i;
	}
	if (err || !n || (err = hio_flush(v->io)) < 0 || (err = vhd_write_entries(v, moved, n)) < 0)
		return err;
	return hio_flush(v->io);
}

/* Steps 3 and 4. */
static int lengthen(struct vhd *v, uint32_t entries, uint64_t table)
{
	uint64_t from = v->table_off + v->table_bytes, n = v->table_off + table - from;
	struct vhd_dynamic *d = &v->header;
	AUTO(freep) uint8_t *ones = hio_alloc(n ? n : 1);
	int err = ones ? 0 : -ENOMEM;

	if (!err && n) {
		memset(ones, 0xff, n);
		err = hio_write(v->io, ones, n, from);
	}
	/* The padding of the old table's last sector becomes entries. */
	for (uint32_t i = v->entries; !err && i < v->padded; i++)
		atomic_store(&v->bat[i], VHD_UNUSED);
	if (!err && v->padded > v->entries) {
		uint32_t last = v->entries;

		err = vhd_write_entries(v, &last, 1);
	}
	if (err || (err = hio_flush(v->io)) < 0)
		return err;
	d->max_table_entries = be32_of(entries);
	d->checksum = be32_of(vhd_checksum(d, sizeof *d, offsetof(struct vhd_dynamic, checksum)));
	/* Both fields lie in the first sector: old or new, nothing in between. */
	err = hio_write(v->io, d, VHD_SECTOR, v->data_off);
	return err ? err : hio_flush(v->io);
}

/* The table is not the last of the metadata: what follows it would have to move. */
static bool has_followers(const struct vhd *v)
{
	return v->batmap || v->meta_end > round_up_u64(v->table_off + v->table_bytes, VHD_SECTOR) ||
	       v->data_off > v->table_off;
}

static int resize_dynamic(struct vhd *v, uint64_t size, struct why *why)
{
	uint32_t blocks = (uint32_t)((size + v->block_size - 1) / v->block_size);
	uint64_t table = round_up_u64((uint64_t)blocks * 4, VHD_SECTOR);
	int err = blocks > v->blocks ? drop_spare(v) : 0;

	if (err)
		return err;
	if (blocks > v->entries) {
		if (blocks > VHD_ENTRIES_MAX)
			return why_set(why, -EFBIG,
				       "%s: a table of %u entries, for blocks of %u bytes: at most %u are supported",
				       vhd_path(v), blocks, v->block_size, VHD_ENTRIES_MAX);
		if (has_followers(v))
			return why_set(why, -ENOTSUP,
				       "%s: other metadata follows its table, which cannot grow; \"vhdnfs image "
				       "convert\" to a "
				       "new image can",
				       vhd_path(v));
		table = max_u64(table, v->table_bytes);
		if ((err = push_footer(v, v->table_off + table)) < 0 ||
		    (err = clear_way(v, v->table_off + table)) < 0 || (err = lengthen(v, blocks, table)) < 0)
			return err;
	}
	set_size(v, size);
	return write_footers(v, tail_of(v));
}

int vhd_resize(const char *path, uint64_t size, bool exact, struct why *why)
{
	AUTO(vhd_closep) struct vhd *v = NULL;
	int err;

	size = exact ? round_up_u64(size, VHD_SECTOR) : vhd_round_size(size);
	if (!size || size > VHD_MAX_SIZE)
		return why_set(why, -EINVAL, "%s: size %llu: expected 1 byte to 2040 GiB", path, (ull)size);
	if ((err = open_mended(&v, path, VHD_OPEN_WRITE, why)) < 0)
		return err;
	if (vhd_goes_by_chs(&v->footer))
		size = vhd_round_size(size);
	if (v->type == VHD_DIFF)
		return why_set(why, -ENOTSUP, "%s: a differencing image has its parent's size", path);
	if (v->footer.saved_state)
		return why_set(why, -ENOTSUP, "%s: a virtual machine's saved state belongs to it", path);
	if (size < v->size && (err = check_free(v, size, why)) < 0)
		return err;
	err = v->type == VHD_FIXED ? resize_fixed(v, size) : resize_dynamic(v, size, why);
	return err && !(why && why->line[0]) ? why_set(why, err, "%s: %s", path, strerror(-err)) : err;
}

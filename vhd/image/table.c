/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * table.c - the dynamic header, the table of blocks (BAT), and where everything lies in the file
 *
 *     0        512               1536 (usually)                                       footer_at
 *     [footer] [dynamic header]  [table]  (batmap, locators)  ([bitmap][block])* slack [footer]
 *                                                            ▲                   ▲
 *                                                            meta_end            end
 *
 * Nothing is allocated before the size that asks for it was compared with the file. Every block lies inside the file, behind
 * the metadata, and on none of the others: a guest's write cannot reach a header, nor another block.
 *
 * `end` is where new blocks may go. Between the last block and the footer there may be bytes that we do not understand (slack,
 * others' metadata) or what a crash left of our own unpublished blocks. The former are stepped over; the latter, in images of
 * our own making, are used again.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/log.h"
#include "vhd/base/zero.h"
#include "vhd/image/vhd_int.h"

#define BLOCK_MIN VHD_SECTOR
#define BLOCK_MAX (256u << 20)
#define GAP_RUNS_MAX 64 /* pieces of slack that are looked at */

typedef unsigned long long ull;

/* Where the tail footer is, or has to be. */
static uint64_t tail_place(const struct vhd *v)
{
	return v->tail_ok ? v->tail_at : round_up_u64(v->file_size, VHD_SECTOR);
}

/* Where everything else has to end. */
static uint64_t content_limit(const struct vhd *v)
{
	return v->tail_ok ? tail_place(v) : v->file_size;
}

static int check_header(struct vhd *v, struct why *why)
{
	const struct vhd_dynamic *d = &v->header;
	uint32_t bs = be32_get(d->block_size), sum = vhd_checksum(d, sizeof *d, offsetof(struct vhd_dynamic, checksum));

	if (memcmp(d->cookie, "cxsparse", 8) != 0)
		return vhd_bad(v, why, "dynamic header position %llu: no dynamic header there", (ull)v->data_off);
	if (sum != be32_get(d->checksum))
		return vhd_bad(v, why, "dynamic header checksum: found %08x, expected %08x", be32_get(d->checksum),
			       sum);
	if (be32_get(d->version) >> 16 != 1)
		return vhd_bad(v, why, "dynamic header version %u: expected 1", be32_get(d->version) >> 16);
	if (!is_pow2_u64(bs) || bs < BLOCK_MIN || bs > BLOCK_MAX)
		return vhd_bad(v, why, "block size %u: expected a power of two from 512 to %u", bs, BLOCK_MAX);
	v->block_size = bs;
	v->block_shift = (uint32_t)__builtin_ctz(bs);
	v->bitmap_bytes = (uint32_t)round_up_u64((bs / VHD_SECTOR + 7) / 8, VHD_SECTOR);
	v->bitmap_room = (uint32_t)round_up_u64(v->bitmap_bytes, HIO_ALIGN);
	v->blocks = (uint32_t)((v->size + bs - 1) >> v->block_shift);
	return 0;
}

static int check_table(struct vhd *v, struct why *why)
{
	uint32_t entries = be32_get(v->header.max_table_entries);
	uint64_t at = be64_get(v->header.table_offset), len = (uint64_t)entries * 4, end;

	if (entries < v->blocks)
		return vhd_bad(v, why, "BAT too small: %u entries, %u blocks", entries, v->blocks);
	if (at % VHD_SECTOR || at < VHD_SECTOR)
		return vhd_bad(v, why, "BAT at byte %llu: expected a multiple of 512 behind the footer's copy",
			       (ull)at);
	if (!add_ok(at, len, &end) || end > content_limit(v))
		return vhd_bad(v, why, "truncated: BAT of %u entries at byte %llu, the file has %llu bytes", entries,
			       (ull)at, (ull)v->file_size);
	if (entries > VHD_ENTRIES_MAX)
		return vhd_bad(v, why, "BAT of %u entries: at most %u are supported", entries, VHD_ENTRIES_MAX);
	if (at < v->data_off + sizeof v->header && end > v->data_off)
		return vhd_bad(v, why, "BAT at byte %llu overlaps the dynamic header", (ull)at);
	/* Entries are written by whole sectors; the padding belongs to the table unless something else begins there. */
	v->entries = v->padded = entries;
	if (round_up_u64(end, VHD_SECTOR) <= content_limit(v)) {
		len = round_up_u64(len, VHD_SECTOR);
		v->padded = (uint32_t)(len / 4);
	}
	v->table_off = at;
	v->table_bytes = len;
	v->meta_end = max_u64(round_up_u64(at + len, VHD_SECTOR), v->data_off + sizeof v->header);
	return 0;
}

static int read_table(struct vhd *v, struct why *why)
{
	be32 *raw;
	int err;

	v->bat = malloc(v->padded * sizeof *v->bat);
	v->state = calloc(v->padded, sizeof *v->state);
	if (!v->bat || !v->state)
		return why_set(why, -ENOMEM, "%s: no memory for a BAT of %u entries", hio_path(v->io), v->entries);
	static_assert(sizeof *v->bat == sizeof *raw, "the table is converted where it lies");
	raw = (be32 *)(void *)v->bat;
	err = hio_read(v->io, raw, v->padded * sizeof *raw, v->table_off);
	if (err)
		return why_set(why, err, "%s: reading the BAT: %s", hio_path(v->io), strerror(-err));
	/* The padding may hold anything (0xff by Microsoft, 0 by Xen): it is written back as it was, and means nothing. */
	for (uint32_t i = 0; i < v->padded; i++) {
		uint32_t e = be32_get(raw[i]);

		atomic_init(&v->bat[i], e);
		if (e != VHD_UNUSED)
			atomic_init(&v->state[i], BLOCK_ON_DISK);
	}
	return 0;
}

/* The ones' complement of the sum of its bytes; version 1.1 took them as signed. */
static bool batmap_sum_ok(const struct vhd_batmap *bm, const uint8_t *map, size_t len)
{
	uint32_t sum = 0, sum_signed = 0;

	for (size_t i = 0; i < len; i++) {
		sum += map[i];
		sum_signed += (uint32_t)map[i] - (map[i] & 0x80 ? 256u : 0);
	}
	return be32_get(bm->checksum) == ~sum || be32_get(bm->checksum) == ~sum_signed;
}

/* Blocks whose bitmap need not be read: it is all ones. A map that claims this of a block that has no place is stale, as a whole. */
static int use_batmap(struct vhd *v, const struct vhd_batmap *bm, uint64_t off, size_t len)
{
	AUTO(freep) uint8_t *map = hio_alloc(len + 1);
	int err = map ? hio_read(v->io, map, len, off) : -ENOMEM;
	bool good = !err && batmap_sum_ok(bm, map, len);

	for (uint32_t i = 0; good && i < v->blocks && i / 8 < len; i++)
		good = !(map[i / 8] & 0x80 >> i % 8) || bat_get(v, i) != VHD_UNUSED;
	for (uint32_t i = 0; good && i < v->blocks && i / 8 < len; i++)
		if (map[i / 8] & 0x80 >> i % 8)
			atomic_fetch_or(&v->state[i], BLOCK_FULL);
	return err;
}

/* XenServer's batmap follows the padded table. It says which bitmaps are all ones; we only ever set bits, so it stays true
 * without our doing; it must only not be written over. */
static int find_batmap(struct vhd *v, struct why *why)
{
	struct vhd_batmap bm;
	uint64_t off, len;
	int err;

	if (memcmp(v->footer.creator, "tap", 3) != 0 || v->meta_end + sizeof bm > v->file_size)
		return 0;
	if ((err = hio_read(v->io, &bm, sizeof bm, v->meta_end)) < 0)
		return why_set(why, err, "%s: reading the batmap: %s", hio_path(v->io), strerror(-err));
	if (memcmp(bm.cookie, "tdbatmap", 8) != 0)
		return 0;
	v->batmap = true;
	v->meta_end += sizeof bm;
	off = be64_get(bm.offset);
	len = (uint64_t)be32_get(bm.sectors) * VHD_SECTOR;
	/* One that lies elsewhere or claims more than a bit per entry is not followed. */
	if (off < v->meta_end || off - v->meta_end > HIO_ALIGN || len > round_up_u64(v->entries / 8 + 1, HIO_ALIGN) ||
	    !range_ok(off, len, v->file_size))
		return 0;
	v->meta_end = off + len;
	if ((err = use_batmap(v, &bm, off, (size_t)len)) < 0)
		return why_set(why, err, "%s: reading the batmap: %s", hio_path(v->io), strerror(-err));
	return 0;
}

struct place {
	uint32_t sector, block;
};

static int by_sector(const void *a, const void *b)
{
	const struct place *x = a, *y = b;

	return x->sector < y->sector ? -1 : x->sector > y->sector;
}

static int check_place(struct vhd *v, uint32_t block, uint64_t whole, struct why *why)
{
	uint32_t e = bat_get(v, block);
	uint64_t at = (uint64_t)e * VHD_SECTOR;

	if (at < v->meta_end)
		return vhd_bad(v, why,
			       "block %u: BAT entry points at sector %u, which overlaps metadata (%llu sectors)", block,
			       e, (ull)(v->meta_end / VHD_SECTOR));
	if (!range_ok(at, whole, content_limit(v)))
		return vhd_bad(v, why,
			       "truncated? block %u: BAT entry points at sector %u, outside the file (%llu sectors)",
			       block, e, (ull)(v->file_size / VHD_SECTOR));
	return 0;
}

/* The blocks in use, in the order of the file. */
static size_t list_places(struct vhd *v, struct place *p)
{
	size_t n = 0;
	bool sorted = true;

	for (uint32_t i = 0; i < v->blocks; i++) {
		uint32_t e = bat_get(v, i);

		if (e == VHD_UNUSED)
			continue;
		sorted = sorted && (n == 0 || p[n - 1].sector < e);
		p[n++] = (struct place){e, i};
	}
	if (!sorted)
		qsort(p, n, sizeof *p, by_sector);
	return n;
}

/* What entries past the disk's last block name is behind its end: where it makes sense the space is taken, and that is all. */
static uint64_t spare_end(struct vhd *v, uint64_t whole)
{
	uint64_t end = 0;

	for (uint32_t i = v->blocks; i < v->entries; i++) {
		uint64_t at = (uint64_t)bat_get(v, i) * VHD_SECTOR;

		if (bat_get(v, i) != VHD_UNUSED && range_ok(at, whole, content_limit(v)))
			end = max_u64(end, at + whole);
	}
	return end;
}

/* Memory is taken for entries that may be right: a table that is a hole of the file, however long, ends at its first one. */
static int check_places(struct vhd *v, uint64_t *end, struct why *why)
{
	uint64_t whole = (uint64_t)v->bitmap_bytes + v->block_size;
	AUTO(freep) struct place *p = NULL;
	size_t used = 0, n;
	int err;

	for (uint32_t i = 0; i < v->blocks; i++) {
		if (bat_get(v, i) == VHD_UNUSED)
			continue;
		if ((err = check_place(v, i, whole, why)) < 0)
			return err;
		used++;
	}
	p = malloc((used + 1) * sizeof *p);
	if (!p)
		return -ENOMEM;
	n = list_places(v, p);
	*end = v->meta_end;
	for (size_t i = 0; i < n; i++) {
		uint64_t at = (uint64_t)p[i].sector * VHD_SECTOR;

		if (at < *end)
			return vhd_bad(v, why, "blocks %u and %u overlap, at sector %u", p[i - 1].block, p[i].block,
				       p[i].sector);
		*end = at + whole;
	}
	*end = max_u64(*end, spare_end(v, whole));
	return 0;
}

/* Texts about the parent lie between the table and the first block, or anywhere else. They are no part of meta_end: others may have
 * put them behind blocks. */
static uint64_t locators_end(const struct vhd *v)
{
	uint64_t end = 0;

	for (unsigned i = 0; v->type == VHD_DIFF && i < ARRAY_LEN(v->header.locator); i++)
		if (!mem_is_zero(v->header.locator[i].code, sizeof v->header.locator[i].code))
			end = max_u64(end, vhd_locator_end(&v->header.locator[i], tail_place(v)));
	return end;
}

/* Where new blocks may go: behind the last block, unless others left something there. */
static uint64_t usable_end(struct vhd *v, uint64_t end)
{
	uint64_t limit = tail_place(v), from = end;

	if (memcmp(v->footer.creator, VHD_CREATOR, 4) == 0)
		return end;
	for (int i = 0; i < GAP_RUNS_MAX; i++) {
		uint64_t data, stop;

		if (hio_next_data(v->io, from, &data, &stop) < 0)
			return limit;
		/* The host counts in its own blocks: the footer's reaches up to 4 KiB below it. */
		if (data >= round_down_u64(limit, HIO_ALIGN))
			return from;
		from = stop;
		if (from >= limit)
			return limit;
	}
	return limit;
}

int vhd_open_dynamic(struct vhd *v, struct why *why)
{
	uint64_t end = 0;
	int err;

	v->data_off = be64_get(v->footer.data_offset);
	if (v->data_off % VHD_SECTOR || v->data_off < VHD_SECTOR ||
	    !range_ok(v->data_off, sizeof v->header, v->file_size))
		return vhd_bad(v, why,
			       "dynamic header position %llu: expected a multiple of 512 inside the file (%llu bytes)",
			       (ull)v->data_off, (ull)v->file_size);
	if ((err = hio_read(v->io, &v->header, sizeof v->header, v->data_off)) < 0)
		return why_set(why, err, "%s: reading the dynamic header: %s", hio_path(v->io), strerror(-err));
	if ((err = check_header(v, why)) < 0 || (err = check_table(v, why)) < 0)
		return err;
	if (v->type == VHD_DIFF && (err = vhd_check_locators(v, why)) < 0)
		return err;
	if ((err = read_table(v, why)) < 0 || (err = find_batmap(v, why)) < 0 || (err = check_places(v, &end, why)) < 0)
		return err;
	v->footer_at = tail_place(v);
	v->stale_end = round_up_u64(v->file_size, VHD_SECTOR);
	v->tail_dirty = !v->tail_ok;
	v->head_dirty = !v->head_ok;
	end = max_u64(end, locators_end(v));
	v->end = v->writable ? usable_end(v, end) : end;
	if (!v->tail_ok)
		log_warn("%s: the footer at the end is missing or damaged; the copy at the start is used%s",
			 hio_path(v->io), v->writable ? ", and the end will be written again" : "");
	else if (!v->head_ok)
		log_warn("%s: the footer's copy at the start is damaged; the one at the end is used%s", hio_path(v->io),
			 v->writable ? ", and the copy will be written again" : "");
	return 0;
}

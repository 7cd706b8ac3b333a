/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * check.c - see check.h
 *
 * Every structure is read from the file itself and looked at alone; what follows from it is looked at only when it can be found:
 *
 *     footer, copy ──► dynamic header ──► table ──► bitmaps, leaks
 *                            └──► locators, batmap
 */
#include "vhd/image/check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/zero.h"
#include "vhd/image/vhd_int.h"

#define BLOCK_MAX (256u << 20)
#define REPORT_MAX 100u /* findings about blocks; of more the number is told */
#define CLOCK_SLACK 86400
#define PIECE 16384u        /* entries of the table that are read at once */
#define HIDDEN_PIECE 65536u /* bytes of blocks that bitmaps hide */

typedef unsigned long long ull;

struct check {
	struct hio *io;
	uint64_t file_size;
	vhd_found_fn *found;
	void *arg;
	struct vhd_check_result *r;

	uint64_t tail_at; /* where the tail footer is */
	bool tail_ok, head_ok;
	struct vhd_footer footer; /* the one that counts */
	struct vhd_dynamic header;
	uint64_t header_at, meta_end, locators_end;
	uint32_t entries, blocks, block_size, bitmap_bytes;
	struct place *place; /* of blocks that lie where they may, by sector */
	uint32_t nplaces, room;
	unsigned told; /* about blocks */
};

struct place {
	uint32_t sector, block;
};

static void say(struct check *c, enum vhd_severity s, const char *what, uint64_t off, bool can_repair, const char *fmt,
		...) __attribute__((format(printf, 6, 7)));
static void say(struct check *c, enum vhd_severity s, const char *what, uint64_t off, bool can_repair, const char *fmt,
		...)
{
	struct vhd_finding f = {.severity = s, .what = what, .off = off, .can_repair = can_repair};
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(f.text, sizeof f.text, fmt, ap);
	va_end(ap);
	c->r->errors += s == VHD_ERROR;
	c->r->warnings += s == VHD_WARNING;
	c->r->leaks += s == VHD_LEAK;
	c->r->repairable += can_repair;
	c->found(c->arg, &f);
}

/* ---- footers --------------------------------------------------------------------------------------------------------------- */

static void check_size(struct check *c, const struct vhd_footer *f, const char *what, uint64_t at)
{
	uint64_t current = be64_get(f->current_size), chs = vhd_chs_size(f);
	uint16_t cyl;
	uint8_t h, s;

	if (!current || current > VHD_MAX_SIZE)
		say(c, VHD_ERROR, what, at + 48, false, "current size %llu: expected 512 to %llu", (ull)current,
		    (ull)VHD_MAX_SIZE);
	else if (current % VHD_SECTOR)
		say(c, VHD_ERROR, what, at + 48, false, "current size %llu: expected a multiple of 512", (ull)current);
	vhd_geometry(current / VHD_SECTOR, &cyl, &h, &s);
	if (chs > current && !(be16_get(f->cylinders) == 65535 && f->heads == 16 && f->sectors == 255))
		say(c, VHD_WARNING, what, at + 56, false,
		    "geometry %u/%u/%u holds more than the current size of %llu bytes: expected %u/%u/%u",
		    be16_get(f->cylinders), f->heads, f->sectors, (ull)current, cyl, h, s);
}

/* The fields of a footer whose checksum is right. */
static void check_fields(struct check *c, const struct vhd_footer *f, const char *what, uint64_t at)
{
	uint32_t type = be32_get(f->type), features = be32_get(f->features);

	if (be32_get(f->version) >> 16 != 1)
		say(c, VHD_ERROR, what, at + 12, false, "version %u.%u: expected 1.0", be32_get(f->version) >> 16,
		    be32_get(f->version) & 0xffff);
	if (type != VHD_FIXED && type != VHD_DYNAMIC && type != VHD_DIFF)
		say(c, VHD_ERROR, what, at + 60, false, "disk type %u: expected 2, 3 or 4", type);
	if (!(features & 2) || features & ~3u)
		say(c, VHD_WARNING, what, at + 8, false, "features %08x: expected 2 or 3", features);
	if (type == VHD_FIXED && be64_get(f->data_offset) != UINT64_MAX && be64_get(f->data_offset) != UINT32_MAX)
		say(c, VHD_ERROR, what, at + 16, false, "data offset %llu of a fixed disk: expected all ones",
		    (ull)be64_get(f->data_offset));
	if ((int64_t)be32_get(f->timestamp) + VHD_EPOCH > time(NULL) + CLOCK_SLACK)
		say(c, VHD_WARNING, what, at + 24, false, "made in the future");
	if (f->saved_state > 1)
		say(c, VHD_ERROR, what, at + 84, false, "saved state %u: expected 0 or 1", f->saved_state);
	if (mem_is_zero(f->uuid, sizeof f->uuid))
		say(c, VHD_WARNING, what, at + 68, false, "no UUID");
	if (!mem_is_zero(f->reserved, sizeof f->reserved))
		say(c, VHD_WARNING, what, at + 86, false, "reserved bytes are not zero");
	check_size(c, f, what, at);
}

static void check_sum(struct check *c, const struct vhd_footer *f, const char *what, uint64_t at, bool other_ok)
{
	if (memcmp(f->cookie, "conectix", 8) != 0)
		say(c, VHD_ERROR, what, at, other_ok, "missing or damaged%s", other_ok ? "; the other is good" : "");
	else
		say(c, VHD_ERROR, what, at + 64, other_ok, "checksum %08x: expected %08x%s", be32_get(f->checksum),
		    vhd_checksum(f, sizeof *f, offsetof(struct vhd_footer, checksum)),
		    other_ok ? "; the other is good" : "");
}

static int read_footers(struct check *c, struct vhd_footer *tail, struct vhd_footer *head)
{
	uint64_t n = min_u64(c->file_size, sizeof *tail);
	int err;

	memset(tail, 0, sizeof *tail);
	memset(head, 0, sizeof *head);
	c->tail_at = c->file_size - n;
	if ((err = hio_read(c->io, tail, n, c->tail_at)) < 0 || (err = hio_read(c->io, head, n, 0)) < 0)
		return err;
	if (!vhd_footer_ok(tail) && c->file_size % VHD_SECTOR == 511) {
		memset(tail, 0, sizeof *tail);
		c->tail_at = c->file_size - 511;
		err = hio_read(c->io, tail, 511, c->tail_at);
	}
	c->tail_ok = vhd_footer_ok(tail);
	c->head_ok = vhd_footer_ok(head);
	return err;
}

static int check_footers(struct check *c, struct why *why)
{
	struct vhd_footer tail, head;
	int err = read_footers(c, &tail, &head);
	bool fixed;

	if (err)
		return why_set(why, err, "%s: reading the footer: %s", hio_path(c->io), strerror(-err));
	if (memcmp(tail.cookie, "conectix", 8) != 0 && memcmp(head.cookie, "conectix", 8) != 0)
		return vhd_not_vhd(c->io, why);
	c->footer = c->tail_ok || !c->head_ok ? tail : head;
	fixed = c->tail_ok && be32_get(tail.type) == VHD_FIXED;
	if (!c->tail_ok)
		check_sum(c, &tail, "footer", c->tail_at, c->head_ok);
	else
		check_fields(c, &tail, "footer", c->tail_at);
	if (!c->head_ok && !fixed)
		check_sum(c, &head, "footer copy", 0, c->tail_ok);
	if (c->tail_ok && c->head_ok && !fixed && memcmp(&tail, &head, sizeof tail) != 0)
		say(c, VHD_ERROR, "footer copy", 0, true, "differs from the footer at the end, which counts");
	return 0;
}

/* ---- the dynamic header ------------------------------------------------------------------------------------------------------ */

/* False: nothing that follows can be found. */
static bool check_header_fields(struct check *c)
{
	const struct vhd_dynamic *d = &c->header;
	uint32_t sum = vhd_checksum(d, sizeof *d, offsetof(struct vhd_dynamic, checksum));
	uint64_t at = c->header_at;

	if (memcmp(d->cookie, "cxsparse", 8) != 0) {
		say(c, VHD_ERROR, "dynamic header", at, false, "no dynamic header there");
		return false;
	}
	if (sum != be32_get(d->checksum))
		say(c, VHD_ERROR, "dynamic header", at + 36, false, "checksum %08x: expected %08x",
		    be32_get(d->checksum), sum);
	if (be32_get(d->version) >> 16 != 1)
		say(c, VHD_ERROR, "dynamic header", at + 24, false, "version %u: expected 1",
		    be32_get(d->version) >> 16);
	if (be64_get(d->data_offset) != UINT64_MAX)
		say(c, VHD_WARNING, "dynamic header", at + 8, false, "data offset %llx: expected all ones",
		    (ull)be64_get(d->data_offset));
	if (be32_get(c->footer.type) == VHD_DYNAMIC &&
	    (!mem_is_zero(d->parent_uuid, 16) || !mem_is_zero(d->parent_name, 512)))
		say(c, VHD_WARNING, "dynamic header", at + 40, false,
		    "names a parent, but is not a differencing image's");
	if (!mem_is_zero(d->reserved2, sizeof d->reserved2))
		say(c, VHD_WARNING, "dynamic header", at + 768, false, "reserved bytes are not zero");
	c->block_size = be32_get(d->block_size);
	if (is_pow2_u64(c->block_size) && c->block_size >= VHD_SECTOR && c->block_size <= BLOCK_MAX)
		return true;
	say(c, VHD_ERROR, "dynamic header", at + 32, false, "block size %u: expected a power of two from 512 to %u",
	    c->block_size, BLOCK_MAX);
	return false;
}

static bool check_table_place(struct check *c)
{
	uint64_t at = be64_get(c->header.table_offset), len, end;

	c->entries = be32_get(c->header.max_table_entries);
	c->bitmap_bytes = (uint32_t)round_up_u64((c->block_size / VHD_SECTOR + 7) / 8, VHD_SECTOR);
	len = (uint64_t)c->entries * 4;
	if ((uint64_t)c->entries * c->block_size < be64_get(c->footer.current_size))
		say(c, VHD_ERROR, "dynamic header", c->header_at + 28, false,
		    "%u table entries of %u bytes do not hold the disk of %llu bytes", c->entries, c->block_size,
		    (ull)be64_get(c->footer.current_size));
	if (at % VHD_SECTOR || at < VHD_SECTOR || !add_ok(at, len, &end) || end > c->file_size ||
	    (at < c->header_at + sizeof c->header && end > c->header_at)) {
		say(c, VHD_ERROR, "dynamic header", c->header_at + 16, false,
		    "table of %u entries at %llu: expected it behind the header, inside the file of %llu bytes",
		    c->entries, (ull)at, (ull)c->file_size);
		return false;
	}
	c->meta_end = max_u64(round_up_u64(end, VHD_SECTOR), c->header_at + sizeof c->header);
	return true;
}

static void check_locators(struct check *c)
{
	for (unsigned i = 0; i < ARRAY_LEN(c->header.locator); i++) {
		const struct vhd_locator *l = &c->header.locator[i];
		uint64_t off = be64_get(l->data_offset), space = be32_get(l->data_space),
			 len = be32_get(l->data_length);
		uint64_t at = c->header_at + 576 + i * sizeof *l;

		if (mem_is_zero(l->code, 4))
			continue;
		if (be32_get(c->footer.type) == VHD_DYNAMIC)
			say(c, VHD_WARNING, "locator", at, false, "locator %u, but not a differencing image", i);
		space = space < VHD_SECTOR ? space * VHD_SECTOR : space; /* sectors, says the specification */
		if (len > space || space % VHD_SECTOR || !range_ok(off, len, c->file_size))
			say(c, VHD_ERROR, "locator", at, false,
			    "locator %u: %llu bytes at %llu in a space of %llu: expected them inside the file", i,
			    (ull)len, (ull)off, (ull)space);
		else if (be32_get(c->footer.type) == VHD_DIFF)
			c->locators_end = max_u64(c->locators_end, vhd_locator_end(l, c->tail_at));
	}
}

static int check_header(struct check *c, bool *go_on)
{
	int err;

	*go_on = false;
	c->header_at = be64_get(c->footer.data_offset);
	if (c->header_at % VHD_SECTOR || c->header_at < VHD_SECTOR ||
	    !range_ok(c->header_at, sizeof c->header, c->file_size)) {
		say(c, VHD_ERROR, "footer", 16, false, "data offset %llu: expected a multiple of 512 inside the file",
		    (ull)c->header_at);
		return 0;
	}
	if ((err = hio_read(c->io, &c->header, sizeof c->header, c->header_at)) < 0)
		return err;
	if (!check_header_fields(c) || !check_table_place(c))
		return 0;
	c->blocks = (uint32_t)min_u64((be64_get(c->footer.current_size) + c->block_size - 1) / c->block_size,
				      c->entries);
	check_locators(c);
	*go_on = true;
	return 0;
}

/* ---- the table --------------------------------------------------------------------------------------------------------------- */

static bool tell_block(struct check *c)
{
	if (c->told++ < REPORT_MAX)
		return true;
	c->r->errors++;
	return false;
}

static int by_sector(const void *a, const void *b)
{
	const struct place *x = a, *y = b;

	return x->sector < y->sector ? -1 : x->sector > y->sector;
}

/*
 * The size of a sparse file says nothing about what it holds: places grow with the entries that name one, each of which takes
 * four bytes of the host's disk.
 */
static int add_place(struct check *c, uint32_t sector, uint32_t block)
{
	if (c->nplaces == c->room) {
		size_t room = c->room ? (size_t)c->room * 2 : 1024;
		struct place *p = room <= UINT32_MAX ? realloc(c->place, room * sizeof *p) : NULL;

		if (!p)
			return -ENOMEM;
		c->place = p;
		c->room = (uint32_t)room;
	}
	c->place[c->nplaces++] = (struct place){sector, block};
	return 0;
}

static int check_entry(struct check *c, uint32_t i, uint32_t e)
{
	uint64_t whole = (uint64_t)c->bitmap_bytes + c->block_size, table = be64_get(c->header.table_offset);
	uint64_t limit = c->tail_ok ? c->tail_at : c->file_size, at = (uint64_t)e * VHD_SECTOR;

	if (e == VHD_UNUSED)
		return 0;
	if (at >= c->meta_end && range_ok(at, whole, limit))
		return add_place(c, e, i);
	if (!tell_block(c))
		return 0;
	if (at < c->meta_end)
		say(c, VHD_ERROR, "BAT", table + 4ull * i, false,
		    "block %u at sector %u: overlaps the headers or the table", i, e);
	else
		say(c, VHD_ERROR, "BAT", table + 4ull * i, false,
		    "block %u at sector %u: ends outside of the file (%llu sectors)", i, e, (ull)(limit / VHD_SECTOR));
	return 0;
}

/* Entries from @i on that lie in a hole of the file, so that each names sector 0: only the first are looked at one by one. */
static int skip_hole(struct check *c, uint32_t *i)
{
	uint64_t table = be64_get(c->header.table_offset), from, to;
	int err = hio_next_data(c->io, table + 4ull * *i, &from, &to);
	uint32_t end;

	if (err)
		return err;
	end = from <= table ? *i : (uint32_t)min_u64((from - table) / 4, c->entries);
	while (!err && *i < end && c->told < REPORT_MAX)
		err = check_entry(c, (*i)++, 0);
	if (*i < end) {
		c->r->errors += end - *i;
		*i = end;
	}
	return err;
}

static int check_entries(struct check *c)
{
	AUTO(freep) be32 *piece = malloc(PIECE * sizeof *piece);
	int err = piece ? 0 : -ENOMEM;
	uint32_t i = 0;

	while (!err && (err = skip_hole(c, &i)) == 0 && i < c->entries) {
		uint32_t n = (uint32_t)min_u64(PIECE, c->entries - i);

		err = hio_read(c->io, piece, n * sizeof *piece, be64_get(c->header.table_offset) + 4ull * i);
		for (uint32_t k = 0; !err && k < n; k++)
			err = check_entry(c, i + k, be32_get(piece[k]));
		i += n;
	}
	if (c->nplaces)
		qsort(c->place, c->nplaces, sizeof *c->place, by_sector);
	c->r->blocks_allocated = c->nplaces;
	return err;
}

/* Overlaps, and what lies between the blocks. */
static void check_places(struct check *c)
{
	uint64_t whole = (uint64_t)c->bitmap_bytes + c->block_size, table = be64_get(c->header.table_offset);
	uint64_t end = c->meta_end, gaps = 0;
	bool ours = memcmp(c->footer.creator, VHD_CREATOR, 4) == 0;

	for (uint32_t i = 0; i < c->nplaces; i++) {
		const struct place *p = &c->place[i];
		uint64_t at = (uint64_t)p->sector * VHD_SECTOR;

		if (i && at < end && tell_block(c))
			say(c, VHD_ERROR, "BAT", table + 4ull * p->block, false,
			    "blocks %u and %u overlap, at sector %u", p[-1].block, p->block, p->sector);
		/* Up to 4 KiB is how blocks are aligned. */
		if (at > end && at - end >= 2 * HIO_ALIGN && i)
			gaps += at - end;
		end = max_u64(end, at + whole);
	}
	if (gaps)
		say(c, VHD_LEAK, "file", 0, false, "%llu bytes between blocks are not used", (ull)gaps);
	c->r->leaked += gaps;
	end = round_up_u64(max_u64(end, c->locators_end), VHD_SECTOR);
	if (c->tail_ok && c->tail_at > end && c->tail_at - end >= c->block_size) {
		say(c, VHD_LEAK, "file", end, ours, "%llu bytes between the last block and the footer are not used",
		    (ull)(c->tail_at - end));
		c->r->leaked += c->tail_at - end;
	}
}

/* ---- bitmaps ----------------------------------------------------------------------------------------------------------------- */

static bool bit(const uint8_t *map, uint32_t i)
{
	return map[i / 8] & 0x80 >> i % 8;
}

/* Sectors of a dynamic disk that are said never to have been written hold zeros. Holes of the file are not read. */
static int check_unset(struct check *c, const struct place *p, uint32_t first, uint32_t n, uint8_t *data, bool *seen)
{
	uint64_t base = (uint64_t)p->sector * VHD_SECTOR + c->bitmap_bytes, at = base + (uint64_t)first * VHD_SECTOR;
	uint64_t end = at + (uint64_t)n * VHD_SECTOR, from, to, len;
	int err = 0;

	for (; !err && (err = hio_next_data(c->io, at, &from, &to)) == 0; at += len) {
		at = max_u64(at, round_down_u64(from, VHD_SECTOR));
		if (at >= end)
			break;
		len = min_u64(end - at, HIDDEN_PIECE);
		err = hio_read(c->io, data, len, at);
		for (uint64_t k = 0; !err && k < len; k += VHD_SECTOR) {
			uint32_t s = (uint32_t)((at + k - base) / VHD_SECTOR);

			if (mem_is_zero(data + k, VHD_SECTOR))
				continue;
			if (tell_block(c))
				say(c, VHD_WARNING, "bitmap", (uint64_t)p->sector * VHD_SECTOR + s / 8, false,
				    "block %u: sector %u is marked unused but holds data; programs that ignore bitmaps "
				    "show it",
				    p->block, s);
			*seen = true;
			return 0;
		}
	}
	return err;
}

static int check_bitmap(struct check *c, const struct place *p, uint8_t *map, uint8_t *data)
{
	uint32_t sectors = c->block_size / VHD_SECTOR;
	int err = hio_read(c->io, map, c->bitmap_bytes, (uint64_t)p->sector * VHD_SECTOR);
	bool seen = false;

	for (uint32_t i = 0, n; !err && !seen && i < sectors; i += n) {
		bool set = bit(map, i);

		for (n = 1; i + n < sectors && bit(map, i + n) == set;)
			n++;
		if (!set)
			err = check_unset(c, p, i, n, data, &seen);
	}
	return err;
}

/* Of blocks that overlap only the first: the rest of the table may name one block, and its bitmap is not looked at for each. */
static int check_bitmaps(struct check *c)
{
	AUTO(freep) uint8_t *map = hio_alloc(c->bitmap_bytes), *data = hio_alloc(HIDDEN_PIECE);
	uint64_t whole = (uint64_t)c->bitmap_bytes + c->block_size, end = 0;
	int err = map && data ? 0 : -ENOMEM;

	for (uint32_t i = 0; !err && be32_get(c->footer.type) == VHD_DYNAMIC && i < c->nplaces; i++) {
		uint64_t at = (uint64_t)c->place[i].sector * VHD_SECTOR;

		if (at < end)
			continue;
		end = at + whole;
		err = check_bitmap(c, &c->place[i], map, data);
	}
	return err;
}

/* ---- all --------------------------------------------------------------------------------------------------------------------- */

static void check_fixed(struct check *c)
{
	uint64_t size = be64_get(c->footer.current_size);

	if (size > c->tail_at)
		say(c, VHD_ERROR, "footer", c->tail_at + 48, false, "the disk has %llu bytes, the file holds %llu",
		    (ull)size, (ull)c->tail_at);
	else if (c->tail_at > size)
		say(c, VHD_WARNING, "file", size, false, "%llu bytes between the disk's end and the footer",
		    (ull)(c->tail_at - size));
}

static int check_dynamic(struct check *c)
{
	bool go_on;
	int err = check_header(c, &go_on);

	if (err || !go_on)
		return err;
	if ((err = check_entries(c)) < 0)
		return err;
	check_places(c);
	return check_bitmaps(c);
}

int vhd_check(const char *path, vhd_found_fn *found, void *arg, struct vhd_check_result *r, struct why *why)
{
	struct check c = {.found = found, .arg = arg, .r = r};
	int64_t size;
	int err;

	memset(r, 0, sizeof *r);
	if ((err = hio_open(&c.io, path, HIO_CACHED, why)) < 0)
		return err;
	size = hio_size(c.io);
	c.file_size = size < 0 ? 0 : (uint64_t)size;
	if (c.file_size < 511)
		err = why_set(why, -EINVAL, "%s: not a VHD image: too small (%llu bytes)", path, (ull)c.file_size);
	else
		err = check_footers(&c, why);
	if (!err && (c.tail_ok || c.head_ok)) {
		if (be32_get(c.footer.type) == VHD_FIXED)
			check_fixed(&c);
		else if (be32_get(c.footer.type) == VHD_DYNAMIC || be32_get(c.footer.type) == VHD_DIFF)
			err = check_dynamic(&c);
		if (err)
			why_set(why, err, "%s: %s", path, strerror(-err));
	}
	free(c.place);
	hio_close(c.io);
	return err;
}

static void ignore(void *arg, const struct vhd_finding *f)
{
	unsigned *hopeless = arg;

	*hopeless += f->severity == VHD_ERROR && !f->can_repair;
}

int vhd_repair(const char *path, struct why *why)
{
	const struct vhd_open_opts o = {.flags = VHD_OPEN_WRITE | VHD_OPEN_ALONE};
	struct vhd_check_result r;
	unsigned hopeless = 0;
	struct vhd *v;
	int err = vhd_check(path, ignore, &hopeless, &r, why);

	if (err)
		return err;
	if (hopeless)
		return why_set(why, -EUCLEAN, "%s: %u errors that cannot be repaired; nothing was changed", path,
			       hopeless);
	if (!r.repairable)
		return 0;
	/* Opening for writing and closing is the repair: a flush writes footers that were found damaged, and closing cuts the file
	 * behind the last block, in an order that keeps one good footer at all times. */
	if ((err = vhd_open(&v, path, &o, why)) < 0)
		return err;
	v->grown = true;
	if (v->type != VHD_FIXED && v->tail_ok) { /* the copy may differ, and be good all the same */
		v->head_dirty = true;
		atomic_store(&v->wrote, true);
	}
	err = vhd_close(v);
	return err ? why_set(why, err, "%s: %s", path, strerror(-err)) : 0;
}

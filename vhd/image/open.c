/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * open.c - find the footer, check every structure, close
 *
 * The tail footer is read first, as the specification says; the copy at the start of a dynamic image serves when it is bad,
 * and the tail is then written again at the next flush of an image that is open for writing. Nothing is allocated before
 * the sizes that ask for it were compared with the file.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/log.h"
#include "vhd/image/vhd_int.h"

#define BLOCK_MIN VHD_SECTOR
#define BLOCK_MAX (256u << 20)

/* The image is damaged: the line begins with its path. */
__attribute__((format(printf, 3, 4))) static int bad(struct vhd *v, struct why *why, const char *fmt, ...)
{
	char text[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	return why_set(why, -EUCLEAN, "%s: %s", hio_path(v->io), text);
}

/* ---- the footer ------------------------------------------------------------------------------------------------------ */

static bool has_cookie(const void *p)
{
	return memcmp(p, "conectix", 8) == 0;
}

static int read_tail(struct vhd *v, struct vhd_footer *f)
{
	int err = hio_read(v->io, f, sizeof *f, v->file_size - sizeof *f);

	if (err || vhd_footer_ok(f) || v->file_size % VHD_SECTOR != 511)
		return err;
	/* Before Virtual PC 2004 the last reserved byte was not written. */
	memset(f, 0, sizeof *f);
	return hio_read(v->io, f, 511, v->file_size - 511);
}

static int not_vhd(struct vhd *v, const struct vhd_footer *tail, const struct vhd_footer *head, struct why *why)
{
	const char *path = hio_path(v->io);

	if (memcmp(head, "vhdxfile", 8) == 0)
		return why_set(why, -ENOTSUP, "%s: a VHDX image; only VHD is supported", path);
	if (memcmp(tail, "v_poison", 8) == 0 || memcmp(head, "v_poison", 8) == 0)
		return why_set(why, -EUCLEAN, "%s: VHD footer disabled by an interrupted resize", path);
	if (has_cookie(tail) || has_cookie(head)) {
		const struct vhd_footer *f = has_cookie(tail) ? tail : head;

		return bad(v, why, "VHD footer checksum: found %08x, expected %08x", be32_get(f->checksum),
			   vhd_checksum(f, sizeof *f, offsetof(struct vhd_footer, checksum)));
	}
	return why_set(why, -EINVAL, "%s: not a VHD image: no VHD footer at its end or start", path);
}

static int find_footer(struct vhd *v, struct why *why)
{
	struct vhd_footer tail, head;
	int err;

	if (v->file_size < 511)
		return why_set(why, -EINVAL, "%s: not a VHD image: too small (%llu bytes)", hio_path(v->io),
			       (unsigned long long)v->file_size);
	memset(&tail, 0, sizeof tail);
	if (v->file_size == 511)
		err = hio_read(v->io, &tail, 511, 0);
	else
		err = read_tail(v, &tail);
	if (!err)
		err = hio_read(v->io, &head, sizeof head, 0);
	if (err)
		return why_set(why, err, "%s: reading the footer: %s", hio_path(v->io), strerror(-err));
	v->tail_ok = vhd_footer_ok(&tail);
	v->head_ok = vhd_footer_ok(&head);
	if (!v->tail_ok && !v->head_ok)
		return not_vhd(v, &tail, &head, why);
	v->footer = v->tail_ok ? tail : head;
	return 0;
}

static int check_footer(struct vhd *v, const struct vhd_open_opts *o, struct why *why)
{
	const struct vhd_footer *f = &v->footer;
	uint32_t type = be32_get(f->type);

	if (be32_get(f->version) >> 16 != 1)
		return bad(v, why, "VHD version %u.%u: expected 1.0", be32_get(f->version) >> 16,
			   be32_get(f->version) & 0xffff);
	if (type != VHD_FIXED && type != VHD_DYNAMIC && type != VHD_DIFF)
		return bad(v, why, "unsupported disk type %u (expected 2, 3 or 4)", type);
	if (type == VHD_DIFF)
		return why_set(why, -ENOTSUP, "%s: a differencing image; chains are not supported yet",
			       hio_path(v->io));
	if (!v->tail_ok && type == VHD_FIXED)
		return bad(v, why, "a fixed disk without a footer at its end");
	v->type = (enum vhd_type)type;
	v->size = vhd_served_size(f, o->size_from, &v->size_from);
	if (v->size > VHD_MAX_SIZE)
		return bad(v, why, "size %llu is too large (a VHD has at most 2040 GiB)", (unsigned long long)v->size);
	if (v->size % VHD_SECTOR) {
		log_warn("%s: size %llu is not a multiple of 512; rounded down", hio_path(v->io),
			 (unsigned long long)v->size);
		v->size -= v->size % VHD_SECTOR;
	}
	if (v->size == 0)
		return bad(v, why, "size 0");
	return 0;
}

static int check_fixed(struct vhd *v, struct why *why)
{
	uint64_t off = be64_get(v->footer.data_offset);

	if (off != UINT64_MAX && off != UINT32_MAX)
		return bad(v, why, "a fixed disk with a dynamic header at %llu", (unsigned long long)off);
	if (v->size > round_down_u64(v->file_size, VHD_SECTOR) - (v->file_size % VHD_SECTOR ? 0 : VHD_SECTOR))
		return bad(v, why, "truncated: the disk has %llu bytes, the file %llu", (unsigned long long)v->size,
			   (unsigned long long)v->file_size);
	return 0;
}

/* ---- dynamic --------------------------------------------------------------------------------------------------------- */

static int check_header(struct vhd *v, const struct vhd_dynamic *d, struct why *why)
{
	uint32_t bs = be32_get(d->block_size);
	uint64_t end;

	if (memcmp(d->cookie, "cxsparse", 8) != 0)
		return bad(v, why, "no dynamic header at byte %llu", (unsigned long long)v->data_off);
	if (vhd_checksum(d, sizeof *d, offsetof(struct vhd_dynamic, checksum)) != be32_get(d->checksum))
		return bad(v, why, "dynamic header checksum: found %08x, expected %08x", be32_get(d->checksum),
			   vhd_checksum(d, sizeof *d, offsetof(struct vhd_dynamic, checksum)));
	if (be32_get(d->version) >> 16 != 1)
		return bad(v, why, "dynamic header version %u: expected 1", be32_get(d->version) >> 16);
	if (!is_pow2_u64(bs) || bs < BLOCK_MIN || bs > BLOCK_MAX)
		return bad(v, why, "block size %u: expected a power of two from 512 to %u", bs, BLOCK_MAX);
	v->block_size = bs;
	v->block_shift = (uint32_t)__builtin_ctz(bs);
	v->bitmap_bytes = (uint32_t)round_up_u64((bs / VHD_SECTOR + 7) / 8, VHD_SECTOR);
	v->entries = be32_get(d->max_table_entries);
	v->table_off = be64_get(d->table_offset);
	v->blocks = (uint32_t)((v->size + bs - 1) >> v->block_shift);
	if (v->entries < v->blocks)
		return bad(v, why, "BAT too small: %u entries, %u blocks", v->entries, v->blocks);
	if (v->table_off % VHD_SECTOR || v->table_off < VHD_SECTOR)
		return bad(v, why, "BAT at byte %llu", (unsigned long long)v->table_off);
	if (!add_ok(v->table_off, (uint64_t)v->entries * 4, &end) || end > v->file_size)
		return bad(v, why, "truncated: BAT of %u entries at byte %llu, the file has %llu bytes", v->entries,
			   (unsigned long long)v->table_off, (unsigned long long)v->file_size);
	if (v->table_off < v->data_off + sizeof *d && end > v->data_off)
		return bad(v, why, "BAT at byte %llu overlaps the dynamic header", (unsigned long long)v->table_off);
	return 0;
}

static int read_table(struct vhd *v, struct why *why)
{
	size_t n = v->blocks;
	AUTO(freep) be32 *raw = malloc(n * 4);
	int err;

	v->bat = malloc(n * sizeof *v->bat);
	v->bat_disk = malloc(n * sizeof *v->bat_disk);
	v->state = calloc(n, sizeof *v->state);
	if (!raw || !v->bat || !v->bat_disk || !v->state)
		return -ENOMEM;
	err = hio_read(v->io, raw, n * 4, v->table_off);
	if (err)
		return why_set(why, err, "%s: reading the BAT: %s", hio_path(v->io), strerror(-err));
	for (size_t i = 0; i < n; i++) {
		v->bat_disk[i] = be32_get(raw[i]);
		atomic_init(&v->bat[i], v->bat_disk[i]);
	}
	return 0;
}

/* Where the metadata in front of the blocks ends: headers, table, XenServer's batmap. */
static int metadata_end(struct vhd *v, uint64_t *end)
{
	uint64_t e = round_up_u64(v->table_off + (uint64_t)v->entries * 4, VHD_SECTOR);
	struct vhd_batmap bm;
	int err;

	e = max_u64(e, v->data_off + sizeof(struct vhd_dynamic));
	*end = e;
	if (memcmp(v->footer.creator, "tap", 3) != 0 || e + sizeof bm > v->file_size)
		return 0;
	if ((err = hio_read(v->io, &bm, sizeof bm, e)) < 0)
		return err;
	if (memcmp(bm.cookie, "tdbatmap", 8) == 0) {
		uint64_t off = be64_get(bm.offset), len = (uint64_t)be32_get(bm.sectors) * VHD_SECTOR;

		e += sizeof bm;
		if (off >= e && range_ok(off, len, v->file_size))
			e = off + len;
	}
	*end = e;
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

/* Every block lies inside the file, behind the metadata, and on none of the others. */
static int check_places(struct vhd *v, struct why *why)
{
	uint64_t whole = (uint64_t)v->bitmap_bytes + v->block_size, meta, limit;
	AUTO(freep) struct place *p = NULL;
	size_t n = 0;
	int err;

	if ((err = metadata_end(v, &meta)) < 0)
		return err;
	limit = v->file_size - (v->tail_ok ? VHD_SECTOR - (v->file_size % VHD_SECTOR == 511) : 0);
	p = malloc(((size_t)v->blocks + 1) * sizeof *p);
	if (!p)
		return -ENOMEM;
	for (uint32_t i = 0; i < v->blocks; i++)
		if (v->bat_disk[i] != VHD_UNUSED)
			p[n++] = (struct place){v->bat_disk[i], i};
	qsort(p, n, sizeof *p, by_sector);
	v->end = meta;
	for (size_t i = 0; i < n; i++) {
		uint64_t at = (uint64_t)p[i].sector * VHD_SECTOR;

		if (at < meta)
			return bad(v, why,
				   "block %u: BAT entry points at sector %u, which overlaps metadata (%llu sectors)",
				   p[i].block, p[i].sector, (unsigned long long)(meta / VHD_SECTOR));
		if (!range_ok(at, whole, limit))
			return bad(
				v, why,
				"block %u: BAT entry points at sector %u, outside the file (%llu sectors); truncated?",
				p[i].block, p[i].sector, (unsigned long long)(v->file_size / VHD_SECTOR));
		if (i && (uint64_t)p[i - 1].sector * VHD_SECTOR + whole > at)
			return bad(v, why, "blocks %u and %u overlap, at sector %u", p[i - 1].block, p[i].block,
				   p[i].sector);
		v->end = at + whole;
	}
	v->footer_at = v->tail_ok ? limit : round_up_u64(v->file_size, VHD_SECTOR);
	v->stale_end = round_up_u64(v->file_size, VHD_SECTOR);
	v->footer_dirty = !v->tail_ok;
	return 0;
}

static int open_dynamic(struct vhd *v, struct why *why)
{
	struct vhd_dynamic d;
	int err;

	v->data_off = be64_get(v->footer.data_offset);
	if (v->data_off % VHD_SECTOR || v->data_off < VHD_SECTOR || !range_ok(v->data_off, sizeof d, v->file_size))
		return bad(v, why, "dynamic header position %llu (the file has %llu bytes)",
			   (unsigned long long)v->data_off, (unsigned long long)v->file_size);
	if ((err = hio_read(v->io, &d, sizeof d, v->data_off)) < 0)
		return why_set(why, err, "%s: reading the dynamic header: %s", hio_path(v->io), strerror(-err));
	if ((err = check_header(v, &d, why)) < 0 || (err = read_table(v, why)) < 0 || (err = check_places(v, why)) < 0)
		return err;
	if (!v->tail_ok)
		log_warn("%s: the footer at the end is missing or damaged; the copy at the start is used%s",
			 hio_path(v->io), v->writable ? ", and the end will be written again" : "");
	else if (!v->head_ok)
		log_warn("%s: the footer's copy at the start is damaged", hio_path(v->io));
	return 0;
}

/* ---- open and close ----------------------------------------------------------------------------------------------------- */

static struct vhd *vhd_alloc(void)
{
	struct vhd *v = calloc(1, sizeof *v);

	if (!v)
		return NULL;
	for (unsigned i = 0; i < LATCHES; i++)
		lock_init(&v->latch[i]);
	for (unsigned i = 0; i < MAPS; i++)
		v->maps[i].block = VHD_UNUSED;
	lock_init(&v->mu);
	lock_init(&v->flush_mu);
	lock_init(&v->maps_mu);
	v->ahead = 1;
	return v;
}

static void vhd_free(struct vhd *v)
{
	for (unsigned i = 0; i < MAPS; i++)
		free(v->maps[i].bits);
	for (unsigned i = 0; i < LATCHES; i++)
		lock_fini(&v->latch[i]);
	lock_fini(&v->mu);
	lock_fini(&v->flush_mu);
	lock_fini(&v->maps_mu);
	hio_close(v->io);
	free(v->bat);
	free(v->bat_disk);
	free(v->state);
	free(v->pending);
	free(v);
}

static void vhd_freep(struct vhd **v)
{
	if (*v)
		vhd_free(*v);
}

int vhd_open(struct vhd **out, const char *path, const struct vhd_open_opts *opts, struct why *why)
{
	static const struct vhd_open_opts defaults = {.size_from = VHD_SIZE_AUTO};
	const struct vhd_open_opts *o = opts ? opts : &defaults;
	AUTO(vhd_freep) struct vhd *v = vhd_alloc();
	unsigned flags = 0;
	int64_t size;
	int err;

	if (!v)
		return -ENOMEM;
	flags |= o->flags & VHD_OPEN_WRITE ? HIO_WRITE : 0;
	flags |= o->flags & VHD_OPEN_NOLOCK ? 0 : HIO_LOCK;
	flags |= o->flags & VHD_OPEN_CACHED ? HIO_CACHED : 0;
	if ((err = hio_open(&v->io, path, flags, why)) < 0)
		return err;
	v->writable = o->flags & VHD_OPEN_WRITE;
	size = hio_size(v->io);
	if (size < 0)
		return why_set(why, (int)size, "%s: %s", path, strerror((int)-size));
	v->file_size = (uint64_t)size;
	if ((err = find_footer(v, why)) < 0 || (err = check_footer(v, o, why)) < 0)
		return err;
	err = v->type == VHD_FIXED ? check_fixed(v, why) : open_dynamic(v, why);
	if (err < 0)
		return err;
	*out = TAKE(v);
	return 0;
}

int vhd_close(struct vhd *v)
{
	int err = 0, trim;

	if (!v)
		return 0;
	if (v->writable) {
		err = vhd_flush(v);
		trim = err ? 0 : vhd_trim_tail(v);
		if (!err)
			err = trim ? trim : hio_flush(v->io);
	}
	vhd_free(v);
	return err;
}

void vhd_closep(struct vhd **v)
{
	vhd_close(*v);
}

uint64_t vhd_size(const struct vhd *v)
{
	return v->size;
}

bool vhd_writable(const struct vhd *v)
{
	return v->writable;
}

const char *vhd_path(const struct vhd *v)
{
	return hio_path(v->io);
}

static void printable(char *to, const uint8_t *from)
{
	for (int i = 0; i < 4; i++)
		to[i] = from[i] >= 0x20 && from[i] < 0x7f ? (char)from[i] : '?';
	to[4] = '\0';
}

void vhd_info(const struct vhd *v, struct vhd_info *info)
{
	const struct vhd_footer *f = &v->footer;
	int64_t now = hio_size(v->io);

	*info = (struct vhd_info){
		.type = v->type,
		.creator_version = be32_get(f->creator_version),
		.size = v->size,
		.size_current = be64_get(f->current_size),
		.size_chs = vhd_chs_size(f),
		.size_from = v->size_from,
		.cylinders = be16_get(f->cylinders),
		.heads = f->heads,
		.sectors = f->sectors,
		.block_size = v->block_size,
		.blocks = v->blocks,
		.file_size = now < 0 ? v->file_size : (uint64_t)now,
		.created = (int64_t)be32_get(f->timestamp) + VHD_EPOCH,
		.tail_ok = v->tail_ok,
		.head_ok = v->head_ok,
		.saved_state = f->saved_state != 0,
	};
	printable(info->creator, f->creator);
	printable(info->creator_os, f->creator_os);
	memcpy(info->uuid, f->uuid, sizeof info->uuid);
	for (uint32_t i = 0; i < v->blocks; i++)
		info->blocks_allocated += atomic_load_explicit(&v->bat[i], memory_order_relaxed) != VHD_UNUSED;
}

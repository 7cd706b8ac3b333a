/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * open.c - find the footer, check it, close
 *
 * The tail footer is read first, as the specification says; the copy at the start of a dynamic image serves when it is bad
 * (our own crash while the file grew leaves it so), and whichever was bad is written again by the first flush of an image that
 * is open for writing. What a dynamic image has besides is checked in table.c.
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

int vhd_bad(struct vhd *v, struct why *why, const char *fmt, ...)
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

	v->tail_at = v->file_size - sizeof *f;
	if (err || vhd_footer_ok(f) || v->file_size % VHD_SECTOR != 511)
		return err;
	/* Before Virtual PC 2004 the last reserved byte was not written. */
	memset(f, 0, sizeof *f);
	v->tail_at = v->file_size - 511;
	return hio_read(v->io, f, 511, v->tail_at);
}

static int not_vhd(struct vhd *v, const struct vhd_footer *tail, const struct vhd_footer *head, struct why *why)
{
	const char *path = hio_path(v->io);

	if (memcmp(tail, "v_poison", 8) == 0 || memcmp(head, "v_poison", 8) == 0)
		return why_set(why, -EUCLEAN, "%s: VHD footer disabled by an interrupted resize", path);
	if (has_cookie(tail) || has_cookie(head)) {
		const struct vhd_footer *f = has_cookie(tail) ? tail : head;

		return vhd_bad(v, why, "VHD footer checksum: found %08x, expected %08x", be32_get(f->checksum),
			       vhd_checksum(f, sizeof *f, offsetof(struct vhd_footer, checksum)));
	}
	return vhd_not_vhd(v->io, why);
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
	if (v->tail_ok && v->head_ok && be32_get(tail.type) != VHD_FIXED && memcmp(&tail, &head, sizeof tail) != 0)
		log_warn("%s: the footer and its copy at the start differ; the footer is used", hio_path(v->io));
	return 0;
}

static int check_type(struct vhd *v, struct why *why)
{
	const struct vhd_footer *f = &v->footer;
	uint32_t type = be32_get(f->type);

	if (be32_get(f->version) >> 16 != 1)
		return vhd_bad(v, why, "VHD version %u.%u: expected 1.0", be32_get(f->version) >> 16,
			       be32_get(f->version) & 0xffff);
	if (type != VHD_FIXED && type != VHD_DYNAMIC && type != VHD_DIFF)
		return vhd_bad(v, why, "unsupported disk type %u (expected 2, 3 or 4)", type);
	if (!v->tail_ok && type == VHD_FIXED)
		return vhd_bad(v, why, "a fixed disk without a footer at its end");
	if (memcmp(f->creator, "tap", 3) == 0 && be32_get(f->creator_version) <= 1 && type != VHD_FIXED)
		return why_set(why, -ENOTSUP, "%s: made by blktap 0.1, whose sector bitmaps are not VHD's",
			       hio_path(v->io));
	v->type = (enum vhd_type)type;
	return 0;
}

static int check_footer(struct vhd *v, const struct vhd_open_opts *o, struct why *why)
{
	int err = check_type(v, why);

	if (err)
		return err;
	v->size = vhd_served_size(&v->footer, o->size_from, &v->size_from);
	if (v->size > VHD_MAX_SIZE)
		return vhd_bad(v, why, "size %llu is too large (a VHD has at most 2040 GiB)",
			       (unsigned long long)v->size);
	if (v->size % VHD_SECTOR) {
		log_warn("%s: size %llu is not a multiple of 512; rounded down", hio_path(v->io),
			 (unsigned long long)v->size);
		v->size -= v->size % VHD_SECTOR;
	}
	if (v->size == 0)
		return vhd_bad(v, why, "size 0");
	return 0;
}

static int check_fixed(struct vhd *v, struct why *why)
{
	uint64_t off = be64_get(v->footer.data_offset);

	if (off != UINT64_MAX && off != UINT32_MAX)
		return vhd_bad(v, why, "a fixed disk with a dynamic header at %llu", (unsigned long long)off);
	if (v->size > v->tail_at)
		return vhd_bad(v, why, "truncated: the disk has %llu bytes, the file %llu", (unsigned long long)v->size,
			       (unsigned long long)v->file_size);
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
	lock_init(&v->mu);
	lock_init(&v->flush_mu);
	lock_init(&v->maps_mu);
	list_init(&v->share_link);
	list_init(&v->maps_lru);
	list_init(&v->maps_dirty);
	v->ahead = 1;
	return v;
}

void vhd_free(struct vhd *v)
{
	vhd_layers_free(v);
	vhd_chain_drop(v->parent);
	vhd_bitmap_free_all(v);
	for (unsigned i = 0; i < LATCHES; i++)
		lock_fini(&v->latch[i]);
	lock_fini(&v->mu);
	lock_fini(&v->flush_mu);
	lock_fini(&v->maps_mu);
	hio_close(v->io);
	free(v->bat);
	free(v->state);
	free(v->pending);
	free(v->parents);
	free(v);
}

static void vhd_freep(struct vhd **v)
{
	if (*v)
		vhd_free(*v);
}

int vhd_open_one(struct vhd **out, const char *path, const struct vhd_open_opts *o, struct why *why)
{
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
	v->skip_zeroes = o->flags & VHD_OPEN_ZEROES;
	size = hio_size(v->io);
	if (size < 0 || (err = hio_identify(v->io, &v->id)) < 0)
		return why_set(why, size < 0 ? (int)size : err, "%s: %s", path, strerror(size < 0 ? (int)-size : -err));
	v->file_size = (uint64_t)size;
	if ((err = find_footer(v, why)) < 0 || (err = check_footer(v, o, why)) < 0)
		return err;
	if ((err = v->type == VHD_FIXED ? check_fixed(v, why) : vhd_open_dynamic(v, why)) < 0)
		return err;
	atomic_init(&v->wrote, v->type != VHD_FIXED && (!v->tail_ok || !v->head_ok));
	v->info_only = v->type == VHD_DIFF && o->flags & VHD_OPEN_INFO;
	*out = TAKE(v);
	return 0;
}

int vhd_open(struct vhd **out, const char *path, const struct vhd_open_opts *opts, struct why *why)
{
	static const struct vhd_open_opts defaults = {.size_from = VHD_SIZE_AUTO};
	const struct vhd_open_opts *o = opts ? opts : &defaults;
	AUTO(vhd_freep) struct vhd *v = NULL;
	int err = vhd_open_one(&v, path, o, why);

	if (!err && v->type == VHD_DIFF && !v->info_only && !(o->flags & VHD_OPEN_ALONE))
		err = vhd_open_chain(v, o, why);
	if (!err)
		*out = TAKE(v);
	return err;
}

int vhd_look(struct vhd *v)
{
	int err = 0;

	for (; v && !v->info_only; v = v->parent) {
		int e = hio_look(v->io);

		err = err ? err : e;
	}
	return err;
}

int vhd_close(struct vhd *v)
{
	int err = 0;

	if (!v)
		return 0;
	if (v->writable) {
		err = vhd_flush(v);
		if (!err)
			err = vhd_trim_tail(v);
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

uint64_t vhd_next_block(const struct vhd *v, uint64_t off)
{
	return v->type == VHD_FIXED ? v->size : min_u64(round_up_u64(off, v->block_size), v->size);
}

bool vhd_is_rotational(const struct vhd *v)
{
	return hio_is_rotational(v->io);
}

const char *vhd_path(const struct vhd *v)
{
	return hio_path(v->io);
}

const struct vhd *vhd_parent(const struct vhd *v)
{
	return v->parent;
}

struct vhd *vhd_backing(struct vhd *v)
{
	return v->parent;
}

struct hio *vhd_host(struct vhd *v)
{
	return v->io;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* create.c - new images: built under a temporary name beside the target, then renamed into place */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/image/vhd_int.h"

#define DEFAULT_BLOCK (2u << 20)
#define TABLE_AT 1536u

/* What a new image is built from. */
struct plan {
	const struct vhd_create_opts *o;
	uint32_t block_size;
	struct vhd_footer footer;
	struct vhd_child child; /* of VHD_DIFF */
};

static int check_opts(const char *path, const struct vhd_create_opts *o, struct why *why)
{
	uint32_t bs = o->block_size ? o->block_size : DEFAULT_BLOCK;

	if (o->type != VHD_FIXED && o->type != VHD_DYNAMIC && o->type != VHD_DIFF)
		return why_set(why, -EINVAL, "%s: disk type %d: expected fixed, dynamic or differencing", path,
			       o->type);
	if ((o->type == VHD_DIFF) != !!o->parent)
		return why_set(why, -EINVAL, "%s: a differencing image, and only that, has a parent", path);
	if (!is_pow2_u64(bs) || bs < 512u << 10 || bs > 256u << 20)
		return why_set(why, -EINVAL, "%s: block size %u: expected a power of two from 512 KiB to 256 MiB", path,
			       bs);
	if (o->type != VHD_DIFF && (o->size == 0 || o->size > VHD_MAX_SIZE))
		return why_set(why, -EINVAL, "%s: size %llu: expected 1 byte to 2040 GiB", path,
			       (unsigned long long)o->size);
	return 0;
}

static void build_footer(struct plan *p)
{
	const struct vhd_create_opts *o = p->o;
	struct vhd_footer *f = &p->footer;
	uint64_t size = round_up_u64(o->size, VHD_SECTOR);
	uuid_t id;
	uint16_t c;
	uint8_t h, s;

	memcpy(f->cookie, "conectix", 8);
	f->features = be32_of(2);
	f->version = be32_of(0x00010000);
	f->data_offset = be64_of(o->type == VHD_FIXED ? UINT64_MAX : sizeof *f);
	f->timestamp = be32_of((uint32_t)(time(NULL) - VHD_EPOCH));
	memcpy(f->creator, VHD_CREATOR, 4);
	f->creator_version = be32_of(0x00010000);
	memcpy(f->creator_os, "Wi2k", 4);
	/* A child has its parent's size, whether geometry can express it or not. */
	if (o->type == VHD_DIFF)
		vhd_geometry((size = p->child.size) / VHD_SECTOR, &c, &h, &s);
	else if (o->exact)
		vhd_geometry(size / VHD_SECTOR, &c, &h, &s);
	else
		size = vhd_round_geometry(size, &c, &h, &s);
	f->original_size = f->current_size = be64_of(size);
	f->cylinders = be16_of(c);
	f->heads = h;
	f->sectors = s;
	f->type = be32_of(o->type);
	uuid_copy(id, o->uuid);
	if (uuid_is_null(id))
		uuid_generate(id);
	memcpy(f->uuid, id, sizeof f->uuid);
	vhd_footer_seal(f);
}

static void build_header(const struct plan *p, uint32_t entries, uint64_t locators_at, struct vhd_dynamic *d)
{
	memcpy(d->cookie, "cxsparse", 8);
	d->data_offset = be64_of(UINT64_MAX);
	d->table_offset = be64_of(TABLE_AT);
	d->version = be32_of(0x00010000);
	d->max_table_entries = be32_of(entries);
	d->block_size = be32_of(p->block_size);
	if (p->o->type == VHD_DIFF)
		vhd_child_header(&p->child, locators_at, d);
	d->checksum = be32_of(vhd_checksum(d, sizeof *d, offsetof(struct vhd_dynamic, checksum)));
}

/* [footer][header][table][locators][footer] */
static int write_dynamic(struct hio *h, const struct plan *p)
{
	const struct vhd_footer *f = &p->footer;
	uint64_t size = be64_get(f->current_size);
	uint32_t entries = (uint32_t)((size + p->block_size - 1) / p->block_size);
	size_t table = round_up_u64((uint64_t)entries * 4, VHD_SECTOR), locators = TABLE_AT + table;
	size_t end = locators + (p->o->type == VHD_DIFF ? vhd_child_bytes(&p->child) : 0), whole = end + sizeof *f;
	AUTO(freep) uint8_t *buf = calloc(1, whole);

	if (!buf)
		return -ENOMEM;
	memcpy(buf, f, sizeof *f);
	build_header(p, entries, locators, (struct vhd_dynamic *)(buf + sizeof *f));
	memset(buf + TABLE_AT, 0xff, table);
	if (p->o->type == VHD_DIFF)
		vhd_child_locators(&p->child, buf + locators);
	memcpy(buf + end, f, sizeof *f);
	return hio_write(h, buf, whole, 0);
}

static int write_image(struct hio *h, struct plan *p)
{
	int err;

	build_footer(p);
	if (p->o->type == VHD_FIXED)
		err = hio_write(h, &p->footer, sizeof p->footer, be64_get(p->footer.current_size));
	else
		err = write_dynamic(h, p);
	return err ? err : hio_flush(h);
}

int vhd_create(const char *path, const struct vhd_create_opts *o, struct why *why)
{
	struct plan p = {.o = o, .block_size = o->block_size ? o->block_size : DEFAULT_BLOCK};
	AUTO(freep) char *tmp = NULL;
	struct hio *h = NULL;
	int err;

	if ((err = check_opts(path, o, why)) < 0)
		return err;
	if (access(path, F_OK) == 0)
		return why_set(why, -EEXIST, "%s: exists already; it is not replaced", path);
	if (o->type == VHD_DIFF && (err = vhd_child_of(&p.child, o->parent, path, why)) < 0)
		return err;
	if (asprintf(&tmp, "%s.new-%d", path, (int)getpid()) < 0) {
		tmp = NULL;
		return -ENOMEM;
	}
	if ((err = hio_open(&h, tmp, HIO_WRITE | HIO_CREATE | HIO_CACHED, NULL)) < 0)
		return why_set(why, err, "%s: %s", path, strerror(-err));
	err = write_image(h, &p);
	hio_close(h);
	err = err ? why_set(why, err, "%s: %s", path, strerror(-err)) : hio_publish(tmp, path, why);
	if (err)
		unlink(tmp);
	return err;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * commit.c - what a child holds goes into its parent
 *
 * What the child holds is only read until everything is stable in the parent: a crash before leaves both of use, the child over a
 * parent that says in part what the child says too. The parent's time in the child, one sector of its header, is forgotten before
 * the first write to the parent, or else such a parent would be refused; at the end the child learns the new one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/image/vhd_int.h"

#define PIECE (1u << 20)

/* Who the parent is: the chain is opened once for it, and closed, since the parent will be written to. */
static int parent_path(const char *path, const struct vhd_open_opts *o, char **parent, struct why *why)
{
	AUTO(vhd_closep) struct vhd *v = NULL;
	int err = vhd_open(&v, path, o, why);

	if (err)
		return err;
	if (!v->parent)
		return why_set(why, -EINVAL, "%s: not a differencing image", path);
	*parent = strdup(vhd_path(v->parent));
	return *parent ? 0 : -ENOMEM;
}

static uint64_t bytes_held(const struct vhd *v)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < v->blocks; i++)
		n += bat_get(v, i) != VHD_UNUSED ? v->block_size : 0;
	return n;
}

static int copy_up(struct vhd *child, struct vhd *parent, void (*progress)(uint64_t, uint64_t), struct why *why)
{
	AUTO(freep) uint8_t *buf = hio_alloc(PIECE);
	uint64_t all = bytes_held(child), done = 0;
	struct vhd_run run;
	int err;

	if (!buf)
		return -ENOMEM;
	for (uint64_t off = 0; off < child->size; off += run.len) {
		if ((err = vhd_map(child, off, min_u64(child->size - off, PIECE), &run)) < 0)
			return why_set(why, err, "%s: %s", vhd_path(child), strerror(-err));
		if (run.hole)
			continue;
		if (!range_ok(off, run.len, parent->size))
			return why_set(why, -EFBIG, "%s: holds bytes at %llu, behind the end of its parent %s (%llu)",
				       vhd_path(child), (unsigned long long)off, vhd_path(parent),
				       (unsigned long long)parent->size);
		if ((err = vhd_read(child, buf, run.len, off)) < 0)
			return why_set(why, err, "%s: reading at %llu: %s", vhd_path(child), (unsigned long long)off,
				       strerror(-err));
		if ((err = vhd_write(parent, buf, run.len, off)) < 0)
			return why_set(why, err, "%s: writing at %llu: %s", vhd_path(parent), (unsigned long long)off,
				       strerror(-err));
		done += run.len;
		if (progress)
			progress(done, all);
	}
	return 0;
}

static int set_time(struct vhd *child, uint32_t time)
{
	struct vhd_dynamic *d = &child->header;
	int err;

	d->parent_timestamp = be32_of(time);
	d->checksum = be32_of(vhd_checksum(d, sizeof *d, offsetof(struct vhd_dynamic, checksum)));
	/* Both fields lie in the first sector: old or new, nothing in between. */
	err = hio_write(child->io, d, VHD_SECTOR, child->data_off);
	return err ? err : hio_flush(child->io);
}

static int new_time(struct vhd *child, const char *parent)
{
	struct hio_id id;
	struct hio *h;
	int err = hio_open(&h, parent, HIO_CACHED, NULL);

	if (err)
		return err;
	err = hio_identify(h, &id);
	hio_close(h);
	return err ? err : set_time(child, vhd_child_time(id.mtime));
}

int vhd_commit(const char *path, const struct vhd_open_opts *o, void (*progress)(uint64_t, uint64_t), struct why *why)
{
	struct vhd_open_opts alone = *o, up = *o;
	AUTO(vhd_closep) struct vhd *child = NULL;
	AUTO(freep) char *name = NULL;
	struct vhd *parent = NULL;
	int err, closed;
	bool timed;

	alone.flags = VHD_OPEN_WRITE | VHD_OPEN_ALONE;
	up.flags = VHD_OPEN_WRITE;
	up.parent = NULL;
	if ((err = parent_path(path, o, &name, why)) < 0 || (err = vhd_open(&child, path, &alone, why)) < 0 ||
	    (err = vhd_open(&parent, name, &up, why)) < 0)
		return err;
	timed = be32_get(child->header.parent_timestamp);
	if (timed && (err = set_time(child, 0)) < 0)
		why_set(why, err, "%s: %s", path, strerror(-err));
	if (!err)
		err = copy_up(child, parent, progress, why);
	closed = vhd_close(parent);
	if (!err && closed)
		err = why_set(why, closed, "%s: %s", name, strerror(-closed));
	/* The parent was written to, in whole or in part. */
	closed = timed ? new_time(child, name) : 0;
	if (!err && closed)
		err = why_set(why, closed, "%s: %s", path, strerror(-closed));
	return err;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * share.c - what differencing images have from their parents is in memory once
 *
 *     device of child A ─below─┐
 *     device of child B ─below─┴─► device of the parent ─below─► device of its parent
 *
 * The devices of parents belong to all that are over them; they are only read, at the same offsets. A frame that its own device
 * has not, and whose range no block of its image covers, is looked for below. The order matters: first the frame, then the image. What
 * was written stays in a frame until the image has it.
 */
#include <errno.h>
#include <stdlib.h>

#include "vhd/cache/cache_int.h"

/* The parent's device, with a reference; NULL when there is none, or it can do without (its frames are then the child's own). */
static struct cache_dev *take_below(struct cache *c, struct vhd *parent, uint64_t start, uint64_t len)
{
	struct cache_dev *d;
	uint64_t size = vhd_size(parent);

	if (start >= size)
		return NULL;
	len = min_u64(len, size - start);
	lock_take(&c->share_mu);
	list_for_each (it, &c->shared) {
		d = list_entry(it, struct cache_dev, share_link);
		if (d->v == parent && d->start == start && d->len == len) {
			d->share_refs++;
			lock_drop(&c->share_mu);
			return d;
		}
	}
	lock_drop(&c->share_mu);
	if (cache_attach(c, parent, start, len, &d))
		return NULL;
	lock_take(&c->share_mu);
	d->share_refs = 1;
	list_push_back(&c->shared, &d->share_link);
	lock_drop(&c->share_mu);
	return d;
}

void share_attach(struct cache_dev *d)
{
	struct vhd *parent = vhd_backing(d->v);

	atomic_store(&d->below, parent ? take_below(d->c, parent, d->start, d->len) : NULL);
}

void share_detach(struct cache_dev *below)
{
	bool last;

	if (!below)
		return;
	lock_take(&below->c->share_mu);
	last = --below->share_refs == 0;
	if (last)
		list_del(&below->share_link);
	lock_drop(&below->c->share_mu);
	if (last)
		cache_detach(below);
}

/* Has the image nothing of the frame's bytes? Not while it is being replaced. */
static bool is_below(struct cache_dev *d, const struct cache_dev *below, uint32_t no)
{
	uint64_t off = (uint64_t)no << FRAME_SHIFT;
	bool absent;

	if (!below || !range_ok(off, CACHE_FRAME, below->len) || (d->overlay && overlay_covers(d, off, CACHE_FRAME)) ||
	    !dev_try_enter(d))
		return false;
	absent = vhd_is_absent(d->v, d->start + off, CACHE_FRAME);
	dev_leave(d);
	return absent;
}

struct frame *share_find(struct cache_dev *d, uint32_t no, struct cache_dev **in)
{
	for (;;) {
		struct frame *f = frame_lookup(d->c, frame_key(d, no));
		struct cache_dev *below = f ? NULL : atomic_load(&d->below);

		*in = d;
		if (f || !is_below(d, below, no))
			return f;
		d = below;
	}
}

struct cache_dev *share_dev_of(struct cache_dev *d, struct frame *f)
{
	uint32_t id = (uint32_t)(atomic_load_explicit(&f->key, memory_order_relaxed) >> 32);

	/* A snapshot puts a device between two; none leaves while somebody is over it. */
	while (d->id != id)
		d = atomic_load(&d->below);
	return d;
}

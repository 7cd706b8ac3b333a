/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * share.c - what differencing images have from their parents is in memory once
 *
 *     device of child A ─below─┐
 *     device of child B ─below─┴─► device of the parent ─below─► device of its parent
 *
 * The devices of parents belong to all that are over them; they are only read, at the same offsets. A frame that its own device
 * has not, and whose range no block of its image covers, is looked for in the device of the first image below that may have it, in one
 * step (vhd_layer()): those between have nothing there, and so no frame that somebody needs. What no image has is kept in the lowest.
 *
 * The order matters: first the frame, then the image. What was written stays in a frame until the image has it.
 */
#include <errno.h>
#include <stdlib.h>

#include "vhd/cache/cache_int.h"

/* With a reference; NULL: there is none yet. */
static struct cache_dev *find_shared(struct cache *c, const struct vhd *parent, uint64_t start, uint64_t len)
	REQUIRES(c->share_mu)
{
	list_for_each (it, &c->shared) {
		struct cache_dev *d = list_entry(it, struct cache_dev, share_link);

		if (d->v == parent && d->start == start && d->len == len) {
			d->share_refs++;
			return d;
		}
	}
	return NULL;
}

/* The parent's device, with a reference; NULL when there is none, or it can do without (its frames are then the child's own). */
static struct cache_dev *take_below(struct cache *c, struct vhd *parent, uint64_t start, uint64_t len)
{
	struct cache_dev *d, *below, *other;
	uint64_t size = vhd_size(parent);

	if (start >= size)
		return NULL;
	len = min_u64(len, size - start);
	lock_take(&c->share_mu);
	d = find_shared(c, parent, start, len);
	lock_drop(&c->share_mu);
	if (d)
		return d;
	if (cache_attach(c, parent, start, len, &d))
		return NULL;
	below = atomic_load(&d->below);
	d->layer[0] = d;
	d->layers = 1;
	for (unsigned i = 0; below && i < below->layers; i++)
		d->layer[d->layers++] = below->layer[i];
	lock_take(&c->share_mu);
	other = find_shared(c, parent, start, len); /* somebody may have been faster */
	if (!other) {
		d->share_refs = 1;
		list_push_back(&c->shared, &d->share_link);
	}
	lock_drop(&c->share_mu);
	if (!other)
		return d;
	cache_detach(d);
	return other;
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

/* Where to look for a frame that the device has not: the device of the first image below that may have something of its bytes.
 * NULL: they belong to the device itself; as long as its image is being replaced, too. */
static struct cache_dev *next_below(struct cache_dev *d, uint32_t no)
{
	uint64_t off = (uint64_t)no << FRAME_SHIFT;
	struct cache_dev *below;
	unsigned n;

	if ((d->overlay && overlay_covers(d, off, CACHE_FRAME)) || !dev_try_enter(d))
		return NULL;
	/* In here: with the image that it is below of, not with the one before. */
	below = atomic_load(&d->below);
	n = below ? vhd_layer(d->v, d->start + off, CACHE_FRAME) : 0;
	dev_leave(d);
	if (!n)
		return NULL;
	n = n < below->layers ? n : below->layers;
	while (n && !range_ok(off, CACHE_FRAME, below->layer[n - 1]->len)) /* where a parent ends */
		n--;
	return n ? below->layer[n - 1] : NULL;
}

struct frame *share_find(struct cache_dev *d, uint32_t no, struct cache_dev **in)
{
	for (;;) {
		struct frame *f = frame_lookup(d->c, frame_key(d, no));
		struct cache_dev *below;

		*in = d;
		if (f || !atomic_load(&d->below))
			return f;
		/* A look without a lock may be overtaken: what was written, and is not in the image yet, must not be missed. */
		if (atomic_load_explicit(&d->ndirty, memory_order_acquire) && (f = frame_find(d, no)))
			return f;
		below = next_below(d, no);
		if (!below)
			return NULL;
		d = below;
	}
}

struct cache_dev *share_dev_of(struct cache_dev *d, struct frame *f)
{
	uint32_t id = (uint32_t)(atomic_load_explicit(&f->key, memory_order_relaxed) >> 32);
	struct cache_dev *at = d, *below;

	while (at && at->id != id)
		at = next_below(at, frame_no(f));
	if (at)
		return at;
	/* An image above it got a block meanwhile. A snapshot puts a device between two; none leaves while somebody is over it. */
	while (d->id != id) {
		below = atomic_load(&d->below);
		d = below ? below : atomic_load(&d->was_below);
	}
	return d;
}

bool share_is_own(struct cache_dev *d, const struct cache_dev *in)
{
	struct cache *c = d->c;
	bool own = true;

	if (d == in)
		return true;
	lock_take(&c->share_mu);
	while (own && d != in) {
		d = atomic_load(&d->below);
		own = d && d->share_refs == 1;
	}
	lock_drop(&c->share_mu);
	return own;
}

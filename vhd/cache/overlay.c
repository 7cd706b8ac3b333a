/* SPDX-License-Identifier: BSD-3-Clause */
/* overlay.c - bytes that stand for what is in the image, on a device that is only read: a journal that cannot go home */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vhd/base/u64map.h"
#include "vhd/cache/cache_int.h"

struct overlay {
	uint32_t block, n, room; /* bytes of each; how many there are, and fit */
	struct u64map at;        /* number of a block on the device -> in copies */
	uint8_t *copies;
};

static struct overlay *overlay_of(struct cache_dev *d, uint32_t block)
{
	if (!d->overlay && (d->overlay = calloc(1, sizeof *d->overlay)))
		d->overlay->block = block;
	return d->overlay;
}

/* Where the copy of a block goes: in place of an earlier one. */
static int place_of(struct overlay *o, uint64_t no, uint32_t *place)
{
	uint64_t *old = u64map_get(&o->at, no);
	uint32_t room = o->room ? o->room * 2 : 64;
	uint8_t *p;

	if (old) {
		*place = (uint32_t)*old;
		return 0;
	}
	if (o->n == o->room) {
		p = reallocarray(o->copies, room, o->block);
		if (!p)
			return -ENOMEM;
		o->copies = p;
		o->room = room;
	}
	if (u64map_put(&o->at, no, o->n) < 0)
		return -ENOMEM;
	*place = o->n++;
	return 0;
}

int cache_overlay(struct cache_dev *d, const void *bytes, uint32_t len, uint64_t off)
{
	struct overlay *o;
	uint32_t place;
	int err;

	if (!len || len & (len - 1) || off % len || !range_ok(off, len, d->len))
		return -EINVAL;
	o = overlay_of(d, len);
	if (!o)
		return -ENOMEM;
	if (o->block != len)
		return -EINVAL;
	err = place_of(o, off / len, &place);
	if (err)
		return err;
	memcpy(o->copies + (size_t)place * len, bytes, len);
	/* The whole units: nothing of them is dirty. */
	off &= ~(uint64_t)(CACHE_UNIT - 1);
	cache_discard(d, off, min_u64(d->len - off, max_u64(len, CACHE_UNIT)));
	return 0;
}

bool overlay_covers(const struct cache_dev *d, uint64_t off, uint64_t len)
{
	const struct overlay *o = d->overlay;

	for (uint64_t no = off / o->block; no * o->block < off + len; no++)
		if (u64map_get(&o->at, no))
			return true;
	return false;
}

void overlay_apply(const struct cache_dev *d, uint64_t off, uint8_t *to, uint64_t len)
{
	const struct overlay *o = d->overlay;

	for (uint64_t no = off / o->block; no * o->block < off + len; no++) {
		uint64_t *place = u64map_get(&o->at, no), from = max_u64(no * o->block, off);
		uint64_t end = min_u64((no + 1) * o->block, off + len);

		if (place)
			memcpy(to + (from - off), o->copies + *place * o->block + (from - no * o->block), end - from);
	}
}

void overlay_free(struct cache_dev *d)
{
	if (!d->overlay)
		return;
	u64map_free(&d->overlay->at);
	free(d->overlay->copies);
	free(d->overlay);
}

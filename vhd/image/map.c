/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * map.c - from guest ranges to host ranges
 *
 * A run is a hole, or bytes that are contiguous in the file. Holes are merged across blocks; data never crosses a block, since
 * a bitmap lies between two. Sector by sector nothing is done: a block that is full is one run, of others the bitmap in memory
 * gives runs. What is a hole in a child is looked for in the first image below that may have it, which layer.c remembers per block.
 */
#include <errno.h>

#include "vhd/base/checked.h"
#include "vhd/image/vhd_int.h"

static int map_block(struct vhd *v, uint64_t off, uint64_t len, struct vhd_run *run)
{
	uint32_t block = (uint32_t)(off >> v->block_shift), in = (uint32_t)(off & (v->block_size - 1)), n;
	uint32_t entry = bat_get(v, block);
	bool set;
	int err;

	*run = (struct vhd_run){.len = min_u64(len, v->block_size - in)};
	if (entry == VHD_UNUSED) {
		run->hole = true;
		while (!v->parent && run->len < len && bat_get(v, ++block) == VHD_UNUSED)
			run->len += min_u64(len - run->len, v->block_size);
		return 0;
	}
	run->off = bat_data(v, entry) + in;
	if (block_is(v, block, BLOCK_FULL))
		return 0;
	if ((err = vhd_bitmap_run(v, block, in / VHD_SECTOR, (v->block_size - in + VHD_SECTOR - 1) / VHD_SECTOR, &set,
				  &n)) < 0)
		return err;
	run->hole = !set;
	run->len = min_u64(run->len, (uint64_t)n * VHD_SECTOR - in % VHD_SECTOR);
	return 0;
}

static int map_one(struct vhd *v, uint64_t off, uint64_t len, struct vhd_run *run)
{
	if (v->type != VHD_FIXED)
		return map_block(v, off, len, run);
	*run = (struct vhd_run){.off = off, .len = len};
	return 0;
}

/* Where to look for what is a hole in an image with a parent; VHD_LAYER_NONE: nowhere. The run goes on over the next blocks as long as
 * they are to be looked for in the same place, and one answer of that can cover them. */
static unsigned below_run(struct vhd *v, uint64_t off, uint64_t len, struct vhd_run *run)
{
	uint32_t block = (uint32_t)(off >> v->block_shift);
	unsigned n = vhd_below(v, block);
	uint64_t useful = len;

	/* A hole among the sectors of a block ends with it. */
	if (run->len == len || bat_get(v, block) != VHD_UNUSED)
		return n;
	if (n != VHD_LAYER_NONE && v->layer[n]->type != VHD_FIXED)
		useful = min_u64(len, v->layer[n]->block_size - (off & (v->layer[n]->block_size - 1)));
	while (run->len < useful && bat_get(v, ++block) == VHD_UNUSED && vhd_below(v, block) == n)
		run->len += min_u64(len - run->len, v->block_size);
	return n;
}

int vhd_map_src(struct vhd *v, uint64_t off, uint64_t len, struct vhd_run *run, struct vhd **src)
{
	unsigned layer = 0;
	int err;

	if (len == 0 || !range_ok(off, len, v->size))
		return -EINVAL;
	if (v->info_only)
		return -ENOTSUP;
	*src = v;
	while ((err = map_one(*src, off, len, run)) == 0 && run->hole && (*src)->parent) {
		unsigned n = below_run(*src, off, len, run);

		if (n == VHD_LAYER_NONE || off >= v->layer[layer + n]->size)
			break;
		layer += n;
		*src = v->layer[layer];
		len = min_u64(run->len, (*src)->size - off);
	}
	run->layer = (uint8_t)layer;
	return err;
}

int vhd_map(struct vhd *v, uint64_t off, uint64_t len, struct vhd_run *run)
{
	struct vhd *src;

	return vhd_map_src(v, off, len, run, &src);
}

int vhd_load_maps(struct vhd *v, uint64_t off, uint64_t len)
{
	bool full = false;
	int err = 0;

	if (len == 0 || !range_ok(off, len, v->size))
		return -EINVAL;
	for (; v && !full && !err && off < v->size; v = v->parent) {
		uint32_t first = (uint32_t)(off >> v->block_shift);

		if (v->type == VHD_FIXED || v->info_only)
			break;
		len = min_u64(len, v->size - off);
		err = vhd_bitmap_load(v, first, (uint32_t)((off + len - 1) >> v->block_shift) - first + 1, &full);
	}
	return err;
}

int vhd_next_data(struct vhd *v, uint64_t off, uint64_t *data, uint64_t *end)
{
	if (off > v->size)
		return -EINVAL;
	while (off < v->size) {
		uint64_t from, to;
		struct vhd_run run;
		struct vhd *src;
		int err;

		if ((err = vhd_map_src(v, off, v->size - off, &run, &src)) < 0)
			return err;
		if (!run.hole) {
			if ((err = hio_next_data(src->io, run.off, &from, &to)) < 0)
				return err;
			if (from < run.off + run.len) {
				*data = off + (from - run.off);
				*end = off + min_u64(to - run.off, run.len);
				return 0;
			}
		}
		off += run.len;
	}
	*data = *end = v->size;
	return 0;
}

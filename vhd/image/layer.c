/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * layer.c - which image of a chain a block comes from, remembered
 *
 *     layer 0   the image        [....][####][....][....]      below[]:  2    -    1  none
 *     layer 1   its parent       [....][....][##..][....]
 *     layer 2   its parent       [#...][....][....][....]
 *
 * Of each block of an image with parents one byte: how many layers down the first image is that may have something in the block's
 * range. So a reader that finds nothing in an image goes to where the bytes are in one step, however many images lie between.
 * The image's own table is asked first, always: only it can change.
 *
 * A byte, once found out, is true as long as the image is open, and there is nothing to forget: a struct vhd gets its parents when it
 * is opened and keeps them, and parents are only read, under the image lock. A snapshot and a commit open their images anew.
 * Threads that find out the same at once find the same.
 *
 * Memory: in segments, made at the first question about one of their blocks; in all at most a byte per block (the table itself takes
 * five), and a pointer per SEG_BLOCKS. Without memory for a segment the chain is walked.
 */
#include <errno.h>
#include <stdlib.h>

#include "vhd/base/checked.h"
#include "vhd/image/vhd_int.h"

#define LOOKS_MAX                                                                                                      \
	4096u /* entries of one image that are looked at for one byte; for more, the image "may have something" */

static_assert(VHD_CHAIN_MAX <= VHD_LAYER_NONE, "a layer's number fits into a byte");

static uint32_t segments(const struct vhd *v)
{
	return (v->blocks + SEG_BLOCKS - 1) / SEG_BLOCKS;
}

int vhd_layers_init(struct vhd *v)
{
	unsigned n = 0;

	if (v->layer[0] || !v->parent)
		return 0;
	v->below = calloc(segments(v), sizeof *v->below);
	if (!v->below)
		return -ENOMEM;
	for (struct vhd *p = v; p; p = p->parent)
		v->layer[n++] = p;
	return 0;
}

void vhd_layers_free(struct vhd *v)
{
	for (uint32_t i = 0; v->below && i < segments(v); i++)
		free((void *)atomic_load_explicit(&v->below[i], memory_order_relaxed));
	free((void *)v->below);
}

static bool may_have(const struct vhd *v, uint64_t off, uint64_t end)
{
	uint64_t block, last;

	if (v->type == VHD_FIXED)
		return true;
	last = (end - 1) >> v->block_shift;
	block = off >> v->block_shift;
	if (last - block >= LOOKS_MAX)
		return true;
	for (; block <= last; block++)
		if (bat_get(v, (uint32_t)block) != VHD_UNUSED)
			return true;
	return false;
}

/* Behind the end of a parent there are zeros, whatever is below it; in a block across its end, it has to be asked itself. */
static uint8_t walk(const struct vhd *v, uint32_t block)
{
	uint64_t off = (uint64_t)block << v->block_shift, end = min_u64(off + v->block_size, v->size);
	uint8_t n = 1;

	for (const struct vhd *p = v->parent; p && off < p->size; p = p->parent, n++)
		if (end > p->size || may_have(p, off, end))
			return n;
	return VHD_LAYER_NONE;
}

/* NULL: no memory. */
static _Atomic(uint8_t) *make_segment(struct vhd *v, uint32_t i)
{
	_Atomic(uint8_t) *none = NULL, *seg = calloc(min_u64(SEG_BLOCKS, v->blocks - i * SEG_BLOCKS), sizeof *seg);

	if (!seg || atomic_compare_exchange_strong_explicit(&v->below[i], &none, seg, memory_order_acq_rel,
							    memory_order_acquire))
		return seg;
	free((void *)seg);
	return none;
}

uint8_t vhd_below_find(struct vhd *v, uint32_t block)
{
	_Atomic(uint8_t) *seg = atomic_load_explicit(&v->below[block / SEG_BLOCKS], memory_order_acquire);
	uint8_t n = walk(v, block);

	if (seg || (seg = make_segment(v, block / SEG_BLOCKS)))
		atomic_store_explicit(&seg[block % SEG_BLOCKS], n, memory_order_relaxed);
	return n;
}

unsigned vhd_layer(struct vhd *v, uint64_t off, uint64_t len)
{
	unsigned n = VHD_LAYER_NONE;

	if (!v->parent || !len || !range_ok(off, len, v->size))
		return 0;
	for (uint64_t b = off >> v->block_shift; n && b <= (off + len - 1) >> v->block_shift; b++) {
		unsigned of = bat_get(v, (uint32_t)b) != VHD_UNUSED ? 0 : vhd_below(v, (uint32_t)b);

		n = of < n ? of : n;
	}
	return n;
}

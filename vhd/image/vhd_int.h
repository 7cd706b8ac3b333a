/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vhd_int.h - one open image, inside
 *
 * Locks, outermost first:
 *
 *     flush_mu   one flush at a time
 *     latch[n]   the blocks whose number is n modulo LATCHES: first write into one, completing its bitmap
 *     mu         end, footer_at, pending, bat_disk; the allocator
 *     maps_mu    the small cache of partial bitmaps
 *
 * bat[] is read without a lock: an entry changes once, from unused to a place that is ready to be read. mu and maps_mu are
 * not held across I/O but when the file grows (a footer is written then, once for many blocks).
 */
#ifndef VHDNFS_IMAGE_VHD_INT_H
#define VHDNFS_IMAGE_VHD_INT_H

#include <stdatomic.h>

#include "vhd/base/lock.h"
#include "vhd/image/format.h"
#include "vhd/image/vhd.h"
#include "vhd/io/hio.h"

#define LATCHES 64u
#define MAPS 256u /* partial bitmaps that are remembered */

enum block_state { BLOCK_UNKNOWN, BLOCK_FULL, BLOCK_PARTIAL }; /* what is known of a block's bitmap */

struct partial_map {
	uint32_t block; /* VHD_UNUSED: empty */
	uint8_t *bits;
};

struct vhd {
	struct hio *io;
	struct vhd_footer footer;
	enum vhd_type type;
	enum vhd_size_from size_from;
	uint64_t size;
	uint64_t file_size; /* at open */
	bool writable;
	bool tail_ok, head_ok;
	int failed; /* guarded by mu: a write of our own metadata failed: nothing new is allocated */

	/* dynamic */
	uint64_t table_off;
	uint32_t entries; /* of the table */
	uint32_t blocks;  /* that the disk needs: entries in use at most */
	uint32_t block_size, block_shift;
	uint32_t bitmap_bytes;  /* on disk: whole sectors */
	uint64_t data_off;      /* of the dynamic header */
	_Atomic(uint32_t) *bat; /* sector of each block's bitmap, or VHD_UNUSED */
	_Atomic(uint8_t) *state;
	struct lock latch[LATCHES];
	struct lock mu;
	uint32_t *bat_disk GUARDED_BY(mu); /* the table as it is on disk */
	uint32_t *pending GUARDED_BY(mu);  /* blocks in bat[] and not yet in bat_disk[] */
	uint32_t npending GUARDED_BY(mu), pending_cap GUARDED_BY(mu);
	uint64_t end GUARDED_BY(mu);       /* behind the last block */
	uint64_t footer_at GUARDED_BY(mu); /* where the tail footer is */
	uint64_t stale_end GUARDED_BY(mu); /* below this the file may hold old bytes between the blocks */
	uint32_t ahead GUARDED_BY(mu);     /* blocks of room to make at the next growth */
	bool footer_dirty GUARDED_BY(mu);
	struct lock flush_mu;
	struct lock maps_mu;
	struct partial_map maps[MAPS] GUARDED_BY(maps_mu);
};

static inline uint64_t bat_data(const struct vhd *v, uint32_t entry)
{
	return (uint64_t)entry * VHD_SECTOR + v->bitmap_bytes;
}

/* ---- footer.c ---- */
uint32_t vhd_checksum(const void *p, size_t len, size_t field); /* of len bytes, the 4 at `field` taken as 0 */
bool vhd_footer_ok(const struct vhd_footer *f);
void vhd_footer_seal(struct vhd_footer *f); /* sets the checksum */
void vhd_geometry(uint64_t sectors, uint16_t *c, uint8_t *h, uint8_t *s);
uint64_t vhd_chs_size(const struct vhd_footer *f);
uint64_t vhd_served_size(const struct vhd_footer *f, enum vhd_size_from how, enum vhd_size_from *used);

/* ---- alloc.c ---- */
/* The block exists and every sector of it may be written without touching its bitmap. */
int vhd_block_ready(struct vhd *v, uint32_t block);
/* Put the tail footer behind the last block and cut the file there. */
int vhd_trim_tail(struct vhd *v);

/* ---- map.c ---- */
/* Is the block's bitmap all ones? Reads it once. On BLOCK_PARTIAL, @bits (bitmap_bytes, may be NULL) is filled. */
int vhd_block_state(struct vhd *v, uint32_t block, uint32_t entry, uint8_t *bits, enum block_state *st);
void vhd_forget_map(struct vhd *v, uint32_t block);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vhd_int.h - one open image, inside
 *
 * Locks, outermost first:
 *
 *     flush_mu   one flush at a time
 *     latch[n]   the blocks whose number is n modulo LATCHES: first write into one
 *     mu         the allocator: end, footer_at, pending
 *     maps_mu    the bitmaps that are in memory
 *
 * bat[] is read without a lock: an entry changes once, from unused to a place that is ready to be read. maps_mu is never held
 * across I/O; mu only when the file grows (a footer is written then, once for many blocks); latches while a block's place is
 * made ready.
 *
 * What is known of a block is in state[]:
 *
 *     0 ──first look at the bitmap──► PARTIAL ──last sector written──► FULL
 *     0 ──first look / allocation──────────────────────────────────► FULL
 *
 * FULL: every sector is in the block, the bitmap need not be asked, and never will be again. PARTIAL: the bitmap in memory
 * (bitmap.c) decides. ON_DISK is independent: the table on disk names the block; until then the next flush has to.
 */
#ifndef VHDNFS_IMAGE_VHD_INT_H
#define VHDNFS_IMAGE_VHD_INT_H

#include <stdatomic.h>

#include "vhd/base/list.h"
#include "vhd/base/lock.h"
#include "vhd/image/format.h"
#include "vhd/image/vhd.h"
#include "vhd/io/hio.h"

#define VHD_ENTRIES_MAX (64u << 20) /* of a table: 2040 GiB in blocks of 32 KiB; 256 MiB */
#define LATCHES 64u
#define MAP_BUCKETS 1024u
#define SEG_BLOCKS 4096u /* layer.c */

enum block_state { BLOCK_FULL = 1 << 0, BLOCK_PARTIAL = 1 << 1, BLOCK_ON_DISK = 1 << 2 };

struct bitmap; /* of one block, in memory; bitmap.c */

struct vhd {
	struct hio *io;
	struct hio_id id;
	struct vhd *parent;               /* of a child: read-only, and shared by all children of it; chain.c */
	struct vhd *layer[VHD_CHAIN_MAX]; /* with a parent: itself, its parent, …; set together with it */
	_Atomic(uint8_t) *_Atomic *below; /* [blocks / SEG_BLOCKS] of segments, which come with use; layer.c */
	struct list share_link;           /* of a parent, like the next, under chain.c's lock */
	unsigned refs;
	struct vhd_footer footer;
	enum vhd_type type;
	enum vhd_size_from size_from;
	uint64_t size;
	uint64_t file_size; /* at open */
	uint64_t tail_at;   /* where the footer at the end was found, with tail_ok */
	bool writable;
	bool tail_ok, head_ok;
	bool info_only;    /* a child without its parents: no transfers */
	bool skip_zeroes;  /* VHD_OPEN_ZEROES */
	atomic_bool wrote; /* something that no flush has covered yet */
	atomic_int failed; /* nothing can be made stable any more: nothing new is allocated, every flush fails */
	struct lock flush_mu;

	/* dynamic; set at open */
	struct vhd_dynamic header;
	uint64_t data_off; /* of the dynamic header */
	uint64_t table_off;
	uint64_t table_bytes; /* that may be written: whole sectors where they are the table's own */
	uint64_t meta_end;    /* headers, table, locators, batmap are below */
	uint32_t entries;     /* of the table */
	uint32_t padded;      /* with the padding of its last sector, which is kept as it is */
	uint32_t blocks;      /* that the disk needs: entries in use at most */
	uint32_t block_size, block_shift;
	uint32_t bitmap_bytes; /* on disk: whole sectors */
	uint32_t bitmap_room;  /* what a new block takes for it, in front of its data: whole HIO_ALIGN units */
	bool batmap;
	struct vhd_parent_path *parents; /* of a child */
	unsigned nparents;

	_Atomic(uint32_t) *bat;  /* [padded] sector of each block's bitmap, or VHD_UNUSED */
	_Atomic(uint8_t) *state; /* [padded] enum block_state */
	struct lock latch[LATCHES];

	struct lock mu;
	uint32_t *pending GUARDED_BY(mu); /* blocks that the table on disk does not name yet */
	uint32_t npending GUARDED_BY(mu), pending_cap GUARDED_BY(mu);
	uint64_t end GUARDED_BY(mu);       /* new blocks go here or behind */
	uint64_t footer_at GUARDED_BY(mu); /* where the tail footer is */
	uint64_t stale_end GUARDED_BY(mu); /* below this the file may hold old bytes between the blocks */
	uint32_t ahead GUARDED_BY(mu);     /* blocks of room to make at the next growth */
	bool tail_dirty GUARDED_BY(mu);    /* the footer at the end is missing or damaged */
	bool head_dirty GUARDED_BY(mu);    /* the same for its copy at the start */
	bool grown GUARDED_BY(mu);         /* room was made that closing gives back */

	struct lock maps_mu;
	struct bitmap *map[MAP_BUCKETS] GUARDED_BY(maps_mu);
	struct list maps_lru GUARDED_BY(maps_mu);   /* clean ones, coldest first */
	struct list maps_dirty GUARDED_BY(maps_mu); /* with bits that the disk lacks */
	uint64_t maps_bytes GUARDED_BY(maps_mu), maps_ndirty GUARDED_BY(maps_mu);
	uint64_t maps_seq GUARDED_BY(maps_mu); /* counts bitmaps that left memory after they were changed */
};

static inline uint64_t bat_data(const struct vhd *v, uint32_t entry)
{
	return (uint64_t)entry * VHD_SECTOR + v->bitmap_bytes;
}

static inline uint32_t bat_get(const struct vhd *v, uint32_t block)
{
	return atomic_load_explicit(&v->bat[block], memory_order_acquire);
}

static inline bool block_is(const struct vhd *v, uint32_t block, enum block_state bit)
{
	return atomic_load_explicit(&v->state[block], memory_order_acquire) & bit;
}

/* ---- footer.c ---- */
uint32_t vhd_checksum(const void *p, size_t len, size_t field); /* of len bytes, the 4 at `field` taken as 0 */
bool vhd_footer_ok(const struct vhd_footer *f);
void vhd_footer_seal(struct vhd_footer *f); /* sets the checksum */
void vhd_geometry(uint64_t sectors, uint16_t *c, uint8_t *h, uint8_t *s);
/* The first size, and its geometry, that holds @size bytes: every reader agrees on it. */
uint64_t vhd_round_geometry(uint64_t size, uint16_t *c, uint8_t *h, uint8_t *s);
bool vhd_goes_by_chs(const struct vhd_footer *f); /* by who made it */
uint64_t vhd_chs_size(const struct vhd_footer *f);
uint64_t vhd_served_size(const struct vhd_footer *f, enum vhd_size_from how, enum vhd_size_from *used);

/* ---- magic.c ---- */
/* A file without a VHD's cookies: -ENOTSUP of another format, which the line names with what to do; -EINVAL the
 * remains of a footer, or nothing known. */
int vhd_not_vhd(struct hio *h, struct why *why);

/* ---- open.c ---- */
/* One file, without its parents. */
int vhd_open_one(struct vhd **out, const char *path, const struct vhd_open_opts *o, struct why *why);
void vhd_free(struct vhd *v);
/* The image is damaged: -EUCLEAN, and a line that begins with its path. */
int vhd_bad(struct vhd *v, struct why *why, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* ---- table.c: the dynamic header, the table, and where everything lies ---- */
int vhd_open_dynamic(struct vhd *v, struct why *why);

/* ---- parent.c ---- */
/* Where the space of a locator ends that vhd_check_locators() accepts, whole sectors; not behind @limit unless its text does. */
uint64_t vhd_locator_end(const struct vhd_locator *l, uint64_t limit);
/* Reads and checks the locators of a child. */
int vhd_check_locators(struct vhd *v, struct why *why);
void vhd_parent_info(const struct vhd *v, struct vhd_info *info);

/* ---- child.c: what a child's header and locators say ---- */
#define CHILD_PATH_MAX 1024u /* bytes of a path in UTF-16, or UTF-8 */
struct vhd_child {
	uint64_t size; /* of the parent, bytes */
	uint8_t uuid[16];
	uint32_t timestamp;
	uint8_t name[512];
	struct vhd_child_path {
		char code[5];
		uint8_t text[CHILD_PATH_MAX];
		uint32_t len; /* bytes */
	} path[3];
	unsigned npaths;
};
/* A parent's time as a child says it; 0, "not said", of one before 2000: archives and package managers set such times. */
uint32_t vhd_child_time(int64_t mtime);
/* What a child at @path says of the image at @parent. -ENAMETOOLONG; what opening the parent said. */
int vhd_child_of(struct vhd_child *c, const char *parent, const char *path, struct why *why);
/* Fills the header's fields about the parent. @at: where in the file the locators' texts begin. */
void vhd_child_header(const struct vhd_child *c, uint64_t at, struct vhd_dynamic *d);
/* The texts, and how many bytes they take: whole sectors. */
void vhd_child_locators(const struct vhd_child *c, uint8_t *to);
uint64_t vhd_child_bytes(const struct vhd_child *c);

/* ---- search.c ---- */
#define VHD_SEARCH_MAX 16u
#define VHD_SEARCH_NAMES 18u
struct vhd_search {
	const char *name[VHD_SEARCH_NAMES]; /* of the file, without its folder */
	unsigned nnames;
	const uint8_t *uuid; /* NULL: only names count */
	unsigned depth;      /* folders below the first one; 0: none */
};
/* Regular files below @dir that fit, best first; the caller frees their paths. 0 or -ENOMEM. */
int vhd_search(const char *dir, const struct vhd_search *what, char *found[VHD_SEARCH_MAX], unsigned *n);

/* ---- chain.c ---- */
/* Finds and opens the parents of a child, and theirs. */
int vhd_open_chain(struct vhd *v, const struct vhd_open_opts *o, struct why *why);
void vhd_chain_drop(struct vhd *parent); /* gives a reference back; NULL is accepted */

/* ---- layer.c ---- */
/* Once all parents of an image are open, before anybody maps it; nothing to do for an image without, or the second time. 0, -ENOMEM.
 * Under chain.c's lock. */
int vhd_layers_init(struct vhd *v);
void vhd_layers_free(struct vhd *v);
uint8_t vhd_below_find(struct vhd *v, uint32_t block); /* the first time */

/* Of an image with a parent: how many layers below it (1 …) the first image is that may have something in the range of a
 * block, whatever the image has there itself; VHD_LAYER_NONE: none. */
static inline uint8_t vhd_below(struct vhd *v, uint32_t block)
{
	_Atomic(uint8_t) *seg = atomic_load_explicit(&v->below[block / SEG_BLOCKS], memory_order_acquire);
	uint8_t n = seg ? atomic_load_explicit(&seg[block % SEG_BLOCKS], memory_order_relaxed) : 0;

	return n ? n : vhd_below_find(v, block);
}

/* ---- map.c ---- */
/* As vhd_map(); *src is the image of the chain that the run is in. */
int vhd_map_src(struct vhd *v, uint64_t off, uint64_t len, struct vhd_run *run, struct vhd **src);

/* ---- bitmap.c ---- */
/* A new block of a child: nothing is in it yet. */
int vhd_bitmap_new(struct vhd *v, uint32_t block);
/* Bits from sector @s of a block on, at most @max of them, that have the same value. Loads the bitmap when needed. */
int vhd_bitmap_run(struct vhd *v, uint32_t block, uint32_t s, uint32_t max, bool *set, uint32_t *n);
/* The bitmaps of these blocks, of those that are needed and not in memory. *full: no block of them has a hole. */
int vhd_bitmap_load(struct vhd *v, uint32_t first, uint32_t n, bool *full);
/* The sectors were written: they are in the block from now on. */
int vhd_bitmap_set(struct vhd *v, uint32_t block, uint32_t s, uint32_t n);
/* Is it time to flush for the sake of the bitmaps alone? */
bool vhd_bitmap_pressure(struct vhd *v);
/* What the disk lacks, copied before the first sync of a flush, written after it. */
struct bitmap_save;
int vhd_bitmap_save(struct vhd *v, struct bitmap_save **save);
uint32_t vhd_bitmap_saved(const struct bitmap_save *save);
int vhd_bitmap_write(struct vhd *v, struct bitmap_save *save);
void vhd_bitmap_save_free(struct bitmap_save *save);
void vhd_bitmap_free_all(struct vhd *v);

/* ---- alloc.c ---- */
/* The block has a place; what was never written in it reads as zeros. */
int vhd_block_ready(struct vhd *v, uint32_t block);
/* A new place behind everything else; *data: where its data goes, its bitmap just before. */
int vhd_take_place(struct vhd *v, uint64_t *data);
/* The table's sectors that hold these blocks (ascending), with what bat[] says of those that are ON_DISK. */
int vhd_write_entries(struct vhd *v, const uint32_t *block, uint32_t n);
/* Put the tail footer behind the last block and cut the file there. */
int vhd_trim_tail(struct vhd *v);

#endif

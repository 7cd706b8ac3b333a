/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vhd.h - one open VHD image with its parents, as a flat range of bytes
 *
 * All offsets and lengths are bytes of the guest's disk unless a name says otherwise. Any thread may call any function
 * at any time; writes to overlapping ranges race as on a disk (the block cache above never issues them).
 *
 * Every call but vhd_size(), vhd_layer(), vhd_map() on cached metadata and the info getters may block on the host's storage.
 */
#ifndef VHDNFS_IMAGE_VHD_H
#define VHDNFS_IMAGE_VHD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>
#include <uuid/uuid.h>

#include "vhd/base/why.h"

struct vhd; /* one open image; opaque, see image/vhd_int.h */
struct hio; /* its host file, vhd/io/hio.h */

enum vhd_type { VHD_FIXED = 2, VHD_DYNAMIC = 3, VHD_DIFF = 4 }; /* as in the footer */
enum vhd_size_from { VHD_SIZE_AUTO, VHD_SIZE_CHS, VHD_SIZE_CURRENT };

#define VHD_CHAIN_MAX 32u                         /* images in a chain */
#define VHD_LAYER_NONE 255u                       /* none of them */
#define VHD_MAX_SIZE (UINT64_C(0xff000000) * 512) /* 2040 GiB */

enum vhd_open_flags {
	VHD_OPEN_WRITE = 1 << 0,  /* else read-only */
	VHD_OPEN_NOLOCK = 1 << 1, /* do not take the image lock: info on an image that a server holds */
	VHD_OPEN_CACHED = 1 << 2, /* through the host's page cache (tools) */
	VHD_OPEN_INFO = 1 << 3, /* only for vhd_info(): parents are not looked for, transfers get -ENOTSUP in a child */
	VHD_OPEN_ZEROES = 1 << 5, /* zeros that are written where there is nothing are not written */
	VHD_OPEN_ALONE = 1 << 4,  /* a child without its parents: what is not in it is a hole */
};

struct vhd_open_opts {
	unsigned flags;
	enum vhd_size_from size_from;
	/* Of a differencing image: */
	const char *parent; /* where its parent is, whatever it says itself; NULL: what it says */
	const char *const
		*parent_dirs; /* parents are looked for only below these; NULL at the end; NULL: its own folder */
	bool force_parent;    /* a parent that was changed since is taken */
	bool strict_parent;   /* one whose file has another time counts as changed, whatever it holds */
	/* When what an image holds was last written as it says itself, seconds since 1970; 0: it does not say. NULL: nobody can tell.
	 * What the image has not itself reads as zeros while this runs. */
	int64_t (*last_written)(struct vhd *v);
};

/**
 * vhd_open() - open an image and check every structure that is needed to serve it
 * @opts: NULL for the defaults (read-only, size by the creator's rule)
 *
 * Return: 0; negative errno with one line in @why: -EINVAL not a VHD; -EUCLEAN damaged (which structure, found,
 *         expected; a parent that is another, was changed or is no VHD); -ENOENT a parent is not found; -EACCES it lies outside of
 *         the folders allowed; -ENOTSUP a kind that is not served (raw parents), or another
 *         format, which the line names; -EBUSY in use elsewhere; -ENOMEM;
 *         whatever the host said. Nothing is written by opening. Parents are opened read-only, and shared.
 * Owns:   the caller closes *out.
 */
int vhd_open(struct vhd **out, const char *path, const struct vhd_open_opts *opts, struct why *why);

/* The format of a file that is neither a VHD nor a raw disk, in words ("a qcow2 image", "a damaged VHD image"); NULL: none
 * is known. */
const char *vhd_other_format(struct hio *h);

/* Writes what is pending of our own metadata, flushes, closes. NULL is accepted. 0 or the first error. */
int vhd_close(struct vhd *v);
void vhd_closep(struct vhd **v);

uint64_t vhd_size(const struct vhd *v); /* bytes, a multiple of 512 */
bool vhd_writable(const struct vhd *v);
const char *vhd_path(const struct vhd *v);
/* The first byte from @off < size on with which a block begins, or the disk's end: blocks lie anywhere in the file, each behind its
 * bitmap. A fixed image has none. */
uint64_t vhd_next_block(const struct vhd *v, uint64_t off);
/* See hio_is_rotational(). */
bool vhd_is_rotational(const struct vhd *v);
/* The next image of the chain; NULL: there is none. Lives as long as @v. */
const struct vhd *vhd_parent(const struct vhd *v);
/* The same to read from; NULL also while @v is only open for information. */
struct vhd *vhd_backing(struct vhd *v);
/* The first layer that may hold something of a range: 0 the image itself, 1 its parent, …; none above it has a block there.
 * 0 also for an image without parents, and a range outside the disk. VHD_LAYER_NONE: all of it is zeros. A look at memory;
 * only the first one at a block costs more with more layers. */
unsigned vhd_layer(struct vhd *v, uint64_t off, uint64_t len);
/* The host file of the image itself, for tests that watch or disturb what goes to it; not for transfers. */
struct hio *vhd_host(struct vhd *v);

struct vhd_run {       /* one answer of vhd_map() */
	uint64_t off;  /* bytes into the host file of `layer`; undefined for a hole */
	uint64_t len;  /* bytes, > 0 */
	uint8_t layer; /* 0 = the image itself, 1 = its parent, … */
	bool hole;     /* reads as zeros, nothing allocated in any layer */
};

/**
 * vhd_map() - where the bytes of a guest range are
 * @off: any alignment, off + len <= vhd_size(v)
 * @run: out: the longest run that starts at off and is uniform (one file, contiguous, or all hole)
 *
 * Return: 0; -EINVAL range outside the disk; -EIO a sector bitmap could not be read.
 */
int vhd_map(struct vhd *v, uint64_t off, uint64_t len, struct vhd_run *run);

/**
 * vhd_load_maps() - what vhd_map() needs for a range comes into memory
 * @off, @len: bytes, inside the disk
 *
 * Reads the sector bitmaps of blocks that are there and not known to be full, of the image and, where it is not full, of its parents,
 * 16 at a time; no data. They leave memory again as others do: it is a hint.
 *
 * Return: 0; -EINVAL range outside the disk; -EIO, -ENOMEM, with some of them loaded.
 */
int vhd_load_maps(struct vhd *v, uint64_t off, uint64_t len);

/**
 * vhd_next_data() - the first byte at or after @off that may not read as zero, and the end of that run
 *
 * Follows BAT and sector bitmaps, and the host's own holes below them (SEEK_DATA). Runs in different blocks are reported
 * one by one. Asks the host: for tools and SEEK, not for every READ.
 *
 * Return: 0, *data == *end == vhd_size(v) when only zeros follow; -EINVAL off > vhd_size(v); -EIO.
 */
int vhd_next_data(struct vhd *v, uint64_t off, uint64_t *data, uint64_t *end);

/* One transfer of a guest range. Extents of a batch may touch different blocks; they are resolved, split and sent to the
 * host together. */
struct vhd_io {
	uint64_t off;            /* bytes; a multiple of 512 */
	const struct iovec *iov; /* lengths add up to a multiple of 512; the range lies inside the disk */
	int niov;
	int result; /* out: 0 or negative errno */
};

/* Read or write a batch and wait for it. Holes read as zeros without touching the host. Writing allocates what is
 * missing; see image/alloc.c for the order of writes. 0, or the first negative errno: -EINVAL, -EIO, -ENOSPC, -EROFS,
 * -ENOMEM, -EFBIG (the host file would pass 2 TiB). */
int vhd_readv(struct vhd *v, struct vhd_io *io, unsigned n);
int vhd_writev(struct vhd *v, struct vhd_io *io, unsigned n);

/* The same for one buffer, any alignment of @buf; off and len multiples of 512. */
int vhd_read(struct vhd *v, void *buf, uint64_t len, uint64_t off);
int vhd_write(struct vhd *v, const void *buf, uint64_t len, uint64_t off);

/* What the range holds is of no use any more: its space goes back to the host where that can be done, and it reads as zeros there.
 * Of a child, what its parents hold stays, and shows. A hint: for the space of blocks that a file system has freed. */
int vhd_discard(struct vhd *v, uint64_t off, uint64_t len);

/* What was written before this call is on stable storage, and would be found by an opener after a crash. -ENOSPC:
 * the host has no room for a table or bitmap, and the next flush tries again. Any other error stays: nothing written later is reported as
 * stable either. */
int vhd_flush(struct vhd *v);

/* From time to time, of an image that is served: are its file and those of its parents still there, as long as they should be, under
 * their names? 0, -EIO, -ESTALE as hio_look(), which says it in the log. */
int vhd_look(struct vhd *v);

/* What `vhdnfs image info` shows. */
struct vhd_info {
	enum vhd_type type;
	char creator[5]; /* NUL-terminated, zeros at the end left out, unprintable bytes as '?' */
	uint32_t creator_version;
	char creator_os[5];
	uint64_t size;                /* served size, bytes */
	uint64_t size_current;        /* the footer's current size */
	uint64_t size_chs;            /* what its geometry gives */
	enum vhd_size_from size_from; /* which of the two is served */
	uint16_t cylinders;
	uint8_t heads, sectors;
	uint32_t block_size; /* 0 for fixed */
	uint32_t blocks, blocks_allocated;
	uint64_t file_size;
	int64_t created; /* seconds since 1970 */
	uuid_t uuid;
	bool tail_ok, head_ok; /* which copies of the footer were good; a fixed disk has no head */
	bool saved_state;
	bool batmap; /* XenServer's map of full blocks is there */
	/* differencing */
	uuid_t parent_uuid;
	int64_t parent_time;   /* seconds since 1970; 0: not said */
	char parent_name[520]; /* UTF-8, as the header has it; cut when longer */
	unsigned nparents;
	struct vhd_parent_path {
		char code[5];   /* "W2ru", "W2ku", "MacX", … */
		char path[520]; /* UTF-8, as the locator has it; empty: not understood */
	} parent[8];
};
void vhd_info(const struct vhd *v, struct vhd_info *info);

struct vhd_create_opts {
	enum vhd_type type;
	const char *parent;  /* of VHD_DIFF: the image it is made over; size and geometry are the parent's */
	uint64_t size;       /* bytes, 1 … VHD_MAX_SIZE; not for VHD_DIFF */
	uint32_t block_size; /* 0 = 2 MiB; a power of two, 512 KiB … 256 MiB */
	uuid_t uuid;         /* zeros: a new one */
	bool exact;          /* keep the size (rounded up to 512) instead of rounding up to what geometry can express */
};

/* Make a new, empty image that reads as zeros; fails when @path exists. The file appears whole or not at all: until it is complete
 * its name is @path.new-PID, which whoever ends the program in the middle may remove. -EBUSY: somebody writes to the parent. */
int vhd_create(const char *path, const struct vhd_create_opts *opts, struct why *why);

/**
 * vhd_commit() - what a child holds itself goes into its parent
 * @path:     of the child, which nobody may have open, nor the parent
 * @o:        where the parent is
 * @progress: called with bytes done and in all; may be NULL
 *
 * The child stays as it is, and whole at every moment; it only repeats its parent afterwards. Other children of the parent do not
 * survive this: their parent changed.
 *
 * Return: 0; -EFBIG the child holds something behind the parent's end; what opening and writing say.
 */
int vhd_commit(const char *path, const struct vhd_open_opts *o, void (*progress)(uint64_t done, uint64_t all),
	       struct why *why);

/* The size that vhd_create() gives for a request: CHS-exact below 65535*16*255 sectors, else rounded up to 512. */
uint64_t vhd_round_size(uint64_t size);

#endif

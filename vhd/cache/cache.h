/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cache.h - the block cache: the only place where image data stays in memory
 *
 * One cache serves all images and has one memory limit, which is kept: frames of 64 KiB, keyed by (device, frame
 * number), each with valid and dirty bits per 4 KiB unit. A frame's states:
 *
 *     EMPTY --fill--> CLEAN <--writeback done-- WRITING
 *       |               ^  \--write--> DIRTY --writeback--^   (a write while WRITING makes it DIRTY again)
 *       +---- evict ----+  only CLEAN, unpinned frames are evicted
 *
 * Eviction is scan-resistant (S3-FIFO). Dirty frames are written back by the cache's own thread, by age and by amount,
 * neighbours coalesced; writers wait when too much is dirty.
 *
 * CACHE_NOWAIT: the call does what it can without waiting for the host or for memory, else returns -EAGAIN having done
 * nothing; the caller repeats it on a thread that may wait. All others may block.
 *
 * Only the functions below change the bytes of a frame. A pinned frame stays in memory and readable; its bytes may
 * change under the reader when somebody writes to the range, as on a disk.
 *
 * A device is a range of a struct vhd (a partition or the whole disk). All offsets are bytes from the device's start.
 */
#ifndef VHDNFS_CACHE_CACHE_H
#define VHDNFS_CACHE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/uio.h>

#include "vhd/image/vhd.h"

#define CACHE_FRAME 65536u
#define CACHE_UNIT 4096u
#define CACHE_MIN_LIMIT (4u << 20)

struct cache;
struct cache_dev;
struct frame;

enum cache_flags {
	CACHE_NOWAIT = 1 << 0, /* -EAGAIN rather than wait */
	CACHE_META = 1 << 1,   /* file-system metadata: counted apart, kept a little longer */
	CACHE_HOLD = 1 << 2, /* writes: the units do not go to the image until cache_release(); not with CACHE_NOWAIT */
};
/* Besides, of reads: who reads, 1 … CACHE_WHO_MAX; 0 is nobody in particular. For cache_demote(). */
#define CACHE_WHO(who) ((unsigned)(who) << 16)
#define CACHE_WHO_MAX 65534u

/* @limit: bytes for frames, CACHE_MIN_LIMIT when it is less; what the cache allocates besides (index, lists) is below 1 %,
 * and 200 KiB for what waits to be read ahead. */
int cache_new(struct cache **out, size_t limit);
void cache_free(struct cache *c); /* all devices must be detached; NULL is accepted */
/* How old dirty data may become before it is written back; 5000 ms unless set. */
void cache_set_age(struct cache *c, uint32_t age_ms);

/* Attach [start, start + len) of an image. start is a multiple of 512 (-EINVAL), of @len the part that fills whole sectors
 * counts; when start is not a multiple of 4 KiB, frames are still relative to it. The image stays the caller's and must
 * outlive the device. */
int cache_attach(struct cache *c, struct vhd *v, uint64_t start, uint64_t len, struct cache_dev **out);
/* Writes back, flushes, drops every frame. No pins may be left. 0 or the first error (the device is gone either way). */
int cache_detach(struct cache_dev *d);

/* Nobody reads or writes the image from the return of this until cache_resume(), which gives the device another one of the same
 * size and contents, or the same again. */
void cache_pause(struct cache_dev *d);
void cache_resume(struct cache_dev *d, struct vhd *v);

uint64_t cache_dev_size(const struct cache_dev *d);
bool cache_dev_writable(const struct cache_dev *d);

/* Copy out or in. Ranges must lie inside the device (-EINVAL); any alignment. A write marks the units dirty; it reads a
 * unit first only when it covers part of it and the unit is not valid. cache_writev() takes the bytes from @iov, whose
 * lengths add up to @len. Errors: -EAGAIN, -EIO (and what the image layer returns), -EROFS, -ENOMEM. */
int cache_read(struct cache_dev *d, void *buf, size_t len, uint64_t off, unsigned flags);
int cache_write(struct cache_dev *d, const void *buf, size_t len, uint64_t off, unsigned flags);
int cache_writev(struct cache_dev *d, const struct iovec *iov, int niov, size_t len, uint64_t off, unsigned flags);
int cache_zero(struct cache_dev *d, uint64_t off, uint64_t len, unsigned flags);

/* A piece of a pinned range. */
struct cache_seg {
	uint8_t *base;
	uint32_t len;
	struct frame *pin; /* NULL: memory that needs no pin (a page of zeros) */
};

/**
 * cache_pin() - make a range readable in place
 * @seg: out: the pieces in order, one per frame touched
 * @max: room in @seg; (len / CACHE_FRAME) + 2 is always enough
 *
 * Missing units are read together, with as few and as large transfers as the image's layout allows.
 *
 * Return: the number of pieces (> 0), their lengths adding up to len; -EAGAIN (CACHE_NOWAIT), -EINVAL, -EIO, -ENOMEM.
 * Owns:   each piece holds its frame until cache_unpin(); do not keep pins while waiting for a client without bound.
 */
int cache_pin(struct cache_dev *d, uint64_t off, uint32_t len, unsigned flags, struct cache_seg *seg, unsigned max);
void cache_unpin(struct cache_seg *seg, unsigned n);

/* Would a write have to wait until something was written back? */
bool cache_is_full(struct cache_dev *d);

/* What somebody wants read ahead. */
struct cache_want {
	uint64_t tag; /* for cache_unwant() */
	uint16_t
		account; /* 1 … CACHE_ACCOUNTS - 1: what it may have in memory unused is limited; 0: only the cache's own limits hold */
	bool down; /* the end of the range first: the reader goes downwards */
	bool idle; /* only while nobody waits for the image and memory is free; what the image says of the range (its maps) at once */
};
#define CACHE_ACCOUNTS 1024u

/**
 * cache_prefetch() - start reading what is missing of a range in the background
 *
 * Best effort; never blocks. What is read ahead and was not used yet is at most a quarter of the cache for an account, and half of
 * it for a device, with the parents of its image.
 *
 * Return: bytes of the range, from its start (down: to its end), that are in memory or will be; 0: the queue or the account is full.
 */
uint64_t cache_prefetch(struct cache_dev *d, uint64_t off, uint64_t len, const struct cache_want *w);
/* Where a piece of [off, off + len) that is to be read by itself had better begin: on a disk with a head at the image's next block,
 * since the way to @off leads past the bitmap of the one it is in. Else, or when that is not in the range: @off. */
uint64_t cache_good_start(struct cache_dev *d, uint64_t off, uint64_t len);
/* Nobody needs what was wanted with a tag that is @tag in the bits of @mask, as far as it was not begun. Never blocks. */
void cache_unwant(struct cache_dev *d, uint64_t tag, uint64_t mask);

/* Bytes of a range that can be read without asking the image. */
uint64_t cache_resident(struct cache_dev *d, uint64_t off, uint64_t len);

/**
 * cache_demote() - what a range has in memory is the next to leave it
 *
 * Of those that are its giver's to give up, also where they are in frames of the image's parents. Best effort; never blocks.
 */
struct cache_giver {
	uint16_t who;     /* frames that the range touches, if nobody but who has read them, … */
	uint16_t account; /* … and no other account waits for what was read ahead in them */
	/* Only frames that lie wholly in the range, but whoever has read them, unless they are of a parent that others are over. */
	bool alone;
	bool gently; /* not what was used again and again */
};
void cache_demote(struct cache_dev *d, uint64_t off, uint64_t len, const struct cache_giver *g);

/* Write the dirty units of a range to the image and wait. Says nothing about stable storage: vhd_flush() does. */
int cache_writeback(struct cache_dev *d, uint64_t off, uint64_t len);
/* Several ranges in one batch. */
struct cache_range {
	uint64_t off, len;
};
int cache_writeback_ranges(struct cache_dev *d, const struct cache_range *r, unsigned n);
/* Everything of the device, then vhd_flush(). */
int cache_flush(struct cache_dev *d);
/* Only vhd_flush(): what was written back before is on stable storage. */
int cache_flush_device(struct cache_dev *d);

/* Would units held back in @more further frames, beside those that are, leave less than three quarters of the cache to others? */
bool cache_holds_much(struct cache_dev *d, uint64_t more);
/* Units that were written with CACHE_HOLD and lie in the range in whole or in part may be written back again. */
void cache_release(struct cache_dev *d, uint64_t off, uint64_t len);
/* After cache_writeback_ranges(): the bytes of these ranges, multiples of 512, that share a unit with something held, and so
 * were left out, even if it was released since. For file systems with blocks smaller than a unit; what is held itself must not be
 * in a range. */
int cache_writeback_held(struct cache_dev *d, const struct cache_range *r, unsigned n);
/* Write to the image past the cache, and wait: offsets are the device's. For ranges that nobody reads or writes through the
 * cache (a journal). Lengths and offsets are multiples of 512. Errors as vhd_writev(). */
int cache_write_direct(struct cache_dev *d, struct vhd_io *io, unsigned n);
/* The same for reading; and for one piece. */
int cache_readv_direct(struct cache_dev *d, struct vhd_io *io, unsigned n);
int cache_read_direct(struct cache_dev *d, void *buf, uint64_t len, uint64_t off);

/**
 * cache_overlay() - these bytes in place of what the image holds
 *
 * For a device that is only read, before others use it: what a journal holds that cannot be written home. All blocks of a device
 * have one length, a power of two, and offsets that are multiples of it. Copied; memory beside the cache's limit, as long as the
 * device is attached. -EINVAL, -ENOMEM.
 */
int cache_overlay(struct cache_dev *d, const void *bytes, uint32_t len, uint64_t off);

/* Forget a range, dirty or not: its blocks were freed. Pinned frames keep their bytes until unpinned. */
void cache_discard(struct cache_dev *d, uint64_t off, uint64_t len);

/* The range is of no use to anybody: forgotten, and its space in the image given back where that can be done. Nobody reads or
 * writes it meanwhile. 0 or what vhd_discard() says. */
int cache_trim(struct cache_dev *d, uint64_t off, uint64_t len);

/* vhd_look() on its image. */
int cache_dev_look(struct cache_dev *d);

/* The first error that background writeback met since the last call (then 0 again): reported by COMMIT. */
int cache_dev_error(struct cache_dev *d);

/**
 * cache_trace() - what is asked for, as a line "DEVICE FRAME" for each frame, in decimal, from now on
 *
 * For tests/bench/cache-replay. Repeats of a frame one after the other are one line. Slows every read down; the stream is the
 * caller's, and must live as long as the cache. Before anybody uses the cache.
 */
void cache_trace(struct cache *c, FILE *to);

struct cache_stats {
	uint64_t limit, used, dirty; /* bytes */
	uint64_t hits, misses;       /* per lookup of a frame */
	uint64_t evictions, writebacks, throttled;
	/* By what was evicted: metadata; data that was given up (cache_demote()); other data. */
	uint64_t evicted_meta, evicted_given_up;
	uint64_t hits_meta;                 /* of hits */
	uint64_t young, old, given_up;      /* bytes of frames, by where they are in the order of leaving */
	uint64_t bytes_read, bytes_written; /* from and to the images */
	/* Bytes that were read ahead; of those that have left memory since, what somebody had used, and what nobody had. */
	uint64_t ahead, ahead_used, ahead_wasted;
	uint64_t ahead_dropped;  /* requests to read ahead that came when too many waited, or the account was full */
	uint64_t ahead_late;     /* bytes that somebody had to wait for though they were being read ahead */
	uint64_t ahead_canceled; /* bytes that nobody needed any more before they were read */
	uint64_t reads_saved;    /* times that nobody had to go to the disk, since it had been read ahead */
	uint64_t ahead_waiting;  /* bytes read ahead, or about to be, that nobody has used yet */
};
void cache_stats(struct cache *c, struct cache_stats *st);

/* Of one device, bytes: from and to its image since it was attached; read ahead, or about to be, and not used yet. */
struct cache_dev_stats {
	uint64_t bytes_read, bytes_written, ahead_waiting;
};
void cache_dev_stats(struct cache_dev *d, struct cache_dev_stats *st);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cache_int.h - frames, shards, devices
 *
 * A frame belongs to one shard for ever; its key says which (hash of device and frame number). A shard is a mutex, a hash
 * table and the queues of S3-FIFO over its own frames, so that threads meet only when they want the same shard.
 *
 * Per unit of 4 KiB a frame has four bits, all guarded by the shard's mutex:
 *
 *     valid     the bytes are those of the device, or newer
 *     dirty     newer than the device
 *     claimed   somebody is putting bytes in (a fill, or a write over a unit that is not valid): others wait
 *     writing   being written back; a write meanwhile sets dirty again
 *
 *     (none) --claim--> claimed --done--> valid --write--> valid+dirty --writeback--> valid+writing --> valid
 *
 * Locks, outermost first: shard.mu; then nothing (dirty_mu, prefetch_mu are leaves). No lock is held across I/O: a frame
 * under I/O is kept by a pin and by its claimed or writing bits.
 *
 * Room is left for the journal: a unit that is held back until its transaction has committed is one more bit here, left
 * out by writeback and eviction like `claimed`.
 */
#ifndef VHDNFS_CACHE_CACHE_INT_H
#define VHDNFS_CACHE_CACHE_INT_H

#include <stdatomic.h>

#include "vhd/base/list.h"
#include "vhd/base/lock.h"
#include "vhd/cache/cache.h"

#define UNITS (CACHE_FRAME / CACHE_UNIT)
#define ALL_UNITS 0xffffu
#define SHARDS_MAX 64u

enum queue { Q_NONE, Q_SMALL, Q_MAIN };

struct frame {
	struct cache_dev *dev; /* NULL: free */
	uint64_t no;
	struct frame *hash_next;
	uint8_t *data;
	atomic_uint pins;
	uint16_t valid, dirty, claimed, writing;
	uint8_t queue, hits;    /* hits: 0 … 3, seen since it last moved */
	uint32_t dirty_since;   /* seconds, of the oldest dirty byte */
	struct list q;          /* small or main queue, or the free list */
	struct list dirty_link; /* of the shard, oldest first */
};

#define GHOSTS 64u /* keys of frames that left the small queue lately; a power of two */

struct shard {
	struct lock mu;
	struct cond changed; /* claimed or writing bits went, a frame may have become free */
	struct frame **bucket;
	uint32_t bucket_mask;
	struct list free, small, main, dirty;
	uint32_t nsmall, nmain, nframes;
	uint32_t waiters;
	uint64_t ghost[GHOSTS];
	uint32_t ghost_next;
	uint64_t hits, misses, evictions;
	_Alignas(64) char pad[1];
};

struct prefetch {
	struct list link;
	struct cache_dev *dev;
	uint64_t off, len;
};

struct cache {
	size_t limit;
	uint8_t *memory;
	size_t memory_len;
	struct frame *frames;
	uint32_t nframes, nshards;
	struct shard *shard;
	atomic_ulong dirty_units, used_frames;
	atomic_ulong writebacks, throttled, bytes_read, bytes_written;

	struct lock flush_mu;
	struct cond flush_cond; /* there is something to write back */
	struct cond drained;    /* dirty units went down */
	bool stopping GUARDED_BY(flush_mu);
	atomic_bool urgent; /* write back everything, not only what is old */
	struct list devs GUARDED_BY(flush_mu);
	pthread_t flusher;

	struct lock prefetch_mu;
	struct cond prefetch_cond, prefetch_done;
	struct list prefetch_queue GUARDED_BY(prefetch_mu);
	uint32_t prefetch_len GUARDED_BY(prefetch_mu);
	bool prefetch_stop GUARDED_BY(prefetch_mu);
	unsigned nprefetchers;
	pthread_t prefetcher[2];
};

struct cache_dev {
	struct cache *cache;
	struct vhd *vhd;
	uint64_t start, len;
	uint64_t salt; /* for the hash: devices never meet by their address alone */
	struct list link;
	atomic_int error; /* since the last cache_dev_error() */
	atomic_bool complained;
	unsigned users GUARDED_BY(cache->flush_mu); /* the flusher works on it */
	unsigned prefetching GUARDED_BY(cache->prefetch_mu);
};

/* ---- frame.c ---- */
struct shard *shard_of(const struct cache_dev *d, uint64_t no);
struct frame *frame_find(struct shard *s, const struct cache_dev *d, uint64_t no) REQUIRES(s->mu);
/* Find or make; pinned. The shard's mutex is held on return when 0. -EAGAIN, -ENOMEM. */
int frame_get_locked(struct cache_dev *d, uint64_t no, unsigned flags, struct shard **s, struct frame **out);
static inline void frame_put(struct frame *f)
{
	atomic_fetch_sub_explicit(&f->pins, 1, memory_order_release);
}
void frame_set_dirty(struct cache *c, struct shard *s, struct frame *f, uint16_t units) REQUIRES(s->mu);
void frame_clear_dirty(struct cache *c, struct frame *f, uint16_t units);
void frame_drop(struct cache *c, struct shard *s, struct frame *f) REQUIRES(s->mu);
static inline void shard_wake(struct shard *s)
{
	if (s->waiters)
		cond_broadcast(&s->changed);
}
void shard_wait(struct shard *s) REQUIRES(s->mu);

/* ---- writeback.c ---- */
int writeback_start(struct cache *c);
void writeback_stop(struct cache *c);
/* Writers: is there too much that is dirty? Waits, or -EAGAIN. */
int writeback_throttle(struct cache *c, unsigned flags);
void writeback_kick(struct cache *c);
uint32_t now_seconds(void);

/* ---- prefetch.c ---- */
int prefetch_start(struct cache *c);
void prefetch_stop(struct cache *c);
void prefetch_forget(struct cache_dev *d);

#endif

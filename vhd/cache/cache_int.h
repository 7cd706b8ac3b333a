/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cache_int.h - what the cache's files share
 *
 *     cache.c      caches, devices, counters         batch.c      runs of units <-> transfers of the image
 *     frame.c      lookup, pins, memory, discard     writeback.c  dirty units, the writeback thread, throttling
 *     evict.c      S3-FIFO                           prefetch.c   reading ahead in the background
 *     pin.c        reading, filling                  write.c      writing
 *
 * A unit (4 KiB) of a frame is in one of these states, given by a bit in each of four masks:
 *
 *                          claim                     done
 *     absent (none) ---------------------> busy ------------------> clean (valid)
 *        ^  ^                                \  written by a writer      |   ^
 *        |  +-- failed ----------------------/\                          |   | done
 *        |                                     +----> dirty <--- write --+   |
 *        |                                       (valid, dirty) --take--> writing (valid, writing)
 *        +------------- discard ------------------------/  <---- write ---- also dirty again: (valid, dirty, writing)
 *
 *     busy     exactly one owner makes it valid: a filler (transfer from the image) or a writer that covers it wholly
 *     valid    its bytes are what a reader must see
 *     dirty    its bytes are newer than the image's; never without valid
 *     writing  exactly one owner writes it to the image; a discard may take valid away meanwhile
 *
 * Rules:
 *  1. busy and valid exclude each other: so a fill can never overwrite bytes that somebody wrote.
 *  2. A unit that is writing is neither taken for writing again (old bytes could land after new ones) nor claimed.
 *  3. A writer copies first and sets dirty then: whatever a transfer that was under way has missed is written again.
 *  4. Who holds claims, or has taken units for writing and not yet submitted them, does not wait for anything: this is
 *     why there is no deadlock among fills, writes and writebacks of overlapping ranges.
 *  5. Who waits for memory holds no pin: so memory comes free when everybody waits.
 *  6. The masks change only under the frame's shard lock; who has seen a frame there and wants to keep it, pins it.
 *     Only clean frames without a pin leave the cache (evict.c).
 *  7. A unit that was discarded while the frame was pinned is `stale`: a reader may still be sending its old bytes, so
 *     nothing new may be put there. Who claims it, and finds pins of others, first moves the frame's other units to a
 *     fresh frame (frame_replace()). The old one is GONE: out of the index, freed by the last unpin. So is one that was
 *     discarded in part, for blocks smaller than a unit: it stays valid, and who writes to it moves it first.
 *
 * A hit takes no lock: walk the chain, pin, look at the key again, look at `valid`. Frame structures are never freed
 * while the cache lives, so a walk that is overtaken reads a frame, if maybe another one, and the look after the pin tells.
 * The count in `pins` may therefore be too high for a moment on any frame, dead ones included.
 *
 * Units that a journal holds back until their transaction has committed (`held`, always together with dirty) are left out
 * by frame_take_dirty(), the only place where units leave `dirty` for the image. A unit that is being written is not taken
 * hold of: its new bytes might still go with the transfer. A policy for a frame is what evict.c keeps in `cls`.
 *
 * Locks, outermost first: shard.mu, then at most one of policy.mu, cache_dev.dirty_mu, pool.mu, wb.mu. cache.mu,
 * prefetch.mu and wb.mu are never held while another is taken. No lock is held across I/O.
 */
#ifndef VHDNFS_CACHE_CACHE_INT_H
#define VHDNFS_CACHE_CACHE_INT_H

#include <assert.h>
#include <stdatomic.h>

#include "vhd/base/checked.h"
#include "vhd/base/list.h"
#include "vhd/base/lock.h"
#include "vhd/cache/cache.h"

#define FRAME_SHIFT 16
#define UNIT_SHIFT 12
#define UNITS (CACHE_FRAME / CACHE_UNIT)
#define ALL_UNITS ((uint16_t)0xffff)

#define WHO_SEVERAL (CACHE_WHO_MAX + 1)

#define PIN_DEAD 0x80000000u /* on the free list or about to be: the key means nothing */
#define PIN_GONE 0x40000000u /* out of the index; the last unpin frees it */
#define PIN_COUNT 0x3fffffffu

#define SHARDS 64u
#define STRIPES 16u
#define LINE 64

enum frame_queue { Q_NONE, Q_ONCE, Q_SMALL, Q_MAIN, QUEUES };
enum frame_class { CLS_DATA, CLS_META, CLS_AHEAD /* came to MAIN because it was read ahead and not used yet */ };

struct frame {
	/* The first line is what a hit touches. */
	_Atomic uint64_t key; /* device id << 32 | frame number */
	struct frame *_Atomic next;
	atomic_uint pins;
	_Atomic uint16_t valid;
	_Atomic uint16_t touched; /* units that were read or written since the frame came in; evict.c */
	_Atomic uint8_t freq;     /* times that units were touched again, at most FREQ_MAX */
	_Atomic uint8_t cls;      /* enum frame_class */
	_Atomic uint8_t queue;    /* enum frame_queue; changed under policy.mu */
	_Atomic uint16_t reader;  /* who has read it: 0 nobody, WHO_SEVERAL */
	uint8_t *base;            /* constant once made */
	struct cache *c;          /* constant once made */
	struct list q;            /* policy.mu: on small or main; pool.mu: on the free list */

	/* Shard lock. */
	_Atomic uint16_t dirty; /* also read without the lock, as a guess */
	uint16_t writing, busy, stale;
	uint16_t coming; /* of busy: for reading ahead */
	_Atomic uint32_t
		ahead; /* account << 16 | units that were read ahead and not used yet; cleared without the lock */
	_Atomic uint16_t held; /* also read without the lock, as a guess */
	uint32_t writers;      /* copies into valid units under way */
	uint32_t dirtied_ms;   /* dirty_mu: when the oldest dirty unit became so */
	struct list dl;        /* dirty_mu: on cache_dev.dirty while dirty | writing */
};
static_assert(sizeof(struct frame) <= 128, "a frame's overhead is part of the promised 1 %");

struct shard {
	_Alignas(LINE) struct lock mu;
	struct cond cond; /* units of some frame have left busy or writing, or a frame is gone */
	unsigned waiters GUARDED_BY(mu);
};

struct pool {
	struct lock mu;
	struct list free GUARDED_BY(mu);
	uint32_t nfree GUARDED_BY(mu);
	uint32_t made GUARDED_BY(mu); /* frames whose memory can be touched; they are frames[0 … made) */
	uint8_t *arena;               /* address space for all frames; slabs are made accessible as they are needed */
};

#define SLAB_FRAMES 32u /* 2 MiB: a huge page of most processors; the arena begins at a multiple of it */

struct policy {
	struct lock mu;
	struct list q[QUEUES] GUARDED_BY(mu); /* young ends first */
	uint32_t n[QUEUES] GUARDED_BY(mu);
	uint64_t *ghost; /* mu; fingerprint << 32 | clock, sets of GHOST_WAYS */
	uint32_t ghost_mask;
	uint32_t clock GUARDED_BY(mu); /* frames that went into the ghost queue */
	unsigned met GUARDED_BY(mu);   /* queues (bits) whose old end was in use just now */
};

struct writeback {
	struct lock mu;
	struct cond kick; /* the thread has something to do */
	struct cond done; /* a batch was written, or failed */
	bool stop GUARDED_BY(mu), urgent GUARDED_BY(mu), kicked GUARDED_BY(mu);
	atomic_bool kick_seen; /* kicked, readable without the lock */
	uint32_t *scratch;     /* frame numbers; the thread's own */
	pthread_t thread;
};

#define PREFETCH_THREADS 4
#define PREFETCH_QUEUE 1024u
struct prefetch_req {
	struct cache_dev *d;
	uint64_t off, len;
	uint64_t turn;  /* bytes that it may have before the next request's turn */
	uint32_t since; /* ms */
	bool maps;      /* not the bytes, only what the image says of them; charged to nobody */
	struct cache_want want;
};
struct prefetch_ring {
	struct prefetch_req q[PREFETCH_QUEUE];
	unsigned head, n;
};
struct prefetch {
	struct lock mu;
	struct cond work, idle;
	struct prefetch_ring now GUARDED_BY(mu), later
		GUARDED_BY(mu); /* later: wanted when nothing else is to be done */
	bool stop GUARDED_BY(mu);
	bool waking GUARDED_BY(mu); /* a thread was told, and has not looked yet */
	struct prefetch_at {
		struct cache_dev *d; /* NULL: nothing */
		uint64_t tag;
	} at[PREFETCH_THREADS] GUARDED_BY(mu); /* what the threads are at */
	unsigned nthreads;
	unsigned numbers GUARDED_BY(mu); /* given to threads: their places in at[] */
	pthread_t thread[PREFETCH_THREADS];
};

struct stripe {
	_Alignas(LINE) _Atomic uint64_t hits;
	_Atomic uint64_t misses;
	_Atomic uint64_t hits_meta;
};

struct cache {
	/* Constant after cache_new(). */
	uint32_t nframes;
	uint32_t bucket_mask;
	uint32_t dirty_bg;   /* dirty frames from which on writeback does not wait for age */
	uint32_t dirty_hard; /* dirty frames from which on writers wait */
	struct frame *frames;
	struct frame *_Atomic *buckets;
	size_t limit;
	FILE *trace; /* NULL: none */

	_Alignas(LINE) _Atomic uint32_t dirty_frames;
	_Atomic uint32_t held_frames; /* with something held: no writing back makes them fewer */
	_Atomic uint64_t dirty_units;
	_Atomic uint64_t evictions, writebacks, throttled, bytes_read, bytes_written;
	_Atomic uint64_t ahead_units, ahead_used, ahead_wasted; /* read ahead; used; gone without having been used */
	_Atomic uint64_t ahead_dropped, ahead_late, ahead_canceled;
	_Atomic uint64_t reads_saved;
	_Atomic uint64_t evicted_meta, evicted_given_up;
	/* Units read ahead, or about to be, that nobody has used yet: of an account, of a device (its id's low bits). */
	_Atomic int64_t on_account[CACHE_ACCOUNTS], on_device[CACHE_ACCOUNTS];
	_Atomic uint32_t demand;    /* fills under way that somebody waits for */
	_Atomic uint32_t demand_ms; /* when the last one ended */
	_Atomic uint32_t age_ms;

	struct lock mu;
	struct cond dev_idle;            /* users of some device went to 0 */
	struct list devs GUARDED_BY(mu); /* struct cache_dev.link */
	uint32_t next_id GUARDED_BY(mu); /* 0 is no device's */
	uint64_t rounds GUARDED_BY(mu);  /* of the writeback thread */

	struct lock share_mu;
	struct list shared GUARDED_BY(share_mu); /* struct cache_dev.share_link */

	struct policy policy;
	struct pool pool;
	struct writeback wb;
	struct prefetch prefetch;
	struct stripe stripe[STRIPES];
	struct shard shard[SHARDS];
};

struct cache_dev {
	struct cache *c;
	struct vhd *v;
	uint64_t start, len;
	uint32_t id;
	bool writable;
	bool rotational; /* vhd_is_rotational() */

	struct list link;  /* cache.mu */
	unsigned users;    /* cache.mu: the writeback thread works on it */
	uint64_t round;    /* cache.mu: the last one that it took part in */
	unsigned fetching; /* prefetch.mu: requests that are being read */

	struct lock dirty_mu;
	struct list dirty GUARDED_BY(dirty_mu); /* frames with units dirty or writing, the oldest first */
	_Atomic uint32_t ndirty;                /* their number; changed under dirty_mu */

	_Atomic uint64_t bytes_read, bytes_written;

	atomic_int err;          /* first error of background writeback not yet reported */
	atomic_int failing;      /* the last attempt to write failed: its errno; 0 when it went well */
	struct overlay *overlay; /* overlay.c; NULL: there is none */

	/* share.c */
	struct cache_dev *_Atomic below;     /* of the parent; a reference */
	struct cache_dev *_Atomic was_below; /* gate.c: a reference to what others may be looking at */
	/* Of a parent's device: itself, and those that are below it. */
	struct cache_dev *layer[VHD_CHAIN_MAX];
	unsigned layers;
	struct list share_link; /* cache.share_mu, as the next: of a parent's device */
	unsigned share_refs;

	/* gate.c: whoever uses v is counted, so that it can be replaced. */
	atomic_uint inside;
	atomic_bool paused;
	struct lock gate_mu;
	struct cond gate;
	/* The writeback thread's own: when to try a failing device again. */
	uint32_t retry_at_ms, backoff_ms;
};

/* gate.c */
void dev_wait(struct cache_dev *d);
void dev_wake(struct cache_dev *d);

static inline void dev_leave(struct cache_dev *d)
{
	if (atomic_fetch_sub(&d->inside, 1) == 1 && atomic_load(&d->paused))
		dev_wake(d);
}

/* Around every use of d->v: it stays what it is until dev_leave(). Not twice by one thread. */
static inline void dev_enter(struct cache_dev *d)
{
	for (;;) {
		atomic_fetch_add(&d->inside, 1);
		if (!atomic_load(&d->paused))
			return;
		dev_leave(d);
		dev_wait(d);
	}
}

/* The same without waiting: false when the image is being replaced. */
static inline bool dev_try_enter(struct cache_dev *d)
{
	atomic_fetch_add(&d->inside, 1);
	if (!atomic_load(&d->paused))
		return true;
	dev_leave(d);
	return false;
}

/* ---- arithmetic ------------------------------------------------------------------------------------------------- */

/* Units [first, end) of a frame. */
static inline uint16_t units_range(unsigned first, unsigned end)
{
	return (uint16_t)(first < end ? (1u << end) - (1u << first) : 0);
}

/* Units that [from, from + len) of a frame touches; len > 0. */
static inline uint16_t units_touched(uint32_t from, uint32_t len)
{
	return units_range(from >> UNIT_SHIFT, ((from + len - 1) >> UNIT_SHIFT) + 1);
}

/* Units of which [from, from + len) leaves out no byte of the frame's first @bytes. */
static inline uint16_t units_covered(uint32_t from, uint32_t len, uint32_t bytes)
{
	uint32_t end = from + len;

	return units_range((from + CACHE_UNIT - 1) >> UNIT_SHIFT,
			   (end >= bytes ? bytes + CACHE_UNIT - 1 : end) >> UNIT_SHIFT);
}

/* Bytes of frame @no that the device has. */
static inline uint32_t frame_bytes(const struct cache_dev *d, uint32_t no)
{
	return (uint32_t)min_u64(CACHE_FRAME, d->len - ((uint64_t)no << FRAME_SHIFT));
}

static inline uint64_t frame_key(const struct cache_dev *d, uint32_t no)
{
	return (uint64_t)d->id << 32 | no;
}

static inline uint32_t frame_no(struct frame *f)
{
	return (uint32_t)atomic_load_explicit(&f->key, memory_order_relaxed);
}

static inline uint64_t key_hash(uint64_t key)
{
	key *= UINT64_C(0x9e3779b97f4a7c15);
	return key ^ key >> 32;
}

static inline uint32_t key_bucket(const struct cache *c, uint64_t key)
{
	return (uint32_t)key_hash(key) & c->bucket_mask;
}

/* Every bucket belongs to one shard. */
static inline struct shard *key_shard(struct cache *c, uint64_t key)
{
	return &c->shard[key_hash(key) % SHARDS];
}

/* Of a frame that cannot change its key: pinned, dirty, or taken from the free list. */
static inline struct shard *frame_shard(struct frame *f)
{
	return key_shard(f->c, atomic_load_explicit(&f->key, memory_order_relaxed));
}

static inline bool frame_is_gone(struct frame *f)
{
	return atomic_load_explicit(&f->pins, memory_order_relaxed) & PIN_GONE;
}

uint32_t now_ms(void); /* monotonic, wraps: compare by difference */

static inline void shard_wait(struct shard *s) REQUIRES(s->mu)
{
	s->waiters++;
	cond_wait(&s->cond, &s->mu);
	s->waiters--;
}

static inline void shard_wake(struct shard *s) REQUIRES(s->mu)
{
	if (s->waiters)
		cond_broadcast(&s->cond);
}

/* ---- frame.c ---------------------------------------------------------------------------------------------------- */

void frame_bury(struct frame *f);

static inline void frame_pin(struct frame *f)
{
	atomic_fetch_add_explicit(&f->pins, 1, memory_order_seq_cst);
}

static inline void frame_unpin(struct frame *f)
{
	unsigned was = atomic_fetch_sub_explicit(&f->pins, 1, memory_order_release);

	if (__builtin_expect(was == (PIN_GONE | 1), 0))
		frame_bury(f);
}

/* The frame of a key if it is in memory, pinned; NULL when not (or, rarely, when it was overtaken). Takes no lock. */
static inline struct frame *frame_lookup(struct cache *c, uint64_t key)
{
	struct frame *f = atomic_load_explicit(&c->buckets[key_bucket(c, key)], memory_order_acquire);

	/* An overtaken walk may end up in other chains: bounded. */
	for (int steps = 0; f && steps < 32; steps++) {
		if (atomic_load_explicit(&f->key, memory_order_relaxed) == key) {
			/* seq_cst: against frame_stale_free(), which clears valid and then looks at the pins. */
			unsigned was = atomic_fetch_add_explicit(&f->pins, 1, memory_order_seq_cst);

			if (!(was & (PIN_DEAD | PIN_GONE)) &&
			    atomic_load_explicit(&f->key, memory_order_relaxed) == key)
				return f;
			frame_unpin(f);
			return NULL;
		}
		f = atomic_load_explicit(&f->next, memory_order_acquire);
	}
	return NULL;
}

enum { EVICT_QUICK = 128 }; /* frames looked at on a thread that must not wait */

/* The frame of a number, made when it is not there, pinned. -EAGAIN: no memory without waiting. */
int frame_get(struct cache_dev *d, uint32_t no, unsigned evict_steps, struct frame **out);
/* The frame of a number, pinned, or NULL; never overtaken. */
struct frame *frame_find(struct cache_dev *d, uint32_t no);
/* Take a frame out of the index and the queues; it is freed when its pins are gone. It has no dirty, writing or busy
 * unit and no writer. */
void frame_drop(struct shard *s, struct frame *f) REQUIRES(s->mu);
/* Rule 7: may @units be claimed, or written? The caller holds one pin. */
bool frame_stale_free(struct shard *s, struct frame *f, uint16_t units) REQUIRES(s->mu);
/* Rule 7: move what is valid to a fresh frame; the caller's pin of @f stays, it looks the number up again. 0, -EAGAIN. */
int frame_replace(struct cache_dev *d, struct frame *f, unsigned evict_steps);
/* Everything of the device leaves the cache, dirty or not; the number of dirty units that were lost. */
uint64_t frame_drop_all(struct cache_dev *d);
struct frame *frame_alloc(struct cache *c, unsigned evict_steps);
void frame_free(struct frame *f);
void hash_del(struct cache *c, struct frame *f);

/* ---- evict.c ---------------------------------------------------------------------------------------------------- */

#define FREQ_MAX 3

int policy_init(struct policy *p, uint32_t nframes);
void policy_fini(struct policy *p);
void policy_insert(struct cache *c, struct frame *f); /* a new frame */
void policy_move(struct cache *c, struct frame *from, struct frame *to);
void policy_remove(struct cache *c, struct frame *f);
/* To the end of the queue where frames leave, as if it was never touched. */
void policy_demote(struct cache *c, struct frame *f);
/* A frame nobody needs, out of the index and the queues (dead); NULL when @steps looks found none. */
struct frame *policy_evict(struct cache *c, unsigned steps);

/* Units that were read ahead are used for the first time; prefetch.c. */
void frame_ahead_used(struct frame *f, uint16_t units);

/* The last unit that was touched, behind another one: reads that end inside units use it twice, once for their end and once for the
 * next one's beginning. */
static inline bool is_rest(uint16_t touched, uint16_t units)
{
	unsigned u = units, t = touched;

	return !(u & (u - 1)) && t & u >> 1 && !(t & ~(u | (u - 1)));
}

/* Units of a frame are used. A first use says nothing about a second: a scan in small steps must look like one in large
 * ones. So only units that were used before count. True: some had been read ahead. */
static inline bool frame_touch(struct frame *f, uint16_t units, unsigned flags)
{
	uint16_t t = atomic_load_explicit(&f->touched, memory_order_relaxed);
	bool ahead = false;

	if ((t & units) != units) {
		atomic_store_explicit(&f->touched, t | units, memory_order_relaxed);
		ahead = atomic_load_explicit(&f->ahead, memory_order_relaxed) & units;
		if (ahead)
			frame_ahead_used(f, units);
	} else {
		uint8_t n = atomic_load_explicit(&f->freq, memory_order_relaxed);

		if (n < FREQ_MAX && !is_rest(t, units))
			atomic_store_explicit(&f->freq, (uint8_t)(n + 1), memory_order_relaxed);
	}
	if (__builtin_expect(flags & CACHE_META, 0) && atomic_load_explicit(&f->cls, memory_order_relaxed) != CLS_META)
		atomic_store_explicit(&f->cls, CLS_META, memory_order_relaxed);
	if (flags >> 16) {
		uint16_t who = (uint16_t)(flags >> 16), was = atomic_load_explicit(&f->reader, memory_order_relaxed);

		if (was != who && was != WHO_SEVERAL)
			atomic_store_explicit(&f->reader, was ? (uint16_t)WHO_SEVERAL : who, memory_order_relaxed);
	}
	return ahead;
}

/* ---- batch.c ---------------------------------------------------------------------------------------------------- */

#define BATCH_IOS 64
#define BATCH_RUNS 320

/* Runs of units that go to or come from the image together; neighbours on the device share a transfer. */
struct batch {
	struct cache_dev *d;
	unsigned nio, nrun;
	uint64_t end; /* where the last transfer ends */
	struct vhd_io io[BATCH_IOS];
	struct iovec iov[BATCH_RUNS];
	struct batch_run {
		struct frame *f;
		uint16_t units, io;
	} run[BATCH_RUNS];
};

void batch_init(struct batch *b, struct cache_dev *d);
bool batch_has_room(const struct batch *b); /* for any frame */
void batch_add(struct batch *b, struct frame *f, uint16_t units);
/* Transfers, one .io[run.io].result for each; 0 or the first error. The batch keeps its runs until batch_init(). */
int batch_read(struct batch *b);

/* share.c */
void share_attach(struct cache_dev *d);
void share_detach(struct cache_dev *below); /* NULL is accepted */
/* The frame that holds these bytes of @d, pinned, in whichever device it is; NULL: none is in memory, and *in is where it belongs. */
struct frame *share_find(struct cache_dev *d, uint32_t no, struct cache_dev **in);
/* The device of a frame that share_find() found, or that was made where it said. */
struct cache_dev *share_dev_of(struct cache_dev *d, struct frame *f);
/* Has nobody else what is in @in, which is @d or below it? As of now. */
bool share_is_own(struct cache_dev *d, const struct cache_dev *in);

/* overlay.c: does anything stand for a part of the range? */
bool overlay_covers(const struct cache_dev *d, uint64_t off, uint64_t len);
/* What stands for [off, off + len) of the device, over what was read from the image to @to. */
void overlay_apply(const struct cache_dev *d, uint64_t off, uint8_t *to, uint64_t len);
void overlay_free(struct cache_dev *d);
int batch_write(struct batch *b);

/* ---- pin.c ------------------------------------------------------------------------------------------------------ */

/* A piece of what is to be read ahead: at most AHEAD_FRAMES frames of one device in all pieces together. */
struct ahead_piece {
	uint64_t off, len;
	int64_t charged; /* units */
	uint16_t account;
};
#define AHEAD_PIECES 32u
#define AHEAD_FRAMES 264u
/* Reads what is missing of @n pieces, ascending, together, waiting neither for memory nor for what others are reading. */
void pin_ahead(struct cache_dev *d, struct ahead_piece *p, unsigned n);
/* Read @units of one pinned frame, which the caller has claimed. */
int fill_claimed(struct cache_dev *d, struct frame *f, uint16_t units);
/* Wait for memory to come free, holding no pin. -ENOMEM when that takes too long. @since: 0 at first. */
int memory_wait(struct cache *c, uint32_t *since);
void count_lookups(struct cache *c, unsigned hits, unsigned misses, unsigned flags);

/* ---- writeback.c ------------------------------------------------------------------------------------------------ */

int wb_start(struct cache *c);
void wb_stop(struct cache *c);
void wb_kick(struct cache *c, bool urgent);
/* Room for more dirty data? 0, -EAGAIN (CACHE_NOWAIT), or the error of a device that cannot be written. */
int wb_throttle(struct cache_dev *d, unsigned flags);
void frame_set_dirty(struct cache_dev *d, struct frame *f, uint16_t units);
/* Units leave `dirty` without being written. */
void frame_forget_dirty(struct cache_dev *d, struct frame *f, uint16_t units);
/* The dirty list's entry goes over to the frame that replaces @from. */
void frame_move_dirty(struct cache_dev *d, struct frame *from, struct frame *to);

/* ---- prefetch.c ------------------------------------------------------------------------------------------------- */

#define AHEAD_UNITS 0xffffu /* of frame.ahead */

/* Absent units that the caller has claimed are about to be read ahead, for a piece of a request of @d, to which they were charged until
 * now; or that failed. */
void frame_ahead_add(struct frame *f, uint16_t units, struct cache_dev *d, struct ahead_piece *p);
void frame_ahead_failed(struct frame *f, uint16_t units);
/* Units leave memory: what was read ahead of them was never used. */
void frame_ahead_gone(struct frame *f, uint16_t units);

int prefetch_start(struct cache *c);
void prefetch_stop(struct cache *c);
void prefetch_purge(struct cache_dev *d); /* forget its requests, wait for those under way */

#endif

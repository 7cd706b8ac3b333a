/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * frame.c - finding frames, and making room for new ones
 *
 * Eviction is S3-FIFO: new frames enter a small queue; those that were used again by the time they reach its end move to
 * the main queue, the others leave, and are remembered for a while as ghosts: who comes back as a ghost enters the main
 * queue directly. A scan passes through the small queue and leaves the main queue alone.
 */
#include <errno.h>
#include <time.h>

#include "vhd/cache/cache_int.h"

#define WAIT_MS 100
#define WAIT_TRIES 600 /* a minute: the disk hangs, or everything is pinned */

static uint64_t hash(const struct cache_dev *d, uint64_t no)
{
	uint64_t h = (no ^ d->salt) * UINT64_C(0x9e3779b97f4a7c15);

	h ^= h >> 29;
	h *= UINT64_C(0xbf58476d1ce4e5b9);
	return h ^ h >> 32;
}

struct shard *shard_of(const struct cache_dev *d, uint64_t no)
{
	return &d->cache->shard[hash(d, no) % d->cache->nshards];
}

static struct frame **bucket_of(struct shard *s, const struct cache_dev *d, uint64_t no)
{
	return &s->bucket[(hash(d, no) >> 16) & s->bucket_mask];
}

struct frame *frame_find(struct shard *s, const struct cache_dev *d, uint64_t no)
{
	struct frame *f = *bucket_of(s, d, no);

	while (f && (f->no != no || f->dev != d))
		f = f->hash_next;
	return f;
}

/* ---- ghosts ------------------------------------------------------------------------------------------------------------ */

static bool ghost_take(struct shard *s, uint64_t key)
{
	for (uint32_t i = 0; i < GHOSTS; i++)
		if (s->ghost[i] == key) {
			s->ghost[i] = 0;
			return true;
		}
	return false;
}

static void ghost_add(struct shard *s, uint64_t key)
{
	s->ghost[s->ghost_next++ % GHOSTS] = key;
}

/* ---- leaving ------------------------------------------------------------------------------------------------------------ */

static void unhash(struct shard *s, struct frame *f)
{
	struct frame **p = bucket_of(s, f->dev, f->no);

	while (*p != f)
		p = &(*p)->hash_next;
	*p = f->hash_next;
}

void frame_drop(struct cache *c, struct shard *s, struct frame *f)
{
	frame_clear_dirty(c, f, ALL_UNITS);
	unhash(s, f);
	if (f->queue == Q_SMALL)
		s->nsmall--;
	else if (f->queue == Q_MAIN)
		s->nmain--;
	list_del(&f->q);
	f->queue = Q_NONE;
	f->dev = NULL;
	f->valid = 0;
	list_push_front(&s->free, &f->q);
	atomic_fetch_sub_explicit(&c->used_frames, 1, memory_order_relaxed);
}

static bool evictable(const struct frame *f)
{
	return !f->dirty && !f->claimed && !f->writing && atomic_load_explicit(&f->pins, memory_order_acquire) == 0;
}

static void enqueue(struct shard *s, struct frame *f, enum queue q)
{
	f->queue = (uint8_t)q;
	f->hits = 0;
	if (q == Q_SMALL) {
		list_push_back(&s->small, &f->q);
		s->nsmall++;
	} else {
		list_push_back(&s->main, &f->q);
		s->nmain++;
	}
}

static void requeue(struct shard *s, struct frame *f, enum queue q)
{
	if (f->queue == Q_SMALL)
		s->nsmall--;
	else
		s->nmain--;
	list_del(&f->q);
	enqueue(s, f, q);
}

/* One frame less in a queue, or none when everything in it is needed. */
static bool evict_from(struct cache *c, struct shard *s, enum queue q) NO_THREAD_SAFETY
{
	struct list *l = q == Q_SMALL ? &s->small : &s->main;
	uint32_t tries = (q == Q_SMALL ? s->nsmall : s->nmain) * 4;

	while (tries-- && !list_empty(l)) {
		struct frame *f = list_first(l, struct frame, q);

		if (f->hits && q == Q_SMALL) {
			requeue(s, f, Q_MAIN);
		} else if (f->hits) {
			uint8_t left = (uint8_t)(f->hits - 1);

			requeue(s, f, Q_MAIN);
			f->hits = left;
		} else if (!evictable(f)) {
			requeue(s, f, q);
		} else {
			if (q == Q_SMALL)
				ghost_add(s, hash(f->dev, f->no));
			frame_drop(c, s, f);
			s->evictions++;
			return true;
		}
	}
	return false;
}

static bool evict(struct cache *c, struct shard *s)
{
	bool small_first = s->nsmall * 10 >= s->nframes;

	return evict_from(c, s, small_first ? Q_SMALL : Q_MAIN) || evict_from(c, s, small_first ? Q_MAIN : Q_SMALL);
}

/* ---- coming ------------------------------------------------------------------------------------------------------------- */

void shard_wait(struct shard *s)
{
	s->waiters++;
	cond_wait_ms(&s->changed, &s->mu, WAIT_MS);
	s->waiters--;
}

static struct frame *enter(struct shard *s, struct cache_dev *d, uint64_t no)
{
	struct frame *f = list_first(&s->free, struct frame, q);
	struct frame **b = bucket_of(s, d, no);

	list_del(&f->q);
	f->dev = d;
	f->no = no;
	f->valid = f->dirty = f->claimed = f->writing = 0;
	f->hash_next = *b;
	*b = f;
	enqueue(s, f, ghost_take(s, hash(d, no)) ? Q_MAIN : Q_SMALL);
	atomic_fetch_add_explicit(&d->cache->used_frames, 1, memory_order_relaxed);
	return f;
}

int frame_get_locked(struct cache_dev *d, uint64_t no, unsigned flags, struct shard **sp,
		     struct frame **out) NO_THREAD_SAFETY
{
	struct shard *s = shard_of(d, no);
	struct frame *f;

	lock_take(&s->mu);
	for (unsigned tries = 0;; tries++) {
		f = frame_find(s, d, no);
		if (f) {
			s->hits++;
			if (f->hits < 3)
				f->hits++;
			break;
		}
		if (!list_empty(&s->free) || evict(d->cache, s)) {
			s->misses++;
			f = enter(s, d, no);
			break;
		}
		if (flags & CACHE_NOWAIT || tries >= WAIT_TRIES) {
			lock_drop(&s->mu);
			writeback_kick(d->cache);
			return flags & CACHE_NOWAIT ? -EAGAIN : -ENOMEM;
		}
		/* Dirty frames fill this shard: their writeback makes room. */
		lock_drop(&s->mu);
		writeback_kick(d->cache);
		lock_take(&s->mu);
		shard_wait(s);
	}
	atomic_fetch_add_explicit(&f->pins, 1, memory_order_relaxed);
	*sp = s;
	*out = f;
	return 0;
}

/* ---- dirty -------------------------------------------------------------------------------------------------------------- */

uint32_t now_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
	return (uint32_t)t.tv_sec;
}

void frame_set_dirty(struct cache *c, struct shard *s, struct frame *f, uint16_t units)
{
	uint16_t fresh = (uint16_t)(units & ~f->dirty);

	if (!fresh)
		return;
	if (!f->dirty) {
		f->dirty_since = now_seconds();
		list_push_back(&s->dirty, &f->dirty_link);
	}
	f->dirty |= fresh;
	atomic_fetch_add_explicit(&c->dirty_units, (unsigned long)__builtin_popcount(fresh), memory_order_relaxed);
}

void frame_clear_dirty(struct cache *c, struct frame *f, uint16_t units)
{
	uint16_t gone = f->dirty & units;

	if (!gone)
		return;
	f->dirty = (uint16_t)(f->dirty & ~gone);
	if (!f->dirty)
		list_del(&f->dirty_link);
	atomic_fetch_sub_explicit(&c->dirty_units, (unsigned long)__builtin_popcount(gone), memory_order_relaxed);
}

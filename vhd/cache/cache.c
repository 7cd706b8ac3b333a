/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cache.c - caches, their devices, their counters
 */
#include "vhd/cache/cache_int.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "vhd/base/log.h"

#define AGE_MS 5000
#define DIRTY_BG 25u /* per cent of the frames */
#define DIRTY_HARD 60u

static void *map_memory(size_t len, int prot)
{
	void *p = mmap(NULL, len, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* The same, at a multiple of @align. */
static void *map_aligned(size_t len, size_t align, int prot)
{
	uint8_t *p = map_memory(len + align, prot), *at;

	if (!p)
		return NULL;
	at = (uint8_t *)(uintptr_t)round_up_u64((uintptr_t)p, align);
	if (at > p)
		munmap(p, (size_t)(at - p));
	if (at < p + align)
		munmap(at + len, (size_t)(p + align - at));
	return at;
}

/* Everything that is in proportion to the limit. Zero pages until used. */
static int map_tables(struct cache *c)
{
	uint32_t buckets = SHARDS;

	while (buckets < c->nframes)
		buckets <<= 1;
	c->bucket_mask = buckets - 1;
	c->buckets = map_memory(buckets * sizeof *c->buckets, PROT_READ | PROT_WRITE);
	c->frames = map_memory(c->nframes * sizeof *c->frames, PROT_READ | PROT_WRITE);
	c->pool.arena = map_aligned((size_t)c->nframes << FRAME_SHIFT, (size_t)SLAB_FRAMES << FRAME_SHIFT, PROT_NONE);
	return c->buckets && c->frames && c->pool.arena ? 0 : -ENOMEM;
}

static void unmap_tables(struct cache *c)
{
	if (c->buckets)
		munmap(c->buckets, (c->bucket_mask + (size_t)1) * sizeof *c->buckets);
	if (c->frames)
		munmap(c->frames, c->nframes * sizeof *c->frames);
	if (c->pool.arena)
		munmap(c->pool.arena, (size_t)c->nframes << FRAME_SHIFT);
}

/* The cache's threads take no signals: those are for the program's own. */
static int start_threads(struct cache *c)
{
	sigset_t all, old;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = wb_start(c);
	if (!err)
		err = prefetch_start(c);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return err;
}

int cache_new(struct cache **out, size_t limit)
{
	struct cache *c;
	int err;

	if (limit >> FRAME_SHIFT > INT32_MAX)
		return -EINVAL;
	limit = (size_t)max_u64(limit, CACHE_MIN_LIMIT);
	c = aligned_alloc(LINE, round_up_u64(sizeof *c, LINE));
	if (!c)
		return -ENOMEM;
	memset(c, 0, sizeof *c);
	c->limit = limit;
	c->nframes = (uint32_t)(limit >> FRAME_SHIFT);
	c->dirty_bg = (uint32_t)((uint64_t)c->nframes * DIRTY_BG / 100);
	c->dirty_hard = (uint32_t)((uint64_t)c->nframes * DIRTY_HARD / 100);
	atomic_init(&c->age_ms, AGE_MS);
	lock_init(&c->share_mu);
	list_init(&c->shared);
	lock_init(&c->mu);
	cond_init(&c->dev_idle);
	list_init(&c->devs);
	c->next_id = 1;
	lock_init(&c->pool.mu);
	list_init(&c->pool.free);
	for (unsigned i = 0; i < SHARDS; i++) {
		lock_init(&c->shard[i].mu);
		cond_init(&c->shard[i].cond);
	}
	if ((err = map_tables(c)) < 0 || (err = policy_init(&c->policy, c->nframes)) < 0 ||
	    (err = start_threads(c)) < 0) {
		cache_free(c);
		return err;
	}
	*out = c;
	return 0;
}

void cache_free(struct cache *c)
{
	if (!c)
		return;
	prefetch_stop(c);
	wb_stop(c);
	policy_fini(&c->policy);
	unmap_tables(c);
	for (unsigned i = 0; i < SHARDS; i++) {
		cond_fini(&c->shard[i].cond);
		lock_fini(&c->shard[i].mu);
	}
	lock_fini(&c->pool.mu);
	cond_fini(&c->dev_idle);
	lock_fini(&c->share_mu);
	lock_fini(&c->mu);
	free(c);
}

void cache_set_age(struct cache *c, uint32_t age_ms)
{
	atomic_store_explicit(&c->age_ms, age_ms, memory_order_relaxed);
	wb_kick(c, false);
}

/* ---- devices ---------------------------------------------------------------------------------------------------- */

int cache_attach(struct cache *c, struct vhd *v, uint64_t start, uint64_t len, struct cache_dev **out)
{
	struct cache_dev *d;

	len = round_down_u64(len, 512);
	if (!len || start % 512 || !range_ok(start, len, vhd_size(v)) || (len - 1) >> FRAME_SHIFT > UINT32_MAX)
		return -EINVAL;
	d = calloc(1, sizeof *d);
	if (!d)
		return -ENOMEM;
	d->c = c;
	lock_init(&d->gate_mu);
	cond_init(&d->gate);
	d->v = v;
	d->start = start;
	d->len = len;
	d->writable = vhd_writable(v);
	d->rotational = vhd_is_rotational(v);
	list_init(&d->share_link);
	lock_init(&d->dirty_mu);
	list_init(&d->dirty);
	lock_take(&c->mu);
	d->id = c->next_id;
	if (d->id) { /* an id is never used again: old frames carry it */
		c->next_id++;
		list_push_back(&c->devs, &d->link);
	}
	lock_drop(&c->mu);
	if (!d->id) {
		lock_fini(&d->dirty_mu);
		free(d);
		return -ENOSPC;
	}
	share_attach(d);
	*out = d;
	return 0;
}

int cache_detach(struct cache_dev *d)
{
	struct cache *c = d->c;
	uint64_t lost;
	int err;

	prefetch_purge(d);
	lock_take(&c->mu);
	list_del(&d->link);
	while (d->users)
		cond_wait(&c->dev_idle, &c->mu);
	lock_drop(&c->mu);
	err = cache_flush(d);
	if (err) /* once more: the host may have had a bad moment */
		err = cache_flush(d);
	lost = frame_drop_all(d);
	if (lost)
		log_error("%s: %llu KiB could not be written back and are lost: %s", vhd_path(d->v),
			  (unsigned long long)lost * (CACHE_UNIT / 1024),
			  err ? strerror(-err) : "the file system could not commit them");
	/* What failed earlier and was never asked for, but went well in the end, is no error any more. */
	share_detach(atomic_load(&d->below));
	share_detach(atomic_load(&d->was_below));
	overlay_free(d);
	lock_fini(&d->gate_mu);
	cond_fini(&d->gate);
	lock_fini(&d->dirty_mu);
	free(d);
	return err;
}

uint64_t cache_dev_size(const struct cache_dev *d)
{
	return d->len;
}

bool cache_dev_writable(const struct cache_dev *d)
{
	return d->writable;
}

uint64_t cache_resident(struct cache_dev *d, uint64_t off, uint64_t len)
{
	uint64_t n = 0, end;

	if (!add_ok(off, len, &end))
		return 0;
	end = min_u64(end, d->len);
	for (uint64_t at = off; at < end;) {
		uint64_t base = at & ~(uint64_t)(CACHE_FRAME - 1), to = min_u64(end, base + CACHE_FRAME);
		uint16_t want = units_touched((uint32_t)(at - base), (uint32_t)(to - at)), have = 0;
		struct cache_dev *in;
		struct frame *f = share_find(d, (uint32_t)(at >> FRAME_SHIFT), &in);

		if (f) {
			have = want & atomic_load_explicit(&f->valid, memory_order_acquire);
			frame_unpin(f);
		}
		n += have == want ? to - at : (uint64_t)__builtin_popcount(have) << UNIT_SHIFT;
		at = to;
	}
	return n;
}

void cache_trace(struct cache *c, FILE *to)
{
	c->trace = to;
}

/* ---- counters --------------------------------------------------------------------------------------------------- */

static uint64_t ahead_waiting(struct cache *c)
{
	int64_t units = 0;

	for (unsigned i = 0; i < CACHE_ACCOUNTS; i++)
		units += atomic_load_explicit(&c->on_device[i], memory_order_relaxed);
	return units > 0 ? (uint64_t)units << UNIT_SHIFT : 0;
}

void cache_stats(struct cache *c, struct cache_stats *st)
{
	*st = (struct cache_stats){
		.limit = c->limit,
		.dirty = atomic_load_explicit(&c->dirty_units, memory_order_relaxed) << UNIT_SHIFT,
		.ahead = atomic_load_explicit(&c->ahead_units, memory_order_relaxed) << UNIT_SHIFT,
		.ahead_used = atomic_load_explicit(&c->ahead_used, memory_order_relaxed) << UNIT_SHIFT,
		.ahead_wasted = atomic_load_explicit(&c->ahead_wasted, memory_order_relaxed) << UNIT_SHIFT,
		.ahead_dropped = atomic_load_explicit(&c->ahead_dropped, memory_order_relaxed),
		.evictions = atomic_load_explicit(&c->evictions, memory_order_relaxed),
		.writebacks = atomic_load_explicit(&c->writebacks, memory_order_relaxed),
		.throttled = atomic_load_explicit(&c->throttled, memory_order_relaxed),
		.bytes_read = atomic_load_explicit(&c->bytes_read, memory_order_relaxed),
		.bytes_written = atomic_load_explicit(&c->bytes_written, memory_order_relaxed),
	};
	st->ahead_late = atomic_load_explicit(&c->ahead_late, memory_order_relaxed) << UNIT_SHIFT;
	st->ahead_canceled = atomic_load_explicit(&c->ahead_canceled, memory_order_relaxed);
	st->reads_saved = atomic_load_explicit(&c->reads_saved, memory_order_relaxed);
	st->ahead_waiting = ahead_waiting(c);
	st->evicted_meta = atomic_load_explicit(&c->evicted_meta, memory_order_relaxed);
	st->evicted_given_up = atomic_load_explicit(&c->evicted_given_up, memory_order_relaxed);
	lock_take(&c->policy.mu);
	st->young = (uint64_t)c->policy.n[Q_SMALL] << FRAME_SHIFT;
	st->old = (uint64_t)c->policy.n[Q_MAIN] << FRAME_SHIFT;
	st->given_up = (uint64_t)c->policy.n[Q_ONCE] << FRAME_SHIFT;
	lock_drop(&c->policy.mu);
	lock_take(&c->pool.mu);
	st->used = (uint64_t)(c->pool.made - c->pool.nfree) << FRAME_SHIFT;
	lock_drop(&c->pool.mu);
	for (unsigned i = 0; i < STRIPES; i++) {
		st->hits += atomic_load_explicit(&c->stripe[i].hits, memory_order_relaxed);
		st->hits_meta += atomic_load_explicit(&c->stripe[i].hits_meta, memory_order_relaxed);
		st->misses += atomic_load_explicit(&c->stripe[i].misses, memory_order_relaxed);
	}
}

void cache_dev_stats(struct cache_dev *d, struct cache_dev_stats *st)
{
	int64_t waiting = atomic_load_explicit(&d->c->on_device[d->id % CACHE_ACCOUNTS], memory_order_relaxed);

	*st = (struct cache_dev_stats){
		.bytes_read = atomic_load_explicit(&d->bytes_read, memory_order_relaxed),
		.bytes_written = atomic_load_explicit(&d->bytes_written, memory_order_relaxed),
		.ahead_waiting = waiting > 0 ? (uint64_t)waiting << UNIT_SHIFT : 0,
	};
}

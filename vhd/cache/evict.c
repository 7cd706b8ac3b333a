/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * evict.c - which frame goes when memory is needed: S3-FIFO
 *
 *     new ------------> SMALL (10 %) --used again--> MAIN --used again: once more round--> MAIN
 *                         | not used again            | not used
 *     new, in ghost       v                           v
 *       \                ghost (keys only)           out
 *        \---------------------------> MAIN
 *
 * SMALL lets a frame show whether it is wanted again; one-time scans pass through it and disturb MAIN not at all. The
 * ghost queue remembers which frames left SMALL lately, one for each frame of the cache: 32-bit fingerprints in sets of
 * four, stamped with the number of the insertion, so that nothing has to be unlinked.
 *
 * Only what is clean and unpinned goes. A candidate is taken off its queue and pinned under policy.mu, then, under its
 * shard's lock, made dead if our pin is the only one; else it goes back. So it is on a queue, or in one evictor's hands,
 * or gone: frame_drop() and frame_replace() mark frames gone under the shard lock, and those are not put back.
 */
#include "vhd/cache/cache_int.h"

#include <errno.h>
#include <stdlib.h>

#define GHOST_WAYS 4u
#define SMALL_SHARE 10u /* per cent */
#define PROMOTE_DATA 2  /* repeated uses that bring a frame from SMALL to MAIN */
#define PROMOTE_META 1

int policy_init(struct policy *p, uint32_t nframes)
{
	uint64_t sets = 1;

	while (sets * GHOST_WAYS < (uint64_t)nframes * 3 / 2)
		sets <<= 1;
	p->ghost = calloc(sets * GHOST_WAYS, sizeof *p->ghost);
	if (!p->ghost)
		return -ENOMEM;
	p->ghost_mask = (uint32_t)(sets - 1);
	lock_init(&p->mu);
	list_init(&p->small);
	list_init(&p->main);
	return 0;
}

void policy_fini(struct policy *p)
{
	if (!p->ghost)
		return;
	free(p->ghost);
	p->ghost = NULL;
	lock_fini(&p->mu);
}

/* ---- ghost ------------------------------------------------------------------------------------------------------ */

static uint64_t *ghost_set(struct policy *p, uint64_t hash)
{
	return &p->ghost[(hash & p->ghost_mask) * GHOST_WAYS];
}

static void ghost_add(struct policy *p, uint64_t key) REQUIRES(p->mu)
{
	uint64_t hash = key_hash(key);
	uint64_t *set = ghost_set(p, hash);
	unsigned oldest = 0;

	p->clock++;
	for (unsigned i = 1; i < GHOST_WAYS; i++)
		if (p->clock - (uint32_t)set[i] > p->clock - (uint32_t)set[oldest])
			oldest = i;
	set[oldest] = hash >> 32 << 32 | p->clock;
}

static bool ghost_take(struct policy *p, uint64_t key, uint32_t age_max) REQUIRES(p->mu)
{
	uint64_t hash = key_hash(key);
	uint64_t *set = ghost_set(p, hash);

	for (unsigned i = 0; i < GHOST_WAYS; i++) {
		if (!set[i] || set[i] >> 32 != hash >> 32)
			continue;
		bool live = p->clock - (uint32_t)set[i] < age_max;

		set[i] = 0;
		return live;
	}
	return false;
}

/* ---- queues ----------------------------------------------------------------------------------------------------- */

static void queue_push(struct policy *p, struct frame *f, uint8_t queue) REQUIRES(p->mu)
{
	f->queue = queue;
	if (queue == Q_MAIN) {
		list_push_front(&p->main, &f->q);
		p->nmain++;
	} else {
		list_push_front(&p->small, &f->q);
		p->nsmall++;
	}
}

static void queue_pull(struct policy *p, struct frame *f) REQUIRES(p->mu)
{
	if (list_empty(&f->q))
		return; /* in an evictor's hands */
	list_del(&f->q);
	if (f->queue == Q_MAIN)
		p->nmain--;
	else
		p->nsmall--;
}

void policy_insert(struct cache *c, struct frame *f)
{
	struct policy *p = &c->policy;
	uint64_t key = atomic_load_explicit(&f->key, memory_order_relaxed);

	lock_take(&p->mu);
	list_init(&f->q);
	queue_push(p, f, ghost_take(p, key, c->nframes) ? Q_MAIN : Q_SMALL);
	lock_drop(&p->mu);
}

void policy_move(struct cache *c, struct frame *from, struct frame *to)
{
	struct policy *p = &c->policy;

	lock_take(&p->mu);
	list_init(&to->q);
	queue_push(p, to, from->queue);
	queue_pull(p, from);
	lock_drop(&p->mu);
}

void policy_remove(struct cache *c, struct frame *f)
{
	lock_take(&c->policy.mu);
	queue_pull(&c->policy, f);
	lock_drop(&c->policy.mu);
}

void policy_demote(struct cache *c, struct frame *f)
{
	struct policy *p = &c->policy;

	lock_take(&p->mu);
	if (!list_empty(&f->q)) { /* else it is in an evictor's hands */
		queue_pull(p, f);
		atomic_store_explicit(&f->freq, 0, memory_order_relaxed);
		f->queue = Q_SMALL;
		list_push_back(&p->small, &f->q);
		p->nsmall++;
	}
	lock_drop(&p->mu);
}

void cache_demote(struct cache_dev *d, uint64_t off, uint64_t len)
{
	uint64_t end;

	if (!add_ok(off, len, &end))
		return;
	end = min_u64(end, d->len);
	for (uint64_t no = (off + CACHE_FRAME - 1) >> FRAME_SHIFT; (no + 1) << FRAME_SHIFT <= end; no++) {
		struct frame *f = frame_lookup(d->c, frame_key(d, (uint32_t)no));

		if (f) {
			policy_demote(d->c, f);
			frame_unpin(f);
		}
	}
}

/* ---- eviction --------------------------------------------------------------------------------------------------- */

static bool frame_in_use(struct frame *f)
{
	return atomic_load_explicit(&f->pins, memory_order_relaxed) ||
	       atomic_load_explicit(&f->dirty, memory_order_relaxed);
}

/* One look at the old end of a queue: a candidate, off its queue and pinned, or NULL when the frame found there was moved
 * instead. */
static struct frame *policy_look(struct cache *c, struct policy *p) REQUIRES(p->mu)
{
	bool small = p->nsmall && (!p->nmain || p->nsmall >= max_u64(1, c->nframes * SMALL_SHARE / 100));
	struct frame *f;
	uint8_t freq;

	/* A frame in use was met in the queue whose turn it is: a look at the other one, and so in turns. */
	bool other = p->try_other && p->nmain && p->nsmall;

	if (other)
		small = !small;
	p->try_other = false;
	f = list_last(small ? &p->small : &p->main, struct frame, q);
	freq = atomic_load_explicit(&f->freq, memory_order_relaxed);
	queue_pull(p, f);
	if (small) {
		bool meta = atomic_load_explicit(&f->cls, memory_order_relaxed) == CLS_META;

		if (freq >= (meta ? PROMOTE_META : PROMOTE_DATA)) {
			atomic_store_explicit(&f->freq, 0, memory_order_relaxed);
			queue_push(p, f, Q_MAIN);
			return NULL;
		}
	} else if (freq) {
		atomic_store_explicit(&f->freq, (uint8_t)(freq - 1), memory_order_relaxed);
		queue_push(p, f, Q_MAIN);
		return NULL;
	}
	if (frame_in_use(f)) {
		queue_push(p, f, f->queue);
		p->try_other = !other;
		return NULL;
	}
	frame_pin(f);
	return f;
}

/* It leaves memory: was it worth reading ahead? Under the shard lock. */
static void frame_ahead_done(struct cache *c, struct frame *f)
{
	uint16_t touched = atomic_load_explicit(&f->touched, memory_order_relaxed);

	if (!f->ahead)
		return;
	atomic_fetch_add_explicit(&c->ahead_used, (unsigned)__builtin_popcount(f->ahead & touched),
				  memory_order_relaxed);
	atomic_fetch_add_explicit(&c->ahead_wasted, (unsigned)__builtin_popcount(f->ahead & ~touched),
				  memory_order_relaxed);
}

/* Our pin the only one, and nothing to be lost? Then the frame is dead and ours. */
static bool frame_kill(struct cache *c, struct frame *f)
{
	struct policy *p = &c->policy;
	struct shard *s = frame_shard(f);
	unsigned ours = 1;
	bool dead;

	lock_take(&s->mu);
	dead = !atomic_load_explicit(&f->dirty, memory_order_relaxed) &&
	       atomic_compare_exchange_strong_explicit(&f->pins, &ours, PIN_DEAD, memory_order_seq_cst,
						       memory_order_relaxed);
	if (dead) {
		frame_ahead_done(c, f);
		hash_del(c, f);
	} else if (!frame_is_gone(f)) {
		lock_take(&p->mu);
		queue_push(p, f, f->queue);
		lock_drop(&p->mu);
	}
	lock_drop(&s->mu);
	if (!dead)
		frame_unpin(f);
	return dead;
}

struct frame *policy_evict(struct cache *c, unsigned steps)
{
	struct policy *p = &c->policy;

	while (steps) {
		struct frame *f = NULL;

		lock_take(&p->mu);
		while (!f && steps && (p->nsmall || p->nmain)) {
			steps--;
			f = policy_look(c, p);
		}
		lock_drop(&p->mu);
		if (!f)
			return NULL;
		if (!frame_kill(c, f))
			continue;
		if (f->queue == Q_SMALL) {
			lock_take(&p->mu);
			ghost_add(p, atomic_load_explicit(&f->key, memory_order_relaxed));
			lock_drop(&p->mu);
		}
		atomic_fetch_add_explicit(&c->evictions, 1, memory_order_relaxed);
		return f;
	}
	return NULL;
}

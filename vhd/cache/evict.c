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
 *     given up (cache_demote()) ----> ONCE --used again--> SMALL
 *                                       | not used: before all others
 *                                       v
 *                                      out
 *
 * What was read ahead and waits for its reader goes from SMALL to MAIN instead of out. How much that can be is limited (prefetch.c).
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
#define PROMOTE 1       /* repeated uses that bring a frame from SMALL to MAIN */

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
	for (unsigned i = 0; i < QUEUES; i++)
		list_init(&p->q[i]);
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

static uint8_t queue_of(struct frame *f)
{
	return atomic_load_explicit(&f->queue, memory_order_relaxed);
}

static void queue_push(struct policy *p, struct frame *f, uint8_t queue) REQUIRES(p->mu)
{
	atomic_store_explicit(&f->queue, queue, memory_order_relaxed);
	list_push_front(&p->q[queue], &f->q);
	p->n[queue]++;
}

static void queue_pull(struct policy *p, struct frame *f) REQUIRES(p->mu)
{
	if (list_empty(&f->q))
		return; /* in an evictor's hands */
	list_del(&f->q);
	p->n[queue_of(f)]--;
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
	queue_push(p, to, queue_of(from));
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
		queue_push(p, f, Q_ONCE);
	}
	lock_drop(&p->mu);
}

/* Is it theirs? @alone: whoever has read it. */
static bool may_give_up(struct frame *f, const struct cache_giver *g, bool alone)
{
	uint16_t reader = atomic_load_explicit(&f->reader, memory_order_relaxed);
	uint32_t ahead = atomic_load_explicit(&f->ahead, memory_order_relaxed);

	if (queue_of(f) == Q_ONCE && !atomic_load_explicit(&f->freq, memory_order_relaxed))
		return false; /* done */
	if (g->gently && queue_of(f) == Q_MAIN && atomic_load_explicit(&f->cls, memory_order_relaxed) != CLS_AHEAD)
		return false;
	if (alone)
		return true;
	return (!reader || reader == g->who) &&
	       (!(ahead & AHEAD_UNITS) || !(ahead >> 16) || ahead >> 16 == g->account) &&
	       atomic_load_explicit(&f->cls, memory_order_relaxed) != CLS_META;
}

void cache_demote(struct cache_dev *d, uint64_t off, uint64_t len, const struct cache_giver *g)
{
	uint64_t end, no;

	if (!add_ok(off, len, &end))
		return;
	end = min_u64(end, d->len);
	if (off >= end)
		return;
	no = g->alone ? (off + CACHE_FRAME - 1) >> FRAME_SHIFT : off >> FRAME_SHIFT;
	for (; g->alone ? (no + 1) << FRAME_SHIFT <= end : no << FRAME_SHIFT < end; no++) {
		struct cache_dev *in;
		struct frame *f = share_find(d, (uint32_t)no, &in);

		if (!f)
			continue;
		if (may_give_up(f, g, g->alone && share_is_own(d, in)))
			policy_demote(d->c, f);
		frame_unpin(f);
	}
}

/* ---- eviction --------------------------------------------------------------------------------------------------- */

static bool frame_in_use(struct frame *f)
{
	return atomic_load_explicit(&f->pins, memory_order_relaxed) ||
	       atomic_load_explicit(&f->dirty, memory_order_relaxed);
}

/* From which queue a frame should leave: of those that did not just show one in use. Q_NONE: there are no frames. */
static enum frame_queue queue_turn(const struct cache *c, struct policy *p) REQUIRES(p->mu)
{
	bool small = p->n[Q_SMALL] >= max_u64(1, c->nframes * SMALL_SHARE / 100);
	enum frame_queue order[] = {Q_ONCE, small ? Q_SMALL : Q_MAIN, small ? Q_MAIN : Q_SMALL};

	for (int round = 0; round < 2; round++) {
		for (size_t i = 0; i < 3; i++)
			if (p->n[order[i]] && !(p->met >> order[i] & 1))
				return order[i];
		p->met = 0;
	}
	return Q_NONE;
}

/* It stays, somewhere else: where? Q_NONE: it has to go. */
static enum frame_queue queue_next(struct frame *f, enum frame_queue q, uint8_t freq)
{
	bool wanted = atomic_load_explicit(&f->ahead, memory_order_relaxed) & AHEAD_UNITS;

	if (q == Q_ONCE)
		return freq ? Q_SMALL : Q_NONE;
	if (q == Q_SMALL)
		return wanted || freq >= PROMOTE ? Q_MAIN : Q_NONE;
	return freq ? Q_MAIN : Q_NONE;
}

/* One look at the old end of a queue: a candidate, off its queue and pinned, or NULL when the frame found there was moved
 * instead. */
static struct frame *policy_look(struct cache *c, struct policy *p) REQUIRES(p->mu)
{
	enum frame_queue q = queue_turn(c, p), next;
	struct frame *f = list_last(&p->q[q], struct frame, q);
	uint8_t freq = atomic_load_explicit(&f->freq, memory_order_relaxed);

	queue_pull(p, f);
	next = queue_next(f, q, freq);
	if (next != Q_NONE) {
		bool meta = atomic_load_explicit(&f->cls, memory_order_relaxed) == CLS_META;

		if (!meta)
			atomic_store_explicit(&f->cls, q == Q_SMALL && !freq ? CLS_AHEAD : CLS_DATA,
					      memory_order_relaxed);
		/* One round less; metadata that comes to MAIN stays one more. */
		freq = q == Q_MAIN ? (uint8_t)(freq - 1) : next == Q_MAIN && meta;
		atomic_store_explicit(&f->freq, freq, memory_order_relaxed);
		queue_push(p, f, (uint8_t)next);
		p->met = 0;
		return NULL;
	}
	if (frame_in_use(f)) {
		queue_push(p, f, (uint8_t)q);
		p->met |= 1u << q;
		return NULL;
	}
	frame_pin(f);
	return f;
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
		frame_ahead_gone(f, ALL_UNITS);
		hash_del(c, f);
	} else if (!frame_is_gone(f)) {
		lock_take(&p->mu);
		queue_push(p, f, queue_of(f));
		lock_drop(&p->mu);
	}
	lock_drop(&s->mu);
	if (!dead)
		frame_unpin(f);
	return dead;
}

static void count_eviction(struct cache *c, struct frame *f)
{
	atomic_fetch_add_explicit(&c->evictions, 1, memory_order_relaxed);
	if (atomic_load_explicit(&f->cls, memory_order_relaxed) == CLS_META)
		atomic_fetch_add_explicit(&c->evicted_meta, 1, memory_order_relaxed);
	else if (queue_of(f) == Q_ONCE)
		atomic_fetch_add_explicit(&c->evicted_given_up, 1, memory_order_relaxed);
}

struct frame *policy_evict(struct cache *c, unsigned steps)
{
	struct policy *p = &c->policy;

	while (steps) {
		struct frame *f = NULL;

		lock_take(&p->mu);
		while (!f && steps && (p->n[Q_ONCE] || p->n[Q_SMALL] || p->n[Q_MAIN])) {
			steps--;
			f = policy_look(c, p);
		}
		lock_drop(&p->mu);
		if (!f)
			return NULL;
		if (!frame_kill(c, f))
			continue;
		if (queue_of(f) == Q_SMALL) {
			lock_take(&p->mu);
			ghost_add(p, atomic_load_explicit(&f->key, memory_order_relaxed));
			lock_drop(&p->mu);
		}
		count_eviction(c, f);
		return f;
	}
	return NULL;
}

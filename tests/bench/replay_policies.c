/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * replay_policies.c - LRU, CLOCK, S3-FIFO, ARC and Belady's optimum
 *
 * Every frame of a trace has an entry, which is on one queue or on none. Queues have their young ends in front. The queues of what
 * a policy only remembers, but has not in memory, are queues like the others.
 */
#include "tests/bench/replay_policies.h"

#include <errno.h>
#include <stdlib.h>

#include "vhd/base/checked.h"
#include "vhd/base/list.h"

#define QUEUES 4
#define SMALL_SHARE 10u /* per cent */
#define FREQ_MAX 3

struct entry {
	struct list l;
	struct queue *on; /* NULL: none */
	uint8_t freq;
};

struct queue {
	struct list l;
	uint32_t n;
};

struct sim {
	struct entry *entries;
	struct queue q[QUEUES];
	uint32_t frames;
	double p; /* ARC: how many of the frames are to be T1's */
};

static int sim_init(struct sim *s, const struct replay *r, uint32_t frames)
{
	*s = (struct sim){.frames = frames, .entries = calloc(r->nkeys, sizeof *s->entries)};
	for (unsigned i = 0; i < QUEUES; i++)
		list_init(&s->q[i].l);
	return s->entries || !r->nkeys ? 0 : -ENOMEM;
}

static void sim_fini(struct sim *s)
{
	free(s->entries);
}

static void pull(struct entry *e)
{
	list_del(&e->l);
	e->on->n--;
	e->on = NULL;
}

/* To the young end of a queue, from wherever it is. */
static void push(struct queue *q, struct entry *e)
{
	if (e->on)
		pull(e);
	list_push_front(&q->l, &e->l);
	e->on = q;
	q->n++;
}

static struct entry *oldest(struct queue *q)
{
	return list_last(&q->l, struct entry, l);
}

/* One access; was it a hit? */
typedef bool access_fn(struct sim *s, struct entry *e);

static int simulate(const struct replay *r, uint32_t frames, access_fn *fn, uint64_t *hits)
{
	struct sim s;
	int err = sim_init(&s, r, frames);

	*hits = 0;
	for (size_t i = 0; i < r->n && !err; i++)
		*hits += fn(&s, &s.entries[r->at[i]]);
	sim_fini(&s);
	return err;
}

/* ---- LRU -------------------------------------------------------------------------------------------------------- */

static bool lru_access(struct sim *s, struct entry *e)
{
	struct queue *q = &s->q[0];
	bool hit = e->on;

	if (!hit && q->n == s->frames)
		pull(oldest(q));
	push(q, e);
	return hit;
}

int replay_lru(const struct replay *r, uint32_t frames, uint64_t *hits)
{
	return simulate(r, frames, lru_access, hits);
}

/* ---- CLOCK: the hand is at the old end --------------------------------------------------------------------------- */

static bool clock_access(struct sim *s, struct entry *e)
{
	struct queue *q = &s->q[0];

	if (e->on) {
		e->freq = 1;
		return true;
	}
	if (q->n == s->frames) {
		struct entry *victim;

		while ((victim = oldest(q))->freq) {
			victim->freq = 0;
			push(q, victim);
		}
		pull(victim);
	}
	push(q, e);
	return false;
}

int replay_clock(const struct replay *r, uint32_t frames, uint64_t *hits)
{
	return simulate(r, frames, clock_access, hits);
}

/* ---- S3-FIFO ---------------------------------------------------------------------------------------------------- */

enum { SMALL, MAIN, GHOST };

static uint32_t s3_small_max(const struct sim *s)
{
	return (uint32_t)max_u64(1, (uint64_t)s->frames * SMALL_SHARE / 100);
}

/* A place for one frame. */
static void s3_evict(struct sim *s)
{
	struct queue *small = &s->q[SMALL], *main = &s->q[MAIN], *ghost = &s->q[GHOST];

	while (small->n + main->n == s->frames) {
		bool from_small = !main->n || small->n >= s3_small_max(s);
		struct entry *e = oldest(from_small ? small : main);

		if (from_small && e->freq > 1) {
			e->freq = 0;
			push(main, e);
		} else if (from_small) {
			push(ghost, e);
		} else if (e->freq) {
			e->freq--;
			push(main, e);
		} else {
			pull(e);
		}
	}
	/* It remembers as many as MAIN may have. */
	while (ghost->n > s->frames - s3_small_max(s))
		pull(oldest(ghost));
}

static bool s3_access(struct sim *s, struct entry *e)
{
	bool was_ghost = e->on == &s->q[GHOST];

	if (e->on && !was_ghost) {
		e->freq = (uint8_t)min_u64(e->freq + 1u, FREQ_MAX);
		return true;
	}
	s3_evict(s);
	e->freq = 0;
	push(&s->q[was_ghost ? MAIN : SMALL], e);
	return false;
}

int replay_s3fifo(const struct replay *r, uint32_t frames, uint64_t *hits)
{
	return simulate(r, frames, s3_access, hits);
}

/* ---- ARC: T in memory, B remembered; 1 used once lately, 2 more than once --------------------------------------------- */

enum { T1, T2, B1, B2 };

static void arc_replace(struct sim *s, bool in_b2)
{
	struct queue *t1 = &s->q[T1], *t2 = &s->q[T2];

	if (!t2->n || (t1->n && (t1->n > s->p || (in_b2 && t1->n == s->p))))
		push(&s->q[B1], oldest(t1));
	else
		push(&s->q[B2], oldest(t2));
}

/* Neither in memory nor remembered. */
static void arc_make_room(struct sim *s)
{
	struct queue *q = s->q;
	uint32_t all = q[T1].n + q[T2].n + q[B1].n + q[B2].n;

	if (q[T1].n == s->frames) {
		pull(oldest(&q[T1]));
	} else if (q[T1].n + q[B1].n == s->frames) {
		pull(oldest(&q[B1]));
		arc_replace(s, false);
	} else if (all >= s->frames) {
		if (all == 2 * s->frames)
			pull(oldest(&q[B2]));
		arc_replace(s, false);
	}
}

static double at_least_1(double x)
{
	return x > 1 ? x : 1;
}

static bool arc_access(struct sim *s, struct entry *e)
{
	struct queue *q = s->q, *was = e->on;
	double b1 = q[B1].n, b2 = q[B2].n;

	if (!was) {
		arc_make_room(s);
		push(&q[T1], e);
		return false;
	}
	if (was == &q[B1]) {
		s->p += at_least_1(b2 / b1);
		s->p = s->p < s->frames ? s->p : s->frames;
		arc_replace(s, false);
	} else if (was == &q[B2]) {
		s->p -= at_least_1(b1 / b2);
		s->p = s->p > 0 ? s->p : 0;
		arc_replace(s, true);
	}
	push(&q[T2], e);
	return was == &q[T1] || was == &q[T2];
}

int replay_arc(const struct replay *r, uint32_t frames, uint64_t *hits)
{
	return simulate(r, frames, arc_access, hits);
}

/* ---- Belady: out goes what is used again last -------------------------------------------------------------------- */

struct use {
	size_t when; /* the next access; the trace's length: never */
	uint32_t key;
};

struct heap {
	struct use *use; /* the last on top */
	size_t n;
};

static void heap_swap(struct heap *h, size_t a, size_t b)
{
	struct use u = h->use[a];

	h->use[a] = h->use[b];
	h->use[b] = u;
}

static void heap_push(struct heap *h, struct use u)
{
	size_t i = h->n++;

	h->use[i] = u;
	while (i && h->use[(i - 1) / 2].when < h->use[i].when) {
		heap_swap(h, i, (i - 1) / 2);
		i = (i - 1) / 2;
	}
}

static struct use heap_pop(struct heap *h)
{
	struct use top = h->use[0];
	size_t i = 0;

	h->use[0] = h->use[--h->n];
	for (;;) {
		size_t child = 2 * i + 1;

		if (child + 1 < h->n && h->use[child + 1].when > h->use[child].when)
			child++;
		if (child >= h->n || h->use[child].when <= h->use[i].when)
			return top;
		heap_swap(h, i, child);
		i = child;
	}
}

/* next[i]: when the frame of access i is used again. @last: one for each frame, all of them r->n. */
static void find_next_uses(const struct replay *r, size_t *next, size_t *last)
{
	for (size_t i = r->n; i-- > 0;) {
		next[i] = last[r->at[i]];
		last[r->at[i]] = i;
	}
}

/* What is in the heap and lies in the past belongs to frames that were hit, and are in it once more. It never comes to the top while
 * the cache is full: every frame in the cache has its next use in the heap, and that lies in the future. */
static uint64_t belady(const struct replay *r, uint32_t frames, const size_t *next, struct heap *h, bool *cached)
{
	uint64_t hits = 0;
	uint32_t n = 0;

	for (size_t i = 0; i < r->n; i++) {
		uint32_t key = r->at[i];

		if (cached[key])
			hits++;
		else if (n == frames)
			cached[heap_pop(h).key] = false;
		else
			n++;
		cached[key] = true;
		heap_push(h, (struct use){next[i], key});
	}
	return hits;
}

int replay_belady(const struct replay *r, uint32_t frames, uint64_t *hits)
{
	struct heap h = {.use = calloc(r->n + 1, sizeof *h.use)};
	size_t *next = calloc(r->n + 1, sizeof *next), *last = calloc(r->nkeys + 1u, sizeof *last);
	bool *cached = calloc(r->nkeys + 1u, sizeof *cached);
	int err = h.use && next && last && cached ? 0 : -ENOMEM;

	*hits = 0;
	if (!err) {
		for (uint32_t k = 0; k < r->nkeys; k++)
			last[k] = r->n;
		find_next_uses(r, next, last);
		*hits = belady(r, frames, next, &h, cached);
	}
	free(cached);
	free(last);
	free(next);
	free(h.use);
	return err;
}

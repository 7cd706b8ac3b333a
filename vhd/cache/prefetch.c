/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * prefetch.c - reading ahead in the background
 *
 * Two rings of requests: what should be read now, and what may be read when nothing else is to be done. A few threads take from the
 * first, the oldest request first, 4 MiB at most before the next one's turn: so nobody is held up for long. What has one tag is
 * read by one thread at a time, in order; so is all that is read from a disk with a head, which has a long way back to what another
 * thread was about to ask for. What is taken at once is read together: a piece of a long request, or up to 32 short ones, which a disk
 * that works on many at a time then has at the same time, and one with a head in the order of their places.
 *
 * What may wait is asked for twice: its maps (vhd_load_maps()) now, as a request of its own, the bytes later.
 *
 * Accounts: units that are asked for are charged until they are read, and then as long as they are in memory and unused. A full
 * ring or account drops the request, a lack of memory the rest of it: nobody waits for either, the reader just comes later.
 */
#include "vhd/cache/cache_int.h"

#include <errno.h>
#include <stdlib.h>

#define PIECE_FRAMES 32u /* at most */
#define DOWN_FRAMES 260u /* the same downwards, where each piece costs a disk with a head the way back over two */
#define TURN_BYTES (4u << 20)
#define QUIET_MS 20u                   /* nobody waited for the image that long: it has nothing else to do */
#define LOOK_MS 5u                     /* how often to look whether that is so */
#define IDLE_FREE 8u                   /* and one frame in so many is free */
#define LATER_MS 2000u                 /* what could wait that long is of no use any more */
#define MAPS_BYTES (UINT64_C(1) << 30) /* whose maps are loaded at most, for one request: 512 blocks as a rule, … */
#define MAPS_BYTES_HEAD (8u << 20)     /* … and from a disk with a head, which goes to each of them */
#define MAPS_PIECE (64u << 20)

/* ---- accounts ------------------------------------------------------------------------------------------------------------- */

static void charge(struct cache *c, uint16_t account, uint32_t dev, int64_t units)
{
	atomic_fetch_add_explicit(&c->on_device[dev % CACHE_ACCOUNTS], units, memory_order_relaxed);
	if (account)
		atomic_fetch_add_explicit(&c->on_account[account % CACHE_ACCOUNTS], units, memory_order_relaxed);
}

static int64_t units_of(uint64_t off, uint64_t len)
{
	return len ? (int64_t)(((off + len - 1) >> UNIT_SHIFT) - (off >> UNIT_SHIFT) + 1) : 0;
}

/* Bytes that may be asked for. */
static uint64_t allowance(struct cache_dev *d, uint16_t account)
{
	struct cache *c = d->c;
	int64_t all = (int64_t)(c->limit >> UNIT_SHIFT);
	int64_t left = all / 2 - atomic_load_explicit(&c->on_device[d->id % CACHE_ACCOUNTS], memory_order_relaxed);
	const struct cache_dev *below = atomic_load(&d->below);
	int64_t mine = all / 4;

	/* What is in frames of parents counts there (share.c). */
	for (unsigned i = 0; below && i < below->layers; i++)
		left -= atomic_load_explicit(&c->on_device[below->layer[i]->id % CACHE_ACCOUNTS], memory_order_relaxed);
	if (account)
		mine -= atomic_load_explicit(&c->on_account[account % CACHE_ACCOUNTS], memory_order_relaxed);
	left = left < mine ? left : mine;
	return left > 0 ? (uint64_t)left << UNIT_SHIFT : 0;
}

static uint32_t frame_dev(struct frame *f)
{
	return (uint32_t)(atomic_load_explicit(&f->key, memory_order_relaxed) >> 32);
}

/* Units are not read ahead any more: how many of them were. */
static unsigned ahead_end(struct frame *f, uint16_t units)
{
	uint32_t was = atomic_fetch_and_explicit(&f->ahead, ~(uint32_t)units, memory_order_relaxed);
	unsigned n = (unsigned)__builtin_popcount(was & units);

	if (n)
		charge(f->c, (uint16_t)(was >> 16), frame_dev(f), -(int64_t)n);
	return n;
}

void frame_ahead_used(struct frame *f, uint16_t units)
{
	atomic_fetch_add_explicit(&f->c->ahead_used, ahead_end(f, units), memory_order_relaxed);
}

void frame_ahead_gone(struct frame *f, uint16_t units)
{
	if (atomic_load_explicit(&f->ahead, memory_order_relaxed) & units)
		atomic_fetch_add_explicit(&f->c->ahead_wasted, ahead_end(f, units), memory_order_relaxed);
}

void frame_ahead_failed(struct frame *f, uint16_t units)
{
	atomic_fetch_sub_explicit(&f->c->ahead_units, ahead_end(f, units), memory_order_relaxed);
}

void frame_ahead_add(struct frame *f, uint16_t units, struct cache_dev *d, struct ahead_piece *p)
{
	uint32_t was = atomic_load_explicit(&f->ahead, memory_order_relaxed), now;
	unsigned n = (unsigned)__builtin_popcount(units);

	/* A frame is on one account at a time: that of its first unit. */
	do
		now = (was & AHEAD_UNITS ? was : (uint32_t)p->account << 16) | units;
	while (!atomic_compare_exchange_weak_explicit(&f->ahead, &was, now, memory_order_relaxed,
						      memory_order_relaxed));
	/* Units that were forgotten meanwhile may have been used before. */
	atomic_fetch_and_explicit(&f->touched, (uint16_t)~units, memory_order_relaxed);
	atomic_fetch_add_explicit(&f->c->ahead_units, n, memory_order_relaxed);
	charge(f->c, (uint16_t)(now >> 16), frame_dev(f), n);
	charge(f->c, p->account, d->id, -(int64_t)n);
	p->charged -= n;
}

/* ---- asking ---------------------------------------------------------------------------------------------------------------- */

static bool already_there(struct cache_dev *d, uint64_t off, uint64_t len)
{
	uint64_t end = off + len;

	for (uint64_t no = off >> FRAME_SHIFT; no << FRAME_SHIFT < end; no++) {
		uint64_t base = no << FRAME_SHIFT, from = max_u64(off, base), to = min_u64(end, base + CACHE_FRAME);
		uint16_t want = units_touched((uint32_t)(from - base), (uint32_t)(to - from));
		struct cache_dev *in;
		struct frame *f = share_find(d, (uint32_t)no, &in);
		bool there = f && (atomic_load_explicit(&f->valid, memory_order_acquire) & want) == want;

		if (f)
			frame_unpin(f);
		if (!there)
			return false;
	}
	return true;
}

/* What a request is charged with. */
static int64_t units_asked(const struct prefetch_req *q)
{
	return q->maps ? 0 : units_of(q->off, q->len);
}

/* One thread is woken at a time, and wakes the next one when it leaves something in the ring: a dozen short requests are then one
 * batch, and one system call for who asks. Whoever looks at the ring is awake. */
static void wake_one(struct prefetch *p) REQUIRES(p->mu)
{
	if (!p->waking)
		cond_signal(&p->work);
	p->waking = true;
}

static bool ring_add(struct prefetch_ring *r, const struct prefetch_req *q)
{
	struct prefetch_req *last = r->n ? &r->q[(r->head + r->n - 1) % PREFETCH_QUEUE] : NULL;

	if (last && last->d == q->d && last->want.tag == q->want.tag && last->want.account == q->want.account &&
	    last->maps == q->maps && !q->want.down && last->off + last->len == q->off && last->off % CACHE_UNIT == 0 &&
	    q->off % CACHE_UNIT == 0) {
		last->len += q->len;
		return true;
	}
	if (r->n == PREFETCH_QUEUE)
		return false;
	r->q[(r->head + r->n++) % PREFETCH_QUEUE] = *q;
	return true;
}

/* Not where it would take the place of what is wanted itself. */
static void want_maps(struct cache_dev *d, uint64_t off, uint64_t len, const struct cache_want *w)
{
	struct prefetch *p = &d->c->prefetch;
	struct prefetch_req q = {.d = d, .off = off, .turn = TURN_BYTES, .since = now_ms(), .maps = true, .want = *w};

	q.len = min_u64(len, d->rotational ? MAPS_BYTES_HEAD : MAPS_BYTES);
	q.want.down = false;
	lock_take(&p->mu);
	if (p->now.n < PREFETCH_QUEUE / 2 && ring_add(&p->now, &q))
		wake_one(p);
	lock_drop(&p->mu);
}

uint64_t cache_prefetch(struct cache_dev *d, uint64_t off, uint64_t len, const struct cache_want *w)
{
	struct cache *c = d->c;
	struct prefetch *p = &c->prefetch;
	struct prefetch_req q = {.d = d, .off = off, .turn = TURN_BYTES, .since = now_ms(), .want = *w};
	bool taken;

	if (off >= d->len || !len)
		return 0;
	len = min_u64(len, d->len - off);
	if (already_there(d, off, min_u64(len, c->limit / 4)))
		return min_u64(len, c->limit / 4);
	if (w->idle)
		want_maps(d, off, len, w);
	q.len = min_u64(len, allowance(d, w->account));
	if (w->down)
		q.off += len - q.len;
	if (!q.len) {
		atomic_fetch_add_explicit(&c->ahead_dropped, 1, memory_order_relaxed);
		return 0;
	}
	charge(c, w->account, d->id, units_of(q.off, q.len));
	lock_take(&p->mu);
	taken = ring_add(w->idle ? &p->later : &p->now, &q);
	if (taken)
		wake_one(p);
	lock_drop(&p->mu);
	if (taken)
		return q.len;
	charge(c, w->account, d->id, -units_of(q.off, q.len));
	atomic_fetch_add_explicit(&c->ahead_dropped, 1, memory_order_relaxed);
	return 0;
}

uint64_t cache_good_start(struct cache_dev *d, uint64_t off, uint64_t len)
{
	uint64_t next;

	if (!d->rotational || !range_ok(off, len, d->len) || !len || !dev_try_enter(d))
		return off;
	next = vhd_next_block(d->v, d->start + off) - d->start;
	dev_leave(d);
	return next < off + len ? next : off;
}

/* Requests that are not @keep leave the ring. */
static void ring_filter(struct prefetch_ring *r, bool (*keep)(const struct prefetch_req *q, const void *arg),
			const void *arg)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < r->n; i++) {
		struct prefetch_req q = r->q[(r->head + i) % PREFETCH_QUEUE];

		if (keep(&q, arg)) {
			r->q[(r->head + kept++) % PREFETCH_QUEUE] = q;
		} else {
			charge(q.d->c, q.want.account, q.d->id, -units_asked(&q));
			if (!q.maps)
				atomic_fetch_add_explicit(&q.d->c->ahead_canceled, q.len, memory_order_relaxed);
		}
	}
	r->n = kept;
}

struct tagged {
	uint64_t tag, mask;
};

static bool other_tag(const struct prefetch_req *q, const void *arg)
{
	const struct tagged *t = arg;

	return (q->want.tag & t->mask) != (t->tag & t->mask);
}

void cache_unwant(struct cache_dev *d, uint64_t tag, uint64_t mask)
{
	struct tagged t = {tag, mask};
	struct prefetch *p = &d->c->prefetch;

	lock_take(&p->mu);
	ring_filter(&p->now, other_tag, &t);
	ring_filter(&p->later, other_tag, &t);
	lock_drop(&p->mu);
}

static bool other_dev(const struct prefetch_req *q, const void *arg)
{
	return q->d != arg;
}

void prefetch_purge(struct cache_dev *d)
{
	struct prefetch *p = &d->c->prefetch;

	lock_take(&p->mu);
	ring_filter(&p->now, other_dev, d);
	ring_filter(&p->later, other_dev, d);
	while (d->fetching)
		cond_wait(&p->idle, &p->mu);
	lock_drop(&p->mu);
}

/* ---- reading --------------------------------------------------------------------------------------------------------------- */

/* What a thread has taken. */
struct taken {
	struct cache_dev *d;
	uint64_t tag;
	bool maps; /* one piece, of which only the maps are wanted */
	unsigned n, frames;
	struct ahead_piece piece[AHEAD_PIECES];
};

/* Of a disk with a head one thread reads ahead at a time, whatever for: what was said of a file and what was found out about it have
 * two tags, and would take the head away from each other. Elsewhere the more short ones at a time the better. */
static bool at_work(const struct prefetch *p, const struct prefetch_req *q) REQUIRES(p->mu)
{
	bool head = q->d->rotational;

	for (unsigned i = 0; i < PREFETCH_THREADS && (head || q->len > CACHE_FRAME); i++)
		if (p->at[i].d == q->d && (head || p->at[i].tag == q->want.tag))
			return true;
	return false;
}

/* The first request that no thread is at comes to the front; false: there is none. */
static bool ring_advance(const struct prefetch *p, struct prefetch_ring *r) REQUIRES(p->mu)
{
	struct prefetch_req *first = &r->q[r->head], q;

	for (unsigned i = 0; i < r->n; i++) {
		struct prefetch_req *at = &r->q[(r->head + i) % PREFETCH_QUEUE];

		if (at_work(p, at))
			continue;
		q = *at;
		*at = *first;
		*first = q;
		return true;
	}
	return false;
}

/* The next piece of the first request. When it has had its turn, it goes to the end. */
static struct ahead_piece first_piece(struct cache *c, struct prefetch_ring *r)
{
	struct prefetch_req *first = &r->q[r->head], q;
	uint64_t most = first->maps
				? MAPS_PIECE
				: min_u64(first->want.down ? DOWN_FRAMES : PIECE_FRAMES, max_u64(1, c->nframes / 5 - 1))
					  << FRAME_SHIFT;
	struct ahead_piece p = {.off = first->off, .account = first->want.account};

	if (first->want.down) {
		uint64_t end = p.off + first->len, low = round_down_u64(end - 1, CACHE_FRAME);

		p.off = max_u64(p.off, low - min_u64(low, most - CACHE_FRAME));
		p.len = end - p.off;
	} else {
		p.len = min_u64(first->len, most - p.off % CACHE_FRAME);
		first->off += p.len;
	}
	p.charged = first->maps ? 0 : units_of(p.off, p.len);
	first->len -= p.len;
	first->turn -= min_u64(first->turn, p.len);
	if (first->len && (first->turn || r->n == 1))
		return p;
	q = *first;
	r->head = (r->head + 1) % PREFETCH_QUEUE;
	r->n--;
	if (q.len) {
		q.turn = TURN_BYTES;
		r->q[(r->head + r->n++) % PREFETCH_QUEUE] = q;
	}
	return p;
}

static unsigned frames_of(uint64_t off, uint64_t len)
{
	return (unsigned)(((off + len - 1) >> FRAME_SHIFT) - (off >> FRAME_SHIFT) + 1);
}

/* A piece of a long request, or several short requests. */
static void take(struct cache *c, const struct prefetch *p, struct prefetch_ring *r, struct taken *t) REQUIRES(p->mu)
{
	unsigned most = (unsigned)min_u64(PIECE_FRAMES, max_u64(1, c->nframes / 8));

	t->d = r->q[r->head].d;
	t->tag = r->q[r->head].want.tag;
	t->maps = r->q[r->head].maps;
	t->n = t->frames = 0;
	while (r->n && t->n < AHEAD_PIECES) {
		const struct prefetch_req *q = &r->q[r->head];

		if (t->n && (t->maps || q->maps || q->d != t->d || q->len > CACHE_FRAME || at_work(p, q) ||
			     t->frames + frames_of(q->off, q->len) > most))
			break;
		t->piece[t->n] = first_piece(c, r);
		t->frames += frames_of(t->piece[t->n].off, t->piece[t->n].len);
		t->n++;
		if (t->frames >= most)
			break;
	}
	t->d->fetching++;
}

static int by_place(const void *a, const void *b)
{
	const struct ahead_piece *x = a, *y = b;

	return (x->off > y->off) - (x->off < y->off);
}

/* What fails is told to whoever needs it. */
static void fetch_maps(struct cache_dev *d, const struct ahead_piece *p)
{
	dev_enter(d);
	vhd_load_maps(d->v, d->start + p->off, p->len);
	dev_leave(d);
}

static void fetch(struct cache *c, struct taken *t)
{
	if (t->maps) {
		fetch_maps(t->d, &t->piece[0]);
		return;
	}
	qsort(t->piece, t->n, sizeof t->piece[0], by_place);
	pin_ahead(t->d, t->piece, t->n);
	for (unsigned i = 0; i < t->n; i++)
		charge(c, t->piece[i].account, t->d->id, -t->piece[i].charged);
}

/* May what is not urgent be read? */
static bool is_quiet(struct cache *c)
{
	struct pool *p = &c->pool;
	uint32_t nfree;

	if (atomic_load_explicit(&c->demand, memory_order_relaxed) ||
	    now_ms() - atomic_load_explicit(&c->demand_ms, memory_order_relaxed) < QUIET_MS)
		return false;
	lock_take(&p->mu);
	nfree = p->nfree + (c->nframes - p->made);
	lock_drop(&p->mu);
	return nfree > c->nframes / IDLE_FREE;
}

static bool is_young(const struct prefetch_req *q, const void *arg)
{
	(void)arg;
	return now_ms() - q->since < LATER_MS;
}

/* The ring to take from; NULL: none now. */
static struct prefetch_ring *choose(struct cache *c, struct prefetch *p) REQUIRES(p->mu)
{
	bool quiet;

	if (ring_advance(p, &p->now))
		return &p->now;
	if (p->later.n && !is_young(&p->later.q[p->later.head], NULL))
		ring_filter(&p->later, is_young, NULL);
	if (!p->later.n)
		return NULL;
	lock_drop(&p->mu);
	quiet = is_quiet(c);
	lock_take(&p->mu);
	if (ring_advance(p, &p->now))
		return &p->now;
	return quiet && ring_advance(p, &p->later) ? &p->later : NULL;
}

static void *prefetch_main(void *arg)
{
	struct cache *c = arg;
	struct prefetch *p = &c->prefetch;
	unsigned me;

	lock_take(&p->mu);
	me = p->numbers++;
	while (!p->stop) {
		struct prefetch_ring *r;
		struct taken t;

		p->waking = false;
		r = choose(c, p);
		if (!r && p->later.n) {
			cond_wait_ms(&p->work, &p->mu, LOOK_MS);
			continue;
		}
		if (!r) {
			cond_wait(&p->work, &p->mu);
			continue;
		}
		take(c, p, r, &t);
		p->at[me] = (struct prefetch_at){t.d, t.tag};
		if (p->now.n)
			wake_one(p);
		lock_drop(&p->mu);
		fetch(c, &t);
		lock_take(&p->mu);
		p->at[me].d = NULL;
		if (--t.d->fetching == 0)
			cond_broadcast(&p->idle);
	}
	lock_drop(&p->mu);
	return NULL;
}

int prefetch_start(struct cache *c)
{
	struct prefetch *p = &c->prefetch;

	lock_init(&p->mu);
	cond_init(&p->work);
	cond_init(&p->idle);
	for (; p->nthreads < PREFETCH_THREADS; p->nthreads++)
		if (pthread_create(&p->thread[p->nthreads], NULL, prefetch_main, c))
			break;
	/* One is enough to keep the promise. */
	if (p->nthreads)
		return 0;
	cond_fini(&p->idle);
	cond_fini(&p->work);
	lock_fini(&p->mu);
	return -ENOMEM;
}

void prefetch_stop(struct cache *c)
{
	struct prefetch *p = &c->prefetch;

	if (!p->nthreads)
		return;
	lock_take(&p->mu);
	p->stop = true;
	cond_broadcast(&p->work);
	lock_drop(&p->mu);
	while (p->nthreads)
		pthread_join(p->thread[--p->nthreads], NULL);
	cond_fini(&p->idle);
	cond_fini(&p->work);
	lock_fini(&p->mu);
}

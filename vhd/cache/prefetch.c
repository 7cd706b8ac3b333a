/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * prefetch.c - reading ahead in the background
 *
 * A ring of requests, neighbours merged as they come in, and a few threads that read them in pieces of at most 1 MiB. A
 * full ring drops the request, a lack of memory the rest of it: nobody waits for either, the reader just comes later.
 */
#include "vhd/cache/cache_int.h"

#include <errno.h>

#define PIECE_FRAMES 16u /* at most */

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

void cache_prefetch(struct cache_dev *d, uint64_t off, uint64_t len)
{
	struct prefetch *p = &d->c->prefetch;
	struct prefetch_req *last;

	if (off >= d->len || !len)
		return;
	len = min_u64(len, d->len - off);
	/* More than a part of the cache would only push itself out. */
	len = min_u64(len, d->c->limit / 4);
	if (already_there(d, off, len))
		return;
	lock_take(&p->mu);
	last = p->n ? &p->q[(p->head + p->n - 1) % PREFETCH_QUEUE] : NULL;
	if (last && last->d == d && last->off + last->len == off && last->len + len <= d->c->limit / 4) {
		last->len += len;
	} else if (p->n < PREFETCH_QUEUE) {
		p->q[(p->head + p->n++) % PREFETCH_QUEUE] = (struct prefetch_req){d, off, len};
		cond_signal(&p->work);
	} else {
		atomic_fetch_add_explicit(&d->c->ahead_dropped, 1, memory_order_relaxed);
	}
	lock_drop(&p->mu);
}

/* Takes one piece off the first request, so that several threads work on a long one. */
static struct prefetch_req next_piece(struct cache *c, struct prefetch *p) REQUIRES(p->mu)
{
	struct prefetch_req *first = &p->q[p->head], r = *first;
	uint64_t piece = min_u64(PIECE_FRAMES, max_u64(1, c->nframes / 8 - 1)) << FRAME_SHIFT;

	/* Pieces end on the boundary of a piece. */
	r.len = min_u64(r.len, piece - r.off % piece);
	first->off += r.len;
	first->len -= r.len;
	if (!first->len) {
		p->head = (p->head + 1) % PREFETCH_QUEUE;
		p->n--;
	}
	r.d->fetching++;
	return r;
}

static void *prefetch_main(void *arg)
{
	struct cache *c = arg;
	struct prefetch *p = &c->prefetch;

	lock_take(&p->mu);
	for (;;) {
		struct prefetch_req r;

		while (!p->n && !p->stop)
			cond_wait(&p->work, &p->mu);
		if (p->stop)
			break;
		r = next_piece(c, p);
		if (p->n)
			cond_signal(&p->work);
		lock_drop(&p->mu);
		pin_prefetch(r.d, r.off, (uint32_t)r.len);
		lock_take(&p->mu);
		if (--r.d->fetching == 0)
			cond_broadcast(&p->idle);
	}
	lock_drop(&p->mu);
	return NULL;
}

void prefetch_purge(struct cache_dev *d)
{
	struct prefetch *p = &d->c->prefetch;
	unsigned kept = 0;

	lock_take(&p->mu);
	for (unsigned i = 0; i < p->n; i++) {
		struct prefetch_req r = p->q[(p->head + i) % PREFETCH_QUEUE];

		if (r.d != d)
			p->q[(p->head + kept++) % PREFETCH_QUEUE] = r;
	}
	p->n = kept;
	while (d->fetching)
		cond_wait(&p->idle, &p->mu);
	lock_drop(&p->mu);
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

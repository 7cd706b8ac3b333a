/* SPDX-License-Identifier: BSD-3-Clause */
/* prefetch.c - reads in the background: a bounded queue and two threads that pin and unpin */
#include <errno.h>
#include <stdlib.h>

#include "vhd/base/checked.h"
#include "vhd/cache/cache_int.h"

#define QUEUE_MAX 256u
#define PIECE (1u << 20)

static void read_range(const struct prefetch *p)
{
	struct cache_seg seg[PIECE / CACHE_FRAME + 2];
	uint64_t off = p->off, left = p->len;

	while (left) {
		uint32_t n = (uint32_t)min_u64(left, PIECE);
		int k = cache_pin(p->dev, off, n, 0, seg, PIECE / CACHE_FRAME + 2);

		if (k < 0)
			return;
		cache_unpin(seg, (unsigned)k);
		off += n;
		left -= n;
	}
}

static void *prefetcher(void *arg)
{
	struct cache *c = arg;

	lock_take(&c->prefetch_mu);
	for (;;) {
		struct prefetch *p;

		while (list_empty(&c->prefetch_queue) && !c->prefetch_stop)
			cond_wait(&c->prefetch_cond, &c->prefetch_mu);
		if (c->prefetch_stop)
			break;
		p = list_first(&c->prefetch_queue, struct prefetch, link);
		list_del(&p->link);
		c->prefetch_len--;
		p->dev->prefetching++;
		lock_drop(&c->prefetch_mu);
		read_range(p);
		lock_take(&c->prefetch_mu);
		p->dev->prefetching--;
		cond_broadcast(&c->prefetch_done);
		free(p);
	}
	lock_drop(&c->prefetch_mu);
	return NULL;
}

void cache_prefetch(struct cache_dev *d, uint64_t off, uint64_t len)
{
	struct cache *c = d->cache;
	struct prefetch *p;

	if (off >= d->len || len == 0)
		return;
	len = min_u64(len, d->len - off);
	p = malloc(sizeof *p);
	if (!p)
		return;
	*p = (struct prefetch){.dev = d, .off = off, .len = len};
	lock_take(&c->prefetch_mu);
	if (c->prefetch_len < QUEUE_MAX) {
		list_push_back(&c->prefetch_queue, &p->link);
		c->prefetch_len++;
		cond_signal(&c->prefetch_cond);
		p = NULL;
	}
	lock_drop(&c->prefetch_mu);
	free(p);
}

void prefetch_forget(struct cache_dev *d)
{
	struct cache *c = d->cache;

	lock_take(&c->prefetch_mu);
	list_for_each_safe (it, tmp, &c->prefetch_queue) {
		struct prefetch *p = list_entry(it, struct prefetch, link);

		if (p->dev == d) {
			list_del(&p->link);
			c->prefetch_len--;
			free(p);
		}
	}
	while (d->prefetching)
		cond_wait(&c->prefetch_done, &c->prefetch_mu);
	lock_drop(&c->prefetch_mu);
}

int prefetch_start(struct cache *c)
{
	for (; c->nprefetchers < 2; c->nprefetchers++)
		if (pthread_create(&c->prefetcher[c->nprefetchers], NULL, prefetcher, c)) {
			prefetch_stop(c);
			return -EAGAIN;
		}
	return 0;
}

void prefetch_stop(struct cache *c)
{
	lock_take(&c->prefetch_mu);
	c->prefetch_stop = true;
	cond_broadcast(&c->prefetch_cond);
	lock_drop(&c->prefetch_mu);
	for (unsigned i = 0; i < c->nprefetchers; i++)
		pthread_join(c->prefetcher[i], NULL);
	c->nprefetchers = 0;
}

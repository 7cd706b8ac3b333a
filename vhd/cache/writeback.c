/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * writeback.c - dirty units on their way to the image
 *
 * A pass collects dirty frames from all shards, sorts them by place, and writes neighbours in one transfer, many transfers
 * in one batch. The flusher thread does so for what is older than AGE seconds, and for everything once a quarter of the cache
 * is dirty; writers are held up when half of it is.
 *
 * A failed write leaves its units dirty: nothing is dropped, the flusher tries again, and the error is kept for COMMIT.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/log.h"
#include "vhd/cache/cache_int.h"

#define AGE 3u         /* seconds that data may stay dirty */
#define PASS_MAX 8192u /* frames of one pass */
#define BATCH_IO 64u   /* transfers of one batch */
#define BATCH_IOV 512u
#define TRANSFER (4u << 20) /* bytes of one transfer, about */

struct item {
	struct shard *s;
	struct frame *f;
	uint64_t no;
	uint16_t units;
	int result;
};

struct pass {
	struct cache_dev *d;
	uint64_t first, last; /* frame numbers */
	uint32_t older;       /* dirty since then or before */
	struct item *item;
	uint32_t n;
};

static unsigned long background_limit(const struct cache *c)
{
	return (unsigned long)c->nframes * UNITS / 4;
}

static unsigned long hard_limit(const struct cache *c)
{
	return (unsigned long)c->nframes * UNITS / 2;
}

/* ---- collecting ---------------------------------------------------------------------------------------------------------- */

static void take(struct pass *p, struct shard *s, struct frame *f) REQUIRES(s->mu)
{
	struct item *it = &p->item[p->n++];

	*it = (struct item){.s = s, .f = f, .no = f->no, .units = f->dirty};
	atomic_fetch_add_explicit(&f->pins, 1, memory_order_relaxed);
	f->writing |= f->dirty;
	frame_clear_dirty(p->d->cache, f, ALL_UNITS);
}

static void collect(struct pass *p)
{
	struct cache *c = p->d->cache;

	for (uint32_t i = 0; i < c->nshards && p->n < PASS_MAX; i++) {
		struct shard *s = &c->shard[i];

		lock_take(&s->mu);
		list_for_each_safe (it, tmp, &s->dirty) {
			struct frame *f = list_entry(it, struct frame, dirty_link);

			if (f->dev == p->d && !f->writing && f->no >= p->first && f->no <= p->last &&
			    (int32_t)(p->older - f->dirty_since) >= 0 && p->n < PASS_MAX)
				take(p, s, f);
		}
		lock_drop(&s->mu);
	}
}

/* A short range: look its frames up instead of walking every dirty frame there is. */
static void collect_range(struct pass *p)
{
	for (uint64_t no = p->first; no <= p->last && p->n < PASS_MAX; no++) {
		struct shard *s = shard_of(p->d, no);
		struct frame *f;

		lock_take(&s->mu);
		f = frame_find(s, p->d, no);
		if (f && f->dirty && !f->writing)
			take(p, s, f);
		lock_drop(&s->mu);
	}
}

static int by_place(const void *a, const void *b)
{
	const struct item *x = a, *y = b;

	return x->no < y->no ? -1 : x->no > y->no;
}

/* ---- writing ------------------------------------------------------------------------------------------------------------- */

struct batch {
	struct cache_dev *d;
	struct vhd_io io[BATCH_IO];
	uint64_t len[BATCH_IO];
	struct iovec iov[BATCH_IOV];
	struct item *of[BATCH_IOV]; /* whose units the iovec carries */
	unsigned nio, niov;
	uint64_t bytes;
};

static void batch_send(struct batch *b)
{
	unsigned v = 0;

	if (!b->nio)
		return;
	vhd_writev(b->d->vhd, b->io, b->nio);
	for (unsigned i = 0; i < b->nio; i++)
		for (int k = 0; k < b->io[i].niov; k++, v++)
			if (b->io[i].result)
				b->of[v]->result = b->io[i].result;
	atomic_fetch_add_explicit(&b->d->cache->bytes_written, b->bytes, memory_order_relaxed);
	b->nio = b->niov = 0;
	b->bytes = 0;
}

static void batch_add(struct batch *b, struct item *it, uint64_t off, uint8_t *data, uint64_t len)
{
	struct vhd_io *last = b->nio ? &b->io[b->nio - 1] : NULL;

	if (b->niov == BATCH_IOV || (b->nio == BATCH_IO && last->off + b->len[b->nio - 1] != off)) {
		batch_send(b);
		last = NULL;
	}
	b->iov[b->niov] = (struct iovec){data, len};
	b->of[b->niov] = it;
	if (last && last->off + b->len[b->nio - 1] == off && b->len[b->nio - 1] < TRANSFER) {
		last->niov++;
		b->len[b->nio - 1] += len;
	} else {
		if (b->nio == BATCH_IO) {
			struct iovec keep = b->iov[b->niov];

			batch_send(b);
			b->iov[0] = keep;
			b->of[0] = it;
		}
		b->io[b->nio] = (struct vhd_io){.off = off, .iov = &b->iov[b->niov], .niov = 1};
		b->len[b->nio++] = len;
	}
	b->niov++;
	b->bytes += len;
}

static void write_items(struct pass *p)
{
	struct batch b = {.d = p->d};

	qsort(p->item, p->n, sizeof *p->item, by_place);
	for (uint32_t i = 0; i < p->n; i++) {
		struct item *it = &p->item[i];
		uint64_t base = it->no * CACHE_FRAME;

		for (unsigned u = 0; u < UNITS; u++) {
			unsigned from = u;
			uint64_t off;

			while (u < UNITS && it->units & 1u << u)
				u++;
			if (u == from)
				continue;
			off = base + (uint64_t)from * CACHE_UNIT;
			batch_add(&b, it, p->d->start + off, it->f->data + from * CACHE_UNIT,
				  min_u64((uint64_t)(u - from) * CACHE_UNIT, p->d->len - off));
		}
	}
	batch_send(&b);
}

static int finish(struct pass *p)
{
	struct cache *c = p->d->cache;
	int err = 0;

	for (uint32_t i = 0; i < p->n; i++) {
		struct item *it = &p->item[i];

		lock_take(&it->s->mu);
		it->f->writing = (uint16_t)(it->f->writing & ~it->units);
		if (it->result) {
			frame_set_dirty(c, it->s, it->f, it->units);
			err = it->result;
		}
		shard_wake(it->s);
		lock_drop(&it->s->mu);
		frame_put(it->f);
	}
	if (err) {
		atomic_store(&p->d->error, err);
		if (!atomic_exchange(&p->d->complained, true))
			log_error("%s: writing back: %s; the data is kept in memory and tried again",
				  vhd_path(p->d->vhd), strerror(-err));
	}
	atomic_fetch_add_explicit(&c->writebacks, p->n, memory_order_relaxed);
	lock_take(&c->flush_mu);
	cond_broadcast(&c->drained);
	lock_drop(&c->flush_mu);
	return err;
}

/* One pass; how many frames were written, or the error. */
static int run_pass(struct cache_dev *d, uint64_t first, uint64_t last, uint32_t older)
{
	bool range = last - first < 256;
	struct pass p = {.d = d, .first = first, .last = last, .older = older};
	struct item few[256];
	AUTO(freep) struct item *many = NULL;
	int err;

	if (range) {
		p.item = few;
		collect_range(&p);
	} else {
		p.item = many = malloc(PASS_MAX * sizeof *many);
		if (!many)
			return -ENOMEM;
		collect(&p);
	}
	if (!p.n)
		return 0;
	write_items(&p);
	err = finish(&p);
	return err ? err : (int)p.n;
}

/* ---- on demand ------------------------------------------------------------------------------------------------------------ */

/* Wait until nothing of the range is on its way. */
static void wait_writing(struct cache_dev *d, uint64_t first, uint64_t last)
{
	struct cache *c = d->cache;
	bool range = last - first < 256;

	for (uint64_t i = range ? first : 0; i <= (range ? last : c->nframes - 1); i++) {
		struct frame *f = range ? NULL : &c->frames[i];
		struct shard *s = range ? shard_of(d, i) : &c->shard[i % c->nshards];

		lock_take(&s->mu);
		if (range)
			f = frame_find(s, d, i);
		while (f && f->dev == d && f->no >= first && f->no <= last && f->writing) {
			uint64_t no = f->no;

			shard_wait(s);
			f = frame_find(s, d, no);
		}
		lock_drop(&s->mu);
	}
}

/* What is dirty now is either taken by us or was taken by another pass already. Twice, because a frame that was on its way
 * when we came may have been dirtied again before. */
static int writeback_frames(struct cache_dev *d, uint64_t first, uint64_t last)
{
	for (int round = 0; round < 2; round++) {
		uint32_t older = now_seconds();
		int n;

		do {
			n = run_pass(d, first, last, older);
			if (n < 0)
				return n;
		} while (n == (int)PASS_MAX);
		wait_writing(d, first, last);
	}
	return 0;
}

int cache_writeback(struct cache_dev *d, uint64_t off, uint64_t len)
{
	uint64_t end;

	if (!vhd_writable(d->vhd) || len == 0 || off >= d->len)
		return 0;
	if (!add_ok(off, len, &end) || end > d->len)
		end = d->len;
	return writeback_frames(d, off / CACHE_FRAME, (end - 1) / CACHE_FRAME);
}

int cache_writeback_ranges(struct cache_dev *d, const struct cache_range *r, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		int err = cache_writeback(d, r[i].off, r[i].len);

		if (err)
			return err;
	}
	return 0;
}

int cache_flush(struct cache_dev *d)
{
	int err = cache_writeback(d, 0, d->len);

	return err ? err : vhd_flush(d->vhd);
}

int cache_flush_device(struct cache_dev *d)
{
	return vhd_flush(d->vhd);
}

/* ---- the flusher ---------------------------------------------------------------------------------------------------------- */

void writeback_kick(struct cache *c)
{
	lock_take(&c->flush_mu);
	c->urgent = true;
	cond_signal(&c->flush_cond);
	lock_drop(&c->flush_mu);
}

int writeback_throttle(struct cache *c, unsigned flags)
{
	unsigned long dirty = atomic_load_explicit(&c->dirty_units, memory_order_relaxed);

	if (dirty < background_limit(c))
		return 0;
	if (!c->urgent) /* a stale read only costs a kick */
		writeback_kick(c);
	if (dirty < hard_limit(c))
		return 0;
	if (flags & CACHE_NOWAIT)
		return -EAGAIN;
	atomic_fetch_add_explicit(&c->throttled, 1, memory_order_relaxed);
	lock_take(&c->flush_mu);
	/* A disk that fails keeps its data dirty: do not wait for it without end. */
	for (int tries = 0; tries < 300 && atomic_load(&c->dirty_units) >= hard_limit(c) && !c->stopping; tries++) {
		c->urgent = true;
		cond_signal(&c->flush_cond);
		cond_wait_ms(&c->drained, &c->flush_mu, 100);
	}
	lock_drop(&c->flush_mu);
	return atomic_load(&c->dirty_units) >= (unsigned long)c->nframes * UNITS * 9 / 10 ? -EIO : 0;
}

/* Every device in turn; the list may change while one is worked on, a device stays while it has users. */
static bool flush_devices(struct cache *c, uint32_t older) REQUIRES(c->flush_mu)
{
	bool failed = false;
	struct list *at = c->devs.next;

	while (at != &c->devs) {
		struct cache_dev *d = list_entry(at, struct cache_dev, link);
		bool gone;

		if (vhd_writable(d->vhd)) {
			d->users++;
			lock_drop(&c->flush_mu);
			failed |= run_pass(d, 0, UINT64_MAX, older) < 0;
			lock_take(&c->flush_mu);
			d->users--;
			cond_broadcast(&c->drained);
		}
		gone = list_empty(&d->link); /* being detached: its link leads nowhere */
		at = gone ? c->devs.next : at->next;
		if (gone)
			break;
	}
	return failed;
}

static void *flusher(void *arg)
{
	struct cache *c = arg;

	lock_take(&c->flush_mu);
	while (!c->stopping) {
		bool all, failed;

		if (!c->urgent)
			cond_wait_ms(&c->flush_cond, &c->flush_mu, 1000);
		if (c->stopping)
			break;
		all = c->urgent;
		c->urgent = false;
		failed = flush_devices(c, all ? now_seconds() : now_seconds() - AGE);
		if (failed)
			cond_wait_ms(&c->flush_cond, &c->flush_mu, 1000);
	}
	lock_drop(&c->flush_mu);
	return NULL;
}

int writeback_start(struct cache *c)
{
	return -pthread_create(&c->flusher, NULL, flusher, c);
}

void writeback_stop(struct cache *c)
{
	lock_take(&c->flush_mu);
	c->stopping = true;
	cond_broadcast(&c->flush_cond);
	cond_broadcast(&c->drained);
	lock_drop(&c->flush_mu);
	pthread_join(c->flusher, NULL);
}

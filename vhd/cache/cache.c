/* SPDX-License-Identifier: BSD-3-Clause */
/* cache.c - see cache.h and cache_int.h: set up, fill, read, write, discard */
#include "vhd/cache/cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/cache/cache_int.h"

#define PIN_BATCH 32u /* frames that are filled together */

/* ---- set up ------------------------------------------------------------------------------------------------------------- */

static int shard_init(struct shard *s, uint32_t frames)
{
	uint32_t buckets = 16;

	while (buckets < frames)
		buckets *= 2;
	lock_init(&s->mu);
	cond_init(&s->changed);
	list_init(&s->free);
	list_init(&s->small);
	list_init(&s->main);
	list_init(&s->dirty);
	s->nframes = frames;
	s->bucket_mask = buckets - 1;
	s->bucket = calloc(buckets, sizeof *s->bucket);
	return s->bucket ? 0 : -ENOMEM;
}

static int init_memory(struct cache *c)
{
	void *shards = NULL;
	int err = 0;

	c->nframes = (uint32_t)(c->limit / CACHE_FRAME);
	c->nshards = c->nframes / 64;
	c->nshards = c->nshards < 1 ? 1 : c->nshards > SHARDS_MAX ? SHARDS_MAX : c->nshards;
	c->memory_len = (size_t)c->nframes * CACHE_FRAME;
	/* Pages are taken when they are touched: a small working set has a small resident size. */
	c->memory = mmap(NULL, c->memory_len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
			 0);
	if (c->memory == MAP_FAILED) {
		c->memory = NULL;
		return -ENOMEM;
	}
	c->frames = calloc(c->nframes, sizeof *c->frames);
	if (!c->frames || posix_memalign(&shards, 64, c->nshards * sizeof *c->shard))
		return -ENOMEM;
	c->shard = shards;
	memset(shards, 0, c->nshards * sizeof *c->shard);
	for (uint32_t i = 0; i < c->nshards; i++)
		if (shard_init(&c->shard[i], c->nframes / c->nshards + (i < c->nframes % c->nshards)) < 0)
			err = -ENOMEM;
	for (uint32_t i = 0; i < c->nframes; i++) {
		struct frame *f = &c->frames[i];

		f->data = c->memory + (size_t)i * CACHE_FRAME;
		list_init(&f->dirty_link);
		list_push_back(&c->shard[i % c->nshards].free, &f->q);
	}
	return err;
}

static void fini_memory(struct cache *c)
{
	for (uint32_t i = 0; c->shard && i < c->nshards; i++) {
		lock_fini(&c->shard[i].mu);
		cond_fini(&c->shard[i].changed);
		free(c->shard[i].bucket);
	}
	free(c->shard);
	free(c->frames);
	if (c->memory)
		munmap(c->memory, c->memory_len);
}

int cache_new(struct cache **out, size_t limit)
{
	struct cache *c = calloc(1, sizeof *c);
	int err;

	if (!c)
		return -ENOMEM;
	c->limit = limit < CACHE_MIN_LIMIT ? CACHE_MIN_LIMIT : limit;
	lock_init(&c->flush_mu);
	cond_init(&c->flush_cond);
	cond_init(&c->drained);
	list_init(&c->devs);
	lock_init(&c->prefetch_mu);
	cond_init(&c->prefetch_cond);
	cond_init(&c->prefetch_done);
	list_init(&c->prefetch_queue);
	err = init_memory(c);
	if (!err && (err = writeback_start(c)) == 0) {
		err = prefetch_start(c);
		if (err)
			writeback_stop(c);
	}
	if (err) {
		fini_memory(c);
		free(c);
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
	writeback_stop(c);
	fini_memory(c);
	lock_fini(&c->flush_mu);
	cond_fini(&c->flush_cond);
	cond_fini(&c->drained);
	lock_fini(&c->prefetch_mu);
	cond_fini(&c->prefetch_cond);
	cond_fini(&c->prefetch_done);
	free(c);
}

int cache_attach(struct cache *c, struct vhd *v, uint64_t start, uint64_t len, struct cache_dev **out)
{
	static atomic_ulong count;
	struct cache_dev *d;

	if (start % 512 || !range_ok(start, len, vhd_size(v)))
		return -EINVAL;
	d = calloc(1, sizeof *d);
	if (!d)
		return -ENOMEM;
	d->cache = c;
	d->vhd = v;
	d->start = start;
	d->len = round_down_u64(len, 512);
	d->salt = (atomic_fetch_add(&count, 1) + 1) * UINT64_C(0xd6e8feb86659fd93);
	lock_take(&c->flush_mu);
	list_push_back(&c->devs, &d->link);
	lock_drop(&c->flush_mu);
	*out = d;
	return 0;
}

int cache_detach(struct cache_dev *d)
{
	struct cache *c = d->cache;
	int err;

	prefetch_forget(d);
	lock_take(&c->flush_mu);
	list_del(&d->link);
	while (d->users)
		cond_wait(&c->drained, &c->flush_mu);
	lock_drop(&c->flush_mu);
	err = vhd_writable(d->vhd) ? cache_flush(d) : 0;
	if (!err)
		err = atomic_load(&d->error);
	for (uint32_t i = 0; i < c->nframes; i++) {
		struct frame *f = &c->frames[i];
		struct shard *s = &c->shard[i % c->nshards];

		lock_take(&s->mu);
		if (f->dev == d)
			frame_drop(c, s, f);
		lock_drop(&s->mu);
	}
	free(d);
	return err;
}

uint64_t cache_dev_size(const struct cache_dev *d)
{
	return d->len;
}

bool cache_dev_writable(const struct cache_dev *d)
{
	return vhd_writable(d->vhd);
}

int cache_dev_error(struct cache_dev *d)
{
	return atomic_exchange(&d->error, 0);
}

/* ---- fills -------------------------------------------------------------------------------------------------------------- */

/* The units that [from, to) of a frame touches. */
static uint16_t units_of(uint32_t from, uint32_t to)
{
	uint32_t a = from / CACHE_UNIT, b = (to + CACHE_UNIT - 1) / CACHE_UNIT;

	return (uint16_t)((1u << b) - (1u << a));
}

/* A frame that takes part in a batch of fills. */
struct fill {
	struct shard *s;
	struct frame *f;
	uint16_t need, mine; /* units wanted; units that we claimed and must read */
};

/* Claim what is missing and nobody else is reading. */
static void fill_claim(struct fill *fl) REQUIRES(fl->s->mu)
{
	fl->mine = (uint16_t)(fl->need & ~fl->f->valid & ~fl->f->claimed);
	fl->f->claimed |= fl->mine;
}

static void fill_done(struct fill *fl, bool ok)
{
	if (!fl->mine)
		return;
	lock_take(&fl->s->mu);
	fl->f->claimed = (uint16_t)(fl->f->claimed & ~fl->mine);
	if (ok)
		fl->f->valid |= fl->mine;
	shard_wake(fl->s);
	lock_drop(&fl->s->mu);
	fl->mine = 0;
}

/* Read every claimed unit, runs of units together, all frames in one batch. */
static int fill_read(struct cache_dev *d, struct fill *fl, unsigned n)
{
	struct vhd_io io[PIN_BATCH * UNITS / 2];
	struct iovec iov[PIN_BATCH * UNITS / 2];
	unsigned nio = 0, niov = 0;
	uint64_t bytes = 0, end = 0;
	int err;

	for (unsigned i = 0; i < n; i++) {
		uint64_t base = fl[i].f->no * CACHE_FRAME;

		for (unsigned u = 0; u < UNITS; u++) {
			unsigned from = u;
			uint64_t off, len;

			while (u < UNITS && fl[i].mine & 1u << u)
				u++;
			if (u == from)
				continue;
			off = base + (uint64_t)from * CACHE_UNIT;
			len = min_u64((uint64_t)(u - from) * CACHE_UNIT, d->len - off);
			iov[niov] = (struct iovec){fl[i].f->data + from * CACHE_UNIT, len};
			/* What follows on the device follows in the same transfer. */
			if (nio && end == off)
				io[nio - 1].niov++;
			else
				io[nio++] = (struct vhd_io){.off = d->start + off, .iov = &iov[niov], .niov = 1};
			niov++;
			end = off + len;
			bytes += len;
		}
	}
	if (!nio)
		return 0;
	err = vhd_readv(d->vhd, io, nio);
	atomic_fetch_add_explicit(&d->cache->bytes_read, bytes, memory_order_relaxed);
	return err;
}

/* Make fl[i].need valid in every frame (all pinned). */
static int fill_all(struct cache_dev *d, struct fill *fl, unsigned n, unsigned flags)
{
	for (;;) {
		bool waiting = false, mine = false;
		int err;

		for (unsigned i = 0; i < n; i++) {
			lock_take(&fl[i].s->mu);
			if (fl[i].need & ~fl[i].f->valid) {
				if (flags & CACHE_NOWAIT) {
					lock_drop(&fl[i].s->mu);
					return -EAGAIN;
				}
				fill_claim(&fl[i]);
				mine |= fl[i].mine != 0;
				waiting |= (fl[i].need & ~fl[i].f->valid & ~fl[i].mine) != 0;
			}
			lock_drop(&fl[i].s->mu);
		}
		if (!mine && !waiting)
			return 0;
		err = mine ? fill_read(d, fl, n) : 0;
		for (unsigned i = 0; i < n; i++)
			fill_done(&fl[i], err == 0);
		if (err)
			return err;
		for (unsigned i = 0; i < n; i++) {
			lock_take(&fl[i].s->mu);
			while (fl[i].need & fl[i].f->claimed)
				shard_wait(fl[i].s);
			lock_drop(&fl[i].s->mu);
		}
	}
}

/* ---- reading ------------------------------------------------------------------------------------------------------------ */

static int pin_batch(struct cache_dev *d, uint64_t off, uint32_t len, unsigned flags, struct cache_seg *seg,
		     unsigned n) NO_THREAD_SAFETY
{
	struct fill fl[PIN_BATCH];
	bool missing = false;
	unsigned got = 0;
	int err = 0;

	for (; got < n; got++) {
		uint32_t in = (uint32_t)(off % CACHE_FRAME);
		uint32_t here = (uint32_t)min_u64(len, CACHE_FRAME - in);

		err = frame_get_locked(d, off / CACHE_FRAME, flags, &fl[got].s, &fl[got].f);
		if (err)
			break;
		fl[got].need = units_of(in, in + here);
		fl[got].mine = 0;
		missing |= (fl[got].need & ~fl[got].f->valid) != 0;
		lock_drop(&fl[got].s->mu);
		seg[got] = (struct cache_seg){.base = fl[got].f->data + in, .len = here, .pin = fl[got].f};
		off += here;
		len -= here;
	}
	if (!err && missing)
		err = fill_all(d, fl, n, flags);
	if (err)
		cache_unpin(seg, got);
	return err;
}

int cache_pin(struct cache_dev *d, uint64_t off, uint32_t len, unsigned flags, struct cache_seg *seg, unsigned max)
{
	unsigned n = 0, total;

	if (len == 0 || !range_ok(off, len, d->len))
		return -EINVAL;
	total = (unsigned)((off + len - 1) / CACHE_FRAME - off / CACHE_FRAME) + 1;
	if (total > max)
		return -EINVAL;
	while (n < total) {
		unsigned k = total - n < PIN_BATCH ? total - n : PIN_BATCH;
		uint32_t span = (uint32_t)min_u64(len, (uint64_t)k * CACHE_FRAME - off % CACHE_FRAME);
		int err = pin_batch(d, off, span, flags, seg + n, k);

		if (err) {
			cache_unpin(seg, n);
			return err;
		}
		n += k;
		off += span;
		len -= span;
	}
	return (int)total;
}

void cache_unpin(struct cache_seg *seg, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (seg[i].pin)
			frame_put(seg[i].pin);
}

int cache_read(struct cache_dev *d, void *buf, size_t len, uint64_t off, unsigned flags)
{
	uint8_t *to = buf;

	while (len) {
		struct cache_seg seg[PIN_BATCH];
		uint32_t n = (uint32_t)min_u64(len, (uint64_t)(PIN_BATCH - 1) * CACHE_FRAME);
		int k = cache_pin(d, off, n, flags, seg, PIN_BATCH);

		if (k < 0)
			return k;
		for (int i = 0; i < k; i++) {
			memcpy(to, seg[i].base, seg[i].len);
			to += seg[i].len;
		}
		cache_unpin(seg, (unsigned)k);
		off += n;
		len -= n;
	}
	return 0;
}

/* ---- writing ------------------------------------------------------------------------------------------------------------ */

/* The units of [from, to) that are covered in part only; the end of the device counts as the end of its unit. */
static uint16_t partial_units(const struct cache_dev *d, uint64_t base, uint32_t from, uint32_t to)
{
	uint16_t part = 0;

	if (from % CACHE_UNIT)
		part |= units_of(from, from + 1);
	if (to % CACHE_UNIT && base + to != d->len)
		part |= units_of(to - 1, to);
	return part;
}

/* Bytes for one frame, out of an iovec (NULL: zeros). */
struct source {
	const struct iovec *iov;
	size_t done;
};

static void source_copy(struct source *src, uint8_t *to, size_t len)
{
	if (!src->iov) {
		memset(to, 0, len);
		return;
	}
	while (len) {
		size_t n;

		while (src->done == src->iov->iov_len) {
			src->iov++;
			src->done = 0;
		}
		n = src->iov->iov_len - src->done;
		n = n < len ? n : len;
		memcpy(to, (const char *)src->iov->iov_base + src->done, n);
		src->done += n;
		to += n;
		len -= n;
	}
}

static int write_frame(struct cache_dev *d, uint64_t no, uint32_t from, uint32_t to, struct source *src,
		       unsigned flags) NO_THREAD_SAFETY
{
	struct fill fl = {.mine = 0};
	uint16_t units = units_of(from, to), claimed;
	int err;

	if ((err = frame_get_locked(d, no, flags, &fl.s, &fl.f)) < 0)
		return err;
	fl.need = partial_units(d, no * CACHE_FRAME, from, to);
	if (fl.need & ~fl.f->valid) {
		lock_drop(&fl.s->mu);
		if ((err = fill_all(d, &fl, 1, flags)) < 0) {
			frame_put(fl.f);
			return err;
		}
		lock_take(&fl.s->mu);
	}
	/* What is not valid is claimed while we put bytes in, so that no fill does the same. */
	while (units & fl.f->claimed) {
		if (flags & CACHE_NOWAIT) {
			lock_drop(&fl.s->mu);
			frame_put(fl.f);
			return -EAGAIN;
		}
		shard_wait(fl.s);
	}
	claimed = (uint16_t)(units & ~fl.f->valid);
	fl.f->claimed |= claimed;
	lock_drop(&fl.s->mu);

	source_copy(src, fl.f->data + from, to - from);

	lock_take(&fl.s->mu);
	fl.f->claimed = (uint16_t)(fl.f->claimed & ~claimed);
	fl.f->valid |= units;
	frame_set_dirty(d->cache, fl.s, fl.f, units);
	if (claimed)
		shard_wake(fl.s);
	lock_drop(&fl.s->mu);
	frame_put(fl.f);
	return 0;
}

static int write_source(struct cache_dev *d, struct source *src, uint64_t len, uint64_t off, unsigned flags)
{
	if (!range_ok(off, len, d->len))
		return -EINVAL;
	if (!vhd_writable(d->vhd))
		return -EROFS;
	while (len) {
		uint32_t in = (uint32_t)(off % CACHE_FRAME);
		uint32_t here = (uint32_t)min_u64(len, CACHE_FRAME - in);
		int err = writeback_throttle(d->cache, flags);

		if (!err)
			err = write_frame(d, off / CACHE_FRAME, in, in + here, src, flags);
		if (err)
			return err;
		off += here;
		len -= here;
	}
	return 0;
}

int cache_writev(struct cache_dev *d, const struct iovec *iov, int niov, size_t len, uint64_t off, unsigned flags)
{
	struct source src = {.iov = iov};

	(void)niov;
	return write_source(d, &src, len, off, flags);
}

int cache_write(struct cache_dev *d, const void *buf, size_t len, uint64_t off, unsigned flags)
{
	struct iovec iov = {(void *)(uintptr_t)buf, len};

	return cache_writev(d, &iov, 1, len, off, flags);
}

int cache_zero(struct cache_dev *d, uint64_t off, uint64_t len, unsigned flags)
{
	struct source src = {.iov = NULL};

	return write_source(d, &src, len, off, flags);
}

/* ---- forgetting --------------------------------------------------------------------------------------------------------- */

void cache_discard(struct cache_dev *d, uint64_t off, uint64_t len)
{
	uint64_t end = off + len;

	/* Units that are covered in part stay: the rest of them is somebody else's. */
	off = round_up_u64(off, CACHE_UNIT);
	end = end == d->len ? end : round_down_u64(end, CACHE_UNIT);
	while (off < end) {
		uint64_t no = off / CACHE_FRAME;
		uint32_t in = (uint32_t)(off % CACHE_FRAME);
		uint32_t here = (uint32_t)min_u64(end - off, CACHE_FRAME - in);
		uint16_t units = units_of(in, in + here);
		struct shard *s = shard_of(d, no);
		struct frame *f;

		lock_take(&s->mu);
		while ((f = frame_find(s, d, no)) && (units & (f->claimed | f->writing)))
			shard_wait(s);
		if (f) {
			frame_clear_dirty(d->cache, f, units);
			f->valid = (uint16_t)(f->valid & ~units);
			shard_wake(s);
		}
		lock_drop(&s->mu);
		off += here;
	}
}

void cache_stats(struct cache *c, struct cache_stats *st)
{
	*st = (struct cache_stats){
		.limit = c->limit,
		.used = atomic_load(&c->used_frames) * CACHE_FRAME,
		.dirty = atomic_load(&c->dirty_units) * CACHE_UNIT,
		.writebacks = atomic_load(&c->writebacks),
		.throttled = atomic_load(&c->throttled),
		.bytes_read = atomic_load(&c->bytes_read),
		.bytes_written = atomic_load(&c->bytes_written),
	};
	for (uint32_t i = 0; i < c->nshards; i++) {
		struct shard *s = &c->shard[i];

		lock_take(&s->mu);
		st->hits += s->hits;
		st->misses += s->misses;
		st->evictions += s->evictions;
		lock_drop(&s->mu);
	}
}

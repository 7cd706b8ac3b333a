/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pin.c - making ranges readable: hits without a lock, fills together
 *
 * A range that is in memory is pinned by cache_pin() itself. Anything else goes through pin_slow():
 *
 *     get every frame -> [ claim what nobody has claimed -> read it in one batch -> set it valid ]
 *                        [ wait for what others have claimed, look again ]  until all is valid
 *
 * Claims are never held while waiting (rules 4 and 5 of cache_int.h), so two readers of overlapping ranges each read their
 * part, and each unit is read once.
 */
#include "vhd/cache/cache_int.h"

#include <errno.h>
#include <string.h>

#define MEMORY_WAIT_MS 10
#define MEMORY_GIVE_UP_MS 5000u
#define READ_SEGS 17u /* cache_read() copies by the MiB */

void count_lookups(struct cache *c, unsigned hits, unsigned misses, unsigned flags)
{
	static atomic_uint next;
	static _Thread_local unsigned mine;

	if (__builtin_expect(!mine, 0))
		mine = 1 + atomic_fetch_add_explicit(&next, 1, memory_order_relaxed) % STRIPES;
	if (hits)
		atomic_fetch_add_explicit(&c->stripe[mine - 1].hits, hits, memory_order_relaxed);
	if (hits && flags & CACHE_META)
		atomic_fetch_add_explicit(&c->stripe[mine - 1].hits_meta, hits, memory_order_relaxed);
	if (misses)
		atomic_fetch_add_explicit(&c->stripe[mine - 1].misses, misses, memory_order_relaxed);
}

int memory_wait(struct cache *c, uint32_t *since)
{
	uint32_t now = now_ms() | 1;

	if (!*since)
		*since = now;
	if (now - *since > MEMORY_GIVE_UP_MS)
		return -ENOMEM;
	wb_kick(c, true);
	lock_take(&c->wb.mu);
	/* A pin that goes wakes nobody: hence the short time. */
	cond_wait_ms(&c->wb.done, &c->wb.mu, MEMORY_WAIT_MS);
	lock_drop(&c->wb.mu);
	return 0;
}

/* ---- filling ---------------------------------------------------------------------------------------------------- */

/* What a filler claimed becomes valid, or absent again. */
static void fill_done(struct frame *f, uint16_t units, bool ok)
{
	struct shard *s = frame_shard(f);

	lock_take(&s->mu);
	f->busy &= (uint16_t)~units;
	f->coming &= (uint16_t)~units;
	if (ok)
		atomic_fetch_or_explicit(&f->valid, units, memory_order_release);
	shard_wake(s);
	lock_drop(&s->mu);
}

static int batch_fill(struct batch *b)
{
	int err = b->nio ? batch_read(b) : 0;

	for (unsigned i = 0; i < b->nrun; i++)
		fill_done(b->run[i].f, b->run[i].units, !b->io[b->run[i].io].result);
	return err;
}

/* The same for somebody who waits: the disk is not idle meanwhile. */
static int batch_fill_now(struct batch *b)
{
	struct cache *c = b->d->c;
	int err;

	atomic_fetch_add_explicit(&c->demand, 1, memory_order_relaxed);
	err = batch_fill(b);
	atomic_store_explicit(&c->demand_ms, now_ms(), memory_order_relaxed);
	atomic_fetch_sub_explicit(&c->demand, 1, memory_order_relaxed);
	return err;
}

int fill_claimed(struct cache_dev *d, struct frame *f, uint16_t units)
{
	struct batch b;

	batch_init(&b, d);
	batch_add(&b, f, units);
	return batch_fill_now(&b);
}

enum claim { CLAIM_OK, CLAIM_WAIT, CLAIM_GONE, CLAIM_STALE };

/* Claim what is absent of @want. *claimed may be less than what is missing when the answer is CLAIM_WAIT. */
static enum claim claim_missing(struct frame *f, uint16_t want, bool ahead, uint16_t *claimed)
{
	struct shard *s = frame_shard(f);
	uint16_t missing, can = 0;
	enum claim r = CLAIM_OK;

	lock_take(&s->mu);
	missing = want & (uint16_t)~atomic_load_explicit(&f->valid, memory_order_relaxed);
	if (frame_is_gone(f)) {
		r = CLAIM_GONE;
	} else if (missing) {
		can = missing & (uint16_t) ~(f->busy | f->writing);
		if (!frame_stale_free(s, f, can)) {
			can = 0;
			r = CLAIM_STALE;
		} else if (can != missing) {
			r = CLAIM_WAIT;
		}
		f->busy |= can;
		if (ahead)
			f->coming |= can;
		else if (missing & f->coming)
			atomic_fetch_add_explicit(&f->c->ahead_late, (unsigned)__builtin_popcount(missing & f->coming),
						  memory_order_relaxed);
	}
	lock_drop(&s->mu);
	*claimed = can;
	return r;
}

/* Sleep while somebody else is at work on what is missing of @want. */
static void wait_missing(struct frame *f, uint16_t want)
{
	struct shard *s = frame_shard(f);

	lock_take(&s->mu);
	while (!frame_is_gone(f) &&
	       (want & (uint16_t)~atomic_load_explicit(&f->valid, memory_order_relaxed) & (f->busy | f->writing)))
		shard_wait(s);
	lock_drop(&s->mu);
}

/* ---- pinning ---------------------------------------------------------------------------------------------------- */

/* The part of a request that falls into its i-th frame. */
static inline uint32_t piece(uint64_t off, uint64_t len, unsigned i, uint32_t *from)
{
	uint32_t first = (uint32_t)off & (CACHE_FRAME - 1);
	uint64_t start = i ? ((uint64_t)i << FRAME_SHIFT) - first : 0;

	*from = i ? 0 : first;
	return (uint32_t)min_u64(len - start, CACHE_FRAME - *from);
}

static inline void seg_set(struct cache_seg *seg, struct frame *f, uint32_t from, uint32_t len)
{
	*seg = (struct cache_seg){.base = f->base + from, .len = len, .pin = f};
}

void cache_unpin(struct cache_seg *seg, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (seg[i].pin)
			frame_unpin(seg[i].pin);
		seg[i].pin = NULL;
	}
}

/* How far one attempt of pin_slow() came. */
enum attempt { TRY_DONE, TRY_AGAIN, TRY_MEMORY };

struct pinning {
	struct cache_dev *d;
	uint64_t off;
	uint32_t len;
	unsigned flags;
	struct cache_seg *seg;
	unsigned n;      /* frames */
	unsigned missed; /* of them not wholly in memory, at the first look */
	int err;
};

static enum attempt pin_frames(struct pinning *p, unsigned *got)
{
	uint32_t no = (uint32_t)(p->off >> FRAME_SHIFT), from;

	for (*got = 0; *got < p->n; (*got)++) {
		struct cache_dev *in;
		struct frame *f;
		uint32_t len = piece(p->off, p->len, *got, &from);

		if (!(f = share_find(p->d, no + *got, &in)) && frame_get(in, no + *got, p->d->c->nframes * 4, &f) < 0)
			return TRY_MEMORY;
		seg_set(&p->seg[*got], f, from, len);
	}
	return TRY_DONE;
}

/* One round over all frames: claim, read, set valid. *blocked: a frame that others are at work on, or n. */
static enum attempt fill_frames(struct pinning *p, unsigned *blocked)
{
	enum attempt r = TRY_DONE;
	unsigned missed = 0;
	struct batch b;

	*blocked = p->n;
	batch_init(&b, p->d);
	for (unsigned i = 0; i < p->n && r == TRY_DONE && !p->err; i++) {
		struct frame *f = p->seg[i].pin;
		uint32_t from;
		uint32_t len = piece(p->off, p->len, i, &from);
		uint16_t want = units_touched(from, len), claimed = 0;

		if ((atomic_load_explicit(&f->valid, memory_order_acquire) & want) == want)
			continue;
		missed++;
		switch (claim_missing(f, want, false, &claimed)) {
		case CLAIM_OK:
			break;
		case CLAIM_WAIT:
			*blocked = i;
			break;
		case CLAIM_GONE:
			r = TRY_AGAIN;
			break;
		case CLAIM_STALE:
			*blocked = i;
			r = TRY_AGAIN;
			break;
		}
		if (claimed) {
			struct cache_dev *in = share_dev_of(p->d, f);

			if (in != b.d) {
				p->err = b.nio ? batch_fill_now(&b) : 0;
				batch_init(&b, in);
			}
			batch_add(&b, f, claimed);
		}
		if (!batch_has_room(&b)) {
			int err = batch_fill_now(&b);

			p->err = p->err ? p->err : err;
			batch_init(&b, b.d);
		}
	}
	if (b.nio) {
		int err = batch_fill_now(&b);

		p->err = p->err ? p->err : err;
	}
	if (!p->missed)
		p->missed = missed;
	return r;
}

/* With all frames pinned: until everything is valid. */
static enum attempt fill_all(struct pinning *p)
{
	for (;;) {
		unsigned blocked;
		enum attempt r = fill_frames(p, &blocked);

		if (p->err || (r == TRY_DONE && blocked == p->n))
			return TRY_DONE;
		if (r == TRY_AGAIN && blocked < p->n)
			return frame_replace(share_dev_of(p->d, p->seg[blocked].pin), p->seg[blocked].pin,
					     p->d->c->nframes * 4) < 0
				       ? TRY_MEMORY
				       : TRY_AGAIN;
		if (r != TRY_DONE)
			return r;
		uint32_t from;
		uint32_t len = piece(p->off, p->len, blocked, &from);

		wait_missing(p->seg[blocked].pin, units_touched(from, len));
	}
}

static int pin_slow(struct pinning *p)
{
	uint32_t since = 0;

	for (;;) {
		unsigned got;
		enum attempt r = pin_frames(p, &got);

		if (r == TRY_DONE)
			r = fill_all(p);
		if (r == TRY_DONE && !p->err)
			return 0;
		cache_unpin(p->seg, got);
		if (p->err)
			return p->err;
		if (r == TRY_MEMORY) {
			int err = memory_wait(p->d->c, &since);

			if (err < 0)
				return err;
		}
	}
}

/* All pieces of a range that begins at @off are used. True: some had been read ahead. */
static inline bool touch_all(struct cache_seg *seg, uint64_t off, unsigned n, unsigned flags)
{
	uint32_t from = (uint32_t)off & (CACHE_FRAME - 1);
	bool ahead = false;

	for (unsigned i = 0; i < n; i++) {
		ahead |= frame_touch(seg[i].pin, units_touched(from, seg[i].len), flags);
		from = 0;
	}
	return ahead;
}

/* Off the path of those that are not traced. */
static __attribute__((noinline)) void trace(struct cache_dev *d, uint64_t off, unsigned n)
{
	static _Atomic uint64_t last;

	for (unsigned i = 0; i < n; i++) {
		uint64_t key = frame_key(d, (uint32_t)(off >> FRAME_SHIFT) + i);

		if (atomic_exchange_explicit(&last, key, memory_order_relaxed) != key)
			fprintf(d->c->trace, "%u %u\n", (unsigned)(key >> 32), (unsigned)key);
	}
}

int cache_pin(struct cache_dev *d, uint64_t off, uint32_t len, unsigned flags, struct cache_seg *seg, unsigned max)
{
	uint64_t no = off >> FRAME_SHIFT;
	struct pinning p;
	unsigned n, i;

	if (!len || !range_ok(off, len, d->len))
		return -EINVAL;
	n = (unsigned)(((off + len - 1) >> FRAME_SHIFT) - no + 1);
	if (n > max)
		return -EINVAL;
	for (i = 0; i < n; i++) {
		struct cache_dev *in;
		struct frame *f = share_find(d, (uint32_t)no + i, &in);
		uint32_t from;
		uint32_t part = piece(off, len, i, &from);
		uint16_t want = units_touched(from, part);

		if (!f)
			break;
		if ((atomic_load_explicit(&f->valid, memory_order_seq_cst) & want) != want) {
			frame_unpin(f);
			break;
		}
		seg_set(&seg[i], f, from, part);
	}
	if (i == n) {
		/* Only now: a read that has to come back would count twice. */
		if (touch_all(seg, off, n, flags))
			atomic_fetch_add_explicit(&d->c->reads_saved, 1, memory_order_relaxed);
		count_lookups(d->c, n, 0, flags);
		if (__builtin_expect(d->c->trace != NULL, 0))
			trace(d, off, n);
		return (int)n;
	}
	cache_unpin(seg, i);
	if (flags & CACHE_NOWAIT)
		return -EAGAIN;
	if (n > d->c->nframes / 2)
		return -ENOMEM;
	if (__builtin_expect(d->c->trace != NULL, 0))
		trace(d, off, n);
	p = (struct pinning){.d = d, .off = off, .len = len, .flags = flags, .seg = seg, .n = n};
	int err = pin_slow(&p);

	if (err < 0)
		return err;
	touch_all(seg, off, n, flags);
	count_lookups(d->c, n - p.missed, p.missed, flags);
	return (int)n;
}

/* ---- reading ahead ----------------------------------------------------------------------------------------------- */

/* A frame of a piece, and what of it is wanted. */
struct ahead_frame {
	struct frame *f;
	struct ahead_piece *p;
	uint16_t want;
};

/* The frames of all pieces, pinned, as many as there is memory for. */
static unsigned ahead_frames(struct cache_dev *d, struct ahead_piece *p, unsigned n, struct ahead_frame *af)
{
	unsigned got = 0;

	for (unsigned i = 0; i < n; i++) {
		uint64_t end = p[i].off + p[i].len;

		for (uint64_t at = p[i].off; at < end && got < AHEAD_FRAMES;) {
			uint64_t base = at & ~(uint64_t)(CACHE_FRAME - 1), to = min_u64(end, base + CACHE_FRAME);
			uint32_t no = (uint32_t)(at >> FRAME_SHIFT);
			struct cache_dev *in;
			struct frame *f = share_find(d, no, &in);

			if (!f && frame_get(in, no, d->c->nframes * 4, &f) < 0)
				return got;
			af[got++] = (struct ahead_frame){
				.f = f,
				.want = units_touched((uint32_t)(at - base), (uint32_t)(to - at)),
				.p = &p[i],
			};
			at = to;
		}
	}
	return got;
}

static void ahead_read(struct batch *b)
{
	if (b->nio)
		batch_fill(b);
	for (unsigned i = 0; i < b->nrun; i++)
		if (b->io[b->run[i].io].result)
			frame_ahead_failed(b->run[i].f, b->run[i].units);
}

void pin_ahead(struct cache_dev *d, struct ahead_piece *p, unsigned n)
{
	struct ahead_frame af[AHEAD_FRAMES];
	unsigned got = ahead_frames(d, p, n, af);
	struct batch b;

	batch_init(&b, d);
	for (unsigned i = 0; i < got; i++) {
		struct frame *f = af[i].f;
		struct cache_dev *in = share_dev_of(d, f);
		uint16_t claimed = 0;

		/* Whoever is at work on the rest needs no help. */
		claim_missing(f, af[i].want, true, &claimed);
		if (!claimed)
			continue;
		/* Now: whoever waits for it must find that it was read ahead. */
		frame_ahead_add(f, claimed, d, af[i].p);
		if (in != b.d || !batch_has_room(&b)) {
			ahead_read(&b);
			batch_init(&b, in);
		}
		batch_add(&b, f, claimed);
	}
	ahead_read(&b);
	for (unsigned i = 0; i < got; i++)
		frame_unpin(af[i].f);
}

int cache_read(struct cache_dev *d, void *buf, size_t len, uint64_t off, unsigned flags)
{
	uint8_t *to = buf;

	if (!range_ok(off, len, d->len))
		return -EINVAL;
	while (len) {
		struct cache_seg seg[READ_SEGS];
		uint32_t part = (uint32_t)min_u64(len, (READ_SEGS - 1) * CACHE_FRAME);
		int n;

		/* A large read must not ask for more than a small cache can hold at once. */
		part = (uint32_t)min_u64(part, (uint64_t)(d->c->nframes / 4) << FRAME_SHIFT);
		n = cache_pin(d, off, part, flags, seg, READ_SEGS);
		if (n < 0)
			return n;
		for (int i = 0; i < n; i++) {
			memcpy(to, seg[i].base, seg[i].len);
			to += seg[i].len;
		}
		cache_unpin(seg, (unsigned)n);
		off += part;
		len -= part;
	}
	return 0;
}

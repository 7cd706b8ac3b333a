/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * writeback.c - dirty units reach the image
 *
 *     frame on cache_dev.dirty  <=>  some unit of it is dirty or writing
 *
 * The list is in the order in which frames became dirty. The cache's thread takes from its head what is older than age_ms
 * or, when more than dirty_bg frames are dirty, as many as are too many; sorts them by number, so that neighbours become
 * one transfer, and writes them in batches of up to 8 MiB. From dirty_hard frames on writers wait for it. It counts in
 * frames, not bytes: a frame with one dirty unit cannot be evicted either.
 *
 * cache_writeback() and cache_flush() write on the caller's thread what is dirty in their ranges and wait for what others
 * are writing there; so does nothing that was dirty when they began stay behind.
 *
 * When a transfer fails its units are dirty again, nothing is dropped. The device counts as failing until a transfer
 * succeeds: it is tried again ever more rarely (1 s … 30 s), and its writers get the error as soon as it holds dirty_bg
 * frames, so that other devices keep room.
 */
#include "vhd/cache/cache_int.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vhd/base/log.h"

#define TICK_MS 250
#define BACKOFF_MIN_MS 1000u
#define BACKOFF_MAX_MS 30000u
#define BACKOFF_FULL_MS 2000u /* when only the host has no room */
#define PENDING 32

uint32_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
	return (uint32_t)t.tv_sec * 1000u + (uint32_t)(t.tv_nsec / 1000000);
}

/* ---- what is dirty; under the frame's shard lock ---------------------------------------------------------------- */

static uint16_t unclean(struct frame *f)
{
	return atomic_load_explicit(&f->dirty, memory_order_relaxed) | f->writing;
}

/* The frame's dirty or writing units were @was: bring counters and list up to date. */
static void account(struct cache_dev *d, struct frame *f, uint16_t was)
{
	struct cache *c = d->c;
	uint16_t is = unclean(f);
	int diff = __builtin_popcount(is) - __builtin_popcount(was);

	if (diff)
		atomic_fetch_add_explicit(&c->dirty_units, (uint64_t)(int64_t)diff, memory_order_relaxed);
	if (!was == !is)
		return;
	lock_take(&d->dirty_mu);
	if (is) {
		f->dirtied_ms = now_ms();
		list_push_back(&d->dirty, &f->dl);
	} else {
		list_del(&f->dl);
	}
	/* release: who finds nothing dirty any more may look at the image. */
	atomic_fetch_add_explicit(&d->ndirty, is ? 1u : -1u, memory_order_release);
	lock_drop(&d->dirty_mu);
	if (atomic_fetch_add_explicit(&c->dirty_frames, is ? 1u : -1u, memory_order_relaxed) >= c->dirty_bg && is)
		wb_kick(c, false);
}

void frame_set_dirty(struct cache_dev *d, struct frame *f, uint16_t units)
{
	uint16_t was = unclean(f);

	atomic_fetch_or_explicit(&f->dirty, units, memory_order_relaxed);
	account(d, f, was);
}

/* Under the frame's shard lock. */
static void let_go(struct frame *f, uint16_t units)
{
	uint16_t was = atomic_fetch_and_explicit(&f->held, (uint16_t)~units, memory_order_relaxed);

	if (was && !(was & (uint16_t)~units))
		atomic_fetch_sub_explicit(&f->c->held_frames, 1, memory_order_relaxed);
}

void frame_forget_dirty(struct cache_dev *d, struct frame *f, uint16_t units)
{
	uint16_t was = unclean(f);

	atomic_fetch_and_explicit(&f->dirty, (uint16_t)~units, memory_order_relaxed);
	let_go(f, units);
	account(d, f, was);
}

void frame_move_dirty(struct cache_dev *d, struct frame *from, struct frame *to)
{
	uint16_t dirty = atomic_exchange_explicit(&from->dirty, 0, memory_order_relaxed);

	assert(!from->writing);
	if (!dirty)
		return;
	atomic_store_explicit(&to->dirty, dirty, memory_order_relaxed);
	atomic_store_explicit(&to->held, atomic_exchange_explicit(&from->held, 0, memory_order_relaxed),
			      memory_order_relaxed);
	lock_take(&d->dirty_mu);
	to->dirtied_ms = from->dirtied_ms;
	list_insert_between(&to->dl, &from->dl, from->dl.next);
	list_del(&from->dl);
	lock_drop(&d->dirty_mu);
}

/* Dirty units of @want go to the image now; the caller has to write them. */
static uint16_t frame_take_dirty(struct frame *f, uint16_t want)
{
	uint16_t units = want & atomic_load_explicit(&f->dirty, memory_order_relaxed) & (uint16_t)~f->writing &
			 (uint16_t)~atomic_load_explicit(&f->held, memory_order_relaxed);

	f->writing |= units;
	atomic_fetch_and_explicit(&f->dirty, (uint16_t)~units, memory_order_relaxed);
	return units;
}

static void frame_written(struct cache_dev *d, struct frame *f, uint16_t units, bool ok)
{
	struct shard *s = frame_shard(f);
	uint16_t was;

	lock_take(&s->mu);
	was = unclean(f);
	f->writing &= (uint16_t)~units;
	if (!ok) /* but not what was discarded meanwhile */
		atomic_fetch_or_explicit(&f->dirty, units & atomic_load_explicit(&f->valid, memory_order_relaxed),
					 memory_order_relaxed);
	account(d, f, was);
	if (unclean(f)) {
		/* Written again meanwhile, or not written: young again. */
		lock_take(&d->dirty_mu);
		f->dirtied_ms = now_ms();
		list_del(&f->dl);
		list_push_back(&d->dirty, &f->dl);
		lock_drop(&d->dirty_mu);
	}
	shard_wake(s);
	lock_drop(&s->mu);
}

/* ---- batches ---------------------------------------------------------------------------------------------------- */

/* A writeback under way. Frames in the batch hold one pin for each run. */
struct writer {
	struct cache_dev *d;
	bool background; /* leaves alone what others are writing */
	int err;
	unsigned npend;
	struct {
		uint32_t no;
		uint16_t units;
	} pend[PENDING]; /* others were writing some of these units */
	struct batch b;
};

/* Remember how it went, and say so once. */
static void device_result(struct cache_dev *d, int err, uint64_t off)
{
	int was = atomic_load_explicit(&d->failing, memory_order_relaxed);

	if (!was == !err)
		return;
	was = atomic_exchange(&d->failing, err);
	dev_enter(d);
	if (err && !was)
		log_error("%s: cannot write back at byte %llu: %s; the data is kept and will be tried again",
			  vhd_path(d->v), (unsigned long long)off, strerror(-err));
	else if (!err && was)
		log_info("%s: writing back works again", vhd_path(d->v));
	/* Nothing was lost: the next commit need not hear of it. */
	if (!err)
		atomic_store(&d->err, 0);
	dev_leave(d);
}

static void writer_submit(struct writer *w)
{
	struct cache *c = w->d->c;
	struct batch *b = &w->b;
	unsigned bad = 0;
	int err;

	if (!b->nrun)
		return;
	err = batch_write(b);
	for (unsigned i = 0; i < b->nrun; i++) {
		struct batch_run *r = &b->run[i];
		bool ok = !b->io[r->io].result;

		frame_written(w->d, r->f, r->units, ok);
		frame_unpin(r->f);
		if (!ok)
			bad = r->io;
	}
	device_result(w->d, err, b->io[bad].off);
	atomic_fetch_add_explicit(&c->writebacks, 1, memory_order_relaxed);
	w->err = w->err ? w->err : err;
	batch_init(b, w->d);
	lock_take(&c->wb.mu);
	cond_broadcast(&c->wb.done);
	lock_drop(&c->wb.mu);
}

/* Take what is dirty of @want of a frame into the batch. When others are writing some of it, and that matters, nothing is
 * taken and the frame is returned, pinned, to be waited for. */
static struct frame *writer_try(struct writer *w, uint32_t no, uint16_t want)
{
	unsigned before;
	struct frame *f;
	struct shard *s;
	uint16_t units;
	bool conflict;

	if (!batch_has_room(&w->b))
		writer_submit(w);
	for (;;) {
		f = frame_find(w->d, no);
		if (!f)
			return NULL;
		s = frame_shard(f);
		lock_take(&s->mu);
		if (!frame_is_gone(f))
			break;
		/* Replaced: its dirty units have moved on. */
		lock_drop(&s->mu);
		frame_unpin(f);
	}
	conflict = !w->background && (f->writing & want);
	units = conflict ? 0 : frame_take_dirty(f, want);
	lock_drop(&s->mu);
	if (conflict)
		return f;
	before = w->b.nrun;
	batch_add(&w->b, f, units);
	while (++before < w->b.nrun)
		frame_pin(f);
	if (!units)
		frame_unpin(f);
	return NULL;
}

static void writer_drain(struct writer *w)
{
	writer_submit(w);
	for (unsigned i = 0; i < w->npend; i++) {
		uint16_t want = w->pend[i].units;
		struct frame *f;

		while ((f = writer_try(w, w->pend[i].no, want))) {
			struct shard *s = frame_shard(f);

			/* Somebody may wait for what we hold (rule 4). */
			writer_submit(w);
			lock_take(&s->mu);
			while (f->writing & want)
				shard_wait(s);
			lock_drop(&s->mu);
			frame_unpin(f);
		}
	}
	w->npend = 0;
	writer_submit(w);
}

static void writer_frame(struct writer *w, uint32_t no, uint16_t want)
{
	struct frame *f = writer_try(w, no, want);

	if (!f)
		return;
	frame_unpin(f);
	if (w->npend == PENDING)
		writer_drain(w);
	w->pend[w->npend].no = no;
	w->pend[w->npend++].units = want;
}

static void writer_init(struct writer *w, struct cache_dev *d, bool background)
{
	w->d = d;
	w->background = background;
	w->err = 0;
	w->npend = 0;
	batch_init(&w->b, d);
}

static int cmp_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* ---- on the caller's thread ------------------------------------------------------------------------------------- */

static void writer_range(struct writer *w, uint64_t off, uint64_t len, uint64_t no)
{
	uint64_t base = no << FRAME_SHIFT, from = max_u64(off, base), to = min_u64(off + len, base + CACHE_FRAME);

	if (from < to)
		writer_frame(w, (uint32_t)no, units_touched((uint32_t)(from - base), (uint32_t)(to - from)));
}

/* Numbers of the frames now on the dirty list, sorted. -ENOMEM. */
static int dirty_snapshot(struct cache_dev *d, uint32_t **out, uint32_t *n)
{
	uint32_t room = atomic_load_explicit(&d->ndirty, memory_order_relaxed);

	for (;;) {
		uint32_t *no = malloc(((size_t)room + 64) * sizeof *no), want = room + 64;

		if (!no)
			return -ENOMEM;
		*n = 0;
		lock_take(&d->dirty_mu);
		room = atomic_load_explicit(&d->ndirty, memory_order_relaxed);
		if (room <= want)
			list_for_each (it, &d->dirty)
				no[(*n)++] = frame_no(list_entry(it, struct frame, dl));
		lock_drop(&d->dirty_mu);
		if (room <= want) {
			qsort(no, *n, sizeof *no, cmp_u32);
			*out = no;
			return 0;
		}
		free(no);
	}
}

int cache_writeback_ranges(struct cache_dev *d, const struct cache_range *r, unsigned n)
{
	AUTO(freep) uint32_t *no = NULL;
	uint64_t frames = 0;
	struct writer w;
	uint32_t nno = 0;
	int err;

	for (unsigned i = 0; i < n; i++) {
		if (!range_ok(r[i].off, r[i].len, d->len))
			return -EINVAL;
		frames += (r[i].len >> FRAME_SHIFT) + 2;
	}
	if (!atomic_load_explicit(&d->ndirty, memory_order_acquire))
		return 0;
	/* Large ranges: look at what is dirty rather than at every number. */
	if (frames > 64 && frames / 4 > atomic_load_explicit(&d->ndirty, memory_order_relaxed) &&
	    (err = dirty_snapshot(d, &no, &nno)) < 0)
		return err;
	writer_init(&w, d, false);
	for (unsigned i = 0; i < n; i++) {
		uint64_t first = r[i].off >> FRAME_SHIFT, end = (r[i].off + r[i].len + CACHE_FRAME - 1) >> FRAME_SHIFT;

		if (!r[i].len)
			continue;
		if (no) {
			for (uint32_t k = 0; k < nno; k++)
				if (no[k] >= first && no[k] < end)
					writer_range(&w, r[i].off, r[i].len, no[k]);
		} else {
			for (uint64_t k = first; k < end; k++)
				writer_range(&w, r[i].off, r[i].len, k);
		}
	}
	writer_drain(&w);
	return w.err;
}

void cache_release(struct cache_dev *d, uint64_t off, uint64_t len)
{
	while (len) {
		uint32_t from = (uint32_t)off & (CACHE_FRAME - 1), here = (uint32_t)min_u64(len, CACHE_FRAME - from);
		struct frame *f = frame_find(d, (uint32_t)(off >> FRAME_SHIFT));

		/* A frame with something held does not leave; the index may have a newer one of its number, though. */
		while (f) {
			struct shard *s = frame_shard(f);
			bool gone;

			lock_take(&s->mu);
			gone = frame_is_gone(f);
			if (!gone)
				let_go(f, units_touched(from, here));
			lock_drop(&s->mu);
			frame_unpin(f);
			f = gone ? frame_find(d, (uint32_t)(off >> FRAME_SHIFT)) : NULL;
		}
		off += here;
		len -= here;
	}
}

/* The first of @units that is dirty becomes `writing`, so that nobody else writes it meanwhile; it stays dirty. Its frame, pinned, and
 * in *units what is left to look at; NULL: none is, any more. Not only what is held: what was held a moment ago, and so was left out,
 * may be dirty still, or on its way. */
static struct frame *around_begin(struct cache_dev *d, uint32_t no, uint16_t *units, uint16_t *unit)
{
	struct frame *f;

	while ((f = frame_find(d, no))) {
		struct shard *s = frame_shard(f);
		uint16_t todo = 0;
		bool gone;

		lock_take(&s->mu);
		while (!(gone = frame_is_gone(f)) && f->writing & *units)
			shard_wait(s);
		if (!gone)
			todo = *units & atomic_load_explicit(&f->dirty, memory_order_relaxed);
		*unit = todo & (uint16_t)-todo;
		f->writing |= *unit;
		lock_drop(&s->mu);
		if (*unit) {
			*units = todo & (uint16_t) ~*unit;
			return f;
		}
		frame_unpin(f);
		if (!gone)
			return NULL;
	}
	return NULL;
}

static void around_end(struct cache_dev *d, struct frame *f, uint16_t unit)
{
	struct shard *s = frame_shard(f);
	uint16_t was;

	lock_take(&s->mu);
	was = unclean(f);
	f->writing &= (uint16_t)~unit;
	account(d, f, was);
	shard_wake(s);
	lock_drop(&s->mu);
}

/* The bytes [from, from + len) of a frame, where a unit of them is dirty: out to the image, from a copy. */
static int write_around(struct cache_dev *d, uint32_t no, uint32_t from, uint32_t len)
{
	uint16_t units = units_touched(from, len), unit;
	_Alignas(512) uint8_t copy[CACHE_UNIT];
	struct frame *f;
	int err = 0;

	while (!err && units && (f = around_begin(d, no, &units, &unit))) {
		uint32_t at = (uint32_t)__builtin_ctz(unit) << UNIT_SHIFT, end = at + CACHE_UNIT;

		at = at > from ? at : from;
		end = end < from + len ? end : from + len;
		memcpy(copy, f->base + at, end - at);
		dev_enter(d);
		err = vhd_write(d->v, copy, end - at, d->start + ((uint64_t)no << FRAME_SHIFT) + at);
		dev_leave(d);
		around_end(d, f, unit);
		frame_unpin(f);
	}
	return err;
}

int cache_writeback_held(struct cache_dev *d, const struct cache_range *r, unsigned n)
{
	int err = 0;

	for (unsigned i = 0; i < n; i++)
		if (!range_ok(r[i].off, r[i].len, d->len))
			return -EINVAL;
	for (unsigned i = 0; i < n && !err; i++)
		for (uint64_t off = r[i].off, end = off + r[i].len, next; off < end && !err; off = next) {
			uint64_t no = off >> FRAME_SHIFT;

			next = min_u64(end, (no + 1) << FRAME_SHIFT);
			err = write_around(d, (uint32_t)no, (uint32_t)off & (CACHE_FRAME - 1), (uint32_t)(next - off));
		}
	return err;
}

/* Offsets become those of the image. */
static int direct_range(struct cache_dev *d, struct vhd_io *io, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		uint64_t len = 0;

		for (int k = 0; k < io[i].niov; k++)
			if (!add_ok(len, (uint64_t)io[i].iov[k].iov_len, &len))
				return -EINVAL;
		if (!range_ok(io[i].off, len, d->len))
			return -EINVAL;
	}
	for (unsigned i = 0; i < n; i++)
		io[i].off += d->start;
	return 0;
}

int cache_write_direct(struct cache_dev *d, struct vhd_io *io, unsigned n)
{
	int err = d->writable ? direct_range(d, io, n) : -EROFS;

	if (err)
		return err;
	dev_enter(d);
	err = vhd_writev(d->v, io, n);
	dev_leave(d);
	return err;
}

int cache_readv_direct(struct cache_dev *d, struct vhd_io *io, unsigned n)
{
	int err = direct_range(d, io, n);

	if (err)
		return err;
	dev_enter(d);
	err = vhd_readv(d->v, io, n);
	dev_leave(d);
	return err;
}

int cache_read_direct(struct cache_dev *d, void *buf, uint64_t len, uint64_t off)
{
	struct iovec iov = {buf, len};
	struct vhd_io io = {.off = off, .iov = &iov, .niov = 1};

	return len ? cache_readv_direct(d, &io, 1) : 0;
}

int cache_writeback(struct cache_dev *d, uint64_t off, uint64_t len)
{
	struct cache_range r = {off, len};

	return cache_writeback_ranges(d, &r, 1);
}

int cache_flush(struct cache_dev *d)
{
	int err;

	if (!d->writable)
		return 0;
	err = cache_writeback(d, 0, d->len);
	return err ? err : cache_flush_device(d);
}

int cache_flush_device(struct cache_dev *d)
{
	int err;

	if (!d->writable)
		return 0;
	dev_enter(d);
	err = vhd_flush(d->v);
	dev_leave(d);
	return err;
}

int cache_dev_error(struct cache_dev *d)
{
	return atomic_load_explicit(&d->err, memory_order_relaxed) ? atomic_exchange(&d->err, 0) : 0;
}

/* ---- throttling ------------------------------------------------------------------------------------------------- */

/* Frames that the failing devices keep dirty. */
static uint32_t failing_frames(struct cache *c)
{
	uint32_t n = 0;

	lock_take(&c->mu);
	list_for_each (it, &c->devs) {
		struct cache_dev *d = list_entry(it, struct cache_dev, link);

		if (atomic_load_explicit(&d->failing, memory_order_relaxed))
			n += atomic_load_explicit(&d->ndirty, memory_order_relaxed);
	}
	lock_drop(&c->mu);
	return n;
}

static bool too_dirty(struct cache *c)
{
	uint32_t dirty = atomic_load_explicit(&c->dirty_frames, memory_order_relaxed), failed, room;
	uint32_t held = atomic_load_explicit(&c->held_frames, memory_order_relaxed);

	/* What a journal holds back comes free by its commit, which may wait for the very writer that would wait here. */
	dirty -= held < dirty ? held : dirty;
	if (dirty < c->dirty_hard)
		return false;
	failed = failing_frames(c);
	/* What cannot be written takes no more than its share of the room; the others keep a little. */
	room = c->dirty_hard > failed ? c->dirty_hard - failed : 0;
	return dirty >= failed + max_u64(room, c->nframes / 16);
}

int wb_throttle(struct cache_dev *d, unsigned flags)
{
	struct cache *c = d->c;
	bool counted = false;
	int err;

	for (;;) {
		err = atomic_load_explicit(&d->failing, memory_order_relaxed);
		if (__builtin_expect(err, 0) && atomic_load_explicit(&d->ndirty, memory_order_relaxed) >= c->dirty_bg)
			return err;
		if (__builtin_expect(!too_dirty(c), 1))
			return 0;
		wb_kick(c, false);
		if (!counted)
			atomic_fetch_add_explicit(&c->throttled, 1, memory_order_relaxed);
		counted = true;
		if (flags & CACHE_NOWAIT)
			return -EAGAIN;
		lock_take(&c->wb.mu);
		cond_wait_ms(&c->wb.done, &c->wb.mu, 100);
		lock_drop(&c->wb.mu);
	}
}

bool cache_is_full(struct cache_dev *d)
{
	return too_dirty(d->c);
}

bool cache_holds_much(struct cache_dev *d, uint64_t more)
{
	return atomic_load_explicit(&d->c->held_frames, memory_order_relaxed) + more > d->c->nframes / 4;
}

/* ---- the thread ------------------------------------------------------------------------------------------------- */

void wb_kick(struct cache *c, bool urgent)
{
	struct writeback *wb = &c->wb;

	if (!urgent && atomic_load_explicit(&wb->kick_seen, memory_order_relaxed))
		return;
	lock_take(&wb->mu);
	wb->kicked = true;
	wb->urgent |= urgent;
	atomic_store_explicit(&wb->kick_seen, true, memory_order_relaxed);
	cond_signal(&wb->kick);
	lock_drop(&wb->mu);
}

/* Nothing of it can go to the image now. A guess: the list keeps the frame alive, the masks may change. */
static bool all_held(struct frame *f)
{
	uint16_t held = atomic_load_explicit(&f->held, memory_order_relaxed);

	return held && !(atomic_load_explicit(&f->dirty, memory_order_relaxed) & (uint16_t)~held);
}

/* Frames of the device whose time has come: the aged ones, and @surplus of the oldest. */
static uint32_t collect(struct cache_dev *d, uint32_t surplus, uint32_t *no)
{
	uint32_t age = atomic_load_explicit(&d->c->age_ms, memory_order_relaxed), now = now_ms(), n = 0;

	lock_take(&d->dirty_mu);
	list_for_each (it, &d->dirty) {
		struct frame *f = list_entry(it, struct frame, dl);

		if (all_held(f))
			continue;
		if (n >= surplus && (int32_t)(now - f->dirtied_ms) < (int32_t)age)
			break;
		no[n++] = frame_no(f);
		if (n == d->c->nframes)
			break;
	}
	lock_drop(&d->dirty_mu);
	return n;
}

static void wb_device(struct cache_dev *d, struct writer *w, bool urgent)
{
	struct cache *c = d->c;
	uint32_t dirty = atomic_load_explicit(&c->dirty_frames, memory_order_relaxed), surplus = 0, n, now = now_ms();

	if (atomic_load_explicit(&d->failing, memory_order_relaxed)) {
		if (!d->backoff_ms) {
			d->backoff_ms = BACKOFF_MIN_MS;
			d->retry_at_ms = now + d->backoff_ms;
		}
		if ((int32_t)(now - d->retry_at_ms) < 0)
			return;
	} else {
		d->backoff_ms = 0;
	}
	if (urgent)
		surplus = UINT32_MAX;
	else if (dirty >= c->dirty_bg)
		surplus = dirty - c->dirty_bg / 2;
	n = collect(d, surplus, c->wb.scratch);
	qsort(c->wb.scratch, n, sizeof *c->wb.scratch, cmp_u32);
	writer_init(w, d, true);
	for (uint32_t i = 0; i < n && !w->err; i++)
		writer_frame(w, c->wb.scratch[i], ALL_UNITS);
	writer_submit(w);
	if (w->err) {
		int none = 0;

		atomic_compare_exchange_strong(&d->err, &none, w->err);
		d->backoff_ms = (uint32_t)min_u64(d->backoff_ms ? d->backoff_ms * 2 : BACKOFF_MIN_MS,
						  w->err == -ENOSPC ? BACKOFF_FULL_MS : BACKOFF_MAX_MS);
		d->retry_at_ms = now + d->backoff_ms;
	}
}

/* A device that has not had its turn in this round, kept from being freed; NULL when all have. */
static struct cache_dev *next_device(struct cache *c, struct cache_dev *last)
{
	struct cache_dev *found = NULL;

	lock_take(&c->mu);
	if (last && --last->users == 0)
		cond_broadcast(&c->dev_idle);
	if (!last)
		c->rounds++;
	list_for_each (it, &c->devs) {
		struct cache_dev *d = list_entry(it, struct cache_dev, link);

		if (d->round != c->rounds && !found) {
			d->round = c->rounds;
			d->users++;
			found = d;
		}
	}
	lock_drop(&c->mu);
	return found;
}

static void *wb_main(void *arg)
{
	struct cache *c = arg;
	struct writeback *wb = &c->wb;
	struct writer w;
	bool stop, urgent;

	do {
		lock_take(&wb->mu);
		if (!wb->stop && !wb->kicked)
			cond_wait_ms(&wb->kick, &wb->mu, TICK_MS);
		stop = wb->stop;
		urgent = wb->urgent;
		wb->urgent = wb->kicked = false;
		atomic_store_explicit(&wb->kick_seen, false, memory_order_relaxed);
		lock_drop(&wb->mu);
		for (struct cache_dev *d = next_device(c, NULL); d; d = next_device(c, d))
			wb_device(d, &w, urgent);
	} while (!stop);
	return NULL;
}

int wb_start(struct cache *c)
{
	struct writeback *wb = &c->wb;

	wb->scratch = malloc((size_t)c->nframes * sizeof *wb->scratch);
	if (!wb->scratch)
		return -ENOMEM;
	lock_init(&wb->mu);
	cond_init(&wb->kick);
	cond_init(&wb->done);
	if (!pthread_create(&wb->thread, NULL, wb_main, c))
		return 0;
	cond_fini(&wb->done);
	cond_fini(&wb->kick);
	lock_fini(&wb->mu);
	free(TAKE(wb->scratch));
	return -ENOMEM;
}

void wb_stop(struct cache *c)
{
	struct writeback *wb = &c->wb;

	if (!wb->scratch)
		return;
	lock_take(&wb->mu);
	wb->stop = true;
	cond_signal(&wb->kick);
	lock_drop(&wb->mu);
	pthread_join(wb->thread, NULL);
	cond_fini(&wb->done);
	cond_fini(&wb->kick);
	lock_fini(&wb->mu);
	free(TAKE(wb->scratch));
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * write.c - bytes go into frames
 *
 * Of one frame, a write covers some units wholly and up to two partly:
 *
 *         unit 3     unit 4     unit 5     unit 6
 *     . . . . # # # # # # # # # # # # # # # . . . .      `edge`: units 3 and 6, must be valid first
 *                \ covered wholly /                      absent ones are claimed, valid ones just overwritten
 *
 *     begin:  claim, count ourselves as a writer         (shard lock)
 *     copy                                               (no lock)
 *     end:    claimed units valid, all dirty, wake       (shard lock)
 *
 * A write that must not wait begins on all its frames before it copies a byte, so that it can still give up. One that may
 * wait goes frame by frame; when it fails, a part of the range may have been written.
 */
#include "vhd/cache/cache_int.h"

#include <errno.h>
#include <string.h>

#define NOWAIT_FRAMES 34u /* 2 MiB and unaligned */

#if defined(__SANITIZE_THREAD__)
#define TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TSAN 1
#endif
#endif

/* Bytes of a valid unit may be read (by a reply being sent, by a transfer to the image) while they are written: the
 * interface says so, and rule 3 makes up for it. The sanitizer need not hear of it. */
#ifdef TSAN
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);
#define RACY_WRITES_BEGIN() AnnotateIgnoreWritesBegin(__FILE__, __LINE__)
#define RACY_WRITES_END() AnnotateIgnoreWritesEnd(__FILE__, __LINE__)
#else
#define RACY_WRITES_BEGIN() ((void)0)
#define RACY_WRITES_END() ((void)0)
#endif

/* Where the bytes come from; iov NULL: zeros. */
struct source {
	const struct iovec *iov;
	size_t at; /* bytes of *iov already taken */
};

/* The part of a write in one frame. */
struct part {
	struct frame *f;
	uint32_t from, len;
	uint16_t covered, edge; /* units */
	uint16_t claimed;
};

static void copy_in(uint8_t *to, size_t len, struct source *src)
{
	RACY_WRITES_BEGIN();
	if (!src->iov)
		memset(to, 0, len);
	while (src->iov && len) {
		size_t n = src->iov->iov_len - src->at;

		if (n > len)
			n = len;
		memcpy(to, (const uint8_t *)src->iov->iov_base + src->at, n);
		to += n;
		len -= n;
		src->at += n;
		if (src->at == src->iov->iov_len) {
			src->iov++;
			src->at = 0;
		}
	}
	RACY_WRITES_END();
}

static void part_init(struct part *w, struct cache_dev *d, uint64_t off, uint64_t len, uint32_t *no)
{
	*no = (uint32_t)(off >> FRAME_SHIFT);
	*w = (struct part){.from = (uint32_t)off & (CACHE_FRAME - 1)};
	w->len = (uint32_t)min_u64(len, CACHE_FRAME - w->from);
	w->covered = units_covered(w->from, w->len, frame_bytes(d, *no));
	w->edge = units_touched(w->from, w->len) & (uint16_t)~w->covered;
}

enum begin { BEGIN_OK, BEGIN_WAIT, BEGIN_GONE, BEGIN_STALE, BEGIN_FILL };

/* BEGIN_OK: w->claimed is ours and we count as a writer, until part_end(). BEGIN_FILL: w->claimed are absent edges, ours
 * to fill. Otherwise nothing was claimed. */
static enum begin part_begin(struct part *w, bool hold)
{
	struct frame *f = w->f;
	struct shard *s = frame_shard(f);
	uint16_t absent, need;
	enum begin r = BEGIN_OK;

	lock_take(&s->mu);
	absent = (uint16_t)~atomic_load_explicit(&f->valid, memory_order_relaxed);
	need = absent & (w->covered | w->edge);
	w->claimed = 0;
	if (frame_is_gone(f))
		r = BEGIN_GONE;
	else if (need & (f->busy | f->writing) || (hold && f->writing & (w->covered | w->edge)))
		r = BEGIN_WAIT;
	else if (!frame_stale_free(s, f, w->covered | w->edge))
		r = BEGIN_STALE;
	else if (need & w->edge)
		r = BEGIN_FILL;
	if (r == BEGIN_OK || r == BEGIN_FILL) {
		w->claimed = need & (r == BEGIN_FILL ? w->edge : w->covered);
		f->busy |= w->claimed;
	}
	if (r == BEGIN_OK)
		f->writers++;
	/* From now on, that is before the first new byte is there. */
	if (r == BEGIN_OK && hold && !atomic_fetch_or_explicit(&f->held, w->covered | w->edge, memory_order_relaxed))
		atomic_fetch_add_explicit(&f->c->held_frames, 1, memory_order_relaxed);
	lock_drop(&s->mu);
	return r;
}

static void part_wait(struct part *w, bool hold)
{
	struct frame *f = w->f;
	struct shard *s = frame_shard(f);

	lock_take(&s->mu);
	while (!frame_is_gone(f) &&
	       (((w->covered | w->edge) & (uint16_t)~atomic_load_explicit(&f->valid, memory_order_relaxed) &
		 (f->busy | f->writing)) ||
		(hold && f->writing & (w->covered | w->edge))))
		shard_wait(s);
	lock_drop(&s->mu);
}

/* @copied: the bytes are there; else the claims are given back. Drops the pin. */
static void part_end(struct cache_dev *d, struct part *w, bool copied)
{
	struct frame *f = w->f;
	struct shard *s = frame_shard(f);

	lock_take(&s->mu);
	f->writers--;
	f->busy &= (uint16_t)~w->claimed;
	if (copied) {
		uint16_t valid = atomic_fetch_or_explicit(&f->valid, w->claimed, memory_order_release) | w->claimed;

		/* Not what was discarded while we copied: it may be somebody else's claim by now (rule 1). */
		frame_set_dirty(d, f, (w->covered | w->edge) & valid);
	}
	shard_wake(s);
	lock_drop(&s->mu);
	frame_unpin(f);
}

static int write_nowait(struct cache_dev *d, uint64_t off, uint64_t len, struct source src, unsigned flags)
{
	struct part w[NOWAIT_FRAMES];
	unsigned n = 0;
	bool ok = true;

	if (len > (uint64_t)(NOWAIT_FRAMES - 2) << FRAME_SHIFT)
		return -EAGAIN;
	while (len && ok) {
		struct part *p = &w[n];
		uint32_t no;

		part_init(p, d, off, len, &no);
		/* A frame that would have to be read first is not worth memory here. */
		p->f = p->edge ? frame_find(d, no) : NULL;
		if (!p->f && (p->edge || frame_get(d, no, EVICT_QUICK, &p->f) < 0)) {
			ok = false;
			break;
		}
		switch (part_begin(p, false)) {
		case BEGIN_OK:
			n++;
			break;
		case BEGIN_FILL:
			/* Give the edges back: count as the writer that part_end() ends. */
			lock_take(&frame_shard(p->f)->mu);
			p->f->writers++;
			lock_drop(&frame_shard(p->f)->mu);
			part_end(d, p, false);
			ok = false;
			break;
		default:
			frame_unpin(p->f);
			ok = false;
		}
		off += p->len;
		len -= p->len;
	}
	for (unsigned i = 0; i < n; i++) {
		if (ok) {
			copy_in(w[i].f->base + w[i].from, w[i].len, &src);
			frame_touch(w[i].f, w[i].covered | w[i].edge, flags);
		}
		part_end(d, &w[i], ok);
	}
	if (ok)
		count_lookups(d->c, n, 0, flags);
	return ok ? 0 : -EAGAIN;
}

/* Get as far as BEGIN_OK, waiting for whatever it takes. */
static int part_begin_wait(struct cache_dev *d, struct part *w, uint32_t no, bool hold, unsigned *misses)
{
	uint32_t since = 0;
	int err;

	for (;;) {
		if (!w->f && frame_get(d, no, d->c->nframes * 4, &w->f) < 0) {
			if ((err = memory_wait(d->c, &since)) < 0)
				return err;
			continue;
		}
		switch (part_begin(w, hold)) {
		case BEGIN_OK:
			return 0;
		case BEGIN_WAIT:
			part_wait(w, hold);
			continue;
		case BEGIN_FILL:
			++*misses;
			if ((err = fill_claimed(d, w->f, w->claimed)) < 0) {
				frame_unpin(w->f);
				return err;
			}
			continue;
		case BEGIN_STALE:
			err = frame_replace(d, w->f, d->c->nframes * 4);
			frame_unpin(TAKE(w->f));
			if (err < 0 && (err = memory_wait(d->c, &since)) < 0)
				return err;
			continue;
		case BEGIN_GONE:
			frame_unpin(TAKE(w->f));
			continue;
		}
	}
}

static int write_wait(struct cache_dev *d, uint64_t off, uint64_t len, struct source src, unsigned flags)
{
	while (len) {
		unsigned misses = 0;
		struct part w;
		uint32_t no;
		int err;

		/* Not what is held back: the operation is half done, and only its commit lets others go on. */
		if (!(flags & CACHE_HOLD) && (err = wb_throttle(d, flags)) < 0)
			return err;
		part_init(&w, d, off, len, &no);
		if ((err = part_begin_wait(d, &w, no, flags & CACHE_HOLD, &misses)) < 0)
			return err;
		copy_in(w.f->base + w.from, w.len, &src);
		frame_touch(w.f, w.covered | w.edge, flags);
		part_end(d, &w, true);
		count_lookups(d->c, !misses, misses != 0, flags);
		off += w.len;
		len -= w.len;
	}
	return 0;
}

static int write_any(struct cache_dev *d, uint64_t off, uint64_t len, const struct iovec *iov, unsigned flags)
{
	struct source src = {.iov = iov};
	int err;

	if (!d->writable)
		return -EROFS;
	if (!range_ok(off, len, d->len))
		return -EINVAL;
	if (!len)
		return 0;
	if (!(flags & CACHE_NOWAIT))
		return write_wait(d, off, len, src, flags);
	if ((err = wb_throttle(d, flags)) < 0)
		return err;
	return write_nowait(d, off, len, src, flags);
}

int cache_write(struct cache_dev *d, const void *buf, size_t len, uint64_t off, unsigned flags)
{
	union {
		const void *in;
		void *out; /* an iovec cannot say that it is only read */
	} u = {.in = buf};
	struct iovec iov = {.iov_base = u.out, .iov_len = len};

	return write_any(d, off, len, &iov, flags);
}

int cache_writev(struct cache_dev *d, const struct iovec *iov, int niov, size_t len, uint64_t off, unsigned flags)
{
	size_t sum = 0;

	for (int i = 0; i < niov; i++)
		if (!add_ok(sum, iov[i].iov_len, &sum))
			return -EINVAL;
	return sum < len ? -EINVAL : write_any(d, off, len, iov, flags);
}

int cache_zero(struct cache_dev *d, uint64_t off, uint64_t len, unsigned flags)
{
	return write_any(d, off, len, NULL, flags);
}

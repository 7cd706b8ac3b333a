/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * frame.c - frames: the index, memory on demand, replacement and discard
 *
 * Index: buckets of singly linked chains; changed under the shard's lock, walked without. Memory: address space for all
 * frames is reserved at the start and made accessible slab by slab, so a small working set stays small; freed frames are
 * used again before new ones, the last freed first. A slab is one huge page where the slab before it was filled, and small
 * pages where it was not.
 *
 *     made, on the free list --frame_get--> in the index, on a queue --policy_evict / frame_drop--> free list
 *                 DEAD                        pins >= 0             \--frame_drop while pinned--> GONE --unpin--> free list
 */
#include "vhd/cache/cache_int.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/* ---- memory ----------------------------------------------------------------------------------------------------- */

/*
 * Are frames filled at present, or only a unit here and there? The slab made last tells. A huge page costs one fault instead
 * of 512. But random reads of 4 KiB leave 60 of a frame's 64 KiB untouched: with huge pages these would be resident as
 * well, sixteen times what was read. Frames whose first bytes are still on their way say nothing: readahead has a whole slab
 * under way at times. The first slab is for metadata, and all that an idle server uses.
 */
static bool slab_dense(struct cache *c, struct pool *p) REQUIRES(p->mu)
{
	unsigned units = 0, frames = 0;

	if (!p->made)
		return false;
	for (uint32_t i = p->made - SLAB_FRAMES; i < p->made; i++) {
		unsigned n = (unsigned)__builtin_popcount(
			atomic_load_explicit(&c->frames[i].valid, memory_order_relaxed));

		units += n;
		frames += n > 0;
	}
	return units * 2 >= frames * UNITS;
}

static bool pool_grow(struct cache *c, struct pool *p) REQUIRES(p->mu)
{
	uint32_t n = (uint32_t)min_u64(SLAB_FRAMES, c->nframes - p->made);
	uint8_t *slab = p->arena + ((size_t)p->made << FRAME_SHIFT);

	if (!n || mprotect(slab, (size_t)n << FRAME_SHIFT, PROT_READ | PROT_WRITE) < 0)
		return false;
	/* Advice: a kernel without huge pages, or told never to use them, gives small ones. */
	(void)madvise(slab, (size_t)n << FRAME_SHIFT, slab_dense(c, p) ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	/* In reverse, so that the lowest is used first. */
	for (uint32_t i = n; i-- > 0;) {
		struct frame *f = &c->frames[p->made + i];

		f->c = c;
		f->base = slab + ((size_t)i << FRAME_SHIFT);
		list_init(&f->dl);
		atomic_init(&f->pins, PIN_DEAD);
		list_push_front(&p->free, &f->q);
	}
	p->nfree += n;
	p->made += n;
	return true;
}

/* A dead frame, or NULL when none comes free within @evict_steps looks at the queues. */
struct frame *frame_alloc(struct cache *c, unsigned evict_steps)
{
	struct pool *p = &c->pool;
	struct frame *f = NULL;

	lock_take(&p->mu);
	if (!list_empty(&p->free) || pool_grow(c, p)) {
		f = list_first(&p->free, struct frame, q);
		list_del(&f->q);
		p->nfree--;
	}
	lock_drop(&p->mu);
	return f ? f : policy_evict(c, evict_steps);
}

void frame_free(struct frame *f)
{
	struct pool *p = &f->c->pool;

	lock_take(&p->mu);
	list_push_front(&p->free, &f->q);
	p->nfree++;
	lock_drop(&p->mu);
}

/* The last pin of a frame that is gone was dropped. Others may pin and unpin it at this moment, having found it in an old
 * chain: whoever makes it dead frees it. */
void frame_bury(struct frame *f)
{
	unsigned none = PIN_GONE;

	if (atomic_compare_exchange_strong_explicit(&f->pins, &none, PIN_DEAD, memory_order_acquire,
						    memory_order_relaxed))
		frame_free(f);
}

/* ---- index ------------------------------------------------------------------------------------------------------ */

static struct frame *hash_find(struct cache *c, uint64_t key)
{
	struct frame *f = atomic_load_explicit(&c->buckets[key_bucket(c, key)], memory_order_relaxed);

	while (f && atomic_load_explicit(&f->key, memory_order_relaxed) != key)
		f = atomic_load_explicit(&f->next, memory_order_relaxed);
	return f;
}

static void hash_add(struct cache *c, struct frame *f)
{
	struct frame *_Atomic *head = &c->buckets[key_bucket(c, atomic_load_explicit(&f->key, memory_order_relaxed))];

	atomic_store_explicit(&f->next, atomic_load_explicit(head, memory_order_relaxed), memory_order_release);
	atomic_store_explicit(head, f, memory_order_release);
}

/* The shard's lock is held. The frame keeps its own link: somebody may stand on it. */
void hash_del(struct cache *c, struct frame *f)
{
	struct frame *_Atomic *at = &c->buckets[key_bucket(c, atomic_load_explicit(&f->key, memory_order_relaxed))];
	struct frame *e = atomic_load_explicit(at, memory_order_relaxed);

	while (e && e != f) {
		at = &e->next;
		e = atomic_load_explicit(at, memory_order_relaxed);
	}
	if (e)
		atomic_store_explicit(at, atomic_load_explicit(&f->next, memory_order_relaxed), memory_order_release);
}

/* A dead frame becomes the empty frame of a key, with one pin. */
static void frame_reset(struct frame *f, uint64_t key)
{
	atomic_store_explicit(&f->key, key, memory_order_relaxed);
	atomic_store_explicit(&f->valid, 0, memory_order_relaxed);
	atomic_store_explicit(&f->touched, 0, memory_order_relaxed);
	atomic_store_explicit(&f->freq, 0, memory_order_relaxed);
	atomic_store_explicit(&f->cls, CLS_DATA, memory_order_relaxed);
	atomic_store_explicit(&f->dirty, 0, memory_order_relaxed);
	atomic_store_explicit(&f->held, 0, memory_order_relaxed);
	atomic_store_explicit(&f->reader, 0, memory_order_relaxed);
	atomic_store_explicit(&f->ahead, 0, memory_order_relaxed);
	f->writing = f->busy = f->stale = f->coming = 0;
	f->writers = 0;
	/* Not a store: pins that came by mistake are about to go. */
	atomic_fetch_sub_explicit(&f->pins, PIN_DEAD - 1, memory_order_release);
}

struct frame *frame_find(struct cache_dev *d, uint32_t no)
{
	uint64_t key = frame_key(d, no);
	struct shard *s = key_shard(d->c, key);
	struct frame *f = frame_lookup(d->c, key);

	if (f)
		return f;
	lock_take(&s->mu);
	f = hash_find(d->c, key);
	if (f)
		frame_pin(f);
	lock_drop(&s->mu);
	return f;
}

int frame_get(struct cache_dev *d, uint32_t no, unsigned evict_steps, struct frame **out)
{
	struct cache *c = d->c;
	uint64_t key = frame_key(d, no);
	struct shard *s = key_shard(c, key);
	struct frame *fresh, *f = frame_find(d, no);

	if (f) {
		*out = f;
		return 0;
	}
	fresh = frame_alloc(c, evict_steps);
	if (!fresh)
		return -EAGAIN;
	lock_take(&s->mu);
	f = hash_find(c, key);
	if (f) {
		frame_pin(f);
	} else {
		f = TAKE(fresh);
		frame_reset(f, key);
		hash_add(c, f);
		policy_insert(c, f);
	}
	lock_drop(&s->mu);
	if (fresh)
		frame_free(fresh);
	*out = f;
	return 0;
}

/* ---- leaving ---------------------------------------------------------------------------------------------------- */

void frame_drop(struct shard *s, struct frame *f)
{
	(void)s;
	assert(!f->busy && !f->writing && !f->writers && !atomic_load(&f->dirty));
	frame_ahead_gone(f, ALL_UNITS);
	hash_del(f->c, f);
	policy_remove(f->c, f);
	if (!(atomic_fetch_or_explicit(&f->pins, PIN_GONE, memory_order_acq_rel) & PIN_COUNT))
		frame_bury(f);
	shard_wake(s);
}

bool frame_stale_free(struct shard *s, struct frame *f, uint16_t units)
{
	(void)s;
	if (!(f->stale & units))
		return true;
	/* When ours is the only one, no reader is left. New pins cover no stale unit that is not valid. */
	if ((atomic_load_explicit(&f->pins, memory_order_seq_cst) & PIN_COUNT) > 1)
		return false;
	f->stale = 0;
	return true;
}

int frame_replace(struct cache_dev *d, struct frame *f, unsigned evict_steps)
{
	struct cache *c = d->c;
	struct shard *s = frame_shard(f);
	struct frame *to = frame_alloc(c, evict_steps);

	if (!to)
		return -EAGAIN;
	lock_take(&s->mu);
	/* What is under way ends without us (rule 4). */
	while (!frame_is_gone(f) && (f->busy || f->writing || f->writers))
		shard_wait(s);
	if (frame_is_gone(f) || frame_stale_free(s, f, f->stale)) {
		lock_drop(&s->mu);
		frame_free(to);
		return 0;
	}
	frame_reset(to, atomic_load_explicit(&f->key, memory_order_relaxed));
	/* Under the lock: 64 KiB, and only when freed blocks are used again while a reply with their old bytes is
	 * being sent. */
	memcpy(to->base, f->base, CACHE_FRAME);
	atomic_store_explicit(&to->valid, atomic_load_explicit(&f->valid, memory_order_relaxed), memory_order_release);
	atomic_store_explicit(&to->touched, atomic_load_explicit(&f->touched, memory_order_relaxed),
			      memory_order_relaxed);
	atomic_store_explicit(&to->freq, atomic_load_explicit(&f->freq, memory_order_relaxed), memory_order_relaxed);
	atomic_store_explicit(&to->cls, atomic_load_explicit(&f->cls, memory_order_relaxed), memory_order_relaxed);
	atomic_store_explicit(&to->reader, atomic_load_explicit(&f->reader, memory_order_relaxed),
			      memory_order_relaxed);
	atomic_store_explicit(&to->ahead, atomic_exchange_explicit(&f->ahead, 0, memory_order_relaxed),
			      memory_order_relaxed);
	frame_move_dirty(d, f, to);
	hash_del(c, f);
	hash_add(c, to);
	policy_move(c, f, to);
	/* Our own pin is still there, so this is not the last one. */
	atomic_fetch_or_explicit(&f->pins, PIN_GONE, memory_order_acq_rel);
	shard_wake(s);
	lock_drop(&s->mu);
	frame_unpin(to);
	return 0;
}

/* ---- discard ---------------------------------------------------------------------------------------------------- */

/* @parts: units of which something else stays. */
static void discard_units(struct cache_dev *d, uint32_t no, uint16_t units, uint16_t parts)
{
	uint64_t key = frame_key(d, no);
	struct shard *s = key_shard(d->c, key);
	struct frame *f;
	uint16_t was;

	lock_take(&s->mu);
	f = hash_find(d->c, key);
	if (f) {
		was = atomic_fetch_and_explicit(&f->valid, (uint16_t)~units, memory_order_seq_cst);
		f->stale |= was & units;
		if (atomic_load_explicit(&f->pins, memory_order_seq_cst) & PIN_COUNT)
			f->stale |= was & parts;
		frame_ahead_gone(f, was & units);
		frame_forget_dirty(d, f, units);
		/* busy: the bytes that come are the image's, or a writer's who came after us. */
		if (units && !(was & ~units) && !f->busy && !f->writing && !f->writers)
			frame_drop(s, f);
	}
	lock_drop(&s->mu);
}

void cache_discard(struct cache_dev *d, uint64_t off, uint64_t len)
{
	uint64_t end, first, last;

	if (!len || !range_ok(off, len, d->len))
		return;
	end = off + len;
	first = off >> FRAME_SHIFT;
	last = (end - 1) >> FRAME_SHIFT;
	if (last - first >= 2 * (uint64_t)d->c->nframes) {
		/* More numbers than frames: look at the frames instead. The ends may be partial. */
		for (uint32_t i = 0; i < d->c->nframes; i++) {
			uint64_t key = atomic_load_explicit(&d->c->frames[i].key, memory_order_relaxed);

			if (key >> 32 == d->id && (uint32_t)key > first && (uint32_t)key < last)
				discard_units(d, (uint32_t)key, ALL_UNITS, 0);
		}
	} else {
		for (uint64_t no = first + 1; no < last; no++)
			discard_units(d, (uint32_t)no, ALL_UNITS, 0);
	}
	for (uint64_t no = first; no <= last; no = no == last ? last + 1 : last) {
		uint64_t base = no << FRAME_SHIFT, from = max_u64(off, base), to = min_u64(end, base + CACHE_FRAME);
		uint16_t units = units_covered((uint32_t)(from - base), (uint32_t)(to - from),
					       frame_bytes(d, (uint32_t)no));
		uint16_t touched = units_touched((uint32_t)(from - base), (uint32_t)(to - from));

		discard_units(d, (uint32_t)no, units, touched & (uint16_t)~units);
	}
}

uint64_t frame_drop_all(struct cache_dev *d)
{
	struct cache *c = d->c;
	uint64_t lost = 0;

	for (uint32_t i = 0; i < c->nframes; i++) {
		struct frame *f = &c->frames[i];
		uint64_t key = atomic_load_explicit(&f->key, memory_order_relaxed);
		struct shard *s = key_shard(c, key);

		if (key >> 32 != d->id)
			continue;
		lock_take(&s->mu);
		if (hash_find(c, key) == f) {
			lost += (unsigned)__builtin_popcount(atomic_load_explicit(&f->dirty, memory_order_relaxed));
			frame_forget_dirty(d, f, ALL_UNITS);
			frame_drop(s, f);
		}
		lock_drop(&s->mu);
	}
	return lost;
}

int cache_trim(struct cache_dev *d, uint64_t off, uint64_t len)
{
	int err;

	if (!d->writable)
		return -EROFS;
	if (!range_ok(off, len, d->len))
		return -EINVAL;
	cache_discard(d, off, len);
	dev_enter(d);
	err = vhd_discard(d->v, d->start + off, round_down_u64(len, 512));
	dev_leave(d);
	return err;
}

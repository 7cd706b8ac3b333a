/* SPDX-License-Identifier: BSD-3-Clause */
/* stream.c - see stream.h */
#include "advise/stream.h"

#include "vhd/base/checked.h"

#define WINDOW_MIN (128u << 10)
#define WINDOW_MAX (8u << 20)
#define PATTERNS (ADV_NORMAL | ADV_SEQUENTIAL | ADV_BACKWARDS | ADV_RANDOM)

static uint64_t get(const atomic_uint_least64_t *v)
{
	return atomic_load_explicit(v, memory_order_relaxed);
}

static void put(atomic_uint_least64_t *v, uint64_t x)
{
	atomic_store_explicit(v, x, memory_order_relaxed);
}

/* Offsets go up to the end of 64 bits: sums stop there. */
static uint64_t plus(uint64_t a, uint64_t b)
{
	uint64_t sum;

	return add_ok(a, b, &sum) ? sum : UINT64_MAX;
}

/* Reads of one stream arrive out of order by a few of their own lengths: clients send several at once. */
static bool continues(uint64_t next, uint64_t off, uint32_t len)
{
	uint64_t slack = 4 * (uint64_t)len;

	return off <= plus(next, slack) && plus(off, slack) >= next;
}

static uint64_t window_of(uint32_t mode, uint64_t run)
{
	if (mode & (ADV_SEQUENTIAL | ADV_BACKWARDS))
		return WINDOW_MAX;
	return mode & ADV_RANDOM || run < WINDOW_MIN ? 0 : min_u64(run, WINDOW_MAX);
}

static void forward(struct fs_stream *s, uint32_t mode, uint64_t off, uint32_t len, struct adv_step *step)
{
	uint64_t next = get(&s->next), run = get(&s->run), ahead = get(&s->ahead), window;

	if (run && continues(next, off, len)) {
		run += len;
		next = max_u64(next, off + len);
	} else {
		run = len;
		next = off + len;
		ahead = 0;
	}
	window = run > len || mode & ADV_SEQUENTIAL ? window_of(mode, run) : 0;
	/* Again when half of the window was used: requests of a useful size. */
	if (window && ahead < plus(next, window / 2)) {
		step->ahead_off = max_u64(ahead, next);
		ahead = plus(next, window);
		step->ahead_len = ahead - step->ahead_off;
	}
	put(&s->run, run);
	put(&s->next, next);
	put(&s->ahead, ahead);
}

/* `next` is where the read before began, `ahead` how far down was read ahead. */
static void backward(struct fs_stream *s, uint64_t off, uint32_t len, struct adv_step *step)
{
	uint64_t next = get(&s->next), ahead = get(&s->ahead), low = off > WINDOW_MAX ? off - WINDOW_MAX : 0;

	if (!get(&s->run) || !continues(next, off + len, len))
		ahead = off;
	if (low < ahead && (plus(ahead, WINDOW_MAX / 2) > off || !low)) {
		step->ahead_off = low;
		step->ahead_len = min_u64(ahead, off) - low;
		ahead = low;
	}
	put(&s->run, len);
	put(&s->next, off);
	put(&s->ahead, ahead);
}

void adv_read(struct fs_stream *s, uint64_t off, uint32_t len, struct adv_step *step)
{
	uint32_t mode = atomic_load_explicit(&s->mode, memory_order_relaxed);

	*step = (struct adv_step){.ahead_len = 0};
	if (mode & ADV_BACKWARDS)
		backward(s, off, len, step);
	else
		forward(s, mode, off, len, step);
	if (mode & ADV_NOREUSE) {
		step->drop_off = off;
		step->drop_len = len;
	}
}

uint32_t adv_merge(uint32_t mode, uint32_t hints, uint32_t *followed)
{
	uint32_t pattern = hints & PATTERNS;

	if (pattern & (pattern - 1)) /* two at once */
		pattern = 0;
	if (pattern)
		mode = (mode & ~(uint32_t)PATTERNS) | pattern;
	if (pattern == ADV_NORMAL)
		mode = 0;
	*followed = pattern | (hints & ADV_NOREUSE);
	return mode | (hints & ADV_NOREUSE);
}

void adv_anew(struct fs_stream *s, uint32_t followed)
{
	if (!(followed & PATTERNS))
		return;
	put(&s->run, 0);
	put(&s->ahead, 0);
}

uint32_t adv_hint(struct fs_stream *s, uint32_t hints)
{
	uint32_t followed, mode = adv_merge(atomic_load_explicit(&s->mode, memory_order_relaxed), hints, &followed);

	atomic_store_explicit(&s->mode, mode, memory_order_relaxed);
	adv_anew(s, followed);
	return followed;
}

void adv_forget(struct fs_stream *s)
{
	if (atomic_load_explicit(&s->mode, memory_order_relaxed))
		atomic_store_explicit(&s->mode, 0, memory_order_relaxed);
}

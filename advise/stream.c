/* SPDX-License-Identifier: BSD-3-Clause */
/* stream.c - see stream.h */
#include "advise/stream.h"

#include <sched.h>
#include <string.h>

#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"

#define WINDOW_MIN (128u << 10)
#define PATTERNS (ADV_NORMAL | ADV_SEQUENTIAL | ADV_BACKWARDS | ADV_RANDOM)
#define ORDERED (ADV_SEQUENTIAL | ADV_BACKWARDS)

#define LONG_RUN (128u << 10)   /* bytes: such a run is not given up for a single read elsewhere */
#define WRONG_RANDOM (1u << 20) /* bytes of a run after which RANDOM is not believed */
#define OLD_READS 64u           /* a run that had no read for so many of the file's is over */
#define DOWN_READS 3u           /* in a row, and it goes downwards */
#define SAME_STEPS 2u           /* and it goes in steps */
#define STEPS_AHEAD 32u         /* reads ahead at most */
#define BEHIND (4u << 20)       /* bytes between the reader and what is given up */
#define DROP_UNIT (1u << 20)    /* and in pieces of that */
#define NO_TRUST 7u
#define DOWN_MAX (16u << 20)
#define DOWN_FIRST (1u << 20) /* bytes of the first window downwards: the part that is needed first comes last */

uint32_t adv_window_max(uint64_t cache_bytes)
{
	return (uint32_t)max_u64(512u << 10, min_u64(cache_bytes / 16, 16u << 20));
}

/* Offsets go up to the end of 64 bits: sums stop there. */
static uint64_t plus(uint64_t a, uint64_t b)
{
	uint64_t sum;

	return add_ok(a, b, &sum) ? sum : UINT64_MAX;
}

static uint64_t minus(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

static bool near(uint64_t a, uint64_t b, uint64_t slack)
{
	return a <= plus(b, slack) && b <= plus(a, slack);
}

/* ---- which run a read belongs to ------------------------------------------------------------------------------------------------ */

/* Reads of one run arrive out of order by a few of their own lengths: clients send several at once. A long run goes on at the end
 * where it is: at the other one somebody begins anew. */
static bool goes_on(const struct fs_run *r, uint64_t off, uint32_t len)
{
	uint64_t slack = 4 * (uint64_t)len;
	bool young = r->bytes < LONG_RUN;

	return ((young || r->dir >= 0) && near(off, r->high, slack)) ||
	       ((young || r->dir <= 0) && near(off + len, r->low, slack));
}

static bool steps_on(const struct fs_run *r, uint64_t off)
{
	return r->step && off - r->last == (uint64_t)r->step;
}

static bool is_long(const struct fs_run *r)
{
	return r->bytes >= LONG_RUN || r->same >= SAME_STEPS;
}

static struct fs_run *find_run(struct fs_stream *s, uint64_t off, uint32_t len)
{
	for (unsigned i = 0; i < FS_RUNS; i++)
		if (s->run[i].bytes && s->run[i].same >= SAME_STEPS && steps_on(&s->run[i], off))
			return &s->run[i];
	for (unsigned i = 0; i < FS_RUNS; i++)
		if (s->run[i].bytes && goes_on(&s->run[i], off, len))
			return &s->run[i];
	for (unsigned i = 0; i < FS_RUNS; i++)
		if (s->run[i].bytes && steps_on(&s->run[i], off))
			return &s->run[i];
	return NULL;
}

/* Of a run in steps: how many of the reads to come were read ahead. */
static uint64_t steps_ahead(const struct fs_run *r)
{
	uint64_t size = r->step < 0 ? -(uint64_t)r->step : (uint64_t)r->step;

	return (r->step < 0 ? minus(r->last, r->ahead) : minus(r->ahead, r->last)) / size;
}

/* Bytes that were read ahead for a run and not read. */
static uint64_t unread(const struct fs_run *r)
{
	if (!r->bytes || !r->window)
		return 0;
	if (r->same >= SAME_STEPS)
		return steps_ahead(r) * (r->high - r->low);
	return r->dir < 0 ? minus(r->low, r->ahead) : minus(r->ahead, r->high);
}

static void end_run(struct fs_stream *s, struct fs_run *r, struct adv_step *step)
{
	uint64_t left = unread(r);

	if (left) {
		s->wasted += left;
		step->unwanted |= 1u << (r - s->run);
		if (left > r->bytes / 2 && s->distrust < NO_TRUST)
			s->distrust++;
	}
	*r = (struct fs_run){.bytes = 0};
}

/* Told that reads follow each other, and they do not: what was begun for one read is given up. Not for the last one but one: two
 * may be under way by turns. */
static void end_false_starts(struct fs_stream *s, struct adv_step *step)
{
	for (unsigned i = 0; i < FS_RUNS; i++)
		if (s->run[i].bytes && !s->run[i].up && !s->run[i].down && s->reads - s->run[i].seen >= 2)
			end_run(s, &s->run[i], step);
}

/* Place for a new run; NULL: all that are there are long, and alive. */
static struct fs_run *new_run(struct fs_stream *s, struct adv_step *step)
{
	struct fs_run *best = NULL;

	for (unsigned i = 0; i < FS_RUNS; i++) {
		struct fs_run *r = &s->run[i];

		if (!r->bytes)
			return r;
		if (is_long(r) && s->reads - r->seen < OLD_READS)
			continue;
		if (!best || s->reads - r->seen > s->reads - best->seen)
			best = r;
	}
	if (best)
		end_run(s, best, step);
	return best;
}

/* Two numbers of reads in a row say which way it goes. */
static void extend(struct fs_run *r, uint64_t off, uint32_t len)
{
	if (off + len > r->high) {
		r->high = off + len;
		r->up = r->up == UINT8_MAX ? r->up : (uint8_t)(r->up + 1);
		r->down = 0;
	} else if (off < r->low) {
		r->down = r->down == UINT8_MAX ? r->down : (uint8_t)(r->down + 1);
		r->up = 0;
	}
	r->low = min_u64(r->low, off);
	if (r->up && r->dir >= 0)
		r->dir = 1;
	if (r->down >= DOWN_READS && r->dir >= 0) {
		r->dir = -1;
		r->ahead = r->low;
	}
	if (r->up >= DOWN_READS && r->dir < 0) {
		r->dir = 1;
		r->ahead = r->high;
	}
}

static void begin(struct fs_stream *s, struct fs_run *r, uint32_t mode, uint64_t off, uint32_t len)
{
	*r = (struct fs_run){.low = off, .high = off + len, .last = off};
	r->dir = mode & ADV_BACKWARDS ? -1 : mode & ADV_SEQUENTIAL ? 1 : 0;
	r->ahead = r->dir < 0 ? off : off + len;
	if (s->reads)
		r->step = (int64_t)(off - s->last);
}

/* ---- how far ahead ---------------------------------------------------------------------------------------------------------------- */

static uint32_t window_of(const struct fs_stream *s, struct fs_run *r, const struct adv_conf *conf, uint32_t mode,
			  uint32_t len, bool late)
{
	uint32_t most = conf->window_max >> s->distrust;
	uint64_t want;

	if (mode & ADV_RANDOM && r->bytes < WRONG_RANDOM)
		return 0;
	if (!(mode & PATTERNS) && !conf->detect)
		return 0;
	if (mode & ORDERED && r->dir == (mode & ADV_BACKWARDS ? -1 : 1) && s->distrust < NO_TRUST)
		return most;
	/* Against what was advised, or without advice: as much as was shown. */
	if (!r->dir || r->bytes <= (uint64_t)len << s->distrust)
		return 0;
	want = max_u64(r->window, min_u64(r->bytes, conf->window_max));
	if (late && r->window)
		want *= 2;
	return (uint32_t)min_u64(max_u64(want, WINDOW_MIN), conf->window_max);
}

/* Where the file ends, as far as that is known. */
static uint64_t end_of(const struct fs_stream *s, const struct adv_step *step)
{
	return s->end_as_of == step->as_of + 1 ? s->end : UINT64_MAX;
}

/* Again when half of the window was used: requests of a useful size. */
static void forward(struct fs_run *r, uint64_t end, struct adv_step *step)
{
	if (r->ahead >= plus(r->high, r->window / 2) || max_u64(r->ahead, r->high) >= end)
		return;
	step->ahead_off = max_u64(r->ahead, r->high);
	r->ahead = min_u64(plus(r->high, r->window), end);
	step->ahead_len = r->ahead - step->ahead_off;
	step->ahead_n = 1;
}

static void backward(struct fs_run *r, uint32_t most, struct adv_step *step)
{
	uint64_t low, top = min_u64(r->ahead, r->low);

	/* A whole window more as soon as the last one is begun: it is read upwards, so each costs a disk with a head two ways. */
	if (r->window && r->low - top >= r->window)
		return;
	r->window = (uint32_t)min_u64(min_u64(2 * (uint64_t)most, DOWN_MAX),
				      max_u64(2 * (uint64_t)r->window, DOWN_FIRST));
	low = minus(top, r->window);
	if (low >= top)
		return;
	step->ahead_off = low;
	step->ahead_len = top - low;
	step->ahead_n = 1;
	step->ahead_down = true;
	r->ahead = low;
}

/* `ahead` is the place of the last read that was read ahead. */
static void steps(struct fs_run *r, const struct adv_conf *conf, uint32_t len, uint64_t end, struct adv_step *step)
{
	uint64_t size = r->step < 0 ? -(uint64_t)r->step : (uint64_t)r->step, reach;
	uint64_t done = r->window ? steps_ahead(r) : 0;
	/* In memory each takes whole frames, one more than its bytes fill when it does not begin with one. */
	uint64_t room = max_u64(1, 2 * (uint64_t)conf->window_max / (round_up_u64(len, CACHE_FRAME) + CACHE_FRAME));
	uint32_t most = (uint32_t)min_u64(min_u64(STEPS_AHEAD, room), 2u << min_u64(r->same, 16)), n;

	if (done * 2 > most || done >= most)
		return;
	n = most - (uint32_t)done;
	/* Not beyond either end. */
	reach = r->step < 0 ? r->last / size : minus(min_u64(UINT64_MAX - len, minus(end, 1)), r->last) / size;
	if (reach <= done)
		return;
	n = (uint32_t)min_u64(n, reach - done);
	step->ahead_off = r->last + (uint64_t)r->step * (done + 1);
	step->ahead_len = len;
	step->ahead_step = r->step;
	step->ahead_n = n;
	r->ahead = r->last + (uint64_t)r->step * (done + n);
	r->window = most * len;
}

/* ---- a read ----------------------------------------------------------------------------------------------------------------------- */

static void passed(uint32_t mode, const struct fs_run *r, uint64_t low, uint64_t high, struct adv_step *step)
{
	uint64_t from, to;

	if (!(mode & ORDERED))
		return;
	if (r->dir > 0) {
		from = round_down_u64(minus(high, BEHIND), DROP_UNIT);
		to = round_down_u64(minus(r->high, BEHIND), DROP_UNIT);
	} else {
		from = round_down_u64(plus(r->low, BEHIND), DROP_UNIT);
		to = round_down_u64(plus(low, BEHIND), DROP_UNIT);
	}
	if (from < to) {
		step->drop_off = from;
		step->drop_len = to - from;
	}
}

static void count_used(struct fs_stream *s, const struct fs_run *r, uint64_t off, uint32_t len)
{
	if (r->window && r->same >= SAME_STEPS)
		s->used += r->step < 0 ? (off >= r->ahead) * len : (off <= r->ahead) * len;
	else if (r->window &&
		 (r->dir < 0 ? off >= r->ahead && off < r->low : off + len <= r->ahead && off + len > r->high))
		s->used += len;
}

static void on_run(struct fs_stream *s, const struct adv_conf *conf, struct fs_run *r, uint32_t mode, uint64_t off,
		   uint32_t len, bool late, struct adv_step *step)
{
	uint64_t low = r->low, high = r->high;
	uint32_t most;
	bool in_steps = r->bytes && steps_on(r, off) && !near(off, r->high, 4 * (uint64_t)len) &&
			!near(off + len, r->low, 4 * (uint64_t)len);

	step->run = (unsigned)(r - s->run);
	count_used(s, r, off, len);
	if (in_steps) {
		r->same = r->same == UINT8_MAX ? r->same : (uint8_t)(r->same + 1);
		r->low = off;
		r->high = off + len;
	} else {
		extend(r, off, len);
	}
	r->bytes = (uint32_t)min_u64((uint64_t)r->bytes + len, UINT32_MAX);
	r->last = off;
	r->seen = s->reads;
	if (r->bytes >= 2 * LONG_RUN && !in_steps)
		s->distrust = 0;
	if (in_steps) {
		if (r->same >= SAME_STEPS && conf->detect && !(mode & ADV_RANDOM))
			steps(r, conf, len, end_of(s, step), step);
	} else if ((most = window_of(s, r, conf, mode, len, late))) {
		if (r->dir < 0) {
			backward(r, most, step);
		} else {
			r->window = most;
			forward(r, end_of(s, step), step);
		}
		passed(mode, r, low, high, step);
	}
	s->ahead += step->ahead_len * step->ahead_n;
}

void adv_read(struct fs_stream *s, const struct adv_conf *conf, uint32_t said, uint64_t off, uint32_t len, bool late,
	      struct adv_step *step)
{
	uint32_t mode = said ? said : atomic_load_explicit(&s->mode, memory_order_relaxed);
	struct fs_run *r;

	*step = (struct adv_step){.as_of = atomic_load_explicit(&s->sized, memory_order_acquire)};
	if (mode & ADV_NOREUSE) {
		step->drop_off = off;
		step->drop_len = len;
	}
	if (!conf->window_max || (!(mode & ~(uint32_t)ADV_NOREUSE) && !conf->detect) ||
	    atomic_flag_test_and_set_explicit(&s->busy, memory_order_acquire))
		return;
	r = find_run(s, off, len);
	if (!r && mode & ORDERED)
		end_false_starts(s, step);
	if (!r && (r = new_run(s, step)))
		begin(s, r, mode, off, len);
	if (r)
		on_run(s, conf, r, mode, off, len, late, step);
	s->last = off;
	s->reads++;
	s->bytes += len;
	atomic_flag_clear_explicit(&s->busy, memory_order_release);
}

/* Of equal steps those before the one that @end lies in were taken on, and that one when it is cut by the file's end. The reader may
 * have gone on meanwhile. */
static void steps_taken(struct fs_run *r, const struct adv_step *step, uint64_t end, bool at_end)
{
	uint64_t by = (uint64_t)step->ahead_step, last;

	if (step->ahead_step > 0) {
		last = step->ahead_off + by * (minus(end, step->ahead_off) / by + at_end - 1);
		r->ahead = max_u64(r->last, min_u64(r->ahead, last));
	} else {
		last = step->ahead_off + by * ((minus(step->ahead_off, end) + (-by - 1)) / -by + at_end - 1);
		r->ahead = min_u64(r->last, max_u64(r->ahead, last));
	}
}

void adv_taken(struct fs_stream *s, const struct adv_step *step, uint64_t end, bool at_end)
{
	struct fs_run *r = &s->run[step->run];

	if (atomic_flag_test_and_set_explicit(&s->busy, memory_order_acquire))
		return;
	if (step->ahead_step && r->step == step->ahead_step)
		steps_taken(r, step, end, at_end);
	else if (step->ahead_down && r->dir < 0)
		r->ahead = min_u64(r->low, max_u64(r->ahead, end));
	else
		r->ahead = max_u64(r->high, min_u64(r->ahead, end));
	if (at_end && !step->ahead_down) {
		s->end = end;
		s->end_as_of = step->as_of + 1;
	}
	atomic_flag_clear_explicit(&s->busy, memory_order_release);
}

/* ---- hints ------------------------------------------------------------------------------------------------------------------------ */

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
	if (!(followed & PATTERNS) || atomic_flag_test_and_set_explicit(&s->busy, memory_order_acquire))
		return;
	memset(s->run, 0, sizeof s->run);
	s->distrust = 0;
	atomic_flag_clear_explicit(&s->busy, memory_order_release);
}

void adv_look(struct fs_stream *s, struct adv_seen *out)
{
	while (atomic_flag_test_and_set_explicit(&s->busy, memory_order_acquire))
		sched_yield();
	*out = (struct adv_seen){
		.distrust = s->distrust, .bytes = s->bytes, .ahead = s->ahead, .used = s->used, .wasted = s->wasted};
	memcpy(out->run, s->run, sizeof out->run);
	atomic_flag_clear_explicit(&s->busy, memory_order_release);
}

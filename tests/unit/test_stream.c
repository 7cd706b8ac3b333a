/* SPDX-License-Identifier: BSD-3-Clause */
/* test_stream.c - what reads and hints say about what comes next: advise/stream.h */
#include <check.h>
#include <stdlib.h>

#include "advise/stream.h"

#define K 1024u
#define M (1024u * 1024u)

static struct fs_stream s;
static struct adv_conf conf;
static bool late;
static unsigned unwanted; /* runs that were given up */
static uint64_t ahead_to; /* how far was read ahead */
static uint64_t asked;    /* bytes */
static unsigned requests;

static void setup(void)
{
	s = (struct fs_stream){.mode = 0};
	conf = (struct adv_conf){.window_max = 8 * M, .detect = true};
	late = false;
	unwanted = 0;
	ahead_to = asked = requests = 0;
}

static struct adv_step rd(uint64_t off, uint32_t len)
{
	struct adv_step step;

	adv_read(&s, &conf, 0, off, len, late, &step);
	unwanted += (unsigned)__builtin_popcount(step.unwanted);
	if (step.ahead_len) {
		asked += step.ahead_len * step.ahead_n;
		requests++;
		ahead_to = step.ahead_off + step.ahead_len;
	}
	return step;
}

/* As an opener's hints come to hold for a file. */
static uint32_t says(struct fs_stream *st, uint32_t hints)
{
	uint32_t followed, mode = adv_merge(atomic_load_explicit(&st->mode, memory_order_relaxed), hints, &followed);

	atomic_store_explicit(&st->mode, mode, memory_order_relaxed);
	adv_anew(st, followed);
	return followed;
}

START_TEST(one_read_says_nothing_and_two_that_continue_each_other_do)
{
	ck_assert_uint_eq(rd(0, 64 * K).ahead_len, 0);
	ck_assert_uint_eq(rd(64 * K, 64 * K).ahead_len, 128 * K);
	ck_assert_uint_eq(ahead_to, 256 * K);
}
END_TEST

/* Nothing twice, nothing left out, in requests that are worth one, and never further than the largest window. */
START_TEST(a_scan_is_read_ahead_without_gaps)
{
	for (uint64_t off = 0; off < 100 * M; off += 64 * K) {
		struct adv_step step = rd(off, 64 * K);

		if (step.ahead_len && requests > 1)
			ck_assert_uint_eq(step.ahead_off + step.ahead_len, ahead_to);
		if (off > M)
			ck_assert_uint_ge(ahead_to, off + 64 * K);
		ck_assert_uint_le(ahead_to, off + 64 * K + 8 * M);
	}
	ck_assert_uint_le(asked, 110 * M);
	ck_assert_uint_lt(requests, 60);
}
END_TEST

/* Clients send several reads at once: they arrive out of order. */
START_TEST(reads_out_of_order_are_one_stream)
{
	static const int order[] = {0, 2, 1, 3, 5, 4, 7, 6, 8};

	for (size_t i = 0; i < sizeof order / sizeof order[0]; i++)
		rd((uint64_t)order[i] * 256 * K, 256 * K);
	ck_assert_uint_ge(ahead_to, 9 * 256 * K);
	ck_assert_uint_le(asked, 4 * 9 * 256 * K);
}
END_TEST

START_TEST(random_reads_are_not_read_ahead)
{
	uint64_t seed = 42;

	for (unsigned i = 0; i < 10000; i++) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		rd((seed >> 33) % (1 << 18) * 4096, 4096);
	}
	ck_assert_uint_eq(asked, 0);
}
END_TEST

START_TEST(a_hint_counts_from_the_first_read_on)
{
	ck_assert_uint_eq(says(&s, ADV_SEQUENTIAL), ADV_SEQUENTIAL);
	ck_assert_uint_eq(rd(10 * M, 64 * K).ahead_len, 8 * M);
	ck_assert_uint_eq(says(&s, ADV_RANDOM), ADV_RANDOM);
	for (uint64_t off = 0; off < 960 * K; off += 64 * K)
		ck_assert_uint_eq(rd(off, 64 * K).ahead_len, 0);
	/* Closing ends it. */
	atomic_store(&s.mode, 0);
	rd(0, 64 * K);
	ck_assert_uint_gt(rd(64 * K, 64 * K).ahead_len, 0);
}
END_TEST

START_TEST(backwards_is_read_ahead_downwards)
{
	uint64_t low = 100 * M;

	ck_assert_uint_eq(says(&s, ADV_BACKWARDS), ADV_BACKWARDS);
	for (uint64_t off = 100 * M; off >= 64 * K;) {
		struct adv_step step;

		off -= 64 * K;
		step = rd(off, 64 * K);
		if (step.ahead_len) {
			/* From where the last one ended, downwards. */
			ck_assert_uint_eq(step.ahead_off + step.ahead_len, low == 100 * M ? off : low);
			low = step.ahead_off;
		}
		ck_assert_uint_le(low, off);
	}
	ck_assert_uint_eq(low, 0);
	ck_assert_uint_le(asked, 100 * M);
}
END_TEST

START_TEST(of_a_contradiction_nothing_is_followed)
{
	ck_assert_uint_eq(says(&s, ADV_SEQUENTIAL | ADV_RANDOM), 0);
	ck_assert_uint_eq(says(&s, ADV_SEQUENTIAL | ADV_BACKWARDS | ADV_NOREUSE), ADV_NOREUSE);
	ck_assert_uint_eq(says(&s, ~0u), ADV_NOREUSE);
	ck_assert_uint_eq(says(&s, 0), 0);
	ck_assert_uint_eq(says(&s, ADV_NORMAL), ADV_NORMAL);
	ck_assert_uint_eq(rd(0, 4096).drop_len, 0);
	says(&s, ADV_NOREUSE);
	ck_assert_uint_eq(rd(4096, 4096).drop_len, 4096);
}
END_TEST

/* ---- more than one run ------------------------------------------------------------------------------------------------------------ */

START_TEST(downwards_is_found_out)
{
	uint64_t low = UINT64_MAX;

	for (uint64_t off = 100 * M; off >= 64 * K; off -= 64 * K) {
		struct adv_step step = rd(off - 64 * K, 64 * K);

		if (step.ahead_len) {
			ck_assert_uint_le(step.ahead_off + step.ahead_len, off);
			low = step.ahead_off;
		}
		if (off < 99 * M)
			ck_assert_uint_lt(low, off);
	}
	ck_assert_uint_eq(low, 0);
	ck_assert_uint_le(asked, 101 * M);
}
END_TEST

START_TEST(equal_steps_are_found_out)
{
	static const int64_t steps[] = {M, -(int64_t)M, 300 * K, 17 * M + 4096};

	for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
		uint64_t off = steps[i] < 0 ? 2000 * (uint64_t)M : 0, ready = 0;
		bool *there = calloc(200, sizeof *there);

		setup();
		ck_assert_ptr_nonnull(there);
		for (unsigned n = 0; n < 100; n++, off += (uint64_t)steps[i]) {
			struct adv_step step = rd(off, 4 * K);

			ready += there[n];
			for (unsigned k = 0; k < step.ahead_n; k++) {
				uint64_t at = step.ahead_off + (uint64_t)step.ahead_step * k;
				uint64_t which = n + (uint64_t)((int64_t)(at - off) / steps[i]);

				ck_assert_uint_eq(step.ahead_len, 4 * K);
				ck_assert_uint_lt(which, 200);
				ck_assert_uint_gt(which, n);
				ck_assert(!there[which]); /* none twice */
				there[which] = true;
			}
		}
		ck_assert_uint_ge(ready, 94);
		ck_assert_uint_le(asked, 150 * 4 * K);
		free(there);
	}
}
END_TEST

/* Three go through one file by turns, one of them downwards: each is read ahead. */
START_TEST(several_readers_of_one_file_are_told_apart)
{
	uint64_t up = 0, up2 = 0, down = UINT64_MAX;

	for (unsigned i = 0; i < 400; i++) {
		uint64_t at = i * 64ull * K;
		struct adv_step step = rd(at, 64 * K);

		if (step.ahead_len)
			up = step.ahead_off + step.ahead_len;
		step = rd(1000 * M + at, 64 * K);
		if (step.ahead_len)
			up2 = step.ahead_off + step.ahead_len;
		step = rd(500 * M - at, 64 * K);
		if (step.ahead_len)
			down = step.ahead_off;
		if (i < 10)
			continue;
		ck_assert_uint_gt(up, at + 64 * K);
		ck_assert_uint_gt(up2, 1000 * M + at + 64 * K);
		ck_assert_uint_lt(down, 500 * M - at);
	}
	ck_assert_uint_eq(unwanted, 0);
}
END_TEST

START_TEST(a_second_scan_is_read_ahead_like_the_first)
{
	for (unsigned round = 0; round < 3; round++)
		for (uint64_t off = 0; off < 20 * M; off += 64 * K) {
			rd(off, 64 * K);
			if (off > M)
				ck_assert_uint_gt(ahead_to, off + 64 * K);
		}
	ck_assert_uint_ge(asked, 3 * 20 * M);
}
END_TEST

/* A single read elsewhere ends no scan. */
START_TEST(a_look_elsewhere_does_not_end_a_run)
{
	uint64_t seed = 3;

	for (unsigned i = 0; i < 1000; i++) {
		rd(i * 64ull * K, 64 * K);
		if (i > 20)
			ck_assert_uint_gt(ahead_to, (i + 1) * 64ull * K);
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		ck_assert_uint_eq(rd(((seed >> 40) + (1u << 24)) * 4096, 4096).ahead_len, 0);
	}
}
END_TEST

/* ---- advice that is wrong ----------------------------------------------------------------------------------------------------------- */

START_TEST(sequential_and_then_random_is_soon_not_believed)
{
	uint64_t seed = 42;

	says(&s, ADV_SEQUENTIAL);
	for (unsigned i = 0; i < 10000; i++) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		rd((seed >> 33) % (1 << 22) * 4096, 4096);
	}
	ck_assert_uint_le(asked, 48 * M);
	ck_assert_uint_ge(unwanted, 5);
	ck_assert_uint_gt(s.wasted, 0);
	/* It is given another chance. */
	for (uint64_t off = 0; off < 20 * M; off += 64 * K)
		rd(off, 64 * K);
	ck_assert_uint_eq(s.distrust, 0);
	ck_assert_uint_ge(ahead_to, 24 * M);
}
END_TEST

START_TEST(backwards_and_then_forwards_is_read_ahead_forwards)
{
	says(&s, ADV_BACKWARDS);
	for (uint64_t off = 500 * M; off < 600 * M; off += 64 * K)
		rd(off, 64 * K);
	ck_assert_uint_gt(ahead_to, 600 * M);
	ck_assert_uint_le(asked, 120 * M);
}
END_TEST

START_TEST(random_and_then_a_long_scan_is_read_ahead)
{
	says(&s, ADV_RANDOM);
	for (uint64_t off = 0; off < 20 * M; off += 64 * K)
		rd(off, 64 * K);
	ck_assert_uint_gt(ahead_to, 20 * M);
	ck_assert_uint_gt(s.used, 15 * M);
}
END_TEST

START_TEST(a_scan_with_a_hint_leaves_what_it_passed)
{
	uint64_t dropped = 0;

	says(&s, ADV_SEQUENTIAL);
	for (uint64_t off = 0; off < 100 * M; off += 64 * K) {
		struct adv_step step = rd(off, 64 * K);

		if (!step.drop_len)
			continue;
		ck_assert_uint_eq(step.drop_off, dropped);
		dropped += step.drop_len;
		ck_assert_uint_lt(dropped, off);
	}
	ck_assert_uint_ge(dropped, 90 * M);
}
END_TEST

/* Who had to wait is helped sooner. */
START_TEST(waiting_makes_the_window_grow)
{
	uint64_t early;

	for (uint64_t off = 0; off < 4 * 64 * K; off += 64 * K)
		rd(off, 64 * K);
	early = ahead_to;
	setup();
	late = true;
	for (uint64_t off = 0; off < 4 * 64 * K; off += 64 * K)
		rd(off, 64 * K);
	ck_assert_uint_gt(ahead_to, early);
}
END_TEST

START_TEST(what_was_not_taken_on_is_asked_for_again)
{
	struct adv_step step;

	says(&s, ADV_SEQUENTIAL);
	step = rd(0, 64 * K);
	ck_assert_uint_eq(step.ahead_len, 8 * M);
	adv_taken(&s, &step, M, false);
	step = rd(64 * K, 64 * K);
	ck_assert_uint_eq(step.ahead_off, M);
}
END_TEST

START_TEST(downwards_what_was_not_taken_on_is_asked_for_again)
{
	struct adv_step step;
	uint64_t low, top;

	says(&s, ADV_BACKWARDS);
	step = rd(100 * M, 64 * K);
	low = step.ahead_off;
	top = low + step.ahead_len;
	ck_assert(step.ahead_down && step.ahead_len > 128 * K);
	/* A part at the lower end was left out; the next one begins there. */
	adv_taken(&s, &step, low + 64 * K, false);
	step = rd(100 * M - 64 * K, 64 * K);
	ck_assert_uint_eq(step.ahead_off + step.ahead_len, low + 64 * K);
	/* Nothing was taken on, and the reader has come further meanwhile. */
	rd(100 * M - 128 * K, 64 * K);
	adv_taken(&s, &step, step.ahead_off + step.ahead_len, false);
	step = rd(100 * M - 192 * K, 64 * K);
	ck_assert(step.ahead_len == 0 || step.ahead_off + step.ahead_len <= top);
}
END_TEST

START_TEST(steps_that_were_not_taken_on_are_asked_for_again)
{
	static const int64_t steps[] = {M, -(int64_t)M, 40 * K, -40 * (int64_t)K};

	for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
		uint64_t off = 2000 * (uint64_t)M;
		unsigned next = 1; /* the first one that was not taken on */

		setup();
		for (unsigned n = 0; n < 200; n++, off += (uint64_t)steps[i]) {
			struct adv_step step = rd(off, 4 * K);
			unsigned taken = n % 5 ? n % 3 : step.ahead_n;

			next = next > n ? next : n + 1;
			if (!step.ahead_n)
				continue;
			ck_assert_int_eq((int64_t)(step.ahead_off - off), steps[i] * (int64_t)(next - n));
			taken = taken < step.ahead_n ? taken : step.ahead_n;
			next += taken;
			/* In the middle of one is none of it, too. */
			if (taken < step.ahead_n)
				adv_taken(&s, &step, step.ahead_off + (uint64_t)steps[i] * taken + (n % 2 ? 2 * K : 0),
					  false);
		}
		ck_assert_uint_gt(next, 199);
	}
}
END_TEST

/* A scan of a file of so many bytes, from @off on. */
static void scan_to(uint64_t off, uint64_t size, uint32_t len, uint64_t each)
{
	for (; off < size; off += each) {
		struct adv_step step = rd(off, (uint32_t)(size - off < len ? size - off : len));
		uint64_t end = step.ahead_off + step.ahead_len + (uint64_t)step.ahead_step * (step.ahead_n - 1);

		if (step.ahead_len && end > size)
			adv_taken(&s, &step, size, true);
	}
}

START_TEST(at_the_end_of_the_file_nothing_more_is_asked_for)
{
	unsigned before;

	says(&s, ADV_SEQUENTIAL);
	scan_to(0, 20 * M, 64 * K, 64 * K);
	before = requests;
	ck_assert_uint_le(requests, 1 + 12 * M / (4 * M) + 1);
	/* Nor by others, and no further than there. */
	scan_to(0, 20 * M, 64 * K, 64 * K);
	ck_assert_uint_le(requests, 2 * before);
	ck_assert_uint_eq(ahead_to, 20 * M);
	/* It was written on. */
	before = requests;
	atomic_fetch_add(&s.sized, 1);
	scan_to(20 * M, 40 * M, 64 * K, 64 * K);
	ck_assert_uint_gt(requests, before);
	ck_assert_uint_ge(ahead_to, 40 * M);
	before = requests;
	rd(40 * M, 4096);
	ck_assert_uint_eq(requests, before);
	/* Cut, and written again. */
	atomic_fetch_add(&s.sized, 1);
	rd(40 * M + 4096, 4096);
	ck_assert_uint_gt(requests, before);
}
END_TEST

/* Of a cache of 4 MiB, where each takes two frames. */
START_TEST(steps_ahead_take_no_more_than_there_is_memory_for)
{
	uint64_t far = 0;

	conf.window_max = adv_window_max(4 * M);
	for (uint64_t off = 0; off < 100 * M; off += 512 * K) {
		struct adv_step step = rd(off, 64 * K);

		if (step.ahead_len)
			far = step.ahead_off + 512 * K * (step.ahead_n - 1ull);
		ck_assert_uint_le(far, off + 8 * 512 * K);
		if (off > 4 * M)
			ck_assert_uint_ge(far, off + 3 * 512 * K);
	}
	ck_assert_uint_gt(far, 0);
}
END_TEST

START_TEST(steps_end_at_the_end_of_the_file)
{
	unsigned before;

	scan_to(0, 20 * M, 64 * K, 512 * K);
	before = requests;
	ck_assert_uint_ge(requests, 1);
	scan_to(0, 20 * M, 64 * K, 512 * K);
	ck_assert_uint_le(requests, 2 * before);
	ck_assert_uint_lt(ahead_to, 20 * M + 64 * K);
}
END_TEST

START_TEST(it_can_be_switched_off)
{
	conf.detect = false;
	for (uint64_t off = 0; off < 10 * M; off += 64 * K)
		rd(off, 64 * K);
	ck_assert_uint_eq(asked, 0);
	says(&s, ADV_SEQUENTIAL);
	rd(0, 64 * K);
	ck_assert_uint_eq(asked, 8 * M);
	conf.window_max = 0;
	setup();
	conf.window_max = 0;
	says(&s, ADV_SEQUENTIAL);
	rd(0, 64 * K);
	rd(64 * K, 64 * K);
	ck_assert_uint_eq(asked, 0);
}
END_TEST

/* Offsets at the end of what can be, and any order of things: nothing wraps. */
START_TEST(nothing_wraps)
{
	uint64_t seed = 7;

	for (unsigned i = 0; i < 200000; i++) {
		uint32_t len = 1 + (uint32_t)(seed >> 40) % (2 * M);
		struct adv_step step;
		uint64_t off;

		seed = seed * 6364136223846793005u + 1442695040888963407u;
		off = i % 3 ? seed >> (seed >> 58) : UINT64_MAX - len - (seed >> 50);
		off = off > UINT64_MAX - len ? UINT64_MAX - len : off;
		if (i % 17 == 0)
			says(&s, (uint32_t)(seed >> 33));
		step = rd(off, len);
		ck_assert_uint_le(step.ahead_len, 16 * M);
		for (unsigned k = 0; k < step.ahead_n; k++)
			ck_assert_uint_le(step.ahead_off + (uint64_t)step.ahead_step * k, UINT64_MAX - step.ahead_len);
		ck_assert_uint_le(step.drop_off, UINT64_MAX - step.drop_len);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("stream");
	TCase *t = tcase_create("stream");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(t, setup, NULL);
	tcase_add_test(t, one_read_says_nothing_and_two_that_continue_each_other_do);
	tcase_add_test(t, a_scan_is_read_ahead_without_gaps);
	tcase_add_test(t, reads_out_of_order_are_one_stream);
	tcase_add_test(t, random_reads_are_not_read_ahead);
	tcase_add_test(t, a_hint_counts_from_the_first_read_on);
	tcase_add_test(t, backwards_is_read_ahead_downwards);
	tcase_add_test(t, of_a_contradiction_nothing_is_followed);
	tcase_add_test(t, nothing_wraps);
	tcase_add_test(t, downwards_is_found_out);
	tcase_add_test(t, downwards_what_was_not_taken_on_is_asked_for_again);
	tcase_add_test(t, steps_that_were_not_taken_on_are_asked_for_again);
	tcase_add_test(t, equal_steps_are_found_out);
	tcase_add_test(t, several_readers_of_one_file_are_told_apart);
	tcase_add_test(t, a_second_scan_is_read_ahead_like_the_first);
	tcase_add_test(t, a_look_elsewhere_does_not_end_a_run);
	tcase_add_test(t, sequential_and_then_random_is_soon_not_believed);
	tcase_add_test(t, backwards_and_then_forwards_is_read_ahead_forwards);
	tcase_add_test(t, random_and_then_a_long_scan_is_read_ahead);
	tcase_add_test(t, a_scan_with_a_hint_leaves_what_it_passed);
	tcase_add_test(t, waiting_makes_the_window_grow);
	tcase_add_test(t, what_was_not_taken_on_is_asked_for_again);
	tcase_add_test(t, at_the_end_of_the_file_nothing_more_is_asked_for);
	tcase_add_test(t, steps_ahead_take_no_more_than_there_is_memory_for);
	tcase_add_test(t, steps_end_at_the_end_of_the_file);
	tcase_add_test(t, it_can_be_switched_off);
	suite_add_tcase(suite, t);
	r = srunner_create(suite);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}

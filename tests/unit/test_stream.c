/* SPDX-License-Identifier: BSD-3-Clause */
/* test_stream.c - what reads and hints say about what comes next: advise/stream.h */
#include <check.h>
#include <stdlib.h>

#include "advise/stream.h"

#define K 1024u
#define M (1024u * 1024u)

static struct fs_stream s;
static uint64_t ahead_to; /* how far was read ahead */
static uint64_t asked;    /* bytes */
static unsigned requests;

static void setup(void)
{
	s = (struct fs_stream){0};
	ahead_to = asked = requests = 0;
}

static struct adv_step rd(uint64_t off, uint32_t len)
{
	struct adv_step step;

	adv_read(&s, off, len, &step);
	if (step.ahead_len) {
		asked += step.ahead_len;
		requests++;
		ahead_to = step.ahead_off + step.ahead_len;
	}
	return step;
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
	ck_assert_uint_eq(adv_hint(&s, ADV_SEQUENTIAL), ADV_SEQUENTIAL);
	ck_assert_uint_eq(rd(10 * M, 64 * K).ahead_len, 8 * M);
	ck_assert_uint_eq(adv_hint(&s, ADV_RANDOM), ADV_RANDOM);
	for (uint64_t off = 0; off < M; off += 64 * K)
		ck_assert_uint_eq(rd(off, 64 * K).ahead_len, 0);
	/* Closing ends it. */
	adv_forget(&s);
	rd(0, 64 * K);
	ck_assert_uint_gt(rd(64 * K, 64 * K).ahead_len, 0);
}
END_TEST

START_TEST(backwards_is_read_ahead_downwards)
{
	uint64_t low = 100 * M;

	ck_assert_uint_eq(adv_hint(&s, ADV_BACKWARDS), ADV_BACKWARDS);
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
	ck_assert_uint_eq(adv_hint(&s, ADV_SEQUENTIAL | ADV_RANDOM), 0);
	ck_assert_uint_eq(adv_hint(&s, ADV_SEQUENTIAL | ADV_BACKWARDS | ADV_NOREUSE), ADV_NOREUSE);
	ck_assert_uint_eq(adv_hint(&s, ~0u), ADV_NOREUSE);
	ck_assert_uint_eq(adv_hint(&s, 0), 0);
	ck_assert_uint_eq(adv_hint(&s, ADV_NORMAL), ADV_NORMAL);
	ck_assert_uint_eq(rd(0, 4096).drop_len, 0);
	adv_hint(&s, ADV_NOREUSE);
	ck_assert_uint_eq(rd(4096, 4096).drop_len, 4096);
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
			adv_hint(&s, (uint32_t)(seed >> 33));
		step = rd(off, len);
		ck_assert_uint_le(step.ahead_len, 9 * M);
		ck_assert_uint_le(step.ahead_off, UINT64_MAX - step.ahead_len);
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
	suite_add_tcase(suite, t);
	r = srunner_create(suite);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}

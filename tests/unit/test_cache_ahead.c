/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_cache_ahead.c - what hints do to the block cache: reading ahead on accounts, giving up, and who is protected from whom
 *
 * The image is a fake (fake_vhd.h), so that what is read ahead can be held at the gate.
 */
#include "fake_vhd.h"

#include <pthread.h>
#include <time.h>

#include "vhd/cache/cache.h"

#define UNIT CACHE_UNIT
#define FRAME ((uint64_t)CACHE_FRAME)
#define FRAMES (CACHE_MIN_LIMIT / CACHE_FRAME)
#define QUARTER (CACHE_MIN_LIMIT / 4)

static struct vhd *v;
static struct cache *c;
static struct cache_dev *d;

static void begin(bool rotational)
{
	v = fake_new(32u << 20);
	v->rotational = rotational;
	ck_assert_int_eq(cache_new(&c, CACHE_MIN_LIMIT), 0);
	ck_assert_int_eq(cache_attach(c, v, 0, v->size, &d), 0);
}

static void setup(void)
{
	begin(false);
}

static void setup_with_a_head(void)
{
	begin(true);
}

static void teardown(void)
{
	struct cache_stats st;

	fake_gate(v, FAKE_READ, false);
	ck_assert_int_eq(cache_detach(d), 0);
	/* Whatever happened: every unit read ahead was used or was not. */
	cache_stats(c, &st);
	ck_assert_uint_eq(st.ahead_waiting, 0);
	ck_assert_uint_eq(st.ahead, st.ahead_used + st.ahead_wasted);
	cache_free(c);
	fake_free(v);
}

static struct cache_stats stats(void)
{
	struct cache_stats st;

	cache_stats(c, &st);
	return st;
}

static void nap(long ms)
{
	nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static uint64_t want(uint64_t off, uint64_t len, uint16_t account, uint64_t tag, bool idle)
{
	return cache_prefetch(d, off, len, &(struct cache_want){.account = account, .tag = tag, .idle = idle});
}

static bool there(uint64_t off, uint64_t len)
{
	return cache_resident(d, off, len) == len;
}

static void await(uint64_t off, uint64_t len)
{
	for (int i = 0; i < 2000 && !there(off, len); i++)
		nap(2);
	ck_assert(there(off, len));
}

static void use(uint64_t off, uint32_t len, unsigned who)
{
	struct cache_seg seg[FRAMES];
	int n = cache_pin(d, off, len, CACHE_WHO(who), seg, FRAMES);

	ck_assert_int_gt(n, 0);
	ck_assert_mem_eq(seg[0].base, v->disk + off, 8);
	cache_unpin(seg, (unsigned)n);
}

static void *open_gate(void *arg)
{
	nap(30);
	fake_gate(arg, FAKE_READ, false);
	return NULL;
}

/* ---- accounts --------------------------------------------------------------------------------------------------------- */

START_TEST(an_account_has_a_quarter_of_the_cache_and_not_more)
{
	fake_gate(v, FAKE_READ, true);
	ck_assert_uint_eq(want(0, QUARTER, 1, 0, false), QUARTER);
	fake_await(v, FAKE_READ, 1); /* what has one tag is read by one thread: nothing moves now */
	ck_assert_uint_eq(want(QUARTER, FRAME, 1, 0, false), 0);
	ck_assert_uint_eq(stats().ahead_dropped, 1);
	/* Another's is its own; the device's half holds for both together. */
	ck_assert_uint_eq(want(QUARTER, 2 * QUARTER, 2, 0, false), QUARTER);
	ck_assert_uint_eq(want(8 * QUARTER, FRAME, 3, 0, false), 0);
	ck_assert_uint_eq(stats().ahead_waiting, 2 * QUARTER);
	fake_gate(v, FAKE_READ, false);
	await(0, 2 * QUARTER);
	/* Still unused, still charged. */
	ck_assert_uint_eq(want(8 * QUARTER, FRAME, 1, 0, false), 0);
	use(0, UNIT, 9);
	ck_assert_uint_eq(want(8 * QUARTER, FRAME, 1, 0, false), UNIT);
	for (uint64_t at = 0; at < QUARTER; at += FRAME)
		use(at, FRAME, 9);
	ck_assert_uint_eq(stats().ahead_used, QUARTER);
	ck_assert_uint_eq(stats().reads_saved, 1 + QUARTER / FRAME);
	ck_assert_uint_eq(want(9 * QUARTER, FRAME, 1, 0, false), FRAME);
}
END_TEST

/* Two that ask for neighbouring ranges under one tag: each pays for its own. */
START_TEST(neighbours_are_charged_to_who_asked_for_them)
{
	fake_gate(v, FAKE_READ, true);
	ck_assert_uint_eq(want(0, 2 * FRAME, 1, 0, false), 2 * FRAME);
	fake_await(v, FAKE_READ, 1);
	ck_assert_uint_eq(want(4 * FRAME, 2 * FRAME, 1, 0, false), 2 * FRAME);
	ck_assert_uint_eq(want(6 * FRAME, 2 * FRAME, 2, 0, false), 2 * FRAME);
	fake_gate(v, FAKE_READ, false);
	await(0, 2 * FRAME);
	await(4 * FRAME, 4 * FRAME);
	use(0, 2 * FRAME, 9);
	use(4 * FRAME, 4 * FRAME, 9);
	/* All of it was used: nothing is owed. */
	ck_assert_uint_eq(want(4 * QUARTER, 2 * QUARTER, 1, 0, false), QUARTER);
	await(4 * QUARTER, QUARTER);
	ck_assert_uint_eq(want(6 * QUARTER, 2 * QUARTER, 2, 0, false), QUARTER);
}
END_TEST

/* Downwards it is the other end that is needed first. */
START_TEST(of_what_is_read_downwards_the_end_is_taken_on)
{
	const struct cache_want w = {.account = 1, .down = true};

	ck_assert_uint_eq(cache_prefetch(d, FRAME, QUARTER + 3 * FRAME, &w), QUARTER);
	await(4 * FRAME, QUARTER);
	ck_assert(!there(FRAME, FRAME) && !there(3 * FRAME, FRAME));
	use(4 * FRAME, FRAME, 9);
}
END_TEST

/* A head that goes to a place in the middle of a block goes past its bitmap first. */
START_TEST(on_a_disk_with_a_head_a_piece_begins_with_a_block)
{
	struct vhd *disk = fake_new(4u << 20);
	struct cache_dev *part;

	disk->block = 1u << 20;
	ck_assert_int_eq(cache_attach(c, disk, 4096, disk->size - 4096, &part), 0);
	ck_assert_uint_eq(cache_good_start(part, 8192, 3u << 20), 8192);
	ck_assert_int_eq(cache_detach(part), 0);
	disk->rotational = true;
	ck_assert_int_eq(cache_attach(c, disk, 4096, disk->size - 4096, &part), 0);
	ck_assert_uint_eq(cache_good_start(part, 8192, 3u << 20), (1u << 20) - 4096);
	ck_assert_uint_eq(cache_good_start(part, (1u << 20) - 4096, 3u << 19), (1u << 20) - 4096); /* it does */
	ck_assert_uint_eq(cache_good_start(part, 8192, 1u << 19), 8192);                           /* too far */
	ck_assert_uint_eq(cache_good_start(part, 8192, 1u << 30), 8192);                           /* no such range */
	disk->block = 0;
	ck_assert_uint_eq(cache_good_start(part, 8192, 3u << 20), 8192);
	ck_assert_int_eq(cache_detach(part), 0);
	fake_free(disk);
}
END_TEST

START_TEST(what_was_dropped_from_memory_unused_is_wasted)
{
	ck_assert_uint_eq(want(0, 4 * FRAME, 1, 0, false), 4 * FRAME);
	await(0, 4 * FRAME);
	use(0, UNIT, 1);
	cache_discard(d, 0, 4 * FRAME);
	ck_assert_uint_eq(stats().ahead_used, UNIT);
	ck_assert_uint_eq(stats().ahead_wasted, 4 * FRAME - UNIT);
	ck_assert_uint_eq(stats().ahead_waiting, 0);
}
END_TEST

/* Read ahead, forgotten, read ahead again: the second time counts like the first. */
START_TEST(what_comes_again_is_counted_again)
{
	want(0, FRAME, 1, 0, false);
	await(0, FRAME);
	use(0, FRAME, 1);
	cache_discard(d, 0, FRAME);
	want(0, FRAME, 1, 0, false);
	await(0, FRAME);
	use(0, FRAME, 1);
	ck_assert_uint_eq(stats().ahead_used, 2 * FRAME);
}
END_TEST

START_TEST(a_transfer_that_failed_was_not_read_ahead)
{
	v->error[FAKE_READ] = -EIO;
	want(0, 2 * FRAME, 1, 0, false);
	for (int i = 0; i < 1000 && stats().ahead_waiting; i++)
		nap(2);
	ck_assert_uint_eq(stats().ahead_waiting, 0);
	ck_assert_uint_eq(stats().ahead, 0);
	v->error[FAKE_READ] = 0;
	use(0, FRAME, 1);
}
END_TEST

START_TEST(what_nobody_needs_any_more_is_not_read)
{
	fake_gate(v, FAKE_READ, true);
	/* Every thread has something to do, and cannot go on. */
	for (unsigned i = 0; i < 4; i++)
		want((100 + i * 20) * FRAME, 2 * FRAME, 0, 100 + i, false);
	fake_await(v, FAKE_READ, 4);
	want(300 * FRAME, FRAME, 0, 5, false);
	want(320 * FRAME, 2 * FRAME, 0, 16, false);
	want(340 * FRAME, 3 * FRAME, 0, 17, false);
	want(360 * FRAME, FRAME, 0, 18, false);
	cache_unwant(d, 5, UINT64_MAX);
	cache_unwant(d, 17, ~UINT64_C(1)); /* 16 and 17 */
	ck_assert_uint_eq(stats().ahead_canceled, 6 * FRAME);
	fake_gate(v, FAKE_READ, false);
	await(360 * FRAME, FRAME);
	for (unsigned i = 0; i < 4; i++)
		await((100 + i * 20) * FRAME, 2 * FRAME);
	ck_assert(!there(300 * FRAME, FRAME) && !there(320 * FRAME, FRAME) && !there(340 * FRAME, FRAME));
	ck_assert_uint_eq(stats().ahead, 9 * FRAME);
}
END_TEST

START_TEST(who_comes_too_early_is_counted_as_waiting)
{
	pthread_t t;

	fake_gate(v, FAKE_READ, true);
	want(0, FRAME, 1, 0, false);
	fake_await(v, FAKE_READ, 1);
	ck_assert_int_eq(pthread_create(&t, NULL, open_gate, v), 0);
	use(0, FRAME, 1);
	pthread_join(t, NULL);
	ck_assert_uint_eq(stats().ahead_late, FRAME);
	ck_assert_uint_eq(stats().ahead_used, FRAME);
	ck_assert_uint_eq(stats().reads_saved, 0);
}
END_TEST

START_TEST(what_can_wait_is_read_when_nobody_waits_for_the_image)
{
	ck_assert_uint_eq(want(0, 2 * FRAME, 1, 0, true), 2 * FRAME);
	await(0, 2 * FRAME);
	/* Not while memory is full. */
	for (uint64_t at = 0; at < CACHE_MIN_LIMIT; at += FRAME)
		use(at, FRAME, 1);
	want(400 * FRAME, FRAME, 1, 0, true);
	nap(60);
	ck_assert(!there(400 * FRAME, FRAME));
}
END_TEST

static void *use_late(void *arg)
{
	(void)arg;
	use(500 * FRAME, FRAME, 1);
	return NULL;
}

/* Full load: whoever waits comes first, and what could wait is not read at all. */
START_TEST(what_can_wait_does_not_compete)
{
	pthread_t t;

	fake_gate(v, FAKE_READ, true);
	ck_assert_int_eq(pthread_create(&t, NULL, use_late, NULL), 0);
	fake_await(v, FAKE_READ, 1);
	ck_assert_uint_eq(want(0, 2 * FRAME, 1, 0, true), 2 * FRAME);
	nap(60);
	lock_take(&v->mu);
	ck_assert_uint_eq(v->waiting[FAKE_READ], 1);
	lock_drop(&v->mu);
	cache_unwant(d, 0, UINT64_MAX);
	fake_gate(v, FAKE_READ, false);
	pthread_join(t, NULL);
	nap(60);
	ck_assert(!there(0, FRAME));
	ck_assert_uint_eq(stats().ahead, 0);
}
END_TEST

/* Of more than the bytes may be: the account has a quarter of the cache. */
START_TEST(maps_of_what_can_wait_are_loaded_at_once_and_nothing_else)
{
	pthread_t t;

	fake_gate(v, FAKE_READ, true);
	ck_assert_int_eq(pthread_create(&t, NULL, use_late, NULL), 0);
	fake_await(v, FAKE_READ, 1);
	ck_assert_uint_eq(want(FRAME, v->size - FRAME, 1, 0, true), QUARTER);
	fake_await_maps(v, 1);
	ck_assert_uint_eq(atomic_load(&v->maps_bytes), v->size - FRAME);
	/* Of whom somebody waits for. */
	ck_assert_uint_eq(atomic_load(&v->calls[FAKE_READ]), 1);
	cache_unwant(d, 0, UINT64_MAX);
	fake_gate(v, FAKE_READ, false);
	pthread_join(t, NULL);
	/* What is to be read needs no request for its maps, nor what is there. */
	ck_assert_uint_eq(want(0, FRAME, 1, 0, false), FRAME);
	await(0, FRAME);
	ck_assert_uint_eq(want(0, FRAME, 1, 0, true), FRAME);
	ck_assert_uint_eq(want(500 * FRAME, FRAME, 1, 0, true), FRAME);
	ck_assert_uint_eq(atomic_load(&v->maps), 1);
}
END_TEST

START_TEST(maps_are_given_up_with_the_rest)
{
	fake_gate(v, FAKE_READ, true);
	for (unsigned i = 0; i < 4; i++)
		want((100 + i * 20) * FRAME, 2 * FRAME, 0, 100 + i, false);
	fake_await(v, FAKE_READ, 4);
	want(300 * FRAME, 2 * FRAME, 0, 5, true);
	cache_unwant(d, 5, UINT64_MAX);
	want(400 * FRAME, 2 * FRAME, 0, 6, true);
	ck_assert_uint_eq(stats().ahead_canceled, 2 * FRAME);
	fake_gate(v, FAKE_READ, false);
	fake_await_maps(v, 1);
	ck_assert_uint_eq(atomic_load(&v->maps_bytes), 2 * FRAME);
}
END_TEST

/* Many small ranges at once: a disk that does many things at a time sees them together. */
START_TEST(short_requests_are_read_together)
{
	fake_gate(v, FAKE_READ, true);
	for (unsigned i = 0; i < 200; i++)
		want((200 - i) * 2 * (uint64_t)UNIT, UNIT, 0, i, false);
	nap(20);
	fake_gate(v, FAKE_READ, false);
	await(2 * UNIT, UNIT);
	for (unsigned i = 0; i < 200; i++)
		await((200 - i) * 2 * (uint64_t)UNIT, UNIT);
	ck_assert_uint_le(atomic_load(&v->calls[FAKE_READ]), 40);
	ck_assert_uint_ge(atomic_load(&v->ios[FAKE_READ]), 200);
}
END_TEST

/* Whatever for: long and short, of many tags. */
START_TEST(from_a_disk_with_a_head_one_thread_reads_ahead)
{
	fake_gate(v, FAKE_READ, true);
	for (unsigned i = 0; i < 16; i++)
		want(i * 8 * FRAME, i % 2 ? FRAME / 2 : 2 * FRAME, 0, i, false);
	fake_await(v, FAKE_READ, 1);
	nap(20); /* others would come */
	fake_gate(v, FAKE_READ, false);
	for (unsigned i = 0; i < 16; i++)
		await(i * 8 * FRAME, i % 2 ? FRAME / 2 : 2 * FRAME);
	lock_take(&v->mu);
	ck_assert_uint_eq(v->most[FAKE_READ], 1);
	lock_drop(&v->mu);
}
END_TEST

/* ---- giving up -------------------------------------------------------------------------------------------------------- */

/* A hot set of 60 % of the cache, and a scan of ten times the cache that gives up what it has read. */
static unsigned hot_left(bool giving_up)
{
	unsigned left = 0, hot = FRAMES * 6 / 10;

	for (unsigned round = 0; round < 4; round++)
		for (unsigned i = 0; i < hot; i++)
			use(i * FRAME, FRAME, 1);
	for (uint64_t at = 100; at < 500; at++) {
		use(at * FRAME, FRAME, 2);
		if (giving_up)
			cache_demote(d, at * FRAME, FRAME, &(struct cache_giver){.who = 2, .account = 1});
	}
	for (unsigned i = 0; i < hot; i++)
		left += there(i * FRAME, FRAME);
	return left;
}

START_TEST(a_scan_that_gives_up_what_it_read_takes_nothing_from_others)
{
	ck_assert_uint_eq(hot_left(true), FRAMES * 6 / 10);
	ck_assert_uint_gt(stats().evicted_given_up, 300);
}
END_TEST

START_TEST(nobody_gives_up_what_others_have_read)
{
	use(0, FRAME, 1);
	use(FRAME, FRAME, 1);
	use(FRAME, FRAME, 2);
	use(2 * FRAME, FRAME, 2);
	ck_assert_uint_eq(want(3 * FRAME, 2 * FRAME, 7, 0, false), 2 * FRAME);
	await(3 * FRAME, 2 * FRAME);
	cache_demote(d, 0, 5 * FRAME, &(struct cache_giver){.who = 2, .account = 8});
	ck_assert_uint_eq(stats().given_up, FRAME);
	/* It was for this account. */
	cache_demote(d, 4 * FRAME, FRAME, &(struct cache_giver){.who = 2, .account = 7});
	ck_assert_uint_eq(stats().given_up, 2 * FRAME);
	/* Somebody who may do so. */
	cache_demote(d, UNIT, 5 * FRAME, &(struct cache_giver){.alone = true});
	ck_assert_uint_eq(stats().given_up, 4 * FRAME);
}
END_TEST

START_TEST(what_was_given_up_and_is_used_again_stays)
{
	use(0, FRAME, 1);
	cache_demote(d, 0, FRAME, &(struct cache_giver){.who = 1, .account = 0});
	use(0, FRAME, 2);
	for (uint64_t at = 10; at < 10 + FRAMES - 4; at++)
		use(at * FRAME, FRAME, 3);
	ck_assert(there(0, FRAME));
}
END_TEST

/* A scan through the whole cache while something waits for its reader. */
START_TEST(what_was_read_ahead_stays_until_it_is_used)
{
	ck_assert_uint_eq(want(0, QUARTER, 1, 0, false), QUARTER);
	await(0, QUARTER);
	for (uint64_t at = 100; at < 100 + 2 * FRAMES; at++)
		use(at * FRAME, FRAME, 3);
	ck_assert(there(0, QUARTER));
}
END_TEST

static Suite *suite(void)
{
	const TTest *const tests[] = {
		an_account_has_a_quarter_of_the_cache_and_not_more,
		neighbours_are_charged_to_who_asked_for_them,
		of_what_is_read_downwards_the_end_is_taken_on,
		on_a_disk_with_a_head_a_piece_begins_with_a_block,
		what_was_dropped_from_memory_unused_is_wasted,
		what_comes_again_is_counted_again,
		a_transfer_that_failed_was_not_read_ahead,
		what_nobody_needs_any_more_is_not_read,
		who_comes_too_early_is_counted_as_waiting,
		what_can_wait_is_read_when_nobody_waits_for_the_image,
		what_can_wait_does_not_compete,
		maps_of_what_can_wait_are_loaded_at_once_and_nothing_else,
		maps_are_given_up_with_the_rest,
		short_requests_are_read_together,
		a_scan_that_gives_up_what_it_read_takes_nothing_from_others,
		nobody_gives_up_what_others_have_read,
		what_was_given_up_and_is_used_again_stays,
		what_was_read_ahead_stays_until_it_is_used,
	};
	Suite *s = suite_create("cache ahead");
	TCase *t = tcase_create("ahead"), *head = tcase_create("head");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++)
		tcase_add_test(t, tests[i]);
	suite_add_tcase(s, t);
	tcase_add_checked_fixture(head, setup_with_a_head, teardown);
	tcase_set_timeout(head, 60);
	tcase_add_test(head, from_a_disk_with_a_head_one_thread_reads_ahead);
	suite_add_tcase(s, head);
	return s;
}

int main(void)
{
	SRunner *r = srunner_create(suite());
	int failed;

	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}

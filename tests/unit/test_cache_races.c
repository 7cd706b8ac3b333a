/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_cache_races.c - what the block cache does while transfers are under way, when they fail, and when memory is short
 *
 * The image is a fake (fake_vhd.h), so that every transfer can be held where it is while the test does something else.
 */
#include "fake_vhd.h"

#include <pthread.h>
#include <time.h>

#include "vhd/base/cleanup.h"
#include "vhd/cache/cache.h"

#define UNIT CACHE_UNIT
#define FRAME CACHE_FRAME
#define FRAMES (CACHE_MIN_LIMIT / FRAME)

static struct vhd *v;
static struct cache *c;
static struct cache_dev *d;
static const struct cache_want want; /* on nobody's account, now */

static void setup(void)
{
	v = fake_new(32u << 20);
	ck_assert_int_eq(cache_new(&c, CACHE_MIN_LIMIT), 0);
	ck_assert_int_eq(cache_attach(c, v, 0, v->size, &d), 0);
	cache_set_age(c, 3600 * 1000); /* nothing is written unless a test asks for it */
}

static void teardown(void)
{
	if (d)
		ck_assert_int_eq(cache_detach(d), 0);
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

/* ---- one call on a thread of its own ---------------------------------------------------------------------------------- */

enum what { READ, WRITE, WRITEBACK, WRITEBACK_HELD, PIN };

struct call {
	pthread_t t;
	enum what what;
	uint64_t off;
	uint32_t len;
	uint8_t fill;
	atomic_bool done;
	int result;
	uint8_t got[4 * FRAME];
	struct cache_seg seg[8];
};

static void *call_main(void *arg)
{
	struct call *k = arg;

	if (k->what == WRITE)
		memset(k->got, k->fill, k->len);
	k->result = k->what == READ             ? cache_read(d, k->got, k->len, k->off, 0)
		    : k->what == WRITE          ? cache_write(d, k->got, k->len, k->off, 0)
		    : k->what == WRITEBACK      ? cache_writeback(d, k->off, k->len)
		    : k->what == WRITEBACK_HELD ? cache_writeback_held(d, &(struct cache_range){k->off, k->len}, 1)
						: cache_pin(d, k->off, k->len, 0, k->seg, 8);
	atomic_store(&k->done, true);
	return NULL;
}

static struct call *begin(enum what what, uint64_t off, uint32_t len, uint8_t fill)
{
	struct call *k = calloc(1, sizeof *k);

	ck_assert_ptr_nonnull(k);
	*k = (struct call){.what = what, .off = off, .len = len, .fill = fill};
	ck_assert_int_eq(pthread_create(&k->t, NULL, call_main, k), 0);
	return k;
}

static int end(struct call *k)
{
	int r;

	pthread_join(k->t, NULL);
	r = k->result;
	free(k);
	return r;
}

static void put(uint64_t off, uint32_t len, uint8_t byte)
{
	static uint8_t b[4 * FRAME];

	memset(b, byte, len);
	ck_assert_int_eq(cache_write(d, b, len, off, 0), 0);
}

static uint8_t at(uint64_t off)
{
	uint8_t b;

	ck_assert_int_eq(cache_read(d, &b, 1, off, 0), 0);
	return b;
}

/* ---- filling ------------------------------------------------------------------------------------------------------------ */

START_TEST(what_is_in_memory_is_not_read_again)
{
	uint8_t b[100];

	ck_assert_int_eq(cache_read(d, b, sizeof b, 5000, 0), 0);
	ck_assert_mem_eq(b, v->disk + 5000, sizeof b);
	ck_assert_int_eq(cache_read(d, b, sizeof b, 5000, CACHE_NOWAIT), 0);
	ck_assert_uint_eq(v->calls[FAKE_READ], 1);
	ck_assert_uint_eq(stats().bytes_read, UNIT);
	ck_assert_uint_eq(stats().hits, 1);
	ck_assert_uint_eq(stats().misses, 1);
}
END_TEST

START_TEST(missing_neighbours_of_several_frames_are_one_transfer)
{
	struct cache_seg seg[5];

	ck_assert_int_eq(cache_pin(d, FRAME - UNIT, 3 * FRAME, 0, seg, 5), 4);
	ck_assert_uint_eq(v->calls[FAKE_READ], 1);
	ck_assert_uint_eq(v->ios[FAKE_READ], 1);
	for (unsigned i = 0, at_off = FRAME - UNIT; i < 4; at_off += seg[i++].len)
		ck_assert_mem_eq(seg[i].base, v->disk + at_off, seg[i].len);
	cache_unpin(seg, 4);
}
END_TEST

START_TEST(only_what_is_missing_is_read)
{
	uint8_t b[FRAME];

	put(3 * UNIT, UNIT, 0xaa);
	at(7 * UNIT);
	ck_assert_int_eq(cache_read(d, b, FRAME, 0, 0), 0);
	ck_assert_uint_eq(v->ios[FAKE_READ], 1 + 3);
	ck_assert_uint_eq(stats().bytes_read, 15 * UNIT);
	ck_assert_uint_eq(b[3 * UNIT], 0xaa);
	ck_assert_mem_eq(b + 4 * UNIT, v->disk + 4 * UNIT, 12 * UNIT);
}
END_TEST

START_TEST(a_unit_is_read_once_however_many_wait_for_it)
{
	struct call *k[4];

	fake_gate(v, FAKE_READ, true);
	k[0] = begin(READ, 0, 2 * FRAME, 0);
	fake_await(v, FAKE_READ, 1);
	/* They overlap: each reads what the others have not claimed. */
	k[1] = begin(READ, FRAME, 2 * FRAME, 0);
	fake_await(v, FAKE_READ, 2);
	k[2] = begin(READ, 0, 2 * FRAME, 0);
	k[3] = begin(READ, UNIT, 100, 0);
	nap(20);
	fake_gate(v, FAKE_READ, false);
	for (unsigned i = 0; i < 4; i++) {
		uint64_t off = k[i]->off;
		uint32_t len = k[i]->len;

		pthread_join(k[i]->t, NULL);
		ck_assert_int_eq(k[i]->result, 0);
		ck_assert_mem_eq(k[i]->got, v->disk + off, len);
		free(k[i]);
	}
	for (unsigned s = 0; s < 3 * FRAME / 512; s++)
		ck_assert_uint_eq(v->reads[s], 1);
}
END_TEST

START_TEST(a_failed_fill_says_so_and_leaves_nothing_behind)
{
	uint8_t b[UNIT];

	v->error[FAKE_READ] = -EIO;
	ck_assert_int_eq(cache_read(d, b, UNIT, 0, 0), -EIO);
	ck_assert_int_eq(cache_write(d, b, 10, 5, 0), -EIO);
	ck_assert_uint_eq(stats().dirty, 0);
	v->error[FAKE_READ] = 0;
	ck_assert_int_eq(cache_read(d, b, UNIT, 0, 0), 0);
	ck_assert_mem_eq(b, v->disk, UNIT);
}
END_TEST

START_TEST(prefetched_bytes_need_no_waiting)
{
	uint8_t b[FRAME];
	int err = -EAGAIN;

	ck_assert_uint_eq(cache_prefetch(d, 0, 4 * FRAME, &want), 4 * FRAME);
	for (int i = 0; i < 500 && err; i++) {
		nap(2);
		err = cache_read(d, b, FRAME, 3 * FRAME, CACHE_NOWAIT);
	}
	ck_assert_int_eq(err, 0);
	ck_assert_mem_eq(b, v->disk + 3 * FRAME, FRAME);
}
END_TEST

START_TEST(detaching_waits_for_prefetches_under_way)
{
	fake_gate(v, FAKE_READ, true);
	for (unsigned i = 0; i < 1200; i++) /* more than the ring holds */
		cache_prefetch(d, (uint64_t)i * 2 * UNIT, UNIT, &want);
	fake_await(v, FAKE_READ, 1);
	fake_gate(v, FAKE_READ, false);
	ck_assert_int_eq(cache_detach(d), 0);
	d = NULL;
}
END_TEST

/* ---- CACHE_NOWAIT ------------------------------------------------------------------------------------------------------- */

START_TEST(nowait_does_not_wait_for_a_fill_of_another)
{
	struct cache_seg seg[2];
	uint8_t b[UNIT] = {1};
	struct call *k;

	fake_gate(v, FAKE_READ, true);
	k = begin(READ, 0, UNIT, 0);
	fake_await(v, FAKE_READ, 1);
	ck_assert_int_eq(cache_pin(d, 0, 10, CACHE_NOWAIT, seg, 2), -EAGAIN);
	ck_assert_int_eq(cache_write(d, b, UNIT, 0, CACHE_NOWAIT), -EAGAIN);
	ck_assert_int_eq(cache_write(d, b, 10, 0, CACHE_NOWAIT), -EAGAIN);
	/* Its neighbour is free. */
	ck_assert_int_eq(cache_write(d, b, UNIT, UNIT, CACHE_NOWAIT), 0);
	ck_assert(!atomic_load(&k->done));
	fake_gate(v, FAKE_READ, false);
	ck_assert_int_eq(end(k), 0);
}
END_TEST

START_TEST(a_write_that_would_wait_has_written_nothing)
{
	uint8_t b[3 * FRAME];
	uint64_t used;

	memset(b, 0xee, sizeof b);
	put(0, FRAME, 0x11);
	used = stats().used;
	/* The last unit would have to be read first. */
	ck_assert_int_eq(cache_write(d, b, 3 * FRAME - 1, 0, CACHE_NOWAIT), -EAGAIN);
	ck_assert_uint_eq(at(0), 0x11);
	ck_assert_uint_eq(at(FRAME - 1), 0x11);
	ck_assert_uint_eq(stats().dirty, FRAME);
	ck_assert_mem_eq(&(uint8_t){at(FRAME + 3)}, v->disk + FRAME + 3, 1);
	(void)used;
	ck_assert_int_eq(cache_write(d, b, 3 * FRAME, 0, CACHE_NOWAIT), 0);
	ck_assert_uint_eq(at(3 * FRAME - 1), 0xee);
}
END_TEST

START_TEST(without_memory_nowait_gives_up_and_others_wait)
{
	struct cache_seg seg[FRAMES];
	uint8_t b[UNIT] = {0};
	struct call *k;

	for (unsigned i = 0; i < FRAMES; i++)
		ck_assert_int_eq(cache_pin(d, (uint64_t)i * FRAME, 1, 0, seg + i, 1), 1);
	ck_assert_uint_eq(stats().used, CACHE_MIN_LIMIT);
	ck_assert_int_eq(cache_write(d, b, UNIT, (uint64_t)FRAMES * FRAME, CACHE_NOWAIT), -EAGAIN);
	k = begin(WRITE, (uint64_t)FRAMES * FRAME, UNIT, 1);
	nap(30);
	ck_assert(!atomic_load(&k->done));
	cache_unpin(seg, FRAMES);
	ck_assert_int_eq(end(k), 0);
	ck_assert_uint_le(stats().used, CACHE_MIN_LIMIT);
}
END_TEST

START_TEST(a_range_larger_than_the_cache_is_refused)
{
	static struct cache_seg seg[200];

	ck_assert_int_eq(cache_pin(d, 0, 150 * FRAME, 0, seg, 200), -ENOMEM);
	ck_assert_uint_eq(v->calls[FAKE_READ], 0);
}
END_TEST

/* ---- writes against transfers ------------------------------------------------------------------------------------------- */

/* cache_int.h rule 1 */
START_TEST(a_fill_never_overwrites_newer_bytes)
{
	struct call *r, *w;

	fake_gate(v, FAKE_READ, true);
	r = begin(READ, 0, FRAME, 0);
	fake_await(v, FAKE_READ, 1);
	w = begin(WRITE, UNIT, 2 * UNIT, 0x77);
	nap(20);
	fake_gate(v, FAKE_READ, false);
	ck_assert_int_eq(end(r), 0);
	ck_assert_int_eq(end(w), 0);
	ck_assert_uint_eq(at(UNIT), 0x77);
	ck_assert_uint_eq(at(3 * UNIT - 1), 0x77);
	ck_assert_int_eq(cache_flush(d), 0);
	ck_assert_uint_eq(v->disk[UNIT], 0x77);
}
END_TEST

/* cache_int.h rules 2 and 3 */
START_TEST(a_write_during_writeback_is_written_again)
{
	struct call *k, *k2;

	put(0, UNIT, 1);
	fake_gate(v, FAKE_WRITE, true);
	k = begin(WRITEBACK, 0, UNIT, 0);
	fake_await(v, FAKE_WRITE, 1);
	put(10, 10, 2);
	/* Waits for the transfer that is under way, then writes the newer bytes. */
	k2 = begin(WRITEBACK, 0, UNIT, 0);
	nap(20);
	ck_assert(!atomic_load(&k2->done));
	fake_gate(v, FAKE_WRITE, false);
	ck_assert_int_eq(end(k), 0);
	ck_assert_int_eq(end(k2), 0);
	ck_assert_uint_eq(v->disk[9], 1);
	ck_assert_uint_eq(v->disk[10], 2);
	ck_assert_uint_eq(stats().dirty, 0);
}
END_TEST

START_TEST(writeback_of_a_range_leaves_others_alone)
{
	put(0, 4 * FRAME, 3);
	ck_assert_int_eq(cache_writeback(d, FRAME + UNIT, UNIT), 0);
	ck_assert_uint_eq(stats().dirty, 4 * FRAME - UNIT);
	ck_assert_uint_eq(v->disk[FRAME + UNIT], 3);
	ck_assert_mem_ne(v->disk + FRAME, "\3\3\3", 3);
}
END_TEST

START_TEST(dirty_neighbours_become_one_transfer)
{
	/* Written in no order. */
	for (unsigned i = 0; i < 15; i++)
		put((uint64_t)(i * 7 % 15) * FRAME, FRAME, (uint8_t)i);
	ck_assert_int_eq(cache_flush(d), 0);
	ck_assert_uint_eq(v->calls[FAKE_WRITE], 1);
	ck_assert_uint_eq(v->ios[FAKE_WRITE], 1);
	ck_assert_uint_eq(v->flushes, 1);
}
END_TEST

START_TEST(several_ranges_are_one_batch)
{
	struct cache_range r[3] = {{0, UNIT}, {5 * FRAME, UNIT}, {9 * FRAME, FRAME}};

	put(0, UNIT, 1);
	put(5 * FRAME, UNIT, 2);
	put(9 * FRAME, FRAME, 3);
	ck_assert_int_eq(cache_writeback_ranges(d, r, 3), 0);
	ck_assert_uint_eq(v->calls[FAKE_WRITE], 1);
	ck_assert_uint_eq(v->ios[FAKE_WRITE], 3);
	ck_assert_uint_eq(stats().dirty, 0);
}
END_TEST

START_TEST(old_dirty_data_is_written_by_itself)
{
	put(0, UNIT, 9);
	nap(300);
	ck_assert_uint_eq(stats().dirty, UNIT);
	cache_set_age(c, 10);
	for (int i = 0; i < 1000 && stats().dirty; i++)
		nap(2);
	ck_assert_uint_eq(stats().dirty, 0);
	ck_assert_int_eq(cache_detach(TAKE(d)), 0);
	ck_assert_uint_eq(v->disk[0], 9);
}
END_TEST

START_TEST(writers_wait_when_too_much_is_dirty)
{
	uint8_t b[FRAME] = {0};
	struct call *k;
	uint64_t off = 0;

	fake_gate(v, FAKE_WRITE, true);
	while (cache_write(d, b, FRAME, off, CACHE_NOWAIT) == 0)
		off += FRAME;
	ck_assert_uint_ge(off, CACHE_MIN_LIMIT / 2);
	ck_assert_uint_lt(off, CACHE_MIN_LIMIT);
	k = begin(WRITE, off, FRAME, 1);
	nap(30);
	ck_assert(!atomic_load(&k->done));
	fake_gate(v, FAKE_WRITE, false);
	ck_assert_int_eq(end(k), 0);
	ck_assert_uint_ge(stats().throttled, 1);
}
END_TEST

/* ---- discard ------------------------------------------------------------------------------------------------------------ */

START_TEST(discarded_bytes_are_not_written)
{
	put(0, FRAME, 1);
	cache_discard(d, 100, FRAME - UNIT);
	/* Units covered in part stay. */
	ck_assert_uint_eq(stats().dirty, 2 * UNIT);
	cache_discard(d, 0, v->size);
	ck_assert_uint_eq(stats().dirty, 0);
	ck_assert_uint_eq(stats().used, 0);
	ck_assert_int_eq(cache_flush(d), 0);
	ck_assert_uint_eq(v->calls[FAKE_WRITE], 0);
	ck_assert_uint_eq(at(5), v->disk[5]);
}
END_TEST

START_TEST(bytes_written_after_a_discard_land_after_the_transfer_that_was_under_way)
{
	struct call *k, *w;

	put(0, UNIT, 1);
	fake_gate(v, FAKE_WRITE, true);
	k = begin(WRITEBACK, 0, UNIT, 0);
	fake_await(v, FAKE_WRITE, 1);
	cache_discard(d, 0, UNIT);
	ck_assert_int_eq(cache_zero(d, 0, UNIT, CACHE_NOWAIT), -EAGAIN);
	w = begin(WRITE, 0, UNIT, 2);
	nap(20);
	fake_gate(v, FAKE_WRITE, false);
	ck_assert_int_eq(end(k), 0);
	ck_assert_int_eq(end(w), 0);
	ck_assert_int_eq(cache_flush(d), 0);
	ck_assert_uint_eq(v->disk[0], 2);
}
END_TEST

START_TEST(bytes_read_after_a_discard_are_those_that_stay)
{
	struct call *k, *r;

	put(0, UNIT, 1);
	fake_gate(v, FAKE_WRITE, true);
	k = begin(WRITEBACK, 0, UNIT, 0);
	fake_await(v, FAKE_WRITE, 1);
	cache_discard(d, 0, UNIT);
	r = begin(READ, 0, UNIT, 0);
	nap(20);
	ck_assert_uint_eq(v->calls[FAKE_READ], 0);
	fake_gate(v, FAKE_WRITE, false);
	ck_assert_int_eq(end(k), 0);
	pthread_join(r->t, NULL);
	ck_assert_int_eq(r->result, 0);
	ck_assert_mem_eq(r->got, v->disk, UNIT);
	free(r);
}
END_TEST

START_TEST(background_writeback_leaves_alone_what_is_being_written)
{
	struct call *k;

	put(0, UNIT, 1);
	fake_gate(v, FAKE_WRITE, true);
	k = begin(WRITEBACK, 0, UNIT, 0);
	fake_await(v, FAKE_WRITE, 1);
	put(0, UNIT, 2);
	cache_set_age(c, 0);
	nap(300); /* a second transfer of the unit would end the program */
	fake_gate(v, FAKE_WRITE, false);
	ck_assert_int_eq(end(k), 0);
	ck_assert_int_eq(cache_detach(TAKE(d)), 0);
	ck_assert_uint_eq(v->disk[0], 2);
}
END_TEST

START_TEST(a_discard_during_a_failing_writeback_does_not_come_back)
{
	struct call *k;

	put(0, 2 * UNIT, 1);
	fake_gate(v, FAKE_WRITE, true);
	k = begin(WRITEBACK, 0, 2 * UNIT, 0);
	fake_await(v, FAKE_WRITE, 1);
	cache_discard(d, 0, UNIT);
	v->error[FAKE_WRITE] = -EIO;
	fake_gate(v, FAKE_WRITE, false);
	ck_assert_int_eq(end(k), -EIO);
	ck_assert_uint_eq(stats().dirty, UNIT);
	v->error[FAKE_WRITE] = 0;
}
END_TEST

START_TEST(a_discard_during_a_fill_leaves_the_images_bytes)
{
	struct call *k;

	fake_gate(v, FAKE_READ, true);
	k = begin(READ, 0, FRAME, 0);
	fake_await(v, FAKE_READ, 1);
	cache_discard(d, 0, FRAME);
	fake_gate(v, FAKE_READ, false);
	ck_assert_int_eq(end(k), 0);
	ck_assert_uint_eq(at(UNIT + 1), v->disk[UNIT + 1]);
}
END_TEST

/* cache_int.h rule 7: blocks that are freed and used again while a reply with their old bytes is being sent. */
START_TEST(a_pin_keeps_its_bytes_when_its_blocks_get_another_owner)
{
	struct cache_seg old, now;

	put(0, FRAME, 1);
	ck_assert_int_eq(cache_pin(d, UNIT, UNIT, 0, &old, 1), 1);
	cache_discard(d, UNIT, UNIT);
	ck_assert_int_eq(cache_zero(d, UNIT, UNIT, CACHE_NOWAIT), -EAGAIN);
	put(UNIT, UNIT, 2);
	ck_assert_uint_eq(old.base[0], 1);
	ck_assert_uint_eq(old.base[UNIT - 1], 1);
	ck_assert_int_eq(cache_pin(d, 0, FRAME, CACHE_NOWAIT, &now, 1), 1);
	ck_assert_uint_eq(now.base[0], 1);
	ck_assert_uint_eq(now.base[UNIT], 2);
	ck_assert_uint_eq(now.base[2 * UNIT], 1);
	ck_assert_uint_eq(stats().used, 2 * FRAME);
	cache_unpin(&old, 1);
	ck_assert_uint_eq(stats().used, FRAME);
	ck_assert_uint_eq(stats().dirty, FRAME);
	cache_unpin(&now, 1);
	ck_assert_int_eq(cache_flush(d), 0);
	ck_assert_uint_eq(v->disk[0], 1);
	ck_assert_uint_eq(v->disk[UNIT], 2);
}
END_TEST

/* The same for blocks smaller than a unit, whose neighbours go on being used. */
START_TEST(a_pin_keeps_its_bytes_when_a_part_of_a_unit_gets_another_owner)
{
	struct cache_seg old, now;

	put(0, FRAME, 1);
	ck_assert_int_eq(cache_pin(d, 0, FRAME, 0, &old, 1), 1);
	cache_discard(d, UNIT - 1024, 3 * 1024);
	put(UNIT - 1024, 1024, 2);
	put(UNIT + 1024, 1024, 3);
	put(0, 1024, 4);
	for (uint32_t i = 0; i < FRAME; i += 512)
		ck_assert_uint_eq(old.base[i], 1);
	ck_assert_int_eq(cache_pin(d, 0, FRAME, CACHE_NOWAIT, &now, 1), 1);
	ck_assert_uint_eq(now.base[0], 4);
	ck_assert_uint_eq(now.base[1024], 1);
	ck_assert_uint_eq(now.base[UNIT - 1024], 2);
	ck_assert_uint_eq(now.base[UNIT + 1024], 3);
	ck_assert_uint_eq(now.base[UNIT + 2048], 1);
	cache_unpin(&old, 1);
	cache_unpin(&now, 1);
	/* Nobody looks at it any more: it stays where it is. */
	cache_discard(d, 0, 1024);
	put(0, 1024, 5);
	ck_assert_uint_eq(stats().used, FRAME);
	ck_assert_int_eq(cache_flush(d), 0);
	ck_assert_uint_eq(v->disk[0], 5);
	ck_assert_uint_eq(v->disk[1024], 1);
	ck_assert_uint_eq(v->disk[UNIT - 1], 2);
	ck_assert_uint_eq(v->disk[UNIT + 1024], 3);
}
END_TEST

START_TEST(a_pin_keeps_its_bytes_when_they_are_read_from_the_image_again)
{
	struct cache_seg old, now;

	put(0, 2 * UNIT, 1);
	ck_assert_int_eq(cache_pin(d, 0, UNIT, 0, &old, 1), 1);
	cache_discard(d, 0, UNIT);
	ck_assert_int_eq(cache_pin(d, 0, UNIT, 0, &now, 1), 1);
	ck_assert_uint_eq(old.base[8], 1);
	ck_assert_mem_eq(now.base, v->disk, UNIT);
	ck_assert_ptr_ne(old.base, now.base);
	cache_unpin(&old, 1);
	cache_unpin(&now, 1);
}
END_TEST

START_TEST(a_frame_discarded_whole_lives_until_its_last_pin_goes)
{
	struct cache_seg a, b;

	put(0, FRAME, 1);
	ck_assert_int_eq(cache_pin(d, 0, FRAME, 0, &a, 1), 1);
	ck_assert_int_eq(cache_pin(d, 0, FRAME, 0, &b, 1), 1);
	cache_discard(d, 0, FRAME);
	put(0, FRAME, 2);
	ck_assert_uint_eq(a.base[5], 1);
	cache_unpin(&a, 1);
	ck_assert_uint_eq(stats().used, 2 * FRAME);
	ck_assert_uint_eq(b.base[5], 1);
	cache_unpin(&b, 1);
	ck_assert_uint_eq(stats().used, FRAME);
	ck_assert_uint_eq(at(5), 2);
}
END_TEST

/* ---- beside what is held back ------------------------------------------------------------------------------------------- */

static const struct cache_range beside = {1024, 2048};

static void hold(uint64_t off, uint8_t byte)
{
	uint8_t b[1024];

	memset(b, byte, sizeof b);
	ck_assert_int_eq(cache_write(d, b, sizeof b, off, CACHE_HOLD), 0);
}

START_TEST(bytes_beside_what_is_held_are_written_without_it)
{
	uint8_t was = v->disk[0];

	hold(0, 1);
	put(1024, 2048, 2);
	ck_assert_int_eq(cache_writeback_ranges(d, &beside, 1), 0);
	ck_assert_uint_ne(v->disk[1024], 2);
	ck_assert_int_eq(cache_writeback_held(d, &beside, 1), 0);
	ck_assert_uint_eq(v->disk[0], was);
	ck_assert_uint_eq(v->disk[1024], 2);
	ck_assert_uint_eq(v->disk[3071], 2);
	ck_assert_uint_eq(stats().dirty, UNIT);
	cache_release(d, 0, 1024);
	ck_assert_int_eq(cache_flush(d), 0);
	ck_assert_uint_eq(v->disk[0], 1);
}
END_TEST

/* A journal's thread lets go of its block after one look and before the other. */
START_TEST(bytes_beside_what_was_held_a_moment_ago_are_written)
{
	hold(0, 1);
	put(1024, 2048, 2);
	ck_assert_int_eq(cache_writeback_ranges(d, &beside, 1), 0);
	cache_release(d, 0, 1024);
	ck_assert_int_eq(cache_writeback_held(d, &beside, 1), 0);
	ck_assert_uint_eq(v->disk[1024], 2);
	ck_assert_uint_eq(v->disk[3071], 2);
}
END_TEST

/* The same, and somebody else is writing them by then. */
START_TEST(bytes_beside_what_was_held_are_waited_for)
{
	struct call *other, *k;

	hold(0, 1);
	put(1024, 2048, 2);
	ck_assert_int_eq(cache_writeback_ranges(d, &beside, 1), 0);
	cache_release(d, 0, 1024);
	fake_gate(v, FAKE_WRITE, true);
	other = begin(WRITEBACK, 0, UNIT, 0);
	fake_await(v, FAKE_WRITE, 1);
	k = begin(WRITEBACK_HELD, beside.off, (uint32_t)beside.len, 0);
	nap(20);
	ck_assert(!atomic_load(&k->done));
	fake_gate(v, FAKE_WRITE, false);
	ck_assert_int_eq(end(k), 0);
	ck_assert_uint_eq(v->disk[1024], 2);
	ck_assert_int_eq(end(other), 0);
}
END_TEST

/* Another frame takes the place of the one that was found, since blocks beside them are used again while a reply with their old bytes
 * is being sent. */
START_TEST(bytes_beside_what_is_held_are_written_from_a_frame_that_moved)
{
	for (uint8_t round = 1; round <= 20; round++) {
		struct call *first, *moves, *k;
		struct cache_seg old;

		hold(0, round);
		put(1024, 2048, round);
		put(UNIT, UNIT, round);
		ck_assert_int_eq(cache_pin(d, UNIT, UNIT, 0, &old, 1), 1);
		fake_gate(v, FAKE_WRITE, true);
		first = begin(WRITEBACK_HELD, beside.off, (uint32_t)beside.len, 0);
		fake_await(v, FAKE_WRITE, 1);
		put(1024, 2048, round + 100);
		cache_discard(d, UNIT, UNIT);
		moves = begin(WRITE, UNIT, UNIT, round + 100);
		nap(5);
		k = begin(WRITEBACK_HELD, beside.off, (uint32_t)beside.len, 0);
		nap(5);
		fake_gate(v, FAKE_WRITE, false);
		ck_assert_int_eq(end(first), 0);
		ck_assert_int_eq(end(k), 0);
		ck_assert_uint_eq(v->disk[1024], round + 100);
		ck_assert_uint_eq(v->disk[3071], round + 100);
		ck_assert_int_eq(end(moves), 0);
		ck_assert_uint_eq(old.base[0], round);
		cache_unpin(&old, 1);
		cache_release(d, 0, 1024);
	}
}
END_TEST

/* ---- errors ------------------------------------------------------------------------------------------------------------- */

START_TEST(what_cannot_be_written_is_kept_and_tried_again)
{
	put(0, FRAME, 5);
	v->error[FAKE_WRITE] = -ENOSPC;
	ck_assert_int_eq(cache_writeback(d, 0, FRAME), -ENOSPC);
	ck_assert_uint_eq(stats().dirty, FRAME);
	ck_assert_int_eq(cache_flush(d), -ENOSPC);
	ck_assert_uint_eq(v->flushes, 0);
	ck_assert_uint_eq(at(0), 5);
	v->error[FAKE_WRITE] = 0;
	ck_assert_int_eq(cache_flush(d), 0);
	ck_assert_uint_eq(v->disk[FRAME - 1], 5);
}
END_TEST

START_TEST(errors_of_background_writeback_are_reported_once)
{
	int err = 0;

	put(0, UNIT, 5);
	v->error[FAKE_WRITE] = -EIO;
	cache_set_age(c, 1);
	for (int i = 0; i < 1000 && !err; i++) {
		nap(2);
		err = cache_dev_error(d);
	}
	ck_assert_int_eq(err, -EIO);
	ck_assert_int_eq(cache_dev_error(d), 0);
	ck_assert_uint_eq(stats().dirty, UNIT);
	/* And it heals without anybody asking. */
	v->error[FAKE_WRITE] = 0;
	for (int i = 0; i < 2500 && stats().dirty; i++)
		nap(2);
	ck_assert_uint_eq(stats().dirty, 0);
}
END_TEST

START_TEST(an_image_that_cannot_be_written_does_not_stop_the_others)
{
	struct vhd *v2 = fake_new(8u << 20);
	struct cache_dev *d2;
	uint8_t b[FRAME] = {0};
	uint64_t off = 0;
	int err = 0;

	ck_assert_int_eq(cache_attach(c, v2, 0, v2->size, &d2), 0);
	v2->error[FAKE_WRITE] = -EIO;
	/* Its own writers get the error in the end, */
	for (int i = 0; i < 3000 && err != -EIO; i++) {
		err = cache_write(d2, b, FRAME, off, CACHE_NOWAIT);
		off = (off + FRAME) % v2->size;
		if (err)
			nap(1);
	}
	ck_assert_int_eq(err, -EIO);
	/* those of another image go on: more than the cache holds. */
	for (off = 0; off < 3 * CACHE_MIN_LIMIT; off += FRAME)
		ck_assert_int_eq(cache_write(d, b, FRAME, off, 0), 0);
	ck_assert_int_eq(cache_detach(d2), -EIO);
	fake_free(v2);
}
END_TEST

START_TEST(a_read_only_image_is_not_written)
{
	v->read_only = true;
	ck_assert_int_eq(cache_detach(d), 0);
	ck_assert_int_eq(cache_attach(c, v, 0, v->size, &d), 0);
	ck_assert_int_eq(cache_write(d, "x", 1, 0, 0), -EROFS);
	ck_assert_int_eq(cache_flush(d), 0);
	ck_assert_uint_eq(v->flushes, 1); /* of the first detach */
}
END_TEST

/* Fail the 1st transfer, the 2nd, … until the work goes through; what was written before is never lost. */
START_TEST(any_transfer_may_fail)
{
	for (long fail = 0;; fail++) {
		uint8_t b[2 * UNIT];
		int err = 0;

		put(0, FRAME, (uint8_t)fail);
		ck_assert_int_eq(cache_flush(d), 0);
		cache_discard(d, 0, v->size);
		atomic_store(&v->fail_after, fail);
		memset(b, 0x5a, sizeof b);
		err = cache_write(d, b, sizeof b, UNIT / 2, 0);
		err = err ? err : cache_writeback(d, 0, FRAME);
		err = err ? err : cache_read(d, b, sizeof b, 9 * UNIT, 0);
		if (atomic_exchange(&v->fail_after, -1) >= 0 && !err)
			break;
		ck_assert_int_eq(err, -EIO);
		ck_assert_uint_eq(at(0), (uint8_t)fail);
		ck_assert_uint_eq(at(FRAME - 1), (uint8_t)fail);
		ck_assert(at(UNIT) == 0x5a || at(UNIT) == (uint8_t)fail);
		ck_assert_int_lt(fail, 20);
	}
}
END_TEST

/* ---- memory and eviction ------------------------------------------------------------------------------------------------ */

START_TEST(a_small_working_set_uses_little_memory)
{
	for (unsigned i = 0; i < 1000; i++) {
		put(0, UNIT, 1);
		cache_discard(d, 0, FRAME);
	}
	ck_assert_uint_eq(stats().used, 0);
	put(0, 3 * FRAME, 1);
	ck_assert_uint_eq(stats().used, 3 * FRAME);
}
END_TEST

static unsigned hot_misses(unsigned frames)
{
	unsigned misses = 0;
	uint8_t b;

	for (unsigned i = 0; i < frames; i++)
		misses += cache_read(d, &b, 1, (uint64_t)i * FRAME, CACHE_NOWAIT) != 0;
	return misses;
}

/* One read after the other over eight times the cache: each frame is touched many times, none is used twice. */
static void scan_beside_hot(uint32_t shift, uint32_t len)
{
	unsigned hot = FRAMES / 2;
	uint8_t b[3 * UNIT];

	for (int round = 0; round < 4; round++)
		for (unsigned i = 0; i < hot; i++)
			at((uint64_t)i * FRAME);
	for (uint64_t off = (uint64_t)hot * FRAME + shift; off + len <= v->size; off += len)
		ck_assert_int_eq(cache_read(d, b, len, off, 0), 0);
	ck_assert_uint_eq(hot_misses(hot), 0);
	ck_assert_uint_ge(stats().evictions, FRAMES);
	ck_assert_uint_le(stats().used, CACHE_MIN_LIMIT);
}

START_TEST(a_scan_does_not_push_out_what_is_used_again)
{
	scan_beside_hot(0, UNIT);
}
END_TEST

/* Reads that end inside units use those twice. */
START_TEST(nor_does_a_scan_of_odd_reads)
{
	scan_beside_hot(100, UNIT);
}
END_TEST

START_TEST(nor_does_a_scan_of_longer_odd_reads)
{
	scan_beside_hot(700, 2 * UNIT + 1000);
}
END_TEST

/* ---- ends --------------------------------------------------------------------------------------------------------------- */

START_TEST(a_device_in_the_middle_touches_nothing_else)
{
	uint64_t start = 63 * 512, len = FRAME + 5 * 512;
	struct cache_dev *p;
	uint8_t before, after;

	ck_assert_int_eq(cache_attach(c, v, start, len, &p), 0);
	before = v->disk[start - 1];
	after = v->disk[start + len];
	ck_assert_uint_eq(cache_dev_size(p), len);
	ck_assert_int_eq(cache_write(p, "abc", 3, len - 3, 0), 0);
	ck_assert_int_eq(cache_write(p, "abc", 3, len - 2, 0), -EINVAL);
	ck_assert_int_eq(cache_write(p, "xyz", 3, 0, 0), 0);
	/* The last unit is a short one: to its end is all of it. */
	ck_assert_int_eq(cache_zero(p, FRAME + UNIT - UNIT, 5 * 512 - 3, 0), 0);
	ck_assert_int_eq(cache_detach(p), 0);
	ck_assert_mem_eq(v->disk + start, "xyz", 3);
	ck_assert_mem_eq(v->disk + start + len - 3, "abc", 3);
	ck_assert_uint_eq(v->disk[start + len - 4], 0);
	ck_assert_uint_eq(v->disk[start - 1], before);
	ck_assert_uint_eq(v->disk[start + len], after);
}
END_TEST

START_TEST(ranges_outside_the_device_are_refused)
{
	struct cache_seg seg[2];
	uint8_t b[10] = {0};

	ck_assert_int_eq(cache_read(d, b, 10, v->size - 9, 0), -EINVAL);
	ck_assert_int_eq(cache_read(d, b, 10, UINT64_MAX - 4, 0), -EINVAL);
	ck_assert_int_eq(cache_zero(d, 1, UINT64_MAX, 0), -EINVAL);
	ck_assert_int_eq(cache_pin(d, v->size, 1, 0, seg, 2), -EINVAL);
	ck_assert_int_eq(cache_pin(d, 0, 0, 0, seg, 2), -EINVAL);
	ck_assert_int_eq(cache_writeback(d, v->size, 1), -EINVAL);
	cache_discard(d, UINT64_MAX - 4, 10);
	ck_assert_uint_eq(cache_prefetch(d, UINT64_MAX - 4, 10, &want), 0);
	cache_prefetch(d, v->size - 10, UINT64_MAX, &want);
}
END_TEST

/* ---- everything at once ------------------------------------------------------------------------------------------------- */

#define CELL 5120u /* threads own every fourth cell, so they share frames and units */
#define CELLS 2400u
#define THREADS 4u
#define OPS 4000

struct owner {
	pthread_t t;
	unsigned id;
	uint64_t seed;
	const char *said;
};

static uint8_t shadow[CELLS * CELL];

static uint64_t rnd(uint64_t *s, uint64_t below)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s % below;
}

static const char *check_pin(struct owner *o, uint64_t off, uint32_t len, unsigned flags)
{
	struct cache_seg seg[4];
	uint64_t pos = off;
	int n = cache_pin(d, off, len, flags, seg, 4);

	if (n == -EAGAIN && flags & CACHE_NOWAIT)
		n = cache_pin(d, off, len, 0, seg, 4);
	if (n < 0)
		return "pin failed";
	if (rnd(&o->seed, 8) == 0)
		nap(1);
	for (int i = 0; i < n; pos += seg[i++].len)
		if (memcmp(seg[i].base, shadow + pos, seg[i].len) != 0)
			return "bytes differ";
	cache_unpin(seg, (unsigned)n);
	return pos == off + len ? NULL : "pieces are missing";
}

static const char *one_op(struct owner *o)
{
	uint64_t cell = rnd(&o->seed, CELLS / THREADS) * THREADS + o->id, base = cell * CELL, from, to;
	uint32_t in = (uint32_t)rnd(&o->seed, CELL), len = 1 + (uint32_t)rnd(&o->seed, CELL - in);
	unsigned flags = (rnd(&o->seed, 2) ? CACHE_NOWAIT : 0) | (rnd(&o->seed, 4) ? 0 : CACHE_META) |
			 CACHE_WHO(rnd(&o->seed, 3));
	struct cache_want ahead;
	uint8_t b[CELL];
	int err = 0;

	switch (rnd(&o->seed, 12)) {
	case 0:
	case 1:
	case 2:
		memset(b, (int)rnd(&o->seed, 256), len);
		err = cache_write(d, b, len, base + in, flags);
		if (err == -EAGAIN && flags & CACHE_NOWAIT)
			err = cache_write(d, b, len, base + in, 0);
		memcpy(shadow + base + in, b, len);
		break;
	case 3:
		err = cache_writeback(d, base + in, rnd(&o->seed, 20) ? len : FRAME * 9);
		break;
	case 4:
		ahead.account = (uint16_t)rnd(&o->seed, 4);
		ahead.tag = rnd(&o->seed, 2);
		ahead.idle = rnd(&o->seed, 8) == 0;
		cache_prefetch(d, base + in, rnd(&o->seed, 10 * FRAME), &ahead);
		if (rnd(&o->seed, 4) == 0)
			cache_unwant(d, ahead.tag, UINT64_MAX);
		if (rnd(&o->seed, 4) == 0)
			cache_demote(d, base, rnd(&o->seed, 10 * FRAME),
				     &(struct cache_giver){.who = 1 + (uint16_t)rnd(&o->seed, 2),
							   .account = 1,
							   .alone = rnd(&o->seed, 3) == 0,
							   .gently = ahead.idle});
		break;
	case 5:
		/* Only whole units of the cell; then its bytes mean nothing until they are written. */
		from = (base + UNIT - 1) / UNIT * UNIT;
		to = (base + CELL) / UNIT * UNIT;
		cache_discard(d, from, to - from);
		err = cache_zero(d, from, to - from, 0);
		memset(shadow + from, 0, to - from);
		break;
	case 6:
		err = rnd(&o->seed, 50) ? 0 : cache_flush(d);
		break;
	default:
		return check_pin(o, base + in, len, flags);
	}
	return err ? "failed" : NULL;
}

static void *owner_main(void *arg)
{
	struct owner *o = arg;

	for (int i = 0; i < OPS && !o->said; i++)
		o->said = one_op(o);
	return NULL;
}

START_TEST(threads_that_share_units_see_their_own_bytes)
{
	struct owner o[THREADS];
	uint8_t *b = malloc(sizeof shadow);

	memcpy(shadow, v->disk, sizeof shadow);
	cache_set_age(c, 5);
	v->slow = true;
	for (unsigned i = 0; i < THREADS; i++) {
		o[i] = (struct owner){.id = i, .seed = 88172645463325252u + i};
		pthread_create(&o[i].t, NULL, owner_main, &o[i]);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(o[i].t, NULL);
		ck_assert_msg(!o[i].said, "thread %u: %s", i, o[i].said);
	}
	ck_assert_uint_le(stats().used, CACHE_MIN_LIMIT);
	ck_assert_uint_gt(stats().evictions, 0);
	ck_assert_int_eq(cache_read(d, b, sizeof shadow, 0, 0), 0);
	ck_assert_mem_eq(b, shadow, sizeof shadow);
	ck_assert_int_eq(cache_detach(d), 0);
	d = NULL;
	ck_assert_mem_eq(v->disk, shadow, sizeof shadow);
	/* What was read ahead has been accounted for, to the byte. */
	ck_assert_uint_eq(stats().ahead_waiting, 0);
	ck_assert_uint_eq(stats().ahead, stats().ahead_used + stats().ahead_wasted);
	ck_assert_uint_gt(stats().ahead_canceled, 0);
	free(b);
}
END_TEST

static Suite *suite(void)
{
	const TTest *const tests[] = {
		what_is_in_memory_is_not_read_again,
		missing_neighbours_of_several_frames_are_one_transfer,
		only_what_is_missing_is_read,
		a_unit_is_read_once_however_many_wait_for_it,
		a_failed_fill_says_so_and_leaves_nothing_behind,
		prefetched_bytes_need_no_waiting,
		detaching_waits_for_prefetches_under_way,
		nowait_does_not_wait_for_a_fill_of_another,
		a_write_that_would_wait_has_written_nothing,
		without_memory_nowait_gives_up_and_others_wait,
		a_range_larger_than_the_cache_is_refused,
		a_fill_never_overwrites_newer_bytes,
		a_write_during_writeback_is_written_again,
		writeback_of_a_range_leaves_others_alone,
		dirty_neighbours_become_one_transfer,
		several_ranges_are_one_batch,
		old_dirty_data_is_written_by_itself,
		writers_wait_when_too_much_is_dirty,
		discarded_bytes_are_not_written,
		bytes_written_after_a_discard_land_after_the_transfer_that_was_under_way,
		bytes_read_after_a_discard_are_those_that_stay,
		background_writeback_leaves_alone_what_is_being_written,
		a_discard_during_a_failing_writeback_does_not_come_back,
		a_discard_during_a_fill_leaves_the_images_bytes,
		a_pin_keeps_its_bytes_when_its_blocks_get_another_owner,
		a_pin_keeps_its_bytes_when_a_part_of_a_unit_gets_another_owner,
		a_pin_keeps_its_bytes_when_they_are_read_from_the_image_again,
		a_frame_discarded_whole_lives_until_its_last_pin_goes,
		bytes_beside_what_is_held_are_written_without_it,
		bytes_beside_what_was_held_a_moment_ago_are_written,
		bytes_beside_what_was_held_are_waited_for,
		bytes_beside_what_is_held_are_written_from_a_frame_that_moved,
		what_cannot_be_written_is_kept_and_tried_again,
		errors_of_background_writeback_are_reported_once,
		an_image_that_cannot_be_written_does_not_stop_the_others,
		a_read_only_image_is_not_written,
		any_transfer_may_fail,
		a_small_working_set_uses_little_memory,
		a_scan_does_not_push_out_what_is_used_again,
		nor_does_a_scan_of_odd_reads,
		nor_does_a_scan_of_longer_odd_reads,
		a_device_in_the_middle_touches_nothing_else,
		ranges_outside_the_device_are_refused,
		threads_that_share_units_see_their_own_bytes,
	};
	Suite *s = suite_create("cache races");
	TCase *t = tcase_create("cache races");

	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, setup, teardown);
	for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++)
		tcase_add_test(t, tests[i]);
	suite_add_tcase(s, t);
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

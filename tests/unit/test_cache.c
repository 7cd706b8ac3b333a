/* SPDX-License-Identifier: BSD-3-Clause */
/* test_cache.c - the block cache against a shadow copy, its limit, its promises about waiting */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vhd/base/cleanup.h"
#include "vhd/cache/cache.h"

#define DISK (48u << 20)

static char dir[64], path[96];
static struct vhd *vhd;
static struct cache *cache;
static struct cache_dev *dev;

static void open_all(uint64_t start, uint64_t len)
{
	const struct vhd_open_opts o = {.flags = VHD_OPEN_WRITE};

	ck_assert_int_eq(vhd_open(&vhd, path, &o, NULL), 0);
	ck_assert_int_eq(cache_new(&cache, CACHE_MIN_LIMIT), 0);
	ck_assert_int_eq(cache_attach(cache, vhd, start, len, &dev), 0);
}

static void close_all(void)
{
	ck_assert_int_eq(cache_detach(dev), 0);
	cache_free(cache);
	ck_assert_int_eq(vhd_close(vhd), 0);
}

static void setup(void)
{
	const struct vhd_create_opts o = {.type = VHD_DYNAMIC, .size = DISK};

	snprintf(dir, sizeof dir, "%s/vhdnfs-cache-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/a.vhd", dir);
	ck_assert_int_eq(vhd_create(path, &o, NULL), 0);
}

static void teardown(void)
{
	unlink(path);
	rmdir(dir);
}

struct worker {
	pthread_t t;
	uint64_t seed, off;
	uint32_t len; /* this thread's own part of the device */
	uint8_t *shadow;
};

static uint64_t rnd(uint64_t *s, uint64_t below)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s % below;
}

/* Random reads, writes, zeroing, discards and writebacks of one part. Parts share units and frames at their borders. */
static void *work(void *arg)
{
	struct worker *w = arg;
	AUTO(freep) uint8_t *buf = malloc(w->len);

	for (int i = 0; i < 1500; i++) {
		uint32_t off = (uint32_t)rnd(&w->seed, w->len),
			 len = 1 + (uint32_t)rnd(&w->seed, i % 20 ? 9000 : 300000);
		unsigned flags = rnd(&w->seed, 2) ? CACHE_NOWAIT : 0;
		int err = 0;

		len = len < w->len - off ? len : w->len - off;
		switch (rnd(&w->seed, 6)) {
		case 0:
		case 1:
			memset(buf, (int)rnd(&w->seed, 256), len);
			err = cache_write(dev, buf, len, w->off + off, flags);
			if (err == -EAGAIN)
				err = cache_write(dev, buf, len, w->off + off, 0);
			memcpy(w->shadow + off, buf, len);
			break;
		case 2:
			err = cache_zero(dev, w->off + off, len, 0);
			memset(w->shadow + off, 0, len);
			break;
		case 3:
			err = rnd(&w->seed, 4) ? 0 : cache_writeback(dev, w->off + off, len);
			break;
		default:
			err = cache_read(dev, buf, len, w->off + off, flags);
			if (err == -EAGAIN)
				err = cache_read(dev, buf, len, w->off + off, 0);
			if (!err && memcmp(buf, w->shadow + off, len) != 0)
				return (void *)"bytes differ";
		}
		if (err)
			return (void *)strerror(-err);
	}
	return NULL;
}

static void stress(uint64_t start, uint64_t len)
{
	struct worker w[4];
	struct cache_stats st;
	uint32_t part;

	open_all(start, len);
	part = (uint32_t)(cache_dev_size(dev) / 4);
	for (unsigned i = 0; i < 4; i++) {
		w[i] = (struct worker){.seed = 12345 + i, .off = (uint64_t)i * part, .len = part};
		w[i].shadow = calloc(1, part);
		ck_assert_ptr_nonnull(w[i].shadow);
		pthread_create(&w[i].t, NULL, work, &w[i]);
	}
	for (unsigned i = 0; i < 4; i++) {
		void *said;

		pthread_join(w[i].t, &said);
		ck_assert_msg(!said, "%s", (char *)said);
	}
	cache_stats(cache, &st);
	ck_assert_uint_le(st.used, st.limit);
	ck_assert_uint_gt(st.evictions, 0);
	close_all();
	/* What was written is in the image. */
	open_all(start, len);
	for (unsigned i = 0; i < 4; i++) {
		AUTO(freep) uint8_t *buf = malloc(part);

		ck_assert_int_eq(vhd_read(vhd, buf, part / 512 * 512, start + w[i].off / 512 * 512), 0);
		if (w[i].off % 512 == 0)
			ck_assert_mem_eq(buf, w[i].shadow, part / 512 * 512);
		ck_assert_int_eq(cache_read(dev, buf, part, w[i].off, 0), 0);
		ck_assert_mem_eq(buf, w[i].shadow, part);
		free(w[i].shadow);
	}
	close_all();
}

START_TEST(four_threads_see_their_own_writes)
{
	stress(0, 40u << 20);
}
END_TEST

START_TEST(a_device_that_begins_and_ends_anywhere_works)
{
	stress(63 * 512, (20u << 20) + 3 * 512);
}
END_TEST

START_TEST(nowait_never_reads_the_image)
{
	struct cache_seg seg[20];
	struct cache_stats st;
	uint8_t b[100];

	open_all(0, 8u << 20);
	ck_assert_int_eq(cache_read(dev, b, sizeof b, 5000, CACHE_NOWAIT), -EAGAIN);
	ck_assert_int_eq(cache_pin(dev, 0, 1u << 20, CACHE_NOWAIT, seg, 20), -EAGAIN);
	ck_assert_int_eq(cache_write(dev, b, sizeof b, 5000, CACHE_NOWAIT), -EAGAIN);
	cache_stats(cache, &st);
	ck_assert_uint_eq(st.bytes_read, 0);
	/* A whole unit needs no reading. */
	ck_assert_int_eq(cache_zero(dev, 8192, 4096, CACHE_NOWAIT), 0);
	ck_assert_int_eq(cache_read(dev, b, sizeof b, 8192, CACHE_NOWAIT), 0);
	close_all();
}
END_TEST

START_TEST(a_pin_gives_the_range_in_pieces)
{
	struct cache_seg seg[20];
	uint32_t total = 0;
	int n;

	open_all(0, 8u << 20);
	n = cache_pin(dev, 1000, 1u << 20, 0, seg, 20);
	ck_assert_int_eq(n, 17);
	for (int i = 0; i < n; i++)
		total += seg[i].len;
	ck_assert_uint_eq(total, 1u << 20);
	cache_unpin(seg, 17);
	ck_assert_int_eq(cache_pin(dev, (8u << 20) - 10, 11, 0, seg, 20), -EINVAL);
	close_all();
}
END_TEST

START_TEST(discarded_bytes_are_not_written)
{
	struct cache_stats st;
	uint8_t b[4096];

	open_all(0, 8u << 20);
	memset(b, 7, sizeof b);
	ck_assert_int_eq(cache_write(dev, b, sizeof b, 65536, 0), 0);
	cache_discard(dev, 65536, 4096);
	ck_assert_int_eq(cache_flush(dev), 0);
	cache_stats(cache, &st);
	ck_assert_uint_eq(st.bytes_written, 0);
	ck_assert_uint_eq(st.dirty, 0);
	close_all();
}
END_TEST

/* What was used again and again is all in use, and so is something else: the rest must still make room. */
START_TEST(frames_in_use_in_both_queues_do_not_stop_eviction)
{
	enum { FRAMES = CACHE_MIN_LIMIT / CACHE_FRAME };
	struct cache_seg hot[2], other;
	uint8_t b[CACHE_UNIT];

	open_all(0, DISK);
	for (unsigned round = 0; round < 4; round++)
		for (unsigned i = 0; i < 2; i++)
			ck_assert_int_eq(cache_read(dev, b, sizeof b, (uint64_t)i * CACHE_FRAME, 0), 0);
	for (unsigned i = 2; i < 3 * FRAMES; i++)
		ck_assert_int_eq(cache_read(dev, b, sizeof b, (uint64_t)i * CACHE_FRAME, 0), 0);
	for (unsigned i = 0; i < 2; i++)
		ck_assert_int_eq(cache_pin(dev, (uint64_t)i * CACHE_FRAME, CACHE_UNIT, 0, &hot[i], 1), 1);
	ck_assert_int_eq(cache_pin(dev, (uint64_t)3 * FRAMES * CACHE_FRAME, CACHE_UNIT, 0, &other, 1), 1);
	for (unsigned i = 0; i < 4 * FRAMES; i++)
		ck_assert_int_eq(cache_read(dev, b, sizeof b, (uint64_t)(4 * FRAMES + i) * CACHE_FRAME, 0), 0);
	cache_unpin(hot, 2);
	cache_unpin(&other, 1);
	close_all();
}
END_TEST

/* ---- memory ----------------------------------------------------------------------------------------------------- */

#define FRAMES_USED 512u /* 32 MiB */

/* KiB of what the process says about the memory at [from, to): "Rss", "AnonHugePages". */
static unsigned long memory_kib(const uint8_t *from, const uint8_t *to, const char *what)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	uintptr_t a = 0, b = 0;
	unsigned long kib, sum = 0;
	char line[512], name[64];

	ck_assert_ptr_nonnull(f);
	while (fgets(line, sizeof line, f)) {
		if (sscanf(line, "%lx-%lx ", &a, &b) == 2)
			continue;
		if (a < (uintptr_t)to && b > (uintptr_t)from && sscanf(line, "%63[^:]: %lu", name, &kib) == 2 &&
		    strcmp(name, what) == 0)
			sum += kib;
	}
	fclose(f);
	return sum;
}

/* The first @each bytes of FRAMES_USED frames. Out: where the frames are in memory. */
static void write_frames(uint32_t each, uint8_t **from, uint8_t **to)
{
	static uint8_t b[CACHE_FRAME];
	struct cache_seg seg;

	*from = (uint8_t *)UINTPTR_MAX;
	*to = NULL;
	memset(b, 7, sizeof b);
	for (uint32_t i = 0; i < FRAMES_USED; i++) {
		ck_assert_int_eq(cache_write(dev, b, each, (uint64_t)i * CACHE_FRAME, 0), 0);
		ck_assert_int_eq(cache_pin(dev, (uint64_t)i * CACHE_FRAME, CACHE_UNIT, 0, &seg, 1), 1);
		*from = seg.base < *from ? seg.base : *from;
		*to = seg.base + CACHE_FRAME > *to ? seg.base + CACHE_FRAME : *to;
		cache_unpin(&seg, 1);
	}
}

static bool machine_has_huge_pages(void)
{
	FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "re");
	char line[128];
	bool has = f && fgets(line, sizeof line, f) && !strstr(line, "[never]");

	if (f)
		fclose(f);
	return has;
}

static void open_large(void)
{
	const struct vhd_open_opts o = {.flags = VHD_OPEN_WRITE};

	ck_assert_int_eq(vhd_open(&vhd, path, &o, NULL), 0);
	ck_assert_int_eq(cache_new(&cache, 2 * DISK), 0);
	ck_assert_int_eq(cache_attach(cache, vhd, 0, DISK, &dev), 0);
}

START_TEST(frames_that_are_filled_lie_in_huge_pages)
{
	uint8_t *from, *to;

	open_large();
	write_frames(CACHE_FRAME, &from, &to);
	/* Memory may be in pieces, so not all of it. */
	if (machine_has_huge_pages())
		ck_assert_uint_ge(memory_kib(from, to, "AnonHugePages"), 4096);
	close_all();
}
END_TEST

START_TEST(a_page_here_and_there_does_not_make_whole_frames_resident)
{
	uint8_t *from, *to;

	open_large();
	write_frames(CACHE_UNIT, &from, &to);
	ck_assert_uint_le(memory_kib(from, to, "Rss"), 2 * FRAMES_USED * (CACHE_UNIT / 1024));
	close_all();
}
END_TEST

START_TEST(memory_grows_with_use_and_not_with_the_limit)
{
	uint8_t *from, *to;

	open_large();
	write_frames(CACHE_FRAME, &from, &to);
	ck_assert_uint_le(memory_kib(from, from + 2 * DISK, "Rss"), (FRAMES_USED * (CACHE_FRAME / 1024)) + 4096);
	close_all();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cache");
	TCase *t = tcase_create("cache");
	SRunner *r;
	int failed;

	tcase_set_timeout(t, 120);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, four_threads_see_their_own_writes);
	tcase_add_test(t, a_device_that_begins_and_ends_anywhere_works);
	tcase_add_test(t, nowait_never_reads_the_image);
	tcase_add_test(t, a_pin_gives_the_range_in_pieces);
	tcase_add_test(t, discarded_bytes_are_not_written);
	tcase_add_test(t, frames_in_use_in_both_queues_do_not_stop_eviction);
	tcase_add_test(t, frames_that_are_filled_lie_in_huge_pages);
	tcase_add_test(t, a_page_here_and_there_does_not_make_whole_frames_resident);
	tcase_add_test(t, memory_grows_with_use_and_not_with_the_limit);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}

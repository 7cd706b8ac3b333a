/* SPDX-License-Identifier: BSD-3-Clause */
/* test_cache_share.c - children of one parent: its bytes are in memory once, and what one child writes no other sees */
#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vhd/base/cleanup.h"
#include "vhd/cache/cache_int.h"
#include "vhd/image/snapshot.h"

enum { DISK = 24 << 20, CHILDREN = 3, STEP = 12288 };

static char dir[64], base_path[96];
static struct cache *cache;
static struct child {
	char path[96];
	struct vhd *v;
	struct cache_dev *d;
	uint8_t *shadow;
	unsigned seed;
	pthread_t t;
} child[CHILDREN];

static void path_of(char *to, const char *name)
{
	snprintf(to, 96, "%s/%s.vhd", dir, name);
}

static void make_base(uint8_t *content)
{
	const struct vhd_create_opts co = {.type = VHD_DYNAMIC, .size = DISK, .exact = true, .block_size = 1 << 20};
	const struct vhd_open_opts oo = {.flags = VHD_OPEN_WRITE};
	unsigned seed = 7;
	struct vhd *v;

	path_of(base_path, "base");
	ck_assert_int_eq(vhd_create(base_path, &co, NULL), 0);
	ck_assert_int_eq(vhd_open(&v, base_path, &oo, NULL), 0);
	for (size_t i = 0; i < DISK; i++)
		content[i] = (i >> 20) % 3 == 2 ? 0 : (uint8_t)rand_r(&seed);
	for (size_t at = 0; at < DISK; at += 1 << 20)
		if (content[at + 5] || content[at + 6])
			ck_assert_int_eq(vhd_write(v, content + at, 1 << 20, at), 0);
	ck_assert_int_eq(vhd_close(v), 0);
}

static void open_child(struct child *c)
{
	const struct vhd_open_opts oo = {.flags = VHD_OPEN_WRITE};

	ck_assert_int_eq(vhd_open(&c->v, c->path, &oo, NULL), 0);
	ck_assert_int_eq(cache_attach(cache, c->v, 4096, DISK - 8192, &c->d), 0);
}

static void close_child(struct child *c)
{
	ck_assert_int_eq(cache_detach(c->d), 0);
	ck_assert_int_eq(vhd_close(c->v), 0);
}

static void setup_limit(size_t limit)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(dir, sizeof dir, "%s/vhdnfs-share-XXXXXX", tmp ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	for (unsigned i = 0; i < CHILDREN; i++)
		child[i].shadow = malloc(DISK);
	make_base(child[0].shadow);
	ck_assert_int_eq(cache_new(&cache, limit), 0);
	for (unsigned i = 0; i < CHILDREN; i++) {
		struct vhd_create_opts co = {.type = VHD_DIFF, .parent = base_path, .block_size = 512 << 10};
		char name[16];

		snprintf(name, sizeof name, "child%u", i);
		path_of(child[i].path, name);
		child[i].seed = i + 1;
		memcpy(child[i].shadow, child[0].shadow, DISK);
		ck_assert_int_eq(vhd_create(child[i].path, &co, NULL), 0);
		open_child(&child[i]);
	}
}

static void teardown(void)
{
	char cmd[100];

	for (unsigned i = 0; i < CHILDREN; i++) {
		close_child(&child[i]);
		free(child[i].shadow);
	}
	cache_free(cache);
	snprintf(cmd, sizeof cmd, "rm -r %s", dir);
	ck_assert_int_eq(system(cmd), 0);
}

static void check(struct child *c, uint64_t off, size_t len)
{
	uint8_t *b = malloc(len);

	ck_assert_int_eq(cache_read(c->d, b, len, off, 0), 0);
	ck_assert_msg(memcmp(b, c->shadow + 4096 + off, len) == 0, "%s: bytes at %llu", c->path,
		      (unsigned long long)off);
	free(b);
}

static void change(struct child *c, uint64_t off, size_t len)
{
	uint8_t *to = c->shadow + 4096 + off;

	for (size_t i = 0; i < len; i++)
		to[i] = (uint8_t)rand_r(&c->seed);
	ck_assert_int_eq(cache_write(c->d, to, len, off, 0), 0);
}

static uint64_t bytes_read(void)
{
	struct cache_stats st;

	cache_stats(cache, &st);
	return st.bytes_read;
}

START_TEST(what_one_child_read_the_next_finds_in_memory)
{
	uint64_t before;

	check(&child[0], 0, DISK - 8192);
	before = bytes_read();
	check(&child[1], 0, DISK - 8192);
	check(&child[2], 0, DISK - 8192);
	/* All but the last frame, which the parent's device does not fill. */
	ck_assert_uint_le(bytes_read() - before, 2 * CACHE_FRAME);
}
END_TEST

START_TEST(what_one_child_writes_no_other_sees)
{
	for (unsigned i = 0; i < CHILDREN; i++)
		check(&child[i], 0, DISK - 8192);
	change(&child[0], 100000, 300000);
	change(&child[1], 5000000, 17);
	for (unsigned i = 0; i < CHILDREN; i++)
		check(&child[i], 0, DISK - 8192);
	for (unsigned i = 0; i < CHILDREN; i++)
		ck_assert_int_eq(cache_flush(child[i].d), 0);
	for (unsigned i = 0; i < CHILDREN; i++)
		check(&child[i], 0, DISK - 8192);
}
END_TEST

enum { MANY = 50 };

static pthread_barrier_t all_there;

static void *open_and_check(void *arg)
{
	struct child *c = arg;

	pthread_barrier_wait(&all_there);
	open_child(c);
	check(c, 0, DISK - 8192);
	return NULL;
}

/* However many children there are, opened, attached and read at once: the parent is open once, its bytes are read once, and in memory
 * once. */
START_TEST(fifty_children_hold_one_copy)
{
	static struct child many[MANY];
	struct cache_stats st;

	for (unsigned i = 0; i < MANY; i++) {
		struct vhd_create_opts co = {.type = VHD_DIFF, .parent = base_path};
		char name[16];

		snprintf(name, sizeof name, "many%u", i);
		path_of(many[i].path, name);
		many[i].shadow = child[0].shadow;
		ck_assert_int_eq(vhd_create(many[i].path, &co, NULL), 0);
	}
	for (unsigned i = 0; i < CHILDREN; i++)
		close_child(&child[i]);
	pthread_barrier_init(&all_there, NULL, MANY);
	for (unsigned i = 0; i < MANY; i++)
		ck_assert_int_eq(pthread_create(&many[i].t, NULL, open_and_check, &many[i]), 0);
	for (unsigned i = 0; i < MANY; i++)
		pthread_join(many[i].t, NULL);
	pthread_barrier_destroy(&all_there);
	for (unsigned i = 1; i < MANY; i++) {
		ck_assert_ptr_eq(vhd_backing(many[i].v), vhd_backing(many[0].v));
		ck_assert_ptr_eq(atomic_load(&many[i].d->below), atomic_load(&many[0].d->below));
	}
	cache_stats(cache, &st);
	/* A frame at the end, which the parent's device does not fill, is each child's own. */
	ck_assert_uint_le(st.used, DISK + MANY * 2 * CACHE_FRAME);
	ck_assert_uint_le(st.bytes_read, DISK + MANY * 2 * CACHE_FRAME);
	for (unsigned i = 0; i < MANY; i++)
		close_child(&many[i]);
	for (unsigned i = 0; i < CHILDREN; i++)
		open_child(&child[i]);
}
END_TEST

static void *attach_below(void *arg)
{
	share_attach(arg);
	return NULL;
}

/* Both look for the parent's device, find none, and wait to make one. */
START_TEST(two_that_come_at_once_share_one_device)
{
	close_child(&child[2]);
	for (unsigned i = 0; i < 2; i++)
		share_detach(atomic_exchange(&child[i].d->below, NULL));
	lock_take(&cache->mu);
	for (unsigned i = 0; i < 2; i++)
		ck_assert_int_eq(pthread_create(&child[i].t, NULL, attach_below, child[i].d), 0);
	usleep(100000); /* if one is late, the test says less */
	lock_drop(&cache->mu);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(child[i].t, NULL);
	ck_assert_ptr_nonnull(atomic_load(&child[0].d->below));
	ck_assert_ptr_eq(atomic_load(&child[0].d->below), atomic_load(&child[1].d->below));
	open_child(&child[2]);
	for (unsigned i = 0; i < CHILDREN; i++)
		check(&child[i], 0, DISK - 8192);
}
END_TEST

/* A chain of ten: what each layer holds is in memory once, under that layer, and a read goes there at once. */
START_TEST(each_layer_keeps_what_is_its_own)
{
	struct child *c = &child[0], top = {.seed = 9, .shadow = child[0].shadow};
	const struct vhd_open_opts oo = {.flags = VHD_OPEN_WRITE};
	enum { DEEP = 8 };

	for (unsigned n = 0; n < DEEP; n++) {
		char as[120];

		change(c, n * (2u << 20) + 70000, 200000);
		ck_assert_int_eq(cache_flush(c->d), 0);
		snprintf(as, sizeof as, "%s@%u.vhd", c->path, n);
		cache_pause(c->d);
		ck_assert_int_eq(vhd_snapshot(&c->v, as, &oo, NULL), 0);
		cache_resume(c->d, c->v);
		check(c, 0, DISK - 8192);
		/* Another child of what was just made a parent. */
		if (n == DEEP - 1) {
			struct vhd_create_opts co = {.type = VHD_DIFF, .parent = as};

			path_of(top.path, "top");
			ck_assert_int_eq(vhd_create(top.path, &co, NULL), 0);
		}
	}
	/* What was read before the snapshots is in frames of the first child. */
	open_child(&top);
	check(&top, 0, DISK - 8192);
	for (unsigned n = 0; n < DEEP; n++) {
		struct cache_dev *in, *below = atomic_load(&top.d->below);
		struct frame *f = share_find(top.d, (n * (2u << 20) + 131072) >> FRAME_SHIFT, &in);

		ck_assert_ptr_nonnull(f);
		ck_assert_ptr_eq(in, below->layer[DEEP - 1 - n]);
		ck_assert_ptr_eq(share_dev_of(top.d, f), in);
		cache_unpin(&(struct cache_seg){.pin = f}, 1);
	}
	change(&top, 3 << 20, 100);
	ck_assert_int_eq(cache_flush(top.d), 0);
	check(&top, 0, DISK - 8192);
	close_child(&top);
	/* No other child sees that. */
	memcpy(child[0].shadow + 4096 + (3 << 20), child[1].shadow + 4096 + (3 << 20), 100);
	check(&child[0], 0, DISK - 8192);
}
END_TEST

static atomic_bool has_read;

static void *read_one(void *arg)
{
	check(arg, 1 << 20, 4096);
	atomic_store(&has_read, true);
	return NULL;
}

/* A walk through a bucket may be overtaken, and then misses a frame that is there. Here it finds the bucket empty. */
START_TEST(what_was_written_is_found_when_a_look_is_overtaken)
{
	uint64_t key = frame_key(child[0].d, (1 << 20) >> FRAME_SHIFT);
	struct shard *s = key_shard(cache, key);
	struct frame *frames;
	pthread_t t;

	check(&child[1], 1 << 20, 65536);
	change(&child[0], 1 << 20, 4096);
	lock_take(&s->mu);
	frames = atomic_exchange(&cache->buckets[key_bucket(cache, key)], NULL);
	ck_assert_int_eq(pthread_create(&t, NULL, read_one, &child[0]), 0);
	/* Who looks below without asking again ends now; who asks again waits for the lock. */
	for (unsigned i = 0; i < 200 && !atomic_load(&has_read); i++)
		usleep(1000);
	atomic_store(&cache->buckets[key_bucket(cache, key)], frames);
	lock_drop(&s->mu);
	pthread_join(t, NULL);
}
END_TEST

/* No device for the new parent: the child does without, and whoever looks at frames of the old ones still finds whose they are. */
START_TEST(a_snapshot_without_memory_for_its_device)
{
	const struct vhd_open_opts oo = {.flags = VHD_OPEN_WRITE};
	struct child *c = &child[0];
	struct cache_dev *in;
	struct frame *f;
	uint32_t id;

	check(c, 1 << 20, 65536);
	f = share_find(c->d, (1 << 20) >> FRAME_SHIFT, &in);
	ck_assert(f && in == atomic_load(&c->d->below));
	for (unsigned n = 0; n < 2; n++) {
		char as[120];

		snprintf(as, sizeof as, "%s@%u.vhd", c->path, n);
		change(c, 5 << 20, 4096);
		ck_assert_int_eq(cache_flush(c->d), 0);
		cache_pause(c->d);
		ck_assert_int_eq(vhd_snapshot(&c->v, as, &oo, NULL), 0);
		lock_take(&cache->mu);
		id = cache->next_id;
		cache->next_id = n ? id : 0;
		lock_drop(&cache->mu);
		cache_resume(c->d, c->v);
		ck_assert(!atomic_load(&c->d->below) == !n);
		lock_take(&cache->mu);
		cache->next_id = n ? cache->next_id : id;
		lock_drop(&cache->mu);
		ck_assert_ptr_eq(share_dev_of(c->d, f), in);
		check(c, 0, DISK - 8192);
	}
	cache_unpin(&(struct cache_seg){.pin = f}, 1);
}
END_TEST

/* Half of the cache is the most that may wait for readers, whosever frames it is in. */
START_TEST(what_is_read_ahead_from_a_parent_is_limited_too)
{
	struct cache_dev_stats of;
	struct cache_stats st;

	for (uint64_t off = 0; off < 2 * CACHE_MIN_LIMIT; off += CACHE_FRAME) {
		cache_prefetch(child[0].d, off, CACHE_FRAME, &(struct cache_want){.tag = 1});
		do { /* until it was read */
			usleep(100);
			cache_dev_stats(child[0].d, &of);
		} while (of.ahead_waiting);
		cache_stats(cache, &st);
		ck_assert_uint_le(st.ahead_waiting, CACHE_MIN_LIMIT / 2);
	}
	ck_assert_uint_gt(st.ahead_waiting, CACHE_MIN_LIMIT / 4);
}
END_TEST

static void read_as(struct child *c, unsigned from, unsigned n, unsigned who)
{
	uint8_t *b = malloc(n * CACHE_FRAME);

	ck_assert_int_eq(cache_read(c->d, b, n * CACHE_FRAME, from * (uint64_t)CACHE_FRAME, CACHE_WHO(who)), 0);
	free(b);
}

/* How many frames more than before are given up when a child gives up some. */
static unsigned give_up(struct child *c, unsigned from, unsigned n, const struct cache_giver *g)
{
	struct cache_stats was, now;

	cache_stats(cache, &was);
	cache_demote(c->d, from * (uint64_t)CACHE_FRAME, n * (uint64_t)CACHE_FRAME, g);
	cache_stats(cache, &now);
	return (unsigned)((now.given_up - was.given_up) / CACHE_FRAME);
}

/* What a child has from its parents, unless readers of another one have it too. */
START_TEST(a_child_gives_up_what_is_in_frames_of_its_parents)
{
	const struct cache_giver one = {.who = 1}, alone = {.who = 1, .alone = true};
	const struct vhd_open_opts oo = {.flags = VHD_OPEN_WRITE};
	struct child *c = &child[0];
	char as[120];

	change(c, 3 * CACHE_FRAME, CACHE_FRAME);
	read_as(c, 0, 8, 1);
	read_as(&child[1], 1, 1, 2);
	read_as(&child[1], 5, 1, 2);
	ck_assert_uint_eq(give_up(c, 0, 4, &one), 3);
	/* Alone with the file in its image, not in memory. */
	ck_assert_uint_eq(give_up(c, 4, 4, &alone), 3);
	/* Somebody who is gone, of this child or another: as long as there is another. */
	read_as(c, 8, 2, 3);
	ck_assert_uint_eq(give_up(c, 8, 2, &alone), 0);
	close_child(&child[1]);
	ck_assert_uint_eq(give_up(c, 8, 2, &alone), 0);
	close_child(&child[2]);
	ck_assert_uint_eq(give_up(c, 8, 1, &alone), 1);
	/* Through the image that a snapshot puts between. */
	snprintf(as, sizeof as, "%s@1.vhd", c->path);
	ck_assert_int_eq(cache_flush(c->d), 0);
	cache_pause(c->d);
	ck_assert_int_eq(vhd_snapshot(&c->v, as, &oo, NULL), 0);
	cache_resume(c->d, c->v);
	ck_assert_uint_eq(give_up(c, 9, 1, &alone), 1);
	open_child(&child[1]);
	open_child(&child[2]);
	read_as(c, 10, 1, 3);
	ck_assert_uint_eq(give_up(c, 10, 1, &alone), 0);
}
END_TEST

static void *storm(void *arg)
{
	struct child *c = arg;

	for (unsigned n = 0; n < 1500; n++) {
		uint64_t off = (uint64_t)rand_r(&c->seed) % (DISK - 8192 - STEP);
		size_t len = 1 + (size_t)rand_r(&c->seed) % STEP;

		switch (rand_r(&c->seed) % 8) {
		case 0:
		case 1:
			change(c, off, len);
			break;
		case 2:
			cache_prefetch(c->d, off, 200000, &(struct cache_want){.account = 1});
			if (n % 4 == 0)
				cache_demote(c->d, off, 300000, &(struct cache_giver){.who = 1, .alone = n % 8 == 0});
			break;
		case 3:
			if (n % 50 == 3)
				ck_assert_int_eq(cache_flush(c->d), 0);
			break;
		default:
			check(c, off, len);
		}
	}
	return NULL;
}

static void storm_all(void)
{
	for (unsigned i = 0; i < CHILDREN; i++)
		ck_assert_int_eq(pthread_create(&child[i].t, NULL, storm, &child[i]), 0);
	for (unsigned i = 0; i < CHILDREN; i++)
		pthread_join(child[i].t, NULL);
	for (unsigned i = 0; i < CHILDREN; i++)
		check(&child[i], 0, DISK - 8192);
}

START_TEST(children_that_read_and_write_at_once_in_little_memory)
{
	storm_all();
}
END_TEST

static atomic_bool done;

static void *take_snapshots(void *arg)
{
	const struct vhd_open_opts oo = {.flags = VHD_OPEN_WRITE};

	(void)arg;
	for (unsigned n = 0; n < 6; n++) {
		struct child *c = &child[n % CHILDREN];
		struct why why = {.line = ""};
		char as[120];

		usleep(20000);
		snprintf(as, sizeof as, "%s@%u.vhd", c->path, n);
		cache_pause(c->d);
		ck_assert_msg(vhd_snapshot(&c->v, as, &oo, &why) == 0, "%s", why.line);
		cache_resume(c->d, c->v);
	}
	atomic_store(&done, true);
	return NULL;
}

START_TEST(images_are_replaced_by_snapshots_meanwhile)
{
	pthread_t t;

	ck_assert_int_eq(pthread_create(&t, NULL, take_snapshots, NULL), 0);
	do
		storm_all();
	while (!atomic_load(&done));
	pthread_join(t, NULL);
	storm_all();
}
END_TEST

static void setup(void)
{
	setup_limit(128u << 20);
}

static void setup_small(void)
{
	setup_limit(CACHE_MIN_LIMIT);
}

int main(void)
{
	Suite *s = suite_create("shared frames");
	TCase *t = tcase_create("children"), *u = tcase_create("little memory");
	SRunner *r;
	int failed;

	tcase_set_timeout(t, 120);
	tcase_set_timeout(u, 300);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_checked_fixture(u, setup_small, teardown);
	tcase_add_test(t, what_one_child_read_the_next_finds_in_memory);
	tcase_add_test(t, what_one_child_writes_no_other_sees);
	tcase_add_test(t, fifty_children_hold_one_copy);
	tcase_add_test(t, two_that_come_at_once_share_one_device);
	tcase_add_test(t, each_layer_keeps_what_is_its_own);
	tcase_add_test(t, what_was_written_is_found_when_a_look_is_overtaken);
	tcase_add_test(t, a_snapshot_without_memory_for_its_device);
	tcase_add_test(t, a_child_gives_up_what_is_in_frames_of_its_parents);
	tcase_add_test(u, what_one_child_writes_no_other_sees);
	tcase_add_test(u, what_is_read_ahead_from_a_parent_is_limited_too);
	tcase_add_test(u, children_that_read_and_write_at_once_in_little_memory);
	tcase_add_test(u, images_are_replaced_by_snapshots_meanwhile);
	suite_add_tcase(s, t);
	suite_add_tcase(s, u);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}

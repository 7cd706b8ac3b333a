/* SPDX-License-Identifier: BSD-3-Clause */
/* test_vhd_layer.c - what is remembered of a chain: it says what a walk from image to image says, and takes little memory */
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/image_fixture.h"
#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/image/snapshot.h"
#include "vhd/image/vhd_int.h"

#define SIZE (12 * MIB)
#define IMAGES 13u
#define STEPS 40
#define THREADS 4

static const uint32_t block_sizes[] = {512 << 10, 1 << 20, 2 << 20, 4 << 20};

/* A chain whose top is open. */
struct chain {
	char path[VHD_CHAIN_MAX][128];
	unsigned top;
	struct vhd *v;
};

static unsigned made; /* files */

static void open_top(struct chain *c)
{
	const struct vhd_open_opts o = {.flags = VHD_OPEN_WRITE, .force_parent = true};

	ck_assert_msg(vhd_open(&c->v, c->path[c->top], &o, &fx_why) == 0, "%s", fx_why.line);
}

static void close_top(struct chain *c)
{
	ck_assert_int_eq(vhd_close(TAKE(c->v)), 0);
}

static void make_base(struct chain *c, enum vhd_type type, uint64_t size, uint32_t block)
{
	const struct vhd_create_opts o = {.type = type, .size = size, .block_size = block, .exact = true};

	snprintf(c->path[0], sizeof c->path[0], "%s/image%u", fx_dir, made++);
	ck_assert_msg(vhd_create(c->path[0], &o, &fx_why) == 0, "%s", fx_why.line);
	c->top = 0;
}

static void make_child(struct chain *c, uint32_t block)
{
	const struct vhd_create_opts o = {.type = VHD_DIFF, .parent = c->path[c->top], .block_size = block};

	c->top++;
	snprintf(c->path[c->top], sizeof c->path[0], "%s/image%u", fx_dir, made++);
	ck_assert_msg(vhd_create(c->path[c->top], &o, &fx_why) == 0, "%s", fx_why.line);
}

static void write_some(struct vhd *v, unsigned times)
{
	static uint8_t b[3 * MIB];

	for (unsigned i = 0; i < times; i++) {
		uint64_t off = fx_rnd(v->size / 512) * 512, len = (1 + fx_rnd(fx_rnd(3) ? 20 : sizeof b / 512)) * 512;

		ck_assert_int_eq(vhd_write(v, b, min_u64(len, v->size - off), off), 0);
	}
}

/* ---- the walk ------------------------------------------------------------------------------------------------------------- */

struct where {
	unsigned layer; /* VHD_LAYER_NONE: nowhere */
	uint64_t host;
};

/* Of one sector: from image to image, asking each. */
static struct where walk(struct vhd *v, uint64_t off)
{
	for (unsigned n = 0; v && off < v->size; v = v->parent, n++) {
		uint32_t block = (uint32_t)(off >> v->block_shift), in = (uint32_t)(off & (v->block_size - 1)), run;
		bool set;

		if (v->type == VHD_FIXED)
			return (struct where){n, off};
		if (bat_get(v, block) == VHD_UNUSED)
			continue;
		ck_assert_int_eq(vhd_bitmap_run(v, block, in / 512, 1, &set, &run), 0);
		if (set)
			return (struct where){n, bat_data(v, bat_get(v, block)) + in};
	}
	return (struct where){VHD_LAYER_NONE, 0};
}

static bool goes_on(struct where a, struct where b, uint64_t by)
{
	return a.layer == b.layer && (a.layer == VHD_LAYER_NONE || a.host + by == b.host);
}

/* The first place where a block of any image ends, or an image: an answer goes at least that far. */
static uint64_t first_end(struct vhd *v, uint64_t off)
{
	uint64_t end = UINT64_MAX;

	for (; v; v = v->parent) {
		if (v->type != VHD_FIXED)
			end = min_u64(end, round_down_u64(off, v->block_size) + v->block_size);
		if (off < v->size)
			end = min_u64(end, v->size);
	}
	return end;
}

static void same_run(struct vhd *v, uint64_t off, uint64_t len)
{
	struct where at = walk(v, off);
	struct vhd *src, *is = v;
	struct vhd_run run;
	uint64_t end;

	ck_assert_int_eq(vhd_map_src(v, off, len, &run, &src), 0);
	ck_assert(run.len > 0 && run.len <= len);
	ck_assert_msg(run.hole == (at.layer == VHD_LAYER_NONE), "at %llu: %s instead of layer %u",
		      (unsigned long long)off, run.hole ? "a hole" : "data", at.layer);
	for (unsigned n = 0; !run.hole && n < at.layer; n++)
		is = is->parent;
	ck_assert(run.hole || (run.layer == at.layer && src == is && run.off == at.host));
	for (uint64_t by = 512; by < run.len; by += 512)
		ck_assert_msg(goes_on(at, walk(v, off + by), by), "at %llu: not the same %llu bytes on",
			      (unsigned long long)off, (unsigned long long)by);
	end = min_u64(off + len, first_end(v, off));
	if (off + run.len < end)
		ck_assert(!goes_on(at, walk(v, off + run.len), run.len));
}

/* The first layer that may have something: none above it has a block there, and it is the image itself only if it has one. */
static void same_layer(struct vhd *v, uint64_t off, uint64_t len)
{
	unsigned n = vhd_layer(v, off, len);
	bool own = false;

	for (uint64_t at = off; at < off + len; at += 512) {
		ck_assert_uint_le(n, walk(v, at).layer);
		own |= v->type == VHD_FIXED || bat_get(v, (uint32_t)(at >> v->block_shift)) != VHD_UNUSED;
	}
	ck_assert(!v->parent || own == !n);
}

static void ask(struct vhd *v, unsigned times)
{
	for (unsigned i = 0; i < times; i++) {
		uint64_t off = fx_rnd(v->size / 512) * 512, len = (1 + fx_rnd(fx_rnd(4) ? 300 : v->size / 512)) * 512;

		same_run(v, off, min_u64(len, v->size - off));
		same_layer(v, off, min_u64(65536, v->size - off));
	}
}

/* Parents end before their children, or behind them. They are told so before anybody asked. */
static void cut_parents(struct vhd *v)
{
	for (struct vhd *p = v->parent; p; p = p->parent)
		if (fx_rnd(3) == 0)
			p->size = MIB + fx_rnd((SIZE - MIB) / 512) * 512;
}

/* ---- one thread -------------------------------------------------------------------------------------------------------------- */

static void step(struct chain *c)
{
	const struct vhd_open_opts o = {.flags = VHD_OPEN_WRITE, .force_parent = true};
	unsigned op = (unsigned)fx_rnd(12);
	char as[128];

	if (op == 0 && c->top + 1 < IMAGES) {
		snprintf(as, sizeof as, "%s/was%u", fx_dir, made++);
		ck_assert_msg(vhd_snapshot(&c->v, as, &o, &fx_why) == 0, "%s", fx_why.line);
		memcpy(c->path[c->top + 1], c->path[c->top], sizeof as);
		memcpy(c->path[c->top++], as, sizeof as);
	} else if (op == 1) {
		close_top(c);
		if (c->top) {
			ck_assert_msg(vhd_commit(c->path[c->top], &o, NULL, &fx_why) == 0, "%s", fx_why.line);
			c->top--;
		}
		open_top(c);
		cut_parents(c->v);
	} else if (op == 2 && c->top + 1 < IMAGES) {
		close_top(c);
		make_child(c, block_sizes[fx_rnd(ARRAY_LEN(block_sizes))]);
		open_top(c);
		cut_parents(c->v);
	} else {
		write_some(c->v, 1);
	}
}

START_TEST(answers_are_those_of_a_walk)
{
	struct chain c = {.top = 0};
	unsigned depth;

	for (int i = 0; i < 1000 * _i; i++) /* another seed */
		fx_rnd(2);
	depth = (unsigned)fx_rnd(IMAGES - 1);
	make_base(&c, _i % 2 ? VHD_DYNAMIC : VHD_FIXED, SIZE, _i % 2 ? block_sizes[fx_rnd(4)] : 0);
	for (unsigned n = 0; n < depth; n++) {
		if (n || _i % 4) {
			open_top(&c);
			write_some(c.v, (unsigned)fx_rnd(3));
			close_top(&c);
		}
		make_child(&c, block_sizes[fx_rnd(4)]);
	}
	open_top(&c);
	cut_parents(c.v);
	for (unsigned n = 0; n < STEPS; n++) {
		ask(c.v, 8);
		step(&c);
	}
	ask(c.v, 100);
	close_top(&c);
}
END_TEST

static void is_run(struct vhd *v, uint64_t off, bool hole, unsigned layer, uint64_t len)
{
	struct vhd_run run;

	ck_assert_int_eq(vhd_map(v, off, v->size - off, &run), 0);
	ck_assert(run.hole == hole && (hole || run.layer == layer));
	ck_assert_uint_eq(run.len, len);
}

/* Over many blocks, and whatever number of images: what has nothing is one answer. */
START_TEST(a_long_hole_is_one_answer)
{
	static const uint8_t b[512];
	struct chain c = {.top = 0};

	make_base(&c, VHD_DYNAMIC, 2048 * MIB, 1 << 20);
	open_top(&c);
	ck_assert_int_eq(vhd_write(c.v, b, sizeof b, 1000 * MIB), 0);
	close_top(&c);
	for (unsigned n = 1; n < IMAGES; n++)
		make_child(&c, 512 << 10);
	open_top(&c);
	is_run(c.v, 0, true, 0, 1000 * MIB);
	is_run(c.v, 1000 * MIB, false, IMAGES - 1, MIB);
	is_run(c.v, 1001 * MIB, true, 0, 1047 * MIB);
	ck_assert_uint_eq(vhd_layer(c.v, 0, MIB), VHD_LAYER_NONE);
	ck_assert_uint_eq(vhd_layer(c.v, 1000 * MIB - 4096, 8192), IMAGES - 1);
	ck_assert_int_eq(vhd_write(c.v, b, sizeof b, 1500 * MIB), 0);
	is_run(c.v, 1001 * MIB, true, 0, 499 * MIB);
	is_run(c.v, 1500 * MIB, false, 0, 512);
	ck_assert_uint_eq(vhd_layer(c.v, 1500 * MIB, 65536), 0);
	close_top(&c);
}
END_TEST

/* Of a fixed parent what is contiguous is one answer too, as far as it was asked for. */
START_TEST(a_fixed_parent_answers_over_many_blocks)
{
	struct chain c = {.top = 0};

	make_base(&c, VHD_FIXED, SIZE, 0);
	make_child(&c, 512 << 10);
	make_child(&c, 2 << 20);
	open_top(&c);
	is_run(c.v, MIB + 512, false, 2, SIZE - MIB - 512);
	close_top(&c);
}
END_TEST

static size_t bytes_held(struct vhd *v)
{
	size_t n = 0;

	for (uint32_t i = 0; i * SEG_BLOCKS < v->blocks; i++)
		n += malloc_usable_size((void *)atomic_load(&v->below[i]));
	return n;
}

START_TEST(memory_comes_with_use_and_is_a_byte_per_block_at_most)
{
	const uint64_t size = UINT64_C(2040) << 30;
	struct chain c = {.top = 0};
	uint64_t data, end;
	uint8_t b[512];
	size_t most;

	make_base(&c, VHD_DYNAMIC, size, 4 << 20);
	make_child(&c, 512 << 10);
	make_child(&c, 512 << 10);
	open_top(&c);
	ck_assert_uint_eq(bytes_held(c.v), 0);
	for (unsigned i = 0; i < 100; i++)
		ck_assert_int_eq(vhd_read(c.v, b, sizeof b, (size / 2) + i * MIB), 0);
	ck_assert_uint_gt(bytes_held(c.v), 0);
	ck_assert_uint_le(bytes_held(c.v), SEG_BLOCKS + 64);
	ck_assert_int_eq(vhd_next_data(c.v, 0, &data, &end), 0);
	ck_assert_uint_eq(data, size);
	most = c.v->blocks + c.v->blocks / SEG_BLOCKS * 64;
	ck_assert_uint_ge(bytes_held(c.v), c.v->blocks);
	ck_assert_uint_le(bytes_held(c.v), most);
	/* Nobody asked the parent itself. */
	ck_assert_uint_eq(bytes_held(c.v->parent), 0);
	close_top(&c);
}
END_TEST

/* ---- threads ------------------------------------------------------------------------------------------------------------------ */

/* Two children of one chain are asked by some threads each, while others write to them: to the second half only. */
struct worker {
	pthread_t t;
	struct vhd *v;
	bool writes;
	uint64_t state;
};

static uint64_t rnd(struct worker *w, uint64_t below)
{
	w->state = w->state * 6364136223846793005u + 1442695040888963407u;
	return (w->state >> 33) % below;
}

static void *work(void *arg)
{
	static const uint8_t b[65536];
	struct worker *w = arg;

	for (unsigned n = 0; n < 200; n++) {
		uint64_t off = rnd(w, SIZE / 2 / 512) * 512, len = min_u64((1 + rnd(w, 200)) * 512, SIZE / 2 - off);

		if (w->writes) {
			ck_assert_int_eq(vhd_write(w->v, b, min_u64(len, sizeof b), SIZE / 2 + off), 0);
		} else {
			uint8_t to[512];

			same_run(w->v, off, len);
			same_layer(w->v, off, len);
			ck_assert_int_eq(vhd_read(w->v, to, sizeof to, SIZE / 2 + off), 0);
		}
	}
	return NULL;
}

START_TEST(threads_find_out_the_same)
{
	struct worker w[2 * THREADS];
	struct chain c = {.top = 0}, other;

	make_base(&c, VHD_DYNAMIC, SIZE, 1 << 20);
	for (unsigned n = 0; n < 6; n++) {
		open_top(&c);
		write_some(c.v, 1);
		close_top(&c);
		make_child(&c, block_sizes[n % 4]);
	}
	other = c;
	other.top--; /* two children of one parent */
	make_child(&c, 512 << 10);
	c.top--;
	memcpy(c.path[c.top], c.path[c.top + 1], sizeof c.path[0]);
	make_child(&other, 2 << 20);
	open_top(&c);
	open_top(&other);
	for (unsigned i = 0; i < ARRAY_LEN(w); i++) {
		w[i] = (struct worker){.v = i % 2 ? c.v : other.v, .writes = i < 2, .state = i + 1};
		ck_assert_int_eq(pthread_create(&w[i].t, NULL, work, &w[i]), 0);
	}
	for (unsigned i = 0; i < ARRAY_LEN(w); i++)
		pthread_join(w[i].t, NULL);
	ask(c.v, 100);
	ask(other.v, 100);
	close_top(&c);
	close_top(&other);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vhd layers");
	TCase *t = tcase_create("layers");

	tcase_set_timeout(t, 120);
	tcase_add_checked_fixture(t, fx_setup, fx_teardown);
	tcase_add_loop_test(t, answers_are_those_of_a_walk, 0, 16);
	tcase_add_test(t, a_long_hole_is_one_answer);
	tcase_add_test(t, a_fixed_parent_answers_over_many_blocks);
	tcase_add_test(t, memory_comes_with_use_and_is_a_byte_per_block_at_most);
	tcase_add_test(t, threads_find_out_the_same);
	suite_add_tcase(s, t);
	return fx_main(s);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* test_vhd_model.c - random operations on images of all types, against a copy in memory; by one thread, and by eight */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/image_fixture.h"
#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/image/modify.h"
#include "vhd/image/snapshot.h"

#define SIZE (8 * MIB)
#define SIZE_MAX_ (12 * MIB)
#define STEPS 150
#define THREADS 8

/* An image, its parents as files beside it, and what it reads as. */
struct model {
	char path[8][128];
	unsigned depth;
	uint64_t size;
	uint8_t *copy, *buf;
	struct vhd *v;
	unsigned flags; /* VHD_OPEN_ZEROES or nothing */
	unsigned snapshots;
};

static void reopen(struct model *m, unsigned flags)
{
	const struct vhd_open_opts o = {.flags = flags | m->flags, .force_parent = true};

	ck_assert_msg(vhd_open(&m->v, m->path[m->depth], &o, &fx_why) == 0, "%s", fx_why.line);
	ck_assert_uint_eq(vhd_size(m->v), m->size);
}

static void done(struct model *m)
{
	ck_assert_int_eq(vhd_close(TAKE(m->v)), 0);
}

static void same(struct model *m, uint64_t off, uint64_t len)
{
	ck_assert_int_eq(vhd_read(m->v, m->buf, len, off), 0);
	ck_assert_msg(memcmp(m->buf, m->copy + off, len) == 0, "%llu bytes at %llu differ", (unsigned long long)len,
		      (unsigned long long)off);
}

static void snapshot(struct model *m)
{
	const struct vhd_create_opts o = {.type = VHD_DIFF, .parent = m->path[m->depth]};

	if (m->depth + 1 == ARRAY_LEN(m->path))
		return;
	done(m);
	snprintf(m->path[m->depth + 1], sizeof m->path[0], "%s/child%u", fx_dir, m->snapshots++);
	ck_assert_msg(vhd_create(m->path[m->depth + 1], &o, &fx_why) == 0, "%s", fx_why.line);
	m->depth++;
	reopen(m, VHD_OPEN_WRITE);
}

/* The same while it stays open. */
static void snapshot_live(struct model *m)
{
	const struct vhd_open_opts o = {.flags = VHD_OPEN_WRITE | m->flags, .force_parent = true};
	char as[128];

	if (m->depth + 1 == ARRAY_LEN(m->path))
		return;
	snprintf(as, sizeof as, "%s/was%u", fx_dir, m->snapshots++);
	ck_assert_msg(vhd_snapshot(&m->v, as, &o, &fx_why) == 0, "%s", fx_why.line);
	/* What was at the top has a new name, and the top its old one. */
	memcpy(m->path[m->depth + 1], m->path[m->depth], sizeof m->path[0]);
	snprintf(m->path[m->depth], sizeof m->path[0], "%s", as);
	m->depth++;
}

/* Larger, by zeros; or back, where only zeros are lost. Of a single image. */
static void resize(struct model *m)
{
	uint64_t size = SIZE + fx_rnd((SIZE_MAX_ - SIZE) / 512) * 512;
	bool zeros = true;

	if (m->depth)
		return;
	for (uint64_t i = size; i < m->size; i++)
		zeros &= !m->copy[i];
	done(m);
	if (vhd_resize(m->path[0], size, true, &fx_why) == 0) {
		ck_assert(zeros);
		if (size > m->size)
			memset(m->copy + m->size, 0, size - m->size);
		m->size = size;
	} else {
		ck_assert_msg(!zeros, "%s", fx_why.line);
	}
	reopen(m, VHD_OPEN_WRITE);
}

static void commit(struct model *m)
{
	const struct vhd_open_opts o = {.force_parent = true};

	if (!m->depth)
		return;
	done(m);
	ck_assert_msg(vhd_commit(m->path[m->depth], &o, NULL, &fx_why) == 0, "%s", fx_why.line);
	m->depth--;
	reopen(m, VHD_OPEN_WRITE);
}

/* Of a child it is a hint where a parent holds data: each sector is zeros or what it was. */
static void discard(struct model *m, uint64_t off, uint64_t len)
{
	static const uint8_t zeros[512];

	ck_assert_int_eq(vhd_discard(m->v, off, len), 0);
	ck_assert_int_eq(vhd_read(m->v, m->buf, len, off), 0);
	for (uint64_t i = 0; i < len; i += 512) {
		if (memcmp(m->buf + i, zeros, 512) != 0)
			ck_assert(m->depth && memcmp(m->buf + i, m->copy + off + i, 512) == 0);
		memcpy(m->copy + off + i, m->buf + i, 512);
	}
}

static void step(struct model *m)
{
	uint64_t off = fx_rnd(m->size / 512) * 512, len = (1 + fx_rnd(fx_rnd(4) ? 64 : 5000)) * 512;
	unsigned op = (unsigned)fx_rnd(22);

	len = min_u64(len, m->size - off);
	if (op < 9) {
		bool zeros = fx_rnd(4) == 0;

		for (uint64_t i = 0; i < len; i += 64)
			memset(m->copy + off + i, zeros ? 0 : (int)fx_rnd(256), 64);
		ck_assert_int_eq(vhd_write(m->v, m->copy + off, len, off), 0);
	} else if (op < 14) {
		same(m, off, len);
	} else if (op < 17) {
		discard(m, off, len);
	} else if (op == 17) {
		snapshot(m);
	} else if (op == 18) {
		commit(m);
	} else if (op == 19) {
		snapshot_live(m);
	} else if (op == 20) {
		resize(m);
	} else {
		done(m);
		reopen(m, VHD_OPEN_WRITE);
	}
}

START_TEST(random_operations_read_as_their_model)
{
	const struct vhd_create_opts o = {.type = _i % 2 ? VHD_DYNAMIC : VHD_FIXED, .size = SIZE, .exact = true};
	struct model m = {.size = SIZE,
			  .copy = calloc(1, SIZE_MAX_),
			  .buf = malloc(SIZE_MAX_),
			  .flags = _i % 4 > 1 ? VHD_OPEN_ZEROES : 0};

	ck_assert(m.copy && m.buf);
	snprintf(m.path[0], sizeof m.path[0], "%s", fx_path);
	ck_assert_int_eq(vhd_create(fx_path, &o, &fx_why), 0);
	for (int i = 0; i < 1000 * _i; i++) /* another seed */
		fx_rnd(2);
	reopen(&m, VHD_OPEN_WRITE);
	for (unsigned i = 0; i < STEPS; i++)
		step(&m);
	same(&m, 0, m.size);
	done(&m);
	free(m.copy);
	free(m.buf);
}
END_TEST

/* A snapshot too many is refused, and the image is what it was: also for a process that has none of the chain open. */
START_TEST(snapshots_end_before_the_chain_is_too_long)
{
	const struct vhd_create_opts o = {.type = VHD_DYNAMIC, .size = MIB};
	const struct vhd_open_opts wo = {.flags = VHD_OPEN_WRITE};
	struct vhd *v, *others;
	char as[128];
	int err = 0, n;

	ck_assert_int_eq(vhd_create(fx_path, &o, &fx_why), 0);
	ck_assert_int_eq(vhd_open(&v, fx_path, &wo, &fx_why), 0);
	for (n = 0; n < 40 && !err; n++) {
		snprintf(as, sizeof as, "%s/was%d", fx_dir, n);
		err = vhd_snapshot(&v, as, &wo, &fx_why);
	}
	ck_assert_int_eq(err, -EUCLEAN);
	ck_assert_int_eq(n, 32);
	ck_assert_ptr_nonnull(strstr(fx_why.line, "more than 31 parents"));
	ck_assert_int_ne(access(as, F_OK), 0);
	ck_assert_int_eq(vhd_write(v, "x", 0, 0), 0);
	ck_assert_int_eq(vhd_close(v), 0);
	ck_assert_msg(vhd_open(&v, fx_path, &wo, &fx_why) == 0, "%s", fx_why.line);
	/* Nor by way of parents that are open already. */
	snprintf(as, sizeof as, "%s/one-more", fx_dir);
	ck_assert_int_eq(vhd_snapshot(&v, as, &wo, &fx_why), -EUCLEAN);
	ck_assert_int_eq(vhd_close(v), 0);
	ck_assert_int_eq(vhd_open(&others, fx_path, NULL, &fx_why), 0);
	ck_assert_int_eq(vhd_close(others), 0);
}
END_TEST

/* ---- eight threads, each with its own part of the disk --------------------------------------------------------------------- */

struct part {
	pthread_t t;
	struct model m; /* its buffer; the copy and the image are everybody's */
	uint64_t off, len, state;
};

static uint64_t part_rnd(struct part *p, uint64_t below)
{
	p->state = p->state * 6364136223846793005u + 1442695040888963407u;
	return (p->state >> 33) % below;
}

static void *work(void *arg)
{
	struct part *p = arg;
	struct model *m = &p->m;

	for (unsigned n = 0; n < 60; n++) {
		uint64_t off = part_rnd(p, p->len / 512) * 512;
		uint64_t len = min_u64(p->len - off, (1 + part_rnd(p, part_rnd(p, 4) ? 64 : 1500)) * 512);
		unsigned op = (unsigned)part_rnd(p, 10);

		off += p->off;
		if (op < 5) {
			memset(m->copy + off, op ? (int)part_rnd(p, 256) : 0, len);
			ck_assert_int_eq(vhd_write(m->v, m->copy + off, len, off), 0);
		} else if (op < 8) {
			same(m, off, len);
		} else if (op == 8) {
			discard(m, off, len);
		} else {
			ck_assert_int_eq(vhd_flush(m->v), 0);
		}
	}
	return NULL;
}

START_TEST(eight_threads_read_as_their_model)
{
	const struct vhd_create_opts o = {.type = _i % 2 ? VHD_DYNAMIC : VHD_FIXED,
					  .size = SIZE,
					  .exact = true,
					  .block_size = _i % 2 ? 512 << 10 : 0};
	struct model m = {.size = SIZE, .copy = calloc(1, SIZE_MAX_), .flags = _i % 4 > 1 ? VHD_OPEN_ZEROES : 0};
	struct part part[THREADS];

	ck_assert_ptr_nonnull(m.copy);
	snprintf(m.path[0], sizeof m.path[0], "%s", fx_path);
	ck_assert_int_eq(vhd_create(fx_path, &o, &fx_why), 0);
	reopen(&m, VHD_OPEN_WRITE);
	for (unsigned round = 0; round < 6; round++) {
		for (unsigned i = 0; i < THREADS; i++) {
			part[i] = (struct part){.off = i * (SIZE / THREADS),
						.len = SIZE / THREADS,
						.state = (uint64_t)_i * 1000 + round * 10 + i};
			part[i].m = m;
			part[i].m.buf = malloc(SIZE / THREADS);
			ck_assert_int_eq(pthread_create(&part[i].t, NULL, work, &part[i]), 0);
		}
		for (unsigned i = 0; i < THREADS; i++) {
			pthread_join(part[i].t, NULL);
			free(part[i].m.buf);
		}
		m.buf = malloc(SIZE);
		same(&m, 0, m.size);
		free(TAKE(m.buf));
		if (round % 3 == 0)
			snapshot(&m);
		else if (round % 3 == 1)
			snapshot_live(&m);
		else
			commit(&m);
	}
	done(&m);
	free(m.copy);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vhd model");
	TCase *t = tcase_create("model");

	tcase_set_timeout(t, 120);
	tcase_add_checked_fixture(t, fx_setup, fx_teardown);
	tcase_add_loop_test(t, random_operations_read_as_their_model, 0, 16);
	tcase_add_test(t, snapshots_end_before_the_chain_is_too_long);
	tcase_add_loop_test(t, eight_threads_read_as_their_model, 0, 4);
	suite_add_tcase(s, t);
	return fx_main(s);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* test_vhd_model.c - random operations on images of all types, against a copy in memory */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/image_fixture.h"
#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"

#define SIZE (8 * MIB)
#define STEPS 150

/* An image, its parents as files beside it, and what it reads as. */
struct model {
	char path[8][128];
	unsigned depth;
	uint64_t size;
	uint8_t *copy, *buf;
	struct vhd *v;
};

static void reopen(struct model *m, unsigned flags)
{
	const struct vhd_open_opts o = {.flags = flags, .force_parent = true};

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
	snprintf(m->path[m->depth + 1], sizeof m->path[0], "%s/child%u", fx_dir, m->depth + 1);
	remove(m->path[m->depth + 1]);
	ck_assert_msg(vhd_create(m->path[m->depth + 1], &o, &fx_why) == 0, "%s", fx_why.line);
	m->depth++;
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
	unsigned op = (unsigned)fx_rnd(20);

	len = min_u64(len, m->size - off);
	if (op < 9) {
		for (uint64_t i = 0; i < len; i += 64)
			memset(m->copy + off + i, (int)fx_rnd(256), 64);
		ck_assert_int_eq(vhd_write(m->v, m->copy + off, len, off), 0);
	} else if (op < 14) {
		same(m, off, len);
	} else if (op < 17) {
		discard(m, off, len);
	} else if (op == 17) {
		snapshot(m);
	} else if (op == 18) {
		commit(m);
	} else {
		done(m);
		reopen(m, VHD_OPEN_WRITE);
	}
}

START_TEST(random_operations_read_as_their_model)
{
	const struct vhd_create_opts o = {.type = _i % 2 ? VHD_DYNAMIC : VHD_FIXED, .size = SIZE, .exact = true};
	struct model m = {.size = SIZE, .copy = calloc(1, SIZE), .buf = malloc(SIZE)};

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

int main(void)
{
	Suite *s = suite_create("vhd model");
	TCase *t = tcase_create("model");

	tcase_set_timeout(t, 120);
	tcase_add_checked_fixture(t, fx_setup, fx_teardown);
	tcase_add_loop_test(t, random_operations_read_as_their_model, 0, 16);
	suite_add_tcase(s, t);
	return fx_main(s);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* test_vhd_modify.c - fields and sizes that are changed in place */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/image_fixture.h"
#include "vhd/base/cleanup.h"
#include "vhd/image/check.h"
#include "vhd/image/modify.h"

static void tell(void *arg, const struct vhd_finding *f)
{
	(void)arg;
	ck_abort_msg("%s at %llu: %s", f->what, (unsigned long long)f->off, f->text);
}

static void nothing_wrong(void)
{
	struct vhd_check_result r;

	ck_assert_int_eq(vhd_check(fx_path, tell, NULL, &r, &fx_why), 0);
}

/* One footer is damaged, and what is asked for is refused: no trace of it, and both are good afterwards. */
START_TEST(a_refused_field_leaves_no_trace)
{
	const struct vhd_fields f = {.set_creator = true,
				     .creator = "abcd",
				     .set_geometry = true,
				     .cylinders = 60000,
				     .heads = 16,
				     .sectors = 255};
	uint8_t was[512], is[512];

	fx_make(VHD_DYNAMIC, 4 * MIB, 0);
	fx_peek(0, was, sizeof was);
	fx_poke(_i ? 64 : fx_size() - 512 + 64, "abcd", 4);
	ck_assert_int_eq(vhd_set_fields(fx_path, &f, &fx_why), -EINVAL);
	nothing_wrong();
	fx_peek(0, is, sizeof is);
	ck_assert_int_eq(memcmp(is, was, sizeof is), 0);
}
END_TEST

/* Small blocks, of others: their number has a limit, and an image past it could not be opened again. */
START_TEST(a_table_that_would_not_be_opened_is_not_made)
{
	const be32 block = be32_of(16u << 10), entries = be32_of(128);
	uint64_t sum;

	fx_make(VHD_DYNAMIC, MIB, 0);
	fx_poke(512 + 28, entries.b, 4);
	fx_poke(512 + 32, block.b, 4);
	fx_seal_header();
	sum = fx_sum();
	ck_assert_int_eq(vhd_resize(fx_path, VHD_MAX_SIZE, true, &fx_why), -EFBIG);
	ck_assert_uint_eq(fx_sum(), sum);
	ck_assert_msg(vhd_resize(fx_path, 64 * MIB, true, &fx_why) == 0, "%s", fx_why.line);
	nothing_wrong();
	fx_close(fx_open(0));
}
END_TEST

/* Virtual PC's disk has what its geometry gives, whatever else is asked for: nothing is cut off by rounding it down. */
START_TEST(a_size_by_geometry_is_rounded_up)
{
	uint64_t last = 10 * MIB - 512;
	uint8_t b[512];
	struct vhd *v;

	fx_make(_i ? VHD_FIXED : VHD_DYNAMIC, 20 * MIB, 0);
	fx_poke(fx_size() - 512 + 28, "vpc ", 4);
	fx_seal_tail();
	if (!_i) {
		fx_poke(28, "vpc ", 4);
		fx_seal_head();
	}
	memset(b, 7, sizeof b);
	v = fx_open(VHD_OPEN_WRITE);
	ck_assert_int_eq(vhd_write(v, b, sizeof b, last), 0);
	fx_close(v);
	ck_assert_msg(vhd_resize(fx_path, 10 * MIB, true, &fx_why) == 0, "%s", fx_why.line);
	v = fx_open(0);
	ck_assert_uint_ge(vhd_size(v), 10 * MIB);
	ck_assert_int_eq(vhd_read(v, b, sizeof b, last), 0);
	ck_assert_uint_eq(b[0], 7);
	fx_close(v);
}
END_TEST

/* A program that made the disk smaller left entries in the table: they do not come to life. */
START_TEST(entries_past_the_end_are_forgotten)
{
	uint8_t b[512], zero[512] = {0};
	struct vhd *v;
	be32 e;

	fx_make(VHD_DYNAMIC, 4 * MIB, 512u << 10);
	v = fx_open(VHD_OPEN_WRITE);
	memset(b, 5, sizeof b);
	ck_assert_int_eq(vhd_write(v, b, sizeof b, 0), 0);
	fx_close(v);
	fx_peek(1536, e.b, 4);
	fx_poke(1536 + 4 * 20, e.b, 4); /* the same block again */
	e = be32_of(100);
	fx_poke(1536 + 4 * 30, e.b, 4);
	e = be32_of(40);
	fx_poke(512 + 28, e.b, 4);
	fx_seal_header();
	fx_close(fx_open(0));
	ck_assert_msg(vhd_resize(fx_path, (_i ? 15 : 400) * MIB, true, &fx_why) == 0, "%s", fx_why.line);
	v = fx_open(0);
	ck_assert_int_eq(vhd_read(v, b, sizeof b, 0), 0);
	ck_assert_uint_eq(b[511], 5);
	ck_assert_int_eq(vhd_read(v, b, sizeof b, 10 * MIB), 0);
	ck_assert_int_eq(memcmp(b, zero, sizeof b), 0);
	fx_close(v);
	nothing_wrong();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vhd modify");
	TCase *t = tcase_create("modify");

	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, fx_setup, fx_teardown);
	tcase_add_loop_test(t, a_refused_field_leaves_no_trace, 0, 2);
	tcase_add_test(t, a_table_that_would_not_be_opened_is_not_made);
	tcase_add_loop_test(t, a_size_by_geometry_is_rounded_up, 0, 2);
	tcase_add_loop_test(t, entries_past_the_end_are_forgotten, 0, 2);
	suite_add_tcase(s, t);
	return fx_main(s);
}

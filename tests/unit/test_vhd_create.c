/* SPDX-License-Identifier: BSD-3-Clause */
/* test_vhd_create.c - new images: their size, their structures, what others make of them */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/image_fixture.h"
#include "vhd/base/cleanup.h"

static const struct {
	uint64_t asked, size;
	uint16_t c;
	uint8_t h, s;
	uint32_t bat; /* entries */
} sizes[] = {
	{1, 34816, 1, 4, 17, 1},
	{512, 34816, 1, 4, 17, 1},
	{513, 34816, 1, 4, 17, 1},
	{1000, 34816, 1, 4, 17, 1},
	{1048576, 1079296, 31, 4, 17, 1},
	{4194304, 4212736, 121, 4, 17, 3},
	{9437184, 9469952, 272, 4, 17, 5},
	{10485760, 10514432, 302, 4, 17, 6},
	{41943040, 41953280, 964, 5, 17, 21},
	{528482304, 528482304, 1024, 16, 63, 252},
	{528482816, 528998400, 1025, 16, 63, 253},
	{536870912, 537255936, 1041, 16, 63, 257},
	{1073741824, 1073995776, 2081, 16, 63, 513},
	{8589934592, 8590417920, 16645, 16, 63, 4097},
	{33822350848, 33822351360, 16191, 16, 255, 16128},
	{33822351360, 33822351360, 16191, 16, 255, 16128},
	{136365211648, 136365219840, 65279, 16, 255, 65025},
	{136899993088, 136899993088, 65535, 16, 255, 65280},
	{136899994112, 136899994112, 65535, 16, 255, 65280},
	{137438953472, 137438953472, 65535, 16, 255, 65536},
	{2190433320960, 2190433320960, 65535, 16, 255, 1044480},
};

/* vhd-format.md 20-22, 25, §3: sizes are rounded up to what geometry can express, and the image has them. */
START_TEST(sizes_are_rounded_up_to_geometry)
{
	struct vhd_footer f;
	struct vhd_dynamic d;
	struct vhd_info info;
	struct vhd *v;

	ck_assert_uint_eq(vhd_round_size(sizes[_i].asked), sizes[_i].size);
	fx_make(VHD_DYNAMIC, sizes[_i].asked, 0);
	fx_peek(0, &f, sizeof f);
	fx_peek(512, &d, sizeof d);
	ck_assert_uint_eq(be64_get(f.current_size), sizes[_i].size);
	ck_assert_uint_eq(be64_get(f.original_size), sizes[_i].size);
	ck_assert_uint_eq(be16_get(f.cylinders), sizes[_i].c);
	ck_assert_uint_eq(f.heads, sizes[_i].h);
	ck_assert_uint_eq(f.sectors, sizes[_i].s);
	/* One sector more than qemu-img gives at the very end of CHS: ceil(size / block). */
	ck_assert_uint_ge(be32_get(d.max_table_entries), sizes[_i].bat);
	ck_assert_uint_eq(be32_get(d.max_table_entries), (sizes[_i].size + 2 * MIB - 1) / (2 * MIB));
	v = fx_open(0);
	vhd_info(v, &info);
	ck_assert_uint_eq(info.size, sizes[_i].size);
	ck_assert_uint_eq(info.blocks_allocated, 0);
	fx_close(v);
	if (_i % 5 == 0 && fx_have("qemu-img") && sizes[_i].size < UINT64_C(2) << 40)
		ck_assert_int_eq(fx_run("qemu-img info -f vpc --output json %s | grep '\"virtual-size\": %llu'",
					fx_path, (unsigned long long)sizes[_i].size),
				 0);
}
END_TEST

/* vhd-format.md 23: fixed images round as dynamic ones do, and the file holds what the footer promises. */
START_TEST(a_fixed_image_is_its_size_and_a_footer)
{
	fx_make(VHD_FIXED, sizes[_i].asked, 0);
	ck_assert_uint_eq(fx_size(), sizes[_i].size + 512);
}
END_TEST

/* vhd-format.md 3, 4, 5, 47-51, byte by byte. */
START_TEST(a_new_image_has_the_bytes_of_the_specification)
{
	struct vhd_footer head, tail;
	struct vhd_dynamic d;
	uint8_t bat[512], other[16];
	bool fixed = _i;
	time_t now = time(NULL);

	fx_make(fixed ? VHD_FIXED : VHD_DYNAMIC, 64 * MIB, 0);
	fx_peek(fx_size() - 512, &tail, 512);
	ck_assert_mem_eq(tail.cookie, "conectix", 8);
	ck_assert_mem_eq(tail.features.b, "\0\0\0\2", 4);
	ck_assert_mem_eq(tail.version.b, "\0\1\0\0", 4);
	ck_assert_mem_eq(tail.data_offset.b, fixed ? "\xff\xff\xff\xff\xff\xff\xff\xff" : "\0\0\0\0\0\0\2\0", 8);
	ck_assert_mem_eq(tail.type.b, fixed ? "\0\0\0\2" : "\0\0\0\3", 4);
	ck_assert_int_le(labs((long)be32_get(tail.timestamp) + VHD_EPOCH - (long)now), 5);
	for (size_t i = 0; i < sizeof tail.reserved; i++)
		ck_assert_uint_eq(tail.reserved[i], 0);
	memcpy(other, tail.uuid, 16);
	ck_assert_uint_eq(tail.uuid[6] >> 4, 4);
	if (!fixed) {
		fx_peek(0, &head, 512);
		ck_assert_mem_eq(&head, &tail, 512);
		fx_peek(512, &d, sizeof d);
		ck_assert_mem_eq(d.cookie, "cxsparse", 8);
		ck_assert_mem_eq(d.data_offset.b, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
		ck_assert_uint_eq(be64_get(d.table_offset), 1536);
		ck_assert_uint_eq(be32_get(d.block_size), 2 * MIB);
		for (size_t i = 0; i < sizeof d.parent_uuid; i++)
			ck_assert_uint_eq(d.parent_uuid[i], 0);
		fx_peek(1536, bat, sizeof bat);
		for (size_t i = 0; i < sizeof bat; i++)
			ck_assert_uint_eq(bat[i], 0xff);
		ck_assert_uint_eq(fx_size(), 2560);
	}
	unlink(fx_path);
	fx_make(fixed ? VHD_FIXED : VHD_DYNAMIC, 64 * MIB, 0);
	fx_peek(fx_size() - 512, &tail, 512);
	ck_assert_mem_ne(tail.uuid, other, 16);
}
END_TEST

START_TEST(an_exact_size_is_kept)
{
	const struct vhd_create_opts o = {.type = VHD_DYNAMIC, .size = 40 * MIB + 1, .exact = true};
	struct vhd *v;

	ck_assert_int_eq(vhd_create(fx_path, &o, &fx_why), 0);
	v = fx_open(0);
	ck_assert_uint_eq(vhd_size(v), 40 * MIB + 512);
	fx_close(v);
}
END_TEST

static const struct {
	struct vhd_create_opts o;
	const char *says;
} wrong[] = {
	{{.type = VHD_DYNAMIC, .size = 0}, "size 0"},
	{{.type = VHD_DYNAMIC, .size = VHD_MAX_SIZE + 512}, "2040 GiB"},
	{{.type = VHD_FIXED, .size = UINT64_MAX}, "2040 GiB"},
	{{.type = (enum vhd_type)5, .size = MIB}, "expected fixed, dynamic or differencing"},
	{{.type = VHD_DIFF}, "has a parent"},
	{{.type = VHD_FIXED, .size = MIB, .parent = "x"}, "has a parent"},
	{{.type = VHD_DYNAMIC, .size = MIB, .block_size = 3 << 20}, "block size"},
	{{.type = VHD_DYNAMIC, .size = MIB, .block_size = 256}, "block size"},
};

START_TEST(wrong_wishes_are_refused_and_leave_nothing)
{
	ck_assert_int_eq(vhd_create(fx_path, &wrong[_i].o, &fx_why), -EINVAL);
	ck_assert_msg(strstr(fx_why.line, wrong[_i].says) != NULL, "%s", fx_why.line);
	ck_assert_int_eq(fx_run("test -z \"$(ls -A %s | grep -v log)\"", fx_dir), 0);
}
END_TEST

START_TEST(an_existing_file_is_not_replaced)
{
	const struct vhd_create_opts o = {.type = VHD_DYNAMIC, .size = MIB};
	uint64_t before;

	fx_make(VHD_FIXED, MIB, 0);
	before = fx_sum();
	ck_assert_int_eq(vhd_create(fx_path, &o, &fx_why), -EEXIST);
	ck_assert_ptr_nonnull(strstr(fx_why.line, "exists"));
	ck_assert_uint_eq(fx_sum(), before);
	ck_assert_int_eq(fx_run("test $(ls -A %s | grep -v log | wc -l) = 1", fx_dir), 0);
}
END_TEST

START_TEST(a_folder_that_is_missing_is_named)
{
	const struct vhd_create_opts o = {.type = VHD_DYNAMIC, .size = MIB};

	ck_assert_int_eq(vhd_create("/nonexistent/a.vhd", &o, &fx_why), -ENOENT);
	ck_assert_ptr_nonnull(strstr(fx_why.line, "/nonexistent/a.vhd"));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vhd create");
	TCase *t = tcase_create("create");

	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, fx_setup, fx_teardown);
	tcase_add_loop_test(t, sizes_are_rounded_up_to_geometry, 0, (int)ARRAY_LEN(sizes));
	tcase_add_loop_test(t, a_fixed_image_is_its_size_and_a_footer, 0, (int)ARRAY_LEN(sizes));
	tcase_add_loop_test(t, a_new_image_has_the_bytes_of_the_specification, 0, 2);
	tcase_add_test(t, an_exact_size_is_kept);
	tcase_add_loop_test(t, wrong_wishes_are_refused_and_leave_nothing, 0, (int)ARRAY_LEN(wrong));
	tcase_add_test(t, an_existing_file_is_not_replaced);
	tcase_add_test(t, a_folder_that_is_missing_is_named);
	suite_add_tcase(s, t);
	return fx_main(s);
}

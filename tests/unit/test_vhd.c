/* SPDX-License-Identifier: BSD-3-Clause */
/* test_vhd.c - images: made, read, written, damaged; judged by qemu-img where it is there */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vhd/base/cleanup.h"
#include "vhd/image/vhd.h"
#include "vhd/image/format.h"
#include "vhd/io/hio.h"

#define MIB (UINT64_C(1) << 20)

static char dir[64], path[96];
static struct why why;

static void setup(void)
{
	snprintf(dir, sizeof dir, "%s/vhdnfs-image-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/a.vhd", dir);
	why.line[0] = '\0';
}

static void teardown(void)
{
	char cmd[96];

	snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
	ck_assert_int_eq(system(cmd), 0);
}

static void make(enum vhd_type type, uint64_t size, uint32_t block)
{
	const struct vhd_create_opts o = {.type = type, .size = size, .block_size = block};

	ck_assert_msg(vhd_create(path, &o, &why) == 0, "%s", why.line);
}

static struct vhd *image(unsigned flags)
{
	const struct vhd_open_opts o = {.flags = flags};
	struct vhd *v = NULL;
	int err = vhd_open(&v, path, &o, &why);

	ck_assert_msg(err == 0, "%d: %s", err, why.line);
	return v;
}

static uint64_t rnd_state = 88172645463325252ull;
static uint64_t rnd(uint64_t below)
{
	rnd_state ^= rnd_state << 13;
	rnd_state ^= rnd_state >> 7;
	rnd_state ^= rnd_state << 17;
	return rnd_state % below;
}

/* Overwrite bytes of the file itself. */
static void poke(uint64_t off, const void *p, size_t n)
{
	FILE *f = fopen(path, "r+e");

	ck_assert_ptr_nonnull(f);
	ck_assert_int_eq(fseek(f, (long)off, SEEK_SET), 0);
	ck_assert_uint_eq(fwrite(p, 1, n, f), n);
	fclose(f);
}

static uint64_t file_size(void)
{
	struct stat st;

	ck_assert_int_eq(stat(path, &st), 0);
	return (uint64_t)st.st_size;
}

static const struct {
	uint64_t asked, size;
} sizes[] = {
	{1, 34816},
	{512, 34816},
	{1000, 34816},
	{1048576, 1079296},
	{4194304, 4212736},
	{9437184, 9469952},
	{10485760, 10514432},
	{41943040, 41953280},
	{528482304, 528482304},
	{528482816, 528998400},
	{536870912, 537255936},
	{1073741824, 1073995776},
	{8589934592, 8590417920},
	{33822350848, 33822351360},
	{33822351360, 33822351360},
	{136365211648, 136365219840},
	{136899993088, 136899993088},
	{136899994112, 136899994112},
	{137438953472, 137438953472},
	{2190433320960, 2190433320960},
};

/* vhd-format.md 20-25: sizes are rounded up to what geometry can express. */
START_TEST(sizes_are_rounded_up_to_geometry)
{
	ck_assert_uint_eq(vhd_round_size(sizes[_i].asked), sizes[_i].size);
}
END_TEST

static void random_io(enum vhd_type type, uint32_t block)
{
	enum { SIZE = 12 << 20 };
	AUTO(freep) uint8_t *shadow = calloc(1, SIZE);
	AUTO(freep) uint8_t *buf = malloc(SIZE);
	struct vhd *v;

	ck_assert(shadow && buf);
	make(type, SIZE, block);
	v = image(VHD_OPEN_WRITE);
	ck_assert_uint_ge(vhd_size(v), SIZE);
	for (int i = 0; i < 200; i++) {
		uint64_t off = rnd(SIZE / 512) * 512, len = (1 + rnd(i % 10 ? 64 : 4096)) * 512;

		len = len < SIZE - off ? len : SIZE - off;
		switch (rnd(4)) {
		case 0:
			memset(buf, (int)(1 + rnd(255)), len);
			ck_assert_int_eq(vhd_write(v, buf, len, off), 0);
			memcpy(shadow + off, buf, len);
			break;
		case 1:
			ck_assert_int_eq(vhd_read(v, buf, len, off), 0);
			ck_assert_mem_eq(buf, shadow + off, len);
			break;
		case 2:
			ck_assert_int_eq(rnd(4) ? 0 : vhd_discard(v, off, len), 0);
			if (vhd_read(v, buf, len, off) == 0)
				memcpy(shadow + off, buf, len);
			break;
		default:
			ck_assert_int_eq(rnd(8) ? 0 : vhd_flush(v), 0);
		}
		if (i % 50 == 49) {
			ck_assert_int_eq(vhd_close(v), 0);
			v = image(VHD_OPEN_WRITE);
		}
	}
	ck_assert_int_eq(vhd_read(v, buf, SIZE, 0), 0);
	ck_assert_mem_eq(buf, shadow, SIZE);
	ck_assert_int_eq(vhd_close(v), 0);
	v = image(0);
	ck_assert_int_eq(vhd_read(v, buf, SIZE, 0), 0);
	ck_assert_mem_eq(buf, shadow, SIZE);
	ck_assert_int_eq(vhd_write(v, buf, 512, 0), -EROFS);
	ck_assert_int_eq(vhd_close(v), 0);
	if (system("command -v qemu-img >/dev/null") == 0) {
		char cmd[400], raw[110];
		FILE *f;

		snprintf(raw, sizeof raw, "%s/raw", dir);
		f = fopen(raw, "we");
		ck_assert_ptr_nonnull(f);
		ck_assert_uint_eq(fwrite(shadow, 1, SIZE, f), SIZE);
		fclose(f);
		snprintf(cmd, sizeof cmd,
			 "qemu-img compare -f vpc -F raw %s %s >%s/log 2>&1 || { cat %s/log; exit 1; }", path, raw, dir,
			 dir);
		ck_assert_int_eq(system(cmd), 0);
	}
}

START_TEST(a_dynamic_image_keeps_what_is_written)
{
	random_io(VHD_DYNAMIC, 0);
}
END_TEST

START_TEST(a_dynamic_image_with_small_blocks_keeps_what_is_written)
{
	random_io(VHD_DYNAMIC, 512 << 10);
}
END_TEST

START_TEST(a_fixed_image_keeps_what_is_written)
{
	random_io(VHD_FIXED, 0);
}
END_TEST

START_TEST(a_new_image_reads_as_zeros_and_is_one_hole)
{
	struct vhd_run run;
	struct vhd *v;

	make(VHD_DYNAMIC, 100 * MIB, 0);
	v = image(0);
	ck_assert_int_eq(vhd_map(v, 12345, vhd_size(v) - 12345, &run), 0);
	ck_assert(run.hole);
	ck_assert_uint_eq(run.len, vhd_size(v) - 12345);
	ck_assert_int_eq(vhd_map(v, vhd_size(v), 1, &run), -EINVAL);
	ck_assert_int_eq(vhd_map(v, 1, UINT64_MAX, &run), -EINVAL);
	ck_assert_int_eq(vhd_close(v), 0);
}
END_TEST

START_TEST(data_begins_on_a_4_kib_boundary)
{
	struct vhd_run run;
	struct vhd *v;
	uint8_t b[512] = {1};

	make(VHD_DYNAMIC, 100 * MIB, 0);
	v = image(VHD_OPEN_WRITE);
	for (int i = 0; i < 20; i++) {
		ck_assert_int_eq(vhd_write(v, b, 512, (uint64_t)i * 4 * MIB), 0);
		ck_assert_int_eq(vhd_map(v, (uint64_t)i * 4 * MIB, 512, &run), 0);
		ck_assert_uint_eq(run.off % 4096, 0);
	}
	ck_assert_int_eq(vhd_close(v), 0);
}
END_TEST

/* vhd-format.md 36: a block never gets two places, however many write into it first. */
struct writer {
	struct vhd *v;
	unsigned n;
	pthread_t t;
};

static void *write_stripe(void *arg)
{
	struct writer *w = arg;
	uint8_t b[512];

	memset(b, (int)w->n + 1, sizeof b);
	for (uint64_t s = w->n; s < 8 * MIB / 512; s += 8 * 37)
		if (vhd_write(w->v, b, 512, s * 512) < 0)
			return arg;
	return NULL;
}

START_TEST(many_first_writers_of_one_block_share_it)
{
	struct writer w[8];
	struct vhd_info info;
	struct vhd *v;
	uint8_t b[512];

	make(VHD_DYNAMIC, 8 * MIB, 0);
	v = image(VHD_OPEN_WRITE);
	for (unsigned i = 0; i < 8; i++) {
		w[i] = (struct writer){.v = v, .n = i};
		pthread_create(&w[i].t, NULL, write_stripe, &w[i]);
	}
	for (unsigned i = 0; i < 8; i++) {
		void *failed;

		pthread_join(w[i].t, &failed);
		ck_assert_ptr_null(failed);
	}
	vhd_info(v, &info);
	ck_assert_uint_eq(info.blocks_allocated, 4);
	for (unsigned i = 0; i < 8; i++)
		for (uint64_t s = i; s < 8 * MIB / 512; s += 8 * 37) {
			ck_assert_int_eq(vhd_read(v, b, 512, s * 512), 0);
			ck_assert_uint_eq(b[0], i + 1);
			ck_assert_uint_eq(b[511], i + 1);
		}
	ck_assert_int_eq(vhd_close(v), 0);
}
END_TEST

/* ---- damage: what is said -------------------------------------------------------------------------------------------- */

static void refused(int want, const char *regex)
{
	struct vhd *v = NULL;
	int err = vhd_open(&v, path, NULL, &why);

	ck_assert_msg(err == want, "%d instead of %d: %s", err, want, why.line);
	ck_assert_ptr_null(v);
	ck_assert_msg(strstr(why.line, regex) != NULL, "\"%s\" does not say \"%s\"", why.line, regex);
	ck_assert_ptr_nonnull(strstr(why.line, path));
}

static void with_block(void)
{
	struct vhd *v;
	uint8_t b[512] = {7};

	make(VHD_DYNAMIC, 16 * MIB, 0);
	v = image(VHD_OPEN_WRITE);
	ck_assert_int_eq(vhd_write(v, b, 512, 0), 0);
	ck_assert_int_eq(vhd_write(v, b, 512, 4 * MIB), 0);
	ck_assert_int_eq(vhd_close(v), 0);
}

START_TEST(an_empty_file_is_not_a_vhd)
{
	FILE *f = fopen(path, "we");

	ck_assert_ptr_nonnull(f);
	fclose(f);
	refused(-EINVAL, "not a VHD");
}
END_TEST

START_TEST(zeros_are_not_a_vhd)
{
	uint8_t z[512] = {0};
	FILE *f = fopen(path, "we");

	ck_assert_ptr_nonnull(f);
	fwrite(z, 1, _i ? 511 : 512, f);
	fclose(f);
	refused(-EINVAL, "not a VHD");
}
END_TEST

START_TEST(two_wrong_checksums_are_refused)
{
	with_block();
	poke(64, "abcd", 4);
	poke(file_size() - 512 + 64, "abcd", 4);
	refused(-EUCLEAN, "footer checksum");
}
END_TEST

START_TEST(one_wrong_checksum_is_survived)
{
	struct vhd *v;
	uint8_t b[512];

	with_block();
	poke(_i ? 64 : file_size() - 512 + 64, "abcd", 4);
	v = image(VHD_OPEN_WRITE);
	ck_assert_int_eq(vhd_read(v, b, 512, 4 * MIB), 0);
	ck_assert_uint_eq(b[0], 7);
	ck_assert_int_eq(vhd_write(v, b, 512, 8 * MIB), 0);
	ck_assert_int_eq(vhd_close(v), 0);
	v = image(0);
	ck_assert_int_eq(vhd_read(v, b, 512, 8 * MIB), 0);
	ck_assert_uint_eq(b[0], 7);
	ck_assert_int_eq(vhd_close(v), 0);
}
END_TEST

static const struct {
	const char *what;
	uint64_t off;
	size_t n;
	const char *bytes;
	bool header; /* the dynamic header's sum is computed again */
	const char *says;
} damage[] = {
	{"entry past the end", 1536, 4, "\x7f\xff\xff\x00", false, "block 0"},
	{"entry just below unused", 1536, 4, "\xff\xff\xff\xfe", false, "block 0"},
	{"entry 0", 1536, 4, "\0\0\0\0", false, "block 0"},
	{"entry inside the table", 1536, 4, "\0\0\0\3", false, "block 0"},
	{"header cookie", 512, 1, "C", true, "dynamic header"},
	{"header checksum", 512 + 36, 4, "abcd", false, "dynamic header checksum"},
	{"header version", 512 + 24, 4, "\0\2\0\0", true, "version 2"},
	{"block size 0", 512 + 32, 4, "\0\0\0\0", true, "block size 0"},
	{"block size 3 MiB", 512 + 32, 4, "\0\x30\0\0", true, "block size 3145728"},
	{"block size 256", 512 + 32, 4, "\0\0\1\0", true, "block size 256"},
	{"block size 2 GiB", 512 + 32, 4, "\x80\0\0\0", true, "block size 2147483648"},
	{"no entries", 512 + 28, 4, "\0\0\0\0", true, "BAT too small"},
	{"2^32 - 1 entries", 512 + 28, 4, "\xff\xff\xff\xff", true, "truncated"},
	{"table past the end", 512 + 16, 8, "\0\0\0\x7f\0\0\0\0", true, "truncated"},
	{"table not aligned", 512 + 16, 8, "\0\0\0\0\0\0\x06\1", true, "BAT at byte 1537"},
	{"table over the header", 512 + 16, 8, "\0\0\0\0\0\0\2\0", true, "overlaps"},
	{"table that wraps", 512 + 16, 8, "\xff\xff\xff\xff\xff\xff\xfe\0", true, "truncated"},
};

START_TEST(damage_is_named)
{
	with_block();
	poke(damage[_i].off, damage[_i].bytes, damage[_i].n);
	if (damage[_i].header) {
		uint8_t h[1024];
		uint32_t sum = 0;
		be32 b;
		FILE *f = fopen(path, "re");

		ck_assert_ptr_nonnull(f);
		fseek(f, 512, SEEK_SET);
		ck_assert_uint_eq(fread(h, 1, sizeof h, f), sizeof h);
		fclose(f);
		for (size_t i = 0; i < sizeof h; i++)
			sum += i < 36 || i >= 40 ? h[i] : 0;
		b = be32_of(~sum);
		poke(512 + 36, b.b, 4);
	}
	refused(-EUCLEAN, damage[_i].says);
}
END_TEST

START_TEST(two_entries_at_one_place_are_refused)
{
	be32 entry;
	FILE *f;

	with_block();
	f = fopen(path, "re");
	ck_assert_ptr_nonnull(f);
	fseek(f, 1536, SEEK_SET);
	ck_assert_uint_eq(fread(entry.b, 1, 4, f), 4);
	fclose(f);
	poke(1540, entry.b, 4);
	refused(-EUCLEAN, "blocks 0 and 1 overlap");
}
END_TEST

START_TEST(a_cut_image_is_told_from_a_whole_one)
{
	with_block();
	ck_assert_int_eq(truncate(path, (off_t)(file_size() - MIB)), 0);
	refused(-EUCLEAN, "truncated");
}
END_TEST

START_TEST(an_old_footer_of_511_bytes_is_read)
{
	struct vhd *v;

	make(VHD_FIXED, 4 * MIB, 0);
	ck_assert_int_eq(truncate(path, (off_t)(file_size() - 1)), 0);
	v = image(0);
	ck_assert_uint_eq(vhd_size(v), vhd_round_size(4 * MIB));
	ck_assert_int_eq(vhd_close(v), 0);
}
END_TEST

START_TEST(an_image_that_is_served_is_locked)
{
	struct vhd_open_opts o = {.flags = VHD_OPEN_WRITE};
	struct vhd *v, *w = NULL;

	make(VHD_DYNAMIC, 4 * MIB, 0);
	v = image(VHD_OPEN_WRITE);
	ck_assert_int_eq(vhd_open(&w, path, &o, &why), -EBUSY);
	o.flags = 0;
	ck_assert_int_eq(vhd_open(&w, path, &o, &why), -EBUSY);
	o.flags = VHD_OPEN_NOLOCK;
	ck_assert_int_eq(vhd_open(&w, path, &o, &why), 0);
	vhd_close(w);
	vhd_close(v);
	v = image(0);
	o.flags = 0;
	ck_assert_int_eq(vhd_open(&w, path, &o, &why), 0);
	vhd_close(w);
	vhd_close(v);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vhd");
	TCase *t = tcase_create("vhd");
	SRunner *r;
	int failed;

	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_loop_test(t, sizes_are_rounded_up_to_geometry, 0, (int)ARRAY_LEN(sizes));
	tcase_add_test(t, a_dynamic_image_keeps_what_is_written);
	tcase_add_test(t, a_dynamic_image_with_small_blocks_keeps_what_is_written);
	tcase_add_test(t, a_fixed_image_keeps_what_is_written);
	tcase_add_test(t, a_new_image_reads_as_zeros_and_is_one_hole);
	tcase_add_test(t, data_begins_on_a_4_kib_boundary);
	tcase_add_test(t, many_first_writers_of_one_block_share_it);
	tcase_add_test(t, an_empty_file_is_not_a_vhd);
	tcase_add_loop_test(t, zeros_are_not_a_vhd, 0, 2);
	tcase_add_test(t, two_wrong_checksums_are_refused);
	tcase_add_loop_test(t, one_wrong_checksum_is_survived, 0, 2);
	tcase_add_loop_test(t, damage_is_named, 0, (int)ARRAY_LEN(damage));
	tcase_add_test(t, two_entries_at_one_place_are_refused);
	tcase_add_test(t, a_cut_image_is_told_from_a_whole_one);
	tcase_add_test(t, an_old_footer_of_511_bytes_is_read);
	tcase_add_test(t, an_image_that_is_served_is_locked);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}

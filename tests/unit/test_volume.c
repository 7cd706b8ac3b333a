/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_volume.c - partition tables as real tools write them, and as nobody should
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vhd/base/cleanup.h"
#include "vhd/base/endian.h"
#include "vhd/volume/volume.h"
#include "vhd/volume/volume_int.h"

#define MIB (UINT64_C(1) << 20)
#define DISK (64 * MIB)
#define LAST (DISK / 512 - 1)

static char dir[64], path[96];
static struct vhd *v;
static struct vol_list l;

static void open_image(void)
{
	const struct vhd_open_opts o = {.flags = VHD_OPEN_WRITE};
	struct why why = {""};

	ck_assert_msg(vhd_open(&v, path, &o, &why) == 0, "%s", why.line);
}

static void setup(void)
{
	const struct vhd_create_opts o = {.type = VHD_DYNAMIC, .size = DISK, .exact = true};

	snprintf(dir, sizeof dir, "%s/vhdnfs-vol-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/a.vhd", dir);
	ck_assert_int_eq(vhd_create(path, &o, NULL), 0);
	open_image();
	ck_assert_uint_eq(vhd_size(v), DISK);
}

static void teardown(void)
{
	vhd_close(v);
	unlink(path);
	rmdir(dir);
}

static unsigned scan(void)
{
	struct why why = {""};

	ck_assert_msg(vol_scan(v, &l, &why) == 0, "%s", why.line);
	return l.n;
}

static void part_is(unsigned i, uint32_t number, uint64_t first, uint64_t sectors, const char *type)
{
	ck_assert_uint_lt(i, l.n);
	ck_assert_uint_eq(l.part[i].number, number);
	ck_assert_uint_eq(l.part[i].start, first * 512);
	ck_assert_uint_eq(l.part[i].len, sectors * 512);
	ck_assert_str_eq(l.part[i].fstype, type);
}

/* ---- real tools ------------------------------------------------------------------------------------------------- */

static bool have(const char *tool)
{
	char cmd[128];

	snprintf(cmd, sizeof cmd, "PATH=$PATH:/usr/sbin:/sbin command -v %s >/dev/null", tool);
	if (system(cmd) == 0)
		return true;
	printf("%s is missing: skipped\n", tool);
	return false;
}

/* Run a command on a raw disk in "$RAW" of the image's size, then copy it into the image. */
static void __attribute__((format(printf, 1, 2))) on_raw(const char *fmt, ...)
{
	char raw[96], cmd[1024], full[1400];
	AUTO(closep) int fd = -1;
	va_list ap;

	snprintf(raw, sizeof raw, "%s/raw", dir);
	va_start(ap, fmt);
	vsnprintf(cmd, sizeof cmd, fmt, ap);
	va_end(ap);
	snprintf(full, sizeof full,
		 "export RAW=%s PATH=$PATH:/usr/sbin:/sbin; truncate -s %llu $RAW && { %s; } >/dev/null 2>&1", raw,
		 (unsigned long long)DISK, cmd);
	ck_assert_int_eq(system(full), 0);
	fd = open(raw, O_RDONLY);
	ck_assert_int_ge(fd, 0);
	for (uint64_t off = 0; off < DISK; off += MIB) {
		static uint8_t b[1 << 20], zero[1 << 20];

		ck_assert_int_eq(pread(fd, b, MIB, (off_t)off), MIB);
		if (memcmp(b, zero, MIB) != 0)
			ck_assert_int_eq(vhd_write(v, b, MIB, off), 0);
	}
	unlink(raw);
}

START_TEST(an_empty_disk_holds_nothing)
{
	ck_assert_uint_eq(scan(), 0);
}
END_TEST

START_TEST(a_file_system_on_the_whole_disk_is_found)
{
	if (!have("mke2fs"))
		return;
	on_raw("mke2fs -q -F -t ext4 -L whole -U 01234567-89ab-cdef-0123-456789abcdef $RAW");
	ck_assert_uint_eq(scan(), 1);
	ck_assert_int_eq(l.table, VOL_WHOLE);
	part_is(0, 0, 0, DISK / 512, "ext4");
	ck_assert_str_eq(l.part[0].label, "whole");
	ck_assert_uint_eq(l.part[0].uuid[15], 0xef);
}
END_TEST

START_TEST(mbr_with_logical_partitions_as_sfdisk_makes_it)
{
	if (!have("sfdisk") || !have("mke2fs"))
		return;
	on_raw("printf 'label: dos\\nstart=2048,size=20480,type=83\\nstart=24576,type=5\\n"
	       "start=26624,size=16384,type=83\\nstart=45056,size=30000,type=83\\nstart=79872,size=4096,type=7\\n'"
	       " | sfdisk $RAW && mke2fs -q -F -t ext2 -E offset=1048576 $RAW 10M && "
	       "mke2fs -q -F -t ext4 -L log -E offset=%d $RAW 8M",
	       26624 * 512);
	ck_assert_uint_eq(scan(), 4);
	ck_assert_int_eq(l.table, VOL_MBR);
	part_is(0, 1, 2048, 20480, "ext2");
	part_is(1, 5, 26624, 16384, "ext4");
	part_is(2, 6, 45056, 30000, "");
	part_is(3, 7, 79872, 4096, "");
	ck_assert_str_eq(l.part[1].label, "log");
}
END_TEST

static const char gpt_script[] =
	"printf 'label: gpt\\nstart=2048,size=20480\\nstart=22528,size=8192\\n' | sfdisk $RAW && "
	"mke2fs -q -F -t ext4 -L first -E offset=1048576 $RAW 10M";

START_TEST(gpt_as_sfdisk_makes_it)
{
	if (!have("sfdisk") || !have("mke2fs"))
		return;
	on_raw("%s", gpt_script);
	ck_assert_uint_eq(scan(), 2);
	ck_assert_int_eq(l.table, VOL_GPT);
	part_is(0, 1, 2048, 20480, "ext4");
	part_is(1, 2, 22528, 8192, "");
}
END_TEST

START_TEST(gpt_as_parted_makes_it)
{
	if (!have("parted"))
		return;
	on_raw("parted -s $RAW mklabel gpt mkpart a ext4 1MiB 20MiB mkpart b ext4 30MiB 40MiB");
	ck_assert_uint_eq(scan(), 2);
	part_is(0, 1, 2048, 19 * 2048, "");
	part_is(1, 2, 30 * 2048, 10 * 2048, "");
}
END_TEST

static void scribble(uint64_t lba)
{
	uint8_t b[512];

	ck_assert_int_eq(vhd_read(v, b, 512, lba * 512), 0);
	b[40] ^= 1;
	ck_assert_int_eq(vhd_write(v, b, 512, lba * 512), 0);
}

START_TEST(a_damaged_gpt_is_read_from_its_backup)
{
	static const uint64_t damage[] = {1, 2};

	if (!have("sfdisk") || !have("mke2fs"))
		return;
	on_raw("%s", gpt_script);
	for (unsigned i = 0; i < ARRAY_LEN(damage); i++) {
		scribble(damage[i]);
		ck_assert_uint_eq(scan(), 2);
		part_is(0, 1, 2048, 20480, "ext4");
		scribble(damage[i]);
	}
	/* Sector 0 lost: the GPT itself is good. */
	ck_assert_int_eq(vhd_write(v, (uint8_t[512]){0}, 512, 0), 0);
	ck_assert_uint_eq(scan(), 2);
	/* Both damaged: nothing, and no error. */
	scribble(1);
	scribble(LAST);
	ck_assert_uint_eq(scan(), 0);
}
END_TEST

/* Disks with 4096-byte sectors count in those. */
START_TEST(a_gpt_of_larger_sectors_is_read)
{
	if (!have("fdisk") || !have("mke2fs"))
		return;
	on_raw("printf 'g\\nn\\n1\\n256\\n2815\\nw\\n' | fdisk -b 4096 $RAW && "
	       "mke2fs -q -F -t ext4 -E offset=1048576 $RAW 10M");
	ck_assert_uint_eq(scan(), 1);
	ck_assert_int_eq(l.table, VOL_GPT);
	part_is(0, 1, 2048, 20480, "ext4");
}
END_TEST

/* An MBR does not say how large the sectors are that it counts: what is found there does. */
START_TEST(an_mbr_of_larger_sectors_is_read)
{
	if (!have("fdisk") || !have("mke2fs"))
		return;
	on_raw("printf 'o\\nn\\np\\n1\\n256\\n2815\\nn\\ne\\n2\\n3072\\n6144\\nn\\nl\\n3328\\n5887\\nw\\n' | fdisk -b "
	       "4096 $RAW && "
	       "mke2fs -q -F -t ext4 -E offset=1048576 $RAW 10M && mke2fs -q -F -t ext2 -E offset=%u $RAW 10M",
	       3328 * 4096);
	ck_assert_uint_eq(scan(), 2);
	ck_assert_int_eq(l.table, VOL_MBR);
	part_is(0, 1, 2048, 20480, "ext4");
	part_is(1, 5, 3328 * 8, 20480, "ext2");
}
END_TEST

/* The disk is longer than its table knows. */
START_TEST(a_backup_gpt_before_the_last_sector_is_found)
{
	if (!have("sfdisk") || !have("mke2fs"))
		return;
	on_raw("truncate -s %d $RAW && { %s; } && truncate -s 64M $RAW", 63 << 20, gpt_script);
	scribble(1);
	ck_assert_uint_eq(scan(), 2);
	part_is(0, 1, 2048, 20480, "ext4");
}
END_TEST

/* A table made on a disk that held a file system: to serve that one would damage the partitions. */
START_TEST(partitions_win_over_what_was_on_the_disk_before)
{
	if (!have("sfdisk") || !have("mke2fs"))
		return;
	on_raw("mke2fs -q -F -t ext4 -b 4096 $RAW && printf 'label: dos\\nstart=32768,size=32768\\n' | "
	       "sfdisk --wipe never $RAW");
	ck_assert_uint_eq(scan(), 1);
	ck_assert_int_eq(l.table, VOL_WHOLE);
	on_raw("mke2fs -q -F -t ext4 -b 4096 $RAW && printf 'label: dos\\nstart=32768,size=32768\\n' | "
	       "sfdisk --wipe never $RAW && mke2fs -q -F -t ext3 -E offset=%d $RAW 16M",
	       32768 * 512);
	ck_assert_uint_eq(scan(), 1);
	ck_assert_int_eq(l.table, VOL_MBR);
	part_is(0, 1, 32768, 32768, "ext3");
}
END_TEST

/* ---- samples ---------------------------------------------------------------------------------------------------- */

static bool sample(const char *name)
{
	const char *at = getenv("VHD_SAMPLES");
	char cmd[512];

	snprintf(cmd, sizeof cmd, "gunzip -c '%s/%s' >%s.new 2>/dev/null", at ? at : "../shared/vhd-samples", name,
		 path);
	vhd_close(TAKE(v));
	if (system(cmd) != 0) {
		printf("the sample %s is missing: skipped\n", name);
		snprintf(cmd, sizeof cmd, "%s.new", path);
		unlink(cmd);
		open_image();
		return false;
	}
	snprintf(cmd, sizeof cmd, "%s.new", path);
	ck_assert_int_eq(rename(cmd, path), 0);
	open_image();
	return true;
}

START_TEST(windows_gpt_disk_is_understood)
{
	if (!sample("node-vhd/dynamic.vhd.gz"))
		return;
	ck_assert_uint_eq(scan(), 4);
	ck_assert_int_eq(l.table, VOL_GPT);
	ck_assert_uint_eq(l.part[1].start, UINT64_C(65664) * 512);
	ck_assert_str_eq(l.part[1].fstype, "vfat");
	ck_assert_str_eq(l.part[2].fstype, "ntfs");
	ck_assert_uint_eq(l.part[2].start, UINT64_C(270464) * 512);
	ck_assert_str_eq(l.part[2].label, "NTFS Volume");
	ck_assert_str_eq(l.part[3].label, "FAT VOLUME");
}
END_TEST

START_TEST(windows_mbr_disk_is_understood)
{
	if (!sample("node-vhd/fixed.vhd.gz"))
		return;
	ck_assert_uint_eq(scan(), 1);
	ck_assert_int_eq(l.table, VOL_MBR);
	ck_assert_uint_eq(l.part[0].start, UINT64_C(128) * 512);
	ck_assert_str_eq(l.part[0].fstype, "vfat");
}
END_TEST

/* ---- made by hand ----------------------------------------------------------------------------------------------- */

struct entry {
	uint8_t type;
	uint32_t first, sectors;
};

static void put_mbr(uint64_t lba, const struct entry *e, unsigned n)
{
	uint8_t b[512] = {0};

	for (unsigned i = 0; i < n; i++) {
		le32 first = le32_of(e[i].first), sectors = le32_of(e[i].sectors);

		b[446 + 16 * i + 4] = e[i].type;
		memcpy(b + 446 + 16 * i + 8, &first, 4);
		memcpy(b + 446 + 16 * i + 12, &sectors, 4);
	}
	b[510] = 0x55;
	b[511] = 0xaa;
	ck_assert_int_eq(vhd_write(v, b, 512, lba * 512), 0);
}

#define MBR(lba, ...)                                                                                                  \
	put_mbr(lba, (const struct entry[]){__VA_ARGS__}, ARRAY_LEN(((const struct entry[]){__VA_ARGS__})))

START_TEST(partitions_outside_the_disk_or_on_another_are_left_out)
{
	MBR(0, {0x83, 100, 100}, {0x83, 199, 10}, {0x83, LAST, 2}, {0x83, 0xffffffff, 0xffffffff});
	ck_assert_uint_eq(scan(), 1);
	part_is(0, 1, 100, 100, "");
	MBR(0, {0x83, 100, 100}, {0x83, 200, 10}, {0x83, LAST, 1}, {0x83, 5, 0});
	ck_assert_uint_eq(scan(), 3);
	part_is(2, 3, LAST, 1, "");
}
END_TEST

START_TEST(a_chain_that_goes_back_is_followed_once)
{
	MBR(0, {0x05, 1000, 10000});
	MBR(1000, {0x83, 10, 10}, {0x05, 500, 100});
	MBR(1500, {0x83, 10, 10}, {0x05, 200, 100}); /* backwards, as fdisk leaves it */
	MBR(1200, {0x83, 10, 10}, {0x05, 500, 100}); /* and round again */
	ck_assert_uint_eq(scan(), 3);
	part_is(0, 5, 1010, 10, "");
	part_is(1, 6, 1510, 10, "");
	part_is(2, 7, 1210, 10, "");
	MBR(1000, {0x83, 10, 10}, {0x05, 0, 100}); /* to itself */
	ck_assert_uint_eq(scan(), 1);
	MBR(1000, {0x83, 10, 10}, {0x05, 0xfffffff0, 100}); /* out of the world */
	ck_assert_uint_eq(scan(), 1);
	MBR(0, {0x05, 0xfffffff0, 0xffffffff});
	ck_assert_uint_eq(scan(), 0);
}
END_TEST

START_TEST(a_chain_without_end_is_cut)
{
	MBR(0, {0x0f, 1000, 100000});
	for (uint32_t i = 0; i < 300; i++)
		MBR(1000 + 4 * i, {0x83, 1, 1}, {0x05, 4 * (i + 1), 4});
	ck_assert_uint_eq(scan(), VOL_MAX);
	part_is(VOL_MAX - 1, 5 + VOL_MAX - 1, 1000 + 4 * (VOL_MAX - 1) + 1, 1, "");
}
END_TEST

START_TEST(two_extended_partitions_number_on)
{
	MBR(0, {0x05, 1000, 1000}, {0x05, 3000, 1000});
	MBR(1000, {0x83, 10, 10});
	MBR(3000, {0x83, 10, 10});
	ck_assert_uint_eq(scan(), 2);
	part_is(0, 5, 1010, 10, "");
	part_is(1, 6, 3010, 10, "");
}
END_TEST

/* Numbers of a GPT header. */
struct header {
	uint64_t self, other, entries;
	uint32_t size, count, entry_size;
};

static void put_header(const struct header *h, uint32_t entries_crc)
{
	uint8_t b[512] = "EFI PART";
	le32 n;
	le64 w;

#define PUT32(at, x) (n = le32_of(x), memcpy(b + (at), &n, 4))
#define PUT64(at, x) (w = le64_of(x), memcpy(b + (at), &w, 8))
	PUT32(8, 0x10000);
	PUT32(12, h->size);
	PUT64(24, h->self);
	PUT64(32, h->other);
	PUT64(72, h->entries);
	PUT32(80, h->count);
	PUT32(84, h->entry_size);
	PUT32(88, entries_crc);
	PUT32(16, vol_crc32(b, h->size <= 512 ? h->size : 512));
#undef PUT32
#undef PUT64
	ck_assert_int_eq(vhd_write(v, b, 512, h->self * 512), 0);
}

START_TEST(numbers_of_a_gpt_are_not_believed)
{
	static const struct header bad[] = {
		{1, LAST, 2, 92, UINT32_MAX, 128},
		{1, LAST, 2, 92, 1025, 128},
		{1, LAST, 2, 92, 128, UINT32_MAX},
		{1, LAST, 2, 92, 128, 8},
		{1, LAST, 2, 92, 128, 0},
		{1, LAST, 2, 92, 0, 128},
		{1, LAST, UINT64_MAX, 92, 4, 128},
		{1, LAST, UINT64_MAX / 512 + 1, 92, 4, 128},
		{1, LAST, LAST, 92, 8, 128},
		{1, LAST, 2, 20, 4, 128},
		{1, LAST, 2, 513, 4, 128},
		{1, LAST, 2, UINT32_MAX, 4, 128},
		{1, UINT64_MAX, 2, 92, UINT32_MAX, 128},
		{1, 0, 2, 92, UINT32_MAX, 128},
	};

	MBR(0, {0xee, 1, LAST});
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		uint8_t zero[512] = {0};

		put_header(&bad[i], vol_crc32(zero, 512));
		ck_assert_uint_eq(scan(), 0);
	}
}
END_TEST

START_TEST(entries_of_a_gpt_are_checked_one_by_one)
{
	static const struct header h = {1, LAST, 2, 92, 8, 128};
	static const uint64_t range[8][2] = {
		{2048, 4095},
		{4096, 4095}, /* ends before it begins */
		{0, UINT64_MAX},
		{UINT64_MAX, UINT64_MAX},
		{4000, 5000},
		/* on the first */ {LAST, LAST + 1},
		{UINT64_MAX / 512, UINT64_MAX - 1},
		{5000, 5000},
	};
	uint8_t b[1024] = {0};

	for (unsigned i = 0; i < 8; i++) {
		le64 first = le64_of(range[i][0]), last = le64_of(range[i][1]);

		b[i * 128] = 1;
		memcpy(b + i * 128 + 32, &first, 8);
		memcpy(b + i * 128 + 40, &last, 8);
	}
	MBR(0, {0xee, 1, LAST});
	ck_assert_int_eq(vhd_write(v, b, sizeof b, 1024), 0);
	put_header(&h, vol_crc32(b, sizeof b));
	ck_assert_uint_eq(scan(), 2);
	part_is(0, 1, 2048, 2048, "");
	part_is(1, 8, 5000, 1, "");
}
END_TEST

/* UEFI 2.10, 5.3.2: the checksum of "123456789" tells the polynomial. */
START_TEST(crc32_is_the_one_of_ieee_802_3)
{
	ck_assert_uint_eq(vol_crc32("123456789", 9), 0xcbf43926);
}
END_TEST

static Suite *suite(void)
{
	const TTest *const tests[] = {
		an_empty_disk_holds_nothing,
		a_file_system_on_the_whole_disk_is_found,
		mbr_with_logical_partitions_as_sfdisk_makes_it,
		gpt_as_sfdisk_makes_it,
		gpt_as_parted_makes_it,
		a_damaged_gpt_is_read_from_its_backup,
		a_gpt_of_larger_sectors_is_read,
		an_mbr_of_larger_sectors_is_read,
		a_backup_gpt_before_the_last_sector_is_found,
		partitions_win_over_what_was_on_the_disk_before,
		windows_gpt_disk_is_understood,
		windows_mbr_disk_is_understood,
		partitions_outside_the_disk_or_on_another_are_left_out,
		a_chain_that_goes_back_is_followed_once,
		a_chain_without_end_is_cut,
		two_extended_partitions_number_on,
		numbers_of_a_gpt_are_not_believed,
		entries_of_a_gpt_are_checked_one_by_one,
		crc32_is_the_one_of_ieee_802_3,
	};
	Suite *s = suite_create("volume");
	TCase *t = tcase_create("volume");

	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, setup, teardown);
	for (size_t i = 0; i < ARRAY_LEN(tests); i++)
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

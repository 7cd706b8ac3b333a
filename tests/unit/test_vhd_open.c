/* SPDX-License-Identifier: BSD-3-Clause */
/* test_vhd_open.c - what is opened, what is refused and in which words, and images that others made */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/image_fixture.h"
#include "vhd/base/cleanup.h"
#include "vhd/io/hio.h"

/* The base of vhd-format.md §5: dynamic, 16 MiB, blocks 0 and 2 in use. */
static void base(void)
{
	uint8_t b[512];
	struct vhd *v;

	fx_make(VHD_DYNAMIC, 16 * MIB, 0);
	v = fx_open(VHD_OPEN_WRITE);
	memset(b, 7, sizeof b);
	ck_assert_int_eq(vhd_write(v, b, 512, 0), 0);
	ck_assert_int_eq(vhd_write(v, b, 512, 4 * MIB), 0);
	fx_close(v);
}

enum where { FOOTERS, HEADER, BAT, TAIL };

/* One field of the base image changed. Checksums are computed again unless RAW. */
#define RAW true
static const struct damage {
	const char *what;
	enum where where;
	bool raw;
	unsigned off; /* in the structure; in BAT: the entry */
	size_t n;
	const char *bytes;
	int err;
	const char *says;
} damage[] = {
	{"5 cookie with two n", FOOTERS, false, 0, 9, "connectix", -EINVAL, "not a VHD"},
	{"5 cookie capital", FOOTERS, false, 0, 1, "C", -EINVAL, "not a VHD"},
	{"§5.7 both checksums wrong", FOOTERS, RAW, 64, 4, "abcd", -EUCLEAN, "footer checksum"},
	{"checksum 0 in both", FOOTERS, RAW, 64, 4, "\0\0\0\0", -EUCLEAN, "footer checksum"},
	{"§5.10 version 2.0", FOOTERS, false, 12, 4, "\0\2\0\0", -EUCLEAN, "version 2.0"},
	{"§5.13 type 0", FOOTERS, false, 60, 4, "\0\0\0\0", -EUCLEAN, "unsupported disk type 0"},
	{"§5.14 type 1", FOOTERS, false, 60, 4, "\0\0\0\1", -EUCLEAN, "unsupported disk type 1"},
	{"§5.15 type 7", FOOTERS, false, 60, 4, "\0\0\0\7", -EUCLEAN, "unsupported disk type 7"},
	{"11 type in the wrong byte order", FOOTERS, false, 60, 4, "\3\0\0\0", -EUCLEAN,
	 "unsupported disk type 50331648"},
	{"§5.16 fixed with a dynamic header", FOOTERS, false, 60, 4, "\0\0\0\2", -EUCLEAN, "dynamic header"},
	{"§5.17 differencing without a parent", FOOTERS, false, 60, 4, "\0\0\0\4", -EUCLEAN, "parent is not given"},
	{"§5.20 size above the BAT", FOOTERS, false, 48, 8, "\0\0\0\0\2\0\0\0", -EUCLEAN, "BAT too small"},
	{"§5.21 size 2^63", FOOTERS, false, 48, 8, "\x80\0\0\0\0\0\0\0", -EUCLEAN, "too large"},
	{"§5.22 2040 GiB + 512", FOOTERS, false, 48, 8, "\0\0\x01\xfe\0\0\2\0", -EUCLEAN, "too large"},
	{"size 0", FOOTERS, false, 48, 8, "\0\0\0\0\0\0\0\0", -EUCLEAN, "size 0"},
	{"§5.24 header past the end", FOOTERS, false, 16, 8, "\0\0\0\x10\0\0\0\0", -EUCLEAN, "dynamic header position"},
	{"§5.25 header at 513", FOOTERS, false, 16, 8, "\0\0\0\0\0\0\2\1", -EUCLEAN, "dynamic header position"},
	{"§5.26 header at 0", FOOTERS, false, 16, 8, "\0\0\0\0\0\0\0\0", -EUCLEAN, "dynamic header position"},
	{"§5.27 header at all ones", FOOTERS, false, 16, 8, "\xff\xff\xff\xff\xff\xff\xff\xff", -EUCLEAN,
	 "dynamic header position"},
	{"header where none is", FOOTERS, false, 16, 8, "\0\0\0\0\0\0\6\0", -EUCLEAN, "no dynamic header"},
	{"§5.62 poisoned", FOOTERS, RAW, 0, 8, "v_poison", -EUCLEAN, "interrupted resize"},
	{"VHDX", FOOTERS, RAW, 0, 8, "vhdxfile", -ENOTSUP, "VHDX"},
	{"blktap 0.1", FOOTERS, false, 28, 8, "tap\0\0\0\0\1", -ENOTSUP, "blktap 0.1"},
	{"§5.28 header cookie", HEADER, false, 0, 1, "C", -EUCLEAN, "dynamic header"},
	{"§5.29 header checksum", HEADER, RAW, 36, 4, "abcd", -EUCLEAN, "dynamic header checksum"},
	{"§5.30 header version 2", HEADER, false, 24, 4, "\0\2\0\0", -EUCLEAN, "version 2"},
	{"§5.31 block size 0", HEADER, false, 32, 4, "\0\0\0\0", -EUCLEAN, "block size 0"},
	{"§5.32 block size 3 MiB", HEADER, false, 32, 4, "\0\x30\0\0", -EUCLEAN, "block size 3145728"},
	{"§5.33 block size 256", HEADER, false, 32, 4, "\0\0\1\0", -EUCLEAN, "block size 256"},
	{"§5.34 block size 2 GiB", HEADER, false, 32, 4, "\x80\0\0\0", -EUCLEAN, "block size 2147483648"},
	{"§5.35 block size 512", HEADER, false, 32, 4, "\0\0\2\0", -EUCLEAN, "BAT too small"},
	{"§5.36 no entries", HEADER, false, 28, 4, "\0\0\0\0", -EUCLEAN, "BAT too small"},
	{"§5.37 one too few", HEADER, false, 28, 4, "\0\0\0\7", -EUCLEAN, "BAT too small"},
	{"§5.38 2^32 - 1 entries", HEADER, false, 28, 4, "\xff\xff\xff\xff", -EUCLEAN, "truncated"},
	{"§5.39 2^29 entries", HEADER, false, 28, 4, "\x20\0\0\0", -EUCLEAN, "truncated"},
	{"§5.40 5 M entries", HEADER, false, 28, 4, "\0\x4c\x4b\x40", -EUCLEAN, "truncated"},
	{"§5.41 BAT past the end", HEADER, false, 16, 8, "\0\0\0\x7f\0\0\0\0", -EUCLEAN, "truncated"},
	{"§5.42 BAT not aligned", HEADER, false, 16, 8, "\0\0\0\0\0\0\6\1", -EUCLEAN, "BAT at byte 1537"},
	{"§5.43 BAT over the header", HEADER, false, 16, 8, "\0\0\0\0\0\0\2\0", -EUCLEAN,
	 "overlaps the dynamic header"},
	{"BAT over the footer's copy", HEADER, false, 16, 8, "\0\0\0\0\0\0\0\0", -EUCLEAN, "BAT at byte 0"},
	{"§5.44 BAT that wraps", HEADER, false, 16, 8, "\xff\xff\xff\xff\xff\xff\xfe\0", -EUCLEAN, "truncated"},
	{"§5.45 entry past the end", BAT, false, 0, 4, "\x7f\xff\xff\0", -EUCLEAN,
	 "block 0: BAT entry points at sector 2147483392, outside"},
	{"§5.46 entry just below unused", BAT, false, 1, 4, "\xff\xff\xff\xfe", -EUCLEAN,
	 "block 1: BAT entry points at sector 4294967294, outside"},
	{"§5.47 entry 0", BAT, false, 3, 4, "\0\0\0\0", -EUCLEAN,
	 "block 3: BAT entry points at sector 0, which overlaps metadata"},
	{"§5.48 entry in the BAT", BAT, false, 0, 4, "\0\0\0\3", -EUCLEAN, "overlaps metadata"},
	{"version 0.0", FOOTERS, false, 12, 4, "\0\0\0\0", -EUCLEAN, "version 0.0"},
	{"version in the wrong byte order", FOOTERS, false, 12, 4, "\0\0\1\0", -EUCLEAN, "version 0.256"},
	{"type all ones", FOOTERS, false, 60, 4, "\xff\xff\xff\xff", -EUCLEAN, "unsupported disk type 4294967295"},
	{"type 5", FOOTERS, false, 60, 4, "\0\0\0\5", -EUCLEAN, "unsupported disk type 5"},
	{"size all ones", FOOTERS, false, 48, 8, "\xff\xff\xff\xff\xff\xff\xff\xff", -EUCLEAN, "too large"},
	{"size 2^64 - 512", FOOTERS, false, 48, 8, "\xff\xff\xff\xff\xff\xff\xfe\0", -EUCLEAN, "too large"},
	{"size in the wrong byte order", FOOTERS, false, 48, 8, "\0\0\0\1\0\0\0\0", -EUCLEAN, "BAT too small"},
	{"header at 2^63 - 512", FOOTERS, false, 16, 8, "\x7f\xff\xff\xff\xff\xff\xfe\0", -EUCLEAN,
	 "dynamic header position"},
	{"header that wraps", FOOTERS, false, 16, 8, "\xff\xff\xff\xff\xff\xff\xfe\0", -EUCLEAN,
	 "dynamic header position"},
	{"header at its own second sector", FOOTERS, false, 16, 8, "\0\0\0\0\0\0\4\0", -EUCLEAN, "no dynamic header"},
	{"a footer for a header", HEADER, false, 0, 8, "conectix", -EUCLEAN, "dynamic header"},
	{"header cookie zeros", HEADER, false, 0, 8, "\0\0\0\0\0\0\0\0", -EUCLEAN, "dynamic header"},
	{"header checksum 0", HEADER, RAW, 36, 4, "\0\0\0\0", -EUCLEAN, "dynamic header checksum"},
	{"header version 0", HEADER, false, 24, 4, "\0\0\0\0", -EUCLEAN, "version 0"},
	{"block size 513", HEADER, false, 32, 4, "\0\0\2\1", -EUCLEAN, "block size 513"},
	{"block size 2^32 - 1", HEADER, false, 32, 4, "\xff\xff\xff\xff", -EUCLEAN, "block size 4294967295"},
	{"block size in the wrong byte order", HEADER, false, 32, 4, "\0\0\x20\0", -EUCLEAN, "BAT too small"},
	{"BAT over the header's second half", HEADER, false, 16, 8, "\0\0\0\0\0\0\4\0", -EUCLEAN,
	 "overlaps the dynamic header"},
	{"BAT at 2^63", HEADER, false, 16, 8, "\x80\0\0\0\0\0\0\0", -EUCLEAN, "truncated"},
	{"entry in the footer's copy", BAT, false, 1, 4, "\0\0\0\1", -EUCLEAN, "overlaps metadata"},
	{"entry in the header", BAT, false, 7, 4, "\0\0\0\2", -EUCLEAN, "block 7: BAT entry points at sector 2"},
	{"entry with its top bit set", BAT, false, 0, 4, "\x80\0\0\x10", -EUCLEAN, "outside"},
	{"§5.51 entry at the footer", BAT, false, 1, 4, NULL, -EUCLEAN, "block 1: BAT entry"},
};

START_TEST(damage_is_named)
{
	const struct damage *d = &damage[_i];

	base();
	if (d->where == FOOTERS) {
		fx_poke(d->off, d->bytes, d->n);
		fx_poke(fx_size() - 512 + d->off, d->bytes, d->n);
		if (!d->raw) {
			/* The checksum is that of the changed footer, so that only the field is wrong. */
			fx_seal_head();
			fx_seal_tail();
		}
	} else if (d->where == HEADER) {
		fx_poke(512 + d->off, d->bytes, d->n);
		if (!d->raw)
			fx_seal_header();
	} else {
		be32 at = be32_of((uint32_t)(fx_size() / 512 - 1));

		fx_poke(1536 + 4 * d->off, d->bytes ? d->bytes : (const char *)at.b, 4);
	}
	fx_refused(d->err, d->says);
}
END_TEST

/* §5.49, 50 */
START_TEST(blocks_that_overlap_are_refused)
{
	be32 entry;

	base();
	fx_peek(1536, entry.b, 4);
	entry = be32_of(be32_get(entry) + (uint32_t)_i);
	fx_poke(1540, entry.b, 4);
	fx_refused(-EUCLEAN, "blocks 0 and 1 overlap");
}
END_TEST

/* The whole table names one block. */
START_TEST(a_table_of_one_block_is_refused)
{
	be32 entry;

	base();
	fx_peek(1536, entry.b, 4);
	for (unsigned i = 0; i < 8; i++)
		fx_poke(1536 + 4 * i, entry.b, 4);
	fx_refused(-EUCLEAN, "blocks 0 and 1 overlap");
}
END_TEST

/* Headers and tables that lie where the file ends. */
START_TEST(structures_at_the_end_are_refused)
{
	be64 at;

	base();
	at = be64_of(fx_size() - 512);
	if (_i == 0) { /* the header is the footer itself */
		fx_poke(16, at.b, 8);
		fx_poke(fx_size() - 512 + 16, at.b, 8);
		fx_seal_head();
		fx_seal_tail();
		fx_refused(-EUCLEAN, "dynamic header position");
	} else { /* the table is the footer, or reaches past the end by one entry */
		be32 n = be32_of(129);

		fx_poke(512 + 16, at.b, 8);
		if (_i == 2)
			fx_poke(512 + 28, n.b, 4);
		fx_seal_header();
		fx_refused(-EUCLEAN, _i == 2 ? "truncated" : "BAT");
	}
}
END_TEST

static const struct {
	uint64_t size;
	int fill; /* -1: the first bytes of the base image */
	const char *says;
} stubs[] = {
	{0, 0, "too small"},   {1, 0, "too small"},    {510, 0, "too small"},   {511, 0, "not a VHD"},
	{512, 0, "not a VHD"}, {1536, 0, "not a VHD"}, {MIB, 255, "not a VHD"},
};

/* 7, §5.1-3 */
START_TEST(what_is_no_image_is_called_so)
{
	FILE *f = fopen(fx_path, "we");

	ck_assert_ptr_nonnull(f);
	for (uint64_t i = 0; i < stubs[_i].size; i++)
		fputc(stubs[_i].fill, f);
	fclose(f);
	fx_refused(-EINVAL, stubs[_i].says);
}
END_TEST

/* 17, §5.52, 57, 58: cut anywhere, it is never a whole image. */
START_TEST(a_cut_image_is_told_from_a_whole_one)
{
	static const uint64_t left[] = {512, 1024, 1536, 1540, 2048, 4096, MIB, 3 * MIB};
	uint64_t size;

	base();
	size = fx_size();
	ck_assert_int_eq(truncate(fx_path, (off_t)(_i < (int)ARRAY_LEN(left) ? left[_i] : size - MIB)), 0);
	fx_refused(-EUCLEAN, _i < 2 ? "dynamic header position" : "truncated");
}
END_TEST

START_TEST(a_cut_fixed_image_has_no_footer)
{
	fx_make(VHD_FIXED, 4 * MIB, 0);
	ck_assert_int_eq(truncate(fx_path, (off_t)(fx_size() - 512)), 0);
	fx_refused(-EINVAL, "not a VHD");
}
END_TEST

START_TEST(a_fixed_footer_that_promises_more_than_the_file_is_refused)
{
	uint8_t footer[512];

	fx_make(VHD_FIXED, 4 * MIB, 0);
	fx_peek(fx_size() - 512, footer, 512);
	ck_assert_int_eq(truncate(fx_path, 1 << 20), 0);
	fx_poke(1 << 20, footer, 512);
	fx_refused(-EUCLEAN, "truncated");
}
END_TEST

/* 16, 13: a table that fits a sparse file but no memory is an error, not the end of the process. */
/* A footer that does not begin with a sector: the disk's last sector must not reach into it. */
START_TEST(a_fixed_disk_does_not_reach_into_its_footer)
{
	uint8_t footer[512];

	fx_make(VHD_FIXED, 4 * MIB, 0);
	fx_peek(fx_size() - 512, footer, sizeof footer);
	fx_poke(fx_size() - 512 - 100, footer, sizeof footer);
	ck_assert_int_eq(truncate(fx_path, (off_t)(fx_size() - 100)), 0);
	fx_refused(-EUCLEAN, "truncated");
}
END_TEST

/* A table that is a hole of the file: entries of a disk's blocks are refused, those past its end mean nothing, and neither takes more
 * memory than the table. Under sanitizers, whose address space is huge itself, there is no limit to set. */
START_TEST(a_table_without_content_takes_no_more_than_its_size)
{
	const be32 entries = be32_of(64u << 20), small = be32_of(32u << 10), unused = be32_of(VHD_UNUSED);
	const struct vhd_open_opts o = {.flags = VHD_OPEN_CACHED};
	struct rlimit old, low = {.rlim_cur = 700 * MIB};
	uint8_t tail[512];
	struct vhd *v = NULL;
	int err;

	fx_make(VHD_DYNAMIC, 2 * MIB, 0);
	fx_peek(0, tail, sizeof tail);
	fx_poke(512 + 28, entries.b, 4);
	fx_poke(512 + 32, small.b, 4);
	fx_seal_header();
	for (uint64_t i = 0; i < 128; i++)
		fx_poke(1536 + 4 * i, unused.b, 4);
	if (_i)
		ck_assert_int_eq(truncate(fx_path, 1536 + 4), 0);
	else
		ck_assert_int_eq(truncate(fx_path, 2048), 0);
	fx_poke(1536 + 256 * MIB, tail, sizeof tail);
	ck_assert_int_eq(getrlimit(RLIMIT_AS, &old), 0);
	low.rlim_max = old.rlim_max;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	low = old;
#endif
	ck_assert_int_eq(setrlimit(RLIMIT_AS, &low), 0);
	err = vhd_open(&v, fx_path, &o, &fx_why);
	ck_assert_int_eq(setrlimit(RLIMIT_AS, &old), 0);
	ck_assert_msg(err == (_i ? -EUCLEAN : 0), "%d: %s", err, fx_why.line);
	ck_assert(!_i || strstr(fx_why.line, "overlaps metadata"));
	ck_assert_int_eq(vhd_close(v), 0);
}
END_TEST

START_TEST(no_memory_for_the_table_is_an_error)
{
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	struct rlimit r = {UINT64_C(200) << 20, UINT64_C(200) << 20};
	be32 n = be32_of(60u << 20);
	uint8_t footer[512];
	struct vhd *v = NULL;
	int pid, status;

	base();
	fx_peek(0, footer, 512);
	ck_assert_int_eq(truncate(fx_path, INT64_C(1) << 30), 0);
	fx_poke((UINT64_C(1) << 30) - 512, footer, 512);
	fx_poke(512 + 28, n.b, 4);
	fx_seal_header();
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0)
		_exit(setrlimit(RLIMIT_AS, &r) == 0 && vhd_open(&v, fx_path, NULL, &fx_why) == -ENOMEM ? 0 : 1);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
#endif
}
END_TEST

/* ---- what is survived ------------------------------------------------------------------------------------------------------ */

static void still_good(void)
{
	uint8_t b[512];
	struct vhd *v = fx_open(VHD_OPEN_WRITE);

	ck_assert_int_eq(vhd_read(v, b, 512, 4 * MIB), 0);
	ck_assert_uint_eq(b[0], 7);
	memset(b, 9, sizeof b);
	ck_assert_int_eq(vhd_write(v, b, 512, 8 * MIB), 0);
	fx_close(v);
}

static void both_footers_good(void)
{
	struct vhd_info info;
	struct vhd *v = fx_open(0);
	uint8_t b[512];

	vhd_info(v, &info);
	ck_assert(info.tail_ok && info.head_ok);
	ck_assert_int_eq(vhd_read(v, b, 512, 8 * MIB), 0);
	ck_assert_uint_eq(b[0], 9);
	fx_close(v);
	if (fx_have("qemu-img"))
		ck_assert_int_eq(fx_run("qemu-img info -f vpc %s", fx_path), 0);
}

/* 2, §5.5, 6, 8: one good footer is enough, and the other is written again by the first flush. */
START_TEST(one_damaged_footer_is_survived_and_mended)
{
	uint64_t at;
	uint8_t zeros[512] = {0};

	base();
	at = _i % 2 ? 0 : fx_size() - 512;
	if (_i < 2)
		fx_poke(at + 64, "abcd", 4);
	else
		fx_poke(at, zeros, 512);
	still_good();
	both_footers_good();
}
END_TEST

/* §5.55, 56, and a crash of our own: bytes behind the footer, or a file that grew without one. */
START_TEST(bytes_behind_the_footer_are_survived)
{
	static const uint64_t more[] = {1, 511, 512, 4096, 100 * MIB};

	base();
	ck_assert_int_eq(truncate(fx_path, (off_t)(fx_size() + more[_i])), 0);
	still_good();
	both_footers_good();
}
END_TEST

/* 1: reading a damaged image does not mend it. */
START_TEST(reading_changes_nothing)
{
	uint64_t sum;
	uint8_t b[512];
	struct vhd *v;

	base();
	fx_poke(64, "abcd", 4);
	sum = fx_sum();
	v = fx_open(0);
	ck_assert_int_eq(vhd_read(v, b, 512, 0), 0);
	ck_assert_int_eq(vhd_flush(v), 0);
	fx_close(v);
	ck_assert_uint_eq(fx_sum(), sum);
}
END_TEST

START_TEST(an_open_for_writing_without_a_write_changes_nothing)
{
	uint64_t sum;

	base();
	sum = fx_sum();
	fx_close(fx_open(VHD_OPEN_WRITE));
	ck_assert_uint_eq(fx_sum(), sum);
}
END_TEST

/* §5.54: before Virtual PC 2004 the footer had 511 bytes. */
START_TEST(a_footer_of_511_bytes_is_read)
{
	struct vhd *v;
	uint8_t b[512];

	if (_i == 0) {
		fx_make(VHD_FIXED, 4 * MIB, 0);
	} else {
		base();
		/* The copy at the start is bad: only the short one is left. */
		fx_poke(64, "abcd", 4);
	}
	ck_assert_int_eq(truncate(fx_path, (off_t)(fx_size() - 1)), 0);
	v = fx_open(VHD_OPEN_WRITE);
	ck_assert_uint_eq(vhd_size(v), vhd_round_size((_i ? 16 : 4) * MIB));
	memset(b, 9, sizeof b);
	ck_assert_int_eq(vhd_write(v, b, 512, vhd_size(v) - 512), 0);
	fx_close(v);
	v = fx_open(0);
	ck_assert_int_eq(vhd_read(v, b, 512, vhd_size(v) - 512), 0);
	ck_assert_uint_eq(b[511], 9);
	fx_close(v);
}
END_TEST

/* ---- which size counts --------------------------------------------------------------------------------------------------- */

/* 26-30: a footer for 8 MiB with a geometry of 120/4/17 = 4177920. */
static const struct {
	const char *creator;
	uint16_t c;
	uint8_t h, s;
	enum vhd_size_from how;
	uint64_t size;
} rules[] = {
	{"vpc ", 120, 4, 17, VHD_SIZE_AUTO, 4177920},
	{"qemu", 120, 4, 17, VHD_SIZE_AUTO, 4177920},
	{"win ", 120, 4, 17, VHD_SIZE_AUTO, 8 * MIB},
	{"qem2", 120, 4, 17, VHD_SIZE_AUTO, 8 * MIB},
	{"d2v\0", 120, 4, 17, VHD_SIZE_AUTO, 8 * MIB},
	{"tap\0", 120, 4, 17, VHD_SIZE_AUTO, 8 * MIB},
	{"CTXS", 120, 4, 17, VHD_SIZE_AUTO, 8 * MIB},
	{"vbox", 120, 4, 17, VHD_SIZE_AUTO, 8 * MIB},
	{"wa\0\0", 120, 4, 17, VHD_SIZE_AUTO, 8 * MIB},
	{"vs  ", 120, 4, 17, VHD_SIZE_AUTO, 8 * MIB},
	{"vhdn", 120, 4, 17, VHD_SIZE_AUTO, 8 * MIB},
	{"vpc ", 65535, 16, 255, VHD_SIZE_AUTO, 8 * MIB},        /* 26 */
	{"qemu", 65535, 16, 255, VHD_SIZE_CHS, 8 * MIB},         /* 30: the largest geometry always means "see size" */
	{"qemu", 0, 0, 0, VHD_SIZE_AUTO, 8 * MIB},               /* §5.23 */
	{"qemu", 20, 32, 17, VHD_SIZE_AUTO, 20 * 32 * 17 * 512}, /* 28: more than 16 heads */
	{"win ", 120, 4, 17, VHD_SIZE_CHS, 4177920},
	{"vpc ", 120, 4, 17, VHD_SIZE_CURRENT, 8 * MIB},
};

START_TEST(the_creator_says_which_size_counts)
{
	struct vhd_open_opts o = {.size_from = rules[_i].how};
	be64 size = be64_of(8 * MIB);
	be16 c = be16_of(rules[_i].c);
	struct vhd *v = NULL;
	uint64_t at;

	fx_make(VHD_DYNAMIC, 16 * MIB, 0);
	at = fx_size() - 512;
	fx_poke(at + 28, rules[_i].creator, 4);
	fx_poke(at + 32, "\0\1\0\3", 4);
	fx_poke(at + 48, size.b, 8);
	fx_poke(at + 56, c.b, 2);
	fx_poke(at + 58, &rules[_i].h, 1);
	fx_poke(at + 59, &rules[_i].s, 1);
	fx_seal_tail();
	ck_assert_msg(vhd_open(&v, fx_path, &o, &fx_why) == 0, "%s", fx_why.line);
	ck_assert_uint_eq(vhd_size(v), rules[_i].size);
	fx_close(v);
}
END_TEST

START_TEST(the_largest_image_opens_in_no_time)
{
	struct vhd *v;
	uint8_t b[512] = {5};

	fx_make(VHD_DYNAMIC, VHD_MAX_SIZE, 0);
	v = fx_open(VHD_OPEN_WRITE);
	ck_assert_uint_eq(vhd_size(v), VHD_MAX_SIZE);
	ck_assert_int_eq(vhd_write(v, b, 512, VHD_MAX_SIZE - 512), 0);
	ck_assert_int_eq(vhd_write(v, b, 512, VHD_MAX_SIZE), -EINVAL);
	fx_close(v);
	v = fx_open(0);
	ck_assert_int_eq(vhd_read(v, b, 512, VHD_MAX_SIZE - 512), 0);
	ck_assert_uint_eq(b[0], 5);
	fx_close(v);
}
END_TEST

/* ---- differencing: told, not served ---------------------------------------------------------------------------------------- */

static void into_child(void)
{
	static const char name[] = "p\0a\0r\0e\0n\0t\0.\0v\0h\0d";
	uint64_t at;

	fx_make(VHD_DYNAMIC, 16 * MIB, 0);
	at = fx_size() - 512;
	fx_poke(60, "\0\0\0\4", 4);
	fx_poke(at + 60, "\0\0\0\4", 4);
	fx_poke(512 + 40, "a parent's UUID.", 16);
	fx_poke(512 + 64 + 1, name, sizeof name - 1); /* UTF-16BE */
	fx_seal_head();
	fx_seal_tail();
	fx_seal_header();
}

START_TEST(a_child_without_its_parent_is_refused_by_the_parents_name)
{
	const struct vhd_open_opts o = {.flags = VHD_OPEN_INFO};
	struct vhd_info info;
	struct vhd *v = NULL;
	uint8_t b[512];

	into_child();
	fx_refused(-ENOENT, "parent \"parent.vhd\" is not found");
	ck_assert_int_eq(vhd_open(&v, fx_path, &o, &fx_why), 0);
	vhd_info(v, &info);
	ck_assert_int_eq(info.type, VHD_DIFF);
	ck_assert_str_eq(info.parent_name, "parent.vhd");
	ck_assert_int_eq(vhd_read(v, b, 512, 0), -ENOTSUP);
	fx_close(v);
}
END_TEST

static const struct {
	const char *what;
	const char *entry; /* code, space, length, reserved, offset */
	const char *says;
} locators[] = {
	{"past the end", "W2ru\0\0\2\0\0\0\0\x10\0\0\0\0\0\0\0\x10\0\0\0\0", "locator 0"},
	{"2^32 - 1 bytes", "W2ru\xff\xff\xfe\0\xff\xff\xff\xff\0\0\0\0\0\0\0\0\0\0\2\0", "locator 0"},
	{"more than its space", "W2ru\0\0\2\0\0\0\2\1\0\0\0\0\0\0\0\0\0\0\2\0", "locator 0"},
	{"space of 513", "W2ru\0\0\2\1\0\0\0\x10\0\0\0\0\0\0\0\0\0\0\2\0", "locator 0"},
	{"that wraps", "W2ru\0\0\2\0\0\0\0\x10\0\0\0\0\xff\xff\xff\xff\xff\xff\xfe\0", "locator 0"},
};

/* §5.64, 65 */
START_TEST(a_damaged_locator_is_named)
{
	into_child();
	fx_poke(512 + 576, locators[_i].entry, 24);
	fx_seal_header();
	fx_refused(-EUCLEAN, locators[_i].says);
}
END_TEST

/* §2.8: XenServer's map of full blocks spares us their bitmaps; one that cannot be right is not believed. */
START_TEST(a_batmap_is_used_when_valid_and_ignored_when_stale)
{
	static const struct {
		uint8_t map;
		bool sum_ok, used;
	} cases[] = {{0x80, true, true}, {0x80, false, false}, {0xc0, true, false}, {0x00, true, false}};
	struct vhd_batmap bm = {
		.cookie = "tdbatmap", .offset = be64_of(2560), .sectors = be32_of(1), .version = be32_of(0x10002)};
	uint8_t b[512], map[512] = {cases[_i].map}, none[512] = {0};
	uint64_t tail;
	struct vhd *v;
	be32 at;

	fx_make(VHD_DYNAMIC, 16 * MIB, 0);
	v = fx_open(VHD_OPEN_WRITE);
	memset(b, 7, sizeof b);
	ck_assert_int_eq(vhd_write(v, b, 512, 512), 0);
	fx_close(v);
	tail = fx_size() - 512;
	fx_poke(28, "tap\0\0\1\0\3", 8);
	fx_poke(tail + 28, "tap\0\0\1\0\3", 8);
	fx_seal_head();
	fx_seal_tail();
	bm.checksum = be32_of(~(uint32_t)cases[_i].map + !cases[_i].sum_ok);
	fx_poke(2048, &bm, sizeof bm);
	fx_poke(2560, map, sizeof map);
	/* Who believes the map does not see that the bitmap says otherwise. */
	fx_peek(1536, at.b, 4);
	fx_poke((uint64_t)be32_get(at) * 512, none, sizeof none);
	v = fx_open(0);
	ck_assert_int_eq(vhd_read(v, b, 512, 512), 0);
	ck_assert_uint_eq(b[9], cases[_i].used ? 7 : 0);
	fx_close(v);
}
END_TEST

/* ---- samples ------------------------------------------------------------------------------------------------------------- */

static const struct {
	const char *file, *unpack;
	const char *disk; /* sha256 of the content; NULL: zeros */
	uint64_t size;
} samples[] = {
	{"qemu/d2v-zerofilled.vhd.bz2", "bunzip2", "1ba076be94a8a64541c25aae8d5a5f8b0da758c3797af597e03acb431ff8d143",
	 263454720},
	{"node-vhd/dynamic.vhd.gz", "gunzip", "c461afded0b54cc1cfb5441e08f4d7f9d699d2eff7d9526d1cf6ad227da26683",
	 536870912},
	{"node-vhd/fixed.vhd.gz", "gunzip", "fa0490edf13cf9699ac7ead2b2024f2ec7921f583ff824039bca0529055e409d",
	 10485760},
	{"dfvfs/ext2.vhd.gz", "gunzip", "870be7ae16c1fa8faab05c6eb9205dc9a7ae35c5f552c5cf8a267c0bc6a5cb99", 4212736},
	{"go-vhd/vbox.vhd", "cat", "80a3721188e40218b08b26776bc53bdae81e4784fff71d71450a197319cba113", 41943040},
	{"go-vhd/xapi.vhd", "cat", "80a3721188e40218b08b26776bc53bdae81e4784fff71d71450a197319cba113", 41943040},
	{"go-vhd/win8.vhd", "cat", "80a3721188e40218b08b26776bc53bdae81e4784fff71d71450a197319cba113", 41943040},
	{"tapdisk/tap-base.vhd.gz", "gunzip", "35b22baab6252e8112ccb09fe9caca84d2a6a1ce699139213a123683bad47e47",
	 33554432},
	{"qemu/virtualpc-dynamic.vhd.bz2", "bunzip2", NULL, 136363130880},
	{"go-vhd/qemu.vhd", "cat", NULL, 41953280},
};

static bool sample(const char *file, const char *unpack)
{
	char at[200];

	snprintf(at, sizeof at, "../shared/vhd-samples/%s", file);
	if (access(at, R_OK) < 0)
		return false;
	ck_assert_int_eq(fx_run("%s <%s >%s", unpack, at, fx_path), 0);
	return true;
}

/* vhd-samples/README.md: the content of images that other programs made. */
START_TEST(samples_read_as_their_makers_meant)
{
	AUTO(freep) uint8_t *buf = malloc(MIB);
	char raw[120];
	struct vhd_run run;
	struct vhd *v;
	FILE *f;

	if (!sample(samples[_i].file, samples[_i].unpack))
		return;
	v = fx_open(0);
	ck_assert_uint_eq(vhd_size(v), samples[_i].size);
	if (!samples[_i].disk) {
		ck_assert_int_eq(vhd_map(v, 0, vhd_size(v), &run), 0);
		ck_assert(run.hole);
		ck_assert_uint_eq(run.len, vhd_size(v));
		fx_close(v);
		return;
	}
	snprintf(raw, sizeof raw, "%s/raw", fx_dir);
	f = fopen(raw, "we");
	ck_assert(f && buf);
	for (uint64_t off = 0; off < vhd_size(v); off += MIB) {
		uint64_t n = vhd_size(v) - off < MIB ? vhd_size(v) - off : MIB;

		ck_assert_int_eq(vhd_read(v, buf, n, off), 0);
		ck_assert_uint_eq(fwrite(buf, 1, n, f), n);
	}
	fclose(f);
	fx_close(v);
	ck_assert_int_eq(fx_run("echo '%s  %s' | sha256sum -c", samples[_i].disk, raw), 0);
}
END_TEST

static const struct {
	const char *file, *unpack, *says;
	int err;
} refused[] = {
	{"dfvfs/image.vhd.gz", "gunzip", "footer checksum", -EUCLEAN},
	{"dfvfs/image-differential.vhd.gz", "gunzip", "footer checksum", -EUCLEAN},
	{"go-vhd/win8-child.vhd", "cat", "win8.vhd", -ENOENT},
	{"tapdisk/tap-snap1.vhd.gz", "gunzip", "tap-base.vhd", -ENOENT},
};

START_TEST(samples_that_are_not_served_are_refused)
{
	if (sample(refused[_i].file, refused[_i].unpack))
		fx_refused(refused[_i].err, refused[_i].says);
}
END_TEST

/* Slack, batmap, locators in front of the first block: a first write leaves them as they are, and shows none of them. */
START_TEST(samples_keep_their_metadata_when_written)
{
	static const struct {
		const char *file, *unpack;
		uint64_t keep; /* bytes from 512 on, the table aside */
	} s[] = {{"go-vhd/xapi.vhd", "cat", 4096},
		 {"go-vhd/win8.vhd", "cat", 0x1e00},
		 {"go-vhd/qemu.vhd", "cat", 1536},
		 {"tapdisk/tap-base.vhd.gz", "gunzip", 3072}};
	uint8_t before[8192], after[8192], b[512], whole[4096];
	be64 table;
	uint64_t at, keep = s[_i].keep;
	struct vhd *v;

	if (!sample(s[_i].file, s[_i].unpack))
		return;
	keep = keep < fx_size() - 512 ? keep : fx_size() - 512;
	fx_peek(512, before, keep);
	v = fx_open(VHD_OPEN_WRITE);
	memset(b, 0xaa, sizeof b);
	for (at = 0; at < vhd_size(v); at += 2 * MIB)
		ck_assert_int_eq(vhd_write(v, b, 512, at + 512), 0);
	for (at = 0; _i < 3 && at < vhd_size(v); at += 2 * MIB)
		for (uint64_t off = 1024; off + sizeof whole <= 2 * MIB && at + off + sizeof whole <= vhd_size(v);
		     off += sizeof whole) {
			ck_assert_int_eq(vhd_read(v, whole, sizeof whole, at + off), 0);
			ck_assert(whole[0] == 0 && memcmp(whole, whole + 1, sizeof whole - 1) == 0);
		}
	fx_close(v);
	fx_peek(512, after, keep);
	memcpy(table.b, before + 16, 8);
	at = be64_get(table) - 512;
	memcpy(after + at, before + at, 512); /* the table's entries changed, as they had to */
	ck_assert_mem_eq(after, before, keep);
	v = fx_open(0);
	for (at = 0; at < vhd_size(v); at += 2 * MIB) {
		ck_assert_int_eq(vhd_read(v, b, 512, at + 512), 0);
		ck_assert_uint_eq(b[511], 0xaa);
	}
	fx_close(v);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vhd open");
	TCase *t = tcase_create("open");

	tcase_set_timeout(t, 120);
	tcase_add_checked_fixture(t, fx_setup, fx_teardown);
	tcase_add_loop_test(t, damage_is_named, 0, (int)ARRAY_LEN(damage));
	tcase_add_loop_test(t, blocks_that_overlap_are_refused, 0, 2);
	tcase_add_test(t, a_table_of_one_block_is_refused);
	tcase_add_loop_test(t, structures_at_the_end_are_refused, 0, 3);
	tcase_add_loop_test(t, what_is_no_image_is_called_so, 0, (int)ARRAY_LEN(stubs));
	tcase_add_loop_test(t, a_cut_image_is_told_from_a_whole_one, 0, 9);
	tcase_add_test(t, a_cut_fixed_image_has_no_footer);
	tcase_add_test(t, a_fixed_footer_that_promises_more_than_the_file_is_refused);
	tcase_add_test(t, a_fixed_disk_does_not_reach_into_its_footer);
	tcase_add_loop_test(t, a_table_without_content_takes_no_more_than_its_size, 0, 2);
	tcase_add_test(t, no_memory_for_the_table_is_an_error);
	tcase_add_loop_test(t, one_damaged_footer_is_survived_and_mended, 0, 4);
	tcase_add_loop_test(t, bytes_behind_the_footer_are_survived, 0, 5);
	tcase_add_test(t, reading_changes_nothing);
	tcase_add_test(t, an_open_for_writing_without_a_write_changes_nothing);
	tcase_add_loop_test(t, a_footer_of_511_bytes_is_read, 0, 2);
	tcase_add_loop_test(t, the_creator_says_which_size_counts, 0, (int)ARRAY_LEN(rules));
	tcase_add_test(t, the_largest_image_opens_in_no_time);
	tcase_add_test(t, a_child_without_its_parent_is_refused_by_the_parents_name);
	tcase_add_loop_test(t, a_damaged_locator_is_named, 0, (int)ARRAY_LEN(locators));
	tcase_add_loop_test(t, a_batmap_is_used_when_valid_and_ignored_when_stale, 0, 4);
	tcase_add_loop_test(t, samples_read_as_their_makers_meant, 0, (int)ARRAY_LEN(samples));
	tcase_add_loop_test(t, samples_that_are_not_served_are_refused, 0, (int)ARRAY_LEN(refused));
	tcase_add_loop_test(t, samples_keep_their_metadata_when_written, 0, 4);
	suite_add_tcase(s, t);
	return fx_main(s);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* test_vhd_check.c - check finds what is wrong, names it, changes nothing; repair mends what can be mended */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/unit/image_fixture.h"
#include "vhd/base/cleanup.h"
#include "vhd/image/check.h"
#include "vhd/io/hio.h"

enum { AT_HEAD, AT_TAIL, AT_BOTH, AT_HEADER, AT_FILE };

struct got {
	unsigned n, hopeless;
	struct vhd_finding first;
	const char *want;
	bool seen;
};

static void take(void *arg, const struct vhd_finding *f)
{
	struct got *g = arg;

	if (!g->n++)
		g->first = *f;
	g->hopeless += f->severity == VHD_ERROR && !f->can_repair;
	g->seen |= g->want && strstr(f->text, g->want) != NULL;
}

static struct vhd_check_result run(struct got *g)
{
	struct vhd_check_result r;
	uint64_t before = fx_sum();
	int err = vhd_check(fx_path, take, g, &r, &fx_why);

	ck_assert_msg(err == 0, "%s", fx_why.line);
	ck_assert_uint_eq(fx_sum(), before);
	return r;
}

/* 16 MiB in 8 blocks, of which 4 are in use. */
static void base(void)
{
	uint8_t b[4096] = {1};
	struct vhd *v;

	fx_make(VHD_DYNAMIC, 16 * MIB, 0);
	v = fx_open(VHD_OPEN_WRITE);
	for (uint64_t i = 0; i < 4; i++)
		ck_assert_int_eq(vhd_write(v, b, sizeof b, i * 4 * MIB), 0);
	fx_close(v);
}

START_TEST(whole_images_have_no_findings)
{
	static const enum vhd_type types[] = {VHD_FIXED, VHD_DYNAMIC};
	struct got g = {.n = 0};
	struct vhd_check_result r;

	if (_i < 2)
		fx_make(types[_i], 9 * MIB, 0);
	else
		base();
	r = run(&g);
	ck_assert_msg(g.n == 0, "%s", g.first.text);
	ck_assert_uint_eq(r.errors + r.warnings + r.leaks, 0);
	ck_assert_uint_eq(r.blocks_allocated, _i < 2 ? 0 : 4);
}
END_TEST

static const struct {
	int where;
	uint64_t off;
	const char *bytes;
	size_t n;
	bool seal; /* checksums are made right again */
	enum vhd_severity severity;
	const char *says;
} damage[] = {
	{AT_TAIL, 0, "x", 1, false, VHD_ERROR, "missing or damaged"},
	{AT_TAIL, 64, "\1", 1, false, VHD_ERROR, "checksum"},
	{AT_HEAD, 0, "x", 1, false, VHD_ERROR, "missing or damaged"},
	{AT_HEAD, 90, "\1", 1, false, VHD_ERROR, "checksum"},
	{AT_HEAD, 32, "\0\7", 2, true, VHD_ERROR, "differs"},
	{AT_BOTH, 12, "\0\2", 2, true, VHD_ERROR, "version 2.0"},
	{AT_BOTH, 8, "\0\0\0\7", 4, true, VHD_WARNING, "features 00000007"},
	{AT_BOTH, 16, "\0\0\0\0\0\0\2\1", 8, true, VHD_ERROR, "data offset 513"},
	{AT_BOTH, 24, "\x7f", 1, true, VHD_WARNING, "future"},
	{AT_BOTH, 48, "\0\0\0\0\0\0\0\0", 8, true, VHD_ERROR, "current size 0"},
	{AT_BOTH, 48, "\x7f", 1, true, VHD_ERROR, "current size"},
	{AT_BOTH, 55, "\1", 1, true, VHD_ERROR, "multiple of 512"},
	{AT_BOTH, 56, "\7", 1, true, VHD_WARNING, "geometry"},
	{AT_BOTH, 60, "\0\0\0\1", 4, true, VHD_ERROR, "disk type 1"},
	{AT_BOTH, 84, "\7", 1, true, VHD_ERROR, "saved state 7"},
	{AT_BOTH, 100, "\7", 1, true, VHD_WARNING, "reserved"},
	{AT_HEADER, 0, "x", 1, true, VHD_ERROR, "no dynamic header"},
	{AT_HEADER, 8, "\0", 1, true, VHD_WARNING, "data offset"},
	{AT_HEADER, 16, "\xff", 1, true, VHD_ERROR, "table of"},
	{AT_HEADER, 23, "\1", 1, true, VHD_ERROR, "table of"},
	{AT_HEADER, 24, "\0\2", 2, true, VHD_ERROR, "version 2"},
	{AT_HEADER, 28, "\0\0\0\1", 4, true, VHD_ERROR, "do not hold"},
	{AT_HEADER, 28, "\xff\xff\xff\xff", 4, true, VHD_ERROR, "table of"},
	{AT_HEADER, 32, "\0\0\0\0", 4, true, VHD_ERROR, "block size 0"},
	{AT_HEADER, 32, "\0\x30\0\0", 4, true, VHD_ERROR, "block size 3145728"},
	{AT_HEADER, 36, "\1", 1, false, VHD_ERROR, "checksum"},
	{AT_HEADER, 40, "\1", 1, true, VHD_WARNING, "names a parent"},
	{AT_HEADER, 576, "W2ru\0\0\2\0\0\0\0\x10\0\0\0\0\0\0\0\x10\0\0\0\0", 24, true, VHD_WARNING,
	 "not a differencing"},
	{AT_HEADER, 800, "\1", 1, true, VHD_WARNING, "reserved"},
	{AT_FILE, 1536, "\x7f\xff\xff\xff", 4, false, VHD_ERROR, "block 0 at sector 2147483647"},
	{AT_FILE, 1536, "\0\0\0\0", 4, false, VHD_ERROR, "overlaps the headers"},
	{AT_FILE, 1540, "\0\0\0\x10", 4, false, VHD_ERROR, "overlap"},
};

static void make_damage(int i)
{
	uint64_t tail;

	base();
	tail = fx_size() - 512;
	if (damage[i].where == AT_HEAD || damage[i].where == AT_BOTH)
		fx_poke(damage[i].off, damage[i].bytes, damage[i].n);
	if (damage[i].where == AT_TAIL || damage[i].where == AT_BOTH)
		fx_poke(tail + damage[i].off, damage[i].bytes, damage[i].n);
	if (damage[i].where == AT_HEADER)
		fx_poke(512 + damage[i].off, damage[i].bytes, damage[i].n);
	if (damage[i].where == AT_FILE)
		fx_poke(damage[i].off, damage[i].bytes, damage[i].n);
	if (damage[i].seal) {
		fx_seal_head();
		fx_seal_tail();
		fx_seal_header();
	}
}

START_TEST(every_kind_of_damage_is_named)
{
	struct got g = {.want = damage[_i].says};

	make_damage(_i);
	run(&g);
	ck_assert_msg(g.seen, "\"%s\" not among %u findings, the first: \"%s\"", damage[_i].says, g.n, g.first.text);
	if (g.n == 1)
		ck_assert_int_eq(g.first.severity, damage[_i].severity);
}
END_TEST

/* What can be mended is, and nothing else is touched. */
START_TEST(repair_mends_or_leaves_alone)
{
	struct got g = {.want = NULL}, after = {.want = NULL};
	struct vhd_check_result r;
	uint64_t before;
	int err;

	make_damage(_i);
	run(&g);
	before = fx_sum();
	err = vhd_repair(fx_path, &fx_why);
	if (g.hopeless) {
		ck_assert_int_eq(err, -EUCLEAN);
		ck_assert_uint_eq(fx_sum(), before);
	} else {
		ck_assert_int_eq(err, 0);
		r = run(&after);
		ck_assert_uint_eq(r.repairable, 0);
		ck_assert_uint_eq(r.errors, 0);
		fx_close(fx_open(0));
	}
}
END_TEST

/* Space that a crash left behind the last block is told, and given back. */
START_TEST(unused_space_is_a_leak)
{
	struct got g = {.n = 0};
	struct vhd_check_result r;
	uint64_t size;
	be32 none = be32_of(0xffffffff);

	base();
	size = fx_size();
	for (unsigned i = 0; i < 8; i += 2) { /* all but the first block in use are forgotten */
		be32 e;

		fx_peek(1536 + 4 * i, e.b, 4);
		if (be32_get(e) > 16)
			fx_poke(1536 + 4 * i, none.b, 4);
	}
	r = run(&g);
	ck_assert_uint_eq(r.errors, 0);
	ck_assert_uint_eq(r.leaks, 1);
	ck_assert_uint_ge(r.leaked, 2 * 2 * MIB);
	ck_assert_int_eq(vhd_repair(fx_path, &fx_why), 0);
	ck_assert_uint_lt(fx_size(), size - 2 * 2 * MIB);
	g.n = 0;
	r = run(&g);
	ck_assert_msg(g.n == 0, "%s", g.first.text);
}
END_TEST

START_TEST(data_that_a_bitmap_hides_is_told)
{
	struct got g = {.want = "marked unused but holds data"};
	uint8_t none = 0x7f;
	be32 e;

	base();
	fx_peek(1536, e.b, 4);
	fx_poke((uint64_t)be32_get(e) * 512, &none, 1);
	run(&g);
	ck_assert(g.seen);
}
END_TEST

START_TEST(what_is_no_image_is_called_so)
{
	struct vhd_check_result r;
	struct got g = {.n = 0};

	ck_assert_int_eq(fx_run("head -c %u /dev/zero >%s", _i ? 100000 : 100, fx_path), 0);
	ck_assert_int_eq(vhd_check(fx_path, take, &g, &r, &fx_why), -EINVAL);
	ck_assert_ptr_nonnull(strstr(fx_why.line, "not a VHD"));
	ck_assert_int_eq(vhd_repair(fx_path, &fx_why), -EINVAL);
}
END_TEST

/* Random bytes anywhere in the structures: an answer, whatever it is. */
START_TEST(no_damage_leads_astray)
{
	for (unsigned i = 0; i < 300; i++) {
		struct got g = {.n = 0};
		uint8_t b = (uint8_t)fx_rnd(256);
		struct vhd_check_result r;
		uint64_t off;

		if (i % 10 == 0) {
			fx_run("rm -f %s", fx_path);
			base();
		}
		off = fx_rnd(4) ? fx_rnd(1600) : fx_size() - 512 + fx_rnd(512);
		fx_poke(off, &b, 1);
		if (fx_rnd(2))
			fx_seal_header();
		if (fx_rnd(2))
			fx_seal_head();
		if (fx_rnd(2))
			fx_seal_tail();
		(void)vhd_check(fx_path, take, &g, &r, &fx_why);
	}
}
END_TEST

/*
 * A file that holds next to nothing but says it is huge: 2^30 entries, all in a hole of the file. Memory follows what the
 * host has allocated: under AddressSanitizer, whose address space is huge itself, the limit is on what is counted only.
 */
START_TEST(memory_follows_what_the_file_holds)
{
	struct rlimit old, low;
	struct vhd_check_result r;
	struct got g = {.want = "overlaps the headers"};
	be32 entries = be32_of(1u << 30), small = be32_of(512);
	uint8_t tail[512];
	int err;

	base();
	fx_peek(0, tail, sizeof tail);
	fx_poke(512 + 28, entries.b, 4);
	fx_poke(512 + 32, small.b, 4);
	fx_seal_header();
	ck_assert_int_eq(truncate(fx_path, 4096), 0);
	ck_assert_int_eq(truncate(fx_path, (off_t)(UINT64_C(5) << 30)), 0);
	fx_poke((UINT64_C(5) << 30) - 512, tail, sizeof tail);
	ck_assert_int_eq(getrlimit(RLIMIT_AS, &old), 0);
	low = old;
	low.rlim_cur = UINT64_C(1) << 30;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	low = old;
#endif
	ck_assert_int_eq(setrlimit(RLIMIT_AS, &low), 0);
	err = vhd_check(fx_path, take, &g, &r, &fx_why);
	ck_assert_int_eq(setrlimit(RLIMIT_AS, &old), 0);
	ck_assert_msg(err == 0, "%s", fx_why.line);
	ck_assert(g.seen);
	ck_assert_uint_gt(r.errors, (1u << 30) - 100000);
	ck_assert_uint_lt(g.n, 200);
}
END_TEST

static int count_reads(void *arg, enum hio_event ev, uint64_t off, uint64_t len, const struct iovec *iov, int niov)
{
	(void)off;
	(void)len;
	(void)iov;
	(void)niov;
	*(unsigned *)arg += ev == HIO_EV_READ;
	return 0;
}

/* All entries name one block that is a hole of the file, with an empty bitmap: what is read does not grow with their number times the
 * sectors of the block. */
START_TEST(bitmaps_are_looked_at_once)
{
	struct got g = {.want = "overlap"};
	be32 e = be32_of(64);
	unsigned reads = 0;
	uint8_t footer[512];

	fx_make(VHD_DYNAMIC, 512 * MIB, 2u << 20);
	for (uint64_t i = 0; i < 256; i++)
		fx_poke(1536 + 4 * i, e.b, 4);
	fx_peek(0, footer, sizeof footer);
	fx_poke(4 * MIB, footer, sizeof footer);
	hio_set_default_hook(count_reads, &reads);
	run(&g);
	hio_set_default_hook(NULL, NULL);
	ck_assert(g.seen);
	ck_assert_uint_lt(reads, 100);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vhd check");
	TCase *t = tcase_create("check");

	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, fx_setup, fx_teardown);
	tcase_add_loop_test(t, whole_images_have_no_findings, 0, 3);
	tcase_add_loop_test(t, every_kind_of_damage_is_named, 0, (int)ARRAY_LEN(damage));
	tcase_add_loop_test(t, repair_mends_or_leaves_alone, 0, (int)ARRAY_LEN(damage));
	tcase_add_test(t, unused_space_is_a_leak);
	tcase_add_test(t, data_that_a_bitmap_hides_is_told);
	tcase_add_loop_test(t, what_is_no_image_is_called_so, 0, 2);
	tcase_add_test(t, no_damage_leads_astray);
	tcase_add_test(t, memory_follows_what_the_file_holds);
	tcase_add_test(t, bitmaps_are_looked_at_once);
	suite_add_tcase(s, t);
	return fx_main(s);
}

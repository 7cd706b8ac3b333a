/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_advise.c - IO_ADVISE on a real server: what hints do, seen through what the server tells of itself
 *
 * Names of tests begin with the requirement they stand for: d… of draft-hildebrand-nfsv4-ioadvise-02 section 4, r… of RFC 7862 §15.5.
 * What answers hold, and wrong arguments, are in test_files.c.
 */
#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/protocol/calls.h"
#include "tests/protocol/server.h"
#include "tools/control.h"

#define K 1024u
#define M (1024u * K)
#define CACHE (16u * M)
#define HINT(h) (1u << IO_ADVISE4_##h)

static struct nfsc *c;
static nfs_fh4 dir;
static char dir_buf[NFS4_FHSIZE], control[64], yaml[64];

/* ---- the server --------------------------------------------------------------------------------------------------------------------- */

static void connect_it(void)
{
	c = server_client();
	look_up(c, "/disk", &dir, dir_buf);
}

static const char *options[8];

static void start_with(const char *readahead)
{
	FILE *f;

	snprintf(control, sizeof control, "/tmp/vhdnfs-advise-%d", (int)getpid());
	snprintf(yaml, sizeof yaml, "/tmp/vhdnfs-advise-%d.yaml", (int)getpid());
	f = fopen(yaml, "w");
	ck_assert_ptr_nonnull(f);
	fprintf(f,
		"control: %s\ncache-size: 16M\nsquash: none\nreadahead: %s\nrules:\n"
		"  - match: \"*.mp4\"\n    advise: [sequential, noreuse]\n  - match: \"*.db\"\n    advise: [random]\n",
		control, readahead);
	fclose(f);
	memcpy(options, (const char *[]){"--config", yaml, "--control", control, NULL}, 5 * sizeof *options);
	server_start(options);
	connect_it();
}

static void setup(void)
{
	start_with("auto");
}

static void setup_without_detection(void)
{
	start_with("hints");
}

static void teardown(void)
{
	nfsc_close(c);
	server_stop();
	unlink(yaml);
}

/* Nothing is in memory, and nobody has a file open. */
static void cold(void)
{
	nfsc_close(c);
	server_restart();
	connect_it();
}

static json_t *ask(const char *what, const char *path, const char *advice)
{
	struct why why = {.line = ""};
	json_t *q = json_pack("{s:s, s:s*, s:s*}", "do", what, "path", path, "advice", advice), *a = NULL;

	ck_assert_msg(control_ask(control, q, &a, &why) == 0, "%s", why.line);
	json_decref(q);
	return a;
}

static uint64_t figure(const char *group, const char *name)
{
	json_t *a = ask("stat", NULL, NULL);
	uint64_t v = (uint64_t)json_integer_value(json_object_get(json_object_get(a, group), name));

	json_decref(a);
	return v;
}

static uint64_t of_file(const char *path, const char *name)
{
	json_t *a = ask("explain", path, NULL);
	uint64_t v = (uint64_t)json_integer_value(json_object_get(a, name));

	json_decref(a);
	return v;
}

/* The hints that hold for a file, with spaces between them. */
static const char *holds(const char *path)
{
	static char text[200];
	json_t *a = ask("explain", path, NULL), *list = json_object_get(a, "hints");

	text[0] = '\0';
	for (size_t i = 0; i < json_array_size(list); i++)
		snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", i ? " " : "",
			 json_string_value(json_array_get(list, i)));
	json_decref(a);
	return text;
}

static void nap_ms(long ms)
{
	nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static void await_resident(const char *path, uint64_t bytes)
{
	for (int i = 0; i < 3000 && of_file(path, "resident") < bytes; i++)
		nap_ms(2);
	ck_assert_uint_ge(of_file(path, "resident"), bytes);
}

/* ---- files ---------------------------------------------------------------------------------------------------------------------------- */

static void reopen(struct nfsc *n, const char *name, const char *owner, struct open_file *f)
{
	ck_assert_int_eq(open_in(n, &dir, name, owner, OPEN4_SHARE_ACCESS_BOTH, OPEN4_SHARE_DENY_NONE, NULL, f),
			 NFS4_OK);
}

/* A file of so many bytes on the disk, and nothing of it in memory. */
static void cold_file(const char *name, uint64_t size, struct open_file *f)
{
	const createhow4 how = {.mode = UNCHECKED4};
	static char buf[256 * K];

	ck_assert_int_eq(open_in(c, &dir, name, "me", OPEN4_SHARE_ACCESS_BOTH, OPEN4_SHARE_DENY_NONE, &how, f),
			 NFS4_OK);
	for (uint64_t off = 0; off < size; off += sizeof buf) {
		memset(buf, (int)(off / sizeof buf) + 1, sizeof buf);
		ck_assert_int_eq(
			write_at(c, f, off, buf, (uint32_t)(size - off < sizeof buf ? size - off : sizeof buf)),
			NFS4_OK);
	}
	ck_assert_int_eq(close_it(c, f), NFS4_OK);
	cold();
	reopen(c, name, "me", f);
}

/* The hints that are followed, or -status. */
static int64_t advise(struct nfsc *n, struct open_file *f, uint64_t off, uint64_t count, uint32_t hints)
{
	nfs_argop4 op = nfsc_io_advise(&f->sid, off, count, &hints);
	COMPOUND4res res;
	nfsstat4 st = on(n, &f->fh, &op, &res);
	int64_t said = -(int64_t)st;

	if (st == NFS4_OK)
		said = nfsc_followed(&res, 2);
	nfsc_free(&res);
	return said;
}

static void rd(struct nfsc *n, struct open_file *f, uint64_t off, uint32_t len)
{
	static char buf[M];

	ck_assert_int_ge(read_at(n, f, off, buf, len), 1);
}

/* ---- what holds ------------------------------------------------------------------------------------------------------------------------- */

START_TEST(d1_r2_a_hint_beyond_the_end_holds_when_the_file_grows)
{
	struct open_file f;

	cold_file("f", 0, &f);
	ck_assert_int_eq(advise(c, &f, 1 << 30, 4096, HINT(SEQUENTIAL) | HINT(WILLNEED)),
			 HINT(SEQUENTIAL) | HINT(WILLNEED));
	ck_assert_int_eq(write_at(c, &f, 0, "x", 1), NFS4_OK);
	ck_assert_int_eq(write_at(c, &f, 4 << 20, "x", 1), NFS4_OK);
	ck_assert_str_eq(holds("/disk/f"), "SEQUENTIAL");
}
END_TEST

START_TEST(d2_r3_count_0_is_everything_from_the_offset_on)
{
	struct open_file f;

	cold_file("f", 3 * M, &f);
	ck_assert_int_eq(advise(c, &f, M, 0, HINT(WILLNEED)), HINT(WILLNEED));
	await_resident("/disk/f", 2 * M);
	ck_assert_uint_lt(of_file("/disk/f", "resident"), 2 * M + 64 * K + 1);
}
END_TEST

START_TEST(d4_nothing_was_advised_nothing_holds)
{
	struct open_file f;

	cold_file("f", M, &f);
	ck_assert_str_eq(holds("/disk/f"), "");
	/* With one read, nothing is read ahead. */
	rd(c, &f, 0, 4096);
	ck_assert_uint_eq(figure("cache", "ahead"), 0);
}
END_TEST

START_TEST(d10_r10_the_last_hint_wins)
{
	struct open_file f;

	cold_file("f", M, &f);
	advise(c, &f, 0, 0, HINT(SEQUENTIAL));
	advise(c, &f, 0, 10, HINT(RANDOM));
	ck_assert_str_eq(holds("/disk/f"), "RANDOM");
	advise(c, &f, 0, 0, HINT(SEQUENTIAL_BACKWARDS) | HINT(NOREUSE));
	ck_assert_str_eq(holds("/disk/f"), "SEQUENTIAL_BACKWARDS NOREUSE");
	advise(c, &f, 0, 0, HINT(NORMAL));
	ck_assert_str_eq(holds("/disk/f"), "");
}
END_TEST

START_TEST(d11_r11_hints_end_with_the_close)
{
	struct open_file f;

	cold_file("f", M, &f);
	advise(c, &f, 0, 0, HINT(SEQUENTIAL));
	ck_assert_int_eq(close_it(c, &f), NFS4_OK);
	reopen(c, "f", "me", &f);
	ck_assert_str_eq(holds("/disk/f"), "");
	advise(c, &f, 0, 0, HINT(RANDOM));
	cold();
	reopen(c, "f", "me", &f);
	ck_assert_str_eq(holds("/disk/f"), "");
}
END_TEST

START_TEST(d12_noreuse_in_the_compound_of_the_open)
{
	uint32_t word = HINT(NOREUSE);
	nfs_argop4 op[3] = {{.argop = OP_PUTFH}, {.argop = OP_OPEN}, {.argop = OP_IO_ADVISE}};
	OPEN4args *a = &op[1].nfs_argop4_u.opopen;
	struct open_file f;
	COMPOUND4res res;

	cold_file("f", M, &f);
	op[0] = nfsc_putfh(&dir);
	a->share_access = OPEN4_SHARE_ACCESS_READ;
	a->owner.owner.owner_val = (char *)(uintptr_t) "direct";
	a->owner.owner.owner_len = 6;
	a->claim.claim = CLAIM_NULL;
	a->claim.open_claim4_u.file = name_of("f");
	op[2].nfs_argop4_u.opio_advise = (IO_ADVISE4args){.iaa_stateid = {.seqid = 1},
							  .iaa_hints = {1, &word}}; /* the current stateid */
	ck_assert_int_eq(nfsc_call(c, op, 3, &res), 0);
	nfsc_free(&res);
	ck_assert_str_eq(holds("/disk/f"), "NOREUSE");
}
END_TEST

START_TEST(d13_read_and_write_alone_change_nothing)
{
	struct open_file f, reader;

	cold_file("f", M, &f);
	ck_assert_int_eq(advise(c, &f, 0, 0, HINT(READ)), 0);
	/* Room is reserved for those who may write; nobody sees it. */
	ck_assert_int_eq(advise(c, &f, 0, 0, HINT(WRITE)), HINT(WRITE));
	ck_assert_int_eq(open_in(c, &dir, "f", "reader", OPEN4_SHARE_ACCESS_READ, 0, NULL, &reader), NFS4_OK);
	ck_assert_int_eq(advise(c, &reader, 0, 0, HINT(WRITE)), 0);
	ck_assert_uint_eq(of_file("/disk/f", "size"), M);
	ck_assert_int_eq(advise(c, &f, 0, 0, HINT(INIT_PROXIMITY)), 0);
	ck_assert_str_eq(holds("/disk/f"), "");
	ck_assert_int_eq(advise(c, &f, 0, 0, HINT(READ) | HINT(SEQUENTIAL)), HINT(READ) | HINT(SEQUENTIAL));
}
END_TEST

/* ---- what is reserved ----------------------------------------------------------------------------------------------------------------- */

/* How many pieces a file has on the disk. */
static unsigned extents(const char *name)
{
	char cmd[300];
	unsigned n = 0;
	FILE *p;

	snprintf(cmd, sizeof cmd,
		 "PATH=$PATH:/sbin:/usr/sbin; cd %s && debugfs -R 'ex /%s' image.raw 2>/dev/null | grep -c '^ *[0-9]*/ "
		 "*[0-9]* *[0-9]*/.* - '",
		 server_dir(), name);
	p = popen(cmd, "r");
	ck_assert_ptr_nonnull(p);
	ck_assert_int_eq(fscanf(p, "%u", &n), 1);
	pclose(p);
	return n;
}

/* Two logs that grow by turns, by a block each, and each in one piece, as far as was said. */
START_TEST(write_gives_what_will_be_written_one_place)
{
	static char buf[4 * K];
	const createhow4 how = {.mode = UNCHECKED4};
	struct open_file f, g;

	ck_assert_int_eq(open_in(c, &dir, "f", "me", OPEN4_SHARE_ACCESS_BOTH, 0, &how, &f), NFS4_OK);
	ck_assert_int_eq(open_in(c, &dir, "g", "me", OPEN4_SHARE_ACCESS_BOTH, 0, &how, &g), NFS4_OK);
	ck_assert_int_eq(advise(c, &f, 0, 2 * M, HINT(WRITE)), HINT(WRITE));
	ck_assert_int_eq(advise(c, &g, 0, 2 * M, HINT(WRITE) | HINT(SEQUENTIAL)), HINT(WRITE) | HINT(SEQUENTIAL));
	for (uint64_t off = 0; off < 2 * M; off += sizeof buf) {
		ck_assert_int_eq(write_at(c, &f, off, buf, sizeof buf), NFS4_OK);
		ck_assert_int_eq(write_at(c, &g, off, buf, sizeof buf), NFS4_OK);
	}
	nfsc_close(c);
	server_image_raw();
	connect_it();
	ck_assert_uint_eq(extents("f"), 1);
	ck_assert_uint_eq(extents("g"), 1);
}
END_TEST

/* ---- what is read ahead ------------------------------------------------------------------------------------------------------------------ */

START_TEST(d24_patterns_hold_for_the_whole_file_whatever_the_range)
{
	struct open_file f;

	cold_file("f", 3 * M, &f);
	ck_assert_int_eq(advise(c, &f, 0, 1, HINT(SEQUENTIAL)), HINT(SEQUENTIAL));
	rd(c, &f, 2 * M, 4096);
	for (int i = 0; i < 2000 && figure("cache", "ahead") < M / 2; i++)
		nap_ms(2);
	ck_assert_uint_ge(figure("cache", "ahead"), M / 2);
}
END_TEST

START_TEST(d24_backwards_is_read_ahead_downwards)
{
	struct open_file f;

	cold_file("f", 8 * M, &f);
	advise(c, &f, 0, 0, HINT(SEQUENTIAL_BACKWARDS));
	for (uint64_t off = 8 * M; off; off -= 64 * K)
		rd(c, &f, off - 64 * K, 64 * K);
	ck_assert_uint_ge(figure("cache", "ahead"), 4 * M);
	ck_assert_uint_eq(figure("cache", "bytes_read") / M, 8);
}
END_TEST

START_TEST(d24_random_reads_nothing_ahead)
{
	struct open_file f;

	cold_file("f", 3 * M, &f);
	advise(c, &f, 0, 0, HINT(RANDOM));
	for (uint64_t off = 0; off < 900 * K; off += 64 * K)
		rd(c, &f, off, 64 * K);
	ck_assert_uint_eq(figure("cache", "ahead"), 0);
}
END_TEST

START_TEST(d25_willneed_is_done_once_and_not_remembered)
{
	struct open_file f;

	cold_file("f", 2 * M, &f);
	ck_assert_int_eq(advise(c, &f, 0, M, HINT(WILLNEED)), HINT(WILLNEED));
	await_resident("/disk/f", M);
	ck_assert_str_eq(holds("/disk/f"), "");
	ck_assert_uint_le(of_file("/disk/f", "resident"), M + 64 * K);
	for (uint64_t off = 0; off < M; off += 64 * K)
		rd(c, &f, off, 64 * K);
	ck_assert_uint_ge(figure("cache", "ahead_used"), M);
	ck_assert_uint_eq(figure("cache", "ahead_wasted"), 0);
}
END_TEST

START_TEST(d26_opportunistic_reads_when_nothing_else_is_to_be_done)
{
	struct open_file f;

	cold_file("f", 2 * M, &f);
	ck_assert_int_eq(advise(c, &f, 0, M, HINT(WILLNEED_OPPORTUNISTIC)), HINT(WILLNEED_OPPORTUNISTIC));
	await_resident("/disk/f", M);
}
END_TEST

/* Ranges far behind anything that a file can be. */
START_TEST(d1_ranges_that_no_file_has_are_done_at_once)
{
	static const uint64_t offs[] = {1ull << 44, 1ull << 60, 9252232154838010000u, UINT64_MAX - M};
	static const uint32_t counts[] = {1, 4096, M};
	struct open_file f;

	cold_file("f", M, &f);
	for (size_t i = 0; i < sizeof offs / sizeof offs[0]; i++)
		for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++) {
			nfs_argop4 op = {.argop = OP_COMMIT};

			ck_assert_int_eq(advise(c, &f, offs[i], counts[k], HINT(DONTNEED)), HINT(DONTNEED));
			ck_assert_int_ge(advise(c, &f, offs[i], counts[k], HINT(WILLNEED)), 0);
			ck_assert_int_ge(advise(c, &f, 0, offs[i], HINT(DONTNEED) | HINT(SEQUENTIAL)), 0);
			op.nfs_argop4_u.opcommit = (COMMIT4args){.offset = offs[i], .count = counts[k]};
			ck_assert_int_eq(just(c, &f.fh, &op), NFS4_OK);
		}
}
END_TEST

/* ---- who may have what ---------------------------------------------------------------------------------------------------------------------- */

START_TEST(d9_d27_beyond_the_budget_the_answer_leaves_willneed_out)
{
	struct open_file f;

	cold_file("f", 24 * M, &f);
	ck_assert_int_eq(advise(c, &f, 0, 8 * M, HINT(WILLNEED)), HINT(WILLNEED));
	await_resident("/disk/f", CACHE / 4);
	ck_assert_int_eq(advise(c, &f, 16 * M, M, HINT(WILLNEED) | HINT(SEQUENTIAL)), HINT(SEQUENTIAL));
	ck_assert_uint_le(of_file("/disk/f", "resident"), CACHE / 4 + 64 * K);
	ck_assert_uint_gt(figure("cache", "ahead_dropped"), 0);
	/* What was used counts no more. */
	for (uint64_t off = 0; off < CACHE / 4; off += 64 * K)
		rd(c, &f, off, 64 * K);
	ck_assert_int_eq(advise(c, &f, 16 * M, M, HINT(WILLNEED)), HINT(WILLNEED));
}
END_TEST

START_TEST(one_client_s_budget_is_not_another_s)
{
	struct nfsc *other = server_client();
	struct open_file f, g;

	nfsc_close(other);
	cold_file("f", 24 * M, &f);
	other = server_client();
	reopen(other, "f", "you", &g);
	ck_assert_int_eq(advise(c, &f, 0, 8 * M, HINT(WILLNEED)), HINT(WILLNEED));
	ck_assert_int_eq(advise(c, &f, 8 * M, M, HINT(WILLNEED)), 0);
	ck_assert_int_eq(advise(other, &g, 16 * M, 2 * M, HINT(WILLNEED)), HINT(WILLNEED));
	await_resident("/disk/f", CACHE / 4 + 2 * M);
	nfsc_close(other);
}
END_TEST

/* What two have read does not leave because one of them says so. */
START_TEST(dontneed_takes_nothing_from_others)
{
	struct nfsc *other;
	struct open_file f, g;

	cold_file("f", 2 * M, &f);
	other = server_client();
	reopen(other, "f", "you", &g);
	for (uint64_t off = 0; off < 2 * M; off += 64 * K)
		rd(c, &f, off, 64 * K);
	for (uint64_t off = 0; off < M; off += 64 * K)
		rd(other, &g, off, 64 * K);
	ck_assert_int_eq(advise(c, &f, 0, 0, HINT(DONTNEED)), HINT(DONTNEED));
	/* The half that nobody else has read. */
	ck_assert_uint_ge(figure("cache", "given_up"), M - 128 * K);
	ck_assert_uint_le(figure("cache", "given_up"), M + 128 * K);
	ck_assert_int_eq(close_it(other, &g), NFS4_OK);
	/* Who has not opened it is not alone with it while another has. */
	g.sid = (stateid4){.seqid = 0};
	ck_assert_int_eq(advise(other, &g, 0, 0, HINT(DONTNEED)), HINT(DONTNEED));
	ck_assert_uint_le(figure("cache", "given_up"), M + 128 * K);
	/* Alone with it, all of it goes. */
	ck_assert_int_eq(advise(c, &f, 0, 0, HINT(DONTNEED)), HINT(DONTNEED));
	ck_assert_uint_ge(figure("cache", "given_up"), 2 * M - 128 * K);
	nfsc_close(other);
}
END_TEST

/* A hot file of half the cache, and a scan of more than the cache that is not to be used again. */
START_TEST(noreuse_takes_nothing_from_others)
{
	struct open_file hot, scan;
	uint64_t before;

	cold_file("hot", 8 * M, &hot);
	ck_assert_int_eq(close_it(c, &hot), NFS4_OK);
	cold_file("scan", 24 * M, &scan);
	reopen(c, "hot", "me", &hot);
	for (int i = 0; i < 2; i++)
		for (uint64_t off = 0; off < 8 * M; off += 64 * K)
			rd(c, &hot, off, 64 * K);
	ck_assert_int_eq(advise(c, &scan, 0, 0, HINT(NOREUSE)), HINT(NOREUSE));
	for (uint64_t off = 0; off < 24 * M; off += 64 * K)
		rd(c, &scan, off, 64 * K);
	ck_assert_uint_gt(figure("cache", "evicted_given_up"), 100);
	before = figure("cache", "bytes_read");
	for (uint64_t off = 0; off < 8 * M; off += 64 * K)
		rd(c, &hot, off, 64 * K);
	ck_assert_uint_le(figure("cache", "bytes_read") - before, 8 * M / 50);
}
END_TEST

START_TEST(a_client_that_opens_a_file_takes_no_hints_from_others)
{
	struct nfsc *other;
	struct open_file f, g;

	cold_file("f", M, &f);
	other = server_client();
	advise(c, &f, 0, 0, HINT(SEQUENTIAL));
	reopen(other, "f", "you", &g);
	ck_assert_str_eq(holds("/disk/f"), "SEQUENTIAL");
	advise(other, &g, 0, 0, HINT(RANDOM));
	ck_assert_str_eq(holds("/disk/f"), "RANDOM");
	ck_assert_int_eq(close_it(other, &g), NFS4_OK);
	ck_assert_str_eq(holds("/disk/f"), "SEQUENTIAL");
	nfsc_close(other);
}
END_TEST

/* ---- exactly once ------------------------------------------------------------------------------------------------------------------------- */

/* The slot's reply is not kept (the client did not ask for it): the retry is told so, and nothing is done again. */
START_TEST(r28_a_retry_does_not_repeat_the_action)
{
	struct open_file f;
	uint64_t asked;

	cold_file("f", M, &f);
	ck_assert_int_eq(advise(c, &f, 0, 0, HINT(WILLNEED)), HINT(WILLNEED));
	asked = figure("operations", "IO_ADVISE");
	nfsc_set_slot_seq(c, 0, nfsc_slot_seq(c, 0) - 1);
	ck_assert_int_eq(advise(c, &f, 0, 0, HINT(WILLNEED)), -(int64_t)NFS4ERR_RETRY_UNCACHED_REP);
	ck_assert_uint_eq(figure("operations", "IO_ADVISE"), asked);
}
END_TEST

/* ---- without a client ------------------------------------------------------------------------------------------------------------------------ */

START_TEST(rules_hold_when_a_file_is_opened)
{
	struct open_file f;

	cold_file("film.mp4", M, &f);
	ck_assert_str_eq(holds("/disk/film.mp4"), "SEQUENTIAL NOREUSE");
	/* Who says something is heard. */
	advise(c, &f, 0, 0, HINT(RANDOM));
	ck_assert_str_eq(holds("/disk/film.mp4"), "RANDOM NOREUSE");
	cold_file("x.db", M, &f);
	ck_assert_str_eq(holds("/disk/x.db"), "RANDOM");
	cold_file("mp4", M, &f);
	ck_assert_str_eq(holds("/disk/mp4"), "");
}
END_TEST

START_TEST(attributes_hold_for_files_and_for_what_lies_below_folders)
{
	struct open_file f;

	cold_file("x.db", M, &f);
	json_decref(ask("persist", "/disk/x.db", "sequential"));
	ck_assert_int_eq(close_it(c, &f), NFS4_OK);
	reopen(c, "x.db", "me", &f);
	ck_assert_str_eq(holds("/disk/x.db"), "SEQUENTIAL"); /* rather than the rule */
	json_decref(ask("persist", "/disk", "noreuse"));
	cold_file("f", M, &f);
	ck_assert_str_eq(holds("/disk/f"), "NOREUSE");
	json_decref(ask("persist", "/disk", "normal"));
	ck_assert_int_eq(close_it(c, &f), NFS4_OK);
	reopen(c, "f", "me", &f);
	ck_assert_str_eq(holds("/disk/f"), "");
}
END_TEST

static void make_folder(const char *name)
{
	nfs_argop4 op = {.argop = OP_CREATE};

	op.nfs_argop4_u.opcreate.objtype.type = NF4DIR;
	op.nfs_argop4_u.opcreate.objname = name_of(name);
	ck_assert_int_eq(just(c, &dir, &op), NFS4_OK);
}

static void move(const nfs_fh4 *from, const char *name, const nfs_fh4 *to, const char *newname)
{
	nfs_argop4 op[4] = {nfsc_putfh(from), {.argop = OP_SAVEFH}, nfsc_putfh(to), {.argop = OP_RENAME}};
	COMPOUND4res res;

	op[3].nfs_argop4_u.oprename = (RENAME4args){.oldname = name_of(name), .newname = name_of(newname)};
	ck_assert_int_eq(nfsc_call(c, op, 4, &res), 0);
	nfsc_free(&res);
}

/* By its filehandle, so that it is not looked up again. */
static const char *holds_when_opened(struct open_file *f, const char *path)
{
	const char *text;

	ck_assert_int_eq(nfsc_open_fh(c, &f->fh, OPEN4_SHARE_ACCESS_READ, "me", &f->sid), 0);
	text = holds(path);
	ck_assert_int_eq(close_it(c, f), NFS4_OK);
	return text;
}

START_TEST(what_is_moved_has_the_advice_of_where_it_is)
{
	const createhow4 how = {.mode = UNCHECKED4};
	char top_buf[NFS4_FHSIZE], sub_buf[NFS4_FHSIZE];
	struct open_file f;
	nfs_fh4 top, sub;

	make_folder("top");
	make_folder("sub");
	look_up(c, "/disk/top", &top, top_buf);
	look_up(c, "/disk/sub", &sub, sub_buf);
	json_decref(ask("persist", "/disk/top", "noreuse"));
	ck_assert_int_eq(open_in(c, &sub, "f", "me", OPEN4_SHARE_ACCESS_BOTH, 0, &how, &f), NFS4_OK);
	ck_assert_str_eq(holds("/disk/sub/f"), "");
	ck_assert_int_eq(close_it(c, &f), NFS4_OK);
	/* A folder, and back. */
	move(&dir, "sub", &top, "below");
	ck_assert_str_eq(holds_when_opened(&f, "/disk/top/below/f"), "NOREUSE");
	move(&top, "below", &dir, "sub");
	ck_assert_str_eq(holds_when_opened(&f, "/disk/sub/f"), "");
	/* The file itself; and another name, that a rule is about. */
	move(&sub, "f", &top, "f");
	ck_assert_str_eq(holds_when_opened(&f, "/disk/top/f"), "NOREUSE");
	move(&top, "f", &sub, "f.db");
	ck_assert_str_eq(holds_when_opened(&f, "/disk/sub/f.db"), "RANDOM");
	move(&sub, "f.db", &sub, "f");
	ck_assert_str_eq(holds_when_opened(&f, "/disk/sub/f"), "");
}
END_TEST

START_TEST(without_detection_only_hints_count)
{
	struct open_file f;

	cold_file("f", 3 * M, &f);
	for (uint64_t off = 0; off < 2 * M; off += 64 * K)
		rd(c, &f, off, 64 * K);
	ck_assert_uint_eq(figure("cache", "ahead"), 0);
	advise(c, &f, 0, 0, HINT(SEQUENTIAL));
	rd(c, &f, 2 * M, 64 * K);
	await_resident("/disk/f", 3 * M - 128 * K);
}
END_TEST

/* ---- to see it -------------------------------------------------------------------------------------------------------------------------------- */

/* By name, wherever they lie, the one that is read most first. */
START_TEST(the_busiest_files_are_told)
{
	struct why why = {.line = ""};
	json_t *q = json_pack("{s:s, s:i}", "do", "stat", "files", 2), *a = NULL, *list;
	struct open_file f, g, h;
	char sub_buf[NFS4_FHSIZE];
	nfs_fh4 sub;

	const createhow4 how = {.mode = UNCHECKED4};

	make_folder("sub");
	look_up(c, "/disk/sub", &sub, sub_buf);
	ck_assert_int_eq(open_in(c, &sub, "most", "me", OPEN4_SHARE_ACCESS_BOTH, 0, &how, &g), NFS4_OK);
	ck_assert_int_eq(write_at(c, &g, 2 * M - 1, "x", 1), NFS4_OK);
	cold_file("unread", 4096, &h);
	cold_file("less", M, &f);
	look_up(c, "/disk/sub", &sub, sub_buf);
	ck_assert_int_eq(open_in(c, &sub, "most", "me", OPEN4_SHARE_ACCESS_BOTH, 0, NULL, &g), NFS4_OK);
	reopen(c, "unread", "me", &h);
	advise(c, &g, 0, 0, HINT(SEQUENTIAL));
	for (uint64_t off = 0; off < M; off += 64 * K) {
		rd(c, &g, off, 64 * K);
		rd(c, &g, off + M, 64 * K);
		rd(c, &f, off, 64 * K);
	}
	ck_assert_msg(control_ask(control, q, &a, &why) == 0, "%s", why.line);
	list = json_object_get(a, "files");
	ck_assert_uint_eq(json_array_size(list), 2);
	ck_assert_str_eq(json_string_value(json_object_get(json_array_get(list, 0), "path")), "/disk/sub/most");
	ck_assert_str_eq(json_string_value(json_object_get(json_array_get(list, 0), "hints")), "sequential");
	ck_assert_int_eq(json_integer_value(json_object_get(json_array_get(list, 0), "bytes")), 2 * M);
	ck_assert_str_eq(json_string_value(json_object_get(json_array_get(list, 1), "path")), "/disk/less");
	json_decref(q);
	json_decref(a);
}
END_TEST

/* ---- properties ---------------------------------------------------------------------------------------------------------------------------- */

static uint64_t seed = 88172645463325252u;

static uint64_t rnd(uint64_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed % below;
}

#define MODEL (4u * M)
static uint8_t model[MODEL], got[256 * K];

/* RFC 7862's list for IO_ADVISE. */
static bool may_be(nfsstat4 st)
{
	static const nfsstat4 all[] = {
		NFS4_OK,           NFS4ERR_ACCESS,  NFS4ERR_ADMIN_REVOKED, NFS4ERR_BADXDR, NFS4ERR_BAD_STATEID,
		NFS4ERR_DELAY,     NFS4ERR_EXPIRED, NFS4ERR_FBIG,          NFS4ERR_GRACE,  NFS4ERR_INVAL,
		NFS4ERR_IO,        NFS4ERR_ISDIR,   NFS4ERR_OLD_STATEID,   NFS4ERR_STALE,  NFS4ERR_SYMLINK,
		NFS4ERR_WRONG_TYPE};

	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
		if (st == all[i])
			return true;
	return false;
}

static void one_step(struct open_file *f, uint64_t *size)
{
	uint64_t off = rnd(MODEL - sizeof got), wild = rnd(2) ? off : rnd(UINT64_MAX);
	uint32_t len = 1 + (uint32_t)rnd(sizeof got - 1);
	int64_t said;

	switch (rnd(8)) {
	case 0:
	case 1:
		memset(got, (int)rnd(256), len);
		ck_assert_int_eq(write_at(c, f, off, got, len), NFS4_OK);
		memcpy(model + off, got, len);
		*size = off + len > *size ? off + len : *size;
		break;
	case 2:
	case 3:
		len = (uint32_t)read_at(c, f, off, got, len);
		ck_assert_int_ge((int32_t)len, 0);
		ck_assert_uint_le(off + len, off > *size ? off : *size);
		ck_assert_mem_eq(got, model + off, len);
		break;
	case 4:
		if (rnd(4))
			break;
		ck_assert_int_eq(close_it(c, f), NFS4_OK);
		reopen(c, "f", "me", f);
		break;
	case 5: {
		nfs_argop4 op = {.argop = OP_DEALLOCATE};

		op.nfs_argop4_u.opdeallocate = (DEALLOCATE4args){
			.da_stateid = f->sid, .da_offset = off, .da_length = len};
		ck_assert_int_eq(just(c, &f->fh, &op), NFS4_OK);
		memset(model + off, 0, len);
		break;
	}
	default:
		said = advise(c, f, wild, rnd(3) ? len : rnd(UINT64_MAX),
			      (uint32_t)rnd(UINT32_MAX) & (uint32_t)rnd(UINT32_MAX));
		ck_assert_msg(said >= 0 || may_be((nfsstat4)-said), "status %lld", (long long)-said);
	}
}

START_TEST(d3_r26_no_hint_ever_changes_what_is_read)
{
	struct open_file f;
	uint64_t size = 0;

	cold_file("f", 0, &f);
	memset(model, 0, sizeof model);
	for (int i = 0; i < 3000; i++)
		one_step(&f, &size);
	ck_assert_uint_le(figure("cache", "used"), CACHE);
	for (uint64_t off = 0; off < size; off += sizeof got) {
		int32_t n = read_at(c, &f, off, got, sizeof got);

		ck_assert_int_ge(n, 1);
		ck_assert_mem_eq(got, model + off, (size_t)n);
	}
	cold();
	/* All that was read ahead was used or was not: nothing is left over on an account. */
	ck_assert_uint_eq(figure("cache", "ahead_waiting"), 0);
}
END_TEST

static Suite *suite(void)
{
	const TTest *const tests[] = {
		d1_r2_a_hint_beyond_the_end_holds_when_the_file_grows,
		d2_r3_count_0_is_everything_from_the_offset_on,
		d4_nothing_was_advised_nothing_holds,
		d10_r10_the_last_hint_wins,
		d11_r11_hints_end_with_the_close,
		d12_noreuse_in_the_compound_of_the_open,
		d13_read_and_write_alone_change_nothing,
		write_gives_what_will_be_written_one_place,
		d24_patterns_hold_for_the_whole_file_whatever_the_range,
		d24_backwards_is_read_ahead_downwards,
		d24_random_reads_nothing_ahead,
		d25_willneed_is_done_once_and_not_remembered,
		d1_ranges_that_no_file_has_are_done_at_once,
		d26_opportunistic_reads_when_nothing_else_is_to_be_done,
		d9_d27_beyond_the_budget_the_answer_leaves_willneed_out,
		one_client_s_budget_is_not_another_s,
		dontneed_takes_nothing_from_others,
		noreuse_takes_nothing_from_others,
		a_client_that_opens_a_file_takes_no_hints_from_others,
		r28_a_retry_does_not_repeat_the_action,
		rules_hold_when_a_file_is_opened,
		attributes_hold_for_files_and_for_what_lies_below_folders,
		what_is_moved_has_the_advice_of_where_it_is,
		the_busiest_files_are_told,
		d3_r26_no_hint_ever_changes_what_is_read,
	};
	Suite *s = suite_create("advise");
	TCase *t = tcase_create("auto"), *h = tcase_create("hints only");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 300);
	for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++)
		tcase_add_test(t, tests[i]);
	suite_add_tcase(s, t);
	tcase_add_checked_fixture(h, setup_without_detection, teardown);
	tcase_set_timeout(h, 300);
	tcase_add_test(h, without_detection_only_hints_count);
	suite_add_tcase(s, h);
	return s;
}

int main(int argc, char **argv)
{
	SRunner *r = srunner_create(suite());
	int failed;

	(void)argc;
	server_find(argv[0]);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* test_files.c - operations on files, as COMPOUNDs to a real server: what Linux's client does not try */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/protocol/calls.h"
#include "tests/protocol/server.h"

static struct nfsc *c;
static nfs_fh4 dir;
static char dir_buf[NFS4_FHSIZE];
static const char *const no_squash[] = {"--no-root-squash", NULL};
static const char *const read_only[] = {"--no-root-squash", "--read-only", NULL};

static void start(const char *const *opts)
{
	server_start(opts);
	c = server_client();
	look_up(c, "/disk", &dir, dir_buf);
}

static void setup(void)
{
	start(no_squash);
}

static void teardown(void)
{
	nfsc_close(c);
	server_stop();
}

static void make(const char *name, struct open_file *f)
{
	const createhow4 how = {.mode = UNCHECKED4};

	ck_assert_int_eq(open_in(c, &dir, name, "me", OPEN4_SHARE_ACCESS_BOTH, OPEN4_SHARE_DENY_NONE, &how, f),
			 NFS4_OK);
}

/* ---- IO_ADVISE: the lines of the requirements ---------------------------------------------------------------------------------- */

static nfsstat4 advise(const nfs_fh4 *fh, const stateid4 *sid, uint64_t off, uint64_t count, uint32_t w0, uint32_t w1,
		       uint32_t *echo)
{
	uint32_t words[2] = {w0, w1};
	nfs_argop4 op = {.argop = OP_IO_ADVISE};
	IO_ADVISE4args *a = &op.nfs_argop4_u.opio_advise;
	COMPOUND4res res;
	nfsstat4 st;

	*a = (IO_ADVISE4args){.iaa_stateid = *sid, .iaa_offset = off, .iaa_count = count};
	a->iaa_hints = (bitmap4){.bitmap4_len = 2, .bitmap4_val = words};
	st = on(c, fh, &op, &res);
	*echo = 0;
	if (st == NFS4_OK) {
		const bitmap4 *b =
			&res.resarray.resarray_val[2].nfs_resop4_u.opio_advise.IO_ADVISE4res_u.resok4.ior_hints;

		for (u_int i = 0; i < b->bitmap4_len; i++)
			*echo |= b->bitmap4_val[i] & (i ? ~0u : ~w0); /* what was not asked for */
	}
	nfsc_free(&res);
	return st;
}

/* D1, D2, D5-D8, R22-R24, R26: never an error for a hint, never NOTSUPP, never a hint that was not asked for. */
START_TEST(advice_is_always_accepted)
{
	static const stateid4 anonymous,
		bypass = {.seqid = ~0u, .other = "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"};
	static const struct {
		uint64_t off, count;
		uint32_t w0, w1;
		nfsstat4 want;
	} cases[] = {
		{0, 0, 1u << IO_ADVISE4_SEQUENTIAL, 0, NFS4_OK},
		{1ull << 40, 4096, 1u << IO_ADVISE4_WILLNEED, 0, NFS4_OK},
		{0, 0, 1u << IO_ADVISE4_SEQUENTIAL | 1u << IO_ADVISE4_RANDOM, 0, NFS4_OK},
		{0, 0, 1u << IO_ADVISE4_WILLNEED | 1u << IO_ADVISE4_DONTNEED, 0, NFS4_OK},
		{0, 0, 1u << 11 | 1u << 31, 1u << 8, NFS4_OK},
		{0, 0, 0, 0, NFS4_OK},
		{0, ~0ull, 1u << IO_ADVISE4_NOREUSE, 0, NFS4_OK},
		{2, ~0ull, 1u << IO_ADVISE4_NOREUSE, 0, NFS4ERR_INVAL},
	};
	struct open_file f;
	uint32_t echo;
	stateid4 bad;

	make("f", &f);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		ck_assert_int_eq(advise(&f.fh, &f.sid, cases[i].off, cases[i].count, cases[i].w0, cases[i].w1, &echo),
				 cases[i].want);
		ck_assert_uint_eq(echo, 0);
	}
	ck_assert_int_eq(advise(&f.fh, &anonymous, 0, 0, 2, 0, &echo), NFS4_OK);
	ck_assert_int_eq(advise(&f.fh, &bypass, 0, 0, 2, 0, &echo), NFS4_OK);
	ck_assert_int_eq(advise(&dir, &anonymous, 0, 0, 2, 0, &echo), NFS4ERR_ISDIR);
	bad = f.sid;
	bad.other[3] = (char)(bad.other[3] ^ 1);
	ck_assert_int_eq(advise(&f.fh, &bad, 0, 0, 2, 0, &echo), NFS4ERR_BAD_STATEID);
	ck_assert_int_eq(close_it(c, &f), NFS4_OK);
	ck_assert_int_eq(advise(&f.fh, &f.sid, 0, 0, 2, 0, &echo), NFS4ERR_BAD_STATEID);
}
END_TEST

/* R22: exactly what is followed, and both of a contradiction are not. */
START_TEST(the_answer_holds_the_hints_that_are_followed)
{
	const uint32_t will = 1u << IO_ADVISE4_WILLNEED, maps = 1u << IO_ADVISE4_WILLNEED_OPPORTUNISTIC,
		       dont = 1u << IO_ADVISE4_DONTNEED, seq = 1u << IO_ADVISE4_SEQUENTIAL,
		       back = 1u << IO_ADVISE4_SEQUENTIAL_BACKWARDS, rnd = 1u << IO_ADVISE4_RANDOM,
		       once = 1u << IO_ADVISE4_NOREUSE, write = 1u << IO_ADVISE4_WRITE;
	const struct {
		uint32_t asked, followed;
	} cases[] = {{will, will},
		     {maps, maps},
		     {dont, dont},
		     {will | dont, 0},
		     {will | maps, will | maps},
		     {seq | will, seq | will},
		     {back, back},
		     {rnd | once, rnd | once},
		     {seq | rnd, 0},
		     {seq | back | once, once},
		     {write, write},
		     {write | dont, write | dont}};
	struct open_file f;

	make("f", &f);
	ck_assert_int_eq(write_at(c, &f, 0, "hello", 5), NFS4_OK);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		nfs_argop4 op = {.argop = OP_IO_ADVISE};
		IO_ADVISE4args *a = &op.nfs_argop4_u.opio_advise;
		uint32_t word = cases[i].asked;
		const bitmap4 *b;
		COMPOUND4res res;

		*a = (IO_ADVISE4args){.iaa_stateid = f.sid, .iaa_hints = {.bitmap4_len = 1, .bitmap4_val = &word}};
		ck_assert_int_eq(on(c, &f.fh, &op, &res), NFS4_OK);
		b = &res.resarray.resarray_val[2].nfs_resop4_u.opio_advise.IO_ADVISE4res_u.resok4.ior_hints;
		ck_assert_uint_eq(b->bitmap4_len ? b->bitmap4_val[0] : 0, cases[i].followed);
		nfsc_free(&res);
	}
	ck_assert_int_eq(close_it(c, &f), NFS4_OK);
}
END_TEST

/* ---- opens ------------------------------------------------------------------------------------------------------------------------ */

/* RFC 8881 §18.16.3: the same verifier again is the same create; another one finds the file there. */
START_TEST(an_exclusive_create_can_be_retried)
{
	createhow4 how = {.mode = EXCLUSIVE4_1};
	struct open_file f;

	memcpy(how.createhow4_u.ch_createboth.cva_verf, "verifier", 8);
	ck_assert_int_eq(open_in(c, &dir, "x", "me", OPEN4_SHARE_ACCESS_BOTH, 0, &how, &f), NFS4_OK);
	ck_assert_int_eq(open_in(c, &dir, "x", "me", OPEN4_SHARE_ACCESS_BOTH, 0, &how, &f), NFS4_OK);
	how.createhow4_u.ch_createboth.cva_verf[0] = 'V';
	ck_assert_int_eq(open_in(c, &dir, "x", "me", OPEN4_SHARE_ACCESS_BOTH, 0, &how, &f), NFS4ERR_EXIST);
	how = (createhow4){.mode = GUARDED4};
	ck_assert_int_eq(open_in(c, &dir, "x", "me", OPEN4_SHARE_ACCESS_BOTH, 0, &how, &f), NFS4ERR_EXIST);
}
END_TEST

START_TEST(share_reservations_hold_between_clients)
{
	struct nfsc *other = server_client();
	struct open_file f, g;

	ck_assert_int_eq(open_in(c, &dir, "hello", "a", OPEN4_SHARE_ACCESS_READ, OPEN4_SHARE_DENY_WRITE, NULL, &f),
			 NFS4_OK);
	ck_assert_int_eq(open_in(other, &dir, "hello", "b", OPEN4_SHARE_ACCESS_WRITE, 0, NULL, &g),
			 NFS4ERR_SHARE_DENIED);
	ck_assert_int_eq(open_in(other, &dir, "hello", "b", OPEN4_SHARE_ACCESS_READ, 0, NULL, &g), NFS4_OK);
	ck_assert_int_eq(close_it(other, &g), NFS4_OK);
	ck_assert_int_eq(close_it(c, &f), NFS4_OK);
	ck_assert_int_eq(open_in(other, &dir, "hello", "b", OPEN4_SHARE_ACCESS_WRITE, 0, NULL, &g), NFS4_OK);
	ck_assert_int_eq(close_it(other, &g), NFS4_OK);
	nfsc_close(other);
}
END_TEST

START_TEST(locks_are_seen_by_another_client)
{
	struct nfsc *other = server_client();
	nfs_argop4 op = {.argop = OP_LOCK}, test = {.argop = OP_LOCKT};
	LOCK4args *l = &op.nfs_argop4_u.oplock;
	struct open_file f;
	COMPOUND4res res;

	make("locked", &f);
	*l = (LOCK4args){.locktype = WRITE_LT, .offset = 100, .length = 50};
	l->locker.new_lock_owner = TRUE;
	l->locker.locker4_u.open_owner.open_stateid = f.sid;
	l->locker.locker4_u.open_owner.lock_owner.owner = (__typeof__(l->locker.locker4_u.open_owner.lock_owner.owner)){
		4, (char *)(uintptr_t) "lock"};
	ck_assert_int_eq(just(c, &f.fh, &op), NFS4_OK);
	test.nfs_argop4_u.oplockt = (LOCKT4args){.locktype = READ_LT, .offset = 149, .length = 1};
	test.nfs_argop4_u.oplockt.owner.owner = (__typeof__(test.nfs_argop4_u.oplockt.owner.owner)){
		5, (char *)(uintptr_t) "other"};
	ck_assert_int_eq(on(other, &f.fh, &test, &res), NFS4ERR_DENIED);
	ck_assert_uint_eq(res.resarray.resarray_val[2].nfs_resop4_u.oplockt.LOCKT4res_u.denied.offset, 100);
	ck_assert_uint_eq(res.resarray.resarray_val[2].nfs_resop4_u.oplockt.LOCKT4res_u.denied.length, 50);
	nfsc_free(&res);
	test.nfs_argop4_u.oplockt.offset = 150;
	ck_assert_int_eq(just(other, &f.fh, &test), NFS4_OK);
	nfsc_close(other);
}
END_TEST

START_TEST(an_unlinked_file_is_read_until_it_is_closed)
{
	nfs_argop4 rm = {.argop = OP_REMOVE}, rd = {.argop = OP_READ}, ga = {.argop = OP_GETATTR};
	struct open_file f;
	COMPOUND4res res;

	make("gone", &f);
	ck_assert_int_eq(write_at(c, &f, 0, "still here", 10), NFS4_OK);
	rm.nfs_argop4_u.opremove.target = name_of("gone");
	ck_assert_int_eq(just(c, &dir, &rm), NFS4_OK);
	rd.nfs_argop4_u.opread = (READ4args){.stateid = f.sid, .count = 100};
	ck_assert_int_eq(on(c, &f.fh, &rd, &res), NFS4_OK);
	ck_assert_uint_eq(res.resarray.resarray_val[2].nfs_resop4_u.opread.READ4res_u.resok4.data.data_len, 10);
	nfsc_free(&res);
	ck_assert_int_eq(close_it(c, &f), NFS4_OK);
	ga.nfs_argop4_u.opgetattr.attr_request = nfs_attrs_mask();
	for (int i = 0; i < 100 && just(c, &f.fh, &ga) == NFS4_OK; i++)
		usleep(20000);
	ck_assert_int_eq(just(c, &f.fh, &ga), NFS4ERR_STALE);
}
END_TEST

/* ---- sparse files ------------------------------------------------------------------------------------------------------------------- */

static nfsstat4 seek(struct open_file *f, uint64_t off, data_content4 what, uint64_t *at, bool *eof)
{
	nfs_argop4 op = {.argop = OP_SEEK};
	COMPOUND4res res;
	nfsstat4 st;

	op.nfs_argop4_u.opseek = (SEEK4args){.sa_stateid = f->sid, .sa_offset = off, .sa_what = what};
	st = on(c, &f->fh, &op, &res);
	if (st == NFS4_OK) {
		const seek_res4 *r = &res.resarray.resarray_val[2].nfs_resop4_u.opseek.SEEK4res_u.resok4;

		*at = r->sr_offset;
		*eof = r->sr_eof;
	}
	nfsc_free(&res);
	return st;
}

/* RFC 7862 §15.1, §15.4, §15.11 */
START_TEST(holes_are_made_and_found)
{
	nfs_argop4 al = {.argop = OP_ALLOCATE}, de = {.argop = OP_DEALLOCATE};
	static char buf[65536];
	struct open_file f;
	uint64_t at = 0;
	bool eof = false;

	make("sparse", &f);
	memset(buf, 'x', sizeof buf);
	ck_assert_int_eq(write_at(c, &f, 1 << 20, buf, sizeof buf), NFS4_OK);
	ck_assert_int_eq(seek(&f, 0, NFS4_CONTENT_DATA, &at, &eof), NFS4_OK);
	ck_assert_uint_eq(at, 1 << 20);
	ck_assert(!eof);
	ck_assert_int_eq(seek(&f, 1 << 20, NFS4_CONTENT_HOLE, &at, &eof), NFS4_OK);
	ck_assert_uint_eq(at, (1 << 20) + 65536);
	ck_assert(eof);
	de.nfs_argop4_u.opdeallocate = (DEALLOCATE4args){.da_stateid = f.sid, .da_offset = 1 << 20, .da_length = 32768};
	ck_assert_int_eq(just(c, &f.fh, &de), NFS4_OK);
	ck_assert_int_eq(seek(&f, 0, NFS4_CONTENT_DATA, &at, &eof), NFS4_OK);
	ck_assert_uint_eq(at, (1 << 20) + 32768);
	al.nfs_argop4_u.opallocate = (ALLOCATE4args){.aa_stateid = f.sid, .aa_offset = 0, .aa_length = 4 << 20};
	ck_assert_int_eq(just(c, &f.fh, &al), NFS4_OK);
	ck_assert_int_eq(seek(&f, 5 << 20, NFS4_CONTENT_DATA, &at, &eof), NFS4ERR_NXIO);
	al.nfs_argop4_u.opallocate.aa_length = 1ull << 40;
	ck_assert_int_eq(just(c, &f.fh, &al), NFS4ERR_NOSPC);
	al.nfs_argop4_u.opallocate.aa_length = 0;
	ck_assert_int_eq(just(c, &f.fh, &al), NFS4ERR_INVAL);
	ck_assert_int_eq(close_it(c, &f), NFS4_OK);
}
END_TEST

/* ---- directories --------------------------------------------------------------------------------------------------------------------- */

/* Every name that stays is listed exactly once while others come and go between the pieces. */
START_TEST(a_listing_survives_changes)
{
	static bool seen[400];
	struct open_file f;
	uint64_t cookie = 0;
	char name[32];
	bool eof = false;

	memset(seen, 0, sizeof seen);
	for (int i = 0; i < 400; i++) {
		snprintf(name, sizeof name, "stay%d", i);
		make(name, &f);
		ck_assert_int_eq(close_it(c, &f), NFS4_OK);
	}
	for (int round = 0; !eof; round++) {
		nfs_argop4 op = {.argop = OP_READDIR}, rm = {.argop = OP_REMOVE};
		COMPOUND4res res;

		ck_assert_int_lt(round, 1000);
		op.nfs_argop4_u.opreaddir = (READDIR4args){.cookie = cookie, .dircount = 512, .maxcount = 1024};
		ck_assert_int_eq(on(c, &dir, &op, &res), NFS4_OK);
		eof = res.resarray.resarray_val[2].nfs_resop4_u.opreaddir.READDIR4res_u.resok4.reply.eof;
		for (entry4 *e = res.resarray.resarray_val[2].nfs_resop4_u.opreaddir.READDIR4res_u.resok4.reply.entries;
		     e; e = e->nextentry) {
			int i = -1;

			snprintf(name, sizeof name, "%.*s", (int)e->name.utf8string_len, e->name.utf8string_val);
			cookie = e->cookie;
			if (sscanf(name, "stay%d", &i) == 1) {
				ck_assert_msg(!seen[i], "%s is listed twice", name);
				seen[i] = true;
			}
		}
		nfsc_free(&res);
		snprintf(name, sizeof name, "come%d", round);
		make(name, &f);
		ck_assert_int_eq(close_it(c, &f), NFS4_OK);
		snprintf(name, sizeof name, "come%d", round - 1);
		rm.nfs_argop4_u.opremove.target = name_of(name);
		just(c, &dir, &rm);
	}
	for (int i = 0; i < 400; i++)
		ck_assert_msg(seen[i], "stay%d is not listed", i);
}
END_TEST

static const struct {
	const char *name;
	nfsstat4 want;
} names[] = {{"", NFS4ERR_INVAL},      {".", NFS4ERR_BADNAME},  {"..", NFS4ERR_BADNAME},
	     {"a/b", NFS4ERR_BADCHAR}, {"none", NFS4ERR_NOENT}, {"hello", NFS4_OK}};

START_TEST(names_are_checked)
{
	nfs_argop4 op = {.argop = OP_LOOKUP};

	op.nfs_argop4_u.oplookup.objname = name_of(names[_i].name);
	ck_assert_int_eq(just(c, &dir, &op), names[_i].want);
}
END_TEST

/* ---- exports ------------------------------------------------------------------------------------------------------------------------- */

START_TEST(filehandles_survive_a_restart)
{
	nfs_argop4 ga = {.argop = OP_GETATTR};
	struct open_file f;

	make("kept", &f);
	ck_assert_int_eq(write_at(c, &f, 0, "kept", 4), NFS4_OK);
	ck_assert_int_eq(close_it(c, &f), NFS4_OK);
	nfsc_close(c);
	server_restart();
	c = server_client();
	ga.nfs_argop4_u.opgetattr.attr_request = nfs_attrs_mask();
	ck_assert_int_eq(just(c, &f.fh, &ga), NFS4_OK);
}
END_TEST

START_TEST(a_wrong_filehandle_is_refused)
{
	nfs_argop4 ga = {.argop = OP_GETATTR};
	nfs_fh4 fh;
	char buf[NFS4_FHSIZE];

	ga.nfs_argop4_u.opgetattr.attr_request = nfs_attrs_mask();
	keep_fh(&fh, buf, &dir);
	buf[0] = (char)(buf[0] ^ 1);
	ck_assert_int_eq(just(c, &fh, &ga), NFS4ERR_BADHANDLE);
	keep_fh(&fh, buf, &dir);
	buf[fh.nfs_fh4_len - 1] = (char)(buf[fh.nfs_fh4_len - 1] ^ 1);
	ck_assert_int_eq(just(c, &fh, &ga), NFS4ERR_STALE);
	fh.nfs_fh4_len = 3;
	ck_assert_int_eq(just(c, &fh, &ga), NFS4ERR_BADHANDLE);
}
END_TEST

static void setup_ro(void)
{
	start(read_only);
}

START_TEST(a_read_only_export_changes_nothing)
{
	const createhow4 how = {.mode = UNCHECKED4};
	nfs_argop4 rm = {.argop = OP_REMOVE};
	struct open_file f;
	uint32_t echo;

	ck_assert_int_eq(open_in(c, &dir, "new", "me", OPEN4_SHARE_ACCESS_BOTH, 0, &how, &f), NFS4ERR_ROFS);
	ck_assert_int_eq(open_in(c, &dir, "hello", "me", OPEN4_SHARE_ACCESS_WRITE, 0, NULL, &f), NFS4ERR_ROFS);
	rm.nfs_argop4_u.opremove.target = name_of("hello");
	ck_assert_int_eq(just(c, &dir, &rm), NFS4ERR_ROFS);
	ck_assert_int_eq(open_in(c, &dir, "hello", "me", OPEN4_SHARE_ACCESS_READ, 0, NULL, &f), NFS4_OK);
	ck_assert_int_eq(advise(&f.fh, &f.sid, 0, 0, 1u << IO_ADVISE4_WRITE, 0, &echo), NFS4_OK);
	ck_assert_int_eq(close_it(c, &f), NFS4_OK);
}
END_TEST

int main(int argc, char **argv)
{
	Suite *s = suite_create("files");
	TCase *t = tcase_create("files"), *ro = tcase_create("read-only");
	SRunner *r;
	int failed;

	(void)argc;
	server_find(argv[0]);
	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, advice_is_always_accepted);
	tcase_add_test(t, the_answer_holds_the_hints_that_are_followed);
	tcase_add_test(t, an_exclusive_create_can_be_retried);
	tcase_add_test(t, share_reservations_hold_between_clients);
	tcase_add_test(t, locks_are_seen_by_another_client);
	tcase_add_test(t, an_unlinked_file_is_read_until_it_is_closed);
	tcase_add_test(t, holes_are_made_and_found);
	tcase_add_test(t, a_listing_survives_changes);
	tcase_add_loop_test(t, names_are_checked, 0, (int)(sizeof names / sizeof names[0]));
	tcase_add_test(t, filehandles_survive_a_restart);
	tcase_add_test(t, a_wrong_filehandle_is_refused);
	tcase_add_checked_fixture(ro, setup_ro, teardown);
	tcase_add_test(ro, a_read_only_export_changes_nothing);
	suite_add_tcase(s, t);
	suite_add_tcase(s, ro);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* test_compound.c - dispatch, hostile requests, sizes of replies, filehandles: RFC 8881 §2.10.6, §16.2, §18 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/nfs4/ops.h"
#include "tests/unit/nfs_mem.h"

static void words(const uint32_t *w, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		uint32_t v = w[i];

		ck_assert(xa_uint32(&a.out.x, &v));
	}
}

static nfsstat4 bare(uint32_t op)
{
	nf_begin_bare(&a);
	nf_op(&a, op);
	return nf_send_bare(&a);
}

/* SEQUENCE and one operation without arguments. */
static nfsstat4 one(uint32_t op)
{
	nf_begin(&a);
	nf_op(&a, op);
	return nf_send(&a);
}

/* ---- dispatch -------------------------------------------------------------------------------------------------------------- */

/* RFC 8881 §16.2.3: the result of an unknown operation is that of OP_ILLEGAL. */
START_TEST(unknown_operation_is_answered_as_illegal)
{
	static const uint32_t unknown[] = {0, 1, 2, 76, 77, 1000, 10043, UINT32_MAX};

	for (unsigned i = 0; i < ARRAY_LEN(unknown); i++) {
		ck_assert_int_eq(one(unknown[i]), NFS4ERR_OP_ILLEGAL);
		ck_assert_int_eq(nf_result(&a, OP_ILLEGAL), NFS4ERR_OP_ILLEGAL);
		ck_assert_uint_eq(a.count, 2);
	}
}
END_TEST

/* io-advise.md R27, and its kin. */
START_TEST(operations_of_42_are_illegal_in_41)
{
	a.minor = 1;
	for (uint32_t op = OP_ALLOCATE; op <= OP_LAST; op++)
		ck_assert_int_eq(one(op), NFS4ERR_OP_ILLEGAL);
	ck_assert_int_eq(one(OP_PUTROOTFH), NFS4_OK);
}
END_TEST

START_TEST(operations_of_40_only_and_those_not_served_are_not_supported)
{
	static const uint32_t ops[] = {OP_OPEN_CONFIRM,      OP_RENEW,     OP_SETCLIENTID, OP_SETCLIENTID_CONFIRM,
				       OP_RELEASE_LOCKOWNER, OP_LAYOUTGET, OP_COPY,        OP_CLONE,
				       OP_READ_PLUS,         OP_GETXATTR,  OP_WRITE_SAME};

	for (unsigned i = 0; i < ARRAY_LEN(ops); i++) {
		ck_assert_int_eq(one(ops[i]), NFS4ERR_NOTSUPP);
		ck_assert_int_eq(nf_result(&a, ops[i]), NFS4ERR_NOTSUPP);
	}
}
END_TEST

/* RFC 8881 §2.10.6.4: without a session nothing runs but what makes one. */
START_TEST(operations_need_a_session_but_those_that_make_one)
{
	for (uint32_t op = OP_FIRST; op <= OP_LAST; op++) {
		nfsstat4 st = bare(op);

		switch (op) {
		case OP_EXCHANGE_ID:
		case OP_CREATE_SESSION:
		case OP_DESTROY_SESSION:
		case OP_DESTROY_CLIENTID:
		case OP_BIND_CONN_TO_SESSION:
		case OP_SEQUENCE:
			ck_assert_int_eq(st, NFS4ERR_BADXDR);
			break;
		default:
			ck_assert_int_eq(st, NFS4ERR_OP_NOT_IN_SESSION);
		}
		ck_assert_uint_eq(a.count, 1);
	}
}
END_TEST

START_TEST(what_may_stand_without_session_stands_alone)
{
	nf_begin_bare(&a);
	nf_op(&a, OP_EXCHANGE_ID);
	nf_op(&a, OP_PUTROOTFH);
	ck_assert_int_eq(nf_send_bare(&a), NFS4ERR_NOT_ONLY_OP);
	ck_assert_uint_eq(a.count, 1);
}
END_TEST

START_TEST(other_minor_versions_are_refused_with_no_result)
{
	static const uint32_t minors[] = {0, 3, UINT32_MAX};

	for (unsigned i = 0; i < ARRAY_LEN(minors); i++) {
		a.minor = minors[i];
		ck_assert_int_eq(bare(OP_PUTROOTFH), NFS4ERR_MINOR_VERS_MISMATCH);
		ck_assert_uint_eq(a.count, 0);
	}
}
END_TEST

START_TEST(compound_of_nothing_is_ok)
{
	nf_begin_bare(&a);
	ck_assert_int_eq(nf_send_bare(&a), NFS4_OK);
	ck_assert_uint_eq(a.count, 0);
}
END_TEST

START_TEST(compound_stops_at_the_first_error)
{
	nf_begin(&a);
	nf_op(&a, OP_PUTROOTFH);
	nf_lookup(&a, "nothing");
	nf_op(&a, OP_GETFH);
	ck_assert_int_eq(nf_send(&a), NFS4ERR_NOENT);
	ck_assert_uint_eq(a.count, 3);
}
END_TEST

START_TEST(operations_on_the_current_filehandle_need_one)
{
	static const uint32_t ops[] = {OP_GETFH, OP_GETATTR, OP_LOOKUP, OP_READ,
				       OP_WRITE, OP_SAVEFH,  OP_OPEN,   OP_IO_ADVISE};

	for (unsigned i = 0; i < ARRAY_LEN(ops); i++)
		ck_assert_int_eq(one(ops[i]), NFS4ERR_NOFILEHANDLE);
	ck_assert_int_eq(one(OP_RESTOREFH), NFS4ERR_NOFILEHANDLE); /* §18.27.3 */
	nf_begin(&a);
	nf_op(&a, OP_PUTROOTFH);
	nf_op(&a, OP_RENAME);
	ck_assert_int_eq(nf_send(&a), NFS4ERR_NOFILEHANDLE);
}
END_TEST

START_TEST(table_of_operations_names_every_number)
{
	char *buf = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&buf, &len);

	ops_print(f);
	fclose(f);
	for (uint32_t op = OP_FIRST; op <= OP_LAST; op++) {
		ck_assert_ptr_nonnull(op_find(op, 2));
		ck_assert_ptr_nonnull(strstr(buf, op_find(op, 2)->name));
	}
	ck_assert_ptr_nonnull(strstr(buf, "IO_ADVISE"));
	free(buf);
}
END_TEST

/* ---- hostile requests ---------------------------------------------------------------------------------------------------------- */

START_TEST(compound_of_ten_thousand_operations_is_refused)
{
	nf_begin(&a);
	for (int i = 0; i < 10000; i++)
		nf_op(&a, OP_PUTROOTFH);
	ck_assert_int_eq(nf_send_bare(&a), NFS4ERR_TOO_MANY_OPS);
	ck_assert_uint_le(a.count, 1);
	/* more than the session allows */
	a.seq[0]--;
	nf_begin(&a);
	for (int i = 0; i < 40; i++)
		nf_op(&a, OP_PUTROOTFH);
	ck_assert_int_eq(nf_send_bare(&a), NFS4ERR_TOO_MANY_OPS);
	a.seq[0]--;
	ck_assert_int_eq(one(OP_PUTROOTFH), NFS4_OK);
}
END_TEST

START_TEST(count_of_operations_that_are_not_there_is_bad_xdr)
{
	nf_begin(&a);
	nf_op(&a, OP_PUTROOTFH);
	a.nops = 30;
	ck_assert_int_eq(nf_send(&a), NFS4ERR_BADXDR);
	ck_assert_uint_eq(a.count, 2);
}
END_TEST

START_TEST(name_longer_than_the_record_is_bad_xdr)
{
	static const uint32_t len[] = {10 << 20, 0x7fffffff, UINT32_MAX, 5};

	for (unsigned i = 0; i < ARRAY_LEN(len); i++) {
		const uint32_t w[] = {len[i], 0x61616161};

		nf_begin(&a);
		nf_op(&a, OP_PUTROOTFH);
		nf_op(&a, OP_LOOKUP);
		words(w, 2);
		ck_assert_int_eq(nf_send(&a), NFS4ERR_BADXDR);
	}
}
END_TEST

START_TEST(bitmap_longer_than_the_record_is_bad_xdr)
{
	static const uint32_t len[] = {1u << 31, UINT32_MAX, 0x40000000, 3};

	for (unsigned i = 0; i < ARRAY_LEN(len); i++) {
		const uint32_t w[] = {len[i], 1, 1};

		nf_begin(&a);
		nf_op(&a, OP_PUTROOTFH);
		nf_op(&a, OP_GETATTR);
		words(w, 3);
		ck_assert_int_eq(nf_send(&a), NFS4ERR_BADXDR);
	}
}
END_TEST

START_TEST(names_are_checked)
{
	static const struct {
		const char *name;
		nfsstat4 st;
	} cases[] = {{"", NFS4ERR_INVAL},      {".", NFS4ERR_BADNAME}, {"..", NFS4ERR_BADNAME},
		     {"a/b", NFS4ERR_BADCHAR}, {"...", NFS4ERR_NOENT}, {"\xff\xfe", NFS4ERR_NOENT}};
	char longer[257];

	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		begin_mem();
		nf_lookup(&a, cases[i].name);
		ck_assert_int_eq(send_mem(), cases[i].st);
	}
	memset(longer, 'n', sizeof longer);
	longer[256] = '\0';
	begin_mem();
	nf_lookup(&a, longer);
	ck_assert_int_eq(send_mem(), NFS4ERR_NAMETOOLONG);
	longer[255] = '\0';
	ck_assert_int_eq(create(NF4DIR, longer), NFS4_OK);
}
END_TEST

/* ---- sizes of replies ------------------------------------------------------------------------------------------------------------ */

/* RFC 8881 §2.10.6.4; the failing result is there, whatever went before. */
START_TEST(reply_that_would_pass_the_limit_of_the_session_is_too_big)
{
	READ4resok res;

	fill("f", 65536);
	begin_mem();
	nf_lookup(&a, "f");
	put_read(0, 65536);
	put_read(0, 65536);
	ck_assert_int_eq(send_mem(), NFS4ERR_REP_TOO_BIG);
	ck_assert_int_eq(nf_result(&a, OP_LOOKUP), NFS4_OK);
	ck_assert_int_eq(nf_result(&a, OP_READ), NFS4_OK);
	NF_GET(&a, READ4resok, &res);
	ck_assert_uint_eq(res.data.data_len, 65536);
	ck_assert(res.eof);
	ck_assert_int_eq(nf_result(&a, OP_READ), NFS4ERR_REP_TOO_BIG);
	ck_assert_uint_eq(xa_in_left(&a.in), 0);
	ck_assert_uint_le(a.reply_len, 1 << 17);
}
END_TEST

START_TEST(reply_that_would_pass_the_limit_of_the_cache_is_too_big_to_cache)
{
	fill("f", 4096);
	a.cache_this = true;
	begin_mem();
	nf_lookup(&a, "f");
	put_read(0, 4096);
	ck_assert_int_eq(send_mem(), NFS4ERR_REP_TOO_BIG_TO_CACHE);
	begin_mem();
	nf_lookup(&a, "f");
	put_read(0, 1024);
	ck_assert_int_eq(send_mem(), NFS4_OK);
}
END_TEST

/* Every length of what goes before: the reply never passes the limit, and ends with the status of the whole. */
START_TEST(replies_keep_to_the_limit_at_every_length)
{
	fill("f", 4096);
	a.cache_this = true;
	for (uint32_t n = 1700; n < 2048; n += 4) {
		SETATTR4args s = {.stateid = anonymous};
		nfsstat4 st;

		begin_mem();
		nf_lookup(&a, "f");
		put_read(0, n);
		nf_op(&a, OP_GETFH);
		s.obj_attributes = nf_attr_mode(&a, 0666);
		nf_op(&a, OP_SETATTR);
		NF_PUT(&a, SETATTR4args, &s);
		nf_op(&a, OP_PUTROOTFH);
		nf_op(&a, OP_GETFH);
		st = nf_send_bare(&a);
		ck_assert(st == NFS4_OK || st == NFS4ERR_REP_TOO_BIG_TO_CACHE || st == NFS4ERR_PERM);
		ck_assert_uint_le(a.reply_len + 24, 2048);
	}
}
END_TEST

/* ---- filehandles -------------------------------------------------------------------------------------------------------------------- */

static nfs_fh4 take_fh(char buf[NFS4_FHSIZE])
{
	GETFH4resok fh;

	ck_assert_int_eq(nf_result(&a, OP_GETFH), NFS4_OK);
	NF_GET(&a, GETFH4resok, &fh);
	memcpy(buf, fh.object.nfs_fh4_val, fh.object.nfs_fh4_len);
	return (nfs_fh4){.nfs_fh4_len = fh.object.nfs_fh4_len, .nfs_fh4_val = buf};
}

static nfs_fh4 fh_of(const char *name, char buf[NFS4_FHSIZE])
{
	begin_mem();
	if (name)
		nf_lookup(&a, name);
	nf_op(&a, OP_GETFH);
	ck_assert_int_eq(send_mem(), NFS4_OK);
	if (name)
		ck_assert_int_eq(nf_result(&a, OP_LOOKUP), NFS4_OK);
	return take_fh(buf);
}

static nfsstat4 try_fh(const nfs_fh4 *fh)
{
	nf_begin(&a);
	nf_putfh(&a, fh);
	return nf_send(&a);
}

/* Never another file's data: whatever bit is turned, it is the same error or a stale handle. */
START_TEST(damaged_filehandles_are_bad_or_stale)
{
	char buf[NFS4_FHSIZE];
	nfs_fh4 fh;

	make_file("f", 0666, 0);
	fh = fh_of("f", buf);
	ck_assert_int_eq(try_fh(&fh), NFS4_OK);
	for (unsigned bit = 0; bit < fh.nfs_fh4_len * 8; bit++) {
		nfsstat4 st;

		buf[bit / 8] ^= (char)(1 << bit % 8);
		st = try_fh(&fh);
		ck_assert(st == NFS4ERR_BADHANDLE || st == NFS4ERR_STALE);
		buf[bit / 8] ^= (char)(1 << bit % 8);
	}
	for (u_int len = 0; len < 60; len++) {
		char other[64] = {0};
		nfs_fh4 cut = {.nfs_fh4_len = len, .nfs_fh4_val = other};

		memcpy(other, buf, fh.nfs_fh4_len < len ? fh.nfs_fh4_len : len);
		ck_assert_int_eq(try_fh(&cut), len == fh.nfs_fh4_len ? NFS4_OK : NFS4ERR_BADHANDLE);
	}
}
END_TEST

enum { PLAIN_FH = 20, FH_GEN_AT = 16 };

/* What a client can guess of a handle: everything but the hash. */
START_TEST(filehandles_cannot_be_made_by_clients)
{
	char buf[NFS4_FHSIZE], neighbour[NFS4_FHSIZE];
	nfs_fh4 fh, other;

	make_file("f", 0666, 0);
	make_file("g", 0666, 0);
	fh = fh_of("f", buf);
	other = fh_of("g", neighbour);
	/* g's file with f's hash */
	memcpy(neighbour + PLAIN_FH, buf + PLAIN_FH, fh.nfs_fh4_len - PLAIN_FH);
	ck_assert_int_eq(try_fh(&other), NFS4ERR_STALE);
	/* Any generation. */
	memset(buf + FH_GEN_AT, 0xff, 4);
	ck_assert_int_eq(try_fh(&fh), NFS4ERR_STALE);
	/* And as before there were hashes. */
	buf[0] = 1;
	fh.nfs_fh4_len = PLAIN_FH;
	ck_assert_int_eq(try_fh(&fh), NFS4ERR_STALE);
}
END_TEST

START_TEST(plain_filehandles_are_valid_while_clients_of_before_have_them)
{
	char buf[NFS4_FHSIZE];
	nfs_fh4 fh;

	make_file("f", 0666, 0);
	srv.srv.fh.on = false;
	fh = fh_of("f", buf);
	ck_assert_uint_eq(fh.nfs_fh4_len, PLAIN_FH);
	ck_assert_int_eq(try_fh(&fh), NFS4_OK);
	srv.srv.fh.on = srv.srv.fh.old = true;
	ck_assert_int_eq(try_fh(&fh), NFS4_OK);
	/* but not of any generation */
	memset(buf + FH_GEN_AT, 0xff, 4);
	ck_assert_int_eq(try_fh(&fh), NFS4ERR_STALE);
	fh = fh_of("f", buf);
	ck_assert_uint_gt(fh.nfs_fh4_len, PLAIN_FH);
	ck_assert_int_eq(try_fh(&fh), NFS4_OK);
}
END_TEST

START_TEST(filehandle_of_a_removed_file_is_stale)
{
	char buf[NFS4_FHSIZE];
	struct fs_cinfo ci;
	nfs_fh4 fh;

	make_file("f", 0666, 0);
	fh = fh_of("f", buf);
	ck_assert_int_eq(srv.fs->ops->unlink(srv.fs->root, "f", 1, 0, &ci), 0);
	ck_assert_int_eq(try_fh(&fh), NFS4ERR_STALE);
}
END_TEST

START_TEST(filehandles_of_an_export_that_went_away_are_stale)
{
	char buf[NFS4_FHSIZE];
	nfs_fh4 fh = fh_of(NULL, buf);

	ck_assert_int_eq(exports_remove(srv.srv.exports, "/mem", NULL), 0);
	ck_assert_int_eq(try_fh(&fh), NFS4ERR_STALE);
	nf_begin(&a);
	nf_goto_mem(&a);
	ck_assert_int_eq(nf_send(&a), NFS4ERR_NOENT);
}
END_TEST

START_TEST(saved_filehandle_comes_back)
{
	char one_fh[NFS4_FHSIZE], two_fh[NFS4_FHSIZE];
	nfs_fh4 f, g;

	begin_mem();
	nf_op(&a, OP_SAVEFH);
	nf_op(&a, OP_GETFH);
	nf_op(&a, OP_PUTROOTFH);
	nf_op(&a, OP_RESTOREFH);
	nf_op(&a, OP_GETFH);
	ck_assert_int_eq(send_mem(), NFS4_OK);
	nf_result(&a, OP_SAVEFH);
	f = take_fh(one_fh);
	nf_result(&a, OP_PUTROOTFH);
	nf_result(&a, OP_RESTOREFH);
	g = take_fh(two_fh);
	ck_assert_uint_eq(f.nfs_fh4_len, g.nfs_fh4_len);
	ck_assert_mem_eq(one_fh, two_fh, f.nfs_fh4_len);
}
END_TEST

START_TEST(lookupp_leads_back_to_the_pseudo_root_and_ends_there)
{
	char root[NFS4_FHSIZE], up[NFS4_FHSIZE];
	nfs_fh4 fh;

	nf_begin(&a);
	nf_op(&a, OP_PUTROOTFH);
	nf_op(&a, OP_GETFH);
	nf_lookup(&a, "mem");
	nf_op(&a, OP_LOOKUPP);
	nf_op(&a, OP_GETFH);
	nf_op(&a, OP_LOOKUPP);
	ck_assert_int_eq(nf_send(&a), NFS4ERR_NOENT);
	nf_result(&a, OP_PUTROOTFH);
	fh = take_fh(root);
	nf_result(&a, OP_LOOKUP);
	nf_result(&a, OP_LOOKUPP);
	take_fh(up);
	ck_assert_mem_eq(root, up, fh.nfs_fh4_len);
}
END_TEST

/* RFC 8881 §2.6.3.1.1.8. */
START_TEST(secinfo_consumes_the_filehandle_and_says_auth_sys)
{
	SECINFO4args s = {.name = text("mem")};
	SECINFO_NO_NAME4args style = SECINFO_STYLE4_CURRENT_FH;
	SECINFO4resok res;

	nf_begin(&a);
	nf_op(&a, OP_PUTROOTFH);
	nf_op(&a, OP_SECINFO);
	NF_PUT(&a, SECINFO4args, &s);
	nf_op(&a, OP_GETFH);
	ck_assert_int_eq(nf_send(&a), NFS4ERR_NOFILEHANDLE);
	nf_result(&a, OP_PUTROOTFH);
	ck_assert_int_eq(nf_result(&a, OP_SECINFO), NFS4_OK);
	NF_GET(&a, SECINFO4resok, &res);
	ck_assert_uint_eq(res.SECINFO4resok_len, 1);
	ck_assert_uint_eq(res.SECINFO4resok_val[0].flavor, AUTH_SYS);

	nf_begin(&a);
	nf_op(&a, OP_PUTROOTFH);
	nf_op(&a, OP_SECINFO_NO_NAME);
	NF_PUT(&a, SECINFO_NO_NAME4args, &style);
	nf_op(&a, OP_GETFH);
	ck_assert_int_eq(nf_send(&a), NFS4ERR_NOFILEHANDLE);
	style = SECINFO_STYLE4_PARENT;
	nf_begin(&a);
	nf_op(&a, OP_PUTROOTFH);
	nf_op(&a, OP_SECINFO_NO_NAME);
	NF_PUT(&a, SECINFO_NO_NAME4args, &style);
	ck_assert_int_eq(nf_send(&a), NFS4ERR_NOENT);
}
END_TEST

START_TEST(directory_delegations_are_unavailable_not_unsupported)
{
	GET_DIR_DELEGATION4args g = {.gdda_signal_deleg_avail = false};
	GET_DIR_DELEGATION4res_non_fatal res;

	begin_mem();
	nf_op(&a, OP_GET_DIR_DELEGATION);
	NF_PUT(&a, GET_DIR_DELEGATION4args, &g);
	ck_assert_int_eq(send_mem(), NFS4_OK);
	nf_result(&a, OP_GET_DIR_DELEGATION);
	NF_GET(&a, GET_DIR_DELEGATION4res_non_fatal, &res);
	ck_assert_int_eq(res.gddrnf_status, GDD4_UNAVAIL);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("compound");
	TCase *tc = tcase_create("all");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, unknown_operation_is_answered_as_illegal);
	tcase_add_test(tc, operations_of_42_are_illegal_in_41);
	tcase_add_test(tc, operations_of_40_only_and_those_not_served_are_not_supported);
	tcase_add_test(tc, operations_need_a_session_but_those_that_make_one);
	tcase_add_test(tc, what_may_stand_without_session_stands_alone);
	tcase_add_test(tc, other_minor_versions_are_refused_with_no_result);
	tcase_add_test(tc, compound_of_nothing_is_ok);
	tcase_add_test(tc, compound_stops_at_the_first_error);
	tcase_add_test(tc, operations_on_the_current_filehandle_need_one);
	tcase_add_test(tc, table_of_operations_names_every_number);
	tcase_add_test(tc, compound_of_ten_thousand_operations_is_refused);
	tcase_add_test(tc, count_of_operations_that_are_not_there_is_bad_xdr);
	tcase_add_test(tc, name_longer_than_the_record_is_bad_xdr);
	tcase_add_test(tc, bitmap_longer_than_the_record_is_bad_xdr);
	tcase_add_test(tc, names_are_checked);
	tcase_add_test(tc, reply_that_would_pass_the_limit_of_the_session_is_too_big);
	tcase_add_test(tc, reply_that_would_pass_the_limit_of_the_cache_is_too_big_to_cache);
	tcase_add_test(tc, replies_keep_to_the_limit_at_every_length);
	tcase_add_test(tc, damaged_filehandles_are_bad_or_stale);
	tcase_add_test(tc, filehandles_cannot_be_made_by_clients);
	tcase_add_test(tc, plain_filehandles_are_valid_while_clients_of_before_have_them);
	tcase_add_test(tc, filehandle_of_a_removed_file_is_stale);
	tcase_add_test(tc, filehandles_of_an_export_that_went_away_are_stale);
	tcase_add_test(tc, saved_filehandle_comes_back);
	tcase_add_test(tc, lookupp_leads_back_to_the_pseudo_root_and_ends_there);
	tcase_add_test(tc, secinfo_consumes_the_filehandle_and_says_auth_sys);
	tcase_add_test(tc, directory_delegations_are_unavailable_not_unsupported);
	suite_add_tcase(suite, tc);
	r = srunner_create(suite);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* test_reload.c - exports that are taken away, or change, while a client has a file of them open */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/protocol/calls.h"
#include "tests/protocol/server.h"

enum { RW = OPEN4_SHARE_ACCESS_BOTH, TRIES = 600 };

static char dir[64], yaml[96];
static const char *const options[] = {"--no-root-squash", "-c", yaml, NULL};
static struct nfsc *n;
static struct open_file near, far;

/* The server is told of far.vhd in @dir, with @more about it; or of nothing (NULL). The other image is on its command line. */
static void configure(const char *more)
{
	FILE *f = fopen(yaml, "we");

	ck_assert_ptr_nonnull(f);
	fprintf(f, "squash: none\n");
	if (more)
		fprintf(f, "exports:\n  - image: %s/far.vhd\n%s", dir, more);
	ck_assert_int_eq(fclose(f), 0);
}

static nfsstat4 open_at(const char *path, const char *name, const char *owner, uint32_t access, struct open_file *f)
{
	struct why why = {.line = ""};
	char buf[NFS4_FHSIZE];
	nfs_fh4 got, fh;

	if (nfsc_lookup(n, path, &got, &why))
		return NFS4ERR_NOENT;
	keep_fh(&fh, buf, &got);
	return open_in(n, &fh, name, owner, access, 0, NULL, f);
}

static void setup(void)
{
	snprintf(dir, sizeof dir, "/tmp/vhdnfs-reload-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(yaml, sizeof yaml, "%s/vhdnfs.yaml", dir);
	ck_assert_int_eq(server_tool("mkdir %2$s/f && echo first >%2$s/f/held && chmod -R 777 %2$s/f && "
				     "%1$s/vhdnfs image create --size 16M --from %2$s/f %2$s/far.vhd >/dev/null",
				     dir),
			 0);
	configure("");
	server_start(options);
	n = server_client();
	ck_assert_int_eq(open_at("/disk", "hello", "o", RW, &near), NFS4_OK);
	ck_assert_int_eq(open_at("/far", "held", "o", RW, &far), NFS4_OK);
	ck_assert_int_eq(write_at(n, &far, 0, "later", 5), NFS4_OK);
}

static void teardown(void)
{
	nfsc_close(n);
	server_stop();
	server_tool("rm -rf %2$s", dir);
}

static uint32_t flags(void)
{
	nfs_argop4 none = {.argop = OP_ILLEGAL};
	COMPOUND4res res;
	uint32_t f;

	ck_assert_int_eq(nfsc_call(n, &none, 0, &res), 0);
	f = res.resarray.resarray_val[0].nfs_resop4_u.opsequence.SEQUENCE4res_u.sr_resok4.sr_status_flags;
	nfsc_free(&res);
	return f;
}

static nfsstat4 tested(stateid4 *sid)
{
	nfs_argop4 op = {.argop = OP_TEST_STATEID};
	COMPOUND4res res;
	nfsstat4 st;

	op.nfs_argop4_u.optest_stateid.ts_stateids.ts_stateids_len = 1;
	op.nfs_argop4_u.optest_stateid.ts_stateids.ts_stateids_val = sid;
	ck_assert_int_eq(nfsc_call(n, &op, 1, &res), 0);
	st = res.resarray.resarray_val[1]
		     .nfs_resop4_u.optest_stateid.TEST_STATEID4res_u.tsr_resok4.tsr_status_codes
		     .tsr_status_codes_val[0];
	nfsc_free(&res);
	return st;
}

static nfsstat4 freed(const stateid4 *sid)
{
	nfs_argop4 op = {.argop = OP_FREE_STATEID};
	COMPOUND4res res;
	nfsstat4 st;

	op.nfs_argop4_u.opfree_stateid.fsa_stateid = *sid;
	st = (nfsstat4)-nfsc_call(n, &op, 1, &res);
	nfsc_free(&res);
	return st;
}

/* Somebody else can have the image once the server has closed it. */
static bool resized(const char *to)
{
	char line[200];
	int rc = -1;

	snprintf(line, sizeof line, "%%1$s/vhdnfs image resize %%2$s/far.vhd --size %s >/dev/null 2>&1", to);
	for (int i = 0; rc && i < TRIES; i++, usleep(50000))
		rc = server_tool(line, dir);
	return rc == 0;
}

static void others_go_on(void)
{
	char buf[6] = "";

	ck_assert_int_eq(tested(&near.sid), NFS4_OK);
	ck_assert_int_eq(read_at(n, &near, 0, buf, 5), 5);
	ck_assert_str_eq(buf, "hello");
	ck_assert_int_eq(write_at(n, &near, 0, "hello", 5), NFS4_OK);
}

static nfsstat4 reopen(uint32_t access, nfsstat4 want, struct open_file *f)
{
	nfsstat4 st = NFS4_OK;

	for (int i = 0; i < TRIES; i++, usleep(50000)) {
		st = open_at("/far", "held", "p", access, f);
		if (st == want)
			break;
		/* It was not taken away yet; perhaps now it is, with this open. */
		if (st == NFS4_OK && close_it(n, f) != NFS4_OK)
			freed(&f->sid);
	}
	return st;
}

/* RFC 8881 §8.5 */
START_TEST(who_has_a_file_open_does_not_keep_an_export_that_is_taken_away)
{
	struct open_file again;
	char buf[6] = "";

	ck_assert_uint_eq(flags(), 0);
	configure(NULL);
	server_reload();
	ck_assert(resized("24M"));
	ck_assert_uint_eq(flags(), SEQ4_STATUS_ADMIN_STATE_REVOKED);
	ck_assert_int_eq(tested(&far.sid), NFS4ERR_ADMIN_REVOKED);
	ck_assert_int_eq(close_it(n, &far), NFS4ERR_STALE);
	others_go_on();
	ck_assert_int_eq(freed(&far.sid), NFS4_OK);
	ck_assert_uint_eq(flags(), 0);

	configure("");
	server_reload();
	ck_assert_int_eq(reopen(RW, NFS4_OK, &again), NFS4_OK);
	ck_assert_int_eq(read_at(n, &again, 0, buf, 5), 5);
	ck_assert_str_eq(buf, "later");
	ck_assert_int_eq(close_it(n, &again), NFS4_OK);
}
END_TEST

START_TEST(an_entry_that_changed_is_served_anew_under_who_has_a_file_open)
{
	struct open_file again;
	char buf[6] = "";

	configure("    read-only: true\n");
	server_reload();
	ck_assert_int_eq(reopen(RW, NFS4ERR_ROFS, &again), NFS4ERR_ROFS);
	/* The filehandle is good again, and tells no open from the other. */
	ck_assert_uint_eq(flags(), SEQ4_STATUS_ADMIN_STATE_REVOKED);
	ck_assert_int_eq(close_it(n, &far), NFS4ERR_ADMIN_REVOKED);
	ck_assert_int_eq(read_at(n, &far, 0, buf, 5), -1);
	ck_assert_int_eq(freed(&far.sid), NFS4_OK);
	ck_assert_uint_eq(flags(), 0);
	others_go_on();
	ck_assert_int_eq(open_at("/far", "held", "p", OPEN4_SHARE_ACCESS_READ, &again), NFS4_OK);
	ck_assert_int_eq(read_at(n, &again, 0, buf, 5), 5);
	ck_assert_str_eq(buf, "later");
	ck_assert_int_eq(close_it(n, &again), NFS4_OK);
}
END_TEST

int main(int argc, char **argv)
{
	Suite *s = suite_create("reload");
	TCase *t = tcase_create("exports under open files");
	SRunner *r;
	int failed;

	(void)argc;
	server_find(argv[0]);
	tcase_set_timeout(t, 120);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, who_has_a_file_open_does_not_keep_an_export_that_is_taken_away);
	tcase_add_test(t, an_entry_that_changed_is_served_anew_under_who_has_a_file_open);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}

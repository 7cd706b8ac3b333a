/* SPDX-License-Identifier: BSD-3-Clause */
/* test_reclaim.c - a server that is started anew: clients take back what they had, and nobody else gets it meanwhile */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/protocol/server.h"

enum { RW = OPEN4_SHARE_ACCESS_BOTH, ANN = 1000 };

static const char *const options[] = {"--no-root-squash", "--lease", "60", "--grace", "60", NULL};
static struct nfsc *a, *b;
static nfs_fh4 dir;
static char dir_buf[NFS4_FHSIZE];

struct file {
	nfs_fh4 fh;
	char buf[NFS4_FHSIZE];
	stateid4 sid, lock;
	uint32_t rflags;
};

static nfsstat4 call(struct nfsc *c, nfs_argop4 *op, unsigned n, COMPOUND4res *res)
{
	return (nfsstat4)-nfsc_call(c, op, n, res);
}

static nfs_argop4 open_op(uint32_t access)
{
	static char owner[] = "o";
	nfs_argop4 op = {.argop = OP_OPEN};
	OPEN4args *o = &op.nfs_argop4_u.opopen;

	o->share_access = access;
	o->owner.owner.owner_val = owner;
	o->owner.owner.owner_len = 1;
	return op;
}

static nfsstat4 open_result(nfsstat4 st, COMPOUND4res *res, struct file *f)
{
	const OPEN4resok *ok;

	if (st == NFS4_OK) {
		ok = &res->resarray.resarray_val[2].nfs_resop4_u.opopen.OPEN4res_u.resok4;
		f->sid = ok->stateid;
		f->rflags = ok->rflags;
	}
	return st;
}

/* Made if it is not there. */
static nfsstat4 open_name(struct nfsc *c, const char *name, uint32_t mode, struct file *f)
{
	nfs_argop4 op[3] = {nfsc_putfh(&dir), open_op(RW), {.argop = OP_GETFH}};
	OPEN4args *o = &op[1].nfs_argop4_u.opopen;
	uint32_t words[2] = {0, 1u << (FATTR4_MODE - 32)};
	const nfs_fh4 *fh;
	COMPOUND4res res;
	uint8_t v[4];
	nfsstat4 st;

	raw_put32(v, mode);
	o->openhow.opentype = OPEN4_CREATE;
	o->openhow.openflag4_u.how.mode = UNCHECKED4;
	o->openhow.openflag4_u.how.createhow4_u.createattrs = (fattr4){
		.attrmask = {.bitmap4_len = 2, .bitmap4_val = words},
		.attr_vals = {.attrlist4_len = 4, .attrlist4_val = (char *)v}};
	o->claim.claim = CLAIM_NULL;
	o->claim.open_claim4_u.file = (component4){.utf8string_len = (u_int)strlen(name),
						   .utf8string_val = (char *)(uintptr_t)name};
	st = open_result(call(c, op, 3, &res), &res, f);
	if (st == NFS4_OK) {
		fh = &res.resarray.resarray_val[3].nfs_resop4_u.opgetfh.GETFH4res_u.resok4.object;
		memcpy(f->buf, fh->nfs_fh4_val, fh->nfs_fh4_len);
		f->fh = (nfs_fh4){.nfs_fh4_len = fh->nfs_fh4_len, .nfs_fh4_val = f->buf};
	}
	nfsc_free(&res);
	return st;
}

static nfsstat4 claim(struct nfsc *c, struct file *f, open_claim_type4 how)
{
	nfs_argop4 op[2] = {nfsc_putfh(&f->fh), open_op(RW)};
	COMPOUND4res res;
	nfsstat4 st;

	op[1].nfs_argop4_u.opopen.claim.claim = how;
	st = open_result(call(c, op, 2, &res), &res, f);
	nfsc_free(&res);
	return st;
}

static nfsstat4 lock_it(struct nfsc *c, struct file *f, bool reclaim)
{
	nfs_argop4 op[2] = {nfsc_putfh(&f->fh), {.argop = OP_LOCK}};
	LOCK4args *l = &op[1].nfs_argop4_u.oplock;
	char owner[] = "l";
	COMPOUND4res res;
	nfsstat4 st;

	l->locktype = WRITE_LT;
	l->reclaim = reclaim;
	l->length = 10;
	l->locker.new_lock_owner = true;
	l->locker.locker4_u.open_owner.open_stateid = f->sid;
	l->locker.locker4_u.open_owner.lock_owner.owner.owner_val = owner;
	l->locker.locker4_u.open_owner.lock_owner.owner.owner_len = 1;
	st = call(c, op, 2, &res);
	if (st == NFS4_OK)
		f->lock = res.resarray.resarray_val[2].nfs_resop4_u.oplock.LOCK4res_u.resok4.lock_stateid;
	nfsc_free(&res);
	return st;
}

static nfsstat4 simple(struct nfsc *c, const nfs_fh4 *fh, const nfs_argop4 *what)
{
	nfs_argop4 op[2] = {nfsc_putfh(fh), *what};
	COMPOUND4res res;
	nfsstat4 st = call(c, op, 2, &res);

	nfsc_free(&res);
	return st;
}

static nfsstat4 test_lock(struct nfsc *c, struct file *f)
{
	nfs_argop4 op = {.argop = OP_LOCKT};
	LOCKT4args *l = &op.nfs_argop4_u.oplockt;
	char owner[] = "t";

	l->locktype = WRITE_LT;
	l->length = 10;
	l->owner.owner.owner_val = owner;
	l->owner.owner.owner_len = 1;
	return simple(c, &f->fh, &op);
}

static nfsstat4 write_text(struct nfsc *c, struct file *f, const char *text)
{
	nfs_argop4 op = {.argop = OP_WRITE};
	WRITE4args *w = &op.nfs_argop4_u.opwrite;

	w->stateid = f->sid;
	w->stable = FILE_SYNC4;
	w->data.data_val = (char *)(uintptr_t)text;
	w->data.data_len = (u_int)strlen(text);
	return simple(c, &f->fh, &op);
}

static nfsstat4 reads(struct nfsc *c, struct file *f, const char *text)
{
	nfs_argop4 op[2] = {nfsc_putfh(&f->fh), {.argop = OP_READ}};
	COMPOUND4res res;
	nfsstat4 st;

	op[1].nfs_argop4_u.opread.stateid = f->sid;
	op[1].nfs_argop4_u.opread.count = 100;
	st = call(c, op, 2, &res);
	if (st == NFS4_OK) {
		const READ4resok *ok = &res.resarray.resarray_val[2].nfs_resop4_u.opread.READ4res_u.resok4;

		ck_assert_uint_eq(ok->data.data_len, strlen(text));
		ck_assert_int_eq(memcmp(ok->data.data_val, text, strlen(text)), 0);
	}
	nfsc_free(&res);
	return st;
}

static nfsstat4 remove_name(struct nfsc *c, const char *name)
{
	nfs_argop4 op = {.argop = OP_REMOVE};

	op.nfs_argop4_u.opremove.target = (component4){.utf8string_len = (u_int)strlen(name),
						       .utf8string_val = (char *)(uintptr_t)name};
	return simple(c, &dir, &op);
}

static nfsstat4 close_it(struct nfsc *c, struct file *f)
{
	nfs_argop4 op = {.argop = OP_CLOSE};

	op.nfs_argop4_u.opclose.open_stateid = f->sid;
	return simple(c, &f->fh, &op);
}

/* Both hear of the restart. */
static void both_again(void)
{
	server_client_again(a);
	server_client_again(b);
}

START_TEST(opens_and_locks_are_taken_back_before_anybody_else_gets_them)
{
	struct file f = {.rflags = 0}, other = {.rflags = 0};

	ck_assert_int_eq(open_name(a, "locked", 0666, &f), NFS4_OK);
	ck_assert_int_eq(lock_it(a, &f, false), NFS4_OK);
	server_kill();
	server_again();
	ck_assert_int_eq(reads(a, &f, ""), (nfsstat4)104); /* the connection is gone */
	both_again();
	ck_assert_int_eq(nfsc_reclaim_complete(b), 0);
	ck_assert_int_eq(open_name(b, "locked", 0666, &other), NFS4ERR_GRACE);
	ck_assert_int_eq(test_lock(b, &f), NFS4ERR_GRACE);
	ck_assert_int_eq(claim(b, &f, CLAIM_PREVIOUS), NFS4ERR_NO_GRACE); /* it is done */
	ck_assert_int_eq(reads(a, &f, ""), NFS4ERR_BAD_STATEID);
	ck_assert_int_eq(open_name(a, "new", 0666, &other), NFS4ERR_GRACE);
	ck_assert_int_eq(claim(a, &f, CLAIM_PREVIOUS), NFS4_OK);
	ck_assert_int_eq(lock_it(a, &f, false), NFS4ERR_GRACE);
	ck_assert_int_eq(lock_it(a, &f, true), NFS4_OK);
	ck_assert_int_eq(write_text(a, &f, "mine"), NFS4_OK);
	ck_assert_int_eq(nfsc_reclaim_complete(a), 0);
	ck_assert_int_eq(nfsc_reclaim_complete(a), -NFS4ERR_COMPLETE_ALREADY);
	/* All are back: it is over. */
	ck_assert_int_eq(claim(a, &f, CLAIM_PREVIOUS), NFS4ERR_NO_GRACE);
	ck_assert_int_eq(open_name(b, "locked", 0666, &other), NFS4_OK);
	ck_assert_int_eq(lock_it(b, &other, false), NFS4ERR_DENIED);
	ck_assert_int_eq(test_lock(b, &f), NFS4ERR_DENIED);
}
END_TEST

START_TEST(a_client_that_is_not_on_record_takes_nothing_back)
{
	struct file f = {.rflags = 0};
	struct nfsc *c;

	ck_assert_int_eq(open_name(a, "f", 0666, &f), NFS4_OK);
	server_kill();
	server_again();
	c = server_client(); /* it has said RECLAIM_COMPLETE */
	nfsc_set_impatient(c, true);
	ck_assert_int_eq(claim(c, &f, CLAIM_PREVIOUS), NFS4ERR_NO_GRACE);
	ck_assert_int_eq(claim(c, &f, CLAIM_FH), NFS4ERR_GRACE);
	nfsc_close(c);
	both_again();
	ck_assert_int_eq(nfsc_reclaim_complete(a), 0);
	ck_assert_int_eq(nfsc_reclaim_complete(b), 0);
}
END_TEST

/* Who makes a file has it open for writing whatever its mode; nobody else does. */
START_TEST(the_owner_takes_back_an_open_that_the_mode_forbids)
{
	struct file f = {.rflags = 0};

	ck_assert_int_eq(nfsc_set_cred(a, ANN, ANN, 0, NULL), 0);
	ck_assert_int_eq(open_name(a, "readonly", 0444, &f), NFS4_OK);
	ck_assert_int_eq(write_text(a, &f, "first"), NFS4_OK);
	server_kill();
	server_again();
	both_again();
	ck_assert_int_eq(nfsc_set_cred(b, ANN + 1, ANN + 1, 0, NULL), 0);
	ck_assert_int_eq(claim(b, &f, CLAIM_PREVIOUS), NFS4ERR_ACCESS);
	ck_assert_int_eq(nfsc_set_cred(a, ANN, ANN, 0, NULL), 0);
	ck_assert_int_eq(claim(a, &f, CLAIM_PREVIOUS), NFS4_OK);
	ck_assert_int_eq(write_text(a, &f, "again"), NFS4_OK);
	ck_assert_int_eq(reads(a, &f, "again"), NFS4_OK);
}
END_TEST

/* Some moments after its last close. */
static bool is_gone(struct nfsc *c, struct file *f)
{
	for (int i = 0; i < 100; i++) {
		if (claim(c, f, CLAIM_FH) == NFS4ERR_STALE)
			return true;
		close_it(c, f);
		usleep(50000);
	}
	return false;
}

/* OPEN4_RESULT_PRESERVE_UNLINKED: RFC 8881 §18.16.3 */
static void unlinked_files_survive(void (*end)(void), void (*begin)(void))
{
	struct file kept = {.rflags = 0}, lost = {.rflags = 0};

	ck_assert_int_eq(open_name(a, "kept", 0666, &kept), NFS4_OK);
	ck_assert_int_eq(open_name(b, "lost", 0666, &lost), NFS4_OK);
	ck_assert_uint_ne(kept.rflags & OPEN4_RESULT_PRESERVE_UNLINKED, 0);
	ck_assert_int_eq(write_text(a, &kept, "nameless"), NFS4_OK);
	ck_assert_int_eq(write_text(b, &lost, "nobody's"), NFS4_OK);
	ck_assert_int_eq(remove_name(a, "kept"), NFS4_OK);
	ck_assert_int_eq(remove_name(a, "lost"), NFS4_OK);
	for (int i = 0; i < 2; i++) { /* and once more: it was open without a name all the time */
		end();
		begin();
		both_again();
		ck_assert_int_eq(claim(a, &kept, CLAIM_PREVIOUS), NFS4_OK);
		ck_assert_int_eq(reads(a, &kept, "nameless"), NFS4_OK);
		ck_assert_int_eq(nfsc_reclaim_complete(a), 0);
		ck_assert_int_eq(nfsc_reclaim_complete(b), 0);
	}
	ck_assert(is_gone(b, &lost));
	ck_assert_int_eq(reads(a, &kept, "nameless"), NFS4_OK);
	ck_assert_int_eq(close_it(a, &kept), NFS4_OK);
	ck_assert(is_gone(a, &kept));
}

static void nothing(void)
{
}

START_TEST(an_open_file_without_a_name_survives_a_crash)
{
	unlinked_files_survive(server_kill, server_again);
}
END_TEST

START_TEST(an_open_file_without_a_name_survives_a_restart)
{
	unlinked_files_survive(server_restart, nothing);
}
END_TEST

/* Its opener has not been heard of for a lease: nobody knows whether it comes back, and the image is whole as it is. */
START_TEST(stop_leaves_nothing_of_clients_whose_lease_is_over)
{
	static const char *const brief[] = {"--no-root-squash", "--lease", "1", "--grace", "1", NULL};
	struct file f = {.rflags = 0};

	server_options(brief);
	server_restart();
	both_again();
	ck_assert_int_eq(nfsc_reclaim_complete(a), 0);
	ck_assert_int_eq(nfsc_reclaim_complete(b), 0);
	ck_assert_int_eq(open_name(a, "nameless", 0666, &f), NFS4_OK);
	ck_assert_int_eq(write_text(a, &f, "some data"), NFS4_OK);
	ck_assert_int_eq(remove_name(a, "nameless"), NFS4_OK);
	sleep(3);
	server_image_raw();
	ck_assert_int_eq(server_tool("PATH=$PATH:/sbin:/usr/sbin; ! dumpe2fs -h %2$s/image.raw 2>&1 | "
				     "grep 'First orphan' && e2fsck -fn %2$s/image.raw && : %1$s",
				     server_dir()),
			 0);
	server_options(options);
	server_restart();
	both_again();
	ck_assert_int_eq(claim(a, &f, CLAIM_PREVIOUS), NFS4ERR_STALE);
	nfsc_reclaim_complete(a);
	nfsc_reclaim_complete(b);
}
END_TEST

/* Nobody has it open, so nobody may come back for it: freed, and the image is whole without e2fsck's help. */
START_TEST(a_file_that_is_removed_in_the_grace_period_is_freed)
{
	struct file f = {.rflags = 0};

	ck_assert_int_eq(open_name(a, "closed", 0666, &f), NFS4_OK);
	ck_assert_int_eq(write_text(a, &f, "some data"), NFS4_OK);
	ck_assert_int_eq(close_it(a, &f), NFS4_OK);
	server_kill();
	server_again();
	server_client_again(b);
	ck_assert_int_eq(remove_name(b, "closed"), NFS4_OK);
	usleep(300000);
	ck_assert_int_eq(claim(b, &f, CLAIM_PREVIOUS), NFS4ERR_STALE);
	server_client_again(a);
	ck_assert_int_eq(nfsc_reclaim_complete(a), 0);
	ck_assert_int_eq(nfsc_reclaim_complete(b), 0);
}
END_TEST

static uint64_t change_of(struct nfsc *c, const struct file *f)
{
	uint32_t word = 1u << FATTR4_CHANGE;
	nfs_argop4 op[2] = {nfsc_putfh(&f->fh), {.argop = OP_GETATTR}};
	COMPOUND4res res;
	const uint8_t *v;
	uint64_t change;

	op[1].nfs_argop4_u.opgetattr.attr_request = (bitmap4){.bitmap4_len = 1, .bitmap4_val = &word};
	ck_assert_int_eq(call(c, op, 2, &res), NFS4_OK);
	v = (const uint8_t *)res.resarray.resarray_val[2]
		    .nfs_resop4_u.opgetattr.GETATTR4res_u.resok4.obj_attributes.attr_vals.attrlist4_val;
	change = (uint64_t)raw_get32(v) << 32 | raw_get32(v + 4);
	nfsc_free(&res);
	return change;
}

/* Data that was not committed is lost in a crash, and with it the change attribute that others have seen of it: what is written then
 * must not come under the same number, or they take what they have cached for it. */
START_TEST(a_change_attribute_does_not_come_again_after_a_crash)
{
	nfs_argop4 op = {.argop = OP_WRITE};
	char text[] = "not committed";
	struct file f = {.rflags = 0};
	uint64_t stable, seen, now;

	ck_assert_int_eq(open_name(a, "file", 0666, &f), NFS4_OK);
	stable = change_of(a, &f);
	op.nfs_argop4_u.opwrite.stateid = f.sid;
	op.nfs_argop4_u.opwrite.data.data_val = text;
	op.nfs_argop4_u.opwrite.data.data_len = sizeof text;
	for (unsigned i = 0; i < 5; i++)
		ck_assert_int_eq(simple(a, &f.fh, &op), NFS4_OK);
	seen = change_of(a, &f);
	ck_assert_uint_gt(seen, stable);
	server_kill();
	server_again();
	server_client_again(a);
	ck_assert_int_eq(nfsc_reclaim_complete(a), 0);
	now = change_of(a, &f);
	ck_assert_uint_gt(now, seen);
	/* Nothing is lost when the server stops in peace. */
	server_restart();
	server_client_again(a);
	ck_assert_int_eq(nfsc_reclaim_complete(a), 0);
	ck_assert_uint_eq(change_of(a, &f), now);
}
END_TEST

static void open_to_all(void)
{
	nfs_argop4 op = {.argop = OP_SETATTR};
	uint32_t words[2] = {0, 1u << (FATTR4_MODE - 32)};
	uint8_t v[4];

	raw_put32(v, 0777);
	op.nfs_argop4_u.opsetattr.obj_attributes = (fattr4){
		.attrmask = {.bitmap4_len = 2, .bitmap4_val = words},
		.attr_vals = {.attrlist4_len = 4, .attrlist4_val = (char *)v}};
	ck_assert_int_eq(simple(a, &dir, &op), NFS4_OK);
}

static void setup(void)
{
	struct why why = {.line = ""};
	nfs_fh4 fh;

	server_start(options);
	a = server_client();
	b = server_client();
	nfsc_set_impatient(a, true);
	nfsc_set_impatient(b, true);
	ck_assert_msg(nfsc_lookup(a, "/disk", &fh, &why) == 0, "%s", why.line);
	memcpy(dir_buf, fh.nfs_fh4_val, fh.nfs_fh4_len);
	dir = (nfs_fh4){.nfs_fh4_len = fh.nfs_fh4_len, .nfs_fh4_val = dir_buf};
	open_to_all();
}

static void teardown(void)
{
	nfsc_close(a);
	nfsc_close(b);
	server_stop();
}

int main(int argc, char **argv)
{
	Suite *s = suite_create("reclaim over the wire");
	TCase *t = tcase_create("restart");
	SRunner *r;
	int failed;

	(void)argc;
	server_find(argv[0]);
	tcase_set_timeout(t, 120);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, opens_and_locks_are_taken_back_before_anybody_else_gets_them);
	tcase_add_test(t, a_client_that_is_not_on_record_takes_nothing_back);
	tcase_add_test(t, the_owner_takes_back_an_open_that_the_mode_forbids);
	tcase_add_test(t, an_open_file_without_a_name_survives_a_crash);
	tcase_add_test(t, an_open_file_without_a_name_survives_a_restart);
	tcase_add_test(t, stop_leaves_nothing_of_clients_whose_lease_is_over);
	tcase_add_test(t, a_file_that_is_removed_in_the_grace_period_is_freed);
	tcase_add_test(t, a_change_attribute_does_not_come_again_after_a_crash);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	signal(SIGPIPE, SIG_IGN); /* of connections to a server that is gone */
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}

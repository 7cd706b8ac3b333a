/* SPDX-License-Identifier: BSD-3-Clause */
/* test_snapshot.c - snapshots of an image that is being written: what was answered before is in them, what came after is not */
#include <check.h>
#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/protocol/server.h"
#include "tools/control.h"

/* The snapshots may take long, and the disk is small. */
enum { SNAPSHOTS = 6, WRITERS = 3, BETWEEN = 40, FILES_MAX = 2000 };

static char control[64];
static const char *options[] = {"--no-root-squash", "--snapshots", "--control", control, NULL};

/* One client that makes files "W-N", one after another, each with its own name in it, until told to stop or there are many. */
struct writer {
	pthread_t t;
	unsigned no;
	atomic_uint made; /* answered */
	atomic_bool stop;
	atomic_int failed;
};

static component4 name_of(char *buf, size_t room, unsigned writer, unsigned n)
{
	return (component4){.utf8string_len = (u_int)snprintf(buf, room, "%u-%u", writer, n), .utf8string_val = buf};
}

static int write_file(struct nfsc *c, const nfs_fh4 *dir, unsigned writer, unsigned n)
{
	nfs_argop4 op[3] = {nfsc_putfh(dir), {.argop = OP_LOOKUP}, {.argop = OP_WRITE}};
	WRITE4args *w = &op[2].nfs_argop4_u.opwrite;
	COMPOUND4res res;
	char name[32];
	int err;

	op[1].nfs_argop4_u.oplookup.objname = name_of(name, sizeof name, writer, n);
	err = nfsc_create(c, dir, name, NULL);
	if (err)
		return err;
	w->stable = FILE_SYNC4;
	w->data.data_val = name;
	w->data.data_len = (u_int)strlen(name);
	err = nfsc_call(c, op, 3, &res);
	nfsc_free(&res);
	return err;
}

static void *write_on(void *arg)
{
	struct writer *w = arg;
	struct nfsc *c = server_client();
	struct why why = {.line = ""};
	nfs_fh4 dir;
	int err = nfsc_lookup(c, "/disk", &dir, &why);

	for (unsigned n = 0; !err && n < FILES_MAX && !atomic_load(&w->stop); n++) {
		err = write_file(c, &dir, w->no, n);
		if (!err)
			atomic_store(&w->made, n + 1);
	}
	atomic_store(&w->failed, err);
	nfsc_close(c);
	return NULL;
}

static int snapshot(const char *name, struct why *why)
{
	char path[200];
	json_t *ask, *out = NULL;
	int err;

	snprintf(path, sizeof path, "%s/disk.vhd", server_dir());
	ask = json_pack("{s:s, s:s, s:s}", "do", "snapshot", "image", path, "name", name);
	err = control_ask(control, ask, &out, why);
	json_decref(ask);
	json_decref(out);
	return err;
}

/* Does @dir hold "W-N", whole? */
static bool has_file(struct nfsc *c, const char *dir, unsigned writer, unsigned n)
{
	nfs_argop4 op[2] = {{.argop = OP_PUTFH}, {.argop = OP_READ}};
	struct why why = {.line = ""};
	char name[32], path[200];
	COMPOUND4res res;
	bool ok = false;
	nfs_fh4 fh;

	name_of(name, sizeof name, writer, n);
	snprintf(path, sizeof path, "%s/%s", dir, name);
	if (nfsc_lookup(c, path, &fh, &why))
		return false;
	op[0] = nfsc_putfh(&fh);
	op[1].nfs_argop4_u.opread.count = 100;
	if (nfsc_call(c, op, 2, &res) == 0) {
		const READ4resok *r = &res.resarray.resarray_val[2].nfs_resop4_u.opread.READ4res_u.resok4;

		ok = r->data.data_len == strlen(name) && memcmp(r->data.data_val, name, strlen(name)) == 0;
	}
	nfsc_free(&res);
	return ok;
}

static unsigned before[SNAPSHOTS][WRITERS], after[SNAPSHOTS][WRITERS];

static void check_snapshot(struct nfsc *c, unsigned i)
{
	char dir[64];

	snprintf(dir, sizeof dir, "/disk/.snapshots/s%u", i);
	for (unsigned w = 0; w < WRITERS; w++) {
		for (unsigned n = 0; n < before[i][w]; n += before[i][w] / 20 + 1)
			ck_assert_msg(has_file(c, dir, w, n), "%s lacks %u-%u", dir, w, n);
		if (before[i][w])
			ck_assert(has_file(c, dir, w, before[i][w] - 1));
		/* One may have been on its way. */
		ck_assert_msg(!has_file(c, dir, w, after[i][w] + 1), "%s has %u-%u of later", dir, w, after[i][w] + 1);
	}
}

START_TEST(snapshots_hold_what_was_answered_and_nothing_of_later)
{
	struct writer w[WRITERS];
	struct why why = {.line = ""};
	struct nfsc *c = server_client();
	char name[16];

	memset(w, 0, sizeof w);
	for (unsigned i = 0; i < WRITERS; i++) {
		w[i].no = i;
		ck_assert_int_eq(pthread_create(&w[i].t, NULL, write_on, &w[i]), 0);
	}
	for (unsigned i = 0; i < SNAPSHOTS; i++) {
		unsigned start = atomic_load(&w[0].made),
			 go_on = start + BETWEEN < FILES_MAX ? start + BETWEEN : FILES_MAX;

		while (atomic_load(&w[0].made) < go_on && !atomic_load(&w[0].failed))
			usleep(1000);
		for (unsigned k = 0; k < WRITERS; k++)
			before[i][k] = atomic_load(&w[k].made);
		snprintf(name, sizeof name, "s%u", i);
		ck_assert_msg(snapshot(name, &why) == 0, "%s", why.line);
		for (unsigned k = 0; k < WRITERS; k++)
			after[i][k] = atomic_load(&w[k].made);
	}
	for (unsigned i = 0; i < WRITERS; i++) {
		atomic_store(&w[i].stop, true);
		pthread_join(w[i].t, NULL);
		ck_assert_int_eq(atomic_load(&w[i].failed), 0);
		for (unsigned n = 0; n < atomic_load(&w[i].made); n++)
			ck_assert(has_file(c, "/disk", i, n));
	}
	for (unsigned i = 0; i < SNAPSHOTS; i++)
		check_snapshot(c, i);
	nfsc_close(c);
	server_restart(); /* they are found again */
	c = server_client();
	for (unsigned i = 0; i < SNAPSHOTS; i++)
		check_snapshot(c, i);
	nfsc_close(c);
}
END_TEST

START_TEST(a_snapshot_is_only_read)
{
	struct why why = {.line = ""};
	struct nfsc *c = server_client();
	nfs_fh4 dir;

	ck_assert_int_eq(snapshot("a", &why), 0);
	ck_assert_int_eq(nfsc_lookup(c, "/disk/.snapshots/a", &dir, &why), 0);
	ck_assert_int_eq(nfsc_create(c, &dir, "x", &why), -NFS4ERR_ROFS);
	ck_assert_int_eq(nfsc_lookup(c, "/.snapshots/disk/a/hello", &dir, &why), 0);
	ck_assert_int_eq(nfsc_lookup(c, "/disk/.snapshots/b", &dir, &why), -NFS4ERR_NOENT);
	nfsc_close(c);
}
END_TEST

START_TEST(what_cannot_be_done_is_said_and_changes_nothing)
{
	static const char *const bad[] = {"",
					  "a/b",
					  "..",
					  ".hidden",
					  "-x",
					  "white space",
					  "0123456789012345678901234567890123456789012345678901234567890123456789"};
	struct why why = {.line = ""};
	struct nfsc *c = server_client();
	json_t *ask, *out = NULL;
	nfs_fh4 dir;

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		ck_assert_int_eq(snapshot(bad[i], &why), -EINVAL);
		ck_assert_ptr_nonnull(strstr(why.line, "not a name"));
	}
	ck_assert_int_eq(snapshot("once", &why), 0);
	ck_assert_int_eq(snapshot("once", &why), -EEXIST);
	ck_assert_ptr_nonnull(strstr(why.line, "exists already"));
	ask = json_pack("{s:s, s:s, s:s}", "do", "snapshot", "image", "/nowhere.vhd", "name", "x");
	ck_assert_int_eq(control_ask(control, ask, &out, &why), -ENOENT);
	json_decref(ask);
	ask = json_pack("{s:s}", "do", "dance");
	ck_assert_int_eq(control_ask(control, ask, &out, &why), -EINVAL);
	json_decref(ask);
	/* It still works. */
	ck_assert_int_eq(nfsc_lookup(c, "/disk", &dir, &why), 0);
	ck_assert_int_eq(nfsc_create(c, &dir, "x", &why), 0);
	nfsc_close(c);
}
END_TEST

START_TEST(a_server_that_dies_after_a_snapshot_goes_on)
{
	struct why why = {.line = ""};
	struct nfsc *c = server_client();
	nfs_fh4 dir;

	ck_assert_int_eq(nfsc_lookup(c, "/disk", &dir, &why), 0);
	ck_assert_int_eq(write_file(c, &dir, 9, 1), 0);
	ck_assert_int_eq(snapshot("a", &why), 0);
	ck_assert_int_eq(write_file(c, &dir, 9, 2), 0);
	server_kill();
	nfsc_close(c);
	server_again();
	c = server_client();
	ck_assert(has_file(c, "/disk", 9, 1));
	ck_assert(has_file(c, "/disk", 9, 2));
	ck_assert(has_file(c, "/disk/.snapshots/a", 9, 1));
	ck_assert(!has_file(c, "/disk/.snapshots/a", 9, 2));
	nfsc_close(c);
}
END_TEST

static void setup(void)
{
	snprintf(control, sizeof control, "/tmp/vhdnfs-control-%d.sock", (int)getpid());
	server_start(options);
}

static void teardown(void)
{
	server_stop();
	ck_assert_int_ne(access(control, F_OK), 0);
}

int main(int argc, char **argv)
{
	Suite *s = suite_create("snapshots");
	TCase *t = tcase_create("of a served image");
	SRunner *r;
	int failed;

	(void)argc;
	server_find(argv[0]);
	tcase_set_timeout(t, 200);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, snapshots_hold_what_was_answered_and_nothing_of_later);
	tcase_add_test(t, a_snapshot_is_only_read);
	tcase_add_test(t, what_cannot_be_done_is_said_and_changes_nothing);
	tcase_add_test(t, a_server_that_dies_after_a_snapshot_goes_on);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	signal(SIGPIPE, SIG_IGN); /* of a connection to a server that is gone */
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}

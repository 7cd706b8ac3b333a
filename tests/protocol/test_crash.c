/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_crash.c - the server dies in the middle of work: what it had answered is there when it is back
 *
 * A thread makes, renames and removes names as fast as it gets answers, and remembers those; the server is killed meanwhile. The one
 * operation without an answer may have happened or not.
 */
#include <check.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/protocol/server.h"

enum { NAMES = 300, ROUNDS = 6 };

static const char *const no_squash[] = {"--no-root-squash", NULL};
static struct nfsc *c;
static nfs_fh4 dir;
static char dir_buf[NFS4_FHSIZE];

static bool there[NAMES];
static int unsure[2]; /* names of the operation that had no answer, or -1 */
static atomic_uint answered;
static atomic_int ended; /* why the thread did */
static unsigned seed = 1;

static component4 name_of(unsigned i, char *buf)
{
	return (component4){.utf8string_len = (u_int)sprintf(buf, "name-%u", i), .utf8string_val = buf};
}

static void connect_it(void)
{
	struct why why = {.line = ""};
	nfs_fh4 fh;

	c = server_client();
	ck_assert_msg(nfsc_lookup(c, "/disk", &fh, &why) == 0, "%s", why.line);
	memcpy(dir_buf, fh.nfs_fh4_val, fh.nfs_fh4_len);
	dir = (nfs_fh4){.nfs_fh4_len = fh.nfs_fh4_len, .nfs_fh4_val = dir_buf};
}

static int make(unsigned i)
{
	char buf[32];

	name_of(i, buf);
	return nfsc_create(c, &dir, buf, NULL);
}

static int take_away(unsigned i)
{
	nfs_argop4 op[2] = {nfsc_putfh(&dir), {.argop = OP_REMOVE}};
	COMPOUND4res res;
	char buf[32];
	int err;

	op[1].nfs_argop4_u.opremove.target = name_of(i, buf);
	err = nfsc_call(c, op, 2, &res);
	nfsc_free(&res);
	return err;
}

static int move(unsigned from, unsigned to)
{
	nfs_argop4 op[4] = {nfsc_putfh(&dir), {.argop = OP_SAVEFH}, nfsc_putfh(&dir), {.argop = OP_RENAME}};
	COMPOUND4res res;
	char a[32], b[32];
	int err;

	op[3].nfs_argop4_u.oprename.oldname = name_of(from, a);
	op[3].nfs_argop4_u.oprename.newname = name_of(to, b);
	err = nfsc_call(c, op, 4, &res);
	nfsc_free(&res);
	return err;
}

static bool failed(int err)
{
	atomic_store(&ended, err);
	return err != 0;
}

/* Until the server is gone. */
static void *work(void *arg)
{
	(void)arg;
	for (;;) {
		unsigned a = (unsigned)rand_r(&seed) % NAMES, b = (unsigned)rand_r(&seed) % NAMES;

		unsure[0] = (int)a;
		unsure[1] = -1;
		if (!there[a]) {
			if (failed(make(a)))
				return NULL;
			there[a] = true;
		} else if (a % 2 || a == b) {
			if (failed(take_away(a)))
				return NULL;
			there[a] = false;
		} else {
			unsure[1] = (int)b;
			if (failed(move(a, b)))
				return NULL;
			there[a] = false;
			there[b] = true;
		}
		atomic_fetch_add(&answered, 1);
	}
}

static bool is_there(unsigned i)
{
	nfs_argop4 op[2] = {nfsc_putfh(&dir), {.argop = OP_LOOKUP}};
	COMPOUND4res res;
	char buf[32];
	int err;

	op[1].nfs_argop4_u.oplookup.objname = name_of(i, buf);
	err = nfsc_call(c, op, 2, &res);
	nfsc_free(&res);
	ck_assert_msg(err == 0 || err == -NFS4ERR_NOENT, "%s", nfsc_error(err));
	return !err;
}

START_TEST(what_was_answered_survives_the_server)
{
	for (unsigned round = 0; round < ROUNDS; round++) {
		unsigned enough = atomic_load(&answered) + 20 + (unsigned)rand_r(&seed) % 200;
		pthread_t t;

		atomic_store(&ended, 0);
		ck_assert_int_eq(pthread_create(&t, NULL, work, NULL), 0);
		while (atomic_load(&answered) < enough && !atomic_load(&ended))
			usleep(500);
		ck_assert_msg(!atomic_load(&ended), "%s", nfsc_error(atomic_load(&ended)));
		server_kill();
		pthread_join(t, NULL);
		nfsc_close(c);
		server_again();
		connect_it();
		for (unsigned i = 0; i < NAMES; i++) {
			bool now = is_there(i);

			ck_assert_msg(now == there[i] || (int)i == unsure[0] || (int)i == unsure[1],
				      "round %u: name %u is %sthere, but was answered otherwise", round, i,
				      now ? "" : "not ");
			there[i] = now;
		}
	}
}
END_TEST

static void setup(void)
{
	server_start(no_squash);
	connect_it();
}

static void teardown(void)
{
	nfsc_close(c);
	server_stop();
}

int main(int argc, char **argv)
{
	Suite *s = suite_create("crash");
	TCase *t = tcase_create("kill");
	SRunner *r;
	int failed;

	(void)argc;
	server_find(argv[0]);
	tcase_set_timeout(t, 300);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, what_was_answered_survives_the_server);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	signal(SIGPIPE, SIG_IGN); /* of the connection to a server that is gone */
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_many_clients.c - 4,096 clients of 256 addresses come in beside one that takes all it can get
 *
 * The attacker is a process of its own at 127.0.0.1. Before the others come it has every place for clients and all the memory for
 * replies, with owners that it invents, and every connection, with silent ones; and it goes on while they come. They are at
 * 127.1.0.0 to 127.1.15.15, 16 of them at each address, and each has a connection and a session that it keeps to the end.
 */
#include <check.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/protocol/server.h"
#include "vhd/base/cleanup.h"

enum {
	NETS = 16,
	HOSTS = 16,
	EACH = 16,
	HONEST = NETS * HOSTS * EACH,
	PLACES = 8192,    /* st_opts.max_clients, and connections */
	SPARE = 1024,     /* descriptors of the server's, and of ours */
	PATIENCE = 20000, /* ms until a reply counts as none */
};

struct who {
	int fd;
	uint64_t id;
	sessionid4 session;
	uint32_t seq, slots;
};

/* ---- one COMPOUND --------------------------------------------------------------------------------------------------------- */

/* The status, or -1: no answer. What is in *res is for nfsc_free(). */
static int compound(int fd, nfs_argop4 *op, unsigned n, COMPOUND4res *res)
{
	static uint8_t buf[16384];
	COMPOUND4args a = {.minorversion = 2, .argarray = {n, op}};
	static uint32_t xid;
	XDR x;
	int len;

	xdrmem_create(&x, (char *)buf, sizeof buf, XDR_ENCODE);
	if (!xdr_COMPOUND4args(&x, &a))
		return -1;
	raw_call(fd, ++xid, 1, buf, xdr_getpos(&x));
	len = raw_reply(fd, buf, sizeof buf, PATIENCE);
	memset(res, 0, sizeof *res);
	if (len <= 24 || raw_get32(buf) != xid || raw_get32(buf + 20) != 0)
		return -1;
	xdrmem_create(&x, (char *)buf + 24, (u_int)len - 24, XDR_DECODE);
	return xdr_COMPOUND4res(&x, res) ? (int)res->status : -1;
}

static int exchange_id(struct who *w, const char *name)
{
	nfs_argop4 op = {.argop = OP_EXCHANGE_ID};
	EXCHANGE_ID4args *a = &op.nfs_argop4_u.opexchange_id;
	COMPOUND4res res;
	int st;

	a->eia_clientowner.co_ownerid.co_ownerid_val = (char *)(uintptr_t)name;
	a->eia_clientowner.co_ownerid.co_ownerid_len = (u_int)strlen(name);
	a->eia_state_protect.spa_how = SP4_NONE;
	st = compound(w->fd, &op, 1, &res);
	if (st == NFS4_OK)
		w->id = res.resarray.resarray_val[0]
				.nfs_resop4_u.opexchange_id.EXCHANGE_ID4res_u.eir_resok4.eir_clientid;
	nfsc_free(&res);
	return st;
}

/* What Linux asks for. */
static int create_session(struct who *w)
{
	nfs_argop4 op = {.argop = OP_CREATE_SESSION};
	CREATE_SESSION4args *a = &op.nfs_argop4_u.opcreate_session;
	CREATE_SESSION4resok *ok;
	COMPOUND4res res;
	int st;

	a->csa_clientid = w->id;
	a->csa_sequence = 1;
	a->csa_fore_chan_attrs = (channel_attrs4){0, 1049620, 1049480, 7584, 8, 64, {0, NULL}};
	a->csa_back_chan_attrs = (channel_attrs4){0, 4096, 4096, 0, 2, 16, {0, NULL}};
	st = compound(w->fd, &op, 1, &res);
	if (st == NFS4_OK) {
		ok = &res.resarray.resarray_val[0].nfs_resop4_u.opcreate_session.CREATE_SESSION4res_u.csr_resok4;
		memcpy(w->session, ok->csr_sessionid, sizeof w->session);
		w->slots = ok->csr_fore_chan_attrs.ca_maxrequests;
	}
	nfsc_free(&res);
	return st;
}

/* SEQUENCE and PUTROOTFH, whose reply is to be kept. */
static int use(struct who *w)
{
	nfs_argop4 op[2] = {{.argop = OP_SEQUENCE}, {.argop = OP_PUTROOTFH}};
	SEQUENCE4args *a = &op[0].nfs_argop4_u.opsequence;
	COMPOUND4res res;
	int st;

	memcpy(a->sa_sessionid, w->session, sizeof w->session);
	a->sa_sequenceid = ++w->seq;
	a->sa_cachethis = true;
	st = compound(w->fd, op, ARRAY_LEN(op), &res);
	nfsc_free(&res);
	return st;
}

/* ---- the attacker --------------------------------------------------------------------------------------------------------- */

static void invent(struct who *w, unsigned n)
{
	char name[32];

	snprintf(name, sizeof name, "invented %u", n);
	w->seq = 0;
	if (exchange_id(w, name) == NFS4_OK && create_session(w) == NFS4_OK && n % 4 == 0)
		use(w);
}

/* Says "go" when it has everything, and never ends by itself. */
static _Noreturn void attack(int go)
{
	struct who w = {.fd = raw_connect()};

	for (unsigned i = 0; i < PLACES + 100; i++)
		invent(&w, i);
	for (unsigned i = 0; i < PLACES + 100; i++)
		raw_connect_from(INADDR_LOOPBACK);
	if (write(go, "", 1) != 1)
		_exit(1);
	for (unsigned i = PLACES + 100;; i++) {
		/* It may have lost this one to somebody else. */
		if (exchange_id(&w, "again") < 0) {
			close(w.fd);
			w.fd = raw_connect_from(INADDR_LOOPBACK);
		}
		invent(&w, i);
		close(raw_connect_from(INADDR_LOOPBACK));
		usleep(500); /* it is to take places, not the processor that the others share with it here */
	}
}

static pid_t start_attacker(void)
{
	int go[2];
	pid_t pid;
	char c;

	ck_assert_int_eq(pipe(go), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid) {
		signal(SIGPIPE, SIG_IGN);
		close(go[0]);
		attack(go[1]);
	}
	close(go[1]);
	ck_assert_int_eq(read(go[0], &c, 1), 1);
	close(go[0]);
	return pid;
}

/* ---- the others ----------------------------------------------------------------------------------------------------------- */

static struct who honest[HONEST];

static void come(unsigned i)
{
	unsigned host = i / EACH;
	struct who *w = &honest[i];
	char name[32];

	snprintf(name, sizeof name, "honest %u", i);
	w->fd = raw_connect_from(0x7f010000u | host / HOSTS << 8 | host % HOSTS);
	ck_assert_int_ge(w->fd, 0);
	ck_assert_int_eq(exchange_id(w, name), NFS4_OK);
	ck_assert_int_eq(create_session(w), NFS4_OK);
	ck_assert_uint_ge(w->slots, 1);
	ck_assert_int_eq(use(w), NFS4_OK);
}

START_TEST(thousands_of_clients_come_in_beside_one_that_takes_all_it_can_get)
{
	pid_t attacker;

	server_start(NULL);
	attacker = start_attacker();
	for (unsigned i = 0; i < HONEST; i++)
		come(i);
	/* Nobody's place was needed for another's. */
	for (unsigned i = 0; i < HONEST; i++)
		ck_assert_int_eq(use(&honest[i]), NFS4_OK);
	ck_assert_int_lt(server_rss_kib(), 400 << 10);
	kill(attacker, SIGKILL);
	waitpid(attacker, NULL, 0);
	for (unsigned i = 0; i < HONEST; i++)
		close(honest[i].fd);
	server_stop();
}
END_TEST

/* Why this cannot be tried here; NULL: it can. */
static const char *in_the_way(void)
{
	struct rlimit l;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return "so many clients take too long with a sanitizer";
#endif
	getrlimit(RLIMIT_NOFILE, &l);
	l.rlim_cur = l.rlim_max;
	return l.rlim_max < PLACES + SPARE || setrlimit(RLIMIT_NOFILE, &l) < 0 ? "too few open files are allowed"
									       : NULL;
}

int main(int argc, char **argv)
{
	const char *why = in_the_way();
	TCase *t;
	SRunner *r;
	Suite *s;
	int failed;

	(void)argc;
	if (why) {
		puts(why);
		return 77;
	}
	server_find(argv[0]);
	s = suite_create("many clients");
	t = tcase_create("all");
	tcase_set_timeout(t, 300);
	tcase_add_test(t, thousands_of_clients_come_in_beside_one_that_takes_all_it_can_get);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_rpc.c - the transport over real sockets, with a service of a few procedures
 *
 *     1 ECHO n   -> n          3 FILL n   -> n bytes of zeros
 *     2 WAIT ms  -> ms, parked 4 DROP_CONN
 *     5 SPIN n   -> n, parked, computes
 *     6 LINK n   -> n pieces of four bytes
 *     7 HOLD n   -> n, when somebody resumes it
 *     8 LATER n  -> n bytes of zeros, parked when they are there, until somebody opens the gate
 */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "server/rpc/rpc.h"
#include "vhd/base/wait.h"
#include "xdr/prims.h"

#define PROG 100003u
#define CALL_LEN 48u /* mark, header with AUTH_NONE, one word */

static struct rpc_server *srv;
static uint16_t port, port6;
static atomic_int dones, closes;
static atomic_int spinning, most_spinning, waiting, most_waiting;
static struct rpc_conn *_Atomic kept; /* a reference of the service's own */
static struct rpc_call *_Atomic held;
static atomic_bool gate;

static void nap(unsigned ms)
{
	const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

	nanosleep(&t, NULL);
}

static void count_in(atomic_int *now, atomic_int *most)
{
	int n = atomic_fetch_add(now, 1) + 1, m = atomic_load(most);

	while (n > m && !atomic_compare_exchange_weak(most, &m, n))
		;
}

static void wait_and_say_so(unsigned ms)
{
	struct waiter *w = wait_begin();

	count_in(&waiting, &most_waiting);
	nap(ms);
	atomic_fetch_sub(&waiting, 1);
	wait_end(w);
}

static void spin(unsigned n)
{
	count_in(&spinning, &most_spinning);
	for (volatile unsigned i = 0; i < n; i++)
		;
	atomic_fetch_sub(&spinning, 1);
}

/* Workers serve several calls at once: only one of them may win. */
static void keep_one(struct rpc_conn *c)
{
	struct rpc_conn *none = NULL, *mine;

	if (atomic_load(&kept))
		return;
	mine = rpc_conn_get(c);
	if (!atomic_compare_exchange_strong(&kept, &none, mine))
		rpc_conn_put(mine);
}

static void fill(struct rpc_call *call, uint32_t n)
{
	uint32_t zero = 0;

	for (uint32_t i = 0; i < n; i += 4)
		if (!xa_uint32(&call->out.x, &zero))
			break;
}

static void link_pieces(struct rpc_call *call, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (!xa_out_link(&call->out, "four", 4, NULL, NULL))
			call->accept = SYSTEM_ERR;
}

static enum rpc_verdict serve(void *arg, struct rpc_call *call)
{
	uint32_t n = 0;

	(void)arg;
	if ((call->proc == 2 || call->proc == 5) && !call->may_block)
		return RPC_PARK;
	if (call->proc == 4)
		return RPC_CLOSE;
	if (call->proc == 7 && !call->user) {
		call->user = &held;
		atomic_store(&held, call);
		return RPC_HOLD;
	}
	while (call->proc == 8 && call->user && !atomic_load(&gate))
		nap(1);
	if (call->proc == 8 && call->user)
		return RPC_REPLY;
	if (!xa_uint32(&call->in, &n)) {
		call->accept = GARBAGE_ARGS;
		return RPC_REPLY;
	}
	if (call->proc == 5)
		spin(n);
	if (call->proc == 2)
		wait_and_say_so(n);
	keep_one(call->conn);
	if (call->proc == 8) {
		call->user = &gate;
		fill(call, n);
		return RPC_PARK;
	}
	if (call->proc == 3)
		fill(call, n);
	else if (call->proc == 6)
		link_pieces(call, n);
	else if (!xa_uint32(&call->out.x, &n))
		call->accept = SYSTEM_ERR;
	return RPC_REPLY;
}

static void done(void *arg, struct rpc_call *call)
{
	(void)arg;
	(void)call;
	atomic_fetch_add(&dones, 1);
}

static void closed(void *arg, struct rpc_conn *c)
{
	(void)arg;
	(void)c;
	atomic_fetch_add(&closes, 1);
}

static void start(const struct rpc_opts *o)
{
	const struct rpc_service s = {
		.prog = PROG, .vers_low = 4, .vers_high = 4, .nproc = 9, .call = serve, .done = done, .closed = closed};
	struct why why;

	ck_assert_int_eq(rpc_server_new(&srv, o, &s, &why), 0);
	ck_assert_int_eq(rpc_server_listen(srv, "127.0.0.1:0", &port, &why), 0);
	if (rpc_server_listen(srv, "[::1]:0", &port6, &why) < 0)
		port6 = 0;
	ck_assert_int_eq(rpc_server_start(srv, &why), 0);
}

/* Everything that was taken is given back. */
static void stop(void)
{
	struct rpc_stats st;

	rpc_server_stop(srv, 5000);
	rpc_conn_put(atomic_exchange(&kept, NULL));
	rpc_server_stats(srv, &st);
	ck_assert_uint_eq(st.memory, 0);
	ck_assert_uint_eq(st.conns, 0);
	ck_assert_uint_eq(st.conns_total, (uint64_t)atomic_load(&closes));
	rpc_server_free(srv);
}

static int dial(void)
{
	struct sockaddr_in a = {
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
	return fd;
}

static void put(uint8_t *p, uint32_t v)
{
	v = htonl(v);
	memcpy(p, &v, 4);
}

static uint32_t get(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return ntohl(v);
}

static void make_call(uint8_t *p, uint32_t xid, uint32_t proc, uint32_t arg)
{
	const uint32_t w[] = {0x80000000u | (CALL_LEN - 4), xid, 0, 2, PROG, 4, proc, 0, 0, 0, 0, arg};

	for (unsigned i = 0; i < 12; i++)
		put(p + 4 * i, w[i]);
}

static void send_all(int fd, const void *p, size_t n)
{
	const uint8_t *at = p;

	while (n) {
		ssize_t k = send(fd, at, n, MSG_NOSIGNAL);

		ck_assert_int_gt(k, 0);
		at += k;
		n -= (size_t)k;
	}
}

static void call(int fd, uint32_t xid, uint32_t proc, uint32_t arg)
{
	uint8_t b[CALL_LEN];

	make_call(b, xid, proc, arg);
	send_all(fd, b, sizeof b);
}

/* false: the other side closed, or nothing came for 10 s. */
static bool recv_all(int fd, void *p, size_t n)
{
	uint8_t *at = p;

	while (n) {
		struct pollfd pf = {.fd = fd, .events = POLLIN};
		ssize_t k = poll(&pf, 1, 10000) == 1 ? recv(fd, at, n, 0) : 0;

		if (k <= 0)
			return false;
		at += k;
		n -= (size_t)k;
	}
	return true;
}

/* An accepted, successful reply with one word. */
static bool reply(int fd, uint32_t *xid, uint32_t *word)
{
	uint8_t b[32];

	if (!recv_all(fd, b, sizeof b))
		return false;
	ck_assert_uint_eq(get(b), 0x80000000u | 28);
	*xid = get(b + 4);
	ck_assert_uint_eq(get(b + 8), 1);
	ck_assert_uint_eq(get(b + 24), 0);
	*word = get(b + 28);
	return true;
}

static void echo_works(int fd)
{
	uint32_t xid, w;

	call(fd, 4711, 1, 99);
	ck_assert(reply(fd, &xid, &w));
	ck_assert_uint_eq(xid, 4711);
	ck_assert_uint_eq(w, 99);
}

static bool is_closed(int fd)
{
	uint8_t b;
	bool gone = !recv_all(fd, &b, 1);

	close(fd);
	return gone;
}

START_TEST(a_thousand_calls_in_one_write_are_answered_in_order)
{
	static uint8_t b[1000 * CALL_LEN];
	uint32_t xid, w;
	int fd;

	start(&(struct rpc_opts){0});
	fd = dial();
	for (unsigned i = 0; i < 1000; i++)
		make_call(b + i * CALL_LEN, i, 1, i * 3);
	send_all(fd, b, sizeof b);
	for (unsigned i = 0; i < 1000; i++) {
		ck_assert(reply(fd, &xid, &w));
		ck_assert_uint_eq(xid, i);
		ck_assert_uint_eq(w, i * 3);
	}
	close(fd);
	stop();
	ck_assert_int_eq(atomic_load(&dones), 1000);
}
END_TEST

/* RFC 5531 §11: a record may come in any number of fragments, and those in any number of segments. */
START_TEST(fragments_make_a_record_wherever_they_are_cut)
{
	int fd;

	start(&(struct rpc_opts){0});
	fd = dial();
	for (size_t cut = 0; cut <= CALL_LEN - 4; cut++) {
		uint8_t b[CALL_LEN], f[CALL_LEN + 4];
		uint32_t xid, w;

		make_call(b, (uint32_t)cut, 1, 5);
		put(f, (uint32_t)cut);
		memcpy(f + 4, b + 4, cut);
		put(f + 4 + cut, 0x80000000u | (uint32_t)(CALL_LEN - 4 - cut));
		memcpy(f + 8 + cut, b + 4 + cut, CALL_LEN - 4 - cut);
		send_all(fd, f, cut + 2);
		if (cut % 8 == 0)
			nap(2);
		send_all(fd, f + cut + 2, sizeof f - cut - 2);
		if (cut == CALL_LEN - 4) /* the last fragment is empty */
			ck_assert_uint_eq(get(f + 4 + cut), 0x80000000u);
		ck_assert(reply(fd, &xid, &w));
		ck_assert_uint_eq(xid, cut);
		ck_assert_uint_eq(w, 5);
	}
	close(fd);
	stop();
}
END_TEST

START_TEST(a_call_that_waits_does_not_hold_up_the_next)
{
	uint32_t xid, w;
	int fd;

	start(&(struct rpc_opts){.loops = 1});
	fd = dial();
	call(fd, 1, 2, 300);
	call(fd, 2, 2, 100);
	call(fd, 3, 1, 0);
	for (uint32_t want = 3; want; want--) {
		ck_assert(reply(fd, &xid, &w));
		ck_assert_uint_eq(xid, want);
	}
	close(fd);
	stop();
}
END_TEST

/* worker.c: what only computes gets one worker here, what waits as many as there are. */
START_TEST(few_workers_compute_and_many_wait)
{
	uint32_t xid, w;
	int fd;

	start(&(struct rpc_opts){.loops = 1, .workers = 8});
	fd = dial();
	for (unsigned i = 0; i < 40; i++)
		call(fd, i, 5, 100000);
	for (unsigned i = 0; i < 40; i++)
		ck_assert(reply(fd, &xid, &w));
	ck_assert_int_eq(atomic_load(&most_spinning), 1);
	for (unsigned i = 0; i < 24; i++)
		call(fd, i, i % 3 ? 2 : 5, i % 3 ? 100 : 1000);
	for (unsigned i = 0; i < 24; i++)
		ck_assert(reply(fd, &xid, &w));
	ck_assert_int_gt(atomic_load(&most_waiting), 4);
	close(fd);
	stop();
}
END_TEST

START_TEST(connections_may_go_while_their_calls_wait)
{
	start(&(struct rpc_opts){0});
	for (unsigned i = 0; i < 20; i++) {
		int fd = dial();

		call(fd, 1, 2, 50 + i);
		call(fd, 2, 2, 50);
		close(fd);
	}
	nap(20);
	stop();
	ck_assert_int_le(atomic_load(&dones), 40);
}
END_TEST

/* Replies that nobody reads stop the reading, and end the connection; nobody else waits. */
START_TEST(a_peer_that_does_not_read_costs_bounded_memory_and_is_closed)
{
	uint8_t b[CALL_LEN];
	struct rpc_stats st;
	uint64_t most = 0;
	int fd[8], other;

	start(&(struct rpc_opts){.max_memory = 20u << 20, .record_seconds = 1});
	for (unsigned i = 0; i < 8; i++) {
		fd[i] = dial();
		make_call(b, 1, 3, 512u << 10);
		for (unsigned k = 0; k < 200; k++)
			if (send(fd[i], b, sizeof b, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
				break;
	}
	for (unsigned i = 0; i < 120; i++) {
		rpc_server_stats(srv, &st);
		most = st.memory > most ? st.memory : most;
		if (i > 5 && st.conns == 0)
			break;
		nap(100);
	}
	ck_assert_uint_eq(st.conns, 0);
	/* What each loop has just begun may go past the limit. */
	ck_assert_uint_lt(most, 36u << 20);
	other = dial();
	echo_works(other);
	close(other);
	for (unsigned i = 0; i < 8; i++)
		close(fd[i]);
	stop();
}
END_TEST

START_TEST(idle_and_slow_connections_are_closed)
{
	int idle, slow, frag;

	start(&(struct rpc_opts){.idle_seconds = 1, .record_seconds = 1});
	idle = dial();
	echo_works(idle);
	slow = dial();
	send_all(slow, "\x80\0", 2);
	frag = dial();
	send_all(frag, "\0\0\0\1x", 5);
	ck_assert(is_closed(idle));
	ck_assert(is_closed(slow));
	ck_assert(is_closed(frag));
	stop();
}
END_TEST

START_TEST(connections_are_counted)
{
	int fd[4], more;

	start(&(struct rpc_opts){.max_conns = 4});
	for (unsigned i = 0; i < 4; i++) {
		fd[i] = dial();
		echo_works(fd[i]);
	}
	more = dial();
	ck_assert(is_closed(more));
	for (unsigned i = 0; i < 4; i++) {
		echo_works(fd[i]);
		close(fd[i]);
	}
	stop();
}
END_TEST

/* One address has all of them; so what it did not use for a while goes for the next, and then nobody is silent any more. */
START_TEST(a_silent_connection_goes_for_a_new_one)
{
	int silent[4], fd[4], more;

	start(&(struct rpc_opts){.max_conns = 4, .loops = 1});
	for (unsigned i = 0; i < 4; i++)
		silent[i] = dial();
	for (unsigned i = 0; i < 4; i++) {
		fd[i] = dial();
		echo_works(fd[i]);
	}
	for (unsigned i = 0; i < 4; i++)
		ck_assert(is_closed(silent[i]));
	more = dial();
	ck_assert(is_closed(more));
	for (unsigned i = 0; i < 4; i++) {
		echo_works(fd[i]);
		close(fd[i]);
	}
	stop();
}
END_TEST

/* A connection from 127.0.@net.@host. */
static int dial_from(unsigned net, unsigned host)
{
	struct sockaddr_in a = {
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in mine = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000000 | net << 8 | host)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&mine, sizeof mine), 0);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
	return fd;
}

/* Also busy ones; and its own next one finds no room. */
START_TEST(the_address_with_most_connections_gives_them_to_others)
{
	enum { ALL = 32, OTHERS = 14 };
	int greedy[ALL], other[OTHERS], more;
	unsigned left = 0;

	start(&(struct rpc_opts){.max_conns = ALL});
	for (unsigned i = 0; i < ALL; i++) {
		greedy[i] = dial();
		echo_works(greedy[i]);
	}
	for (unsigned i = 0; i < OTHERS; i++) {
		other[i] = dial_from(1 + i, 1);
		echo_works(other[i]);
	}
	more = dial();
	ck_assert(is_closed(more));
	for (unsigned i = 0; i < OTHERS; i++) {
		echo_works(other[i]);
		close(other[i]);
	}
	for (unsigned i = 0; i < ALL; i++) {
		uint8_t b;

		left += recv(greedy[i], &b, 1, MSG_DONTWAIT) < 0;
		close(greedy[i]);
	}
	ck_assert_uint_eq(left, ALL - OTHERS);
	stop();
}
END_TEST

/* A network weighs as much as sixteen addresses: one connection from each of a hundred is no way around that. */
START_TEST(a_network_of_many_addresses_gives_way_too)
{
	enum { ALL = 100, FEW = 4 };
	int crowd[ALL], fd[FEW];
	unsigned left = 0;

	start(&(struct rpc_opts){.max_conns = ALL});
	for (unsigned i = 0; i < ALL; i++) {
		crowd[i] = dial_from(9, 1 + i);
		echo_works(crowd[i]);
	}
	for (unsigned i = 0; i < FEW; i++) {
		fd[i] = dial_from(10, 1);
		echo_works(fd[i]);
	}
	for (unsigned i = 0; i < FEW; i++) {
		echo_works(fd[i]);
		close(fd[i]);
	}
	for (unsigned i = 0; i < ALL; i++) {
		uint8_t b;

		left += recv(crowd[i], &b, 1, MSG_DONTWAIT) < 0;
		close(crowd[i]);
	}
	ck_assert_uint_eq(left, ALL - FEW);
	stop();
}
END_TEST

/* Begun records of one address, as many and as long as it likes. */
START_TEST(an_address_that_holds_memory_does_not_keep_others_from_being_heard)
{
	enum { N = 64 };
	const struct timespec soon = {.tv_nsec = 20 * 1000 * 1000};
	int fd[N], other;

	start(&(struct rpc_opts){.max_memory = 4 << 20, .max_record = 1 << 20, .record_seconds = 3600});
	for (unsigned i = 0; i < N; i++) {
		fd[i] = dial();
		send_all(fd[i],
			 "\x80\x0f\xff\xff"
			 "begun",
			 9);
	}
	nanosleep(&soon, NULL);
	other = dial_from(1, 1);
	echo_works(other);
	/* And nobody had to go for that. */
	for (unsigned i = 0; i < N; i++) {
		uint8_t b;

		ck_assert_int_lt(recv(fd[i], &b, 1, MSG_DONTWAIT), 0);
		close(fd[i]);
	}
	close(other);
	stop();
}
END_TEST

/* They are refused then, instead of waiting, and keeping the loops from sleeping, for as long as it lasts. */
START_TEST(connections_are_refused_while_there_are_no_descriptors)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	unsigned refused = 0;
	struct rlimit few;
	int fd[40];

	start(&(struct rpc_opts){.loops = 2});
	a.sin_port = htons(port);
	for (unsigned i = 0; i < 40; i++)
		fd[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &few), 0);
	few.rlim_cur = (rlim_t)fd[39] + 4;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
	for (unsigned i = 0; i < 40; i++)
		ck_assert_int_eq(connect(fd[i], (struct sockaddr *)&a, sizeof a), 0);
	echo_works(fd[0]);
	for (unsigned i = 20; i < 40; i++)
		refused += is_closed(fd[i]);
	ck_assert_uint_eq(refused, 20);
	for (unsigned i = 0; i < 20; i++)
		close(fd[i]);
	stop();
}
END_TEST

/* ---- who is believed ------------------------------------------------------------------------------------------------------- */

/* ECHO with AUTH_SYS, uid 1000; 0 when it was answered, else why it was denied. */
static uint32_t denied_as_user(int fd)
{
	const uint32_t w[] = {0x80000000u | 64, 1, 0, 2, PROG, 4, 1, 1, 20, 0, 0, 1000, 1000, 0, 0, 0, 5};
	uint8_t b[sizeof w];

	for (unsigned i = 0; i < sizeof w / 4; i++)
		put(b + (size_t)4 * i, w[i]);
	send_all(fd, b, sizeof b);
	ck_assert(recv_all(fd, b, 24));
	if (get(b + 12) == 0) { /* accepted */
		ck_assert(recv_all(fd, b + 24, 8));
		return 0;
	}
	ck_assert_uint_eq(get(b + 16), 1); /* AUTH_ERROR */
	return get(b + 20);
}

/* A connection from a port below 1024; -1: not ours to have. */
static int dial_privileged(void)
{
	struct sockaddr_in a = {
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	for (uint16_t p = 1023; p > 600; p--) {
		struct sockaddr_in mine = {
			.sin_family = AF_INET, .sin_port = htons(p), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

		if (bind(fd, (struct sockaddr *)&mine, sizeof mine) == 0) {
			ck_assert_int_eq(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
			return fd;
		}
	}
	close(fd);
	return -1;
}

START_TEST(with_secure_ports_anybodys_port_is_believed_no_user)
{
	int fd;

	start(&(struct rpc_opts){.secure_ports = true});
	fd = dial();
	ck_assert_uint_eq(denied_as_user(fd), AUTH_TOOWEAK);
	echo_works(fd); /* without a credential it claims nothing */
	close(fd);
	fd = dial_privileged();
	if (fd >= 0) {
		ck_assert_uint_eq(denied_as_user(fd), 0);
		close(fd);
	}
	stop();
	start(&(struct rpc_opts){.loops = 1});
	fd = dial();
	ck_assert_uint_eq(denied_as_user(fd), 0);
	close(fd);
	rpc_server_stop(srv, 5000);
	rpc_conn_put(atomic_exchange(&kept, NULL));
	rpc_server_free(srv);
}
END_TEST

START_TEST(records_that_are_too_big_close_the_connection)
{
	uint8_t mark[8] = {0x80, 0x20, 0, 0};
	int fd;

	start(&(struct rpc_opts){0});
	fd = dial();
	send_all(fd, mark, sizeof mark);
	ck_assert(is_closed(fd));
	fd = dial();
	call(fd, 1, 4, 0);
	ck_assert(is_closed(fd));
	stop();
}
END_TEST

/* One call is answered, one waits, and the connection ends while both are under way: nobody else notices. */
START_TEST(a_connection_that_ends_amid_its_calls_holds_nobody_up)
{
	uint8_t b[2 * CALL_LEN + 4];
	int fd, other;

	start(&(struct rpc_opts){.loops = 1});
	make_call(b, 1, 1, 0);
	make_call(b + CALL_LEN, 2, 2, 300);
	put(b + 2 * CALL_LEN, 0x80200000u);
	fd = dial();
	send_all(fd, b, sizeof b);
	other = dial();
	echo_works(other);
	ck_assert(is_closed(fd));
	close(other);
	stop();
}
END_TEST

/* More of them than one sendmsg() takes. */
START_TEST(a_reply_may_be_in_any_number_of_pieces)
{
	static const uint32_t counts[] = {511, 512, 513, 1024, 5000};
	static uint8_t b[28 + 4 * 5000];
	int fd;

	start(&(struct rpc_opts){.loops = 1});
	fd = dial();
	for (unsigned i = 0; i < 5; i++) {
		call(fd, i, 6, counts[i]);
		ck_assert(recv_all(fd, b, 28 + 4 * counts[i]));
		ck_assert_uint_eq(get(b), 0x80000000u | (24 + 4 * counts[i]));
		for (unsigned k = 0; k < counts[i]; k++)
			ck_assert_mem_eq(b + 28 + 4 * k, "four", 4);
	}
	echo_works(fd);
	close(fd);
	stop();
}
END_TEST

/* What a fragment begins may become as long as a record: it counts as that. */
START_TEST(fragments_do_not_get_around_the_limit_of_memory)
{
	uint8_t begun[5] = {0, 0, 0, 1, 'x'}, more[5] = {0x80, 0x10, 0, 0, 'x'};
	struct rpc_stats st;
	uint64_t most = 0;
	int fd[64];

	start(&(struct rpc_opts){.loops = 1, .max_memory = 4u << 20, .record_seconds = 3});
	for (unsigned i = 0; i < 64; i++) {
		fd[i] = dial();
		send_all(fd[i], begun, sizeof begun);
	}
	nap(200);
	for (unsigned i = 0; i < 64; i++)
		send_all(fd[i], more, sizeof more);
	for (unsigned i = 0; i < 20; i++) {
		rpc_server_stats(srv, &st);
		most = st.memory > most ? st.memory : most;
		nap(10);
	}
	/* The one that goes past the limit may, and each has a record begun beside its fragments. */
	ck_assert_uint_lt(most, 12u << 20);
	for (unsigned i = 0; i < 64; i++)
		close(fd[i]);
	stop();
}
END_TEST

/* What a call has already to say, too. */
START_TEST(a_call_that_is_parked_counts_with_all_its_memory)
{
	struct rpc_stats st;
	uint8_t b[28];
	int fd;

	start(&(struct rpc_opts){.loops = 1});
	fd = dial();
	call(fd, 1, 8, 512 << 10);
	do {
		nap(1);
		rpc_server_stats(srv, &st);
	} while (!st.parked);
	rpc_server_stats(srv, &st);
	ck_assert_uint_ge(st.memory, 512 << 10);
	atomic_store(&gate, true);
	ck_assert(recv_all(fd, b, sizeof b));
	ck_assert_uint_eq(get(b), 0x80000000u | (24 + (512 << 10)));
	close(fd);
	stop();
}
END_TEST

static void *resume_later(void *arg)
{
	(void)arg;
	nap(200);
	rpc_call_resume(atomic_load(&held));
	return NULL;
}

/* The service has its call until it is resumed, however long stopping should take at most. */
START_TEST(a_call_that_is_held_is_over_before_the_server_is)
{
	pthread_t t;
	int fd;

	start(&(struct rpc_opts){.loops = 1});
	fd = dial();
	call(fd, 1, 7, 0);
	while (!atomic_load(&held))
		nap(1);
	ck_assert_int_eq(pthread_create(&t, NULL, resume_later, NULL), 0);
	rpc_server_stop(srv, 1);
	ck_assert_int_eq(atomic_load(&dones), 1);
	pthread_join(t, NULL);
	close(fd);
	stop();
}
END_TEST

START_TEST(half_closed_connections_are_let_go)
{
	struct rpc_stats st;
	int fd;

	start(&(struct rpc_opts){0});
	fd = dial();
	echo_works(fd);
	shutdown(fd, SHUT_WR);
	ck_assert(is_closed(fd));
	nap(50);
	rpc_server_stats(srv, &st);
	ck_assert_uint_eq(st.conns, 0);
	stop();
}
END_TEST

START_TEST(ipv6_is_served)
{
	struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	int fd;

	start(&(struct rpc_opts){0});
	a.sin6_port = htons(port6);
	fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (port6 && fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0)
		echo_works(fd);
	if (fd >= 0)
		close(fd);
	stop();
}
END_TEST

/* rpc.h: a reference outlives the connection; what is sent or closed through it then goes nowhere. */
START_TEST(records_of_our_own_reach_the_peer_and_end_with_it)
{
	uint8_t b[12];
	struct rpc_conn *c;
	int fd;

	start(&(struct rpc_opts){0});
	fd = dial();
	echo_works(fd);
	c = atomic_load(&kept);
	ck_assert_int_eq(rpc_conn_send(c, "backward", 8), 0);
	ck_assert(recv_all(fd, b, sizeof b));
	ck_assert_uint_eq(get(b), 0x80000008u);
	ck_assert_mem_eq(b + 4, "backward", 8);
	ck_assert_int_eq(rpc_conn_send(c, b, 8u << 20), -ENOBUFS);
	close(fd);
	for (int i = 0; i < 100 && !atomic_load(&closes); i++)
		nap(10);
	ck_assert_int_eq(rpc_conn_send(c, "backward", 8), -ENOTCONN);
	rpc_conn_close(c);
	stop();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("rpc");
	TCase *t = tcase_create("rpc");
	SRunner *r;
	int failed;

	tcase_set_timeout(t, 30);
	tcase_add_test(t, a_thousand_calls_in_one_write_are_answered_in_order);
	tcase_add_test(t, fragments_make_a_record_wherever_they_are_cut);
	tcase_add_test(t, a_call_that_waits_does_not_hold_up_the_next);
	tcase_add_test(t, few_workers_compute_and_many_wait);
	tcase_add_test(t, connections_may_go_while_their_calls_wait);
	tcase_add_test(t, a_peer_that_does_not_read_costs_bounded_memory_and_is_closed);
	tcase_add_test(t, idle_and_slow_connections_are_closed);
	tcase_add_test(t, connections_are_counted);
	tcase_add_test(t, a_silent_connection_goes_for_a_new_one);
	tcase_add_test(t, the_address_with_most_connections_gives_them_to_others);
	tcase_add_test(t, a_network_of_many_addresses_gives_way_too);
	tcase_add_test(t, an_address_that_holds_memory_does_not_keep_others_from_being_heard);
	tcase_add_test(t, connections_are_refused_while_there_are_no_descriptors);
	tcase_add_test(t, with_secure_ports_anybodys_port_is_believed_no_user);
	tcase_add_test(t, records_that_are_too_big_close_the_connection);
	tcase_add_test(t, a_connection_that_ends_amid_its_calls_holds_nobody_up);
	tcase_add_test(t, a_reply_may_be_in_any_number_of_pieces);
	tcase_add_test(t, fragments_do_not_get_around_the_limit_of_memory);
	tcase_add_test(t, a_call_that_is_parked_counts_with_all_its_memory);
	tcase_add_test(t, a_call_that_is_held_is_over_before_the_server_is);
	tcase_add_test(t, half_closed_connections_are_let_go);
	tcase_add_test(t, ipv6_is_served);
	tcase_add_test(t, records_of_our_own_reach_the_peer_and_end_with_it);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* test_hostile.c - wrong and hostile messages: the RFC's error or a closed connection, and nobody else notices */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/protocol/calls.h"
#include "tests/protocol/server.h"

static uint8_t reply[1 << 20];

static void setup(void)
{
	server_start(NULL);
}

static void teardown(void)
{
	/* Whatever happened, an honest client is served. */
	struct nfsc *n = server_client();
	struct why why;
	nfs_fh4 fh;

	ck_assert_int_eq(nfsc_lookup(n, "/disk/hello", &fh, &why), 0);
	nfsc_close(n);
	server_stop();
}

static void null_works(int fd)
{
	raw_call(fd, 77, 0, NULL, 0);
	ck_assert_int_eq(raw_reply(fd, reply, sizeof reply, 5000), 24);
	ck_assert_uint_eq(raw_get32(reply), 77);
	ck_assert_uint_eq(raw_get32(reply + 20), 0);
}

START_TEST(null_is_answered)
{
	int fd = raw_connect();

	null_works(fd);
	close(fd);
}
END_TEST

START_TEST(garbage_closes_the_connection)
{
	uint8_t junk[4096];
	int fd = raw_connect();

	for (size_t i = 0; i < sizeof junk; i++)
		junk[i] = (uint8_t)(i * 37 + 11);
	junk[0] = 0x80;
	junk[1] = junk[2] = 0;
	junk[3] = 100;
	raw_send(fd, junk, sizeof junk);
	ck_assert_int_eq(raw_reply(fd, reply, sizeof reply, 5000), 0);
	close(fd);
}
END_TEST

START_TEST(an_oversized_record_closes_the_connection)
{
	uint8_t mark[8] = {0xff, 0xff, 0xff, 0xff};
	int fd = raw_connect();

	raw_send(fd, mark, sizeof mark);
	ck_assert_int_eq(raw_reply(fd, reply, sizeof reply, 5000), 0);
	close(fd);
	ck_assert_int_lt(server_rss_kib(), 100 << 10);
}
END_TEST

START_TEST(endless_fragments_close_the_connection)
{
	uint8_t frag[4 + 65536] = {0, 1, 0, 0};
	int fd = raw_connect();

	for (int i = 0; i < 64; i++)
		raw_send(fd, frag, sizeof frag);
	ck_assert_int_eq(raw_reply(fd, reply, sizeof reply, 5000), 0);
	close(fd);
	ck_assert_int_lt(server_rss_kib(), 100 << 10);
}
END_TEST

START_TEST(a_record_in_one_byte_fragments_is_a_record)
{
	const uint32_t words[] = {5, 0, 2, 100003, 4, 0, 0, 0, 0, 0};
	uint8_t rec[40];
	int fd = raw_connect();

	for (unsigned i = 0; i < 10; i++)
		raw_put32(rec + 4 * i, words[i]);
	for (unsigned i = 0; i < sizeof rec; i++) {
		uint8_t f[5] = {i == sizeof rec - 1 ? 0x80 : 0, 0, 0, 1, rec[i]};

		raw_send(fd, f, sizeof f);
	}
	ck_assert_int_eq(raw_reply(fd, reply, sizeof reply, 5000), 24);
	ck_assert_uint_eq(raw_get32(reply), 5);
	close(fd);
}
END_TEST

static const struct {
	uint32_t rpcvers, prog, vers, proc, flavor;
	uint32_t denied, stat; /* reply_stat, then accept or reject stat */
} headers[] = {
	{3, 100003, 4, 0, 0, 1, 0}, {2, 100005, 4, 0, 0, 0, 1}, {2, 100003, 3, 0, 0, 0, 2},
	{2, 100003, 4, 2, 0, 0, 3}, {2, 100003, 4, 1, 6, 1, 1}, {2, 100003, 4, 1, 0, 0, 4},
};

/* RFC 5531 §9 */
START_TEST(wrong_headers_are_answered_as_rpc_says)
{
	const uint32_t words[] = {0x80000000u | 40,
				  9,
				  0,
				  headers[_i].rpcvers,
				  headers[_i].prog,
				  headers[_i].vers,
				  headers[_i].proc,
				  headers[_i].flavor,
				  0,
				  0,
				  0};
	uint8_t rec[44];
	int fd = raw_connect(), len;

	for (unsigned i = 0; i < 11; i++)
		raw_put32(rec + 4 * i, words[i]);
	raw_send(fd, rec, sizeof rec);
	len = raw_reply(fd, reply, sizeof reply, 5000);
	ck_assert_int_ge(len, 16);
	ck_assert_uint_eq(raw_get32(reply + 8), headers[_i].denied);
	ck_assert_uint_eq(raw_get32(reply + (headers[_i].denied ? 12 : 20)), headers[_i].stat);
	null_works(fd);
	close(fd);
}
END_TEST

/* tag, minor version, then words */
static size_t compound(uint8_t *p, uint32_t minor, const uint32_t *words, size_t n)
{
	raw_put32(p, 0);
	raw_put32(p + 4, minor);
	for (size_t i = 0; i < n; i++)
		raw_put32(p + 8 + 4 * i, words[i]);
	return 8 + 4 * n;
}

/* The status of a COMPOUND; the connection is still good afterwards. */
static uint32_t first_status(const uint32_t *words, size_t n, uint32_t minor)
{
	static uint8_t buf[8 + 4 * 10001];
	int fd = raw_connect();
	uint32_t st;

	raw_call(fd, 1, 1, buf, compound(buf, minor, words, n));
	ck_assert_int_ge(raw_reply(fd, reply, sizeof reply, 5000), 36);
	st = raw_get32(reply + 24);
	null_works(fd);
	close(fd);
	return st;
}

START_TEST(other_minor_versions_are_refused)
{
	const uint32_t none[] = {0};

	ck_assert_uint_eq(first_status(none, 1, 0), NFS4ERR_MINOR_VERS_MISMATCH);
	ck_assert_uint_eq(first_status(none, 1, 3), NFS4ERR_MINOR_VERS_MISMATCH);
	ck_assert_uint_eq(first_status(none, 1, 1), NFS4_OK);
}
END_TEST

START_TEST(operations_need_a_session)
{
	const uint32_t op[] = {1, OP_PUTROOTFH};

	ck_assert_uint_eq(first_status(op, 2, 2), NFS4ERR_OP_NOT_IN_SESSION);
}
END_TEST

START_TEST(unknown_operations_are_illegal)
{
	const uint32_t op[] = {1, 9999}, advise[] = {1, OP_IO_ADVISE};

	ck_assert_uint_eq(first_status(op, 2, 2), NFS4ERR_OP_ILLEGAL);
	/* io-advise.md R27: 4.1 does not know it. */
	ck_assert_uint_eq(first_status(advise, 2, 1), NFS4ERR_OP_ILLEGAL);
}
END_TEST

START_TEST(ten_thousand_operations_are_refused)
{
	uint32_t *w = calloc(10001, 4);

	w[0] = 10000;
	for (int i = 1; i <= 10000; i++)
		w[i] = OP_PUTROOTFH;
	ck_assert_uint_eq(first_status(w, 10001, 2), NFS4ERR_TOO_MANY_OPS);
	free(w);
}
END_TEST

START_TEST(a_slow_byte_stream_disturbs_nobody)
{
	int slow[16], fd;
	uint8_t one = 0x80;

	for (int i = 0; i < 16; i++) {
		slow[i] = raw_connect();
		raw_send(slow[i], &one, 1);
	}
	fd = raw_connect();
	for (int i = 0; i < 100; i++)
		null_works(fd);
	close(fd);
	for (int i = 0; i < 16; i++)
		close(slow[i]);
}
END_TEST

START_TEST(a_client_that_does_not_read_costs_bounded_memory)
{
	static uint8_t calls[44 * 20000];
	const uint32_t words[] = {0x80000000u | 40, 1, 0, 2, 100003, 4, 0, 0, 0, 0, 0};
	int fd = raw_connect(), other;

	for (unsigned c = 0; c < 20000; c++)
		for (unsigned i = 0; i < 11; i++)
			raw_put32(calls + c * 44 + 4 * i, words[i]);
	if (fork() == 0) { /* it blocks when the server stops reading */
		for (int i = 0; i < 50; i++)
			raw_send(fd, calls, sizeof calls);
		_exit(0);
	}
	sleep(1);
	other = raw_connect();
	null_works(other);
	close(other);
	ck_assert_int_lt(server_rss_kib(), 120 << 10);
	close(fd);
}
END_TEST

/* ---- a small cache ----------------------------------------------------------------------------------------------------- */

enum { SLOW = 12, SLOTS = 64, BIG = 40 << 20, PIECE = 1 << 20 };

static void setup_small(void)
{
	static const char *const options[] = {"--cache-size", "24M", "--no-root-squash", NULL};

	server_start(options);
}

static void make_big(nfs_fh4 *fh, char *buf)
{
	struct nfsc *n = server_client();
	char dir_buf[NFS4_FHSIZE];
	uint8_t *b = calloc(1, PIECE);
	struct open_file f;
	nfs_fh4 dir;

	ck_assert_ptr_nonnull(b);
	look_up(n, "/disk", &dir, dir_buf);
	ck_assert_int_eq(open_in(n, &dir, "hello", "o", OPEN4_SHARE_ACCESS_BOTH, 0, NULL, &f), NFS4_OK);
	for (uint64_t off = 0; off < BIG; off += PIECE)
		ck_assert_int_eq(write_at(n, &f, off, b, PIECE), NFS4_OK);
	keep_fh(fh, buf, &f.fh);
	ck_assert_int_eq(close_it(n, &f), NFS4_OK);
	nfsc_close(n);
	free(b);
}

/* Slot @slot asks for a MiB, with the anonymous stateid. */
static void ask(const struct nfsc *n, const nfs_fh4 *fh, unsigned slot, unsigned piece)
{
	uint8_t a[256] = {0}, *p = a + 4;
	const uint32_t seq[] = {nfsc_slot_seq(n, slot) + 1, slot, SLOTS - 1, 0, OP_PUTFH, fh->nfs_fh4_len};

	raw_put32(p, 2);
	raw_put32(p + 4, 3);
	raw_put32(p + 8, OP_SEQUENCE);
	memcpy(p + 12, nfsc_session(n), 16);
	p += 28;
	for (unsigned i = 0; i < 6; i++, p += 4)
		raw_put32(p, seq[i]);
	memcpy(p, fh->nfs_fh4_val, fh->nfs_fh4_len);
	p += (fh->nfs_fh4_len + 3) / 4 * 4;
	raw_put32(p, OP_READ);
	raw_put32(p + 4 + 16 + 4, piece % (BIG / PIECE) * PIECE);
	raw_put32(p + 4 + 16 + 8, PIECE);
	raw_call(nfsc_fd(n), slot, 1, a, (size_t)(p + 4 + 16 + 12 - a));
}

/* They ask for more than the cache holds, and take nothing of it: others find memory all the same. */
START_TEST(clients_that_do_not_read_leave_the_cache_to_others)
{
	struct nfs_url u = {.host = "127.0.0.1", .path = "/"};
	struct nfsc *slow[SLOW], *n;
	char buf[NFS4_FHSIZE];
	struct why why;
	nfs_fh4 fh;

	make_big(&fh, buf);
	snprintf(u.port, sizeof u.port, "%u", server_port());
	n = server_client();
	for (int i = 0; i < SLOW; i++) {
		ck_assert_int_eq(nfsc_open_slots(&slow[i], &u, SLOTS, &why), 0);
		for (unsigned k = 0; k < nfsc_slots(slow[i]); k++)
			ask(slow[i], &fh, k, (unsigned)i * 4 + k);
	}
	sleep(1); /* if that is not enough, the test says less */
	look_up(n, "/disk", &fh, buf);
	nfsc_set_impatient(n, true);
	for (int i = 0; i < 20; i++) {
		nfs_argop4 op = {.argop = OP_CREATE};
		char name[16];

		snprintf(name, sizeof name, "dir%d", i);
		op.nfs_argop4_u.opcreate.objtype.type = NF4DIR;
		op.nfs_argop4_u.opcreate.objname = name_of(name);
		ck_assert_int_eq(just(n, &fh, &op), NFS4_OK);
	}
	nfsc_close(n);
	for (int i = 0; i < SLOW; i++)
		nfsc_abandon(slow[i]);
}
END_TEST

int main(int argc, char **argv)
{
	Suite *s = suite_create("hostile");
	TCase *t = tcase_create("hostile");
	SRunner *r;
	int failed;

	(void)argc;
	server_find(argv[0]);
	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, null_is_answered);
	tcase_add_test(t, garbage_closes_the_connection);
	tcase_add_test(t, an_oversized_record_closes_the_connection);
	tcase_add_test(t, endless_fragments_close_the_connection);
	tcase_add_test(t, a_record_in_one_byte_fragments_is_a_record);
	tcase_add_loop_test(t, wrong_headers_are_answered_as_rpc_says, 0, (int)(sizeof headers / sizeof headers[0]));
	tcase_add_test(t, other_minor_versions_are_refused);
	tcase_add_test(t, operations_need_a_session);
	tcase_add_test(t, unknown_operations_are_illegal);
	tcase_add_test(t, ten_thousand_operations_are_refused);
	tcase_add_test(t, a_slow_byte_stream_disturbs_nobody);
	tcase_add_test(t, a_client_that_does_not_read_costs_bounded_memory);
	suite_add_tcase(s, t);
	t = tcase_create("small");
	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, setup_small, teardown);
	tcase_add_test(t, clients_that_do_not_read_leave_the_cache_to_others);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}

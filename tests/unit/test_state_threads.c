/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_state_threads.c - many calls at once: what must hold whatever the order is
 *
 * Most worth its while under ThreadSanitizer.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/st_fixture.h"

enum { THREADS = 4, ROUNDS = 3000, R = 1, W = 2, RW = 3 };

static struct st *s;
static struct tc client[THREADS];

static void setup(void)
{
	char name[32];

	s = tc_state(NULL);
	for (int i = 0; i < THREADS; i++) {
		snprintf(name, sizeof name, "c%d", i);
		client[i] = tc_client(s, name);
	}
}

static void teardown(void)
{
	st_free(s);
}

static void run(void *(*fn)(void *))
{
	pthread_t th[THREADS];

	for (intptr_t i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&th[i], NULL, fn, (void *)i), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(th[i], NULL);
}

/* ---- one slot, everybody sends the same requests ---------------------------------------------------------------------------- */

static atomic_uint executed;

static void *send_all(void *arg)
{
	struct st_seq q = {
		.sessionid = client[0].session, .cache_this = true, .nops = 3, .request_len = 100, .reply_min = 80};
	struct st_call call;
	nfsstat4 st;

	(void)arg;
	for (uint32_t seq = 1; seq <= ROUNDS / 3;) {
		q.seqid = seq;
		st = st_slot_begin(s, &q, &call);
		if (st == NFS4_OK) {
			atomic_fetch_add(&executed, 1);
			tc_finish(s, &call, 64, (uint8_t)seq);
			seq++;
		} else if (st == ST_REPLAY) {
			ck_assert_uint_eq(q.reply_len, 64);
			ck_assert_uint_eq(*(const uint8_t *)q.reply, (uint8_t)seq);
			st_slot_replayed(s, &call);
			seq++;
		} else if (st == NFS4ERR_SEQ_MISORDERED) {
			seq++; /* others are ahead */
		} else {
			ck_assert_int_eq(st, NFS4ERR_DELAY);
		}
	}
	return NULL;
}

/* RFC 8881 §2.10.6 */
START_TEST(every_request_of_a_slot_runs_exactly_once)
{
	executed = 0;
	run(send_all);
	ck_assert_uint_eq(executed, ROUNDS / 3);
}
END_TEST

/* ---- opens, locks and reads of a few files, from clients of their own --------------------------------------------------------- */

static atomic_int writers[4]; /* who has file i open with DENY_BOTH */

static void *open_close(void *arg)
{
	intptr_t i = (intptr_t)arg;
	struct tc *t = &client[i];
	unsigned seed = (unsigned)i;
	static const stateid4 anon;

	for (int n = 0; n < ROUNDS; n++) {
		uint64_t ino = (uint64_t)rand_r(&seed) % 4;
		struct st_fhkey key = tc_file(ino);
		stateid4 sid;
		nfsstat4 st = tc_open(t, ino, "o", RW, 3, &sid);

		if (st == NFS4_OK) {
			ck_assert_int_eq(atomic_fetch_add(&writers[ino], 1), 0);
			ck_assert_int_eq(st_io_check(s, t->cl, &key, &sid, W, NULL), NFS4_OK);
			ck_assert_int_eq(st_io_check(s, t->cl, &key, &anon, R, NULL), NFS4ERR_LOCKED);
			atomic_fetch_sub(&writers[ino], 1);
			ck_assert_int_eq(tc_close(t, ino, &sid), NFS4_OK);
		} else {
			ck_assert_int_eq(st, NFS4ERR_SHARE_DENIED);
			st_io_check(s, t->cl, &key, &anon, R, NULL);
		}
	}
	return NULL;
}

/* §9.7 */
START_TEST(exclusive_open_is_held_by_one_at_a_time)
{
	struct st_stats stats;

	run(open_close);
	st_get_stats(s, &stats);
	ck_assert_uint_eq(stats.opens, 0);
	ck_assert_uint_eq(stats.files, 0);
	ck_assert_uint_eq(stats.owners, 0);
}
END_TEST

static atomic_int holders;

static void *lock_unlock(void *arg)
{
	struct tc *t = &client[(intptr_t)arg];
	struct st_fhkey key = tc_file(9);
	struct st_denied d;
	stateid4 open, sid;

	for (int n = 0; n < ROUNDS / 3; n++) {
		struct st_lock l = {.may_wait = true,
				    .write = true,
				    .offset = 10,
				    .length = 10,
				    .new_owner = true,
				    .owner = tc_name("l")};
		nfsstat4 st;

		ck_assert_int_eq(tc_open(t, 9, "o", RW, 0, &open), NFS4_OK);
		l.sid = open;
		while ((st = st_lock(s, t->cl, &key, &l, &sid, &d)) == NFS4ERR_DENIED)
			ck_assert_uint_eq(d.owner_len, 1);
		ck_assert_int_eq(st, NFS4_OK);
		ck_assert_int_eq(atomic_fetch_add(&holders, 1), 0);
		atomic_fetch_sub(&holders, 1);
		if (n % 2) {
			l.sid = sid;
			ck_assert_int_eq(st_unlock(s, t->cl, &key, &l, &sid), NFS4_OK);
			ck_assert_int_eq(st_free_stateid(s, t->cl, &sid), NFS4_OK);
		}
		ck_assert_int_eq(tc_close(t, 9, &open), NFS4_OK);
	}
	return NULL;
}

/* §9.1 */
START_TEST(write_lock_is_held_by_one_at_a_time)
{
	run(lock_unlock);
}
END_TEST

/* ---- an export that is taken away and served again, under clients that work on it ---------------------------------------------- */

enum { FAR = 9 };

static atomic_bool taken, far_over;
static atomic_uint far_opens;

static nfsstat4 open_far(struct tc *t, uint32_t export_id, stateid4 *sid)
{
	struct st_fhkey key = {.export_id = export_id, .gen = 1, .ino = 3};
	struct st_name owner = tc_name("o");
	struct st_pin pin = tc_pin();

	pin.gone = export_id == FAR ? &taken : NULL;
	return st_open(s, t->cl, &key, &owner, NULL, RW, 0, true, &pin, sid, NULL);
}

/* The administrator: between two times somebody opens the file. */
static void *take_far_away(void)
{
	struct st_fhkey key = {.export_id = FAR, .gen = 1, .ino = 3};
	bool open = false;

	for (int round = 0; round < ROUNDS / 10; round++) {
		unsigned before = atomic_load(&far_opens);

		atomic_store(&taken, false);
		while (atomic_load(&far_opens) == before)
			sched_yield();
		atomic_store(&taken, true);
		st_export_revoke(s, FAR);
		for (int n = 0; n < 100; n++)
			open |= st_file_is_open(s, &key);
		ck_assert(!open);
	}
	atomic_store(&far_over, true);
	return NULL;
}

static void *use_far(void *arg)
{
	struct tc *t = &client[(intptr_t)arg];
	struct st_fhkey key = {.export_id = FAR, .gen = 1, .ino = 3};
	struct st_lock l = {.write = true, .length = 10, .new_owner = true, .owner = tc_name("l"), .may_wait = true};
	stateid4 sid, near;
	struct st_denied d;
	nfsstat4 st;

	if (!arg)
		return take_far_away();
	ck_assert_int_eq(open_far(t, FAR + 1, &near), NFS4_OK);
	do {
		st = open_far(t, FAR, &sid);
		if (st != NFS4_OK) {
			if (st != NFS4ERR_STALE) /* ck_assert() each time would be most of the time */
				ck_abort_msg("%d", (int)st);
			continue;
		}
		atomic_fetch_add(&far_opens, 1);
		l.sid = sid;
		st = st_lock(s, t->cl, &key, &l, &l.sid, &d);
		ck_assert(st == NFS4_OK || st == NFS4ERR_DENIED || st == NFS4ERR_ADMIN_REVOKED);
		st = st_io_check(s, t->cl, &key, &sid, W, NULL);
		ck_assert(st == NFS4_OK || st == NFS4ERR_ADMIN_REVOKED);
		st = st_close(s, t->cl, &key, &sid);
		ck_assert(st == NFS4_OK || st == NFS4ERR_ADMIN_REVOKED);
		if (st == NFS4ERR_ADMIN_REVOKED)
			ck_assert_int_eq(st_free_stateid(s, t->cl, &sid), NFS4_OK);
		ck_assert_int_eq(st_test_stateid(s, t->cl, &near), NFS4_OK);
	} while (!atomic_load(&far_over));
	return NULL;
}

/* RFC 8881 §8.5 */
START_TEST(nothing_is_open_on_an_export_that_was_taken_away)
{
	struct st_stats stats;

	atomic_store(&taken, true);
	atomic_store(&far_over, false);
	atomic_store(&far_opens, 0);
	run(use_far);
	st_get_stats(s, &stats);
	ck_assert_uint_eq(stats.opens, THREADS - 1);
	ck_assert_uint_eq(stats.files, 1);
	ck_assert_uint_eq(stats.lock_states, 0);
}
END_TEST

/* ---- clients that come, work, restart and are forgotten while others look on ------------------------------------------------------ */

static void churn_once(const char *name, uint64_t verifier, unsigned *seed)
{
	struct st_exchange x = tc_exchange(name, verifier, 0);
	struct st_create cs;
	struct tc t = {.s = s};
	struct st_call call;
	struct st_seq q;
	stateid4 sid;
	nfsstat4 st;

	if (st_exchange_id(s, &x) != NFS4_OK)
		return;
	cs = tc_create(x.clientid, x.sequenceid);
	cs.flags = CREATE_SESSION4_FLAG_CONN_BACK_CHAN;
	cs.conn = tc_conn(1 + (unsigned)rand_r(seed) % 8);
	if (st_create_session(s, &cs) != NFS4_OK)
		return;
	memcpy(t.session, cs.sessionid, sizeof t.session);
	st = tc_begin(&t, 0, true, 3, &q, &call);
	if (st == ST_REPLAY) /* two threads are one client: CREATE_SESSION was a retry, and so is this */
		st_slot_replayed(s, &call);
	if (st != NFS4_OK)
		return;
	t.cl = call.client;
	for (int i = 0; i < 4; i++) {
		uint64_t ino = (uint64_t)rand_r(seed) % 8;
		struct st_fhkey key = tc_file(ino);

		if (tc_open(&t, ino, "o", RW, (uint32_t)rand_r(seed) % 4, &sid) == NFS4_OK && rand_r(seed) % 2)
			tc_close(&t, ino, &sid);
		st_give_way(s, &key, RW, true);
	}
	if (rand_r(seed) % 4 == 0)
		st_destroy_session(s, t.session, 0);
	tc_finish(s, &call, 100, 1);
	if (rand_r(seed) % 8 == 0)
		st_conn_closed(s, cs.conn);
}

static void *churn(void *arg)
{
	unsigned seed = (unsigned)(intptr_t)arg;
	char name[32];

	for (int n = 0; n < ROUNDS / 10; n++) {
		snprintf(name, sizeof name, "churn%d", rand_r(&seed) % 3);
		churn_once(name, (uint64_t)rand_r(&seed) % 3, &seed);
		if (n % 16 == 0) {
			st_skip_time(s, 60);
			st_tick(s);
		}
		if (n % 32 == 0)
			st_export_revoke(s, tc_file(0).export_id);
		if (n % 64 == 0) {
			struct st_stats stats;

			st_get_stats(s, &stats);
		}
	}
	return NULL;
}

START_TEST(clients_can_come_and_go_while_others_run)
{
	struct st_stats stats;

	run(churn);
	st_skip_time(s, 3 * 24 * 3600);
	st_tick(s);
	st_get_stats(s, &stats);
	ck_assert_uint_eq(stats.clients, 0);
	ck_assert_uint_eq(stats.sessions, 0);
	ck_assert_uint_eq(stats.slots, 0);
	ck_assert_uint_eq(stats.replay_reserved, 0);
	ck_assert_uint_eq(stats.replay_bytes, 0);
	ck_assert_uint_eq(stats.opens, 0);
	ck_assert_uint_eq(stats.files, 0);
	ck_assert_uint_eq(stats.owners, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("state: threads");
	TCase *tc = tcase_create("all");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, every_request_of_a_slot_runs_exactly_once);
	tcase_add_test(tc, exclusive_open_is_held_by_one_at_a_time);
	tcase_add_test(tc, write_lock_is_held_by_one_at_a_time);
	tcase_add_test(tc, nothing_is_open_on_an_export_that_was_taken_away);
	tcase_add_test(tc, clients_can_come_and_go_while_others_run);
	suite_add_tcase(suite, tc);
	r = srunner_create(suite);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

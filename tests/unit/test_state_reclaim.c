/* SPDX-License-Identifier: BSD-3-Clause */
/* test_state_reclaim.c - client records, the grace period, and who may take back what after a restart */
#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "server/state/record.h"
#include "server/state/state_int.h"
#include "tests/unit/st_fixture.h"

static char dir[64], path[96];
static struct st *s;

static void start(void)
{
	const struct st_opts o = {.lease_seconds = LEASE, .records = path};

	s = tc_state(&o);
}

static void restart(void)
{
	st_free(s);
	start();
}

static void setup(void)
{
	snprintf(dir, sizeof dir, "/tmp/vhdnfs-reclaim-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/clients", dir);
	start();
}

static void teardown(void)
{
	st_free(s);
	unlink(path);
	rmdir(dir);
}

static struct st_lock lock_of(const stateid4 *open, const char *owner)
{
	return (struct st_lock){.write = true,
				.offset = 0,
				.length = 10,
				.new_owner = true,
				.sid = *open,
				.owner = tc_name(owner),
				.may_wait = true};
}

START_TEST(without_clients_on_record_there_is_no_grace_period)
{
	struct tc a;

	ck_assert(!st_in_grace(s));
	restart();
	ck_assert(!st_in_grace(s));
	a = tc_connect(s, "a");
	assert_st(st_may_claim(s, a.cl), NFS4ERR_GRACE); /* its own RECLAIM_COMPLETE is missing */
	assert_st(st_may_reclaim(s, a.cl), NFS4ERR_NO_GRACE);
	assert_st(st_reclaim_complete(s, a.cl, false), NFS4_OK);
	assert_st(st_may_claim(s, a.cl), NFS4_OK);
}
END_TEST

START_TEST(a_client_on_record_reclaims_and_ends_the_grace_period)
{
	struct tc a = tc_client(s, "a");
	stateid4 sid;

	assert_st(tc_open(&a, 5, "o", 3, 2, &sid), NFS4_OK);
	restart();
	ck_assert(st_in_grace(s));
	a = tc_connect(s, "a");
	assert_st(st_may_claim(s, a.cl), NFS4ERR_GRACE);
	assert_st(st_may_reclaim(s, a.cl), NFS4_OK);
	assert_st(tc_open(&a, 5, "o", 3, 2, &sid), NFS4_OK);
	assert_st(st_reclaim_complete(s, a.cl, false), NFS4_OK);
	ck_assert(!st_in_grace(s));
	assert_st(st_may_reclaim(s, a.cl), NFS4ERR_NO_GRACE);
	assert_st(st_may_claim(s, a.cl), NFS4_OK);
}
END_TEST

START_TEST(others_wait_until_all_are_back_or_a_lease_has_passed)
{
	struct tc a, b;

	tc_client(s, "a");
	tc_client(s, "gone");
	restart();
	a = tc_connect(s, "a");
	b = tc_connect(s, "new");
	assert_st(st_may_reclaim(s, b.cl), NFS4ERR_NO_GRACE);
	assert_st(st_reclaim_complete(s, b.cl, false), NFS4_OK);
	assert_st(st_may_claim(s, b.cl), NFS4ERR_GRACE);
	assert_st(st_lockt(s, b.cl, &(struct st_fhkey){.ino = 3}, &(struct st_lock){.length = 1}, NULL), NFS4ERR_GRACE);
	assert_st(st_io_check(s, b.cl, &(struct st_fhkey){.ino = 3}, &(stateid4){.seqid = 0}, 2, NULL), NFS4ERR_GRACE);
	assert_st(st_reclaim_complete(s, a.cl, false), NFS4_OK);
	assert_st(st_may_claim(s, a.cl), NFS4ERR_GRACE); /* one is still missing */
	st_tick(s);
	ck_assert(st_in_grace(s));
	st_skip_time(s, LEASE / 2);
	tc_renew(&a);
	tc_renew(&b);
	st_skip_time(s, LEASE / 2 + 1);
	st_tick(s);
	ck_assert(!st_in_grace(s));
	assert_st(st_may_claim(s, a.cl), NFS4_OK);
	assert_st(st_may_claim(s, b.cl), NFS4_OK);
	/* Who did not come back in time does not reclaim after the next restart either. */
	restart();
	a = tc_connect(s, "gone");
	assert_st(st_may_reclaim(s, a.cl), NFS4ERR_NO_GRACE);
}
END_TEST

/* A client that comes late, or has much, takes back all of it: pynfs REBT5. */
START_TEST(grace_period_lasts_while_somebody_reclaims_but_not_for_ever)
{
	struct tc a;
	unsigned i;

	tc_client(s, "a");
	tc_client(s, "gone");
	restart();
	st_skip_time(s, LEASE - 5);
	a = tc_connect(s, "a");
	for (i = 0; i < 10; i++) {
		assert_st(st_may_reclaim(s, a.cl), NFS4_OK);
		st_skip_time(s, 1);
		st_tick(s);
	}
	ck_assert(st_in_grace(s));
	for (; i < 10 * LEASE && st_may_reclaim(s, a.cl) == NFS4_OK; i++) {
		tc_renew(&a);
		st_skip_time(s, 1);
		st_tick(s);
	}
	ck_assert_uint_lt(i, LEASE + 10);
	ck_assert(!st_in_grace(s));
}
END_TEST

START_TEST(grace_period_ends_when_nobody_reclaims_any_more)
{
	struct tc a;

	tc_client(s, "a");
	tc_client(s, "gone");
	restart();
	st_skip_time(s, LEASE - 1);
	a = tc_connect(s, "a");
	assert_st(st_may_reclaim(s, a.cl), NFS4_OK);
	st_skip_time(s, LEASE / 2);
	st_tick(s);
	ck_assert(!st_in_grace(s));
}
END_TEST

START_TEST(grace_period_ends_when_the_last_one_says_goodbye)
{
	struct tc a, b;

	tc_client(s, "a");
	tc_client(s, "b");
	restart();
	a = tc_connect(s, "a");
	assert_st(st_reclaim_complete(s, a.cl, false), NFS4_OK);
	b = tc_connect(s, "b");
	ck_assert(st_in_grace(s));
	assert_st(st_destroy_session(s, b.session, 0), NFS4_OK);
	assert_st(st_destroy_clientid(s, b.id, NULL), NFS4_OK);
	ck_assert(!st_in_grace(s));
	st_tick(s);
	restart(); /* and it is not waited for again */
	a = tc_connect(s, "a");
	assert_st(st_reclaim_complete(s, a.cl, false), NFS4_OK);
	ck_assert(!st_in_grace(s));
}
END_TEST

/* Somebody else of the same name is somebody else. */
START_TEST(goodbye_of_another_principal_does_not_end_the_wait_for_a_client)
{
	struct st_exchange x = tc_exchange("a", 9, 5);

	tc_client(s, "a");
	restart();
	assert_st(st_exchange_id(s, &x), NFS4_OK);
	assert_st(st_destroy_clientid(s, x.clientid, NULL), NFS4_OK);
	ck_assert(st_in_grace(s));
}
END_TEST

START_TEST(who_comes_back_after_the_grace_period_starts_anew)
{
	struct tc a;

	tc_client(s, "a");
	restart();
	st_skip_time(s, LEASE + 1);
	st_tick(s);
	a = tc_connect(s, "a");
	assert_st(st_may_reclaim(s, a.cl), NFS4ERR_NO_GRACE);
	assert_st(st_may_claim(s, a.cl), NFS4ERR_GRACE);
	assert_st(st_reclaim_complete(s, a.cl, false), NFS4_OK);
	assert_st(st_may_claim(s, a.cl), NFS4_OK);
}
END_TEST

/* RFC 8881 8.4.3, the first edge condition: cut off, its lock given to another, then the server restarts. */
START_TEST(a_client_that_lost_its_lock_to_another_does_not_reclaim_it)
{
	struct tc a = tc_client(s, "a"), b = tc_client(s, "b");
	struct st_fhkey key = tc_file(5);
	struct st_denied d;
	struct st_lock l;
	stateid4 of_a, of_b, held;

	assert_st(tc_open(&a, 5, "oa", 3, 0, &of_a), NFS4_OK);
	assert_st(tc_open(&b, 5, "ob", 3, 0, &of_b), NFS4_OK);
	l = lock_of(&of_a, "la");
	assert_st(st_lock(s, a.cl, &key, &l, &held, &d), NFS4_OK);
	st_skip_time(s, LEASE / 2);
	tc_renew(&b);
	st_skip_time(s, LEASE / 2 + 10);
	tc_renew(&b);
	l = lock_of(&of_b, "lb");
	assert_st(st_lock(s, b.cl, &key, &l, &held, &d), NFS4_OK);
	restart();
	ck_assert(st_in_grace(s));
	a = tc_connect(s, "a");
	b = tc_connect(s, "b");
	assert_st(st_may_reclaim(s, a.cl), NFS4ERR_NO_GRACE);
	assert_st(st_may_reclaim(s, b.cl), NFS4_OK);
}
END_TEST

/* Its state is kept as a courtesy, so it stays on record. */
START_TEST(a_silent_client_that_nobody_misses_may_reclaim)
{
	struct tc a = tc_client(s, "a");
	stateid4 sid;

	assert_st(tc_open(&a, 5, "o", 3, 0, &sid), NFS4_OK);
	st_skip_time(s, 3 * LEASE);
	st_tick(s);
	restart();
	a = tc_connect(s, "a");
	assert_st(st_may_reclaim(s, a.cl), NFS4_OK);
}
END_TEST

/* Two that opened and locked the same file; the lease of the first is over, the second wants its lock. */
struct cut_off {
	struct tc a, b;
	struct st_fhkey key;
	stateid4 of_a, of_b, lock_a;
	struct st_lock wanted;
};

static struct cut_off cut_off(void)
{
	struct cut_off c = {.a = tc_client(s, "a"), .b = tc_client(s, "b"), .key = tc_file(5)};
	struct st_denied d;
	struct st_lock l;

	assert_st(tc_open(&c.a, 5, "oa", 3, 0, &c.of_a), NFS4_OK);
	assert_st(tc_open(&c.b, 5, "ob", 3, 0, &c.of_b), NFS4_OK);
	l = lock_of(&c.of_a, "la");
	assert_st(st_lock(s, c.a.cl, &c.key, &l, &c.lock_a, &d), NFS4_OK);
	st_skip_time(s, LEASE + 1);
	tc_renew(&c.b);
	c.wanted = lock_of(&c.of_b, "lb");
	return c;
}

static uint32_t flags_of(struct tc *t)
{
	struct st_call call;
	struct st_seq q;

	assert_st(tc_begin(t, 6, false, 2, &q, &call), NFS4_OK);
	tc_finish(s, &call, 64, 0);
	return q.status_flags;
}

/* RFC 8881 §18.46.3, §18.38, §8.2.4 */
START_TEST(who_lost_its_state_is_told_and_frees_it)
{
	struct cut_off c = cut_off();
	struct st_denied d;
	stateid4 held, anew;

	assert_st(st_lock(s, c.b.cl, &c.key, &c.wanted, &held, &d), NFS4_OK);
	ck_assert_uint_eq(flags_of(&c.b), 0);
	ck_assert_uint_eq(flags_of(&c.a), SEQ4_STATUS_EXPIRED_ALL_STATE_REVOKED);
	assert_st(st_test_stateid(s, c.a.cl, &c.of_a), NFS4ERR_EXPIRED);
	assert_st(st_test_stateid(s, c.a.cl, &c.lock_a), NFS4ERR_EXPIRED);
	assert_st(st_io_check(s, c.a.cl, &c.key, &c.of_a, 2, NULL), NFS4ERR_EXPIRED);
	assert_st(st_io_check(s, c.a.cl, &c.key, &c.lock_a, 1, NULL), NFS4ERR_EXPIRED);
	assert_st(tc_close(&c.a, 5, &c.of_a), NFS4ERR_EXPIRED);
	assert_st(st_test_stateid(s, c.b.cl, &c.of_a), NFS4ERR_BAD_STATEID);
	/* It may go on meanwhile. */
	assert_st(tc_open(&c.a, 6, "oa", 3, 0, &anew), NFS4_OK);
	ck_assert_uint_eq(flags_of(&c.a), SEQ4_STATUS_EXPIRED_SOME_STATE_REVOKED);
	assert_st(st_free_stateid(s, c.a.cl, &c.lock_a), NFS4_OK);
	ck_assert_uint_eq(flags_of(&c.a), SEQ4_STATUS_EXPIRED_SOME_STATE_REVOKED);
	assert_st(st_free_stateid(s, c.a.cl, &c.of_a), NFS4_OK);
	ck_assert_uint_eq(flags_of(&c.a), 0);
	assert_st(st_free_stateid(s, c.a.cl, &c.lock_a), NFS4ERR_BAD_STATEID);
	assert_st(tc_close(&c.a, 6, &anew), NFS4_OK);
}
END_TEST

START_TEST(who_knows_what_it_lost_is_on_record_again)
{
	struct cut_off c = cut_off();
	struct st_denied d;
	stateid4 held;
	struct tc a;

	assert_st(st_lock(s, c.b.cl, &c.key, &c.wanted, &held, &d), NFS4_OK);
	tc_renew(&c.a);
	st_tick(s);
	restart();
	a = tc_connect(s, "a");
	assert_st(st_may_reclaim(s, a.cl), NFS4ERR_NO_GRACE);
	assert_st(st_reclaim_complete(s, a.cl, false), NFS4_OK);

	st_skip_time(s, LEASE + 1);
	st_tick(s);
	c = cut_off();
	assert_st(st_lock(s, c.b.cl, &c.key, &c.wanted, &held, &d), NFS4_OK);
	tc_renew(&c.a);
	assert_st(st_free_stateid(s, c.a.cl, &c.lock_a), NFS4_OK);
	assert_st(st_free_stateid(s, c.a.cl, &c.of_a), NFS4_OK);
	st_tick(s);
	restart();
	a = tc_connect(s, "a");
	assert_st(st_may_reclaim(s, a.cl), NFS4_OK);
}
END_TEST

START_TEST(revoked_state_does_not_outlive_a_day_or_pile_up)
{
	struct cut_off c = cut_off();
	struct st_denied d;
	struct st_call call;
	struct st_seq q;
	stateid4 held;

	assert_st(st_lock(s, c.b.cl, &c.key, &c.wanted, &held, &d), NFS4_OK);
	/* It comes back, opens, is cut off again: what it lost first is forgotten. */
	tc_renew(&c.a);
	assert_st(tc_open(&c.a, 7, "oa", 3, 0, &held), NFS4_OK);
	st_skip_time(s, LEASE + 1);
	tc_renew(&c.b);
	assert_st(tc_open(&c.b, 7, "ob", 3, 2, &c.of_b), NFS4_OK);
	tc_renew(&c.a);
	assert_st(st_test_stateid(s, c.a.cl, &c.of_a), NFS4ERR_BAD_STATEID);
	assert_st(st_test_stateid(s, c.a.cl, &held), NFS4ERR_EXPIRED);
	st_skip_time(s, LEASE + 1);
	st_tick(s);
	ck_assert_uint_eq(flags_of(&c.a), SEQ4_STATUS_EXPIRED_ALL_STATE_REVOKED);
	st_skip_time(s, 25 * 3600);
	st_tick(s);
	assert_st(tc_begin(&c.a, 6, false, 2, &q, &call), NFS4ERR_BADSESSION);
}
END_TEST

START_TEST(what_has_to_wait_for_the_disk_says_so)
{
	struct cut_off c = cut_off();
	struct st_denied d;
	stateid4 held;

	c.wanted.may_wait = false;
	assert_st(st_lock(s, c.b.cl, &c.key, &c.wanted, &held, &d), ST_WAIT);
	tc_renew(&c.a); /* nothing happened to it */
	assert_st(st_test_stateid(s, c.a.cl, &c.lock_a), NFS4_OK);
	assert_st(st_lock(s, c.b.cl, &c.key, &c.wanted, &held, &d), NFS4ERR_DENIED);
}
END_TEST

/* The database as another process sees it, when the server has gone. */
static void sql(const char *text)
{
	sqlite3 *db;

	ck_assert_int_eq(sqlite3_open(path, &db), SQLITE_OK);
	ck_assert_int_eq(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
}

/* A record that cannot be changed: what a client holds is not given away. */
START_TEST(nobody_is_given_what_the_record_promises_to_another)
{
	struct cut_off c;
	struct st_denied d;
	stateid4 held;
	struct tc a;

	st_free(s);
	sql("CREATE TRIGGER stay BEFORE DELETE ON client BEGIN SELECT RAISE(FAIL, 'stuck'); END");
	start();
	c = cut_off();
	assert_st(st_lock(s, c.b.cl, &c.key, &c.wanted, &held, &d), NFS4ERR_DELAY);
	assert_st(tc_open(&c.b, 5, "ob", 3, 2, &held), NFS4ERR_DELAY);
	tc_renew(&c.a);
	assert_st(st_test_stateid(s, c.a.cl, &c.lock_a), NFS4_OK);
	/* Nor does the grace period end. */
	restart();
	st_skip_time(s, LEASE + 1);
	st_tick(s);
	ck_assert(st_in_grace(s));
	a = tc_connect(s, "a");
	assert_st(st_may_reclaim(s, a.cl), NFS4_OK);
	st_free(s);
	sql("DROP TRIGGER stay");
	start();
	st_skip_time(s, LEASE + 1);
	st_tick(s);
	ck_assert(!st_in_grace(s));
}
END_TEST

/* One that is forgotten for want of room may not reclaim what others have had since. */
START_TEST(a_client_that_made_room_is_off_the_record)
{
	const struct st_opts o = {.lease_seconds = LEASE, .records = path, .max_clients = 2};
	stateid4 sid;
	struct tc a, b;

	st_free(s);
	s = tc_state(&o);
	a = tc_client(s, "a");
	b = tc_client(s, "b");
	assert_st(tc_open(&a, 5, "o", 3, 3, &sid), NFS4_OK);
	st_skip_time(s, LEASE + 1);
	tc_renew(&b);
	tc_client(s, "c");
	assert_st(tc_open(&b, 5, "o", 3, 3, &sid), NFS4_OK);
	restart();
	a = tc_connect(s, "a");
	b = tc_connect(s, "b");
	assert_st(st_may_reclaim(s, a.cl), NFS4ERR_NO_GRACE);
	assert_st(st_may_reclaim(s, b.cl), NFS4_OK);
}
END_TEST

/* Somebody waits for the record to take from the old life of a client, while the new one is put on it. */
START_TEST(a_new_life_of_a_client_stays_on_record_when_its_old_one_is_to_lose_its_state)
{
	for (int forget = 0; forget < 2; forget++) {
		struct tc a = tc_client(s, "a");
		struct st_client *old = st_client_get(a.cl);
		struct st_exchange x = tc_exchange("a", 2, 0);
		struct st_create cs;
		struct st_call call;
		struct st_seq q;
		stateid4 sid;

		assert_st(tc_open(&a, 5, "o", 3, 0, &sid), NFS4_OK);
		st_skip_time(s, LEASE + 1);
		assert_st(st_exchange_id(s, &x), NFS4_OK);
		cs = tc_create(x.clientid, x.sequenceid);
		assert_st(st_create_session(s, &cs), NFS4_OK);
		a = (struct tc){.s = s};
		memcpy(a.session, cs.sessionid, sizeof a.session);
		assert_st(tc_begin(&a, 7, false, 2, &q, &call), NFS4_OK);
		a.cl = call.client;
		tc_finish(s, &call, 64, 0);
		assert_st(st_reclaim_complete(s, a.cl, false), NFS4_OK);
		if (forget) {
			assert_st(st_client_forget(s, old, false), NFS4_OK);
		} else {
			assert_st(st_client_revoke(s, old), NFS4_OK);
			st_client_put(old);
		}
		restart();
		ck_assert(st_in_grace(s));
		st_skip_time(s, LEASE + 1);
		st_tick(s);
	}
}
END_TEST

/* It knew what it had lost, and has lost more when it is about to be put on record again. */
START_TEST(a_client_that_loses_more_is_on_record_again_when_it_knows_that_too)
{
	struct cut_off c = cut_off();
	struct st_denied d;
	stateid4 held;
	struct tc a;

	assert_st(st_lock(s, c.b.cl, &c.key, &c.wanted, &held, &d), NFS4_OK);
	tc_renew(&c.a);
	st_client_rejoin(s, st_client_get(c.a.cl));
	assert_st(st_free_stateid(s, c.a.cl, &c.lock_a), NFS4_OK);
	assert_st(st_free_stateid(s, c.a.cl, &c.of_a), NFS4_OK);
	st_tick(s);
	restart();
	a = tc_connect(s, "a");
	assert_st(st_may_reclaim(s, a.cl), NFS4_OK);
}
END_TEST

static struct st_client *latest;

static nfsstat4 reclaims_as(uint64_t verifier, uint32_t uid)
{
	struct st_exchange x = tc_exchange("a", verifier, uid);
	struct tc t = {.s = s};
	struct st_create cs;
	struct st_call call;
	struct st_seq q;

	assert_st(st_exchange_id(s, &x), NFS4_OK);
	cs = tc_create(x.clientid, x.sequenceid);
	cs.who.uid = uid;
	assert_st(st_create_session(s, &cs), NFS4_OK);
	memcpy(t.session, cs.sessionid, sizeof t.session);
	assert_st(tc_begin(&t, 7, false, 2, &q, &call), NFS4_OK);
	latest = t.cl = call.client;
	tc_finish(s, &call, 64, 0);
	return st_may_reclaim(s, t.cl);
}

/* The RECLAIM_COMPLETE of a life that has ended meanwhile. */
START_TEST(a_late_reclaim_complete_puts_no_old_life_on_record)
{
	struct tc a = tc_connect(s, "a");
	struct st_client *old = st_client_get(a.cl);

	reclaims_as(2, 0);
	assert_st(st_reclaim_complete(s, latest, false), NFS4_OK);
	st_reclaim_complete(s, old, false);
	st_client_put(old);
	restart();
	assert_st(reclaims_as(2, 0), NFS4_OK);
}
END_TEST

/* RFC 8881 §8.4.2.1: the same user, and the same life of the client. */
START_TEST(another_user_or_another_life_of_the_client_reclaims_nothing)
{
	tc_client(s, "a"); /* verifier 1, user 0 */
	restart();
	assert_st(reclaims_as(1, 500), NFS4ERR_NO_GRACE);
	restart();
	assert_st(reclaims_as(2, 0), NFS4ERR_NO_GRACE);
	restart();
	assert_st(reclaims_as(1, 0), NFS4_OK);
}
END_TEST

START_TEST(records_of_the_first_version_are_read)
{
	struct tc a;

	tc_client(s, "b");
	st_free(s);
	unlink(path);
	sql("CREATE TABLE client (owner BLOB PRIMARY KEY) WITHOUT ROWID; PRAGMA user_version = 1;"
	    "INSERT INTO client VALUES (CAST('a' AS BLOB))");
	start();
	ck_assert(st_in_grace(s));
	a = tc_connect(s, "a");
	assert_st(st_may_reclaim(s, a.cl), NFS4_OK);
}
END_TEST

/* What an end without a word took with it has been seen by clients. */
START_TEST(change_attributes_go_on_behind_an_end_without_a_word)
{
	uint64_t base = st_change_base(s), now = (uint64_t)time(NULL) << 32;

	ck_assert_uint_le(base, now);
	ck_assert_uint_gt(base + (UINT64_C(1000) << 32), now);
	st_stopped(s);
	restart();
	ck_assert_uint_eq(st_change_base(s), base);
	restart(); /* it had not said that it stops */
	ck_assert_uint_gt(st_change_base(s), base);
	base = st_change_base(s);
	st_stopped(s);
	restart();
	ck_assert_uint_eq(st_change_base(s), base);
	/* Whoever was before and did not write it down. */
	st_free(s);
	unlink(path);
	sql("CREATE TABLE client (owner BLOB PRIMARY KEY, verifier BLOB, flavor INTEGER, uid INTEGER) WITHOUT ROWID;"
	    "PRAGMA user_version = 2");
	start();
	ck_assert_uint_ge(st_change_base(s), now);
}
END_TEST

START_TEST(the_key_of_filehandles_stays_with_the_records)
{
	struct st_fh_key first, k;
	struct stat st;

	ck_assert(st_fh_key(s, &first));
	ck_assert(!first.old); /* the records are new: nobody has handles of before */
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 077, 0);
	restart();
	ck_assert(st_fh_key(s, &k) && !k.old);
	ck_assert_mem_eq(k.key, first.key, sizeof k.key);
	/* Other records, another key. */
	st_free(s);
	unlink(path);
	start();
	ck_assert(st_fh_key(s, &k) && !k.old);
	ck_assert_mem_ne(k.key, first.key, sizeof k.key);
}
END_TEST

START_TEST(filehandles_of_before_there_was_a_key_are_valid_until_the_next_start)
{
	struct st_fh_key first, k;

	st_free(s);
	unlink(path);
	sql("CREATE TABLE client (owner BLOB PRIMARY KEY) WITHOUT ROWID; PRAGMA user_version = 1;");
	ck_assert_int_eq(chmod(path, 0644), 0);
	start();
	ck_assert(st_fh_key(s, &first) && first.old);
	restart();
	ck_assert(st_fh_key(s, &k) && !k.old);
	ck_assert_mem_eq(k.key, first.key, sizeof k.key);
}
END_TEST

START_TEST(records_of_a_newer_version_are_left_alone)
{
	const struct st_opts o = {.records = path};
	struct why why = {.line = ""};
	struct st *other;

	st_free(s);
	s = NULL;
	sql("PRAGMA journal_mode = DELETE; PRAGMA user_version = 99");
	ck_assert_int_eq(st_new(&other, &o, &why), -EUCLEAN);
	ck_assert_ptr_nonnull(strstr(why.line, "version 99"));
	sql("CREATE TABLE x (y)"); /* nobody locks it, and it is what it was */
}
END_TEST

START_TEST(a_grace_period_may_be_shorter_than_a_lease)
{
	const struct st_opts o = {.lease_seconds = LEASE, .grace_seconds = 10, .records = path};

	tc_client(s, "a");
	st_free(s);
	s = tc_state(&o);
	st_skip_time(s, 9);
	st_tick(s);
	ck_assert(st_in_grace(s));
	st_skip_time(s, 2);
	st_tick(s);
	ck_assert(!st_in_grace(s));
}
END_TEST

/* A grace period ends with one write for all, and in one second of CPU for thousands. */
START_TEST(thousands_on_record_leave_it_together)
{
	struct st_record rec = {.known = true};
	struct st_records *r;
	char name[16];

	st_free(s);
	ck_assert_int_eq(st_records_open(&r, path, NULL), 0);
	ck_assert_int_eq(st_records_begin(r), 0);
	for (int i = 0; i < 3000; i++) {
		snprintf(name, sizeof name, "c%d", i);
		rec.owner = tc_name(name);
		ck_assert_int_eq(st_records_put(r, &rec), 0);
	}
	ck_assert_int_eq(st_records_end(r, 0), 0);
	st_records_close(r);
	start();
	ck_assert(st_in_grace(s));
	st_skip_time(s, LEASE + 1);
	st_tick(s);
	ck_assert(!st_in_grace(s));
	restart();
	ck_assert(!st_in_grace(s));
}
END_TEST

START_TEST(records_that_are_something_else_are_refused)
{
	const struct st_opts o = {.records = path};
	struct why why = {.line = ""};
	struct st *other;
	FILE *f;

	ck_assert_int_eq(st_new(&other, &o, &why), -EBUSY);
	ck_assert_ptr_nonnull(strstr(why.line, path));
	st_free(s);
	s = NULL;
	f = fopen(path, "we");
	for (int i = 0; i < 1000; i++)
		fputs("no database", f);
	fclose(f);
	ck_assert_int_eq(st_new(&other, &o, &why), -EUCLEAN);
	ck_assert_ptr_nonnull(strstr(why.line, path));
	/* It was not touched. */
	f = fopen(path, "re");
	ck_assert_int_eq(fgetc(f), 'n');
	fclose(f);
	ck_assert_int_eq(st_new(&other, &(struct st_opts){.records = "/nowhere/at/all"}, &why), -EACCES);
}
END_TEST

int main(void)
{
	Suite *su = suite_create("reclaim");
	TCase *t = tcase_create("reclaim");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, without_clients_on_record_there_is_no_grace_period);
	tcase_add_test(t, a_client_on_record_reclaims_and_ends_the_grace_period);
	tcase_add_test(t, others_wait_until_all_are_back_or_a_lease_has_passed);
	tcase_add_test(t, grace_period_lasts_while_somebody_reclaims_but_not_for_ever);
	tcase_add_test(t, grace_period_ends_when_nobody_reclaims_any_more);
	tcase_add_test(t, grace_period_ends_when_the_last_one_says_goodbye);
	tcase_add_test(t, goodbye_of_another_principal_does_not_end_the_wait_for_a_client);
	tcase_add_test(t, who_comes_back_after_the_grace_period_starts_anew);
	tcase_add_test(t, a_client_that_lost_its_lock_to_another_does_not_reclaim_it);
	tcase_add_test(t, a_silent_client_that_nobody_misses_may_reclaim);
	tcase_add_test(t, who_lost_its_state_is_told_and_frees_it);
	tcase_add_test(t, who_knows_what_it_lost_is_on_record_again);
	tcase_add_test(t, revoked_state_does_not_outlive_a_day_or_pile_up);
	tcase_add_test(t, what_has_to_wait_for_the_disk_says_so);
	tcase_add_test(t, nobody_is_given_what_the_record_promises_to_another);
	tcase_add_test(t, a_client_that_made_room_is_off_the_record);
	tcase_add_test(t, a_new_life_of_a_client_stays_on_record_when_its_old_one_is_to_lose_its_state);
	tcase_add_test(t, a_client_that_loses_more_is_on_record_again_when_it_knows_that_too);
	tcase_add_test(t, a_late_reclaim_complete_puts_no_old_life_on_record);
	tcase_add_test(t, another_user_or_another_life_of_the_client_reclaims_nothing);
	tcase_add_test(t, records_of_the_first_version_are_read);
	tcase_add_test(t, change_attributes_go_on_behind_an_end_without_a_word);
	tcase_add_test(t, the_key_of_filehandles_stays_with_the_records);
	tcase_add_test(t, filehandles_of_before_there_was_a_key_are_valid_until_the_next_start);
	tcase_add_test(t, records_of_a_newer_version_are_left_alone);
	tcase_add_test(t, a_grace_period_may_be_shorter_than_a_lease);
	tcase_add_test(t, thousands_on_record_leave_it_together);
	tcase_add_test(t, records_that_are_something_else_are_refused);
	suite_add_tcase(su, t);
	r = srunner_create(su);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* test_state_lock.c - byte-range locks: RFC 8881 §9.1 to §9.6, §18.10 to §18.12, §18.38 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/st_fixture.h"

enum { R = OPEN4_SHARE_ACCESS_READ, W = OPEN4_SHARE_ACCESS_WRITE, RW = OPEN4_SHARE_ACCESS_BOTH };

#define TO_END UINT64_MAX

static struct st *s;
static struct tc a, b;
static stateid4 open_a, open_b; /* of file 1, read-write */
static struct st_denied denied;

static void setup(void)
{
	s = tc_state(NULL);
	a = tc_client(s, "a");
	b = tc_client(s, "b");
	assert_st(tc_open(&a, 1, "oa", RW, 0, &open_a), NFS4_OK);
	assert_st(tc_open(&b, 1, "ob", RW, 0, &open_b), NFS4_OK);
}

static void teardown(void)
{
	st_free(s);
}

static nfsstat4 lock_new(struct tc *t, const stateid4 *open, const char *owner, bool write, uint64_t off, uint64_t len,
			 stateid4 *out)
{
	struct st_fhkey key = tc_file(1);
	struct st_lock l = {.may_wait = true,
			    .write = write,
			    .offset = off,
			    .length = len,
			    .new_owner = true,
			    .sid = *open,
			    .owner = tc_name(owner)};

	return st_lock(s, t->cl, &key, &l, out, &denied);
}

static nfsstat4 lock_more(struct tc *t, const stateid4 *sid, bool write, uint64_t off, uint64_t len, stateid4 *out)
{
	struct st_fhkey key = tc_file(1);
	struct st_lock l = {.write = write, .offset = off, .length = len, .sid = *sid, .may_wait = true};

	return st_lock(s, t->cl, &key, &l, out, &denied);
}

static nfsstat4 test_lock(struct tc *t, const char *owner, bool write, uint64_t off, uint64_t len)
{
	struct st_fhkey key = tc_file(1);
	struct st_lock l = {.write = write, .offset = off, .length = len, .owner = tc_name(owner)};

	return st_lockt(s, t->cl, &key, &l, &denied);
}

static nfsstat4 unlock(struct tc *t, const stateid4 *sid, uint64_t off, uint64_t len, stateid4 *out)
{
	struct st_fhkey key = tc_file(1);
	struct st_lock l = {.offset = off, .length = len, .sid = *sid};

	return st_unlock(s, t->cl, &key, &l, out);
}

static uint64_t ranges(void)
{
	struct st_stats stats;

	st_get_stats(s, &stats);
	return stats.ranges;
}

/* §18.10.3 */
START_TEST(lock_of_a_new_owner_has_a_stateid_of_its_own_whose_seqid_grows)
{
	stateid4 sid, next;

	assert_st(lock_new(&a, &open_a, "l", true, 0, 10, &sid), NFS4_OK);
	ck_assert_uint_eq(sid.seqid, 1);
	ck_assert_mem_ne(sid.other, open_a.other, sizeof sid.other);
	assert_st(lock_more(&a, &sid, true, 10, 10, &next), NFS4_OK);
	ck_assert_uint_eq(next.seqid, 2);
	ck_assert_mem_eq(sid.other, next.other, sizeof sid.other);
	assert_st(lock_more(&a, &sid, true, 20, 10, &next), NFS4ERR_OLD_STATEID);
	assert_st(unlock(&a, &next, 0, 20, &next), NFS4_OK);
	ck_assert_uint_eq(next.seqid, 3);
	ck_assert_uint_eq(ranges(), 0);
}
END_TEST

/* §18.10.3: sending the open-to-lock form again, as after a lost reply, finds the owner that is there */
START_TEST(known_lock_owner_may_come_by_its_open_again)
{
	stateid4 sid, again;

	assert_st(lock_new(&a, &open_a, "l", true, 0, 10, &sid), NFS4_OK);
	assert_st(lock_new(&a, &open_a, "l", true, 0, 10, &again), NFS4_OK);
	ck_assert_mem_eq(sid.other, again.other, sizeof sid.other);
	ck_assert_uint_eq(again.seqid, 2);
	ck_assert_uint_eq(ranges(), 1);
}
END_TEST

/* §18.10.4 LOCK4denied */
START_TEST(denied_lock_names_who_holds_what_and_leaves_no_state)
{
	struct st_stats stats;
	stateid4 sid, none;

	assert_st(lock_new(&a, &open_a, "holder", true, 100, 50, &sid), NFS4_OK);
	assert_st(lock_new(&b, &open_b, "other", false, 149, 10, &none), NFS4ERR_DENIED);
	ck_assert_uint_eq(denied.offset, 100);
	ck_assert_uint_eq(denied.length, 50);
	ck_assert(denied.write);
	ck_assert_uint_ne(denied.clientid, a.id); /* it is asked for sessions with */
	ck_assert_uint_eq(denied.owner_len, 6);
	ck_assert_mem_eq(denied.owner, "holder", 6);
	st_get_stats(s, &stats);
	ck_assert_uint_eq(stats.lock_states, 1);
	ck_assert_uint_eq(stats.owners, 3);
	assert_st(lock_new(&b, &open_b, "other", false, 150, 10, &none), NFS4_OK);
}
END_TEST

START_TEST(lock_to_the_end_of_file_reaches_the_last_byte_there_can_be)
{
	stateid4 sid, none;

	assert_st(lock_new(&a, &open_a, "l", true, 5, TO_END, &sid), NFS4_OK);
	assert_st(lock_new(&b, &open_b, "m", true, UINT64_MAX, TO_END, &none), NFS4ERR_DENIED);
	ck_assert_uint_eq(denied.offset, 5);
	ck_assert_uint_eq(denied.length, TO_END);
	assert_st(lock_new(&b, &open_b, "m", true, 0, 5, &none), NFS4_OK);
	assert_st(unlock(&a, &sid, UINT64_MAX, TO_END, &sid), NFS4_OK);
	assert_st(lock_more(&b, &none, true, UINT64_MAX, TO_END, &none), NFS4_OK);
}
END_TEST

/* §18.10.3: zero length, wrapping end */
START_TEST(ranges_that_are_empty_or_wrap_are_invalid)
{
	const struct {
		uint64_t off, len;
		nfsstat4 st;
	} cases[] = {
		{0, 0, NFS4ERR_INVAL},
		{UINT64_MAX, 0, NFS4ERR_INVAL},
		{UINT64_MAX, 1, NFS4ERR_INVAL},
		{UINT64_MAX - 1, 2, NFS4ERR_INVAL},
		{2, UINT64_MAX - 1, NFS4ERR_INVAL},
		{1, UINT64_MAX - 1, NFS4_OK},
		{0, UINT64_MAX - 1, NFS4_OK},
		{UINT64_MAX - 1, 1, NFS4_OK},
		{UINT64_MAX, TO_END, NFS4_OK},
		{0, TO_END, NFS4_OK},
	};
	stateid4 sid, out;

	assert_st(lock_new(&a, &open_a, "l", true, 0, TO_END, &sid), NFS4_OK);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		assert_st(lock_more(&a, &sid, true, cases[i].off, cases[i].len, &out), cases[i].st);
		if (cases[i].st == NFS4_OK)
			sid = out;
		assert_st(test_lock(&a, "l", true, cases[i].off, cases[i].len), cases[i].st);
		assert_st(unlock(&a, &sid, cases[i].off, cases[i].len, &out), cases[i].st);
		if (cases[i].st == NFS4_OK)
			sid = out;
	}
}
END_TEST

/* §9.1.2, §18.10.3 */
START_TEST(lock_needs_the_access_of_its_open)
{
	stateid4 ro, wo, sid;

	assert_st(tc_close(&a, 1, &open_a), NFS4_OK);
	assert_st(tc_open(&a, 1, "ro", R, 0, &ro), NFS4_OK);
	assert_st(tc_open(&a, 1, "wo", W, 0, &wo), NFS4_OK);
	assert_st(lock_new(&a, &ro, "l", true, 0, 1, &sid), NFS4ERR_OPENMODE);
	assert_st(lock_new(&a, &wo, "m", false, 0, 1, &sid), NFS4ERR_OPENMODE);
	assert_st(lock_new(&a, &ro, "l", false, 0, 1, &sid), NFS4_OK);
	assert_st(lock_more(&a, &sid, true, 0, 1, &sid), NFS4ERR_OPENMODE);
	assert_st(lock_new(&a, &wo, "m", true, 1, 1, &sid), NFS4_OK);
}
END_TEST

START_TEST(lock_goes_by_the_right_kind_of_stateid)
{
	stateid4 sid, out;

	assert_st(lock_new(&a, &open_a, "l", true, 0, 1, &sid), NFS4_OK);
	assert_st(lock_more(&a, &open_a, true, 0, 1, &out), NFS4ERR_BAD_STATEID);
	assert_st(lock_new(&a, &sid, "l", true, 0, 1, &out), NFS4ERR_BAD_STATEID);
	assert_st(unlock(&a, &open_a, 0, 1, &out), NFS4ERR_BAD_STATEID);
	assert_st(lock_more(&b, &sid, true, 0, 1, &out), NFS4ERR_BAD_STATEID);
	assert_st(tc_close(&a, 1, &sid), NFS4ERR_BAD_STATEID);
}
END_TEST

/* §8.2: a lock's stateid carries the access of the open it belongs to */
START_TEST(reading_and_writing_under_a_lock_stateid_follows_its_open)
{
	struct st_fhkey key = tc_file(1);
	stateid4 ro, sid;

	assert_st(tc_open(&a, 1, "ro", R, 0, &ro), NFS4_OK);
	assert_st(lock_new(&a, &ro, "l", false, 0, 1, &sid), NFS4_OK);
	assert_st(st_io_check(s, a.cl, &key, &sid, R, NULL), NFS4_OK);
	assert_st(st_io_check(s, a.cl, &key, &sid, W, NULL), NFS4ERR_OPENMODE);
	assert_st(tc_open(&a, 1, "ro", W, 0, &ro), NFS4_OK);
	assert_st(st_io_check(s, a.cl, &key, &sid, W, NULL), NFS4_OK);
	assert_st(st_io_check(s, b.cl, &key, &sid, R, NULL), NFS4ERR_BAD_STATEID);
}
END_TEST

/* §18.2.3: the locks of an open go with it */
START_TEST(close_releases_the_locks_taken_under_the_open)
{
	stateid4 sid, other;

	assert_st(lock_new(&a, &open_a, "l", true, 0, TO_END, &sid), NFS4_OK);
	assert_st(lock_new(&b, &open_b, "m", true, 0, 1, &other), NFS4ERR_DENIED);
	assert_st(tc_close(&a, 1, &open_a), NFS4_OK);
	assert_st(lock_new(&b, &open_b, "m", true, 0, 1, &other), NFS4_OK);
	assert_st(unlock(&a, &sid, 0, 1, &sid), NFS4ERR_BAD_STATEID);
}
END_TEST

/* §18.38.3 */
START_TEST(free_stateid_needs_all_ranges_unlocked)
{
	struct st_stats stats;
	stateid4 sid;

	assert_st(lock_new(&a, &open_a, "l", true, 0, 10, &sid), NFS4_OK);
	assert_st(st_free_stateid(s, a.cl, &sid), NFS4ERR_LOCKS_HELD);
	assert_st(unlock(&a, &sid, 0, 10, &sid), NFS4_OK);
	assert_st(st_test_stateid(s, a.cl, &sid), NFS4_OK);
	assert_st(st_free_stateid(s, a.cl, &sid), NFS4_OK);
	assert_st(st_test_stateid(s, a.cl, &sid), NFS4ERR_BAD_STATEID);
	assert_st(st_free_stateid(s, a.cl, &sid), NFS4ERR_BAD_STATEID);
	st_get_stats(s, &stats);
	ck_assert_uint_eq(stats.lock_states, 0);
	assert_st(lock_new(&a, &open_a, "l", true, 0, 10, &sid), NFS4_OK);
}
END_TEST

/* §18.11.4 */
START_TEST(lockt_sees_others_but_not_the_owner_itself)
{
	stateid4 sid;

	assert_st(lock_new(&a, &open_a, "l", false, 10, 10, &sid), NFS4_OK);
	assert_st(test_lock(&a, "l", true, 0, 100), NFS4_OK);
	assert_st(test_lock(&a, "m", true, 0, 100), NFS4ERR_DENIED);
	assert_st(test_lock(&b, "l", true, 0, 100), NFS4ERR_DENIED);
	ck_assert_uint_eq(denied.offset, 10);
	assert_st(test_lock(&b, "l", false, 0, 100), NFS4_OK);
	assert_st(test_lock(&b, "l", true, 20, 100), NFS4_OK);
}
END_TEST

START_TEST(lockt_needs_no_open)
{
	stateid4 sid;

	assert_st(tc_close(&b, 1, &open_b), NFS4_OK);
	assert_st(lock_new(&a, &open_a, "l", true, 10, 10, &sid), NFS4_OK);
	assert_st(test_lock(&b, "x", true, 0, 100), NFS4ERR_DENIED);
}
END_TEST

START_TEST(unlocking_what_is_not_locked_is_no_error)
{
	stateid4 sid;

	assert_st(lock_new(&a, &open_a, "l", true, 10, 10, &sid), NFS4_OK);
	assert_st(unlock(&a, &sid, 100, 10, &sid), NFS4_OK);
	assert_st(unlock(&a, &sid, 0, TO_END, &sid), NFS4_OK);
	assert_st(unlock(&a, &sid, 0, TO_END, &sid), NFS4_OK);
	ck_assert_uint_eq(ranges(), 0);
}
END_TEST

/* §9.3, §9.4 */
START_TEST(neighbours_merge_and_middles_split)
{
	stateid4 sid;

	assert_st(lock_new(&a, &open_a, "l", true, 0, 10, &sid), NFS4_OK);
	assert_st(lock_more(&a, &sid, true, 20, 10, &sid), NFS4_OK);
	ck_assert_uint_eq(ranges(), 2);
	assert_st(lock_more(&a, &sid, true, 10, 10, &sid), NFS4_OK);
	ck_assert_uint_eq(ranges(), 1);
	assert_st(lock_more(&a, &sid, false, 12, 3, &sid), NFS4_OK);
	ck_assert_uint_eq(ranges(), 3);
	assert_st(lock_new(&b, &open_b, "m", false, 12, 3, &open_b), NFS4_OK);
	assert_st(lock_more(&a, &sid, true, 12, 1, &sid), NFS4ERR_DENIED);
	assert_st(unlock(&a, &sid, 13, 1, &sid), NFS4_OK);
	ck_assert_uint_eq(ranges(), 5);
}
END_TEST

/* §8.4.3 */
START_TEST(lock_of_a_silent_client_gives_way)
{
	stateid4 sid, mine;

	assert_st(lock_new(&a, &open_a, "l", true, 0, TO_END, &sid), NFS4_OK);
	st_skip_time(s, LEASE + 1);
	tc_renew(&b);
	assert_st(lock_new(&b, &open_b, "m", true, 0, 1, &mine), NFS4_OK);
	ck_assert_uint_eq(ranges(), 1);
}
END_TEST

START_TEST(lockt_counts_no_silent_client)
{
	stateid4 sid;

	assert_st(lock_new(&a, &open_a, "l", true, 0, TO_END, &sid), NFS4_OK);
	st_skip_time(s, LEASE + 1);
	tc_renew(&b);
	assert_st(test_lock(&b, "m", true, 0, 1), NFS4_OK);
}
END_TEST

START_TEST(locked_ranges_of_a_client_are_bounded)
{
	const struct st_opts o = {.max_ranges = 50};
	struct st_fhkey key = tc_file(1);
	struct st *small = tc_state(&o);
	struct tc t = tc_client(small, "t");
	struct st_stats stats;
	nfsstat4 st = NFS4_OK;
	stateid4 open, sid;
	struct st_lock l = {.write = true, .length = 1, .new_owner = true, .owner = tc_name("l")};

	assert_st(tc_open(&t, 1, "o", RW, 0, &open), NFS4_OK);
	l.sid = open;
	for (int i = 0; i < 1000 && st == NFS4_OK; i++) {
		l.offset = (uint64_t)i * 2;
		st = st_lock(small, t.cl, &key, &l, &sid, &denied);
	}
	assert_st(st, NFS4ERR_SERVERFAULT);
	st_get_stats(small, &stats);
	ck_assert_uint_le(stats.ranges, 50);
	st_free(small);
}
END_TEST

/* Taking out of the middle leaves two ranges for one: that is bounded as well, and everything else about unlocking is not. */
START_TEST(unlocking_makes_no_more_ranges_than_a_client_may_have)
{
	const struct st_opts o = {.max_ranges = 8};
	struct st_fhkey key = tc_file(1);
	struct st *small = tc_state(&o);
	struct tc t = tc_client(small, "t");
	struct st_stats stats;
	nfsstat4 st = NFS4_OK;
	stateid4 open, sid;
	struct st_lock l = {.write = true, .length = TO_END, .new_owner = true, .owner = tc_name("l")};

	assert_st(tc_open(&t, 1, "o", RW, 0, &open), NFS4_OK);
	l.sid = open;
	assert_st(st_lock(small, t.cl, &key, &l, &sid, &denied), NFS4_OK);
	l.length = 1;
	for (int i = 0; i < 100 && st == NFS4_OK; i++) {
		l.sid = sid;
		l.offset = (uint64_t)i * 2 + 1;
		st = st_unlock(small, t.cl, &key, &l, &sid);
	}
	assert_st(st, NFS4ERR_LOCK_RANGE);
	st_get_stats(small, &stats);
	ck_assert_uint_eq(stats.ranges, 8);
	/* What splits nothing is unlocked; then there is room for one more. */
	l.offset = 0;
	assert_st(st_unlock(small, t.cl, &key, &l, &sid), NFS4_OK);
	l.sid = sid;
	l.offset = 100;
	assert_st(st_unlock(small, t.cl, &key, &l, &sid), NFS4_OK);
	l.sid = sid;
	l.offset = 0;
	l.length = TO_END;
	assert_st(st_unlock(small, t.cl, &key, &l, &sid), NFS4_OK);
	st_get_stats(small, &stats);
	ck_assert_uint_eq(stats.ranges, 0);
	st_free(small);
}
END_TEST

/* ---- against a model: who holds each of 64 bytes, and how ------------------------------------------------------------------------ */

enum { BYTES = 64, OWNERS = 4, ROUNDS = 30000 };

struct model {
	uint8_t held[OWNERS][BYTES]; /* 0 no, 1 read, 2 write */
	bool has[OWNERS];
	stateid4 sid[OWNERS];
};

static bool model_conflict(const struct model *m, int self, bool write, unsigned first, unsigned last)
{
	for (int o = 0; o < OWNERS; o++) {
		for (unsigned i = first; o != self && i <= last; i++) {
			if (m->held[o][i] == 2 || (m->held[o][i] == 1 && write))
				return true;
		}
	}
	return false;
}

/* Is the range that was named really held, and really in the way? */
static void check_denied(const struct model *m, int self, bool write, unsigned first, unsigned last)
{
	int o = denied.owner[0] - '0';
	uint64_t end = denied.length == TO_END ? BYTES - 1 : denied.offset + denied.length - 1;

	ck_assert_int_ne(o, self);
	ck_assert(denied.offset <= last && end >= first);
	ck_assert(write || denied.write);
	for (uint64_t i = denied.offset; i <= end; i++)
		ck_assert_uint_eq(m->held[o][i], denied.write ? 2 : 1);
	/* as long as it can be: merged */
	if (denied.offset)
		ck_assert_uint_ne(m->held[o][denied.offset - 1], denied.write ? 2 : 1);
	if (end + 1 < BYTES)
		ck_assert_uint_ne(m->held[o][end + 1], denied.write ? 2 : 1);
}

static uint64_t model_ranges(const struct model *m)
{
	uint64_t n = 0;

	for (int o = 0; o < OWNERS; o++) {
		for (int i = 0; i < BYTES; i++)
			n += m->held[o][i] && (!i || m->held[o][i] != m->held[o][i - 1]);
	}
	return n;
}

static void model_step(struct model *m, unsigned *seed)
{
	int o = rand_r(seed) % OWNERS, what = rand_r(seed) % 8;
	unsigned first = (unsigned)rand_r(seed) % BYTES, last = first + (unsigned)rand_r(seed) % 16;
	struct tc *t = o % 2 ? &b : &a;
	bool write = rand_r(seed) % 2, conflict;
	const char name[] = {(char)('0' + o), 0};
	uint64_t len = last - first + 1;
	nfsstat4 st;

	/* The last of our bytes stands for everything up to the end. */
	if (last >= BYTES - 1) {
		last = BYTES - 1;
		len = TO_END;
	}
	if (what < 3) {
		if (!m->has[o])
			return;
		assert_st(unlock(t, &m->sid[o], first, len, &m->sid[o]), NFS4_OK);
		memset(&m->held[o][first], 0, last - first + 1);
		return;
	}
	conflict = model_conflict(m, o, write, first, last);
	if (what == 3) {
		st = test_lock(t, name, write, first, len);
	} else {
		st = m->has[o] ? lock_more(t, &m->sid[o], write, first, len, &m->sid[o])
			       : lock_new(t, t == &a ? &open_a : &open_b, name, write, first, len, &m->sid[o]);
	}
	assert_st(st, conflict ? NFS4ERR_DENIED : NFS4_OK);
	if (conflict) {
		check_denied(m, o, write, first, last);
	} else if (what != 3) {
		m->has[o] = true;
		memset(&m->held[o][first], write ? 2 : 1, last - first + 1);
	}
}

START_TEST(random_locks_agree_with_an_array_of_bytes)
{
	static struct model m;
	unsigned seed = 1;

	for (int i = 0; i < ROUNDS; i++) {
		model_step(&m, &seed);
		ck_assert_uint_eq(ranges(), model_ranges(&m));
	}
	assert_st(tc_close(&a, 1, &open_a), NFS4_OK);
	assert_st(tc_close(&b, 1, &open_b), NFS4_OK);
	ck_assert_uint_eq(ranges(), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("state: locks");
	TCase *tc = tcase_create("all");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, lock_of_a_new_owner_has_a_stateid_of_its_own_whose_seqid_grows);
	tcase_add_test(tc, known_lock_owner_may_come_by_its_open_again);
	tcase_add_test(tc, denied_lock_names_who_holds_what_and_leaves_no_state);
	tcase_add_test(tc, lock_to_the_end_of_file_reaches_the_last_byte_there_can_be);
	tcase_add_test(tc, ranges_that_are_empty_or_wrap_are_invalid);
	tcase_add_test(tc, lock_needs_the_access_of_its_open);
	tcase_add_test(tc, lock_goes_by_the_right_kind_of_stateid);
	tcase_add_test(tc, reading_and_writing_under_a_lock_stateid_follows_its_open);
	tcase_add_test(tc, close_releases_the_locks_taken_under_the_open);
	tcase_add_test(tc, free_stateid_needs_all_ranges_unlocked);
	tcase_add_test(tc, lockt_sees_others_but_not_the_owner_itself);
	tcase_add_test(tc, lockt_needs_no_open);
	tcase_add_test(tc, unlocking_what_is_not_locked_is_no_error);
	tcase_add_test(tc, neighbours_merge_and_middles_split);
	tcase_add_test(tc, lock_of_a_silent_client_gives_way);
	tcase_add_test(tc, lockt_counts_no_silent_client);
	tcase_add_test(tc, locked_ranges_of_a_client_are_bounded);
	tcase_add_test(tc, unlocking_makes_no_more_ranges_than_a_client_may_have);
	tcase_add_test(tc, random_locks_agree_with_an_array_of_bytes);
	suite_add_tcase(suite, tc);
	r = srunner_create(suite);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* test_state_open.c - share reservations and their stateids: RFC 8881 §9.7 to §9.9, §18.2, §18.16, §18.18, §8.2 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/st_fixture.h"

enum { R = OPEN4_SHARE_ACCESS_READ, W = OPEN4_SHARE_ACCESS_WRITE, RW = OPEN4_SHARE_ACCESS_BOTH };

static struct st *s;
static struct tc a, b;

static void setup(void)
{
	s = tc_state(NULL);
	a = tc_client(s, "a");
	b = tc_client(s, "b");
}

static void teardown(void)
{
	st_free(s);
}

static nfsstat4 downgrade(struct tc *t, uint64_t ino, const stateid4 *sid, uint32_t access, uint32_t deny,
			  stateid4 *out)
{
	struct st_fhkey key = tc_file(ino);

	return st_open_downgrade(s, t->cl, &key, sid, access, deny, out);
}

static nfsstat4 io(struct tc *t, uint64_t ino, const stateid4 *sid, uint32_t access)
{
	struct st_fhkey key = tc_file(ino);

	return st_io_check(s, t->cl, &key, sid, access, NULL);
}

static stateid4 special(int byte, uint32_t seqid)
{
	stateid4 sid = {.seqid = seqid};

	memset(sid.other, byte, sizeof sid.other);
	return sid;
}

/* ---- conflicts ----------------------------------------------------------------------------------------------------------- */

static void matrix(struct tc *second)
{
	for (uint32_t i = 0; i < 144; i++) {
		uint32_t a1 = i / 48 + 1, d1 = i / 12 % 4, a2 = i / 4 % 3 + 1, d2 = i % 4;
		bool conflict = (a1 & d2) | (d1 & a2);
		stateid4 one, two;

		assert_st(tc_open(&a, 1, "one", a1, d1, &one), NFS4_OK);
		assert_st(tc_open(second, 1, "two", a2, d2, &two), conflict ? NFS4ERR_SHARE_DENIED : NFS4_OK);
		if (!conflict)
			assert_st(tc_close(second, 1, &two), NFS4_OK);
		assert_st(tc_close(&a, 1, &one), NFS4_OK);
	}
}

/* §9.7, all 12 x 12 */
START_TEST(opens_of_two_clients_conflict_when_one_denies_what_the_other_has)
{
	matrix(&b);
}
END_TEST

/* §9.7: another open-owner of the same client is somebody else */
START_TEST(opens_of_two_owners_of_one_client_conflict_in_the_same_way)
{
	matrix(&a);
}
END_TEST

START_TEST(opens_of_different_files_do_not_conflict)
{
	struct st_fhkey key[] = {{1, 1, 5}, {2, 1, 5}, {1, 2, 5}, {1, 1, 6}};
	struct st_name name = tc_name("o");
	stateid4 sid;

	for (int i = 0; i < 4; i++) {
		struct st_pin pin = tc_pin();

		assert_st(st_open(s, i & 1 ? a.cl : b.cl, &key[i], &name, NULL, RW, 3, true, &pin, &sid, NULL),
			  NFS4_OK);
	}
}
END_TEST

/* §18.16.3 */
START_TEST(open_with_access_or_deny_out_of_range_is_invalid)
{
	stateid4 sid;

	assert_st(tc_open(&a, 1, "o", 0, 0, &sid), NFS4ERR_INVAL);
	assert_st(tc_open(&a, 1, "o", 4, 0, &sid), NFS4ERR_INVAL);
	assert_st(tc_open(&a, 1, "o", R, 4, &sid), NFS4ERR_INVAL);
	assert_st(tc_open(&a, 1, "o", UINT32_MAX, UINT32_MAX, &sid), NFS4ERR_INVAL);
	ck_assert_int_eq(tc_pins_put, 4);
}
END_TEST

/* ---- upgrade, downgrade, close -------------------------------------------------------------------------------------------------- */

/* §18.16.3, §9.8 */
START_TEST(second_open_of_an_owner_adds_to_the_first_and_bumps_the_seqid)
{
	struct st_stats stats;
	stateid4 one, two;

	assert_st(tc_open(&a, 1, "o", R, 0, &one), NFS4_OK);
	ck_assert_uint_eq(one.seqid, 1);
	assert_st(io(&a, 1, &one, W), NFS4ERR_OPENMODE);
	assert_st(tc_open(&a, 1, "o", W, 0, &two), NFS4_OK);
	ck_assert_uint_eq(two.seqid, 2);
	ck_assert_mem_eq(one.other, two.other, sizeof one.other);
	assert_st(io(&a, 1, &two, RW), NFS4_OK);
	st_get_stats(s, &stats);
	ck_assert_uint_eq(stats.opens, 1);
	ck_assert_uint_eq(stats.files, 1);
	assert_st(tc_close(&a, 1, &two), NFS4_OK);
}
END_TEST

/* §9.8 */
START_TEST(upgrade_that_conflicts_is_denied_and_leaves_the_open_as_it_was)
{
	stateid4 one, other, two;

	assert_st(tc_open(&a, 1, "o", R, 0, &one), NFS4_OK);
	assert_st(tc_open(&b, 1, "p", R, W, &other), NFS4_OK);
	assert_st(tc_open(&a, 1, "o", W, 0, &two), NFS4ERR_SHARE_DENIED);
	assert_st(tc_open(&a, 1, "o", R, R, &two), NFS4ERR_SHARE_DENIED);
	assert_st(io(&a, 1, &one, R), NFS4_OK);
	assert_st(io(&a, 1, &one, W), NFS4ERR_OPENMODE);
	assert_st(tc_close(&a, 1, &one), NFS4_OK);
}
END_TEST

/* §9.7: an owner's own deny does not stop its own upgrade */
START_TEST(owner_is_not_denied_by_its_own_reservation)
{
	stateid4 sid;

	assert_st(tc_open(&a, 1, "o", R, 3, &sid), NFS4_OK);
	assert_st(tc_open(&a, 1, "o", W, 3, &sid), NFS4_OK);
	ck_assert_uint_eq(sid.seqid, 2);
}
END_TEST

/* §18.22.3: reading for the sake of a partial write, where the opener denies reading to others */
START_TEST(own_deny_does_not_stop_reads_of_who_may_write)
{
	stateid4 sid, other;

	assert_st(tc_open(&a, 1, "o", W, 3, &sid), NFS4_OK);
	assert_st(io(&a, 1, &sid, R), NFS4_OK);
	assert_st(tc_close(&a, 1, &sid), NFS4_OK);
	assert_st(tc_open(&a, 1, "o", W, 0, &sid), NFS4_OK);
	assert_st(tc_open(&b, 1, "p", W, R, &other), NFS4_OK);
	assert_st(io(&a, 1, &sid, R), NFS4ERR_LOCKED);
}
END_TEST

/* §18.18.3 */
START_TEST(downgrade_goes_only_to_what_some_of_the_opens_asked_for_together)
{
	stateid4 sid;

	assert_st(tc_open(&a, 1, "o", RW, W, &sid), NFS4_OK);
	assert_st(downgrade(&a, 1, &sid, R, 0, &sid), NFS4ERR_INVAL);
	assert_st(downgrade(&a, 1, &sid, RW, 0, &sid), NFS4ERR_INVAL);
	assert_st(tc_open(&a, 1, "o", R, 0, &sid), NFS4_OK);
	assert_st(downgrade(&a, 1, &sid, W, 0, &sid), NFS4ERR_INVAL);
	assert_st(downgrade(&a, 1, &sid, R, W, &sid), NFS4ERR_INVAL);
	assert_st(downgrade(&a, 1, &sid, R, 0, &sid), NFS4_OK);
	ck_assert_uint_eq(sid.seqid, 3);
	assert_st(io(&a, 1, &sid, W), NFS4ERR_OPENMODE);
	/* what was given up is gone: it cannot be had back by a downgrade */
	assert_st(downgrade(&a, 1, &sid, RW, W, &sid), NFS4ERR_INVAL);
}
END_TEST

START_TEST(downgrade_lets_others_in)
{
	stateid4 sid, other;

	assert_st(tc_open(&a, 1, "o", R, 0, &sid), NFS4_OK);
	assert_st(tc_open(&a, 1, "o", RW, 3, &sid), NFS4_OK);
	assert_st(tc_open(&b, 1, "p", W, 0, &other), NFS4ERR_SHARE_DENIED);
	assert_st(downgrade(&a, 1, &sid, R, 0, &sid), NFS4_OK);
	assert_st(tc_open(&b, 1, "p", W, 0, &other), NFS4_OK);
}
END_TEST

START_TEST(downgrade_with_bits_out_of_range_is_invalid)
{
	stateid4 sid;

	assert_st(tc_open(&a, 1, "o", RW, 0, &sid), NFS4_OK);
	assert_st(downgrade(&a, 1, &sid, 0, 0, &sid), NFS4ERR_INVAL);
	assert_st(downgrade(&a, 1, &sid, 4, 0, &sid), NFS4ERR_INVAL);
	assert_st(downgrade(&a, 1, &sid, R, 8, &sid), NFS4ERR_INVAL);
}
END_TEST

START_TEST(closed_stateid_is_bad_and_its_file_is_released_once)
{
	struct st_fhkey key = tc_file(1);
	stateid4 one, two;

	assert_st(tc_open(&a, 1, "o", R, 0, &one), NFS4_OK);
	assert_st(tc_open(&b, 1, "o", R, 0, &two), NFS4_OK);
	ck_assert_int_eq(tc_pins_put, 1); /* the second open's: the first keeps the file */
	assert_st(tc_close(&a, 1, &one), NFS4_OK);
	assert_st(tc_close(&a, 1, &one), NFS4ERR_BAD_STATEID);
	assert_st(io(&a, 1, &one, R), NFS4ERR_BAD_STATEID);
	ck_assert(st_file_is_open(s, &key));
	ck_assert_int_eq(tc_pins_put, 1);
	assert_st(tc_close(&b, 1, &two), NFS4_OK);
	ck_assert(!st_file_is_open(s, &key));
	ck_assert_int_eq(tc_pins_put, 2);
}
END_TEST

/* an OPEN whose truncation failed leaves nothing behind */
START_TEST(undo_takes_back_a_fresh_open_and_restores_an_upgraded_one)
{
	struct st_fhkey key = tc_file(1);
	struct st_name name = tc_name("o");
	struct st_pin pin = tc_pin();
	struct st_undo undo;
	stateid4 sid, other;

	assert_st(st_open(s, a.cl, &key, &name, NULL, RW, 3, true, &pin, &sid, &undo), NFS4_OK);
	st_open_undo(s, a.cl, &undo);
	ck_assert(!st_file_is_open(s, &key));
	assert_st(tc_open(&a, 1, "o", R, 0, &sid), NFS4_OK);
	pin = tc_pin();
	assert_st(st_open(s, a.cl, &key, &name, NULL, RW, 3, true, &pin, &other, &undo), NFS4_OK);
	st_open_undo(s, a.cl, &undo);
	assert_st(tc_open(&b, 1, "p", RW, 0, &other), NFS4_OK);
	assert_st(io(&a, 1, &sid, W), NFS4ERR_OPENMODE);
	assert_st(downgrade(&a, 1, &sid, RW, 3, &sid), NFS4ERR_INVAL);
	/* Nobody was told of the seqid in between. */
	assert_st(tc_close(&a, 1, &sid), NFS4_OK);
}
END_TEST

/* ---- stateids ---------------------------------------------------------------------------------------------------------------------- */

/* §8.2.4 */
START_TEST(stateid_of_the_past_is_old_of_the_future_is_bad_and_seqid_0_is_the_present)
{
	stateid4 sid, try;

	assert_st(tc_open(&a, 1, "o", R, 0, &sid), NFS4_OK);
	assert_st(tc_open(&a, 1, "o", R, 0, &sid), NFS4_OK);
	assert_st(tc_open(&a, 1, "o", R, 0, &sid), NFS4_OK);
	ck_assert_uint_eq(sid.seqid, 3);
	for (uint32_t seqid = 0; seqid < 6; seqid++) {
		nfsstat4 want = seqid == 0 || seqid == 3 ? NFS4_OK
				: seqid < 3              ? NFS4ERR_OLD_STATEID
							 : NFS4ERR_BAD_STATEID;

		try = sid;
		try.seqid = seqid;
		assert_st(io(&a, 1, &try, R), want);
		assert_st(st_test_stateid(s, a.cl, &try), want);
		if (want != NFS4_OK) {
			assert_st(tc_close(&a, 1, &try), want);
			assert_st(downgrade(&a, 1, &try, R, 0, &try), want);
		}
	}
	sid.seqid = 0;
	assert_st(tc_close(&a, 1, &sid), NFS4_OK);
}
END_TEST

/* §8.2.2 */
START_TEST(stateid_is_good_for_its_own_client_and_file_only)
{
	stateid4 sid, other;

	assert_st(tc_open(&a, 1, "o", RW, 0, &sid), NFS4_OK);
	assert_st(tc_open(&a, 2, "o", RW, 0, &other), NFS4_OK);
	assert_st(io(&b, 1, &sid, R), NFS4ERR_BAD_STATEID);
	assert_st(io(&a, 2, &sid, R), NFS4ERR_BAD_STATEID);
	assert_st(tc_close(&b, 1, &sid), NFS4ERR_BAD_STATEID);
	assert_st(tc_close(&a, 2, &sid), NFS4ERR_BAD_STATEID);
	assert_st(st_test_stateid(s, b.cl, &sid), NFS4ERR_BAD_STATEID);
	assert_st(st_free_stateid(s, b.cl, &sid), NFS4ERR_BAD_STATEID);
}
END_TEST

START_TEST(stateids_that_nobody_gave_out_are_bad)
{
	stateid4 sid, try;

	assert_st(tc_open(&a, 1, "o", RW, 0, &sid), NFS4_OK);
	for (size_t i = 0; i < sizeof sid.other; i++) {
		for (int bit = 0; bit < 8; bit++) {
			try = sid;
			try.other[i] = (char)(try.other[i] ^ 1 << bit);
			assert_st(io(&a, 1, &try, R), NFS4ERR_BAD_STATEID);
			assert_st(tc_close(&a, 1, &try), NFS4ERR_BAD_STATEID);
		}
	}
	for (int byte = 0; byte < 256; byte += 255) {
		for (uint32_t seqid = 1; seqid < 3; seqid++) {
			try = special(byte, byte ? seqid : seqid == 2 ? UINT32_MAX : 2);
			assert_st(io(&a, 1, &try, R), NFS4ERR_BAD_STATEID);
			ck_assert(st_is_special(&try));
		}
	}
	ck_assert(!st_is_special(&sid));
}
END_TEST

/* §8.2.3, §9.7: anonymous and bypass */
START_TEST(special_stateids_meet_share_reservations_except_reads_that_bypass_them)
{
	stateid4 anon = special(0, 0), bypass = special(0xff, UINT32_MAX), sid;

	for (uint32_t deny = 0; deny < 4; deny++) {
		assert_st(tc_open(&a, 1, "o", RW, deny, &sid), NFS4_OK);
		assert_st(io(&b, 1, &anon, R), deny & R ? NFS4ERR_LOCKED : NFS4_OK);
		assert_st(io(&b, 1, &anon, W), deny & W ? NFS4ERR_LOCKED : NFS4_OK);
		assert_st(io(&b, 1, &bypass, R), NFS4_OK);
		assert_st(io(&b, 1, &bypass, W), deny & W ? NFS4ERR_LOCKED : NFS4_OK);
		assert_st(io(&b, 1, &anon, 0), NFS4_OK);
		assert_st(io(&b, 2, &anon, RW), NFS4_OK);
		assert_st(tc_close(&a, 1, &sid), NFS4_OK);
	}
}
END_TEST

/* §18.22.3 */
START_TEST(reading_under_a_write_only_open_is_allowed_unless_another_denies_reading)
{
	stateid4 sid, other;

	assert_st(tc_open(&a, 1, "o", W, 0, &sid), NFS4_OK);
	assert_st(io(&a, 1, &sid, R), NFS4_OK);
	assert_st(io(&a, 1, &sid, 0), NFS4_OK);
	assert_st(tc_open(&b, 1, "p", W, R, &other), NFS4_OK);
	assert_st(io(&a, 1, &sid, R), NFS4ERR_LOCKED);
	assert_st(io(&a, 1, &sid, W), NFS4_OK);
}
END_TEST

/* §18.38.3 */
START_TEST(free_stateid_of_an_open_is_refused)
{
	stateid4 sid;

	assert_st(tc_open(&a, 1, "o", R, 0, &sid), NFS4_OK);
	assert_st(st_free_stateid(s, a.cl, &sid), NFS4ERR_LOCKS_HELD);
	assert_st(tc_close(&a, 1, &sid), NFS4_OK);
	assert_st(st_free_stateid(s, a.cl, &sid), NFS4ERR_BAD_STATEID);
}
END_TEST

/* ---- advice ------------------------------------------------------------------------------------------------------------------------------ */

static struct fs_node advised;

static nfsstat4 open_node(struct tc *t, const char *owner, stateid4 *sid)
{
	struct st_fhkey key = tc_file(1);
	struct st_name name = tc_name(owner);
	struct st_pin pin = tc_pin();

	pin.node = &advised;
	return st_open(s, t->cl, &key, &name, NULL, R, 0, true, &pin, sid, NULL);
}

static uint32_t instead(uint32_t before, void *arg)
{
	(void)before;
	return *(uint32_t *)arg;
}

static nfsstat4 says(struct tc *t, const stateid4 *sid, uint32_t mode)
{
	struct st_fhkey key = tc_file(1);

	return st_advise(s, t->cl, &key, sid, instead, &mode);
}

static uint32_t holds(void)
{
	return atomic_load(&advised.stream.mode);
}

/* io-advise.md: the last hint wins; a close forgets what that open said, and only that. */
START_TEST(what_the_last_speaker_said_holds_until_it_closes)
{
	stateid4 one, two, three;

	assert_st(open_node(&a, "one", &one), NFS4_OK);
	assert_st(open_node(&b, "two", &two), NFS4_OK);
	assert_st(open_node(&b, "three", &three), NFS4_OK);
	assert_st(says(&a, &one, 2), NFS4_OK);
	assert_st(says(&b, &two, 8), NFS4_OK);
	ck_assert_uint_eq(holds(), 8);
	assert_st(tc_close(&b, 1, &three), NFS4_OK); /* it said nothing */
	ck_assert_uint_eq(holds(), 8);
	assert_st(says(&a, &one, 4), NFS4_OK);
	ck_assert_uint_eq(holds(), 4);
	assert_st(tc_close(&a, 1, &one), NFS4_OK);
	ck_assert_uint_eq(holds(), 8);
	assert_st(says(&a, &one, 4), NFS4ERR_BAD_STATEID);
	assert_st(says(&a, &two, 4), NFS4ERR_BAD_STATEID); /* another's */
	assert_st(tc_close(&b, 1, &two), NFS4_OK);
	ck_assert_uint_eq(holds(), 0);
}
END_TEST

/* The same, for hints with a special stateid; and opening forgets nothing. */
START_TEST(what_nobody_said_holds_until_the_last_one_closes)
{
	stateid4 one, two;

	assert_st(open_node(&a, "one", &one), NFS4_OK);
	atomic_store(&advised.stream.mode, 2);
	assert_st(open_node(&b, "two", &two), NFS4_OK);
	ck_assert_uint_eq(holds(), 2);
	assert_st(tc_close(&a, 1, &one), NFS4_OK);
	ck_assert_uint_eq(holds(), 2);
	assert_st(tc_close(&b, 1, &two), NFS4_OK);
	ck_assert_uint_eq(holds(), 0);
}
END_TEST

START_TEST(what_a_revoked_open_said_is_forgotten)
{
	stateid4 one, two;

	assert_st(open_node(&a, "one", &one), NFS4_OK);
	assert_st(says(&a, &one, 2), NFS4_OK);
	st_skip_time(s, LEASE + 1);
	tc_renew(&b);
	assert_st(tc_open(&b, 1, "p", R, R, &two), NFS4_OK);
	assert_st(says(&a, &one, 2), NFS4ERR_EXPIRED);
	ck_assert_uint_eq(holds(), 0);
	assert_st(tc_close(&b, 1, &two), NFS4_OK);
}
END_TEST

/* Nobody needs the file: a lease that is over is enough. */
START_TEST(what_a_silent_client_said_is_forgotten_with_its_lease)
{
	stateid4 one, two;

	assert_st(open_node(&a, "one", &one), NFS4_OK);
	assert_st(open_node(&b, "two", &two), NFS4_OK);
	assert_st(says(&b, &two, 2), NFS4_OK);
	assert_st(says(&a, &one, 8), NFS4_OK);
	ck_assert_uint_eq(holds(), 8);
	st_skip_time(s, LEASE + 1);
	tc_renew(&b);
	st_tick(s);
	ck_assert_uint_eq(holds(), 2);
	/* It has kept the open itself. */
	tc_renew(&a);
	assert_st(says(&a, &one, 4), NFS4_OK);
	ck_assert_uint_eq(holds(), 4);
	assert_st(tc_close(&a, 1, &one), NFS4_OK);
	assert_st(tc_close(&b, 1, &two), NFS4_OK);
}
END_TEST

static bool says_unopened(struct tc *t, uint64_t ino, uint32_t mode)
{
	const struct st_fhkey key = tc_file(ino);
	struct st_call call;
	struct st_seq q;
	bool ok;

	assert_st(tc_begin(t, 0, false, 2, &q, &call), NFS4_OK);
	ok = st_advise_unopened(&call, &key, instead, &mode);
	tc_finish(s, &call, 40, 0);
	return ok;
}

static uint32_t said(struct tc *t, uint64_t ino)
{
	const struct st_fhkey key = tc_file(ino);

	return st_said(t->cl, &key);
}

START_TEST(what_is_said_with_a_special_stateid_is_for_nobody_else)
{
	stateid4 one, kept;

	assert_st(open_node(&b, "one", &one), NFS4_OK);
	assert_st(tc_open(&a, 2, "kept", R, 0, &kept), NFS4_OK); /* so that the client outlives its lease */
	ck_assert(says_unopened(&a, 1, 8));
	ck_assert_uint_eq(said(&a, 1), 8);
	ck_assert_uint_eq(said(&a, 2), 0);
	ck_assert_uint_eq(said(&b, 1), 0);
	ck_assert_uint_eq(holds(), 0);
	assert_st(tc_close(&b, 1, &one), NFS4_OK);
	ck_assert_uint_eq(said(&a, 1), 8);
	st_skip_time(s, LEASE + 1);
	st_tick(s);
	ck_assert_uint_eq(said(&a, 1), 0);
}
END_TEST

START_TEST(what_is_said_with_a_special_stateid_ends_with_the_session)
{
	struct st_create create = tc_create(a.id, 2);

	ck_assert(says_unopened(&a, 1, 8));
	assert_st(st_create_session(s, &create), NFS4_OK);
	ck_assert_uint_eq(said(&a, 1), 8);
	assert_st(st_destroy_session(s, a.session, 0), NFS4_OK);
	ck_assert_uint_eq(said(&a, 1), 0);
}
END_TEST

START_TEST(what_is_said_with_a_special_stateid_takes_a_few_places)
{
	for (uint64_t ino = 1; ino <= 1000; ino++)
		ck_assert(says_unopened(&a, ino, 2));
	ck_assert_uint_eq(said(&a, 1000), 2);
	ck_assert_uint_eq(said(&a, 1000 - 63), 2);
	ck_assert_uint_eq(said(&a, 1000 - 64), 0);
	ck_assert(says_unopened(&a, 1000, 4));
	ck_assert_uint_eq(said(&a, 1000), 4);
	ck_assert_uint_eq(said(&a, 1000 - 63), 2);
}
END_TEST

/* ---- leases, limits -------------------------------------------------------------------------------------------------------------------- */

/* §8.4.3 */
START_TEST(conflicting_open_of_a_silent_client_gives_way)
{
	stateid4 one, two;
	struct st_call call;
	struct st_seq q;

	assert_st(tc_open(&a, 1, "o", RW, 3, &one), NFS4_OK);
	st_skip_time(s, LEASE - 1);
	tc_renew(&b);
	assert_st(tc_open(&b, 1, "p", R, 0, &two), NFS4ERR_SHARE_DENIED);
	st_skip_time(s, 2);
	assert_st(tc_open(&b, 1, "p", R, 0, &two), NFS4_OK);
	assert_st(tc_begin(&a, 0, false, 2, &q, &call), NFS4_OK);
	tc_finish(s, &call, 64, 0);
	ck_assert_uint_eq(q.status_flags, SEQ4_STATUS_EXPIRED_ALL_STATE_REVOKED);
	assert_st(tc_close(&a, 1, &one), NFS4ERR_EXPIRED);
}
END_TEST

START_TEST(open_that_does_not_conflict_leaves_silent_clients_alone)
{
	stateid4 one, two;

	assert_st(tc_open(&a, 1, "o", R, W, &one), NFS4_OK);
	st_skip_time(s, LEASE + 1);
	tc_renew(&b);
	assert_st(tc_open(&b, 1, "p", R, 0, &two), NFS4_OK);
	tc_renew(&a);
	assert_st(tc_close(&a, 1, &one), NFS4_OK);
}
END_TEST

/* a live client in the way means that nothing is gained by forgetting the silent ones */
START_TEST(denied_open_does_not_cost_silent_clients_their_state)
{
	struct tc c = tc_client(s, "c");
	stateid4 one, two, three;

	assert_st(tc_open(&a, 1, "o", RW, 0, &one), NFS4_OK);
	assert_st(tc_open(&b, 1, "o", RW, 0, &two), NFS4_OK);
	st_skip_time(s, LEASE + 1);
	tc_renew(&b);
	tc_renew(&c);
	assert_st(tc_open(&c, 1, "p", R, W, &three), NFS4ERR_SHARE_DENIED);
	tc_renew(&a);
	assert_st(tc_close(&a, 1, &one), NFS4_OK);
}
END_TEST

START_TEST(hundreds_of_silent_clients_give_way_to_one_open)
{
	struct st_stats stats;
	stateid4 sid;
	char name[32];

	for (int i = 0; i < 300; i++) {
		struct tc t;

		snprintf(name, sizeof name, "silent%d", i);
		t = tc_client(s, name);
		assert_st(tc_open(&t, 1, "o", W, 0, &sid), NFS4_OK);
	}
	st_skip_time(s, LEASE + 1);
	tc_renew(&b);
	assert_st(tc_open(&b, 1, "p", R, W, &sid), NFS4_OK);
	st_get_stats(s, &stats);
	ck_assert_uint_eq(stats.expired, 300);
	ck_assert_uint_eq(stats.opens, 1);
}
END_TEST

START_TEST(opens_of_a_client_are_bounded)
{
	const struct st_opts o = {.max_opens = 100};
	struct st *small = tc_state(&o);
	struct tc t = tc_client(small, "t"), u = tc_client(small, "u");
	struct st_stats stats;
	char owner[32];
	stateid4 sid;

	for (int i = 0; i < 100; i++) {
		snprintf(owner, sizeof owner, "o%d", i);
		assert_st(tc_open(&t, (uint64_t)i % 10, owner, R, 0, &sid), NFS4_OK);
	}
	assert_st(tc_open(&t, 1000, "o", R, 0, &sid), NFS4ERR_DQUOT);
	assert_st(tc_open(&t, 9, "o99", W, 0, &sid), NFS4_OK); /* an upgrade needs no room */
	assert_st(tc_open(&u, 1000, "o", R, 0, &sid), NFS4_OK);
	st_get_stats(small, &stats);
	ck_assert_uint_eq(stats.opens, 101);
	ck_assert_uint_eq(stats.owners, 101);
	st_free(small);
	ck_assert_int_eq(tc_pins_put, 90 + 1 + 1 + 10 + 1);
}
END_TEST

START_TEST(owner_may_be_empty_or_as_long_as_the_protocol_allows_and_no_longer)
{
	struct st_fhkey key = tc_file(1);
	uint8_t bytes[ST_NAME_MAX + 1] = {1};
	const uint32_t lens[] = {0, ST_NAME_MAX, ST_NAME_MAX + 1};
	stateid4 sid;

	for (int i = 0; i < 3; i++) {
		struct st_name name = {bytes, lens[i]};
		struct st_pin pin = tc_pin();

		assert_st(st_open(s, a.cl, &key, &name, NULL, R, 0, true, &pin, &sid, NULL),
			  i < 2 ? NFS4_OK : NFS4ERR_INVAL);
	}
}
END_TEST

/* A call that runs while its client is replaced must not bring state back to life. */
START_TEST(call_of_a_forgotten_client_can_no_longer_open)
{
	struct st_exchange x = tc_exchange("a", 2, 0);
	struct st_create cs;
	struct st_call call;
	struct st_seq q;
	stateid4 sid;

	assert_st(tc_begin(&a, 0, false, 3, &q, &call), NFS4_OK);
	assert_st(st_exchange_id(s, &x), NFS4_OK);
	cs = tc_create(x.clientid, 1);
	assert_st(st_create_session(s, &cs), NFS4_OK);
	assert_st(tc_open(&a, 1, "o", R, 0, &sid), NFS4ERR_DELAY);
	tc_finish(s, &call, 60, 0);
	ck_assert_int_eq(tc_pins_put, 1);
}
END_TEST

/* Opens of many clients of one address, as many as each may have: others still open files. */
START_TEST(opens_of_one_address_leave_room_for_the_others)
{
	const struct st_opts o = {.max_states = 100};
	struct st *small = tc_state(&o);
	struct tc greedy[10], other;
	unsigned made = 0;
	stateid4 sid;

	for (unsigned i = 0; i < 10; i++) {
		char name[8];

		snprintf(name, sizeof name, "g%u", i);
		greedy[i] = tc_client(small, name);
		for (unsigned k = 0; k < 50; k++)
			made += tc_open(&greedy[i], i * 50 + k, "o", R, 0, &sid) == NFS4_OK;
	}
	ck_assert_uint_eq(made, 75);
	other = tc_client_from(small, "other", 0x0a000001);
	for (unsigned k = 0; k < 10; k++)
		assert_st(tc_open(&other, 1000 + k, "o", R, 0, &sid), NFS4_OK);
	assert_st(tc_open(&greedy[0], 5000, "o", R, 0, &sid), NFS4ERR_DELAY);
	st_free(small);
}
END_TEST

/* ---- against a model -------------------------------------------------------------------------------------------------------------------- */

enum { OWNERS = 6 };

struct model {
	uint32_t access, deny; /* 0: not open */
	stateid4 sid;
};

static bool model_conflict(const struct model *m, int self, uint32_t access, uint32_t deny)
{
	for (int i = 0; i < OWNERS; i++) {
		if (i != self && ((m[i].access & deny) | (m[i].deny & access)))
			return true;
	}
	return false;
}

static bool model_denied(const struct model *m, uint32_t access)
{
	for (int i = 0; i < OWNERS; i++) {
		if (m[i].deny & access)
			return true;
	}
	return false;
}

START_TEST(random_opens_and_closes_agree_with_a_model)
{
	static const stateid4 anon;
	struct model m[OWNERS] = {{0}};
	char owner[32];
	unsigned seed = 4711;

	for (int round = 0; round < 20000; round++) {
		int i = rand_r(&seed) % OWNERS;
		struct tc *t = i % 2 ? &a : &b;
		uint32_t access = (uint32_t)rand_r(&seed) % 3 + 1,
			 deny = rand_r(&seed) % 2 ? 0 : (uint32_t)rand_r(&seed) % 4;

		snprintf(owner, sizeof owner, "o%d", i);
		if (rand_r(&seed) % 3) {
			bool conflict = model_conflict(m, i, access, deny);
			stateid4 sid;

			assert_st(tc_open(t, 1, owner, access, deny, &sid), conflict ? NFS4ERR_SHARE_DENIED : NFS4_OK);
			if (!conflict) {
				m[i].access |= access;
				m[i].deny |= deny;
				m[i].sid = sid;
			}
		} else if (m[i].access) {
			assert_st(tc_close(t, 1, &m[i].sid), NFS4_OK);
			m[i] = (struct model){0};
		}
		assert_st(io(&a, 1, &anon, R), model_denied(m, R) ? NFS4ERR_LOCKED : NFS4_OK);
		assert_st(io(&b, 1, &anon, W), model_denied(m, W) ? NFS4ERR_LOCKED : NFS4_OK);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("state: opens");
	TCase *tc = tcase_create("all");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, opens_of_two_clients_conflict_when_one_denies_what_the_other_has);
	tcase_add_test(tc, opens_of_two_owners_of_one_client_conflict_in_the_same_way);
	tcase_add_test(tc, opens_of_different_files_do_not_conflict);
	tcase_add_test(tc, open_with_access_or_deny_out_of_range_is_invalid);
	tcase_add_test(tc, second_open_of_an_owner_adds_to_the_first_and_bumps_the_seqid);
	tcase_add_test(tc, upgrade_that_conflicts_is_denied_and_leaves_the_open_as_it_was);
	tcase_add_test(tc, owner_is_not_denied_by_its_own_reservation);
	tcase_add_test(tc, own_deny_does_not_stop_reads_of_who_may_write);
	tcase_add_test(tc, downgrade_goes_only_to_what_some_of_the_opens_asked_for_together);
	tcase_add_test(tc, downgrade_lets_others_in);
	tcase_add_test(tc, downgrade_with_bits_out_of_range_is_invalid);
	tcase_add_test(tc, closed_stateid_is_bad_and_its_file_is_released_once);
	tcase_add_test(tc, undo_takes_back_a_fresh_open_and_restores_an_upgraded_one);
	tcase_add_test(tc, stateid_of_the_past_is_old_of_the_future_is_bad_and_seqid_0_is_the_present);
	tcase_add_test(tc, stateid_is_good_for_its_own_client_and_file_only);
	tcase_add_test(tc, stateids_that_nobody_gave_out_are_bad);
	tcase_add_test(tc, special_stateids_meet_share_reservations_except_reads_that_bypass_them);
	tcase_add_test(tc, reading_under_a_write_only_open_is_allowed_unless_another_denies_reading);
	tcase_add_test(tc, free_stateid_of_an_open_is_refused);
	tcase_add_test(tc, what_the_last_speaker_said_holds_until_it_closes);
	tcase_add_test(tc, what_nobody_said_holds_until_the_last_one_closes);
	tcase_add_test(tc, what_a_revoked_open_said_is_forgotten);
	tcase_add_test(tc, what_a_silent_client_said_is_forgotten_with_its_lease);
	tcase_add_test(tc, what_is_said_with_a_special_stateid_is_for_nobody_else);
	tcase_add_test(tc, what_is_said_with_a_special_stateid_ends_with_the_session);
	tcase_add_test(tc, what_is_said_with_a_special_stateid_takes_a_few_places);
	tcase_add_test(tc, conflicting_open_of_a_silent_client_gives_way);
	tcase_add_test(tc, open_that_does_not_conflict_leaves_silent_clients_alone);
	tcase_add_test(tc, denied_open_does_not_cost_silent_clients_their_state);
	tcase_add_test(tc, hundreds_of_silent_clients_give_way_to_one_open);
	tcase_add_test(tc, opens_of_a_client_are_bounded);
	tcase_add_test(tc, owner_may_be_empty_or_as_long_as_the_protocol_allows_and_no_longer);
	tcase_add_test(tc, opens_of_one_address_leave_room_for_the_others);
	tcase_add_test(tc, call_of_a_forgotten_client_can_no_longer_open);
	tcase_add_test(tc, random_opens_and_closes_agree_with_a_model);
	suite_add_tcase(suite, tc);
	r = srunner_create(suite);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* test_state_revoke.c - an export is taken away: what clients hold there is revoked, what they hold elsewhere is not */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/unit/st_fixture.h"

enum { R = 1, W = 2, RW = 3, GONE = 7, OTHER = 8 };

static char dir[64], path[96];
static struct st *s;
static struct tc a, b;

static void start(void)
{
	const struct st_opts o = {.lease_seconds = LEASE, .max_opens = 4, .records = path};

	s = tc_state(&o);
}

static void setup(void)
{
	snprintf(dir, sizeof dir, "/tmp/vhdnfs-revoke-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/clients", dir);
	start();
	a = tc_client(s, "a");
	b = tc_client(s, "b");
	tc_pins_put = 0;
}

static void teardown(void)
{
	st_free(s);
	unlink(path);
	rmdir(dir);
}

static struct st_fhkey at(uint32_t export_id, uint64_t ino)
{
	return (struct st_fhkey){.export_id = export_id, .gen = 1, .ino = ino};
}

static nfsstat4 open_pin(struct tc *t, const struct st_fhkey *key, struct st_pin pin, stateid4 *out)
{
	struct st_name name = tc_name("o");

	return st_open(s, t->cl, key, &name, NULL, RW, 0, true, &pin, out, NULL);
}

static stateid4 opened(struct tc *t, uint32_t export_id, uint64_t ino)
{
	struct st_fhkey key = at(export_id, ino);
	stateid4 sid;

	assert_st(open_pin(t, &key, tc_pin(), &sid), NFS4_OK);
	return sid;
}

static nfsstat4 lock_it(struct tc *t, uint32_t export_id, uint64_t ino, const stateid4 *open, stateid4 *out)
{
	struct st_lock l = {
		.write = true, .length = 10, .new_owner = true, .sid = *open, .owner = tc_name("l"), .may_wait = true};
	struct st_fhkey key = at(export_id, ino);
	struct st_denied d;

	return st_lock(s, t->cl, &key, &l, out, &d);
}

static uint32_t flags_of(struct tc *t)
{
	struct st_call call;
	struct st_seq q;

	assert_st(tc_begin(t, 6, false, 2, &q, &call), NFS4_OK);
	tc_finish(s, &call, 64, 0);
	return q.status_flags;
}

/* RFC 8881 §8.5, §15.1.5.1, §18.46.3, §18.38 */
START_TEST(who_held_something_there_is_told_and_frees_it)
{
	struct st_fhkey key = at(GONE, 1);
	stateid4 open = opened(&a, GONE, 1), lock, other = open;
	struct st_lock l;
	struct st_stats stats;

	assert_st(lock_it(&a, GONE, 1, &open, &lock), NFS4_OK);
	ck_assert_uint_eq(st_export_revoke(s, GONE), 2);
	ck_assert_int_eq(tc_pins_put, 1);
	ck_assert(!st_file_is_open(s, &key));
	st_get_stats(s, &stats);
	ck_assert_uint_eq(stats.opens + stats.lock_states + stats.ranges + stats.files + stats.owners, 0);
	ck_assert_uint_eq(flags_of(&a), SEQ4_STATUS_ADMIN_STATE_REVOKED);
	ck_assert_uint_eq(flags_of(&b), 0);

	assert_st(st_test_stateid(s, a.cl, &open), NFS4ERR_ADMIN_REVOKED);
	assert_st(st_test_stateid(s, a.cl, &lock), NFS4ERR_ADMIN_REVOKED);
	assert_st(st_test_stateid(s, b.cl, &open), NFS4ERR_BAD_STATEID);
	assert_st(st_io_check(s, a.cl, &key, &open, W, NULL), NFS4ERR_ADMIN_REVOKED);
	assert_st(st_io_check(s, a.cl, &key, &lock, R, NULL), NFS4ERR_ADMIN_REVOKED);
	assert_st(st_close(s, a.cl, &key, &open), NFS4ERR_ADMIN_REVOKED);
	assert_st(st_open_downgrade(s, a.cl, &key, &open, R, 0, &other), NFS4ERR_ADMIN_REVOKED);
	assert_st(lock_it(&a, GONE, 1, &open, &other), NFS4ERR_ADMIN_REVOKED);
	l = (struct st_lock){.length = 10, .sid = lock};
	assert_st(st_unlock(s, a.cl, &key, &l, &other), NFS4ERR_ADMIN_REVOKED);

	assert_st(st_free_stateid(s, a.cl, &lock), NFS4_OK);
	ck_assert_uint_eq(flags_of(&a), SEQ4_STATUS_ADMIN_STATE_REVOKED);
	assert_st(st_free_stateid(s, a.cl, &open), NFS4_OK);
	ck_assert_uint_eq(flags_of(&a), 0);
	assert_st(st_free_stateid(s, a.cl, &open), NFS4ERR_BAD_STATEID);
}
END_TEST

/* Linux frees nothing else. */
START_TEST(freeing_an_open_frees_the_locks_under_it)
{
	stateid4 open = opened(&a, GONE, 1), other = opened(&a, GONE, 2), lock, lock2;

	assert_st(lock_it(&a, GONE, 1, &open, &lock), NFS4_OK);
	assert_st(lock_it(&a, GONE, 2, &other, &lock2), NFS4_OK);
	ck_assert_uint_eq(st_export_revoke(s, GONE), 4);
	assert_st(st_free_stateid(s, a.cl, &open), NFS4_OK);
	assert_st(st_free_stateid(s, a.cl, &lock), NFS4ERR_BAD_STATEID);
	assert_st(st_test_stateid(s, a.cl, &lock2), NFS4ERR_ADMIN_REVOKED);
	ck_assert_uint_eq(flags_of(&a), SEQ4_STATUS_ADMIN_STATE_REVOKED);
	assert_st(st_free_stateid(s, a.cl, &other), NFS4_OK);
	ck_assert_uint_eq(flags_of(&a), 0);
	assert_st(st_test_stateid(s, a.cl, &lock2), NFS4ERR_BAD_STATEID);
}
END_TEST

START_TEST(what_is_open_elsewhere_stays)
{
	stateid4 here[3], there[3], lock;
	struct st_fhkey key = at(OTHER, 1);

	for (unsigned i = 0; i < 2; i++) {
		here[i] = opened(&a, GONE, 1 + i);
		there[i] = opened(&a, OTHER, 1 + i);
	}
	here[2] = opened(&b, GONE, 1);
	there[2] = opened(&b, OTHER, 1);
	assert_st(lock_it(&a, OTHER, 1, &there[0], &lock), NFS4_OK);
	ck_assert_uint_eq(st_export_revoke(s, GONE), 3);
	ck_assert_int_eq(tc_pins_put,
			 2 + 2); /* those of two files, and those that second opens of a file brought along */
	for (unsigned i = 0; i < 3; i++) {
		assert_st(st_test_stateid(s, i < 2 ? a.cl : b.cl, &here[i]), NFS4ERR_ADMIN_REVOKED);
		assert_st(st_test_stateid(s, i < 2 ? a.cl : b.cl, &there[i]), NFS4_OK);
	}
	assert_st(st_io_check(s, a.cl, &key, &lock, W, NULL), NFS4_OK);
	assert_st(st_close(s, a.cl, &key, &there[0]), NFS4_OK);
	ck_assert_uint_eq(st_export_revoke(s, GONE), 0);
	/* Served again, the file can be opened by the same owner. */
	there[0] = opened(&a, GONE, 1);
	assert_st(st_test_stateid(s, a.cl, &there[0]), NFS4_OK);
	assert_st(st_test_stateid(s, a.cl, &here[0]), NFS4ERR_ADMIN_REVOKED);
}
END_TEST

/* Two reasons, and a flag for each until the last of its kind is freed. */
START_TEST(what_was_revoked_for_one_reason_hides_nothing_of_the_other)
{
	stateid4 silent = opened(&a, OTHER, 1), sid;
	struct st_fhkey key = at(OTHER, 1);
	struct st_name name = tc_name("p");
	struct st_pin pin = tc_pin();

	st_skip_time(s, LEASE + 1);
	tc_renew(&b);
	assert_st(st_open(s, b.cl, &key, &name, NULL, R, W, true, &pin, &sid, NULL), NFS4_OK);
	ck_assert_uint_eq(flags_of(&a), SEQ4_STATUS_EXPIRED_ALL_STATE_REVOKED);
	sid = opened(&a, GONE, 1);
	ck_assert_uint_eq(flags_of(&a), SEQ4_STATUS_EXPIRED_SOME_STATE_REVOKED);
	st_export_revoke(s, GONE);
	ck_assert_uint_eq(flags_of(&a), SEQ4_STATUS_EXPIRED_SOME_STATE_REVOKED | SEQ4_STATUS_ADMIN_STATE_REVOKED);
	opened(&a, GONE, 2);
	ck_assert_uint_eq(flags_of(&a), SEQ4_STATUS_EXPIRED_SOME_STATE_REVOKED | SEQ4_STATUS_ADMIN_STATE_REVOKED);
	assert_st(st_test_stateid(s, a.cl, &silent), NFS4ERR_EXPIRED);
	assert_st(st_free_stateid(s, a.cl, &silent), NFS4_OK);
	ck_assert_uint_eq(flags_of(&a), SEQ4_STATUS_ADMIN_STATE_REVOKED);
	assert_st(st_free_stateid(s, a.cl, &sid), NFS4_OK);
	ck_assert_uint_eq(flags_of(&a), 0);
}
END_TEST

START_TEST(a_silent_client_loses_it_as_well)
{
	stateid4 sid = opened(&a, GONE, 1), other = opened(&a, OTHER, 1);

	st_skip_time(s, LEASE + 1);
	ck_assert_uint_eq(st_export_revoke(s, GONE), 1);
	tc_renew(&a);
	ck_assert_uint_eq(flags_of(&a), SEQ4_STATUS_ADMIN_STATE_REVOKED);
	assert_st(st_test_stateid(s, a.cl, &sid), NFS4ERR_ADMIN_REVOKED);
	assert_st(st_test_stateid(s, a.cl, &other), NFS4_OK);
}
END_TEST

START_TEST(its_client_stays_on_record)
{
	struct tc again;

	opened(&a, GONE, 1);
	st_export_revoke(s, GONE);
	st_free(s);
	start();
	again = tc_connect(s, "a");
	assert_st(st_may_reclaim(s, again.cl), NFS4_OK);
}
END_TEST

/* An OPEN that looked the export up before it was taken away and comes too late: its pin would keep it. */
START_TEST(nothing_is_opened_there_afterwards)
{
	struct st_fhkey key = at(GONE, 1);
	atomic_bool gone = false;
	struct st_pin pin = tc_pin();
	stateid4 sid, late;

	pin.gone = &gone;
	assert_st(open_pin(&a, &key, pin, &sid), NFS4_OK);
	atomic_store(&gone, true);
	assert_st(open_pin(&b, &key, pin, &late), NFS4ERR_STALE);
	ck_assert_int_eq(tc_pins_put, 1);
	st_export_revoke(s, GONE);
	ck_assert_int_eq(tc_pins_put, 2);
	assert_st(open_pin(&a, &key, pin, &late), NFS4ERR_STALE);
	ck_assert_int_eq(tc_pins_put, 3);
	ck_assert(!st_file_is_open(s, &key));
}
END_TEST

START_TEST(advice_goes_with_it)
{
	struct fs_node node = {.ino = 1};
	struct st_fhkey key = at(GONE, 1);
	struct st_pin pin = tc_pin();
	stateid4 sid;

	pin.node = &node;
	assert_st(open_pin(&a, &key, pin, &sid), NFS4_OK);
	atomic_store(&node.stream.mode, 2);
	st_export_revoke(s, GONE);
	ck_assert_uint_eq(atomic_load(&node.stream.mode), 0);
}
END_TEST

/* Memory of what was revoked is bounded: by twice what a client may have open, here 4. */
START_TEST(who_never_frees_any_is_not_remembered_for_ever)
{
	stateid4 first[4], sid = {0};
	unsigned left = 0;

	for (unsigned i = 0; i < 4; i++)
		first[i] = opened(&a, GONE, i);
	st_export_revoke(s, GONE);
	for (unsigned i = 0; i < 7; i++) {
		left = 0;
		for (unsigned k = 0; k < 4; k++)
			left += st_test_stateid(s, a.cl, &first[k]) == NFS4ERR_ADMIN_REVOKED;
		ck_assert_uint_eq(left, i <= 4 ? 4 : 8 - i);
		sid = opened(&a, GONE, i);
		st_export_revoke(s, GONE);
	}
	ck_assert_uint_eq(left, 2);
	assert_st(st_test_stateid(s, a.cl, &sid), NFS4ERR_ADMIN_REVOKED);
	ck_assert_uint_eq(flags_of(&a), SEQ4_STATUS_ADMIN_STATE_REVOKED);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("state: revocation by export");
	TCase *tc = tcase_create("all");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, who_held_something_there_is_told_and_frees_it);
	tcase_add_test(tc, freeing_an_open_frees_the_locks_under_it);
	tcase_add_test(tc, what_is_open_elsewhere_stays);
	tcase_add_test(tc, what_was_revoked_for_one_reason_hides_nothing_of_the_other);
	tcase_add_test(tc, a_silent_client_loses_it_as_well);
	tcase_add_test(tc, its_client_stays_on_record);
	tcase_add_test(tc, nothing_is_opened_there_afterwards);
	tcase_add_test(tc, advice_goes_with_it);
	tcase_add_test(tc, who_never_frees_any_is_not_remembered_for_ever);
	suite_add_tcase(suite, tc);
	r = srunner_create(suite);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* test_state_reclaim.c - client records, the grace period, and who may take back what after a restart */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "server/state/record.h"
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
	return (struct st_lock){
		.write = true, .offset = 0, .length = 10, .new_owner = true, .sid = *open, .owner = tc_name(owner)};
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
	assert_st(st_io_check(s, b.cl, &(struct st_fhkey){.ino = 3}, &(stateid4){.seqid = 0}, 2), NFS4ERR_GRACE);
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
	tcase_add_test(t, who_comes_back_after_the_grace_period_starts_anew);
	tcase_add_test(t, a_client_that_lost_its_lock_to_another_does_not_reclaim_it);
	tcase_add_test(t, a_silent_client_that_nobody_misses_may_reclaim);
	tcase_add_test(t, records_that_are_something_else_are_refused);
	suite_add_tcase(su, t);
	r = srunner_create(su);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}

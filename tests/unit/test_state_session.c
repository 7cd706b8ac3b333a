/* SPDX-License-Identifier: BSD-3-Clause */
/* test_state_session.c - clients, sessions, slots: RFC 8881 §18.35, §18.36, §18.46, §2.10.6 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>

#include "tests/unit/st_fixture.h"

static struct st *s;

static void setup(void)
{
	s = tc_state(NULL);
}

static void teardown(void)
{
	st_free(s);
}

static uint64_t exchange(const char *owner, uint64_t verifier, uint32_t uid, bool *confirmed)
{
	struct st_exchange x = tc_exchange(owner, verifier, uid);

	assert_st(st_exchange_id(s, &x), NFS4_OK);
	if (confirmed)
		*confirmed = x.confirmed;
	return x.clientid;
}

static nfsstat4 confirm(uint64_t id, uint32_t uid)
{
	struct st_create cs = tc_create(id, 1);

	cs.who.uid = uid;
	return st_create_session(s, &cs);
}

static nfsstat4 update(const char *owner, uint64_t verifier, uint32_t uid)
{
	struct st_exchange x = tc_exchange(owner, verifier, uid);

	x.update = true;
	return st_exchange_id(s, &x);
}

/* ---- EXCHANGE_ID ------------------------------------------------------------------------------------------------------- */

/* RFC 8881 §18.35.4 case 1 */
START_TEST(exchange_id_of_a_new_owner_is_unconfirmed_and_starts_at_sequence_1)
{
	struct st_exchange x = tc_exchange("a", 1, 0);

	assert_st(st_exchange_id(s, &x), NFS4_OK);
	ck_assert(!x.confirmed);
	ck_assert_uint_eq(x.sequenceid, 1);
}
END_TEST

/* case 2 */
START_TEST(exchange_id_again_of_a_confirmed_client_returns_the_same_clientid)
{
	uint64_t id = exchange("a", 1, 0, NULL);
	bool confirmed;

	assert_st(confirm(id, 0), NFS4_OK);
	ck_assert_uint_eq(exchange("a", 1, 0, &confirmed), id);
	ck_assert(confirmed);
}
END_TEST

/* case 3 */
START_TEST(exchange_id_by_another_principal_is_refused_while_the_client_holds_state)
{
	struct tc t = tc_client(s, "a");
	struct st_exchange x = tc_exchange("a", 2, 77);
	stateid4 sid;

	assert_st(tc_open(&t, 1, "o", 1, 0, &sid), NFS4_OK);
	assert_st(st_exchange_id(s, &x), NFS4ERR_CLID_INUSE);
}
END_TEST

/* case 3 */
START_TEST(exchange_id_by_another_principal_takes_over_an_owner_without_state)
{
	struct tc t = tc_client(s, "a");
	uint64_t id = exchange("a", 2, 77, NULL);
	struct st_create cs = tc_create(t.id, 2);

	ck_assert_uint_ne(id, t.id);
	assert_st(st_create_session(s, &cs), NFS4ERR_STALE_CLIENTID);
}
END_TEST

/* case 3 */
START_TEST(exchange_id_by_another_principal_takes_over_an_owner_whose_lease_is_over)
{
	struct tc t = tc_client(s, "a");
	stateid4 sid;

	assert_st(tc_open(&t, 1, "o", 1, 0, &sid), NFS4_OK);
	st_skip_time(s, LEASE + 1);
	ck_assert_uint_ne(exchange("a", 2, 77, NULL), t.id);
	ck_assert_int_eq(tc_pins_put, 1);
}
END_TEST

/* case 4: all four combinations of verifier and principal */
START_TEST(exchange_id_again_of_an_unconfirmed_client_replaces_the_record)
{
	uint64_t id = exchange("a", 1, 0, NULL), again;

	for (unsigned i = 0; i < 4; i++) {
		again = exchange("a", i & 1 ? 1 : 2, i & 2 ? 5 : 0, NULL);
		ck_assert_uint_ne(again, id);
		assert_st(confirm(id, 0), NFS4ERR_STALE_CLIENTID);
		id = again;
	}
}
END_TEST

/* case 5 */
START_TEST(restarted_client_loses_its_old_state_only_when_the_new_record_is_confirmed)
{
	struct tc t = tc_client(s, "a");
	struct st_call call;
	struct st_seq q;
	stateid4 sid;
	uint64_t id;

	assert_st(tc_open(&t, 1, "o", 3, 3, &sid), NFS4_OK);
	id = exchange("a", 2, 0, NULL);
	ck_assert_uint_ne(id, t.id);
	tc_renew(&t); /* still there */
	assert_st(confirm(id, 0), NFS4_OK);
	assert_st(tc_begin(&t, 0, false, 2, &q, &call), NFS4ERR_BADSESSION);
	ck_assert_int_eq(tc_pins_put, 1);
}
END_TEST

/* cases 6 to 9 */
START_TEST(exchange_id_update_needs_a_confirmed_record_its_verifier_and_its_principal)
{
	uint64_t id;

	assert_st(update("a", 1, 0), NFS4ERR_NOENT);
	id = exchange("a", 1, 0, NULL);
	assert_st(update("a", 1, 0), NFS4ERR_NOENT);
	assert_st(confirm(id, 0), NFS4_OK);
	assert_st(update("a", 1, 0), NFS4_OK);
	assert_st(update("a", 2, 0), NFS4ERR_NOT_SAME);
	assert_st(update("a", 1, 9), NFS4ERR_PERM);
}
END_TEST

START_TEST(owners_are_compared_by_length_and_bytes)
{
	uint64_t a = exchange("owner", 1, 0, NULL), b = exchange("owner2", 1, 0, NULL);

	ck_assert_uint_ne(a, b);
	assert_st(confirm(a, 0), NFS4_OK);
	assert_st(confirm(b, 0), NFS4_OK);
}
END_TEST

START_TEST(owner_longer_than_the_protocol_allows_is_refused)
{
	char big[ST_NAME_MAX + 2];
	struct st_exchange x;

	memset(big, 'x', sizeof big);
	big[sizeof big - 1] = 0;
	x = tc_exchange(big, 1, 0);
	assert_st(st_exchange_id(s, &x), NFS4ERR_BADXDR);
}
END_TEST

START_TEST(clients_are_bounded_and_unconfirmed_ones_make_room)
{
	const struct st_opts o = {.max_clients = 4};
	struct st *small = tc_state(&o);
	struct st_stats stats;
	struct tc live[3];
	char name[32];

	for (int i = 0; i < 3; i++) {
		snprintf(name, sizeof name, "live%d", i);
		live[i] = tc_client(small, name);
	}
	for (int i = 0; i < 1000; i++) {
		struct st_exchange x;

		snprintf(name, sizeof name, "flood%d", i);
		x = tc_exchange(name, 1, 0);
		assert_st(st_exchange_id(small, &x), NFS4_OK);
	}
	for (int i = 0; i < 3; i++)
		tc_renew(&live[i]);
	st_get_stats(small, &stats);
	ck_assert_uint_eq(stats.clients, 4);
	st_free(small);
}
END_TEST

enum { LONG_LEASE = 36000 }; /* so long that nothing of it passes while a test runs */

/* @n clients that hold a file each, and were not heard of for a lease. */
static struct st *with_silent_ones(unsigned max, unsigned n)
{
	const struct st_opts o = {.lease_seconds = LONG_LEASE, .max_clients = max};
	struct st *st = tc_state(&o);
	stateid4 sid;

	for (unsigned i = 0; i < n; i++) {
		char name[32];
		struct tc t;

		snprintf(name, sizeof name, "silent%u", i);
		t = tc_client(st, name);
		assert_st(tc_open(&t, i, "o", 1, 0, &sid), NFS4_OK);
	}
	st_skip_time(st, LONG_LEASE + 1);
	return st;
}

static uint64_t opens_of(struct st *st)
{
	struct st_stats stats;

	st_get_stats(st, &stats);
	return stats.opens;
}

static uint64_t newcomer(struct st *to, const char *name)
{
	struct st_exchange x = tc_exchange(name, 1, 0);

	assert_st(st_exchange_id(to, &x), NFS4_OK);
	return x.clientid;
}

static void comes_to_stay(struct st *to, uint64_t id)
{
	struct st_create cs = tc_create(id, 1);

	assert_st(st_create_session(to, &cs), NFS4_OK);
}

START_TEST(a_flood_of_new_clients_costs_silent_ones_little)
{
	struct st *small = with_silent_ones(32, 28);
	struct st_stats stats;

	for (unsigned i = 0; i < 1000; i++) {
		char name[32];

		snprintf(name, sizeof name, "flood%u", i);
		newcomer(small, name);
	}
	st_get_stats(small, &stats);
	ck_assert_uint_eq(stats.clients, 32);
	ck_assert_uint_eq(stats.opens, 27); /* an eighth of all is waited for; then it is theirs to go */
	st_free(small);
}
END_TEST

START_TEST(a_new_client_has_time_for_its_session_and_goes_first_after_that)
{
	struct st *small = with_silent_ones(16, 15);
	uint64_t x, y;

	/* Two that come at once do not chase each other away. */
	x = newcomer(small, "x");
	y = newcomer(small, "y");
	comes_to_stay(small, x);
	comes_to_stay(small, y);
	ck_assert_uint_eq(opens_of(small), 14);
	newcomer(small, "late");
	ck_assert_uint_eq(opens_of(small), 13);
	st_skip_time(small, LONG_LEASE / 2);
	comes_to_stay(small, newcomer(small, "z"));
	ck_assert_uint_eq(opens_of(small), 13);
	st_free(small);
}
END_TEST

/* ---- CREATE_SESSION ------------------------------------------------------------------------------------------------------- */

/* RFC 8881 §18.36.4 */
START_TEST(create_session_retry_gets_the_same_session)
{
	struct st_create one = tc_create(exchange("a", 1, 0, NULL), 1), two = one;

	assert_st(st_create_session(s, &one), NFS4_OK);
	two.fore.max_slots = 3;
	assert_st(st_create_session(s, &two), NFS4_OK);
	ck_assert_mem_eq(one.sessionid, two.sessionid, 16);
	ck_assert_uint_eq(two.fore.max_slots, one.fore.max_slots);
}
END_TEST

/* §18.36.4: the contrived replay, a gap, and the past */
START_TEST(create_session_out_of_sequence_is_misordered)
{
	uint64_t id = exchange("a", 1, 0, NULL);
	struct st_create cs;

	cs = tc_create(id, 0);
	assert_st(st_create_session(s, &cs), NFS4ERR_SEQ_MISORDERED);
	cs = tc_create(id, 2);
	assert_st(st_create_session(s, &cs), NFS4ERR_SEQ_MISORDERED);
	assert_st(confirm(id, 0), NFS4_OK);
	cs = tc_create(id, 3);
	assert_st(st_create_session(s, &cs), NFS4ERR_SEQ_MISORDERED);
	cs = tc_create(id, 0);
	assert_st(st_create_session(s, &cs), NFS4ERR_SEQ_MISORDERED);
}
END_TEST

/* §18.36.3 */
START_TEST(create_session_by_another_principal_cannot_confirm)
{
	uint64_t id = exchange("a", 1, 0, NULL);

	assert_st(confirm(id, 5), NFS4ERR_CLID_INUSE);
	assert_st(confirm(id, 5), NFS4ERR_CLID_INUSE);
	assert_st(confirm(id, 0), NFS4_OK);
}
END_TEST

/* Neither a session of its own, nor, by sending the owner's request again, the owner's. */
START_TEST(create_session_of_a_confirmed_client_by_another_principal_is_refused)
{
	static const struct st_principal others[] = {{1, 5}, {0, 0}};
	uint64_t id = exchange("a", 1, 0, NULL);

	assert_st(confirm(id, 0), NFS4_OK);
	for (unsigned i = 0; i < ARRAY_LEN(others); i++)
		for (uint32_t seq = 0; seq <= 3; seq++) {
			struct st_create cs = tc_create(id, seq);

			cs.who = others[i];
			assert_st(st_create_session(s, &cs), NFS4ERR_CLID_INUSE);
		}
	comes_to_stay(s, id);
}
END_TEST

/* How many bits differ between what follows one another: of a counter a few, of chance half of them. */
static unsigned bits_apart(const uint8_t *a, const uint8_t *b, size_t n)
{
	unsigned bits = 0;

	for (size_t i = 0; i < n; i++)
		bits += (unsigned)__builtin_popcount(a[i] ^ b[i]);
	return bits;
}

START_TEST(ids_of_others_cannot_be_told_from_ones_own)
{
	enum { N = 64 };
	unsigned of_client = 0, of_session = 0, of_open = 0;
	uint8_t sessions[N][16];
	uint64_t clients[N];
	stateid4 opens[N];

	for (unsigned i = 0; i < N; i++) {
		char name[16];
		struct tc t;

		snprintf(name, sizeof name, "%u", i);
		t = tc_client(s, name);
		assert_st(tc_open(&t, 5, "o", OPEN4_SHARE_ACCESS_READ, 0, &opens[i]), NFS4_OK);
		clients[i] = t.id;
		memcpy(sessions[i], t.session, 16);
	}
	for (unsigned i = 1; i < N; i++) {
		of_client += bits_apart((uint8_t *)&clients[i - 1], (uint8_t *)&clients[i], 8);
		of_session += bits_apart(sessions[i - 1], sessions[i], 16);
		of_open += bits_apart((uint8_t *)opens[i - 1].other, (uint8_t *)opens[i].other, 12);
	}
	/* By chance half of the bits differ: 32, 64 and 32 of each pair. Of a counter it would be two. */
	ck_assert_uint_gt(of_client / (N - 1), 24);
	ck_assert_uint_gt(of_session / (N - 1), 48);
	ck_assert_uint_gt(of_open / (N - 1), 24);
}
END_TEST

START_TEST(destroy_clientid_by_another_principal_is_refused)
{
	uint64_t id = exchange("a", 1, 0, NULL);

	assert_st(st_destroy_clientid(s, id, &(struct st_principal){1, 5}), NFS4ERR_WRONG_CRED);
	assert_st(st_destroy_clientid(s, id, &(struct st_principal){1, 0}), NFS4_OK);
}
END_TEST

START_TEST(create_session_with_unknown_flags_or_channels_too_small_does_not_use_up_the_sequence)
{
	uint64_t id = exchange("a", 1, 0, NULL);
	struct st_create cs;

	cs = tc_create(id, 1);
	cs.flags = 0x8;
	assert_st(st_create_session(s, &cs), NFS4ERR_INVAL);
	cs = tc_create(id, 1);
	cs.fore.max_request = 20;
	assert_st(st_create_session(s, &cs), NFS4ERR_TOOSMALL);
	cs = tc_create(id, 1);
	cs.fore.max_response = 0;
	assert_st(st_create_session(s, &cs), NFS4ERR_TOOSMALL);
	cs = tc_create(id, 1);
	cs.back.max_ops = 1;
	assert_st(st_create_session(s, &cs), NFS4ERR_TOOSMALL);
	assert_st(confirm(id, 0), NFS4_OK);
}
END_TEST

/* §18.36.3: never more than asked for, never more than we have */
START_TEST(channels_are_granted_within_what_was_asked_and_what_there_is)
{
	struct st_create cs = tc_create(exchange("a", 1, 0, NULL), 1);

	cs.flags = CREATE_SESSION4_FLAG_PERSIST | CREATE_SESSION4_FLAG_CONN_RDMA;
	cs.fore = (struct st_channel){UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX};
	cs.back = cs.fore;
	assert_st(st_create_session(s, &cs), NFS4_OK);
	ck_assert_uint_eq(cs.flags, 0);
	ck_assert_uint_le(cs.fore.max_request, 2 << 20);
	ck_assert_uint_le(cs.fore.max_cached, 65536);
	ck_assert_uint_eq(cs.fore.max_slots, 64);
	ck_assert_uint_le(cs.fore.max_ops, 1024);

	cs = tc_create(exchange("b", 1, 0, NULL), 1);
	cs.fore = (struct st_channel){512, 400, 10, 4, 2049};
	assert_st(st_create_session(s, &cs), NFS4_OK);
	ck_assert_uint_eq(cs.fore.max_request, 512);
	ck_assert_uint_eq(cs.fore.max_response, 400);
	ck_assert_uint_eq(cs.fore.max_cached, 10);
	ck_assert_uint_eq(cs.fore.max_ops, 4);
	ck_assert_uint_lt(cs.fore.max_slots, 2049);
}
END_TEST

/* A client from 10.0.@net.@host that is asked for as many slots as there are. */
static struct st_create comes_from(struct st *to, unsigned net, unsigned host, unsigned n)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x0a000000 | net << 8 | host)};
	struct st_exchange x;
	struct st_create cs;
	char name[48];

	snprintf(name, sizeof name, "%u.%u/%u", net, host, n);
	x = tc_exchange(name, 1, 0);
	x.peer = (struct sockaddr *)&sa;
	assert_st(st_exchange_id(to, &x), NFS4_OK);
	cs = tc_create(x.clientid, 1);
	cs.fore.max_cached = UINT32_MAX;
	cs.fore.max_slots = UINT32_MAX;
	return cs;
}

START_TEST(replay_budget_bounds_what_all_sessions_have_beyond_one_slot)
{
	const struct st_opts o = {.replay_bytes = 256 * 1024};
	struct st *small = tc_state(&o);
	struct st_stats stats;

	for (unsigned i = 0; i < 1000; i++) {
		struct st_create cs = comes_from(small, i / 250, i % 250, i);

		assert_st(st_create_session(small, &cs), NFS4_OK);
		ck_assert_uint_ge(cs.fore.max_slots, 1);
		st_get_stats(small, &stats);
		ck_assert_uint_le(stats.replay_reserved, o.replay_bytes);
	}
	st_free(small);
}
END_TEST

START_TEST(one_address_leaves_slots_for_the_others)
{
	enum { ASKED = 8 };
	const struct st_opts o = {.replay_bytes = 1024 * 1024, .max_slots = ASKED};
	struct st *small = tc_state(&o);
	struct st_create cs;

	for (unsigned i = 0; i < 2000; i++) {
		cs = comes_from(small, 0, 1, i);
		assert_st(st_create_session(small, &cs), NFS4_OK);
	}
	ck_assert_uint_eq(cs.fore.max_slots, 1);
	cs = comes_from(small, 1, 1, 0);
	assert_st(st_create_session(small, &cs), NFS4_OK);
	ck_assert_uint_gt(cs.fore.max_slots, ASKED / 2);
	st_free(small);
}
END_TEST

/* As many as there may be, from one address, all alive: the next of another one replaces the idlest of them, and it alone. */
START_TEST(newcomer_takes_the_place_of_the_idlest_client_of_the_greediest_address)
{
	enum { ALL = 64 };
	const struct st_opts o = {.max_clients = ALL};
	struct st *small = tc_state(&o);
	struct st_stats stats;
	struct tc greedy[ALL];
	struct st_call call;
	struct st_seq q;

	for (unsigned i = 0; i < ALL; i++) {
		struct st_create cs = comes_from(small, 0, 1, i);

		assert_st(st_create_session(small, &cs), NFS4_OK);
		greedy[i] = (struct tc){.s = small};
		memcpy(greedy[i].session, cs.sessionid, 16);
	}
	st_skip_time(small, LEASE / 2);
	for (unsigned i = 0; i < ALL; i++)
		if (i != 17)
			tc_renew(&greedy[i]);
	comes_from(small, 1, 1, 0);
	assert_st(tc_begin(&greedy[17], 0, false, 1, &q, &call), NFS4ERR_BADSESSION);
	for (unsigned i = 0; i < ALL; i++)
		if (i != 17)
			tc_renew(&greedy[i]);
	st_get_stats(small, &stats);
	ck_assert_uint_eq(stats.clients, ALL);
	st_free(small);
}
END_TEST

/* It has more than anybody else: so others keep what they have, also those that are silent. */
START_TEST(greediest_address_takes_the_place_of_nobody_elses_client)
{
	enum { ALL = 64, OTHERS = 20 };
	const struct st_opts o = {.max_clients = ALL, .lease_seconds = LONG_LEASE};
	struct st *small = tc_state(&o);
	struct st_stats stats;
	stateid4 sid;

	for (unsigned i = 0; i < OTHERS; i++) {
		struct st_create cs = comes_from(small, 1 + i, 1, 0);
		struct tc t = {.s = small};
		struct st_call call;
		struct st_seq q;

		assert_st(st_create_session(small, &cs), NFS4_OK);
		memcpy(t.session, cs.sessionid, 16);
		assert_st(tc_begin(&t, 0, false, 2, &q, &call), NFS4_OK);
		t.cl = call.client;
		tc_finish(small, &call, 64, 0);
		assert_st(tc_open(&t, i, "o", 1, 0, &sid), NFS4_OK);
	}
	st_skip_time(small, LONG_LEASE + 1);
	for (unsigned i = 0; i < 1000; i++)
		comes_from(small, 0, 1, i);
	st_get_stats(small, &stats);
	ck_assert_uint_eq(stats.clients, ALL);
	ck_assert_uint_eq(stats.opens, OTHERS);
	st_free(small);
}
END_TEST

/* ---- slots that are asked back -------------------------------------------------------------------------------------------- */

static struct tc with_slots(struct st *to, unsigned i)
{
	struct st_create cs = comes_from(to, i, 1, i);
	struct tc t = {.s = to};

	assert_st(st_create_session(to, &cs), NFS4_OK);
	memcpy(t.session, cs.sessionid, 16);
	return t;
}

static uint64_t reserved(struct st *of)
{
	struct st_stats stats;

	st_get_stats(of, &stats);
	return stats.replay_reserved;
}

/* One request in slot 0; the target that it is told. */
static uint32_t target_of(struct tc *t)
{
	struct st_call call;
	struct st_seq q;

	assert_st(tc_begin(t, 0, false, 2, &q, &call), NFS4_OK);
	tc_finish(t->s, &call, 64, 0);
	return q.target;
}

/* RFC 8881 §2.10.6.1: a lower target, then a client that keeps to it, then the slots are gone; and back when there is room. */
START_TEST(sessions_give_slots_back_when_few_are_left_and_have_them_again_later)
{
	enum { N = 200 };
	const struct st_opts o = {.replay_bytes = 512 * 1024, .max_slots = 16};
	struct st *small = tc_state(&o);
	uint64_t before;
	struct tc t[N];
	struct st_call call;
	struct st_seq q;

	for (unsigned i = 0; i < N; i++)
		t[i] = with_slots(small, i);
	ck_assert_uint_gt(target_of(&t[0]), 2);
	before = reserved(small);
	st_tick(small);
	ck_assert_uint_lt(target_of(&t[0]), 3);
	st_tick(small);
	ck_assert_uint_eq(reserved(small), before); /* it may not have read that yet */
	t[0].seq[3] = 0;
	assert_st(tc_begin(&t[0], 3, true, 2, &q, &call), NFS4_OK);
	tc_finish(small, &call, 1000, 1);
	target_of(&t[0]);
	st_tick(small);
	ck_assert_uint_lt(reserved(small), before);
	assert_st(tc_begin(&t[0], 3, false, 2, &q, &call), NFS4ERR_BADSLOT);
	for (unsigned i = 1; i < N; i++)
		assert_st(st_destroy_session(small, t[i].session, 0), NFS4_OK);
	for (int i = 0; i < 8; i++)
		st_tick(small);
	ck_assert_uint_gt(target_of(&t[0]), 2);
	t[0].seq[3] = 0; /* a new slot */
	assert_st(tc_begin(&t[0], 3, false, 2, &q, &call), NFS4_OK);
	tc_finish(small, &call, 64, 0);
	st_free(small);
}
END_TEST

START_TEST(slot_in_use_is_not_taken_back)
{
	enum { N = 200 };
	const struct st_opts o = {.replay_bytes = 512 * 1024, .max_slots = 16};
	struct st *small = tc_state(&o);
	struct st_call running;
	uint64_t before;
	struct tc t[N];
	struct st_seq q;

	for (unsigned i = 0; i < N; i++)
		t[i] = with_slots(small, i);
	assert_st(tc_begin(&t[0], 5, true, 2, &q, &running), NFS4_OK);
	before = reserved(small);
	st_tick(small);
	for (int i = 0; i < 3; i++)
		target_of(&t[0]);
	st_tick(small);
	ck_assert_uint_eq(reserved(small), before);
	tc_finish(small, &running, 1000, 1);
	st_tick(small);
	ck_assert_uint_lt(reserved(small), before);
	st_free(small);
}
END_TEST

START_TEST(client_that_has_as_many_sessions_as_it_may_have_is_told_so)
{
	struct tc silent = tc_client(s, "silent"), greedy;
	struct st_stats stats;
	struct st_create cs;
	nfsstat4 st = NFS4_OK;
	stateid4 sid;

	assert_st(tc_open(&silent, 1, "o", 1, 0, &sid), NFS4_OK);
	st_skip_time(s, LEASE + 1);
	greedy = tc_client(s, "greedy");
	for (uint32_t i = 2; i < 1000 && st == NFS4_OK; i++) {
		cs = tc_create(greedy.id, i);
		st = st_create_session(s, &cs);
	}
	assert_st(st, NFS4ERR_NOSPC);
	st_get_stats(s, &stats);
	ck_assert_uint_eq(stats.courtesy, 1);
	ck_assert_uint_eq(stats.opens, 1);
	tc_renew(&silent);
}
END_TEST

/* Better that a request waits than that its reply is lost. */
START_TEST(cached_replies_beyond_one_of_each_client_stay_within_the_budget)
{
	const struct st_opts o = {.replay_bytes = 16 * 1024};
	struct st *small = tc_state(&o);
	struct tc t[20] = {{0}};
	struct st_stats stats;
	struct st_call call;
	struct st_seq q;
	unsigned kept = 0;

	for (int i = 0; i < 20; i++) {
		struct st_exchange x;
		struct st_create cs;
		char name[32];

		snprintf(name, sizeof name, "m%d", i);
		x = tc_exchange(name, 1, 0);
		assert_st(st_exchange_id(small, &x), NFS4_OK);
		cs = tc_create(x.clientid, 1);
		assert_st(st_create_session(small, &cs), NFS4_OK);
		t[i].s = small;
		memcpy(t[i].session, cs.sessionid, 16);
		assert_st(tc_begin(&t[i], 0, true, 3, &q, &call), NFS4_OK);
		tc_finish(small, &call, 1900, 1);
		if (cs.fore.max_slots < 2)
			continue;
		if (tc_begin(&t[i], 1, true, 3, &q, &call) == NFS4_OK) {
			kept++;
		} else {
			assert_st(st_slot_begin(small, &q, &call), NFS4ERR_DELAY);
			assert_st(tc_begin(&t[i], 1, false, 3, &q, &call), NFS4_OK);
		}
		tc_finish(small, &call, 1900, 1);
		st_get_stats(small, &stats);
		ck_assert_uint_le(stats.replay_bytes, o.replay_bytes + 20 * 2048);
	}
	ck_assert_uint_lt(kept, 20);
	/* who holds room already goes on */
	assert_st(tc_begin(&t[0], 0, true, 3, &q, &call), NFS4_OK);
	tc_finish(small, &call, 1900, 1);
	st_free(small);
}
END_TEST

/* §18.37, §18.50 */
START_TEST(client_with_a_session_is_busy_until_the_session_is_destroyed)
{
	struct tc t = tc_client(s, "a");

	assert_st(st_destroy_clientid(s, t.id, NULL), NFS4ERR_CLIENTID_BUSY);
	assert_st(st_destroy_session(s, t.session, 0), NFS4_OK);
	assert_st(st_destroy_session(s, t.session, 0), NFS4ERR_BADSESSION);
	assert_st(st_destroy_clientid(s, t.id, NULL), NFS4_OK);
	assert_st(st_destroy_clientid(s, t.id, NULL), NFS4ERR_STALE_CLIENTID);
}
END_TEST

/* RFC 8881 §18.37.3; pynfs DSESS9001. A connection belongs to the session that it has been used for. */
START_TEST(session_is_destroyed_over_a_connection_of_its_own)
{
	struct tc t = tc_client(s, "a");
	struct st_call call;
	struct st_seq q = {
		.sessionid = t.session, .slotid = 2, .seqid = 1, .highest_slotid = 2, .nops = 2, .reply_min = 80};

	assert_st(st_destroy_session(s, t.session, 4711), NFS4ERR_CONN_NOT_BOUND_TO_SESSION);
	q.conn = 4711;
	assert_st(st_slot_begin(s, &q, &call), NFS4_OK);
	tc_finish(s, &call, 64, 0);
	/* Another one used the slot since; that takes nothing away. */
	q.seqid++;
	q.conn = 4712;
	assert_st(st_slot_begin(s, &q, &call), NFS4_OK);
	tc_finish(s, &call, 64, 0);
	assert_st(st_destroy_session(s, t.session, 4713), NFS4ERR_CONN_NOT_BOUND_TO_SESSION);
	assert_st(st_destroy_session(s, t.session, 4711), NFS4_OK);
}
END_TEST

START_TEST(connections_of_a_session_are_remembered_in_bounds)
{
	struct tc t = tc_client(s, "a");
	struct st_call call;
	struct st_seq q = {.sessionid = t.session, .slotid = 2, .highest_slotid = 2, .nops = 2, .reply_min = 80};

	for (q.conn = 1; q.conn <= 1000; q.conn++) {
		q.seqid++;
		assert_st(st_slot_begin(s, &q, &call), NFS4_OK);
		tc_finish(s, &call, 64, 0);
	}
	assert_st(st_destroy_session(s, t.session, 1), NFS4ERR_CONN_NOT_BOUND_TO_SESSION);
	assert_st(st_destroy_session(s, t.session, 985), NFS4_OK); /* of the last sixteen */
}
END_TEST

START_TEST(client_with_an_open_file_is_busy_without_any_session)
{
	struct tc t = tc_client(s, "a");
	stateid4 sid;

	assert_st(tc_open(&t, 1, "o", 1, 0, &sid), NFS4_OK);
	assert_st(st_destroy_session(s, t.session, 0), NFS4_OK);
	assert_st(st_destroy_clientid(s, t.id, NULL), NFS4ERR_CLIENTID_BUSY);
}
END_TEST

START_TEST(unconfirmed_client_can_be_destroyed)
{
	uint64_t id = exchange("a", 1, 0, NULL);

	assert_st(st_destroy_clientid(s, id, NULL), NFS4_OK);
}
END_TEST

/* §18.37.3: the reply of the call that destroys its own session still has to go out */
START_TEST(call_in_a_session_that_is_destroyed_finishes)
{
	struct tc t = tc_client(s, "a");
	struct st_call call;
	struct st_seq q;

	assert_st(tc_begin(&t, 0, true, 2, &q, &call), NFS4_OK);
	assert_st(st_destroy_session(s, t.session, 0), NFS4_OK);
	assert_st(st_destroy_clientid(s, t.id, NULL), NFS4_OK);
	tc_finish(s, &call, 100, 1);
}
END_TEST

/* §18.51 */
START_TEST(reclaim_complete_twice_is_complete_already)
{
	struct tc t = tc_client(s, "a");

	assert_st(st_reclaim_complete(s, t.cl, false), NFS4ERR_COMPLETE_ALREADY);
	assert_st(st_reclaim_complete(s, t.cl, true), NFS4_OK);
	assert_st(st_may_claim(s, t.cl), NFS4_OK);
}
END_TEST

/* §18.51.3 */
START_TEST(open_before_reclaim_complete_is_told_to_wait_for_the_grace_period)
{
	struct st_exchange x = tc_exchange("a", 1, 0);
	struct tc t = {.s = s};
	struct st_create cs;
	struct st_call call;
	struct st_seq q;

	assert_st(st_exchange_id(s, &x), NFS4_OK);
	cs = tc_create(x.clientid, 1);
	assert_st(st_create_session(s, &cs), NFS4_OK);
	memcpy(t.session, cs.sessionid, 16);
	assert_st(tc_begin(&t, 0, false, 2, &q, &call), NFS4_OK);
	assert_st(st_may_claim(s, call.client), NFS4ERR_GRACE);
	tc_finish(s, &call, 60, 0);
}
END_TEST

/* ---- SEQUENCE ---------------------------------------------------------------------------------------------------------------- */

/* §2.10.6.1.3 */
START_TEST(retry_gets_the_cached_reply_byte_for_byte)
{
	struct tc t = tc_client(s, "a");
	struct st_call call;
	struct st_seq q;

	assert_st(tc_begin(&t, 0, true, 3, &q, &call), NFS4_OK);
	tc_finish(s, &call, 500, 0xab);
	for (int i = 0; i < 3; i++) {
		t.seq[0]--;
		assert_st(tc_begin(&t, 0, true, 3, &q, &call), ST_REPLAY);
		t.seq[0]++;
		ck_assert_uint_eq(q.reply_len, 500);
		for (size_t j = 0; j < q.reply_len; j++)
			ck_assert_uint_eq(((const uint8_t *)q.reply)[j], 0xab);
		st_slot_replayed(s, &call);
	}
	assert_st(tc_begin(&t, 0, true, 3, &q, &call), NFS4_OK);
	tc_finish(s, &call, 8, 1);
}
END_TEST

/* §2.10.6.1.3 */
START_TEST(retry_of_a_request_that_was_not_to_be_cached_is_told_so)
{
	struct tc t = tc_client(s, "a");
	struct st_call call;
	struct st_seq q;

	assert_st(tc_begin(&t, 0, false, 3, &q, &call), NFS4_OK);
	tc_finish(s, &call, 500, 1);
	t.seq[0]--;
	assert_st(tc_begin(&t, 0, false, 3, &q, &call), NFS4ERR_RETRY_UNCACHED_REP);
	t.seq[0]++;
	assert_st(tc_begin(&t, 0, false, 3, &q, &call), NFS4_OK);
	tc_finish(s, &call, 500, 1);
}
END_TEST

START_TEST(sequence_alone_can_be_sent_again_although_nothing_was_cached)
{
	struct tc t = tc_client(s, "a");
	struct st_call call;
	struct st_seq q;

	for (int i = 0; i < 3; i++) {
		t.seq[0] = 0;
		assert_st(tc_begin(&t, 0, i & 1, 1, &q, &call), NFS4_OK);
		tc_finish(s, &call, 60, 1);
	}
	t.seq[0] = 0;
	assert_st(tc_begin(&t, 0, true, 2, &q, &call), NFS4ERR_SEQ_FALSE_RETRY);
}
END_TEST

/* §2.10.6.1.3.1 */
START_TEST(different_request_under_an_old_sequence_is_a_false_retry)
{
	struct tc t = tc_client(s, "a");
	struct st_stats stats;
	struct st_call call;
	struct st_seq q;

	assert_st(tc_begin(&t, 0, true, 3, &q, &call), NFS4_OK);
	tc_finish(s, &call, 500, 1);
	q.fingerprint++;
	assert_st(st_slot_begin(s, &q, &call), NFS4ERR_SEQ_FALSE_RETRY);
	st_get_stats(s, &stats);
	ck_assert_uint_eq(stats.false_retries, 1);
}
END_TEST

/* §18.46.3 */
START_TEST(sequence_that_is_neither_next_nor_last_is_misordered_and_changes_nothing)
{
	struct tc t = tc_client(s, "a");
	struct st_call call;
	struct st_seq q;
	const uint32_t off[] = {0, 2, 3, 0x80000000u, UINT32_MAX};

	assert_st(tc_begin(&t, 0, true, 3, &q, &call), NFS4_OK);
	tc_finish(s, &call, 500, 1);
	for (size_t i = 0; i < sizeof off / sizeof *off; i++) {
		q.seqid = 1 + off[i];
		assert_st(st_slot_begin(s, &q, &call), off[i] ? NFS4ERR_SEQ_MISORDERED : ST_REPLAY);
		if (!off[i])
			st_slot_replayed(s, &call);
	}
	assert_st(tc_begin(&t, 0, true, 3, &q, &call), NFS4_OK);
	tc_finish(s, &call, 500, 1);
}
END_TEST

START_TEST(first_request_of_a_slot_has_sequence_1_and_0_is_misordered)
{
	struct tc t = tc_client(s, "a");
	struct st_call call;
	struct st_seq q;

	t.seq[3] = UINT32_MAX;
	assert_st(tc_begin(&t, 3, true, 3, &q, &call), NFS4ERR_SEQ_MISORDERED);
	t.seq[3] = 0;
	assert_st(tc_begin(&t, 3, true, 3, &q, &call), NFS4_OK);
	tc_finish(s, &call, 50, 1);
}
END_TEST

/* §2.10.6.2 */
START_TEST(retry_of_a_running_request_is_told_to_wait)
{
	struct tc t = tc_client(s, "a");
	struct st_call call, other;
	struct st_seq q;

	assert_st(tc_begin(&t, 0, true, 3, &q, &call), NFS4_OK);
	assert_st(st_slot_begin(s, &q, &other), NFS4ERR_DELAY);
	q.seqid++;
	assert_st(st_slot_begin(s, &q, &other), NFS4ERR_SEQ_MISORDERED);
	tc_finish(s, &call, 100, 7);
	q.seqid--;
	assert_st(st_slot_begin(s, &q, &other), ST_REPLAY);
	st_slot_replayed(s, &other);
}
END_TEST

/* a client that got the reply after all may go on while its retry is still being answered */
START_TEST(next_request_that_meets_the_replay_of_the_last_is_told_to_wait)
{
	struct tc t = tc_client(s, "a");
	struct st_call call, other;
	struct st_seq q;

	assert_st(tc_begin(&t, 0, true, 3, &q, &call), NFS4_OK);
	tc_finish(s, &call, 100, 7);
	assert_st(st_slot_begin(s, &q, &call), ST_REPLAY);
	q.seqid++;
	assert_st(st_slot_begin(s, &q, &other), NFS4ERR_DELAY);
	q.seqid++;
	assert_st(st_slot_begin(s, &q, &other), NFS4ERR_SEQ_MISORDERED);
	st_slot_replayed(s, &call);
	q.seqid--;
	assert_st(st_slot_begin(s, &q, &call), NFS4_OK);
	tc_finish(s, &call, 100, 7);
}
END_TEST

START_TEST(slots_beyond_the_table_and_unknown_sessions_are_refused)
{
	struct tc t = tc_client(s, "a");
	uint8_t wrong[16];
	struct st_call call;
	struct st_seq q;

	tc_begin(&t, 0, true, 3, &q, &call);
	tc_finish(s, &call, 100, 7);
	q.seqid++;
	q.slotid = 8;
	assert_st(st_slot_begin(s, &q, &call), NFS4ERR_BADSLOT);
	q.slotid = UINT32_MAX;
	assert_st(st_slot_begin(s, &q, &call), NFS4ERR_BADSLOT);
	q.slotid = 0;
	q.highest_slotid = 8;
	assert_st(st_slot_begin(s, &q, &call), NFS4ERR_BAD_HIGH_SLOT);
	for (int i = 0; i < 16; i++) {
		memcpy(wrong, t.session, 16);
		wrong[i] ^= 1;
		q.sessionid = wrong;
		assert_st(st_slot_begin(s, &q, &call), NFS4ERR_BADSESSION);
	}
}
END_TEST

/* §18.46.3, §2.10.6.4 */
START_TEST(limits_of_the_channel_are_kept_and_leave_the_slot_as_it_was)
{
	struct tc t = tc_client(s, "a");
	struct st_call call;
	struct st_seq q, good;

	assert_st(tc_begin(&t, 0, true, 16, &good, &call), NFS4_OK);
	tc_finish(s, &call, 100, 7);
	good.seqid++;
	q = good;
	q.nops = 17;
	assert_st(st_slot_begin(s, &q, &call), NFS4ERR_TOO_MANY_OPS);
	q = good;
	q.request_len = 65537;
	assert_st(st_slot_begin(s, &q, &call), NFS4ERR_REQ_TOO_BIG);
	q = good;
	q.reply_min = 65537;
	assert_st(st_slot_begin(s, &q, &call), NFS4ERR_REP_TOO_BIG);
	q.reply_min = 2049;
	assert_st(st_slot_begin(s, &q, &call), NFS4ERR_REP_TOO_BIG_TO_CACHE);
	q.cache_this = false;
	assert_st(st_slot_begin(s, &q, &call), NFS4_OK);
	tc_finish(s, &call, 3000, 7);
}
END_TEST

START_TEST(sequence_reports_the_slots_and_limits_of_its_session)
{
	struct tc t = tc_client(s, "a");
	struct st_call call;
	struct st_seq q;

	assert_st(tc_begin(&t, 2, true, 3, &q, &call), NFS4_OK);
	ck_assert_uint_eq(q.highest, 7);
	ck_assert_uint_eq(q.target, 7);
	ck_assert_uint_eq(q.status_flags, 0);
	ck_assert_uint_eq(call.max_reply, 65536);
	ck_assert_uint_eq(call.max_cached, 2048);
	ck_assert_uint_eq(call.max_ops, 16);
	ck_assert_uint_eq(st_client_id(call.client), t.id);
	ck_assert_mem_eq(st_session_id(call.session), t.session, 16);
	tc_finish(s, &call, 60, 0);
}
END_TEST

START_TEST(reply_that_outgrew_the_cache_is_answered_as_uncached)
{
	struct tc t = tc_client(s, "a");
	struct st_stats stats;
	struct st_call call;
	struct st_seq q;

	assert_st(tc_begin(&t, 0, true, 3, &q, &call), NFS4_OK);
	tc_finish(s, &call, 3000, 7);
	assert_st(st_slot_begin(s, &q, &call), NFS4ERR_RETRY_UNCACHED_REP);
	st_get_stats(s, &stats);
	ck_assert_uint_eq(stats.replay_bytes, 0);
}
END_TEST

START_TEST(memory_of_long_replies_goes_back_when_the_slot_is_used_again)
{
	struct tc t = tc_client(s, "a");
	struct st_stats stats;
	struct st_call call;
	struct st_seq q;

	assert_st(tc_begin(&t, 0, true, 3, &q, &call), NFS4_OK);
	tc_finish(s, &call, 2000, 7);
	st_get_stats(s, &stats);
	ck_assert_uint_ge(stats.replay_bytes, 2000);
	assert_st(tc_begin(&t, 0, false, 3, &q, &call), NFS4_OK);
	tc_finish(s, &call, 2000, 7);
	st_get_stats(s, &stats);
	ck_assert_uint_eq(stats.replay_bytes, 0);
}
END_TEST

/* ---- backchannel ----------------------------------------------------------------------------------------------------------------- */

/* §18.46.3 SEQ4_STATUS_CB_PATH_DOWN, §18.34 */
START_TEST(client_whose_backchannel_connection_closed_is_told_until_it_binds_another)
{
	struct rpc_conn *conn = tc_conn(1), *conn2 = tc_conn(2);
	struct st_create cs = tc_create(exchange("a", 1, 0, NULL), 1);
	uint32_t dir = CDFC4_FORE_OR_BOTH;
	struct tc t = {.s = s};
	struct st_call call;
	struct st_seq q;

	cs.conn = conn;
	cs.flags = CREATE_SESSION4_FLAG_CONN_BACK_CHAN;
	assert_st(st_create_session(s, &cs), NFS4_OK);
	ck_assert_uint_eq(cs.flags, CREATE_SESSION4_FLAG_CONN_BACK_CHAN);
	memcpy(t.session, cs.sessionid, 16);
	for (int step = 0; step < 4; step++) {
		if (step == 1)
			st_conn_closed(s, conn2); /* somebody else's */
		if (step == 2)
			st_conn_closed(s, conn);
		if (step == 3)
			assert_st(st_bind_conn(s, t.session, conn2, &dir), NFS4_OK);
		assert_st(tc_begin(&t, 0, false, 1, &q, &call), NFS4_OK);
		ck_assert_uint_eq(q.status_flags, step == 2 ? SEQ4_STATUS_CB_PATH_DOWN : 0);
		tc_finish(s, &call, 60, 0);
	}
	ck_assert_uint_eq(dir, CDFS4_BOTH);
	st_conn_closed(s, conn2);
}
END_TEST

START_TEST(bind_conn_answers_the_direction_and_refuses_what_it_does_not_know)
{
	struct tc t = tc_client(s, "a");
	struct rpc_conn *conn = tc_conn(1);
	const struct {
		uint32_t ask, get;
	} dirs[] = {{CDFC4_FORE, CDFS4_FORE},
		    {CDFC4_BACK, CDFS4_BACK},
		    {CDFC4_FORE_OR_BOTH, CDFS4_BOTH},
		    {CDFC4_BACK_OR_BOTH, CDFS4_BOTH}};
	uint8_t wrong[16] = {0};
	uint32_t dir;

	for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) {
		dir = dirs[i].ask;
		assert_st(st_bind_conn(s, t.session, conn, &dir), NFS4_OK);
		ck_assert_uint_eq(dir, dirs[i].get);
	}
	dir = 9;
	assert_st(st_bind_conn(s, t.session, conn, &dir), NFS4ERR_INVAL);
	dir = CDFC4_FORE;
	assert_st(st_bind_conn(s, wrong, conn, &dir), NFS4ERR_BADSESSION);
	for (uintptr_t i = 1; i < 100; i++) {
		dir = CDFC4_BACK; /* a session keeps only a few of them */
		assert_st(st_bind_conn(s, t.session, tc_conn((unsigned)i), &dir), NFS4_OK);
	}
}
END_TEST

/* ---- leases ------------------------------------------------------------------------------------------------------------------------ */

/* §18.35.4: an unconfirmed record does not outlive a lease */
START_TEST(unconfirmed_client_is_forgotten_after_a_lease)
{
	uint64_t id = exchange("a", 1, 0, NULL);

	st_skip_time(s, LEASE - 1);
	st_tick(s);
	st_skip_time(s, 2);
	st_tick(s);
	assert_st(confirm(id, 0), NFS4ERR_STALE_CLIENTID);
}
END_TEST

START_TEST(silent_client_without_state_is_forgotten_after_a_lease)
{
	struct tc t = tc_client(s, "a");
	struct st_call call;
	struct st_seq q;

	st_skip_time(s, LEASE + 1);
	st_tick(s);
	assert_st(tc_begin(&t, 0, false, 2, &q, &call), NFS4ERR_BADSESSION);
}
END_TEST

START_TEST(sequence_renews_the_lease)
{
	struct tc t = tc_client(s, "a");

	for (int i = 0; i < 5; i++) {
		st_skip_time(s, LEASE - 1);
		st_tick(s);
		tc_renew(&t);
	}
}
END_TEST

/* §8.4.3 */
START_TEST(silent_client_keeps_its_opens_as_a_courtesy_and_finds_them_again)
{
	struct tc t = tc_client(s, "a");
	struct st_stats stats;
	stateid4 sid;

	assert_st(tc_open(&t, 1, "o", 3, 0, &sid), NFS4_OK);
	st_skip_time(s, 10 * LEASE);
	st_tick(s);
	st_get_stats(s, &stats);
	ck_assert_uint_eq(stats.courtesy, 1);
	tc_renew(&t);
	assert_st(tc_close(&t, 1, &sid), NFS4_OK);
	st_get_stats(s, &stats);
	ck_assert_uint_eq(stats.courtesy, 0);
}
END_TEST

START_TEST(courtesy_ends_after_a_day)
{
	struct tc t = tc_client(s, "a");
	struct st_stats stats;
	stateid4 sid;

	assert_st(tc_open(&t, 1, "o", 3, 0, &sid), NFS4_OK);
	st_skip_time(s, 24 * 3600 + LEASE + 1);
	st_tick(s);
	st_get_stats(s, &stats);
	ck_assert_uint_eq(stats.clients, 0);
	ck_assert_uint_eq(stats.opens, 0);
	ck_assert_uint_eq(stats.files, 0);
	ck_assert_uint_eq(stats.expired, 1);
	ck_assert_int_eq(tc_pins_put, 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("state: sessions");
	TCase *tc = tcase_create("all");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, exchange_id_of_a_new_owner_is_unconfirmed_and_starts_at_sequence_1);
	tcase_add_test(tc, exchange_id_again_of_a_confirmed_client_returns_the_same_clientid);
	tcase_add_test(tc, exchange_id_by_another_principal_is_refused_while_the_client_holds_state);
	tcase_add_test(tc, exchange_id_by_another_principal_takes_over_an_owner_without_state);
	tcase_add_test(tc, exchange_id_by_another_principal_takes_over_an_owner_whose_lease_is_over);
	tcase_add_test(tc, exchange_id_again_of_an_unconfirmed_client_replaces_the_record);
	tcase_add_test(tc, restarted_client_loses_its_old_state_only_when_the_new_record_is_confirmed);
	tcase_add_test(tc, exchange_id_update_needs_a_confirmed_record_its_verifier_and_its_principal);
	tcase_add_test(tc, owners_are_compared_by_length_and_bytes);
	tcase_add_test(tc, owner_longer_than_the_protocol_allows_is_refused);
	tcase_add_test(tc, clients_are_bounded_and_unconfirmed_ones_make_room);
	tcase_add_test(tc, a_flood_of_new_clients_costs_silent_ones_little);
	tcase_add_test(tc, a_new_client_has_time_for_its_session_and_goes_first_after_that);
	tcase_add_test(tc, create_session_retry_gets_the_same_session);
	tcase_add_test(tc, create_session_out_of_sequence_is_misordered);
	tcase_add_test(tc, create_session_by_another_principal_cannot_confirm);
	tcase_add_test(tc, create_session_of_a_confirmed_client_by_another_principal_is_refused);
	tcase_add_test(tc, ids_of_others_cannot_be_told_from_ones_own);
	tcase_add_test(tc, destroy_clientid_by_another_principal_is_refused);
	tcase_add_test(tc, create_session_with_unknown_flags_or_channels_too_small_does_not_use_up_the_sequence);
	tcase_add_test(tc, channels_are_granted_within_what_was_asked_and_what_there_is);
	tcase_add_test(tc, replay_budget_bounds_what_all_sessions_have_beyond_one_slot);
	tcase_add_test(tc, one_address_leaves_slots_for_the_others);
	tcase_add_test(tc, newcomer_takes_the_place_of_the_idlest_client_of_the_greediest_address);
	tcase_add_test(tc, greediest_address_takes_the_place_of_nobody_elses_client);
	tcase_add_test(tc, sessions_give_slots_back_when_few_are_left_and_have_them_again_later);
	tcase_add_test(tc, slot_in_use_is_not_taken_back);
	tcase_add_test(tc, client_that_has_as_many_sessions_as_it_may_have_is_told_so);
	tcase_add_test(tc, cached_replies_beyond_one_of_each_client_stay_within_the_budget);
	tcase_add_test(tc, client_with_a_session_is_busy_until_the_session_is_destroyed);
	tcase_add_test(tc, session_is_destroyed_over_a_connection_of_its_own);
	tcase_add_test(tc, connections_of_a_session_are_remembered_in_bounds);
	tcase_add_test(tc, client_with_an_open_file_is_busy_without_any_session);
	tcase_add_test(tc, unconfirmed_client_can_be_destroyed);
	tcase_add_test(tc, call_in_a_session_that_is_destroyed_finishes);
	tcase_add_test(tc, reclaim_complete_twice_is_complete_already);
	tcase_add_test(tc, open_before_reclaim_complete_is_told_to_wait_for_the_grace_period);
	tcase_add_test(tc, retry_gets_the_cached_reply_byte_for_byte);
	tcase_add_test(tc, retry_of_a_request_that_was_not_to_be_cached_is_told_so);
	tcase_add_test(tc, sequence_alone_can_be_sent_again_although_nothing_was_cached);
	tcase_add_test(tc, different_request_under_an_old_sequence_is_a_false_retry);
	tcase_add_test(tc, sequence_that_is_neither_next_nor_last_is_misordered_and_changes_nothing);
	tcase_add_test(tc, first_request_of_a_slot_has_sequence_1_and_0_is_misordered);
	tcase_add_test(tc, retry_of_a_running_request_is_told_to_wait);
	tcase_add_test(tc, next_request_that_meets_the_replay_of_the_last_is_told_to_wait);
	tcase_add_test(tc, slots_beyond_the_table_and_unknown_sessions_are_refused);
	tcase_add_test(tc, limits_of_the_channel_are_kept_and_leave_the_slot_as_it_was);
	tcase_add_test(tc, sequence_reports_the_slots_and_limits_of_its_session);
	tcase_add_test(tc, reply_that_outgrew_the_cache_is_answered_as_uncached);
	tcase_add_test(tc, memory_of_long_replies_goes_back_when_the_slot_is_used_again);
	tcase_add_test(tc, client_whose_backchannel_connection_closed_is_told_until_it_binds_another);
	tcase_add_test(tc, bind_conn_answers_the_direction_and_refuses_what_it_does_not_know);
	tcase_add_test(tc, unconfirmed_client_is_forgotten_after_a_lease);
	tcase_add_test(tc, silent_client_without_state_is_forgotten_after_a_lease);
	tcase_add_test(tc, sequence_renews_the_lease);
	tcase_add_test(tc, silent_client_keeps_its_opens_as_a_courtesy_and_finds_them_again);
	tcase_add_test(tc, courtesy_ends_after_a_day);
	suite_add_tcase(suite, tc);
	r = srunner_create(suite);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

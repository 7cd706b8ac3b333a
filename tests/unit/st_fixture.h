/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * st_fixture.h - a server's state with clients and sessions in it, for the tests of server/state/
 *
 * Everything here asserts that it works; what a test is about it calls itself.
 */
#ifndef TESTS_UNIT_ST_FIXTURE_H
#define TESTS_UNIT_ST_FIXTURE_H

#include <check.h>
#include <string.h>

#include "server/state/state.h"

/* Status numbers as names when an assertion fails would need a table; the expression says enough. */
#define assert_st(expr, expected) ck_assert_int_eq((int)(expr), (int)(expected))

enum { LEASE = 90 };

/* One client with one session. */
struct tc {
	struct st *s;
	uint64_t id;
	uint8_t session[16];
	struct st_client *cl; /* valid while the session lives */
	uint32_t seq[8];      /* of the slots */
};

struct st *tc_state(const struct st_opts *o);
struct st_exchange tc_exchange(const char *owner, uint64_t verifier, uint32_t uid);
/* CREATE_SESSION arguments that are granted as they are. */
struct st_create tc_create(uint64_t clientid, uint32_t sequence);
/* EXCHANGE_ID, CREATE_SESSION, SEQUENCE. */
struct tc tc_connect(struct st *s, const char *owner);
/* The same, and RECLAIM_COMPLETE. */
struct tc tc_client(struct st *s, const char *owner);
/* From an IPv4 address. */
struct tc tc_client_from(struct st *s, const char *owner, uint32_t addr);
/* SEQUENCE on @slot with its next sequence. */
nfsstat4 tc_begin(struct tc *t, uint32_t slot, bool cache, uint32_t nops, struct st_seq *q, struct st_call *call);
/* Ends it with a reply of @len bytes @fill behind a header of 24. */
void tc_finish(struct st *s, struct st_call *call, size_t len, uint8_t fill);
/* SEQUENCE alone: renews the lease. */
void tc_renew(struct tc *t);

/* One of 256 connections that are none, by number: 1 … 256. */
struct rpc_conn *tc_conn(unsigned id);

struct st_fhkey tc_file(uint64_t ino);
struct st_name tc_name(const char *text);
/* Counts how often it was given back. */
struct st_pin tc_pin(void);
extern _Atomic int tc_pins_put;
nfsstat4 tc_open(struct tc *t, uint64_t ino, const char *owner, uint32_t access, uint32_t deny, stateid4 *out);
nfsstat4 tc_close(struct tc *t, uint64_t ino, const stateid4 *sid);

#endif

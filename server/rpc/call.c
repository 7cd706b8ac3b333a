/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * call.c - from a record to a call, and its reply
 *
 * RFC 5531: call header, AUTH_NONE and AUTH_SYS, and every way of refusing. The header is a dozen words; it is taken
 * apart here, with bounds, rather than through a general decoder: it is on the path of every request.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "server/rpc/rpc_int.h"
#include "xdr/prims.h"

#define RPC_VERSION 2u
#define CRED_MAX 400u
#define GIDS_MAX 16u
#define ARENA_SLACK (2u << 20)

enum { MSG_CALL = 0, MSG_REPLY = 1 };

/* ---- call objects ------------------------------------------------------------------------------------------------------- */

static struct call *call_new(struct rpc_conn *c)
{
	struct loop *l = c->loop;
	struct call *k;

	if (!list_empty(&l->pool)) {
		k = list_first(&l->pool, struct call, link);
		list_del(&k->link);
		l->npool--;
	} else {
		k = calloc(1, sizeof *k);
		if (!k)
			return NULL;
		list_init(&k->link);
		arena_init(&k->pub.arena, l->srv->o.max_record + ARENA_SLACK);
	}
	k->pub.conn = rpc_conn_get(c);
	k->pub.accept = SUCCESS;
	k->pub.may_block = false;
	k->pub.user = NULL;
	k->pub.cred = (struct rpc_cred){.flavor = AUTH_NONE};
	k->drop = false;
	c->calls++;
	atomic_fetch_add_explicit(&l->srv->running, 1, memory_order_relaxed);
	return k;
}

static void charge(struct call *k, size_t n)
{
	k->charged += n;
	conn_charge(k->pub.conn, n);
}

void call_charge_arena(struct call *k)
{
	size_t more = k->pub.arena.used - k->arena_charged;

	k->arena_charged += more;
	charge(k, more);
}

void call_finish(struct call *k)
{
	struct rpc_conn *c = k->pub.conn;
	struct loop *l = c->loop;
	struct rpc_server *s = l->srv;

	if (k->pub.proc && s->s.done)
		s->s.done(s->s.arg, &k->pub);
	xa_out_fini(&k->pub.out);
	free(k->record);
	k->record = NULL;
	conn_discharge(c, k->charged);
	k->charged = k->arena_charged = 0;
	arena_reset(&k->pub.arena);
	list_del(&k->link);
	if (l->npool < POOL_MAX) {
		list_push_front(&l->pool, &k->link);
		l->npool++;
	} else {
		arena_fini(&k->pub.arena);
		free(k);
	}
	c->calls--;
	atomic_fetch_sub_explicit(&s->running, 1, memory_order_release);
	conn_maybe_gone(c);
	rpc_conn_put(c);
}

void pool_free(struct loop *l)
{
	while (!list_empty(&l->pool)) {
		struct call *k = list_first(&l->pool, struct call, link);

		list_del(&k->link);
		arena_fini(&k->pub.arena);
		free(k);
	}
}

/* ---- replies ------------------------------------------------------------------------------------------------------------- */

static void put32(uint8_t *p, uint32_t v)
{
	v = __builtin_bswap32(v);
	memcpy(p, &v, sizeof v);
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof v);
	return __builtin_bswap32(v);
}

/* Start the reply: the header of an accepted call, whose status is set at the end. */
static bool begin_reply(struct call *k)
{
	struct rpc_server *s = k->pub.conn->loop->srv;
	uint8_t *h;

	xa_out_init(&k->pub.out, &k->pub.arena, s->o.max_record + REPLY_HEAD);
	h = xa_out_reserve(&k->pub.out, REPLY_HEAD);
	if (!h)
		return false;
	memset(h, 0, REPLY_HEAD);
	put32(h + 4, k->pub.xid);
	put32(h + 8, MSG_REPLY);
	k->pub.header_len = REPLY_HEAD;
	return true;
}

static void end_reply(struct call *k)
{
	uint8_t *h;

	if (k->pub.accept != SUCCESS) {
		xa_out_fini(&k->pub.out);
		if (!begin_reply(k)) {
			k->drop = true;
			return;
		}
		if (k->pub.accept == PROG_MISMATCH) {
			uint8_t *v = xa_out_reserve(&k->pub.out, 8);
			struct rpc_server *s = k->pub.conn->loop->srv;

			if (v) {
				put32(v, s->s.vers_low);
				put32(v + 4, s->s.vers_high);
			}
		}
	}
	h = xa_out_first(&k->pub.out);
	put32(h + 24, k->pub.accept);
	put32(h, 0x80000000u | (uint32_t)(xa_out_len(&k->pub.out) - 4));
}

/* No memory to answer it: its connection is closed. */
static bool give_up(struct call *k)
{
	k->drop = true;
	conn_queue_reply(k->pub.conn, k);
	return false;
}

/* A call that is denied: RPC_MISMATCH (2, 2), or an authentication error. */
static bool deny(struct call *k, bool mismatch, uint32_t why)
{
	uint8_t *h;
	size_t len = mismatch ? 28 : 24;

	xa_out_init(&k->pub.out, &k->pub.arena, 64);
	h = xa_out_reserve(&k->pub.out, len);
	if (!h)
		return give_up(k);
	put32(h, 0x80000000u | (uint32_t)(len - 4));
	put32(h + 4, k->pub.xid);
	put32(h + 8, MSG_REPLY);
	put32(h + 12, MSG_DENIED);
	put32(h + 16, mismatch ? RPC_MISMATCH : AUTH_ERROR);
	put32(h + 20, mismatch ? RPC_VERSION : why);
	if (mismatch)
		put32(h + 24, RPC_VERSION);
	k->pub.proc = 0; /* the service never saw it */
	conn_queue_reply(k->pub.conn, k);
	return true;
}

/* ---- running --------------------------------------------------------------------------------------------------------------- */

/* What the service decided, on the loop. */
static bool settle(struct call *k, enum rpc_verdict v)
{
	struct rpc_conn *c = k->pub.conn;

	switch (v) {
	case RPC_REPLY:
		end_reply(k);
		break;
	case RPC_CLOSE:
		k->drop = true;
		conn_queue_reply(c, k);
		return false;
	default:
		k->drop = true;
	}
	conn_queue_reply(c, k);
	return true;
}

/* The record goes along with the call: decoded positions move to its new place. */
static bool park(struct call *k, uint8_t *rec, size_t len, uint8_t **own, size_t own_cap)
{
	struct rpc_server *s = k->pub.conn->loop->srv;
	ptrdiff_t moved;

	if (*own) {
		k->record = *own;
		*own = NULL;
		charge(k, own_cap);
		conn_discharge(k->pub.conn, own_cap); /* it was the connection's */
		moved = 0;
	} else {
		k->record = malloc(len);
		if (!k->record)
			return false;
		memcpy(k->record, rec, len);
		charge(k, len);
		moved = k->record - rec;
	}
	call_charge_arena(k);
	k->pub.in.x_data += moved;
	k->pub.in.x_v.vio_base += moved;
	k->pub.in.x_v.vio_head += moved;
	k->pub.in.x_v.vio_tail += moved;
	atomic_fetch_add_explicit(&s->parked, 1, memory_order_relaxed);
	worker_queue(s, k);
	return true;
}

bool call_run_parked(struct call *k)
{
	struct rpc_server *s = k->pub.conn->loop->srv;

	k->pub.may_block = true;
	switch (s->s.call(s->s.arg, &k->pub)) {
	case RPC_HOLD:
		return false;
	case RPC_REPLY:
		end_reply(k);
		break;
	case RPC_CLOSE:
		rpc_conn_close(k->pub.conn);
		k->drop = true;
		break;
	default:
		k->drop = true;
	}
	return true;
}

void rpc_call_resume(struct rpc_call *call)
{
	struct call *k = container_of(call, struct call, pub);

	k->resumed = true;
	loop_give_back(k->pub.conn->loop, k);
}

void call_resume(struct call *k)
{
	struct rpc_server *s = k->pub.conn->loop->srv;

	k->resumed = false;
	k->pub.may_block = false;
	settle(k, s->s.call(s->s.arg, &k->pub));
}

static bool run(struct call *k, uint8_t *rec, size_t len, uint8_t **own, size_t own_cap)
{
	struct rpc_server *s = k->pub.conn->loop->srv;
	enum rpc_verdict v;

	if (k->pub.proc == 0) /* NULL */
		return settle(k, RPC_REPLY);
	v = s->s.call(s->s.arg, &k->pub);
	if (v == RPC_HOLD)
		return true;
	if (v != RPC_PARK)
		return settle(k, v);
	if (park(k, rec, len, own, own_cap))
		return true;
	k->pub.accept = SYSTEM_ERR;
	return settle(k, RPC_REPLY);
}

/* ---- the header ------------------------------------------------------------------------------------------------------------ */

/* AUTH_SYS: stamp, machine name, uid, gid, gids. */
static bool take_authsys(struct rpc_cred *cr, const uint8_t *p, uint32_t len)
{
	uint32_t name, n;

	if (len < 8)
		return false;
	name = get32(p + 4);
	if (name > 255 || len < 8 + ((name + 3) & ~3u) + 12)
		return false;
	p += 8 + ((name + 3) & ~3u);
	len -= 8 + ((name + 3) & ~3u);
	cr->uid = get32(p);
	cr->gid = get32(p + 4);
	n = get32(p + 8);
	if (n > GIDS_MAX || len - 12 != n * 4)
		return false;
	cr->ngids = n;
	for (uint32_t i = 0; i < n; i++)
		cr->gids[i] = get32(p + 12 + i * 4);
	return true;
}

/* One flavor and its body; false when it does not fit. */
static bool take_auth(const uint8_t **p, const uint8_t *end, uint32_t *flavor, const uint8_t **body, uint32_t *len)
{
	if (end - *p < 8)
		return false;
	*flavor = get32(*p);
	*len = get32(*p + 4);
	*p += 8;
	if (*len > CRED_MAX || (size_t)(end - *p) < ((*len + 3) & ~3u))
		return false;
	*body = *p;
	*p += (*len + 3) & ~3u;
	return true;
}

static bool bad(struct rpc_conn *c)
{
	atomic_fetch_add_explicit(&c->loop->srv->bad_records, 1, memory_order_relaxed);
	return false;
}

bool call_record(struct rpc_conn *c, uint8_t *rec, size_t len, uint8_t **own, size_t own_cap)
{
	struct rpc_server *s = c->loop->srv;
	const uint8_t *p = rec + 24, *end = rec + len, *body, *verf;
	uint32_t flavor, cred_len, verf_flavor, verf_len, prog;
	struct call *k;

	if (len >= 8 && get32(rec + 4) == MSG_REPLY) {
		if (s->on_reply)
			s->on_reply(s->on_reply_arg, c, get32(rec), rec, len);
		return true;
	}
	if (len < 24 || get32(rec + 4) != MSG_CALL)
		return bad(c);
	k = call_new(c);
	if (!k)
		return false;
	atomic_fetch_add_explicit(&s->calls, 1, memory_order_relaxed);
	atomic_store_explicit(&c->last, c->loop->now, memory_order_relaxed);
	atomic_store_explicit(&c->spoke, true, memory_order_relaxed);
	k->pub.xid = get32(rec);
	prog = get32(rec + 12);
	k->pub.vers = get32(rec + 16);
	k->pub.proc = 0;
	k->pub.record_len = len;
	if (get32(rec + 8) != RPC_VERSION)
		return deny(k, true, 0);
	if (!take_auth(&p, end, &flavor, &body, &cred_len) || !take_auth(&p, end, &verf_flavor, &verf, &verf_len))
		return deny(k, false, AUTH_BADCRED);
	k->pub.cred.flavor = flavor;
	if (flavor == AUTH_SYS ? !take_authsys(&k->pub.cred, body, cred_len) : flavor != AUTH_NONE)
		return deny(k, false, flavor == AUTH_SYS ? AUTH_BADCRED : AUTH_TOOWEAK);
	if (flavor == AUTH_SYS && c->anyone)
		return deny(k, false, AUTH_TOOWEAK);
	if (!begin_reply(k))
		return give_up(k);
	xa_in_init(&k->pub.in, &k->pub.arena, rec, len);
	xa_in_seek(&k->pub.in, (size_t)(p - rec));
	if (prog != s->s.prog)
		k->pub.accept = PROG_UNAVAIL;
	else if (k->pub.vers < s->s.vers_low || k->pub.vers > s->s.vers_high)
		k->pub.accept = PROG_MISMATCH;
	else if (get32(rec + 20) >= s->s.nproc)
		k->pub.accept = PROC_UNAVAIL;
	if (k->pub.accept != SUCCESS)
		return settle(k, RPC_REPLY);
	k->pub.proc = get32(rec + 20);
	return run(k, rec, len, own, own_cap);
}

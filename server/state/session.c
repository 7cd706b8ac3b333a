/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * session.c - sessions: creating, finding, destroying; connections for callbacks
 *
 * What a session may cost is settled when it is created: for each slot, what a cached reply usually takes is reserved of
 * one budget. A session gets at most a small part of what is left, and one address three quarters of what the others leave. The
 * first slot of a client's first sessions is beside the budget, so that a client that comes late gets that one.
 *
 * When less than half is left, sessions that have more than their share are told to use fewer slots, and lose those that they do not
 * use any more; they have them back when there is plenty again. Memory for replies is taken when they are cached, as much as they are
 * long; should they all be long at once, slot.c makes requests wait, but those whose client has no other reply kept.
 */
#include <stdlib.h>
#include <string.h>

#include "server/state/state_int.h"

enum {
	MIN_REQUEST = 160,  /* RPC header with AUTH_SYS, COMPOUND, SEQUENCE */
	MIN_RESPONSE = 100, /* the same for the reply */
	MIN_BACK_OPS = 2,   /* CB_SEQUENCE and one more */
	MAX_CACHED = 2048,
	MAX_OPS = 128,
	MAX_BACK_SLOTS = 16,
	USUAL_REPLY = 512,
	BUDGET_SHARE = 64,
};

static uint32_t min_u32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static struct session_shard *session_shard(struct st *s, const uint8_t id[16])
{
	return &s->session_shard[id[7] % SESSION_SHARDS];
}

static struct list *session_bucket(struct session_shard *sh, const uint8_t id[16])
{
	return &sh->bucket[(id[7] / SESSION_SHARDS | id[6] << 4) % SESSION_BUCKETS];
}

struct st_session *st_session_find(struct st *s, const uint8_t id[16])
{
	struct session_shard *sh = session_shard(s, id);
	struct st_session *found = NULL;

	lock_take(&sh->mu);
	list_for_each (it, session_bucket(sh, id)) {
		struct st_session *se = list_entry(it, struct st_session, hash_link);

		if (!memcmp(se->id, id, sizeof se->id)) {
			atomic_fetch_add_explicit(&se->refs, 1, memory_order_relaxed);
			found = se;
			break;
		}
	}
	lock_drop(&sh->mu);
	return found;
}

void st_session_put(struct st *s, struct st_session *se)
{
	if (!se || atomic_fetch_sub_explicit(&se->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (uint32_t i = 0; i < se->fore.max_slots; i++) {
		stat_sub(&s->replay_bytes, se->slots[i].cap);
		free(se->slots[i].reply);
	}
	st_client_put(se->client);
	lock_fini(&se->mu);
	free(se);
}

const uint8_t *st_session_id(const struct st_session *se)
{
	return se->id;
}

/* ---- connections for callbacks -------------------------------------------------------------------------------------------- */

static void drop_backchannel(struct st *s, struct st_session *se, uint32_t i) REQUIRES(se->mu)
{
	se->cb_conn[i] = se->cb_conn[--se->ncb];
	atomic_fetch_sub(&se->client->nbackchans, 1);
	atomic_fetch_sub(&s->nbound, 1);
}

static void add_backchannel(struct st *s, struct st_session *se, struct rpc_conn *conn)
{
	if (!conn)
		return;
	lock_take(&se->mu);
	for (uint32_t i = 0; i < se->ncb; i++) {
		if (se->cb_conn[i] == conn)
			goto out;
	}
	if (se->dead)
		goto out;
	if (se->ncb == BACKCHANNELS)
		drop_backchannel(s, se, 0);
	se->cb_conn[se->ncb++] = conn;
	atomic_fetch_add(&se->client->nbackchans, 1);
	atomic_fetch_add(&s->nbound, 1);
	atomic_store(&se->client->wants_cb, true);
out:
	lock_drop(&se->mu);
}

static void forget_conn(struct st *s, struct st_session *se, const struct rpc_conn *conn)
{
	lock_take(&se->mu);
	for (uint32_t i = 0; i < se->ncb; i++) {
		if (se->cb_conn[i] == conn) {
			drop_backchannel(s, se, i);
			break;
		}
	}
	lock_drop(&se->mu);
}

void st_conn_closed(struct st *s, struct rpc_conn *conn)
{
	if (!atomic_load(&s->nbound))
		return;
	lock_take(&s->mu);
	list_for_each (it, &s->sessions)
		forget_conn(s, list_entry(it, struct st_session, all_link), conn);
	lock_drop(&s->mu);
}

nfsstat4 st_bind_conn(struct st *s, const uint8_t id[16], struct rpc_conn *conn, uint32_t *dir)
{
	struct st_session *se;
	nfsstat4 st = NFS4_OK;

	lock_take(&s->mu); /* so that st_session_remove() is not missed */
	se = st_session_find(s, id);
	if (!se) {
		lock_drop(&s->mu);
		return NFS4ERR_BADSESSION;
	}
	st_client_renew(s, se->client);
	st_session_add_conn(se, rpc_conn_id(conn));
	switch (*dir) {
	case CDFC4_FORE:
		*dir = CDFS4_FORE; /* every connection carries the fore channel, bound or not */
		forget_conn(s, se, conn);
		break;
	case CDFC4_BACK:
		*dir = CDFS4_BACK;
		add_backchannel(s, se, conn);
		break;
	case CDFC4_FORE_OR_BOTH:
	case CDFC4_BACK_OR_BOTH:
		*dir = CDFS4_BOTH;
		add_backchannel(s, se, conn);
		break;
	default:
		st = NFS4ERR_INVAL;
	}
	lock_drop(&s->mu);
	st_session_put(s, se);
	return st;
}

void st_backchannel_ctl(struct st *s, struct st_session *se, uint32_t program, const struct st_cb_sec *sec)
{
	(void)s;
	lock_take(&se->mu);
	se->cb_program = program;
	se->cb_sec = *sec;
	lock_drop(&se->mu);
}

static bool has_conn(const struct st_session *se, uint64_t conn) REQUIRES(se->mu)
{
	uint32_t n = min_u32(se->nconns, CONNS_KNOWN);

	for (uint32_t i = 0; i < n; i++)
		if (se->conns[i] == conn)
			return true;
	return false;
}

void st_session_add_conn(struct st_session *se, uint64_t conn)
{
	lock_take(&se->mu);
	if (conn && !has_conn(se, conn))
		se->conns[se->nconns++ % CONNS_KNOWN] = conn;
	if (se->nconns == 2 * CONNS_KNOWN) /* of these only the remainder counts */
		se->nconns = CONNS_KNOWN;
	lock_drop(&se->mu);
}

/* ---- creating and destroying ----------------------------------------------------------------------------------------------- */

static size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

static nfsstat4 negotiate(const struct st *s, struct st_channel *fore, struct st_channel *back)
{
	if (fore->max_request < MIN_REQUEST || fore->max_response < MIN_RESPONSE || !fore->max_ops)
		return NFS4ERR_TOOSMALL;
	if (back->max_request < MIN_REQUEST || back->max_response < MIN_RESPONSE || back->max_ops < MIN_BACK_OPS)
		return NFS4ERR_TOOSMALL;
	fore->max_request = min_u32(fore->max_request, s->opts.max_request);
	fore->max_response = min_u32(fore->max_response, s->opts.max_response);
	fore->max_cached = min_u32(min_u32(fore->max_cached, fore->max_response), MAX_CACHED);
	fore->max_ops = min_u32(fore->max_ops, MAX_OPS);
	fore->max_slots = min_u32(fore->max_slots ? fore->max_slots : 1, s->opts.max_slots);
	back->max_request = min_u32(back->max_request, s->opts.max_request);
	back->max_response = min_u32(back->max_response, s->opts.max_response);
	back->max_cached = 0; /* no callback of ours needs to be exactly-once beyond what its slot gives */
	back->max_ops = min_u32(back->max_ops, MAX_OPS);
	back->max_slots = min_u32(back->max_slots ? back->max_slots : 1, MAX_BACK_SLOTS);
	return NFS4_OK;
}

/* How many slots of @fore a session gets, and what it takes of the budget for that. @assured: the first one is beside the budget, so
 * that it is always there. 0: no room. */
static uint32_t granted_slots(const struct st *s, const struct peer *from, const struct st_channel *fore,
			      size_t per_slot, bool assured, size_t *reserve) REQUIRES(s->mu)
{
	size_t left = s->opts.replay_bytes - s->reserved, share = left / BUDGET_SHARE / per_slot;
	uint32_t n = share < 1 ? 1 : share < fore->max_slots ? (uint32_t)share : fore->max_slots;

	for (;; n /= 2) {
		*reserve = (n - assured) * per_slot;
		if (!*reserve ||
		    (*reserve <= left && peers_may_hold(s->opts.replay_bytes, s->reserved, from->held, *reserve)))
			return n;
		if (n == 1)
			return 0;
	}
}

static struct st_session *session_new(struct st *s, struct st_client *cl, struct st_create *x) REQUIRES(s->mu)
{
	size_t per_slot = sizeof(struct st_slot) + min_u32(x->fore.max_cached, USUAL_REPLY), size, reserve;
	bool assured = cl->nsessions < SESSIONS_ASSURED;
	uint32_t nslots = granted_slots(s, cl->from, &x->fore, per_slot, assured, &reserve);
	struct st_session *se;

	if (!nslots)
		return NULL;
	size = sizeof *se + nslots * sizeof(struct st_slot);
	se = aligned_alloc(CACHE_LINE, size);
	if (!se)
		return NULL;
	memset(se, 0, size);
	/* Nobody else can guess it: knowing it is all it takes to use a session. */
	for (size_t i = 0; i < sizeof se->id; i += 8)
		memcpy(se->id + i, &(uint64_t){st_random(s)}, 8);
	x->fore.max_slots = nslots;
	se->fore = x->fore;
	se->back = x->back;
	se->per_slot = per_slot;
	se->reserved = reserve;
	atomic_init(&se->granted, nslots);
	atomic_init(&se->target, nslots);
	se->cb_program = x->cb_program;
	se->cb_sec = x->cb_sec;
	se->client = st_client_get(cl);
	lock_init(&se->mu);
	atomic_init(&se->refs, 1); /* the table's */
	return se;
}

static void session_insert(struct st *s, struct st_session *se) REQUIRES(s->mu)
{
	struct session_shard *sh = session_shard(s, se->id);

	s->reserved += se->reserved;
	se->client->from->held += se->reserved;
	s->nsessions++;
	s->nslots += se->fore.max_slots;
	se->client->nsessions++;
	list_push_back(&se->client->sessions, &se->client_link);
	list_push_back(&s->sessions, &se->all_link);
	lock_take(&sh->mu);
	list_push_front(session_bucket(sh, se->id), &se->hash_link);
	lock_drop(&sh->mu);
}

void st_session_remove(struct st *s, struct st_session *se)
{
	struct session_shard *sh = session_shard(s, se->id);

	lock_take(&sh->mu);
	list_del(&se->hash_link);
	lock_drop(&sh->mu);
	list_del(&se->client_link);
	list_del(&se->all_link);
	st_said_end(se->client, se);
	lock_take(&se->mu);
	se->dead = true;
	while (se->ncb)
		drop_backchannel(s, se, se->ncb - 1);
	lock_drop(&se->mu);
	se->client->nsessions--;
	s->nsessions--;
	s->nslots -= se->granted;
	s->nshrunk -= se->target < se->fore.max_slots;
	s->reserved -= se->reserved;
	se->client->from->held -= se->reserved;
	st_session_put(s, se);
}

/* The client's record is known, its principal and its sequence are right. */
static nfsstat4 create_locked(struct st *s, struct st_client *cl, struct st_create *x, struct list *files)
	REQUIRES(s->mu)
{
	struct st_session *se;

	if (cl->nsessions >= SESSIONS_PER_CLIENT)
		return NFS4ERR_NOSPC; /* it will not pass */
	se = session_new(s, cl, x);
	if (!se)
		return NFS4ERR_DELAY;
	st_client_confirm(s, cl, files);
	st_client_renew(s, cl);
	session_insert(s, se);
	if (x->conn)
		st_session_add_conn(se, rpc_conn_id(x->conn));
	/* No reply cache survives us, and there is no RDMA. */
	x->flags &= CREATE_SESSION4_FLAG_CONN_BACK_CHAN;
	if (x->flags)
		add_backchannel(s, se, x->conn);
	memcpy(x->sessionid, se->id, sizeof x->sessionid);
	cl->cs_sequence = x->sequence;
	cl->cs_status = NFS4_OK;
	cl->cs_result = *x;
	cl->cs_result.conn = NULL;
	return NFS4_OK;
}

nfsstat4 st_create_session(struct st *s, struct st_create *x)
{
	const uint32_t known = CREATE_SESSION4_FLAG_PERSIST | CREATE_SESSION4_FLAG_CONN_BACK_CHAN |
			       CREATE_SESSION4_FLAG_CONN_RDMA;
	struct list files = LIST_INIT(files);
	struct st_client *cl;
	nfsstat4 st;

	if (x->flags & ~known)
		return NFS4ERR_INVAL;
	st = negotiate(s, &x->fore, &x->back);
	if (st != NFS4_OK)
		return st;
	lock_take(&s->mu);
	cl = st_client_find(s, x->clientid);
	if (!cl) {
		st = NFS4ERR_STALE_CLIENTID;
	} else if (!st_same_principal(&cl->who, &x->who)) {
		st = NFS4ERR_CLID_INUSE;
	} else if (x->sequence == cl->cs_sequence) {
		st = cl->cs_status;
		if (st == NFS4_OK)
			*x = cl->cs_result;
	} else if (x->sequence != cl->cs_sequence + 1) {
		st = NFS4ERR_SEQ_MISORDERED;
	} else {
		st = create_locked(s, cl, x, &files);
	}
	lock_drop(&s->mu);
	st_files_free(s, &files);
	return st;
}

nfsstat4 st_destroy_session(struct st *s, const uint8_t id[16], uint64_t conn)
{
	struct st_session *se;
	bool bound = true;

	lock_take(&s->mu);
	se = st_session_find(s, id);
	if (se) {
		lock_take(&se->mu);
		bound = !conn || has_conn(se, conn);
		lock_drop(&se->mu);
	}
	if (se && bound)
		st_session_remove(s, se);
	lock_drop(&s->mu);
	st_session_put(s, se);
	if (!bound)
		return NFS4ERR_CONN_NOT_BOUND_TO_SESSION;
	return se ? NFS4_OK : NFS4ERR_BADSESSION;
}

/* ---- taking slots back, and giving them ---------------------------------------------------------------------------------------- */

/* The client was told how many it should use (sr_target_highest_slotid), and has shown that it does (obeyed), or is silent: what is
 * kept for the others is free. False: some are in use. */
static bool session_shrink(struct st *s, struct st_session *se, uint32_t to) REQUIRES(s->mu)
{
	uint32_t n = se->granted;
	size_t back;

	if (n <= to || !st_slots_retire(s, se, to))
		return n <= to;
	back = min_size((n - to) * se->per_slot, se->reserved);
	se->reserved -= back;
	se->client->from->held -= back;
	s->reserved -= back;
	s->nslots -= n - to;
	return true;
}

static void set_target(struct st *s, struct st_session *se, uint32_t to) REQUIRES(s->mu)
{
	s->nshrunk -= se->target < se->fore.max_slots;
	atomic_store_explicit(&se->target, to, memory_order_relaxed);
	s->nshrunk += se->target < se->fore.max_slots;
}

/* Twice as many as it has, if that is what it once had. */
static void session_grow(struct st *s, struct st_session *se) REQUIRES(s->mu)
{
	uint32_t n = se->granted, to = min_u32(2 * n, se->fore.max_slots);
	size_t more = (to - n) * se->per_slot;

	if (to > n) {
		se->reserved += more;
		se->client->from->held += more;
		s->reserved += more;
		s->nslots += to - n;
		atomic_store_explicit(&se->granted, to, memory_order_release);
	}
	set_target(s, se, to);
}

static void session_settle(struct st *s, struct st_session *se, uint32_t fair) REQUIRES(s->mu)
{
	if (st_client_expired(s, se->client) && session_shrink(s, se, 1))
		set_target(s, se, 1);
	else if (se->target > fair)
		set_target(s, se, fair);
	else if (se->target < se->granted && atomic_load(&se->obeyed) == se->target)
		session_shrink(s, se, se->target);
}

void st_sessions_tick(struct st *s)
{
	bool scarce, plenty;
	size_t fair;

	lock_take(&s->mu);
	scarce = s->reserved > s->opts.replay_bytes / 2;
	fair = s->nsessions ? s->opts.replay_bytes / 2 / (sizeof(struct st_slot) + USUAL_REPLY) / s->nsessions : 0;
	if (scarce || s->nshrunk)
		list_for_each (it, &s->sessions) {
			struct st_session *se = list_entry(it, struct st_session, all_link);

			plenty = s->reserved < s->opts.replay_bytes / 4;
			if (scarce)
				session_settle(s, se, fair < 1 ? 1 : (uint32_t)min_size(fair, UINT32_MAX));
			else if (plenty && se->target < se->fore.max_slots && !st_client_expired(s, se->client))
				session_grow(s, se);
		}
	lock_drop(&s->mu);
}

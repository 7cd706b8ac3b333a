/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * slot.c - SEQUENCE: exactly-once replies
 *
 * The states of a slot and who moves it are drawn at st_slot_begin() in state.h. `busy` is taken with one compare-and-swap
 * and given back with one store; in between the slot is its holder's alone, so nothing here takes a lock but the lookup
 * of the session. A request that fails in SEQUENCE leaves the slot as it was (RFC 8881 §18.46.3).
 */
#include <stdlib.h>
#include <string.h>

#include "server/state/state_int.h"

enum {
	REPLY_STEP = 256,  /* reply memory is taken in these units */
	REPLY_KEEP = 1024, /* up to this much stays with the slot when it is not needed */
	REPLY_SLACK = 64,  /* an error that says "too big to cache" may be longer than the limit by its own few words */
};

static void slot_free(struct st_slot *sl)
{
	atomic_store_explicit(&sl->busy, SLOT_FREE, memory_order_release);
}

static bool slot_take(struct st_slot *sl)
{
	uint32_t was = SLOT_FREE;

	return atomic_compare_exchange_strong_explicit(&sl->busy, &was, SLOT_HELD, memory_order_acquire,
						       memory_order_relaxed);
}

/* Somebody else has the slot. While a request runs, its retry waits and all else is out of order. A slot that is only
 * looked at, or whose last reply is being repeated, will be free in a moment: the next request may have met that. */
static nfsstat4 slot_taken(const struct st_slot *sl, uint32_t seqid)
{
	bool running = atomic_load_explicit(&sl->busy, memory_order_acquire) == SLOT_RUNNING;
	uint32_t ahead = seqid - atomic_load_explicit(&sl->seqid, memory_order_relaxed);

	return ahead == 0 || (ahead == 1 && !running) ? NFS4ERR_DELAY : NFS4ERR_SEQ_MISORDERED;
}

/* All replies that are kept have one limit, but for one of each client. Better that a request waits than that its reply cannot be
 * kept. */
static bool may_cache(struct st *s, const struct st_session *se, const struct st_slot *sl)
{
	uint64_t used = atomic_load_explicit(&s->replay_bytes, memory_order_relaxed);

	if (used - sl->cap + se->fore.max_cached <= s->opts.replay_bytes)
		return true;
	return atomic_load_explicit(&se->client->cached, memory_order_relaxed) <= sl->cap;
}

/* The sequence is the next one: may the request run? */
static nfsstat4 admit(struct st *s, const struct st_session *se, const struct st_slot *sl, const struct st_seq *q)
{
	if (q->nops > se->fore.max_ops)
		return NFS4ERR_TOO_MANY_OPS;
	if (q->request_len > se->fore.max_request)
		return NFS4ERR_REQ_TOO_BIG;
	if (q->reply_min > se->fore.max_response)
		return NFS4ERR_REP_TOO_BIG;
	if (q->cache_this && q->reply_min > se->fore.max_cached)
		return NFS4ERR_REP_TOO_BIG_TO_CACHE;
	return q->cache_this && !may_cache(s, se, sl) ? NFS4ERR_DELAY : NFS4_OK;
}

/* The sequence is that of the last request. */
static nfsstat4 retry(struct st *s, struct st_slot *sl, struct st_seq *q)
{
	switch (sl->kind) {
	case REPLY_NONE:
		return NFS4ERR_SEQ_MISORDERED;
	case REPLY_SOLO:
		return q->nops == 1 ? NFS4_OK : NFS4ERR_SEQ_FALSE_RETRY;
	case REPLY_UNCACHED:
		return NFS4ERR_RETRY_UNCACHED_REP;
	case REPLY_CACHED:
		break;
	}
	if (sl->fingerprint != q->fingerprint) {
		stat_add(&s->false_retries, 1);
		return NFS4ERR_SEQ_FALSE_RETRY;
	}
	stat_add(&s->replays, 1);
	q->reply = sl->reply;
	q->reply_len = sl->len;
	return ST_REPLAY;
}

/* By its next request in a slot the client shows that it has read the reply of the last one there, and what the target was. */
static void note_obedience(struct st_session *se, const struct st_slot *sl, const struct st_seq *q)
{
	uint32_t target = atomic_load_explicit(&se->target, memory_order_relaxed);

	if (sl->told == target && q->highest_slotid < target && q->slotid < target)
		atomic_store_explicit(&se->obeyed, target, memory_order_relaxed);
}

/* The slot is ours. */
static nfsstat4 slot_sequence(struct st *s, struct st_session *se, struct st_slot *sl, struct st_seq *q)
{
	uint32_t last = atomic_load_explicit(&sl->seqid, memory_order_relaxed);
	nfsstat4 st;

	if (q->seqid == last)
		return retry(s, sl, q);
	if (q->seqid != last + 1) { /* wraps to 0 as RFC 8881 §2.10.6.1 wants it */
		stat_add(&s->misordered, 1);
		return NFS4ERR_SEQ_MISORDERED;
	}
	st = admit(s, se, sl, q);
	if (st != NFS4_OK)
		return st;
	atomic_store_explicit(&sl->seqid, q->seqid, memory_order_relaxed);
	atomic_store_explicit(&sl->busy, SLOT_RUNNING, memory_order_release);
	sl->nops = q->nops;
	sl->fingerprint = q->fingerprint;
	if (sl->told)
		note_obedience(se, sl, q);
	if (sl->conn != q->conn) {
		sl->conn = q->conn;
		st_session_add_conn(se, q->conn);
	}
	return NFS4_OK;
}

static void fill_result(struct st_session *se, struct st_slot *sl, struct st_seq *q)
{
	uint32_t granted = atomic_load_explicit(&se->granted, memory_order_relaxed);
	uint32_t target = atomic_load_explicit(&se->target, memory_order_relaxed);
	struct st_client *cl = se->client;

	q->highest = granted - 1;
	q->target = target - 1;
	sl->told = target < granted ? target : 0;
	q->status_flags = atomic_load_explicit(&cl->lost, memory_order_relaxed);
	/* A client that never had a backchannel does not miss it. */
	if (atomic_load_explicit(&cl->wants_cb, memory_order_relaxed) &&
	    !atomic_load_explicit(&cl->nbackchans, memory_order_relaxed))
		q->status_flags |= SEQ4_STATUS_CB_PATH_DOWN;
}

static void fill_call(struct st_session *se, struct st_slot *sl, const struct st_seq *q, struct st_call *call)
{
	call->session = se;
	call->client = se->client;
	call->slot = sl;
	call->cache_this = q->cache_this;
	call->max_reply = se->fore.max_response;
	call->max_cached = se->fore.max_cached;
	call->max_ops = se->fore.max_ops;
}

nfsstat4 st_slot_begin(struct st *s, struct st_seq *q, struct st_call *call)
{
	struct st_session *se = st_session_find(s, q->sessionid);
	struct st_slot *sl;
	uint32_t granted;
	nfsstat4 st;

	if (!se)
		return NFS4ERR_BADSESSION;
	granted = atomic_load_explicit(&se->granted, memory_order_acquire);
	if (q->slotid >= granted) {
		st = NFS4ERR_BADSLOT;
	} else if (q->highest_slotid >= granted) {
		st = NFS4ERR_BAD_HIGH_SLOT;
	} else {
		sl = &se->slots[q->slotid];
		if (slot_take(sl)) {
			st = slot_sequence(s, se, sl, q);
			if (st == NFS4_OK || st == ST_REPLAY) {
				st_client_renew(s, se->client);
				fill_result(se, sl, q);
				fill_call(se, sl, q, call);
				return st;
			}
			slot_free(sl);
		} else {
			st = slot_taken(sl, q->seqid);
		}
	}
	st_session_put(s, se);
	return st;
}

static void call_end(struct st *s, struct st_call *c)
{
	struct st_session *se = TAKE(c->session);

	slot_free(TAKE(c->slot));
	c->client = NULL;
	st_session_put(s, se);
}

void st_slot_replayed(struct st *s, struct st_call *c)
{
	call_end(s, c);
}

static bool reply_room(struct st *s, struct st_session *se, struct st_slot *sl, size_t len)
{
	uint32_t cap = (uint32_t)((len + REPLY_STEP - 1) / REPLY_STEP * REPLY_STEP);
	uint8_t *p;

	if (len <= sl->cap)
		return true;
	p = malloc(cap);
	if (!p)
		return false;
	free(sl->reply);
	stat_add(&s->replay_bytes, cap - sl->cap);
	atomic_fetch_add_explicit(&se->client->cached, cap - sl->cap, memory_order_relaxed);
	sl->reply = p;
	sl->cap = cap;
	return true;
}

static void reply_drop(struct st *s, struct st_session *se, struct st_slot *sl)
{
	stat_sub(&s->replay_bytes, sl->cap);
	atomic_fetch_sub_explicit(&se->client->cached, sl->cap, memory_order_relaxed);
	free(sl->reply);
	sl->reply = NULL;
	sl->cap = 0;
}

/* Copies all of @out behind its first @skip bytes. */
static void copy_reply(struct st_slot *sl, const struct xa_out *out, size_t skip)
{
	struct iovec iov[16];
	unsigned from = 0, n;
	uint32_t len = 0;

	while ((n = xa_out_iov(out, iov, ARRAY_LEN(iov), &from)) > 0) {
		for (unsigned i = 0; i < n; i++) {
			size_t cut = iov[i].iov_len < skip ? iov[i].iov_len : skip, take = iov[i].iov_len - cut;

			skip -= cut;
			if (take > sl->cap - len)
				take = sl->cap - len;
			memcpy(sl->reply + len, (const uint8_t *)iov[i].iov_base + cut, take);
			len += (uint32_t)take;
		}
	}
	sl->len = len;
}

void st_slot_finish(struct st *s, struct st_call *c, const struct xa_out *out, size_t header_len, nfsstat4 status)
{
	struct st_slot *sl = c->slot;
	size_t len = c->cache_this ? xa_out_len(out) : 0;

	(void)status;
	if (sl->nops == 1) {
		sl->kind = REPLY_SOLO;
	} else if (c->cache_this && len >= header_len && len <= (size_t)c->max_cached + REPLY_SLACK &&
		   reply_room(s, c->session, sl, len - header_len)) {
		copy_reply(sl, out, header_len);
		sl->kind = REPLY_CACHED;
	} else {
		sl->kind = REPLY_UNCACHED;
		if (sl->cap > REPLY_KEEP)
			reply_drop(s, c->session, sl);
	}
	st_client_renew(s, c->client);
	call_end(s, c);
}

static void slot_reset(struct st *s, struct st_session *se, struct st_slot *sl)
{
	reply_drop(s, se, sl);
	sl->kind = REPLY_NONE;
	sl->told = 0;
	sl->len = 0;
	atomic_store_explicit(&sl->seqid, 0, memory_order_relaxed);
}

bool st_slots_retire(struct st *s, struct st_session *se, uint32_t to)
{
	uint32_t n = atomic_load(&se->granted), i = to;

	while (i < n && slot_take(&se->slots[i]))
		i++;
	if (i == n) {
		atomic_store_explicit(&se->granted, to, memory_order_release);
		for (uint32_t k = to; k < n; k++)
			slot_reset(s, se, &se->slots[k]);
	}
	while (i-- > to)
		slot_free(&se->slots[i]);
	return atomic_load(&se->granted) == to;
}

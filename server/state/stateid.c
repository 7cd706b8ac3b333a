/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * stateid.c - the table of stateids, and the checks that reads and writes make
 *
 *     other:  | boot (4) | id (8) |        id is random and not twice in use; id % SID_SHARDS picks the shard
 *
 * RFC 8881 §8.2.4: a seqid of 0 means "whatever is current"; one in the past is OLD_STATEID; one in the future was never
 * given out and is BAD_STATEID. Seqids skip 0 when they wrap.
 */
#include <string.h>

#include "server/state/state_int.h"

#define OTHER_LEN 12

const stateid4 st_invalid_stateid = {.seqid = UINT32_MAX};

enum special { NOT_SPECIAL, ANONYMOUS, BYPASS, RESERVED };

/* All zeros and all ones mean something; everything else with such an `other` is reserved (RFC 8881 §8.2.3). */
static enum special special_of(const stateid4 *sid)
{
	static const uint8_t zeros[OTHER_LEN];
	static const uint8_t ones[OTHER_LEN] = {255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255};

	if (!memcmp(sid->other, zeros, OTHER_LEN))
		return sid->seqid == 0 ? ANONYMOUS : RESERVED;
	if (!memcmp(sid->other, ones, OTHER_LEN))
		return sid->seqid == UINT32_MAX ? BYPASS : RESERVED;
	return NOT_SPECIAL;
}

bool st_is_special(const stateid4 *sid)
{
	return special_of(sid) != NOT_SPECIAL;
}

static void sid_encode(const struct st *s, uint64_t id, uint32_t seqid, stateid4 *out)
{
	out->seqid = seqid;
	memcpy(out->other, &s->boot, 4);
	memcpy(out->other + 4, &id, 8);
}

static bool sid_decode(const struct st *s, const stateid4 *sid, uint64_t *id)
{
	if (memcmp(sid->other, &s->boot, 4) != 0)
		return false;
	memcpy(id, sid->other + 4, 8);
	return true;
}

static struct sid_shard *sid_shard(struct st *s, uint64_t id)
{
	return &s->sid_shard[id % SID_SHARDS];
}

static struct st_state **sid_bucket(struct sid_shard *sh, uint64_t id)
{
	return &sh->bucket[id / SID_SHARDS % SID_BUCKETS];
}

static struct st_state *sid_lookup(struct sid_shard *sh, uint64_t id) REQUIRES(sh->mu)
{
	struct st_state *x = *sid_bucket(sh, id);

	while (x && x->id != id)
		x = x->hash_next;
	return x;
}

/* Into the table, under a number that nobody has. */
static void sid_insert(struct st *s, struct st_state *x)
{
	bool taken;

	do {
		uint64_t id = st_random(s);
		struct sid_shard *sh = sid_shard(s, id);
		struct st_state **b = sid_bucket(sh, id);

		lock_take(&sh->mu);
		taken = sid_lookup(sh, id);
		if (!taken) {
			x->id = id;
			x->hash_next = *b;
			*b = x;
		}
		lock_drop(&sh->mu);
	} while (taken);
}

void st_state_publish(struct st *s, struct st_client *cl, struct st_state *x)
{
	uint32_t lost = atomic_load_explicit(&cl->lost, memory_order_relaxed);

	list_push_front(&cl->states[st_state_bucket(x->owner, &x->file->key)], &x->client_link);
	x->seqid = 1;
	if (lost & SEQ4_STATUS_EXPIRED_ALL_STATE_REVOKED)
		atomic_store_explicit(&cl->lost, (lost & ~LOST_EXPIRED) | SEQ4_STATUS_EXPIRED_SOME_STATE_REVOKED,
				      memory_order_relaxed);
	sid_insert(s, x);
}

void st_state_withdraw(struct st *s, struct st_client *cl, struct st_state *x)
{
	struct sid_shard *sh = sid_shard(s, x->id);
	struct st_state **p = sid_bucket(sh, x->id);

	lock_take(&sh->mu);
	while (*p != x)
		p = &(*p)->hash_next;
	*p = x->hash_next;
	lock_drop(&sh->mu);
	list_del(&x->client_link);
	(void)cl;
}

void st_state_revoke(struct st *s, struct st_client *cl, struct st_state *x, nfsstat4 status)
{
	struct sid_shard *sh = sid_shard(s, x->id);

	lock_take(&sh->mu);
	x->revoked = status;
	x->file = NULL;
	x->owner = NULL;
	lock_drop(&sh->mu);
	list_del(&x->client_link);
	list_push_back(&cl->revoked, &x->client_link);
	++*st_revoked_count(cl, status);
}

void st_state_stateid(struct st *s, struct st_client *cl, struct st_state *x, bool bump, stateid4 *out)
{
	struct sid_shard *sh = sid_shard(s, x->id);

	(void)cl;
	lock_take(&sh->mu);
	if (bump && ++x->seqid == 0)
		x->seqid = 1;
	sid_encode(s, x->id, x->seqid, out);
	lock_drop(&sh->mu);
}

void st_state_unbump(struct st *s, struct st_state *x)
{
	struct sid_shard *sh = sid_shard(s, x->id);

	lock_take(&sh->mu);
	if (--x->seqid == 0)
		x->seqid = UINT32_MAX;
	lock_drop(&sh->mu);
}

/* Wrapping is far away, yet half the space behind is "old" and the other half "never seen". */
static nfsstat4 check_seqid(uint32_t theirs, uint32_t ours)
{
	if (theirs == 0 || theirs == ours)
		return NFS4_OK;
	return (int32_t)(theirs - ours) < 0 ? NFS4ERR_OLD_STATEID : NFS4ERR_BAD_STATEID;
}

nfsstat4 st_state_find(struct st *s, struct st_client *cl, const struct st_fhkey *key, const stateid4 *sid,
		       unsigned kinds, struct st_state **out)
{
	nfsstat4 st = NFS4ERR_BAD_STATEID;
	struct sid_shard *sh;
	struct st_state *x;
	uint64_t id;

	if (!sid_decode(s, sid, &id))
		return NFS4ERR_BAD_STATEID;
	sh = sid_shard(s, id);
	lock_take(&sh->mu);
	x = sid_lookup(sh, id);
	if (x && x->client == cl && x->revoked) {
		st = x->revoked;
		*out = x;
	} else if (x && x->client == cl && (x->kind & kinds) && (!key || st_key_equal(&x->file->key, key))) {
		st = check_seqid(sid->seqid, x->seqid);
		*out = x;
	}
	lock_drop(&sh->mu);
	return st;
}

nfsstat4 st_test_stateid(struct st *s, struct st_client *cl, const stateid4 *sid)
{
	struct st_state *x;
	nfsstat4 st;

	lock_take(&cl->mu);
	st = st_state_find(s, cl, NULL, sid, STATE_OPEN | STATE_LOCK, &x);
	lock_drop(&cl->mu);
	return st;
}

nfsstat4 st_free_stateid(struct st *s, struct st_client *cl, const stateid4 *sid)
{
	struct list files = LIST_INIT(files);
	struct st_state *x = NULL;
	struct st_locks *l;
	nfsstat4 st;

	lock_take(&cl->mu);
	st = st_state_find(s, cl, NULL, sid, STATE_OPEN | STATE_LOCK, &x);
	if (st == NFS4_OK && x->kind == STATE_OPEN) {
		st = NFS4ERR_LOCKS_HELD; /* RFC 8881 §18.38.3: an open is ended by CLOSE */
	} else if (st == NFS4_OK) {
		l = container_of(x, struct st_locks, s);
		if (l->nranges)
			st = NFS4ERR_LOCKS_HELD;
		else
			st_locks_drop(s, cl, l, NFS4_OK, &files);
	} else if (st == NFS4ERR_EXPIRED || st == NFS4ERR_ADMIN_REVOKED) {
		st_revoked_ack(s, cl, x);
		st = NFS4_OK;
	}
	lock_drop(&cl->mu);
	st_files_free(s, &files);
	return st;
}

/* ---- reading and writing ---------------------------------------------------------------------------------------------------- */

/* Does an open of anybody deny this access? But for one that denies @own. */
static nfsstat4 check_denied(struct st *s, const struct st_fhkey *key, uint32_t access, uint32_t own)
{
	struct file_shard *sh = st_file_shard(s, key);
	struct st_file *f;
	bool denied = false;

	if (!access)
		return NFS4_OK;
	lock_take(&sh->mu);
	f = st_file_find(sh, key);
	if (f)
		denied = (access & OPEN4_SHARE_ACCESS_READ && f->deny[0] > (own & 1)) ||
			 (access & OPEN4_SHARE_ACCESS_WRITE && f->deny[1] > (own >> 1));
	lock_drop(&sh->mu);
	return denied ? NFS4ERR_LOCKED : NFS4_OK;
}

static void fill_io(const struct st_open *o, struct st_io *io)
{
	io->advice = atomic_load_explicit(&o->advice, memory_order_relaxed);
	io->own = st_same_principal(&o->who, &io->who) && !atomic_load_explicit(&o->common, memory_order_relaxed);
}

nfsstat4 st_io_check(struct st *s, struct st_client *client, const struct st_fhkey *key, const stateid4 *sid,
		     uint32_t access, struct st_io *io)
{
	uint32_t allowed = 0, own = 0, given = access & ST_AS_OPENED;
	nfsstat4 st = NFS4ERR_BAD_STATEID;
	struct sid_shard *sh;
	struct st_state *x;
	uint64_t id;

	access &= ~ST_AS_OPENED;
	if (io) {
		io->advice = 0;
		io->own = false;
	}
	if (!sid_decode(s, sid, &id)) {
		/* Somebody may yet reclaim a reservation against it (RFC 8881 §8.4.2.1). */
		if (st_is_special(sid) && access && st_in_grace(s))
			return NFS4ERR_GRACE;
		switch (special_of(sid)) {
		case ANONYMOUS:
			return check_denied(s, key, access, 0);
		case BYPASS: /* RFC 8881 §8.2.3: READ passes by share reservations, WRITE does not */
			return check_denied(s, key, access & OPEN4_SHARE_ACCESS_WRITE, 0);
		default:
			return NFS4ERR_BAD_STATEID;
		}
	}
	sh = sid_shard(s, id);
	lock_take(&sh->mu);
	x = sid_lookup(sh, id);
	if (x && x->client == client && x->revoked) {
		st = x->revoked;
	} else if (x && x->client == client && st_key_equal(&x->file->key, key)) {
		struct st_open *o = x->kind == STATE_OPEN ? container_of(x, struct st_open, s)
							  : container_of(x, struct st_locks, s)->open;

		allowed = atomic_load_explicit(&o->access, memory_order_relaxed);
		own = atomic_load_explicit(&o->deny, memory_order_relaxed);
		if (io)
			fill_io(o, io);
		st = check_seqid(sid->seqid, x->seqid);
	}
	lock_drop(&sh->mu);
	if (st != NFS4_OK || !(access & ~allowed))
		return st;
	if (given || access & ~allowed & OPEN4_SHARE_ACCESS_WRITE)
		return NFS4ERR_OPENMODE;
	/* A client that writes parts of blocks has to read them (RFC 8881 §18.22.3); others' reservations still count. */
	return check_denied(s, key, OPEN4_SHARE_ACCESS_READ, own);
}

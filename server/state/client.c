/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * client.c - client records: EXCHANGE_ID, confirmation, leases, courtesy
 *
 *     (none) --EXCHANGE_ID--> unconfirmed --CREATE_SESSION--> confirmed --lease over--> courtesy
 *                                 |                             ^   |                     |  |
 *                                 | a lease unconfirmed         +---|----- SEQUENCE ------+  | somebody needs its state,
 *                                 v                                 v                        v or a day
 *                              removed                           removed (DESTROY_CLIENTID, restart of the client)
 *
 * There is at most one confirmed and one unconfirmed record of an owner. A client whose lease is over and that holds
 * nothing is removed at once; one that holds something is kept until then (state.h).
 */
#include <stdlib.h>
#include <string.h>

#include "server/state/state_int.h"

struct st_client *st_client_get(struct st_client *cl)
{
	atomic_fetch_add_explicit(&cl->refs, 1, memory_order_relaxed);
	return cl;
}

void st_client_put(struct st_client *cl)
{
	if (!cl || atomic_fetch_sub_explicit(&cl->refs, 1, memory_order_acq_rel) != 1)
		return;
	lock_fini(&cl->mu);
	free(cl);
}

uint64_t st_client_id(const struct st_client *cl)
{
	return cl->id;
}

bool st_client_expired(const struct st *s, const struct st_client *cl)
{
	uint64_t now = st_now_ms(s), renewed = atomic_load_explicit(&cl->renewed_ms, memory_order_relaxed);

	return now > renewed && now - renewed > s->lease_ms;
}

static struct list *id_bucket(struct st *s, uint64_t id)
{
	return &s->by_id[id % CLIENT_BUCKETS];
}

static struct list *owner_bucket(struct st *s, const struct st_name *owner)
{
	return &s->by_owner[st_hash(owner->bytes, owner->len) % CLIENT_BUCKETS];
}

struct st_client *st_client_find(struct st *s, uint64_t id)
{
	list_for_each (it, id_bucket(s, id)) {
		struct st_client *cl = list_entry(it, struct st_client, id_link);

		if (cl->id == id)
			return cl;
	}
	return NULL;
}

static struct st_client *find_owner(struct st *s, const struct st_name *owner, bool confirmed) REQUIRES(s->mu)
{
	list_for_each (it, owner_bucket(s, owner)) {
		struct st_client *cl = list_entry(it, struct st_client, owner_link);

		if (cl->confirmed == confirmed && cl->owner_len == owner->len &&
		    !memcmp(cl->owner, owner->bytes, owner->len))
			return cl;
	}
	return NULL;
}

static bool same_principal(const struct st_principal *a, const struct st_principal *b)
{
	return a->flavor == b->flavor && a->uid == b->uid;
}

static bool holds_state(struct st_client *cl)
{
	bool held;

	lock_take(&cl->mu);
	held = cl->nopens || cl->nlocks;
	lock_drop(&cl->mu);
	return held;
}

static struct st_client *client_new(const struct st *s, const struct st_exchange *x)
{
	struct st_client *cl = calloc(1, sizeof *cl + x->owner.len);

	if (!cl)
		return NULL;
	lock_init(&cl->mu);
	list_init(&cl->sessions);
	for (int i = 0; i < OWNER_BUCKETS; i++)
		list_init(&cl->owners[i]);
	for (int i = 0; i < STATE_BUCKETS; i++)
		list_init(&cl->states[i]);
	memcpy(cl->verifier, x->verifier, sizeof cl->verifier);
	cl->who = x->who;
	/* A CREATE_SESSION that "repeats" the one before the first finds this (RFC 8881 §18.36.4). */
	cl->cs_status = NFS4ERR_SEQ_MISORDERED;
	cl->owner_len = x->owner.len;
	memcpy(cl->owner, x->owner.bytes, x->owner.len);
	atomic_init(&cl->refs, 1); /* the table's */
	st_client_renew(s, cl);
	return cl;
}

static void client_insert(struct st *s, struct st_client *cl) REQUIRES(s->mu)
{
	struct st_name owner = {cl->owner, cl->owner_len};

	cl->id = (uint64_t)s->boot << 32 | (s->next_client++ & UINT32_MAX);
	list_push_back(id_bucket(s, cl->id), &cl->id_link);
	list_push_back(owner_bucket(s, &owner), &cl->owner_link);
	s->nclients++;
}

void st_client_remove(struct st *s, struct st_client *cl, struct list *files)
{
	list_del(&cl->id_link);
	list_del(&cl->owner_link);
	s->nclients--;
	while (!list_empty(&cl->sessions))
		st_session_remove(s, list_first(&cl->sessions, struct st_session, client_link));
	lock_take(&cl->mu);
	st_states_drop(s, cl, files);
	cl->dead = true;
	lock_drop(&cl->mu);
	st_client_put(cl);
}

/* Who is missed least: the longest silent of those whose lease is over or (@unconfirmed) who were never confirmed. */
static struct st_client *victim(struct st *s, const struct st_client *spare, bool unconfirmed) REQUIRES(s->mu)
{
	struct st_client *found = NULL;

	for (int i = 0; i < CLIENT_BUCKETS; i++) {
		list_for_each (it, &s->by_id[i]) {
			struct st_client *cl = list_entry(it, struct st_client, id_link);

			if (cl == spare || !(st_client_expired(s, cl) || (unconfirmed && !cl->confirmed)))
				continue;
			if (!found || atomic_load(&cl->renewed_ms) < atomic_load(&found->renewed_ms))
				found = cl;
		}
	}
	return found;
}

static bool evict(struct st *s, struct st_client *cl, struct list *files) REQUIRES(s->mu)
{
	if (!cl)
		return false;
	if (holds_state(cl))
		stat_add(&s->expired, 1);
	st_client_remove(s, cl, files);
	return true;
}

bool st_client_evict(struct st *s, const struct st_client *spare, struct list *files)
{
	return evict(s, victim(s, spare, false), files);
}

static bool make_room(struct st *s, struct list *files) REQUIRES(s->mu)
{
	return s->nclients < s->opts.max_clients || evict(s, victim(s, NULL, true), files);
}

static void fill_exchange(const struct st_client *cl, struct st_exchange *x)
{
	x->clientid = cl->id;
	x->sequenceid = cl->cs_sequence + 1;
	x->confirmed = cl->confirmed;
}

/* Cases 6 to 9 of RFC 8881 §18.35.4. */
static nfsstat4 exchange_update(struct st *s, struct st_exchange *x) REQUIRES(s->mu)
{
	struct st_client *cl = find_owner(s, &x->owner, true);

	if (!cl)
		return NFS4ERR_NOENT;
	if (memcmp(cl->verifier, x->verifier, sizeof cl->verifier) != 0)
		return NFS4ERR_NOT_SAME;
	if (!same_principal(&cl->who, &x->who))
		return NFS4ERR_PERM;
	fill_exchange(cl, x);
	return NFS4_OK;
}

/* Cases 1 to 5. @fresh is used (and NULL afterwards) when a new record is made. */
static nfsstat4 exchange_new(struct st *s, struct st_exchange *x, struct st_client **fresh, struct list *files)
	REQUIRES(s->mu)
{
	struct st_client *cl = find_owner(s, &x->owner, true), *unconfirmed;

	if (cl && same_principal(&cl->who, &x->who)) {
		if (!memcmp(cl->verifier, x->verifier, sizeof cl->verifier)) {
			fill_exchange(cl, x); /* case 2 */
			return NFS4_OK;
		}
		/* case 5: the old incarnation stays until the new one is confirmed */
	} else if (cl) {
		if (holds_state(cl) && !st_client_expired(s, cl))
			return NFS4ERR_CLID_INUSE; /* case 3 */
		st_client_remove(s, cl, files);
	}
	unconfirmed = find_owner(s, &x->owner, false);
	if (unconfirmed)
		st_client_remove(s, unconfirmed, files); /* case 4 */
	if (!make_room(s, files))
		return NFS4ERR_DELAY;
	cl = TAKE(*fresh);
	client_insert(s, cl);
	fill_exchange(cl, x);
	return NFS4_OK;
}

nfsstat4 st_exchange_id(struct st *s, struct st_exchange *x)
{
	struct list files = LIST_INIT(files);
	struct st_client *fresh;
	nfsstat4 st;

	if (x->owner.len > ST_NAME_MAX)
		return NFS4ERR_BADXDR;
	fresh = x->update ? NULL : client_new(s, x);
	if (!fresh && !x->update)
		return NFS4ERR_DELAY;
	lock_take(&s->mu);
	st = x->update ? exchange_update(s, x) : exchange_new(s, x, &fresh, &files);
	lock_drop(&s->mu);
	st_files_free(s, &files);
	st_client_put(fresh);
	return st;
}

void st_client_confirm(struct st *s, struct st_client *cl, struct list *files)
{
	struct st_name owner = {cl->owner, cl->owner_len};
	struct st_client *old;

	if (cl->confirmed)
		return;
	old = find_owner(s, &owner, true);
	if (old)
		st_client_remove(s, old, files);
	cl->confirmed = true;
	st_grace_meet(s, cl);
}

void st_client_expire(struct st *s, struct st_client *cl)
{
	struct list files = LIST_INIT(files);
	bool here, gone = false;

	/* Before others have what it held. It waits for the disk, once for a client that was cut off. */
	st_record_drop(s, cl);
	lock_take(&s->mu);
	/* It may have come back or be gone since the caller looked. */
	here = st_client_find(s, cl->id) == cl;
	if (here && st_client_expired(s, cl)) {
		stat_add(&s->expired, 1);
		st_client_remove(s, cl, &files);
		gone = true;
	}
	lock_drop(&s->mu);
	/* Not when another caller has taken it away meanwhile. */
	if (here && !gone)
		st_record_keep(s, cl);
	st_files_free(s, &files);
}

nfsstat4 st_destroy_clientid(struct st *s, uint64_t clientid)
{
	struct list files = LIST_INIT(files);
	nfsstat4 st = NFS4_OK;
	struct st_client *cl;

	lock_take(&s->mu);
	cl = st_client_find(s, clientid);
	if (!cl)
		st = NFS4ERR_STALE_CLIENTID;
	else if (cl->nsessions || holds_state(cl))
		st = NFS4ERR_CLIENTID_BUSY;
	else {
		st_grace_leave(s, cl);
		st_client_remove(s, cl, &files);
	}
	lock_drop(&s->mu);
	st_files_free(s, &files);
	return st;
}

/* What the client's silence costs it now: nothing, or its record. */
static bool overdue(const struct st *s, struct st_client *cl)
{
	uint64_t silent;

	if (!st_client_expired(s, cl))
		return false;
	silent = st_now_ms(s) - atomic_load_explicit(&cl->renewed_ms, memory_order_relaxed);
	return !cl->confirmed || silent > s->lease_ms + s->courtesy_ms || !holds_state(cl);
}

/* One whose time is up, with a reference; NULL: there is none (left). */
static struct st_client *next_overdue(struct st *s, int bucket)
{
	struct st_client *found = NULL;

	lock_take(&s->mu);
	list_for_each (it, &s->by_id[bucket]) {
		struct st_client *cl = list_entry(it, struct st_client, id_link);

		if (overdue(s, cl)) {
			found = st_client_get(cl);
			break;
		}
	}
	lock_drop(&s->mu);
	return found;
}

void st_clients_tick(struct st *s)
{
	for (int i = 0; i < CLIENT_BUCKETS; i++) {
		struct st_client *cl;

		while ((cl = next_overdue(s, i))) {
			st_client_expire(s, cl);
			st_client_put(cl);
		}
	}
}

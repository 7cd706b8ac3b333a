/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * client.c - client records: EXCHANGE_ID, confirmation, leases, courtesy
 *
 *     (none) --EXCHANGE_ID--> unconfirmed --CREATE_SESSION--> confirmed --lease over--> courtesy
 *                                 |                             ^   |                     |  |
 *                                 | a lease unconfirmed         +---|----- SEQUENCE ------+  | a day, or others need
 *                                 v                                 v                        v the room
 *                              removed                           removed (DESTROY_CLIENTID, restart of the client)
 *
 * There is at most one confirmed and one unconfirmed record of an owner. A client whose lease is over and that holds
 * nothing is removed at once; one that holds something is kept until then (state.h), and loses it when somebody needs it,
 * or when there is no room for others (revoke.c).
 */
#include <stdlib.h>
#include <string.h>

#include "server/state/state_int.h"

enum {
	FRESH_SHARE = 20, /* of a lease: how long a new client may take for its CREATE_SESSION */
	NEW_SHARE = 8,    /* of all clients, those that may be waited for at the cost of silent ones */
};

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
	free(cl->said);
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

bool st_client_here(struct st *s, const struct st_client *cl)
{
	bool here;

	lock_take(&s->mu);
	here = st_client_find(s, cl->id) == cl;
	lock_drop(&s->mu);
	return here;
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

bool st_client_holds(struct st_client *cl, bool or_lost)
{
	bool held;

	lock_take(&cl->mu);
	held = cl->nopens || cl->nlocks || (or_lost && !list_empty(&cl->revoked));
	lock_drop(&cl->mu);
	return held;
}

static struct st_client *client_new(struct st *s, const struct st_exchange *x)
{
	struct st_client *cl = calloc(1, sizeof *cl + x->owner.len);

	if (!cl)
		return NULL;
	lock_init(&cl->mu);
	list_init(&cl->from_link);
	list_init(&cl->sessions);
	list_init(&cl->revoked);
	for (int i = 0; i < OWNER_BUCKETS; i++)
		list_init(&cl->owners[i]);
	for (int i = 0; i < STATE_BUCKETS; i++)
		list_init(&cl->states[i]);
	memcpy(cl->verifier, x->verifier, sizeof cl->verifier);
	cl->who = x->who;
	/* A CREATE_SESSION that "repeats" the one before the first finds this (RFC 8881 §18.36.4). */
	cl->alias = st_random(s);
	cl->cs_status = NFS4ERR_SEQ_MISORDERED;
	cl->owner_len = x->owner.len;
	memcpy(cl->owner, x->owner.bytes, x->owner.len);
	atomic_init(&cl->refs, 1); /* the table's */
	st_client_renew(s, cl);
	return cl;
}

/* @from's reference is taken over. */
static void client_insert(struct st *s, struct st_client *cl, struct peer *from) REQUIRES(s->mu)
{
	struct st_name owner = {cl->owner, cl->owner_len};

	do {
		cl->id = st_random(s);
	} while (st_client_find(s, cl->id));
	list_push_back(id_bucket(s, cl->id), &cl->id_link);
	list_push_back(owner_bucket(s, &owner), &cl->owner_link);
	peers_join(from, &cl->from_link);
	cl->from = from;
	s->nclients++;
}

void st_client_remove(struct st *s, struct st_client *cl, struct list *files)
{
	list_del(&cl->id_link);
	list_del(&cl->owner_link);
	s->nclients--;
	while (!list_empty(&cl->sessions))
		st_session_remove(s, list_first(&cl->sessions, struct st_session, client_link));
	peers_leave(cl->from, &cl->from_link);
	lock_take(&cl->mu);
	st_states_drop(s, cl, 0, NFS4_OK, files);
	st_revoked_free(s, cl);
	cl->dead = true;
	peers_put(TAKE(cl->from));
	lock_drop(&cl->mu);
	st_client_put(cl);
}

/* Whoever calls EXCHANGE_ID and nothing else must not cost others what they hold: what was never confirmed goes first. But not so soon
 * that its CREATE_SESSION comes too late, as long as such records are few. */
static bool may_stay(const struct st *s, const struct st_client *oldest, unsigned n)
{
	return n <= s->opts.max_clients / NEW_SHARE &&
	       st_now_ms(s) - atomic_load(&oldest->renewed_ms) < s->lease_ms / FRESH_SHARE;
}

/* Who may go for another client. */
struct victims {
	struct st_client *fresh, *silent, *alive; /* of each kind the one that was heard of longest ago */
	unsigned nfresh;
};

static void consider(const struct st *s, struct victims *v, struct st_client *cl)
{
	struct st_client **of = &v->alive;

	if (!cl->confirmed) {
		of = &v->fresh;
		v->nfresh++;
	} else if (st_client_expired(s, cl)) {
		of = &v->silent;
	}
	if (!*of || atomic_load(&cl->renewed_ms) < atomic_load(&(*of)->renewed_ms))
		*of = cl;
}

static struct st_client *choose(const struct st *s, const struct victims *v, bool or_alive)
{
	struct st_client *other = v->silent || !or_alive ? v->silent : v->alive;

	return v->fresh && (!other || !may_stay(s, v->fresh, v->nfresh)) ? v->fresh : other;
}

/* All places are taken: who goes for a client from @peer (referenced; NULL: nobody)? Of the address that has most, unless it is the
 * newcomer's own, even one that is alive: that address has it from all the others. Else one that is silent or never came. */
static struct st_client *in_the_way(struct st *s, const struct sockaddr *peer, bool *alive) REQUIRES(s->mu)
{
	const struct peer *own = peers_find(&s->peers, peer), *most = peers_greediest(&s->peers);
	struct victims v = {.nfresh = 0};
	struct st_client *cl;

	*alive = most && peers_weight(most) > peers_weight(own) + 1;
	if (most && (*alive || own == most)) {
		list_for_each (it, &most->members)
			consider(s, &v, list_entry(it, struct st_client, from_link));
	} else {
		for (int i = 0; i < CLIENT_BUCKETS; i++)
			list_for_each (it, &s->by_id[i])
				consider(s, &v, list_entry(it, struct st_client, id_link));
	}
	cl = choose(s, &v, *alive);
	return cl ? st_client_get(cl) : NULL;
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
	if (!st_same_principal(&cl->who, &x->who))
		return NFS4ERR_PERM;
	fill_exchange(cl, x);
	return NFS4_OK;
}

/* Cases 1 to 5. @fresh is used (and NULL afterwards) when a new record is made. @in_way: who has to go first (referenced). */
static nfsstat4 exchange_new(struct st *s, struct st_exchange *x, struct st_client **fresh, struct st_client **in_way,
			     bool *alive, struct list *files) REQUIRES(s->mu)
{
	struct st_client *cl = find_owner(s, &x->owner, true), *unconfirmed;
	struct peer *from;

	if (cl && st_same_principal(&cl->who, &x->who)) {
		if (!memcmp(cl->verifier, x->verifier, sizeof cl->verifier)) {
			fill_exchange(cl, x); /* case 2 */
			return NFS4_OK;
		}
		/* case 5: the old incarnation stays until the new one is confirmed */
	} else if (cl) {
		if (!st_client_expired(s, cl)) {
			if (st_client_holds(cl, false))
				return NFS4ERR_CLID_INUSE; /* case 3 */
			st_grace_leave(s, cl);
			st_client_remove(s, cl, files);
		} else {
			*in_way = st_client_get(cl);
			return NFS4ERR_DELAY;
		}
	}
	unconfirmed = find_owner(s, &x->owner, false);
	if (unconfirmed)
		st_client_remove(s, unconfirmed, files); /* case 4 */
	if (s->nclients >= s->opts.max_clients) {
		*in_way = in_the_way(s, x->peer, alive);
		return NFS4ERR_DELAY;
	}
	from = peers_get(&s->peers, x->peer);
	if (!from)
		return NFS4ERR_DELAY;
	cl = TAKE(*fresh);
	client_insert(s, cl, from);
	fill_exchange(cl, x);
	return NFS4_OK;
}

nfsstat4 st_exchange_id(struct st *s, struct st_exchange *x)
{
	struct list files = LIST_INIT(files);
	struct st_client *fresh, *in_way;
	bool alive;
	nfsstat4 st;

	if (x->owner.len > ST_NAME_MAX)
		return NFS4ERR_BADXDR;
	fresh = x->update ? NULL : client_new(s, x);
	if (!fresh && !x->update)
		return NFS4ERR_DELAY;
	do {
		in_way = NULL;
		alive = false;
		lock_take(&s->mu);
		st = x->update ? exchange_update(s, x) : exchange_new(s, x, &fresh, &in_way, &alive, &files);
		lock_drop(&s->mu);
	} while (in_way && st_client_forget(s, in_way, alive) == NFS4_OK);
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

nfsstat4 st_destroy_clientid(struct st *s, uint64_t clientid, const struct st_principal *who)
{
	struct list files = LIST_INIT(files);
	nfsstat4 st = NFS4_OK;
	struct st_client *cl;

	lock_take(&s->mu);
	cl = st_client_find(s, clientid);
	if (!cl)
		st = NFS4ERR_STALE_CLIENTID;
	else if (who && !st_same_principal(&cl->who, who))
		st = NFS4ERR_WRONG_CRED;
	else if (cl->nsessions || st_client_holds(cl, false))
		st = NFS4ERR_CLIENTID_BUSY;
	else {
		st_grace_leave(s, cl);
		st_client_remove(s, cl, &files);
	}
	lock_drop(&s->mu);
	st_files_free(s, &files);
	return st;
}

/* Is the client's silence so long that it costs it everything? */
static bool overdue(const struct st *s, struct st_client *cl)
{
	uint64_t silent;

	if (!st_client_expired(s, cl))
		return false;
	silent = st_now_ms(s) - atomic_load_explicit(&cl->renewed_ms, memory_order_relaxed);
	return !cl->confirmed || silent > s->lease_ms + s->courtesy_ms || !st_client_holds(cl, true);
}

/* Knows what it lost, and is alive: it may be on record again. */
static bool returned(const struct st *s, struct st_client *cl)
{
	return atomic_load(&cl->struck) && !(atomic_load(&cl->lost) & LOST_EXPIRED) && !st_client_expired(s, cl);
}

/* It has advice to its name, and nobody there any more. */
static bool fell_silent(const struct st *s, struct st_client *cl)
{
	return atomic_load(&cl->spoke) && st_client_expired(s, cl);
}

/* One for which @what is so, with a reference; NULL: there is none (left). */
static struct st_client *next(struct st *s, int bucket, bool (*what)(const struct st *s, struct st_client *cl))
{
	struct st_client *found = NULL;

	lock_take(&s->mu);
	list_for_each (it, &s->by_id[bucket]) {
		struct st_client *cl = list_entry(it, struct st_client, id_link);

		if (what(s, cl)) {
			found = st_client_get(cl);
			break;
		}
	}
	lock_drop(&s->mu);
	return found;
}

static bool holds_what_goes(const struct st_client *cl, bool (*lasts)(const struct st_pin *pin)) REQUIRES(cl->mu)
{
	for (int i = 0; i < STATE_BUCKETS; i++)
		list_for_each (it, &cl->states[i]) {
			const struct st_state *x = list_entry(it, struct st_state, client_link);

			if (x->kind == STATE_OPEN && !lasts(&x->file->pin))
				return true;
		}
	return false;
}

/* One whose lease is over, and that holds something which does not last; referenced. */
static struct st_client *next_leaving(struct st *s, int bucket, bool (*lasts)(const struct st_pin *pin))
{
	struct st_client *found = NULL;

	lock_take(&s->mu);
	list_for_each (it, &s->by_id[bucket]) {
		struct st_client *cl = list_entry(it, struct st_client, id_link);

		if (!st_client_expired(s, cl))
			continue;
		lock_take(&cl->mu);
		if (holds_what_goes(cl, lasts))
			found = st_client_get(cl);
		lock_drop(&cl->mu);
		if (found)
			break;
	}
	lock_drop(&s->mu);
	return found;
}

void st_forget_silent(struct st *s, bool (*lasts)(const struct st_pin *pin))
{
	for (int i = 0; i < CLIENT_BUCKETS; i++) {
		struct st_client *cl;

		while ((cl = next_leaving(s, i, lasts)) && st_client_forget(s, cl, false) == NFS4_OK)
			;
	}
}

void st_clients_tick(struct st *s)
{
	for (int i = 0; i < CLIENT_BUCKETS; i++) {
		struct st_client *cl;

		while ((cl = next(s, i, overdue)) && st_client_forget(s, cl, false) == NFS4_OK)
			;
		while ((cl = next(s, i, returned)))
			st_client_rejoin(s, cl);
		while ((cl = next(s, i, fell_silent))) {
			st_advice_forget(s, cl);
			st_client_put(cl);
		}
	}
}

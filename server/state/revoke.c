/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * revoke.c - clients that lose what they hold: because others need it, or because the export is taken away
 *
 *     lease over --somebody needs its state--> off the record -> revoked --FREE_STATEID of each--> on record again
 *                --somebody needs the room---> off the record -> forgotten
 *
 * Off the record comes first, and on stable storage: after a restart of ours it must not reclaim what somebody else has had
 * (RFC 8881 §8.4.3). Revoked stateids stay in the table, so that the client can be told which (EXPIRED) and that there are some
 * (SEQ4_STATUS_EXPIRED_*, §18.46.3); what a client lost earlier and did not care to free is forgotten when it loses more.
 *
 * With the stateid of an open the client frees those of the locks under it, as CLOSE would end them. Linux (6.1) forgets its locks when
 * it sees SEQ4_STATUS_ADMIN_STATE_REVOKED and frees opens only; with the flag still set it would look for what it lost after each reply.
 *
 * An export that is taken away takes along what anybody has open and locked there, whether its lease is over or not: ADMIN_REVOKED
 * (§8.5) and SEQ4_STATUS_ADMIN_STATE_REVOKED. That changes no record: what else the client has it may reclaim.
 */
#include <stdlib.h>

#include "server/state/state_int.h"

/* The table's entry, and what is behind it; an open's locks, which are in front of it on the list, go with it. */
static void revoked_free(struct st *s, struct st_client *cl, struct st_state *x) REQUIRES(cl->mu)
{
	--*st_revoked_count(cl, x->revoked);
	st_state_withdraw(s, cl, x);
	if (x->kind == STATE_OPEN) {
		struct st_open *o = container_of(x, struct st_open, s);

		while (!list_empty(&o->locks))
			revoked_free(s, cl, &list_first(&o->locks, struct st_locks, open_link)->s);
		free(o);
	} else {
		struct st_locks *l = container_of(x, struct st_locks, s);

		list_del(&l->open_link);
		free(l);
	}
}

void st_revoked_free(struct st *s, struct st_client *cl)
{
	while (!list_empty(&cl->revoked))
		revoked_free(s, cl, list_first(&cl->revoked, struct st_state, client_link));
	atomic_store_explicit(&cl->lost, 0, memory_order_relaxed);
}

void st_revoked_ack(struct st *s, struct st_client *cl, struct st_state *x)
{
	nfsstat4 status = x->revoked;
	uint32_t told = status == NFS4ERR_EXPIRED ? LOST_EXPIRED : SEQ4_STATUS_ADMIN_STATE_REVOKED;

	revoked_free(s, cl, x);
	if (!*st_revoked_count(cl, status))
		atomic_fetch_and_explicit(&cl->lost, ~told, memory_order_relaxed);
}

/* It may have come back or be gone since the caller looked. */
static bool take_state(struct st *s, struct st_client *cl, struct list *files)
{
	bool taken;

	lock_take(&cl->mu);
	taken = !cl->dead && st_client_expired(s, cl) && (cl->nopens || cl->nlocks);
	if (taken) {
		st_revoked_free(s, cl);
		st_states_drop(s, cl, 0, NFS4ERR_EXPIRED, files);
		atomic_store_explicit(&cl->lost, SEQ4_STATUS_EXPIRED_ALL_STATE_REVOKED, memory_order_relaxed);
		atomic_store(&cl->struck, true);
		stat_add(&s->expired, 1);
	}
	lock_drop(&cl->mu);
	return taken;
}

/* Is it one that exists and should be on record? A client that was struck is put on record by its own way. */
static bool lives(struct st *s, struct st_client *cl)
{
	return st_client_here(s, cl) && !atomic_load(&cl->struck);
}

nfsstat4 st_client_revoke(struct st *s, struct st_client *cl)
{
	struct list files = LIST_INIT(files);
	nfsstat4 st = NFS4_OK;

	lock_take(&s->record_mu);
	if (!st_client_here(s, cl))
		; /* gone; and the record may be that of its next life */
	else if (st_record_strike(s, cl))
		st = NFS4ERR_DELAY;
	else if (!take_state(s, cl, &files) && lives(s, cl))
		st_record_keep(s, cl);
	lock_drop(&s->record_mu);
	st_files_free(s, &files);
	return st;
}

static bool remove_silent(struct st *s, struct st_client *cl, bool alive, struct list *files)
{
	bool gone;

	lock_take(&s->mu);
	gone = st_client_find(s, cl->id) == cl && (alive || !cl->confirmed || st_client_expired(s, cl));
	if (gone) {
		stat_add(&s->expired, st_client_holds(cl, false));
		st_client_remove(s, cl, files);
	}
	lock_drop(&s->mu);
	return gone;
}

nfsstat4 st_client_forget(struct st *s, struct st_client *cl, bool alive)
{
	struct list files = LIST_INIT(files);
	nfsstat4 st = NFS4_OK;

	lock_take(&s->record_mu);
	if (!st_client_here(s, cl))
		; /* gone; and the record may be that of its next life */
	else if (st_record_strike(s, cl))
		st = NFS4ERR_DELAY;
	else if (!remove_silent(s, cl, alive, &files) && lives(s, cl))
		st_record_keep(s, cl);
	lock_drop(&s->record_mu);
	st_files_free(s, &files);
	st_client_put(cl);
	return st;
}

void st_client_rejoin(struct st *s, struct st_client *cl)
{
	lock_take(&s->record_mu);
	if (!(atomic_load(&cl->lost) & LOST_EXPIRED)) { /* else it lost more, and this comes again when it knows that */
		atomic_store(&cl->struck, false);
		if (lives(s, cl))
			st_record_keep(s, cl);
	}
	lock_drop(&s->record_mu);
	st_client_put(cl);
}

/* ---- by export -------------------------------------------------------------------------------------------------------------- */

/* Somebody who never frees any does not make us remember more than it could hold: the oldest are forgotten. */
static void forget_admin(struct st *s, struct st_client *cl) REQUIRES(cl->mu)
{
	list_for_each_safe (it, tmp, &cl->revoked) {
		struct st_state *x = list_entry(it, struct st_state, client_link);

		if (cl->nadmin <= 2 * (uint64_t)s->opts.max_opens)
			break;
		if (x->revoked == NFS4ERR_ADMIN_REVOKED)
			revoked_free(s, cl, x);
	}
}

static unsigned take_export(struct st *s, struct st_client *cl, uint32_t export_id, struct list *files)
{
	unsigned n;

	lock_take(&cl->mu);
	n = st_states_drop(s, cl, export_id, NFS4ERR_ADMIN_REVOKED, files);
	if (n) {
		atomic_fetch_or_explicit(&cl->lost, SEQ4_STATUS_ADMIN_STATE_REVOKED, memory_order_relaxed);
		forget_admin(s, cl);
	}
	lock_drop(&cl->mu);
	return n;
}

unsigned st_export_revoke(struct st *s, uint32_t export_id)
{
	struct list files = LIST_INIT(files);
	unsigned n = 0;

	for (int i = 0; i < CLIENT_BUCKETS; i++) {
		lock_take(&s->mu);
		list_for_each (it, &s->by_id[i])
			n += take_export(s, list_entry(it, struct st_client, id_link), export_id, &files);
		lock_drop(&s->mu);
		st_files_free(s, &files);
	}
	return n;
}

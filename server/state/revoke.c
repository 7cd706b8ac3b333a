/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * revoke.c - clients that lose what they hold because others need it
 *
 *     lease over --somebody needs its state--> off the record -> revoked --FREE_STATEID of each--> on record again
 *                --somebody needs the room---> off the record -> forgotten
 *
 * Off the record comes first, and on stable storage: after a restart of ours it must not reclaim what somebody else has had
 * (RFC 8881 §8.4.3). Revoked stateids stay in the table, so that the client can be told which (EXPIRED) and that there are some
 * (SEQ4_STATUS_EXPIRED_*, §18.46.3); what a client lost earlier and did not care to free is forgotten when it loses more.
 */
#include <stdlib.h>

#include "server/state/state_int.h"

/* The table's entry, and what is behind it. */
static void revoked_free(struct st *s, struct st_client *cl, struct st_state *x) REQUIRES(cl->mu)
{
	st_state_withdraw(s, cl, x);
	if (x->kind == STATE_OPEN)
		free(container_of(x, struct st_open, s));
	else
		free(container_of(x, struct st_locks, s));
}

void st_revoked_free(struct st *s, struct st_client *cl)
{
	while (!list_empty(&cl->revoked))
		revoked_free(s, cl, list_first(&cl->revoked, struct st_state, client_link));
	atomic_store_explicit(&cl->lost, 0, memory_order_relaxed);
}

void st_revoked_ack(struct st *s, struct st_client *cl, struct st_state *x)
{
	revoked_free(s, cl, x);
	if (list_empty(&cl->revoked))
		atomic_store_explicit(&cl->lost, 0, memory_order_relaxed);
}

/* It may have come back or be gone since the caller looked. */
static bool take_state(struct st *s, struct st_client *cl, struct list *files)
{
	bool taken;

	lock_take(&cl->mu);
	taken = !cl->dead && st_client_expired(s, cl) && (cl->nopens || cl->nlocks);
	if (taken) {
		st_revoked_free(s, cl);
		st_states_drop(s, cl, true, files);
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

static bool remove_silent(struct st *s, struct st_client *cl, struct list *files)
{
	bool gone;

	lock_take(&s->mu);
	gone = st_client_find(s, cl->id) == cl && (!cl->confirmed || st_client_expired(s, cl));
	if (gone) {
		stat_add(&s->expired, st_client_holds(cl, false));
		st_client_remove(s, cl, files);
	}
	lock_drop(&s->mu);
	return gone;
}

nfsstat4 st_client_forget(struct st *s, struct st_client *cl)
{
	struct list files = LIST_INIT(files);
	nfsstat4 st = NFS4_OK;

	lock_take(&s->record_mu);
	if (!st_client_here(s, cl))
		; /* gone; and the record may be that of its next life */
	else if (st_record_strike(s, cl))
		st = NFS4ERR_DELAY;
	else if (!remove_silent(s, cl, &files) && lives(s, cl))
		st_record_keep(s, cl);
	lock_drop(&s->record_mu);
	st_files_free(s, &files);
	st_client_put(cl);
	return st;
}

void st_client_rejoin(struct st *s, struct st_client *cl)
{
	lock_take(&s->record_mu);
	if (!atomic_load(&cl->lost)) { /* else it lost more, and this comes again when it knows that */
		atomic_store(&cl->struck, false);
		if (lives(s, cl))
			st_record_keep(s, cl);
	}
	lock_drop(&s->record_mu);
	st_client_put(cl);
}

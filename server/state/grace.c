/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * grace.c - after a restart: who may take back what it had, and how long the others wait
 *
 *     start, somebody on record --> grace --every one of them said RECLAIM_COMPLETE or goodbye, or a lease has passed--> normal
 *
 * While somebody takes something back it goes on beyond that, for a lease at most: a client that comes late, or has much, would lose the
 * rest to whoever is first.
 *
 * In grace only clients on record open and lock, with reclaim, until their own RECLAIM_COMPLETE. Who is not back at its end is
 * taken off the record before anybody may have what it held (RFC 8881 §8.4.2, §8.4.3).
 *
 * A client whose state somebody else needs is taken off the record before it loses the state: it was cut off from us, and after
 * our next restart must not claim what others have had meanwhile (RFC 8881 §8.4.3, both edge conditions). When that fails, the
 * state is not given away. It is on record again when it knows what it lost (revoke.c).
 *
 * record_mu makes each of these steps one: what is in the file, what is in memory, and who holds what change together.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server/state/record.h"
#include "server/state/state_int.h"
#include "vhd/base/log.h"

enum { PAUSE_SHARE = 10 }; /* of a lease: who takes nothing back for so long is not waited for */

/* A client that was on record when we started and has not been heard of since; or one that has left. */
struct absent {
	struct list link;
	struct st_record rec;
	uint8_t owner[];
};

static struct absent *absent_new(const struct st_record *rec)
{
	struct absent *a = malloc(sizeof *a + rec->owner.len);

	if (!a)
		return NULL;
	a->rec = *rec;
	memcpy(a->owner, rec->owner.bytes, rec->owner.len);
	a->rec.owner.bytes = a->owner;
	return a;
}

static struct st_record record_of(const struct st_client *cl)
{
	struct st_record rec = {.owner = {cl->owner, cl->owner_len}, .known = true, .who = cl->who};

	memcpy(rec.verifier, cl->verifier, sizeof rec.verifier);
	return rec;
}

static int add_absent(void *arg, const struct st_record *rec)
{
	struct st *s = arg;
	struct absent *a = absent_new(rec);

	if (!a)
		return -ENOMEM;
	list_push_back(&s->absent, &a->link);
	s->nabsent++;
	return 0;
}

int st_grace_begin(struct st *s, const char *path, struct why *why)
{
	int err;

	if (!path)
		return 0;
	err = st_records_open(&s->records, path, why);
	if (err)
		return err;
	err = st_records_each(s->records, add_absent, s);
	if (err)
		return why_set(why, err, "%s: client records: %s", path, strerror(-err));
	if (s->nabsent) {
		s->grace_until_ms = st_now_ms(s) + s->grace_ms;
		atomic_store(&s->grace, true);
		log_info("%u clients may reclaim what they had: grace period of %u s at most", s->nabsent,
			 (unsigned)(s->grace_ms / 1000));
	}
	return 0;
}

static struct absent *find_absent(struct st *s, const struct st_client *cl) REQUIRES(s->mu)
{
	list_for_each (it, &s->absent) {
		struct absent *a = list_entry(it, struct absent, link);

		if (a->rec.owner.len == cl->owner_len && !memcmp(a->owner, cl->owner, cl->owner_len))
			return a;
	}
	return NULL;
}

/* The same life of the client, and the same user: nobody else had those opens and locks. */
void st_grace_meet(struct st *s, struct st_client *cl)
{
	const struct absent *a = find_absent(s, cl);

	if (a)
		atomic_store(&s->reclaimed_ms, st_now_ms(s));
	cl->on_record = a && (!a->rec.known || (!memcmp(a->rec.verifier, cl->verifier, sizeof cl->verifier) &&
						st_same_principal(&a->rec.who, &cl->who)));
}

/* The last one has what it had. */
static void end_grace(struct st *s)
{
	if (atomic_exchange(&s->grace, false))
		log_info("the grace period is over");
}

static void free_absent(struct list *l)
{
	list_for_each_safe (it, tmp, l) {
		list_del(it);
		free(list_entry(it, struct absent, link));
	}
}

/* All of @l, in one go. */
static int strike_list(struct st *s, const struct list *l) REQUIRES(s->record_mu)
{
	int err;

	if (list_empty(l))
		return 0;
	err = st_records_begin(s->records);
	if (err)
		return err;
	list_for_each (it, l) {
		err = st_records_del(s->records, &list_entry(it, struct absent, link)->rec.owner);
		if (err)
			break;
	}
	return st_records_end(s->records, err);
}

/* Those who have left, and are not here again. A failure costs a grace period in vain after the next start, no more. */
static void strike_leaving(struct st *s) REQUIRES(s->record_mu)
{
	struct list gone = LIST_INIT(gone);

	lock_take(&s->mu);
	list_splice_back(&gone, &s->leaving);
	lock_drop(&s->mu);
	strike_list(s, &gone);
	free_absent(&gone);
}

/* It is back, or was never away. */
static void come_back(struct st *s, const struct st_client *cl)
{
	struct absent *a;
	bool last;

	lock_take(&s->mu);
	a = find_absent(s, cl);
	/* Somebody else of that name does not speak for it. */
	if (a && a->rec.known && !st_same_principal(&a->rec.who, &cl->who))
		a = NULL;
	if (a) {
		list_del(&a->link);
		s->nabsent--;
	}
	last = !s->nabsent;
	lock_drop(&s->mu);
	free(a);
	if (last)
		end_grace(s);
}

nfsstat4 st_reclaim_complete(struct st *s, struct st_client *cl, bool one_fs)
{
	struct st_record rec = record_of(cl);

	/* We move no file systems between servers, so there is nothing to reclaim for one of them. */
	if (one_fs)
		return NFS4_OK;
	if (atomic_exchange(&cl->reclaim_complete, true))
		return NFS4ERR_COMPLETE_ALREADY;
	if (!s->records)
		return NFS4_OK;
	lock_take(&s->record_mu);
	strike_leaving(s); /* it may be one of them: then it is off the record first, and on it again after this */
	if (st_client_here(s, cl)) { /* else it may be its next life that is on record, or somebody else of this name */
		/* A failure is in the log; the client only cannot reclaim after the next restart. */
		if (!cl->on_record || !st_in_grace(s))
			st_records_put(s->records, &rec);
		come_back(s, cl);
	}
	lock_drop(&s->record_mu);
	return NFS4_OK;
}

bool st_in_grace(const struct st *s)
{
	return atomic_load_explicit(&s->grace, memory_order_relaxed);
}

bool st_keeps_records(const struct st *s)
{
	return s->records;
}

uint64_t st_change_base(const struct st *s)
{
	/* Without a record nobody knows how the last one ended. */
	return (uint64_t)(s->records ? st_records_epoch(s->records) : (uint32_t)time(NULL)) << 32;
}

bool st_fh_key(const struct st *s, struct st_fh_key *out)
{
	if (s->records)
		*out = st_records_fh_key(s->records);
	return s->records;
}

void st_stopped(struct st *s)
{
	if (s->records)
		st_records_stopped(s->records);
}

nfsstat4 st_may_claim(const struct st *s, const struct st_client *cl)
{
	return atomic_load_explicit(&cl->reclaim_complete, memory_order_relaxed) && !st_in_grace(s) ? NFS4_OK
												    : NFS4ERR_GRACE;
}

nfsstat4 st_may_reclaim(struct st *s, const struct st_client *cl)
{
	if (!st_in_grace(s) || !cl->on_record || atomic_load_explicit(&cl->reclaim_complete, memory_order_relaxed))
		return NFS4ERR_NO_GRACE;
	atomic_store_explicit(&s->reclaimed_ms, st_now_ms(s), memory_order_relaxed);
	return NFS4_OK;
}

static bool has_record(const struct st *s, const struct st_client *cl)
{
	return s->records && atomic_load_explicit(&cl->reclaim_complete, memory_order_relaxed);
}

int st_record_strike(struct st *s, const struct st_client *cl)
{
	struct st_name owner = {cl->owner, cl->owner_len};

	return has_record(s, cl) ? st_records_del(s->records, &owner) : 0;
}

void st_record_keep(struct st *s, const struct st_client *cl)
{
	struct st_record rec = record_of(cl);

	if (has_record(s, cl))
		st_records_put(s->records, &rec);
}

void st_grace_leave(struct st *s, const struct st_client *cl)
{
	struct st_record rec = record_of(cl);
	struct absent *a = find_absent(s, cl);

	/* It was waited for, and does not want back what it had; nor will anybody else who is that client. */
	if (a && (!a->rec.known || st_same_principal(&a->rec.who, &cl->who))) {
		list_del(&a->link);
		list_push_back(&s->leaving, &a->link);
		if (!--s->nabsent)
			end_grace(s);
		return;
	}
	if (!has_record(s, cl))
		return;
	/* Without memory it stays on record: the next start waits for it in vain, and that is all. */
	a = absent_new(&rec);
	if (a)
		list_push_back(&s->leaving, &a->link);
}

/* Time is up: who is not back is off the record first. While that fails, nobody gets what they had. (One that reclaims right
 * now goes on, and is put on record again by its RECLAIM_COMPLETE.) */
static void close_grace(struct st *s) REQUIRES(s->record_mu)
{
	struct list gone = LIST_INIT(gone);
	bool failed;

	lock_take(&s->mu);
	list_splice_back(&gone, &s->absent);
	s->nabsent = 0;
	lock_drop(&s->mu);
	failed = strike_list(s, &gone) != 0;
	if (!failed) {
		free_absent(&gone);
		end_grace(s);
		return;
	}
	lock_take(&s->mu);
	list_for_each (it, &gone)
		s->nabsent++;
	list_splice_back(&s->absent, &gone);
	lock_drop(&s->mu);
}

static bool still_reclaiming(const struct st *s)
{
	uint64_t now = st_now_ms(s), last = atomic_load(&s->reclaimed_ms), pause = s->lease_ms / PAUSE_SHARE;

	return last && now - last < (pause < 1000 ? 1000 : pause) && now < s->grace_until_ms + s->lease_ms;
}

void st_grace_tick(struct st *s)
{
	if (!s->records)
		return;
	lock_take(&s->record_mu);
	st_records_retry(s->records);
	strike_leaving(s);
	if (st_in_grace(s) && st_now_ms(s) >= s->grace_until_ms && !still_reclaiming(s))
		close_grace(s);
	lock_drop(&s->record_mu);
}

void st_grace_fini(struct st *s)
{
	if (s->records) {
		lock_take(&s->record_mu);
		strike_leaving(s);
		lock_drop(&s->record_mu);
	}
	free_absent(&s->absent);
	st_records_close(s->records);
}

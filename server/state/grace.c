/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * grace.c - after a restart: who may take back what it had, and how long the others wait
 *
 *     start, somebody on record --> grace --every one of them said RECLAIM_COMPLETE, or a lease has passed--> normal
 *
 * In grace only clients on record open and lock, with reclaim, until their own RECLAIM_COMPLETE. Who is not back at its end is
 * taken off the record before anybody may have what it held (RFC 8881 §8.4.2, §8.4.3).
 *
 * A client whose state somebody else needs is taken off the record before it loses the state: it was cut off from us, and after
 * our next restart must not claim what others have had meanwhile (RFC 8881 §8.4.3, both edge conditions).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "server/state/record.h"
#include "server/state/state_int.h"
#include "vhd/base/log.h"

/* A client that was on record when we started and has not been heard of since. */
struct absent {
	struct list link;
	uint32_t len;
	uint8_t owner[];
};

static struct absent *absent_new(const void *owner, uint32_t len)
{
	struct absent *a = malloc(sizeof *a + len);

	if (!a)
		return NULL;
	a->len = len;
	memcpy(a->owner, owner, len);
	return a;
}

static int add_absent(void *arg, const struct st_name *owner)
{
	struct st *s = arg;
	struct absent *a = absent_new(owner->bytes, owner->len);

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
		s->grace_until_ms = st_now_ms(s) + s->lease_ms;
		atomic_store(&s->grace, true);
		log_info("%u clients may reclaim what they had: grace period of %u s at most", s->nabsent,
			 (unsigned)(s->lease_ms / 1000));
	}
	return 0;
}

static struct absent *find_absent(struct st *s, const struct st_name *owner) REQUIRES(s->mu)
{
	list_for_each (it, &s->absent) {
		struct absent *a = list_entry(it, struct absent, link);

		if (a->len == owner->len && !memcmp(a->owner, owner->bytes, owner->len))
			return a;
	}
	return NULL;
}

void st_grace_meet(struct st *s, struct st_client *cl)
{
	struct st_name owner = {cl->owner, cl->owner_len};

	cl->on_record = find_absent(s, &owner) != NULL;
}

/* The last one has what it had. */
static void end_grace(struct st *s)
{
	if (atomic_exchange(&s->grace, false))
		log_info("the grace period is over");
}

/* Those who have left, and are not here again. */
static void drop_leaving(struct st *s)
{
	for (;;) {
		struct absent *a = NULL;
		struct st_name owner;

		lock_take(&s->mu);
		if (!list_empty(&s->leaving)) {
			a = list_first(&s->leaving, struct absent, link);
			list_del(&a->link);
		}
		lock_drop(&s->mu);
		if (!a)
			return;
		owner = (struct st_name){a->owner, a->len};
		st_records_del(s->records, &owner);
		free(a);
	}
}

/* True: it is on record already. */
static bool come_back(struct st *s, const struct st_client *cl)
{
	struct st_name owner = {cl->owner, cl->owner_len};
	struct absent *a;
	bool last;

	drop_leaving(
		s); /* it may have left a moment ago: then it is off the record first, and on it again after this */
	lock_take(&s->mu);
	a = find_absent(s, &owner);
	if (a) {
		list_del(&a->link);
		s->nabsent--;
	}
	last = !s->nabsent;
	lock_drop(&s->mu);
	free(a);
	if (last)
		end_grace(s);
	return a != NULL;
}

nfsstat4 st_reclaim_complete(struct st *s, struct st_client *cl, bool one_fs)
{
	struct st_name owner = {cl->owner, cl->owner_len};

	/* We move no file systems between servers, so there is nothing to reclaim for one of them. */
	if (one_fs)
		return NFS4_OK;
	if (atomic_exchange(&cl->reclaim_complete, true))
		return NFS4ERR_COMPLETE_ALREADY;
	/* A failure is in the log; the client only cannot reclaim after the next restart. */
	if (s->records && !come_back(s, cl))
		st_records_put(s->records, &owner);
	return NFS4_OK;
}

bool st_in_grace(const struct st *s)
{
	return atomic_load_explicit(&s->grace, memory_order_relaxed);
}

nfsstat4 st_may_claim(const struct st *s, const struct st_client *cl)
{
	return atomic_load_explicit(&cl->reclaim_complete, memory_order_relaxed) && !st_in_grace(s) ? NFS4_OK
												    : NFS4ERR_GRACE;
}

nfsstat4 st_may_reclaim(const struct st *s, const struct st_client *cl)
{
	return st_in_grace(s) && cl->on_record && !atomic_load_explicit(&cl->reclaim_complete, memory_order_relaxed)
		       ? NFS4_OK
		       : NFS4ERR_NO_GRACE;
}

void st_record_drop(struct st *s, const struct st_client *cl)
{
	struct st_name owner = {cl->owner, cl->owner_len};

	if (s->records && atomic_load_explicit(&cl->reclaim_complete, memory_order_relaxed))
		st_records_del(s->records, &owner);
}

void st_record_keep(struct st *s, const struct st_client *cl)
{
	struct st_name owner = {cl->owner, cl->owner_len};

	if (s->records && atomic_load_explicit(&cl->reclaim_complete, memory_order_relaxed))
		st_records_put(s->records, &owner);
}

void st_grace_leave(struct st *s, const struct st_client *cl)
{
	struct absent *a;

	if (!s->records || !atomic_load_explicit(&cl->reclaim_complete, memory_order_relaxed))
		return;
	/* Without memory it stays on record: the next start waits for it in vain, and that is all. */
	a = absent_new(cl->owner, cl->owner_len);
	if (a)
		list_push_back(&s->leaving, &a->link);
}

void st_grace_tick(struct st *s)
{
	struct list gone = LIST_INIT(gone);

	drop_leaving(s);
	if (!st_in_grace(s) || st_now_ms(s) < s->grace_until_ms)
		return;
	lock_take(&s->mu);
	list_splice_back(&gone, &s->absent);
	s->nabsent = 0;
	lock_drop(&s->mu);
	/* Off the record first. (One that reclaims right now goes on, and is put on record again by its RECLAIM_COMPLETE.) */
	while (!list_empty(&gone)) {
		struct absent *a = list_first(&gone, struct absent, link);
		struct st_name owner = {a->owner, a->len};

		list_del(&a->link);
		st_records_del(s->records, &owner);
		free(a);
	}
	end_grace(s);
}

void st_grace_fini(struct st *s)
{
	drop_leaving(s);
	while (!list_empty(&s->absent)) {
		struct absent *a = list_first(&s->absent, struct absent, link);

		list_del(&a->link);
		free(a);
	}
	st_records_close(s->records);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lock.c - byte-range locks
 *
 * One lock state (stateid) per lock-owner and file, attached to the open it was first taken under and ended with it. The
 * ranges of all owners of a file are one list, by first byte:
 *
 *     owner A:  [====W====]            [==R==]
 *     owner B:                 [==R==]   [==R==]
 *
 * Rules: ranges of one owner never overlap, equal neighbours are one range; a lock replaces what its owner had there
 * (upgrade, downgrade, split); nothing waits: READW and WRITEW are answered like READ and WRITE, and the client polls
 * (RFC 8881 §9.6; we do not offer CB_NOTIFY_LOCK).
 */
#include <stdlib.h>
#include <string.h>

#include "server/state/state_int.h"

enum range_mode { RANGE_READ, RANGE_WRITE, RANGE_NONE };

/* ---- ranges ----------------------------------------------------------------------------------------------------------------- */

/* RFC 8881 §18.10.3: length 0, and an end past the last byte there can be, are invalid. */
static nfsstat4 range_of(const struct st_lock *l, uint64_t *first, uint64_t *last)
{
	if (!l->length || (l->length != UINT64_MAX && l->length > UINT64_MAX - l->offset))
		return NFS4ERR_INVAL;
	*first = l->offset;
	*last = l->length == UINT64_MAX ? UINT64_MAX : l->offset + l->length - 1;
	return NFS4_OK;
}

static void range_insert(struct st_file *f, struct st_range *r)
{
	struct list *at = &f->ranges;

	list_for_each (it, &f->ranges) {
		if (list_entry(it, struct st_range, link)->first > r->first) {
			at = it;
			break;
		}
	}
	list_push_back(at, &r->link); /* before `at` */
}

static void range_free(struct st *s, struct st_range *r)
{
	list_del(&r->link);
	r->locks->nranges--;
	r->locks->s.client->nranges--;
	st_states_count(s, r->locks->s.client, &s->ranges, -1);
	free(r);
}

static void range_add(struct st *s, struct st_file *f, struct st_locks *l, struct st_range *r, uint64_t first,
		      uint64_t last, bool write)
{
	r->locks = l;
	r->first = first;
	r->last = last;
	r->write = write;
	l->nranges++;
	l->s.client->nranges++;
	st_states_count(s, l->s.client, &s->ranges, 1);
	range_insert(f, r);
}

/* Take [first, last] out of @r, which overlaps it. @spare is used up when both ends remain. */
static void range_cut(struct st *s, struct st_file *f, struct st_range *r, uint64_t first, uint64_t last,
		      struct st_range **spare)
{
	bool left = r->first<first, right = r->last> last;
	uint64_t end = r->last;

	if (left && right)
		range_add(s, f, r->locks, TAKE(*spare), last + 1, end, r->write);
	if (left) {
		r->last = first - 1;
	} else if (right) {
		list_del(&r->link);
		r->first = last + 1;
		range_insert(f, r);
	} else {
		range_free(s, r);
	}
}

/* Does @r touch [first, last], overlapping it or as its neighbour? */
static bool range_touches(const struct st_range *r, uint64_t first, uint64_t last)
{
	return (r->last >= first || r->last + 1 == first) && (r->first <= last || last + 1 == r->first);
}

/* The owner's bytes [first, last] are in @mode from now on. @spare: two ranges, of which as many are used as needed. */
static void range_apply(struct st *s, struct st_file *f, struct st_locks *l, uint64_t first, uint64_t last,
			enum range_mode mode, struct st_range *spare[2])
{
	list_for_each_safe (it, tmp, &f->ranges) {
		struct st_range *r = list_entry(it, struct st_range, link);

		if (r->first > last && r->first - 1 > last)
			break;
		if (r->locks != l || !range_touches(r, first, last))
			continue;
		if (mode != RANGE_NONE && r->write == (mode == RANGE_WRITE)) {
			/* Same kind: the new one swallows it. What it reaches beyond overlaps nothing of the owner's. */
			if (r->first < first)
				first = r->first;
			if (r->last > last)
				last = r->last;
			range_free(s, r);
		} else if (r->last >= first && r->first <= last) {
			range_cut(s, f, r, first, last, &spare[1]);
		}
	}
	if (mode != RANGE_NONE)
		range_add(s, f, l, TAKE(spare[0]), first, last, mode == RANGE_WRITE);
}

/* A lock of another owner in the way. One of a live client if there is any; else its client's lease is over, and it gives way. */
static const struct st_range *range_conflict(struct st *s, const struct st_file *f, const struct st_owner *self,
					     uint64_t first, uint64_t last, bool write)
{
	const struct st_range *found = NULL;

	list_for_each (it, &f->ranges) {
		const struct st_range *r = list_entry(it, struct st_range, link);

		if (r->first > last)
			break;
		if (r->last < first || r->locks->s.owner == self || !(write || r->write))
			continue;
		found = r;
		if (!st_client_expired(s, r->locks->s.client))
			break;
	}
	return found;
}

/* The id of another client is nobody's business: it is what CREATE_SESSION is asked with. */
static void fill_denied(const struct st_client *cl, const struct st_range *r, struct st_denied *d)
{
	const struct st_client *holder = r->locks->s.client;
	const struct st_owner *o = r->locks->s.owner;

	d->offset = r->first;
	d->length = r->last == UINT64_MAX ? UINT64_MAX : r->last - r->first + 1;
	d->write = r->write;
	d->clientid = holder == cl ? holder->id : holder->alias;
	d->owner_len = o->len;
	memcpy(d->owner, o->bytes, o->len); /* the owner lives as long as its range, and we hold the shard */
}

/* ---- LOCK ------------------------------------------------------------------------------------------------------------------- */

struct lock_op {
	const struct st_fhkey *key;
	const struct st_lock *l;
	uint64_t first, last;
	struct st_open *open;
	struct st_owner *owner;
	struct st_locks *locks, *fresh; /* the owner's state on the file; else the one to be made */
	struct st_range *spare[2];
	struct st_client *blocker; /* out: its lease is over; referenced */
};

static nfsstat4 lock_find(struct st *s, struct st_client *cl, struct lock_op *op) REQUIRES(cl->mu)
{
	const struct st_lock *l = op->l;
	struct st_state *x;
	nfsstat4 st;

	st = st_state_find(s, cl, op->key, &l->sid, l->new_owner ? STATE_OPEN : STATE_LOCK, &x);
	if (st != NFS4_OK)
		return st;
	if (!l->new_owner) {
		op->locks = container_of(x, struct st_locks, s);
		op->owner = x->owner;
		op->open = op->locks->open;
		return NFS4_OK;
	}
	op->open = container_of(x, struct st_open, s);
	op->owner = st_owner_find(cl, &l->owner, true);
	x = op->owner ? st_state_of(cl, op->owner, op->key, STATE_LOCK) : NULL;
	if (x) {
		op->locks = container_of(x, struct st_locks, s);
		return NFS4_OK;
	}
	if (cl->nlocks >= s->opts.max_opens)
		return NFS4ERR_SERVERFAULT;
	if (!op->owner)
		op->owner = st_owner_new(s, cl, &l->owner, true);
	op->fresh = calloc(1, sizeof *op->fresh);
	return op->owner && op->fresh ? NFS4_OK : NFS4ERR_DELAY;
}

static nfsstat4 lock_prepare(struct st *s, struct st_client *cl, struct lock_op *op) REQUIRES(cl->mu)
{
	uint32_t need = op->l->write ? OPEN4_SHARE_ACCESS_WRITE : OPEN4_SHARE_ACCESS_READ;
	nfsstat4 st = cl->dead ? NFS4ERR_DELAY : lock_find(s, cl, op);

	if (st != NFS4_OK)
		return st;
	if (!(op->open->access & need))
		return NFS4ERR_OPENMODE;
	if (cl->nranges + 2 > s->opts.max_ranges)
		return NFS4ERR_SERVERFAULT;
	if (!st_states_room(s, cl))
		return NFS4ERR_DELAY;
	op->spare[0] = malloc(sizeof *op->spare[0]);
	op->spare[1] = malloc(sizeof *op->spare[1]);
	return op->spare[0] && op->spare[1] ? NFS4_OK : NFS4ERR_DELAY;
}

static void lock_insert(struct st *s, struct st_client *cl, struct lock_op *op, struct st_file *f) REQUIRES(cl->mu)
{
	struct st_locks *l = op->locks = TAKE(op->fresh);

	l->s.kind = STATE_LOCK;
	l->s.client = cl;
	l->s.file = f;
	l->s.owner = op->owner;
	l->open = op->open;
	list_push_back(&op->open->locks, &l->open_link);
	f->users++;
	op->owner->states++;
	cl->nlocks++;
	st_states_count(s, cl, &s->lock_states, 1);
}

static nfsstat4 lock_once(struct st *s, struct st_client *cl, struct lock_op *op, stateid4 *out, struct st_denied *d)
{
	struct file_shard *sh = st_file_shard(s, op->key);
	const struct st_range *in_way;
	bool fresh = false;
	nfsstat4 st;

	lock_take(&cl->mu);
	st = lock_prepare(s, cl, op);
	if (st == NFS4_OK) {
		struct st_file *f = op->open->s.file;

		lock_take(&sh->mu);
		in_way = range_conflict(s, f, op->owner, op->first, op->last, op->l->write);
		if (in_way) {
			st = NFS4ERR_DENIED;
			if (st_client_expired(s, in_way->locks->s.client))
				op->blocker = st_client_get(in_way->locks->s.client);
			else
				fill_denied(cl, in_way, d);
		} else {
			fresh = !op->locks;
			if (fresh)
				lock_insert(s, cl, op, f);
			range_apply(s, f, op->locks, op->first, op->last, op->l->write ? RANGE_WRITE : RANGE_READ,
				    op->spare);
		}
		lock_drop(&sh->mu);
	}
	if (st == NFS4_OK) {
		if (fresh)
			st_state_publish(s, cl, &op->locks->s);
		st_state_stateid(s, cl, &op->locks->s, !fresh, out);
	} else if (op->l->new_owner) {
		st_owner_tidy(s, cl, op->owner);
	}
	lock_drop(&cl->mu);
	free(op->fresh);
	free(op->spare[0]);
	free(op->spare[1]);
	return st;
}

nfsstat4 st_lock(struct st *s, struct st_client *cl, const struct st_fhkey *key, const struct st_lock *l, stateid4 *out,
		 struct st_denied *d)
{
	struct lock_op op;
	uint64_t first, last;
	nfsstat4 st = range_of(l, &first, &last), revoked;

	if (st != NFS4_OK || (l->new_owner && l->owner.len > ST_NAME_MAX))
		return NFS4ERR_INVAL;
	for (;;) {
		op = (struct lock_op){.key = key, .l = l, .first = first, .last = last};
		st = lock_once(s, cl, &op, out, d);
		if (!op.blocker)
			break;
		/* Each round takes what it has from one client (or finds it alive again), so this ends. */
		revoked = l->may_wait ? st_client_revoke(s, op.blocker) : ST_WAIT;
		st_client_put(op.blocker);
		if (revoked != NFS4_OK)
			return revoked;
	}
	if (st == NFS4ERR_DENIED)
		stat_add(&s->lock_denied, 1);
	return st;
}

/* ---- LOCKT, LOCKU ------------------------------------------------------------------------------------------------------------- */

nfsstat4 st_lockt(struct st *s, struct st_client *cl, const struct st_fhkey *key, const struct st_lock *l,
		  struct st_denied *d)
{
	struct file_shard *sh = st_file_shard(s, key);
	const struct st_range *in_way;
	const struct st_owner *self;
	uint64_t first, last;
	nfsstat4 st = range_of(l, &first, &last);
	struct st_file *f;

	if (st != NFS4_OK || l->owner.len > ST_NAME_MAX)
		return NFS4ERR_INVAL;
	if (st_in_grace(s))
		return NFS4ERR_GRACE; /* whoever has a lock there may not have reclaimed it yet */
	lock_take(&cl->mu);
	self = st_owner_find(cl, &l->owner, true);
	lock_take(&sh->mu);
	f = st_file_find(sh, key);
	in_way = f ? range_conflict(s, f, self, first, last, l->write) : NULL;
	/* One of a client whose lease is over would give way. */
	if (in_way && !st_client_expired(s, in_way->locks->s.client)) {
		fill_denied(cl, in_way, d);
		st = NFS4ERR_DENIED;
	}
	lock_drop(&sh->mu);
	lock_drop(&cl->mu);
	return st;
}

/* Is there a range of the owner's that [first, last] is in the middle of, so that two remain of it? */
static bool would_split(const struct st_file *f, const struct st_locks *l, uint64_t first, uint64_t last)
{
	list_for_each (it, &f->ranges) {
		const struct st_range *r = list_entry(it, struct st_range, link);

		if (r->first >= first)
			break;
		if (r->locks == l && r->last > last)
			return true;
	}
	return false;
}

nfsstat4 st_unlock(struct st *s, struct st_client *cl, const struct st_fhkey *key, const struct st_lock *l,
		   stateid4 *out)
{
	struct st_range *spare[2] = {NULL, NULL};
	struct file_shard *sh = st_file_shard(s, key);
	uint64_t first, last;
	nfsstat4 st = range_of(l, &first, &last);
	struct st_locks *locks;
	struct st_state *x;

	if (st != NFS4_OK)
		return st;
	spare[1] = malloc(sizeof *spare[1]);
	if (!spare[1])
		return NFS4ERR_DELAY;
	lock_take(&cl->mu);
	st = st_state_find(s, cl, key, &l->sid, STATE_LOCK, &x);
	if (st == NFS4_OK) {
		locks = container_of(x, struct st_locks, s);
		lock_take(&sh->mu);
		if (cl->nranges >= s->opts.max_ranges && would_split(x->file, locks, first, last))
			st = NFS4ERR_LOCK_RANGE;
		else
			range_apply(s, x->file, locks, first, last, RANGE_NONE, spare);
		lock_drop(&sh->mu);
	}
	if (st == NFS4_OK)
		st_state_stateid(s, cl, x, true, out);
	lock_drop(&cl->mu);
	free(spare[1]);
	return st;
}

void st_locks_drop(struct st *s, struct st_client *cl, struct st_locks *l, nfsstat4 revoke, struct list *files)
{
	struct st_file *f = l->s.file;
	struct st_owner *owner = l->s.owner;
	struct file_shard *sh = st_file_shard(s, &f->key);

	lock_take(&sh->mu);
	if (l->nranges) {
		list_for_each_safe (it, tmp, &f->ranges) {
			struct st_range *r = list_entry(it, struct st_range, link);

			if (r->locks == l)
				range_free(s, r);
		}
	}
	/* Not before: who finds a range looks at its owner. */
	if (revoke)
		st_state_revoke(s, cl, &l->s, revoke);
	else
		st_state_withdraw(s, cl, &l->s);
	st_file_unuse(f, files);
	lock_drop(&sh->mu);
	owner->states--;
	st_owner_tidy(s, cl, owner);
	cl->nlocks--;
	st_states_count(s, cl, &s->lock_states, -1);
	if (!revoke) { /* else it stays with its open: revoke.c */
		list_del(&l->open_link);
		free(l);
	}
}

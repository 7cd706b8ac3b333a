/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * op_lock.c - LOCK, LOCKT, LOCKU
 *
 * Seqids and client ids in the arguments are ignored: the session says who calls and in which order (RFC 8881 §8.13).
 */
#include <string.h>

#include "server/nfs4/compound.h"

/* READW and WRITEW would like to wait; the client polls for that. */
static nfsstat4 lock_type(nfs_lock_type4 type, bool *write)
{
	if (type < READ_LT || type > WRITEW_LT)
		return NFS4ERR_INVAL;
	*write = type == WRITE_LT || type == WRITEW_LT;
	return NFS4_OK;
}

/* The dispatcher keeps what a failed LOCK has written: all of it, or nothing. */
static nfsstat4 encode_denied(struct compound *c, const struct st_denied *d)
{
	struct xa_mark before = xa_out_mark(c->out);
	LOCK4denied den = {.offset = d->offset, .length = d->length, .locktype = d->write ? WRITE_LT : READ_LT};
	nfsstat4 st;

	den.owner.clientid = d->clientid;
	den.owner.owner.owner_val = (char *)(uintptr_t)d->owner;
	den.owner.owner.owner_len = d->owner_len;
	st = C_ENCODE(c, LOCK4denied, &den);
	if (st == NFS4_OK)
		return NFS4ERR_DENIED;
	xa_out_cut(c->out, before);
	return st;
}

static struct st_name owner_name(const lock_owner4 *o)
{
	return (struct st_name){.bytes = o->owner.owner_val, .len = o->owner.owner_len};
}

/* Which stateid a LOCK goes by, and which owner. */
static nfsstat4 lock_who(struct compound *c, const locker4 *lk, struct st_lock *l)
{
	l->new_owner = lk->new_lock_owner;
	if (!l->new_owner)
		return c_stateid(c, &lk->locker4_u.lock_owner.lock_stateid, &l->sid);
	l->owner = owner_name(&lk->locker4_u.open_owner.lock_owner);
	return c_stateid(c, &lk->locker4_u.open_owner.open_stateid, &l->sid);
}

/* Another user of the client may use the stateid if it may do what it locks the file for, as Linux's server has it. */
static nfsstat4 may_lock(struct compound *c, const struct st_fhkey *key, const struct st_lock *l)
{
	struct st_io io = {.who = c_principal(c)};
	nfsstat4 st;

	if (st_is_special(&l->sid))
		return NFS4ERR_BAD_STATEID;
	st = st_io_check(c->srv->state, c->st.client, key, &l->sid, 0, &io);
	if (st != NFS4_OK || io.own)
		return st;
	return may_data(c, l->write ? OPEN4_SHARE_ACCESS_WRITE : OPEN4_SHARE_ACCESS_READ);
}

/* RFC 8881 §18.10. */
nfsstat4 op_lock(struct compound *c)
{
	struct st_lock l = {0};
	struct st_denied denied;
	LOCK4resok res = {0};
	LOCK4args a = {0};
	struct st_fhkey key;
	nfsstat4 st;

	if ((st = C_DECODE(c, LOCK4args, &a)) != NFS4_OK || (st = must_be_regular(c->cfh.node)) != NFS4_OK ||
	    (st = lock_type(a.locktype, &l.write)) != NFS4_OK || (st = lock_who(c, &a.locker, &l)) != NFS4_OK)
		return st;
	st = a.reclaim ? st_may_reclaim(c->srv->state, c->st.client) : st_may_claim(c->srv->state, c->st.client);
	if (st != NFS4_OK || (st = room_for_stateid(c)) != NFS4_OK)
		return st;
	l.offset = a.offset;
	l.length = a.length;
	l.may_wait = c->may_block;
	key = fh_key(&c->cfh);
	if ((st = may_lock(c, &key, &l)) != NFS4_OK)
		return st;
	st = st_lock(c->srv->state, c->st.client, &key, &l, &res.lock_stateid, &denied);
	if (st == NFS4ERR_DENIED)
		return a.reclaim ? NFS4ERR_RECLAIM_CONFLICT : encode_denied(c, &denied);
	if (st != NFS4_OK)
		return st;
	c_set_stateid(c, &res.lock_stateid);
	return C_ENCODE(c, LOCK4resok, &res);
}

/* RFC 8881 §18.11. */
nfsstat4 op_lockt(struct compound *c)
{
	struct st_lock l = {0};
	struct st_denied denied;
	LOCKT4args a = {0};
	struct st_fhkey key;
	nfsstat4 st;

	if ((st = C_DECODE(c, LOCKT4args, &a)) != NFS4_OK || (st = must_be_regular(c->cfh.node)) != NFS4_OK ||
	    (st = lock_type(a.locktype, &l.write)) != NFS4_OK)
		return st;
	l.offset = a.offset;
	l.length = a.length;
	l.owner = owner_name(&a.owner);
	key = fh_key(&c->cfh);
	st = st_lockt(c->srv->state, c->st.client, &key, &l, &denied);
	return st == NFS4ERR_DENIED ? encode_denied(c, &denied) : st;
}

/* RFC 8881 §18.12. The lock type is checked for form and otherwise ignored, as the RFC wants it. */
nfsstat4 op_locku(struct compound *c)
{
	struct st_lock l = {0};
	LOCKU4args a = {0};
	struct st_fhkey key;
	stateid4 sid;
	nfsstat4 st;

	if ((st = C_DECODE(c, LOCKU4args, &a)) != NFS4_OK || (st = must_be_regular(c->cfh.node)) != NFS4_OK ||
	    (st = lock_type(a.locktype, &l.write)) != NFS4_OK ||
	    (st = c_stateid(c, &a.lock_stateid, &l.sid)) != NFS4_OK || (st = room_for_stateid(c)) != NFS4_OK)
		return st;
	l.offset = a.offset;
	l.length = a.length;
	key = fh_key(&c->cfh);
	st = st_unlock(c->srv->state, c->st.client, &key, &l, &sid);
	if (st != NFS4_OK)
		return st;
	c_set_stateid(c, &sid);
	return C_ENCODE(c, stateid4, &sid);
}

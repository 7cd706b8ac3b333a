/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * compound.c - COMPOUND: one operation after the other
 *
 * The state of a COMPOUND lives in the call's arena from the first byte to the reply, also while the call is parked. The
 * reply begins with status, tag and count, which are filled in at the end:
 *
 *     [rpc header][status][tag][count] { [op][status][body] }…
 *
 * Source: RFC 8881 §2.10.6, §16.2; RFC 7862 §15.
 */
#include <string.h>

#include "server/nfs4/compound.h"
#include "server/nfs4/counters.h"
#include "server/nfs4/ops.h"

#define TAG_MAX 1024u
#define OPS_MAX 1024u /* without a session; a session has its own limit */
#define ROOM                                                                                                           \
	64u /* bytes of reply that a changing operation must find before it runs: none of their results is longer */
#define FAIL_ROOM 12u /* the longest result of a failure that has no size of its own: SETATTR's */

/* ---- the current object --------------------------------------------------------------------------------------------------- */

void obj_put(struct obj *o)
{
	if (!o->exp)
		return;
	fs_node_put(o->node);
	export_put(o->exp);
	*o = (struct obj){.exp = NULL};
}

struct obj obj_get(const struct obj *o)
{
	if (o->exp) {
		export_get(o->exp);
		fs_node_get(o->node);
	}
	return *o;
}

void c_set_cfh(struct compound *c, struct export *exp, struct fs_node *node)
{
	obj_put(&c->cfh);
	c->cfh = (struct obj){.exp = exp, .node = node};
	c->has_csid = false;
	export_cred(exp, &c->call->cred, &c->cred);
}

static bool is_current(const stateid4 *sid)
{
	static const char zeros[NFS4_OTHER_SIZE];

	return sid->seqid == 1 && !memcmp(sid->other, zeros, sizeof zeros);
}

nfsstat4 c_stateid_exact(struct compound *c, const stateid4 *sid, stateid4 *out)
{
	if (!is_current(sid)) {
		*out = *sid;
		return NFS4_OK;
	}
	if (!c->has_csid || st_is_special(&c->csid)) /* what CLOSE returned */
		return NFS4ERR_BAD_STATEID;
	*out = c->csid;
	return NFS4_OK;
}

nfsstat4 c_stateid(struct compound *c, const stateid4 *sid, stateid4 *out)
{
	nfsstat4 st = c_stateid_exact(c, sid, out);

	if (st == NFS4_OK && is_current(sid))
		out->seqid = 0;
	return st;
}

void c_set_stateid(struct compound *c, const stateid4 *sid)
{
	c->csid = *sid;
	c->has_csid = true;
}

/* ---- one operation ---------------------------------------------------------------------------------------------------------- */

/* RFC 8881 §2.10.6.3, §16.2.3: what may stand where. */
static nfsstat4 admit(struct compound *c, const struct op_desc *op, uint32_t num)
{
	if (!c->has_session) {
		if (!(op->flags & NO_SESSION))
			return NFS4ERR_OP_NOT_IN_SESSION;
		if (num != OP_SEQUENCE && c->nops != 1)
			return NFS4ERR_NOT_ONLY_OP;
	}
	if (!op->run)
		return NFS4ERR_NOTSUPP;
	if ((op->flags & NEEDS_CFH && !c->cfh.exp) || (op->flags & NEEDS_SFH && !c->sfh.exp))
		return NFS4ERR_NOFILEHANDLE;
	if (op->flags & MUTATES && xa_out_room(c->out) < ROOM)
		return NFS4ERR_REP_TOO_BIG;
	return op->flags & MUTATES ? may_mutate(c, &c->cfh) : NFS4_OK;
}

/* A reply that may be cached has the smaller of two limits. */
static nfsstat4 too_big(const struct compound *c)
{
	return c->has_session && c->st.cache_this && c->st.max_cached < c->st.max_reply ? NFS4ERR_REP_TOO_BIG_TO_CACHE
											: NFS4ERR_REP_TOO_BIG;
}

static void set_limit(struct compound *c)
{
	uint32_t n = c->st.max_reply;

	if (c->st.cache_this && c->st.max_cached < n)
		n = c->st.max_cached;
	c->limit = (size_t)n + 4; /* the record mark does not count */
}

static void put_word(void *at, uint32_t v)
{
	v = __builtin_bswap32(v);
	memcpy(at, &v, sizeof v);
}

/* ---- what must be on stable storage first ------------------------------------------------------------------------------- */

/* What this thread changed in the current file system since it was last asked. */
static uint64_t change_of(const struct compound *c)
{
	struct fs *fs = c->cfh.node ? c->cfh.node->fs : NULL;

	return fs && fs->ops->changed ? fs->ops->changed(fs) : 0;
}

/* One number is kept, that of the last change; the place, of the first. */
static void note_change(struct compound *c, struct xa_mark at, uint32_t num)
{
	if (!c->lasting.change) {
		c->lasting.at = at;
		c->lasting.op = num;
		c->lasting.done = c->done;
	} else if (c->lasting.obj.node->fs != c->cfh.node->fs) {
		/* Two file systems in one compound: nobody does that, so it may wait right here; on a worker, see is_slow(). */
		struct fs *fs = c->lasting.obj.node->fs;
		int err = fs->ops->sync(fs);

		c->held_err = c->held_err ? c->held_err : err;
	}
	obj_put(&c->lasting.obj);
	c->lasting.obj = obj_get(&c->cfh);
	c->lasting.change = c->change;
}

static void stable(struct fs_waiter *w, int err)
{
	struct compound *c = container_of(w, struct compound, waiter);

	c->held_err = c->held_err ? c->held_err : err;
	rpc_call_resume(c->call);
}

/* True: the compound goes on when the change is on stable storage, maybe at this moment on another thread: hands off. */
static bool hold(struct compound *c, nfsstat4 st)
{
	struct fs *fs;
	int r;

	if (!c->lasting.change)
		return false;
	fs = c->lasting.obj.node->fs;
	c->held = true;
	c->held_status = st;
	c->waiter.done = stable;
	r = fs->ops->when_stable(fs, c->lasting.change, &c->waiter);
	if (!r)
		return true;
	c->held = false;
	if (r < 0)
		c->held_err = r;
	return false;
}

/* The results from the change on are void: the operation has failed. */
static nfsstat4 revoke_results(struct compound *c)
{
	nfsstat4 st = errno_status(c->held_err);
	uint8_t *head;

	xa_out_cut(c->out, c->lasting.at);
	xa_out_set_limit(c->out, c->limit);
	head = xa_out_reserve(c->out, 8); /* there was more */
	if (!head)
		return NFS4ERR_SERVERFAULT;
	put_word(head, c->lasting.op);
	put_word(head + 4, (uint32_t)st);
	if (c->lasting.op == OP_SETATTR)
		setattr_fail(c, st);
	c->done = c->lasting.done + 1;
	return st;
}

/* ---- one operation, again ----------------------------------------------------------------------------------------------- */

/* Will it wait as a rule? So does what may change a second file system: see note_change(). */
static bool is_slow(const struct compound *c, const struct op_desc *op)
{
	if (op->flags & (LASTING | MUTATES) && c->lasting.change && c->cfh.node &&
	    c->lasting.obj.node->fs != c->cfh.node->fs)
		return true;
	return op->flags & BLOCKS && (c->has_session || op->flags & NO_SESSION) && op->run;
}

/* Runs operation c->op. ST_WAIT: nothing happened, the streams are where they were. */
static nfsstat4 run_op(struct compound *c)
{
	size_t in_at = xa_in_pos(c->in);
	struct xa_mark out_at = xa_out_mark(c->out), body;
	const struct op_desc *op;
	uint32_t num;
	uint8_t *head;
	nfsstat4 st;

	if (!xdr_uint32_word(c->in, &num))
		return NFS4ERR_BADXDR;
	op = op_find(num, c->minor);
	if (op && !c->may_block && is_slow(c, op)) {
		xa_in_seek(c->in, in_at);
		return ST_WAIT;
	}
	/* Each leaves room for the failure of the next, so that the last result is always that of the whole. */
	xa_out_set_limit(c->out, c->limit);
	head = xa_out_reserve(c->out, 8);
	if (!head)
		return too_big(c);
	if (c->op + 1 < c->nops)
		xa_out_set_limit(c->out, c->limit - FAIL_ROOM);
	put_word(head, op ? num : OP_ILLEGAL);
	body = xa_out_mark(c->out);
	c->change = 0;
	if (op && op->flags & LASTING)
		change_of(c); /* of others, which ran on this thread before */
	st = op ? admit(c, op, num) : NFS4ERR_OP_ILLEGAL;
	if (st == NFS4_OK)
		st = op->run(c);
	else if (op && op->flags & FAIL_BODY && num == OP_SETATTR)
		st = setattr_fail(c, st);
	if (c->replayed)
		return NFS4_OK;
	if (st == ST_WAIT && c->may_block)
		st = NFS4ERR_DELAY;
	if (st == ST_WAIT) {
		xa_in_seek(c->in, in_at);
		xa_out_cut(c->out, out_at);
		return st;
	}
	if (st == NFS4ERR_REP_TOO_BIG)
		st = too_big(c);
	if (st != NFS4_OK && !(op && op->flags & FAIL_BODY))
		xa_out_cut(c->out, body);
	put_word(head + 4, (uint32_t)st);
	count_op(num, (uint32_t)st);
	if (st == NFS4_OK && num == OP_SEQUENCE)
		set_limit(c);
	if (st == NFS4_OK && op->flags & LASTING)
		c->change = change_of(c);
	if (st == NFS4_OK && c->change)
		note_change(c, out_at, num);
	c->done++;
	return st;
}

/* ---- the whole ----------------------------------------------------------------------------------------------------------------- */

/* Status, tag, count: the words that are filled in later are kept by address. */
static bool begin(struct compound *c, struct rpc_call *call)
{
	utf8str_cs tag = {.utf8string_len = 0};

	c->call = call;
	c->in = &call->in;
	c->out = &call->out;
	c->start = xa_out_mark(c->out);
	c->limit = c->out->limit;
	if (!xdr_utf8str_cs(c->in, &tag) || tag.utf8string_len > TAG_MAX || !xdr_uint32_word(c->in, &c->minor) ||
	    !xdr_uint32_word(c->in, &c->nops))
		return false;
	c->status_at = xa_out_reserve(c->out, 4);
	if (!c->status_at || !xdr_utf8str_cs(&c->out->x, &tag))
		return false;
	c->count_at = xa_out_reserve(c->out, 4);
	return c->count_at != NULL;
}

static void finish(struct compound *c, nfsstat4 st)
{
	if (!c->replayed) {
		put_word(c->status_at, (uint32_t)st);
		put_word(c->count_at, c->done);
	}
	if (c->has_session)
		st_slot_finish(c->srv->state, &c->st, c->out, c->call->header_len, st);
	c->has_session = false;
	obj_put(&c->lasting.obj);
	obj_put(&c->cfh);
	obj_put(&c->sfh);
	c->finished = true;
}

static nfsstat4 run_all(struct compound *c)
{
	nfsstat4 st = NFS4_OK;

	if (c->minor < 1 || c->minor > 2)
		return NFS4ERR_MINOR_VERS_MISMATCH;
	if (c->nops > OPS_MAX)
		return NFS4ERR_TOO_MANY_OPS;
	for (; c->op < c->nops && st == NFS4_OK && !c->replayed; c->op++) {
		st = run_op(c);
		if (st == ST_WAIT)
			return st;
	}
	return st;
}

enum rpc_verdict nfs4_call(void *srv, struct rpc_call *call)
{
	struct compound *c = call->user;
	nfsstat4 st;

	if (!c) {
		c = arena_zalloc(&call->arena, sizeof *c);
		if (!c) {
			call->accept = SYSTEM_ERR;
			return RPC_REPLY;
		}
		c->srv = srv;
		if (!begin(c, call)) {
			call->accept = GARBAGE_ARGS;
			return RPC_REPLY;
		}
		call->user = c;
	}
	c->may_block = call->may_block;
	if (c->held) {
		st = c->held_status;
	} else {
		st = run_all(c);
		if (st == ST_WAIT)
			return RPC_PARK;
		if (hold(c, st))
			return RPC_HOLD;
	}
	if (c->held_err)
		st = revoke_results(c);
	finish(c, st);
	return RPC_REPLY;
}

/* A call that never came to its end (no memory to park it) gives back what it held. */
void nfs4_done(void *srv, struct rpc_call *call)
{
	struct compound *c = call->user;

	(void)srv;
	if (c && !c->finished) {
		c->st.cache_this = false; /* there is no reply that a retry could be given */
		finish(c, NFS4ERR_DELAY);
	}
}

void nfs4_closed(void *srv, struct rpc_conn *conn)
{
	struct nfs_server *s = srv;

	st_conn_closed(s->state, conn);
}

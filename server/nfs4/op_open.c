/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * op_open.c - OPEN, OPEN_DOWNGRADE, CLOSE
 *
 *     OPEN:  claim -> the file (found or created) -> may the caller? -> share reservation -> truncate -> result
 *
 * Whatever can be refused is refused before the reservation, and the reservation is taken back when the truncation that
 * follows it fails. Creating and truncating wait, so they run where that is allowed: finding out that one is needed is the
 * last thing an event loop does for such an OPEN. Opening what exists runs to completion on the loop.
 *
 * No delegations; seqids and the client id of the open-owner are ignored, as RFC 8881 §8.13 and §18.16.3 want it.
 */
#include <errno.h>
#include <string.h>

#include "server/nfs4/compound.h"
#include "server/nfs4/standing.h"
#include "vhd/base/cleanup.h"

enum {
	WANT_MASK = 0xff00,     /* OPEN4_SHARE_ACCESS_WANT_*: which delegation */
	WANT_SIGNALS = 0x30000, /* and when to tell that one can be had */
	REPLY_ROOM = 160,       /* the largest OPEN4resok of ours, with padding */
	CREATE_TRIES = 4,       /* against others who create and remove the same name meanwhile */
};

struct open_op {
	struct compound *c;
	OPEN4args a;
	uint32_t access, deny;
	struct attr_set attrs; /* createattrs */
	bool has_verf;
	uint64_t verf;
	struct obj file; /* referenced */
	bool created;    /* by us, now or when this was sent first (exclusive): its mode does not bind its creator */
	bool made;       /* now: from here on nothing may wait, since it cannot be done a second time */
	bool truncate;
	OPEN4resok res;
	uint32_t advice; /* that holds as soon as it is open */
};

/* ---- attribute masks ----------------------------------------------------------------------------------------------------------- */

static nfsstat4 mask_set(struct compound *c, bitmap4 *m, unsigned attr)
{
	u_int word = attr / 32;

	if (m->bitmap4_len <= word) {
		uint32_t *w = arena_zalloc(&c->call->arena, (word + 1) * sizeof *w);

		if (!w)
			return NFS4ERR_DELAY;
		if (m->bitmap4_len)
			memcpy(w, m->bitmap4_val, m->bitmap4_len * sizeof *w);
		m->bitmap4_val = w;
		m->bitmap4_len = word + 1;
	}
	m->bitmap4_val[word] |= 1u << attr % 32;
	return NFS4_OK;
}

/* What an exclusive create keeps its verifier in: the client sets these itself afterwards (RFC 8881 §18.16.3). */
static nfsstat4 mask_verf(struct open_op *op)
{
	nfsstat4 st = mask_set(op->c, &op->res.attrset, FATTR4_TIME_ACCESS);

	return st == NFS4_OK ? mask_set(op->c, &op->res.attrset, FATTR4_TIME_MODIFY) : st;
}

/* ---- arguments ------------------------------------------------------------------------------------------------------------------- */

static nfsstat4 check_share(struct open_op *op)
{
	uint32_t access = op->a.share_access;

	op->access = access & OPEN4_SHARE_ACCESS_BOTH;
	op->deny = op->a.share_deny;
	if (!op->access || op->deny > OPEN4_SHARE_DENY_BOTH ||
	    access & ~(uint32_t)(OPEN4_SHARE_ACCESS_BOTH | WANT_MASK | WANT_SIGNALS) ||
	    (access & WANT_MASK) > OPEN4_SHARE_ACCESS_WANT_CANCEL)
		return NFS4ERR_INVAL;
	return NFS4_OK;
}

static nfsstat4 decode_how(struct open_op *op)
{
	createhow4 *how = &op->a.openhow.openflag4_u.how;
	const verifier4 *verf = NULL;
	fattr4 *attrs = NULL;
	nfsstat4 st;

	if (op->a.openhow.opentype != OPEN4_CREATE)
		return op->a.openhow.opentype == OPEN4_NOCREATE ? NFS4_OK : NFS4ERR_INVAL;
	switch (how->mode) {
	case UNCHECKED4:
	case GUARDED4:
		attrs = &how->createhow4_u.createattrs;
		break;
	case EXCLUSIVE4:
		verf = &how->createhow4_u.createverf;
		break;
	case EXCLUSIVE4_1:
		verf = &how->createhow4_u.ch_createboth.cva_verf;
		attrs = &how->createhow4_u.ch_createboth.cva_attrs;
		break;
	default:
		return NFS4ERR_INVAL;
	}
	if (verf) {
		op->has_verf = true;
		memcpy(&op->verf, *verf, sizeof op->verf);
	}
	if (!attrs)
		return NFS4_OK;
	st = attr_decode(op->c, attrs, true, &op->attrs);
	/* Not in suppattr_exclcreat: the verifier lives there (RFC 8881 §5.8.1.14). */
	if (st == NFS4_OK && verf &&
	    op->attrs.fs.what & (FS_SET_ATIME | FS_SET_MTIME | FS_SET_ATIME_NOW | FS_SET_MTIME_NOW))
		return NFS4ERR_INVAL;
	return st;
}

/* ---- finding and creating -------------------------------------------------------------------------------------------------------- */

static nfsstat4 dir_change(struct open_op *op)
{
	struct fs_cinfo ci = {.atomic = true};
	struct fs_attr attr;
	int err = op->c->cfh.node->fs->ops->getattr(op->c->cfh.node, nowait(op->c), &attr);

	if (err < 0)
		return errno_status(err);
	ci.before = ci.after = attr.change;
	op->res.cinfo = cinfo_of(op->c, &ci);
	return NFS4_OK;
}

/* Is this file what the same exclusive create made when it was sent before? */
static nfsstat4 check_verf(struct open_op *op)
{
	struct fs_node *n = op->file.node;
	struct fs_attr attr;
	int err;

	if (n->type != FS_REG)
		return NFS4ERR_EXIST;
	err = n->fs->ops->getattr(n, nowait(op->c), &attr);
	if (err < 0)
		return errno_status(err);
	if ((uint32_t)attr.atime.sec != (uint32_t)(op->verf >> 32) || (uint32_t)attr.mtime.sec != (uint32_t)op->verf)
		return NFS4ERR_EXIST;
	/* Everybody sees these times: without this line they would open anybody's file. */
	if (!is_owner(&op->c->cred, &attr))
		return NFS4ERR_EXIST;
	op->created = true;
	op->res.attrset = op->attrs.mask;
	return mask_verf(op);
}

/* A CREATE met an existing name. */
static nfsstat4 open_existing(struct open_op *op)
{
	const struct fs_setattr *set = &op->attrs.fs;
	nfsstat4 st = dir_change(op);

	if (st != NFS4_OK)
		return st;
	if (op->has_verf)
		return check_verf(op);
	if (op->a.openhow.openflag4_u.how.mode == GUARDED4)
		return NFS4ERR_EXIST;
	/* UNCHECKED: the attributes are for a new file; only a size of zero counts. */
	op->truncate = set->what & FS_SET_SIZE && set->size == 0;
	return op->truncate ? mask_set(op->c, &op->res.attrset, FATTR4_SIZE) : NFS4_OK;
}

/* 0, -EEXIST (look again), a status in *st otherwise. */
static int create_file(struct open_op *op, const component4 *name, nfsstat4 *st)
{
	struct compound *c = op->c;
	struct fs_node *dir = c->cfh.node;
	struct fs_create fc = {
		.type = FS_REG, .set = op->attrs.fs, .flags = nowait(c), .has_verf = op->has_verf, .verf = op->verf};
	struct fs_attr dattr;
	struct fs_cinfo ci;
	int err;

	if ((*st = may_mutate(c, &c->cfh)) != NFS4_OK || (*st = may_change_dir(c, &c->cfh, NULL)) != NFS4_OK)
		return -EACCES;
	/* Else the file would stay, and when this comes again it EXISTs. */
	if ((*st = st_may_open_more(c->srv->state, c->st.client)) != NFS4_OK)
		return -EAGAIN;
	err = dir->fs->ops->getattr(dir, nowait(c), &dattr);
	if (err < 0)
		goto fail;
	if (!(fc.set.what & FS_SET_MODE)) {
		fc.set.what |= FS_SET_MODE;
		fc.set.mode = 0600; /* until the client says more, its owner's */
	}
	fc.set.what &= ~(unsigned)FS_SET_SIZE;
	if ((*st = attr_new_owner(c, &dattr, FS_REG, &fc.set)) != NFS4_OK)
		return -EPERM;
	err = dir->fs->ops->create(dir, name->utf8string_val, name->utf8string_len, &fc, &op->file.node, &ci);
	if (err == -EEXIST) {
		/* Found again by lookup, which says what it is in every case. */
		fs_node_put(TAKE(op->file.node));
		return err;
	}
	if (err < 0)
		goto fail;
	op->file.exp = export_get(c->cfh.exp);
	op->res.cinfo = cinfo_of(op->c, &ci);
	op->created = op->made = true;
	*st = NFS4_OK;
	return 0;
fail:
	*st = errno_status(err);
	return -EIO;
}

/* What create() leaves to do: a size that is not zero, and telling what was set. */
static nfsstat4 created(struct open_op *op)
{
	struct fs_setattr set = {.what = FS_SET_SIZE, .size = op->attrs.fs.size};
	int err;

	op->res.attrset = op->attrs.mask;
	if (op->attrs.fs.what & FS_SET_SIZE && set.size) {
		err = op->file.node->fs->ops->setattr(op->file.node, &set, NULL);
		if (err < 0)
			return errno_status(err);
	}
	return op->has_verf ? mask_verf(op) : NFS4_OK;
}

static int lookup(struct open_op *op, const component4 *name)
{
	struct obj *dir = &op->c->cfh;
	int err = dir->node->fs->ops->lookup(dir->node, name->utf8string_val, name->utf8string_len, nowait(op->c),
					     &op->file.node);

	if (!err)
		op->file.exp = export_get(dir->exp);
	return err;
}

static nfsstat4 find_or_create(struct open_op *op, const component4 *name)
{
	bool create = op->a.openhow.opentype == OPEN4_CREATE;
	nfsstat4 st;
	int err;

	for (int tries = 0; tries < CREATE_TRIES; tries++) {
		err = lookup(op, name);
		if (!err)
			return create ? open_existing(op) : dir_change(op);
		if (err != -ENOENT || !create)
			return errno_status(err);
		/* Once the file is there, nothing may wait any more. */
		if (!op->c->may_block && op->attrs.fs.what & FS_SET_SIZE && op->attrs.fs.size)
			return ST_WAIT;
		err = create_file(op, name, &st);
		if (!err)
			return created(op);
		if (err != -EEXIST)
			return st;
	}
	return NFS4ERR_DELAY;
}

/* What holds for the file as soon as it is open; ST_WAIT. What was created just now cannot wait, and goes without. */
static nfsstat4 find_advice(struct open_op *op)
{
	unsigned flags = nowait(op->c);
	int err = standing_advice(op->c->srv, op->file.node, flags, &op->advice);

	return err == -EAGAIN && !op->made ? errno_status(err) : NFS4_OK;
}

static uint32_t unless_said(uint32_t before, void *arg)
{
	return before ? before : *(uint32_t *)arg;
}

static nfsstat4 claim_name(struct open_op *op)
{
	const component4 *name = &op->a.claim.open_claim4_u.file;
	struct compound *c = op->c;
	nfsstat4 st;

	if (c->cfh.node->type != FS_DIR)
		return c->cfh.node->type == FS_LNK ? NFS4ERR_SYMLINK : NFS4ERR_NOTDIR;
	if ((st = name_check(name)) != NFS4_OK || (st = decode_how(op)) != NFS4_OK ||
	    (st = may(c, &c->cfh, MAY_EXEC)) != NFS4_OK)
		return st;
	st = find_or_create(op, name);
	if (st == NFS4_OK)
		standing_named(c->srv, c->cfh.node, op->file.node, name);
	return st;
}

static nfsstat4 claim_fh(struct open_op *op)
{
	struct fs_cinfo none = {.atomic = true};

	if (op->a.openhow.opentype != OPEN4_NOCREATE)
		return NFS4ERR_INVAL; /* there is nothing to create, RFC 8881 §18.16.3 */
	op->file = obj_get(&op->c->cfh);
	op->res.cinfo = cinfo_of(op->c, &none);
	return NFS4_OK;
}

static nfsstat4 claim(struct open_op *op)
{
	open_claim_type4 how = op->a.claim.claim;
	nfsstat4 st;

	if (how != CLAIM_PREVIOUS && (st = st_may_claim(op->c->srv->state, op->c->st.client)) != NFS4_OK)
		return st;
	switch (how) {
	case CLAIM_NULL:
		return claim_name(op);
	case CLAIM_FH:
		return claim_fh(op);
	case CLAIM_PREVIOUS:
		st = st_may_reclaim(op->c->srv->state, op->c->st.client);
		return st == NFS4_OK ? claim_fh(op) : st;
	case CLAIM_DELEGATE_CUR:
	case CLAIM_DELEG_CUR_FH:
		return NFS4ERR_BAD_STATEID; /* no delegation was ever given out */
	case CLAIM_DELEGATE_PREV:
	case CLAIM_DELEG_PREV_FH:
		return NFS4ERR_NOTSUPP;
	}
	return NFS4ERR_INVAL;
}

/* ---- permission, reservation, result ----------------------------------------------------------------------------------------------- */

/* Its owner may have opened it before the mode forbade it, as who creates a file does: that open may be taken back. */
static bool owns(struct open_op *op)
{
	struct fs_attr attr;

	return op->file.node->fs->ops->getattr(op->file.node, nowait(op->c), &attr) == 0 &&
	       is_owner(&op->c->cred, &attr);
}

static nfsstat4 may_open(struct open_op *op)
{
	struct compound *c = op->c;
	bool writes = op->access & OPEN4_SHARE_ACCESS_WRITE || op->truncate;
	nfsstat4 st;

	if (writes && (st = may_mutate(c, &op->file)) != NFS4_OK)
		return st;
	if (op->created || (op->a.claim.claim == CLAIM_PREVIOUS && owns(op)))
		return NFS4_OK;
	if (writes && (st = may(c, &op->file, MAY_WRITE | MAY_CUT)) != NFS4_OK)
		return st;
	if (!(op->access & OPEN4_SHARE_ACCESS_READ))
		return NFS4_OK;
	st = may(c, &op->file, MAY_READ);
	/* A program that may be run but not read has to be read to be run. */
	return st == NFS4ERR_ACCESS ? may(c, &op->file, MAY_EXEC) : st;
}

static void pin_put(struct st_pin *pin)
{
	struct obj o = {.exp = pin->exp, .node = pin->node};

	obj_put(&o);
}

static int make_empty(struct open_op *op)
{
	struct fs_setattr s = {.what = FS_SET_SIZE, .size = 0};
	struct fs_node *n = op->file.node;
	struct fs_attr now;
	int err = n->fs->ops->getattr(n, 0, &now);

	if (err < 0)
		return err;
	s.mode = mode_changed(&op->c->cred, &now);
	if (s.mode != now.mode)
		s.what |= FS_SET_MODE;
	forget_ahead(n);
	return n->fs->ops->setattr(n, &s, NULL);
}

static nfsstat4 reserve(struct open_op *op)
{
	static const stateid4 anonymous;
	struct compound *c = op->c;
	struct st *s = c->srv->state;
	struct st_fhkey key = fh_key(&op->file);
	struct st_name owner = {op->a.owner.owner.owner_val, op->a.owner.owner.owner_len};
	struct st_principal who = c_principal(c);
	struct obj held = obj_get(&op->file);
	struct st_pin pin = {.node = held.node, .exp = held.exp, .gone = &held.exp->dead, .put = pin_put};
	struct st_undo undo;
	nfsstat4 st;
	int err;

	/* Who asks for access to write is told by the reservation whether it may cut the file. */
	if (op->truncate && !(op->access & OPEN4_SHARE_ACCESS_WRITE)) {
		st = c_io_check(c, &key, &anonymous, OPEN4_SHARE_ACCESS_WRITE, NULL);
		if (st != NFS4_OK) {
			pin_put(&pin);
			return st == NFS4ERR_LOCKED ? NFS4ERR_SHARE_DENIED : st;
		}
	}
	/* Nobody else can have open what was made just now. */
	st = st_open(s, c->st.client, &key, &owner, &who, op->access, op->deny, c->may_block || op->made, &pin,
		     &op->res.stateid, &undo);
	if (st == NFS4ERR_SHARE_DENIED && op->a.claim.claim == CLAIM_PREVIOUS)
		return NFS4ERR_RECLAIM_CONFLICT;
	if (st != NFS4_OK || !op->truncate)
		return st;
	err = make_empty(op);
	if (err < 0)
		st_open_undo(s, c->st.client, &undo);
	return errno_status(err);
}

/* A client that asked about delegations is told why there is none (RFC 8881 §18.16.3). */
static void no_delegation(struct open_op *op)
{
	open_delegation4 *d = &op->res.delegation;
	open_none_delegation4 *why = &d->open_delegation4_u.od_whynone;

	d->delegation_type = OPEN_DELEGATE_NONE_EXT;
	switch (op->a.share_access & WANT_MASK) {
	case OPEN4_SHARE_ACCESS_WANT_NO_PREFERENCE:
		d->delegation_type = OPEN_DELEGATE_NONE;
		break;
	case OPEN4_SHARE_ACCESS_WANT_NO_DELEG:
		why->ond_why = WND4_NOT_WANTED;
		break;
	case OPEN4_SHARE_ACCESS_WANT_CANCEL:
		why->ond_why = WND4_CANCELLED;
		break;
	default:
		why->ond_why = WND4_NOT_SUPP_FTYPE;
	}
}

static nfsstat4 open_run(struct open_op *op)
{
	struct compound *c = op->c;
	nfsstat4 st;

	if ((st = check_share(op)) != NFS4_OK || (st = claim(op)) != NFS4_OK ||
	    (st = must_be_regular(op->file.node)) != NFS4_OK || (st = may_open(op)) != NFS4_OK)
		return st;
	if (op->truncate && !c->may_block) /* the file existed: nothing was done yet */
		return ST_WAIT;
	if ((st = find_advice(op)) != NFS4_OK || (st = reserve(op)) != NFS4_OK)
		return st;
	if (op->advice) {
		struct st_fhkey key = fh_key(&op->file);

		st_advise(c->srv->state, c->st.client, &key, &op->res.stateid, unless_said, &op->advice);
	}
	op->res.rflags = OPEN4_RESULT_LOCKTYPE_POSIX;
	if (op->file.node->fs->keeps_unlinked && st_keeps_records(c->srv->state))
		op->res.rflags |= OPEN4_RESULT_PRESERVE_UNLINKED;
	no_delegation(op);
	if (op->a.claim.claim == CLAIM_NULL) {
		struct obj file = obj_get(&op->file);

		c_set_cfh(c, file.exp, file.node);
	}
	c_set_stateid(c, &op->res.stateid);
	return C_ENCODE(c, OPEN4resok, &op->res);
}

/* RFC 8881 §18.16. */
nfsstat4 op_open(struct compound *c)
{
	struct open_op op = {.c = c};
	nfsstat4 st;

	if ((st = C_DECODE(c, OPEN4args, &op.a)) != NFS4_OK)
		return st;
	/* Once the file is open the client has to hear of it. */
	if (xa_out_room(c->out) < REPLY_ROOM)
		return NFS4ERR_REP_TOO_BIG;
	st = open_run(&op);
	obj_put(&op.file);
	return st;
}

/* ---- OPEN_DOWNGRADE, CLOSE ------------------------------------------------------------------------------------------------------------ */

/* RFC 8881 §18.18. What the client wants of delegations is not ours to mind here. */
nfsstat4 op_open_downgrade(struct compound *c)
{
	OPEN_DOWNGRADE4resok res = {0};
	OPEN_DOWNGRADE4args a = {0};
	struct st_fhkey key;
	stateid4 sid;
	nfsstat4 st;

	if ((st = C_DECODE(c, OPEN_DOWNGRADE4args, &a)) != NFS4_OK ||
	    (st = c_stateid_exact(c, &a.open_stateid, &sid)) != NFS4_OK || (st = room_for_stateid(c)) != NFS4_OK)
		return st;
	key = fh_key(&c->cfh);
	st = st_open_downgrade(c->srv->state, c->st.client, &key, &sid,
			       a.share_access & ~(uint32_t)(WANT_MASK | WANT_SIGNALS), a.share_deny, &res.open_stateid);
	if (st != NFS4_OK)
		return st;
	c_set_stateid(c, &res.open_stateid);
	return C_ENCODE(c, OPEN_DOWNGRADE4resok, &res);
}

/* RFC 8881 §18.2. Locks taken under the open are released with it; the stateid returned is one that nothing accepts. */
nfsstat4 op_close(struct compound *c)
{
	CLOSE4args a = {0};
	struct st_fhkey key;
	stateid4 sid;
	nfsstat4 st;

	if ((st = C_DECODE(c, CLOSE4args, &a)) != NFS4_OK ||
	    (st = c_stateid_exact(c, &a.open_stateid, &sid)) != NFS4_OK || (st = room_for_stateid(c)) != NFS4_OK)
		return st;
	key = fh_key(&c->cfh);
	st = st_close(c->srv->state, c->st.client, &key, &sid);
	if (st != NFS4_OK)
		return st;
	sid = st_invalid_stateid;
	c_set_stateid(c, &sid);
	return C_ENCODE(c, stateid4, &sid);
}

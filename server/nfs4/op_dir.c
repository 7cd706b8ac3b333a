/* SPDX-License-Identifier: BSD-3-Clause */
/* op_dir.c - directories: READDIR, CREATE, REMOVE, RENAME, LINK, READLINK (RFC 8881 §18) */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "server/nfs4/compound.h"
#include "server/nfs4/standing.h"
#include "xdr/prims.h"

#define TARGET_MAX 4095u
#define BATCH 64u

/* ---- READDIR ------------------------------------------------------------------------------------------------------------------ */

/* Names are taken in batches under the directory's lock, attributes are found and encoded afterwards. */
struct name {
	uint64_t cookie;
	uint32_t len;
	char text[NAME_MAX];
};

struct batch {
	struct name name[BATCH];
	struct fs_attr attr[BATCH]; /* of the same; only .ino at first */
	unsigned n;
	bool by_name; /* attr[] is not to be used */
};

static bool take_name(void *arg, const struct fs_dirent *d)
{
	struct batch *b = arg;
	struct name *n = &b->name[b->n];

	if (b->n == BATCH)
		return false;
	memcpy(n->text, d->name, d->len);
	n->cookie = d->cookie;
	n->len = d->len;
	b->attr[b->n].ino = d->ino;
	b->n++;
	return true;
}

/* Does the client want anything of an entry but its name? */
static bool wants_attrs(const bitmap4 *b)
{
	for (uint32_t i = 0; i < b->bitmap4_len; i++)
		if (b->bitmap4_val[i])
			return true;
	return false;
}

/* An entry whose attributes cannot be had: the error in rdattr_error when that was asked for. */
static nfsstat4 put_rdattr_error(struct compound *c, const bitmap4 *want, nfsstat4 st)
{
	uint32_t words[] = {1, 1u << FATTR4_RDATTR_ERROR, 4, (uint32_t)st};

	if (!want->bitmap4_len || !(want->bitmap4_val[0] & 1u << FATTR4_RDATTR_ERROR))
		return st;
	for (unsigned i = 0; i < 4; i++)
		if (!xa_uint32(&c->out->x, &words[i]))
			return NFS4ERR_REP_TOO_BIG;
	return NFS4_OK;
}

/* What the name leads to now, be it another export. NFS4ERR_NOENT: nothing, or nothing that this client may see. */
static nfsstat4 put_by_name(struct compound *c, const READDIR4args *a, const struct name *n)
{
	struct obj o = {.exp = NULL};
	struct fs_node *node;
	nfsstat4 st = errno_status(c->cfh.node->fs->ops->lookup(c->cfh.node, n->text, n->len, nowait(c), &node));

	if (st != NFS4_OK)
		return st;
	o = (struct obj){.exp = export_get(c->cfh.exp), .node = node};
	st = (!o.exp->pseudo || c_shows(c, node)) && c_cross(c, &o) == NFS4_OK ? attr_encode(c, &o, &a->attr_request)
									       : NFS4ERR_NOENT;
	obj_put(&o);
	return st;
}

/* What a listing does with each entry: fixed when it begins. */
struct listing {
	const READDIR4args *args;
	bool by_name;          /* the pseudo-root: an entry may lead to another export */
	bool attrs;            /* the client wants more than names */
	nfsstat4 search;       /* and whether it may look them up, which takes more than to list them */
	struct attr_plan plan; /* valid with attrs, unless by_name */
};

static nfsstat4 listing_init(struct compound *c, const READDIR4args *a, struct listing *l)
{
	l->args = a;
	l->by_name = c->cfh.exp->pseudo;
	l->attrs = l->by_name || wants_attrs(&a->attr_request);
	l->search = l->attrs ? may(c, &c->cfh, MAY_EXEC) : NFS4_OK;
	if (l->search == ST_WAIT)
		return ST_WAIT;
	return l->attrs && !l->by_name ? attr_plan(c->cfh.exp, &a->attr_request, &l->plan) : NFS4_OK;
}

/* One entry; NFS4ERR_NOENT: it is gone meanwhile, leave it out. */
static nfsstat4 put_entry(struct compound *c, const struct listing *l, struct batch *b, unsigned i)
{
	struct name *n = &b->name[i];
	const struct fs_attr *attr = &b->attr[i];
	component4 name = {.utf8string_len = n->len, .utf8string_val = n->text};
	uint64_t none = 0; /* no bit, no byte */
	uint32_t more = 1;
	nfsstat4 st;

	if (!xa_uint32(&c->out->x, &more) || !xa_uint64(&c->out->x, &n->cookie) || !xdr_component4(&c->out->x, &name))
		return NFS4ERR_REP_TOO_BIG;
	if (!l->attrs)
		return xa_uint64(&c->out->x, &none) ? NFS4_OK : NFS4ERR_REP_TOO_BIG;
	if (l->search != NFS4_OK)
		st = l->search;
	else if (b->by_name)
		st = put_by_name(c, l->args, n);
	else if (attr->type)
		st = attr_put(c, &l->plan, attr);
	else
		st = attr->gen == ESTALE ? NFS4ERR_NOENT : errno_status(-(int)attr->gen);
	if (st == NFS4_OK || st == ST_WAIT || st == NFS4ERR_NOENT || st == NFS4ERR_REP_TOO_BIG || st == NFS4ERR_INVAL)
		return st;
	return put_rdattr_error(c, &l->args->attr_request, st);
}

/*
 * The next names, and their attributes when they are wanted. Those are found by the inodes' numbers; when the directory changed
 * meanwhile, a number may mean another file already, and the names are looked up again.
 */
static nfsstat4 next_batch(struct compound *c, const struct listing *l, uint64_t cookie, struct batch *b, bool *last)
{
	struct fs_node *dir = c->cfh.node;
	const struct fs_ops *ops = dir->fs->ops;
	unsigned flags = nowait(c);
	struct fs_attr before, after;
	int err;

	b->n = 0;
	b->by_name = l->by_name;
	if ((err = ops->getattr(dir, flags, &before)) < 0 ||
	    (err = ops->readdir(dir, cookie, flags, take_name, b, last)) < 0)
		return errno_status(err);
	if (!l->attrs || b->by_name)
		return NFS4_OK;
	if ((err = ops->getattrs(dir->fs, b->attr, b->n, flags)) < 0 || (err = ops->getattr(dir, flags, &after)) < 0)
		return errno_status(err);
	b->by_name = before.change != after.change;
	return NFS4_OK;
}

/* Entries from the cookie on, until @limit bytes of output are full or the directory ends. */
static nfsstat4 put_entries(struct compound *c, const READDIR4args *a, size_t limit, bool *eof, unsigned *count)
{
	uint64_t cookie = a->cookie;
	struct listing l;
	bool full = false;
	nfsstat4 st;

	*count = 0;
	*eof = false;
	if ((st = listing_init(c, a, &l)) != NFS4_OK)
		return st;
	while (!full && !*eof) {
		struct batch b;
		bool last = false;

		if ((st = next_batch(c, &l, cookie, &b, &last)) != NFS4_OK)
			return st;
		for (unsigned i = 0; i < b.n; i++) {
			struct xa_mark mark = xa_out_mark(c->out);

			st = put_entry(c, &l, &b, i);
			if (st == NFS4ERR_NOENT) {
				xa_out_cut(c->out, mark);
			} else if (st == NFS4ERR_REP_TOO_BIG || (st == NFS4_OK && xa_out_len(c->out) > limit)) {
				xa_out_cut(c->out, mark);
				full = true;
				break;
			} else if (st != NFS4_OK) {
				return st;
			} else {
				++*count;
			}
			cookie = b.name[i].cookie;
		}
		*eof = last && !full;
	}
	return NFS4_OK;
}

nfsstat4 op_readdir(struct compound *c)
{
	READDIR4args a = {.cookie = 0};
	verifier4 verf = {0};
	uint32_t end[2];
	unsigned count = 0;
	size_t start, limit;
	bool eof = false, by_reply;
	nfsstat4 st = C_DECODE(c, READDIR4args, &a);

	if (st != NFS4_OK)
		return st;
	if (c->cfh.node->type != FS_DIR)
		return NFS4ERR_NOTDIR;
	/* 1 and 2 are "." and ".." of old; our cookies never change meaning, so every verifier is as good as ours. */
	if (a.cookie == 1 || a.cookie == 2)
		return NFS4ERR_BAD_COOKIE;
	if ((st = may(c, &c->cfh, MAY_READ)) != NFS4_OK)
		return st;
	start = xa_out_len(c->out);
	/* Room for the end of the list and eof stays. */
	if (a.maxcount < sizeof verf + sizeof end)
		return NFS4ERR_TOOSMALL;
	limit = c->out->limit;
	if (limit < start + sizeof verf + sizeof end)
		return NFS4ERR_REP_TOO_BIG;
	by_reply = limit - start < a.maxcount;
	limit = (by_reply ? limit : start + a.maxcount) - sizeof end;
	if (!xa_opaque(&c->out->x, verf, sizeof verf))
		return NFS4ERR_REP_TOO_BIG;
	if ((st = put_entries(c, &a, limit, &eof, &count)) != NFS4_OK)
		return st;
	if (!count && !eof)
		return by_reply ? NFS4ERR_REP_TOO_BIG : NFS4ERR_TOOSMALL;
	end[0] = 0;
	end[1] = eof;
	return xa_uint32(&c->out->x, &end[0]) && xa_uint32(&c->out->x, &end[1]) ? NFS4_OK : NFS4ERR_REP_TOO_BIG;
}

/* ---- CREATE -------------------------------------------------------------------------------------------------------------------- */

static nfsstat4 create_kind(const createtype4 *t, struct fs_create *fc)
{
	switch (t->type) {
	case NF4DIR:
		fc->type = FS_DIR;
		return NFS4_OK;
	case NF4SOCK:
		fc->type = FS_SOCK;
		return NFS4_OK;
	case NF4FIFO:
		fc->type = FS_FIFO;
		return NFS4_OK;
	case NF4BLK:
	case NF4CHR:
		fc->type = t->type == NF4BLK ? FS_BLK : FS_CHR;
		fc->rdev_major = t->createtype4_u.devdata.specdata1;
		fc->rdev_minor = t->createtype4_u.devdata.specdata2;
		return fc->rdev_major > 0xfff || fc->rdev_minor > 0xfffff ? NFS4ERR_INVAL : NFS4_OK;
	case NF4LNK:
		fc->type = FS_LNK;
		fc->target = t->createtype4_u.linkdata.utf8string_val;
		fc->target_len = t->createtype4_u.linkdata.utf8string_len;
		if (!fc->target_len || memchr(fc->target, 0, fc->target_len))
			return NFS4ERR_INVAL;
		return fc->target_len > TARGET_MAX ? NFS4ERR_NAMETOOLONG : NFS4_OK;
	default:
		return NFS4ERR_BADTYPE;
	}
}

/* Regular files are made by OPEN, everything else here. */
nfsstat4 op_create(struct compound *c)
{
	CREATE4args a = {.objtype = {.type = NF4DIR}};
	struct fs_create fc = {.type = FS_DIR};
	struct attr_set attrs;
	struct fs_attr dir;
	struct fs_cinfo ci;
	struct fs_node *n = NULL;
	CREATE4resok res;
	struct export *exp = c->cfh.exp;
	nfsstat4 st;

	if ((st = C_DECODE(c, CREATE4args, &a)) != NFS4_OK || (st = create_kind(&a.objtype, &fc)) != NFS4_OK)
		return st;
	if (c->cfh.node->type != FS_DIR)
		return NFS4ERR_NOTDIR;
	if ((st = name_check(&a.objname)) != NFS4_OK ||
	    (st = attr_decode(c, &a.createattrs, true, &attrs)) != NFS4_OK ||
	    (st = may_change_dir(c, &c->cfh, NULL)) != NFS4_OK ||
	    (st = errno_status(c->cfh.node->fs->ops->getattr(c->cfh.node, 0, &dir))) != NFS4_OK)
		return st;
	if (attrs.fs.what & FS_SET_SIZE)
		return NFS4ERR_INVAL;
	/* Devices need root, as mknod does. */
	if ((fc.type == FS_BLK || fc.type == FS_CHR) && c->cred.uid != 0)
		return NFS4ERR_PERM;
	fc.set = attrs.fs;
	if (!(fc.set.what & FS_SET_MODE))
		fc.set.mode = fc.type == FS_LNK ? 0777 : fc.type == FS_DIR ? 0755 : 0644;
	fc.set.what |= FS_SET_MODE;
	if ((st = attr_new_owner(c, &dir, fc.type, &fc.set)) != NFS4_OK)
		return st;
	st = errno_status(c->cfh.node->fs->ops->create(c->cfh.node, a.objname.utf8string_val, a.objname.utf8string_len,
						       &fc, &n, &ci));
	if (st != NFS4_OK) {
		fs_node_put(n);
		return st;
	}
	c_set_cfh(c, export_get(exp), n);
	res = (CREATE4resok){.cinfo = cinfo_of(c, &ci), .attrset = attrs.mask};
	return C_ENCODE(c, CREATE4resok, &res);
}

/* ---- REMOVE, RENAME, LINK ---------------------------------------------------------------------------------------------------------- */

/* May the entry be taken out of the directory? Sticky directories look at who owns it. NOENT when there is none. */
static nfsstat4 may_take(struct compound *c, const struct obj *dir, const component4 *name)
{
	struct fs_node *n;
	struct fs_attr a;
	nfsstat4 st;

	st = errno_status(
		dir->node->fs->ops->lookup(dir->node, name->utf8string_val, name->utf8string_len, nowait(c), &n));
	if (st != NFS4_OK)
		return st;
	st = errno_status(n->fs->ops->getattr(n, nowait(c), &a));
	fs_node_put(n);
	return st != NFS4_OK ? st : may_change_dir(c, dir, &a);
}

nfsstat4 op_remove(struct compound *c)
{
	REMOVE4args a = {.target = {0}};
	REMOVE4resok res;
	struct fs_cinfo ci;
	nfsstat4 st = C_DECODE(c, REMOVE4args, &a);

	if (st != NFS4_OK)
		return st;
	if (c->cfh.node->type != FS_DIR)
		return NFS4ERR_NOTDIR;
	if ((st = name_check(&a.target)) != NFS4_OK || (st = may(c, &c->cfh, MAY_EXEC)) != NFS4_OK ||
	    (st = may_take(c, &c->cfh, &a.target)) != NFS4_OK)
		return st;
	st = errno_status(c->cfh.node->fs->ops->unlink(c->cfh.node, a.target.utf8string_val, a.target.utf8string_len,
						       nowait(c), &ci));
	if (st != NFS4_OK)
		return st;
	res.cinfo = cinfo_of(c, &ci);
	return C_ENCODE(c, REMOVE4resok, &res);
}

/* A directory that gets another parent has its ".." changed: that takes write permission for it. */
static nfsstat4 may_move(struct compound *c, const component4 *name)
{
	struct fs_node *dir = c->sfh.node, *n;
	struct obj o;
	nfsstat4 st;

	if (dir == c->cfh.node)
		return NFS4_OK;
	st = errno_status(dir->fs->ops->lookup(dir, name->utf8string_val, name->utf8string_len, 0, &n));
	if (st != NFS4_OK)
		return st;
	o = (struct obj){.exp = c->sfh.exp, .node = n};
	st = n->type == FS_DIR ? may(c, &o, MAY_WRITE) : NFS4_OK;
	fs_node_put(n);
	return st;
}

/* By its new name: what was moved is not told. Somebody else may have moved it on already, and told so himself. */
static void tell_moved(struct compound *c, const component4 *newname)
{
	struct fs_node *to = c->cfh.node, *n;

	if (to->fs->ops->lookup(to, newname->utf8string_val, newname->utf8string_len, nowait(c), &n) != 0)
		return;
	standing_moved(c->srv, c->sfh.node, to, n, newname);
	fs_node_put(n);
}

nfsstat4 op_rename(struct compound *c)
{
	RENAME4args a = {.oldname = {0}};
	RENAME4resok res;
	struct fs_cinfo from, to;
	nfsstat4 st = C_DECODE(c, RENAME4args, &a);

	if (st != NFS4_OK)
		return st;
	if (c->sfh.node->type != FS_DIR || c->cfh.node->type != FS_DIR)
		return NFS4ERR_NOTDIR;
	if ((st = name_check(&a.oldname)) != NFS4_OK || (st = name_check(&a.newname)) != NFS4_OK)
		return st;
	if (c->sfh.exp != c->cfh.exp)
		return NFS4ERR_XDEV;
	if ((st = may(c, &c->sfh, MAY_EXEC)) != NFS4_OK || (st = may(c, &c->cfh, MAY_EXEC)) != NFS4_OK ||
	    (st = may_take(c, &c->sfh, &a.oldname)) != NFS4_OK)
		return st;
	st = may_take(c, &c->cfh, &a.newname);
	if (st == NFS4ERR_NOENT)
		st = may_change_dir(c, &c->cfh, NULL);
	if (st != NFS4_OK || (st = may_move(c, &a.oldname)) != NFS4_OK)
		return st;
	st = errno_status(c->cfh.node->fs->ops->rename(c->sfh.node, a.oldname.utf8string_val, a.oldname.utf8string_len,
						       c->cfh.node, a.newname.utf8string_val, a.newname.utf8string_len,
						       &from, &to));
	/* RFC 8881 §18.26: a target of another kind, or one that is not empty, exists. */
	if (st == NFS4ERR_ISDIR || st == NFS4ERR_NOTDIR || st == NFS4ERR_NOTEMPTY)
		st = NFS4ERR_EXIST;
	if (st != NFS4_OK)
		return st;
	tell_moved(c, &a.newname);
	res.source_cinfo = cinfo_of(c, &from);
	res.target_cinfo = cinfo_of(c, &to);
	return C_ENCODE(c, RENAME4resok, &res);
}

nfsstat4 op_link(struct compound *c)
{
	LINK4args a = {.newname = {0}};
	LINK4resok res;
	struct fs_cinfo ci;
	nfsstat4 st = C_DECODE(c, LINK4args, &a);

	if (st != NFS4_OK)
		return st;
	if (c->cfh.node->type != FS_DIR)
		return NFS4ERR_NOTDIR;
	if (c->sfh.node->type == FS_DIR)
		return NFS4ERR_ISDIR;
	if ((st = name_check(&a.newname)) != NFS4_OK)
		return st;
	if (c->sfh.exp != c->cfh.exp)
		return NFS4ERR_XDEV;
	if ((st = may_change_dir(c, &c->cfh, NULL)) != NFS4_OK)
		return st;
	st = errno_status(c->cfh.node->fs->ops->link(c->sfh.node, c->cfh.node, a.newname.utf8string_val,
						     a.newname.utf8string_len, &ci));
	if (st != NFS4_OK)
		return st;
	res.cinfo = cinfo_of(c, &ci);
	return C_ENCODE(c, LINK4resok, &res);
}

nfsstat4 op_readlink(struct compound *c)
{
	char *buf;
	READLINK4resok res;
	int n;

	if (c->cfh.node->type != FS_LNK)
		return NFS4ERR_WRONG_TYPE;
	buf = arena_alloc(&c->call->arena, TARGET_MAX + 1);
	if (!buf)
		return NFS4ERR_DELAY;
	n = c->cfh.node->fs->ops->readlink(c->cfh.node, nowait(c), buf, TARGET_MAX + 1);
	if (n < 0)
		return errno_status(n);
	res.link = (linktext4){.utf8string_len = (u_int)n, .utf8string_val = buf};
	return C_ENCODE(c, READLINK4resok, &res);
}

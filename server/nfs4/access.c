/* SPDX-License-Identifier: BSD-3-Clause */
/* access.c - POSIX permissions for AUTH_SYS credentials: modes, access control lists, files that must not change */
#include <errno.h>

#include "server/nfs4/compound.h"

#define S_ISVTX_BIT 01000u
#define S_ISUID_BIT 04000u
#define S_ISGID_BIT 02000u

static bool in_group(const struct cred *cr, uint32_t gid)
{
	if (cr->gid == gid)
		return true;
	for (uint32_t i = 0; i < cr->ngids; i++)
		if (cr->gids[i] == gid)
			return true;
	return false;
}

nfsstat4 must_be_regular(const struct fs_node *n)
{
	switch (n->type) {
	case FS_REG:
		return NFS4_OK;
	case FS_DIR:
		return NFS4ERR_ISDIR;
	case FS_LNK:
		return NFS4ERR_SYMLINK;
	default:
		return NFS4ERR_WRONG_TYPE;
	}
}

bool is_owner(const struct cred *cr, const struct fs_attr *a)
{
	return cr->uid == 0 || cr->uid == a->uid;
}

bool acl_permits(const struct cred *cr, const struct fs_attr *a, const struct fs_acl *acl, unsigned want)
{
	unsigned perm = 0, mask = want;
	bool member = false, found = false;

	for (uint32_t i = 0; i < acl->count && !found; i++) {
		const struct fs_ace *e = &acl->e[i];

		switch (e->tag) {
		case FS_ACL_USER_OBJ:
			if (cr->uid == a->uid)
				return (e->perm & want) == want;
			break;
		case FS_ACL_USER:
			found = cr->uid == e->id;
			break;
		case FS_ACL_GROUP_OBJ:
		case FS_ACL_GROUP:
			if (!in_group(cr, e->tag == FS_ACL_GROUP ? e->id : a->gid))
				break;
			member = true;
			/* One entry has to give all of it: two groups that give a part each do not add up. */
			found = (e->perm & want) == want;
			break;
		case FS_ACL_OTHER:
			return !member && (e->perm & want) == want;
		default:
			break;
		}
		perm = e->perm;
	}
	for (uint32_t i = 0; i < acl->count; i++)
		if (acl->e[i].tag == FS_ACL_MASK)
			mask = acl->e[i].perm;
	return found && (perm & mask & want) == want;
}

static nfsstat4 may_by_acl(struct compound *c, struct fs_node *n, const struct fs_attr *a, unsigned want)
{
	struct fs_acl *acl;
	int err = n->fs->ops->getacl(n, FS_ACL_ACCESS, nowait(c), &acl);
	bool ok;

	if (err == -EUCLEAN)
		return NFS4ERR_ACCESS;
	if (err) /* it went after the attributes were looked at: once more */
		return errno_status(err == -ENODATA ? -EAGAIN : err);
	ok = acl_permits(&c->cred, a, acl, want);
	fs_acl_put(acl);
	return ok ? NFS4_OK : NFS4ERR_ACCESS;
}

nfsstat4 may_attr(struct compound *c, struct fs_node *n, const struct fs_attr *a, unsigned want)
{
	const struct cred *cr = &c->cred;
	unsigned bits;

	if ((want & MAY_WRITE && a->flags & FS_ATTR_IMMUTABLE) || (want & MAY_CUT && a->flags & FS_ATTR_APPEND))
		return NFS4ERR_PERM;
	want &= MAY_READ | MAY_WRITE | MAY_EXEC;
	if (cr->uid == 0) /* root may everything but execute what nobody may */
		return !(want & MAY_EXEC) || a->type == FS_DIR || a->mode & 0111 ? NFS4_OK : NFS4ERR_ACCESS;
	if (cr->uid == a->uid)
		bits = a->mode >> 6;
	/* Linux does not look at a list whose mask is empty: who is neither the owner nor in its group is one of the others then. */
	else if (a->flags & FS_ATTR_ACL && a->mode & 070)
		return may_by_acl(c, n, a, want);
	else if (in_group(cr, a->gid))
		bits = a->mode >> 3;
	else
		bits = a->mode;
	return (bits & want) == want ? NFS4_OK : NFS4ERR_ACCESS;
}

/* Set-gid without x for the group is not about identity; it stays with who could set it. */
static uint32_t without_setid(const struct cred *cr, const struct fs_attr *a)
{
	bool keep = !(a->mode & 010) && (cr->uid == 0 || in_group(cr, a->gid));

	return a->mode & ~(S_ISUID_BIT | (keep ? 0 : S_ISGID_BIT));
}

uint32_t mode_changed(const struct cred *cr, const struct fs_attr *a)
{
	return cr->uid == 0 || a->type != FS_REG ? a->mode : without_setid(cr, a);
}

static nfsstat4 attr_of(struct compound *c, const struct obj *o, struct fs_attr *a)
{
	return errno_status(o->node->fs->ops->getattr(o->node, nowait(c), a));
}

nfsstat4 may(struct compound *c, const struct obj *o, unsigned want)
{
	struct fs_attr a;
	nfsstat4 st = attr_of(c, o, &a);

	return st != NFS4_OK ? st : may_attr(c, o->node, &a, want);
}

nfsstat4 may_change_dir(struct compound *c, const struct obj *dir, const struct fs_attr *victim)
{
	struct fs_attr a;
	nfsstat4 st = attr_of(c, dir, &a);

	if (st != NFS4_OK)
		return st;
	if (a.type != FS_DIR)
		return NFS4ERR_NOTDIR;
	if ((st = may_attr(c, dir->node, &a, MAY_WRITE | MAY_EXEC | (victim ? (unsigned)MAY_CUT : 0))) != NFS4_OK)
		return st;
	if (victim && a.mode & S_ISVTX_BIT && !is_owner(&c->cred, &a) && !is_owner(&c->cred, victim))
		return NFS4ERR_PERM;
	return NFS4_OK;
}

nfsstat4 may_mutate(const struct compound *c, const struct obj *o)
{
	return c->srv->read_only || o->exp->read_only || o->exp->fs->read_only ? NFS4ERR_ROFS : NFS4_OK;
}

nfsstat4 attr_new_owner(const struct compound *c, const struct fs_attr *dir, enum fs_type type, struct fs_setattr *s)
{
	const struct cred *cr = &c->cred;
	uint32_t gid = dir->mode & S_ISGID_BIT ? dir->gid : cr->gid;

	if (!(s->what & FS_SET_UID))
		s->uid = cr->uid;
	if (!(s->what & FS_SET_GID))
		s->gid = gid;
	s->what |= FS_SET_UID | FS_SET_GID;
	if (type == FS_DIR && dir->mode & S_ISGID_BIT)
		s->mode |= S_ISGID_BIT;
	if (cr->uid == 0)
		return NFS4_OK;
	if (s->uid != cr->uid || (s->gid != gid && !in_group(cr, s->gid)))
		return NFS4ERR_PERM;
	if (type != FS_DIR && !in_group(cr, s->gid))
		s->mode &= ~S_ISGID_BIT;
	return NFS4_OK;
}

/* SETATTR as POSIX has it: RFC 8881 18.30, chown_restricted. */
nfsstat4 attr_may_set(struct compound *c, struct fs_node *n, const struct fs_attr *now, bool open, struct attr_set *s)
{
	struct fs_setattr *f = &s->fs;
	const struct cred *cr = &c->cred;
	const unsigned needs_owner = FS_SET_MODE | FS_SET_ATIME | FS_SET_MTIME | FS_SET_BTIME | FS_SET_UID | FS_SET_GID;
	bool owner = is_owner(cr, now);
	nfsstat4 st;

	if (f->what & FS_SET_UID && f->uid != now->uid && cr->uid != 0)
		return NFS4ERR_PERM;
	if (f->what & FS_SET_GID && f->gid != now->gid && cr->uid != 0 && (!owner || !in_group(cr, f->gid)))
		return NFS4ERR_PERM;
	if (f->what & needs_owner && !owner)
		return NFS4ERR_PERM;
	/* Whoever has it open for writing may cut it. The owner may always. */
	if (!owner && (f->what & (FS_SET_ATIME_NOW | FS_SET_MTIME_NOW) || (f->what & FS_SET_SIZE && !open)) &&
	    (st = may_attr(c, n, now, MAY_WRITE)) != NFS4_OK)
		return st;
	if (f->what & FS_SET_MODE && cr->uid != 0 && !in_group(cr, f->what & FS_SET_GID ? f->gid : now->gid))
		f->mode &= ~S_ISGID_BIT;
	/* A new owner does not inherit set-id bits, and other content does not keep them, unless root put it there. */
	if ((f->what & (FS_SET_UID | FS_SET_GID) || (f->what & FS_SET_SIZE && cr->uid != 0)) &&
	    !(f->what & FS_SET_MODE) && now->type != FS_DIR && now->mode & (S_ISUID_BIT | S_ISGID_BIT)) {
		f->mode = without_setid(cr, now);
		f->what |= FS_SET_MODE;
	}
	return NFS4_OK;
}

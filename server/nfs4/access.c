/* SPDX-License-Identifier: BSD-3-Clause */
/* access.c - POSIX permissions for AUTH_SYS credentials */
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

bool may_attr(const struct cred *cr, const struct fs_attr *a, unsigned want)
{
	unsigned bits;

	if (cr->uid == 0) /* root may everything but execute what nobody may */
		return !(want & MAY_EXEC) || a->type == FS_DIR || a->mode & 0111;
	if (cr->uid == a->uid)
		bits = a->mode >> 6;
	else if (in_group(cr, a->gid))
		bits = a->mode >> 3;
	else
		bits = a->mode;
	return (bits & want) == want;
}

/* Set-gid without x for the group is not about identity. */
static uint32_t without_setid(uint32_t mode)
{
	return mode & ~(S_ISUID_BIT | (mode & 010 ? S_ISGID_BIT : 0));
}

uint32_t mode_changed(const struct cred *cr, const struct fs_attr *a)
{
	return cr->uid == 0 || a->type != FS_REG ? a->mode : without_setid(a->mode);
}

static nfsstat4 attr_of(struct compound *c, const struct obj *o, struct fs_attr *a)
{
	return errno_status(o->node->fs->ops->getattr(o->node, nowait(c), a));
}

nfsstat4 may(struct compound *c, const struct obj *o, unsigned want)
{
	struct fs_attr a;
	nfsstat4 st = attr_of(c, o, &a);

	if (st != NFS4_OK)
		return st;
	return may_attr(&c->cred, &a, want) ? NFS4_OK : NFS4ERR_ACCESS;
}

nfsstat4 may_change_dir(struct compound *c, const struct obj *dir, const struct fs_attr *victim)
{
	struct fs_attr a;
	nfsstat4 st = attr_of(c, dir, &a);

	if (st != NFS4_OK)
		return st;
	if (a.type != FS_DIR)
		return NFS4ERR_NOTDIR;
	if (!may_attr(&c->cred, &a, MAY_WRITE | MAY_EXEC))
		return NFS4ERR_ACCESS;
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
nfsstat4 attr_may_set(struct compound *c, const struct fs_attr *now, bool open, struct attr_set *s)
{
	struct fs_setattr *f = &s->fs;
	const struct cred *cr = &c->cred;
	bool owner = is_owner(cr, now);

	if (f->what & FS_SET_UID && f->uid != now->uid && cr->uid != 0)
		return NFS4ERR_PERM;
	if (f->what & FS_SET_GID && f->gid != now->gid && cr->uid != 0 && (!owner || !in_group(cr, f->gid)))
		return NFS4ERR_PERM;
	if (f->what & (FS_SET_MODE | FS_SET_ATIME | FS_SET_MTIME | FS_SET_BTIME | FS_SET_UID | FS_SET_GID) && !owner)
		return NFS4ERR_PERM;
	if (f->what & (FS_SET_ATIME_NOW | FS_SET_MTIME_NOW) && !owner && !may_attr(cr, now, MAY_WRITE))
		return NFS4ERR_ACCESS;
	/* Whoever has it open for writing may cut it. The owner may always. */
	if (f->what & FS_SET_SIZE && !open && !owner && !may_attr(cr, now, MAY_WRITE))
		return NFS4ERR_ACCESS;
	if (f->what & FS_SET_MODE && cr->uid != 0 && !in_group(cr, f->what & FS_SET_GID ? f->gid : now->gid))
		f->mode &= ~S_ISGID_BIT;
	/* A new owner does not inherit set-id bits, and other content does not keep them, unless root put it there. */
	if ((f->what & (FS_SET_UID | FS_SET_GID) || (f->what & FS_SET_SIZE && cr->uid != 0)) &&
	    !(f->what & FS_SET_MODE) && now->type == FS_REG && now->mode & (S_ISUID_BIT | S_ISGID_BIT)) {
		f->mode = without_setid(now->mode);
		f->what |= FS_SET_MODE;
	}
	return NFS4_OK;
}

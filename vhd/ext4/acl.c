/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * acl.c - attributes that decide who may do what: access control lists, file capabilities
 *
 * A node finds out when it comes into memory whether it has lists (node->acl_is), so that one without pays nothing afterwards. Lists of
 * up to KEEP_MAX entries are kept with the node, as they were parsed; longer ones are read each time, since every inode in memory may
 * have one and a block has room for thousands. On disk the entries that need no id are without one:
 *
 *     version le32 | tag le16, perm le16 | tag le16, perm le16, id le32 | …
 *
 * Who changes what is in a file takes its capabilities away first, whoever he is: else a program that somebody else wrote would run
 * with what was given to another one. That goes for contents, size and owner, as in Linux, and for nothing else: what IMA and EVM
 * keep (security.ima, security.evm) is a hash that does not fit changed contents, so it forbids where it is looked at.
 *
 * Source: Linux, include/uapi/linux/posix_acl.h, fs/ext4/acl.h (format alone), and acl(5).
 */
#include "vhd/volume/acl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vhd/ext4/ext4_int.h"
#include "vhd/ext4/xattr_int.h"

#define ACL_VERSION 1u
#define KEEP_MAX 64u /* entries */
#define CREDITS 16u

struct acl_short {
	le16 tag, perm;
};
struct acl_long {
	le16 tag, perm;
	le32 id;
};
_Static_assert(sizeof(struct acl_short) == 4 && sizeof(struct acl_long) == 8, "as on disk");

static const struct xattr_name list_name[FS_ACL_KINDS] = {
	[FS_ACL_ACCESS] = {.index = XATTR_ACL_ACCESS, .name = ""},
	[FS_ACL_DEFAULT] = {.index = XATTR_ACL_DEFAULT, .name = ""},
};
const struct xattr_name ext4_xattr_caps = {.index = XATTR_SECURITY, .len = 10, .name = "capability"};

/* ---- as bytes ----------------------------------------------------------------------------------------------------------------- */

static size_t size_on_disk(unsigned tag)
{
	return tag & (FS_ACL_USER | FS_ACL_GROUP) ? sizeof(struct acl_long) : sizeof(struct acl_short);
}

int ext4_acl_parse(const uint8_t *p, uint32_t len, struct fs_acl **out)
{
	const le32 version = le32_of(ACL_VERSION);
	struct fs_acl *a;
	uint32_t at = sizeof version, count = 0;

	*out = NULL;
	if (len < sizeof version || memcmp(p, &version, sizeof version) != 0)
		return -EUCLEAN;
	if (len == sizeof version) /* no entry: the same as no list */
		return 0;
	a = fs_acl_new((len - (uint32_t)sizeof version) / (uint32_t)sizeof(struct acl_short));
	if (!a)
		return -ENOMEM;
	for (size_t size; len - at >= sizeof(struct acl_short); at += (uint32_t)size, count++) {
		struct acl_long e = {.id = le32_of(0)};

		memcpy(&e, p + at, sizeof(struct acl_short));
		size = size_on_disk(le16_get(e.tag));
		if (len - at < size)
			break;
		memcpy(&e, p + at, size);
		a->e[count] = (struct fs_ace){le16_get(e.tag), le16_get(e.perm), le32_get(e.id)};
	}
	a->count = count;
	if (at != len || !fs_acl_valid(a)) {
		fs_acl_put(a);
		return -EUCLEAN;
	}
	*out = a;
	return 0;
}

uint32_t ext4_acl_bytes(const struct fs_acl *a)
{
	size_t size = sizeof(le32);

	for (uint32_t i = 0; i < a->count; i++)
		size += size_on_disk(a->e[i].tag);
	return (uint32_t)size;
}

void ext4_acl_encode(const struct fs_acl *a, uint8_t *p)
{
	const le32 version = le32_of(ACL_VERSION);

	memcpy(p, &version, sizeof version);
	p += sizeof version;
	for (uint32_t i = 0; i < a->count; i++) {
		const struct acl_long e = {le16_of(a->e[i].tag), le16_of(a->e[i].perm), le32_of(a->e[i].id)};

		memcpy(p, &e, size_on_disk(a->e[i].tag));
		p += size_on_disk(a->e[i].tag);
	}
}

/* ---- of a node ---------------------------------------------------------------------------------------------------------------- */

/* 0, and NULL when there is none; -EUCLEAN one that is not understood, -ENOMEM. */
static int list_in(const struct xattr_view *v, enum fs_acl_kind kind, struct fs_acl **out)
{
	const uint8_t *value;
	uint32_t len;
	int got = ext4_xattr_view_find(v, &list_name[kind], &value, &len);

	*out = NULL;
	if (got > 0)
		return ext4_acl_parse(value, len, out);
	return got ? -EUCLEAN : 0;
}

/* What the node knows of its list from now on. Takes @a over. */
static void note(struct ext4_node *n, enum fs_acl_kind kind, int err, struct fs_acl *a) REQUIRES(n->rw)
{
	fs_acl_put(n->acl[kind]);
	n->acl[kind] = NULL;
	n->acl_is[kind] = err ? ACL_BAD : !a ? ACL_NONE : a->count > KEEP_MAX ? ACL_LONG : ACL_KEPT;
	if (n->acl_is[kind] == ACL_KEPT)
		n->acl[kind] = a;
	else
		fs_acl_put(a);
}

int ext4_acls_load(struct ext4_node *n) NO_THREAD_SAFETY
{
	struct xattr_view v;
	struct fs_acl *a;
	const uint8_t *value;
	uint32_t len;
	int err = ext4_xattr_view(n, 0, &v);

	/* A block that is none may have said anything. */
	if (err == -EUCLEAN) {
		note(n, FS_ACL_ACCESS, err, NULL);
		note(n, FS_ACL_DEFAULT, err, NULL);
		return 0;
	}
	for (int kind = 0; !err && kind < FS_ACL_KINDS; kind++) {
		err = list_in(&v, (enum fs_acl_kind)kind, &a);
		if (err == -ENOMEM)
			break;
		note(n, (enum fs_acl_kind)kind, err, a);
		err = 0;
	}
	if (!err)
		atomic_store(&n->caps, ext4_xattr_view_find(&v, &ext4_xattr_caps, &value, &len) == 1);
	free(v.block);
	return err;
}

void ext4_acls_drop(struct ext4_node *n) NO_THREAD_SAFETY
{
	for (int kind = 0; kind < FS_ACL_KINDS; kind++)
		fs_acl_put(n->acl[kind]);
}

/* One that is there; under fs->mu. -EUCLEAN, -ENOMEM, -EIO, -EAGAIN (FS_NOWAIT). */
static int list_of(struct ext4_node *n, enum fs_acl_kind kind, unsigned flags, struct fs_acl **out)
	REQUIRES_SHARED(n->rw) NO_THREAD_SAFETY
{
	struct xattr_view v;
	int err;

	if (n->acl_is[kind] == ACL_KEPT) {
		*out = fs_acl_get(n->acl[kind]);
		return 0;
	}
	if (n->acl_is[kind] != ACL_LONG)
		return n->acl_is[kind] == ACL_NONE ? -ENODATA : -EUCLEAN;
	if ((err = ext4_xattr_view(n, flags, &v)) < 0)
		return err;
	err = list_in(&v, kind, out);
	free(v.block);
	return err ? err : *out ? 0 : -ENODATA;
}

int ext4_op_getacl(struct fs_node *fn, enum fs_acl_kind kind, unsigned flags, struct fs_acl **out) NO_THREAD_SAFETY
{
	struct ext4_node *n = ext4_node_of(fn);
	struct ext4_fs *fs = ext4_fs_of_node(n);
	bool is_long;
	int err = ext4_lock_shared(n, flags);

	if (err)
		return err;
	is_long = n->acl_is[kind] == ACL_LONG;
	if (!is_long)
		err = list_of(n, kind, flags, out);
	rwlock_drop(&n->rw);
	if (!is_long)
		return err;
	/* fs->mu comes before the node's lock. */
	if (!(flags & FS_NOWAIT))
		lock_take(&fs->mu);
	else if (!lock_try(&fs->mu))
		return -EAGAIN;
	err = ext4_lock_shared(n, flags);
	if (!err) {
		err = list_of(n, kind, flags, out);
		rwlock_drop(&n->rw);
	}
	lock_drop(&fs->mu);
	return err;
}

/* The node's list is this one from now on; the reference stays the caller's. -ENOSPC with nothing changed. */
static int store(struct ext4_node *n, enum fs_acl_kind kind, struct fs_acl *a) NO_THREAD_SAFETY
{
	struct xattr_change c = {.name = list_name[kind], .len = ext4_acl_bytes(a)};
	uint8_t *value = malloc(c.len);
	int err;

	if (!value)
		return -ENOMEM;
	ext4_acl_encode(a, value);
	c.value = value;
	err = ext4_xattr_set(n, &c);
	free(value);
	if (!err)
		note(n, kind, 0, fs_acl_get(a));
	return err;
}

int ext4_acl_chmod(struct ext4_node *n, uint32_t mode) NO_THREAD_SAFETY
{
	struct fs_acl *old, *new;
	int err = list_of(n, FS_ACL_ACCESS, 0, &old);

	/* One that is not understood stays, and goes on to deny. */
	if (err)
		return err == -ENODATA || err == -EUCLEAN ? 0 : err;
	new = fs_acl_copy(old);
	fs_acl_put(old);
	if (!new)
		return -ENOMEM;
	fs_acl_set_mode(new, mode);
	err = store(n, FS_ACL_ACCESS, new);
	fs_acl_put(new);
	return err;
}

int ext4_acl_inherit(struct ext4_node *dir, struct ext4_node *child, const struct fs_create *c) NO_THREAD_SAFETY
{
	struct fs_acl *model, *own;
	uint32_t mode = c->set.mode & 07777;
	bool more;
	int err;

	if (c->type == FS_LNK || dir->acl_is[FS_ACL_DEFAULT] == ACL_NONE)
		return 0;
	if ((err = list_of(dir, FS_ACL_DEFAULT, 0, &model)) < 0)
		return err;
	own = fs_acl_copy(model);
	if (own) {
		more = fs_acl_meet_mode(own, &mode);
		child->inode.i_mode = (uint16_t)((child->inode.i_mode & 0xf000) | mode);
		if (c->type == FS_DIR)
			err = store(child, FS_ACL_DEFAULT, model);
		if (!err && more)
			err = store(child, FS_ACL_ACCESS, own);
	} else {
		err = -ENOMEM;
	}
	fs_acl_put(own);
	fs_acl_put(model);
	return err;
}

/* ---- capabilities ------------------------------------------------------------------------------------------------------------- */

int ext4_caps_drop(struct ext4_node *n) NO_THREAD_SAFETY
{
	const struct xattr_change without = {.name = ext4_xattr_caps};
	int err;

	if (!atomic_load_explicit(&n->caps, memory_order_relaxed))
		return 0;
	err = ext4_xattr_set(n, &without);
	return err == -ENODATA ? 0 : err;
}

int ext4_caps_before_write(struct ext4_node *n, unsigned flags) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	int err;

	if (!atomic_load_explicit(&n->caps, memory_order_relaxed))
		return 0;
	if (flags & FS_NOWAIT)
		return -EAGAIN;
	if ((err = ext4_op_begin(fs, CREDITS, 0)) < 0)
		return err;
	rwlock_write(&n->rw);
	/* Who may not write leaves it as it is. */
	err = n->inode.i_flags & EXT2_IMMUTABLE_FL ? -EPERM : ext4_caps_drop(n);
	rwlock_drop(&n->rw);
	return ext4_op_end(fs, err);
}

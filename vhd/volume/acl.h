/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * acl.h - POSIX access control lists as the server sees them, however a file system keeps them
 *
 * The entries are in the order of POSIX 1003.1e draft 17: the owner, named users, the owning group, named groups, the mask, others.
 * Of owner, owning group and others there is one each; there is a mask, at most one, as soon as somebody is named. A list that is not
 * so is none that fs_ops.getacl() gives out.
 *
 * A list is counted and, once others have it, never changed.
 */
#ifndef VHDNFS_VOLUME_ACL_H
#define VHDNFS_VOLUME_ACL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum fs_acl_kind {
	FS_ACL_ACCESS,  /* who may do what */
	FS_ACL_DEFAULT, /* of a directory: what is made in it begins with this */
	FS_ACL_KINDS,
};

enum fs_acl_tag {
	FS_ACL_USER_OBJ = 0x01,
	FS_ACL_USER = 0x02,
	FS_ACL_GROUP_OBJ = 0x04,
	FS_ACL_GROUP = 0x08,
	FS_ACL_MASK = 0x10,
	FS_ACL_OTHER = 0x20,
};

struct fs_ace {
	uint16_t tag;  /* FS_ACL_USER_OBJ … */
	uint16_t perm; /* 4 read, 2 write, 1 execute */
	uint32_t id;   /* of FS_ACL_USER and FS_ACL_GROUP; else 0 */
};

struct fs_acl {
	atomic_uint refs;
	uint32_t count;
	struct fs_ace e[];
};

/* Room for @count entries, all zero, with one reference; NULL: no memory. @count is the caller's to bound. */
struct fs_acl *fs_acl_new(uint32_t count);
/* Another one with the same entries; NULL: no memory. */
struct fs_acl *fs_acl_copy(const struct fs_acl *a);

static inline struct fs_acl *fs_acl_get(struct fs_acl *a)
{
	atomic_fetch_add_explicit(&a->refs, 1, memory_order_relaxed);
	return a;
}

/* NULL is accepted. */
void fs_acl_put(struct fs_acl *a);

/* Is it a list as described above? */
bool fs_acl_valid(const struct fs_acl *a);
/* chmod: the owner, others, and the mask (the owning group where there is none) get the permissions of @mode. */
void fs_acl_set_mode(struct fs_acl *a, uint32_t mode);
/* A copy of a default list becomes the list of what is created with @mode, which becomes what GETATTR shows: each loses what the other
 * has not. True: the list says more than the mode does, so it has to be kept. */
bool fs_acl_meet_mode(struct fs_acl *a, uint32_t *mode);

#endif

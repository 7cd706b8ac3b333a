/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * xattr_int.h - extended attributes: areas of them, and where an inode has its areas
 *
 * An area is a list of entries, ended by four bytes of zero, that grows upwards, and the values, which grow downwards from the end:
 *
 *     base                first                                                                 base + size
 *      |  (block: header)  | entry | entry | 0000 |      free      | value | value |
 *
 * An inode has one behind its fields, when inodes are larger than 128 bytes, and one in a block, which several inodes with the same
 * attributes may share (h_refcount). Value offsets count from base: the block's first byte, or in an inode the first entry.
 * Entries of a block are sorted by name index, length of the name, name.
 *
 * What is in an area is an image's: every function here checks all of it that it looks at, and the areas are copies, so nobody
 * changes them meanwhile.
 *
 * Source: Linux, Documentation/filesystems/ext4/attributes.rst.
 */
#ifndef VHDNFS_EXT4_XATTR_INT_H
#define VHDNFS_EXT4_XATTR_INT_H

#include "vhd/base/endian.h"
#include "vhd/ext4/ext4_int.h"

/* Name indexes. The two in the middle stand for whole names. */
enum { XATTR_USER = 1, XATTR_ACL_ACCESS = 2, XATTR_ACL_DEFAULT = 3, XATTR_TRUSTED = 4, XATTR_SECURITY = 6 };

#define XATTR_MAGIC 0xea020000u
#define XATTR_PAD 4u /* entries and values begin at multiples of it; four zeros end the list */

struct xattr_header { /* of a block; in an inode there is only the magic number */
	le32 magic, refcount, blocks, hash, checksum, reserved[3];
};
_Static_assert(sizeof(struct xattr_header) == 32, "as on disk");

struct xattr_entry {
	uint8_t name_len, name_index;
	le16 value_offs;
	le32 value_inum; /* not 0: an inode that holds the value */
	le32 value_size, hash;
	/* name_len bytes follow */
};
_Static_assert(sizeof(struct xattr_entry) == 16, "as on disk");

struct xattr_area {
	uint8_t *base; /* NULL: there is none */
	uint32_t first, size;
	bool hashed; /* entries have their hash: those of blocks */
};

struct xattr_name {
	uint8_t index; /* what stands for the prefix */
	uint8_t len;
	const char *name; /* without the prefix; not ended */
};

/* What to make of an area: @name set to @value, or (@value NULL) without it. */
struct xattr_change {
	struct xattr_name name;
	const void *value;
	uint32_t len;
};

/* "user.x" -> {1, 1, "x"}. -ENOTSUP another prefix than user, trusted and security; -EINVAL none behind it; -ERANGE too long. */
int ext4_xattr_name(const char *full, struct xattr_name *out);

/* Where the value of @name is in the area: 1, and *off, *len lie inside; 0 no such attribute; -ENOTSUP it is in an inode of its own;
 * -EUCLEAN the area is damaged. */
int ext4_xattr_find(const struct xattr_area *a, const struct xattr_name *name, uint32_t *off, uint32_t *len);

/* Fill @to, all of whose bytes from first on are zero, with what @from (of any size; base NULL is empty) becomes by @c. The number of
 * entries; -ENOSPC; -ENOTSUP one has its value in an inode; -EUCLEAN @from is damaged. */
int ext4_xattr_build(const struct xattr_area *from, const struct xattr_change *c, const struct xattr_area *to);

/* The header's hash of all entries of a block that ext4_xattr_build() made. */
uint32_t ext4_xattr_block_hash(const struct xattr_area *a);

/* ---- of a node: xattr.c ------------------------------------------------------------------------------------------------- */

/* A node's areas to look into; with the node's lock. */
struct xattr_view {
	struct xattr_area in[2]; /* in the inode, in its block */
	uint8_t *block;          /* that one, for free() */
};
/* Under fs->mu. -EUCLEAN the block is none, -ENOMEM, -EIO, -EAGAIN (FS_NOWAIT). */
int ext4_xattr_view(struct ext4_node *n, unsigned flags, struct xattr_view *v) REQUIRES_SHARED(n->rw);
/* 1, and the value in place; else as ext4_xattr_find(). */
int ext4_xattr_view_find(const struct xattr_view *v, const struct xattr_name *name, const uint8_t **value,
			 uint32_t *len);
/* In an operation. -ENODATA, -ENOSPC, -ENOTSUP, -EUCLEAN with nothing changed. */
int ext4_xattr_set(struct ext4_node *n, const struct xattr_change *c) REQUIRES(n->rw);
/* -EAGAIN (FS_NOWAIT). */
int ext4_lock_shared(struct ext4_node *n, unsigned flags);

/* ---- access control lists: acl.c ------------------------------------------------------------------------------------------ */

/* "security.capability" */
extern const struct xattr_name ext4_xattr_caps;
/* A list as it is on disk: 0 and *out, NULL when it has no entry; -EUCLEAN, -ENOMEM. */
int ext4_acl_parse(const uint8_t *p, uint32_t len, struct fs_acl **out);
uint32_t ext4_acl_bytes(const struct fs_acl *a);
/* That many bytes at @p. */
void ext4_acl_encode(const struct fs_acl *a, uint8_t *p);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ext4_int.h - what the files of the ext4 driver share; nobody outside vhd/ext4/ includes it
 *
 * libext2fs does what is cold or intricate (extent trees, checksums, xattr blocks) and is not thread-safe; names,
 * extent maps, allocation and data I/O are ours.
 *
 * Locks, outermost first:
 *
 *     fs->mu        every call into libext2fs, and the running transaction. Taken by ext4_op_begin(), so every operation
 *                   that changes metadata is alone in its file system; there is no order to keep among directories.
 *     node->rw      the node's inode, extent map and (directories) entries. Readers take it shared and never need
 *                   fs->mu when everything is in memory; changes take it exclusively, under fs->mu when they change
 *                   metadata on disk. Two nodes at once: only under fs->mu.
 *     fs->table_mu  the table of nodes in memory
 *     fs->alloc_mu  the allocator's bitmap (alloc.c)
 *
 * A thread that must not wait (FS_NOWAIT) only tries node->rw and never takes fs->mu.
 *
 * Every operation that changes metadata is bracketed by ext4_op_begin()/ext4_op_end(): one transaction handle. What the
 * brackets enclose reaches the journal together once there is one (tx.c is the place); today the end of the operation
 * only marks the groups and the superblock it touched for the next sync.
 */
#ifndef VHDNFS_EXT4_EXT4_INT_H
#define VHDNFS_EXT4_EXT4_INT_H

#include <ext2fs/ext2_fs.h>
#include <ext2fs/ext2fs.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "vhd/base/list.h"
#include "vhd/base/lock.h"
#include "vhd/cache/cache.h"
#include "vhd/volume/fs.h"

struct ext4_alloc; /* alloc.c: used | reserved | freed-but-not-committed blocks, in memory */
struct ext4_map;   /* extent.c: the extent map of one inode, in memory */
struct ext4_names; /* names.c or dir.c: the name cache, if there is one */

struct ext4_fs {
	struct fs fs;
	struct cache_dev *dev;
	struct lock mu;
	ext2_filsys e2
		PT_GUARDED_BY(mu); /* bitmaps are loaded; inode table, groups and superblock through our io_manager */
	uint32_t block_size;       /* bytes: 1024 … 65536 */
	uint32_t block_bits;
	bool has_csum;
	bool relatime;

	struct lock table_mu;
	/* … node table: owned by node.c (add fields here) */

	struct lock alloc_mu;
	struct ext4_alloc *alloc;
	struct ext4_names *names;
};

/* Which blocks of a directory were verified (checksum and structure) since its node came into memory. Zeroed is empty. */
struct ext4_checked_more; /* the bits of blocks from 64 on */
struct ext4_checked {
	atomic_uint_least64_t first; /* blocks 0 … 63 */
	_Atomic(struct ext4_checked_more *) more;
};

struct ext4_node {
	struct fs_node n;
	struct rwlock rw;
	struct ext2_inode_large inode GUARDED_BY(rw); /* CPU order; the truth while the node is in memory */
	bool dirty GUARDED_BY(rw);                    /* inode differs from the inode table */
	struct ext4_map *map GUARDED_BY(rw);          /* loaded on demand */
	uint32_t dir_gen GUARDED_BY(rw);              /* directories: grows with every change of the entries */
	struct ext4_checked checked;                  /* directories: which blocks were verified; dir.c */
	/* … table links, dirty list, preallocation window: owned by node.c, data.c */
};

static inline struct ext4_fs *ext4_fs_of(struct fs *fs)
{
	return container_of(fs, struct ext4_fs, fs);
}
static inline struct ext4_node *ext4_node_of(struct fs_node *n)
{
	return container_of(n, struct ext4_node, n);
}
static inline struct ext4_fs *ext4_fs_of_node(struct ext4_node *n)
{
	return ext4_fs_of(n->n.fs);
}

/* errcode_t of libext2fs -> negative errno. err.c */
int ext4_errno(errcode_t e);

/* ---- transactions: tx.c ------------------------------------------------------------------------------------------- */

/* Takes fs->mu. -EROFS; -EIO once the file system stopped accepting changes. @credits: metadata blocks at most. */
int ext4_op_begin(struct ext4_fs *fs, unsigned credits) TRY_ACQUIRE(0, fs->mu);
/* Drops fs->mu. @err is what the operation came to; returned unchanged unless ending it failed. */
int ext4_op_end(struct ext4_fs *fs, int err) RELEASE(fs->mu);

/* ---- nodes: node.c ------------------------------------------------------------------------------------------------- */

/* The node of an inode, read in if need be. @gen 0xffffffff: any generation (names found in directories). -ESTALE: free,
 * deleted, reserved, or another generation. FS_NOWAIT: -EAGAIN when it is not in memory; takes nothing but table_mu then,
 * so it may be called with fs->mu and any node's lock held. Without the flag the caller holds neither. */
int ext4_node_get(struct ext4_fs *fs, uint64_t ino, uint32_t gen, unsigned flags, struct ext4_node **out);
#define EXT4_ANY_GEN 0xffffffffu
static inline void ext4_node_put(struct ext4_node *n)
{
	if (n)
		fs_node_put(&n->n);
}

/* A fresh inode (all types), allocated near @dir (directories spread as Orlov does), links_count 0, times now, i_version 1,
 * a random generation, owner, mode and rdev from @c, symlink target stored, fast or slow. Directories get no block here.
 * Referenced and in the table; its lock is not held. Under an operation; the caller holds @dir's lock exclusively. */
int ext4_node_new(struct ext4_fs *fs, struct ext4_node *dir, const struct fs_create *c, struct ext4_node **out)
	REQUIRES(fs->mu);

/* The inode changed: it will be written to the inode table by the next sync. */
void ext4_node_dirty(struct ext4_node *n) REQUIRES(n->rw);

enum { EXT4_T_A = 1, EXT4_T_M = 2, EXT4_T_C = 4 };
/* Sets the times to now and raises i_version (unless only atime is set); marks it dirty. */
void ext4_node_touch(struct ext4_node *n, unsigned which) REQUIRES(n->rw);
uint64_t ext4_node_change(const struct ext4_node *n) REQUIRES_SHARED(n->rw); /* the change attribute */
void ext4_node_attr(const struct ext4_node *n, struct fs_attr *a) REQUIRES_SHARED(n->rw);

/* links_count went to 0: the inode and its blocks are freed when the last reference goes (by a reaper thread that takes
 * fs->mu itself, so a put is safe anywhere). */
void ext4_node_unlinked(struct ext4_node *n) REQUIRES(n->rw);

/* ---- blocks of a directory (and of any metadata file): extent.c, data.c -------------------------------------------- */

/* The physical block of a logical one; 0 is a hole. -EAGAIN (FS_NOWAIT) when the map is not in memory; -EUCLEAN. */
int ext4_bmap(struct ext4_node *n, uint32_t lblk, unsigned flags, uint64_t *pblk) REQUIRES_SHARED(n->rw);

/* Pin one block of the file in place. Returns 0 and a piece to be given to cache_unpin(); -EAGAIN; -EUCLEAN for a hole,
 * for a block that does not exist, or a block whose address is outside the file system. */
int ext4_bpin(struct ext4_node *n, uint32_t lblk, unsigned flags, struct cache_seg *seg) REQUIRES_SHARED(n->rw);
/* Write one whole block (metadata: part of the running transaction). */
int ext4_bwrite(struct ext4_node *n, uint32_t lblk, const void *block) REQUIRES(n->rw);
/* Append one block, i_size and i_blocks follow; *lblk is its number. The caller writes it with ext4_bwrite(). -ENOSPC. */
int ext4_bappend(struct ext4_node *n, uint32_t *lblk) REQUIRES(n->rw);

/* ---- names: dirblk.c, dxblk.c, dir.c, htree.c, readdir.c, namei.c, rename.c --------------------------------------- */

extern int ext4_op_lookup(struct fs_node *dir, const char *name, uint32_t len, unsigned flags, struct fs_node **out);
extern int ext4_op_parent(struct fs_node *dir, unsigned flags, struct fs_node **out);
extern int ext4_op_create(struct fs_node *dir, const char *name, uint32_t len, const struct fs_create *c,
			  struct fs_node **out, struct fs_cinfo *ci);
extern int ext4_op_link(struct fs_node *n, struct fs_node *dir, const char *name, uint32_t len, struct fs_cinfo *ci);
extern int ext4_op_unlink(struct fs_node *dir, const char *name, uint32_t len, struct fs_cinfo *ci);
extern int ext4_op_rename(struct fs_node *from, const char *name, uint32_t len, struct fs_node *to, const char *nname,
			  uint32_t nlen, struct fs_cinfo *cfrom, struct fs_cinfo *cto);
extern int ext4_op_readdir(struct fs_node *dir, uint64_t cookie, unsigned flags, fs_emit_fn *emit, void *arg,
			   bool *eof);
/* The node leaves memory, or the inode is freed: what was remembered of its blocks goes. */
void ext4_dir_forget(struct ext4_node *n);
int ext4_names_init(struct ext4_fs *fs);
void ext4_names_fini(struct ext4_fs *fs);

#endif

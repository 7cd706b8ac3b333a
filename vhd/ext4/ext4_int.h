/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ext4_int.h - what the files of the ext4 driver share; nobody outside vhd/ext4/ includes it
 *
 * libext2fs does what is cold or intricate (extent trees, checksums, inodes) and is not thread-safe; names, extended
 * attributes, extent maps, allocation and data I/O are ours.
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
 * A thread that must not wait (FS_NOWAIT) only tries node->rw and fs->mu, and never waits for them.
 *
 * Every operation that changes metadata is bracketed by ext4_op_begin()/ext4_op_end(): what the brackets enclose is in one
 * transaction of the journal (journal.h). Two kinds of changes to an inode are told apart: those of operations, which are
 * stored when the transaction is sealed (ext4_node_dirty()), and those that writing data makes - size, times, blocks found but
 * not yet in the tree - which can wait until somebody commits the file (ext4_node_later()).
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

struct ext4_journal; /* journal.h */
struct ext4_zones;   /* zones.c: where our own metadata is */
struct ext4_trim;    /* trim.c: what was freed, until it is punched */
struct ext4_alloc;   /* alloc.c: used | reserved | freed-but-not-committed blocks, in memory */
struct ext4_map;     /* extent.c: the extent map of one inode, in memory */
struct ext4_names;   /* names.c or dir.c: the name cache, if there is one */

struct ext4_fs {
	struct fs fs;
	struct cache_dev *dev;
	struct lock mu;
	ext2_filsys e2
		PT_GUARDED_BY(mu); /* bitmaps are loaded; inode table, groups and superblock through our io_manager */
	uint32_t block_size;       /* bytes: 1024 … 65536 */
	uint32_t block_bits;
	bool has_csum;
	bool relatime, async;

	/* What of the bitmaps, descriptors and superblock must be written. Guarded by mu. */
	uint8_t *group_dirty; /* GROUP_* per block group */
	uint8_t *raw_inode;   /* room for one, whole */
	bool super_dirty;
	uint32_t ngroups_dirty;        /* of them */
	uint64_t changes, op_changes;  /* of metadata, so far, and when the running operation began */
	struct ext4_journal *journal;  /* NULL: it has none, or is only read */
	atomic_uint_least64_t freeing; /* blocks that are free when the transaction has committed */
	struct list logged;            /* nodes that the running transaction must store; with nlogged guarded by mu */
	uint32_t nlogged;
	bool keep_found;     /* what the mount finds without a name stays until it is told otherwise; constant */
	bool keep_unlinked;  /* nodes without a name stay when they are put; guarded by table_mu */
	struct list orphans; /* nodes on the superblock's list of orphans, the newest first; guarded by mu */
	/* Without a journal: metadata went to the cache this many times; up to which of them it is known to be on the disk. Guarded by mu. */
	uint64_t meta_seq, meta_flushed;
	bool was_valid; /* the superblock said clean when we came */
	bool quota;     /* and then changes since make it "not checked": quota files are not kept up; constant */
	uint64_t changes_found; /* `changes` when writing began */
	atomic_int failed;      /* an error that ended writing: no more changes */
	atomic_bool full; /* the host has no room for what was changed last: no more changes until it has (journal.h) */
	uint64_t random;  /* for generations; guarded by mu */
	/* No inode from that of this directory up to this one is free: where the search for the next begins. Under mu. */
	uint32_t ino_dir, ino_next;

	struct lock table_mu;
	struct cond table_cond; /* the housekeeper has something to do, or stops; a node left */
	struct ext4_node **table GUARDED_BY(table_mu);
	uint32_t table_mask, table_count GUARDED_BY(table_mu);
	struct list idle GUARDED_BY(table_mu); /* nodes without references, oldest first */
	uint32_t nidle GUARDED_BY(table_mu);
	struct list dirty GUARDED_BY(table_mu); /* nodes with something to write */
	struct list reap GUARDED_BY(table_mu);  /* unlinked nodes whose last reference went */
	bool stopping GUARDED_BY(table_mu);
	pthread_t housekeeper;

	struct lock alloc_mu;
	struct ext4_alloc *alloc;
	struct ext4_zones *zones; /* constant once mounted */
	atomic_bool told;         /* of an inode that reaches into them */
	struct ext4_trim *trim;   /* freed blocks to punch; NULL: none are. Guarded by alloc_mu */
	struct ext4_names *names;
	atomic_size_t order_bytes; /* of all directories' orders */
};

/* Which blocks of a directory were verified (checksum and structure) since its node came into memory. Zeroed is empty. */
struct ext4_checked_more; /* the bits of blocks from 64 on */
struct ext4_checked {
	atomic_uint_least64_t first; /* blocks 0 … 63 */
	_Atomic(struct ext4_checked_more *) more;
};

/* The entries of a hashed directory in the order of their cookies; readdir.c. */
struct ext4_order;

struct ext4_node {
	struct fs_node n;
	struct rwlock rw;
	struct ext2_inode_large inode GUARDED_BY(rw); /* CPU order; the truth while the node is in memory */
	bool dirty GUARDED_BY(rw);                    /* inode differs from the inode table */
	struct ext4_map *map GUARDED_BY(rw);          /* loaded on demand */
	uint64_t dir_gen GUARDED_BY(
		rw);                 /* directories: of the entries as they are; never that of others, or other ones */
	struct ext4_checked checked; /* directories: which blocks were verified; dir.c */
	_Atomic(struct ext4_order *) order;     /* made by listers, dropped by changes; zeroed is none */
	uint64_t change GUARDED_BY(rw);         /* the change attribute: i_version in 64 bits */
	uint64_t pending_blocks GUARDED_BY(rw); /* allocated, not yet in the inode's tree and i_blocks */
	bool map_dirty GUARDED_BY(rw);          /* the map has entries that the tree has not */
	uint64_t stored_size GUARDED_BY(rw);    /* as the tree on disk allows it: what is behind waits for its blocks */
	bool tail_clean GUARDED_BY(
		rw); /* its blocks hold nothing but zeros behind its end; else somebody has to look */
	uint64_t zeroed_from GUARDED_BY(rw), zeroed_to
		GUARDED_BY(rw);      /* the next store of the inode waits for these zeros */
	uint64_t tid GUARDED_BY(rw); /* the last transaction that this inode was stored in */
	bool orphan GUARDED_BY(rw);
	bool unlinked GUARDED_BY(rw);
	bool kept;                /* found without a name by the mount, which holds a reference. Guarded by fs->mu */
	bool dead GUARDED_BY(rw); /* the inode was freed */
	/* Extended attributes in the inode, from the end of its fields to its own; NULL: none. xattr.c */
	uint8_t *body GUARDED_BY(rw);
	bool body_dirty GUARDED_BY(rw); /* the next store is of the whole inode */
	/* Of its access control lists, by kind: ACL_*, and those that are ACL_KEPT. acl.c */
	uint8_t acl_is[FS_ACL_KINDS] GUARDED_BY(rw);
	atomic_bool caps; /* it has file capabilities, which who changes it takes away first */
	struct fs_acl *acl[FS_ACL_KINDS] GUARDED_BY(rw);
	/* The preallocation window: blocks taken from the allocator for the logical blocks that probably come next. */
	uint64_t pa_pblk GUARDED_BY(rw);
	uint32_t pa_lblk GUARDED_BY(rw), pa_len GUARDED_BY(rw), pa_size GUARDED_BY(rw);

	struct ext4_node *hash_next; /* guarded by table_mu, like the next three */
	struct list idle_link;
	struct list dirty_link;
	struct list logged_link, orphan_link; /* guarded by fs->mu */
	bool in_table, in_idle;
};

/* A node's access control list: none, kept with the node, too long for that, not understood. */
enum { ACL_NONE, ACL_KEPT, ACL_LONG, ACL_BAD };

enum { GROUP_BLOCKS = 1, GROUP_INODES = 2, GROUP_DESC = 4 };

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

/* May the superblock say "clean" when nobody writes any more? Under fs->mu, or at the end. mount.c */
bool ext4_ends_valid(const struct ext4_fs *fs);
/* Are all structures whole, as the superblock has it, once the journal is replayed? mount.c */
bool ext4_is_sound(const struct ext2_super_block *s);

/* errcode_t of libext2fs -> negative errno. err.c */
int ext4_errno(errcode_t e);

/* The io_manager over a file system's device: io.c. It is handed over in a thread-local, since libext2fs passes names. */
extern _Thread_local struct ext4_fs *ext4_io_fs;
extern io_manager ext4_io_manager;

/* CRC32C with the processor's instruction: csum.c. It has libext2fs's name and so takes its place. */
bool ext4_csum_works(void);

/* ---- transactions: tx.c ------------------------------------------------------------------------------------------- */

/* 0; -EIO once the file system stopped accepting changes; -ENOSPC while the host has no room for those that were made. */
int ext4_may_change(struct ext4_fs *fs);
/* Takes fs->mu. -EROFS; what ext4_may_change() says; -EAGAIN (FS_NOWAIT). @credits: metadata blocks at most. */
int ext4_op_begin(struct ext4_fs *fs, unsigned credits, unsigned flags) TRY_ACQUIRE(0, fs->mu);
/* Drops fs->mu. @err is what the operation came to; returned unchanged unless ending it failed. */
int ext4_op_end(struct ext4_fs *fs, int err) RELEASE(fs->mu);

/* The superblock, bitmaps and descriptors that changed go to the cache. */
int ext4_write_groups(struct ext4_fs *fs) REQUIRES(fs->mu);
int ext4_write_super(struct ext4_fs *fs) REQUIRES(fs->mu);
/* Hooks of libext2fs: allocation goes through alloc.c, and what changes is marked for ext4_write_groups(). */
void ext4_tx_hooks(struct ext4_fs *fs) REQUIRES(fs->mu);
void ext4_group_touched(struct ext4_fs *fs, uint32_t group, uint8_t what) REQUIRES(fs->mu);

void ext4_blocks_touched(struct ext4_fs *fs, uint64_t pblk, uint64_t len) REQUIRES(fs->mu);
/* A run that was in a file becomes free, on disk and (once the transaction has committed) for us. len below 2^32. */
void ext4_blocks_freed(struct ext4_fs *fs, uint64_t pblk, uint64_t len) REQUIRES(fs->mu);

/* ---- blocks: alloc.c ----------------------------------------------------------------------------------------------- */

int ext4_alloc_init(struct ext4_fs *fs) REQUIRES(fs->mu); /* from the bitmaps */
void ext4_alloc_fini(struct ext4_fs *fs);
/* A contiguous run of 1 … want free blocks, at @goal or as near behind it as there is a good one. @data: leave a reserve for
 * metadata; else it waits for what is taken for a moment (trim.c). -ENOSPC. Takes alloc_mu alone. */
int ext4_alloc_run(struct ext4_fs *fs, uint64_t goal, uint32_t want, bool data, uint64_t *pblk, uint32_t *got);
void ext4_alloc_free(struct ext4_fs *fs, uint64_t pblk, uint64_t len);
uint64_t ext4_alloc_left(struct ext4_fs *fs);
uint64_t ext4_goal_of_inode(struct ext4_fs *fs, uint64_t ino);
/* The first run of free blocks in [from, end) becomes taken; false: there is none. And free again. */
bool ext4_alloc_hold(struct ext4_fs *fs, uint64_t from, uint64_t end, uint64_t *pblk, uint64_t *len);
void ext4_alloc_unhold(struct ext4_fs *fs, uint64_t pblk, uint64_t len);
/* Until nothing is taken so. */
void ext4_alloc_await(struct ext4_fs *fs);

/* ---- zones.c ---- */
int ext4_zones_init(struct ext4_fs *fs) REQUIRES(fs->mu);
void ext4_zones_fini(struct ext4_fs *fs);
/* Does the run reach into metadata of the file system? */
bool ext4_in_zones(const struct ext4_fs *fs, uint64_t pblk, uint64_t len);

/* ---- giving space back: trim.c --------------------------------------------------------------------------------------- */

int ext4_trim_init(struct ext4_fs *fs);
void ext4_trim_fini(struct ext4_fs *fs);
void ext4_trim_note(struct ext4_fs *fs, uint64_t pblk, uint64_t len) REQUIRES(fs->alloc_mu);
/* Flushes when there is something to punch; takes fs->mu. */
void ext4_trim_now(struct ext4_fs *fs);

/* ---- extent maps: map.c (in memory), extent.c (on disk) -------------------------------------------------------------- */

enum {
	EXT_UNWRITTEN = 1, /* reads as zeros */
	EXT_PENDING = 2,   /* not in the inode's tree */
	EXT_CONVERT = 4,   /* unwritten in the tree, written here */
};
struct ext4_ext {
	uint64_t pblk;
	uint32_t lblk, len;
	uint32_t flags;
};
struct ext4_map {
	struct ext4_ext *e; /* by lblk, disjoint */
	uint32_t n, cap;
};

/* The run at lblk: an extent cut to start there, or a hole (pblk 0) up to the next extent. len > 0, at most @max. */
void ext4_map_at(const struct ext4_map *m, uint32_t lblk, uint32_t max, struct ext4_ext *run);
/* Put a run in place of whatever is there; neighbours are merged. -ENOMEM. */
int ext4_map_set(struct ext4_map *m, const struct ext4_ext *run);
int ext4_map_cut(struct ext4_map *m, uint32_t lblk, uint64_t end); /* [lblk, end) becomes a hole */
void ext4_map_free(struct ext4_map *m);

/* Read the tree into n->map. */
int ext4_map_load(struct ext4_node *n) REQUIRES(n->rw);
/* Put what is pending into the tree. */
int ext4_map_store(struct ext4_node *n) REQUIRES(n->rw);
/* Give back blocks from lblk on that never reached the tree: a write failed half way. */
void ext4_map_undo(struct ext4_node *n, uint32_t lblk) REQUIRES(n->rw);
/* Free [lblk, end) in the map and in the tree (what is pending is stored first). Data in the cache is forgotten. When that is
 * too much for one transaction it goes from the end in steps, and the inode is an orphan meanwhile. */
int ext4_map_punch(struct ext4_node *n, uint32_t lblk, uint64_t end) REQUIRES(n->rw);

/* ---- nodes: node.c ------------------------------------------------------------------------------------------------- */

/* The node of an inode, of whatever generation (ext4_op_get() compares that of a filehandle), read in if need be. -ESTALE: free,
 * deleted or reserved. FS_NOWAIT: -EAGAIN when it is not in memory; takes nothing but table_mu then, so it may be called with
 * fs->mu and any node's lock held. Without the flag the caller holds neither. */
int ext4_node_get(struct ext4_fs *fs, uint64_t ino, unsigned flags, struct ext4_node **out);
/* The node of an inode that may have no link: for orphan.c, while nobody else uses the file system. */
int ext4_node_get_orphan(struct ext4_fs *fs, uint64_t ino, struct ext4_node **out) REQUIRES(fs->mu);
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

/* An operation changed the inode, under fs->mu: it is stored in this operation's transaction. */
void ext4_node_dirty(struct ext4_node *n) REQUIRES(n->rw);
/* Writing data did: it is stored by the next commit of the file, or in some seconds. */
void ext4_node_later(struct ext4_node *n) REQUIRES(n->rw);

enum { EXT4_T_A = 1, EXT4_T_M = 2, EXT4_T_C = 4 };
/* Sets the times to now and raises i_version (unless only atime is set); then ext4_node_dirty(), or (_later) the other. */
void ext4_node_touch(struct ext4_node *n, unsigned which) REQUIRES(n->rw);
void ext4_node_touch_later(struct ext4_node *n, unsigned which) REQUIRES(n->rw);
uint64_t ext4_node_change(const struct ext4_node *n) REQUIRES_SHARED(n->rw); /* the change attribute */
void ext4_node_attr(const struct ext4_node *n, struct fs_attr *a) REQUIRES_SHARED(n->rw);

/* links_count went to 0: the inode and its blocks are freed when the last reference goes (by a reaper thread that takes
 * fs->mu itself, so a put is safe anywhere). */
void ext4_node_unlinked(struct ext4_node *n) REQUIRES(n->rw);

int ext4_table_init(struct ext4_fs *fs);
/* Stops the housekeeper, reaps, writes every node, frees them all. */
int ext4_table_fini(struct ext4_fs *fs);
/* Pending extents, then the inode, into the transaction; may restart it when there are many. Data is not touched. Under fs->mu. */
int ext4_node_store(struct ext4_node *n) REQUIRES(n->rw);
/* The inode alone: its size not beyond what the tree has. Under fs->mu. */
int ext4_node_store_inode(struct ext4_node *n) REQUIRES(n->rw);
/* The inodes that operations of the running transaction changed. */
int ext4_store_logged(struct ext4_fs *fs) REQUIRES(fs->mu);
/* The node leaves the transaction's list, stored or given up. */
void ext4_logged_remove(struct ext4_fs *fs, struct ext4_node *n) REQUIRES(fs->mu);
/* Unlinked files whose last reference went are freed now, not soon, and blocks that files have taken ahead; takes fs->mu. The caller
 * holds no lock. */
void ext4_reap_now(struct ext4_fs *fs);
int ext4_store_all(struct ext4_fs *fs); /* every dirty node, groups, superblock; takes fs->mu */
int ext4_op_get(struct fs *fs, uint64_t ino, uint32_t gen, unsigned flags, struct fs_node **out);
void ext4_op_put(struct fs_node *n);
void ext4_time_set(struct ext2_inode_large *i, unsigned which, const struct fs_time *t);
struct fs_time ext4_now(void);
static inline uint64_t ext4_size(const struct ext2_inode_large *i)
{
	return (uint64_t)i->i_size_high << 32 | i->i_size;
}
void ext4_set_size(struct ext4_node *n, uint64_t size) REQUIRES(n->rw);
void ext4_drop_window(struct ext4_node *n) REQUIRES(n->rw);

/* A number that no directory's entries had before: dir.c. */
uint64_t ext4_dir_new_gen(void);

/* ---- orphans: orphan.c ----------------------------------------------------------------------------------------------- */

/* Inodes without a name that somebody has open, and files that are being cut: after a crash they are freed, or cut to their size.
 * Both under fs->mu with the node's lock. */
void ext4_orphan_add(struct ext4_node *n) REQUIRES(n->rw);
void ext4_orphan_remove(struct ext4_node *n) REQUIRES(n->rw);
/* What a crash left. Before anybody else uses the file system. */
int ext4_orphans_clear(struct ext4_fs *fs);
void ext4_op_keep_unlinked(struct fs *fs, bool keep);

int ext4_op_resident(struct fs_node *n, uint64_t *bytes);                                       /* data.c */
int ext4_op_unused(struct fs *fs, int (*fn)(void *arg, uint64_t off, uint64_t len), void *arg); /* alloc.c */

/* ---- standing still: freeze.c ----------------------------------------------------------------------------------------- */

int ext4_op_freeze(struct fs *fs);
void ext4_op_thaw(struct fs *fs);
/* Free what an inode has, and the inode, in as many transactions as it takes; the node is dead then. */
int ext4_inode_release(struct ext4_fs *fs, struct ext4_node *n) REQUIRES(fs->mu);

/* ---- file data: data.c, space.c -------------------------------------------------------------------------------------- */

/* Data of these ranges to the image, also where metadata that is held back lies beside it. commit.c */
int ext4_write_data(struct ext4_fs *fs, const struct cache_range *r, unsigned n);
/* What of a file's [off, end) is dirty (end 0: to its end), to the image. Without locks. */
int ext4_write_back(struct ext4_node *n, uint64_t off, uint64_t end);
/* Before the file grows, to @end or beyond: what its blocks hold behind its end becomes zeros. The map is loaded. -EAGAIN (FS_NOWAIT). */
int ext4_clean_tail(struct ext4_node *n, uint64_t end, unsigned flags) REQUIRES(n->rw);
/* The inode is about to be stored: zeros that were put there go to the disk before it. Under fs->mu. */
void ext4_order_zeroed(struct ext4_node *n) REQUIRES(n->rw);
int ext4_op_read(struct fs_node *n, uint64_t off, uint32_t len, unsigned flags, struct cache_seg *seg, unsigned max,
		 bool *eof);
int ext4_op_write(struct fs_node *n, uint64_t off, const struct iovec *iov, int niov, uint32_t len, unsigned flags);
int ext4_op_commit(struct fs_node *n, uint64_t off, uint64_t len);
int ext4_op_seek(struct fs_node *n, uint64_t off, enum fs_seek what, uint64_t *out);
int ext4_op_advise(struct fs_node *n, struct fs_hint *h);
void ext4_op_figures(struct fs *fs, struct cache_dev_stats *st);
void ext4_op_unwant(struct fs *fs, uint64_t tag, uint64_t mask);
int ext4_op_alloc(struct fs_node *n, uint64_t off, uint64_t len);
int ext4_op_punch(struct fs_node *n, uint64_t off, uint64_t len);
int ext4_op_readlink(struct fs_node *n, unsigned flags, char *buf, uint32_t cap);
int ext4_op_getattr(struct fs_node *n, unsigned flags, struct fs_attr *a);
int ext4_op_getattrs(struct fs *fs, struct fs_attr *a, unsigned n, unsigned flags);
int ext4_op_setattr(struct fs_node *n, const struct fs_setattr *s, struct fs_attr *after);
int ext4_op_sync(struct fs *fs);
uint64_t ext4_op_changed(struct fs *fs);
int ext4_op_order(struct fs_node *n, uint64_t off, uint64_t len, unsigned flags, uint64_t *change);
int ext4_op_when_stable(struct fs *fs, uint64_t change, struct fs_waiter *w);
int ext4_op_statfs(struct fs *fs, struct fs_statfs *st);
int ext4_op_unmount(struct fs *fs);
uint64_t ext4_max_size(const struct ext4_node *n);

/* ---- what lies in its inode: inline.c; the node's lock is held ---------------------------------------------------------- */

bool ext4_is_inline(const struct ext4_node *n);
/* As fs_ops.read, of bytes inside the file. */
int ext4_inline_read(struct ext4_node *n, uint64_t off, uint32_t len, unsigned cache_flags, struct cache_seg *seg,
		     unsigned max);
int ext4_inline_copy(struct ext4_node *n, uint8_t *to, uint32_t len); /* from its beginning; -EUCLEAN: it has less */

/* ---- extended attributes: xattr.c ------------------------------------------------------------------------------------- */

int ext4_op_getxattr(struct fs_node *n, const char *name, void *buf, uint32_t cap, unsigned flags);
int ext4_op_setxattr(struct fs_node *n, const char *name, const void *value, uint32_t len);
/* Where attributes begin in the inode as it is on disk; 0: it has no room for them. */
uint32_t ext4_body_start(const struct ext4_fs *fs, const struct ext2_inode_large *i);
/* What @raw, the whole inode, holds of them. -ENOMEM. */
int ext4_body_load(struct ext4_node *n, const uint8_t *raw) REQUIRES(n->rw);
/* The inode is to be freed: its block of attributes is, too, unless others use it. Under fs->mu. */
int ext4_xattr_release(struct ext4_node *n) REQUIRES(n->rw);

/* ---- access control lists, file capabilities: acl.c ------------------------------------------------------------------- */

int ext4_op_getacl(struct fs_node *n, enum fs_acl_kind kind, unsigned flags, struct fs_acl **out);
/* What the node's attributes say of them, when it comes into memory: after ext4_body_load(), under fs->mu. -ENOMEM, -EIO. */
int ext4_acls_load(struct ext4_node *n) REQUIRES(n->rw);
void ext4_acls_drop(struct ext4_node *n);
/* The list follows a mode that is going to be set. In an operation. -ENOSPC with nothing changed. */
int ext4_acl_chmod(struct ext4_node *n, uint32_t mode) REQUIRES(n->rw);
/* A new inode gets what its directory has for it, its mode what that leaves. In the operation that makes it. */
int ext4_acl_inherit(struct ext4_node *dir, struct ext4_node *child, const struct fs_create *c) REQUIRES(dir->rw)
	REQUIRES(child->rw);
/* File capabilities go, if there are any. In an operation. */
int ext4_caps_drop(struct ext4_node *n) REQUIRES(n->rw);
/* The same for who is in none, before he takes the lock. -EAGAIN (FS_NOWAIT). */
int ext4_caps_before_write(struct ext4_node *n, unsigned flags);

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
extern int ext4_op_unlink(struct fs_node *dir, const char *name, uint32_t len, unsigned flags, struct fs_cinfo *ci);
extern int ext4_op_rename(struct fs_node *from, const char *name, uint32_t len, struct fs_node *to, const char *nname,
			  uint32_t nlen, struct fs_cinfo *cfrom, struct fs_cinfo *cto);
extern int ext4_op_readdir(struct fs_node *dir, uint64_t cookie, unsigned flags, fs_emit_fn *emit, void *arg,
			   bool *eof);
/* The node leaves memory, or the inode is freed: what was remembered of its blocks goes. */
void ext4_dir_forget(struct ext4_node *n);
int ext4_names_init(struct ext4_fs *fs);
void ext4_names_fini(struct ext4_fs *fs);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dir_int.h - the names of the ext4 driver: what dirblk.c, dxblk.c, dir.c, htree.c, readdir.c and the operations share
 *
 * From the bottom:
 *
 *     dirblk.c  one block of entries in memory        dxblk.c  one block of a directory's index in memory
 *     dir.c     a directory as a whole: its blocks verified on first use, find, insert, remove; linear ones itself
 *     htree.c   hashed directories: walking the index, splitting leaves, growing the index
 *     readdir.c listing
 *     namei.c, rename.c  the operations of fs.h
 *
 * The two files at the bottom are pure: they see bytes, never a file system.
 *
 * A block of entries (a leaf, or any block of a linear directory):
 *
 *     | entry | entry | … | entry ............ | tail |        the rec_lens chain to the end, nothing lies between;
 *                                                              tail: 12 bytes, only with metadata_csum
 *     entry: inode le32, rec_len le16, name_len u8, type u8, name, slack up to rec_len; inode 0: unused
 *
 * The index (dx): its root is block 0, behind "." and a ".." that spans the block; its nodes are blocks that begin with
 * one unused entry spanning the block. Both then hold pairs (hash, block), sorted; the hash of pair 0 is replaced by
 * (limit, count) and counts as 0. A pair's block holds the names with hashes from its own to the next pair's. Hashes of
 * names are even; an odd one in a pair says that names with the hash minus 1 are also at the end of the block before
 * ("continued").
 */
#ifndef VHDNFS_EXT4_DIR_INT_H
#define VHDNFS_EXT4_DIR_INT_H

#include <stdatomic.h>

#include "vhd/base/endian.h"
#include "vhd/ext4/ext4_int.h"

/* What of the superblock shapes a directory; immutable after mount. */
struct ext4_dirfmt {
	uint32_t block_size;
	uint32_t end;          /* where entries end in a block of them: block_size, less the tail */
	uint32_t csum_seed;    /* of the file system */
	uint32_t inodes_count; /* entries name 1 … inodes_count */
	uint32_t blocks_max;   /* a directory may not have more blocks than this */
	uint32_t seed[4];
	uint8_t hash_version;  /* for new indexes: EXT2_HASH_LEGACY … EXT2_HASH_TEA */
	uint8_t hash_unsigned; /* added to a version on disk: 0, or 3 */
	uint8_t levels_max;    /* index levels below the root: 1, or 2 with large_dir */
	bool has_csum, has_filetype, has_index, has_nlink;
};

struct ext4_hash {
	uint32_t major; /* even; what the index is sorted by */
	uint32_t minor;
};

/* @version: as on disk plus fmt->hash_unsigned. */
void ext4_name_hash(const struct ext4_dirfmt *f, uint8_t version, const char *name, uint32_t len, struct ext4_hash *h);

/* ---- a block of entries: dirblk.c ----------------------------------------------------------------------------------- */

enum { EXT4_DENT_HEAD = 8, EXT4_DENT_MIN = 12, EXT4_DIR_TAIL = 12, EXT4_DENT_MAX = 264, EXT4_NO_OFF = 0xffffffffu };

struct ext4_dent {
	uint32_t off, rec_len;
	uint32_t ino; /* 0: unused */
	const char *name;
	uint8_t len;
	uint8_t type; /* EXT2_FT_*; 0 without the filetype feature */
};

/* Bytes that an entry with such a name takes. */
static inline uint32_t ext4_dent_size(uint32_t name_len)
{
	return (EXT4_DENT_HEAD + name_len + 3) & ~3u;
}

/* rec_len on disk <-> bytes. Only blocks of 64 KiB need more than the number itself. */
static inline uint32_t ext4_rec_len_get(uint32_t block_size, const uint8_t *entry)
{
	le16 raw;
	uint32_t v;

	memcpy(&raw, entry + 4, sizeof raw);
	v = le16_get(raw);
	if (block_size < 65536)
		return v;
	return v == 65535 || v == 0 ? block_size : v;
}

static inline void ext4_rec_len_put(uint32_t block_size, uint8_t *entry, uint32_t len)
{
	le16 raw = le16_of(len == 65536 && block_size == 65536 ? 65535 : (uint16_t)len);

	memcpy(entry + 4, &raw, sizeof raw);
}

/* The entry at @off; 1, 0 at the end of the block, -EUCLEAN. The next one is at d->off + d->rec_len. */
int ext4_dirblk_next(const struct ext4_dirfmt *f, const uint8_t *b, uint32_t off, struct ext4_dent *d);
/* Is what an entry in use says a name, and of an inode that there can be? */
bool ext4_dent_ok(const struct ext4_dirfmt *f, const struct ext4_dent *d);
/* The whole structure, names included. 0 or -EUCLEAN. */
int ext4_dirblk_check(const struct ext4_dirfmt *f, const uint8_t *b);
/* The entry with this name (@len > 0): 1 and *d, 0 not here, -EUCLEAN. *prev: offset of the entry before it, or EXT4_NO_OFF. */
int ext4_dirblk_find(const struct ext4_dirfmt *f, const uint8_t *b, const char *name, uint32_t len, struct ext4_dent *d,
		     uint32_t *prev);
/* The first entry that can take in a name of @len bytes, EXT4_NO_OFF if none can. The block was checked. */
uint32_t ext4_dirblk_room(const struct ext4_dirfmt *f, const uint8_t *b, uint32_t len);
/* Bytes not needed by entries: what compacting would bring together. The block was checked. */
uint32_t ext4_dirblk_free(const struct ext4_dirfmt *f, const uint8_t *b);
/* Puts a name into the room that ext4_dirblk_room() found. -EUCLEAN when it is not there. */
int ext4_dirblk_insert(const struct ext4_dirfmt *f, uint8_t *b, uint32_t room, const char *name, uint32_t len,
		       uint32_t ino, uint8_t type);
/* The entry before takes the place; the first of a block becomes unused. -EUCLEAN when they are no neighbours. */
int ext4_dirblk_remove(const struct ext4_dirfmt *f, uint8_t *b, uint32_t off, uint32_t prev);
/* The entries at @from and behind keep their order and move together in another block; all slack ends up in the last. */
void ext4_dirblk_compact(const struct ext4_dirfmt *f, const uint8_t *b, uint32_t from, uint8_t *to);
/* A block without names; and the first block of a directory. */
void ext4_dirblk_init(const struct ext4_dirfmt *f, uint8_t *b);
void ext4_dirblk_init_dots(const struct ext4_dirfmt *f, uint8_t *b, uint32_t ino, uint32_t parent);
/* Offset of ".." in the first block of a directory (of either kind); -EUCLEAN unless it begins with "." and "..". */
int ext4_dirblk_dotdot(const struct ext4_dirfmt *f, const uint8_t *b, struct ext4_dent *d);

/* The checksum in the tail. @seed: ext4_dir_seed(). Without metadata_csum true, and nothing. */
bool ext4_dirblk_csum_ok(const struct ext4_dirfmt *f, uint32_t seed, const uint8_t *b);
void ext4_dirblk_csum_set(const struct ext4_dirfmt *f, uint32_t seed, uint8_t *b);
uint32_t ext4_dir_seed(const struct ext4_dirfmt *f, uint32_t ino, uint32_t gen);

/* Room for the sort of one block: as many as entries fit. */
struct ext4_split {
	uint32_t hash;
	uint32_t off;
	uint32_t size;
};
static inline uint32_t ext4_split_max(const struct ext4_dirfmt *f)
{
	return f->block_size / EXT4_DENT_MIN;
}

/**
 * ext4_dirblk_split() - distribute a full leaf over two
 * @map:     scratch of ext4_split_max() elements
 * @h, @len: hash and length of the name that needs room; room for it is left in the half it belongs to
 * @lo, @hi: out: the halves, tails without checksum; neither is @b
 * @at:      out: the pair's hash for @hi, odd when continued; the name belongs into hi when h >= (*at & ~1)
 *
 * Names of one hash stay together where the halves allow it.
 *
 * Return: 0; -EUCLEAN; -ENOSPC when there are fewer than two names.
 */
int ext4_dirblk_split(const struct ext4_dirfmt *f, uint8_t version, const uint8_t *b, struct ext4_split *map,
		      uint32_t h, uint32_t len, uint8_t *lo, uint8_t *hi, uint32_t *at);

/* ---- a block of the index: dxblk.c ----------------------------------------------------------------------------------- */

/* A root or node whose structure was checked. */
struct ext4_dx {
	const uint8_t *b;
	uint16_t head; /* offset of the pairs */
	uint16_t count, limit;
};

/* *version: with hash_unsigned added; *levels: below the root. 0 or -EUCLEAN. */
int ext4_dx_root(const struct ext4_dirfmt *f, const uint8_t *b, struct ext4_dx *x, uint8_t *version, uint8_t *levels);
int ext4_dx_node(const struct ext4_dirfmt *f, const uint8_t *b, struct ext4_dx *x);
/* Are the hashes sorted? Looked at once per block, as the checksum is. */
bool ext4_dx_sorted(const struct ext4_dx *x);

static inline uint32_t ext4_dx_hash(const struct ext4_dx *x, uint32_t i)
{
	le32 v;

	memcpy(&v, x->b + x->head + i * 8, sizeof v);
	return i ? le32_get(v) : 0;
}

static inline uint32_t ext4_dx_block(const struct ext4_dx *x, uint32_t i)
{
	le32 v;

	memcpy(&v, x->b + x->head + i * 8 + 4, sizeof v);
	return le32_get(v) & 0x0fffffff; /* the upper bits are reserved */
}

/* The last pair whose hash is <= h. */
uint32_t ext4_dx_search(const struct ext4_dx *x, uint32_t h);

/* The writers work on @b, a copy of the block that @x describes, and keep count and limit in it right. */
void ext4_dx_insert(uint8_t *b, struct ext4_dx *x, uint32_t after, uint32_t hash, uint32_t block);
/* The upper half of @b's pairs moves to the new node @hi; returns the hash of its first pair. */
uint32_t ext4_dx_split(const struct ext4_dirfmt *f, uint8_t *b, struct ext4_dx *x, uint8_t *hi);
/* All pairs of the root move to the new node @node, which becomes the root's only one; one level more. */
void ext4_dx_deepen(const struct ext4_dirfmt *f, uint8_t *root, struct ext4_dx *x, uint8_t *node, uint32_t node_lblk);
/* A root of one pair, made from the first block of a linear directory. */
void ext4_dx_init_root(const struct ext4_dirfmt *f, uint8_t *b, uint32_t ino, uint32_t parent, uint32_t leaf);

bool ext4_dx_csum_ok(const struct ext4_dirfmt *f, uint32_t seed, const struct ext4_dx *x);
void ext4_dx_csum_set(const struct ext4_dirfmt *f, uint32_t seed, uint8_t *b, const struct ext4_dx *x);

/* ---- a directory: dir.c, htree.c -------------------------------------------------------------------------------------- */

/* Per file system. The scratch belongs to whoever holds fs->mu. */
struct ext4_names {
	struct ext4_dirfmt fmt;
	uint8_t *scratch[3]; /* one block each */
	struct ext4_split *split;
	/* Directories that changed their parent so far: while it stands still, so do all paths. Written under fs->mu. */
	atomic_uint_least64_t moves;
};

static inline const struct ext4_dirfmt *ext4_dirfmt_of(struct ext4_node *dir)
{
	return &ext4_fs_of_node(dir)->names->fmt;
}

enum ext4_blk { EXT4_BLK_LEAF, EXT4_BLK_ROOT, EXT4_BLK_NODE };

/* Where a name is, or where it could go. Valid until the directory changes. */
struct ext4_place {
	uint32_t lblk;
	uint32_t off, prev; /* found: the entry and the one before (EXT4_NO_OFF: none) */
	uint32_t room;      /* not found: the entry that can take it in, EXT4_NO_OFF when there is none in lblk */
	uint32_t ino;
	uint8_t type;
};

/* One that folds case is sorted by the hashes of folded names, which we do not make: it is searched as if it had no index. */
static inline bool ext4_dir_hashed(struct ext4_node *dir) REQUIRES_SHARED(dir->rw)
{
	return dir->inode.i_flags & EXT2_INDEX_FL && ext4_dirfmt_of(dir)->has_index &&
	       !(dir->inode.i_flags & EXT4_CASEFOLD_FL);
}

/* Blocks of the directory; 0 is damage, or a directory kept inside its inode: inline.c. */
static inline uint64_t ext4_dir_blocks(struct ext4_node *dir) REQUIRES_SHARED(dir->rw)
{
	return EXT2_I_SIZE(&dir->inode) >> ext4_fs_of_node(dir)->block_bits;
}

/* The directory changes, or leaves memory: its order of entries goes. readdir.c */
void ext4_order_drop(struct ext4_node *dir);

/* Pins a block and checks it: structure that memory safety rests on always, everything once per block and node. */
int ext4_dir_pin(struct ext4_node *dir, uint32_t lblk, enum ext4_blk kind, unsigned flags, struct cache_seg *seg)
	REQUIRES_SHARED(dir->rw);
/* A block of the index of a directory that is searched without it. */
bool ext4_dir_is_index(struct ext4_node *dir, uint32_t lblk, const uint8_t *b) REQUIRES_SHARED(dir->rw);
/* Sets the checksum in @b and writes it. */
int ext4_dir_write(struct ext4_node *dir, uint32_t lblk, enum ext4_blk kind, uint8_t *b) REQUIRES(dir->rw);
int ext4_dir_append(struct ext4_node *dir, uint32_t *lblk) REQUIRES(dir->rw);

/* 1 found, 0 not (@p->lblk: where it would be, in a hashed directory), negative errno. With @make, a place for it is looked for as well. */
int ext4_dir_find(struct ext4_node *dir, const char *name, uint32_t len, unsigned flags, bool make,
		  struct ext4_place *p) REQUIRES_SHARED(dir->rw);
/* As ext4_dir_find() with @make where it is known that the name is not there, and that it would be in block @lblk. */
int ext4_dir_room(struct ext4_node *dir, uint32_t lblk, uint32_t len, unsigned flags, struct ext4_place *p)
	REQUIRES_SHARED(dir->rw);
/* The name is not there: @p is what ext4_dir_find() said, with @make. -ENOSPC. */
int ext4_dir_insert(struct ext4_node *dir, const struct ext4_place *p, const char *name, uint32_t len, uint32_t ino,
		    uint8_t type) REQUIRES(dir->rw);
int ext4_dir_remove(struct ext4_node *dir, const struct ext4_place *p) REQUIRES(dir->rw);
int ext4_dir_replace(struct ext4_node *dir, const struct ext4_place *p, uint32_t ino, uint8_t type) REQUIRES(dir->rw);
/* 1 when only "." and ".." are left, 0, negative errno. */
int ext4_dir_is_empty(struct ext4_node *dir) REQUIRES_SHARED(dir->rw);
int ext4_dir_parent(struct ext4_node *dir, unsigned flags, uint32_t *ino) REQUIRES_SHARED(dir->rw);
int ext4_dir_set_parent(struct ext4_node *dir, uint32_t ino) REQUIRES(dir->rw);
/* The first block of a new directory. */
int ext4_dir_make(struct ext4_node *dir, uint32_t parent) REQUIRES(dir->rw);

/* Directories that lie in their inode: inline.c. *ino of a name, or -ENOENT. */
int ext4_inline_find(struct ext4_node *dir, const char *name, uint32_t len, uint32_t *ino) REQUIRES_SHARED(dir->rw);
int ext4_inline_parent(struct ext4_node *dir, uint32_t *ino) REQUIRES_SHARED(dir->rw);
/* False ends the listing. */
typedef bool ext4_inline_emit(void *arg, const struct ext4_dent *d, uint64_t cookie);
int ext4_inline_list(struct ext4_node *dir, uint64_t cookie, ext4_inline_emit *emit, void *arg)
	REQUIRES_SHARED(dir->rw);

/* The way from the root to a leaf. Pins everything but the leaf. */
enum { EXT4_DX_DEPTH = 3 };
struct ext4_dx_path {
	struct {
		struct cache_seg pin;
		struct ext4_dx x;
		uint32_t lblk, idx;
	} at[EXT4_DX_DEPTH];
	uint8_t depth; /* of at[] in use */
	uint8_t version;
	uint64_t steps; /* leaves that may still be visited: what ends a walk through an index that leads in circles */
};

/* Pins the root: what hash function is it? Then down to the first leaf that may hold hash @h. The path is released by
 * ext4_dx_drop(), after errors too. */
int ext4_dx_open(struct ext4_node *dir, unsigned flags, struct ext4_dx_path *p) REQUIRES_SHARED(dir->rw);
int ext4_dx_descend(struct ext4_node *dir, uint32_t h, unsigned flags, struct ext4_dx_path *p) REQUIRES_SHARED(dir->rw);
static inline uint32_t ext4_dx_leaf(const struct ext4_dx_path *p)
{
	return ext4_dx_block(&p->at[p->depth - 1].x, p->at[p->depth - 1].idx);
}
/* The hash of the path's leaf's pair, over all levels. */
uint32_t ext4_dx_here(const struct ext4_dx_path *p);
/* The hash of the pair after the path's, over all levels: 1, or 0 when it is the last. */
int ext4_dx_peek(const struct ext4_dx_path *p, uint32_t *h);
/* To the next leaf: 1, or 0 when there is none, negative errno. */
int ext4_dx_step(struct ext4_node *dir, unsigned flags, struct ext4_dx_path *p) REQUIRES_SHARED(dir->rw);
void ext4_dx_drop(struct ext4_dx_path *p);

int ext4_htree_find(struct ext4_node *dir, const char *name, uint32_t len, unsigned flags, bool make,
		    struct ext4_place *p) REQUIRES_SHARED(dir->rw);
/* Makes room and inserts. */
int ext4_htree_insert(struct ext4_node *dir, const char *name, uint32_t len, uint32_t ino, uint8_t type)
	REQUIRES(dir->rw);
/* The one block of a linear directory is full: it becomes a hashed one of three. The entry is then inserted. */
int ext4_htree_convert(struct ext4_node *dir, const char *name, uint32_t len, uint32_t ino, uint8_t type)
	REQUIRES(dir->rw);

/* ---- the operations: namei.c, rename.c ---------------------------------------------------------------------------------- */

enum { EXT4_LINKS_MAX = 65000 };

/* Nodes locked exclusively together, under fs->mu. That alone makes it safe; the order is there for those who check
 * locks by order. @n: filled by the caller, NULLs and repetitions allowed. */
struct ext4_lockset {
	struct ext4_node *n[4];
};
/* False (FS_NOWAIT): one of them is held by somebody else; then none is. */
bool ext4_lockset_take(struct ext4_lockset *s, unsigned flags);
void ext4_lockset_drop(struct ext4_lockset *s);

/* May entries of @dir be added, may this one be taken out? -ENOENT, -EPERM. */
int ext4_may_add(struct ext4_node *dir) REQUIRES_SHARED(dir->rw);
int ext4_may_remove(struct ext4_node *dir, struct ext4_node *victim) REQUIRES_SHARED(dir->rw)
	REQUIRES_SHARED(victim->rw);
/* A directory that gives its project to what is made in it takes in nothing of another. */
bool ext4_same_project(struct ext4_node *dir, struct ext4_node *n) REQUIRES_SHARED(dir->rw) REQUIRES_SHARED(n->rw);
/* 0 when one more subdirectory may be counted, -EMLINK. */
int ext4_dir_links_ok(struct ext4_node *dir) REQUIRES_SHARED(dir->rw);
void ext4_dir_links_up(struct ext4_node *dir) REQUIRES(dir->rw);
void ext4_dir_links_down(struct ext4_node *dir) REQUIRES(dir->rw);
/* An entry that named @n is gone. */
void ext4_name_gone(struct ext4_node *n) REQUIRES(n->rw);
/* EXT2_FT_* */
uint8_t ext4_dent_type(enum fs_type t);
void ext4_cinfo(const struct ext4_node *dir, uint64_t before, struct fs_cinfo *ci) REQUIRES_SHARED(dir->rw);

#endif

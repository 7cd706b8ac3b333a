/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dir.c - a directory as a whole: blocks verified on first use, names found, put in and taken out
 *
 * Verification. A block's checksum and whole structure are looked at once in the life of its node (ext4_checked has a bit
 * per block); what memory safety rests on is looked at on every use, so a block that changes on the disk behind the cache
 * can lead to a wrong answer but never astray. Blocks that we write count as verified.
 *
 * A directory begins linear with one block. With dir_index it becomes hashed when the second block is needed; a linear
 * one with more blocks than one (made by mke2fs -d, or without dir_index) stays linear for ever, as in Linux. Blocks are
 * never given back.
 */
#include "vhd/ext4/dir_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vhd/base/checked.h"

/* ---- what was verified ------------------------------------------------------------------------------------------------ */

enum { CHECKED_MAX = 1 << 20 }; /* blocks remembered: 128 KiB of bits; later ones are verified each time */

struct ext4_checked_more {
	uint32_t words;
	atomic_uint_least64_t bits[]; /* from block 64 on */
};

static bool is_checked(struct ext4_checked *c, uint32_t lblk)
{
	struct ext4_checked_more *m;

	if (lblk < 64)
		return atomic_load_explicit(&c->first, memory_order_relaxed) >> lblk & 1;
	m = atomic_load_explicit(&c->more, memory_order_acquire);
	lblk -= 64;
	return m && lblk / 64 < m->words &&
	       atomic_load_explicit(&m->bits[lblk / 64], memory_order_relaxed) >> lblk % 64 & 1;
}

/* Room for @blocks, installed unless somebody else was quicker. */
static struct ext4_checked_more *more_new(struct ext4_checked *c, uint64_t blocks)
{
	uint32_t words = (uint32_t)(min_u64(blocks, CHECKED_MAX) / 64 + 1);
	struct ext4_checked_more *m = calloc(1, sizeof *m + words * sizeof m->bits[0]), *old = NULL;

	if (!m)
		return NULL;
	m->words = words;
	if (atomic_compare_exchange_strong_explicit(&c->more, &old, m, memory_order_acq_rel, memory_order_acquire))
		return m;
	free(m);
	return old;
}

/* @blocks: of the directory now. Forgetting is harmless: the block is verified again. */
static void set_checked(struct ext4_checked *c, uint32_t lblk, uint64_t blocks)
{
	struct ext4_checked_more *m;

	if (lblk < 64) {
		atomic_fetch_or_explicit(&c->first, 1ull << lblk, memory_order_relaxed);
		return;
	}
	m = atomic_load_explicit(&c->more, memory_order_acquire);
	if (!m && !(m = more_new(c, blocks + blocks / 2)))
		return;
	lblk -= 64;
	if (lblk / 64 < m->words)
		atomic_fetch_or_explicit(&m->bits[lblk / 64], 1ull << lblk % 64, memory_order_relaxed);
}

/* The directory grew to @blocks. Nobody else looks: its lock is held exclusively. */
static void grow_checked(struct ext4_checked *c, uint64_t blocks)
{
	struct ext4_checked_more *m = atomic_load_explicit(&c->more, memory_order_relaxed), *n;

	if (!m || blocks <= 64 + m->words * 64ull || m->words > CHECKED_MAX / 64)
		return;
	atomic_store_explicit(&c->more, NULL, memory_order_relaxed);
	n = more_new(c, blocks + blocks / 2);
	if (n)
		for (uint32_t i = 0; i < m->words; i++)
			n->bits[i] = m->bits[i];
	free(m);
}

void ext4_dir_forget(struct ext4_node *n)
{
	ext4_order_drop(n);
	free(atomic_exchange(&n->checked.more, NULL));
	atomic_store(&n->checked.first, 0);
}

/* ---- blocks ------------------------------------------------------------------------------------------------------------- */

static uint32_t seed_of(struct ext4_node *dir) REQUIRES_SHARED(dir->rw)
{
	return ext4_dir_seed(ext4_dirfmt_of(dir), (uint32_t)dir->n.ino, dir->inode.i_generation);
}

bool ext4_dir_is_index(struct ext4_node *dir, uint32_t lblk, const uint8_t *b)
{
	const struct ext4_dirfmt *f = ext4_dirfmt_of(dir);
	const uint32_t folded = EXT2_INDEX_FL | EXT4_CASEFOLD_FL;
	le32 ino;

	if ((dir->inode.i_flags & folded) != folded || !f->has_index)
		return false;
	memcpy(&ino, b, sizeof ino);
	/* Only with a tail is a block without entries something else than a node; without one both are skipped. */
	return !lblk || (!le32_get(ino) && ext4_rec_len_get(f->block_size, b) == f->block_size);
}

/* What is looked at once. */
static int verify(struct ext4_node *dir, uint32_t lblk, enum ext4_blk kind, const uint8_t *b) REQUIRES_SHARED(dir->rw)
{
	const struct ext4_dirfmt *f = ext4_dirfmt_of(dir);
	uint8_t version, levels;
	struct ext4_dx x;
	int err;

	if (kind == EXT4_BLK_LEAF && ext4_dir_is_index(dir, lblk, b))
		return 0;
	if (kind == EXT4_BLK_LEAF)
		return ext4_dirblk_csum_ok(f, seed_of(dir), b) ? ext4_dirblk_check(f, b) : -EUCLEAN;
	err = kind == EXT4_BLK_ROOT ? ext4_dx_root(f, b, &x, &version, &levels) : ext4_dx_node(f, b, &x);
	if (err)
		return err;
	return ext4_dx_csum_ok(f, seed_of(dir), &x) && ext4_dx_sorted(&x) ? 0 : -EUCLEAN;
}

int ext4_dir_pin(struct ext4_node *dir, uint32_t lblk, enum ext4_blk kind, unsigned flags, struct cache_seg *seg)
{
	int err = ext4_bpin(dir, lblk, flags, seg);

	if (err || is_checked(&dir->checked, lblk))
		return err;
	err = verify(dir, lblk, kind, seg->base);
	if (err)
		cache_unpin(seg, 1);
	else
		set_checked(&dir->checked, lblk, ext4_dir_blocks(dir));
	return err;
}

int ext4_dir_write(struct ext4_node *dir, uint32_t lblk, enum ext4_blk kind, uint8_t *b)
{
	const struct ext4_dirfmt *f = ext4_dirfmt_of(dir);
	uint8_t version, levels;
	struct ext4_dx x;
	int err;

	ext4_order_drop(dir);
	if (kind == EXT4_BLK_LEAF) {
		ext4_dirblk_csum_set(f, seed_of(dir), b);
	} else {
		err = kind == EXT4_BLK_ROOT ? ext4_dx_root(f, b, &x, &version, &levels) : ext4_dx_node(f, b, &x);
		if (err)
			return err;
		ext4_dx_csum_set(f, seed_of(dir), b, &x);
	}
	err = ext4_bwrite(dir, lblk, b);
	if (!err)
		set_checked(&dir->checked, lblk, ext4_dir_blocks(dir));
	return err;
}

int ext4_dir_append(struct ext4_node *dir, uint32_t *lblk)
{
	int err;

	if (ext4_dir_blocks(dir) >= ext4_dirfmt_of(dir)->blocks_max)
		return -ENOSPC;
	err = ext4_bappend(dir, lblk);
	if (!err)
		grow_checked(&dir->checked, ext4_dir_blocks(dir));
	return err;
}

/* ---- linear directories -------------------------------------------------------------------------------------------------- */

static int linear_find(struct ext4_node *dir, const char *name, uint32_t len, unsigned flags, bool make,
		       struct ext4_place *p) REQUIRES_SHARED(dir->rw)
{
	const struct ext4_dirfmt *f = ext4_dirfmt_of(dir);
	uint64_t blocks = ext4_dir_blocks(dir);
	int r = blocks ? 0 : -EUCLEAN;

	for (uint32_t lblk = 0; !r && lblk < min_u64(blocks, f->blocks_max); lblk++) {
		struct cache_seg seg;
		struct ext4_dent d = {.off = 0};

		r = ext4_dir_pin(dir, lblk, EXT4_BLK_LEAF, flags, &seg);
		if (r)
			return r;
		if (!ext4_dir_is_index(dir, lblk, seg.base))
			r = ext4_dirblk_find(f, seg.base, name, len, &d, &p->prev);
		if (r > 0) {
			p->lblk = lblk;
			p->off = d.off;
			p->ino = d.ino;
			p->type = d.type;
		} else if (!r && make && p->room == EXT4_NO_OFF) {
			p->lblk = lblk;
			p->room = ext4_dirblk_room(f, seg.base, len);
		}
		cache_unpin(&seg, 1);
	}
	return r;
}

static int linear_grow(struct ext4_node *dir, const char *name, uint32_t len, uint32_t ino, uint8_t type)
	REQUIRES(dir->rw)
{
	struct ext4_names *names = ext4_fs_of_node(dir)->names;
	uint8_t *b = names->scratch[0];
	uint32_t lblk;
	int err;

	ext4_dirblk_init(&names->fmt, b);
	err = ext4_dirblk_insert(&names->fmt, b, 0, name, len, ino, type);
	if (!err)
		err = ext4_dir_append(dir, &lblk);
	if (!err)
		err = ext4_dir_write(dir, lblk, EXT4_BLK_LEAF, b);
	return err;
}

/* ---- both ------------------------------------------------------------------------------------------------------------------ */

int ext4_dir_find(struct ext4_node *dir, const char *name, uint32_t len, unsigned flags, bool make,
		  struct ext4_place *p)
{
	*p = (struct ext4_place){.room = EXT4_NO_OFF, .prev = EXT4_NO_OFF};
	if (!len || len > EXT2_NAME_LEN)
		return len ? -ENAMETOOLONG : -EINVAL;
	return ext4_dir_hashed(dir) ? ext4_htree_find(dir, name, len, flags, make, p)
				    : linear_find(dir, name, len, flags, make, p);
}

int ext4_dir_room(struct ext4_node *dir, uint32_t lblk, uint32_t len, unsigned flags, struct ext4_place *p)
{
	struct cache_seg seg;
	int err = ext4_dir_pin(dir, lblk, EXT4_BLK_LEAF, flags, &seg);

	if (err)
		return err;
	*p = (struct ext4_place){.lblk = lblk, .prev = EXT4_NO_OFF};
	p->room = ext4_dirblk_room(ext4_dirfmt_of(dir), seg.base, len);
	cache_unpin(&seg, 1);
	return 0;
}

uint64_t ext4_dir_new_gen(void)
{
	static atomic_uint_least64_t last;

	return atomic_fetch_add_explicit(&last, 1, memory_order_relaxed) + 1;
}

static void changed(struct ext4_node *dir) REQUIRES(dir->rw)
{
	dir->dir_gen = ext4_dir_new_gen();
}

/* A copy of a leaf to work on: scratch[0]. */
static int copy_leaf(struct ext4_node *dir, uint32_t lblk, uint8_t **b) REQUIRES_SHARED(dir->rw)
{
	struct ext4_names *names = ext4_fs_of_node(dir)->names;
	struct cache_seg seg;
	int err = ext4_dir_pin(dir, lblk, EXT4_BLK_LEAF, 0, &seg);

	if (err)
		return err;
	*b = names->scratch[0];
	memcpy(*b, seg.base, names->fmt.block_size);
	cache_unpin(&seg, 1);
	return 0;
}

int ext4_dir_insert(struct ext4_node *dir, const struct ext4_place *p, const char *name, uint32_t len, uint32_t ino,
		    uint8_t type)
{
	const struct ext4_dirfmt *f = ext4_dirfmt_of(dir);
	uint8_t *b;
	int err;

	if (p->room == EXT4_NO_OFF) {
		if (ext4_dir_hashed(dir))
			err = ext4_htree_insert(dir, name, len, ino, type);
		else if (f->has_index && ext4_dir_blocks(dir) == 1)
			err = ext4_htree_convert(dir, name, len, ino, type);
		else
			err = linear_grow(dir, name, len, ino, type);
	} else {
		err = copy_leaf(dir, p->lblk, &b);
		if (!err)
			err = ext4_dirblk_insert(f, b, p->room, name, len, ino, type);
		if (!err)
			err = ext4_dir_write(dir, p->lblk, EXT4_BLK_LEAF, b);
	}
	if (err)
		return err;
	/* Whoever changes an index without knowing of it must say so, or the next one trusts it. */
	if (!f->has_index && dir->inode.i_flags & EXT2_INDEX_FL)
		dir->inode.i_flags &= ~(uint32_t)EXT2_INDEX_FL;
	changed(dir);
	return 0;
}

int ext4_dir_remove(struct ext4_node *dir, const struct ext4_place *p)
{
	uint8_t *b;
	int err = copy_leaf(dir, p->lblk, &b);

	if (!err)
		err = ext4_dirblk_remove(ext4_dirfmt_of(dir), b, p->off, p->prev);
	if (!err)
		err = ext4_dir_write(dir, p->lblk, EXT4_BLK_LEAF, b);
	if (!err)
		changed(dir);
	return err;
}

static void set_ino(const struct ext4_dirfmt *f, uint8_t *entry, uint32_t ino, uint8_t type)
{
	le32 raw = le32_of(ino);

	memcpy(entry, &raw, sizeof raw);
	if (f->has_filetype)
		entry[7] = type;
}

int ext4_dir_replace(struct ext4_node *dir, const struct ext4_place *p, uint32_t ino, uint8_t type)
{
	const struct ext4_dirfmt *f = ext4_dirfmt_of(dir);
	struct ext4_dent d;
	uint8_t *b;
	int err = copy_leaf(dir, p->lblk, &b);

	if (err)
		return err;
	if (ext4_dirblk_next(f, b, p->off, &d) != 1)
		return -EUCLEAN;
	set_ino(f, b + p->off, ino, type);
	err = ext4_dir_write(dir, p->lblk, EXT4_BLK_LEAF, b);
	if (!err)
		changed(dir);
	return err;
}

/* 1 when a block holds no name but "." and "..". */
static int block_is_empty(const struct ext4_dirfmt *f, const uint8_t *b)
{
	struct ext4_dent d;
	int r;

	for (uint32_t off = 0; (r = ext4_dirblk_next(f, b, off, &d)) > 0; off += d.rec_len)
		if (d.ino && !(d.len <= 2 && memcmp(d.name, "..", d.len) == 0))
			return 0;
	return r ? r : 1;
}

static int leaf_is_empty(struct ext4_node *dir, uint32_t lblk) REQUIRES_SHARED(dir->rw)
{
	struct cache_seg seg;
	int r = ext4_dir_pin(dir, lblk, EXT4_BLK_LEAF, 0, &seg);

	if (r)
		return r;
	r = block_is_empty(ext4_dirfmt_of(dir), seg.base);
	cache_unpin(&seg, 1);
	return r;
}

static int hashed_is_empty(struct ext4_node *dir) REQUIRES_SHARED(dir->rw)
{
	struct ext4_dx_path p;
	int empty = 1, r = ext4_dx_open(dir, 0, &p);

	if (!r)
		r = ext4_dx_descend(dir, 0, 0, &p);
	for (r = r ? r : 1; r > 0 && empty > 0;) {
		empty = leaf_is_empty(dir, ext4_dx_leaf(&p));
		r = ext4_dx_step(dir, 0, &p);
	}
	ext4_dx_drop(&p);
	return r < 0 && empty > 0 ? r : empty;
}

int ext4_dir_is_empty(struct ext4_node *dir)
{
	uint64_t blocks = min_u64(ext4_dir_blocks(dir), ext4_dirfmt_of(dir)->blocks_max);
	int r = blocks ? 1 : -EUCLEAN;

	if (ext4_dir_hashed(dir))
		return hashed_is_empty(dir);
	for (uint32_t lblk = 0; r == 1 && lblk < blocks; lblk++)
		r = leaf_is_empty(dir, lblk);
	return r;
}

/* The first block, of either kind, pinned, and its "..". */
static int pin_dotdot(struct ext4_node *dir, unsigned flags, struct cache_seg *seg, struct ext4_dent *d)
	REQUIRES_SHARED(dir->rw)
{
	int err = ext4_dir_pin(dir, 0, ext4_dir_hashed(dir) ? EXT4_BLK_ROOT : EXT4_BLK_LEAF, flags, seg);

	if (err)
		return err;
	err = ext4_dirblk_dotdot(ext4_dirfmt_of(dir), seg->base, d);
	if (err)
		cache_unpin(seg, 1);
	return err;
}

int ext4_dir_parent(struct ext4_node *dir, unsigned flags, uint32_t *ino)
{
	struct cache_seg seg;
	struct ext4_dent d;
	int err;

	if (ext4_is_inline(dir))
		return ext4_inline_parent(dir, ino);
	err = pin_dotdot(dir, flags, &seg, &d);
	if (err)
		return err;
	*ino = d.ino;
	cache_unpin(&seg, 1);
	return 0;
}

int ext4_dir_set_parent(struct ext4_node *dir, uint32_t ino)
{
	struct ext4_names *names = ext4_fs_of_node(dir)->names;
	uint8_t *b = names->scratch[0];
	struct cache_seg seg;
	struct ext4_dent d;
	int err = pin_dotdot(dir, 0, &seg, &d);

	if (err)
		return err;
	memcpy(b, seg.base, names->fmt.block_size);
	cache_unpin(&seg, 1);
	set_ino(&names->fmt, b + d.off, ino, EXT2_FT_DIR);
	err = ext4_dir_write(dir, 0, ext4_dir_hashed(dir) ? EXT4_BLK_ROOT : EXT4_BLK_LEAF, b);
	if (!err)
		changed(dir);
	return err;
}

int ext4_dir_make(struct ext4_node *dir, uint32_t parent)
{
	struct ext4_names *names = ext4_fs_of_node(dir)->names;
	uint8_t *b = names->scratch[0];
	uint32_t lblk;
	int err = ext4_dir_append(dir, &lblk);

	if (err)
		return err;
	ext4_dirblk_init_dots(&names->fmt, b, (uint32_t)dir->n.ino, parent);
	return ext4_dir_write(dir, lblk, EXT4_BLK_LEAF, b);
}

/* ---- per file system ------------------------------------------------------------------------------------------------------ */

static void read_format(struct ext4_fs *fs, struct ext4_dirfmt *f) NO_THREAD_SAFETY
{
	ext2_filsys e2 = fs->e2; /* mounting: nobody else is there */
	struct ext2_super_block *sb = e2->super;
	bool large = ext2fs_has_feature_largedir(sb);

	*f = (struct ext4_dirfmt){
		.block_size = fs->block_size,
		.end = fs->block_size - (fs->has_csum ? EXT4_DIR_TAIL : 0),
		.csum_seed = e2->csum_seed,
		.inodes_count = sb->s_inodes_count,
		.hash_version = sb->s_def_hash_version <= EXT2_HASH_TEA ? sb->s_def_hash_version : EXT2_HASH_HALF_MD4,
		.hash_unsigned = sb->s_flags & EXT2_FLAGS_UNSIGNED_HASH ? 3 : 0,
		.levels_max = large ? 2 : 1,
		.has_csum = fs->has_csum,
		.has_filetype = ext2fs_has_feature_filetype(sb),
		.has_index = ext2fs_has_feature_dir_index(sb),
		.has_nlink = ext2fs_has_feature_dir_nlink(sb),
	};
	/* Without large_dir i_size has 32 bits, and tools take it for signed. The index has 28 bits for a block. */
	f->blocks_max = large ? 1u << 28 : 1u << (31 - fs->block_bits);
	memcpy(f->seed, sb->s_hash_seed, sizeof f->seed);
}

int ext4_names_init(struct ext4_fs *fs)
{
	struct ext4_names *names = calloc(1, sizeof *names);

	if (!names)
		return -ENOMEM;
	fs->names = names;
	read_format(fs, &names->fmt);
	names->split = calloc(ext4_split_max(&names->fmt), sizeof *names->split);
	for (unsigned i = 0; i < ARRAY_LEN(names->scratch); i++)
		names->scratch[i] = malloc(fs->block_size);
	if (names->split && names->scratch[0] && names->scratch[1] && names->scratch[2])
		return 0;
	ext4_names_fini(fs);
	return -ENOMEM;
}

void ext4_names_fini(struct ext4_fs *fs)
{
	struct ext4_names *names = fs->names;

	if (!names)
		return;
	for (unsigned i = 0; i < ARRAY_LEN(names->scratch); i++)
		free(names->scratch[i]);
	free(names->split);
	free(names);
	fs->names = NULL;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * extent.c - between the map in memory and the inode's tree on disk
 *
 * Entries of the map that the tree does not have (EXT_PENDING) are inserted as whole runs; unwritten extents of the tree
 * that were written (EXT_CONVERT) are split and changed as whole runs. Inodes of ext2 and ext3 have indirect blocks instead
 * of extents: there libext2fs sets block by block. All under fs->mu.
 */
#include <errno.h>
#include <stdlib.h>

#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/log.h"
#include "vhd/base/zero.h"
#include "vhd/ext4/journal.h"

/* What one step of a long change may add to a transaction: blocks of the tree, bitmaps and descriptors of the groups it touches. */
#define STEP_STORE 32u
#define STEP_PUNCH 160u
#define PUNCH_EXTENTS 32u
#define PUNCH_BLOCKS 65536u
#define RUN_INIT 32768u   /* blocks of one extent on disk */
#define RUN_UNINIT 32767u /* of an unwritten one */
/* Blocks of numbers that are filled in one step: each costs itself, and the block that make_indirect() gives back. */
#define RUN_INDIRECT 8u

static struct ext2_inode *small(struct ext4_node *n)
{
	return (struct ext2_inode *)&n->inode;
}

static bool has_extents(const struct ext4_node *n)
{
	return n->inode.i_flags & EXT4_EXTENTS_FL;
}

/* ---- loading ----------------------------------------------------------------------------------------------------------- */

/* @count: blocks of the file system. */
static bool inside(const struct ext2_super_block *s, uint64_t count, uint64_t pblk, uint64_t len)
{
	return pblk >= s->s_first_data_block && range_ok(pblk, len, count);
}

static int add_checked(struct ext4_node *n, struct ext4_map *m, const struct ext4_ext *e)
{
	struct ext2_super_block *s = ext4_fs_of_node(n)->e2->super;
	const struct ext4_ext *last = m->n ? &m->e[m->n - 1] : NULL;

	if (!inside(s, ext2fs_blocks_count(s), e->pblk, e->len) || (uint64_t)e->lblk + e->len > UINT32_MAX)
		return -EUCLEAN;
	/* They come in their order, or two are for one block. */
	if (last && (uint64_t)last->lblk + last->len > e->lblk)
		return -EUCLEAN;
	return ext4_map_set(m, e);
}

static int load_extents(struct ext4_node *n, struct ext4_map *m)
{
	ext2_filsys e2 = ext4_fs_of_node(n)->e2;
	ext2_extent_handle_t h;
	struct ext2fs_extent x;
	uint64_t limit = 2 * ext2fs_blocks_count(e2->super) + 16; /* a tree of loops ends here */
	errcode_t e = ext2fs_extent_open2(e2, (ext2_ino_t)n->n.ino, small(n), &h);
	int err = 0;

	if (e)
		return ext4_errno(e);
	for (int op = EXT2_EXTENT_ROOT; !err; op = EXT2_EXTENT_NEXT) {
		e = ext2fs_extent_get(h, op, &x);
		if (e == EXT2_ET_EXTENT_NO_NEXT || e == EXT2_ET_NO_CURRENT_NODE)
			break;
		if (e || limit-- == 0) {
			err = e ? ext4_errno(e) : -EUCLEAN;
		} else if (x.e_flags & EXT2_EXTENT_FLAGS_LEAF && x.e_len) {
			const struct ext4_ext run = {
				.pblk = x.e_pblk,
				.lblk = (uint32_t)x.e_lblk,
				.len = x.e_len,
				.flags = x.e_flags & EXT2_EXTENT_FLAGS_UNINIT ? EXT_UNWRITTEN : 0,
			};

			err = x.e_lblk > UINT32_MAX ? -EUCLEAN : add_checked(n, m, &run);
		}
	}
	ext2fs_extent_free(h);
	return err;
}

struct indirect {
	struct ext4_node *n;
	struct ext4_map *m;
	struct u64map seen; /* blocks of numbers */
	int err;
};

/* One that is used twice would stand for much more data than the image has: three blocks, for 16 million runs and more. */
static int number_block(struct indirect *in, uint64_t pblk)
{
	in->err = u64map_get(&in->seen, pblk) ? -EUCLEAN : u64map_put(&in->seen, pblk, 1);
	return in->err ? BLOCK_ABORT : 0;
}

static int indirect_block(ext2_filsys e2, blk64_t *pblk, e2_blkcnt_t lblk, blk64_t ref, int ref_off, void *arg)
{
	struct indirect *in = arg;
	const struct ext4_ext run = {.pblk = *pblk, .lblk = (uint32_t)lblk, .len = 1};

	(void)e2;
	(void)ref;
	(void)ref_off;
	if (lblk < 0)
		return number_block(in, *pblk);
	if (lblk > UINT32_MAX - 1)
		return 0;
	in->err = add_checked(in->n, in->m, &run);
	return in->err ? BLOCK_ABORT : 0;
}

static int load_indirect(struct ext4_node *n, struct ext4_map *m)
{
	struct indirect in = {.n = n, .m = m};
	errcode_t e = ext2fs_block_iterate3(ext4_fs_of_node(n)->e2, (ext2_ino_t)n->n.ino, BLOCK_FLAG_READ_ONLY, NULL,
					    indirect_block, &in);

	u64map_free(&in.seen);
	return in.err ? in.err : ext4_errno(e);
}

/* The first such inode of a file system is told; who asks for it again and again does not fill the log. */
static int check_zones(struct ext4_node *n, const struct ext4_map *m)
{
	struct ext4_fs *fs = ext4_fs_of_node(n);

	for (uint32_t i = 0; i < m->n; i++) {
		if (!ext4_in_zones(fs, m->e[i].pblk, m->e[i].len))
			continue;
		if (!atomic_exchange(&fs->told, true))
			log_warn("ext4: inode %llu: its block %u is one of the file system's own (%llu); not served",
				 (unsigned long long)n->n.ino, m->e[i].lblk, (unsigned long long)m->e[i].pblk);
		return -EUCLEAN;
	}
	return 0;
}

int ext4_map_load(struct ext4_node *n)
{
	struct ext4_map *m = calloc(1, sizeof *m);
	int err = 0;

	if (!m)
		return -ENOMEM;
	/* Short symbolic links, special files and what lies in its inode keep other things in i_block. */
	if (ext4_is_inline(n))
		;
	else if (n->n.type == FS_REG || n->n.type == FS_DIR ||
		 (n->n.type == FS_LNK && !ext2fs_is_fast_symlink(small(n))))
		err = has_extents(n) ? load_extents(n, m) : load_indirect(n, m);
	if (!err)
		err = check_zones(n, m);
	if (err) {
		ext4_map_free(m);
		return err;
	}
	ext4_map_free(n->map);
	n->map = m;
	return 0;
}

/* ---- storing ------------------------------------------------------------------------------------------------------------ */

/* Insert a run where the tree has a hole, joining it to the extent before when it continues it. */
static errcode_t insert_run(ext2_extent_handle_t h, const struct ext4_ext *run)
{
	bool uninit = run->flags & EXT_UNWRITTEN;
	struct ext2fs_extent x, cur;
	errcode_t e = ext2fs_extent_goto(h, run->lblk);

	x = (struct ext2fs_extent){
		.e_pblk = run->pblk,
		.e_lblk = run->lblk,
		.e_len = run->len,
		.e_flags = uninit ? EXT2_EXTENT_FLAGS_UNINIT : 0,
	};
	if (!e)
		return EXT2_ET_EXTENT_NOT_FOUND; /* it is there: map and tree disagree */
	if (e != EXT2_ET_EXTENT_NOT_FOUND)
		return e;
	e = ext2fs_extent_get(h, EXT2_EXTENT_CURRENT, &cur);
	if (e == EXT2_ET_NO_CURRENT_NODE)
		return ext2fs_extent_insert(h, 0, &x);
	if (e)
		return e;
	if (cur.e_flags & EXT2_EXTENT_FLAGS_LEAF && cur.e_lblk + cur.e_len == x.e_lblk &&
	    cur.e_pblk + cur.e_len == x.e_pblk && !(cur.e_flags & EXT2_EXTENT_FLAGS_UNINIT) == !uninit &&
	    cur.e_len + x.e_len <= (uninit ? RUN_UNINIT : RUN_INIT)) {
		cur.e_len += x.e_len;
		return ext2fs_extent_replace(h, 0, &cur);
	}
	e = ext2fs_extent_insert(h, cur.e_lblk < x.e_lblk ? EXT2_EXTENT_INSERT_AFTER : 0, &x);
	return e ? e : ext2fs_extent_fix_parents(h);
}

/* There was no room for a new extent: @x as it was in place of what begins there now. */
static void put_back(ext2_extent_handle_t h, const struct ext2fs_extent *x)
{
	struct ext2fs_extent was = *x;

	if (!ext2fs_extent_goto(h, x->e_lblk))
		(void)ext2fs_extent_replace(h, 0, &was);
}

/* The first part of an unwritten extent of the tree, as much of the run as lies in it, becomes written; or all stays as it is. */
static errcode_t convert_part(ext2_extent_handle_t h, const struct ext4_ext *run, uint32_t *done)
{
	struct ext2fs_extent x, mid, right, was;
	uint64_t x_end, end;
	errcode_t e = ext2fs_extent_goto(h, run->lblk);

	if (!e)
		e = ext2fs_extent_get(h, EXT2_EXTENT_CURRENT, &x);
	if (e)
		return e;
	x_end = x.e_lblk + x.e_len;
	end = min_u64(x_end, (uint64_t)run->lblk + run->len);
	*done = (uint32_t)(end - run->lblk);
	if (!(x.e_flags & EXT2_EXTENT_FLAGS_UNINIT))
		return 0;
	was = mid = right = x;
	mid.e_lblk = run->lblk;
	mid.e_pblk = x.e_pblk + (run->lblk - x.e_lblk);
	mid.e_len = *done;
	mid.e_flags &= ~(__u32)EXT2_EXTENT_FLAGS_UNINIT;
	right.e_lblk = end;
	right.e_pblk = x.e_pblk + (end - x.e_lblk);
	right.e_len = (__u32)(x_end - end);
	if (mid.e_lblk > x.e_lblk) {
		x.e_len = (__u32)(mid.e_lblk - x.e_lblk);
		e = ext2fs_extent_replace(h, 0, &x);
		if (!e)
			e = ext2fs_extent_insert(h, EXT2_EXTENT_INSERT_AFTER, &mid);
	} else {
		e = ext2fs_extent_replace(h, 0, &mid);
	}
	if (!e && right.e_len) {
		e = ext2fs_extent_insert(h, EXT2_EXTENT_INSERT_AFTER, &right);
		if (e && mid.e_lblk > was.e_lblk && !ext2fs_extent_goto(h, mid.e_lblk))
			(void)ext2fs_extent_delete(h, 0);
	}
	if (e)
		put_back(h, &was);
	return e ? e : ext2fs_extent_fix_parents(h);
}

/* BMAP_SET does not make indirect blocks, BMAP_ALLOC does, together with a data block that is not wanted. */
static errcode_t make_indirect(struct ext4_node *n, uint32_t lblk)
{
	ext2_filsys e2 = ext4_fs_of_node(n)->e2;
	blk64_t extra = 0, none = 0;
	errcode_t e = ext2fs_bmap2(e2, (ext2_ino_t)n->n.ino, small(n), NULL, BMAP_ALLOC, lblk, NULL, &extra);

	if (!e)
		e = ext2fs_bmap2(e2, (ext2_ino_t)n->n.ino, small(n), NULL, BMAP_SET, lblk, NULL, &none);
	if (e)
		return e;
	ext2fs_iblk_sub_blocks(e2, small(n), 1);
	ext2fs_block_alloc_stats2(e2, extra, -1);
	return 0;
}

static errcode_t set_indirect(struct ext4_node *n, const struct ext4_ext *run)
{
	ext2_filsys e2 = ext4_fs_of_node(n)->e2;

	for (uint32_t i = 0; i < run->len; i++) {
		blk64_t p = run->pblk + i;
		errcode_t e = ext2fs_bmap2(e2, (ext2_ino_t)n->n.ino, small(n), NULL, BMAP_SET, run->lblk + i, NULL, &p);

		if (e == EXT2_ET_SET_BMAP_NO_IND && !(e = make_indirect(n, run->lblk + i)))
			e = ext2fs_bmap2(e2, (ext2_ino_t)n->n.ino, small(n), NULL, BMAP_SET, run->lblk + i, NULL, &p);
		if (e)
			return e;
	}
	return 0;
}

/* One entry of the map, in pieces that fit an extent on disk; *done says how far it came, which is not always to the end: the
 * transaction was full. */
static errcode_t store_entry(struct ext4_node *n, ext2_extent_handle_t h, const struct ext4_ext *entry,
			     uint32_t *done) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	ext2_filsys e2 = fs->e2;
	uint32_t max = entry->flags & EXT_UNWRITTEN ? RUN_UNINIT : RUN_INIT;

	if (!h)
		max = RUN_INDIRECT * (fs->block_size / 4);
	for (*done = 0; *done < entry->len;) {
		struct ext4_ext run = *entry;
		uint32_t part;
		errcode_t e;

		if (*done && !ext4_journal_room(fs, STEP_STORE))
			return 0;
		run.lblk += *done;
		run.pblk += *done;
		run.len = part = entry->len - *done < max ? entry->len - *done : max;
		if (!h)
			e = set_indirect(n, &run);
		else if (run.flags & EXT_PENDING)
			e = insert_run(h, &run);
		else
			e = convert_part(h, &run, &part);
		/* The data goes first, or a crash would show what was in the blocks before. */
		if (!e && n->n.type == FS_REG && !(run.flags & EXT_UNWRITTEN))
			ext4_journal_order(fs, run.pblk, part, true);
		if (!e && run.flags & EXT_PENDING) {
			ext2fs_block_alloc_stats_range(e2, run.pblk, part, +1);
			ext4_blocks_touched(fs, run.pblk, part);
			ext2fs_iblk_add_blocks(e2, small(n), part);
			n->pending_blocks -= part;
		}
		if (e)
			return e;
		*done += part;
	}
	return 0;
}

/* The tree is stored up to lblk, and there is no room for more: what there is becomes one transaction. */
static int store_restart(struct ext4_node *n, uint64_t lblk) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	int err;

	n->stored_size = max_u64(n->stored_size, min_u64(ext4_size(&n->inode), lblk << fs->block_bits));
	err = ext4_node_store_inode(n);
	return err ? err : ext4_journal_restart(fs);
}

/* The entries that the tree has not. */
static int store_entries(struct ext4_node *n, ext2_extent_handle_t h) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	struct ext4_map *m = n->map;
	bool any = false;

	for (uint32_t i = 0; i < m->n; i++) {
		struct ext4_ext part = m->e[i];
		uint32_t done;
		errcode_t e;
		int err;

		if (!(part.flags & (EXT_PENDING | EXT_CONVERT)))
			continue;
		if (any && !ext4_journal_room(fs, STEP_STORE) && (err = store_restart(n, part.lblk)) < 0)
			return err;
		e = store_entry(n, h, &part, &done);
		if (e)
			return ext4_errno(e);
		any = true;
		if (done == part.len) {
			m->e[i].flags &= (uint32_t)EXT_UNWRITTEN;
			continue;
		}
		part.len = done;
		part.flags &= (uint32_t)EXT_UNWRITTEN;
		if ((err = ext4_map_set(m, &part)) < 0 || (err = store_restart(n, (uint64_t)part.lblk + done)) < 0)
			return err;
		i = UINT32_MAX; /* from the beginning: the entries have moved */
	}
	return 0;
}

int ext4_map_store(struct ext4_node *n)
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	struct ext4_map *m = n->map;
	ext2_extent_handle_t h = NULL;
	errcode_t e = 0;
	uint32_t out = 0;
	int err;

	if (!n->map_dirty || !m)
		return 0;
	if (has_extents(n))
		e = ext2fs_extent_open2(fs->e2, (ext2_ino_t)n->n.ino, small(n), &h);
	err = e ? ext4_errno(e) : store_entries(n, h);
	if (h)
		ext2fs_extent_free(h);
	if (err)
		return err;
	n->map_dirty = false;
	n->stored_size = ext4_size(&n->inode);
	/* Entries that were stored may continue each other now. */
	for (uint32_t i = 1; i < m->n; i++) {
		struct ext4_ext *a = &m->e[out], *b = &m->e[i];

		if ((uint64_t)a->lblk + a->len == b->lblk && a->pblk + a->len == b->pblk && a->flags == b->flags)
			a->len += b->len;
		else
			m->e[++out] = *b;
	}
	m->n = m->n ? out + 1 : 0;
	return 0;
}

/* ---- punching ------------------------------------------------------------------------------------------------------------ */

/* [from, to) goes of what @p leads to: a block of data, or, @level above it, one of block numbers. The first logical block behind it is
 * @at. A block of numbers that leads nowhere any more goes too, and is not written. */
static errcode_t punch_level(struct ext4_node *n, uint32_t *p, unsigned level, uint64_t at, uint64_t from,
			     uint64_t to) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	uint64_t per = fs->block_size / 4, span = level ? 1 : 0;
	AUTO(freep) uint32_t *b = NULL;
	errcode_t e = 0, e_write;
	bool changed = false;

	if (!*p || at >= to)
		return 0;
	for (unsigned i = 1; i < level; i++)
		span *= per;
	if (at + max_u64(1, span * per) <= from)
		return 0;
	if (level) {
		if (!(b = malloc(fs->block_size)))
			return EXT2_ET_NO_MEMORY;
		e = ext2fs_read_ind_block(fs->e2, *p, b);
		for (uint32_t i = 0; i < per && !e; i++) {
			uint32_t was = b[i];

			e = punch_level(n, &b[i], level - 1, at + i * span, from, to);
			changed |= b[i] != was;
		}
		if (e || !mem_is_zero(b, fs->block_size)) {
			e_write = changed ? ext2fs_write_ind_block(fs->e2, *p, b) : 0;
			return e ? e : e_write;
		}
	}
	ext2fs_block_alloc_stats2(fs->e2, *p, -1);
	ext2fs_iblk_sub_blocks(fs->e2, small(n), 1);
	*p = 0;
	return 0;
}

/* The library's own (1.47.0) frees blocks behind the range, or leaves some of it, as soon as it ends in another block of numbers than
 * it begins in, or not with that block's end. */
static errcode_t punch_indirect(struct ext4_node *n, uint32_t lblk, uint64_t end) NO_THREAD_SAFETY
{
	uint64_t per = ext4_fs_of_node(n)->block_size / 4, at = 0, span = 1;
	errcode_t e = 0;

	ext4_node_dirty(n);
	for (unsigned i = 0; i < EXT2_N_BLOCKS && !e; i++) {
		unsigned level = i < EXT2_NDIR_BLOCKS ? 0 : i - EXT2_NDIR_BLOCKS + 1;

		span = level ? span * per : 1;
		e = punch_level(n, &n->inode.i_block[i], level, at, lblk, end);
		at += span;
	}
	return e;
}

/* Whether or not it became the first of its leaf: indexes above say where the leaf begins. */
static errcode_t fix_index(ext2_extent_handle_t h, uint64_t lblk)
{
	errcode_t e = ext2fs_extent_goto(h, lblk);

	return e ? e : ext2fs_extent_fix_parents(h);
}

/* [from, to) of the extent at h goes. @next: where the tree goes on behind it, or 0. */
static errcode_t take_out(ext2_extent_handle_t h, const struct ext2fs_extent *x, uint64_t from, uint64_t to,
			  uint64_t next)
{
	struct ext2fs_extent left = *x, right = *x;
	uint64_t x_end = x->e_lblk + x->e_len;
	errcode_t e;

	left.e_len = (__u32)(from - x->e_lblk);
	right.e_lblk = to;
	right.e_pblk += to - x->e_lblk;
	right.e_len = (__u32)(x_end - to);
	if (!left.e_len && !right.e_len) {
		e = ext2fs_extent_delete(h, 0);
		return e || !next ? e : fix_index(h, next);
	}
	if (!left.e_len) {
		e = ext2fs_extent_replace(h, 0, &right);
		return e ? e : fix_index(h, to);
	}
	e = ext2fs_extent_replace(h, 0, &left);
	if (!e && right.e_len && (e = ext2fs_extent_insert(h, EXT2_EXTENT_INSERT_AFTER, &right)))
		put_back(h, x);
	return !e && right.e_len ? fix_index(h, to) : e;
}

/* What is cached of a run that is being freed, before it is: then another file may put data there. Not what the file has to have should
 * there be a crash before that is committed: data that the transaction before promises, and has not written yet; and metadata that is in
 * the log but not at home, where a checkpoint brings it (its commit forgets it). */
static void forget_data(struct ext4_node *n, uint64_t pblk, uint64_t len) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);

	if (!fs->journal || (n->n.type == FS_REG && !ext4_journal_owes(fs, pblk, len)))
		cache_discard(fs->dev, pblk << fs->block_bits, len << fs->block_bits);
}

/* From the last extent of the range to the first, in a file system of @count blocks. (The library's own way, 1.47.0, gives up when a
 * range is exactly a leaf, and frees block by block.) The map has been cut. */
static errcode_t punch_extents(struct ext4_node *n, uint32_t lblk, uint64_t end, uint64_t count) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	ext2_extent_handle_t h;
	struct ext2fs_extent x;
	struct ext4_ext behind;
	uint64_t next = 0;
	errcode_t e = ext2fs_extent_open2(fs->e2, (ext2_ino_t)n->n.ino, small(n), &h);

	if (e)
		return e;
	ext4_map_at(n->map, lblk, UINT32_MAX - lblk, &behind);
	if (!behind.pblk && (uint64_t)behind.lblk + behind.len < UINT32_MAX)
		next = (uint64_t)behind.lblk + behind.len;
	while (!e) {
		uint64_t from, to;

		e = ext2fs_extent_goto(h, end - 1);
		if (e && e != EXT2_ET_EXTENT_NOT_FOUND)
			break;
		e = ext2fs_extent_get(h, EXT2_EXTENT_CURRENT, &x);
		if (e == EXT2_ET_NO_CURRENT_NODE || (!e && (x.e_lblk >= end || x.e_lblk + x.e_len <= lblk))) {
			e = 0;
			break;
		}
		/* A damaged image may have changed since the map was read: another file's data may lie on the tree. */
		if (!e && (!x.e_len || !inside(fs->e2->super, count, x.e_pblk, x.e_len)))
			e = EXT2_ET_EXTENT_LEAF_BAD;
		if (e)
			break;
		from = max_u64(x.e_lblk, lblk);
		to = min_u64(x.e_lblk + x.e_len, end);
		e = take_out(h, &x, from, to, next);
		if (e)
			break;
		forget_data(n, x.e_pblk + (from - x.e_lblk), to - from);
		ext4_blocks_freed(fs, x.e_pblk + (from - x.e_lblk), to - from);
		ext2fs_iblk_sub_blocks(fs->e2, small(n), to - from);
		end = from;
		if (end <= lblk)
			break;
	}
	ext2fs_extent_free(h);
	return e;
}

/* The checks in libext2fs 1.47.0 are one off: it does not free the last block of a file system. */
static errcode_t punch_tree(struct ext4_node *n, uint32_t lblk, uint64_t end, bool last_block)
{
	ext2_filsys e2 = ext4_fs_of_node(n)->e2;
	uint64_t count = ext2fs_blocks_count(e2->super);
	errcode_t e;

	if (last_block)
		ext2fs_blocks_count_add(e2->super, 1);
	e = has_extents(n) ? punch_extents(n, lblk, min_u64(end, UINT64_C(1) << 32), count)
			   : punch_indirect(n, lblk, end);
	if (last_block)
		ext2fs_blocks_count_add(e2->super, (blk64_t)-1);
	return e;
}

/* Where the last step of [lblk, end) begins: not too many extents, nor blocks. */
static uint32_t last_step(const struct ext4_map *m, uint32_t lblk, uint64_t end)
{
	uint64_t blocks = 0, from = lblk;
	unsigned extents = 0;

	for (uint32_t i = m->n; i-- > 0;) {
		const struct ext4_ext *x = &m->e[i];
		uint64_t x_end = min_u64((uint64_t)x->lblk + x->len, end), x_from = max_u64(x->lblk, lblk);

		if (x_from >= x_end)
			continue;
		from = x_end - x_from > PUNCH_BLOCKS - blocks ? x_end - (PUNCH_BLOCKS - blocks) : x_from;
		blocks += x_end - from;
		if (++extents == PUNCH_EXTENTS || blocks == PUNCH_BLOCKS)
			break;
		if (i == 0 || (uint64_t)m->e[i - 1].lblk + m->e[i - 1].len <= lblk)
			from = lblk;
	}
	return (uint32_t)from;
}

static int punch_step(struct ext4_node *n, uint32_t lblk, uint64_t end) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	bool last_block = false;
	int err;

	for (uint32_t i = 0; i < n->map->n; i++) {
		const struct ext4_ext *x = &n->map->e[i];
		uint64_t from = max_u64(x->lblk, lblk), to = min_u64((uint64_t)x->lblk + x->len, end);

		last_block |= x->pblk + x->len == ext2fs_blocks_count(fs->e2->super);
		if (from < to && !has_extents(n))
			forget_data(n, x->pblk + (from - x->lblk), to - from);
	}
	if ((err = ext4_map_cut(n->map, lblk, end)) < 0)
		return err;
	err = ext4_errno(punch_tree(n, lblk, end, last_block));
	/* What there was no room to part stays, and may not be taken for a hole. */
	if (err && has_extents(n))
		(void)ext4_map_load(n);
	return err;
}

/* What the tree does not have of a part that goes need not be put there first: there may be no room for that. */
static void forget_pending(struct ext4_node *n, uint32_t lblk) NO_THREAD_SAFETY
{
	ext4_map_undo(n, lblk);
	for (uint32_t i = n->map->n; i-- > 0 && n->map->e[i].lblk >= lblk;)
		if (n->map->e[i].flags & EXT_CONVERT)
			n->map->e[i].flags = EXT_UNWRITTEN;
}

int ext4_map_punch(struct ext4_node *n, uint32_t lblk, uint64_t end) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	bool cuts = end > UINT32_MAX;
	int err;

	if (lblk >= end)
		return 0;
	ext4_drop_window(n);
	if (cuts)
		forget_pending(n, lblk);
	if ((err = ext4_map_store(n)) < 0)
		return err;
	for (uint32_t from; !err && lblk < end; end = from) {
		from = last_step(n->map, lblk, end);
		if (!ext4_journal_room(fs, STEP_PUNCH)) {
			/* After a crash now, somebody must go on with it. */
			if (cuts)
				ext4_orphan_add(n);
			if ((err = ext4_node_store_inode(n)) < 0 || (err = ext4_journal_restart(fs)) < 0)
				break;
		}
		err = punch_step(n, from, end);
	}
	return err;
}

void ext4_map_undo(struct ext4_node *n, uint32_t lblk)
{
	struct ext4_fs *fs = ext4_fs_of_node(n);

	ext4_drop_window(n);
	for (uint32_t i = n->map->n; i-- > 0 && (uint64_t)n->map->e[i].lblk + n->map->e[i].len > lblk;) {
		const struct ext4_ext x = n->map->e[i];
		uint32_t keep = x.lblk < lblk ? lblk - x.lblk : 0;

		if (!(x.flags & EXT_PENDING))
			continue;
		if (keep)
			n->map->e[i].len = keep;
		else if (ext4_map_cut(n->map, x.lblk, (uint64_t)x.lblk + x.len) < 0)
			continue; /* it stays: blocks that a file has are not free */
		cache_discard(fs->dev, (x.pblk + keep) << fs->block_bits, (uint64_t)(x.len - keep) << fs->block_bits);
		ext4_alloc_free(fs, x.pblk + keep, x.len - keep);
		n->pending_blocks -= x.len - keep;
	}
}

/* ---- directories ----------------------------------------------------------------------------------------------------------- */

int ext4_bmap(struct ext4_node *n, uint32_t lblk, unsigned flags, uint64_t *pblk)
{
	struct ext4_ext run;

	(void)flags;
	if (!n->map) /* directories have theirs from the start */
		return -EAGAIN;
	ext4_map_at(n->map, lblk, 1, &run);
	*pblk = run.flags & EXT_UNWRITTEN ? 0 : run.pblk;
	return 0;
}

int ext4_bpin(struct ext4_node *n, uint32_t lblk, unsigned flags, struct cache_seg *seg)
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	uint64_t pblk;
	int err = ext4_bmap(n, lblk, flags, &pblk);

	if (err)
		return err;
	if (!pblk)
		return -EUCLEAN;
	err = cache_pin(fs->dev, pblk << fs->block_bits, fs->block_size,
			CACHE_META | (flags & FS_NOWAIT ? CACHE_NOWAIT : 0), seg, 1);
	return err < 0 ? err : 0;
}

int ext4_bwrite(struct ext4_node *n, uint32_t lblk, const void *block) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	uint64_t pblk;
	int err = ext4_bmap(n, lblk, 0, &pblk);

	if (err)
		return err;
	return pblk ? ext4_meta_write(fs, block, fs->block_size, pblk << fs->block_bits) : -EUCLEAN;
}

int ext4_bappend(struct ext4_node *n, uint32_t *lblk)
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	const struct ext4_ext *last = n->map->n ? &n->map->e[n->map->n - 1] : NULL;
	struct ext4_ext run = {.flags = EXT_PENDING};
	uint64_t blocks = ext4_size(&n->inode) >> fs->block_bits;
	uint64_t goal = last ? last->pblk + last->len : ext4_goal_of_inode(fs, n->n.ino);
	int err;

	if (blocks >= UINT32_MAX - 1)
		return -EFBIG;
	run.lblk = (uint32_t)blocks;
	if ((err = ext4_alloc_run(fs, goal, 1, false, &run.pblk, &run.len)) < 0)
		return err;
	if ((err = ext4_map_set(n->map, &run)) < 0) {
		ext4_alloc_free(fs, run.pblk, 1);
		return err;
	}
	n->pending_blocks++;
	n->map_dirty = true;
	if ((err = ext4_map_store(n)) < 0) {
		ext4_map_undo(n, run.lblk);
		return err;
	}
	ext4_set_size(n, (blocks + 1) << fs->block_bits);
	ext4_node_dirty(n);
	*lblk = run.lblk;
	return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * tx.c - the brackets around an operation, and what libext2fs's own bookkeeping changed
 *
 * The library would write every bitmap and descriptor of the file system at each flush. Here its callbacks mark the groups
 * that an operation touched, and ext4_write_groups() writes those.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vhd/base/log.h"
#include "vhd/ext4/journal.h"

/* Room in the running transaction. Inodes that it must store yet are counted as a block each; once stored, many share one. */
static int make_room(struct ext4_fs *fs, unsigned credits, unsigned flags) REQUIRES(fs->mu)
{
	int err;

	if (ext4_journal_room(fs, credits))
		return 0;
	if (flags & FS_NOWAIT)
		return -EAGAIN;
	err = ext4_store_logged(fs);
	if (err) {
		ext4_journal_fail(fs, err, "storing inodes");
		return -EIO;
	}
	return ext4_journal_room(fs, credits) ? 0 : -EAGAIN;
}

int ext4_may_change(struct ext4_fs *fs)
{
	if (__builtin_expect(atomic_load_explicit(&fs->failed, memory_order_relaxed), 0))
		return -EIO;
	return __builtin_expect(atomic_load_explicit(&fs->full, memory_order_relaxed), 0) ? -ENOSPC : 0;
}

int ext4_op_begin(struct ext4_fs *fs, unsigned credits, unsigned flags) NO_THREAD_SAFETY
{
	if (fs->fs.read_only)
		return -EROFS;
	for (;;) {
		uint64_t tid;
		int err;

		if (!(flags & FS_NOWAIT))
			lock_take(&fs->mu);
		else if (cache_is_full(fs->dev) || !lock_try_soon(&fs->mu))
			return -EAGAIN;
		err = ext4_may_change(fs);
		if (!err)
			err = make_room(fs, credits, flags);
		if (!err) {
			fs->meta_seq++;
			fs->op_changes = fs->changes;
			return 0;
		}
		tid = ext4_journal_running(fs);
		lock_drop(&fs->mu);
		if (err != -EAGAIN || flags & FS_NOWAIT)
			return err;
		if ((err = ext4_journal_wait(fs, tid)) < 0)
			return err;
	}
}

/* What this thread changed last: ext4_op_changed() asks right after the operation. */
static _Thread_local struct {
	const struct ext4_fs *fs;
	uint64_t tid;
} last_change;

uint64_t ext4_op_changed(struct fs *f)
{
	struct ext4_fs *fs = ext4_fs_of(f);
	uint64_t tid = last_change.fs == fs && !fs->async ? last_change.tid : 0;

	last_change.fs = NULL;
	return tid;
}

int ext4_op_when_stable(struct fs *f, uint64_t change, struct fs_waiter *w)
{
	return ext4_journal_when(ext4_fs_of(f), change, w);
}

int ext4_op_end(struct ext4_fs *fs, int err) NO_THREAD_SAFETY
{
	/* The disk failed under an operation that had changed something: half of it must not be committed. */
	if (fs->journal && (err == -EIO || err == -ENOMEM) && fs->changes != fs->op_changes)
		ext4_journal_fail(fs, err, "an operation could not be completed");
	last_change.fs = fs;
	last_change.tid = ext4_journal_running(fs);
	lock_drop(&fs->mu);
	return err;
}

/* ---- hooks ---------------------------------------------------------------------------------------------------------------- */

void ext4_group_touched(struct ext4_fs *fs, uint32_t group, uint8_t what)
{
	fs->changes++;
	fs->ngroups_dirty += !fs->group_dirty[group];
	fs->group_dirty[group] |= what | GROUP_DESC;
	fs->super_dirty = true;
}

void ext4_blocks_touched(struct ext4_fs *fs, uint64_t pblk, uint64_t len)
{
	dgrp_t first = ext2fs_group_of_blk2(fs->e2, pblk), last = ext2fs_group_of_blk2(fs->e2, pblk + len - 1);

	for (dgrp_t g = first; g <= last; g++)
		ext4_group_touched(fs, g, GROUP_BLOCKS);
}

static void freed(struct ext4_fs *fs, uint64_t pblk, uint64_t len) REQUIRES(fs->mu)
{
	if (fs->journal)
		ext4_journal_freed(fs, pblk, len);
	else
		ext4_alloc_free(fs, pblk, len);
}

void ext4_blocks_freed(struct ext4_fs *fs, uint64_t pblk, uint64_t len)
{
	ext2fs_block_alloc_stats_range(fs->e2, pblk, (blk_t)len, -1);
	ext4_blocks_touched(fs, pblk, len);
	freed(fs, pblk, len);
}

/* The library took or freed a block: our bitmap follows when it was freed (it was asked for when it was taken). */
static void on_block(ext2_filsys e2, blk64_t blk, int inuse) NO_THREAD_SAFETY
{
	ext4_blocks_touched(e2->priv_data, blk, 1);
	if (inuse < 0)
		freed(e2->priv_data, blk, 1);
}

/* 1.47.0 calls this with the range already walked over, so with no length: who uses ranges says what it touched. */
static void on_range(ext2_filsys e2, blk64_t blk, blk_t num, int inuse) NO_THREAD_SAFETY
{
	if (!num)
		return;
	ext4_blocks_touched(e2->priv_data, blk, num);
	if (inuse < 0)
		freed(e2->priv_data, blk, num);
}

/* A metadata block that the library itself wants. */
static errcode_t on_alloc(ext2_filsys e2, blk64_t goal, blk64_t *out, struct blk_alloc_ctx *ctx)
{
	uint32_t got;
	uint64_t p;

	(void)ctx;
	if (ext4_alloc_run(e2->priv_data, goal, 1, false, &p, &got) < 0)
		return EXT2_ET_BLOCK_ALLOC_FAIL;
	*out = p;
	return 0;
}

static errcode_t on_alloc_plain(ext2_filsys e2, blk64_t goal, blk64_t *out)
{
	return on_alloc(e2, goal, out, NULL);
}

void ext4_tx_hooks(struct ext4_fs *fs)
{
	fs->e2->priv_data = fs;
	ext2fs_set_block_alloc_stats_callback(fs->e2, on_block, NULL);
	ext2fs_set_block_alloc_stats_range_callback(fs->e2, on_range, NULL);
	ext2fs_set_alloc_block_callback(fs->e2, on_alloc_plain, NULL);
}

/* ---- writing what changed --------------------------------------------------------------------------------------------------- */

static int write_block(struct ext4_fs *fs, uint64_t blk, const void *buf) REQUIRES(fs->mu)
{
	return ext4_meta_write(fs, buf, fs->block_size, blk << fs->block_bits);
}

static int write_block_bitmap(struct ext4_fs *fs, dgrp_t g, char *buf) REQUIRES(fs->mu)
{
	ext2_filsys e2 = fs->e2;
	int bytes = (int)(e2->super->s_clusters_per_group / 8);
	blk64_t first = ext2fs_group_first_block2(e2, g);
	errcode_t e;

	if (ext2fs_bg_flags_test(e2, g, EXT2_BG_BLOCK_UNINIT))
		return 0;
	memset(buf, 0xff, fs->block_size);
	e = ext2fs_get_block_bitmap_range2(e2->block_map, first, ext2fs_group_last_block2(e2, g) - first + 1, buf);
	if (e)
		return ext4_errno(e);
	/* Bits behind the end of the last group are ones. */
	for (blk64_t b = ext2fs_group_last_block2(e2, g) - first + 1; b < (blk64_t)bytes * 8; b++)
		ext2fs_fast_set_bit((unsigned)b, buf);
	ext2fs_block_bitmap_csum_set(e2, g, buf, bytes);
	return write_block(fs, ext2fs_block_bitmap_loc(e2, g), buf);
}

static int write_inode_bitmap(struct ext4_fs *fs, dgrp_t g, char *buf) REQUIRES(fs->mu)
{
	ext2_filsys e2 = fs->e2;
	uint32_t per = e2->super->s_inodes_per_group;
	int bytes = (int)((per + 7) / 8);
	errcode_t e;

	if (ext2fs_bg_flags_test(e2, g, EXT2_BG_INODE_UNINIT))
		return 0;
	memset(buf, 0xff, fs->block_size);
	e = ext2fs_get_inode_bitmap_range2(e2->inode_map, (__u64)g * per + 1, per, buf);
	if (e)
		return ext4_errno(e);
	ext2fs_inode_bitmap_csum_set(e2, g, buf, bytes);
	return write_block(fs, ext2fs_inode_bitmap_loc(e2, g), buf);
}

/* The descriptor's block in the primary table. */
static int write_desc_block(struct ext4_fs *fs, dgrp_t g) REQUIRES(fs->mu)
{
	ext2_filsys e2 = fs->e2;
	uint32_t per = (uint32_t)EXT2_DESC_PER_BLOCK(e2->super), i = g / per;
	blk64_t at = ext2fs_descriptor_block_loc2(e2, e2->super->s_first_data_block, i);

	return write_block(fs, at, (const char *)e2->group_desc + (size_t)i * fs->block_size);
}

int ext4_write_super(struct ext4_fs *fs)
{
	struct ext2_super_block *s = fs->e2->super;

	s->s_wtime = (uint32_t)time(NULL);
	ext2fs_superblock_csum_set(fs->e2, s);
	fs->super_dirty = false;
	fs->meta_seq++;
	return ext4_meta_write(fs, s, SUPERBLOCK_SIZE, SUPERBLOCK_OFFSET);
}

int ext4_write_groups(struct ext4_fs *fs)
{
	dgrp_t n = fs->e2->group_desc_count;
	char *buf;
	int err = 0;

	if (!fs->super_dirty)
		return 0;
	fs->meta_seq++;
	buf = malloc(fs->block_size);
	if (!buf)
		return -ENOMEM;
	for (dgrp_t g = 0; g < n && !err; g++) {
		if (!fs->group_dirty[g])
			continue;
		if (fs->group_dirty[g] & GROUP_BLOCKS)
			err = write_block_bitmap(fs, g, buf);
		if (!err && fs->group_dirty[g] & GROUP_INODES)
			err = write_inode_bitmap(fs, g, buf);
		ext2fs_group_desc_csum_set(fs->e2, g);
		if (!err)
			err = write_desc_block(fs, g);
		if (!err)
			fs->group_dirty[g] = 0;
	}
	free(buf);
	if (!err)
		fs->ngroups_dirty = 0;
	if (!err)
		err = ext4_write_super(fs);
	if (err)
		log_error("ext4: writing bitmaps and descriptors: %s", strerror(-err));
	return err;
}

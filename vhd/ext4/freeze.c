/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * freeze.c - a file system that stands still, clean on the disk as after an unmount
 *
 * Whoever copies the disk in between finds an empty journal and no sign that it was in use. Operations wait for fs->mu, which is
 * held; so does the committer, for the journal. Data that is overwritten in place goes on into the cache.
 */
#include "vhd/ext4/journal.h"

#include <errno.h>

/* The same order as at a mount: who finds the flag reads the journal, so the journal says "empty" while the flag changes. */
static int mark(struct ext4_fs *fs, bool in_use) NO_THREAD_SAFETY
{
	struct ext2_super_block *s = fs->e2->super;
	int err;

	if (fs->journal && in_use)
		ext2fs_set_feature_journal_needs_recovery(s);
	else if (fs->journal)
		ext2fs_clear_feature_journal_needs_recovery(s);
	if (in_use && (!fs->journal || fs->quota))
		s->s_state &= (uint16_t)~EXT2_VALID_FS;
	else if (!in_use && ext4_ends_valid(fs))
		s->s_state |= EXT2_VALID_FS;
	/* Past the running transaction, which is empty: what joined it would stay in memory until the next commit. */
	ext2fs_superblock_csum_set(fs->e2, s);
	err = cache_write(fs->dev, s, SUPERBLOCK_SIZE, SUPERBLOCK_OFFSET, CACHE_META);
	return err ? err : cache_flush(fs->dev);
}

static int mark_journal(struct ext4_fs *fs, uint32_t start)
{
	struct ext4_journal *j = fs->journal;
	int err;

	if (!j)
		return 0;
	j->super.start = be32_of(start);
	err = ext4_journal_write_super(j, fs->dev);
	return err ? err : cache_flush_device(fs->dev);
}

int ext4_journal_mark_used(struct ext4_fs *fs) NO_THREAD_SAFETY
{
	int err = mark(fs, true);

	if (!err)
		err = mark_journal(fs, fs->journal->head);
	fs->journal->unmarked = err != 0;
	return err;
}

/* All that was committed is home; write_mu is held when there is a journal, even on failure. */
static int go_home(struct ext4_fs *fs) NO_THREAD_SAFETY
{
	struct ext4_journal *j = fs->journal;
	int err = 0;

	if (!j)
		return ext4_write_groups(fs);
	if (!atomic_load(&fs->failed))
		err = ext4_journal_restart(fs);
	lock_take(&j->write_mu);
	if (atomic_load(&fs->failed))
		err = -EIO;
	return err ? err : ext4_journal_checkpoint_held(fs);
}

static void let_go(struct ext4_fs *fs) NO_THREAD_SAFETY
{
	if (fs->journal)
		lock_drop(&fs->journal->write_mu);
	lock_drop(&fs->mu);
}

int ext4_op_freeze(struct fs *f) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of(f);
	int err;

	/* Most of the work while others go on. */
	if (!f->read_only && (err = ext4_op_sync(f)) < 0)
		return err;
	lock_take(&fs->mu);
	if (f->read_only)
		return 0;
	if ((err = go_home(fs)) < 0) {
		let_go(fs); /* the log is what it was, and is needed */
		return err;
	}
	err = mark_journal(fs, 0);
	if (!err)
		err = mark(fs, false);
	if (err)
		ext4_op_thaw(f);
	return err;
}

void ext4_op_thaw(struct fs *f) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of(f);
	int err;

	if (f->read_only) {
		lock_drop(&fs->mu);
		return;
	}
	err = fs->journal ? ext4_journal_mark_used(fs) : mark(fs, true);
	if (err == -ENOSPC && fs->journal)
		ext4_journal_stall(fs, err);
	else if (err && fs->journal)
		ext4_journal_fail(fs, err, "going on after a snapshot");
	let_go(fs);
}

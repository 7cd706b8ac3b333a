/* SPDX-License-Identifier: BSD-3-Clause */
/* space.c - size, reservation, punching, owner and times: what changes an inode on purpose */
#include <errno.h>
#include <string.h>

#include "vhd/base/checked.h"
#include "vhd/ext4/journal.h"

#define CREDITS 64u

static int need_map(struct ext4_node *n) REQUIRES(n->rw) NO_THREAD_SAFETY
{
	return n->map ? 0 : ext4_map_load(n);
}

/* Zero [off, end) inside one block when it holds data. */
static int zero_within(struct ext4_node *n, uint64_t off, uint64_t end) REQUIRES(n->rw) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	struct ext4_ext run;

	if (off >= end)
		return 0;
	ext4_map_at(n->map, (uint32_t)(off >> fs->block_bits), 1, &run);
	if (!run.pblk || run.flags & EXT_UNWRITTEN)
		return 0;
	/* Before the new size, or what was there would come back when the file grows again. */
	ext4_journal_order(fs, run.pblk, 1, true);
	return cache_zero(fs->dev, (run.pblk << fs->block_bits) + (off & (fs->block_size - 1)), end - off, 0);
}

static int set_size(struct ext4_node *n, uint64_t size) REQUIRES(n->rw) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	uint64_t old = ext4_size(&n->inode), first = (size + fs->block_size - 1) >> fs->block_bits;
	int err;

	if (size > ext4_max_size(n))
		return -EFBIG;
	if ((err = need_map(n)) < 0)
		return err;
	if (size < old) {
		uint64_t edge = min_u64(round_up_u64(size, fs->block_size), round_up_u64(old, fs->block_size));

		if ((err = zero_within(n, size, edge)) < 0)
			return err;
		ext4_set_size(n, size); /* first: cutting may take several transactions */
		n->stored_size = min_u64(n->stored_size, size);
		n->tail_clean = false; /* until what is behind has gone */
		err = ext4_map_punch(n, (uint32_t)first, UINT64_C(1) << 32);
		n->tail_clean = !err;
		if (n->inode.i_links_count)
			ext4_orphan_remove(n);
		return err;
	}
	if ((err = ext4_clean_tail(n, size, 0)) < 0)
		return err;
	/* The size that is promised now is behind blocks that the tree has not. */
	if ((err = ext4_map_store(n)) < 0)
		return err;
	ext4_set_size(n, size);
	n->stored_size = size;
	return 0;
}

static void set_owner(struct ext2_inode_large *i, const struct fs_setattr *s)
{
	if (s->what & FS_SET_UID) {
		i->i_uid = (uint16_t)s->uid;
		i->osd2.linux2.l_i_uid_high = (uint16_t)(s->uid >> 16);
	}
	if (s->what & FS_SET_GID) {
		i->i_gid = (uint16_t)s->gid;
		i->osd2.linux2.l_i_gid_high = (uint16_t)(s->gid >> 16);
	}
	if (s->what & FS_SET_MODE)
		i->i_mode = (uint16_t)((i->i_mode & 0xf000) | (s->mode & 07777));
}

static void set_times(struct ext2_inode_large *i, const struct fs_setattr *s)
{
	struct fs_time now = ext4_now();

	if (s->what & (FS_SET_ATIME | FS_SET_ATIME_NOW))
		ext4_time_set(i, EXT4_T_A, s->what & FS_SET_ATIME ? &s->atime : &now);
	if (s->what & (FS_SET_MTIME | FS_SET_MTIME_NOW))
		ext4_time_set(i, EXT4_T_M, s->what & FS_SET_MTIME ? &s->mtime : &now);
}

/* Times may be set to now of what is append-only: that says no more than adding to it would. */
static int may_set(const struct ext4_node *n, unsigned what) REQUIRES_SHARED(n->rw)
{
	if (n->inode.i_flags & EXT2_IMMUTABLE_FL)
		return -EPERM;
	return n->inode.i_flags & EXT2_APPEND_FL && what & ~(unsigned)(FS_SET_ATIME_NOW | FS_SET_MTIME_NOW) ? -EPERM
													    : 0;
}

int ext4_op_setattr(struct fs_node *fn, const struct fs_setattr *s, struct fs_attr *after) NO_THREAD_SAFETY
{
	struct ext4_node *n = ext4_node_of(fn);
	struct ext4_fs *fs = ext4_fs_of_node(n);
	unsigned touch = EXT4_T_C;
	bool listed;
	int err;

	if (s->what & FS_SET_SIZE && fn->type != FS_REG)
		return fn->type == FS_DIR ? -EISDIR : -EINVAL;
	if ((err = ext4_op_begin(fs, CREDITS, 0)) < 0)
		return err;
	rwlock_write(&n->rw);
	err = may_set(n, s->what);
	if (!err && s->what & (FS_SET_SIZE | FS_SET_UID | FS_SET_GID) && fn->type != FS_DIR)
		err = ext4_caps_drop(n);
	listed = s->what & FS_SET_MODE && (n->inode.i_mode ^ s->mode) & 0777;
	if (!err && listed)
		err = ext4_acl_chmod(n, s->mode);
	if (!err && s->what & FS_SET_SIZE) {
		err = set_size(n, s->size);
		if (err && listed)
			(void)ext4_acl_chmod(n, n->inode.i_mode);
		touch |= s->what & (FS_SET_MTIME | FS_SET_MTIME_NOW) ? 0u : (unsigned)EXT4_T_M;
	}
	if (!err) {
		set_owner(&n->inode, s);
		ext4_node_touch(n, touch);
		set_times(&n->inode, s);
	}
	if (after)
		ext4_node_attr(n, after);
	rwlock_drop(&n->rw);
	return ext4_op_end(fs, err);
}

int ext4_op_getattr(struct fs_node *fn, unsigned flags, struct fs_attr *a) NO_THREAD_SAFETY
{
	struct ext4_node *n = ext4_node_of(fn);

	if (flags & FS_NOWAIT) {
		if (!rwlock_try_read(&n->rw))
			return -EAGAIN;
	} else {
		rwlock_read(&n->rw);
	}
	ext4_node_attr(n, a);
	rwlock_drop(&n->rw);
	return 0;
}

/* ---- ALLOCATE, DEALLOCATE ------------------------------------------------------------------------------------------------ */

/* Every hole of [lblk, end) gets blocks that read as zeros. */
static int fill_holes(struct ext4_node *n, uint32_t lblk, uint64_t end) REQUIRES(n->rw) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	bool extents = n->inode.i_flags & EXT4_EXTENTS_FL;

	for (uint64_t at = lblk; at < end;) {
		struct ext4_ext run;
		int err;

		ext4_map_at(n->map, (uint32_t)at, (uint32_t)min_u64(end - at, 1u << 20), &run);
		if (!run.pblk) {
			uint64_t goal = n->map->n ? n->map->e[n->map->n - 1].pblk + n->map->e[n->map->n - 1].len
						  : ext4_goal_of_inode(fs, n->n.ino);

			err = ext4_alloc_run(fs, goal, run.len, true, &run.pblk, &run.len);
			if (err)
				return err;
			run.flags = EXT_PENDING | (extents ? (uint32_t)EXT_UNWRITTEN : 0);
			/* Indirect blocks know nothing of unwritten: the zeros must be there. */
			if (!extents)
				err = cache_zero(fs->dev, run.pblk << fs->block_bits,
						 (uint64_t)run.len << fs->block_bits, 0);
			if (err || (err = ext4_map_set(n->map, &run)) < 0) {
				ext4_alloc_free(fs, run.pblk, run.len);
				return err;
			}
			n->pending_blocks += run.len;
			n->map_dirty = true;
		}
		at += run.len;
	}
	return 0;
}

int ext4_op_alloc(struct fs_node *fn, uint64_t off, uint64_t len) NO_THREAD_SAFETY
{
	struct ext4_node *n = ext4_node_of(fn);
	struct ext4_fs *fs = ext4_fs_of_node(n);
	uint64_t end;
	int err;

	if (fn->type != FS_REG)
		return -EINVAL;
	if (!add_ok(off, len, &end) || end > ext4_max_size(n))
		return -EFBIG;
	if (len == 0)
		return 0;
	if ((err = ext4_op_begin(fs, CREDITS, 0)) < 0)
		return err;
	rwlock_write(&n->rw);
	err = n->inode.i_flags & EXT2_IMMUTABLE_FL ? -EPERM : need_map(n);
	if (!err && end > ext4_size(&n->inode))
		err = ext4_clean_tail(n, end, 0);
	if (!err)
		err = ext4_caps_drop(n);
	/* Whole or not at all: is there room for every hole? */
	if (!err && (len >> fs->block_bits) > ext4_alloc_left(fs))
		err = -ENOSPC;
	if (!err) {
		ext4_drop_window(n);
		err = fill_holes(n, (uint32_t)(off >> fs->block_bits), (end + fs->block_size - 1) >> fs->block_bits);
	}
	if (err && n->map && n->map_dirty) {
		ext4_map_undo(n, (uint32_t)((ext4_size(&n->inode) + fs->block_size - 1) >> fs->block_bits));
		ext4_node_dirty(n);
	}
	if (!err)
		err = ext4_map_store(n);
	if (!err && end > ext4_size(&n->inode)) {
		ext4_set_size(n, end);
		n->stored_size = end;
	}
	if (n->map)
		ext4_node_touch(n, err ? EXT4_T_C : EXT4_T_M | EXT4_T_C);
	rwlock_drop(&n->rw);
	return ext4_op_end(fs, err);
}

int ext4_op_punch(struct fs_node *fn, uint64_t off, uint64_t len) NO_THREAD_SAFETY
{
	struct ext4_node *n = ext4_node_of(fn);
	struct ext4_fs *fs = ext4_fs_of_node(n);
	uint64_t end, size, first, last;
	int err;

	if (fn->type != FS_REG)
		return -EINVAL;
	if (!add_ok(off, len, &end))
		return -EINVAL;
	if ((err = ext4_op_begin(fs, CREDITS, 0)) < 0)
		return err;
	rwlock_write(&n->rw);
	err = n->inode.i_flags & (EXT2_IMMUTABLE_FL | EXT2_APPEND_FL) ? -EPERM : need_map(n);
	if (!err)
		err = ext4_caps_drop(n);
	size = ext4_size(&n->inode);
	/* Blocks behind the end of file hold nothing but may be there: they go too. */
	end = end >= size ? round_up_u64(size, fs->block_size) : end;
	if (!err && off < end) {
		first = (off + fs->block_size - 1) >> fs->block_bits;
		last = end >> fs->block_bits;
		if (first > last) {
			err = zero_within(n, off, end);
		} else {
			err = zero_within(n, off, first << fs->block_bits);
			if (!err)
				err = zero_within(n, last << fs->block_bits, end);
			if (!err)
				err = ext4_map_punch(n, (uint32_t)first, last);
		}
		ext4_node_touch(n, EXT4_T_M | EXT4_T_C);
	}
	rwlock_drop(&n->rw);
	return ext4_op_end(fs, err);
}

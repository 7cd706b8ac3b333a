/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * orphan.c - inodes that a crash must not leave as they are
 *
 * The superblock names the newest, each inode the next one in i_dtime. Every one is in memory while it is on the list: it is open,
 * or being cut. What is found at the start was left by a crash: without links it is freed, with links it is cut to its size. The
 * orphan file of newer file systems is read and emptied; we put nothing there.
 *
 * When clients may come back for what they had open, files without links stay on the list, and in memory, until that is over
 * (RFC 8881 §18.16.3, OPEN4_RESULT_PRESERVE_UNLINKED). A clean stop leaves them there for the same reason.
 */
#include "vhd/ext4/journal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vhd/base/endian.h"
#include "vhd/base/log.h"

#define CREDITS_ORPHAN 64u
#define ORPHAN_MAGIC 0x0b10ca04u

struct orphan_tail {
	le32 magic, checksum;
};

void ext4_orphan_add(struct ext4_node *n) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	struct ext2_super_block *s = fs->e2->super;

	if (!fs->journal || n->orphan)
		return;
	n->orphan = true;
	n->inode.i_dtime = s->s_last_orphan;
	s->s_last_orphan = (uint32_t)n->n.ino;
	fs->super_dirty = true;
	list_push_front(&fs->orphans, &n->orphan_link);
	ext4_node_dirty(n);
}

void ext4_orphan_remove(struct ext4_node *n) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	struct ext4_node *newer;

	if (!n->orphan)
		return;
	if (fs->orphans.next == &n->orphan_link) {
		fs->e2->super->s_last_orphan = n->inode.i_dtime;
	} else {
		newer = list_entry(n->orphan_link.prev, struct ext4_node, orphan_link);
		rwlock_write(&newer->rw); /* two nodes at once: under fs->mu */
		newer->inode.i_dtime = n->inode.i_dtime;
		ext4_node_dirty(newer);
		rwlock_drop(&newer->rw);
	}
	fs->super_dirty = true;
	list_del(&n->orphan_link);
	n->orphan = false;
	n->inode.i_dtime = 0;
	ext4_node_dirty(n);
}

/* ---- after a crash ------------------------------------------------------------------------------------------------------------- */

/* Freed, or cut to its size. */
static int clear_one(struct ext4_fs *fs, ext2_ino_t ino) NO_THREAD_SAFETY
{
	struct ext4_node *n;
	uint64_t first;
	int err = ext4_node_get_orphan(fs, ino, &n);

	if (err)
		return err;
	rwlock_write(&n->rw);
	n->inode.i_dtime = 0;
	ext4_node_dirty(n);
	if (!n->inode.i_links_count) {
		err = ext4_inode_release(fs, n);
	} else if (n->n.type == FS_REG) {
		first = (ext4_size(&n->inode) + fs->block_size - 1) >> fs->block_bits;
		err = n->map ? 0 : ext4_map_load(n);
		if (!err)
			err = ext4_map_punch(n, (uint32_t)first, UINT64_C(1) << 32);
		if (n->orphan)
			ext4_orphan_remove(n);
	}
	if (!err)
		err = ext4_node_store_inode(n);
	rwlock_drop(&n->rw);
	ext4_node_put(n);
	return err;
}

/* It stays where it is on the list, whose oldest it is in memory so far. */
static int keep_one(struct ext4_fs *fs, ext2_ino_t ino, struct ext4_node **kept) NO_THREAD_SAFETY
{
	int err = ext4_node_get_orphan(fs, ino, kept);

	if (err)
		return err;
	if ((*kept)->orphan) { /* twice on the list */
		ext4_node_put(*kept);
		return -EUCLEAN;
	}
	(*kept)->orphan = (*kept)->kept = true;
	list_push_back(&fs->orphans, &(*kept)->orphan_link);
	ext4_node_unlinked(*kept);
	return 0;
}

/* @ino out of the list, behind @newer or at its head, so that a restart within finds one that is whole, and done with: clear_one()
 * may put it on again. */
static int take_out(struct ext4_fs *fs, ext2_ino_t ino, ext2_ino_t next, struct ext4_node *newer) NO_THREAD_SAFETY
{
	int err = ext4_op_begin(fs, CREDITS_ORPHAN, 0);

	if (err)
		return err;
	if (newer) {
		rwlock_write(&newer->rw);
		newer->inode.i_dtime = next;
		ext4_node_dirty(newer);
		rwlock_drop(&newer->rw);
	} else {
		fs->e2->super->s_last_orphan = next;
		fs->super_dirty = true;
	}
	return ext4_op_end(fs, clear_one(fs, ino));
}

/* One transaction at least for each: it leaves the list in the one that takes it apart. */
static int clear_list(struct ext4_fs *fs, unsigned *cleared, unsigned *nkept) NO_THREAD_SAFETY
{
	struct ext2_super_block *s = fs->e2->super;
	ext2_ino_t ino = s->s_last_orphan, next;
	struct ext4_node *newer = NULL;
	int err = 0;

	for (uint32_t left = s->s_inodes_count; ino && !err; ino = next, left--) {
		struct ext2_inode_large i;
		errcode_t e;

		if (!left || ino > s->s_inodes_count || ino < EXT2_FIRST_INO(s))
			return -EUCLEAN;
		lock_take(&fs->mu);
		e = ext2fs_read_inode_full(fs->e2, ino, (struct ext2_inode *)&i, sizeof i);
		if (e)
			err = ext4_errno(e);
		else if (fs->keep_found && !i.i_links_count)
			err = keep_one(fs, ino, &newer);
		lock_drop(&fs->mu);
		if (err)
			return err;
		next = i.i_dtime;
		if (newer && newer->n.ino == ino) {
			++*nkept;
			continue;
		}
		err = take_out(fs, ino, next, newer);
		++*cleared;
	}
	return err;
}

/* Some that the mount found, which are not kept any more: the references are the caller's. */
static unsigned take_kept(struct ext4_fs *fs, struct ext4_node **some, unsigned max) REQUIRES(fs->mu)
{
	unsigned n = 0;

	list_for_each (it, &fs->orphans) {
		struct ext4_node *o = list_entry(it, struct ext4_node, orphan_link);

		if (!o->kept)
			continue;
		o->kept = false;
		some[n++] = o;
		if (n == max)
			break;
	}
	return n;
}

void ext4_op_keep_unlinked(struct fs *f, bool keep)
{
	struct ext4_fs *fs = ext4_fs_of(f);
	struct ext4_node *some[256];
	unsigned n;

	if (!f->keeps_unlinked)
		return;
	lock_take(&fs->table_mu);
	fs->keep_unlinked = keep;
	lock_drop(&fs->table_mu);
	do {
		lock_take(&fs->mu);
		n = keep ? 0 : take_kept(fs, some, ARRAY_LEN(some));
		lock_drop(&fs->mu);
		for (unsigned i = 0; i < n; i++)
			ext4_node_put(some[i]);
	} while (n);
}

/* Numbers in the blocks of the orphan file, each block with a checksum of its own. */
static int clear_file_block(struct ext4_fs *fs, uint64_t pblk, uint32_t seed, unsigned *cleared) NO_THREAD_SAFETY
{
	uint32_t n = (fs->block_size - (uint32_t)sizeof(struct orphan_tail)) / 4, sum;
	uint8_t *b = malloc(fs->block_size);
	struct orphan_tail tail;
	bool any = false;
	le64 no = le64_of(pblk);
	int err = b ? cache_read(fs->dev, b, fs->block_size, pblk << fs->block_bits, CACHE_META) : -ENOMEM;

	for (uint32_t i = 0; i < n && !err; i++) {
		le32 ino;

		memcpy(&ino, b + i * 4, 4);
		if (!le32_get(ino))
			continue;
		any = true;
		if ((err = ext4_op_begin(fs, CREDITS_ORPHAN, 0)) == 0)
			err = ext4_op_end(fs, clear_one(fs, le32_get(ino)));
		if (err == -ESTALE) /* freed by who was cut off before the block was emptied */
			err = 0;
		++*cleared;
	}
	if (!err && any) {
		memset(b, 0, n * 4);
		sum = ext2fs_crc32c_le(ext2fs_crc32c_le(seed, no.b, 8), b, n * 4);
		tail = (struct orphan_tail){le32_of(ORPHAN_MAGIC), le32_of(fs->has_csum ? sum : 0)};
		memcpy(b + n * 4, &tail, sizeof tail);
		if ((err = ext4_op_begin(fs, 1, 0)) == 0)
			err = ext4_op_end(fs, ext4_meta_write(fs, b, fs->block_size, pblk << fs->block_bits));
	}
	free(b);
	return err;
}

static int clear_file(struct ext4_fs *fs, unsigned *cleared) NO_THREAD_SAFETY
{
	struct ext2_super_block *s = fs->e2->super;
	le32 ino = le32_of(s->s_orphan_file_inum), gen;
	struct ext2_inode i;
	uint32_t seed;
	errcode_t e;
	int err = 0;

	if (!ext2fs_has_feature_orphan_present(s))
		return 0;
	e = ext2fs_read_inode(fs->e2, s->s_orphan_file_inum, &i);
	if (e)
		return ext4_errno(e);
	gen = le32_of(i.i_generation);
	seed = ext2fs_crc32c_le(ext2fs_crc32c_le(fs->e2->csum_seed, ino.b, 4), gen.b, 4);
	for (blk64_t l = 0; l < (EXT2_I_SIZE(&i) >> fs->block_bits) && !err; l++) {
		blk64_t p = 0;

		e = ext2fs_bmap2(fs->e2, s->s_orphan_file_inum, &i, NULL, 0, l, NULL, &p);
		if (e || p < s->s_first_data_block || p >= ext2fs_blocks_count(s))
			return e ? ext4_errno(e) : -EUCLEAN;
		err = clear_file_block(fs, p, seed, cleared);
	}
	if (!err && (err = ext4_op_begin(fs, 1, 0)) == 0) {
		ext2fs_clear_feature_orphan_present(s);
		fs->super_dirty = true;
		err = ext4_op_end(fs, 0);
	}
	return err;
}

int ext4_orphans_clear(struct ext4_fs *fs)
{
	unsigned cleared = 0, kept = 0;
	int err = clear_file(fs, &cleared);

	if (!err)
		err = clear_list(fs, &cleared, &kept);
	if (kept)
		log_info("ext4: %u files without a name are kept for clients that may come back for them", kept);
	if (cleared)
		log_info("ext4: %u files that a crash left half removed or half cut are done with", cleared);
	return err;
}

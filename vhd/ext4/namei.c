/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * namei.c - lookup, parent, create, link, unlink
 *
 * Lookups hold the directory shared and take a node that is in memory right there, so name and node belong together. A
 * node that is not is read in without the lock (that may need fs->mu, which comes first); then the name is looked up
 * again, with the node in hand.
 *
 * Changes know what they will touch before they begin: the nodes are looked up first, the operation begins, locks are
 * taken, and the names are looked up again. If one leads elsewhere by then, it all starts anew. So nothing is read in
 * under fs->mu but blocks of the directories themselves.
 */
#include "vhd/ext4/dir_int.h"

#include <errno.h>
#include <string.h>

/* Linear directories of more blocks are not searched on an event loop. */
enum { NOWAIT_BLOCKS = 64 };

enum {
	CREDITS_ADD = 50, /* a split on each level, the blocks appended for it, two inodes, their groups, attributes */
	CREDITS_REMOVE = 24,
};

/* ---- shared with rename.c ---------------------------------------------------------------------------------------------- */

static bool read_lock(struct ext4_node *n, unsigned flags) TRY_ACQUIRE_SHARED(true, n->rw) NO_THREAD_SAFETY
{
	if (flags & FS_NOWAIT)
		return rwlock_try_read_soon(&n->rw);
	rwlock_read(&n->rw);
	return true;
}

static bool write_lock(struct ext4_node *n, unsigned flags) TRY_ACQUIRE(true, n->rw) NO_THREAD_SAFETY
{
	if (flags & FS_NOWAIT)
		return rwlock_try_write_soon(&n->rw);
	rwlock_write(&n->rw);
	return true;
}

bool ext4_lockset_take(struct ext4_lockset *s, unsigned flags) NO_THREAD_SAFETY
{
	/* By address, so that repetitions are neighbours. */
	for (unsigned i = 1; i < ARRAY_LEN(s->n); i++)
		for (unsigned k = i; k && (uintptr_t)s->n[k] < (uintptr_t)s->n[k - 1]; k--) {
			struct ext4_node *n = s->n[k];

			s->n[k] = s->n[k - 1];
			s->n[k - 1] = n;
		}
	for (unsigned i = 0; i < ARRAY_LEN(s->n); i++) {
		if (i && s->n[i] == s->n[i - 1]) {
			s->n[i - 1] = NULL;
		} else if (s->n[i] && !write_lock(s->n[i], flags)) {
			for (unsigned k = i; k < ARRAY_LEN(s->n); k++)
				s->n[k] = NULL;
			ext4_lockset_drop(s);
			return false;
		}
	}
	return true;
}

void ext4_lockset_drop(struct ext4_lockset *s) NO_THREAD_SAFETY
{
	for (unsigned i = 0; i < ARRAY_LEN(s->n); i++)
		if (s->n[i])
			rwlock_drop(&s->n[i]->rw);
}

int ext4_may_add(struct ext4_node *dir)
{
	if (!dir->inode.i_links_count)
		return -ENOENT;
	return dir->inode.i_flags & EXT2_IMMUTABLE_FL ? -EPERM : 0;
}

int ext4_may_remove(struct ext4_node *dir, struct ext4_node *victim)
{
	const uint32_t fixed = EXT2_IMMUTABLE_FL | EXT2_APPEND_FL;

	if (!dir->inode.i_links_count)
		return -ENOENT;
	return (dir->inode.i_flags | victim->inode.i_flags) & fixed ? -EPERM : 0;
}

bool ext4_same_project(struct ext4_node *dir, struct ext4_node *n)
{
	const uint32_t end = offsetof(struct ext2_inode_large, i_projid) + 4 - EXT2_GOOD_OLD_INODE_SIZE;
	uint32_t a = dir->inode.i_extra_isize >= end ? dir->inode.i_projid : 0;
	uint32_t b = n->inode.i_extra_isize >= end ? n->inode.i_projid : 0;

	return !(dir->inode.i_flags & EXT4_PROJINHERIT_FL) || a == b;
}

/* With dir_nlink a hashed directory that has too many subdirectories to count has 1 link, and keeps it. */
static bool uncounted(struct ext4_node *dir) REQUIRES_SHARED(dir->rw)
{
	return ext4_dirfmt_of(dir)->has_nlink && ext4_dir_hashed(dir);
}

int ext4_dir_links_ok(struct ext4_node *dir)
{
	return dir->inode.i_links_count >= EXT4_LINKS_MAX && !uncounted(dir) ? -EMLINK : 0;
}

void ext4_dir_links_up(struct ext4_node *dir)
{
	if (dir->inode.i_links_count == 1)
		return;
	dir->inode.i_links_count++;
	if (dir->inode.i_links_count >= EXT4_LINKS_MAX && uncounted(dir))
		dir->inode.i_links_count = 1;
}

void ext4_dir_links_down(struct ext4_node *dir)
{
	if (dir->inode.i_links_count > 2)
		dir->inode.i_links_count--;
}

void ext4_name_gone(struct ext4_node *n)
{
	if (n->n.type == FS_DIR)
		n->inode.i_links_count = 0;
	else if (n->inode.i_links_count)
		n->inode.i_links_count--;
	ext4_node_touch(n, EXT4_T_C);
	if (!n->inode.i_links_count) {
		ext4_orphan_add(n);
		ext4_node_unlinked(n);
	}
}

uint8_t ext4_dent_type(enum fs_type t)
{
	static const uint8_t type[] = {
		[FS_REG] = EXT2_FT_REG_FILE, [FS_DIR] = EXT2_FT_DIR,    [FS_LNK] = EXT2_FT_SYMLINK,
		[FS_BLK] = EXT2_FT_BLKDEV,   [FS_CHR] = EXT2_FT_CHRDEV, [FS_FIFO] = EXT2_FT_FIFO,
		[FS_SOCK] = EXT2_FT_SOCK,
	};

	return type[t];
}

void ext4_cinfo(const struct ext4_node *dir, uint64_t before, struct fs_cinfo *ci)
{
	if (ci)
		*ci = (struct fs_cinfo){.atomic = true, .before = before, .after = ext4_node_change(dir)};
}

/* ---- names that are not there ---- */

/* The last name that this thread looked for in a hashed directory and did not find. Who creates a file has looked for it before, most
 * often: the second search, under fs->mu, is spared while the directory is as it was. */
static _Thread_local struct {
	uint64_t gen; /* ext4_node.dir_gen */
	uint32_t lblk, len;
	char name[EXT2_NAME_LEN];
} missed;

static void note_missed(struct ext4_node *dir, const char *name, uint32_t len, uint32_t lblk) REQUIRES_SHARED(dir->rw)
{
	if (!ext4_dir_hashed(dir))
		return;
	missed.gen = dir->dir_gen;
	missed.lblk = lblk;
	missed.len = len;
	memcpy(missed.name, name, len);
}

static bool is_missed(struct ext4_node *dir, const char *name, uint32_t len) REQUIRES_SHARED(dir->rw)
{
	return missed.gen == dir->dir_gen && missed.len == len && !memcmp(missed.name, name, len);
}

/* ---- lookup ---------------------------------------------------------------------------------------------------------------- */

/* The inode of a name, of ".." when @name is NULL. */
static int find_ino(struct ext4_node *dir, const char *name, uint32_t len, unsigned flags, uint32_t *ino)
	REQUIRES_SHARED(dir->rw)
{
	struct ext4_place p;
	int r;

	if (!dir->inode.i_links_count)
		return -ENOENT;
	if (!name)
		return ext4_dir_parent(dir, flags, ino);
	if (ext4_is_inline(dir))
		return ext4_inline_find(dir, name, len, ino);
	if (flags & FS_NOWAIT && !ext4_dir_hashed(dir) && ext4_dir_blocks(dir) > NOWAIT_BLOCKS)
		return -EAGAIN;
	r = ext4_dir_find(dir, name, len, flags, false, &p);
	if (!r)
		note_missed(dir, name, len, p.lblk);
	*ino = p.ino;
	return r < 0 ? r : r ? 0 : -ENOENT;
}

/* One look under the lock. -EAGAIN: *ino is not in memory, or (FS_NOWAIT) the directory cannot be read now: *ino 0. */
static int peek(struct ext4_node *dir, const char *name, uint32_t len, unsigned flags, uint32_t *ino, uint64_t *gen,
		struct ext4_node **out)
{
	int err;

	*ino = 0;
	if (!read_lock(dir, flags))
		return -EAGAIN;
	*gen = dir->dir_gen;
	err = find_ino(dir, name, len, flags, ino);
	if (!err) {
		err = ext4_node_get(ext4_fs_of_node(dir), *ino, FS_NOWAIT, out);
		/* While we hold the directory, what a name leads to exists; unless the image is damaged. */
		if (err == -ESTALE)
			err = -EUCLEAN;
	}
	rwlock_drop(&dir->rw);
	return err;
}

static int look_up(struct ext4_node *dir, const char *name, uint32_t len, unsigned flags, struct ext4_node **out)
{
	struct ext4_node *held = NULL, *next;
	uint64_t gen, stale_gen = 0;
	uint32_t ino;
	bool stale = false;
	int err;

	for (;;) {
		err = peek(dir, name, len, flags, &ino, &gen, out);
		ext4_node_put(held);
		held = NULL;
		if (err != -EAGAIN || flags & FS_NOWAIT)
			return err;
		if (stale && gen == stale_gen)
			return -EUCLEAN;
		err = ext4_node_get(ext4_fs_of_node(dir), ino, 0, &next);
		if (!err) {
			held = next;
		} else if (err != -ESTALE) {
			return err;
		} else {
			/* Removed meanwhile, or a name that leads nowhere: the next look tells. */
			stale = true;
			stale_gen = gen;
		}
	}
}

int ext4_op_lookup(struct fs_node *dir, const char *name, uint32_t len, unsigned flags, struct fs_node **out)
{
	struct ext4_node *n;
	int err = dir->type == FS_DIR ? look_up(ext4_node_of(dir), name, len, flags, &n) : -ENOTDIR;

	*out = err ? NULL : &n->n;
	return err;
}

int ext4_op_parent(struct fs_node *dir, unsigned flags, struct fs_node **out)
{
	struct ext4_node *n;
	int err;

	*out = NULL;
	if (dir->type != FS_DIR)
		return -ENOTDIR;
	if (dir->ino == EXT2_ROOT_INO) {
		*out = fs_node_get(dir);
		return 0;
	}
	err = look_up(ext4_node_of(dir), NULL, 0, flags, &n);
	if (err)
		return err;
	if (n->n.type != FS_DIR) {
		ext4_node_put(n);
		return -EUCLEAN;
	}
	*out = &n->n;
	return 0;
}

/* ---- create ---------------------------------------------------------------------------------------------------------------- */

/* The new inode gets what its directory and its type want it to have, and its name. */
static int give_name(struct ext4_node *dir, const struct ext4_place *p, const char *name, uint32_t len,
		     const struct fs_create *c, struct ext4_node *child) REQUIRES(dir->rw) REQUIRES(child->rw)
{
	bool is_dir = child->n.type == FS_DIR;
	int err = ext4_acl_inherit(dir, child, c);

	if (!err && is_dir)
		err = ext4_dir_make(child, (uint32_t)dir->n.ino);
	if (!err)
		err = ext4_dir_insert(dir, p, name, len, (uint32_t)child->n.ino, ext4_dent_type(child->n.type));
	if (err) {
		ext4_orphan_add(child);
		ext4_node_unlinked(child);
		return err;
	}
	child->inode.i_links_count = is_dir ? 2 : 1;
	ext4_node_dirty(child);
	if (is_dir)
		ext4_dir_links_up(dir);
	ext4_node_touch(dir, EXT4_T_M | EXT4_T_C);
	return 0;
}

/* May this creation come to need a block that is not at hand? */
static bool grows(const struct ext4_node *dir, const struct fs_create *c, const struct ext4_place *p)
	REQUIRES_SHARED(dir->rw)
{
	return dir->acl_is[FS_ACL_DEFAULT] != ACL_NONE || p->room == EXT4_NO_OFF || c->type == FS_DIR ||
	       (c->type == FS_LNK && c->target_len >= sizeof(((struct ext2_inode *)0)->i_block));
}

/* @flags: FS_NOWAIT when the directory's blocks should not be read in now: -EAGAIN. */
static int create(struct ext4_fs *fs, struct ext4_node *dir, const char *name, uint32_t len, const struct fs_create *c,
		  unsigned flags, struct ext4_node **out) REQUIRES(fs->mu) REQUIRES(dir->rw)
{
	struct ext4_node *child;
	struct ext4_place p;
	int err = ext4_may_add(dir), r;

	if (err)
		return err;
	r = is_missed(dir, name, len) ? ext4_dir_room(dir, missed.lblk, len, flags, &p)
				      : ext4_dir_find(dir, name, len, flags, true, &p);
	if (r < 0)
		return r;
	if (r) {
		/* The existing one, if it is at hand. */
		if (ext4_node_get(fs, p.ino, FS_NOWAIT, out) < 0)
			*out = NULL;
		return -EEXIST;
	}
	if (c->flags & FS_NOWAIT && grows(dir, c, &p))
		return -EAGAIN;
	if (c->type == FS_DIR && (err = ext4_dir_links_ok(dir)) < 0)
		return err;
	err = ext4_node_new(fs, dir, c, &child);
	if (err)
		return err;
	/* Nobody knows it yet, but for who guesses its number. */
	if (!rwlock_try_write(&child->rw))
		rwlock_write(&child->rw);
	err = give_name(dir, &p, name, len, c, child);
	rwlock_drop(&child->rw);
	if (err)
		ext4_node_put(child);
	else
		*out = child;
	return err;
}

static int create_attempt(struct ext4_node *dir, const char *name, uint32_t len, const struct fs_create *c,
			  unsigned flags, struct ext4_node **out, struct fs_cinfo *ci)
{
	struct ext4_fs *fs = ext4_fs_of_node(dir);
	uint64_t before;
	int err, end;

	err = ext4_op_begin(fs, CREDITS_ADD, c->flags);
	if (err)
		return err;
	if (!write_lock(dir, c->flags))
		return ext4_op_end(fs, -EAGAIN);
	before = ext4_node_change(dir);
	err = create(fs, dir, name, len, c, flags, out);
	ext4_cinfo(dir, before, ci);
	rwlock_drop(&dir->rw);
	end = ext4_op_end(fs, err);
	if (end && end != -EEXIST) {
		ext4_node_put(*out);
		*out = NULL;
	}
	return end;
}

int ext4_op_create(struct fs_node *dir, const char *name, uint32_t len, const struct fs_create *c, struct fs_node **out,
		   struct fs_cinfo *ci)
{
	struct ext4_node *d = ext4_node_of(dir), *n = NULL;
	int err;

	*out = NULL;
	if (dir->type != FS_DIR)
		return -ENOTDIR;
	err = create_attempt(d, name, len, c, FS_NOWAIT, &n, ci);
	if (err == -EAGAIN && !(c->flags & FS_NOWAIT)) {
		/* Nobody should wait for fs->mu while a directory is read in: look the name up without it first. */
		if (!look_up(d, name, len, 0, &n)) {
			ext4_node_put(n);
			n = NULL;
		}
		err = create_attempt(d, name, len, c, 0, &n, ci);
	}
	*out = n ? &n->n : NULL;
	return err;
}

/* ---- link ------------------------------------------------------------------------------------------------------------------ */

static int make_link(struct ext4_node *n, struct ext4_node *dir, const char *name, uint32_t len) REQUIRES(dir->rw)
	REQUIRES(n->rw)
{
	struct ext4_place p;
	int err = ext4_may_add(dir), r;

	if (err)
		return err;
	if (!n->inode.i_links_count)
		return -ENOENT;
	if (n->inode.i_flags & (EXT2_IMMUTABLE_FL | EXT2_APPEND_FL))
		return -EPERM;
	if (n->inode.i_links_count >= EXT4_LINKS_MAX)
		return -EMLINK;
	if (!ext4_same_project(dir, n))
		return -EXDEV;
	r = ext4_dir_find(dir, name, len, 0, true, &p);
	if (r)
		return r < 0 ? r : -EEXIST;
	err = ext4_dir_insert(dir, &p, name, len, (uint32_t)n->n.ino, ext4_dent_type(n->n.type));
	if (err)
		return err;
	n->inode.i_links_count++;
	ext4_node_touch(n, EXT4_T_C);
	ext4_node_touch(dir, EXT4_T_M | EXT4_T_C);
	return 0;
}

int ext4_op_link(struct fs_node *n, struct fs_node *dir, const char *name, uint32_t len,
		 struct fs_cinfo *ci) NO_THREAD_SAFETY
{
	struct ext4_node *d = ext4_node_of(dir), *e = ext4_node_of(n);
	struct ext4_fs *fs = ext4_fs_of(dir->fs);
	struct ext4_lockset locks = {.n = {d, e}};
	uint64_t before;
	int err;

	if (dir->type != FS_DIR)
		return -ENOTDIR;
	if (n->type == FS_DIR)
		return -EISDIR;
	if (n->fs != dir->fs)
		return -EXDEV;
	err = ext4_op_begin(fs, CREDITS_ADD, 0);
	if (err)
		return err;
	ext4_lockset_take(&locks, 0);
	before = ext4_node_change(d);
	err = make_link(e, d, name, len);
	ext4_cinfo(d, before, ci);
	ext4_lockset_drop(&locks);
	return ext4_op_end(fs, err);
}

/* ---- unlink ---------------------------------------------------------------------------------------------------------------- */

/* -ESTALE: the name leads elsewhere by now. */
static int take_out(struct ext4_node *dir, const char *name, uint32_t len, unsigned flags, struct ext4_node *victim)
	REQUIRES(dir->rw) REQUIRES(victim->rw)
{
	bool is_dir = victim->n.type == FS_DIR;
	struct ext4_place p;
	int err = ext4_may_remove(dir, victim), r;

	if (err)
		return err;
	r = ext4_dir_find(dir, name, len, flags, false, &p);
	if (r <= 0)
		return r ? r : -ENOENT;
	if (p.ino != victim->n.ino)
		return -ESTALE;
	if (!victim->inode.i_links_count)
		return -EUCLEAN;
	if (is_dir && (r = ext4_dir_is_empty(victim)) != 1)
		return r ? r : -ENOTEMPTY;
	err = ext4_dir_remove(dir, &p);
	if (err)
		return err;
	if (is_dir)
		ext4_dir_links_down(dir);
	ext4_name_gone(victim);
	ext4_node_touch(dir, EXT4_T_M | EXT4_T_C);
	return 0;
}

static int unlink_attempt(struct ext4_node *dir, const char *name, uint32_t len, unsigned flags,
			  struct ext4_node *victim, struct fs_cinfo *ci) NO_THREAD_SAFETY
{
	struct ext4_lockset locks = {.n = {dir, victim}};
	struct ext4_fs *fs = ext4_fs_of_node(dir);
	uint64_t before;
	int err = ext4_op_begin(fs, CREDITS_REMOVE, flags);

	if (err)
		return err;
	if (!ext4_lockset_take(&locks, flags))
		return ext4_op_end(fs, -EAGAIN);
	before = ext4_node_change(dir);
	err = take_out(dir, name, len, flags, victim);
	ext4_cinfo(dir, before, ci);
	ext4_lockset_drop(&locks);
	return ext4_op_end(fs, err);
}

int ext4_op_unlink(struct fs_node *dir, const char *name, uint32_t len, unsigned flags, struct fs_cinfo *ci)
{
	struct ext4_node *d = ext4_node_of(dir), *victim;
	int err;

	if (dir->type != FS_DIR)
		return -ENOTDIR;
	do {
		err = look_up(d, name, len, flags, &victim);
		if (err)
			return err;
		/* Whether a directory is empty may be long to tell. */
		err = flags & FS_NOWAIT && victim->n.type == FS_DIR ? -EAGAIN
								    : unlink_attempt(d, name, len, flags, victim, ci);
		ext4_node_put(victim);
	} while (err == -ESTALE);
	return err;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * rename.c - rename, within a directory and across
 *
 * A directory must not move below itself. The way from the new parent up to the root is walked before the operation
 * begins (it reads nodes in); names->moves, which counts directories that changed their parent, says under the lock
 * whether what was seen on the way still holds.
 *
 * The new name is written before the old one goes, so that a reader who meets the middle sees two names, not none. When
 * a later step fails, the earlier ones are taken back.
 */
#include "vhd/ext4/dir_int.h"

#include <errno.h>

enum { CREDITS_RENAME = 64 };

struct move {
	struct ext4_node *from, *to; /* directories */
	const char *name, *nname;
	uint32_t len, nlen;
	struct ext4_node *src, *tgt; /* what the names lead to; tgt may be NULL */
	uint64_t moves;              /* names->moves before the way up was walked */
};

static bool changes_parent(const struct move *m)
{
	return m->src->n.type == FS_DIR && m->from != m->to;
}

/* 0 when @dir is neither @top nor below it; -EINVAL when it is; -EUCLEAN when the way up never ends. */
static int not_below(struct ext4_node *dir, const struct ext4_node *top)
{
	struct fs_node *n = fs_node_get(&dir->n), *up;
	uint64_t mark = 0, steps = 0, next_mark = 1;
	int err = 0;

	while (n != &top->n && n->ino != EXT2_ROOT_INO) {
		/* A way that meets a place again goes in a circle; the place is set at distances that double. */
		if (n->ino == mark)
			err = -EUCLEAN;
		if (steps++ == next_mark) {
			mark = n->ino;
			next_mark *= 2;
		}
		if (!err)
			err = ext4_op_parent(n, 0, &up);
		if (err)
			break;
		fs_node_put(n);
		n = up;
	}
	if (!err && n == &top->n)
		err = -EINVAL;
	fs_node_put(n);
	return err;
}

/* What is replaced, and by what. */
static int check_kinds(struct move *m) NO_THREAD_SAFETY
{
	bool dir = m->src->n.type == FS_DIR;
	int r;

	if (m->src == m->from || m->src == m->to)
		return -EINVAL;
	if (!m->tgt)
		return 0;
	if (dir != (m->tgt->n.type == FS_DIR))
		return dir ? -ENOTDIR : -EISDIR;
	if (!m->tgt->inode.i_links_count)
		return -EUCLEAN;
	if (!dir)
		return 0;
	if (m->tgt == m->from || m->tgt == m->to)
		return -ENOTEMPTY;
	r = ext4_dir_is_empty(m->tgt);
	return r < 0 ? r : r ? 0 : -ENOTEMPTY;
}

static int check(struct move *m) NO_THREAD_SAFETY
{
	uint32_t parent;
	int err;

	if ((err = ext4_may_remove(m->from, m->src)) < 0)
		return err;
	if ((err = m->tgt ? ext4_may_remove(m->to, m->tgt) : ext4_may_add(m->to)) < 0)
		return err;
	if (!m->src->inode.i_links_count)
		return -EUCLEAN;
	if (!ext4_same_project(m->to, m->src))
		return -EXDEV;
	if ((err = check_kinds(m)) < 0 || !changes_parent(m))
		return err;
	if (atomic_load(&ext4_fs_of_node(m->from)->names->moves) != m->moves)
		return -EAGAIN;
	if ((err = ext4_dir_parent(m->src, 0, &parent)) < 0)
		return err;
	if (parent != m->from->n.ino)
		return -EUCLEAN;
	return m->tgt ? 0 : ext4_dir_links_ok(m->to);
}

/* Takes the new name back. */
static void undo(struct move *m) NO_THREAD_SAFETY
{
	struct ext4_place p;

	if (ext4_dir_find(m->to, m->nname, m->nlen, 0, false, &p) != 1)
		return;
	if (m->tgt)
		(void)ext4_dir_replace(m->to, &p, (uint32_t)m->tgt->n.ino, ext4_dent_type(m->tgt->n.type));
	else
		(void)ext4_dir_remove(m->to, &p);
}

static int write_names(struct move *m, const struct ext4_place *tp) NO_THREAD_SAFETY
{
	const uint8_t type = ext4_dent_type(m->src->n.type);
	const uint32_t ino = (uint32_t)m->src->n.ino;
	struct ext4_place sp;
	int err, r;

	err = m->tgt ? ext4_dir_replace(m->to, tp, ino, type)
		     : ext4_dir_insert(m->to, tp, m->nname, m->nlen, ino, type);
	if (err)
		return err;
	if (changes_parent(m)) {
		err = ext4_dir_set_parent(m->src, (uint32_t)m->to->n.ino);
		if (err) {
			undo(m);
			return err;
		}
		atomic_fetch_add(&ext4_fs_of_node(m->from)->names->moves, 1);
	}
	/* The new name may have moved the old one, when both are in one directory. */
	r = ext4_dir_find(m->from, m->name, m->len, 0, false, &sp);
	err = r == 1 ? ext4_dir_remove(m->from, &sp) : r ? r : -EUCLEAN;
	if (err) {
		if (changes_parent(m))
			(void)ext4_dir_set_parent(m->src, (uint32_t)m->from->n.ino);
		undo(m);
	}
	return err;
}

/* Link counts and times. */
static void account(struct move *m) NO_THREAD_SAFETY
{
	if (m->src->n.type == FS_DIR) {
		if (m->tgt || m->from != m->to)
			ext4_dir_links_down(m->from);
		if (!m->tgt && m->from != m->to)
			ext4_dir_links_up(m->to);
	}
	if (m->tgt)
		ext4_name_gone(m->tgt);
	ext4_node_touch(m->src, EXT4_T_C);
	ext4_node_touch(m->from, EXT4_T_M | EXT4_T_C);
	if (m->to != m->from)
		ext4_node_touch(m->to, EXT4_T_M | EXT4_T_C);
}

/* -EAGAIN: a name leads elsewhere by now. */
static int move_locked(struct move *m) NO_THREAD_SAFETY
{
	struct ext4_place sp, tp;
	int err, r;

	if (!m->from->inode.i_links_count || !m->to->inode.i_links_count)
		return -ENOENT;
	r = ext4_dir_find(m->from, m->name, m->len, 0, false, &sp);
	if (r <= 0)
		return r ? r : -ENOENT;
	if (sp.ino != m->src->n.ino)
		return -EAGAIN;
	r = ext4_dir_find(m->to, m->nname, m->nlen, 0, true, &tp);
	if (r < 0)
		return r;
	if (r != (m->tgt != NULL) || (r && tp.ino != m->tgt->n.ino))
		return -EAGAIN;
	if (m->src == m->tgt)
		return 0;
	if ((err = check(m)) < 0)
		return err;
	err = write_names(m, &tp);
	if (!err)
		account(m);
	return err;
}

/* The nodes of both names, and the way up. */
static int prepare(struct move *m)
{
	struct fs_node *n;
	int err;

	m->moves = atomic_load(&ext4_fs_of_node(m->from)->names->moves);
	if ((err = ext4_op_lookup(&m->from->n, m->name, m->len, 0, &n)) < 0)
		return err;
	m->src = ext4_node_of(n);
	err = ext4_op_lookup(&m->to->n, m->nname, m->nlen, 0, &n);
	if (err && err != -ENOENT)
		return err;
	m->tgt = err ? NULL : ext4_node_of(n);
	return changes_parent(m) ? not_below(m->to, m->src) : 0;
}

static int attempt(struct ext4_fs *fs, struct move *m, struct fs_cinfo *cfrom, struct fs_cinfo *cto) NO_THREAD_SAFETY
{
	struct ext4_lockset locks = {.n = {m->from, m->to, m->src, m->tgt}};
	uint64_t before_from, before_to;
	int err = ext4_op_begin(fs, CREDITS_RENAME, 0);

	if (err)
		return err;
	ext4_lockset_take(&locks, 0);
	before_from = ext4_node_change(m->from);
	before_to = ext4_node_change(m->to);
	err = move_locked(m);
	ext4_cinfo(m->from, before_from, cfrom);
	ext4_cinfo(m->to, before_to, cto);
	ext4_lockset_drop(&locks);
	return ext4_op_end(fs, err);
}

int ext4_op_rename(struct fs_node *from, const char *name, uint32_t len, struct fs_node *to, const char *nname,
		   uint32_t nlen, struct fs_cinfo *cfrom, struct fs_cinfo *cto)
{
	int err;

	if (from->type != FS_DIR || to->type != FS_DIR)
		return -ENOTDIR;
	if (from->fs != to->fs)
		return -EXDEV;
	do {
		struct move m = {.from = ext4_node_of(from),
				 .to = ext4_node_of(to),
				 .name = name,
				 .len = len,
				 .nname = nname,
				 .nlen = nlen};

		err = prepare(&m);
		if (!err)
			err = attempt(ext4_fs_of(from->fs), &m, cfrom, cto);
		ext4_node_put(m.src);
		ext4_node_put(m.tgt);
	} while (err == -EAGAIN);
	return err;
}

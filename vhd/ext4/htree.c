/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * htree.c - hashed directories: walking the index, splitting leaves, growing the index
 *
 * A walk pins the root and the nodes on its way, and counts the leaves it visits: an index that leads in circles ends as
 * damage after as many steps as the directory has blocks. Depth is bounded by the path.
 *
 * Growth goes top-down in steps that each leave a whole index behind: split the lowest full node whose parent has room,
 * or put a level under a full root, and look again; when the leaf's parent has room, split the leaf. In each step the
 * new block is written first, then what points to it, then what lost names to it.
 */
#include "vhd/ext4/dir_int.h"

#include <errno.h>
#include <string.h>

#include "vhd/base/checked.h"

enum { NOWAIT_STEPS = 64 };

/* ---- walking ------------------------------------------------------------------------------------------------------------ */

int ext4_dx_open(struct ext4_node *dir, unsigned flags, struct ext4_dx_path *p)
{
	uint8_t levels;
	int err;

	p->depth = 0;
	p->steps = min_u64(ext4_dir_blocks(dir), flags & FS_NOWAIT ? NOWAIT_STEPS : UINT64_MAX);
	err = ext4_dir_pin(dir, 0, EXT4_BLK_ROOT, flags, &p->at[0].pin);
	if (err)
		return err;
	p->depth = 1;
	p->at[0].lblk = 0;
	p->at[0].idx = 0;
	return ext4_dx_root(ext4_dirfmt_of(dir), p->at[0].pin.base, &p->at[0].x, &p->version, &levels);
}

static int descend_one(struct ext4_node *dir, uint32_t h, unsigned flags, struct ext4_dx_path *p)
	REQUIRES_SHARED(dir->rw)
{
	uint32_t lblk = ext4_dx_leaf(p), d = p->depth;
	int err = ext4_dir_pin(dir, lblk, EXT4_BLK_NODE, flags, &p->at[d].pin);

	if (err)
		return err;
	p->depth++;
	err = ext4_dx_node(ext4_dirfmt_of(dir), p->at[d].pin.base, &p->at[d].x);
	if (err)
		return err;
	p->at[d].lblk = lblk;
	p->at[d].idx = ext4_dx_search(&p->at[d].x, h);
	return 0;
}

static int levels_of(struct ext4_node *dir, const struct ext4_dx_path *p, uint8_t *levels) REQUIRES_SHARED(dir->rw)
{
	struct ext4_dx x;
	uint8_t version;

	return ext4_dx_root(ext4_dirfmt_of(dir), p->at[0].pin.base, &x, &version, levels);
}

int ext4_dx_descend(struct ext4_node *dir, uint32_t h, unsigned flags, struct ext4_dx_path *p)
{
	uint8_t levels;
	int err = levels_of(dir, p, &levels);

	if (err)
		return err;
	p->at[0].idx = ext4_dx_search(&p->at[0].x, h);
	while (!err && p->depth <= levels)
		err = descend_one(dir, h, flags, p);
	return err;
}

void ext4_dx_drop(struct ext4_dx_path *p)
{
	while (p->depth)
		cache_unpin(&p->at[--p->depth].pin, 1);
}

uint32_t ext4_dx_here(const struct ext4_dx_path *p)
{
	int d = p->depth - 1;

	/* Pair 0 of a node has the hash of the pair that leads to it. */
	while (d > 0 && !p->at[d].idx)
		d--;
	return ext4_dx_hash(&p->at[d].x, p->at[d].idx);
}

/* The deepest level that has another pair; -1 when the path is the last. */
static int level_with_next(const struct ext4_dx_path *p)
{
	int d = p->depth - 1;

	while (d >= 0 && p->at[d].idx + 1 >= p->at[d].x.count)
		d--;
	return d;
}

int ext4_dx_peek(const struct ext4_dx_path *p, uint32_t *h)
{
	int d = level_with_next(p);

	if (d < 0)
		return 0;
	*h = ext4_dx_hash(&p->at[d].x, p->at[d].idx + 1);
	return 1;
}

int ext4_dx_step(struct ext4_node *dir, unsigned flags, struct ext4_dx_path *p)
{
	int d = level_with_next(p), depth = p->depth, err = 0;

	if (d < 0)
		return 0;
	if (!p->steps--)
		return flags & FS_NOWAIT ? -EAGAIN : -EUCLEAN;
	p->at[d].idx++;
	while (p->depth > d + 1)
		cache_unpin(&p->at[--p->depth].pin, 1);
	while (!err && p->depth < depth)
		err = descend_one(dir, 0, flags, p);
	return err ? err : 1;
}

/* ---- finding -------------------------------------------------------------------------------------------------------------- */

/* @first: of the leaves that can have names of this hash, the one that takes a new one. */
static int leaf_find(struct ext4_node *dir, uint32_t lblk, const char *name, uint32_t len, unsigned flags, bool first,
		     bool make, struct ext4_place *p) REQUIRES_SHARED(dir->rw)
{
	const struct ext4_dirfmt *f = ext4_dirfmt_of(dir);
	struct cache_seg seg;
	struct ext4_dent d;
	int r = ext4_dir_pin(dir, lblk, EXT4_BLK_LEAF, flags, &seg);

	if (r)
		return r;
	r = ext4_dirblk_find(f, seg.base, name, len, &d, &p->prev);
	if (r > 0) {
		p->lblk = lblk;
		p->off = d.off;
		p->ino = d.ino;
		p->type = d.type;
	} else if (!r && first) {
		p->lblk = lblk;
		if (make)
			p->room = ext4_dirblk_room(f, seg.base, len);
	}
	cache_unpin(&seg, 1);
	return r;
}

int ext4_htree_find(struct ext4_node *dir, const char *name, uint32_t len, unsigned flags, bool make,
		    struct ext4_place *p)
{
	struct ext4_hash h = {.major = 0};
	struct ext4_dx_path path;
	uint32_t next;
	int r = ext4_dx_open(dir, flags, &path);

	if (!r) {
		ext4_name_hash(ext4_dirfmt_of(dir), path.version, name, len, &h);
		r = ext4_dx_descend(dir, h.major, flags, &path);
	}
	if (!r)
		r = leaf_find(dir, ext4_dx_leaf(&path), name, len, flags, true, make, p);
	/* Names of one hash may go on in the next leaf. A new one goes into the first. */
	while (!r && ext4_dx_peek(&path, &next) && (next & ~1u) == h.major) {
		r = ext4_dx_step(dir, flags, &path);
		if (r > 0)
			r = leaf_find(dir, ext4_dx_leaf(&path), name, len, flags, false, false, p);
	}
	ext4_dx_drop(&path);
	return r;
}

/* ---- growing -------------------------------------------------------------------------------------------------------------- */

struct entry {
	const char *name;
	uint32_t len, ino;
	uint8_t type;
	uint32_t hash;
};

/* The pair (hash, block) behind the path's at level @d, on disk. The path is stale afterwards. */
static int add_pair(struct ext4_node *dir, struct ext4_dx_path *p, unsigned d, uint32_t hash, uint32_t block)
	REQUIRES(dir->rw)
{
	struct ext4_names *names = ext4_fs_of_node(dir)->names;
	uint8_t *b = names->scratch[2];
	struct ext4_dx x = p->at[d].x;

	memcpy(b, x.b, names->fmt.block_size);
	ext4_dx_insert(b, &x, p->at[d].idx, hash, block);
	return ext4_dir_write(dir, p->at[d].lblk, d ? EXT4_BLK_NODE : EXT4_BLK_ROOT, b);
}

/* One step towards room for a pair above the leaf. */
static int grow_index(struct ext4_node *dir, struct ext4_dx_path *p) REQUIRES(dir->rw)
{
	struct ext4_names *names = ext4_fs_of_node(dir)->names;
	uint8_t *b = names->scratch[0], *fresh = names->scratch[1];
	int d = p->depth - 1, err;
	uint32_t lblk, hash;
	struct ext4_dx x;

	while (d >= 0 && p->at[d].x.count == p->at[d].x.limit)
		d--;
	if (d < 0 && p->depth > names->fmt.levels_max)
		return -ENOSPC;
	x = p->at[d + 1].x;
	memcpy(b, x.b, names->fmt.block_size);
	err = ext4_dir_append(dir, &lblk);
	if (err)
		return err;
	if (d < 0) {
		ext4_dx_deepen(&names->fmt, b, &x, fresh, lblk);
		err = ext4_dir_write(dir, lblk, EXT4_BLK_NODE, fresh);
		return err ? err : ext4_dir_write(dir, 0, EXT4_BLK_ROOT, b);
	}
	hash = ext4_dx_split(&names->fmt, b, &x, fresh);
	err = ext4_dir_write(dir, lblk, EXT4_BLK_NODE, fresh);
	if (!err)
		err = add_pair(dir, p, (unsigned)d, hash, lblk);
	return err ? err : ext4_dir_write(dir, p->at[d + 1].lblk, EXT4_BLK_NODE, b);
}

static int put_in(const struct ext4_dirfmt *f, uint8_t *b, const struct entry *e)
{
	uint32_t room = ext4_dirblk_room(f, b, e->len);

	return room == EXT4_NO_OFF ? -EUCLEAN : ext4_dirblk_insert(f, b, room, e->name, e->len, e->ino, e->type);
}

/* The leaf @b of the path is full. Its parent has room. */
static int split_leaf(struct ext4_node *dir, struct ext4_dx_path *p, const uint8_t *b, const struct entry *e)
	REQUIRES(dir->rw)
{
	struct ext4_names *names = ext4_fs_of_node(dir)->names;
	uint8_t *lo = names->scratch[0], *hi = names->scratch[1];
	uint32_t at, lblk;
	int err;

	err = ext4_dirblk_split(&names->fmt, p->version, b, names->split, e->hash, e->len, lo, hi, &at);
	if (!err)
		err = put_in(&names->fmt, e->hash >= (at & ~1u) ? hi : lo, e);
	if (!err)
		err = ext4_dir_append(dir, &lblk);
	if (!err)
		err = ext4_dir_write(dir, lblk, EXT4_BLK_LEAF, hi);
	if (!err)
		err = add_pair(dir, p, p->depth - 1u, at, lblk);
	return err ? err : ext4_dir_write(dir, ext4_dx_leaf(p), EXT4_BLK_LEAF, lo);
}

/* One attempt: 0 done, 1 the index grew and the way must be looked for again. */
static int insert_step(struct ext4_node *dir, struct ext4_dx_path *p, const struct entry *e) REQUIRES(dir->rw)
{
	struct ext4_names *names = ext4_fs_of_node(dir)->names;
	const struct ext4_dx *parent = &p->at[p->depth - 1].x;
	uint32_t lblk = ext4_dx_leaf(p);
	struct cache_seg seg;
	int err = ext4_dir_pin(dir, lblk, EXT4_BLK_LEAF, 0, &seg);

	if (err)
		return err;
	if (ext4_dirblk_free(&names->fmt, seg.base) >= ext4_dent_size(e->len)) {
		ext4_dirblk_compact(&names->fmt, seg.base, 0, names->scratch[0]);
		err = put_in(&names->fmt, names->scratch[0], e);
		if (!err)
			err = ext4_dir_write(dir, lblk, EXT4_BLK_LEAF, names->scratch[0]);
	} else if (parent->count < parent->limit) {
		err = split_leaf(dir, p, seg.base, e);
	} else {
		err = grow_index(dir, p);
		err = err ? err : 1;
	}
	cache_unpin(&seg, 1);
	return err;
}

int ext4_htree_insert(struct ext4_node *dir, const char *name, uint32_t len, uint32_t ino, uint8_t type)
{
	struct entry e = {.name = name, .len = len, .ino = ino, .type = type};
	struct ext4_dx_path p;
	struct ext4_hash h;
	int r = 1;

	/* A new level, and a split on each: no more steps than that can be needed. */
	for (unsigned tries = 0; r > 0 && tries <= 2 * EXT4_DX_DEPTH; tries++) {
		r = ext4_dx_open(dir, 0, &p);
		if (!r) {
			ext4_name_hash(ext4_dirfmt_of(dir), p.version, name, len, &h);
			e.hash = h.major;
			r = ext4_dx_descend(dir, h.major, 0, &p);
		}
		if (!r)
			r = insert_step(dir, &p, &e);
		ext4_dx_drop(&p);
	}
	return r > 0 ? -EUCLEAN : r;
}

/* Everything behind ".." moves to a leaf of its own, block 0 becomes the root. */
static int make_root(struct ext4_node *dir, const uint8_t *b, const struct ext4_dent *dotdot) REQUIRES(dir->rw)
{
	struct ext4_names *names = ext4_fs_of_node(dir)->names;
	uint8_t *leaf = names->scratch[0], *root = names->scratch[1];
	uint32_t lblk;
	int err;

	ext4_dirblk_compact(&names->fmt, b, dotdot->off + dotdot->rec_len, leaf);
	err = ext4_dir_append(dir, &lblk);
	if (err)
		return err;
	ext4_dx_init_root(&names->fmt, root, (uint32_t)dir->n.ino, dotdot->ino, lblk);
	err = ext4_dir_write(dir, lblk, EXT4_BLK_LEAF, leaf);
	if (!err)
		err = ext4_dir_write(dir, 0, EXT4_BLK_ROOT, root);
	if (err)
		return err;
	dir->inode.i_flags |= EXT2_INDEX_FL;
	ext4_node_dirty(dir);
	return 0;
}

int ext4_htree_convert(struct ext4_node *dir, const char *name, uint32_t len, uint32_t ino, uint8_t type)
{
	struct ext4_names *names = ext4_fs_of_node(dir)->names;
	struct entry e = {.name = name, .len = len, .ino = ino, .type = type};
	struct ext4_dent dotdot;
	struct cache_seg seg;
	int err = ext4_dir_pin(dir, 0, EXT4_BLK_LEAF, 0, &seg);
	bool fits;

	if (err)
		return err;
	fits = ext4_dirblk_free(&names->fmt, seg.base) >= ext4_dent_size(len);
	err = ext4_dirblk_dotdot(&names->fmt, seg.base, &dotdot);
	if (!err && fits) {
		ext4_dirblk_compact(&names->fmt, seg.base, 0, names->scratch[0]);
		err = put_in(&names->fmt, names->scratch[0], &e);
		if (!err)
			err = ext4_dir_write(dir, 0, EXT4_BLK_LEAF, names->scratch[0]);
	} else if (!err) {
		err = make_root(dir, seg.base, &dotdot);
		if (!err)
			err = ext4_htree_insert(dir, name, len, ino, type);
	}
	cache_unpin(&seg, 1);
	return err;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * xattr.c - extended attributes of an inode
 *
 * What lies in the inode itself is kept with the node while that is in memory (node->body, from i_extra_isize's end to the inode's)
 * and stored with it. A block of attributes is read each time, under fs->mu, since inodes share such blocks.
 *
 * An attribute is put into the inode when there is room, else into the block. A block that others use as well is not changed: the
 * inode gets one of its own. Not kept: attributes whose value has an inode of its own (ea_inode), and new sharing of blocks.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/ext4/journal.h"
#include "vhd/ext4/xattr_int.h"

#define CREDITS 16u /* the inode, two blocks; what allocation touches is counted apart */

/* ---- in the inode ------------------------------------------------------------------------------------------------------------- */

uint32_t ext4_body_start(const struct ext4_fs *fs, const struct ext2_inode_large *i)
{
	uint32_t size = (uint32_t)EXT2_INODE_SIZE(fs->e2->super), at = EXT2_GOOD_OLD_INODE_SIZE + i->i_extra_isize;

	/* An i_extra_isize of 0: its fields were never used, and nobody says where they end. */
	if (size <= EXT2_GOOD_OLD_INODE_SIZE || !i->i_extra_isize || i->i_extra_isize % XATTR_PAD ||
	    at + sizeof(le32) + XATTR_PAD > size)
		return 0;
	return at;
}

static uint32_t body_size(const struct ext4_fs *fs, const struct ext4_node *n) NO_THREAD_SAFETY
{
	uint32_t start = ext4_body_start(fs, &n->inode);

	return start ? (uint32_t)EXT2_INODE_SIZE(fs->e2->super) - start : 0;
}

int ext4_body_load(struct ext4_node *n, const uint8_t *raw)
{
	const struct ext4_fs *fs = ext4_fs_of_node(n);
	uint32_t start = ext4_body_start(fs, &n->inode), len = body_size(fs, n);
	le32 magic;

	if (!start)
		return 0;
	memcpy(&magic, raw + start, sizeof magic);
	if (le32_get(magic) != XATTR_MAGIC)
		return 0;
	n->body = malloc(len);
	if (!n->body)
		return -ENOMEM;
	memcpy(n->body, raw + start, len);
	return 0;
}

/* @body: as node->body; NULL is no area. */
static struct xattr_area in_body(uint8_t *body, uint32_t len)
{
	if (!body)
		return (struct xattr_area){.base = NULL};
	return (struct xattr_area){.base = body + sizeof(le32), .size = len - (uint32_t)sizeof(le32)};
}

/* ---- in a block --------------------------------------------------------------------------------------------------------------- */

static struct xattr_area in_block(const struct ext4_fs *fs, uint8_t *block)
{
	return (struct xattr_area){
		.base = block, .first = sizeof(struct xattr_header), .size = fs->block_size, .hashed = true};
}

static uint64_t block_of(const struct ext4_fs *fs, const struct ext4_node *n) NO_THREAD_SAFETY
{
	return ext2fs_file_acl_block(fs->e2, (const struct ext2_inode *)&n->inode);
}

static uint32_t refcount(const uint8_t *block)
{
	return le32_get(((const struct xattr_header *)block)->refcount);
}

/* The inode's block; *out is the caller's. Under fs->mu. -EAGAIN (FS_NOWAIT), -EUCLEAN, -ENOMEM, -EIO. */
static int block_read(struct ext4_node *n, unsigned flags, uint8_t **out) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	struct ext2_super_block *s = fs->e2->super;
	uint64_t at = block_of(fs, n);
	struct xattr_header *h;
	uint8_t *block;
	int err;

	if (at < s->s_first_data_block || at >= ext2fs_blocks_count(s) || ext4_in_zones(fs, at, 1))
		return -EUCLEAN;
	block = malloc(fs->block_size);
	if (!block)
		return -ENOMEM;
	h = (struct xattr_header *)block;
	err = cache_read(fs->dev, block, fs->block_size, at << fs->block_bits,
			 CACHE_META | (flags & FS_NOWAIT ? (unsigned)CACHE_NOWAIT : 0));
	if (!err && (le32_get(h->magic) != XATTR_MAGIC || le32_get(h->blocks) != 1 || !le32_get(h->refcount) ||
		     !ext2fs_ext_attr_block_csum_verify(fs->e2, (ext2_ino_t)n->n.ino, at,
							(struct ext2_ext_attr_header *)block)))
		err = -EUCLEAN;
	if (err)
		free(block);
	else
		*out = block;
	return err;
}

/* With a new checksum. */
static int block_write(struct ext4_node *n, uint64_t at, uint8_t *block) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);

	ext2fs_ext_attr_block_csum_set(fs->e2, (ext2_ino_t)n->n.ino, at, (struct ext2_ext_attr_header *)block);
	return ext4_meta_write(fs, block, fs->block_size, at << fs->block_bits);
}

/* One inode less uses the block: @n. Its i_blocks and i_file_acl are the caller's. */
static int block_drop(struct ext4_node *n, uint64_t at, uint8_t *block) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	struct xattr_header *h = (struct xattr_header *)block;

	if (refcount(block) == 1) {
		ext4_blocks_freed(fs, at, 1);
		return 0;
	}
	h->refcount = le32_of(refcount(block) - 1);
	return block_write(n, at, block);
}

static void set_block(struct ext4_node *n, uint64_t at) NO_THREAD_SAFETY
{
	ext2fs_file_acl_block_set(ext4_fs_of_node(n)->e2, (struct ext2_inode *)&n->inode, at);
}

/* The inode has no block any more. */
static int block_leave(struct ext4_node *n, uint64_t at, uint8_t *block) NO_THREAD_SAFETY
{
	int err = block_drop(n, at, block);

	if (err)
		return err;
	ext2fs_iblk_sub_blocks(ext4_fs_of_node(n)->e2, (struct ext2_inode *)&n->inode, 1);
	set_block(n, 0);
	return 0;
}

int ext4_xattr_release(struct ext4_node *n) NO_THREAD_SAFETY
{
	uint64_t at = block_of(ext4_fs_of_node(n), n);
	uint8_t *block;
	int err = at ? block_read(n, 0, &block) : 0;

	if (!at || err)
		return err;
	err = block_leave(n, at, block);
	free(block);
	return err;
}

/* ---- getting ------------------------------------------------------------------------------------------------------------------ */

/* The value in an area, copied: its length, or as fs_ops.getxattr. */
static int get_from(const struct xattr_area *a, const struct xattr_name *name, void *buf, uint32_t cap)
{
	uint32_t off, len;
	int got = ext4_xattr_find(a, name, &off, &len);

	if (got <= 0)
		return got ? got : -ENODATA;
	if (cap && len > cap)
		return -ERANGE;
	if (cap)
		memcpy(buf, a->base + off, len);
	return (int)len;
}

int ext4_lock_shared(struct ext4_node *n, unsigned flags) NO_THREAD_SAFETY
{
	if (!(flags & FS_NOWAIT))
		rwlock_read(&n->rw);
	else if (!rwlock_try_read(&n->rw))
		return -EAGAIN;
	return 0;
}

/* @more: the inode has a block, where it may be. */
static int get_body(struct ext4_node *n, const struct xattr_name *name, void *buf, uint32_t cap, unsigned flags,
		    bool *more) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	struct xattr_area a;
	int err = ext4_lock_shared(n, flags);

	if (err)
		return err;
	a = in_body(n->body, body_size(fs, n));
	*more = block_of(fs, n);
	err = get_from(&a, name, buf, cap);
	rwlock_drop(&n->rw);
	return err;
}

static int get_block(struct ext4_node *n, const struct xattr_name *name, void *buf, uint32_t cap,
		     unsigned flags) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	uint8_t *block;
	int err = ext4_lock_shared(n, flags);

	if (err)
		return err;
	err = block_of(fs, n) ? block_read(n, flags, &block) : -ENODATA;
	rwlock_drop(&n->rw);
	if (!err) {
		struct xattr_area a = in_block(fs, block);

		err = get_from(&a, name, buf, cap);
		free(block);
	}
	return err;
}

int ext4_op_getxattr(struct fs_node *fn, const char *full, void *buf, uint32_t cap, unsigned flags) NO_THREAD_SAFETY
{
	struct ext4_node *n = ext4_node_of(fn);
	struct ext4_fs *fs = ext4_fs_of_node(n);
	struct xattr_name name;
	bool more = false;
	int err;

	if ((err = ext4_xattr_name(full, &name)) < 0)
		return err;
	err = get_body(n, &name, buf, cap, flags, &more);
	if (err != -ENODATA || !more)
		return err;
	/* fs->mu comes before the node's lock. In between the attribute may have come from the block into the inode: look again. */
	if (!(flags & FS_NOWAIT))
		lock_take(&fs->mu);
	else if (!lock_try(&fs->mu))
		return -EAGAIN;
	err = get_body(n, &name, buf, cap, flags, &more);
	if (err == -ENODATA && more)
		err = get_block(n, &name, buf, cap, flags);
	lock_drop(&fs->mu);
	return err;
}

int ext4_xattr_view(struct ext4_node *n, unsigned flags, struct xattr_view *v) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	int err = 0;

	*v = (struct xattr_view){.in = {in_body(n->body, body_size(fs, n))}};
	if (block_of(fs, n) && (err = block_read(n, flags, &v->block)) == 0)
		v->in[1] = in_block(fs, v->block);
	return err;
}

int ext4_xattr_view_find(const struct xattr_view *v, const struct xattr_name *name, const uint8_t **value,
			 uint32_t *len)
{
	uint32_t off;
	int got = 0;

	for (unsigned i = 0; !got && i < ARRAY_LEN(v->in); i++) {
		got = ext4_xattr_find(&v->in[i], name, &off, len);
		if (got > 0)
			*value = v->in[i].base + off;
	}
	return got;
}

/* ---- setting ------------------------------------------------------------------------------------------------------------------ */

/* All that a change writes is made before anything is changed. */
struct plan {
	uint64_t at;    /* of the inode's block; 0: none */
	uint8_t *old;   /* that block */
	uint8_t *block; /* what becomes of it; NULL: it stays */
	int entries;    /* in @block */
	uint8_t *body;  /* what becomes of node->body; NULL: it stays */
};

static int plan_body(struct ext4_node *n, const struct xattr_change *c, struct plan *p) NO_THREAD_SAFETY
{
	uint32_t len = body_size(ext4_fs_of_node(n), n);
	const le32 magic = le32_of(XATTR_MAGIC);
	struct xattr_area from = in_body(n->body, len), to;
	int got;

	if (!len)
		return -ENOSPC;
	p->body = calloc(1, len);
	if (!p->body)
		return -ENOMEM;
	memcpy(p->body, &magic, sizeof magic);
	to = in_body(p->body, len);
	got = ext4_xattr_build(&from, c, &to);
	if (got >= 0)
		return 0;
	free(p->body);
	p->body = NULL;
	return got;
}

static int plan_block(struct ext4_node *n, const struct xattr_change *c, struct plan *p)
{
	const struct ext4_fs *fs = ext4_fs_of_node(n);
	const struct xattr_area none = {.base = NULL};
	struct xattr_area from = p->old ? in_block(fs, p->old) : none, to;
	int got;

	p->block = calloc(1, fs->block_size);
	if (!p->block)
		return -ENOMEM;
	to = in_block(fs, p->block);
	got = ext4_xattr_build(&from, c, &to);
	if (got < 0)
		return got;
	p->entries = got;
	*(struct xattr_header *)p->block = (struct xattr_header){.magic = le32_of(XATTR_MAGIC),
								 .refcount = le32_of(1),
								 .blocks = le32_of(1),
								 .hash = le32_of(ext4_xattr_block_hash(&to))};
	return 0;
}

/* Which of the two areas change, and to what: an attribute is in one of them. */
static int make_plan(struct ext4_node *n, const struct xattr_change *c, struct plan *p) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	const struct xattr_change without = {.name = c->name};
	struct xattr_area a = in_body(n->body, body_size(fs, n));
	int body, block = 0, err;
	uint32_t off, len;

	if ((body = ext4_xattr_find(&a, &c->name, &off, &len)) < 0)
		return body;
	p->at = block_of(fs, n);
	if (p->at) {
		if ((err = block_read(n, 0, &p->old)) < 0)
			return err;
		a = in_block(fs, p->old);
		if ((block = ext4_xattr_find(&a, &c->name, &off, &len)) < 0)
			return block;
	}
	if (!c->value && !body && !block)
		return -ENODATA;
	err = c->value ? plan_body(n, c, p) : -ENOSPC;
	if (!err)
		return block ? plan_block(n, &without, p) : 0;
	if (err == -ENOSPC && body)
		err = plan_body(n, &without, p);
	if (err && err != -ENOSPC)
		return err;
	return c->value || block ? plan_block(n, c, p) : 0;
}

/* The block as planned is the inode's own. -ENOSPC with nothing changed. */
static int apply_block(struct ext4_node *n, const struct plan *p) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	uint64_t at = p->at;
	uint32_t got;
	int err;

	if (!p->entries)
		return block_leave(n, p->at, p->old);
	if (p->at && refcount(p->old) == 1)
		return block_write(n, at, p->block);
	if ((err = ext4_alloc_run(fs, ext4_goal_of_inode(fs, n->n.ino), 1, false, &at, &got)) < 0)
		return err;
	err = block_write(n, at, p->block);
	if (!err && p->at)
		err = block_drop(n, p->at, p->old);
	if (err) {
		ext4_alloc_free(fs, at, 1);
		return err;
	}
	ext2fs_block_alloc_stats2(fs->e2, at, +1);
	if (!p->at)
		ext2fs_iblk_add_blocks(fs->e2, (struct ext2_inode *)&n->inode, 1);
	set_block(n, at);
	return 0;
}

static void apply_body(struct ext4_node *n, struct plan *p) NO_THREAD_SAFETY
{
	uint32_t start = ext4_body_start(ext4_fs_of_node(n), &n->inode), known = sizeof n->inode;

	free(n->body);
	n->body = p->body;
	n->body_dirty = true;
	p->body = NULL;
	/* Its first bytes may be where fields are that this inode is too old to have. */
	if (start < known)
		memcpy((uint8_t *)&n->inode + start, n->body, known - start);
}

/* The superblock says that there are attributes. */
static void set_feature(struct ext4_fs *fs) NO_THREAD_SAFETY
{
	if (ext2fs_has_feature_xattr(fs->e2->super))
		return;
	ext2fs_set_feature_xattr(fs->e2->super);
	fs->super_dirty = true;
}

static bool is_caps(const struct xattr_name *name)
{
	return name->index == ext4_xattr_caps.index && name->len == ext4_xattr_caps.len &&
	       memcmp(name->name, ext4_xattr_caps.name, name->len) == 0;
}

int ext4_xattr_set(struct ext4_node *n, const struct xattr_change *c) NO_THREAD_SAFETY
{
	struct plan p = {0};
	int err = make_plan(n, c, &p);

	if (!err && p.block)
		err = apply_block(n, &p);
	if (!err && p.body)
		apply_body(n, &p);
	if (!err) {
		set_feature(ext4_fs_of_node(n));
		if (is_caps(&c->name))
			atomic_store(&n->caps, c->value != NULL);
		ext4_node_touch(n, EXT4_T_C);
	}
	free(p.old);
	free(p.block);
	free(p.body);
	return err;
}

int ext4_op_setxattr(struct fs_node *fn, const char *full, const void *value, uint32_t len) NO_THREAD_SAFETY
{
	struct ext4_node *n = ext4_node_of(fn);
	struct ext4_fs *fs = ext4_fs_of_node(n);
	struct xattr_change c = {.value = value, .len = value ? len : 0};
	int err;

	if ((err = ext4_xattr_name(full, &c.name)) < 0)
		return err;
	if (c.name.index == XATTR_USER && fn->type != FS_REG && fn->type != FS_DIR)
		return -EPERM;
	if ((err = ext4_op_begin(fs, CREDITS, 0)) < 0)
		return err;
	rwlock_write(&n->rw);
	if (n->dead)
		err = -ESTALE;
	else if (n->inode.i_flags & (EXT2_IMMUTABLE_FL | EXT2_APPEND_FL))
		err = -EPERM;
	else if (fs->e2->super->s_rev_level == EXT2_GOOD_OLD_REV)
		err = -ENOTSUP; /* no features, so none that says that there are attributes */
	else
		err = ext4_xattr_set(n, &c);
	rwlock_drop(&n->rw);
	return ext4_op_end(fs, err);
}

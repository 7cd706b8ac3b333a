/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * inline.c - files, directories and links that lie in their inode (inline_data); only read
 *
 * The first 60 bytes are in i_block, the rest is the value of an attribute "system.data" in the inode:
 *
 *     inode:  fields | i_block: 60 bytes | fields | attributes … value of system.data
 *
 * A directory's i_block begins with its parent's number; entries fill the rest of it, and, by themselves, the value. There is no
 * "." and no "..". libext2fs 1.47.0 writes beyond its buffers when it reads such inodes, so it is not asked.
 *
 * A file system with such inodes is mounted read-only, so what is in memory of one is what is on the disk.
 */
#include <errno.h>
#include <string.h>

#include "vhd/base/checked.h"
#include "vhd/ext4/dir_int.h"
#include "vhd/ext4/xattr_int.h"

#define HEAD 60u /* bytes in i_block */
#define PARENT 4u
#define SYSTEM_INDEX 7u

bool ext4_is_inline(const struct ext4_node *n) NO_THREAD_SAFETY
{
	return n->inode.i_flags & EXT4_INLINE_DATA_FL;
}

/* Where the value begins in the inode, and its bytes; 0: there is none. */
static int find_value(struct ext4_node *n, uint32_t *at, uint32_t *len) NO_THREAD_SAFETY
{
	static const struct xattr_name name = {.index = SYSTEM_INDEX, .len = 4, .name = "data"};
	const struct ext4_fs *fs = ext4_fs_of_node(n);
	uint32_t start = ext4_body_start(fs, &n->inode), off;
	struct xattr_area a = {.base = NULL};
	int got;

	*at = *len = 0;
	if (!n->body)
		return 0;
	a.base = n->body + sizeof(le32);
	a.size = (uint32_t)EXT2_INODE_SIZE(fs->e2->super) - start - (uint32_t)sizeof(le32);
	got = ext4_xattr_find(&a, &name, &off, len);
	if (got <= 0) {
		*len = 0;
		return got;
	}
	*at = start + (uint32_t)sizeof(le32) + off;
	return 0;
}

/* Where an inode is on the device. */
static uint64_t place_of(const struct ext4_fs *fs, uint64_t ino) NO_THREAD_SAFETY
{
	const struct ext2_super_block *s = fs->e2->super;
	uint32_t group = (uint32_t)((ino - 1) / s->s_inodes_per_group);
	uint64_t in = (ino - 1) % s->s_inodes_per_group;

	return (ext2fs_inode_table_loc(fs->e2, group) << fs->block_bits) + in * (uint64_t)EXT2_INODE_SIZE(s);
}

int ext4_inline_read(struct ext4_node *n, uint64_t off, uint32_t len, unsigned cache_flags, struct cache_seg *seg,
		     unsigned max) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	uint64_t base = place_of(fs, n->n.ino);
	unsigned got = 0;
	uint32_t at, bytes;
	int err = find_value(n, &at, &bytes);

	if (err || off + len > HEAD + bytes)
		return err ? err : -EUCLEAN;
	while (len) {
		uint32_t here = off < HEAD ? (uint32_t)min_u64(len, HEAD - off) : len;
		uint64_t from = off < HEAD ? offsetof(struct ext2_inode_large, i_block) + off : at + (off - HEAD);
		int k = cache_pin(fs->dev, base + from, here, cache_flags, seg + got, max - got);

		if (k < 0) {
			cache_unpin(seg, got);
			return k;
		}
		got += (unsigned)k;
		off += here;
		len -= here;
	}
	return (int)got;
}

int ext4_inline_copy(struct ext4_node *n, uint8_t *to, uint32_t len) NO_THREAD_SAFETY
{
	uint32_t at, bytes, first = (uint32_t)min_u64(len, HEAD);
	int err = find_value(n, &at, &bytes);

	if (err || len > HEAD + bytes)
		return err ? err : -EUCLEAN;
	memcpy(to, n->inode.i_block, first);
	if (len > first)
		memcpy(to + first, n->body + (at - ext4_body_start(ext4_fs_of_node(n), &n->inode)), len - first);
	return 0;
}

/* ---- directories ------------------------------------------------------------------------------------------------------------ */

/* The two runs of entries; the second may be empty. */
struct run {
	const uint8_t *b;
	uint32_t len;
};

static int runs_of(struct ext4_node *dir, struct run run[2]) NO_THREAD_SAFETY
{
	uint32_t at;
	int err = find_value(dir, &at, &run[1].len);

	run[0] = (struct run){.b = (const uint8_t *)dir->inode.i_block + PARENT, .len = HEAD - PARENT};
	run[1].b = run[1].len ? dir->body + (at - ext4_body_start(ext4_fs_of_node(dir), &dir->inode)) : NULL;
	return err;
}

/* Every entry that is one, in their order, until @fn says no; @pos grows with them. */
static int each(struct ext4_node *dir, bool (*fn)(void *arg, const struct ext4_dent *d, uint64_t pos), void *arg)
{
	struct ext4_dirfmt f = *ext4_dirfmt_of(dir);
	struct run run[2];
	struct ext4_dent d;
	int r = runs_of(dir, run);

	for (unsigned i = 0; i < 2 && r >= 0; i++) {
		f.block_size = f.end = run[i].len;
		for (uint32_t off = 0; (r = ext4_dirblk_next(&f, run[i].b, off, &d)) > 0; off += d.rec_len) {
			if (d.ino && !ext4_dent_ok(&f, &d))
				return -EUCLEAN;
			if (d.ino && !fn(arg, &d, (uint64_t)i << 16 | off))
				return 0;
		}
	}
	return r;
}

struct wanted {
	const char *name;
	uint32_t len, ino;
};

static bool is_wanted(void *arg, const struct ext4_dent *d, uint64_t pos)
{
	struct wanted *w = arg;

	(void)pos;
	if (d->len == w->len && memcmp(d->name, w->name, w->len) == 0)
		w->ino = d->ino;
	return !w->ino;
}

int ext4_inline_find(struct ext4_node *dir, const char *name, uint32_t len, uint32_t *ino)
{
	struct wanted w = {.name = name, .len = len};
	int err = each(dir, is_wanted, &w);

	*ino = w.ino;
	return err ? err : w.ino ? 0 : -ENOENT;
}

int ext4_inline_parent(struct ext4_node *dir, uint32_t *ino) NO_THREAD_SAFETY
{
	le32 raw;

	memcpy(&raw, dir->inode.i_block, sizeof raw);
	*ino = le32_get(raw);
	return 0;
}

struct shown {
	uint64_t cookie;
	ext4_inline_emit *emit;
	void *arg;
};

static bool show(void *arg, const struct ext4_dent *d, uint64_t pos)
{
	struct shown *s = arg;

	/* An entry has 12 bytes at least. */
	return pos < s->cookie || s->emit(s->arg, d, pos + 4);
}

int ext4_inline_list(struct ext4_node *dir, uint64_t cookie, ext4_inline_emit *emit, void *arg)
{
	struct shown s = {.cookie = cookie, .emit = emit, .arg = arg};

	return each(dir, show, &s);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* ext4_names.h - what the tests of names share: short forms, listing, the kinds of file systems */
#ifndef TESTS_UNIT_EXT4_NAMES_H
#define TESTS_UNIT_EXT4_NAMES_H

#include <errno.h>

#include "tests/unit/ext4_image.h"
#include "vhd/base/cleanup.h"

static uint64_t rng_state = 1;

static inline uint32_t rnd(uint32_t n)
{
	rng_state = rng_state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(rng_state >> 33) % n;
}

/* Sanitizers make everything several times slower; they get less to do. */
#if defined(__SANITIZE_THREAD__)
enum { SLOW = 8 };
#elif defined(__SANITIZE_ADDRESS__)
enum { SLOW = 3 };
#else
enum { SLOW = 1 };
#endif

/* ---- short forms ----------------------------------------------------------------------------------------------------------- */

static inline uint32_t name_of(char *buf, uint32_t id)
{
	uint32_t len = (uint32_t)sprintf(buf, "%c%u.", 'a' + (char)(id % 26), id);
	uint32_t want = id % 97 == 0 ? 255 : id % 7 == 0 ? 60 : len + id % 12;

	for (; len < want; len++)
		buf[len] = id % 5 ? (char)('A' + (id + len) % 26) : (char)(0x80 + (id + len) % 64);
	return len;
}

static inline int make(struct fs_node *dir, const char *name, uint32_t len, enum fs_type type, struct fs_node **out)
{
	struct fs_create c = {.type = type,
			      .set = {.what = FS_SET_MODE | FS_SET_UID | FS_SET_GID, .mode = 0755},
			      .target = "target",
			      .target_len = 6};

	if (type == FS_BLK || type == FS_CHR) {
		c.rdev_major = 4;
		c.rdev_minor = 5;
	}
	return dir->fs->ops->create(dir, name, len, &c, out, NULL);
}

static inline int make_s(struct fs_node *dir, const char *name, enum fs_type type, struct fs_node **out)
{
	return make(dir, name, (uint32_t)strlen(name), type, out);
}

static inline int look(struct fs_node *dir, const char *name, struct fs_node **out)
{
	return dir->fs->ops->lookup(dir, name, (uint32_t)strlen(name), 0, out);
}

static inline int rm(struct fs_node *dir, const char *name)
{
	return dir->fs->ops->unlink(dir, name, (uint32_t)strlen(name), 0, NULL);
}

static inline int mv(struct fs_node *from, const char *name, struct fs_node *to, const char *nname)
{
	return from->fs->ops->rename(from, name, (uint32_t)strlen(name), to, nname, (uint32_t)strlen(nname), NULL,
				     NULL);
}

static inline int ln(struct fs_node *n, struct fs_node *dir, const char *name)
{
	return n->fs->ops->link(n, dir, name, (uint32_t)strlen(name), NULL);
}

static inline struct fs_attr attr(struct fs_node *n)
{
	struct fs_attr a;

	must_eq(n->fs->ops->getattr(n, 0, &a), 0);
	return a;
}

/* ---- listing ----------------------------------------------------------------------------------------------------------------- */

struct lister {
	uint64_t cookie;
	unsigned left;  /* entries still wanted in this call */
	uint32_t count; /* entries so far */
	void (*each)(void *arg, const struct fs_dirent *d);
	void *arg;
};

static inline bool emit(void *arg, const struct fs_dirent *d)
{
	struct lister *l = arg;

	if (!l->left)
		return false;
	must(d->cookie > 2);
	must(d->cookie >= l->cookie);
	must_eq(d->cookie >> 63, 0);
	l->left--;
	l->count++;
	l->cookie = d->cookie;
	if (l->each)
		l->each(l->arg, d);
	return true;
}

/* Lists up to @n entries; true at the end. */
static inline bool list_some(struct fs_node *dir, struct lister *l, unsigned n)
{
	bool eof;

	l->left = n;
	must_eq(dir->fs->ops->readdir(dir, l->cookie, 0, emit, l, &eof), 0);
	return eof;
}

static inline uint32_t count_entries(struct fs_node *dir, unsigned chunk)
{
	struct lister l = {0};

	while (!list_some(dir, &l, chunk))
		;
	return l.count;
}

/* ---- the kinds of file systems --------------------------------------------------------------------------------------------- */

static const struct kind {
	const char *name, *mkfs, *after; /* after: a command, its last argument is the image */
	unsigned mib;
	unsigned slow; /* how many times fewer rounds are done */
} kinds[] = {
	{"4k", "-t ext4 -b 4096", NULL, 64, 1},
	{"1k", "-t ext4 -b 1024", NULL, 48, 1},
	{"1k without checksums", "-t ext4 -b 1024 -O ^metadata_csum", NULL, 48, 1},
	{"4k without index", "-t ext4 -b 4096 -O ^dir_index", NULL, 64, 3},
	{"1k without index and checksums", "-t ext4 -b 1024 -O ^dir_index,^metadata_csum", NULL, 48, 3},
	{"1k large_dir, 32 bit", "-t ext4 -b 1024 -O large_dir,^64bit", NULL, 48, 1},
	{"ext2", "-t ext2 -b 1024 -O ^filetype", NULL, 48, 1},
	{"ext3, tea", "-t ext3 -b 4096", "tune2fs -E hash_alg=tea", 64, 1},
	{"legacy hash", "-t ext4 -b 1024", "tune2fs -E hash_alg=legacy", 48, 1},
	{"64k", "-t ext4 -b 65536 -O ^has_journal -N 16384", NULL, 256, 5},
	{"unsigned hash", "-t ext4 -b 1024", "debugfs -w -R 'set_super_value flags 2'", 48, 1},
};

static inline void kind_make(struct img *m, const struct kind *k)
{
	img_make(m, k->mib, k->mkfs);
	if (k->after)
		must_eq(shell("PATH=$PATH:/sbin:/usr/sbin; %s %s", k->after, m->path), 0);
}

#endif

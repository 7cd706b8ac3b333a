/* SPDX-License-Identifier: BSD-3-Clause */
/* test_ext4_namei.c - names and directories of the ext4 driver: meaning, limits, directories of others, damage, threads */
#include <ext2fs/ext2fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <time.h>

#include "tests/unit/ext4_names.h"

/* ---- meaning ----------------------------------------------------------------------------------------------------------------- */

START_TEST(rename_does_what_posix_says)
{
	struct fs_node *r, *a, *b, *f, *g, *n, *up;
	struct fs_attr before;
	struct img img;

	img_make(&img, 16, "-t ext4 -b 1024");
	img_mount(&img);
	r = img.fs->root;
	must_eq(make_s(r, "a", FS_DIR, &a), 0);
	must_eq(make_s(a, "b", FS_DIR, &b), 0);
	must_eq(make_s(r, "f", FS_REG, &f), 0);
	must_eq(make_s(r, "g", FS_REG, &g), 0);
	must_eq(mv(r, "none", r, "x"), -ENOENT);
	/* Into itself and below. */
	must_eq(mv(r, "a", a, "x"), -EINVAL);
	must_eq(mv(r, "a", b, "x"), -EINVAL);
	must_eq(mv(r, "a", b, "b"), -EINVAL);
	/* Over its own parent, which is not empty. */
	must_eq(mv(a, "b", r, "a"), -ENOTEMPTY);
	must_eq(mv(r, "f", r, "a"), -EISDIR);
	must_eq(mv(r, "a", r, "f"), -ENOTDIR);
	/* Two names of one inode: nothing happens. */
	must_eq(ln(f, r, "f2"), 0);
	before = attr(r);
	must_eq(mv(r, "f", r, "f2"), 0);
	must_eq(mv(r, "f", r, "f"), 0);
	must_eq(attr(r).change, before.change);
	must_eq(attr(f).nlink, 2);
	/* Replacing: the old file lives while it is held. */
	must_eq(mv(r, "f", r, "g"), 0);
	must_eq(attr(g).nlink, 0);
	must_eq(look(r, "g", &n), 0);
	must(n == f);
	fs_node_put(n);
	must_eq(ln(g, r, "again"), -ENOENT);
	/* A directory moves: links and "..". */
	must_eq(attr(r).nlink, 4);
	must_eq(mv(a, "b", r, "c"), 0);
	must_eq(attr(r).nlink, 5);
	must_eq(attr(a).nlink, 2);
	must_eq(img.fs->ops->parent(b, 0, &up), 0);
	must(up == r);
	fs_node_put(up);
	/* And replaces an empty one. */
	must_eq(mv(r, "a", r, "c"), 0);
	must_eq(attr(r).nlink, 4);
	must_eq(attr(b).nlink, 0);
	must_eq(make_s(b, "x", FS_REG, &n), -ENOENT);
	must_eq(mv(r, "g", b, "x"), -ENOENT);
	must_eq(look(b, "x", &n), -ENOENT);
	must_eq(mv(a, "x", f, "x"), -ENOTDIR);
	fs_node_put(a);
	fs_node_put(b);
	fs_node_put(f);
	fs_node_put(g);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_free(&img);
}
END_TEST

START_TEST(operations_that_must_fail_do_and_change_nothing)
{
	struct fs_node *r, *d, *f, *n;
	struct fs_cinfo ci;
	struct img img;
	uint64_t change;
	char long_name[256];

	img_make(&img, 16, "-t ext4");
	img_mount(&img);
	r = img.fs->root;
	must_eq(make_s(r, "d", FS_DIR, &d), 0);
	must_eq(make_s(d, "f", FS_REG, &f), 0);
	change = attr(d).change;
	must_eq(make_s(d, "f", FS_DIR, &n), -EEXIST);
	fs_node_put(n);
	must_eq(make_s(f, "x", FS_REG, &n), -ENOTDIR);
	must_eq(look(f, "x", &n), -ENOTDIR);
	must_eq(rm(f, "x"), -ENOTDIR);
	must_eq(rm(d, "x"), -ENOENT);
	must_eq(rm(r, "d"), -ENOTEMPTY);
	must_eq(ln(d, r, "x"), -EISDIR);
	must_eq(ln(f, d, "f"), -EEXIST);
	must_eq(ln(f, f, "f"), -ENOTDIR);
	must_eq(attr(d).change, change);
	memset(long_name, 'l', 255);
	must_eq(make(d, long_name, 255, FS_REG, &n), 0);
	fs_node_put(n);
	must_eq(img.fs->ops->lookup(d, long_name, 255, 0, &n), 0);
	fs_node_put(n);
	must_eq(img.fs->ops->lookup(d, long_name, 254, 0, &n), -ENOENT);
	/* change_info: before and after of the same step. */
	change = attr(d).change;
	must_eq(img.fs->ops->unlink(d, "f", 1, 0, &ci), 0);
	must(ci.atomic);
	must_eq(ci.before, change);
	must_eq(ci.after, attr(d).change);
	must(ci.after > ci.before);
	/* The file is open here still. */
	must_eq(attr(f).nlink, 0);
	must_eq(img.fs->ops->unlink(d, long_name, 255, 0, NULL), 0);
	must_eq(rm(r, "d"), 0);
	must_eq(make_s(d, "x", FS_REG, &n), -ENOENT);
	must_eq(img.fs->ops->parent(d, 0, &n), -ENOENT);
	must_eq(ln(f, d, "x"), -ENOENT);
	must_eq(img.fs->ops->parent(r, 0, &n), 0);
	must(n == r);
	fs_node_put(n);
	fs_node_put(d);
	fs_node_put(f);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_free(&img);
}
END_TEST

START_TEST(a_lookup_that_may_not_wait_finds_what_is_in_memory)
{
	struct fs_node *d, *f, *n;
	struct lister l = {.left = 100};
	struct img img;
	bool eof;

	img_make(&img, 16, "-t ext4");
	img_mount(&img);
	must_eq(make_s(img.fs->root, "d", FS_DIR, &d), 0);
	must_eq(make_s(d, "f", FS_REG, &f), 0);
	must_eq(img.fs->ops->lookup(d, "f", 1, FS_NOWAIT, &n), 0);
	must(n == f);
	fs_node_put(n);
	must_eq(img.fs->ops->lookup(d, "g", 1, FS_NOWAIT, &n), -ENOENT);
	must_eq(img.fs->ops->parent(d, FS_NOWAIT, &n), 0);
	fs_node_put(n);
	must_eq(img.fs->ops->readdir(d, 0, FS_NOWAIT, emit, &l, &eof), 0);
	must(eof);
	must_eq(l.count, 1);
	fs_node_put(d);
	fs_node_put(f);
	img_unmount(&img);
	img_free(&img);
}
END_TEST

/* A generation of all ones was once "any": a handle could be made of nothing but an inode's number. */
START_TEST(a_handle_finds_no_other_generation)
{
	static const uint32_t wrong[] = {0, 1, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff};
	struct fs_node *f, *n;
	struct img img;

	img_make(&img, 16, "-t ext4");
	img_mount(&img);
	must_eq(make_s(img.fs->root, "f", FS_REG, &f), 0);
	must_eq(img.fs->ops->get(img.fs, f->ino, f->gen, 0, &n), 0);
	fs_node_put(n);
	for (unsigned i = 0; i < ARRAY_LEN(wrong); i++)
		if (wrong[i] != f->gen)
			must_eq(img.fs->ops->get(img.fs, f->ino, wrong[i], 0, &n), -ESTALE);
	for (unsigned bit = 0; bit < 32; bit++)
		must_eq(img.fs->ops->get(img.fs, f->ino, f->gen ^ UINT32_C(1) << bit, 0, &n), -ESTALE);
	fs_node_put(f);
	img_unmount(&img);
	img_free(&img);
}
END_TEST

/* Who creates a name has often just seen that it is not there. Whatever happened in between, to that folder or to another, there is
 * never a second entry of a name, and none is refused that is not there. */
START_TEST(a_name_is_created_once_whatever_happened_since_it_was_looked_for)
{
	enum { IDS = 600 };
	bool is[2][IDS] = {{false}};
	struct fs_node *d[2], *x;
	uint32_t count[2] = {0, 0};
	struct img img;
	char name[256];

	img_make(&img, 32, "-t ext4 -b 1024 -O ^has_journal -N 4000");
	img_mount(&img);
	must_eq(make_s(img.fs->root, "a", FS_DIR, &d[0]), 0);
	must_eq(make_s(img.fs->root, "b", FS_DIR, &d[1]), 0);
	for (uint32_t i = 0; i < 40000 / SLOW; i++) {
		uint32_t id = rnd(IDS), len = name_of(name, id), k = rnd(2);

		must_eq(d[k]->fs->ops->lookup(d[k], name, len, 0, &x), is[k][id] ? 0 : -ENOENT);
		fs_node_put(x);
		/* Somebody else is quicker, with this name or another, here or there; or takes one away. */
		for (uint32_t n = rnd(3), other = rnd(2) ? id : rnd(IDS), at = rnd(2); n; n--, other = rnd(IDS)) {
			uint32_t olen = name_of(name, other);
			int want = is[at][other] ? -EEXIST : 0;

			if (rnd(3) && is[at][other]) {
				must_eq(d[at]->fs->ops->unlink(d[at], name, olen, 0, NULL), 0);
				is[at][other] = false;
				count[at]--;
				continue;
			}
			must_eq(make(d[at], name, olen, FS_REG, &x), want);
			fs_node_put(x);
			count[at] += !want;
			is[at][other] = true;
		}
		len = name_of(name, id);
		k = rnd(8) ? k : 1 - k;
		must_eq(make(d[k], name, len, FS_REG, &x), is[k][id] ? -EEXIST : 0);
		fs_node_put(x);
		count[k] += !is[k][id];
		is[k][id] = true;
	}
	for (unsigned k = 0; k < 2; k++) {
		must_eq(count_entries(d[k], 100), count[k]);
		fs_node_put(d[k]);
	}
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_free(&img);
}
END_TEST

/* ---- limits ------------------------------------------------------------------------------------------------------------------ */

/* Without large_dir an index has two levels; with 1 KiB blocks and long names it is full after some 15,000 leaves. */
START_TEST(a_full_index_says_no_space_and_stays_whole)
{
	struct fs_node *d, *n, *x;
	struct img img;
	char name[256];
	uint32_t i;
	int err = 0;

	/* A seed of its own: how full leaves are when the index is depends on how names fall. */
	img_make(&img, 96, "-t ext4 -b 1024 -O ^has_journal -N 2000 -E hash_seed=11111111-2222-3333-4444-555555555555");
	img_mount(&img);
	must_eq(make_s(img.fs->root, "d", FS_DIR, &d), 0);
	must_eq(make_s(img.fs->root, "f", FS_REG, &n), 0);
	memset(name, 'n', 255);
	for (i = 0; i < 64000; i++) {
		memcpy(name,
		       (char[]){(char)('a' + i % 16), (char)('a' + i / 16 % 16), (char)('a' + i / 256 % 16),
				(char)('a' + i / 4096)},
		       4);
		if ((err = img.fs->ops->link(n, d, name, 255, NULL)) < 0)
			break;
	}
	must_eq(err, -ENOSPC);
	must(i > 20000);
	must_eq(img.fs->ops->lookup(d, name, 255, 0, &x), -ENOENT);
	must_eq(count_entries(d, 1000), i);
	fs_node_put(n);
	fs_node_put(d);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_free(&img);
}
END_TEST

START_TEST(a_full_file_system_says_no_space_and_stays_whole)
{
	static const char *const mkfs[] = {"-t ext4 -b 1024 -O ^has_journal -N 4000",
					   "-t ext4 -b 1024 -O ^has_journal -N 64",
					   "-t ext4 -b 4096 -O ^has_journal,^dir_index -N 2000"};

	for (unsigned k = 0; k < ARRAY_LEN(mkfs); k++) {
		struct fs_node *n;
		struct img img;
		char name[256];
		uint32_t made = 0, refused = 0;

		img_make(&img, 2, mkfs[k]);
		img_mount(&img);
		for (uint32_t i = 0; refused < 40 && i < 20000; i++) {
			int err;

			memset(name, 'x', 250);
			memcpy(name + name_of(name, i), "#", 1);
			err = make(img.fs->root, name, 250, i % 3 ? FS_REG : FS_DIR, &n);
			if (!err)
				fs_node_put(n);
			must(!err || err == -ENOSPC);
			made += !err;
			refused += err != 0;
		}
		must(refused >= 40);
		must_eq(count_entries(img.fs->root, 77), made + 1);
		img_unmount(&img);
		must_eq(img_fsck(&img), 0);
		img_free(&img);
	}
}
END_TEST

/* With large_dir a third level comes; the image is small because names are long. */
START_TEST(a_third_level_is_added_with_large_dir)
{
	struct fs_node *d, *n, *x;
	struct img img;
	char name[256];

	img_make(&img, 96, "-t ext4 -b 1024 -O ^has_journal,large_dir -N 2000");
	img_mount(&img);
	must_eq(make_s(img.fs->root, "d", FS_DIR, &d), 0);
	must_eq(make_s(img.fs->root, "f", FS_REG, &n), 0);
	memset(name, 'n', 255);
	for (uint32_t i = 0; i < 60000; i++) {
		memcpy(name,
		       (char[]){(char)('a' + i % 16), (char)('a' + i / 16 % 16), (char)('a' + i / 256 % 16),
				(char)('a' + i / 4096)},
		       4);
		must_eq(img.fs->ops->link(n, d, name, 255, NULL), 0);
		if (i % 1000 == 999) {
			must_eq(img.fs->ops->lookup(d, name, 255, 0, &x), 0);
			fs_node_put(x);
		}
	}
	must_eq(count_entries(d, 1000), 60000);
	fs_node_put(n);
	fs_node_put(d);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	must_eq(shell("debugfs -R 'htree_dump /d' %s | grep -q 'Indirect levels: 2'", img.path), 0);
	img_free(&img);
}
END_TEST

/* Legacy hashes of these, behind 200 times p, are the same; four entries fill a leaf of 1 KiB. */
static const char *const same_hash[] = {"aaaaaa", "aegMQS", "ayYiW7", "bprn2l", "cQ7QiG", "iSIsrZ", "jKQEIW",
					"koFYLK", "o1r2t6", "pGmF0V", "tdARo3", "tsskiz", "tUSaqT", "ui6f3x"};

static uint32_t same_name(char *buf, uint32_t i)
{
	memset(buf, 'p', 200);
	memcpy(buf + 200, same_hash[i], 6);
	return 206;
}

START_TEST(names_of_one_hash_may_fill_several_leaves)
{
	struct fs_node *d, *n;
	struct img img;
	char name[256];
	const uint32_t same = ARRAY_LEN(same_hash);

	img_make(&img, 16, "-t ext4 -b 1024");
	must_eq(shell("PATH=$PATH:/sbin:/usr/sbin; tune2fs -E hash_alg=legacy %s", img.path), 0);
	img_mount(&img);
	must_eq(make_s(img.fs->root, "d", FS_DIR, &d), 0);
	for (uint32_t round = 0; round < 4; round++) {
		for (uint32_t i = 0; i < same; i++) {
			must_eq(make(d, name, same_name(name, i), FS_REG, &n), 0);
			fs_node_put(n);
			must_eq(make(d, name, name_of(name, round * same + i), FS_REG, &n), 0);
			fs_node_put(n);
		}
		for (uint32_t i = 0; i < same; i++) {
			must_eq(img.fs->ops->lookup(d, name, same_name(name, i), 0, &n), 0);
			fs_node_put(n);
			must_eq(make(d, name, same_name(name, i), FS_REG, &n), -EEXIST);
			fs_node_put(n);
		}
		for (unsigned chunk = 1; chunk < 20; chunk++)
			must_eq(count_entries(d, chunk), same * (2 + round));
		if (round < 3)
			for (uint32_t i = 0; i < same; i++)
				must_eq(img.fs->ops->unlink(d, name, same_name(name, (i * 5 + round) % same), 0, NULL),
					0);
	}
	fs_node_put(d);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_free(&img);
}
END_TEST

/* ---- directories that others made ------------------------------------------------------------------------------------------ */

static void host_tree(const char *dir, unsigned n)
{
	char path[512];

	must_eq(mkdir(dir, 0755), 0);
	for (unsigned i = 0; i < n; i++) {
		int fd;

		snprintf(path, sizeof path, "%s/host-%u-%.*s", dir, i, (int)(i % 30), "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyy");
		fd = open(path, O_CREAT | O_WRONLY, 0644);
		must(fd >= 0);
		close(fd);
	}
}

static void change_foreign(struct img *img, unsigned n)
{
	struct fs_node *d, *x;
	char name[256];

	img_mount(img);
	must_eq(look(img->fs->root, "big", &d), 0);
	must_eq(count_entries(d, 50), n);
	for (unsigned i = 0; i < n; i++) {
		uint32_t len = (uint32_t)sprintf(name, "host-%u-%.*s", i, (int)(i % 30),
						 "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyy");

		must_eq(img->fs->ops->lookup(d, name, len, 0, &x), 0);
		fs_node_put(x);
		if (i % 3 == 0)
			must_eq(img->fs->ops->unlink(d, name, len, 0, NULL), 0);
		if (i % 3 == 1) {
			must_eq(img->fs->ops->rename(d, name, len, d, "z", 1, NULL, NULL), 0);
			must_eq(img->fs->ops->rename(d, "z", 1, d, name, len, NULL, NULL), 0);
		}
		len = (uint32_t)sprintf(name, "new-%u", i);
		must_eq(make(d, name, len, FS_REG, &x), 0);
		fs_node_put(x);
	}
	must_eq(count_entries(d, 50), n - (n + 2) / 3 + n);
	fs_node_put(d);
	img_unmount(img);
	must_eq(img_fsck(img), 0);
}

START_TEST(directories_made_by_the_tools_are_read_and_changed)
{
	static const char *const mkfs[] = {"-t ext4 -b 1024", "-t ext4 -b 4096"};

	for (unsigned k = 0; k < 2 * ARRAY_LEN(mkfs); k++) {
		struct img img;
		char opts[256], host[96];

		/* Linear, as mke2fs -d leaves it; or packed tight and hashed by e2fsck -D. */
		img_make(&img, 32, mkfs[k / 2]);
		snprintf(host, sizeof host, "%s/tree", img.dir);
		must_eq(mkdir(host, 0755), 0);
		snprintf(opts, sizeof opts, "%s/big", host);
		host_tree(opts, 400);
		snprintf(opts, sizeof opts, "%s -d %s", mkfs[k / 2], host);
		must_eq(shell("PATH=$PATH:/sbin:/usr/sbin; mke2fs -q -F -E nodiscard %s %s 32M", opts, img.path), 0);
		if (k % 2)
			(void)shell("PATH=$PATH:/sbin:/usr/sbin; e2fsck -fyD %s; test $? -le 1", img.path);
		change_foreign(&img, 400);
		must_eq(shell("rm -rf %s", host), 0);
		img_free(&img);
	}
}
END_TEST

/* libext2fs makes a second entry of the same name: entries that nothing tells apart are still several. */
START_TEST(entries_with_equal_cookies_are_all_listed)
{
	ext2_filsys e2;
	struct fs_node *n;
	struct img img;

	img_make(&img, 16, "-t ext4 -b 1024");
	img_mount(&img);
	must_eq(make_s(img.fs->root, "f", FS_REG, &n), 0);
	fs_node_put(n);
	img_unmount(&img);
	must_eq(ext2fs_open(img.path, EXT2_FLAG_RW | EXT2_FLAG_64BITS, 0, 0, unix_io_manager, &e2), 0);
	for (unsigned i = 0; i < 5; i++)
		must_eq(ext2fs_link(e2, EXT2_ROOT_INO, "twin", EXT2_GOOD_OLD_FIRST_INO + 1, EXT2_FT_REG_FILE), 0);
	must_eq(ext2fs_close_free(&e2), 0);
	img_mount(&img);
	for (unsigned chunk = 1; chunk < 5; chunk++)
		must_eq(count_entries(img.fs->root, chunk), 7);
	img_unmount(&img);
	img_free(&img);
}
END_TEST

START_TEST(what_may_not_change_does_not)
{
	struct fs_node *r, *fixed, *append, *n, *f;
	struct img img;

	img_make(&img, 16, "-t ext4 -b 1024");
	img_mount(&img);
	r = img.fs->root;
	must_eq(make_s(r, "fixed", FS_DIR, &fixed), 0);
	must_eq(make_s(r, "append", FS_DIR, &append), 0);
	must_eq(make_s(r, "file", FS_REG, &f), 0);
	must_eq(make_s(fixed, "x", FS_REG, &n), 0);
	fs_node_put(n);
	must_eq(make_s(append, "x", FS_REG, &n), 0);
	fs_node_put(n);
	fs_node_put(f);
	fs_node_put(fixed);
	fs_node_put(append);
	img_unmount(&img);
	must_eq(shell("debugfs -w -R 'sif fixed flags 0x80010' %s && debugfs -w -R 'sif append flags 0x80020' %s && "
		      "debugfs -w -R 'sif file flags 0x80010' %s",
		      img.path, img.path, img.path),
		0);
	img_mount(&img);
	r = img.fs->root;
	must_eq(look(r, "fixed", &fixed), 0);
	must_eq(look(r, "append", &append), 0);
	must_eq(look(r, "file", &f), 0);
	must_eq(make_s(fixed, "y", FS_REG, &n), -EPERM);
	must_eq(rm(fixed, "x"), -EPERM);
	must_eq(mv(fixed, "x", r, "x"), -EPERM);
	must_eq(mv(r, "fixed", r, "other"), -EPERM);
	must_eq(make_s(append, "y", FS_REG, &n), 0);
	fs_node_put(n);
	must_eq(rm(append, "x"), -EPERM);
	must_eq(mv(append, "x", r, "x"), -EPERM);
	must_eq(mv(append, "x", append, "y"), -EPERM);
	must_eq(rm(r, "file"), -EPERM);
	must_eq(ln(f, r, "file2"), -EPERM);
	must_eq(mv(r, "file", r, "file2"), -EPERM);
	must_eq(mv(append, "x", r, "file"), -EPERM);
	fs_node_put(f);
	fs_node_put(fixed);
	fs_node_put(append);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_free(&img);
}
END_TEST

/* ---- hostile images ------------------------------------------------------------------------------------------------------------ */

/* Physical blocks of "/d". */
static unsigned blocks_of(const char *path, blk64_t *blk, unsigned max, ext2_ino_t *ino)
{
	ext2_filsys e2;
	unsigned n = 0;

	must_eq((int)ext2fs_open(path, EXT2_FLAG_64BITS, 0, 0, unix_io_manager, &e2), 0);
	must_eq((int)ext2fs_namei(e2, EXT2_ROOT_INO, EXT2_ROOT_INO, "d", ino), 0);
	while (n < max && !ext2fs_bmap2(e2, *ino, NULL, NULL, 0, n, NULL, &blk[n]) && blk[n])
		n++;
	ext2fs_close_free(&e2);
	return n;
}

static void use_damaged(struct fs *fs)
{
	struct fs_node *d, *n, *up;
	char name[256];
	bool eof;

	if (look(fs->root, "d", &d))
		return;
	for (uint32_t i = 0; i < 60; i++) {
		uint32_t id = rnd(2000), len = name_of(name, id);

		if (!fs->ops->lookup(d, name, len, 0, &n))
			fs_node_put(n);
		(void)make(d, name, len, rnd(4) ? FS_REG : FS_DIR, &n);
		fs_node_put(n);
		if (rnd(2))
			(void)fs->ops->unlink(d, name, len, 0, NULL);
		if (rnd(2))
			(void)fs->ops->rename(d, name, len, rnd(2) ? d : fs->root, "moved", 5, NULL, NULL);
	}
	for (uint64_t cookie = 0, steps = 0; steps < 200; steps++) {
		struct lister l = {.cookie = cookie, .left = 1 + rnd(40)};

		if (fs->ops->readdir(d, cookie, 0, emit, &l, &eof) || eof)
			break;
		must(l.cookie > cookie);
		cookie = l.cookie;
	}
	if (!fs->ops->parent(d, 0, &up))
		fs_node_put(up);
	(void)rm(fs->root, "d");
	fs_node_put(d);
}

/* Without checksums every flipped byte reaches the checks of structure. */
START_TEST(damage_never_leads_astray)
{
	unsigned size = _i % 2 ? 4096 : 1024, n;
	uint8_t *whole, *b = malloc(size);
	blk64_t blk[512];
	struct fs_node *d, *x;
	ext2_ino_t ino;
	struct img img;
	char name[256];
	struct stat st;
	int fd;

	rng_state = (uint64_t)_i * 1000 + 5;
	img_make(&img, 4,
		 size == 4096 ? "-t ext4 -b 4096 -O ^metadata_csum,^has_journal -N 3000"
			      : "-t ext4 -b 1024 -O ^metadata_csum,^has_journal,large_dir -N 3000");
	img_mount(&img);
	must_eq(make_s(img.fs->root, "d", FS_DIR, &d), 0);
	for (uint32_t i = 0; i < (size == 4096 ? 600 : 2000); i++) {
		must_eq(make(d, name, name_of(name, i), FS_REG, &x), 0);
		fs_node_put(x);
	}
	fs_node_put(d);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	n = blocks_of(img.path, blk, 512, &ino);
	fd = open(img.path, O_RDWR);
	must(fd >= 0);
	must_eq(fstat(fd, &st), 0);
	whole = malloc((size_t)st.st_size);
	must_eq(pread(fd, whole, (size_t)st.st_size, 0), st.st_size);
	for (unsigned round = 0; round < 40; round++) {
		for (unsigned k = 1 + rnd(12); k; k--) {
			/* Root and heads of blocks first of all. */
			uint64_t at = blk[rnd(3) ? 0 : rnd(n)] * size + (rnd(2) ? rnd(80) : rnd(size));
			uint8_t byte = (uint8_t)(rnd(3) ? rnd(256) : rnd(6));

			must_eq(pwrite(fd, &byte, 1, (off_t)at), 1);
		}
		if (rnd(4) == 0) {
			must_eq(pread(fd, b, size, (off_t)(blk[rnd(n)] * size)), size);
			must_eq(pwrite(fd, b, size, (off_t)(blk[rnd(n)] * size)), size);
		}
		img_mount(&img);
		use_damaged(img.fs);
		(void)img.fs->ops->unmount(img.fs);
		(void)cache_detach(img.dev);
		cache_free(img.cache);
		(void)vhd_close(img.vhd);
		img.fs = NULL;
		must_eq(pwrite(fd, whole, (size_t)st.st_size, 0), st.st_size);
	}
	close(fd);
	free(whole);
	free(b);
	img_free(&img);
}
END_TEST

/* With checksums a changed block is refused, and so is the directory: no wrong answer. */
START_TEST(a_block_with_a_wrong_checksum_is_refused)
{
	struct fs_node *d, *x;
	struct lister l = {.left = 100000};
	blk64_t blk[64];
	ext2_ino_t ino;
	struct img img;
	char name[256];
	unsigned n;
	bool eof;
	int fd, err;

	img_make(&img, 8, "-t ext4 -b 1024");
	img_mount(&img);
	must_eq(make_s(img.fs->root, "d", FS_DIR, &d), 0);
	for (uint32_t i = 0; i < 300; i++) {
		must_eq(make(d, name, name_of(name, i), FS_REG, &x), 0);
		fs_node_put(x);
	}
	fs_node_put(d);
	img_unmount(&img);
	n = blocks_of(img.path, blk, 64, &ino);
	must(n > 4);
	fd = open(img.path, O_RDWR);
	must_eq(pread(fd, name, 1, (off_t)(blk[2] * 1024 + 9)), 1);
	name[0] ^= 1;
	must_eq(pwrite(fd, name, 1, (off_t)(blk[2] * 1024 + 9)), 1);
	close(fd);
	img_mount(&img);
	must_eq(look(img.fs->root, "d", &d), 0);
	err = img.fs->ops->readdir(d, 0, 0, emit, &l, &eof);
	if (!err)
		err = img.fs->ops->readdir(d, l.cookie, 0, emit, &l, &eof);
	must_eq(err, -EUCLEAN);
	fs_node_put(d);
	img_unmount(&img);
	img_free(&img);
}
END_TEST

/* ---- threads ------------------------------------------------------------------------------------------------------------------- */

struct crowd {
	struct fs *fs;
	struct fs_node *dir;
	atomic_bool stop;
	atomic_uint looks, lists;
};

static bool emit_all(void *arg, const struct fs_dirent *d)
{
	(void)d;
	++*(unsigned *)arg;
	return true;
}

static void *reader(void *arg)
{
	struct crowd *c = arg;
	uint32_t seed = 1;

	while (!atomic_load(&c->stop)) {
		struct fs_node *n;
		char name[256];
		unsigned seen = 0, flags;
		bool eof;
		int err;

		seed = seed * 1103515245 + 12345;
		flags = seed >> 30 & 1 ? FS_NOWAIT : 0;
		err = c->fs->ops->lookup(c->dir, name, name_of(name, seed >> 16 & 511), flags, &n);
		must(!err || err == -ENOENT || (flags && err == -EAGAIN));
		if (!err)
			fs_node_put(n);
		atomic_fetch_add(&c->looks, 1);
		if (seed >> 20 & 31)
			continue;
		err = c->fs->ops->readdir(c->dir, 0, flags, emit_all, &seen, &eof);
		must(!err || (flags && err == -EAGAIN));
		atomic_fetch_add(&c->lists, 1);
	}
	return NULL;
}

START_TEST(readers_and_writers_do_not_disturb_each_other)
{
	struct timespec t0, t;
	struct fs_node *n;
	pthread_t th[2];
	struct crowd c = {0};
	struct img img;
	char name[256], nname[256];

	img_make(&img, 16, "-t ext4 -b 1024");
	img_mount(&img);
	c.fs = img.fs;
	must_eq(make_s(img.fs->root, "d", FS_DIR, &c.dir), 0);
	for (unsigned i = 0; i < ARRAY_LEN(th); i++)
		must_eq(pthread_create(&th[i], NULL, reader, &c), 0);
	clock_gettime(CLOCK_MONOTONIC, &t0);
	do {
		for (unsigned i = 0; i < 50; i++) {
			uint32_t len = name_of(name, rnd(512)), nlen = name_of(nname, rnd(512));

			switch (rnd(4)) {
			case 0:
				(void)img.fs->ops->unlink(c.dir, name, len, 0, NULL);
				break;
			case 1:
				(void)img.fs->ops->rename(c.dir, name, len, c.dir, nname, nlen, NULL, NULL);
				break;
			default:
				(void)make(c.dir, name, len, rnd(10) ? FS_REG : FS_DIR, &n);
				fs_node_put(n);
			}
		}
		clock_gettime(CLOCK_MONOTONIC, &t);
	} while ((t.tv_sec - t0.tv_sec) * 1000 + (t.tv_nsec - t0.tv_nsec) / 1000000 < 700);
	atomic_store(&c.stop, true);
	for (unsigned i = 0; i < ARRAY_LEN(th); i++)
		pthread_join(th[i], NULL);
	must(atomic_load(&c.looks) > 0);
	fs_node_put(c.dir);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_free(&img);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ext4_namei");
	TCase *t = tcase_create("names");
	SRunner *r;
	int failed;

	tcase_set_timeout(t, 120);
	tcase_add_test(t, rename_does_what_posix_says);
	tcase_add_test(t, operations_that_must_fail_do_and_change_nothing);
	tcase_add_test(t, a_lookup_that_may_not_wait_finds_what_is_in_memory);
	tcase_add_test(t, a_handle_finds_no_other_generation);
	tcase_add_test(t, a_name_is_created_once_whatever_happened_since_it_was_looked_for);
	tcase_add_test(t, a_full_index_says_no_space_and_stays_whole);
	tcase_add_test(t, a_third_level_is_added_with_large_dir);
	tcase_add_test(t, names_of_one_hash_may_fill_several_leaves);
	tcase_add_test(t, entries_with_equal_cookies_are_all_listed);
	tcase_add_test(t, what_may_not_change_does_not);
	tcase_add_test(t, a_full_file_system_says_no_space_and_stays_whole);
	tcase_add_test(t, directories_made_by_the_tools_are_read_and_changed);
	tcase_add_loop_test(t, damage_never_leads_astray, 0, 6);
	tcase_add_test(t, a_block_with_a_wrong_checksum_is_refused);
	tcase_add_test(t, readers_and_writers_do_not_disturb_each_other);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_ext4_xattr.c - extended attributes, judged by debugfs (ea_get, ea_set) and e2fsck
 *
 * Every kind of file system has attributes in inodes and in blocks, in inodes alone or in blocks alone: small ones go into the
 * inode when that has room behind its fields.
 */
#include <pthread.h>

#include "tests/unit/ext4_attrs.h"

static const char *const ea_kinds[] = {
	"-t ext4 -b 4096 -I 256",
	"-t ext4 -b 1024 -I 256 -O ^metadata_csum",
	"-t ext4 -b 2048 -I 128",
	"-t ext4 -b 1024 -I 128 -O ^metadata_csum",
	"-t ext4 -b 4096 -I 1024 -O ^ext_attr",
	"-t ext4 -b 1024 -I 256 -O ^has_journal,64bit",
	"-t ext3 -b 1024 -I 128",
	"-t ext2 -b 4096 -I 256",
	"-t ext2 -b 1024 -I 128 -O ^ext_attr",
};

static void must_have(struct fs_node *n, const char *name, const char *value)
{
	char buf[8192];
	int len = get(n, name, buf, sizeof buf);

	if (len != (int)strlen(value) || memcmp(buf, value, strlen(value)) != 0)
		ck_abort_msg("%s is %d: %.*s, not %s", name, len, len > 0 ? len : 0, buf, value);
}

static void remount(void)
{
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_mount(&img);
}

/* debugfs says nothing with its exit status: what it writes, or does not, is compared. The image is not mounted by the driver. */
static void judge_value(const char *path, const char *name, const void *value, size_t len)
{
	char out[160];
	uint8_t buf[70000];
	size_t got = 0;
	FILE *f;

	snprintf(out, sizeof out, "%s/value", img.dir);
	unlink(out);
	must_eq(shell("PATH=$PATH:/sbin:/usr/sbin; debugfs -R 'ea_get -f %s %s %s' %s", out, path, name, img.path), 0);
	f = fopen(out, "r");
	if (f) {
		got = fread(buf, 1, sizeof buf, f);
		fclose(f);
		unlink(out);
	}
	if (!value) {
		must(!f || got == 0);
	} else if (!f || got != len || memcmp(buf, value, len) != 0) {
		ck_abort_msg("debugfs: %s of %s: %zu bytes, not the %zu that were set", name, path, got, len);
	}
}

static void judge_set(const char *path, const char *name, const void *value, size_t len)
{
	char in[160];
	FILE *f;

	snprintf(in, sizeof in, "%s/value", img.dir);
	f = fopen(in, "w");
	must(f && fwrite(value, 1, len, f) == len && fclose(f) == 0);
	must_eq(shell("PATH=$PATH:/sbin:/usr/sbin; debugfs -w -R 'ea_set -f %s %s %s' %s", in, path, name, img.path),
		0);
	unlink(in);
}

/* ---- what is set is there --------------------------------------------------------------------------------------------------------- */

START_TEST(what_is_set_is_read_here_and_by_debugfs)
{
	static const char small[] = "sequential,noreuse";
	struct fs_node *n, *d;
	uint8_t big[700], buf[800];
	uint64_t before, space;

	fill(big, sizeof big, 1);
	img_make(&img, 8, ea_kinds[_i]);
	img_mount(&img);
	n = file("f");
	must_eq(make_s(img.fs->root, "d", FS_DIR, &d), 0);
	space = attr(n).space;
	before = attr(n).change;
	must_eq(get(n, ADVICE, buf, sizeof buf), -ENODATA);
	must_eq(set_s(n, ADVICE, small), 0);
	must(attr(n).change > before);
	must_eq(set_s(d, ADVICE, "random"), 0);
	must_have(n, ADVICE, small);
	fs_node_put(n);
	fs_node_put(d);
	remount();
	n = found("f");
	must_have(n, ADVICE, small);
	must_eq(set(n, "user.big", big, sizeof big), 0);
	must_eq(set(n, "user.empty", "", 0), 0);
	must_eq(get(n, "user.empty", buf, sizeof buf), 0);
	must_eq(get(n, "user.big", buf, sizeof buf), sizeof big);
	must(memcmp(buf, big, sizeof big) == 0);
	fs_node_put(n);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	judge_value("/f", ADVICE, small, strlen(small));
	judge_value("/f", "user.big", big, sizeof big);
	judge_value("/d", ADVICE, "random", 6);
	img_mount(&img);
	n = found("f");
	must_eq(set(n, "user.big", NULL, 0), 0);
	must_eq(set(n, ADVICE, NULL, 0), 0);
	must_eq(set(n, ADVICE, NULL, 0), -ENODATA);
	must_eq(set(n, "user.empty", NULL, 0), 0);
	must_eq(attr(n).space, space);
	fs_node_put(n);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	judge_value("/f", ADVICE, NULL, 0);
	judge_value("/f", "user.big", NULL, 0);
	judge_value("/d", ADVICE, "random", 6);
	img_free(&img);
}
END_TEST

START_TEST(what_debugfs_set_is_read_and_stays_beside_ours)
{
	struct fs_node *n;
	uint8_t big[500], buf[800];

	if (strstr(ea_kinds[_i], "^ext_attr")) /* debugfs sets none then */
		return;
	fill(big, sizeof big, 2);
	img_make(&img, 8, ea_kinds[_i]);
	img_mount(&img);
	fs_node_put(file("f"));
	img_unmount(&img);
	judge_set("/f", "user.small", "one", 3);
	judge_set("/f", "security.big", big, sizeof big);
	judge_set("/f", "trusted.a", "two", 3);
	must_eq(img_fsck(&img), 0);
	img_mount(&img);
	n = found("f");
	must_have(n, "user.small", "one");
	must_have(n, "trusted.a", "two");
	must_eq(get(n, "security.big", buf, sizeof buf), sizeof big);
	must(memcmp(buf, big, sizeof big) == 0);
	must_eq(set_s(n, ADVICE, "backwards"), 0);
	must_eq(set_s(n, "user.small", "longer than it was"), 0);
	must_eq(set(n, "trusted.a", NULL, 0), 0);
	fs_node_put(n);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	judge_value("/f", "user.small", "longer than it was", 18);
	judge_value("/f", "security.big", big, sizeof big);
	judge_value("/f", ADVICE, "backwards", 9);
	judge_value("/f", "trusted.a", NULL, 0);
	img_free(&img);
}
END_TEST

/* From the inode into the block as it grows, and back. */
START_TEST(one_that_grows_and_shrinks_is_in_one_place_only)
{
	uint32_t sizes[] = {5, 40, 90, 300, 900, 300, 60, 4, 0, 800, 1};
	uint8_t value[900], buf[1000];
	struct fs_node *n;

	img_make(&img, 8, ea_kinds[_i]);
	img_mount(&img);
	fs_node_put(file("f"));
	for (uint32_t i = 0; i < ARRAY_LEN(sizes); i++) {
		n = found("f");
		fill(value, sizes[i], i);
		must_eq(set(n, ADVICE, value, sizes[i]), 0);
		must_eq(get(n, ADVICE, buf, sizeof buf), sizes[i]);
		must(memcmp(buf, value, sizes[i]) == 0);
		fs_node_put(n);
		remount();
		n = found("f");
		must_eq(get(n, ADVICE, buf, sizeof buf), sizes[i]);
		must(memcmp(buf, value, sizes[i]) == 0);
		fs_node_put(n);
	}
	n = found("f");
	must_eq(set(n, ADVICE, NULL, 0), 0);
	must_eq(get(n, ADVICE, buf, sizeof buf), -ENODATA);
	fs_node_put(n);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_free(&img);
}
END_TEST

/* Many names and sizes against a model, with nodes that leave memory and come back. */
START_TEST(random_changes_end_as_the_model_says_and_clean)
{
	enum { FILES = 6, ATTRS = 8, ROUNDS = 3, STEPS = 150 };
	static uint32_t len[FILES][ATTRS], seed[FILES][ATTRS]; /* len 0: not set */
	uint8_t value[400], buf[400];
	char name[40], path[20];
	struct fs_node *n;

	memset(len, 0, sizeof len);
	img_make(&img, 8, ea_kinds[_i]);
	img_mount(&img);
	for (unsigned f = 0; f < FILES; f++) {
		snprintf(path, sizeof path, "f%u", f);
		fs_node_put(file(path));
	}
	for (unsigned round = 0; round < ROUNDS; round++) {
		for (unsigned step = 0; step < STEPS; step++) {
			unsigned f = rnd(FILES), a = rnd(ATTRS);
			uint32_t size = 1 + rnd(rnd(4) ? 30 : 399);
			int err;

			snprintf(path, sizeof path, "f%u", f);
			snprintf(name, sizeof name, "%s%.*s%u", a % 3 ? "user." : "trusted.", (int)a * 3,
				 "abcdefghijklmnopqrstuvwxyz", a);
			n = found(path);
			if (rnd(3) == 0) {
				must_eq(set(n, name, NULL, 0), len[f][a] ? 0 : -ENODATA);
				len[f][a] = 0;
			} else {
				fill(value, size, round * 1000 + step);
				err = set(n, name, value, size);
				must(err == 0 || err == -ENOSPC);
				if (!err) {
					len[f][a] = size;
					seed[f][a] = round * 1000 + step;
				}
			}
			for (a = 0; a < ATTRS; a++) {
				snprintf(name, sizeof name, "%s%.*s%u", a % 3 ? "user." : "trusted.", (int)a * 3,
					 "abcdefghijklmnopqrstuvwxyz", a);
				must_eq(get(n, name, buf, sizeof buf), len[f][a] ? (int)len[f][a] : -ENODATA);
				fill(value, len[f][a], seed[f][a]);
				must(memcmp(buf, value, len[f][a]) == 0);
			}
			fs_node_put(n);
		}
		remount();
	}
	img_unmount(&img);
	for (unsigned f = 0; f < FILES; f++)
		for (unsigned a = 0; a < ATTRS; a += 3) {
			snprintf(path, sizeof path, "/f%u", f);
			snprintf(name, sizeof name, "%s%.*s%u", a % 3 ? "user." : "trusted.", (int)a * 3,
				 "abcdefghijklmnopqrstuvwxyz", a);
			fill(value, len[f][a], seed[f][a]);
			judge_value(path, name, len[f][a] ? value : NULL, len[f][a]);
		}
	img_free(&img);
}
END_TEST

/* ---- blocks and inodes that are others', or were ---------------------------------------------------------------------------------- */

/* f1 and f2 use one block, as the kernel makes them: e2fsck counts and sums. */
static void make_shared(const char *kind, uint32_t files)
{
	uint8_t big[600];

	fill(big, sizeof big, 3);
	img_make(&img, 8, kind);
	img_mount(&img);
	for (uint32_t i = 1; i <= files; i++) {
		char name[8];

		snprintf(name, sizeof name, "f%u", i);
		fs_node_put(file(name));
	}
	img_unmount(&img);
	judge_set("/f1", "user.big", big, sizeof big);
	for (uint32_t i = 2; i <= files; i++)
		must_eq(shell("PATH=$PATH:/sbin:/usr/sbin; b=$(debugfs -R 'stat /f1' %s | sed -n 's/.*File ACL: "
			      "\\([0-9]*\\).*/\\1/p'); "
			      "[ $b -gt 0 ] && debugfs -w -R \"sif /f%u file_acl $b\" %s",
			      img.path, i, img.path),
			0);
	must_eq(shell("PATH=$PATH:/sbin:/usr/sbin; e2fsck -fy %s || [ $? = 1 ]", img.path), 0);
	must_eq(img_fsck(&img), 0);
}

START_TEST(a_block_that_others_use_is_left_to_them)
{
	struct fs_node *n1, *n2, *n3;
	uint8_t big[600], more[60];

	if (strstr(ea_kinds[_i], "^ext_attr"))
		return;
	fill(big, sizeof big, 3);
	fill(more, sizeof more, 4);
	make_shared(ea_kinds[_i], 3);
	img_mount(&img);
	n1 = found("f1");
	n2 = found("f2");
	n3 = found("f3");
	must_eq(set(n1, "user.more", more, sizeof more), 0);
	must_eq(set(n1, "user.more2", more, sizeof more), 0);
	must_eq(set(n1, "user.more3", more, sizeof more), 0);
	must_eq(get(n2, "user.more3", more, sizeof more), -ENODATA);
	must_eq(set(n2, "user.big", NULL, 0), 0);
	must_eq(get(n2, "user.big", NULL, 0), -ENODATA);
	must_eq(get(n3, "user.big", NULL, 0), sizeof big);
	fs_node_put(n1);
	fs_node_put(n2);
	fs_node_put(n3);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	judge_value("/f1", "user.big", big, sizeof big);
	judge_value("/f1", "user.more3", more, sizeof more);
	judge_value("/f2", "user.big", NULL, 0);
	judge_value("/f3", "user.big", big, sizeof big);
	img_free(&img);
}
END_TEST

START_TEST(a_removed_file_leaves_its_block_to_others_or_frees_it)
{
	struct fs_statfs before, after;
	struct fs_node *n;

	if (strstr(ea_kinds[_i], "^ext_attr"))
		return;
	make_shared(ea_kinds[_i], 2);
	img_mount(&img);
	must_eq(img.fs->ops->statfs(img.fs, &before), 0);
	must_eq(rm(img.fs->root, "f1"), 0);
	remount();
	n = found("f2");
	must_eq(get(n, "user.big", NULL, 0), 600);
	fs_node_put(n);
	must_eq(rm(img.fs->root, "f2"), 0);
	remount();
	must_eq(img.fs->ops->statfs(img.fs, &after), 0);
	must_eq(after.bytes_free, before.bytes_free + after.block_size);
	img_free(&img);
}
END_TEST

/* The number of a removed inode is used again; what lay behind its fields is not the new file's. */
START_TEST(a_new_file_has_nothing_of_an_old_one)
{
	struct fs_node *n;
	char name[16];
	uint64_t ino;
	bool again = false;

	img_make(&img, 8, ea_kinds[_i]);
	img_mount(&img);
	n = file("f");
	ino = n->ino;
	must_eq(set_s(n, ADVICE, "random"), 0);
	fs_node_put(n);
	remount();
	must_eq(rm(img.fs->root, "f"), 0);
	remount();
	for (unsigned i = 0; i < 30; i++) {
		snprintf(name, sizeof name, "n%u", i);
		n = file(name);
		again |= n->ino == ino;
		must_eq(get(n, ADVICE, NULL, 0), -ENODATA);
		fs_node_put(n);
	}
	must(again);
	remount();
	for (unsigned i = 0; i < 30; i++) {
		snprintf(name, sizeof name, "n%u", i);
		n = found(name);
		must_eq(get(n, ADVICE, NULL, 0), -ENODATA);
		fs_node_put(n);
	}
	img_free(&img);
}
END_TEST

/* Inodes that older kernels made have fewer fields: attributes begin where newer ones have other things. */
START_TEST(an_inode_with_few_fields_has_attributes_behind_them)
{
	static const unsigned extra[] = {28, 24, 16, 4};
	char value[100];
	struct fs_node *n;
	uint64_t ino;

	img_make(&img, 8, _i % 2 ? "-t ext4 -b 1024 -I 256 -O ^metadata_csum" : "-t ext4 -b 1024 -I 256");
	must_eq(shell("PATH=$PATH:/sbin:/usr/sbin; debugfs -w -R 'ssv want_extra_isize %u' %s && "
		      "debugfs -w -R 'ssv min_extra_isize %u' %s",
		      extra[_i / 2], img.path, extra[_i / 2], img.path),
		0);
	img_mount(&img);
	n = file("f");
	ino = n->ino;
	memset(value, 'v', sizeof value);
	/* As much as there is room for, so that the first and the last bytes count. */
	must_eq(set(n, ADVICE, value, 128 - extra[_i / 2] - 4 - 28 - 4), 0);
	must_eq(attr(n).space, 0);
	must_eq(set_s(n, "user.more", "in a block"), 0);
	must(attr(n).space > 0);
	fs_node_put(n);
	remount();
	n = found("f");
	must_eq(n->ino, ino);
	must_eq(set_s(n, "trusted.x", "y"), 0);
	must_eq(img.fs->ops->setattr(n, &(struct fs_setattr){.what = FS_SET_MODE, .mode = 0600}, NULL), 0);
	must_eq(set(n, ADVICE, value, 10), 0);
	fs_node_put(n);
	remount();
	n = found("f");
	must_eq(img.fs->ops->setattr(n, &(struct fs_setattr){.what = FS_SET_MODE, .mode = 0640}, NULL), 0);
	must_eq(set(n, "user.more", NULL, 0), 0);
	must_eq(get(n, ADVICE, NULL, 0), 10);
	fs_node_put(n);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	judge_value("/f", ADVICE, value, 10);
	judge_value("/f", "trusted.x", "y", 1);
	judge_value("/f", "user.more", NULL, 0);
	img_free(&img);
}
END_TEST

/* ---- many at once ----------------------------------------------------------------------------------------------------------------------- */

enum { AT_ONCE = 4, TURNS = 1500 / SLOW };
static struct fs_node *busy[AT_ONCE];
static atomic_uint turns_left;

/* Every value is of one letter, so one that was read while it changed would show. */
static void *reader(void *arg)
{
	unsigned flags = arg ? (unsigned)FS_NOWAIT : 0;
	uint8_t buf[400];

	while (atomic_load(&turns_left)) {
		for (unsigned i = 0; i < 2 * AT_ONCE; i++) {
			int got = img.fs->ops->getxattr(busy[i / 2], i % 2 ? ADVICE : "user.big", buf, sizeof buf,
							flags);

			must(got > 0 || got == -ENODATA || (got == -EAGAIN && flags));
			for (int k = 1; k < got; k++)
				must(buf[k] == buf[0]);
		}
	}
	return NULL;
}

static void *writer(void *arg)
{
	uint8_t buf[400];

	for (uint32_t turn = *(uint32_t *)arg; atomic_load(&turns_left); turn += 7) {
		const char *name = turn % 2 ? ADVICE : "user.big";
		uint32_t len = 1 + turn * 13 % (turn % 2 ? 60u : 400u);
		int err;

		memset(buf, 'a' + (int)(turn % 26), len);
		err = set(busy[turn / 2 % AT_ONCE], name, turn % 5 ? buf : NULL, len);
		must(err == 0 || err == -ENODATA);
		if (*(uint32_t *)arg == 1) /* one of them counts */
			atomic_fetch_sub(&turns_left, 1);
	}
	return NULL;
}

START_TEST(readers_see_whole_values_while_they_change)
{
	pthread_t t[4];
	uint32_t begin[2] = {1, 1000};
	struct fs_node *n;
	char name[8];

	if (strstr(ea_kinds[_i], "^ext_attr"))
		return;
	make_shared(ea_kinds[_i], AT_ONCE);
	img_mount(&img);
	for (unsigned i = 0; i < AT_ONCE; i++) {
		snprintf(name, sizeof name, "f%u", i + 1);
		busy[i] = found(name);
		must_eq(set(busy[i], "user.big", "x", 1), 0);
	}
	atomic_store(&turns_left, TURNS);
	must_eq(pthread_create(&t[0], NULL, reader, NULL), 0);
	must_eq(pthread_create(&t[1], NULL, reader, &t), 0);
	must_eq(pthread_create(&t[2], NULL, writer, &begin[0]), 0);
	must_eq(pthread_create(&t[3], NULL, writer, &begin[1]), 0);
	/* Others come and go meanwhile, and use the blocks that became free. */
	while (atomic_load(&turns_left)) {
		must_eq(make_s(img.fs->root, "other", FS_REG, &n), 0);
		must_eq(set(n, "user.big",
			    "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy", 76),
			0);
		must_eq(rm(img.fs->root, "other"), 0);
		fs_node_put(n);
	}
	for (unsigned i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	for (unsigned i = 0; i < AT_ONCE; i++)
		fs_node_put(busy[i]);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_free(&img);
}
END_TEST

/* ---- what cannot be ----------------------------------------------------------------------------------------------------------------- */

START_TEST(mistakes_are_told_apart_and_change_nothing)
{
	struct fs_node *n, *l;
	char buf[20], longest[5 + 255 + 2];
	static uint8_t huge[70000];
	uint64_t before;

	img_make(&img, 8, ea_kinds[_i]);
	img_mount(&img);
	n = file("f");
	must_eq(set_s(n, ADVICE, "sequential"), 0);
	before = attr(n).change;
	must_eq(get(n, ADVICE, buf, 9), -ERANGE);
	must_eq(get(n, ADVICE, buf, 10), 10);
	must_eq(get(n, ADVICE, NULL, 0), 10);
	must_eq(get(n, "user.io_advis", buf, sizeof buf), -ENODATA);
	must_eq(get(n, "trusted.io_advise", buf, sizeof buf), -ENODATA);
	must_eq(get(n, "user.", buf, sizeof buf), -EINVAL);
	must_eq(get(n, "io_advise", buf, sizeof buf), -ENOTSUP);
	must_eq(set_s(n, "system.posix_acl_access", "x"), -ENOTSUP);
	memset(longest, 'n', sizeof longest - 1);
	memcpy(longest, "user.", 5);
	longest[sizeof longest - 1] = '\0';
	must_eq(set_s(n, longest, "x"), -ERANGE);
	must_eq(set(n, ADVICE, huge, sizeof huge), -ENOSPC);
	must_eq(set(n, "user.huge", huge, UINT32_MAX), -ENOSPC);
	must_eq(set(n, "user.none", NULL, 0), -ENODATA);
	must_have(n, ADVICE, "sequential");
	must_eq(attr(n).change, before);
	longest[sizeof longest - 2] = '\0';
	must_eq(set_s(n, longest, "x"), 0);
	must_have(n, longest, "x");
	fs_node_put(n);
	must_eq(make_s(img.fs->root, "l", FS_LNK, &l), 0);
	must_eq(set_s(l, ADVICE, "random"), -EPERM);
	must_eq(set_s(l, "trusted.x", "1"), 0);
	fs_node_put(l);
	remount();
	l = found("l");
	must_have(l, "trusted.x", "1");
	fs_node_put(l);
	img_free(&img);
}
END_TEST

START_TEST(what_is_in_memory_is_answered_at_once)
{
	struct fs_node *n;
	char buf[1000];
	int got;

	img_make(&img, 8, ea_kinds[_i]);
	img_mount(&img);
	n = file("f");
	must_eq(n->fs->ops->getxattr(n, ADVICE, buf, sizeof buf, FS_NOWAIT), -ENODATA);
	must_eq(set_s(n, ADVICE, "sequential"), 0);
	must_eq(n->fs->ops->getxattr(n, ADVICE, buf, sizeof buf, FS_NOWAIT), 10);
	fs_node_put(n);
	img_unmount(&img);
	img_mount(&img);
	n = found("f");
	got = n->fs->ops->getxattr(n, ADVICE, buf, sizeof buf, FS_NOWAIT);
	must(got == 10 || got == -EAGAIN); /* in a block that was not read yet */
	must_eq(get(n, ADVICE, buf, sizeof buf), 10);
	must_eq(n->fs->ops->getxattr(n, ADVICE, buf, sizeof buf, FS_NOWAIT), 10);
	fs_node_put(n);
	img_free(&img);
}
END_TEST

START_TEST(a_full_disk_is_told_and_nothing_is_half_done)
{
	enum { FILES = 950 };
	uint8_t big[800];
	struct fs_node *n;
	char name[16];
	unsigned ok = 0, full = 0;

	img_make(&img, 1, "-t ext2 -b 1024 -N 1016 -I 128");
	img_mount(&img);
	fill(big, sizeof big, 5);
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(name, sizeof name, "f%u", i);
		fs_node_put(file(name));
	}
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(name, sizeof name, "f%u", i);
		n = found(name);
		if (set(n, "user.big", big, sizeof big) == 0) {
			must_eq(get(n, "user.big", NULL, 0), sizeof big);
			ok++;
		} else {
			must_eq(get(n, "user.big", NULL, 0), -ENODATA);
			full++;
		}
		fs_node_put(n);
	}
	if (ok <= 100 || !full)
		ck_abort_msg("%u were set, %u not", ok, full);
	remount();
	for (unsigned i = 0; i < ok; i += 2) {
		snprintf(name, sizeof name, "f%u", i);
		must_eq(rm(img.fs->root, name), 0);
	}
	n = found("f1");
	must_eq(get(n, "user.big", NULL, 0), sizeof big);
	fs_node_put(n);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_free(&img);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ext4_xattr");
	TCase *t = tcase_create("attributes");
	SRunner *r;
	int failed;

	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, what_is_set_is_read_here_and_by_debugfs, 0, ARRAY_LEN(ea_kinds));
	tcase_add_loop_test(t, what_debugfs_set_is_read_and_stays_beside_ours, 0, ARRAY_LEN(ea_kinds));
	tcase_add_loop_test(t, one_that_grows_and_shrinks_is_in_one_place_only, 0, ARRAY_LEN(ea_kinds));
	tcase_add_loop_test(t, random_changes_end_as_the_model_says_and_clean, 0, ARRAY_LEN(ea_kinds));
	tcase_add_loop_test(t, a_block_that_others_use_is_left_to_them, 0, ARRAY_LEN(ea_kinds));
	tcase_add_loop_test(t, a_removed_file_leaves_its_block_to_others_or_frees_it, 0, ARRAY_LEN(ea_kinds));
	tcase_add_loop_test(t, a_new_file_has_nothing_of_an_old_one, 0, ARRAY_LEN(ea_kinds));
	tcase_add_loop_test(t, readers_see_whole_values_while_they_change, 0, ARRAY_LEN(ea_kinds));
	tcase_add_loop_test(t, an_inode_with_few_fields_has_attributes_behind_them, 0, 8);
	tcase_add_loop_test(t, mistakes_are_told_apart_and_change_nothing, 0, ARRAY_LEN(ea_kinds));
	tcase_add_loop_test(t, what_is_in_memory_is_answered_at_once, 0, ARRAY_LEN(ea_kinds));
	tcase_add_test(t, a_full_disk_is_told_and_nothing_is_half_done);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* test_ext4_features.c - features of ext4 beyond mke2fs's usual ones: what is written, what is only read, what is left alone */
#include <sys/stat.h>

#include "tests/unit/ext4_names.h"

static struct img img;

#define TOOLS "PATH=$PATH:/sbin:/usr/sbin; "

/* ---- short forms ---------------------------------------------------------------------------------------------------------------- */

static void write_all(struct fs_node *n, const char *text)
{
	struct iovec iov = {(void *)(uintptr_t)text, strlen(text)};

	must_eq(n->fs->ops->write(n, 0, &iov, 1, (uint32_t)strlen(text), 0), 0);
}

/* What a file holds, at most @cap bytes. */
static uint32_t read_all(struct fs_node *n, char *buf, uint32_t cap)
{
	struct cache_seg seg[8];
	uint32_t got = 0;
	bool eof;
	int k = n->fs->ops->read(n, 0, cap, 0, seg, 8, &eof);

	must(k >= 0);
	for (int i = 0; i < k; i++) {
		memcpy(buf + got, seg[i].base, seg[i].len);
		got += seg[i].len;
	}
	cache_unpin(seg, (unsigned)k);
	return got;
}

static void is_file(struct fs_node *dir, const char *name, const char *text)
{
	char buf[4096];
	struct fs_node *n;

	must_eq(look(dir, name, &n), 0);
	must_eq(read_all(n, buf, sizeof buf), strlen(text));
	must(!memcmp(buf, text, strlen(text)));
	fs_node_put(n);
}

static bool count(void *arg, const struct fs_dirent *d)
{
	(void)d;
	++*(unsigned *)arg;
	return true;
}

static unsigned entries(struct fs_node *dir)
{
	unsigned n = 0;
	bool eof;

	must_eq(dir->fs->ops->readdir(dir, 0, 0, count, &n, &eof), 0);
	must(eof);
	return n;
}

static struct fs_node *new_file(const char *name, const char *text)
{
	struct fs_node *n;

	must_eq(make_s(img.fs->root, name, FS_REG, &n), 0);
	write_all(n, text);
	return n;
}

/* Is a file system without this feature asked of mke2fs, which may be too old? Then there is nothing to test. */
static bool made(unsigned mib, const char *mkfs, const char *from)
{
	img_make(&img, mib, "-t ext4");
	return !from[0] ? !shell(TOOLS "mke2fs -q -F -E nodiscard %s %s %uM", mkfs, img.path, mib)
			: !shell(TOOLS "mke2fs -q -F -E nodiscard %s -d %s %s %uM", mkfs, from, img.path, mib);
}

/* ---- written -------------------------------------------------------------------------------------------------------------------- */

/* A clean file system with fast_commit has nothing of the kind on the disk: it is written, by whole transactions. */
START_TEST(a_clean_file_system_with_fast_commits_is_written)
{
	must(made(64, "-t ext4 -O fast_commit -J fast_commit_size=512", ""));
	img_mount(&img);
	must(!img.fs->read_only);
	fs_node_put(new_file("f", "hello"));
	must_eq(img.fs->ops->sync(img.fs), 0);
	/* As a crash would leave it: e2fsck finds the transactions. */
	must_eq(shell("cp %s %s/copy", img.path, img.dir), 0);
	must(shell(TOOLS "e2fsck -fy %s/copy", img.dir) <= 1);
	must_eq(shell(TOOLS "e2fsck -fn %s/copy", img.dir), 0);
	must_eq(shell(TOOLS "debugfs -R 'cat /f' %s/copy 2>/dev/null | grep -q hello", img.dir), 0);
	must_eq(shell("rm %s/copy", img.dir), 0);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_mount(&img);
	is_file(img.fs->root, "f", "hello");
	img_free(&img);
}
END_TEST

static bool is_marked(void)
{
	return shell(TOOLS "dumpe2fs -h %s 2>/dev/null | grep -q 'state:.*not clean'", img.path) == 0;
}

/* Usage is not counted here: once something changed, the next e2fsck counts it, also one that only looks whether it must check. */
START_TEST(a_file_system_with_quotas_is_written_and_marked_for_a_check)
{
	must(made(64, "-t ext4 -O quota,project -E quotatype=usrquota:grpquota:prjquota", ""));
	img_mount(&img);
	must(!img.fs->read_only);
	img_unmount(&img);
	must(!is_marked());
	for (unsigned i = 0; i < 2; i++) { /* and again, before the check */
		img_mount(&img);
		must(!img.fs->read_only);
		fs_node_put(new_file(i ? "b" : "a", "hello"));
		if (i) {
			must_eq(img.fs->ops->freeze(img.fs), 0);
			must(is_marked());
			img.fs->ops->thaw(img.fs);
		}
		img_unmount(&img);
		must(is_marked());
	}
	must(shell(TOOLS "e2fsck -p %s", img.path) <= 1);
	must_eq(img_fsck(&img), 0);
	must(!is_marked());
	img_free(&img);
}
END_TEST

/* The files of the quotas have inodes, one of them among those of files; no filehandle leads to them. */
START_TEST(what_the_file_system_keeps_for_itself_is_no_file)
{
	char cmd[300], line[64] = "";
	struct fs_node *n;
	uint32_t ino;
	FILE *p;

	must(made(64, "-t ext4 -O quota,project,orphan_file -E quotatype=usrquota:grpquota:prjquota", ""));
	snprintf(cmd, sizeof cmd, TOOLS "dumpe2fs -h %s 2>/dev/null | sed -n 's/^%s inode: *//p'", img.path,
		 _i ? "Project quota" : "Orphan file");
	p = popen(cmd, "r");
	must(p && fgets(line, sizeof line, p));
	pclose(p);
	ino = (uint32_t)strtoul(line, NULL, 10);
	must(ino > 10);
	img_mount(&img);
	for (uint32_t gen = 0; gen < 3; gen++)
		must_eq(img.fs->ops->get(img.fs, ino, gen, 0, &n), -ESTALE);
	img_free(&img);
}
END_TEST

/* A folder hands its project on, to files and folders, and takes in nothing of another. */
START_TEST(a_project_is_inherited)
{
	struct fs_node *dir, *f, *sub, *other;

	must(made(64, "-t ext4 -O quota,project -E quotatype=prjquota", ""));
	img_mount(&img);
	must_eq(make_s(img.fs->root, "d", FS_DIR, &dir), 0);
	fs_node_put(dir);
	img_unmount(&img);
	must_eq(shell(TOOLS "debugfs -w -R 'set_inode_field /d projid 77' %s && "
			    "debugfs -w -R 'set_inode_field /d flags 0x20080000' %s",
		      img.path, img.path),
		0);
	img_mount(&img);
	must_eq(look(img.fs->root, "d", &dir), 0);
	must_eq(make_s(dir, "f", FS_REG, &f), 0);
	must_eq(make_s(dir, "s", FS_DIR, &sub), 0);
	must_eq(make_s(img.fs->root, "other", FS_REG, &other), 0);
	must_eq(img.fs->ops->link(other, dir, "x", 1, NULL), -EXDEV);
	must_eq(img.fs->ops->rename(img.fs->root, "other", 5, dir, "x", 1, NULL, NULL), -EXDEV);
	must_eq(img.fs->ops->rename(dir, "f", 1, sub, "f", 1, NULL, NULL), 0);
	must_eq(img.fs->ops->rename(sub, "f", 1, dir, "f", 1, NULL, NULL), 0);
	fs_node_put(dir);
	fs_node_put(f);
	fs_node_put(sub);
	fs_node_put(other);
	img_unmount(&img);
	must_eq(shell(TOOLS "debugfs -R 'stat /d/f' %s 2>/dev/null | grep -q 'Project: *77 '", img.path), 0);
	must_eq(shell(TOOLS "debugfs -R 'stat /d/s' %s 2>/dev/null | grep -q 'Project: *77 .*'", img.path), 0);
	must_eq(shell(TOOLS "debugfs -R 'stat /d/s' %s 2>/dev/null | grep -q 'Flags: 0x20080000'", img.path), 0);
	must(shell(TOOLS "e2fsck -p %s", img.path) <= 1);
	must_eq(img_fsck(&img), 0);
	img_free(&img);
}
END_TEST

/* ---- only read ------------------------------------------------------------------------------------------------------------------ */

/* Somebody else may have it mounted: nothing of it is written, and the library looks for no file in the working directory. */
START_TEST(a_file_system_with_mmp_is_read_and_not_touched)
{
	char cwd[256];

	must(made(64, "-t ext4 -O mmp", ""));
	must_eq(shell(TOOLS "echo hello >%s/text && debugfs -w -R 'write %s/text f' %s", img.dir, img.dir, img.path),
		0);
	if (_i) /* in use: it has a journal to replay, which stays where it is */
		must_eq(shell(TOOLS "debugfs -w -R 'feature needs_recovery' %s", img.path), 0);
	must_eq(shell("cp %s %s/before && mkdir %s/empty", img.path, img.dir, img.dir), 0);
	must(getcwd(cwd, sizeof cwd) != NULL);
	must_eq(chdir(img.dir) || chdir("empty"), 0);
	img_mount(&img);
	must(img.fs->read_only);
	is_file(img.fs->root, "f", "hello\n");
	img_unmount(&img);
	must_eq(chdir(cwd), 0);
	must_eq(shell("cmp %s %s/before && rmdir %s/empty && rm %s/before %s/text", img.path, img.dir, img.dir, img.dir,
		      img.dir),
		0);
	img_free(&img);
}
END_TEST

/* ---- only read: inline_data ------------------------------------------------------------------------------------------------------- */

static void make_inline(void)
{
	char dir[] = "/tmp/vhdnfs-XXXXXX";

	must(mkdtemp(dir) != NULL);
	must_eq(shell("cd %s && printf 0123456789 >small && head -c 60 /dev/zero | tr '\\0' x >sixty && "
		      "head -c 61 /dev/zero | tr '\\0' x >more && head -c 100 /dev/zero | tr '\\0' y >hundred && "
		      "head -c 5000 /dev/zero | tr '\\0' z >large && : >none && mkdir d && : >d/a && : >d/b && "
		      "mkdir d/e && mkdir many && for i in $(seq 1 12); do : >many/name$i; done && "
		      "ln -s target link && ln -s $(head -c 80 /dev/zero | tr '\\0' t) longlink",
		      dir),
		0);
	must(made(64, "-t ext4 -O inline_data -I 512", dir));
	must_eq(shell("rm -r %s", dir), 0);
	must_eq(shell(TOOLS "debugfs -R 'stat /hundred' %s 2>/dev/null | grep -q 'Flags: 0x10000000'", img.path), 0);
	must_eq(shell(TOOLS "debugfs -R 'stat /d' %s 2>/dev/null | grep -q 'Flags: 0x10000000'", img.path), 0);
}

static void is_all(const char *name, char c, unsigned len)
{
	char text[200];

	memset(text, c, len);
	text[len] = '\0';
	is_file(img.fs->root, name, text);
}

START_TEST(files_that_lie_in_their_inode_are_read)
{
	struct fs_node *n;
	uint64_t off;
	char link[128];

	make_inline();
	img_mount(&img);
	must(img.fs->read_only);
	is_file(img.fs->root, "small", "0123456789");
	is_file(img.fs->root, "none", "");
	is_all("sixty", 'x', 60);
	is_all("more", 'x', 61);
	is_all("hundred", 'y', 100);
	must_eq(look(img.fs->root, "hundred", &n), 0);
	must_eq(img.fs->ops->seek(n, 10, FS_SEEK_DATA, &off), 0);
	must_eq(off, 10);
	must_eq(img.fs->ops->seek(n, 10, FS_SEEK_HOLE, &off), 0);
	must_eq(off, 100);
	must_eq(img.fs->ops->seek(n, 100, FS_SEEK_DATA, &off), -ENXIO);
	fs_node_put(n);
	must_eq(look(img.fs->root, "link", &n), 0);
	must_eq(img.fs->ops->readlink(n, 0, link, sizeof link), 6);
	must(!memcmp(link, "target", 6));
	fs_node_put(n);
	must_eq(look(img.fs->root, "longlink", &n), 0);
	must_eq(img.fs->ops->readlink(n, 0, link, sizeof link), 80);
	must(link[0] == 't' && link[79] == 't');
	fs_node_put(n);
	img_free(&img);
}
END_TEST

START_TEST(directories_that_lie_in_their_inode_are_read)
{
	struct fs_node *d, *n;

	make_inline();
	img_mount(&img);
	must_eq(look(img.fs->root, "d", &d), 0);
	must_eq(entries(d), 3);
	must_eq(look(d, "b", &n), 0);
	fs_node_put(n);
	must_eq(look(d, "c", &n), -ENOENT);
	must_eq(look(d, "e", &n), 0);
	must_eq(entries(n), 0);
	fs_node_put(d);
	must_eq(img.fs->ops->parent(n, 0, &d), 0);
	fs_node_put(n);
	must_eq(look(d, "a", &n), 0);
	fs_node_put(n);
	fs_node_put(d);
	must_eq(look(img.fs->root, "many", &d), 0);
	must_eq(entries(d), 12);
	must_eq(look(d, "name12", &n), 0);
	fs_node_put(n);
	fs_node_put(d);
	img_free(&img);
}
END_TEST

/* What the attribute says is not longer than the inode, whatever the inode's size says. */
START_TEST(an_inline_file_that_is_longer_than_its_inode_is_damage)
{
	struct cache_seg seg[8];
	struct fs_node *n;
	bool eof;

	make_inline();
	must_eq(shell(TOOLS "debugfs -w -R 'set_inode_field /hundred size 4000' %s", img.path), 0);
	must_eq(shell(TOOLS "debugfs -w -R 'set_inode_field /small size 61' %s", img.path), 0);
	img_mount(&img);
	must_eq(look(img.fs->root, "hundred", &n), 0);
	must_eq(img.fs->ops->read(n, 0, 4000, 0, seg, 8, &eof), -EUCLEAN);
	fs_node_put(n);
	must_eq(look(img.fs->root, "small", &n), 0);
	must_eq(img.fs->ops->read(n, 0, 61, 0, seg, 8, &eof), -EUCLEAN);
	fs_node_put(n);
	img_free(&img);
}
END_TEST

/* ---- only read: casefold ---------------------------------------------------------------------------------------------------------- */

/* Folders that fold case are sorted by hashes that are not ours: they are searched without, by the exact name. */
START_TEST(names_in_a_folder_that_folds_case_are_found)
{
	char dir[] = "/tmp/vhdnfs-XXXXXX", name[32];
	struct fs_node *d, *n;

	must(mkdtemp(dir) != NULL);
	must_eq(shell("mkdir %s/d && cd %s/d && for i in $(seq 1 %d); do : >Name_$i; done", dir, dir, _i ? 900 : 3), 0);
	must(made(64, "-t ext4 -O casefold -E encoding=utf8 -b 1024", dir));
	must_eq(shell("rm -r %s", dir), 0);
	must_eq(shell(TOOLS "debugfs -w -R 'set_inode_field /d flags 0x40080000' %s", img.path), 0);
	must(shell(TOOLS "e2fsck -fyD %s", img.path) <= 1); /* makes the index */
	if (_i)
		must_eq(shell(TOOLS "debugfs -R 'stat /d' %s 2>/dev/null | grep -q 'Flags: 0x40081000'", img.path), 0);
	img_mount(&img);
	must(img.fs->read_only);
	must_eq(look(img.fs->root, "d", &d), 0);
	must_eq(entries(d), _i ? 900 : 3);
	for (int i = 1; i <= (_i ? 900 : 3); i++) {
		snprintf(name, sizeof name, "Name_%d", i);
		must_eq(look(d, name, &n), 0);
		fs_node_put(n);
	}
	must_eq(look(d, "nothing", &n), -ENOENT);
	must_eq(img.fs->ops->parent(d, 0, &n), 0);
	must(n == img.fs->root);
	fs_node_put(n);
	fs_node_put(d);
	img_free(&img);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ext4_features");
	TCase *t = tcase_create("features");
	SRunner *r;
	int failed;

	if (system("PATH=$PATH:/sbin:/usr/sbin; command -v mke2fs >/dev/null")) {
		puts("mke2fs is missing");
		return 77;
	}
	tcase_set_timeout(t, 120);
	tcase_add_test(t, a_clean_file_system_with_fast_commits_is_written);
	tcase_add_test(t, a_file_system_with_quotas_is_written_and_marked_for_a_check);
	tcase_add_loop_test(t, what_the_file_system_keeps_for_itself_is_no_file, 0, 2);
	tcase_add_test(t, a_project_is_inherited);
	tcase_add_loop_test(t, a_file_system_with_mmp_is_read_and_not_touched, 0, 2);
	tcase_add_test(t, files_that_lie_in_their_inode_are_read);
	tcase_add_test(t, directories_that_lie_in_their_inode_are_read);
	tcase_add_test(t, an_inline_file_that_is_longer_than_its_inode_is_damage);
	tcase_add_loop_test(t, names_in_a_folder_that_folds_case_are_found, 0, 2);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}

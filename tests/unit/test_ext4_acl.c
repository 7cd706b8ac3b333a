/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_ext4_acl.c - access control lists, file capabilities and flags in an image, judged by debugfs and e2fsck
 *
 * Lists come into the image as bytes, by debugfs, in every place that they can be in: behind an inode's fields, or in a block.
 */
#include "tests/unit/ext4_attrs.h"

#define CAPS "security.capability"

static const char *const acl_kinds[] = {
	"-t ext4 -b 4096 -I 256",
	"-t ext4 -b 1024 -I 128 -O ^metadata_csum",
	"-t ext4 -b 1024 -I 256 -O ^has_journal",
	"-t ext3 -b 2048 -I 128",
	"-t ext2 -b 4096 -I 256",
};

/* u::rwx,u:3000:rw-,g::r-x,m::rwx,o::--x as on disk */
static const uint8_t listed[] = {1, 0, 0, 0, 1, 0, 7,  0, 2, 0, 6,  0, 0xb8, 0x0b,
				 0, 0, 4, 0, 5, 0, 16, 0, 7, 0, 32, 0, 1,    0};

static struct fs_node *dir;

static void remount(void)
{
	fs_node_put(dir);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_mount(&img);
	must_eq(look(img.fs->root, "d", &dir), 0);
}

/* Through the block that getxattr and debugfs do not see: the same path that the driver's own lists take. */
static void put_list(struct fs_node *n, uint8_t index, const void *value, uint32_t len) NO_THREAD_SAFETY
{
	struct ext4_node *e = ext4_node_of(n);
	struct ext4_fs *fs = ext4_fs_of_node(e);
	const struct xattr_change c = {.name = {.index = index, .name = ""}, .value = value, .len = len};

	must_eq(ext4_op_begin(fs, 16, 0), 0);
	rwlock_write(&e->rw);
	must_eq(ext4_xattr_set(e, &c), 0);
	rwlock_drop(&e->rw);
	must_eq(ext4_op_end(fs, 0), 0);
}

static struct fs_acl *list(struct fs_node *n, enum fs_acl_kind kind, int err)
{
	struct fs_acl *a = NULL;

	must_eq(n->fs->ops->getacl(n, kind, 0, &a), err);
	must_eq(a != NULL, err == 0);
	return a;
}

/* The permissions of all entries, in order. */
static void must_list(struct fs_node *n, enum fs_acl_kind kind, const char *perms)
{
	struct fs_acl *a = list(n, kind, 0);

	must_eq(a->count, strlen(perms));
	for (uint32_t i = 0; i < a->count; i++)
		must_eq(a->e[i].perm, perms[i] - '0');
	fs_acl_put(a);
}

static struct fs_node *in_dir(const char *name, enum fs_type type, uint32_t mode, uint32_t umask)
{
	struct fs_create c = {.type = type,
			      .set = {.what = FS_SET_MODE | FS_SET_UID | FS_SET_GID, .mode = mode, .umask = umask},
			      .target = "t",
			      .target_len = 1};
	struct fs_node *n;

	must_eq(dir->fs->ops->create(dir, name, (uint32_t)strlen(name), &c, &n, NULL), 0);
	return n;
}

static void chmod_to(struct fs_node *n, uint32_t mode)
{
	const struct fs_setattr s = {.what = FS_SET_MODE, .mode = mode};

	must_eq(n->fs->ops->setattr(n, &s, NULL), 0);
	must_eq(attr(n).mode, mode);
}

static void setup_kind(int i)
{
	img_make(&img, 24, acl_kinds[i]);
	img_mount(&img);
	must_eq(make_s(img.fs->root, "d", FS_DIR, &dir), 0);
}

static void end(void)
{
	fs_node_put(dir);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_free(&img);
}

START_TEST(chmod_changes_the_list_with_the_mode)
{
	struct fs_node *n;

	setup_kind(_i);
	fs_node_put(file("f"));
	n = found("f");
	must_eq(attr(n).flags, 0);
	fs_acl_put(list(n, FS_ACL_ACCESS, -ENODATA));
	put_list(n, XATTR_ACL_ACCESS, listed, sizeof listed);
	fs_node_put(n);
	remount();
	n = found("f");
	must_eq(attr(n).flags, FS_ATTR_ACL);
	must_list(n, FS_ACL_ACCESS, "76571");
	chmod_to(n, 04640);
	must_list(n, FS_ACL_ACCESS, "66540");
	fs_node_put(n);
	remount();
	n = found("f");
	must_list(n, FS_ACL_ACCESS, "66540");
	must_eq(attr(n).mode, 04640);
	fs_node_put(n);
	end();
}
END_TEST

START_TEST(what_is_created_inherits_the_default_list_and_no_umask_counts)
{
	struct fs_node *f, *s, *l, *p;

	setup_kind(_i);
	f = in_dir("without", FS_REG, 0666, 022);
	must_eq(attr(f).mode, 0644);
	fs_node_put(f);
	put_list(dir, XATTR_ACL_DEFAULT, listed, sizeof listed);
	remount();
	f = in_dir("f", FS_REG, 0666, 077);
	s = in_dir("s", FS_DIR, 02777, 077);
	l = in_dir("l", FS_LNK, 0777, 0);
	p = in_dir("p", FS_FIFO, 0640, 0);
	for (int again = 0; again < 2; again++) {
		must_eq(attr(f).mode, 0660);
		must_list(f, FS_ACL_ACCESS, "66560");
		list(f, FS_ACL_DEFAULT, -ENODATA);
		must_eq(attr(s).mode, 02771);
		must_list(s, FS_ACL_ACCESS, "76571");
		must_list(s, FS_ACL_DEFAULT, "76571");
		must_eq(attr(l).flags, 0);
		must_eq(attr(p).mode, 0640);
		must_list(p, FS_ACL_ACCESS, "66540");
		fs_node_put(f);
		fs_node_put(s);
		fs_node_put(l);
		fs_node_put(p);
		if (again)
			break;
		remount();
		must(!look(dir, "f", &f) && !look(dir, "s", &s) && !look(dir, "l", &l) && !look(dir, "p", &p));
	}
	end();
}
END_TEST

START_TEST(a_list_that_is_not_understood_denies)
{
	static const uint8_t bad[][12] = {
		{2, 0, 0, 0}, {1, 0, 0}, {1, 0, 0, 0, 1, 0, 7, 0}, {1, 0, 0, 0, 2, 0, 7, 0, 1, 0}};
	static const uint32_t len[] = {4, 3, 8, 10};
	struct fs_create c = {.type = FS_REG, .set = {.what = FS_SET_MODE | FS_SET_UID | FS_SET_GID, .mode = 0644}};
	struct fs_node *n;
	char name[8];

	setup_kind(_i);
	for (unsigned i = 0; i < 4; i++) {
		snprintf(name, sizeof name, "f%u", i);
		n = file(name);
		put_list(n, XATTR_ACL_ACCESS, bad[i], len[i]);
		fs_node_put(n);
	}
	put_list(dir, XATTR_ACL_DEFAULT, bad[0], len[0]);
	remount();
	for (unsigned i = 0; i < 4; i++) {
		snprintf(name, sizeof name, "f%u", i);
		n = found(name);
		must_eq(attr(n).flags, FS_ATTR_ACL);
		list(n, FS_ACL_ACCESS, -EUCLEAN);
		chmod_to(n, 0600);
		list(n, FS_ACL_ACCESS, -EUCLEAN);
		fs_node_put(n);
	}
	must_eq(dir->fs->ops->create(dir, "x", 1, &c, &n, NULL), -EUCLEAN);
	must_eq(look(dir, "x", &n), -ENOENT);
	end();
}
END_TEST

/* Too long to be kept with the node: read each time, and not waited for by those who must not wait. */
START_TEST(a_long_list_is_read_and_changed_like_a_short_one)
{
	enum { NAMED = 80 };
	uint8_t value[4 + 4 * 4 + NAMED * 8] = {1, 0, 0, 0, 1, 0, 7, 0}, *p = value + 8;
	struct fs_node *n;
	struct fs_acl *a;

	img_make(&img, 24, acl_kinds[0]);
	img_mount(&img);
	must_eq(make_s(img.fs->root, "d", FS_DIR, &dir), 0);
	for (unsigned i = 0; i < NAMED; i++, p += 8)
		memcpy(p, (uint8_t[]){2, 0, 4, 0, (uint8_t)i, 0, 0, 0}, 8);
	memcpy(p, (uint8_t[]){4, 0, 7, 0, 16, 0, 7, 0, 32, 0, 7, 0}, 12);
	put_list(dir, XATTR_ACL_DEFAULT, value, sizeof value);
	remount();
	n = in_dir("f", FS_REG, 0640, 0);
	for (int again = 0; again < 2; again++) {
		a = list(n, FS_ACL_ACCESS, 0);
		must_eq(a->count, NAMED + 4);
		must_eq(a->e[NAMED + 2].perm, again ? 0 : 4);
		fs_acl_put(a);
		chmod_to(n, 0600);
	}
	fs_node_put(n);
	end();
}
END_TEST

/* ---- capabilities -------------------------------------------------------------------------------------------------------------- */

static int do_write(struct fs_node *n)
{
	const struct iovec v = {(char[]){"x"}, 1};
	int err = n->fs->ops->write(n, 0, &v, 1, 1, FS_NOWAIT);

	must(err == -EAGAIN || err == -EPERM);
	return n->fs->ops->write(n, 0, &v, 1, 1, 0);
}
static int do_alloc(struct fs_node *n)
{
	return n->fs->ops->alloc(n, 0, 8192);
}
static int do_punch(struct fs_node *n)
{
	return n->fs->ops->punch(n, 0, 4096);
}
static int do_set(struct fs_node *n, unsigned what)
{
	const struct fs_setattr s = {.what = what, .mode = 0755, .uid = 5, .gid = 6, .size = 100};

	return n->fs->ops->setattr(n, &s, NULL);
}
static int do_size(struct fs_node *n)
{
	return do_set(n, FS_SET_SIZE);
}
static int do_uid(struct fs_node *n)
{
	return do_set(n, FS_SET_UID);
}
static int do_gid(struct fs_node *n)
{
	return do_set(n, FS_SET_GID);
}

static int (*const changes[])(struct fs_node *) = {do_write, do_alloc, do_punch, do_size, do_uid, do_gid};

START_TEST(file_capabilities_go_with_every_change_of_contents_size_or_owner)
{
	struct fs_node *n;
	char buf[64];

	setup_kind(_i);
	for (size_t i = 0; i < ARRAY_LEN(changes); i++) {
		char name[] = {'f', (char)('0' + i), 0};

		n = file(name);
		must_eq(set_s(n, CAPS, "01234567890123456789"), 0);
		must_eq(set_s(n, "user.stays", "yes"), 0);
		fs_node_put(n);
	}
	remount();
	for (size_t i = 0; i < ARRAY_LEN(changes); i++) {
		n = found((char[]){'f', (char)('0' + i), 0});
		must_eq(do_set(n, FS_SET_MODE | FS_SET_MTIME_NOW), 0);
		must_eq(get(n, CAPS, buf, sizeof buf), 20);
		must_eq(changes[i](n), 0);
		must_eq(get(n, CAPS, buf, sizeof buf), -ENODATA);
		must_eq(get(n, "user.stays", buf, sizeof buf), 3);
		fs_node_put(n);
	}
	end();
}
END_TEST

/* ---- immutable, append-only ---------------------------------------------------------------------------------------------------- */

START_TEST(what_must_not_change_refuses_and_says_so_in_its_attributes)
{
	struct fs_node *n, *other;
	char buf[64];

	setup_kind(_i);
	n = file("im");
	must_eq(set_s(n, CAPS, "0123"), 0);
	fs_node_put(n);
	fs_node_put(file("ap"));
	fs_node_put(file("other"));
	fs_node_put(dir);
	img_unmount(&img);
	must_eq(shell("PATH=$PATH:/sbin:/usr/sbin; debugfs -w -R 'set_inode_field im flags %s' %s",
		      _i < 3 ? "0x80010" : "0x10", img.path),
		0);
	must_eq(shell("PATH=$PATH:/sbin:/usr/sbin; debugfs -w -R 'set_inode_field ap flags %s' %s",
		      _i < 3 ? "0x80020" : "0x20", img.path),
		0);
	must_eq(shell("PATH=$PATH:/sbin:/usr/sbin; debugfs -w -R 'set_inode_field d flags %s' %s",
		      _i < 3 ? "0x80020" : "0x20", img.path),
		0);
	img_mount(&img);
	must_eq(look(img.fs->root, "d", &dir), 0);
	n = found("im");
	must_eq(attr(n).flags, FS_ATTR_IMMUTABLE);
	for (size_t i = 0; i < ARRAY_LEN(changes); i++)
		must_eq(changes[i](n), -EPERM);
	must_eq(do_set(n, FS_SET_MTIME_NOW), -EPERM);
	must_eq(get(n, CAPS, buf, sizeof buf), 4);
	must_eq(ln(n, img.fs->root, "im2"), -EPERM);
	must_eq(rm(img.fs->root, "im"), -EPERM);
	must_eq(mv(img.fs->root, "im", img.fs->root, "im2"), -EPERM);
	fs_node_put(n);
	n = found("ap");
	must_eq(attr(n).flags, FS_ATTR_APPEND);
	must_eq(do_size(n), -EPERM);
	must_eq(do_punch(n), -EPERM);
	must_eq(do_set(n, FS_SET_MODE), -EPERM);
	must_eq(do_set(n, FS_SET_MTIME_NOW | FS_SET_ATIME_NOW), 0);
	must_eq(rm(img.fs->root, "ap"), -EPERM);
	fs_node_put(n);
	n = in_dir("new", FS_REG, 0644, 0);
	other = found("other");
	must_eq(ln(n, dir, "new2"), 0);
	must_eq(rm(dir, "new"), -EPERM);
	must_eq(mv(dir, "new", dir, "newer"), -EPERM);
	must_eq(mv(img.fs->root, "other", dir, "new"), -EPERM);
	must_eq(mv(img.fs->root, "other", dir, "other"), 0);
	fs_node_put(n);
	fs_node_put(other);
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ext4_acl");
	TCase *tc = tcase_create("all");
	const int n = (int)ARRAY_LEN(acl_kinds);
	SRunner *r;
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, chmod_changes_the_list_with_the_mode, 0, n);
	tcase_add_loop_test(tc, what_is_created_inherits_the_default_list_and_no_umask_counts, 0, n);
	tcase_add_loop_test(tc, a_list_that_is_not_understood_denies, 0, n);
	tcase_add_test(tc, a_long_list_is_read_and_changed_like_a_short_one);
	tcase_add_loop_test(tc, file_capabilities_go_with_every_change_of_contents_size_or_owner, 0, n);
	tcase_add_loop_test(tc, what_must_not_change_refuses_and_says_so_in_its_attributes, 0, n);
	suite_add_tcase(s, tc);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}

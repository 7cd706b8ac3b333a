/* SPDX-License-Identifier: BSD-3-Clause */
/* test_ext4_listing.c - listing that is made quicker, attributes of many inodes at once, changes that may not wait */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/ext4_names.h"

enum { FILES = 3000 };

static struct img img;
static struct fs_node *dir;

static void setup(void)
{
	struct fs_node *n;
	char name[256];

	img_make(&img, 32, "-t ext4 -b 1024");
	img_mount(&img);
	must_eq(make_s(img.fs->root, "d", FS_DIR, &dir), 0);
	for (uint32_t i = 0; i < FILES; i++) {
		must_eq(make(dir, name, name_of(name, i), FS_REG, &n), 0);
		fs_node_put(n);
	}
}

static void teardown(void)
{
	fs_node_put(dir);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_free(&img);
}

struct seen {
	uint64_t cookie[FILES + 8];
	uint32_t ino[FILES + 8];
	unsigned n, left;
};

static bool note(void *arg, const struct fs_dirent *d)
{
	struct seen *s = arg;

	if (!s->left || s->n == ARRAY_LEN(s->ino))
		return false;
	s->left--;
	s->cookie[s->n] = d->cookie;
	s->ino[s->n++] = (uint32_t)d->ino;
	return true;
}

/* All of it, @piece entries per call. */
static void list(struct seen *s, unsigned piece)
{
	bool eof = false;

	s->n = 0;
	while (!eof) {
		s->left = piece;
		must_eq(dir->fs->ops->readdir(dir, s->n ? s->cookie[s->n - 1] : 0, 0, note, s, &eof), 0);
	}
}

static struct seen a, b;

/* The first listing goes leaf by leaf, the second puts everything in order, the third uses that. */
START_TEST(every_way_of_listing_gives_the_same_entries_and_cookies)
{
	list(&a, UINT32_MAX);
	must_eq(a.n, FILES);
	for (unsigned piece = 1; piece < 5000; piece = piece * 7 + 2) {
		list(&b, piece);
		must_eq(b.n, a.n);
		must_eq(memcmp(a.cookie, b.cookie, a.n * sizeof a.cookie[0]), 0);
		must_eq(memcmp(a.ino, b.ino, a.n * sizeof a.ino[0]), 0);
	}
}
END_TEST

START_TEST(a_change_between_two_calls_is_seen_and_nothing_else_moves)
{
	struct fs_node *n;
	char name[256];
	bool eof;

	list(&a, UINT32_MAX);
	list(&b, 100); /* in order now */
	b.n = 0;
	b.left = FILES / 2;
	must_eq(dir->fs->ops->readdir(dir, 0, 0, note, &b, &eof), 0);
	for (uint32_t i = 0; i < FILES; i += 3)
		must_eq(dir->fs->ops->unlink(dir, name, name_of(name, i), 0, NULL), 0);
	must_eq(make_s(dir, "a new one", FS_REG, &n), 0);
	b.left = FILES;
	must_eq(dir->fs->ops->readdir(dir, b.cookie[b.n - 1], 0, note, &b, &eof), 0);
	must(eof);
	/* Whatever is listed behind the change was there before, with the same cookie, or is the new one. */
	for (unsigned i = FILES / 2, k = i; i < b.n; i++) {
		if (b.ino[i] == n->ino && b.cookie[i] != a.cookie[k])
			continue;
		while (k < a.n && a.cookie[k] != b.cookie[i])
			k++;
		must(k < a.n);
		must_eq(a.ino[k], b.ino[i]);
	}
	fs_node_put(n);
	list(&b, UINT32_MAX);
	must_eq(b.n, FILES - FILES / 3 + 1);
}
END_TEST

START_TEST(attributes_of_many_are_those_of_each)
{
	struct fs_attr many[200], one;
	struct fs_node *n;
	char name[256];

	list(&a, UINT32_MAX);
	for (unsigned i = 0; i < 200; i++)
		many[i].ino = a.ino[i];
	must_eq(img.fs->ops->getattrs(img.fs, many, 200, FS_NOWAIT), 0);
	for (unsigned i = 0; i < 200; i++) {
		must_eq(img.fs->ops->get(img.fs, a.ino[i], many[i].gen, 0, &n), 0);
		one = attr(n);
		fs_node_put(n);
		must_eq(many[i].ino, one.ino);
		must_eq(many[i].type, one.type);
		must_eq(many[i].change, one.change);
		must_eq(many[i].mtime.nsec, one.mtime.nsec);
		must_eq(many[i].size, one.size);
		must_eq(many[i].nlink, one.nlink);
	}
	/* One that is gone says so, and does not spoil the others; one held by somebody else is read under its lock. */
	must_eq(dir->fs->ops->lookup(dir, name, name_of(name, 5), 0, &n), 0);
	must_eq(dir->fs->ops->unlink(dir, name, name_of(name, 6), 0, NULL), 0);
	many[0].ino = n->ino;
	many[1].ino = 1u << 30;
	many[2].ino = dir->ino;
	must_eq(img.fs->ops->getattrs(img.fs, many, 3, 0), 0);
	must_eq(many[0].change, attr(n).change);
	must_eq(many[1].type, 0);
	must_eq(many[1].gen, ESTALE);
	must_eq(many[2].type, FS_DIR);
	fs_node_put(n);
}
END_TEST

/* After a mount nothing is in memory: what may not wait says so and leaves no trace. */
START_TEST(changes_that_may_not_wait_are_done_wholly_or_not_at_all)
{
	struct fs_create c = {.type = FS_REG, .set = {.mode = 0600}, .flags = FS_NOWAIT};
	struct fs_node *n;
	unsigned done = 0, waits = 0;
	char name[256];
	int err;

	fs_node_put(dir);
	img_unmount(&img);
	img_mount(&img);
	must_eq(look(img.fs->root, "d", &dir), 0);
	for (uint32_t i = 0; i < 400; i++) {
		err = dir->fs->ops->create(dir, name, name_of(name, FILES + i), &c, &n, NULL);
		must(err == 0 || err == -EAGAIN);
		if (err) {
			waits++;
			must_eq(dir->fs->ops->lookup(dir, name, name_of(name, FILES + i), 0, &n), -ENOENT);
			must_eq(make(dir, name, name_of(name, FILES + i), FS_REG, &n), 0);
		} else {
			done++;
		}
		fs_node_put(n);
		err = dir->fs->ops->create(dir, name, name_of(name, FILES + i), &c, &n, NULL);
		must(err == -EEXIST || err == -EAGAIN);
		fs_node_put(n);
	}
	must(done > 0 && waits > 0);
	done = waits = 0;
	for (uint32_t i = 0; i < FILES; i++) {
		err = dir->fs->ops->unlink(dir, name, name_of(name, i), FS_NOWAIT, NULL);
		must(err == 0 || err == -EAGAIN);
		if (err) {
			waits++;
			must_eq(dir->fs->ops->unlink(dir, name, name_of(name, i), 0, NULL), 0);
		} else {
			done++;
		}
		must_eq(dir->fs->ops->lookup(dir, name, name_of(name, i), 0, &n), -ENOENT);
	}
	must(waits > 0);
	list(&a, 77);
	must_eq(a.n, 400);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ext4 listing");
	TCase *t = tcase_create("ext4 listing");
	SRunner *r;
	int failed;

	tcase_set_timeout(t, 120);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, every_way_of_listing_gives_the_same_entries_and_cookies);
	tcase_add_test(t, a_change_between_two_calls_is_seen_and_nothing_else_moves);
	tcase_add_test(t, attributes_of_many_are_those_of_each);
	tcase_add_test(t, changes_that_may_not_wait_are_done_wholly_or_not_at_all);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}

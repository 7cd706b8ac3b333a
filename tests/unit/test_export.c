/* SPDX-License-Identifier: BSD-3-Clause */
/* test_export.c - exports: networks, squashing, their lives, and the pseudo-root above them */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <check.h>

#include "server/export.h"
#include "server/pseudo.h"
#include "tests/unit/memfs.h"
#include "vhd/base/cleanup.h"

static struct exports *x;
static atomic_int closed_count;

static void setup(void)
{
	atomic_store(&closed_count, 0);
	ck_assert_int_eq(exports_new(&x, NULL), 0);
}

static void teardown(void)
{
	ck_assert_int_eq(exports_free(x), 0);
}

static void closed(void *arg, int err)
{
	(void)arg;
	ck_assert_int_eq(err, 0);
	atomic_fetch_add(&closed_count, 1);
}

/* A memory file system with an identity of its own. */
static struct fs *new_fs(uint8_t id)
{
	struct fs *fs = memfs_new();

	ck_assert_ptr_nonnull(fs);
	memset(fs->uuid, id, sizeof fs->uuid);
	return fs;
}

static void add(const char *path, uint8_t id)
{
	static const struct export_opts o = {.anon_uid = 65534, .anon_gid = 65534};

	ck_assert_int_eq(exports_add(x, path, new_fs(id), &o, closed, NULL, NULL), 0);
}

/* ---- networks ------------------------------------------------------------------------------------------------------------- */

START_TEST(networks_are_parsed_or_refused)
{
	static const char *const good[] = {"10.0.0.0/8", "127.0.0.1", "0.0.0.0/0", "::1/128",
					   "::/0",       "fe80::/10", "1.2.3.4/32"};
	static const char *const bad[] = {"",
					  "10.0.0.0/33",
					  "10.0.0/8",
					  "10.0.0.0/",
					  "10.0.0.0/8x",
					  "10.0.0.0/-1",
					  "::1/129",
					  "hello",
					  "1.2.3.4/ 8",
					  "/8",
					  "10.0.0.0/+8",
					  "10.0.0.0/4294967304",
					  "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc/64"};
	struct why why = {{0}};
	struct cidr c;

	for (unsigned i = 0; i < ARRAY_LEN(good); i++)
		ck_assert_int_eq(cidr_parse(good[i], &c, NULL), 0);
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
		ck_assert_int_eq(cidr_parse(bad[i], &c, &why), -EINVAL);
}
END_TEST

static bool matches(const char *net, const char *addr)
{
	struct sockaddr_in6 a6 = {.sin6_family = AF_INET6};
	struct sockaddr_in a4 = {.sin_family = AF_INET};
	struct cidr c;

	ck_assert_int_eq(cidr_parse(net, &c, NULL), 0);
	if (inet_pton(AF_INET, addr, &a4.sin_addr) == 1)
		return cidr_match(&c, (const struct sockaddr *)&a4);
	ck_assert_int_eq(inet_pton(AF_INET6, addr, &a6.sin6_addr), 1);
	return cidr_match(&c, (const struct sockaddr *)&a6);
}

START_TEST(networks_match_their_addresses_to_the_bit)
{
	ck_assert(matches("10.0.0.0/8", "10.255.1.2"));
	ck_assert(!matches("10.0.0.0/8", "11.0.0.0"));
	ck_assert(matches("192.168.4.0/22", "192.168.7.255"));
	ck_assert(!matches("192.168.4.0/22", "192.168.8.0"));
	ck_assert(matches("0.0.0.0/0", "203.0.113.9"));
	ck_assert(!matches("0.0.0.0/0", "::1"));
	ck_assert(!matches("::/0", "127.0.0.1"));
	ck_assert(matches("127.0.0.1", "127.0.0.1"));
	ck_assert(!matches("127.0.0.1", "127.0.0.2"));
	ck_assert(matches("fe80::/10", "febf::1"));
	ck_assert(!matches("fe80::/10", "fec0::1"));
}
END_TEST

START_TEST(an_export_without_networks_allows_everyone_and_one_with_them_only_those)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x0a000001)};
	const struct sockaddr *peer = (const struct sockaddr *)&in;
	struct cidr c[2];
	struct export e = {.opts = {.allow = c}};

	ck_assert(export_allows(&e, peer));
	ck_assert_int_eq(cidr_parse("192.0.2.0/24", &c[0], NULL), 0);
	ck_assert_int_eq(cidr_parse("10.0.0.0/8", &c[1], NULL), 0);
	e.opts.nallow = 1;
	ck_assert(!export_allows(&e, peer));
	e.opts.nallow = 2;
	ck_assert(export_allows(&e, peer));
}
END_TEST

/* ---- squashing --------------------------------------------------------------------------------------------------------------- */

START_TEST(root_is_squashed_wherever_it_hides)
{
	struct export e = {.opts = {.anon_uid = 65534, .anon_gid = 65533}};
	struct rpc_cred rc = {.flavor = 1, .ngids = 3, .gids = {5, 0, 7}};
	struct cred c;

	export_cred(&e, &rc, &c);
	ck_assert_uint_eq(c.uid, 65534);
	ck_assert_uint_eq(c.gid, 65533);
	ck_assert_uint_eq(c.ngids, 3);
	ck_assert_uint_eq(c.gids[0], 5);
	ck_assert_uint_eq(c.gids[1], 65533);
	rc.uid = 1000;
	rc.gid = 100;
	export_cred(&e, &rc, &c);
	ck_assert_uint_eq(c.uid, 1000);
	ck_assert_uint_eq(c.gid, 100);
	ck_assert_uint_eq(c.gids[1], 65533);
}
END_TEST

/* A file whose owner is all ones, as some systems leave behind, is nobody's all the same. */
START_TEST(all_ones_is_no_user_and_no_group)
{
	struct export e = {.opts = {.anon_uid = 65534, .anon_gid = 65533, .squash = SQUASH_NONE}};
	struct rpc_cred rc = {.flavor = 1, .uid = UINT32_MAX, .gid = UINT32_MAX, .ngids = 2, .gids = {5, UINT32_MAX}};
	struct cred c;

	export_cred(&e, &rc, &c);
	ck_assert_uint_eq(c.uid, 65534);
	ck_assert_uint_eq(c.gid, 65533);
	ck_assert_uint_eq(c.gids[0], 5);
	ck_assert_uint_eq(c.gids[1], 65533);
}
END_TEST

START_TEST(squashing_is_as_the_export_says)
{
	struct export e = {.opts = {.anon_uid = 65534, .anon_gid = 65533, .squash = SQUASH_NONE}};
	struct rpc_cred rc = {.flavor = 1, .ngids = 1};
	struct cred c;

	export_cred(&e, &rc, &c);
	ck_assert_uint_eq(c.uid, 0);
	ck_assert_uint_eq(c.gid, 0);
	e.opts.squash = SQUASH_ALL;
	rc.uid = 1000;
	export_cred(&e, &rc, &c);
	ck_assert_uint_eq(c.uid, 65534);
	ck_assert_uint_eq(c.ngids, 0);
	/* AUTH_NONE is nobody, also where root is trusted */
	e.opts.squash = SQUASH_NONE;
	rc.flavor = 0;
	rc.uid = 0;
	export_cred(&e, &rc, &c);
	ck_assert_uint_eq(c.uid, 65534);
	ck_assert_uint_eq(c.gid, 65533);
}
END_TEST

/* ---- lives ------------------------------------------------------------------------------------------------------------------------ */

START_TEST(a_path_and_a_file_system_are_exported_once)
{
	static const struct export_opts o;
	struct why why = {{0}};
	struct fs *same = new_fs(1), *other = new_fs(2);

	add("/disk", 1);
	ck_assert_int_eq(exports_add(x, "/again", same, &o, closed, NULL, &why), -EEXIST);
	ck_assert_int_eq(exports_add(x, "/disk", other, &o, closed, NULL, &why), -EEXIST);
	/* nothing below or above an export */
	add("/a/b", 3);
	ck_assert_int_eq(exports_add(x, "/a", other, &o, closed, NULL, &why), -EEXIST);
	ck_assert_int_eq(exports_add(x, "/disk/p1", other, &o, closed, NULL, &why), -EEXIST);
	ck_assert_int_eq(exports_add(x, "/", other, &o, closed, NULL, &why), -EEXIST);
	ck_assert_int_eq(same->ops->unmount(same), 0);
	ck_assert_int_eq(other->ops->unmount(other), 0);
}
END_TEST

START_TEST(an_export_is_unmounted_when_its_last_reference_goes)
{
	struct export *e;
	struct fs_node *n, *top;

	add("/disk", 1);
	top = export_pseudo(x)->fs->root;
	ck_assert_int_eq(top->fs->ops->lookup(top, "disk", 4, 0, &n), 0);
	e = export_mounted_on(x, n);
	ck_assert_ptr_nonnull(e);
	ck_assert_int_eq(exports_remove(x, "/disk", NULL), 0);
	ck_assert_int_eq(exports_remove(x, "/disk", NULL), -ENOENT);
	ck_assert(atomic_load(&e->dead));
	ck_assert_ptr_null(export_find(x, e->id));
	ck_assert_ptr_null(export_mounted_on(x, n));
	ck_assert_int_eq(atomic_load(&closed_count), 0);
	export_put(e);
	for (int i = 0; i < 500 && !atomic_load(&closed_count); i++)
		usleep(10000);
	ck_assert_int_eq(atomic_load(&closed_count), 1);
	fs_node_put(n);
	add("/disk", 1); /* and may come back */
}
END_TEST

static bool note(void *arg, const struct export *e)
{
	char *all = arg;

	strcat(strcat(all, e->path), " ");
	return strcmp(e->path, "/b/p1") != 0;
}

START_TEST(exports_are_listed_by_path_until_told_to_stop)
{
	char all[200] = "";

	add("/c", 3);
	add("/b/p2", 2);
	add("/b/p1", 1);
	add("/a", 4);
	exports_each(x, note, all);
	ck_assert_str_eq(all, "/ /a /b/p1 ");
}
END_TEST

/* Filehandles outlive the server: the id comes from the file system alone. */
START_TEST(the_id_of_an_export_does_not_depend_on_where_it_is)
{
	struct fs_node *n, *top = export_pseudo(x)->fs->root;
	uint32_t id[2];

	for (int i = 0; i < 2; i++) {
		const char *path = i ? "/other" : "/disk";
		struct export *e;

		add(path, 9);
		ck_assert_int_eq(top->fs->ops->lookup(top, path + 1, (uint32_t)strlen(path + 1), 0, &n), 0);
		e = export_mounted_on(x, n);
		id[i] = e->id;
		export_put(e);
		fs_node_put(n);
		ck_assert_int_eq(exports_remove(x, path, NULL), 0);
	}
	ck_assert_uint_eq(id[0], id[1]);
	ck_assert_uint_gt(id[0], 1);
}
END_TEST

static atomic_bool stop;

static void *looker(void *arg)
{
	struct export *root = export_pseudo(x);
	unsigned found = 0;

	(void)arg;
	while (!atomic_load(&stop)) {
		struct fs_node *n;
		struct export *e;
		struct fs_attr at;

		if (root->fs->ops->lookup(root->fs->root, "disk", 4, 0, &n))
			continue;
		e = export_mounted_on(x, n);
		if (e) {
			ck_assert_int_eq(e->fs->ops->getattr(e->fs->root, 0, &at), 0);
			fs_node_put(export_mount_parent(x, e));
			found++;
		}
		export_put(e);
		fs_node_put(n);
	}
	export_put(root);
	return NULL;
}

START_TEST(exports_come_and_go_while_others_use_them)
{
	pthread_t t[2];

	atomic_store(&stop, false);
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(pthread_create(&t[i], NULL, looker, NULL), 0);
	for (int i = 0; i < 100; i++) {
		add("/disk", (uint8_t)(i + 1));
		usleep(500);
		ck_assert_int_eq(exports_remove(x, "/disk", NULL), 0);
	}
	atomic_store(&stop, true);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
}
END_TEST

/* ---- the pseudo-root ------------------------------------------------------------------------------------------------------------------ */

static struct fs_node *pseudo_child(struct fs_node *dir, const char *name)
{
	struct fs_node *n = NULL;

	return dir->fs->ops->lookup(dir, name, (uint32_t)strlen(name), FS_NOWAIT, &n) ? NULL : n;
}

struct listing {
	unsigned n;
	uint64_t cookie[8];
	char name[8][32];
	unsigned max;
};

static bool take(void *arg, const struct fs_dirent *d)
{
	struct listing *l = arg;

	if (l->n == l->max)
		return false;
	l->cookie[l->n] = d->cookie;
	snprintf(l->name[l->n++], sizeof l->name[0], "%.*s", (int)d->len, d->name);
	return true;
}

START_TEST(pseudo_directories_lead_to_exports_and_are_there_only_for_them)
{
	struct export *root = export_pseudo(x);
	struct fs_node *top = root->fs->root, *dir, *p1, *up;

	add("/disk/p1", 1);
	ck_assert_ptr_null(pseudo_child(top, "p1"));
	ck_assert_ptr_null(pseudo_child(top, "dis"));
	dir = pseudo_child(top, "disk");
	ck_assert_ptr_nonnull(dir);
	p1 = pseudo_child(dir, "p1");
	ck_assert_ptr_nonnull(p1);
	ck_assert_int_eq(top->fs->ops->parent(p1, 0, &up), 0);
	ck_assert_ptr_eq(up, dir);
	fs_node_put(up);
	ck_assert_int_eq(exports_remove(x, "/disk/p1", NULL), 0);
	ck_assert_ptr_null(pseudo_child(top, "disk"));
	fs_node_put(p1);
	fs_node_put(dir);
	export_put(root);
}
END_TEST

/* "/.snapshots/secret" is not there for a client that may not use "/.snapshots/secret/monday", and its name tells nobody anything. */
START_TEST(pseudo_directories_are_there_only_for_those_whom_they_lead_somewhere)
{
	struct cidr ten = {0};
	struct export_opts for_ten = {.anon_uid = 65534, .anon_gid = 65534, .allow = &ten, .nallow = 1};
	const struct export_opts for_all = {.anon_uid = 65534, .anon_gid = 65534};
	struct sockaddr_in in = {.sin_family = AF_INET}, out = {.sin_family = AF_INET};
	struct export *root = export_pseudo(x);
	struct fs_node *snapshots, *secret, *open;
	struct fs_attr a;

	ck_assert_int_eq(cidr_parse("10.0.0.0/8", &ten, NULL), 0);
	in.sin_addr.s_addr = htonl(0x0a000001);
	out.sin_addr.s_addr = htonl(0xc0000201);
	ck_assert_int_eq(exports_add(x, "/.snapshots/secret/monday", new_fs(1), &for_ten, closed, NULL, NULL), 0);
	snapshots = pseudo_child(root->fs->root, ".snapshots");
	secret = pseudo_child(snapshots, "secret");
	ck_assert(export_shows(x, secret, (const struct sockaddr *)&in));
	ck_assert(!export_shows(x, secret, (const struct sockaddr *)&out));
	ck_assert(!export_shows(x, snapshots, (const struct sockaddr *)&out));
	ck_assert_int_eq(exports_add(x, "/.snapshots/open/monday", new_fs(2), &for_all, closed, NULL, NULL), 0);
	open = pseudo_child(snapshots, "open");
	ck_assert(export_shows(x, snapshots, (const struct sockaddr *)&out));
	ck_assert(export_shows(x, open, (const struct sockaddr *)&out));
	ck_assert(!export_shows(x, secret, (const struct sockaddr *)&out));
	/* Nor does a number of links count them. */
	ck_assert_int_eq(snapshots->fs->ops->getattr(snapshots, 0, &a), 0);
	ck_assert_uint_eq(a.nlink, 1);
	fs_node_put(open);
	fs_node_put(secret);
	fs_node_put(snapshots);
	export_put(root);
}
END_TEST

START_TEST(pseudo_directories_are_listed_whole_in_pieces_of_any_size)
{
	struct export *root = export_pseudo(x);
	struct fs *fs = root->fs;

	for (uint8_t i = 0; i < 7; i++) {
		char path[16];

		snprintf(path, sizeof path, "/disk%u", i);
		add(path, (uint8_t)(i + 1));
	}
	for (unsigned max = 1; max <= 8; max++) {
		uint64_t cookie = 0;
		unsigned all = 0, seen = 0;
		bool eof = false;

		while (!eof) {
			struct listing l = {.max = max};

			ck_assert_int_eq(fs->ops->readdir(fs->root, cookie, FS_NOWAIT, take, &l, &eof), 0);
			for (unsigned i = 0; i < l.n; i++) {
				ck_assert_uint_gt(l.cookie[i], cookie);
				ck_assert_uint_gt(l.cookie[i], 2);
				cookie = l.cookie[i];
				seen |= 1u << (l.name[i][4] - '0');
			}
			all += l.n;
			ck_assert_uint_le(all, 7);
		}
		ck_assert_uint_eq(all, 7);
		ck_assert_uint_eq(seen, 0x7f);
	}
	export_put(root);
}
END_TEST

START_TEST(change_of_a_pseudo_directory_moves_when_exports_change)
{
	struct export *root = export_pseudo(x);
	struct fs *fs = root->fs;
	struct fs_attr was, is;

	ck_assert_int_eq(fs->ops->getattr(fs->root, FS_NOWAIT, &was), 0);
	add("/a/b/c", 1);
	ck_assert_int_eq(fs->ops->getattr(fs->root, FS_NOWAIT, &is), 0);
	ck_assert_uint_gt(is.change, was.change);
	ck_assert_int_eq(exports_remove(x, "/a/b/c", NULL), 0);
	ck_assert_int_eq(fs->ops->getattr(fs->root, FS_NOWAIT, &was), 0);
	ck_assert_uint_gt(was.change, is.change);
	export_put(root);
}
END_TEST

/* Whatever else is exported, and in which order. */
START_TEST(number_of_a_pseudo_directory_comes_from_its_path)
{
	struct fs *a, *b;
	struct fs_node *n, *m;
	static struct export some;

	ck_assert_int_eq(pseudo_new(&a), 0);
	ck_assert_int_eq(pseudo_new(&b), 0);
	ck_assert_int_eq(pseudo_mount(a, "/one/two", &some), 0);
	ck_assert_int_eq(pseudo_mount(b, "/zero", &some), 0);
	ck_assert_int_eq(pseudo_mount(b, "/two", &some), 0);
	ck_assert_int_eq(pseudo_mount(b, "/one/two", &some), 0);
	n = pseudo_child(a->root, "one");
	m = pseudo_child(b->root, "one");
	ck_assert_uint_eq(n->ino, m->ino);
	ck_assert_int_eq(b->ops->get(b, n->ino, n->gen, FS_NOWAIT, &n), 0);
	ck_assert_ptr_eq(n, m);
	ck_assert_int_eq(b->ops->get(b, m->ino, 2, FS_NOWAIT, &n), -ESTALE);
	ck_assert_int_eq(b->ops->get(b, 12345, 1, FS_NOWAIT, &n), -ESTALE);
	pseudo_free(a);
	pseudo_free(b);
}
END_TEST

START_TEST(names_too_long_for_a_directory_are_not_mounted)
{
	static struct export some;
	char path[400];
	struct fs *fs;

	memset(path, 'n', sizeof path);
	path[0] = '/';
	path[399] = '\0';
	ck_assert_int_eq(pseudo_new(&fs), 0);
	ck_assert_int_lt(pseudo_mount(fs, path, &some), 0);
	path[256] = '\0';
	ck_assert_int_eq(pseudo_mount(fs, path, &some), 0);
	pseudo_free(fs);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("exports");
	TCase *tc = tcase_create("all");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, networks_are_parsed_or_refused);
	tcase_add_test(tc, networks_match_their_addresses_to_the_bit);
	tcase_add_test(tc, an_export_without_networks_allows_everyone_and_one_with_them_only_those);
	tcase_add_test(tc, root_is_squashed_wherever_it_hides);
	tcase_add_test(tc, all_ones_is_no_user_and_no_group);
	tcase_add_test(tc, squashing_is_as_the_export_says);
	tcase_add_test(tc, a_path_and_a_file_system_are_exported_once);
	tcase_add_test(tc, an_export_is_unmounted_when_its_last_reference_goes);
	tcase_add_test(tc, exports_are_listed_by_path_until_told_to_stop);
	tcase_add_test(tc, the_id_of_an_export_does_not_depend_on_where_it_is);
	tcase_add_test(tc, exports_come_and_go_while_others_use_them);
	tcase_add_test(tc, pseudo_directories_lead_to_exports_and_are_there_only_for_them);
	tcase_add_test(tc, pseudo_directories_are_there_only_for_those_whom_they_lead_somewhere);
	tcase_add_test(tc, pseudo_directories_are_listed_whole_in_pieces_of_any_size);
	tcase_add_test(tc, change_of_a_pseudo_directory_moves_when_exports_change);
	tcase_add_test(tc, number_of_a_pseudo_directory_comes_from_its_path);
	tcase_add_test(tc, names_too_long_for_a_directory_are_not_mounted);
	suite_add_tcase(suite, tc);
	r = srunner_create(suite);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

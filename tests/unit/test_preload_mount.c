/* SPDX-License-Identifier: BSD-3-Clause */
/* test_preload_mount.c - /proc/self/mountinfo as the preload library reads it: which mounts, and where on which server */
#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/preload.h"
#include "vhd/base/cleanup.h"

static struct pre_mount m;

static bool parse(const char *text, uint32_t id)
{
	char line[2 * PATH_MAX];

	ck_assert_uint_lt(strlen(text), sizeof line);
	memcpy(line, text, strlen(text) + 1);
	return pre_mount_parse(line, id, &m);
}

#define OPTIONS "rw,vers=4.2,hard,proto=tcp,timeo=600,sec=sys,clientaddr=10.0.0.2,local_lock=none,addr=10.0.0.1"

/* proc(5), "/proc/pid/mountinfo". */
START_TEST(a_mount_is_found_in_its_line)
{
	ck_assert(parse("24 20 0:21 / /run/mnt rw,relatime - nfs4 10.0.0.1:/disk " OPTIONS "\n", 24));
	ck_assert_str_eq(m.point, "/run/mnt");
	ck_assert_str_eq(m.export, "/disk");
	ck_assert_str_eq(m.host, "10.0.0.1");
	ck_assert_str_eq(m.port, "2049");
	/* Optional fields, names for numbers, a port, blanks. */
	ck_assert(parse(
		"24 20 0:21 / /a\\040b\\134c rw shared:1 master:2 - nfs4 host:/d\\011e " OPTIONS ",port=20490\n", 24));
	ck_assert_str_eq(m.point, "/a b\\c");
	ck_assert_str_eq(m.export, "/d\te");
	ck_assert_str_eq(m.host, "10.0.0.1");
	ck_assert_str_eq(m.port, "20490");
	ck_assert(parse("24 20 0:21 / /m rw - nfs4 [fe80::1%eth0]:/ rw,proto=tcp6,addr=fe80::1%eth0", 24));
	ck_assert_str_eq(m.export, "/");
	ck_assert_str_eq(m.host, "fe80::1%eth0");
	ck_assert(parse("24 20 0:21 / /m rw - nfs4 [::1]:/x rw", 24));
	ck_assert_str_eq(m.host, "::1");
}
END_TEST

START_TEST(other_mounts_are_not_taken_for_it)
{
	static char longer[PATH_MAX + 200];
	static const char *const no[] = {
		"",
		"\n",
		"24",
		"24 20 0:21 / /m",
		"24 20 0:21 / /m rw",
		"24 20 0:21 / /m rw - nfs4",
		"24 20 0:21 / /m rw - nfs4 h:/d",
		"25 20 0:21 / /m rw - nfs4 h:/d " OPTIONS,
		"24 20 0:21 / /m rw - nfs h:/d " OPTIONS,
		"24 20 0:21 / /m rw nfs4 h:/d " OPTIONS,
		"24 20 0:21 / /m rw - ext4 /dev/vda rw",
		"24 20 0:21 / /m rw - nfs4 nothing " OPTIONS,
		"24 20 0:21 / /m rw - nfs4 :/d rw",
		"24 20 0:21 / /m rw - nfs4 h:/d rw,proto=rdma,addr=10.0.0.1",
		"24 20 0:21 / /m rw - nfs4 h:/d rw,addr=",
		"24 20 0:21 / /m rw - nfs4 h:/d rw,port=1234567890",
	};

	for (size_t i = 0; i < ARRAY_LEN(no); i++)
		ck_assert_msg(!parse(no[i], 24), "%s", no[i]);
	memset(longer, 'x', sizeof longer - 1);
	memcpy(longer, "24 20 0:21 / /", 14);
	memcpy(longer + sizeof longer - 40, " rw - nfs4 h:/d rw,addr=1", 26);
	ck_assert(!parse(longer, 24));
}
END_TEST

START_TEST(paths_are_below_the_mount_or_not_on_the_server)
{
	static const struct {
		const char *point, *export, *path, *there;
	} cases[] = {
		{"/mnt", "/disk", "/mnt/a/b", "/disk/a/b"},
		{"/mnt", "/", "/mnt/a", "/a"},
		{"/", "/disk", "/a", "/disk/a"},
		{"/", "/", "/a", "/a"},
		{"/mnt", "/disk", "/mnt (deleted)", NULL},
		{"/mnt", "/disk", "/mntx/a", NULL},
		{"/mnt", "/disk", "/elsewhere/a", NULL},
		{"/mnt", "/disk", "/mnt", NULL},
		{"/mnt", "/disk/and/a/long/name", "/mnt/a", NULL},
	};
	char there[20];

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		snprintf(m.point, sizeof m.point, "%s", cases[i].point);
		snprintf(m.export, sizeof m.export, "%s", cases[i].export);
		ck_assert_msg(pre_mount_path(&m, cases[i].path, there, sizeof there) == !!cases[i].there, "case %zu",
			      i);
		if (cases[i].there)
			ck_assert_str_eq(there, cases[i].there);
	}
}
END_TEST

START_TEST(what_is_no_regular_file_on_nfs_is_left_alone)
{
	char name[] = "/dev/shm/vhdnfs-preload-XXXXXX", path[PATH_MAX];
	int fd = mkstemp(name), pipes[2];
	struct pre_id id;

	ck_assert(!pre_identify(-1, &id));
	ck_assert_int_eq(pipe(pipes), 0);
	ck_assert(!pre_identify(pipes[0], &id));
	ck_assert(!pre_path_of(pipes[0], path));
	ck_assert(!pre_path_of(-1, path));
	if (fd >= 0) {
		for (int i = 0; i < 2; i++) /* found out, and known */
			ck_assert(!pre_identify(fd, &id));
		ck_assert(pre_path_of(fd, path));
		ck_assert_str_eq(path, name);
		close(fd);
		unlink(name);
	}
	close(pipes[0]);
	close(pipes[1]);
	ck_assert(!pre_mount_find(0xffffffffu, &m));
}
END_TEST

/* A descriptor for a file of @size bytes. */
static int file_of(off_t size, int flags)
{
	char path[] = "/tmp/vhdnfs-preload-XXXXXX";
	int fd = mkstemp(path), again;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, size), 0);
	again = open(path, flags | O_CLOEXEC);
	ck_assert_int_ge(again, 0);
	close(fd);
	unlink(path);
	return again;
}

START_TEST(that_a_small_file_is_read_in_order_is_not_worth_saying)
{
	static const struct {
		uint64_t size;
		int flags;
		uint32_t hints, worth;
	} c[] = {
		{1, O_RDONLY, PRE_SEQUENTIAL, 0},
		{131072, O_RDONLY, PRE_SEQUENTIAL, 0},
		{131073, O_RDONLY, PRE_SEQUENTIAL, PRE_SEQUENTIAL},
		{4096, O_RDONLY, PRE_SEQUENTIAL | PRE_NOREUSE, PRE_NOREUSE},
		{4096, O_RDONLY, PRE_DONTNEED, PRE_DONTNEED},
		{4096, O_RDONLY, PRE_WILLNEED, PRE_WILLNEED},
		{4096, O_RDWR, PRE_SEQUENTIAL, PRE_SEQUENTIAL}, /* it may grow */
		{0, O_RDONLY, PRE_SEQUENTIAL, PRE_SEQUENTIAL},  /* or the kernel does not know */
	};

	for (size_t i = 0; i < sizeof c / sizeof c[0]; i++) {
		const struct pre_id id = {.ino = 1, .size = c[i].size};
		int fd = file_of((off_t)c[i].size, c[i].flags);

		ck_assert_uint_eq(pre_worth_saying(fd, &id, c[i].hints), c[i].worth);
		close(fd);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("preload: mounts");
	TCase *tc = tcase_create("mounts");
	SRunner *sr;
	int failed;

	tcase_add_test(tc, a_mount_is_found_in_its_line);
	tcase_add_test(tc, other_mounts_are_not_taken_for_it);
	tcase_add_test(tc, paths_are_below_the_mount_or_not_on_the_server);
	tcase_add_test(tc, that_a_small_file_is_read_in_order_is_not_worth_saying);
	tcase_add_test(tc, what_is_no_regular_file_on_nfs_is_left_alone);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? 1 : 0;
}

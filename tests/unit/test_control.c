/* SPDX-License-Identifier: BSD-3-Clause */
/* test_control.c - where the control socket may be made */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "server/control.h"

static const struct control_server nobody;
static char dir[32], path[64];

static void setup(void)
{
	strcpy(dir, "/tmp/vhdnfs-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/socket", dir);
}

static void teardown(void)
{
	unlink(path);
	rmdir(dir);
}

/* A socket that nobody listens at any more. */
static void leave_a_socket(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
	close(fd);
}

START_TEST(a_socket_of_a_server_that_is_gone_is_replaced)
{
	struct why why = {.line = ""};
	struct control *c = NULL, *second = NULL;
	struct stat st;

	leave_a_socket();
	ck_assert_int_eq(control_start(&c, path, &nobody, &why), 0);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0600);
	ck_assert_int_eq(control_start(&second, path, &nobody, &why), -EADDRINUSE);
	control_stop(c);
	ck_assert_int_eq(stat(path, &st), -1);
}
END_TEST

/* Connecting to a file is refused as connecting to such a socket is. */
START_TEST(a_file_is_not_replaced)
{
	struct why why = {.line = ""};
	struct control *c = NULL;
	char buf[8] = "";
	FILE *f = fopen(path, "w");

	fputs("image", f);
	fclose(f);
	ck_assert_int_eq(control_start(&c, path, &nobody, &why), -EADDRINUSE);
	ck_assert_str_ne(why.line, "");
	f = fopen(path, "r");
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fread(buf, 1, sizeof buf - 1, f), 5);
	ck_assert_str_eq(buf, "image");
	fclose(f);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("control");
	TCase *t = tcase_create("control");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, a_socket_of_a_server_that_is_gone_is_replaced);
	tcase_add_test(t, a_file_is_not_replaced);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}

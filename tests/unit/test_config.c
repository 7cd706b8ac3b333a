/* SPDX-License-Identifier: BSD-3-Clause */
/* test_config.c - vhdnfs.yaml, addresses, image arguments: what is understood and what is said about mistakes */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/config.h"

static struct config conf;
static struct why why;
static char path[] = "/tmp/vhdnfs-config-XXXXXX";

static void setup(void)
{
	int fd;

	strcpy(path + strlen(path) - 6, "XXXXXX");
	fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	close(fd);
	config_init(&conf);
	why.line[0] = '\0';
}

static void teardown(void)
{
	config_fini(&conf);
	unlink(path);
}

static int load(const char *text)
{
	FILE *f = fopen(path, "we");

	ck_assert_ptr_nonnull(f);
	fputs(text, f);
	fclose(f);
	return config_load(&conf, path, &why);
}

/* The complaint is "PATH:LINE: …" and mentions @what. */
static void complained(unsigned line, const char *what)
{
	char at[80];

	snprintf(at, sizeof at, "%s:%u: ", path, line);
	ck_assert_msg(strncmp(why.line, at, strlen(at)) == 0, "\"%s\" does not begin with \"%s\"", why.line, at);
	ck_assert_msg(strstr(why.line, what), "\"%s\" does not mention \"%s\"", why.line, what);
}

START_TEST(a_full_file_is_understood)
{
	ck_assert_int_eq(load("listen: [\"127.0.0.1:2050\", \"[::1]\"]\n"
			      "allow: [10.0.0.0/8]\n"
			      "cache-size: 1GiB\n"
			      "squash: all\n"
			      "log-level: debug\n"
			      "lease-seconds: 30\n"
			      "exports:\n"
			      "  - image: /srv/a.vhd\n"
			      "  - image: /srv/b.VHD\n"
			      "    name: second\n"
			      "    read-only: true\n"
			      "    squash: none\n"
			      "    anon-uid: 99\n"
			      "    allow: [\"::1/128\", 192.0.2.0/24]\n"),
			 0);
	ck_assert_int_eq(config_finish(&conf, &why), 0);
	ck_assert_uint_eq(conf.nlisten, 2);
	ck_assert_str_eq(conf.listen[0], "127.0.0.1:2050");
	ck_assert_str_eq(conf.listen[1], "[::1]:2049");
	ck_assert_uint_eq(conf.nallow, 1);
	ck_assert_uint_eq(conf.cache_size, 1u << 30);
	ck_assert_uint_eq(conf.lease_seconds, 30);
	ck_assert_uint_eq(conf.nimage, 2);
	ck_assert_str_eq(conf.image[0].name, "a");
	ck_assert_int_eq(conf.image[0].opts.squash, SQUASH_ALL);
	ck_assert_str_eq(conf.image[1].name, "second");
	ck_assert(conf.image[1].opts.read_only);
	ck_assert_int_eq(conf.image[1].opts.squash, SQUASH_NONE);
	ck_assert_uint_eq(conf.image[1].opts.anon_uid, 99);
	ck_assert_uint_eq(conf.image[1].opts.nallow, 2);
}
END_TEST

START_TEST(an_empty_file_changes_nothing)
{
	ck_assert_int_eq(load(""), 0);
	ck_assert_int_eq(config_finish(&conf, &why), 0); /* images may come with a reload */
	ck_assert_uint_eq(conf.nimage, 0);
}
END_TEST

START_TEST(without_a_file_there_must_be_an_image)
{
	ck_assert_int_eq(config_finish(&conf, &why), -EINVAL);
}
END_TEST

START_TEST(an_unknown_key_is_named_with_its_line)
{
	ck_assert_int_eq(load("cache-size: 1G\nchache: 2\n"), -EINVAL);
	complained(2, "chache");
}
END_TEST

START_TEST(a_wrong_size_is_named_with_its_line)
{
	ck_assert_int_eq(load("# memory\n\ncache-size: 4 GB\n"), -EINVAL);
	complained(3, "4 GB");
}
END_TEST

START_TEST(a_wrong_network_in_an_export_is_named_with_its_line)
{
	ck_assert_int_eq(load("exports:\n  - image: a.vhd\n  - image: b.vhd\n    allow: [10.0.0.0/99]\n"), -EINVAL);
	complained(4, "exports[1].allow[0]: allow \"10.0.0.0/99\"");
}
END_TEST

/* One line with the file, the line, the field, what was found or expected. */
static const struct {
	const char *text;
	unsigned line;
	const char *said;
} bad_rules[] = {
	{"rules:\n  - match: a\n    advise: [random]\n  - match: b\n    advise:\n      - noreuse\n      - sequental\n",
	 7, "rules[1].advise[1]: advice \"sequental\": expected sequential, backwards, random, noreuse or normal"},
	{"rules:\n  - match: a\n    advise: [random]\n  - advise: [random]\n", 4, "rules[1]: match is missing"},
	{"rules:\n  - match: a\n", 2, "rules[0]: advise is missing"},
	{"rules:\n  - match: a\n    advise: [sequential, random]\n", 3,
	 "rules[0].advise: sequential, backwards and random exclude each other"},
	{"rules:\n  - match: a\n    advise: [noreuse, normal]\n", 3, "rules[0].advise: normal excludes the others"},
	{"rules:\n  - match: a\n    advise: [\"random,sequential\"]\n", 3,
	 "rules[0].advise[0]: advice \"random,sequential\": sequential, backwards and random exclude each other"},
	{"rules:\n  - match: a\n    advise: []\n", 3, "rules[0].advise: expected at least one entry"},
	{"rules:\n  - match: a\n    advise: [\"\"]\n", 3, "rules[0].advise[0]: must not be empty"},
	{"rules:\n  - match: a\n    advise: random\n", 3, "rules[0].advise: expected a list"},
	{"rules:\n  - match: \"\"\n    advise: [random]\n", 2, "rules[0].match: must not be empty"},
	{"rules:\n  - match: a/b\n    advise: [random]\n", 2, "rules[0].match: \"a/b\": names have no '/'"},
	{"rules:\n  - match: a\n    advice: [random]\n", 3, "rules[0]: Unexpected key: advice"},
	{"rules:\n  match: a\n", 2, "rules: expected a list"},
	{"rules:\n  - a\n", 2, "rules[0]: expected keys with values"},
};

START_TEST(a_mistake_in_a_rule_is_named_with_line_and_field)
{
	char want[300];

	ck_assert_int_eq(load(bad_rules[_i].text), -EINVAL);
	snprintf(want, sizeof want, "%s:%u: %s", path, bad_rules[_i].line, bad_rules[_i].said);
	ck_assert_str_eq(why.line, want);
	ck_assert_uint_eq(conf.nrule, strstr(bad_rules[_i].said, "rules[1]") != NULL);
}
END_TEST

START_TEST(rules_are_taken_in_their_order)
{
	ck_assert_int_eq(load("rules:\n  - match: \"*.mp4\"\n    advise: [sequential, noreuse]\n"
			      "  - {match: \"*\", advise: [normal]}\n"),
			 0);
	ck_assert_uint_eq(conf.nrule, 2);
	ck_assert_str_eq(conf.rule[0].match, "*.mp4");
	ck_assert_uint_eq(conf.rule[0].hints, 1u << 1 | 1u << 7);
	ck_assert_str_eq(conf.rule[1].match, "*");
	ck_assert_uint_eq(conf.rule[1].hints, 1u << 0);
}
END_TEST

static const struct {
	const char *text, *range;
} numbers[] = {
	{"threads: 0\n", "threads: 0: expected a number from 1 to 256"},
	{"workers: 1025\n", "workers: 1025: expected a number from 1 to 1024"},
	{"busy-poll: 1001\n", "busy-poll: 1001: expected a number from 0 to 1000"},
	{"max-connections: 0\n", "max-connections: 0: expected a number from 1 to 65536"},
	{"lease-seconds: 0\n", "lease-seconds: 0: expected a number from 1 to 3600"},
	{"grace-seconds: 4294967295\n", "grace-seconds: 4294967295: expected a number from 1 to 3600"},
};

START_TEST(a_number_out_of_range_is_named_with_its_line)
{
	char text[100];

	snprintf(text, sizeof text, "read-only: true\n%s", numbers[_i].text);
	ck_assert_int_eq(load(text), -EINVAL);
	complained(2, numbers[_i].range);
}
END_TEST

/* Whatever stands there is understood, or the server does not start. */
static const struct {
	const char *text;
	unsigned line;
	const char *said;
} bad_values[] = {
	{"async: fasle\n", 1, "async: \"fasle\": expected yes, no, true, false, on or off"},
	{"\nread-only: 1\n", 2, "read-only: \"1\": expected yes, no, true, false, on or off"},
	{"discard:\n", 1, "discard: \"\": expected yes, no, true, false, on or off"},
	{"snapshots: [yes]\n", 1, "snapshots: expected one value"},
	{"exports:\n  - image: a\n    read-only: y e s\n", 3,
	 "exports[0].read-only: \"y e s\": expected yes, no, true, false, on or off"},
	{"threads: 5x\n", 1, "threads: \"5x\": expected a number from 1 to 256"},
	{"threads: 0x10\n", 1, "threads: \"0x10\": expected a number from 1 to 256"},
	{"threads: -1\n", 1, "threads: \"-1\": expected a number from 1 to 256"},
	{"threads: 18446744073709551617\n", 1, "threads: \"18446744073709551617\": expected a number from 1 to 256"},
	{"lease-seconds: 1.5\n", 1, "lease-seconds: \"1.5\": expected a number from 1 to 3600"},
	{"squash: rot\n", 1, "squash: \"rot\": expected root, none or all"},
	{"log-level: loud\n", 1, "log-level: \"loud\": expected error, warn, info or debug"},
	{"readahead: yes\n", 1, "readahead: \"yes\": expected auto, hints or off"},
	{"exports:\n  - image: a\n    anon-uid: 4294967295\n", 3,
	 "exports[0].anon-uid: \"4294967295\": expected a number from 0 to 4294967294"},
	{"exports:\n  - image: a\n    anon-gid: users\n", 3,
	 "exports[0].anon-gid: \"users\": expected a number from 0 to 4294967294"},
	{"listen: 127.0.0.1\n", 1, "listen: expected a list"},
	{"listen: [\"127.0.0.1:99999\"]\n", 1,
	 "listen[0]: listen \"127.0.0.1:99999\": expected ADDRESS[:PORT], such as 127.0.0.1:2049 or [::1]:2049"},
	{"async: yes\nasync: no\n", 2, "async stands there twice"},
	{"a: &x [*x]\n", 1, "Unexpected key: a"},
	{"listen: &x [*x]\n", 1, "listen[0]: expected one value"},
	{"[a, b]\n", 1, "expected keys with values"},
	{"async: yes\n---\nasync: no\n", 3, "expected the end of the file"},
	{"state-dir: \"\"\n", 1, "state-dir: must not be empty"},
	{"state-dir: nowhere/at/all\n", 1, "state-dir: state-dir /tmp/nowhere/at/all: No such file or directory"},
	{"cache-size: 1T2\n", 1, "cache-size: cache-size \"1T2\": expected a size such as 256M or 4GiB"},
};

START_TEST(a_value_that_is_not_understood_is_named_with_line_field_and_choices)
{
	char want[400];

	ck_assert_int_lt(load(bad_values[_i].text), 0);
	snprintf(want, sizeof want, "%s:%u: %s", path, bad_values[_i].line, bad_values[_i].said);
	ck_assert_str_eq(why.line, want);
}
END_TEST

START_TEST(words_for_yes_and_no_are_understood)
{
	ck_assert_int_eq(load("async: yes\ndiscard: On\nsnapshots: TRUE\nread-only: no\nforce-parent: off\n"
			      "secure-ports: \"false\"\n"),
			 0);
	ck_assert(conf.async && conf.discard && conf.snapshots);
	ck_assert(!conf.read_only && !conf.force_parent && !conf.secure_ports);
}
END_TEST

/* Wherever the server is started. */
START_TEST(relative_paths_count_from_the_folder_of_the_file)
{
	ck_assert_int_eq(load("exports:\n  - image: disks/a.vhd\n  - image: /srv/b.vhd\nstate-dir: .\ncontrol: c\n"),
			 0);
	ck_assert_str_eq(conf.image[0].path, "/tmp/disks/a.vhd");
	ck_assert_str_eq(conf.image[0].name, "a");
	ck_assert_str_eq(conf.image[1].path, "/srv/b.vhd");
	ck_assert_str_eq(conf.state_dir, "/tmp/.");
	ck_assert_str_eq(conf.control, "/tmp/c");
	ck_assert_int_eq(load("control: none\n"), 0);
	ck_assert_str_eq(conf.control, "none");
}
END_TEST

START_TEST(an_export_without_an_image_is_refused)
{
	ck_assert_int_eq(load("exports:\n  - name: x\n"), -EINVAL);
	ck_assert_ptr_nonnull(strstr(why.line, "image"));
}
END_TEST

START_TEST(broken_yaml_is_refused_with_a_line)
{
	ck_assert_int_eq(load("listen: [a\nexports: }\n"), -EINVAL);
	ck_assert(strncmp(why.line, path, strlen(path)) == 0);
}
END_TEST

START_TEST(two_images_of_one_name_are_refused)
{
	ck_assert_int_eq(config_add_image(&conf, "/a/disk.vhd", &why), 0);
	ck_assert_int_eq(config_add_image(&conf, "/b/disk.vhd", &why), -EEXIST);
	ck_assert_int_eq(config_add_image(&conf, "/b/disk.vhd=other", &why), 0);
	ck_assert_str_eq(conf.image[1].path, "/b/disk.vhd");
	ck_assert_str_eq(conf.image[1].name, "other");
}
END_TEST

START_TEST(a_missing_file_is_said)
{
	ck_assert_int_eq(config_load(&conf, "/nonexistent/vhdnfs.yaml", &why), -ENOENT);
	ck_assert_ptr_nonnull(strstr(why.line, "/nonexistent/vhdnfs.yaml"));
}
END_TEST

static const struct {
	const char *text, *want; /* NULL: refused */
} addresses[] = {
	{"127.0.0.1", "127.0.0.1:2049"},
	{"0.0.0.0:0", "0.0.0.0:0"},
	{"::1", "[::1]:2049"},
	{"[::1]:99", "[::1]:99"},
	{"[::]", "[::]:2049"},
	{":2049", NULL},
	{"localhost", NULL},
	{"127.0.0.1:", NULL},
	{"127.0.0.1:65536", NULL},
	{"127.0.0.1:x", NULL},
	{"[::1", NULL},
	{"[::1]x", NULL},
	{"", NULL},
	{"127.0.0.1:-1", NULL},
};

START_TEST(addresses_are_understood_or_refused)
{
	int err = config_add_listen(&conf, addresses[_i].text, &why);

	if (addresses[_i].want) {
		ck_assert_int_eq(err, 0);
		ck_assert_str_eq(conf.listen[0], addresses[_i].want);
	} else {
		ck_assert_int_eq(err, -EINVAL);
		ck_assert_uint_eq(conf.nlisten, 0);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("config");
	TCase *t = tcase_create("config");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, a_full_file_is_understood);
	tcase_add_test(t, an_empty_file_changes_nothing);
	tcase_add_test(t, without_a_file_there_must_be_an_image);
	tcase_add_test(t, an_unknown_key_is_named_with_its_line);
	tcase_add_test(t, a_wrong_size_is_named_with_its_line);
	tcase_add_test(t, a_wrong_network_in_an_export_is_named_with_its_line);
	tcase_add_loop_test(t, a_mistake_in_a_rule_is_named_with_line_and_field, 0,
			    (int)(sizeof bad_rules / sizeof bad_rules[0]));
	tcase_add_test(t, rules_are_taken_in_their_order);
	tcase_add_loop_test(t, a_number_out_of_range_is_named_with_its_line, 0,
			    (int)(sizeof numbers / sizeof numbers[0]));
	tcase_add_loop_test(t, a_value_that_is_not_understood_is_named_with_line_field_and_choices, 0,
			    ARRAY_LEN(bad_values));
	tcase_add_test(t, words_for_yes_and_no_are_understood);
	tcase_add_test(t, relative_paths_count_from_the_folder_of_the_file);
	tcase_add_test(t, an_export_without_an_image_is_refused);
	tcase_add_test(t, broken_yaml_is_refused_with_a_line);
	tcase_add_test(t, two_images_of_one_name_are_refused);
	tcase_add_test(t, a_missing_file_is_said);
	tcase_add_loop_test(t, addresses_are_understood_or_refused, 0, (int)(sizeof addresses / sizeof addresses[0]));
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}

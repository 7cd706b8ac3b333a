/* SPDX-License-Identifier: BSD-3-Clause */
/* files.c - vhdnfs ls, cat, stat */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tools/remote.h"
#include "tools/server_stat.h"
#include "tools/tool.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/json.h"
#include "vhd/base/plain.h"
#include "vhd/base/size.h"

/* ---- how things look --------------------------------------------------------------------------------------------------------- */

static const char *const type_names[] = {
	"?", "file", "folder", "block device", "character device", "symbolic link", "socket", "fifo"};

static const char *type_name(uint32_t t)
{
	return t < ARRAY_LEN(type_names) ? type_names[t] : "?";
}

static void mode_text(const struct nfs_attrs *a, char *to)
{
	static const char letters[] = "?-dbclsp", bits[] = "rwxrwxrwx";

	to[0] = a->type < sizeof letters - 1 ? letters[a->type] : '?';
	for (int i = 0; i < 9; i++)
		to[1 + i] = a->mode & 0400u >> i ? bits[i] : '-';
	if (a->mode & 04000)
		to[3] = a->mode & 0100 ? 's' : 'S';
	if (a->mode & 02000)
		to[6] = a->mode & 0010 ? 's' : 'S';
	if (a->mode & 01000)
		to[9] = a->mode & 0001 ? 't' : 'T';
	to[10] = '\0';
}

static const char *time_text(int64_t s, char *to, size_t cap)
{
	time_t t = (time_t)s;
	struct tm tm;

	if (!localtime_r(&t, &tm) || !strftime(to, cap, "%Y-%m-%d %H:%M", &tm))
		snprintf(to, cap, "?");
	return to;
}

static json_t *attrs_json(const char *name, size_t len, const struct nfs_attrs *a)
{
	json_t *j = json_object();

	json_object_set_new(j, "name", json_textn(name, len));
	json_object_set_new(j, "type", json_string(type_name(a->type)));
	json_object_set_new(j, "mode", json_integer(a->mode));
	json_object_set_new(j, "links", json_integer(a->nlink));
	json_object_set_new(j, "owner", json_string(a->owner));
	json_object_set_new(j, "group", json_string(a->group));
	json_object_set_new(j, "size", json_integer((json_int_t)a->size));
	json_object_set_new(j, "used", json_integer((json_int_t)a->used));
	json_object_set_new(j, "fileid", json_integer((json_int_t)a->fileid));
	json_object_set_new(j, "change", json_integer((json_int_t)a->change));
	json_object_set_new(j, "atime", json_real((double)a->atime + a->atime_ns / 1e9));
	json_object_set_new(j, "mtime", json_real((double)a->mtime + a->mtime_ns / 1e9));
	json_object_set_new(j, "ctime", json_real((double)a->ctime + a->ctime_ns / 1e9));
	return j;
}

struct ls_opts {
	bool all, l, json;
	json_t *list;
};

/* As it is for programs; for people without what a terminal would obey. */
static void text_out(const char *name, size_t len)
{
	char text[PATH_MAX];

	if (len < sizeof text && isatty(STDOUT_FILENO)) {
		memcpy(text, name, len);
		name = plain_text(text, len);
	}
	printf("%.*s", (int)len, name);
}

/* @target: of a link, if it is known. */
static void show(const struct ls_opts *o, const char *name, size_t len, const struct nfs_attrs *a, const char *target)
{
	char mode[11], when[32];

	if (o->json) {
		json_t *j = attrs_json(name, len, a);

		if (target)
			json_object_set_new(j, "target", json_textn(target, strlen(target)));
		json_array_append_new(o->list, j);
		return;
	}
	if (o->l) {
		mode_text(a, mode);
		printf("%s %3u %-8s %-8s %12llu %s ", mode, a->nlink, a->owner, a->group, (unsigned long long)a->size,
		       time_text(a->mtime, when, sizeof when));
	}
	text_out(name, len);
	if (o->l && target) {
		printf(" -> ");
		text_out(target, strlen(target));
	}
	putchar('\n');
}

/* ---- ls ------------------------------------------------------------------------------------------------------------------------ */

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct remote_item *)a)->name, ((const struct remote_item *)b)->name);
}

/* One entry, and where it leads if it is a link. */
static void show_entry(struct nfsc *n, const struct ls_opts *o, const char *folder, const struct remote_item *i)
{
	char path[PATH_MAX], target[PATH_MAX];
	struct why why = {.line = ""};
	const char *to = NULL;
	nfs_fh4 fh;

	if (i->a.type == NF4LNK && (o->l || o->json) &&
	    (size_t)snprintf(path, sizeof path, "%s/%s", folder, i->name) < sizeof path &&
	    !nfsc_lookup(n, path, &fh, &why) && !remote_readlink(n, &fh, target, sizeof target))
		to = target;
	show(o, i->name, i->len, &i->a, to);
}

/* A path that is no folder. */
static void ls_one(struct nfsc *n, const struct ls_opts *o, const char *path, const struct nfs_attrs *a)
{
	char folder[PATH_MAX];
	struct remote_item i = {.a = *a};
	size_t at = (size_t)(strrchr(path, '/') - path);

	snprintf(folder, sizeof folder, "%.*s", (int)at, path);
	i.name = strdup(path + at + 1);
	if (!i.name)
		return;
	i.len = strlen(i.name);
	show_entry(n, o, folder, &i);
	free(i.name);
}

static int ls_url(const char *text, struct ls_opts *o)
{
	struct why why = {.line = ""};
	struct nfs_attrs self;
	struct remote_item *items = NULL;
	struct nfsc *n = NULL;
	struct nfs_url u;
	size_t count = 0;
	nfs_fh4 fh;
	int err = remote_reach(text, &u, &n, &fh, &why);

	if (!err)
		err = remote_attrs(n, &fh, &self);
	if (!err && self.type == NF4DIR)
		err = remote_list(n, &fh, &items, &count);
	else if (!err)
		ls_one(n, o, u.path, &self);
	if (count)
		qsort(items, count, sizeof *items, by_name);
	for (size_t i = 0; i < count; i++) {
		if (!err && (o->all || items[i].name[0] != '.'))
			show_entry(n, o, u.path, &items[i]);
		free(items[i].name);
	}
	free(items);
	nfsc_close(n);
	return err ? remote_complain(&why, err) : TOOL_OK;
}

static int print_json(json_t *list, int rc)
{
	if (json_dumpf(list, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII) < 0)
		rc = TOOL_FAILED;
	putchar('\n');
	json_decref(list);
	return rc;
}

static const struct option json_option[] = {
	{"json", no_argument, NULL, 'j'},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

int cmd_ls(int argc, char **argv)
{
	static const char help[] = "ls [-l] [-a] [--json] nfs://HOST[:PORT]/PATH…\n\n"
				   "  -l      mode, links, owner, group, size, time\n"
				   "  -a      names that begin with a dot, too\n"
				   "  --json  everything, as a list";
	struct ls_opts o = {.all = false};
	int opt, rc = TOOL_OK;

	while ((opt = getopt_long(argc, argv, "lah", json_option, NULL)) != -1)
		switch (opt) {
		case 'l':
			o.l = true;
			break;
		case 'a':
			o.all = true;
			break;
		case 'j':
			o.json = true;
			break;
		default:
			return remote_usage(opt == 'h' ? stdout : stderr, help);
		}
	if (optind == argc)
		return remote_usage(stderr, help);
	o.list = o.json ? json_array() : NULL;
	for (; optind < argc; optind++)
		rc |= ls_url(argv[optind], &o);
	return o.json ? print_json(o.list, rc) : rc;
}

/* ---- stat ---------------------------------------------------------------------------------------------------------------------- */

static void show_stat(const char *name, const struct nfs_attrs *a)
{
	char mode[11], t[3][32];

	mode_text(a, mode);
	printf("%s\n  %s, %llu bytes (%llu on disk), inode %llu, %u link%s\n  %s (%04o), owner %s, group %s\n"
	       "  read %s, written %s, changed %s\n",
	       name, type_name(a->type), (unsigned long long)a->size, (unsigned long long)a->used,
	       (unsigned long long)a->fileid, a->nlink, a->nlink == 1 ? "" : "s", mode, a->mode, a->owner, a->group,
	       time_text(a->atime, t[0], 32), time_text(a->mtime, t[1], 32), time_text(a->ctime, t[2], 32));
}

static int wrong_number(const char *option, const char *text, unsigned max)
{
	fprintf(stderr, "vhdnfs stat: %s \"%.60s\": expected a number from 1 to %u\n", option, text, max);
	return TOOL_USAGE;
}

#define WATCH_MAX 86400u /* seconds */
#define FILES_MAX 100u

int cmd_stat(int argc, char **argv)
{
	static const char help[] =
		"stat [--json] nfs://HOST[:PORT]/PATH…\n"
		"       vhdnfs stat [--json] [--watch[=SECONDS]] [--files N] [--control PATH]\n\n"
		"The attributes of files; or, without one, what the server on this machine does: calls, clients, "
		"cache,\n"
		"operations, hints. With --watch what it did since the look before, every 2 seconds; with --files the "
		"N\n"
		"open files that are read most.";
	static const struct option options[] = {
		{"json", no_argument, NULL, 'j'},        {"watch", optional_argument, NULL, 'w'},
		{"files", required_argument, NULL, 'f'}, {"control", required_argument, NULL, 'K'},
		{"help", no_argument, NULL, 'h'},        {0}};
	struct server_stat server = {.control = NULL};
	json_t *list = NULL;
	int opt, rc = TOOL_OK;

	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		uint64_t n = 2;

		if (opt == 'w' && optarg && !number_parse(optarg, 1, WATCH_MAX, &n))
			return wrong_number("--watch", optarg, WATCH_MAX);
		if (opt == 'f' && !number_parse(optarg, 1, FILES_MAX, &n))
			return wrong_number("--files", optarg, FILES_MAX);
		if (opt == 'w')
			server.watch = (unsigned)n;
		else if (opt == 'K')
			server.control = optarg;
		else if (opt == 'f')
			server.files = (unsigned)n;
		else if (opt == 'j')
			server.json = true;
		else
			return remote_usage(opt == 'h' ? stdout : stderr, help);
	}
	if (optind == argc)
		return server_stat(&server);
	if (server.watch || server.control || server.files)
		return remote_usage(stderr, help);
	list = server.json ? json_array() : NULL;
	for (; optind < argc; optind++) {
		struct why why = {.line = ""};
		struct nfsc *n = NULL;
		struct nfs_attrs a;
		struct nfs_url u;
		nfs_fh4 fh;
		int err = remote_reach(argv[optind], &u, &n, &fh, &why);

		if (!err)
			err = remote_attrs(n, &fh, &a);
		if (err)
			rc = remote_complain(&why, err);
		else if (list)
			json_array_append_new(list, attrs_json(u.path, strlen(u.path), &a));
		else
			show_stat(u.path, &a);
		nfsc_close(n);
	}
	return list ? print_json(list, rc) : rc;
}

/* ---- cat ------------------------------------------------------------------------------------------------------------------------ */

int cmd_cat(int argc, char **argv)
{
	static const char help[] = "cat nfs://HOST[:PORT]/PATH…";
	int opt, rc = TOOL_OK;

	while ((opt = getopt_long(argc, argv, "h", json_option, NULL)) != -1)
		return remote_usage(opt == 'h' ? stdout : stderr, help);
	if (optind == argc)
		return remote_usage(stderr, help);
	for (; optind < argc; optind++) {
		struct why why = {.line = ""};
		struct nfsc *n = NULL;
		struct nfs_url u;
		stateid4 sid;
		nfs_fh4 fh;
		int err = nfs_url_parse(argv[optind], &u, &why);

		if (!err)
			err = nfsc_open(&n, &u, &why);
		if (!err)
			err = remote_follow(n, u.path, false, &why);
		if (!err)
			err = nfsc_lookup(n, u.path, &fh, &why);
		if (!err && !(err = nfsc_open_fh(n, &fh, OPEN4_SHARE_ACCESS_READ, "vhdnfs", &sid))) {
			err = remote_copy_out(n, &fh, &sid, STDOUT_FILENO);
			nfsc_close_fh(n, &fh, &sid);
		}
		if (err && !why.line[0])
			why_set(&why, err, "%s: %s", argv[optind], nfsc_error(err));
		if (err)
			rc = remote_complain(&why, err);
		nfsc_close(n);
	}
	return rc;
}

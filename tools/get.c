/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * get.c - vhdnfs get: files and folders of a server onto this machine
 *
 * Names come from the server, and are not believed: each has to be one name, and a folder is opened from the target down without
 * following a link, so nothing is written beside it whatever a server says. A file is written under another name and takes the place
 * of what was there when it is whole and on stable storage. Modes (without set-id bits) and times of change are kept.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tools/remote.h"
#include "tools/tool.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/plain.h"

#define MODE_BITS 01777u

/* A folder that is still to be got, or whose contents are there and whose mode and time are not. */
struct todo {
	struct todo *next;
	char *remote, *local; /* local: from the target; "." the target itself */
	struct nfs_attrs a;
	bool done;
};

struct get {
	struct nfsc *n;
	const char *url;
	struct todo *todo;
	int root; /* the folder that everything goes into */
	bool skipped;
};

static int complain(const char *what, int err, struct why *why)
{
	return why_set(why, err, "%s: %s", what, nfsc_error(err));
}

/* One name of a folder, and not a way out of it. */
static bool is_name(const char *name, size_t len)
{
	return len && len <= NAME_MAX && !memchr(name, '/', len) && strlen(name) == len && strcmp(name, ".") != 0 &&
	       strcmp(name, "..") != 0;
}

/* Below the target, through no link. A descriptor or a negative errno. */
static int open_below(const struct get *g, const char *local)
{
	const struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
				     .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
	long fd = syscall(SYS_openat2, g->root, local, &how, sizeof how);

	return fd < 0 ? -errno : (int)fd;
}

static void set_times(int fd, const struct nfs_attrs *a)
{
	const struct timespec t[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = a->mtime, .tv_nsec = a->mtime_ns}};

	(void)futimens(fd, t);
}

/* ---- files -------------------------------------------------------------------------------------------------------------------- */

static int copy(struct get *g, const nfs_fh4 *fh, const struct nfs_attrs *a, int fd)
{
	stateid4 sid;
	int err = nfsc_open_fh(g->n, fh, OPEN4_SHARE_ACCESS_READ, "vhdnfs", &sid);

	if (err)
		return err;
	err = remote_copy_out(g->n, fh, &sid, fd);
	nfsc_close_fh(g->n, fh, &sid);
	if (err || !a)
		return err;
	set_times(fd, a);
	return fchmod(fd, a->mode & MODE_BITS) < 0 || fsync(fd) < 0 ? -errno : 0;
}

static int get_file(struct get *g, const nfs_fh4 *fh, const struct nfs_attrs *a, int dir, const char *name)
{
	char tmp[NAME_MAX + 1];
	AUTO(closep) int fd = -1;
	unsigned tag;
	int err;

	if (getrandom(&tag, sizeof tag, 0) != sizeof tag)
		return -EIO;
	snprintf(tmp, sizeof tmp, ".%.200s.%08x", name, tag);
	fd = openat(dir, tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	err = copy(g, fh, a, fd);
	if (!err && renameat(dir, tmp, dir, name) < 0)
		err = -errno;
	if (err)
		unlinkat(dir, tmp, 0);
	return err;
}

static int get_link(struct get *g, const nfs_fh4 *fh, int dir, const char *name)
{
	char target[PATH_MAX];
	int err = remote_readlink(g->n, fh, target, sizeof target);

	if (err)
		return err;
	/* What is there is replaced, as a file is; a folder is not. */
	if (symlinkat(target, dir, name) < 0 &&
	    (errno != EEXIST || unlinkat(dir, name, 0) < 0 || symlinkat(target, dir, name) < 0))
		return -errno;
	return 0;
}

/* ---- folders ------------------------------------------------------------------------------------------------------------------- */

static int push(struct get *g, const char *remote, const char *local, const struct nfs_attrs *a)
{
	struct todo *t = calloc(1, sizeof *t);

	if (!t)
		return -ENOMEM;
	t->remote = strdup(remote);
	t->local = strdup(local);
	t->a = *a;
	t->next = g->todo;
	g->todo = t;
	return t->remote && t->local ? 0 : -ENOMEM;
}

static void pop(struct get *g)
{
	struct todo *t = g->todo;

	g->todo = t->next;
	free(t->remote);
	free(t->local);
	free(t);
}

static int get_entry(struct get *g, const struct todo *t, int dir, const struct remote_item *i, struct why *why)
{
	char remote[PATH_MAX], local[PATH_MAX], shown[PATH_MAX];
	nfs_fh4 fh;
	int err;

	if (!is_name(i->name, i->len))
		return why_set(why, -EPROTO, "%s: the server names an entry that is no name", t->remote);
	if ((size_t)snprintf(remote, sizeof remote, "%s/%s", t->remote, i->name) >= sizeof remote ||
	    (size_t)snprintf(local, sizeof local, "%s/%s", t->local, i->name) >= sizeof local)
		return complain(t->remote, -ENAMETOOLONG, why);
	if ((err = nfsc_lookup(g->n, remote, &fh, why)))
		return err;
	switch (i->a.type) {
	case NF4REG:
		err = get_file(g, &fh, &i->a, dir, i->name);
		break;
	case NF4LNK:
		err = get_link(g, &fh, dir, i->name);
		break;
	case NF4DIR:
		err = mkdirat(dir, i->name, 0700) < 0 && errno != EEXIST ? -errno : push(g, remote, local, &i->a);
		break;
	default:
		snprintf(shown, sizeof shown, "%s", remote);
		fprintf(stderr, "vhdnfs: %s: no file, folder or link; left out\n", plain_text(shown, strlen(shown)));
		g->skipped = true;
	}
	return err ? complain(remote, err, why) : 0;
}

static int get_folder(struct get *g, struct todo *t, struct why *why)
{
	struct remote_item *items = NULL;
	size_t count = 0;
	nfs_fh4 fh;
	AUTO(closep) int dir = open_below(g, t->local);
	int err = dir < 0 ? complain(t->local, dir, why) : 0;

	if (!err && t->done) {
		set_times(dir, &t->a);
		err = fchmod(dir, t->a.mode & MODE_BITS) < 0 ? complain(t->local, -errno, why) : 0;
		pop(g);
		return err;
	}
	t->done = true;
	if (!err)
		err = nfsc_lookup(g->n, t->remote, &fh, why);
	if (!err && (err = remote_list(g->n, &fh, &items, &count)))
		complain(t->remote, err, why);
	for (size_t i = 0; i < count; i++) {
		if (!err)
			err = remote_stopped ? why_set(why, -EINTR, "%s: interrupted", g->url)
					     : get_entry(g, t, dir, &items[i], why);
		free(items[i].name);
	}
	free(items);
	return err;
}

/* ---- the whole ------------------------------------------------------------------------------------------------------------------ */

/* Where it goes: into @target when that is a folder, under the name of its own; else as @target. *name is in one of the two. */
static int open_target(const char *target, const char *own, char *folder, size_t cap, const char **name,
		       struct why *why)
{
	const char *slash = target ? strrchr(target, '/') : NULL;
	struct stat st;
	int fd;

	*name = own;
	if (!target)
		snprintf(folder, cap, ".");
	else if (stat(target, &st) == 0 && S_ISDIR(st.st_mode))
		snprintf(folder, cap, "%s", target);
	else {
		snprintf(folder, cap, "%.*s", slash ? (int)(slash + 1 - target) : 1, slash ? target : ".");
		*name = slash ? slash + 1 : target;
	}
	if (!is_name(*name, strlen(*name)))
		return why_set(why, -EINVAL, "%s: expected the name of a file or folder to write",
			       target ? target : "the URL has no name of its own");
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? why_set(why, -errno, "%s: %s", folder, strerror(errno)) : fd;
}

static int get_tree(struct get *g, const char *remote, const struct nfs_attrs *a, const char *name, struct why *why)
{
	int err = mkdirat(g->root, name, 0700) < 0 && errno != EEXIST ? complain(name, -errno, why) : 0;

	if (!err && (err = push(g, remote, name, a)))
		complain(name, err, why);
	while (!err && g->todo)
		err = get_folder(g, g->todo, why);
	while (g->todo)
		pop(g);
	return err;
}

static int get(struct get *g, const struct nfs_url *u, const char *target, bool tree, struct why *why)
{
	char path[PATH_MAX], folder[PATH_MAX];
	const char *name = NULL;
	struct nfs_attrs a;
	nfs_fh4 fh;
	int err;

	snprintf(path, sizeof path, "%s", u->path);
	if ((err = remote_follow(g->n, path, false, why)) || (err = nfsc_lookup(g->n, path, &fh, why)))
		return err;
	if ((err = remote_attrs(g->n, &fh, &a)))
		return complain(g->url, err, why);
	if (a.type == NF4DIR && !tree)
		return why_set(why, -EISDIR, "%s: a folder; -r gets all that is in it", g->url);
	if (a.type != NF4DIR && a.type != NF4REG)
		return why_set(why, -EINVAL, "%s: no file and no folder", g->url);
	if (target && strcmp(target, "-") == 0)
		return a.type == NF4DIR
			       ? why_set(why, -EISDIR, "%s: a folder; expected one file for standard output", g->url)
		       : (err = copy(g, &fh, NULL, STDOUT_FILENO)) ? complain(g->url, err, why)
								   : 0;
	g->root = open_target(target, strrchr(u->path, '/') + 1, folder, sizeof folder, &name, why);
	if (g->root < 0)
		return g->root;
	if (a.type == NF4DIR)
		return get_tree(g, path, &a, name, why);
	err = get_file(g, &fh, &a, g->root, name);
	return err ? complain(err == -EINTR ? g->url : name, err, why) : 0;
}

int cmd_get(int argc, char **argv)
{
	static const char help[] = "get [-r] nfs://HOST[:PORT]/PATH [FILE|FOLDER|-]\n\n"
				   "A file that is there already is replaced when the new one is whole.\n"
				   "  -r  a folder and all that is in it; links stay links";
	static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	struct get g = {.root = -1};
	struct why why = {.line = ""};
	struct nfs_url u;
	bool tree = false;
	int opt, err;

	while ((opt = getopt_long(argc, argv, "rh", options, NULL)) != -1) {
		if (opt != 'r')
			return remote_usage(opt == 'h' ? stdout : stderr, help);
		tree = true;
	}
	if (argc - optind < 1 || argc - optind > 2)
		return remote_usage(stderr, help);
	g.url = argv[optind];
	remote_catch_signals();
	err = nfs_url_parse(g.url, &u, &why);
	if (!err)
		err = nfsc_open(&g.n, &u, &why);
	if (!err)
		err = get(&g, &u, argv[optind + 1], tree, &why);
	nfsc_close(g.n);
	if (g.root >= 0)
		close(g.root);
	if (!err)
		return g.skipped ? TOOL_FAILED : TOOL_OK;
	remote_complain(&why, err);
	remote_end_by_signal();
	return TOOL_FAILED;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* served.c - see served.h */
#include "server/served.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* The export that a path lies in: the longest. */
struct at {
	const char *path;
	struct export *exp;
	size_t len; /* of the export's path */
};

static bool longest(void *arg, const struct export *e)
{
	struct at *a = arg;
	size_t n = strlen(e->path);

	if (e->pseudo || n <= a->len || strncmp(a->path, e->path, n) != 0 || (a->path[n] && a->path[n] != '/'))
		return true;
	export_put(a->exp);
	a->exp = export_get((struct export *)(uintptr_t)e);
	a->len = n;
	return true;
}

/* As fs_ops.lookup wants names. */
static int check_name(const char *name, size_t len)
{
	if (len > 255)
		return -ENAMETOOLONG;
	return (len == 1 && name[0] == '.') || (len == 2 && name[0] == '.' && name[1] == '.') ? -EINVAL : 0;
}

/* Through every component. */
static int walk(struct export *e, const char *rest, struct fs_node **out)
{
	struct fs_node *n = fs_node_get(e->fs->root);

	while (*rest) {
		struct fs_node *next;
		size_t len;
		int err;

		rest += strspn(rest, "/");
		len = strcspn(rest, "/");
		if (!len)
			break;
		err = n->type == FS_DIR ? check_name(rest, len) : -ENOTDIR;
		if (!err)
			err = e->fs->ops->lookup(n, rest, (uint32_t)len, 0, &next);
		fs_node_put(n);
		if (err)
			return err;
		n = next;
		rest += len;
	}
	*out = n;
	return 0;
}

int served_find(struct exports *x, const char *path, struct served *out, struct why *why)
{
	struct at a = {.path = path};
	int err;

	exports_each(x, longest, &a);
	if (!a.exp)
		return why_set(why, -ENOENT, "%.300s: not below anything that is exported", path);
	err = walk(a.exp, path + a.len, &out->node);
	if (err) {
		export_put(a.exp);
		return why_set(why, err, "%.300s: %s", path, strerror(-err));
	}
	out->exp = a.exp;
	return 0;
}

void served_put(struct served *s)
{
	fs_node_put(s->node);
	export_put(s->exp);
}

/* ---- the other way round --------------------------------------------------------------------------------------------------------- */

#define DEPTH_MAX 256
#define LOOKS_MAX 100000u /* entries of a folder that are looked at */

struct seek_name {
	uint64_t ino, cookie;
	unsigned looks;
	bool found;
	char name[256];
};

static bool is_it(void *arg, const struct fs_dirent *d)
{
	struct seek_name *s = arg;

	s->cookie = d->cookie;
	s->looks++;
	if (d->ino != s->ino)
		return true;
	memcpy(s->name, d->name, d->len);
	s->name[d->len] = '\0';
	s->found = true;
	return false;
}

static bool name_in(struct fs_node *dir, uint64_t ino, struct seek_name *s)
{
	bool eof = false;

	*s = (struct seek_name){.ino = ino};
	while (!s->found && !eof && s->looks < LOOKS_MAX) {
		unsigned before = s->looks;

		if (dir->fs->ops->readdir(dir, s->cookie, 0, is_it, s, &eof) < 0 || (s->looks == before && !eof))
			return false;
	}
	return s->found;
}

/* In front of what is there. */
static bool prepend(char *out, size_t cap, const char *name)
{
	size_t n = strlen(name), have = strlen(out);

	if (n + 1 + have >= cap)
		return false;
	memmove(out + n + 1, out, have + 1);
	out[0] = '/';
	memcpy(out + 1, name, n);
	return true;
}

static bool climb(const struct served *s, char *out, size_t cap)
{
	struct fs *fs = s->node->fs;
	uint64_t ino = s->node->ino, up = atomic_load(&s->node->standing.dir_ino);
	struct fs_node *dir, *next;
	struct seek_name found;
	bool ok = up && fs->ops->get(fs, up, atomic_load(&s->node->standing.dir_gen), 0, &dir) == 0;

	if (!ok)
		return false;
	for (int depth = 0; ok && depth < DEPTH_MAX; depth++) {
		ok = dir->type == FS_DIR && name_in(dir, ino, &found) && prepend(out, cap, found.name);
		if (!ok || dir == fs->root)
			break;
		ino = dir->ino;
		ok = fs->ops->parent(dir, 0, &next) == 0;
		if (ok) {
			fs_node_put(dir);
			dir = next;
		}
	}
	fs_node_put(dir);
	return ok;
}

void served_path(const struct served *s, char *out, size_t cap)
{
	size_t n = strlen(s->exp->path);

	out[0] = '\0';
	if (n >= cap || !climb(s, out, cap - n)) {
		snprintf(out, cap, "%s/?/inode %llu", s->exp->path, (unsigned long long)s->node->ino);
		return;
	}
	memmove(out + n, out, strlen(out) + 1);
	memcpy(out, s->exp->path, n);
}

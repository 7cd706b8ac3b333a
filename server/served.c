/* SPDX-License-Identifier: BSD-3-Clause */
/* served.c - see served.h */
#include "server/served.h"

#include <errno.h>
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

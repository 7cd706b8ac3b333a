/* SPDX-License-Identifier: BSD-3-Clause */
/* served.h - a path as clients see it, from the server's root, and the file that it names */
#ifndef VHDNFS_SERVER_SERVED_H
#define VHDNFS_SERVER_SERVED_H

#include "server/export.h"

struct served {
	struct export *exp; /* both referenced */
	struct fs_node *node;
};

/* @path: "/disk/folder/file"; links are not followed, "." and ".." are nothing (-EINVAL). Waits for the disk. -ENOENT, -ENOTDIR and what looking up says, with a line. */
int served_find(struct exports *x, const char *path, struct served *out, struct why *why);
void served_put(struct served *s);
/* One of its paths, as far as it is known where it was found last; else "/EXPORT/?/inode 12". Waits for the disk. */
void served_path(const struct served *s, char *out, size_t cap);

#endif

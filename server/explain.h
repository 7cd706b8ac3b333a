/* SPDX-License-Identifier: BSD-3-Clause */
/* explain.h - why a file is treated as it is: who has it open, what they said, what is read ahead, what is in memory */
#ifndef VHDNFS_SERVER_EXPLAIN_H
#define VHDNFS_SERVER_EXPLAIN_H

#include <jansson.h>

#include "server/nfs4/compound.h"
#include "vhd/base/why.h"

/* @path: from the server's root, "/disk/folder/file". {"path", "export", "size", "resident", "hints": […], "standing": […], "runs": [{…}], "ahead",
 * "used", "wasted", "distrust", "opens": [{"client", "access", "deny", "hints"}]}. Waits for the disk. -ENOENT, -EISDIR and what looking up says, with a line. */
int explain(struct nfs_server *nfs, const char *path, json_t **out, struct why *why);

#endif

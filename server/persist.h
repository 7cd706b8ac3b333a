/* SPDX-License-Identifier: BSD-3-Clause */
/* persist.h - advice that stays with a file or folder, as its extended attribute user.io_advise; see server/nfs4/standing.h */
#ifndef VHDNFS_SERVER_PERSIST_H
#define VHDNFS_SERVER_PERSIST_H

#include "server/nfs4/compound.h"

/* Keep @advice (words.h) with the file or folder at @path (as served_find() takes it); "normal" takes away what was kept. It is on
 * stable storage when this returns. -EINVAL, -ENOENT, -EROFS, … with a line. */
int persist(struct nfs_server *srv, const char *path, const char *advice, struct why *why);

#endif

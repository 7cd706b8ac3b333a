/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * persist.h - advice that stays with a file or directory: its extended attribute user.io_advise
 *
 * The value is words with commas between them, "sequential,noreuse": at most one of sequential, backwards and random, and noreuse.
 * Without the attribute nothing is advised.
 */
#ifndef VHDNFS_SERVER_PERSIST_H
#define VHDNFS_SERVER_PERSIST_H

#include "server/export.h"

#define PERSIST_ATTR "user.io_advise"
#define PERSIST_MAX 40u /* bytes of a value */

/* The words of @advice in their usual order and each once into @value; for "normal", which stands alone, it is empty. -EINVAL with a
 * line. */
int persist_parse(const char *advice, char value[PERSIST_MAX], struct why *why);
/* Keep @advice with the file or directory at @path (as served_find() takes it); "normal" takes away what was kept. It is on stable
 * storage when this returns. -EINVAL, -ENOENT, -EROFS, … with a line. */
int persist(struct exports *x, const char *path, const char *advice, struct why *why);

#endif

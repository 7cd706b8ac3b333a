/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * memfs.h - a file system in memory behind fs.h, for the tests of server/
 *
 * Complete, small and obliging: it can be told to answer -EAGAIN to every FS_NOWAIT, or to fail the next change.
 */
#ifndef TESTS_UNIT_MEMFS_H
#define TESTS_UNIT_MEMFS_H

#include "vhd/volume/fs.h"

enum { MEMFS_FILE_MAX = 16 << 20 }; /* bytes of one file */

/* An empty root of mode 0777, owned by 0:0. Ends with ops->unmount(). NULL: no memory. */
struct fs *memfs_new(void);
/* From now on FS_NOWAIT finds everything busy. */
void memfs_set_busy(struct fs *fs, bool busy);
/* The next create, setattr, write, link, unlink or rename fails with @err, having changed nothing. */
void memfs_fail_next(struct fs *fs, int err);
/* FS_ATTR_* of what has this name in the root; nothing here minds them. */
void memfs_set_flags(struct fs *fs, const char *name, uint32_t flags);
/* Inodes that exist, the root included; unlinked ones count as long as somebody holds them. */
unsigned memfs_count(struct fs *fs);

#endif

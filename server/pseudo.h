/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pseudo.h - the read-only directories above the exports, as a struct fs
 *
 * Directories are made as exports need them and kept for the life of the server (there are as many as exports were ever
 * configured), so a filehandle of one never goes stale by itself; those that lead to no export are hidden.
 *
 * Lock: one reader-writer lock inside; a leaf.
 */
#ifndef VHDNFS_SERVER_PSEUDO_H
#define VHDNFS_SERVER_PSEUDO_H

#include "vhd/volume/fs.h"

struct export;

int pseudo_new(struct fs **out);
void pseudo_free(struct fs *fs);
/* Make the directories of an absolute path; mount @e on the last one (NULL: take what is mounted away). -EEXIST: there is
 * something mounted already, or above. */
int pseudo_mount(struct fs *fs, const char *path, struct export *e);
/* What is mounted on a node, not referenced; NULL when nothing is. */
struct export *pseudo_mounted(const struct fs_node *n);
/* Does a node lead to an export for which @may is true? */
typedef bool pseudo_may(const struct export *e, const void *arg);
bool pseudo_leads(const struct fs_node *n, pseudo_may *may, const void *arg);
/* The directory at @path, if it leads to an export; referenced. */
struct fs_node *pseudo_find(struct fs *fs, const char *path);
/* The directory above the one at @path; referenced. */
struct fs_node *pseudo_parent_of(struct fs *fs, const char *path);

#endif

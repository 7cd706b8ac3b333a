/* SPDX-License-Identifier: BSD-3-Clause */
/* snapshot.h - an image's contents of this moment get a name of their own, and a new child over them takes its place */
#ifndef VHDNFS_IMAGE_SNAPSHOT_H
#define VHDNFS_IMAGE_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>

#include "vhd/image/vhd.h"

#define VHD_SNAPSHOT_NAME_MAX 64u

/* Where the snapshot @name of the image at @path is kept: "disk.vhd" and "monday" make "disk@monday.vhd". -EINVAL: not a name
 * (letters, digits, and any of "._:+-" behind the first). The caller frees *out. */
int vhd_snapshot_path(const char *path, const char *name, char **out, struct why *why);
/* The reverse: is the file at @snap a snapshot of the image at @path, by its name? *name is a part of @snap, *len long. */
bool vhd_snapshot_name(const char *path, const char *snap, const char **name, size_t *len);

/**
 * vhd_snapshot() - take one
 * @v:    an image that is open for writing, and that nobody uses meanwhile; replaced by its successor
 * @as:   path of the snapshot, which must not exist, in the same file system and where parents are looked for
 * @opts: as *v was opened
 *
 *     disk.vhd  ──►  disk@monday.vhd ◄──parent── disk.vhd (new, empty)
 *
 * The file gets its second name first, then the child is made beside it and renamed over the first name: whenever that is cut
 * short, the image at its path is whole and holds everything; a second name may be left behind. All is on stable storage on
 * return. The snapshot's file is not written any more; *v holds a lock that keeps other writers from it.
 *
 * Return: 0; negative errno with a line, and then *v is what it was: -EEXIST, -EROFS, -EXDEV, what vhd_create() and vhd_open()
 *         say.
 */
int vhd_snapshot(struct vhd **v, const char *as, const struct vhd_open_opts *opts, struct why *why);

#endif

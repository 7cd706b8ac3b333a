/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * images.h - from an image file to exports, and back
 *
 * Opens an image, finds its volumes, mounts those that a driver knows and adds them to the exports. An image is closed
 * when the last of its exports is gone.
 *
 * Lock: images.mu guards the list; it is not held while an image is opened or closed.
 */
#ifndef VHDNFS_SERVER_IMAGES_H
#define VHDNFS_SERVER_IMAGES_H

#include "server/config.h"
#include "server/export.h"
#include "server/state/state.h"
#include "vhd/base/why.h"
#include "vhd/cache/cache.h"

struct images;

int images_new(struct images **out, struct cache *cache, struct exports *exports);
/* All exports must be gone. NULL is accepted. */
void images_free(struct images *im);

/* For images opened from now on. @dirs: NULL-terminated, or NULL; copied. 0 or -ENOMEM, and nothing changed. */
int images_parents(struct images *im, const char *const *dirs, bool force, bool strict);

/* For images opened from now on: VHD_OPEN_ZEROES. */
void images_detect_zeroes(struct images *im, bool on);

/* For images opened from now on; read_only is each image's own. */
void images_mount_opts(struct images *im, const struct fs_mount_opts *o);

/* For images opened from now on: are their snapshots exported, below SNAPSHOTS? */
#define SNAPSHOTS "/.snapshots"
void images_show_snapshots(struct images *im, bool on);

/* Take a snapshot of the image at @path (a real path), which goes on being served: its contents of this moment stay in a file of
 * their own, whose path is *made (the caller's). -ENOENT it is not served here; -EBUSY it is being closed; as vhd_snapshot(). */
int images_snapshot(struct images *im, const char *path, const char *name, char **made, struct why *why);

/* Serve one image. An image that may only be read is served read-only, with a warning. Nothing stays open on failure:
 * -EBUSY in use elsewhere, -ENOENT, -EINVAL not an image, -ENOTSUP no file system in it that can be served, … */
int images_serve(struct images *im, const struct config_image *ci, struct why *why);

/* SIGHUP: take away what is no longer wanted, add what is new, leave alone what is the same. Failures are logged and do
 * not disturb the others. What clients have open of exports that are taken away is revoked in @st.
 *
 * Return: 0; how many images are still being closed when @c names one of them, which is not served then: call again with the same
 *         @c once images_leaving() is less. */
unsigned images_reload(struct images *im, struct st *st, const struct config *c);
/* Images that were taken away and that a running call still uses. */
unsigned images_leaving(struct images *im);

/* What of the images is not served, beside what is: "; not served: /disk p3 (NTFS)". Empty when all is. */
void images_unserved(struct images *im, char *text, size_t room);

/* The first error that closing an image met, 0 when all is on the disk. */
int images_error(const struct images *im);

#endif

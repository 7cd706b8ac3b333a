/* SPDX-License-Identifier: BSD-3-Clause */
/* images_int.h - shapes that images.c and snapshots.c share */
#ifndef VHDNFS_SERVER_IMAGES_INT_H
#define VHDNFS_SERVER_IMAGES_INT_H

#include "server/images.h"
#include "vhd/base/list.h"
#include "vhd/base/lock.h"
#include "vhd/volume/volume.h"

struct images {
	struct lock change_mu; /* outermost: one reload or snapshot at a time */
	struct lock mu;
	struct cond gone; /* an image was closed */
	struct list list GUARDED_BY(mu);
	struct cache *cache;
	struct exports *exports;
	/* Of images that are opened from now on: guarded by change_mu. */
	char **parent_dirs; /* NULL at the end; NULL: beside each image */
	bool force_parent, strict_parent, snapshots, detect_zeroes;
	struct fs_mount_opts mount;
	unsigned patience; /* seconds that a reload waits for an image to be closed; tests change it */
	int error GUARDED_BY(mu);
};

/* One open image. It lives while it has volumes; `users` counts them, plus one while it is set up or looked at. */
struct image {
	struct list link;
	struct images *all;
	struct vhd *vhd; /* replaced by a snapshot, under change_mu with all devices paused */
	struct config_image
		conf;   /* strings and networks are copies; of a snapshot the name is that of the image it is of */
	char *snapshot; /* its name; NULL: not one */
	unsigned users; /* guarded by all->mu, as the next */
	struct list volumes;
	char unserved[512]; /* "p3 (NTFS), p4 (swap)"; empty: all is served */
	bool leaving;       /* taken away, and somebody still uses it */
};

struct volume {
	struct list link;
	struct image *image;
	struct cache_dev *dev;
	struct fs *fs;
	bool withdrawn; /* guarded by images.mu */
	char path[300]; /* of the export */
};

/* Serve one image, or a snapshot of one (@snapshot, its name). As images_serve(). */
int image_serve(struct images *im, const struct config_image *ci, const char *snapshot, struct why *why);
struct vhd_open_opts image_open_opts(const struct image *i);
/* A user of the image is done with it; @err: what it met. */
void image_put(struct image *i, int err);
/* The snapshots among the parents of an image, as far as they are not served yet. */
void snapshots_serve(struct image *i);

#endif

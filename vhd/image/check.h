/* SPDX-License-Identifier: BSD-3-Clause */
/* check.h - everything that can be wrong with an image's own structures, and what of it can be put right */
#ifndef VHDNFS_IMAGE_CHECK_H
#define VHDNFS_IMAGE_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "vhd/base/why.h"

enum vhd_severity {
	VHD_ERROR,   /* contents are lost or at risk, or others will read them differently */
	VHD_WARNING, /* odd, but harmless to whoever goes by the specification */
	VHD_LEAK,    /* space in the file that nothing uses */
};

struct vhd_finding {
	enum vhd_severity severity;
	const char *what; /* "footer", "footer copy", "dynamic header", "BAT", "bitmap", "locator", "batmap", "file" */
	uint64_t off;     /* bytes into the file */
	bool can_repair;
	char text[240]; /* field, found, expected */
};
typedef void vhd_found_fn(void *arg, const struct vhd_finding *f);

struct vhd_check_result {
	unsigned errors, warnings, leaks, repairable;
	uint64_t leaked; /* bytes */
	uint32_t blocks_allocated;
};

/**
 * vhd_check() - look at every structure of an image, not at the disk's content
 * @found: called for each finding, in the order of the file's structures
 *
 * Parents are not looked for. Works on images that vhd_open() refuses, as far as their structures can be followed. Changes
 * nothing.
 *
 * Return: 0, also when there are findings; -EINVAL not a VHD at all; what reading the file says; -ENOMEM.
 */
int vhd_check(const char *path, vhd_found_fn *found, void *arg, struct vhd_check_result *r, struct why *why);

/**
 * vhd_repair() - put right what vhd_check() calls repairable
 *
 * A footer or its copy that is damaged is written anew from the other, and a copy that differs from the footer; what lies behind the
 * footer or, in images of our own making, unused between the last block and it, is cut off. At every moment one good footer is in the file. What could only
 * be guessed (blocks that overlap, entries outside of the file) is left alone.
 *
 * Return: 0; -EUCLEAN the image has errors that cannot be repaired: nothing was changed; -EBUSY; what writing says.
 */
int vhd_repair(const char *path, struct why *why);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* image.h - what the subcommands of `vhdnfs image` share */
#ifndef VHDNFS_TOOLS_IMAGE_H
#define VHDNFS_TOOLS_IMAGE_H

#include <getopt.h>
#include <stdio.h>

#include "vhd/base/why.h"
#include "vhd/image/vhd.h"
#include "vhd/io/hio.h"

int image_create(int argc, char **argv);
int image_info(int argc, char **argv);
int image_convert(int argc, char **argv);

extern const struct option image_options[]; /* of all of them; each takes the letters it knows */

/* One line on standard error; the exit status for it. */
int image_complain(const struct why *why, int err);
/* Help on standard output, or wrong usage on standard error; the exit status. */
int image_usage(FILE *f, const char *text);

/* One side of a copy: an image, or a raw disk. */
struct image_side {
	struct vhd *vhd;
	struct hio *raw;
	uint64_t size; /* bytes */
};

/**
 * image_copy() - the content of a disk
 *
 * Holes and zeros are left out: the target reads as zeros already. Shows its progress on a terminal.
 *
 * Return: 0; -EFBIG the target is smaller; negative errno, with the side that failed in @why.
 */
int image_copy(const struct image_side *from, const struct image_side *to, const char *what, struct why *why);

/**
 * image_temp() - a name for a file that is being made, in the folder of @path
 *
 * The file is removed when the program is ended by a signal. image_temp_done() removes it now if it is still there; published
 * files have another name by then.
 *
 * Return: the name, kept until image_temp_done(); NULL: no memory, or too many at a time.
 */
const char *image_temp(const char *path, const char *suffix);
void image_temp_done(const char *name);

#endif

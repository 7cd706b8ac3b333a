/* SPDX-License-Identifier: BSD-3-Clause */
/* image.h - what the subcommands of `vhdnfs image` share */
#ifndef VHDNFS_TOOLS_IMAGE_H
#define VHDNFS_TOOLS_IMAGE_H

#include <getopt.h>
#include <jansson.h>
#include <stdio.h>

#include "vhd/base/json.h"
#include "vhd/base/why.h"
#include "vhd/image/vhd.h"
#include "vhd/io/hio.h"

int image_create(int argc, char **argv);
int image_info(int argc, char **argv);
int image_convert(int argc, char **argv);

int image_snapshot(int argc, char **argv);
int image_commit(int argc, char **argv);
int image_rebase(int argc, char **argv);
int image_chain(int argc, char **argv);
int image_check(int argc, char **argv);
int image_map(int argc, char **argv);
int image_compare(int argc, char **argv);
int image_set(int argc, char **argv);
int image_resize(int argc, char **argv);
int image_compact(int argc, char **argv);
int image_flatten(int argc, char **argv);
int image_coalesce(int argc, char **argv);

/* set --parent: the child at @path names @parent, which must have the UUID the child was made over unless @force. */
int image_set_parent(const char *path, const char *parent, bool force, struct why *why);

/* Azure takes fixed images of whole MiB, of at least 20 MiB. */
#define IMAGE_AZURE_UNIT (UINT64_C(1) << 20)
#define IMAGE_AZURE_MIN (20 * IMAGE_AZURE_UNIT)
uint64_t image_azure_size(uint64_t size); /* the first that it takes, from @size on */

/* What was said about where parents are. */
struct image_parents {
	const char *parent;
	const char *dir[9]; /* NULL at the end */
	unsigned ndirs;
	bool force, strict;
	enum vhd_size_from size_from;
	bool raw; /* --from raw: a raw disk, whatever it looks like */
};
/* True: it was one of --parent, --parent-dir, --force-parent, --strict-parent, --size-from. */
bool image_parent_option(struct image_parents *p, int opt);
struct vhd_open_opts image_open_opts(const struct image_parents *p, unsigned flags);
#define IMAGE_PARENT_HELP                                                                                              \
	"  --parent FILE     where the parent of a differencing image is, whatever it says itself\n"                   \
	"  --parent-dir DIR  parents are looked for below this folder (its own, unless given; repeatable)\n"           \
	"  --force-parent    take a parent that was changed since\n"                                                   \
	"  --strict-parent   take none whose file has another time, as a copy has\n"                                   \
	"  --size-from HOW   chs, current, or auto: by who made it"

extern const struct option image_options[]; /* of all of them; each takes the letters it knows */

/* The one object that --json makes commands print at their end, which have no list to show; NULL: people read. Members besides
 * "command", "ok" and "error" are set by the command. */
json_t *image_answer(void);

/* One line on standard error, or "error" of the answer; the exit status for it. */
int image_complain(const struct why *why, int err);
/* Help on standard output, or wrong usage on standard error; the exit status. */
int image_usage(FILE *f, const char *text);

/* One side of a copy: an image, or a raw disk. */
struct image_side {
	struct vhd *vhd;
	struct hio *raw;
	uint64_t size; /* bytes */
	struct image_range {
		uint64_t off, len;
	} * unused; /* reads as zeros, whatever it holds; ascending; freed by whoever asked for it */
	size_t nunused;
};

/* Sets unused of an image to what no ext2, ext3 or ext4 in it uses. -EUCLEAN: one that was not closed cleanly. */
int image_find_unused(struct image_side *s, struct why *why);
void image_blank_unused(const struct image_side *s, uint8_t *buf, uint64_t len, uint64_t off);

/* An image if it is one, else a raw disk. Released by image_side_close(). */
int image_side_open(const char *path, const struct image_parents *p, unsigned flags, struct image_side *s,
		    struct why *why);
void image_side_close(struct image_side *s);
/* As vhd_next_data() and vhd_read(). */
int image_side_next(const struct image_side *s, uint64_t off, uint64_t *data, uint64_t *end);
int image_side_read(const struct image_side *s, void *buf, uint64_t len, uint64_t off);

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
/* Of an image that is to be replaced: the file that a link leads to, in whose folder its copy is made. The caller frees it; NULL: it
 * cannot be found, and *err and @why say so. */
char *image_real(const char *path, int *err, struct why *why);
void image_temp_done(const char *name);

#endif

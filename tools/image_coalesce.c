/* SPDX-License-Identifier: BSD-3-Clause */
/* image_coalesce.c - vhdnfs image coalesce: what a child holds goes into its parent, and the child becomes empty */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools/image.h"
#include "tools/tool.h"
#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"

#define PIECE (1u << 20)

/* What the child holds itself is what its parent reads as: nothing was written to it since it was committed. */
static int same_as_parent(struct vhd *own, struct vhd *parent, struct why *why)
{
	AUTO(freep) uint8_t *a = hio_alloc(PIECE), *b = hio_alloc(PIECE);
	int err = a && b ? 0 : -ENOMEM;
	struct vhd_run run;

	for (uint64_t off = 0; !err && off < vhd_size(own); off += run.len) {
		if ((err = vhd_map(own, off, min_u64(vhd_size(own) - off, PIECE), &run)) < 0 || run.hole)
			continue;
		if ((err = vhd_read(own, a, run.len, off)) == 0)
			err = vhd_read(parent, b, run.len, off);
		if (!err && memcmp(a, b, run.len) != 0)
			err = why_set(why, -EBUSY, "%s: was changed while it was merged; nothing is lost, it stays",
				      vhd_path(own));
	}
	return err;
}

/* An empty child, of the same name and UUID, takes the place of one that only repeats its parent. */
static int make_thin(struct vhd *own, struct vhd *parent, struct why *why)
{
	struct vhd_create_opts co = {.type = VHD_DIFF, .parent = vhd_path(parent)};
	const char *tmp, *path = vhd_path(own);
	struct vhd_info i;
	int err;

	/* A child of another size than its parent's cannot be made anew; it is right as it is. */
	if (vhd_size(own) != vhd_size(parent))
		return 0;
	if ((err = same_as_parent(own, parent, why)) < 0)
		return err;
	vhd_info(own, &i);
	uuid_copy(co.uuid, i.uuid);
	co.block_size = i.block_size;
	if (!(tmp = image_temp(path, "tmp")))
		return -ENOMEM;
	if ((err = vhd_create(tmp, &co, why)) == 0)
		err = hio_replace(tmp, path, why);
	image_temp_done(tmp);
	return err;
}

static int coalesce(const char *path, const struct image_parents *p, struct why *why)
{
	const struct vhd_open_opts all = image_open_opts(p, VHD_OPEN_NOLOCK | VHD_OPEN_CACHED);
	const struct vhd_open_opts alone = {.flags = VHD_OPEN_WRITE | VHD_OPEN_ALONE};
	const struct vhd_open_opts oo = image_open_opts(p, 0);
	struct vhd *chain = NULL, *own = NULL, *parent = NULL;
	struct vhd_open_opts up = all;
	int err = vhd_commit(path, &oo, NULL, why);

	if (!err)
		err = vhd_open(&own, path, &alone, why);
	if (!err)
		err = vhd_open(&chain, path, &all, why);
	up.parent = NULL; /* of the child */
	if (!err)
		err = vhd_open(&parent, vhd_path(vhd_parent(chain)), &up, why);
	if (!err)
		err = make_thin(own, parent, why);
	vhd_close(parent);
	vhd_close(chain);
	vhd_close(own);
	return err;
}

int image_coalesce(int argc, char **argv)
{
	static const char help[] =
		"coalesce FILE\n\n"
		"What the differencing image FILE holds is written into its parent, and FILE becomes an empty child\n"
		"of it under the same UUID, replaced at once. Nobody may have either of them open, and no other image\n"
		"may be over the parent.\n\n" IMAGE_PARENT_HELP;
	struct image_parents parents = {.parent = NULL};
	AUTO(freep) char *real = NULL;
	struct why why = {.line = ""};
	int opt, err = 0;

	while ((opt = getopt_long(argc, argv, "h", image_options, NULL)) != -1)
		if (!image_parent_option(&parents, opt))
			return image_usage(opt == 'h' ? stdout : stderr, help);
	if (argc - optind != 1)
		return image_usage(stderr, help);
	if ((real = image_real(argv[optind], &err, &why)))
		err = coalesce(real, &parents, &why);
	return err ? image_complain(&why, err) : TOOL_OK;
}

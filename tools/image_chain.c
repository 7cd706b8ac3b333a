/* SPDX-License-Identifier: BSD-3-Clause */
/* image_chain.c - vhdnfs image chain, commit, rebase: images over other images */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/image.h"
#include "tools/tool.h"
#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/size.h"
#include "vhd/volume/volume.h"

#define PIECE (1u << 20)

/* ---- chain ------------------------------------------------------------------------------------------------------------------ */

static void show_link(const struct vhd *v, unsigned depth, json_t *list)
{
	static const char *const types[] = {
		[VHD_FIXED] = "fixed", [VHD_DYNAMIC] = "dynamic", [VHD_DIFF] = "differencing"};
	char size[SIZE_TEXT], uuid[UUID_STR_LEN];
	struct vhd_info i;

	vhd_info(v, &i);
	uuid_unparse_lower(i.uuid, uuid);
	if (image_answer()) {
		json_array_append_new(list, json_pack("{s:o, s:s, s:I, s:s, s:i}", "path", json_text(vhd_path(v)),
						      "type", types[i.type], "size", (json_int_t)i.size, "uuid", uuid,
						      "depth", (int)depth));
		return;
	}
	printf("%*s%s: %s, %s, %s\n", (int)depth * 2, "", vhd_path(v), types[i.type], size_text(i.size, size), uuid);
}

int image_chain(int argc, char **argv)
{
	static const char help[] = "chain FILE…\n\n"
				   "Opens the image with all its parents and checks that they are the ones it was made "
				   "over.\n\n" IMAGE_PARENT_HELP;
	struct image_parents parents = {.parent = NULL};
	int opt, rc = TOOL_OK;
	json_t *list;

	while ((opt = getopt_long(argc, argv, "h", image_options, NULL)) != -1)
		if (!image_parent_option(&parents, opt))
			return image_usage(opt == 'h' ? stdout : stderr, help);
	if (optind == argc)
		return image_usage(stderr, help);
	list = json_array();
	json_object_set(image_answer(), "images", list);
	for (; optind < argc; optind++) {
		const struct vhd_open_opts oo = image_open_opts(&parents, VHD_OPEN_NOLOCK | VHD_OPEN_CACHED);
		AUTO(vhd_closep) struct vhd *v = NULL;
		struct why why = {.line = ""};
		int err = vhd_open(&v, argv[optind], &oo, &why);
		unsigned depth = 0;

		if (err)
			rc = image_complain(&why, err);
		for (const struct vhd *p = v; p; p = vhd_parent(p))
			show_link(p, depth++, list);
	}
	json_decref(list);
	return rc;
}

/* ---- commit ----------------------------------------------------------------------------------------------------------------- */

static void progress(uint64_t done, uint64_t all)
{
	if (isatty(STDERR_FILENO) && (done == all || done / (64 * PIECE) != (done - PIECE) / (64 * PIECE)))
		fprintf(stderr, "\rcommit: %3u %%%s", (unsigned)(done * 100 / all), done == all ? "\n" : "");
}

int image_commit(int argc, char **argv)
{
	static const char help[] =
		"commit FILE\n\n"
		"What the differencing image FILE holds is written into its parent. FILE stays, and repeats its "
		"parent\n"
		"from then on; it may be removed. Nobody may have either of them open, and no other image may be over\n"
		"the parent.\n\n" IMAGE_PARENT_HELP;
	struct image_parents parents = {.parent = NULL};
	struct vhd_open_opts oo;
	struct why why = {.line = ""};
	int opt, err;

	while ((opt = getopt_long(argc, argv, "h", image_options, NULL)) != -1)
		if (!image_parent_option(&parents, opt))
			return image_usage(opt == 'h' ? stdout : stderr, help);
	if (argc - optind != 1)
		return image_usage(stderr, help);
	oo = image_open_opts(&parents, 0);
	err = vhd_commit(argv[optind], &oo, progress, &why);
	return err ? image_complain(&why, err) : TOOL_OK;
}

/* ---- rebase ----------------------------------------------------------------------------------------------------------------- */

/* A child is written anew over its new parent, under another name, and takes the old one's place at the end. */
struct rebase {
	const char *path, *parent;
	struct vhd *was; /* with its old parents, or alone */
	struct vhd *own; /* alone: what it holds itself */
	struct vhd *to;  /* the new one; its parents are the new ones */
	bool unsafe;
};

static int differs(struct rebase *r, uint64_t off, uint64_t len, uint8_t *a, uint8_t *b, bool *yes)
{
	int err = vhd_read(r->was, a, len, off);

	if (!err)
		err = vhd_read(r->to, b, len, off);
	*yes = err || memcmp(a, b, len) != 0;
	return err;
}

/* What it held itself, and (unless the parents are said to be equal) where the new ones read differently. */
static int rebase_copy(struct rebase *r)
{
	AUTO(freep) uint8_t *a = hio_alloc(PIECE), *b = hio_alloc(PIECE);
	uint64_t size = vhd_size(r->own), len;
	int err = a && b ? 0 : -ENOMEM;

	for (uint64_t off = 0; !err && off < size; off += len) {
		struct vhd_run run, now;
		bool copy;

		len = min_u64(size - off, PIECE);
		if ((err = vhd_map(r->own, off, len, &run)) < 0)
			break;
		len = run.len;
		copy = !run.hole;
		if (!copy && !r->unsafe) {
			/* Nothing on either side is the same nothing. */
			if ((err = vhd_map(r->was, off, len, &run)) < 0 ||
			    (err = vhd_map(r->to, off, run.len, &now)) < 0)
				break;
			len = now.len;
			if (run.hole && now.hole)
				continue;
			err = differs(r, off, len, a, b, &copy);
		}
		if (!err && copy && (err = vhd_read(r->unsafe ? r->own : r->was, a, len, off)) == 0)
			err = vhd_write(r->to, a, len, off);
	}
	return err;
}

/* The parents of the new one: where is said, and beside the child, as they are without anything said. */
static int new_dirs(struct image_parents *to, const char *path, char **own)
{
	if (!to->ndirs || to->ndirs + 1 == ARRAY_LEN(to->dir))
		return 0;
	*own = strndup(path, (size_t)(strrchr(path, '/') - path) + 1);
	if (!*own)
		return -ENOMEM;
	to->dir[to->ndirs++] = *own;
	return 0;
}

static int rebase_into(struct rebase *r, const struct image_parents *p, const char *tmp, struct why *why)
{
	struct image_parents up = *p;
	struct vhd_create_opts co = {.type = VHD_DIFF, .parent = r->parent};
	struct vhd_open_opts oo = {.flags = VHD_OPEN_WRITE, .parent = r->parent};
	AUTO(freep) char *beside = NULL;
	struct vhd_info i;
	int err, closed;

	vhd_info(r->own, &i);
	uuid_copy(co.uuid, i.uuid);
	co.block_size = i.block_size;
	if ((err = new_dirs(&up, r->path, &beside)) < 0)
		return err;
	oo.force_parent = p->force;
	oo.strict_parent = p->strict;
	oo.last_written = vol_last_written;
	oo.parent_dirs = up.ndirs ? up.dir : NULL;
	if ((err = vhd_create(tmp, &co, why)) < 0 || (err = vhd_open(&r->to, tmp, &oo, why)) < 0)
		return err;
	if (vhd_size(r->to) < vhd_size(r->own))
		err = why_set(why, -EINVAL, "%s: smaller than %s", r->parent, r->path);
	else if ((err = rebase_copy(r)) < 0)
		why_set(why, err, "%s: %s", r->path, strerror(-err));
	closed = vhd_close(r->to);
	if (!err && closed)
		err = why_set(why, closed, "%s: %s", tmp, strerror(-closed));
	return err;
}

static int rebase(struct rebase *r, const struct image_parents *p, struct why *why)
{
	struct image_parents from = *p;
	struct vhd_open_opts old, own = {.flags = VHD_OPEN_WRITE | VHD_OPEN_ALONE};
	struct vhd_info i;
	const char *tmp;
	int err;

	from.parent = NULL;
	old = image_open_opts(&from, VHD_OPEN_NOLOCK);
	/* The one with the lock first: the other is what nobody changes any more. */
	if ((err = vhd_open(&r->own, r->path, &own, why)) < 0)
		return err;
	if (!r->unsafe && (err = vhd_open(&r->was, r->path, &old, why)) < 0)
		return err;
	vhd_info(r->own, &i);
	if (i.type != VHD_DIFF)
		return why_set(why, -EINVAL, "%s: not a differencing image", r->path);
	if (!(tmp = image_temp(r->path, "tmp")))
		return -ENOMEM;
	err = rebase_into(r, p, tmp, why);
	if (!err)
		err = hio_replace(tmp, r->path, why);
	image_temp_done(tmp);
	return err;
}

int image_set_parent(const char *path, const char *parent, bool force, struct why *why)
{
	const struct vhd_open_opts oo = {.flags = VHD_OPEN_NOLOCK | VHD_OPEN_CACHED | VHD_OPEN_INFO};
	const struct image_parents none = {.parent = NULL};
	struct rebase r = {.parent = parent, .unsafe = true};
	struct vhd *child = NULL, *up = NULL;
	struct vhd_info c, p;
	int err = 0;
	AUTO(freep) char *real = image_real(path, &err, why);

	r.path = real;
	if (!err)
		err = vhd_open(&child, real, &oo, why);
	if (!err)
		err = vhd_open(&up, parent, &oo, why);
	if (!err) {
		vhd_info(child, &c);
		vhd_info(up, &p);
		if (c.type == VHD_DIFF && !force && uuid_compare(c.parent_uuid, p.uuid) != 0)
			err = why_set(why, -EINVAL, "%s: its UUID is not that of the parent %s was made over", parent,
				      path);
	}
	vhd_close(up);
	vhd_close(child);
	if (!err)
		err = rebase(&r, &none, why);
	vhd_close(r.own);
	return err;
}

int image_rebase(int argc, char **argv)
{
	static const char help[] =
		"rebase --parent NEW [--unsafe] FILE\n\n"
		"The differencing image FILE gets another parent. What NEW reads differently than "
		"the old parent goes into\n"
		"FILE, so that its contents stay what they were; with --unsafe that is left out, "
		"for a parent that was\n"
		"copied or moved. FILE is replaced at once when all is done.\n\n"
		"  --parent-dir DIR  the old parents are looked for below this folder, those of NEW there "
		"and beside FILE\n"
		"  --force-parent    a parent, the old one or one of NEW, may have been changed";
	struct image_parents parents = {.parent = NULL};
	struct rebase r = {.path = NULL};
	AUTO(freep) char *real = NULL;
	struct why why = {.line = ""};
	int opt, err = 0;

	while ((opt = getopt_long(argc, argv, "h", image_options, NULL)) != -1) {
		if (opt == 'u')
			r.unsafe = true;
		else if (!image_parent_option(&parents, opt))
			return image_usage(opt == 'h' ? stdout : stderr, help);
	}
	if (argc - optind != 1 || !parents.parent)
		return image_usage(stderr, help);
	r.path = real = image_real(argv[optind], &err, &why);
	r.parent = parents.parent;
	if (!err)
		err = rebase(&r, &parents, &why);
	vhd_close(r.own);
	vhd_close(r.was);
	return err ? image_complain(&why, err) : TOOL_OK;
}

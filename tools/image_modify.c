/* SPDX-License-Identifier: BSD-3-Clause */
/* image_modify.c - vhdnfs image set, resize, compact: an image changed in place, or replaced at once */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/image.h"
#include "tools/tool.h"
#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/size.h"
#include "vhd/image/modify.h"
#include "vhd/volume/volume.h"

/* What a footer can say: 32 bits of seconds since 2000. */
#define TIME_FIRST INT64_C(946684800)
#define TIME_LAST (TIME_FIRST + UINT32_MAX)

/* ---- set -------------------------------------------------------------------------------------------------------------------- */

static bool take_geometry(const char *text, struct vhd_fields *f)
{
	unsigned c, h, s;
	char end;

	if (sscanf(text, "%u/%u/%u%c", &c, &h, &s, &end) != 3 || c > 65535 || !h || h > 255 || !s || s > 255)
		return false;
	f->cylinders = (uint16_t)c;
	f->heads = (uint8_t)h;
	f->sectors = (uint8_t)s;
	return f->set_geometry = true;
}

static bool take_field(int opt, const char *text, struct vhd_fields *f)
{
	char *end;

	switch (opt) {
	case 'C':
		memset(f->creator, ' ', sizeof f->creator);
		memcpy(f->creator, text, strnlen(text, sizeof f->creator));
		f->set_creator = strlen(text) <= sizeof f->creator && *text;
		return f->set_creator;
	case 'U':
		if (strcmp(text, "new") == 0)
			uuid_generate(f->uuid);
		else if (uuid_parse(text, f->uuid) < 0)
			return false;
		return f->set_uuid = true;
	case 'G':
		return take_geometry(text, f);
	case 'T':
		f->time = strcmp(text, "now") == 0 ? time(NULL) : strtoll(text, &end, 10);
		return f->set_time = strcmp(text, "now") == 0 ||
				     (*text && !*end && f->time >= TIME_FIRST && f->time <= TIME_LAST);
	default:
		return false;
	}
}

int image_set(int argc, char **argv)
{
	static const char help[] =
		"set [OPTION]… FILE\n\n"
		"  --creator TEXT      up to four characters, such as \"vpc \" or win; some programs go by the "
		"geometry or by the\n"
		"                      size depending on it\n"
		"  --uuid UUID|new     children of the image look for the old one\n"
		"  --geometry C/H/S    cylinders, heads, sectors per track; not more than the disk holds\n"
		"  --timestamp SECONDS|now  when it was made, since 1970\n"
		"  --parent FILE       where the parent of a differencing image is; it must be the one it was made "
		"over\n"
		"  --force-parent      or else becomes it; what was not written to the child reads from it";
	struct vhd_fields f = {.set_creator = false};
	const char *parent = NULL;
	bool fields, force = false;
	struct why why = {.line = ""};
	int opt, err = 0;

	while ((opt = getopt_long(argc, argv, "h", image_options, NULL)) != -1) {
		if (opt == 'p' || opt == 'F') {
			parent = opt == 'p' ? optarg : parent;
			force |= opt == 'F';
			continue;
		}
		if (opt == 'h' || !strchr("CUGT", opt))
			return image_usage(opt == 'h' ? stdout : stderr, help);
		if (!take_field(opt, optarg, &f)) {
			fprintf(stderr, "vhdnfs: \"%s\" is not understood; see \"vhdnfs image set --help\"\n", optarg);
			return TOOL_USAGE;
		}
	}
	fields = f.set_creator || f.set_uuid || f.set_geometry || f.set_time;
	if (argc - optind != 1 || !(fields || parent))
		return image_usage(stderr, help);
	if (parent)
		err = image_set_parent(argv[optind], parent, force, &why);
	if (!err && fields)
		err = vhd_set_fields(argv[optind], &f, &why);
	return err ? image_complain(&why, err) : TOOL_OK;
}

/* ---- resize ----------------------------------------------------------------------------------------------------------------- */

/* Zeros may belong to a file system all the same. */
static int check_volumes(const char *path, uint64_t size, struct why *why)
{
	const struct vhd_open_opts oo = {.flags = VHD_OPEN_CACHED | VHD_OPEN_NOLOCK};
	AUTO(vhd_closep) struct vhd *v = NULL;
	AUTO(freep) struct vol_list *l = NULL;
	int err = vhd_open(&v, path, &oo, why);

	if (err || size >= vhd_size(v))
		return err;
	l = calloc(1, sizeof *l);
	if (!l)
		return -ENOMEM;
	if ((err = vol_scan(v, l, why)) < 0)
		return err;
	for (unsigned i = 0; i < l->n; i++) {
		const struct vol_part *p = &l->part[i];
		uint64_t len = p->fs_len && p->fs_len < p->len ? p->fs_len : p->len;

		if (p->fstype[0] && p->start + len > size)
			return why_set(why, -ENOTEMPTY,
				       "%s: the %s in it reaches to byte %llu; make it smaller first, or say --unsafe",
				       path, p->fstype, (unsigned long long)(p->start + len));
	}
	return 0;
}

int image_resize(int argc, char **argv)
{
	static const char help[] =
		"resize --size SIZE [--exact] [--unsafe] FILE\n\n"
		"The disk becomes larger, or smaller where nothing but zeros is cut off. What is inside, partitions\n"
		"and file systems, is not changed.\n\n"
		"  --exact   keep the size; by default it is rounded up so that all programs agree on it\n"
		"  --unsafe  cut off zeros that a file system counts as its own";
	struct why why = {.line = ""};
	uint64_t size = 0;
	bool exact = false, unsafe = false;
	int opt, err = 0;

	while ((opt = getopt_long(argc, argv, "h", image_options, NULL)) != -1) {
		if (opt == 'e')
			exact = true;
		else if (opt == 'u')
			unsafe = true;
		else if (opt != 's' || size_parse(optarg, &size) < 0)
			return image_usage(opt == 'h' ? stdout : stderr, help);
	}
	if (argc - optind != 1 || !size)
		return image_usage(stderr, help);
	if (!unsafe)
		err = check_volumes(argv[optind], size, &why);
	if (!err)
		err = vhd_resize(argv[optind], size, exact, &why);
	return err ? image_complain(&why, err) : TOOL_OK;
}

/* ---- compact, flatten ------------------------------------------------------------------------------------------------------- */

/* A copy takes the image's place: without the zeros, without a parent. It keeps its UUID: children find it, but for the time of its
 * last change. */
static int rewrite(const char *path, const struct image_parents *p, enum vhd_type type, const char *what, bool by_fs,
		   struct why *why)
{
	/* For writing: nobody else may have it open. */
	const struct vhd_open_opts ro = image_open_opts(p, VHD_OPEN_WRITE), wo = {.flags = VHD_OPEN_WRITE};
	struct image_side from = {.vhd = NULL}, to = {.vhd = NULL};
	struct vhd_create_opts co = {.type = VHD_DYNAMIC, .exact = true};
	const char *tmp = NULL;
	struct vhd_info i;
	int err, closed;

	if ((err = vhd_open(&from.vhd, path, &ro, why)) < 0)
		return err;
	vhd_info(from.vhd, &i);
	from.size = to.size = co.size = i.size;
	co.block_size = i.block_size;
	uuid_copy(co.uuid, i.uuid);
	if (i.type != type)
		err = why_set(why, -EINVAL, "%s: not a %s image", path, type == VHD_DIFF ? "differencing" : "dynamic");
	else if (!(tmp = image_temp(path, "tmp")))
		err = -ENOMEM;
	if (!err && by_fs)
		err = image_find_unused(&from, why);
	if (!err && (err = vhd_create(tmp, &co, why)) == 0 && (err = vhd_open(&to.vhd, tmp, &wo, why)) == 0)
		err = image_copy(&from, &to, what, why);
	closed = vhd_close(to.vhd);
	if (!err && closed)
		err = why_set(why, closed, "%s: %s", tmp, strerror(-closed));
	/* It is open until the copy has its place: what another wrote to it before that would be lost. */
	if (!err)
		err = hio_replace(tmp, path, why);
	vhd_close(from.vhd);
	free(from.unused);
	image_temp_done(tmp);
	return err;
}

/* Here --fs takes no argument. */
static const struct option options[] = {
	{"fs", no_argument, NULL, 'i'},
	{"parent", required_argument, NULL, 'p'},
	{"parent-dir", required_argument, NULL, 'D'},
	{"force-parent", no_argument, NULL, 'F'},
	{"size-from", required_argument, NULL, 'S'},
	{"help", no_argument, NULL, 'h'},
	{0},
};

static int rewrite_real(const char *path, const struct image_parents *p, enum vhd_type type, const char *what,
			bool by_fs, struct why *why)
{
	int err = 0;
	AUTO(freep) char *real = image_real(path, &err, why);

	return real ? rewrite(real, p, type, what, by_fs, why) : err;
}

static int rewrite_command(int argc, char **argv, const char *help, enum vhd_type type)
{
	struct image_parents parents = {.parent = NULL};
	struct why why = {.line = ""};
	bool by_fs = false;
	int opt, err;

	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (opt == 'i' && type == VHD_DYNAMIC)
			by_fs = true;
		else if (!image_parent_option(&parents, opt))
			return image_usage(opt == 'h' ? stdout : stderr, help);
	}
	if (argc - optind != 1)
		return image_usage(stderr, help);
	err = rewrite_real(argv[optind], &parents, type, argv[0], by_fs, &why);
	return err ? image_complain(&why, err) : TOOL_OK;
}

int image_compact(int argc, char **argv)
{
	return rewrite_command(
		argc, argv,
		"compact [--fs] FILE\n\n"
		"Blocks of a dynamic image that hold only zeros are given back. The image is written anew beside\n"
		"itself, and replaced at once when that is done.\n\n"
		"  --fs              what an ext2, ext3 or ext4 inside does not use counts as zeros: the contents of\n"
		"                    removed files are gone for good",
		VHD_DYNAMIC);
}

int image_flatten(int argc, char **argv)
{
	return rewrite_command(argc, argv,
			       "flatten FILE\n\n"
			       "A differencing image becomes a dynamic one that needs no parent. It is written anew "
			       "beside itself, and\n"
			       "replaced at once when that is done.\n\n" IMAGE_PARENT_HELP,
			       VHD_DIFF);
}

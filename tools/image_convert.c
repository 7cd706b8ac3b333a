/* SPDX-License-Identifier: BSD-3-Clause */
/* image_convert.c - vhdnfs image convert */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "tools/image.h"
#include "tools/tool.h"
#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"

int image_side_open(const char *path, const struct image_parents *p, unsigned flags, struct image_side *s,
		    struct why *why)
{
	const struct vhd_open_opts oo = image_open_opts(p, flags);
	unsigned raw = (flags & VHD_OPEN_CACHED ? HIO_CACHED : 0) | (flags & VHD_OPEN_NOLOCK ? 0 : HIO_LOCK);
	int err = vhd_open(&s->vhd, path, &oo, why);
	int64_t n;

	if (!err) {
		s->size = vhd_size(s->vhd);
		return 0;
	}
	/* -EINVAL is "no VHD"; what is damaged is not taken for something else. */
	if (err != -EINVAL || (err = hio_open(&s->raw, path, raw, why)) < 0)
		return err;
	n = hio_size(s->raw);
	s->size = n > 0 ? round_up_u64((uint64_t)n, 512) : 0; /* a disk has whole sectors */
	return s->size ? 0 : why_set(why, -EINVAL, "%s: empty", path);
}

void image_side_close(struct image_side *s)
{
	vhd_close(s->vhd);
	hio_close(s->raw);
	*s = (struct image_side){.size = 0};
}

static int make_target(const char *tmp, enum vhd_type type, const struct image_side *from, struct image_side *to,
		       struct why *why)
{
	/* An image's own size is kept: other programs agreed on it already. */
	const struct vhd_create_opts co = {.type = type, .size = from->size, .exact = from->vhd != NULL};
	const struct vhd_open_opts oo = {.flags = VHD_OPEN_WRITE};
	int err;

	if (type) {
		err = vhd_create(tmp, &co, why);
		if (!err)
			err = vhd_open(&to->vhd, tmp, &oo, why);
		to->size = err ? 0 : vhd_size(to->vhd);
		return err;
	}
	if ((err = hio_open(&to->raw, tmp, HIO_WRITE | HIO_CREATE, NULL)) < 0)
		return why_set(why, err, "%s: %s", tmp, strerror(-err));
	to->size = from->size;
	err = hio_truncate(to->raw, from->size);
	return err ? why_set(why, err, "%s: %s", tmp, strerror(-err)) : 0;
}

static int close_target(struct image_side *to)
{
	int err = to->raw ? hio_flush(to->raw) : 0, closed;

	hio_close(to->raw);
	closed = vhd_close(to->vhd);
	return err ? err : closed;
}

static int convert(const struct image_side *from, const char *dst, enum vhd_type type, struct why *why)
{
	struct image_side to = {.vhd = NULL};
	const char *tmp;
	int err, closed;

	if (access(dst, F_OK) == 0)
		return why_set(why, -EEXIST, "%s: exists already; it is not replaced", dst);
	if (!(tmp = image_temp(dst, "tmp")))
		return -ENOMEM;
	err = make_target(tmp, type, from, &to, why);
	if (!err)
		err = image_copy(from, &to, "convert", why);
	closed = close_target(&to);
	if (!err && closed)
		err = why_set(why, closed, "%s: %s", dst, strerror(-closed));
	if (!err)
		err = hio_publish(tmp, dst, why);
	image_temp_done(tmp);
	return err;
}

/* Who goes by the geometry sees less of a disk whose size no geometry gives. */
static void note_geometry(const char *dst, uint64_t size)
{
	if (vhd_round_size(size) != size)
		fprintf(stderr,
			"vhdnfs: %s: no geometry gives %llu bytes; programs that go by it (QEMU before 10) see a "
			"little less\n",
			dst, (unsigned long long)size);
}

int image_convert(int argc, char **argv)
{
	static const char help[] =
		"convert --to raw|fixed|dynamic SRC DST\n\n"
		"SRC is a VHD or a raw disk. Zeros stay holes. DST appears when it is complete. Of a\n"
		"differencing image all of the disk is copied, so that DST needs no parent.\n\n" IMAGE_PARENT_HELP;
	static const struct {
		const char *name;
		enum vhd_type type;
	} kinds[] = {{"raw", 0}, {"fixed", VHD_FIXED}, {"dynamic", VHD_DYNAMIC}};
	struct image_parents parents = {.parent = NULL};
	struct image_side s = {.vhd = NULL};
	struct why why = {.line = ""};
	const char *to = NULL;
	int opt, err;

	while ((opt = getopt_long(argc, argv, "h", image_options, NULL)) != -1) {
		if (image_parent_option(&parents, opt))
			continue;
		if (opt != 'o')
			return image_usage(opt == 'h' ? stdout : stderr, help);
		to = optarg;
	}
	if (!to || argc - optind != 2)
		return image_usage(stderr, help);
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		if (strcmp(to, kinds[i].name) != 0)
			continue;
		err = image_side_open(argv[optind], &parents, VHD_OPEN_CACHED, &s, &why);
		if (!err)
			err = convert(&s, argv[optind + 1], kinds[i].type, &why);
		if (!err && kinds[i].type && s.vhd)
			note_geometry(argv[optind + 1], s.size);
		image_side_close(&s);
		return err ? image_complain(&why, err) : TOOL_OK;
	}
	fprintf(stderr, "vhdnfs: --to \"%s\": expected raw, fixed or dynamic\n", to);
	return TOOL_USAGE;
}

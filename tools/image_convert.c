/* SPDX-License-Identifier: BSD-3-Clause */
/* image_convert.c - vhdnfs image convert */
#include <errno.h>
#include <stdlib.h>
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

/* ---- streams ---------------------------------------------------------------------------------------------------------------- */

#define PIECE (1u << 20)

static int put_all(const uint8_t *p, size_t n)
{
	while (n) {
		ssize_t k = write(STDOUT_FILENO, p, n);

		if (k < 0 && errno != EINTR)
			return -errno;
		p += k < 0 ? 0 : k;
		n -= k < 0 ? 0 : (size_t)k;
	}
	return 0;
}

/* The whole disk to standard output, where nothing can be left out. */
static int stream_out(const struct image_side *from, struct why *why)
{
	AUTO(freep) uint8_t *buf = hio_alloc(PIECE);
	uint64_t n, data = 0, end = 0;
	int err = buf ? 0 : -ENOMEM;

	if (isatty(STDOUT_FILENO))
		return why_set(why, -EINVAL, "a disk is not written to a terminal");
	for (uint64_t at = 0; !err && at < from->size; at += n) {
		if (at >= end && (err = image_side_next(from, at, &data, &end)) < 0)
			break;
		n = min_u64(from->size - at, PIECE);
		if (at + n <= data)
			memset(buf, 0, n);
		else
			err = image_side_read(from, buf, n, at);
		if (!err)
			err = put_all(buf, n);
	}
	return err ? why_set(why, err, "standard output: %s", strerror(-err)) : 0;
}

/* Standard input into a file, zeros left out. */
static int stream_in(const char *path, struct why *why)
{
	AUTO(freep) uint8_t *buf = hio_alloc(PIECE);
	struct hio *h = NULL;
	uint64_t at = 0;
	int err = buf ? hio_open(&h, path, HIO_WRITE | HIO_CREATE | HIO_CACHED, why) : -ENOMEM;

	while (!err) {
		size_t n = fread(buf, 1, PIECE, stdin);
		bool zeros = true;

		if (!n)
			break;
		for (size_t i = 0; zeros && i < n; i++)
			zeros = !buf[i];
		if (!zeros)
			err = hio_write(h, buf, n, at);
		at += n;
	}
	if (!err && ferror(stdin))
		err = -EIO;
	if (!err)
		err = hio_truncate(h, at);
	hio_close(h);
	return err && !(why && why->line[0]) ? why_set(why, err, "standard input: %s", strerror(-err)) : err;
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

static int convert_any(const char *src, const char *dst, enum vhd_type type, const struct image_parents *parents,
		       struct why *why)
{
	struct image_side s = {.vhd = NULL};
	const char *in = NULL;
	int err = 0;

	if (strcmp(src, "-") == 0) {
		in = image_temp(strcmp(dst, "-") == 0 ? "stdin" : dst, "in");
		err = in ? stream_in(in, why) : -ENOMEM;
	}
	if (!err && (err = image_side_open(in ? in : src, parents, VHD_OPEN_CACHED, &s, why)) == 0) {
		err = strcmp(dst, "-") == 0 ? stream_out(&s, why) : convert(&s, dst, type, why);
		if (!err && type && s.vhd)
			note_geometry(dst, s.size);
	}
	image_side_close(&s);
	image_temp_done(in);
	return err;
}

int image_convert(int argc, char **argv)
{
	static const char help[] = "convert --to raw|fixed|dynamic SRC DST\n\n"
				   "SRC is a VHD or a raw disk, or - for standard input. Zeros stay holes. DST appears "
				   "when it is complete;\n"
				   "a raw disk can go to standard output as -. Of a differencing image all of the disk "
				   "is copied, so that\n"
				   "DST needs no parent.\n\n" IMAGE_PARENT_HELP;
	static const struct {
		const char *name;
		enum vhd_type type;
	} kinds[] = {{"raw", 0}, {"fixed", VHD_FIXED}, {"dynamic", VHD_DYNAMIC}};
	struct image_parents parents = {.parent = NULL};
	struct why why = {.line = ""};
	const char *to = NULL, *dst;
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
	dst = argv[optind + 1];
	if (image_answer() && strcmp(dst, "-") == 0) {
		fprintf(stderr, "vhdnfs: --json and the disk cannot both go to standard output\n");
		return TOOL_USAGE;
	}
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		if (strcmp(to, kinds[i].name) != 0)
			continue;
		if (kinds[i].type && strcmp(dst, "-") == 0) {
			fprintf(stderr, "vhdnfs: only a raw disk can go to standard output\n");
			return TOOL_USAGE;
		}
		err = convert_any(argv[optind], dst, kinds[i].type, &parents, &why);
		return err ? image_complain(&why, err) : TOOL_OK;
	}
	fprintf(stderr, "vhdnfs: --to \"%s\": expected raw, fixed or dynamic\n", to);
	return TOOL_USAGE;
}

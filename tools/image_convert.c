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
	int err = p->raw ? -EINVAL : vhd_open(&s->vhd, path, &oo, why);
	int64_t n;

	if (!err) {
		s->size = vhd_size(s->vhd);
		return 0;
	}
	/* -EINVAL is "no VHD"; what is damaged, or another format, is not taken for something else. */
	if (err != -EINVAL || (err = hio_open(&s->raw, path, raw, why)) < 0)
		return err;
	if (!p->raw && vhd_other_format(s->raw))
		return -EINVAL;
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

/* What is to be made. */
struct target {
	const char *path;
	enum vhd_type type; /* 0: a raw disk */
	bool exact, azure;
};

/* The size of the disk, and whether it is kept as it is. An image's own size is kept: other programs agreed on it already; and so is one
 * of whole MiB in a fixed image, which is what clouds take. */
static uint64_t target_size(const struct target *t, const struct image_side *from, bool *exact)
{
	*exact = t->exact || t->azure || from->vhd || (t->type == VHD_FIXED && from->size % IMAGE_AZURE_UNIT == 0);
	if (t->azure)
		return image_azure_size(from->size);
	return from->size;
}

static int make_target(const char *tmp, const struct target *t, const struct image_side *from, struct image_side *to,
		       struct why *why)
{
	struct vhd_create_opts co = {.type = t->type};
	const struct vhd_open_opts oo = {.flags = VHD_OPEN_WRITE};
	int err;

	co.size = target_size(t, from, &co.exact);
	if (t->type) {
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

/* A disk that became longer: its user should not be surprised. */
static void note_rounded(const char *dst, uint64_t was, uint64_t size)
{
	if (size != was)
		fprintf(stderr, "vhdnfs: %s: rounded up from %llu to %llu bytes\n", dst, (unsigned long long)was,
			(unsigned long long)size);
}

static int convert(const struct image_side *from, const struct target *t, uint64_t *size, struct why *why)
{
	struct image_side to = {.vhd = NULL};
	const char *tmp, *dst = t->path;
	int err, closed;

	if (access(dst, F_OK) == 0)
		return why_set(why, -EEXIST, "%s: exists already; it is not replaced", dst);
	if (!(tmp = image_temp(dst, "tmp")))
		return -ENOMEM;
	err = make_target(tmp, t, from, &to, why);
	*size = to.size;
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

/* Some formats are what a raw disk may begin with. */
static void offer_raw(const char *src, struct why *why)
{
	struct why said = *why;
	struct hio *h = NULL;

	if (hio_open(&h, src, HIO_CACHED, NULL) == 0 && vhd_other_format(h))
		why_set(why, -EINVAL, "%s; --from raw copies it as it is", said.line);
	hio_close(h);
}

static int convert_any(const char *src, const struct target *t, const struct image_parents *parents, struct why *why)
{
	const char *dst = t->path, *in = NULL;
	struct image_side s = {.vhd = NULL};
	uint64_t size = 0;
	int err = 0;

	if (strcmp(src, "-") == 0) {
		in = image_temp(strcmp(dst, "-") == 0 ? "stdin" : dst, "in");
		err = in ? stream_in(in, why) : -ENOMEM;
	}
	if (!err && (err = image_side_open(in ? in : src, parents, VHD_OPEN_CACHED, &s, why)) == 0) {
		err = strcmp(dst, "-") == 0 ? stream_out(&s, why) : convert(&s, t, &size, why);
		if (!err && size)
			note_rounded(dst, s.size, size);
		if (!err && t->type)
			note_geometry(dst, size);
	}
	if (err == -ENOTSUP || err == -EINVAL)
		offer_raw(in ? in : src, why);
	image_side_close(&s);
	image_temp_done(in);
	return err;
}

int image_convert(int argc, char **argv)
{
	static const char help[] =
		"convert [--from raw] --to raw|fixed|dynamic [--exact | --azure] SRC DST\n\n"
		"SRC is a VHD or a raw disk, or - for standard input. Zeros stay holes. DST appears "
		"when it is complete;\n"
		"a raw disk can go to standard output as -. Of a differencing image all of the disk "
		"is copied, so that\n"
		"DST needs no parent. A raw disk becomes as long as geometry can express, unless that is\n"
		"whole MiB and DST fixed.\n\n"
		"  --exact           keep the size of a raw disk\n"
		"  --azure           as Azure takes them: fixed, whole MiB, at least 20 MiB\n"
		"  --from raw        SRC is a raw disk, whatever it looks like\n" IMAGE_PARENT_HELP;
	static const struct {
		const char *name;
		enum vhd_type type;
	} kinds[] = {{"raw", 0}, {"fixed", VHD_FIXED}, {"dynamic", VHD_DYNAMIC}};
	struct image_parents parents = {.parent = NULL};
	struct why why = {.line = ""};
	const char *to = NULL, *dst;
	struct target t = {.path = NULL};
	int opt, err;

	while ((opt = getopt_long(argc, argv, "h", image_options, NULL)) != -1) {
		if (image_parent_option(&parents, opt))
			continue;
		if (opt == 'o')
			to = optarg;
		else if (opt == 'e')
			t.exact = true;
		else if (opt == 'A')
			t.azure = true;
		else if (opt == 'd' && strcmp(optarg, "raw") == 0)
			parents.raw = true;
		else
			return image_usage(opt == 'h' ? stdout : stderr, help);
	}
	if (t.azure && !to)
		to = "fixed";
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
		if (t.azure && kinds[i].type != VHD_FIXED) {
			fprintf(stderr, "vhdnfs: --azure makes a fixed image, not --to %s\n", to);
			return TOOL_USAGE;
		}
		t.type = kinds[i].type;
		t.path = dst;
		err = convert_any(argv[optind], &t, &parents, &why);
		return err ? image_complain(&why, err) : TOOL_OK;
	}
	fprintf(stderr, "vhdnfs: --to \"%s\": expected raw, fixed or dynamic\n", to);
	return TOOL_USAGE;
}

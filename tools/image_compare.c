/* SPDX-License-Identifier: BSD-3-Clause */
/* image_compare.c - vhdnfs image compare: do two disks hold the same? */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools/image.h"
#include "tools/tool.h"
#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"

#define PIECE (1u << 20)

typedef unsigned long long ull;

struct pair {
	struct image_side a, b;
	uint8_t *buf[2];
};

/* Zeros where a side has ended. */
static int read_or_zero(const struct image_side *s, uint8_t *buf, uint64_t len, uint64_t off)
{
	uint64_t have = off < s->size ? min_u64(len, s->size - off) : 0;

	memset(buf + have, 0, len - have);
	return have ? image_side_read(s, buf, have, off) : 0;
}

/* Where the next data of a side is; its end counts as "none". */
static int next(const struct image_side *s, uint64_t off, uint64_t *data, uint64_t *end)
{
	*data = *end = UINT64_MAX;
	if (off >= s->size)
		return 0;
	return image_side_next(s, off, data, end);
}

/* 1: they differ, at *where. */
static int compare(struct pair *p, uint64_t *where)
{
	uint64_t size = max_u64(p->a.size, p->b.size), at = 0;

	while (at < size) {
		uint64_t da, ea, db, eb, from, to;
		int err;

		if ((err = next(&p->a, at, &da, &ea)) < 0 || (err = next(&p->b, at, &db, &eb)) < 0)
			return err;
		from = round_down_u64(max_u64(min_u64(da, db), at), 512);
		if (from >= size)
			return 0;
		to = min_u64(from + PIECE, size);
		if ((err = read_or_zero(&p->a, p->buf[0], to - from, from)) < 0 ||
		    (err = read_or_zero(&p->b, p->buf[1], to - from, from)) < 0)
			return err;
		for (uint64_t i = 0; memcmp(p->buf[0], p->buf[1], to - from) != 0 && i < to - from; i++)
			if (p->buf[0][i] != p->buf[1][i]) {
				*where = from + i;
				return 1;
			}
		at = to;
	}
	return 0;
}

static int open_both(struct pair *p, char **argv, const struct image_parents *parents, struct why *why)
{
	const unsigned flags = VHD_OPEN_CACHED | VHD_OPEN_NOLOCK;
	int err = image_side_open(argv[0], parents, flags, &p->a, why);

	if (!err)
		err = image_side_open(argv[1], parents, flags, &p->b, why);
	for (int i = 0; i < 2 && !err; i++)
		if (!(p->buf[i] = hio_alloc(PIECE)))
			err = -ENOMEM;
	return err;
}

int image_compare(int argc, char **argv)
{
	static const char help[] =
		"compare A B\n\n"
		"Each a VHD or a raw disk. Exit status 0: the same (a longer one may have zeros at its end);\n"
		"1: different, or one cannot be read.\n\n"
		"  --parent-dir DIR, --force-parent  of differencing images";
	struct image_parents parents = {.parent = NULL};
	struct pair p = {.buf = {NULL, NULL}};
	struct why why = {.line = ""};
	uint64_t where = 0;
	int opt, r;

	while ((opt = getopt_long(argc, argv, "h", image_options, NULL)) != -1)
		if (!image_parent_option(&parents, opt) || opt == 'p')
			return image_usage(opt == 'h' ? stdout : stderr, help);
	if (argc - optind != 2)
		return image_usage(stderr, help);
	r = open_both(&p, argv + optind, &parents, &why);
	if (!r && (r = compare(&p, &where)) < 0)
		why_set(&why, r, "%s and %s: %s", argv[optind], argv[optind + 1], strerror(-r));
	if (image_answer() && r >= 0) {
		json_object_set_new(image_answer(), "same", json_boolean(!r));
		if (r)
			json_object_set_new(image_answer(), "differs_at", json_integer((json_int_t)where));
	} else if (r > 0) {
		printf("they differ, first at byte %llu\n", (ull)where);
	} else if (!r && p.a.size != p.b.size) {
		printf("the same, but for zeros at the end: %llu and %llu bytes\n", (ull)p.a.size, (ull)p.b.size);
	} else if (!r) {
		printf("the same\n");
	}
	image_side_close(&p.a);
	image_side_close(&p.b);
	free(p.buf[0]);
	free(p.buf[1]);
	return r < 0 ? image_complain(&why, r) : r ? TOOL_FAILED : TOOL_OK;
}

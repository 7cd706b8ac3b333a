/* SPDX-License-Identifier: BSD-3-Clause */
/* image_unused.c - which ranges of a disk no file system in it uses */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools/image.h"
#include "vhd/base/cleanup.h"
#include "vhd/cache/cache.h"
#include "vhd/volume/fs.h"
#include "vhd/volume/volume.h"

#define CACHE_BYTES (16u << 20)

struct collect {
	struct image_side *side;
	uint64_t start; /* of the volume */
	size_t room;
};

static int add(void *arg, uint64_t off, uint64_t len)
{
	struct collect *c = arg;
	struct image_side *s = c->side;

	if (s->nunused == c->room) {
		size_t room = c->room ? c->room * 2 : 1024;
		struct image_range *r = reallocarray(s->unused, room, sizeof *r);

		if (!r)
			return -ENOMEM;
		s->unused = r;
		c->room = room;
	}
	s->unused[s->nunused++] = (struct image_range){c->start + off, len};
	return 0;
}

static int look_into(struct cache_dev *dev, struct collect *c, const char *path, struct why *why)
{
	const struct fs_mount_opts mo = {.read_only = true};
	struct why said = {.line = ""};
	struct fs *fs;
	int err = ext4_driver.probe(dev);

	if (err != 1) /* some other kind: all of it is kept */
		return err < 0 ? err : 0;
	err = ext4_driver.mount(dev, &mo, &fs, &said);
	if (err)
		return why_set(why, err, "%s: %s", path, said.line[0] ? said.line : strerror(-err));
	err = fs->ops->unused(fs, add, c);
	if (err == -EUCLEAN)
		why_set(why, err,
			"%s: its %s was not closed cleanly or has errors: serve it once, or run e2fsck, before --fs",
			path, fs->type_name);
	fs->ops->unmount(fs);
	return err;
}

static int by_offset(const void *a, const void *b)
{
	const struct image_range *x = a, *y = b;

	return x->off < y->off ? -1 : x->off > y->off;
}

int image_find_unused(struct image_side *s, struct why *why)
{
	AUTO(freep) struct vol_list *l = calloc(1, sizeof *l);
	struct collect c = {.side = s};
	struct cache *cache;
	int err;

	if (!l)
		return -ENOMEM;
	if ((err = vol_scan(s->vhd, l, why)) < 0 || (err = cache_new(&cache, CACHE_BYTES)) < 0)
		return err;
	for (unsigned i = 0; !err && i < l->n; i++) {
		struct cache_dev *dev;

		c.start = l->part[i].start;
		if ((err = cache_attach(cache, s->vhd, l->part[i].start, l->part[i].len, &dev)) < 0)
			break;
		err = look_into(dev, &c, vhd_path(s->vhd), why);
		cache_detach(dev);
	}
	cache_free(cache);
	if (!err && s->nunused)
		qsort(s->unused, s->nunused, sizeof *s->unused, by_offset);
	return err;
}

void image_blank_unused(const struct image_side *s, uint8_t *buf, uint64_t len, uint64_t off)
{
	size_t lo = 0, hi = s->nunused;

	/* The first that reaches behind off. */
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (s->unused[mid].off + s->unused[mid].len <= off)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < s->nunused && s->unused[lo].off < off + len; lo++) {
		const struct image_range *r = &s->unused[lo];
		uint64_t from = r->off > off ? r->off - off : 0;
		uint64_t end = r->off + r->len < off + len ? r->off + r->len - off : len;

		memset(buf + from, 0, end - from);
	}
}

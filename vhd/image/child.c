/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * child.c - what a differencing image says of its parent
 *
 * UUID, the time the parent was last written, its name, and three locators, so that every program finds it: a relative Windows
 * path, an absolute one, and a URL. Space and length are in bytes, each text begins on a sector.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/image/vhd_int.h"

/* The code point at *p; malformed bytes are taken as Latin-1, as a file name may hold anything. */
static uint32_t next_char(const char **p)
{
	const uint8_t *b = (const uint8_t *)*p;
	unsigned more = *b >= 0xf0 && *b < 0xf5 ? 3 : *b >= 0xe0 ? 2 : *b >= 0xc2 ? 1 : 0;
	uint32_t c = more ? *b & (0x3fu >> more) : *b;

	for (unsigned i = 1; i <= more; i++) {
		if ((b[i] & 0xc0) != 0x80) {
			++*p;
			return *b;
		}
		c = c << 6 | (b[i] & 0x3f);
	}
	*p += more + 1;
	return c;
}

/* Bytes written; 0: does not fit. */
static uint32_t to_utf16(const char *from, uint8_t *to, uint32_t room, bool big)
{
	uint32_t n = 0;

	while (*from) {
		uint32_t c = next_char(&from);
		uint16_t unit[2] = {(uint16_t)c};
		unsigned k = 1;

		if (c > 0xffff) {
			unit[0] = (uint16_t)(0xd800 + ((c - 0x10000) >> 10));
			unit[k++] = (uint16_t)(0xdc00 + ((c - 0x10000) & 0x3ff));
		}
		for (unsigned i = 0; i < k; i++) {
			if (n + 2 > room)
				return 0;
			to[n++] = (uint8_t)(big ? unit[i] >> 8 : unit[i]);
			to[n++] = (uint8_t)(big ? unit[i] : unit[i] >> 8);
		}
	}
	return n;
}

static void backslashes(char *p)
{
	for (; *p; p++)
		if (*p == '/')
			*p = '\\';
}

/* From the folder of @from to @to, both real paths: ".\x.vhd", "..\base\x.vhd". */
static int relative(const char *from, const char *to, char *out, size_t room)
{
	size_t same = 0, n = 0;
	unsigned up = 0;

	for (size_t i = 0; from[i] && from[i] == to[i]; i++)
		if (from[i] == '/')
			same = i + 1;
	for (const char *p = from + same; (p = strchr(p, '/')) != NULL; p++)
		up++;
	if (strlen(to + same) + 3 * (size_t)up + 3 > room)
		return -ENAMETOOLONG;
	if (!up) {
		memcpy(out, "./", 2);
		n = 2;
	}
	for (; up; up--, n += 3)
		memcpy(out + n, "../", 3);
	strcpy(out + n, to + same);
	backslashes(out);
	return 0;
}

static int add_path(struct vhd_child *c, const char *code, const char *text)
{
	struct vhd_child_path *p = &c->path[c->npaths];

	memcpy(p->code, code, 4);
	if (code[0] == 'W') {
		p->len = to_utf16(text, p->text, sizeof p->text, false);
	} else {
		p->len = (uint32_t)strnlen(text, sizeof p->text);
		memcpy(p->text, text, p->len);
	}
	if (!p->len || p->len == sizeof p->text)
		return -ENAMETOOLONG;
	c->npaths++;
	return 0;
}

/* The real path that a new file at @path will have. */
static int real_path_of_new(const char *path, char *out)
{
	const char *slash = strrchr(path, '/');
	char dir[PATH_MAX] = ".";
	size_t n;

	if (slash) {
		n = slash == path ? 1 : (size_t)(slash - path);
		if (n >= sizeof dir)
			return -ENAMETOOLONG;
		memcpy(dir, path, n);
		dir[n] = '\0';
	}
	if (!realpath(dir, out))
		return -errno;
	n = strlen(out);
	if (n + strlen(slash ? slash + 1 : path) + 2 > PATH_MAX)
		return -ENAMETOOLONG;
	if (out[n - 1] != '/')
		out[n++] = '/';
	strcpy(out + n, slash ? slash + 1 : path);
	return 0;
}

static int say_where(struct vhd_child *c, const char *parent, const char *path)
{
	char from[PATH_MAX], to[PATH_MAX], text[PATH_MAX + 8];
	int err;

	if (!realpath(parent, to))
		return -errno;
	if ((err = real_path_of_new(path, from)) < 0 || (err = relative(from, to, text, sizeof text)) < 0 ||
	    (err = add_path(c, "W2ru", text)) < 0)
		return err;
	memcpy(text, "file://", 8);
	strcat(text, to);
	if ((err = add_path(c, "MacX", text)) < 0)
		return err;
	if (!to_utf16(strrchr(to, '/') + 1, c->name, sizeof c->name, true))
		return -ENAMETOOLONG;
	backslashes(to);
	return add_path(c, "W2ku", to);
}

uint32_t vhd_child_time(int64_t mtime)
{
	int64_t t = mtime - VHD_EPOCH;

	return t > 0 && t <= UINT32_MAX ? (uint32_t)t : 0;
}

int vhd_child_of(struct vhd_child *c, const char *parent, const char *path, struct why *why)
{
	/* With its lock: what somebody writes to has no contents to be over. */
	const struct vhd_open_opts o = {.flags = VHD_OPEN_CACHED | VHD_OPEN_INFO};
	AUTO(vhd_closep) struct vhd *p = NULL;
	int err = vhd_open(&p, parent, &o, why);

	if (err)
		return err;
	memset(c, 0, sizeof *c);
	c->size = p->size;
	memcpy(c->uuid, p->footer.uuid, sizeof c->uuid);
	c->timestamp = vhd_child_time(p->id.mtime);
	err = say_where(c, parent, path);
	return err ? why_set(why, err, "%s: the path of its parent %s: %s", path, parent, strerror(-err)) : 0;
}

static uint64_t space_of(const struct vhd_child_path *p)
{
	return round_up_u64(p->len, VHD_SECTOR);
}

void vhd_child_header(const struct vhd_child *c, uint64_t at, struct vhd_dynamic *d)
{
	memcpy(d->parent_uuid, c->uuid, sizeof d->parent_uuid);
	d->parent_timestamp = be32_of(c->timestamp);
	memcpy(d->parent_name, c->name, sizeof d->parent_name);
	for (unsigned i = 0; i < c->npaths; i++) {
		struct vhd_locator *l = &d->locator[i];

		memcpy(l->code, c->path[i].code, 4);
		l->data_space = be32_of((uint32_t)space_of(&c->path[i]));
		l->data_length = be32_of(c->path[i].len);
		l->data_offset = be64_of(at);
		at += space_of(&c->path[i]);
	}
}

void vhd_child_locators(const struct vhd_child *c, uint8_t *to)
{
	for (unsigned i = 0; i < c->npaths; i++) {
		memcpy(to, c->path[i].text, c->path[i].len);
		to += space_of(&c->path[i]);
	}
}

uint64_t vhd_child_bytes(const struct vhd_child *c)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < c->npaths; i++)
		n += space_of(&c->path[i]);
	return n;
}

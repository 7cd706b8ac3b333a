/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * chain.c - the parents of a differencing image: found, checked, shared
 *
 *     child ──parent──► snapshot ──parent──► base
 *
 * Where a parent is: what the caller says, else the child's locators, relative paths first, else the name in its header,
 * beside the child, else a file of that name, or with that UUID, below the folders that the operator names. A path from an image
 * is not trusted: what it leads to (links resolved) must lie below a folder that the operator allows, be a regular file, hold the
 * UUID the child asks for, and not be in the chain already. At most VHD_CHAIN_MAX images.
 *
 * Parents are open read-only and shared: the children of one base, and the chains that meet in it, hold references to one
 * struct vhd. chain_mu guards the list of them and the counts; it is held while a chain is opened, which is rare.
 */
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "vhd/base/cleanup.h"
#include "vhd/base/log.h"
#include "vhd/image/vhd_int.h"

#define SEARCH_DEPTH 8u /* of folders below one that --parent-dir names */
#define SLACK_S 2       /* seconds that file systems and archives round times by */

static struct lock chain_mu = LOCK_INIT;
static struct list parents = {&parents, &parents};

/* One search: who looks, and why the first candidate that exists was not taken. */
struct search {
	struct vhd *top, *child;
	const struct vhd_open_opts *o;
	struct why first;
	int err;
};

/* ---- where it may be ----------------------------------------------------------------------------------------------------- */

/* Below one of the allowed folders? Both are real paths. */
static bool is_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	while (n && dir[n - 1] == '/')
		n--;
	return strncmp(path, dir, n) == 0 && path[n] == '/';
}

static bool is_allowed(const struct search *s, const char *path)
{
	char dir[PATH_MAX], *slash;

	if (s->o->parent_dirs) {
		for (const char *const *d = s->o->parent_dirs; *d; d++)
			if (realpath(*d, dir) && is_below(path, dir))
				return true;
		return false;
	}
	if (!realpath(vhd_path(s->top), dir))
		return false;
	slash = strrchr(dir, '/');
	slash[slash == dir] = '\0';
	return is_below(path, dir);
}

/* "C:\dir\x.vhd", "file:///dir/x.vhd", "./x.vhd" as a path here, relative ones to the child's folder. False: too long. */
static bool localize(const struct search *s, const char *from, char *to)
{
	const char *base = vhd_path(s->child), *slash = strrchr(base, '/');
	int dir = slash ? (int)(slash - base + 1) : 0, n;

	if (strncmp(from, "file://", 7) == 0)
		from += 7;
	if (((from[0] | 0x20) >= 'a' && (from[0] | 0x20) <= 'z') && from[1] == ':')
		from += 2;
	if (from[0] == '/' || from[0] == '\\')
		n = snprintf(to, PATH_MAX, "%s", from);
	else
		n = snprintf(to, PATH_MAX, "%.*s%s", dir, base, from);
	if (n < 0 || n >= PATH_MAX)
		return false;
	for (char *p = to + (from[0] == '/' || from[0] == '\\' ? 0 : dir); *p; p++)
		if (*p == '\\')
			*p = '/';
	return true;
}

/* ---- is it the one? -------------------------------------------------------------------------------------------------------- */

static int not_this(struct search *s, int err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static int not_this(struct search *s, int err, const char *fmt, ...)
{
	va_list ap;

	if (!s->err) {
		s->err = err;
		va_start(ap, fmt);
		vsnprintf(s->first.line, sizeof s->first.line, fmt, ap);
		va_end(ap);
	}
	return err;
}

/* The child keeps the time its parent was last written when it was made. Windows 10 keeps nothing. */
static bool has_time(const struct vhd *child, const struct vhd *parent)
{
	int64_t then = (int64_t)be32_get(child->header.parent_timestamp), mtime = parent->id.mtime - VHD_EPOCH;

	return !then || llabs(then - mtime) <= SLACK_S;
}

static const char *when(int64_t t, char text[40])
{
	time_t sec = (time_t)t;
	struct tm tm;

	if (!gmtime_r(&sec, &tm) || !strftime(text, 40, "%Y-%m-%d %H:%M:%S UTC", &tm))
		snprintf(text, 40, "%lld", (long long)t);
	return text;
}

/* A copy has another time, as cp, scp, unzip and object stores make it, and the same contents. What tells a change is what was written
 * after the child was made: a file system says so itself, and so does a footer. What it says goes to @text. */
static bool was_changed(const struct search *s, struct vhd *p, char *text, size_t room)
{
	int64_t then = (int64_t)be32_get(s->child->header.parent_timestamp);
	int64_t made = (int64_t)be32_get(s->child->footer.timestamp);
	int64_t limit = (then > made ? then : made) + VHD_EPOCH + SLACK_S, t;
	char at[40], child[40];

	when(limit - SLACK_S, child);
	t = (int64_t)be32_get(p->footer.timestamp) + VHD_EPOCH;
	if (t > limit) {
		snprintf(text, room, "its footer is of %s, the child of %s", when(t, at), child);
		return true;
	}
	t = s->o->last_written ? s->o->last_written(p) : 0;
	if (t > limit) {
		snprintf(text, room, "a file system in it was written %s, the child made %s", when(t, at), child);
		return true;
	}
	return false;
}

static int check_time(struct search *s, struct vhd *p)
{
	int64_t then = (int64_t)be32_get(s->child->header.parent_timestamp) + VHD_EPOCH;
	char text[200], a[40], b[40];

	if (has_time(s->child, p) || s->o->force_parent)
		return 0;
	if (s->o->strict_parent)
		return not_this(
			s, -EUCLEAN,
			"%s: the parent may have been changed after %s was made over it: its file has another time "
			"(%s, expected %s), and --strict-parent wants the same; --force-parent takes it as it is",
			vhd_path(p), vhd_path(s->child), when(p->id.mtime, a), when(then, b));
	if (was_changed(s, p, text, sizeof text))
		return not_this(s, -EUCLEAN,
				"%s: the parent was changed after %s was made over it, whose contents are no longer "
				"what they were (%s); --force-parent takes it as it is",
				vhd_path(p), vhd_path(s->child), text);
	log_warn("%s: its file has another time (%s) than %s says (%s), as a copy has; taken as its parent: the UUID "
		 "is the "
		 "same, and neither its footer nor %s is younger than the child",
		 vhd_path(p), when(p->id.mtime, a), vhd_path(s->child), when(then, b),
		 s->o->last_written ? "a file system in it" : "anything looked at");
	return 0;
}

static int check_parent(struct search *s, struct vhd *p)
{
	char want[UUID_STR_LEN], found[UUID_STR_LEN];

	if (memcmp(s->child->header.parent_uuid, p->footer.uuid, sizeof p->footer.uuid) != 0) {
		uuid_unparse(s->child->header.parent_uuid, want);
		uuid_unparse(p->footer.uuid, found);
		return not_this(s, -EUCLEAN, "%s: not the parent of %s: its UUID is %s, expected %s", vhd_path(p),
				vhd_path(s->child), found, want);
	}
	return check_time(s, p);
}

/* ---- finding ---------------------------------------------------------------------------------------------------------------- */

static bool in_chain(const struct search *s, const struct hio_id *id)
{
	for (const struct vhd *v = s->top; v; v = v->parent)
		if (v->id.dev == id->dev && v->id.ino == id->ino)
			return true;
	return false;
}

static struct vhd *find_shared(const struct hio_id *id) REQUIRES(chain_mu)
{
	list_for_each (it, &parents) {
		struct vhd *p = list_entry(it, struct vhd, share_link);

		if (p->id.dev == id->dev && p->id.ino == id->ino)
			return p;
	}
	return NULL;
}

/* A regular file at a real path: the parent, with a reference, or why not. */
static int try_file(struct search *s, const char *path, const struct hio_id *id, struct vhd **out) REQUIRES(chain_mu)
{
	const struct vhd_open_opts o = {.flags = s->o->flags &
						 (unsigned)~(VHD_OPEN_WRITE | VHD_OPEN_INFO | VHD_OPEN_ALONE)};
	struct why why = {.line = ""};
	struct vhd *p;
	int err;

	if (in_chain(s, id))
		return not_this(s, -EUCLEAN, "%s: parent loop: it is a child of %s already", path, vhd_path(s->child));
	p = find_shared(id);
	if (p) {
		if ((err = check_parent(s, p)) < 0)
			return err;
		p->refs++;
		*out = p;
		return 0;
	}
	if ((err = vhd_open_one(&p, path, &o, &why)) < 0)
		return not_this(s, err, "%s", why.line);
	if ((err = check_parent(s, p)) < 0) {
		vhd_free(p);
		return err;
	}
	p->refs = 1;
	list_push_back(&parents, &p->share_link);
	*out = p;
	return 0;
}

/* @trusted: the operator's word, not the image's. -ENOENT: not there. */
static int try_path(struct search *s, const char *text, bool trusted, struct vhd **out) REQUIRES(chain_mu)
{
	char path[PATH_MAX], real[PATH_MAX];
	struct hio_id id;
	struct stat st;

	if (!trusted && !localize(s, text, path))
		return -ENOENT;
	if (!realpath(trusted ? text : path, real) || stat(real, &st) < 0)
		return trusted ? not_this(s, -errno, "%s: %s", text, strerror(errno)) : -ENOENT;
	if (!trusted && !is_allowed(s, real))
		return not_this(s, -EACCES,
				"%s: the parent of %s is outside of the folders where parents are looked for; "
				"--parent-dir allows another",
				real, vhd_path(s->child));
	if (!S_ISREG(st.st_mode))
		return not_this(s, -EINVAL, "%s: the parent of %s is not a regular file", real, vhd_path(s->child));
	id = (struct hio_id){.dev = st.st_dev, .ino = st.st_ino};
	return try_file(s, real, &id, out);
}

static const char *last_part(const char *path)
{
	size_t n = strlen(path);

	while (n && path[n - 1] != '/' && path[n - 1] != '\\' && path[n - 1] != ':')
		n--;
	return path + n;
}

/* Locators of one code; then their last components, beside the child. */
static int try_locators(struct search *s, const char *code, bool last, struct vhd **out) REQUIRES(chain_mu)
{
	for (unsigned i = 0; i < s->child->nparents; i++) {
		const struct vhd_parent_path *p = &s->child->parents[i];
		const char *path = last ? last_part(p->path) : p->path;

		if (memcmp(p->code, code, 4) == 0 && *path && try_path(s, path, false, out) == 0)
			return 0;
	}
	return -ENOENT;
}

static void add_name(struct vhd_search *what, const char *path)
{
	const char *name = last_part(path);

	if (*name && what->nnames < VHD_SEARCH_NAMES)
		what->name[what->nnames++] = name;
}

/* By the parent's file name below each folder given, and by its UUID; without one, by the name in another case beside the child. */
static int search_folders(struct search *s, const char *header_name, struct vhd **out) REQUIRES(chain_mu)
{
	struct vhd_search what = {.uuid = s->o->parent_dirs ? s->child->header.parent_uuid : NULL,
				  .depth = s->o->parent_dirs ? SEARCH_DEPTH : 0};
	char real[PATH_MAX], *found[VHD_SEARCH_MAX];
	const char *beside[2] = {real, NULL};
	const char *const *d = s->o->parent_dirs ? s->o->parent_dirs : beside;
	int err = -ENOENT;

	for (unsigned i = 0; i < s->child->nparents; i++)
		add_name(&what, s->child->parents[i].path);
	add_name(&what, header_name);
	if (!realpath(vhd_path(s->child), real))
		return -ENOENT;
	*strrchr(real, '/') = '\0';
	for (; err && *d; d++) {
		unsigned n;

		if (vhd_search(**d ? *d : "/", &what, found, &n) < 0)
			return -ENOMEM;
		for (unsigned i = 0; i < n; i++) {
			if (err && (s->o->parent_dirs || is_allowed(s, found[i])))
				err = try_path(s, found[i], true, out);
			free(found[i]);
		}
	}
	return err;
}

static int find_parent(struct search *s, struct vhd **out) REQUIRES(chain_mu)
{
	static const char codes[][5] = {"W2ru", "W2ku", "Wi2r", "Wi2k", "MacX"};
	struct vhd_info info;

	if (s->child == s->top && s->o->parent)
		return try_path(s, s->o->parent, true, out);
	for (int last = 0; last < 2; last++)
		for (size_t i = 0; i < ARRAY_LEN(codes); i++)
			if (try_locators(s, codes[i], last, out) == 0)
				return 0;
	vhd_parent_info(s->child, &info);
	if (*last_part(info.parent_name) && try_path(s, last_part(info.parent_name), false, out) == 0)
		return 0;
	if (search_folders(s, info.parent_name, out) == 0)
		return 0;
	return s->err ? s->err
		      : not_this(s, -ENOENT, "%s: its parent \"%.200s\" is not found; --parent-dir says where to look",
				 vhd_path(s->child),
				 s->child->nparents && s->child->parents[0].path[0] ? s->child->parents[0].path
										    : info.parent_name);
}

static bool is_raw_parent(const struct vhd *v)
{
	static const uint8_t zero[16];

	return memcmp(v->header.parent_uuid, zero, sizeof zero) == 0;
}

int vhd_open_chain(struct vhd *v, const struct vhd_open_opts *o, struct why *why)
{
	unsigned depth = 1;
	int err = 0;

	lock_take(&chain_mu);
	for (struct vhd *c = v; !err && c->type == VHD_DIFF; c = c->parent, depth++) {
		struct search s = {.top = v, .child = c, .o = o};

		if (depth >= VHD_CHAIN_MAX) {
			err = why_set(why, -EUCLEAN, "%s: more than %u parents, the last %s", vhd_path(v),
				      VHD_CHAIN_MAX - 1, vhd_path(c));
			break;
		}
		if (c->parent) /* shared, its own parents are open */
			continue;
		if (is_raw_parent(c))
			err = why_set(why, -ENOTSUP, "%s: its parent is a raw disk, not a VHD: not supported",
				      vhd_path(c));
		else if (find_parent(&s, &c->parent) < 0)
			/* -EINVAL is about the image itself: callers take that for a raw disk. */
			err = why_set(why, s.err == -EINVAL ? -EUCLEAN : s.err, "%s", s.first.line);
		if (err)
			break;
	}
	for (struct vhd *c = v; !err && c; c = c->parent)
		err = vhd_layers_init(c);
	lock_drop(&chain_mu);
	return err;
}

void vhd_chain_drop(struct vhd *p)
{
	while (p) {
		struct vhd *next = NULL;

		lock_take(&chain_mu);
		if (--p->refs == 0) {
			list_del(&p->share_link);
			next = TAKE(p->parent);
		} else {
			p = NULL;
		}
		lock_drop(&chain_mu);
		if (p)
			vhd_free(p);
		p = next;
	}
}

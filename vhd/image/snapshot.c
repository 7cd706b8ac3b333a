/* SPDX-License-Identifier: BSD-3-Clause */
/* snapshot.c - see snapshot.h */
#include "vhd/image/snapshot.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vhd/base/cleanup.h"
#include "vhd/base/log.h"
#include "vhd/image/vhd_int.h"

/* ---- names ------------------------------------------------------------------------------------------------------------------- */

/* Of a path, without ".vhd". */
static size_t stem_len(const char *path)
{
	size_t n = strlen(path);

	return n > 4 && strcasecmp(path + n - 4, ".vhd") == 0 ? n - 4 : n;
}

static bool is_name(const char *name, size_t len)
{
	if (!len || len > VHD_SNAPSHOT_NAME_MAX || !isalnum((unsigned char)*name))
		return false;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)name[i]) && !strchr("._:+-", name[i]))
			return false;
	return true;
}

int vhd_snapshot_path(const char *path, const char *name, char **out, struct why *why)
{
	if (!is_name(name, strlen(name)))
		return why_set(why, -EINVAL,
			       "\"%.100s\": not a name for a snapshot: expected up to %u letters, digits and \"._:+-\"",
			       name, VHD_SNAPSHOT_NAME_MAX);
	return asprintf(out, "%.*s@%s.vhd", (int)stem_len(path), path, name) < 0 ? -ENOMEM : 0;
}

static const char *last_part(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

bool vhd_snapshot_name(const char *path, const char *snap, const char **name, size_t *len)
{
	const char *of = last_part(path), *is = last_part(snap);
	size_t n = stem_len(of);

	if (strncmp(is, of, n) != 0 || is[n] != '@' || strlen(is) == stem_len(is))
		return false;
	*name = is + n + 1;
	*len = stem_len(*name);
	return is_name(*name, *len);
}

/* ---- taking one ----------------------------------------------------------------------------------------------------------------- */

/* On stable storage as it is, and only read from now on; or written again. */
static int freeze(struct vhd *v)
{
	int err = vhd_flush(v);

	if (!err)
		err = vhd_trim_tail(v);
	if (!err)
		err = hio_relock(v->io, false);
	if (!err)
		v->writable = false;
	return err;
}

static void thaw(struct vhd *v)
{
	int err = hio_relock(v->io, true);

	if (err)
		log_warn("%s: it is written again, but others may read it meanwhile: %s", vhd_path(v), strerror(-err));
	v->writable = true;
}

/* The child that takes the place, under a name for the time being; it must find its parent. */
static int make_child(const struct vhd *v, const char *tmp, const char *as, const struct vhd_open_opts *o,
		      struct why *why)
{
	struct vhd_create_opts co = {
		.type = VHD_DIFF, .parent = as, .block_size = v->block_size >= 512u << 10 ? v->block_size : 0};
	struct vhd_open_opts look = *o;
	AUTO(vhd_closep) struct vhd *c = NULL;
	int err = vhd_create(tmp, &co, why);

	if (err)
		return err;
	look.flags = (o->flags & VHD_OPEN_CACHED) | VHD_OPEN_NOLOCK;
	look.parent = NULL;
	return vhd_open(&c, tmp, &look, why);
}

static int take_place(struct vhd **v, const char *path, const char *tmp, const char *as, const struct vhd_open_opts *o,
		      struct why *why)
{
	struct vhd_open_opts wo = *o;
	struct vhd *child;
	int err;

	wo.flags |= VHD_OPEN_WRITE;
	wo.parent = NULL;
	if ((err = make_child(*v, tmp, as, o, why)) < 0 || (err = hio_replace(tmp, path, why)) < 0)
		return err;
	err = vhd_open(&child, path, &wo, why);
	if (err) { /* everything is as it was when the first name is back */
		if (rename(as, path) < 0)
			log_error("%s: it could not be put back in the place of %s: %s", as, path, strerror(errno));
		return err;
	}
	vhd_close(*v);
	*v = child;
	return 0;
}

/* The second name goes when the first one leads to the same file, and only then. */
static void take_back(const struct vhd *v, const char *path, const char *as)
{
	struct stat st;

	if (stat(path, &st) == 0 && st.st_dev == v->id.dev && st.st_ino == v->id.ino)
		unlink(as);
}

int vhd_snapshot(struct vhd **v, const char *as, const struct vhd_open_opts *o, struct why *why)
{
	AUTO(freep) char *path = realpath(vhd_path(*v), NULL), *tmp = NULL;
	int err;

	if (!path)
		return why_set(why, -errno, "%s: %s", vhd_path(*v), strerror(errno));
	if (asprintf(&tmp, "%s.new-child", path) < 0) {
		tmp = NULL;
		return -ENOMEM;
	}
	if (!(*v)->writable)
		return why_set(why, -EROFS, "%s: open only for reading: a snapshot would change its place", path);
	if ((err = freeze(*v)) < 0)
		return why_set(why, err, "%s: %s", path, strerror(-err));
	if (link(path, as) < 0) {
		err = -errno;
		why_set(why, err, "%s: %s", as, err == -EEXIST ? "exists already; it is not replaced" : strerror(-err));
		thaw(*v);
		return err;
	}
	unlink(tmp); /* of a server that was killed here */
	err = take_place(v, path, tmp, as, o, why);
	if (err) {
		unlink(tmp);
		take_back(*v, path, as);
		thaw(*v);
	}
	return err;
}

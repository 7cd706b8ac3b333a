/* SPDX-License-Identifier: BSD-3-Clause */
/* images.c - see images.h */
#include "server/images_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vhd/base/cleanup.h"
#include "vhd/base/log.h"

static const struct fs_driver *const drivers[] = {&ext4_driver};

int images_new(struct images **out, struct cache *cache, struct exports *exports)
{
	struct images *im = calloc(1, sizeof *im);

	if (!im)
		return -ENOMEM;
	lock_init(&im->change_mu);
	lock_init(&im->mu);
	cond_init(&im->gone);
	list_init(&im->list);
	im->cache = cache;
	im->exports = exports;
	im->patience = 10;
	*out = im;
	return 0;
}

static void dirs_free(char **dirs)
{
	for (char **d = dirs; d && *d; d++)
		free(*d);
	free(dirs);
}

void images_free(struct images *im)
{
	if (!im)
		return;
	dirs_free(im->parent_dirs);
	cond_fini(&im->gone);
	lock_fini(&im->mu);
	lock_fini(&im->change_mu);
	free(im);
}

static void image_free(struct image *i)
{
	free(i->conf.path);
	free(i->conf.name);
	free(i->conf.allow);
	free(i->snapshot);
	free(i);
}

void image_put(struct image *i, int err)
{
	struct images *im = i->all;
	bool last;
	int close_err;

	lock_take(&im->mu);
	if (err && !im->error)
		im->error = err;
	last = --i->users == 0;
	lock_drop(&im->mu);
	if (!last)
		return;
	close_err = vhd_close(i->vhd);
	if (close_err)
		log_error("%s: closing: %s; what was written last may be lost", i->conf.path, strerror(-close_err));
	lock_take(&im->mu);
	if (close_err && !im->error)
		im->error = close_err;
	list_del(&i->link);
	cond_broadcast(&im->gone);
	lock_drop(&im->mu);
	image_free(i);
}

/* The export is gone and its file system unmounted. */
static void volume_closed(void *arg, int err)
{
	struct volume *vol = arg;
	int detach_err = cache_detach(vol->dev);

	err = err ? err : detach_err;
	if (err)
		log_error("%s: writing back %s: %s; what was written last may be lost", vol->image->conf.path,
			  vol->path, strerror(-err));
	else
		log_debug("%s: %s is closed", vol->image->conf.path, vol->path);
	lock_take(&vol->image->all->mu);
	list_del(&vol->link);
	lock_drop(&vol->image->all->mu);
	image_put(vol->image, err);
	free(vol);
}

static const struct fs_driver *driver_for(struct cache_dev *dev)
{
	for (size_t i = 0; i < ARRAY_LEN(drivers); i++)
		if (drivers[i]->probe(dev) == 1)
			return drivers[i];
	return NULL;
}

/* Mount one volume and export it. -ENOTSUP: no driver for it, nothing was said yet. */
static int volume_serve(struct image *i, const struct vol_part *part, const char *path, struct why *why)
{
	struct fs_mount_opts mo = i->all->mount;
	struct volume *vol = calloc(1, sizeof *vol);
	const struct fs_driver *drv;
	struct export_opts eo;
	struct why said = {.line = ""};
	struct fs *fs;
	int err;

	if (!vol)
		return -ENOMEM;
	mo.read_only = i->conf.opts.read_only || !vhd_writable(i->vhd);
	vol->image = i;
	list_init(&vol->link);
	snprintf(vol->path, sizeof vol->path, "%s", path);
	if ((err = cache_attach(i->all->cache, i->vhd, part->start, part->len, &vol->dev)) < 0)
		goto no_dev;
	drv = driver_for(vol->dev);
	if (!drv) {
		err = -ENOTSUP;
		goto no_fs;
	}
	if ((err = drv->mount(vol->dev, &mo, &fs, &said)) < 0) {
		why_set(why, err, "%s: %s", i->conf.path, said.line[0] ? said.line : strerror(-err));
		goto no_fs;
	}
	if (said.line[0])
		log_warn("%s: %s", i->conf.path, said.line);
	vol->fs = fs;
	eo = i->conf.opts;
	eo.tag = i->snapshot;
	lock_take(&i->all->mu);
	i->users++;
	list_push_back(&i->volumes, &vol->link);
	lock_drop(&i->all->mu);
	err = exports_add(i->all->exports, path, fs, &eo, volume_closed, vol, why);
	if (!err)
		return 0;
	lock_take(&i->all->mu);
	i->users--;
	list_del(&vol->link);
	lock_drop(&i->all->mu);
	fs->ops->unmount(fs);
no_fs:
	cache_detach(vol->dev);
no_dev:
	free(vol);
	return err;
}

struct vhd_open_opts image_open_opts(const struct image *i)
{
	unsigned zeroes = i->all->detect_zeroes ? VHD_OPEN_ZEROES : 0;

	return (struct vhd_open_opts){.flags = i->conf.opts.read_only ? 0 : VHD_OPEN_WRITE | zeroes,
				      .parent_dirs = (const char *const *)i->all->parent_dirs,
				      .force_parent = i->all->force_parent,
				      .strict_parent = i->all->strict_parent,
				      .last_written = vol_last_written};
}

static int image_open(struct image *i, struct why *why)
{
	struct vhd_open_opts vo = image_open_opts(i);
	int err = vhd_open(&i->vhd, i->conf.path, &vo, why);

	if (vo.flags && (err == -EACCES || err == -EROFS || err == -EPERM)) {
		vo.flags = 0;
		if (vhd_open(&i->vhd, i->conf.path, &vo, why) == 0) {
			log_warn("%s: no permission to write; served read-only", i->conf.path);
			return 0;
		}
	}
	return err;
}

/* "/disk" or "/disk/p1"; of a snapshot "/.snapshots/disk/monday" or "/.snapshots/disk/p1/monday". */
static void export_path(const struct image *i, unsigned partition, char *to, size_t room)
{
	int n = snprintf(to, room, "%s/%s", i->snapshot ? SNAPSHOTS : "", i->conf.name);

	if (partition)
		n += snprintf(to + n, room - (size_t)n, "/p%u", partition);
	if (i->snapshot)
		snprintf(to + n, room - (size_t)n, "/%s", i->snapshot);
}

/* What is not served, and why: "p3 (NTFS)", "p2 (ext4: …)". Of what was refused with a reason that alone. */
static void note_unserved(struct image *i, const struct vol_part *p, const struct why *why)
{
	size_t at = strlen(i->unserved), room = sizeof i->unserved - at;
	const char *reason = why->line[0] ? why->line : "";

	snprintf(i->unserved + at, room, "%s", at ? ", " : "");
	at = strlen(i->unserved);
	if (p->number)
		snprintf(i->unserved + at, sizeof i->unserved - at, "p%u (%s%s%s)", p->number, vol_words(p),
			 reason[0] ? ": " : "", reason);
	else
		snprintf(i->unserved + at, sizeof i->unserved - at, "the whole disk (%s%s%s)", vol_words(p),
			 reason[0] ? ": " : "", reason);
}

/* Exports every volume of an open image that has a driver; how many, or the error when none could be served. */
static int image_export(struct image *i, struct why *why)
{
	AUTO(freep) struct vol_list *list = calloc(1, sizeof *list);
	int err, first = 0, served = 0, known = 0;
	char path[300];

	if (!list)
		return -ENOMEM;
	if ((err = vol_scan(i->vhd, list, why)) < 0)
		return err;
	for (unsigned n = 0; n < list->n; n++)
		known += strncmp(list->part[n].fstype, "ext", 3) == 0;
	for (unsigned n = 0; n < list->n; n++) {
		const struct vol_part *p = &list->part[n];
		struct why said = {.line = ""};

		export_path(i, known > 1 ? p->number : 0, path, sizeof path);
		err = volume_serve(i, p, path, &said);
		if (!err) {
			served++;
			continue;
		}
		note_unserved(i, p, &said);
		/* An error of its own says more than that others are of no kind that is served. */
		if (said.line[0] && !first) {
			first = err;
			why_set(why, err, "%s", said.line);
		}
	}
	if (served && i->unserved[0])
		log_warn("%s: not served: %s", i->conf.path, i->unserved);
	if (served || first)
		return served ? served : first;
	return why_set(why, -ENOTSUP, "%s: no file system that can be served (found: %s; expected ext2, ext3 or ext4)",
		       i->conf.path, i->unserved[0] ? i->unserved : "none");
}

void images_unserved(struct images *im, char *text, size_t room)
{
	size_t used = 0;

	text[0] = '\0';
	lock_take(&im->mu);
	list_for_each (it, &im->list) {
		const struct image *i = list_entry(it, struct image, link);
		int n = i->unserved[0] && !i->snapshot && used < room
				? snprintf(text + used, room - used, "; not served: /%s %s", i->conf.name, i->unserved)
				: 0;

		used += n > 0 ? (size_t)n : 0;
	}
	lock_drop(&im->mu);
}

static int conf_copy(struct config_image *to, const struct config_image *from)
{
	*to = *from;
	to->path = strdup(from->path);
	to->name = strdup(from->name);
	to->said_at = NULL;
	to->allow = NULL;
	if (from->opts.nallow) {
		to->allow = calloc(from->opts.nallow, sizeof *to->allow);
		if (to->allow)
			memcpy(to->allow, from->opts.allow, from->opts.nallow * sizeof *to->allow);
	}
	to->opts.allow = to->allow;
	return to->path && to->name && (to->allow || !from->opts.nallow) ? 0 : -ENOMEM;
}

static int dirs_copy(const char *const *from, char ***out)
{
	unsigned n = 0;

	*out = NULL;
	if (!from)
		return 0;
	while (from[n])
		n++;
	*out = calloc(n + 1, sizeof **out);
	for (unsigned i = 0; *out && i < n; i++)
		if (!((*out)[i] = strdup(from[i]))) {
			dirs_free(TAKE(*out));
			break;
		}
	return *out ? 0 : -ENOMEM;
}

int images_parents(struct images *im, const char *const *dirs, bool force, bool strict)
{
	char **copy;
	int err = dirs_copy(dirs, &copy);

	if (err)
		return err;
	lock_take(&im->change_mu);
	dirs_free(im->parent_dirs);
	im->parent_dirs = copy;
	im->force_parent = force;
	im->strict_parent = strict;
	lock_drop(&im->change_mu);
	return 0;
}

void images_mount_opts(struct images *im, const struct fs_mount_opts *o)
{
	lock_take(&im->change_mu);
	im->mount = *o;
	lock_drop(&im->change_mu);
}

void images_detect_zeroes(struct images *im, bool on)
{
	lock_take(&im->change_mu);
	im->detect_zeroes = on;
	lock_drop(&im->change_mu);
}

void images_show_snapshots(struct images *im, bool on)
{
	lock_take(&im->change_mu);
	im->snapshots = on;
	lock_drop(&im->change_mu);
}

int image_serve(struct images *im, const struct config_image *ci, const char *snapshot, struct why *why)
{
	struct image *i = calloc(1, sizeof *i);
	int err;

	if (!i)
		return -ENOMEM;
	i->all = im;
	list_init(&i->link);
	list_init(&i->volumes);
	i->users = 1;
	err = conf_copy(&i->conf, ci);
	if (!err && snapshot && !(i->snapshot = strdup(snapshot)))
		err = -ENOMEM;
	if (err || (err = image_open(i, why)) < 0) {
		image_free(i);
		return err;
	}
	lock_take(&im->mu);
	list_push_back(&im->list, &i->link);
	lock_drop(&im->mu);
	err = image_export(i, why);
	if (err >= 0 && !snapshot && im->snapshots)
		snapshots_serve(i);
	image_put(i, 0);
	return err < 0 ? err : 0;
}

int images_serve(struct images *im, const struct config_image *ci, struct why *why)
{
	int err = image_serve(im, ci, NULL, why);

	return err && ci->said_at ? why_prefix(why, err, "%s", ci->said_at) : err;
}

static bool same(const struct config_image *a, const struct config_image *b)
{
	return strcmp(a->path, b->path) == 0 && strcmp(a->name, b->name) == 0 &&
	       a->opts.read_only == b->opts.read_only && a->opts.squash == b->opts.squash &&
	       a->opts.anon_uid == b->opts.anon_uid && a->opts.anon_gid == b->opts.anon_gid &&
	       a->opts.nallow == b->opts.nallow &&
	       (!a->opts.nallow || memcmp(a->opts.allow, b->opts.allow, a->opts.nallow * sizeof *a->opts.allow) == 0);
}

/* Opens that are there would keep the image open as long as their clients like; there will be no new ones. */
static void withdraw(struct images *im, struct st *st, const char *path)
{
	unsigned revoked;
	uint32_t id;

	if (exports_remove(im->exports, path, &id) < 0)
		return;
	revoked = st_export_revoke(st, id);
	if (revoked)
		log_info("%s is no longer exported; opens and locks revoked: %u", path, revoked);
	else
		log_info("%s is no longer exported", path);
}

/* Takes the exports of an image and of its snapshots away. True when all are closed, so that it can be opened anew. */
static bool image_withdraw(struct images *im, struct st *st, const char *name)
{
	char path[300];
	bool open = true;

	for (;;) {
		path[0] = '\0';
		lock_take(&im->mu);
		list_for_each (it, &im->list) {
			struct image *i = list_entry(it, struct image, link);

			if (strcmp(i->conf.name, name) != 0)
				continue;
			list_for_each (vt, &i->volumes) {
				struct volume *v = list_entry(vt, struct volume, link);

				if (!v->withdrawn)
					snprintf(path, sizeof path, "%s", v->path);
				v->withdrawn = true;
				if (path[0])
					break;
			}
			if (path[0])
				break;
		}
		lock_drop(&im->mu);
		if (!path[0])
			break;
		withdraw(im, st, path);
	}
	lock_take(&im->mu);
	for (unsigned tries = 0; open && tries < im->patience; tries++) {
		open = false;
		list_for_each (it, &im->list)
			open |= strcmp(list_entry(it, struct image, link)->conf.name, name) == 0;
		if (open)
			cond_wait_ms(&im->gone, &im->mu, 1000);
	}
	lock_drop(&im->mu);
	return !open;
}

/* Its exports are gone; no reload has to do with it any more. */
static void image_leaves(struct images *im, const char *name)
{
	lock_take(&im->mu);
	list_for_each (it, &im->list) {
		struct image *i = list_entry(it, struct image, link);

		i->leaving |= strcmp(i->conf.name, name) == 0;
	}
	lock_drop(&im->mu);
}

unsigned images_leaving(struct images *im)
{
	unsigned n = 0;

	lock_take(&im->mu);
	list_for_each (it, &im->list)
		n += list_entry(it, struct image, link)->leaving;
	lock_drop(&im->mu);
	return n;
}

static void take_away(struct images *im, struct st *st, const struct config *c)
{
	for (;;) {
		char *name = NULL;

		lock_take(&im->mu);
		list_for_each (it, &im->list) {
			const struct image *i = list_entry(it, struct image, link);
			bool keep = i->snapshot || i->leaving; /* a snapshot goes with its image */

			for (unsigned n = 0; n < c->nimage; n++)
				keep |= same(&i->conf, &c->image[n]);
			if (!keep) {
				name = strdup(i->conf.name);
				break;
			}
		}
		lock_drop(&im->mu);
		if (!name)
			break;
		if (!image_withdraw(im, st, name)) {
			log_warn("%s is still in use; it will be closed when its last request is done", name);
			image_leaves(im, name);
		}
		free(name);
	}
}

/* What is not there. As images_reload(). */
static unsigned add(struct images *im, const struct config *c)
{
	unsigned all = images_leaving(im); /* first: one that is closed while this runs is missed next time */
	bool waits = false;

	for (unsigned n = 0; n < c->nimage; n++) {
		struct why why = {.line = ""};
		bool have = false;
		int err;

		lock_take(&im->mu);
		list_for_each (it, &im->list) {
			const struct image *i = list_entry(it, struct image, link);

			if (strcmp(i->conf.name, c->image[n].name) == 0) {
				have = true;
				waits |= i->leaving;
			}
		}
		lock_drop(&im->mu);
		if (have)
			continue;
		err = images_serve(im, &c->image[n], &why);
		if (err < 0)
			log_error("%s; not exported", why.line[0] ? why.line : strerror(-err));
		else
			log_info("/%s is exported now", c->image[n].name);
	}
	return waits ? all : 0;
}

unsigned images_reload(struct images *im, struct st *st, const struct config *c)
{
	unsigned waits;

	lock_take(&im->change_mu);
	take_away(im, st, c);
	waits = add(im, c);
	lock_drop(&im->change_mu);
	return waits;
}

int images_error(const struct images *im) NO_THREAD_SAFETY
{
	return im->error;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * snapshots.c - snapshots of images that are served: taking them, and showing them to clients
 *
 *     freeze every file system of the image -> pause every device -> vhd_snapshot() -> resume -> thaw
 *
 * What was answered as stable before is in the snapshot, and the snapshot is clean. Clients notice a moment's silence.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "server/images_int.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/log.h"
#include "vhd/image/snapshot.h"

/* ---- showing ------------------------------------------------------------------------------------------------------------------- */

static bool is_served(struct image *i, const char *name)
{
	bool found = false;

	lock_take(&i->all->mu);
	list_for_each (it, &i->all->list) {
		const struct image *s = list_entry(it, struct image, link);

		found |= s->snapshot && strcmp(s->snapshot, name) == 0 && strcmp(s->conf.name, i->conf.name) == 0;
	}
	lock_drop(&i->all->mu);
	return found;
}

void snapshots_serve(struct image *i)
{
	AUTO(freep) char *real = realpath(i->conf.path, NULL);

	for (const struct vhd *p = vhd_parent(i->vhd); p; p = vhd_parent(p)) {
		struct config_image ci = i->conf;
		char text[VHD_SNAPSHOT_NAME_MAX + 1];
		struct why why = {.line = ""};
		const char *name;
		size_t len;
		int err;

		if (!real || !vhd_snapshot_name(real, vhd_path(p), &name, &len))
			continue;
		snprintf(text, sizeof text, "%.*s", (int)len, name);
		if (is_served(i, text))
			continue;
		ci.path = (char *)(uintptr_t)vhd_path(p);
		ci.opts.read_only = true;
		err = image_serve(i->all, &ci, text, &why);
		if (err < 0)
			log_warn("%s; the snapshot is not shown", why.line[0] ? why.line : strerror(-err));
	}
}

/* ---- taking -------------------------------------------------------------------------------------------------------------------- */

/* The volumes of an image that stand still, and what keeps them from being unmounted. */
struct still {
	struct image *image;
	struct export *exp[VOL_MAX];
	struct cache_dev *dev[VOL_MAX];
	unsigned n, frozen;
};

static bool take_export(void *arg, const struct export *e)
{
	struct still *st = arg;

	if (e->pseudo)
		return true;
	lock_take(&st->image->all->mu);
	list_for_each (it, &st->image->volumes) {
		struct volume *v = list_entry(it, struct volume, link);

		if (v->fs != e->fs || st->n == VOL_MAX)
			continue;
		st->exp[st->n] = export_get((struct export *)(uintptr_t)e);
		st->dev[st->n++] = v->dev;
	}
	lock_drop(&st->image->all->mu);
	return true;
}

static void let_go(struct still *st)
{
	while (st->frozen) {
		struct fs *fs = st->exp[--st->frozen]->fs;

		if (fs->ops->thaw)
			fs->ops->thaw(fs);
	}
	while (st->n)
		export_put(st->exp[--st->n]);
}

/* All of the image's volumes, or none. */
static int stand_still(struct still *st, struct why *why)
{
	struct images *im = st->image->all;
	unsigned all = 0;
	int err = 0;

	exports_each(im->exports, take_export, st);
	lock_take(&im->mu);
	list_for_each (it, &st->image->volumes)
		all++;
	lock_drop(&im->mu);
	if (all != st->n)
		err = why_set(why, -EBUSY, "%s: it is being closed", st->image->conf.path);
	for (; !err && st->frozen < st->n; st->frozen++) {
		struct fs *fs = st->exp[st->frozen]->fs;

		if (fs->ops->freeze && (err = fs->ops->freeze(fs)) < 0) {
			why_set(why, err, "%s: writing back %s: %s", st->image->conf.path, st->exp[st->frozen]->path,
				strerror(-err));
			break;
		}
	}
	if (err)
		let_go(st);
	return err;
}

static int take(struct image *i, const char *as, struct why *why)
{
	const struct vhd_open_opts vo = image_open_opts(i);
	struct still st = {.image = i};
	int err = stand_still(&st, why);

	if (err)
		return err;
	for (unsigned n = 0; n < st.n; n++)
		cache_pause(st.dev[n]);
	err = vhd_snapshot(&i->vhd, as, &vo, why);
	for (unsigned n = 0; n < st.n; n++)
		cache_resume(st.dev[n], i->vhd);
	let_go(&st);
	return err;
}

/* The image at a real path, with a use of it. */
static struct image *find(struct images *im, const char *path)
{
	struct image *found = NULL;

	lock_take(&im->mu);
	list_for_each (it, &im->list) {
		struct image *i = list_entry(it, struct image, link);
		/* Without users it is being closed. */
		AUTO(freep) char *real = i->snapshot || !i->users ? NULL : realpath(i->conf.path, NULL);

		if (real && strcmp(real, path) == 0) {
			i->users++;
			found = i;
			break;
		}
	}
	lock_drop(&im->mu);
	return found;
}

int images_snapshot(struct images *im, const char *path, const char *name, char **made, struct why *why)
{
	struct image *i;
	int err;

	if ((err = vhd_snapshot_path(path, name, made, why)) < 0)
		return err;
	lock_take(&im->change_mu);
	i = find(im, path);
	if (i) {
		err = take(i, *made, why);
		if (!err && im->snapshots)
			snapshots_serve(i);
		image_put(i, 0);
	} else {
		err = why_set(why, -ENOENT, "%s: not served here", path);
	}
	lock_drop(&im->change_mu);
	if (err)
		free(TAKE(*made));
	else
		log_info("%s: snapshot %s", path, *made);
	return err;
}

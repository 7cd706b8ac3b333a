/* SPDX-License-Identifier: BSD-3-Clause */
/* persist.c - see persist.h */
#include "server/persist.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "advise/words.h"
#include "server/nfs4/standing.h"
#include "server/served.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/lock.h"

/* ---- keeping them --------------------------------------------------------------------------------------------------------------- */

/* Somebody who sleeps until a change is on stable storage. */
struct sleeper {
	struct fs_waiter waiter;
	struct lock mu;
	struct cond cond;
	bool done;
	int err;
};

static void wake(struct fs_waiter *w, int err)
{
	struct sleeper *s = container_of(w, struct sleeper, waiter);

	lock_take(&s->mu);
	s->done = true;
	s->err = err;
	cond_signal(&s->cond);
	lock_drop(&s->mu);
}

/* What this thread changed last is on stable storage. */
static int settle(struct fs *fs)
{
	struct sleeper s = {.waiter = {.done = wake}};
	uint64_t change;
	int r;

	if (!fs->ops->changed || !fs->ops->when_stable)
		return fs->ops->sync(fs);
	change = fs->ops->changed(fs);
	if (!change)
		return 0;
	lock_init(&s.mu);
	cond_init(&s.cond);
	list_init(&s.waiter.link);
	r = fs->ops->when_stable(fs, change, &s.waiter);
	if (!r) {
		lock_take(&s.mu);
		while (!s.done)
			cond_wait(&s.cond, &s.mu);
		lock_drop(&s.mu);
	}
	cond_fini(&s.cond);
	lock_fini(&s.mu);
	return r ? (r < 0 ? r : 0) : s.err;
}

static int keep(const struct served *f, const char *value)
{
	struct fs *fs = f->node->fs;
	int err;

	if (f->exp->read_only || fs->read_only)
		return -EROFS;
	if (!fs->ops->setxattr)
		return -ENOTSUP;
	err = fs->ops->setxattr(f->node, STANDING_ATTR, *value ? value : NULL, (uint32_t)strlen(value));
	if (err == -ENODATA) /* nothing was kept */
		return 0;
	return err ? err : settle(fs);
}

int persist(struct nfs_server *srv, const char *path, const char *advice, struct why *why)
{
	char value[ADV_WORDS_MAX];
	struct served f;
	uint32_t hints;
	int err;

	if ((err = adv_parse(advice, strlen(advice), &hints, why)) < 0 ||
	    (err = served_find(srv->exports, path, &f, why)) < 0)
		return err;
	adv_print(hints, value);
	if (f.node->type != FS_REG && f.node->type != FS_DIR)
		err = why_set(why, -EINVAL, "%.300s: advice is kept with files and directories only", path);
	else if ((err = keep(&f, value)) < 0)
		why_set(why, err, "%.300s: the advice cannot be kept: %s", path, strerror(-err));
	standing_changed(srv);
	served_put(&f);
	return err;
}

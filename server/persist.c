/* SPDX-License-Identifier: BSD-3-Clause */
/* persist.c - see persist.h */
#include "server/persist.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "server/served.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/lock.h"

/* ---- words ---------------------------------------------------------------------------------------------------------------------- */

enum { NORMAL = 1 << 0, SEQUENTIAL = 1 << 1, BACKWARDS = 1 << 2, RANDOM = 1 << 3, NOREUSE = 1 << 4 };
#define PATTERNS (SEQUENTIAL | BACKWARDS | RANDOM)

static const struct {
	const char *word;
	unsigned bit;
} words[] = {
	{"normal", NORMAL}, {"sequential", SEQUENTIAL}, {"backwards", BACKWARDS},
	{"random", RANDOM}, {"noreuse", NOREUSE},
};

static unsigned bit_of(const char *word, size_t len)
{
	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (strlen(words[i].word) == len && memcmp(words[i].word, word, len) == 0)
			return words[i].bit;
	return 0;
}

int persist_parse(const char *advice, char value[PERSIST_MAX], struct why *why)
{
	unsigned bits = 0, patterns;
	const char *at = advice;

	for (;; at++) {
		size_t len = strcspn(at, ",");
		unsigned bit = bit_of(at, len);

		if (!bit)
			return why_set(why, -EINVAL,
				       "advice \"%.*s\": expected sequential, backwards, random, noreuse or normal",
				       len > 40 ? 40 : (int)len, at);
		bits |= bit;
		at += len;
		if (!*at)
			break;
	}
	patterns = bits & PATTERNS;
	if (bits & NORMAL && bits != NORMAL)
		return why_set(why, -EINVAL, "advice \"%.60s\": normal stands alone", advice);
	if (patterns & (patterns - 1))
		return why_set(why, -EINVAL, "advice \"%.60s\": one of sequential, backwards and random", advice);
	value[0] = '\0';
	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (bits & words[i].bit & ~(unsigned)NORMAL)
			snprintf(value + strlen(value), PERSIST_MAX - strlen(value), "%s%s", *value ? "," : "",
				 words[i].word);
	return 0;
}

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
	err = fs->ops->setxattr(f->node, PERSIST_ATTR, *value ? value : NULL, (uint32_t)strlen(value));
	if (err == -ENODATA) /* nothing was kept */
		return 0;
	return err ? err : settle(fs);
}

int persist(struct exports *x, const char *path, const char *advice, struct why *why)
{
	char value[PERSIST_MAX];
	struct served f;
	int err;

	if ((err = persist_parse(advice, value, why)) < 0 || (err = served_find(x, path, &f, why)) < 0)
		return err;
	if (f.node->type != FS_REG && f.node->type != FS_DIR)
		err = why_set(why, -EINVAL, "%.300s: advice is kept with files and directories only", path);
	else if ((err = keep(&f, value)) < 0)
		why_set(why, err, "%.300s: the advice cannot be kept: %s", path, strerror(-err));
	served_put(&f);
	return err;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * search.c - images below a folder that may be the parent somebody looks for
 *
 * A name counts as it is written, else as Windows takes names, where case says nothing; else the UUID in the footer counts. The
 * walk follows no symbolic link and is bounded, since somebody may say "/".
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "vhd/base/cleanup.h"
#include "vhd/image/vhd_int.h"

#define ENTRIES_MAX 100000u
#define FOLDERS_OPEN 16

enum rank { EXACT, FOLDED, BY_UUID, RANKS };

/* nftw() has no argument for its callback. */
static _Thread_local struct walk {
	const struct vhd_search *what;
	char *found[RANKS][VHD_SEARCH_MAX];
	unsigned n[RANKS], seen;
	int err;
} * walk;

static bool has_uuid(const char *path, const uint8_t uuid[16])
{
	AUTO(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct vhd_footer f;
	off_t end = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);

	return end >= (off_t)sizeof f && pread(fd, &f, sizeof f, end - (off_t)sizeof f) == sizeof f &&
	       vhd_footer_ok(&f) && memcmp(f.uuid, uuid, 16) == 0;
}

static enum rank rank_of(const char *path, const char *name)
{
	const struct vhd_search *s = walk->what;
	enum rank best = s->uuid && has_uuid(path, s->uuid) ? BY_UUID : RANKS;

	for (unsigned i = 0; i < s->nnames; i++) {
		if (strcmp(name, s->name[i]) == 0)
			return EXACT;
		if (strcasecmp(name, s->name[i]) == 0)
			best = FOLDED;
	}
	return best;
}

static int visit(const char *path, const struct stat *st, int type, struct FTW *at)
{
	enum rank r;

	if (++walk->seen > ENTRIES_MAX)
		return FTW_STOP;
	if (type == FTW_D)
		return (unsigned)at->level > walk->what->depth ? FTW_SKIP_SUBTREE : FTW_CONTINUE;
	if (type != FTW_F || !S_ISREG(st->st_mode))
		return FTW_CONTINUE;
	r = rank_of(path, path + at->base);
	if (r == RANKS || walk->n[r] == VHD_SEARCH_MAX)
		return FTW_CONTINUE;
	if (!(walk->found[r][walk->n[r]] = strdup(path))) {
		walk->err = -ENOMEM;
		return FTW_STOP;
	}
	walk->n[r]++;
	return FTW_CONTINUE;
}

int vhd_search(const char *dir, const struct vhd_search *what, char *found[VHD_SEARCH_MAX], unsigned *n)
{
	AUTO(freep) struct walk *w = calloc(1, sizeof *w);
	int err;

	*n = 0;
	if (!w)
		return -ENOMEM;
	w->what = what;
	walk = w;
	nftw(dir, visit, FOLDERS_OPEN, FTW_PHYS | FTW_ACTIONRETVAL);
	walk = NULL;
	err = w->err;
	for (unsigned r = 0; r < RANKS; r++)
		for (unsigned i = 0; i < w->n[r]; i++) {
			if (!err && *n < VHD_SEARCH_MAX)
				found[(*n)++] = w->found[r][i];
			else
				free(w->found[r][i]);
		}
	return err;
}

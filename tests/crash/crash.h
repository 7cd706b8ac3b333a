/* SPDX-License-Identifier: BSD-3-Clause */
/* crash.h - between crash.c (record, cuts, judges) and model.c (what is done, and what must be left of it) */
#ifndef TESTS_CRASH_CRASH_H
#define TESTS_CRASH_CRASH_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "vhd/cache/cache.h"
#include "vhd/image/vhd.h"
#include "vhd/volume/fs.h"

struct workload {
	const char *name;
	const char *mkfs; /* options of mke2fs */
	unsigned mib;
	bool dynamic;
	unsigned ops;
	unsigned sync; /* one operation of this many is a sync of all, or of a file */
	uint8_t weight[16];
};
extern const struct workload workloads[];

struct crash_fs {
	struct vhd *vhd;
	struct cache *cache;
	struct cache_dev *dev;
	struct fs *fs;
	char problem[512]; /* empty: none */
};

void crash_open(struct crash_fs *c, const char *path, bool write);
bool crash_close(struct crash_fs *c);
uint32_t crash_rnd(uint32_t below);
unsigned crash_now(void); /* events recorded so far */
__attribute__((noreturn, format(printf, 1, 2))) void crash_die(const char *fmt, ...);
int crash_run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

void crash_make(const struct workload *w, const char *path); /* a fresh image with a file system */
int crash_fsck(const struct workload *w, const char *path, const char *how);
/* Broken promises of processes that end with their number. */
unsigned crash_wait(const struct workload *w, const pid_t *pid, unsigned jobs);
void crash_seed(void); /* the same numbers again */
unsigned crash_faults(const struct workload *w, unsigned faults, unsigned jobs, unsigned only, const char *dir);

/* Do it, and remember what was promised when. */
/* With @faults the first operation that fails ends it. */
void model_run(const struct workload *w, struct crash_fs *c, bool faults);
void model_none(void); /* nothing was done */
/* "folder name type links owner size length-of-attribute" of everything, in no order. */
void model_list(struct fs *fs, FILE *to);
/* The file system as it is after a cut: c->problem says what is wrong. */
void model_check(struct crash_fs *c, unsigned cut);
/* Each file becomes longer, and nothing but zeros may show; and so it may be from now on, when it is checked again.
 * @stable: sizes are on the disk folder by folder, while data stays in memory. */
void model_grow(struct crash_fs *c, bool stable);
void model_not_grown(void); /* the next file system that is checked has not */

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ext4_image.h - a scratch image with an ext file system, mounted by the driver and judged by e2fsck
 *
 * The image is a fixed VHD, so the tools can work on the file itself: the file system begins at its first byte.
 */
#ifndef TESTS_UNIT_EXT4_IMAGE_H
#define TESTS_UNIT_EXT4_IMAGE_H

#include <check.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vhd/cache/cache.h"
#include "vhd/image/vhd.h"
#include "vhd/volume/fs.h"

/* Check's own assertions write to a pipe each time, which is too slow for what happens a million times. */
#define must(cond)                                                                                                     \
	do {                                                                                                           \
		if (!(cond))                                                                                           \
			ck_abort_msg("line %d: %s", __LINE__, #cond);                                                  \
	} while (0)
#define must_eq(a, b)                                                                                                  \
	do {                                                                                                           \
		intmax_t a_ = (intmax_t)(a), b_ = (intmax_t)(b);                                                       \
		if (a_ != b_)                                                                                          \
			ck_abort_msg("line %d: %s is %jd, %s is %jd", __LINE__, #a, a_, #b, b_);                       \
	} while (0)

struct img {
	char dir[64], path[96];
	struct cache *cache;
	struct vhd *vhd;
	struct cache_dev *dev;
	struct fs *fs;
};

/* Runs a command; its output is shown when it fails. */
__attribute__((format(printf, 1, 2))) static inline int shell(const char *fmt, ...)
{
	char cmd[1024], full[1200];
	va_list ap;
	int st;

	va_start(ap, fmt);
	vsnprintf(cmd, sizeof cmd, fmt, ap);
	va_end(ap);
	snprintf(full, sizeof full,
		 "out=$( { %s; } 2>&1 </dev/null) || { rc=$?; echo \"$out\" | tail -n 20; exit $rc; }", cmd);
	st = system(full);
	return WIFEXITED(st) ? WEXITSTATUS(st) : 128;
}

/* @mkfs: options of mke2fs. */
static inline void img_make(struct img *m, unsigned mib, const char *mkfs)
{
	struct vhd_create_opts o = {.type = VHD_FIXED, .size = (uint64_t)mib << 20, .exact = true};
	const char *tmp = getenv("TMPDIR");
	struct why why = {0};

	memset(m, 0, sizeof *m);
	snprintf(m->dir, sizeof m->dir, "%.40s/vhdnfs-XXXXXX", tmp && *tmp ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(m->dir));
	snprintf(m->path, sizeof m->path, "%s/disk.vhd", m->dir);
	ck_assert_int_eq(vhd_create(m->path, &o, &why), 0);
	ck_assert_int_eq(shell("PATH=$PATH:/sbin:/usr/sbin; mke2fs -q -F -E nodiscard %s %s %uM", mkfs, m->path, mib),
			 0);
}

/* @cache: bytes. */
static inline void img_mount_with(struct img *m, size_t cache)
{
	struct vhd_open_opts o = {.flags = VHD_OPEN_WRITE | VHD_OPEN_CACHED};
	struct fs_mount_opts mo = {.relatime = true};
	struct why why = {0};

	ck_assert_int_eq(vhd_open(&m->vhd, m->path, &o, &why), 0);
	ck_assert_int_eq(cache_new(&m->cache, cache), 0);
	ck_assert_int_eq(cache_attach(m->cache, m->vhd, 0, vhd_size(m->vhd), &m->dev), 0);
	ck_assert_int_eq(ext4_driver.mount(m->dev, &mo, &m->fs, &why), 0);
}

static inline void img_mount(struct img *m)
{
	img_mount_with(m, 64u << 20);
}

static inline void img_unmount(struct img *m)
{
	ck_assert_int_eq(m->fs->ops->unmount(m->fs), 0);
	ck_assert_int_eq(cache_detach(m->dev), 0);
	cache_free(m->cache);
	ck_assert_int_eq(vhd_close(m->vhd), 0);
	m->fs = NULL;
}

static inline int img_fsck(struct img *m)
{
	return shell("PATH=$PATH:/sbin:/usr/sbin; e2fsck -fn %s", m->path);
}

static inline void img_free(struct img *m)
{
	if (m->fs)
		img_unmount(m);
	unlink(m->path);
	rmdir(m->dir);
}

#endif

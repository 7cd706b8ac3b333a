/* SPDX-License-Identifier: BSD-3-Clause */
/* ext4_attrs.h - what the tests of extended attributes share: one image, and short forms */
#ifndef TESTS_UNIT_EXT4_ATTRS_H
#define TESTS_UNIT_EXT4_ATTRS_H

#include "tests/unit/ext4_names.h"
#include "vhd/ext4/xattr_int.h"

#define ADVICE "user.io_advise"

static struct img img;

/* ---- short forms -------------------------------------------------------------------------------------------------------------- */

static inline int set(struct fs_node *n, const char *name, const void *value, uint32_t len)
{
	return n->fs->ops->setxattr(n, name, value, len);
}

static inline int set_s(struct fs_node *n, const char *name, const char *value)
{
	return set(n, name, value, (uint32_t)strlen(value));
}

static inline int get(struct fs_node *n, const char *name, void *buf, uint32_t cap)
{
	return n->fs->ops->getxattr(n, name, buf, cap, 0);
}

static inline void fill(uint8_t *buf, uint32_t len, uint32_t seed)
{
	for (uint32_t i = 0; i < len; i++)
		buf[i] = (uint8_t)(seed * 31 + i * 7 + (i >> 8));
}

static inline struct fs_node *file(const char *name)
{
	struct fs_node *n;

	must_eq(make_s(img.fs->root, name, FS_REG, &n), 0);
	return n;
}

static inline struct fs_node *found(const char *name)
{
	struct fs_node *n;

	must_eq(look(img.fs->root, name, &n), 0);
	return n;
}

#endif

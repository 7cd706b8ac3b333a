/* SPDX-License-Identifier: BSD-3-Clause */
/* acl.c - see acl.h */
#include "vhd/volume/acl.h"

#include <stdlib.h>
#include <string.h>

struct fs_acl *fs_acl_new(uint32_t count)
{
	struct fs_acl *a = calloc(1, sizeof *a + (size_t)count * sizeof a->e[0]);

	if (!a)
		return NULL;
	atomic_init(&a->refs, 1);
	a->count = count;
	return a;
}

struct fs_acl *fs_acl_copy(const struct fs_acl *a)
{
	struct fs_acl *copy = fs_acl_new(a->count);

	if (copy)
		memcpy(copy->e, a->e, (size_t)a->count * sizeof a->e[0]);
	return copy;
}

void fs_acl_put(struct fs_acl *a)
{
	if (a && atomic_fetch_sub(&a->refs, 1) == 1)
		free(a);
}

bool fs_acl_valid(const struct fs_acl *a)
{
	const unsigned once = FS_ACL_USER_OBJ | FS_ACL_GROUP_OBJ | FS_ACL_OTHER, named = FS_ACL_USER | FS_ACL_GROUP;
	unsigned seen = 0;

	for (uint32_t i = 0; i < a->count; i++) {
		unsigned tag = a->e[i].tag;

		/* One bit of those known, none from behind it yet, and its own only where many are allowed. */
		if (!tag || tag & (tag - 1) || tag > FS_ACL_OTHER || a->e[i].perm & ~7u)
			return false;
		if (seen > tag * 2 - 1 || (seen & tag && !(tag & named)))
			return false;
		seen |= tag;
	}
	return (seen & once) == once && (seen & FS_ACL_MASK || !(seen & named));
}

/* Where an entry's permissions are in a mode; -1: nowhere. Its group bits are the mask, and the owning group's only where there is no
 * mask, which is a list of the three entries that must be there. */
static int shift_of(const struct fs_acl *a, const struct fs_ace *e)
{
	switch (e->tag) {
	case FS_ACL_USER_OBJ:
		return 6;
	case FS_ACL_OTHER:
		return 0;
	case FS_ACL_MASK:
		return 3;
	case FS_ACL_GROUP_OBJ:
		return a->count == 3 ? 3 : -1;
	default:
		return -1;
	}
}

void fs_acl_set_mode(struct fs_acl *a, uint32_t mode)
{
	for (uint32_t i = 0; i < a->count; i++) {
		int shift = shift_of(a, &a->e[i]);

		if (shift >= 0)
			a->e[i].perm = (uint16_t)(mode >> shift & 7);
	}
}

bool fs_acl_meet_mode(struct fs_acl *a, uint32_t *mode)
{
	for (uint32_t i = 0; i < a->count; i++) {
		int shift = shift_of(a, &a->e[i]);

		if (shift < 0)
			continue;
		a->e[i].perm = (uint16_t)(a->e[i].perm & *mode >> shift & 7);
		*mode &= ~(7u << shift) | (uint32_t)a->e[i].perm << shift;
	}
	return a->count > 3;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fuzz_ext4_xattr.c - an area of extended attributes with arbitrary bytes: vhd/ext4/xattr_area.c
 *
 * The first byte says whether it is a block or in an inode, the next two the name and length of what is changed, the rest is the area.
 * What is found lies inside; an area that was made of it is whole, and has what was asked for.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vhd/ext4/xattr_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool ok)
{
	if (!ok)
		abort();
}

static bool expected(int got)
{
	return got >= 0 || got == -EUCLEAN || got == -ENOTSUP || got == -ENOSPC;
}

/* The values that @from and @to have of a name are the same. */
static void same(const struct xattr_area *from, const struct xattr_area *to, const struct xattr_name *name)
{
	uint32_t off, len, off2, len2;

	if (ext4_xattr_find(from, name, &off, &len) != 1)
		return;
	need(ext4_xattr_find(to, name, &off2, &len2) == 1 && len == len2 &&
	     memcmp(from->base + off, to->base + off2, len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct xattr_name names[] = {{1, 9, "io_advise"}, {1, 1, "a"}, {4, 2, "ab"}, {6, 7, "selinux"}};
	static const uint8_t value[512];
	struct xattr_area from, to;
	struct xattr_change c;
	uint32_t off, len, n = (uint32_t)(size > 3 ? (size - 3) / 4 * 4 : 0);
	int got;

	if (n < 36 || n > 65536)
		return 0;
	from = (struct xattr_area){.base = malloc(n), .first = data[0] & 1 ? 32 : 0, .size = n, .hashed = data[0] & 1};
	/* Another size: what does not fit must be refused. */
	to = from;
	to.size = data[0] & 2 ? n : (n / 2 + 3) / 4 * 4 + 32;
	to.base = calloc(1, to.size);
	need(from.base && to.base);
	memcpy(from.base, data + 3, n);
	c = (struct xattr_change){.name = names[data[1] % 4], .value = data[1] & 4 ? value : NULL, .len = data[2]};
	for (unsigned i = 0; i < 4; i++) {
		got = ext4_xattr_find(&from, &names[i], &off, &len);
		need(expected(got) && (got != 1 || (off <= n && len <= n - off)));
	}
	got = ext4_xattr_build(&from, &c, &to);
	need(expected(got));
	if (got >= 0) {
		ext4_xattr_block_hash(&to);
		need(ext4_xattr_find(&to, &c.name, &off, &len) == (c.value ? 1 : 0));
		need(!c.value || (len == c.len && memcmp(to.base + off, value, len) == 0));
		for (unsigned i = 0; i < 4; i++)
			if (i != data[1] % 4)
				same(&from, &to, &names[i]);
	}
	free(from.base);
	free(to.base);
	return 0;
}

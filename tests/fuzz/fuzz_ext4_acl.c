/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fuzz_ext4_acl.c - an access control list with arbitrary bytes: vhd/ext4/acl.c
 *
 * What is taken for a list is one, and becomes the same bytes again; a mode can be set and met.
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint32_t mode = size ? data[size - 1] * 2u : 0;
	struct fs_acl *a;
	uint8_t *again;
	int err;

	if (size > 65536)
		return 0;
	err = ext4_acl_parse(data, (uint32_t)size, &a);
	need(err == 0 || err == -EUCLEAN);
	need(!err || !a);
	if (!a)
		return 0;
	need(fs_acl_valid(a) && ext4_acl_bytes(a) == size);
	again = malloc(size);
	need(again);
	ext4_acl_encode(a, again);
	need(memcmp(again, data, size) == 0);
	free(again);
	fs_acl_set_mode(a, mode);
	need(fs_acl_valid(a));
	fs_acl_meet_mode(a, &mode);
	need(fs_acl_valid(a) && !(mode & ~0777u));
	fs_acl_put(a);
	return 0;
}

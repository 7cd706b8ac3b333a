/* SPDX-License-Identifier: BSD-3-Clause */
/* err.c - libext2fs's errors as negative errnos */
#include <errno.h>

#include "vhd/base/cleanup.h"
#include "vhd/ext4/ext4_int.h"

int ext4_errno(errcode_t e)
{
	static const struct {
		errcode_t e;
		int err;
	} map[] = {
		{0, 0},
		{EXT2_ET_NO_MEMORY, -ENOMEM},
		{EXT2_ET_BLOCK_ALLOC_FAIL, -ENOSPC},
		{EXT2_ET_INODE_ALLOC_FAIL, -ENOSPC},
		{EXT2_ET_DIR_NO_SPACE, -ENOSPC},
		{EXT2_ET_RO_FILSYS, -EROFS},
		{EXT2_ET_SHORT_READ, -EIO},
		{EXT2_ET_SHORT_WRITE, -EIO},
		{EXT2_ET_FILE_TOO_BIG, -EFBIG},
		{EXT2_ET_UNSUPP_FEATURE, -ENOTSUP},
		{EXT2_ET_RO_UNSUPP_FEATURE, -ENOTSUP},
	};

	for (size_t i = 0; i < ARRAY_LEN(map); i++)
		if (map[i].e == e)
			return map[i].err;
	/* System errors come through as they are; the rest of the library's own mean damage. */
	return e > 0 && e < 4096 ? -(int)e : -EUCLEAN;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* status.c - the one place where an errno becomes a status */
#include <errno.h>

#include "server/nfs4/compound.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/log.h"

static const struct {
	int err;
	nfsstat4 st;
} map[] = {
	{0, NFS4_OK},
	{-EAGAIN, ST_WAIT},
	{-EPERM, NFS4ERR_PERM},
	{-ENOENT, NFS4ERR_NOENT},
	{-EIO, NFS4ERR_IO},
	{-ENXIO, NFS4ERR_NXIO},
	{-ENOMEM, NFS4ERR_DELAY}, /* the client comes back; nothing is lost */
	{-EACCES, NFS4ERR_ACCESS},
	{-EEXIST, NFS4ERR_EXIST},
	{-EXDEV, NFS4ERR_XDEV},
	{-ENOTDIR, NFS4ERR_NOTDIR},
	{-EISDIR, NFS4ERR_ISDIR},
	{-EINVAL, NFS4ERR_INVAL},
	{-EFBIG, NFS4ERR_FBIG},
	{-ENOSPC, NFS4ERR_NOSPC},
	{-EROFS, NFS4ERR_ROFS},
	{-EMLINK, NFS4ERR_MLINK},
	{-ENAMETOOLONG, NFS4ERR_NAMETOOLONG},
	{-ENOTEMPTY, NFS4ERR_NOTEMPTY},
	{-ESTALE, NFS4ERR_STALE},
	{-EUCLEAN, NFS4ERR_IO},
	{-ENOTSUP, NFS4ERR_NOTSUPP},
	{-EBUSY, NFS4ERR_DELAY},
	{-EDQUOT, NFS4ERR_DQUOT},
};

nfsstat4 errno_status(int err)
{
	for (size_t i = 0; i < ARRAY_LEN(map); i++)
		if (map[i].err == err)
			return map[i].st;
	log_error("no status for errno %d", -err);
	return NFS4ERR_SERVERFAULT;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* busiest.h - the open files that are read most */
#ifndef VHDNFS_SERVER_BUSIEST_H
#define VHDNFS_SERVER_BUSIEST_H

#include <jansson.h>

#include "server/nfs4/compound.h"

#define BUSIEST_MAX 100u

/* [{"path", "opens", "bytes", "ahead", "used", "wasted", "hints"}, …], the busiest first: at most @n of the files that are open, and what
 * was read of them since they came into memory. Waits for the disk, to find out how they are called. NULL: no memory. */
json_t *busiest_json(struct nfs_server *nfs, unsigned n);

#endif

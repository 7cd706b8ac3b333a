/* SPDX-License-Identifier: BSD-3-Clause */
/* ops.h - the table of operations: dispatch, rules and documentation come from it */
#ifndef VHDNFS_SERVER_NFS4_OPS_H
#define VHDNFS_SERVER_NFS4_OPS_H

#include <stdint.h>
#include <stdio.h>

#include "server/nfs4/compound.h"

enum {
	NEEDS_CFH = 1 << 0,  /* else NFS4ERR_NOFILEHANDLE */
	NEEDS_SFH = 1 << 1,  /* the same for the saved filehandle */
	NO_SESSION = 1 << 2, /* may stand alone, without SEQUENCE */
	MUTATES = 1 << 3,    /* refused on a read-only export; reply room is reserved first */
	BLOCKS = 1 << 4,     /* waits for the disk as a rule: goes to a worker at once */
	LASTING =
		1
		<< 6, /* what it changed is on stable storage before it is answered (RFC 8881 18: CREATE, REMOVE, …) */
	FAIL_BODY = 1 << 5, /* its result has a body when it fails, too */
};

struct op_desc {
	const char *name;
	op_fn *run;    /* NULL: known to the protocol, not served */
	uint8_t since; /* first minor version of those served: 1, 2; 0: of NFSv4.0 only */
	uint8_t flags;
};

#define OP_FIRST 3
#define OP_LAST 75

/* The row of an operation that minor version @minor knows, or NULL: NFS4ERR_OP_ILLEGAL. */
const struct op_desc *op_find(uint32_t num, uint32_t minor);

/* The table for people: number, name, first minor version, served or not. */
void ops_print(FILE *f);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* stream_int.h - what stream.c and prims.c share */
#ifndef VHDNFS_XDR_STREAM_INT_H
#define VHDNFS_XDR_STREAM_INT_H

#include "xdr/stream.h"

/* One piece of the output: memory of ours behind the struct, or somebody else's. */
struct xa_chunk {
	struct xa_chunk *next;
	uint8_t *base;
	size_t cap;       /* ours: bytes at base */
	size_t len;       /* valid once closed */
	bool closed;      /* nothing more goes in */
	bool release_set; /* somebody else's memory */
	xa_release_fn *release;
	void *arg;
};

bool xa_out_more(struct xa_out *o, size_t need);

#endif

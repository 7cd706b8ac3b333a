/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * arena.h - the memory of one request
 *
 * A bump allocator over chunks: nothing is freed singly, everything goes at once. An arena has a limit, so that no request
 * can claim more than its share, whatever it says about its own sizes. One thread at a time.
 */
#ifndef VHDNFS_XDR_ARENA_H
#define VHDNFS_XDR_ARENA_H

#include <stddef.h>
#include <stdint.h>

struct arena_chunk;

struct arena {
	struct arena_chunk *chunk; /* the one that is being filled; older ones hang behind it */
	size_t used, limit;        /* bytes handed out, and how many may be */
};

/* No memory is taken until the first allocation. */
void arena_init(struct arena *a, size_t limit);
/* 16-byte aligned, not zeroed; NULL when the limit or the memory is exhausted. n = 0 gives a valid pointer. */
void *arena_alloc(struct arena *a, size_t n);
void *arena_zalloc(struct arena *a, size_t n);
/* n * size, checked. */
void *arena_array(struct arena *a, size_t n, size_t size);
/* Back to empty; one chunk is kept for the next request. */
void arena_reset(struct arena *a);
void arena_fini(struct arena *a);

#endif

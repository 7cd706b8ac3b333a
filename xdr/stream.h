/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * stream.h - where XDR comes from and where it goes
 *
 * Input is one contiguous record: decoding never copies opaque data, it points into the record (which outlives the
 * request). Counts are checked against what is left of the record before anything is allocated from the arena.
 *
 * Output is a chain of chunks, written once: fixed-size words can be reserved and filled in later (counts, status), the
 * stream can be cut back to a mark, and memory of others can be linked in without copying (pinned cache frames); it is
 * given back when the reply has been sent.
 *
 *     out:  [chunk: rpc header | op | op | READ head][foreign 64 KiB][foreign 64 KiB][chunk: pad | op …]
 */
#ifndef VHDNFS_XDR_STREAM_H
#define VHDNFS_XDR_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "xdr/ntirpc.h" /* XDR */

#include "xdr/arena.h"

/* Decode [buf, buf + len); pointers in what is decoded lead into buf or into the arena. */
void xa_in_init(XDR *x, struct arena *a, const void *buf, size_t len);
size_t xa_in_pos(const XDR *x); /* bytes consumed */
size_t xa_in_left(const XDR *x);
void xa_in_seek(XDR *x, size_t pos); /* pos <= what xa_in_pos() once returned */

/* Gives foreign memory back. Called exactly once per xa_out_link(), from any thread. */
typedef void xa_release_fn(void *arg);

struct xa_chunk;

struct xa_out {
	XDR x;               /* give &out->x to the generated routines */
	struct arena *arena; /* where chunks come from */
	size_t limit;        /* bytes the whole may have; past it every primitive fails */
	size_t len;          /* bytes in finished pieces; xa_out_len() for the total */
	struct xa_chunk *first, *last;
	unsigned pieces;
};

void xa_out_init(struct xa_out *o, struct arena *a, size_t limit);
size_t xa_out_len(const struct xa_out *o);
size_t xa_out_room(const struct xa_out *o); /* limit - len */
/* Another limit from now on. What is written stays, also when it is more than that. */
void xa_out_set_limit(struct xa_out *o, size_t limit);

/* n contiguous bytes (multiple of 4, <= 1024) to be filled later or never; NULL when there is no room. Stable address. */
void *xa_out_reserve(struct xa_out *o, size_t n);
/* The place where the next byte goes, how many bytes can be put there directly, and that @n of them were (a multiple of 4). */
static inline uint8_t *xa_out_open(const struct xa_out *o)
{
	return o->x.x_data;
}
static inline size_t xa_out_open_room(const struct xa_out *o)
{
	return (size_t)(o->x.x_v.vio_wrap - o->x.x_data);
}
static inline void xa_out_took(struct xa_out *o, size_t n)
{
	o->x.x_data += n;
}

/* A place to cut back to. Cutting releases foreign memory that was linked in after the mark. */
struct xa_mark {
	struct xa_chunk *chunk;
	size_t chunk_len, len;
	unsigned pieces;
};
struct xa_mark xa_out_mark(const struct xa_out *o);
void xa_out_cut(struct xa_out *o, struct xa_mark m);

/* Link foreign bytes in. @release may be NULL. false (nothing linked, release not called) when there is no room. Does
 * not pad: link the last piece, then xa_out_pad(). */
bool xa_out_link(struct xa_out *o, const void *base, size_t len, xa_release_fn *release, void *arg);
bool xa_out_pad(struct xa_out *o, size_t opaque_len); /* the 0 … 3 zero bytes after an opaque of that length */

/* The first bytes of the output: what the first xa_out_reserve() gave. NULL when nothing was written. */
void *xa_out_first(const struct xa_out *o);

/* The whole as an iovec: returns how many entries were written (<= max), starting at piece *from, which moves on. */
unsigned xa_out_iov(const struct xa_out *o, struct iovec *iov, unsigned max, unsigned *from);
/* Copy the first n bytes out (the replay cache). false when there are fewer. */
bool xa_out_copy(const struct xa_out *o, void *dst, size_t n);
/* Release foreign memory. The arena still holds the chunks. */
void xa_out_fini(struct xa_out *o);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * prims.h - XDR primitives over the streams of stream.h
 *
 * Same meaning as the RPC library's of similar names, with these differences: memory comes from the arena of the stream;
 * decoded opaque data points into the record; no count is believed that the rest of the record could not hold; lists
 * (xa_pointer) have a depth; XDR_FREE does nothing. Decoding fails, as a whole, with false.
 *
 * Source: RFC 4506.
 */
#ifndef VHDNFS_XDR_PRIMS_H
#define VHDNFS_XDR_PRIMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "xdr/ntirpc.h"

#define XA_LIST_MAX 1024 /* elements of a linked list; the server decodes none that long */

/* One word when the fast path of xa_uint32() cannot take it: the next chunk (encoding), or the end (decoding). */
bool xa_word_slow(XDR *x, uint32_t *v);

static inline bool_t xa_uint32(XDR *x, uint32_t *v)
{
	uint32_t w;

	/* A stream without a chunk yet has null pointers: differences of them are 0. */
	if (x->x_op == XDR_DECODE && x->x_v.vio_tail - x->x_data >= (ptrdiff_t)sizeof w) {
		__builtin_memcpy(&w, x->x_data, sizeof w);
		*v = __builtin_bswap32(w);
	} else if (x->x_op == XDR_ENCODE && x->x_v.vio_wrap - x->x_data >= (ptrdiff_t)sizeof w) {
		w = __builtin_bswap32(*v);
		__builtin_memcpy(x->x_data, &w, sizeof w);
	} else {
		return xa_word_slow(x, v);
	}
	x->x_data += sizeof w;
	return true;
}

bool_t xa_int32(XDR *x, int32_t *v);
bool_t xa_int64(XDR *x, int64_t *v);
bool_t xa_uint64(XDR *x, uint64_t *v);
bool_t xa_bool(XDR *x, bool_t *v); /* any non-zero word is refused but 1 */
bool_t xa_enum(XDR *x, enum_t *v);
bool_t xa_opaque(XDR *x, char *p, u_int len);
bool_t xa_bytes(XDR *x, char **p, u_int *len, u_int max);
bool_t xa_string(XDR *x, char **p, u_int max); /* a NUL inside is refused */
bool_t xa_array(XDR *x, char **p, u_int *n, u_int max, u_int size, xdrproc_t elem);
bool_t xa_pointer(XDR *x, char **p, u_int size, xdrproc_t elem);

#endif

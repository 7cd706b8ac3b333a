/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * preload_xdr.c - what a server says of lengths, checked before memory is taken for it
 *
 * libtirpc's xdr_array() allocates, and fills with zeros, what the count says. In this library rpcgen's output calls this one
 * instead (Makefile): an element takes four bytes at least, so a count beyond a quarter of the bytes that are left is a lie.
 */
#include <rpc/rpc.h>

bool_t pre_xdr_array(XDR *x, char **at, u_int *count, u_int max, u_int size, xdrproc_t element);

bool_t pre_xdr_array(XDR *x, char **at, u_int *count, u_int max, u_int size, xdrproc_t element)
{
	/* A handle for freeing has no stream. */
	if (x->x_op == XDR_DECODE) {
		u_int n, pos = xdr_getpos(x), left = (u_int)x->x_handy;

		if (!xdr_u_int(x, &n) || n > left / 4 || !xdr_setpos(x, pos))
			return FALSE;
	}
	return xdr_array(x, at, count, max, size, element);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* prims.c - see prims.h */
#include "xdr/prims.h"

#include <string.h>

#include "xdr/stream.h"
#include "xdr/stream_int.h"

bool xa_word_slow(XDR *x, uint32_t *v)
{
	if (x->x_op == XDR_FREE)
		return true;
	if (x->x_op == XDR_DECODE || !xa_out_more(x->x_private, sizeof *v))
		return false;
	return xa_uint32(x, v);
}

bool_t xa_int32(XDR *x, int32_t *v)
{
	return xa_uint32(x, (uint32_t *)v);
}

bool_t xa_enum(XDR *x, enum_t *v)
{
	return xa_uint32(x, (uint32_t *)v);
}

bool_t xa_uint64(XDR *x, uint64_t *v)
{
	uint32_t hi, lo;

	if (x->x_op == XDR_ENCODE && x->x_v.vio_wrap - x->x_data >= (ptrdiff_t)sizeof *v) {
		const uint64_t w = __builtin_bswap64(*v);

		memcpy(x->x_data, &w, sizeof w);
		x->x_data += sizeof w;
		return true;
	}
	hi = (uint32_t)(*v >> 32);
	lo = (uint32_t)*v;

	if (x->x_op == XDR_DECODE) {
		if (!xa_uint32(x, &hi) || !xa_uint32(x, &lo))
			return false;
		*v = (uint64_t)hi << 32 | lo;
		return true;
	}
	return xa_uint32(x, &hi) && xa_uint32(x, &lo);
}

bool_t xa_int64(XDR *x, int64_t *v)
{
	return xa_uint64(x, (uint64_t *)v);
}

bool_t xa_bool(XDR *x, bool_t *v)
{
	uint32_t w = *v ? 1 : 0;

	if (!xa_uint32(x, &w))
		return false;
	if (x->x_op != XDR_DECODE)
		return true;
	*v = w == 1;
	return w <= 1;
}

/* len bytes and their padding, in or out. */
static bool take(XDR *x, uint32_t len, uint8_t **p)
{
	uint64_t whole = ((uint64_t)len + 3) & ~UINT64_C(3);

	if (whole > xa_in_left(x))
		return false;
	*p = x->x_data;
	x->x_data += whole;
	return true;
}

static bool put(XDR *x, const void *p, uint32_t len)
{
	static const uint8_t zeros[4];
	struct xa_out *o = x->x_private;
	const uint8_t *from = p;
	uint32_t pad = -len & 3;

	if ((uint64_t)len + pad > xa_out_room(o))
		return false;
	while (len) {
		size_t here = (size_t)(x->x_v.vio_wrap - x->x_data);

		if (here == 0) {
			if (!xa_out_more(o, 4))
				return false;
			continue;
		}
		here = here < len ? here : len;
		memcpy(x->x_data, from, here);
		x->x_data += here;
		from += here;
		len -= (uint32_t)here;
	}
	if (pad)
		memcpy(x->x_data, zeros, pad); /* chunks are multiples of 4: there is room */
	x->x_data += pad;
	return true;
}

bool_t xa_opaque(XDR *x, char *p, u_int len)
{
	uint8_t *from;

	if (x->x_op == XDR_ENCODE)
		return put(x, p, len);
	if (x->x_op == XDR_FREE)
		return true;
	if (!take(x, len, &from))
		return false;
	memcpy(p, from, len);
	return true;
}

bool_t xa_bytes(XDR *x, char **p, u_int *len, u_int max)
{
	uint8_t *from;

	if (x->x_op == XDR_FREE)
		return true;
	if ((x->x_op == XDR_ENCODE && *len > max) || !xa_uint32(x, len))
		return false;
	if (x->x_op == XDR_ENCODE)
		return put(x, *p, *len);
	if (*len > max || !take(x, *len, &from))
		return false;
	*p = (char *)from;
	return true;
}

bool_t xa_string(XDR *x, char **p, u_int max)
{
	uint32_t len = 0;
	uint8_t *from;

	if (x->x_op == XDR_FREE)
		return true;
	if (x->x_op == XDR_ENCODE) {
		size_t n = *p ? strlen(*p) : 0;

		len = (uint32_t)n;
		return n <= max && xa_uint32(x, &len) && put(x, *p, len);
	}
	if (!xa_uint32(x, &len) || len > max || !take(x, len, &from) || memchr(from, 0, len))
		return false;
	/* C wants a NUL behind it, where the record has padding or the next word: so this one is copied. */
	*p = arena_alloc(x->x_public, (size_t)len + 1);
	if (!*p)
		return false;
	memcpy(*p, from, len);
	(*p)[len] = '\0';
	return true;
}

bool_t xa_array(XDR *x, char **p, u_int *n, u_int max, u_int size, xdrproc_t elem)
{
	if (x->x_op == XDR_FREE)
		return true;
	if ((x->x_op == XDR_ENCODE && *n > max) || !xa_uint32(x, n))
		return false;
	if (x->x_op == XDR_DECODE) {
		/* Every element takes at least one word. */
		if (*n > max || *n > xa_in_left(x) / 4)
			return false;
		*p = arena_array(x->x_public, *n, size);
		if (!*p)
			return false;
		memset(*p, 0, (size_t)*n * size);
	}
	for (u_int i = 0; i < *n; i++)
		if (!elem(x, *p + (size_t)i * size))
			return false;
	return true;
}

/* Lists recurse through rpcgen's routines: count how deep, in a field that nobody else uses on our streams. */
bool_t xa_pointer(XDR *x, char **p, u_int size, xdrproc_t elem)
{
	bool_t more = *p != NULL;
	bool ok;

	if (x->x_op == XDR_FREE)
		return true;
	if (!xa_bool(x, &more))
		return false;
	if (!more) {
		*p = NULL;
		return true;
	}
	if (x->x_op == XDR_DECODE) {
		*p = arena_zalloc(x->x_public, size);
		if (!*p)
			return false;
	}
	if (x->x_handy >= XA_LIST_MAX)
		return false;
	x->x_handy++;
	ok = elem(x, *p);
	x->x_handy--;
	return ok;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * stream.c - see stream.h
 *
 * In the library's XDR handle, x_data is the current position, vio_head the start and vio_tail the end of what can be read,
 * vio_wrap the end of what can be written; x_public is the arena, x_private the struct xa_out.
 */
#include "xdr/stream.h"

#include <string.h>

#include "xdr/prims.h"
#include "xdr/stream_int.h"

#define CHUNK_FIRST 1024u /* most replies are smaller */
#define CHUNK_NEXT 16384u

/* Where an output without an open chunk stands: a place without room that one can add to. */
static uint8_t full[4];

/* ---- input ---------------------------------------------------------------------------------------------------------- */

void xa_in_init(XDR *x, struct arena *a, const void *buf, size_t len)
{
	memset(x, 0, sizeof *x);
	x->x_op = XDR_DECODE;
	x->x_public = a;
	x->x_data = (uint8_t *)(uintptr_t)buf;
	x->x_v.vio_base = x->x_v.vio_head = x->x_data;
	x->x_v.vio_tail = x->x_data + len;
}

size_t xa_in_pos(const XDR *x)
{
	return (size_t)(x->x_data - x->x_v.vio_head);
}

size_t xa_in_left(const XDR *x)
{
	return (size_t)(x->x_v.vio_tail - x->x_data);
}

void xa_in_seek(XDR *x, size_t pos)
{
	x->x_data = x->x_v.vio_head + pos;
}

/* ---- output --------------------------------------------------------------------------------------------------------- */

void xa_out_init(struct xa_out *o, struct arena *a, size_t limit)
{
	memset(o, 0, sizeof *o);
	o->x.x_op = XDR_ENCODE;
	o->x.x_public = a;
	o->x.x_private = o;
	o->x.x_data = o->x.x_v.vio_wrap = full;
	o->arena = a;
	o->limit = limit;
}

static size_t open_len(const struct xa_out *o)
{
	return o->last && !o->last->release_set ? (size_t)(o->x.x_data - o->last->base) : 0;
}

size_t xa_out_len(const struct xa_out *o)
{
	return o->len + open_len(o);
}

size_t xa_out_room(const struct xa_out *o)
{
	size_t len = xa_out_len(o);

	return len < o->limit ? o->limit - len : 0;
}

/* Up to where the open chunk may be filled: what it holds, and what the limit leaves. */
static uint8_t *wrap_of(const struct xa_out *o, const struct xa_chunk *c)
{
	size_t room = o->limit > o->len ? o->limit - o->len : 0;
	uint8_t *end = c->base + ((c->cap < room ? c->cap : room) & ~(size_t)3);

	return end > o->x.x_data ? end : o->x.x_data;
}

void xa_out_set_limit(struct xa_out *o, size_t limit)
{
	o->limit = limit;
	if (o->last && !o->last->closed)
		o->x.x_v.vio_wrap = wrap_of(o, o->last);
}

/* The chunk that is being filled becomes a finished piece. */
static void finish(struct xa_out *o)
{
	if (o->last && !o->last->closed) {
		o->last->len = (size_t)(o->x.x_data - o->last->base);
		o->last->closed = true;
		o->len += o->last->len;
	}
	o->x.x_data = o->x.x_v.vio_wrap = full;
}

static void append(struct xa_out *o, struct xa_chunk *c)
{
	c->next = NULL;
	if (o->last)
		o->last->next = c;
	else
		o->first = c;
	o->last = c;
	o->pieces++;
}

/* Start a chunk with room for at least @need bytes, within the limit. */
bool xa_out_more(struct xa_out *o, size_t need)
{
	size_t room = xa_out_room(o), size = o->first ? CHUNK_NEXT : CHUNK_FIRST;
	struct xa_chunk *c;

	if (need > room)
		return false;
	size = size < need ? need : size;
	size = size < room ? size : room;
	c = arena_alloc(o->arena, sizeof *c + size);
	if (!c)
		return false;
	finish(o);
	*c = (struct xa_chunk){.base = (uint8_t *)(c + 1), .cap = size};
	append(o, c);
	o->x.x_data = c->base;
	o->x.x_v.vio_wrap = c->base + (size & ~(size_t)3);
	return true;
}

void *xa_out_reserve(struct xa_out *o, size_t n)
{
	void *p;

	if ((size_t)(o->x.x_v.vio_wrap - o->x.x_data) < n && !xa_out_more(o, n))
		return NULL;
	p = o->x.x_data;
	o->x.x_data += n;
	return p;
}

struct xa_mark xa_out_mark(const struct xa_out *o)
{
	bool open = o->last && !o->last->closed;

	return (struct xa_mark){
		.chunk = o->last,
		.chunk_len = open      ? open_len(o)
			     : o->last ? o->last->len
				       : 0,
		.len = o->len - (o->last && o->last->closed ? o->last->len : 0),
		.pieces = o->pieces,
	};
}

static void release(struct xa_chunk *c)
{
	if (c->release) {
		xa_release_fn *fn = c->release;

		c->release = NULL;
		fn(c->arg);
	}
}

void xa_out_cut(struct xa_out *o, struct xa_mark m)
{
	struct xa_chunk *c = m.chunk ? m.chunk->next : o->first;

	for (; c; c = c->next)
		release(c);
	o->last = m.chunk;
	o->pieces = m.pieces;
	o->len = m.len;
	o->x.x_data = o->x.x_v.vio_wrap = full;
	if (!m.chunk) {
		o->first = NULL;
		return;
	}
	c = m.chunk;
	c->next = NULL;
	if (c->release_set) {
		o->len += c->len;
		return;
	}
	c->closed = false;
	o->x.x_data = c->base + m.chunk_len;
	o->x.x_v.vio_wrap = wrap_of(o, c);
}

bool xa_out_link(struct xa_out *o, const void *base, size_t len, xa_release_fn *fn, void *arg)
{
	struct xa_chunk *c;

	if (len > xa_out_room(o))
		return false;
	c = arena_alloc(o->arena, sizeof *c);
	if (!c)
		return false;
	finish(o);
	*c = (struct xa_chunk){
		.base = (uint8_t *)(uintptr_t)base,
		.len = len,
		.closed = true,
		.release_set = true,
		.release = fn,
		.arg = arg,
	};
	append(o, c);
	o->len += len;
	return true;
}

bool xa_out_pad(struct xa_out *o, size_t opaque_len)
{
	static const uint8_t zeros[4];
	size_t pad = -opaque_len & 3;

	return pad == 0 || xa_out_link(o, zeros, pad, NULL, NULL);
}

void *xa_out_first(const struct xa_out *o)
{
	return o->first ? o->first->base : NULL;
}

unsigned xa_out_iov(const struct xa_out *o, struct iovec *iov, unsigned max, unsigned *from)
{
	const struct xa_chunk *c = o->first;
	unsigned n = 0, i = 0;

	for (; c && i < *from; i++)
		c = c->next;
	for (; c && n < max; c = c->next, i++) {
		size_t len = c->closed ? c->len : open_len(o);

		if (len)
			iov[n++] = (struct iovec){.iov_base = c->base, .iov_len = len};
	}
	*from = i;
	return n;
}

bool xa_out_copy(const struct xa_out *o, void *dst, size_t n)
{
	uint8_t *to = dst;

	for (const struct xa_chunk *c = o->first; c && n; c = c->next) {
		size_t len = c->closed ? c->len : open_len(o);

		len = len < n ? len : n;
		memcpy(to, c->base, len);
		to += len;
		n -= len;
	}
	return n == 0;
}

void xa_out_fini(struct xa_out *o)
{
	for (struct xa_chunk *c = o->first; c; c = c->next)
		release(c);
	o->first = o->last = NULL;
}

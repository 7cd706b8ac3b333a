/* SPDX-License-Identifier: BSD-3-Clause */
/* arena.c - see arena.h */
#include "xdr/arena.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_MIN 8192u
#define ALIGN 16u

struct arena_chunk {
	struct arena_chunk *older;
	size_t size, fill; /* of data[] */
	_Alignas(ALIGN) unsigned char data[];
};

void arena_init(struct arena *a, size_t limit)
{
	a->chunk = NULL;
	a->used = 0;
	a->limit = limit;
}

static bool grow(struct arena *a, size_t need)
{
	size_t size = need > CHUNK_MIN - sizeof(struct arena_chunk) ? need : CHUNK_MIN - sizeof(struct arena_chunk);
	struct arena_chunk *c = malloc(sizeof *c + size);

	if (!c)
		return false;
	c->older = a->chunk;
	c->size = size;
	c->fill = 0;
	a->chunk = c;
	return true;
}

void *arena_alloc(struct arena *a, size_t n)
{
	struct arena_chunk *c = a->chunk;
	void *p;

	if (n > a->limit)
		return NULL;
	n = (n + ALIGN - 1) & ~(size_t)(ALIGN - 1);
	if (n > a->limit - a->used)
		return NULL;
	if (!c || n > c->size - c->fill) {
		if (!grow(a, n))
			return NULL;
		c = a->chunk;
	}
	p = c->data + c->fill;
	c->fill += n;
	a->used += n;
	return p;
}

void *arena_zalloc(struct arena *a, size_t n)
{
	void *p = arena_alloc(a, n);

	return p ? memset(p, 0, n) : NULL;
}

void *arena_array(struct arena *a, size_t n, size_t size)
{
	size_t bytes;

	if (__builtin_mul_overflow(n, size, &bytes))
		return NULL;
	return arena_alloc(a, bytes);
}

void arena_reset(struct arena *a)
{
	struct arena_chunk *c = a->chunk, *older;

	a->used = 0;
	if (!c)
		return;
	/* The oldest is of the usual size more often than not: keep that one. */
	while ((older = c->older)) {
		free(c);
		c = older;
	}
	c->fill = 0;
	a->chunk = c;
	if (c->size > CHUNK_MIN)
		arena_fini(a);
}

void arena_fini(struct arena *a)
{
	while (a->chunk) {
		struct arena_chunk *older = a->chunk->older;

		free(a->chunk);
		a->chunk = older;
	}
	a->used = 0;
}

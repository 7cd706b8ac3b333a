/* SPDX-License-Identifier: BSD-3-Clause */
/* siphash.c - see siphash.h */
#include "vhd/base/siphash.h"

#include <string.h>

#include "vhd/base/endian.h"

struct state {
	uint64_t v0, v1, v2, v3;
};

static uint64_t rotate(uint64_t x, unsigned by)
{
	return x << by | x >> (64 - by);
}

static void rounds(struct state *s, unsigned n)
{
	while (n--) {
		s->v0 += s->v1;
		s->v1 = rotate(s->v1, 13) ^ s->v0;
		s->v0 = rotate(s->v0, 32);
		s->v2 += s->v3;
		s->v3 = rotate(s->v3, 16) ^ s->v2;
		s->v0 += s->v3;
		s->v3 = rotate(s->v3, 21) ^ s->v0;
		s->v2 += s->v1;
		s->v1 = rotate(s->v1, 17) ^ s->v2;
		s->v2 = rotate(s->v2, 32);
	}
}

static uint64_t word(const uint8_t *p)
{
	le64 w;

	memcpy(&w, p, sizeof w);
	return le64_get(w);
}

static void take(struct state *s, uint64_t m)
{
	s->v3 ^= m;
	rounds(s, 2);
	s->v0 ^= m;
}

uint64_t siphash(const uint8_t *key, const void *p, size_t len)
{
	const uint64_t k0 = word(key), k1 = word(key + 8);
	struct state s = {
		k0 ^ UINT64_C(0x736f6d6570736575),
		k1 ^ UINT64_C(0x646f72616e646f6d),
		k0 ^ UINT64_C(0x6c7967656e657261),
		k1 ^ UINT64_C(0x7465646279746573),
	};
	const uint8_t *at = p;
	uint8_t last[8] = {0};
	size_t left = len;

	for (; left >= 8; left -= 8, at += 8)
		take(&s, word(at));
	if (left)
		memcpy(last, at, left);
	last[7] = (uint8_t)len;
	take(&s, word(last));
	s.v2 ^= 0xff;
	rounds(&s, 4);
	return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

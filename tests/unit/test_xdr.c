/* SPDX-License-Identifier: BSD-3-Clause */
/* test_xdr.c - every type of the wire there and back; counts that lie; streams that are cut, linked and limited */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "xdr/prims.h"
#include "xdr/stream.h"
#include "xdr/xdr.h"

#define BYTES 1024u
#define TRIES 3000

typedef bool_t wire_fn(XDR *, void *);

static const struct {
	const char *name;
	wire_fn *routine;
	size_t size;
} types[] = {
#define X(routine, type) {#type, (wire_fn *)(void (*)(void))xdr_##routine, sizeof(type)},
#include "xdr/types.h"
#undef X
};
#define NTYPES ((int)(sizeof types / sizeof types[0]))

static uint32_t seed;

static uint32_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 17;
	return seed ^= seed << 5;
}

/* Words that look like a message: mostly small numbers, as counts, choices and booleans are. */
static void words(uint8_t *p, size_t n)
{
	uint32_t top = rnd() % 8 == 0 ? 80 : 1 + rnd() % 4;

	for (size_t i = 0; i + 4 <= n; i += 4) {
		uint32_t v = rnd() % 64 ? rnd() % top : rnd();

		v = __builtin_bswap32(i == 0 ? rnd() % 96 : v);
		memcpy(p + i, &v, 4);
	}
}

static bool decode(int t, struct arena *a, const void *p, size_t n, void *v, size_t *used)
{
	XDR x;
	bool ok;

	memset(v, 0, types[t].size);
	xa_in_init(&x, a, p, n);
	ok = types[t].routine(&x, v);
	ck_assert_uint_le(xa_in_pos(&x), n);
	*used = xa_in_pos(&x);
	return ok;
}

static size_t encode(int t, struct arena *a, void *v, uint8_t *to)
{
	struct xa_out o;
	size_t n;

	xa_out_init(&o, a, 2 * BYTES);
	ck_assert_msg(types[t].routine(&o.x, v), "%s does not encode", types[t].name);
	n = xa_out_len(&o);
	ck_assert_uint_le(n, 2 * BYTES);
	ck_assert(xa_out_copy(&o, to, n));
	xa_out_fini(&o);
	return n;
}

/* RFC 4506: what was decoded encodes to as many bytes, and that decodes to what encodes the same. */
START_TEST(every_type_comes_back_as_it_went)
{
	uint8_t *in = malloc(BYTES), one[2 * BYTES], two[2 * BYTES];
	void *v = malloc(types[_i].size);
	int good = 0;

	seed = 2463534242u + (uint32_t)_i;
	for (int i = 0; i < TRIES && good < 16; i++) {
		struct arena a;
		size_t used, n, again;

		arena_init(&a, 1 << 20);
		words(in, BYTES);
		if (decode(_i, &a, in, BYTES, v, &used)) {
			n = encode(_i, &a, v, one);
			ck_assert_msg(n == used, "%s: %zu bytes in, %zu out", types[_i].name, used, n);
			ck_assert(decode(_i, &a, one, n, v, &again));
			ck_assert_uint_eq(again, n);
			ck_assert_uint_eq(encode(_i, &a, v, two), n);
			ck_assert_mem_eq(one, two, n);
			/* Nothing is read behind the end: one word less does not decode. */
			if (n)
				ck_assert_msg(!decode(_i, &a, one, n - 4, v, &again), "%s needs no end",
					      types[_i].name);
			good++;
		}
		arena_fini(&a);
	}
	free(v);
	free(in);
	ck_assert_msg(good, "%s never decoded", types[_i].name);
}
END_TEST

/* Counts that the record cannot hold are refused before memory is taken. */
START_TEST(counts_that_lie_take_no_memory)
{
	static const uint32_t lies[] = {0xffffffffu, 0x80000000u, 0x7fffffffu, 0x40000000u, 0x10000u};
	uint8_t rec[16] = {0};
	uint32_t v = __builtin_bswap32(lies[_i]);
	struct arena a;
	bitmap4 b;
	XDR x;
	char *p = NULL;
	u_int n = 0;

	memcpy(rec, &v, 4);
	arena_init(&a, 1 << 30);
	xa_in_init(&x, &a, rec, sizeof rec);
	memset(&b, 0, sizeof b);
	ck_assert(!xdr_bitmap4(&x, &b));
	xa_in_init(&x, &a, rec, sizeof rec);
	ck_assert(!xa_bytes(&x, &p, &n, ~0u));
	xa_in_init(&x, &a, rec, sizeof rec);
	ck_assert(!xa_string(&x, &p, ~0u));
	ck_assert_uint_eq(a.used, 0);
	arena_fini(&a);
}
END_TEST

/* prims.h: lists have a depth, whatever the record holds. */
START_TEST(a_long_list_does_not_exhaust_the_stack)
{
	/* cookie, name of no bytes, no attributes, and another one follows */
	static const uint32_t entry[] = {0, 0, 0, 0, 0, 1};
	size_t n = 100000 * sizeof entry;
	uint8_t *rec = malloc(n);
	struct arena a;
	entry4 e;
	XDR x;

	for (size_t i = 0; i < n; i += 4) {
		uint32_t v = __builtin_bswap32(entry[i / 4 % 6]);

		memcpy(rec + i, &v, 4);
	}
	memset(&e, 0, sizeof e);
	arena_init(&a, 64 << 20);
	xa_in_init(&x, &a, rec, n);
	ck_assert(!xdr_entry4(&x, &e));
	ck_assert_uint_le(a.used, XA_LIST_MAX * (sizeof e + 64));
	arena_fini(&a);
	free(rec);
}
END_TEST

static int released;

static void count_release(void *arg)
{
	(void)arg;
	released++;
}

/* stream.h: cutting gives back what was linked in after the mark, once. */
START_TEST(cutting_releases_what_was_linked_after_the_mark)
{
	static const uint8_t data[100] = {1, 2, 3};
	uint8_t all[256];
	struct arena a;
	struct xa_out o;
	struct xa_mark m;
	uint32_t w = 0x01020304;

	released = 0;
	arena_init(&a, 1 << 20);
	xa_out_init(&o, &a, 200);
	ck_assert(xa_uint32(&o.x, &w));
	ck_assert(xa_out_link(&o, data, 3, count_release, NULL));
	ck_assert(xa_out_pad(&o, 3));
	m = xa_out_mark(&o);
	ck_assert(xa_out_link(&o, data, sizeof data, count_release, NULL));
	ck_assert(!xa_out_link(&o, data, sizeof data, count_release, NULL)); /* past the limit */
	ck_assert_uint_eq(xa_out_len(&o), 108);
	xa_out_cut(&o, m);
	ck_assert_int_eq(released, 1);
	ck_assert(xa_uint32(&o.x, &w));
	ck_assert_uint_eq(xa_out_len(&o), 12);
	ck_assert(xa_out_copy(&o, all, 12));
	ck_assert_mem_eq(all, "\1\2\3\4\1\2\3\0\1\2\3\4", 12);
	xa_out_fini(&o);
	xa_out_fini(&o);
	ck_assert_int_eq(released, 2);
	arena_fini(&a);
}
END_TEST

START_TEST(output_stops_at_its_limit)
{
	struct arena a;
	struct xa_out o;
	uint32_t w = 7;
	int n = 0;

	arena_init(&a, 1 << 20);
	xa_out_init(&o, &a, 40002);
	while (xa_uint32(&o.x, &w))
		n++;
	ck_assert_int_eq(n, 10000);
	ck_assert_uint_eq(xa_out_len(&o), 40000);
	xa_out_fini(&o);
	arena_fini(&a);
}
END_TEST

START_TEST(an_arena_keeps_to_its_limit)
{
	struct arena a;
	size_t n = 0;

	arena_init(&a, 100000);
	while (arena_alloc(&a, 100))
		n += 100;
	ck_assert_uint_le(n, 100000);
	ck_assert_ptr_null(arena_array(&a, SIZE_MAX / 2, 4));
	ck_assert_ptr_null(arena_alloc(&a, SIZE_MAX));
	arena_reset(&a);
	ck_assert_ptr_nonnull(arena_alloc(&a, 100000 & ~15));
	arena_fini(&a);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("xdr");
	TCase *t = tcase_create("xdr");
	SRunner *r;
	int failed;

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, every_type_comes_back_as_it_went, 0, NTYPES);
	tcase_add_loop_test(t, counts_that_lie_take_no_memory, 0, 5);
	tcase_add_test(t, a_long_list_does_not_exhaust_the_stack);
	tcase_add_test(t, cutting_releases_what_was_linked_after_the_mark);
	tcase_add_test(t, output_stops_at_its_limit);
	tcase_add_test(t, an_arena_keeps_to_its_limit);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* test_u64map.c - numbers to numbers, beside a plain array */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "vhd/base/u64map.h"

enum { KEYS = 3000 };

static uint32_t rnd(uint32_t n)
{
	static uint64_t state = 7;

	state = state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(state >> 33) % n;
}

/* Far apart and close together: some probe the same slots. */
static uint64_t key_of(uint32_t i)
{
	return i % 3 ? i : (uint64_t)i << 40 | i;
}

/* One assertion for all keys: Check writes a line for each, which a sanitizer makes dear. */
static void check_all(const struct u64map *m, const uint64_t *want)
{
	uint32_t n = 0, differ = 0;

	for (uint32_t i = 0; i < KEYS; i++) {
		uint64_t *got = u64map_get(m, key_of(i));

		differ += (got ? *got : 0) != want[i];
		n += want[i] != 0;
	}
	ck_assert_uint_eq(differ, 0);
	ck_assert_uint_eq(m->n, n);
}

START_TEST(it_holds_what_was_put_and_not_deleted)
{
	struct u64map m = {.slot = NULL};
	uint64_t want[KEYS] = {0};

	for (uint32_t step = 0; step < 100000; step++) {
		uint32_t i = rnd(KEYS);

		if (rnd(5) < 3) {
			want[i] = step + 1;
			ck_assert_int_eq(u64map_put(&m, key_of(i), step + 1), 0);
		} else {
			ck_assert_int_eq(u64map_del(&m, key_of(i)), want[i] != 0);
			want[i] = 0;
		}
	}
	check_all(&m, want);
	u64map_clear(&m);
	memset(want, 0, sizeof want);
	check_all(&m, want);
	u64map_free(&m);
}
END_TEST

START_TEST(a_map_is_cleared_key_by_key_or_whole)
{
	struct u64map m = {.slot = NULL};
	uint64_t keys[KEYS], want[KEYS] = {0};

	ck_assert_int_eq(u64map_reserve(&m, KEYS), 0);
	for (uint32_t round = 0; round < 300; round++) {
		/* Few are deleted one by one, many all together. */
		uint32_t n = round % 3 ? rnd(40) : rnd(KEYS), first = rnd(KEYS - n);

		for (uint32_t i = 0; i < n; i++) {
			keys[i] = key_of(first + i);
			want[first + i] = i + 1;
			ck_assert_int_eq(u64map_put(&m, keys[i], i + 1), 0);
		}
		check_all(&m, want);
		u64map_clear_keys(&m, keys, n);
		memset(want, 0, sizeof want);
		check_all(&m, want);
	}
	u64map_free(&m);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("u64map");
	TCase *t = tcase_create("map");
	SRunner *r;
	int failed;

	tcase_add_test(t, it_holds_what_was_put_and_not_deleted);
	tcase_add_test(t, a_map_is_cleared_key_by_key_or_whole);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

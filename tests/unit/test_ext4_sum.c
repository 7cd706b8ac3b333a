/* SPDX-License-Identifier: BSD-3-Clause */
/* test_ext4_sum.c - the journal's checksum, however it is computed, is CRC32 */
#include <check.h>
#include <stdlib.h>

#include "vhd/ext4/journal.h"

START_TEST(any_length_any_content_any_seed)
{
	static uint8_t b[70000];
	unsigned seed = 3;

	for (unsigned n = 0; n < 3000; n++) {
		size_t at = (size_t)rand_r(&seed) % 64, len = (size_t)rand_r(&seed) % (n % 10 ? 600 : 65536);
		uint32_t first = (uint32_t)rand_r(&seed) * 7u;

		if (n % 2)
			len &= ~(size_t)63;
		for (size_t i = 0; i < len; i += 1 + (size_t)rand_r(&seed) % 8)
			b[at + i] = (uint8_t)rand_r(&seed);
		ck_assert_uint_eq(ext4_journal_sum(first, b + at, len), ext2fs_crc32_be(first, b + at, len));
	}
}
END_TEST

START_TEST(the_known_answer)
{
	uint8_t b[64] = "123456789";

	ck_assert_uint_eq(~ext4_journal_sum(~0u, b, 9), 0xfc891918u);
	/* In pieces it is the same. */
	ck_assert_uint_eq(ext4_journal_sum(ext4_journal_sum(~0u, b, 64), b, 64),
			  ext2fs_crc32_be(ext2fs_crc32_be(~0u, b, 64), b, 64));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("journal sum");
	TCase *t = tcase_create("crc32");
	SRunner *r;
	int failed;

	tcase_add_test(t, any_length_any_content_any_seed);
	tcase_add_test(t, the_known_answer);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}

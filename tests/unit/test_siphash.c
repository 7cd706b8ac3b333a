/* SPDX-License-Identifier: BSD-3-Clause */
/* test_siphash.c - the hash is the one that others compute */
#include <check.h>
#include <stdlib.h>

#include "vhd/base/siphash.h"

/* The example of the paper, Appendix A: key 00 … 0f, message 00 … 0e; and, computed elsewhere, shorter and longer ones. */
START_TEST(hashes_are_those_of_the_paper)
{
	static const struct {
		size_t len;
		uint64_t hash;
	} known[] = {
		{0, 0x726fdb47dd0e0e31}, {1, 0x74f839c593dc67fd},  {7, 0xab0200f58b01d137},
		{8, 0x93f5f5799a932462}, {15, 0xa129ca6149be45e5}, {63, 0x958a324ceb064572},
	};
	uint8_t key[SIPHASH_KEY_BYTES], message[64];

	for (unsigned i = 0; i < sizeof message; i++)
		message[i] = (uint8_t)i;
	for (unsigned i = 0; i < sizeof key; i++)
		key[i] = (uint8_t)i;
	for (unsigned i = 0; i < sizeof known / sizeof known[0]; i++)
		ck_assert_uint_eq(siphash(key, message, known[i].len), known[i].hash);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("siphash");
	TCase *t = tcase_create("siphash");
	SRunner *r;
	int failed;

	tcase_add_test(t, hashes_are_those_of_the_paper);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * words.h - advice as people write it: "sequential,noreuse"
 *
 * Words with commas between them: at most one of sequential, backwards and random, and noreuse; or normal, which stands alone and
 * means none.
 */
#ifndef VHDNFS_ADVISE_WORDS_H
#define VHDNFS_ADVISE_WORDS_H

#include <stddef.h>
#include <stdint.h>

#include "vhd/base/why.h"

/* Files with such names are used so. */
struct adv_rule {
	char *match; /* fnmatch(3), of the last part of a path */
	uint32_t hints;
};

#define ADV_WORDS_MAX 40u /* bytes of the longest advice, with the NUL */

/* The hints that @len bytes at @text ask for, ADV_* of stream.h; ADV_NORMAL stands for none of them. -EINVAL with a line. */
int adv_parse(const char *text, size_t len, uint32_t *hints, struct why *why);
/* What is wrong with hints that were said together; NULL: nothing. */
const char *adv_clash(uint32_t hints);
/* The other way round, in the usual order and each word once; empty for none. */
void adv_print(uint32_t hints, char out[ADV_WORDS_MAX]);

#endif

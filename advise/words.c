/* SPDX-License-Identifier: BSD-3-Clause */
/* words.c - see words.h */
#include "advise/words.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "advise/stream.h"
#include "vhd/base/cleanup.h"

#define ONE_OF (ADV_SEQUENTIAL | ADV_BACKWARDS | ADV_RANDOM)

static const struct {
	const char *word;
	uint32_t hint;
} words[] = {
	{"normal", ADV_NORMAL}, {"sequential", ADV_SEQUENTIAL}, {"backwards", ADV_BACKWARDS},
	{"random", ADV_RANDOM}, {"noreuse", ADV_NOREUSE},
};

static uint32_t hint_of(const char *word, size_t len)
{
	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (strlen(words[i].word) == len && memcmp(words[i].word, word, len) == 0)
			return words[i].hint;
	return 0;
}

const char *adv_clash(uint32_t hints)
{
	uint32_t one = hints & ONE_OF;

	if (hints & ADV_NORMAL && hints != ADV_NORMAL)
		return "normal excludes the others";
	return one & (one - 1) ? "sequential, backwards and random exclude each other" : NULL;
}

int adv_parse(const char *text, size_t len, uint32_t *hints, struct why *why)
{
	const char *clash;
	uint32_t all = 0;

	for (size_t at = 0;;) {
		const char *comma = memchr(text + at, ',', len - at);
		size_t n = (comma ? (size_t)(comma - text) : len) - at;
		uint32_t hint = hint_of(text + at, n);

		if (!hint)
			return why_set(why, -EINVAL,
				       "advice \"%.*s\": expected sequential, backwards, random, noreuse or normal",
				       n > 40 ? 40 : (int)n, text + at);
		all |= hint;
		at += n;
		if (at == len)
			break;
		at++;
	}
	if ((clash = adv_clash(all)))
		return why_set(why, -EINVAL, "advice \"%.*s\": %s", len > 60 ? 60 : (int)len, text, clash);
	*hints = all;
	return 0;
}

void adv_print(uint32_t hints, char out[ADV_WORDS_MAX])
{
	out[0] = '\0';
	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (words[i].hint != ADV_NORMAL && hints & words[i].hint) {
			if (*out)
				strcat(out, ",");
			strcat(out, words[i].word);
		}
}

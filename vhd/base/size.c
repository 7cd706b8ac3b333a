/* SPDX-License-Identifier: BSD-3-Clause */
/* size.c - see size.h */
#include "vhd/base/size.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "vhd/base/checked.h"

static const char units[] = "KMGTPE";

int size_parse(const char *text, uint64_t *bytes)
{
	unsigned long long v;
	unsigned shift = 0;
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	v = strtoull(text, &end, 10);
	if (errno)
		return -ERANGE;
	if (*end) {
		const char *u = strchr(units, toupper((unsigned char)*end));

		if (!u || (end[1] && strcasecmp(end + 1, "iB") != 0 && strcasecmp(end + 1, "B") != 0))
			return -EINVAL;
		shift = (unsigned)(u - units + 1) * 10;
	}
	if (shift && v >> (64 - shift))
		return -ERANGE;
	*bytes = (uint64_t)v << shift;
	return 0;
}

bool number_parse(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
	uint64_t v = 0;

	if (!*text)
		return false;
	for (; *text; text++)
		if (!isdigit((unsigned char)*text) || !mul_ok(v, UINT64_C(10), &v) ||
		    !add_ok(v, (uint64_t)(*text - '0'), &v))
			return false;
	if (v < min || v > max)
		return false;
	*out = v;
	return true;
}

const char *size_text(uint64_t bytes, char buf[SIZE_TEXT])
{
	unsigned u = 0;
	uint64_t whole = bytes, tenth = 0;

	while (whole >= 1024 && u < sizeof units - 1) {
		tenth = whole % 1024 * 10 / 1024;
		whole /= 1024;
		u++;
	}
	if (!u)
		snprintf(buf, SIZE_TEXT, "%llu B", (unsigned long long)bytes);
	else if (tenth && whole < 100)
		snprintf(buf, SIZE_TEXT, "%llu.%llu %ciB", (unsigned long long)whole, (unsigned long long)tenth,
			 units[u - 1]);
	else
		snprintf(buf, SIZE_TEXT, "%llu %ciB", (unsigned long long)whole, units[u - 1]);
	return buf;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* json.c - see json.h */
#include "server/json.h"

#include <stdlib.h>
#include <string.h>

json_t *json_text(const char *text)
{
	json_t *o = json_string(text);
	char *copy;

	if (o)
		return o;
	copy = strdup(text);
	for (char *p = copy; p && *p; p++)
		if (*p & 0x80)
			*p = '?';
	o = copy ? json_string(copy) : NULL;
	free(copy);
	return o;
}

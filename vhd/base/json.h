/* SPDX-License-Identifier: BSD-3-Clause */
/* json.h - what several makers of JSON need */
#ifndef VHDNFS_BASE_JSON_H
#define VHDNFS_BASE_JSON_H

#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* A name, a path, or a line with one in it: of what is not UTF-8, or was cut in the middle of a character, each byte that is not ASCII
 * becomes a '?'. NULL: no memory. */
static inline json_t *json_textn(const char *text, size_t len)
{
	json_t *j = json_stringn(text, len);
	char *copy = j ? NULL : strndup(text, len);

	for (char *p = copy; p && *p; p++)
		if (*p & 0x80)
			*p = '?';
	j = copy ? json_string(copy) : j;
	free(copy);
	return j;
}

static inline json_t *json_text(const char *text)
{
	return json_textn(text, strlen(text));
}

static inline void json_put(json_t *o, const char *name, uint64_t v)
{
	json_object_set_new(o, name, json_integer((json_int_t)v));
}

#endif

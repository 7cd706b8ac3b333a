/* SPDX-License-Identifier: BSD-3-Clause */
/* json.h - what several makers of JSON need */
#ifndef VHDNFS_SERVER_JSON_H
#define VHDNFS_SERVER_JSON_H

#include <jansson.h>
#include <stdint.h>

/* A path, or a line with one in it: what is not UTF-8, or was cut in the middle of a character, has '?' for its bytes. NULL: no memory. */
json_t *json_text(const char *text);

static inline void json_put(json_t *o, const char *name, uint64_t v)
{
	json_object_set_new(o, name, json_integer((json_int_t)v));
}

#endif

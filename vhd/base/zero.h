/* SPDX-License-Identifier: BSD-3-Clause */
/* zero.h - is it all zeros? */
#ifndef VHDNFS_BASE_ZERO_H
#define VHDNFS_BASE_ZERO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline bool mem_is_zero(const void *p, size_t n)
{
	const uint8_t *b = p;

	/* Each byte is the one before it, which the library compares many at a time. */
	return !n || (!b[0] && memcmp(b, b + 1, n - 1) == 0);
}

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * checked.h - arithmetic that says when it would wrap
 *
 * Sizes and offsets that come from the wire or from an image go through these before they are used.
 */
#ifndef VHDNFS_BASE_CHECKED_H
#define VHDNFS_BASE_CHECKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* True, and *r set, when the result fits the type of *r. */
#define add_ok(a, b, r) (!__builtin_add_overflow((a), (b), (r)))
#define sub_ok(a, b, r) (!__builtin_sub_overflow((a), (b), (r)))
#define mul_ok(a, b, r) (!__builtin_mul_overflow((a), (b), (r)))

/* Does [off, off + len) lie within [0, size)? Never wraps. */
static inline bool range_ok(uint64_t off, uint64_t len, uint64_t size)
{
	return off <= size && len <= size - off;
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* Rounding to a power of two; round_up must not be given a value within `to` of 2^64. */
static inline uint64_t round_down_u64(uint64_t v, uint64_t to)
{
	return v & ~(to - 1);
}

static inline uint64_t round_up_u64(uint64_t v, uint64_t to)
{
	return (v + to - 1) & ~(to - 1);
}

static inline bool is_pow2_u64(uint64_t v)
{
	return v && !(v & (v - 1));
}

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * siphash.h - SipHash-2-4, a keyed hash of short messages
 *
 * Without the key nobody can find a message's hash, or two messages with the same. Some twenty nanoseconds for a filehandle.
 * Source: Aumasson and Bernstein, "SipHash: a fast short-input PRF".
 */
#ifndef VHDNFS_BASE_SIPHASH_H
#define VHDNFS_BASE_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

#define SIPHASH_KEY_BYTES 16u

/* @key: SIPHASH_KEY_BYTES; @p: @len bytes. */
uint64_t siphash(const uint8_t *key, const void *p, size_t len);

#endif

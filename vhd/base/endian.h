/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * endian.h - numbers as they are on disk and on the wire
 *
 * Bytes on disk have types of their own: a forgotten conversion does not compile. They have no alignment, so packed
 * structures need no attribute.
 */
#ifndef VHDNFS_BASE_ENDIAN_H
#define VHDNFS_BASE_ENDIAN_H

#include <stdint.h>
#include <string.h>

typedef struct {
	uint8_t b[2];
} be16;
typedef struct {
	uint8_t b[4];
} be32;
typedef struct {
	uint8_t b[8];
} be64;
typedef struct {
	uint8_t b[2];
} le16;
typedef struct {
	uint8_t b[4];
} le32;
typedef struct {
	uint8_t b[8];
} le64;

#define ENDIAN_GETPUT(type, native, swap)                                                                              \
	static inline native type##_get(type x)                                                                        \
	{                                                                                                              \
		native v;                                                                                              \
		memcpy(&v, x.b, sizeof v);                                                                             \
		return swap(v);                                                                                        \
	}                                                                                                              \
	static inline type type##_of(native v)                                                                         \
	{                                                                                                              \
		type x;                                                                                                \
		v = swap(v);                                                                                           \
		memcpy(x.b, &v, sizeof v);                                                                             \
		return x;                                                                                              \
	}

#define ENDIAN_SAME(v) (v)
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
ENDIAN_GETPUT(be16, uint16_t, __builtin_bswap16)
ENDIAN_GETPUT(be32, uint32_t, __builtin_bswap32)
ENDIAN_GETPUT(be64, uint64_t, __builtin_bswap64)
ENDIAN_GETPUT(le16, uint16_t, ENDIAN_SAME)
ENDIAN_GETPUT(le32, uint32_t, ENDIAN_SAME)
ENDIAN_GETPUT(le64, uint64_t, ENDIAN_SAME)
#else
ENDIAN_GETPUT(be16, uint16_t, ENDIAN_SAME)
ENDIAN_GETPUT(be32, uint32_t, ENDIAN_SAME)
ENDIAN_GETPUT(be64, uint64_t, ENDIAN_SAME)
ENDIAN_GETPUT(le16, uint16_t, __builtin_bswap16)
ENDIAN_GETPUT(le32, uint32_t, __builtin_bswap32)
ENDIAN_GETPUT(le64, uint64_t, __builtin_bswap64)
#endif

#undef ENDIAN_GETPUT
#undef ENDIAN_SAME

#endif

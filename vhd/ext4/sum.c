/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sum.c - the checksum of a transaction: CRC32 with the bits in their natural order
 *
 * A block of 128 bits is a polynomial, its first byte the highest powers. What stands D bits before the end of the data counts x^D
 * times: of a block (high, low) that is high * x^(D + 64) + low * x^D, and both powers can be taken modulo the polynomial first. So
 * four blocks at a time are folded onto the next four with carry-less multiplications, and what is left, 16 bytes that have the same
 * remainder as all, goes through libext2fs.
 */
#include "vhd/ext4/journal.h"

#include <string.h>

static uint32_t sum_slow(uint32_t sum, const uint8_t *p, size_t len)
{
	/* libext2fs takes 32-bit lengths. */
	for (size_t n; len; p += n, len -= n) {
		n = len < (1u << 20) ? len : 1u << 20;
		sum = ext2fs_crc32_be(sum, p, n);
	}
	return sum;
}

#if defined(__x86_64__)
#include <immintrin.h>

#define POLY UINT64_C(0x104c11db7)
#define STEP 64u

/* x^n modulo the polynomial */
static uint64_t power(unsigned n)
{
	uint64_t r = 1;

	while (n--) {
		r <<= 1;
		if (r >> 32)
			r ^= POLY;
	}
	return r;
}

#define FAST __attribute__((target("pclmul,ssse3")))

static FAST __m128i load(const uint8_t *p)
{
	const __m128i reverse = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);

	return _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)p), reverse);
}

/* @x, moved up by the distance that @k (x^(D + 64), x^D) stands for, onto @onto. */
static FAST __m128i fold(__m128i x, __m128i k, __m128i onto)
{
	return _mm_xor_si128(_mm_xor_si128(_mm_clmulepi64_si128(x, k, 0x11), _mm_clmulepi64_si128(x, k, 0x00)), onto);
}

/* @len: a multiple of STEP, not 0. */
static FAST uint32_t sum_fast(uint32_t sum, const uint8_t *p, size_t len)
{
	const __m128i far = _mm_set_epi64x((int64_t)power(512 + 64), (int64_t)power(512));
	const __m128i near = _mm_set_epi64x((int64_t)power(128 + 64), (int64_t)power(128));
	__m128i x[4];
	uint8_t rest[16];

	for (int i = 0; i < 4; i++)
		x[i] = load(p + 16 * i);
	x[0] = _mm_xor_si128(x[0], _mm_set_epi32((int32_t)sum, 0, 0, 0));
	for (p += STEP, len -= STEP; len; p += STEP, len -= STEP)
		for (int i = 0; i < 4; i++)
			x[i] = fold(x[i], far, load(p + 16 * i));
	for (int i = 0; i < 3; i++)
		x[i + 1] = fold(x[i], near, x[i + 1]);
	_mm_storeu_si128((__m128i *)(void *)rest, x[3]);
	for (int i = 0; i < 8; i++) {
		uint8_t b = rest[i];

		rest[i] = rest[15 - i];
		rest[15 - i] = b;
	}
	return sum_slow(0, rest, sizeof rest);
}

uint32_t ext4_journal_sum(uint32_t sum, const void *p, size_t len)
{
	if (len && len % STEP == 0 && __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("ssse3"))
		return sum_fast(sum, p, len);
	return sum_slow(sum, p, len);
}
#else
uint32_t ext4_journal_sum(uint32_t sum, const void *p, size_t len)
{
	return sum_slow(sum, p, len);
}
#endif

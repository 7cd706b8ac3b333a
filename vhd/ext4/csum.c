/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * csum.c - CRC32C, in place of libext2fs's
 *
 * The library computes a checksum for every metadata block and inode it reads or writes, from tables; that was half of its
 * time. It calls its own exported function through the dynamic linker, so a function of that name in the program is
 * called instead. Where the processor has no instruction for it, a table of ours does.
 */
#include <stdatomic.h>
#include <string.h>

#include "vhd/ext4/ext4_int.h"

static atomic_ulong calls;

#define POLY 0x82f63b78u /* reflected */

static uint32_t crc_table(uint32_t crc, const uint8_t *p, size_t len)
{
	while (len--) {
		crc ^= *p++;
		for (int i = 0; i < 8; i++)
			crc = crc >> 1 ^ (POLY & (0u - (crc & 1)));
	}
	return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc_hw(uint32_t crc, const uint8_t *p, size_t len)
{
	uint64_t c = crc, w;

	for (; len >= 8; len -= 8, p += 8) {
		memcpy(&w, p, 8);
		c = __builtin_ia32_crc32di(c, w);
	}
	for (; len; len--, p++)
		c = __builtin_ia32_crc32qi((uint32_t)c, *p);
	return (uint32_t)c;
}

static uint32_t crc32c(uint32_t crc, const uint8_t *p, size_t len)
{
	return __builtin_cpu_supports("sse4.2") ? crc_hw(crc, p, len) : crc_table(crc, p, len);
}
#else
static uint32_t crc32c(uint32_t crc, const uint8_t *p, size_t len)
{
	return crc_table(crc, p, len);
}
#endif

__u32 ext2fs_crc32c_le(__u32 crc, unsigned char const *p, size_t len)
{
	atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
	return crc32c(crc, p, len);
}

/* The known answer, and: does the library call us? */
bool ext4_csum_works(void)
{
	struct ext2_super_block sb;
	struct struct_ext2_filsys fs;
	unsigned long before = atomic_load(&calls);

	memset(&sb, 0, sizeof sb);
	memset(&fs, 0, sizeof fs);
	fs.super = &sb;
	sb.s_feature_ro_compat = EXT4_FEATURE_RO_COMPAT_METADATA_CSUM;
	ext2fs_superblock_csum_set(&fs, &sb);
	return crc32c(~0u, (const uint8_t *)"123456789", 9) == (uint32_t)~0xe3069283u && atomic_load(&calls) > before;
}

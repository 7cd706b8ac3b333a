/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * jbd2.h - the journal's format on disk
 *
 *     block 0      superblock (its first 1024 bytes)
 *     first … end  a ring of transactions, each:
 *
 *         revoke block *      numbers of blocks whose copies in this and earlier transactions are void
 *         (descriptor block   tags: which block of the file system each of the following is a copy of
 *          copy *) *
 *         commit block        the transaction counts when this is whole
 *
 * All numbers are big-endian. Checksums are CRC32C: of the superblock starting with all ones, of everything else with the
 * checksum of the journal's UUID. A copy that begins with the magic number has zeros there instead and is tagged so.
 *
 * Older, and what we write: the commit block holds one CRC32 (big-endian, of all ones) of the descriptors and copies of its
 * transaction. With ASYNC besides, a commit block whose sum is wrong is none: it came to the disk before its transaction did, and
 * nothing follows. Revoke blocks are not covered.
 */
#ifndef VHDNFS_EXT4_JBD2_H
#define VHDNFS_EXT4_JBD2_H

#include <assert.h>

#include "vhd/base/endian.h"

#define JBD2_MAGIC 0xc03b3998u
#define JBD2_CRC32C 4

enum { JBD2_DESCRIPTOR = 1, JBD2_COMMIT = 2, JBD2_SUPER_V1 = 3, JBD2_SUPER_V2 = 4, JBD2_REVOKE = 5 };

enum { JBD2_C_CHECKSUM = 1 }; /* feature_compat: in commit blocks */
enum { JBD2_CRC32 = 1, JBD2_CRC32_BYTES = 4 };

enum { /* feature_incompat */
       JBD2_F_REVOKE = 1,
       JBD2_F_64BIT = 2,
       JBD2_F_ASYNC = 4,
       JBD2_F_CSUM2 = 8,
       JBD2_F_CSUM3 = 16,
       JBD2_F_FAST = 32,
};

enum { JBD2_T_ESCAPED = 1, JBD2_T_SAME_UUID = 2, JBD2_T_DELETED = 4, JBD2_T_LAST = 8 };

struct jbd2_header {
	be32 magic, type, sequence;
};
static_assert(sizeof(struct jbd2_header) == 12, "on disk");

struct jbd2_super {
	struct jbd2_header h;
	be32 block_size, max_len; /* bytes; blocks, this one included */
	be32 first;               /* of the ring */
	be32 sequence, start;     /* of the oldest transaction; start 0: nothing to replay */
	be32 error;
	/* version 2: */
	be32 compat, incompat, ro_compat;
	uint8_t uuid[16];
	be32 users, dynsuper, max_transaction, max_trans_data;
	uint8_t checksum_type, pad2[3];
	be32 fast_blocks, head; /* blocks at the end that are no part of the ring (fast commits) */
	be32 pad[40];
	be32 checksum;
	uint8_t user_ids[16 * 48];
};
static_assert(sizeof(struct jbd2_super) == 1024, "on disk");

/* With CSUM3. Else: number, checksum (16 bits; with CSUM2), flags (16), high half (with 64BIT). The first tag of a descriptor is
 * followed by a UUID. */
struct jbd2_tag3 {
	be32 block, flags, block_high, checksum;
};
static_assert(sizeof(struct jbd2_tag3) == 16, "on disk");
struct jbd2_tag {
	be32 block;
	be16 checksum, flags;
	be32 block_high;
};
static_assert(sizeof(struct jbd2_tag) == 12, "on disk");

struct jbd2_revoke {
	struct jbd2_header h;
	be32 bytes; /* used, this structure included; numbers of 4 or (64BIT) 8 bytes follow */
};

struct jbd2_commit {
	struct jbd2_header h;
	uint8_t checksum_type, checksum_size, pad[2];
	be32 checksum[8];
	be64 sec;
	be32 nsec;
};
static_assert(sizeof(struct jbd2_commit) == 60, "on disk");

/* How a journal of these features is laid out. */
struct jbd2_format {
	uint32_t block_size;
	uint32_t seed;
	bool wide, csum2, csum3;
	bool sum, async; /* CHECKSUM, ASYNC */
};

static inline uint32_t jbd2_tag_bytes(const struct jbd2_format *f)
{
	if (f->csum3)
		return sizeof(struct jbd2_tag3);
	return (uint32_t)sizeof(struct jbd2_tag) + (f->csum2 ? 2 : 0) - (f->wide ? 0 : 4);
}
static inline uint32_t jbd2_tail_bytes(const struct jbd2_format *f)
{
	return f->csum2 || f->csum3 ? 4 : 0;
}

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dxblk.c - one block of a directory's index in memory
 *
 *     root (block 0)                                     node
 *       0  "." entry, 12 bytes                             0  unused entry, rec_len = block size
 *      12  ".." entry, rec_len = the rest of the block     8  limit le16, count le16, block le32: pair 0
 *      24  reserved le32, hash version u8, 8 u8,          16  hash le32, block le32: pair 1 …
 *          levels below u8, flags u8
 *      32  limit le16, count le16, block le32: pair 0
 *      40  hash le32, block le32: pair 1 …
 *
 * With metadata_csum the 8 bytes behind the last possible pair are reserved le32, checksum le32. The checksum covers the
 * block up to the last pair in use and the tail with its checksum as 0.
 */
#include "vhd/ext4/dir_int.h"

#include <errno.h>
#include <string.h>

enum { ROOT_HEAD = 32, NODE_HEAD = 8, PAIR = 8, TAIL = 8, INFO = 24, INFO_VERSION = 28, INFO_LEVELS = 30 };

static uint32_t get32(const uint8_t *p)
{
	le32 v;

	memcpy(&v, p, sizeof v);
	return le32_get(v);
}

static uint16_t get16(const uint8_t *p)
{
	le16 v;

	memcpy(&v, p, sizeof v);
	return le16_get(v);
}

static void put32(uint8_t *p, uint32_t v)
{
	le32 raw = le32_of(v);

	memcpy(p, &raw, sizeof raw);
}

static void put16(uint8_t *p, uint16_t v)
{
	le16 raw = le16_of(v);

	memcpy(p, &raw, sizeof raw);
}

static uint16_t limit_of(const struct ext4_dirfmt *f, uint16_t head)
{
	return (uint16_t)((f->block_size - head - (f->has_csum ? TAIL : 0)) / PAIR);
}

static int counts(const struct ext4_dirfmt *f, const uint8_t *b, uint16_t head, struct ext4_dx *x)
{
	*x = (struct ext4_dx){.b = b, .head = head, .limit = get16(b + head), .count = get16(b + head + 2)};
	return x->limit == limit_of(f, head) && x->count >= 1 && x->count <= x->limit ? 0 : -EUCLEAN;
}

int ext4_dx_root(const struct ext4_dirfmt *f, const uint8_t *b, struct ext4_dx *x, uint8_t *version, uint8_t *levels)
{
	uint8_t v = b[INFO_VERSION], l = b[INFO_LEVELS];

	if (ext4_rec_len_get(f->block_size, b) != EXT4_DENT_MIN ||
	    ext4_rec_len_get(f->block_size, b + 12) != f->block_size - 12 || get32(b + INFO) ||
	    b[INFO_VERSION + 1] != 8 || b[INFO_LEVELS + 1] & 1)
		return -EUCLEAN;
	if (v > EXT2_HASH_TEA || l > f->levels_max)
		return -EUCLEAN;
	*version = (uint8_t)(v + f->hash_unsigned);
	*levels = l;
	return counts(f, b, ROOT_HEAD, x);
}

int ext4_dx_node(const struct ext4_dirfmt *f, const uint8_t *b, struct ext4_dx *x)
{
	if (get32(b) || ext4_rec_len_get(f->block_size, b) != f->block_size || b[6])
		return -EUCLEAN;
	return counts(f, b, NODE_HEAD, x);
}

bool ext4_dx_sorted(const struct ext4_dx *x)
{
	for (uint32_t i = 1; i < x->count; i++)
		if (ext4_dx_hash(x, i) < ext4_dx_hash(x, i - 1))
			return false;
	return true;
}

uint32_t ext4_dx_search(const struct ext4_dx *x, uint32_t h)
{
	uint32_t lo = 0, n = x->count;

	/* The answer is in [lo, lo + n). */
	while (n > 1) {
		uint32_t half = n / 2;

		if (ext4_dx_hash(x, lo + half) <= h)
			lo += half;
		n -= half;
	}
	return lo;
}

static void put_count(uint8_t *b, struct ext4_dx *x, uint16_t count)
{
	x->b = b;
	x->count = count;
	put16(b + x->head, x->limit);
	put16(b + x->head + 2, count);
}

void ext4_dx_insert(uint8_t *b, struct ext4_dx *x, uint32_t after, uint32_t hash, uint32_t block)
{
	uint8_t *p = b + x->head + (after + 1) * PAIR;

	memmove(p + PAIR, p, (x->count - after - 1) * PAIR);
	put32(p, hash);
	put32(p + 4, block);
	put_count(b, x, (uint16_t)(x->count + 1));
}

/* A node holding n pairs from @pairs, the hash of the first is dropped. */
static void put_node(const struct ext4_dirfmt *f, uint8_t *b, const uint8_t *pairs, uint16_t n)
{
	struct ext4_dx x = {.head = NODE_HEAD, .limit = limit_of(f, NODE_HEAD)};

	memset(b, 0, f->block_size);
	ext4_rec_len_put(f->block_size, b, f->block_size);
	memcpy(b + NODE_HEAD, pairs, (size_t)n * PAIR);
	put_count(b, &x, n);
}

uint32_t ext4_dx_split(const struct ext4_dirfmt *f, uint8_t *b, struct ext4_dx *x, uint8_t *hi)
{
	uint16_t keep = x->count / 2;
	const uint8_t *upper = b + x->head + keep * PAIR;
	uint32_t hash = get32(upper);

	put_node(f, hi, upper, (uint16_t)(x->count - keep));
	put_count(b, x, keep);
	return hash;
}

void ext4_dx_deepen(const struct ext4_dirfmt *f, uint8_t *root, struct ext4_dx *x, uint8_t *node, uint32_t node_lblk)
{
	put_node(f, node, root + x->head, x->count);
	put32(root + x->head + 4, node_lblk);
	put_count(root, x, 1);
	root[INFO_LEVELS]++;
}

void ext4_dx_init_root(const struct ext4_dirfmt *f, uint8_t *b, uint32_t ino, uint32_t parent, uint32_t leaf)
{
	struct ext4_dx x = {.head = ROOT_HEAD, .limit = limit_of(f, ROOT_HEAD)};

	ext4_dirblk_init_dots(f, b, ino, parent);
	memset(b + f->end, 0, f->block_size - f->end);
	ext4_rec_len_put(f->block_size, b + 12, f->block_size - 12);
	b[INFO_VERSION] = f->hash_version;
	b[INFO_VERSION + 1] = 8;
	put32(b + ROOT_HEAD + 4, leaf);
	put_count(b, &x, 1);
}

static uint32_t csum(uint32_t seed, const struct ext4_dx *x, const uint8_t *b)
{
	const uint8_t *tail = b + x->head + x->limit * PAIR;
	static const uint8_t zero[4];
	uint32_t c;

	c = ext2fs_crc32c_le(seed, b, (size_t)x->head + x->count * PAIR);
	c = ext2fs_crc32c_le(c, tail, 4);
	return ext2fs_crc32c_le(c, zero, sizeof zero);
}

bool ext4_dx_csum_ok(const struct ext4_dirfmt *f, uint32_t seed, const struct ext4_dx *x)
{
	return !f->has_csum || get32(x->b + x->head + x->limit * PAIR + 4) == csum(seed, x, x->b);
}

void ext4_dx_csum_set(const struct ext4_dirfmt *f, uint32_t seed, uint8_t *b, const struct ext4_dx *x)
{
	if (f->has_csum)
		put32(b + x->head + x->limit * PAIR + 4, csum(seed, x, b));
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fuzz_ext4_dirblk.c - a block of a directory with arbitrary bytes: vhd/ext4/dirblk.c, dxblk.c
 *
 * The first byte picks the shape of the file system, the next four the hash and length of a name that wants in, the rest
 * is the block (repeated when it is short). A block that is accepted as whole must stay whole through every change.
 */
#include <stdlib.h>
#include <string.h>

#include "vhd/ext4/dir_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool ok)
{
	if (!ok)
		abort();
}

struct bench {
	struct ext4_dirfmt f;
	uint8_t *b, *lo, *hi;
	struct ext4_split *map;
	uint32_t hash, len;
};

static void change_leaf(struct bench *t, bool whole)
{
	char name[256];
	struct ext4_dent d;
	uint32_t prev, at, room;

	memset(name, 'n', sizeof name);
	ext4_dirblk_compact(&t->f, t->b, 0, t->lo);
	if (whole)
		need(!ext4_dirblk_check(&t->f, t->lo) &&
		     ext4_dirblk_free(&t->f, t->lo) == ext4_dirblk_free(&t->f, t->b));
	if (!ext4_dirblk_split(&t->f, (uint8_t)(t->hash % 6), t->b, t->map, t->hash, t->len, t->lo, t->hi, &at) &&
	    whole) {
		need(!ext4_dirblk_check(&t->f, t->lo) && !ext4_dirblk_check(&t->f, t->hi));
		need(ext4_dirblk_room(&t->f, t->hash >= (at & ~1u) ? t->hi : t->lo, t->len) != EXT4_NO_OFF);
	}
	if (ext4_dirblk_next(&t->f, t->b, 0, &d) == 1 && d.len && d.ino) {
		memcpy(name, d.name, d.len);
		if (ext4_dirblk_find(&t->f, t->b, name, d.len, &d, &prev) == 1)
			need(!ext4_dirblk_remove(&t->f, t->b, d.off, prev) || !whole);
	}
	memset(name, 'n', sizeof name);
	room = ext4_dirblk_room(&t->f, t->b, t->len);
	if (room != EXT4_NO_OFF)
		need(!ext4_dirblk_insert(&t->f, t->b, room, name, t->len, 1, 1));
	if (whole)
		need(!ext4_dirblk_check(&t->f, t->b));
}

static void change_index(struct bench *t)
{
	uint8_t version, levels;
	struct ext4_dx x, y;
	bool root = !ext4_dx_root(&t->f, t->b, &x, &version, &levels);
	uint32_t at;

	if (!root && ext4_dx_node(&t->f, t->b, &x))
		return;
	(void)ext4_dx_csum_ok(&t->f, t->hash, &x);
	(void)ext4_dx_sorted(&x);
	at = ext4_dx_search(&x, t->hash);
	need(at < x.count);
	if (x.count < x.limit) {
		ext4_dx_insert(t->b, &x, at, t->hash, 7);
		need(ext4_dx_hash(&x, at + 1) == t->hash && ext4_dx_block(&x, at + 1) == 7);
	}
	if (root) {
		ext4_dx_deepen(&t->f, t->b, &x, t->hi, 9);
		need(!ext4_dx_node(&t->f, t->hi, &y) && x.count == 1);
	} else if (x.count > 1) {
		(void)ext4_dx_split(&t->f, t->b, &x, t->hi);
		need(!ext4_dx_node(&t->f, t->hi, &y) && !ext4_dx_node(&t->f, t->b, &x));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint32_t sizes[] = {1024, 2048, 4096, 65536};
	struct bench t;
	struct ext4_dent d;
	uint8_t *keep;

	if (size < 6)
		return 0;
	t.f = (struct ext4_dirfmt){.block_size = sizes[data[0] & 3],
				   .inodes_count = 1u << 24,
				   .hash_version = EXT2_HASH_HALF_MD4,
				   .hash_unsigned = data[0] & 4 ? 3 : 0,
				   .levels_max = data[0] & 8 ? 2 : 1,
				   .has_csum = data[0] & 16,
				   .has_filetype = data[0] & 32};
	t.f.end = t.f.block_size - (t.f.has_csum ? EXT4_DIR_TAIL : 0);
	t.hash = ((uint32_t)data[1] << 24 | (uint32_t)data[2] << 16 | data[3]) & ~1u;
	t.len = data[4] ? data[4] : 1;
	data += 5;
	size -= 5;
	t.b = malloc(t.f.block_size);
	t.lo = malloc(t.f.block_size);
	t.hi = malloc(t.f.block_size);
	keep = malloc(t.f.block_size);
	t.map = malloc(ext4_split_max(&t.f) * sizeof *t.map);
	if (!t.b || !t.lo || !t.hi || !keep || !t.map)
		abort();
	for (uint32_t i = 0; i < t.f.block_size; i++)
		keep[i] = data[i % size];
	memcpy(t.b, keep, t.f.block_size);
	(void)ext4_dirblk_dotdot(&t.f, t.b, &d);
	change_leaf(&t, !ext4_dirblk_check(&t.f, t.b));
	memcpy(t.b, keep, t.f.block_size);
	change_index(&t);
	free(t.b);
	free(t.lo);
	free(t.hi);
	free(keep);
	free(t.map);
	return 0;
}

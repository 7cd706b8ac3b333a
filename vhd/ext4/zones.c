/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * zones.c - where the file system's own metadata lies
 *
 * Superblocks, group descriptors, bitmaps and inode tables of all groups, merged and sorted (with flex_bg few ranges are left). An
 * inode whose blocks reach into them is damaged, or made up: writing to the file would write over the file system.
 */
#include <errno.h>
#include <stdlib.h>

#include "vhd/base/checked.h"
#include "vhd/ext4/ext4_int.h"

#define PER_GROUP 6u /* superblock, old and new descriptors, two bitmaps, inode table */

struct zone {
	uint64_t from, end; /* blocks */
};

struct ext4_zones {
	uint32_t n;
	struct zone z[];
};

static void add(struct ext4_zones *z, uint64_t from, uint64_t len)
{
	if (from && len)
		z->z[z->n++] = (struct zone){from, from + len};
}

static void add_group(struct ext4_zones *z, ext2_filsys e2, dgrp_t g)
{
	blk64_t super = 0, old_desc = 0, new_desc = 0;
	uint32_t old_len = (uint32_t)e2->desc_blocks + e2->super->s_reserved_gdt_blocks;

	ext2fs_super_and_bgd_loc2(e2, g, &super, &old_desc, &new_desc, NULL);
	if (ext2fs_has_feature_meta_bg(e2->super))
		old_len = e2->super->s_first_meta_bg;
	if (g == 0 && !super)
		z->z[z->n++] = (struct zone){0, 1}; /* behind the boot sector, in block 0 */
	add(z, super, 1);
	add(z, old_desc, old_len);
	add(z, new_desc, 1);
	add(z, ext2fs_block_bitmap_loc(e2, g), 1);
	add(z, ext2fs_inode_bitmap_loc(e2, g), 1);
	add(z, ext2fs_inode_table_loc(e2, g), e2->inode_blocks_per_group);
}

static int by_place(const void *a, const void *b)
{
	const struct zone *x = a, *y = b;

	return x->from < y->from ? -1 : x->from > y->from;
}

int ext4_zones_init(struct ext4_fs *fs)
{
	dgrp_t groups = fs->e2->group_desc_count;
	struct ext4_zones *z = malloc(sizeof *z + ((size_t)groups * PER_GROUP + 1) * sizeof z->z[0]);
	uint32_t k = 0;

	if (!z)
		return -ENOMEM;
	z->n = 0;
	for (dgrp_t g = 0; g < groups; g++)
		add_group(z, fs->e2, g);
	qsort(z->z, z->n, sizeof z->z[0], by_place);
	for (uint32_t i = 1; i < z->n; i++) {
		if (z->z[i].from <= z->z[k].end)
			z->z[k].end = max_u64(z->z[k].end, z->z[i].end);
		else
			z->z[++k] = z->z[i];
	}
	z->n = z->n ? k + 1 : 0;
	fs->zones = z;
	return 0;
}

void ext4_zones_fini(struct ext4_fs *fs)
{
	free(fs->zones);
	fs->zones = NULL;
}

bool ext4_in_zones(const struct ext4_fs *fs, uint64_t pblk, uint64_t len)
{
	const struct ext4_zones *z = fs->zones;
	uint32_t lo = 0, hi = z ? z->n : 0;

	/* The first that ends behind pblk. */
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (z->z[mid].end > pblk)
			hi = mid;
		else
			lo = mid + 1;
	}
	return z && lo < z->n && z->z[lo].from < pblk + len;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* test_ext4_dir_block.c - blocks of directories and of their indexes, in memory: vhd/ext4/dirblk.c, dxblk.c */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "vhd/ext4/dir_int.h"

static uint64_t rng_state;

static uint32_t rnd(uint32_t n)
{
	rng_state = rng_state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(rng_state >> 33) % n;
}

static struct ext4_dirfmt format(uint32_t block_size, bool csum)
{
	return (struct ext4_dirfmt){.block_size = block_size,
				    .end = block_size - (csum ? EXT4_DIR_TAIL : 0),
				    .csum_seed = 0x12345678,
				    .inodes_count = 1u << 30,
				    .blocks_max = 1u << 20,
				    .seed = {1, 2, 3, 4},
				    .hash_version = EXT2_HASH_HALF_MD4,
				    .levels_max = 1,
				    .has_csum = csum,
				    .has_filetype = true,
				    .has_index = true};
}

/* Every shape of block that the loops below go through. */
static const struct {
	uint32_t block_size;
	bool csum;
} shapes[] = {{1024, false}, {1024, true}, {4096, false}, {4096, true}, {65536, false}, {65536, true}};

/* A block of exactly its size, so that a sanitizer sees a step outside. */
static uint8_t *block_new(const struct ext4_dirfmt *f)
{
	uint8_t *b = malloc(f->block_size);

	ck_assert_ptr_nonnull(b);
	memset(b, 0xa5, f->block_size);
	return b;
}

static uint32_t make_name(char *buf, uint32_t id)
{
	uint32_t len = (uint32_t)sprintf(buf, "n%u-", id), want = 1 + (id * 2654435761u >> 8) % 255;

	for (; len < want; len++)
		buf[len] = (char)('a' + (id + len) % 26);
	return len;
}

static uint32_t count_names(const struct ext4_dirfmt *f, const uint8_t *b)
{
	struct ext4_dent d;
	uint32_t n = 0;
	int r;

	for (uint32_t off = 0; (r = ext4_dirblk_next(f, b, off, &d)) > 0; off += d.rec_len)
		n += d.ino != 0;
	ck_assert_int_eq(r, 0);
	return n;
}

START_TEST(an_empty_block_is_one_unused_entry)
{
	for (unsigned i = 0; i < ARRAY_LEN(shapes); i++) {
		struct ext4_dirfmt f = format(shapes[i].block_size, shapes[i].csum);
		uint8_t *b = block_new(&f);
		struct ext4_dent d;

		ext4_dirblk_init(&f, b);
		ck_assert_int_eq(ext4_dirblk_check(&f, b), 0);
		ck_assert_int_eq(ext4_dirblk_next(&f, b, 0, &d), 1);
		ck_assert_uint_eq(d.ino, 0);
		ck_assert_uint_eq(d.rec_len, f.end);
		ck_assert_uint_eq(ext4_dirblk_free(&f, b), f.end);
		free(b);
	}
}
END_TEST

START_TEST(names_that_go_in_are_found_until_they_go_out)
{
	enum { IDS = 400 };
	static uint32_t ino[IDS];

	for (unsigned i = 0; i < ARRAY_LEN(shapes); i++) {
		struct ext4_dirfmt f = format(shapes[i].block_size, shapes[i].csum);
		uint8_t *b = block_new(&f), *t = block_new(&f);
		uint32_t in = 0;

		memset(ino, 0, sizeof ino);
		ext4_dirblk_init(&f, b);
		for (unsigned n = 0; n < 6000; n++) {
			uint32_t id = rnd(IDS), prev, room;
			struct ext4_dent d;
			char name[256];
			uint32_t len = make_name(name, id);

			ck_assert_int_eq(ext4_dirblk_find(&f, b, name, len, &d, &prev), ino[id] != 0);
			if (ino[id]) {
				ck_assert_uint_eq(d.ino, ino[id]);
				ck_assert_uint_eq(d.type, EXT2_FT_REG_FILE);
				ck_assert_int_eq(ext4_dirblk_remove(&f, b, d.off, prev), 0);
				ino[id] = 0;
				in--;
			} else if ((room = ext4_dirblk_room(&f, b, len)) != EXT4_NO_OFF) {
				ino[id] = 1 + rnd(1u << 30);
				ck_assert_int_eq(ext4_dirblk_insert(&f, b, room, name, len, ino[id], EXT2_FT_REG_FILE),
						 0);
				in++;
			} else if (ext4_dirblk_free(&f, b) >= ext4_dent_size(len)) {
				ext4_dirblk_compact(&f, b, 0, t);
				memcpy(b, t, f.block_size);
				ck_assert_uint_ne(ext4_dirblk_room(&f, b, len), EXT4_NO_OFF);
			}
			if (n % 64 == 0) {
				ck_assert_int_eq(ext4_dirblk_check(&f, b), 0);
				ck_assert_uint_eq(count_names(&f, b), in);
			}
		}
		free(b);
		free(t);
	}
}
END_TEST

START_TEST(a_full_block_has_no_room_left_unused)
{
	struct ext4_dirfmt f = format(1024, true);
	uint8_t *b = block_new(&f);
	char name[256];
	uint32_t n = 0, room, len;

	ext4_dirblk_init(&f, b);
	for (; (room = ext4_dirblk_room(&f, b, 4)) != EXT4_NO_OFF; n++) {
		len = (uint32_t)sprintf(name, "%04u", n);
		ck_assert_int_eq(ext4_dirblk_insert(&f, b, room, name, len, n + 1, 1), 0);
	}
	ck_assert_uint_eq(n, f.end / 12);
	ck_assert_uint_lt(ext4_dirblk_free(&f, b), 12);
	free(b);
}
END_TEST

START_TEST(the_first_entry_of_a_block_is_removed_in_place_and_reused)
{
	struct ext4_dirfmt f = format(1024, false);
	uint8_t *b = block_new(&f);
	struct ext4_dent d;
	uint32_t prev;

	ext4_dirblk_init(&f, b);
	ck_assert_int_eq(ext4_dirblk_insert(&f, b, 0, "first", 5, 11, 1), 0);
	ck_assert_int_eq(ext4_dirblk_insert(&f, b, 0, "second", 6, 12, 1), 0);
	ck_assert_int_eq(ext4_dirblk_find(&f, b, "first", 5, &d, &prev), 1);
	ck_assert_uint_eq(prev, EXT4_NO_OFF);
	ck_assert_int_eq(ext4_dirblk_remove(&f, b, d.off, prev), 0);
	ck_assert_int_eq(ext4_dirblk_find(&f, b, "first", 5, &d, &prev), 0);
	ck_assert_int_eq(ext4_dirblk_find(&f, b, "second", 6, &d, &prev), 1);
	ck_assert_uint_eq(prev, 0);
	ck_assert_uint_eq(ext4_dirblk_room(&f, b, 8), 0);
	/* Not a trace of the name. */
	ck_assert_ptr_null(memmem(b, 1024, "first", 5));
	free(b);
}
END_TEST

START_TEST(neighbours_that_are_none_are_not_merged)
{
	struct ext4_dirfmt f = format(1024, false);
	uint8_t *b = block_new(&f);
	struct ext4_dent d;
	uint32_t prev;

	ext4_dirblk_init(&f, b);
	for (unsigned i = 0; i < 3; i++)
		ck_assert_int_eq(ext4_dirblk_insert(&f, b, ext4_dirblk_room(&f, b, 1), &"abc"[i], 1, 11 + i, 1), 0);
	ck_assert_int_eq(ext4_dirblk_find(&f, b, "c", 1, &d, &prev), 1);
	ck_assert_int_eq(ext4_dirblk_remove(&f, b, d.off, 0), -EUCLEAN);
	ck_assert_int_eq(ext4_dirblk_remove(&f, b, d.off + 2, prev), -EUCLEAN);
	ck_assert_int_eq(ext4_dirblk_remove(&f, b, 4096, prev), -EUCLEAN);
	ck_assert_int_eq(ext4_dirblk_insert(&f, b, 0, "x", 1, 5, 1), -EUCLEAN);
	free(b);
}
END_TEST

START_TEST(a_new_directory_names_itself_and_its_parent)
{
	for (unsigned i = 0; i < ARRAY_LEN(shapes); i++) {
		struct ext4_dirfmt f = format(shapes[i].block_size, shapes[i].csum);
		uint8_t *b = block_new(&f);
		struct ext4_dent d;

		ext4_dirblk_init_dots(&f, b, 77, 55);
		ck_assert_int_eq(ext4_dirblk_check(&f, b), 0);
		ck_assert_int_eq(ext4_dirblk_dotdot(&f, b, &d), 0);
		ck_assert_uint_eq(d.ino, 55);
		ck_assert_uint_eq(d.off, 12);
		ck_assert_uint_eq(count_names(&f, b), 2);
		memcpy(b + 8, "x", 1);
		ck_assert_int_eq(ext4_dirblk_dotdot(&f, b, &d), -EUCLEAN);
		free(b);
	}
}
END_TEST

/* The checksum is over everything before the tail, and the inode's number and generation are in it. */
START_TEST(a_checksum_covers_every_byte_of_a_block)
{
	struct ext4_dirfmt f = format(1024, true);
	uint8_t *b = block_new(&f);
	uint32_t seed = ext4_dir_seed(&f, 12, 34);

	ext4_dirblk_init_dots(&f, b, 12, 2);
	ext4_dirblk_csum_set(&f, seed, b);
	ck_assert(ext4_dirblk_csum_ok(&f, seed, b));
	ck_assert(!ext4_dirblk_csum_ok(&f, ext4_dir_seed(&f, 12, 35), b));
	ck_assert(!ext4_dirblk_csum_ok(&f, ext4_dir_seed(&f, 13, 34), b));
	for (uint32_t i = 0; i < f.end; i++) {
		b[i] ^= 0x10;
		ck_assert(!ext4_dirblk_csum_ok(&f, seed, b));
		b[i] ^= 0x10;
	}
	free(b);
}
END_TEST

START_TEST(names_that_cannot_be_are_damage)
{
	static const struct {
		const char *name;
		uint32_t len, ino;
		uint8_t type;
		bool filetype;
		int want;
	} row[] = {
		{"fine", 4, 12, 1, true, 0},        {"a/b", 3, 12, 1, true, -EUCLEAN},
		{"a\0b", 3, 12, 1, true, -EUCLEAN}, {"far", 3, (1u << 30) + 1, 1, true, -EUCLEAN},
		{"fine", 4, 12, 0, false, 0},
	};
	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		struct ext4_dirfmt f = format(1024, false);
		uint8_t *b = block_new(&f);

		f.has_filetype = row[i].filetype;
		ext4_dirblk_init(&f, b);
		ck_assert_int_eq(ext4_dirblk_insert(&f, b, 0, row[i].name, row[i].len, row[i].ino, row[i].type), 0);
		ck_assert_int_eq(ext4_dirblk_check(&f, b), row[i].want);
		if (!row[i].filetype) {
			ck_assert_uint_eq(b[7], 0);
			b[7] = 1; /* name_len 256 + 4 */
			ck_assert_int_eq(ext4_dirblk_check(&f, b), -EUCLEAN);
		}
		free(b);
	}
}
END_TEST

START_TEST(a_rec_len_that_leads_astray_is_damage)
{
	static const uint16_t bad[] = {0, 4, 8, 11, 13, 14, 1016, 1028, 2048, 65532, 65535};
	struct ext4_dirfmt f = format(1024, true);
	uint8_t *b = block_new(&f);
	struct ext4_dent d;
	uint32_t prev;

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		ext4_dirblk_init_dots(&f, b, 12, 2);
		ext4_rec_len_put(f.block_size, b + 12, bad[i]);
		ck_assert_int_eq(ext4_dirblk_check(&f, b), -EUCLEAN);
		ck_assert_int_eq(ext4_dirblk_find(&f, b, "x", 1, &d, &prev), -EUCLEAN);
	}
	/* One that leaves a rest too small for an entry. */
	ext4_dirblk_init_dots(&f, b, 12, 2);
	ext4_rec_len_put(f.block_size, b + 12, 1012 - 12 - 8);
	ck_assert_int_eq(ext4_dirblk_check(&f, b), -EUCLEAN);
	/* A name longer than its entry. */
	ext4_dirblk_init_dots(&f, b, 12, 2);
	b[6] = 5;
	ck_assert_int_eq(ext4_dirblk_check(&f, b), -EUCLEAN);
	/* No tail. */
	ext4_dirblk_init_dots(&f, b, 12, 2);
	b[f.end + 7] = 0;
	ck_assert_int_eq(ext4_dirblk_check(&f, b), -EUCLEAN);
	free(b);
}
END_TEST

START_TEST(a_split_puts_every_name_into_the_half_of_its_hash)
{
	for (unsigned i = 0; i < ARRAY_LEN(shapes); i++) {
		struct ext4_dirfmt f = format(shapes[i].block_size, shapes[i].csum);
		uint8_t *b = block_new(&f), *lo = block_new(&f), *hi = block_new(&f);
		struct ext4_split *map = calloc(ext4_split_max(&f), sizeof *map);

		for (uint32_t round = 0; round < 40; round++) {
			const uint8_t version = (uint8_t)rnd(6);
			uint32_t n = 0, id = round * 10000, len, room, at, prev;
			struct ext4_hash h;
			struct ext4_dent d;
			char name[256];

			ext4_dirblk_init(&f, b);
			for (;; n++, id++) {
				len = make_name(name, id);
				room = ext4_dirblk_room(&f, b, len);
				if (room == EXT4_NO_OFF)
					break;
				ck_assert_int_eq(ext4_dirblk_insert(&f, b, room, name, len, id + 1, 1), 0);
			}
			ext4_name_hash(&f, version, name, len, &h);
			ck_assert_uint_eq(h.major & 1, 0);
			ck_assert_int_eq(ext4_dirblk_split(&f, version, b, map, h.major, len, lo, hi, &at), 0);
			ck_assert_int_eq(ext4_dirblk_check(&f, lo), 0);
			ck_assert_int_eq(ext4_dirblk_check(&f, hi), 0);
			ck_assert_uint_eq(count_names(&f, lo) + count_names(&f, hi), n);
			ck_assert_uint_ne(ext4_dirblk_room(&f, h.major >= (at & ~1u) ? hi : lo, len), EXT4_NO_OFF);
			for (id = round * 10000; n; n--, id++) {
				bool in_lo, in_hi;

				len = make_name(name, id);
				ext4_name_hash(&f, version, name, len, &h);
				in_lo = ext4_dirblk_find(&f, lo, name, len, &d, &prev) == 1;
				in_hi = ext4_dirblk_find(&f, hi, name, len, &d, &prev) == 1;
				ck_assert_int_ne(in_lo, in_hi);
				if (h.major != (at & ~1u))
					ck_assert_int_eq(in_hi, h.major > at);
				else
					ck_assert(in_hi || at & 1);
			}
		}
		free(b);
		free(lo);
		free(hi);
		free(map);
	}
}
END_TEST

/* Names that all have one hash: the half above is marked as a continuation. */
START_TEST(a_split_among_equal_hashes_says_continued)
{
	struct ext4_dirfmt f = format(1024, false);
	uint8_t *b = block_new(&f), *lo = block_new(&f), *hi = block_new(&f);
	struct ext4_split *map = calloc(ext4_split_max(&f), sizeof *map);
	struct ext4_hash h;
	uint32_t room, at;

	ext4_dirblk_init(&f, b);
	while ((room = ext4_dirblk_room(&f, b, 4)) != EXT4_NO_OFF)
		ck_assert_int_eq(ext4_dirblk_insert(&f, b, room, "same", 4, 11, 1), 0);
	ext4_name_hash(&f, EXT2_HASH_TEA, "same", 4, &h);
	ck_assert_int_eq(ext4_dirblk_split(&f, EXT2_HASH_TEA, b, map, h.major, 4, lo, hi, &at), 0);
	ck_assert_uint_eq(at, h.major | 1);
	free(b);
	free(lo);
	free(hi);
	free(map);
}
END_TEST

START_TEST(names_of_one_hash_are_not_parted_without_need)
{
	struct ext4_dirfmt f = format(1024, false);
	uint8_t *b = block_new(&f), *lo = block_new(&f), *hi = block_new(&f);
	struct ext4_split *map = calloc(ext4_split_max(&f), sizeof *map);
	char name[8];
	uint32_t room, at, n = 0;

	/* Four hashes only, the middle of the sorted block lies among equals. */
	ext4_dirblk_init(&f, b);
	for (; (room = ext4_dirblk_room(&f, b, 4)) != EXT4_NO_OFF; n++) {
		memcpy(name, n % 7 < 3 ? "aaaa" : n % 7 < 5 ? "bbbb" : "cccc", 4);
		ck_assert_int_eq(ext4_dirblk_insert(&f, b, room, name, 4, 11, 1), 0);
	}
	ck_assert_int_eq(ext4_dirblk_split(&f, EXT2_HASH_TEA, b, map, 0, 4, lo, hi, &at), 0);
	ck_assert_uint_eq(at & 1, 0);
	free(b);
	free(lo);
	free(hi);
	free(map);
}
END_TEST

/* ---- the index --------------------------------------------------------------------------------------------------------- */

START_TEST(a_new_root_still_reads_as_a_directory)
{
	for (unsigned i = 0; i < ARRAY_LEN(shapes); i++) {
		struct ext4_dirfmt f = format(shapes[i].block_size, shapes[i].csum);
		uint8_t *b = block_new(&f), version, levels;
		struct ext4_dent d;
		struct ext4_dx x;

		f.hash_unsigned = 3;
		ext4_dx_init_root(&f, b, 12, 2, 1);
		ck_assert_int_eq(ext4_dx_root(&f, b, &x, &version, &levels), 0);
		ck_assert_uint_eq(version, EXT2_HASH_HALF_MD4_UNSIGNED);
		ck_assert_uint_eq(levels, 0);
		ck_assert_uint_eq(x.count, 1);
		ck_assert_uint_eq(x.limit, (f.block_size - 32 - (f.has_csum ? 8 : 0)) / 8);
		ck_assert_uint_eq(ext4_dx_block(&x, 0), 1);
		ck_assert_int_eq(ext4_dirblk_dotdot(&f, b, &d), 0);
		ck_assert_uint_eq(d.ino, 2);
		ext4_dx_csum_set(&f, 99, b, &x);
		ck_assert(ext4_dx_csum_ok(&f, 99, &x));
		ck_assert_int_eq(ext4_dx_csum_ok(&f, 98, &x), !f.has_csum);
		free(b);
	}
}
END_TEST

START_TEST(the_index_finds_what_a_linear_scan_finds)
{
	struct ext4_dirfmt f = format(4096, true);
	uint8_t *b = block_new(&f), version, levels;
	uint32_t hash[600], n = 1;
	struct ext4_dx x;

	ext4_dx_init_root(&f, b, 12, 2, 1000);
	ck_assert_int_eq(ext4_dx_root(&f, b, &x, &version, &levels), 0);
	hash[0] = 0;
	while (x.count < x.limit) {
		uint32_t h = rnd(5000) * 2 + rnd(2), at = ext4_dx_search(&x, h), want = 0;

		for (uint32_t i = 0; i < n; i++)
			if (hash[i] <= h)
				want = i;
		ck_assert_uint_eq(at, want);
		ext4_dx_insert(b, &x, at, h, 1000 + n);
		memmove(hash + at + 2, hash + at + 1, (n - at - 1) * sizeof *hash);
		hash[at + 1] = h;
		n++;
		ck_assert_uint_eq(x.count, n);
		ck_assert_uint_eq(ext4_dx_block(&x, at + 1), 1000 + n - 1);
		ck_assert(ext4_dx_sorted(&x));
	}
	for (uint32_t i = 0; i < n; i++)
		ck_assert_uint_eq(ext4_dx_hash(&x, i), hash[i]);
	ext4_dx_csum_set(&f, 5, b, &x);
	ck_assert_int_eq(ext4_dx_root(&f, b, &x, &version, &levels), 0);
	ck_assert(ext4_dx_csum_ok(&f, 5, &x));
	free(b);
}
END_TEST

START_TEST(splits_and_new_levels_keep_every_pair)
{
	for (unsigned i = 0; i < ARRAY_LEN(shapes); i++) {
		struct ext4_dirfmt f = format(shapes[i].block_size, shapes[i].csum);
		uint8_t *root = block_new(&f), *node = block_new(&f), *hi = block_new(&f), version, levels;
		struct ext4_dx x, nx, hx;
		uint32_t full, at;

		ext4_dx_init_root(&f, root, 12, 2, 1);
		ck_assert_int_eq(ext4_dx_root(&f, root, &x, &version, &levels), 0);
		for (uint32_t h = 1; x.count < x.limit; h++)
			ext4_dx_insert(root, &x, x.count - 1u, h * 10, h + 1);
		full = x.count;
		ext4_dx_deepen(&f, root, &x, node, 777);
		ck_assert_int_eq(ext4_dx_root(&f, root, &x, &version, &levels), 0);
		ck_assert_uint_eq(levels, 1);
		ck_assert_uint_eq(x.count, 1);
		ck_assert_uint_eq(ext4_dx_block(&x, 0), 777);
		ck_assert_int_eq(ext4_dx_node(&f, node, &nx), 0);
		ck_assert_uint_eq(nx.count, full);
		ck_assert_uint_gt(nx.limit, full);
		at = ext4_dx_split(&f, node, &nx, hi);
		ck_assert_int_eq(ext4_dx_node(&f, node, &nx), 0);
		ck_assert_int_eq(ext4_dx_node(&f, hi, &hx), 0);
		ck_assert_uint_eq(nx.count + hx.count, full);
		ck_assert_uint_eq(at, nx.count * 10u);
		for (uint32_t k = 0; k < full; k++)
			ck_assert_uint_eq(k < nx.count ? ext4_dx_block(&nx, k) : ext4_dx_block(&hx, k - nx.count),
					  k + 1);
		ck_assert_uint_eq(ext4_dx_hash(&hx, 0), 0);
		ck_assert_uint_eq(ext4_dx_hash(&hx, 1), at + 10);
		free(root);
		free(node);
		free(hi);
	}
}
END_TEST

START_TEST(a_damaged_index_block_is_refused)
{
	static const struct {
		uint16_t off;
		uint8_t byte;
	} bad[] = {
		{4, 16},    /* "." takes more than 12 bytes */
		{16, 1},    /* ".." does not span the block */
		{24, 1},    /* reserved */
		{28, 3},    /* a hash that is not on disk */
		{28, 6},    /* casefolding */
		{29, 12},   /* another length of the information */
		{30, 2},    /* deeper than without large_dir */
		{30, 255},  /* */
		{31, 1},    /* flags */
		{32, 0},    /* limit */
		{33, 0xff}, /* */
		{34, 0},    /* count 0 */
		{35, 0xff}, /* count above the limit */
	};
	struct ext4_dirfmt f = format(4096, true);
	uint8_t *b = block_new(&f), version, levels;
	struct ext4_dx x;

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		ext4_dx_init_root(&f, b, 12, 2, 1);
		b[bad[i].off] = bad[i].byte;
		ck_assert_msg(ext4_dx_root(&f, b, &x, &version, &levels) == -EUCLEAN, "row %u", i);
	}
	f.levels_max = 2;
	ext4_dx_init_root(&f, b, 12, 2, 1);
	b[30] = 2;
	ck_assert_int_eq(ext4_dx_root(&f, b, &x, &version, &levels), 0);
	free(b);
}
END_TEST

/* ---- hostile blocks ------------------------------------------------------------------------------------------------------ */

static void use_block(const struct ext4_dirfmt *f, uint8_t *b, uint8_t *lo, uint8_t *hi, struct ext4_split *map)
{
	struct ext4_dent d;
	struct ext4_dx x;
	uint8_t version, levels;
	uint32_t prev, at, room;

	(void)ext4_dirblk_check(f, b);
	(void)ext4_dirblk_dotdot(f, b, &d);
	(void)ext4_dirblk_free(f, b);
	ext4_dirblk_compact(f, b, 0, lo);
	(void)ext4_dirblk_split(f, (uint8_t)rnd(6), b, map, rnd(1u << 30), 1 + rnd(255), lo, hi, &at);
	if (!ext4_dx_root(f, b, &x, &version, &levels) || !ext4_dx_node(f, b, &x)) {
		(void)ext4_dx_csum_ok(f, 1, &x);
		(void)ext4_dx_sorted(&x);
		at = ext4_dx_search(&x, rnd(1u << 31));
		ck_assert_uint_lt(at, x.count);
		(void)ext4_dx_block(&x, at);
		memcpy(lo, b, f->block_size);
		if (x.count < x.limit)
			ext4_dx_insert(lo, &x, at, 2, 3);
		(void)ext4_dx_split(f, lo, &x, hi);
	}
	if (ext4_dirblk_find(f, b, "victim", 6, &d, &prev) == 1)
		(void)ext4_dirblk_remove(f, b, d.off, prev);
	(void)ext4_dirblk_remove(f, b, rnd(f->block_size), rnd(f->block_size));
	room = ext4_dirblk_room(f, b, 30);
	if (room != EXT4_NO_OFF)
		ck_assert_int_eq(ext4_dirblk_insert(f, b, room, "012345678901234567890123456789", 30, 5, 1), 0);
	(void)ext4_dirblk_insert(f, b, rnd(f->block_size), "x", 1, 5, 1);
}

START_TEST(no_damage_leads_outside_a_block)
{
	for (unsigned i = 0; i < ARRAY_LEN(shapes); i++) {
		struct ext4_dirfmt f = format(shapes[i].block_size, shapes[i].csum);
		uint8_t *b = block_new(&f), *lo = block_new(&f), *hi = block_new(&f);
		struct ext4_split *map = calloc(ext4_split_max(&f), sizeof *map);
		unsigned rounds = f.block_size > 4096 ? 60 : 2000;

		f.hash_unsigned = i % 2 ? 3 : 0;
		for (unsigned n = 0; n < rounds; n++) {
			switch (n % 4) {
			case 0:
				ext4_dirblk_init_dots(&f, b, 12, 2);
				(void)ext4_dirblk_insert(&f, b, 12, "victim", 6, 4, 1);
				break;
			case 1:
				ext4_dx_init_root(&f, b, 12, 2, 1);
				break;
			case 2:
				ext4_dirblk_init(&f, b);
				for (uint32_t k = 0, room;
				     k < 200 && (room = ext4_dirblk_room(&f, b, 6)) != EXT4_NO_OFF; k++)
					(void)ext4_dirblk_insert(&f, b, room, "victim", 6, k + 1, 1);
				break;
			default:
				for (uint32_t k = 0; k < f.block_size; k++)
					b[k] = (uint8_t)rnd(256);
			}
			for (uint32_t k = 1 + rnd(8); k; k--)
				b[rnd(2) ? rnd(64) : rnd(f.block_size)] = (uint8_t)(rnd(3) ? rnd(256) : rnd(2) * 0xff);
			use_block(&f, b, lo, hi, map);
		}
		free(b);
		free(lo);
		free(hi);
		free(map);
	}
}
END_TEST

/* ---- hashes ---------------------------------------------------------------------------------------------------------------- */

/* What debugfs -R "dx_hash -h ALGORITHM -s 11223344-5566-7788-99aa-bbccddeeff00 NAME" says. */
START_TEST(hashes_are_those_of_the_tools)
{
#define LONG "name-\303\274ber-000000000000000000000000000000000000000000000000000000000007"
	static const struct {
		uint8_t version;
		const char *name;
		uint32_t major, minor;
	} row[] = {
		{EXT2_HASH_LEGACY, "a", 0xe74b53e2, 0},
		{EXT2_HASH_LEGACY, "hello", 0x32252546, 0},
		{EXT2_HASH_LEGACY, LONG, 0x1d46ec02, 0},
		{EXT2_HASH_HALF_MD4, "a", 0x82170af6, 0xabf663dc},
		{EXT2_HASH_HALF_MD4, "hello", 0x6a6d483e, 0x29b44a0},
		{EXT2_HASH_HALF_MD4, LONG, 0xa335154a, 0x569508f8},
		{EXT2_HASH_TEA, "a", 0xbdaa08e6, 0x18853334},
		{EXT2_HASH_TEA, "hello", 0x77cfe3d8, 0x94e58ad8},
		{EXT2_HASH_TEA, LONG, 0x67c0076a, 0xcbd2a932},
	};
#undef LONG
	struct ext4_dirfmt f = format(4096, true);
	static const uint32_t seed[4] = {0x44332211, 0x88776655, 0xccbbaa99, 0x00ffeedd};

	memcpy(f.seed, seed, sizeof seed);
	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		struct ext4_hash h;

		ext4_name_hash(&f, row[i].version, row[i].name, (uint32_t)strlen(row[i].name), &h);
		ck_assert_uint_eq(h.major, row[i].major);
		if (row[i].version != EXT2_HASH_LEGACY)
			ck_assert_uint_eq(h.minor, row[i].minor);
	}
}
END_TEST

/* Bytes above 127 hash differently on machines whose char is unsigned; the superblock says which was meant. */
START_TEST(signed_and_unsigned_hashes_differ_only_above_ascii)
{
	struct ext4_dirfmt f = format(4096, true);
	struct ext4_hash s, u;

	for (uint8_t v = EXT2_HASH_LEGACY; v <= EXT2_HASH_TEA; v++) {
		ext4_name_hash(&f, v, "plain", 5, &s);
		ext4_name_hash(&f, (uint8_t)(v + 3), "plain", 5, &u);
		ck_assert_uint_eq(s.major, u.major);
		ext4_name_hash(&f, v, "\303\274", 2, &s);
		ext4_name_hash(&f, (uint8_t)(v + 3), "\303\274", 2, &u);
		ck_assert_uint_ne(s.major, u.major);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ext4_dir_block");
	TCase *t = tcase_create("blocks");
	SRunner *r;
	int failed;

	rng_state = 42;
	tcase_set_timeout(t, 60);
	tcase_add_test(t, an_empty_block_is_one_unused_entry);
	tcase_add_test(t, names_that_go_in_are_found_until_they_go_out);
	tcase_add_test(t, a_full_block_has_no_room_left_unused);
	tcase_add_test(t, the_first_entry_of_a_block_is_removed_in_place_and_reused);
	tcase_add_test(t, neighbours_that_are_none_are_not_merged);
	tcase_add_test(t, a_new_directory_names_itself_and_its_parent);
	tcase_add_test(t, a_checksum_covers_every_byte_of_a_block);
	tcase_add_test(t, names_that_cannot_be_are_damage);
	tcase_add_test(t, a_rec_len_that_leads_astray_is_damage);
	tcase_add_test(t, a_split_puts_every_name_into_the_half_of_its_hash);
	tcase_add_test(t, a_split_among_equal_hashes_says_continued);
	tcase_add_test(t, names_of_one_hash_are_not_parted_without_need);
	tcase_add_test(t, a_new_root_still_reads_as_a_directory);
	tcase_add_test(t, the_index_finds_what_a_linear_scan_finds);
	tcase_add_test(t, splits_and_new_levels_keep_every_pair);
	tcase_add_test(t, a_damaged_index_block_is_refused);
	tcase_add_test(t, no_damage_leads_outside_a_block);
	tcase_add_test(t, hashes_are_those_of_the_tools);
	tcase_add_test(t, signed_and_unsigned_hashes_differ_only_above_ascii);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

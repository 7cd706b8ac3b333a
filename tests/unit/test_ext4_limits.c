/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_ext4_limits.c - files where something runs out: the disk, room in a transaction, what an image may ask for
 */
#include <ext2fs/ext2fs.h>

#include "tests/unit/ext4_names.h"
#include "vhd/ext4/ext4_int.h"

enum { KIB = 1024, MIB = 1024 * KIB };

/* ---- short forms ----------------------------------------------------------------------------------------------------------- */

static int put(struct fs_node *n, uint8_t with, uint32_t len, uint64_t off)
{
	AUTO(freep) uint8_t *b = malloc(len);
	struct iovec iov = {b, len};
	int err;

	memset(b, with, len);
	err = n->fs->ops->write(n, off, &iov, 1, len, FS_NOWAIT);
	return err == -EAGAIN ? n->fs->ops->write(n, off, &iov, 1, len, 0) : err;
}

/* Are these bytes all @with? */
static bool holds(struct fs_node *n, uint8_t with, uint32_t len, uint64_t off)
{
	AUTO(freep) struct cache_seg *seg = calloc(fs_seg_max(len), sizeof *seg);
	uint32_t same = 0;
	bool eof;
	int k = n->fs->ops->read(n, off, len, 0, seg, fs_seg_max(len), &eof);

	must(k >= 0);
	for (int i = 0; i < k; i++)
		for (uint32_t j = 0; j < seg[i].len; j++)
			same += ((const uint8_t *)seg[i].base)[j] == with;
	cache_unpin(seg, (unsigned)k);
	return same == len;
}

static void set_size(struct fs_node *n, uint64_t size)
{
	struct fs_setattr s = {.what = FS_SET_SIZE, .size = size};

	must_eq(n->fs->ops->setattr(n, &s, NULL), 0);
}

/* Data until there is no room for more of it. */
static void fill_data(struct fs_node *n)
{
	uint64_t off = 0;
	int err = 0;

	for (uint32_t len = MIB; len >= KIB; len /= 2)
		while ((err = put(n, 'f', len, off)) == 0)
			off += len;
	must_eq(err, -ENOSPC);
}

/* And then directories, which may have what data leaves. */
static void fill_all(struct fs *fs, struct fs_node *n)
{
	struct fs_node *d;
	char name[32];
	int err = 0;

	fill_data(n);
	for (unsigned i = 0; !err; i++) {
		snprintf(name, sizeof name, "fill%u", i);
		err = make_s(fs->root, name, FS_DIR, &d);
		if (!err)
			fs_node_put(d);
	}
	must_eq(err, -ENOSPC);
}

/* ---- the disk ---------------------------------------------------------------------------------------------------------------- */

/* What a write that failed had put behind the end of file is not there when the file grows. */
START_TEST(a_write_that_fails_leaves_zeros_behind_the_end)
{
	struct fs_node *f, *big;
	struct img img;

	img_make(&img, 16, "-t ext4 -b 4096");
	img_mount(&img);
	must_eq(make_s(img.fs->root, "f", FS_REG, &f), 0);
	must_eq(put(f, 'a', 1000, 0), 0);
	must_eq(make_s(img.fs->root, "big", FS_REG, &big), 0);
	fill_data(big);
	must_eq(put(f, 'b', MIB, 1000), -ENOSPC);
	must_eq(attr(f).size, 1000);
	set_size(f, 4096);
	must(holds(f, 'a', 1000, 0));
	must(holds(f, 0, 3096, 1000));
	fs_node_put(f);
	fs_node_put(big);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_free(&img);
}
END_TEST

/* A file's blocks are taken before they are written, so that they lie together. Who needs them gets them. */
START_TEST(room_that_was_taken_ahead_is_there_for_others)
{
	struct fs_statfs st;
	struct fs_node *f[40], *big;
	uint64_t off = 0;
	struct img img;
	char name[32];

	img_make(&img, 64, "-t ext4 -b 4096 -m 0");
	img_mount(&img);
	for (unsigned i = 0; i < 40; i++) {
		snprintf(name, sizeof name, "f%u", i);
		must_eq(make_s(img.fs->root, name, FS_REG, &f[i]), 0);
		for (uint64_t at = 0; at < 200 * KIB; at += 40 * KIB)
			must_eq(put(f[i], 'a', 40 * KIB, at), 0);
	}
	must_eq(img.fs->ops->sync(img.fs), 0);
	must_eq(make_s(img.fs->root, "big", FS_REG, &big), 0);
	while (put(big, 'b', 64 * KIB, off) == 0)
		off += 64 * KIB;
	/* But for what is kept for metadata. */
	must_eq(img.fs->ops->statfs(img.fs, &st), 0);
	must(st.bytes_free < MIB);
	must_eq(img.fs->ops->freeze(img.fs), 0);
	must_eq(shell("PATH=$PATH:/sbin:/usr/sbin; "
		      "test $(dumpe2fs -h %s 2>/dev/null | sed -n 's/^Free blocks: *//p') -lt 256",
		      img.path),
		0);
	img.fs->ops->thaw(img.fs);
	for (unsigned i = 0; i < 40; i++)
		fs_node_put(f[i]);
	fs_node_put(big);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_free(&img);
}
END_TEST

START_TEST(what_nobody_has_open_has_no_room_taken_ahead)
{
	struct fs_node *f;
	struct img img;
	uint64_t left;

	img_make(&img, 64, "-t ext4 -b 4096");
	img_mount(&img);
	left = ext4_alloc_left(ext4_fs_of(img.fs));
	must_eq(make_s(img.fs->root, "f", FS_REG, &f), 0);
	must_eq(put(f, 'a', 4 * KIB, 0), 0);
	must(ext4_alloc_left(ext4_fs_of(img.fs)) < left - 1);
	fs_node_put(f);
	must_eq(ext4_alloc_left(ext4_fs_of(img.fs)), left - 1);
	img_unmount(&img);
	img_free(&img);
}
END_TEST

/* Removed files are freed a little later, by a thread of their own: who needs an inode gets it, whoever is just freeing it. */
START_TEST(an_inode_that_was_removed_is_there_for_the_next_file)
{
	struct fs_node *f;
	struct img img;
	unsigned n = 0;
	char name[32];

	img_make(&img, 16, "-t ext4 -b 1024 -N 64 -O ^has_journal");
	img_mount(&img);
	while (snprintf(name, sizeof name, "f%u", n) && make_s(img.fs->root, name, FS_REG, &f) == 0) {
		fs_node_put(f);
		n++;
	}
	must(n > 8);
	for (unsigned i = 0; i < 30000 / SLOW; i++) {
		snprintf(name, sizeof name, "f%u", i % n);
		must_eq(img.fs->root->fs->ops->unlink(img.fs->root, name, (uint32_t)strlen(name), 0, NULL), 0);
		for (volatile unsigned k = i * 7919 % 20011; k; k--)
			;
		must_eq(make_s(img.fs->root, name, FS_REG, &f), 0);
		fs_node_put(f);
	}
	img_unmount(&img);
	img_free(&img);
}
END_TEST

/* Four extents, as many as the inode itself has room for: one more needs a block. */
static struct fs_node *four_extents(struct fs *fs, const char *name)
{
	struct fs_node *f;

	must_eq(make_s(fs->root, name, FS_REG, &f), 0);
	for (unsigned i = 0; i < 4; i++)
		must_eq(put(f, (uint8_t)('a' + i), 16 * KIB, i * 64 * KIB), 0);
	must_eq(fs->ops->commit(f, 0, 0), 0);
	return f;
}

/* A hole in the middle of an extent makes two of it. */
START_TEST(a_hole_for_which_there_is_no_room_takes_nothing_away)
{
	struct fs_node *f, *big;
	struct img img;
	int err;

	img_make(&img, 8, _i ? "-t ext4 -b 1024 -N 8000" : "-t ext4 -b 1024 -N 8000 -O ^has_journal");
	img_mount(&img);
	f = four_extents(img.fs, "f");
	must_eq(make_s(img.fs->root, "big", FS_REG, &big), 0);
	fill_all(img.fs, big);
	must_eq(put(f, 'B', 8 * KIB, 68 * KIB), 0);
	err = img.fs->ops->punch(f, 68 * KIB, 8 * KIB);
	must_eq(err, -ENOSPC);
	must(holds(f, 'B', 8 * KIB, 68 * KIB));
	must_eq(img.fs->ops->commit(f, 0, 0), 0);
	fs_node_put(f);
	fs_node_put(big);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_mount(&img);
	must_eq(look(img.fs->root, "f", &f), 0);
	must(holds(f, 'a', 16 * KIB, 0));
	must(holds(f, 'b', 4 * KIB, 64 * KIB));
	must(holds(f, 'B', 8 * KIB, 68 * KIB));
	must(holds(f, 'b', 4 * KIB, 76 * KIB));
	must(holds(f, 'c', 16 * KIB, 128 * KIB));
	/* With room again it is done. */
	must_eq(rm(img.fs->root, "big"), 0);
	must_eq(img.fs->ops->sync(img.fs), 0);
	while ((err = img.fs->ops->punch(f, 68 * KIB, 8 * KIB)) == -ENOSPC)
		usleep(1000);
	must_eq(err, 0);
	must(holds(f, 'b', 4 * KIB, 64 * KIB));
	must(holds(f, 0, 8 * KIB, 68 * KIB));
	must(holds(f, 'b', 4 * KIB, 76 * KIB));
	fs_node_put(f);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_free(&img);
}
END_TEST

/* So does a write into what was reserved: one extent more, or two. */
START_TEST(a_written_part_for_which_there_is_no_room_can_be_committed_later)
{
	struct fs_node *f, *big;
	struct img img;
	int err;

	img_make(&img, 8, "-t ext4 -b 1024 -N 8000");
	img_mount(&img);
	must_eq(make_s(img.fs->root, "f", FS_REG, &f), 0);
	for (unsigned i = 0; i < (_i == 2 ? 3 : 4); i++)
		must_eq(img.fs->ops->alloc(f, i * 64 * KIB, 16 * KIB), 0);
	set_size(f, 208 * KIB);
	must_eq(img.fs->ops->commit(f, 0, 0), 0);
	must_eq(make_s(img.fs->root, "big", FS_REG, &big), 0);
	fill_all(img.fs, big);
	must_eq(put(f, 'B', 8 * KIB, (_i == 1 ? 64 : 68) * KIB), 0);
	must_eq(img.fs->ops->commit(f, 0, 0), -ENOSPC);
	must_eq(rm(img.fs->root, "big"), 0);
	fs_node_put(big);
	while ((err = img.fs->ops->commit(f, 0, 0)) == -ENOSPC)
		usleep(1000);
	must_eq(err, 0);
	fs_node_put(f);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_mount(&img);
	must_eq(look(img.fs->root, "f", &f), 0);
	must(holds(f, 'B', 8 * KIB, (_i == 1 ? 64 : 68) * KIB));
	must(holds(f, 0, 4 * KIB, (_i == 1 ? 72 : 64) * KIB));
	must(holds(f, 0, 4 * KIB, 76 * KIB));
	must_eq(attr(f).size, 208 * KIB);
	fs_node_put(f);
	img_unmount(&img);
	img_free(&img);
}
END_TEST

/* A file's blocks that its tree does not have yet need none for it when they go. */
START_TEST(removing_needs_no_room)
{
	struct fs_node *f, *g, *big;
	struct img img;

	img_make(&img, 8, "-t ext4 -b 1024 -N 8000");
	img_mount(&img);
	must_eq(make_s(img.fs->root, "f", FS_REG, &f), 0);
	must_eq(make_s(img.fs->root, "g", FS_REG, &g), 0);
	for (unsigned i = 0; i < 6; i++) {
		must_eq(put(f, 'a', 4 * KIB, i * 64 * KIB), 0);
		must_eq(put(g, 'a', 4 * KIB, i * 64 * KIB), 0);
	}
	must_eq(make_s(img.fs->root, "big", FS_REG, &big), 0);
	fill_all(img.fs, big);
	must_eq(rm(img.fs->root, "f"), 0);
	fs_node_put(f);
	set_size(g, 0);
	fs_node_put(g);
	fs_node_put(big);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_free(&img);
}
END_TEST

/* ---- room in a transaction ------------------------------------------------------------------------------------------------- */

/* Where the data is takes 144 blocks for 36 MiB; the journal takes 255 of all kinds in one transaction, of which others have some. */
START_TEST(a_file_without_extents_is_stored_in_steps)
{
	struct fs_node *f;
	struct img img;
	char name[256];

	img_make(&img, 64, "-t ext3 -b 1024 -J size=1");
	img_mount(&img);
	must_eq(make_s(img.fs->root, "f", FS_REG, &f), 0);
	for (uint64_t off = 0; off < 36 * MIB; off += MIB)
		must_eq(put(f, 'a', MIB, off), 0);
	for (int i = 0; i < 8 * _i; i++) {
		snprintf(name, sizeof name, "%0240d", i);
		must_eq(ln(f, img.fs->root, name), 0);
	}
	must_eq(img.fs->ops->commit(f, 0, 0), 0);
	must(holds(f, 'a', MIB, 35 * MIB));
	fs_node_put(f);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_free(&img);
}
END_TEST

/* And it goes in steps: 280 blocks say where 70 MiB are. */
START_TEST(a_file_without_extents_is_freed_in_steps)
{
	struct fs_node *f;
	struct img img;
	char name[256];

	img_make(&img, 96, "-t ext3 -b 1024 -J size=1");
	img_mount(&img);
	must_eq(make_s(img.fs->root, "f", FS_REG, &f), 0);
	for (uint64_t off = 0; off < 70 * MIB; off += MIB) {
		must_eq(put(f, 'a', MIB, off), 0);
		if (off % (10 * MIB) == 0)
			must_eq(img.fs->ops->commit(f, 0, 0), 0);
	}
	for (int i = 0; i < 30 * _i; i++) {
		snprintf(name, sizeof name, "%0240d", i);
		must_eq(ln(f, img.fs->root, name), 0);
	}
	set_size(f, 0);
	must_eq(img.fs->ops->sync(img.fs), 0);
	must_eq(put(f, 'a', MIB, 0), 0);
	must_eq(img.fs->ops->commit(f, 0, 0), 0);
	fs_node_put(f);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_free(&img);
}
END_TEST

/* A hole is where it was asked for, whatever blocks of indirect blocks it begins and ends in. */
START_TEST(a_hole_in_a_file_without_extents_is_where_it_should_be)
{
	static const struct {
		uint32_t from, to; /* blocks of 1 KiB */
	} holes[] = {{956, 960},  {313, 1171}, {434, 899},   {467, 669}, {1724, 1725}, {1048, 2060},
		     {268, 600},  {5, 20},     {100, 300},   {11, 269},  {524, 780},   {700, 780},
		     {780, 1037}, {20, 2900},  {2800, 3100}, {0, 13},    {12, 268},    {268, 3000}};
	struct fs_node *f;
	struct img img;

	img_make(&img, 32, _i ? "-t ext3 -b 1024" : "-t ext2 -b 1024");
	img_mount(&img);
	for (unsigned i = 0; i < ARRAY_LEN(holes); i++) {
		uint64_t from = holes[i].from * KIB, to = holes[i].to * KIB;

		must_eq(make_s(img.fs->root, "f", FS_REG, &f), 0);
		must_eq(put(f, 'a', 3 * MIB, 0), 0);
		must_eq(img.fs->ops->commit(f, 0, 0), 0);
		must_eq(img.fs->ops->punch(f, from, to - from), 0);
		fs_node_put(f);
		img_unmount(&img);
		must_eq(img_fsck(&img), 0);
		img_mount(&img);
		must_eq(look(img.fs->root, "f", &f), 0);
		to = to < 3 * MIB ? to : 3 * MIB;
		must(holds(f, 'a', (uint32_t)from, 0));
		must(holds(f, 0, (uint32_t)(to - from), from));
		must(holds(f, 'a', (uint32_t)(3 * MIB - to), to));
		must(attr(f).space < 3 * MIB + 16 * KIB - (to - from));
		must_eq(rm(img.fs->root, "f"), 0);
		fs_node_put(f);
	}
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_free(&img);
}
END_TEST

/* ---- what an image may ask for ---------------------------------------------------------------------------------------------- */

static void change_inode(struct img *img, const char *name, void (*fn)(ext2_filsys e2, struct ext2_inode *i))
{
	struct ext2_inode i;
	ext2_ino_t ino;
	ext2_filsys e2;

	must_eq((int)ext2fs_open(img->path, EXT2_FLAG_RW | EXT2_FLAG_64BITS, 0, 0, unix_io_manager, &e2), 0);
	must_eq((int)ext2fs_read_bitmaps(e2), 0);
	must_eq((int)ext2fs_namei(e2, EXT2_ROOT_INO, EXT2_ROOT_INO, name, &ino), 0);
	must_eq((int)ext2fs_read_inode(e2, ino, &i), 0);
	fn(e2, &i);
	must_eq((int)ext2fs_write_inode(e2, ino, &i), 0);
	must_eq((int)ext2fs_close_free(&e2), 0);
}

/* A block of block numbers that are all the same. */
static blk_t block_of(ext2_filsys e2, blk_t all)
{
	uint32_t b[256];
	blk64_t p;

	for (unsigned i = 0; i < 256; i++)
		b[i] = all;
	must_eq((int)ext2fs_new_block2(e2, 1000, NULL, &p), 0);
	ext2fs_block_alloc_stats2(e2, p, +1);
	must_eq((int)io_channel_write_blk64(e2->io, p, 1, b), 0);
	return (blk_t)p;
}

static void many_from_three(ext2_filsys e2, struct ext2_inode *i)
{
	i->i_block[EXT2_TIND_BLOCK] = block_of(e2, block_of(e2, block_of(e2, i->i_block[0])));
}

/* Three blocks that say 16 million times where the data is would take 400 MB to remember. */
START_TEST(an_indirect_block_that_is_used_twice_is_damage)
{
	struct cache_seg seg[8];
	struct fs_node *f;
	struct img img;
	bool eof;

	img_make(&img, 8, "-t ext2 -b 1024");
	img_mount(&img);
	must_eq(make_s(img.fs->root, "f", FS_REG, &f), 0);
	must_eq(put(f, 'a', KIB, 0), 0);
	fs_node_put(f);
	img_unmount(&img);
	change_inode(&img, "f", many_from_three);
	img_mount(&img);
	must_eq(look(img.fs->root, "f", &f), 0);
	must_eq(img.fs->ops->read(f, 0, KIB, 0, seg, 8, &eof), -EUCLEAN);
	fs_node_put(f);
	img_unmount(&img);
	img_free(&img);
}
END_TEST

/* Superblocks that libext2fs takes. */
START_TEST(a_file_system_that_begins_elsewhere_is_refused)
{
	static const struct {
		const char *mkfs;
		uint32_t at, value;
	} odd[] = {{"-t ext2 -b 1024", 20, 255},
		   {"-t ext2 -b 1024", 20, 0},
		   {"-t ext2 -b 4096", 20, 1},
		   {"-t ext2 -b 1024", 84, 3},
		   {"-t ext2 -b 1024", 84, 10}};
	struct vhd_open_opts o = {.flags = VHD_OPEN_WRITE};
	struct fs_mount_opts mo = {.relatime = true};

	for (unsigned i = 0; i < ARRAY_LEN(odd); i++) {
		struct why why = {.line = ""};
		struct img img;
		int fd;

		img_make(&img, 16, odd[i].mkfs);
		fd = open(img.path, O_RDWR);
		must_eq(pwrite(fd, &odd[i].value, 4, 1024 + (off_t)odd[i].at), 4);
		must_eq(close(fd), 0);
		must_eq(vhd_open(&img.vhd, img.path, &o, NULL), 0);
		must_eq(cache_new(&img.cache, 8 * MIB), 0);
		must_eq(cache_attach(img.cache, img.vhd, 0, vhd_size(img.vhd), &img.dev), 0);
		must_eq(ext4_driver.mount(img.dev, &mo, &img.fs, &why), -EUCLEAN);
		must_eq(cache_detach(img.dev), 0);
		cache_free(img.cache);
		must_eq(vhd_close(img.vhd), 0);
		img.fs = NULL;
		img_free(&img);
	}
}
END_TEST

static struct ext3_extent_header *root_of(struct ext2_inode *i)
{
	must(i->i_flags & EXT4_EXTENTS_FL);
	return (struct ext3_extent_header *)i->i_block;
}

static void swap_extents(ext2_filsys e2, struct ext2_inode *i)
{
	struct ext3_extent *x = (struct ext3_extent *)(root_of(i) + 1), first = x[0];

	(void)e2;
	must_eq(root_of(i)->eh_entries, 4);
	x[0] = x[1];
	x[1] = first;
}

/* Putting many where they belong would take hours. */
START_TEST(extents_that_are_not_in_order_are_damage)
{
	struct cache_seg seg[8];
	struct fs_node *f;
	struct img img;
	bool eof;

	img_make(&img, 8, "-t ext4 -b 1024");
	img_mount(&img);
	fs_node_put(four_extents(img.fs, "f"));
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	change_inode(&img, "f", swap_extents);
	img_mount(&img);
	must_eq(look(img.fs->root, "f", &f), 0);
	must_eq(img.fs->ops->read(f, 0, KIB, 0, seg, 8, &eof), -EUCLEAN);
	fs_node_put(f);
	img_unmount(&img);
	img_free(&img);
}
END_TEST

static uint32_t leaf;

static void find_leaf(ext2_filsys e2, struct ext2_inode *i)
{
	(void)e2;
	must_eq(root_of(i)->eh_depth, 1);
	leaf = ((struct ext3_extent_idx *)(root_of(i) + 1))->ei_leaf;
}

static void over_leaf(ext2_filsys e2, struct ext2_inode *i)
{
	(void)e2;
	((struct ext3_extent *)(root_of(i) + 1))->ee_start = leaf;
}

/* Who writes to one file changes the tree of another, after that was looked at. */
START_TEST(a_tree_that_changes_later_does_not_lead_astray)
{
	uint8_t b[1024] = {0};
	struct ext3_extent_header *h = (struct ext3_extent_header *)b;
	struct ext3_extent *x = (struct ext3_extent *)(h + 1);
	struct iovec iov = {b, sizeof b};
	struct fs_setattr cut = {.what = FS_SET_SIZE};
	struct fs_node *f, *over;
	struct img img;

	img_make(&img, 8, "-t ext4 -b 1024 -O ^metadata_csum,^has_journal");
	img_mount(&img);
	must_eq(make_s(img.fs->root, "f", FS_REG, &f), 0);
	for (unsigned i = 0; i < 8; i++)
		must_eq(put(f, 'a', KIB, i * 8 * KIB), 0);
	fs_node_put(f);
	must_eq(make_s(img.fs->root, "over", FS_REG, &f), 0);
	must_eq(put(f, 'a', KIB, 0), 0);
	fs_node_put(f);
	img_unmount(&img);
	change_inode(&img, "f", find_leaf);
	change_inode(&img, "over", over_leaf);
	img_mount(&img);
	must_eq(look(img.fs->root, "f", &f), 0);
	must_eq(look(img.fs->root, "over", &over), 0);
	must(holds(f, 'a', KIB, 8 * KIB));
	*h = (struct ext3_extent_header){.eh_magic = EXT3_EXT_MAGIC, .eh_entries = 1, .eh_max = 84};
	*x = (struct ext3_extent){.ee_block = 8,
				  .ee_len = _i == 3 ? 0 : 100,
				  .ee_start = _i == 3 ? 1
					      : _i    ? 0x7fffffff
						      : 0,
				  .ee_start_hi = _i == 2 ? 0xffff : 0};
	must_eq(img.fs->ops->write(over, 0, &iov, 1, sizeof b, 0), 0);
	must_eq(img.fs->ops->setattr(f, &cut, NULL), -EUCLEAN);
	fs_node_put(f);
	fs_node_put(over);
	img_unmount(&img);
	img_free(&img);
}
END_TEST

/* ---- times ------------------------------------------------------------------------------------------------------------------------ */

/* Small inodes have 32 bits for seconds, others 34. */
START_TEST(a_time_that_does_not_fit_becomes_the_nearest_that_does)
{
	const int64_t last = _i ? (INT64_C(1) << 34) + INT32_MIN - 1 : INT32_MAX;
	const struct {
		int64_t set, kept;
	} times[] = {{0, 0},
		     {-1, -1},
		     {INT32_MIN, INT32_MIN},
		     {INT64_C(1) + INT32_MAX, _i ? INT64_C(1) + INT32_MAX : INT32_MAX},
		     {last, last},
		     {last + 1, last},
		     {INT64_MAX, last},
		     {INT64_C(-1) + INT32_MIN, INT32_MIN},
		     {INT64_MIN, INT32_MIN}};
	struct fs_node *f;
	struct img img;

	img_make(&img, 8, _i ? "-t ext4 -I 256" : "-t ext4 -I 128");
	img_mount(&img);
	must_eq(make_s(img.fs->root, "f", FS_REG, &f), 0);
	for (unsigned i = 0; i < ARRAY_LEN(times); i++) {
		struct fs_setattr s = {.what = FS_SET_ATIME | FS_SET_MTIME,
				       .atime = {.sec = times[i].set, .nsec = 5},
				       .mtime = {.sec = times[i].set}};

		must_eq(img.fs->ops->setattr(f, &s, NULL), 0);
		must_eq(attr(f).atime.sec, times[i].kept);
		must_eq(attr(f).mtime.sec, times[i].kept);
	}
	fs_node_put(f);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_free(&img);
}
END_TEST

/* ---- what the superblock says ------------------------------------------------------------------------------------------------ */

/* A file of more than 2 GiB makes a file system one with large files. */
START_TEST(the_first_large_file_is_said_in_the_superblock)
{
	struct fs_node *f;
	struct img img;

	img_make(&img, 16, _i ? "-t ext4 -O ^large_file" : "-t ext4 -O ^large_file,^has_journal");
	img_mount(&img);
	must_eq(make_s(img.fs->root, "f", FS_REG, &f), 0);
	must_eq(img.fs->ops->sync(img.fs), 0);
	set_size(f, UINT64_C(3) << 30);
	must_eq(img.fs->ops->freeze(img.fs), 0);
	must_eq(shell("PATH=$PATH:/sbin:/usr/sbin; dumpe2fs -h %s 2>/dev/null | grep -q large_file", img.path), 0);
	img.fs->ops->thaw(img.fs);
	fs_node_put(f);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_free(&img);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ext4 limits");
	TCase *t = tcase_create("ext4 limits");
	SRunner *r;
	int failed;

	if (system("PATH=$PATH:/sbin:/usr/sbin; command -v mke2fs >/dev/null")) {
		puts("mke2fs is missing");
		return 77;
	}
	tcase_set_timeout(t, 120);
	tcase_add_test(t, a_write_that_fails_leaves_zeros_behind_the_end);
	tcase_add_test(t, room_that_was_taken_ahead_is_there_for_others);
	tcase_add_test(t, what_nobody_has_open_has_no_room_taken_ahead);
	tcase_add_test(t, an_inode_that_was_removed_is_there_for_the_next_file);
	tcase_add_loop_test(t, a_hole_for_which_there_is_no_room_takes_nothing_away, 0, 2);
	tcase_add_loop_test(t, a_written_part_for_which_there_is_no_room_can_be_committed_later, 0, 3);
	tcase_add_test(t, removing_needs_no_room);
	tcase_add_loop_test(t, a_file_without_extents_is_stored_in_steps, 0, 12);
	tcase_add_loop_test(t, a_file_without_extents_is_freed_in_steps, 0, 12);
	tcase_add_loop_test(t, a_hole_in_a_file_without_extents_is_where_it_should_be, 0, 2);
	tcase_add_test(t, an_indirect_block_that_is_used_twice_is_damage);
	tcase_add_test(t, a_file_system_that_begins_elsewhere_is_refused);
	tcase_add_test(t, extents_that_are_not_in_order_are_damage);
	tcase_add_loop_test(t, a_tree_that_changes_later_does_not_lead_astray, 0, 4);
	tcase_add_loop_test(t, a_time_that_does_not_fit_becomes_the_nearest_that_does, 0, 2);
	tcase_add_loop_test(t, the_first_large_file_is_said_in_the_superblock, 0, 2);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_ext4_data.c - file data in ext4 against a shadow copy; e2fsck judges what is left behind
 *
 * The file system is made by mke2fs inside a fixed VHD, which e2fsck can read as it is.
 */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vhd/base/cleanup.h"
#include "vhd/volume/fs.h"

#define FILE_MAX (3u << 20)

static char dir[64], path[96];
static struct vhd *vhd;
static struct cache *cache;
static struct cache_dev *dev;
static struct fs *fs;
static bool discard;

static const char *const kinds[] = {
	"-t ext4 -b 4096", "-t ext4 -b 1024", "-t ext4 -b 2048 -I 128 -O ^metadata_csum",
	"-t ext2 -b 1024", "-t ext3 -b 4096",
};

static int run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int run(const char *fmt, ...)
{
	char cmd[600];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(cmd, sizeof cmd, fmt, ap);
	va_end(ap);
	return system(cmd);
}

static void mount_it(void)
{
	const struct vhd_open_opts o = {.flags = VHD_OPEN_WRITE};
	const struct fs_mount_opts m = {.relatime = true, .discard = discard};
	struct why why = {.line = ""};
	int err;

	ck_assert_int_eq(vhd_open(&vhd, path, &o, NULL), 0);
	ck_assert_int_eq(cache_new(&cache, 8 << 20), 0);
	ck_assert_int_eq(cache_attach(cache, vhd, 0, vhd_size(vhd), &dev), 0);
	ck_assert_int_eq(ext4_driver.probe(dev), 1);
	err = ext4_driver.mount(dev, &m, &fs, &why);
	ck_assert_msg(err == 0, "%d %s", err, why.line);
	ck_assert_msg(!fs->read_only, "%s", why.line);
}

static void unmount_only(void)
{
	ck_assert_int_eq(fs->ops->unmount(fs), 0);
	ck_assert_int_eq(cache_detach(dev), 0);
	cache_free(cache);
	ck_assert_int_eq(vhd_close(vhd), 0);
}

static void unmount_it(void)
{
	unmount_only();
	ck_assert_int_eq(run("PATH=$PATH:/sbin:/usr/sbin; e2fsck -fn %s >%s/log 2>&1 || { cat %s/log; exit 1; }", path,
			     dir, dir),
			 0);
}

static void make(const char *opts, unsigned mib)
{
	const struct vhd_create_opts o = {.type = VHD_FIXED, .size = (uint64_t)mib << 20};

	snprintf(dir, sizeof dir, "%s/vhdnfs-ext4-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/a.vhd", dir);
	ck_assert_int_eq(vhd_create(path, &o, NULL), 0);
	ck_assert_int_eq(run("PATH=$PATH:/sbin:/usr/sbin; mke2fs -q -F %s %s %uM", opts, path, mib), 0);
}

static void drop(void)
{
	ck_assert_int_eq(run("rm -rf %s", dir), 0);
}

static uint64_t seed = 42;
static uint64_t rnd(uint64_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed % below;
}

static struct fs_node *new_file(const char *name)
{
	const struct fs_create c = {.type = FS_REG, .set = {.mode = 0644}};
	struct fs_cinfo ci;
	struct fs_node *n;

	ck_assert_int_eq(fs->ops->create(fs->root, name, (uint32_t)strlen(name), &c, &n, &ci), 0);
	return n;
}

static int put(struct fs_node *n, const void *p, uint32_t len, uint64_t off)
{
	struct iovec iov = {(void *)(uintptr_t)p, len};
	int err = fs->ops->write(n, off, &iov, 1, len, FS_NOWAIT);

	return err == -EAGAIN ? fs->ops->write(n, off, &iov, 1, len, 0) : err;
}

static uint32_t get(struct fs_node *n, uint8_t *p, uint32_t len, uint64_t off)
{
	AUTO(freep) struct cache_seg *seg = calloc(fs_seg_max(len), sizeof *seg);
	uint32_t total = 0;
	bool eof;
	int k = fs->ops->read(n, off, len, FS_NOWAIT, seg, fs_seg_max(len), &eof);

	if (k == -EAGAIN)
		k = fs->ops->read(n, off, len, 0, seg, fs_seg_max(len), &eof);
	ck_assert_int_ge(k, 0);
	for (int i = 0; i < k; i++) {
		memcpy(p + total, seg[i].base, seg[i].len);
		total += seg[i].len;
	}
	cache_unpin(seg, (unsigned)k);
	return total;
}

static void same(struct fs_node *n, const uint8_t *shadow, uint64_t size)
{
	AUTO(freep) uint8_t *buf = malloc(FILE_MAX);
	struct fs_attr a;

	ck_assert_int_eq(fs->ops->getattr(n, 0, &a), 0);
	ck_assert_uint_eq(a.size, size);
	ck_assert_uint_eq(get(n, buf, FILE_MAX, 0), size);
	ck_assert_mem_eq(buf, shadow, size);
}

/* Random writes, truncates, punches and reservations; remounted now and then. */
START_TEST(file_data_is_what_was_written)
{
	AUTO(freep) uint8_t *shadow = calloc(1, FILE_MAX);
	AUTO(freep) uint8_t *buf = malloc(FILE_MAX);
	struct fs_node *n;
	uint64_t size = 0, ino;
	uint32_t gen;

	make(kinds[_i], 32);
	mount_it();
	n = new_file("data");
	for (int i = 0; i < 400; i++) {
		uint64_t off = rnd(FILE_MAX), len = 1 + rnd(i % 8 ? 6000 : 400000), end;
		struct fs_setattr s = {.what = FS_SET_SIZE};

		len = len < FILE_MAX - off ? len : FILE_MAX - off;
		end = off + len;
		switch (rnd(10)) {
		case 0:
			s.size = off;
			ck_assert_int_eq(fs->ops->setattr(n, &s, NULL), 0);
			if (off < size)
				memset(shadow + off, 0, size - off);
			size = off;
			break;
		case 1:
			ck_assert_int_eq(fs->ops->punch(n, off, len), 0);
			if (off < size)
				memset(shadow + off, 0, (end < size ? end : size) - off);
			break;
		case 2:
			ck_assert_int_eq(fs->ops->alloc(n, off, len), 0);
			size = end > size ? end : size;
			break;
		case 3:
			ck_assert_int_eq(fs->ops->commit(n, off, len), 0);
			break;
		case 4:
			same(n, shadow, size);
			break;
		default:
			memset(buf, (int)(1 + rnd(255)), len);
			ck_assert_int_eq(put(n, buf, (uint32_t)len, off), 0);
			memcpy(shadow + off, buf, len);
			size = end > size ? end : size;
		}
		if (i % 100 == 99) {
			ino = n->ino;
			gen = n->gen;
			fs_node_put(n);
			unmount_it();
			mount_it();
			ck_assert_int_eq(fs->ops->get(fs, ino, gen, 0, &n), 0);
			same(n, shadow, size);
		}
	}
	same(n, shadow, size);
	fs_node_put(n);
	unmount_it();
	drop();
}
END_TEST

/* Whatever another system left in the last block behind the end, and in blocks behind that, is never seen: data.c. */
#define TAIL_SIZE 1000u
#define TAIL_BYTES 20000u

static void leave_tails(unsigned files)
{
	mount_it();
	for (unsigned i = 0; i < files; i++) {
		AUTO(freep) uint8_t *b = malloc(TAIL_BYTES);
		char name[8];
		struct fs_node *n;

		snprintf(name, sizeof name, "f%u", i);
		n = new_file(name);
		memset(b, 'A' + (int)i, TAIL_BYTES);
		ck_assert_int_eq(put(n, b, TAIL_BYTES, 0), 0);
		fs_node_put(n);
	}
	unmount_it();
	for (unsigned i = 0; i < files; i++)
		ck_assert_int_eq(
			run("PATH=$PATH:/sbin:/usr/sbin; debugfs -w -R 'set_inode_field f%u size %u' %s 2>/dev/null", i,
			    TAIL_SIZE, path),
			0);
}

/* The ways in which a file grows to @to. */
static int grow(struct fs_node *n, unsigned how, uint64_t to)
{
	const struct fs_setattr s = {.what = FS_SET_SIZE, .size = to};

	switch (how) {
	case 0:
		return fs->ops->setattr(n, &s, NULL);
	case 1:
		return put(n, "", 1, to - 1);
	case 2:
		return fs->ops->alloc(n, 0, to);
	default: /* a byte right behind the end, and then the rest */
		ck_assert_int_eq(put(n, "", 1, TAIL_SIZE), 0);
		return fs->ops->setattr(n, &s, NULL);
	}
}

START_TEST(what_lies_behind_the_end_of_a_file_is_zeros_when_it_grows)
{
	static const uint64_t sizes[] = {TAIL_SIZE + 2, 4000, 4096, 5000, 16384, TAIL_BYTES, 40000};
	AUTO(freep) uint8_t *want = calloc(1, FILE_MAX);

	make(kinds[_i], 16);
	leave_tails(4 * (unsigned)ARRAY_LEN(sizes));
	mount_it();
	for (unsigned again = 0; again < 2; again++) {
		for (unsigned i = 0; i < 4 * ARRAY_LEN(sizes); i++) {
			struct fs_node *n;
			char name[8];

			snprintf(name, sizeof name, "f%u", i);
			ck_assert_int_eq(fs->ops->lookup(fs->root, name, (uint32_t)strlen(name), 0, &n), 0);
			if (!again)
				ck_assert_int_eq(grow(n, i % 4, sizes[i / 4]), 0);
			memset(want, 'A' + (int)i, TAIL_SIZE);
			same(n, want, sizes[i / 4]);
			fs_node_put(n);
		}
		unmount_only();
		mount_it();
	}
	unmount_only();
	drop();
}
END_TEST

START_TEST(an_unlinked_file_is_readable_until_it_is_put)
{
	struct fs_statfs before, after;
	struct fs_cinfo ci;
	struct fs_node *n, *again;
	uint8_t b[8192], c[8192];
	uint64_t ino;
	uint32_t gen;

	make(kinds[0], 16);
	mount_it();
	ck_assert_int_eq(fs->ops->statfs(fs, &before), 0);
	n = new_file("gone");
	memset(b, 9, sizeof b);
	ck_assert_int_eq(put(n, b, sizeof b, 100000), 0);
	ck_assert_int_eq(fs->ops->unlink(fs->root, "gone", 4, 0, &ci), 0);
	ck_assert_uint_eq(get(n, c, sizeof c, 100000), sizeof c);
	ck_assert_mem_eq(b, c, sizeof b);
	ino = n->ino;
	gen = n->gen;
	fs_node_put(n);
	for (int i = 0; i < 100; i++) {
		ck_assert_int_eq(fs->ops->statfs(fs, &after), 0);
		if (after.bytes_free == before.bytes_free && after.files_free == before.files_free)
			break;
		usleep(20000);
	}
	ck_assert_uint_eq(after.bytes_free, before.bytes_free);
	ck_assert_uint_eq(after.files_free, before.files_free);
	ck_assert_int_eq(fs->ops->get(fs, ino, gen, 0, &again), -ESTALE);
	unmount_it();
	drop();
}
END_TEST

/* node.c: between the last put and the freeing, a filehandle may find the inode again, any number of times. */
START_TEST(a_removed_file_that_is_found_again_before_it_is_freed_is_freed_once)
{
	const struct fs_create c = {.type = FS_REG, .set = {.what = FS_SET_MODE, .mode = 0644}};
	struct fs_node *n, *again;
	struct fs_statfs before, after;
	struct fs_cinfo ci;

	make(kinds[0], 32);
	mount_it();
	ck_assert_int_eq(fs->ops->statfs(fs, &before), 0);
	for (int i = 0; i < 300; i++) {
		uint64_t ino;
		uint32_t gen;

		ck_assert_int_eq(fs->ops->create(fs->root, "f", 1, &c, &n, &ci), 0);
		ino = n->ino;
		gen = n->gen;
		ck_assert_int_eq(fs->ops->unlink(fs->root, "f", 1, 0, &ci), 0);
		fs_node_put(n);
		while (fs->ops->get(fs, ino, gen, FS_NOWAIT, &again) == 0)
			fs_node_put(again);
		ck_assert_int_eq(fs->ops->get(fs, ino, gen, 0, &again), -ESTALE);
	}
	ck_assert_int_eq(fs->ops->statfs(fs, &after), 0);
	ck_assert_uint_eq(before.files_free, after.files_free);
	unmount_it();
	drop();
}
END_TEST

/* Somebody else cuts the image short, removes it, or puts another in its place: no change is taken that would be lost with it. */
enum { CUT, REMOVED, REPLACED };

static void disturb(int how, const char *moved)
{
	switch (how) {
	case CUT:
		ck_assert_int_eq(truncate(path, 8 << 20), 0);
		break;
	case REMOVED:
		ck_assert_int_eq(unlink(path), 0);
		break;
	default:
		ck_assert_int_eq(rename(path, moved), 0);
		ck_assert_int_eq(run("cp %s %s", moved, path), 0);
	}
}

START_TEST(an_image_that_others_disturb_is_changed_no_more)
{
	char moved[120];
	struct fs_node *n, *late, *no;
	const struct fs_create c = {.type = FS_REG};
	struct fs_cinfo ci;
	uint8_t b[5];
	int err = 0;

	make(kinds[0], 16);
	snprintf(moved, sizeof moved, "%s/moved.vhd", dir);
	mount_it();
	n = new_file("early");
	ck_assert_int_eq(put(n, "hello", 5, 0), 0);
	ck_assert_int_eq(fs->ops->commit(n, 0, 0), 0);
	late = new_file("late");
	ck_assert_int_eq(put(late, "world", 5, 0), 0);
	disturb(_i, moved);
	for (int i = 0; i < 600 && !err; i++) {
		err = put(n, "hello", 5, 0);
		usleep(100000);
	}
	ck_assert_int_eq(err, -EIO);
	ck_assert_int_eq(fs->ops->create(fs->root, "no", 2, &c, &no, &ci), -EIO);
	ck_assert_uint_eq(get(n, b, 5, 0), 5); /* and what there is can be read */
	ck_assert_mem_eq(b, "hello", 5);
	fs_node_put(n);
	fs_node_put(late);
	(void)fs->ops->unmount(fs);
	(void)cache_detach(dev);
	cache_free(cache);
	(void)vhd_close(vhd);
	if (_i == REPLACED) { /* what was done before is where the data is */
		ck_assert_int_eq(rename(moved, path), 0);
		mount_it();
		ck_assert_int_eq(fs->ops->lookup(fs->root, "late", 4, 0, &late), 0);
		ck_assert_uint_eq(get(late, b, 5, 0), 5);
		ck_assert_mem_eq(b, "world", 5);
		fs_node_put(late);
		unmount_it();
	}
	drop();
}
END_TEST

START_TEST(a_full_file_system_says_so_at_the_write)
{
	AUTO(freep) uint8_t *buf = calloc(1, 1 << 20);
	struct fs_node *n;
	struct fs_attr a;
	uint64_t off = 0;
	int err;

	make(kinds[0], 16);
	mount_it();
	n = new_file("big");
	while ((err = put(n, buf, 1 << 20, off)) == 0)
		off += 1 << 20;
	ck_assert_int_eq(err, -ENOSPC);
	ck_assert_uint_gt(off, 4 << 20);
	/* What was answered with success can be committed. */
	ck_assert_int_eq(fs->ops->commit(n, 0, 0), 0);
	ck_assert_int_eq(fs->ops->getattr(n, 0, &a), 0);
	ck_assert_uint_eq(a.size, off);
	fs_node_put(n);
	unmount_it();
	drop();
}
END_TEST

/* What could not be had whole is given back, beyond the end of the file too. */
START_TEST(an_allocation_that_fails_takes_nothing)
{
	struct fs_statfs before, after;
	struct fs_attr a;
	struct fs_node *n;

	for (unsigned kind = 0; kind < ARRAY_LEN(kinds); kind++) {
		make(kinds[kind], 16);
		mount_it();
		n = new_file("f");
		ck_assert_int_eq(put(n, "hello", 5, 0), 0);
		ck_assert_int_eq(fs->ops->commit(n, 0, 0), 0);
		ck_assert_int_eq(fs->ops->statfs(fs, &before), 0);
		ck_assert_int_eq(fs->ops->alloc(n, 0, before.bytes_free * 2), -ENOSPC);
		ck_assert_int_eq(fs->ops->statfs(fs, &after), 0);
		ck_assert_uint_ge(after.bytes_free + 65536, before.bytes_free); /* the map's own blocks may stay */
		ck_assert_int_eq(fs->ops->getattr(n, 0, &a), 0);
		ck_assert_uint_eq(a.size, 5);
		fs_node_put(n);
		unmount_it();
		drop();
	}
}
END_TEST

/* Logical blocks have 32 bits: a size that needs more is damage, however it comes about. */
START_TEST(an_inode_with_an_impossible_size_is_refused)
{
	struct fs_node *n;

	make(kinds[0], 16);
	mount_it();
	n = new_file("f");
	ck_assert_int_eq(put(n, "hello", 5, 0), 0);
	fs_node_put(n);
	unmount_it();
	ck_assert_int_eq(run("PATH=$PATH:/sbin:/usr/sbin; debugfs -w -R 'set_inode_field f size 0x7fffffffffffff' %s "
			     "2>/dev/null",
			     path),
			 0);
	mount_it();
	ck_assert_int_eq(fs->ops->lookup(fs->root, "f", 1, 0, &n), -EUCLEAN);
	unmount_only();
	drop();
}
END_TEST

/* A file that is made to lie over the inode table cannot be used to write over it. */
START_TEST(a_file_over_the_file_systems_own_blocks_is_refused)
{
	struct cache_seg seg[4];
	struct fs_node *n;
	bool eof;

	make("-t ext2 -b 4096", 16);
	mount_it();
	n = new_file("f");
	ck_assert_int_eq(put(n, "hello", 5, 0), 0);
	fs_node_put(n);
	unmount_it();
	ck_assert_int_eq(
		run("PATH=$PATH:/sbin:/usr/sbin; "
		    "t=$(dumpe2fs %s 2>/dev/null | sed -n 's/.*Inode table at \\([0-9]*\\)-.*/\\1/p' | head -n 1); "
		    "debugfs -w -R \"set_inode_field f block[0] $t\" %s 2>/dev/null",
		    path, path),
		0);
	mount_it();
	ck_assert_int_eq(fs->ops->lookup(fs->root, "f", 1, 0, &n), 0);
	ck_assert_int_eq(put(n, "overwritten", 11, 0), -EUCLEAN);
	ck_assert_int_eq(fs->ops->read(n, 0, 4096, 0, seg, 4, &eof), -EUCLEAN);
	fs_node_put(n);
	unmount_only();
	drop();
}
END_TEST

static bool in_memory(struct fs_node *n, uint64_t from, uint64_t to)
{
	struct cache_seg seg[40];
	bool eof;

	for (uint64_t at = from; at < to; at += 65536) {
		int k = fs->ops->read(n, at, 65536, FS_NOWAIT, seg, 40, &eof);

		if (k < 0)
			return false;
		cache_unpin(seg, (unsigned)k);
	}
	return true;
}

/* A file of which nothing is in memory, in a fresh mount. */
static struct fs_node *cold_file(const char *name, uint64_t size)
{
	AUTO(freep) uint8_t *b = malloc(size);
	struct fs_node *n = new_file(name);

	memset(b, 7, size);
	ck_assert_int_eq(put(n, b, (uint32_t)size, 0), 0);
	fs_node_put(n);
	unmount_it();
	mount_it();
	ck_assert_int_eq(fs->ops->lookup(fs->root, name, (uint32_t)strlen(name), 0, &n), 0);
	return n;
}

/* trim.c: of what is freed the host gets its space back, and nothing else is touched. */
START_TEST(the_host_gets_back_the_space_of_removed_files)
{
	AUTO(freep) uint8_t *b = malloc(1 << 20), *r = malloc(1 << 20);
	struct fs_cinfo ci;
	struct fs_node *n, *keep;
	struct stat before, after;

	make(kinds[_i], 32);
	discard = true;
	mount_it();
	memset(b, 0x5a, 1 << 20);
	keep = new_file("keep");
	n = new_file("go");
	for (unsigned i = 0; i < 8; i++) {
		ck_assert_int_eq(put(keep, b, 1 << 20, (uint64_t)i << 20), 0);
		ck_assert_int_eq(put(n, b, 1 << 20, (uint64_t)i << 20), 0);
	}
	ck_assert_int_eq(fs->ops->sync(fs), 0);
	ck_assert_int_eq(stat(path, &before), 0);
	ck_assert_int_eq(fs->ops->unlink(fs->root, "go", 2, 0, &ci), 0);
	fs_node_put(n);
	for (int i = 0; i < 400; i++) {
		/* Others go on meanwhile, into the space that comes free too. */
		n = new_file("other");
		ck_assert_int_eq(put(n, b, 100000, 0), 0);
		fs_node_put(n);
		ck_assert_int_eq(fs->ops->unlink(fs->root, "other", 5, 0, &ci), 0);
		ck_assert_int_eq(stat(path, &after), 0);
		if (after.st_blocks < before.st_blocks - (7 << 20) / 512)
			break;
		usleep(50000);
	}
	ck_assert_msg(after.st_blocks < before.st_blocks - (7 << 20) / 512, "%lld blocks, then %lld",
		      (long long)before.st_blocks, (long long)after.st_blocks);
	for (unsigned i = 0; i < 8; i++) {
		ck_assert_int_eq(get(keep, r, 1 << 20, (uint64_t)i << 20), 1 << 20);
		ck_assert_int_eq(memcmp(b, r, 1 << 20), 0);
	}
	fs_node_put(keep);
	unmount_it();
	drop();
	discard = false;
}
END_TEST

static int advise(struct fs_node *n, uint64_t off, uint64_t len, enum fs_advice how, unsigned flags)
{
	struct fs_hint h = {.off = off, .len = len, .how = how, .flags = flags, .alone = true};

	return fs->ops->advise(n, &h);
}

START_TEST(what_will_be_needed_is_read_without_being_asked_for)
{
	struct fs_node *n;

	make(kinds[0], 32);
	mount_it();
	n = cold_file("f", 2 << 20);
	ck_assert(!in_memory(n, 0, 2 << 20));
	/* Only the maps, then a part, with the rest beyond the end of the file. */
	ck_assert_int_eq(advise(n, 0, 0, FS_MAPS, 0), 0);
	ck_assert(!in_memory(n, 0, 65536));
	ck_assert_int_eq(advise(n, 1 << 20, 1ull << 40, FS_WILLNEED, 0), 0);
	for (int i = 0; i < 500 && !in_memory(n, 1 << 20, 2 << 20); i++)
		usleep(10000);
	ck_assert(in_memory(n, 1 << 20, 2 << 20));
	ck_assert(!in_memory(n, 0, 65536));
	fs_node_put(n);
	unmount_it();
	drop();
}
END_TEST

/* And each change of the length is counted. */
START_TEST(a_hint_beyond_the_end_is_told_where_the_end_is)
{
	struct fs_hint h = {.off = 1 << 20, .len = 2 << 20, .how = FS_WILLNEED};
	struct fs_setattr cut = {.what = FS_SET_SIZE, .size = 1 << 20};
	struct fs_node *n;
	unsigned sized;

	make(kinds[0], 32);
	mount_it();
	n = cold_file("f", 2 << 20);
	ck_assert_int_eq(fs->ops->advise(n, &h), 0);
	ck_assert(h.at_end);
	ck_assert_uint_eq(h.taken, 2 << 20);
	h = (struct fs_hint){.off = 0, .len = 1 << 20, .how = FS_WILLNEED};
	ck_assert_int_eq(fs->ops->advise(n, &h), 0);
	ck_assert(!h.at_end);
	sized = atomic_load(&n->stream.sized);
	ck_assert_int_eq(put(n, "x", 1, (2 << 20) - 1), 0);
	ck_assert_uint_eq(atomic_load(&n->stream.sized), sized);
	ck_assert_int_eq(put(n, "x", 1, 2 << 20), 0);
	ck_assert_uint_ne(atomic_load(&n->stream.sized), sized);
	sized = atomic_load(&n->stream.sized);
	ck_assert_int_eq(fs->ops->setattr(n, &cut, NULL), 0);
	ck_assert_uint_ne(atomic_load(&n->stream.sized), sized);
	fs_node_put(n);
	unmount_it();
	drop();
}
END_TEST

/* Data, a hole and data; and more runs than are taken on at a time. */
START_TEST(downwards_the_runs_of_a_file_come_from_its_end)
{
	enum { RUNS = 40, BLOCK = 4096 };
	struct fs_hint h = {.len = 3 << 20, .how = FS_WILLNEED, .down = true};
	struct fs_node *n, *many;
	uint8_t b[BLOCK];

	make(kinds[0], 32);
	mount_it();
	memset(b, 7, sizeof b);
	many = new_file("many");
	for (unsigned i = 0; i < RUNS; i++)
		ck_assert_int_eq(put(many, b, BLOCK, (uint64_t)2 * BLOCK * i), 0);
	fs_node_put(many);
	n = cold_file("f", 1 << 20);
	ck_assert_int_eq(put(n, b, BLOCK, 2 << 20), 0);
	ck_assert_int_eq(fs->ops->commit(n, 0, 0), 0);
	fs_node_put(n);
	unmount_it();
	mount_it();
	ck_assert_int_eq(fs->ops->lookup(fs->root, "f", 1, 0, &n), 0);
	ck_assert_int_eq(fs->ops->lookup(fs->root, "many", 4, 0, &many), 0);
	ck_assert_int_eq(fs->ops->advise(n, &h), 0);
	ck_assert_uint_eq(h.taken, 0);
	ck_assert(!h.at_end);
	for (int i = 0; i < 500 && !(in_memory(n, 0, 1 << 20) && in_memory(n, 2 << 20, (2 << 20) + BLOCK)); i++)
		usleep(10000);
	ck_assert(in_memory(n, 0, 1 << 20) && in_memory(n, 2 << 20, (2 << 20) + BLOCK));
	h = (struct fs_hint){.off = 1 << 20, .len = 1 << 20, .how = FS_WILLNEED, .down = true};
	ck_assert_int_eq(fs->ops->advise(n, &h), 0);
	ck_assert_uint_eq(h.taken, 1 << 20);
	h = (struct fs_hint){.len = 2 * BLOCK * RUNS, .how = FS_WILLNEED, .down = true};
	ck_assert_int_eq(fs->ops->advise(many, &h), 0);
	ck_assert_uint_eq(h.taken, 2 * BLOCK * (RUNS - 32));
	fs_node_put(many);
	fs_node_put(n);
	unmount_it();
	drop();
}
END_TEST

START_TEST(what_is_not_needed_any_more_leaves_memory_first)
{
	struct fs_node *keep, *go, *more;
	uint8_t b[65536];

	make(kinds[0], 64);
	mount_it();
	fs_node_put(cold_file("keep", 2 << 20));
	fs_node_put(cold_file("go", 2 << 20));
	more = cold_file("more", 5 << 20);
	ck_assert_int_eq(fs->ops->lookup(fs->root, "keep", 4, 0, &keep), 0);
	ck_assert_int_eq(fs->ops->lookup(fs->root, "go", 2, 0, &go), 0);
	for (uint64_t at = 0; at < 2 << 20; at += sizeof b)
		ck_assert_int_eq(get(keep, b, sizeof b, at), sizeof b);
	for (uint64_t at = 0; at < 2 << 20; at += sizeof b)
		ck_assert_int_eq(get(go, b, sizeof b, at), sizeof b);
	ck_assert_int_eq(advise(go, 0, 0, FS_DONTNEED, 0), 0);
	for (uint64_t at = 0; at < 5 << 20; at += sizeof b)
		ck_assert_int_eq(get(more, b, sizeof b, at), sizeof b);
	/* The older file stays, the one that was given up goes. */
	ck_assert(in_memory(keep, 0, 2 << 20));
	ck_assert(!in_memory(go, 0, 2 << 20));
	fs_node_put(keep);
	fs_node_put(go);
	fs_node_put(more);
	unmount_it();
	drop();
}
END_TEST

/* DONTNEED of what was just written: it is written back, not lost. */
START_TEST(what_is_given_up_keeps_its_data)
{
	AUTO(freep) uint8_t *b = malloc(1 << 20), *r = malloc(1 << 20);
	struct fs_node *n;

	make(kinds[0], 32);
	mount_it();
	n = new_file("f");
	for (unsigned i = 0; i < 1 << 20; i++)
		b[i] = (uint8_t)(i * 7 + i / 4096);
	ck_assert_int_eq(put(n, b, 1 << 20, 100), 0);
	ck_assert_int_eq(advise(n, 0, 0, FS_DONTNEED, FS_NOWAIT), -EAGAIN);
	ck_assert_int_eq(advise(n, 0, 0, FS_DONTNEED, 0), 0);
	ck_assert_int_eq(get(n, r, 1 << 20, 100), 1 << 20);
	ck_assert_int_eq(memcmp(b, r, 1 << 20), 0);
	fs_node_put(n);
	unmount_it();
	drop();
}
END_TEST

/* Metadata that waits for its transaction cannot leave memory: in 8 MiB, a transaction ends when it has changed so much in so many
 * places that nothing else would fit. */
START_TEST(a_small_cache_makes_small_transactions)
{
	enum { DIRS = 300 };
	const struct fs_setattr touch = {.what = FS_SET_MODE, .mode = 0700};
	const struct fs_create c = {.type = FS_DIR, .set = {.mode = 0755}};
	static struct fs_node *n[DIRS];
	struct fs_cinfo ci;
	char name[24];

	/* Many small groups: each directory lies in its own, with its inode. */
	make("-t ext4 -b 4096 -g 1024 -O ^flex_bg -E nodiscard -J size=64", 1024);
	mount_it();
	for (int i = 0; i < DIRS; i++) {
		int len = snprintf(name, sizeof name, "%d", i);

		ck_assert_int_eq(fs->ops->create(fs->root, name, (uint32_t)len, &c, &n[i], &ci), 0);
	}
	for (int i = 0; i < DIRS; i++)
		ck_assert_int_eq(fs->ops->setattr(n[i], &touch, NULL), 0);
	for (int i = 0; i < DIRS; i++)
		fs_node_put(n[i]);
	unmount_it();
	drop();
}
END_TEST

enum { MIB = 1 << 20, READERS = 7 };

struct reader {
	pthread_t t;
	struct fs_node *n;
	uint64_t off;
	struct cache_seg seg[40];
	int k;
};

static void *read_mib(void *arg)
{
	struct reader *r = arg;
	bool eof;

	r->k = fs->ops->read(r->n, r->off, MIB, 0, r->seg, 40, &eof);
	return NULL;
}

static void *read_and_give_back(void *arg)
{
	struct reader *r = arg;

	read_mib(r);
	if (r->k > 0)
		cache_unpin(r->seg, (unsigned)r->k);
	return NULL;
}

/* One reader waits for memory, with the file's lock; the others have theirs, and note that the file was read. */
START_TEST(who_waits_to_note_a_read_keeps_no_memory_from_others)
{
	static struct reader held[READERS], r[READERS + 1];
	static uint8_t b[MIB];
	struct fs_node *n;

	make(kinds[0], 64);
	mount_it();
	n = new_file("f");
	for (unsigned i = 0; i <= READERS; i++)
		ck_assert_int_eq(put(n, b, MIB, (uint64_t)i * MIB), 0);
	ck_assert_int_eq(fs->ops->commit(n, 0, 0), 0);
	for (unsigned i = 0; i <= READERS; i++)
		r[i] = (struct reader){.n = n, .off = (uint64_t)i * MIB};
	for (unsigned i = 0; i < READERS; i++) {
		held[i] = r[i];
		read_mib(&held[i]);
		ck_assert_int_gt(held[i].k, 0);
	}
	ck_assert_int_eq(put(n, b, 1, 0), 0); /* changed since it was read */
	ck_assert_int_eq(pthread_create(&r[READERS].t, NULL, read_and_give_back, &r[READERS]), 0);
	usleep(100000); /* if one is late, the test says less */
	for (unsigned i = 0; i < READERS; i++)
		ck_assert_int_eq(pthread_create(&r[i].t, NULL, read_and_give_back, &r[i]), 0);
	usleep(100000);
	for (unsigned i = 0; i < READERS; i++)
		cache_unpin(held[i].seg, (unsigned)held[i].k);
	for (unsigned i = 0; i <= READERS; i++) {
		pthread_join(r[i].t, NULL);
		ck_assert_int_gt(r[i].k, 0);
	}
	fs_node_put(n);
	unmount_it();
	drop();
}
END_TEST

START_TEST(holes_are_found_by_seek)
{
	struct fs_node *n;
	uint8_t b[4096] = {1};
	uint64_t at;

	make(kinds[0], 16);
	mount_it();
	n = new_file("sparse");
	ck_assert_int_eq(put(n, b, sizeof b, 1 << 20), 0);
	ck_assert_int_eq(fs->ops->seek(n, 0, FS_SEEK_DATA, &at), 0);
	ck_assert_uint_eq(at, 1 << 20);
	ck_assert_int_eq(fs->ops->seek(n, 0, FS_SEEK_HOLE, &at), 0);
	ck_assert_uint_eq(at, 0);
	ck_assert_int_eq(fs->ops->seek(n, 1 << 20, FS_SEEK_HOLE, &at), 0);
	ck_assert_uint_eq(at, (1 << 20) + 4096);
	ck_assert_int_eq(fs->ops->seek(n, (1 << 20) + 4096, FS_SEEK_DATA, &at), -ENXIO);
	ck_assert_int_eq(fs->ops->alloc(n, 0, 8192), 0);
	ck_assert_int_eq(fs->ops->seek(n, 0, FS_SEEK_DATA, &at), 0);
	ck_assert_uint_eq(at, 1 << 20);
	fs_node_put(n);
	unmount_it();
	drop();
}
END_TEST

static void *writer(void *arg)
{
	char name[16];
	struct fs_node *n;
	const struct fs_create c = {.type = FS_REG, .set = {.mode = 0644}};
	struct fs_cinfo ci;
	uint8_t b[10000], r[10000];

	memset(b, (int)(intptr_t)arg, sizeof b);
	for (int i = 0; i < 30; i++) {
		snprintf(name, sizeof name, "t%d-%d", (int)(intptr_t)arg, i);
		if (fs->ops->create(fs->root, name, (uint32_t)strlen(name), &c, &n, &ci))
			return arg;
		for (int k = 0; k < 5; k++)
			if (put(n, b, sizeof b, (uint64_t)k * 30000))
				return arg;
		if (i % 3 == 0 && fs->ops->commit(n, 0, 0))
			return arg;
		if (get(n, r, sizeof r, 60000) != sizeof r || memcmp(b, r, sizeof b) != 0)
			return arg;
		if (i % 2 && fs->ops->unlink(fs->root, name, (uint32_t)strlen(name), 0, &ci))
			return arg;
		fs_node_put(n);
	}
	return NULL;
}

START_TEST(many_threads_write_at_once)
{
	pthread_t t[4];

	make(kinds[0], 32);
	mount_it();
	for (intptr_t i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, writer, (void *)(i + 1));
	for (int i = 0; i < 4; i++) {
		void *failed;

		pthread_join(t[i], &failed);
		ck_assert_ptr_null(failed);
	}
	unmount_it();
	drop();
}
END_TEST

static atomic_bool done;

static void *reader(void *arg)
{
	uint8_t b[4096];

	while (!atomic_load(&done))
		ck_assert_uint_eq(get(arg, b, sizeof b, 0), sizeof b);
	return NULL;
}

/* What a read says about the time of access, a write has a say in as well. */
START_TEST(a_file_is_read_while_it_is_written)
{
	uint8_t b[4096] = {0};
	struct fs_node *n;
	pthread_t t[2];

	make(kinds[0], 16);
	mount_it();
	n = new_file("f");
	ck_assert_int_eq(put(n, b, sizeof b, 0), 0);
	atomic_store(&done, false);
	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, reader, n);
	for (int i = 0; i < 2000; i++)
		ck_assert_int_eq(put(n, b, sizeof b, 0), 0);
	atomic_store(&done, true);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	fs_node_put(n);
	unmount_it();
	drop();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ext4 data");
	TCase *t = tcase_create("ext4 data");
	SRunner *r;
	int failed;

	if (run("PATH=$PATH:/sbin:/usr/sbin; command -v mke2fs >/dev/null")) {
		puts("mke2fs is missing");
		return 77;
	}
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, file_data_is_what_was_written, 0, (int)ARRAY_LEN(kinds));
	tcase_add_loop_test(t, what_lies_behind_the_end_of_a_file_is_zeros_when_it_grows, 0, (int)ARRAY_LEN(kinds));
	tcase_add_test(t, an_unlinked_file_is_readable_until_it_is_put);
	tcase_add_test(t, a_removed_file_that_is_found_again_before_it_is_freed_is_freed_once);
	tcase_add_loop_test(t, an_image_that_others_disturb_is_changed_no_more, CUT, REPLACED + 1);
	tcase_add_test(t, a_full_file_system_says_so_at_the_write);
	tcase_add_test(t, an_allocation_that_fails_takes_nothing);
	tcase_add_test(t, an_inode_with_an_impossible_size_is_refused);
	tcase_add_test(t, a_file_over_the_file_systems_own_blocks_is_refused);
	tcase_add_loop_test(t, the_host_gets_back_the_space_of_removed_files, 0, 2);
	tcase_add_test(t, what_will_be_needed_is_read_without_being_asked_for);
	tcase_add_test(t, a_hint_beyond_the_end_is_told_where_the_end_is);
	tcase_add_test(t, downwards_the_runs_of_a_file_come_from_its_end);
	tcase_add_test(t, what_is_not_needed_any_more_leaves_memory_first);
	tcase_add_test(t, what_is_given_up_keeps_its_data);
	tcase_add_test(t, a_small_cache_makes_small_transactions);
	tcase_add_test(t, who_waits_to_note_a_read_keeps_no_memory_from_others);
	tcase_add_test(t, holes_are_found_by_seek);
	tcase_add_test(t, many_threads_write_at_once);
	tcase_add_test(t, a_file_is_read_while_it_is_written);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}

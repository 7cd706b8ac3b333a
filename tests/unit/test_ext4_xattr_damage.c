/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_ext4_xattr_damage.c - extended attributes whose bytes may be anything: areas in memory, inodes and blocks of an image
 */
#include "tests/unit/ext4_attrs.h"

/* Any bytes in an area: what is found lies inside it, and a new area is whole. */
START_TEST(an_area_of_any_bytes_is_refused_or_read_inside)
{
	enum { SIZE = 256, TIMES = 200000 / SLOW };
	const struct xattr_name names[] = {{1, 1, "a"}, {1, 9, "io_advise"}, {4, 3, "abc"}};
	uint8_t value[40];

	fill(value, sizeof value, 6);
	for (unsigned i = 0; i < TIMES; i++) {
		struct xattr_area a = {.base = calloc(1, SIZE), .first = i % 2 ? 32 : 0, .size = SIZE, .hashed = i % 2};
		struct xattr_area b = {.base = calloc(1, SIZE), .first = 32, .size = SIZE, .hashed = true}, none = {0};
		uint32_t off, len;

		for (unsigned k = 0; k < 1 + i % 3; k++) {
			struct xattr_change c = {names[k], value, rnd(sizeof value)};
			struct xattr_area from = k ? b : none, to = {calloc(1, SIZE), a.first, SIZE, a.hashed};

			from.first = a.first;
			must_eq(ext4_xattr_build(&from, &c, &to), k + 1);
			free(b.base);
			b.base = to.base;
		}
		memcpy(a.base, b.base, SIZE);
		memset(b.base, 0, SIZE);
		for (unsigned k = rnd(6); k > 0; k--)
			a.base[rnd(rnd(2) ? 100 : SIZE)] = (uint8_t)rnd(rnd(2) ? 256 : 4);
		for (unsigned k = 0; k < ARRAY_LEN(names); k++) {
			struct xattr_change c = {names[k], rnd(2) ? value : NULL, rnd(sizeof value)};
			int got = ext4_xattr_find(&a, &names[k], &off, &len);

			must(got == 0 || got == 1 || got == -EUCLEAN || got == -ENOTSUP);
			must(got != 1 || (off <= SIZE && len <= SIZE - off));
			memset(b.base, 0, SIZE);
			got = ext4_xattr_build(&a, &c, &b);
			must(got >= 0 || got == -EUCLEAN || got == -ENOTSUP || got == -ENOSPC);
			if (got >= 0) {
				ext4_xattr_block_hash(&b);
				must_eq(ext4_xattr_find(&b, &names[k], &off, &len), c.value ? 1 : 0);
				must(!c.value || (len == c.len && memcmp(b.base + off, value, len) == 0));
			}
		}
		free(a.base);
		free(b.base);
	}
}
END_TEST

START_TEST(hashes_are_those_of_libext2fs)
{
	enum { SIZE = 1024 };
	const struct xattr_name names[] = {{1, 2, "zz"}, {1, 9, "io_advise"}, {4, 3, "abc"}, {1, 2, "aa"}, {6, 1, "s"}};
	uint32_t buf[2][SIZE / 4], at;
	struct xattr_area a[2] = {{(uint8_t *)buf[0], 32, SIZE, true}, {(uint8_t *)buf[1], 32, SIZE, true}};
	struct ext2_ext_attr_entry *e;
	struct ext2_ext_attr_header *h;
	uint8_t value[100];

	for (unsigned i = 0; i < 500; i++) {
		struct xattr_area none = {.first = 32};

		for (unsigned k = 0; k < ARRAY_LEN(names); k++) {
			struct xattr_change c = {names[k], value, rnd(sizeof value)};

			fill(value, c.len, i);
			memset(buf[k & 1], 0, SIZE);
			must_eq(ext4_xattr_build(k ? &a[~k & 1] : &none, &c, &a[k & 1]), k + 1);
		}
		h = (struct ext2_ext_attr_header *)buf[0];
		for (at = 32; (e = (struct ext2_ext_attr_entry *)(a[0].base + at), !EXT2_EXT_IS_LAST_ENTRY(e));
		     at += (uint32_t)EXT2_EXT_ATTR_LEN(e->e_name_len))
			must_eq(e->e_hash, ext2fs_ext_attr_hash_entry(e, a[0].base + e->e_value_offs));
		ext2fs_ext_attr_block_rehash(h, e);
		must_eq(h->h_hash, ext4_xattr_block_hash(&a[0]));
	}
}
END_TEST

static void use_damaged(void)
{
	static const char *const names[] = {ADVICE, "user.big", "trusted.t", "user.new"};
	char buf[1024];
	struct fs_node *n;

	img_mount(&img);
	if (look(img.fs->root, "f", &n) == 0) {
		for (unsigned i = 0; i < ARRAY_LEN(names); i++)
			get(n, names[i], buf, sizeof buf);
		for (unsigned i = rnd(4); i < ARRAY_LEN(names); i++)
			set(n, names[i], rnd(3) ? buf : NULL, rnd(rnd(3) ? 40 : 900));
		for (unsigned i = 0; i < ARRAY_LEN(names); i++)
			get(n, names[i], buf, sizeof buf);
		if (rnd(2))
			rm(img.fs->root, "f");
		fs_node_put(n);
	}
	img.fs->ops->unmount(img.fs);
	img.fs = NULL;
	must_eq(cache_detach(img.dev), 0);
	cache_free(img.cache);
	must_eq(vhd_close(img.vhd), 0);
}

static unsigned long number_from(const char *cmd)
{
	unsigned long v = 0;
	FILE *p = popen(cmd, "r");

	must(p && fscanf(p, "%lu", &v) == 1);
	pclose(p);
	return v;
}

/* Without checksums, so that what is behind them is reached. */
START_TEST(damaged_inodes_and_blocks_do_no_harm)
{
	enum { TIMES = 240 / SLOW, PATCH = 1024 };
	uint8_t big[600], whole[2][PATCH], patched[PATCH];
	uint64_t at[2];
	char cmd[400];
	struct fs_node *n;
	int fd;

	fill(big, sizeof big, 7);
	img_make(&img, 1, _i ? "-t ext2 -b 1024 -I 256" : "-t ext4 -b 1024 -I 256 -O ^metadata_csum,^has_journal");
	img_mount(&img);
	n = file("f");
	must_eq(set_s(n, ADVICE, "sequential"), 0);
	must_eq(set_s(n, "trusted.t", "x"), 0);
	must_eq(set(n, "user.big", big, sizeof big), 0);
	fs_node_put(n);
	img_unmount(&img);
	snprintf(cmd, sizeof cmd,
		 "PATH=$PATH:/sbin:/usr/sbin; debugfs -R 'imap /f' %s 2>/dev/null | sed -n 's/.*block \\([0-9]*\\), "
		 "offset.*/\\1/p'",
		 img.path);
	at[0] = (uint64_t)number_from(cmd) * 1024; /* inodes beside it are hit as well */
	snprintf(cmd, sizeof cmd,
		 "PATH=$PATH:/sbin:/usr/sbin; debugfs -R 'stat /f' %s 2>/dev/null | sed -n 's/.*File ACL: "
		 "\\([0-9]*\\).*/\\1/p'",
		 img.path);
	at[1] = (uint64_t)number_from(cmd) * 1024;
	must(at[0] && at[1]);
	must_eq(shell("cp %s %s/good", img.path, img.dir), 0);
	fd = open(img.path, O_RDWR | O_CLOEXEC);
	for (unsigned i = 0; i < 2; i++)
		must_eq(pread(fd, whole[i], PATCH, (off_t)at[i]), PATCH);
	close(fd);
	for (unsigned i = 0; i < TIMES; i++) {
		unsigned which = i % 2;

		must_eq(shell("cp %s/good %s", img.dir, img.path), 0);
		memcpy(patched, whole[which], PATCH);
		for (unsigned k = 1 + rnd(8); k > 0; k--) {
			uint32_t where = rnd(rnd(2) ? 120 : PATCH);

			if (which == 0) /* behind the fields of any of the four inodes */
				where = rnd(4) * 256 + 128 + rnd(rnd(2) ? 70 : 128);
			patched[where] = (uint8_t)(rnd(2) ? rnd(256) : 1u << rnd(8));
		}
		fd = open(img.path, O_RDWR | O_CLOEXEC);
		must_eq(pwrite(fd, patched, PATCH, (off_t)at[which]), PATCH);
		close(fd);
		use_damaged();
	}
	must_eq(shell("rm %s/good", img.dir), 0);
	img_free(&img);
}
END_TEST

START_TEST(a_block_with_a_wrong_checksum_is_not_believed)
{
	struct fs_node *n;
	uint8_t big[600];

	fill(big, sizeof big, 8);
	img_make(&img, 8, "-t ext4 -b 1024 -I 128 -O metadata_csum");
	img_mount(&img);
	n = file("f");
	must_eq(set(n, "user.big", big, sizeof big), 0);
	fs_node_put(n);
	img_unmount(&img);
	/* The last byte of the block, which is the value's. */
	must_eq(shell("PATH=$PATH:/sbin:/usr/sbin; b=$(debugfs -R 'stat /f' %s | sed -n 's/.*File ACL: "
		      "\\([0-9]*\\).*/\\1/p'); "
		      "printf '\\377' | dd of=%s bs=1 seek=$((b * 1024 + 1023)) conv=notrunc",
		      img.path, img.path),
		0);
	img_mount(&img);
	n = found("f");
	must_eq(get(n, "user.big", NULL, 0), -EUCLEAN);
	must_eq(set_s(n, ADVICE, "random"), -EUCLEAN);
	fs_node_put(n);
	img_unmount(&img);
	img_free(&img);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ext4_xattr_damage");
	TCase *t = tcase_create("damage");
	SRunner *r;
	int failed;

	tcase_set_timeout(t, 120);
	tcase_add_test(t, an_area_of_any_bytes_is_refused_or_read_inside);
	tcase_add_test(t, hashes_are_those_of_libext2fs);
	tcase_add_loop_test(t, damaged_inodes_and_blocks_do_no_harm, 0, 2);
	tcase_add_test(t, a_block_with_a_wrong_checksum_is_not_believed);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* test_file_ops.c - directories and data as whole COMPOUNDs: RFC 8881 §18, RFC 7862 §15 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/nfs_mem.h"

/* ---- directories ----------------------------------------------------------------------------------------------------------------------- */

static void put_readdir(uint64_t cookie, uint32_t max, const uint32_t *mask, u_int nmask)
{
	READDIR4args r = {.cookie = cookie, .dircount = max, .maxcount = max};

	r.attr_request.bitmap4_len = nmask;
	r.attr_request.bitmap4_val = (uint32_t *)(uintptr_t)mask;
	nf_op(&a, OP_READDIR);
	NF_PUT(&a, READDIR4args, &r);
}

static nfsstat4 readdir_mem(uint64_t cookie, uint32_t max, READDIR4resok *res)
{
	static const uint32_t mask[] = {1u << FATTR4_TYPE | 1u << FATTR4_FILEID};
	size_t left;
	nfsstat4 st;

	begin_mem();
	put_readdir(cookie, max, mask, 1);
	ck_assert_int_eq((st = send_mem(), nf_result(&a, OP_READDIR)), st);
	if (st != NFS4_OK)
		return st;
	left = xa_in_left(&a.in);
	NF_GET(&a, READDIR4resok, res);
	ck_assert_uint_le(left - xa_in_left(&a.in), max);
	return st;
}

/* RFC 8881 §18.23: each name once, whatever comes and goes meanwhile, and no answer longer than asked for. */
START_TEST(readdir_lists_each_name_once_while_others_come_and_go)
{
	bool seen[200] = {false};
	uint64_t cookie = 0;
	READDIR4resok res;
	bool eof = false;
	unsigned round = 0;
	char name[32];

	for (unsigned i = 0; i < 200; i++) {
		snprintf(name, sizeof name, "name-%03u", i);
		make_file(name, 0644, 0);
	}
	while (!eof) {
		ck_assert_int_eq(readdir_mem(cookie, 700 + round % 64 * 4, &res), NFS4_OK);
		for (const entry4 *e = res.reply.entries; e; e = e->nextentry) {
			unsigned i;

			snprintf(name, sizeof name, "%.*s", (int)e->name.utf8string_len, e->name.utf8string_val);
			ck_assert_uint_gt(e->cookie, 2);
			cookie = e->cookie;
			if (sscanf(name, "name-%u", &i) != 1)
				continue;
			ck_assert(!seen[i]);
			seen[i] = true;
			ck_assert_uint_eq(e->attrs.attr_vals.attrlist4_len, 12);
		}
		eof = res.reply.eof;
		snprintf(name, sizeof name, "extra-%u", round++);
		make_file(name, 0644, 0);
		ck_assert_uint_lt(round, 300);
	}
	for (unsigned i = 0; i < 200; i++)
		ck_assert(seen[i]);
}
END_TEST

START_TEST(readdir_without_room_for_an_entry_is_too_small)
{
	READDIR4resok res;

	ck_assert_int_eq(readdir_mem(0, 16, &res), NFS4_OK); /* nothing in it */
	ck_assert(res.reply.eof);
	make_file("file", 0644, 0);
	for (uint32_t max = 0; max < 60; max += 4)
		ck_assert_int_eq(readdir_mem(0, max, &res), NFS4ERR_TOOSMALL);
	ck_assert_int_eq(readdir_mem(0, 60, &res), NFS4_OK);
	ck_assert_int_eq(readdir_mem(1, 4096, &res), NFS4ERR_BAD_COOKIE);
	ck_assert_int_eq(readdir_mem(2, 4096, &res), NFS4ERR_BAD_COOKIE);
}
END_TEST

START_TEST(readdir_of_a_file_is_refused_and_needs_permission_to_read)
{
	make_file("f", 0644, 0);
	make_dir("d", 0311, 0);
	begin_mem();
	nf_lookup(&a, "f");
	put_readdir(0, 4096, NULL, 0);
	ck_assert_int_eq(send_mem(), NFS4ERR_NOTDIR);
	begin_mem();
	nf_lookup(&a, "d");
	put_readdir(0, 4096, NULL, 0);
	ck_assert_int_eq(send_mem(), NFS4ERR_ACCESS);
}
END_TEST

START_TEST(create_makes_every_type_but_files_and_devices_need_root)
{
	CREATE4resok res;

	ck_assert_int_eq(create(NF4DIR, "dir"), NFS4_OK);
	ck_assert_int_eq(nf_result(&a, OP_CREATE), NFS4_OK);
	NF_GET(&a, CREATE4resok, &res);
	ck_assert_uint_lt(res.cinfo.before, res.cinfo.after);
	ck_assert_int_eq(create(NF4LNK, "lnk"), NFS4_OK);
	ck_assert_int_eq(create(NF4FIFO, "fifo"), NFS4_OK);
	ck_assert_int_eq(create(NF4SOCK, "sock"), NFS4_OK);
	ck_assert_int_eq(create(NF4REG, "reg"), NFS4ERR_BADTYPE);
	ck_assert_int_eq(create(NF4ATTRDIR, "attr"), NFS4ERR_BADTYPE);
	ck_assert_int_eq(create((nfs_ftype4)77, "type"), NFS4ERR_BADTYPE);
	ck_assert_int_eq(create(NF4BLK, "blk"), NFS4ERR_PERM); /* root is squashed */
	ck_assert_int_eq(create(NF4DIR, "dir"), NFS4ERR_EXIST);
	ck_assert_uint_eq(memfs_count(srv.fs), 5);
}
END_TEST

START_TEST(created_object_is_the_current_one_and_the_callers)
{
	static const uint32_t mask[] = {1u << FATTR4_TYPE, 1u << (FATTR4_OWNER - 32) | 1u << (FATTR4_OWNER_GROUP - 32)};
	GETATTR4args g;
	GETATTR4resok res;

	a.uid = 1000;
	g.attr_request.bitmap4_len = 2;
	g.attr_request.bitmap4_val = (uint32_t *)(uintptr_t)mask;
	begin_mem();
	put_create(NF4DIR, "d");
	nf_op(&a, OP_GETATTR);
	NF_PUT(&a, GETATTR4args, &g);
	ck_assert_int_eq(send_mem(), NFS4_OK);
	nf_result(&a, OP_CREATE);
	{
		CREATE4resok c;

		NF_GET(&a, CREATE4resok, &c);
	}
	nf_result(&a, OP_GETATTR);
	NF_GET(&a, GETATTR4resok, &res);
	ck_assert_uint_eq(res.obj_attributes.attr_vals.attrlist4_len, 4 + 8 + 8);
	ck_assert_mem_eq(res.obj_attributes.attr_vals.attrlist4_val,
			 "\0\0\0\2\0\0\0\4"
			 "1000\0\0\0\4"
			 "1000",
			 20);
}
END_TEST

START_TEST(readlink_gives_the_target_and_only_of_links)
{
	READLINK4resok res;

	ck_assert_int_eq(create(NF4LNK, "l"), NFS4_OK);
	begin_mem();
	nf_lookup(&a, "l");
	nf_op(&a, OP_READLINK);
	ck_assert_int_eq(send_mem(), NFS4_OK);
	nf_result(&a, OP_LOOKUP);
	nf_result(&a, OP_READLINK);
	NF_GET(&a, READLINK4resok, &res);
	ck_assert_uint_eq(res.link.utf8string_len, 6);
	ck_assert_mem_eq(res.link.utf8string_val, "target", 6);
	begin_mem();
	nf_op(&a, OP_READLINK);
	ck_assert_int_eq(send_mem(), NFS4ERR_WRONG_TYPE);
	begin_mem();
	nf_lookup(&a, "l");
	nf_lookup(&a, "x");
	ck_assert_int_eq(send_mem(), NFS4ERR_SYMLINK);
}
END_TEST

static nfsstat4 remove_name(const char *name)
{
	REMOVE4args r = {.target = text(name)};

	begin_mem();
	nf_op(&a, OP_REMOVE);
	NF_PUT(&a, REMOVE4args, &r);
	return send_mem();
}

static nfsstat4 rename_to(const char *fromdir, const char *from, const char *todir, const char *to)
{
	RENAME4args r = {.oldname = text(from), .newname = text(to)};

	begin_mem();
	if (fromdir)
		nf_lookup(&a, fromdir);
	nf_op(&a, OP_SAVEFH);
	nf_goto_mem(&a);
	if (todir)
		nf_lookup(&a, todir);
	nf_op(&a, OP_RENAME);
	NF_PUT(&a, RENAME4args, &r);
	return send_mem();
}

static nfsstat4 link_as(const char *what, const char *name)
{
	LINK4args l = {.newname = text(name)};

	begin_mem();
	nf_lookup(&a, what);
	nf_op(&a, OP_SAVEFH);
	nf_goto_mem(&a);
	nf_op(&a, OP_LINK);
	NF_PUT(&a, LINK4args, &l);
	return send_mem();
}

START_TEST(remove_and_rename_and_link_as_the_rfc_says)
{
	make_file("f", 0666, 0);
	ck_assert_int_eq(create(NF4DIR, "d"), NFS4_OK);
	ck_assert_int_eq(link_as("f", "g"), NFS4_OK);
	ck_assert_int_eq(link_as("f", "g"), NFS4ERR_EXIST);
	ck_assert_int_eq(link_as("d", "e"), NFS4ERR_ISDIR);
	ck_assert_int_eq(rename_to(NULL, "f", NULL, "d"), NFS4ERR_EXIST);
	ck_assert_int_eq(rename_to(NULL, "d", NULL, "f"), NFS4ERR_EXIST);
	ck_assert_int_eq(rename_to(NULL, "f", "d", "f"), NFS4_OK);
	ck_assert_int_eq(rename_to(NULL, "f", NULL, "h"), NFS4ERR_NOENT);
	ck_assert_int_eq(rename_to(NULL, "d", "d", "x"), NFS4ERR_INVAL);
	ck_assert_int_eq(remove_name("d"), NFS4ERR_NOTEMPTY);
	ck_assert_int_eq(rename_to("d", "f", NULL, "f"), NFS4_OK);
	ck_assert_int_eq(remove_name("d"), NFS4_OK);
	ck_assert_int_eq(remove_name("f"), NFS4_OK);
	ck_assert_int_eq(remove_name("g"), NFS4_OK);
	ck_assert_int_eq(remove_name("g"), NFS4ERR_NOENT);
	ck_assert_uint_eq(memfs_count(srv.fs), 1);
}
END_TEST

START_TEST(rename_and_link_between_exports_are_refused)
{
	RENAME4args r = {.oldname = text("mem"), .newname = text("x")};

	nf_begin(&a);
	nf_op(&a, OP_PUTROOTFH);
	nf_op(&a, OP_SAVEFH);
	nf_lookup(&a, "mem");
	nf_op(&a, OP_RENAME);
	NF_PUT(&a, RENAME4args, &r);
	ck_assert_int_eq(nf_send(&a), NFS4ERR_XDEV);
}
END_TEST

START_TEST(sticky_directory_gives_up_entries_to_their_owners_only)
{
	struct fs_setattr s = {.what = FS_SET_MODE, .mode = 01777};

	ck_assert_int_eq(srv.fs->ops->setattr(srv.fs->root, &s, NULL), 0);
	make_file("his", 0666, 1000);
	make_file("hers", 0666, 1001);
	a.uid = 1001;
	ck_assert_int_eq(remove_name("his"), NFS4ERR_PERM);
	ck_assert_int_eq(rename_to(NULL, "his", NULL, "mine"), NFS4ERR_PERM);
	ck_assert_int_eq(rename_to(NULL, "hers", NULL, "his"), NFS4ERR_PERM);
	ck_assert_int_eq(remove_name("hers"), NFS4_OK);
}
END_TEST

START_TEST(moving_a_directory_elsewhere_takes_permission_to_write_in_it)
{
	make_dir("his", 0755, 1000);
	make_dir("d", 0777, 0);
	a.uid = 1001;
	ck_assert_int_eq(rename_to(NULL, "his", NULL, "other"), NFS4_OK);
	ck_assert_int_eq(rename_to(NULL, "other", "d", "x"), NFS4ERR_ACCESS);
	a.uid = 1000;
	ck_assert_int_eq(rename_to(NULL, "other", "d", "x"), NFS4_OK);
}
END_TEST

START_TEST(pseudo_root_is_read_only)
{
	REMOVE4args r = {.target = text("mem")};

	nf_begin(&a);
	nf_op(&a, OP_PUTROOTFH);
	nf_op(&a, OP_REMOVE);
	NF_PUT(&a, REMOVE4args, &r);
	ck_assert_int_eq(nf_send(&a), NFS4ERR_ROFS);
	nf_begin(&a);
	nf_op(&a, OP_PUTROOTFH);
	put_create(NF4DIR, "d");
	ck_assert_int_eq(nf_send(&a), NFS4ERR_ROFS);
}
END_TEST

/* ---- data -------------------------------------------------------------------------------------------------------------------------------- */

START_TEST(what_is_written_is_read_at_any_offset)
{
	static const uint32_t offs[] = {0, 1, 4095, 4096, 5000, 65535, 99999, 100000, 200000};
	READ4resok res;

	fill("f", 100000);
	for (unsigned i = 0; i < ARRAY_LEN(offs); i++) {
		uint32_t off = offs[i], n = off < 100000 ? 100000 - off : 0;

		n = n < 10001 ? n : 10001;
		begin_mem();
		nf_lookup(&a, "f");
		put_read(off, 10001);
		ck_assert_int_eq(send_mem(), NFS4_OK);
		nf_result(&a, OP_LOOKUP);
		nf_result(&a, OP_READ);
		NF_GET(&a, READ4resok, &res);
		ck_assert_uint_eq(res.data.data_len, n);
		ck_assert_int_eq(res.eof, off + n >= 100000);
		for (uint32_t j = 0; j < n; j++)
			ck_assert_int_eq((uint8_t)res.data.data_val[j], (off + j) % 251);
		ck_assert_uint_eq(xa_in_left(&a.in), 0);
	}
}
END_TEST

START_TEST(unstable_write_stays_on_the_loop_and_a_stable_one_is_stable)
{
	WRITE4resok res;

	make_file("f", 0666, 0);
	srv.parked = 0;
	begin_mem();
	nf_lookup(&a, "f");
	put_write(0, "abc", 3, UNSTABLE4);
	ck_assert_int_eq(send_mem(), NFS4_OK);
	ck_assert_uint_eq(srv.parked, 0);
	nf_result(&a, OP_LOOKUP);
	nf_result(&a, OP_WRITE);
	NF_GET(&a, WRITE4resok, &res);
	ck_assert_uint_eq(res.count, 3);
	ck_assert_int_eq(res.committed, UNSTABLE4);
	for (int how = DATA_SYNC4; how <= FILE_SYNC4; how++) {
		begin_mem();
		nf_lookup(&a, "f");
		put_write(0, "abc", 3, (stable_how4)how);
		ck_assert_int_eq(send_mem(), NFS4_OK);
		nf_result(&a, OP_LOOKUP);
		nf_result(&a, OP_WRITE);
		NF_GET(&a, WRITE4resok, &res);
		ck_assert_int_eq(res.committed, FILE_SYNC4);
	}
	begin_mem();
	nf_lookup(&a, "f");
	put_write(0, "abc", 3, (stable_how4)9);
	ck_assert_int_eq(send_mem(), NFS4ERR_INVAL);
}
END_TEST

/* The same COMPOUND when everything has to wait: nothing is done twice, nothing is lost. */
START_TEST(compound_that_waits_goes_on_where_it_was)
{
	READ4resok res;

	fill("f", 5000);
	memfs_set_busy(srv.fs, true);
	srv.parked = 0;
	begin_mem();
	nf_lookup(&a, "f");
	put_write(5000, "xyz", 3, UNSTABLE4);
	put_read(4999, 10);
	nf_op(&a, OP_GETFH);
	ck_assert_int_eq(send_mem(), NFS4_OK);
	ck_assert_uint_eq(srv.parked, 1);
	ck_assert_uint_eq(a.count, 7);
	nf_result(&a, OP_LOOKUP);
	nf_result(&a, OP_WRITE);
	{
		WRITE4resok w;

		NF_GET(&a, WRITE4resok, &w);
	}
	nf_result(&a, OP_READ);
	NF_GET(&a, READ4resok, &res);
	ck_assert_uint_eq(res.data.data_len, 4);
	ck_assert_mem_eq(res.data.data_val + 1, "xyz", 3);
}
END_TEST

static unsigned syncs;

static uint64_t always_changed(struct fs *fs)
{
	(void)fs;
	return 1;
}

static int count_sync(struct fs *fs)
{
	(void)fs;
	syncs++;
	return 0;
}

static int stable_at_once(struct fs *fs, uint64_t change, struct fs_waiter *w)
{
	(void)fs;
	(void)change;
	(void)w;
	return 1;
}

static void put_removal(const char *from, const char *name)
{
	REMOVE4args r = {.target = text(name)};

	nf_op(&a, OP_PUTROOTFH);
	nf_lookup(&a, from);
	nf_op(&a, OP_REMOVE);
	NF_PUT(&a, REMOVE4args, &r);
}

/* The first file system's changes are made stable before the second one's begin, which waits for the disk. */
START_TEST(changes_in_two_file_systems_are_no_work_for_the_loop)
{
	struct fs *two = memfs_new();
	const struct export_opts eo = {.anon_uid = 65534, .anon_gid = 65534};
	static struct fs_ops ops;
	struct fs_create fc = {.type = FS_REG, .set = {.what = FS_SET_MODE | FS_SET_UID | FS_SET_GID, .mode = 0666}};
	struct fs_cinfo ci;
	struct fs_node *n;

	ck_assert_ptr_nonnull(two);
	ck_assert_int_eq(exports_add(srv.srv.exports, "/two", two, &eo, NULL, NULL, NULL), 0);
	ck_assert_int_eq(two->ops->create(two->root, "g", 1, &fc, &n, &ci), 0);
	fs_node_put(n);
	make_file("f", 0666, 0);
	ops = *srv.fs->ops;
	ops.changed = always_changed;
	ops.when_stable = stable_at_once;
	ops.sync = count_sync;
	srv.fs->ops = two->ops = &ops;
	nf_begin(&a);
	put_removal("mem", "f");
	put_removal("two", "g");
	srv.parked = 0;
	ck_assert_int_eq(nf_send(&a), NFS4_OK);
	ck_assert_uint_eq(srv.parked, 1);
	ck_assert_uint_eq(syncs, 1);
}
END_TEST

START_TEST(data_operations_on_what_is_no_file_say_what_it_is)
{
	ck_assert_int_eq(create(NF4LNK, "l"), NFS4_OK);
	ck_assert_int_eq(create(NF4FIFO, "p"), NFS4_OK);
	begin_mem();
	put_read(0, 1);
	ck_assert_int_eq(send_mem(), NFS4ERR_ISDIR);
	begin_mem();
	nf_lookup(&a, "l");
	put_read(0, 1);
	ck_assert_int_eq(send_mem(), NFS4ERR_SYMLINK);
	begin_mem();
	nf_lookup(&a, "p");
	put_write(0, "a", 1, UNSTABLE4);
	ck_assert_int_eq(send_mem(), NFS4ERR_WRONG_TYPE);
}
END_TEST

START_TEST(reading_and_writing_with_a_special_stateid_takes_permission)
{
	make_file("f", 0600, 1000);
	a.uid = 1001;
	begin_mem();
	nf_lookup(&a, "f");
	put_read(0, 1);
	ck_assert_int_eq(send_mem(), NFS4ERR_ACCESS);
	begin_mem();
	nf_lookup(&a, "f");
	put_write(0, "a", 1, UNSTABLE4);
	ck_assert_int_eq(send_mem(), NFS4ERR_ACCESS);
	a.uid = 1000;
	begin_mem();
	nf_lookup(&a, "f");
	put_write(0, "a", 1, UNSTABLE4);
	ck_assert_int_eq(send_mem(), NFS4_OK);
}
END_TEST

START_TEST(hints_with_a_special_stateid_take_permission_to_read)
{
	uint32_t word = 1 << IO_ADVISE4_WILLNEED | 1 << IO_ADVISE4_RANDOM;
	IO_ADVISE4args hint = {.iaa_hints = {1, &word}};
	static const struct {
		uint32_t mode, uid;
		nfsstat4 st;
	} cases[] = {{0600, 1001, NFS4ERR_ACCESS},
		     {0622, 1001, NFS4ERR_ACCESS},
		     {0604, 1001, NFS4_OK},
		     {0000, 1000, NFS4_OK}};

	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		char name[2] = {(char)('a' + (int)i), 0};

		a.uid = 0;
		make_file(name, cases[i].mode, 1000);
		a.uid = cases[i].uid;
		begin_mem();
		nf_lookup(&a, name);
		nf_op(&a, OP_IO_ADVISE);
		NF_PUT(&a, IO_ADVISE4args, &hint);
		ck_assert_int_eq(send_mem(), cases[i].st);
	}
}
END_TEST

START_TEST(commit_checks_its_range)
{
	static const struct {
		uint64_t off;
		uint32_t count;
		nfsstat4 st;
	} cases[] = {
		{0, 0, NFS4_OK}, {5, 100, NFS4_OK}, {UINT64_MAX - 5, 3, NFS4_OK}, {UINT64_MAX - 5, 100, NFS4ERR_INVAL}};

	make_file("f", 0666, 0);
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		COMMIT4args c = {.offset = cases[i].off, .count = cases[i].count};

		begin_mem();
		nf_lookup(&a, "f");
		nf_op(&a, OP_COMMIT);
		NF_PUT(&a, COMMIT4args, &c);
		ck_assert_int_eq(send_mem(), cases[i].st);
	}
}
END_TEST

/* RFC 7862 §15.11. */
START_TEST(seek_finds_data_and_holes_and_the_end)
{
	static const struct {
		uint64_t off;
		data_content4 what;
		nfsstat4 st;
		bool eof;
		uint64_t found;
	} cases[] = {
		{0, NFS4_CONTENT_DATA, NFS4_OK, false, 0},
		{0, NFS4_CONTENT_HOLE, NFS4_OK, false, 4096},
		{4096, NFS4_CONTENT_DATA, NFS4_OK, false, 40960},
		{40960, NFS4_CONTENT_HOLE, NFS4_OK, true, 45056},
		{45056, NFS4_CONTENT_DATA, NFS4ERR_NXIO, false, 0},
		{0, (data_content4)9, NFS4ERR_UNION_NOTSUPP, false, 0},
	};
	static char page[4096];

	make_file("f", 0666, 0);
	begin_mem();
	nf_lookup(&a, "f");
	put_write(0, page, 4096, UNSTABLE4);
	put_write(40960, page, 4096, UNSTABLE4);
	ck_assert_int_eq(send_mem(), NFS4_OK);
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		SEEK4args s = {.sa_stateid = anonymous, .sa_offset = cases[i].off, .sa_what = cases[i].what};
		seek_res4 res;

		begin_mem();
		nf_lookup(&a, "f");
		nf_op(&a, OP_SEEK);
		NF_PUT(&a, SEEK4args, &s);
		ck_assert_int_eq(send_mem(), cases[i].st);
		if (cases[i].st != NFS4_OK)
			continue;
		nf_result(&a, OP_LOOKUP);
		nf_result(&a, OP_SEEK);
		NF_GET(&a, seek_res4, &res);
		ck_assert_int_eq(res.sr_eof, cases[i].eof);
		ck_assert_uint_eq(res.sr_offset, cases[i].found);
	}
}
END_TEST

static nfsstat4 advise(const char *name, uint64_t off, uint64_t count, const uint32_t *mask, u_int nmask)
{
	IO_ADVISE4args i = {.iaa_stateid = anonymous, .iaa_offset = off, .iaa_count = count};
	IO_ADVISE4resok res;
	nfsstat4 st;

	i.iaa_hints.bitmap4_len = nmask;
	i.iaa_hints.bitmap4_val = (uint32_t *)(uintptr_t)mask;
	begin_mem();
	if (name)
		nf_lookup(&a, name);
	nf_op(&a, OP_IO_ADVISE);
	NF_PUT(&a, IO_ADVISE4args, &i);
	st = send_mem();
	if (st == NFS4_OK) {
		nf_result(&a, OP_LOOKUP);
		nf_result(&a, OP_IO_ADVISE);
		NF_GET(&a, IO_ADVISE4resok, &res);
		for (u_int w = 0; w < res.ior_hints.bitmap4_len; w++)
			ck_assert_uint_eq(res.ior_hints.bitmap4_val[w] & ~(w < nmask ? mask[w] : 0), 0);
	}
	return st;
}

/* io-advise.md D1, D2, D6, D7, R5, R6, R22, R24. */
START_TEST(hints_of_any_kind_and_range_are_accepted_and_none_is_claimed)
{
	static const uint32_t unknown[] = {1u << 11, 1u << 8}, both[] = {1u << 1 | 1u << 3},
			      all[] = {UINT32_MAX, UINT32_MAX, 1};

	fill("f", 100);
	ck_assert_int_eq(create(NF4LNK, "l"), NFS4_OK);
	ck_assert_int_eq(create(NF4SOCK, "s"), NFS4_OK);
	ck_assert_int_eq(advise("f", 1 << 30, 4096, both, 1), NFS4_OK);
	ck_assert_int_eq(advise("f", 50, 0, both, 1), NFS4_OK);
	ck_assert_int_eq(advise("f", 0, 10, unknown, 2), NFS4_OK);
	ck_assert_int_eq(advise("f", 0, UINT64_MAX, all, 3), NFS4_OK);
	ck_assert_int_eq(advise("f", 0, 0, NULL, 0), NFS4_OK);
	ck_assert_int_eq(advise("f", 2, UINT64_MAX, both, 1), NFS4ERR_INVAL);
	ck_assert_int_eq(advise(NULL, 0, 0, both, 1), NFS4ERR_ISDIR);
	ck_assert_int_eq(advise("l", 0, 0, both, 1), NFS4ERR_SYMLINK);
	ck_assert_int_eq(advise("s", 0, 0, both, 1), NFS4ERR_WRONG_TYPE);
}
END_TEST

START_TEST(allocate_and_deallocate_change_what_is_there)
{
	ALLOCATE4args al = {.aa_stateid = anonymous, .aa_offset = 8192, .aa_length = 4096};
	DEALLOCATE4args de = {.da_stateid = anonymous, .da_offset = 0, .da_length = 4096};
	READ4resok res;

	fill("f", 8192);
	begin_mem();
	nf_lookup(&a, "f");
	nf_op(&a, OP_ALLOCATE);
	NF_PUT(&a, ALLOCATE4args, &al);
	nf_op(&a, OP_DEALLOCATE);
	NF_PUT(&a, DEALLOCATE4args, &de);
	put_read(0, 65536);
	ck_assert_int_eq(send_mem(), NFS4_OK);
	nf_result(&a, OP_LOOKUP);
	nf_result(&a, OP_ALLOCATE);
	nf_result(&a, OP_DEALLOCATE);
	nf_result(&a, OP_READ);
	NF_GET(&a, READ4resok, &res);
	ck_assert_uint_eq(res.data.data_len, 12288);
	for (unsigned i = 0; i < 12288; i++)
		ck_assert_int_eq((uint8_t)res.data.data_val[i], i >= 4096 && i < 8192 ? i % 251 : 0);
	al.aa_length = 0;
	begin_mem();
	nf_lookup(&a, "f");
	nf_op(&a, OP_ALLOCATE);
	NF_PUT(&a, ALLOCATE4args, &al);
	ck_assert_int_eq(send_mem(), NFS4ERR_INVAL);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("compound: files");
	TCase *tc = tcase_create("all");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, readdir_lists_each_name_once_while_others_come_and_go);
	tcase_add_test(tc, readdir_without_room_for_an_entry_is_too_small);
	tcase_add_test(tc, readdir_of_a_file_is_refused_and_needs_permission_to_read);
	tcase_add_test(tc, create_makes_every_type_but_files_and_devices_need_root);
	tcase_add_test(tc, created_object_is_the_current_one_and_the_callers);
	tcase_add_test(tc, readlink_gives_the_target_and_only_of_links);
	tcase_add_test(tc, remove_and_rename_and_link_as_the_rfc_says);
	tcase_add_test(tc, rename_and_link_between_exports_are_refused);
	tcase_add_test(tc, sticky_directory_gives_up_entries_to_their_owners_only);
	tcase_add_test(tc, moving_a_directory_elsewhere_takes_permission_to_write_in_it);
	tcase_add_test(tc, pseudo_root_is_read_only);
	tcase_add_test(tc, what_is_written_is_read_at_any_offset);
	tcase_add_test(tc, unstable_write_stays_on_the_loop_and_a_stable_one_is_stable);
	tcase_add_test(tc, compound_that_waits_goes_on_where_it_was);
	tcase_add_test(tc, changes_in_two_file_systems_are_no_work_for_the_loop);
	tcase_add_test(tc, data_operations_on_what_is_no_file_say_what_it_is);
	tcase_add_test(tc, reading_and_writing_with_a_special_stateid_takes_permission);
	tcase_add_test(tc, hints_with_a_special_stateid_take_permission_to_read);
	tcase_add_test(tc, commit_checks_its_range);
	tcase_add_test(tc, seek_finds_data_and_holes_and_the_end);
	tcase_add_test(tc, hints_of_any_kind_and_range_are_accepted_and_none_is_claimed);
	tcase_add_test(tc, allocate_and_deallocate_change_what_is_there);
	suite_add_tcase(suite, tc);
	r = srunner_create(suite);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

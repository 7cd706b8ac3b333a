/* SPDX-License-Identifier: BSD-3-Clause */
/* test_open_compound.c - OPEN, CLOSE, LOCK and their kin as whole COMPOUNDs: RFC 8881 §18.16, §18.18, §18.2, §18.10 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/nfs_fixture.h"

enum { R = OPEN4_SHARE_ACCESS_READ, W = OPEN4_SHARE_ACCESS_WRITE, RW = OPEN4_SHARE_ACCESS_BOTH };

static struct nf_server srv;
static struct nf a, b;

/* What an OPEN is made with and what came of it. */
struct want {
	const char *name, *owner;
	uint32_t access, deny;
	bool create;
	createmode4 mode;
	fattr4 attrs;
	char verf[8];
};
static struct {
	OPEN4resok res;
	char fh_bytes[NFS4_FHSIZE];
	nfs_fh4 fh;
} got;

static void setup(void)
{
	nf_server_start(&srv);
	nf_client(&a, &srv, "a");
	nf_client(&b, &srv, "b");
	srv.parked = 0;
}

static void teardown(void)
{
	nf_client_free(&a);
	nf_client_free(&b);
	nf_server_stop(&srv);
}

static void put_open(struct nf *n, const struct want *w)
{
	OPEN4args o = {.share_access = w->access, .share_deny = w->deny};
	createhow4 *how = &o.openhow.openflag4_u.how;
	const char *owner = w->owner ? w->owner : "owner";

	o.owner.clientid = 0x1234; /* must be ignored */
	o.owner.owner.owner_val = (char *)(uintptr_t)owner;
	o.owner.owner.owner_len = (u_int)strlen(owner);
	o.openhow.opentype = w->create ? OPEN4_CREATE : OPEN4_NOCREATE;
	how->mode = w->mode;
	if (w->mode == EXCLUSIVE4) {
		memcpy(how->createhow4_u.createverf, w->verf, 8);
	} else if (w->mode == EXCLUSIVE4_1) {
		memcpy(how->createhow4_u.ch_createboth.cva_verf, w->verf, 8);
		how->createhow4_u.ch_createboth.cva_attrs = w->attrs;
	} else {
		how->createhow4_u.createattrs = w->attrs;
	}
	o.claim.claim = w->name ? CLAIM_NULL : CLAIM_FH;
	o.claim.open_claim4_u.file.utf8string_val = (char *)(uintptr_t)w->name;
	o.claim.open_claim4_u.file.utf8string_len = w->name ? (u_int)strlen(w->name) : 0;
	nf_op(n, OP_OPEN);
	NF_PUT(n, OPEN4args, &o);
}

static void take_open(struct nf *n)
{
	GETFH4resok fh;

	NF_GET(n, OPEN4resok, &got.res);
	ck_assert_int_eq(nf_result(n, OP_GETFH), NFS4_OK);
	NF_GET(n, GETFH4resok, &fh);
	memcpy(got.fh_bytes, fh.object.nfs_fh4_val, fh.object.nfs_fh4_len);
	got.fh.nfs_fh4_val = got.fh_bytes;
	got.fh.nfs_fh4_len = fh.object.nfs_fh4_len;
}

/* SEQUENCE, PUTROOTFH, LOOKUP mem, OPEN, GETFH */
static nfsstat4 open_named(struct nf *n, const struct want *w)
{
	nfsstat4 st, all;

	nf_begin(n);
	nf_goto_mem(n);
	put_open(n, w);
	nf_op(n, OP_GETFH);
	all = nf_send(n);
	nf_at_mem(n);
	st = nf_result(n, OP_OPEN);
	ck_assert_int_eq(st, all);
	if (st == NFS4_OK)
		take_open(n);
	return st;
}

static nfsstat4 open_fh(struct nf *n, const nfs_fh4 *fh, const struct want *w)
{
	nfsstat4 st;

	nf_begin(n);
	nf_putfh(n, fh);
	put_open(n, w);
	nf_op(n, OP_GETFH);
	nf_send(n);
	ck_assert_int_eq(nf_result(n, OP_PUTFH), NFS4_OK);
	st = nf_result(n, OP_OPEN);
	if (st == NFS4_OK)
		take_open(n);
	return st;
}

static nfsstat4 create(struct nf *n, const char *name, uint32_t mode)
{
	struct want w = {.name = name, .access = RW, .create = true, .mode = UNCHECKED4};

	arena_reset(&n->in_arena);
	w.attrs = nf_attr_mode(n, mode);
	return open_named(n, &w);
}

static nfsstat4 close_sid(struct nf *n, const nfs_fh4 *fh, const stateid4 *sid)
{
	nf_begin(n);
	nf_putfh(n, fh);
	nf_stateid_op(n, OP_CLOSE, sid);
	return nf_send(n);
}

static nfsstat4 write_sid(struct nf *n, const nfs_fh4 *fh, const stateid4 *sid, const char *text)
{
	WRITE4args w = {.stateid = *sid, .stable = FILE_SYNC4};

	w.data.data_val = (char *)(uintptr_t)text;
	w.data.data_len = (u_int)strlen(text);
	nf_begin(n);
	nf_putfh(n, fh);
	nf_op(n, OP_WRITE);
	NF_PUT(n, WRITE4args, &w);
	return nf_send(n);
}

/* Status, and the text that was read. */
static nfsstat4 read_sid(struct nf *n, const nfs_fh4 *fh, const stateid4 *sid, char text[64])
{
	READ4args r = {.stateid = *sid, .count = 63};
	READ4resok res;
	nfsstat4 st;

	nf_begin(n);
	nf_putfh(n, fh);
	nf_op(n, OP_READ);
	NF_PUT(n, READ4args, &r);
	st = nf_send(n);
	if (nf_result(n, OP_PUTFH) != NFS4_OK)
		return st;
	ck_assert_int_eq(nf_result(n, OP_READ), st);
	if (st == NFS4_OK) {
		NF_GET(n, READ4resok, &res);
		memcpy(text, res.data.data_val, res.data.data_len);
		text[res.data.data_len] = 0;
	}
	return st;
}

static nfsstat4 remove_name(struct nf *n, const char *name)
{
	REMOVE4args r;

	r.target.utf8string_val = (char *)(uintptr_t)name;
	r.target.utf8string_len = (u_int)strlen(name);
	nf_begin(n);
	nf_goto_mem(n);
	nf_op(n, OP_REMOVE);
	NF_PUT(n, REMOVE4args, &r);
	return nf_send(n);
}

static struct fs_attr attr_of(const char *name)
{
	struct fs_attr at = {0};
	struct fs_node *n;

	ck_assert_int_eq(srv.fs->ops->lookup(srv.fs->root, name, (uint32_t)strlen(name), 0, &n), 0);
	ck_assert_int_eq(srv.fs->ops->getattr(n, 0, &at), 0);
	fs_node_put(n);
	return at;
}

/* ---- creating --------------------------------------------------------------------------------------------------------------- */

/* §18.16.3 */
START_TEST(unchecked_create_makes_the_file_with_its_attributes_and_says_which)
{
	ck_assert_int_eq(create(&a, "f", 0640), NFS4_OK);
	ck_assert_uint_eq(got.res.stateid.seqid, 1);
	ck_assert(nf_mask_has(&got.res.attrset, FATTR4_MODE));
	ck_assert(got.res.cinfo.atomic);
	ck_assert_uint_lt(got.res.cinfo.before, got.res.cinfo.after);
	ck_assert_uint_eq(attr_of("f").mode, 0640);
	ck_assert_uint_eq(got.res.rflags, OPEN4_RESULT_LOCKTYPE_POSIX);
	ck_assert_int_eq(got.res.delegation.delegation_type, OPEN_DELEGATE_NONE);
	ck_assert_uint_eq(srv.parked, 0);
}
END_TEST

START_TEST(a_create_that_would_wait_parks_and_is_done_once)
{
	memfs_set_busy(srv.fs, true);
	ck_assert_int_eq(create(&a, "f", 0640), NFS4_OK);
	memfs_set_busy(srv.fs, false);
	ck_assert_uint_eq(srv.parked, 1);
	ck_assert_uint_eq(got.res.stateid.seqid, 1);
	ck_assert_uint_eq(attr_of("f").mode, 0640);
}
END_TEST

START_TEST(unchecked_create_of_an_existing_file_ignores_the_attributes_but_size_0_truncates)
{
	struct want w = {.name = "f", .access = RW, .create = true, .mode = UNCHECKED4};

	ck_assert_int_eq(create(&a, "f", 0640), NFS4_OK);
	ck_assert_int_eq(write_sid(&a, &got.fh, &got.res.stateid, "hello"), NFS4_OK);
	ck_assert_int_eq(create(&a, "f", 0600), NFS4_OK);
	ck_assert_uint_eq(attr_of("f").mode, 0640);
	ck_assert_uint_eq(attr_of("f").size, 5);
	ck_assert(!nf_mask_has(&got.res.attrset, FATTR4_MODE));
	ck_assert_uint_eq(got.res.cinfo.before, got.res.cinfo.after);

	w.attrs = nf_attr_size(&a, 3);
	ck_assert_int_eq(open_named(&a, &w), NFS4_OK);
	ck_assert_uint_eq(attr_of("f").size, 5);
	w.attrs = nf_attr_size(&a, 0);
	ck_assert_int_eq(open_named(&a, &w), NFS4_OK);
	ck_assert_uint_eq(attr_of("f").size, 0);
	ck_assert(nf_mask_has(&got.res.attrset, FATTR4_SIZE));
}
END_TEST

START_TEST(create_with_a_size_has_that_size)
{
	struct want w = {.name = "f", .access = RW, .create = true, .mode = GUARDED4};

	w.attrs = nf_attr_size(&a, 1000);
	ck_assert_int_eq(open_named(&a, &w), NFS4_OK);
	ck_assert_uint_eq(attr_of("f").size, 1000);
	ck_assert(nf_mask_has(&got.res.attrset, FATTR4_SIZE));
}
END_TEST

/* The answer says which attributes were set. Words of zeros name none, and it has to fit once the file is there. */
START_TEST(a_long_mask_of_attributes_is_answered_by_a_short_one)
{
	struct want w = {.name = "f", .access = RW, .create = true};
	uint32_t words[2000] = {0};

	w.attrs = nf_attr_mode(&a, 0640);
	memcpy(words, w.attrs.attrmask.bitmap4_val, w.attrs.attrmask.bitmap4_len * sizeof *words);
	w.attrs.attrmask.bitmap4_val = words;
	w.attrs.attrmask.bitmap4_len = 2000;
	a.cache_this = true;
	ck_assert_int_eq(open_named(&a, &w), NFS4_OK);
	ck_assert(nf_mask_has(&got.res.attrset, FATTR4_MODE));
	ck_assert_uint_eq(got.res.attrset.bitmap4_len, 2);
}
END_TEST

START_TEST(guarded_create_of_an_existing_name_exists)
{
	struct want w = {.name = "f", .access = RW, .create = true, .mode = GUARDED4};

	w.attrs = nf_attr_mode(&a, 0600);
	ck_assert_int_eq(open_named(&a, &w), NFS4_OK);
	ck_assert_int_eq(open_named(&a, &w), NFS4ERR_EXIST);
}
END_TEST

/* The client waits, and tries again when it has closed a file: nothing must be there then. */
START_TEST(create_without_room_for_its_open_makes_no_file)
{
	const struct st_opts o = {.max_opens = 2};
	struct want w = {.name = "f", .access = RW, .create = true, .mode = GUARDED4};
	nfs_fh4 fh;

	teardown();
	nf_server_start(&srv);
	st_free(srv.srv.state);
	ck_assert_int_eq(st_new(&srv.srv.state, &o, NULL), 0);
	nf_client(&a, &srv, "a");
	nf_client(&b, &srv, "b");
	ck_assert_int_eq(create(&a, "other", 0600), NFS4_OK);
	ck_assert_int_eq(create(&a, "one", 0600), NFS4_OK);
	fh = got.fh;
	w.attrs = nf_attr_mode(&a, 0600);
	ck_assert_int_eq(open_named(&a, &w), NFS4ERR_DQUOT);
	ck_assert_int_eq(close_sid(&a, &fh, &got.res.stateid), NFS4_OK);
	w.attrs = nf_attr_mode(&a, 0600);
	ck_assert_int_eq(open_named(&a, &w), NFS4_OK);
}
END_TEST

/* §18.16.3: the verifier tells a retry from another create */
static void exclusive(createmode4 mode)
{
	struct want w = {
		.name = "f", .access = RW, .create = true, .mode = mode, .verf = "\x81\x02\x03\x04\xf5\x06\x07\x08"};
	stateid4 first;

	w.attrs = nf_attr_mode(&a, 0);
	ck_assert_int_eq(open_named(&a, &w), NFS4_OK);
	first = got.res.stateid;
	ck_assert(nf_mask_has(&got.res.attrset, FATTR4_TIME_ACCESS));
	ck_assert(nf_mask_has(&got.res.attrset, FATTR4_TIME_MODIFY));
	ck_assert_int_eq(nf_mask_has(&got.res.attrset, FATTR4_MODE), mode == EXCLUSIVE4_1);
	w.attrs = nf_attr_mode(&a, 0);
	ck_assert_int_eq(open_named(&a, &w), NFS4_OK);
	ck_assert_mem_eq(got.res.stateid.other, first.other, sizeof first.other);
	ck_assert(nf_mask_has(&got.res.attrset, FATTR4_TIME_ACCESS));
	w.verf[7]++;
	w.attrs = nf_attr_mode(&a, 0);
	ck_assert_int_eq(open_named(&a, &w), NFS4ERR_EXIST);
	w.verf[7]--;
	w.verf[0]++;
	w.attrs = nf_attr_mode(&a, 0);
	ck_assert_int_eq(open_named(&a, &w), NFS4ERR_EXIST);
}

START_TEST(exclusive_create_succeeds_again_with_the_same_verifier_only)
{
	exclusive(EXCLUSIVE4);
}
END_TEST

START_TEST(exclusive4_1_create_succeeds_again_with_the_same_verifier_only)
{
	exclusive(EXCLUSIVE4_1);
}
END_TEST

/* What was made when it was sent first can be opened once more: nobody is taken off the record on an event loop for that. */
START_TEST(exclusive_create_again_waits_for_the_record_on_a_worker)
{
	struct want w = {.name = "f",
			 .access = RW,
			 .create = true,
			 .mode = EXCLUSIVE4,
			 .verf = "\x81\x02\x03\x04\xf5\x06\x07\x08"};
	struct want deny = {.name = "f", .access = R, .deny = RW};

	ck_assert_int_eq(open_named(&a, &w), NFS4_OK);
	ck_assert_int_eq(close_sid(&a, &got.fh, &got.res.stateid), NFS4_OK);
	ck_assert_int_eq(open_named(&b, &deny), NFS4_OK);
	st_skip_time(srv.srv.state, st_lease_seconds(srv.srv.state) + 1);
	srv.parked = 0;
	ck_assert_int_eq(open_named(&a, &w), NFS4_OK);
	ck_assert_uint_eq(srv.parked, 1);
}
END_TEST

START_TEST(create_that_fails_in_the_file_system_leaves_nothing_open)
{
	struct st_stats stats;

	memfs_fail_next(srv.fs, -ENOSPC);
	ck_assert_int_eq(create(&a, "f", 0600), NFS4ERR_NOSPC);
	st_get_stats(srv.srv.state, &stats);
	ck_assert_uint_eq(stats.opens, 0);
	ck_assert_uint_eq(memfs_count(srv.fs), 1);
}
END_TEST

START_TEST(truncation_that_fails_takes_the_open_back)
{
	struct want w = {.name = "f", .access = RW, .create = true, .mode = UNCHECKED4};
	struct st_stats stats;

	ck_assert_int_eq(create(&a, "f", 0666), NFS4_OK);
	w.attrs = nf_attr_size(&b, 0);
	memfs_fail_next(srv.fs, -EIO);
	ck_assert_int_eq(open_named(&b, &w), NFS4ERR_IO);
	st_get_stats(srv.srv.state, &stats);
	ck_assert_uint_eq(stats.opens, 1);
}
END_TEST

/* ---- what is refused ---------------------------------------------------------------------------------------------------------- */

static void make(const char *name, enum fs_type type, uint32_t mode, uint32_t uid)
{
	struct fs_create fc = {
		.type = type,
		.set = {.what = FS_SET_MODE | FS_SET_UID | FS_SET_GID, .mode = mode, .uid = uid, .gid = uid},
		.target = "f",
		.target_len = 1};
	struct fs_cinfo ci;
	struct fs_node *n;

	ck_assert_int_eq(srv.fs->ops->create(srv.fs->root, name, (uint32_t)strlen(name), &fc, &n, &ci), 0);
	fs_node_put(n);
}

/* §18.16.4 */
START_TEST(open_of_what_is_no_regular_file_says_what_it_is)
{
	const struct {
		const char *name;
		enum fs_type type;
		nfsstat4 st;
	} kinds[] = {{"dir", FS_DIR, NFS4ERR_ISDIR},        {"lnk", FS_LNK, NFS4ERR_SYMLINK},
		     {"blk", FS_BLK, NFS4ERR_WRONG_TYPE},   {"chr", FS_CHR, NFS4ERR_WRONG_TYPE},
		     {"fifo", FS_FIFO, NFS4ERR_WRONG_TYPE}, {"sock", FS_SOCK, NFS4ERR_WRONG_TYPE}};

	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		struct want w = {.name = kinds[i].name, .access = R};

		make(w.name, kinds[i].type, 0777, 0);
		ck_assert_int_eq(open_named(&a, &w), kinds[i].st);
		w.create = true;
		w.attrs = nf_attr_mode(&a, 0600);
		ck_assert_int_eq(open_named(&a, &w), kinds[i].st);
	}
}
END_TEST

START_TEST(open_of_a_missing_file_and_of_bad_names_is_refused)
{
	struct want w = {.name = "none", .access = R};
	char big[300];

	ck_assert_int_eq(open_named(&a, &w), NFS4ERR_NOENT);
	w.name = "..";
	ck_assert_int_eq(open_named(&a, &w), NFS4ERR_BADNAME);
	w.name = "a/b";
	ck_assert_int_eq(open_named(&a, &w), NFS4ERR_BADCHAR);
	memset(big, 'x', sizeof big);
	big[sizeof big - 1] = 0;
	w.name = big;
	ck_assert_int_eq(open_named(&a, &w), NFS4ERR_NAMETOOLONG);
	w.name = "";
	ck_assert_int_eq(open_named(&a, &w), NFS4ERR_INVAL);
}
END_TEST

START_TEST(share_bits_that_are_not_defined_are_invalid)
{
	struct want w = {.name = "f"};
	const uint32_t bad[][2] = {{0, 0}, {R, 4}, {R | 8, 0}, {R | 0x600, 0}, {R | 0x80000000u, 0}};
	const uint32_t good[] = {R | 0x100, R | 0x400, R | 0x500, R | 0x10000, R | 0x30000};

	ck_assert_int_eq(create(&a, "f", 0600), NFS4_OK);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		w.access = bad[i][0];
		w.deny = bad[i][1];
		ck_assert_int_eq(open_named(&a, &w), NFS4ERR_INVAL);
	}
	w.deny = 0;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		w.access = good[i];
		ck_assert_int_eq(open_named(&a, &w), NFS4_OK);
	}
}
END_TEST

/* §18.16.3: why there is none */
START_TEST(client_that_asks_for_a_delegation_is_told_why_there_is_none)
{
	struct want w = {.name = "f", .access = R | OPEN4_SHARE_ACCESS_WANT_READ_DELEG};

	ck_assert_int_eq(create(&a, "f", 0600), NFS4_OK);
	ck_assert_int_eq(open_named(&a, &w), NFS4_OK);
	ck_assert_int_eq(got.res.delegation.delegation_type, OPEN_DELEGATE_NONE_EXT);
	w.access = R | OPEN4_SHARE_ACCESS_WANT_NO_DELEG;
	ck_assert_int_eq(open_named(&a, &w), NFS4_OK);
	ck_assert_int_eq(got.res.delegation.delegation_type, OPEN_DELEGATE_NONE_EXT);
	ck_assert_int_eq(got.res.delegation.open_delegation4_u.od_whynone.ond_why, WND4_NOT_WANTED);
}
END_TEST

START_TEST(mode_of_a_file_decides_who_may_open_it_and_how)
{
	const struct {
		uint32_t mode, access;
		nfsstat4 st;
	} cases[] = {{0604, R, NFS4_OK},        {0604, W, NFS4ERR_ACCESS}, {0602, W, NFS4_OK},
		     {0602, R, NFS4ERR_ACCESS}, {0606, RW, NFS4_OK},       {0604, RW, NFS4ERR_ACCESS},
		     {0701, R, NFS4_OK}, /* to be run */
		     {0701, W, NFS4ERR_ACCESS}, {0660, R, NFS4ERR_ACCESS}};

	a.uid = 1000;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char name[] = {'m', (char)('0' + i), 0};
		struct want w = {.name = name, .access = cases[i].access};

		make(name, FS_REG, cases[i].mode, 5);
		ck_assert_int_eq(open_named(&a, &w), cases[i].st);
	}
}
END_TEST

START_TEST(truncating_needs_the_permission_to_write)
{
	struct want w = {.name = "f", .access = R, .create = true, .mode = UNCHECKED4};

	make("f", FS_REG, 0644, 5);
	a.uid = 1000;
	w.attrs = nf_attr_size(&a, 0);
	ck_assert_int_eq(open_named(&a, &w), NFS4ERR_ACCESS);
}
END_TEST

/* Root neither: writes that come later would fail, when the client has told its program that they are done. */
START_TEST(open_for_writing_of_what_must_not_change_is_refused_to_everybody)
{
	static const uint32_t flags[] = {FS_ATTR_IMMUTABLE, FS_ATTR_APPEND};
	struct want w = {.name = "f", .create = true, .mode = UNCHECKED4};

	make("f", FS_REG, 0666, 5);
	for (int i = 0; i < 4; i++) {
		memfs_set_flags(srv.fs, "f", flags[i & 1]);
		a.uid = i < 2 ? 0 : 5;
		w.attrs = nf_attr_size(&a, 0);
		w.access = R;
		ck_assert_int_eq(open_named(&a, &w), NFS4ERR_PERM); /* it would be cut */
		w.attrs = (fattr4){.attrmask = {.bitmap4_len = 0}};
		ck_assert_int_eq(open_named(&a, &w), NFS4_OK);
		w.access = RW;
		ck_assert_int_eq(open_named(&a, &w), NFS4ERR_PERM);
	}
}
END_TEST

START_TEST(creator_may_write_what_it_created_without_permission_for_anyone)
{
	a.uid = 1000;
	ck_assert_int_eq(create(&a, "f", 0), NFS4_OK);
	ck_assert_int_eq(create(&a, "f", 0), NFS4ERR_ACCESS); /* now it exists */
}
END_TEST

/* §18.16.3 */
START_TEST(claims_other_than_by_name_and_by_filehandle_are_refused_as_the_rfc_says)
{
	const struct {
		open_claim_type4 claim;
		nfsstat4 st;
	} claims[] = {{CLAIM_PREVIOUS, NFS4ERR_NO_GRACE},
		      {CLAIM_DELEGATE_CUR, NFS4ERR_BAD_STATEID},
		      {CLAIM_DELEGATE_PREV, NFS4ERR_NOTSUPP},
		      {CLAIM_DELEG_CUR_FH, NFS4ERR_BAD_STATEID},
		      {CLAIM_DELEG_PREV_FH, NFS4ERR_NOTSUPP}};

	for (size_t i = 0; i < sizeof claims / sizeof *claims; i++) {
		OPEN4args o = {.share_access = R};

		o.claim.claim = claims[i].claim;
		if (o.claim.claim == CLAIM_DELEGATE_PREV)
			o.claim.open_claim4_u.file_delegate_prev = (component4){.utf8string_len = 0};
		nf_begin(&a);
		nf_goto_mem(&a);
		nf_op(&a, OP_OPEN);
		NF_PUT(&a, OPEN4args, &o);
		ck_assert_int_eq(nf_send(&a), claims[i].st);
	}
}
END_TEST

START_TEST(open_by_filehandle_opens_the_current_object_and_creates_nothing)
{
	struct want w = {.access = R};
	nfs_fh4 fh;

	ck_assert_int_eq(create(&a, "f", 0644), NFS4_OK);
	fh = got.fh;
	ck_assert_int_eq(close_sid(&a, &fh, &got.res.stateid), NFS4_OK);
	ck_assert_int_eq(open_fh(&b, &fh, &w), NFS4_OK);
	w.create = true;
	w.attrs = nf_attr_mode(&b, 0600);
	ck_assert_int_eq(open_fh(&b, &fh, &w), NFS4ERR_INVAL);
}
END_TEST

START_TEST(open_in_the_pseudo_root_creates_nothing)
{
	struct want w = {.name = "new", .access = RW, .create = true};

	w.attrs = nf_attr_mode(&a, 0600);
	nf_begin(&a);
	nf_op(&a, OP_PUTROOTFH);
	put_open(&a, &w);
	ck_assert_int_eq(nf_send(&a), NFS4ERR_ROFS);
	w.create = false;
	w.name = "mem";
	nf_begin(&a);
	nf_op(&a, OP_PUTROOTFH);
	put_open(&a, &w);
	ck_assert_int_eq(nf_send(&a), NFS4ERR_ISDIR);
}
END_TEST

/* ---- living with an open file ---------------------------------------------------------------------------------------------------- */

START_TEST(open_of_an_existing_file_runs_on_the_event_loop)
{
	struct want w = {.name = "f", .access = RW};

	make("f", FS_REG, 0666, 0);
	ck_assert_int_eq(open_named(&a, &w), NFS4_OK);
	ck_assert_uint_eq(srv.parked, 0);
	memfs_set_busy(srv.fs, true);
	ck_assert_int_eq(open_named(&b, &w), NFS4_OK);
	ck_assert_uint_eq(srv.parked, 1);
}
END_TEST

/* until a restart: tests/protocol/test_reclaim.c has that */
START_TEST(unlinked_file_stays_readable_until_its_last_close)
{
	struct want w = {.name = "f", .access = R};
	stateid4 mine;
	char text[64];
	nfs_fh4 fh;

	ck_assert_int_eq(create(&a, "f", 0644), NFS4_OK);
	mine = got.res.stateid;
	fh = got.fh;
	ck_assert_int_eq(write_sid(&a, &fh, &mine, "still here"), NFS4_OK);
	ck_assert_int_eq(open_named(&b, &w), NFS4_OK);
	ck_assert_int_eq(remove_name(&b, "f"), NFS4_OK);
	ck_assert_int_eq(open_named(&b, &w), NFS4ERR_NOENT);
	ck_assert_int_eq(close_sid(&a, &fh, &mine), NFS4_OK);
	ck_assert_int_eq(read_sid(&b, &fh, &got.res.stateid, text), NFS4_OK);
	ck_assert_str_eq(text, "still here");
	ck_assert_int_eq(close_sid(&b, &fh, &got.res.stateid), NFS4_OK);
	ck_assert_int_eq(read_sid(&b, &fh, &got.res.stateid, text), NFS4ERR_STALE);
	ck_assert_uint_eq(memfs_count(srv.fs), 1);
}
END_TEST

/* §18.2.4 */
START_TEST(close_returns_the_invalid_stateid)
{
	stateid4 sid;

	ck_assert_int_eq(create(&a, "f", 0644), NFS4_OK);
	ck_assert_int_eq(close_sid(&a, &got.fh, &got.res.stateid), NFS4_OK);
	nf_result(&a, OP_PUTFH);
	nf_result(&a, OP_CLOSE);
	NF_GET(&a, stateid4, &sid);
	ck_assert_mem_eq(&sid, &st_invalid_stateid, sizeof sid);
}
END_TEST

/* Every length of what goes before: what is answered with REP_TOO_BIG_TO_CACHE was not done, and its stateid is what it was. */
START_TEST(what_does_not_fit_into_the_reply_changes_no_stateid)
{
	struct want w = {.name = "f", .access = RW};
	READ4args r = {.offset = 0};
	char *big = calloc(1, 2049);
	unsigned refused = 0;

	memset(big, 'x', 2048);
	ck_assert_int_eq(create(&a, "f", 0644), NFS4_OK);
	ck_assert_int_eq(write_sid(&a, &got.fh, &got.res.stateid, big), NFS4_OK);
	ck_assert_int_eq(close_sid(&a, &got.fh, &got.res.stateid), NFS4_OK);
	for (r.count = 1700; r.count < 2048; r.count += 4) {
		nfsstat4 st;

		a.cache_this = false;
		ck_assert_int_eq(open_named(&a, &w), NFS4_OK);
		r.stateid = got.res.stateid;
		a.cache_this = true;
		nf_begin(&a);
		nf_putfh(&a, &got.fh);
		nf_op(&a, OP_READ);
		NF_PUT(&a, READ4args, &r);
		nf_stateid_op(&a, OP_CLOSE, &r.stateid);
		st = nf_send(&a);
		if (st == NFS4_OK)
			continue;
		refused++;
		ck_assert_int_eq(st, NFS4ERR_REP_TOO_BIG_TO_CACHE);
		a.cache_this = false;
		ck_assert_int_eq(close_sid(&a, &got.fh, &r.stateid), NFS4_OK);
	}
	ck_assert_uint_gt(refused, 4);
	free(big);
}
END_TEST

/* §16.2.3.1.2 */
START_TEST(current_stateid_carries_from_open_to_write_to_close)
{
	const stateid4 current = {.seqid = 1};
	struct want w = {.name = "f", .access = RW, .create = true};
	WRITE4args wr = {.stateid = current, .stable = FILE_SYNC4};

	wr.data.data_val = (char *)(uintptr_t) "text";
	wr.data.data_len = 4;
	w.attrs = nf_attr_mode(&a, 0600);
	nf_begin(&a);
	nf_goto_mem(&a);
	put_open(&a, &w);
	nf_op(&a, OP_WRITE);
	NF_PUT(&a, WRITE4args, &wr);
	nf_stateid_op(&a, OP_CLOSE, &current);
	ck_assert_int_eq(nf_send(&a), NFS4_OK);

	/* another current filehandle has no current stateid */
	nf_begin(&a);
	nf_goto_mem(&a);
	w.attrs = nf_attr_mode(&a, 0600);
	put_open(&a, &w);
	nf_goto_mem(&a);
	nf_lookup(&a, "f");
	nf_stateid_op(&a, OP_CLOSE, &current);
	ck_assert_int_eq(nf_send(&a), NFS4ERR_BAD_STATEID);
}
END_TEST

/* §8.2.3: what stands for the current stateid has the seqid 0, so that an open which was changed meanwhile is meant as it is now */
START_TEST(current_stateid_is_not_old_when_its_open_was_upgraded)
{
	const stateid4 current = {.seqid = 1};
	struct want w = {.name = "f", .access = RW, .create = true};
	READ4args r = {.stateid = current, .count = 4};

	nf_begin(&a);
	nf_goto_mem(&a);
	w.attrs = nf_attr_mode(&a, 0600);
	put_open(&a, &w);
	nf_op(&a, OP_SAVEFH);
	nf_goto_mem(&a);
	w.create = false;
	put_open(&a, &w);
	nf_op(&a, OP_RESTOREFH);
	nf_op(&a, OP_READ);
	NF_PUT(&a, READ4args, &r);
	ck_assert_int_eq(nf_send(&a), NFS4_OK);

	/* CLOSE and OPEN_DOWNGRADE mean the very one. */
	nf_begin(&a);
	nf_goto_mem(&a);
	put_open(&a, &w);
	nf_op(&a, OP_SAVEFH);
	nf_goto_mem(&a);
	put_open(&a, &w);
	nf_op(&a, OP_RESTOREFH);
	nf_stateid_op(&a, OP_CLOSE, &current);
	ck_assert_int_eq(nf_send(&a), NFS4ERR_OLD_STATEID);
}
END_TEST

/* §8.2.3: what CLOSE returned stands for nothing, and least of all for all zeros, which everybody may read with */
START_TEST(current_stateid_of_a_closed_file_is_bad)
{
	const stateid4 current = {.seqid = 1};
	struct want w = {.name = "f", .access = RW, .create = true};
	READ4args r = {.stateid = current, .count = 4};

	w.attrs = nf_attr_mode(&a, 0600);
	nf_begin(&a);
	nf_goto_mem(&a);
	put_open(&a, &w);
	nf_stateid_op(&a, OP_CLOSE, &current);
	nf_op(&a, OP_READ);
	NF_PUT(&a, READ4args, &r);
	ck_assert_int_eq(nf_send(&a), NFS4ERR_BAD_STATEID);
}
END_TEST

/* §18.38.3 */
START_TEST(free_stateid_takes_the_current_stateid_and_refuses_an_open)
{
	const stateid4 current = {.seqid = 1};
	struct want w = {.name = "f", .access = RW, .create = true};

	w.attrs = nf_attr_mode(&a, 0600);
	nf_begin(&a);
	nf_goto_mem(&a);
	put_open(&a, &w);
	nf_stateid_op(&a, OP_FREE_STATEID, &current);
	ck_assert_int_eq(nf_send(&a), NFS4ERR_LOCKS_HELD);
}
END_TEST

/* §9.7 over the wire: SETATTR of the size counts as a write */
START_TEST(deny_write_stops_others_from_writing_and_truncating)
{
	struct want w = {.name = "f", .access = R, .deny = W}, t = {.name = "f", .access = R, .create = true};
	static const stateid4 anon;
	SETATTR4args sa = {.stateid = anon};
	stateid4 mine;

	make("f", FS_REG, 0666, 0);
	ck_assert_int_eq(open_named(&a, &w), NFS4_OK);
	mine = got.res.stateid;
	ck_assert_int_eq(write_sid(&b, &got.fh, &anon, "no"), NFS4ERR_LOCKED);
	ck_assert_int_eq(write_sid(&a, &got.fh, &mine, "no"), NFS4ERR_OPENMODE);
	nf_begin(&b);
	nf_putfh(&b, &got.fh);
	sa.obj_attributes = nf_attr_size(&b, 0);
	nf_op(&b, OP_SETATTR);
	NF_PUT(&b, SETATTR4args, &sa);
	ck_assert_int_eq(nf_send(&b), NFS4ERR_LOCKED);
	t.attrs = nf_attr_size(&b, 0);
	ck_assert_int_eq(open_named(&b, &t), NFS4ERR_SHARE_DENIED);
}
END_TEST

static nfsstat4 set_size_sid(struct nf *n, const nfs_fh4 *fh, const stateid4 *sid, uint64_t size)
{
	SETATTR4args sa = {.stateid = *sid};

	sa.obj_attributes = nf_attr_size(n, size);
	nf_begin(n);
	nf_putfh(n, fh);
	nf_op(n, OP_SETATTR);
	NF_PUT(n, SETATTR4args, &sa);
	return nf_send(n);
}

static nfsstat4 set_size(struct nf *n, const nfs_fh4 *fh, uint64_t size)
{
	return set_size_sid(n, fh, &(stateid4){.seqid = 0}, size);
}

/* §8.4.3: what a client whose lease is over denies is in nobody's way, whichever stateid they come with */
START_TEST(reservation_of_a_silent_client_gives_way_to_all_that_it_denies)
{
	struct want deny = {.name = "f", .access = R, .deny = RW}, cut = {.name = "f", .create = true};
	static const stateid4 anon;
	char text[64];

	make("f", FS_REG, 0666, 0);
	for (int i = 0; i < 5; i++) {
		ck_assert_int_eq(open_named(&a, &deny), NFS4_OK);
		ck_assert_int_eq(write_sid(&b, &got.fh, &anon, "no"), NFS4ERR_LOCKED);
		st_skip_time(srv.srv.state, st_lease_seconds(srv.srv.state) + 1);
		cut.access = i == 3 ? W : R;
		cut.attrs = nf_attr_size(&b, 0);
		if (i == 0)
			ck_assert_int_eq(write_sid(&b, &got.fh, &anon, "text"), NFS4_OK);
		else if (i == 1)
			ck_assert_int_eq(read_sid(&b, &got.fh, &anon, text), NFS4_OK);
		else if (i == 2)
			ck_assert_int_eq(set_size(&b, &got.fh, 1), NFS4_OK);
		else
			ck_assert_int_eq(open_named(&b, &cut), NFS4_OK);
		if (i >= 3)
			ck_assert_int_eq(close_sid(&b, &got.fh, &got.res.stateid), NFS4_OK);
	}
}
END_TEST

/* §9.7: nor is its own, with which it opens the file once more */
START_TEST(own_deny_does_not_stop_a_truncating_open)
{
	struct want w = {.name = "f", .access = RW, .deny = W};
	struct want cut = {.name = "f", .access = W, .deny = W, .create = true};

	make("f", FS_REG, 0666, 0);
	ck_assert_int_eq(open_named(&a, &w), NFS4_OK);
	cut.attrs = nf_attr_size(&a, 0);
	ck_assert_int_eq(open_named(&a, &cut), NFS4_OK);
	ck_assert_int_eq(open_named(&b, &cut), NFS4ERR_SHARE_DENIED);
}
END_TEST

/* §18.22.3: a server may let who has a file open for writing read it, and asks then whether that user may */
START_TEST(write_only_open_reads_only_what_its_user_may_read)
{
	struct want w = {.name = "f", .access = W}, rw = {.name = "f", .access = RW};
	char text[64];

	make("f", FS_REG, 0002, 0);
	ck_assert_int_eq(open_named(&a, &rw), NFS4ERR_ACCESS);
	ck_assert_int_eq(open_named(&a, &w), NFS4_OK);
	ck_assert_int_eq(write_sid(&a, &got.fh, &got.res.stateid, "secret"), NFS4_OK);
	ck_assert_int_eq(read_sid(&a, &got.fh, &got.res.stateid, text), NFS4ERR_ACCESS);
	make("g", FS_REG, 0006, 0);
	w.name = "g";
	ck_assert_int_eq(open_named(&a, &w), NFS4_OK);
	ck_assert_int_eq(read_sid(&a, &got.fh, &got.res.stateid, text), NFS4_OK);
	make("h", FS_REG, 0200, 65534);
	w.name = "h";
	ck_assert_int_eq(open_named(&a, &w), NFS4_OK);
	ck_assert_int_eq(read_sid(&a, &got.fh, &got.res.stateid, text), NFS4_OK); /* it is the owner's */
}
END_TEST

/* ---- the replay cache ------------------------------------------------------------------------------------------------------------- */

/* §2.10.6: creating twice would fail; the retry is answered, not executed */
START_TEST(retry_of_a_create_is_answered_from_the_cache)
{
	struct want w = {.name = "f", .access = RW, .create = true, .mode = GUARDED4};
	uint8_t first[4096];
	size_t len;

	a.cache_this = true;
	w.attrs = nf_attr_mode(&a, 0600);
	ck_assert_int_eq(open_named(&a, &w), NFS4_OK);
	len = a.reply_len;
	ck_assert_uint_le(len, sizeof first);
	memcpy(first, a.reply, len);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(nf_resend(&a), NFS4_OK);
		ck_assert_uint_eq(a.reply_len, len);
		ck_assert_mem_eq(a.reply, first, len);
	}
	ck_assert_int_eq(open_named(&a, &w), NFS4ERR_EXIST);
}
END_TEST

/* However little there is: the answer as it was, or none. */
START_TEST(retry_without_memory_gets_no_half_an_answer)
{
	uint32_t words[] = {1u << FATTR4_CHANGE | 1u << FATTR4_FSID | 1u << FATTR4_FILEID,
			    1u << (FATTR4_TIME_ACCESS - 32) | 1u << (FATTR4_TIME_METADATA - 32) |
				    1u << (FATTR4_TIME_MODIFY - 32)};
	bitmap4 mask = {.bitmap4_len = 2, .bitmap4_val = words};
	uint8_t first[4096];
	unsigned failed = 0;
	size_t len;

	a.cache_this = true;
	nf_begin(&a);
	nf_goto_mem(&a);
	for (unsigned i = 0; i < 12; i++) {
		nf_op(&a, OP_GETATTR);
		NF_PUT(&a, bitmap4, &mask);
	}
	ck_assert_int_eq(nf_send(&a), NFS4_OK);
	len = a.reply_len;
	ck_assert(len > 1024 && len <= sizeof first); /* more than the first piece of a reply has room for */
	memcpy(first, a.reply, len);
	for (a.memory = 2048; a.memory < 32768; a.memory += 64) {
		nf_try(&a);
		failed += a.accept != SUCCESS;
		if (a.accept != SUCCESS)
			continue;
		ck_assert_uint_eq(a.reply_len, len);
		ck_assert_mem_eq(a.reply, first, len);
	}
	ck_assert_uint_gt(failed, 0);
	a.memory = 0;
	ck_assert_int_eq(nf_resend(&a), NFS4_OK);
	ck_assert_mem_eq(a.reply, first, len);
}
END_TEST

START_TEST(retry_of_what_was_not_cached_is_told_so_and_not_executed)
{
	struct want w = {.name = "f", .access = RW, .create = true, .mode = GUARDED4};

	w.attrs = nf_attr_mode(&a, 0600);
	ck_assert_int_eq(open_named(&a, &w), NFS4_OK);
	ck_assert_int_eq(nf_resend(&a), NFS4ERR_RETRY_UNCACHED_REP);
}
END_TEST

START_TEST(retry_by_another_user_is_a_false_one)
{
	struct want w = {.name = "f", .access = RW, .create = true};

	a.cache_this = true;
	w.attrs = nf_attr_mode(&a, 0600);
	ck_assert_int_eq(open_named(&a, &w), NFS4_OK);
	a.uid = 77;
	ck_assert_int_eq(nf_resend(&a), NFS4ERR_SEQ_FALSE_RETRY);
}
END_TEST

/* ---- locks --------------------------------------------------------------------------------------------------------------------------- */

static nfsstat4 lock_new(struct nf *n, const nfs_fh4 *fh, const stateid4 *open, nfs_lock_type4 type, uint64_t off,
			 uint64_t len, bool reclaim)
{
	LOCK4args l = {.locktype = type, .reclaim = reclaim, .offset = off, .length = len};
	open_to_lock_owner4 *o = &l.locker.locker4_u.open_owner;

	l.locker.new_lock_owner = true;
	o->open_stateid = *open;
	o->lock_owner.owner.owner_val = (char *)(uintptr_t) "locker";
	o->lock_owner.owner.owner_len = 6;
	nf_begin(n);
	nf_putfh(n, fh);
	nf_op(n, OP_LOCK);
	NF_PUT(n, LOCK4args, &l);
	return nf_send(n);
}

/* ---- whose open it is ---------------------------------------------------------------------------------------------------------------- */

static nfsstat4 commit(struct nf *n, const nfs_fh4 *fh)
{
	COMMIT4args c = {.offset = 0};

	nf_begin(n);
	nf_putfh(n, fh);
	nf_op(n, OP_COMMIT);
	NF_PUT(n, COMMIT4args, &c);
	return nf_send(n);
}

/* Whatever can be done to the data of a file with this open, by @uid of client a. */
static void all_answer(uint32_t uid, const stateid4 *sid, nfsstat4 expected)
{
	char text[64];

	a.uid = uid;
	ck_assert_int_eq(read_sid(&a, &got.fh, sid, text), expected);
	ck_assert_int_eq(write_sid(&a, &got.fh, sid, "text"), expected);
	ck_assert_int_eq(set_size_sid(&a, &got.fh, sid, 2), expected);
	ck_assert_int_eq(commit(&a, &got.fh), expected);
	ck_assert_int_eq(lock_new(&a, &got.fh, sid, WRITE_LT, 0, 1, false), expected);
}

static void change_mode(const char *name, uint32_t mode)
{
	struct fs_setattr set = {.what = FS_SET_MODE, .mode = mode};
	struct fs_node *n;

	ck_assert_int_eq(srv.fs->ops->lookup(srv.fs->root, name, (uint32_t)strlen(name), 0, &n), 0);
	ck_assert_int_eq(srv.fs->ops->setattr(n, &set, NULL), 0);
	fs_node_put(n);
}

/* RFC 8881 §9.1.2, and what Linux's server does: a stateid is no permission. */
START_TEST(open_of_one_user_gives_another_nothing)
{
	struct want w = {.name = "f", .access = RW};
	char text[64];
	stateid4 sid;

	make("f", FS_REG, 0600, 1000);
	a.uid = 1000;
	ck_assert_int_eq(open_named(&a, &w), NFS4_OK);
	sid = got.res.stateid;
	all_answer(1001, &sid, NFS4ERR_ACCESS);
	all_answer(1000, &sid, NFS4_OK);
	b.uid = 1000;
	ck_assert_int_eq(read_sid(&b, &got.fh, &sid, text), NFS4ERR_BAD_STATEID);
	ck_assert_int_eq(write_sid(&b, &got.fh, &sid, text), NFS4ERR_BAD_STATEID);
	ck_assert_int_eq(close_sid(&b, &got.fh, &sid), NFS4ERR_BAD_STATEID);
	/* Who may do it anyway may do it with this stateid, too. */
	change_mode("f", 0666);
	all_answer(1001, &sid, NFS4_OK);
}
END_TEST

START_TEST(open_stays_good_for_its_opener_when_the_mode_changes)
{
	struct want w = {.name = "f", .access = RW, .owner = "one"};
	stateid4 sid;

	make("f", FS_REG, 0666, 1000);
	a.uid = 1001;
	ck_assert_int_eq(open_named(&a, &w), NFS4_OK);
	sid = got.res.stateid;
	change_mode("f", 0600);
	all_answer(1001, &sid, NFS4_OK);
	all_answer(1002, &sid, NFS4ERR_ACCESS);
}
END_TEST

START_TEST(open_of_two_users_is_nobodys_own)
{
	struct want w = {.name = "f", .access = RW, .owner = "one"};

	make("f", FS_REG, 0666, 1000);
	a.uid = 1001;
	ck_assert_int_eq(open_named(&a, &w), NFS4_OK);
	a.uid = 1002;
	ck_assert_int_eq(open_named(&a, &w), NFS4_OK);
	got.res.stateid.seqid = 0;
	all_answer(1001, &got.res.stateid, NFS4_OK);
	change_mode("f", 0600);
	all_answer(1001, &got.res.stateid, NFS4ERR_ACCESS);
	all_answer(1002, &got.res.stateid, NFS4ERR_ACCESS);
	all_answer(1000, &got.res.stateid, NFS4_OK);
}
END_TEST

/* §18.10.3, §18.10.4 */
START_TEST(denied_lock_is_answered_with_its_holder)
{
	struct want w = {.name = "f", .access = RW};
	LOCK4denied d;

	make("f", FS_REG, 0666, 0);
	ck_assert_int_eq(open_named(&a, &w), NFS4_OK);
	ck_assert_int_eq(lock_new(&a, &got.fh, &got.res.stateid, WRITEW_LT, 10, 20, false), NFS4_OK);
	ck_assert_int_eq(open_named(&b, &w), NFS4_OK);
	ck_assert_int_eq(lock_new(&b, &got.fh, &got.res.stateid, READ_LT, 0, 11, false), NFS4ERR_DENIED);
	nf_result(&b, OP_PUTFH);
	ck_assert_int_eq(nf_result(&b, OP_LOCK), NFS4ERR_DENIED);
	NF_GET(&b, LOCK4denied, &d);
	ck_assert_uint_eq(d.offset, 10);
	ck_assert_uint_eq(d.length, 20);
	ck_assert_int_eq(d.locktype, WRITE_LT);
	ck_assert_uint_eq(d.owner.owner.owner_len, 6);
	ck_assert_uint_eq(xa_in_left(&b.in), 0);
}
END_TEST

START_TEST(lock_refused_for_another_reason_has_no_body)
{
	struct want w = {.name = "f", .access = R};

	make("f", FS_REG, 0666, 0);
	ck_assert_int_eq(open_named(&a, &w), NFS4_OK);
	ck_assert_int_eq(lock_new(&a, &got.fh, &got.res.stateid, WRITE_LT, 0, 1, false), NFS4ERR_OPENMODE);
	nf_result(&a, OP_PUTFH);
	nf_result(&a, OP_LOCK);
	ck_assert_uint_eq(xa_in_left(&a.in), 0);
	ck_assert_int_eq(lock_new(&a, &got.fh, &got.res.stateid, READ_LT, 0, 1, true), NFS4ERR_NO_GRACE);
	ck_assert_int_eq(lock_new(&a, &got.fh, &got.res.stateid, READ_LT, 0, 0, false), NFS4ERR_INVAL);
	ck_assert_int_eq(lock_new(&a, &got.fh, &got.res.stateid, 9, 0, 1, false), NFS4ERR_INVAL);
}
END_TEST

START_TEST(directories_cannot_be_locked)
{
	LOCKT4args t = {.locktype = READ_LT, .length = 1};

	nf_begin(&a);
	nf_goto_mem(&a);
	nf_op(&a, OP_LOCKT);
	NF_PUT(&a, LOCKT4args, &t);
	ck_assert_int_eq(nf_send(&a), NFS4ERR_ISDIR);
}
END_TEST

/* §18.48 */
START_TEST(test_stateid_answers_for_each)
{
	struct want w = {.name = "f", .access = R};
	stateid4 sids[3] = {{.seqid = 0}, {.seqid = 1}, {.seqid = 7}};
	TEST_STATEID4args t;
	TEST_STATEID4resok res;

	make("f", FS_REG, 0666, 0);
	ck_assert_int_eq(open_named(&a, &w), NFS4_OK);
	sids[1] = sids[2] = got.res.stateid;
	sids[2].seqid = 9;
	t.ts_stateids.ts_stateids_val = sids;
	t.ts_stateids.ts_stateids_len = 3;
	nf_begin(&a);
	nf_op(&a, OP_TEST_STATEID);
	NF_PUT(&a, TEST_STATEID4args, &t);
	ck_assert_int_eq(nf_send(&a), NFS4_OK);
	nf_result(&a, OP_TEST_STATEID);
	NF_GET(&a, TEST_STATEID4resok, &res);
	ck_assert_uint_eq(res.tsr_status_codes.tsr_status_codes_len, 3);
	ck_assert_int_eq(res.tsr_status_codes.tsr_status_codes_val[0], NFS4ERR_BAD_STATEID);
	ck_assert_int_eq(res.tsr_status_codes.tsr_status_codes_val[1], NFS4_OK);
	ck_assert_int_eq(res.tsr_status_codes.tsr_status_codes_val[2], NFS4ERR_BAD_STATEID);
}
END_TEST

/* ---- sessions over the wire ------------------------------------------------------------------------------------------------------------ */

/* §18.46.3 */
START_TEST(sequence_stands_first_and_only_there)
{
	SEQUENCE4args sq = {.sa_sequenceid = 1, .sa_slotid = 5};

	memcpy(sq.sa_sessionid, a.session, 16);
	nf_begin(&a);
	nf_op(&a, OP_SEQUENCE);
	NF_PUT(&a, SEQUENCE4args, &sq);
	ck_assert_int_eq(nf_send(&a), NFS4ERR_SEQUENCE_POS);
}
END_TEST

/* §18.37.3 */
START_TEST(destroy_session_is_the_last_operation_in_its_own_session)
{
	DESTROY_SESSION4args d;

	memcpy(d.dsa_sessionid, a.session, 16);
	nf_begin(&a);
	nf_op(&a, OP_DESTROY_SESSION);
	NF_PUT(&a, DESTROY_SESSION4args, &d);
	nf_op(&a, OP_PUTROOTFH);
	ck_assert_int_eq(nf_send(&a), NFS4ERR_NOT_ONLY_OP);
	nf_begin(&a);
	nf_op(&a, OP_DESTROY_SESSION);
	NF_PUT(&a, DESTROY_SESSION4args, &d);
	ck_assert_int_eq(nf_send(&a), NFS4_OK);
	nf_begin(&a);
	ck_assert_int_eq(nf_send_bare(&a), NFS4ERR_BADSESSION);
}
END_TEST

/* §18.50.3 */
START_TEST(client_cannot_destroy_itself_from_within_its_session)
{
	DESTROY_CLIENTID4args d = {.dca_clientid = a.clientid};

	nf_begin(&a);
	nf_op(&a, OP_DESTROY_CLIENTID);
	NF_PUT(&a, DESTROY_CLIENTID4args, &d);
	ck_assert_int_eq(nf_send(&a), NFS4ERR_CLIENTID_BUSY);
}
END_TEST

/* §18.35.3 */
START_TEST(exchange_id_refuses_unknown_flags_and_state_protection)
{
	EXCHANGE_ID4args e = {.eia_flags = 0x4};

	e.eia_clientowner.co_ownerid.co_ownerid_val = (char *)(uintptr_t) "x";
	e.eia_clientowner.co_ownerid.co_ownerid_len = 1;
	for (int i = 0; i < 4; i++) {
		const nfsstat4 want[] = {NFS4_OK, NFS4ERR_INVAL, NFS4ERR_INVAL, NFS4ERR_INVAL};

		a.minor = i == 0 ? 2 : 1; /* SUPP_FENCE_OPS came with 4.2 */
		if (i == 2)
			e.eia_flags = EXCHGID4_FLAG_CONFIRMED_R;
		if (i == 3) {
			e.eia_flags = 0;
			e.eia_state_protect.spa_how = SP4_MACH_CRED;
		}
		nf_begin_bare(&a);
		nf_op(&a, OP_EXCHANGE_ID);
		NF_PUT(&a, EXCHANGE_ID4args, &e);
		ck_assert_int_eq(nf_send_bare(&a), want[i]);
	}
}
END_TEST

START_TEST(operations_about_delegations_say_that_there_are_none)
{
	DELEGRETURN4args r = {.deleg_stateid = {.seqid = 1}};
	DELEGPURGE4args p = {.clientid = 0};

	nf_begin(&a);
	nf_goto_mem(&a);
	nf_op(&a, OP_DELEGRETURN);
	NF_PUT(&a, DELEGRETURN4args, &r);
	ck_assert_int_eq(nf_send(&a), NFS4ERR_BAD_STATEID);
	nf_begin(&a);
	nf_op(&a, OP_DELEGPURGE);
	NF_PUT(&a, DELEGPURGE4args, &p);
	ck_assert_int_eq(nf_send(&a), NFS4ERR_NOTSUPP);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("open: compounds");
	TCase *tc = tcase_create("all");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, unchecked_create_makes_the_file_with_its_attributes_and_says_which);
	tcase_add_test(tc, a_create_that_would_wait_parks_and_is_done_once);
	tcase_add_test(tc, unchecked_create_of_an_existing_file_ignores_the_attributes_but_size_0_truncates);
	tcase_add_test(tc, create_with_a_size_has_that_size);
	tcase_add_test(tc, a_long_mask_of_attributes_is_answered_by_a_short_one);
	tcase_add_test(tc, guarded_create_of_an_existing_name_exists);
	tcase_add_test(tc, create_without_room_for_its_open_makes_no_file);
	tcase_add_test(tc, exclusive_create_succeeds_again_with_the_same_verifier_only);
	tcase_add_test(tc, exclusive_create_again_waits_for_the_record_on_a_worker);
	tcase_add_test(tc, exclusive4_1_create_succeeds_again_with_the_same_verifier_only);
	tcase_add_test(tc, create_that_fails_in_the_file_system_leaves_nothing_open);
	tcase_add_test(tc, truncation_that_fails_takes_the_open_back);
	tcase_add_test(tc, open_of_what_is_no_regular_file_says_what_it_is);
	tcase_add_test(tc, open_of_a_missing_file_and_of_bad_names_is_refused);
	tcase_add_test(tc, share_bits_that_are_not_defined_are_invalid);
	tcase_add_test(tc, client_that_asks_for_a_delegation_is_told_why_there_is_none);
	tcase_add_test(tc, mode_of_a_file_decides_who_may_open_it_and_how);
	tcase_add_test(tc, truncating_needs_the_permission_to_write);
	tcase_add_test(tc, open_for_writing_of_what_must_not_change_is_refused_to_everybody);
	tcase_add_test(tc, creator_may_write_what_it_created_without_permission_for_anyone);
	tcase_add_test(tc, claims_other_than_by_name_and_by_filehandle_are_refused_as_the_rfc_says);
	tcase_add_test(tc, open_by_filehandle_opens_the_current_object_and_creates_nothing);
	tcase_add_test(tc, open_in_the_pseudo_root_creates_nothing);
	tcase_add_test(tc, open_of_an_existing_file_runs_on_the_event_loop);
	tcase_add_test(tc, unlinked_file_stays_readable_until_its_last_close);
	tcase_add_test(tc, close_returns_the_invalid_stateid);
	tcase_add_test(tc, what_does_not_fit_into_the_reply_changes_no_stateid);
	tcase_add_test(tc, current_stateid_carries_from_open_to_write_to_close);
	tcase_add_test(tc, current_stateid_is_not_old_when_its_open_was_upgraded);
	tcase_add_test(tc, current_stateid_of_a_closed_file_is_bad);
	tcase_add_test(tc, free_stateid_takes_the_current_stateid_and_refuses_an_open);
	tcase_add_test(tc, deny_write_stops_others_from_writing_and_truncating);
	tcase_add_test(tc, reservation_of_a_silent_client_gives_way_to_all_that_it_denies);
	tcase_add_test(tc, own_deny_does_not_stop_a_truncating_open);
	tcase_add_test(tc, write_only_open_reads_only_what_its_user_may_read);
	tcase_add_test(tc, retry_of_a_create_is_answered_from_the_cache);
	tcase_add_test(tc, retry_without_memory_gets_no_half_an_answer);
	tcase_add_test(tc, retry_of_what_was_not_cached_is_told_so_and_not_executed);
	tcase_add_test(tc, retry_by_another_user_is_a_false_one);
	tcase_add_test(tc, open_of_one_user_gives_another_nothing);
	tcase_add_test(tc, open_stays_good_for_its_opener_when_the_mode_changes);
	tcase_add_test(tc, open_of_two_users_is_nobodys_own);
	tcase_add_test(tc, denied_lock_is_answered_with_its_holder);
	tcase_add_test(tc, lock_refused_for_another_reason_has_no_body);
	tcase_add_test(tc, directories_cannot_be_locked);
	tcase_add_test(tc, test_stateid_answers_for_each);
	tcase_add_test(tc, sequence_stands_first_and_only_there);
	tcase_add_test(tc, destroy_session_is_the_last_operation_in_its_own_session);
	tcase_add_test(tc, client_cannot_destroy_itself_from_within_its_session);
	tcase_add_test(tc, exchange_id_refuses_unknown_flags_and_state_protection);
	tcase_add_test(tc, operations_about_delegations_say_that_there_are_none);
	suite_add_tcase(suite, tc);
	r = srunner_create(suite);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

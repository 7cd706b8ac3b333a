/* SPDX-License-Identifier: BSD-3-Clause */
/* test_attr.c - GETATTR, SETATTR, VERIFY, ACCESS and whom they obey: RFC 8881 §5, §18.1, §18.7, §18.30, §18.31 */
#include <stdlib.h>
#include <string.h>

#include "tests/unit/nfs_mem.h"

#define BIT(n) (1u << ((n) % 32))

/* ---- asking ---------------------------------------------------------------------------------------------------------------- */

static void put_getattr(const uint32_t *mask, u_int n)
{
	GETATTR4args g;

	g.attr_request.bitmap4_len = n;
	g.attr_request.bitmap4_val = (uint32_t *)(uintptr_t)mask;
	nf_op(&a, OP_GETATTR);
	NF_PUT(&a, GETATTR4args, &g);
}

/* One attribute of /mem or of a name in it: its bytes; length 0 when it is not supported. */
static nfsstat4 ask(const char *name, unsigned num, fattr4 *out)
{
	uint32_t mask[3] = {0};
	GETATTR4resok res;
	nfsstat4 st;

	mask[num / 32] = BIT(num);
	begin_mem();
	if (name)
		nf_lookup(&a, name);
	put_getattr(mask, 3);
	st = send_mem();
	if (st != NFS4_OK)
		return st;
	if (name)
		nf_result(&a, OP_LOOKUP);
	nf_result(&a, OP_GETATTR);
	NF_GET(&a, GETATTR4resok, &res);
	ck_assert_uint_eq(xa_in_left(&a.in), 0);
	*out = res.obj_attributes;
	return st;
}

static uint32_t word(const fattr4 *f, unsigned at)
{
	uint32_t v;

	ck_assert_uint_ge(f->attr_vals.attrlist4_len, at + 4);
	memcpy(&v, f->attr_vals.attrlist4_val + at, 4);
	return __builtin_bswap32(v);
}

static uint32_t ask_word(const char *name, unsigned num)
{
	fattr4 f;

	ck_assert_int_eq(ask(name, num, &f), NFS4_OK);
	ck_assert_uint_eq(f.attr_vals.attrlist4_len, 4);
	return word(&f, 0);
}

static uint64_t ask_long(const char *name, unsigned num)
{
	fattr4 f;

	ck_assert_int_eq(ask(name, num, &f), NFS4_OK);
	ck_assert_uint_eq(f.attr_vals.attrlist4_len, 8);
	return (uint64_t)word(&f, 0) << 32 | word(&f, 4);
}

/* ---- setting ----------------------------------------------------------------------------------------------------------------- */

static fattr4 raw(unsigned num, const void *bytes, u_int len)
{
	static uint32_t mask[3];
	fattr4 f;

	memset(mask, 0, sizeof mask);
	mask[num / 32] = BIT(num);
	f.attrmask.bitmap4_len = num / 32 + 1;
	f.attrmask.bitmap4_val = mask;
	f.attr_vals.attrlist4_val = (char *)(uintptr_t)bytes;
	f.attr_vals.attrlist4_len = len;
	return f;
}

static nfsstat4 set(const char *name, const fattr4 *f)
{
	SETATTR4args s = {.stateid = anonymous, .obj_attributes = *f};
	bitmap4 done = {.bitmap4_len = 0};
	nfsstat4 st;

	begin_mem();
	if (name)
		nf_lookup(&a, name);
	nf_op(&a, OP_SETATTR);
	NF_PUT(&a, SETATTR4args, &s);
	st = send_mem();
	if (name)
		ck_assert_int_eq(nf_result(&a, OP_LOOKUP), NFS4_OK);
	/* RFC 8881 §18.30.3: what was set is told in any case. */
	ck_assert_int_eq(nf_result(&a, OP_SETATTR), st);
	NF_GET(&a, bitmap4, &done);
	ck_assert_uint_eq(xa_in_left(&a.in), 0);
	for (u_int i = 0; i < done.bitmap4_len; i++)
		ck_assert_uint_eq(done.bitmap4_val[i], st == NFS4_OK ? f->attrmask.bitmap4_val[i] : 0);
	return st;
}

static nfsstat4 set_raw(const char *name, unsigned num, const void *bytes, u_int len)
{
	fattr4 f = raw(num, bytes, len);

	return set(name, &f);
}

static nfsstat4 set_mode(const char *name, uint32_t mode)
{
	uint32_t be = __builtin_bswap32(mode);

	return set_raw(name, FATTR4_MODE, &be, 4);
}

static nfsstat4 set_size(const char *name, uint64_t size)
{
	uint64_t be = __builtin_bswap64(size);

	return set_raw(name, FATTR4_SIZE, &be, 8);
}

static nfsstat4 set_id(const char *name, unsigned num, const char *who)
{
	char buf[64] = {0};
	uint32_t len = (uint32_t)strlen(who), be = __builtin_bswap32(len);

	memcpy(buf, &be, 4);
	memcpy(buf + 4, who, len);
	return set_raw(name, num, buf, 4 + ((len + 3) & ~3u));
}

/* ---- what there is -------------------------------------------------------------------------------------------------------------- */

static bool in_mask(const fattr4 *f, unsigned num)
{
	return num / 32 < word(f, 0) && word(f, 4 + num / 32 * 4) & BIT(num);
}

/* RFC 8881 §5.6: each REQUIRED attribute. */
START_TEST(required_attributes_are_supported)
{
	static const unsigned required[] = {FATTR4_SUPPORTED_ATTRS,
					    FATTR4_TYPE,
					    FATTR4_FH_EXPIRE_TYPE,
					    FATTR4_CHANGE,
					    FATTR4_SIZE,
					    FATTR4_LINK_SUPPORT,
					    FATTR4_SYMLINK_SUPPORT,
					    FATTR4_NAMED_ATTR,
					    FATTR4_FSID,
					    FATTR4_UNIQUE_HANDLES,
					    FATTR4_LEASE_TIME,
					    FATTR4_RDATTR_ERROR,
					    FATTR4_FILEHANDLE,
					    FATTR4_SUPPATTR_EXCLCREAT};
	fattr4 sup, f;

	for (unsigned i = 0; i < ARRAY_LEN(required); i++) {
		ck_assert_int_eq(ask(NULL, FATTR4_SUPPORTED_ATTRS, &sup), NFS4_OK);
		ck_assert(in_mask(&sup, required[i]));
		ck_assert_int_eq(ask(NULL, required[i], &f), NFS4_OK);
		ck_assert_uint_gt(f.attr_vals.attrlist4_len, 0);
	}
}
END_TEST

/* What is claimed can be asked for, alone and on every kind of object; what is not is left out; what can only be set is
 * INVAL. */
START_TEST(every_number_is_answered_as_supported_attrs_says)
{
	fattr4 sup, f;

	make_file("f", 0666, 0);
	for (unsigned num = 0; num < 96; num++) {
		bool claimed;
		nfsstat4 st;

		ck_assert_int_eq(ask(NULL, FATTR4_SUPPORTED_ATTRS, &sup), NFS4_OK);
		claimed = in_mask(&sup, num);
		st = ask("f", num, &f);
		if (num == FATTR4_TIME_ACCESS_SET || num == FATTR4_TIME_MODIFY_SET || num == FATTR4_MODE_SET_MASKED ||
		    num == FATTR4_MODE_UMASK) {
			ck_assert(claimed);
			ck_assert_int_eq(st, NFS4ERR_INVAL);
			continue;
		}
		ck_assert_int_eq(st, NFS4_OK);
		ck_assert_uint_eq(f.attr_vals.attrlist4_len > 0, claimed);
		ck_assert_uint_eq(f.attr_vals.attrlist4_len % 4, 0);
		ck_assert_uint_eq(nf_mask_has(&f.attrmask, num), claimed);
	}
}
END_TEST

/* A request of more words than there are attributes, all bits set but those that can only be set. */
START_TEST(unknown_bits_of_a_request_are_ignored)
{
	uint32_t mask[200];
	GETATTR4resok res;

	memset(mask, 0xff, sizeof mask);
	mask[FATTR4_TIME_ACCESS_SET / 32] &= ~(BIT(FATTR4_TIME_ACCESS_SET) | BIT(FATTR4_TIME_MODIFY_SET));
	mask[2] &= ~(BIT(FATTR4_MODE_SET_MASKED) | BIT(FATTR4_MODE_UMASK));
	begin_mem();
	put_getattr(mask, 200);
	ck_assert_int_eq(send_mem(), NFS4_OK);
	nf_result(&a, OP_GETATTR);
	NF_GET(&a, GETATTR4resok, &res);
	ck_assert_uint_le(res.obj_attributes.attrmask.bitmap4_len, 3);
	ck_assert_uint_gt(res.obj_attributes.attr_vals.attrlist4_len, 200);
	begin_mem();
	put_getattr(mask, 0);
	ck_assert_int_eq(send_mem(), NFS4_OK);
	nf_result(&a, OP_GETATTR);
	NF_GET(&a, GETATTR4resok, &res);
	ck_assert_uint_eq(res.obj_attributes.attrmask.bitmap4_len, 0);
	ck_assert_uint_eq(res.obj_attributes.attr_vals.attrlist4_len, 0);
}
END_TEST

START_TEST(attributes_say_what_the_file_is)
{
	fattr4 f;

	fill("f", 5000);
	ck_assert_uint_eq(ask_word("f", FATTR4_TYPE), NF4REG);
	ck_assert_uint_eq(ask_word(NULL, FATTR4_TYPE), NF4DIR);
	ck_assert_uint_eq(ask_long("f", FATTR4_SIZE), 5000);
	ck_assert_uint_eq(ask_word("f", FATTR4_MODE), 0666);
	ck_assert_uint_eq(ask_word("f", FATTR4_NUMLINKS), 1);
	ck_assert_uint_eq(ask_word("f", FATTR4_FH_EXPIRE_TYPE), FH4_PERSISTENT);
	ck_assert_int_eq(ask("f", FATTR4_OWNER, &f), NFS4_OK);
	ck_assert_mem_eq(f.attr_vals.attrlist4_val,
			 "\0\0\0\1"
			 "0\0\0",
			 8);
	/* fsid differs from the pseudo-root's, so that clients see where one ends */
	ck_assert_int_eq(ask(NULL, FATTR4_FSID, &f), NFS4_OK);
	ck_assert_uint_eq(f.attr_vals.attrlist4_len, 16);
	ck_assert(word(&f, 4) > 1);
}
END_TEST

/* RFC 8881 §5.8.2.23: where an export's root is mounted is another file than the root. */
START_TEST(root_of_an_export_is_mounted_on_a_directory_of_the_pseudo_root)
{
	make_file("f", 0666, 0);
	ck_assert_uint_ne(ask_long(NULL, FATTR4_MOUNTED_ON_FILEID), ask_long(NULL, FATTR4_FILEID));
	ck_assert_uint_eq(ask_long("f", FATTR4_MOUNTED_ON_FILEID), ask_long("f", FATTR4_FILEID));
}
END_TEST

START_TEST(change_moves_with_every_change)
{
	uint64_t last, now;

	make_file("f", 0666, 65534);
	last = ask_long("f", FATTR4_CHANGE);
	ck_assert_int_eq(set_mode("f", 0600), NFS4_OK);
	now = ask_long("f", FATTR4_CHANGE);
	ck_assert_uint_gt(now, last);
	ck_assert_int_eq(set_size("f", 10), NFS4_OK);
	ck_assert_uint_gt(ask_long("f", FATTR4_CHANGE), now);
}
END_TEST

/* ---- SETATTR -------------------------------------------------------------------------------------------------------------------------- */

START_TEST(what_cannot_be_set_is_refused_and_nothing_is_set)
{
	static const uint8_t some[64];
	unsigned settable = 0;

	make_file("f", 0600, 65534);
	for (unsigned num = 0; num < 96; num++) {
		nfsstat4 st = set_raw("f", num, some, 64); /* too long for each */

		ck_assert(st == NFS4ERR_INVAL || st == NFS4ERR_ATTRNOTSUPP || st == NFS4ERR_BADXDR);
		settable += st == NFS4ERR_BADXDR;
	}
	ck_assert_uint_ge(settable, 5);
	ck_assert_uint_eq(ask_word("f", FATTR4_MODE), 0600);
}
END_TEST

/* What is answered after something was changed has to fit: words of the mask without a bit are not sent back. */
START_TEST(mask_of_any_length_is_answered_when_it_is_done)
{
	const uint32_t mode = __builtin_bswap32(0640);
	uint32_t mask[1000] = {0, BIT(FATTR4_MODE)};
	fattr4 f = {{1000, mask}, {4, (char *)(uintptr_t)&mode}};
	CREATE4args c = {.objtype = {.type = NF4DIR}, .objname = text("d"), .createattrs = f};
	CREATE4resok res;

	make_file("f", 0600, 65534);
	a.cache_this = true;
	ck_assert_int_eq(set("f", &f), NFS4_OK);
	ck_assert_uint_eq(ask_word("f", FATTR4_MODE), 0640);
	begin_mem();
	nf_op(&a, OP_CREATE);
	NF_PUT(&a, CREATE4args, &c);
	ck_assert_int_eq(send_mem(), NFS4_OK);
	nf_result(&a, OP_CREATE);
	NF_GET(&a, CREATE4resok, &res);
	ck_assert(nf_mask_has(&res.attrset, FATTR4_MODE));
}
END_TEST

START_TEST(values_cut_short_are_bad_xdr)
{
	static const unsigned nums[] = {
		FATTR4_SIZE,           FATTR4_MODE, FATTR4_OWNER, FATTR4_TIME_CREATE, FATTR4_TIME_ACCESS_SET,
		FATTR4_MODE_SET_MASKED};
	static const uint8_t huge[4] = {0xff, 0xff, 0xff, 0xff};

	make_file("f", 0600, 65534);
	for (unsigned i = 0; i < ARRAY_LEN(nums); i++)
		ck_assert_int_eq(set_raw("f", nums[i], huge, 0), NFS4ERR_BADXDR);
	ck_assert_int_eq(set_raw("f", FATTR4_OWNER, huge, 4), NFS4ERR_BADXDR);
	ck_assert_int_eq(set_raw("f", FATTR4_TIME_ACCESS_SET, huge, 4), NFS4ERR_BADXDR);
}
END_TEST

START_TEST(mode_has_no_other_bits_and_may_be_set_in_part)
{
	static const uint32_t masked[] = {0x04000000 /* 04 */, 0x07000000 /* 07 */};
	static const uint32_t outside[] = {0x04000000, 0x03000000};

	make_file("f", 0600, 65534);
	ck_assert_int_eq(set_mode("f", 0100644), NFS4ERR_INVAL);
	ck_assert_int_eq(set_raw("f", FATTR4_MODE_SET_MASKED, masked, 8), NFS4_OK);
	ck_assert_uint_eq(ask_word("f", FATTR4_MODE), 0604);
	ck_assert_int_eq(set_raw("f", FATTR4_MODE_SET_MASKED, outside, 8), NFS4ERR_INVAL);
}
END_TEST

START_TEST(owners_are_numbers)
{
	static const struct {
		const char *who;
		nfsstat4 st;
	} cases[] = {{"65534", NFS4_OK},
		     {"65534@domain", NFS4_OK},
		     {"0", NFS4ERR_PERM},
		     {"4294967294", NFS4ERR_PERM},
		     {"4294967295", NFS4ERR_BADOWNER},
		     {"4294967296", NFS4ERR_BADOWNER},
		     {"18446744073709551616", NFS4ERR_BADOWNER},
		     {"nobody@x", NFS4ERR_BADOWNER},
		     {"-1", NFS4ERR_BADOWNER},
		     {"@x", NFS4ERR_BADOWNER},
		     {"", NFS4ERR_INVAL}};

	make_file("f", 0600, 65534);
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		ck_assert_int_eq(set_id("f", FATTR4_OWNER, cases[i].who), cases[i].st);
		ck_assert_int_eq(set_id("f", FATTR4_OWNER_GROUP, cases[i].who), cases[i].st);
	}
}
END_TEST

START_TEST(only_the_owner_changes_mode_and_times)
{
	static const uint32_t now[] = {SET_TO_SERVER_TIME4};
	static const uint32_t given[] = {0x01000000, 0, 0x01000000, 0}, nsec[] = {0x01000000, 0, 0, 0x00ca9a3b};

	make_file("f", 0622, 1000);
	a.uid = 1001;
	ck_assert_int_eq(set_mode("f", 0777), NFS4ERR_PERM);
	ck_assert_int_eq(set_raw("f", FATTR4_TIME_MODIFY_SET, given, 16), NFS4ERR_PERM);
	ck_assert_int_eq(set_raw("f", FATTR4_TIME_MODIFY_SET, now, 4), NFS4_OK); /* may write it */
	a.uid = 1000;
	ck_assert_int_eq(set_raw("f", FATTR4_TIME_MODIFY_SET, given, 16), NFS4_OK);
	ck_assert_int_eq(set_raw("f", FATTR4_TIME_MODIFY_SET, nsec, 16), NFS4ERR_INVAL);
	ck_assert_int_eq(set_mode("f", 0644), NFS4_OK);
	a.uid = 1001;
	ck_assert_int_eq(set_raw("f", FATTR4_TIME_MODIFY_SET, now, 4), NFS4ERR_ACCESS);
	ck_assert_int_eq(set_size("f", 0), NFS4ERR_ACCESS);
}
END_TEST

START_TEST(size_is_of_files_only)
{
	make_file("f", 0666, 0);
	ck_assert_int_eq(create(NF4LNK, "l"), NFS4_OK);
	ck_assert_int_eq(set_size("f", 12345), NFS4_OK);
	ck_assert_uint_eq(ask_long("f", FATTR4_SIZE), 12345);
	ck_assert_int_eq(set_size(NULL, 0), NFS4ERR_ISDIR);
	ck_assert_int_eq(set_size("l", 0), NFS4ERR_INVAL);
}
END_TEST

START_TEST(another_group_than_ones_own_does_not_get_the_set_gid_bit)
{
	struct fs_setattr s = {.what = FS_SET_GID, .gid = 7};
	struct fs_node *n;

	make_file("f", 0755, 1000);
	ck_assert_int_eq(srv.fs->ops->lookup(srv.fs->root, "f", 1, 0, &n), 0);
	ck_assert_int_eq(srv.fs->ops->setattr(n, &s, NULL), 0);
	fs_node_put(n);
	a.uid = 1000;
	ck_assert_int_eq(set_mode("f", 02755), NFS4_OK);
	ck_assert_uint_eq(ask_word("f", FATTR4_MODE), 0755);
}
END_TEST

/* Whoever changes the content, or cuts it, takes the set-id bits away. */
START_TEST(set_id_bits_do_not_survive_a_change_of_content)
{
	make_file("f", 06777, 1000);
	a.uid = 1001;
	begin_mem();
	nf_lookup(&a, "f");
	put_write(0, "x", 1, UNSTABLE4);
	ck_assert_int_eq(send_mem(), NFS4_OK);
	ck_assert_uint_eq(ask_word("f", FATTR4_MODE), 0777);
	make_file("g", 06777, 1000);
	ck_assert_int_eq(set_size("g", 0), NFS4_OK);
	ck_assert_uint_eq(ask_word("g", FATTR4_MODE), 0777);
}
END_TEST

/* ---- who owns what is new ------------------------------------------------------------------------------------------------------------------ */

static nfsstat4 open_create(const char *name, const fattr4 *attrs)
{
	OPEN4args o = {.share_access = OPEN4_SHARE_ACCESS_WRITE};

	o.owner.owner.owner_val = (char *)(uintptr_t) "o";
	o.owner.owner.owner_len = 1;
	o.openhow.opentype = OPEN4_CREATE;
	o.openhow.openflag4_u.how.mode = GUARDED4;
	o.openhow.openflag4_u.how.createhow4_u.createattrs = *attrs;
	o.claim.claim = CLAIM_NULL;
	o.claim.open_claim4_u.file = text(name);
	begin_mem();
	nf_op(&a, OP_OPEN);
	NF_PUT(&a, OPEN4args, &o);
	return send_mem();
}

static nfsstat4 mkdir_with(const char *name, const fattr4 *attrs)
{
	CREATE4args c = {.objtype = {.type = NF4DIR}, .objname = text(name), .createattrs = *attrs};

	begin_mem();
	nf_op(&a, OP_CREATE);
	NF_PUT(&a, CREATE4args, &c);
	return send_mem();
}

START_TEST(nothing_is_created_in_the_name_of_another_owner_or_group)
{
	static const char root[] = "\0\0\0\1"
				   "0\0\0",
			  other[] = "\0\0\0\4"
				    "1001",
			  own[] = "\0\0\0\4"
				  "1000";
	static const struct {
		unsigned num;
		const char *who;
		nfsstat4 st;
	} cases[] = {{FATTR4_OWNER, root, NFS4ERR_PERM},
		     {FATTR4_OWNER, other, NFS4ERR_PERM},
		     {FATTR4_OWNER, own, NFS4_OK},
		     {FATTR4_OWNER_GROUP, root, NFS4ERR_PERM},
		     {FATTR4_OWNER_GROUP, other, NFS4ERR_PERM},
		     {FATTR4_OWNER_GROUP, own, NFS4_OK}};
	char file[] = "f0", dir[] = "d0";

	a.uid = 1000;
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		fattr4 f = raw(cases[i].num, cases[i].who, 8);

		file[1] = dir[1] = (char)('0' + i);
		ck_assert_int_eq(open_create(file, &f), cases[i].st);
		ck_assert_int_eq(mkdir_with(dir, &f), cases[i].st);
	}
	ck_assert_uint_eq(memfs_count(srv.fs), 5);
}
END_TEST

START_TEST(set_gid_directory_gives_its_group_and_the_bit_to_directories)
{
	struct fs_setattr s = {.what = FS_SET_MODE | FS_SET_GID, .mode = 02777, .gid = 77};
	uint32_t mode = __builtin_bswap32(02755);
	fattr4 f;

	ck_assert_int_eq(srv.fs->ops->setattr(srv.fs->root, &s, NULL), 0);
	a.uid = 1000;
	f = raw(FATTR4_MODE, &mode, 4);
	ck_assert_int_eq(open_create("f", &f), NFS4_OK);
	ck_assert_uint_eq(ask_word("f", FATTR4_MODE), 0755); /* not in that group */
	f = raw(FATTR4_MODE, &mode, 4);
	ck_assert_int_eq(mkdir_with("d", &f), NFS4_OK);
	ck_assert_uint_eq(ask_word("d", FATTR4_MODE), 02755);
	ck_assert_int_eq(ask("d", FATTR4_OWNER_GROUP, &f), NFS4_OK);
	ck_assert_mem_eq(f.attr_vals.attrlist4_val,
			 "\0\0\0\2"
			 "77\0",
			 8);
}
END_TEST

/* RFC 8275: the mask counts. */
START_TEST(mode_umask_is_for_new_objects_only)
{
	static const uint32_t both[] = {0xff010000 /* 0777 */, 0x12000000 /* 022 */};
	uint32_t swapped[2] = {__builtin_bswap32(0777), __builtin_bswap32(022)};
	fattr4 f = raw(FATTR4_MODE_UMASK, swapped, 8);

	ck_assert_mem_eq(both, swapped, 8);
	ck_assert_int_eq(mkdir_with("d", &f), NFS4_OK);
	ck_assert_uint_eq(ask_word("d", FATTR4_MODE), 0755);
	f = raw(FATTR4_MODE_UMASK, swapped, 8);
	ck_assert_int_eq(set("d", &f), NFS4ERR_INVAL);
}
END_TEST

/* ---- VERIFY, ACCESS --------------------------------------------------------------------------------------------------------------------------- */

static nfsstat4 verify(uint32_t op, const fattr4 *f)
{
	VERIFY4args v = {.obj_attributes = *f};

	begin_mem();
	nf_lookup(&a, "f");
	nf_op(&a, op);
	NF_PUT(&a, VERIFY4args, &v);
	return send_mem();
}

START_TEST(verify_compares_and_nverify_is_its_opposite)
{
	uint64_t right = __builtin_bswap64(5000), wrong = __builtin_bswap64(5001);
	uint32_t many[300];
	fattr4 f;

	fill("f", 5000);
	f = raw(FATTR4_SIZE, &right, 8);
	ck_assert_int_eq(verify(OP_VERIFY, &f), NFS4_OK);
	ck_assert_int_eq(verify(OP_NVERIFY, &f), NFS4ERR_SAME);
	f = raw(FATTR4_SIZE, &wrong, 8);
	ck_assert_int_eq(verify(OP_VERIFY, &f), NFS4ERR_NOT_SAME);
	ck_assert_int_eq(verify(OP_NVERIFY, &f), NFS4_OK);
	f = raw(FATTR4_SIZE, &right, 4);
	ck_assert_int_eq(verify(OP_VERIFY, &f), NFS4ERR_NOT_SAME);
	f = raw(FATTR4_RDATTR_ERROR, &right, 4);
	ck_assert_int_eq(verify(OP_VERIFY, &f), NFS4ERR_INVAL);
	f = raw(FATTR4_TIME_MODIFY_SET, &right, 4);
	ck_assert_int_eq(verify(OP_VERIFY, &f), NFS4ERR_INVAL);
	f = raw(FATTR4_ACL, &right, 4);
	ck_assert_int_eq(verify(OP_VERIFY, &f), NFS4ERR_ATTRNOTSUPP);
	memset(many, 0, sizeof many);
	f.attrmask.bitmap4_val = many;
	f.attrmask.bitmap4_len = 300;
	f.attr_vals.attrlist4_len = 0;
	ck_assert_int_eq(verify(OP_VERIFY, &f), NFS4_OK); /* nothing differs */
	many[299] = 1;
	ck_assert_int_eq(verify(OP_VERIFY, &f), NFS4ERR_ATTRNOTSUPP);
}
END_TEST

static uint32_t access_of(const char *name, uint32_t uid)
{
	ACCESS4args q = {.access = 0x3f};
	ACCESS4resok res;

	a.uid = uid;
	begin_mem();
	nf_lookup(&a, name);
	nf_op(&a, OP_ACCESS);
	NF_PUT(&a, ACCESS4args, &q);
	ck_assert_int_eq(send_mem(), NFS4_OK);
	nf_result(&a, OP_LOOKUP);
	nf_result(&a, OP_ACCESS);
	NF_GET(&a, ACCESS4resok, &res);
	ck_assert_uint_eq(res.access & ~res.supported, 0);
	return res.access;
}

START_TEST(access_tells_what_the_mode_allows)
{
	enum { RD = ACCESS4_READ, WR = ACCESS4_MODIFY | ACCESS4_EXTEND, EX = ACCESS4_EXECUTE };

	make_file("f", 0751, 1000);
	make_dir("d", 0751, 1000);
	ck_assert_uint_eq(access_of("f", 1000), RD | WR | EX);
	ck_assert_uint_eq(access_of("f", 1001), EX);
	ck_assert_uint_eq(access_of("f", 0), EX); /* squashed */
	ck_assert_uint_eq(access_of("d", 1000), RD | WR | ACCESS4_LOOKUP | ACCESS4_DELETE);
	ck_assert_uint_eq(access_of("d", 1001), ACCESS4_LOOKUP);
}
END_TEST

START_TEST(looking_up_takes_permission_to_search)
{
	make_dir("d", 0700, 1000);
	a.uid = 1001;
	begin_mem();
	nf_lookup(&a, "d");
	nf_lookup(&a, "x");
	ck_assert_int_eq(send_mem(), NFS4ERR_ACCESS);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("compound: attributes");
	TCase *tc = tcase_create("all");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, required_attributes_are_supported);
	tcase_add_test(tc, every_number_is_answered_as_supported_attrs_says);
	tcase_add_test(tc, unknown_bits_of_a_request_are_ignored);
	tcase_add_test(tc, attributes_say_what_the_file_is);
	tcase_add_test(tc, root_of_an_export_is_mounted_on_a_directory_of_the_pseudo_root);
	tcase_add_test(tc, change_moves_with_every_change);
	tcase_add_test(tc, what_cannot_be_set_is_refused_and_nothing_is_set);
	tcase_add_test(tc, mask_of_any_length_is_answered_when_it_is_done);
	tcase_add_test(tc, values_cut_short_are_bad_xdr);
	tcase_add_test(tc, mode_has_no_other_bits_and_may_be_set_in_part);
	tcase_add_test(tc, owners_are_numbers);
	tcase_add_test(tc, only_the_owner_changes_mode_and_times);
	tcase_add_test(tc, size_is_of_files_only);
	tcase_add_test(tc, another_group_than_ones_own_does_not_get_the_set_gid_bit);
	tcase_add_test(tc, set_id_bits_do_not_survive_a_change_of_content);
	tcase_add_test(tc, nothing_is_created_in_the_name_of_another_owner_or_group);
	tcase_add_test(tc, set_gid_directory_gives_its_group_and_the_bit_to_directories);
	tcase_add_test(tc, mode_umask_is_for_new_objects_only);
	tcase_add_test(tc, verify_compares_and_nverify_is_its_opposite);
	tcase_add_test(tc, access_tells_what_the_mode_allows);
	tcase_add_test(tc, looking_up_takes_permission_to_search);
	suite_add_tcase(suite, tc);
	r = srunner_create(suite);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* test_access.c - who may do what: AUTH_SYS credentials against modes, squashing, sticky and set-id bits, other flavors */
#include <check.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/protocol/server.h"

enum { ROOT = 0, ANN = 1000, BOB = 1001, STAFF = 2000 };

static struct nfsc *c;
static nfs_fh4 dir; /* /disk/d: ANN's, 0755 */
static char dir_buf[NFS4_FHSIZE];
static const char *const no_squash[] = {"--no-root-squash", NULL};

static void be(uint32_t uid, uint32_t gid)
{
	ck_assert_int_eq(nfsc_set_cred(c, uid, gid, 0, NULL), 0);
}

static component4 name_of(const char *s)
{
	return (component4){.utf8string_len = (u_int)strlen(s), .utf8string_val = (char *)(uintptr_t)s};
}

static void keep_fh(nfs_fh4 *to, char *buf, const nfs_fh4 *from)
{
	memcpy(buf, from->nfs_fh4_val, from->nfs_fh4_len);
	*to = (nfs_fh4){.nfs_fh4_len = from->nfs_fh4_len, .nfs_fh4_val = buf};
}

static nfsstat4 run(nfs_argop4 *op, unsigned n, COMPOUND4res *res)
{
	return (nfsstat4)-nfsc_call(c, op, n, res);
}

static nfsstat4 on(const nfs_fh4 *fh, const nfs_argop4 *op)
{
	nfs_argop4 all[2] = {nfsc_putfh(fh), *op};
	COMPOUND4res res;
	nfsstat4 st = run(all, 2, &res);

	nfsc_free(&res);
	return st;
}

struct file {
	nfs_fh4 fh;
	char buf[NFS4_FHSIZE];
	stateid4 sid;
};

static void put32(char *p, uint32_t v)
{
	raw_put32((uint8_t *)p, v);
}

/* Mode, and optionally owner and group as text, as a fattr4 in static memory. */
static fattr4 attrs(int mode, const char *owner, const char *group)
{
	static uint32_t words[2];
	static char v[64];
	uint32_t n = 0;

	words[0] = words[1] = 0;
	if (mode >= 0) {
		words[1] |= 1u << (FATTR4_MODE - 32);
		put32(v, (uint32_t)mode);
		n = 4;
	}
	for (int i = 0; i < 2; i++) {
		const char *t = i ? group : owner;
		uint32_t len = t ? (uint32_t)strlen(t) : 0;

		if (!t)
			continue;
		words[1] |= 1u << ((i ? FATTR4_OWNER_GROUP : FATTR4_OWNER) - 32);
		put32(v + n, len);
		memset(v + n + 4, 0, 8);
		memcpy(v + n + 4, t, len);
		n += 4 + ((len + 3) & ~3u);
	}
	return (fattr4){.attrmask = {.bitmap4_len = 2, .bitmap4_val = words},
			.attr_vals = {.attrlist4_len = n, .attrlist4_val = v}};
}

static nfsstat4 open_in(const nfs_fh4 *in, const char *name, uint32_t access, int mode, struct file *f)
{
	nfs_argop4 op[3] = {nfsc_putfh(in), {.argop = OP_OPEN}, {.argop = OP_GETFH}};
	OPEN4args *a = &op[1].nfs_argop4_u.opopen;
	char owner[] = "o";
	COMPOUND4res res;
	nfsstat4 st;

	a->share_access = access;
	a->owner.owner.owner_val = owner;
	a->owner.owner.owner_len = 1;
	a->openhow.opentype = mode >= 0 ? OPEN4_CREATE : OPEN4_NOCREATE;
	if (mode >= 0) {
		a->openhow.openflag4_u.how.mode = UNCHECKED4;
		a->openhow.openflag4_u.how.createhow4_u.createattrs = attrs(mode, NULL, NULL);
	}
	a->claim.claim = CLAIM_NULL;
	a->claim.open_claim4_u.file = name_of(name);
	st = run(op, 3, &res);
	if (st == NFS4_OK) {
		f->sid = res.resarray.resarray_val[2].nfs_resop4_u.opopen.OPEN4res_u.resok4.stateid;
		keep_fh(&f->fh, f->buf, &res.resarray.resarray_val[3].nfs_resop4_u.opgetfh.GETFH4res_u.resok4.object);
	}
	nfsc_free(&res);
	return st;
}

/* OPEN that creates: exclusively with a verifier, or unchecked with a size. Closed again. */
struct open_how {
	bool exclusive;
	uint32_t size;
	char verf[8];
};

static void close_it(struct file *f)
{
	nfs_argop4 op = {.argop = OP_CLOSE};

	op.nfs_argop4_u.opclose.open_stateid = f->sid;
	ck_assert_int_eq(on(&f->fh, &op), NFS4_OK);
}

/* A file in the folder, made by whoever we are, closed again. */
static struct file make(const char *name, int mode)
{
	static struct file f;

	ck_assert_int_eq(open_in(&dir, name, OPEN4_SHARE_ACCESS_BOTH, mode, &f), NFS4_OK);
	close_it(&f);
	f.fh.nfs_fh4_val = f.buf;
	return f;
}

static nfsstat4 open_how(const char *name, uint32_t access, const struct open_how *how)
{
	nfs_argop4 op[3] = {nfsc_putfh(&dir), {.argop = OP_OPEN}, {.argop = OP_GETFH}};
	OPEN4args *a = &op[1].nfs_argop4_u.opopen;
	createhow4 *h = &a->openhow.openflag4_u.how;
	char owner[] = "o", v[8] = {0};
	uint32_t word = 1u << FATTR4_SIZE;
	COMPOUND4res res;
	struct file f;
	nfsstat4 st;

	a->share_access = access;
	a->owner.owner.owner_val = owner;
	a->owner.owner.owner_len = 1;
	a->openhow.opentype = OPEN4_CREATE;
	h->mode = how->exclusive ? EXCLUSIVE4_1 : UNCHECKED4;
	if (how->exclusive) {
		memcpy(h->createhow4_u.ch_createboth.cva_verf, how->verf, sizeof how->verf);
	} else {
		put32(v + 4, how->size);
		h->createhow4_u.createattrs = (fattr4){.attrmask = {.bitmap4_len = 1, .bitmap4_val = &word},
						       .attr_vals = {.attrlist4_len = 8, .attrlist4_val = v}};
	}
	a->claim.claim = CLAIM_NULL;
	a->claim.open_claim4_u.file = name_of(name);
	st = run(op, 3, &res);
	if (st == NFS4_OK) {
		f.sid = res.resarray.resarray_val[2].nfs_resop4_u.opopen.OPEN4res_u.resok4.stateid;
		keep_fh(&f.fh, f.buf, &res.resarray.resarray_val[3].nfs_resop4_u.opgetfh.GETFH4res_u.resok4.object);
		close_it(&f);
	}
	nfsc_free(&res);
	return st;
}

static nfsstat4 may_open(const char *name, uint32_t access)
{
	struct file f;
	nfsstat4 st = open_in(&dir, name, access, -1, &f);

	if (st == NFS4_OK)
		close_it(&f);
	return st;
}

static struct nfs_attrs attr(const nfs_fh4 *fh)
{
	nfs_argop4 op[2] = {nfsc_putfh(fh), {.argop = OP_GETATTR}};
	struct nfs_attrs a;
	COMPOUND4res res;

	op[1].nfs_argop4_u.opgetattr.attr_request = nfs_attrs_mask();
	ck_assert_int_eq(run(op, 2, &res), NFS4_OK);
	ck_assert(nfs_attrs_decode(
		&res.resarray.resarray_val[2].nfs_resop4_u.opgetattr.GETATTR4res_u.resok4.obj_attributes, &a));
	nfsc_free(&res);
	return a;
}

static nfsstat4 setattr(const nfs_fh4 *fh, int mode, const char *owner, const char *group)
{
	nfs_argop4 op = {.argop = OP_SETATTR};

	op.nfs_argop4_u.opsetattr.obj_attributes = attrs(mode, owner, group);
	return on(fh, &op);
}

static const stateid4 anonymous;

static nfsstat4 set_size(const nfs_fh4 *fh, const stateid4 *sid, uint32_t size)
{
	uint32_t word = 1u << FATTR4_SIZE;
	nfs_argop4 op = {.argop = OP_SETATTR};
	char v[8] = {0};

	put32(v + 4, size);
	op.nfs_argop4_u.opsetattr.stateid = *sid;
	op.nfs_argop4_u.opsetattr.obj_attributes = (fattr4){
		.attrmask = {.bitmap4_len = 1, .bitmap4_val = &word},
		.attr_vals = {.attrlist4_len = sizeof v, .attrlist4_val = v}};
	return on(fh, &op);
}

/* The time of the last change: the server's when @sec is 0. */
static nfsstat4 set_mtime(const nfs_fh4 *fh, uint32_t sec)
{
	uint32_t words[2] = {0, 1u << (FATTR4_TIME_MODIFY_SET - 32)};
	nfs_argop4 op = {.argop = OP_SETATTR};
	char v[16] = {0};

	put32(v, sec ? SET_TO_CLIENT_TIME4 : SET_TO_SERVER_TIME4);
	put32(v + 8, sec);
	op.nfs_argop4_u.opsetattr.obj_attributes = (fattr4){
		.attrmask = {.bitmap4_len = 2, .bitmap4_val = words},
		.attr_vals = {.attrlist4_len = sec ? sizeof v : 4, .attrlist4_val = v}};
	return on(fh, &op);
}

static nfsstat4 write_byte(const nfs_fh4 *fh, const stateid4 *sid)
{
	static const char byte[] = "x";
	nfs_argop4 op = {.argop = OP_WRITE};
	WRITE4args *w = &op.nfs_argop4_u.opwrite;

	*w = (WRITE4args){.stateid = *sid, .stable = UNSTABLE4};
	w->data.data_val = (char *)(uintptr_t)byte;
	w->data.data_len = 1;
	return on(fh, &op);
}

static nfsstat4 read_byte(const nfs_fh4 *fh, const stateid4 *sid)
{
	nfs_argop4 op = {.argop = OP_READ};

	op.nfs_argop4_u.opread = (READ4args){.stateid = *sid, .count = 1};
	return on(fh, &op);
}

static nfsstat4 mkdir_in(const nfs_fh4 *in, const char *name, int mode)
{
	nfs_argop4 op = {.argop = OP_CREATE};
	CREATE4args *a = &op.nfs_argop4_u.opcreate;

	a->objtype.type = NF4DIR;
	a->objname = name_of(name);
	a->createattrs = attrs(mode, NULL, NULL);
	return on(in, &op);
}

static nfsstat4 remove_from(const nfs_fh4 *in, const char *name)
{
	nfs_argop4 op = {.argop = OP_REMOVE};

	op.nfs_argop4_u.opremove.target = name_of(name);
	return on(in, &op);
}

static uint32_t access_of(const nfs_fh4 *fh)
{
	nfs_argop4 op[2] = {nfsc_putfh(fh), {.argop = OP_ACCESS}};
	COMPOUND4res res;
	uint32_t bits;

	op[1].nfs_argop4_u.opaccess.access = 0x3f;
	ck_assert_int_eq(run(op, 2, &res), NFS4_OK);
	bits = res.resarray.resarray_val[2].nfs_resop4_u.opaccess.ACCESS4res_u.resok4.access;
	nfsc_free(&res);
	return bits;
}

static void look_up(const char *path, nfs_fh4 *fh, char *buf)
{
	struct why why = {.line = ""};
	nfs_fh4 got;

	ck_assert_msg(nfsc_lookup(c, path, &got, &why) == 0, "%s", why.line);
	keep_fh(fh, buf, &got);
}

static void setup(void)
{
	nfs_fh4 top;
	char top_buf[NFS4_FHSIZE];

	server_start(no_squash);
	c = server_client();
	be(ROOT, ROOT);
	look_up("/disk", &top, top_buf);
	ck_assert_int_eq(mkdir_in(&top, "d", 0755), NFS4_OK);
	look_up("/disk/d", &dir, dir_buf);
	ck_assert_int_eq(setattr(&dir, 0755, "1000", "1000"), NFS4_OK);
	be(ANN, ANN);
}

static void teardown(void)
{
	nfsc_close(c);
	server_stop();
}

/* ---- modes ------------------------------------------------------------------------------------------------------------------------ */

START_TEST(the_bits_of_owner_group_and_others_count)
{
	static const uint32_t staff[] = {7, STAFF, 9}, sixteen[16] = {[15] = STAFF};
	struct file f = make("f", 0640);

	ck_assert_int_eq(setattr(&f.fh, -1, NULL, NULL), NFS4_OK);
	be(ROOT, ROOT);
	ck_assert_int_eq(setattr(&f.fh, -1, NULL, "2000"), NFS4_OK);
	be(ANN, ANN);
	ck_assert_int_eq(may_open("f", OPEN4_SHARE_ACCESS_BOTH), NFS4_OK);
	be(BOB, BOB);
	ck_assert_int_eq(may_open("f", OPEN4_SHARE_ACCESS_READ), NFS4ERR_ACCESS);
	ck_assert_int_eq(may_open("f", OPEN4_SHARE_ACCESS_WRITE), NFS4ERR_ACCESS);
	be(BOB, STAFF);
	ck_assert_int_eq(may_open("f", OPEN4_SHARE_ACCESS_READ), NFS4_OK);
	ck_assert_int_eq(may_open("f", OPEN4_SHARE_ACCESS_BOTH), NFS4ERR_ACCESS);
	/* The other groups of the credential. */
	ck_assert_int_eq(nfsc_set_cred(c, BOB, BOB, 3, staff), 0);
	ck_assert_int_eq(may_open("f", OPEN4_SHARE_ACCESS_READ), NFS4_OK);
	ck_assert_int_eq(nfsc_set_cred(c, BOB, BOB, 16, sixteen), 0);
	ck_assert_int_eq(may_open("f", OPEN4_SHARE_ACCESS_READ), NFS4_OK);
	/* The owner's bits are the owner's, even when the group may do more. */
	be(ANN, ANN);
	ck_assert_int_eq(setattr(&f.fh, 0060, NULL, NULL), NFS4_OK);
	ck_assert_int_eq(nfsc_set_cred(c, ANN, STAFF, 0, NULL), 0);
	ck_assert_int_eq(may_open("f", OPEN4_SHARE_ACCESS_READ), NFS4ERR_ACCESS);
	be(BOB, STAFF);
	ck_assert_int_eq(may_open("f", OPEN4_SHARE_ACCESS_BOTH), NFS4_OK);
	be(ROOT, ROOT);
	ck_assert_int_eq(may_open("f", OPEN4_SHARE_ACCESS_BOTH), NFS4_OK);
}
END_TEST

START_TEST(folders_want_r_to_list_x_to_pass_and_w_to_change)
{
	nfs_argop4 list = {.argop = OP_READDIR}, look = {.argop = OP_LOOKUP};
	struct file f = make("f", 0666);

	list.nfs_argop4_u.opreaddir.dircount = list.nfs_argop4_u.opreaddir.maxcount = 4096;
	look.nfs_argop4_u.oplookup.objname = name_of("f");
	ck_assert_int_eq(setattr(&dir, 0711, NULL, NULL), NFS4_OK);
	be(BOB, BOB);
	ck_assert_int_eq(on(&dir, &list), NFS4ERR_ACCESS);
	ck_assert_int_eq(on(&dir, &look), NFS4_OK);
	ck_assert_int_eq(may_open("f", OPEN4_SHARE_ACCESS_BOTH), NFS4_OK);
	ck_assert_int_eq(open_in(&dir, "new", OPEN4_SHARE_ACCESS_BOTH, 0644, &f), NFS4ERR_ACCESS);
	ck_assert_int_eq(mkdir_in(&dir, "sub", 0755), NFS4ERR_ACCESS);
	ck_assert_int_eq(remove_from(&dir, "f"), NFS4ERR_ACCESS);
	be(ANN, ANN);
	ck_assert_int_eq(setattr(&dir, 0744, NULL, NULL), NFS4_OK);
	be(BOB, BOB);
	ck_assert_int_eq(on(&dir, &list), NFS4_OK);
	ck_assert_int_eq(on(&dir, &look), NFS4ERR_ACCESS);
	ck_assert_int_eq(may_open("f", OPEN4_SHARE_ACCESS_READ), NFS4ERR_ACCESS);
	be(ANN, ANN);
	ck_assert_int_eq(setattr(&dir, 0733, NULL, NULL), NFS4_OK);
	be(BOB, BOB);
	ck_assert_int_eq(mkdir_in(&dir, "sub", 0755), NFS4_OK);
	ck_assert_int_eq(remove_from(&dir, "f"), NFS4_OK);
}
END_TEST

START_TEST(access_says_what_may_be_done)
{
	enum { R = ACCESS4_READ, W = ACCESS4_MODIFY | ACCESS4_EXTEND, X = ACCESS4_EXECUTE };
	static const uint32_t bits[8] = {0, X, W, W | X, R, R | X, R | W, R | W | X};
	struct file f = make("f", 0);

	for (int m = 0; m < 8; m++) {
		be(ANN, ANN);
		ck_assert_int_eq(setattr(&f.fh, m << 6 | (m ^ 7) << 3 | ((m + 3) & 7), NULL, NULL), NFS4_OK);
		ck_assert_uint_eq(access_of(&f.fh), bits[m]);
		be(BOB, ANN);
		ck_assert_uint_eq(access_of(&f.fh), bits[m ^ 7]);
		be(BOB, BOB);
		ck_assert_uint_eq(access_of(&f.fh), bits[(m + 3) & 7]);
		/* Root runs what anybody may run. */
		be(ROOT, ROOT);
		ck_assert_uint_eq(access_of(&f.fh), R | W | X);
	}
	ck_assert_int_eq(setattr(&f.fh, 0666, NULL, NULL), NFS4_OK);
	ck_assert_uint_eq(access_of(&f.fh), R | W);
}
END_TEST

/* RFC 8881 §18.1.3: the bits are of operations, and entries are made and removed with w and x together. */
START_TEST(access_to_a_folder_promises_no_change_that_would_be_refused)
{
	enum {
		R = ACCESS4_READ,
		X = ACCESS4_LOOKUP,
		WX = ACCESS4_LOOKUP | ACCESS4_MODIFY | ACCESS4_EXTEND | ACCESS4_DELETE
	};
	static const uint32_t bits[8] = {0, X, 0, WX, R, R | X, R, R | WX};

	for (int m = 0; m < 8; m++) {
		be(ANN, ANN);
		ck_assert_int_eq(setattr(&dir, m, NULL, NULL), NFS4_OK);
		be(BOB, BOB);
		ck_assert_uint_eq(access_of(&dir), bits[m]);
		ck_assert_int_eq(mkdir_in(&dir, "sub", 0755), m & 1 && m & 2 ? NFS4_OK : NFS4ERR_ACCESS);
		if (m & 1 && m & 2)
			ck_assert_int_eq(remove_from(&dir, "sub"), NFS4_OK);
	}
	be(ROOT, ROOT);
	ck_assert_uint_eq(access_of(&dir), R | WX);
}
END_TEST

/* A program that is only executable is read by the client to be run. */
START_TEST(what_may_be_run_may_be_read_for_it)
{
	make("prog", 0711);
	be(BOB, BOB);
	ck_assert_int_eq(may_open("prog", OPEN4_SHARE_ACCESS_READ), NFS4_OK);
	ck_assert_int_eq(may_open("prog", OPEN4_SHARE_ACCESS_WRITE), NFS4ERR_ACCESS);
}
END_TEST

/* ---- owners ----------------------------------------------------------------------------------------------------------------------- */

START_TEST(new_files_belong_to_who_makes_them)
{
	struct file f = make("f", 0600);
	struct nfs_attrs a = attr(&f.fh);

	ck_assert_str_eq(a.owner, "1000");
	ck_assert_str_eq(a.group, "1000");
	/* In a set-gid folder to its group. */
	be(ROOT, ROOT);
	ck_assert_int_eq(setattr(&dir, 02777, NULL, "2000"), NFS4_OK);
	be(BOB, BOB);
	f = make("g", 0600);
	a = attr(&f.fh);
	ck_assert_str_eq(a.owner, "1001");
	ck_assert_str_eq(a.group, "2000");
}
END_TEST

START_TEST(only_root_gives_files_away_and_owners_choose_among_their_groups)
{
	static const uint32_t staff[] = {STAFF};
	struct file f = make("f", 0644);

	ck_assert_int_eq(setattr(&f.fh, -1, "1001", NULL), NFS4ERR_PERM);
	ck_assert_int_eq(setattr(&f.fh, -1, NULL, "2000"), NFS4ERR_PERM);
	ck_assert_int_eq(nfsc_set_cred(c, ANN, ANN, 1, staff), 0);
	ck_assert_int_eq(setattr(&f.fh, -1, NULL, "2000"), NFS4_OK);
	be(BOB, BOB);
	ck_assert_int_eq(setattr(&f.fh, 0666, NULL, NULL), NFS4ERR_PERM);
	ck_assert_int_eq(setattr(&f.fh, -1, NULL, "1001"), NFS4ERR_PERM);
	be(ROOT, ROOT);
	ck_assert_int_eq(setattr(&f.fh, -1, "1001", "7"), NFS4_OK);
	ck_assert_str_eq(attr(&f.fh).owner, "1001");
	ck_assert_str_eq(attr(&f.fh).group, "7");
	ck_assert_int_eq(setattr(&f.fh, -1, "nobody in particular", NULL), NFS4ERR_BADOWNER);
}
END_TEST

START_TEST(set_id_bits_go_when_others_write_or_the_owner_changes)
{
	struct file f, keep = make("f", 06777);

	ck_assert_uint_eq(attr(&keep.fh).mode, 06777);
	be(BOB, BOB);
	ck_assert_int_eq(open_in(&dir, "f", OPEN4_SHARE_ACCESS_WRITE, -1, &f), NFS4_OK);
	ck_assert_int_eq(write_byte(&f.fh, &f.sid), NFS4_OK);
	close_it(&f);
	ck_assert_uint_eq(attr(&f.fh).mode, 0777);
	be(ANN, ANN);
	keep = make("g", 04755);
	be(ROOT, ROOT);
	ck_assert_int_eq(setattr(&keep.fh, -1, "1001", NULL), NFS4_OK);
	ck_assert_uint_eq(attr(&keep.fh).mode, 0755);
}
END_TEST

/* POSIX, open() and ftruncate(); ALLOCATE and DEALLOCATE change content as well. */
START_TEST(set_id_bits_go_with_every_change_of_content)
{
	struct open_how empty = {.size = 0};
	nfs_argop4 op[] = {{.argop = OP_ALLOCATE}, {.argop = OP_DEALLOCATE}};
	struct file f = make("f", 06777);

	op[0].nfs_argop4_u.opallocate.aa_length = 4096;
	op[1].nfs_argop4_u.opdeallocate.da_length = 4096;
	for (int i = 0; i < 4; i++) {
		be(ANN, ANN);
		ck_assert_int_eq(setattr(&f.fh, 06777, NULL, NULL), NFS4_OK);
		be(BOB, BOB);
		ck_assert_int_eq(i < 2    ? on(&f.fh, &op[i])
				 : i == 2 ? set_size(&f.fh, &anonymous, 3)
					  : open_how("f", OPEN4_SHARE_ACCESS_WRITE, &empty),
				 NFS4_OK);
		ck_assert_msg(attr(&f.fh).mode == 0777, "%d: %o", i, attr(&f.fh).mode);
	}
	/* Root may leave them. */
	be(ROOT, ROOT);
	ck_assert_int_eq(setattr(&f.fh, 06777, NULL, NULL), NFS4_OK);
	ck_assert_int_eq(set_size(&f.fh, &anonymous, 4), NFS4_OK);
	ck_assert_int_eq(write_byte(&f.fh, &anonymous), NFS4_OK);
	ck_assert_uint_eq(attr(&f.fh).mode, 06777);
}
END_TEST

/* It runs nothing with another identity then, but who is not in the group could not have set it. As Linux since 6.1. */
START_TEST(set_gid_without_group_exec_stays_only_with_members_of_the_group)
{
	struct file f = make("f", 02666);

	be(BOB, ANN);
	ck_assert_int_eq(write_byte(&f.fh, &anonymous), NFS4_OK);
	ck_assert_uint_eq(attr(&f.fh).mode, 02666);
	be(BOB, BOB);
	ck_assert_int_eq(write_byte(&f.fh, &anonymous), NFS4_OK);
	ck_assert_uint_eq(attr(&f.fh).mode, 0666);
	be(ROOT, ROOT);
	ck_assert_int_eq(setattr(&f.fh, 06666, NULL, NULL), NFS4_OK);
	ck_assert_int_eq(setattr(&f.fh, -1, "1001", NULL), NFS4_OK);
	ck_assert_uint_eq(attr(&f.fh).mode, 02666);
}
END_TEST

/* A handle leads past the directory: who may read its names but not search it does not get one. */
START_TEST(a_directory_that_may_only_be_read_lists_names_without_attributes)
{
	struct file f = make("f", 0644);
	uint32_t words[1] = {1u << FATTR4_FILEHANDLE | 1u << FATTR4_RDATTR_ERROR};
	nfs_argop4 op[2] = {nfsc_putfh(&dir), {.argop = OP_READDIR}};
	READDIR4args *a = &op[1].nfs_argop4_u.opreaddir;
	COMPOUND4res res;
	entry4 *e;

	(void)f;
	a->dircount = a->maxcount = 4096;
	a->attr_request = (bitmap4){.bitmap4_len = 1, .bitmap4_val = words};
	ck_assert_int_eq(setattr(&dir, 0744, NULL, NULL), NFS4_OK);
	be(BOB, BOB);
	ck_assert_int_eq(run(op, 2, &res), NFS4_OK);
	e = res.resarray.resarray_val[2].nfs_resop4_u.opreaddir.READDIR4res_u.resok4.reply.entries;
	ck_assert_ptr_nonnull(e);
	ck_assert_uint_eq(e->attrs.attrmask.bitmap4_val[0], 1u << FATTR4_RDATTR_ERROR);
	nfsc_free(&res);
	words[0] = 0;
	ck_assert_int_eq(on(&dir, &op[1]), NFS4_OK);
	words[0] = 1u << FATTR4_FILEHANDLE;
	ck_assert_int_eq(on(&dir, &op[1]), NFS4ERR_ACCESS);
	be(ANN, ANN);
	ck_assert_int_eq(on(&dir, &op[1]), NFS4_OK);
}
END_TEST

START_TEST(the_set_gid_bit_is_for_members_of_the_group)
{
	static const uint32_t staff[] = {STAFF};
	struct file f = make("f", 0755);
	nfs_fh4 sub;
	char buf[NFS4_FHSIZE];

	be(ROOT, ROOT);
	ck_assert_int_eq(setattr(&f.fh, -1, NULL, "2000"), NFS4_OK);
	be(ANN, ANN);
	ck_assert_int_eq(setattr(&f.fh, 02755, NULL, NULL), NFS4_OK);
	ck_assert_uint_eq(attr(&f.fh).mode, 0755);
	ck_assert_int_eq(nfsc_set_cred(c, ANN, ANN, 1, staff), 0);
	ck_assert_int_eq(setattr(&f.fh, 02755, NULL, NULL), NFS4_OK);
	ck_assert_uint_eq(attr(&f.fh).mode, 02755);
	/* The owner's own chgrp takes it away. */
	ck_assert_int_eq(setattr(&f.fh, -1, NULL, "1000"), NFS4_OK);
	ck_assert_uint_eq(attr(&f.fh).mode, 0755);
	/* Folders hand it on. */
	be(ROOT, ROOT);
	ck_assert_int_eq(setattr(&dir, 02777, NULL, "2000"), NFS4_OK);
	be(BOB, BOB);
	ck_assert_int_eq(mkdir_in(&dir, "sub", 0750), NFS4_OK);
	look_up("/disk/d/sub", &sub, buf);
	ck_assert_uint_eq(attr(&sub).mode, 02750);
	ck_assert_str_eq(attr(&sub).owner, "1001");
	ck_assert_str_eq(attr(&sub).group, "2000");
	f = make("g", 02770);
	ck_assert_uint_eq(attr(&f.fh).mode, 0770);
}
END_TEST

/* A folder that moves has its ".." changed. */
START_TEST(moving_a_folder_takes_w_on_both_ends_and_on_itself)
{
	nfs_argop4 op[4] = {nfsc_putfh(&dir), {.argop = OP_SAVEFH}, {.argop = OP_PUTFH}, {.argop = OP_RENAME}};
	static const struct {
		int from, to, moved;
		nfsstat4 want;
	} cases[] = {
		{0755, 0777, 0777, NFS4ERR_ACCESS},
		{0777, 0755, 0777, NFS4ERR_ACCESS},
		{0777, 0777, 0755, NFS4ERR_ACCESS},
		{0777, 0777, 0777, NFS4_OK},
	};
	char to_buf[NFS4_FHSIZE], moved_buf[NFS4_FHSIZE];
	nfs_fh4 to, moved;
	COMPOUND4res res;

	ck_assert_int_eq(mkdir_in(&dir, "to", 0755), NFS4_OK);
	ck_assert_int_eq(mkdir_in(&dir, "moved", 0755), NFS4_OK);
	look_up("/disk/d/to", &to, to_buf);
	look_up("/disk/d/moved", &moved, moved_buf);
	op[2] = nfsc_putfh(&to);
	op[3].nfs_argop4_u.oprename.oldname = name_of("moved");
	op[3].nfs_argop4_u.oprename.newname = name_of("moved");
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		be(ANN, ANN);
		ck_assert_int_eq(setattr(&dir, cases[i].from, NULL, NULL), NFS4_OK);
		ck_assert_int_eq(setattr(&to, cases[i].to, NULL, NULL), NFS4_OK);
		ck_assert_int_eq(setattr(&moved, cases[i].moved, NULL, NULL), NFS4_OK);
		be(BOB, BOB);
		ck_assert_int_eq(run(op, 4, &res), cases[i].want);
		nfsc_free(&res);
	}
}
END_TEST

START_TEST(in_a_sticky_folder_only_owners_remove)
{
	nfs_argop4 op[4] = {nfsc_putfh(&dir), {.argop = OP_SAVEFH}, nfsc_putfh(&dir), {.argop = OP_RENAME}};
	COMPOUND4res res;

	make("anns", 0666);
	ck_assert_int_eq(setattr(&dir, 01777, NULL, NULL), NFS4_OK);
	be(BOB, BOB);
	make("bobs", 0666);
	ck_assert_int_eq(remove_from(&dir, "anns"), NFS4ERR_PERM);
	op[3].nfs_argop4_u.oprename.oldname = name_of("anns");
	op[3].nfs_argop4_u.oprename.newname = name_of("mine");
	ck_assert_int_eq(run(op, 4, &res), NFS4ERR_PERM);
	nfsc_free(&res);
	/* Nor by putting another in its place. */
	op[3].nfs_argop4_u.oprename.oldname = name_of("bobs");
	op[3].nfs_argop4_u.oprename.newname = name_of("anns");
	ck_assert_int_eq(run(op, 4, &res), NFS4ERR_PERM);
	nfsc_free(&res);
	ck_assert_int_eq(remove_from(&dir, "bobs"), NFS4_OK);
	make("bobs", 0666);
	/* The folder's owner may. */
	be(ANN, ANN);
	ck_assert_int_eq(remove_from(&dir, "bobs"), NFS4_OK);
}
END_TEST

/* A stateid stands for a check that was made when the file was opened. */
START_TEST(an_open_file_stays_open_for_its_owner_whatever_its_mode)
{
	struct file f;

	ck_assert_int_eq(open_in(&dir, "f", OPEN4_SHARE_ACCESS_BOTH, 0444, &f), NFS4_OK);
	ck_assert_int_eq(setattr(&f.fh, 0, NULL, NULL), NFS4_OK);
	ck_assert_int_eq(write_byte(&f.fh, &f.sid), NFS4_OK);
	ck_assert_int_eq(read_byte(&f.fh, &f.sid), NFS4_OK);
	ck_assert_int_eq(set_size(&f.fh, &f.sid, 0), NFS4_OK);
	close_it(&f);
	ck_assert_int_eq(may_open("f", OPEN4_SHARE_ACCESS_READ), NFS4ERR_ACCESS);
	ck_assert_int_eq(may_open("f", OPEN4_SHARE_ACCESS_WRITE), NFS4ERR_ACCESS);
}
END_TEST

/* POSIX: what ftruncate() may do was settled by open(). */
START_TEST(who_has_it_open_for_writing_may_cut_it_whatever_its_mode)
{
	struct file f = make("f", 0666);
	nfs_fh4 fh = f.fh;

	be(BOB, BOB);
	ck_assert_int_eq(open_in(&dir, "f", OPEN4_SHARE_ACCESS_BOTH, -1, &f), NFS4_OK);
	be(ANN, ANN);
	ck_assert_int_eq(setattr(&fh, 0600, NULL, NULL), NFS4_OK);
	be(BOB, BOB);
	ck_assert_int_eq(write_byte(&f.fh, &f.sid), NFS4_OK);
	ck_assert_int_eq(set_size(&f.fh, &f.sid, 0), NFS4_OK);
	ck_assert_uint_eq(attr(&f.fh).size, 0);
	ck_assert_int_eq(set_size(&f.fh, &anonymous, 7), NFS4ERR_ACCESS);
	close_it(&f);
}
END_TEST

START_TEST(cutting_a_file_takes_permission_to_write)
{
	struct file f = make("f", 0644);
	struct open_how how = {.size = 0};

	ck_assert_int_eq(set_size(&f.fh, &anonymous, 5), NFS4_OK);
	be(BOB, BOB);
	ck_assert_int_eq(set_size(&f.fh, &anonymous, 0), NFS4ERR_ACCESS);
	ck_assert_int_eq(open_how("f", OPEN4_SHARE_ACCESS_READ, &how), NFS4ERR_ACCESS);
	ck_assert_int_eq(open_in(&dir, "f", OPEN4_SHARE_ACCESS_READ, -1, &f), NFS4_OK);
	ck_assert_int_eq(set_size(&f.fh, &f.sid, 0), NFS4ERR_OPENMODE);
	close_it(&f);
	ck_assert_uint_eq(attr(&f.fh).size, 5);
	be(ANN, ANN);
	ck_assert_int_eq(open_how("f", OPEN4_SHARE_ACCESS_WRITE, &how), NFS4_OK);
	ck_assert_uint_eq(attr(&f.fh).size, 0);
	/* truncate() of a file that was made read-only: the client looked already, and the owner could change the mode. */
	ck_assert_int_eq(setattr(&f.fh, 0444, NULL, NULL), NFS4_OK);
	ck_assert_int_eq(set_size(&f.fh, &anonymous, 3), NFS4_OK);
	ck_assert_int_eq(open_how("f", OPEN4_SHARE_ACCESS_WRITE, &how), NFS4ERR_ACCESS);
}
END_TEST

/* The verifier is kept in times that everybody sees: it opens nothing for those who did not make the file. */
START_TEST(an_exclusive_create_opens_no_file_of_somebody_else)
{
	struct file f = make("f", 0600);
	struct nfs_attrs a = attr(&f.fh);
	struct open_how how = {.exclusive = true};
	uint64_t times;

	times = (uint64_t)a.atime << 32 | (uint32_t)a.mtime;
	memcpy(how.verf, &times, sizeof times);
	be(BOB, BOB);
	ck_assert_int_eq(open_how("f", OPEN4_SHARE_ACCESS_BOTH, &how), NFS4ERR_EXIST);
	put32(how.verf, 17);
	be(ANN, ANN);
	ck_assert_int_eq(open_how("g", OPEN4_SHARE_ACCESS_BOTH, &how), NFS4_OK);
	ck_assert_int_eq(open_how("g", OPEN4_SHARE_ACCESS_BOTH, &how), NFS4_OK);
	be(BOB, BOB);
	ck_assert_int_eq(open_how("g", OPEN4_SHARE_ACCESS_BOTH, &how), NFS4ERR_EXIST);
}
END_TEST

START_TEST(times_are_chosen_by_the_owner_and_writers_may_say_now)
{
	struct file f = make("f", 0644);

	ck_assert_int_eq(set_mtime(&f.fh, 1000), NFS4_OK);
	ck_assert_int_eq(attr(&f.fh).mtime, 1000);
	be(BOB, BOB);
	ck_assert_int_eq(set_mtime(&f.fh, 2000), NFS4ERR_PERM);
	ck_assert_int_eq(set_mtime(&f.fh, 0), NFS4ERR_ACCESS);
	ck_assert_int_eq(attr(&f.fh).mtime, 1000);
	be(ANN, ANN);
	ck_assert_int_eq(setattr(&f.fh, 0646, NULL, NULL), NFS4_OK);
	be(BOB, BOB);
	ck_assert_int_eq(set_mtime(&f.fh, 2000), NFS4ERR_PERM);
	ck_assert_int_eq(set_mtime(&f.fh, 0), NFS4_OK);
	ck_assert_int_gt(attr(&f.fh).mtime, 1000000000);
	be(ROOT, ROOT);
	ck_assert_int_eq(set_mtime(&f.fh, 3000), NFS4_OK);
	ck_assert_int_eq(attr(&f.fh).mtime, 3000);
}
END_TEST

/* ---- squashing -------------------------------------------------------------------------------------------------------------------- */

START_TEST(root_is_nobody_unless_told_otherwise)
{
	static const uint32_t zero[] = {0};
	struct nfs_attrs a;
	struct file f;

	ck_assert_int_eq(setattr(&dir, 0777, NULL, NULL), NFS4_OK);
	be(ROOT, ROOT);
	make("secret", 0640);
	nfsc_close(c);
	server_options(NULL);
	server_restart();
	c = server_client();
	be(ROOT, ROOT);
	ck_assert_int_eq(may_open("secret", OPEN4_SHARE_ACCESS_READ), NFS4ERR_ACCESS);
	ck_assert_int_eq(may_open("secret", OPEN4_SHARE_ACCESS_WRITE), NFS4ERR_ACCESS);
	look_up("/disk/d/secret", &f.fh, f.buf);
	ck_assert_int_eq(read_byte(&f.fh, &anonymous), NFS4ERR_ACCESS);
	ck_assert_int_eq(write_byte(&f.fh, &anonymous), NFS4ERR_ACCESS);
	ck_assert_int_eq(set_size(&f.fh, &anonymous, 0), NFS4ERR_ACCESS);
	ck_assert_int_eq(setattr(&f.fh, 0666, NULL, NULL), NFS4ERR_PERM);
	ck_assert_int_eq(setattr(&dir, -1, "0", NULL), NFS4ERR_PERM);
	f = make("new", 0644);
	a = attr(&f.fh);
	ck_assert_str_eq(a.owner, "65534");
	ck_assert_str_eq(a.group, "65534");
	/* Nor is root's group anybody's. */
	ck_assert_int_eq(nfsc_set_cred(c, ANN, ANN, 1, zero), 0);
	ck_assert_int_eq(may_open("secret", OPEN4_SHARE_ACCESS_READ), NFS4ERR_ACCESS);
	be(ANN, ROOT);
	ck_assert_int_eq(may_open("secret", OPEN4_SHARE_ACCESS_READ), NFS4ERR_ACCESS);
}
END_TEST

START_TEST(root_may_everything_when_told_so)
{
	nfs_argop4 list = {.argop = OP_READDIR};
	struct file f = make("f", 0);

	list.nfs_argop4_u.opreaddir.dircount = list.nfs_argop4_u.opreaddir.maxcount = 4096;
	ck_assert_int_eq(setattr(&dir, 0, NULL, NULL), NFS4_OK);
	ck_assert_int_eq(on(&dir, &list), NFS4ERR_ACCESS);
	be(ROOT, ROOT);
	ck_assert_int_eq(on(&dir, &list), NFS4_OK);
	ck_assert_int_eq(may_open("f", OPEN4_SHARE_ACCESS_BOTH), NFS4_OK);
	ck_assert_int_eq(read_byte(&f.fh, &anonymous), NFS4_OK);
	ck_assert_int_eq(write_byte(&f.fh, &anonymous), NFS4_OK);
	ck_assert_int_eq(set_size(&f.fh, &anonymous, 0), NFS4_OK);
	ck_assert_int_eq(setattr(&f.fh, 04711, "1001", "2000"), NFS4_OK);
	ck_assert_int_eq(setattr(&dir, 01000, NULL, NULL), NFS4_OK);
	ck_assert_int_eq(remove_from(&dir, "f"), NFS4_OK);
	f = make("g", 0600);
	ck_assert_str_eq(attr(&f.fh).owner, "0");
}
END_TEST

/* ---- other flavors ---------------------------------------------------------------------------------------------------------------- */

START_TEST(without_a_credential_one_is_the_anonymous_user)
{
	struct file f = make("mine", 0640);

	ck_assert_int_eq(nfsc_set_no_cred(c), 0);
	ck_assert_int_eq(may_open("mine", OPEN4_SHARE_ACCESS_READ), NFS4ERR_ACCESS);
	ck_assert_int_eq(read_byte(&f.fh, &anonymous), NFS4ERR_ACCESS);
	ck_assert_int_eq(setattr(&f.fh, 0666, NULL, NULL), NFS4ERR_PERM);
	ck_assert_int_eq(mkdir_in(&dir, "sub", 0755), NFS4ERR_ACCESS);
	be(ANN, ANN);
	ck_assert_int_eq(setattr(&dir, 0777, NULL, NULL), NFS4_OK);
	ck_assert_int_eq(nfsc_set_no_cred(c), 0);
	f = make("theirs", 0644);
	ck_assert_str_eq(attr(&f.fh).owner, "65534");
	ck_assert_str_eq(attr(&f.fh).group, "65534");
}
END_TEST

static void must_be_denied(int fd, uint8_t *call, size_t len, uint32_t xid, uint32_t why)
{
	uint8_t b[256];

	raw_put32(call + 4, xid);
	raw_send(fd, call, len);
	ck_assert_int_eq(raw_reply(fd, b, sizeof b, 5000), 20);
	ck_assert_uint_eq(raw_get32(b), xid);
	ck_assert_uint_eq(raw_get32(b + 8), MSG_DENIED);
	ck_assert_uint_eq(raw_get32(b + 12), AUTH_ERROR);
	ck_assert_uint_eq(raw_get32(b + 16), why);
}

/* RFC 5531 §9: who cannot be believed is told so; neither the connection nor anybody else notices. */
START_TEST(other_flavors_are_refused_and_nobody_else_notices)
{
	/* Mark, xid, CALL, 2, program, version, COMPOUND; flavor, 4 bytes; AUTH_NONE. */
	static const uint32_t words[] = {0x80000000u | 48, 0, 0, 2, 100003, 4, 1, 99, 4, 0, 0, 0, 0};
	uint8_t b[256], call[52];
	int fd = raw_connect();

	for (unsigned i = 0; i < 13; i++)
		raw_put32(call + 4 * i, words[i]);
	must_be_denied(fd, call, sizeof call, 7, AUTH_TOOWEAK);
	raw_put32(call + 28, 6); /* RPCSEC_GSS */
	must_be_denied(fd, call, sizeof call, 8, AUTH_TOOWEAK);
	/* A credential of AUTH_SYS that is cut short. */
	raw_put32(call + 28, AUTH_SYS);
	must_be_denied(fd, call, sizeof call, 9, AUTH_BADCRED);
	/* One that is longer than the call, and one that is longer than any may be. */
	raw_put32(call + 32, 64);
	must_be_denied(fd, call, sizeof call, 10, AUTH_BADCRED);
	raw_put32(call + 32, 404);
	must_be_denied(fd, call, sizeof call, 11, AUTH_BADCRED);
	raw_call(fd, 12, 0, NULL, 0);
	ck_assert_int_eq(raw_reply(fd, b, sizeof b, 5000), 24);
	ck_assert_uint_eq(raw_get32(b), 12);
	ck_assert_uint_eq(raw_get32(b + 8), MSG_ACCEPTED);
	ck_assert_uint_eq(raw_get32(b + 20), SUCCESS);
	close(fd);
	make("f", 0644);
}
END_TEST

/* RFC 5531 appendix A: 16 groups and no more. */
START_TEST(a_credential_of_seventeen_groups_is_refused)
{
	uint8_t call[64 + 17 * 4];
	const uint32_t words[] = {0x80000000u | (uint32_t)(sizeof call - 4),
				  0,
				  0,
				  2,
				  100003,
				  4,
				  1,
				  AUTH_SYS,
				  20 + 17 * 4,
				  0,
				  0,
				  BOB,
				  BOB,
				  17};
	int fd = raw_connect();

	memset(call, 0, sizeof call);
	for (unsigned i = 0; i < 14; i++)
		raw_put32(call + 4 * i, words[i]);
	must_be_denied(fd, call, sizeof call, 7, AUTH_BADCRED);
	close(fd);
}
END_TEST

/* ---- two ways in ------------------------------------------------------------------------------------------------------------------ */

static bool has_v6(void)
{
	struct sockaddr_in6 sa = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool ok = fd >= 0 && bind(fd, (struct sockaddr *)&sa, sizeof sa) == 0;

	if (fd >= 0)
		close(fd);
	return ok;
}

START_TEST(ipv4_and_ipv6_see_the_same_files_at_once)
{
	static const char *const both[] = {"--no-root-squash", "--listen", "[::1]:0", NULL};
	struct nfsc *v4, *v6;
	struct file f, g;

	if (!has_v6()) {
		printf("access: no IPv6 loopback here, skipped\n");
		return;
	}
	nfsc_close(c);
	server_options(both);
	server_restart();
	v4 = server_client();
	v6 = server_client_v6();
	c = v6;
	be(ANN, ANN);
	ck_assert_int_eq(open_in(&dir, "f", OPEN4_SHARE_ACCESS_BOTH, 0600, &f), NFS4_OK);
	c = v4;
	be(BOB, BOB);
	ck_assert_int_eq(may_open("f", OPEN4_SHARE_ACCESS_READ), NFS4ERR_ACCESS);
	be(ANN, ANN);
	ck_assert_int_eq(open_in(&dir, "f", OPEN4_SHARE_ACCESS_BOTH, -1, &g), NFS4_OK);
	for (int i = 0; i < 20; i++) {
		c = i & 1 ? v4 : v6;
		ck_assert_int_eq(write_byte(&f.fh, i & 1 ? &g.sid : &f.sid), NFS4_OK);
	}
	/* What one client has open is nothing to the other. */
	c = v4;
	ck_assert_int_eq(write_byte(&f.fh, &f.sid), NFS4ERR_BAD_STATEID);
	close_it(&g);
	c = v6;
	ck_assert_int_eq(write_byte(&f.fh, &f.sid), NFS4_OK);
	close_it(&f);
	ck_assert_uint_eq(attr(&f.fh).size, 1);
	nfsc_close(v6);
	c = v4;
}
END_TEST

int main(int argc, char **argv)
{
	Suite *s = suite_create("access");
	TCase *t = tcase_create("access");
	SRunner *r;
	int failed;

	(void)argc;
	server_find(argv[0]);
	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, the_bits_of_owner_group_and_others_count);
	tcase_add_test(t, folders_want_r_to_list_x_to_pass_and_w_to_change);
	tcase_add_test(t, access_says_what_may_be_done);
	tcase_add_test(t, access_to_a_folder_promises_no_change_that_would_be_refused);
	tcase_add_test(t, what_may_be_run_may_be_read_for_it);
	tcase_add_test(t, new_files_belong_to_who_makes_them);
	tcase_add_test(t, only_root_gives_files_away_and_owners_choose_among_their_groups);
	tcase_add_test(t, set_id_bits_go_when_others_write_or_the_owner_changes);
	tcase_add_test(t, set_id_bits_go_with_every_change_of_content);
	tcase_add_test(t, set_gid_without_group_exec_stays_only_with_members_of_the_group);
	tcase_add_test(t, a_directory_that_may_only_be_read_lists_names_without_attributes);
	tcase_add_test(t, the_set_gid_bit_is_for_members_of_the_group);
	tcase_add_test(t, moving_a_folder_takes_w_on_both_ends_and_on_itself);
	tcase_add_test(t, in_a_sticky_folder_only_owners_remove);
	tcase_add_test(t, an_open_file_stays_open_for_its_owner_whatever_its_mode);
	tcase_add_test(t, who_has_it_open_for_writing_may_cut_it_whatever_its_mode);
	tcase_add_test(t, cutting_a_file_takes_permission_to_write);
	tcase_add_test(t, an_exclusive_create_opens_no_file_of_somebody_else);
	tcase_add_test(t, times_are_chosen_by_the_owner_and_writers_may_say_now);
	tcase_add_test(t, root_is_nobody_unless_told_otherwise);
	tcase_add_test(t, root_may_everything_when_told_so);
	tcase_add_test(t, without_a_credential_one_is_the_anonymous_user);
	tcase_add_test(t, other_flavors_are_refused_and_nobody_else_notices);
	tcase_add_test(t, a_credential_of_seventeen_groups_is_refused);
	tcase_add_test(t, ipv4_and_ipv6_see_the_same_files_at_once);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* calls.c - see calls.h */
#include "tests/protocol/calls.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

void keep_fh(nfs_fh4 *to, char *buf, const nfs_fh4 *from)
{
	memcpy(buf, from->nfs_fh4_val, from->nfs_fh4_len);
	*to = (nfs_fh4){.nfs_fh4_len = from->nfs_fh4_len, .nfs_fh4_val = buf};
}

void look_up(struct nfsc *n, const char *path, nfs_fh4 *fh, char *buf)
{
	struct why why = {.line = ""};
	nfs_fh4 got;

	ck_assert_msg(nfsc_lookup(n, path, &got, &why) == 0, "%s", why.line);
	keep_fh(fh, buf, &got);
}

nfsstat4 on(struct nfsc *n, const nfs_fh4 *fh, const nfs_argop4 *op, COMPOUND4res *res)
{
	nfs_argop4 all[2] = {nfsc_putfh(fh), *op};

	return (nfsstat4)-nfsc_call(n, all, 2, res);
}

nfsstat4 just(struct nfsc *n, const nfs_fh4 *fh, const nfs_argop4 *op)
{
	COMPOUND4res res;
	nfsstat4 st = on(n, fh, op, &res);

	nfsc_free(&res);
	return st;
}

component4 name_of(const char *s)
{
	return (component4){.utf8string_len = (u_int)strlen(s), .utf8string_val = (char *)(uintptr_t)s};
}

nfsstat4 open_in(struct nfsc *n, const nfs_fh4 *dir, const char *name, const char *owner, uint32_t access,
		 uint32_t deny, const createhow4 *how, struct open_file *f)
{
	nfs_argop4 op[3] = {nfsc_putfh(dir), {.argop = OP_OPEN}, {.argop = OP_GETFH}};
	OPEN4args *a = &op[1].nfs_argop4_u.opopen;
	COMPOUND4res res;
	nfsstat4 st;

	a->share_access = access;
	a->share_deny = deny;
	a->owner.owner.owner_val = (char *)(uintptr_t)owner;
	a->owner.owner.owner_len = (u_int)strlen(owner);
	a->openhow.opentype = how ? OPEN4_CREATE : OPEN4_NOCREATE;
	if (how)
		a->openhow.openflag4_u.how = *how;
	a->claim.claim = CLAIM_NULL;
	a->claim.open_claim4_u.file = name_of(name);
	st = (nfsstat4)-nfsc_call(n, op, 3, &res);
	if (st == NFS4_OK) {
		f->sid = res.resarray.resarray_val[2].nfs_resop4_u.opopen.OPEN4res_u.resok4.stateid;
		keep_fh(&f->fh, f->buf, &res.resarray.resarray_val[3].nfs_resop4_u.opgetfh.GETFH4res_u.resok4.object);
	}
	nfsc_free(&res);
	return st;
}

nfsstat4 close_it(struct nfsc *n, struct open_file *f)
{
	nfs_argop4 op = {.argop = OP_CLOSE};

	op.nfs_argop4_u.opclose.open_stateid = f->sid;
	return just(n, &f->fh, &op);
}

nfsstat4 write_at(struct nfsc *n, struct open_file *f, uint64_t off, const void *p, uint32_t len)
{
	nfs_argop4 op = {.argop = OP_WRITE};
	WRITE4args *a = &op.nfs_argop4_u.opwrite;

	*a = (WRITE4args){.stateid = f->sid, .offset = off, .stable = UNSTABLE4};
	a->data.data_val = (char *)(uintptr_t)p;
	a->data.data_len = len;
	return just(n, &f->fh, &op);
}

int32_t read_at(struct nfsc *n, struct open_file *f, uint64_t off, void *p, uint32_t len)
{
	nfs_argop4 op = {.argop = OP_READ};
	COMPOUND4res res;
	int32_t got = -1;
	nfsstat4 st;

	op.nfs_argop4_u.opread = (READ4args){.stateid = f->sid, .offset = off, .count = len};
	st = on(n, &f->fh, &op, &res);
	if (st == NFS4_OK) {
		const READ4resok *ok = &res.resarray.resarray_val[2].nfs_resop4_u.opread.READ4res_u.resok4;

		got = (int32_t)ok->data.data_len;
		ck_assert_int_le(got, (int32_t)len);
		if (got)
			memcpy(p, ok->data.data_val, (size_t)got);
	}
	nfsc_free(&res);
	return got;
}

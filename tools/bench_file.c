/* SPDX-License-Identifier: BSD-3-Clause */
/* bench_file.c - a file that is open on a server, for a benchmark: one call at a time */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench_hints.h"
#include "vhd/base/cleanup.h"

int bench_open(struct bench_file *f, const struct nfs_url *root, const char *path, bool write, struct why *why)
{
	nfs_argop4 op[2] = {{.argop = OP_PUTFH}, {.argop = OP_OPEN}};
	OPEN4args *a = &op[1].nfs_argop4_u.opopen;
	struct nfs_url u = *root;
	COMPOUND4res res;
	nfs_fh4 fh;
	int err;

	*f = (struct bench_file){.write = write};
	snprintf(u.path, sizeof u.path, "/disk/%s", path);
	if ((err = nfsc_open(&f->n, &u, why)) < 0 || (err = nfsc_lookup(f->n, u.path, &fh, why)) < 0)
		return err;
	f->fh.nfs_fh4_val = malloc(fh.nfs_fh4_len);
	if (!f->fh.nfs_fh4_val)
		return -ENOMEM;
	memcpy(f->fh.nfs_fh4_val, fh.nfs_fh4_val, fh.nfs_fh4_len);
	f->fh.nfs_fh4_len = fh.nfs_fh4_len;
	op[0] = nfsc_putfh(&f->fh);
	a->share_access = write ? OPEN4_SHARE_ACCESS_BOTH : OPEN4_SHARE_ACCESS_READ;
	a->owner.owner.owner_len = 5;
	a->owner.owner.owner_val = (char *)(uintptr_t) "bench";
	a->claim.claim = CLAIM_FH;
	err = nfsc_call(f->n, op, 2, &res);
	if (!err)
		f->sid = res.resarray.resarray_val[2].nfs_resop4_u.opopen.OPEN4res_u.resok4.stateid;
	nfsc_free(&res);
	return err ? why_set(why, err, "%s: %s", path, nfsc_error(err)) : 0;
}

void bench_close(struct bench_file *f)
{
	nfs_argop4 op[2] = {nfsc_putfh(&f->fh), {.argop = OP_CLOSE}};
	COMPOUND4res res;

	if (f->n && f->fh.nfs_fh4_val) {
		op[1].nfs_argop4_u.opclose.open_stateid = f->sid;
		nfsc_call(f->n, op, 2, &res);
		nfsc_free(&res);
	}
	nfsc_close(f->n);
	free(f->fh.nfs_fh4_val);
	*f = (struct bench_file){.n = NULL};
}

int bench_read(struct bench_file *f, uint64_t off, uint32_t len)
{
	nfs_argop4 op[2] = {nfsc_putfh(&f->fh), {.argop = OP_READ}};
	READ4args *a = &op[1].nfs_argop4_u.opread;
	COMPOUND4res res;
	int err;

	*a = (READ4args){.stateid = f->sid, .offset = off, .count = len};
	err = nfsc_call(f->n, op, 2, &res);
	if (!err && res.resarray.resarray_val[2].nfs_resop4_u.opread.READ4res_u.resok4.data.data_len != len)
		err = -EIO;
	nfsc_free(&res);
	return err;
}

int bench_write(struct bench_file *f, const void *buf, uint64_t off, uint32_t len)
{
	nfs_argop4 op[2] = {nfsc_putfh(&f->fh), {.argop = OP_WRITE}};
	WRITE4args *a = &op[1].nfs_argop4_u.opwrite;
	COMPOUND4res res;
	int err;

	*a = (WRITE4args){.stateid = f->sid, .offset = off, .stable = UNSTABLE4, .data = {len, (char *)(uintptr_t)buf}};
	err = nfsc_call(f->n, op, 2, &res);
	nfsc_free(&res);
	return err;
}

int bench_commit(struct bench_file *f)
{
	nfs_argop4 op[2] = {nfsc_putfh(&f->fh), {.argop = OP_COMMIT}};
	COMPOUND4res res;
	int err = nfsc_call(f->n, op, 2, &res);

	nfsc_free(&res);
	return err;
}

int bench_advise(struct bench_file *f, uint32_t hints, const uint64_t *off, unsigned n, uint64_t len)
{
	nfs_argop4 op[13] = {nfsc_putfh(&f->fh)};
	COMPOUND4res res;
	int err;

	n = n > 12 ? 12 : n;
	for (unsigned i = 0; i < n; i++)
		op[1 + i] = nfsc_io_advise(&f->sid, off[i], len, &hints);
	err = nfsc_call(f->n, op, 1 + n, &res);
	nfsc_free(&res);
	return err;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* calls.h - COMPOUNDs that several test programs send */
#ifndef VHDNFS_TESTS_PROTOCOL_CALLS_H
#define VHDNFS_TESTS_PROTOCOL_CALLS_H

#include "tools/nfs_client.h"

struct open_file {
	stateid4 sid;
	nfs_fh4 fh;
	char buf[NFS4_FHSIZE];
};

/* A copy of a filehandle in @buf, NFS4_FHSIZE bytes. */
void keep_fh(nfs_fh4 *to, char *buf, const nfs_fh4 *from);
/* The file must be there. */
void look_up(struct nfsc *n, const char *path, nfs_fh4 *fh, char *buf);
component4 name_of(const char *s);
/* One operation on a filehandle; its status. The result stays in @res for nfsc_free(). */
nfsstat4 on(struct nfsc *n, const nfs_fh4 *fh, const nfs_argop4 *op, COMPOUND4res *res);
nfsstat4 just(struct nfsc *n, const nfs_fh4 *fh, const nfs_argop4 *op);
/* @how NULL: the file is there. */
nfsstat4 open_in(struct nfsc *n, const nfs_fh4 *dir, const char *name, const char *owner, uint32_t access,
		 uint32_t deny, const createhow4 *how, struct open_file *f);
nfsstat4 close_it(struct nfsc *n, struct open_file *f);
nfsstat4 write_at(struct nfsc *n, struct open_file *f, uint64_t off, const void *p, uint32_t len);
/* Bytes, or -1. */
int32_t read_at(struct nfsc *n, struct open_file *f, uint64_t off, void *p, uint32_t len);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nfs_fixture.h - whole COMPOUNDs against a server in this process: one memory file system exported at /mem
 *
 * A request is written operation by operation, sent, and its reply read in the same way:
 *
 *     nf_begin(n);                        SEQUENCE on the client's session
 *     nf_op(n, OP_PUTROOTFH);
 *     nf_lookup(n, "mem");
 *     ck_assert_int_eq(nf_send(n), NFS4_OK);
 *     nf_result(n, OP_PUTROOTFH);         asserts the order, returns the status; bodies are decoded from n->in
 *
 * Everything here asserts that it works.
 */
#ifndef TESTS_UNIT_NFS_FIXTURE_H
#define TESTS_UNIT_NFS_FIXTURE_H

#include <check.h>

#include "server/nfs4/compound.h"
#include "tests/unit/memfs.h"

/* Encode arguments, decode results. */
#define NF_PUT(n, type, ptr) ck_assert(xdr_##type(&(n)->out.x, (ptr)))
#define NF_GET(n, type, ptr) ck_assert(xdr_##type(&(n)->in, (ptr)))

/* The server; one for each test. */
struct nf_server {
	struct nfs_server srv;
	struct fs *fs;
	unsigned parked; /* calls that had to go to a worker */
};

/* A client with a session of 8 slots; uses slot 0 unless told otherwise. */
struct nf {
	struct nf_server *s;
	uint32_t minor, uid;
	uint64_t clientid;
	uint8_t session[16];
	uint32_t slot, seq[8];
	bool cache_this;

	struct arena arena; /* of the request being written, then of the reply being read */
	struct xa_out out;
	uint8_t *record;
	size_t record_len;
	void *nops_at;
	uint32_t nops;

	struct arena in_arena;
	XDR in;
	uint8_t *reply; /* behind the RPC header */
	size_t reply_len;
	uint32_t count; /* results in the reply */

	size_t memory;   /* bytes that a call may take; 0: enough */
	uint32_t accept; /* the RPC's own status; not SUCCESS only for nf_try() */
};

void nf_server_start(struct nf_server *s);
void nf_server_stop(struct nf_server *s);
/* EXCHANGE_ID, CREATE_SESSION, RECLAIM_COMPLETE. Minor version 2, uid 0 (squashed to 65534 by the export). */
void nf_client(struct nf *n, struct nf_server *s, const char *owner);
void nf_client_free(struct nf *n);

/* An empty request; with a SEQUENCE (the slot's next) in front. */
void nf_begin_bare(struct nf *n);
void nf_begin(struct nf *n);
void nf_op(struct nf *n, uint32_t op);
/* Runs it, on a "worker" when it parks. The COMPOUND's status; SEQUENCE's result is consumed and asserted to be fine. */
nfsstat4 nf_send(struct nf *n);
/* The same without touching the results. */
nfsstat4 nf_send_bare(struct nf *n);
/* The same request once more, whatever comes of it: accept, reply. */
void nf_try(struct nf *n);
/* The same, when the RPC is to succeed. */
nfsstat4 nf_resend(struct nf *n);
nfsstat4 nf_result(struct nf *n, uint32_t op);

/* Often used operations. */
void nf_lookup(struct nf *n, const char *name);
/* PUTROOTFH, LOOKUP mem; and their results. */
void nf_goto_mem(struct nf *n);
void nf_at_mem(struct nf *n);
void nf_putfh(struct nf *n, const nfs_fh4 *fh);
void nf_stateid_op(struct nf *n, uint32_t op, const stateid4 *sid); /* CLOSE, FREE_STATEID */
/* An attribute as fattr4: mode or size. */
fattr4 nf_attr_mode(struct nf *n, uint32_t mode);
fattr4 nf_attr_size(struct nf *n, uint64_t size);
bool nf_mask_has(const bitmap4 *m, unsigned attr);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench_call.h - calls whose bytes are made once, for who has no time to encode them
 *
 * A COMPOUND as it stands in a buffer; only some of its words are set anew from call to call:
 *
 *     mark xid CALL 2 100003 4 proc cred verf | tag minor nops | SEQUENCE session seq slot high 0 | PUTFH fh | op …
 *
 * and its reply without the mark, when all went well: AT_RESULT is where that of the operation behind PUTFH begins, after its status.
 *
 *     xid REPLY 0 verf 0 | status tag nops | SEQUENCE 0 session seq slot high target flags | PUTFH 0 | op 0 …
 *
 * The session is an nfsc's, of which the caller uses slots that the nfsc leaves alone.
 */
#ifndef VHDNFS_TOOLS_BENCH_CALL_H
#define VHDNFS_TOOLS_BENCH_CALL_H

#include <stddef.h>

#include "tools/bench.h"
#include "tools/nfs_client.h"

#define AT_XID 4u
#define AT_NOPS (4u + 64 + 8)
#define AT_SEQ (AT_NOPS + 4 + 4 + 16)

#define AT_STATUS 24u
#define AT_RESULT 96u
#define AT_READ_LEN (AT_RESULT + 4) /* behind eof */
#define AT_READ_DATA (AT_RESULT + 8)

/* What is encoded goes to p + n. The caller made room. */
struct enc {
	char *p;
	uint32_t n;
};

static inline void put(struct enc *e, uint32_t v)
{
	wire_set(e->p + e->n, v);
	e->n += 4;
}

static inline void put64(struct enc *e, uint64_t v)
{
	put(e, (uint32_t)(v >> 32));
	put(e, (uint32_t)v);
}

static inline void put_raw(struct enc *e, const void *p, uint32_t n)
{
	memcpy(e->p + e->n, p, n);
	memset(e->p + e->n + n, 0, (4 - n % 4) % 4);
	e->n += (n + 3) & ~3u;
}

static inline void put_opaque(struct enc *e, const void *p, uint32_t n)
{
	put(e, n);
	put_raw(e, p, n);
}

static inline void put_stateid(struct enc *e, const stateid4 *sid)
{
	put(e, sid->seqid);
	put_raw(e, sid->other, sizeof sid->other);
}

/* Up to the verifier; mark and xid are 0. */
void put_call(struct enc *e, uint32_t proc);
/* A COMPOUND of @nops operations up to PUTFH with @fh, the second of them. @n NULL: of no session, for who does not look. */
void put_compound(struct enc *e, const struct nfsc *n, uint32_t slot, uint32_t high, const nfs_fh4 *fh, uint32_t nops);

/* Operations behind PUTFH, without their data. */
void put_read(struct enc *e, const stateid4 *sid, uint64_t off, uint32_t len);
void put_write(struct enc *e, const stateid4 *sid, uint64_t off, uint32_t stable, uint32_t len);
void put_io_advise(struct enc *e, const stateid4 *sid, uint64_t off, uint64_t len, uint32_t hints);

/* The record of @len bytes, the mark included, is complete. */
static inline void call_seal(char *p, uint32_t len)
{
	wire_set(p, 0x80000000u | (len - 4));
}

/* Length of the record at @p with its marks, 0 when it is not complete; *frags: how many fragments it has. */
size_t record_len(const char *p, size_t have, unsigned *frags);
/* Moves the fragments of a record of @whole bytes together, behind the first mark. */
void record_join(char *p, size_t whole);

/* Status of a COMPOUND's reply; NFS4ERR_SERVERFAULT when RPC refused the call or it is too short for one. */
uint32_t reply_compound_status(const char *r, size_t len);
/* The same of READ and WRITE of so many bytes. Less than was asked for is NFS4ERR_IO: nobody is fast by doing less. */
uint32_t reply_read_status(const char *r, size_t len, uint32_t want);
uint32_t reply_write_status(const char *r, size_t len, uint32_t want);

#endif

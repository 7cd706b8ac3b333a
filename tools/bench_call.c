/* SPDX-License-Identifier: BSD-3-Clause */
/* bench_call.c - see bench_call.h */
#include "tools/bench_call.h"

#include <unistd.h>

void put_call(struct enc *e, uint32_t proc)
{
	put(e, 0); /* mark */
	put(e, 0); /* xid */
	put(e, 0);
	put(e, 2);
	put(e, NFS4_PROGRAM);
	put(e, NFS_V4);
	put(e, proc);
	put(e, AUTH_SYS);
	put(e, 24); /* stamp, name, uid, gid, no groups, with the text's padding */
	put(e, 0);
	put_opaque(e, "v", 1);
	put(e, (uint32_t)getuid());
	put(e, (uint32_t)getgid());
	put(e, 0);
	put(e, 0);
	put(e, 0);
}

void put_compound(struct enc *e, const struct nfsc *n, uint32_t slot, uint32_t high, const nfs_fh4 *fh, uint32_t nops)
{
	static const sessionid4 none;

	put_call(e, NFSPROC4_COMPOUND);
	put(e, 0);
	put(e, n && !nfsc_has_42(n) ? 1 : 2);
	put(e, nops);
	put(e, OP_SEQUENCE);
	put_raw(e, n ? nfsc_session(n) : none, sizeof none);
	put(e, n ? nfsc_slot_seq(n, slot) : 0);
	put(e, slot);
	put(e, high);
	put(e, 0);
	put(e, OP_PUTFH);
	put_opaque(e, fh->nfs_fh4_val, fh->nfs_fh4_len);
}

void put_read(struct enc *e, const stateid4 *sid, uint64_t off, uint32_t len)
{
	put(e, OP_READ);
	put_stateid(e, sid);
	put64(e, off);
	put(e, len);
}

void put_write(struct enc *e, const stateid4 *sid, uint64_t off, uint32_t stable, uint32_t len)
{
	put(e, OP_WRITE);
	put_stateid(e, sid);
	put64(e, off);
	put(e, stable);
	put(e, len);
}

void put_io_advise(struct enc *e, const stateid4 *sid, uint64_t off, uint64_t len, uint32_t hints)
{
	put(e, OP_IO_ADVISE);
	put_stateid(e, sid);
	put64(e, off);
	put64(e, len);
	put(e, 1);
	put(e, hints);
}

size_t record_len(const char *p, size_t have, unsigned *frags)
{
	size_t n = 0;

	for (*frags = 1; have - n >= 4; ++*frags) {
		uint32_t mark = wire_get(p + n), len = mark & 0x7fffffff;

		if (have - n - 4 < len)
			return 0;
		n += 4 + len;
		if (mark >> 31)
			return n;
	}
	return 0;
}

void record_join(char *p, size_t whole)
{
	char *to = p + 4 + (wire_get(p) & 0x7fffffff);

	for (const char *q = to; q < p + whole;) {
		uint32_t len = wire_get(q) & 0x7fffffff;

		memmove(to, q + 4, len);
		to += len;
		q += 4 + len;
	}
}

uint32_t reply_compound_status(const char *r, size_t len)
{
	/* Accepted, and executed. */
	if (len < AT_STATUS + 4 || wire_get(r + 8) || wire_get(r + 20))
		return NFS4ERR_SERVERFAULT;
	return wire_get(r + AT_STATUS);
}

uint32_t reply_read_status(const char *r, size_t len, uint32_t want)
{
	uint32_t st = reply_compound_status(r, len);

	return st || (len >= AT_READ_DATA + want && wire_get(r + AT_READ_LEN) == want) ? st : (uint32_t)NFS4ERR_IO;
}

uint32_t reply_write_status(const char *r, size_t len, uint32_t want)
{
	uint32_t st = reply_compound_status(r, len);

	return st || (len >= AT_RESULT + 4 && wire_get(r + AT_RESULT) == want) ? st : (uint32_t)NFS4ERR_IO;
}

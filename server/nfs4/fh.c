/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fh.c - filehandles and names
 *
 * A filehandle is persistent (RFC 8881 4.2.2): it says version, export, inode, generation, and nothing that a restart would
 * change. Big-endian:
 *
 *     [version 2][0][0][0][export id: 4][inode: 8][generation: 4][hash: 8]
 *
 * The hash is SipHash-2-4 of what is before it, with a key that stays with the client records. Without it anybody could make the
 * handle of a file in a folder that he may not enter: inode numbers are small, and generations of other systems are often 0. Version 1
 * has no hash. It is what a server without a key gives out, and takes.
 *
 * A handle whose hash is wrong is STALE, not BADHANDLE: to an honest client it means that the key has changed, and it has to look the
 * file up again.
 */
#include <errno.h>
#include <assert.h>
#include <stddef.h>
#include <string.h>

#include "server/nfs4/compound.h"
#include "vhd/base/endian.h"

enum { FH_PLAIN = 1, FH_HASHED = 2 };
#define FH_PLAIN_LEN 20u
#define FH_LEN 28u
#define NAME_MAX_BYTES 255u

struct fh {
	uint8_t version, zero[3];
	be32 export_id;
	be64 ino;
	be32 gen;
	be64 hash;
};
static_assert(sizeof(struct fh) == FH_LEN, "filehandle layout");
static_assert(offsetof(struct fh, hash) == FH_PLAIN_LEN, "filehandle layout");

static be64 hash_of(const struct fh_auth *a, const struct fh *fh)
{
	return be64_of(siphash(a->key, fh, FH_PLAIN_LEN));
}

uint32_t fh_encode(const struct nfs_server *srv, const struct export *exp, uint64_t ino, uint32_t gen, uint8_t *buf)
{
	uint32_t len = srv->fh.on ? FH_LEN : FH_PLAIN_LEN;
	struct fh fh = {
		.version = srv->fh.on ? FH_HASHED : FH_PLAIN,
		.export_id = be32_of(exp->id),
		.ino = be64_of(ino),
		.gen = be32_of(gen),
	};

	if (srv->fh.on)
		fh.hash = hash_of(&srv->fh, &fh);
	memcpy(buf, &fh, len);
	return len;
}

/* In constant time: how much of a wrong hash was right is not told. */
static bool same_hash(be64 a, be64 b)
{
	return (be64_get(a) ^ be64_get(b)) == 0;
}

/* Its shape, and that we gave it out. */
static nfsstat4 fh_check(const struct fh_auth *a, const nfs_fh4 *in, struct fh *fh)
{
	if (in->nfs_fh4_len != FH_LEN && in->nfs_fh4_len != FH_PLAIN_LEN)
		return NFS4ERR_BADHANDLE;
	memcpy(fh, in->nfs_fh4_val, in->nfs_fh4_len);
	if (fh->version != (in->nfs_fh4_len == FH_LEN ? FH_HASHED : FH_PLAIN) || fh->zero[0] || fh->zero[1] ||
	    fh->zero[2])
		return NFS4ERR_BADHANDLE;
	if (fh->version == FH_PLAIN)
		return a->on && !a->old ? NFS4ERR_STALE : NFS4_OK;
	return a->on && same_hash(fh->hash, hash_of(a, fh)) ? NFS4_OK : NFS4ERR_STALE;
}

nfsstat4 fh_decode(struct compound *c, const nfs_fh4 *in, struct obj *out)
{
	struct fh fh = {0};
	nfsstat4 st = fh_check(&c->srv->fh, in, &fh);
	struct export *e;
	struct fs_node *n;
	int err;

	if (st != NFS4_OK)
		return st;
	e = export_find(c->srv->exports, be32_get(fh.export_id));
	if (!e)
		return NFS4ERR_STALE;
	if (!export_allows(e, rpc_conn_peer(c->call->conn))) {
		export_put(e);
		return NFS4ERR_STALE; /* PUTFH has no ACCESS: to this client the export does not exist */
	}
	err = e->fs->ops->get(e->fs, be64_get(fh.ino), be32_get(fh.gen), nowait(c), &n);
	if (err) {
		export_put(e);
		return errno_status(err);
	}
	*out = (struct obj){.exp = e, .node = n};
	return NFS4_OK;
}

struct st_fhkey fh_key(const struct obj *o)
{
	return (struct st_fhkey){.export_id = o->exp->id, .gen = o->node->gen, .ino = o->node->ino};
}

nfsstat4 name_check(const component4 *name)
{
	const char *p = name->utf8string_val;
	uint32_t n = name->utf8string_len;

	if (n == 0)
		return NFS4ERR_INVAL;
	if (n > NAME_MAX_BYTES)
		return NFS4ERR_NAMETOOLONG;
	if ((n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
		return NFS4ERR_BADNAME;
	return memchr(p, '/', n) || memchr(p, 0, n) ? NFS4ERR_BADCHAR : NFS4_OK;
}

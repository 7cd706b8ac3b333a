/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fh.c - filehandles and names
 *
 * A filehandle is persistent (RFC 8881 4.2.2): it says version, export, inode, generation, and nothing that a restart would
 * change. 20 bytes, big-endian:
 *
 *     [version 1][0][0][0][export id: 4][inode: 8][generation: 4]
 */
#include <errno.h>
#include <assert.h>
#include <string.h>

#include "server/nfs4/compound.h"
#include "vhd/base/endian.h"

#define FH_VERSION 1
#define FH_LEN 20u
#define NAME_MAX_BYTES 255u

struct fh {
	uint8_t version, zero[3];
	be32 export_id;
	be64 ino;
	be32 gen;
};
static_assert(sizeof(struct fh) == FH_LEN, "filehandle layout");

uint32_t fh_encode(const struct export *exp, uint64_t ino, uint32_t gen, uint8_t *buf)
{
	const struct fh fh = {
		.version = FH_VERSION,
		.export_id = be32_of(exp->id),
		.ino = be64_of(ino),
		.gen = be32_of(gen),
	};

	memcpy(buf, &fh, sizeof fh);
	return sizeof fh;
}

nfsstat4 fh_decode(struct compound *c, const nfs_fh4 *in, struct obj *out)
{
	struct fh fh;
	struct export *e;
	struct fs_node *n;
	int err;

	if (in->nfs_fh4_len != sizeof fh)
		return NFS4ERR_BADHANDLE;
	memcpy(&fh, in->nfs_fh4_val, sizeof fh);
	if (fh.version != FH_VERSION || fh.zero[0] || fh.zero[1] || fh.zero[2])
		return NFS4ERR_BADHANDLE;
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

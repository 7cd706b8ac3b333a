/* SPDX-License-Identifier: BSD-3-Clause */
/* op_name.c - filehandles and names: PUTFH and its kin, LOOKUP, LOOKUPP, SECINFO, ACCESS (RFC 8881 §18) */
#include <errno.h>
#include <string.h>

#include "server/nfs4/compound.h"
#include "server/nfs4/standing.h"
#include "vhd/base/cleanup.h"

nfsstat4 op_putfh(struct compound *c)
{
	PUTFH4args a = {.object = {0}};
	struct obj o;
	nfsstat4 st = C_DECODE(c, PUTFH4args, &a);

	if (st == NFS4_OK && (st = fh_decode(c, &a.object, &o)) == NFS4_OK)
		c_set_cfh(c, o.exp, o.node);
	return st;
}

nfsstat4 op_putrootfh(struct compound *c)
{
	struct export *e = export_pseudo(c->srv->exports);

	c_set_cfh(c, e, fs_node_get(e->fs->root));
	return NFS4_OK;
}

nfsstat4 op_putpubfh(struct compound *c)
{
	return op_putrootfh(c);
}

nfsstat4 op_getfh(struct compound *c)
{
	uint8_t buf[NFS4_FHSIZE];
	nfs_fh4 fh = {.nfs_fh4_len = fh_encode(c->srv, c->cfh.exp, c->cfh.node->ino, c->cfh.node->gen, buf),
		      .nfs_fh4_val = (char *)buf};

	return C_ENCODE(c, nfs_fh4, &fh);
}

nfsstat4 op_savefh(struct compound *c)
{
	obj_put(&c->sfh);
	c->sfh = obj_get(&c->cfh);
	c->ssid = c->csid;
	c->has_ssid = c->has_csid;
	return NFS4_OK;
}

nfsstat4 op_restorefh(struct compound *c)
{
	struct obj o;

	if (!c->sfh.exp)
		return NFS4ERR_NOFILEHANDLE; /* what it superseded, RFC 8881 §15.1.16.4 */
	o = obj_get(&c->sfh);
	c_set_cfh(c, o.exp, o.node);
	c->csid = c->ssid;
	c->has_csid = c->has_ssid;
	return NFS4_OK;
}

/* ---- names ---------------------------------------------------------------------------------------------------------------- */

/* From a directory of the pseudo-root into the export that is mounted on it. */
nfsstat4 c_cross(struct compound *c, struct obj *o)
{
	struct export *e;

	if (!o->exp->pseudo || !(e = export_mounted_on(c->srv->exports, o->node)))
		return NFS4_OK;
	if (!export_allows(e, rpc_conn_peer(c->call->conn))) {
		export_put(e);
		return NFS4ERR_ACCESS;
	}
	obj_put(o);
	*o = (struct obj){.exp = e, .node = fs_node_get(e->fs->root)};
	return NFS4_OK;
}

/* Of the pseudo-root a client sees what leads it somewhere. */
bool c_shows(struct compound *c, const struct fs_node *pseudo)
{
	return export_shows(c->srv->exports, pseudo, rpc_conn_peer(c->call->conn));
}

/* ".snapshots" in the root of an export leads to where they are, on the pseudo-root. */
static bool to_snapshots(struct compound *c, const struct obj *dir, const component4 *name, struct obj *out)
{
	static const char snapshots[] = ".snapshots";
	struct fs_node *n;

	if (name->utf8string_len != sizeof snapshots - 1 || dir->node != dir->exp->fs->root ||
	    memcmp(name->utf8string_val, snapshots, sizeof snapshots - 1) != 0)
		return false;
	n = export_snapshots(c->srv->exports, dir->exp);
	if (n && !c_shows(c, n)) {
		fs_node_put(n);
		n = NULL;
	}
	if (n)
		*out = (struct obj){.exp = export_pseudo(c->srv->exports), .node = n};
	return n;
}

nfsstat4 c_lookup(struct compound *c, const struct obj *dir, const component4 *name, struct obj *out)
{
	struct fs_node *n;
	nfsstat4 st;

	if (dir->node->type == FS_LNK)
		return NFS4ERR_SYMLINK;
	if (dir->node->type != FS_DIR)
		return NFS4ERR_NOTDIR;
	if ((st = name_check(name)) != NFS4_OK || (st = may(c, dir, MAY_EXEC)) != NFS4_OK)
		return st;
	if (to_snapshots(c, dir, name, out))
		return NFS4_OK;
	st = errno_status(
		dir->node->fs->ops->lookup(dir->node, name->utf8string_val, name->utf8string_len, nowait(c), &n));
	if (st != NFS4_OK)
		return st;
	if (dir->exp->pseudo && !c_shows(c, n)) {
		fs_node_put(n);
		return NFS4ERR_NOENT;
	}
	standing_named(c->srv, dir->node, n, name);
	*out = (struct obj){.exp = export_get(dir->exp), .node = n};
	st = c_cross(c, out);
	if (st != NFS4_OK)
		obj_put(out);
	return st;
}

nfsstat4 op_lookup(struct compound *c)
{
	LOOKUP4args a = {.objname = {0}};
	struct obj o;
	nfsstat4 st = C_DECODE(c, LOOKUP4args, &a);

	if (st == NFS4_OK && (st = c_lookup(c, &c->cfh, &a.objname, &o)) == NFS4_OK)
		c_set_cfh(c, o.exp, o.node);
	return st;
}

/* The parent of the current directory; above an export's root it is in the pseudo-root. */
static nfsstat4 parent_of(struct compound *c, struct obj *out)
{
	const struct obj *o = &c->cfh;
	struct fs_node *up;
	nfsstat4 st;

	if (o->node->type != FS_DIR)
		return o->node->type == FS_LNK ? NFS4ERR_SYMLINK : NFS4ERR_NOTDIR;
	if ((st = may(c, o, MAY_EXEC)) != NFS4_OK)
		return st;
	if (o->node == o->exp->fs->root) {
		if (o->exp->pseudo)
			return NFS4ERR_NOENT;
		*out = (struct obj){
			.exp = export_pseudo(c->srv->exports),
			.node = export_mount_parent(c->srv->exports, o->exp),
		};
		return NFS4_OK;
	}
	st = errno_status(o->node->fs->ops->parent(o->node, nowait(c), &up));
	if (st == NFS4_OK)
		*out = (struct obj){.exp = export_get(o->exp), .node = up};
	return st;
}

nfsstat4 op_lookupp(struct compound *c)
{
	struct obj o;
	nfsstat4 st = parent_of(c, &o);

	if (st == NFS4_OK)
		c_set_cfh(c, o.exp, o.node);
	return st;
}

/* ---- SECINFO: AUTH_SYS everywhere -------------------------------------------------------------------------------------------- */

static nfsstat4 put_flavors(struct compound *c)
{
	secinfo4 flavor = {.flavor = AUTH_SYS};
	SECINFO4resok res = {.SECINFO4resok_len = 1, .SECINFO4resok_val = &flavor};
	nfsstat4 st = C_ENCODE(c, SECINFO4resok, &res);

	/* RFC 8881 §2.6.3.1.1.8: the filehandle is consumed. */
	if (st == NFS4_OK) {
		obj_put(&c->cfh);
		c->has_csid = false;
	}
	return st;
}

nfsstat4 op_secinfo(struct compound *c)
{
	SECINFO4args a = {.name = {0}};
	struct obj o;
	nfsstat4 st = C_DECODE(c, SECINFO4args, &a);

	if (st != NFS4_OK || (st = c_lookup(c, &c->cfh, &a.name, &o)) != NFS4_OK)
		return st;
	obj_put(&o);
	return put_flavors(c);
}

nfsstat4 op_secinfo_no_name(struct compound *c)
{
	SECINFO_NO_NAME4args style = SECINFO_STYLE4_CURRENT_FH;
	struct obj o;
	nfsstat4 st = C_DECODE(c, SECINFO_NO_NAME4args, &style);

	if (st != NFS4_OK)
		return st;
	if (style != SECINFO_STYLE4_CURRENT_FH && style != SECINFO_STYLE4_PARENT)
		return NFS4ERR_INVAL;
	if (style == SECINFO_STYLE4_PARENT) {
		if ((st = parent_of(c, &o)) != NFS4_OK)
			return st;
		obj_put(&o);
	}
	return put_flavors(c);
}

/* ---- ACCESS ------------------------------------------------------------------------------------------------------------------ */

/* What each right is, of a file and of a directory, whose entries are made and removed with w and x; 0: there it is none. */
static const struct {
	uint32_t right;
	unsigned file, dir;
} rights[] = {
	{ACCESS4_READ, MAY_READ, MAY_READ},
	{ACCESS4_LOOKUP, 0, MAY_EXEC},
	{ACCESS4_MODIFY, MAY_WRITE | MAY_CUT, MAY_WRITE | MAY_EXEC | MAY_CUT},
	{ACCESS4_EXTEND, MAY_WRITE, MAY_WRITE | MAY_EXEC},
	{ACCESS4_DELETE, 0, MAY_WRITE | MAY_EXEC | MAY_CUT},
	{ACCESS4_EXECUTE, MAY_EXEC, 0},
};

nfsstat4 op_access(struct compound *c)
{
	ACCESS4args a = {.access = 0};
	ACCESS4resok res = {.supported = 0};
	struct fs_attr at;
	bool ro;
	nfsstat4 st = C_DECODE(c, ACCESS4args, &a);

	if (st != NFS4_OK)
		return st;
	st = errno_status(c->cfh.node->fs->ops->getattr(c->cfh.node, nowait(c), &at));
	if (st != NFS4_OK)
		return st;
	ro = may_mutate(c, &c->cfh) != NFS4_OK;
	for (size_t i = 0; i < ARRAY_LEN(rights); i++) {
		unsigned want = at.type == FS_DIR ? rights[i].dir : rights[i].file;

		if (!want || !(a.access & rights[i].right))
			continue;
		res.supported |= rights[i].right;
		if (want & MAY_WRITE && ro)
			continue;
		st = may_attr(c, c->cfh.node, &at, want);
		if (st == ST_WAIT)
			return st;
		res.access |= st == NFS4_OK ? rights[i].right : 0;
	}
	return C_ENCODE(c, ACCESS4resok, &res);
}

nfsstat4 op_get_dir_delegation(struct compound *c)
{
	GET_DIR_DELEGATION4args a = {.gdda_signal_deleg_avail = false};
	GET_DIR_DELEGATION4res_non_fatal res = {.gddrnf_status = GDD4_UNAVAIL};
	nfsstat4 st = C_DECODE(c, GET_DIR_DELEGATION4args, &a);

	return st != NFS4_OK ? st : C_ENCODE(c, GET_DIR_DELEGATION4res_non_fatal, &res);
}

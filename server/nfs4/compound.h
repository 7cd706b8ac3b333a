/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * compound.h - one COMPOUND while it runs, and what the operations share
 *
 * Operations are decoded, run and encoded one at a time: a handler takes its arguments from `in`, acts, and encodes the
 * body that follows its status. The dispatcher (compound.c) writes operation number and status and cuts the body off
 * again when the status is not NFS4_OK, unless the row in the table says that the operation has a body then too.
 *
 * A handler that would have to wait returns ST_WAIT before it changed anything that cannot be done twice; the dispatcher
 * rewinds in and out to the start of the operation, parks the call, and runs the handler again on a worker with
 * c->may_block set. errno_status() turns -EAGAIN into ST_WAIT.
 */
#ifndef VHDNFS_SERVER_NFS4_COMPOUND_H
#define VHDNFS_SERVER_NFS4_COMPOUND_H

#include <stdbool.h>
#include <stdint.h>

#include "advise/stream.h"
#include "advise/words.h"
#include "server/export.h"
#include "server/rpc/rpc.h"
#include "server/state/state.h"
#include "vhd/base/siphash.h"
#include "vhd/volume/fs.h"
#include "xdr/prims.h"
#include "xdr/stream.h"
#include "xdr/xdr.h" /* all generated types */

/* Filehandles carry a hash of themselves with a secret key, so nobody can make one (fh.c). */
struct fh_auth {
	bool on;
	bool old; /* those without are taken too: they were given out by a version that knew no key */
	uint8_t key[SIPHASH_KEY_BYTES];
};

struct nfs_server {
	struct exports *exports;
	struct st *state;
	uint32_t max_read, max_write; /* bytes; rtmax, wtmax */
	uint32_t links_max;           /* frames of the cache that replies may hold; 0: as many as there are */
	verifier4 write_verf;         /* of this start of the server */
	struct fh_auth fh;            /* constant while calls run */
	uint64_t change_base;         /* is added to change attributes: st_change_base() */
	bool read_only;               /* whole server */
	struct adv_conf advice;
	const struct adv_rule *rules; /* of the configuration */
	unsigned nrules;
	atomic_uint standing_version; /* standing.h; never 0 */
};

/* An object with a filehandle: both references are held. */
struct obj {
	struct export *exp; /* NULL: no object */
	struct fs_node *node;
};

struct compound {
	struct nfs_server *srv;
	struct rpc_call *call;
	XDR *in;
	struct xa_out *out;
	uint32_t minor;
	uint32_t nops, op; /* how many, and which one runs (0-based) */
	bool may_block;

	struct obj cfh, sfh;
	struct cred cred;    /* of the caller on cfh's export; set with cfh */
	stateid4 csid, ssid; /* current and saved stateid, RFC 8881 16.2.3.1.2 */
	bool has_csid, has_ssid;

	struct st_call st; /* session, slot, client: filled by SEQUENCE, see state.h */
	bool has_session;
	bool replayed; /* out already holds the cached reply: stop */
	bool finished;
	struct xa_mark start; /* behind the RPC header: where a cached reply goes */
	uint32_t done;        /* operations with a result in out */
	void *status_at, *count_at;
	size_t limit; /* bytes of the whole reply */

	/* The first operation that changed something which must be on stable storage before the reply goes: what it was, so that
	 * its result can still become an error. */
	struct {
		struct obj obj;
		uint64_t change; /* of obj's file system; 0: nothing */
		struct xa_mark at;
		uint32_t op, done;
	} lasting;
	uint64_t change; /* what the running operation changed, if it must be on stable storage */
	struct fs_waiter waiter;
	bool held;
	nfsstat4 held_status;
	int held_err;
};

/* What fs.h wants to know of where we run. */
static inline unsigned nowait(const struct compound *c)
{
	return c->may_block ? 0 : FS_NOWAIT;
}

/* Unsigned only when -EAGAIN is not meant: ST_WAIT while !may_block, else NFS4ERR_DELAY. The one place where errno becomes
 * a status; see status.c. */
nfsstat4 errno_status(int err);

typedef nfsstat4 op_fn(struct compound *c);

/* ---- compound.c: setting the current object ------------------------------------------------------------------------ */

/* Takes over the caller's references. Drops the current stateid. */
void c_set_cfh(struct compound *c, struct export *exp, struct fs_node *node);
void obj_put(struct obj *o);
struct obj obj_get(const struct obj *o);

/* The stateid an operation works with: the current one when *sid is the special "current stateid", whatever its seqid is by now
 * (RFC 8881 8.2.3). BAD_STATEID: there is none. */
nfsstat4 c_stateid(struct compound *c, const stateid4 *sid, stateid4 *out);
/* The same for CLOSE and OPEN_DOWNGRADE, which mean it with its seqid. */
nfsstat4 c_stateid_exact(struct compound *c, const stateid4 *sid, stateid4 *out);
/* An operation returned a stateid: it is the current one now. */
void c_set_stateid(struct compound *c, const stateid4 *sid);

/* One word, in or out; the generated routines are for types. */
#define xdr_uint32_word(x, v) xa_uint32((x), (v))

/* decode/encode through a generated routine; NFS4ERR_BADXDR / NFS4ERR_REP_TOO_BIG (or RESOURCE) as status. */
#define C_DECODE(c, type, ptr) (xdr_##type((c)->in, (ptr)) ? NFS4_OK : NFS4ERR_BADXDR)
#define C_ENCODE(c, type, ptr) (xdr_##type(&(c)->out->x, (ptr)) ? NFS4_OK : NFS4ERR_REP_TOO_BIG)

static inline struct st_principal c_principal(const struct compound *c)
{
	return (struct st_principal){.flavor = c->call->cred.flavor, .uid = c->call->cred.uid};
}

/* For what changes a stateid: the client has to hear of it. NFS4ERR_REP_TOO_BIG. */
static inline nfsstat4 room_for_stateid(const struct compound *c)
{
	return xa_out_room(c->out) < sizeof(stateid4) ? NFS4ERR_REP_TOO_BIG : NFS4_OK;
}

/* ---- names and filehandles: fh.c, name.c ---------------------------------------------------------------------------- */

/* component4: NFS4ERR_INVAL (empty, bad UTF-8 is accepted), NAMETOOLONG, BADNAME ("." and ".."), BADCHAR ('/' or NUL). */
nfsstat4 name_check(const component4 *name);

/* At most 64 bytes are written; the length is returned. */
uint32_t fh_encode(const struct nfs_server *srv, const struct export *exp, uint64_t ino, uint32_t gen, uint8_t *buf);
/* NFS4ERR_BADHANDLE no shape of ours; NFS4ERR_STALE forged, or what it named is gone; ST_WAIT. References are the caller's. */
nfsstat4 fh_decode(struct compound *c, const nfs_fh4 *fh, struct obj *out);
/* A key that is the same for every handle of one file: for state. */
struct st_fhkey fh_key(const struct obj *o);

/* op_name.c: a name in a directory, crossing into an export; the references are the caller's. */
nfsstat4 c_lookup(struct compound *c, const struct obj *dir, const component4 *name, struct obj *out);
/* Is this directory of the pseudo-root there for this client? */
bool c_shows(struct compound *c, const struct fs_node *pseudo);
/* Into the export that is mounted on a pseudo directory, if one is. */
nfsstat4 c_cross(struct compound *c, struct obj *o);

/* ---- permissions: access.c ------------------------------------------------------------------------------------------ */

/* Data, opens and locks are for regular files: ISDIR, SYMLINK, WRONG_TYPE (RFC 8881 §15.1.2.9, §18.10.3, §18.16.4). */
nfsstat4 must_be_regular(const struct fs_node *n);

/* MAY_CUT, with MAY_WRITE: something else than to add to it, which append-only files and directories refuse. */
enum { MAY_READ = 4, MAY_WRITE = 2, MAY_EXEC = 1, MAY_CUT = 8 };
/* What POSIX and the file's access control list give the compound's caller. NFS4_OK, NFS4ERR_ACCESS, NFS4ERR_PERM where nobody may
 * (immutable, append-only), ST_WAIT, … */
nfsstat4 may(struct compound *c, const struct obj *o, unsigned want);
/* The same with the attributes of @n at hand. */
nfsstat4 may_attr(struct compound *c, struct fs_node *n, const struct fs_attr *a, unsigned want);
/* The check of POSIX 1003.1e for one who is not root; @want: MAY_READ | MAY_WRITE | MAY_EXEC. */
bool acl_permits(const struct cred *cr, const struct fs_attr *a, const struct fs_acl *acl, unsigned want);
/* In a directory: write and search. For removing `victim` (NULL when not known) the sticky bit too. */
nfsstat4 may_change_dir(struct compound *c, const struct obj *dir, const struct fs_attr *victim);
/* What a mode becomes when the content changes: without set-id bits (POSIX), unless root changes it. */
uint32_t mode_changed(const struct cred *cr, const struct fs_attr *a);
bool is_owner(const struct cred *cr, const struct fs_attr *a); /* or uid 0 after squashing */
/* NFS4ERR_ROFS for read-only exports and file systems. */
nfsstat4 may_mutate(const struct compound *c, const struct obj *o);

/* ---- attributes: attr.c --------------------------------------------------------------------------------------------- */

/* What a fattr4 asks to set, checked: NFS4ERR_ATTRNOTSUPP, INVAL (read-only attribute), BADXDR, BADOWNER. */
struct attr_set {
	struct fs_setattr fs;
	bitmap4 mask; /* what was asked */
};
/* @creating: attributes of a new object (CREATE, OPEN). Points into the arena. */
nfsstat4 attr_decode(struct compound *c, const fattr4 *a, bool creating, struct attr_set *out);
/* The permission rules of SETATTR (owner, size needs write unless it is @open for that, set-id bits); adjusts s->fs. */
nfsstat4 attr_may_set(struct compound *c, struct fs_node *n, const struct fs_attr *now, bool open, struct attr_set *s);
/* What is asked of the attributes of one or many objects of an export. */
#define ATTR_WORDS 3u
struct attr_plan {
	struct export *exp;               /* borrowed */
	uint32_t w[ATTR_WORDS];           /* asked for, and supported */
	uint8_t head[4 + 4 * ATTR_WORDS]; /* w as it is sent */
	uint32_t head_len;
	uint32_t n;
	uint8_t row[ATTR_WORDS * 32]; /* their numbers, ascending */
	struct fs_statfs s;           /* filled when something of it is asked for */
};
/* NFS4ERR_INVAL: asks for something that can only be set. */
nfsstat4 attr_plan(struct export *exp, const bitmap4 *want, struct attr_plan *p);
/* One object's, as a fattr4. NFS4ERR_REP_TOO_BIG. */
nfsstat4 attr_put(struct compound *c, const struct attr_plan *p, const struct fs_attr *a);
/* Encode the attributes of @o that @want names and that we support, as a fattr4. */
nfsstat4 attr_encode(struct compound *c, const struct obj *o, const bitmap4 *want);
/* Owner, group and mode of a new object: the caller's, with set-gid directories honoured. NFS4ERR_PERM: it asks for an owner
 * or a group that the caller could not give it away to afterwards. */
nfsstat4 attr_new_owner(const struct compound *c, const struct fs_attr *dir, enum fs_type type, struct fs_setattr *s);

change_info4 cinfo_of(const struct compound *c, const struct fs_cinfo *ci);
/* SETATTR has a body when it fails: nothing was set. Returns @st. */
nfsstat4 setattr_fail(struct compound *c, nfsstat4 st);

/* ---- data: op_io.c, op_advise.c -------------------------------------------------------------------------------------- */

/* st_io_check(), and what denies the access gives way if it is only of clients whose lease is over. ST_WAIT. */
nfsstat4 c_io_check(struct compound *c, const struct st_fhkey *key, const stateid4 *sid, uint32_t access,
		    struct st_io *io);
/* May the caller read (OPEN4_SHARE_ACCESS_READ) or write the current file's data? Its owner may, whatever the mode says: it may have
 * been opened before. ACCESS, ST_WAIT. */
nfsstat4 may_data(struct compound *c, uint32_t access);
/* The stateid is good for this access; one that is no open of the caller's own, or is of an open for writing when @access is to read,
 * needs the permission as well. @given becomes what it stands for, *advice (may be NULL) what its opener has said. */
nfsstat4 may_io(struct compound *c, stateid4 *given, uint32_t access, uint32_t *advice);
/* Whose reads these are, for the cache: an open's, or of a client that has not opened the file. 1 … CACHE_WHO_MAX; two may share a
 * number: then less is given up than could be. */
uint16_t who_reads(const struct compound *c, const stateid4 *sid);
/* What a read of the current file, by an opener who has @said something or not, says about the next ones. Never waits, and never fails. */
void look_ahead(struct compound *c, uint32_t said, uint64_t off, uint32_t len, uint16_t who);

/* What waits to be read ahead for a file is not needed: it was cut. */
void forget_ahead(struct fs_node *n);

/* ---- operations ------------------------------------------------------------------------------------------------------ */

/* op_session.c */
op_fn op_exchange_id, op_create_session, op_destroy_session, op_destroy_clientid, op_sequence, op_bind_conn_to_session,
	op_backchannel_ctl, op_reclaim_complete, op_set_ssv;
/* op_open.c, op_lock.c, op_stateid.c */
op_fn op_open, op_open_downgrade, op_close, op_lock, op_lockt, op_locku, op_test_stateid, op_free_stateid,
	op_delegreturn, op_delegpurge;
/* op_name.c, op_dir.c, op_io.c, attr.c */
op_fn op_putfh, op_putpubfh, op_putrootfh, op_getfh, op_savefh, op_restorefh, op_lookup, op_lookupp, op_access,
	op_secinfo, op_secinfo_no_name, op_get_dir_delegation;
op_fn op_readdir, op_readlink, op_create, op_remove, op_rename, op_link;
op_fn op_read, op_write, op_commit, op_seek, op_allocate, op_deallocate, op_io_advise;
op_fn op_getattr, op_setattr, op_verify, op_nverify;

/* The service's entry points for rpc.h. */
enum rpc_verdict nfs4_call(void *srv, struct rpc_call *call);
void nfs4_done(void *srv, struct rpc_call *call);
void nfs4_closed(void *srv, struct rpc_conn *conn);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nfs_client.h - a small NFSv4.2 client (4.1 where the server has no 4.2)
 *
 * One connection, one session, one slot, one thread. Statuses of the server become negative numbers (-nfsstat4, all
 * below -9999 or errno-like) with one line in a struct why.
 */
#ifndef VHDNFS_TOOLS_NFS_CLIENT_H
#define VHDNFS_TOOLS_NFS_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <rpc/rpc.h>

#include "vhd/base/why.h"
#include "xdr/nfs4.h"

#define NFSC_SLOTS_MAX 256u

struct nfsc;

struct nfs_url {
	char host[256];
	char port[8];
	char path[4096]; /* decoded; begins with '/' */
};

/* nfs://HOST[:PORT][/PATH]; [V6] in brackets, %XX decoded. -EINVAL with a line. */
int nfs_url_parse(const char *text, struct nfs_url *u, struct why *why);

int nfsc_open(struct nfsc **out, const struct nfs_url *u, struct why *why);
/* The same with a session of several slots; calls of ours use slot 0, the others are the caller's. */
int nfsc_open_slots(struct nfsc **out, const struct nfs_url *u, unsigned slots, struct why *why);
/* For who speaks to the server itself: the connected socket, and how many slots the server gave. Not while a call of ours is under way. */
int nfsc_fd(const struct nfsc *n);
unsigned nfsc_slots(const struct nfsc *n);
/* Only the connection: a socket, the caller's; @seconds at most to connect, send and receive, 0: as long as it takes. A negative errno
 * with a line. */
int nfsc_dial(const struct nfs_url *u, unsigned seconds, struct why *why);
/* The server was started anew: a new connection and session of the same client, in the same life. What it had it may take back
 * until it says RECLAIM_COMPLETE. */
int nfsc_again(struct nfsc *n, const struct nfs_url *u, struct why *why);
int nfsc_reclaim_complete(struct nfsc *n);
/* One that must not take long: @seconds at most for the connection and for each reply, DELAY and GRACE are told, not waited for. It
 * uses none of libtirpc's tables, which are keyed by numbers of file descriptors and survive fork() in whatever state they are. */
int nfsc_open_brief(struct nfsc **out, const struct nfs_url *u, unsigned seconds, struct why *why);
/* Nothing is said to the server any more: the connection is broken. NULL is accepted. */
void nfsc_abandon(struct nfsc *n);
/* The beginning of the major id of the server's owner (EXCHANGE_ID). */
const char *nfsc_server_owner(const struct nfsc *n);
/* DELAY and GRACE are told, not waited for. */
void nfsc_set_impatient(struct nfsc *n, bool on);
/* AUTH_SYS of the calls from now on; at most 16 groups besides. */
int nfsc_set_cred(struct nfsc *n, uint32_t uid, uint32_t gid, unsigned ngroups, const uint32_t *groups);
/* AUTH_SYS as the process is now. */
int nfsc_set_own_cred(struct nfsc *n);
/* AUTH_NONE from now on. */
int nfsc_set_no_cred(struct nfsc *n);
const char *nfsc_session(const struct nfsc *n); /* 16 bytes */
/* The sequence number that a slot used last. */
uint32_t nfsc_slot_seq(const struct nfsc *n, unsigned slot);
void nfsc_set_slot_seq(struct nfsc *n, unsigned slot, uint32_t seq);
/* Make a regular file if it is not there; closed again. */
int nfsc_create(struct nfsc *n, const nfs_fh4 *dir, const char *name, struct why *why);
/* OPEN of a file that is there, denying nobody anything (RFC 8881 §18.16, CLAIM_FH). @access: OPEN4_SHARE_ACCESS_*. As nfsc_call(). */
int nfsc_open_fh(struct nfsc *n, const nfs_fh4 *fh, uint32_t access, const char *owner, stateid4 *sid);
int nfsc_close_fh(struct nfsc *n, const nfs_fh4 *fh, const stateid4 *sid);
/* Ends session and client on the server; NULL is accepted. */
void nfsc_close(struct nfsc *n);

/**
 * nfsc_call() - one COMPOUND, SEQUENCE put in front
 * @op:  @n operations (<= 15)
 * @res: results of all operations, SEQUENCE's first; nfsc_free() after use, in every case
 *
 * Return: 0; a negative errno of the transport; -(int)status of the first operation that failed.
 */
int nfsc_call(struct nfsc *n, nfs_argop4 *op, unsigned nops, COMPOUND4res *res);
void nfsc_free(COMPOUND4res *res);

/* Filehandle of a path, through every component, links not followed. */
int nfsc_lookup(struct nfsc *n, const char *path, nfs_fh4 *fh, struct why *why);

/* "NFS4ERR_NOENT: no such file or folder", or the errno's text. */
const char *nfsc_error(int err);

uint32_t nfsc_max_io(const struct nfsc *n); /* bytes of one READ or WRITE */
bool nfsc_has_42(const struct nfsc *n);

/* op.argop = …, with the filehandle copied by reference */
static inline nfs_argop4 nfsc_putfh(const nfs_fh4 *fh)
{
	nfs_argop4 op = {.argop = OP_PUTFH};

	op.nfs_argop4_u.opputfh.object = *fh;
	return op;
}

/* IO_ADVISE; @hints (a word) must live as long as the operation. */
static inline nfs_argop4 nfsc_io_advise(const stateid4 *sid, uint64_t off, uint64_t count, uint32_t *hints)
{
	nfs_argop4 op = {.argop = OP_IO_ADVISE};

	op.nfs_argop4_u.opio_advise = (IO_ADVISE4args){
		.iaa_stateid = *sid, .iaa_offset = off, .iaa_count = count, .iaa_hints = {1, hints}};
	return op;
}

/* Which of them the server follows, from its answer to the operation that was number @i (SEQUENCE is 0). */
static inline uint32_t nfsc_followed(const COMPOUND4res *res, unsigned i)
{
	const bitmap4 *b = &res->resarray.resarray_val[i].nfs_resop4_u.opio_advise.IO_ADVISE4res_u.resok4.ior_hints;

	return b->bitmap4_len ? b->bitmap4_val[0] : 0;
}

/* Attributes that the tools show. */
struct nfs_attrs {
	uint32_t type, mode, nlink;
	uint64_t size, fileid, change, used;
	char owner[64], group[64];
	int64_t atime, mtime, ctime;
	uint32_t atime_ns, mtime_ns, ctime_ns;
	uint32_t dev_major, dev_minor;
};
bitmap4 nfs_attrs_mask(void); /* what nfs_attrs_decode() understands; static memory */
/* false: the server sent something else. */
bool nfs_attrs_decode(const fattr4 *f, struct nfs_attrs *a);

#endif

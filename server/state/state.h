/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * state.h - clients, sessions and slots, opens, locks, stateids
 *
 *     clientid -> sessions -> slots (exactly-once replies)
 *     clientid -> open-owners -> opens (stateid) <- file      lock-owners -> locks (stateid) <- file
 *
 * This layer knows the protocol's state and nothing of COMPOUND, attributes or permissions. Handlers in server/nfs4/
 * decode, check permissions, and call in here. Statuses are nfsstat4: only the protocol knows OLD_STATEID.
 *
 * Locks: see state_int.h. None is held across I/O or a call into vhd/.
 */
#ifndef VHDNFS_SERVER_STATE_STATE_H
#define VHDNFS_SERVER_STATE_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "server/rpc/rpc.h"
#include "vhd/base/why.h"
#include "vhd/volume/fs.h"
#include "xdr/stream.h"
#include "xdr/xdr.h"

struct st; /* all state of one server */
struct st_client;
struct st_session;
struct st_slot;

/* One file as state sees it. */
struct st_fhkey {
	uint32_t export_id, gen;
	uint64_t ino;
};

/* What SEQUENCE binds a COMPOUND to. */
struct st_call {
	struct st_client *client;   /* referenced through the session */
	struct st_session *session; /* referenced */
	struct st_slot *slot;       /* ours until st_slot_finish() */
	bool cache_this;
	uint32_t max_reply, max_cached; /* bytes of the whole RPC reply */
	uint32_t max_ops;
};

struct st_opts {
	uint32_t lease_seconds;                  /* 0: 90 */
	uint32_t max_request, max_response;      /* bytes, what CREATE_SESSION grants at most; 0: 1 MiB + 64 KiB */
	uint32_t max_slots;                      /* per session; 0: 64 */
	const char *server_owner, *server_scope; /* copied */
};

int st_new(struct st **out, const struct st_opts *o, struct why *why);
void st_free(struct st *s);
/* Lease expiry, courtesy, old replay slots: call about once a second from a thread that may block. */
void st_tick(struct st *s);

/**
 * st_slot_finish() - the COMPOUND that SEQUENCE began is over
 * @status: its overall status, NFS4_OK or the first error
 *
 * Keeps the reply for a retry when the client asked for it (copying @out, at most max_cached bytes), else remembers that
 * there is none (NFS4ERR_RETRY_UNCACHED_REP), frees the slot, renews the lease, drops the references of @c.
 */
void st_slot_finish(struct st *s, struct st_call *c, const struct xa_out *out, size_t header_len, nfsstat4 status);

/* A connection is gone: forget it in every session. */
void st_conn_closed(struct st *s, struct rpc_conn *conn);

/* ---- I/O under a stateid ---------------------------------------------------------------------------------------------- */

/**
 * st_io_begin() - may this stateid be used to read or write this file now?
 * @client: of the session
 * @sid:    already resolved (never the "current stateid"); special ones (all zeros, all ones) are allowed
 * @access: OPEN4_SHARE_ACCESS_READ or _WRITE; 0: only that the stateid is good for this file (IO_ADVISE, SEEK)
 *
 * Open and lock stateids are checked for owner, file, seqid and access mode, special ones against share reservations. A
 * read under a WRITE-only open is allowed (RFC 8881 18.22.3 permits it) unless the reservation of another forbids it.
 *
 * Return: NFS4_OK; BAD_STATEID, OLD_STATEID, EXPIRED, ADMIN_REVOKED, OPENMODE, LOCKED (special stateid against DENY), GRACE.
 * Never blocks; hot path: no lock shared by all clients.
 */
nfsstat4 st_io_check(struct st *s, struct st_client *client, const struct st_fhkey *key, const stateid4 *sid,
		     uint32_t access);

/* SETATTR of size, and others, ask the same with access WRITE. */

/* Is the file open by anyone (counted opens)? For REMOVE/RENAME replies and space accounting. */
bool st_file_is_open(struct st *s, const struct st_fhkey *key);

#endif

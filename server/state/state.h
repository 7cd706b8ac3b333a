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
 * A lease that ran out takes nothing away by itself: the client's state is kept as a courtesy until somebody else needs
 * what it holds, or for a day. The client that comes back in between notices nothing (RFC 8881 §8.4.3 permits it); the one
 * whose state was given away is told by SEQUENCE, finds its stateids EXPIRED, and frees them one by one. So it is when an export is
 * taken away: what clients hold there is revoked, alive or not, and their stateids are ADMIN_REVOKED.
 *
 * Everything is bounded: clients, sessions, slots, bytes of cached replies, opens and locked ranges of a client. What all need is
 * shared out by address (server/rpc/peers.h): a newcomer always gets a session, with one slot that can keep a reply, and takes the
 * place of the idlest client of the address that has most, if there is no other. Sessions are asked for slots back when there are few
 * left (sr_target_highest_slotid).
 *
 * NFSv4.1 has no NFS4ERR_RESOURCE (RFC 8881 §15.1.16.3). What will pass by itself is NFS4ERR_DELAY: no memory, no room for replies.
 * What passes only when the client gives something back is not, since it would ask for ever; of the errors that the operation may
 * have (§15.2) it is the one that says so: DQUOT ("resource limit") for opens, LOCK_RANGE for an unlock that would split a range,
 * NOSPC for sessions, and SERVERFAULT for locks, which have no other.
 *
 * Locks: see state_int.h. None is held across a call into vhd/. No function blocks, except that releasing the last reference
 * of a file (st_pin.put) does what its owner made it do, and those that say so: they change who is on record (record.h).
 */
#ifndef VHDNFS_SERVER_STATE_STATE_H
#define VHDNFS_SERVER_STATE_STATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/rpc/rpc.h"
#include "vhd/base/siphash.h"
#include "vhd/base/why.h"
#include "vhd/volume/fs.h"
#include "xdr/stream.h"
#include "xdr/xdr.h"

#define ST_WAIT ((nfsstat4)0x7ffffffe) /* not a status: would block */

struct st; /* all state of one server */
struct st_client;
struct st_session;
struct st_slot;

/* One file as state sees it. */
struct st_fhkey {
	uint32_t export_id, gen;
	uint64_t ino;
};

/* What keeps an open file readable after it was unlinked: a reference that the first open of a file brings along and
 * that is given back, without a lock held, after the last one closed. */
struct st_pin {
	struct fs_node *node;
	void *exp; /* of the layer above */
	const atomic_bool *
		gone; /* set: nothing is opened there any more; valid while the caller of st_open() is; NULL: not set */
	void (*put)(struct st_pin *pin);
};

/* Who calls, as far as it is compared. With AUTH_SYS that is what the caller says of itself. */
struct st_principal {
	uint32_t flavor, uid;
};

static inline bool st_same_principal(const struct st_principal *a, const struct st_principal *b)
{
	return a->flavor == b->flavor && a->uid == b->uid;
}

/* Bytes that name an open-owner, a lock-owner or a client. */
struct st_name {
	const void *bytes;
	uint32_t len; /* <= ST_NAME_MAX */
};
#define ST_NAME_MAX 1024

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
	uint32_t lease_seconds;    /* 0: 90 */
	uint32_t grace_seconds;    /* after a restart, and a lease more while clients reclaim; 0: as long as a lease */
	uint32_t courtesy_seconds; /* how long state outlives its lease when nobody wants it; 0: a day */
	uint32_t max_request, max_response; /* bytes, what CREATE_SESSION grants at most; 0: 1 MiB + 64 KiB */
	uint32_t max_slots;                 /* per session; 0: 64 */
	uint32_t max_clients;               /* 0: 8192 */
	uint32_t max_opens, max_ranges;     /* of one client; 0: 65536 and 16384 */
	uint32_t max_states;                /* opens, lock states and ranges of all clients; 0: 1048576 */
	size_t replay_bytes;                /* all cached replies together, but for one of each client; 0: 16 MiB */
	const char *records;                /* file of client records (record.h); NULL: none, and no grace period */
	const char *server_owner, *server_scope; /* copied; NULL: "vhdnfs:HOSTNAME" */
};

int st_new(struct st **out, const struct st_opts *o, struct why *why);
/* No call may be running. Gives every pin back. NULL is accepted. */
void st_free(struct st *s);
/* Lease expiry, courtesy: call about once a second from a thread that may block. */
void st_tick(struct st *s);
uint32_t st_lease_seconds(const struct st *s);
const char *st_server_owner(const struct st *s);
const char *st_server_scope(const struct st *s);

/* For tests: leases are as if @seconds more had passed since the server started. */
void st_skip_time(struct st *s, uint32_t seconds);

/* ---- clients and sessions --------------------------------------------------------------------------------------------- */

struct st_exchange {
	struct st_name owner;
	uint8_t verifier[8];
	bool update; /* EXCHGID4_FLAG_UPD_CONFIRMED_REC_A */
	struct st_principal who;
	const struct sockaddr *peer; /* where it comes from; NULL: not known */

	uint64_t clientid; /* out, from here */
	uint32_t sequenceid;
	bool confirmed; /* EXCHGID4_FLAG_CONFIRMED_R */
};

/* RFC 8881 §18.35.4, all nine cases. NOENT, NOT_SAME, PERM, CLID_INUSE, DELAY (its address has too many clients, or all are as
 * few). May block. */
nfsstat4 st_exchange_id(struct st *s, struct st_exchange *x);

struct st_channel {
	uint32_t max_request, max_response, max_cached; /* bytes, RPC headers included */
	uint32_t max_ops, max_slots;
};

/* How the client wants callbacks authenticated: the first kind it named that we can send. */
struct st_cb_sec {
	uint32_t flavor; /* AUTH_NONE, AUTH_SYS */
	uint32_t uid, gid;
};

struct st_create {
	uint64_t clientid;
	uint32_t sequence; /* csa_sequence */
	uint32_t flags;    /* CREATE_SESSION4_FLAG_*; out: those granted */
	struct st_channel fore, back;
	uint32_t cb_program;
	struct st_cb_sec cb_sec;
	struct st_principal who;
	struct rpc_conn *conn;

	uint8_t sessionid[16]; /* out; fore and back hold what was granted */
};

/**
 * st_create_session() - RFC 8881 §18.36
 *
 * The client's own sequence makes it exactly-once: a retry gets the first answer again. Wrong arguments (INVAL,
 * TOOSMALL) are refused before the sequence is looked at, so that the next try may use the same number. So is another
 * principal than that of EXCHANGE_ID (CLID_INUSE), also when the client is confirmed: else whoever knows a client id would be
 * given its session by asking again.
 *
 * Return: NFS4_OK; INVAL, TOOSMALL, STALE_CLIENTID, SEQ_MISORDERED, CLID_INUSE; NOSPC (it has as many sessions as it may have),
 *         DELAY (no room for more than the first one): not cached. May block.
 */
nfsstat4 st_create_session(struct st *s, struct st_create *x);

/* @conn: the connection's number (rpc_conn_id()); 0: not known. BADSESSION; CONN_NOT_BOUND_TO_SESSION: the session was not made, used,
 * or bound over that connection. Calls that run in it finish undisturbed. */
nfsstat4 st_destroy_session(struct st *s, const uint8_t id[16], uint64_t conn);
/* @who: NULL when the call comes in a session. STALE_CLIENTID, WRONG_CRED (@who did not make it), CLIENTID_BUSY (sessions, opens or
 * locks). */
nfsstat4 st_destroy_clientid(struct st *s, uint64_t clientid, const struct st_principal *who);
/* COMPLETE_ALREADY; for one file system only it has no effect. Blocks: the client is on record afterwards. */
nfsstat4 st_reclaim_complete(struct st *s, struct st_client *cl, bool one_fs);
/* May the client open or lock anew? NFS4ERR_GRACE before its RECLAIM_COMPLETE (RFC 8881 §18.51.3) and in the grace period. */
nfsstat4 st_may_claim(const struct st *s, const struct st_client *cl);
/* May it take back what it had before the restart? NFS4ERR_NO_GRACE. */
nfsstat4 st_may_reclaim(struct st *s, const struct st_client *cl);
bool st_in_grace(const struct st *s);
/* Can clients take back anything after a restart? */
bool st_keeps_records(const struct st *s);
/**
 * st_change_base() - what to add to change attributes (RFC 8881 §5.8.1.4)
 *
 * A server that ends without a word takes unstable writes with it, and the change attributes that clients have seen of them. Counted on
 * from what the disk has, the next ones would come again for other data, and clients would take what they have cached for true. This is
 * larger after each such end, by 2^32 for each second since the last.
 */
uint64_t st_change_base(const struct st *s);
/**
 * st_forget_silent() - a clean stop: clients whose lease is over lose what would stay behind
 * @lasts: is what the pin holds there after the stop, also when nobody comes back for it?
 *
 * Who has something open for which that is not so, a file without a name, is forgotten and off the record, as when others need the
 * room: nobody knows whether it ever comes back. May block. No call may be running.
 */
void st_forget_silent(struct st *s, bool (*lasts)(const struct st_pin *pin));

/* What makes filehandles ours. It stays with the client records. */
struct st_fh_key {
	uint8_t key[SIPHASH_KEY_BYTES];
	bool old; /* the records are of a version that knew no key, which was made at this start */
};
/* False: there are no records, and so no key that would be the same after a restart. */
bool st_fh_key(const struct st *s, struct st_fh_key *out);
/* The server answers no more, and all that it answered for is on stable storage. */
void st_stopped(struct st *s);
/* @dir: channel_dir_from_client4 in, channel_dir_from_server4 out. BADSESSION, INVAL. */
nfsstat4 st_bind_conn(struct st *s, const uint8_t id[16], struct rpc_conn *conn, uint32_t *dir);
void st_backchannel_ctl(struct st *s, struct st_session *se, uint32_t program, const struct st_cb_sec *sec);

uint64_t st_client_id(const struct st_client *cl);
const uint8_t *st_session_id(const struct st_session *se); /* 16 bytes */

/* A connection is gone: forget it in every session. */
void st_conn_closed(struct st *s, struct rpc_conn *conn);

/* ---- SEQUENCE and the replay cache -------------------------------------------------------------------------------------- */

struct st_seq {
	const uint8_t *sessionid; /* 16 bytes */
	uint32_t seqid, slotid, highest_slotid;
	bool cache_this;
	uint32_t nops;        /* of the COMPOUND, SEQUENCE included */
	size_t request_len;   /* of the whole RPC record */
	size_t reply_min;     /* the RPC reply up to and with SEQUENCE's result */
	uint64_t conn;        /* the connection's number (rpc_conn_id()), which belongs to the session from now on */
	uint64_t fingerprint; /* of the request; compared when a retry asks for a cached reply */

	uint32_t highest, target; /* out: slot ids */
	uint32_t status_flags;    /* out: SEQ4_STATUS_* */
	const void *reply;        /* out with ST_REPLAY: what followed the RPC header */
	size_t reply_len;
};

#define ST_REPLAY ((nfsstat4)0x7ffffffd) /* not a status: answer with the cached reply */

/**
 * st_slot_begin() - SEQUENCE: take a slot
 *
 * A slot moves so; whoever moved it to BUSY is alone with it:
 *
 *     FREE  --st_slot_begin(seqid + 1)--> BUSY --st_slot_finish()--> FREE, its reply cached or known as not cached
 *     FREE  --st_slot_begin(seqid)------> BUSY (ST_REPLAY) --st_slot_replayed()--> FREE
 *
 * A COMPOUND of SEQUENCE alone is simply run again when it is retried: it changes nothing.
 *
 * Return: NFS4_OK: @call is filled and st_slot_finish() must follow; ST_REPLAY: reply and reply_len are valid until
 *         st_slot_replayed(), which must follow; BADSESSION, BADSLOT, BAD_HIGH_SLOT, SEQ_MISORDERED, DELAY (the same
 *         request is running), RETRY_UNCACHED_REP, SEQ_FALSE_RETRY, TOO_MANY_OPS, REQ_TOO_BIG, REP_TOO_BIG,
 *         REP_TOO_BIG_TO_CACHE: nothing changed, @call is untouched.
 * Source: RFC 8881 §2.10.6, §18.46.
 */
nfsstat4 st_slot_begin(struct st *s, struct st_seq *q, struct st_call *call);
void st_slot_replayed(struct st *s, struct st_call *call);

/**
 * st_slot_finish() - the COMPOUND that SEQUENCE began is over
 * @header_len: bytes of @out in front of the COMPOUND's result, not kept
 * @status: its overall status, NFS4_OK or the first error
 *
 * Keeps the reply for a retry when the client asked for it (copying @out, at most max_cached bytes), else remembers that
 * there is none (NFS4ERR_RETRY_UNCACHED_REP), frees the slot, renews the lease, drops the references of @c.
 */
void st_slot_finish(struct st *s, struct st_call *c, const struct xa_out *out, size_t header_len, nfsstat4 status);

/* ---- opens -------------------------------------------------------------------------------------------------------------- */

/* How to take an open back when what follows it failed (truncation). */
struct st_undo {
	stateid4 sid;
	uint8_t access, deny;
	uint16_t history;
	bool fresh;
};

/**
 * st_open() - a share reservation and its stateid
 * @access, @deny: OPEN4_SHARE_ACCESS_* 1 … 3, OPEN4_SHARE_DENY_* 0 … 3; checked
 * @who:           whose open it is (st_io_check()); NULL: nobody's in particular
 * @may_wait:      for the disk; it is rare
 * @pin:           taken over in every case; given back when the file is open already or when this fails
 * @undo:          for st_open_undo(); may be NULL
 *
 * An open of the same owner is upgraded: its stateid with the next seqid.
 *
 * Return: NFS4_OK; INVAL, SHARE_DENIED, STALE (@pin's gone), DQUOT (as many as it may have), DELAY (no memory, or all clients
 *         together have as many as they may; who is in the way cannot be taken off the record);
 *         ST_WAIT: it has to be taken off the record, which may not be waited for.
 */
nfsstat4 st_open(struct st *s, struct st_client *cl, const struct st_fhkey *key, const struct st_name *owner,
		 const struct st_principal *who, uint32_t access, uint32_t deny, bool may_wait, struct st_pin *pin,
		 stateid4 *out, struct st_undo *undo);
void st_open_undo(struct st *s, struct st_client *cl, const struct st_undo *undo);
/* Before a file is made to be opened: may the client have one more open? DQUOT. Others of its calls may be faster. */
nfsstat4 st_may_open_more(struct st *s, struct st_client *cl);
/* INVAL: not what some of the owner's opens asked for together (RFC 8881 §18.18.3); BAD_STATEID, OLD_STATEID. */
nfsstat4 st_open_downgrade(struct st *s, struct st_client *cl, const struct st_fhkey *key, const stateid4 *sid,
			   uint32_t access, uint32_t deny, stateid4 *out);
/* Byte-range locks that were taken under the open are released. BAD_STATEID, OLD_STATEID. */
nfsstat4 st_close(struct st *s, struct st_client *cl, const struct st_fhkey *key, const stateid4 *sid);

/* ---- byte-range locks --------------------------------------------------------------------------------------------------- */

/* Who is in the way: LOCK4denied. */
struct st_denied {
	uint64_t offset, length; /* length all ones: to the end */
	bool write;
	uint64_t clientid; /* the caller's own; of another client the same number each time, which is not its id */
	uint32_t owner_len;
	uint8_t owner[ST_NAME_MAX];
};

struct st_lock {
	bool write;
	uint64_t offset, length; /* length all ones: to the end of file, wherever it is */
	bool new_owner;          /* @sid is an open's and @owner counts; else @sid is the lock's */
	stateid4 sid;
	struct st_name owner;
	bool may_wait; /* as for st_open() */
};

/* INVAL (range), BAD_STATEID, OLD_STATEID, OPENMODE, DENIED (*d filled), SERVERFAULT (as many as it may have), DELAY, ST_WAIT (as
 * st_open()). All or nothing. */
nfsstat4 st_lock(struct st *s, struct st_client *cl, const struct st_fhkey *key, const struct st_lock *l, stateid4 *out,
		 struct st_denied *d);
/* @l->owner and the range count. GRACE. A lock whose client's lease is over does not count: it would give way. */
nfsstat4 st_lockt(struct st *s, struct st_client *cl, const struct st_fhkey *key, const struct st_lock *l,
		  struct st_denied *d);
/* @l->sid and the range count; a range that is not locked, or partly, is no error. LOCK_RANGE: it would split a range in two,
 * and the client has as many as it may have. */
nfsstat4 st_unlock(struct st *s, struct st_client *cl, const struct st_fhkey *key, const struct st_lock *l,
		   stateid4 *out);

/* ---- stateids ----------------------------------------------------------------------------------------------------------- */

/* RFC 8881 §8.2.3: all zeros, all ones; "current" (0, 1) and "invalid" (0, all ones) are resolved or refused by callers. */
bool st_is_special(const stateid4 *sid);
extern const stateid4 st_invalid_stateid;

nfsstat4 st_test_stateid(struct st *s, struct st_client *cl, const stateid4 *sid);
nfsstat4 st_free_stateid(struct st *s, struct st_client *cl, const stateid4 *sid);

#define ST_AS_OPENED 0x100u /* with READ: no reading under a WRITE-only open */

/* Who uses a stateid, and what its open has to say about that. */
struct st_io {
	struct st_principal who;
	bool own;        /* out: @who has opened the file so; what it may do was checked then */
	uint32_t advice; /* out: what the open has said (st_advise()); 0 for nothing */
};

/**
 * st_io_check() - may this stateid be used to read or write this file now?
 * @client: of the session
 * @sid:    already resolved (never the "current stateid"); special ones (all zeros, all ones) are allowed
 * @access: OPEN4_SHARE_ACCESS_READ or _WRITE; 0: only that the stateid is good for this file (IO_ADVISE); or ST_AS_OPENED
 *
 * @io:     may be NULL
 *
 * Open and lock stateids are checked for client, file, seqid and access mode, special ones against share reservations, for which
 * @io says that they are nobody's open. Any user of a client may use a stateid of that client (RFC 8881 §9.1.2: we do not grant
 * EXCHGID4_FLAG_BIND_PRINC_STATEID); whose open it is not has to be asked for permission by the caller of this. A
 * read under a WRITE-only open is allowed (RFC 8881 §18.22.3 permits it) unless the reservation of another forbids it; whether
 * the user may read the file was not asked when it was opened.
 *
 * Return: NFS4_OK; BAD_STATEID, OLD_STATEID, EXPIRED (others needed it), ADMIN_REVOKED (the export was taken away), OPENMODE,
 *         LOCKED (special stateid against DENY).
 * Never blocks; hot path: no lock shared by all clients.
 */
nfsstat4 st_io_check(struct st *s, struct st_client *client, const struct st_fhkey *key, const stateid4 *sid,
		     uint32_t access, struct st_io *io);
/* Has @who of this client the file open for @access? For COMMIT, which has no stateid. */
bool st_has_open(struct st *s, const struct st_client *cl, const struct st_fhkey *key, const struct st_principal *who,
		 uint32_t access);

/* SETATTR of size, and others, ask the same with access WRITE. */

/**
 * st_give_way() - after LOCKED: is what denies @access only of clients whose lease is over?
 * @may_wait: for the disk, as for st_open()
 *
 * Then they lose what they hold, as when somebody opens the file.
 *
 * Return: NFS4_OK: ask again; LOCKED; DELAY, ST_WAIT (as st_open()).
 */
nfsstat4 st_give_way(struct st *s, const struct st_fhkey *key, uint32_t access, bool may_wait);

/**
 * st_advise() - what an opener says about how it will use the file
 * @sid:   an open's or a lock's, not a special one
 * @merge: called once, under a lock, with what this open said before; returns what it says now
 *
 * What the opener who spoke last said holds for the file, until it closes it; then what the one before it said. That is kept in the
 * file's node (fs_stream.mode), where a close, an expiry or a revocation puts what holds from then on.
 *
 * Return: NFS4_OK; BAD_STATEID, OLD_STATEID, EXPIRED, ADMIN_REVOKED.
 */
nfsstat4 st_advise(struct st *s, struct st_client *cl, const struct st_fhkey *key, const stateid4 *sid,
		   uint32_t (*merge)(uint32_t before, void *arg), void *arg);

/**
 * st_advise_unopened() - what a client says, with a special stateid, about a file that need not be open
 *
 * It holds for what the same client reads with a special stateid, for no open of anybody, and ends with the session that sent it. Of
 * 64 files at most; who speaks of more is understood to have forgotten the first.
 *
 * Return: false: there was no memory to remember it.
 */
bool st_advise_unopened(const struct st_call *call, const struct st_fhkey *key,
			uint32_t (*merge)(uint32_t before, void *arg), void *arg);
/* What it said so; 0: nothing. */
uint32_t st_said(struct st_client *cl, const struct st_fhkey *key);

struct st_open_info {
	uint64_t clientid;
	uint32_t access, deny, advice;
};
/* Each open of a file; @fn is called under a lock. */
void st_each_open(struct st *s, const struct st_fhkey *key, void (*fn)(void *arg, const struct st_open_info *i),
		  void *arg);

struct st_file_info {
	struct st_fhkey key;
	const struct st_pin *pin;
	unsigned opens;
};
/* Each open file; @fn is called under a lock, must not block, and takes references of its own of what it wants to keep. */
void st_each_file(struct st *s, void (*fn)(void *arg, const struct st_file_info *i), void *arg);

/**
 * st_export_revoke() - an export was taken away: whatever clients have open and locked there is revoked
 * @export_id: st_fhkey.export_id; st_pin.gone of its opens is set already, so that no new one follows
 *
 * Their stateids answer ADMIN_REVOKED, and SEQUENCE says SEQ4_STATUS_ADMIN_STATE_REVOKED, until they are freed (RFC 8881 §8.5,
 * §18.46.3). Gives the pins back, and may block in that.
 *
 * Return: how many opens and lock states that were.
 */
unsigned st_export_revoke(struct st *s, uint32_t export_id);

/* Is the file open by anyone (counted opens)? For REMOVE/RENAME replies and space accounting. */
bool st_file_is_open(struct st *s, const struct st_fhkey *key);

/* ---- figures ------------------------------------------------------------------------------------------------------------ */

struct st_stats {
	uint64_t clients, unconfirmed, courtesy; /* now */
	uint64_t sessions, slots, replay_reserved, replay_bytes;
	uint64_t opens, lock_states, ranges, files, owners;
	uint64_t replays, misordered, false_retries; /* since the start */
	uint64_t expired;                            /* clients that lost the state they held */
	uint64_t share_denied, lock_denied;
};
void st_get_stats(struct st *s, struct st_stats *out);

#endif

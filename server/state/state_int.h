/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * state_int.h - shapes that only server/state/ sees
 *
 *     st ── clients by id, by owner            (st.mu)
 *      │       client ── sessions              (st.mu)
 *      │              ── owners, states        (client.mu)
 *      ├─ sessions by id, sharded              (shard.mu)      ── slots: owned by who made them BUSY
 *      ├─ files by key, sharded                (shard.mu)      ── opens, ranges, share counts
 *      └─ stateids by id, sharded              (shard.mu)      ── seqid
 *
 * Locks, outermost first: st.mu -> client.mu -> file shard -> stateid shard. The session shards and session.mu are leaves
 * below st.mu, random_mu below all. None is held across I/O; pins (references of open files) are given back when all are dropped.
 *
 * - A client is referenced by the table, by each of its sessions, and by whoever looks at it without st.mu. It is taken
 *   out of the tables and emptied under st.mu and client.mu together and then marked dead: whoever still has a reference
 *   (a call that runs) finds `dead` under client.mu and answers DELAY; the retry will meet BADSESSION.
 * - Opens and lock states are made, changed and freed under client.mu. They stay valid for whoever holds it; for others
 *   they do under the file shard (through the file's lists) or the stateid shard (through the hash).
 * - I/O checks take one stateid shard and nothing else: seqid and revoked are guarded by it, access is atomic, the rest
 *   immutable. A revoked state has no file and no owner any more.
 * - record_mu is taken before st.mu, and is the one lock under which the disk is waited for: never on an event loop.
 */
#ifndef VHDNFS_SERVER_STATE_INT_H
#define VHDNFS_SERVER_STATE_INT_H

#include <stdatomic.h>
#include <stddef.h>

#include "server/rpc/peers.h"
#include "server/state/state.h"
#include "vhd/base/list.h"
#include "vhd/base/lock.h"

enum {
	CACHE_LINE = 64,
	CLIENT_BUCKETS = 256,
	SESSION_SHARDS = 16,
	SESSION_BUCKETS = 64, /* of each shard */
	FILE_SHARDS = 64,
	FILE_BUCKETS = 64,
	SID_SHARDS = 64,
	SID_BUCKETS = 128,
	OWNER_BUCKETS = 16, /* of each client */
	STATE_BUCKETS = 64,
	SESSIONS_PER_CLIENT = 32,
	SESSIONS_ASSURED = 4, /* of each client, that are there when the budget is used up, with a slot each */
	CONNS_KNOWN = 32,     /* connections of a session that are remembered; Linux uses 16 at most */
	BACKCHANNELS = 4,     /* connections that a session keeps for callbacks */
	RANDOM_BATCH = 32,    /* numbers: 256 bytes, which getrandom() gives whole */
};

/* ---- clients ----------------------------------------------------------------------------------------------------------- */

struct st_client {
	struct list id_link, owner_link; /* st.mu */
	uint64_t id;                     /* immutable, as the next four */
	uint64_t alias;                  /* what other clients are told in its place: LOCK4denied */
	uint8_t verifier[8];
	struct st_principal who;
	bool confirmed;     /* st.mu */
	bool on_record;     /* it may reclaim; set when it is confirmed */
	atomic_bool struck; /* off the record, though it lives: revoke.c */

	/* The slot of CREATE_SESSION. st.mu */
	uint32_t cs_sequence; /* of the last one that was answered */
	nfsstat4 cs_status;
	struct st_create cs_result;

	struct peer *
		from; /* whose it is, a reference; until it is dead. from->memory: how many states and ranges they have */
	struct list from_link; /* st.mu: of from->members */
	struct list sessions;  /* st.mu */
	uint32_t nsessions;

	atomic_uint refs;
	_Atomic uint64_t renewed_ms;
	_Atomic size_t cached; /* bytes of replies that are kept for it */
	atomic_bool reclaim_complete;
	atomic_bool wants_cb;   /* it once had a backchannel */
	atomic_uint nbackchans; /* connections bound for callbacks, over all sessions */
	_Atomic uint32_t
		lost; /* SEQ4_STATUS_EXPIRED_*, _ADMIN_STATE_REVOKED: what it is to be told. Written under mu */

	struct lock mu;
	bool dead;                         /* mu, as everything below */
	struct list owners[OWNER_BUCKETS]; /* struct st_owner.link */
	struct list states[STATE_BUCKETS]; /* struct st_state.client_link */
	struct list revoked;               /* the same, of those that were taken from it: revoke.c */
	uint32_t nexpired, nadmin;         /* of revoked: by what they answer */
	uint32_t nopens, nlocks, nranges, nowners;
	struct st_said *said; /* about files that it has not opened; so many; written under mu, as the next */
	atomic_uint nsaid;
	atomic_bool spoke; /* there may be advice of it, of any kind */

	uint32_t owner_len; /* immutable */
	uint8_t owner[];
};

/* An open-owner or lock-owner. Lives as long as it has a state. Under client.mu. */
struct st_owner {
	struct list link;
	uint32_t states;
	uint32_t len;
	bool of_locks;
	uint8_t bytes[];
};

/* ---- sessions ---------------------------------------------------------------------------------------------------------- */

enum slot_reply { REPLY_NONE, REPLY_UNCACHED, REPLY_SOLO, REPLY_CACHED };

enum { SLOT_FREE, SLOT_HELD, SLOT_RUNNING };

/* One thread at a time: who took busy from SLOT_FREE. A cache line, so that slots do not disturb one another. */
struct st_slot {
	_Alignas(CACHE_LINE) atomic_uint busy;
	atomic_uint seqid; /* written while busy, may be read any time */
	uint32_t nops;     /* of the request that is running */
	uint32_t cap, len; /* bytes of reply: allocated, used */
	uint32_t told;     /* the target that its last reply said, if that was less than what is granted */
	enum slot_reply kind;
	uint64_t fingerprint, conn; /* conn: that of the last request */
	uint8_t *reply;
};

struct st_session {
	struct list hash_link;   /* shard.mu */
	struct list client_link; /* st.mu */
	struct list all_link;    /* st.mu */
	uint8_t id[16];
	struct st_client *client; /* a reference */
	struct st_channel fore, back;
	atomic_uint granted,
		target;     /* slots that may be used, and that should be (session_shrink()); <= fore.max_slots */
	atomic_uint obeyed; /* the target that the client has shown to keep to */
	size_t per_slot, reserved; /* st.mu: bytes of the replay budget */
	atomic_uint refs;

	struct lock mu;
	uint32_t cb_program; /* mu */
	struct st_cb_sec cb_sec;
	struct rpc_conn *cb_conn[BACKCHANNELS]; /* valid until st_conn_closed(); not references */
	uint32_t ncb;
	uint64_t conns[CONNS_KNOWN]; /* by number; also of some that are closed. The next one replaces the oldest */
	uint32_t nconns;
	bool dead; /* its backchannels do not count any more */

	struct st_slot slots[];
};

/* ---- opens, locks, files ------------------------------------------------------------------------------------------------ */

enum state_kind { STATE_OPEN = 1, STATE_LOCK = 2 };

struct st_file {
	struct list link; /* shard.mu, as everything below but the key */
	struct st_fhkey key;
	struct list opens;           /* struct st_state.file_link */
	struct list ranges;          /* struct st_range.link, by start */
	uint32_t users;              /* states; the last one frees it */
	uint32_t access[2], deny[2]; /* opens that have READ, WRITE in them */
	uint64_t advised;            /* that of the open whose advice holds */
	struct st_pin pin;
};

/* What a stateid names. */
struct st_state {
	struct st_state *hash_next; /* stateid shard */
	uint64_t id;
	uint32_t seqid;       /* stateid shard */
	nfsstat4 revoked;     /* stateid shard: what it answers; NFS4_OK: it was not revoked */
	enum state_kind kind; /* immutable, as the next three */
	struct st_client *client;
	struct st_file *file;
	struct st_owner *owner;
	struct list client_link; /* client.mu */
	struct list file_link;   /* file shard; opens only */
};

struct st_open {
	struct st_state s;
	_Atomic uint8_t access, deny; /* written under client.mu and the file shard */
	uint16_t history;             /* client.mu: bit for each (access, deny) that was asked for; see share_bit() */
	struct list locks;            /* client.mu: struct st_locks.open_link; revoked ones when it is revoked */
	struct st_principal who;      /* whose it is; written once, before it can be found */
	atomic_bool common;           /* several principals have opened it, or none: it is nobody's own */
	atomic_uint advice;           /* changed under shard.mu, as the next: what it said, and when (0: nothing) */
	uint64_t advised;
};

struct st_locks {
	struct st_state s;
	struct st_open *open;  /* immutable; outlives this */
	struct list open_link; /* client.mu */
	uint32_t nranges;      /* client.mu */
};

/* Bytes first … last, both included. Ranges of one owner never overlap; equal neighbours are merged. */
struct st_range {
	struct list link; /* file shard */
	struct st_locks *locks;
	uint64_t first, last;
	bool write;
};

/* ---- the whole ---------------------------------------------------------------------------------------------------------- */

struct session_shard {
	_Alignas(CACHE_LINE) struct lock mu;
	struct list bucket[SESSION_BUCKETS];
};

struct file_shard {
	_Alignas(CACHE_LINE) struct lock mu;
	struct list bucket[FILE_BUCKETS];
};

struct sid_shard {
	_Alignas(CACHE_LINE) struct lock mu;
	struct st_state *bucket[SID_BUCKETS];
};

struct st {
	struct st_opts opts;
	char *owner, *scope;
	uint32_t boot; /* differs from one start to the next */
	uint64_t lease_ms, courtesy_ms, grace_ms;
	_Atomic uint64_t skipped_ms;

	/* grace.c */
	struct lock record_mu;
	struct st_records *records; /* NULL: nothing is kept */
	atomic_bool grace;
	uint64_t grace_until_ms;
	_Atomic uint64_t reclaimed_ms;     /* when somebody last took something back, or came to */
	struct list absent GUARDED_BY(mu); /* struct absent */
	unsigned nabsent GUARDED_BY(mu);
	struct list leaving GUARDED_BY(mu); /* struct absent: to be taken off the record */

	struct lock mu;
	struct list by_id[CLIENT_BUCKETS], by_owner[CLIENT_BUCKETS];
	struct peers peers;
	uint32_t nclients;
	struct list sessions; /* all of them */
	uint32_t nsessions;
	uint64_t nslots;
	size_t reserved;  /* of opts.replay_bytes */
	uint32_t nshrunk; /* sessions that were asked for slots back */

	struct lock random_mu;
	uint64_t random[RANDOM_BATCH] GUARDED_BY(random_mu); /* not given out yet: the first nrandom */
	unsigned nrandom GUARDED_BY(random_mu);

	_Atomic uint64_t next_advice;
	atomic_uint nbound; /* connections bound for callbacks; none: st_conn_closed() has nothing to do */
	_Atomic uint64_t replay_bytes, opens, lock_states, ranges, files, owners;
	_Atomic uint64_t replays, misordered, false_retries, expired, share_denied, lock_denied;

	struct session_shard session_shard[SESSION_SHARDS];
	struct file_shard file_shard[FILE_SHARDS];
	struct sid_shard sid_shard[SID_SHARDS];
};

static inline void stat_add(_Atomic uint64_t *c, uint64_t n)
{
	atomic_fetch_add_explicit(c, n, memory_order_relaxed);
}

static inline void stat_sub(_Atomic uint64_t *c, uint64_t n)
{
	atomic_fetch_sub_explicit(c, n, memory_order_relaxed);
}

/* st.c */
/* For ids: whoever knows some of them cannot tell another one. Never 0. A leaf lock. */
uint64_t st_random(struct st *s);
uint64_t st_now_ms(const struct st *s);
uint32_t st_hash(const void *p, size_t n);

/* client.c */
struct st_client *st_client_get(struct st_client *cl);
void st_client_put(struct st_client *cl);
bool st_client_expired(const struct st *s, const struct st_client *cl);
static inline void st_client_renew(const struct st *s, struct st_client *cl)
{
	atomic_store_explicit(&cl->renewed_ms, st_now_ms(s), memory_order_relaxed);
}
struct st_client *st_client_find(struct st *s, uint64_t id) REQUIRES(s->mu);
/* Has it not been removed? Under record_mu its record is its own then, and stays so: a next life comes on record after it. */
bool st_client_here(struct st *s, const struct st_client *cl);
/* Makes the record of a new incarnation the confirmed one; what it replaces goes. Gone states' files onto @files. */
void st_client_confirm(struct st *s, struct st_client *cl, struct list *files) REQUIRES(s->mu);
/* Has it opens or locks? @or_lost: or lost some, and does not know yet. */
bool st_client_holds(struct st_client *cl, bool or_lost);
void st_client_remove(struct st *s, struct st_client *cl, struct list *files) REQUIRES(s->mu);
void st_clients_tick(struct st *s);

/* revoke.c: these wait for the disk, when the client is on record */
/* Forget @cl when its lease is (still) over or it is not confirmed, or, @alive, in every case. @cl's reference is taken over. DELAY:
 * the record could not be changed, and neither was anything else. */
nfsstat4 st_client_forget(struct st *s, struct st_client *cl, bool alive);
/* Somebody needs what @cl holds, and its lease is (still) over: it loses all of it, and will be told. The rest is as above. */
nfsstat4 st_client_revoke(struct st *s, struct st_client *cl);
/* A client that was struck off the record and knows what it lost is on it again. */
void st_client_rejoin(struct st *s, struct st_client *cl);
/* How many it was revoked that answer @status, and what SEQUENCE says of those whose time was over. */
static inline uint32_t *st_revoked_count(struct st_client *cl, nfsstat4 status)
{
	return status == NFS4ERR_EXPIRED ? &cl->nexpired : &cl->nadmin;
}
#define LOST_EXPIRED ((uint32_t)(SEQ4_STATUS_EXPIRED_ALL_STATE_REVOKED | SEQ4_STATUS_EXPIRED_SOME_STATE_REVOKED))
/* What is remembered of stateids that were revoked. */
void st_revoked_free(struct st *s, struct st_client *cl) REQUIRES(cl->mu);
void st_revoked_ack(struct st *s, struct st_client *cl, struct st_state *x) REQUIRES(cl->mu);

/* grace.c */
int st_grace_begin(struct st *s, const char *path, struct why *why);
void st_grace_tick(struct st *s);
void st_grace_fini(struct st *s);
/* A client is confirmed: is it on record from before the restart? */
void st_grace_meet(struct st *s, struct st_client *cl) REQUIRES(s->mu);
/* A client says goodbye, and holds nothing: it is taken off the record by one of the next ticks. */
void st_grace_leave(struct st *s, const struct st_client *cl) REQUIRES(s->mu);
/* Off the record, before it loses what it holds; and on it again, since it did not. Both block. */
int st_record_strike(struct st *s, const struct st_client *cl) REQUIRES(s->record_mu);
void st_record_keep(struct st *s, const struct st_client *cl) REQUIRES(s->record_mu);

/* session.c */
/* A reference, or NULL. */
struct st_session *st_session_find(struct st *s, const uint8_t id[16]);
void st_session_put(struct st *s, struct st_session *se);
void st_session_remove(struct st *s, struct st_session *se) REQUIRES(s->mu);
/* What a session said about files that it has not opened is forgotten; takes client.mu. */
void st_said_end(struct st_client *cl, const struct st_session *se);
/* All that a client said, with its opens and without; takes client.mu and shard locks. */
void st_advice_forget(struct st *s, struct st_client *cl);
/* The connection belongs to the session (RFC 8881 §2.10.3.1). */
void st_session_add_conn(struct st_session *se, uint64_t conn);
/* Slots are taken back from those that have many while few are left, and given back afterwards. */
void st_sessions_tick(struct st *s);

/* slot.c */
/* Slots @to and up are as they were at first. False: one of them is in use, and nothing has changed. */
bool st_slots_retire(struct st *s, struct st_session *se, uint32_t to);

/* open.c */
/* Every open and lock of the client, of one export or of all (@export_id 0); files that nobody uses any more are collected for
 * st_files_free(). @revoke: their stateids are remembered and answer this; NFS4_OK: they are not. How many they were. */
unsigned st_states_drop(struct st *s, struct st_client *cl, uint32_t export_id, nfsstat4 revoke, struct list *files)
	REQUIRES(cl->mu);
void st_files_free(struct st *s, struct list *files);
struct file_shard *st_file_shard(struct st *s, const struct st_fhkey *key);
struct st_file *st_file_find(struct file_shard *sh, const struct st_fhkey *key) REQUIRES(sh->mu);
struct st_owner *st_owner_find(struct st_client *cl, const struct st_name *name, bool of_locks) REQUIRES(cl->mu);
struct st_owner *st_owner_new(struct st *s, struct st_client *cl, const struct st_name *name, bool of_locks)
	REQUIRES(cl->mu);
/* Frees it when it has no state. */
void st_owner_tidy(struct st *s, struct st_client *cl, struct st_owner *o) REQUIRES(cl->mu);
/* One state of the file fewer; with the last one the file moves to @files. */
void st_file_unuse(struct st_file *f, struct list *files);
/* The owner's state of this kind on this file. */
struct st_state *st_state_of(struct st_client *cl, const struct st_owner *o, const struct st_fhkey *key,
			     enum state_kind kind) REQUIRES(cl->mu);

/* Opens, lock states and ranges of all clients together are bounded, too, and one address has no more than its share. */
bool st_states_room(struct st *s, const struct st_client *cl) REQUIRES(cl->mu);
/* One more or less of a @kind that the figures show. */
void st_states_count(struct st *s, struct st_client *cl, _Atomic uint64_t *kind, int by);

/* lock.c */
/* Releases ranges, stateid and state; the file shard is taken inside. */
void st_locks_drop(struct st *s, struct st_client *cl, struct st_locks *l, nfsstat4 revoke, struct list *files)
	REQUIRES(cl->mu);

/* stateid.c */
/* Into the client's and the stateid table; seqid becomes 1. */
void st_state_publish(struct st *s, struct st_client *cl, struct st_state *x) REQUIRES(cl->mu);
void st_state_withdraw(struct st *s, struct st_client *cl, struct st_state *x) REQUIRES(cl->mu);
/* Out of use, but not forgotten: @status from now on, EXPIRED or ADMIN_REVOKED. */
void st_state_revoke(struct st *s, struct st_client *cl, struct st_state *x, nfsstat4 status) REQUIRES(cl->mu);
/* The next seqid (bump) or the present one, as a stateid. */
void st_state_stateid(struct st *s, struct st_client *cl, struct st_state *x, bool bump, stateid4 *out)
	REQUIRES(cl->mu);
/* Back to the seqid before; nobody was told of the present one. Under client.mu. */
void st_state_unbump(struct st *s, struct st_state *x);
/* @key NULL: any file. BAD_STATEID, OLD_STATEID; EXPIRED, ADMIN_REVOKED: *@out was revoked. */
nfsstat4 st_state_find(struct st *s, struct st_client *cl, const struct st_fhkey *key, const stateid4 *sid,
		       unsigned kinds, struct st_state **out) REQUIRES(cl->mu);

static inline uint32_t st_state_bucket(const struct st_owner *o, const struct st_fhkey *key)
{
	return (uint32_t)(((uintptr_t)o >> 4) ^ key->ino * 2654435761u ^ key->ino >> 16) % STATE_BUCKETS;
}

static inline bool st_key_equal(const struct st_fhkey *a, const struct st_fhkey *b)
{
	return a->ino == b->ino && a->gen == b->gen && a->export_id == b->export_id;
}

#endif

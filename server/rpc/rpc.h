/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * rpc.h - the transport: sockets, records, calls, replies
 *
 * N event loops, each owning its connections: read a batch of records, run each call to completion on the loop, queue the
 * replies, one writev per batch. A call that would have to wait (the service says RPC_PARK) is handed to a bounded pool of
 * workers, which run it again with may_block set; its reply goes back through the connection's loop. Few workers run at a
 * time: one that waits says so (vhd/base/wait.h), and another takes its place.
 *
 * Bounds: a record is at most `max_record` bytes; all receive buffers and parked calls together stay below `max_memory`
 * (reading from sockets pauses at the limit, and at three quarters of what the others leave for one address); a connection whose
 * replies are not read stops being read; idle ones are closed. When there are as many as there may be, the idlest one of the
 * address that has most is closed for the next (peers.h).
 *
 * Locks: none held when the service is called. A conn is referenced; calls hold a reference to theirs.
 */
#ifndef VHDNFS_SERVER_RPC_RPC_H
#define VHDNFS_SERVER_RPC_RPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "vhd/base/why.h"
#include "xdr/arena.h"
#include "xdr/stream.h"

struct rpc_server;
struct rpc_conn;

struct rpc_cred {
	uint32_t flavor; /* AUTH_NONE, AUTH_SYS */
	uint32_t uid, gid;
	uint32_t ngids; /* <= 16 */
	uint32_t gids[16];
};

enum rpc_verdict {
	RPC_REPLY, /* call->accept and call->out are the reply */
	RPC_PARK,  /* run me again where I may block; only with may_block false */
	RPC_HOLD, /* rpc_call_resume() has been, or will be called: then run me again, on the loop, and the reply is complete */
	RPC_DROP, /* no reply at all (RFC 8881 2.10.6.2 allows it for a retry in progress) */
	RPC_CLOSE /* close the connection */
};

/* One call, from the record's arrival until its reply is sent. Everything is the service's to use. */
struct rpc_call {
	struct rpc_conn *conn;
	uint32_t xid, vers, proc;
	struct rpc_cred cred;
	struct arena arena; /* of this call */
	XDR in;             /* positioned at the arguments */
	struct xa_out out;  /* positioned behind the reply header: encode results here */
	uint32_t accept;    /* accept_stat, SUCCESS at first; anything else drops what is in out */
	bool may_block;     /* running on a worker */
	size_t record_len;  /* bytes of the whole call, RPC header included */
	size_t header_len;  /* bytes of the reply header in front of out's results */
	void *user;         /* the service's own, NULL at first; kept while parked */
};

struct rpc_service {
	uint32_t prog, vers_low, vers_high; /* others are answered PROG_UNAVAIL, PROG_MISMATCH */
	uint32_t nproc;                     /* higher ones are answered PROC_UNAVAIL; 0 (NULL) by the transport */
	enum rpc_verdict (*call)(void *arg, struct rpc_call *call);
	/* The call is over: reply sent, dropped, or its connection lost while it was parked or queued. Optional. */
	void (*done)(void *arg, struct rpc_call *call);
	/* The connection is gone; no call of it runs any more. Optional. */
	void (*closed)(void *arg, struct rpc_conn *conn);
	/* May this peer connect? Optional. */
	bool (*allow)(void *arg, const struct sockaddr *peer);
	void *arg;
};

struct rpc_opts {
	unsigned loops;     /* 0: one per core */
	unsigned workers;   /* 0: a default */
	unsigned max_conns; /* 0: 8192 */
	size_t max_record;  /* 0: 1 MiB + 64 KiB */
	size_t max_memory;  /* 0: 32 MiB: receive buffers, arenas, replies not yet sent (frames of the cache apart) */
	bool secure_ports;  /* AUTH_SYS from ports of 1024 and up is denied (AUTH_TOOWEAK) */
	unsigned idle_seconds;   /* 0: 600; a connection without a call for that long is closed */
	unsigned look_us;        /* how long a loop looks for more calls before it sleeps; 0: it sleeps at once */
	unsigned record_seconds; /* 0: 60; a record that takes longer to arrive closes its connection */
};

int rpc_server_new(struct rpc_server **out, const struct rpc_opts *o, const struct rpc_service *s, struct why *why);
/* @addr: "127.0.0.1:2049", "[::1]:0", "0.0.0.0:2049". *port: the one bound. -EADDRINUSE and others with a line. */
int rpc_server_listen(struct rpc_server *r, const char *addr, uint16_t *port, struct why *why);
int rpc_server_start(struct rpc_server *r, struct why *why);
/* No new connections and calls; waits until the running ones have replied (at most @ms), then closes everything. Calls that are held,
 * and those that workers have begun, are waited for beyond that: their replies go nowhere then. */
void rpc_server_stop(struct rpc_server *r, unsigned ms);
void rpc_server_free(struct rpc_server *r);

/* A call that said RPC_HOLD goes on; once, from any thread, maybe before RPC_HOLD was returned. */
void rpc_call_resume(struct rpc_call *call);

/* Run fn(arg) on a worker soon (housekeeping). -ENOMEM, -ESHUTDOWN. */
int rpc_server_defer(struct rpc_server *r, void (*fn)(void *), void *arg);

struct rpc_conn *rpc_conn_get(struct rpc_conn *c);
void rpc_conn_put(struct rpc_conn *c);
uint64_t rpc_conn_id(const struct rpc_conn *c); /* never reused */
const struct sockaddr *rpc_conn_peer(const struct rpc_conn *c);
const char *rpc_conn_peer_name(const struct rpc_conn *c); /* "10.0.0.1:800" */
/* Close soon, from any thread. */
void rpc_conn_close(struct rpc_conn *c);
/* Send one record (a call on the backchannel) from any thread; copies. -ENOTCONN, -ENOBUFS when the peer does not read. */
int rpc_conn_send(struct rpc_conn *c, const void *record, size_t len);
/* Replies to such calls (msg_type REPLY) are handed here; NULL drops them. */
typedef void rpc_reply_fn(void *arg, struct rpc_conn *c, uint32_t xid, const void *record, size_t len);
void rpc_server_on_reply(struct rpc_server *r, rpc_reply_fn *fn, void *arg);

struct rpc_stats {
	uint64_t conns, conns_total, calls, parked, bytes_in, bytes_out, bad_records, refused;
	uint64_t memory; /* bytes now, of max_memory */
};
void rpc_server_stats(struct rpc_server *r, struct rpc_stats *st);

#endif

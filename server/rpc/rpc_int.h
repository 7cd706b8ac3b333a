/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * rpc_int.h - loops, connections and calls, inside
 *
 * A connection belongs to one loop: everything of it is that loop's alone, unless a lock or an atomic says otherwise.
 *
 *     call:  record complete -> run on the loop -> reply queued -> sent -> done
 *                                   \--park--> worker --> loop's `back` list --> reply queued
 *
 * Locks (leaves, never nested): loop.mu guards what other threads hand to a loop; server.work_mu the workers' queue; server.accept_mu
 * who is let in, and which connections each address has.
 */
#ifndef VHDNFS_SERVER_RPC_RPC_INT_H
#define VHDNFS_SERVER_RPC_RPC_INT_H

#include <stdatomic.h>

#include "server/rpc/peers.h"
#include "server/rpc/rpc.h"
#include "vhd/base/list.h"
#include "vhd/base/lock.h"

#define READ_BUF (256u << 10) /* one per loop: what a read takes at most */
#define RAW_HIGH (1u << 20)   /* bytes of records of our own that wait for a connection */
#define HURRY 3u              /* seconds without progress that are enough while memory is short */
#define OUT_HIGH (4u << 20)   /* bytes of unsent replies that stop reading from a connection */
#define CALLS_HIGH 256u       /* and calls under way */
#define POOL_MAX 128u         /* call objects that a loop keeps */
#define LISTEN_MAX 16u
#define CONNS_ASIDE 128u /* connections that were told to go and are not gone yet, beyond max_conns */
#define SILENT 60u       /* seconds without a call after which a connection may go for another one of its own address */
#define REPLY_HEAD 28u   /* record mark, xid, REPLY, accepted, verifier (2), status */

struct loop;

struct call {
	struct rpc_call pub; /* first */
	struct list link;    /* of a pool, a queue, a reply queue */
	uint8_t *record;     /* ours, once parked; NULL while it lies in somebody's buffer */
	size_t record_cap;
	size_t charged;       /* bytes counted in server.memory */
	size_t arena_charged; /* of them, the arena's */
	bool drop;            /* no reply */
	bool resumed;         /* was held: the service has to be run once more */
};

struct rpc_conn {
	struct loop *loop;
	struct list link; /* loop.conns */
	int fd;
	uint64_t id;
	atomic_uint refs;
	struct sockaddr_storage peer;
	struct peer *from;     /* whose it is, with a reference */
	struct list from_link; /* server.accept_mu: of from->members; off the list when it was told to go */
	char name[64];

	/* A record, or the part of it that came so far, when it did not fit one read. */
	uint8_t *buf;
	size_t cap, len;
	/* Fragments that were complete but not the last. */
	uint8_t *frag;
	size_t frag_len;
	/* Bytes that were read, but must wait until the replies to those before them are gone. */
	uint8_t *backlog;
	size_t backlog_len;
	uint32_t started;  /* when the partial record began; 0: there is none */
	atomic_uint last;  /* seconds: last call, or when it came; any thread may read it */
	atomic_bool spoke; /* it made a call */
	uint32_t moved;    /* seconds: when the peer last took something of what waits for it */

	struct list out; /* calls whose replies wait to be sent */
	size_t out_sent; /* bytes of the first one that are gone */
	size_t out_bytes;
	unsigned calls; /* alive: running, parked, waiting to be sent */
	bool closing, want_out;
	bool anyone; /* its port is one that every user of that host can have, and that counts: rpc_opts.secure_ports */
	bool paused, watch_out, in_epoll; /* what epoll was told */
	struct list flush_link;           /* loop.flush: has replies to send after this batch */
	struct list stall_link;           /* loop.stalled: has a backlog */
	struct list pause_link;           /* loop.paused: waits for memory */

	/* handed over by other threads, under loop.mu */
	struct list raw; /* records to send (backchannel) */
	size_t raw_bytes;
	bool close_asked, gone; /* gone: the loop has forgotten it, only references keep it */
	struct list asked_link; /* loop.asked */
};

struct raw_record {
	struct list link;
	size_t len;
	uint8_t data[];
};

struct loop {
	struct rpc_server *srv;
	pthread_t thread;
	bool started;
	int epoll, event;
	uint8_t *buf; /* READ_BUF */
	struct list conns, flush, paused, stalled, pool;
	unsigned npool;
	uint32_t now;     /* seconds */
	uint64_t look_ns; /* how long to look for events before sleeping */

	struct lock mu;
	struct list back GUARDED_BY(mu);  /* calls that workers finished */
	struct list fresh GUARDED_BY(mu); /* connections accepted elsewhere */
	struct list asked GUARDED_BY(mu); /* connections that want to be looked at */
	bool woken GUARDED_BY(mu);
};

struct rpc_server {
	struct rpc_opts o;
	struct rpc_service s;
	struct loop *loop;
	unsigned nloops;
	int listener[LISTEN_MAX];
	unsigned nlisteners;
	atomic_uint next_loop;
	atomic_bool stopping, quit;
	struct lock accept_mu;
	struct peers peers GUARDED_BY(accept_mu);
	unsigned going GUARDED_BY(accept_mu); /* connections that were told to go */
	int spare GUARDED_BY(accept_mu);      /* a descriptor for when there is no other; negative: not even that */

	struct lock work_mu;
	struct cond work_cond, idle_cond;
	struct list work GUARDED_BY(work_mu);     /* parked calls */
	struct list deferred GUARDED_BY(work_mu); /* other work */
	/* Workers that run something and do not wait; how many of those there should be; and that have nothing to do. */
	unsigned work_active GUARDED_BY(work_mu), work_target, work_idle GUARDED_BY(work_mu);
	unsigned nworkers;
	struct worker *worker;
	bool work_stop GUARDED_BY(work_mu);

	rpc_reply_fn *on_reply;
	void *on_reply_arg;

	atomic_ulong memory, conns, conns_total, calls, parked, bytes_in, bytes_out, bad_records, refused, running, ids;
};

/* Bytes that a connection has of server.memory, for itself or for its calls. */
static inline void conn_charge(struct rpc_conn *c, size_t n)
{
	atomic_fetch_add_explicit(&c->loop->srv->memory, n, memory_order_relaxed);
	atomic_fetch_add_explicit(&c->from->memory, n, memory_order_relaxed);
}

static inline void conn_discharge(struct rpc_conn *c, size_t n)
{
	atomic_fetch_sub_explicit(&c->loop->srv->memory, n, memory_order_relaxed);
	atomic_fetch_sub_explicit(&c->from->memory, n, memory_order_relaxed);
}

/* ---- call.c ---- */
/* Decode the header of a record and run it. The record may lie in a buffer that is used again: what parks takes a copy, or
 * @own when it is not NULL (then *own is set to NULL). False: close the connection. */
bool call_record(struct rpc_conn *c, uint8_t *rec, size_t len, uint8_t **own, size_t own_cap);
bool call_run_parked(struct call *k); /* on a worker, which then gives it back; false: it is held, and no longer ours */
void call_resume(struct call *k);     /* on the loop */
void call_finish(struct call *k);     /* reply sent or dropped; on the loop */
void call_charge_arena(struct call *k); /* what it takes now; while nobody runs the call */
void pool_free(struct loop *l);

/* ---- conn.c ---- */
void conn_accept(struct loop *l, int listener);
void conn_adopt(struct loop *l, struct rpc_conn *c);
void conn_readable(struct rpc_conn *c);
bool conn_is_greedy(const struct rpc_conn *c); /* its address has its share of memory, or there is none left */
bool conn_unstall(struct rpc_conn *c);         /* go on with the backlog; false: not yet */
void conn_queue_reply(struct rpc_conn *c, struct call *k);
void conn_flush(struct rpc_conn *c);
void conn_close(struct rpc_conn *c);
void conn_maybe_gone(struct rpc_conn *c);
void conn_update(struct rpc_conn *c); /* what epoll watches */
void conn_asked(struct rpc_conn *c);

/* ---- loop.c ---- */
int loop_init(struct loop *l, struct rpc_server *s);
int loop_start(struct loop *l);
void loop_fini(struct loop *l);
/* What was handed over is taken and goes nowhere, connections are closed. By the loop at its end, or by whoever has waited for that. */
void loop_drain(struct loop *l);
void loop_wake(struct loop *l);
void loop_give_back(struct loop *l, struct call *k);
uint32_t seconds_now(void);

/* ---- worker.c ---- */
int workers_start(struct rpc_server *s);
void workers_stop(struct rpc_server *s);
void worker_queue(struct rpc_server *s, struct call *k);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench.c - vhdnfs bench: many small calls at once, without being the bottleneck
 *
 * Each connection has a client and a session of its own with `depth` slots. A slot owns one encoded call, in which only
 * the call number, the sequenceid and what the mode changes (an offset, a name, a cookie) are set anew:
 *
 *     mark xid CALL 2 100003 4 proc cred verf | tag minor nops | SEQUENCE session seq slot high 0 | PUTFH fh | op …
 *
 * Calls are collected per connection and sent with one send(); of a reply only the call number (which is the slot) and
 * the status are read, and in readdir the entries. Data is read and written with the anonymous stateid; entries that
 * create makes, and lookup and remove expect, are named b00000000, b00000001, …
 */
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tools/bench.h"
#include "tools/bench_hints.h"
#include "tools/nfs_client.h"
#include "tools/tool.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/size.h"

#define CONNS_MAX 256u
#define DEPTH_MAX 256u
#define FIXED 1024u /* an encoded call without data fits */
#define RBUF (4u << 20)
#define BUCKETS (64u * 16u)

enum mode {
	M_NULL,
	M_GETATTR,
	M_LOOKUP,
	M_READ4K,
	M_READ1M,
	M_WRITE4K,
	M_WRITE1M,
	M_CREATE,
	M_REMOVE,
	M_READDIR,
	M_ADVISE
};

static const struct {
	const char *name;
	uint32_t io;    /* bytes of data per call */
	uint32_t reply; /* bytes of a reply, for the bare loop */
} modes[] = {
	[M_NULL] = {"null", 0, 24},
	[M_GETATTR] = {"getattr", 0, 240},
	[M_LOOKUP] = {"lookup", 0, 140},
	[M_READ4K] = {"read4k", 4096, 4096 + 104},
	[M_READ1M] = {"read1m", 1u << 20, (1u << 20) + 104},
	[M_WRITE4K] = {"write4k", 4096, 112},
	[M_WRITE1M] = {"write1m", 1u << 20, 112},
	[M_CREATE] = {"create", 0, 180},
	[M_REMOVE] = {"remove", 0, 116},
	[M_READDIR] = {"readdir", 0, 65536},
	[M_ADVISE] = {"advise", 0, 96},
};

struct slot {
	char *rec;
	uint32_t len;
	uint32_t seq;
	uint64_t sent_ns;
};

struct conn {
	int fd;
	char session[16];
	uint64_t clientid;
	uint32_t flying;
	struct slot *slot;
	char *out;
	size_t out_len, out_at, out_cap;
	char *in;
	size_t in_at, in_len;
	bool wants_out;
};

struct bench {
	enum mode mode;
	unsigned conns, depth, stable;
	double seconds;
	uint64_t ops_max, first, entries, size;
	pid_t server;
	bool json, bare;

	struct nfs_url url;
	nfs_fh4 fh;
	struct conn *conn;
	int ep;
	uint32_t at_op; /* where the mode's own fields stand in a call */
	uint64_t issued, done, errors, listed, rng;
	int first_error;
	bool stopping;
	uint64_t hist[BUCKETS];
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- encoding -------------------------------------------------------------------------------------------------------- */

struct enc {
	char *p;
	uint32_t n;
};

static void put(struct enc *e, uint32_t v)
{
	wire_set(e->p + e->n, v);
	e->n += 4;
}

static void put64(struct enc *e, uint64_t v)
{
	put(e, (uint32_t)(v >> 32));
	put(e, (uint32_t)v);
}

static void put_raw(struct enc *e, const void *p, uint32_t n)
{
	memcpy(e->p + e->n, p, n);
	memset(e->p + e->n + n, 0, (4 - n % 4) % 4);
	e->n += (n + 3) & ~3u;
}

static void put_opaque(struct enc *e, const void *p, uint32_t n)
{
	put(e, n);
	put_raw(e, p, n);
}

static void put_call(struct enc *e, uint32_t proc)
{
	put(e, 0); /* mark */
	put(e, 0); /* xid */
	put(e, 0);
	put(e, 2);
	put(e, NFS4_PROGRAM);
	put(e, NFS_V4);
	put(e, proc);
	put(e, AUTH_SYS);
	put(e, 24); /* stamp, "bench", uid, gid, no groups, with the text's padding */
	put(e, 0);
	put_opaque(e, "v", 1);
	put(e, (uint32_t)getuid());
	put(e, (uint32_t)getgid());
	put(e, 0);
	put(e, 0);
	put(e, 0);
}

static void put_compound(struct enc *e, uint32_t ops)
{
	put_call(e, NFSPROC4_COMPOUND);
	put(e, 0);
	put(e, 2);
	put(e, ops);
}

static void put_sequence(struct enc *e, const struct conn *c, uint32_t slot, uint32_t high)
{
	put(e, OP_SEQUENCE);
	put_raw(e, c->session, 16);
	put(e, 0);
	put(e, slot);
	put(e, high);
	put(e, 0);
}

#define AT_SEQ (4 + 64 + 12 + 4 + 16) /* mark, header, tag minor nops, op, session */

static void put_name(struct enc *e, uint64_t i)
{
	char name[16];

	snprintf(name, sizeof name, "b%08u", (unsigned)(i % 100000000u));
	put_opaque(e, name, 9);
}

static void put_open_create(struct enc *e, const struct conn *c, uint32_t slot)
{
	put(e, OP_OPEN);
	put(e, 0);
	put(e, OPEN4_SHARE_ACCESS_WRITE);
	put(e, OPEN4_SHARE_DENY_NONE);
	put64(e, c->clientid);
	put_opaque(e, &slot, 4);
	put(e, OPEN4_CREATE);
	put(e, UNCHECKED4);
	put(e, 2);
	put(e, 0);
	put(e, 1u << (FATTR4_MODE - 32));
	put(e, 4);
	put(e, 0644);
	put(e, CLAIM_NULL);
}

/* The mode's operation behind PUTFH; b->at_op is where the changing fields begin. */
static uint32_t put_mode(struct bench *b, struct enc *e, const struct conn *c, uint32_t slot)
{
	uint32_t at = 0;

	switch (b->mode) {
	case M_GETATTR:
		put(e, OP_GETATTR);
		put(e, 2);
		put(e, nfs_attrs_mask().bitmap4_val[0]);
		put(e, nfs_attrs_mask().bitmap4_val[1]);
		break;
	case M_LOOKUP:
		put(e, OP_LOOKUP);
		at = e->n;
		put_name(e, 0);
		put(e, OP_GETFH);
		break;
	case M_READ4K:
	case M_READ1M:
		put(e, OP_READ);
		put_raw(e, (char[16]){0}, 16);
		at = e->n;
		put64(e, 0);
		put(e, modes[b->mode].io);
		break;
	case M_WRITE4K:
	case M_WRITE1M:
		put(e, OP_WRITE);
		put_raw(e, (char[16]){0}, 16);
		at = e->n;
		put64(e, 0);
		put(e, b->stable);
		put(e, modes[b->mode].io);
		memset(e->p + e->n, 'v', modes[b->mode].io);
		e->n += modes[b->mode].io;
		break;
	case M_CREATE:
		put_open_create(e, c, slot);
		at = e->n;
		put_name(e, 0);
		put(e, OP_CLOSE);
		put(e, 0);
		put(e, 1); /* the current stateid */
		put_raw(e, (char[12]){0}, 12);
		break;
	case M_REMOVE:
		put(e, OP_REMOVE);
		at = e->n;
		put_name(e, 0);
		break;
	case M_READDIR:
		put(e, OP_READDIR);
		at = e->n;
		put64(e, 0);
		put64(e, 0);
		put(e, 32768);
		put(e, 65536);
		put(e, 2);
		put(e, nfs_attrs_mask().bitmap4_val[0]);
		put(e, nfs_attrs_mask().bitmap4_val[1]);
		break;
	case M_ADVISE:
		put(e, OP_IO_ADVISE);
		put_raw(e, (char[16]){0}, 16);
		put64(e, 0);
		put64(e, 0);
		put(e, 1);
		put(e, 1u << IO_ADVISE4_SEQUENTIAL);
		break;
	case M_NULL:
		break;
	}
	return at;
}

static int make_record(struct bench *b, struct conn *c, uint32_t i)
{
	struct slot *s = &c->slot[i];
	struct enc e = {.p = malloc(FIXED + modes[b->mode].io)};

	if (!e.p)
		return -ENOMEM;
	s->rec = e.p;
	if (b->mode == M_NULL) {
		put_call(&e, 0);
	} else {
		put_compound(&e, b->mode == M_LOOKUP || b->mode == M_CREATE ? 4 : 3);
		put_sequence(&e, c, i, b->depth - 1);
		put(&e, OP_PUTFH);
		put_opaque(&e, b->fh.nfs_fh4_val, b->fh.nfs_fh4_len);
		b->at_op = put_mode(b, &e, c, i);
	}
	wire_set(e.p, 0x80000000u | (e.n - 4));
	wire_set(e.p + 4, i);
	s->len = e.n;
	return 0;
}

/* ---- setting up a connection ---------------------------------------------------------------------------------------------- */

static bool take(int fd, char *p, size_t n)
{
	while (n) {
		ssize_t k = recv(fd, p, n, 0);

		if (k <= 0)
			return false;
		p += k;
		n -= (size_t)k;
	}
	return true;
}

/* One call, its reply (a single fragment) in @r; 0 or the COMPOUND's status, negative. */
static int ask(struct conn *c, struct enc *e, char *r, uint32_t room)
{
	uint32_t len;

	memset(r, 0, room);
	wire_set(e->p, 0x80000000u | (e->n - 4));
	if (send(c->fd, e->p, e->n, MSG_NOSIGNAL) != (ssize_t)e->n || !take(c->fd, r, 4))
		return -ECONNRESET;
	len = wire_get(r) & 0x7fffffff;
	if (len < 28 || len > room || !take(c->fd, r, len))
		return -EPROTO;
	return wire_get(r + 20) ? -EPROTO : -(int)wire_get(r + 24);
}

static int session_make(struct bench *b, struct conn *c, unsigned number)
{
	char buf[FIXED], r[4096], owner[64];
	struct enc e = {.p = buf};
	uint32_t seq, slots;
	int err;

	put_compound(&e, 1);
	put(&e, OP_EXCHANGE_ID);
	put64(&e, now_ns());
	put_opaque(&e, owner, (uint32_t)snprintf(owner, sizeof owner, "vhdnfs bench %d.%u", (int)getpid(), number));
	put64(&e, 0);
	put(&e, 0);
	if ((err = ask(c, &e, r, sizeof r)))
		return err;
	c->clientid = (uint64_t)wire_get(r + 44) << 32 | wire_get(r + 48);
	seq = wire_get(r + 52);

	e.n = 0;
	put_compound(&e, 1);
	put(&e, OP_CREATE_SESSION);
	put64(&e, c->clientid);
	put(&e, seq);
	put(&e, 0);
	for (int back = 0; back < 2; back++) {
		put(&e, 0);
		put(&e, back ? 4096 : (1u << 20) + 65536);
		put(&e, back ? 4096 : (1u << 20) + 65536);
		put(&e, 4096);
		put(&e, 16);
		put(&e, back ? 1 : b->depth);
		put(&e, 0);
	}
	put(&e, 0x40000000);
	put(&e, 1);
	put(&e, 0);
	if ((err = ask(c, &e, r, sizeof r)))
		return err;
	memcpy(c->session, r + 44, 16);
	slots = wire_get(r + 88);
	if (slots && slots < b->depth)
		b->depth = slots;

	e.n = 0;
	put_compound(&e, 2);
	put_sequence(&e, c, 0, 0);
	wire_set(buf + AT_SEQ, 1);
	put(&e, OP_RECLAIM_COMPLETE);
	put(&e, 0);
	return ask(c, &e, r, sizeof r);
}

static void session_end(struct conn *c)
{
	char buf[FIXED], r[4096];
	struct enc e = {.p = buf};

	put_compound(&e, 1);
	put(&e, OP_DESTROY_SESSION);
	put_raw(&e, c->session, 16);
	if (ask(c, &e, r, sizeof r))
		return;
	e.n = 0;
	put_compound(&e, 1);
	put(&e, OP_DESTROY_CLIENTID);
	put64(&e, c->clientid);
	ask(c, &e, r, sizeof r);
}

static int dial(const struct nfs_url *u)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	const struct timeval limit = {.tv_sec = 30};
	struct addrinfo *list;
	int fd = -1, on = 1;

	if (getaddrinfo(u->host, u->port, &hints, &list))
		return -EHOSTUNREACH;
	for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
		fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) < 0) {
			close(fd);
			fd = -1;
		}
	}
	freeaddrinfo(list);
	if (fd < 0)
		return -ECONNREFUSED;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	return fd;
}

static int connect_all(struct bench *b)
{
	int err;

	for (unsigned i = 0; i < b->conns; i++) {
		struct conn *c = &b->conn[i];

		if ((c->fd = dial(&b->url)) < 0)
			return c->fd;
		if (!b->bare && (err = session_make(b, c, i)))
			return err;
	}
	for (unsigned i = 0; i < b->conns; i++) {
		struct conn *c = &b->conn[i];
		struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};

		c->out_cap = (size_t)b->depth * (FIXED + modes[b->mode].io);
		c->out = malloc(c->out_cap);
		c->in = malloc(RBUF);
		c->slot = calloc(b->depth, sizeof *c->slot);
		if (!c->out || !c->in || !c->slot)
			return -ENOMEM;
		for (uint32_t s = 0; s < b->depth; s++) {
			if ((err = make_record(b, c, s)))
				return err;
			c->slot[s].seq = s == 0 ? 1 : 0; /* slot 0 carried RECLAIM_COMPLETE */
		}
		if (epoll_ctl(b->ep, EPOLL_CTL_ADD, c->fd, &ev) < 0)
			return -errno;
	}
	return 0;
}

static void disconnect_all(struct bench *b)
{
	for (unsigned i = 0; b->conn && i < b->conns; i++) {
		struct conn *c = &b->conn[i];

		if (c->fd >= 0) {
			if (!b->bare && !c->flying)
				session_end(c);
			close(c->fd);
		}
		for (uint32_t s = 0; c->slot && s < b->depth; s++)
			free(c->slot[s].rec);
		free(c->slot);
		free(c->out);
		free(c->in);
	}
	free(b->conn);
}

/* ---- load ----------------------------------------------------------------------------------------------------------------- */

static uint64_t next_random(struct bench *b)
{
	b->rng ^= b->rng << 13;
	b->rng ^= b->rng >> 7;
	b->rng ^= b->rng << 17;
	return b->rng;
}

/* What the next call of a mode differs in. */
static void vary(struct bench *b, struct slot *s)
{
	struct enc e = {.p = s->rec, .n = b->at_op};
	uint64_t n = b->issued, io = modes[b->mode].io, pieces = io ? b->size / io : 0;

	switch (b->mode) {
	case M_LOOKUP:
		put_name(&e, b->first + next_random(b) % b->entries);
		break;
	case M_READ4K:
	case M_WRITE4K:
		put64(&e, next_random(b) % pieces * io);
		break;
	case M_READ1M:
	case M_WRITE1M:
		put64(&e, n % pieces * io);
		break;
	case M_CREATE:
	case M_REMOVE:
		put_name(&e, b->first + n);
		break;
	case M_READDIR:
		put64(&e, 0);
		put64(&e, 0);
		break;
	case M_NULL:
	case M_GETATTR:
	case M_ADVISE:
		break;
	}
}

static void queue(struct bench *b, struct conn *c, struct slot *s)
{
	if (b->mode != M_NULL)
		wire_set(s->rec + AT_SEQ, ++s->seq);
	memcpy(c->out + c->out_len, s->rec, s->len);
	c->out_len += s->len;
	c->flying++;
}

static void issue(struct bench *b, struct conn *c, struct slot *s, uint64_t t)
{
	if (b->stopping || (b->ops_max && b->issued >= b->ops_max))
		return;
	vary(b, s);
	b->issued++;
	s->sent_ns = t;
	queue(b, c, s);
}

static int flush(struct bench *b, struct conn *c)
{
	bool want;

	while (c->out_at < c->out_len) {
		ssize_t k = send(c->fd, c->out + c->out_at, c->out_len - c->out_at, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (k < 0 && errno == EAGAIN)
			break;
		if (k < 0)
			return -errno;
		c->out_at += (size_t)k;
	}
	/* What is left moves to the front: a slot's call must fit whenever its reply is in. */
	memmove(c->out, c->out + c->out_at, c->out_len - c->out_at);
	c->out_len -= c->out_at;
	c->out_at = 0;
	want = c->out_len > 0;
	if (want != c->wants_out) {
		struct epoll_event ev = {.events = EPOLLIN | (want ? EPOLLOUT : 0u), .data.ptr = c};

		c->wants_out = want;
		epoll_ctl(b->ep, EPOLL_CTL_MOD, c->fd, &ev);
	}
	return 0;
}

static void record_latency(struct bench *b, uint64_t ns)
{
	unsigned e = ns < 16 ? 0 : 63u - (unsigned)__builtin_clzll(ns) - 3;

	b->hist[e * 16 + (e ? (ns >> (e - 1)) & 15 : ns)]++;
}

static double percentile_us(const struct bench *b, double p)
{
	uint64_t seen = 0, want = (uint64_t)((double)b->done * p);

	for (unsigned i = 0; i < BUCKETS; i++) {
		seen += b->hist[i];
		if (seen > want)
			return i < 16 ? i / 1e3 : (double)((16ull + i % 16) << (i / 16 - 1)) / 1e3;
	}
	return 0;
}

/* The entries of a READDIR reply; sets up the next call in the slot. false: the listing is complete (or broken). */
static bool readdir_goes_on(struct bench *b, struct slot *s, const char *r, size_t len)
{
	const char *verf = r + 96, *p = r + 104, *end = r + len, *cookie = NULL;

	if (len < 112)
		return false;

	while (p + 4 <= end && wire_get(p)) {
		uint64_t skip;

		cookie = p + 4;
		p += 12;
		if (end - p < 4)
			return false;
		skip = 4 + (((uint64_t)wire_get(p) + 3) & ~3ull);
		if ((uint64_t)(end - p) < skip + 4)
			return false;
		p += skip;
		skip = 4 + 4ull * wire_get(p);
		if ((uint64_t)(end - p) < skip + 4)
			return false;
		p += skip;
		skip = 4 + (((uint64_t)wire_get(p) + 3) & ~3ull);
		if ((uint64_t)(end - p) < skip)
			return false;
		p += skip;
		b->listed++;
	}
	if (end - p < 8 || wire_get(p + 4) || !cookie)
		return false;
	memcpy(s->rec + b->at_op, cookie, 8);
	memcpy(s->rec + b->at_op + 8, verf, 8);
	return true;
}

/* Less data than was asked for is an error, too: nobody is fast by doing less. */
static uint32_t reply_status(const struct bench *b, const char *r, size_t len)
{
	uint32_t io = modes[b->mode].io, st;

	if (wire_get(r + 8) || wire_get(r + 20))
		return NFS4ERR_SERVERFAULT;
	if (b->mode == M_NULL || b->bare)
		return NFS4_OK;
	st = len >= 28 ? wire_get(r + 24) : NFS4ERR_SERVERFAULT;
	/* Behind the status of READ: eof, length, data; behind that of WRITE: count. */
	if (!st && (b->mode == M_READ4K || b->mode == M_READ1M) && (len < 104 + io || wire_get(r + 100) != io))
		return NFS4ERR_IO;
	if (!st && (b->mode == M_WRITE4K || b->mode == M_WRITE1M) && (len < 100 || wire_get(r + 96) != io))
		return NFS4ERR_IO;
	return st;
}

static int reply(struct bench *b, struct conn *c, const char *r, size_t len, uint64_t t)
{
	uint32_t i = len >= 24 ? wire_get(r) : UINT32_MAX, st;
	struct slot *s;

	if (i >= b->depth || !c->flying)
		return -EPROTO;
	s = &c->slot[i];
	c->flying--;
	st = reply_status(b, r, len);
	if (st && !b->errors++)
		b->first_error = (int)st;
	if (!st && b->mode == M_READDIR && !b->bare && readdir_goes_on(b, s, r, len)) {
		queue(b, c, s);
		return 0;
	}
	b->done++;
	record_latency(b, t - s->sent_ns);
	issue(b, c, s, t);
	return 0;
}

/* Length of the record at @p with its marks, 0 when it is not complete; *frags: how many fragments it has. */
static size_t record_len(const char *p, size_t have, unsigned *frags)
{
	size_t n = 0;

	for (*frags = 1; have - n >= 4; ++*frags) {
		uint32_t mark = wire_get(p + n), len = mark & 0x7fffffff;

		if (have - n - 4 < len)
			return 0;
		n += 4 + len;
		if (mark >> 31)
			return n;
	}
	return 0;
}

/* Moves the fragments together, behind the first mark. */
static void join(char *p, size_t whole)
{
	char *to = p + 4 + (wire_get(p) & 0x7fffffff);

	for (const char *q = to; q < p + whole;) {
		uint32_t len = wire_get(q) & 0x7fffffff;

		memmove(to, q + 4, len);
		to += len;
		q += 4 + len;
	}
}

static int records(struct bench *b, struct conn *c, uint64_t t)
{
	unsigned frags;
	size_t n;

	while ((n = record_len(c->in + c->in_at, c->in_len - c->in_at, &frags))) {
		char *p = c->in + c->in_at;
		int err;

		if (frags > 1)
			join(p, n);
		if ((err = reply(b, c, p + 4, n - 4 * (size_t)frags, t)))
			return err;
		c->in_at += n;
	}
	return 0;
}

static int readable(struct bench *b, struct conn *c)
{
	ssize_t k;
	int err;

	if (c->in_at == c->in_len) {
		c->in_at = c->in_len = 0;
	} else if (RBUF - c->in_len < RBUF / 2) {
		memmove(c->in, c->in + c->in_at, c->in_len - c->in_at);
		c->in_len -= c->in_at;
		c->in_at = 0;
	}
	if (c->in_len == RBUF)
		return -EPROTO;
	k = recv(c->fd, c->in + c->in_len, RBUF - c->in_len, MSG_DONTWAIT);
	if (k < 0)
		return errno == EAGAIN ? 0 : -errno;
	if (k == 0)
		return -ECONNRESET;
	c->in_len += (size_t)k;
	err = records(b, c, now_ns());
	return err ? err : flush(b, c);
}

static bool all_quiet(const struct bench *b)
{
	for (unsigned i = 0; i < b->conns; i++)
		if (b->conn[i].flying)
			return false;
	return true;
}

static int run(struct bench *b, double *took)
{
	uint64_t start = now_ns(), until = start + (uint64_t)(b->seconds * 1e9);
	int err = 0;

	for (unsigned i = 0; i < b->conns && !err; i++) {
		for (uint32_t s = 0; s < b->depth; s++)
			issue(b, &b->conn[i], &b->conn[i].slot[s], start);
		err = flush(b, &b->conn[i]);
	}
	while (!err && !all_quiet(b)) {
		struct epoll_event ev[64];
		int n = epoll_wait(b->ep, ev, 64, 30000);

		if (n == 0)
			err = -ETIMEDOUT;
		for (int i = 0; i < n && !err; i++) {
			struct conn *c = ev[i].data.ptr;

			err = ev[i].events & EPOLLOUT ? flush(b, c) : 0;
			if (!err && ev[i].events & ~(uint32_t)EPOLLOUT)
				err = readable(b, c);
		}
		b->stopping = now_ns() >= until;
	}
	*took = (double)(now_ns() - start) / 1e9;
	return err;
}

/* ---- report --------------------------------------------------------------------------------------------------------------- */

/* Nanoseconds that all threads of a process have run; 0 when it cannot be known. */
static uint64_t cpu_ns(pid_t pid)
{
	char path[300];
	uint64_t sum = 0;
	struct dirent *d;
	DIR *dir;

	snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
	if (!(dir = opendir(path)))
		return 0;
	while ((d = readdir(dir))) {
		unsigned long long ns;
		FILE *f;

		snprintf(path, sizeof path, "/proc/%d/task/%.20s/schedstat", (int)pid, d->d_name);
		if (d->d_name[0] == '.' || !(f = fopen(path, "r")))
			continue;
		if (fscanf(f, "%llu", &ns) == 1)
			sum += ns;
		fclose(f);
	}
	closedir(dir);
	return sum;
}

static void report(const struct bench *b, double took, uint64_t cpu)
{
	double rate = (double)b->done / took, mb = rate * modes[b->mode].io / 1e6;
	double us = b->done ? (double)cpu / 1e3 / (double)b->done : 0;

	if (b->json) {
		json_t *j = json_object();

		json_object_set_new(j, "mode", json_string(modes[b->mode].name));
		json_object_set_new(j, "connections", json_integer(b->conns));
		json_object_set_new(j, "depth", json_integer(b->depth));
		json_object_set_new(j, "seconds", json_real(took));
		json_object_set_new(j, "ops", json_integer((json_int_t)b->done));
		json_object_set_new(j, "errors", json_integer((json_int_t)b->errors));
		json_object_set_new(j, "ops_per_second", json_real(rate));
		json_object_set_new(j, "mb_per_second", json_real(mb));
		json_object_set_new(j, "p50_us", json_real(percentile_us(b, 0.5)));
		json_object_set_new(j, "p99_us", json_real(percentile_us(b, 0.99)));
		json_object_set_new(j, "entries_listed", json_integer((json_int_t)b->listed));
		if (b->server)
			json_object_set_new(j, "server_cpu_us_per_op", json_real(us));
		json_dumpf(j, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
		putchar('\n');
		json_decref(j);
		return;
	}
	printf("%-8s %10.0f ops/s", modes[b->mode].name, rate);
	if (modes[b->mode].io)
		printf(" %8.1f MB/s", mb);
	if (b->listed)
		printf(" %10.0f entries/s", (double)b->listed / took);
	printf("  p50 %.1f us  p99 %.1f us", percentile_us(b, 0.5), percentile_us(b, 0.99));
	if (b->server)
		printf("  server CPU %.2f us/op", us);
	printf("  errors %llu", (unsigned long long)b->errors);
	if (b->first_error)
		printf(" (%s)", nfsc_error(-b->first_error));
	putchar('\n');
}

static const char help_text[] =
	"usage: vhdnfs bench [OPTION]… MODE nfs://HOST[:PORT]/PATH\n"
	"       vhdnfs bench [OPTION]… --bare MODE\n"
	"       vhdnfs bench hints …   what advice brings; see vhdnfs bench hints --help\n\n"
	"MODE is null, getattr, advise, read4k, read1m, write4k or write1m (PATH is a file),\n"
	"or lookup, create, remove or readdir (PATH is a folder; entries are named b00000000, …).\n\n"
	"  --connections N   each with a session of its own (1)\n"
	"  --depth N         calls in flight on each (32)\n"
	"  --seconds S       stop after that time (5)\n"
	"  --ops N           stop after that many operations\n"
	"  --size BYTES      write modes: how much of the file is written over (64 MiB)\n"
	"  --stable HOW      write modes: unstable or file-sync (unstable)\n"
	"  --first N         create, remove, lookup: number of the first entry (0)\n"
	"  --entries N       lookup: how many entries there are (1000)\n"
	"  --server-pid PID  show the CPU time that the server spent\n"
	"  --bare            against a loop that answers without doing anything: the limit of this machine\n"
	"  --json            one line of JSON\n";

static int usage(FILE *f)
{
	fputs(help_text, f);
	return f == stdout ? TOOL_OK : TOOL_USAGE;
}

static int parse(struct bench *b, int argc, char **argv)
{
	static const struct option long_opts[] = {
		{"connections", required_argument, NULL, 'c'},
		{"depth", required_argument, NULL, 'd'},
		{"seconds", required_argument, NULL, 's'},
		{"ops", required_argument, NULL, 'o'},
		{"size", required_argument, NULL, 'z'},
		{"stable", required_argument, NULL, 't'},
		{"first", required_argument, NULL, 'f'},
		{"entries", required_argument, NULL, 'e'},
		{"server-pid", required_argument, NULL, 'p'},
		{"bare", no_argument, NULL, 'b'},
		{"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	int opt;

	while ((opt = getopt_long(argc, argv, "h", long_opts, NULL)) != -1) {
		uint64_t n = 0;

		if (optarg && opt != 's' && opt != 't' && size_parse(optarg, &n) < 0) {
			fprintf(stderr, "vhdnfs bench: %s: not a number\n", optarg);
			return TOOL_USAGE;
		}
		switch (opt) {
		case 'c':
			b->conns = (unsigned)n;
			break;
		case 'd':
			b->depth = (unsigned)n;
			break;
		case 's':
			b->seconds = strtod(optarg, NULL);
			break;
		case 'o':
			b->ops_max = n;
			break;
		case 'z':
			b->size = n;
			break;
		case 't':
			if (strcmp(optarg, "unstable") != 0 && strcmp(optarg, "file-sync") != 0)
				return usage(stderr);
			b->stable = strcmp(optarg, "file-sync") == 0 ? FILE_SYNC4 : UNSTABLE4;
			break;
		case 'f':
			b->first = n;
			break;
		case 'e':
			b->entries = n;
			break;
		case 'p':
			b->server = (pid_t)n;
			break;
		case 'b':
			b->bare = true;
			break;
		case 'j':
			b->json = true;
			break;
		case 'h':
			usage(stdout);
			return -1;
		default:
			return usage(stderr);
		}
	}
	if (argc - optind != (b->bare ? 1 : 2) || b->conns < 1 || b->conns > CONNS_MAX || b->depth < 1 ||
	    b->depth > DEPTH_MAX || !(b->seconds > 0 && b->seconds <= 3600) || !b->entries)
		return usage(stderr);
	for (b->mode = 0; b->mode < ARRAY_LEN(modes); b->mode++)
		if (strcmp(argv[optind], modes[b->mode].name) == 0)
			return b->size < modes[b->mode].io ? usage(stderr) : TOOL_OK;
	fprintf(stderr, "vhdnfs: no benchmark \"%s\"\n", argv[optind]);
	return TOOL_USAGE;
}

/* Finds the file; how much of it can be read. */
static int prepare(struct bench *b, const char *text, struct why *why)
{
	static char buf[NFS4_FHSIZE];
	struct nfs_attrs a = {.size = 0};
	struct nfsc *n = NULL;
	nfs_argop4 op[2];
	COMPOUND4res res;
	nfs_fh4 fh;
	int err;

	if ((err = nfs_url_parse(text, &b->url, why)) || (err = nfsc_open(&n, &b->url, why)))
		return err;
	if (!(err = nfsc_lookup(n, b->url.path, &fh, why))) {
		b->fh = (nfs_fh4){.nfs_fh4_len = fh.nfs_fh4_len, .nfs_fh4_val = buf};
		memcpy(buf, fh.nfs_fh4_val, fh.nfs_fh4_len);
		op[0] = nfsc_putfh(&b->fh);
		op[1] = (nfs_argop4){.argop = OP_GETATTR};
		op[1].nfs_argop4_u.opgetattr.attr_request = nfs_attrs_mask();
		err = nfsc_call(n, op, 2, &res);
		if (!err &&
		    !nfs_attrs_decode(
			    &res.resarray.resarray_val[2].nfs_resop4_u.opgetattr.GETATTR4res_u.resok4.obj_attributes,
			    &a))
			err = -EPROTO;
		nfsc_free(&res);
		if (b->mode == M_READ4K || b->mode == M_READ1M)
			b->size = a.size;
		if (!err && b->size < modes[b->mode].io)
			err = why_set(why, -EINVAL, "%s: smaller than one read", text);
	}
	nfsc_close(n);
	return err;
}

int cmd_bench(int argc, char **argv)
{
	struct bench b = {
		.conns = 1, .depth = 32, .seconds = 5, .entries = 1000, .size = 64u << 20, .rng = 88172645463325252u};
	struct why why = {.line = ""};
	uint64_t before, cpu;
	uint16_t port = 0;
	double took = 0;
	int err;

	if (argc > 1 && strcmp(argv[1], "hints") == 0)
		return cmd_bench_hints(argc - 1, argv + 1);
	err = parse(&b, argc, argv);
	if (err)
		return err < 0 ? TOOL_OK : err;
	if (b.bare) {
		b.server = bare_start(modes[b.mode].reply, &port);
		err = b.server < 0 ? (int)b.server : 0;
		snprintf(b.url.host, sizeof b.url.host, "127.0.0.1");
		snprintf(b.url.port, sizeof b.url.port, "%u", port);
	} else {
		err = prepare(&b, argv[optind + 1], &why);
	}
	b.ep = epoll_create1(EPOLL_CLOEXEC);
	b.conn = calloc(b.conns, sizeof *b.conn);
	for (unsigned i = 0; b.conn && i < b.conns; i++)
		b.conn[i].fd = -1;
	if (!err)
		err = b.ep < 0 || !b.conn ? -ENOMEM : connect_all(&b);
	if (!err) {
		before = cpu_ns(b.server);
		err = run(&b, &took);
		cpu = cpu_ns(b.server) - before;
		if (!err)
			report(&b, took, cpu);
	}
	disconnect_all(&b);
	if (b.ep >= 0)
		close(b.ep);
	if (b.bare && b.server > 0) {
		kill(b.server, SIGKILL);
		waitpid(b.server, NULL, 0);
	}
	if (err)
		fprintf(stderr, "vhdnfs: %s\n", why.line[0] ? why.line : nfsc_error(err));
	return err || b.errors ? TOOL_FAILED : TOOL_OK;
}

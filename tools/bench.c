/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench.c - vhdnfs bench: many small calls at once, without being the bottleneck
 *
 * Each connection has a client and a session of its own with `depth` slots. A slot owns one encoded call (bench_call.h), in
 * which only the call number, the sequenceid and what the mode changes (an offset, a name, a cookie) are set anew.
 * Calls are collected per connection and sent with one send(); of a reply only the call number (which is the slot) and
 * the status are read, and in readdir the entries. Data is read and written with the anonymous stateid; entries that
 * create makes, and lookup and remove expect, are named b00000000, b00000001, …
 */
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tools/bench.h"
#include "tools/bench_call.h"
#include "tools/bench_hints.h"
#include "tools/nfs_client.h"
#include "tools/tool.h"
#include "vhd/base/checked.h"
#include "vhd/base/clock.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/size.h"

#define CONNS_MAX 256u
#define DEPTH_MAX NFSC_SLOTS_MAX
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
	struct nfsc *n; /* NULL: --bare */
	int fd;
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

/* ---- encoding -------------------------------------------------------------------------------------------------------- */

static void put_name(struct enc *e, uint64_t i)
{
	char name[16];

	snprintf(name, sizeof name, "b%08u", (unsigned)(i % 100000000u));
	put_opaque(e, name, 9);
}

static void put_open_create(struct enc *e, uint32_t slot)
{
	put(e, OP_OPEN);
	put(e, 0);
	put(e, OPEN4_SHARE_ACCESS_WRITE);
	put(e, OPEN4_SHARE_DENY_NONE);
	put64(e, 0); /* the session's client: RFC 8881 §18.16.3 */
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
static uint32_t put_mode(struct bench *b, struct enc *e, uint32_t slot)
{
	static const stateid4 anonymous;
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
		put_read(e, &anonymous, 0, modes[b->mode].io);
		at = e->n - 12;
		break;
	case M_WRITE4K:
	case M_WRITE1M:
		put_write(e, &anonymous, 0, b->stable, modes[b->mode].io);
		at = e->n - 16;
		memset(e->p + e->n, 'v', modes[b->mode].io);
		e->n += modes[b->mode].io;
		break;
	case M_CREATE:
		put_open_create(e, slot);
		at = e->n;
		put_name(e, 0);
		put(e, OP_CLOSE);
		put(e, 0);
		put_stateid(e, &(stateid4){.seqid = 1}); /* the current stateid */
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
		put_io_advise(e, &anonymous, 0, 0, 1u << IO_ADVISE4_SEQUENTIAL);
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
		put_compound(&e, c->n, i, b->depth - 1, &b->fh, b->mode == M_LOOKUP || b->mode == M_CREATE ? 4 : 3);
		b->at_op = put_mode(b, &e, i);
		s->seq = wire_get(e.p + AT_SEQ);
	}
	call_seal(e.p, e.n);
	wire_set(e.p + AT_XID, i);
	s->len = e.n;
	return 0;
}

/* ---- setting up a connection ---------------------------------------------------------------------------------------------- */

static int connect_one(struct bench *b, struct conn *c, struct why *why)
{
	int err;

	if (b->bare)
		return (c->fd = nfsc_dial(&b->url, 0, why)) < 0 ? c->fd : 0;
	if ((err = nfsc_open_slots(&c->n, &b->url, b->depth, why)) < 0)
		return err;
	c->fd = nfsc_fd(c->n);
	b->depth = (unsigned)min_u64(b->depth, nfsc_slots(c->n));
	return 0;
}

static int connect_all(struct bench *b, struct why *why)
{
	int err;

	for (unsigned i = 0; i < b->conns; i++)
		if ((err = connect_one(b, &b->conn[i], why)) < 0)
			return err;
	for (unsigned i = 0; i < b->conns; i++) {
		struct conn *c = &b->conn[i];
		struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};

		c->out_cap = (size_t)b->depth * (FIXED + modes[b->mode].io);
		c->out = malloc(c->out_cap);
		c->in = malloc(RBUF);
		c->slot = calloc(b->depth, sizeof *c->slot);
		if (!c->out || !c->in || !c->slot)
			return -ENOMEM;
		for (uint32_t s = 0; s < b->depth; s++)
			if ((err = make_record(b, c, s)))
				return err;
		if (epoll_ctl(b->ep, EPOLL_CTL_ADD, c->fd, &ev) < 0)
			return -errno;
	}
	return 0;
}

static void disconnect_all(struct bench *b)
{
	for (unsigned i = 0; b->conn && i < b->conns; i++) {
		struct conn *c = &b->conn[i];

		if (c->n && c->flying)
			nfsc_abandon(c->n);
		else if (c->n)
			nfsc_close(c->n);
		else if (c->fd >= 0)
			close(c->fd);
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

static uint32_t reply_status(const struct bench *b, const char *r, size_t len)
{
	uint32_t io = modes[b->mode].io;

	if (b->mode == M_NULL || b->bare)
		return wire_get(r + 8) || wire_get(r + 20) ? NFS4ERR_SERVERFAULT : NFS4_OK;
	if (b->mode == M_READ4K || b->mode == M_READ1M)
		return reply_read_status(r, len, io);
	if (b->mode == M_WRITE4K || b->mode == M_WRITE1M)
		return reply_write_status(r, len, io);
	return reply_compound_status(r, len);
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

static int records(struct bench *b, struct conn *c, uint64_t t)
{
	unsigned frags;
	size_t n;

	while ((n = record_len(c->in + c->in_at, c->in_len - c->in_at, &frags))) {
		char *p = c->in + c->in_at;
		int err;

		if (frags > 1)
			record_join(p, n);
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
	char *end;
	int opt;

	while ((opt = getopt_long(argc, argv, "h", long_opts, NULL)) != -1) {
		uint64_t n = 0;

		if (optarg && opt != 's' && opt != 't' && size_parse(optarg, &n) < 0) {
			fprintf(stderr, "vhdnfs bench: %s: not a number\n", optarg);
			return TOOL_USAGE;
		}
		switch (opt) {
		case 'c':
			b->conns = (unsigned)min_u64(n, CONNS_MAX + 1);
			break;
		case 'd':
			b->depth = (unsigned)min_u64(n, DEPTH_MAX + 1);
			break;
		case 's':
			b->seconds = strtod(optarg, &end);
			if (end == optarg || *end)
				b->seconds = 0;
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
		err = b.ep < 0 || !b.conn ? -ENOMEM : connect_all(&b, &why);
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

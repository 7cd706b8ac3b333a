/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench.c - vhdnfs bench: how many operations a second, and what they cost the server
 *
 * Set-up (files, a session with a slot per request in flight) goes through nfs_client.c. The load is made here: records are
 * encoded once per slot and only xid, sequence number, offset or name are changed; replies are parsed as far as their
 * status. One thread, epoll, one send per batch: so that the generator is not what is measured.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tools/nfs_client.h"
#include "tools/tool.h"
#include "vhd/base/cleanup.h"

#define CONNS_MAX 64u
#define SLOTS_MAX 64u /* requests in flight, all connections together */
#define FILE_BYTES (64u << 20)
#define IN_BUF (4u << 20)
#define CREATES 20000u /* files made at most */
#define HIST 4096u     /* microseconds, the last one is "more" */
#define NAME_MARK "bench-XXXXXXXXXXXX"

enum kind { K_NULL, K_GETATTR, K_LOOKUP, K_READ, K_WRITE, K_CREATE, K_REMOVE, K_READDIR };

static const struct mode {
	const char *name;
	enum kind kind;
	uint32_t bytes; /* of data in one operation */
	bool random;
} modes[] = {
	{"null", K_NULL, 0, false},
	{"getattr", K_GETATTR, 0, false},
	{"lookup", K_LOOKUP, 0, false},
	{"read4k", K_READ, 4096, true},
	{"read1m", K_READ, 1u << 20, false},
	{"write4k", K_WRITE, 4096, true},
	{"write1m", K_WRITE, 1u << 20, false},
	{"create", K_CREATE, 0, false},
	{"remove", K_REMOVE, 0, false},
	{"readdir", K_READDIR, 0, false},
};

struct slot {
	uint8_t *rec; /* record mark included */
	size_t len, off_at, name_at;
	uint32_t seq;
	uint64_t sent_ns;
};

struct conn {
	int fd;
	unsigned first, n; /* slots */
	uint8_t *in, *out;
	size_t in_len, out_len, out_done, out_cap;
};

struct bench {
	const struct mode *m;
	struct nfs_url url;
	struct nfsc *client;
	nfs_fh4 dir, file;
	char dir_buf[NFS4_FHSIZE], file_buf[NFS4_FHSIZE];
	unsigned conns, depth;
	double seconds;
	uint64_t max_ops;
	bool sync;
	pid_t server;

	struct conn conn[CONNS_MAX];
	struct slot slot[SLOTS_MAX];
	uint64_t next, done, errors, stop_ns;
	uint32_t status; /* of the last operation that failed */
	uint64_t hist[HIST];
	double elapsed, cpu_us;
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Nanoseconds of CPU that all threads of the server had so far. */
static uint64_t server_cpu(pid_t pid)
{
	char path[400], text[64];
	struct dirent *e;
	uint64_t sum = 0;
	DIR *d;

	snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
	d = pid ? opendir(path) : NULL;
	while (d && (e = readdir(d))) {
		ssize_t n;
		int fd;

		snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", (int)pid, e->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		n = read(fd, text, sizeof text - 1);
		close(fd);
		if (n > 0) {
			text[n] = '\0';
			sum += strtoull(text, NULL, 10);
		}
	}
	if (d)
		closedir(d);
	return sum;
}

/* ---- records ------------------------------------------------------------------------------------------------------------------ */

static void put32(uint8_t *p, uint32_t v)
{
	v = htonl(v);
	memcpy(p, &v, 4);
}

static void put64(uint8_t *p, uint64_t v)
{
	put32(p, (uint32_t)(v >> 32));
	put32(p + 4, (uint32_t)v);
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return ntohl(v);
}

#define RPC_HEAD (4 + 24 + 8 + 20 + 8)  /* mark, call, AUTH_SYS with an empty name and no groups, verifier */
#define SEQ_AT (RPC_HEAD + 12 + 4 + 16) /* tag, minor, count; SEQUENCE, session */

static void rpc_head(uint8_t *p, size_t len, uint32_t proc)
{
	const uint32_t w[] = {0x80000000u | (uint32_t)(len - 4),
			      0,
			      0,
			      2,
			      NFS4_PROGRAM,
			      NFS_V4,
			      proc,
			      AUTH_UNIX,
			      20,
			      0,
			      0,
			      (uint32_t)getuid(),
			      (uint32_t)getgid(),
			      0,
			      AUTH_NONE,
			      0};

	for (size_t i = 0; i < ARRAY_LEN(w); i++)
		put32(p + 4 * i, w[i]);
}

static unsigned build_ops(struct bench *b, nfs_argop4 *op, char *data)
{
	static uint32_t words[2] = {0, 1u << (FATTR4_MODE - 32)}, value;
	unsigned k = 1;

	op[k++] = nfsc_putfh(b->m->kind == K_READ || b->m->kind == K_WRITE || b->m->kind == K_GETATTR ? &b->file
												      : &b->dir);
	op[k] = (nfs_argop4){.argop = OP_GETATTR};
	switch (b->m->kind) {
	case K_GETATTR:
		op[k++].nfs_argop4_u.opgetattr.attr_request = nfs_attrs_mask();
		break;
	case K_LOOKUP:
		op[k].argop = OP_LOOKUP;
		op[k++].nfs_argop4_u.oplookup.objname = (component4){10, (char *)(uintptr_t) "bench.data"};
		op[k++].argop = OP_GETFH;
		op[k] = (nfs_argop4){.argop = OP_GETATTR};
		op[k++].nfs_argop4_u.opgetattr.attr_request = nfs_attrs_mask();
		break;
	case K_READ:
		op[k].argop = OP_READ;
		op[k++].nfs_argop4_u.opread = (READ4args){.count = b->m->bytes};
		break;
	case K_WRITE:
		op[k].argop = OP_WRITE;
		op[k].nfs_argop4_u.opwrite = (WRITE4args){.stable = b->sync ? FILE_SYNC4 : UNSTABLE4};
		op[k].nfs_argop4_u.opwrite.data.data_len = b->m->bytes;
		op[k++].nfs_argop4_u.opwrite.data.data_val = data;
		break;
	case K_CREATE: {
		OPEN4args *a = &op[k].nfs_argop4_u.opopen;

		op[k++].argop = OP_OPEN;
		a->share_access = OPEN4_SHARE_ACCESS_WRITE;
		a->owner.owner.owner_len = 5;
		a->owner.owner.owner_val = (char *)(uintptr_t) "bench";
		a->openhow.opentype = OPEN4_CREATE;
		a->openhow.openflag4_u.how.mode = GUARDED4;
		value = htonl(0644);
		a->openhow.openflag4_u.how.createhow4_u.createattrs = (fattr4){{2, words}, {4, (char *)&value}};
		a->claim.claim = CLAIM_NULL;
		a->claim.open_claim4_u.file = (component4){sizeof NAME_MARK - 1, (char *)(uintptr_t)NAME_MARK};
		op[k++].argop = OP_GETFH;
		op[k].argop = OP_CLOSE;
		op[k++].nfs_argop4_u.opclose.open_stateid = (stateid4){.seqid = 1}; /* the current stateid */
		break;
	}
	case K_REMOVE:
		op[k].argop = OP_REMOVE;
		op[k++].nfs_argop4_u.opremove.target = (component4){sizeof NAME_MARK - 1, (char *)(uintptr_t)NAME_MARK};
		break;
	default:
		op[k].argop = OP_READDIR;
		op[k].nfs_argop4_u.opreaddir = (READDIR4args){.dircount = 32768, .maxcount = 1u << 20};
		op[k++].nfs_argop4_u.opreaddir.attr_request = nfs_attrs_mask();
	}
	return k;
}

static int build_slot(struct bench *b, unsigned i)
{
	struct slot *s = &b->slot[i];
	AUTO(freep) char *data = calloc(1, b->m->bytes ? b->m->bytes : 1);
	size_t cap = RPC_HEAD + 2048 + (b->m->kind == K_WRITE ? b->m->bytes : 0);
	nfs_argop4 op[8] = {{.argop = OP_SEQUENCE}};
	COMPOUND4args a = {.minorversion = nfsc_has_42(b->client) ? 2 : 1};
	uint8_t *mark;
	XDR x;

	s->rec = malloc(cap);
	if (!s->rec || !data)
		return -ENOMEM;
	s->seq = nfsc_slot_seq(b->client, i);
	if (b->m->kind == K_NULL) {
		s->len = RPC_HEAD;
		rpc_head(s->rec, s->len, 0);
		return 0;
	}
	memcpy(op[0].nfs_argop4_u.opsequence.sa_sessionid, nfsc_session(b->client), sizeof(sessionid4));
	op[0].nfs_argop4_u.opsequence.sa_slotid = i;
	op[0].nfs_argop4_u.opsequence.sa_highest_slotid = SLOTS_MAX - 1;
	a.argarray.argarray_val = op;
	a.argarray.argarray_len = build_ops(b, op, data);
	xdrmem_create(&x, (char *)s->rec + RPC_HEAD, (u_int)(cap - RPC_HEAD), XDR_ENCODE);
	if (!xdr_COMPOUND4args(&x, &a))
		return -EINVAL;
	s->len = RPC_HEAD + xdr_getpos(&x);
	xdr_destroy(&x);
	rpc_head(s->rec, s->len, 1);
	if (b->m->kind == K_READ)
		s->off_at = s->len - 12;
	if (b->m->kind == K_WRITE)
		s->off_at = s->len - b->m->bytes - 16;
	mark = memmem(s->rec, s->len, NAME_MARK, sizeof NAME_MARK - 1);
	if (mark)
		s->name_at = (size_t)(mark - s->rec);
	return 0;
}

/* ---- the load --------------------------------------------------------------------------------------------------------------------- */

static uint64_t offset_of(struct bench *b, uint64_t n)
{
	uint64_t units = FILE_BYTES / b->m->bytes;

	if (b->m->random)
		n = n * UINT64_C(2654435761) >> 7;
	return n % units * b->m->bytes;
}

static void issue(struct bench *b, struct conn *c, unsigned i)
{
	struct slot *s = &b->slot[i];
	uint64_t n = b->next++;
	char name[sizeof NAME_MARK];

	put32(s->rec + 4, i);
	if (b->m->kind != K_NULL)
		put32(s->rec + SEQ_AT, ++s->seq);
	if (s->off_at)
		put64(s->rec + s->off_at, offset_of(b, n));
	if (s->name_at) {
		snprintf(name, sizeof name, "bench-%012llu", (unsigned long long)n);
		memcpy(s->rec + s->name_at, name, sizeof name - 1);
	}
	if (c->out_len + s->len > c->out_cap) {
		uint8_t *p = realloc(c->out, (c->out_len + s->len) * 2);

		if (!p)
			return;
		c->out = p;
		c->out_cap = (c->out_len + s->len) * 2;
	}
	memcpy(c->out + c->out_len, s->rec, s->len);
	c->out_len += s->len;
	s->sent_ns = now_ns();
}

static int flush_out(struct conn *c)
{
	while (c->out_done < c->out_len) {
		ssize_t n = send(c->fd, c->out + c->out_done, c->out_len - c->out_done, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		c->out_done += (size_t)n;
	}
	c->out_len = c->out_done = 0;
	return 0;
}

/* A reply: which slot, how long it took, whether it was good; then the next request of that slot. */
static void account(struct bench *b, struct conn *c, const uint8_t *p, uint32_t len, uint64_t t)
{
	uint32_t i = get32(p);
	uint64_t us;

	if (i >= SLOTS_MAX || len < 24)
		return;
	us = (t - b->slot[i].sent_ns) / 1000;
	b->hist[us < HIST ? us : HIST - 1]++;
	b->done++;
	if (get32(p + 20) || (b->m->kind != K_NULL && (len < 28 || get32(p + 24)))) {
		b->errors++;
		b->status = len >= 28 ? get32(p + 24) : 0;
	}
	if (t < b->stop_ns && b->next < b->max_ops)
		issue(b, c, i);
}

static int take_in(struct bench *b, struct conn *c)
{
	ssize_t n = recv(c->fd, c->in + c->in_len, IN_BUF - c->in_len, MSG_DONTWAIT);
	uint64_t t = now_ns();
	size_t at = 0;

	if (n < 0)
		return errno == EAGAIN ? 0 : -errno;
	if (n == 0)
		return -ECONNRESET;
	c->in_len += (size_t)n;
	while (c->in_len - at >= 4) {
		uint32_t len = get32(c->in + at) & 0x7fffffff;

		if (c->in_len - at < 4 + len)
			break;
		account(b, c, c->in + at + 4, len, t);
		at += 4 + len;
	}
	memmove(c->in, c->in + at, c->in_len - at);
	c->in_len -= at;
	return 0;
}

static int drive(struct bench *b)
{
	struct pollfd pf[CONNS_MAX];
	uint64_t start = now_ns(), cpu = server_cpu(b->server), last = start;
	int err = 0;

	b->stop_ns = start + (uint64_t)(b->seconds * 1e9);
	for (unsigned k = 0; k < b->conns; k++) {
		struct conn *c = &b->conn[k];

		for (unsigned i = 0; i < c->n && b->next < b->max_ops; i++)
			issue(b, c, c->first + i);
		err = err ? err : flush_out(c);
	}
	while (!err && b->done < b->next) {
		for (unsigned k = 0; k < b->conns; k++)
			pf[k] = (struct pollfd){
				.fd = b->conn[k].fd,
				.events = (short)(POLLIN | (b->conn[k].out_len ? POLLOUT : 0)),
			};
		if (poll(pf, b->conns, 10000) <= 0)
			err = -ETIMEDOUT;
		for (unsigned k = 0; k < b->conns && !err; k++) {
			if (pf[k].revents & (POLLIN | POLLHUP | POLLERR))
				err = take_in(b, &b->conn[k]);
			if (!err)
				err = flush_out(&b->conn[k]);
		}
		last = now_ns();
	}
	b->elapsed = (double)(last - start) / 1e9;
	b->cpu_us = b->server ? (double)(server_cpu(b->server) - cpu) / 1e3 : 0;
	return err;
}

/* ---- set-up ------------------------------------------------------------------------------------------------------------------------ */

static int dial(const struct nfs_url *u)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *list;
	int fd, on = 1;

	if (getaddrinfo(u->host, u->port, &hints, &list))
		return -EHOSTUNREACH;
	fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, list->ai_addr, list->ai_addrlen) < 0) {
		close(fd);
		fd = -1;
	}
	freeaddrinfo(list);
	if (fd < 0)
		return -ECONNREFUSED;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	return fd;
}

/* A file with data in it for reading and overwriting. */
static int prepare_file(struct bench *b, struct why *why)
{
	AUTO(freep) char *buf = malloc(1u << 20);
	nfs_fh4 fh;
	int err;

	if (!buf)
		return -ENOMEM;
	memset(buf, 0x5a, 1u << 20);
	if ((err = nfsc_create(b->client, &b->dir, "bench.data", why)))
		return err;
	snprintf(b->url.path + strlen(b->url.path), 16, "/bench.data");
	if ((err = nfsc_lookup(b->client, b->url.path, &fh, why)))
		return err;
	memcpy(b->file_buf, fh.nfs_fh4_val, fh.nfs_fh4_len);
	b->file = (nfs_fh4){fh.nfs_fh4_len, b->file_buf};
	for (uint64_t off = 0; off < FILE_BYTES; off += 1u << 20) {
		nfs_argop4 op[2] = {nfsc_putfh(&b->file), {.argop = OP_WRITE}};
		COMPOUND4res res;

		op[1].nfs_argop4_u.opwrite.offset = off;
		op[1].nfs_argop4_u.opwrite.data.data_len = 1u << 20;
		op[1].nfs_argop4_u.opwrite.data.data_val = buf;
		err = nfsc_call(b->client, op, 2, &res);
		nfsc_free(&res);
		if (err)
			return why_set(why, err, "writing %s: %s", b->url.path, nfsc_error(err));
	}
	return 0;
}

static int prepare(struct bench *b, struct why *why)
{
	nfs_fh4 fh;
	int err = nfsc_open_slots(&b->client, &b->url, SLOTS_MAX, why);

	if (err || (err = nfsc_lookup(b->client, b->url.path, &fh, why)))
		return err;
	memcpy(b->dir_buf, fh.nfs_fh4_val, fh.nfs_fh4_len);
	b->dir = (nfs_fh4){fh.nfs_fh4_len, b->dir_buf};
	return prepare_file(b, why);
}

static int run_mode(struct bench *b, struct why *why)
{
	unsigned total = b->conns * b->depth, first = 0;
	int err = 0;

	b->next = b->done = b->errors = 0;
	memset(b->hist, 0, sizeof b->hist);
	for (unsigned k = 0; k < b->conns && !err; k++) {
		struct conn *c = &b->conn[k];

		*c = (struct conn){.fd = dial(&b->url), .first = first, .n = total / b->conns, .in = malloc(IN_BUF)};
		first += c->n;
		err = c->fd < 0 ? c->fd : c->in ? 0 : -ENOMEM;
	}
	for (unsigned i = 0; i < first && !err; i++)
		err = build_slot(b, i);
	if (!err)
		err = drive(b);
	for (unsigned i = 0; i < first; i++) {
		nfsc_set_slot_seq(b->client, i, b->slot[i].seq);
		free(b->slot[i].rec);
		b->slot[i] = (struct slot){.rec = NULL};
	}
	for (unsigned k = 0; k < b->conns; k++) {
		if (b->conn[k].fd > 0)
			close(b->conn[k].fd);
		free(b->conn[k].in);
		free(b->conn[k].out);
	}
	return err ? why_set(why, err, "%s: %s", b->m->name, nfsc_error(err)) : 0;
}

/* ---- results ----------------------------------------------------------------------------------------------------------------------- */

static unsigned percentile(const struct bench *b, double q)
{
	uint64_t want = (uint64_t)((double)b->done * q), seen = 0;
	unsigned us = 0;

	while (us < HIST - 1 && (seen += b->hist[us]) <= want)
		us++;
	return us;
}

static void report(const struct bench *b, json_t *list)
{
	double ops = (double)b->done / b->elapsed, mb = ops * b->m->bytes / 1e6, cpu = b->cpu_us / (double)b->done;

	if (list) {
		json_array_append_new(list,
				      json_pack("{s:s,s:i,s:i,s:I,s:I,s:f,s:f,s:f,s:i,s:i,s:f}", "mode", b->m->name,
						"connections", (int)b->conns, "depth", (int)b->depth, "ops",
						(json_int_t)b->done, "errors", (json_int_t)b->errors, "seconds",
						b->elapsed, "ops_per_second", ops, "mb_per_second", mb, "p50_us",
						(int)percentile(b, 0.5), "p99_us", (int)percentile(b, 0.99),
						"server_cpu_us_per_op", b->server ? cpu : -1.0));
		return;
	}
	printf("%-8s %10.0f ops/s", b->m->name, ops);
	printf(b->m->bytes ? " %8.0f MB/s" : "              ", mb);
	printf("  p50 %5u us  p99 %5u us", percentile(b, 0.5), percentile(b, 0.99));
	if (b->server)
		printf("  server CPU %7.2f us/op", cpu);
	if (b->errors)
		printf("  %llu ERRORS (%s)", (unsigned long long)b->errors, nfsc_error(-(int)b->status));
	printf("\n");
	fflush(stdout);
}

static const char help[] =
	"usage: vhdnfs bench [OPTION]… nfs://HOST[:PORT]/FOLDER\n\n"
	"Measures a server with a file of 64 MiB and many small ones in FOLDER (which it may write to).\n\n"
	"  --mode MODE       null, getattr, lookup, read4k (random), read1m, write4k (random), write1m, create\n"
	"                    (create and close), remove (what create made), readdir, or all (default)\n"
	"  --connections N   TCP connections (default 1)\n"
	"  --depth N         requests in flight on each (default 32; 64 on all together at most)\n"
	"  --seconds S       per mode (default 3)      --ops N   at most so many\n"
	"  --stable HOW      of writes: unstable (default) or file-sync\n"
	"  --server-pid PID  also what the server's CPU spent on an operation\n"
	"  --json            results as a list\n";

static const struct option options[] = {
	{"mode", required_argument, NULL, 'm'},
	{"connections", required_argument, NULL, 'c'},
	{"depth", required_argument, NULL, 'd'},
	{"seconds", required_argument, NULL, 's'},
	{"ops", required_argument, NULL, 'o'},
	{"stable", required_argument, NULL, 't'},
	{"server-pid", required_argument, NULL, 'p'},
	{"json", no_argument, NULL, 'j'},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

int cmd_bench(int argc, char **argv)
{
	AUTO(freep) struct bench *b = calloc(1, sizeof *b);
	struct why why = {.line = ""};
	const char *mode = "all";
	json_t *list = NULL;
	uint64_t given, created = CREATES;
	bool any = false, failed = false;
	int opt, err;

	if (!b)
		return TOOL_FAILED;
	b->conns = 1;
	b->depth = 32;
	b->seconds = 3;
	b->max_ops = UINT64_MAX;
	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1)
		switch (opt) {
		case 'm':
			mode = optarg;
			break;
		case 'c':
			b->conns = (unsigned)atoi(optarg);
			break;
		case 'd':
			b->depth = (unsigned)atoi(optarg);
			break;
		case 's':
			b->seconds = atof(optarg);
			break;
		case 'o':
			b->max_ops = strtoull(optarg, NULL, 10);
			break;
		case 't':
			b->sync = strcmp(optarg, "file-sync") == 0;
			break;
		case 'p':
			b->server = (pid_t)atoi(optarg);
			break;
		case 'j':
			list = json_array();
			break;
		default:
			fputs(help, opt == 'h' ? stdout : stderr);
			return opt == 'h' ? TOOL_OK : TOOL_USAGE;
		}
	if (argc - optind != 1 || b->conns < 1 || b->conns > CONNS_MAX || b->depth < 1 ||
	    b->conns * b->depth > SLOTS_MAX) {
		fputs(help, stderr);
		return TOOL_USAGE;
	}
	given = b->max_ops;
	err = nfs_url_parse(argv[optind], &b->url, &why);
	if (!err)
		err = prepare(b, &why);
	for (size_t i = 0; i < ARRAY_LEN(modes) && !err; i++) {
		if (strcmp(mode, "all") != 0 && strcmp(mode, modes[i].name) != 0)
			continue;
		any = true;
		b->m = &modes[i];
		/* File systems have a limited number of inodes; remove takes away what create made. */
		if (modes[i].kind == K_CREATE && b->max_ops > CREATES)
			b->max_ops = CREATES;
		if (modes[i].kind == K_REMOVE)
			b->max_ops = given < created ? given : created;
		err = run_mode(b, &why);
		if (!err)
			report(b, list);
		failed |= b->errors > 0;
		if (modes[i].kind == K_CREATE)
			created = b->done;
		b->max_ops = given;
	}
	if (!err && !any)
		err = why_set(&why, -EINVAL, "--mode \"%s\"; see vhdnfs bench --help", mode);
	nfsc_close(b->client);
	if (list) {
		json_dumpf(list, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(list);
	}
	if (err)
		fprintf(stderr, "vhdnfs: %s\n", why.line[0] ? why.line : nfsc_error(err));
	return err || failed ? TOOL_FAILED : TOOL_OK;
}

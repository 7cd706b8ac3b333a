/* SPDX-License-Identifier: BSD-3-Clause */
/* nfs_client.c - see nfs_client.h */
#include "tools/nfs_client.h"

#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tools/nfs_client_wire.h"
#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"

#define OPS_MAX 16u
#define MAX_IO (1u << 20)
#define TIMEOUT_SECONDS 120

struct nfsc {
	CLIENT *clnt;
	int fd; /* the client's */
	uint32_t minor;
	uint64_t clientid;
	sessionid4 session;
	bool have_client, have_session;
	char owner[128]; /* who we are, and in which life */
	verifier4 verifier;
	bool impatient;
	unsigned brief; /* seconds; 0: no hurry */
	char server_owner[64];
	uint32_t exchange_seq; /* for CREATE_SESSION */
	uint32_t seq[NFSC_SLOTS_MAX];
	unsigned slots;
	uint32_t max_io;
};

/* ---- names for errors ------------------------------------------------------------------------------------------------------ */

static const struct {
	nfsstat4 st;
	const char *name, *words;
} errors[] = {
	{NFS4ERR_PERM, "NFS4ERR_PERM", "not the owner"},
	{NFS4ERR_NOENT, "NFS4ERR_NOENT", "no such file or folder"},
	{NFS4ERR_IO, "NFS4ERR_IO", "the server could not read or write its disk"},
	{NFS4ERR_ACCESS, "NFS4ERR_ACCESS", "permission denied"},
	{NFS4ERR_EXIST, "NFS4ERR_EXIST", "exists already"},
	{NFS4ERR_NOTDIR, "NFS4ERR_NOTDIR", "not a folder"},
	{NFS4ERR_ISDIR, "NFS4ERR_ISDIR", "is a folder"},
	{NFS4ERR_INVAL, "NFS4ERR_INVAL", "invalid argument"},
	{NFS4ERR_FBIG, "NFS4ERR_FBIG", "file too large"},
	{NFS4ERR_NOSPC, "NFS4ERR_NOSPC", "no space left"},
	{NFS4ERR_ROFS, "NFS4ERR_ROFS", "read-only"},
	{NFS4ERR_NAMETOOLONG, "NFS4ERR_NAMETOOLONG", "name too long"},
	{NFS4ERR_STALE, "NFS4ERR_STALE", "no longer there"},
	{NFS4ERR_NOTSUPP, "NFS4ERR_NOTSUPP", "not supported by the server"},
	{NFS4ERR_DELAY, "NFS4ERR_DELAY", "the server is busy"},
	{NFS4ERR_GRACE, "NFS4ERR_GRACE", "the server was started anew and waits for its old clients"},
	{NFS4ERR_SHARE_DENIED, "NFS4ERR_SHARE_DENIED", "somebody else has it open exclusively"},
	{NFS4ERR_WRONGSEC, "NFS4ERR_WRONGSEC", "the server wants other credentials"},
	{NFS4ERR_SYMLINK, "NFS4ERR_SYMLINK", "is a symbolic link"},
	{NFS4ERR_WRONG_TYPE, "NFS4ERR_WRONG_TYPE", "not a regular file"},
	{NFS4ERR_MINOR_VERS_MISMATCH, "NFS4ERR_MINOR_VERS_MISMATCH", "the server has neither NFSv4.2 nor 4.1"},
};

const char *nfsc_error(int err)
{
	static _Thread_local char text[128];

	for (size_t i = 0; i < ARRAY_LEN(errors); i++)
		if ((int)errors[i].st == -err) {
			snprintf(text, sizeof text, "%s: %s", errors[i].name, errors[i].words);
			return text;
		}
	if (-err >= NFS4ERR_BADHANDLE)
		snprintf(text, sizeof text, "NFS error %d", -err);
	else
		snprintf(text, sizeof text, "%s", strerror(-err));
	return text;
}

/* ---- urls ------------------------------------------------------------------------------------------------------------------ */

static int hex(char c)
{
	if (isdigit((unsigned char)c))
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool decode_path(const char *p, char *to, size_t cap)
{
	size_t n = 0;

	if (*p != '/')
		to[n++] = '/';
	for (; *p; p++) {
		char c = *p;

		if (c == '%' && hex(p[1]) >= 0 && hex(p[2]) >= 0) {
			c = (char)(hex(p[1]) * 16 + hex(p[2]));
			p += 2;
		}
		if (!c || n + 1 >= cap)
			return false;
		to[n++] = c;
	}
	to[n] = '\0';
	return true;
}

int nfs_url_parse(const char *text, struct nfs_url *u, struct why *why)
{
	const char *p = text + 6, *end, *port = NULL, *host = p;
	size_t n;

	if (strncmp(text, "nfs://", 6) != 0)
		goto bad;
	end = p + strcspn(p, "/");
	if (*p == '[') {
		const char *close = memchr(p, ']', (size_t)(end - p));

		if (!close)
			goto bad;
		host = p + 1;
		n = (size_t)(close - host);
		port = close[1] == ':' ? close + 2 : NULL;
	} else {
		const char *colon = memchr(p, ':', (size_t)(end - p));

		n = (size_t)((colon ? colon : end) - p);
		port = colon ? colon + 1 : NULL;
	}
	if (n == 0 || n >= sizeof u->host || (port && (end - port < 1 || end - port > 5)))
		goto bad;
	memcpy(u->host, host, n);
	u->host[n] = '\0';
	snprintf(u->port, sizeof u->port, "%.*s", port ? (int)(end - port) : 4, port ? port : "2049");
	/* Five digits at most. */
	if (strspn(u->port, "0123456789") != strlen(u->port) || strtoul(u->port, NULL, 10) - 1 >= 65535 ||
	    !decode_path(end, u->path, sizeof u->path))
		goto bad;
	return 0;
bad:
	return why_set(why, -EINVAL, "%s: expected nfs://HOST[:PORT]/PATH", text);
}

/* ---- calls ----------------------------------------------------------------------------------------------------------------- */

/* Whoever reads the results goes by what was asked. */
static bool answers(const COMPOUND4res *res, const nfs_argop4 *op, unsigned nops)
{
	if (res->resarray.resarray_len != nops)
		return false;
	for (unsigned i = 0; i < nops; i++)
		if (res->resarray.resarray_val[i].resop != op[i].argop)
			return false;
	return true;
}

static int raw_call(struct nfsc *n, nfs_argop4 *op, unsigned nops, COMPOUND4res *res)
{
	static char tag[] = "";
	COMPOUND4args a = {
		.tag = {.utf8string_len = 0, .utf8string_val = tag},
		.minorversion = n->minor,
		.argarray = {.argarray_len = nops, .argarray_val = op},
	};
	const struct timeval tv = {.tv_sec = TIMEOUT_SECONDS};
	enum clnt_stat st;

	memset(res, 0, sizeof *res);
	st = clnt_call(n->clnt, NFSPROC4_COMPOUND, (xdrproc_t)xdr_COMPOUND4args, &a, (xdrproc_t)xdr_COMPOUND4res, res,
		       tv);
	if (st != RPC_SUCCESS)
		return st == RPC_TIMEDOUT ? -ETIMEDOUT : st == RPC_AUTHERROR ? -EACCES : -ECONNRESET;
	if (res->status == NFS4_OK && !answers(res, op, nops))
		return -EPROTO;
	return res->status == NFS4_OK ? 0 : -(int)res->status;
}

void nfsc_free(COMPOUND4res *res)
{
	xdr_free((xdrproc_t)xdr_COMPOUND4res, (char *)res);
	memset(res, 0, sizeof *res);
}

int nfsc_call(struct nfsc *n, nfs_argop4 *op, unsigned nops, COMPOUND4res *res)
{
	nfs_argop4 all[OPS_MAX];
	int err;

	if (nops >= OPS_MAX)
		return -EINVAL;
	for (int tries = 0;; tries++) {
		SEQUENCE4args *s = &all[0].nfs_argop4_u.opsequence;

		all[0].argop = OP_SEQUENCE;
		memcpy(s->sa_sessionid, n->session, sizeof s->sa_sessionid);
		s->sa_sequenceid = ++n->seq[0];
		s->sa_slotid = s->sa_highest_slotid = 0;
		s->sa_cachethis = FALSE;
		memcpy(all + 1, op, nops * sizeof *op);
		err = raw_call(n, all, nops + 1, res);
		/* A server that has just started lets others take back first what they had. */
		if (n->impatient ||
		    (!(err == -NFS4ERR_DELAY && tries < 50) && !(err == -NFS4ERR_GRACE && tries < 1200)))
			return err;
		nfsc_free(res);
		usleep(100000);
	}
}

/* ---- opening and closing --------------------------------------------------------------------------------------------------- */

static CLIENT *client_on(const struct nfsc *n, int fd)
{
	struct sockaddr_storage peer = {.ss_family = AF_UNSPEC};
	socklen_t len = sizeof peer;
	struct netbuf nb = {.maxlen = sizeof peer, .buf = &peer};
	CLIENT *c;

	if (getpeername(fd, (struct sockaddr *)&peer, &len) < 0)
		return NULL;
	nb.len = len;
	c = n->brief ? nfs_wire_new(fd) : clnt_vc_create(fd, &nb, NFS4_PROGRAM, NFS_V4, MAX_IO + 65536, MAX_IO + 65536);
	if (!c)
		return NULL;
	c->cl_auth = authunix_create_default();
	if (!c->cl_auth) {
		clnt_destroy(c);
		return NULL;
	}
	clnt_control(c, CLSET_FD_CLOSE, NULL);
	return c;
}

static int connect_within(int fd, const struct addrinfo *a, unsigned seconds)
{
	const struct timeval tv = {.tv_sec = (time_t)seconds};
	int on = 1;

	if (seconds && (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv) < 0 ||
			setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv) < 0))
		return -errno;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (connect(fd, a->ai_addr, a->ai_addrlen) == 0)
		return 0;
	return errno == EINPROGRESS ? -ETIMEDOUT : -errno;
}

int nfsc_dial(const struct nfs_url *u, unsigned seconds, struct why *why)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	int err = -ECONNREFUSED, fd = -1, e;
	struct addrinfo *list;

	e = getaddrinfo(u->host, u->port, &hints, &list);
	if (e)
		return why_set(why, -EHOSTUNREACH, "%s: %s", u->host, gai_strerror(e));
	for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
		fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
		err = fd < 0 ? -errno : connect_within(fd, a, seconds);
		if (err && fd >= 0) {
			close(fd);
			fd = -1;
		}
	}
	freeaddrinfo(list);
	return fd >= 0 ? fd : why_set(why, err, "%s port %s: %s", u->host, u->port, strerror(-err));
}

static int dial(struct nfsc *n, const struct nfs_url *u, struct why *why)
{
	int fd = nfsc_dial(u, n->brief, why);

	if (fd < 0)
		return fd;
	n->clnt = client_on(n, fd);
	if (n->clnt) {
		n->fd = fd;
		return 0;
	}
	close(fd);
	return -ENOMEM;
}

static void name_self(struct nfsc *n)
{
	char host[64] = "";
	struct timespec t;

	gethostname(host, sizeof host - 1);
	clock_gettime(CLOCK_REALTIME, &t);
	snprintf(n->owner, sizeof n->owner, "vhdnfs %s %d %lld.%09ld", host, (int)getpid(), (long long)t.tv_sec,
		 t.tv_nsec);
	memcpy(n->verifier, &t.tv_nsec, sizeof n->verifier);
}

static int exchange_id(struct nfsc *n)
{
	nfs_argop4 op = {.argop = OP_EXCHANGE_ID};
	EXCHANGE_ID4args *a = &op.nfs_argop4_u.opexchange_id;
	COMPOUND4res res;
	int err;

	a->eia_clientowner.co_ownerid.co_ownerid_len = (u_int)strlen(n->owner);
	a->eia_clientowner.co_ownerid.co_ownerid_val = n->owner;
	memcpy(a->eia_clientowner.co_verifier, n->verifier, sizeof a->eia_clientowner.co_verifier);
	a->eia_state_protect.spa_how = SP4_NONE;
	err = raw_call(n, &op, 1, &res);
	if (err == -NFS4ERR_MINOR_VERS_MISMATCH && n->minor == 2) {
		nfsc_free(&res);
		n->minor = 1;
		err = raw_call(n, &op, 1, &res);
	}
	if (!err) {
		const EXCHANGE_ID4resok *ok =
			&res.resarray.resarray_val[0].nfs_resop4_u.opexchange_id.EXCHANGE_ID4res_u.eir_resok4;

		n->clientid = ok->eir_clientid;
		n->exchange_seq = ok->eir_sequenceid;
		snprintf(n->server_owner, sizeof n->server_owner, "%.*s",
			 (int)ok->eir_server_owner.so_major_id.so_major_id_len,
			 ok->eir_server_owner.so_major_id.so_major_id_val);
		n->have_client = true;
	}
	nfsc_free(&res);
	return err;
}

static int create_session(struct nfsc *n)
{
	nfs_argop4 op = {.argop = OP_CREATE_SESSION};
	CREATE_SESSION4args *a = &op.nfs_argop4_u.opcreate_session;
	callback_sec_parms4 sec = {.cb_secflavor = AUTH_NONE};
	COMPOUND4res res;
	int err;

	a->csa_clientid = n->clientid;
	a->csa_sequence = n->exchange_seq;
	a->csa_fore_chan_attrs = (channel_attrs4){
		.ca_maxrequestsize = MAX_IO + 65536,
		.ca_maxresponsesize = MAX_IO + 65536,
		.ca_maxresponsesize_cached = 4096,
		.ca_maxoperations = OPS_MAX,
		.ca_maxrequests = n->slots,
	};
	a->csa_back_chan_attrs = (channel_attrs4){
		.ca_maxrequestsize = 4096,
		.ca_maxresponsesize = 4096,
		.ca_maxoperations = 2,
		.ca_maxrequests = 1,
	};
	a->csa_cb_program = 0x40000000;
	a->csa_sec_parms.csa_sec_parms_len = 1;
	a->csa_sec_parms.csa_sec_parms_val = &sec;
	err = raw_call(n, &op, 1, &res);
	if (!err) {
		const CREATE_SESSION4resok *ok =
			&res.resarray.resarray_val[0].nfs_resop4_u.opcreate_session.CREATE_SESSION4res_u.csr_resok4;
		uint32_t room = ok->csr_fore_chan_attrs.ca_maxrequestsize;

		if (room > ok->csr_fore_chan_attrs.ca_maxresponsesize)
			room = ok->csr_fore_chan_attrs.ca_maxresponsesize;
		memcpy(n->session, ok->csr_sessionid, sizeof n->session);
		n->slots = (unsigned)min_u64(n->slots, ok->csr_fore_chan_attrs.ca_maxrequests);
		n->max_io = room > MAX_IO + 1024 ? MAX_IO : room > 2048 ? room - 1024 : 1024;
		n->have_session = true;
	}
	nfsc_free(&res);
	return err;
}

int nfsc_reclaim_complete(struct nfsc *n)
{
	nfs_argop4 op = {.argop = OP_RECLAIM_COMPLETE};
	COMPOUND4res res;
	int err = nfsc_call(n, &op, 1, &res);

	nfsc_free(&res);
	return err;
}

static void hang_up(struct nfsc *n)
{
	if (!n->clnt)
		return;
	auth_destroy(n->clnt->cl_auth);
	clnt_destroy(n->clnt);
	n->clnt = NULL;
}

void nfsc_abandon(struct nfsc *n)
{
	if (n)
		hang_up(n);
	free(n);
}

void nfsc_close(struct nfsc *n)
{
	COMPOUND4res res;

	if (!n)
		return;
	if (n->have_session) {
		nfs_argop4 op = {.argop = OP_DESTROY_SESSION};

		memcpy(op.nfs_argop4_u.opdestroy_session.dsa_sessionid, n->session, sizeof n->session);
		raw_call(n, &op, 1, &res);
		nfsc_free(&res);
	}
	if (n->have_client) {
		nfs_argop4 op = {.argop = OP_DESTROY_CLIENTID};

		op.nfs_argop4_u.opdestroy_clientid.dca_clientid = n->clientid;
		raw_call(n, &op, 1, &res);
		nfsc_free(&res);
	}
	hang_up(n);
	free(n);
}

int nfsc_open(struct nfsc **out, const struct nfs_url *u, struct why *why)
{
	return nfsc_open_slots(out, u, 1, why);
}

static int open_client(struct nfsc **out, const struct nfs_url *u, unsigned slots, unsigned brief, struct why *why)
{
	struct nfsc *n = calloc(1, sizeof *n);
	int err;

	if (!n)
		return -ENOMEM;
	n->minor = 2;
	n->brief = brief;
	n->impatient = brief != 0;
	n->slots = slots < NFSC_SLOTS_MAX ? slots : NFSC_SLOTS_MAX;
	name_self(n);
	err = dial(n, u, why);
	if (!err && ((err = exchange_id(n)) || (err = create_session(n)) || (err = nfsc_reclaim_complete(n))))
		why_set(why, err, "%s port %s: %s", u->host, u->port, nfsc_error(err));
	if (err) {
		if (brief)
			nfsc_abandon(n);
		else
			nfsc_close(n);
		return err;
	}
	*out = n;
	return 0;
}

int nfsc_open_slots(struct nfsc **out, const struct nfs_url *u, unsigned slots, struct why *why)
{
	return open_client(out, u, slots, 0, why);
}

int nfsc_open_brief(struct nfsc **out, const struct nfs_url *u, unsigned seconds, struct why *why)
{
	return open_client(out, u, 1, seconds, why);
}

int nfsc_again(struct nfsc *n, const struct nfs_url *u, struct why *why)
{
	int err;

	hang_up(n);
	n->have_client = n->have_session = false;
	memset(n->seq, 0, sizeof n->seq);
	err = dial(n, u, why);
	if (!err && ((err = exchange_id(n)) || (err = create_session(n))))
		why_set(why, err, "%s port %s: %s", u->host, u->port, nfsc_error(err));
	return err;
}

void nfsc_set_impatient(struct nfsc *n, bool on)
{
	n->impatient = on;
}

uint32_t nfsc_max_io(const struct nfsc *n)
{
	return n->max_io;
}

const char *nfsc_server_owner(const struct nfsc *n)
{
	return n->server_owner;
}

bool nfsc_has_42(const struct nfsc *n)
{
	return n->minor == 2;
}

static int use_auth(struct nfsc *n, AUTH *auth)
{
	if (!auth)
		return -ENOMEM;
	auth_destroy(n->clnt->cl_auth);
	n->clnt->cl_auth = auth;
	return 0;
}

int nfsc_set_own_cred(struct nfsc *n)
{
	return use_auth(n, authunix_create_default());
}

int nfsc_set_no_cred(struct nfsc *n)
{
	return use_auth(n, authnone_create());
}

int nfsc_set_cred(struct nfsc *n, uint32_t uid, uint32_t gid, unsigned ngroups, const uint32_t *groups)
{
	char name[] = "client";
	gid_t list[16];

	if (ngroups > 16)
		return -EINVAL;
	for (unsigned i = 0; i < ngroups; i++)
		list[i] = groups[i];
	return use_auth(n, authunix_create(name, uid, gid, (int)ngroups, list));
}

int nfsc_fd(const struct nfsc *n)
{
	return n->fd;
}

unsigned nfsc_slots(const struct nfsc *n)
{
	return n->slots;
}

const char *nfsc_session(const struct nfsc *n)
{
	return n->session;
}

uint32_t nfsc_slot_seq(const struct nfsc *n, unsigned slot)
{
	return n->seq[slot];
}

void nfsc_set_slot_seq(struct nfsc *n, unsigned slot, uint32_t seq)
{
	n->seq[slot] = seq;
}

int nfsc_create(struct nfsc *n, const nfs_fh4 *dir, const char *name, struct why *why)
{
	static uint32_t words[2] = {0, 1u << (FATTR4_MODE - 32)};
	uint32_t mode = htonl(0666);
	nfs_argop4 op[3] = {nfsc_putfh(dir), {.argop = OP_OPEN}, {.argop = OP_CLOSE}};
	OPEN4args *a = &op[1].nfs_argop4_u.opopen;
	COMPOUND4res res;
	int err;

	a->share_access = OPEN4_SHARE_ACCESS_WRITE;
	a->owner.owner.owner_len = 6;
	a->owner.owner.owner_val = (char *)(uintptr_t) "vhdnfs";
	a->openhow.opentype = OPEN4_CREATE;
	a->openhow.openflag4_u.how.mode = UNCHECKED4;
	a->openhow.openflag4_u.how.createhow4_u.createattrs = (fattr4){{2, words}, {4, (char *)&mode}};
	a->claim.claim = CLAIM_NULL;
	a->claim.open_claim4_u.file = (component4){(u_int)strlen(name), (char *)(uintptr_t)name};
	op[2].nfs_argop4_u.opclose.open_stateid = (stateid4){.seqid = 1}; /* the current stateid */
	err = nfsc_call(n, op, 3, &res);
	nfsc_free(&res);
	return err ? why_set(why, err, "%s: %s", name, nfsc_error(err)) : 0;
}

int nfsc_open_fh(struct nfsc *n, const nfs_fh4 *fh, uint32_t access, const char *owner, stateid4 *sid)
{
	nfs_argop4 op[2] = {nfsc_putfh(fh), {.argop = OP_OPEN}};
	OPEN4args *a = &op[1].nfs_argop4_u.opopen;
	COMPOUND4res res;
	int err;

	a->share_access = access;
	a->share_deny = OPEN4_SHARE_DENY_NONE;
	a->owner.owner.owner_len = (u_int)strlen(owner);
	a->owner.owner.owner_val = (char *)(uintptr_t)owner;
	a->openhow.opentype = OPEN4_NOCREATE;
	a->claim.claim = CLAIM_FH;
	err = nfsc_call(n, op, 2, &res);
	if (!err)
		*sid = res.resarray.resarray_val[2].nfs_resop4_u.opopen.OPEN4res_u.resok4.stateid;
	nfsc_free(&res);
	return err;
}

int nfsc_close_fh(struct nfsc *n, const nfs_fh4 *fh, const stateid4 *sid)
{
	nfs_argop4 op[2] = {nfsc_putfh(fh), {.argop = OP_CLOSE}};
	COMPOUND4res res;
	int err;

	op[1].nfs_argop4_u.opclose.open_stateid = *sid;
	err = nfsc_call(n, op, 2, &res);
	nfsc_free(&res);
	return err;
}

/* ---- paths ----------------------------------------------------------------------------------------------------------------- */

/* One component at a time: simple, and the error names the place. */
int nfsc_lookup(struct nfsc *n, const char *path, nfs_fh4 *fh, struct why *why)
{
	static _Thread_local char buf[NFS4_FHSIZE];
	bool root = true;

	fh->nfs_fh4_len = 0;
	fh->nfs_fh4_val = buf;
	for (const char *p = path;;) {
		nfs_argop4 op[3];
		unsigned k = 0;
		COMPOUND4res res;
		size_t len;
		int err;

		while (*p == '/')
			p++;
		len = strcspn(p, "/");
		if (!len && !root)
			return 0;
		op[k] = nfsc_putfh(fh);
		if (root)
			op[k] = (nfs_argop4){.argop = OP_PUTROOTFH};
		k++;
		if (len) {
			op[k].argop = OP_LOOKUP;
			op[k].nfs_argop4_u.oplookup.objname = (component4){.utf8string_len = (u_int)len,
									   .utf8string_val = (char *)(uintptr_t)p};
			k++;
		}
		op[k++].argop = OP_GETFH;
		err = nfsc_call(n, op, k, &res);
		if (!err) {
			const nfs_fh4 *got =
				&res.resarray.resarray_val[k].nfs_resop4_u.opgetfh.GETFH4res_u.resok4.object;

			memcpy(buf, got->nfs_fh4_val, got->nfs_fh4_len);
			fh->nfs_fh4_len = got->nfs_fh4_len;
		}
		nfsc_free(&res);
		if (err)
			return why_set(why, err, "%.*s: %s", (int)(p + len - path), path, nfsc_error(err));
		root = false;
		p += len;
	}
}

/* ---- attributes -------------------------------------------------------------------------------------------------------------- */

bitmap4 nfs_attrs_mask(void)
{
	static uint32_t w[2] = {
		1u << FATTR4_TYPE | 1u << FATTR4_CHANGE | 1u << FATTR4_SIZE | 1u << FATTR4_FILEID,
		1u << (FATTR4_MODE - 32) | 1u << (FATTR4_NUMLINKS - 32) | 1u << (FATTR4_OWNER - 32) |
			1u << (FATTR4_OWNER_GROUP - 32) | 1u << (FATTR4_RAWDEV - 32) | 1u << (FATTR4_SPACE_USED - 32) |
			1u << (FATTR4_TIME_ACCESS - 32) | 1u << (FATTR4_TIME_METADATA - 32) |
			1u << (FATTR4_TIME_MODIFY - 32),
	};

	return (bitmap4){.bitmap4_len = 2, .bitmap4_val = w};
}

static bool get_text(XDR *x, char *to, size_t cap)
{
	char *p = NULL;
	u_int len = 0;

	if (!xdr_bytes(x, &p, &len, 1024))
		return false;
	snprintf(to, cap, "%.*s", (int)len, p);
	free(p);
	return true;
}

static bool get_time(XDR *x, int64_t *s, uint32_t *ns)
{
	return xdr_int64_t(x, s) && xdr_uint32_t(x, ns);
}

bool nfs_attrs_decode(const fattr4 *f, struct nfs_attrs *a)
{
	uint32_t w0 = f->attrmask.bitmap4_len > 0 ? f->attrmask.bitmap4_val[0] : 0;
	uint32_t w1 = f->attrmask.bitmap4_len > 1 ? f->attrmask.bitmap4_val[1] : 0;
	bool ok = true;
	XDR x;

#define HAS0(n) (w0 & 1u << (n))
#define HAS1(n) (w1 & 1u << ((n)-32))
	memset(a, 0, sizeof *a);
	xdrmem_create(&x, f->attr_vals.attrlist4_val, f->attr_vals.attrlist4_len, XDR_DECODE);
	ok = ok && (!HAS0(FATTR4_TYPE) || xdr_uint32_t(&x, &a->type));
	ok = ok && (!HAS0(FATTR4_CHANGE) || xdr_uint64_t(&x, &a->change));
	ok = ok && (!HAS0(FATTR4_SIZE) || xdr_uint64_t(&x, &a->size));
	ok = ok && (!HAS0(FATTR4_FILEID) || xdr_uint64_t(&x, &a->fileid));
	ok = ok && (!HAS1(FATTR4_MODE) || xdr_uint32_t(&x, &a->mode));
	ok = ok && (!HAS1(FATTR4_NUMLINKS) || xdr_uint32_t(&x, &a->nlink));
	ok = ok && (!HAS1(FATTR4_OWNER) || get_text(&x, a->owner, sizeof a->owner));
	ok = ok && (!HAS1(FATTR4_OWNER_GROUP) || get_text(&x, a->group, sizeof a->group));
	ok = ok && (!HAS1(FATTR4_RAWDEV) || (xdr_uint32_t(&x, &a->dev_major) && xdr_uint32_t(&x, &a->dev_minor)));
	ok = ok && (!HAS1(FATTR4_SPACE_USED) || xdr_uint64_t(&x, &a->used));
	ok = ok && (!HAS1(FATTR4_TIME_ACCESS) || get_time(&x, &a->atime, &a->atime_ns));
	ok = ok && (!HAS1(FATTR4_TIME_METADATA) || get_time(&x, &a->ctime, &a->ctime_ns));
	ok = ok && (!HAS1(FATTR4_TIME_MODIFY) || get_time(&x, &a->mtime, &a->mtime_ns));
	xdr_destroy(&x);
	return ok;
#undef HAS0
#undef HAS1
}

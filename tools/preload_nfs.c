/* SPDX-License-Identifier: BSD-3-Clause */
/* preload_nfs.c - servers, and what is said to them about files: a session, OPEN, IO_ADVISE (RFC 7862 §15.5), CLOSE; see preload.h */
#include "tools/preload.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/nfs_client.h"

#define PATIENCE_SECONDS 5   /* for a connection, and for a reply */
#define RETRY_MS 60000u      /* after a server that could not be reached */
#define LEASE_SECONDS_MIN 3u /* what we can keep up with */
#define LOOKUPS 10u          /* of one COMPOUND */

_Static_assert(PRE_NORMAL == 1 << IO_ADVISE4_NORMAL && PRE_SEQUENTIAL == 1 << IO_ADVISE4_SEQUENTIAL &&
		       PRE_RANDOM == 1 << IO_ADVISE4_RANDOM && PRE_WILLNEED == 1 << IO_ADVISE4_WILLNEED &&
		       PRE_DONTNEED == 1 << IO_ADVISE4_DONTNEED && PRE_NOREUSE == 1 << IO_ADVISE4_NOREUSE,
	       "the bits of preload.h are those of the protocol");

struct pre_server {
	struct list link;
	struct nfs_url url;
	struct nfsc *nfs; /* NULL: not connected */
	bool off;         /* for good: it is not one of ours */
	uint64_t retry_at, said_at, lease_ms;
	uid_t uid; /* whose credentials the session uses */
	gid_t gid;
};

static struct list servers = LIST_INIT(servers);

void pre_nfs_after_fork(void)
{
	list_init(&servers);
}

struct pre_server *pre_server_get(const struct pre_mount *m)
{
	struct pre_server *s;

	list_for_each (l, &servers) {
		s = list_entry(l, struct pre_server, link);
		if (strcmp(s->url.host, m->host) == 0 && strcmp(s->url.port, m->port) == 0)
			return s;
	}
	s = calloc(1, sizeof *s);
	if (!s)
		return NULL;
	memcpy(s->url.host, m->host, sizeof s->url.host);
	memcpy(s->url.port, m->port, sizeof s->url.port);
	list_push_back(&servers, &s->link);
	return s;
}

/* ---- the session ----------------------------------------------------------------------------------------------------------------- */

/* Errors after which the session, or the connection, is of no use any more. */
static bool is_lost(int err)
{
	static const int lost[] = {ECONNRESET,
				   EPROTO,
				   ETIMEDOUT,
				   NFS4ERR_BADSESSION,
				   NFS4ERR_BADSLOT,
				   NFS4ERR_DEADSESSION,
				   NFS4ERR_SEQ_MISORDERED,
				   NFS4ERR_STALE_CLIENTID,
				   NFS4ERR_SEQ_FALSE_RETRY,
				   NFS4ERR_CONN_NOT_BOUND_TO_SESSION};

	for (size_t i = 0; i < ARRAY_LEN(lost); i++)
		if (err == -lost[i])
			return true;
	return false;
}

static void lose(struct pre_server *s)
{
	nfsc_abandon(s->nfs);
	s->nfs = NULL;
	pre_forget_opens(s);
}

/* After each call, of which @err is what it returned. */
static int said(struct pre_server *s, int err)
{
	s->said_at = pre_now_ms();
	if (is_lost(err))
		lose(s);
	return err;
}

static int call(struct pre_server *s, nfs_argop4 *op, unsigned nops, COMPOUND4res *res)
{
	return said(s, nfsc_call(s->nfs, op, nops, res));
}

static int read_lease(struct pre_server *s)
{
	static uint32_t word = 1u << FATTR4_LEASE_TIME;
	nfs_argop4 op[2] = {{.argop = OP_PUTROOTFH}, {.argop = OP_GETATTR}};
	uint32_t seconds = 0;
	COMPOUND4res res;
	int err;

	op[1].nfs_argop4_u.opgetattr.attr_request = (bitmap4){.bitmap4_len = 1, .bitmap4_val = &word};
	err = call(s, op, 2, &res);
	if (!err) {
		const attrlist4 *v = &res.resarray.resarray_val[2]
					      .nfs_resop4_u.opgetattr.GETATTR4res_u.resok4.obj_attributes.attr_vals;

		if (v->attrlist4_len >= 4) {
			memcpy(&seconds, v->attrlist4_val, 4);
			seconds = ntohl(seconds);
		}
		s->lease_ms = 1000ull * (seconds < LEASE_SECONDS_MIN ? LEASE_SECONDS_MIN : seconds);
	}
	nfsc_free(&res);
	return err;
}

/* For good. Its session is not needed any more. */
static int not_ours(struct pre_server *s, const char *reason)
{
	pre_log("%s: %s; no hints for it", s->url.host, reason);
	s->off = true;
	pre_forget_opens(s);
	nfsc_close(s->nfs);
	s->nfs = NULL;
	return -ENOTSUP;
}

static int connect_to(struct pre_server *s)
{
	struct why why = {.line = ""};
	int err;

	if (s->off || pre_now_ms() < s->retry_at)
		return -ENOTSUP;
	s->uid = geteuid();
	s->gid = getegid();
	err = nfsc_open_brief(&s->nfs, &s->url, PATIENCE_SECONDS, &why);
	if (err) {
		pre_log("%s; no hints for now", why.line[0] ? why.line : nfsc_error(err));
		s->nfs = NULL;
		s->retry_at = pre_now_ms() + RETRY_MS;
		return err;
	}
	if (strncmp(nfsc_server_owner(s->nfs), "vhdnfs", 6) != 0)
		return not_ours(s, "not a vhdnfs server");
	if (!nfsc_has_42(s->nfs))
		return not_ours(s, "no NFSv4.2");
	return read_lease(s);
}

/* A session, with the credentials that the process has now. */
static int ready(struct pre_server *s)
{
	int err = s->nfs ? 0 : connect_to(s);

	if (!err && (s->uid != geteuid() || s->gid != getegid())) {
		err = nfsc_set_own_cred(s->nfs);
		s->uid = geteuid();
		s->gid = getegid();
	}
	return err;
}

/* ---- files ----------------------------------------------------------------------------------------------------------------------- */

static unsigned put_lookups(nfs_argop4 *op, const char **path)
{
	unsigned k = 0;

	while (k < LOOKUPS) {
		size_t len;

		*path += strspn(*path, "/");
		len = strcspn(*path, "/");
		if (!len)
			break;
		op[k].argop = OP_LOOKUP;
		op[k++].nfs_argop4_u.oplookup.objname = (component4){.utf8string_len = (u_int)len,
								     .utf8string_val = (char *)(uintptr_t)*path};
		*path += len;
	}
	return k;
}

static bool keep_fh(struct pre_file *f, const nfs_fh4 *fh)
{
	if (!fh->nfs_fh4_len || fh->nfs_fh4_len > sizeof f->fh)
		return false;
	memcpy(f->fh, fh->nfs_fh4_val, fh->nfs_fh4_len);
	f->fh_len = fh->nfs_fh4_len;
	return true;
}

static nfs_fh4 fh_of(const struct pre_file *f)
{
	return (nfs_fh4){.nfs_fh4_len = f->fh_len, .nfs_fh4_val = (char *)(uintptr_t)f->fh};
}

static nfs_argop4 putfh(const struct pre_file *f)
{
	const nfs_fh4 fh = fh_of(f);

	return nfsc_putfh(&fh);
}

/* The name may lead to another file than the one the program has: it was renamed meanwhile, or removed. */
static int look_up(struct pre_file *f)
{
	const char *path = f->path;
	bool same = false;
	int err = 0;

	f->fh_len = 0;
	do {
		nfs_argop4 op[LOOKUPS + 3] = {{.argop = OP_PUTROOTFH}};
		struct nfs_attrs attrs;
		COMPOUND4res res;
		unsigned k;

		if (f->fh_len)
			op[0] = putfh(f);
		k = 1 + put_lookups(op + 1, &path);
		op[k++].argop = OP_GETFH;
		op[k].argop = OP_GETATTR;
		op[k++].nfs_argop4_u.opgetattr.attr_request = nfs_attrs_mask();
		err = call(f->server, op, k, &res);
		if (!err) {
			const nfs_resop4 *r = res.resarray.resarray_val; /* SEQUENCE's first */

			if (!keep_fh(f, &r[k - 1].nfs_resop4_u.opgetfh.GETFH4res_u.resok4.object) ||
			    !nfs_attrs_decode(&r[k].nfs_resop4_u.opgetattr.GETATTR4res_u.resok4.obj_attributes, &attrs))
				err = -EPROTO;
			else
				same = attrs.type == NF4REG && attrs.fileid == f->id.ino;
		}
		nfsc_free(&res);
	} while (!err && *path);
	if (!err && !same)
		err = -ESTALE;
	if (err)
		f->fh_len = 0;
	return err;
}

static int open_for(struct pre_file *f, uint32_t access, stateid4 *sid)
{
	const nfs_fh4 fh = fh_of(f);

	return said(f->server, nfsc_open_fh(f->server->nfs, &fh, access | OPEN4_SHARE_ACCESS_WANT_NO_DELEG,
					    "vhdnfs-fadvise", sid));
}

/* Hints hold while somebody has the file open: us, for the program. A program that may only write it has it open for that. */
static int open_file(struct pre_file *f)
{
	stateid4 sid;
	int err = open_for(f, OPEN4_SHARE_ACCESS_READ, &sid);

	if (err == -NFS4ERR_ACCESS)
		err = open_for(f, OPEN4_SHARE_ACCESS_WRITE, &sid);
	if (err)
		return err;
	f->opened = true;
	f->seqid = sid.seqid;
	memcpy(f->other, sid.other, sizeof f->other);
	return 0;
}

static void log_hints(const struct pre_file *f, uint32_t hints, uint64_t off, uint64_t len, const char *outcome,
		      uint32_t got)
{
	static const char *const names[] = {[IO_ADVISE4_NORMAL] = "normal",     [IO_ADVISE4_SEQUENTIAL] = "sequential",
					    [IO_ADVISE4_RANDOM] = "random",     [IO_ADVISE4_WILLNEED] = "willneed",
					    [IO_ADVISE4_DONTNEED] = "dontneed", [IO_ADVISE4_NOREUSE] = "noreuse"};
	char text[2][64] = {"", ""};
	const uint32_t words[2] = {hints, got};

	for (int i = 0; i < 2; i++)
		for (size_t h = 0, n = 0; h < ARRAY_LEN(names); h++)
			if (names[h] && words[i] & 1u << h && n < sizeof text[i] - 12)
				n += (size_t)snprintf(text[i] + n, sizeof text[i] - n, "%s%s", n ? " " : "", names[h]);
	pre_log("%s%s: %s of %llu+%llu: %s%s", f->server->url.host, f->path, text[0], (unsigned long long)off,
		(unsigned long long)len, outcome, got || hints == 0 ? text[1] : "");
}

static int advise(struct pre_file *f, uint32_t hints, uint64_t off, uint64_t len)
{
	stateid4 sid = {.seqid = 0};
	nfs_argop4 op[2] = {putfh(f)};
	COMPOUND4res res;
	int err;

	if (f->opened) {
		sid.seqid = f->seqid;
		memcpy(sid.other, f->other, sizeof f->other);
	}
	op[1] = nfsc_io_advise(&sid, off, len, &hints);
	err = call(f->server, op, 2, &res);
	if (!err) {
		uint32_t got = nfsc_followed(&res, 2);

		log_hints(f, hints, off, len, got ? "honours " : "honours none", got);
	}
	nfsc_free(&res);
	return err == -NFS4ERR_NOTSUPP || err == -NFS4ERR_OP_ILLEGAL ? not_ours(f->server, "no IO_ADVISE") : err;
}

static int make_ready(struct pre_file *f)
{
	int err = ready(f->server);

	if (!err && !f->fh_len)
		err = look_up(f);
	return err;
}

static int try_to_say(struct pre_file *f, uint32_t hints, uint64_t off, uint64_t len)
{
	int err = make_ready(f);

	if (!err && !f->opened && (err = open_file(f)) && f->server->nfs) {
		/* Refused: then without. It is nobody's word until the server has taken back what it gave before it was started. */
		f->again = err == -NFS4ERR_GRACE;
		err = 0;
	}
	return err ? err : advise(f, hints, off, len);
}

/* What holds until the file is closed, and would be lost with the session. */
static void remember(struct pre_file *f, uint32_t hints)
{
	if (hints & (PRE_NORMAL | PRE_SEQUENTIAL | PRE_RANDOM))
		f->holds &= hints & PRE_NORMAL ? 0 : PRE_NOREUSE;
	f->holds |= hints & (PRE_SEQUENTIAL | PRE_RANDOM | PRE_NOREUSE);
}

void pre_say_again(struct pre_file *f)
{
	int err;

	if (!f->again || !f->holds || make_ready(f))
		return;
	err = f->opened ? 0 : open_file(f);
	if (err == -NFS4ERR_GRACE || !f->server->nfs)
		return;
	f->again = false;
	if (!err)
		advise(f, f->holds, 0, 0);
}

/* What a server says of a file, or an open, that it has no more. */
static bool is_stale(int err)
{
	return err == -NFS4ERR_STALE || err == -NFS4ERR_BADHANDLE || err == -NFS4ERR_FHEXPIRED ||
	       err == -NFS4ERR_BAD_STATEID || err == -NFS4ERR_OLD_STATEID || err == -NFS4ERR_EXPIRED ||
	       err == -NFS4ERR_ADMIN_REVOKED;
}

void pre_say(struct pre_file *f, uint32_t hints, uint64_t off, uint64_t len)
{
	bool connected = f->server->nfs != NULL;
	int err;

	remember(f, hints);
	err = try_to_say(f, hints, off, len);
	/* A server that was started anew, or a lease that ended while the program was stopped. */
	if (err && ((connected && !f->server->nfs && !f->server->off) || is_stale(err))) {
		f->opened = false;
		if (is_stale(err))
			f->fh_len = 0;
		err = try_to_say(f, hints, off, len);
	}
	if (err && !f->server->off && f->server->nfs)
		log_hints(f, hints, off, len, nfsc_error(err), 0);
}

void pre_say_closed(struct pre_file *f)
{
	const nfs_fh4 fh = fh_of(f);
	stateid4 sid = {.seqid = f->seqid};

	if (!f->opened || !f->server->nfs)
		return;
	memcpy(sid.other, f->other, sizeof f->other);
	said(f->server, nfsc_close_fh(f->server->nfs, &fh, &sid));
	f->opened = false;
}

/* ---- leases ---------------------------------------------------------------------------------------------------------------------- */

bool pre_renew(void)
{
	bool any = false;

	list_for_each (l, &servers) {
		struct pre_server *s = list_entry(l, struct pre_server, link);
		nfs_argop4 none[1] = {{.argop = OP_ILLEGAL}};
		COMPOUND4res res;

		if (!s->nfs || pre_now_ms() - s->said_at < s->lease_ms / 3)
			continue;
		any = true;
		call(s, none, 0, &res);
		nfsc_free(&res);
	}
	return any;
}

void pre_servers_end(void)
{
	list_for_each (l, &servers) {
		struct pre_server *s = list_entry(l, struct pre_server, link);

		nfsc_close(s->nfs);
		s->nfs = NULL;
	}
}

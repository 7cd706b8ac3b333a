/* SPDX-License-Identifier: BSD-3-Clause */
/* remote.c - see remote.h */
#include "tools/remote.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/tool.h"

#define LINKS_MAX 40
#define STOP_TICKS 50 /* of 100 ms, to tidy up in */

/* ---- signals ---------------------------------------------------------------------------------------------------------------- */

/* A thread takes them: libtirpc lets none through while a call is under way, which may be for ever. */

atomic_int remote_stopped;
static pthread_t worker;
static sigset_t watched;

static void no_op(int sig)
{
	(void)sig;
}

static void die(int sig)
{
	sigset_t one;

	signal(sig, SIG_DFL);
	sigemptyset(&one);
	sigaddset(&one, sig);
	pthread_sigmask(SIG_UNBLOCK, &one, NULL);
	raise(sig);
}

static void *watch(void *arg)
{
	const struct timespec tick = {.tv_nsec = 100 * 1000 * 1000};
	int sig = SIGTERM;

	sigwait(&watched, &sig);
	atomic_store(&remote_stopped, sig);
	/* Out of a read() that waits, again and again: it may just begin. */
	for (int i = 0; i < STOP_TICKS; i++) {
		pthread_kill(worker, SIGUSR1);
		if (sigtimedwait(&watched, NULL, &tick) > 0)
			break;
	}
	die(sig);
	return arg;
}

void remote_catch_signals(void)
{
	const struct sigaction sa = {.sa_handler = no_op};
	pthread_t thread;

	worker = pthread_self();
	sigaction(SIGUSR1, &sa, NULL);
	sigemptyset(&watched);
	sigaddset(&watched, SIGINT);
	sigaddset(&watched, SIGTERM);
	sigaddset(&watched, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &watched, NULL);
	if (pthread_create(&thread, NULL, watch, NULL) == 0)
		pthread_detach(thread);
	else /* they end the program as it is */
		pthread_sigmask(SIG_UNBLOCK, &watched, NULL);
}

void remote_end_by_signal(void)
{
	int sig = atomic_load(&remote_stopped);

	if (sig)
		die(sig);
}

/* ---- calls ------------------------------------------------------------------------------------------------------------------ */

int remote_complain(const struct why *why, int err)
{
	fprintf(stderr, "vhdnfs: %s\n", why->line[0] ? why->line : nfsc_error(err));
	return TOOL_FAILED;
}

int remote_usage(FILE *to, const char *help)
{
	fprintf(to, "usage: vhdnfs %s\n", help);
	return to == stdout ? TOOL_OK : TOOL_USAGE;
}

int remote_reach(const char *url, struct nfs_url *u, struct nfsc **n, nfs_fh4 *fh, struct why *why)
{
	int err = nfs_url_parse(url, u, why);

	if (!err)
		err = nfsc_open(n, u, why);
	return err ? err : nfsc_lookup(*n, u->path, fh, why);
}

int remote_attrs(struct nfsc *n, const nfs_fh4 *fh, struct nfs_attrs *a)
{
	nfs_argop4 op[2] = {nfsc_putfh(fh), {.argop = OP_GETATTR}};
	COMPOUND4res res;
	int err;

	op[1].nfs_argop4_u.opgetattr.attr_request = nfs_attrs_mask();
	err = nfsc_call(n, op, 2, &res);
	if (!err &&
	    !nfs_attrs_decode(&res.resarray.resarray_val[2].nfs_resop4_u.opgetattr.GETATTR4res_u.resok4.obj_attributes,
			      a))
		err = -EPROTO;
	nfsc_free(&res);
	return err;
}

int remote_readlink(struct nfsc *n, const nfs_fh4 *fh, char *to, size_t cap)
{
	nfs_argop4 op[2] = {nfsc_putfh(fh), {.argop = OP_READLINK}};
	COMPOUND4res res;
	int err = nfsc_call(n, op, 2, &res);

	if (!err) {
		const linktext4 *link =
			&res.resarray.resarray_val[2].nfs_resop4_u.opreadlink.READLINK4res_u.resok4.link;

		if (link->utf8string_len >= cap)
			err = -ENAMETOOLONG;
		else if (memchr(link->utf8string_val, 0, link->utf8string_len))
			err = -EINVAL;
		if (!err) {
			memcpy(to, link->utf8string_val, link->utf8string_len);
			to[link->utf8string_len] = '\0';
		}
	}
	nfsc_free(&res);
	return err;
}

/* Takes the first name off @left, without the slashes around it. "" at the end. */
static void next_name(char *left, char name[NAME_MAX + 1])
{
	size_t skip = strspn(left, "/"), n = strcspn(left + skip, "/");
	size_t len = n < NAME_MAX ? n : NAME_MAX;

	memcpy(name, left + skip, len);
	name[len] = '\0';
	skip += n;
	memmove(left, left + skip, strlen(left + skip) + 1);
}

/* The link at @done leads on with @left. */
static int replace(struct nfsc *n, const nfs_fh4 *fh, char *done, char *left, struct why *why)
{
	char target[PATH_MAX], rest[PATH_MAX];
	int err = remote_readlink(n, fh, target, sizeof target);

	if (err)
		return why_set(why, err, "%s: %s", done, nfsc_error(err));
	if (target[0] == '/')
		return why_set(why, -EXDEV, "%s: a link to %s, which counts from where the file system is mounted",
			       done, target);
	memcpy(rest, left, strlen(left) + 1);
	if ((size_t)snprintf(left, PATH_MAX, "%s%s%s", target, rest[0] ? "/" : "", rest) >= PATH_MAX)
		return why_set(why, -ENAMETOOLONG, "%s: leads to a path that is too long", done);
	*strrchr(done, '/') = '\0';
	return 0;
}

int remote_follow(struct nfsc *n, char *path, bool missing, struct why *why)
{
	char done[PATH_MAX] = "", left[PATH_MAX], name[NAME_MAX + 1];
	int links = 0;

	memcpy(left, path, strlen(path) + 1);
	for (next_name(left, name); name[0]; next_name(left, name)) {
		size_t used = strlen(done);
		struct nfs_attrs a;
		nfs_fh4 fh;
		int err;

		if (strcmp(name, ".") == 0)
			continue;
		if (strcmp(name, "..") == 0) {
			if (used)
				*strrchr(done, '/') = '\0';
			continue;
		}
		if (used + 1 + strlen(name) >= sizeof done)
			return why_set(why, -ENAMETOOLONG, "%s/%s: too long", done, name);
		snprintf(done + used, sizeof done - used, "/%s", name);
		err = nfsc_lookup(n, done, &fh, why);
		if (err == -(int)NFS4ERR_NOENT && missing && !left[strspn(left, "/")])
			break;
		if (!err && (err = remote_attrs(n, &fh, &a)))
			why_set(why, err, "%s: %s", done, nfsc_error(err));
		if (!err && a.type == NF4LNK && ++links > LINKS_MAX)
			err = why_set(why, -ELOOP, "%s: too many links", path);
		if (!err && a.type == NF4LNK)
			err = replace(n, &fh, done, left, why);
		if (err)
			return err;
	}
	memcpy(path, done[0] ? done : "/", strlen(done[0] ? done : "/") + 1);
	why->line[0] = '\0';
	return 0;
}

/* ---- folders and data ---------------------------------------------------------------------------------------------------------- */

static int take_entries(const entry4 *e, struct remote_item **items, size_t *n, uint64_t *cookie)
{
	for (; e; e = e->nextentry) {
		struct remote_item *p = realloc(*items, (*n + 1) * sizeof *p);

		if (!p)
			return -ENOMEM;
		*items = p;
		p[*n].name = strndup(e->name.utf8string_val, e->name.utf8string_len);
		if (!p[*n].name)
			return -ENOMEM;
		p[*n].len = strlen(p[*n].name); /* a server that says more has a NUL in it */
		if (!nfs_attrs_decode(&e->attrs, &p[*n].a)) {
			free(p[*n].name);
			return -EPROTO;
		}
		++*n;
		*cookie = e->cookie;
	}
	return 0;
}

int remote_list(struct nfsc *n, const nfs_fh4 *fh, struct remote_item **items, size_t *count)
{
	verifier4 verf = {0};
	uint64_t cookie = 0;
	bool eof = false;
	int err = 0;

	while (!eof && !err) {
		nfs_argop4 op[2] = {nfsc_putfh(fh), {.argop = OP_READDIR}};
		READDIR4args *a = &op[1].nfs_argop4_u.opreaddir;
		COMPOUND4res res;

		a->cookie = cookie;
		memcpy(a->cookieverf, verf, sizeof verf);
		a->dircount = 16384;
		a->maxcount = 65536;
		a->attr_request = nfs_attrs_mask();
		err = nfsc_call(n, op, 2, &res);
		if (!err) {
			const READDIR4resok *ok =
				&res.resarray.resarray_val[2].nfs_resop4_u.opreaddir.READDIR4res_u.resok4;

			memcpy(verf, ok->cookieverf, sizeof verf);
			err = take_entries(ok->reply.entries, items, count, &cookie);
			eof = ok->reply.eof;
		}
		nfsc_free(&res);
	}
	return err;
}

static bool write_all(int fd, const char *p, size_t n)
{
	while (n) {
		ssize_t k = write(fd, p, n);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return false;
		p += k;
		n -= (size_t)k;
	}
	return true;
}

int remote_copy_out(struct nfsc *n, const nfs_fh4 *fh, const stateid4 *sid, int fd)
{
	uint64_t off = 0;

	for (bool eof = false; !eof;) {
		nfs_argop4 op[2] = {nfsc_putfh(fh), {.argop = OP_READ}};
		READ4args *a = &op[1].nfs_argop4_u.opread;
		COMPOUND4res res;
		int err;

		if (remote_stopped)
			return -EINTR;
		a->stateid = *sid;
		a->offset = off;
		a->count = nfsc_max_io(n);
		err = nfsc_call(n, op, 2, &res);
		if (!err) {
			const READ4resok *ok = &res.resarray.resarray_val[2].nfs_resop4_u.opread.READ4res_u.resok4;

			eof = ok->eof;
			off += ok->data.data_len;
			if (!write_all(fd, ok->data.data_val, ok->data.data_len))
				err = -errno;
			else if (!ok->data.data_len && !eof)
				err = -EPROTO;
		}
		nfsc_free(&res);
		if (err)
			return err;
	}
	return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * put.c - vhdnfs put: a file of this machine onto a server
 *
 * What is there of that name stays until the new one is whole and on stable storage: it is written under another name in the same
 * folder, which then takes the place of the first. An error or a signal in between removes it. A link is followed, so that it stays a
 * link; mode and, for who may, owner of a file that is replaced are kept.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/remote.h"
#include "tools/tool.h"
#include "vhd/base/cleanup.h"

#define MODE_NEW 0644u

/* ---- calls ------------------------------------------------------------------------------------------------------------------ */

static component4 component(const char *name)
{
	return (component4){.utf8string_len = (u_int)strlen(name), .utf8string_val = (char *)(uintptr_t)name};
}

/* A new file that only its owner can read, open for writing. EXIST: there is one. */
static int create_file(struct nfsc *n, const nfs_fh4 *dir, const char *name, stateid4 *sid, nfs_fh4 *fh)
{
	static uint32_t words[2] = {0, 1u << (FATTR4_MODE - 32)};
	uint32_t mode = __builtin_bswap32(0600);
	nfs_argop4 op[3] = {nfsc_putfh(dir), {.argop = OP_OPEN}, {.argop = OP_GETFH}};
	OPEN4args *a = &op[1].nfs_argop4_u.opopen;
	COMPOUND4res res;
	int err;

	a->share_access = OPEN4_SHARE_ACCESS_WRITE;
	a->owner.owner.owner_len = 6;
	a->owner.owner.owner_val = (char *)(uintptr_t) "vhdnfs";
	a->openhow.opentype = OPEN4_CREATE;
	a->openhow.openflag4_u.how.mode = GUARDED4;
	a->openhow.openflag4_u.how.createhow4_u.createattrs = (fattr4){
		.attrmask = {.bitmap4_len = 2, .bitmap4_val = words},
		.attr_vals = {.attrlist4_len = sizeof mode, .attrlist4_val = (char *)&mode}};
	a->claim.claim = CLAIM_NULL;
	a->claim.open_claim4_u.file = component(name);
	err = nfsc_call(n, op, 3, &res);
	if (!err) {
		const nfs_fh4 *got = &res.resarray.resarray_val[3].nfs_resop4_u.opgetfh.GETFH4res_u.resok4.object;

		*sid = res.resarray.resarray_val[2].nfs_resop4_u.opopen.OPEN4res_u.resok4.stateid;
		memcpy(fh->nfs_fh4_val, got->nfs_fh4_val, got->nfs_fh4_len);
		fh->nfs_fh4_len = got->nfs_fh4_len;
	}
	nfsc_free(&res);
	return err;
}

static int remove_file(struct nfsc *n, const nfs_fh4 *dir, const char *name)
{
	nfs_argop4 op[2] = {nfsc_putfh(dir), {.argop = OP_REMOVE}};
	COMPOUND4res res;
	int err;

	op[1].nfs_argop4_u.opremove.target = component(name);
	err = nfsc_call(n, op, 2, &res);
	nfsc_free(&res);
	return err;
}

static int rename_file(struct nfsc *n, const nfs_fh4 *dir, const char *from, const char *to)
{
	nfs_argop4 op[3] = {nfsc_putfh(dir), {.argop = OP_SAVEFH}, {.argop = OP_RENAME}};
	COMPOUND4res res;
	int err;

	op[2].nfs_argop4_u.oprename = (RENAME4args){.oldname = component(from), .newname = component(to)};
	err = nfsc_call(n, op, 3, &res);
	nfsc_free(&res);
	return err;
}

static int set_attrs(struct nfsc *n, const nfs_fh4 *fh, uint32_t word, const void *values, size_t len)
{
	uint32_t words[2] = {0, word};
	nfs_argop4 op[2] = {nfsc_putfh(fh), {.argop = OP_SETATTR}};
	COMPOUND4res res;
	int err;

	op[1].nfs_argop4_u.opsetattr.obj_attributes = (fattr4){
		.attrmask = {.bitmap4_len = 2, .bitmap4_val = words},
		.attr_vals = {.attrlist4_len = (u_int)len, .attrlist4_val = (char *)(uintptr_t)values}};
	err = nfsc_call(n, op, 2, &res);
	nfsc_free(&res);
	return err;
}

/* A string as XDR has it; its end. */
static char *put_string(char *p, const char *text)
{
	size_t len = strlen(text);
	uint32_t n = __builtin_bswap32((uint32_t)len);

	memcpy(p, &n, sizeof n);
	memset(p + 4, 0, (len + 3) & ~(size_t)3);
	memcpy(p + 4, text, len);
	return p + 4 + ((len + 3) & ~(size_t)3);
}

/* What the file that is replaced had. Its owner, where we may: else it is ours, as if it had been removed and made. */
static int take_over(struct nfsc *n, const nfs_fh4 *fh, const struct nfs_attrs *old)
{
	uint32_t mode = __builtin_bswap32(old ? old->mode & 01777 : MODE_NEW);
	char owners[2 * (4 + sizeof old->owner + 3)], *end = owners;

	if (old) {
		end = put_string(put_string(owners, old->owner), old->group);
		(void)set_attrs(n, fh, 1u << (FATTR4_OWNER - 32) | 1u << (FATTR4_OWNER_GROUP - 32), owners,
				(size_t)(end - owners));
	}
	return set_attrs(n, fh, 1u << (FATTR4_MODE - 32), &mode, sizeof mode);
}

/* ---- data ------------------------------------------------------------------------------------------------------------------- */

static int write_piece(struct nfsc *n, const nfs_fh4 *fh, const stateid4 *sid, char *p, uint32_t len, uint64_t off,
		       bool sync, verifier4 verf)
{
	while (len) {
		nfs_argop4 op[2] = {nfsc_putfh(fh), {.argop = OP_WRITE}};
		WRITE4args *a = &op[1].nfs_argop4_u.opwrite;
		uint32_t done = 0;
		COMPOUND4res res;
		int err;

		a->stateid = *sid;
		a->offset = off;
		a->stable = sync ? FILE_SYNC4 : UNSTABLE4;
		a->data.data_len = len;
		a->data.data_val = p;
		err = nfsc_call(n, op, 2, &res);
		if (!err) {
			const WRITE4resok *ok = &res.resarray.resarray_val[2].nfs_resop4_u.opwrite.WRITE4res_u.resok4;

			done = ok->count;
			memcpy(verf, ok->writeverf, sizeof(verifier4));
			err = done && done <= len ? 0 : -EPROTO;
		}
		nfsc_free(&res);
		if (err)
			return err;
		p += done;
		off += done;
		len -= done;
	}
	return 0;
}

static int commit(struct nfsc *n, const nfs_fh4 *fh, const verifier4 verf)
{
	nfs_argop4 op[2] = {nfsc_putfh(fh), {.argop = OP_COMMIT}};
	COMPOUND4res res;
	int err = nfsc_call(n, op, 2, &res);

	/* Another verifier: the server was started anew and may have forgotten what we wrote. */
	if (!err && memcmp(res.resarray.resarray_val[2].nfs_resop4_u.opcommit.COMMIT4res_u.resok4.writeverf, verf,
			   sizeof(verifier4)) != 0)
		err = -EIO;
	nfsc_free(&res);
	return err;
}

/* Ends early when a signal came. */
static int copy_in(struct nfsc *n, int fd, const nfs_fh4 *fh, const stateid4 *sid, bool sync)
{
	uint32_t cap = nfsc_max_io(n);
	AUTO(freep) char *buf = malloc(cap);
	verifier4 verf = {0};
	uint64_t off = 0;
	bool any = false;
	int err = 0;

	if (!buf)
		return -ENOMEM;
	for (;;) {
		ssize_t k = 0, got = 0;

		while (!remote_stopped && got < (ssize_t)cap && (k = read(fd, buf + got, cap - (size_t)got)) > 0)
			got += k;
		if (remote_stopped)
			return -EINTR;
		if (k < 0)
			return -errno;
		if (!got)
			break;
		if ((err = write_piece(n, fh, sid, buf, (uint32_t)got, off, sync, verf)))
			return err;
		any = true;
		off += (uint64_t)got;
	}
	if (remote_stopped)
		return -EINTR;
	return any && !sync ? commit(n, fh, verf) : 0;
}

/* ---- the whole ---------------------------------------------------------------------------------------------------------------- */

static int open_source(const char *file, struct why *why)
{
	int fd = strcmp(file, "-") == 0 ? dup(STDIN_FILENO) : open(file, O_RDONLY | O_CLOEXEC);
	struct stat st;
	int err = fd < 0 || fstat(fd, &st) < 0 ? -errno : 0;

	if (err)
		why_set(why, err, "%s: %s", file, strerror(-err));
	else if (S_ISDIR(st.st_mode))
		err = why_set(why, -EISDIR, "%s: a folder; expected a file to read from", file);
	if (err && fd >= 0)
		close(fd);
	return err ? err : fd;
}

/* Where it goes. */
struct target {
	const char *url;
	struct nfs_url u;
	char *name; /* in u.path, which is cut off before it */
	nfs_fh4 dir;
	bool exists;
	struct nfs_attrs old;
};

static int find_target(struct nfsc *n, struct target *t, struct why *why)
{
	nfs_fh4 fh;
	int err;

	if (t->u.path[strlen(t->u.path) - 1] == '/')
		return why_set(why, -EINVAL, "%s: a folder; expected the name of a file to write", t->url);
	if ((err = remote_follow(n, t->u.path, true, why)))
		return err;
	err = nfsc_lookup(n, t->u.path, &fh, why);
	t->exists = !err;
	if (!err && (err = remote_attrs(n, &fh, &t->old)))
		return why_set(why, err, "%s: %s", t->url, nfsc_error(err));
	if (t->exists && t->old.type != NF4REG)
		return why_set(why, -EINVAL, "%s: %s; expected the name of a file to write", t->url,
			       t->old.type == NF4DIR ? "a folder" : "no regular file");
	t->name = strrchr(t->u.path, '/');
	*t->name++ = '\0';
	return nfsc_lookup(n, t->u.path, &t->dir, why);
}

static int write_new(struct nfsc *n, struct target *t, int fd, bool sync, const char *name)
{
	char buf[NFS4_FHSIZE];
	nfs_fh4 fh = {.nfs_fh4_val = buf};
	stateid4 sid;
	int err = create_file(n, &t->dir, name, &sid, &fh), e2;

	if (err)
		return err;
	err = copy_in(n, fd, &fh, &sid, sync);
	if (!err)
		err = take_over(n, &fh, t->exists ? &t->old : NULL);
	e2 = nfsc_close_fh(n, &fh, &sid);
	err = err ? err : e2;
	if (!err)
		err = rename_file(n, &t->dir, name, t->name);
	if (err)
		(void)remove_file(n, &t->dir, name);
	return err;
}

static int put(int fd, struct target *t, bool sync, struct why *why)
{
	struct nfsc *n = NULL;
	char name[NAME_MAX + 1];
	unsigned tag = 0;
	int err = nfsc_open(&n, &t->u, why);

	if (!err)
		err = find_target(n, t, why);
	if (!err && getrandom(&tag, sizeof tag, 0) != sizeof tag)
		err = why_set(why, -EIO, "getrandom: %s", strerror(errno));
	if (!err) {
		snprintf(name, sizeof name, ".%.200s.%08x", t->name, tag);
		err = write_new(n, t, fd, sync, name);
		if (err)
			why_set(why, err, "%s: %s; what was there is as it was", t->url,
				err == -EINTR ? "interrupted" : nfsc_error(err));
	}
	nfsc_close(n);
	return err;
}

int cmd_put(int argc, char **argv)
{
	static const char help[] = "put [--sync] FILE|- nfs://HOST[:PORT]/PATH\n\n"
				   "The file of that name, if there is one, is replaced when the new one is whole.\n"
				   "  --sync  every write on stable storage, instead of one commit at the end";
	static const struct option options[] = {
		{"help", no_argument, NULL, 'h'}, {"sync", no_argument, NULL, 's'}, {NULL, 0, NULL, 0}};
	struct target t = {.url = NULL};
	struct why why = {.line = ""};
	AUTO(closep) int fd = -1;
	bool sync = false;
	int opt, err;

	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (opt != 's')
			return remote_usage(opt == 'h' ? stdout : stderr, help);
		sync = true;
	}
	if (argc - optind != 2)
		return remote_usage(stderr, help);
	t.url = argv[optind + 1];
	fd = open_source(argv[optind], &why);
	err = fd < 0 ? fd : nfs_url_parse(t.url, &t.u, &why);
	remote_catch_signals();
	if (!err)
		err = put(fd, &t, sync, &why);
	if (!err)
		return TOOL_OK;
	remote_complain(&why, err);
	remote_end_by_signal();
	return TOOL_FAILED;
}

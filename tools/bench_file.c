/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench_file.c - a file that is open on a server, for a benchmark: one call at a time
 *
 * What is timed goes past the RPC library: a call is made in place and sent at once, its reply is received at once as a rule, and
 * nothing is allocated. It has a slot of its own of the session, so that opening and closing can go through the nfsc.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "tools/bench_call.h"
#include "tools/bench_hints.h"
#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"

#define SLOT 1u
#define ROOM 4096u /* of a call without its data */
#define PATIENCE_SECONDS 120
/* For a reply, before the thread sleeps: what is measured is the server, not how long a client takes to wake. */
#define LOOKS 200u
#define DELAYS 50u
#define DELAY_MS 100

int bench_open(struct bench_file *f, const struct nfs_url *root, const char *path, bool write, struct why *why)
{
	const struct timeval limit = {.tv_sec = PATIENCE_SECONDS};
	struct nfs_url u = *root;
	struct enc e;
	nfs_fh4 fh;
	int err;

	*f = (struct bench_file){.write = write};
	snprintf(u.path, sizeof u.path, "/disk/%s", path);
	if ((err = nfsc_open_slots(&f->n, &u, SLOT + 1, why)) < 0 || (err = nfsc_lookup(f->n, u.path, &fh, why)) < 0)
		return err;
	if (nfsc_slots(f->n) <= SLOT)
		return why_set(why, -EPROTO, "%s: the server gave one slot", path);
	f->fh_len = fh.nfs_fh4_len;
	memcpy(f->fh, fh.nfs_fh4_val, fh.nfs_fh4_len);
	f->out = malloc(ROOM);
	f->in_size = (size_t)nfsc_max_io(f->n) + ROOM;
	f->in = malloc(f->in_size);
	if (!f->out || !f->in)
		return -ENOMEM;
	err = nfsc_open_fh(f->n, &fh, write ? OPEN4_SHARE_ACCESS_BOTH : OPEN4_SHARE_ACCESS_READ, "bench", &f->sid);
	if (err)
		return why_set(why, err, "%s: %s", path, nfsc_error(err));
	f->opened = true;
	e = (struct enc){.p = f->out};
	put_compound(&e, f->n, SLOT, SLOT, &fh, 0);
	f->out_len = e.n;
	return setsockopt(nfsc_fd(f->n), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0 ? -errno : 0;
}

static nfs_fh4 fh_of(struct bench_file *f)
{
	return (nfs_fh4){.nfs_fh4_len = f->fh_len, .nfs_fh4_val = f->fh};
}

void bench_close(struct bench_file *f)
{
	const nfs_fh4 fh = fh_of(f);

	if (f->opened)
		nfsc_close_fh(f->n, &fh, &f->sid);
	nfsc_close(f->n);
	free(f->out);
	free(f->in);
	*f = (struct bench_file){.n = NULL};
}

/* ---- calls that are timed --------------------------------------------------------------------------------------------------------- */

static int send_record(int fd, const void *call, size_t len, const void *data, size_t data_len)
{
	struct iovec v[2] = {{(void *)(uintptr_t)call, len}, {(void *)(uintptr_t)data, data_len}};
	struct msghdr m = {.msg_iov = v, .msg_iovlen = 2};

	while (v[0].iov_len + v[1].iov_len) {
		ssize_t k = sendmsg(fd, &m, MSG_NOSIGNAL);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return -errno;
		for (int i = 0; i < 2; i++) {
			size_t part = min_u64((size_t)k, v[i].iov_len);

			v[i].iov_base = (char *)v[i].iov_base + part;
			v[i].iov_len -= part;
			k -= (ssize_t)part;
		}
	}
	return 0;
}

/* Its length without the marks; the record begins at in + 4. */
static ssize_t receive_record(struct bench_file *f)
{
	unsigned frags, looks = 0;
	size_t whole;

	for (size_t have = 0; !(whole = record_len(f->in, have, &frags));) {
		int flags = looks++ < LOOKS ? MSG_DONTWAIT : 0;
		ssize_t k = have < f->in_size ? recv(nfsc_fd(f->n), f->in + have, f->in_size - have, flags) : 0;

		if (k < 0 && (errno == EINTR || (errno == EAGAIN && flags)))
			continue;
		if (k <= 0)
			return k < 0 ? -errno : -EPROTO;
		have += (size_t)k;
	}
	if (frags > 1)
		record_join(f->in, whole);
	return (ssize_t)(whole - 4 * (size_t)frags);
}

/* The operations that were put behind PUTFH, @nops of them, and data behind them; length of the reply. */
static ssize_t call(struct bench_file *f, struct enc *e, uint32_t nops, const void *data, uint32_t len)
{
	int err;

	for (unsigned tries = 0;; tries++) {
		ssize_t got;

		wire_set(f->out + AT_XID, ++f->seq);
		wire_set(f->out + AT_SEQ, f->seq);
		wire_set(f->out + AT_NOPS, 2 + nops);
		call_seal(f->out, e->n + len);
		if ((err = send_record(nfsc_fd(f->n), f->out, e->n, data, len)) < 0 || (got = receive_record(f)) < 0)
			return err < 0 ? err : got;
		if (wire_get(f->in + 4) != f->seq)
			return -EPROTO;
		if (reply_compound_status(f->in + 4, (size_t)got) != NFS4ERR_DELAY || tries == DELAYS)
			return got;
		nap_ms(DELAY_MS);
	}
}

static struct enc begin(struct bench_file *f)
{
	return (struct enc){.p = f->out, .n = f->out_len};
}

int bench_read(struct bench_file *f, uint64_t off, uint32_t len)
{
	struct enc e = begin(f);
	ssize_t got;

	put_read(&e, &f->sid, off, len);
	got = call(f, &e, 1, NULL, 0);
	return got < 0 ? (int)got : -(int)reply_read_status(f->in + 4, (size_t)got, len);
}

int bench_write(struct bench_file *f, const void *buf, uint64_t off, uint32_t len)
{
	struct enc e = begin(f);
	ssize_t got;

	put_write(&e, &f->sid, off, UNSTABLE4, len);
	got = call(f, &e, 1, buf, len);
	return got < 0 ? (int)got : -(int)reply_write_status(f->in + 4, (size_t)got, len);
}

int bench_advise(struct bench_file *f, uint32_t hints, const uint64_t *off, unsigned n, uint64_t len)
{
	struct enc e = begin(f);
	ssize_t got;

	n = n > 12 ? 12 : n;
	for (unsigned i = 0; i < n; i++)
		put_io_advise(&e, &f->sid, off[i], len, hints);
	got = call(f, &e, n, NULL, 0);
	return got < 0 ? (int)got : -(int)reply_compound_status(f->in + 4, (size_t)got);
}

/* ---- calls that take their time ---------------------------------------------------------------------------------------------------- */

int bench_commit(struct bench_file *f)
{
	const nfs_fh4 fh = fh_of(f);
	nfs_argop4 op[2] = {nfsc_putfh(&fh), {.argop = OP_COMMIT}};
	COMPOUND4res res;
	int err = nfsc_call(f->n, op, 2, &res);

	nfsc_free(&res);
	return err;
}

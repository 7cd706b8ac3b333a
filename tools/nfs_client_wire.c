/* SPDX-License-Identifier: BSD-3-Clause */
/* nfs_client_wire.c - see nfs_client_wire.h */
#include "tools/nfs_client_wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vhd/base/cleanup.h"
#include "xdr/nfs4.h"

#define MESSAGE_MAX (32u << 10)
#define LAST_FRAGMENT 0x80000000u

struct wire {
	CLIENT c;
	int fd;
	bool_t close_fd;
	uint32_t xid;
	struct rpc_err err;
	/* The record mark goes in front. */
	_Alignas(8) char buf[4 + MESSAGE_MAX];
};

static struct wire *wire_of(CLIENT *c)
{
	return container_of(c, struct wire, c);
}

/* 0, or what the socket said. */
static enum clnt_stat send_all(struct wire *w, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = send(w->fd, w->buf + done, len - done, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return RPC_CANTSEND;
		done += (size_t)n;
	}
	return RPC_SUCCESS;
}

static enum clnt_stat receive(struct wire *w, char *to, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = recv(w->fd, to + done, len - done, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 && errno == EAGAIN ? RPC_TIMEDOUT : RPC_CANTRECV;
		done += (size_t)n;
	}
	return RPC_SUCCESS;
}

/* One record, of one fragment or more. */
static enum clnt_stat receive_record(struct wire *w, size_t *len)
{
	enum clnt_stat st;
	uint32_t mark;

	*len = 0;
	do {
		if ((st = receive(w, (char *)&mark, sizeof mark)) != RPC_SUCCESS)
			return st;
		mark = ntohl(mark);
		if ((mark & ~LAST_FRAGMENT) > MESSAGE_MAX - *len)
			return RPC_CANTDECODERES;
		if ((st = receive(w, w->buf + 4 + *len, mark & ~LAST_FRAGMENT)) != RPC_SUCCESS)
			return st;
		*len += mark & ~LAST_FRAGMENT;
	} while (!(mark & LAST_FRAGMENT));
	return RPC_SUCCESS;
}

static enum clnt_stat send_call(struct wire *w, rpcproc_t proc, xdrproc_t args, void *a)
{
	struct rpc_msg head = {.rm_xid = ++w->xid, .rm_direction = CALL};
	uint32_t mark;
	size_t len;
	bool_t ok;
	XDR x;

	head.rm_call.cb_rpcvers = RPC_MSG_VERSION;
	head.rm_call.cb_prog = NFS4_PROGRAM;
	head.rm_call.cb_vers = NFS_V4;
	xdrmem_create(&x, w->buf + 4, MESSAGE_MAX, XDR_ENCODE);
	ok = xdr_callhdr(&x, &head) && xdr_u_int32_t(&x, &proc) && AUTH_MARSHALL(w->c.cl_auth, &x) && args(&x, a);
	len = xdr_getpos(&x);
	xdr_destroy(&x);
	if (!ok)
		return RPC_CANTENCODEARGS;
	mark = htonl((uint32_t)len | LAST_FRAGMENT);
	memcpy(w->buf, &mark, sizeof mark);
	return send_all(w, 4 + len);
}

/* Replies to earlier calls, which somebody gave up, are passed over. */
static enum clnt_stat receive_reply(struct wire *w, xdrproc_t results, void *r)
{
	struct rpc_msg msg = {.rm_xid = 0};
	enum clnt_stat st;
	uint32_t xid;
	size_t len;
	bool_t ok;
	XDR x;

	do {
		if ((st = receive_record(w, &len)) != RPC_SUCCESS)
			return st;
		if (len < sizeof xid)
			return RPC_CANTDECODERES;
		memcpy(&xid, w->buf + 4, sizeof xid);
	} while (ntohl(xid) != w->xid);
	msg.acpted_rply.ar_verf = _null_auth;
	msg.acpted_rply.ar_results.where = r;
	msg.acpted_rply.ar_results.proc = results;
	xdrmem_create(&x, w->buf + 4, (u_int)len, XDR_DECODE);
	ok = xdr_replymsg(&x, &msg);
	xdr_destroy(&x);
	if (ok)
		_seterr_reply(&msg, &w->err);
	else
		w->err.re_status = RPC_CANTDECODERES;
	free(msg.acpted_rply.ar_verf.oa_base);
	return w->err.re_status;
}

static enum clnt_stat wire_call(CLIENT *c, rpcproc_t proc, xdrproc_t args, void *a, xdrproc_t results, void *r,
				struct timeval timeout)
{
	struct wire *w = wire_of(c);
	enum clnt_stat st = send_call(w, proc, args, a);

	(void)timeout;
	if (st == RPC_SUCCESS)
		st = receive_reply(w, results, r);
	w->err.re_status = st;
	return st;
}

static void wire_abort(CLIENT *c)
{
	(void)c;
}

static void wire_geterr(CLIENT *c, struct rpc_err *e)
{
	*e = wire_of(c)->err;
}

static bool_t wire_freeres(CLIENT *c, xdrproc_t results, void *r)
{
	(void)c;
	xdr_free(results, r);
	return TRUE;
}

static void wire_destroy(CLIENT *c)
{
	struct wire *w = wire_of(c);

	if (w->close_fd)
		close(w->fd);
	free(w);
}

static bool_t wire_control(CLIENT *c, u_int what, void *arg)
{
	(void)arg;
	if (what != CLSET_FD_CLOSE)
		return FALSE;
	wire_of(c)->close_fd = TRUE;
	return TRUE;
}

CLIENT *nfs_wire_new(int fd)
{
	static struct clnt_ops ops = {wire_call, wire_abort, wire_geterr, wire_freeres, wire_destroy, wire_control};
	struct wire *w = calloc(1, sizeof *w);

	if (!w)
		return NULL;
	w->fd = fd;
	w->xid = (uint32_t)getpid() << 16;
	w->c.cl_ops = &ops;
	return &w->c;
}

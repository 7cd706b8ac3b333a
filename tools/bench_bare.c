/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench_bare.c - a server that does nothing but answer
 *
 * One epoll loop; all records that one read brought are answered by one writev(). Each reply is a head of its own (mark, call
 * number, zeros: accepted, success, NFS4_OK) and data. The data comes from all over a pool as large as the file that a real
 * server would have in memory: from the same megabyte again and again it would come out of the processor's cache.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tools/bench.h"

#define BATCH 256u
#define ROOM (4u << 20)
#define HEAD 112u /* mark, RPC reply, SEQUENCE, PUTFH and what goes before the data of READ */
#define POOL (64u << 20)

struct peer {
	int fd;
	uint32_t have; /* bytes in buf, from the start of a record */
	char buf[ROOM];
};

struct bare {
	int ep, listener;
	uint32_t head_len, data_len; /* of a reply, mark included */
	uint32_t at;                 /* in the pool */
	char *pool;
};

static bool send_all(int fd, struct iovec *v, size_t n)
{
	while (n) {
		ssize_t k = writev(fd, v, (int)n);

		if (k < 0) {
			struct pollfd p = {.fd = fd, .events = POLLOUT};

			if (errno != EAGAIN || poll(&p, 1, 10000) <= 0)
				return false;
			continue;
		}
		while (n && (size_t)k >= v->iov_len) {
			k -= (ssize_t)v->iov_len;
			v++;
			n--;
		}
		if (n) {
			v->iov_base = (char *)v->iov_base + k;
			v->iov_len -= (size_t)k;
		}
	}
	return true;
}

static bool answer(struct bare *b, struct peer *p)
{
	static char head[BATCH][HEAD];
	static struct iovec v[2 * BATCH];
	uint32_t at = 0, n = 0;

	for (;;) {
		uint32_t len = p->have - at < 8 ? 0 : wire_get(p->buf + at) & 0x7fffffff;

		if (n == BATCH || !len || len > p->have - at - 4) {
			bool full = n == BATCH;

			if (!send_all(p->fd, v, (size_t)n * 2))
				return false;
			n = 0;
			if (full)
				continue;
			break;
		}
		wire_set(head[n], 0x80000000u | (b->head_len + b->data_len - 4));
		memcpy(head[n] + 4, p->buf + at + 4, 4);
		wire_set(head[n] + 8, 1); /* REPLY */
		v[2 * n] = (struct iovec){head[n], b->head_len};
		v[2 * n + 1] = (struct iovec){b->pool + b->at, b->data_len};
		b->at = b->at + 2 * b->data_len <= POOL ? b->at + b->data_len : 0;
		n++;
		at += 4 + len;
	}
	memmove(p->buf, p->buf + at, p->have - at);
	p->have -= at;
	return p->have < ROOM;
}

static void welcome(const struct bare *b)
{
	struct epoll_event e = {.events = EPOLLIN};
	struct peer *p = malloc(sizeof *p);
	int on = 1, fd = accept4(b->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (!p || fd < 0) {
		free(p);
		if (fd >= 0)
			close(fd);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	p->fd = fd;
	p->have = 0;
	e.data.ptr = p;
	epoll_ctl(b->ep, EPOLL_CTL_ADD, fd, &e);
}

static void serve(struct bare *b)
{
	struct epoll_event e[64];

	for (;;) {
		int n = epoll_wait(b->ep, e, 64, -1);

		for (int i = 0; i < n; i++) {
			struct peer *p = e[i].data.ptr;
			ssize_t k;

			if (!p) {
				welcome(b);
				continue;
			}
			k = recv(p->fd, p->buf + p->have, ROOM - p->have, 0);
			if (k > 0)
				p->have += (uint32_t)k;
			if (k == 0 || (k < 0 && errno != EAGAIN) || (k > 0 && !answer(b, p))) {
				close(p->fd);
				free(p);
			}
		}
	}
}

pid_t bare_start(uint32_t reply_len, uint16_t *port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct epoll_event e = {.events = EPOLLIN};
	struct bare b = {.ep = epoll_create1(EPOLL_CLOEXEC)};
	socklen_t len = sizeof a;
	pid_t pid = -ENOMEM;

	b.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	b.head_len = 4 + reply_len < HEAD ? 4 + reply_len : HEAD;
	b.data_len = 4 + reply_len - b.head_len;
	b.pool = malloc(POOL);
	if (b.ep < 0 || b.listener < 0 || !b.pool)
		goto out;
	memset(b.pool, 1, POOL); /* untouched, all of it would be one and the same page */
	if (bind(b.listener, (struct sockaddr *)&a, sizeof a) < 0 || listen(b.listener, 128) < 0 ||
	    getsockname(b.listener, (struct sockaddr *)&a, &len) < 0 ||
	    epoll_ctl(b.ep, EPOLL_CTL_ADD, b.listener, &e) < 0) {
		pid = -errno;
		goto out;
	}
	*port = ntohs(a.sin_port);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		serve(&b);
	}
	if (pid < 0)
		pid = -errno;
out:
	free(b.pool);
	if (b.listener >= 0)
		close(b.listener);
	if (b.ep >= 0)
		close(b.ep);
	return pid;
}

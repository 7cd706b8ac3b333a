/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench_bare.c - a server that does nothing but answer
 *
 * One epoll loop; all records that one read brought are answered by one writev(). Each reply is 8 bytes of its own (mark
 * and call number) and a tail that all replies share.
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

struct peer {
	int fd;
	uint32_t have; /* bytes in buf, from the start of a record */
	char buf[ROOM];
};

struct bare {
	int ep, listener;
	uint32_t tail_len;
	char *tail;
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

static bool answer(const struct bare *b, struct peer *p)
{
	static char head[BATCH][8];
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
		wire_set(head[n], 0x80000000u | (4 + b->tail_len));
		memcpy(head[n] + 4, p->buf + at + 4, 4);
		v[2 * n] = (struct iovec){head[n], 8};
		v[2 * n + 1] = (struct iovec){b->tail, b->tail_len};
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

static void serve(const struct bare *b)
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
	struct bare b = {.ep = epoll_create1(EPOLL_CLOEXEC), .tail_len = reply_len - 4};
	socklen_t len = sizeof a;
	pid_t pid = -ENOMEM;

	b.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	b.tail = calloc(1, b.tail_len);
	if (b.ep < 0 || b.listener < 0 || !b.tail)
		goto out;
	if (bind(b.listener, (struct sockaddr *)&a, sizeof a) < 0 || listen(b.listener, 128) < 0 ||
	    getsockname(b.listener, (struct sockaddr *)&a, &len) < 0 ||
	    epoll_ctl(b.ep, EPOLL_CTL_ADD, b.listener, &e) < 0) {
		pid = -errno;
		goto out;
	}
	wire_set(b.tail, 1); /* REPLY; the rest is zeros: accepted, success, NFS4_OK */
	*port = ntohs(a.sin_port);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		serve(&b);
	}
	if (pid < 0)
		pid = -errno;
out:
	free(b.tail);
	if (b.listener >= 0)
		close(b.listener);
	if (b.ep >= 0)
		close(b.ep);
	return pid;
}

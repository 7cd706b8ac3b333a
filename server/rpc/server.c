/* SPDX-License-Identifier: BSD-3-Clause */
/* server.c - see rpc.h: set up, listen, start, stop, counters */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "server/rpc/rpc_int.h"
#include "vhd/base/cleanup.h"

static void defaults(struct rpc_opts *o)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned n = cores > 0 ? (unsigned)cores : 1;

	o->loops = o->loops ? o->loops : n;
	o->workers = o->workers ? o->workers : 4 + 2 * n;
	o->max_conns = o->max_conns ? o->max_conns : 8192;
	o->max_record = o->max_record ? o->max_record : (1u << 20) + (64u << 10);
	o->max_memory = o->max_memory ? o->max_memory : 32u << 20;
	o->idle_seconds = o->idle_seconds ? o->idle_seconds : 600;
	o->record_seconds = o->record_seconds ? o->record_seconds : 60;
}

int rpc_server_new(struct rpc_server **out, const struct rpc_opts *o, const struct rpc_service *sv, struct why *why)
{
	struct rpc_server *s = calloc(1, sizeof *s);
	int err = 0;

	if (!s)
		return -ENOMEM;
	s->o = *o;
	s->s = *sv;
	defaults(&s->o);
	lock_init(&s->accept_mu);
	peers_init(&s->peers);
	s->spare = eventfd(0, EFD_CLOEXEC);
	lock_init(&s->work_mu);
	cond_init(&s->work_cond);
	cond_init(&s->idle_cond);
	list_init(&s->work);
	list_init(&s->deferred);
	s->loop = calloc(s->o.loops, sizeof *s->loop);
	if (!s->loop)
		err = -ENOMEM;
	for (; !err && s->nloops < s->o.loops; s->nloops++)
		err = loop_init(&s->loop[s->nloops], s);
	if (err) {
		rpc_server_free(s);
		return why_set(why, err, "event loops: %s", strerror(-err));
	}
	*out = s;
	return 0;
}

static socklen_t parse_addr(const char *text, struct sockaddr_storage *sa)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)sa;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)sa;
	const char *colon = strrchr(text, ':');
	char host[INET6_ADDRSTRLEN];
	size_t n;

	if (!colon)
		return 0;
	if (text[0] == '[' && colon > text + 1 && colon[-1] == ']') {
		text++;
		n = (size_t)(colon - 1 - text);
	} else {
		n = (size_t)(colon - text);
	}
	if (n >= sizeof host)
		return 0;
	memcpy(host, text, n);
	host[n] = '\0';
	memset(sa, 0, sizeof *sa);
	if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
		return sizeof *v6;
	}
	if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
		return sizeof *v4;
	}
	return 0;
}

int rpc_server_listen(struct rpc_server *s, const char *addr, uint16_t *port, struct why *why)
{
	struct sockaddr_storage sa;
	socklen_t len = parse_addr(addr, &sa);
	AUTO(closep) int fd = -1;
	int on = 1;

	if (!len || s->nlisteners == LISTEN_MAX)
		return why_set(why, -EINVAL, "listen %s: not an address and port, or too many", addr);
	fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return why_set(why, -errno, "listen %s: %s", addr, strerror(errno));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (sa.ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
	if (bind(fd, (struct sockaddr *)&sa, len) < 0 || listen(fd, 256) < 0 ||
	    getsockname(fd, (struct sockaddr *)&sa, &len) < 0)
		return why_set(why, -errno, "listen %s: %s", addr,
			       errno == EADDRINUSE ? "the port is in use" : strerror(errno));
	*port = ntohs(sa.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&sa)->sin6_port
					       : ((struct sockaddr_in *)&sa)->sin_port);
	s->listener[s->nlisteners++] = fd;
	fd = -1;
	return 0;
}

int rpc_server_start(struct rpc_server *s, struct why *why)
{
	int err = workers_start(s);

	for (unsigned i = 0; !err && i < s->nloops; i++)
		err = loop_start(&s->loop[i]);
	return err ? why_set(why, err, "starting threads: %s", strerror(-err)) : 0;
}

void rpc_server_stop(struct rpc_server *s, unsigned ms)
{
	const struct timespec tick = {.tv_nsec = 10 * 1000 * 1000};

	/* Calls that are running finish and reply; bytes that are not a call yet are not looked at any more. */
	atomic_store(&s->stopping, true);
	for (unsigned i = 0; i < s->nloops; i++)
		loop_wake(&s->loop[i]);
	for (unsigned waited = 0; atomic_load(&s->running) && waited < ms; waited += 10)
		nanosleep(&tick, NULL);
	/* Workers first: what they finish goes back to the loops, which drop it when they end. */
	workers_stop(s);
	atomic_store(&s->quit, true);
	for (unsigned i = 0; i < s->nloops; i++) {
		loop_wake(&s->loop[i]);
		if (s->loop[i].started)
			pthread_join(s->loop[i].thread, NULL);
		s->loop[i].started = false;
	}
	/* Only those that are held are left. They have things of the service's that are wanted back, and whoever resumes them will. */
	while (atomic_load(&s->running)) {
		for (unsigned i = 0; i < s->nloops; i++)
			loop_drain(&s->loop[i]);
		nanosleep(&tick, NULL);
	}
	for (unsigned i = 0; i < s->nlisteners; i++)
		close(s->listener[i]);
	s->nlisteners = 0;
}

void rpc_server_free(struct rpc_server *s)
{
	if (!s)
		return;
	for (unsigned i = 0; i < s->nloops; i++)
		loop_fini(&s->loop[i]);
	for (unsigned i = 0; i < s->nlisteners; i++)
		close(s->listener[i]);
	if (s->spare >= 0)
		close(s->spare);
	free(s->loop);
	lock_fini(&s->accept_mu);
	lock_fini(&s->work_mu);
	cond_fini(&s->work_cond);
	cond_fini(&s->idle_cond);
	free(s);
}

void rpc_server_on_reply(struct rpc_server *s, rpc_reply_fn *fn, void *arg)
{
	s->on_reply = fn;
	s->on_reply_arg = arg;
}

void rpc_server_stats(struct rpc_server *s, struct rpc_stats *st)
{
	*st = (struct rpc_stats){
		.conns = atomic_load(&s->conns),
		.conns_total = atomic_load(&s->conns_total),
		.calls = atomic_load(&s->calls),
		.parked = atomic_load(&s->parked),
		.bytes_in = atomic_load(&s->bytes_in),
		.bytes_out = atomic_load(&s->bytes_out),
		.bad_records = atomic_load(&s->bad_records),
		.refused = atomic_load(&s->refused),
		.memory = atomic_load(&s->memory),
	};
}

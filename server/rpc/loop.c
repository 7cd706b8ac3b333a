/* SPDX-License-Identifier: BSD-3-Clause */
/* loop.c - one event loop: epoll, what other threads hand over, timers */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "server/rpc/rpc_int.h"
#include "vhd/base/clock.h"

#define EVENTS 64

uint32_t seconds_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
	return (uint32_t)t.tv_sec + 1; /* never 0 */
}

void loop_wake(struct loop *l)
{
	uint64_t one = 1;
	bool wake;

	lock_take(&l->mu);
	wake = !l->woken;
	l->woken = true;
	lock_drop(&l->mu);
	if (wake && write(l->event, &one, sizeof one) < 0)
		return; /* the counter is full: it is awake */
}

void loop_give_back(struct loop *l, struct call *k)
{
	lock_take(&l->mu);
	list_push_back(&l->back, &k->link);
	lock_drop(&l->mu);
	loop_wake(l);
}

/* Everything that other threads put down. */
static void take_handed(struct loop *l)
{
	struct list back, fresh, asked;
	uint64_t n;

	if (read(l->event, &n, sizeof n) < 0 && errno != EAGAIN)
		return;
	list_init(&back);
	list_init(&fresh);
	list_init(&asked);
	lock_take(&l->mu);
	l->woken = false;
	list_splice_back(&back, &l->back);
	list_splice_back(&fresh, &l->fresh);
	while (!list_empty(&l->asked)) {
		struct rpc_conn *c = list_first(&l->asked, struct rpc_conn, asked_link);

		list_del(&c->asked_link);
		rpc_conn_get(c);
		lock_drop(&l->mu);
		conn_asked(c);
		rpc_conn_put(c);
		lock_take(&l->mu);
	}
	lock_drop(&l->mu);
	if (atomic_load(&l->srv->stopping))
		list_for_each (it, &l->conns)
			conn_update(list_entry(it, struct rpc_conn, link));
	while (!list_empty(&back)) {
		struct call *k = list_first(&back, struct call, link);

		list_del(&k->link);
		if (k->resumed)
			call_resume(k);
		else
			conn_queue_reply(k->pub.conn, k);
	}
	while (!list_empty(&fresh)) {
		struct rpc_conn *c = list_first(&fresh, struct rpc_conn, link);

		list_del(&c->link);
		conn_adopt(l, c);
	}
}

/*
 * Once a second: idle connections, records that take too long to come, replies that nobody takes. While memory is short, or
 * their address has its share of it, the two that hold it have little time: others wait for them.
 */
static void check_times(struct loop *l)
{
	const struct rpc_opts *o = &l->srv->o;
	list_for_each_safe (it, tmp, &l->conns) {
		struct rpc_conn *c = list_entry(it, struct rpc_conn, link);
		uint32_t slow = conn_is_greedy(c) && o->record_seconds > HURRY ? HURRY : o->record_seconds;

		if (c->closing)
			continue;
		if ((c->started && list_empty(&c->pause_link) && l->now - c->started > slow) ||
		    (c->want_out && l->now - c->moved > slow) ||
		    (!c->started && c->calls == 0 &&
		     l->now - atomic_load_explicit(&c->last, memory_order_relaxed) > o->idle_seconds))
			conn_close(c);
	}
}

static void resume(struct loop *l)
{
	if (list_empty(&l->paused) ||
	    atomic_load_explicit(&l->srv->memory, memory_order_relaxed) >= l->srv->o.max_memory)
		return;
	list_for_each_safe (it, tmp, &l->paused) {
		struct rpc_conn *c = list_entry(it, struct rpc_conn, pause_link);

		if (conn_is_greedy(c))
			continue;
		list_del(&c->pause_link);
		conn_update(c);
	}
}

/* True when there may be more to do at once. */
static bool unstall(struct loop *l)
{
	bool more = false;

	list_for_each_safe (it, tmp, &l->stalled)
		more |= conn_unstall(list_entry(it, struct rpc_conn, stall_link));
	return more;
}

static void handle(struct loop *l, const struct epoll_event *ev)
{
	struct rpc_server *s = l->srv;
	struct rpc_conn *c;

	for (unsigned i = 0; i < s->nlisteners; i++)
		if (ev->data.ptr == &s->listener[i]) {
			conn_accept(l, s->listener[i]);
			return;
		}
	c = ev->data.ptr;
	rpc_conn_get(c);
	if (ev->events & EPOLLOUT)
		conn_flush(c);
	if (ev->events & (EPOLLIN | EPOLLHUP | EPOLLERR) && !c->closing) {
		if (c->paused && ev->events & (EPOLLHUP | EPOLLERR))
			conn_close(c);
		else
			conn_readable(c);
	}
	rpc_conn_put(c);
}

/*
 * A thread that sleeps takes a while to wake: 30 us on many a virtual machine that does nothing else. A client that sends its next call
 * when it has the last one's answer pays that for each. So where the last wait was a short one, the loop looks again for some time
 * before it sleeps; and less and less where waits are long.
 */
static int wait_events(struct loop *l, struct epoll_event *ev, int ms)
{
	const uint64_t most = l->srv->o.look_us * UINT64_C(1000);
	uint64_t start;
	int n = 0;

	if (!most || !ms)
		return epoll_wait(l->epoll, ev, EVENTS, ms);
	start = now_ns();
	while (l->look_ns && !(n = epoll_wait(l->epoll, ev, EVENTS, 0)) && now_ns() - start < l->look_ns)
		;
	if (n)
		return n;
	n = epoll_wait(l->epoll, ev, EVENTS, ms);
	l->look_ns = now_ns() - start <= 2 * most + l->look_ns ? most : l->look_ns / 2;
	return n;
}

void loop_drain(struct loop *l)
{
	take_handed(l);
	list_for_each_safe (it, tmp, &l->conns)
		conn_close(list_entry(it, struct rpc_conn, link));
}

static void *loop_main(void *arg)
{
	struct loop *l = arg;
	struct epoll_event ev[EVENTS];
	bool more = false;

	while (!atomic_load(&l->srv->quit)) {
		int n = wait_events(l, ev, more ? 0 : list_empty(&l->paused) ? 1000 : 20);
		uint32_t now = seconds_now();
		bool handed = false;

		for (int i = 0; i < n; i++) {
			if (ev[i].data.ptr == l)
				handed = true;
			else
				handle(l, &ev[i]);
		}
		/* Last: it may close connections that have events further on in this batch. */
		if (handed)
			take_handed(l);
		while (!list_empty(&l->flush))
			conn_flush(list_first(&l->flush, struct rpc_conn, flush_link));
		more = unstall(l);
		resume(l);
		if (now != l->now) {
			l->now = now;
			check_times(l);
		}
	}
	loop_drain(l);
	return NULL;
}

int loop_init(struct loop *l, struct rpc_server *s)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = l};

	l->srv = s;
	l->now = seconds_now();
	lock_init(&l->mu);
	list_init(&l->conns);
	list_init(&l->flush);
	list_init(&l->paused);
	list_init(&l->stalled);
	list_init(&l->pool);
	list_init(&l->back);
	list_init(&l->fresh);
	list_init(&l->asked);
	l->epoll = epoll_create1(EPOLL_CLOEXEC);
	l->event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	l->buf = malloc(READ_BUF);
	if (l->epoll < 0 || l->event < 0)
		return -errno;
	if (!l->buf)
		return -ENOMEM;
	return epoll_ctl(l->epoll, EPOLL_CTL_ADD, l->event, &ev) < 0 ? -errno : 0;
}

int loop_start(struct loop *l)
{
	struct rpc_server *s = l->srv;
	int err;

	for (unsigned i = 0; i < s->nlisteners; i++) {
		struct epoll_event ev = {.events = EPOLLIN | EPOLLEXCLUSIVE, .data.ptr = &s->listener[i]};

		if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, s->listener[i], &ev) < 0)
			return -errno;
	}
	err = -pthread_create(&l->thread, NULL, loop_main, l);
	l->started = !err;
	return err;
}

void loop_fini(struct loop *l)
{
	if (l->started)
		pthread_join(l->thread, NULL);
	/* Another loop may have handed a connection over after this one ended. */
	while (!list_empty(&l->fresh)) {
		struct rpc_conn *c = list_first(&l->fresh, struct rpc_conn, link);

		list_del(&c->link);
		close(c->fd);
		rpc_conn_put(c);
	}
	pool_free(l);
	if (l->epoll >= 0)
		close(l->epoll);
	if (l->event >= 0)
		close(l->event);
	free(l->buf);
	lock_fini(&l->mu);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * worker.c - the bounded pool of threads that may wait: parked calls, deferred work
 *
 * Two queues under one mutex: calls (linked through themselves, so that parking cannot fail) and deferred functions.
 *
 * Work that only computes gains nothing from more threads than processors, and loses where it meets under one lock. So not
 * more than work_target workers are active at a time; one that waits (vhd/base/wait.h) is not active, and its place is
 * taken by another. There are many workers because many may wait.
 *
 * Finished calls are collected and given back to their loops together: when there is nothing more to do, when BATCH are
 * there, or when the worker waits.
 */
#include <errno.h>
#include <stdlib.h>

#include "server/rpc/rpc_int.h"
#include "vhd/base/wait.h"

#define BATCH 16u

struct deferred {
	struct list link;
	void (*fn)(void *);
	void *arg;
};

struct worker {
	pthread_t thread;
	struct rpc_server *srv;
	struct waiter waiter;
	struct list done; /* calls to give back */
	unsigned ndone;
};

static bool has_work(const struct rpc_server *s) REQUIRES(s->work_mu)
{
	return !list_empty(&s->work) || !list_empty(&s->deferred);
}

/* There is more to do than the active ones should do alone: one more. */
static void call_another(struct rpc_server *s) REQUIRES(s->work_mu)
{
	if (s->work_idle && s->work_active < s->work_target && has_work(s))
		cond_signal(&s->work_cond);
}

static void give_back(struct worker *w)
{
	while (!list_empty(&w->done)) {
		struct call *k = list_first(&w->done, struct call, link);

		list_del(&k->link);
		loop_give_back(k->pub.conn->loop, k);
	}
	w->ndone = 0;
}

/* May be called with any lock of the layers below held. */
static void begin_wait(struct waiter *wt)
{
	struct worker *w = container_of(wt, struct worker, waiter);
	struct rpc_server *s = w->srv;

	give_back(w);
	lock_take(&s->work_mu);
	s->work_active--;
	call_another(s);
	lock_drop(&s->work_mu);
}

static void end_wait(struct waiter *wt)
{
	struct rpc_server *s = container_of(wt, struct worker, waiter)->srv;

	lock_take(&s->work_mu);
	s->work_active++;
	lock_drop(&s->work_mu);
}

static void run_call(struct rpc_server *s, struct worker *w) REQUIRES(s->work_mu)
{
	struct call *k = list_first(&s->work, struct call, link);
	bool done;

	list_del(&k->link);
	lock_drop(&s->work_mu);
	wait_self = &w->waiter;
	done = call_run_parked(k);
	wait_self = NULL;
	if (done) {
		list_push_back(&w->done, &k->link);
		if (++w->ndone == BATCH)
			give_back(w);
	}
	lock_take(&s->work_mu);
}

static void run_deferred(struct rpc_server *s, struct worker *w) REQUIRES(s->work_mu)
{
	struct deferred *d = list_first(&s->deferred, struct deferred, link);

	list_del(&d->link);
	lock_drop(&s->work_mu);
	wait_self = &w->waiter;
	d->fn(d->arg);
	wait_self = NULL;
	free(d);
	lock_take(&s->work_mu);
}

/* Until there is nothing to do, or enough others do it: those that waited came back. */
static void work(struct rpc_server *s, struct worker *w) REQUIRES(s->work_mu)
{
	s->work_active++;
	while (has_work(s) && s->work_active <= s->work_target) {
		call_another(s);
		if (!list_empty(&s->work))
			run_call(s, w);
		else
			run_deferred(s, w);
	}
	s->work_active--;
	lock_drop(&s->work_mu);
	give_back(w);
	lock_take(&s->work_mu);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct rpc_server *s = w->srv;

	lock_take(&s->work_mu);
	for (;;) {
		if (has_work(s) && s->work_active < s->work_target) {
			work(s, w);
			continue;
		}
		if (s->work_stop && !has_work(s))
			break;
		s->work_idle++;
		cond_wait(&s->work_cond, &s->work_mu);
		s->work_idle--;
	}
	cond_broadcast(&s->work_cond); /* those who left the last work to us */
	lock_drop(&s->work_mu);
	return NULL;
}

void worker_queue(struct rpc_server *s, struct call *k)
{
	lock_take(&s->work_mu);
	list_push_back(&s->work, &k->link);
	call_another(s);
	lock_drop(&s->work_mu);
}

int rpc_server_defer(struct rpc_server *s, void (*fn)(void *), void *arg)
{
	struct deferred *d = malloc(sizeof *d);
	bool stop;

	if (!d)
		return -ENOMEM;
	*d = (struct deferred){.fn = fn, .arg = arg};
	lock_take(&s->work_mu);
	stop = s->work_stop;
	if (!stop) {
		list_push_back(&s->deferred, &d->link);
		call_another(s);
	}
	lock_drop(&s->work_mu);
	if (stop)
		free(d);
	return stop ? -ESHUTDOWN : 0;
}

int workers_start(struct rpc_server *s)
{
	s->work_target = s->nloops > 2 ? s->nloops / 2 : 1;
	s->worker = calloc(s->o.workers, sizeof *s->worker);
	if (!s->worker)
		return -ENOMEM;
	for (; s->nworkers < s->o.workers; s->nworkers++) {
		struct worker *w = &s->worker[s->nworkers];
		int err;

		w->srv = s;
		w->waiter = (struct waiter){.begin = begin_wait, .end = end_wait};
		list_init(&w->done);
		err = -pthread_create(&w->thread, NULL, worker_main, w);
		if (err)
			return err;
	}
	return 0;
}

void workers_stop(struct rpc_server *s)
{
	lock_take(&s->work_mu);
	s->work_stop = true;
	cond_broadcast(&s->work_cond);
	lock_drop(&s->work_mu);
	for (unsigned i = 0; i < s->nworkers; i++)
		pthread_join(s->worker[i].thread, NULL);
	s->nworkers = 0;
	free(s->worker);
	s->worker = NULL;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * worker.c - the bounded pool of threads that may wait: parked calls, deferred work
 *
 * Two queues under one mutex: calls (linked through themselves, so that parking cannot fail) and deferred functions.
 */
#include <errno.h>
#include <stdlib.h>

#include "server/rpc/rpc_int.h"

struct deferred {
	struct list link;
	void (*fn)(void *);
	void *arg;
};

static void run_one(struct rpc_server *s) REQUIRES(s->work_mu)
{
	if (!list_empty(&s->work)) {
		struct call *k = list_first(&s->work, struct call, link);

		list_del(&k->link);
		lock_drop(&s->work_mu);
		call_run_parked(k);
	} else {
		struct deferred *d = list_first(&s->deferred, struct deferred, link);

		list_del(&d->link);
		lock_drop(&s->work_mu);
		d->fn(d->arg);
		free(d);
	}
	lock_take(&s->work_mu);
}

static void *worker_main(void *arg)
{
	struct rpc_server *s = arg;

	lock_take(&s->work_mu);
	for (;;) {
		bool none = list_empty(&s->work) && list_empty(&s->deferred);

		if (none && s->work_stop)
			break;
		if (none)
			cond_wait(&s->work_cond, &s->work_mu);
		else
			run_one(s);
	}
	lock_drop(&s->work_mu);
	return NULL;
}

void worker_queue(struct rpc_server *s, struct call *k)
{
	lock_take(&s->work_mu);
	list_push_back(&s->work, &k->link);
	cond_signal(&s->work_cond);
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
		cond_signal(&s->work_cond);
	}
	lock_drop(&s->work_mu);
	if (stop)
		free(d);
	return stop ? -ESHUTDOWN : 0;
}

int workers_start(struct rpc_server *s)
{
	s->worker = calloc(s->o.workers, sizeof *s->worker);
	if (!s->worker)
		return -ENOMEM;
	for (; s->nworkers < s->o.workers; s->nworkers++) {
		int err = -pthread_create(&s->worker[s->nworkers], NULL, worker_main, s);

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
		pthread_join(s->worker[i], NULL);
	s->nworkers = 0;
	free(s->worker);
	s->worker = NULL;
}

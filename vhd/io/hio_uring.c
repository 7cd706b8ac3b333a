/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * hio_uring.c - batches of transfers through io_uring
 *
 * A small pool of rings is shared by all threads and files: a batch takes a ring for itself, submits with one system call
 * and waits for the completions. Rings are made on demand and kept.
 *
 * A ring is only ever given back empty: nothing queued, nothing flying. When the kernel refuses part of a batch, what flies
 * is waited for (it writes to the callers' memory), the ring is thrown away, and the rest is left to the system calls.
 */
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>

#include "vhd/base/list.h"
#include "vhd/io/hio_int.h"

#define RING_ENTRIES 64u
#define RINGS_KEPT 16u

struct ring {
	struct list link;
	struct io_uring u;
};

static struct lock pool_mu = LOCK_INIT;
static struct list pool GUARDED_BY(pool_mu) = LIST_INIT(pool);
static unsigned pool_size GUARDED_BY(pool_mu);
static atomic_bool unavailable; /* the kernel has none, or this process may not */
static atomic_bool forbidden;   /* by a test */

void hio_allow_uring(bool allow)
{
	atomic_store(&forbidden, !allow);
}

static struct ring *ring_new(void)
{
	struct ring *r = malloc(sizeof *r);
	int err;

	if (!r)
		return NULL;
	err = io_uring_queue_init(RING_ENTRIES, &r->u, IORING_SETUP_COOP_TASKRUN);
	if (err == -EINVAL) /* before Linux 5.19 */
		err = io_uring_queue_init(RING_ENTRIES, &r->u, 0);
	if (err == 0)
		return r;
	if (err == -ENOSYS || err == -EPERM || err == -EACCES)
		atomic_store(&unavailable, true);
	free(r);
	return NULL;
}

static struct ring *ring_take(void)
{
	struct ring *r = NULL;

	if (atomic_load_explicit(&unavailable, memory_order_relaxed) ||
	    atomic_load_explicit(&forbidden, memory_order_relaxed))
		return NULL;
	lock_take(&pool_mu);
	if (!list_empty(&pool)) {
		r = list_first(&pool, struct ring, link);
		list_del(&r->link);
		pool_size--;
	}
	lock_drop(&pool_mu);
	return r ? r : ring_new();
}

static void ring_free(struct ring *r)
{
	io_uring_queue_exit(&r->u);
	free(r);
}

static void ring_give(struct ring *r)
{
	lock_take(&pool_mu);
	if (pool_size < RINGS_KEPT) {
		list_push_front(&pool, &r->link); /* the warmest first */
		pool_size++;
		r = NULL;
	}
	lock_drop(&pool_mu);
	if (r)
		ring_free(r);
}

static bool queue(struct ring *r, int fd, struct hio_xfer *x)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&r->u);

	if (!sqe)
		return false;
	if (x->req->op == HIO_OP_READ)
		io_uring_prep_readv(sqe, fd, x->iov, (unsigned)x->niov, x->off);
	else
		io_uring_prep_writev(sqe, fd, x->iov, (unsigned)x->niov, x->off);
	io_uring_sqe_set_data(sqe, x);
	return true;
}

/* Take what has completed. Interrupted and short transfers keep their .left. */
static unsigned reap(struct ring *r)
{
	struct io_uring_cqe *cqe;
	unsigned n = 0;

	while (io_uring_peek_cqe(&r->u, &cqe) == 0) {
		struct hio_xfer *x = io_uring_cqe_get_data(cqe);
		int res = cqe->res;

		io_uring_cqe_seen(&r->u, cqe);
		n++;
		if (res != -EINTR && res != -EAGAIN)
			hio_xfer_advance(x, res);
	}
	return n;
}

void hio_uring_run(int fd, struct hio_xfer *x, unsigned n)
{
	unsigned next = 0, queued = 0, flying = 0;
	struct ring *r = ring_take();

	if (!r)
		return;
	while (next < n || queued || flying) {
		struct io_uring_cqe *cqe;
		int got;

		while (next < n && queued + flying < RING_ENTRIES && queue(r, fd, &x[next])) {
			next++;
			queued++;
		}
		got = io_uring_submit_and_wait(&r->u, 1);
		if (got >= 0) {
			queued -= (unsigned)got;
			flying += (unsigned)got;
		} else if (got != -EINTR) {
			while (flying)
				if (io_uring_wait_cqe(&r->u, &cqe) == 0)
					flying -= reap(r);
			ring_free(r);
			return;
		}
		flying -= reap(r);
	}
	ring_give(r);
}

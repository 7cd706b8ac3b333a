/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * hio_uring.c - batches of transfers through io_uring
 *
 * A small pool of rings is shared by all threads and files: a batch takes a ring for itself, submits everything with one
 * system call and waits for the completions. Rings are made on demand and kept.
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
static struct list pool = LIST_INIT(pool);
static unsigned pool_size;
static atomic_bool unavailable;

static struct ring *ring_take(void)
{
	struct ring *r = NULL;

	lock_take(&pool_mu);
	if (!list_empty(&pool)) {
		r = list_first(&pool, struct ring, link);
		list_del(&r->link);
		pool_size--;
	}
	lock_drop(&pool_mu);
	if (r)
		return r;
	r = malloc(sizeof *r);
	if (!r)
		return NULL;
	if (io_uring_queue_init(RING_ENTRIES, &r->u, 0) < 0) {
		free(r);
		return NULL;
	}
	return r;
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
		list_push_back(&pool, &r->link);
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

int hio_uring_run(int fd, struct hio_xfer *x, unsigned n)
{
	unsigned next = 0, flying = 0;
	struct ring *r;

	if (atomic_load_explicit(&unavailable, memory_order_relaxed))
		return -ENOSYS;
	r = ring_take();
	if (!r) {
		atomic_store(&unavailable, true); /* forbidden here, or no memory: system calls do as well */
		return -ENOSYS;
	}
	while (next < n || flying) {
		struct io_uring_cqe *cqe;
		int err;

		while (next < n && flying < RING_ENTRIES && queue(r, fd, &x[next])) {
			next++;
			flying++;
		}
		err = io_uring_submit_and_wait(&r->u, 1);
		if (err < 0 && err != -EINTR && err != -EAGAIN && err != -EBUSY) {
			/* What is flying may still write to the callers' memory: it must not be left behind. */
			while (flying && io_uring_wait_cqe(&r->u, &cqe) == 0) {
				io_uring_cqe_seen(&r->u, cqe);
				flying--;
			}
			for (unsigned i = 0; i < n; i++)
				if (x[i].left)
					x[i].req->result = err;
			ring_free(r);
			return 0;
		}
		while (io_uring_peek_cqe(&r->u, &cqe) == 0) {
			struct hio_xfer *done = io_uring_cqe_get_data(cqe);
			int res = cqe->res;

			io_uring_cqe_seen(&r->u, cqe);
			flying--;
			if ((res == -EINTR || res == -EAGAIN || !hio_xfer_advance(done, res)) && queue(r, fd, done))
				flying++;
		}
	}
	ring_give(r);
	return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * wait.h - a thread of a pool says that it is going to wait
 *
 * A pool that keeps as many threads busy as there is work for processors, and no more, must know which of its threads are
 * only waiting for a disk or for each other. The places of this code base that block (locks, conditions, host I/O) say so
 * here; for threads that belong to no pool it costs a test.
 */
#ifndef VHDNFS_BASE_WAIT_H
#define VHDNFS_BASE_WAIT_H

#include <stddef.h>

/* Called with whatever locks the waiting thread holds: they may take only locks that are never held across a wait. */
struct waiter {
	void (*begin)(struct waiter *w);
	void (*end)(struct waiter *w);
};

/* This thread's, while it works for a pool; NULL: nobody wants to know. */
extern _Thread_local struct waiter *wait_self;

/* Returns what wait_end() wants. Waiting inside of waiting is not told twice. */
static inline struct waiter *wait_begin(void)
{
	struct waiter *w = wait_self;

	if (w) {
		wait_self = NULL;
		w->begin(w);
	}
	return w;
}

static inline void wait_end(struct waiter *w)
{
	if (w) {
		w->end(w);
		wait_self = w;
	}
}

#endif

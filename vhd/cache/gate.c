/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * gate.c - an image is replaced by another of the same contents, while everybody goes on
 *
 *     dev_enter   inside++, and if the gate is shut: inside--, wait
 *     pause       shut; wait for inside == 0
 */
#include "vhd/cache/cache_int.h"

void dev_wait(struct cache_dev *d)
{
	lock_take(&d->gate_mu);
	while (atomic_load(&d->paused))
		cond_wait(&d->gate, &d->gate_mu);
	lock_drop(&d->gate_mu);
}

void dev_wake(struct cache_dev *d)
{
	lock_take(&d->gate_mu);
	cond_broadcast(&d->gate);
	lock_drop(&d->gate_mu);
}

void cache_pause(struct cache_dev *d)
{
	lock_take(&d->gate_mu);
	atomic_store(&d->paused, true);
	while (atomic_load(&d->inside))
		cond_wait(&d->gate, &d->gate_mu);
	lock_drop(&d->gate_mu);
}

void cache_resume(struct cache_dev *d, struct vhd *v)
{
	struct cache_dev *was = atomic_load(&d->below), *earlier = atomic_load(&d->was_below);

	if (d->v != v) {
		d->v = v;
		/* What was below is in the new chain too, and so outlives those who are looking at it. If there is no chain for
		 * want of memory, it is kept for them, where they find it. */
		if (was)
			atomic_store(&d->was_below, was);
		share_attach(d);
		if (was && atomic_load(&d->below)) {
			atomic_store(&d->was_below, earlier);
			share_detach(was);
		} else if (was) {
			share_detach(earlier);
		}
	}
	lock_take(&d->gate_mu);
	atomic_store(&d->paused, false);
	cond_broadcast(&d->gate);
	lock_drop(&d->gate_mu);
}

int cache_dev_look(struct cache_dev *d)
{
	int err;

	dev_enter(d);
	err = vhd_look(d->v);
	dev_leave(d);
	return err;
}

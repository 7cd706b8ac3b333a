/* SPDX-License-Identifier: BSD-3-Clause */
/* lock.c - see lock.h. The bodies are opaque to the thread-safety analysis: it checks their callers. */
#include "vhd/base/lock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vhd/base/wait.h"

#define SOON 64u /* looks */

_Thread_local struct waiter *wait_self;

static void must(int err, const char *what)
{
	if (!err)
		return;
	fprintf(stderr, "vhdnfs: %s: %s\n", what, strerror(err));
	abort();
}

void lock_init(struct lock *l)
{
	must(pthread_mutex_init(&l->m, NULL), "mutex init");
}

void lock_fini(struct lock *l)
{
	must(pthread_mutex_destroy(&l->m), "mutex destroy");
}

/* Most locks are free again before another thread could take this one's place in its pool. */
#define SHORT_NS 1000000L

static struct timespec shortly(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_nsec += SHORT_NS;
	if (t.tv_nsec >= 1000000000L) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000L;
	}
	return t;
}

/* The sanitizer does not know the calls that take a clock: it would think that the lock is not held. */
#ifdef __SANITIZE_THREAD__
#define TIMED(call, l, t) ((void)(t), ETIMEDOUT)
#else
#define TIMED(call, l, t) call((l), CLOCK_MONOTONIC, (t))
#endif

/* A lock is held by somebody: wait, and tell the pool when it takes long. The calls differ only in the kind of lock. */
#define WAIT_FOR(timed, untimed, l)                                                                                    \
	({                                                                                                             \
		const struct timespec t_ = shortly();                                                                  \
		int err_ = wait_self ? TIMED(timed, l, &t_) : ETIMEDOUT;                                               \
                                                                                                                       \
		if (err_ == ETIMEDOUT) {                                                                               \
			struct waiter *w_ = wait_begin();                                                              \
                                                                                                                       \
			err_ = untimed(l);                                                                             \
			wait_end(w_);                                                                                  \
		}                                                                                                      \
		err_;                                                                                                  \
	})

void lock_take(struct lock *l) NO_THREAD_SAFETY
{
	int err = pthread_mutex_trylock(&l->m);

	if (err == EBUSY)
		err = WAIT_FOR(pthread_mutex_clocklock, pthread_mutex_lock, &l->m);
	must(err, "mutex lock");
}

bool lock_try(struct lock *l) NO_THREAD_SAFETY
{
	int err = pthread_mutex_trylock(&l->m);

	if (err == EBUSY)
		return false;
	must(err, "mutex trylock");
	return true;
}

/* Some 40 ns. */
static void pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("isb" ::: "memory");
#endif
}

bool lock_try_soon(struct lock *l) NO_THREAD_SAFETY
{
	for (unsigned i = 0; i < SOON; i++, pause_briefly())
		if (lock_try(l))
			return true;
	return false;
}

void lock_drop(struct lock *l) NO_THREAD_SAFETY
{
	must(pthread_mutex_unlock(&l->m), "mutex unlock");
}

void rwlock_init(struct rwlock *l)
{
	must(pthread_rwlock_init(&l->l, NULL), "rwlock init");
}

void rwlock_fini(struct rwlock *l)
{
	must(pthread_rwlock_destroy(&l->l), "rwlock destroy");
}

void rwlock_read(struct rwlock *l) NO_THREAD_SAFETY
{
	int err = pthread_rwlock_tryrdlock(&l->l);

	if (err == EBUSY || err == EAGAIN)
		err = WAIT_FOR(pthread_rwlock_clockrdlock, pthread_rwlock_rdlock, &l->l);
	must(err, "rwlock read");
}

void rwlock_write(struct rwlock *l) NO_THREAD_SAFETY
{
	int err = pthread_rwlock_trywrlock(&l->l);

	if (err == EBUSY)
		err = WAIT_FOR(pthread_rwlock_clockwrlock, pthread_rwlock_wrlock, &l->l);
	must(err, "rwlock write");
}

bool rwlock_try_read(struct rwlock *l) NO_THREAD_SAFETY
{
	int err = pthread_rwlock_tryrdlock(&l->l);

	if (err == EBUSY || err == EAGAIN)
		return false;
	must(err, "rwlock try read");
	return true;
}

bool rwlock_try_write(struct rwlock *l) NO_THREAD_SAFETY
{
	int err = pthread_rwlock_trywrlock(&l->l);

	if (err == EBUSY)
		return false;
	must(err, "rwlock try write");
	return true;
}

bool rwlock_try_read_soon(struct rwlock *l) NO_THREAD_SAFETY
{
	for (unsigned i = 0; i < SOON; i++, pause_briefly())
		if (rwlock_try_read(l))
			return true;
	return false;
}

bool rwlock_try_write_soon(struct rwlock *l) NO_THREAD_SAFETY
{
	for (unsigned i = 0; i < SOON; i++, pause_briefly())
		if (rwlock_try_write(l))
			return true;
	return false;
}

void rwlock_drop(struct rwlock *l) NO_THREAD_SAFETY
{
	must(pthread_rwlock_unlock(&l->l), "rwlock unlock");
}

void cond_init(struct cond *c)
{
	pthread_condattr_t a;

	must(pthread_condattr_init(&a), "condattr init");
	must(pthread_condattr_setclock(&a, CLOCK_MONOTONIC), "condattr clock");
	must(pthread_cond_init(&c->c, &a), "cond init");
	pthread_condattr_destroy(&a);
}

void cond_fini(struct cond *c)
{
	must(pthread_cond_destroy(&c->c), "cond destroy");
}

void cond_wait(struct cond *c, struct lock *l) NO_THREAD_SAFETY
{
	struct waiter *w = wait_begin();

	must(pthread_cond_wait(&c->c, &l->m), "cond wait");
	wait_end(w);
}

bool cond_wait_ms(struct cond *c, struct lock *l, uint32_t ms)
{
	return cond_wait_ns(c, l, ms * UINT64_C(1000000));
}

bool cond_wait_ns(struct cond *c, struct lock *l, uint64_t ns) NO_THREAD_SAFETY
{
	struct waiter *w = wait_begin();
	struct timespec t;
	int err;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += (time_t)(ns / 1000000000u);
	t.tv_nsec += (long)(ns % 1000000000u);
	if (t.tv_nsec >= 1000000000L) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000L;
	}
	err = pthread_cond_timedwait(&c->c, &l->m, &t);
	wait_end(w);
	if (err == ETIMEDOUT)
		return false;
	must(err, "cond timed wait");
	return true;
}

void cond_signal(struct cond *c)
{
	must(pthread_cond_signal(&c->c), "cond signal");
}

void cond_broadcast(struct cond *c)
{
	must(pthread_cond_broadcast(&c->c), "cond broadcast");
}

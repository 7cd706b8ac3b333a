/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lock.h - mutexes, reader-writer locks and conditions, with clang's thread-safety annotations
 *
 * The wrappers abort on a misuse that pthreads would report (it is always our bug), so callers have no error paths.
 * REQUIRES and its kin expand to attributes under clang and to nothing elsewhere. GUARDED_BY documents: in C, clang 14
 * cannot resolve a sibling member inside a struct, so it stays a word for the reader.
 */
#ifndef VHDNFS_BASE_LOCK_H
#define VHDNFS_BASE_LOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#if defined(__clang__)
#define TSA(x) __attribute__((x))
#else
#define TSA(x)
#endif
#define CAPABILITY(name) TSA(capability(name))
#define GUARDED_BY(l)
#define PT_GUARDED_BY(l)
#define REQUIRES(...) TSA(requires_capability(__VA_ARGS__))
#define REQUIRES_SHARED(...) TSA(requires_shared_capability(__VA_ARGS__))
#define ACQUIRE(...) TSA(acquire_capability(__VA_ARGS__))
#define ACQUIRE_SHARED(...) TSA(acquire_shared_capability(__VA_ARGS__))
#define RELEASE(...) TSA(release_capability(__VA_ARGS__))
#define RELEASE_SHARED(...) TSA(release_shared_capability(__VA_ARGS__))
#define RELEASE_GENERIC(...) TSA(release_generic_capability(__VA_ARGS__))
#define TRY_ACQUIRE(...) TSA(try_acquire_capability(__VA_ARGS__))
#define TRY_ACQUIRE_SHARED(...) TSA(try_acquire_shared_capability(__VA_ARGS__))
#define EXCLUDES(...) TSA(locks_excluded(__VA_ARGS__))
#define NO_THREAD_SAFETY TSA(no_thread_safety_analysis)

struct CAPABILITY("mutex") lock {
	pthread_mutex_t m;
};

struct CAPABILITY("rwlock") rwlock {
	pthread_rwlock_t l;
};

struct cond {
	pthread_cond_t c;
};

#define LOCK_INIT                                                                                                      \
	{                                                                                                              \
		PTHREAD_MUTEX_INITIALIZER                                                                              \
	}

void lock_init(struct lock *l);
void lock_fini(struct lock *l);
void lock_take(struct lock *l) ACQUIRE(l);
bool lock_try(struct lock *l) TRY_ACQUIRE(true, l);
/* The same, and looks again for a microsecond or two: for locks that are held so long, as a rule, by who may not wait longer. */
bool lock_try_soon(struct lock *l) TRY_ACQUIRE(true, l);
void lock_drop(struct lock *l) RELEASE(l);

void rwlock_init(struct rwlock *l);
void rwlock_fini(struct rwlock *l);
void rwlock_read(struct rwlock *l) ACQUIRE_SHARED(l);
void rwlock_write(struct rwlock *l) ACQUIRE(l);
bool rwlock_try_read(struct rwlock *l) TRY_ACQUIRE_SHARED(true, l);
bool rwlock_try_write(struct rwlock *l) TRY_ACQUIRE(true, l);
bool rwlock_try_read_soon(struct rwlock *l) TRY_ACQUIRE_SHARED(true, l);
bool rwlock_try_write_soon(struct rwlock *l) TRY_ACQUIRE(true, l);
void rwlock_drop(struct rwlock *l) RELEASE_GENERIC(l);

/* Conditions wait on CLOCK_MONOTONIC. cond_wait_ms() and cond_wait_ns() return false when the time passed first. */
void cond_init(struct cond *c);
void cond_fini(struct cond *c);
void cond_wait(struct cond *c, struct lock *l) REQUIRES(l);
bool cond_wait_ms(struct cond *c, struct lock *l, uint32_t ms) REQUIRES(l);
bool cond_wait_ns(struct cond *c, struct lock *l, uint64_t ns) REQUIRES(l);
void cond_signal(struct cond *c);
void cond_broadcast(struct cond *c);

#endif

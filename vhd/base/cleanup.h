/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cleanup.h - resources that are released by their scope
 *
 * AUTO(f) runs f(&variable) when the variable leaves its scope, on every path. TAKE(p) yields p and leaves
 * NULL behind: the success path takes the resource out of the scope's hands.
 */
#ifndef VHDNFS_BASE_CLEANUP_H
#define VHDNFS_BASE_CLEANUP_H

#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#define AUTO(f) __attribute__((cleanup(f)))

#define TAKE(p)                                                                                                        \
	({                                                                                                             \
		__typeof__(p) take_ = (p);                                                                             \
		(p) = NULL;                                                                                            \
		take_;                                                                                                 \
	})

/* AUTO(freep) char *s = …; */
static inline void freep(void *p)
{
	free(*(void **)p);
}

/* AUTO(closep) int fd = -1; */
static inline void closep(const int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#endif

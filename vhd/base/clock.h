/* SPDX-License-Identifier: BSD-3-Clause */
/* clock.h - time that goes on whatever the date is set to */
#ifndef VHDNFS_BASE_CLOCK_H
#define VHDNFS_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

/* Nanoseconds since some moment: for differences. */
static inline uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

#endif

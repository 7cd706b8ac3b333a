/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * replay_policies.h - reference policies of eviction, as simulators: what our cache is measured against
 *
 * A simulator goes through a whole trace with a cache of so many frames that is empty at first, and counts hits. Every access that
 * misses brings its frame in.
 */
#ifndef VHDNFS_TESTS_REPLAY_POLICIES_H
#define VHDNFS_TESTS_REPLAY_POLICIES_H

#include <stddef.h>
#include <stdint.h>

struct replay {
	const uint32_t *at; /* accesses: the number of a frame, below nkeys */
	size_t n;
	uint32_t nkeys; /* different frames */
};

/* @frames: > 0. @hits: out. 0 or -ENOMEM. */
typedef int replay_fn(const struct replay *r, uint32_t frames, uint64_t *hits);

replay_fn replay_lru;
replay_fn replay_clock;
replay_fn replay_s3fifo; /* Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023, algorithm 1 */
replay_fn replay_arc; /* Megiddo and Modha, "ARC: a self-tuning, low overhead replacement cache", FAST 2003, figure 4 */
replay_fn replay_belady; /* knows the future: no policy that brings in what misses has more hits */

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench_cache.c - what a hit of the block cache costs: nanoseconds per call, for 1 … N threads
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "vhd/cache/cache.h"

#define DISK (192u << 20)
#define CALLS 4000000u
#define THREADS 4

static struct cache_dev *dev;

struct run {
	const char *name;
	uint64_t (*fn)(uint64_t *seed, unsigned calls);
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t place(uint64_t *s)
{
	*s = *s * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (*s >> 33) % (DISK / 4096) * 4096;
}

static uint64_t pin_random(uint64_t *seed, unsigned calls)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < calls; i++) {
		struct cache_seg seg[2];

		if (cache_pin(dev, place(seed), 4096, CACHE_NOWAIT, seg, 2) != 1)
			abort();
		sum += seg[0].len;
		cache_unpin(seg, 1);
	}
	return sum;
}

static uint64_t pin_same(uint64_t *seed, unsigned calls)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < calls; i++) {
		struct cache_seg seg[2];

		if (cache_pin(dev, *seed & 4096, 4096, CACHE_NOWAIT | CACHE_META, seg, 2) != 1)
			abort();
		sum += seg[0].len;
		cache_unpin(seg, 1);
	}
	return sum;
}

static uint64_t read_small(uint64_t *seed, unsigned calls)
{
	uint8_t b[256];
	uint64_t sum = 0;

	for (unsigned i = 0; i < calls; i++) {
		if (cache_read(dev, b, sizeof b, place(seed), CACHE_NOWAIT) < 0)
			abort();
		sum += b[0];
	}
	return sum;
}

static uint64_t write_hot(uint64_t *seed, unsigned calls)
{
	static const uint8_t b[4096];

	/* 4 MiB that stay dirty: no writeback in the way. */
	for (unsigned i = 0; i < calls; i++)
		if (cache_write(dev, b, sizeof b, place(seed) % (4u << 20), CACHE_NOWAIT) < 0)
			abort();
	return 0;
}

static const struct run runs[] = {
	{"pin 4 KiB, random over 192 MiB", pin_random},
	{"pin 4 KiB, all threads one frame", pin_same},
	{"read 256 bytes, random", read_small},
	{"write 4 KiB, random over 4 MiB", write_hot},
};

struct thread {
	pthread_t t;
	const struct run *r;
	uint64_t seed;
};

static void *thread_main(void *arg)
{
	struct thread *t = arg;

	t->r->fn(&t->seed, CALLS);
	return NULL;
}

int main(int argc, char **argv)
{
	const struct vhd_create_opts co = {.type = VHD_DYNAMIC, .size = DISK};
	const struct vhd_open_opts oo = {.flags = VHD_OPEN_WRITE};
	struct cache *cache;
	struct vhd *vhd;
	char path[256];

	snprintf(path, sizeof path, "%s/bench-cache-%d.vhd", argc > 1 ? argv[1] : "/tmp", (int)getpid());
	if (vhd_create(path, &co, NULL) < 0 || vhd_open(&vhd, path, &oo, NULL) < 0 || unlink(path) < 0 ||
	    cache_new(&cache, 256u << 20) < 0 || cache_attach(cache, vhd, 0, DISK, &dev) < 0) {
		fprintf(stderr, "bench_cache: cannot make %s\n", path);
		return 1;
	}
	for (uint64_t off = 0; off < DISK; off += 1u << 20) {
		struct cache_seg seg[17];

		cache_unpin(seg, (unsigned)cache_pin(dev, off, 1u << 20, 0, seg, 17));
	}
	for (unsigned r = 0; r < sizeof runs / sizeof runs[0]; r++)
		for (unsigned n = 1; n <= THREADS; n *= 2) {
			struct thread t[THREADS];
			double start = now();

			for (unsigned i = 0; i < n; i++) {
				t[i] = (struct thread){.r = &runs[r], .seed = i * 77};
				pthread_create(&t[i].t, NULL, thread_main, &t[i]);
			}
			for (unsigned i = 0; i < n; i++)
				pthread_join(t[i].t, NULL);
			printf("%-36s %u threads  %6.1f ns per call\n", runs[r].name, n,
			       (now() - start) * 1e9 / CALLS / n);
		}
	cache_detach(dev);
	cache_free(cache);
	vhd_close(vhd);
	return 0;
}

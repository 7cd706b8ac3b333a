/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench_vhd.c - transfers of an image, or of a raw file, without a file system or a cache above
 *
 *     bench_vhd MODE FILE SECONDS THREADS
 *
 * MODE: randread, randwrite (4 KiB, over the whole disk), alloc (4 KiB into blocks that are not there yet, each once; flushed at
 * the end), seqread, seqwrite (1 MiB; seqwrite flushes at the end). Each thread has one transfer in flight. Prints operations
 * per second, MB per second, microseconds of CPU per operation.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "vhd/base/cleanup.h"
#include "vhd/image/vhd.h"
#include "vhd/io/hio.h"

enum mode { RANDREAD, RANDWRITE, ALLOC, SEQREAD, SEQWRITE };
static const char *const names[] = {"randread", "randwrite", "alloc", "seqread", "seqwrite"};

static struct {
	enum mode mode;
	struct vhd *vhd;
	struct hio *raw;
	uint64_t size;
	uint32_t unit;
	atomic_ullong next, done;
	atomic_bool stop;
	atomic_int err;
} b;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t rnd(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* The next offset; false: there is no more. */
static bool next_off(uint64_t *seed, uint64_t *off)
{
	uint64_t n, units = b.size / b.unit;

	switch (b.mode) {
	case RANDREAD:
	case RANDWRITE:
		*off = rnd(seed) % units * b.unit;
		return true;
	case ALLOC:
		/* One in each block of 2 MiB, at a place that moves. */
		n = atomic_fetch_add(&b.next, 1);
		*off = n * (2u << 20) + n % 512 * 4096;
		return *off + b.unit <= b.size;
	default:
		n = atomic_fetch_add(&b.next, 1);
		*off = n % units * b.unit;
		return b.mode == SEQREAD || n < units;
	}
}

static int transfer(void *buf, uint64_t off)
{
	if (b.mode == RANDREAD || b.mode == SEQREAD)
		return b.vhd ? vhd_read(b.vhd, buf, b.unit, off) : hio_read(b.raw, buf, b.unit, off);
	return b.vhd ? vhd_write(b.vhd, buf, b.unit, off) : hio_write(b.raw, buf, b.unit, off);
}

static void *worker(void *arg)
{
	uint64_t seed = (uint64_t)(uintptr_t)arg * UINT64_C(0x9e3779b97f4a7c15) + 1, off;
	void *buf = hio_alloc(b.unit);
	int err = buf ? 0 : -ENOMEM;

	if (buf)
		memset(buf, 0x5a, b.unit);
	while (!err && !atomic_load_explicit(&b.stop, memory_order_relaxed) && next_off(&seed, &off)) {
		err = transfer(buf, off);
		atomic_fetch_add_explicit(&b.done, 1, memory_order_relaxed);
	}
	if (err)
		atomic_store(&b.err, err);
	free(buf);
	return NULL;
}

static int open_it(const char *path, struct why *why)
{
	const struct vhd_open_opts o = {.flags = b.mode == RANDREAD || b.mode == SEQREAD ? 0 : VHD_OPEN_WRITE};
	int err = vhd_open(&b.vhd, path, &o, why);
	int64_t n;

	if (!err) {
		b.size = vhd_size(b.vhd);
		return 0;
	}
	if (err != -EINVAL || (err = hio_open(&b.raw, path, o.flags ? HIO_WRITE : 0, why)) < 0)
		return err;
	n = hio_size(b.raw);
	b.size = n > 0 ? (uint64_t)n : 0;
	return b.size >= b.unit ? 0 : -EINVAL;
}

int main(int argc, char **argv)
{
	unsigned threads = argc == 5 ? (unsigned)atoi(argv[4]) : 0;
	struct why why = {.line = ""};
	double start, took, cpu;
	struct rusage u;
	pthread_t t[256];
	int err;

	for (b.mode = RANDREAD; threads && b.mode <= SEQWRITE && strcmp(names[b.mode], argv[1]) != 0;)
		b.mode++;
	if (!threads || threads > ARRAY_LEN(t) || b.mode > SEQWRITE) {
		fprintf(stderr, "usage: bench_vhd randread|randwrite|alloc|seqread|seqwrite FILE SECONDS THREADS\n");
		return 2;
	}
	b.unit = b.mode == SEQREAD || b.mode == SEQWRITE ? 1u << 20 : 4096;
	if ((err = open_it(argv[2], &why)) < 0) {
		fprintf(stderr, "bench_vhd: %s\n", why.line[0] ? why.line : strerror(-err));
		return 1;
	}
	start = now();
	for (unsigned i = 0; i < threads; i++)
		pthread_create(&t[i], NULL, worker, (void *)(uintptr_t)(i + 1));
	for (double end = start + atof(argv[3]); now() < end && b.mode != ALLOC && b.mode != SEQWRITE;)
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
	if (b.mode != ALLOC && b.mode != SEQWRITE)
		atomic_store(&b.stop, true);
	for (unsigned i = 0; i < threads; i++)
		pthread_join(t[i], NULL);
	err = atomic_load(&b.err);
	if (!err && (b.mode == ALLOC || b.mode == SEQWRITE))
		err = b.vhd ? vhd_flush(b.vhd) : hio_flush(b.raw);
	took = now() - start;
	getrusage(RUSAGE_SELF, &u);
	cpu = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
	if (!err)
		err = vhd_close(b.vhd);
	hio_close(b.raw);
	if (err) {
		fprintf(stderr, "bench_vhd: %s: %s\n", argv[2], strerror(-err));
		return 1;
	}
	printf("%.0f %.1f %.2f\n", (double)b.done / took, (double)b.done * b.unit / took / 1e6,
	       cpu * 1e6 / (double)b.done);
	return 0;
}

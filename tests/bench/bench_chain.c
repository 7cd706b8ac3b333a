/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench_chain.c - what the depth of a chain costs: nanoseconds of CPU per call, for chains of 1, 2, 8 and 30 images
 *
 *     bench_chain [FOLDER]
 *
 * All data is in the lowest image; the others are empty. Asked are: vhd_map() of 4 KiB at random places; a read of 4 KiB that is
 * in the cache; vhd_next_data() over the whole disk, once for a disk whose blocks are all there and once for an empty one
 * (nanoseconds per block of 2 MiB). The best of some rounds counts, after one that fills what is filled at the first look.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "vhd/base/cleanup.h"
#include "vhd/cache/cache.h"

#define DISK (UINT64_C(16) << 30)
#define EMPTY (UINT64_C(1) << 40)
#define HOT (UINT64_C(192) << 20)
#define BLOCK (UINT64_C(2) << 20)
#define CALLS 1000000u
#define ROUNDS 5

static const unsigned depths[] = {1, 2, 8, 30};
static char folder[200];

static double cpu(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void must(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "bench_chain: %s\n", what);
		exit(1);
	}
}

static const char *image(const char *name, unsigned n)
{
	static char path[2][300];
	static unsigned turn;
	char *p = path[turn++ % 2];

	snprintf(p, sizeof path[0], "%s/%s%u.vhd", folder, name, n);
	return p;
}

static void make(const char *name, uint64_t size, bool full)
{
	struct vhd_create_opts co = {.type = VHD_DYNAMIC, .size = size, .exact = true};
	const struct vhd_open_opts oo = {.flags = VHD_OPEN_WRITE};
	static const uint8_t data[4096] = {1};
	struct vhd *v;

	must(vhd_create(image(name, 1), &co, NULL) == 0 && vhd_open(&v, image(name, 1), &oo, NULL) == 0, "base");
	for (uint64_t off = 0; full && off < size; off += BLOCK)
		must(vhd_write(v, data, sizeof data, off) == 0, "write");
	must(vhd_close(v) == 0, "close");
	co = (struct vhd_create_opts){.type = VHD_DIFF};
	for (unsigned n = 2; n <= depths[ARRAY_LEN(depths) - 1]; n++) {
		co.parent = image(name, n - 1);
		must(vhd_create(image(name, n), &co, NULL) == 0, "child");
	}
}

static struct vhd *open_it(const char *name, unsigned depth)
{
	struct why why = {.line = ""};
	struct vhd *v;

	must(vhd_open(&v, image(name, depth), NULL, &why) == 0, why.line);
	return v;
}

static uint64_t place(uint64_t *s, uint64_t size)
{
	*s = *s * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (*s >> 33) % (size / 4096) * 4096;
}

static double map_ns(struct vhd *v)
{
	double best = 1e9;

	for (unsigned r = 0; r <= ROUNDS; r++) {
		uint64_t seed = 7;
		double t = cpu();

		for (unsigned i = 0; i < CALLS; i++) {
			struct vhd_run run;

			must(vhd_map(v, place(&seed, DISK), 4096, &run) == 0 && !run.hole, "map");
		}
		t = (cpu() - t) / CALLS;
		best = r && t < best ? t : best;
	}
	return best;
}

static double read_ns(struct vhd *v)
{
	double best = 1e9;
	struct cache_dev *d;
	struct cache *c;
	uint8_t b[4096];

	must(cache_new(&c, 256u << 20) == 0 && cache_attach(c, v, 0, DISK, &d) == 0, "cache");
	for (uint64_t off = 0; off < HOT; off += sizeof b)
		must(cache_read(d, b, sizeof b, off, 0) == 0, "read");
	for (unsigned r = 0; r <= ROUNDS; r++) {
		uint64_t seed = 7;
		double t = cpu();

		for (unsigned i = 0; i < CALLS; i++)
			must(cache_read(d, b, sizeof b, place(&seed, HOT), CACHE_NOWAIT) == 0, "not in the cache");
		t = (cpu() - t) / CALLS;
		best = r && t < best ? t : best;
	}
	cache_detach(d);
	cache_free(c);
	return best;
}

/* Nanoseconds per block of the disk. */
static double walk_ns(struct vhd *v)
{
	double best = 1e9;

	for (unsigned r = 0; r <= 1; r++) {
		double t = cpu();

		for (uint64_t off = 0, data, end; off < vhd_size(v); off = end)
			must(vhd_next_data(v, off, &data, &end) == 0, "next data");
		t = (cpu() - t) / (double)(vhd_size(v) / BLOCK);
		best = r && t < best ? t : best;
	}
	return best;
}

int main(int argc, char **argv)
{
	char cmd[300];

	snprintf(folder, sizeof folder, "%s/vhdnfs-bench-chain-XXXXXX", argc > 1 ? argv[1] : "/var/tmp");
	must(mkdtemp(folder) != NULL, "no folder");
	make("full", DISK, true);
	make("empty", EMPTY, false);
	printf("%-10s %12s %16s %18s %18s\n", "images", "map, ns", "cached read, ns", "walk of data, ns",
	       "walk of holes, ns");
	for (unsigned i = 0; i < ARRAY_LEN(depths); i++) {
		struct vhd *full = open_it("full", depths[i]), *empty = open_it("empty", depths[i]);

		printf("%-10u %12.1f %16.1f %18.1f %18.2f\n", depths[i], map_ns(full), read_ns(full), walk_ns(full),
		       walk_ns(empty));
		fflush(stdout);
		vhd_close(full);
		vhd_close(empty);
	}
	snprintf(cmd, sizeof cmd, "rm -r %s", folder);
	return system(cmd) ? 1 : 0;
}

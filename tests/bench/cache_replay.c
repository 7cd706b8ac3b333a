/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cache_replay.c - how well the block cache chooses what leaves memory, apart from any disk
 *
 * Traces of accesses to frames go through our cache, on images that hold nothing, and through simulators of other policies
 * (replay_policies.h). What counts is the share of accesses that needed no image, from an empty cache on.
 *
 * Traces are made here, the same ones each time, in proportion to the cache's size; or come from files: lines "DEVICE FRAME".
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/replay_policies.h"
#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/u64map.h"
#include "vhd/cache/cache.h"

#define FRAMES 4096u
#define FRAMES_MIN (CACHE_MIN_LIMIT / CACHE_FRAME)
#define FRAMES_MAX (1u << 18)
#define LENGTH 256u /* accesses of a trace per frame of the cache */
#define LENGTH_QUICK 64u
#define DEVICES_MAX 256u
#define BEHIND_MAX 10u /* per cent that we may be behind the better of S3-FIFO and ARC */

static const char usage[] =
	"usage: cache_replay [--frames N] [--quick] [--whole] [--json] [FILE...]\n"
	"\n"
	"Hit ratios of the block cache's eviction, beside LRU, CLOCK, S3-FIFO, ARC and what nobody can beat, in per "
	"cent: for traces\n"
	"that it makes, and for FILEs with a line \"DEVICE FRAME\" (decimal numbers) per access to a frame of 64 KiB.\n"
	"\n"
	"  --frames N   frames in the cache, 64 to 262144 (4096)\n"
	"  --quick      shorter traces\n"
	"  --whole      accesses use whole frames of ours, rather than always the same 4 KiB of a frame\n"
	"  --json       for programs\n"
	"\n"
	"Ends with 1 when ours is more than 10 % below the better of S3-FIFO and ARC on any trace, with 2 when it "
	"could not be told.\n";

struct options {
	uint32_t frames;
	bool quick, whole, json;
};

static void die(const char *what, int err)
{
	fprintf(stderr, "cache_replay: %s: %s\n", what, strerror(-err));
	exit(2);
}

/* ---- the image: holds nothing, is never written -------------------------------------------------------------------- */

struct vhd {
	uint64_t size;
};

/* Nobody looks at the bytes. */
int vhd_readv(struct vhd *v, struct vhd_io *io, unsigned n)
{
	(void)v;
	for (unsigned i = 0; i < n; i++)
		io[i].result = 0;
	return 0;
}

int vhd_writev(struct vhd *v, struct vhd_io *io, unsigned n)
{
	(void)v;
	for (unsigned i = 0; i < n; i++)
		io[i].result = -EROFS;
	return -EROFS;
}

int vhd_read(struct vhd *v, void *buf, uint64_t len, uint64_t off)
{
	(void)v;
	(void)off;
	memset(buf, 0, len);
	return 0;
}

int vhd_write(struct vhd *v, const void *buf, uint64_t len, uint64_t off)
{
	(void)v;
	(void)buf;
	(void)len;
	(void)off;
	return -EROFS;
}

int vhd_discard(struct vhd *v, uint64_t off, uint64_t len)
{
	(void)v;
	(void)off;
	(void)len;
	return 0;
}

int vhd_flush(struct vhd *v)
{
	(void)v;
	return 0;
}

struct vhd *vhd_backing(struct vhd *v)
{
	(void)v;
	return NULL;
}

unsigned vhd_layer(struct vhd *v, uint64_t off, uint64_t len)
{
	(void)v;
	(void)off;
	(void)len;
	return 0;
}

int vhd_load_maps(struct vhd *v, uint64_t off, uint64_t len)
{
	(void)v;
	(void)off;
	(void)len;
	return 0;
}

uint64_t vhd_size(const struct vhd *v)
{
	return v->size;
}

bool vhd_writable(const struct vhd *v)
{
	(void)v;
	return false;
}

uint64_t vhd_next_block(const struct vhd *v, uint64_t off)
{
	(void)off;
	return v->size;
}

bool vhd_is_rotational(const struct vhd *v)
{
	(void)v;
	return false;
}

const char *vhd_path(const struct vhd *v)
{
	(void)v;
	return "nothing";
}

/* ---- traces ----------------------------------------------------------------------------------------------------- */

struct trace {
	const char *name;
	uint32_t *at; /* accesses: the number of a frame */
	size_t n, room;
	uint64_t *key; /* of each frame: the number of its device << 32 | its place there */
	uint32_t nkeys, keys_room;
	struct u64map numbers, devices; /* key -> number of the frame; name of a device -> its number */
};

/* Room for one element more. */
static void *grow(void *p, size_t n, size_t *room, size_t size)
{
	if (n < *room)
		return p;
	*room = *room ? *room * 2 : 4096;
	p = reallocarray(p, *room, size);
	if (!p)
		die("a trace", -ENOMEM);
	return p;
}

/* The number that stands for @key, from 0 in the order in which they come. */
static uint32_t number_of(struct u64map *m, uint64_t key)
{
	uint64_t *known = u64map_get(m, key);
	uint32_t n = known ? (uint32_t)*known : m->n;

	if (!known && u64map_put(m, key, n) < 0)
		die("a trace", -ENOMEM);
	return n;
}

static void trace_add(struct trace *t, uint32_t device, uint32_t frame)
{
	uint64_t key = (uint64_t)number_of(&t->devices, device) << 32 | frame;
	uint32_t no = number_of(&t->numbers, key);

	if (no == t->nkeys) {
		size_t room = t->keys_room;

		t->key = grow(t->key, t->nkeys, &room, sizeof *t->key);
		t->keys_room = (uint32_t)room;
		t->key[t->nkeys++] = key;
	}
	t->at = grow(t->at, t->n, &t->room, sizeof *t->at);
	t->at[t->n++] = no;
}

static void trace_free(struct trace *t)
{
	free(t->at);
	free(t->key);
	u64map_free(&t->numbers);
	u64map_free(&t->devices);
}

/* Of a file: any error ends the program. */
static void trace_read(struct trace *t, const char *path)
{
	FILE *f = fopen(path, "re");
	char line[64];

	if (!f)
		die(path, -errno);
	for (unsigned long no = 1; fgets(line, sizeof line, f); no++) {
		uint64_t device, frame;
		int end = 0;

		/* More digits than these would not be told from a smaller number. */
		if (sscanf(line, "%10" SCNu64 " %10" SCNu64 " %n", &device, &frame, &end) != 2 || line[end] ||
		    device > UINT32_MAX || frame > UINT32_MAX) {
			line[strcspn(line, "\n")] = 0;
			fprintf(stderr, "cache_replay: %s:%lu: found \"%s\", expected \"DEVICE FRAME\"\n", path, no,
				line);
			exit(2);
		}
		trace_add(t, (uint32_t)device, (uint32_t)frame);
		if (t->devices.n > DEVICES_MAX) {
			fprintf(stderr, "cache_replay: %s:%lu: one device more than %u\n", path, no, DEVICES_MAX);
			exit(2);
		}
	}
	if (ferror(f))
		die(path, -EIO);
	fclose(f);
}

/* ---- traces that are made ------------------------------------------------------------------------------------------ */

/* What a trace is made with. */
struct maker {
	struct trace *t;
	uint32_t frames; /* the cache's */
	size_t n;        /* accesses wanted */
	uint64_t seed;
	uint32_t unseen; /* the next frame for a scan */
};

/* [0, 1) */
static double chance(uint64_t *seed)
{
	uint64_t x = *seed += UINT64_C(0x9e3779b97f4a7c15);

	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return (double)((x ^ x >> 31) >> 11) * 0x1p-53;
}

/* cum[i]: the probability of the i + 1 frames used most, the k-th of which is used in proportion to k to the power of -@skew. */
static double *zipf_table(uint32_t frames, double skew)
{
	double *cum = calloc(frames, sizeof *cum), sum = 0;

	if (!cum)
		die("a trace", -ENOMEM);
	for (uint32_t i = 0; i < frames; i++)
		cum[i] = sum += pow(i + 1, -skew);
	for (uint32_t i = 0; i < frames; i++)
		cum[i] /= sum;
	return cum;
}

static uint32_t zipf_rank(const double *cum, uint32_t frames, double x)
{
	uint32_t low = 0, high = frames - 1;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (cum[mid] > x)
			high = mid;
		else
			low = mid + 1;
	}
	return low;
}

/* @n accesses to @population frames, which are used most lies anywhere among them and depends on @turn. */
static void add_zipf(struct maker *m, uint32_t device, uint32_t population, double skew, uint32_t turn, size_t n)
{
	double *cum = zipf_table(population, skew);

	for (size_t i = 0; i < n; i++) {
		uint64_t rank = zipf_rank(cum, population, chance(&m->seed));

		/* A prime larger than any population: each rank has its frame. */
		trace_add(m->t, device,
			  (uint32_t)((rank * UINT64_C(2654435761) + (uint64_t)turn * population / 3) % population));
	}
	free(cum);
}

static void add_loop(struct maker *m, uint32_t device, size_t n)
{
	uint32_t round = m->frames + m->frames / 4;

	for (size_t i = 0; i < n; i++)
		trace_add(m->t, device, (uint32_t)(i % round));
}

/* A set that would fit, and after each time that many accesses to it as the cache has frames, twice as many frames that come once. */
static void add_scanned(struct maker *m, uint32_t device, size_t n)
{
	for (size_t done = 0; done < n; done += 3 * (size_t)m->frames) {
		add_zipf(m, device, m->frames, 0.8, 0, m->frames);
		for (uint32_t i = 0; i < 2 * m->frames; i++)
			trace_add(m->t, device + 1, m->unseen++);
	}
}

static void make_zipf08(struct maker *m)
{
	add_zipf(m, 0, 16 * m->frames, 0.8, 0, m->n);
}

static void make_zipf10(struct maker *m)
{
	add_zipf(m, 0, 16 * m->frames, 1.0, 0, m->n);
}

static void make_scan(struct maker *m)
{
	add_scanned(m, 0, m->n);
}

static void make_loop(struct maker *m)
{
	add_loop(m, 0, m->n);
}

/* All of them in turns, each time among other frames. */
static void make_mixed(struct maker *m)
{
	size_t phase = m->n / 16;

	for (uint32_t turn = 0; turn < 4; turn++) {
		add_zipf(m, 0, 16 * m->frames, 0.8, turn, phase);
		add_loop(m, 1 + turn, phase);
		add_zipf(m, 0, 16 * m->frames, 1.0, turn, phase);
		add_scanned(m, 5 + 2 * turn, phase);
	}
}

static const struct {
	const char *name;
	void (*make)(struct maker *m);
} makers[] = {
	{"zipf-0.8", make_zipf08}, {"zipf-1.0", make_zipf10}, {"scan", make_scan},
	{"loop", make_loop},       {"mixed", make_mixed},
};

/* ---- ours ------------------------------------------------------------------------------------------------------- */

static uint64_t bytes_read(struct cache *c)
{
	struct cache_stats st;

	cache_stats(c, &st);
	return st.bytes_read;
}

/* One pin per access, always of the same @len bytes of a frame: what was in memory is not read. */
static uint64_t replay_trace(const struct trace *t, uint32_t len, struct cache *c, struct cache_dev *const *devs)
{
	uint64_t hits = 0, had = bytes_read(c);

	for (size_t i = 0; i < t->n; i++) {
		uint64_t key = t->key[t->at[i]], has;
		struct cache_seg seg[2];
		int n = cache_pin(devs[key >> 32], (key & UINT32_MAX) * CACHE_FRAME, len, 0, seg, 2);

		if (n < 0)
			die("cache_pin", n);
		cache_unpin(seg, (unsigned)n);
		has = bytes_read(c);
		hits += has == had;
		had = has;
	}
	return hits;
}

static uint64_t replay_ours(const struct trace *t, const struct options *o)
{
	struct vhd nothing = {.size = ((uint64_t)UINT32_MAX + 1) * CACHE_FRAME};
	struct cache_dev *devs[DEVICES_MAX];
	struct cache *c;
	uint64_t hits;
	int err = cache_new(&c, (size_t)o->frames * CACHE_FRAME);

	if (err < 0)
		die("cache_new", err);
	for (uint32_t i = 0; i < t->devices.n; i++)
		if ((err = cache_attach(c, &nothing, 0, nothing.size, &devs[i])) < 0)
			die("cache_attach", err);
	hits = replay_trace(t, o->whole ? CACHE_FRAME : CACHE_UNIT, c, devs);
	for (uint32_t i = 0; i < t->devices.n; i++)
		cache_detach(devs[i]);
	cache_free(c);
	return hits;
}

/* ---- results ---------------------------------------------------------------------------------------------------- */

enum { OURS, S3FIFO, ARC, LRU, CLOCK, BELADY, POLICIES };

static const struct {
	const char *name;
	replay_fn *run;
} policies[POLICIES] = {
	[OURS] = {"ours", NULL},     [S3FIFO] = {"S3-FIFO", replay_s3fifo}, [ARC] = {"ARC", replay_arc},
	[LRU] = {"LRU", replay_lru}, [CLOCK] = {"CLOCK", replay_clock},     [BELADY] = {"Belady", replay_belady},
};

struct result {
	uint64_t hits[POLICIES];
	uint64_t peer; /* the better of S3-FIFO and ARC */
	bool behind;
};

static double per_cent(uint64_t part, uint64_t whole)
{
	return whole ? 100.0 * (double)part / (double)whole : 100.0;
}

static struct result measure(const struct trace *t, const struct options *o)
{
	struct replay r = {.at = t->at, .n = t->n, .nkeys = t->nkeys};
	struct result res = {.hits[OURS] = replay_ours(t, o)};

	for (unsigned p = 0; p < POLICIES; p++) {
		int err = policies[p].run ? policies[p].run(&r, o->frames, &res.hits[p]) : 0;

		if (err < 0)
			die(policies[p].name, err);
	}
	res.peer = max_u64(res.hits[S3FIFO], res.hits[ARC]);
	res.behind = res.hits[OURS] * 100 < res.peer * (100 - BEHIND_MAX);
	return res;
}

static void table_head(uint32_t frames)
{
	printf("Hit ratios in per cent, %u frames of 64 KiB\n\n%-14s %10s %9s", frames, "trace", "accesses", "frames");
	for (unsigned p = 0; p < POLICIES; p++)
		printf(" %8s", policies[p].name);
	printf("   ours / better of S3-FIFO, ARC\n");
}

static void table_row(const struct trace *t, const struct result *res)
{
	printf("%-14s %10zu %9u", t->name, t->n, t->nkeys);
	for (unsigned p = 0; p < POLICIES; p++)
		printf(" %8.2f", t->n ? per_cent(res->hits[p], t->n) : 0.0);
	printf(" %10.1f %%%s\n", per_cent(res->hits[OURS], res->peer), res->behind ? "  BEHIND" : "");
	fflush(stdout);
}

static void json_string(const char *s)
{
	putchar('"');
	for (; *s; s++)
		if (*s == '"' || *s == '\\')
			printf("\\%c", *s);
		else if ((unsigned char)*s < ' ')
			printf("\\u%04x", (unsigned)*s);
		else
			putchar(*s);
	putchar('"');
}

static void json_row(const struct trace *t, const struct result *res, bool first)
{
	printf("%s\n    {\"trace\": ", first ? "" : ",");
	json_string(t->name);
	printf(", \"accesses\": %zu, \"frames\": %u, \"hit_per_cent\": {", t->n, t->nkeys);
	for (unsigned p = 0; p < POLICIES; p++)
		printf("%s\"%s\": %.3f", p ? ", " : "", policies[p].name, t->n ? per_cent(res->hits[p], t->n) : 0.0);
	printf("}, \"ours_of_better_per_cent\": %.2f, \"behind\": %s}", per_cent(res->hits[OURS], res->peer),
	       res->behind ? "true" : "false");
}

/* ---- the program ------------------------------------------------------------------------------------------------ */

static struct options parse(int argc, char **argv)
{
	static const struct option known[] = {
		{"frames", required_argument, NULL, 'f'}, {"quick", no_argument, NULL, 'q'},
		{"whole", no_argument, NULL, 'w'},        {"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0}};
	struct options o = {.frames = FRAMES};
	unsigned long n;
	char *end;
	int opt;

	while ((opt = getopt_long(argc, argv, "", known, NULL)) >= 0)
		switch (opt) {
		case 'f':
			n = strtoul(optarg, &end, 10);
			if (*end || n < FRAMES_MIN || n > FRAMES_MAX) {
				fprintf(stderr, "cache_replay: --frames: found \"%s\", expected %u to %u\n", optarg,
					FRAMES_MIN, FRAMES_MAX);
				exit(2);
			}
			o.frames = (uint32_t)n;
			break;
		case 'q':
			o.quick = true;
			break;
		case 'w':
			o.whole = true;
			break;
		case 'j':
			o.json = true;
			break;
		case 'h':
			fputs(usage, stdout);
			exit(0);
		default:
			fputs(usage, stderr);
			exit(2);
		}
	return o;
}

/* Measure, print, and free a trace. Is ours behind? */
static bool run(struct trace *t, const struct options *o, bool first)
{
	struct result res = measure(t, o);

	if (o->json)
		json_row(t, &res, first);
	else
		table_row(t, &res);
	trace_free(t);
	return res.behind;
}

/* Those of the command line, in its order. What is wrong in one of them is said before anything is measured. */
static struct trace *read_files(unsigned n, char **paths)
{
	struct trace *t = calloc(n + 1u, sizeof *t);

	if (!t)
		die("a trace", -ENOMEM);
	for (unsigned i = 0; i < n; i++) {
		const char *slash = strrchr(paths[i], '/');

		t[i].name = slash ? slash + 1 : paths[i];
		trace_read(&t[i], paths[i]);
	}
	return t;
}

int main(int argc, char **argv)
{
	struct options o = parse(argc, argv);
	unsigned behind = 0, nfiles = (unsigned)(argc - optind);
	struct trace *files = read_files(nfiles, argv + optind);

	if (o.json)
		printf("{\"cache_frames\": %u, \"results\": [", o.frames);
	else
		table_head(o.frames);
	for (unsigned i = 0; i < ARRAY_LEN(makers); i++) {
		struct trace t = {.name = makers[i].name};
		struct maker m = {.t = &t,
				  .frames = o.frames,
				  .n = (size_t)o.frames * (o.quick ? LENGTH_QUICK : LENGTH),
				  .seed = i + 1};

		makers[i].make(&m);
		behind += run(&t, &o, !i);
	}
	for (unsigned i = 0; i < nfiles; i++)
		behind += run(&files[i], &o, false);
	free(files);
	if (o.json)
		printf("\n]}\n");
	if (behind)
		fprintf(stderr,
			"cache_replay: on %u traces ours is more than %u %% below the better of S3-FIFO and ARC\n",
			behind, BEHIND_MAX);
	return behind ? 1 : 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench_hints.c - vhdnfs bench hints: what advice brings, and what wrong advice costs
 *
 * Each workload runs four times, each time on a server of its own with nothing in memory: one that reads nothing ahead; one that
 * finds out by itself; one that is told; one that is told something wrong. The disk is modelled (--disk-model of vhdnfsd) or real.
 * Reads are one at a time, as from a program that waits for each.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/bench_hints.h"
#include "tools/tool.h"
#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/size.h"
#include "vhd/io/hio_model.h"

#define K 1024u
#define M (1024u * K)
#define HINT(h) (1u << IO_ADVISE4_##h)

struct run {
	struct bench_server *s;
	struct bench_file f; /* "big" */
	enum variant v;
	uint64_t big, hot; /* bytes */
	unsigned reads;    /* of a list */
	unsigned jumps;    /* of who thinks in between */
	struct measured *m;
	struct why *why;
};

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* About the whole file, once. */
static int say(struct run *r, struct bench_file *f, uint32_t right, uint32_t wrong)
{
	uint64_t off = 0;
	uint32_t hints = r->v == V_RIGHT ? right : r->v == V_WRONG ? wrong : 0;

	return hints ? bench_advise(f, hints, &off, 1, 0) : 0;
}

static int rd(struct run *r, uint64_t off, uint32_t len)
{
	r->m->bytes += len;
	return bench_read(&r->f, off, len);
}

/* ---- the workloads ---------------------------------------------------------------------------------------------------------------- */

static int forward(struct run *r)
{
	double start = now_s();
	int err = say(r, &r->f, HINT(SEQUENTIAL), HINT(RANDOM));

	for (uint64_t off = 0; !err && off < r->big; off += 64 * K) {
		err = rd(r, off, 64 * K);
		if (off + 64 * K == 10 * M)
			r->m->first_s = now_s() - start;
	}
	return err;
}

static int backward(struct run *r)
{
	int err = say(r, &r->f, HINT(SEQUENTIAL_BACKWARDS), HINT(SEQUENTIAL));

	for (uint64_t off = r->big; !err && off; off -= 64 * K)
		err = rd(r, off - 64 * K, 64 * K);
	return err;
}

static int strided(struct run *r)
{
	const uint64_t step = 512 * K;
	int err = say(r, &r->f, 0, HINT(SEQUENTIAL));

	for (uint64_t off = 0; !err && off < r->big; off += step) {
		uint64_t ahead[12];
		unsigned n = 0;

		/* Four more, eight ahead. */
		for (uint64_t k = off + (off ? 8 : 0) * step; off / step % 4 == 0 && n < (off ? 4 : 12) && k < r->big;
		     k += step)
			ahead[n++] = k;
		if (r->v != V_RIGHT)
			n = 0;
		if (n)
			err = bench_advise(&r->f, HINT(WILLNEED), ahead, n, 64 * K);
		if (!err)
			err = rd(r, off, 64 * K);
	}
	return err;
}

/* Reads at places that are known before: as a database does with the rows that an index names. */
static int list(struct run *r)
{
	AUTO(freep) uint64_t *at = calloc(r->reads + 1, sizeof *at);
	uint64_t seed = 88172645463325252u;
	unsigned told = 0;
	int err = at ? say(r, &r->f, 0, HINT(SEQUENTIAL)) : -ENOMEM;

	for (unsigned i = 0; at && i < r->reads; i++)
		at[i] = next(&seed) % (r->big / (4 * K)) * (4 * K);
	for (unsigned i = 0; !err && i < r->reads; i++) {
		while (!err && r->v == V_RIGHT && told < r->reads && told + 12 <= i + 64 + 12 && told < i + 64) {
			unsigned n = (unsigned)min_u64(12, r->reads - told);

			err = bench_advise(&r->f, HINT(WILLNEED), at + told, n, 4 * K);
			told += n;
		}
		if (!err)
			err = rd(r, at[i], 4 * K);
	}
	return err;
}

/* A reader who thinks, and can guess where it goes on. Only the reads are timed. */
static int chase(struct run *r)
{
	uint64_t seed = 42, elsewhere;
	double busy = 0, start;
	int err = 0;

	for (unsigned i = 0; !err && i < r->jumps; i++) {
		uint64_t at = next(&seed) % (r->big / M) * M;

		elsewhere = (at + r->big / 2) % r->big;
		if (r->v == V_RIGHT || r->v == V_WRONG)
			err = bench_advise(&r->f, HINT(WILLNEED_OPPORTUNISTIC), r->v == V_RIGHT ? &at : &elsewhere, 1,
					   256 * K);
		nap_ms(80);
		start = now_s();
		for (unsigned k = 0; !err && k < 4; k++)
			err = rd(r, at + k * 64 * K, 64 * K);
		busy += now_s() - start;
	}
	r->m->seconds = busy;
	return err;
}

/* Bytes that the images were read. */
static int disk_read(struct run *r, uint64_t *bytes)
{
	json_t *o;
	int err = bench_server_stats(r->s, &o, r->why);

	if (err)
		return err;
	*bytes = (uint64_t)json_integer_value(json_object_get(json_object_get(o, "cache"), "bytes_read"));
	json_decref(o);
	return 0;
}

static int read_all(struct bench_file *f, uint64_t size)
{
	int err = 0;

	for (uint64_t off = 0; !err && off < size; off += 64 * K)
		err = bench_read(f, off, 64 * K);
	return err;
}

/* How much of the hot file is in memory: what reading it again does not ask the disk for. */
static int how_much_is_kept(struct run *r, struct bench_file *hot)
{
	uint64_t before, after;
	int err;

	if ((err = disk_read(r, &before)) < 0 || (err = read_all(hot, r->hot)) < 0 || (err = disk_read(r, &after)) < 0)
		return err;
	r->m->kept = after - before >= r->hot ? 0 : 1 - (double)(after - before) / (double)r->hot;
	return 0;
}

/* What many use, beside a scan of ten times the cache. */
static int hot_set(struct run *r)
{
	struct bench_file hot;
	uint64_t seed = 7;
	int err = bench_open(&hot, &r->s->url, "hot", false, r->why);

	for (unsigned i = 0; !err && i < 3; i++)
		err = read_all(&hot, r->hot);
	if (!err)
		err = say(r, r->v == V_WRONG ? &hot : &r->f, HINT(NOREUSE), HINT(NOREUSE));
	for (uint64_t off = 0; !err && off < r->big; off += 64 * K) {
		err = rd(r, off, 64 * K);
		if (!err && off / (64 * K) % 8 == 0) {
			r->m->bytes += 4 * K;
			err = bench_read(&hot, next(&seed) % (r->hot / (4 * K)) * (4 * K), 4 * K);
		}
	}
	if (!err)
		err = how_much_is_kept(r, &hot);
	bench_close(&hot);
	return err;
}

/* One goes through the file, the other jumps about in it; each says what it does, or the opposite. */
static int opposite(struct run *r)
{
	struct bench_file other;
	uint64_t seed = 9;
	int err = bench_open(&other, &r->s->url, "big", false, r->why);

	if (!err)
		err = say(r, &other, HINT(RANDOM), HINT(SEQUENTIAL));
	if (!err)
		err = say(r, &r->f, HINT(SEQUENTIAL), HINT(RANDOM));
	for (uint64_t off = 0; !err && off < r->big / 2; off += 64 * K) {
		err = rd(r, off, 64 * K);
		if (!err && off / (64 * K) % 32 == 0) {
			r->m->bytes += 4 * K;
			err = bench_read(&other, next(&seed) % (r->big / (4 * K)) * (4 * K), 4 * K);
		}
	}
	bench_close(&other);
	return err;
}

/* A log that nobody reads, beside what many use. */
static int append(struct run *r)
{
	AUTO(freep) char *buf = calloc(1, 64 * K);
	struct bench_file hot;
	int err = bench_open(&hot, &r->s->url, "hot", false, r->why);
	uint64_t done = r->big;

	for (unsigned i = 0; !err && i < 3; i++)
		err = read_all(&hot, r->hot);
	for (uint64_t off = r->big; !err && off < r->big + r->big / 2; off += 64 * K) {
		r->m->bytes += 64 * K;
		err = bench_write(&r->f, buf, off, 64 * K);
		if (err || off / (64 * K) % 16 != 15)
			continue;
		err = bench_commit(&r->f);
		if (!err && r->v == V_RIGHT)
			err = bench_advise(&r->f, HINT(WRITE) | HINT(DONTNEED), &done, 1, off + 64 * K - done);
		if (!err && r->v == V_WRONG)
			err = bench_advise(&r->f, HINT(WRITE) | HINT(WILLNEED), &done, 1, off + 64 * K - done);
		done = off + 64 * K;
	}
	if (!err)
		err = how_much_is_kept(r, &hot);
	bench_close(&hot);
	return err;
}

static const struct workload {
	const char *name, *what, *right, *wrong;
	int (*run)(struct run *r);
	bool write;
} workloads[] = {
	{"forward", "64 KiB reads from start to end", "SEQUENTIAL", "RANDOM", forward, false},
	{"backward", "64 KiB reads from end to start", "SEQUENTIAL_BACKWARDS", "SEQUENTIAL", backward, false},
	{"strided", "64 KiB out of each 512", "WILLNEED, 8 ahead", "SEQUENTIAL", strided, false},
	{"list", "4 KiB at places known before", "WILLNEED, 64 ahead", "SEQUENTIAL", list, false},
	{"chase", "256 KiB at a place that can be guessed, 80 ms before", "WILLNEED_OPPORTUNISTIC",
	 "the same, elsewhere", chase, false},
	{"hot-set", "a scan of ten times the cache, and 60 % of it in use", "NOREUSE for the scan",
	 "NOREUSE for the others", hot_set, false},
	{"opposite", "a scan and random reads of one file", "SEQUENTIAL and RANDOM", "the other way round", opposite,
	 false},
	{"append", "a log that is never read, and 60 % of the cache in use", "WRITE, DONTNEED", "WRITE, WILLNEED",
	 append, true},
};

/* ---- running ------------------------------------------------------------------------------------------------------------------------ */

static void figures(struct measured *m, json_t *o)
{
	json_t *c = json_object_get(o, "cache"), *d = json_object_get(o, "disk_model");

	m->disk_bytes = (uint64_t)json_integer_value(json_object_get(c, "bytes_read"));
	m->ahead = (uint64_t)json_integer_value(json_object_get(c, "ahead"));
	m->used = (uint64_t)json_integer_value(json_object_get(c, "ahead_used"));
	m->wasted = m->ahead - m->used;
	m->late = (uint64_t)json_integer_value(json_object_get(c, "ahead_late"));
	m->transfers = (uint64_t)json_integer_value(json_object_get(d, "transfers"));
	m->busy_us = (uint64_t)json_integer_value(json_object_get(d, "busy_us"));
	m->seeks = (uint64_t)json_integer_value(json_object_get(d, "seeks"));
}

static int one(struct run *r, const struct workload *w, const char *disk, uint64_t cache)
{
	double start;
	json_t *o;
	int err;

	*r->m = (struct measured){.kept = -1};
	if ((err = bench_server_start(r->s, disk, r->v == V_NONE ? "off" : "auto", cache, r->why)) < 0)
		return err;
	err = bench_open(&r->f, &r->s->url, "big", w->write, r->why);
	start = now_s();
	if (!err)
		err = w->run(r);
	if (r->m->seconds <= 0)
		r->m->seconds = now_s() - start;
	if (!err && (err = bench_server_stats(r->s, &o, r->why)) == 0) {
		figures(r->m, o);
		json_decref(o);
		r->m->done = true;
	}
	bench_close(&r->f);
	bench_server_stop(r->s);
	return err ? why_set(r->why, err, "%s: %s", w->name, r->why->line[0] ? strdupa(r->why->line) : nfsc_error(err))
		   : 0;
}

struct options {
	const char *disk, *html, *only;
	uint64_t cache, size;
	unsigned reads;
	bool json, quick;
};

static int run_all(const struct options *o, struct why *why)
{
	struct result result[ARRAY_LEN(workloads)] = {{.name = NULL}};
	struct report report = {.disk = o->disk, .cache = o->cache, .big = o->size, .r = result};
	struct bench_server s;
	struct run r = {.s = &s,
			.big = o->size,
			.hot = round_down_u64(o->cache * 6 / 10, M),
			.reads = o->reads,
			.jumps = o->quick ? 6 : 16,
			.why = why};
	int err = bench_server_prepare(&s, r.big, r.hot, why);

	for (size_t i = 0; !err && i < ARRAY_LEN(workloads); i++) {
		const struct workload *w = &workloads[i];
		struct result *to = &result[report.n];

		if (o->only && strcmp(o->only, w->name) != 0)
			continue;
		*to = (struct result){.name = w->name, .what = w->what, .right = w->right, .wrong = w->wrong};
		for (r.v = V_NONE; !err && r.v < VARIANTS; r.v++) {
			fprintf(stderr, "\r%-10s %u of %u", w->name, (unsigned)r.v + 1, (unsigned)VARIANTS);
			r.m = &to->v[r.v];
			err = one(&r, w, o->disk, o->cache);
		}
		report.n++;
	}
	fputs("\r                    \r", stderr);
	bench_server_remove(&s);
	if (err)
		return err;
	if (o->json)
		report_json(&report);
	else
		report_table(&report);
	return o->html ? report_html(&report, o->html) : 0;
}

static int usage(FILE *f)
{
	fputs("usage: vhdnfs bench hints [--disk hdd|cloud|nvme|real] [--quick] [--json] [--html FILE] [--only "
	      "WORKLOAD]\n"
	      "                          [--size BYTES] [--cache-size BYTES] [--reads N]\n\n"
	      "What advice brings: workloads on an image and a server of their own, without reading ahead, with what "
	      "the server\n"
	      "finds out by itself, with the right advice and with wrong advice. Needs twice SIZE (512M, with --quick "
	      "48M) in\n"
	      "$TMPDIR (/var/tmp); disks other than \"real\" (hdd is the default) are modelled, see vhdnfsd(8).\n\n"
	      "Workloads: ",
	      f);
	for (size_t i = 0; i < ARRAY_LEN(workloads); i++)
		fprintf(f, "%s%s", i ? ", " : "", workloads[i].name);
	fputs(".\n", f);
	return f == stdout ? TOOL_OK : TOOL_USAGE;
}

/* Before minutes of work, not after. */
static bool can_write(const char *path)
{
	FILE *f = fopen(path, "ae");

	return f && fclose(f) == 0;
}

static int parse(struct options *o, int argc, char **argv)
{
	static const struct option long_opts[] = {
		{"disk", required_argument, NULL, 'd'},  {"quick", no_argument, NULL, 'q'},
		{"json", no_argument, NULL, 'j'},        {"html", required_argument, NULL, 'H'},
		{"only", required_argument, NULL, 'o'},  {"size", required_argument, NULL, 's'},
		{"reads", required_argument, NULL, 'r'}, {"cache-size", required_argument, NULL, 'c'},
		{"help", no_argument, NULL, 'h'},        {NULL, 0, NULL, 0},
	};
	uint64_t n = 0;
	int opt;

	while ((opt = getopt_long(argc, argv, "h", long_opts, NULL)) != -1) {
		if (strchr("src", opt) && size_parse(optarg, &n) < 0) {
			fprintf(stderr, "vhdnfs bench hints: \"%s\": expected a number; see --help\n", optarg);
			return TOOL_USAGE;
		}
		switch (opt) {
		case 'd':
			o->disk = optarg;
			break;
		case 'q':
			o->quick = true;
			break;
		case 'j':
			o->json = true;
			break;
		case 'H':
			o->html = optarg;
			break;
		case 'o':
			o->only = optarg;
			break;
		case 's':
			o->size = round_down_u64(n, M);
			break;
		case 'c':
			o->cache = n;
			break;
		case 'r':
			o->reads = (unsigned)min_u64(n, 10000000);
			break;
		default:
			return usage(opt == 'h' ? stdout : stderr) ? TOOL_USAGE : -1;
		}
	}
	if (argc != optind)
		return usage(stderr);
	if (strcmp(o->disk, "real") != 0 && !hio_model_knows(o->disk)) {
		fprintf(stderr, "vhdnfs bench hints: --disk %s: expected real, or one of %s; see --help\n", o->disk,
			hio_model_names());
		return TOOL_USAGE;
	}
	if (o->html && !can_write(o->html)) {
		fprintf(stderr, "vhdnfs bench hints: --html %s: %s\n", o->html, strerror(errno));
		return TOOL_USAGE;
	}
	for (size_t i = 0; o->only && i < ARRAY_LEN(workloads); i++)
		if (strcmp(o->only, workloads[i].name) == 0)
			return 0;
	if (o->only)
		fprintf(stderr, "vhdnfs bench hints: --only %s: no such workload; see --help\n", o->only);
	return o->only ? TOOL_USAGE : 0;
}

int cmd_bench_hints(int argc, char **argv)
{
	struct options o = {.disk = "hdd"};
	struct why why = {.line = ""};
	int err = parse(&o, argc, argv);

	if (err)
		return err < 0 ? TOOL_OK : err;
	o.size = o.size ? max_u64(o.size, 16 * M) : o.quick ? 48 * M : 512 * M;
	o.cache = o.cache ? o.cache : o.size / 8;
	o.reads = o.reads ? o.reads : o.quick ? 100 : 10000;
	err = run_all(&o, &why);
	if (!err)
		return TOOL_OK;
	fprintf(stderr, "vhdnfs: %s\n", why.line[0] ? why.line : nfsc_error(err));
	return TOOL_FAILED;
}

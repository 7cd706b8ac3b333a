/* SPDX-License-Identifier: BSD-3-Clause */
/* bench_hints.h - what the parts of `vhdnfs bench hints` share */
#ifndef VHDNFS_TOOLS_BENCH_HINTS_H
#define VHDNFS_TOOLS_BENCH_HINTS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "tools/nfs_client.h"

static inline void nap_ms(long ms)
{
	nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

/* How the server is run and what the client says. */
enum variant { V_NONE, V_DETECT, V_RIGHT, V_WRONG, VARIANTS };

struct measured {
	bool done;
	double seconds;
	uint64_t bytes; /* that the client read or wrote */
	double first_s; /* until the first 10 MiB were there; 0: not measured */
	double kept;    /* share of what should stay in memory that did, 0 … 1; < 0: not measured */
	uint64_t disk_bytes, ahead, used, wasted, late;
	uint64_t seeks, transfers, busy_us; /* of a modelled disk */
};

/* ---- a server of our own: bench_server.c ------------------------------------------------------------------------------ */

struct bench_server {
	char dir[512]; /* scratch */
	char image[600], control[600], log[600];
	char vhdnfs[4096], vhdnfsd[4096]; /* our programs */
	pid_t pid;
	struct nfs_url url; /* of the export's root */
};

/* A scratch folder with an image of a file "big" and a file "hot" of so many bytes. -EIO, -ENOENT, … with a line. */
int bench_server_prepare(struct bench_server *s, uint64_t big, uint64_t hot, struct why *why);
/* @disk: a model's name, or "real". */
int bench_server_start(struct bench_server *s, const char *disk, const char *readahead, uint64_t cache,
		       struct why *why);
void bench_server_stop(struct bench_server *s);
void bench_server_remove(struct bench_server *s);
/* What `vhdnfs stat` shows; the caller's. */
int bench_server_stats(struct bench_server *s, json_t **out, struct why *why);

/* ---- an open file: bench_file.c -------------------------------------------------------------------------------------------- */

struct bench_file {
	struct nfsc *n;
	char fh[NFS4_FHSIZE];
	uint32_t fh_len;
	stateid4 sid;
	bool write, opened;
	char *out; /* the call that is sent again and again, out_len bytes up to what changes */
	uint32_t out_len;
	char *in; /* room for a reply */
	size_t in_size;
	uint32_t seq; /* of our slot */
};

/* Of a connection of its own. @path below the export. */
int bench_open(struct bench_file *f, const struct nfs_url *root, const char *path, bool write, struct why *why);
void bench_close(struct bench_file *f);
int bench_read(struct bench_file *f, uint64_t off, uint32_t len);
/* @len: a multiple of 4. */
int bench_write(struct bench_file *f, const void *buf, uint64_t off, uint32_t len);
int bench_commit(struct bench_file *f);
/* @n ranges at once, at most 12; hints as bits. */
int bench_advise(struct bench_file *f, uint32_t hints, const uint64_t *off, unsigned n, uint64_t len);

/* ---- the report: bench_report.c ---------------------------------------------------------------------------------------------- */

struct result {
	const char *name, *what, *right, *wrong;
	struct measured v[VARIANTS];
};
struct report {
	const char *disk;
	uint64_t cache, big;
	const struct result *r;
	unsigned n;
};
void report_table(const struct report *r);
void report_json(const struct report *r);
/* A page with plots that needs nothing else. 0 or a negative errno. */
int report_html(const struct report *r, const char *path);

int cmd_bench_hints(int argc, char **argv);

#endif

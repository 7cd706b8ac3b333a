/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * config.h - what the server is told: by vhdnfs.yaml, by the command line
 *
 * The command line adds to lists and overrides single values of the file. Every mistake is one line: for the file with
 * its name and line number. All strings belong to the configuration.
 */
#ifndef VHDNFS_SERVER_CONFIG_H
#define VHDNFS_SERVER_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "advise/words.h"
#include "server/export.h"
#include "vhd/base/why.h"

struct config_image {
	char *path;
	char *name;              /* exports appear at /name, or /name/p1, … */
	struct export_opts opts; /* opts.allow points to `allow` */
	struct cidr *allow;
	bool squash_given; /* else config.squash applies */
	char *said_at;     /* "vhdnfs.yaml:12"; NULL: on the command line */
};

/* When something is read ahead: as reads show, and as clients say; only as they say; never. */
enum readahead { READAHEAD_AUTO, READAHEAD_HINTS, READAHEAD_OFF };

struct config {
	char **listen; /* "127.0.0.1:2049", "[::1]:2049" */
	unsigned nlisten;
	struct cidr *allow; /* who may connect at all */
	unsigned nallow;
	struct config_image *image;
	unsigned nimage;
	bool from_file; /* a file was read; images can be added to it while the server runs, so there may be none at first */
	uint64_t cache_size; /* bytes */
	char *state_dir;     /* NULL: beside the image */
	char *metrics;       /* "127.0.0.1:9500"; NULL: none */
	char *control;       /* path of the control socket; NULL: the default; "none" */
	/* Where the parents of differencing images are looked for: real folders; none: beside each image. */
	char **parent_dir;
	unsigned nparent_dir;
	bool async;         /* changes of metadata are answered before they are on stable storage */
	bool no_journal_ok; /* file systems without a journal are written */
	bool discard;       /* the space of removed files goes back to the host */
	bool detect_zeroes; /* zeros that are written take no space in images */
	bool force_parent;  /* parents that were changed since are taken */
	bool strict_parent; /* parents whose files have another time are not */
	bool read_only;
	bool secure_ports;      /* AUTH_SYS from privileged ports only; from the next start on */
	bool snapshots;         /* of images are exported, read-only */
	bool plain_filehandles; /* without a hash */
	enum readahead readahead;
	const char *trace;     /* NULL: none; not a copy */
	struct adv_rule *rule; /* the first that matches a file's name holds */
	unsigned nrule;
	enum squash squash;      /* for images that do not say */
	unsigned loops, workers; /* 0: by the number of cores */
	unsigned max_connections;
	unsigned busy_poll_us; /* how long an event loop looks for calls before it sleeps */
	unsigned lease_seconds;
	unsigned grace_seconds; /* 0: as lease_seconds */
	int log_level;          /* enum log_level */
};

#define CONFIG_PORT 2049

#define CONFIG_CONNECTIONS 8192u /* that a server has at a time, unless it is said */

enum config_number {
	CONFIG_THREADS,
	CONFIG_WORKERS,
	CONFIG_BUSY_POLL,
	CONFIG_MAX_CONNECTIONS,
	CONFIG_LEASE,
	CONFIG_GRACE,
};

void config_init(struct config *c); /* the defaults */
void config_fini(struct config *c);

/* Add what a file says. -EINVAL, -ENOENT, … with one line. The path is opened once. */
int config_load(struct config *c, const char *path, struct why *why);

/* "ADDR[:PORT]", "[V6][:PORT]", ":PORT" is refused. */
int config_add_listen(struct config *c, const char *text, struct why *why);
int config_add_allow(struct config *c, const char *text, struct why *why);
int config_add_parent_dir(struct config *c, const char *dir, struct why *why);
/* "IMAGE[=NAME]" */
int config_add_image(struct config *c, const char *text, struct why *why);
int config_set_state_dir(struct config *c, const char *dir, struct why *why);
int config_set_cache_size(struct config *c, const char *text, struct why *why);
/* -EINVAL with a line that says the range. */
int config_set_number(struct config *c, enum config_number which, uint64_t value, struct why *why);

/* After file and command line: fill in defaults that depend on others, refuse what does not go together. */
int config_finish(struct config *c, struct why *why);

#endif

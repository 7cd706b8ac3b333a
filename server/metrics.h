/* SPDX-License-Identifier: BSD-3-Clause */
/* metrics.h - GET /metrics over HTTP, for Prometheus (libmicrohttpd; one thread, a few connections at a time) */
#ifndef VHDNFS_SERVER_METRICS_H
#define VHDNFS_SERVER_METRICS_H

#include "server/figures.h"
#include "vhd/base/why.h"

struct metrics;

/* @addr: "127.0.0.1:9500", "[::1]:9500". -EINVAL not an address, or it cannot be listened on. *port: where it listens. */
int metrics_start(struct metrics **out, const char *addr, const struct figures_of *f, uint16_t *port, struct why *why);
void metrics_stop(struct metrics *m); /* NULL is accepted */

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* figures.h - what a running server can tell of itself: for `vhdnfs stat` as JSON, for Prometheus as text */
#ifndef VHDNFS_SERVER_FIGURES_H
#define VHDNFS_SERVER_FIGURES_H

#include <jansson.h>
#include <time.h>

#include "server/nfs4/compound.h"
#include "vhd/cache/cache.h"

struct figures_of {
	struct nfs_server *nfs;
	struct cache *cache;
	struct rpc_server *rpc;
	time_t started;
};

/* {"version", "uptime", "rpc": {…}, "clients": {…}, "cache": {…}, "operations": {"READ": {"count", "errors"}, …},
 *  "hints": {"SEQUENTIAL": {"asked", "followed"}, …}, "exports": [{…}]}: bytes, seconds, and counts since the start. NULL: no memory. */
json_t *figures_json(const struct figures_of *f);
/* The same in Prometheus' text format, version 0.0.4. The caller frees it; NULL: no memory. */
char *figures_text(const struct figures_of *f);

#endif

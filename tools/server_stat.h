/* SPDX-License-Identifier: BSD-3-Clause */
/* server_stat.h - what a running server does */
#ifndef VHDNFS_TOOLS_SERVER_STAT_H
#define VHDNFS_TOOLS_SERVER_STAT_H

#include <stdbool.h>

struct server_stat {
	const char *control; /* NULL: the default */
	bool json;           /* one line each time */
	unsigned files;      /* how many of the busiest files to show */
	unsigned watch;      /* seconds between two looks; 0: one look */
};

/* Until it fails, when it watches. The exit status. */
int server_stat(const struct server_stat *o);

#endif

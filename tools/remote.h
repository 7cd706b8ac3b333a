/* SPDX-License-Identifier: BSD-3-Clause */
/* remote.h - what the subcommands that work on a server's files share */
#ifndef VHDNFS_TOOLS_REMOTE_H
#define VHDNFS_TOOLS_REMOTE_H

#include <stdatomic.h>
#include <stdio.h>

#include "tools/nfs_client.h"

/* "vhdnfs: …" on stderr: the line, or what the error means. TOOL_FAILED. */
int remote_complain(const struct why *why, int err);
/* "usage: vhdnfs @help". TOOL_OK for stdout, TOOL_USAGE for stderr. */
int remote_usage(FILE *to, const char *help);

/* The signal that asked to stop; 0: none. */
extern atomic_int remote_stopped;
/* SIGINT, SIGTERM and SIGHUP are noticed between two calls from now on, and end a read() with EINTR. A second one, or five seconds, end
 * the program as it is. Once, before other threads. */
void remote_catch_signals(void);
/* As the signal would have: does not return if there was one. */
void remote_end_by_signal(void);

/* Connect and find the file. 0; an error of nfsc_call(), with a line unless it is of the server. *n is the caller's in any case. */
int remote_reach(const char *url, struct nfs_url *u, struct nfsc **n, nfs_fh4 *fh, struct why *why);
int remote_attrs(struct nfsc *n, const nfs_fh4 *fh, struct nfs_attrs *a);
/* *to: @cap bytes. -ENAMETOOLONG; -EINVAL there is a NUL in it. */
int remote_readlink(struct nfsc *n, const nfs_fh4 *fh, char *to, size_t cap);
/**
 * remote_follow() - where a path leads, with all links followed
 * @path:    PATH_MAX bytes; out: without links and dots
 * @missing: the last name need not be there
 *
 * Return: 0; -ELOOP; -ENAMETOOLONG; -EXDEV a link begins with '/': what that is relative to only a mount knows; an error of
 *         nfsc_call(). A line in every case.
 */
int remote_follow(struct nfsc *n, char *path, bool missing, struct why *why);

struct remote_item {
	char *name;
	size_t len;
	struct nfs_attrs a;
};
/* Adds what is in a folder to *items, *count of them, which the caller frees, with the names, also after an error. */
int remote_list(struct nfsc *n, const nfs_fh4 *fh, struct remote_item **items, size_t *count);
/* All of a file, to @fd. -EINTR: a signal came. */
int remote_copy_out(struct nfsc *n, const nfs_fh4 *fh, const stateid4 *sid, int fd);

#endif

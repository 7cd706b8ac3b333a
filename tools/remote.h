/* SPDX-License-Identifier: BSD-3-Clause */
/* remote.h - what the subcommands that work on a server's files share */
#ifndef VHDNFS_TOOLS_REMOTE_H
#define VHDNFS_TOOLS_REMOTE_H

#include <stdio.h>

#include "tools/nfs_client.h"

/* "vhdnfs: …" on stderr: the line, or what the error means. TOOL_FAILED. */
int remote_complain(const struct why *why, int err);
/* "usage: vhdnfs @help". TOOL_OK for stdout, TOOL_USAGE for stderr. */
int remote_usage(FILE *to, const char *help);

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

#endif

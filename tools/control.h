/* SPDX-License-Identifier: BSD-3-Clause */
/* control.h - asking a running vhdnfsd over its control socket (server/control.h) */
#ifndef VHDNFS_TOOLS_CONTROL_H
#define VHDNFS_TOOLS_CONTROL_H

#include <jansson.h>

#include "vhd/base/why.h"

/* @path NULL: where a server of ours would have it. 0, and *out is the answer (the caller's); -ENOENT no server is there; -EINVAL,
 * -EIO, or what the server said, with a line. */
int control_ask(const char *path, json_t *ask, json_t **out, struct why *why);

#endif

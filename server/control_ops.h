/* SPDX-License-Identifier: BSD-3-Clause */
/* control_ops.h - what can be asked of a running server, and told to it */
#ifndef VHDNFS_SERVER_CONTROL_OPS_H
#define VHDNFS_SERVER_CONTROL_OPS_H

#include "server/control.h"

struct control_op {
	const char *name;
	/* @ask: the request. 0, and @out holds the answer's own members (NULL: none); or a negative errno with a line. */
	int (*run)(const struct control_server *s, json_t *ask, json_t **out, struct why *why);
};

const struct control_op *control_op_find(const char *name); /* NULL: none */

#endif

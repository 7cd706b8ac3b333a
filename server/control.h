/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * control.h - the control socket: a running server is asked, and told
 *
 * A Unix stream socket for root and the server's own user. A request is one JSON object on a line, {"do": "snapshot", …}; the
 * answer another: {"ok": true, …} or {"ok": false, "errno": N, "error": "one line"}. One connection may ask many times. Requests
 * are answered one after another by one thread, which may wait for the disk.
 */
#ifndef VHDNFS_SERVER_CONTROL_H
#define VHDNFS_SERVER_CONTROL_H

#include <jansson.h>

#include "server/figures.h"
#include "server/images.h"

struct control;

struct control_server {
	struct images *images;
	struct figures_of figures;
};

/* @path is made; a socket that nobody answers at is replaced. -EADDRINUSE: another server answers there, or it is no socket; what making
 * it says. */
int control_start(struct control **out, const char *path, const struct control_server *s, struct why *why);
/* Waits for the request that is being answered; the socket is removed. NULL is accepted. */
void control_stop(struct control *c);

/* Where it is unless somebody says otherwise: vhdnfsd.sock in the unit's runtime folder, for root in /run, else in $XDG_RUNTIME_DIR;
 * NULL: nowhere. Static memory. */
const char *control_default(void);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * standing.h - advice that holds for a file as soon as it is opened, before anybody says anything
 *
 * The attribute user.io_advise of the file; else that of the nearest folder above that has one; else the first rule of the
 * configuration whose pattern the file's name matches. What its opener says later counts instead.
 *
 * A file remembers in which folder it was found last, and what held for it; standing_changed() makes all forget. No locks.
 */
#ifndef VHDNFS_SERVER_NFS4_STANDING_H
#define VHDNFS_SERVER_NFS4_STANDING_H

#include "server/nfs4/compound.h"

#define STANDING_ATTR "user.io_advise"

/* @n was found in @dir under this name. */
void standing_named(struct nfs_server *srv, const struct fs_node *dir, struct fs_node *n, const component4 *name);
/* Hints for a regular file, ADV_*; 0: none. -EAGAIN with FS_NOWAIT. What cannot be read or understood is as if it was not there. */
int standing_advice(struct nfs_server *srv, struct fs_node *n, unsigned flags, uint32_t *hints);
/* @n was moved from one folder to another, which may be the same, and has this name now. */
void standing_moved(struct nfs_server *srv, const struct fs_node *from, const struct fs_node *to, struct fs_node *n,
		    const component4 *name);
/* An attribute was set or taken away, or a folder with all that lies below it is in another one. */
void standing_changed(struct nfs_server *srv);

#endif

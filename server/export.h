/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * export.h - what is served: mounted file systems below a pseudo-root that one can browse
 *
 * The pseudo-root is a small read-only struct fs of our own (pseudo.c), so that operations treat all directories alike;
 * LOOKUP crosses from it into the root of an export, LOOKUPP back.
 *
 *     /            pseudo
 *     /disk        root of export "disk", or a pseudo directory
 *     /disk/p1     when the image holds several file systems
 *
 * The set of exports can change while requests run (SIGHUP): an export is referenced by those who use it; one that was
 * taken away answers NFS4ERR_STALE and is unmounted when its last reference goes.
 *
 * Layer: above server/state, below server/nfs4.
 */
#ifndef VHDNFS_SERVER_EXPORT_H
#define VHDNFS_SERVER_EXPORT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <uuid/uuid.h>

#include "server/rpc/rpc.h"
#include "vhd/base/why.h"
#include "vhd/cache/cache.h"
#include "vhd/volume/fs.h"

struct exports; /* the whole set, with the pseudo-root */

enum squash { SQUASH_ROOT, SQUASH_NONE, SQUASH_ALL };

struct cidr {
	int family; /* AF_INET, AF_INET6 */
	uint8_t addr[16];
	uint8_t bits;
};

struct export_opts {
	bool read_only;
	const char *
		tag; /* another export of the same file system, of another time: part of the id; only looked at while it is added */
	enum squash squash;          /* default SQUASH_ROOT */
	uint32_t anon_uid, anon_gid; /* default 65534 */
	const struct cidr *allow;    /* copied; none: anyone who may connect */
	unsigned nallow;
};

struct export
{
	uint32_t id; /* in filehandles, fsid and stateids; derived from the file system's UUID, never 0; pseudo: 1 */
	char *path;  /* "/disk/p1"; "/" for the pseudo-root */
	struct fs *fs;
	bool read_only;
	bool pseudo;
	atomic_bool dead; /* taken away: STALE */
	struct export_opts opts;
	atomic_uint refs;
};

int exports_new(struct exports **out, struct why *why);
/* Unmounts everything; nothing may be referenced any more. 0 or the first write error. */
int exports_free(struct exports *x);

/* @fs becomes the export's (unmounted with it). -EEXIST: the path or the id is taken. fs_ops->unmount is called through
 * @closed(arg) afterwards so that the owner can detach the device and close the image. */
int exports_add(struct exports *x, const char *path, struct fs *fs, const struct export_opts *o,
		void (*closed)(void *arg, int err), void *arg, struct why *why);
/* -ENOENT. The export is dead at once, gone when unreferenced. @id: of the export, for st_export_revoke(), which gives back what
 * opens reference; may be NULL. */
int exports_remove(struct exports *x, const char *path, uint32_t *id);

/* A reference, or NULL. Cheap: no lock that a writer holds for long. */
struct export *export_find(struct exports *x, uint32_t id);
struct export *export_pseudo(struct exports *x); /* the pseudo-root's; referenced */
static inline struct export *export_get(struct export *e)
{
	atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);
	return e;
}
void export_put(struct export *e);

/* Crossing: the export mounted on a pseudo node (referenced) or NULL; the pseudo directory above an export's root. */
struct export *export_mounted_on(struct exports *x, const struct fs_node *pseudo);
struct fs_node *export_mount_parent(struct exports *x, const struct export *e);
/* The directory of the snapshots of an export, on the pseudo-root; referenced; NULL when there are none. */
struct fs_node *export_snapshots(struct exports *x, const struct export *e);

/* Every export in order of path, for listings. Stops when fn returns false. */
void exports_each(struct exports *x, bool (*fn)(void *arg, const struct export *e), void *arg);

/* Who the caller is on this export: squashed. */
struct cred {
	uint32_t uid, gid;
	uint32_t ngids;
	uint32_t gids[16];
};
void export_cred(const struct export *e, const struct rpc_cred *rc, struct cred *out);
bool export_allows(const struct export *e, const struct sockaddr *peer);
/* Does this directory of the pseudo-root lead to an export that @peer may enter? Else it is not there for it. */
bool export_shows(struct exports *x, const struct fs_node *pseudo, const struct sockaddr *peer);
int cidr_parse(const char *text, struct cidr *out, struct why *why);
bool cidr_match(const struct cidr *c, const struct sockaddr *peer);

#endif

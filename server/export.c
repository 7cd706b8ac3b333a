/* SPDX-License-Identifier: BSD-3-Clause */
/* export.c - see export.h: the set of exports, their lives, networks, squashing */
#include "server/export.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/pseudo.h"
#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/list.h"
#include "vhd/base/lock.h"
#include "vhd/base/size.h"

struct exports {
	struct rwlock rw;
	struct entry **list GUARDED_BY(rw); /* by path */
	unsigned n GUARDED_BY(rw);
	struct fs *pseudo_fs;
	struct export pseudo;

	struct lock mu;
	struct cond gone;
	unsigned alive GUARDED_BY(mu); /* exports that are not unmounted yet */
	int error GUARDED_BY(mu);
};

/* An export with what is needed to end it. */
struct entry {
	struct export e; /* first */
	struct exports *all;
	void (*closed)(void *arg, int err);
	void *arg;
};

int exports_new(struct exports **out, struct why *why)
{
	struct exports *x = calloc(1, sizeof *x);
	int err;

	if (!x)
		return -ENOMEM;
	if ((err = pseudo_new(&x->pseudo_fs)) < 0) {
		free(x);
		return why_set(why, err, "the root of exports: %s", strerror(-err));
	}
	rwlock_init(&x->rw);
	lock_init(&x->mu);
	cond_init(&x->gone);
	x->pseudo = (struct export){
		.id = 1,
		.path = (char *)(uintptr_t) "/",
		.fs = x->pseudo_fs,
		.read_only = true,
		.pseudo = true,
		.opts = {.anon_uid = 65534, .anon_gid = 65534},
	};
	atomic_init(&x->pseudo.refs, 1);
	*out = x;
	return 0;
}

/* ---- ending an export ------------------------------------------------------------------------------------------------------ */

static void *end_export(void *arg)
{
	struct entry *en = arg;
	struct exports *x = en->all;
	int err = en->e.fs->ops->unmount(en->e.fs);

	if (en->closed)
		en->closed(en->arg, err);
	free(en->e.path);
	free((void *)(uintptr_t)en->e.opts.allow);
	free(en);
	lock_take(&x->mu);
	if (err && !x->error)
		x->error = err;
	x->alive--;
	cond_broadcast(&x->gone);
	lock_drop(&x->mu);
	return NULL;
}

/* The last reference may go on an event loop, and unmounting waits for the disk: a thread does it. */
void export_put(struct export *e)
{
	pthread_attr_t attr;
	pthread_t t;

	if (!e || atomic_fetch_sub(&e->refs, 1) != 1 || e->pseudo)
		return;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&t, &attr, end_export, container_of(e, struct entry, e)))
		end_export(container_of(e, struct entry, e));
	pthread_attr_destroy(&attr);
}

int exports_free(struct exports *x)
{
	int err;

	rwlock_write(&x->rw);
	for (unsigned i = 0; i < x->n; i++) {
		atomic_store(&x->list[i]->e.dead, true);
		export_put(&x->list[i]->e);
	}
	x->n = 0;
	rwlock_drop(&x->rw);
	lock_take(&x->mu);
	while (x->alive)
		cond_wait(&x->gone, &x->mu);
	err = x->error;
	lock_drop(&x->mu);
	pseudo_free(x->pseudo_fs);
	free(x->list);
	rwlock_fini(&x->rw);
	lock_fini(&x->mu);
	cond_fini(&x->gone);
	free(x);
	return err;
}

/* ---- adding and removing ------------------------------------------------------------------------------------------------------ */

/* From the file system's UUID, so that filehandles survive a restart, here or on another machine. */
static uint32_t id_of(const struct fs *fs, const char *tag)
{
	uint32_t id = 2166136261u;

	for (size_t i = 0; i < sizeof fs->uuid; i++)
		id = (id ^ fs->uuid[i]) * 16777619u;
	for (; tag && *tag; tag++)
		id = (id ^ (uint8_t)*tag) * 16777619u;
	return id < 2 ? id + 2 : id;
}

static struct entry *find_locked(struct exports *x, uint32_t id) REQUIRES_SHARED(x->rw)
{
	for (unsigned i = 0; i < x->n; i++)
		if (x->list[i]->e.id == id)
			return x->list[i];
	return NULL;
}

static int insert(struct exports *x, struct entry *en, struct why *why)
{
	struct entry **list;
	unsigned at = 0;
	int err = 0;

	rwlock_write(&x->rw);
	list = realloc(x->list, (x->n + 1) * sizeof(struct entry *));
	if (!list)
		err = -ENOMEM;
	else
		x->list = list;
	if (!err && find_locked(x, en->e.id))
		err = why_set(why, -EEXIST, "%s: a file system with the same UUID is exported at %s", en->e.path,
			      find_locked(x, en->e.id)->e.path);
	if (!err && (err = pseudo_mount(x->pseudo_fs, en->e.path, &en->e)) < 0)
		why_set(why, err, "%s: something is exported there, above or below", en->e.path);
	if (!err) {
		while (at < x->n && strcmp(x->list[at]->e.path, en->e.path) < 0)
			at++;
		memmove(x->list + at + 1, x->list + at, (x->n - at) * sizeof(struct entry *));
		x->list[at] = en;
		x->n++;
	}
	rwlock_drop(&x->rw);
	return err;
}

int exports_add(struct exports *x, const char *path, struct fs *fs, const struct export_opts *o,
		void (*closed)(void *arg, int err), void *arg, struct why *why)
{
	struct entry *en = calloc(1, sizeof *en);
	struct cidr *allow = NULL;
	int err = 0;

	if (!en)
		return -ENOMEM;
	en->all = x;
	en->closed = closed;
	en->arg = arg;
	en->e = (struct export){
		.id = id_of(fs, o->tag), .fs = fs, .opts = *o, .read_only = o->read_only || fs->read_only};
	en->e.path = strdup(path);
	if (o->nallow && (allow = calloc(o->nallow, sizeof *allow)))
		memcpy(allow, o->allow, o->nallow * sizeof *allow);
	en->e.opts.allow = allow;
	en->e.opts.tag = NULL;
	atomic_init(&en->e.refs, 1);
	lock_take(&x->mu);
	x->alive++; /* before anybody can find it, and take it away */
	lock_drop(&x->mu);
	if (!en->e.path || (o->nallow && !allow))
		err = -ENOMEM;
	if (!err)
		err = insert(x, en, why);
	if (err) {
		free(en->e.path);
		free(allow);
		free(en);
		lock_take(&x->mu);
		x->alive--;
		lock_drop(&x->mu);
	}
	return err;
}

int exports_remove(struct exports *x, const char *path, uint32_t *id)
{
	struct entry *en = NULL;

	rwlock_write(&x->rw);
	for (unsigned i = 0; i < x->n && !en; i++)
		if (strcmp(x->list[i]->e.path, path) == 0) {
			en = x->list[i];
			memmove(x->list + i, x->list + i + 1, (x->n - i - 1) * sizeof(struct entry *));
			x->n--;
		}
	if (en) {
		atomic_store(&en->e.dead, true);
		pseudo_mount(x->pseudo_fs, path, NULL);
	}
	rwlock_drop(&x->rw);
	if (!en)
		return -ENOENT;
	if (id)
		*id = en->e.id;
	export_put(&en->e);
	return 0;
}

/* ---- finding -------------------------------------------------------------------------------------------------------------------- */

struct export *export_pseudo(struct exports *x)
{
	return export_get(&x->pseudo);
}

struct export *export_find(struct exports *x, uint32_t id)
{
	struct entry *en;

	if (id == x->pseudo.id)
		return export_pseudo(x);
	rwlock_read(&x->rw);
	en = find_locked(x, id);
	if (en)
		export_get(&en->e);
	rwlock_drop(&x->rw);
	return en ? &en->e : NULL;
}

struct export *export_mounted_on(struct exports *x, const struct fs_node *pseudo)
{
	struct export *e;

	rwlock_read(&x->rw); /* what is mounted does not go away meanwhile */
	e = pseudo_mounted(pseudo);
	if (e)
		export_get(e);
	rwlock_drop(&x->rw);
	return e;
}

struct fs_node *export_mount_parent(struct exports *x, const struct export *e)
{
	return pseudo_parent_of(x->pseudo_fs, e->path);
}

struct fs_node *export_snapshots(struct exports *x, const struct export *e)
{
	AUTO(freep) char *path = NULL;

	if (e->pseudo || asprintf(&path, "/.snapshots%s", e->path) < 0) {
		path = NULL;
		return NULL;
	}
	return pseudo_find(x->pseudo_fs, path);
}

void exports_each(struct exports *x, bool (*fn)(void *arg, const struct export *e), void *arg)
{
	bool go = fn(arg, &x->pseudo);

	rwlock_read(&x->rw);
	for (unsigned i = 0; i < x->n && go; i++)
		go = fn(arg, &x->list[i]->e);
	rwlock_drop(&x->rw);
}

/* ---- who may, and who they are ---------------------------------------------------------------------------------------------------- */

/* Whoever comes with this number is the anonymous user, or in the anonymous group. */
static void replace_id(const struct export *e, struct cred *c, uint32_t id)
{
	if (c->uid == id)
		c->uid = e->opts.anon_uid;
	if (c->gid == id)
		c->gid = e->opts.anon_gid;
	for (uint32_t i = 0; i < c->ngids; i++)
		if (c->gids[i] == id)
			c->gids[i] = e->opts.anon_gid;
}

void export_cred(const struct export *e, const struct rpc_cred *rc, struct cred *out)
{
	bool squash = rc->flavor != AUTH_SYS || e->opts.squash == SQUASH_ALL;

	if (squash) {
		*out = (struct cred){.uid = e->opts.anon_uid, .gid = e->opts.anon_gid};
		return;
	}
	*out = (struct cred){.uid = rc->uid, .gid = rc->gid, .ngids = rc->ngids};
	memcpy(out->gids, rc->gids, rc->ngids * sizeof out->gids[0]);
	replace_id(e, out, UINT32_MAX); /* no user and no group; yet a file may have it as its owner */
	if (e->opts.squash != SQUASH_NONE)
		replace_id(e, out, 0);
}

int cidr_parse(const char *text, struct cidr *out, struct why *why)
{
	const char *slash = strchr(text, '/');
	char host[INET6_ADDRSTRLEN];
	size_t n = slash ? (size_t)(slash - text) : strlen(text);
	uint64_t bits, max;

	if (n >= sizeof host)
		goto bad;
	memcpy(host, text, n);
	host[n] = '\0';
	*out = (struct cidr){.family = AF_INET6};
	if (inet_pton(AF_INET6, host, out->addr) != 1) {
		out->family = AF_INET;
		if (inet_pton(AF_INET, host, out->addr) != 1)
			goto bad;
	}
	max = bits = out->family == AF_INET6 ? 128 : 32;
	if (slash && !number_parse(slash + 1, 0, max, &bits))
		goto bad;
	out->bits = (uint8_t)bits;
	return 0;
bad:
	return why_set(why, -EINVAL, "allow \"%.100s\": expected a network such as 10.0.0.0/8 or ::1/128", text);
}

bool cidr_match(const struct cidr *c, const struct sockaddr *peer)
{
	const uint8_t *addr;
	unsigned whole = c->bits / 8, rest = c->bits % 8;

	if (peer->sa_family != c->family)
		return false;
	addr = c->family == AF_INET6 ? (const uint8_t *)&((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr
				     : (const uint8_t *)&((const struct sockaddr_in *)(const void *)peer)->sin_addr;
	return memcmp(addr, c->addr, whole) == 0 && (!rest || (addr[whole] ^ c->addr[whole]) >> (8 - rest) == 0);
}

bool export_allows(const struct export *e, const struct sockaddr *peer)
{
	for (unsigned i = 0; i < e->opts.nallow; i++)
		if (cidr_match(&e->opts.allow[i], peer))
			return true;
	return e->opts.nallow == 0;
}

static bool allows(const struct export *e, const void *peer)
{
	return export_allows(e, peer);
}

bool export_shows(struct exports *x, const struct fs_node *pseudo, const struct sockaddr *peer)
{
	bool yes;

	rwlock_read(&x->rw); /* what is mounted does not go away meanwhile */
	yes = pseudo_leads(pseudo, allows, peer);
	rwlock_drop(&x->rw);
	return yes;
}

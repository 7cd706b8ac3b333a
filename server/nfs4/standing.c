/* SPDX-License-Identifier: BSD-3-Clause */
/* standing.c - see standing.h */
#include "server/nfs4/standing.h"

#include <errno.h>
#include <fnmatch.h>
#include <string.h>

#include "advise/words.h"

#define DEPTH_MAX 64 /* folders above a file that are asked */
#define NAME_MAX_BYTES 255u

static uint32_t get(const atomic_uint *v)
{
	return atomic_load_explicit(v, memory_order_relaxed);
}

static void put(atomic_uint *v, uint32_t x)
{
	atomic_store_explicit(v, x, memory_order_relaxed);
}

/* The first rule that matches. */
static uint32_t by_rule(const struct nfs_server *srv, const component4 *name)
{
	char text[NAME_MAX_BYTES + 1];

	if (name->utf8string_len > NAME_MAX_BYTES)
		return 0;
	memcpy(text, name->utf8string_val, name->utf8string_len);
	text[name->utf8string_len] = '\0';
	for (unsigned i = 0; i < srv->nrules; i++)
		if (fnmatch(srv->rules[i].match, text, 0) == 0)
			return srv->rules[i].hints;
	return 0;
}

void standing_named(struct nfs_server *srv, const struct fs_node *dir, struct fs_node *n, const component4 *name)
{
	struct fs_standing *s = &n->standing;

	if (n->type != FS_REG || n->fs != dir->fs)
		return;
	if (atomic_load_explicit(&s->dir_ino, memory_order_relaxed) != dir->ino || get(&s->dir_gen) != dir->gen) {
		atomic_store_explicit(&s->dir_ino, dir->ino, memory_order_relaxed);
		put(&s->dir_gen, dir->gen);
		put(&s->version, 0);
	}
	if (srv->nrules)
		put(&s->rule, by_rule(srv, name));
}

void standing_moved(struct nfs_server *srv, const struct fs_node *from, const struct fs_node *to, struct fs_node *n,
		    const component4 *name)
{
	standing_named(srv, to, n, name);
	/* Nobody knows what lies below, and remembers the folders that were above. */
	if (n->type == FS_DIR && from->ino != to->ino)
		standing_changed(srv);
}

/* What an attribute says: -ENODATA when it is not there, or says nothing that can be understood. */
static int by_attribute(struct fs_node *n, unsigned flags, uint32_t *hints)
{
	char text[ADV_WORDS_MAX];
	struct why why;
	int len = n->fs->ops->getxattr ? n->fs->ops->getxattr(n, STANDING_ATTR, text, sizeof text, flags) : -ENODATA;

	if (len < 0)
		return len == -EAGAIN ? len : -ENODATA;
	return adv_parse(text, (size_t)len, hints, &why) < 0 ? -ENODATA : 0;
}

/* Of a folder, or of those above it. Each remembers. */
static int by_folders(struct nfs_server *srv, struct fs_node *dir, unsigned flags, uint32_t *hints)
{
	uint32_t version = get(&srv->standing_version);
	struct fs_node *n = fs_node_get(dir);
	int err = -ENODATA;

	for (int depth = 0; depth < DEPTH_MAX; depth++) {
		struct fs_node *up;

		if (get(&n->standing.version) == version) {
			*hints = get(&n->standing.hints);
			err = *hints ? 0 : -ENODATA;
			break;
		}
		if ((err = by_attribute(n, flags, hints)) != -ENODATA || n == n->fs->root)
			break;
		err = n->fs->ops->parent(n, flags, &up);
		if (err) {
			err = err == -EAGAIN ? err : -ENODATA;
			break;
		}
		fs_node_put(n);
		n = up;
		err = -ENODATA;
	}
	fs_node_put(n);
	if (err == -EAGAIN)
		return err;
	put(&dir->standing.hints, err ? 0 : *hints);
	put(&dir->standing.version, version);
	return err;
}

static int inherited(struct nfs_server *srv, struct fs_node *n, unsigned flags, uint32_t *hints)
{
	uint64_t ino = atomic_load_explicit(&n->standing.dir_ino, memory_order_relaxed);
	struct fs_node *dir;
	int err;

	if (!ino)
		return -ENODATA;
	err = n->fs->ops->get(n->fs, ino, get(&n->standing.dir_gen), flags, &dir);
	if (err)
		return err == -EAGAIN ? err : -ENODATA;
	err = dir->type == FS_DIR ? by_folders(srv, dir, flags, hints) : -ENODATA;
	fs_node_put(dir);
	return err;
}

int standing_advice(struct nfs_server *srv, struct fs_node *n, unsigned flags, uint32_t *hints)
{
	uint32_t version = get(&srv->standing_version);
	int err = 0;

	*hints = 0;
	if (!n->fs->ops->advise)
		return 0;
	if (get(&n->standing.version) == version) {
		*hints = get(&n->standing.hints);
	} else {
		err = by_attribute(n, flags, hints);
		if (err == -ENODATA)
			err = inherited(srv, n, flags, hints);
		if (err == -EAGAIN)
			return err;
		put(&n->standing.hints, err ? 0 : *hints);
		put(&n->standing.version, version);
	}
	if (!*hints)
		*hints = get(&n->standing.rule);
	if (*hints == ADV_NORMAL) /* said on purpose: not what a folder above says */
		*hints = 0;
	return 0;
}

void standing_changed(struct nfs_server *srv)
{
	/* 0 is a node's that knows nothing. */
	if (!(atomic_fetch_add_explicit(&srv->standing_version, 1, memory_order_relaxed) + 1))
		atomic_fetch_add_explicit(&srv->standing_version, 1, memory_order_relaxed);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pseudo.c - see pseudo.h
 *
 * A node's number is a hash of its path, so that filehandles and cookies mean the same after a restart with other exports.
 * Nodes stay for as long as the file system; those with no export below are not shown. Siblings are in order of number.
 */
#include "server/pseudo.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vhd/base/list.h"
#include "vhd/base/lock.h"

struct pnode {
	struct fs_node n;
	struct pnode *parent; /* the root's is itself */
	struct list children, sibling;
	struct export *mounted;
	uint64_t change;
	char name[256];
};

struct pseudo {
	struct fs fs;
	struct rwlock rw;
	struct pnode root;
	struct fs_time born;
};

static struct pseudo *pseudo_of(const struct fs *fs)
{
	return container_of(fs, struct pseudo, fs);
}

static struct pnode *pnode_of(const struct fs_node *n)
{
	return container_of(n, struct pnode, n);
}

/* Deep first, without recursion: the next node after @p in the tree, NULL at the end. */
static struct pnode *next_node(struct pseudo *ps, struct pnode *p)
{
	if (!list_empty(&p->children))
		return list_first(&p->children, struct pnode, sibling);
	while (p != &ps->root) {
		if (p->sibling.next != &p->parent->children)
			return list_first(&p->sibling, struct pnode, sibling);
		p = p->parent;
	}
	return NULL;
}

/* Is there an export at or below @p? One for which @may is true, when it is given. */
static bool leads(struct pseudo *ps, struct pnode *p, pseudo_may *may, const void *arg)
{
	struct pnode *end = p;

	/* The first node behind p's own tree. */
	while (end != &ps->root && end->sibling.next == &end->parent->children)
		end = end->parent;
	end = end == &ps->root ? NULL : list_first(&end->sibling, struct pnode, sibling);
	for (struct pnode *q = p; q && q != end; q = next_node(ps, q))
		if (q->mounted && (!may || may(q->mounted, arg)))
			return true;
	return false;
}

static bool visible(struct pseudo *ps, struct pnode *p)
{
	return leads(ps, p, NULL, NULL);
}

static struct pnode *child_of(struct pnode *p, const char *name, size_t len)
{
	list_for_each (it, &p->children) {
		struct pnode *c = list_entry(it, struct pnode, sibling);

		if (strlen(c->name) == len && memcmp(c->name, name, len) == 0)
			return c;
	}
	return NULL;
}

static struct pnode *find_ino(struct pseudo *ps, uint64_t ino)
{
	struct pnode *p = &ps->root;

	while (p && p->n.ino != ino)
		p = next_node(ps, p);
	return p;
}

/* 1 is the root's, 2 means no place in a directory; what some clients still keep in 32 bits stays below 2^31. */
static uint64_t ino_of(struct pseudo *ps, const struct pnode *parent, const char *name, size_t len)
{
	uint64_t h = 14695981039346656037u ^ parent->n.ino;

	for (size_t i = 0; i < len; i++)
		h = (h ^ (uint8_t)name[i]) * 1099511628211u;
	h = (h ^ h >> 33) & 0x7fffffff;
	while (h < 3 || find_ino(ps, h))
		h = (h + 1) & 0x7fffffff;
	return h;
}

/* Another start may have had other exports: changes do not begin anew. */
static uint64_t first_change(const struct pseudo *ps)
{
	return (uint64_t)ps->born.sec * 1000000000u + ps->born.nsec;
}

static struct pnode *add_child(struct pseudo *ps, struct pnode *p, const char *name, size_t len)
{
	struct pnode *c = calloc(1, sizeof *c);
	struct list *at = p->children.next;

	if (!c || len >= sizeof c->name) {
		free(c);
		return NULL;
	}
	c->n = (struct fs_node){.fs = &ps->fs, .ino = ino_of(ps, p, name, len), .gen = 1, .type = FS_DIR};
	atomic_init(&c->n.refs, 1);
	c->parent = p;
	c->change = first_change(ps);
	list_init(&c->children);
	memcpy(c->name, name, len);
	while (at != &p->children && list_entry(at, struct pnode, sibling)->n.ino < c->n.ino)
		at = at->next;
	list_push_back(at, &c->sibling); /* before `at` */
	p->change++;
	return c;
}

/* Walks a path; makes what is missing when @make. */
static struct pnode *walk(struct pseudo *ps, const char *path, size_t len, bool make)
{
	struct pnode *p = &ps->root;

	for (size_t i = 0; i < len && p;) {
		size_t n = 0;
		struct pnode *c;

		while (i < len && path[i] == '/')
			i++;
		while (i + n < len && path[i + n] != '/')
			n++;
		if (!n)
			break;
		c = child_of(p, path + i, n);
		p = c || !make ? c : add_child(ps, p, path + i, n);
		i += n;
	}
	return p;
}

int pseudo_mount(struct fs *fs, const char *path, struct export *e)
{
	struct pseudo *ps = pseudo_of(fs);
	struct pnode *p;
	int err = 0;

	rwlock_write(&ps->rw);
	p = walk(ps, path, strlen(path), e != NULL);
	if (!p)
		err = e ? -ENOMEM : -ENOENT;
	else if (e && (visible(ps, p) || p == &ps->root))
		err = -EEXIST;
	for (struct pnode *q = p; !err && e && q != &ps->root; q = q->parent)
		if (q->parent->mounted)
			err = -EEXIST;
	if (!err) {
		p->mounted = e;
		for (struct pnode *q = p; q != &ps->root; q = q->parent)
			q->parent->change++;
	}
	rwlock_drop(&ps->rw);
	return err;
}

struct export *pseudo_mounted(const struct fs_node *n)
{
	struct pseudo *ps = pseudo_of(n->fs);
	struct export *e;

	rwlock_read(&ps->rw);
	e = pnode_of(n)->mounted;
	rwlock_drop(&ps->rw);
	return e;
}

bool pseudo_leads(const struct fs_node *n, pseudo_may *may, const void *arg)
{
	struct pseudo *ps = pseudo_of(n->fs);
	bool yes;

	rwlock_read(&ps->rw);
	yes = leads(ps, pnode_of(n), may, arg);
	rwlock_drop(&ps->rw);
	return yes;
}

struct fs_node *pseudo_find(struct fs *fs, const char *path)
{
	struct pseudo *ps = pseudo_of(fs);
	struct pnode *p;

	rwlock_read(&ps->rw);
	p = walk(ps, path, strlen(path), false);
	if (p && !visible(ps, p))
		p = NULL;
	rwlock_drop(&ps->rw);
	return p ? fs_node_get(&p->n) : NULL;
}

struct fs_node *pseudo_parent_of(struct fs *fs, const char *path)
{
	struct pseudo *ps = pseudo_of(fs);
	struct pnode *p;

	rwlock_read(&ps->rw);
	p = walk(ps, path, strlen(path), false);
	p = p ? p->parent : &ps->root;
	rwlock_drop(&ps->rw);
	return fs_node_get(&p->n);
}

/* ---- the fs interface ---------------------------------------------------------------------------------------------------- */

static int op_get(struct fs *fs, uint64_t ino, uint32_t gen, unsigned flags, struct fs_node **out)
{
	struct pseudo *ps = pseudo_of(fs);
	struct pnode *p;

	(void)flags;
	rwlock_read(&ps->rw);
	p = find_ino(ps, ino);
	rwlock_drop(&ps->rw);
	if (!p || gen != p->n.gen)
		return -ESTALE;
	*out = fs_node_get(&p->n);
	return 0;
}

static void op_put(struct fs_node *n)
{
	atomic_fetch_sub(&n->refs, 1);
}

static int op_lookup(struct fs_node *dir, const char *name, uint32_t len, unsigned flags, struct fs_node **out)
{
	struct pseudo *ps = pseudo_of(dir->fs);
	struct pnode *c;

	(void)flags;
	rwlock_read(&ps->rw);
	c = child_of(pnode_of(dir), name, len);
	if (c && !visible(ps, c))
		c = NULL;
	rwlock_drop(&ps->rw);
	if (!c)
		return -ENOENT;
	*out = fs_node_get(&c->n);
	return 0;
}

static int op_parent(struct fs_node *dir, unsigned flags, struct fs_node **out)
{
	(void)flags;
	*out = fs_node_get(&pnode_of(dir)->parent->n);
	return 0;
}

static int op_getattr(struct fs_node *n, unsigned flags, struct fs_attr *a)
{
	struct pseudo *ps = pseudo_of(n->fs);
	struct pnode *p = pnode_of(n);

	(void)flags;
	rwlock_read(&ps->rw);
	*a = (struct fs_attr){
		.ino = n->ino,
		.gen = n->gen,
		.type = FS_DIR,
		.mode = 0555,
		.nlink = 1, /* how many directories there are is not for everybody, and 1 says nothing about that */
		.size = 4096,
		.change = p->change,
		.atime = ps->born,
		.mtime = ps->born,
		.ctime = ps->born,
		.btime = ps->born,
	};
	rwlock_drop(&ps->rw);
	return 0;
}

/* A child's number is its cookie. */
static int op_readdir(struct fs_node *dir, uint64_t cookie, unsigned flags, fs_emit_fn *emit, void *arg, bool *eof)
{
	struct pseudo *ps = pseudo_of(dir->fs);

	(void)flags;
	*eof = true;
	rwlock_read(&ps->rw);
	list_for_each (it, &pnode_of(dir)->children) {
		struct pnode *c = list_entry(it, struct pnode, sibling);
		const struct fs_dirent d = {
			.cookie = c->n.ino,
			.ino = c->n.ino,
			.name = c->name,
			.len = (uint32_t)strlen(c->name),
		};

		if (d.cookie <= cookie || !visible(ps, c))
			continue;
		if (!emit(arg, &d)) {
			*eof = false;
			break;
		}
	}
	rwlock_drop(&ps->rw);
	return 0;
}

static int op_statfs(struct fs *fs, struct fs_statfs *st)
{
	(void)fs;
	*st = (struct fs_statfs){.block_size = 4096, .name_max = 255, .link_max = 1, .file_size_max = INT64_MAX};
	return 0;
}

static int op_sync(struct fs *fs)
{
	(void)fs;
	return 0;
}

/* Everything that changes is refused before it comes here: the file system is read-only and holds directories only. */
static const struct fs_ops ops = {
	.name = "pseudo",
	.get = op_get,
	.put = op_put,
	.lookup = op_lookup,
	.parent = op_parent,
	.getattr = op_getattr,
	.readdir = op_readdir,
	.statfs = op_statfs,
	.sync = op_sync,
};

int pseudo_new(struct fs **out)
{
	struct pseudo *ps = calloc(1, sizeof *ps);
	struct timespec t;

	if (!ps)
		return -ENOMEM;
	clock_gettime(CLOCK_REALTIME, &t);
	ps->born = (struct fs_time){.sec = t.tv_sec, .nsec = (uint32_t)t.tv_nsec};
	rwlock_init(&ps->rw);
	ps->fs = (struct fs){.ops = &ops, .read_only = true, .type_name = "pseudo", .root = &ps->root.n};
	ps->root.n = (struct fs_node){.fs = &ps->fs, .ino = 1, .gen = 1, .type = FS_DIR};
	atomic_init(&ps->root.n.refs, 1);
	ps->root.parent = &ps->root;
	ps->root.change = first_change(ps);
	list_init(&ps->root.children);
	*out = &ps->fs;
	return 0;
}

void pseudo_free(struct fs *fs)
{
	struct pseudo *ps;

	if (!fs)
		return;
	ps = pseudo_of(fs);
	for (struct pnode *p = &ps->root;;) {
		struct pnode *c;

		if (!list_empty(&p->children)) {
			p = list_first(&p->children, struct pnode, sibling);
			continue;
		}
		if (p == &ps->root)
			break;
		c = p;
		p = p->parent;
		list_del(&c->sibling);
		free(c);
	}
	rwlock_fini(&ps->rw);
	free(ps);
}

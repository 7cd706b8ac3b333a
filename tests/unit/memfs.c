/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * memfs.c - see memfs.h
 *
 * One lock around everything. Data lives in pages that stay where they are until the file system goes, so that reads can
 * hand out pointers without pins.
 */
#include "tests/unit/memfs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vhd/base/list.h"
#include "vhd/base/lock.h"

enum { PAGE = CACHE_UNIT, PAGES = MEMFS_FILE_MAX / PAGE };

static const uint8_t zeros[PAGE];

struct mem_node {
	struct fs_node n;
	struct list all, entries; /* of the file system; a directory's struct mem_entry */
	struct fs_attr attr;
	struct mem_node *parent;
	uint8_t **page; /* PAGES of them, NULL: hole */
	char *target;
};

struct mem_entry {
	struct list link;
	uint64_t cookie;
	struct mem_node *node;
	uint32_t len;
	char name[];
};

struct mem_fs {
	struct fs fs;
	struct lock mu;
	struct list nodes;
	uint64_t next_ino, next_cookie, change;
	int fail;
	bool busy;
};

static struct mem_fs *fs_of(struct fs *fs)
{
	return container_of(fs, struct mem_fs, fs);
}

static struct mem_node *node_of(struct fs_node *n)
{
	return container_of(n, struct mem_node, n);
}

static bool busy(struct mem_fs *m, unsigned flags)
{
	return m->busy && flags & FS_NOWAIT;
}

static int take_failure(struct mem_fs *m)
{
	int err = m->fail;

	m->fail = 0;
	return err;
}

static struct fs_time now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (struct fs_time){t.tv_sec, (uint32_t)t.tv_nsec};
}

static void touch(struct mem_fs *m, struct mem_node *n, bool data)
{
	n->attr.change = ++m->change;
	n->attr.ctime = now();
	if (data)
		n->attr.mtime = n->attr.ctime;
}

static struct mem_node *node_new(struct mem_fs *m, enum fs_type type, struct mem_node *parent)
{
	struct mem_node *n = calloc(1, sizeof *n);

	if (!n)
		return NULL;
	list_init(&n->entries);
	n->n.fs = &m->fs;
	n->n.ino = n->attr.ino = ++m->next_ino;
	n->n.gen = n->attr.gen = 1;
	n->n.type = n->attr.type = type;
	atomic_init(&n->n.refs, 1);
	n->parent = parent;
	n->attr.nlink = type == FS_DIR ? 2 : 1;
	n->attr.atime = n->attr.btime = now();
	touch(m, n, true);
	list_push_back(&m->nodes, &n->all);
	return n;
}

static void node_free(struct mem_node *n)
{
	list_del(&n->all);
	for (unsigned i = 0; n->page && i < PAGES; i++)
		free(n->page[i]);
	free(n->page);
	free(n->target);
	free(n);
}

static void mem_put(struct fs_node *node)
{
	struct mem_fs *m = fs_of(node->fs);
	struct mem_node *n = node_of(node);

	lock_take(&m->mu);
	if (atomic_fetch_sub(&node->refs, 1) == 1 && !n->attr.nlink)
		node_free(n);
	lock_drop(&m->mu);
}

static int get_any(struct fs *fs, uint64_t ino, unsigned flags, struct fs_node **out)
{
	struct mem_fs *m = fs_of(fs);
	int err = -ESTALE;

	lock_take(&m->mu);
	if (busy(m, flags)) {
		err = -EAGAIN;
		goto out;
	}
	list_for_each (it, &m->nodes) {
		struct mem_node *n = list_entry(it, struct mem_node, all);

		if (n->n.ino == ino) {
			*out = fs_node_get(&n->n);
			err = 0;
			break;
		}
	}
out:
	lock_drop(&m->mu);
	return err;
}

static int mem_get(struct fs *fs, uint64_t ino, uint32_t gen, unsigned flags, struct fs_node **out)
{
	int err = get_any(fs, ino, flags, out);

	if (!err && (*out)->gen != gen) {
		fs_node_put(*out);
		err = -ESTALE;
	}
	return err;
}

static struct mem_entry *find(struct mem_node *dir, const char *name, uint32_t len)
{
	list_for_each (it, &dir->entries) {
		struct mem_entry *e = list_entry(it, struct mem_entry, link);

		if (e->len == len && !memcmp(e->name, name, len))
			return e;
	}
	return NULL;
}

static int mem_lookup(struct fs_node *dir, const char *name, uint32_t len, unsigned flags, struct fs_node **out)
{
	struct mem_fs *m = fs_of(dir->fs);
	struct mem_entry *e;
	int err = 0;

	if (dir->type != FS_DIR)
		return -ENOTDIR;
	lock_take(&m->mu);
	e = find(node_of(dir), name, len);
	if (busy(m, flags))
		err = -EAGAIN;
	else if (!e)
		err = -ENOENT;
	else
		*out = fs_node_get(&e->node->n);
	lock_drop(&m->mu);
	return err;
}

static int mem_parent(struct fs_node *dir, unsigned flags, struct fs_node **out)
{
	struct mem_fs *m = fs_of(dir->fs);
	struct mem_node *p = node_of(dir)->parent;
	int err = 0;

	lock_take(&m->mu);
	if (busy(m, flags))
		err = -EAGAIN;
	else
		*out = fs_node_get(p ? &p->n : dir);
	lock_drop(&m->mu);
	return err;
}

static int mem_getattr(struct fs_node *n, unsigned flags, struct fs_attr *a)
{
	struct mem_fs *m = fs_of(n->fs);
	int err = 0;

	lock_take(&m->mu);
	if (busy(m, flags))
		err = -EAGAIN;
	else
		*a = node_of(n)->attr;
	lock_drop(&m->mu);
	return err;
}

/* ---- data ------------------------------------------------------------------------------------------------------------- */

static void drop_page(struct mem_node *n, uint64_t i)
{
	if (!n->page || !n->page[i])
		return;
	free(n->page[i]);
	n->page[i] = NULL;
	n->attr.space -= PAGE;
}

/* Zeros from @off to @end; whole pages become holes. */
static void clear(struct mem_node *n, uint64_t off, uint64_t end)
{
	while (n->page && off < end) {
		uint64_t i = off / PAGE, in = off % PAGE, len = PAGE - in;

		if (len > end - off)
			len = end - off;
		if (len == PAGE)
			drop_page(n, i);
		else if (n->page[i])
			memset(n->page[i] + in, 0, len);
		off += len;
	}
}

static int have_page(struct mem_node *n, uint64_t i)
{
	if (!n->page && !(n->page = calloc(PAGES, sizeof *n->page)))
		return -ENOMEM;
	if (n->page[i])
		return 0;
	n->page[i] = calloc(1, PAGE);
	if (!n->page[i])
		return -ENOMEM;
	n->attr.space += PAGE;
	return 0;
}

static int set_size(struct mem_node *n, uint64_t size)
{
	if (n->n.type != FS_REG)
		return -EINVAL;
	if (size > MEMFS_FILE_MAX)
		return -EFBIG;
	if (size < n->attr.size)
		clear(n, size, (n->attr.size + PAGE - 1) / PAGE * PAGE);
	n->attr.size = size;
	return 0;
}

static int apply(struct mem_node *n, const struct fs_setattr *s)
{
	struct fs_attr *a = &n->attr;
	int err = s->what & FS_SET_SIZE ? set_size(n, s->size) : 0;

	if (err < 0)
		return err;
	if (s->what & FS_SET_MODE)
		a->mode = s->mode & ~s->umask;
	if (s->what & FS_SET_UID)
		a->uid = s->uid;
	if (s->what & FS_SET_GID)
		a->gid = s->gid;
	if (s->what & FS_SET_ATIME)
		a->atime = s->atime;
	if (s->what & FS_SET_MTIME)
		a->mtime = s->mtime;
	if (s->what & FS_SET_ATIME_NOW)
		a->atime = now();
	if (s->what & FS_SET_MTIME_NOW)
		a->mtime = now();
	if (s->what & FS_SET_BTIME)
		a->btime = s->btime;
	return 0;
}

static int mem_getattrs(struct fs *fs, struct fs_attr *a, unsigned n, unsigned flags)
{
	for (unsigned i = 0; i < n; i++) {
		struct fs_node *node;
		int err = get_any(fs, a[i].ino, flags, &node);

		if (err == -EAGAIN)
			return err;
		if (err) {
			a[i] = (struct fs_attr){.ino = a[i].ino, .gen = (uint32_t)-err};
		} else {
			mem_getattr(node, 0, &a[i]);
			fs_node_put(node);
		}
	}
	return 0;
}

static int mem_setattr(struct fs_node *node, const struct fs_setattr *s, struct fs_attr *after)
{
	struct mem_fs *m = fs_of(node->fs);
	struct mem_node *n = node_of(node);
	int err;

	lock_take(&m->mu);
	err = take_failure(m);
	if (!err)
		err = apply(n, s);
	if (!err)
		touch(m, n, s->what & FS_SET_SIZE && !(s->what & FS_SET_MTIME));
	if (!err && after)
		*after = n->attr;
	lock_drop(&m->mu);
	return err;
}

static int mem_read(struct fs_node *node, uint64_t off, uint32_t len, unsigned flags, struct cache_seg *seg,
		    unsigned max, bool *eof)
{
	struct mem_fs *m = fs_of(node->fs);
	struct mem_node *n = node_of(node);
	uint64_t end;
	unsigned k = 0;

	if (node->type != FS_REG)
		return -EINVAL;
	lock_take(&m->mu);
	if (busy(m, flags)) {
		lock_drop(&m->mu);
		return -EAGAIN;
	}
	end = off >= n->attr.size ? off : len < n->attr.size - off ? off + len : n->attr.size;
	*eof = end >= n->attr.size;
	for (; off < end && k < max; k++) {
		uint64_t i = off / PAGE, in = off % PAGE, part = PAGE - in < end - off ? PAGE - in : end - off;
		const uint8_t *p = n->page && n->page[i] ? n->page[i] : zeros;

		seg[k] = (struct cache_seg){.base = (uint8_t *)(uintptr_t)p + in, .len = (uint32_t)part};
		off += part;
	}
	lock_drop(&m->mu);
	return (int)k;
}

static void copy_in(struct mem_node *n, uint64_t off, const struct iovec *iov, int niov, uint32_t len)
{
	for (int v = 0; v < niov && len; v++) {
		const uint8_t *p = iov[v].iov_base;
		size_t left = iov[v].iov_len < len ? iov[v].iov_len : len;

		len -= (uint32_t)left;
		while (left) {
			uint64_t in = off % PAGE;
			size_t part = PAGE - in < left ? PAGE - in : left;

			memcpy(n->page[off / PAGE] + in, p, part);
			p += part;
			off += part;
			left -= part;
		}
	}
}

static int have_range(struct mem_node *n, uint64_t off, uint64_t len)
{
	int err = 0;

	if (off > MEMFS_FILE_MAX || len > MEMFS_FILE_MAX - off)
		return -EFBIG;
	for (uint64_t i = off / PAGE; !err && len && i <= (off + len - 1) / PAGE; i++)
		err = have_page(n, i);
	if (!err && off + len > n->attr.size)
		n->attr.size = off + len;
	return err;
}

static int mem_write(struct fs_node *node, uint64_t off, const struct iovec *iov, int niov, uint32_t len,
		     unsigned flags)
{
	struct mem_fs *m = fs_of(node->fs);
	struct mem_node *n = node_of(node);
	int err = -EAGAIN;

	lock_take(&m->mu);
	if (!busy(m, flags)) {
		err = take_failure(m);
		if (!err)
			err = have_range(n, off, len);
		if (!err) {
			copy_in(n, off, iov, niov, len);
			touch(m, n, true);
		}
	}
	lock_drop(&m->mu);
	return err;
}

static int mem_commit(struct fs_node *n, uint64_t off, uint64_t len)
{
	(void)n, (void)off, (void)len;
	return 0;
}

static int mem_seek(struct fs_node *node, uint64_t off, enum fs_seek what, uint64_t *out)
{
	struct mem_fs *m = fs_of(node->fs);
	struct mem_node *n = node_of(node);
	int err = -ENXIO;

	lock_take(&m->mu);
	for (; off < n->attr.size; off = (off / PAGE + 1) * PAGE) {
		bool data = n->page && n->page[off / PAGE];

		if (data == (what == FS_SEEK_DATA)) {
			err = 0;
			break;
		}
	}
	if (err && what == FS_SEEK_HOLE && off < n->attr.size + PAGE && n->attr.size) {
		off = n->attr.size;
		err = 0;
	}
	*out = off;
	lock_drop(&m->mu);
	return err;
}

static int mem_alloc(struct fs_node *node, uint64_t off, uint64_t len)
{
	struct mem_fs *m = fs_of(node->fs);
	int err;

	lock_take(&m->mu);
	err = have_range(node_of(node), off, len);
	touch(m, node_of(node), true);
	lock_drop(&m->mu);
	return err;
}

static int mem_punch(struct fs_node *node, uint64_t off, uint64_t len)
{
	struct mem_fs *m = fs_of(node->fs);
	struct mem_node *n = node_of(node);

	lock_take(&m->mu);
	if (off < n->attr.size)
		clear(n, off, len < n->attr.size - off ? off + len : n->attr.size);
	touch(m, n, true);
	lock_drop(&m->mu);
	return 0;
}

/* ---- names ------------------------------------------------------------------------------------------------------------- */

static int add_entry(struct mem_fs *m, struct mem_node *dir, const char *name, uint32_t len, struct mem_node *n)
{
	struct mem_entry *e = malloc(sizeof *e + len);

	if (!e)
		return -ENOMEM;
	e->cookie = ++m->next_cookie;
	e->node = n;
	e->len = len;
	memcpy(e->name, name, len);
	list_push_back(&dir->entries, &e->link);
	if (n->n.type == FS_DIR) {
		n->parent = dir;
		dir->attr.nlink++;
	}
	return 0;
}

/* The entry goes; the node keeps its link count. */
static void drop_entry(struct mem_node *dir, struct mem_entry *e)
{
	if (e->node->n.type == FS_DIR)
		dir->attr.nlink--;
	list_del(&e->link);
	free(e);
}

static void unlinked(struct mem_fs *m, struct mem_node *n)
{
	n->attr.nlink = n->n.type == FS_DIR ? 0 : n->attr.nlink - 1;
	touch(m, n, false);
	if (!n->attr.nlink && !atomic_load(&n->n.refs))
		node_free(n);
}

static void changed(struct mem_fs *m, struct mem_node *dir, struct fs_cinfo *ci)
{
	*ci = (struct fs_cinfo){.atomic = true, .before = dir->attr.change};
	touch(m, dir, true);
	ci->after = dir->attr.change;
}

static int create_locked(struct mem_fs *m, struct mem_node *dir, const char *name, uint32_t len,
			 const struct fs_create *c, struct fs_node **out)
{
	struct mem_node *n = node_new(m, c->type, dir);
	int err;

	if (!n)
		return -ENOMEM;
	err = apply(n, &c->set);
	if (!err && c->type == FS_LNK && !(n->target = strndup(c->target, c->target_len)))
		err = -ENOMEM;
	if (!err)
		err = add_entry(m, dir, name, len, n);
	if (err) {
		node_free(n);
		return err;
	}
	if (c->type == FS_LNK)
		n->attr.size = c->target_len;
	n->attr.rdev_major = c->rdev_major;
	n->attr.rdev_minor = c->rdev_minor;
	if (c->has_verf) {
		n->attr.atime = (struct fs_time){(int64_t)(c->verf >> 32), 0};
		n->attr.mtime = (struct fs_time){(int64_t)(uint32_t)c->verf, 0};
	}
	*out = &n->n; /* the reference it was born with */
	return 0;
}

static int mem_create(struct fs_node *dir, const char *name, uint32_t len, const struct fs_create *c,
		      struct fs_node **out, struct fs_cinfo *ci)
{
	struct mem_fs *m = fs_of(dir->fs);
	struct mem_node *d = node_of(dir);
	int err;

	lock_take(&m->mu);
	*out = NULL;
	err = busy(m, c->flags) ? -EAGAIN : !d->attr.nlink ? -ENOENT : find(d, name, len) ? -EEXIST : take_failure(m);
	if (!err)
		err = create_locked(m, d, name, len, c, out);
	if (!err)
		changed(m, d, ci);
	lock_drop(&m->mu);
	return err;
}

static int mem_link(struct fs_node *n, struct fs_node *dir, const char *name, uint32_t len, struct fs_cinfo *ci)
{
	struct mem_fs *m = fs_of(n->fs);
	struct mem_node *d = node_of(dir), *x = node_of(n);
	int err;

	lock_take(&m->mu);
	err = n->type == FS_DIR ? -EPERM : !x->attr.nlink ? -ENOENT : find(d, name, len) ? -EEXIST : take_failure(m);
	if (!err)
		err = add_entry(m, d, name, len, x);
	if (!err) {
		x->attr.nlink++;
		touch(m, x, false);
		changed(m, d, ci);
	}
	lock_drop(&m->mu);
	return err;
}

static int mem_unlink(struct fs_node *dir, const char *name, uint32_t len, unsigned flags, struct fs_cinfo *ci)
{
	struct mem_fs *m = fs_of(dir->fs);
	struct mem_node *d = node_of(dir), *n;
	struct mem_entry *e;
	int err;

	lock_take(&m->mu);
	e = find(d, name, len);
	err = busy(m, flags) ? -EAGAIN : !e ? -ENOENT : !list_empty(&e->node->entries) ? -ENOTEMPTY : take_failure(m);
	if (!err) {
		n = e->node;
		drop_entry(d, e);
		unlinked(m, n);
		changed(m, d, ci);
	}
	lock_drop(&m->mu);
	return err;
}

static int may_replace(const struct mem_node *n, const struct mem_node *old)
{
	if (n->n.type == FS_DIR && old->n.type != FS_DIR)
		return -ENOTDIR;
	if (n->n.type != FS_DIR && old->n.type == FS_DIR)
		return -EISDIR;
	return list_empty(&old->entries) ? 0 : -ENOTEMPTY;
}

static int mem_rename(struct fs_node *from, const char *name, uint32_t len, struct fs_node *to, const char *nname,
		      uint32_t nlen, struct fs_cinfo *cfrom, struct fs_cinfo *cto)
{
	struct mem_fs *m = fs_of(from->fs);
	struct mem_node *f = node_of(from), *t = node_of(to), *n = NULL, *old = NULL;
	struct mem_entry *e, *oe;
	int err = 0;

	lock_take(&m->mu);
	e = find(f, name, len);
	oe = find(t, nname, nlen);
	if (!e)
		err = -ENOENT;
	for (struct mem_node *up = t; e && up; up = up->parent) {
		if (up == e->node)
			err = -EINVAL;
	}
	if (!err) {
		n = e->node;
		old = oe ? oe->node : NULL;
	}
	if (!err && old && old != n)
		err = may_replace(n, old);
	if (!err)
		err = take_failure(m);
	if (!err && old != n) {
		err = add_entry(m, t, nname, nlen, n);
		if (!err) {
			drop_entry(f, e);
			if (oe) {
				drop_entry(t, oe);
				unlinked(m, old);
			}
			touch(m, n, false);
		}
	}
	if (!err) {
		changed(m, f, cfrom);
		if (t == f)
			*cto = *cfrom;
		else
			changed(m, t, cto);
	}
	lock_drop(&m->mu);
	return err;
}

static int mem_readdir(struct fs_node *dir, uint64_t cookie, unsigned flags, fs_emit_fn *emit, void *arg, bool *eof)
{
	struct mem_fs *m = fs_of(dir->fs);
	int err = 0;

	lock_take(&m->mu);
	*eof = true;
	if (busy(m, flags)) {
		err = -EAGAIN;
		goto out;
	}
	list_for_each (it, &node_of(dir)->entries) {
		struct mem_entry *e = list_entry(it, struct mem_entry, link);
		struct fs_dirent d = {.cookie = e->cookie, .ino = e->node->n.ino, .name = e->name, .len = e->len};

		if (e->cookie > cookie && !emit(arg, &d)) {
			*eof = false;
			break;
		}
	}
out:
	lock_drop(&m->mu);
	return err;
}

static int mem_readlink(struct fs_node *node, unsigned flags, char *buf, uint32_t cap)
{
	struct mem_fs *m = fs_of(node->fs);
	struct mem_node *n = node_of(node);
	int len;

	if (node->type != FS_LNK)
		return -EINVAL;
	lock_take(&m->mu);
	len = busy(m, flags) ? -EAGAIN : (int)strlen(n->target);
	if (len > (int)cap)
		len = -EINVAL;
	if (len > 0)
		memcpy(buf, n->target, (size_t)len);
	lock_drop(&m->mu);
	return len;
}

/* ---- the whole ------------------------------------------------------------------------------------------------------------ */

static int mem_sync(struct fs *fs)
{
	(void)fs;
	return 0;
}

static int mem_statfs(struct fs *fs, struct fs_statfs *st)
{
	*st = (struct fs_statfs){.bytes_total = 1 << 30,
				 .bytes_free = 1 << 29,
				 .bytes_avail = 1 << 28,
				 .files_total = 1 << 20,
				 .files_free = (1 << 20) - memfs_count(fs),
				 .block_size = PAGE,
				 .name_max = 255,
				 .link_max = 65000,
				 .file_size_max = MEMFS_FILE_MAX};
	return 0;
}

static int mem_unmount(struct fs *fs)
{
	struct mem_fs *m = fs_of(fs);

	list_for_each_safe (it, tmp, &m->nodes) {
		struct mem_node *n = list_entry(it, struct mem_node, all);

		list_for_each_safe (eit, etmp, &n->entries)
			free(list_entry(eit, struct mem_entry, link));
		node_free(n);
	}
	lock_fini(&m->mu);
	free(m);
	return 0;
}

static const struct fs_ops mem_ops = {
	.name = "memfs",
	.get = mem_get,
	.put = mem_put,
	.lookup = mem_lookup,
	.parent = mem_parent,
	.getattr = mem_getattr,
	.getattrs = mem_getattrs,
	.setattr = mem_setattr,
	.create = mem_create,
	.link = mem_link,
	.unlink = mem_unlink,
	.rename = mem_rename,
	.readdir = mem_readdir,
	.readlink = mem_readlink,
	.read = mem_read,
	.write = mem_write,
	.commit = mem_commit,
	.seek = mem_seek,
	.alloc = mem_alloc,
	.punch = mem_punch,
	.sync = mem_sync,
	.statfs = mem_statfs,
	.unmount = mem_unmount,
};

struct fs *memfs_new(void)
{
	static _Atomic uint8_t serial;
	struct mem_fs *m = calloc(1, sizeof *m);
	struct mem_node *root;

	if (!m)
		return NULL;
	lock_init(&m->mu);
	list_init(&m->nodes);
	m->next_ino = 10;
	m->next_cookie = 10;
	m->fs.ops = &mem_ops;
	memcpy(m->fs.type_name, "memfs", 6);
	m->fs.uuid[0] = 0x4d;
	m->fs.uuid[15] = serial++;
	m->fs.size = 1 << 30;
	root = node_new(m, FS_DIR, NULL);
	if (!root) {
		free(m);
		return NULL;
	}
	root->attr.mode = 0777;
	m->fs.root = &root->n;
	return &m->fs;
}

void memfs_set_busy(struct fs *fs, bool on)
{
	lock_take(&fs_of(fs)->mu);
	fs_of(fs)->busy = on;
	lock_drop(&fs_of(fs)->mu);
}

void memfs_fail_next(struct fs *fs, int err)
{
	lock_take(&fs_of(fs)->mu);
	fs_of(fs)->fail = err;
	lock_drop(&fs_of(fs)->mu);
}

void memfs_set_flags(struct fs *fs, const char *name, uint32_t flags)
{
	struct fs_node *n;

	if (fs->ops->lookup(fs->root, name, (uint32_t)strlen(name), 0, &n) != 0)
		return;
	((struct mem_node *)n)->attr.flags = flags;
	fs_node_put(n);
}

unsigned memfs_count(struct fs *fs)
{
	struct mem_fs *m = fs_of(fs);
	unsigned n = 0;

	lock_take(&m->mu);
	list_for_each (it, &m->nodes)
		n++;
	lock_drop(&m->mu);
	return n;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * node.c - inodes in memory: the table, references, attributes, the housekeeper
 *
 * A node is in the table from the time its inode is read or made until it is evicted or freed.
 *
 *     in use (refs > 0) --last put--> idle (kept, oldest evicted when there are many) --get--> in use
 *                       \--last put, unlinked--> reap list --housekeeper--> blocks and inode freed
 *
 * A dirty node is on the dirty list and is not evicted. The housekeeper thread writes dirty nodes to the cache every few
 * seconds, frees what is on the reap list, and evicts idle nodes, so that putting a node never waits.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "vhd/base/checked.h"
#include "vhd/base/clock.h"
#include "vhd/base/log.h"
#include "vhd/ext4/journal.h"

#define IDLE_MAX 32768u
#define WRITE_BEHIND_MS 5000u
#define LOOK_MS 1000u   /* what others do to the image is noticed */
#define GATHER_MS 20u   /* who removes one file removes more */
#define REAP_BATCH 32u  /* inodes freed before others may have fs->mu */
#define STORE_BATCH 64u /* inodes written before others may have fs->mu */
#define CREDITS_RELEASE 64u

/* ---- the table ------------------------------------------------------------------------------------------------------------ */

static uint32_t slot(const struct ext4_fs *fs, uint64_t ino)
{
	return (uint32_t)(ino * UINT64_C(0x9e3779b97f4a7c15) >> 40) & fs->table_mask;
}

static struct ext4_node *table_find(struct ext4_fs *fs, uint64_t ino) REQUIRES(fs->table_mu)
{
	struct ext4_node *n = fs->table[slot(fs, ino)];

	while (n && n->n.ino != ino)
		n = n->hash_next;
	return n;
}

static void table_grow(struct ext4_fs *fs) REQUIRES(fs->table_mu)
{
	uint32_t size = (fs->table_mask + 1) * 2;
	struct ext4_node **t = calloc(size, sizeof(struct ext4_node *)), **old = fs->table;
	uint32_t old_size = fs->table_mask + 1;

	if (!t)
		return; /* longer chains, no harm */
	fs->table = t;
	fs->table_mask = size - 1;
	for (uint32_t i = 0; i < old_size; i++)
		for (struct ext4_node *n = old[i], *next; n; n = next) {
			next = n->hash_next;
			n->hash_next = t[slot(fs, n->n.ino)];
			t[slot(fs, n->n.ino)] = n;
		}
	free(old);
}

static void table_add(struct ext4_fs *fs, struct ext4_node *n) REQUIRES(fs->table_mu)
{
	struct ext4_node **p;

	if (++fs->table_count > fs->table_mask)
		table_grow(fs);
	p = &fs->table[slot(fs, n->n.ino)];
	n->hash_next = *p;
	*p = n;
	n->in_table = true;
}

static void table_remove(struct ext4_fs *fs, struct ext4_node *n) REQUIRES(fs->table_mu)
{
	struct ext4_node **p = &fs->table[slot(fs, n->n.ino)];

	if (!n->in_table)
		return;
	while (*p != n)
		p = &(*p)->hash_next;
	*p = n->hash_next;
	fs->table_count--;
	n->in_table = false;
}

static void idle_remove(struct ext4_fs *fs, struct ext4_node *n) REQUIRES(fs->table_mu)
{
	if (!n->in_idle)
		return;
	list_del(&n->idle_link);
	n->in_idle = false;
	fs->nidle--;
}

/* Find and take a reference. */
static struct ext4_node *table_get(struct ext4_fs *fs, uint64_t ino) REQUIRES(fs->table_mu)
{
	struct ext4_node *n = table_find(fs, ino);

	if (n) {
		atomic_fetch_add(&n->n.refs, 1);
		idle_remove(fs, n);
	}
	return n;
}

static void node_free(struct ext4_node *n)
{
	list_del(&n->orphan_link);
	ext4_dir_forget(n);
	ext4_map_free(n->map);
	free(n->body);
	ext4_acls_drop(n);
	rwlock_fini(&n->rw);
	free(n);
}

static enum fs_type type_of(uint16_t mode)
{
	switch (mode & 0xf000) {
	case LINUX_S_IFREG:
		return FS_REG;
	case LINUX_S_IFDIR:
		return FS_DIR;
	case LINUX_S_IFLNK:
		return FS_LNK;
	case LINUX_S_IFBLK:
		return FS_BLK;
	case LINUX_S_IFCHR:
		return FS_CHR;
	case LINUX_S_IFIFO:
		return FS_FIFO;
	case LINUX_S_IFSOCK:
		return FS_SOCK;
	default:
		return 0;
	}
}

static bool is_large(const struct ext4_fs *fs, const struct ext2_inode_large *i, size_t field_end)
{
	return EXT2_INODE_SIZE(fs->e2->super) > EXT2_GOOD_OLD_INODE_SIZE &&
	       EXT2_GOOD_OLD_INODE_SIZE + (size_t)i->i_extra_isize >= field_end;
}
#define LARGE(fs, i, field)                                                                                            \
	is_large((fs), (i), offsetof(struct ext2_inode_large, field) + sizeof(((struct ext2_inode_large *)0)->field))

static struct ext4_node *node_alloc(struct ext4_fs *fs, uint64_t ino)
{
	struct ext4_node *n = calloc(1, sizeof *n);

	if (!n)
		return NULL;
	n->n.fs = &fs->fs;
	n->n.ino = ino;
	n->dir_gen = ext4_dir_new_gen();
	atomic_init(&n->n.refs, 1);
	rwlock_init(&n->rw);
	list_init(&n->idle_link);
	list_init(&n->dirty_link);
	list_init(&n->logged_link);
	list_init(&n->orphan_link);
	return n;
}

/* Does the file system keep something of its own in it, wherever its number lies? */
static bool is_own(const struct ext2_super_block *s, uint64_t ino)
{
	return ino != EXT2_ROOT_INO &&
	       (ino < EXT2_FIRST_INO(s) || ino == s->s_journal_inum || ino == s->s_usr_quota_inum ||
		ino == s->s_grp_quota_inum || ino == s->s_prj_quota_inum || ino == s->s_orphan_file_inum);
}

/* Read an inode that is not in memory; @orphan: it may be one without a link. Under fs->mu. */
static int node_read(struct ext4_fs *fs, uint64_t ino, bool orphan, struct ext4_node **out) NO_THREAD_SAFETY
{
	int size = EXT2_INODE_SIZE(fs->e2->super), err = 0;
	struct ext4_node *n;
	errcode_t e;

	if (ino > fs->e2->super->s_inodes_count || is_own(fs->e2->super, ino))
		return -ESTALE;
	n = node_alloc(fs, ino);
	if (!n)
		return -ENOMEM;
	e = ext2fs_read_inode_full(fs->e2, (ext2_ino_t)ino, (struct ext2_inode *)fs->raw_inode, size);
	memcpy(&n->inode, fs->raw_inode, (size_t)size < sizeof n->inode ? (size_t)size : sizeof n->inode);
	if (e)
		err = ext4_errno(e);
	else if ((!n->inode.i_links_count && !orphan) || !n->inode.i_mode ||
		 !ext2fs_test_inode_bitmap2(fs->e2->inode_map, (ext2_ino_t)ino))
		err = -ESTALE;
	n->n.gen = n->inode.i_generation;
	n->n.type = type_of(n->inode.i_mode);
	if (!err && (!n->n.type || n->inode.i_flags & EXT4_ENCRYPT_FL ||
		     (ext4_is_inline(n) && !ext2fs_has_feature_inline_data(fs->e2->super))))
		err = -EUCLEAN;
	/* Logical blocks have 32 bits. */
	if (!err && (ext4_size(&n->inode) > (uint64_t)UINT32_MAX << fs->block_bits))
		err = -EUCLEAN;
	n->stored_size = ext4_size(&n->inode);
	n->change = n->inode.osd1.linux1.l_i_version;
	if (LARGE(fs, &n->inode, i_version_hi))
		n->change |= (uint64_t)n->inode.i_version_hi << 32;
	if (!err)
		err = ext4_body_load(n, fs->raw_inode);
	if (!err)
		err = ext4_acls_load(n);
	if (!err && n->n.type == FS_DIR)
		err = ext4_map_load(n);
	if (err) {
		node_free(n);
		return err;
	}
	*out = n;
	return 0;
}

int ext4_node_get(struct ext4_fs *fs, uint64_t ino, unsigned flags, struct ext4_node **out) NO_THREAD_SAFETY
{
	struct ext4_node *n;
	int err = 0;

	lock_take(&fs->table_mu);
	n = table_get(fs, ino);
	lock_drop(&fs->table_mu);
	if (!n) {
		if (flags & FS_NOWAIT)
			return -EAGAIN;
		/* fs->mu keeps two readers of one inode apart. */
		lock_take(&fs->mu);
		lock_take(&fs->table_mu);
		n = table_get(fs, ino);
		lock_drop(&fs->table_mu);
		if (!n && (err = node_read(fs, ino, false, &n)) == 0) {
			lock_take(&fs->table_mu);
			table_add(fs, n);
			lock_drop(&fs->table_mu);
		}
		lock_drop(&fs->mu);
		if (err)
			return err;
	}
	/* An unlinked file is still served to those who have it open; a freed one is not. */
	if (n->dead) {
		ext4_node_put(n);
		return -ESTALE;
	}
	*out = n;
	return 0;
}

int ext4_node_get_orphan(struct ext4_fs *fs, uint64_t ino, struct ext4_node **out) NO_THREAD_SAFETY
{
	int err = 0;

	lock_take(&fs->table_mu);
	*out = table_get(fs, ino);
	lock_drop(&fs->table_mu);
	if (*out)
		return 0;
	err = node_read(fs, ino, true, out);
	if (err)
		return err;
	lock_take(&fs->table_mu);
	table_add(fs, *out);
	lock_drop(&fs->table_mu);
	return 0;
}

int ext4_op_get(struct fs *fs, uint64_t ino, uint32_t gen, unsigned flags, struct fs_node **out)
{
	struct ext4_node *n;
	int err = ext4_node_get(ext4_fs_of(fs), ino, flags, &n);

	if (err)
		return err;
	/* The number is used again: this is another file. */
	if (n->n.gen != gen) {
		ext4_node_put(n);
		return -ESTALE;
	}
	*out = &n->n;
	return 0;
}

/* What is in memory of a batch, under one lock and without references. */
static int attrs_from_memory(struct ext4_fs *fs, struct fs_attr *a, unsigned n) NO_THREAD_SAFETY
{
	int err = 0;

	lock_take(&fs->table_mu);
	/* They lie scattered: let their ways to the processor overlap. */
	for (unsigned i = 0; i < n; i++) {
		const char *p = (const char *)fs->table[slot(fs, a[i].ino)];

		for (size_t line = 0; p && line < offsetof(struct ext4_node, dirty); line += 64)
			__builtin_prefetch(p + line);
	}
	for (unsigned i = 0; i < n && !err; i++) {
		struct ext4_node *node = a[i].type ? NULL : table_find(fs, a[i].ino);

		bool idle;

		if (a[i].type)
			continue;
		/* Who holds a node's lock holds a reference, and needs table_mu for the first. */
		idle = node && !atomic_load_explicit(&node->n.refs, memory_order_relaxed);
		if (!node || (!idle && !rwlock_try_read(&node->rw))) {
			err = -EAGAIN;
			break;
		}
		a[i].gen = ESTALE;
		if (!node->dead)
			ext4_node_attr(node, &a[i]);
		if (!idle)
			rwlock_drop(&node->rw);
	}
	lock_drop(&fs->table_mu);
	return err;
}

int ext4_op_getattrs(struct fs *f, struct fs_attr *a, unsigned n, unsigned flags)
{
	struct ext4_fs *fs = ext4_fs_of(f);

	for (unsigned i = 0; i < n; i++)
		a[i].type = 0;
	if (attrs_from_memory(fs, a, n) == 0)
		return 0;
	if (flags & FS_NOWAIT)
		return -EAGAIN;
	for (unsigned i = 0; i < n; i++) {
		struct ext4_node *node;
		int err = a[i].type ? 0 : ext4_node_get(fs, a[i].ino, 0, &node);

		if (err) {
			a[i] = (struct fs_attr){.ino = a[i].ino, .gen = (uint32_t)-err};
		} else if (!a[i].type) {
			ext4_op_getattr(&node->n, 0, &a[i]);
			ext4_node_put(node);
		}
	}
	return 0;
}

void ext4_op_put(struct fs_node *fn) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of(fn->fs);
	struct ext4_node *n = ext4_node_of(fn);
	unsigned refs = atomic_load_explicit(&fn->refs, memory_order_relaxed);

	while (refs > 1)
		if (atomic_compare_exchange_weak(&fn->refs, &refs, refs - 1))
			return;
	lock_take(&fs->table_mu);
	if (atomic_fetch_sub(&fn->refs, 1) == 1) {
		if (n->unlinked && !n->dead && fs->keep_unlinked) {
			; /* its opener may come back, and finds it in the table, or the next mount on the list of orphans */
		} else if (n->unlinked && !n->dead && !fs->fs.read_only) {
			list_del(&n->idle_link); /* it may wait there already: found by its filehandle meanwhile */
			if (list_empty(&fs->reap))
				cond_broadcast(&fs->table_cond);
			list_push_back(&fs->reap, &n->idle_link);
		} else {
			/* Small files that nobody has open would hold sixteen times their size. */
			ext4_drop_window(n);
			list_push_back(&fs->idle, &n->idle_link);
			n->in_idle = true;
			if (++fs->nidle > IDLE_MAX || fs->stopping)
				cond_broadcast(&fs->table_cond);
		}
	}
	lock_drop(&fs->table_mu);
}

/* ---- dirty ------------------------------------------------------------------------------------------------------------------ */

void ext4_node_later(struct ext4_node *n)
{
	struct ext4_fs *fs = ext4_fs_of_node(n);

	if (n->dirty)
		return;
	n->dirty = true;
	lock_take(&fs->table_mu);
	if (list_empty(&n->dirty_link))
		list_push_back(&fs->dirty, &n->dirty_link);
	lock_drop(&fs->table_mu);
}

void ext4_node_dirty(struct ext4_node *n) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);

	ext4_node_later(n);
	fs->changes++;
	if (fs->journal && list_empty(&n->logged_link)) {
		list_push_back(&fs->logged, &n->logged_link);
		fs->nlogged++;
	}
}

void ext4_logged_remove(struct ext4_fs *fs, struct ext4_node *n)
{
	if (list_empty(&n->logged_link))
		return;
	list_del(&n->logged_link);
	fs->nlogged--;
}

static void dirty_remove(struct ext4_fs *fs, struct ext4_node *n)
{
	lock_take(&fs->table_mu);
	list_del(&n->dirty_link);
	lock_drop(&fs->table_mu);
}

/* To the inode table: with @whole also what is behind the fields, else that stays as it is there. */
static errcode_t write_inode(struct ext4_fs *fs, struct ext4_node *n, const struct ext2_inode_large *d,
			     bool whole) NO_THREAD_SAFETY
{
	size_t size = (size_t)EXT2_INODE_SIZE(fs->e2->super), known = size < sizeof *d ? size : sizeof *d;
	uint32_t body = ext4_body_start(fs, d);

	memcpy(fs->raw_inode, d, known);
	if (whole)
		memset(fs->raw_inode + known, 0, size - known);
	if (whole && n->body && body)
		memcpy(fs->raw_inode + body, n->body, size - body);
	return ext2fs_write_inode_full(fs->e2, (ext2_ino_t)n->n.ino, (struct ext2_inode *)fs->raw_inode,
				       (int)(whole ? size : known));
}

int ext4_node_store_inode(struct ext4_node *n) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	struct ext2_inode_large d = n->inode;
	errcode_t e;

	ext4_logged_remove(fs, n);
	if (n->dead)
		return 0;
	ext4_order_zeroed(n);
	if (n->map_dirty && n->stored_size < ext4_size(&d)) {
		d.i_size = (uint32_t)n->stored_size;
		d.i_size_high = (uint32_t)(n->stored_size >> 32);
	} else {
		n->stored_size = ext4_size(&d);
	}
	/* The superblock says that there are such files, in the transaction that makes the first. */
	if (ext4_size(&d) >> 31 && !ext2fs_has_feature_large_file(fs->e2->super)) {
		ext2fs_set_feature_large_file(fs->e2->super);
		fs->super_dirty = true;
	}
	d.osd1.linux1.l_i_version = n->inode.osd1.linux1.l_i_version = (uint32_t)n->change;
	if (LARGE(fs, &n->inode, i_version_hi))
		d.i_version_hi = n->inode.i_version_hi = (uint32_t)(n->change >> 32);
	e = write_inode(fs, n, &d, n->body_dirty);
	if (e)
		return ext4_errno(e);
	n->body_dirty = false;
	n->tid = ext4_journal_running(fs);
	n->dirty = n->map_dirty;
	if (!n->dirty)
		dirty_remove(fs, n);
	return 0;
}

int ext4_node_store(struct ext4_node *n) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	int err;

	if (n->dead || !(n->dirty || n->map_dirty))
		return 0;
	fs->meta_seq++;
	err = ext4_map_store(n);
	return err ? err : ext4_node_store_inode(n);
}

int ext4_store_logged(struct ext4_fs *fs) NO_THREAD_SAFETY
{
	int err = 0;

	while (!err && !list_empty(&fs->logged)) {
		struct ext4_node *n = list_first(&fs->logged, struct ext4_node, logged_link);

		rwlock_write(&n->rw);
		err = ext4_node_store_inode(n);
		rwlock_drop(&n->rw);
	}
	return err;
}

/* Some of the dirty nodes that have not had their turn, each with a reference. */
static unsigned take_dirty(struct ext4_fs *fs, struct list *todo, struct ext4_node **n)
{
	unsigned got = 0;

	lock_take(&fs->table_mu);
	while (got < STORE_BATCH && !list_empty(todo)) {
		n[got] = list_first(todo, struct ext4_node, dirty_link);
		list_del(&n[got]->dirty_link);
		list_push_back(&fs->dirty, &n[got]->dirty_link);
		/* In the reaper's hands, or not quite made: whoever has it stores it. */
		if (!n[got]->in_table)
			continue;
		atomic_fetch_add(&n[got]->n.refs, 1);
		idle_remove(fs, n[got]);
		got++;
	}
	lock_drop(&fs->table_mu);
	return got;
}

/* What a node's tree will lead to goes first, and not while others wait for the transaction. */
static int write_pending(struct ext4_node *n)
{
	bool pending;

	rwlock_read(&n->rw);
	pending = n->map_dirty && n->n.type == FS_REG;
	rwlock_drop(&n->rw);
	return pending ? ext4_write_back(n, 0, 0) : 0;
}

static int store_some(struct ext4_fs *fs, struct ext4_node **n, unsigned count) NO_THREAD_SAFETY
{
	int err = 0, e;

	for (unsigned i = 0; fs->journal && i < count; i++) {
		e = write_pending(n[i]);
		err = err ? err : e;
	}
	e = ext4_op_begin(fs, STORE_BATCH, 0);
	if (e)
		return e;
	/* One that cannot be stored does not keep the others from the disk. */
	for (unsigned i = 0; i < count; i++) {
		rwlock_write(&n[i]->rw);
		e = ext4_node_store(n[i]);
		err = err ? err : e;
		rwlock_drop(&n[i]->rw);
		if (!ext4_journal_room(fs, STORE_BATCH) && (e = ext4_journal_restart(fs)) < 0) {
			err = err ? err : e;
			break;
		}
	}
	return ext4_op_end(fs, err);
}

int ext4_store_all(struct ext4_fs *fs) NO_THREAD_SAFETY
{
	struct ext4_node *n[STORE_BATCH];
	struct list todo;
	unsigned got;
	int err = 0, e;

	if (fs->fs.read_only)
		return 0;
	list_init(&todo);
	lock_take(&fs->table_mu);
	list_splice_back(&todo, &fs->dirty);
	lock_drop(&fs->table_mu);
	while ((got = take_dirty(fs, &todo, n)) > 0) {
		e = store_some(fs, n, got);
		err = err ? err : e;
		for (unsigned i = 0; i < got; i++)
			ext4_op_put(&n[i]->n);
	}
	if (fs->journal)
		return err;
	lock_take(&fs->mu);
	e = ext4_write_groups(fs);
	lock_drop(&fs->mu);
	return err ? err : e;
}

/* ---- times, attributes -------------------------------------------------------------------------------------------------------- */

struct fs_time ext4_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (struct fs_time){.sec = t.tv_sec, .nsec = (uint32_t)t.tv_nsec};
}

/* Seconds have 34 bits: two more in the low bits of the extra word, above them nanoseconds; in small inodes 32. A time before or behind
 * that becomes the first or the last, as in Linux. */
static void put_time(uint32_t *sec, uint32_t *extra, const struct fs_time *t)
{
	const int64_t last = extra ? (INT64_C(1) << 34) + INT32_MIN - 1 : INT32_MAX;
	int64_t s = t->sec < INT32_MIN ? INT32_MIN : t->sec > last ? last : t->sec;

	*sec = (uint32_t)s;
	if (extra)
		*extra = (uint32_t)((((s - (int32_t)s) >> 32) & 3) | (int64_t)t->nsec << 2);
}

static struct fs_time get_time(uint32_t sec, const uint32_t *extra)
{
	uint32_t more = extra ? *extra : 0;

	return (struct fs_time){
		.sec = (int32_t)sec + ((int64_t)(more & 3) << 32),
		.nsec = more >> 2 > 999999999 ? 0 : more >> 2,
	};
}

static bool extra_times(const struct ext2_inode_large *i)
{
	return i->i_extra_isize >= offsetof(struct ext2_inode_large, i_crtime_extra) + 4 - EXT2_GOOD_OLD_INODE_SIZE;
}

void ext4_time_set(struct ext2_inode_large *i, unsigned which, const struct fs_time *t)
{
	bool x = extra_times(i);

	if (which & EXT4_T_A)
		put_time(&i->i_atime, x ? &i->i_atime_extra : NULL, t);
	if (which & EXT4_T_M)
		put_time(&i->i_mtime, x ? &i->i_mtime_extra : NULL, t);
	if (which & EXT4_T_C)
		put_time(&i->i_ctime, x ? &i->i_ctime_extra : NULL, t);
}

void ext4_node_touch_later(struct ext4_node *n, unsigned which)
{
	struct fs_time now = ext4_now();

	ext4_time_set(&n->inode, which, &now);
	if (which & (EXT4_T_M | EXT4_T_C))
		n->change++;
	ext4_node_later(n);
}

void ext4_node_touch(struct ext4_node *n, unsigned which)
{
	ext4_node_touch_later(n, which);
	ext4_node_dirty(n);
}

uint64_t ext4_node_change(const struct ext4_node *n)
{
	return n->change;
}

static uint64_t inode_blocks(const struct ext4_fs *fs, const struct ext2_inode_large *i)
{
	uint64_t b = i->i_blocks;

	if (ext2fs_has_feature_huge_file(fs->e2->super)) {
		b |= (uint64_t)i->osd2.linux2.l_i_blocks_hi << 32;
		if (i->i_flags & EXT4_HUGE_FILE_FL)
			b *= fs->block_size / 512;
	}
	return b;
}

void ext4_node_attr(const struct ext4_node *n, struct fs_attr *a)
{
	const struct ext4_fs *fs = container_of(n->n.fs, struct ext4_fs, fs);
	const struct ext2_inode_large *i = &n->inode;
	bool x = extra_times(i);

	/* All members are named: clearing the whole first costs as much as the rest, and listings do this a lot. */
	*a = (struct fs_attr){
		.ino = n->n.ino,
		.gen = n->n.gen,
		.type = n->n.type,
		.flags = (i->i_flags & EXT2_IMMUTABLE_FL ? (uint32_t)FS_ATTR_IMMUTABLE : 0) |
			 (i->i_flags & EXT2_APPEND_FL ? (uint32_t)FS_ATTR_APPEND : 0) |
			 (n->acl_is[FS_ACL_ACCESS] != ACL_NONE ? (uint32_t)FS_ATTR_ACL : 0),
		.mode = i->i_mode & 07777u,
		.nlink = i->i_links_count,
		.uid = i->i_uid | (uint32_t)i->osd2.linux2.l_i_uid_high << 16,
		.gid = i->i_gid | (uint32_t)i->osd2.linux2.l_i_gid_high << 16,
		.size = ext4_size(i),
		.space = inode_blocks(fs, i) * 512 + (n->pending_blocks << fs->block_bits),
		.change = n->change,
		.atime = get_time(i->i_atime, x ? &i->i_atime_extra : NULL),
		.mtime = get_time(i->i_mtime, x ? &i->i_mtime_extra : NULL),
		.ctime = get_time(i->i_ctime, x ? &i->i_ctime_extra : NULL),
		.btime = x ? get_time(i->i_crtime, &i->i_crtime_extra) : (struct fs_time){.sec = 0, .nsec = 0},
		.rdev_major = 0,
		.rdev_minor = 0,
	};
	if (n->n.type == FS_BLK || n->n.type == FS_CHR) {
		if (i->i_block[0]) {
			a->rdev_major = i->i_block[0] >> 8 & 0xff;
			a->rdev_minor = i->i_block[0] & 0xff;
		} else {
			a->rdev_major = i->i_block[1] >> 8 & 0xfff;
			a->rdev_minor = (i->i_block[1] & 0xff) | (i->i_block[1] >> 12 & 0xfff00);
		}
	}
}

void ext4_set_size(struct ext4_node *n, uint64_t size)
{
	n->inode.i_size = (uint32_t)size;
	n->inode.i_size_high = (uint32_t)(size >> 32);
	atomic_fetch_add_explicit(&n->n.stream.sized, 1, memory_order_release);
}

/* ---- making and freeing ---------------------------------------------------------------------------------------------------------- */

/* Where a new inode should lie: files beside their directory, directories in the group with most room. */
static ext2_ino_t inode_goal(struct ext4_fs *fs, const struct ext4_node *dir, enum fs_type type) REQUIRES(fs->mu)
{
	ext2_filsys e2 = fs->e2;
	dgrp_t best = ext2fs_group_of_ino(e2, (ext2_ino_t)dir->n.ino);
	uint64_t best_room = 0;

	if (type != FS_DIR)
		return fs->ino_dir == dir->n.ino ? fs->ino_next : (ext2_ino_t)dir->n.ino;
	for (dgrp_t g = 0; g < e2->group_desc_count; g++) {
		uint64_t room = ext2fs_bg_free_blocks_count(e2, g);

		if (ext2fs_bg_free_inodes_count(e2, g) && room > best_room) {
			best_room = room;
			best = g;
		}
	}
	return best * e2->super->s_inodes_per_group + 1;
}

static uint16_t mode_of(const struct fs_create *c)
{
	static const uint16_t fmt[] = {
		[FS_REG] = LINUX_S_IFREG,   [FS_DIR] = LINUX_S_IFDIR, [FS_LNK] = LINUX_S_IFLNK,
		[FS_BLK] = LINUX_S_IFBLK,   [FS_CHR] = LINUX_S_IFCHR, [FS_FIFO] = LINUX_S_IFIFO,
		[FS_SOCK] = LINUX_S_IFSOCK,
	};

	return (uint16_t)(fmt[c->type] | (c->set.mode & ~c->set.umask & 07777));
}

static uint32_t random32(struct ext4_fs *fs) REQUIRES(fs->mu)
{
	if (!fs->random && getrandom(&fs->random, sizeof fs->random, 0) != sizeof fs->random)
		fs->random = (uint64_t)time(NULL) | 1;
	fs->random ^= fs->random << 13;
	fs->random ^= fs->random >> 7;
	fs->random ^= fs->random << 17;
	return (uint32_t)(fs->random >> 16);
}

static void init_times(struct ext2_inode_large *i, const struct fs_create *c)
{
	struct fs_time now = ext4_now();

	ext4_time_set(i, EXT4_T_A | EXT4_T_M | EXT4_T_C, &now);
	if (extra_times(i))
		put_time(&i->i_crtime, &i->i_crtime_extra, c->set.what & FS_SET_BTIME ? &c->set.btime : &now);
	if (c->set.what & FS_SET_ATIME)
		ext4_time_set(i, EXT4_T_A, &c->set.atime);
	if (c->set.what & FS_SET_MTIME)
		ext4_time_set(i, EXT4_T_M, &c->set.mtime);
	if (c->has_verf) {
		/* The verifier of an exclusive create lives in the seconds until SETATTR sets real times. */
		i->i_atime = (uint32_t)(c->verf >> 32);
		i->i_mtime = (uint32_t)c->verf;
		if (extra_times(i))
			i->i_atime_extra = i->i_mtime_extra = 0;
	}
}

static void init_inode(struct ext4_fs *fs, struct ext4_node *n, const struct ext4_node *dir,
		       const struct fs_create *c) NO_THREAD_SAFETY
{
	struct ext2_inode_large *i = &n->inode;

	i->i_mode = mode_of(c);
	i->i_uid = (uint16_t)c->set.uid;
	i->i_gid = (uint16_t)c->set.gid;
	i->osd2.linux2.l_i_uid_high = (uint16_t)(c->set.uid >> 16);
	i->osd2.linux2.l_i_gid_high = (uint16_t)(c->set.gid >> 16);
	/* Servers before took all ones for "any": with such an image they would again. */
	do
		n->n.gen = random32(fs) | 1;
	while (n->n.gen == UINT32_MAX);
	i->i_generation = n->n.gen;
	if (EXT2_INODE_SIZE(fs->e2->super) > EXT2_GOOD_OLD_INODE_SIZE)
		i->i_extra_isize = fs->e2->super->s_want_extra_isize
					   ? fs->e2->super->s_want_extra_isize
					   : sizeof(struct ext2_inode_large) - EXT2_GOOD_OLD_INODE_SIZE;
	if (i->i_extra_isize > sizeof(struct ext2_inode_large) - EXT2_GOOD_OLD_INODE_SIZE)
		i->i_extra_isize = sizeof(struct ext2_inode_large) - EXT2_GOOD_OLD_INODE_SIZE;
	i->i_flags = dir->inode.i_flags & (EXT2_SYNC_FL | EXT2_NODUMP_FL | EXT2_NOATIME_FL);
	if (dir->inode.i_flags & EXT4_PROJINHERIT_FL && LARGE(fs, i, i_projid)) {
		i->i_projid = dir->inode.i_projid;
		if (c->type == FS_DIR)
			i->i_flags |= EXT4_PROJINHERIT_FL;
	}
	n->change = 1;
	init_times(i, c);
	if (c->type == FS_BLK || c->type == FS_CHR) {
		if (c->rdev_major < 256 && c->rdev_minor < 256)
			i->i_block[0] = c->rdev_major << 8 | c->rdev_minor;
		else
			i->i_block[1] = (c->rdev_minor & 0xff) | c->rdev_major << 8 | (c->rdev_minor & ~0xffu) << 12;
	}
}

/* A target of less than 60 bytes lives in the inode, a longer one in a block. */
static int store_target(struct ext4_fs *fs, struct ext4_node *n, const struct fs_create *c) NO_THREAD_SAFETY
{
	uint32_t lblk;
	char *block;
	int err;

	if (c->target_len >= fs->block_size)
		return -ENAMETOOLONG;
	if (c->target_len < sizeof n->inode.i_block) {
		memcpy(n->inode.i_block, c->target, c->target_len);
		ext4_set_size(n, c->target_len);
		return 0;
	}
	block = calloc(1, fs->block_size);
	if (!block)
		return -ENOMEM;
	memcpy(block, c->target, c->target_len);
	err = ext4_bappend(n, &lblk);
	if (!err)
		err = ext4_bwrite(n, lblk, block);
	free(block);
	ext4_set_size(n, c->target_len);
	return err;
}

static int init_map(struct ext4_fs *fs, struct ext4_node *n, const struct fs_create *c) NO_THREAD_SAFETY
{
	bool mapped = c->type == FS_REG || c->type == FS_DIR ||
		      (c->type == FS_LNK && c->target_len >= sizeof n->inode.i_block);

	n->map = calloc(1, sizeof *n->map);
	if (!n->map)
		return -ENOMEM;
	if (mapped && ext2fs_has_feature_extents(fs->e2->super)) {
		ext2_extent_handle_t h;
		errcode_t e;

		n->inode.i_flags |= EXT4_EXTENTS_FL;
		/* Opening an empty i_block writes the root's header into it. */
		e = ext2fs_extent_open2(fs->e2, (ext2_ino_t)n->n.ino, (struct ext2_inode *)&n->inode, &h);
		if (e)
			return ext4_errno(e);
		ext2fs_extent_free(h);
	}
	return c->type == FS_LNK ? store_target(fs, n, c) : 0;
}

int ext4_node_new(struct ext4_fs *fs, struct ext4_node *dir, const struct fs_create *c,
		  struct ext4_node **out) NO_THREAD_SAFETY
{
	struct ext4_node *n;
	ext2_ino_t ino;
	errcode_t e = ext2fs_new_inode(fs->e2, inode_goal(fs, dir, c->type), mode_of(c), NULL, &ino);
	int err;

	if (e)
		return ext4_errno(e);
	n = node_alloc(fs, ino);
	if (!n)
		return -ENOMEM;
	n->n.type = c->type;
	n->body_dirty = true; /* what an earlier inode of this number left behind its fields is none of this one's */
	ext2fs_inode_alloc_stats2(fs->e2, ino, +1, c->type == FS_DIR);
	if (c->type != FS_DIR && ino > dir->n.ino) {
		fs->ino_dir = (uint32_t)dir->n.ino;
		fs->ino_next = ino;
	}
	ext4_group_touched(fs, ext2fs_group_of_ino(fs->e2, ino), GROUP_INODES);
	init_inode(fs, n, dir, c);
	err = init_map(fs, n, c);
	lock_take(&fs->table_mu);
	if (!err) {
		struct ext4_node *old = table_find(fs, ino);

		/* A freed inode of that number may linger for somebody who still holds it. */
		if (old) {
			idle_remove(fs, old);
			table_remove(fs, old);
			if (atomic_load(&old->n.refs) == 0)
				node_free(old);
		}
		table_add(fs, n);
	}
	lock_drop(&fs->table_mu);
	if (err) {
		if (n->map && n->map->n)
			ext4_map_punch(n, 0, UINT64_C(1) << 32);
		ext2fs_inode_alloc_stats2(fs->e2, ino, -1, c->type == FS_DIR);
		ext4_logged_remove(fs, n);
		dirty_remove(fs, n);
		node_free(n);
		return err;
	}
	ext4_node_dirty(n);
	*out = n;
	return 0;
}

void ext4_node_unlinked(struct ext4_node *n)
{
	struct ext4_fs *fs = ext4_fs_of_node(n);

	lock_take(&fs->table_mu); /* the last put looks at it under this lock only */
	n->unlinked = true;
	lock_drop(&fs->table_mu);
}

void ext4_drop_window(struct ext4_node *n)
{
	if (n->pa_len)
		ext4_alloc_free(ext4_fs_of_node(n), n->pa_pblk, n->pa_len);
	n->pa_len = 0;
}

/* The disk failed while an inode is being freed: half of that is never committed, and the next start finds it on the list of orphans. */
static bool ends_writing(struct ext4_fs *fs, int err)
{
	if (!fs->journal || (err != -EIO && err != -ENOMEM))
		return false;
	ext4_journal_fail(fs, err, "freeing an inode");
	return true;
}

int ext4_inode_release(struct ext4_fs *fs, struct ext4_node *n) NO_THREAD_SAFETY
{
	ext2_ino_t ino = (ext2_ino_t)n->n.ino;
	struct ext2_inode *i = (struct ext2_inode *)&n->inode;
	int err = 0;

	/* Its size first, so that no state in between has blocks behind it that it should not. */
	if (!n->map)
		err = ext4_map_load(n);
	if (!err && (n->map->n || n->n.type == FS_REG || n->n.type == FS_DIR) &&
	    ext2fs_inode_has_valid_blocks2(fs->e2, i)) {
		ext4_set_size(n, 0);
		n->stored_size = 0;
		err = ext4_map_punch(n, 0, UINT64_C(1) << 32);
	}
	if (!err)
		err = ext4_xattr_release(n);
	/* The transaction in between could not be written: what is freed is freed, it is still on the list of orphans. */
	if (err == -ENOSPC && atomic_load(&fs->full))
		return err;
	if (err)
		log_warn("ext4: inode %u: its blocks could not be freed: %s", ino, strerror(-err));
	if (ends_writing(fs, err))
		return err;
	n->inode.i_links_count = 0;
	ext4_orphan_remove(n);
	n->inode.i_dtime = (uint32_t)time(NULL);
	ext4_set_size(n, 0);
	n->map_dirty = false;
	err = ext4_node_store_inode(n);
	(void)ends_writing(fs, err);
	ext2fs_inode_alloc_stats2(fs->e2, ino, -1, n->n.type == FS_DIR);
	if (ino > fs->ino_dir && ino < fs->ino_next)
		fs->ino_next = ino;
	ext4_group_touched(fs, ext2fs_group_of_ino(fs->e2, ino), GROUP_INODES);
	n->dead = true;
	return err;
}

/* Takes one from the list; NULL: somebody found it by its filehandle again, and the last put brings it back here. */
static struct ext4_node *reap_take(struct ext4_fs *fs) NO_THREAD_SAFETY
{
	struct ext4_node *n = NULL;

	lock_take(&fs->table_mu);
	if (!list_empty(&fs->reap)) {
		n = list_first(&fs->reap, struct ext4_node, idle_link);
		list_del(&n->idle_link);
		if (atomic_load(&n->n.refs))
			n = NULL;
		else
			table_remove(fs, n);
	}
	lock_drop(&fs->table_mu);
	return n;
}

/* It could not be freed now. */
static void reap_return(struct ext4_fs *fs, struct ext4_node *n)
{
	lock_take(&fs->table_mu);
	table_add(fs, n);
	list_push_back(&fs->reap, &n->idle_link);
	lock_drop(&fs->table_mu);
}

/* False: nothing can be freed (any more). */
static bool reap_some(struct ext4_fs *fs) NO_THREAD_SAFETY
{
	if (ext4_op_begin(fs, CREDITS_RELEASE, 0))
		return false;
	for (unsigned i = 0; i < REAP_BATCH && ext4_journal_room(fs, CREDITS_RELEASE); i++) {
		struct ext4_node *n = reap_take(fs);

		if (!n)
			break;
		if (ext4_inode_release(fs, n) == -ENOSPC) {
			reap_return(fs, n);
			break;
		}
		ext4_logged_remove(fs, n);
		dirty_remove(fs, n);
		node_free(n);
	}
	ext4_op_end(fs, 0);
	return true;
}

/* What files have taken ahead of what is written to them is free again. */
static void give_back_windows(struct ext4_fs *fs) NO_THREAD_SAFETY
{
	lock_take(&fs->table_mu);
	for (uint32_t i = 0; i <= fs->table_mask; i++)
		for (struct ext4_node *n = fs->table[i]; n; n = n->hash_next) {
			/* Who writes now keeps what it has. */
			if (n->n.type != FS_REG || !rwlock_try_write(&n->rw))
				continue;
			ext4_drop_window(n);
			rwlock_drop(&n->rw);
		}
	lock_drop(&fs->table_mu);
}

void ext4_reap_now(struct ext4_fs *fs) NO_THREAD_SAFETY
{
	bool more;

	give_back_windows(fs);
	do {
		lock_take(&fs->table_mu);
		more = !list_empty(&fs->reap);
		lock_drop(&fs->table_mu);
	} while (more && reap_some(fs));
	/* The housekeeper may have some in hand. */
	lock_take(&fs->mu);
	lock_drop(&fs->mu);
	/* Blocks are free when the transaction that freed them has committed, and are not being given back to the host. */
	ext4_journal_settle(fs);
	ext4_alloc_await(fs);
}

/* ---- the housekeeper --------------------------------------------------------------------------------------------------------------- */

static void evict_idle(struct ext4_fs *fs, uint32_t keep) REQUIRES(fs->table_mu) NO_THREAD_SAFETY
{
	list_for_each_safe (it, tmp, &fs->idle) {
		struct ext4_node *n = list_entry(it, struct ext4_node, idle_link);

		if (fs->nidle <= keep)
			break;
		/* A commit stores nodes without a reference: one that it has just stored may still be in its hands. */
		if (!list_empty(&n->dirty_link) || !rwlock_try_write(&n->rw))
			continue;
		rwlock_drop(&n->rw);
		idle_remove(fs, n);
		table_remove(fs, n);
		ext4_drop_window(n);
		node_free(n);
	}
}

static uint64_t now_ms(void)
{
	return now_ns() / 1000000;
}

/* A while, whoever calls. */
static void rest(struct ext4_fs *fs) REQUIRES(fs->table_mu)
{
	uint64_t until = now_ms() + WRITE_BEHIND_MS, now;

	while (!fs->stopping && (now = now_ms()) < until)
		cond_wait_ms(&fs->table_cond, &fs->table_mu, (uint32_t)(until - now));
}

/* Nothing is changed any more in an image that was cut short, or that nobody will find again. What was done before goes where its data
 * is, for whoever copies that. */
static void look_at_image(struct ext4_fs *fs) NO_THREAD_SAFETY
{
	int err = cache_dev_look(fs->dev);

	if (!err || fs->fs.read_only || atomic_load(&fs->failed))
		return;
	if (err == -ESTALE)
		(void)ext4_op_sync(&fs->fs);
	ext4_journal_fail(fs, err, "the image is not what it was");
}

/* Until there is something to do: the time since nodes were stored, and since the image was looked at, says when. */
static void await_work(struct ext4_fs *fs, uint64_t stored, uint64_t looked) REQUIRES(fs->table_mu)
{
	uint64_t now = now_ms(), next = min_u64(stored + WRITE_BEHIND_MS, looked + LOOK_MS);

	if (list_empty(&fs->reap) && fs->nidle <= IDLE_MAX && now < next)
		cond_wait_ms(&fs->table_cond, &fs->table_mu, (uint32_t)(next - now));
}

static void *housekeeper(void *arg) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = arg;
	uint64_t stored = now_ms(), looked = stored;
	int err = 0;

	lock_take(&fs->table_mu);
	while (!fs->stopping) {
		await_work(fs, stored, looked);
		if (!fs->stopping && now_ms() - looked >= LOOK_MS) {
			lock_drop(&fs->table_mu);
			look_at_image(fs);
			lock_take(&fs->table_mu);
			looked = now_ms();
		}
		if (!list_empty(&fs->reap) && !fs->stopping)
			cond_wait_ms(&fs->table_cond, &fs->table_mu, GATHER_MS);
		while (!list_empty(&fs->reap) && !fs->stopping) {
			bool ok;

			lock_drop(&fs->table_mu);
			ok = reap_some(fs);
			lock_take(&fs->table_mu);
			if (!ok) { /* the file system takes no more changes: they stay where they are */
				cond_wait_ms(&fs->table_cond, &fs->table_mu, WRITE_BEHIND_MS);
				break;
			}
		}
		if (fs->stopping)
			break;
		if (now_ms() - stored >= WRITE_BEHIND_MS || fs->nidle > IDLE_MAX) {
			stored = now_ms();
			lock_drop(&fs->table_mu);
			err = ext4_store_all(fs);
			if (err && err != -ENOSPC && !atomic_load(&fs->failed)) /* else that was said */
				log_warn("ext4: writing inodes: %s", strerror(-err));
			else if (!err && fs->trim)
				ext4_trim_now(fs);
			lock_take(&fs->table_mu);
		}
		evict_idle(fs, IDLE_MAX * 3 / 4);
		/* They cannot be stored any more, and stay: looking again at once would be all that this thread does. */
		if (fs->nidle > IDLE_MAX && (err || atomic_load(&fs->failed)))
			rest(fs);
	}
	lock_drop(&fs->table_mu);
	return NULL;
}

int ext4_table_init(struct ext4_fs *fs) NO_THREAD_SAFETY
{
	lock_init(&fs->table_mu);
	cond_init(&fs->table_cond);
	list_init(&fs->idle);
	list_init(&fs->dirty);
	list_init(&fs->reap);
	fs->table_mask = 1023;
	fs->table = calloc(fs->table_mask + 1, sizeof(struct ext4_node *));
	if (!fs->table)
		return -ENOMEM;
	return -pthread_create(&fs->housekeeper, NULL, housekeeper, fs);
}

int ext4_table_fini(struct ext4_fs *fs) NO_THREAD_SAFETY
{
	int err;

	lock_take(&fs->table_mu);
	fs->stopping = true;
	cond_broadcast(&fs->table_cond);
	lock_drop(&fs->table_mu);
	pthread_join(fs->housekeeper, NULL);
	while (!list_empty(&fs->reap) && reap_some(fs))
		;
	for (uint32_t i = 0; i <= fs->table_mask; i++)
		for (struct ext4_node *n = fs->table[i]; n; n = n->hash_next)
			ext4_drop_window(n);
	err = ext4_store_all(fs);
	/* What an operation changed could not be stored: the transaction would be half of it. */
	if (!list_empty(&fs->logged))
		ext4_journal_fail(fs, err ? err : -EIO, "storing inodes at the end");
	while (!list_empty(&fs->logged))
		ext4_logged_remove(fs, list_first(&fs->logged, struct ext4_node, logged_link));
	for (uint32_t i = 0; i <= fs->table_mask; i++)
		while (fs->table[i]) {
			struct ext4_node *n = fs->table[i];

			fs->table[i] = n->hash_next;
			node_free(n);
		}
	free(fs->table);
	cond_fini(&fs->table_cond);
	lock_fini(&fs->table_mu);
	return err;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * readdir.c - listing a directory with cookies that stay good while names come and go
 *
 * A cookie says where an entry stands in an order that other entries cannot change:
 *
 *   hashed directories, and linear ones of one block where dir_index is on (those become hashed when they grow, perhaps
 *   while somebody lists them): by hash,
 *
 *       bit 63 0 | major >> 1, 31 bits | upper 28 bits of minor | 3 + rank, 4 bits
 *
 *   where rank counts the entries that agree in the 59 bits before it. Among 100,000 names such a pair exists with a
 *   probability of 1 to 100 million; only for it can a removal between two calls matter. Legacy hashes have no minor: ours
 *   takes its place (ext4_name_hash()).
 *
 *   other linear directories: by position, block << block_bits | offset of the entry, + 4. Entries of linear directories
 *   never move.
 *
 * So cookies are > 2 and < 2^63. Which order is used never changes in the life of a directory unless it is rebuilt by
 * e2fsck -D or the feature is switched, both with the file system unmounted.
 *
 * Hashed: one leaf at a time is hashed and sorted (with those that continue it), what lies before the cookie is skipped.
 * A call starts at the leaf of its cookie, so listing in pieces costs one leaf more per piece.
 *
 * A hashed directory that is listed again and did not change between is likely to be listed once more: then the order of all
 * its entries is kept (within limits), until the first change.
 */
#include "vhd/ext4/dir_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vhd/base/checked.h"

enum {
	RANK_BITS = 4,
	RANK_FIRST = 3, /* so that no cookie is 0, 1 or 2 */
	RANK_LAST = 15,
	BATCH_MAX = 1 << 20,   /* entries of one hash and their neighbours */
	NOWAIT_LEAVES = 256,   /* leaves without a name to show, on an event loop */
	NOWAIT_ORDER = 64,     /* leaves that are put in order on an event loop */
	ORDER_MAX = 1 << 16,   /* entries of a directory whose order is kept */
	ORDER_BYTES = 8 << 20, /* of all orders of a file system */
};

struct item {
	uint64_t key; /* the cookie with rank 0 */
	uint32_t lblk;
	uint32_t off;
};

struct ext4_order {
	uint32_t n;
	struct item item[];
};
/* The directory was listed, and did not change since. */
static struct ext4_order listed_once;

struct listing {
	struct ext4_node *dir;
	unsigned flags;
	fs_emit_fn *emit;
	void *arg;
	uint64_t cookie; /* after this */
	uint64_t taken;  /* entries */
	bool full;       /* emit had enough */

	uint8_t version;
	bool ordering; /* nothing is shown yet: the items are collected for an order */
	struct item *item;
	uint32_t n, room;
	/* The block that is pinned now. */
	struct cache_seg pin;
	uint32_t pinned;
	bool has_pin;
};

static void unpin(struct listing *l)
{
	if (l->has_pin)
		cache_unpin(&l->pin, 1);
	l->has_pin = false;
}

static int pin(struct listing *l, uint32_t lblk) REQUIRES_SHARED(l->dir->rw)
{
	int err;

	if (l->has_pin && l->pinned == lblk)
		return 0;
	unpin(l);
	err = ext4_dir_pin(l->dir, lblk, EXT4_BLK_LEAF, l->flags, &l->pin);
	if (err)
		return err;
	l->has_pin = true;
	l->pinned = lblk;
	return 0;
}

static bool is_dots(const struct ext4_dent *d)
{
	return d->len <= 2 && memcmp(d->name, "..", d->len) == 0;
}

static void show(struct listing *l, const struct ext4_dent *d, uint64_t cookie)
{
	struct fs_dirent e = {.cookie = cookie, .ino = d->ino, .name = d->name, .len = d->len};

	if (l->emit(l->arg, &e))
		l->taken++;
	else
		l->full = true;
}

/* ---- in the order of hashes ---------------------------------------------------------------------------------------------- */

static uint64_t key_of(const struct ext4_hash *h)
{
	return ((uint64_t)(h->major >> 1) << 32 | h->minor) >> RANK_BITS << RANK_BITS;
}

static int add_item(struct listing *l, uint64_t key, uint32_t lblk, uint32_t off)
{
	if (l->n == l->room) {
		uint32_t room = l->room ? 2 * l->room : 256;
		struct item *p = l->room < BATCH_MAX ? realloc(l->item, room * sizeof *p) : NULL;

		if (!p)
			return -ENOMEM;
		l->item = p;
		l->room = room;
	}
	l->item[l->n++] = (struct item){.key = key, .lblk = lblk, .off = off};
	return 0;
}

/* The entries of a leaf that are not before the cookie. Hashes outside [from, to] do not belong here. */
static int collect(struct listing *l, uint32_t lblk, uint32_t from, uint32_t to) REQUIRES_SHARED(l->dir->rw)
{
	const struct ext4_dirfmt *f = ext4_dirfmt_of(l->dir);
	const uint64_t first = l->cookie >> RANK_BITS << RANK_BITS;
	struct ext4_dent d;
	int r = pin(l, lblk);

	if (r)
		return r;
	for (uint32_t off = 0; (r = ext4_dirblk_next(f, l->pin.base, off, &d)) > 0; off += d.rec_len) {
		struct ext4_hash h;

		if (!d.ino || is_dots(&d))
			continue;
		ext4_name_hash(f, l->version, d.name, d.len, &h);
		if (h.major < from || h.major > to)
			return -EUCLEAN;
		if (key_of(&h) >= first && (r = add_item(l, key_of(&h), lblk, off)) < 0)
			return r;
	}
	return r;
}

static int by_key(const void *pa, const void *pb)
{
	const struct item *a = pa, *b = pb;

	if (a->key != b->key)
		return a->key < b->key ? -1 : 1;
	if (a->lblk != b->lblk)
		return a->lblk < b->lblk ? -1 : 1;
	return a->off < b->off ? -1 : a->off > b->off;
}

/* Sorted items from the first that is not before the cookie's key. */
static int show_sorted(struct listing *l, const struct item *item, uint32_t n) REQUIRES_SHARED(l->dir->rw)
{
	uint32_t rank = RANK_FIRST;
	int err = 0;

	for (uint32_t i = 0; !err && !l->full && i < n; i++) {
		const struct item *it = &item[i];
		struct ext4_dent d;

		rank = i && it->key == item[i - 1].key ? rank + (rank < RANK_LAST) : RANK_FIRST;
		if ((it->key | rank) <= l->cookie)
			continue;
		err = pin(l, it->lblk);
		if (!err && ext4_dirblk_next(ext4_dirfmt_of(l->dir), l->pin.base, it->off, &d) != 1)
			err = -EUCLEAN;
		if (!err)
			show(l, &d, it->key | rank);
	}
	return err;
}

static void sort_items(struct listing *l)
{
	if (l->n)
		qsort(l->item, l->n, sizeof *l->item, by_key);
}

static int show_items(struct listing *l) REQUIRES_SHARED(l->dir->rw)
{
	int err;

	sort_items(l);
	err = show_sorted(l, l->item, l->n);
	l->n = 0;
	return err;
}

/* The path's leaf and those that continue it. 1 when the path stands at a leaf still to be listed, 0 at the end. */
static int list_leaf(struct listing *l, struct ext4_dx_path *p, uint32_t *from) REQUIRES_SHARED(l->dir->rw)
{
	uint32_t next = 0;
	int r, more;

	do {
		uint32_t to = UINT32_MAX;

		more = ext4_dx_peek(p, &next);
		if (more)
			to = next & 1 || !next ? next & ~1u : next - 1;
		r = collect(l, ext4_dx_leaf(p), *from & ~1u, to);
		if (!r && more)
			r = ext4_dx_step(l->dir, l->flags, p);
		*from = next;
	} while (r > 0 && next & 1);
	if (r >= 0 && !l->ordering) {
		int err = show_items(l);

		r = err ? err : r;
	}
	return r;
}

static int list_hashed(struct listing *l) REQUIRES_SHARED(l->dir->rw)
{
	struct ext4_dx_path p;
	unsigned idle = 0;
	uint32_t from = 0;
	int r = ext4_dx_open(l->dir, l->flags, &p);

	if (!r) {
		/* The index has its own limit for a walk; listing one leaf after the other has its own. */
		p.steps = ext4_dir_blocks(l->dir);
		l->version = p.version;
		r = ext4_dx_descend(l->dir, (uint32_t)(l->cookie >> 31) & ~1u, l->flags, &p);
	}
	if (!r) {
		from = ext4_dx_here(&p);
		r = 1;
	}
	while (r > 0 && !l->full && !(l->ordering && l->n > ORDER_MAX)) {
		uint64_t before = l->taken;

		r = list_leaf(l, &p, &from);
		idle = l->taken == before ? idle + 1 : 0;
		if (r > 0 && l->flags & FS_NOWAIT && idle > NOWAIT_LEAVES)
			r = -EAGAIN;
	}
	ext4_dx_drop(&p);
	return r < 0 ? r : 0;
}

/* ---- the order of all entries ------------------------------------------------------------------------------------------- */

static size_t order_size(const struct ext4_order *o)
{
	return sizeof *o + o->n * sizeof o->item[0];
}

static void order_free(struct ext4_fs *fs, struct ext4_order *o)
{
	if (!o || o == &listed_once)
		return;
	atomic_fetch_sub(&fs->order_bytes, order_size(o));
	free(o);
}

void ext4_order_drop(struct ext4_node *dir)
{
	if (atomic_load_explicit(&dir->order, memory_order_relaxed))
		order_free(ext4_fs_of_node(dir), atomic_exchange(&dir->order, NULL));
}

/* Another lister may have been faster; then its order is as good. */
static struct ext4_order *order_keep(struct listing *l) REQUIRES_SHARED(l->dir->rw)
{
	struct ext4_fs *fs = ext4_fs_of_node(l->dir);
	struct ext4_order *o, *was = &listed_once;

	o = malloc(sizeof *o + l->n * sizeof o->item[0]);
	if (!o)
		return NULL;
	o->n = l->n;
	memcpy(o->item, l->item, l->n * sizeof o->item[0]);
	atomic_fetch_add(&fs->order_bytes, order_size(o));
	if (atomic_compare_exchange_strong(&l->dir->order, &was, o))
		return o;
	order_free(fs, o);
	return was;
}

/* The order, if there is one now: made by the second listing between two changes. NULL: list without, or *err. */
static const struct ext4_order *order_of(struct listing *l, int *err) REQUIRES_SHARED(l->dir->rw)
{
	struct ext4_fs *fs = ext4_fs_of_node(l->dir);
	struct ext4_order *o = atomic_load(&l->dir->order), *none = NULL;
	const uint64_t cookie = l->cookie;
	int r;

	if (!o) {
		if (!cookie) /* not one that goes on behind a change, as those do that delete what they list */
			atomic_compare_exchange_strong(&l->dir->order, &none, &listed_once);
		return NULL;
	}
	if (o != &listed_once)
		return o;
	if (ext4_dir_blocks(l->dir) > ORDER_MAX / 16 || atomic_load(&fs->order_bytes) > ORDER_BYTES)
		return NULL;
	if (l->flags & FS_NOWAIT && ext4_dir_blocks(l->dir) > NOWAIT_ORDER) {
		*err = -EAGAIN;
		return NULL;
	}
	l->ordering = true;
	l->cookie = 0;
	r = list_hashed(l);
	l->ordering = false;
	l->cookie = cookie;
	o = NULL;
	if (!r && l->n <= ORDER_MAX) {
		sort_items(l);
		o = order_keep(l);
	}
	l->n = 0;
	*err = r == -EAGAIN ? r : 0; /* what is readable of a damaged directory is shown the other way */
	return o;
}

static int list_ordered(struct listing *l, const struct ext4_order *o) REQUIRES_SHARED(l->dir->rw)
{
	const uint64_t first = l->cookie >> RANK_BITS << RANK_BITS;
	uint32_t lo = 0, hi = o->n;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (o->item[mid].key < first)
			lo = mid + 1;
		else
			hi = mid;
	}
	return show_sorted(l, o->item + lo, o->n - lo);
}

static int list_small(struct listing *l) REQUIRES_SHARED(l->dir->rw)
{
	const struct ext4_dirfmt *f = ext4_dirfmt_of(l->dir);
	int r;

	l->version = (uint8_t)(f->hash_version + f->hash_unsigned);
	r = collect(l, 0, 0, UINT32_MAX);
	return r ? r : show_items(l);
}

/* ---- in the order of blocks ----------------------------------------------------------------------------------------------- */

static int list_linear(struct listing *l) REQUIRES_SHARED(l->dir->rw)
{
	const struct ext4_dirfmt *f = ext4_dirfmt_of(l->dir);
	const uint32_t bits = ext4_fs_of_node(l->dir)->block_bits;
	const uint64_t blocks = min_u64(ext4_dir_blocks(l->dir), f->blocks_max);
	unsigned idle = 0;
	int r = 0;

	for (uint64_t lblk = l->cookie >> bits; !r && !l->full && lblk < blocks; lblk++) {
		uint64_t before = l->taken;
		struct ext4_dent d;

		r = pin(l, (uint32_t)lblk);
		if (r)
			break;
		if (ext4_dir_is_index(l->dir, (uint32_t)lblk, l->pin.base))
			continue;
		for (uint32_t off = 0; !l->full && (r = ext4_dirblk_next(f, l->pin.base, off, &d)) > 0;
		     off += d.rec_len)
			if (d.ino && !is_dots(&d) && (lblk << bits | off) >= l->cookie)
				show(l, &d, (lblk << bits | off) + 4);
		idle = l->taken == before ? idle + 1 : 0;
		if (!r && !l->full && l->flags & FS_NOWAIT && idle > NOWAIT_LEAVES)
			r = -EAGAIN;
	}
	return r < 0 ? r : 0;
}

static bool show_inline(void *arg, const struct ext4_dent *d, uint64_t cookie)
{
	struct listing *l = arg;

	show(l, d, cookie);
	return !l->full;
}

/* ---- the operation ---------------------------------------------------------------------------------------------------------- */

static int list(struct listing *l) REQUIRES_SHARED(l->dir->rw)
{
	uint64_t blocks = ext4_dir_blocks(l->dir);

	if (!l->dir->inode.i_links_count)
		return -ENOENT;
	if (ext4_is_inline(l->dir))
		return ext4_inline_list(l->dir, l->cookie, show_inline, l);
	if (!blocks)
		return -EUCLEAN;
	if (ext4_dir_hashed(l->dir)) {
		const struct ext4_order *o;
		int err = 0;

		o = order_of(l, &err);
		return err ? err : o ? list_ordered(l, o) : list_hashed(l);
	}
	return blocks == 1 && ext4_dirfmt_of(l->dir)->has_index ? list_small(l) : list_linear(l);
}

int ext4_op_readdir(struct fs_node *dir, uint64_t cookie, unsigned flags, fs_emit_fn *emit, void *arg, bool *eof)
{
	struct listing l = {.dir = ext4_node_of(dir), .flags = flags, .emit = emit, .arg = arg, .cookie = cookie};
	int err;

	*eof = false;
	if (dir->type != FS_DIR)
		return -ENOTDIR;
	if (!(flags & FS_NOWAIT))
		rwlock_read(&l.dir->rw);
	else if (!rwlock_try_read(&l.dir->rw))
		return -EAGAIN;
	err = list(&l);
	unpin(&l);
	rwlock_drop(&l.dir->rw);
	free(l.item);
	/* What was shown was shown; the next call meets the error again. */
	if (err && l.taken)
		return 0;
	*eof = !err && !l.full;
	return err;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * data.c - reading and writing file data
 *
 * A write finds its blocks in memory (alloc.c), puts the data at its final place in the block cache, and notes the new
 * runs in the map as pending; the tree follows at commit or by write-behind (extent.c). So a write needs node->rw and
 * nothing else, and runs on an event loop when map and cache allow.
 *
 * Bytes behind the end of file in its last block are zeros in memory and, before any size that shows them, on the disk: fresh
 * blocks are written whole, and cutting a file zeroes the rest of its last block. What was there when the file came into memory may
 * be anything: data of a write whose size a crash took back, or what a program of another system put there through a mapping. So
 * it is looked at before the file grows for the first time (ext4_clean_tail()).
 */
#include <errno.h>
#include <string.h>

#include "vhd/base/checked.h"
#include "vhd/base/zero.h"
#include "vhd/ext4/journal.h"

#define CREDITS_COMMIT 64u
#define ORDER_SMALL (64u << 10)
#define WINDOW_FIRST (64u << 10)
#define WINDOW_MAX (8u << 20)
#define RESERVE_MAX (64u << 20) /* bytes that advice reserves at most, … */
#define DOWN_RUNS 32u           /* of a file, read ahead downwards at a time */
#define RESERVE_SHARE 16u       /* … and of the free space one part in so many */

static uint8_t zeros[CACHE_FRAME];

uint64_t ext4_max_size(const struct ext4_node *n)
{
	const struct ext4_fs *fs = container_of(n->n.fs, struct ext4_fs, fs);
	uint64_t per = fs->block_size / 4;

	if (n->inode.i_flags & EXT4_EXTENTS_FL)
		return (uint64_t)(UINT32_MAX - 1) << fs->block_bits;
	/* Direct, single, double and triple indirect blocks; i_blocks has 32 bits of sectors. */
	return min_u64((12 + per + per * per + per * per * per) << fs->block_bits, UINT64_C(1) << 41);
}

/* The map, and the node's lock. Loading the map needs fs->mu, which comes before the lock. */
static int lock_mapped(struct ext4_node *n, unsigned flags, bool exclusive) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);

	for (;;) {
		int err;

		if (flags & FS_NOWAIT) {
			if (!(exclusive ? rwlock_try_write(&n->rw) : rwlock_try_read(&n->rw)))
				return -EAGAIN;
		} else if (exclusive) {
			rwlock_write(&n->rw);
		} else {
			rwlock_read(&n->rw);
		}
		if (n->map)
			return 0;
		rwlock_drop(&n->rw);
		if (flags & FS_NOWAIT)
			return -EAGAIN;
		lock_take(&fs->mu);
		rwlock_write(&n->rw);
		err = n->map ? 0 : ext4_map_load(n);
		rwlock_drop(&n->rw);
		lock_drop(&fs->mu);
		if (err)
			return err;
	}
}

/* ---- reading ------------------------------------------------------------------------------------------------------------ */

static unsigned cache_flags(unsigned flags)
{
	return (flags & FS_NOWAIT ? CACHE_NOWAIT : 0) | (flags & FS_WHO(UINT16_MAX));
}

static int read_hole(struct cache_seg *seg, unsigned max, uint32_t len)
{
	unsigned k = 0;

	for (; len; k++) {
		uint32_t here = len < sizeof zeros ? len : (uint32_t)sizeof zeros;

		if (k == max)
			return -EINVAL;
		seg[k] = (struct cache_seg){.base = zeros, .len = here};
		len -= here;
	}
	return (int)k;
}

/* [off, off + len) lies inside the file. */
static int read_runs(struct ext4_node *n, uint64_t off, uint32_t len, unsigned flags, struct cache_seg *seg,
		     unsigned max) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	unsigned got = 0;

	while (len) {
		uint32_t in = (uint32_t)(off & (fs->block_size - 1)), here;
		struct ext4_ext run;
		int k;

		ext4_map_at(n->map, (uint32_t)(off >> fs->block_bits),
			    (len + in + fs->block_size - 1) >> fs->block_bits, &run);
		here = (uint32_t)min_u64(len, ((uint64_t)run.len << fs->block_bits) - in);
		if (!run.pblk || run.flags & EXT_UNWRITTEN)
			k = read_hole(seg + got, max - got, here);
		else
			k = cache_pin(fs->dev, (run.pblk << fs->block_bits) + in, here, cache_flags(flags), seg + got,
				      max - got);
		if (k < 0) {
			cache_unpin(seg, got);
			return k;
		}
		got += (unsigned)k;
		off += here;
		len -= here;
	}
	return (int)got;
}

int ext4_op_resident(struct fs_node *fn, uint64_t *bytes) NO_THREAD_SAFETY
{
	struct ext4_node *n = ext4_node_of(fn);
	struct ext4_fs *fs = ext4_fs_of_node(n);
	uint64_t at = 0, end = 1;
	int err;

	*bytes = 0;
	if (fn->type != FS_REG)
		return -EINVAL;
	/* Run by run: the file may be large, and others want it. */
	while (at < end) {
		struct ext4_ext run;

		if ((err = lock_mapped(n, 0, false)) < 0)
			return err;
		end = (ext4_size(&n->inode) + fs->block_size - 1) >> fs->block_bits;
		if (at < end)
			ext4_map_at(n->map, (uint32_t)at, (uint32_t)min_u64(end - at, UINT32_MAX), &run);
		rwlock_drop(&n->rw);
		if (at >= end)
			break;
		if (run.pblk && !(run.flags & EXT_UNWRITTEN))
			*bytes += cache_resident(fs->dev, run.pblk << fs->block_bits,
						 (uint64_t)run.len << fs->block_bits);
		at += run.len;
	}
	return 0;
}

/* As relatime: when the file changed since it was last read, or a day passed. */
static bool is_atime_due(const struct ext4_node *n) REQUIRES_SHARED(n->rw)
{
	const struct ext4_fs *fs = container_of(n->n.fs, struct ext4_fs, fs);
	int64_t a = n->inode.i_atime;

	if (!fs->relatime || fs->fs.read_only || n->inode.i_flags & EXT2_NOATIME_FL)
		return false;
	return a <= n->inode.i_mtime || a <= n->inode.i_ctime || ext4_now().sec - a >= 86400;
}

static void touch_atime(struct ext4_node *n, unsigned flags) NO_THREAD_SAFETY
{
	if (flags & FS_NOWAIT ? !rwlock_try_write(&n->rw) : (rwlock_write(&n->rw), false))
		return;
	if (is_atime_due(n)) /* still: others read it, too */
		ext4_node_touch_later(n, EXT4_T_A);
	rwlock_drop(&n->rw);
}

int ext4_op_read(struct fs_node *fn, uint64_t off, uint32_t len, unsigned flags, struct cache_seg *seg, unsigned max,
		 bool *eof) NO_THREAD_SAFETY
{
	struct ext4_node *n = ext4_node_of(fn);
	uint64_t size;
	int k = 0, err;
	bool due;

	if (fn->type != FS_REG)
		return fn->type == FS_DIR ? -EISDIR : -EINVAL;
	if ((err = lock_mapped(n, flags, false)) < 0)
		return err;
	size = ext4_size(&n->inode);
	due = is_atime_due(n);
	if (due && off < size && len && !(flags & FS_NOWAIT)) {
		/* Now: who waits for the lock must hold no pins, since who has it may be waiting for memory. */
		rwlock_drop(&n->rw);
		touch_atime(n, flags);
		if ((err = lock_mapped(n, flags, false)) < 0)
			return err;
		size = ext4_size(&n->inode);
		due = false;
	}
	if (off < size && len && ext4_is_inline(n))
		k = ext4_inline_read(n, off, (uint32_t)min_u64(len, size - off), cache_flags(flags), seg, max);
	else if (off < size && len)
		k = read_runs(n, off, (uint32_t)min_u64(len, size - off), flags, seg, max);
	*eof = off >= size || len >= size - off;
	rwlock_drop(&n->rw);
	if (k > 0 && due)
		touch_atime(n, flags);
	return k;
}

int ext4_op_readlink(struct fs_node *fn, unsigned flags, char *buf, uint32_t cap) NO_THREAD_SAFETY
{
	struct ext4_node *n = ext4_node_of(fn);
	struct ext4_fs *fs = ext4_fs_of_node(n);
	struct cache_seg seg;
	uint64_t size;
	int err;

	if (fn->type != FS_LNK)
		return -EINVAL;
	if ((err = lock_mapped(n, flags, false)) < 0)
		return err;
	size = ext4_size(&n->inode);
	if (size == 0 || size >= fs->block_size || size > cap) {
		err = size > cap ? -ERANGE : -EUCLEAN;
	} else if (ext4_is_inline(n)) {
		err = ext4_inline_copy(n, (uint8_t *)buf, (uint32_t)size);
	} else if (!n->map->n) {
		if (size < sizeof n->inode.i_block)
			memcpy(buf, n->inode.i_block, size);
		else
			err = -EUCLEAN;
	} else if ((err = ext4_bpin(n, 0, flags, &seg)) == 0) {
		memcpy(buf, seg.base, size);
		cache_unpin(&seg, 1);
	}
	rwlock_drop(&n->rw);
	return err ? err : (int)size;
}

/* ---- blocks for new data --------------------------------------------------------------------------------------------------- */

static uint64_t goal_for(struct ext4_node *n, uint32_t lblk) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	struct ext4_ext run;

	/* Behind the extent before, as far as the hole is long; else where the inode is. */
	if (lblk > 0) {
		ext4_map_at(n->map, lblk - 1, 1, &run);
		if (run.pblk)
			return run.pblk + 1;
	}
	if (n->map->n)
		return n->map->e[n->map->n - 1].pblk + n->map->e[n->map->n - 1].len;
	return ext4_goal_of_inode(fs, n->n.ino);
}

/* A run of at most @want blocks for the hole at lblk: from the window when it continues there, else from a new one, which
 * is larger each time the last one was used up. */
static int take_blocks(struct ext4_node *n, uint32_t lblk, uint32_t want, struct ext4_ext *run) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	int err;

	if (!n->pa_len || n->pa_lblk != lblk) {
		uint32_t size = WINDOW_FIRST >> fs->block_bits, max = WINDOW_MAX >> fs->block_bits;
		uint64_t left = ext4_alloc_left(fs);

		if (n->pa_lblk == lblk && n->pa_size) /* used up to the end: a sequential writer */
			size = n->pa_size * 2 < max ? n->pa_size * 2 : max;
		ext4_drop_window(n);
		if (size < 1 || (uint64_t)size * 64 > left) /* little room: do not hoard */
			size = 1;
		n->pa_size = size;
		size = size > want ? size : want;
		err = ext4_alloc_run(fs, goal_for(n, lblk), size, true, &n->pa_pblk, &n->pa_len);
		if (err)
			return err;
		n->pa_lblk = lblk;
	}
	*run = (struct ext4_ext){
		.pblk = n->pa_pblk,
		.lblk = lblk,
		.len = want < n->pa_len ? want : n->pa_len,
		.flags = EXT_PENDING,
	};
	return 0;
}

/* The run is used: it leaves the window. */
static void keep_blocks(struct ext4_node *n, uint32_t len) NO_THREAD_SAFETY
{
	n->pa_pblk += len;
	n->pa_lblk += len;
	n->pa_len -= len;
}

/* ---- behind the end of file --------------------------------------------------------------------------------------------------- */

static void note_zeroed(struct ext4_node *n, uint64_t from, uint64_t to) REQUIRES(n->rw)
{
	n->zeroed_from = n->zeroed_to ? min_u64(n->zeroed_from, from) : from;
	n->zeroed_to = max_u64(n->zeroed_to, to);
}

/* The bytes at @pos of the volume, in one frame at most, if they are no zeros yet. Zeros in memory are on the disk before whatever is
 * stored from now on: who put them there saw to it. */
static int zero_piece(struct ext4_node *n, uint64_t off, uint64_t pos, uint32_t len, unsigned flags) REQUIRES(n->rw)
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	struct cache_seg seg[2];
	bool zero = true;
	int k = cache_pin(fs->dev, pos, len, cache_flags(flags), seg, ARRAY_LEN(seg));

	if (k < 0)
		return k;
	for (int i = 0; i < k; i++)
		zero &= mem_is_zero(seg[i].base, seg[i].len);
	cache_unpin(seg, (unsigned)k);
	if (zero)
		return 0;
	note_zeroed(n, off, off + len);
	return cache_zero(fs->dev, pos, len, cache_flags(flags));
}

/* What is written of [off, end) in the file's blocks becomes zeros. */
static int zero_written(struct ext4_node *n, uint64_t off, uint64_t end, unsigned flags) REQUIRES(n->rw)
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	int err = 0;

	while (off < end && !err) {
		uint32_t in = (uint32_t)(off & (fs->block_size - 1)), lblk = (uint32_t)(off >> fs->block_bits);
		struct ext4_ext run;
		uint64_t here;

		ext4_map_at(n->map, lblk, UINT32_MAX - lblk, &run);
		here = min_u64(end - off, ((uint64_t)run.len << fs->block_bits) - in);
		if (run.pblk && !(run.flags & EXT_UNWRITTEN)) {
			here = min_u64(here, CACHE_FRAME);
			err = zero_piece(n, off, (run.pblk << fs->block_bits) + in, (uint32_t)here, flags);
		}
		off += here;
	}
	return err;
}

/* Has the file written blocks from @lblk on? No system of good health leaves such behind its end. */
static bool is_written_from(const struct ext4_map *m, uint64_t lblk)
{
	for (uint32_t i = m->n; i-- > 0 && (uint64_t)m->e[i].lblk + m->e[i].len > lblk;)
		if (!(m->e[i].flags & EXT_UNWRITTEN))
			return true;
	return false;
}

int ext4_clean_tail(struct ext4_node *n, uint64_t end, unsigned flags)
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	uint64_t size = ext4_size(&n->inode);
	int err;

	if (n->tail_clean || ext4_journal_mutation & JOURNAL_DIRTY_TAIL)
		return 0;
	end = round_up_u64(max_u64(size, end), fs->block_size);
	if ((err = zero_written(n, size, end, flags)) < 0)
		return err;
	n->tail_clean = !is_written_from(n->map, end >> fs->block_bits);
	return 0;
}

/* ---- writing ------------------------------------------------------------------------------------------------------------------ */

#define SLICE_MAX 32

/* The caller's bytes, consumed in order. */
struct bytes {
	const struct iovec *iov;
	int niov;
	size_t done;
};

/* The next len bytes as an iovec; -1 when they lie in too many pieces. Does not consume. */
static int slice(const struct bytes *b, uint32_t len, struct iovec *out, int max)
{
	const struct iovec *v = b->iov;
	size_t skip = b->done;
	int k = 0;

	for (; len; v++, skip = 0) {
		size_t here = v->iov_len - skip;

		here = here < len ? here : len;
		if (!here)
			continue;
		if (k == max)
			return -1;
		out[k++] = (struct iovec){(char *)v->iov_base + skip, here};
		len -= (uint32_t)here;
	}
	return k;
}

static void consume(struct bytes *b, uint32_t len)
{
	while (len) {
		size_t here = b->iov->iov_len - b->done;

		if (here > len) {
			b->done += len;
			return;
		}
		len -= (uint32_t)here;
		b->iov++;
		b->done = 0;
	}
}

/* Put [off, off + len) at its place. A fresh run is written whole, with zeros around the bytes. */
static int put_bytes(struct ext4_node *n, const struct ext4_ext *run, bool fresh, uint64_t off, uint32_t len,
		     const struct bytes *b, unsigned flags)
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	uint32_t bs = fs->block_size, head = (uint32_t)(off & (bs - 1)), tail = fresh ? -(head + len) & (bs - 1) : 0;
	struct iovec iov[SLICE_MAX + 2];
	int k = 0, s;

	if (fresh && head)
		iov[k++] = (struct iovec){zeros, head};
	s = slice(b, len, iov + k, SLICE_MAX);
	if (s < 0)
		return -EINVAL;
	k += s;
	if (tail)
		iov[k++] = (struct iovec){zeros, tail};
	if (!fresh)
		return cache_writev(fs->dev, iov, k, len, (run->pblk << fs->block_bits) + head, cache_flags(flags));
	return cache_writev(fs->dev, iov, k, (size_t)head + len + tail, run->pblk << fs->block_bits,
			    cache_flags(flags));
}

/* One run of the range: mapped, unwritten, or a hole that gets blocks. How many bytes, or a negative errno. */
static int64_t write_run(struct ext4_node *n, uint64_t off, uint32_t len, const struct bytes *b,
			 unsigned flags) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	uint32_t in = (uint32_t)(off & (fs->block_size - 1)), lblk = (uint32_t)(off >> fs->block_bits), here, blocks;
	struct ext4_ext run;
	bool fresh, hole;
	int err;

	ext4_map_at(n->map, lblk, (uint32_t)(((uint64_t)len + in + fs->block_size - 1) >> fs->block_bits), &run);
	hole = !run.pblk;
	if (hole && (err = take_blocks(n, lblk, run.len, &run)) < 0)
		return err;
	fresh = hole || run.flags & EXT_UNWRITTEN;
	here = (uint32_t)min_u64(len, ((uint64_t)run.len << fs->block_bits) - in);
	blocks = (in + here + fs->block_size - 1) >> fs->block_bits;
	if ((err = put_bytes(n, &run, fresh, off, here, b, flags)) < 0)
		return err;
	if (!fresh)
		return here;
	run.len = blocks;
	/* Unwritten in the tree: to be converted. Unwritten and pending itself: simply pending. */
	if (!hole)
		run.flags = run.flags & EXT_PENDING ? EXT_PENDING : EXT_CONVERT;
	if ((err = ext4_map_set(n->map, &run)) < 0)
		return err;
	if (hole) {
		keep_blocks(n, blocks);
		n->pending_blocks += blocks;
	}
	n->map_dirty = true;
	return here;
}

/* A write of [off, end) failed: what it needed for itself behind the end of file is given back, what it put there into blocks that
 * stay becomes zeros again. */
static void take_back(struct ext4_node *n, uint64_t off, uint64_t end, unsigned flags) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);

	if (n->map_dirty)
		ext4_map_undo(n, (uint32_t)((ext4_size(&n->inode) + fs->block_size - 1) >> fs->block_bits));
	for (off = max_u64(off, ext4_size(&n->inode)); off < end;) {
		uint32_t in = (uint32_t)(off & (fs->block_size - 1)), lblk = (uint32_t)(off >> fs->block_bits);
		struct ext4_ext run;
		uint64_t here;

		ext4_map_at(n->map, lblk, UINT32_MAX - lblk, &run);
		here = min_u64(end - off, ((uint64_t)run.len << fs->block_bits) - in);
		if (run.pblk && !(run.flags & EXT_UNWRITTEN)) {
			note_zeroed(n, off, off + here);
			if (cache_zero(fs->dev, (run.pblk << fs->block_bits) + in, here, cache_flags(flags)) < 0)
				n->tail_clean = false;
		}
		off += here;
	}
	if (n->zeroed_to)
		ext4_node_later(n); /* so that it stays in memory until they are on their way */
}

int ext4_op_write(struct fs_node *fn, uint64_t off, const struct iovec *iov, int niov, uint32_t len,
		  unsigned flags) NO_THREAD_SAFETY
{
	struct ext4_node *n = ext4_node_of(fn);
	struct ext4_fs *fs = ext4_fs_of_node(n);
	struct bytes b = {.iov = iov, .niov = niov};
	uint64_t end, at = off;
	int64_t done = 0;
	int err;

	if (fn->type != FS_REG)
		return fn->type == FS_DIR ? -EISDIR : -EINVAL;
	if (fn->fs->read_only)
		return -EROFS;
	if (atomic_load_explicit(&fs->failed, memory_order_relaxed))
		return -EIO;
	if (!add_ok(off, (uint64_t)len, &end) || end > ext4_max_size(n))
		return -EFBIG;
	if (len == 0)
		return 0;
	if ((err = ext4_caps_before_write(n, flags)) < 0 || (err = lock_mapped(n, flags, true)) < 0)
		return err;
	if (n->inode.i_flags & EXT2_IMMUTABLE_FL || (n->inode.i_flags & EXT2_APPEND_FL && off < ext4_size(&n->inode)))
		err = -EPERM;
	if (!err && end > ext4_size(&n->inode))
		err = ext4_clean_tail(n, end, flags);
	while (!err && at < end) {
		done = write_run(n, at, (uint32_t)(end - at), &b, flags);
		if (done < 0) {
			err = (int)done;
			break;
		}
		consume(&b, (uint32_t)done);
		at += (uint64_t)done;
	}
	if (!err) {
		if (end > ext4_size(&n->inode))
			ext4_set_size(n, end);
		ext4_node_touch_later(n, EXT4_T_M | EXT4_T_C);
	} else {
		if (done < 0 && err != -EAGAIN) /* else the same write comes again */
			take_back(n, off, end, flags);
		if (n->map_dirty)
			ext4_node_later(n); /* blocks inside the file stay: zeros where nothing was put */
	}
	rwlock_drop(&n->rw);
	return err;
}

/* ---- commit ------------------------------------------------------------------------------------------------------------------- */

/* Write back the data of [off, end) (0: to the end). The map is read in batches, without the lock during I/O. */
int ext4_write_back(struct ext4_node *n, uint64_t off, uint64_t end) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	uint64_t at = off >> fs->block_bits, last = end ? (end - 1) >> fs->block_bits : UINT64_MAX;

	last = min_u64(last, UINT32_MAX - 1); /* no file is longer, whoever asks for more */
	while (at <= last) {
		struct cache_range r[64];
		unsigned k = 0;
		int err;

		/* The map of a file that left memory and came back is not there, but dirty data of it may be. */
		if ((err = lock_mapped(n, 0, false)) < 0)
			return err;
		while (k < 64 && at <= last) {
			struct ext4_ext run;

			ext4_map_at(n->map, (uint32_t)at, (uint32_t)min_u64(last - at + 1, UINT32_MAX - at), &run);
			if (run.pblk && !(run.flags & EXT_UNWRITTEN))
				r[k++] = (struct cache_range){run.pblk << fs->block_bits,
							      (uint64_t)run.len << fs->block_bits};
			at += run.len;
		}
		rwlock_drop(&n->rw);
		if ((err = ext4_write_data(fs, r, k)) < 0)
			return err;
	}
	return 0;
}

/* With a journal: the file's inode and tree join the running transaction when they have to, and that, or the one that has them,
 * is waited for. */
static int commit_journal(struct ext4_node *n) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	bool joined;
	uint64_t tid;
	int err = ext4_op_begin(fs, CREDITS_COMMIT, 0);

	if (err)
		return err;
	rwlock_write(&n->rw);
	joined = n->dirty || n->map_dirty;
	err = ext4_node_store(n);
	tid = n->tid;
	rwlock_drop(&n->rw);
	err = ext4_op_end(fs, err);
	if (!err)
		err = ext4_journal_wait(fs, tid);
	/* The flushes of a transaction that was sealed before the data went out say nothing about it. */
	if (!err && !joined)
		err = cache_flush_device(fs->dev);
	return err ? err : cache_dev_error(fs->dev);
}

/* The data of [off, end) goes to the disk with the running transaction; @fresh: before it counts. */
static void order_runs(struct ext4_node *n, uint64_t off, uint64_t end, bool fresh) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	uint64_t last = (end - 1) >> fs->block_bits;

	for (uint64_t at = off >> fs->block_bits; at <= last;) {
		struct ext4_ext run;

		ext4_map_at(n->map, (uint32_t)at, (uint32_t)(last - at + 1), &run);
		if (run.pblk && !(run.flags & EXT_UNWRITTEN))
			ext4_journal_order(fs, run.pblk, run.len, fresh);
		at += run.len;
	}
}

void ext4_order_zeroed(struct ext4_node *n)
{
	if (n->zeroed_to && n->map && !(ext4_journal_mutation & JOURNAL_ZEROS_LATER))
		order_runs(n, n->zeroed_from, n->zeroed_to, true);
	n->zeroed_from = n->zeroed_to = 0;
}

int ext4_op_order(struct fs_node *fn, uint64_t off, uint64_t len, unsigned flags, uint64_t *change) NO_THREAD_SAFETY
{
	struct ext4_node *n = ext4_node_of(fn);
	struct ext4_fs *fs = ext4_fs_of_node(n);
	bool small = len && len <= ORDER_SMALL;
	uint64_t end;
	int err;

	if (!fs->journal || fn->type != FS_REG)
		return -ENOTSUP;
	if (!add_ok(off, len, &end))
		return -EINVAL;
	/* A small range goes with those of others; a large one here and now, beside others. */
	if (!small && flags & FS_NOWAIT)
		return -EAGAIN;
	if (!small && (err = ext4_write_back(n, off, len ? end : 0)) < 0)
		return err;
	if ((err = ext4_op_begin(fs, CREDITS_COMMIT, flags)) < 0)
		return err;
	if (!(flags & FS_NOWAIT))
		rwlock_write(&n->rw);
	else if (!rwlock_try_write(&n->rw))
		return ext4_op_end(fs, -EAGAIN);
	/* The tree may need blocks that must be read: not on an event loop. Nor the map, as above. */
	if (small && !n->map)
		err = flags & FS_NOWAIT ? -EAGAIN : ext4_map_load(n);
	if (!err && n->map_dirty)
		err = flags & FS_NOWAIT ? -EAGAIN : ext4_node_store(n);
	else if (!err && n->dirty)
		ext4_node_dirty(n);
	if (!err && small)
		order_runs(n, off, end, false);
	ext4_journal_flush(fs);
	*change = ext4_journal_running(fs);
	rwlock_drop(&n->rw);
	return ext4_op_end(fs, err);
}

int ext4_op_commit(struct fs_node *fn, uint64_t off, uint64_t len) NO_THREAD_SAFETY
{
	struct ext4_node *n = ext4_node_of(fn);
	struct ext4_fs *fs = ext4_fs_of_node(n);
	uint64_t end = 0, seq;
	bool metadata;
	int err;

	if (fs->fs.read_only)
		return 0;
	if (len && !add_ok(off, len, &end))
		end = 0;
	if (fn->type == FS_REG && (err = ext4_write_back(n, off, end)) < 0)
		return err;
	if (fs->journal)
		return commit_journal(n);
	lock_take(&fs->mu);
	rwlock_write(&n->rw);
	err = ext4_node_store(n);
	rwlock_drop(&n->rw);
	if (!err)
		err = ext4_write_groups(fs);
	/* The housekeeper or another commit may have put this file's metadata into the cache, and no further. */
	seq = fs->meta_seq;
	metadata = seq != fs->meta_flushed;
	lock_drop(&fs->mu);
	if (!err)
		err = cache_dev_error(fs->dev);
	/* Metadata blocks lie all over the device: everything dirty goes with them. */
	if (!err)
		err = metadata ? cache_flush(fs->dev) : cache_flush_device(fs->dev);
	if (!err && metadata) {
		lock_take(&fs->mu);
		fs->meta_flushed = max_u64(fs->meta_flushed, seq);
		lock_drop(&fs->mu);
	}
	return err;
}

/* ---- seek ------------------------------------------------------------------------------------------------------------------------ */

int ext4_op_seek(struct fs_node *fn, uint64_t off, enum fs_seek what, uint64_t *out) NO_THREAD_SAFETY
{
	struct ext4_node *n = ext4_node_of(fn);
	struct ext4_fs *fs = ext4_fs_of_node(n);
	uint64_t size, at;
	int err;

	if (fn->type != FS_REG)
		return -EINVAL;
	if ((err = lock_mapped(n, 0, false)) < 0)
		return err;
	size = ext4_size(&n->inode);
	err = -ENXIO;
	if (ext4_is_inline(n) && what == FS_SEEK_DATA && off < size) {
		*out = off;
		err = 0;
	}
	for (at = off; at < size && !ext4_is_inline(n);) {
		struct ext4_ext run;
		bool data;

		ext4_map_at(n->map, (uint32_t)(at >> fs->block_bits), UINT32_MAX - (uint32_t)(at >> fs->block_bits),
			    &run);
		data = run.pblk && !(run.flags & EXT_UNWRITTEN);
		if (data == (what == FS_SEEK_DATA)) {
			*out = at;
			err = 0;
			break;
		}
		at = ((uint64_t)run.lblk + run.len) << fs->block_bits;
	}
	if (err && what == FS_SEEK_HOLE && off < size) {
		*out = size;
		err = 0;
	}
	rwlock_drop(&n->rw);
	return err;
}

/* ---- advice ---------------------------------------------------------------------------------------------------------------------- */

/* One hint about a piece of the volume; false: no more can be taken on. */
static bool advise_run(struct ext4_fs *fs, const struct fs_hint *h, uint64_t from, uint64_t bytes, uint64_t *taken)
{
	struct cache_want want = {.tag = h->tag, .account = h->account, .down = h->down, .idle = h->how == FS_MAPS};
	struct cache_giver giver = {
		.who = h->who, .account = h->account, .alone = h->alone, .gently = h->how == FS_NOREUSE};

	*taken = bytes;
	if (h->how == FS_WILLNEED || h->how == FS_MAPS)
		*taken = cache_prefetch(fs->dev, from, bytes, &want);
	else
		cache_demote(fs->dev, from, bytes, &giver);
	return *taken == bytes;
}

/* A window for what will be written from the first hole of the range on. */
static int reserve(struct ext4_node *n, uint64_t off, uint64_t end, unsigned flags) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	uint64_t most = min_u64(RESERVE_MAX >> fs->block_bits, ext4_alloc_left(fs) / RESERVE_SHARE), want, lblk;
	struct ext4_ext run;
	int err;

	if (fs->fs.read_only)
		return -EROFS;
	lblk = off >> fs->block_bits;
	if (lblk >= UINT32_MAX - 1 || !most)
		return -ENOBUFS;
	if ((err = lock_mapped(n, flags, true)) < 0)
		return err;
	ext4_map_at(n->map, (uint32_t)lblk, (uint32_t)(UINT32_MAX - lblk), &run);
	if (run.pblk)
		lblk += run.len;
	want = end == UINT64_MAX ? most : round_up_u64(end, fs->block_size) >> fs->block_bits;
	want = min_u64(want > lblk ? want - lblk : 0, min_u64(most, UINT32_MAX - 1 - lblk));
	if (!want || (n->pa_len >= want && n->pa_lblk == lblk)) {
		rwlock_drop(&n->rw);
		return 0;
	}
	ext4_drop_window(n);
	err = ext4_alloc_run(fs, goal_for(n, (uint32_t)lblk), (uint32_t)want, true, &n->pa_pblk, &n->pa_len);
	if (!err) {
		n->pa_lblk = (uint32_t)lblk;
		n->pa_size = (uint32_t)min_u64(want, WINDOW_MAX >> fs->block_bits);
	}
	rwlock_drop(&n->rw);
	return err == -ENOSPC ? -ENOBUFS : err;
}

struct run {
	uint64_t at, from, bytes; /* in the file, on the volume */
};

/* What of a range is on the volume: the last DOWN_RUNS runs of it, in a ring. How many there are in all. */
static unsigned last_runs(struct ext4_node *n, uint64_t at, uint64_t end, struct run *ring)
{
	const uint32_t bits = ext4_fs_of_node(n)->block_bits;
	unsigned count = 0;

	while (at < end) {
		uint32_t lblk = (uint32_t)(at >> bits);
		uint64_t in = at - ((uint64_t)lblk << bits), bytes;
		struct ext4_ext e;

		ext4_map_at(n->map, lblk, UINT32_MAX - lblk, &e);
		bytes = min_u64(((uint64_t)e.len << bits) - in, end - at);
		if (e.pblk && !(e.flags & EXT_UNWRITTEN))
			ring[count++ % DOWN_RUNS] = (struct run){at, (e.pblk << bits) + in, bytes};
		at += bytes;
	}
	return count;
}

/* Towards the start of a file: from the end of the range downwards. What is at its lower end may be left for the next time, where that
 * spares the disk a way. */
static int advise_down(struct ext4_node *n, struct fs_hint *h, uint64_t end)
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	struct run ring[DOWN_RUNS], *r;
	unsigned count = last_runs(n, h->off, end, ring), left = count < DOWN_RUNS ? count : DOWN_RUNS;
	uint64_t low = h->off, taken;

	if (count && count == left && ring[0].at == low) {
		uint64_t skip = cache_good_start(fs->dev, ring[0].from, min_u64(ring[0].bytes, h->len / 2)) -
				ring[0].from;

		ring[0] = (struct run){low + skip, ring[0].from + skip, ring[0].bytes - skip};
		low += skip;
	}
	for (h->taken = end; left; left--) {
		bool all;

		r = &ring[--count % DOWN_RUNS];
		all = advise_run(fs, h, r->from, r->bytes, &taken);
		if (taken)
			h->taken = r->at + r->bytes - taken;
		if (!all)
			return h->taken == end ? -ENOBUFS : 0;
	}
	if (!count) /* all of them: below are holes */
		h->taken = low;
	return 0;
}

/* Through the extents of a range. */
static int advise_runs(struct ext4_node *n, struct fs_hint *h, uint64_t end)
{
	struct ext4_fs *fs = ext4_fs_of_node(n);
	bool more = true;

	for (uint64_t at = h->off; more && at < end;) {
		uint32_t lblk = (uint32_t)(at >> fs->block_bits);
		uint64_t in = at & (fs->block_size - 1), bytes, taken;
		struct ext4_ext run;

		ext4_map_at(n->map, lblk, UINT32_MAX - lblk, &run);
		bytes = taken = min_u64(((uint64_t)run.len << fs->block_bits) - in, end - at);
		if (run.pblk && !(run.flags & EXT_UNWRITTEN))
			more = advise_run(fs, h, (run.pblk << fs->block_bits) + in, bytes, &taken);
		at += taken;
		h->taken = at;
	}
	return h->taken == h->off && !more ? -ENOBUFS : 0;
}

int ext4_op_advise(struct fs_node *fn, struct fs_hint *h) NO_THREAD_SAFETY
{
	struct ext4_node *n = ext4_node_of(fn);
	struct ext4_fs *fs = ext4_fs_of_node(n);
	uint64_t end;
	int err;

	if (fn->type != FS_REG)
		return -EINVAL;
	if (!h->len || !add_ok(h->off, h->len, &end))
		end = UINT64_MAX;
	if (h->how == FS_RESERVE)
		return reserve(n, h->off, end, h->flags);
	if (h->how == FS_DONTNEED && !fs->fs.read_only) {
		if (h->flags & FS_NOWAIT)
			return -EAGAIN;
		if ((err = ext4_write_back(n, h->off, end == UINT64_MAX ? 0 : end)) < 0)
			return err;
	}
	if ((err = lock_mapped(n, h->flags, false)) < 0)
		return err;
	h->taken = h->off;
	end = min_u64(end, ext4_size(&n->inode));
	err = h->down ? advise_down(n, h, end) : advise_runs(n, h, end);
	h->at_end = !err && !h->down && h->taken >= ext4_size(&n->inode);
	rwlock_drop(&n->rw);
	return err;
}

void ext4_op_unwant(struct fs *fs, uint64_t tag, uint64_t mask)
{
	cache_unwant(ext4_fs_of(fs)->dev, tag, mask);
}

void ext4_op_figures(struct fs *fs, struct cache_dev_stats *st)
{
	cache_dev_stats(ext4_fs_of(fs)->dev, st);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * journal.c - the journal's life: attaching, the running transaction, waiting, the thread that commits
 *
 * The thread commits when somebody waits for the running transaction, and some seconds after its first change at the latest. While
 * it writes one, the next gathers what others do: who waits then shares its commit.
 */
#include "vhd/ext4/journal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "vhd/base/checked.h"
#include "vhd/base/clock.h"
#include "vhd/base/log.h"

#define TX_MAX 1024u      /* blocks: 4 MiB of copies */
#define LOG_MIN 1024u     /* blocks of a journal, as for Linux: an operation must fit a quarter of it */
#define LOG_MAX 10240000u /* what mke2fs makes at most */
#define COMMIT_MS 5000u
#define RETRY_MS 1000u /* while the host has no room */
#define GATHER_MAX_NS 1000000
#define SEAL_BLOCKS 4u /* of one block group at most: two bitmaps, the descriptor; and a little */

uint32_t ext4_journal_crc(uint32_t seed, const void *p, size_t len)
{
	return ext2fs_crc32c_le(seed, p, len);
}

/* ---- attaching ----------------------------------------------------------------------------------------------------------- */

static int journal_block(ext2_filsys e2, blk64_t *pblk, e2_blkcnt_t lblk, blk64_t ref, int ref_off, void *arg)
{
	struct ext4_journal *j = arg;

	(void)e2;
	(void)ref;
	(void)ref_off;
	if (lblk < 0 || lblk >= (e2_blkcnt_t)be32_get(j->super.max_len))
		return 0;
	j->place[lblk] = *pblk;
	return 0;
}

int ext4_journal_find(struct ext4_journal *j, ext2_filsys e2, struct cache_dev *dev, struct why *why)
{
	ext2_ino_t ino = e2->super->s_journal_inum;
	struct ext2_super_block *s = e2->super;
	uint64_t at = 0, max = ext2fs_blocks_count(s);
	uint32_t len;
	blk64_t p0;
	errcode_t e;
	int err;

	if (!ino || ino > s->s_inodes_count)
		return why_set(why, -ENOTSUP, "ext4: the journal is on another device");
	e = ext2fs_bmap2(e2, ino, NULL, NULL, 0, 0, NULL, &p0);
	if (e || !p0 || p0 >= max)
		return why_set(why, -EUCLEAN, "ext4: journal inode %u: its first block is not there", ino);
	if ((err = cache_read_direct(dev, &j->super, sizeof j->super, p0 << EXT2_BLOCK_SIZE_BITS(s))) < 0)
		return why_set(why, err, "ext4: the journal's superblock: %s", strerror(-err));
	len = be32_get(j->super.max_len);
	if (be32_get(j->super.h.magic) != JBD2_MAGIC || be32_get(j->super.h.type) != JBD2_SUPER_V2)
		return why_set(why, -ENOTSUP,
			       "ext4: journal superblock of type %u with magic %#x, expected type 4 and %#x",
			       be32_get(j->super.h.type), be32_get(j->super.h.magic), JBD2_MAGIC);
	if (be32_get(j->super.block_size) != (uint32_t)EXT2_BLOCK_SIZE(s) || len > max || len < LOG_MIN ||
	    len > LOG_MAX || be32_get(j->super.first) < 1 || be32_get(j->super.first) >= len)
		return why_set(why, -EUCLEAN, "ext4: journal of %u blocks of %u bytes, the first of them %u", len,
			       be32_get(j->super.block_size), be32_get(j->super.first));
	j->place = calloc(len, sizeof *j->place);
	if (!j->place)
		return -ENOMEM;
	e = ext2fs_block_iterate3(e2, ino, BLOCK_FLAG_READ_ONLY | BLOCK_FLAG_DATA_ONLY, NULL, journal_block, j);
	if (e)
		return why_set(why, ext4_errno(e), "ext4: journal inode %u: %s", ino, error_message(e));
	while (at < len && j->place[at] && j->place[at] < max)
		at++;
	if (at < len)
		return why_set(why, -EUCLEAN, "ext4: journal inode %u: block %llu of %u is at %llu", ino,
			       (unsigned long long)at, len, (unsigned long long)j->place[at]);
	return 0;
}

int ext4_journal_write_shared(struct cache_dev *dev, uint32_t block_size, const void *buf, uint64_t len, uint64_t off)
{
	struct cache_range r = {round_down_u64(off, block_size), block_size};
	int err = cache_write(dev, buf, len, off, CACHE_META);

	if (!err)
		err = cache_writeback_ranges(dev, &r, 1);
	return err ? err : cache_writeback_held(dev, &r, 1);
}

int ext4_journal_write_super(struct ext4_journal *j, struct cache_dev *dev)
{
	uint32_t bs = be32_get(j->super.block_size);
	struct iovec iov = {&j->super, sizeof j->super};
	struct vhd_io io = {.off = j->place[0] * bs, .iov = &iov, .niov = 1};

	if (j->fmt.csum2 || j->fmt.csum3) {
		j->super.checksum = be32_of(0);
		j->super.checksum = be32_of(ext4_journal_crc(~0u, &j->super, sizeof j->super));
	}
	if (bs < CACHE_UNIT)
		return ext4_journal_write_shared(dev, bs, &j->super, sizeof j->super, io.off);
	return cache_write_direct(dev, &io, 1);
}

/* Blocks of the ring in whose unit there is something else: another file, or the journal's own superblock. */
static int find_shared(struct ext4_journal *j)
{
	uint32_t per = j->fmt.block_size < CACHE_UNIT ? CACHE_UNIT / j->fmt.block_size : 1;
	struct u64map units = {.slot = NULL};
	int err = 0;

	for (uint32_t i = 1; i < j->end && per > 1 && !err; i++) {
		uint64_t unit = j->place[i] / per, *n = u64map_get(&units, unit);

		if (n)
			++*n;
		else
			err = u64map_put(&units, unit, 1);
	}
	for (uint32_t i = 1; i < j->end && per > 1 && !err; i++)
		if (*u64map_get(&units, j->place[i] / per) != per)
			err = u64map_put(&j->shared, j->place[i], 1);
	u64map_free(&units);
	return err;
}

/* The features that we write. One sum for a transaction, not one for each block, so that one flush is enough for most. Linux and
 * e2fsck replay both kinds; Linux sets its own when it has emptied the journal. */
static void set_features(struct ext4_journal *j)
{
	const struct ext2_super_block *s = j->fs->e2->super;
	uint32_t incompat = JBD2_F_REVOKE;

	j->fmt.block_size = j->fs->block_size;
	j->fmt.csum3 = j->fmt.csum2 = false;
	j->fmt.sum = j->fmt.async = true;
	j->fmt.wide = s->s_feature_incompat & EXT4_FEATURE_INCOMPAT_64BIT;
	incompat |= (j->fmt.wide ? JBD2_F_64BIT : 0u) | JBD2_F_ASYNC;
	j->super.compat = be32_of(JBD2_C_CHECKSUM);
	j->super.incompat = be32_of(incompat);
	j->super.checksum_type = 0;
	j->super.fast_blocks = be32_of(0);
	j->fmt.seed = ext4_journal_crc(~0u, j->super.uuid, sizeof j->super.uuid);
}

static int start_empty(struct ext4_journal *j)
{
	uint32_t seq = be32_get(j->super.sequence);
	uint64_t first = j->place[0], run = 0;
	int err;

	/* What reading through the cache (a tool, an earlier mount) may have left would never be written again. */
	for (uint32_t i = 1; i <= j->end; i++) {
		run++;
		if (i < j->end && j->place[i] == first + run)
			continue;
		cache_discard(j->fs->dev, first * j->fmt.block_size, run * j->fmt.block_size);
		first = i < j->end ? j->place[i] : 0;
		run = 0;
	}
	j->tx[0].tid = 1;
	j->head = j->first;
	j->sequence = seq ? seq : 1;
	j->super.sequence = be32_of(j->sequence);
	j->super.start = be32_of(j->first);
	j->super.error = be32_of(0);
	err = ext4_journal_write_super(j, j->fs->dev);
	return err ? err : cache_flush_device(j->fs->dev);
}

static int make_buffers(struct ext4_journal *j)
{
	uint32_t ring = j->end - j->first;

	/* So that a sealed one, with revokes and descriptors, fits beside the last. */
	j->tx_max = (uint32_t)min_u64(TX_MAX, ring / 4);
	j->buf_blocks = j->tx_max + j->tx_max / 8 + 16;
	j->buf = aligned_alloc(4096, round_up_u64((uint64_t)j->buf_blocks * j->fmt.block_size, 4096));
	j->copy_at = calloc(j->tx_max, sizeof *j->copy_at);
	if (!j->buf || !j->copy_at)
		return -ENOMEM;
	for (unsigned i = 0; i < 2; i++) {
		j->tx[i].list = calloc(j->tx_max, sizeof *j->tx[i].list);
		j->tx[i].joined = calloc(j->tx_max, sizeof *j->tx[i].joined);
		if (!j->tx[i].list || !j->tx[i].joined || u64map_reserve(&j->tx[i].blocks, j->tx_max) < 0)
			return -ENOMEM;
	}
	/* One entry for each block of the ring at most. */
	return u64map_reserve(&j->logged, ring);
}

static void journal_free(struct ext4_journal *j)
{
	for (unsigned i = 0; i < 2; i++) {
		u64map_free(&j->tx[i].blocks);
		free(j->tx[i].joined);
		free(j->tx[i].list);
		free(j->tx[i].freed.r);
		free(j->tx[i].ordered.r);
		free(j->tx[i].revoke);
	}
	u64map_free(&j->logged);
	u64map_free(&j->shared);
	free(j->copy_at);
	free(j->buf);
	free(j->place);
	cond_fini(&j->cond);
	cond_fini(&j->work);
	lock_fini(&j->mu);
	lock_fini(&j->write_mu);
	free(j);
}

static struct ext4_journal *journal_new(struct ext4_fs *fs)
{
	struct ext4_journal *j = calloc(1, sizeof *j);

	if (!j)
		return NULL;
	j->fs = fs;
	lock_init(&j->write_mu);
	lock_init(&j->mu);
	cond_init(&j->cond);
	cond_init(&j->work);
	list_init(&j->waiters);
	j->running = &j->tx[0];
	return j;
}

static int check(struct ext4_journal *j, struct why *why) NO_THREAD_SAFETY
{
	int err = ext4_journal_find(j, j->fs->e2, j->fs->dev, why);

	if (!err && be32_get(j->super.start))
		err = why_set(why, -ENOTSUP, "ext4: the journal is not empty");
	/* Who wrote here before could not say so in the file system's superblock. */
	if (!err && be32_get(j->super.error))
		err = why_set(why, -EUCLEAN, "ext4: the journal ended with error %d (run e2fsck)",
			      (int)be32_get(j->super.error));
	return err;
}

int ext4_journal_check(struct ext4_fs *fs, struct why *why)
{
	struct ext4_journal *j = journal_new(fs);
	int err = j ? check(j, why) : -ENOMEM;

	if (j)
		journal_free(j);
	return err;
}

static void *committer(void *arg);

int ext4_journal_open(struct ext4_fs *fs, struct why *why) NO_THREAD_SAFETY
{
	struct ext4_journal *j = journal_new(fs);
	int err;

	if (!j)
		return -ENOMEM;
	if ((err = check(j, why)) < 0)
		goto out;
	set_features(j);
	j->first = be32_get(j->super.first);
	j->end = be32_get(j->super.max_len);
	if ((err = make_buffers(j)) < 0 || (err = find_shared(j)) < 0 || (err = start_empty(j)) < 0)
		goto out;
	if ((err = -pthread_create(&j->thread, NULL, committer, j)) < 0)
		goto out;
	fs->journal = j;
	return 0;
out:
	journal_free(j);
	return err;
}

int ext4_journal_close(struct ext4_fs *fs) NO_THREAD_SAFETY
{
	struct ext4_journal *j = fs->journal;
	int err;

	lock_take(&j->mu);
	j->stop = true;
	cond_signal(&j->work);
	lock_drop(&j->mu);
	pthread_join(j->thread, NULL);
	lock_take(&fs->mu);
	err = ext4_commit_begin(fs);
	lock_drop(&fs->mu);
	if (!err)
		err = ext4_commit_end(fs);
	if (!err)
		err = ext4_journal_checkpoint(fs);
	if (!err) {
		j->super.start = be32_of(0);
		err = ext4_journal_write_super(j, j->fs->dev);
		if (!err)
			err = cache_flush_device(fs->dev);
	}
	fs->journal = NULL;
	journal_free(j);
	return err;
}

void ext4_journal_fail(struct ext4_fs *fs, int err, const char *what)
{
	struct ext4_journal *j = fs->journal;
	int none = 0;

	if (atomic_compare_exchange_strong(&fs->failed, &none, err))
		log_error("ext4: %s: %s; nothing is changed any more, what was there can still be read", what,
			  strerror(-err));
	if (!j)
		return;
	lock_take(&j->mu);
	cond_broadcast(&j->cond);
	lock_drop(&j->mu);
	ext4_journal_tell(j);
}

void ext4_journal_stall(struct ext4_fs *fs, int err)
{
	struct ext4_journal *j = fs->journal;

	if (atomic_exchange(&fs->full, err != 0) == (err != 0))
		return;
	if (err)
		log_error("ext4: writing the journal: %s; changes are refused until the host has room again, nothing "
			  "is lost",
			  strerror(-err));
	else
		log_info("ext4: the host has room again: changes go on");
	lock_take(&j->mu);
	cond_broadcast(&j->cond);
	lock_drop(&j->mu);
	ext4_journal_tell(j);
}

void ext4_op_hurry(struct fs *f) NO_THREAD_SAFETY
{
	struct ext4_journal *j = ext4_fs_of(f)->journal;

	if (!j)
		return;
	lock_take(&j->mu);
	j->hurry = true;
	lock_drop(&j->mu);
	ext4_journal_tell(j);
}

/* ---- the running transaction ------------------------------------------------------------------------------------------------ */

int ext4_runs_add(struct ext4_runs *l, uint64_t pblk, uint64_t len)
{
	struct ext4_run *last = l->n ? &l->r[l->n - 1] : NULL;

	if (last && last->pblk + last->len == pblk) {
		last->len += len;
		return 0;
	}
	if (l->n == l->cap) {
		uint32_t cap = l->cap ? l->cap * 2 : 64;
		struct ext4_run *r = cap > l->cap ? reallocarray(l->r, cap, sizeof *r) : NULL;

		if (!r)
			return -ENOMEM;
		l->r = r;
		l->cap = cap;
	}
	l->r[l->n++] = (struct ext4_run){pblk, len};
	return 0;
}

/* A block joins the running transaction. Under fs->mu. */
static int join(struct ext4_journal *j, uint64_t block) NO_THREAD_SAFETY
{
	struct ext4_tx *tx = j->running;
	int err = 0;

	lock_take(&j->mu);
	if (!u64map_get(&tx->blocks, block)) {
		/* Room was reserved: this is an operation that needs more than it said. */
		if (tx->blocks.n >= j->tx_max)
			err = -ENOBUFS;
		else if ((err = u64map_put(&tx->blocks, block, TX_LIVE)) == 0)
			tx->joined[tx->blocks.n - 1] = block;
	}
	lock_drop(&j->mu);
	return err;
}

int ext4_meta_write(struct ext4_fs *fs, const void *buf, uint64_t len, uint64_t off)
{
	struct ext4_journal *j = fs->journal;
	uint64_t end;
	int err = 0;

	if (!j)
		return cache_write(fs->dev, buf, len, off, CACHE_META);
	if (!add_ok(off, len, &end))
		return -EINVAL;
	if (atomic_load_explicit(&fs->failed, memory_order_relaxed))
		return -EIO;
	fs->changes++;
	for (uint64_t b = off >> fs->block_bits; b << fs->block_bits < end && !err; b++)
		err = join(j, b);
	if (!err)
		err = cache_write(fs->dev, buf, len, off, CACHE_META | CACHE_HOLD);
	/* The operation is half done in memory: it must not reach the disk. */
	if (err)
		ext4_journal_fail(fs, err, "a change of metadata failed half way");
	return err;
}

/* Blocks that sealing adds to the running transaction. */
static uint64_t sealing(struct ext4_fs *fs) REQUIRES(fs->mu)
{
	return fs->nlogged + (uint64_t)fs->ngroups_dirty * SEAL_BLOCKS;
}

bool ext4_journal_room(struct ext4_fs *fs, unsigned credits)
{
	const struct ext4_tx *tx;
	uint64_t more = sealing(fs);

	if (!fs->journal)
		return true;
	tx = fs->journal->running;
	if (tx->blocks.n + tx->nrevoke / (fs->block_size / 16) + more + 1 + credits > fs->journal->tx_max)
		return false;
	/* What it holds back cannot leave memory before it has committed. One operation at least has a place in it. */
	return !(tx->blocks.n + more) || !cache_holds_much(fs->dev, more);
}

int ext4_journal_restart(struct ext4_fs *fs)
{
	int err = ext4_commit_begin(fs);

	return err ? err : ext4_commit_end(fs);
}

void ext4_journal_order(struct ext4_fs *fs, uint64_t pblk, uint64_t len, bool fresh)
{
	if (!fs->journal)
		return;
	fs->journal->running->fresh |= fresh;
	if (ext4_runs_add(&fs->journal->running->ordered, pblk, len) < 0)
		ext4_journal_fail(fs, -ENOMEM, "noting data that must be written first");
}

bool ext4_journal_owes(struct ext4_fs *fs, uint64_t pblk, uint64_t len) NO_THREAD_SAFETY
{
	struct ext4_journal *j = fs->journal;
	const struct ext4_runs *l;
	bool owes = false;

	lock_take(&j->mu);
	l = j->committing ? &j->committing->ordered : NULL;
	for (uint32_t i = 0; l && i < l->n && !owes; i++)
		owes = l->r[i].pblk < pblk + len && pblk < l->r[i].pblk + l->r[i].len;
	lock_drop(&j->mu);
	return owes;
}

void ext4_journal_flush(struct ext4_fs *fs)
{
	fs->journal->running->flush = true;
}

static int add_revoke(struct ext4_tx *tx, uint64_t block)
{
	if (tx->nrevoke == tx->revoke_cap) {
		uint32_t cap = tx->revoke_cap ? tx->revoke_cap * 2 : 64;
		uint64_t *r = reallocarray(tx->revoke, cap, sizeof *r);

		if (!r)
			return -ENOMEM;
		tx->revoke = r;
		tx->revoke_cap = cap;
	}
	tx->revoke[tx->nrevoke++] = block;
	return 0;
}

/* Was the block in a transaction whose copy may still be replayed? Then it never must be. Under
 * fs->mu. */
static int forget(struct ext4_journal *j, uint64_t block) NO_THREAD_SAFETY
{
	uint64_t *live;
	bool copied;

	lock_take(&j->mu);
	live = u64map_get(&j->running->blocks, block);
	if (live)
		*live = TX_DEAD;
	copied = u64map_get(&j->logged, block) || (j->committing && u64map_get(&j->committing->blocks, block));
	lock_drop(&j->mu);
	return copied ? add_revoke(j->running, block) : 0;
}

void ext4_journal_freed(struct ext4_fs *fs, uint64_t pblk, uint64_t len)
{
	struct ext4_journal *j = fs->journal;
	int err = 0;

	if (ext4_journal_mutation & JOURNAL_REUSE_EARLY) {
		ext4_alloc_free(fs, pblk, len);
		return;
	}
	err = ext4_runs_add(&j->running->freed, pblk, len);
	atomic_fetch_add_explicit(&fs->freeing, len, memory_order_relaxed);
	for (uint64_t b = pblk; b < pblk + len && !err; b++)
		err = forget(j, b);
	if (err)
		ext4_journal_fail(fs, err, "noting freed blocks");
}

/* ---- waiting and the thread --------------------------------------------------------------------------------------------------- */

uint64_t ext4_journal_running(struct ext4_fs *fs) NO_THREAD_SAFETY
{
	return fs->journal ? fs->journal->running->tid : 0;
}

bool ext4_journal_is_durable(struct ext4_fs *fs, uint64_t tid)
{
	return !fs->journal || atomic_load_explicit(&fs->journal->durable, memory_order_acquire) >= tid;
}

/* Somebody waits for a transaction. The thread is told when it sleeps, and when as many wait as it is gathering. */
static void want(struct ext4_journal *j, uint64_t tid) REQUIRES(j->mu)
{
	if (j->want < tid)
		j->want = tid;
	if (j->idle || j->nwaiting == j->usual)
		cond_signal(&j->work);
}

int ext4_journal_wait(struct ext4_fs *fs, uint64_t tid)
{
	struct ext4_journal *j = fs->journal;
	int err = 0;

	if (ext4_journal_is_durable(fs, tid))
		return 0;
	lock_take(&j->mu);
	want(j, tid);
	while (!ext4_journal_is_durable(fs, tid) && !(err = ext4_may_change(fs)))
		cond_wait(&j->cond, &j->mu);
	lock_drop(&j->mu);
	return err;
}

int ext4_journal_sync(struct ext4_fs *fs) NO_THREAD_SAFETY
{
	uint64_t tid;

	lock_take(&fs->mu);
	tid = ext4_journal_running(fs);
	lock_drop(&fs->mu);
	return ext4_journal_wait(fs, tid);
}

void ext4_journal_settle(struct ext4_fs *fs) NO_THREAD_SAFETY
{
	struct ext4_journal *j = fs->journal;
	uint64_t tid = 0;

	if (!j)
		return;
	lock_take(&fs->mu);
	lock_take(&j->mu);
	if (j->running->freed.n)
		tid = j->running->tid;
	else if (j->committing && j->committing->freed.n)
		tid = j->committing->tid;
	lock_drop(&j->mu);
	lock_drop(&fs->mu);
	if (tid && ext4_journal_wait(fs, tid) < 0)
		return;
	/* It is durable before its blocks are free: the next one cannot be begun before they are. */
	lock_take(&j->write_mu);
	lock_drop(&j->write_mu);
}

int ext4_journal_when(struct ext4_fs *fs, uint64_t tid, struct fs_waiter *w)
{
	struct ext4_journal *j = fs->journal;
	int r;

	if (ext4_journal_is_durable(fs, tid))
		return 1;
	lock_take(&j->mu);
	r = ext4_journal_is_durable(fs, tid) ? 1 : ext4_may_change(fs);
	if (r == -ENOSPC && !j->hurry)
		r = 0;
	if (!r) {
		w->change = tid;
		list_push_back(&j->waiters, &w->link);
		j->nwaiting++;
		want(j, tid);
	}
	lock_drop(&j->mu);
	return r;
}

void ext4_journal_tell(struct ext4_journal *j)
{
	uint64_t durable = atomic_load(&j->durable);
	int never;
	struct list told;
	uint32_t n = 0;

	list_init(&told);
	lock_take(&j->mu);
	never = ext4_may_change(j->fs);
	if (never == -ENOSPC && !j->hurry)
		never = 0;
	list_for_each_safe (it, tmp, &j->waiters) {
		struct fs_waiter *w = list_entry(it, struct fs_waiter, link);

		if (w->change <= durable || never) {
			list_del(&w->link);
			list_push_back(&told, &w->link);
			n++;
		}
	}
	j->nwaiting -= n;
	j->usual = n;
	lock_drop(&j->mu);
	while (!list_empty(&told)) {
		struct fs_waiter *w = list_first(&told, struct fs_waiter, link);

		list_del(&w->link);
		w->done(w, w->change <= durable ? 0 : never); /* it may be gone after this */
	}
}

/* Those whom the last commit answered come again in a moment, most of them: one commit for all of them is cheaper than two. Not
 * longer than the quickest of late took; who is alone does not wait. */
static void gather(struct ext4_journal *j) REQUIRES(j->mu)
{
	uint64_t now = now_ns(), end = now + j->commit_ns;

	for (; !j->stop && j->nwaiting < j->usual && now < end; now = now_ns())
		cond_wait_ns(&j->work, &j->mu, end - now);
}

/* Nobody waits: until somebody does, or until what was changed has waited long enough. */
static void idle(struct ext4_journal *j) REQUIRES(j->mu)
{
	j->idle = true;
	if (!cond_wait_ms(&j->work, &j->mu, COMMIT_MS) && j->want < j->running->tid)
		j->want = j->running->tid;
	j->idle = false;
}

static void commit(struct ext4_journal *j) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = j->fs;
	uint64_t start = now_ns(), took;
	int err;

	lock_take(&fs->mu);
	err = ext4_commit_begin(fs);
	lock_drop(&fs->mu);
	if (!err)
		ext4_commit_end(fs);
	took = min_u64(now_ns() - start, GATHER_MAX_NS);
	/* The least that one takes, and slowly more when all take longer. */
	j->commit_ns = took < j->commit_ns ? took : j->commit_ns + (took - j->commit_ns) / 64;
}

void ext4_journal_retry(struct ext4_fs *fs) NO_THREAD_SAFETY
{
	struct ext4_journal *j = fs->journal;
	bool stalled;
	int err = 0;

	lock_take(&fs->mu);
	lock_take(&j->write_mu);
	stalled = ext4_may_change(fs) == -ENOSPC;
	if (stalled && j->unmarked)
		err = ext4_journal_mark_used(fs);
	lock_drop(&fs->mu);
	if (stalled && !err && j->committing) {
		ext4_commit_end(fs);
		return;
	}
	if (stalled && !err)
		ext4_journal_stall(fs, 0);
	else if (err && err != -ENOSPC)
		ext4_journal_fail(fs, err, "going on after a snapshot");
	lock_drop(&j->write_mu);
}

/* Whoever signals, and however often: a host without room is not asked more than once a second. */
static void rest(struct ext4_journal *j) REQUIRES(j->mu)
{
	uint64_t now = now_ns(), end = now + RETRY_MS * UINT64_C(1000000);

	for (; !j->stop && now < end; now = now_ns())
		cond_wait_ns(&j->work, &j->mu, end - now);
}

static void *committer(void *arg) NO_THREAD_SAFETY
{
	struct ext4_journal *j = arg;

	prctl(PR_SET_TIMERSLACK, 1000);
	lock_take(&j->mu);
	while (!j->stop) {
		bool failed = atomic_load(&j->fs->failed);

		if (!failed && atomic_load(&j->fs->full)) {
			rest(j);
			lock_drop(&j->mu);
			ext4_journal_retry(j->fs);
			lock_take(&j->mu);
			continue;
		}
		if (!failed)
			gather(j);
		if (failed || j->want <= atomic_load(&j->durable)) {
			idle(j);
			continue;
		}
		lock_drop(&j->mu);
		commit(j);
		lock_take(&j->mu);
	}
	lock_drop(&j->mu);
	return NULL;
}

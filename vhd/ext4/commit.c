/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * commit.c - a transaction goes to the log, and what is in the log goes home
 *
 * The order of writes, and why:
 *
 *     1  data of `ordered`, revokes, descriptors and copies   in any order
 *     2  the commit block                                     its sum is wrong where any of the copies is not there
 *     3  flush                                                now it is promised
 *     4  the cache may write the blocks home                  not before 3: a crash would leave half an operation
 *     5  freed blocks may be used                             not before 3: a crash would bring the old owner back
 *
 * Where the sum says too little - of data that the transaction makes visible, and of revokes - there is a flush between 1 and 2, and
 * zeros where the commit block will be: what is not zero of it is one sector, whole or not there.
 *
 * and of a checkpoint:
 *
 *     1  all blocks of the log -> home, flush
 *     2  the journal's superblock: the log begins behind them; flush
 *     3  their place in the log is used again
 */
#include "vhd/ext4/journal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vhd/base/checked.h"

#define RANGES 64u
#define RELEASE_BATCH 64u

unsigned ext4_journal_mutation;

/* ---- sealing ----------------------------------------------------------------------------------------------------------------- */

static int cmp_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void list_blocks(struct ext4_tx *tx)
{
	tx->nlist = 0;
	for (uint32_t i = 0; i < tx->blocks.n; i++)
		if (*u64map_get(&tx->blocks, tx->joined[i]) == TX_LIVE)
			tx->list[tx->nlist++] = tx->joined[i];
	qsort(tx->list, tx->nlist, sizeof *tx->list, cmp_u64);
}

static uint8_t *next_block(struct ext4_journal *j)
{
	/* One is kept for the zeros. */
	return j->buf_used + 1 < j->buf_blocks ? j->buf + (size_t)j->buf_used++ * j->fmt.block_size : NULL;
}

static struct jbd2_header header(const struct ext4_journal *j, uint32_t type)
{
	return (struct jbd2_header){be32_of(JBD2_MAGIC), be32_of(type), be32_of(j->sequence)};
}

/* The checksum in the last bytes of descriptors and revoke blocks. */
static void put_tail(const struct ext4_journal *j, uint8_t *b)
{
	uint32_t at = j->fmt.block_size - 4;
	be32 sum;

	if (!jbd2_tail_bytes(&j->fmt))
		return;
	memset(b + at, 0, 4);
	sum = be32_of(ext4_journal_crc(j->fmt.seed, b, j->fmt.block_size));
	memcpy(b + at, &sum, 4);
}

static int put_revokes(struct ext4_journal *j, const struct ext4_tx *tx)
{
	uint32_t width = j->fmt.wide ? 8 : 4, bs = j->fmt.block_size;
	uint32_t per = (bs - (uint32_t)sizeof(struct jbd2_revoke) - jbd2_tail_bytes(&j->fmt)) / width;

	for (uint32_t at = ext4_journal_mutation & JOURNAL_NO_REVOKE ? tx->nrevoke : 0; at < tx->nrevoke;) {
		uint32_t n = (uint32_t)min_u64(per, tx->nrevoke - at);
		uint8_t *b = next_block(j);
		struct jbd2_revoke r = {header(j, JBD2_REVOKE), be32_of((uint32_t)sizeof r + n * width)};

		if (!b)
			return -ENOBUFS;
		memset(b, 0, bs);
		memcpy(b, &r, sizeof r);
		for (uint32_t i = 0; i < n; i++, at++) {
			be64 wide = be64_of(tx->revoke[at]);
			be32 narrow = be32_of((uint32_t)tx->revoke[at]);

			memcpy(b + sizeof r + i * width, j->fmt.wide ? wide.b : narrow.b, width);
		}
		put_tail(j, b);
	}
	return 0;
}

static void put_tag(const struct ext4_journal *j, uint8_t *at, uint64_t block, uint32_t flags, const uint8_t *copy)
{
	be32 seq = be32_of(j->sequence);
	uint32_t sum = 0;

	if (j->fmt.csum3) {
		sum = ext4_journal_crc(j->fmt.seed, &seq, sizeof seq);
		sum = ext4_journal_crc(sum, copy, j->fmt.block_size);
		struct jbd2_tag3 t = {be32_of((uint32_t)block), be32_of(flags), be32_of((uint32_t)(block >> 32)),
				      be32_of(sum)};

		memcpy(at, &t, sizeof t);
	} else {
		struct jbd2_tag t = {be32_of((uint32_t)block), be16_of(0), be16_of((uint16_t)flags),
				     be32_of((uint32_t)(block >> 32))};

		memcpy(at, &t, jbd2_tag_bytes(&j->fmt));
	}
}

/* One block's bytes as they are now, from the cache, into the log's image. */
static int put_copy(struct ext4_journal *j, uint64_t block, uint8_t **copy, uint32_t *flags)
{
	static const struct {
		be32 magic;
	} mark = {{{0xc0, 0x3b, 0x39, 0x98}}};
	struct ext4_fs *fs = j->fs;
	int err;

	*copy = next_block(j);
	*flags = 0;
	if (!*copy)
		return -ENOBUFS;
	err = cache_read(fs->dev, *copy, fs->block_size, block << fs->block_bits, CACHE_META);
	if (!err && !memcmp(*copy, &mark, sizeof mark)) {
		memset(*copy, 0, sizeof mark);
		*flags = JBD2_T_ESCAPED;
	}
	return err;
}

static int put_copies(struct ext4_journal *j, const struct ext4_tx *tx)
{
	uint32_t bs = j->fmt.block_size, tag = jbd2_tag_bytes(&j->fmt), end = bs - jbd2_tail_bytes(&j->fmt), at = 0;
	const struct jbd2_header h = header(j, JBD2_DESCRIPTOR);
	uint8_t *desc = NULL;

	for (uint32_t i = 0; i < tx->nlist; i++) {
		uint32_t flags, same = desc ? JBD2_T_SAME_UUID : 0;
		uint8_t *copy;
		int err;

		if (!desc) {
			if (!(desc = next_block(j)))
				return -ENOBUFS;
			memset(desc, 0, bs);
			memcpy(desc, &h, sizeof h);
			at = sizeof h;
		}
		if ((err = put_copy(j, tx->list[i], &copy, &flags)) < 0)
			return err;
		j->copy_at[i] = (uint32_t)((copy - j->buf) / bs) | (flags & JBD2_T_ESCAPED ? LOGGED_ESCAPED : 0);
		bool last = i + 1 == tx->nlist || at + tag + (same ? 0u : 16u) + tag > end;

		put_tag(j, desc + at, tx->list[i], flags | same | (last ? JBD2_T_LAST : 0u), copy);
		at += tag;
		if (!same) {
			memcpy(desc + at, j->super.uuid, sizeof j->super.uuid);
			at += (uint32_t)sizeof j->super.uuid;
		}
		if (last) {
			put_tail(j, desc);
			desc = NULL;
		}
	}
	return 0;
}

int ext4_commit_begin(struct ext4_fs *fs) NO_THREAD_SAFETY
{
	struct ext4_journal *j = fs->journal;
	struct ext4_tx *tx = j->running, *next = tx == &j->tx[0] ? &j->tx[1] : &j->tx[0];
	int err;

	lock_take(&j->write_mu);
	/* The buffer still has the one that the host had no room for. */
	err = ext4_may_change(fs);
	if (err) {
		lock_drop(&j->write_mu);
		return err;
	}
	err = ext4_store_logged(fs);
	if (!err)
		err = ext4_write_groups(fs);
	j->buf_used = 0;
	if (!err)
		list_blocks(tx);
	if (!err)
		err = put_revokes(j, tx);
	j->buf_revokes = j->buf_used;
	if (!err)
		err = put_copies(j, tx);
	if (err) {
		ext4_journal_fail(fs, err, "gathering a transaction");
		lock_drop(&j->write_mu);
		return err;
	}
	lock_take(&j->mu);
	next->tid = tx->tid + 1;
	j->committing = tx;
	j->running = next;
	lock_drop(&j->mu);
	return 0;
}

/* ---- writing ----------------------------------------------------------------------------------------------------------------- */

static int write_ordered(struct ext4_fs *fs, const struct ext4_runs *l)
{
	int err = 0;

	for (uint32_t at = 0; at < l->n && !err;) {
		struct cache_range r[RANGES];
		unsigned n = 0;

		for (; n < RANGES && at < l->n; n++, at++)
			r[n] = (struct cache_range){l->r[at].pblk << fs->block_bits, l->r[at].len << fs->block_bits};
		err = ext4_write_data(fs, r, n);
	}
	return err;
}

int ext4_write_data(struct ext4_fs *fs, const struct cache_range *r, unsigned n)
{
	int err = cache_writeback_ranges(fs->dev, r, n);

	/* Blocks smaller than a unit may lie beside metadata that is held back. */
	return err || fs->block_size >= CACHE_UNIT ? err : cache_writeback_held(fs->dev, r, n);
}

static uint32_t wrap(const struct ext4_journal *j, uint64_t at)
{
	uint32_t ring = j->end - j->first;

	return at >= j->end ? (uint32_t)(at - ring) : (uint32_t)at;
}

/* A run of at most @n blocks of the log from ring position @pos on that lie together, and are all shared or all not. */
static uint32_t run_at(const struct ext4_journal *j, uint32_t pos, uint32_t n, bool *shared)
{
	uint32_t run = 1;

	*shared = u64map_get(&j->shared, j->place[pos]) != NULL;
	while (!*shared && run < n && pos + run < j->end && j->place[pos + run] == j->place[pos] + run &&
	       !u64map_get(&j->shared, j->place[pos + run]))
		run++;
	return run;
}

/* @n blocks of the log from ring position @at on. */
static int write_log(struct ext4_journal *j, uint32_t at, uint8_t *from, uint32_t n)
{
	uint32_t bs = j->fmt.block_size;
	struct iovec iov[RANGES];
	struct vhd_io io[RANGES];
	int err = 0;

	for (uint32_t i = 0; i < n && !err;) {
		unsigned k = 0;

		while (k < RANGES && i < n && !err) {
			uint32_t pos = wrap(j, (uint64_t)at + i), run;
			uint8_t *p = from + (size_t)i * bs;
			bool shared;

			run = run_at(j, pos, n - i, &shared);
			i += run;
			if (shared) {
				err = ext4_journal_write_shared(j->fs->dev, bs, p, bs, j->place[pos] * bs);
				continue;
			}
			iov[k] = (struct iovec){p, (size_t)run * bs};
			io[k] = (struct vhd_io){.off = j->place[pos] * bs, .iov = &iov[k], .niov = 1};
			k++;
		}
		if (!err && k)
			err = cache_write_direct(j->fs->dev, io, k);
	}
	return err;
}

/* Behind the transaction in its image. */
static void put_commit_block(struct ext4_journal *j)
{
	struct timespec now;
	struct jbd2_commit c = {.h = header(j, JBD2_COMMIT)};
	uint32_t bs = j->fmt.block_size;
	uint8_t *b = j->buf + (size_t)j->buf_used * bs;

	clock_gettime(CLOCK_REALTIME, &now);
	c.sec = be64_of((uint64_t)now.tv_sec);
	c.nsec = be32_of((uint32_t)now.tv_nsec);
	if (j->fmt.sum && !(ext4_journal_mutation & JOURNAL_COMMIT_EARLY)) {
		c.checksum_type = JBD2_CRC32;
		c.checksum_size = JBD2_CRC32_BYTES;
		c.checksum[0] = be32_of(ext4_journal_sum(~0u, j->buf + (size_t)j->buf_revokes * bs,
							 (size_t)(j->buf_used - j->buf_revokes) * bs));
	}
	memset(b, 0, bs);
	memcpy(b, &c, sizeof c);
}

/* All at once, and one flush: the sum in the commit block tells whether the rest was there. Not when the transaction leads to data
 * that must be there first, or revokes, which the sum does not cover. */
static bool one_flush_is_enough(const struct ext4_journal *j, const struct ext4_tx *tx)
{
	return ext4_journal_mutation & JOURNAL_COMMIT_EARLY || (j->fmt.async && !tx->fresh && !j->buf_revokes);
}

/* Zeros in the commit block's place; when the rest is there for certain, one sector makes it. */
static int write_in_two(struct ext4_journal *j)
{
	uint8_t *b = j->buf + (size_t)j->buf_used * j->fmt.block_size;
	int err;

	memset(b, 0, j->fmt.block_size);
	err = write_log(j, j->head, j->buf, j->buf_used + 1);
	if (!err)
		err = cache_flush_device(j->fs->dev);
	if (err)
		return err;
	put_commit_block(j);
	return write_log(j, wrap(j, (uint64_t)j->head + j->buf_used), b, 1);
}

static int write_transaction(struct ext4_fs *fs, const struct ext4_tx *tx)
{
	struct ext4_journal *j = fs->journal;
	int err = ext4_journal_mutation & JOURNAL_NO_ORDER ? 0 : write_ordered(fs, &tx->ordered);

	if (err || !j->buf_used)
		return err || !tx->flush ? err : cache_flush_device(fs->dev);
	if (j->end - j->first - j->used <= j->buf_used + 1 && (err = ext4_journal_checkpoint_held(fs)) < 0)
		return err;
	if (one_flush_is_enough(j, tx)) {
		put_commit_block(j);
		err = write_log(j, j->head, j->buf, j->buf_used + 1);
	} else {
		err = write_in_two(j);
	}
	return err ? err : cache_flush_device(fs->dev);
}

/* ---- afterwards ------------------------------------------------------------------------------------------------------------------ */

/* Has the running transaction, or the one that is being written, a block in the units of this one? */
static bool is_held(struct ext4_journal *j, uint64_t block, bool committing) REQUIRES(j->mu)
{
	uint32_t per = j->fmt.block_size < CACHE_UNIT ? CACHE_UNIT / j->fmt.block_size : 1;
	uint64_t first = block - block % per;

	for (uint64_t b = first; b < first + per; b++)
		if (u64map_get(&j->running->blocks, b) || (committing && u64map_get(&j->committing->blocks, b)))
			return true;
	return false;
}

/* The log has these copies now, and what was revoked does not count any more. */
static void note_logged(struct ext4_journal *j, const struct ext4_tx *tx)
{
	lock_take(&j->mu);
	for (uint32_t i = 0; i < tx->nrevoke; i++)
		u64map_del(&j->logged, tx->revoke[i]);
	for (uint32_t i = 0; i < tx->nlist; i++) {
		uint32_t at = wrap(j, (uint64_t)j->head + (j->copy_at[i] & ~LOGGED_ESCAPED));

		u64map_put(&j->logged, tx->list[i], at | (j->copy_at[i] & LOGGED_ESCAPED)); /* room was reserved */
	}
	lock_drop(&j->mu);
}

/* Blocks that the next transaction has not taken up may go home. */
static void let_go(struct ext4_fs *fs, struct ext4_tx *tx)
{
	struct ext4_journal *j = fs->journal;

	lock_take(&j->mu);
	for (uint32_t i = 0; i < tx->blocks.n; i++) {
		/* Under the lock: a block joins under it, and is held after that. */
		if (!is_held(j, tx->joined[i], false))
			cache_release(fs->dev, tx->joined[i] << fs->block_bits, fs->block_size);
		if ((i + 1) % RELEASE_BATCH == 0) {
			lock_drop(&j->mu);
			lock_take(&j->mu);
		}
	}
	lock_drop(&j->mu);
}

static void free_blocks(struct ext4_fs *fs, struct ext4_tx *tx)
{
	/* What was metadata need not be written home. Nobody can have it yet. */
	for (uint32_t i = 0; tx->nlist < tx->blocks.n && i < tx->blocks.n; i++)
		if (*u64map_get(&tx->blocks, tx->joined[i]) == TX_DEAD)
			cache_discard(fs->dev, tx->joined[i] << fs->block_bits, fs->block_size);
	for (uint32_t i = 0; i < tx->nrevoke; i++)
		cache_discard(fs->dev, tx->revoke[i] << fs->block_bits, fs->block_size);
	for (uint32_t i = 0; i < tx->freed.n; i++) {
		ext4_alloc_free(fs, tx->freed.r[i].pblk, tx->freed.r[i].len);
		atomic_fetch_sub_explicit(&fs->freeing, tx->freed.r[i].len, memory_order_relaxed);
	}
}

static void tx_reset(struct ext4_tx *tx)
{
	u64map_clear_keys(&tx->blocks, tx->joined, tx->blocks.n);
	tx->freed.n = tx->ordered.n = tx->nrevoke = tx->nlist = 0;
	tx->flush = tx->fresh = false;
}

int ext4_commit_end(struct ext4_fs *fs) NO_THREAD_SAFETY
{
	struct ext4_journal *j = fs->journal;
	struct ext4_tx *tx = j->committing;
	uint32_t ring = j->end - j->first;
	int err = write_transaction(fs, tx);

	if (err) {
		/* What it holds stays held: home is as it was before. */
		if (err == -ENOSPC)
			ext4_journal_stall(fs, err);
		else
			ext4_journal_fail(fs, err, "writing the journal");
		lock_drop(&j->write_mu);
		return err;
	}
	if (j->buf_used) {
		note_logged(j, tx);
		j->head = wrap(j, (uint64_t)j->head + j->buf_used + 1);
		j->used += j->buf_used + 1;
		j->sequence++;
	}
	lock_take(&j->mu);
	atomic_store_explicit(&j->durable, tx->tid, memory_order_release);
	cond_broadcast(&j->cond);
	lock_drop(&j->mu);
	ext4_journal_tell(j);
	let_go(fs, tx);
	free_blocks(fs, tx);
	lock_take(&j->mu);
	tx_reset(tx);
	j->committing = NULL;
	lock_drop(&j->mu);
	ext4_journal_stall(fs, 0);
	if (j->used > ring / 2)
		err = ext4_journal_checkpoint_held(fs);
	/* Without room on the host the log keeps it, and a commit that needs the log's room waits. */
	if (err == -ENOSPC)
		err = 0;
	if (err)
		ext4_journal_fail(fs, err, "writing back what the journal holds");
	lock_drop(&j->write_mu);
	return err;
}

/* ---- checkpoint --------------------------------------------------------------------------------------------------------------------- */

struct copy {
	uint64_t block, at;
};

static int cmp_copy(const void *a, const void *b)
{
	return cmp_u64(&((const struct copy *)a)->block, &((const struct copy *)b)->block);
}

/* Blocks that are held back now have a newer content than the log's: the log's goes home, past the cache. @n: up to RANGES. */
static int copy_home(struct ext4_fs *fs, const struct copy *c, unsigned n, uint8_t *buf)
{
	struct ext4_journal *j = fs->journal;
	const be32 magic = be32_of(JBD2_MAGIC);
	uint32_t bs = fs->block_size;
	struct iovec iov[RANGES];
	struct vhd_io io[RANGES];
	int err;

	for (unsigned i = 0; i < n; i++) {
		uint64_t at = c[i].at & ~(uint64_t)LOGGED_ESCAPED;

		iov[i] = (struct iovec){buf + (size_t)i * bs, bs};
		io[i] = (struct vhd_io){.off = j->place[at] * bs, .iov = &iov[i], .niov = 1};
	}
	if ((err = cache_readv_direct(fs->dev, io, n)) < 0)
		return err;
	for (unsigned i = 0; i < n; i++) {
		if (c[i].at & LOGGED_ESCAPED)
			memcpy(iov[i].iov_base, &magic, sizeof magic);
		io[i].off = c[i].block * bs;
	}
	return cache_write_direct(fs->dev, io, n);
}

static bool is_held_now(struct ext4_journal *j, uint64_t block)
{
	bool held;

	lock_take(&j->mu);
	held = is_held(j, block, j->committing != NULL);
	lock_drop(&j->mu);
	return held;
}

static int write_home(struct ext4_fs *fs, struct copy *c, uint32_t n)
{
	struct ext4_journal *j = fs->journal;
	uint8_t *buf = aligned_alloc(4096, round_up_u64((uint64_t)RANGES * fs->block_size, 4096));
	int err = buf ? 0 : -ENOMEM;

	for (uint32_t at = 0; at < n && !err;) {
		struct cache_range r[RANGES];
		unsigned k = 0;

		for (; at < n; at++) {
			uint64_t off = c[at].block << fs->block_bits;

			if (k && r[k - 1].off + r[k - 1].len == off)
				r[k - 1].len += fs->block_size;
			else if (k == RANGES)
				break;
			else
				r[k++] = (struct cache_range){off, fs->block_size};
		}
		err = cache_writeback_ranges(fs->dev, r, k);
	}
	/* Held before or meanwhile: left out above. Twice does no harm. */
	for (uint32_t at = 0; at < n && !err;) {
		struct copy held[RANGES];
		unsigned k = 0;

		for (; at < n && k < RANGES; at++)
			if (is_held_now(j, c[at].block))
				held[k++] = c[at];
		if (k)
			err = copy_home(fs, held, k, buf);
	}
	free(buf);
	return err;
}

int ext4_journal_checkpoint_held(struct ext4_fs *fs) NO_THREAD_SAFETY
{
	struct ext4_journal *j = fs->journal;
	struct copy *c;
	uint32_t n = 0;
	int err;

	lock_take(&j->mu);
	c = malloc(((size_t)j->logged.n + 1) * sizeof *c);
	if (c)
		u64map_for_each(s, &j->logged) c[n++] = (struct copy){s->key, s->value};
	lock_drop(&j->mu);
	if (!c)
		return -ENOMEM;
	qsort(c, n, sizeof *c, cmp_copy);
	err = write_home(fs, c, n);
	free(c);
	if (!err)
		err = cache_flush_device(fs->dev);
	if (err)
		return err;
	j->super.sequence = be32_of(j->sequence);
	j->super.start = be32_of(j->head);
	if ((err = ext4_journal_write_super(j, fs->dev)) < 0 || (err = cache_flush_device(fs->dev)) < 0)
		return err;
	lock_take(&j->mu);
	u64map_clear(&j->logged);
	lock_drop(&j->mu);
	j->used = 0;
	return 0;
}

int ext4_journal_checkpoint(struct ext4_fs *fs)
{
	struct ext4_journal *j = fs->journal;
	int err;

	lock_take(&j->write_mu);
	err = ext4_may_change(fs);
	if (!err)
		err = ext4_journal_checkpoint_held(fs);
	lock_drop(&j->write_mu);
	return err;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * recover.c - what the journal holds after a crash goes home
 *
 * Three walks over the log, from the superblock's `start` to the last whole transaction: all is checked before anything is
 * written, then the revoked numbers are gathered, then the copies are written. The journal is emptied when they are on the disk,
 * so a crash in here only means that it is done once more.
 *
 * An image that may only be read is read as if that had been done: the copies lie over it in memory.
 */
#include "vhd/ext4/journal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vhd/base/checked.h"
#include "vhd/base/log.h"

#define WINDOW 64u /* blocks read at a time */

enum pass { SCAN, REVOKE, REPLAY };

struct replay {
	struct cache_dev *dev;
	struct ext4_journal *j;
	struct why *why;
	bool in_memory;
	uint64_t blocks;       /* of the file system */
	uint32_t start, seq;   /* where the log begins */
	uint32_t end_seq;      /* one behind the last whole transaction */
	struct u64map revoked; /* block -> the last sequence that revokes it */
	uint32_t sum;          /* of the transaction so far, in the first walk */
	uint32_t written;
	uint8_t *window, *block;
	uint32_t at, n; /* window: the first block of the ring in it, and how many */
};

/* ---- blocks of the log ------------------------------------------------------------------------------------------------------- */

static uint32_t wrap(const struct ext4_journal *j, uint64_t at)
{
	return (uint32_t)(at >= j->end ? at - (j->end - j->first) : at);
}

/* A block of the ring; good until the next call. */
static int log_block(struct replay *r, uint32_t pos, const uint8_t **out)
{
	struct ext4_journal *j = r->j;
	uint32_t bs = j->fmt.block_size;

	if (pos < r->at || pos - r->at >= r->n) {
		int err;

		r->at = pos;
		r->n = 1;
		while (r->n < WINDOW && pos + r->n < j->end && j->place[pos + r->n] == j->place[pos] + r->n)
			r->n++;
		err = cache_read_direct(r->dev, r->window, (uint64_t)r->n * bs, j->place[pos] * bs);
		if (err) {
			r->n = 0;
			return why_set(r->why, err, "ext4: journal block %u: %s", pos, strerror(-err));
		}
	}
	*out = r->window + (size_t)(pos - r->at) * bs;
	return 0;
}

/* The checksum at @at of a block, computed with zeros in its place. */
static bool sum_ok(const struct replay *r, uint8_t *b, uint32_t at)
{
	be32 found, zero = be32_of(0);
	uint32_t sum;

	memcpy(&found, b + at, sizeof found);
	memcpy(b + at, &zero, sizeof zero);
	sum = ext4_journal_crc(r->j->fmt.seed, b, r->j->fmt.block_size);
	memcpy(b + at, &found, sizeof found);
	return sum == be32_get(found);
}

static bool tail_ok(const struct replay *r, uint8_t *b)
{
	return !jbd2_tail_bytes(&r->j->fmt) || sum_ok(r, b, r->j->fmt.block_size - 4);
}

/* The one sum of the transaction; none is right too. */
static bool sum_fits(const struct replay *r, const uint8_t *b)
{
	struct jbd2_commit c;

	memcpy(&c, b, sizeof c);
	if (!c.checksum_type && !c.checksum_size && !be32_get(c.checksum[0]))
		return true;
	return c.checksum_type == JBD2_CRC32 && c.checksum_size == JBD2_CRC32_BYTES &&
	       be32_get(c.checksum[0]) == r->sum;
}

static bool commit_ok(const struct replay *r, uint8_t *b)
{
	return !jbd2_tail_bytes(&r->j->fmt) || sum_ok(r, b, offsetof(struct jbd2_commit, checksum));
}

/* ---- tags ----------------------------------------------------------------------------------------------------------------------- */

struct tag {
	uint64_t block;
	uint32_t flags, sum;
};

/* The tag at *at of a descriptor; *at moves behind it. False: no room for one. */
static bool next_tag(const struct jbd2_format *f, const uint8_t *b, uint32_t *at, struct tag *t)
{
	uint32_t bytes = jbd2_tag_bytes(f), end = f->block_size - jbd2_tail_bytes(f);

	if (*at + bytes > end)
		return false;
	if (f->csum3) {
		struct jbd2_tag3 d;

		memcpy(&d, b + *at, sizeof d);
		*t = (struct tag){be32_get(d.block), be32_get(d.flags), be32_get(d.checksum)};
		t->block |= f->wide ? (uint64_t)be32_get(d.block_high) << 32 : 0;
	} else {
		struct jbd2_tag d = {.block_high = be32_of(0)};

		memcpy(&d, b + *at, bytes < sizeof d ? bytes : sizeof d);
		*t = (struct tag){be32_get(d.block), be16_get(d.flags), be16_get(d.checksum)};
		t->block |= f->wide ? (uint64_t)be32_get(d.block_high) << 32 : 0;
	}
	*at += bytes + (t->flags & JBD2_T_SAME_UUID ? 0 : 16);
	return true;
}

static bool copy_ok(const struct replay *r, const struct tag *t, uint32_t seq, const uint8_t *copy)
{
	const struct jbd2_format *f = &r->j->fmt;
	be32 s = be32_of(seq);
	uint32_t sum;

	if (!f->csum2 && !f->csum3)
		return true;
	sum = ext4_journal_crc(ext4_journal_crc(f->seed, &s, sizeof s), copy, f->block_size);
	return t->sum == (f->csum3 ? sum : (sum & 0xffff));
}

static bool is_revoked(const struct replay *r, uint64_t block, uint32_t seq)
{
	uint64_t *by = u64map_get(&r->revoked, block);

	return by && (int32_t)((uint32_t)*by - seq) >= 0;
}

static int put_home(struct replay *r, const struct tag *t, const uint8_t *copy)
{
	uint32_t bs = r->j->fmt.block_size;
	be32 magic = be32_of(JBD2_MAGIC);
	int err;

	memcpy(r->block, copy, bs);
	if (t->flags & JBD2_T_ESCAPED)
		memcpy(r->block, &magic, sizeof magic);
	err = r->in_memory ? cache_overlay(r->dev, r->block, bs, t->block * bs)
			   : cache_write(r->dev, r->block, bs, t->block * bs, CACHE_META);
	if (err)
		return why_set(r->why, err, "ext4: replaying block %llu: %s", (unsigned long long)t->block,
			       strerror(-err));
	r->written++;
	return 0;
}

/* The copies behind a descriptor. How many blocks, or a negative errno. In the first walk the transaction may yet turn out to have
 * no commit block: *bad tells of a copy that is not what was written. */
static int64_t walk_copies(struct replay *r, enum pass pass, uint32_t pos, uint32_t seq, const uint8_t *desc, bool *bad)
{
	uint32_t at = sizeof(struct jbd2_header), n = 0, ring = r->j->end - r->j->first;
	const uint8_t *copy;
	struct tag t;
	int err;

	while (n < ring && next_tag(&r->j->fmt, desc, &at, &t)) {
		n++;
		if (pass != REVOKE) {
			if ((err = log_block(r, wrap(r->j, (uint64_t)pos + n), &copy)) < 0)
				return err;
			if (pass == SCAN && r->j->fmt.sum)
				r->sum = ext4_journal_sum(r->sum, copy, r->j->fmt.block_size);
			if (pass == SCAN && (t.block >= r->blocks || !copy_ok(r, &t, seq, copy)))
				*bad = true;
			if (pass == REPLAY && !is_revoked(r, t.block, seq) && (err = put_home(r, &t, copy)) < 0)
				return err;
		}
		if (t.flags & JBD2_T_LAST)
			break;
	}
	return n;
}

static int note_revoked(struct replay *r, const uint8_t *b, uint32_t seq)
{
	const struct jbd2_format *f = &r->j->fmt;
	uint32_t width = f->wide ? 8 : 4, end;
	struct jbd2_revoke h;

	memcpy(&h, b, sizeof h);
	end = be32_get(h.bytes);
	if (end > f->block_size - jbd2_tail_bytes(f))
		return why_set(r->why, -EUCLEAN, "ext4: journal: a revoke block of %u bytes", end);
	for (uint32_t at = sizeof h; at + width <= end; at += width) {
		be64 wide;
		be32 narrow;
		uint64_t block, *by;

		memcpy(&narrow, b + at, sizeof narrow);
		block = be32_get(narrow);
		if (f->wide) {
			memcpy(&wide, b + at, sizeof wide);
			block = be64_get(wide);
		}
		if (block >= r->blocks)
			continue;
		by = u64map_get(&r->revoked, block);
		if (by && (int32_t)(seq - (uint32_t)*by) <= 0)
			continue;
		if (u64map_put(&r->revoked, block, seq) < 0)
			return -ENOMEM;
	}
	return 0;
}

/* ---- walking ---------------------------------------------------------------------------------------------------------------------- */

static int walk(struct replay *r, enum pass pass)
{
	struct ext4_journal *j = r->j;
	uint32_t pos = r->start, seq = r->seq, ring = j->end - j->first;
	AUTO(freep) uint8_t *b = malloc(j->fmt.block_size);
	bool bad = false;
	int err = b ? 0 : -ENOMEM;

	r->sum = ~0u;

	/* Whatever the log says, no block of it is looked at twice. */
	for (uint32_t walked = 0; !err && walked < ring && (pass == SCAN || seq != r->end_seq);) {
		struct jbd2_header h;
		const uint8_t *found;
		int64_t n = 0;

		if ((err = log_block(r, pos, &found)) < 0)
			break;
		memcpy(b, found, j->fmt.block_size);
		memcpy(&h, b, sizeof h);
		if (be32_get(h.magic) != JBD2_MAGIC || be32_get(h.sequence) != seq)
			break;
		switch (be32_get(h.type)) {
		case JBD2_DESCRIPTOR:
			if (!tail_ok(r, b))
				goto out;
			if (pass == SCAN && j->fmt.sum)
				r->sum = ext4_journal_sum(r->sum, b, j->fmt.block_size);
			n = walk_copies(r, pass, pos, seq, b, &bad);
			err = n < 0 ? (int)n : 0;
			break;
		case JBD2_REVOKE:
			if (!tail_ok(r, b))
				goto out;
			err = pass == REVOKE ? note_revoked(r, b, seq) : 0;
			break;
		case JBD2_COMMIT:
			if (!commit_ok(r, b))
				goto out;
			if (pass == SCAN && j->fmt.sum && !sum_fits(r, b)) {
				if (j->fmt.async) /* cut short */
					goto out;
				bad = true;
			}
			r->sum = ~0u;
			if (bad)
				err = why_set(r->why, -EUCLEAN,
					      "ext4: journal: transaction %u is complete but a block of it is damaged",
					      seq);
			else
				seq++;
			break;
		default:
			goto out;
		}
		if (!err) {
			walked += (uint32_t)n + 1;
			pos = wrap(j, (uint64_t)pos + (uint32_t)n + 1);
		}
	}
out:
	if (pass == SCAN)
		r->end_seq = seq;
	return err;
}

/* ---- the whole -------------------------------------------------------------------------------------------------------------------- */

static int read_format(struct replay *r)
{
	struct jbd2_super *s = &r->j->super;
	uint32_t incompat = be32_get(s->incompat),
		 ours = JBD2_F_REVOKE | JBD2_F_64BIT | JBD2_F_ASYNC | JBD2_F_CSUM2 | JBD2_F_CSUM3;
	struct jbd2_format *f = &r->j->fmt;

	if (incompat & ~ours)
		return why_set(r->why, -ENOTSUP,
			       "ext4: journal with features %#x: mount it with Linux once, or run e2fsck",
			       incompat & ~ours);
	*f = (struct jbd2_format){
		.block_size = be32_get(s->block_size),
		.seed = ext4_journal_crc(~0u, s->uuid, sizeof s->uuid),
		.wide = incompat & JBD2_F_64BIT,
		.csum2 = incompat & JBD2_F_CSUM2,
		.csum3 = incompat & JBD2_F_CSUM3,
		.sum = be32_get(s->compat) & JBD2_C_CHECKSUM,
		.async = incompat & JBD2_F_ASYNC,
	};
	if ((f->csum2 || f->csum3) && s->checksum_type != JBD2_CRC32C)
		return why_set(r->why, -ENOTSUP, "ext4: journal with checksums of type %u, expected 4",
			       s->checksum_type);
	r->j->first = be32_get(s->first);
	r->j->end = be32_get(s->max_len);
	r->start = be32_get(s->start);
	r->seq = be32_get(s->sequence);
	if (r->start && (r->start < r->j->first || r->start >= r->j->end))
		return why_set(r->why, -EUCLEAN, "ext4: journal begins at block %u, expected %u … %u", r->start,
			       r->j->first, r->j->end - 1);
	return 0;
}

static int empty(struct replay *r)
{
	struct ext4_journal *j = r->j;
	int err = cache_flush(r->dev);

	if (err)
		return err;
	j->super.start = be32_of(0);
	/* One is left out: a transaction that was cut short may stand there with that number. */
	j->super.sequence = be32_of(r->end_seq + 1);
	err = ext4_journal_write_super(j, r->dev);
	return err ? err : cache_flush_device(r->dev);
}

static int replay(struct replay *r)
{
	int err = read_format(r);

	if (err || !r->start)
		return err;
	r->window = malloc((size_t)WINDOW * r->j->fmt.block_size);
	r->block = malloc(r->j->fmt.block_size);
	err = r->window && r->block ? walk(r, SCAN) : -ENOMEM;
	if (!err)
		err = walk(r, REVOKE);
	if (!err)
		err = walk(r, REPLAY);
	if (!err && !r->in_memory)
		err = empty(r);
	if (!err)
		log_info("ext4: %u transactions of the journal were replayed, %u blocks %s", r->end_seq - r->seq,
			 r->written, r->in_memory ? "put in place in memory" : "written");
	u64map_free(&r->revoked);
	free(r->window);
	free(r->block);
	return err;
}

int ext4_journal_recover(struct cache_dev *dev, ext2_filsys e2, bool in_memory, struct why *why)
{
	struct ext4_journal j = {.fs = NULL};
	struct replay r = {
		.dev = dev, .j = &j, .why = why, .in_memory = in_memory, .blocks = ext2fs_blocks_count(e2->super)};
	int err = ext4_journal_find(&j, e2, dev, why);

	if (!err)
		err = replay(&r);
	free(j.place);
	return err;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * journal.h - the file system's own journal
 *
 * One transaction is running: operations add the metadata blocks they change, under fs->mu. Their new bytes are in the block cache,
 * held back from the disk (CACHE_HOLD). A commit seals it - still under fs->mu, the blocks are copied - and then, while the next one
 * runs, without any lock of the file system:
 *
 *     data -> disk; revoked numbers, descriptors, copies, a commit block with the sum of them -> log; flush
 *     waiters go on; blocks are let go of, freed blocks may be used again
 *
 * with one more flush, before the commit block, when the transaction makes new data visible (ordered mode) or revokes something.
 *
 * What was let go of is written home by the cache when it likes. Before the log is half full a checkpoint makes sure of it and
 * gives the space back: what the running transaction holds is written home from the log's copy.
 *
 * Rules that tests/crash has proven necessary:
 *  - A block that is freed and has a copy in the log is revoked in the transaction that frees it.
 *  - A freed block is not used again before that transaction has committed (alloc.c keeps it taken).
 *  - An operation lies in one transaction: it reserves room when it begins. Those that are too large (a truncation, the extents of
 *    a fragmented file) restart between steps, each of which leaves a consistent file system.
 *
 * When the host has no room for a commit (-ENOSPC: a dynamic image that cannot grow), the sealed transaction stays as it is and the
 * thread writes it again each second. Nothing of it is promised yet, the log behind it is unchanged, and writing it twice does no harm.
 * Meanwhile `full` is set: new operations answer -ENOSPC, waiters keep waiting, reads go on. A flush that fails is no such case: what
 * it should have written may be lost, so it ends writing.
 *
 * Locks: fs->mu, then journal->write_mu (a commit, from seal to end; held across I/O), then journal->mu (short).
 */
#ifndef VHDNFS_EXT4_JOURNAL_H
#define VHDNFS_EXT4_JOURNAL_H

#include "vhd/ext4/ext4_int.h"

/* Can it be attached? As ext4_journal_open(), and nothing is written. */
int ext4_journal_check(struct ext4_fs *fs, struct why *why) REQUIRES(fs->mu);
/* Attach the file system's journal, which is empty (ext4_journal_recover() has run). The file system is marked as in need of
 * recovery from here on. -ENOTSUP with a line in @why: a kind of journal that is not written. */
int ext4_journal_open(struct ext4_fs *fs, struct why *why) REQUIRES(fs->mu);
/* Commit, checkpoint, mark as clean, free. 0 or the first error. */
int ext4_journal_close(struct ext4_fs *fs);

/* Replay what the journal of the unopened file system holds: all writes go home and to the disk, the journal is empty then; or
 * (@in_memory) they lie over the device from now on, and nothing is written. The superblock still says that it needs recovery.
 * @e2: opened read-only, for the journal's place only; must be opened again. */
int ext4_journal_recover(struct cache_dev *dev, ext2_filsys e2, bool in_memory, struct why *why);

/* ---- inside operations, under fs->mu --------------------------------------------------------------------------------- */

/* The only way for metadata to change: into the cache and, when there is a journal, the running transaction. */
int ext4_meta_write(struct ext4_fs *fs, const void *buf, uint64_t len, uint64_t off) REQUIRES(fs->mu);
/* Is there room for @credits more blocks, and memory for what is held back? Without a journal: always. */
bool ext4_journal_room(struct ext4_fs *fs, unsigned credits) REQUIRES(fs->mu);
/* Ends the transaction in the middle of a long operation and begins the next; inodes that must be consistent with it are stored
 * before, by the caller, who may hold one node's lock. */
int ext4_journal_restart(struct ext4_fs *fs) REQUIRES(fs->mu);
/* A block was freed; it may be used again when the transaction has committed. */
void ext4_journal_freed(struct ext4_fs *fs, uint64_t pblk, uint64_t len) REQUIRES(fs->mu);
/* This data goes to the disk with the running transaction. @fresh: the transaction makes it visible, in blocks that held somebody
 * else's, so it is there before the transaction can count. */
void ext4_journal_order(struct ext4_fs *fs, uint64_t pblk, uint64_t len, bool fresh) REQUIRES(fs->mu);
/* Is some of this run data that goes to the disk with the transaction that is being committed, if there is one? */
bool ext4_journal_owes(struct ext4_fs *fs, uint64_t pblk, uint64_t len) REQUIRES(fs->mu);

/* What was written to the disk before now is on stable storage when the running transaction is, even if that is empty. */
void ext4_journal_flush(struct ext4_fs *fs) REQUIRES(fs->mu);

/* ---- waiting ------------------------------------------------------------------------------------------------------------ */

/* Number of the running transaction. */
uint64_t ext4_journal_running(struct ext4_fs *fs) REQUIRES(fs->mu);
bool ext4_journal_is_durable(struct ext4_fs *fs, uint64_t tid);
/* Until the transaction is on stable storage, which is begun now if need be. -EIO: it will never be; -ENOSPC: not before the host has
 * room. */
int ext4_journal_wait(struct ext4_fs *fs, uint64_t tid);

/* As fs_ops.hurry. */
void ext4_op_hurry(struct fs *f);
/* As fs_ops.when_stable. */
int ext4_journal_when(struct ext4_fs *fs, uint64_t tid, struct fs_waiter *w);
/* All that was done before is on stable storage. */
int ext4_journal_sync(struct ext4_fs *fs);
/* Blocks that wait for a commit become free. */
void ext4_journal_settle(struct ext4_fs *fs);

/* ---- between journal.c and commit.c ------------------------------------------------------------------------------------ */

#include "vhd/base/u64map.h"
#include "vhd/ext4/jbd2.h"

struct ext4_run {
	uint64_t pblk, len;
};
struct ext4_runs {
	struct ext4_run *r;
	uint32_t n, cap;
};

struct ext4_tx {
	uint64_t tid;
	struct u64map blocks;     /* number -> TX_LIVE or TX_DEAD (freed since); changes under fs->mu and journal->mu */
	uint64_t *joined;         /* all blocks.n of these numbers */
	struct ext4_runs freed;   /* taken until this has committed */
	struct ext4_runs ordered; /* data */
	uint64_t *revoke;
	uint32_t nrevoke, revoke_cap;
	bool fresh;     /* some of that data is in blocks that nothing on disk leads to yet */
	bool flush;     /* wanted, whatever else there is */
	uint64_t *list; /* sealed: the live blocks, ascending */
	uint32_t nlist;
};
enum { TX_LIVE = 1, TX_DEAD = 2 };

struct ext4_journal {
	struct ext4_fs *fs;
	/* Constant. */
	struct jbd2_format fmt;
	struct jbd2_super super; /* as on disk; write_mu */
	uint64_t *place;         /* block of the journal -> block of the device */
	struct u64map
		shared; /* blocks of the device, smaller than a unit of the cache, beside what is no part of the log */
	uint32_t first, end; /* the ring */
	uint32_t tx_max;     /* blocks of one transaction */

	/* Under write_mu. */
	struct lock write_mu;
	uint32_t sequence;   /* of the next transaction in the log; one with nothing in it has none */
	uint32_t head, used; /* where the next transaction begins; blocks of the ring that are not given back */
	uint8_t *buf;        /* the sealed transaction as it is in the log: tx_max copies and what goes with them */
	uint32_t buf_blocks, buf_used;
	uint32_t buf_revokes; /* blocks at its beginning */
	uint32_t *copy_at;    /* of the copies in buf: where, as in `logged`, but counted from the beginning of buf */

	struct lock mu;
	struct cond cond; /* durable or failed changed */
	struct cond work; /* for the thread: it is wanted, as many wait as it gathers, or it is to stop */
	struct ext4_tx tx[2];
	struct ext4_tx *running; /* changes under fs->mu and mu */
	struct ext4_tx *committing GUARDED_BY(mu);
	struct u64map logged GUARDED_BY(mu); /* block -> where its last copy is in the log | LOGGED_ESCAPED */
	uint64_t want GUARDED_BY(mu);
	struct list waiters GUARDED_BY(mu); /* struct fs_waiter */
	uint32_t nwaiting GUARDED_BY(mu);   /* of them */
	uint32_t usual GUARDED_BY(mu);      /* so many were told last time */
	uint64_t commit_ns;                 /* what the last commit took; the committer's own */
	_Atomic uint64_t durable;           /* the last tid on stable storage */
	bool unmarked; /* the superblock has to say first that the journal is in use: after a snapshot; write_mu */
	bool stop GUARDED_BY(mu);
	bool hurry GUARDED_BY(mu); /* nobody waits for room: fs_ops.hurry */
	bool idle GUARDED_BY(mu);  /* the thread waits for somebody to want it */
	bool started;
	pthread_t thread;
};
#define LOGGED_ESCAPED 0x80000000u

/* For tests/crash alone, which must notice each of them: rules that are broken on purpose. */
enum {
	JOURNAL_COMMIT_EARLY = 1,
	JOURNAL_NO_REVOKE = 2,
	JOURNAL_REUSE_EARLY = 4,
	JOURNAL_NO_ORDER = 8,
	JOURNAL_DIRTY_TAIL = 16,  /* what is behind the end of file stays */
	JOURNAL_ZEROS_LATER = 32, /* it becomes zeros in memory, and on the disk some time */
};
extern unsigned ext4_journal_mutation;

/* Seal the running transaction; takes write_mu. -ENOSPC: the one before could not be written yet, nothing was sealed. */
int ext4_commit_begin(struct ext4_fs *fs) REQUIRES(fs->mu);
/* Write it; drops write_mu. -ENOSPC: it stays sealed, and the thread will try again. */
int ext4_commit_end(struct ext4_fs *fs);
/* What the host had no room for is written again, if there is such. */
void ext4_journal_retry(struct ext4_fs *fs);
/* The host has no room for what must be written (@err), or has it again (0). */
void ext4_journal_stall(struct ext4_fs *fs, int err);
/* The file system is in use, says the superblock, and the journal is not empty. After ext4_op_freeze(). */
int ext4_journal_mark_used(struct ext4_fs *fs) REQUIRES(fs->mu);
/* Everything committed is home, the log is empty. */
int ext4_journal_checkpoint(struct ext4_fs *fs);
int ext4_journal_checkpoint_held(struct ext4_fs *fs); /* with write_mu */
/* The journal's superblock, checked, and where its blocks are: sets j->super and j->place. */
int ext4_journal_find(struct ext4_journal *j, ext2_filsys e2, struct cache_dev *dev, struct why *why);
int ext4_journal_write_super(struct ext4_journal *j, struct cache_dev *dev);
/* Into the image, and waits, through the cache: for what shares a unit with other things. */
int ext4_journal_write_shared(struct cache_dev *dev, uint32_t block_size, const void *buf, uint64_t len, uint64_t off);
/* Nothing is changed any more; also without a journal. @what goes to the log, the first time. */
void ext4_journal_fail(struct ext4_fs *fs, int err, const char *what);
void ext4_journal_tell(struct ext4_journal *j); /* those who wait, of what has become durable, or never will */
int ext4_runs_add(struct ext4_runs *l, uint64_t pblk, uint64_t len);
uint32_t ext4_journal_crc(uint32_t seed, const void *p, size_t len);
uint32_t ext4_journal_sum(uint32_t sum, const void *p, size_t len); /* of commit blocks: CRC32, big-endian */

#endif

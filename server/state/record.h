/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * record.h - which clients may reclaim after a restart, in a file (SQLite)
 *
 * A client is on record from its RECLAIM_COMPLETE on, which comes before its first open, until somebody else was given what it
 * held, or it is gone. Every change is on stable storage when the call returns, or when the batch that it is in was committed.
 * One lock around each call; they block, and are made a few times in a client's life.
 */
#ifndef VHDNFS_SERVER_STATE_RECORD_H
#define VHDNFS_SERVER_STATE_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "server/state/state.h"
#include "vhd/base/why.h"

struct st_records;

/* One client: who it is, which of its lives (co_verifier), and who may speak for it. */
struct st_record {
	struct st_name owner;
	bool known; /* false: an older version kept neither of the next two */
	uint8_t verifier[8];
	struct st_principal who;
};

/* Opened, or made when it is not there; for us alone. -EBUSY another server has it; -EACCES it is another user's; -EUCLEAN it is something else, or damaged, or of
 * a newer kind, and was not touched; what making it says. One line in @why. */
int st_records_open(struct st_records **out, const char *path, struct why *why);
void st_records_close(struct st_records *r); /* NULL is accepted */

/* When, in seconds since 1970, a server started after one that did not say that it stops: the last time that was so. It never is less than
 * before, also without the records of before. */
uint32_t st_records_epoch(const struct st_records *r);
/* That we run, where the host had no room to say so when the records were opened. */
void st_records_retry(struct st_records *r);
struct st_fh_key st_records_fh_key(const struct st_records *r);
/* Everything that this server answered for is on stable storage, and it answers no more. */
int st_records_stopped(struct st_records *r);

/* Each client on record; stops at the first error that @fn returns, and returns it. */
int st_records_each(struct st_records *r, int (*fn)(void *arg, const struct st_record *c), void *arg);
/* In place of what is there of the same owner. What fails is in the log, once until something succeeds. */
int st_records_put(struct st_records *r, const struct st_record *c);
int st_records_del(struct st_records *r, const struct st_name *owner);
/* Changes in between become stable together, or none: one thread, begin first, then end with what failed or 0, which it
 * returns unless ending itself fails. */
int st_records_begin(struct st_records *r);
int st_records_end(struct st_records *r, int err);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * record.h - which clients may reclaim after a restart, in a file (SQLite)
 *
 * A client is on record from its RECLAIM_COMPLETE on, which comes before its first open, until somebody else was given what it
 * held, or it is gone. Every change is on stable storage when the call returns. One lock around all; these calls block, and are
 * made a few times in a client's life.
 */
#ifndef VHDNFS_SERVER_STATE_RECORD_H
#define VHDNFS_SERVER_STATE_RECORD_H

#include <stdint.h>

#include "server/state/state.h"
#include "vhd/base/why.h"

struct st_records;

/* Opened, or made when it is not there; for us alone. -EBUSY another server has it; -EUCLEAN it is something else, or damaged, or of
 * a newer kind; what making it says. One line in @why. */
int st_records_open(struct st_records **out, const char *path, struct why *why);
void st_records_close(struct st_records *r); /* NULL is accepted */

/* Each client on record; stops at the first error that @fn returns, and returns it. */
int st_records_each(struct st_records *r, int (*fn)(void *arg, const struct st_name *owner), void *arg);
int st_records_put(struct st_records *r, const struct st_name *owner);
int st_records_del(struct st_records *r, const struct st_name *owner);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* record.c - see record.h */
#include "server/state/record.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdlib.h>

#include "vhd/base/lock.h"
#include "vhd/base/log.h"

#define VERSION 1

struct st_records {
	struct lock mu;
	sqlite3 *db GUARDED_BY(mu);
	sqlite3_stmt *put GUARDED_BY(mu), *del GUARDED_BY(mu);
	char *path;
};

static int errno_of(int rc)
{
	switch (rc & 0xff) {
	case SQLITE_OK:
	case SQLITE_DONE:
	case SQLITE_ROW:
		return 0;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EBUSY;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_READONLY:
	case SQLITE_PERM:
	case SQLITE_CANTOPEN:
		return -EACCES;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return -EUCLEAN;
	default:
		return -EIO;
	}
}

/* One number that a statement yields. */
static int ask(sqlite3 *db, const char *sql, int64_t *out)
{
	sqlite3_stmt *st = NULL;
	int rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);

	if (rc == SQLITE_OK && (rc = sqlite3_step(st)) == SQLITE_ROW)
		*out = sqlite3_column_int64(st, 0);
	sqlite3_finalize(st);
	return errno_of(rc);
}

/* The lock on the file is kept as long as it is open, so there is no other server, and no file of shared memory. */
static int prepare(struct st_records *r, struct why *why) NO_THREAD_SAFETY
{
	static const char *const make = "BEGIN IMMEDIATE;"
					"CREATE TABLE IF NOT EXISTS client (owner BLOB PRIMARY KEY) WITHOUT ROWID;"
					"PRAGMA user_version = 1;"
					"COMMIT;";
	int64_t version = 0;
	int rc, err;

	rc = sqlite3_exec(r->db,
			  "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;",
			  NULL, NULL, NULL);
	err = errno_of(rc);
	if (!err)
		err = ask(r->db, "PRAGMA user_version", &version);
	if (!err && version > VERSION)
		return why_set(why, -EUCLEAN, "%s: client records of version %lld, expected %d at most", r->path,
			       (long long)version, VERSION);
	if (!err && (rc = sqlite3_exec(r->db, make, NULL, NULL, NULL)) != SQLITE_OK)
		err = errno_of(rc);
	if (!err)
		err = errno_of(sqlite3_prepare_v2(r->db, "INSERT OR IGNORE INTO client VALUES (?)", -1, &r->put, NULL));
	if (!err)
		err = errno_of(sqlite3_prepare_v2(r->db, "DELETE FROM client WHERE owner = ?", -1, &r->del, NULL));
	if (err == -EBUSY)
		return why_set(why, err, "%s: another server has these client records", r->path);
	return err ? why_set(why, err, "%s: client records: %s", r->path, sqlite3_errmsg(r->db)) : 0;
}

int st_records_open(struct st_records **out, const char *path, struct why *why) NO_THREAD_SAFETY
{
	struct st_records *r = calloc(1, sizeof *r);
	int rc, err;

	if (!r)
		return -ENOMEM;
	lock_init(&r->mu);
	r->path = strdup(path);
	rc = r->path ? sqlite3_open_v2(path, &r->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
				       NULL)
		     : SQLITE_NOMEM;
	if (rc != SQLITE_OK)
		err = why_set(why, errno_of(rc), "%s: client records: %s", path, sqlite3_errstr(rc));
	else
		err = prepare(r, why);
	if (err) {
		st_records_close(r);
		return err;
	}
	*out = r;
	return 0;
}

void st_records_close(struct st_records *r) NO_THREAD_SAFETY
{
	if (!r)
		return;
	sqlite3_finalize(r->put);
	sqlite3_finalize(r->del);
	sqlite3_close(r->db);
	lock_fini(&r->mu);
	free(r->path);
	free(r);
}

int st_records_each(struct st_records *r, int (*fn)(void *arg, const struct st_name *owner), void *arg)
{
	sqlite3_stmt *st = NULL;
	int rc, err = 0;

	lock_take(&r->mu);
	rc = sqlite3_prepare_v2(r->db, "SELECT owner FROM client", -1, &st, NULL);
	while (!err && rc != SQLITE_DONE && (rc == SQLITE_OK || rc == SQLITE_ROW)) {
		rc = sqlite3_step(st);
		if (rc == SQLITE_ROW) {
			int len = sqlite3_column_bytes(st, 0);
			struct st_name owner = {sqlite3_column_blob(st, 0), (uint32_t)len};

			if (len > 0 && len <= ST_NAME_MAX)
				err = fn(arg, &owner);
		}
	}
	sqlite3_finalize(st);
	lock_drop(&r->mu);
	return err ? err : errno_of(rc);
}

static int run(struct st_records *r, sqlite3_stmt *st, const struct st_name *owner) REQUIRES(r->mu)
{
	int rc = sqlite3_bind_blob(st, 1, owner->bytes, (int)owner->len, SQLITE_STATIC);

	if (rc == SQLITE_OK)
		rc = sqlite3_step(st);
	sqlite3_reset(st);
	sqlite3_clear_bindings(st);
	if (errno_of(rc))
		log_error("%s: client records: %s", r->path, sqlite3_errstr(rc));
	return errno_of(rc);
}

int st_records_put(struct st_records *r, const struct st_name *owner)
{
	int err;

	lock_take(&r->mu);
	err = run(r, r->put, owner);
	lock_drop(&r->mu);
	return err;
}

int st_records_del(struct st_records *r, const struct st_name *owner)
{
	int err;

	lock_take(&r->mu);
	err = run(r, r->del, owner);
	lock_drop(&r->mu);
	return err;
}

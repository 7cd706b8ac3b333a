/* SPDX-License-Identifier: BSD-3-Clause */
/* record.c - see record.h */
#include "server/state/record.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vhd/base/lock.h"
#include "vhd/base/log.h"

#define VERSION 4

struct st_records {
	struct lock mu;
	sqlite3 *db GUARDED_BY(mu);
	sqlite3_stmt *put GUARDED_BY(mu), *del GUARDED_BY(mu);
	bool said GUARDED_BY(mu);  /* that it fails */
	bool begun GUARDED_BY(mu); /* that we run is on record */
	bool was_there;            /* records of before, when we came */
	struct st_fh_key fh_key;
	int64_t epoch;
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

/* What leads from each version to the next; an empty file is of version 0. */
static const char *const upgrades[VERSION] = {
	"BEGIN IMMEDIATE;"
	"CREATE TABLE client (owner BLOB PRIMARY KEY) WITHOUT ROWID;"
	"PRAGMA user_version = 1;"
	"COMMIT;",
	"BEGIN IMMEDIATE;"
	"ALTER TABLE client ADD COLUMN verifier BLOB;"
	"ALTER TABLE client ADD COLUMN flavor INTEGER;"
	"ALTER TABLE client ADD COLUMN uid INTEGER;"
	"PRAGMA user_version = 2;"
	"COMMIT;",
	/* Whatever was before, nobody knows how it stopped. */
	"BEGIN IMMEDIATE;"
	"CREATE TABLE server (running INTEGER, epoch INTEGER);"
	"INSERT INTO server VALUES (1, 0);"
	"PRAGMA user_version = 3;"
	"COMMIT;",
	"BEGIN IMMEDIATE;"
	"CREATE TABLE filehandle (key BLOB);"
	"PRAGMA user_version = 4;"
	"COMMIT;",
};

static int run_sql(struct st_records *r, const char *sql) NO_THREAD_SAFETY
{
	return errno_of(sqlite3_exec(r->db, sql, NULL, NULL, NULL));
}

static int begin_again(struct st_records *r) NO_THREAD_SAFETY
{
	char sql[80];
	int err;

	if (r->begun)
		return 0;
	snprintf(sql, sizeof sql, "UPDATE server SET epoch = %lld, running = 1", (long long)r->epoch);
	err = run_sql(r, sql);
	r->begun = !err;
	return err;
}

/* The server runs from now on. A host that is full says so too late for us to turn back: who reads the image need not wait for that, and
 * later calls try again. Until one succeeds a crash goes unnoticed if the server before stopped cleanly. */
static int begin_run(struct st_records *r) NO_THREAD_SAFETY
{
	int err = ask(r->db,
		      "SELECT CASE WHEN running THEN max(epoch + 1, CAST(strftime('%s', 'now') AS INTEGER)) "
		      "ELSE epoch END FROM server",
		      &r->epoch);

	return err ? err : begin_again(r);
}

/* The key of filehandles: what is there, or a new one. */
static int load_key(struct st_records *r) NO_THREAD_SAFETY
{
	struct st_fh_key *k = &r->fh_key;
	sqlite3_stmt *st = NULL;
	int rc = sqlite3_prepare_v2(r->db, "SELECT key FROM filehandle", -1, &st, NULL), err;

	if (rc == SQLITE_OK && (rc = sqlite3_step(st)) == SQLITE_ROW && sqlite3_column_bytes(st, 0) == sizeof k->key)
		memcpy(k->key, sqlite3_column_blob(st, 0), sizeof k->key);
	else if (rc == SQLITE_ROW)
		rc = SQLITE_CORRUPT;
	sqlite3_finalize(st);
	if (rc != SQLITE_DONE)
		return errno_of(rc);
	if (getrandom(k->key, sizeof k->key, 0) != sizeof k->key)
		return -EIO;
	rc = sqlite3_prepare_v2(r->db, "INSERT INTO filehandle VALUES (?)", -1, &st, NULL);
	if (rc == SQLITE_OK && (rc = sqlite3_bind_blob(st, 1, k->key, sizeof k->key, SQLITE_STATIC)) == SQLITE_OK)
		rc = sqlite3_step(st);
	err = errno_of(rc);
	sqlite3_finalize(st);
	/* Clients of the version before have handles without a hash. */
	k->old = r->was_there;
	return err;
}

/* The lock on the file is kept as long as it is open, so there is no other server, and no file of shared memory. Nothing is
 * written before the version is known. */
static int prepare(struct st_records *r, struct why *why) NO_THREAD_SAFETY
{
	int64_t version = 0;
	int err = run_sql(r, "PRAGMA locking_mode = EXCLUSIVE");

	if (!err)
		err = ask(r->db, "PRAGMA user_version", &version);
	if (!err && (version < 0 || version > VERSION))
		return why_set(why, -EUCLEAN, "%s: client records of version %lld, expected %d at most", r->path,
			       (long long)version, VERSION);
	if (!err)
		err = run_sql(r, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;");
	r->was_there = version > 0;
	for (; !err && version < VERSION; version++)
		err = run_sql(r, upgrades[version]);
	if (!err)
		err = load_key(r);
	if (!err && (err = begin_run(r)) == -ENOSPC) {
		log_warn("%s: client records: the host has no room; clients may be unable to reclaim until it has",
			 r->path);
		err = 0;
	}
	if (!err)
		err = errno_of(sqlite3_prepare_v2(r->db, "INSERT OR REPLACE INTO client VALUES (?, ?, ?, ?)", -1,
						  &r->put, NULL));
	if (!err)
		err = errno_of(sqlite3_prepare_v2(r->db, "DELETE FROM client WHERE owner = ?", -1, &r->del, NULL));
	if (err == -EBUSY)
		return why_set(why, err, "%s: another server has these client records", r->path);
	return err ? why_set(why, err, "%s: client records: %s", r->path, sqlite3_errmsg(r->db)) : 0;
}

/* They hold a key, and who our clients are. -EACCES with a line: they are somebody else's. */
static int make_private(const char *path, struct why *why)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	struct stat st;

	if (fd >= 0)
		close(fd);
	else if (errno != EEXIST) /* a folder that is not there cannot be written either */
		return why_set(why, errno == ENOENT ? -EACCES : -errno, "%s: client records: %s", path,
			       strerror(errno));
	if (stat(path, &st) < 0)
		return why_set(why, -errno, "%s: client records: %s", path, strerror(errno));
	if (st.st_uid != geteuid() && geteuid() != 0)
		return why_set(why, -EACCES, "%s: client records of another user (uid %u, the server runs as %u)", path,
			       (unsigned)st.st_uid, (unsigned)geteuid());
	if (st.st_mode & 077 && chmod(path, st.st_mode & 0700) < 0)
		return why_set(why, -errno, "%s: client records: %s", path, strerror(errno));
	return 0;
}

int st_records_open(struct st_records **out, const char *path, struct why *why) NO_THREAD_SAFETY
{
	struct st_records *r = calloc(1, sizeof *r);
	int rc, err;

	if (!r)
		return -ENOMEM;
	lock_init(&r->mu);
	if ((err = make_private(path, why)) < 0) {
		st_records_close(r);
		return err;
	}
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

uint32_t st_records_epoch(const struct st_records *r)
{
	return (uint32_t)r->epoch;
}

struct st_fh_key st_records_fh_key(const struct st_records *r)
{
	return r->fh_key;
}

static struct st_record row_of(sqlite3_stmt *st)
{
	struct st_record c = {.owner = {sqlite3_column_blob(st, 0), (uint32_t)sqlite3_column_bytes(st, 0)}};

	c.known = sqlite3_column_bytes(st, 1) == sizeof c.verifier;
	if (c.known)
		memcpy(c.verifier, sqlite3_column_blob(st, 1), sizeof c.verifier);
	c.who.flavor = (uint32_t)sqlite3_column_int64(st, 2);
	c.who.uid = (uint32_t)sqlite3_column_int64(st, 3);
	return c;
}

int st_records_each(struct st_records *r, int (*fn)(void *arg, const struct st_record *c), void *arg)
{
	sqlite3_stmt *st = NULL;
	int rc, err = 0;

	lock_take(&r->mu);
	rc = sqlite3_prepare_v2(r->db, "SELECT owner, verifier, flavor, uid FROM client", -1, &st, NULL);
	while (!err && rc != SQLITE_DONE && (rc == SQLITE_OK || rc == SQLITE_ROW)) {
		rc = sqlite3_step(st);
		if (rc == SQLITE_ROW) {
			struct st_record c = row_of(st);

			if (c.owner.len && c.owner.len <= ST_NAME_MAX)
				err = fn(arg, &c);
		}
	}
	sqlite3_finalize(st);
	lock_drop(&r->mu);
	return err ? err : errno_of(rc);
}

/* @rc of what was tried, as an errno; said once, until something is stable again. */
static int outcome(struct st_records *r, int rc) REQUIRES(r->mu)
{
	int err = errno_of(rc);

	if (err && !r->said)
		log_error("%s: client records: %s", r->path, sqlite3_errstr(rc));
	if (err)
		r->said = true;
	else if (sqlite3_get_autocommit(r->db))
		r->said = false;
	return err;
}

/* A statement whose values are bound. */
static int step(struct st_records *r, sqlite3_stmt *st) REQUIRES(r->mu)
{
	int rc;

	if (sqlite3_get_autocommit(r->db))
		(void)begin_again(r);
	rc = sqlite3_step(st);

	sqlite3_reset(st);
	sqlite3_clear_bindings(st);
	return outcome(r, rc);
}

int st_records_put(struct st_records *r, const struct st_record *c)
{
	int rc, err;

	lock_take(&r->mu);
	rc = sqlite3_bind_blob(r->put, 1, c->owner.bytes, (int)c->owner.len, SQLITE_STATIC);
	if (rc == SQLITE_OK)
		rc = sqlite3_bind_blob(r->put, 2, c->verifier, sizeof c->verifier, SQLITE_STATIC);
	if (rc == SQLITE_OK)
		rc = sqlite3_bind_int64(r->put, 3, c->who.flavor);
	if (rc == SQLITE_OK)
		rc = sqlite3_bind_int64(r->put, 4, c->who.uid);
	err = rc == SQLITE_OK ? step(r, r->put) : outcome(r, rc);
	lock_drop(&r->mu);
	return err;
}

int st_records_del(struct st_records *r, const struct st_name *owner)
{
	int rc, err;

	lock_take(&r->mu);
	rc = sqlite3_bind_blob(r->del, 1, owner->bytes, (int)owner->len, SQLITE_STATIC);
	err = rc == SQLITE_OK ? step(r, r->del) : outcome(r, rc);
	lock_drop(&r->mu);
	return err;
}

static int exec(struct st_records *r, const char *sql)
{
	int err;

	lock_take(&r->mu);
	if (sqlite3_get_autocommit(r->db))
		(void)begin_again(r);
	err = outcome(r, sqlite3_exec(r->db, sql, NULL, NULL, NULL));
	lock_drop(&r->mu);
	return err;
}

void st_records_retry(struct st_records *r)
{
	lock_take(&r->mu);
	(void)begin_again(r);
	lock_drop(&r->mu);
}

int st_records_stopped(struct st_records *r)
{
	return exec(r, "UPDATE server SET running = 0");
}

int st_records_begin(struct st_records *r)
{
	return exec(r, "BEGIN IMMEDIATE");
}

int st_records_end(struct st_records *r, int err)
{
	int e = err ? err : exec(r, "COMMIT");

	if (!e)
		return 0;
	lock_take(&r->mu);
	sqlite3_exec(r->db, "ROLLBACK", NULL, NULL, NULL);
	lock_drop(&r->mu);
	return e;
}

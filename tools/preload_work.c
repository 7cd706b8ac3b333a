/* SPDX-License-Identifier: BSD-3-Clause */
/* preload_work.c - the library's thread: hints off the queue, files that are closed, leases; see preload.h */
#include "tools/preload.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TICK_MS 1000u
#define BATCH 256u
#define FILES_MAX 1024u
#define SCAN_SHARE 10u /* of the time, in which descriptors are looked through: one part */

static struct list files = LIST_INIT(files);
static unsigned nfiles;
static bool look;        /* some file may not be open any more */
static uint64_t look_at; /* ms; not before */

void pre_work_after_fork(void)
{
	list_init(&files);
	nfiles = 0;
	look = false;
	look_at = 0;
}

/* ---- files ----------------------------------------------------------------------------------------------------------------------- */

static bool same(const struct pre_id *a, const struct pre_id *b)
{
	return a->ino == b->ino && a->minor == b->minor;
}

static void file_free(struct pre_file *f)
{
	list_del(&f->link);
	nfiles--;
	free(f->path);
	free(f);
}

static struct pre_file *file_new(const struct pre_msg *m)
{
	static struct pre_mount mount;
	static char path[PATH_MAX];
	struct pre_server *s;
	struct pre_file *f;

	if (nfiles >= FILES_MAX) {
		look = true;
		return NULL;
	}
	if (!pre_mount_find(m->id.mount, &mount) || !pre_mount_path(&mount, m->path, path, sizeof path) ||
	    !(s = pre_server_get(&mount)))
		return NULL;
	f = calloc(1, sizeof *f);
	if (!f)
		return NULL;
	f->server = s;
	f->id = m->id;
	f->path = strdup(path);
	list_push_front(&files, &f->link);
	nfiles++;
	if (!f->path) {
		file_free(f);
		return NULL;
	}
	return f;
}

static struct pre_file *file_get(const struct pre_msg *m)
{
	list_for_each (l, &files) {
		struct pre_file *f = list_entry(l, struct pre_file, link);

		if (same(&f->id, &m->id))
			return f;
	}
	return file_new(m);
}

void pre_forget_opens(const struct pre_server *s)
{
	list_for_each (l, &files) {
		struct pre_file *f = list_entry(l, struct pre_file, link);

		if (f->server == s && f->opened) {
			f->opened = false;
			f->again = true;
		}
	}
}

/* ---- which of them the program still has --------------------------------------------------------------------------------------------- */

static bool mark(const struct pre_id *id)
{
	list_for_each (l, &files) {
		struct pre_file *f = list_entry(l, struct pre_file, link);

		if (same(&f->id, id)) {
			f->seen = true;
			return true;
		}
	}
	return false;
}

/* /proc/self is the process: the descriptors are the program's, not ours. False: it cannot be said now. */
static bool mark_open(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned found = 0;
	struct dirent *e;

	if (!d)
		return false;
	while ((e = readdir(d))) {
		struct pre_id id;
		struct statx st;

		if (e->d_name[0] == '.')
			continue;
		found++;
		if (statx(dirfd(d), e->d_name, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_INO, &st) < 0 ||
		    st.stx_dev_major != 0)
			continue;
		id = (struct pre_id){.ino = st.stx_ino, .minor = st.stx_dev_minor};
		/* A copy, made with dup() or so: from now on it counts. */
		if (mark(&id))
			pre_note_fd(atoi(e->d_name));
	}
	closedir(d);
	return found > 0;
}

static void close_unused(void)
{
	uint64_t start = pre_now_ms();
	bool all;

	if (start < look_at)
		return;
	look = false;
	list_for_each (l, &files) {
		struct pre_file *f = list_entry(l, struct pre_file, link);

		f->seen = pre_map_has(&f->id);
	}
	all = list_empty(&files) || !mark_open();
	look_at = pre_now_ms() + SCAN_SHARE * (pre_now_ms() - start);
	list_for_each_safe (l, next, &files) {
		struct pre_file *f = list_entry(l, struct pre_file, link);

		if (f->seen || all)
			continue;
		pre_say_closed(f);
		file_free(f);
	}
}

/* ---- the loop -------------------------------------------------------------------------------------------------------------------- */

static bool ending(void)
{
	return pre_quit_ms() == 0;
}

/* A program often goes on where its last hint ended, or says the same again. */
static bool joins(struct pre_msg *to, const struct pre_msg *m)
{
	if (to->kind != PRE_HINT || !same(&to->id, &m->id) || to->hints != m->hints)
		return false;
	if (to->off == m->off && to->len == m->len)
		return true;
	if (!to->len || !m->len || m->off != to->off + to->len)
		return false;
	to->len += m->len;
	return true;
}

static void say(struct pre_msg *m)
{
	struct pre_file *f = m->kind == PRE_HINT && !ending() ? file_get(m) : NULL;

	if (f)
		pre_say(f, m->hints, m->off, m->len);
	m->kind = PRE_NOTHING;
}

/* What has come meanwhile; other servers' leases want to be looked after as well. */
static void work_off(struct pre_msg *m)
{
	static struct pre_msg waiting;
	unsigned n = 0;

	waiting.kind = PRE_NOTHING;
	do {
		look |= m->kind == PRE_CLOSED;
		if (m->kind != PRE_HINT || joins(&waiting, m))
			continue;
		say(&waiting);
		memcpy(&waiting, m, sizeof waiting);
	} while (++n < BATCH && pre_pop(m, 0));
	say(&waiting);
}

/* A main thread that called pthread_exit() waits for all others, which is to say for us, when we are the last. */
static bool alone(void)
{
	char buf[2048], *p;
	FILE *f = fopen("/proc/self/status", "re");
	bool zombie, two;
	size_t n;

	if (!f)
		return false;
	n = fread(buf, 1, sizeof buf - 1, f);
	fclose(f);
	buf[n] = '\0';
	p = strstr(buf, "\nState:\t");
	zombie = p && p[8] == 'Z';
	p = strstr(buf, "\nThreads:\t");
	two = p && strtoul(p + 10, NULL, 10) <= 2;
	return zombie && two;
}

static void finish(void)
{
	while (!list_empty(&files)) {
		struct pre_file *f = list_first(&files, struct pre_file, link);

		if (!ending())
			pre_say_closed(f);
		file_free(f);
	}
	if (!ending())
		pre_servers_end();
}

void pre_work(void)
{
	static struct pre_msg m;

	while (pre_quit_ms() < 0) {
		if (pre_pop(&m, TICK_MS))
			work_off(&m);
		else if (pre_quit_ms() < 0 && alone())
			break;
		if (pre_quit_ms() >= 0)
			break;
		look |= pre_renew();
		list_for_each (l, &files)
			pre_say_again(list_entry(l, struct pre_file, link));
		if (look)
			close_unused();
	}
	while (!ending() && pre_pop(&m, 0))
		work_off(&m);
	finish();
}

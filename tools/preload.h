/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * preload.h - libvhdnfs-fadvise.so: what programs say to the kernel about their files is said to a vhdnfs server too
 *
 *     program's threads                                     one thread of the library's own
 *     preload.c      posix_fadvise(), open(), close() …     preload_work.c   files that hints were given for
 *     preload_map.c  mmap(), madvise(): which file          preload_nfs.c    a session per server, OPEN, IO_ADVISE
 *         |                                                     ^
 *         +-> preload_mount.c: is it on NFS? -> preload_queue.c +
 *
 * Rules of the left side: the original function is called, its result and errno are the program's; nothing waits, allocates or
 * takes a lock that somebody might hold for long, since close() and open() are called from signal handlers and from children of
 * vfork(). What cannot be done at once is not done. (The exception is the very first hint, which starts the thread.)
 *
 * The thread has a table of file descriptors of its own (close_range() with CLOSE_RANGE_UNSHARE): its sockets take no number
 * that the program might expect, and a program that closes everything does not close them. It leaves none of the program's files
 * open, since the copy begins empty.
 */
#ifndef VHDNFS_TOOLS_PRELOAD_H
#define VHDNFS_TOOLS_PRELOAD_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vhd/base/list.h"

/* Bits of IO_ADVISE (RFC 7862 §15.5), without its header: programs' side knows nothing of RPC. preload_nfs.c checks them. */
enum {
	PRE_NORMAL = 1 << 0,
	PRE_SEQUENTIAL = 1 << 1,
	PRE_RANDOM = 1 << 3,
	PRE_WILLNEED = 1 << 4,
	PRE_DONTNEED = 1 << 6,
	PRE_NOREUSE = 1 << 7,
};

/* A file, as the kernel names it. Its device is an anonymous one (major number 0), or it is not on NFS. */
struct pre_id {
	uint64_t ino;
	uint32_t minor;
	uint32_t mount; /* first field of /proc/self/mountinfo */
	uint64_t size;  /* bytes, as far as the kernel knows; 0: it does not */
};

struct pre_msg {
	enum { PRE_NOTHING, PRE_HINT, PRE_CLOSED } kind; /* PRE_CLOSED: some file may have lost its last descriptor */
	uint32_t hints;
	uint64_t off, len; /* bytes; len 0: to the end of the file */
	struct pre_id id;
	char path[PATH_MAX]; /* as the process sees it; absolute */
};

/* ---- preload_mount.c ----------------------------------------------------------------------------------------------------------- */

/* Any thread: the regular file behind @fd, if it is on an NFSv4 mount. Asks the kernel only, never the server. */
bool pre_identify(int fd, struct pre_id *id);
/* Any thread: those of @hints that can change anything. Whether a small file is read from its beginning does not: the first read
 * has all of it. cp, diff and others say so about every file, which would be OPEN, IO_ADVISE and CLOSE for each. */
uint32_t pre_worth_saying(int fd, const struct pre_id *id, uint32_t hints);
/* Any thread: what /proc says that @fd is called. */
bool pre_path_of(int fd, char to[PATH_MAX]);

struct pre_mount {
	char point[PATH_MAX];  /* where it is mounted */
	char export[PATH_MAX]; /* what is mounted: a path on the server */
	char host[256], port[8];
};

/* One line of mountinfo (proc(5)), changed while it is read. false: not mount @id, or not one of NFSv4 over TCP. */
bool pre_mount_parse(char *line, uint32_t id, struct pre_mount *m);
/* The thread: the same out of /proc/self/mountinfo. */
bool pre_mount_find(uint32_t id, struct pre_mount *m);
/* The path on the server of a file with @path here. false: not below that mount, or too long. */
bool pre_mount_path(const struct pre_mount *m, const char *path, char *to, size_t cap);

/* ---- preload_queue.c ----------------------------------------------------------------------------------------------------------- */

/* Any thread, signal handlers too: the library is on and this is the process that it thinks it is, not a child of vfork(). */
bool pre_on(void);
/* @fd < 0: @path says which file, else /proc says it. Dropped when the queue is full. */
void pre_send_hint(int fd, const char *path, const struct pre_id *id, uint32_t hints, uint64_t off, uint64_t len);
/* @fd has been given hints: its closing matters. */
void pre_note_fd(int fd);
bool pre_noted_fd(int fd);
/* Was it noted? No longer then. Always false in the thread, in children of vfork(), and before the first hint. */
bool pre_forget_fd(int fd);
void pre_forget_fds(unsigned first, unsigned last);
void pre_send_closed(void);

/* The process ends: what was said gets through, and sessions are ended, within a second. Runs by itself at exit(). */
void pre_end(void);

/* The thread's end of it. pre_pop() waits up to @ms; false: nothing came. pre_quit_ms(): what is left of the time that the program
 * gives at its end; negative: it is not ending. */
bool pre_pop(struct pre_msg *m, unsigned ms);
int64_t pre_quit_ms(void);
uint64_t pre_now_ms(void); /* CLOCK_MONOTONIC */
/* To standard error, if the environment asks for it. */
void pre_log(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* ---- preload_map.c ------------------------------------------------------------------------------------------------------------- */

void pre_map_add(void *addr, size_t len, int fd, uint64_t off);
void pre_map_remove(void *addr, size_t len);
void pre_map_hint(void *addr, size_t len, uint32_t hints);
bool pre_map_has(const struct pre_id *id);
void pre_map_after_fork(void);

/* ---- preload_work.c, preload_nfs.c --------------------------------------------------------------------------------------------- */

/* The thread, until the program ends. */
void pre_work(void);
void pre_work_after_fork(void);

/* A file that hints were given for, on its server. */
struct pre_file {
	struct list link;          /* preload_work.c: the files we know */
	struct pre_server *server; /* NULL: its server is not for us, or it is not to be found there */
	struct pre_id id;
	char *path; /* on the server */
	char fh[128];
	uint32_t fh_len; /* 0: not looked up yet */
	uint32_t holds;  /* PRE_SEQUENTIAL, PRE_RANDOM, PRE_NOREUSE */
	bool again;      /* to be opened, and told what holds, when the server can be reached */
	bool opened;     /* else hints go with the special stateid of all zeros */
	uint32_t seqid;  /* the stateid of the open */
	char other[12];
	bool seen; /* preload_work.c */
};

/* Finds out about the server of @f; the connection is made with the first hint. False: out of memory. */
struct pre_server *pre_server_get(const struct pre_mount *m);
/* Says a hint about @f. The file is looked up and opened if it is not; a session that was lost is made anew, once. Errors are dealt
 * with here: they end in silence. */
void pre_say(struct pre_file *f, uint32_t hints, uint64_t off, uint64_t len);
/* What @f->again asks for, if it can be done now. */
void pre_say_again(struct pre_file *f);
/* Closes @f at its server. */
void pre_say_closed(struct pre_file *f);
/* Sessions that nothing was said in for a third of their lease: a SEQUENCE. True if there was one. */
bool pre_renew(void);
/* The session of a server was lost: none of its files is open any longer. preload_work.c. */
void pre_forget_opens(const struct pre_server *s);
/* Ends all sessions. */
void pre_servers_end(void);
void pre_nfs_after_fork(void);

#endif

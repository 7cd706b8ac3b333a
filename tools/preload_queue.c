/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * preload_queue.c - from the program's threads to the library's own; start, fork and exit. See preload.h.
 *
 * The queue is a ring without locks: a producer takes a number, fills the slot of that number and then says so in the slot
 * (seq = number + 1); the consumer gives it back for the next round (seq = number + SLOTS). A producer that is stopped in between
 * holds the consumer up, never another producer.
 */
#include "tools/preload.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SLOTS 128u /* a power of two */
#define QUIT_MS 1000u
#define STACK_BYTES (512u << 10)
#define LOG_FD 100 /* or above: out of the way */
#define FD_MAX 65536u
#define BITS (8 * sizeof(unsigned long))

/* Apart from the messages: those are large, and most programs never touch them. */
static atomic_size_t seqs[SLOTS];
static struct pre_msg msgs[SLOTS];
static atomic_size_t tail;
static size_t head; /* the thread's */
static sem_t some, done;

static atomic_ulong noted[FD_MAX / BITS];
static atomic_int owner; /* the process that all this is about; 0: off */
static atomic_bool started;
static _Atomic uint64_t quit_at; /* ms; 0: the program is not ending */
static int log_fd = -1;          /* a second descriptor of standard error: programs close that one before they end */
static struct stat log_stat;
/* Initial-exec: found without a call, so in signal handlers too. */
static _Thread_local bool is_thread __attribute__((tls_model("initial-exec")));

uint64_t pre_now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void pre_log(const char *fmt, ...)
{
	char line[PATH_MAX + 256] = "libvhdnfs-fadvise: ";
	size_t n = strlen(line);
	va_list ap;
	int k;

	if (log_fd < 0)
		return;
	va_start(ap, fmt);
	k = vsnprintf(line + n, sizeof line - n - 1, fmt, ap);
	va_end(ap);
	if (k < 0)
		return;
	n += (size_t)k < sizeof line - n - 1 ? (size_t)k : sizeof line - n - 2;
	line[n++] = '\n';
	if (write(log_fd, line, n) < 0)
		log_fd = -1;
}

bool pre_on(void)
{
	int pid = atomic_load_explicit(&owner, memory_order_relaxed);

	return pid && !is_thread && getpid() == pid;
}

/* ---- the thread ------------------------------------------------------------------------------------------------------------------ */

/* Is it still standard error as it was? Programs close what they do not know, and use the number again. */
static bool log_fd_good(void)
{
	struct stat st;

	return log_fd >= 0 && fstat(log_fd, &st) == 0 && st.st_dev == log_stat.st_dev && st.st_ino == log_stat.st_ino;
}

/* 0, 1 and 2 are taken, so that nothing that is written there by mistake goes into a socket. */
static bool take_own_fds(void)
{
	if (!log_fd_good())
		log_fd = -1;
	if (close_range((unsigned)(log_fd + 1), ~0u, CLOSE_RANGE_UNSHARE) < 0 ||
	    (log_fd > 0 && close_range(0, (unsigned)log_fd - 1, 0) < 0))
		return false;
	for (int fd = 0; fd < 3; fd++)
		if (eventfd(0, EFD_CLOEXEC) != fd)
			return false;
	return true;
}

static void *thread_main(void *arg)
{
	is_thread = true;
	if (take_own_fds())
		pre_work();
	else
		atomic_store(&owner, 0);
	sem_post(&done);
	return arg;
}

static int create(size_t stack)
{
	pthread_attr_t attr;
	pthread_t t;
	int err = pthread_attr_init(&attr);

	if (err)
		return err;
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	if (stack)
		pthread_attr_setstacksize(&attr, stack);
	err = pthread_create(&t, &attr, thread_main, NULL);
	pthread_attr_destroy(&attr);
	return err;
}

/* Signals are the program's: none is to arrive here. SIGPIPE of a broken connection stays pending and is forgotten. */
static void start(void)
{
	sigset_t all, old;

	if (atomic_load(&started) || atomic_exchange(&started, true))
		return;
	sigfillset(&all);
	if (pthread_sigmask(SIG_SETMASK, &all, &old) != 0)
		return;
	/* A program with much thread-local data needs more than what we do. */
	if (create(STACK_BYTES) != 0 && create(0) != 0)
		atomic_store(&owner, 0);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* ---- the queue ------------------------------------------------------------------------------------------------------------------- */

static struct pre_msg *claim(size_t *pos)
{
	size_t at = atomic_load(&tail);

	for (;;) {
		size_t seq = atomic_load(&seqs[at % SLOTS]);

		if (seq == at && atomic_compare_exchange_weak(&tail, &at, at + 1)) {
			*pos = at;
			return &msgs[at % SLOTS];
		}
		if ((ptrdiff_t)(seq - at) < 0)
			return NULL;
		if (seq != at)
			at = atomic_load(&tail);
	}
}

static void publish(size_t pos)
{
	atomic_store(&seqs[pos % SLOTS], pos + 1);
	sem_post(&some);
	start();
}

void pre_send_hint(int fd, const char *path, const struct pre_id *id, uint32_t hints, uint64_t off, uint64_t len)
{
	size_t pos;
	struct pre_msg *m = claim(&pos);

	if (!m)
		return;
	m->kind = PRE_HINT;
	m->hints = hints;
	m->off = off;
	m->len = len;
	m->id = *id;
	if (fd < 0)
		snprintf(m->path, sizeof m->path, "%s", path);
	else if (!pre_path_of(fd, m->path))
		m->kind = PRE_NOTHING;
	publish(pos);
}

void pre_send_closed(void)
{
	size_t pos;
	struct pre_msg *m = atomic_load(&started) ? claim(&pos) : NULL;

	if (!m)
		return;
	m->kind = PRE_CLOSED;
	publish(pos);
}

static bool take(struct pre_msg *m)
{
	atomic_size_t *seq = &seqs[head % SLOTS];

	if (atomic_load(seq) != head + 1)
		return false;
	memcpy(m, &msgs[head % SLOTS], sizeof *m);
	atomic_store(seq, head + SLOTS);
	head++;
	return true;
}

bool pre_pop(struct pre_msg *m, unsigned ms)
{
	uint64_t end = pre_now_ms() + ms;
	struct timespec t = {.tv_sec = (time_t)(end / 1000), .tv_nsec = (long)(end % 1000) * 1000000};

	if (take(m)) {
		sem_trywait(&some); /* what was counted for it */
		return true;
	}
	if (!ms)
		return false;
	while (sem_clockwait(&some, CLOCK_MONOTONIC, &t) < 0 && errno == EINTR)
		;
	return take(m);
}

/* ---- descriptors that matter ----------------------------------------------------------------------------------------------------- */

void pre_note_fd(int fd)
{
	if (fd >= 0 && (unsigned)fd < FD_MAX)
		atomic_fetch_or(&noted[(unsigned)fd / BITS], 1ul << (unsigned)fd % BITS);
}

bool pre_noted_fd(int fd)
{
	return fd >= 0 && (unsigned)fd < FD_MAX &&
	       atomic_load(&noted[(unsigned)fd / BITS]) & 1ul << (unsigned)fd % BITS;
}

bool pre_forget_fd(int fd)
{
	unsigned long bit = 1ul << (unsigned)fd % BITS;
	atomic_ulong *word;

	if (fd < 0 || (unsigned)fd >= FD_MAX)
		return false;
	word = &noted[(unsigned)fd / BITS];
	return atomic_load(word) & bit && pre_on() && atomic_fetch_and(word, ~bit) & bit;
}

void pre_forget_fds(unsigned first, unsigned last)
{
	bool any = false;

	if (!atomic_load(&started) || !pre_on())
		return;
	for (unsigned fd = first; fd <= last && fd < FD_MAX; fd++)
		any |= pre_forget_fd((int)fd);
	if (any)
		pre_send_closed();
}

/* ---- begin, fork, end ------------------------------------------------------------------------------------------------------------ */

static void reset(void)
{
	for (size_t i = 0; i < SLOTS; i++)
		atomic_store(&seqs[i], i);
	atomic_store(&tail, 0);
	head = 0;
	sem_init(&some, 0, 0);
	sem_init(&done, 0, 0);
	atomic_store(&quit_at, 0);
	atomic_store(&started, false);
}

/* The thread, its session and what it knows stay with the parent; its memory here is lost. */
static void in_child(void)
{
	if (!atomic_load(&owner))
		return;
	for (size_t i = 0; atomic_load(&started) && i < FD_MAX / BITS; i++)
		atomic_store(&noted[i], 0);
	pre_map_after_fork();
	pre_work_after_fork();
	pre_nfs_after_fork();
	reset();
	atomic_store(&owner, getpid());
}

int64_t pre_quit_ms(void)
{
	uint64_t at = atomic_load(&quit_at), now = pre_now_ms();

	return !at ? -1 : now < at ? (int64_t)(at - now) : 0;
}

static void start_log(void)
{
	log_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, LOG_FD);
	if (log_fd >= 0 && fstat(log_fd, &log_stat) < 0)
		log_fd = -1;
}

__attribute__((constructor)) static void begin(void)
{
	const char *on = getenv("VHDNFS_FADVISE"), *log = getenv("VHDNFS_FADVISE_LOG");
	int saved = errno;

	if (on && (strcmp(on, "off") == 0 || strcmp(on, "0") == 0))
		return;
	if (log && log[0] && strcmp(log, "0") != 0)
		start_log();
	reset();
	if (pthread_atfork(NULL, NULL, in_child) == 0)
		atomic_store(&owner, getpid());
	errno = saved;
}

__attribute__((destructor)) void pre_end(void)
{
	uint64_t at = pre_now_ms() + QUIT_MS;
	struct timespec t = {.tv_sec = (time_t)(at / 1000), .tv_nsec = (long)(at % 1000) * 1000000};

	if (!atomic_load(&started) || !pre_on())
		return;
	atomic_store(&quit_at, at);
	sem_post(&some);
	while (sem_clockwait(&done, CLOCK_MONOTONIC, &t) < 0 && errno == EINTR)
		;
	atomic_store(&owner, 0);
}

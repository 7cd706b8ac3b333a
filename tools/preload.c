/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * preload.c - the functions that programs call: the C library's own, and afterwards a word to the server; see preload.h
 *
 * Names, types and results are the C library's (glibc; posix_fadvise(3), madvise(2), open(2) …). The variants with __ are what
 * programs call that were built with _FORTIFY_SOURCE.
 */
#undef _FORTIFY_SOURCE
#include "tools/preload.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __openat_2(int dir, const char *path, int flags);
int __openat64_2(int dir, const char *path, int flags);

#define ORIGINALS(X)                                                                                                   \
	X(posix_fadvise)                                                                                               \
	X(posix_fadvise64)                                                                                             \
	X(readahead)                                                                                                   \
	X(mmap)                                                                                                        \
	X(mmap64)                                                                                                      \
	X(munmap)                                                                                                      \
	X(madvise)                                                                                                     \
	X(posix_madvise)                                                                                               \
	X(open)                                                                                                        \
	X(open64)                                                                                                      \
	X(openat)                                                                                                      \
	X(openat64)                                                                                                    \
	X(__open_2)                                                                                                    \
	X(__open64_2)                                                                                                  \
	X(__openat_2)                                                                                                  \
	X(__openat64_2)                                                                                                \
	X(close)                                                                                                       \
	X(close_range)                                                                                                 \
	X(closefrom)                                                                                                   \
	X(dup2)                                                                                                        \
	X(dup3)                                                                                                        \
	X(fclose)                                                                                                      \
	X(freopen)                                                                                                     \
	X(freopen64)                                                                                                   \
	X(_exit)                                                                                                       \
	X(_Exit)

#define AS_ENUM(name) F_##name,
#define AS_NAME(name) #name,
enum { ORIGINALS(AS_ENUM) F_COUNT };
static const char *const names[F_COUNT] = {ORIGINALS(AS_NAME)};
static void *_Atomic originals[F_COUNT];

static void *original(unsigned i)
{
	void *f = atomic_load_explicit(&originals[i], memory_order_relaxed);

	if (!f) {
		f = dlsym(RTLD_NEXT, names[i]);
		atomic_store_explicit(&originals[i], f, memory_order_relaxed);
	}
	return f;
}

/* All are in every glibc that this library runs with: it does not load with an older one than it was built for. */
#define CALL(name, ...) ((__typeof__(name) *)original(F_##name))(__VA_ARGS__)

/* dlsym() takes locks: not in the middle of a signal handler. */
__attribute__((constructor)) static void find_originals(void)
{
	for (unsigned i = 0; i < F_COUNT; i++)
		original(i);
}

/* ---- advice ---------------------------------------------------------------------------------------------------------------------- */

static void hint(int fd, uint32_t hints, int64_t off, int64_t len)
{
	int saved = errno;
	struct pre_id id;

	if (hints && off >= 0 && len >= 0 && pre_on() && pre_identify(fd, &id)) {
		/* Where something was said before, this may take it back. */
		if (!pre_noted_fd(fd))
			hints = pre_worth_saying(fd, &id, hints);
		if (hints) {
			pre_note_fd(fd);
			pre_send_hint(fd, NULL, &id, hints, (uint64_t)off, (uint64_t)len);
		}
	}
	errno = saved;
}

static uint32_t of_fadvise(int advice)
{
	switch (advice) {
	case POSIX_FADV_NORMAL:
		return PRE_NORMAL;
	case POSIX_FADV_SEQUENTIAL:
		return PRE_SEQUENTIAL;
	case POSIX_FADV_RANDOM:
		return PRE_RANDOM;
	case POSIX_FADV_WILLNEED:
		return PRE_WILLNEED;
	case POSIX_FADV_DONTNEED:
		return PRE_DONTNEED;
	case POSIX_FADV_NOREUSE:
		return PRE_NOREUSE;
	default:
		return 0;
	}
}

EXPORT int posix_fadvise(int fd, off_t off, off_t len, int advice)
{
	int err = CALL(posix_fadvise, fd, off, len, advice);

	if (!err)
		hint(fd, of_fadvise(advice), off, len);
	return err;
}

EXPORT int posix_fadvise64(int fd, off64_t off, off64_t len, int advice)
{
	int err = CALL(posix_fadvise64, fd, off, len, advice);

	if (!err)
		hint(fd, of_fadvise(advice), off, len);
	return err;
}

EXPORT ssize_t readahead(int fd, off64_t off, size_t count)
{
	ssize_t r = CALL(readahead, fd, off, count);

	/* Nothing is nothing: to IO_ADVISE it would be all the rest. */
	if (r == 0 && count && count <= INT64_MAX)
		hint(fd, PRE_WILLNEED, off, (int64_t)count);
	return r;
}

/* ---- mappings -------------------------------------------------------------------------------------------------------------------- */

/* Whatever lay there before is gone; the kernel put this in its place. */
static void mapped(void *at, size_t len, int flags, int fd, off64_t off)
{
	int saved = errno;

	if (at != MAP_FAILED) {
		pre_map_remove(at, len);
		if (fd >= 0 && !(flags & MAP_ANONYMOUS) && off >= 0)
			pre_map_add(at, len, fd, (uint64_t)off);
	}
	errno = saved;
}

EXPORT void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	void *at = CALL(mmap, addr, len, prot, flags, fd, off);

	mapped(at, len, flags, fd, off);
	return at;
}

EXPORT void *mmap64(void *addr, size_t len, int prot, int flags, int fd, off64_t off)
{
	void *at = CALL(mmap64, addr, len, prot, flags, fd, off);

	mapped(at, len, flags, fd, off);
	return at;
}

/* First here, then in the kernel: in between, nobody else can be given the place. */
EXPORT int munmap(void *addr, size_t len)
{
	int saved = errno;

	pre_map_remove(addr, len);
	errno = saved;
	return CALL(munmap, addr, len);
}

static void map_hint(void *addr, size_t len, int advice)
{
	static const uint32_t hints[] = {[MADV_NORMAL] = PRE_NORMAL,
					 [MADV_RANDOM] = PRE_RANDOM,
					 [MADV_SEQUENTIAL] = PRE_SEQUENTIAL,
					 [MADV_WILLNEED] = PRE_WILLNEED,
					 [MADV_DONTNEED] = PRE_DONTNEED};
	int saved = errno;

	if (advice >= 0 && (size_t)advice < sizeof hints / sizeof hints[0])
		pre_map_hint(addr, len, hints[advice]);
	errno = saved;
}

EXPORT int madvise(void *addr, size_t len, int advice)
{
	int r = CALL(madvise, addr, len, advice);

	if (r == 0)
		map_hint(addr, len, advice);
	return r;
}

/* Its numbers are madvise()'s. */
EXPORT int posix_madvise(void *addr, size_t len, int advice)
{
	int err = CALL(posix_madvise, addr, len, advice);

	if (!err)
		map_hint(addr, len, advice);
	return err;
}

/* ---- opening --------------------------------------------------------------------------------------------------------------------- */

/* Who goes around the kernel's cache does not want the server's either. */
static int opened(int fd, int flags)
{
	if (fd >= 0 && flags & O_DIRECT)
		hint(fd, PRE_NOREUSE, 0, 0);
	return fd;
}

#define MODE(flags)                                                                                                    \
	({                                                                                                             \
		mode_t mode_ = 0;                                                                                      \
		if ((flags)&O_CREAT || ((flags)&O_TMPFILE) == O_TMPFILE) {                                             \
			va_list ap_;                                                                                   \
			va_start(ap_, flags);                                                                          \
			mode_ = va_arg(ap_, mode_t);                                                                   \
			va_end(ap_);                                                                                   \
		}                                                                                                      \
		mode_;                                                                                                 \
	})

EXPORT int open(const char *path, int flags, ...)
{
	return opened(CALL(open, path, flags, MODE(flags)), flags);
}

EXPORT int open64(const char *path, int flags, ...)
{
	return opened(CALL(open64, path, flags, MODE(flags)), flags);
}

EXPORT int openat(int dir, const char *path, int flags, ...)
{
	return opened(CALL(openat, dir, path, flags, MODE(flags)), flags);
}

EXPORT int openat64(int dir, const char *path, int flags, ...)
{
	return opened(CALL(openat64, dir, path, flags, MODE(flags)), flags);
}

EXPORT int __open_2(const char *path, int flags)
{
	return opened(CALL(__open_2, path, flags), flags);
}

EXPORT int __open64_2(const char *path, int flags)
{
	return opened(CALL(__open64_2, path, flags), flags);
}

EXPORT int __openat_2(int dir, const char *path, int flags)
{
	return opened(CALL(__openat_2, dir, path, flags), flags);
}

EXPORT int __openat64_2(int dir, const char *path, int flags)
{
	return opened(CALL(__openat64_2, dir, path, flags), flags);
}

/* ---- closing --------------------------------------------------------------------------------------------------------------------- */

/* Forgotten before, told after: by then another thread may have the number again. */
static void closed(bool noted)
{
	int saved = errno;

	if (noted)
		pre_send_closed();
	errno = saved;
}

EXPORT int close(int fd)
{
	int saved = errno;
	bool noted = pre_forget_fd(fd);
	int r;

	errno = saved;
	r = CALL(close, fd);
	closed(noted);
	return r;
}

EXPORT int close_range(unsigned first, unsigned last, int flags)
{
	int r = CALL(close_range, first, last, flags);
	int saved = errno;

	if (r == 0 && !flags)
		pre_forget_fds(first, last);
	errno = saved;
	return r;
}

EXPORT void closefrom(int first)
{
	int saved = errno;

	CALL(closefrom, first);
	pre_forget_fds(first < 0 ? 0 : (unsigned)first, ~0u);
	errno = saved;
}

EXPORT int dup2(int from, int to)
{
	int saved = errno;
	bool noted = from != to && pre_forget_fd(to);
	int r;

	errno = saved;
	r = CALL(dup2, from, to);
	closed(noted);
	return r;
}

EXPORT int dup3(int from, int to, int flags)
{
	int saved = errno;
	bool noted = pre_forget_fd(to);
	int r;

	errno = saved;
	r = CALL(dup3, from, to, flags);
	closed(noted);
	return r;
}

static bool forget_stream(FILE *f)
{
	int saved = errno, fd = f ? fileno(f) : -1;
	bool noted = pre_forget_fd(fd);

	errno = saved;
	return noted;
}

EXPORT int fclose(FILE *f)
{
	bool noted = forget_stream(f);
	int r = CALL(fclose, f);

	closed(noted);
	return r;
}

EXPORT FILE *freopen(const char *path, const char *mode, FILE *f)
{
	bool noted = forget_stream(f);
	FILE *r = CALL(freopen, path, mode, f);

	closed(noted);
	return r;
}

EXPORT FILE *freopen64(const char *path, const char *mode, FILE *f)
{
	bool noted = forget_stream(f);
	FILE *r = CALL(freopen64, path, mode, f);

	closed(noted);
	return r;
}

/* ---- ending ---------------------------------------------------------------------------------------------------------------------- */

/* Without destructors: forked children of many programs end so. */
EXPORT void _exit(int status)
{
	pre_end();
	CALL(_exit, status);
	__builtin_unreachable();
}

EXPORT void _Exit(int status)
{
	pre_end();
	CALL(_Exit, status);
	__builtin_unreachable();
}

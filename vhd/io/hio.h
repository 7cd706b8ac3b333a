/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * hio.h - host files
 *
 * The only door to the host's storage. A file is opened with O_DIRECT where the host allows it, so that our block cache
 * and not the host's decides what stays in memory; callers need not care: buffers and offsets that are not aligned go
 * through an aligned bounce buffer (read-modify-write under a lock of the file for unaligned writes).
 *
 * hio_run() does a batch of transfers in parallel (io_uring, or preadv/pwritev one after the other where io_uring is
 * not to be had) and waits for all of them. Any thread may call anything; transfers that overlap race as they do in
 * POSIX.
 *
 * Locks: none visible. Every call may block on the host: never from an event loop.
 */
#ifndef VHDNFS_IO_HIO_H
#define VHDNFS_IO_HIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "vhd/base/why.h"

#define HIO_ALIGN 4096u /* buffers from hio_alloc() start on this boundary */

struct hio; /* one open host file; opaque */

enum hio_open_flags {
	HIO_WRITE = 1 << 0,  /* else read-only */
	HIO_CREATE = 1 << 1, /* make it, mode 0666 less the umask; fails when it exists */
	HIO_LOCK = 1 << 2,   /* take QEMU's OFD byte-range locks; -EBUSY when another process holds the image */
	HIO_CACHED = 1 << 3, /* no O_DIRECT: for tools that stream once through the host's cache */
};

enum hio_op { HIO_OP_READ, HIO_OP_WRITE };

/* One transfer of a batch. */
struct hio_req {
	enum hio_op op;
	uint64_t off; /* bytes */
	const struct iovec *iov;
	int niov;   /* 1 … IOV_MAX */
	int result; /* out: 0 or negative errno */
};

/**
 * hio_open() - open (or make) a regular file or block device
 *
 * Return: 0; negative errno of open(2); -EBUSY (with HIO_LOCK) another process has it open incompatibly: two readers may
 *         share, a writer is alone, as among QEMU processes; -EINVAL not a regular file or block device.
 *         @why names the path and, for -EBUSY, says so.
 * Owns:   the caller closes *out.
 * Source: the byte ranges are those of QEMU's file driver: permissions at 100 + bit, "unshared" at 200 + bit.
 */
int hio_open(struct hio **out, const char *path, unsigned flags, struct why *why);

/* NULL is accepted. Drops the locks. Does not flush. */
void hio_close(struct hio *h);
static inline void hio_closep(struct hio **h)
{
	hio_close(*h);
}

/* The path as given to hio_open(); lives as long as @h. */
const char *hio_path(const struct hio *h);
bool hio_writable(const struct hio *h);

/* Which file it is, however it was named, and when it was last written (seconds since 1970). */
struct hio_id {
	uint64_t dev, ino;
	int64_t mtime;
};
int hio_identify(struct hio *h, struct hio_id *id);

/* A writer's image lock becomes a reader's, which others may have too, or the other way round: -EBUSY, somebody has; the lock is
 * held all the same. The file stays open as it was. */
int hio_relock(struct hio *h, bool writable);

/* Does the disk have a head that has to go where it reads? As the host says; false where it says nothing. */
bool hio_is_rotational(const struct hio *h);

/* Current length in bytes of a file or block device, or a negative errno. */
int64_t hio_size(struct hio *h);

/**
 * hio_run() - transfer a batch and wait for all of it
 * @req: @n transfers, in any order, to be done in any order; each .result is set
 *
 * A read past the end of the file yields zeros; one that ends before what the file had when it was opened, or has been given since,
 * is -EIO: somebody else has cut it short. From then on nothing is written to it, since a write further on would put zeros in place
 * of what is gone. Short transfers are continued.
 *
 * Return: 0 when every result is 0, else the first result that is not.
 */
int hio_run(struct hio *h, struct hio_req *req, unsigned n);

/* Whole transfers of one buffer; 0 or negative errno. A read past the end yields zeros. */
int hio_read(struct hio *h, void *buf, size_t len, uint64_t off);
int hio_write(struct hio *h, const void *buf, size_t len, uint64_t off);

/**
 * hio_look() - is the file still there, as long as it should be, under its name?
 *
 * For a file that is served for long, from time to time. What is wrong is said in the log, once.
 *
 * Return: 0; -EIO it was cut short (as for a read, above); -ESTALE it has no name any more, or another file has taken its place:
 *         what is written goes where nobody will look for it. A file that was moved away is still itself.
 */
int hio_look(struct hio *h);

/* Everything written so far is on stable storage (fdatasync). After a failure every later call fails too: dirty pages
 * may have been dropped by the host, nothing may be reported as stable any more. */
int hio_flush(struct hio *h);

int hio_truncate(struct hio *h, uint64_t size);

/* Make a range read as zeros, giving the space back where the host can (FALLOC_FL_PUNCH_HOLE), else by writing. */
int hio_punch(struct hio *h, uint64_t off, uint64_t len);

/**
 * hio_next_data() - the first byte at or after @off that may hold data (SEEK_DATA), and the end of that run
 * Return: 0 with *data, *end set (both the file's size when only a hole follows); negative errno. Hosts without
 *         SEEK_DATA report the whole file as data.
 */
int hio_next_data(struct hio *h, uint64_t off, uint64_t *data, uint64_t *end);

/* Memory aligned for O_DIRECT; free() releases it. NULL when there is none. */
void *hio_alloc(size_t len) __attribute__((malloc));

/* What happens on the way down, for tests: called before every operation; a negative errno makes it fail. */
enum hio_event { HIO_EV_READ, HIO_EV_WRITE, HIO_EV_FLUSH, HIO_EV_TRUNCATE, HIO_EV_PUNCH };
typedef int hio_hook_fn(void *arg, enum hio_event ev, uint64_t off, uint64_t len, const struct iovec *iov, int niov);
/* Only while no operation is under way on @h. NULL removes it. */
void hio_set_hook(struct hio *h, hio_hook_fn *fn, void *arg);
/* The hook that files opened from now on start with. */
void hio_set_default_hook(hio_hook_fn *fn, void *arg);
/* For tests: behave as on a host whose O_DIRECT asks for @align (a power of two), and whether batches may use io_uring. */
void hio_set_align(struct hio *h, uint32_t align);
void hio_allow_uring(bool allow);

/**
 * hio_publish() - give a finished file its name
 * @tmp: the name it was written under, in the folder of @path
 *
 * The file must have been flushed. An existing @path is not replaced: -EEXIST. The folder is synced, so that the name
 * survives a crash. 0 or negative errno with a line in @why; @tmp is gone on success only.
 */
int hio_publish(const char *tmp, const char *path, struct why *why);
/* The same, but @path exists, and is this file from now on, with the old one's owner and mode. */
int hio_replace(const char *tmp, const char *path, struct why *why);

#endif

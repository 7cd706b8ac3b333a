/* SPDX-License-Identifier: BSD-3-Clause */
/* hio_int.h - what the files of the host I/O layer share */
#ifndef VHDNFS_IO_HIO_INT_H
#define VHDNFS_IO_HIO_INT_H

#include <stdatomic.h>

#include "vhd/base/lock.h"
#include "vhd/io/hio.h"

struct hio {
	int fd;
	int cached_fd; /* the same file without O_DIRECT, for its last unit; -1 until it is needed; under rmw */
	bool writable;
	bool block_device;
	bool rotational;
	uint32_t align;          /* bytes; of offset, length and memory; 1 without O_DIRECT */
	struct lock rmw;         /* one write at a time of those that are not aligned or make the file longer */
	_Atomic(uint64_t) reach; /* the file is at least this long; writes that end below do not change its length */
	atomic_int failed;       /* the first error of a flush: nothing is stable any more */
	_Atomic(uint64_t)
		whole; /* somebody cut the file to this: nothing is written, nor read behind it; UINT64_MAX: nobody did */
	atomic_bool told; /* that somebody else changed, replaced or removed it */
	struct hio_id id; /* at open */
	hio_hook_fn *hook;
	void *hook_arg;
	char *path;
};

/* One aligned transfer with its continuation after a short count. */
struct hio_xfer {
	struct hio_req *req;
	struct iovec *iov; /* a private copy that is advanced */
	int niov;
	uint64_t off;
	uint64_t left;
	uint32_t align; /* a read that stops at an unaligned place has met the end of the file */
	uint64_t reach; /* which is no end but a loss when it is below this */
};

/* Start n aligned transfers through io_uring and wait for them. What still has .left afterwards (no io_uring, a short
 * transfer, a ring that failed) is for the system calls to finish. */
void hio_uring_run(int fd, struct hio_xfer *x, unsigned n);
/* Account @done bytes; true when the transfer is complete (or failed: req->result). */
bool hio_xfer_advance(struct hio_xfer *x, int64_t done);

/* QEMU's byte-range locks. 0, -EBUSY, or what fcntl said. */
int hio_lock_image(int fd, bool writable);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * hio_lock.c - image locks, compatible with QEMU's file driver
 *
 * QEMU gives every permission a byte: 100 + n says "I use permission n", 200 + n "nobody else may use permission n". Both
 * are shared OFD locks; whoever wants permission n tests that no other holds 200 + n, and whoever forbids it tests that
 * no other holds 100 + n. The locks belong to the open file description: those of a dead process are gone.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "vhd/base/cleanup.h"
#include "vhd/io/hio_int.h"

enum { PERM_READ = 0, PERM_WRITE = 1, PERM_RESIZE = 3 };
#define USED_BASE 100
#define UNSHARED_BASE 200

static int take(int fd, off_t byte)
{
	struct flock fl = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

	if (fcntl(fd, F_OFD_SETLK, &fl) == 0)
		return 0;
	return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
}

/* Would anybody else's lock be in the way of an exclusive one? */
static int test(int fd, off_t byte)
{
	struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

	if (fcntl(fd, F_OFD_GETLK, &fl) < 0)
		return -errno;
	return fl.l_type == F_UNLCK ? 0 : -EBUSY;
}

static int release(int fd, off_t byte)
{
	struct flock fl = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

	return fcntl(fd, F_OFD_SETLK, &fl) < 0 ? -errno : 0;
}

int hio_relock(struct hio *h, bool writable)
{
	int err;

	if (writable)
		return hio_lock_image(h->fd, true);
	err = release(h->fd, USED_BASE + PERM_WRITE);
	if (!err)
		err = release(h->fd, USED_BASE + PERM_RESIZE);
	return err == -EINVAL || err == -ENOLCK || err == -EOPNOTSUPP ? 0 : err; /* hosts without OFD locks */
}

int hio_lock_image(int fd, bool writable)
{
	static const int all[] = {PERM_READ, PERM_WRITE, PERM_RESIZE};
	int err;

	/* A reader uses READ and forbids WRITE and RESIZE; a writer uses all three and forbids the changes to others. */
	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		bool use = writable || all[i] == PERM_READ;
		bool forbid = all[i] != PERM_READ;

		if ((use && (err = take(fd, USED_BASE + all[i])) < 0) ||
		    (forbid && (err = take(fd, UNSHARED_BASE + all[i])) < 0))
			return err;
	}
	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		bool use = writable || all[i] == PERM_READ;
		bool forbid = all[i] != PERM_READ;

		if ((use && (err = test(fd, UNSHARED_BASE + all[i])) < 0) ||
		    (forbid && (err = test(fd, USED_BASE + all[i])) < 0))
			return err;
	}
	return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * hio.c - see hio.h
 *
 * A request that O_DIRECT can take as it is goes down as it is. Any other goes through one aligned bounce buffer that
 * covers it: a read reads more and copies out; a write reads the first and last unit of the cover, copies in, and writes
 * all of it, under the file's rmw lock, because two such writes may share a unit.
 *
 * The end of the file is the exception: it need not be aligned (a footer is 512 bytes), and O_DIRECT writes whole units, so
 * a write that ends past it may make the file longer than it was asked to. The bounce path puts the length back, so every
 * write that makes the file longer holds the rmw lock. h->reach says without a system call which ones those may be.
 *
 * Put back or not, whoever ends the program in between, or the power, leaves a file that is too long, and a fixed image is none when its
 * footer is not at its end. So where a unit is a page or more, the unit that the end lies in is written through the host's cache, in
 * just the bytes that are meant. Nobody else has a part of that page: writes of less than a unit are under the rmw lock. A smaller
 * unit shares its page with direct writes, which must not meet cached ones there; but then footers are whole units.
 */
#include "vhd/io/hio.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/log.h"
#include "vhd/base/wait.h"
#include "vhd/io/hio_int.h"
#include "vhd/io/hio_model.h"

#define BOUNCE_MAX (1u << 20) /* larger unaligned transfers go in pieces */

void *hio_alloc(size_t len)
{
	return aligned_alloc(HIO_ALIGN, round_up_u64(len ? len : 1, HIO_ALIGN));
}

/* ---- opening -------------------------------------------------------------------------------------------------------- */

static hio_hook_fn *default_hook;
static void *default_hook_arg;

void hio_set_default_hook(hio_hook_fn *fn, void *arg)
{
	default_hook = fn;
	default_hook_arg = arg;
}

/* A FIFO or device in place of a file must not make us wait; a regular file must not answer "try again" later. */
static int open_fd(const char *path, unsigned flags)
{
	int fl = (flags & HIO_WRITE ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
	int fd = open(path, flags & HIO_CREATE ? fl | O_CREAT | O_EXCL : fl, 0666);

	if (fd >= 0 && fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK) < 0) {
		int err = -errno;

		close(fd);
		return err;
	}
	return fd < 0 ? -errno : fd;
}

/* The alignment that O_DIRECT asks for: what the host says, else what a read shows. 0: it does no direct I/O here. */
static uint32_t direct_align(int fd, bool block_device)
{
	AUTO(freep) uint8_t *buf = NULL;
	int sector;

#ifdef STATX_DIOALIGN
	struct statx sx;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) == 0 && sx.stx_mask & STATX_DIOALIGN) {
		uint32_t n = sx.stx_dio_offset_align > sx.stx_dio_mem_align ? sx.stx_dio_offset_align
									    : sx.stx_dio_mem_align;

		return sx.stx_dio_offset_align && is_pow2_u64(n) && n <= HIO_ALIGN ? n : 0;
	}
#endif
	if (block_device && ioctl(fd, BLKSSZGET, &sector) == 0 && sector > 0)
		return (uint32_t)sector <= HIO_ALIGN ? (uint32_t)sector : 0;
	buf = hio_alloc(HIO_ALIGN);
	return buf && pread(fd, buf + 512, 512, 0) == 512 ? 512 : HIO_ALIGN;
}

static void go_direct(struct hio *h)
{
	int fl = fcntl(h->fd, F_GETFL);

	h->align = 1;
	if (fl < 0 || fcntl(h->fd, F_SETFL, fl | O_DIRECT) < 0)
		return;
	h->align = direct_align(h->fd, h->block_device);
	if (!h->align) {
		h->align = 1;
		fcntl(h->fd, F_SETFL, fl);
	}
}

/* A partition has the queue of its disk, one level up. */
static bool is_rotational(dev_t dev)
{
	static const char *const up[] = {"", "/.."};
	char path[80], c = '0';

	if (hio_is_modelled())
		return hio_model_has_head();
	for (size_t i = 0; i < ARRAY_LEN(up); i++) {
		int fd;

		snprintf(path, sizeof path, "/sys/dev/block/%u:%u%s/queue/rotational", major(dev), minor(dev), up[i]);
		if ((fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
			continue;
		if (read(fd, &c, 1) != 1)
			c = '0';
		close(fd);
		break;
	}
	return c == '1';
}

static struct hio_id id_of(const struct stat *st)
{
	return (struct hio_id){.dev = st->st_dev, .ino = st->st_ino, .mtime = st->st_mtime};
}

int hio_open(struct hio **out, const char *path, unsigned flags, struct why *why)
{
	AUTO(hio_closep) struct hio *h = calloc(1, sizeof *h);
	struct stat st;
	int64_t size;
	int err;

	if (!h)
		return -ENOMEM;
	h->fd = h->cached_fd = -1;
	lock_init(&h->rmw);
	h->path = strdup(path);
	if (!h->path)
		return -ENOMEM;
	h->fd = err = open_fd(path, flags);
	if (err < 0)
		return why_set(why, err, "%s: %s", path, strerror(-err));
	if (fstat(h->fd, &st) < 0)
		return why_set(why, -errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return why_set(why, -EINVAL, "%s: not a regular file or block device", path);
	h->writable = flags & HIO_WRITE;
	h->block_device = S_ISBLK(st.st_mode);
	h->rotational = is_rotational(h->block_device ? st.st_rdev : st.st_dev);
	h->hook = default_hook;
	h->hook_arg = default_hook_arg;
	h->align = 1;
	if (!(flags & HIO_CACHED))
		go_direct(h);
	if ((size = hio_size(h)) < 0)
		return why_set(why, (int)size, "%s: %s", path, strerror((int)-size));
	atomic_init(&h->reach, (uint64_t)size);
	atomic_init(&h->whole, UINT64_MAX);
	h->id = id_of(&st);
	if (flags & HIO_LOCK && (err = hio_lock_image(h->fd, h->writable)) < 0) {
		if (err == -EBUSY)
			return why_set(why, err, "%s: in use by another process", path);
		if (err != -EINVAL && err != -ENOLCK && err != -EOPNOTSUPP) /* hosts without OFD locks */
			return why_set(why, err, "%s: locking: %s", path, strerror(-err));
	}
	*out = TAKE(h);
	return 0;
}

void hio_close(struct hio *h)
{
	if (!h)
		return;
	closep(&h->cached_fd);
	closep(&h->fd);
	lock_fini(&h->rmw);
	free(h->path);
	free(h);
}

bool hio_is_rotational(const struct hio *h)
{
	return h->rotational;
}

const char *hio_path(const struct hio *h)
{
	return h->path;
}

int hio_identify(struct hio *h, struct hio_id *id)
{
	struct stat st;

	if (fstat(h->fd, &st) < 0)
		return -errno;
	*id = id_of(&st);
	return 0;
}

bool hio_writable(const struct hio *h)
{
	return h->writable;
}

int64_t hio_size(struct hio *h)
{
	struct stat st;
	uint64_t n;

	if (h->block_device)
		return ioctl(h->fd, BLKGETSIZE64, &n) < 0 ? -errno : (int64_t)n;
	return fstat(h->fd, &st) < 0 ? -errno : st.st_size;
}

void hio_set_align(struct hio *h, uint32_t align)
{
	h->align = align;
}

void hio_set_hook(struct hio *h, hio_hook_fn *fn, void *arg)
{
	h->hook = fn;
	h->hook_arg = arg;
}

static int hooked(struct hio *h, enum hio_event ev, uint64_t off, uint64_t len, const struct iovec *iov, int niov)
{
	return h->hook ? h->hook(h->hook_arg, ev, off, len, iov, niov) : 0;
}

/* ---- what others do to the file ------------------------------------------------------------------------------------------ */

/* True the first time. */
static bool tell_once(struct hio *h)
{
	return !atomic_exchange(&h->told, true);
}

static bool is_whole(struct hio *h)
{
	return atomic_load_explicit(&h->whole, memory_order_relaxed) == UINT64_MAX;
}

/* 0, or -EIO: it is shorter than it should be, now or before. */
static int look_length_locked(struct hio *h) REQUIRES(h->rmw)
{
	uint64_t reach = atomic_load(&h->reach), whole = atomic_load(&h->whole);
	int64_t size = hio_size(h);

	if (size < 0)
		return (int)size;
	if ((uint64_t)size < min_u64(reach, whole))
		atomic_store(&h->whole, (uint64_t)size);
	if (is_whole(h))
		return 0;
	if (tell_once(h))
		log_error("%s: somebody else has cut the file short: it has %lld bytes of %llu; what is gone cannot be "
			  "read, "
			  "and nothing is written to it any more",
			  h->path, (long long)size, (unsigned long long)reach);
	return -EIO;
}

static int look_length(struct hio *h)
{
	uint64_t reach = atomic_load(&h->reach);
	int64_t size = hio_size(h);
	int err;

	if (size >= 0 && (uint64_t)size >= reach && is_whole(h))
		return 0;
	lock_take(&h->rmw);
	err = look_length_locked(h);
	lock_drop(&h->rmw);
	return err;
}

/* Only read here, so nobody may write to it. Times are also set by those who copy files about: it is no more than a warning. */
static void look_time(struct hio *h, const struct stat *st)
{
	if (!h->writable && !h->block_device && st->st_mtime != h->id.mtime && tell_once(h))
		log_warn("%s: somebody else has written to the file, which is only read here; what was read of it may "
			 "be stale",
			 h->path);
}

int hio_look(struct hio *h)
{
	struct stat here, there;
	int err = look_length(h);

	if (err || h->block_device || fstat(h->fd, &here) < 0)
		return err;
	if (!here.st_nlink) {
		if (tell_once(h))
			log_error("%s: somebody has removed the file, and it is gone when it is closed; until then it "
				  "can be "
				  "copied from /proc/%d/fd/%d",
				  h->path, (int)getpid(), h->fd);
		return -ESTALE;
	}
	if (stat(h->path, &there) == 0 && (there.st_dev != h->id.dev || there.st_ino != h->id.ino)) {
		if (tell_once(h))
			log_error("%s: somebody has put another file in its place; until the one that was there is "
				  "closed it "
				  "can be copied from /proc/%d/fd/%d",
				  h->path, (int)getpid(), h->fd);
		return -ESTALE;
	}
	look_time(h, &here);
	return 0;
}

/* ---- aligned transfers ------------------------------------------------------------------------------------------------ */

static uint64_t iov_len(const struct iovec *iov, int niov)
{
	uint64_t n = 0;

	for (int i = 0; i < niov; i++)
		n += iov[i].iov_len;
	return n;
}

bool hio_xfer_advance(struct hio_xfer *x, int64_t done)
{
	if (done < 0 || (done == 0 && x->req->op == HIO_OP_WRITE)) {
		x->req->result = done < 0 ? (int)done : -EIO;
		x->left = 0;
		return true;
	}
	x->off += (uint64_t)done;
	x->left -= min_u64((uint64_t)done, x->left);
	for (uint64_t skip = (uint64_t)done; skip && x->niov;) {
		size_t n = min_u64(x->iov->iov_len, skip);

		x->iov->iov_base = (char *)x->iov->iov_base + n;
		x->iov->iov_len -= n;
		skip -= n;
		if (!x->iov->iov_len) {
			x->iov++;
			x->niov--;
		}
	}
	if (x->left && x->req->op == HIO_OP_READ && (done == 0 || x->off & (x->align - 1))) {
		if (x->off < x->reach)
			x->req->result = -EIO;
		/* Past the end of the file there are zeros. O_DIRECT must not be asked again from an odd place. */
		for (int i = 0; i < x->niov; i++)
			memset(x->iov[i].iov_base, 0, x->iov[i].iov_len);
		x->left = 0;
	}
	return x->left == 0;
}

static void run_syscalls(struct hio *h, struct hio_xfer *x, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		while (x[i].left) {
			ssize_t done = x[i].req->op == HIO_OP_READ
					       ? preadv(h->fd, x[i].iov, x[i].niov, (off_t)x[i].off)
					       : pwritev(h->fd, x[i].iov, x[i].niov, (off_t)x[i].off);

			if (done < 0 && (errno == EINTR || errno == EAGAIN))
				continue;
			hio_xfer_advance(&x[i], done < 0 ? -errno : done);
		}
}

static void run_aligned(struct hio *h, struct hio_xfer *x, unsigned n)
{
	struct waiter *w = wait_begin();

	if (n > 1)
		hio_uring_run(h->fd, x, n);
	run_syscalls(h, x, n);
	wait_end(w);
}

static bool is_aligned(const struct hio *h, const struct hio_req *r)
{
	uint64_t bits = r->off;

	if (h->align <= 1)
		return true;
	for (int i = 0; i < r->niov; i++)
		bits |= (uintptr_t)r->iov[i].iov_base | r->iov[i].iov_len;
	return !(bits & (h->align - 1));
}

/* ---- the bounce path ---------------------------------------------------------------------------------------------------- */

/* One aligned transfer; short of h->rmw, it must not make the file longer. What is read is needed up to @need. */
static int raw(struct hio *h, enum hio_op op, void *buf, uint64_t len, uint64_t off, uint64_t need)
{
	struct iovec iov = {buf, len};
	struct hio_req r = {.op = op};
	struct hio_xfer x = {.req = &r,
			     .iov = &iov,
			     .niov = 1,
			     .off = off,
			     .left = len,
			     .align = h->align,
			     .reach = min_u64(atomic_load_explicit(&h->reach, memory_order_relaxed), need)};

	run_syscalls(h, &x, 1);
	return r.result;
}

/* Whole units were written up to @end, but only the bytes below @want were meant: cut off the rest if it is new. */
static int settle_length(struct hio *h, uint64_t size_before, uint64_t want, uint64_t end) REQUIRES(h->rmw)
{
	want = max_u64(want, size_before);
	if (!h->block_device && end > want && ftruncate(h->fd, (off_t)want) < 0)
		return -errno;
	if (want > atomic_load(&h->reach))
		atomic_store(&h->reach, want);
	return 0;
}

/* Through the host's cache: for the unit that the file ends in. -ENOTSUP: not here. */
static int write_cached(struct hio *h, const uint8_t *from, uint64_t len, uint64_t off) REQUIRES(h->rmw)
{
	char path[40];

	if (h->block_device || (long)h->align < sysconf(_SC_PAGESIZE))
		return -ENOTSUP;
	if (h->cached_fd < 0) {
		snprintf(path, sizeof path, "/proc/self/fd/%d", h->fd);
		h->cached_fd = open(path, O_WRONLY | O_CLOEXEC);
	}
	if (h->cached_fd < 0)
		return -ENOTSUP;
	while (len) {
		ssize_t n = pwrite(h->cached_fd, from, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		from += n;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

static int write_units(struct hio *h, uint8_t *buf, const uint8_t *from, uint64_t len, uint64_t off) REQUIRES(h->rmw)
{
	uint64_t start = round_down_u64(off, h->align), end = round_up_u64(off + len, h->align);
	int64_t size = hio_size(h);
	int err = size < 0 ? (int)size : 0;

	if (!err && end > max_u64(off + len, (uint64_t)size) && (err = write_cached(h, from, len, off)) != -ENOTSUP)
		return err ? err : settle_length(h, (uint64_t)size, off + len, off + len);
	err = err == -ENOTSUP ? 0 : err;
	if (!err && start != off)
		err = raw(h, HIO_OP_READ, buf, h->align, start, end);
	if (!err && end != off + len && (end - start > h->align || start == off))
		err = raw(h, HIO_OP_READ, buf + (end - start - h->align), h->align, end - h->align, end);
	if (err)
		return err;
	memcpy(buf + (off - start), from, len);
	err = raw(h, HIO_OP_WRITE, buf, end - start, start, end);
	return err ? err : settle_length(h, (uint64_t)size, off + len, end);
}

static int bounce_write(struct hio *h, const uint8_t *from, uint64_t len, uint64_t off)
{
	AUTO(freep) uint8_t *buf = hio_alloc(len + 2 * (size_t)h->align);
	int err;

	if (!buf)
		return -ENOMEM;
	lock_take(&h->rmw);
	err = write_units(h, buf, from, len, off);
	lock_drop(&h->rmw);
	return err;
}

static int bounce_read(struct hio *h, uint8_t *to, uint64_t len, uint64_t off)
{
	uint64_t start = round_down_u64(off, h->align), end = round_up_u64(off + len, h->align);
	AUTO(freep) uint8_t *buf = hio_alloc(end - start);
	int err;

	if (!buf)
		return -ENOMEM;
	err = raw(h, HIO_OP_READ, buf, end - start, start, off + len);
	if (!err)
		memcpy(to, buf + (off - start), len);
	return err;
}

/* A request that cannot go down as it is: piece by piece. */
static int bounce(struct hio *h, const struct hio_req *r)
{
	uint64_t off = r->off;

	for (int i = 0; i < r->niov; i++) {
		uint8_t *p = r->iov[i].iov_base;
		uint64_t left = r->iov[i].iov_len;

		while (left) {
			uint64_t n = min_u64(left, BOUNCE_MAX);
			int err = r->op == HIO_OP_READ ? bounce_read(h, p, n, off) : bounce_write(h, p, n, off);

			if (err)
				return err;
			p += n;
			off += n;
			left -= n;
		}
	}
	return 0;
}

/* ---- batches ------------------------------------------------------------------------------------------------------------ */

#define BATCH 64u      /* transfers that are set up at a time, on the stack */
#define BATCH_IOV 512u /* and pieces of memory */

/* Before a batch with a write in it: one behind the new end of a file that was cut would hide that. */
static int look_before_writes(struct hio *h, const struct hio_req *req, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (req[i].op == HIO_OP_WRITE)
			return look_length(h);
	return 0;
}

/* @lost: why nothing can be written. */
static int check(struct hio *h, struct hio_req *r, int lost, uint64_t *end)
{
	uint64_t len = iov_len(r->iov, r->niov);

	if (r->niov < 1 || r->niov > IOV_MAX || !add_ok(r->off, len, end) || *end > INT64_MAX - HIO_ALIGN)
		return -EINVAL;
	if (r->op == HIO_OP_WRITE && (!h->writable || lost))
		return h->writable ? lost : -EROFS;
	if (*end > atomic_load_explicit(&h->whole, memory_order_relaxed))
		return -EIO;
	return hooked(h, r->op == HIO_OP_READ ? HIO_EV_READ : HIO_EV_WRITE, r->off, len, r->iov, r->niov);
}

/* Can it go to the host as it is, together with others? A write that makes the file longer takes the lock of those that
 * put the length back, and so goes alone. */
static bool plain(struct hio *h, const struct hio_req *r, uint64_t end)
{
	return (unsigned)r->niov <= BATCH_IOV && is_aligned(h, r) &&
	       (r->op == HIO_OP_READ || end <= atomic_load_explicit(&h->reach, memory_order_relaxed));
}

static int run_alone(struct hio *h, struct hio_req *r, uint64_t end)
{
	struct iovec iov[BATCH_IOV];
	struct hio_xfer x = {
		.req = r, .iov = iov, .niov = r->niov, .off = r->off, .left = end - r->off, .align = h->align};

	if ((unsigned)r->niov > BATCH_IOV || !is_aligned(h, r))
		return bounce(h, r);
	memcpy(iov, r->iov, (size_t)r->niov * sizeof *iov);
	lock_take(&h->rmw);
	run_syscalls(h, &x, 1);
	if (!r->result && end > atomic_load(&h->reach))
		atomic_store(&h->reach, end);
	lock_drop(&h->rmw);
	return r->result;
}

int hio_run(struct hio *h, struct hio_req *req, unsigned n)
{
	struct hio_xfer x[BATCH];
	struct iovec iov[BATCH_IOV];
	uint64_t until = 0;
	unsigned i = 0;
	int err = 0, lost = look_before_writes(h, req, n);

	if (hio_is_modelled())
		until = hio_model_begin(h, req, n);
	while (i < n) {
		unsigned nx = 0, used = 0;

		for (; i < n && nx < BATCH; i++) {
			struct hio_req *r = &req[i];
			uint64_t end = 0;

			if (used + (unsigned)r->niov > BATCH_IOV && nx)
				break;
			if ((r->result = check(h, r, lost, &end)) < 0)
				continue;
			if (!plain(h, r, end)) {
				r->result = run_alone(h, r, end);
				continue;
			}
			memcpy(iov + used, r->iov, (size_t)r->niov * sizeof *iov);
			x[nx++] = (struct hio_xfer){
				.req = r,
				.iov = iov + used,
				.niov = r->niov,
				.off = r->off,
				.left = end - r->off,
				.align = h->align,
				.reach = atomic_load_explicit(&h->reach, memory_order_relaxed),
			};
			used += (unsigned)r->niov;
		}
		if (nx)
			run_aligned(h, x, nx);
	}
	hio_model_end(until);
	for (i = 0; i < n && !err; i++)
		err = req[i].result;
	if (err == -EIO)
		(void)look_length(h); /* if that is why, it is said now */
	return err;
}

int hio_read(struct hio *h, void *buf, size_t len, uint64_t off)
{
	struct iovec iov = {buf, len};
	struct hio_req r = {.op = HIO_OP_READ, .off = off, .iov = &iov, .niov = 1};

	return len ? hio_run(h, &r, 1) : 0;
}

int hio_write(struct hio *h, const void *buf, size_t len, uint64_t off)
{
	struct iovec iov = {(void *)(uintptr_t)buf, len};
	struct hio_req r = {.op = HIO_OP_WRITE, .off = off, .iov = &iov, .niov = 1};

	return len ? hio_run(h, &r, 1) : 0;
}

/* ---- the rest ------------------------------------------------------------------------------------------------------------ */

int hio_flush(struct hio *h)
{
	int err = atomic_load(&h->failed);
	struct waiter *w;

	if (err)
		return err;
	w = wait_begin();
	err = hooked(h, HIO_EV_FLUSH, 0, 0, NULL, 0);
	if (!err && h->writable)
		err = look_length(h); /* what was promised may be gone */
	if (!err && fdatasync(h->fd) < 0)
		err = -errno;
	wait_end(w);
	if (err)
		atomic_store(&h->failed, err);
	return err;
}

int hio_truncate(struct hio *h, uint64_t size)
{
	uint64_t reach;
	int err = hooked(h, HIO_EV_TRUNCATE, size, 0, NULL, 0);

	if (err)
		return err;
	if (!h->writable)
		return -EROFS;
	lock_take(&h->rmw);
	reach = atomic_load(&h->reach);
	err = look_length_locked(h);
	if (!err) {
		atomic_store(&h->reach, min_u64(reach, size));
		err = ftruncate(h->fd, (off_t)size) < 0 ? -errno : 0;
		atomic_store(&h->reach, err ? reach : size);
	}
	lock_drop(&h->rmw);
	return err;
}

static int write_zeros(struct hio *h, uint64_t off, uint64_t len)
{
	AUTO(freep) uint8_t *zeros = hio_alloc(BOUNCE_MAX);

	if (!zeros)
		return -ENOMEM;
	memset(zeros, 0, BOUNCE_MAX);
	while (len) {
		uint64_t n = min_u64(len, BOUNCE_MAX);
		int err = hio_write(h, zeros, n, off);

		if (err)
			return err;
		off += n;
		len -= n;
	}
	return 0;
}

int hio_punch(struct hio *h, uint64_t off, uint64_t len)
{
	int err = hooked(h, HIO_EV_PUNCH, off, len, NULL, 0);

	if (err)
		return err;
	if (!h->writable)
		return -EROFS;
	if (len == 0 || (err = look_length(h)) < 0)
		return err;
	if (fallocate(h->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len) == 0)
		return 0;
	if (errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL && errno != ENODEV)
		return -errno;
	return write_zeros(h, off, len);
}

int hio_next_data(struct hio *h, uint64_t off, uint64_t *data, uint64_t *end)
{
	int64_t size = hio_size(h);
	off_t d, e;

	if (size < 0)
		return (int)size;
	*data = *end = (uint64_t)size;
	if (off >= (uint64_t)size)
		return 0;
	d = lseek(h->fd, (off_t)off, SEEK_DATA);
	if (d < 0 && errno == ENXIO)
		return 0;
	if (d < 0) {
		*data = off;
		return 0;
	}
	e = lseek(h->fd, d, SEEK_HOLE);
	*data = (uint64_t)d;
	if (e > d)
		*end = (uint64_t)e;
	return 0;
}

/* ---- names --------------------------------------------------------------------------------------------------------------- */

static int sync_folder(const char *path)
{
	AUTO(freep) char *copy = strdup(path);
	AUTO(closep) int fd = -1;

	if (!copy)
		return -ENOMEM;
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	/* Some hosts cannot sync a folder; they have done it already. */
	return fsync(fd) < 0 && errno != EINVAL ? -errno : 0;
}

int hio_publish(const char *tmp, const char *path, struct why *why)
{
	int err = renameat2(AT_FDCWD, tmp, AT_FDCWD, path, RENAME_NOREPLACE) < 0 ? -errno : 0;

	if (err == -EINVAL || err == -ENOSYS) { /* hosts without RENAME_NOREPLACE */
		err = link(tmp, path) < 0 ? -errno : 0;
		if (!err)
			unlink(tmp);
	}
	if (err == -EEXIST)
		return why_set(why, err, "%s: exists already; it is not replaced", path);
	if (!err)
		err = sync_folder(path);
	return err ? why_set(why, err, "%s: %s", path, strerror(-err)) : 0;
}

int hio_replace(const char *tmp, const char *path, struct why *why)
{
	char real[PATH_MAX];
	struct stat st;
	int err;

	/* A link stays a link; who may use the file stays so too, where we may say so. */
	if (!realpath(path, real) || stat(real, &st) < 0 || chmod(tmp, st.st_mode & 07777) < 0)
		return why_set(why, -errno, "%s: %s", path, strerror(errno));
	if (chown(tmp, st.st_uid, st.st_gid) < 0 && errno != EPERM)
		return why_set(why, -errno, "%s: %s", path, strerror(errno));
	err = rename(tmp, real) < 0 ? -errno : sync_folder(real);
	return err ? why_set(why, err, "%s: %s", path, strerror(-err)) : 0;
}

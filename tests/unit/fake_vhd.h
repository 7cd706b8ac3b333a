/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fake_vhd.h - an image in memory that takes the place of vhd/image in one test program
 *
 * It can hold transfers at a gate, fail them, and counts them; and it ends the program when two transfers touch the same
 * sector at the same time and one of them writes: the block cache promises never to do that.
 */
#ifndef VHDNFS_TESTS_FAKE_VHD_H
#define VHDNFS_TESTS_FAKE_VHD_H

#include <check.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vhd/base/checked.h"
#include "vhd/base/lock.h"
#include "vhd/image/vhd.h"

enum fake_dir { FAKE_READ, FAKE_WRITE };

struct vhd {
	uint8_t *disk;
	atomic_int *busy;   /* per sector: readers, or -1 for a writer */
	atomic_uint *reads; /* per sector, since the start */
	uint64_t size;
	bool read_only, rotational;
	uint64_t block; /* bytes; 0: none */

	struct lock mu;
	struct cond cond;
	bool closed[2] GUARDED_BY(mu);      /* the gate */
	unsigned waiting[2] GUARDED_BY(mu); /* at the gate */
	unsigned most[2] GUARDED_BY(mu);    /* of them at a time, ever */

	atomic_int error[2];    /* every transfer of that kind fails with it */
	atomic_long fail_after; /* >= 0: that many calls go well, the next one fails with -EIO, once */
	atomic_uint calls[2], ios[2];
	atomic_uint flushes;
	atomic_uint maps;            /* calls of vhd_load_maps(), … */
	_Atomic uint64_t maps_bytes; /* … and of how much */
	atomic_bool slow;            /* transfers take a moment, some a long one */
};

static struct vhd *fake_new(uint64_t size)
{
	struct vhd *v = calloc(1, sizeof *v);

	ck_assert_ptr_nonnull(v);
	v->size = size;
	v->disk = malloc(size);
	v->busy = calloc(size / 512, sizeof *v->busy);
	v->reads = calloc(size / 512, sizeof *v->reads);
	ck_assert(v->disk && v->busy && v->reads);
	/* Every 8 bytes tell their place. */
	for (uint64_t i = 0; i < size / 8; i++)
		memcpy(v->disk + i * 8, &i, 8);
	lock_init(&v->mu);
	cond_init(&v->cond);
	atomic_init(&v->fail_after, -1);
	return v;
}

static void fake_free(struct vhd *v)
{
	cond_fini(&v->cond);
	lock_fini(&v->mu);
	free(v->disk);
	free(v->busy);
	free(v->reads);
	free(v);
}

static void fake_gate(struct vhd *v, enum fake_dir dir, bool closed)
{
	lock_take(&v->mu);
	v->closed[dir] = closed;
	cond_broadcast(&v->cond);
	lock_drop(&v->mu);
}

/* Until @n transfers stand at the gate. */
static void fake_await(struct vhd *v, enum fake_dir dir, unsigned n)
{
	lock_take(&v->mu);
	while (v->waiting[dir] < n)
		cond_wait(&v->cond, &v->mu);
	lock_drop(&v->mu);
}

static void fake_enter(struct vhd *v, uint64_t off, uint64_t len, enum fake_dir dir)
{
	for (uint64_t s = off / 512; s < (off + len) / 512; s++) {
		int was = atomic_load(&v->busy[s]), none = 0;

		if (dir == FAKE_READ)
			was = atomic_fetch_add(&v->busy[s], 1), atomic_fetch_add(&v->reads[s], 1);
		else if (!atomic_compare_exchange_strong(&v->busy[s], &none, -1000))
			was = -1;
		if (was < 0) {
			fprintf(stderr, "two transfers at sector %llu, one of them a write\n", (unsigned long long)s);
			abort();
		}
	}
}

static void fake_leave(struct vhd *v, uint64_t off, uint64_t len, enum fake_dir dir)
{
	for (uint64_t s = off / 512; s < (off + len) / 512; s++)
		atomic_fetch_add(&v->busy[s], dir == FAKE_READ ? -1 : 1000);
}

static uint64_t fake_len(const struct vhd_io *io)
{
	uint64_t len = 0;

	for (int i = 0; i < io->niov; i++)
		len += io->iov[i].iov_len;
	return len;
}

static int fake_verdict(struct vhd *v, enum fake_dir dir)
{
	int err = atomic_load(&v->error[dir]);

	if (!err && atomic_load(&v->fail_after) >= 0 && atomic_fetch_sub(&v->fail_after, 1) == 0)
		err = -EIO;
	return err;
}

static int fake_run(struct vhd *v, struct vhd_io *io, unsigned n, enum fake_dir dir)
{
	int first = 0;

	for (unsigned i = 0; i < n; i++) {
		uint64_t len = fake_len(&io[i]);

		ck_assert(len && io[i].off % 512 == 0 && len % 512 == 0 && range_ok(io[i].off, len, v->size));
		fake_enter(v, io[i].off, len, dir);
	}
	atomic_fetch_add(&v->calls[dir], 1);
	atomic_fetch_add(&v->ios[dir], n);
	lock_take(&v->mu);
	v->waiting[dir]++;
	v->most[dir] = (unsigned)max_u64(v->most[dir], v->waiting[dir]);
	cond_broadcast(&v->cond);
	while (v->closed[dir])
		cond_wait(&v->cond, &v->mu);
	v->waiting[dir]--;
	lock_drop(&v->mu);
	if (atomic_load(&v->slow))
		usleep(io[0].off / 4096 % 64 ? 20 : 1500);
	for (unsigned i = 0; i < n; i++) {
		uint64_t at = io[i].off;

		io[i].result = fake_verdict(v, dir);
		for (int k = 0; k < io[i].niov && !io[i].result; k++) {
			const struct iovec *iov = &io[i].iov[k];

			if (dir == FAKE_READ)
				memcpy(iov->iov_base, v->disk + at, iov->iov_len);
			else
				memcpy(v->disk + at, iov->iov_base, iov->iov_len);
			at += iov->iov_len;
		}
		first = first ? first : io[i].result;
		fake_leave(v, io[i].off, fake_len(&io[i]), dir);
	}
	return first;
}

int vhd_readv(struct vhd *v, struct vhd_io *io, unsigned n)
{
	return fake_run(v, io, n, FAKE_READ);
}

int vhd_writev(struct vhd *v, struct vhd_io *io, unsigned n)
{
	return fake_run(v, io, n, FAKE_WRITE);
}

int vhd_read(struct vhd *v, void *buf, uint64_t len, uint64_t off)
{
	struct iovec iov = {buf, len};
	struct vhd_io io = {.off = off, .iov = &iov, .niov = 1};

	return vhd_readv(v, &io, 1);
}

int vhd_write(struct vhd *v, const void *buf, uint64_t len, uint64_t off)
{
	union {
		const void *in;
		void *out;
	} u = {.in = buf};
	struct iovec iov = {u.out, len};
	struct vhd_io io = {.off = off, .iov = &iov, .niov = 1};

	return vhd_writev(v, &io, 1);
}

int vhd_load_maps(struct vhd *v, uint64_t off, uint64_t len)
{
	ck_assert(len && range_ok(off, len, v->size));
	atomic_fetch_add(&v->maps_bytes, len);
	lock_take(&v->mu);
	atomic_fetch_add(&v->maps, 1);
	cond_broadcast(&v->cond);
	lock_drop(&v->mu);
	return 0;
}

/* Until it was asked for maps @n times. */
static inline void fake_await_maps(struct vhd *v, unsigned n)
{
	lock_take(&v->mu);
	while (atomic_load(&v->maps) < n)
		cond_wait(&v->cond, &v->mu);
	lock_drop(&v->mu);
}

int vhd_discard(struct vhd *v, uint64_t off, uint64_t len)
{
	(void)v;
	(void)off;
	(void)len;
	return 0;
}

int vhd_flush(struct vhd *v)
{
	atomic_fetch_add(&v->flushes, 1);
	return 0;
}

int vhd_look(struct vhd *v)
{
	(void)v;
	return 0;
}

struct vhd *vhd_backing(struct vhd *v)
{
	(void)v;
	return NULL;
}

unsigned vhd_layer(struct vhd *v, uint64_t off, uint64_t len)
{
	(void)v;
	(void)off;
	(void)len;
	return 0;
}

uint64_t vhd_size(const struct vhd *v)
{
	return v->size;
}

bool vhd_writable(const struct vhd *v)
{
	return !v->read_only;
}

uint64_t vhd_next_block(const struct vhd *v, uint64_t off)
{
	return v->block ? min_u64(round_up_u64(off, v->block), v->size) : v->size;
}

bool vhd_is_rotational(const struct vhd *v)
{
	return v->rotational;
}

const char *vhd_path(const struct vhd *v)
{
	(void)v;
	return "fake.vhd";
}

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * io.c - transfers of guest ranges
 *
 * Ranges are resolved run by run. A batch's runs are collected, those that continue each other in the file joined, and sent to
 * the host together. Holes are filled without asking it. Sectors written into a block that is not full are marked in its bitmap
 * once the host has their data.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vhd/base/checked.h"
#include "vhd/base/zero.h"
#include "vhd/image/vhd_int.h"

#define GATHER_REQ 64u
#define GATHER_IOV 512u

/* What belongs to a request to the host. */
struct origin {
	struct vhd *src;             /* whose file: the image, or one of its parents */
	struct vhd_io *first, *last; /* the transfers it serves: neighbours in the caller's array */
	uint32_t block;              /* whose bitmap is marked when it is done; VHD_UNUSED: none */
	uint32_t sector, sectors;
};

struct gather {
	struct vhd *v;
	enum hio_op op;
	struct hio_req req[GATHER_REQ];
	struct origin of[GATHER_REQ];
	struct iovec iov[GATHER_IOV];
	unsigned nreq, niov;
	uint64_t next; /* where in the file the last request ends */
	bool mixed;    /* they go to more than one file */
	int first_err;
};

static void gather_fail(struct gather *g, const struct origin *o, int err)
{
	for (struct vhd_io *io = o->first; io <= o->last; io++)
		if (!io->result)
			io->result = err;
	if (!g->first_err)
		g->first_err = err;
}

/* Those of one file together. */
static void run_all(struct gather *g)
{
	struct hio_req req[GATHER_REQ];
	unsigned at[GATHER_REQ];
	uint64_t sent = 0; /* bit per request */

	static_assert(GATHER_REQ <= 64, "a bit for each");
	if (!g->mixed) {
		hio_run(g->of[0].src->io, g->req, g->nreq);
		return;
	}
	for (unsigned i = 0; i < g->nreq; i++) {
		unsigned n = 0;

		for (unsigned k = i; k < g->nreq; k++)
			if (!(sent >> k & 1) && g->of[k].src == g->of[i].src) {
				sent |= UINT64_C(1) << k;
				at[n] = k;
				req[n++] = g->req[k];
			}
		if (n)
			hio_run(g->of[i].src->io, req, n);
		for (unsigned k = 0; k < n; k++)
			g->req[at[k]].result = req[k].result;
	}
}

static void gather_send(struct gather *g)
{
	if (!g->nreq)
		return;
	run_all(g);
	for (unsigned i = 0; i < g->nreq; i++) {
		const struct origin *o = &g->of[i];
		int err = g->req[i].result;

		if (!err && o->block != VHD_UNUSED)
			err = vhd_bitmap_set(g->v, o->block, o->sector, o->sectors);
		if (err)
			gather_fail(g, o, err);
	}
	g->nreq = g->niov = 0;
	g->mixed = false;
}

/* Where in an iovec the walk stands. */
struct cursor {
	const struct iovec *iov;
	size_t done;
};

static size_t cursor_piece(struct cursor *c, uint64_t want, void **p)
{
	size_t n;

	while (c->done == c->iov->iov_len) {
		c->iov++;
		c->done = 0;
	}
	n = c->iov->iov_len - c->done;
	n = n < want ? n : (size_t)want;
	*p = (char *)c->iov->iov_base + c->done;
	c->done += n;
	return n;
}

static void fill_zeros(struct cursor *c, uint64_t len)
{
	while (len) {
		void *p;
		size_t n = cursor_piece(c, len, &p);

		memset(p, 0, n);
		len -= n;
	}
}

/* A request for a run: the last one made longer where the run continues it, else a new one. */
static struct hio_req *gather_req(struct gather *g, struct vhd *src, struct vhd_io *io, uint64_t host, uint32_t mark)
{
	struct hio_req *r;

	if (g->nreq && g->next == host && g->of[g->nreq - 1].block == mark && g->of[g->nreq - 1].src == src &&
	    g->niov < GATHER_IOV) {
		g->of[g->nreq - 1].last = io;
		return &g->req[g->nreq - 1];
	}
	if (g->nreq == GATHER_REQ || g->niov == GATHER_IOV)
		gather_send(g);
	r = &g->req[g->nreq];
	*r = (struct hio_req){.op = g->op, .off = host, .iov = &g->iov[g->niov]};
	g->mixed |= g->nreq && g->of[0].src != src;
	g->of[g->nreq++] = (struct origin){.src = src, .first = io, .last = io, .block = mark};
	return r;
}

static void gather_run(struct gather *g, struct vhd *src, struct vhd_io *io, struct cursor *c, uint64_t off,
		       const struct vhd_run *run)
{
	uint32_t block = g->v->type == VHD_FIXED ? 0 : (uint32_t)(off >> g->v->block_shift);
	bool marks = g->op == HIO_OP_WRITE && g->v->type != VHD_FIXED && !block_is(g->v, block, BLOCK_FULL);
	uint32_t sector = (uint32_t)((off & (g->v->block_size - 1)) / VHD_SECTOR);
	uint64_t host = run->off, left = run->len;

	while (left) {
		struct hio_req *r = gather_req(g, src, io, host, marks ? block : VHD_UNUSED);
		struct origin *o = &g->of[r - g->req];
		uint64_t got = 0;

		while (got < left && g->niov < GATHER_IOV) {
			struct iovec *iov = &g->iov[g->niov++];

			iov->iov_len = cursor_piece(c, left - got, &iov->iov_base);
			got += iov->iov_len;
			r->niov++;
		}
		/* A cut between two sends may lie inside a sector: the second marks it, when all of it is there. */
		if (marks) {
			uint64_t in = host - run->off;

			if (!o->sectors)
				o->sector = sector + (uint32_t)(in / VHD_SECTOR);
			o->sectors = sector + (uint32_t)((in + got) / VHD_SECTOR) - o->sector;
		}
		host += got;
		left -= got;
		g->next = host;
	}
}

/* Where the bytes of a write go, always in the image itself: their block gets a place when it has none, and bits do not matter yet. */
static int place(struct vhd *v, uint64_t off, uint64_t len, struct vhd_run *run)
{
	uint32_t in = (uint32_t)(off & (v->block_size - 1)), block;
	int err;

	if (v->type == VHD_FIXED)
		return vhd_map(v, off, len, run);
	block = (uint32_t)(off >> v->block_shift);
	if ((err = vhd_block_ready(v, block)) < 0)
		return err;
	*run = (struct vhd_run){.off = bat_data(v, bat_get(v, block)) + in, .len = min_u64(len, v->block_size - in)};
	return 0;
}

/* Are the next @n bytes zeros? If so, they are passed over. */
static bool skip_zeros(struct cursor *c, uint64_t n)
{
	struct cursor at = *c;

	while (n) {
		void *p;
		size_t got = cursor_piece(&at, n, &p);

		if (!mem_is_zero(p, got))
			return false;
		n -= got;
	}
	*c = at;
	return true;
}

/* Zeros that are to be written where the chain has nothing: they are there already. *len: as far as one answer goes. */
static bool is_nothing(struct gather *g, struct cursor *c, uint64_t off, uint64_t *len)
{
	uint64_t room = g->v->block_size - (off & (g->v->block_size - 1));
	struct vhd_run run;

	if (g->op != HIO_OP_WRITE || !g->v->skip_zeroes || g->v->type == VHD_FIXED)
		return false;
	*len = min_u64(*len, room);
	if (bat_get(g->v, (uint32_t)(off >> g->v->block_shift)) != VHD_UNUSED || vhd_map(g->v, off, *len, &run) ||
	    !run.hole || run.len < *len)
		return false;
	return skip_zeros(c, *len);
}

/* Does somebody have to ask the disk where the bytes are? */
static bool asks_for_bitmap(const struct vhd *v, uint64_t off)
{
	uint32_t block = (uint32_t)(off >> v->block_shift);

	return v->type != VHD_FIXED && bat_get(v, block) != VHD_UNUSED &&
	       !block_is(v, block, BLOCK_FULL | BLOCK_PARTIAL);
}

static int gather_io(struct gather *g, struct vhd_io *io)
{
	struct cursor c = {.iov = io->iov};
	uint64_t len = 0, off = io->off;

	for (int i = 0; i < io->niov; i++)
		if (!add_ok(len, (uint64_t)io->iov[i].iov_len, &len))
			return -EINVAL;
	if ((off | len) % VHD_SECTOR || !range_ok(off, len, g->v->size))
		return -EINVAL;
	while (len) {
		struct vhd *src = g->v;
		uint64_t nothing = len;
		struct vhd_run run;
		int err;

		if (is_nothing(g, &c, off, &nothing)) {
			off += nothing;
			len -= nothing;
			continue;
		}
		/* A bitmap lies between what came before and the block that it is for: a head that goes for it must not come back. */
		if (g->nreq && hio_is_rotational(g->v->io) && asks_for_bitmap(g->v, off))
			gather_send(g);
		err = g->op == HIO_OP_WRITE ? place(g->v, off, len, &run) : vhd_map_src(g->v, off, len, &run, &src);

		if (err < 0)
			return err;
		if (run.hole)
			fill_zeros(&c, run.len);
		else
			gather_run(g, src, io, &c, off, &run);
		off += run.len;
		len -= run.len;
	}
	return 0;
}

static int transfer(struct vhd *v, enum hio_op op, struct vhd_io *io, unsigned n)
{
	struct gather g;

	g.v = v;
	g.op = op;
	g.nreq = g.niov = 0;
	g.mixed = false;
	g.next = 0;
	g.first_err = 0;
	for (unsigned i = 0; i < n; i++)
		io[i].result = 0;
	for (unsigned i = 0; i < n; i++) {
		int err = gather_io(&g, &io[i]);

		if (err && !io[i].result)
			io[i].result = err;
		if (err && !g.first_err)
			g.first_err = err;
	}
	gather_send(&g);
	return g.first_err;
}

static int refuse(struct vhd_io *io, unsigned n, int err)
{
	for (unsigned i = 0; i < n; i++)
		io[i].result = err;
	return err;
}

int vhd_readv(struct vhd *v, struct vhd_io *io, unsigned n)
{
	return v->info_only ? refuse(io, n, -ENOTSUP) : transfer(v, HIO_OP_READ, io, n);
}

int vhd_writev(struct vhd *v, struct vhd_io *io, unsigned n)
{
	int err;

	if (!v->writable || v->info_only)
		return refuse(io, n, v->writable ? -ENOTSUP : -EROFS);
	err = transfer(v, HIO_OP_WRITE, io, n);
	atomic_store_explicit(&v->wrote, true, memory_order_release);
	/* Bitmaps must not pile up in memory: to write them back takes a flush. */
	if (v->type != VHD_FIXED && vhd_bitmap_pressure(v)) {
		int flushed = vhd_flush(v);

		err = err ? err : flushed;
	}
	return err;
}

int vhd_read(struct vhd *v, void *buf, uint64_t len, uint64_t off)
{
	struct iovec iov = {buf, len};
	struct vhd_io io = {.off = off, .iov = &iov, .niov = 1};

	return len ? vhd_readv(v, &io, 1) : 0;
}

int vhd_write(struct vhd *v, const void *buf, uint64_t len, uint64_t off)
{
	struct iovec iov = {(void *)(uintptr_t)buf, len};
	struct vhd_io io = {.off = off, .iov = &iov, .niov = 1};

	return len ? vhd_writev(v, &io, 1) : 0;
}

static int discard(struct vhd *v, uint64_t off, uint64_t len)
{
	while (len) {
		struct vhd_run run;
		int err = vhd_map(v, off, len, &run);

		if (!err && !run.hole && run.layer == 0) /* what a parent holds stays */
			err = hio_punch(v->io, run.off, run.len);
		if (err)
			return err;
		off += run.len;
		len -= run.len;
	}
	return 0;
}

int vhd_discard(struct vhd *v, uint64_t off, uint64_t len)
{
	int err;

	if ((off | len) % VHD_SECTOR || !range_ok(off, len, v->size))
		return -EINVAL;
	if (!v->writable)
		return -EROFS;
	err = discard(v, off, len);
	atomic_store_explicit(&v->wrote, true, memory_order_release);
	return err;
}

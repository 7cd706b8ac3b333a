/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * map.c - from guest ranges to host ranges, and the transfers
 *
 * Ranges are resolved run by run: a hole, or bytes that are contiguous in the file. A batch's runs are collected and go to
 * the host together. The bitmap of a block is read once; all ones is remembered as a state, the few that are not in a small
 * cache.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/image/vhd_int.h"

/* ---- bitmaps ----------------------------------------------------------------------------------------------------------- */

static bool remembered(struct vhd *v, uint32_t block, uint8_t *bits)
{
	struct partial_map *m = &v->maps[block % MAPS];
	bool hit;

	lock_take(&v->maps_mu);
	hit = m->block == block;
	if (hit && bits)
		memcpy(bits, m->bits, v->bitmap_bytes);
	lock_drop(&v->maps_mu);
	return hit;
}

static void remember(struct vhd *v, uint32_t block, const uint8_t *bits)
{
	struct partial_map *m = &v->maps[block % MAPS];

	lock_take(&v->maps_mu);
	if (!m->bits)
		m->bits = malloc(v->bitmap_bytes);
	if (m->bits) {
		memcpy(m->bits, bits, v->bitmap_bytes);
		m->block = block;
	}
	lock_drop(&v->maps_mu);
}

void vhd_forget_map(struct vhd *v, uint32_t block)
{
	struct partial_map *m = &v->maps[block % MAPS];

	lock_take(&v->maps_mu);
	if (m->block == block)
		m->block = VHD_UNUSED;
	lock_drop(&v->maps_mu);
}

static bool all_ones(const struct vhd *v, const uint8_t *bits)
{
	uint32_t n = v->block_size / VHD_SECTOR;

	for (uint32_t i = 0; i < n / 8; i++)
		if (bits[i] != 0xff)
			return false;
	return n % 8 == 0 || (uint8_t)(bits[n / 8] | 0xff >> n % 8) == 0xff;
}

int vhd_block_state(struct vhd *v, uint32_t block, uint32_t entry, uint8_t *bits, enum block_state *st)
{
	AUTO(freep) uint8_t *own = NULL;
	int err;

	*st = (enum block_state)atomic_load_explicit(&v->state[block], memory_order_acquire);
	if (*st == BLOCK_FULL || (*st == BLOCK_PARTIAL && (!bits || remembered(v, block, bits))))
		return 0;
	if (!bits && !(bits = own = malloc(v->bitmap_bytes)))
		return -ENOMEM;
	err = hio_read(v->io, bits, v->bitmap_bytes, (uint64_t)entry * VHD_SECTOR);
	if (err)
		return err;
	*st = all_ones(v, bits) ? BLOCK_FULL : BLOCK_PARTIAL;
	if (*st == BLOCK_PARTIAL) {
		uint8_t unknown = BLOCK_UNKNOWN;

		/* A writer may have completed the block meanwhile: that stands. */
		if (!atomic_compare_exchange_strong(&v->state[block], &unknown, BLOCK_PARTIAL) && unknown == BLOCK_FULL)
			*st = BLOCK_FULL;
		else
			remember(v, block, bits);
	} else {
		atomic_store_explicit(&v->state[block], BLOCK_FULL, memory_order_release);
	}
	return 0;
}

/* How many sectors from @s on have the same bit as it. */
static uint32_t same_bits(const uint8_t *bits, uint32_t s, uint32_t end, bool *set)
{
	uint32_t i = s;

	*set = bits[s / 8] & 0x80 >> s % 8;
	while (i < end && !!(bits[i / 8] & 0x80 >> i % 8) == *set) {
		if (i % 8 == 0 && end - i >= 8 && bits[i / 8] == (*set ? 0xff : 0))
			i += 8;
		else
			i++;
	}
	return i - s;
}

/* ---- runs -------------------------------------------------------------------------------------------------------------- */

static int map_block(struct vhd *v, uint64_t off, uint64_t len, struct vhd_run *run)
{
	uint32_t block = (uint32_t)(off >> v->block_shift), in = (uint32_t)(off & (v->block_size - 1));
	uint32_t entry = atomic_load_explicit(&v->bat[block], memory_order_acquire);
	AUTO(freep) uint8_t *bits = NULL;
	enum block_state st;
	uint32_t s, n;
	bool set;
	int err;

	*run = (struct vhd_run){.len = min_u64(len, v->block_size - in)};
	if (entry == VHD_UNUSED) {
		run->hole = true;
		while (run->len < len && atomic_load_explicit(&v->bat[++block], memory_order_acquire) == VHD_UNUSED)
			run->len += min_u64(len - run->len, v->block_size);
		return 0;
	}
	run->off = bat_data(v, entry) + in;
	if (atomic_load_explicit(&v->state[block], memory_order_acquire) == BLOCK_FULL)
		return 0;
	bits = malloc(v->bitmap_bytes);
	if (!bits)
		return -ENOMEM;
	if ((err = vhd_block_state(v, block, entry, bits, &st)) < 0 || st == BLOCK_FULL)
		return err;
	s = in / VHD_SECTOR;
	n = same_bits(bits, s, v->block_size / VHD_SECTOR, &set);
	run->hole = !set;
	run->len = min_u64(run->len, (uint64_t)n * VHD_SECTOR - in % VHD_SECTOR);
	return 0;
}

int vhd_map(struct vhd *v, uint64_t off, uint64_t len, struct vhd_run *run)
{
	if (len == 0 || !range_ok(off, len, v->size))
		return -EINVAL;
	if (v->type != VHD_FIXED)
		return map_block(v, off, len, run);
	*run = (struct vhd_run){.off = off, .len = len};
	return 0;
}

/* ---- transfers ---------------------------------------------------------------------------------------------------------- */

#define GATHER_REQ 64u
#define GATHER_IOV 512u

/* Requests to the host that are being collected; who they belong to. */
struct gather {
	struct vhd *v;
	enum hio_op op;
	struct hio_req req[GATHER_REQ];
	struct vhd_io *owner[GATHER_REQ];
	struct iovec iov[GATHER_IOV];
	unsigned nreq, niov;
	int first_err;
};

static void gather_send(struct gather *g)
{
	if (g->nreq && hio_run(g->v->io, g->req, g->nreq) < 0)
		for (unsigned i = 0; i < g->nreq; i++) {
			if (g->req[i].result == 0)
				continue;
			if (!g->owner[i]->result)
				g->owner[i]->result = g->req[i].result;
			if (!g->first_err)
				g->first_err = g->req[i].result;
		}
	g->nreq = g->niov = 0;
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

static void gather_run(struct gather *g, struct vhd_io *io, struct cursor *c, uint64_t host, uint64_t len)
{
	while (len) {
		struct hio_req *r;
		uint64_t got = 0;

		if (g->nreq == GATHER_REQ || g->niov == GATHER_IOV)
			gather_send(g);
		r = &g->req[g->nreq];
		g->owner[g->nreq++] = io;
		*r = (struct hio_req){.op = g->op, .off = host, .iov = &g->iov[g->niov]};
		while (got < len && g->niov < GATHER_IOV) {
			struct iovec *iov = &g->iov[g->niov++];

			iov->iov_len = cursor_piece(c, len - got, &iov->iov_base);
			got += iov->iov_len;
			r->niov++;
		}
		host += got;
		len -= got;
	}
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
		struct vhd_run run;
		int err;

		if (g->op == HIO_OP_WRITE && g->v->type != VHD_FIXED &&
		    (err = vhd_block_ready(g->v, (uint32_t)(off >> g->v->block_shift))) < 0)
			return err;
		if ((err = vhd_map(g->v, off, len, &run)) < 0)
			return err;
		if (run.hole)
			fill_zeros(&c, run.len);
		else
			gather_run(g, io, &c, run.off, run.len);
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

int vhd_readv(struct vhd *v, struct vhd_io *io, unsigned n)
{
	return transfer(v, HIO_OP_READ, io, n);
}

int vhd_writev(struct vhd *v, struct vhd_io *io, unsigned n)
{
	return v->writable ? transfer(v, HIO_OP_WRITE, io, n) : -EROFS;
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

int vhd_discard(struct vhd *v, uint64_t off, uint64_t len)
{
	if ((off | len) % VHD_SECTOR || !range_ok(off, len, v->size))
		return -EINVAL;
	if (!v->writable)
		return -EROFS;
	while (len) {
		struct vhd_run run;
		int err = vhd_map(v, off, len, &run);

		if (!err && !run.hole)
			err = hio_punch(v->io, run.off, run.len);
		if (err)
			return err;
		off += run.len;
		len -= run.len;
	}
	return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * batch.c - runs of units become transfers of the image
 *
 *     frame 7  . . . . # # # #   frame 8  # # # # # . # #     units to transfer
 *                      \------ io 0 ------------/   \io 1/
 *                      \ run 0 /          \ run 1 / \run 2/    one iovec each
 *
 * Added in ascending order, neighbours share a transfer across frames.
 */
#include "vhd/cache/cache_int.h"

void batch_init(struct batch *b, struct cache_dev *d)
{
	b->d = d;
	b->nio = b->nrun = 0;
	b->end = UINT64_MAX;
}

bool batch_has_room(const struct batch *b)
{
	return b->nio + UNITS / 2 <= BATCH_IOS && b->nrun + UNITS / 2 <= BATCH_RUNS;
}

void batch_add(struct batch *b, struct frame *f, uint16_t units)
{
	const struct cache_dev *d = b->d;
	uint32_t no = frame_no(f), bytes = frame_bytes(d, no);

	while (units) {
		unsigned first = (unsigned)__builtin_ctz(units);
		unsigned end = first + (unsigned)__builtin_ctz(~((unsigned)units >> first));
		uint32_t from = first << UNIT_SHIFT, to = (uint32_t)min_u64((uint64_t)end << UNIT_SHIFT, bytes);
		uint64_t off = d->start + ((uint64_t)no << FRAME_SHIFT) + from;
		struct iovec *iov = &b->iov[b->nrun];

		if (off != b->end) {
			b->io[b->nio++] = (struct vhd_io){.off = off, .iov = iov};
			b->end = off;
		}
		b->io[b->nio - 1].niov++;
		*iov = (struct iovec){.iov_base = f->base + from, .iov_len = to - from};
		b->run[b->nrun++] = (struct batch_run){f, units_range(first, end), (uint16_t)(b->nio - 1)};
		b->end += to - from;
		units &= (uint16_t)~units_range(first, end);
	}
}

static uint64_t batch_bytes(const struct batch *b)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < b->nrun; i++)
		n += b->iov[i].iov_len;
	return n;
}

static void count_bytes(const struct batch *b, _Atomic uint64_t *all, _Atomic uint64_t *dev)
{
	uint64_t n = batch_bytes(b);

	atomic_fetch_add_explicit(all, n, memory_order_relaxed);
	atomic_fetch_add_explicit(dev, n, memory_order_relaxed);
}

int batch_read(struct batch *b)
{
	int err;

	count_bytes(b, &b->d->c->bytes_read, &b->d->bytes_read);
	dev_enter(b->d);
	err = vhd_readv(b->d->v, b->io, b->nio);
	dev_leave(b->d);
	for (unsigned i = 0; b->d->overlay && i < b->nrun; i++) {
		struct frame *f = b->run[i].f;
		uint8_t *to = b->iov[i].iov_base;

		overlay_apply(b->d, ((uint64_t)frame_no(f) << FRAME_SHIFT) + (uint64_t)(to - f->base), to,
			      b->iov[i].iov_len);
	}
	return err;
}

int batch_write(struct batch *b)
{
	int err;

	count_bytes(b, &b->d->c->bytes_written, &b->d->bytes_written);
	dev_enter(b->d);
	err = vhd_writev(b->d->v, b->io, b->nio);
	dev_leave(b->d);
	return err;
}

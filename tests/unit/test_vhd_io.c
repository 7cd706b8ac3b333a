/* SPDX-License-Identifier: BSD-3-Clause */
/* test_vhd_io.c - reading and writing images: against a copy in memory, by many threads, through failures and crashes */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/image_fixture.h"
#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/io/hio.h"

static void fill(uint8_t *b, size_t n, uint64_t seed)
{
	for (size_t i = 0; i < n; i++)
		b[i] = (uint8_t)(seed * 31 + i / 512 * 7 + i);
}

/* ---- against a copy in memory ---------------------------------------------------------------------------------------------- */

static const struct {
	enum vhd_type type;
	uint32_t block;
	uint32_t align; /* 0: the host's */
	unsigned flags;
} kinds[] = {
	{VHD_FIXED, 0, 0, 0},
	{VHD_DYNAMIC, 0, 0, 0},
	{VHD_DYNAMIC, 512 << 10, 0, 0},
	{VHD_DYNAMIC, 512 << 10, 4096, 0},
	{VHD_DYNAMIC, 4 << 20, 0, VHD_OPEN_CACHED},
};

static struct vhd *open_kind(int i)
{
	struct vhd *v = fx_open(VHD_OPEN_WRITE | kinds[i].flags);

	if (kinds[i].align)
		hio_set_align(vhd_host(v), kinds[i].align);
	return v;
}

static void qemu_agrees(const uint8_t *content, uint64_t size)
{
	char raw[110];
	FILE *f;

	if (!fx_have("qemu-img"))
		return;
	snprintf(raw, sizeof raw, "%s/raw", fx_dir);
	f = fopen(raw, "we");
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(content, 1, size, f), size);
	fclose(f);
	ck_assert_int_eq(fx_run("qemu-img compare -f vpc -F raw %s %s", fx_path, raw), 0);
}

START_TEST(an_image_keeps_what_is_written)
{
	enum { SIZE = 12 << 20 };
	AUTO(freep) uint8_t *shadow = calloc(1, SIZE), *buf = malloc(SIZE);
	struct vhd *v;

	ck_assert(shadow && buf);
	fx_make(kinds[_i].type, SIZE, kinds[_i].block);
	v = open_kind(_i);
	ck_assert_uint_ge(vhd_size(v), SIZE);
	for (int i = 0; i < 300; i++) {
		uint64_t off = fx_rnd(SIZE / 512) * 512, len = (1 + fx_rnd(i % 10 ? 64 : 8192)) * 512;

		len = min_u64(len, SIZE - off);
		switch (fx_rnd(8)) {
		case 0 ... 2:
			fill(buf, len, (uint64_t)i);
			ck_assert_int_eq(vhd_write(v, buf, len, off), 0);
			memcpy(shadow + off, buf, len);
			break;
		case 3 ... 5:
			ck_assert_int_eq(vhd_read(v, buf, len, off), 0);
			ck_assert_mem_eq(buf, shadow + off, len);
			break;
		case 6:
			ck_assert_int_eq(vhd_discard(v, off, len), 0);
			memset(shadow + off, 0, len);
			break;
		default:
			ck_assert_int_eq(vhd_flush(v), 0);
		}
		if (i % 50 == 49) {
			fx_close(v);
			v = open_kind(_i);
		}
	}
	ck_assert_int_eq(vhd_read(v, buf, SIZE, 0), 0);
	ck_assert_mem_eq(buf, shadow, SIZE);
	fx_close(v);
	v = fx_open(0);
	ck_assert_int_eq(vhd_read(v, buf, SIZE, 0), 0);
	ck_assert_mem_eq(buf, shadow, SIZE);
	ck_assert_int_eq(vhd_write(v, buf, 512, 0), -EROFS);
	ck_assert_int_eq(vhd_discard(v, 0, 512), -EROFS);
	fx_close(v);
	qemu_agrees(shadow, SIZE);
}
END_TEST

/* 32: a batch of transfers, some of which continue each other, in pieces of any size. */
START_TEST(a_batch_of_pieces_arrives_in_order)
{
	enum { SIZE = 6 << 20, N = 96 };
	AUTO(freep) uint8_t *a = malloc(SIZE), *b = malloc(SIZE);
	struct vhd_io io[N];
	struct iovec iov[N][3];
	struct vhd *v;
	uint64_t piece = SIZE / N;

	ck_assert(a && b);
	fill(a, SIZE, 5);
	fx_make(kinds[_i].type, SIZE, kinds[_i].block);
	v = open_kind(_i);
	for (unsigned round = 0; round < 2; round++) {
		uint8_t *mem = round ? b : a;

		for (unsigned i = 0; i < N; i++) {
			uint64_t off = i * piece, x = 1 + fx_rnd(piece / 2), y = 1 + fx_rnd(piece / 3);

			iov[i][0] = (struct iovec){mem + off, x};
			iov[i][1] = (struct iovec){mem + off + x, y};
			iov[i][2] = (struct iovec){mem + off + x + y, piece - x - y};
			io[i] = (struct vhd_io){.off = off, .iov = iov[i], .niov = 3};
		}
		ck_assert_int_eq(round ? vhd_readv(v, io, N) : vhd_writev(v, io, N), 0);
	}
	ck_assert_mem_eq(a, b, SIZE);
	fx_close(v);
}
END_TEST

START_TEST(ranges_outside_the_disk_are_refused_alone)
{
	struct vhd *v;
	uint8_t b[1024] = {0};
	struct iovec good = {b, 512}, odd = {b, 100};
	struct vhd_io io[4];

	fx_make(VHD_DYNAMIC, 4 * MIB, 0);
	v = fx_open(VHD_OPEN_WRITE);
	memset(b, 3, sizeof b);
	io[0] = (struct vhd_io){.off = vhd_size(v), .iov = &good, .niov = 1};
	io[1] = (struct vhd_io){.off = 512, .iov = &good, .niov = 1};
	io[2] = (struct vhd_io){.off = 0, .iov = &odd, .niov = 1};
	io[3] = (struct vhd_io){.off = UINT64_MAX - 511, .iov = &good, .niov = 1};
	ck_assert_int_eq(vhd_writev(v, io, 4), -EINVAL);
	ck_assert_int_eq(io[0].result, -EINVAL);
	ck_assert_int_eq(io[1].result, 0);
	ck_assert_int_eq(io[2].result, -EINVAL);
	ck_assert_int_eq(io[3].result, -EINVAL);
	memset(b, 0, sizeof b);
	ck_assert_int_eq(vhd_read(v, b, 512, 512), 0);
	ck_assert_uint_eq(b[0], 3);
	fx_close(v);
}
END_TEST

/* ---- where things are -------------------------------------------------------------------------------------------------------- */

/* 31, 41: holes are merged across blocks. */
START_TEST(a_new_image_reads_as_zeros_and_is_one_hole)
{
	uint64_t data, end;
	struct vhd_run run;
	struct vhd *v;

	fx_make(VHD_DYNAMIC, 100 * MIB, 0);
	v = fx_open(0);
	ck_assert_int_eq(vhd_map(v, 12345, vhd_size(v) - 12345, &run), 0);
	ck_assert(run.hole);
	ck_assert_uint_eq(run.len, vhd_size(v) - 12345);
	ck_assert_int_eq(vhd_next_data(v, 0, &data, &end), 0);
	ck_assert(data == vhd_size(v) && end == vhd_size(v));
	ck_assert_int_eq(vhd_map(v, vhd_size(v), 1, &run), -EINVAL);
	ck_assert_int_eq(vhd_map(v, 1, UINT64_MAX, &run), -EINVAL);
	fx_close(v);
}
END_TEST

/* alloc.c rule 1; and the first block does not lie over table or footer. */
START_TEST(zeros_take_no_space_where_that_is_asked_for)
{
	enum { BLOCK = 512 << 10 };
	AUTO(freep) uint8_t *zeros = calloc(1, 2 * BLOCK), *b = malloc(2 * BLOCK);
	struct vhd_run run;
	struct vhd *v;

	fx_make(VHD_DYNAMIC, 16 << 20, BLOCK);
	v = fx_open(VHD_OPEN_WRITE | VHD_OPEN_ZEROES);
	ck_assert_int_eq(vhd_write(v, zeros, 2 * BLOCK, BLOCK / 2), 0);
	ck_assert_int_eq(vhd_map(v, 0, vhd_size(v), &run), 0);
	ck_assert(run.hole && run.len == vhd_size(v));
	/* Not where there is something. */
	memset(b, 7, 4096);
	ck_assert_int_eq(vhd_write(v, b, 4096, BLOCK), 0);
	ck_assert_int_eq(vhd_write(v, zeros, 2 * BLOCK, BLOCK / 2), 0);
	ck_assert_int_eq(vhd_read(v, b, 4096, BLOCK), 0);
	ck_assert_int_eq(memcmp(b, zeros, 4096), 0);
	/* And not without being asked. */
	ck_assert_int_eq(vhd_close(v), 0);
	v = fx_open(VHD_OPEN_WRITE);
	ck_assert_int_eq(vhd_write(v, zeros, 512, 8 << 20), 0);
	ck_assert_int_eq(vhd_map(v, 8 << 20, 512, &run), 0);
	ck_assert(!run.hole);
	ck_assert_int_eq(vhd_close(v), 0);
}
END_TEST

START_TEST(data_begins_on_a_4_kib_boundary)
{
	struct vhd_run run;
	struct vhd *v;
	uint8_t b[512] = {1};

	fx_make(VHD_DYNAMIC, 100 * MIB, 0);
	for (uint64_t i = 0; i < 40; i++) {
		v = fx_open(VHD_OPEN_WRITE);
		/* One, two or three blocks in each round. */
		for (uint64_t last = i + i % 3; i <= last; i++) {
			ck_assert_int_eq(vhd_write(v, b, 512, i * 2 * MIB), 0);
			ck_assert_int_eq(vhd_map(v, i * 2 * MIB, 512, &run), 0);
			ck_assert_uint_eq(run.off % 4096, 0);
		}
		fx_close(v);
	}
}
END_TEST

START_TEST(only_what_was_written_is_data)
{
	uint64_t data, end;
	struct vhd *v;
	uint8_t b[65536];

	memset(b, 1, sizeof b);
	fx_make(_i ? VHD_FIXED : VHD_DYNAMIC, 100 * MIB, 0);
	v = fx_open(VHD_OPEN_WRITE);
	ck_assert_int_eq(vhd_write(v, b, sizeof b, 50 * MIB), 0);
	ck_assert_int_eq(vhd_flush(v), 0);
	ck_assert_int_eq(vhd_next_data(v, 0, &data, &end), 0);
	ck_assert_uint_eq(data, 50 * MIB);
	ck_assert_uint_eq(end, 50 * MIB + sizeof b);
	ck_assert_int_eq(vhd_next_data(v, 50 * MIB + sizeof b, &data, &end), 0);
	/* The footer of a fixed image lies in the host's block behind the disk: it is not the disk's data. */
	ck_assert_uint_ge(data, vhd_size(v) - vhd_size(v) % 4096);
	fx_close(v);
}
END_TEST

/* 33, 38: what was grown ahead is given back, and the footers are the same. */
START_TEST(closing_gives_back_the_room_made_ahead)
{
	uint8_t head[512], tail[512], b[512] = {1};
	struct vhd *v;

	fx_make(VHD_DYNAMIC, 1000 * MIB, 0);
	v = fx_open(VHD_OPEN_WRITE);
	for (uint64_t i = 0; i < 20; i++)
		ck_assert_int_eq(vhd_write(v, b, 512, i * 2 * MIB), 0);
	fx_close(v);
	ck_assert_uint_lt(fx_size(), 20 * (2 * MIB + 8192) + 65536);
	fx_peek(0, head, 512);
	fx_peek(fx_size() - 512, tail, 512);
	ck_assert_mem_eq(head, tail, 512);
	if (fx_have("vhdiinfo"))
		ck_assert_int_eq(fx_run("vhdiinfo %s", fx_path), 0);
}
END_TEST

/* ---- how the host is used --------------------------------------------------------------------------------------------------- */

static struct count {
	unsigned reads, writes, flushes;
	uint64_t read_bytes, write_bytes;
} count;

static int counting(void *arg, enum hio_event ev, uint64_t off, uint64_t len, const struct iovec *iov, int niov)
{
	(void)arg;
	(void)off;
	(void)iov;
	(void)niov;
	count.reads += ev == HIO_EV_READ;
	count.writes += ev == HIO_EV_WRITE;
	count.flushes += ev == HIO_EV_FLUSH;
	count.read_bytes += ev == HIO_EV_READ ? len : 0;
	count.write_bytes += ev == HIO_EV_WRITE ? len : 0;
	return 0;
}

/* 32, 39: one transfer per block, and two syncs at most, however many blocks are new. */
START_TEST(large_transfers_stay_large)
{
	AUTO(freep) uint8_t *b = hio_alloc(32 * MIB);
	struct vhd *v;

	ck_assert_ptr_nonnull(b);
	fill(b, 32 * MIB, 1);
	fx_make(VHD_DYNAMIC, 64 * MIB, 0);
	v = fx_open(VHD_OPEN_WRITE);
	hio_set_hook(vhd_host(v), counting, NULL);
	count = (struct count){0};
	ck_assert_int_eq(vhd_write(v, b, 32 * MIB, 0), 0);
	ck_assert_uint_le(count.writes, 16 + 6); /* data, and the footer now and then */
	ck_assert_uint_eq(count.flushes, 0);
	ck_assert_int_eq(vhd_flush(v), 0);
	ck_assert_uint_eq(count.flushes, 2);
	ck_assert_uint_le(count.writes, 16 + 6 + 16 + 1); /* bitmaps, and the table once */
	count = (struct count){0};
	ck_assert_int_eq(vhd_flush(v), 0);
	ck_assert_uint_eq(count.flushes, 0);
	ck_assert_int_eq(vhd_write(v, b, 32 * MIB, 0), 0);
	ck_assert_uint_eq(count.writes, 16);
	ck_assert_int_eq(vhd_flush(v), 0);
	ck_assert_uint_eq(count.flushes, 1);
	ck_assert_int_eq(vhd_read(v, b, 64 * MIB / 2, 0), 0);
	ck_assert_uint_eq(count.reads, 16);
	ck_assert_uint_eq(count.read_bytes, 32 * MIB);
	fx_close(v);
	/* Opened again, bitmaps are read ahead, once. */
	v = fx_open(0);
	hio_set_hook(vhd_host(v), counting, NULL);
	count = (struct count){0};
	ck_assert_int_eq(vhd_read(v, b, 32 * MIB, 0), 0);
	ck_assert_uint_eq(count.reads, 32);
	ck_assert_uint_eq(count.read_bytes, 32 * MIB + 16 * 512);
	fx_close(v);
}
END_TEST

START_TEST(neighbours_of_a_batch_are_joined)
{
	enum { N = 32 };
	AUTO(freep) uint8_t *b = hio_alloc(N * 65536);
	struct vhd_io io[N];
	struct iovec iov[N];
	struct vhd *v;

	ck_assert_ptr_nonnull(b);
	fx_make(VHD_DYNAMIC, 64 * MIB, 0);
	v = fx_open(VHD_OPEN_WRITE);
	for (unsigned i = 0; i < N; i++) {
		iov[i] = (struct iovec){b + i * 65536, 65536};
		io[i] = (struct vhd_io){.off = i * 65536, .iov = &iov[i], .niov = 1};
	}
	memset(b, 1, N * 65536);
	ck_assert_int_eq(vhd_writev(v, io, N), 0);
	hio_set_hook(vhd_host(v), counting, NULL);
	count = (struct count){0};
	ck_assert_int_eq(vhd_writev(v, io, N), 0);
	ck_assert_uint_eq(count.writes, 1);
	ck_assert_int_eq(vhd_readv(v, io, N), 0);
	ck_assert_uint_eq(count.reads, 1);
	fx_close(v);
}
END_TEST

/* ---- threads ----------------------------------------------------------------------------------------------------------------- */

struct writer {
	struct vhd *v;
	unsigned n;
	bool flush;
	pthread_t t;
};

static void *write_stripe(void *arg)
{
	struct writer *w = arg;
	uint8_t b[512], c[512];

	memset(b, (int)w->n + 1, sizeof b);
	for (uint64_t s = w->n; s < 8 * MIB / 512; s += 8 * 37) {
		if (vhd_write(w->v, b, 512, s * 512) < 0 || vhd_read(w->v, c, 512, s * 512) < 0 ||
		    memcmp(b, c, 512) != 0)
			return arg;
		if (w->flush && s % 5 == 0 && vhd_flush(w->v) < 0)
			return arg;
	}
	return NULL;
}

static void check_stripes(struct vhd *v)
{
	uint8_t b[512];

	for (unsigned i = 0; i < 8; i++)
		for (uint64_t s = i; s < 8 * MIB / 512; s += 8 * 37) {
			ck_assert_int_eq(vhd_read(v, b, 512, s * 512), 0);
			ck_assert_uint_eq(b[0], i + 1);
			ck_assert_uint_eq(b[511], i + 1);
		}
}

static void half_bitmaps(uint32_t blocks)
{
	uint8_t bits[512];
	be32 at;

	memset(bits, 0, 512);
	memset(bits + 64, 0x55, 32); /* sectors 512 to 767: every other one */
	for (uint32_t i = 0; i < blocks; i++) {
		fx_peek(1536 + 4 * i, at.b, 4);
		fx_poke((uint64_t)be32_get(at) * 512, bits, 512);
	}
}

/* 36, 42, 43: a block never gets two places, however many write into it first; the same for bits of a partial bitmap. */
START_TEST(many_writers_of_one_block_share_it)
{
	struct writer w[8];
	struct vhd_info info;
	struct vhd *v;

	fx_make(VHD_DYNAMIC, 8 * MIB, 0);
	if (_i & 1) {
		uint8_t b[512] = {1};

		v = fx_open(VHD_OPEN_WRITE);
		for (uint64_t i = 0; i < 4; i++)
			ck_assert_int_eq(vhd_write(v, b, 512, i * 2 * MIB), 0);
		fx_close(v);
		half_bitmaps(4);
	}
	v = fx_open(VHD_OPEN_WRITE);
	for (unsigned i = 0; i < 8; i++) {
		w[i] = (struct writer){.v = v, .n = i, .flush = _i & 2 && i == 0};
		pthread_create(&w[i].t, NULL, write_stripe, &w[i]);
	}
	for (unsigned i = 0; i < 8; i++) {
		void *failed;

		pthread_join(w[i].t, &failed);
		ck_assert_ptr_null(failed);
	}
	vhd_info(v, &info);
	ck_assert_uint_eq(info.blocks_allocated, 4);
	check_stripes(v);
	fx_close(v);
	v = fx_open(0);
	check_stripes(v);
	fx_close(v);
}
END_TEST

/* ---- partial bitmaps ----------------------------------------------------------------------------------------------------------- */

/* 34, 35: bit 0 means zeros, whatever the bytes below; a written sector sets its own bit and no other. */
START_TEST(sector_bitmaps_are_honoured_sector_by_sector)
{
	AUTO(freep) uint8_t *buf = malloc(2 * MIB), *want = calloc(1, 2 * MIB);
	uint8_t bits[512];
	struct vhd *v;
	be32 at;

	ck_assert(buf && want);
	memset(buf, 0xee, 2 * MIB);
	fx_make(VHD_DYNAMIC, 4 * MIB, 0);
	v = fx_open(VHD_OPEN_WRITE);
	ck_assert_int_eq(vhd_write(v, buf, 2 * MIB, 0), 0);
	fx_close(v);
	half_bitmaps(1);
	for (uint64_t s = 512; s < 768; s++)
		if (s % 2)
			memset(want + s * 512, 0xee, 512);
	v = fx_open(VHD_OPEN_WRITE);
	ck_assert_int_eq(vhd_read(v, buf, 2 * MIB, 0), 0);
	ck_assert_mem_eq(buf, want, 2 * MIB);
	for (int i = 0; i < 40; i++) {
		uint64_t s = fx_rnd(4000), n = 1 + fx_rnd(40);

		fill(want + s * 512, n * 512, (uint64_t)i);
		ck_assert_int_eq(vhd_write(v, want + s * 512, n * 512, s * 512), 0);
		ck_assert_int_eq(vhd_read(v, buf, 2 * MIB, 0), 0);
		ck_assert_mem_eq(buf, want, 2 * MIB);
		if (i % 7 == 0)
			ck_assert_int_eq(vhd_flush(v), 0);
	}
	fx_close(v);
	v = fx_open(VHD_OPEN_WRITE);
	ck_assert_int_eq(vhd_read(v, buf, 2 * MIB, 0), 0);
	ck_assert_mem_eq(buf, want, 2 * MIB);
	/* All of it: the block is full. */
	fill(want, 2 * MIB, 77);
	ck_assert_int_eq(vhd_write(v, want, 2 * MIB, 0), 0);
	fx_close(v);
	fx_peek(1536, at.b, 4);
	fx_peek((uint64_t)be32_get(at) * 512, bits, 512);
	for (int i = 0; i < 512; i++)
		ck_assert_uint_eq(bits[i], 0xff);
}
END_TEST

/* Those of a range and no others, once, and no data. */
START_TEST(maps_are_loaded_without_data)
{
	AUTO(freep) uint8_t *b = hio_alloc(32 * MIB);
	struct vhd_run run;
	struct vhd *v;

	ck_assert_ptr_nonnull(b);
	fill(b, 32 * MIB, 1);
	fx_make(VHD_DYNAMIC, 64 * MIB, 0);
	v = fx_open(VHD_OPEN_WRITE);
	ck_assert_int_eq(vhd_write(v, b, 32 * MIB, 0), 0);
	fx_close(v);
	half_bitmaps(12);
	v = fx_open(0);
	hio_set_hook(vhd_host(v), counting, NULL);
	count = (struct count){0};
	ck_assert_int_eq(vhd_load_maps(v, 5 * MIB, 1), 0);
	ck_assert_int_eq(vhd_load_maps(v, 7 * MIB, 2 * MIB), 0);
	ck_assert_uint_eq(count.reads, 3);
	ck_assert_int_eq(vhd_load_maps(v, 0, 64 * MIB), 0);
	ck_assert_uint_eq(count.reads, 16);
	ck_assert_uint_eq(count.read_bytes, 16 * 512);
	ck_assert_int_eq(vhd_load_maps(v, 0, 64 * MIB), 0);
	for (uint64_t off = 0; off < 64 * MIB; off += run.len)
		ck_assert_int_eq(vhd_map(v, off, 64 * MIB - off, &run), 0);
	ck_assert_uint_eq(count.reads, 16);
	ck_assert_int_eq(vhd_load_maps(v, vhd_size(v) - 1, 2), -EINVAL);
	ck_assert_int_eq(vhd_load_maps(v, 0, 0), -EINVAL);
	fx_close(v);
}
END_TEST

/* ---- failures ------------------------------------------------------------------------------------------------------------------ */

static int fail_after, fail_err;
static bool fail_stays;

static int failing(void *arg, enum hio_event ev, uint64_t off, uint64_t len, const struct iovec *iov, int niov)
{
	(void)arg;
	(void)ev;
	(void)off;
	(void)len;
	(void)iov;
	(void)niov;
	if (fail_stays && fail_after < 0)
		return fail_err;
	return fail_after-- == 0 ? fail_err : 0;
}

/* 37: the 1st, 2nd, … operation of a first write and its flush fails: what was there stays, the image opens. */
START_TEST(any_failing_operation_of_an_allocation_leaves_a_whole_image)
{
	AUTO(freep) uint8_t *b = malloc(MIB), *c = malloc(MIB);
	bool done = false;

	ck_assert(b && c);
	for (int k = 0; !done; k++) {
		struct vhd *v;
		int err;

		ck_assert_int_lt(k, 60);
		fx_make(VHD_DYNAMIC, 16 * MIB, 0);
		v = fx_open(VHD_OPEN_WRITE);
		fill(b, MIB, 1);
		ck_assert_int_eq(vhd_write(v, b, MIB, 0), 0);
		fx_close(v);
		v = fx_open(VHD_OPEN_WRITE);
		fail_after = k;
		fail_err = _i & 1 ? -ENOSPC : -EIO;
		fail_stays = _i & 2;
		hio_set_hook(vhd_host(v), failing, NULL);
		fill(c, MIB, 2);
		err = vhd_write(v, c, MIB, 5 * MIB + MIB / 2); /* two blocks */
		if (!err)
			err = vhd_write(v, c, 4096, 0);
		if (!err)
			err = vhd_flush(v);
		if (!err)
			err = vhd_close(v);
		else
			vhd_close(v);
		done = err == 0;
		v = fx_open(VHD_OPEN_WRITE);
		ck_assert_int_eq(vhd_read(v, c, MIB, 0), 0);
		ck_assert_mem_eq(c + 4096, b + 4096, MIB - 4096);
		/* And it can go on. */
		ck_assert_int_eq(vhd_write(v, b, MIB, 5 * MIB + MIB / 2), 0);
		ck_assert_int_eq(vhd_read(v, c, MIB, 5 * MIB + MIB / 2), 0);
		ck_assert_mem_eq(c, b, MIB);
		fx_close(v);
		unlink(fx_path);
	}
}
END_TEST

START_TEST(no_space_for_our_own_metadata_is_tried_again)
{
	struct vhd *v;
	uint8_t b[512];

	fx_make(VHD_DYNAMIC, 16 * MIB, 0);
	v = fx_open(VHD_OPEN_WRITE);
	memset(b, 4, sizeof b);
	ck_assert_int_eq(vhd_write(v, b, 512, 3 * MIB), 0);
	hio_set_hook(vhd_host(v), failing, NULL);
	fail_after = 0;
	fail_err = -ENOSPC;
	fail_stays = false;
	ck_assert_int_eq(vhd_flush(v), -ENOSPC);
	ck_assert_int_eq(vhd_flush(v), 0);
	hio_set_hook(vhd_host(v), NULL, NULL);
	fx_close(v);
	v = fx_open(0);
	ck_assert_int_eq(vhd_read(v, b, 512, 3 * MIB), 0);
	ck_assert_uint_eq(b[0], 4);
	fx_close(v);
}
END_TEST

static int fail_flushes(void *arg, enum hio_event ev, uint64_t off, uint64_t len, const struct iovec *iov, int niov)
{
	(void)arg;
	(void)off;
	(void)len;
	(void)iov;
	(void)niov;
	return ev == HIO_EV_FLUSH ? -EIO : 0;
}

/* alloc.c rule 6 */
START_TEST(after_a_failed_sync_nothing_is_promised)
{
	struct vhd *v;
	uint8_t b[512];

	fx_make(_i ? VHD_FIXED : VHD_DYNAMIC, 16 * MIB, 0);
	v = fx_open(VHD_OPEN_WRITE);
	memset(b, 4, sizeof b);
	ck_assert_int_eq(vhd_write(v, b, 512, 3 * MIB), 0);
	hio_set_hook(vhd_host(v), fail_flushes, NULL);
	ck_assert_int_eq(vhd_flush(v), -EIO);
	hio_set_hook(vhd_host(v), NULL, NULL);
	ck_assert_int_eq(vhd_flush(v), -EIO);
	ck_assert_int_eq(vhd_read(v, b, 512, 3 * MIB), 0);
	ck_assert_uint_eq(b[0], 4);
	ck_assert_int_eq(vhd_write(v, b, 512, 9 * MIB), _i ? 0 : -EIO);
	ck_assert_int_eq(vhd_close(v), -EIO);
	fx_close(fx_open(0));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vhd io");
	TCase *t = tcase_create("io");
	int n = (int)ARRAY_LEN(kinds);

	tcase_set_timeout(t, 120);
	tcase_add_checked_fixture(t, fx_setup, fx_teardown);
	tcase_add_loop_test(t, an_image_keeps_what_is_written, 0, n);
	tcase_add_loop_test(t, a_batch_of_pieces_arrives_in_order, 0, n);
	tcase_add_test(t, ranges_outside_the_disk_are_refused_alone);
	tcase_add_test(t, a_new_image_reads_as_zeros_and_is_one_hole);
	tcase_add_test(t, zeros_take_no_space_where_that_is_asked_for);
	tcase_add_test(t, data_begins_on_a_4_kib_boundary);
	tcase_add_loop_test(t, only_what_was_written_is_data, 0, 2);
	tcase_add_test(t, closing_gives_back_the_room_made_ahead);
	tcase_add_test(t, large_transfers_stay_large);
	tcase_add_test(t, neighbours_of_a_batch_are_joined);
	tcase_add_loop_test(t, many_writers_of_one_block_share_it, 0, 4);
	tcase_add_test(t, sector_bitmaps_are_honoured_sector_by_sector);
	tcase_add_test(t, maps_are_loaded_without_data);
	tcase_add_loop_test(t, any_failing_operation_of_an_allocation_leaves_a_whole_image, 0, 4);
	tcase_add_test(t, no_space_for_our_own_metadata_is_tried_again);
	tcase_add_loop_test(t, after_a_failed_sync_nothing_is_promised, 0, 2);
	suite_add_tcase(s, t);
	return fx_main(s);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* test_vhd_chain.c - differencing images: contents against a copy in memory, how parents are found, and which are refused */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/image_fixture.h"
#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/image/check.h"
#include "vhd/image/vhd_int.h"

#define SIZE (12 * MIB)

static char path_buf[8][160];

/* A file in the test's folder; some at a time. */
static const char *in(const char *name)
{
	static unsigned next;
	char *p = path_buf[next++ % 8];

	snprintf(p, sizeof path_buf[0], "%s/%s", fx_dir, name);
	return p;
}

static void make_base(const char *name, enum vhd_type type, uint64_t size, uint32_t block)
{
	const struct vhd_create_opts o = {.type = type, .size = size, .block_size = block, .exact = true};

	ck_assert_int_eq(vhd_create(in(name), &o, &fx_why), 0);
}

static void make_child(const char *name, const char *parent, uint32_t block)
{
	const struct vhd_create_opts o = {.type = VHD_DIFF, .parent = in(parent), .block_size = block};

	ck_assert_msg(vhd_create(in(name), &o, &fx_why) == 0, "%s", fx_why.line);
}

static struct vhd *open_it(const char *name, unsigned flags)
{
	const struct vhd_open_opts o = {.flags = flags};
	struct vhd *v = NULL;
	int err = vhd_open(&v, in(name), &o, &fx_why);

	ck_assert_msg(err == 0, "%s: %s", name, fx_why.line);
	return v;
}

/* The parent may have been written to since: that is what time and --force-parent are about, not this. */
static void forget_time(const char *child)
{
	uint8_t h[1024];
	FILE *f = fopen(in(child), "r+e");
	struct vhd_dynamic *d = (struct vhd_dynamic *)h;

	ck_assert(f && fseek(f, 512, SEEK_SET) == 0 && fread(h, 1, sizeof h, f) == sizeof h);
	d->parent_timestamp = be32_of(0);
	d->checksum = be32_of(vhd_checksum(d, sizeof *d, offsetof(struct vhd_dynamic, checksum)));
	ck_assert(fseek(f, 512, SEEK_SET) == 0 && fwrite(h, 1, sizeof h, f) == sizeof h);
	fclose(f);
}

/* ---- contents -------------------------------------------------------------------------------------------------------------- */

static void write_some(struct vhd *v, uint8_t *copy, unsigned times)
{
	static uint8_t b[3 * MIB];

	for (unsigned i = 0; i < times; i++) {
		uint64_t off = fx_rnd(SIZE / 512) * 512, len = (1 + fx_rnd(i % 5 ? 40 : sizeof b / 512)) * 512;

		len = min_u64(len, SIZE - off);
		for (uint64_t k = 0; k < len; k++)
			b[k] = (uint8_t)(fx_rnd(256));
		ck_assert_int_eq(vhd_write(v, b, len, off), 0);
		memcpy(copy + off, b, len);
	}
}

static void same(struct vhd *v, const uint8_t *copy)
{
	AUTO(freep) uint8_t *b = malloc(SIZE);

	ck_assert_int_eq(vhd_read(v, b, SIZE, 0), 0);
	ck_assert_int_eq(memcmp(b, copy, SIZE), 0);
	for (unsigned i = 0; i < 300; i++) {
		uint64_t off = fx_rnd(SIZE / 512) * 512, len = min_u64((1 + fx_rnd(100)) * 512, SIZE - off);

		ck_assert_int_eq(vhd_read(v, b, len, off), 0);
		ck_assert_int_eq(memcmp(b, copy + off, len), 0);
	}
}

static unsigned reads_of_child, reads_of_parent;

static int count_reads(void *arg, enum hio_event ev, uint64_t off, uint64_t len, const struct iovec *iov, int niov)
{
	(void)off;
	(void)len;
	(void)iov;
	(void)niov;
	*(unsigned *)arg += ev == HIO_EV_READ;
	return 0;
}

/* A parent's are needed where its child is not full. */
START_TEST(maps_of_all_layers_are_loaded)
{
	AUTO(freep) uint8_t *b = calloc(1, SIZE);
	struct vhd_run run;
	struct vhd *v;

	memset(b, 1, SIZE);
	make_base("base", VHD_DYNAMIC, SIZE, 0);
	v = open_it("base", VHD_OPEN_WRITE);
	ck_assert_int_eq(vhd_write(v, b, 6 * MIB, 0), 0);
	ck_assert_int_eq(vhd_close(v), 0);
	make_child("one", "base", 0);
	v = open_it("one", VHD_OPEN_WRITE);
	ck_assert_int_eq(vhd_write(v, b, 512, 0), 0);
	ck_assert_int_eq(vhd_write(v, b, 2 * MIB, 8 * MIB), 0);
	ck_assert_int_eq(vhd_close(v), 0);
	v = open_it("one", 0);
	hio_set_hook(vhd_host(v), count_reads, &reads_of_child);
	hio_set_hook(vhd_host(vhd_backing(v)), count_reads, &reads_of_parent);
	reads_of_child = reads_of_parent = 0;
	ck_assert_int_eq(vhd_load_maps(v, 8 * MIB, 2 * MIB), 0);
	ck_assert_uint_eq(reads_of_child, 1);
	ck_assert_uint_eq(reads_of_parent, 0);
	ck_assert_int_eq(vhd_load_maps(v, 0, SIZE), 0);
	ck_assert_uint_eq(reads_of_child, 2);
	ck_assert_uint_eq(reads_of_parent, 3);
	for (uint64_t off = 0; off < SIZE; off += run.len)
		ck_assert_int_eq(vhd_map(v, off, SIZE - off, &run), 0);
	ck_assert_uint_eq(reads_of_child + reads_of_parent, 5);
	ck_assert_int_eq(vhd_close(v), 0);
}
END_TEST

/* 35: bits are honoured sector by sector, in every layer; blocks of different sizes; a base of each kind. */
/* What a parent has lost is an error for its children, and no zeros; so is a parent that is gone, when it is looked for. */
START_TEST(a_parent_that_is_cut_or_removed_while_it_is_used_is_found_out)
{
	AUTO(freep) uint8_t *b = calloc(1, SIZE);
	struct vhd *v;

	memset(b, 1, SIZE);
	make_base("base", _i ? VHD_FIXED : VHD_DYNAMIC, SIZE, 0);
	v = open_it("base", VHD_OPEN_WRITE);
	ck_assert_int_eq(vhd_write(v, b, SIZE, 0), 0);
	ck_assert_int_eq(vhd_close(v), 0);
	make_child("one", "base", 0);
	make_child("two", "one", 0);
	v = open_it("two", VHD_OPEN_WRITE);
	ck_assert_int_eq(vhd_look(v), 0);
	ck_assert_int_eq(truncate(in("base"), 5 * MIB), 0);
	ck_assert_int_eq(vhd_look(v), -EIO);
	ck_assert_int_eq(vhd_read(v, b, MIB, 0), 0);
	ck_assert_int_eq(vhd_read(v, b, MIB, 8 * MIB), -EIO);
	ck_assert_int_eq(vhd_close(v), 0);
	ck_assert_int_eq(unlink(in("base")), 0);
	make_base("base", VHD_DYNAMIC, SIZE, 0);
	ck_assert_int_eq(unlink(in("one")), 0);
	make_child("one", "base", 0);
	v = open_it("one", 0);
	ck_assert_int_eq(unlink(in("base")), 0);
	ck_assert_int_eq(vhd_look(v), -ESTALE);
	ck_assert_int_eq(vhd_close(v), 0);
}
END_TEST

START_TEST(a_chain_reads_as_the_last_write_to_each_sector)
{
	static const uint32_t blocks[] = {0, 512 << 10, 4 << 20, 512 << 10};
	static const char *const names[] = {"base", "one", "two", "three"};
	AUTO(freep) uint8_t *copy[4] = {0}, *now = calloc(1, SIZE);
	struct vhd *v;

	make_base("base", _i ? VHD_DYNAMIC : VHD_FIXED, SIZE, 0);
	for (unsigned k = 0; k < 4; k++) {
		if (k) {
			make_child(names[k], names[k - 1], blocks[k]);
			forget_time(names[k]);
		}
		for (unsigned round = 0; round < 3; round++) {
			v = open_it(names[k], VHD_OPEN_WRITE);
			same(v, now);
			write_some(v, now, 20);
			same(v, now);
			if (round == 1)
				ck_assert_int_eq(vhd_flush(v), 0);
			ck_assert_int_eq(vhd_close(v), 0);
		}
		copy[k] = malloc(SIZE);
		memcpy(copy[k], now, SIZE);
	}
	/* Nobody's parent changed. */
	for (unsigned k = 0; k < 4; k++) {
		v = open_it(names[k], 0);
		same(v, copy[k]);
		ck_assert_int_eq(vhd_close(v), 0);
	}
	free(copy[1]);
	free(copy[2]);
	free(copy[3]);
}
END_TEST

START_TEST(a_run_says_which_layer_it_is_in)
{
	uint8_t b[4096] = {1};
	struct vhd_run run;
	uint64_t data, end;
	struct vhd *v;

	make_base("base", VHD_DYNAMIC, SIZE, 0);
	v = open_it("base", VHD_OPEN_WRITE);
	ck_assert_int_eq(vhd_write(v, b, 4096, 0), 0);
	ck_assert_int_eq(vhd_close(v), 0);
	make_child("child", "base", 0);
	v = open_it("child", VHD_OPEN_WRITE);
	ck_assert_int_eq(vhd_write(v, b, 1024, 1024), 0);
	ck_assert_int_eq(vhd_map(v, 0, SIZE, &run), 0);
	ck_assert(!run.hole && run.layer == 1 && run.len == 1024);
	ck_assert_int_eq(vhd_map(v, 1024, SIZE - 1024, &run), 0);
	ck_assert(!run.hole && run.layer == 0 && run.len == 1024);
	ck_assert_int_eq(vhd_map(v, 2 * MIB, 8 * MIB, &run), 0);
	ck_assert(run.hole && run.len == 8 * MIB);
	ck_assert_int_eq(vhd_next_data(v, 4 * MIB, &data, &end), 0);
	ck_assert_uint_eq(data, SIZE);
	ck_assert_int_eq(vhd_close(v), 0);
}
END_TEST

/* 72, and the other way round: what lies behind the parent's end is zeros. */
START_TEST(parents_may_be_smaller_or_larger)
{
	static uint8_t b[2 * MIB], zero[2 * MIB];
	struct vhd *v;

	memset(b, 7, sizeof b);
	for (int larger = 0; larger < 2; larger++) {
		char base[8] = "b0", child[8] = "c0";
		be64 size = be64_of(larger ? 4 * MIB : 12 * MIB);
		struct vhd_footer f;
		FILE *file;

		base[1] = child[1] = (char)('0' + larger);
		make_base(base, VHD_DYNAMIC, 8 * MIB, 0);
		v = open_it(base, VHD_OPEN_WRITE);
		ck_assert_int_eq(vhd_write(v, b, 2 * MIB, 6 * MIB), 0);
		ck_assert_int_eq(vhd_close(v), 0);
		make_base("big", VHD_DYNAMIC, 12 * MIB, 0); /* for a table that is large enough */
		make_child(child, "big", 0);
		unlink(in("big"));
		/* The child is told the other's UUID and its own size. */
		v = open_it(base, 0);
		snprintf(fx_path, sizeof fx_path, "%s/%s", fx_dir, child);
		fx_poke(512 + 40, v->footer.uuid, 16);
		fx_poke(512 + 56, "\0\0\0\0", 4);
		vhd_close(v);
		fx_seal_header();
		file = fopen(in(child), "r+e");
		ck_assert(file && fread(&f, 1, sizeof f, file) == sizeof f);
		f.current_size = f.original_size = size;
		vhd_footer_seal(&f);
		rewind(file);
		ck_assert(fwrite(&f, 1, sizeof f, file) == sizeof f && fseek(file, -512, SEEK_END) == 0 &&
			  fwrite(&f, 1, sizeof f, file) == sizeof f);
		fclose(file);
		{
			const struct vhd_open_opts o = {.flags = VHD_OPEN_WRITE, .parent = in(base)};
			uint8_t r[2 * MIB];

			ck_assert_msg(vhd_open(&v, in(child), &o, &fx_why) == 0, "%s", fx_why.line);
			ck_assert_uint_eq(vhd_size(v), be64_get(size));
			if (!larger) {
				ck_assert_int_eq(vhd_read(v, r, sizeof r, 7 * MIB), 0);
				ck_assert_int_eq(memcmp(r, b, MIB), 0);
				ck_assert_int_eq(memcmp(r + MIB, zero, MIB), 0);
				ck_assert_int_eq(vhd_write(v, b, 512, 8 * MIB - 512), 0);
				ck_assert_int_eq(vhd_write(v, b, 512, 10 * MIB), 0);
				ck_assert_int_eq(vhd_read(v, r, MIB, 10 * MIB), 0);
				ck_assert_int_eq(memcmp(r, b, 512), 0);
				ck_assert_int_eq(memcmp(r + 512, zero, MIB - 512), 0);
			} else {
				ck_assert_int_eq(vhd_read(v, r, MIB, 4 * MIB), -EINVAL);
			}
			ck_assert_int_eq(vhd_close(v), 0);
		}
	}
}
END_TEST

struct writer {
	struct vhd *v;
	unsigned n;
};

static void *write_own_sectors(void *arg)
{
	const struct writer *w = arg;
	uint8_t b[512];

	for (uint64_t s = w->n; s < SIZE / 512; s += 8) {
		memset(b, (int)(s % 251), sizeof b);
		if (s % 3 && vhd_write(w->v, b, 512, s * 512))
			return arg;
	}
	return NULL;
}

/* 36: in a child too, where bits are set one by one. */
START_TEST(many_writers_of_new_blocks_in_a_child)
{
	static uint8_t base[SIZE];
	struct writer w[8];
	pthread_t t[8];
	uint8_t b[512];
	struct vhd *v;

	memset(base, 0xee, sizeof base);
	make_base("base", VHD_DYNAMIC, SIZE, 0);
	v = open_it("base", VHD_OPEN_WRITE);
	ck_assert_int_eq(vhd_write(v, base, sizeof base, 0), 0);
	ck_assert_int_eq(vhd_close(v), 0);
	make_child("child", "base", 512 << 10);
	v = open_it("child", VHD_OPEN_WRITE);
	for (unsigned i = 0; i < 8; i++) {
		w[i] = (struct writer){v, i};
		pthread_create(&t[i], NULL, write_own_sectors, &w[i]);
	}
	for (unsigned i = 0; i < 8; i++) {
		void *failed;

		ck_assert_int_eq(vhd_flush(v), 0);
		pthread_join(t[i], &failed);
		ck_assert_ptr_null(failed);
	}
	ck_assert_int_eq(vhd_close(v), 0);
	v = open_it("child", 0);
	for (uint64_t s = 0; s < SIZE / 512; s++) {
		ck_assert_int_eq(vhd_read(v, b, 512, s * 512), 0);
		ck_assert_uint_eq(b[0], s % 3 ? s % 251 : 0xee);
		ck_assert_uint_eq(b[511], b[0]);
	}
	ck_assert_int_eq(vhd_close(v), 0);
}
END_TEST

static int fail_one_write(void *arg, enum hio_event ev, uint64_t off, uint64_t len, const struct iovec *iov, int niov)
{
	const uint64_t *at = arg;

	(void)iov;
	(void)niov;
	return ev == HIO_EV_WRITE && off == at[0] && len == at[1] ? -EIO : 0;
}

/* A flush that could not write the bitmap of one new block is made good by the next one, and takes nothing from the others. */
START_TEST(a_flush_is_tried_again_for_all_new_blocks)
{
	uint64_t at[2];
	uint8_t b[512];
	struct vhd *v;

	memset(b, 0x5a, sizeof b);
	make_base("base", VHD_DYNAMIC, SIZE, 0);
	make_child("child", "base", 0);
	v = open_it("child", VHD_OPEN_WRITE);
	for (unsigned i = 0; i < 3; i++)
		ck_assert_int_eq(vhd_write(v, b, sizeof b, i * 2 * MIB), 0);
	at[0] = (uint64_t)bat_get(v, 1) * VHD_SECTOR;
	at[1] = v->bitmap_bytes;
	hio_set_hook(v->io, fail_one_write, at);
	ck_assert_int_eq(vhd_flush(v), -EIO);
	hio_set_hook(v->io, NULL, NULL);
	ck_assert_int_eq(vhd_flush(v), 0);
	ck_assert_int_eq(vhd_close(v), 0);
	v = open_it("child", 0);
	for (unsigned i = 0; i < 3; i++) {
		ck_assert_int_eq(vhd_read(v, b, sizeof b, i * 2 * MIB), 0);
		ck_assert_msg(b[0] == 0x5a && b[511] == 0x5a, "block %u", i);
	}
	ck_assert_int_eq(vhd_close(v), 0);
}
END_TEST

#define RACE_BLOCKS 2048u

static void *write_own_blocks(void *arg)
{
	const struct writer *w = arg;
	uint8_t b[512];

	for (uint64_t n = w->n; n < RACE_BLOCKS; n += 4) {
		memset(b, (int)(1 + n % 251), sizeof b);
		if (vhd_write(w->v, b, sizeof b, n * (512u << 10)))
			return arg;
	}
	return NULL;
}

static atomic_bool written;

static void *flush_always(void *v)
{
	void *failed = NULL;

	while (!failed && !atomic_load(&written))
		failed = vhd_flush(v) ? v : NULL;
	return failed;
}

/* Blocks that become new while a flush is under way, in all of its steps. */
START_TEST(flushes_lose_nothing_of_new_blocks)
{
	struct writer w[4];
	pthread_t t[4], flusher;
	uint8_t b[512];
	struct vhd *v;
	void *failed;

	make_base("base", VHD_DYNAMIC, RACE_BLOCKS * (UINT64_C(512) << 10), 0);
	make_child("child", "base", 512 << 10);
	v = open_it("child", VHD_OPEN_WRITE);
	atomic_store(&written, false);
	pthread_create(&flusher, NULL, flush_always, v);
	for (unsigned i = 0; i < 4; i++) {
		w[i] = (struct writer){v, i};
		pthread_create(&t[i], NULL, write_own_blocks, &w[i]);
	}
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(t[i], &failed);
		ck_assert_ptr_null(failed);
	}
	atomic_store(&written, true);
	pthread_join(flusher, &failed);
	ck_assert_ptr_null(failed);
	ck_assert_int_eq(vhd_close(v), 0);
	v = open_it("child", 0);
	for (uint64_t n = 0; n < RACE_BLOCKS; n++) {
		ck_assert_int_eq(vhd_read(v, b, sizeof b, n * (512u << 10)), 0);
		ck_assert_msg(b[0] == 1 + n % 251 && b[511] == b[0], "block %llu: %u", (unsigned long long)n, b[0]);
	}
	ck_assert_int_eq(vhd_close(v), 0);
}
END_TEST

START_TEST(children_of_one_base_share_it)
{
	struct vhd *a, *b, *c;

	make_base("base", VHD_DYNAMIC, SIZE, 0);
	make_child("a", "base", 0);
	make_child("b", "base", 0);
	make_child("c", "a", 0);
	a = open_it("b", VHD_OPEN_WRITE);
	b = open_it("c", VHD_OPEN_WRITE);
	c = open_it("a", 0);
	ck_assert_ptr_eq(vhd_parent(a), vhd_parent(vhd_parent(b)));
	ck_assert_ptr_eq(vhd_parent(a), vhd_parent(c));
	ck_assert_int_eq(vhd_close(a), 0);
	ck_assert_int_eq(vhd_close(c), 0);
	ck_assert_ptr_null(vhd_parent(vhd_parent(vhd_parent(b))));
	ck_assert_int_eq(vhd_close(b), 0);
	/* Now nobody holds the base: it may be written to again. */
	ck_assert_int_eq(vhd_close(open_it("base", VHD_OPEN_WRITE)), 0);
}
END_TEST

/* ---- finding ------------------------------------------------------------------------------------------------------------------ */

static int try_open(const char *name, const struct vhd_open_opts *o)
{
	struct vhd *v = NULL;
	int err = vhd_open(&v, in(name), o, &fx_why);

	if (!err)
		vhd_close(v);
	return err;
}

/* The texts of the three locators of an image of ours are replaced; NULL takes one out. */
static void set_locators(const char *child, const char *w2ru, const char *w2ku, const char *macx)
{
	static const char codes[3][5] = {"W2ru", "MacX", "W2ku"}; /* the order they are written in */
	const char *texts[3] = {w2ru, macx, w2ku};

	snprintf(fx_path, sizeof fx_path, "%s/%s", fx_dir, child);
	for (unsigned i = 0; i < 3; i++) {
		uint8_t e[24], text[512] = {0};
		uint32_t n = 0;
		be32 len;

		fx_peek(512 + 576 + i * 24, e, sizeof e);
		if (!texts[i]) {
			memset(e, 0, 4);
		} else {
			be64 at;

			memcpy(e, codes[i], 4);
			for (const char *p = texts[i]; *p; p++) {
				text[n++] = (uint8_t)*p;
				if (i != 1)
					text[n++] = 0;
			}
			len = be32_of(n);
			memcpy(e + 8, &len, 4);
			memcpy(&at, e + 16, 8);
			fx_poke(be64_get(at), text, sizeof text);
		}
		fx_poke(512 + 576 + i * 24, e, sizeof e);
	}
	fx_poke(512 + 64, "\0\0\0\0", 4); /* no name */
	fx_seal_header();
}

START_TEST(parents_are_found_by_every_kind_of_path)
{
	static const struct {
		const char *w2ru, *w2ku, *macx;
	} ways[] = {
		{".\\dir\\base.vhd", NULL, NULL},
		{"dir\\base.vhd", NULL, NULL},
		{".\\elsewhere\\base.vhd", "C:\\vm\\none.vhd", "file://./dir/base.vhd"},
		{NULL, "dir/base.vhd", NULL},
		{".\\dir\\..\\dir\\base.vhd", NULL, NULL},
		/* Its last part, beside the child. */
		{NULL, "D:\\Hyper-V\\Virtual Hard Disks\\beside.vhd", NULL},
	};
	const struct vhd_open_opts o = {.flags = 0};
	char name[8];

	ck_assert_int_eq(mkdir(in("dir"), 0700), 0);
	make_base("dir/base.vhd", VHD_DYNAMIC, SIZE, 0);
	ck_assert_int_eq(link(in("dir/base.vhd"), in("beside.vhd")), 0);
	for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
		snprintf(name, sizeof name, "c%zu", i);
		make_child(name, "dir/base.vhd", 0);
		set_locators(name, ways[i].w2ru, ways[i].w2ku, ways[i].macx);
		ck_assert_msg(try_open(name, &o) == 0, "%zu: %s", i, fx_why.line);
	}
	/* An absolute path, as programs on Linux write it into W2ku. */
	make_child("abs", "dir/base.vhd", 0);
	set_locators("abs", NULL, in("dir/base.vhd"), NULL);
	ck_assert_msg(try_open("abs", &o) == 0, "%s", fx_why.line);
}
END_TEST

static void refused(const char *name, const struct vhd_open_opts *o, int err, const char *says)
{
	fx_why.line[0] = '\0';
	ck_assert_msg(try_open(name, o) == err, "%s: %s", says, fx_why.line);
	ck_assert_msg(strstr(fx_why.line, says) != NULL, "\"%s\" does not say \"%s\"", fx_why.line, says);
	ck_assert_ptr_null(strchr(fx_why.line, '\n'));
}

/* §5.66 to 73: what an image says of its parent is not trusted. */
START_TEST(parents_that_are_not_what_they_should_be_are_refused)
{
	char dir[100];
	const char *dirs[] = {dir, NULL};
	const struct vhd_open_opts o = {.flags = 0}, below = {.parent_dirs = dirs}, force = {.force_parent = true},
				   strict = {.strict_parent = true};
	struct vhd_open_opts named = {.parent = NULL};
	char tmp[64];

	snprintf(dir, sizeof dir, "%s/dir", fx_dir);
	ck_assert_int_eq(mkdir(dir, 0700), 0);
	make_base("base.vhd", VHD_DYNAMIC, SIZE, 0);
	make_base("other.vhd", VHD_DYNAMIC, SIZE, 0);
	make_base("dir/deep.vhd", VHD_DYNAMIC, SIZE, 0);
	make_child("child", "base.vhd", 0);
	ck_assert_int_eq(try_open("child", &o), 0);

	/* Another image under that name: by its UUID. */
	set_locators("child", ".\\other.vhd", NULL, NULL);
	refused("child", &o, -EUCLEAN, "not the parent");
	refused("child", &force, -EUCLEAN, "not the parent");
	/* Nowhere. */
	set_locators("child", ".\\none.vhd", NULL, NULL);
	refused("child", &o, -ENOENT, "none.vhd");
	/* A folder, a FIFO, a device, itself. */
	set_locators("child", ".\\dir", NULL, NULL);
	refused("child", &o, -EUCLEAN, "not a regular file");
	ck_assert_int_eq(mkfifo(in("fifo"), 0600), 0);
	set_locators("child", ".\\fifo", NULL, NULL);
	refused("child", &o, -EUCLEAN, "not a regular file");
	set_locators("child", ".\\child", NULL, NULL);
	refused("child", &o, -EUCLEAN, "parent loop");
	/* Outside: by "..", by an absolute path, by a symbolic link. */
	make_child("dir/low", "base.vhd", 0);
	refused("dir/low", &o, -EACCES, "outside");
	set_locators("dir/low", NULL, in("base.vhd"), NULL);
	refused("dir/low", &o, -EACCES, "outside");
	ck_assert_int_eq(symlink(in("base.vhd"), in("dir/link.vhd")), 0);
	set_locators("dir/low", ".\\link.vhd", NULL, NULL);
	refused("dir/low", &o, -EACCES, "outside");
	set_locators("child", ".\\base.vhd", NULL, NULL);
	refused("child", &below, -EACCES, "outside");
	set_locators("child", NULL, "\\dev\\zero", NULL);
	refused("child", &o, -EACCES, "outside");
	/* What the operator says counts more. */
	named.parent = in("base.vhd");
	ck_assert_msg(try_open("dir/low", &named) == 0, "%s", fx_why.line);
	named.parent = in("nothing");
	refused("dir/low", &named, -ENOENT, "nothing");
	/* Changed since. */
	set_locators("child", ".\\base.vhd", NULL, NULL);
	snprintf(tmp, sizeof tmp, "%s", "2001-02-03");
	ck_assert_int_eq(fx_run("touch -d %s %s", tmp, in("base.vhd")), 0);
	refused("child", &strict, -EUCLEAN, "changed");
	ck_assert_int_eq(try_open("child", &force), 0);
	/* No VHD at all. */
	ck_assert_int_eq(fx_run("head -c 100000 /dev/zero >%s", in("base.vhd")), 0);
	refused("child", &o, -EUCLEAN, "not a VHD");
}
END_TEST

static int64_t now_written;

static int64_t written_then(struct vhd *v)
{
	(void)v;
	return now_written;
}

/* A copy has another time; a parent that was written after the child was made has a younger file system, or a younger footer. */
START_TEST(a_copied_parent_is_taken_and_a_changed_one_is_not)
{
	struct vhd_open_opts o = {.last_written = written_then};
	struct vhd_footer f;

	make_base("base.vhd", VHD_FIXED, SIZE, 0);
	make_child("child", "base.vhd", 0);
	ck_assert_int_eq(fx_run("touch -d 2031-02-03 %s", in("base.vhd")), 0);
	now_written = time(NULL) - 100;
	ck_assert_msg(try_open("child", &o) == 0, "%s", fx_why.line);
	o.strict_parent = true;
	refused("child", &o, -EUCLEAN, "--strict-parent");
	o.strict_parent = false;
	now_written = time(NULL) + 100;
	refused("child", &o, -EUCLEAN, "a file system in it was written");
	now_written = 0;
	snprintf(fx_path, sizeof fx_path, "%s/base.vhd", fx_dir);
	fx_peek(fx_size() - sizeof f, &f, sizeof f);
	f.timestamp = be32_of(be32_get(f.timestamp) + 100);
	vhd_footer_seal(&f);
	fx_poke(fx_size() - sizeof f, &f, sizeof f);
	ck_assert_int_eq(fx_run("touch -d 2031-02-03 %s", in("base.vhd")), 0);
	refused("child", &o, -EUCLEAN, "its footer is of");
}
END_TEST

/* Below each folder given: by its name, by its name in another case, by its UUID. */
START_TEST(parents_are_searched_below_the_folders_given)
{
	static const char *const moved[] = {"far/a/b/base.vhd", "far/a/BASE.Vhd", "far/renamed.vhd"};
	char near[100], far[100];
	const char *dirs[] = {near, far, NULL};
	const struct vhd_open_opts o = {.parent_dirs = dirs}, own = {.flags = 0};
	char was[160] = "far/base.vhd";

	snprintf(near, sizeof near, "%s/near", fx_dir);
	snprintf(far, sizeof far, "%s/far", fx_dir);
	ck_assert_int_eq(fx_run("mkdir -p %s %s/a/b && ln -s .. %s/a/loop", near, far, far), 0);
	make_base(was, VHD_DYNAMIC, SIZE, 0);
	make_base("near/base.vhd", VHD_DYNAMIC, SIZE, 0); /* another of that name */
	make_child("near/child", was, 0);
	for (size_t i = 0; i < ARRAY_LEN(moved); i++) {
		ck_assert_int_eq(rename(in(was), in(moved[i])), 0);
		snprintf(was, sizeof was, "%s", moved[i]);
		ck_assert_msg(try_open("near/child", &o) == 0, "%s: %s", moved[i], fx_why.line);
		ck_assert_int_lt(try_open("near/child", &own), 0);
	}
	/* Beside the child, its name is enough in any case. */
	ck_assert_int_eq(unlink(in("near/base.vhd")), 0);
	ck_assert_int_eq(rename(in(was), in("near/Base.VHD")), 0);
	ck_assert_msg(try_open("near/child", &own) == 0, "%s", fx_why.line);
}
END_TEST

/* Times that a header cannot say. */
START_TEST(a_parent_from_before_2000_is_a_parent)
{
	make_base("base", VHD_DYNAMIC, SIZE, 0);
	ck_assert_int_eq(fx_run("touch -d @%d %s", _i ? 1 : 946684800, in("base")), 0);
	make_child("child", "base", 0);
	ck_assert_int_eq(vhd_close(open_it("child", 0)), 0);
}
END_TEST

START_TEST(loops_and_endless_chains_are_refused)
{
	const struct vhd_open_opts o = {.flags = 0};
	char name[16], before[16] = "base";
	uint8_t uuid[16];

	/* a over b over a. */
	make_base("base", VHD_DYNAMIC, SIZE, 0);
	make_child("a", "base", 0);
	make_child("b", "a", 0);
	forget_time("a");
	forget_time("b");
	snprintf(fx_path, sizeof fx_path, "%s/b", fx_dir);
	fx_peek(68, uuid, 16);
	set_locators("a", ".\\b", NULL, NULL);
	fx_poke(512 + 40, uuid, 16);
	fx_seal_header();
	refused("a", &o, -EUCLEAN, "parent loop");
	refused("b", &o, -EUCLEAN, "parent loop");
	/* 31 parents are served, 32 are not. */
	for (unsigned i = 1; i <= 33; i++) {
		snprintf(name, sizeof name, "d%u", i);
		make_child(name, before, 0);
		strcpy(before, name);
	}
	ck_assert_msg(try_open("d31", &o) == 0, "%s", fx_why.line);
	refused("d32", &o, -EUCLEAN, "more than");
	refused("d33", &o, -EUCLEAN, "more than");
	ck_assert_int_eq(try_open("d31", &o), 0);
}
END_TEST

START_TEST(odd_names_are_written_and_found)
{
	static const char *const names[] = {"grüße-日本語-𝄞.vhd", "a b'c\"d.vhd", "\xff\xfe not UTF-8.vhd"};
	const struct vhd_open_opts o = {.flags = 0};

	for (size_t i = 0; i < 2; i++) {
		make_base(names[i], VHD_DYNAMIC, SIZE, 0);
		make_child("child", names[i], 0);
		ck_assert_msg(try_open("child", &o) == 0, "%s", fx_why.line);
		unlink(in("child"));
	}
	/* Such a name cannot be kept in UTF-16; it is said, not guessed. */
	make_base(names[2], VHD_DYNAMIC, SIZE, 0);
	make_child("child", names[2], 0);
	ck_assert_int_le(try_open("child", &o), 0);
}
END_TEST

/* ---- commit ------------------------------------------------------------------------------------------------------------------- */

START_TEST(what_a_child_holds_goes_into_its_parent)
{
	AUTO(freep) uint8_t *now = calloc(1, SIZE);
	const struct vhd_open_opts o = {.flags = 0};
	struct vhd *v;

	make_base("base", _i ? VHD_DYNAMIC : VHD_FIXED, SIZE, 0);
	v = open_it("base", VHD_OPEN_WRITE);
	write_some(v, now, 10);
	ck_assert_int_eq(vhd_close(v), 0);
	make_child("child", "base", 512 << 10);
	v = open_it("child", VHD_OPEN_WRITE);
	write_some(v, now, 10);
	/* Not while it is in use. */
	ck_assert_int_eq(vhd_commit(in("child"), &o, NULL, &fx_why), -EBUSY);
	ck_assert_int_eq(vhd_close(v), 0);
	ck_assert_msg(vhd_commit(in("child"), &o, NULL, &fx_why) == 0, "%s", fx_why.line);
	v = open_it("base", 0);
	same(v, now);
	ck_assert_int_eq(vhd_close(v), 0);
	v = open_it("child", 0);
	same(v, now);
	ck_assert_int_eq(vhd_close(v), 0);
	ck_assert_int_eq(vhd_commit(in("base"), &o, NULL, &fx_why), -EINVAL);
}
END_TEST

/* ---- samples ------------------------------------------------------------------------------------------------------------------ */

static const struct {
	const char *parent, *child, *unpack, *parent_name, *disk;
} samples[] = {
	{"tapdisk/tap-base.vhd.gz", "tapdisk/tap-snap1.vhd.gz", "gunzip", "tap-base.vhd",
	 "acd41ec8af66d7e871c3805d8a46c2dfebd1b489d2dee055cdec0bf626eb39c3"},
	{"go-vhd/win8.vhd", "go-vhd/win8-child.vhd", "cat", "win8.vhd", NULL},
};

/* Bits of partial bitmaps, and locators as XenServer and Windows write them. */
/*
 * A cut after room was made for the first blocks of a child, before its table named one: the footer is far behind, and nothing in
 * between but the locators, which stay what they are when the room is given back, or used.
 */
START_TEST(room_without_blocks_does_not_hold_the_locators)
{
	struct vhd_info was, is;
	uint8_t footer[512];
	struct vhd *v;
	FILE *f;

	make_base("base", VHD_DYNAMIC, 1000 * MIB,
		  0); /* a table of 500 entries ends before byte 4096, the locators behind it */
	make_child("child", "base", 0);
	v = open_it("child", 0);
	vhd_info(v, &was);
	ck_assert_int_eq(vhd_close(v), 0);
	ck_assert(was.nparents == 3 && was.parent[2].path[0]);
	f = fopen(in("child"), "r+e");
	ck_assert(f && fseek(f, 0, SEEK_SET) == 0 && fread(footer, 1, sizeof footer, f) == sizeof footer);
	ck_assert(fseek(f, 16 * MIB, SEEK_SET) == 0 && fwrite(footer, 1, sizeof footer, f) == sizeof footer);
	fclose(f);
	if (_i) {
		ck_assert_int_eq(vhd_repair(in("child"), &fx_why), 0);
	} else {
		v = open_it("child", VHD_OPEN_WRITE);
		ck_assert_int_eq(vhd_write(v, footer, sizeof footer, 0), 0);
		ck_assert_int_eq(vhd_close(v), 0);
	}
	v = open_it("child", 0);
	vhd_info(v, &is);
	ck_assert_int_eq(memcmp(is.parent, was.parent, sizeof is.parent), 0);
	ck_assert_int_eq(vhd_close(v), 0);
}
END_TEST

static unsigned parent_writes;

static int child_has_no_time(void *arg, enum hio_event ev, uint64_t off, uint64_t len, const struct iovec *iov,
			     int niov)
{
	struct vhd_dynamic d;
	FILE *f;

	(void)arg;
	(void)len;
	(void)iov;
	(void)niov;
	if (ev != HIO_EV_WRITE || off == 512) /* the child's header */
		return 0;
	f = fopen(in("child"), "re");
	ck_assert(f && fseek(f, 512, SEEK_SET) == 0 && fread(&d, 1, sizeof d, f) == sizeof d);
	fclose(f);
	ck_assert_uint_eq(be32_get(d.parent_timestamp), 0);
	parent_writes++;
	return 0;
}

/* A commit that is cut short leaves a child that does not find its parent changed; one that ends, a child that would. */
START_TEST(a_commit_may_be_cut_short)
{
	const struct vhd_open_opts o = {.flags = 0}, strict = {.strict_parent = true};
	static uint8_t b[MIB];
	struct vhd *v;

	make_base("base", VHD_DYNAMIC, SIZE, 0);
	make_child("child", "base", 0);
	memset(b, 9, sizeof b);
	v = open_it("child", VHD_OPEN_WRITE);
	ck_assert_int_eq(vhd_write(v, b, sizeof b, MIB), 0);
	ck_assert_int_eq(vhd_close(v), 0);
	hio_set_default_hook(child_has_no_time, NULL);
	ck_assert_msg(vhd_commit(in("child"), &o, NULL, &fx_why) == 0, "%s", fx_why.line);
	hio_set_default_hook(NULL, NULL);
	ck_assert_uint_gt(parent_writes, 0);
	ck_assert_int_eq(vhd_close(open_it("child", 0)), 0);
	ck_assert_int_eq(fx_run("touch -d 2001-02-03 %s", in("base")), 0);
	refused("child", &strict, -EUCLEAN, "changed");
}
END_TEST

START_TEST(an_image_that_is_written_to_gets_no_child)
{
	const struct vhd_create_opts o = {.type = VHD_DIFF, .parent = in("base")};
	struct vhd *v;

	make_base("base", VHD_DYNAMIC, SIZE, 0);
	v = open_it("base", VHD_OPEN_WRITE);
	ck_assert_int_eq(vhd_create(in("child"), &o, &fx_why), -EBUSY);
	ck_assert_int_eq(vhd_close(v), 0);
	v = open_it("base", 0);
	make_child("child", "base", 0);
	ck_assert_int_eq(vhd_close(v), 0);
}
END_TEST

START_TEST(samples_of_children_read_as_their_makers_meant)
{
	const struct vhd_open_opts o = {.force_parent = true}; /* unpacking is younger than the child */
	AUTO(freep) uint8_t *buf = malloc(MIB);
	struct vhd *v;
	FILE *f;

	if (access("../shared/vhd-samples/README.md", R_OK) < 0)
		return;
	ck_assert_int_eq(fx_run("%s <../shared/vhd-samples/%s >%s", samples[_i].unpack, samples[_i].parent,
				in(samples[_i].parent_name)),
			 0);
	ck_assert_int_eq(fx_run("%s <../shared/vhd-samples/%s >%s", samples[_i].unpack, samples[_i].child, in("child")),
			 0);
	ck_assert_msg(vhd_open(&v, in("child"), &o, &fx_why) == 0, "%s", fx_why.line);
	f = fopen(in("raw"), "we");
	ck_assert(f && buf);
	for (uint64_t off = 0; off < vhd_size(v); off += MIB) {
		ck_assert_int_eq(vhd_read(v, buf, MIB, off), 0);
		ck_assert_uint_eq(fwrite(buf, 1, MIB, f), MIB);
	}
	fclose(f);
	vhd_close(v);
	if (samples[_i].disk)
		ck_assert_int_eq(fx_run("echo '%s  %s' | sha256sum -c", samples[_i].disk, in("raw")), 0);
	else
		ck_assert_int_eq(fx_run("cmp -n 41943040 %s /dev/zero", in("raw")), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vhd chain");
	TCase *t = tcase_create("vhd chain");

	tcase_set_timeout(t, 120);
	tcase_add_checked_fixture(t, fx_setup, fx_teardown);
	tcase_add_loop_test(t, a_chain_reads_as_the_last_write_to_each_sector, 0, 2);
	tcase_add_loop_test(t, a_parent_that_is_cut_or_removed_while_it_is_used_is_found_out, 0, 2);
	tcase_add_test(t, a_run_says_which_layer_it_is_in);
	tcase_add_test(t, maps_of_all_layers_are_loaded);
	tcase_add_test(t, parents_may_be_smaller_or_larger);
	tcase_add_test(t, many_writers_of_new_blocks_in_a_child);
	tcase_add_test(t, a_flush_is_tried_again_for_all_new_blocks);
	tcase_add_test(t, flushes_lose_nothing_of_new_blocks);
	tcase_add_test(t, children_of_one_base_share_it);
	tcase_add_test(t, parents_are_found_by_every_kind_of_path);
	tcase_add_test(t, parents_that_are_not_what_they_should_be_are_refused);
	tcase_add_test(t, a_copied_parent_is_taken_and_a_changed_one_is_not);
	tcase_add_test(t, parents_are_searched_below_the_folders_given);
	tcase_add_loop_test(t, a_parent_from_before_2000_is_a_parent, 0, 2);
	tcase_add_test(t, loops_and_endless_chains_are_refused);
	tcase_add_test(t, odd_names_are_written_and_found);
	tcase_add_loop_test(t, what_a_child_holds_goes_into_its_parent, 0, 2);
	tcase_add_loop_test(t, room_without_blocks_does_not_hold_the_locators, 0, 2);
	tcase_add_test(t, a_commit_may_be_cut_short);
	tcase_add_test(t, an_image_that_is_written_to_gets_no_child);
	tcase_add_loop_test(t, samples_of_children_read_as_their_makers_meant, 0, (int)ARRAY_LEN(samples));
	suite_add_tcase(s, t);
	return fx_main(s);
}

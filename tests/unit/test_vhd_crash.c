/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_vhd_crash.c - power cuts: at every host operation, with what was not synced lost, torn or out of order
 *
 * A hook records what goes to the host. For every cut the file is built as a disk might hold it: everything before the last
 * sync that returned, and of the rest each 512-byte sector by chance. Then the image must open, every sector must hold what was
 * promised by the last flush or something written later, and it must take new writes.
 *
 * A sector holds its own number and a version, so that any other content is noticed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/image_fixture.h"
#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/image/modify.h"
#include "vhd/io/hio.h"

#define DISK (4 * MIB)
#define SECTORS (DISK / 512)
#define BLOCK (512u << 10)
#define FILE_ROOM (160 * MIB)
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define OPS 12
#else
#define OPS 32
#endif

/* ---- recording ----------------------------------------------------------------------------------------------------------- */

struct event {
	enum hio_event ev;
	uint64_t off, len;
	uint8_t *data;
};

static struct event *events;
static unsigned nevents, room;

static int record(void *arg, enum hio_event ev, uint64_t off, uint64_t len, const struct iovec *iov, int niov)
{
	struct event *e;

	(void)arg;
	if (ev == HIO_EV_READ)
		return 0;
	if (nevents == room) {
		room = room ? room * 2 : 256;
		events = realloc(events, room * sizeof *events);
		ck_assert_ptr_nonnull(events);
	}
	e = &events[nevents++];
	*e = (struct event){.ev = ev, .off = off, .len = len};
	if (ev == HIO_EV_WRITE) {
		uint8_t *p = e->data = malloc(len);

		ck_assert_ptr_nonnull(p);
		for (int i = 0; i < niov; i++) {
			memcpy(p, iov[i].iov_base, iov[i].iov_len);
			p += iov[i].iov_len;
		}
	}
	return 0;
}

/* What the guest did: an operation, and how many host operations there had been before it and after it. */
static struct op {
	unsigned before, after;
	bool flush;
	uint64_t sector, n;
} ops[OPS];
static unsigned nops;

static void stamp(uint8_t *b, uint64_t sector, uint32_t version)
{
	for (unsigned i = 0; i < 512; i += 8) {
		memcpy(b + i, &version, 4);
		memcpy(b + i + 4, &(uint32_t){(uint32_t)sector}, 4);
	}
}

static void work(struct vhd *v)
{
	AUTO(freep) uint8_t *b = malloc(DISK);

	ck_assert_ptr_nonnull(b);
	for (nops = 0; nops < OPS; nops++) {
		struct op *o = &ops[nops];

		*o = (struct op){.before = nevents, .flush = fx_rnd(4) == 0};
		if (o->flush) {
			ck_assert_int_eq(vhd_flush(v), 0);
		} else {
			o->n = 1 + fx_rnd(fx_rnd(3) ? 12 : 1500);
			o->sector = fx_rnd(SECTORS);
			o->n = min_u64(o->n, SECTORS - o->sector);
			for (uint64_t i = 0; i < o->n; i++)
				stamp(b + i * 512, o->sector + i, nops + 1);
			ck_assert_int_eq(vhd_write(v, b, o->n * 512, o->sector * 512), 0);
		}
		o->after = nevents;
	}
}

/* ---- the disk after a cut ---------------------------------------------------------------------------------------------------- */

struct disk {
	uint8_t *b;
	uint64_t size;
};

static void apply_write(struct disk *d, const struct event *e, unsigned percent)
{
	for (uint64_t at = 0; at < e->len; at += 512) {
		uint64_t n = min_u64(512, e->len - at);

		if (percent < 100 && fx_rnd(100) >= percent)
			continue;
		ck_assert_uint_le(e->off + at + n, FILE_ROOM);
		memcpy(d->b + e->off + at, e->data + at, n);
		d->size = max_u64(d->size, e->off + at + n);
	}
}

static void apply(struct disk *d, const struct event *e, unsigned percent)
{
	bool all = percent == 100 || fx_rnd(100) < percent;

	switch (e->ev) {
	case HIO_EV_WRITE:
		/* Most of the time whole writes are there or not, as with a disk's cache. */
		apply_write(d, e, percent == 100 ? 100 : fx_rnd(3) == 0 ? percent : all ? 100 : 0);
		break;
	case HIO_EV_PUNCH:
		if (all)
			memset(d->b + e->off, 0, e->len);
		break;
	case HIO_EV_TRUNCATE:
		if (all) {
			if (e->off < d->size)
				memset(d->b + e->off, 0, d->size - e->off);
			d->size = e->off;
		}
		break;
	default:
		break;
	}
}

static void store(const struct disk *d)
{
	FILE *f = fopen(fx_path, "we");
	static const uint8_t zeros[65536];

	ck_assert_ptr_nonnull(f);
	for (uint64_t at = 0; at < d->size; at += sizeof zeros) {
		uint64_t n = min_u64(sizeof zeros, d->size - at);

		if (memcmp(d->b + at, zeros, n) == 0)
			continue;
		ck_assert_int_eq(fseek(f, (long)at, SEEK_SET), 0);
		ck_assert_uint_eq(fwrite(d->b + at, 1, n, f), n);
	}
	fclose(f);
	ck_assert_int_eq(truncate(fx_path, (off_t)d->size), 0);
}

/* What each sector must hold at least, after the operations that a cut at @cut leaves promised; and what it may hold. */
static void check_promises(struct vhd *v, unsigned cut, const uint32_t *first)
{
	AUTO(freep) uint32_t *least = malloc(SECTORS * 4), *later = calloc(SECTORS, sizeof *later * 2);
	AUTO(freep) uint8_t *b = malloc(DISK);
	unsigned promised = 0;

	ck_assert(least && later && b);
	memcpy(least, first, SECTORS * 4);
	for (unsigned i = 0; i < nops; i++)
		if (ops[i].flush && ops[i].after <= cut)
			promised = i;
	for (unsigned i = 0; i < promised; i++)
		for (uint64_t s = 0; s < ops[i].n; s++)
			least[ops[i].sector + s] = i + 1;
	ck_assert_int_eq(vhd_read(v, b, DISK, 0), 0);
	for (uint64_t s = 0; s < SECTORS; s++) {
		uint8_t want[512] = {0};
		uint32_t got;
		bool allowed;

		memcpy(&got, b + s * 512, 4);
		if (got)
			stamp(want, s, got);
		ck_assert_msg(memcmp(b + s * 512, want, 512) == 0, "cut %u: sector %llu: not a guest's content", cut,
			      (unsigned long long)s);
		allowed = got == least[s];
		for (unsigned i = promised; !allowed && i < nops && ops[i].before < cut + 1; i++)
			allowed = got == i + 1 && s >= ops[i].sector && s < ops[i].sector + ops[i].n;
		ck_assert_msg(allowed, "cut %u: sector %llu holds version %u, promised was %u", cut,
			      (unsigned long long)s, got, least[s]);
	}
}

/* The image takes new writes, and nothing comes to light beside them: no old footer, no block that was never published. */
static void goes_on(struct vhd *v)
{
	AUTO(freep) uint8_t *before = malloc(DISK), *after = malloc(DISK);

	ck_assert(before && after);
	ck_assert_int_eq(vhd_read(v, before, DISK, 0), 0);
	for (uint64_t s = 7; s < SECTORS; s += BLOCK / 512) {
		memset(before + s * 512, 0x5a, 512);
		ck_assert_int_eq(vhd_write(v, before + s * 512, 512, s * 512), 0);
	}
	fx_close(v);
	v = fx_open(0);
	ck_assert_int_eq(vhd_read(v, after, DISK, 0), 0);
	for (uint64_t s = 0; s < SECTORS; s++)
		ck_assert_msg(memcmp(before + s * 512, after + s * 512, 512) == 0, "sector %llu",
			      (unsigned long long)s);
	fx_close(v);
}

/* ---- images to start from ---------------------------------------------------------------------------------------------------- */

/* Sectors of some blocks are there, those of one in three only in part: what their bitmaps leave out is garbage. */
static void partial_image(uint32_t *first)
{
	uint8_t b[512], bits[512];
	struct vhd *v = fx_open(VHD_OPEN_WRITE);
	be32 at;

	for (uint64_t s = 0; s < SECTORS / 2; s++) {
		stamp(b, s, s % 3 ? 900 : 0x80000000u);
		first[s] = s % 3 ? 900 : 0;
		ck_assert_int_eq(vhd_write(v, b, 512, s * 512), 0);
	}
	fx_close(v);
	for (uint32_t i = 0; i < SECTORS / 2 / (BLOCK / 512); i++) {
		memset(bits, 0, sizeof bits);
		for (unsigned s = 0; s < BLOCK / 512; s++)
			if ((i * (BLOCK / 512) + s) % 3)
				bits[s / 8] = (uint8_t)(bits[s / 8] | 0x80 >> s % 8);
		fx_peek(1536 + 4 * i, at.b, 4);
		fx_poke((uint64_t)be32_get(at) * 512, bits, 512);
	}
	/* Another's image, with slack before its footer. */
	fx_poke(28, "win ", 4);
	fx_seal_head();
	fx_peek(0, b, 512);
	fx_poke(fx_size() - 512, "slack", 5);
	fx_poke(fx_size() + 3072, b, 512);
}

static void load(struct disk *d)
{
	FILE *f = fopen(fx_path, "re");

	d->b = calloc(1, FILE_ROOM);
	d->size = fx_size();
	ck_assert(f && d->b);
	ck_assert_uint_eq(fread(d->b, 1, d->size, f), d->size);
	fclose(f);
}

/* Nothing here has to survive us: a host file system in memory will do, and is quicker. */
static void setup(void)
{
	if (!getenv("TMPDIR") && access("/dev/shm", W_OK) == 0)
		setenv("TMPDIR", "/dev/shm", 1);
	fx_setup();
}

static void free_events(void)
{
	for (unsigned i = 0; i < nevents; i++)
		free(events[i].data);
	free(events);
	events = NULL;
	nevents = room = 0;
}

/* The image as every cut of the recorded operations leaves it, @tries times with other losses of what was not synced; @stable:
 * as it was before them, freed here. */
static void each_cut(struct disk *stable, unsigned tries, void (*check)(unsigned cut, const void *arg), const void *arg)
{
	struct disk now = {.b = calloc(1, FILE_ROOM)};
	unsigned synced = 0;

	ck_assert_ptr_nonnull(now.b);
	for (unsigned cut = 0; cut <= nevents; cut++) {
		/* Everything before a sync that returned is on the disk. */
		if (cut && events[cut - 1].ev == HIO_EV_FLUSH)
			for (; synced < cut; synced++)
				apply(stable, &events[synced], 100);
		for (unsigned t = 0; t < tries; t++) {
			memcpy(now.b, stable->b, max_u64(stable->size, now.size));
			now.size = stable->size;
			for (unsigned i = synced; i < cut; i++)
				apply(&now, &events[i], (unsigned)((cut + t) % 4) * 30);
			store(&now);
			check(cut, arg);
			memset(now.b, 0, now.size);
		}
	}
	free_events();
	free(stable->b);
	free(now.b);
}

static void promises_kept(unsigned cut, const void *first)
{
	struct vhd *v = fx_open(VHD_OPEN_WRITE);

	check_promises(v, cut, first);
	if (cut % 16 == 0)
		goes_on(v);
	else
		fx_close(v);
}

static void work_and_cut(const uint32_t *first)
{
	struct disk stable;
	struct vhd *v;

	load(&stable);
	hio_set_default_hook(record, NULL);
	v = fx_open(VHD_OPEN_WRITE);
	work(v);
	fx_close(v);
	hio_set_default_hook(NULL, NULL);
	each_cut(&stable, 1, promises_kept, first);
}

/* design.md §8, alloc.c rules 2 to 5 */
START_TEST(a_cut_at_any_operation_leaves_an_image_with_every_promise_kept)
{
	AUTO(freep) uint32_t *first = calloc(SECTORS, sizeof *first);

	ck_assert_ptr_nonnull(first);
	for (int i = 0; i < _i; i++)
		fx_rnd(1000); /* another course of things */
	fx_make(VHD_DYNAMIC, DISK, BLOCK);
	if (_i % 2)
		partial_image(first);
	work_and_cut(first);
}
END_TEST

/* The same over a parent: what a child lost is what the parent holds, never zeros and never garbage. */
START_TEST(a_cut_in_a_child_shows_its_parent)
{
	AUTO(freep) uint32_t *first = calloc(SECTORS, sizeof *first);
	AUTO(freep) uint8_t *b = malloc(DISK);
	char base[110], child[96];
	struct vhd_create_opts o = {.type = VHD_DIFF, .parent = base, .block_size = BLOCK};
	struct vhd *v;

	ck_assert(first && b);
	for (int i = 0; i < _i; i++)
		fx_rnd(1000);
	snprintf(base, sizeof base, "%s/base.vhd", fx_dir);
	memcpy(child, fx_path, sizeof child);
	snprintf(fx_path, sizeof fx_path, "%.90s", base);
	fx_make(_i % 2 ? VHD_FIXED : VHD_DYNAMIC, DISK, 0);
	v = fx_open(VHD_OPEN_WRITE);
	for (uint64_t s = 0; s < SECTORS; s++) {
		first[s] = s % 5 ? 900 : 0;
		memset(b + s * 512, 0, 512);
		if (first[s])
			stamp(b + s * 512, s, first[s]);
	}
	ck_assert_int_eq(vhd_write(v, b, DISK, 0), 0);
	fx_close(v);
	memcpy(fx_path, child, sizeof child);
	ck_assert_msg(vhd_create(fx_path, &o, &fx_why) == 0, "%s", fx_why.line);
	work_and_cut(first);
}
END_TEST

struct resized {
	uint64_t from, to;
	const uint8_t *content; /* of the smaller of both */
};

static void one_size_or_the_other(unsigned cut, const void *arg)
{
	const struct resized *r = arg;
	struct vhd *v = fx_open(VHD_OPEN_WRITE);
	uint64_t n = min_u64(r->from, r->to), size = vhd_size(v);
	AUTO(freep) uint8_t *b = malloc(n);

	ck_assert_msg(size == r->from || size == r->to, "cut %u: %llu bytes", cut, (unsigned long long)size);
	ck_assert_int_eq(vhd_read(v, b, n, 0), 0);
	ck_assert_msg(memcmp(b, r->content, n) == 0, "cut %u: content changed", cut);
	if (cut == nevents) { /* it was said to be done */
		uint8_t more[4096];
		uint64_t len = min_u64(sizeof more, size - n);

		ck_assert_uint_eq(size, r->to);
		ck_assert_int_eq(vhd_read(v, more, len, n), 0);
		for (uint64_t i = 0; i < len; i++)
			ck_assert_msg(!more[i], "byte %llu behind the old end is no zero", (unsigned long long)i);
	}
	fx_close(v);
}

/* modify.c: blocks are moved out of the table's way, or the footer. */
START_TEST(a_cut_while_the_size_changes_leaves_the_old_or_the_new)
{
	static const uint64_t to[] = {DISK + 3 * BLOCK,       4000 * (uint64_t)BLOCK, DISK - 2 * BLOCK,
				      4000 * (uint64_t)BLOCK, DISK + 3 * BLOCK,       DISK - 2 * BLOCK};
	AUTO(freep) uint8_t *b = calloc(1, DISK);
	struct disk stable;
	struct resized r = {.from = DISK, .to = to[_i], .content = b};
	const struct vhd_create_opts o = {
		.type = _i < 4 ? VHD_DYNAMIC : VHD_FIXED, .size = DISK, .block_size = BLOCK, .exact = true};
	struct vhd *v;

	ck_assert_int_eq(vhd_create(fx_path, &o, &fx_why), 0);
	v = fx_open(VHD_OPEN_WRITE);
	for (uint64_t s = 0; s < SECTORS - 4 * BLOCK / 512 && _i != 3; s += 3) {
		stamp(b + s * 512, s, 7);
		ck_assert_int_eq(vhd_write(v, b + s * 512, 512, s * 512), 0);
	}
	fx_close(v);
	load(&stable);
	hio_set_default_hook(record, NULL);
	ck_assert_msg(vhd_resize(fx_path, r.to, true, &fx_why) == 0, "%s", fx_why.line);
	hio_set_default_hook(NULL, NULL);
	each_cut(&stable, 12, one_size_or_the_other, &r);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vhd crash");
	TCase *t = tcase_create("crash");

	tcase_set_timeout(t, 120);
	tcase_add_checked_fixture(t, setup, fx_teardown);
	tcase_add_loop_test(t, a_cut_at_any_operation_leaves_an_image_with_every_promise_kept, 0, 4);
	tcase_add_loop_test(t, a_cut_in_a_child_shows_its_parent, 0, 4);
	tcase_add_loop_test(t, a_cut_while_the_size_changes_leaves_the_old_or_the_new, 0, 6);
	suite_add_tcase(s, t);
	return fx_main(s);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fuzz_vol_table.c - partition tables with arbitrary bytes: vhd/volume/table.c
 *
 * The disk is small and in memory. The input is patches { sector, flags, bytes } of 515 bytes at most; after all of them,
 * GPT headers in patched sectors get right checksums when the flags ask for it, so that the fuzzer reaches what is behind.
 */
#include <stdlib.h>
#include <string.h>

#include "vhd/base/checked.h"
#include "vhd/base/log.h"
#include "vhd/volume/volume_int.h"

#define SECTORS 512u
#define SECTOR 512u
#define PATCH_HEAD 3u
#define PATCHES 64u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

struct vhd {
	uint8_t disk[SECTORS * SECTOR];
};

uint64_t vhd_size(const struct vhd *v)
{
	return sizeof v->disk;
}

const char *vhd_path(const struct vhd *v)
{
	(void)v;
	return "fuzz.vhd";
}

int vhd_read(struct vhd *v, void *buf, uint64_t len, uint64_t off)
{
	if (off % SECTOR || len % SECTOR || !range_ok(off, len, sizeof v->disk))
		abort(); /* the image layer would refuse: our bug */
	memcpy(buf, v->disk + off, len);
	return 0;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	log_level = LOG_LVL_ERROR;
	return 0;
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void put32(uint8_t *p, uint32_t x)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(x >> 8 * i);
}

/* Make the checksums of a header right, if its own numbers allow it. */
static void seal(struct vhd *v, unsigned sector)
{
	uint8_t *h = v->disk + (size_t)sector * SECTOR;
	uint64_t at = (uint64_t)get32(h + 72) * SECTOR, len = (uint64_t)get32(h + 80) * get32(h + 84);
	uint32_t size = get32(h + 12);

	memcpy(h, "EFI PART", 8);
	if (range_ok(at, len, sizeof v->disk))
		put32(h + 88, vol_crc32(v->disk + at, len));
	put32(h + 16, 0);
	if (size <= SECTOR)
		put32(h + 16, vol_crc32(h, size));
}

static void check(const struct vhd *v, const struct vol_list *l)
{
	if (l->n > VOL_MAX)
		abort();
	for (unsigned i = 0; i < l->n; i++) {
		const struct vol_part *p = &l->part[i];

		if (!p->number || !p->len || p->start % SECTOR || p->len % SECTOR ||
		    !range_ok(p->start, p->len, vhd_size(v)))
			abort();
		for (unsigned k = 0; k < i; k++)
			if (p->start < l->part[k].start + l->part[k].len && l->part[k].start < p->start + p->len)
				abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vhd *v = calloc(1, sizeof *v);
	struct vol_list *l = calloc(1, sizeof *l);
	unsigned sealed[PATCHES], nsealed = 0;

	if (!v || !l)
		abort();
	for (unsigned i = 0; i < PATCHES && size > PATCH_HEAD; i++) {
		unsigned sector = (data[0] | (unsigned)data[1] << 8) % SECTORS;
		size_t n = min_u64(size - PATCH_HEAD, SECTOR);

		memcpy(v->disk + (size_t)sector * SECTOR, data + PATCH_HEAD, n);
		if (data[2] & 1)
			memcpy(v->disk + (size_t)sector * SECTOR + 510, "\x55\xaa", 2);
		if (data[2] & 2)
			sealed[nsealed++] = sector;
		data += PATCH_HEAD + n;
		size -= PATCH_HEAD + n;
	}
	for (unsigned i = 0; i < nsealed; i++)
		seal(v, sealed[i]);
	if (!vol_read_table(v, l))
		check(v, l);
	free(l);
	free(v);
	return 0;
}

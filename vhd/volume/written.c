/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * written.c - when the file systems of an image were last written, as they say themselves
 *
 * ext2, ext3, ext4: the superblock has the times of the last write, mount and check. NTFS: the records of its own files
 * and of the root folder have theirs. Sources: "ext4 Data Structures and Algorithms" in the kernel's documentation; what
 * Windows' NTFS is seen to write.
 */
#include <stdlib.h>
#include <string.h>

#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/endian.h"
#include "vhd/volume/volume_int.h"

#define NTFS_EPOCH INT64_C(11644473600) /* seconds from 1601 to 1970 */
#define NTFS_TICKS 10000000u            /* a second */
#define RECORDS 24u                     /* of NTFS: its own files, the root folder among them */
#define RECORD_BYTES 1024u

static uint32_t get32(const uint8_t *p)
{
	le32 x;

	memcpy(&x, p, sizeof x);
	return le32_get(x);
}

static uint64_t get64(const uint8_t *p)
{
	return get32(p) | (uint64_t)get32(p + 4) << 32;
}

static int64_t later(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

/* s_mtime, s_wtime, s_lastcheck. Seconds without sign: nothing here is of before 1970. */
static int64_t ext_written(const uint8_t *sb)
{
	if (sb[56] != 0x53 || sb[57] != 0xef)
		return 0;
	return later(get32(sb + 0x2c), later(get32(sb + 0x30), get32(sb + 0x40)));
}

/* $STANDARD_INFORMATION of a record: contents changed, record changed. */
static int64_t record_written(const uint8_t *r)
{
	uint32_t at = r[20] | (uint32_t)r[21] << 8, type, len;
	int64_t t = 0;

	if (memcmp(r, "FILE", 4) != 0)
		return 0;
	for (unsigned i = 0; i < 16 && at + 24 <= RECORD_BYTES; i++, at += len) {
		type = get32(r + at);
		len = get32(r + at + 4);
		if (len < 24 || len > RECORD_BYTES - at || type == UINT32_MAX)
			return 0;
		if (type != 0x10)
			continue;
		at += r[at + 20] | (uint32_t)r[at + 21] << 8;
		for (unsigned k = 1; k <= 2 && at + 24 <= RECORD_BYTES; k++)
			t = later(t, (int64_t)(get64(r + at + 8 * k) / NTFS_TICKS) - NTFS_EPOCH);
		return t;
	}
	return 0;
}

static int64_t ntfs_written(struct vhd *v, const struct vol_part *p, const uint8_t *boot)
{
	uint64_t sector = boot[11] | (uint64_t)boot[12] << 8, off;
	uint8_t r[RECORD_BYTES];
	int64_t t = 0;

	if (memcmp(boot + 3, "NTFS    ", 8) != 0 || sector < 512 || sector > 4096 || !boot[13] || boot[13] > 128 ||
	    !mul_ok(get64(boot + 48), sector * boot[13], &off) || off % 512)
		return 0;
	for (unsigned i = 0; i < RECORDS; i++) {
		uint64_t at = off + (uint64_t)i * RECORD_BYTES;

		if (at < off || !range_ok(at, RECORD_BYTES, p->len) || vhd_read(v, r, RECORD_BYTES, p->start + at) < 0)
			break;
		t = later(t, record_written(r));
	}
	return t;
}

static int64_t part_written(struct vhd *v, const struct vol_part *p)
{
	uint8_t b[2048];

	if (p->len < sizeof b || vhd_read(v, b, sizeof b, p->start) < 0)
		return 0;
	return later(ext_written(b + 1024), ntfs_written(v, p, b));
}

int64_t vol_last_written(struct vhd *v)
{
	const struct vol_part whole = {.len = vhd_size(v)};
	AUTO(freep) struct vol_list *l = calloc(1, sizeof *l);
	int64_t t = part_written(v, &whole);

	if (!l || vol_read_table(v, l) < 0)
		return t;
	for (unsigned i = 0; i < l->n; i++)
		t = later(t, part_written(v, &l->part[i]));
	return t;
}

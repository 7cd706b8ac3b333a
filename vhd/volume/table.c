/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * table.c - partition tables: MBR with extended partitions, GPT
 *
 *     MBR    sector 0: four entries                GPT   sector 0: an MBR whose entry of type ee protects the disk
 *            extended: a chain of sectors, each          sector 1: header -> array of entries
 *            { a logical partition, the next one }       last sector: backup header -> its own array
 *
 * Every number here is an outsider's. A partition is taken when it lies inside the disk and on none that was taken before;
 * chains and arrays are bounded before anything is allocated or followed; nothing is recursive. Numbers are Linux's: the
 * place in the table, logical ones from 5 in the order of the chain.
 *
 * Sources: UEFI specification 2.10, chapter 5; what Linux and fdisk write.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/endian.h"
#include "vhd/base/log.h"
#include "vhd/volume/volume_int.h"

#define SECTOR 512u
#define LARGE_SECTOR 4096u
#define BACKUP_SEARCH (UINT64_C(4) << 20) /* bytes at the end of the disk */
#define GPT_ENTRIES_MAX 1024u
#define GPT_ENTRY_MAX 4096u
#define MBR_PROTECTIVE 0xee
#define FIRST_LOGICAL 5u

/* Take a partition into the list if it lies inside the disk and on none of the others. */
static void add(struct vhd *v, struct vol_list *l, uint32_t number, uint64_t first, uint64_t sectors, uint32_t ss)
{
	uint64_t start, len;

	if (!sectors || !mul_ok(first, (uint64_t)ss, &start) || !mul_ok(sectors, (uint64_t)ss, &len) ||
	    !range_ok(start, len, vhd_size(v))) {
		log_warn("%s: partition %u: %llu sectors from sector %llu are not inside the disk of %llu; left out",
			 vhd_path(v), number, (unsigned long long)sectors, (unsigned long long)first,
			 (unsigned long long)(vhd_size(v) / ss));
		return;
	}
	for (unsigned i = 0; i < l->n; i++)
		if (start < l->part[i].start + l->part[i].len && l->part[i].start < start + len) {
			log_warn("%s: partition %u overlaps partition %u; left out", vhd_path(v), number,
				 l->part[i].number);
			return;
		}
	if (l->n == VOL_MAX) {
		log_warn("%s: partition %u: only %u are looked at; left out", vhd_path(v), number, VOL_MAX);
		return;
	}
	l->part[l->n++] = (struct vol_part){.number = number, .start = start, .len = len};
}

/* ---- MBR -------------------------------------------------------------------------------------------------------- */

struct mbr_entry {
	uint8_t status, chs_first[3], type, chs_last[3];
	le32 first, sectors;
};

struct mbr {
	uint8_t boot[446];
	struct mbr_entry e[4];
	uint8_t sign[2];
};
_Static_assert(sizeof(struct mbr) == SECTOR, "an MBR is one sector");

static bool is_mbr(const struct mbr *m)
{
	if (m->sign[0] != 0x55 || m->sign[1] != 0xaa)
		return false;
	for (int i = 0; i < 4; i++)
		if (m->e[i].status & 0x7f)
			return false;
	return true;
}

static bool is_extended(uint8_t type)
{
	return type == 0x05 || type == 0x0f || type == 0x85;
}

static bool is_used(const struct mbr_entry *e)
{
	return e->type && le32_get(e->sectors);
}

/* The extended partition [base, base + sectors). The next sector may lie before this one (fdisk leaves such chains), but
 * none is visited twice. *number: of the next logical partition. */
static int scan_extended(struct vhd *v, struct vol_list *l, uint64_t base, uint64_t sectors, uint32_t ss,
			 uint32_t *number)
{
	uint64_t seen[VOL_MAX] = {0}, at = base;

	for (unsigned i = 0; i < VOL_MAX; i++) {
		struct mbr m;
		int err;

		if (at - base >= sectors || !range_ok(at * ss, ss, vhd_size(v))) {
			log_warn("%s: extended partition: its chain leads to sector %llu, outside; cut there",
				 vhd_path(v), (unsigned long long)at);
			return 0;
		}
		for (unsigned k = 0; k < i; k++)
			if (seen[k] == at) {
				log_warn("%s: extended partition: its chain comes back to sector %llu; cut there",
					 vhd_path(v), (unsigned long long)at);
				return 0;
			}
		seen[i] = at;
		if ((err = vhd_read(v, &m, sizeof m, at * ss)) < 0)
			return err;
		if (!is_mbr(&m)) {
			log_warn("%s: extended partition: sector %llu is no partition table; cut there", vhd_path(v),
				 (unsigned long long)at);
			return 0;
		}
		if (is_used(&m.e[0]) && !is_extended(m.e[0].type))
			add(v, l, (*number)++, at + le32_get(m.e[0].first), le32_get(m.e[0].sectors), ss);
		if (!is_extended(m.e[1].type) || !is_used(&m.e[1]))
			return 0;
		at = base + le32_get(m.e[1].first);
	}
	log_warn("%s: extended partition: more than %u in its chain; cut there", vhd_path(v), VOL_MAX);
	return 0;
}

static int scan_mbr(struct vhd *v, struct vol_list *l, const struct mbr *m, uint32_t ss)
{
	uint32_t number = FIRST_LOGICAL;
	int err = 0;

	l->table = VOL_MBR;
	for (uint32_t i = 0; i < 4; i++)
		if (is_used(&m->e[i]) && !is_extended(m->e[i].type))
			add(v, l, i + 1, le32_get(m->e[i].first), le32_get(m->e[i].sectors), ss);
	for (uint32_t i = 0; i < 4 && !err; i++)
		if (is_used(&m->e[i]) && is_extended(m->e[i].type))
			err = scan_extended(v, l, le32_get(m->e[i].first), le32_get(m->e[i].sectors), ss, &number);
	return err;
}

int vol_read_large_mbr(struct vhd *v, struct vol_list *l)
{
	struct mbr m;
	int err = vhd_size(v) < 3 * LARGE_SECTOR ? -EUCLEAN : vhd_read(v, &m, sizeof m, 0);

	if (!err && !is_mbr(&m))
		err = -EUCLEAN;
	for (int i = 0; i < 4 && !err; i++)
		if (is_used(&m.e[i]) && !range_ok((uint64_t)le32_get(m.e[i].first) * LARGE_SECTOR,
						  (uint64_t)le32_get(m.e[i].sectors) * LARGE_SECTOR, vhd_size(v)))
			err = -EUCLEAN;
	return err ? err : scan_mbr(v, l, &m, LARGE_SECTOR);
}

/* ---- GPT -------------------------------------------------------------------------------------------------------- */

struct gpt {
	uint8_t sign[8];
	le32 revision, size, crc, reserved;
	le64 self, other, first, last;
	uint8_t disk[16];
	le64 entries;
	le32 count, entry_size, entries_crc;
};
_Static_assert(sizeof(struct gpt) == 92, "UEFI 2.10, table 5.5");

struct gpt_entry {
	uint8_t type[16], id[16];
	le64 first, last, flags;
};

uint32_t vol_crc32(const void *data, size_t len)
{
	const uint8_t *p = data;
	uint32_t crc = ~0u;

	while (len--) {
		crc ^= *p++;
		for (int i = 0; i < 8; i++)
			crc = crc >> 1 ^ (0xedb88320u & (0u - (crc & 1)));
	}
	return ~crc;
}

/* The header in sector @lba of @ss bytes. 0, -EUCLEAN no good one, or an error of the image. */
static int read_header(struct vhd *v, uint64_t lba, uint32_t ss, struct gpt *g)
{
	uint8_t sector[SECTOR];
	uint32_t size;
	int err;

	if (lba < 1 || lba >= vhd_size(v) / ss)
		return -EUCLEAN;
	if ((err = vhd_read(v, sector, SECTOR, lba * ss)) < 0)
		return err;
	memcpy(g, sector, sizeof *g);
	size = le32_get(g->size);
	if (memcmp(g->sign, "EFI PART", sizeof g->sign) != 0 || size < sizeof *g || size > SECTOR)
		return -EUCLEAN;
	memset(sector + offsetof(struct gpt, crc), 0, sizeof g->crc);
	return vol_crc32(sector, size) == le32_get(g->crc) && le64_get(g->self) == lba ? 0 : -EUCLEAN;
}

/* The entries of a good header: *out is the caller's. */
static int read_entries(struct vhd *v, const struct gpt *g, uint32_t ss, uint8_t **out)
{
	uint32_t size = le32_get(g->entry_size), count = le32_get(g->count);
	AUTO(freep) uint8_t *entries = NULL;
	uint64_t at, len, room;
	int err;

	if (size < sizeof(struct gpt_entry) || size > GPT_ENTRY_MAX || !count || count > GPT_ENTRIES_MAX)
		return -EUCLEAN;
	len = (uint64_t)size * count;
	room = round_up_u64(len, SECTOR);
	if (!mul_ok(le64_get(g->entries), (uint64_t)ss, &at) || !range_ok(at, room, vhd_size(v)))
		return -EUCLEAN;
	entries = malloc(room);
	if (!entries)
		return -ENOMEM;
	if ((err = vhd_read(v, entries, room, at)) < 0)
		return err;
	if (vol_crc32(entries, len) != le32_get(g->entries_crc))
		return -EUCLEAN;
	*out = TAKE(entries);
	return 0;
}

/* A whole table whose header is in sector @lba. 0, -EUCLEAN, or an error of the image. */
static int try_gpt(struct vhd *v, uint64_t lba, uint32_t ss, struct gpt *g, uint8_t **entries)
{
	int err = read_header(v, lba, ss, g);

	return err ? err : read_entries(v, g, ss, entries);
}

/* A backup that is not in the last sector: the disk grew, or its size was rounded up. */
static int search_backup(struct vhd *v, uint32_t ss, struct gpt *g, uint8_t **entries, uint64_t *lba)
{
	uint64_t n = vhd_size(v) / ss, low = n > BACKUP_SEARCH / ss ? n - BACKUP_SEARCH / ss : 2;
	int err = -EUCLEAN;

	for (*lba = n - 1; err == -EUCLEAN && *lba > low;)
		err = try_gpt(v, --*lba, ss, g, entries);
	return err;
}

/* The first good table: the primary one; the backup where the primary's header says; the backup in the last sector (a disk
 * that was made larger has it elsewhere); @search: the backup near there. */
static int find_gpt(struct vhd *v, uint32_t ss, bool search, struct gpt *g, uint8_t **entries)
{
	uint64_t try[3] = {1, 0, vhd_size(v) / ss - 1};
	int err = -EUCLEAN;

	for (unsigned i = 0; i < ARRAY_LEN(try) && err == -EUCLEAN; i++) {
		err = read_header(v, try[i], ss, g);
		if (!err && i == 0)
			try[1] = le64_get(g->other);
		if (!err)
			err = read_entries(v, g, ss, entries);
		try[0] = try[i];
	}
	if (err == -EUCLEAN && search)
		err = search_backup(v, ss, g, entries, &try[0]);
	if (!err && try[0] != 1)
		log_warn("%s: the partition table (GPT) is damaged; its backup in sector %llu is used", vhd_path(v),
			 (unsigned long long)try[0]);
	return err;
}

static int scan_gpt(struct vhd *v, struct vol_list *l, bool search)
{
	static const uint32_t sizes[] = {512, 4096, 1024, 2048}; /* bytes of a sector, the usual ones first */
	static const uint8_t unused[16];
	AUTO(freep) uint8_t *entries = NULL;
	struct gpt g;
	int err = -EUCLEAN;
	uint32_t ss = 0;

	for (unsigned i = 0; i < 2 * ARRAY_LEN(sizes) && err == -EUCLEAN; i++) {
		ss = sizes[i % ARRAY_LEN(sizes)];
		if ((i < ARRAY_LEN(sizes) || search) && vhd_size(v) >= 3 * ss)
			err = find_gpt(v, ss, i >= ARRAY_LEN(sizes), &g, &entries);
	}
	if (err)
		return err;
	l->table = VOL_GPT;
	for (uint32_t i = 0; i < le32_get(g.count); i++) {
		struct gpt_entry e;
		uint64_t first, last;

		memcpy(&e, entries + (size_t)i * le32_get(g.entry_size), sizeof e);
		first = le64_get(e.first);
		last = le64_get(e.last);
		if (memcmp(e.type, unused, sizeof unused) != 0)
			add(v, l, i + 1, first, last >= first && last < UINT64_MAX ? last - first + 1 : 0, ss);
	}
	return 0;
}

int vol_read_table(struct vhd *v, struct vol_list *l)
{
	bool mbr, protective = false;
	struct mbr m;
	int err;

	if (vhd_size(v) < 3 * SECTOR)
		return 0;
	if ((err = vhd_read(v, &m, sizeof m, 0)) < 0)
		return err;
	mbr = is_mbr(&m);
	for (int i = 0; i < 4; i++)
		protective |= mbr && m.e[i].type == MBR_PROTECTIVE;
	if (mbr && !protective)
		return scan_mbr(v, l, &m, SECTOR);
	/* Without a protective MBR the GPT may still be good; then only sector 0 was lost. */
	err = scan_gpt(v, l, protective);
	if (err == -EUCLEAN && protective)
		log_warn("%s: the partition table (GPT) and its backup are damaged; no partition is served",
			 vhd_path(v));
	return err == -EUCLEAN ? 0 : err;
}

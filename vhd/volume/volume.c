/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * volume.c - see volume.h: partition tables, and what is in a volume
 *
 * A file system on the whole disk is looked for first: the boot sectors of some look like a partition table. Tables are read
 * with our own bounds; libblkid names the contents. It only takes a file descriptor, so the beginning and the end of a
 * volume are copied into a sparse memory file of the volume's size.
 */
#include "vhd/volume/volume.h"

#include <blkid/blkid.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/endian.h"
#include "vhd/base/log.h"

#define SECTOR 512u
#define HEAD_BYTES (256u << 10) /* of a volume, copied for probing */
#define TAIL_BYTES (64u << 10)
#define GPT_ENTRIES_MAX 1024u
#define GPT_ENTRY_MAX 4096u

/* ---- what is in it ---------------------------------------------------------------------------------------------------------- */

static int copy_part(struct vhd *v, int fd, uint64_t from, uint64_t to, uint64_t len)
{
	AUTO(freep) uint8_t *buf = malloc(len);
	int err;

	if (!buf)
		return -ENOMEM;
	if ((err = vhd_read(v, buf, len, from)) < 0)
		return err;
	return pwrite(fd, buf, len, (off_t)to) == (ssize_t)len ? 0 : -EIO;
}

static void ask(blkid_probe pr, const char *key, char *to, size_t cap)
{
	const char *s = NULL;

	to[0] = '\0';
	if (blkid_probe_lookup_value(pr, key, &s, NULL) == 0 && s)
		snprintf(to, cap, "%s", s);
}

/* 1: something is there. */
static int probe(struct vhd *v, struct vol_part *p)
{
	uint64_t head = min_u64(p->len, HEAD_BYTES), tail = min_u64(p->len - head, TAIL_BYTES);
	AUTO(closep) int fd = memfd_create("volume", MFD_CLOEXEC);
	char uuid[64];
	blkid_probe pr;
	int err, found = 0;

	if (fd < 0 || ftruncate(fd, (off_t)p->len) < 0)
		return -errno;
	if ((err = copy_part(v, fd, p->start, 0, head)) < 0 ||
	    (tail && (err = copy_part(v, fd, p->start + p->len - tail, p->len - tail, tail)) < 0))
		return err;
	pr = blkid_new_probe();
	if (!pr)
		return -ENOMEM;
	if (blkid_probe_set_device(pr, fd, 0, (blkid_loff_t)p->len) == 0) {
		blkid_probe_enable_superblocks(pr, 1);
		blkid_probe_set_superblocks_flags(pr, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_LABEL | BLKID_SUBLKS_UUID);
		if (blkid_do_safeprobe(pr) == 0) {
			ask(pr, "TYPE", p->fstype, sizeof p->fstype);
			ask(pr, "LABEL", p->label, sizeof p->label);
			ask(pr, "UUID", uuid, sizeof uuid);
			if (uuid_parse(uuid, p->uuid) < 0)
				uuid_clear(p->uuid);
			found = p->fstype[0] != '\0';
		}
	}
	blkid_free_probe(pr);
	return found;
}

/* ---- tables ------------------------------------------------------------------------------------------------------------------ */

/* Take a partition into the list if it lies inside the disk and on none of the others. */
static void add(struct vhd *v, struct vol_list *l, uint32_t number, uint64_t first, uint64_t sectors)
{
	uint64_t start, len;

	if (!sectors || !mul_ok(first, (uint64_t)SECTOR, &start) || !mul_ok(sectors, (uint64_t)SECTOR, &len) ||
	    !range_ok(start, len, vhd_size(v))) {
		log_warn("%s: partition %u: sectors %llu to %llu are not inside the disk; left out", vhd_path(v),
			 number, (unsigned long long)first, (unsigned long long)(first + sectors));
		return;
	}
	for (unsigned i = 0; i < l->n; i++)
		if (start < l->part[i].start + l->part[i].len && l->part[i].start < start + len) {
			log_warn("%s: partition %u overlaps partition %u; left out", vhd_path(v), number,
				 l->part[i].number);
			return;
		}
	if (l->n == VOL_MAX) {
		log_warn("%s: more than %u partitions; partition %u left out", vhd_path(v), VOL_MAX, number);
		return;
	}
	l->part[l->n++] = (struct vol_part){.number = number, .start = start, .len = len};
}

struct mbr_entry {
	uint8_t status, chs1[3], type, chs2[3];
	le32 first, sectors;
};

struct mbr {
	uint8_t boot[446];
	struct mbr_entry e[4];
	uint8_t sign[2];
};

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

/* The chain of logical partitions: each sector has one, and where the next sector is. Its length is bounded. */
static int scan_extended(struct vhd *v, struct vol_list *l, uint64_t base, uint64_t sectors)
{
	uint64_t at = base;
	uint32_t number = 5;

	for (unsigned i = 0; i < VOL_MAX; i++) {
		struct mbr m;
		uint64_t next;
		int err;

		if (at < base || at - base >= sectors || !range_ok(at * SECTOR, SECTOR, vhd_size(v)))
			return 0;
		if ((err = vhd_read(v, &m, sizeof m, at * SECTOR)) < 0)
			return err;
		if (!is_mbr(&m))
			return 0;
		if (m.e[0].type && le32_get(m.e[0].sectors))
			add(v, l, number++, at + le32_get(m.e[0].first), le32_get(m.e[0].sectors));
		next = le32_get(m.e[1].first);
		if (!is_extended(m.e[1].type) || !next || base + next <= at)
			return 0; /* the end; a chain goes forward only, so it cannot loop */
		at = base + next;
	}
	return 0;
}

static int scan_mbr(struct vhd *v, struct vol_list *l, const struct mbr *m)
{
	int err = 0;

	l->table = VOL_MBR;
	for (uint32_t i = 0; i < 4 && !err; i++) {
		const struct mbr_entry *e = &m->e[i];

		if (!e->type || !le32_get(e->sectors))
			continue;
		if (is_extended(e->type))
			err = scan_extended(v, l, le32_get(e->first), le32_get(e->sectors));
		else
			add(v, l, i + 1, le32_get(e->first), le32_get(e->sectors));
	}
	return err;
}

struct gpt {
	uint8_t sign[8];
	le32 revision, size, crc, reserved;
	le64 self, other, first, last;
	uint8_t disk[16];
	le64 entries;
	le32 count, entry_size, entries_crc;
};

struct gpt_entry {
	uint8_t type[16], id[16];
	le64 first, last, flags;
};

static uint32_t crc32(const uint8_t *p, size_t n)
{
	uint32_t crc = ~0u;

	while (n--) {
		crc ^= *p++;
		for (int i = 0; i < 8; i++)
			crc = crc >> 1 ^ (0xedb88320u & (0u - (crc & 1)));
	}
	return ~crc;
}

/* Reads and checks the header at @lba and its entries. NULL: not a good one. */
static uint8_t *read_gpt(struct vhd *v, uint64_t lba, struct gpt *g)
{
	uint8_t sector[SECTOR], *entries;
	uint64_t at, len;
	uint32_t size;

	if (!range_ok(lba * SECTOR, SECTOR, vhd_size(v)) || vhd_read(v, sector, SECTOR, lba * SECTOR) < 0)
		return NULL;
	memcpy(g, sector, sizeof *g);
	size = le32_get(g->size);
	if (memcmp(g->sign, "EFI PART", 8) != 0 || size < sizeof *g || size > SECTOR)
		return NULL;
	memset(sector + offsetof(struct gpt, crc), 0, 4);
	if (crc32(sector, size) != le32_get(g->crc) || le64_get(g->self) != lba)
		return NULL;
	size = le32_get(g->entry_size);
	if (size < sizeof(struct gpt_entry) || size > GPT_ENTRY_MAX || le32_get(g->count) > GPT_ENTRIES_MAX)
		return NULL;
	len = (uint64_t)size * le32_get(g->count);
	if (!mul_ok(le64_get(g->entries), (uint64_t)SECTOR, &at) ||
	    !range_ok(at, round_up_u64(len, SECTOR), vhd_size(v)))
		return NULL;
	entries = malloc(round_up_u64(len ? len : 1, SECTOR));
	if (!entries || vhd_read(v, entries, round_up_u64(len, SECTOR), at) < 0 ||
	    crc32(entries, len) != le32_get(g->entries_crc)) {
		free(entries);
		return NULL;
	}
	return entries;
}

/* -ENOENT: neither table is good. */
static int scan_gpt(struct vhd *v, struct vol_list *l)
{
	static const uint8_t unused[16];
	AUTO(freep) uint8_t *entries = NULL;
	struct gpt g;

	entries = read_gpt(v, 1, &g);
	if (!entries) {
		entries = read_gpt(v, vhd_size(v) / SECTOR - 1, &g);
		if (!entries)
			return -ENOENT;
		log_warn("%s: the partition table (GPT) is damaged; its backup is used", vhd_path(v));
	}
	l->table = VOL_GPT;
	for (uint32_t i = 0; i < le32_get(g.count); i++) {
		struct gpt_entry e;

		memcpy(&e, entries + (size_t)i * le32_get(g.entry_size), sizeof e);
		if (memcmp(e.type, unused, sizeof unused) == 0 || le64_get(e.last) < le64_get(e.first))
			continue;
		add(v, l, i + 1, le64_get(e.first), le64_get(e.last) - le64_get(e.first) + 1);
	}
	return 0;
}

int vol_scan(struct vhd *v, struct vol_list *l, struct why *why)
{
	struct vol_part whole = {.len = vhd_size(v)};
	struct mbr m;
	int err;

	memset(l, 0, sizeof *l);
	err = probe(v, &whole);
	if (err < 0)
		return why_set(why, err, "%s: looking for a file system: %s", vhd_path(v), strerror(-err));
	if (err) {
		l->part[l->n++] = whole;
		return 0;
	}
	if (vhd_size(v) < 3 * SECTOR)
		return 0;
	err = vhd_read(v, &m, sizeof m, 0);
	if (!err) {
		bool gpt = false;

		for (int i = 0; i < 4; i++)
			gpt |= is_mbr(&m) && m.e[i].type == 0xee;
		err = gpt ? scan_gpt(v, l) : -ENOENT;
		if (err == -ENOENT)
			err = is_mbr(&m) && !gpt ? scan_mbr(v, l, &m) : gpt ? 0 : scan_gpt(v, l);
		if (err == -ENOENT)
			err = 0;
	}
	for (unsigned i = 0; i < l->n && err >= 0; i++)
		err = probe(v, &l->part[i]);
	if (err < 0)
		return why_set(why, err, "%s: reading partitions: %s", vhd_path(v), strerror(-err));
	return 0;
}

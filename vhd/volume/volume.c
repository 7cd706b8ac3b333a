/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * volume.c - see volume.h: what is in an image and in its partitions
 *
 * A file system on the whole disk is looked for first: the boot sectors of some look like a partition table. Then table.c
 * reads the tables; libblkid names the contents. It only takes a file descriptor, so the parts of a volume that it
 * looks at are copied into a sparse memory file of the volume's size: the beginning, the end, and what a boot sector names.
 */
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
#include "vhd/volume/volume_int.h"

#define HEAD_BYTES (256u << 10) /* of a volume, copied for probing */
#define TAIL_BYTES (64u << 10)
#define MORE_BYTES (32u << 10) /* at the place that a boot sector names */

/* ---- what is in it ---------------------------------------------------------------------------------------------- */

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

/* Boot sectors of what libblkid looks for elsewhere, and the part of them that says where. */
struct boot {
	uint8_t jump[3], oem[8];
	le16 sector_size; /* bytes; 512 … 4096 */
	uint8_t cluster;  /* sectors */
	le16 reserved;    /* sectors; FAT */
	uint8_t fats;
	le16 root_entries; /* FAT16 */
	uint8_t sectors16[2], media;
	le16 fat16; /* sectors of one FAT; 0 with FAT32 */
	uint8_t geometry[12];
	le32 fat32;
	uint8_t flags[4];
	le32 root32; /* cluster */
	le64 mft;    /* cluster; NTFS */
};
_Static_assert(sizeof(struct boot) == 56, "the fields have no gaps");

/* NTFS: the first records of the MFT. FAT: the root directory, for the label. 0 when there is nothing of the kind. */
static uint64_t elsewhere(const struct boot *b)
{
	uint64_t size = le16_get(b->sector_size), off;

	if (size < 512 || size > 4096 || !b->cluster)
		return 0;
	if (!memcmp(b->oem, "NTFS    ", 8))
		return mul_ok(le64_get(b->mft), size * b->cluster, &off) ? off : 0;
	off = le16_get(b->reserved);
	if (le16_get(b->fat16))
		off += (uint64_t)b->fats * le16_get(b->fat16);
	else if (le32_get(b->root32) >= 2)
		off += (uint64_t)b->fats * le32_get(b->fat32) + (uint64_t)(le32_get(b->root32) - 2) * b->cluster;
	return off * size;
}

static int copy_elsewhere(struct vhd *v, int fd, const struct vol_part *p)
{
	struct boot b;
	uint64_t off;

	if (pread(fd, &b, sizeof b, 0) != sizeof b)
		return -EIO;
	off = elsewhere(&b) & ~UINT64_C(511);
	return off > HEAD_BYTES - MORE_BYTES && range_ok(off, MORE_BYTES, p->len)
		       ? copy_part(v, fd, p->start + off, off, MORE_BYTES)
		       : 0;
}

static void ask(blkid_probe pr, const char *key, char *to, size_t cap)
{
	const char *s = NULL;

	to[0] = '\0';
	if (blkid_probe_lookup_value(pr, key, &s, NULL) == 0 && s)
		snprintf(to, cap, "%s", s);
	/* It ends up on people's screens. */
	for (; *to; to++)
		if ((unsigned char)*to < 0x20 || *to == 0x7f)
			*to = '?';
}

/* What an ext2, ext3 or ext4 takes, from its superblock ("Disk layout": s_blocks_count, s_log_block_size). 0: it is none. */
static uint64_t ext_len(int fd)
{
	uint8_t sb[1024];
	le32 lo, shift, hi, incompat;
	uint64_t blocks, len;

	if (pread(fd, sb, sizeof sb, 1024) != sizeof sb || sb[56] != 0x53 || sb[57] != 0xef)
		return 0;
	memcpy(&lo, sb + 4, 4);
	memcpy(&shift, sb + 24, 4);
	memcpy(&incompat, sb + 96, 4);
	memcpy(&hi, sb + 0x150, 4);
	blocks = le32_get(lo) | (le32_get(incompat) & 0x80 ? (uint64_t)le32_get(hi) << 32 : 0); /* 64bit */
	return le32_get(shift) <= 6 && mul_ok(blocks, UINT64_C(1024) << le32_get(shift), &len) ? len : 0;
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
	    (tail && (err = copy_part(v, fd, p->start + p->len - tail, p->len - tail, tail)) < 0) ||
	    (err = copy_elsewhere(v, fd, p)) < 0)
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
			p->fs_len = strncmp(p->fstype, "ext", 3) == 0 ? ext_len(fd) : 0;
			if (uuid_parse(uuid, p->uuid) < 0)
				uuid_clear(p->uuid);
			found = p->fstype[0] != '\0';
		}
	}
	blkid_free_probe(pr);
	return found;
}

const char *vol_words(const struct vol_part *p)
{
	static const struct {
		const char *type, *words;
	} known[] = {
		{"LVM2_member", "LVM2 physical volume"},
		{"LVM1_member", "LVM1 physical volume"},
		{"crypto_LUKS", "LUKS"},
		{"BitLocker", "BitLocker"},
		{"linux_raid_memb", "Linux RAID"}, /* as far as fstype[] has it */
		{"zfs_member", "ZFS"},
		{"xfs", "XFS"},
		{"ntfs", "NTFS"},
		{"vfat", "FAT"},
		{"exfat", "exFAT"},
		{"swap", "swap"},
		{"", "unknown"},
	};

	for (size_t i = 0; i < ARRAY_LEN(known); i++)
		if (strcmp(p->fstype, known[i].type) == 0)
			return known[i].words;
	return p->fstype;
}

/* ---- all of it -------------------------------------------------------------------------------------------------- */

/* Look into every partition; one that cannot be read is left out. How many hold something known, or -ENOMEM. */
static int probe_parts(struct vhd *v, struct vol_list *l)
{
	unsigned kept = 0;
	int known = 0;

	for (unsigned i = 0; i < l->n; i++) {
		int err = probe(v, &l->part[i]);

		if (err == -ENOMEM)
			return err;
		if (err < 0) {
			log_warn("%s: partition %u cannot be read: %s; left out", vhd_path(v), l->part[i].number,
				 strerror(-err));
			continue;
		}
		known += err;
		l->part[kept++] = l->part[i];
	}
	l->n = kept;
	return known;
}

/* These begin with a boot sector, whose code must not be taken for a table. */
static bool has_boot_sector(const char *fstype)
{
	return !strcmp(fstype, "vfat") || !strcmp(fstype, "ntfs") || !strcmp(fstype, "exfat");
}

/* Where an MBR's partitions would be on a disk of 512-byte sectors there is nothing known: is there on one of 4096? How many hold
 * something then; 0: no, and *l is as it was. -ENOMEM. */
static int try_large_sectors(struct vhd *v, struct vol_list *l)
{
	AUTO(freep) struct vol_list *large = calloc(1, sizeof *large);
	int known;

	if (!large)
		return -ENOMEM;
	if (vol_read_large_mbr(v, large) < 0)
		return 0;
	known = probe_parts(v, large);
	if (known > 0)
		*l = *large;
	return known;
}

int vol_scan(struct vhd *v, struct vol_list *l, struct why *why)
{
	struct vol_part whole = {.len = vhd_size(v)};
	int found, known = 0, err = 0;

	memset(l, 0, sizeof *l);
	found = probe(v, &whole);
	if (found < 0)
		return why_set(why, found, "%s: looking for a file system: %s", vhd_path(v), strerror(-found));
	if (!found || !has_boot_sector(whole.fstype))
		err = vol_read_table(v, l);
	if (!err)
		err = known = probe_parts(v, l);
	if (!err && !known && l->table == VOL_MBR)
		err = known = try_large_sectors(v, l);
	if (err < 0)
		return why_set(why, err, "%s: looking for partitions: %s", vhd_path(v), strerror(-err));
	if (!found)
		return 0;
	/* Making a file system wipes a table, making a table need not wipe a file system: the table is the newer one. To
	 * write into the old file system would damage the partitions. */
	if (known) {
		log_warn("%s: has a partition table and the remains of a file system (%s) on the whole disk; "
			 "the partitions are used",
			 vhd_path(v), whole.fstype);
		return 0;
	}
	*l = (struct vol_list){.table = VOL_WHOLE, .n = 1, .part = {whole}};
	return 0;
}

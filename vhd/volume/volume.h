/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * volume.h - what an image holds: a file system on the whole disk, or partitions (MBR with extended, GPT)
 */
#ifndef VHDNFS_VOLUME_VOLUME_H
#define VHDNFS_VOLUME_VOLUME_H

#include <stdint.h>
#include <uuid/uuid.h>

#include "vhd/base/why.h"
#include "vhd/cache/cache.h"
#include "vhd/image/vhd.h"

#define VOL_MAX 128 /* partitions of one image that are looked at */

enum vol_table { VOL_WHOLE, VOL_MBR, VOL_GPT };

struct vol_part {
	uint32_t number; /* 1, 2, … as Linux numbers them (logical ones from 5); 0 for the whole disk */
	uint64_t start;  /* bytes */
	uint64_t len;    /* bytes, > 0, inside the disk */
	char fstype[16]; /* libblkid's name: "ext4", "ntfs", "vfat", …; "" when it knows none */
	char label[64];
	uuid_t uuid;     /* of the file system, zero when it has none */
	uint64_t fs_len; /* bytes that the file system takes; 0: it does not say */
};

struct vol_list {
	enum vol_table table;
	unsigned n;
	struct vol_part part[VOL_MAX];
};

/**
 * vol_scan() - the volumes of an open image
 *
 * A file system on the whole disk is the only volume, unless there is a partition table whose partitions hold something
 * known too: then the file system is what was there before.
 *
 * Overlapping, empty and out-of-disk partitions, loops of extended partitions and damaged GPTs (the backup is used when
 * the primary is bad) are left out, each with a warning in the log. Reads the image, bypassing the cache.
 *
 * Return: 0 (list->n may be 0: nothing recognised); -EIO, -ENOMEM.
 */
int vol_scan(struct vhd *v, struct vol_list *list, struct why *why);

/* What is in a partition, in people's words: "LVM2 physical volume", "NTFS"; of what has none libblkid's; "unknown". */
const char *vol_words(const struct vol_part *p);

/* When a file system in the image was last written, as it says itself: seconds since 1970, 0 when none says so. For
 * vhd_open_opts. */
int64_t vol_last_written(struct vhd *v);

#endif

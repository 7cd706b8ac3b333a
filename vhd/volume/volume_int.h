/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * volume_int.h - between table.c, which reads partition tables, and volume.c, which looks what is in the partitions
 */
#ifndef VHDNFS_VOLUME_VOLUME_INT_H
#define VHDNFS_VOLUME_VOLUME_INT_H

#include "vhd/volume/volume.h"

/* Fill table, n, and number, start, len of each part; @list is empty before. What is damaged is left out, with a warning.
 * 0 (also when there is no table), -EIO, -ENOMEM. */
int vol_read_table(struct vhd *v, struct vol_list *list);

/* The same of an MBR alone, on a disk whose sectors have 4096 bytes, which it does not say. -EUCLEAN: it cannot be meant so. */
int vol_read_large_mbr(struct vhd *v, struct vol_list *list);

/* CRC-32 as in IEEE 802.3, which the GPT uses. */
uint32_t vol_crc32(const void *p, size_t len);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * format.h - VHD as it is on disk; all numbers big-endian
 *
 *     fixed:    [ data ........................................ ][footer]
 *     dynamic:  [footer][dynamic header][BAT] ([bitmap][block])* [footer]
 *
 * Source: Microsoft's Virtual Hard Disk Image Format Specification 1.0.
 */
#ifndef VHDNFS_IMAGE_FORMAT_H
#define VHDNFS_IMAGE_FORMAT_H

#include <assert.h>

#include "vhd/base/endian.h"

#define VHD_SECTOR 512u
#define VHD_EPOCH 946684800 /* 2000-01-01 in Unix seconds */
#define VHD_UNUSED 0xffffffffu
#define VHD_CREATOR "vhdn" /* ours */

struct vhd_footer {
	uint8_t cookie[8]; /* "conectix" */
	be32 features;
	be32 version;
	be64 data_offset; /* of the dynamic header; all ones for fixed */
	be32 timestamp;
	uint8_t creator[4];
	be32 creator_version;
	uint8_t creator_os[4];
	be64 original_size;
	be64 current_size;
	be16 cylinders;
	uint8_t heads, sectors;
	be32 type;
	be32 checksum; /* ones' complement of the sum of all bytes, this field taken as 0 */
	uint8_t uuid[16];
	uint8_t saved_state;
	uint8_t hidden; /* early blktap only */
	uint8_t reserved[426];
};
static_assert(sizeof(struct vhd_footer) == 512, "a footer is one sector");

struct vhd_locator {
	uint8_t code[4];
	be32 data_space, data_length, reserved;
	be64 data_offset;
};
static_assert(sizeof(struct vhd_locator) == 24, "parent locator entry");

struct vhd_dynamic {
	uint8_t cookie[8]; /* "cxsparse" */
	be64 data_offset;  /* all ones */
	be64 table_offset;
	be32 version;
	be32 max_table_entries;
	be32 block_size;
	be32 checksum;
	uint8_t parent_uuid[16];
	be32 parent_timestamp;
	be32 reserved1;
	uint8_t parent_name[512];
	struct vhd_locator locator[8];
	uint8_t reserved2[256];
};
static_assert(sizeof(struct vhd_dynamic) == 1024, "a dynamic header is two sectors");

/* XenServer's map of blocks whose bitmap is all ones, directly behind the BAT of images made by "tap". */
struct vhd_batmap {
	uint8_t cookie[8]; /* "tdbatmap" */
	be64 offset;
	be32 sectors;
	be32 version;
	be32 checksum;
	uint8_t rest[484];
};
static_assert(sizeof(struct vhd_batmap) == 512, "a batmap header is one sector");

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* modify.h - an image's own fields, and the size of its disk, changed in place */
#ifndef VHDNFS_IMAGE_MODIFY_H
#define VHDNFS_IMAGE_MODIFY_H

#include <stdbool.h>
#include <stdint.h>
#include <uuid/uuid.h>

#include "vhd/base/why.h"

struct vhd_fields {
	bool set_creator, set_uuid, set_geometry, set_time;
	char creator[4];
	uuid_t uuid;
	uint16_t cylinders;
	uint8_t heads, sectors;
	int64_t time; /* seconds since 1970 */
};

/**
 * vhd_set_fields() - change fields of the footer and its copy
 *
 * Nobody may have the image open. The copy is written first and synced, then the footer: one of them is good at every moment.
 * A new UUID makes children of the image look for another parent.
 *
 * Return: 0; -EINVAL a geometry that holds more than the disk; what opening and writing say.
 */
int vhd_set_fields(const char *path, const struct vhd_fields *f, struct why *why);

/**
 * vhd_resize() - make the disk larger or smaller
 * @size:  bytes
 * @exact: keep it, rounded up to 512; else, and where the creator means the geometry, up to what that can express
 *
 * Larger: a fixed image gets a hole, of a dynamic one blocks that lie where its table grows are moved to the end first. Smaller:
 * only when nothing but zeros is cut off. Of a disk that grows, entries past its old end are forgotten, and their space with them.
 * File systems inside do not follow by themselves.
 *
 * Return: 0; -ENOTSUP differencing images, images with XenServer's batmap; -EFBIG more blocks than vhd_open() takes; -EBUSY;
 *         -ENOTEMPTY there is data behind the new end;
 *         what opening and writing say. A crash leaves the old or the new size, and at worst unused space; of
 *         a fixed image, whose footer lies at its end, at worst one sector that is a footer instead of zeros, behind the smaller size.
 */
int vhd_resize(const char *path, uint64_t size, bool exact, struct why *why);

#endif

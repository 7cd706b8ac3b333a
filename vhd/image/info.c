/* SPDX-License-Identifier: BSD-3-Clause */
/* info.c - what an image says of itself, for people */
#include <string.h>

#include "vhd/image/vhd_int.h"

/* Four bytes as text: zeros at the end are padding. */
static void printable(char *to, const uint8_t *from)
{
	int n = 4;

	while (n && !from[n - 1])
		n--;
	for (int i = 0; i < n; i++)
		to[i] = from[i] >= 0x20 && from[i] < 0x7f ? (char)from[i] : '?';
	to[n] = '\0';
}

void vhd_info(const struct vhd *v, struct vhd_info *info)
{
	const struct vhd_footer *f = &v->footer;
	int64_t now = hio_size(v->io);

	*info = (struct vhd_info){
		.type = v->type,
		.creator_version = be32_get(f->creator_version),
		.size = v->size,
		.size_current = be64_get(f->current_size),
		.size_chs = vhd_chs_size(f),
		.size_from = v->size_from,
		.cylinders = be16_get(f->cylinders),
		.heads = f->heads,
		.sectors = f->sectors,
		.block_size = v->block_size,
		.blocks = v->blocks,
		.file_size = now < 0 ? v->file_size : (uint64_t)now,
		.created = (int64_t)be32_get(f->timestamp) + VHD_EPOCH,
		.tail_ok = v->tail_ok,
		.head_ok = v->head_ok,
		.saved_state = f->saved_state != 0,
		.batmap = v->batmap,
	};
	printable(info->creator, f->creator);
	printable(info->creator_os, f->creator_os);
	memcpy(info->uuid, f->uuid, sizeof info->uuid);
	for (uint32_t i = 0; i < v->blocks; i++)
		info->blocks_allocated += bat_get(v, i) != VHD_UNUSED;
	if (v->type == VHD_DIFF)
		vhd_parent_info(v, info);
}

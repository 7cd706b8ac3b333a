/* SPDX-License-Identifier: BSD-3-Clause */
/* footer.c - checksums, geometry, and which size a footer means */
#include <string.h>

#include "vhd/base/checked.h"
#include "vhd/image/vhd_int.h"

#define CHS_MAX_SECTORS (UINT64_C(65535) * 16 * 255)

uint32_t vhd_checksum(const void *p, size_t len, size_t field)
{
	const uint8_t *b = p;
	uint32_t sum = 0;

	for (size_t i = 0; i < len; i++)
		if (i < field || i >= field + 4)
			sum += b[i];
	return ~sum;
}

bool vhd_footer_ok(const struct vhd_footer *f)
{
	struct vhd_footer g = *f;
	uint32_t sum = be32_get(f->checksum);

	if (memcmp(f->cookie, "conectix", 8) != 0)
		return false;
	if (vhd_checksum(f, sizeof *f, offsetof(struct vhd_footer, checksum)) == sum)
		return true;
	/* Early blktap set `hidden` without computing the sum again. */
	g.hidden = 0;
	return memcmp(f->creator, "tap", 3) == 0 && f->hidden == 1 &&
	       vhd_checksum(&g, sizeof g, offsetof(struct vhd_footer, checksum)) == sum;
}

void vhd_footer_seal(struct vhd_footer *f)
{
	f->checksum = be32_of(vhd_checksum(f, sizeof *f, offsetof(struct vhd_footer, checksum)));
}

/* The specification's algorithm: the largest geometry that does not exceed the size. */
void vhd_geometry(uint64_t sectors, uint16_t *c, uint8_t *h, uint8_t *s)
{
	uint64_t total = min_u64(sectors, CHS_MAX_SECTORS), cth;
	unsigned heads, spt;

	if (total >= UINT64_C(65535) * 16 * 63) {
		spt = 255;
		heads = 16;
		cth = total / spt;
	} else {
		spt = 17;
		cth = total / spt;
		heads = (unsigned)((cth + 1023) / 1024);
		if (heads < 4)
			heads = 4;
		if (cth >= (uint64_t)heads * 1024 || heads > 16) {
			spt = 31;
			heads = 16;
			cth = total / spt;
		}
		if (cth >= (uint64_t)heads * 1024) {
			spt = 63;
			heads = 16;
			cth = total / spt;
		}
	}
	*c = (uint16_t)(cth / heads);
	*h = (uint8_t)heads;
	*s = (uint8_t)spt;
}

uint64_t vhd_round_geometry(uint64_t size, uint16_t *c, uint8_t *h, uint8_t *s)
{
	uint64_t sectors = (size + VHD_SECTOR - 1) / VHD_SECTOR;

	/* Geometry is rounded down: the first size at or above whose geometry holds the request is at most a cylinder away,
	 * 4,080 sectors. The largest geometry means "see current size", so there is no need to round there. */
	for (uint64_t try = sectors;; try++) {
		uint64_t chs;

		vhd_geometry(try, c, h, s);
		chs = (uint64_t)*c * *h * *s;
		if (chs == CHS_MAX_SECTORS)
			return sectors * VHD_SECTOR;
		if (chs >= sectors)
			return chs * VHD_SECTOR;
	}
}

uint64_t vhd_round_size(uint64_t size)
{
	uint16_t c;
	uint8_t h, s;

	return vhd_round_geometry(size, &c, &h, &s);
}

uint64_t vhd_chs_size(const struct vhd_footer *f)
{
	return (uint64_t)be16_get(f->cylinders) * f->heads * f->sectors * VHD_SECTOR;
}

bool vhd_goes_by_chs(const struct vhd_footer *f)
{
	return memcmp(f->creator, "vpc ", 4) == 0 || memcmp(f->creator, "qemu", 4) == 0;
}

/* Virtual PC and old QEMU mean the geometry; everybody else, and everything at the largest geometry, the current size. */
uint64_t vhd_served_size(const struct vhd_footer *f, enum vhd_size_from how, enum vhd_size_from *used)
{
	uint64_t chs = vhd_chs_size(f), current = be64_get(f->current_size);
	bool max = be16_get(f->cylinders) == 65535 && f->heads == 16 && f->sectors == 255;

	*used = VHD_SIZE_CURRENT;
	if (max || how == VHD_SIZE_CURRENT || chs == 0)
		return current;
	if (how == VHD_SIZE_CHS || vhd_goes_by_chs(f)) {
		*used = VHD_SIZE_CHS;
		return chs;
	}
	return current;
}

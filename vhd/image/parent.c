/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * parent.c - who a differencing image's parent is, as its header and its locators say it
 *
 * The header holds the parent's UUID and its name in UTF-16BE; up to eight locators point at paths elsewhere in the file, in
 * the encoding their code implies. The specification counts a locator's space in sectors; real files give bytes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/zero.h"
#include "vhd/image/vhd_int.h"

#define LOCATOR_MAX 65536u /* bytes of a path that are looked at */

enum encoding { ENC_NONE, ENC_UTF16LE, ENC_UTF8 };

static const struct {
	char code[5];
	enum encoding enc;
} codes[] = {
	{"W2ku", ENC_UTF16LE}, /* absolute Windows path */
	{"W2ru", ENC_UTF16LE}, /* relative Windows path */
	{"MacX", ENC_UTF8},    /* file:// URL */
	{"Mac ", ENC_NONE},    /* alias blob */
	{"Wi2k", ENC_UTF8},    /* bytes of some old code page */
	{"Wi2r", ENC_UTF8},
};

/* One code point as UTF-8. Room for 4 bytes is the caller's business. */
static size_t put_utf8(char *to, uint32_t c)
{
	if (c < 0x80) {
		to[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		to[0] = (char)(0xc0 | c >> 6);
		to[1] = (char)(0x80 | (c & 0x3f));
		return 2;
	}
	if (c < 0x10000) {
		to[0] = (char)(0xe0 | c >> 12);
		to[1] = (char)(0x80 | (c >> 6 & 0x3f));
		to[2] = (char)(0x80 | (c & 0x3f));
		return 3;
	}
	to[0] = (char)(0xf0 | c >> 18);
	to[1] = (char)(0x80 | (c >> 12 & 0x3f));
	to[2] = (char)(0x80 | (c >> 6 & 0x3f));
	to[3] = (char)(0x80 | (c & 0x3f));
	return 4;
}

/* Up to the first zero. False, and an empty string: not UTF-16 (odd length, half a pair), or too long. */
static bool from_utf16(char *to, size_t room, const uint8_t *from, size_t len, bool big)
{
	size_t n = 0;

	to[0] = '\0';
	if (len % 2)
		return false;
	for (size_t i = 0; i < len; i += 2) {
		uint32_t c = big ? (uint32_t)from[i] << 8 | from[i + 1] : (uint32_t)from[i + 1] << 8 | from[i];

		if (c == 0)
			break;
		if (c >= 0xd800 && c < 0xe000) {
			uint32_t low;

			i += 2;
			if (c >= 0xdc00 || i >= len)
				goto bad;
			low = big ? (uint32_t)from[i] << 8 | from[i + 1] : (uint32_t)from[i + 1] << 8 | from[i];
			if (low < 0xdc00 || low >= 0xe000)
				goto bad;
			c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
		}
		if (n + 5 > room)
			goto bad;
		n += put_utf8(to + n, c);
	}
	to[n] = '\0';
	return true;
bad:
	to[0] = '\0';
	return false;
}

static void decode(struct vhd_parent_path *p, const uint8_t *text, size_t len)
{
	enum encoding enc = ENC_NONE;
	size_t n = strnlen((const char *)text, len);

	for (size_t i = 0; i < ARRAY_LEN(codes); i++)
		if (memcmp(p->code, codes[i].code, 4) == 0)
			enc = codes[i].enc;
	if (enc == ENC_UTF16LE)
		from_utf16(p->path, sizeof p->path, text, len, false);
	else if (enc == ENC_UTF8 && n < sizeof p->path)
		memcpy(p->path, text, n);
}

/* The specification counts in sectors, programs in bytes. */
static uint64_t space_of(const struct vhd_locator *l)
{
	uint64_t space = be32_get(l->data_space);

	return space < VHD_SECTOR ? space * VHD_SECTOR : space;
}

uint64_t vhd_locator_end(const struct vhd_locator *l, uint64_t limit)
{
	uint64_t off = be64_get(l->data_offset);

	return round_up_u64(max_u64(off + be32_get(l->data_length), min_u64(off + space_of(l), limit)), VHD_SECTOR);
}

static int check_locator(struct vhd *v, unsigned i, struct vhd_parent_path *p, struct why *why)
{
	const struct vhd_locator *l = &v->header.locator[i];
	uint64_t off = be64_get(l->data_offset), space = space_of(l);
	uint32_t len = be32_get(l->data_length);
	AUTO(freep) uint8_t *text = NULL;
	int err;

	if (space % VHD_SECTOR || len > space || len > LOCATOR_MAX || off % VHD_SECTOR ||
	    !range_ok(off, len, v->file_size))
		return vhd_bad(
			v, why,
			"parent locator %u: %u bytes at byte %llu in a space of %llu: expected them inside the file", i,
			len, (unsigned long long)off, (unsigned long long)space);
	text = calloc(1, (size_t)len + 1);
	if (!text)
		return -ENOMEM;
	if ((err = hio_read(v->io, text, len, off)) < 0)
		return why_set(why, err, "%s: reading parent locator %u: %s", hio_path(v->io), i, strerror(-err));
	decode(p, text, len);
	return 0;
}

int vhd_check_locators(struct vhd *v, struct why *why)
{
	const struct vhd_dynamic *d = &v->header;

	v->parents = calloc(ARRAY_LEN(d->locator), sizeof *v->parents);
	if (!v->parents)
		return -ENOMEM;
	for (unsigned i = 0; i < ARRAY_LEN(d->locator); i++) {
		struct vhd_parent_path *p = &v->parents[v->nparents];
		int err;

		if (mem_is_zero(d->locator[i].code, sizeof d->locator[i].code))
			continue;
		for (int k = 0; k < 4; k++)
			p->code[k] = (char)d->locator[i].code[k];
		if ((err = check_locator(v, i, p, why)) < 0)
			return err;
		v->nparents++;
	}
	if (!v->nparents && mem_is_zero(d->parent_name, sizeof d->parent_name))
		return vhd_bad(v, why, "a differencing image, but its parent is not given");
	return 0;
}

void vhd_parent_info(const struct vhd *v, struct vhd_info *info)
{
	const struct vhd_dynamic *d = &v->header;
	uint32_t when = be32_get(d->parent_timestamp);

	memcpy(info->parent_uuid, d->parent_uuid, sizeof info->parent_uuid);
	info->parent_time = when ? (int64_t)when + VHD_EPOCH : 0;
	from_utf16(info->parent_name, sizeof info->parent_name, d->parent_name, sizeof d->parent_name, true);
	info->nparents = v->nparents;
	memcpy(info->parent, v->parents, v->nparents * sizeof *v->parents);
	for (unsigned i = 0; i < v->nparents; i++)
		for (int k = 0; k < 4; k++)
			if (info->parent[i].code[k] < 0x20 || info->parent[i].code[k] > 0x7e)
				info->parent[i].code[k] = '?';
}

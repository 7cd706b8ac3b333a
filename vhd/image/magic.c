/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * magic.c - what a file is that has no good VHD footer
 *
 * People hand in downloads that are still compressed and images of other programs. Taken for a raw disk, such a file would be
 * copied as it is, and the disk it describes would be lost from sight. So what is known is named, with the command that turns it
 * into a VHD or a raw disk. Without a cookie the remains of a footer are looked for, too: that file is a damaged VHD, not a disk.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/image/vhd_int.h"

/* What to do about each kind; %s: the file. */
#define BY_QEMU "\"qemu-img convert -O vpc -o subformat=dynamic,force_size %s NEW.vhd\" makes a VHD of it"
#define UNPACK(command) "unpack it first: " command " %s"
#define AS_DISK "it is no VHD"

#define MAGIC(at, text, name, advice)                                                                                  \
	{                                                                                                              \
		at, sizeof(text) - 1, text, name, advice                                                               \
	}

static const struct magic {
	int32_t at; /* bytes from the start; below 0: from the end */
	uint8_t len;
	char text[24];
	const char *name;
	const char *advice;
} magics[] = {
	MAGIC(0, "QFI\xfb", "a qcow2 image", BY_QEMU),
	MAGIC(0, "QED\0", "a QED image", BY_QEMU),
	MAGIC(0, "KDMV", "a VMDK image", BY_QEMU),
	MAGIC(0, "COWD", "a VMDK image", BY_QEMU),
	MAGIC(0, "# Disk DescriptorFile", "the description of a VMDK image", BY_QEMU),
	MAGIC(64, "\x7f\x10\xda\xbe", "a VDI image", BY_QEMU),
	MAGIC(0, "vhdxfile", "a VHDX image", BY_QEMU),
	MAGIC(0, "WithoutFreeSpace", "a Parallels image", BY_QEMU),
	MAGIC(0, "WithouFreSpacExt", "a Parallels image", BY_QEMU),
	MAGIC(0, "Bochs Virtual HD Image", "a Bochs image", BY_QEMU),
	MAGIC(-512, "koly", "an Apple disk image (DMG)", BY_QEMU),
	MAGIC(0, "\x3a\xff\x26\xed", "an Android sparse image", "\"simg2img %s NEW.raw\" makes a raw disk of it"),
	MAGIC(0, "\x1f\x8b\x08", "compressed by gzip", UNPACK("gunzip -k")),
	MAGIC(0, "\xfd\x37zXZ\0", "compressed by xz", UNPACK("xz -dk")),
	MAGIC(0, "\x28\xb5\x2f\xfd", "compressed by zstd", UNPACK("zstd -d")),
	MAGIC(0, "\x04\x22\x4d\x18", "compressed by lz4", UNPACK("lz4 -d")),
	MAGIC(4, "1AY&SY", "compressed by bzip2", UNPACK("bunzip2 -k")),
	MAGIC(0, "LZIP", "compressed by lzip", UNPACK("lzip -dk")),
	MAGIC(0, "\x89LZO\0\r\n\x1a\n", "compressed by lzop", UNPACK("lzop -d")),
	MAGIC(0, "PK\3\4", "a ZIP archive", UNPACK("unzip")),
	MAGIC(0, "7z\xbc\xaf\x27\x1c", "a 7-Zip archive", UNPACK("7z x")),
	MAGIC(0, "Rar!\x1a\x07", "a RAR archive", UNPACK("unrar x")),
	MAGIC(0, "MSCF\0\0\0\0", "a cabinet archive", UNPACK("cabextract")),
	MAGIC(257, "ustar", "a tar archive (also OVA)", UNPACK("tar -xf")),
	MAGIC(0, "MSWIM\0\0\0", "a Windows image archive (WIM)",
	      "\"wimapply %s\" unpacks it; it holds files, not a disk"),
	MAGIC(0, "EVF\x09\x0d\x0a\xff", "an EnCase image (E01)", "\"ewfexport %s\" makes a raw disk of it"),
	MAGIC(0, "EVF2\x0d\x0a\x81", "an EnCase image (Ex01)", "\"ewfexport %s\" makes a raw disk of it"),
	MAGIC(0, "AFF10\r\n", "an AFF image", "\"affconvert -r %s\" makes a raw disk of it"),
	MAGIC(0, "partclone-image", "a partclone image", "\"partclone.restore -s %s\" unpacks it"),
	MAGIC(32769, "CD001", "an ISO 9660 file system (a CD or DVD)", AS_DISK),
	MAGIC(0, "hsqs", "a squashfs file system", AS_DISK),
	MAGIC(0, "LUKS\xba\xbe", "an encrypted volume (LUKS)", AS_DISK),
};

#define HEAD_BYTES (36u << 10)
#define TAIL_BYTES 512u

struct ends {
	uint8_t head[HEAD_BYTES], tail[TAIL_BYTES];
	size_t nhead, ntail;
};

static int read_ends(struct hio *h, struct ends *e)
{
	int64_t size = hio_size(h);
	int err;

	if (size < 0)
		return (int)size;
	e->nhead = (size_t)min_u64((uint64_t)size, HEAD_BYTES);
	e->ntail = (size_t)min_u64((uint64_t)size, TAIL_BYTES);
	err = hio_read(h, e->head, e->nhead, 0);
	return err ? err : hio_read(h, e->tail, e->ntail, (uint64_t)size - e->ntail);
}

static const struct magic *find_magic(const struct ends *e)
{
	for (size_t i = 0; i < ARRAY_LEN(magics); i++) {
		const struct magic *m = &magics[i];
		const uint8_t *p = m->at < 0 ? e->tail : e->head + m->at;

		if (m->at < 0 ? e->ntail == TAIL_BYTES && m->at == -(int32_t)TAIL_BYTES
			      : (size_t)m->at + m->len <= e->nhead)
			if (memcmp(p, m->text, m->len) == 0)
				return m;
	}
	return NULL;
}

/* A footer but for its cookie: its sum fits the right one, or every field that has few values has one of them. */
static bool is_remains(const uint8_t *p)
{
	struct vhd_footer f;
	uint32_t type;

	memcpy(&f, p, sizeof f);
	memcpy(f.cookie, "conectix", sizeof f.cookie);
	if (vhd_footer_ok(&f))
		return true;
	type = be32_get(f.type);
	return be32_get(f.version) == 0x10000 && type >= VHD_FIXED && type <= VHD_DIFF &&
	       be64_get(f.current_size) % VHD_SECTOR == 0 && be64_get(f.current_size) - 1 < VHD_MAX_SIZE &&
	       be32_get(f.features) <= 3;
}

/* Where a file without a cookie has the remains of a footer; NULL: nowhere. */
static const char *find_remains(const struct ends *e)
{
	if (e->ntail == TAIL_BYTES && is_remains(e->tail))
		return "at its end";
	if (e->nhead >= sizeof(struct vhd_footer) && is_remains(e->head))
		return "at its start";
	return e->nhead >= VHD_SECTOR + 8 && memcmp(e->head + VHD_SECTOR, "cxsparse", 8) == 0
		       ? "before a dynamic header"
		       : NULL;
}

const char *vhd_other_format(struct hio *h)
{
	AUTO(freep) struct ends *e = calloc(1, sizeof *e);
	const struct magic *m;

	if (!e || read_ends(h, e) < 0)
		return NULL;
	m = find_magic(e);
	return m ? m->name : find_remains(e) ? "a damaged VHD image" : NULL;
}

int vhd_not_vhd(struct hio *h, struct why *why)
{
	AUTO(freep) struct ends *e = calloc(1, sizeof *e);
	const char *path = hio_path(h), *where;
	const struct magic *m;
	char advice[300];
	int err = e ? read_ends(h, e) : -ENOMEM;

	if (err)
		return why_set(why, err, "%s: %s", path, strerror(-err));
	m = find_magic(e);
	if (m) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral" /* a row of the table */
		snprintf(advice, sizeof advice, m->advice, path);
#pragma GCC diagnostic pop
		return why_set(why, -ENOTSUP, "%s: %s; only VHD is supported; %s", path, m->name, advice);
	}
	where = find_remains(e);
	if (where)
		return why_set(why, -EINVAL,
			       "%s: not a VHD image any more: the remains of a footer %s lack the word \"conectix\"",
			       path, where);
	return why_set(why, -EINVAL, "%s: not a VHD image: no VHD footer at its end or start", path);
}

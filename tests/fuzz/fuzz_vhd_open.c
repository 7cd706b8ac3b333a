/* SPDX-License-Identifier: BSD-3-Clause */
/* fuzz_vhd_open.c - any bytes as an image: refused or read, never trusted */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vhd/image/check.h"
#include "vhd/image/vhd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ignore(void *arg, const struct vhd_finding *f)
{
	(void)arg;
	(void)f;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct vhd_open_opts o = {.flags = VHD_OPEN_CACHED | VHD_OPEN_NOLOCK};
	int fd = memfd_create("image", MFD_CLOEXEC);
	struct vhd_check_result result;
	struct vhd *v = NULL;
	char path[32];
	uint8_t buf[4096];

	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	if (vhd_open(&v, path, &o, NULL) == 0) {
		uint64_t end = vhd_size(v);

		for (uint64_t at = 0; at + sizeof buf <= end && at < (1u << 20); at += sizeof buf)
			vhd_read(v, buf, sizeof buf, at);
		vhd_close(v);
	}
	vhd_check(path, ignore, NULL, &result, NULL);
	close(fd);
	return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * hio_model.h - disks that this machine does not have
 *
 * For measuring what hints bring: every transfer takes at least as long as it would on the modelled disk. All files opened after
 * hio_model_use() lie on one such disk. The bytes themselves go to and come from the real one, which should be faster.
 *
 *     hdd    one head: 8 ms to go elsewhere, a short way forward as long as the bytes it passes take; 150 MB/s; of what waits
 *            it takes what lies ahead of it first
 *     cloud  1 ms, 32 transfers at a time, 200 MB/s together
 *     nvme   80 us, 64 transfers at a time, 3 GB/s together
 */
#ifndef VHDNFS_IO_HIO_MODEL_H
#define VHDNFS_IO_HIO_MODEL_H

#include "vhd/io/hio.h"

/* -EINVAL: no disk is called that. Before the first file is opened; one disk for the life of the process. */
int hio_model_use(const char *name);
/* "hdd, cloud, nvme" */
const char *hio_model_names(void);
/* Is that one of them? */
bool hio_model_knows(const char *name);

struct hio_model_figures {
	const char *name; /* NULL: no disk is modelled */
	uint64_t transfers, bytes_read, bytes_written;
	uint64_t seeks;   /* of a head */
	uint64_t busy_us; /* the disk did something */
};
void hio_model_figures(struct hio_model_figures *f);

/* Around a batch of @n transfers of one file, as hio.c does it: the second waits until they would have been done. */
uint64_t hio_model_begin(const struct hio *h, const struct hio_req *req, unsigned n);
void hio_model_end(uint64_t until);
bool hio_is_modelled(void);
bool hio_model_has_head(void);

#endif

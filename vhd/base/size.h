/* SPDX-License-Identifier: BSD-3-Clause */
/* size.h - sizes as people write and read them: 512, 64K, 64KiB, 4G, 2.5 GiB */
#ifndef VHDNFS_BASE_SIZE_H
#define VHDNFS_BASE_SIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "4096", "64K", "64KiB", "64k", "1M", "2G", "1T": units are powers of 1024, no blank inside. 0 or -EINVAL, -ERANGE. */
int size_parse(const char *text, uint64_t *bytes);

/* Decimal digits and nothing else, from @min to @max. False: it is something else, and *out is what it was. */
bool number_parse(const char *text, uint64_t min, uint64_t max, uint64_t *out);

#define SIZE_TEXT 24
/* "64 GiB", "1.5 MiB", "512 B": one decimal where it says something. Returns @buf. */
const char *size_text(uint64_t bytes, char buf[SIZE_TEXT]);

#endif

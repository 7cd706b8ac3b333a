/* SPDX-License-Identifier: BSD-3-Clause */
/* image_fixture.h - what the tests of host files and images share: a folder of their own, damage, other people's tools */
#ifndef VHDNFS_TESTS_IMAGE_FIXTURE_H
#define VHDNFS_TESTS_IMAGE_FIXTURE_H

#include <check.h>
#include <stdbool.h>
#include <stdint.h>

#include "vhd/base/why.h"
#include "vhd/image/format.h"
#include "vhd/image/vhd.h"

#define MIB (UINT64_C(1) << 20)

extern char fx_dir[64], fx_path[96]; /* a fresh folder, and an image in it */
extern struct why fx_why;

void fx_setup(void);
void fx_teardown(void);

/* A new image at fx_path. */
void fx_make(enum vhd_type type, uint64_t size, uint32_t block);
/* Open it; the test fails when that fails. */
struct vhd *fx_open(unsigned flags);
void fx_close(struct vhd *v);
/* Opening fails with @err and a line that begins with the path and holds @says. The file stays as it is. */
void fx_refused(int err, const char *says);

/* Bytes of the file itself. */
void fx_poke(uint64_t off, const void *p, size_t n);
void fx_peek(uint64_t off, void *p, size_t n);
uint64_t fx_size(void);
uint64_t fx_sum(void); /* of all its bytes and its length */
/* Compute the checksums of the dynamic header at 512, of the footer's copy, of the tail again. */
void fx_seal_header(void);
void fx_seal_head(void);
void fx_seal_tail(void);

uint64_t fx_rnd(uint64_t below);

/* Another program: is it there; does the shell line succeed (its output is shown when not)? */
bool fx_have(const char *program);
int fx_run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* All tests of a suite in one fixture. */
int fx_main(Suite *s);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * stream.h - how a file is being read, and what that says about what comes next
 *
 * Pure arithmetic on a struct fs_stream: no I/O, no clock, no allocation. Any thread may call in for one stream at a time; numbers that
 * two of them leave behind mixed up make a worse guess, never a wrong one.
 *
 *     NORMAL      after two reads that continue each other the window opens, and grows with what was read, to 8 MiB
 *     SEQUENTIAL  the window is open from the first read on
 *     BACKWARDS   the same, towards the start of the file
 *     RANDOM      never
 *     NOREUSE     besides: what was read may leave memory first
 *
 * Hints are those of RFC 7862 §15.5 as bits. They hold for the whole file, and for all who read it: what the opener who spoke last
 * has said, until it closes the file; then what the one before it said who still has it open; then nothing (server/state/ keeps that).
 * Hints with a special stateid belong to no open, and hold until somebody else speaks or the last one closes.
 */
#ifndef VHDNFS_ADVISE_STREAM_H
#define VHDNFS_ADVISE_STREAM_H

#include <stdint.h>

#include "vhd/volume/fs.h"

/* Bits of IO_ADVISE4's bitmap that are handled here. */
enum {
	ADV_NORMAL = 1 << 0,
	ADV_SEQUENTIAL = 1 << 1,
	ADV_BACKWARDS = 1 << 2,
	ADV_RANDOM = 1 << 3,
	ADV_NOREUSE = 1 << 7,
};

/* What to do about a read. Lengths of 0: nothing. */
struct adv_step {
	uint64_t ahead_off, ahead_len; /* read this too */
	uint64_t drop_off, drop_len;   /* this is not needed any more */
};

/* [off, off + len) is being read; len > 0, off + len does not wrap. */
void adv_read(struct fs_stream *s, uint64_t off, uint32_t len, struct adv_step *step);

/* An opener's hints so far and its new ones: what it says from now on. *followed: which of @hints are in that, at most one of the four
 * patterns; of a contradiction none. */
uint32_t adv_merge(uint32_t mode, uint32_t hints, uint32_t *followed);
/* Hints were @followed just now: a pattern ends what was guessed so far. */
void adv_anew(struct fs_stream *s, uint32_t followed);
/* All of it, for hints that belong to nobody. What is followed. */
uint32_t adv_hint(struct fs_stream *s, uint32_t hints);

/* The file was closed. */
void adv_forget(struct fs_stream *s);

#endif

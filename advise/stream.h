/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * stream.h - how a file is being read, and what that says about what comes next
 *
 * Arithmetic on a struct fs_stream: no I/O, no clock, no allocation. Any thread may call at any time; one that finds another at work
 * on the same file goes on without a decision.
 *
 * A file has up to FS_RUNS runs: reads that continue each other upwards or downwards, out of order by four of their own lengths, or
 * follow each other in equal steps. So several readers of one file, or one that goes through several places of it, are told apart.
 *
 *     NORMAL      the second read of a run upwards, the fourth downwards, the fourth of equal steps opens a window, which grows with
 *                 what was read, and faster when the reader had to wait
 *     SEQUENTIAL  the window is open from the first read on; what was passed by 4 MiB may leave memory
 *     BACKWARDS   the same, towards the start of the file
 *     RANDOM      nothing, until a run is a MiB long: then somebody was wrong
 *     NOREUSE     besides: what was read may leave memory first
 *
 * Advice that turns out wrong costs little: each run that ended before what was read ahead for it was used halves the windows of the
 * next ones, down to none, and a run that lives up to it brings them back.
 *
 * Hints are those of RFC 7862 §15.5 as bits, and hold for the whole file. Each opener's reads are taken as that opener has said. For those
 * who said nothing holds what the opener who spoke last has said, until it closes the file; then what the one before it said who still
 * has it open; then nothing (server/state/ keeps that). Hints with a special stateid hold for what the same client
 * reads with one, until the session that sent them ends.
 */
#ifndef VHDNFS_ADVISE_STREAM_H
#define VHDNFS_ADVISE_STREAM_H

#include <stdbool.h>
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

struct adv_conf {
	uint32_t window_max; /* bytes ahead of a reader at most; 0: nothing is read ahead */
	bool detect;         /* without hints too */
};
/* As a cache of that many bytes allows: a sixteenth, 512 KiB … 16 MiB. */
uint32_t adv_window_max(uint64_t cache_bytes);

/* What to do about a read. Lengths of 0: nothing. */
struct adv_step {
	unsigned run;                  /* which one it belongs to; for adv_taken() and tags */
	uint64_t ahead_off, ahead_len; /* read this too, … */
	int64_t ahead_step;            /* … and again so many bytes further on, … */
	unsigned ahead_n;              /* … so many times in all */
	bool ahead_down;               /* the end of it first */
	uint64_t drop_off, drop_len;   /* this is not needed any more */
	uint32_t as_of;                /* which of the file's lengths it is about: fs_stream.sized */
	unsigned unwanted;             /* runs (bits) that have ended: what waits to be read for them is not needed */
};

/* [off, off + len) is being read by somebody whose hints are @said; len > 0, off + len does not wrap. @late: it was not in memory. */
void adv_read(struct fs_stream *s, const struct adv_conf *conf, uint32_t said, uint64_t off, uint32_t len, bool late,
	      struct adv_step *step);
/* Of what adv_read() asked to be read ahead only what lies before @end (downwards: behind it) will be. @at_end: since the file ends there,
 * or before; nothing behind it is asked for until it has another length. */
void adv_taken(struct fs_stream *s, const struct adv_step *step, uint64_t end, bool at_end);

/* An opener's hints so far and its new ones: what it says from now on. *followed: which of @hints are in that, at most one of the four
 * patterns; of a contradiction none. */
uint32_t adv_merge(uint32_t mode, uint32_t hints, uint32_t *followed);
/* Hints were @followed just now: a pattern ends what was guessed so far. */
void adv_anew(struct fs_stream *s, uint32_t followed);

/* What is under way, for those who want to show it. Waits for who is at work on it: for a moment. */
struct adv_seen {
	uint8_t distrust;
	uint64_t bytes, ahead, used, wasted;
	struct fs_run run[FS_RUNS];
};
void adv_look(struct fs_stream *s, struct adv_seen *out);

#endif

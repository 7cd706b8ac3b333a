/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * why.h - the one line a person reads when something cold failed
 *
 * Cold paths (open, create, check, configuration) return a negative errno and leave one line here: the file, the
 * place, what was found, what was expected. A NULL struct why * is accepted everywhere and costs nothing.
 */
#ifndef VHDNFS_BASE_WHY_H
#define VHDNFS_BASE_WHY_H

struct why {
	char line[512]; /* NUL-terminated, no control character; empty when nothing was said */
};

/**
 * why_set() - leave a line and pass the error on
 * @why: where the line goes; NULL is allowed
 * @err: the negative errno that the caller is about to return
 * @fmt: printf format; the line is cut, never overrun
 *
 * Return: @err, so that "return why_set(why, -EINVAL, …)" reads well.
 */
int why_set(struct why *why, int err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* The place of what was said already, or of what @err says when nothing was, in front of it: "PLACE: LINE". Otherwise as why_set(). */
int why_prefix(struct why *why, int err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif

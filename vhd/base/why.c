/* SPDX-License-Identifier: BSD-3-Clause */
/* why.c - see why.h */
#include "vhd/base/why.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "vhd/base/plain.h"

int why_set(struct why *why, int err, const char *fmt, ...)
{
	va_list ap;

	if (!why)
		return err;
	va_start(ap, fmt);
	vsnprintf(why->line, sizeof why->line, fmt, ap);
	va_end(ap);
	plain_text(why->line, strlen(why->line));
	return err;
}

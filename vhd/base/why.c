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

int why_prefix(struct why *why, int err, const char *fmt, ...)
{
	char said[sizeof why->line];
	size_t used;
	va_list ap;

	if (!why)
		return err;
	memcpy(said, why->line, sizeof said);
	va_start(ap, fmt);
	vsnprintf(why->line, sizeof why->line, fmt, ap);
	va_end(ap);
	used = strlen(why->line);
	snprintf(why->line + used, sizeof why->line - used, ": %s", said[0] ? said : strerror(-err));
	plain_text(why->line, strlen(why->line));
	return err;
}

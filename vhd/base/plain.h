/* SPDX-License-Identifier: BSD-3-Clause */
/* plain.h - text that an image or another machine says, on a person's terminal and in a log */
#ifndef VHDNFS_BASE_PLAIN_H
#define VHDNFS_BASE_PLAIN_H

#include <stddef.h>

/* Control characters of the @len bytes become '?', in place, UTF-8's second set as well: no line ends early, and no terminal obeys.
 * What is left may be no UTF-8. @return @text. */
static inline char *plain_text(char *text, size_t len)
{
	unsigned char *s = (unsigned char *)text;

	for (size_t i = 0; i < len; i++) {
		if (s[i] < 0x20 || s[i] == 0x7f)
			s[i] = '?';
		else if (s[i] == 0xc2 && i + 1 < len && s[i + 1] >= 0x80 && s[i + 1] < 0xa0)
			s[i] = s[i + 1] = '?';
	}
	return text;
}

#endif

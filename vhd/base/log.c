/* SPDX-License-Identifier: BSD-3-Clause */
/* log.c - see log.h */
#include "vhd/base/log.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vhd/base/plain.h"

enum log_level log_level = LOG_LVL_INFO;

static const char *log_program = "vhdnfs";
static bool log_journal;

/* A file that is opened while one of the first three descriptors is closed gets its number, and then what is said. */
static void fill_standard_fds(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

void log_open(const char *program)
{
	fill_standard_fds();
	log_program = program;
	log_journal = getenv("JOURNAL_STREAM") && !isatty(STDERR_FILENO);
}

void log_line(enum log_level lvl, const char *fmt, ...)
{
	static const char *const prio[] = {"<3>", "<4>", "<6>", "<7>"};
	char buf[1024];
	va_list ap;
	int n;

	n = snprintf(buf, sizeof buf, "%s%s: ", log_journal ? prio[lvl] : "", log_program);
	va_start(ap, fmt);
	vsnprintf(buf + n, sizeof buf - (size_t)n - 1, fmt, ap);
	va_end(ap);
	plain_text(buf, strlen(buf));
	fprintf(stderr, "%s\n", buf); /* one call, so that lines of two threads do not mix */
}

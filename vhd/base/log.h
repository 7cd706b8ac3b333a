/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * log.h - one line, one event
 *
 * Levels mean who should act: error (data or service lost, act), warn (odd, look), info (life cycle), debug (free when
 * off). Lines go to standard error as "PROGRAM: text", or with systemd's priority prefix when standard error is the
 * journal. What happens per request is a counter, never a log line.
 */
#ifndef VHDNFS_BASE_LOG_H
#define VHDNFS_BASE_LOG_H

enum log_level { LOG_LVL_ERROR, LOG_LVL_WARN, LOG_LVL_INFO, LOG_LVL_DEBUG };

extern enum log_level log_level; /* the most verbose level that is printed; set once at start */

/* The name before each line; kept by pointer. Also decides about the journal's priority prefix, and makes sure that standard input,
 * output and error are open, if only to /dev/null: before any other file is opened. */
void log_open(const char *program);

void log_line(enum log_level lvl, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_at(lvl, ...)                                                                                               \
	do {                                                                                                           \
		if ((lvl) <= log_level)                                                                                \
			log_line((lvl), __VA_ARGS__);                                                                  \
	} while (0)
#define log_error(...) log_at(LOG_LVL_ERROR, __VA_ARGS__)
#define log_warn(...) log_at(LOG_LVL_WARN, __VA_ARGS__)
#define log_info(...) log_at(LOG_LVL_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_LVL_DEBUG, __VA_ARGS__)

#endif

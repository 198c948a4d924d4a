/* SPDX-License-Identifier: Apache-2.0 */
/* One line per event, to standard error or to syslog; names in it are quoted. */
#ifndef IMGFS_LOG_H
#define IMGFS_LOG_H

#include <stdbool.h>
#include <stddef.h>

enum log_level {
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARNING,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG,
};

/* Chooses where lines go. Before the first call they go to standard error, debug lines nowhere. */
void log_open(bool to_syslog, bool debug);

__attribute__((format(printf, 2, 3))) void log_line(enum log_level level, const char *fmt, ...);

#define log_error(...)   log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)    log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* The same for what one damaged image can cause without end: a few lines a second at most. */
__attribute__((format(printf, 1, 2))) void log_limited(const char *fmt, ...);

struct quoted {
	char text[256];
};

/*
 * A name as it may stand in a log line: in single quotes, quotes, backslashes, control bytes and
 * bytes that are not ASCII as \xNN, cut with "..." where it is too long. Use as quote(name).text.
 */
struct quoted quote(const char *name);
struct quoted quote_bytes(const void *bytes, size_t length);

#endif

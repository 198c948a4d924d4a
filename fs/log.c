/* SPDX-License-Identifier: Apache-2.0 */
#include "imgfs/log.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <time.h>

#include "imgfs/cleanup.h"

#define LIMITED_LINES_PER_SECOND 5

static struct {
	bool to_syslog;
	bool debug;
} sink;

void log_open(bool to_syslog, bool debug)
{
	sink.to_syslog = to_syslog;
	sink.debug = debug;
	if (to_syslog)
		openlog("imgfs", LOG_PID, LOG_DAEMON);
}

static void emit(enum log_level level, const char *fmt, va_list args)
{
	static const int priority[] = { LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG };
	char line[1024];

	if (level == LOG_LEVEL_DEBUG && !sink.debug)
		return;
	vsnprintf(line, sizeof(line), fmt, args);
	if (sink.to_syslog)
		syslog(priority[level], "%s", line);
	else
		fprintf(stderr, "imgfs: %s\n", line);
}

void log_line(enum log_level level, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	emit(level, fmt, args);
	va_end(args);
}

/* May another line go out? Counts those that may not; *dropped are told of with the next one. */
static bool within_limit(unsigned *dropped)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static time_t second;
	static unsigned lines, silent;
	struct timespec now;
	LOCKED(&lock);

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (now.tv_sec != second) {
		second = now.tv_sec;
		lines = 0;
	}
	if (++lines > LIMITED_LINES_PER_SECOND) {
		silent++;
		return false;
	}
	*dropped = silent;
	silent = 0;
	return true;
}

void log_limited(const char *fmt, ...)
{
	unsigned dropped;
	va_list args;

	if (!within_limit(&dropped))
		return;
	if (dropped > 0)
		log_warning("%u lines like the next one were left out", dropped);
	va_start(args, fmt);
	emit(LOG_LEVEL_WARNING, fmt, args);
	va_end(args);
}

static bool is_plain(uint8_t c)
{
	return c >= 0x20 && c < 0x7f && c != '\'' && c != '\\';
}

struct quoted quote_bytes(const void *bytes, size_t length)
{
	static const char hex[] = "0123456789abcdef";
	const uint8_t *in = bytes;
	struct quoted out;
	size_t used = 0;

	out.text[used++] = '\'';
	for (size_t i = 0; i < length; i++) {
		/* Room for one \xNN, the dots, the closing quote and the NUL. */
		if (used + 4 + 3 + 2 > sizeof(out.text)) {
			memcpy(out.text + used, "...", 3);
			used += 3;
			break;
		}
		if (is_plain(in[i])) {
			out.text[used++] = (char)in[i];
			continue;
		}
		out.text[used++] = '\\';
		out.text[used++] = 'x';
		out.text[used++] = hex[in[i] >> 4];
		out.text[used++] = hex[in[i] & 15];
	}
	out.text[used++] = '\'';
	out.text[used] = '\0';
	return out;
}

struct quoted quote(const char *name)
{
	return quote_bytes(name, strlen(name));
}

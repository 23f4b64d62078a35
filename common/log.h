/*
 * The process log: one line an event, `2026-11-22T20:15:00.123Z level subsystem: text`.
 *
 * An error is logged once, where its propagation stops. Lines go to stderr until log_to_file.
 * A file is rotated at LOG_FILE_BYTES, LOG_FILE_KEEP old ones are kept. Thread-safe; control
 * characters of the text (paths are arbitrary bytes) are escaped.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"

#define LOG_FILE_BYTES (16u << 20)
#define LOG_FILE_KEEP 4

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

void log_set_level(enum log_level level);
/* "error", "warn", "info", "debug"; -EINVAL for anything else. */
int log_level_parse(const char *text, enum log_level *ret_level);

/* Sends all further lines to `path` (created 0600, appended, rotated). */
int log_to_file(const char *path, struct error *err);

bool log_enabled(enum log_level level);
void log_write(enum log_level level, const char *subsystem, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* A source file that logs defines LOG_SUBSYSTEM before it includes this header. */
#define log_error(...) log_write(LOG_ERROR, LOG_SUBSYSTEM, __VA_ARGS__)
#define log_warn(...) log_write(LOG_WARN, LOG_SUBSYSTEM, __VA_ARGS__)
#define log_info(...) log_write(LOG_INFO, LOG_SUBSYSTEM, __VA_ARGS__)
#define log_debug(...)                                                    \
	do {                                                              \
		if (log_enabled(LOG_DEBUG))                               \
			log_write(LOG_DEBUG, LOG_SUBSYSTEM, __VA_ARGS__); \
	} while (0)

/*
 * The builder's temporary files. A crash leaves at most a `.manifest-XXXXXX`; whoever builds next
 * in that directory removes it, and knows by the lock on it whether its builder still lives.
 */
#pragma once

#include <stdio.h>

#include "common/error.h"

#define MANIFEST_TEMP_PATH_BYTES 4096

/* Opens a locked, empty file (0600) for reading and writing. */
int manifest_temp_make(const char *dir, char ret_path[MANIFEST_TEMP_PATH_BYTES], struct error *err);
/* A file without a name, buffered in `buffer`, which must outlive it. */
int manifest_temp_stream(const char *dir, char *buffer, size_t buffer_bytes, FILE **ret);
/* Removes what builders that died left behind. */
void manifest_temp_sweep(const char *dir);

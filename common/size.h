/*
 * Sizes and rates as people write them. Decimal suffixes are powers of 1000 (500G = 500GB = 10^9 *
 * 500), those with an i are powers of 1024 (1.5TiB). Rates: bytes ("800MB/s", "800MB") or bits
 * ("10Gbps").
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/* Both refuse signs, empty text, unknown suffixes and what does not fit 63 bits (-EINVAL, -ERANGE). */
int size_parse(const char *text, uint64_t *ret_bytes, struct error *err);
int rate_parse(const char *text, uint64_t *ret_bytes_per_s, struct error *err);

#define SIZE_TEXT_BYTES 24
/* "1.50 GB": three digits, decimal; returns `text`. */
char *size_format(uint64_t bytes, char text[SIZE_TEXT_BYTES]);

#define RATE_TEXT_BYTES (SIZE_TEXT_BYTES + 2)
/* "1.50 GB/s"; returns `text`. */
char *rate_format(double bytes_per_s, char text[RATE_TEXT_BYTES]);

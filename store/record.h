/*
 * The records of the index, as bytes for a sorted key-value store. Keys sort so that one pass sees
 * what a record refers to before the record: the store, datasets, files, blocks. Every value ends
 * with an XXH3 of key and value; a record that does not match is as good as absent.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "manifest/block.h"

enum record_kind {
	RECORD_STORE = 1,
	RECORD_DATASET = 2,
	RECORD_FILE = 3,
	RECORD_BLOCK = 4,
	RECORD_SCRUB = 5,
};

struct record {
	enum record_kind kind;
	union {
		struct {
			uint64_t id;
			uint32_t next_file; /* numbers below it were used */
		} store;
		struct {
			uint64_t id, grant_bytes, threshold;
		} dataset;
		struct {
			uint32_t number;
			uint32_t kind; /* enum file_kind */
			uint64_t dataset_id;
			struct object_id object; /* of a sparse file */
			uint64_t object_bytes;
		} file;
		struct {
			struct block_id id;
			uint32_t file, page, len;
			uint32_t flags; /* directory.h */
		} block;
		struct {
			uint64_t at; /* scrub.h */
		} scrub;
	};
};

#define RECORD_KEY_BYTES 17
#define RECORD_VALUE_BYTES 56

struct record_bytes {
	uint8_t key[RECORD_KEY_BYTES];
	uint8_t key_len;
	uint8_t value_len; /* 0: remove */
	uint8_t value[RECORD_VALUE_BYTES];
};

void record_encode(const struct record *r, bool remove, struct record_bytes *ret);
/* 0, or -EBADMSG for bytes that no record_encode wrote. */
int record_decode(
	const void *key, size_t key_len, const void *value, size_t value_len, struct record *ret);

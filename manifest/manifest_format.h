/*
 * The bytes of a manifest file, version 1. All integers are little endian.
 *
 *	header			MANIFEST_HEADER_BYTES
 *	entries			MANIFEST_ENTRY_BYTES each, never across a chunk's border
 *	strings			for each entry: name, then validator (file) or target (symlink),
 *				then NUL
 *	zeros			up to a multiple of 8; what stands before here is the body
 *	chunk digests		XXH3-64 of each MANIFEST_CHUNK_BYTES of the body, the last one
 *				shorter
 *	digest			XXH3-128, canonical, of the header and the chunk digests
 */
#pragma once

#include <assert.h>
#include <stdint.h>

#define MANIFEST_MAGIC "GRANMAN\n"
#define MANIFEST_FORMAT_VERSION 1
#define MANIFEST_HEADER_BYTES 128
#define MANIFEST_ENTRY_BYTES 64
#define MANIFEST_CHUNK_BYTES ((uint64_t)64 << 10)
#define MANIFEST_DIGEST_BYTES 16
#define MANIFEST_SUFFIX ".manifest"

#define MANIFEST_ENTRIES_MAX ((uint64_t)UINT32_MAX - 1)
#define MANIFEST_STRINGS_MAX_BYTES ((uint64_t)1 << 40)
/* Far above any object there is, and low enough that walking the blocks of one takes seconds. */
#define MANIFEST_FILE_MAX_BYTES ((uint64_t)1 << 50)
#define MANIFEST_NAME_MAX_BYTES 255
#define MANIFEST_PATH_MAX_BYTES 4095
#define MANIFEST_DEPTH_MAX 255
#define MANIFEST_TAIL_MAX_BYTES 4095 /* of a validator or a target */

struct manifest_disk_header {
	char magic[8];
	uint32_t version;
	uint32_t header_bytes;
	uint32_t entry_bytes;
	uint32_t chunk_bytes;
	uint64_t block_bytes; /* that block counts and thresholds stand for */
	uint64_t dataset_id;
	uint64_t snapshot;
	uint64_t created_s;
	uint64_t entries, files, dirs, symlinks;
	uint64_t bytes;
	uint64_t blocks;
	uint64_t strings_bytes;
	uint64_t reserved[2];
};

/* A directory's children; written when all of them are known. */
struct manifest_disk_children {
	uint32_t first_child, children, subdirs, reserved;
};

struct manifest_disk_entry {
	uint64_t strings_at; /* from the start of the strings */
	uint64_t size;	     /* of a file */
	uint64_t mtime_ns;
	union {
		struct {
			uint64_t object_hi, object_lo;
		}; /* file */
		struct manifest_disk_children below; /* directory */
	};
	uint32_t parent;
	uint32_t uid, gid;
	uint16_t mode;
	uint16_t tail_len; /* of validator or target */
	uint8_t type;	   /* enum manifest_entry_type */
	uint8_t name_len;
	uint8_t reserved[6];
};

static_assert(sizeof(struct manifest_disk_header) == MANIFEST_HEADER_BYTES, "header");
static_assert(sizeof(struct manifest_disk_entry) == MANIFEST_ENTRY_BYTES, "entry");
static_assert(MANIFEST_CHUNK_BYTES % MANIFEST_ENTRY_BYTES == 0 &&
		      MANIFEST_HEADER_BYTES % MANIFEST_ENTRY_BYTES == 0,
	"entries never cross a chunk's border");

/* What namespace_db.c shares with namespace_scratch.c, and with nobody else. */
#pragma once

#include <rocksdb/c.h>

#include "common/error.h"
#include "master/namespace_db.h"

#define NAMESPACE_SCRATCH_PREFIX "scratch-"

struct namespace_db {
	char *dir;
	rocksdb_t *db;
	rocksdb_options_t *options;
	rocksdb_column_family_handle_t *records; /* the default column family */
	rocksdb_readoptions_t *read;
	rocksdb_writeoptions_t *write_synced;
	rocksdb_writeoptions_t *write_lazy;
};

/* Frees RocksDB's text and makes -EIO of it, or returns 0 when there is none. */
int namespace_failed(struct namespace_db *db, char *text, const char *what, struct error *err);

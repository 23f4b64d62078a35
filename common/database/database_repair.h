/*
 * Repair of a RocksDB database. RocksDB repairs in place and begins by putting an empty catalogue
 * there, so a repair that is cut short would leave an empty database behind. Here a copy is repaired
 * and takes the place of the original at once, which stays as DIR.damaged.
 *
 * Threading: one at a time for a directory; the database's lock is taken.
 */
#pragma once

#include "common/error.h"

/* -EIO or -errno: nothing has changed. Room for another copy of the database's logs is needed; its
 * tables are shared. */
int database_repair_in_copy(const char *dir, struct error *err);

/* Removes what a repair that was ended has left. */
void database_repair_clean(const char *dir);

/* The directory with all that is in it; 0 also when it is not there. */
int database_remove(const char *dir);

/*
 * RocksDB at files that may be damaged. Debian's is built with assertions and parses some blocks of
 * a table before it verifies them (the properties, in 7.8.3), so one flipped bit can end the
 * process that opens it. Here another process goes first: this program's own executable, started to
 * open or to repair the database, which may die of it.
 *
 * A program whose main does not call database_trial_main has no such process: nothing is tried
 * then, and repairs are made by the program itself.
 *
 * Threading: any thread, once main has called database_trial_main.
 */
#pragma once

#include "common/error.h"

/* The first thing in main: a process that was started for a trial does it, and exits. */
void database_trial_main(int argc, char **argv);

/* Opens the database in `dir` for reading, with all of its tables. 0: RocksDB can be let at it; it
 * may still refuse it, with words. -EBADMSG: RocksDB dies of it. */
int database_try(const char *dir, struct error *err);

/* Repairs it (database_repair.h). -EBADMSG: RocksDB dies of that, too; other errors: of the repair.
 * None of them changes anything. */
int database_repair(const char *dir, struct error *err);

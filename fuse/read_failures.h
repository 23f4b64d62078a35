/*
 * Which reads failed a moment ago, after a long wait.
 *
 * The kernel asks again, page by page, for what a failed read-ahead should have brought, and the
 * readers of one page wait for each other's requests. Each of these would wait for the whole time
 * limit anew, one after the other: 24 readers of a file whose origin is silent got their EIO after
 * up to 24 limits. What failed slowly therefore fails at once for READ_FAILURES_MS.
 *
 * Bounded: a newer failure may take the place of an older one. Threading: any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/sync.h"

#define READ_FAILURES_MS 1000
#define READ_FAILURES_SLOW_MS 500 /* what fails faster may be tried each time */
#define READ_FAILURES_SLOTS 256

struct read_failures {
	_Atomic int64_t until_ms; /* none is remembered after it: spares the lock */
	struct mutex mu;
	/* guarded by mu */
	struct read_failure {
		uint64_t ino, block;
		int64_t until_ms;
	} slots[READ_FAILURES_SLOTS];
};

void read_failures_init(struct read_failures *f);
void read_failures_deinit(struct read_failures *f);
/* A read at `offset` failed that began at began_ms. */
void read_failures_note(
	struct read_failures *f, uint64_t ino, uint64_t offset, int64_t began_ms, int64_t now_ms);
bool read_failures_recent(struct read_failures *f, uint64_t ino, uint64_t offset, int64_t now_ms);

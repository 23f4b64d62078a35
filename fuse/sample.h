/*
 * A sample of the dataset that the kernel's page cache does not keep, so that a job is seen to read
 * where the kernel answers nearly all of its reads.
 *
 * In the sample are blocks (a file of up to BLOCK_BYTES is one) whose hash is below a threshold,
 * whatever is pinned. Those that were read are dropped from the page cache SAMPLE_DROP_MS after the
 * last request for them, so that whoever reads them again has to ask. What was read of them, by their
 * share of the dataset's bytes, is what was read of all of it; sample_pace.h makes a rate of that.
 *
 * Invariants
 *  1. Only the page cache loses something, and never a right byte: content does not change, and who
 *     has a dropped page mapped asks for it again. What is passed through has no page to lose.
 *  2. A block that is asked for twice within SAMPLE_DROP_MS was read once. So of a dataset that is read
 *     again within seconds too little is seen.
 *  3. Who reads fast has a smaller sample: after a window with more than SAMPLE_ENOUGH reads of it, half of
 *     it, and so on, as long as SAMPLE_BLOCKS_LEAST blocks are left. So it costs a reader of 40,000 small
 *     files a second what 40 of them cost. It never grows again: what left it is in the page cache.
 *  4. At most SAMPLE_QUEUE_MAX blocks wait to be dropped. When more would have to, what is dropped is
 *     not all that was read, and no estimate is told from then on.
 *  5. The kernel lets a drop wait for a read of the same pages, so a thread of its own drops, and stop
 *     comes while the session still answers.
 *
 * Calling sequence: init; start, note and took (any thread), stat (one thread), stop; deinit.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/metrics.h"
#include "common/sync.h"
#include "fuse/readers.h"
#include "fuse/sample_pace.h"
#include "manifest/manifest.h"

#define SAMPLE_PPM_DEFAULT 10000u
#define SAMPLE_PPM_MAX 1000000u
#define SAMPLE_DROP_MS 2000
#define SAMPLE_ENOUGH 400 /* reads of it in a window: 5 % error */
#define SAMPLE_LEVELS 7	  /* halvings, and none */
#define SAMPLE_BLOCKS_LEAST 64
#define SAMPLE_QUEUE_MAX 4096u /* 128 KiB */
/* Its share is counted for datasets up to this size; beyond it is the threshold's. */
#define SAMPLE_COUNTED_ENTRIES ((uint64_t)1 << 18)
#define SAMPLE_COUNTED_BLOCKS ((uint64_t)1 << 20)

struct fs;
struct fs_node;
struct fuse_session;

struct sample {
	struct fs *fs;
	/* constant after init */
	uint32_t ppm; /* at first */
	struct metric_series *bytes_series;
	/* constant after start */
	struct fuse_session *se;
	pthread_t thread;
	bool started;

	atomic_bool on;
	_Atomic uint64_t threshold; /* 0: nothing is in the sample */
	struct readers readers;
	/* of the thread that calls stat */
	uint64_t passed_opens;

	struct mutex mu;
	struct cond work;
	/* guarded by mu */
	bool stopping, counted, lost;
	unsigned level; /* how often it was halved */
	/* At each level, once counted, of the snapshot in `slot`. */
	struct sample_size {
		double share; /* of the dataset's bytes */
		uint64_t blocks;
	} sizes[SAMPLE_LEVELS];
	uint32_t slot;
	struct sample_reading seen;
	struct sample_pace pace;
	struct sample_unit {
		uint64_t ino, block;
		int64_t due_ms;
		bool again; /* asked for again while it waited */
	} *queue;	    /* a ring */
	unsigned head, queued;
};

/* ppm: of the dataset, 0 for none. job: of the metric. */
void sample_init(
	struct sample *s, struct fs *fs, uint32_t ppm, const char *dataset, const char *job);
void sample_deinit(struct sample *s); /* after stop */
/* Without a sample it does nothing. se: NULL in tests, then nothing is dropped. */
int sample_start(struct sample *s, struct fuse_session *se, struct error *err);
void sample_stop(struct sample *s);

/* Whether the first block of the file is in the sample. */
bool sample_has_file(struct sample *s, const struct manifest_entry *file);
/* A read of the node was asked for. */
void sample_note(struct sample *s, const struct fs_node *node, uint64_t offset, uint32_t len);
/* A read of a thread was answered. */
static inline void sample_took(struct sample *s, int32_t thread, int64_t took_ns, int64_t now_ms)
{
	if (atomic_load_explicit(&s->on, memory_order_relaxed))
		readers_note(&s->readers, thread, took_ns, now_ms);
}

struct sample_stat {
	struct sample_estimate estimate;
	uint64_t consumed_bytes; /* cumulative since start, whoever answered; an estimate */
};
/* Once a second or so. */
void sample_stat(struct sample *s, struct sample_stat *ret);

/*
 * The queue before the origins: who may get the next bytes, and when. Jobs share the worker's part
 * of the origins' bandwidth in proportion to what each was granted (fair_queue.h), and all together
 * stay below the limit (origin/window.h), those of a single origin that has a limit below that one as
 * well. An origin at its limit holds up nobody who gets from another. What a job does not use goes to
 * the others. Work that a reader waits for goes before all other work. Who shares what, and by what
 * weights: origin_jobs.h.
 *
 * A get is made in pieces: its maker asks for a turn, gets as many bytes as the turn has, says that
 * it is done, and asks again. While it waits it has no thread. Without a limit every turn is granted
 * at once, whole.
 *
 * Calling sequence: new, start; apply at each new share; for each get open, then ask and done by
 * turns, then close; stop and free after the last close.
 *
 * Threading: any thread, one at a time for one turn (but for join, abandon and withdraw, whose
 * callers see to it that the turn is open). `granted` is called with the queue's lock held: it must
 * not wait, nor call the queue.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "worker/dataset.h"
#include "worker/fair_queue.h"
#include "worker/origin_share.h"
#include "origin/window.h"

#define ORIGIN_PIECE_OF_JOB_S 0.25

struct origin_queue;
struct origin_flow;
struct limited_origin;

struct origin_turn {
	/* set by the owner before open */
	void (*granted)(struct origin_turn *t);
	const char *url; /* of the origin, until close; NULL: one without a limit of its own */
	/* Not to be cut into pieces: its origin sends all from the beginning whatever is asked. */
	bool undivided;

	uint32_t bytes; /* of a granted turn; 0 of one that was withdrawn */

	/* guarded by the queue's lock */
	struct fair_turn fair;
	struct origin_pass pass, own_pass; /* of all origins, and of its own limit */
	struct limited_origin *begun_at;   /* while it passes; NULL: no limit of its own */
	struct origin_flow *flow;
	unsigned generation; /* of the limits that the flow is by */
	uint32_t want_bytes;
	bool passing;
	/* Of all its waits, but the sum minus when the last one began while it lasts. */
	_Atomic int64_t waited_us;
	int64_t got_us;		   /* what the last piece took */
	_Atomic int64_t pieces_us; /* what those before it took */
};

/* `memory_bytes`: what gets have to share. Under a limit those that have begun take three quarters of
 * it at most, and a quarter those of one job while another's wait. NULL when memory is out. */
struct origin_queue *origin_queue_new(uint64_t memory_bytes);
int origin_queue_start(struct origin_queue *q, struct error *err);
void origin_queue_stop(struct origin_queue *q); /* joins; NULL, and one never started, are fine */
void origin_queue_free(struct origin_queue *q); /* NULL is fine */

/* The part of the share that is this worker's. It is a lease: when it is not renewed a base of it is
 * left, and in the end next to nothing (ORIGIN_RATE_MIN_BYTES_PER_S), since by then the master has
 * given the rest to others. Times are those of the monotonic clock. */
struct origin_lease {
	double part, base_part; /* 0 to 1 */
	int64_t until_ns, base_until_ns;
};
/* From now on. Before the first one it is all of the share, for ever. */
void origin_queue_lease(struct origin_queue *q, const struct origin_lease *lease);
/* What is in force now; 0 and 0 before the first one. */
void origin_queue_part(struct origin_queue *q, double *ret_part, double *ret_base_part);

/* From now on; takes the share. -ENOMEM: the one before stays in force. */
int origin_queue_apply(struct origin_queue *q, struct origin_share *share, struct error *err);

void origin_queue_open(
	struct origin_queue *q, struct origin_turn *t, const char *job, uint32_t hold_bytes);
/* True: t->bytes, at most want_bytes, may be got now. False: `granted` will be called. */
bool origin_queue_ask(
	struct origin_queue *q, struct origin_turn *t, uint32_t want_bytes, bool urgent);
/* A reader of `job` waits for it, too. From now on it is a get of the one of the two jobs that has
 * more: nobody waits for what he wants at the pace of another who has less. */
void origin_queue_join(struct origin_queue *q, struct origin_turn *t, const char *job);
/* Nobody waits for it any more. */
void origin_queue_abandon(struct origin_queue *q, struct origin_turn *t);
/* One that waits is granted at once, with no bytes. */
void origin_queue_withdraw(struct origin_queue *q, struct origin_turn *t);
/* After each granted turn: so many bytes came. */
void origin_queue_done(struct origin_queue *q, struct origin_turn *t, uint64_t bytes);
void origin_queue_close(struct origin_queue *q, struct origin_turn *t);

/* What the limit has cost it so far: its waits for turns, this one included, and the gets of all
 * pieces but the last, since one whole get need not be longer than one piece's. Any thread, no
 * lock. */
int64_t origin_turn_waited_us(const struct origin_turn *t);

/* ---- what is told of it ----------------------------------------------------------------------- */

struct origin_job_stat {
	char name[DATASET_JOB_BYTES];	  /* "" of reads of no job */
	double granted_bytes_per_s;	  /* 0: a part of what others share */
	uint64_t origin_bytes, waited_us; /* since the worker started */
	uint64_t queued_bytes;		  /* now */
};
/* Copies all that were used, the last used first; *ret is freed by the caller. -ENOMEM. */
int origin_queue_jobs(struct origin_queue *q, struct origin_job_stat **ret, size_t *ret_count);
/* The master knows these numbers: jobs that are not used any more may be forgotten. */
void origin_queue_reported(
	struct origin_queue *q, const struct origin_job_stat *jobs, size_t count);
double origin_queue_limit(struct origin_queue *q); /* bytes/s; 0: none */

struct origin_stat {
	char prefix[ORIGIN_PREFIX_BYTES];
	double limit_bytes_per_s; /* 0: no longer */
	uint64_t origin_bytes;	  /* while it had one */
	uint64_t queued_bytes;	  /* now */
};
/* The origins that have limits of their own; *ret is freed by the caller. -ENOMEM. */
int origin_queue_origins(struct origin_queue *q, struct origin_stat **ret, size_t *ret_count);

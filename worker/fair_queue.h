/*
 * Start-time fair queueing (Goyal, Vin, Cheng 1996): which of several flows is served next, so that
 * each backlogged one gets its weight's share of whatever rate there is.
 *
 * A flow has a start tag in each class: virtual seconds, in which a flow of weight w is served w
 * bytes a second. The flow with the lowest tag goes next, and its tag moves on by bytes / weight. The
 * virtual time is the highest tag that was served. A flow that comes back takes up where it was, but
 * no further behind the virtual time than FAIR_LAG_S: short pauses between two requests cost it
 * nothing, long ones give it no claim.
 *
 * Classes are strict: FAIR_IDLE is looked at when nothing of FAIR_URGENT may go. Each has tags of its
 * own, so that what a flow got of what nobody waiting wanted does not count against it.
 *
 * Flows may be grouped, and a group held up by its owner: its turns wait, and the others go on. A
 * group has a virtual time of its own, so that its flows stay fair to each other however long it
 * was held up; behind the others it falls no further than FAIR_LAG_S either. Flows without a group
 * are in one.
 *
 * Within a flow turns are in order of arrival, but those that have begun go first: what holds memory
 * is finished before more is taken. A flow whose begun turns hold `flow_max_bytes` begins no further
 * ones while another flow waits, and none does while all hold `held_max_bytes`: then only what holds
 * memory goes, of whatever class. Half of that is for groups, each having as much of it as the others
 * that are busy: those that are held up leave room for the rest.
 *
 * Pure, without time or locks: the caller's lock.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define FAIR_LAG_S 0.1

enum fair_class { FAIR_URGENT, FAIR_IDLE, FAIR_CLASSES };

struct fair_turn {
	struct fair_turn *prev, *next; /* in its flow's list of the class */
	struct fair_flow *flow;
	uint32_t hold_bytes; /* of memory, from its first turn on */
	enum fair_class class;
	bool queued;
	bool begun; /* holds its memory */
};

struct fair_group {
	bool blocked; /* set by the owner: none of its turns goes */
	bool busy;    /* some wait, or hold memory */
	unsigned queued;
	uint64_t held_bytes;
	double now_s[FAIR_CLASSES];    /* the highest tag of its flows that was served */
	double offset_s[FAIR_CLASSES]; /* from its virtual time to the queue's */
};

struct fair_flow {
	struct fair_flow *prev, *next; /* in the list of those with turns that wait */
	struct fair_group *group;      /* NULL: none */
	struct fair_turn *turns[FAIR_CLASSES];
	double start_s[FAIR_CLASSES];
	unsigned queued;
	uint64_t held_bytes;
};

struct fair_queue {
	struct fair_flow *waiting;
	struct fair_group ungrouped;
	unsigned busy_groups;
	double now_s[FAIR_CLASSES];
	unsigned queued;
	uint64_t held_bytes; /* of all flows */
	uint64_t flow_max_bytes, held_max_bytes;
};

void fair_queue_add(struct fair_queue *q, struct fair_turn *t, enum fair_class class);
void fair_queue_remove(struct fair_queue *q, struct fair_turn *t);
/* The turn that goes next; NULL when none waits, or those that wait have to wait for memory or are of
 * groups that are held up. */
struct fair_turn *fair_queue_next(const struct fair_queue *q);
/* It goes: takes it off the queue. */
void fair_queue_take(struct fair_queue *q, struct fair_turn *t);
/* Moves the flow's tag on (or back) by what it was served. */
void fair_queue_charge(struct fair_flow *f, enum fair_class class, double seconds);
/* The flow's weight is now `factor` of what it was: what it has been served ahead stays the same
 * number of bytes. */
void fair_queue_reweigh(struct fair_queue *q, struct fair_flow *f, double factor);
/* One that does not wait becomes another flow's, with its memory. */
void fair_queue_move(struct fair_queue *q, struct fair_turn *t, struct fair_flow *to);
/* Lets go of the memory of a turn that does not wait. */
void fair_queue_end(struct fair_queue *q, struct fair_turn *t);

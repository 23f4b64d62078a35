/*
 * Whether a process that lists directories wants what LOOKUP would tell of each name as well. With
 * attributes a listing costs the kernel a node for each name, about three times a listing of names;
 * without them whoever looks at every file (`ls -l`, `du`, `rsync`, `find -size`) asks for each of
 * them by itself, at ten times the cost. The kernel cannot know before, and neither can we, but the
 * next directory is read like the last one.
 *
 * The first piece of a process's first listing has attributes: small directories need no more.
 * After that it has them once the process has looked up a quarter of the names that it was given
 * without.
 *
 * Counts are of a process's (a thread's, as FUSE tells it) last listings, and may be lost to
 * another's of the same slot: a wrong guess costs time only.
 *
 * Threading: any thread.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define LISTING_HABITS 256

struct listing_habit {
	_Atomic pid_t pid; /* 0: nobody's */
	_Atomic uint32_t listed, looked_up;
};

struct listing_habits {
	struct listing_habit of[LISTING_HABITS];
};

/* Before each piece of a listing; `begins`: it is the first one. */
bool listing_habit_wants_attributes(struct listing_habits *h, pid_t pid, bool begins);
/* It got so many names without attributes. */
void listing_habit_listed(struct listing_habits *h, pid_t pid, uint32_t names);
void listing_habit_looked_up(struct listing_habits *h, pid_t pid);

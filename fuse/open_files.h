/*
 * The inodes that are open, and in which way: through the page cache of the mount (cached), or passed
 * through to a file of the store. The kernel wants one way for all who have an inode open at the same
 * time, and with the second way one backing file; an open that mixes them fails there with EIO.
 *
 *	            enter                    decided(cached)
 *	(absent) ----------> DECIDING ---------------------------> CACHED   --leave of the last--> (absent)
 *	                      | enter: waits  decided(passed)
 *	                      `----------------------------------> PASSED   --leave of the last--> idle
 *	                                                             ^ enter                        |
 *	                                                             `------------------------------|
 *	                              (absent) <--- collect, or an enter that needs it gone --------'
 *
 * Invariants
 *  1. Whoever finds an inode absent decides, once; who comes meanwhile waits for that.
 *  2. `opens` counts every reply that the kernel took or is about to get, so an inode is given up only
 *     when the kernel has released it everywhere.
 *  3. An idle inode keeps backing id and hold, so that opening a file again and again costs nothing.
 *     It loses them when nobody came for a while or the store wants the file back.
 *  4. At most OPEN_FILES_MAX inodes are known. Beyond, files are opened cached and only counted; while
 *     there is such a one, no inode begins to be passed through, for it may be that one.
 *
 * It does no IO: what has to be closed is handed out. Threading: any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/sync.h"
#include "fuse/block_source.h"

#define OPEN_FILES_MAX 16384u /* 2 MiB */

/* Somebody who waits for the decision; the memory is his. */
struct open_waiter {
	struct open_waiter *next;
};

/* What an inode was passed through to. */
struct open_backing {
	int32_t id; /* of the kernel; 0: none, the inode is cached */
	struct block_whole *whole;
	uint32_t record; /* its place in open_records.h */
};

enum open_step {
	OPEN_AS_CACHED,
	OPEN_AS_PASSED,
	OPEN_DECIDE,	/* the caller has to, and then calls decided */
	OPEN_WAITS,	/* the waiter is returned by decided */
	OPEN_UNTRACKED, /* cached, and leave has to be told so */
};

struct open_file;
struct open_records;

struct open_files {
	struct open_records *
		records; /* told of what is given up, before it can be decided anew; NULL: nobody */
	struct mutex mu;
	/* guarded by mu */
	struct open_file *by_ino;
	struct open_file *idle; /* the longest idle first */
	unsigned count, max;
	uint64_t untracked;
};

void open_files_init(struct open_files *t, unsigned max);
/* After all was collected. */
void open_files_deinit(struct open_files *t);

/* OPEN_AS_PASSED fills ret_id. ret_gone is to be closed by the caller when its whole is not NULL. */
enum open_step open_files_enter(struct open_files *t, uint64_t ino, struct open_waiter *waiter,
	int32_t *ret_id, struct open_backing *ret_gone);
/* What another client has left, before anything is entered: an inode that is passed through and that
 * nobody has open, and one open of an inode. False: there is no room. */
bool open_files_resume(struct open_files *t, uint64_t ino, const struct open_backing *backing);
bool open_files_resume_open(struct open_files *t, uint64_t ino, bool tracked);
/* The backing id of an inode that is open; 0: it is cached, or not known. */
int32_t open_files_backing(struct open_files *t, uint64_t ino);

/* Ends OPEN_DECIDE. Takes over the backing. Those who waited are opened in the same way. */
struct open_waiter *open_files_decided(
	struct open_files *t, uint64_t ino, const struct open_backing *backing);
/* After RELEASE, or when the kernel did not take the reply to an open. */
void open_files_leave(struct open_files *t, uint64_t ino, bool tracked, int64_t now_ms);
/* One that is idle since before `before_ms` or wanted back, or `all`: also those that are open, when
 * the connection ends. False when there is none. */
bool open_files_collect(
	struct open_files *t, int64_t before_ms, bool all, struct open_backing *ret_gone);

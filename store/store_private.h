/*
 * What the parts of the owner's side share: the store, its datasets and files, and who does what.
 *
 *	store.c		assembly, put and read
 *	recovery.c	from the disk to a running store
 *	dataset.c	datasets and their bytes by class
 *	file.c		the files: table, charge, paths; segment.c and sparse_file.c place blocks
 *			in them
 *	admission.c	which class a block gets, and making room
 *	plan.c		set_dataset and remove_dataset
 *	pin_ceiling.c	the thread that pins less while the store is full
 *	commit.c	the group commit thread, and what is freed after it
 *	scrub.c		the thread that looks for damage
 *	lease_server.c	readers in other processes
 *
 * One mutex guards all of it; it is never held across IO. Functions with _locked want it held. A
 * thread that has to do IO on a file pins it first, so that the file is not retired meanwhile.
 */
#pragma once

#include <uthash.h>

#include "common/sync.h"
#include "placement/pin.h"
#include "store/checks.h"
#include "store/directory.h"
#include "store/disk.h"
#include "store/fd_cache.h"
#include "store/lease_proto.h"
#include "store/page_map.h"
#include "store/pin_ceiling.h"
#include "store/reader.h"
#include "store/record.h"
#include "store/residency.h"
#include "store/scrub.h"
#include "store/store.h"

#define STORE_DATASETS_MAX 4096u
#define STORE_FDS_MAX 512u /* or an eighth of what the process may have */
#define STORE_PATH_BYTES 4096u
/* A put that needs room waits this long for others' deletes to become durable. */
#define STORE_ROOM_WAIT_MS 5000
/* After a failed write nothing is stored for this long. */
#define STORE_DEGRADED_MS 5000

/* ---- datasets ---- */

struct dataset {
	uint64_t id;
	uint32_t number; /* its filler list */
	uint64_t grant_bytes, threshold;
	uint64_t class_bytes[3]; /* object bytes, by enum block_class */
	uint64_t corrupt_blocks;
	uint32_t files;
	bool elastic;	  /* what is not pinned is kept as an LRU cache keeps it */
	bool relist;	  /* its blocks are on the lists of before `elastic` changed */
	bool removing;	  /* nothing is admitted */
	uint64_t version; /* of the plan: a put that began under another one is not kept */
	struct store_file *segments;
	UT_hash_handle hh;
};

struct dataset *dataset_find_locked(struct store *s, uint64_t id);
/* Finds or adds; NULL when there are too many. */
struct dataset *dataset_get_locked(struct store *s, uint64_t id);
void datasets_deinit(struct store *s);

/* ---- files ---- */

enum file_kind { FILE_SEGMENT = 1, FILE_SPARSE = 2 };

struct store_file {
	uint32_t number;
	enum file_kind kind;
	struct dataset *dataset;
	uint32_t blocks; /* that the directory names */
	uint32_t pins;	 /* threads at work on it and commit operations that name it */
	uint32_t holders;
	bool dirty;  /* written since the last datasync */
	bool broken; /* a sync failed, or it vanished: takes no more blocks */
	bool retiring;
	bool revoked;	     /* its holders were asked to let go */
	uint32_t unsettled;  /* commit operations with records of it */
	uint32_t generation; /* grows with every block that is placed; sparse files only */
	bool awaited;	     /* on the store's list of those that others still have open */
	uint64_t charged_bytes;
	uint64_t overhead_bytes; /* what the filesystem took beyond */
	uint64_t size_bytes;	 /* recovery only: as found on disk */

	/* A segment: [0, tail) is handed out page by page and reused, [tail, room) is preallocated.
	 */
	struct page_map pages;
	uint32_t tail_page, room_page;
	struct store_file *next, *prev; /* of the dataset's segments, or of the awaited files */

	/* A sparse file; sparse_file.c says what the bits mean. */
	struct object_id object;
	uint64_t object_bytes;
	uint8_t *present;
	uint8_t *summed; /* pages of the sidecar that are charged */
	uint8_t *held;	 /* dropped, and the delete is durable: waits for the holders only */
	uint32_t held_blocks;
	uint64_t held_bytes;

	UT_hash_handle by_number;
	UT_hash_handle by_object;
};

/* In memory; on disk it comes with file_create. size_bytes: of one that is there already. NULL
 * without memory. */
struct store_file *file_new_locked(struct store *s, struct dataset *ds, enum file_kind kind,
	uint32_t number, const struct object_id *object, uint64_t object_bytes,
	uint64_t size_bytes);
/* Frees the memory and the charge. */
void file_forget_locked(struct store *s, struct store_file *f);
struct store_file *file_find_locked(struct store *s, uint32_t number);
struct store_file *file_of_object_locked(struct store *s, const struct object_id *object);
/* Makes it on disk, with its size. No lock. */
int file_create(struct store *s, struct store_file *f);
/* Removes it from the disk. No lock. */
void file_unlink(struct store *s, uint32_t number, enum file_kind kind);
void file_path(const struct store *s, uint32_t number, enum file_kind kind, bool sidecar,
	char path[static STORE_PATH_BYTES]);
/* Ends a pin that no commit operation carries; the commit thread looks whether the file may go. */
void file_unpin_locked(struct store *s, struct store_file *f);
void file_charge_locked(struct store *s, struct store_file *f, int64_t bytes);
/* Whether anybody outside of this process's descriptor cache has a sparse file open or mapped; also
 * when it cannot be found out though it could be on this file system. No lock. */
bool file_in_use(struct store *s, struct store_file *f);
/* Something of the file is freed only when nobody has it open: the commit thread looks again. */
void file_await_locked(struct store *s, struct store_file *f);
/* Corrects the charge by what the filesystem says that the file has. No lock. */
void file_measure(struct store *s, struct store_file *f);
void file_record(const struct store_file *f, bool remove, struct record_bytes *ret);
/* Queues the records of a file that was just made. */
void queue_new_file_locked(struct store *s, struct store_file *f);
void files_deinit(struct store *s);
extern const struct fd_cache_ops file_fd_ops;

/* ---- where a block lies ---- */

struct place {
	struct store_file *file; /* pinned */
	uint32_t page;
	uint32_t len; /* of the block */
};

#define PLACE_FULL 1	/* not without making room */
#define PLACE_GROWING 2 /* somebody is at it: wait */
#define PLACE_GROW 3	/* call ..._grow and try again */
#define PLACE_HELD 4	/* a reader holds what was there before, or the file is broken */
#define PLACE_NEVER 5	/* the object is too large */
/* Takes room for a block and charges it. */
int segment_place_locked(struct store *s, struct dataset *ds, uint32_t len, struct place *ret);
/* Preallocates more; unlocks meanwhile. 0 or -errno. */
int segment_grow_locked(struct store *s, struct dataset *ds, uint32_t len);
int sparse_place_locked(
	struct store *s, struct dataset *ds, const struct store_block *b, struct place *ret);
int sparse_create_locked(struct store *s, struct dataset *ds, const struct store_block *b);
/* Writes the block's bytes and checks. No lock. */
int segment_write(struct store *s, const struct place *p, const void *data, const uint8_t *checks);
int sparse_write(struct store *s, const struct place *p, const void *data, const uint8_t *checks);
/* Bytes of disk that freeing it gives back, at least. */
uint64_t place_bytes(const struct store_file *f, uint32_t len);
/* The block's place in a file, as recovery finds it: marks and charges it; false when it cannot be.
 */
bool segment_adopt_locked(struct store *s, struct store_file *f, uint32_t page, uint32_t len);
bool sparse_adopt_locked(struct store *s, struct store_file *f, uint32_t page, uint32_t len);
/* Gives everything back that no known block uses. No lock; recovery only. */
int segment_trim(struct store *s, struct store_file *f);
int sparse_trim(struct store *s, struct store_file *f);
/* Places whose delete is durable. Punches, or leaves it to the last holder. No lock. */
void segment_free(struct store *s, struct store_file *f, uint32_t page, uint32_t pages);
void sparse_free(struct store *s, struct store_file *f, uint32_t page);
void sparse_holders_gone(struct store *s, struct store_file *f);
/* Recovery only: where the file may be in the hands of a kernel, its blocks that no record names are
 * taken as held. False, and nothing done, otherwise. */
bool sparse_adopt_held(struct store *s, struct store_file *f);

/* ---- the plan (plan.c) ---- */

/* Called with every block of the dataset, or of all datasets where dataset_id is NULL. The directory
 * is walked in slices, so that puts go on in between; bears being called twice with a block. */
typedef void block_fn(struct store *s, struct dataset *ds, struct directory_entry *e, void *arg);
int blocks_walk(
	struct store *s, const uint64_t *dataset_id, block_fn *fn, void *arg, struct error *err);
/* A block_fn: pins a block that is under the threshold now, as far as the grant goes. */
void plan_promote(struct store *s, struct dataset *ds, struct directory_entry *e, void *arg);

/* ---- commit ---- */

struct commit_op {
	struct record_bytes record; /* key_len 0: none */
	struct store_file *file;    /* pinned, or NULL */
	uint32_t page, len;
	bool put;  /* the record names bytes that have to be durable first */
	bool free; /* free the place afterwards */
};

struct commit {
	struct commit_op *ops;
	size_t count, room;
	uint64_t put_bytes;    /* not durable yet */
	uint64_t freed_bytes;  /* will be free after the commit */
	uint64_t queued, done; /* numbers of operations */
	int64_t oldest_ms;     /* when the first of them was queued */
	bool kicked, stopping, dirs_dirty;
	int failures; /* in a row */
	pthread_t thread;
	bool started;
};

#define COMMIT_OPS_MAX ((size_t)32 << 10)
/* The operation's file has to be pinned for it. */
void commit_add_locked(struct store *s, const struct commit_op *op);
void commit_kick_locked(struct store *s);
int commit_start(struct store *s, struct error *err);
void commit_stop(struct store *s);
/* One round in the caller's thread: recovery, before the thread runs. */
int commit_once(struct store *s, struct error *err);
/* Is the queue so long that whoever adds to it should wait? */
bool commit_behind_locked(const struct store *s);
/* 0, or -ETIMEDOUT; wakes after any commit, growth, or other release of room. */
int room_wait_locked(struct store *s, int64_t deadline_ms);
/* Until the queue is short again; -EIO when it does not get so in time. */
int wait_for_commit_locked(struct store *s, struct error *err);

/* ---- admission ---- */

/* The class that the block would get under the dataset's quota, making room in the quota by
 * dropping fillers when `evict`; STORE_FULL for none. */
int admit_class_locked(struct store *s, struct dataset *ds, const struct block_id *id, uint32_t len,
	enum store_admit admit, bool evict, enum block_class *ret);
/* Drops fillers, oldest first, until pinned and fillers are within the grant with `more` bytes. */
void trim_fillers_locked(struct store *s, struct dataset *ds, uint64_t more);
/* Drops blocks until `bytes` are free or will be after the next commit; false if there are not
 * enough that may go. */
bool make_room_locked(struct store *s, struct dataset *ds, enum block_class class, uint64_t bytes);
bool could_make_room_locked(struct store *s, enum block_class class, uint64_t bytes);
/* Bytes that may be charged now. */
uint64_t room_locked(const struct store *s);
uint64_t charged_locked(const struct store *s);
/* Looks at the filesystem's free space; refresh: unless that was done just now. No lock. */
void floor_look(struct store *s);
void floor_refresh(struct store *s);
/* Drops the block that is the first to go of those that are not pinned; false when there is none. */
bool drop_unpinned_one_locked(struct store *s);
/* After recovery under a smaller capacity. */
void shrink_to_capacity_locked(struct store *s);

/* Takes the block out of directory, lists and quota and queues the delete. */
void drop_slot_locked(struct store *s, const struct directory_entry *e);
/* Puts it in; false when the directory is full. */
bool publish_locked(
	struct store *s, struct store_file *f, struct directory_entry *e, bool leftover);
/* Gives the block another class (in `flags`, with FLAG_OLD); queues the record. */
void reclass_locked(struct store *s, struct dataset *ds, struct directory_entry *e, uint32_t flags);
void block_record(const struct directory_entry *e, bool remove, struct record_bytes *ret);
void store_moved_slot(void *arg, uint32_t from, uint32_t to);

/* ---- the store ---- */

struct inflight {
	struct block_id id;
	UT_hash_handle hh;
};

/* Called, with the store's lock held, with a file whose holders should let go. */
typedef void store_revoke_fn(void *arg, uint32_t number);

struct store {
	/* constant after open */
	char *dir;
	const struct store_disk *disk;
	uint64_t capacity_bytes, usable_bytes, floor_bytes;
	uint64_t segment_bytes, step_bytes, uncommitted_max_bytes;
	unsigned commit_interval_ms;
	uint64_t id;
	bool tells_use; /* disk.h */
	int lock_fd;
	void *index;
	struct directory *directory;
	struct fd_cache fds;
	struct reader reader;

	struct mutex plan_mu; /* one set_dataset at a time; taken before mu */
	struct mutex mu;
	struct cond room; /* something was committed, freed, created */
	struct cond work; /* for the commit thread */
	/* guarded by mu */
	struct residency residency;
	uint64_t moves_down; /* of blocks to lower slots of the directory */
	struct dataset *datasets;
	struct dataset *dataset_by_number[STORE_DATASETS_MAX];
	struct store_file *files, *objects;
	struct inflight *inflight;
	struct commit commit;
	uint32_t next_file;
	bool growing;
	uint64_t files_charged_bytes; /* with overheads */
	uint64_t held_bytes;
	struct store_file *awaited;
	int64_t awaited_ms;		  /* when they were looked at last */
	uint64_t dirs_bytes, index_bytes; /* measured */
	bool floor_low;
	uint64_t fs_free_bytes; /* when last looked, less what was taken since */
	bool fs_known;		/* the last look succeeded */
	int64_t fs_checked_ms, usage_checked_ms;
	char degraded[128];
	int64_t degraded_until_ms; /* 0: not */
	int64_t corrupt_logged_ms;
	uint64_t corrupt_unlogged;
	store_revoke_fn *revoke;
	void *revoke_arg;
	struct scrub scrub;
	struct pin_ceiling ceiling;
};

/* Blocks below it are pinned: the plan's threshold under the ceiling. */
static inline uint64_t threshold_locked(const struct store *s, const struct dataset *ds)
{
	uint64_t ceiling = atomic_load(&s->ceiling.hash);

	return ds->threshold < ceiling ? ds->threshold : ceiling;
}

int store_recover(struct store *s, struct error *err);
void store_state_deinit(struct store *s);
void degrade_locked(struct store *s, int code, const char *what);
/* Drops the copy of a block that was found damaged: the one that id, slot and seq of `e` name. A
 * copy that was stored since, even at the same place, is left alone; false then. */
bool store_drop_damaged(struct store *s, const struct directory_entry *e);
/* Measures the index and the folders now and then. No lock. */
void store_measure(struct store *s, bool now);
/* A descriptor (of a sparse file two, data and sidecar) for reading in another process. Until
 * store_release the sparse file's bytes stay; segments are not held.
 *
 * HOLD_WHOLE is for whoever hands the data's descriptor on, to the kernel for one: as long as that,
 * or a map made through it, is open anywhere, no byte of the file changes, also when this process
 * ends and another opens the store. The file has to be complete and durable (-ENODATA), and the file
 * system one that tells who uses a file (-EOPNOTSUPP). The generation is another one whenever a block
 * of the file was another's in between. */
int store_hold(struct store *s, uint32_t number, enum hold_kind kind, int ret_fds[2],
	uint32_t *ret_generation);
void store_release(struct store *s, uint32_t number);
void store_set_revoke(struct store *s, store_revoke_fn *fn, void *arg);

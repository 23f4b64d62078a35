/*
 * What has to outlive the process that serves a mount (the client), so that another one can go on in
 * its place: one shared memory, a memfd, that the client writes and a supervisor keeps, together with
 * the descriptors in struct mount_keep.
 *
 * Invariants
 *  1. Whatever the kernel may have been told is written here before it is told, so that a client that
 *     is killed between any two instructions leaves a state from which the next one answers right.
 *     What is written and was not told costs at most a leak.
 *  2. One process writes at a time: the next client starts after the one before has ended, all of its
 *     threads included.
 *  3. It is memory only, of one user, and never on a disk: the plan holds credentials.
 *  4. The layout is one version's (MOUNT_STATE_VERSION). Another version is refused, and nothing that
 *     is in here is trusted to be a valid index, length or text.
 *
 * A mount without a supervisor (`granary up`) has one of its own, which ends with the process.
 *
 * Threading: as each member says. Members that several threads write are atomics or have one lock in
 * the module that owns them; the lock itself is never in here, for its holder may have died.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "fuse/counters.h"
#include "fuse/snapshot_slots.h"

#define MOUNT_STATE_MAGIC 0x656b614d6e617247u /* "GranMake" */
/* Raised with every change of the layout, of what a member means, of the settings, and of what a
 * client negotiates with the kernel at INIT, which hears it once. */
#define MOUNT_STATE_VERSION 2u
#define MOUNT_STATE_SETTINGS_BYTES ((size_t)64 << 10)
#define MOUNT_STATE_PLAN_BYTES ((size_t)8 << 20) /* as long as a message may be */
#define MOUNT_STATE_INIT_BYTES 256u
#define MOUNT_STATE_BACKINGS 16384u /* OPEN_FILES_MAX */
#define MOUNT_STATE_OPENS 65536u

/* A snapshot that was shown; another number than its place wants: it is being written. */
struct mount_state_slot {
	_Atomic uint32_t number_plus_1;
	char digest[MANIFEST_DIGEST_TEXT_BYTES];
};

/* A file of the store that the kernel reads in place of an inode. */
enum mount_state_backing_use { BACKING_FREE, BACKING_USED, BACKING_CLOSING };

struct mount_state_backing {
	_Atomic uint32_t use;
	int32_t id;
	uint64_t ino;
};

/* An open that is counted (open_records.h). */
enum mount_state_open_use { OPEN_FREE, OPEN_TRACKED, OPEN_COUNTED };

struct mount_state_open {
	_Atomic uint32_t use;
	uint32_t generation;
	uint64_t ino;
	uint64_t unique; /* of the request that opened it, without FUSE_UNIQUE_RESEND */
};

/* Two of them, written in turn, so that one is whole at any time. */
struct mount_state_plan {
	uint64_t bytes;
	unsigned char packed[MOUNT_STATE_PLAN_BYTES];
};

struct mount_state {
	/* constant from the start */
	uint64_t magic;
	uint32_t version, struct_bytes;
	uint64_t settings_bytes; /* used of `settings` */

	/* set once, before `serving` */
	uint32_t mode;			  /* enum mount_mode */
	uint32_t passthrough;		  /* INIT granted it */
	uint64_t device_number, mount_id; /* as in struct session */
	_Atomic uint32_t init_bytes;
	unsigned char init[MOUNT_STATE_INIT_BYTES]; /* the kernel's INIT as it came */
	char mountpoint[4096];
	_Atomic uint32_t serving; /* the mount has answered: it can be taken over */

	/* of the supervisor */
	_Atomic uint64_t supervisor_pid; /* 0: there is none */
	_Atomic uint64_t takeovers;	 /* clients after the first */
	/* 1 while another supervisor's client tries to go on with the mount. Who makes it 0 has the
	 * mount: that client once it serves, or the supervisor that has given it and wants it back. */
	_Atomic uint32_t tried;

	/* the switcher's thread writes */
	_Atomic uint32_t current;      /* number of the slot that is shown */
	_Atomic uint32_t invalidating; /* the kernel was not told of all of it yet */
	struct mount_state_slot slots[SNAPSHOT_SLOTS];

	/* the master link's thread writes */
	_Atomic uint32_t plan_at; /* which of `plans` holds; 0: none, else 1 or 2 */
	struct counters_kept counters;
	_Atomic uint32_t sample_level; /* sample.h: what left the sample is in the page cache */

	/* guarded by open_records.mu */
	_Atomic int32_t last_backing_id;  /* the highest that the kernel gave */
	_Atomic uint32_t opens_overflown; /* there was no room in `opens` once */
	struct mount_state_backing backings[MOUNT_STATE_BACKINGS];
	struct mount_state_open opens[MOUNT_STATE_OPENS];

	/* opaque here: what whoever starts a client has to know */
	_Alignas(64) unsigned char settings[MOUNT_STATE_SETTINGS_BYTES];
	struct mount_state_plan plans[2];
};

/* Where the descriptors that go with it are, and where new ones are handed in. */
#define MOUNT_KEEP_DEVICE (-1)
struct mount_keep {
	struct mount_state *state;
	/* What a client that takes over is given; -1: none. It owns them from then on. */
	int device;
	int manifests[SNAPSHOT_SLOTS]; /* of slot n at n % SNAPSHOT_SLOTS */
	/* Keeps a duplicate of fd: MOUNT_KEEP_DEVICE, or the manifest of a slot. 0 or -errno. NULL:
	 * nobody keeps anything. Any thread. */
	int (*keep)(void *arg, int64_t what, int fd);
	void *arg;
};

/* Sealed against another size. `ret_fd` is the caller's, as the map is. */
int mount_state_new(struct mount_state **ret, int *ret_fd, struct error *err);
/* One that came from elsewhere: -EPROTO when it is none or of another version. */
int mount_state_map(int fd, struct mount_state **ret, struct error *err);
/* The same of one that is mapped. */
int mount_state_check(const struct mount_state *s, struct error *err);
void mount_state_unmap(struct mount_state *s); /* NULL is fine */

/* ---- snapshots ------------------------------------------------------------------------------- */

/* Before the kernel can see a node of slot `number`. */
void mount_state_show(struct mount_state *s, uint32_t number, const char *digest);
/* What was shown as `number`; false: not kept. */
bool mount_state_shown(
	const struct mount_state *s, uint32_t number, char ret_digest[MANIFEST_DIGEST_TEXT_BYTES]);

/* ---- the plan, as the master packed it ------------------------------------------------------- */

/* -EMSGSIZE: too long, the one before stays. */
int mount_state_plan_set(struct mount_state *s, const void *packed, size_t bytes);
/* NULL: there is none. */
const void *mount_state_plan_get(const struct mount_state *s, size_t *ret_bytes);

/*
 * The descriptors that a mount lives in: its state, its connection to the kernel, the manifests
 * that it shows and showed. Supervisor and client have a set each.
 *
 * Not locked. Descriptors that are put belong to the set.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "cli/keep_proto.h"
#include "fuse/mount_state.h"

struct keep_set {
	int state, device;
	struct keep_set_manifest {
		int fd;
		uint64_t number; /* of the slot */
	} manifests[SNAPSHOT_SLOTS];
};

void keep_set_init(struct keep_set *s);
void keep_set_close(struct keep_set *s);
/* What a message brought: takes over fd. False: it is none for a set. */
bool keep_set_put(struct keep_set *s, enum keep_kind kind, uint64_t value, int fd);
/* The device and the manifests, in as many messages; 0 or -errno. */
int keep_set_send(const struct keep_set *s, int sock);
/* For a client: with duplicates of what is in the set, which are the client's. */
int keep_set_lend(const struct keep_set *s, struct mount_keep *ret);

/*
 * The announcing end of a mount's order socket (fuse/order_proto.h), for a command.
 *
 * Calling sequence: open; path or record, in the order of reading; end; close. They block while the
 * mount has no room.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "fuse/order_proto.h"

struct order_client {
	int fd;
	enum order_frame kind; /* of the frame being filled */
	uint32_t filled;
	unsigned char frame[ORDER_FRAME_HEAD_BYTES + ORDER_FRAME_MAX_BYTES];
};

struct order_result {
	uint64_t accepted, unknown;
	char first_unknown[ORDER_TEXT_MAX_BYTES + 1];
};

/* `mountpoint` is the root of a mount. -ENOENT: it is none of Granary's. */
int order_client_open(struct order_client *c, const char *mountpoint, struct error *err);
int order_client_path(struct order_client *c, const char *path, size_t len, struct error *err);
/* bytes 0: to the end of the file. */
int order_client_record(struct order_client *c, uint64_t offset, uint64_t bytes, const char *path,
	size_t len, struct error *err);
int order_client_end(struct order_client *c, struct order_result *ret, struct error *err);
void order_client_close(struct order_client *c);

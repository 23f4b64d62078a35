/*
 * What the owner's lease server and a view say to each other: fixed messages over a unix socket
 * that keeps their bounds (SOCK_SEQPACKET). Both ends are of one host and one build's layout;
 * another version is refused by the first message.
 *
 *	view			server
 *	HELLO(version)	->
 *			<-	WELCOME(store id, epoch), with the directory's memfd
 *	OPEN(file, kind)->
 *			<-	OPENED(file, kind, status, generation), with one descriptor; two of
 *				a sparse file, and of a segment that can be read past the
 *				page cache
 *	RELEASE(file)	->
 *			<-	REVOKE(file): close it when no read is in flight, then RELEASE
 *	TOUCH(ids)	->
 *	CORRUPT(id, slot, seq)	->		the copy that the directory showed there and then
 *
 * The end of the connection releases whatever its view held.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "manifest/block.h"

#define LEASE_VERSION 4u
#define LEASE_MAGIC 0x4c617247u /* "GraL" */
#define LEASE_IDS_MAX 128u

enum lease_kind {
	LEASE_HELLO = 1,
	LEASE_WELCOME,
	LEASE_OPEN,
	LEASE_OPENED,
	LEASE_RELEASE,
	LEASE_REVOKE,
	LEASE_TOUCH,
	LEASE_CORRUPT,
};

/* What a descriptor is wanted for (store_hold in store_private.h). */
enum hold_kind { HOLD_SEGMENT, HOLD_SPARSE, HOLD_WHOLE };

struct lease_message {
	uint32_t magic;
	uint32_t kind;
	uint32_t file;	     /* of OPEN, OPENED, RELEASE, REVOKE; HELLO and WELCOME: the version */
	int32_t status;	     /* of OPENED: 0 or -errno */
	uint32_t hold;	     /* of OPEN and OPENED: enum hold_kind */
	uint32_t generation; /* of OPENED, of a whole file */
	uint32_t slot, seq;  /* of CORRUPT: where the directory named the block (directory.h) */
	uint32_t count;	     /* of ids */
	struct block_id ids[LEASE_IDS_MAX];
};

#define LEASE_HEAD_BYTES offsetof(struct lease_message, ids)

/* Sends without waiting: 0, -EAGAIN when the other end does not read, or another -errno. */
int lease_send(int fd, const struct lease_message *m, const int *fds, int fd_count);
/* Receives without waiting, with up to two descriptors (-1 where none came). 0, -EAGAIN, -EPIPE at
 * the end, -EPROTO for what is no message; whatever came with a bad one is closed. */
int lease_receive(int fd, struct lease_message *ret, int ret_fds[2]);

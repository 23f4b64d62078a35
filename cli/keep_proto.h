/*
 * What the supervisor of a mount, its client, and a `granary mount --takeover` say to each other:
 * fixed messages with at most one descriptor over a unix socket that keeps their bounds
 * (SOCK_SEQPACKET).
 *
 *	client			supervisor
 *	KEEP_DEVICE, fd		->			the connection to the kernel
 *	KEEP_MANIFEST(slot), fd	->			the file of a snapshot that is about to be shown
 *	KEEP_THREAD, pidfd	->			of a thread that ends with it (lingering.h)
 *	KEEP_READY		->			it serves
 *	KEEP_BYE		->			it has unmounted, or was unmounted: nobody comes after it
 *			<-	KEEP_LEAVE		end at once, another one takes over
 *			<-	KEEP_GO			to one that tries: whoever has the mount knows of it now
 *	KEEP_CLIENT, pidfd	->			to a new supervisor, after the state and before the rest
 *	KEEP_STATE, memfd	->
 *
 *	--takeover		supervisor
 *	KEEP_ASK		->
 *			<-	KEEP_STATE, memfd	it is looked at: is it of a version that both know?
 *	KEEP_LEAVE		->			the client is ended
 *			<-	KEEP_DEVICE, KEEP_MANIFEST ..., KEEP_BYE
 *	KEEP_CLIENT, pidfd	->			the one that tries
 *	KEEP_READY		->			it serves: the old supervisor ends
 *
 * Whether it came to that is decided by the state's `tried`, not by who heard what.
 */
#pragma once

#include <stdint.h>

#define KEEP_MAGIC 0x4b617247u /* "GraK" */

enum keep_kind {
	KEEP_DEVICE = 1,
	KEEP_MANIFEST,
	KEEP_READY,
	KEEP_BYE,
	KEEP_LEAVE,
	KEEP_CLIENT,
	KEEP_STATE,
	KEEP_ASK,
	KEEP_THREAD,
	KEEP_GO,
};

struct keep_message {
	uint32_t magic, kind;
	uint64_t value; /* KEEP_MANIFEST: the slot's number */
};

/* Both without waiting. fd -1: none. 0, -EAGAIN, or another -errno. */
int keep_send(int sock, enum keep_kind kind, uint64_t value, int fd);
/* -EAGAIN: nothing there, -EPIPE: the end, -EPROTO for what is no message. *ret_fd is -1 where none
 * came; whatever came with a bad one is closed. */
int keep_receive(int sock, struct keep_message *ret, int *ret_fd);
/* Waits for one until the deadline (-ETIMEDOUT). */
int keep_await(int sock, int64_t deadline_ms, struct keep_message *ret, int *ret_fd);

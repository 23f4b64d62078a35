#include "fuse/device.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/fuse.h>

#include "common/clock.h"
#include "fuse/fs.h"
#include "fuse/ops.h"

#define PAGE_BYTES ((size_t)4096)
#define REQUEST_BYTES (READ_MAX_BYTES + 2 * PAGE_BYTES)
#define QUIET_MS 50
#define NOTIFY_RESEND 7		    /* FUSE_NOTIFY_RESEND, linux/fuse.h since 6.9 */
#define FLAGS2_HAS_RESEND (1u << 7) /* FUSE_HAS_RESEND is bit 39 of the flags */
#ifndef FUSE_INIT_EXT
#define FUSE_INIT_EXT (1u << 30)
#endif

/* The head of fuse_init_in in every version that has flags2. */
struct init_head {
	uint32_t major, minor, max_readahead, flags, flags2;
};

/* A page that is not there yet is not faulted in for a process that has been killed: the kernel would
 * answer the request that it is copying with EIO. Every request that has an answer fits in this. */
static void touch(unsigned char *buf, size_t len)
{
	for (size_t at = 0; at < len && at <= PAGE_BYTES; at += PAGE_BYTES)
		((volatile unsigned char *)buf)[at] = 0;
}

static void keep_init(struct device *d, const void *buf, size_t bytes)
{
	const struct fuse_in_header *head = buf;

	if (d->state->init_bytes || bytes < sizeof(*head) || head->opcode != FUSE_INIT ||
		bytes > sizeof(d->state->init))
		return;
	memcpy(d->state->init, buf, bytes);
	d->state->init_bytes = (uint32_t)bytes;
}

ssize_t device_receive(struct device *d, int fd, void *buf, size_t len)
{
	ssize_t n;

	do {
		touch(buf, len);
		n = read(fd, buf, len);
		/* ENOENT: what was to be read was interrupted meanwhile. */
	} while (n < 0 && (errno == ENOENT || errno == EINTR || errno == EAGAIN));
	if (n < 0)
		return errno == ENODEV ? 0 : -errno;
	if ((size_t)n < sizeof(struct fuse_in_header))
		return -EPROTO;
	keep_init(d, buf, (size_t)n);
	return n;
}

static __thread uint64_t current_request;

uint64_t device_request(void)
{
	return current_request;
}

void device_set_request(const void *request)
{
	const struct fuse_in_header *head = request;

	current_request = head->unique;
}

void device_init(struct device *d, struct mount_state *state)
{
	*d = (struct device){.state = state};
}

bool device_can_resend(const struct mount_state *state)
{
	struct init_head head;

	if (state->init_bytes < sizeof(struct fuse_in_header) + sizeof(head) ||
		state->init_bytes > sizeof(state->init))
		return false;
	memcpy(&head, state->init + sizeof(struct fuse_in_header), sizeof(head));
	return (head.flags & FUSE_INIT_EXT) && (head.flags2 & FLAGS2_HAS_RESEND);
}

int device_resend(int fd)
{
	struct fuse_out_header head = {.len = sizeof(head), .error = NOTIFY_RESEND};
	ssize_t n;

	do {
		n = write(fd, &head, sizeof(head));
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

void device_refuse(int fd, int64_t deadline_ms)
{
	unsigned char *buf = aligned_alloc(PAGE_BYTES, REQUEST_BYTES);
	struct pollfd p = {.fd = fd, .events = POLLIN};

	if (buf)
		device_resend(fd);
	while (buf && !clock_passed(deadline_ms) && poll(&p, 1, QUIET_MS) == 1 &&
		!(p.revents & POLLERR)) {
		ssize_t n = read(fd, buf, REQUEST_BYTES);
		struct fuse_in_header *in = (struct fuse_in_header *)buf;
		struct fuse_out_header out = {.len = sizeof(out), .error = -ENOTCONN};

		if (n < (ssize_t)sizeof(*in))
			continue;
		out.unique = in->unique;
		/* One that wants no answer has none to be refused. */
		if (write(fd, &out, sizeof(out)) < 0 && errno == ENODEV)
			break;
	}
	free(buf);
}

int device_replay(struct device *d, struct fuse_session *se, struct error *err)
{
	unsigned char init[MOUNT_STATE_INIT_BYTES];
	struct fuse_buf buf = {.mem = init, .size = d->state->init_bytes};
	int r;

	if (!device_can_resend(d->state))
		return error_set(err, -EPROTO, "the kernel's first request was not kept");
	memcpy(init, d->state->init, sizeof(init));
	fuse_session_process_buf(se, &buf);
	if (!d->negotiated || fuse_session_exited(se))
		return error_set(err, -EPROTO, "the connection to the kernel cannot be resumed");
	r = device_resend(fuse_session_fd(se));
	/* Unmounted meanwhile: the threads will see it. */
	if (r < 0 && r != -ENODEV && r != -ENOTCONN)
		return error_set_errno(err, r, "the kernel does not repeat what was not answered");
	return 0;
}

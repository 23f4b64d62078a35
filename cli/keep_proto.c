#include "cli/keep_proto.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/clock.h"

#define POLL_MS 100

union control {
	char room[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

int keep_send(int sock, enum keep_kind kind, uint64_t value, int fd)
{
	struct keep_message m = {.magic = KEEP_MAGIC, .kind = kind, .value = value};
	struct iovec iov = {.iov_base = &m, .iov_len = sizeof(m)};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
	union control control;
	ssize_t n;

	if (fd >= 0) {
		struct cmsghdr *c;

		memset(&control, 0, sizeof(control));
		h.msg_control = control.room;
		h.msg_controllen = sizeof(control.room);
		c = CMSG_FIRSTHDR(&h);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
	}
	do {
		n = sendmsg(sock, &h, MSG_NOSIGNAL | MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

/* The first; padding leaves room for a second, which nobody asked for. */
static int take_fd(struct msghdr *h)
{
	struct cmsghdr *c = CMSG_FIRSTHDR(h);
	int fd = -1, other;

	if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
		return -1;
	for (size_t at = CMSG_LEN(0); at + sizeof(int) <= c->cmsg_len; at += sizeof(int)) {
		memcpy(&other, (unsigned char *)c + at, sizeof(int));
		if (fd < 0)
			fd = other;
		else
			close(other);
	}
	return fd;
}

int keep_receive(int sock, struct keep_message *ret, int *ret_fd)
{
	struct iovec iov = {.iov_base = ret, .iov_len = sizeof(*ret)};
	union control control;
	struct msghdr h = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.room,
		.msg_controllen = sizeof(control.room)};
	ssize_t n;

	do {
		n = recvmsg(sock, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	*ret_fd = -1;
	if (n < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	if (n == 0)
		return -EPIPE;
	*ret_fd = take_fd(&h);
	if (n == (ssize_t)sizeof(*ret) && !(h.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) &&
		ret->magic == KEEP_MAGIC)
		return 0;
	if (*ret_fd >= 0)
		close(*ret_fd);
	*ret_fd = -1;
	return -EPROTO;
}

int keep_await(int sock, int64_t deadline_ms, struct keep_message *ret, int *ret_fd)
{
	struct pollfd p = {.fd = sock, .events = POLLIN};
	int r;

	while ((r = keep_receive(sock, ret, ret_fd)) == -EAGAIN) {
		if (clock_passed(deadline_ms))
			return -ETIMEDOUT;
		if (poll(&p, 1, POLL_MS) < 0 && errno != EINTR)
			return -errno;
	}
	return r;
}

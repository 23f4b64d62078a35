#include "cli/order_client.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "common/cleanup.h"

#define SOCKET_XATTR "user.granary.order"
#define ANSWER_TIMEOUT_MS 10000

/* How long the mount may be silent. Where it takes entries it may be long: it takes them as the
 * reader goes on. */
static void set_patience(int fd, int64_t timeout_ms)
{
	struct timeval t = {.tv_sec = timeout_ms / 1000};

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t));
}

static int connect_to(const char *path, struct error *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	cleanup_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return error_set_errno(err, -errno, "cannot make a socket");
	if (strlen(path) >= sizeof(addr.sun_path))
		return error_set(err, -ENAMETOOLONG, "%s is too long for a socket's name", path);
	strcpy(addr.sun_path, path);
	set_patience(fd, ANSWER_TIMEOUT_MS);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return error_set_errno(err, -errno, "cannot connect to %s", path);
	return steal_fd(&fd);
}

/* ---- frames ---------------------------------------------------------------------------------- */

static int receive_all(int fd, void *to, size_t len)
{
	ssize_t n = recv(fd, to, len, MSG_WAITALL);

	if (n < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	return (size_t)n == len ? 0 : -EPIPE;
}

static int error_silent(int code, struct error *err)
{
	if (code == -ETIMEDOUT)
		return error_set(err, code,
			"the mount does not answer: `granary status` shows whether "
			"it lives");
	return error_set_errno(err, code, "the mount has gone away");
}

/* The next answer: its kind, or what the mount says against it. */
static int receive(struct order_client *c, unsigned char *payload, size_t room, uint32_t *ret_len,
	struct error *err)
{
	unsigned char head[ORDER_FRAME_HEAD_BYTES];
	uint32_t kind;
	int r = receive_all(c->fd, head, sizeof(head));

	if (r < 0)
		return error_silent(r, err);
	kind = order_get32(head);
	*ret_len = order_get32(head + 4);
	if (*ret_len > room)
		return error_set(err, -EPROTO, "the mount's answer makes no sense");
	r = receive_all(c->fd, payload, *ret_len);
	if (r < 0)
		return error_silent(r, err);
	if (kind == ORDER_FAILED && *ret_len >= 4)
		return error_set(err, -(int)order_get32(payload), "%.*s", (int)*ret_len - 4,
			(const char *)payload + 4);
	return (int)kind;
}

/* A mount that breaks off has said why first. */
static int send_failed(struct order_client *c, int code, struct error *err)
{
	unsigned char payload[ORDER_TEXT_MAX_BYTES + 64];
	uint32_t len;
	int r = receive(c, payload, sizeof(payload), &len, err);

	return r < 0 ? r : error_set_errno(err, code, "cannot send to the mount");
}

static int send_frame(
	struct order_client *c, enum order_frame kind, uint32_t len, struct error *err)
{
	size_t total = ORDER_FRAME_HEAD_BYTES + len, at = 0;

	order_put32(order_put32(c->frame, kind), len);
	while (at < total) {
		ssize_t n = send(c->fd, c->frame + at, total - at, MSG_NOSIGNAL);

		if (n < 0 && errno != EINTR)
			return send_failed(c, -errno, err);
		at += n > 0 ? (size_t)n : 0;
	}
	c->filled = 0;
	return 0;
}

static int flush(struct order_client *c, struct error *err)
{
	return c->filled ? send_frame(c, c->kind, c->filled, err) : 0;
}

/* Where an entry of len bytes goes. */
static int reserve(struct order_client *c, enum order_frame kind, size_t len,
	unsigned char **ret_at, struct error *err)
{
	int r = 0;

	if (len > ORDER_FRAME_MAX_BYTES)
		return error_set(err, -ENAMETOOLONG, "a path of %zu bytes", len);
	if (c->kind != kind || c->filled + len > ORDER_FRAME_MAX_BYTES)
		r = flush(c, err);
	c->kind = kind;
	*ret_at = c->frame + ORDER_FRAME_HEAD_BYTES + c->filled;
	c->filled += (uint32_t)len;
	return r;
}

/* ---- the interface --------------------------------------------------------------------------- */

static int begin(struct order_client *c, struct error *err)
{
	unsigned char *at = c->frame + ORDER_FRAME_HEAD_BYTES;
	unsigned char reply[ORDER_TEXT_MAX_BYTES + 64];
	uint32_t len;
	int r;

	at = order_put32(at, ORDER_PROTO_VERSION);
	at = order_put32(at, 0);
	order_put64(at, 0);
	r = send_frame(c, ORDER_BEGIN, ORDER_BEGIN_BYTES, err);
	if (r == 0)
		r = receive(c, reply, sizeof(reply), &len, err);
	if (r < 0)
		return r;
	return r == ORDER_BEGUN ? 0 : error_set(err, -EPROTO, "the mount's answer makes no sense");
}

int order_client_open(struct order_client *c, const char *mountpoint, struct error *err)
{
	struct sockaddr_un addr;
	char path[sizeof(addr.sun_path) + 1];
	ssize_t n = getxattr(mountpoint, SOCKET_XATTR, path, sizeof(path) - 1);
	int r;

	c->fd = -1;
	c->filled = 0;
	if (n < 0 && (errno == ENODATA || errno == EOPNOTSUPP))
		return error_set(err, -ENOENT,
			"%s is not the mount point of a Granary mount that takes orders",
			mountpoint);
	if (n < 0)
		return error_set_errno(err, -errno, "cannot look at %s", mountpoint);
	path[n] = '\0';
	r = connect_to(path, err);
	if (r < 0)
		return r;
	c->fd = r;
	r = begin(c, err);
	if (r < 0)
		order_client_close(c);
	else
		set_patience(c->fd, 0);
	return r;
}

int order_client_path(struct order_client *c, const char *path, size_t len, struct error *err)
{
	unsigned char *at;
	int r = len > UINT16_MAX ? error_set(err, -ENAMETOOLONG, "a path of %zu bytes", len)
				 : reserve(c, ORDER_PATHS, 2 + len, &at, err);

	if (r < 0)
		return r;
	memcpy(order_put16(at, (uint16_t)len), path, len);
	return 0;
}

int order_client_record(struct order_client *c, uint64_t offset, uint64_t bytes, const char *path,
	size_t len, struct error *err)
{
	unsigned char *at;
	int r = len > UINT16_MAX ? error_set(err, -ENAMETOOLONG, "a path of %zu bytes", len)
				 : reserve(c, ORDER_RECORDS, 18 + len, &at, err);

	if (r < 0)
		return r;
	at = order_put64(at, offset);
	at = order_put64(at, bytes);
	memcpy(order_put16(at, (uint16_t)len), path, len);
	return 0;
}

int order_client_end(struct order_client *c, struct order_result *ret, struct error *err)
{
	unsigned char reply[16 + ORDER_TEXT_MAX_BYTES];
	uint32_t len;
	int r = flush(c, err);

	if (r == 0)
		r = send_frame(c, ORDER_END, 0, err);
	if (r == 0)
		r = receive(c, reply, sizeof(reply), &len, err);
	if (r < 0)
		return r;
	if (r != ORDER_ENDED || len < 16)
		return error_set(err, -EPROTO, "the mount's answer makes no sense");
	ret->accepted = order_get64(reply);
	ret->unknown = order_get64(reply + 8);
	snprintf(ret->first_unknown, sizeof(ret->first_unknown), "%.*s", (int)len - 16,
		(const char *)reply + 16);
	return 0;
}

void order_client_close(struct order_client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}

#define LOG_SUBSYSTEM "metrics"

#include "common/metrics_http.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <microhttpd.h>

#include "common/address.h"
#include "common/buf.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/metrics_process.h"
#include "common/unix_socket.h"

/* A request needs a line and a few headers; more is refused. */
#define CONNECTION_BYTES (16u << 10)
#define TYPE_METRICS "text/plain; version=0.0.4; charset=utf-8"
#define TYPE_TEXT "text/plain; charset=utf-8"

struct metrics_http {
	struct MHD_Daemon *daemon;
	struct address address;
	int lock_fd; /* of a unix socket, else -1 */
};

/* Takes the response. */
static enum MHD_Result send_response(
	struct MHD_Connection *c, unsigned status, struct MHD_Response *response, const char *type)
{
	enum MHD_Result r;

	if (!response)
		return MHD_NO;
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
		MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
	r = MHD_queue_response(c, status, response);
	MHD_destroy_response(response);
	return r;
}

static enum MHD_Result send_text(struct MHD_Connection *c, unsigned status, const char *text)
{
	return send_response(c, status,
		MHD_create_response_from_buffer(strlen(text), (void *)text, MHD_RESPMEM_PERSISTENT),
		TYPE_TEXT);
}

static enum MHD_Result send_metrics(struct MHD_Connection *c)
{
	cleanup_buf struct buf page = BUF_INIT;
	struct MHD_Response *response;
	char *text;
	size_t len;

	if (metrics_render(&page) < 0)
		return send_text(c, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory\n");
	len = page.len;
	text = buf_take(&page);
	response = MHD_create_response_from_buffer(len, text, MHD_RESPMEM_MUST_FREE);
	if (!response)
		free(text);
	return send_response(c, MHD_HTTP_OK, response, TYPE_METRICS);
}

static enum MHD_Result answer(void *cls, struct MHD_Connection *c, const char *url,
	const char *method, const char *version, const char *upload, size_t *upload_len,
	void **state)
{
	static char seen;

	(void)cls;
	(void)version;
	(void)upload;
	/* The first call is for the headers alone; an answer then would cost the connection. */
	if (!*state) {
		*state = &seen;
		return MHD_YES;
	}
	if (*upload_len > 0) {
		*upload_len = 0;
		return MHD_YES;
	}
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
		return send_text(c, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET here\n");
	if (strcmp(url, "/metrics") == 0)
		return send_metrics(c);
	if (strcmp(url, "/healthz") == 0)
		return send_text(c, MHD_HTTP_OK, "ok\n");
	return send_text(c, MHD_HTTP_NOT_FOUND, "there are /metrics and /healthz\n");
}

static int open_socket(struct metrics_http *h, const char *text, int *ret_fd, struct error *err)
{
	int r;

	if (h->address.kind != ADDRESS_UNIX)
		return address_listen_tcp(&h->address, text, ret_fd, err);
	r = unix_socket_claim(h->address.path, &h->lock_fd, err);
	return r < 0 ? r : unix_socket_listen(h->address.path, ret_fd, err);
}

static int port_of(int fd)
{
	struct sockaddr_storage addr;
	socklen_t len = sizeof(addr);

	if (getsockname(fd, (struct sockaddr *)&addr, &len) < 0)
		return 0;
	if (addr.ss_family == AF_INET)
		return ntohs(((struct sockaddr_in *)&addr)->sin_port);
	if (addr.ss_family == AF_INET6)
		return ntohs(((struct sockaddr_in6 *)&addr)->sin6_port);
	return 0;
}

int metrics_http_start(
	const char *address, struct metrics_http **ret, int *ret_port, struct error *err)
{
	struct metrics_http *h = calloc(1, sizeof(*h));
	int fd = -1, port, r;

	if (!h)
		return error_set(err, -ENOMEM, "out of memory");
	h->lock_fd = -1;
	r = address_parse(address, &h->address, err);
	if (r == 0)
		r = open_socket(h, address, &fd, err);
	if (r < 0) {
		metrics_http_stop(h);
		return r;
	}
	metrics_process_register();
	port = port_of(fd);
	/* The daemon takes the socket. */
	h->daemon = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL, 0, NULL, NULL,
		answer, h, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
		(unsigned)METRICS_HTTP_CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
		(unsigned)METRICS_HTTP_TIMEOUT_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
		(size_t)CONNECTION_BYTES, MHD_OPTION_END);
	if (!h->daemon) {
		metrics_http_stop(h);
		return error_set(err, -EIO, "cannot start the metrics server on %s", address);
	}
	if (port && port != h->address.port)
		log_info("metrics on port %d (%s)", port, address);
	else
		log_info("metrics on %s", address);
	if (ret_port)
		*ret_port = port;
	*ret = h;
	return 0;
}

void metrics_http_stop(struct metrics_http *h)
{
	if (!h)
		return;
	if (h->daemon)
		MHD_stop_daemon(h->daemon);
	if (h->lock_fd >= 0) {
		unlink(h->address.path);
		unix_socket_release(h->address.path, h->lock_fd);
	}
	free(h);
}

#include "cli/client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "cli/paths.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "grpc/health/v1/health.pb-c.h"

#define PROBE_TIMEOUT_MS 3000

static int probe(struct rpc_channel *channel, struct error *err)
{
	Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
	ProtobufCMessage *reply;
	int r = rpc_unary(channel, "/grpc.health.v1.Health/Check", &request.base,
		&grpc__health__v1__health_check_response__descriptor, &reply,
		clock_deadline_ms(PROBE_TIMEOUT_MS), err);

	if (r == 0)
		protobuf_c_message_free_unpacked(reply, NULL);
	return r;
}

int client_open(const char *address, const char *token, struct client *ret, struct error *err)
{
	struct client c = {0};
	int r = rpc_channel_new(address, token, &c.channel, err);

	if (r < 0)
		return r;
	c.address = strdup(address);
	c.token = token ? strdup(token) : NULL;
	*ret = c;
	return 0;
}

bool client_socket_live(const char *address)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	cleanup_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", address + strlen("unix:"));
	return fd >= 0 && connect(fd, (struct sockaddr *)&sun, sizeof(sun)) == 0;
}

int client_connect(const struct invocation *inv, struct client *ret, struct error *err)
{
	const char *address = inv_text(inv, "master");
	cleanup_free char *token = NULL;
	struct error why = ERROR_INIT;
	struct paths paths;
	int r;

	r = paths_read_token(inv_text(inv, "token-file"), &token, err);
	if (r < 0)
		return r;
	if (!address) {
		r = paths_find(inv, &paths, err);
		if (r < 0)
			return r;
		address = paths.socket;
	}
	r = client_open(address, token, ret, err);
	if (r < 0)
		return r;
	r = probe(ret->channel, &why);
	if (r == 0)
		return 0;
	client_close(ret);
	if (r == -EAGAIN || r == -ETIMEDOUT)
		return error_set(err, -EAGAIN,
			"no master answers at %s: start one with `granary up` or "
			"`granary master`, or name it with --master",
			address);
	return error_set(err, r, "the master at %s: %s", address, why.text);
}

bool client_is_local(const struct client *c)
{
	return strncmp(c->address, "unix:", strlen("unix:")) == 0;
}

void client_close(struct client *c)
{
	rpc_channel_free(c->channel);
	free(c->address);
	free(c->token);
	*c = (struct client){0};
}

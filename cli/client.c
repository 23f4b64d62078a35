#include "cli/client.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "cli/paths.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "grpc/health/v1/health.pb-c.h"

#define PROBE_TIMEOUT_MS 3000
#define UNIX_PREFIX "unix:"

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

static void user_name(uid_t uid, char *ret, size_t room)
{
	struct passwd entry, *found = NULL;
	char names[4096];

	getpwuid_r(uid, &entry, names, sizeof(names), &found);
	if (found)
		snprintf(ret, room, "%s", found->pw_name);
	else
		snprintf(ret, room, "%u", (unsigned)uid);
}

static void group_name(gid_t gid, char *ret, size_t room)
{
	struct group entry, *found = NULL;
	char names[16384];

	getgrgid_r(gid, &entry, names, sizeof(names), &found);
	if (found)
		snprintf(ret, room, "%s", found->gr_name);
	else
		snprintf(ret, room, "%u", (unsigned)gid);
}

/* The socket, or the closest folder around it that this user may look at, tells the owner. */
static int error_not_ours(const char *path, int code, struct error *err)
{
	char name[64] = "another", group[64] = "", around[PATH_MAX];
	struct stat st;
	char *slash;

	snprintf(around, sizeof(around), "%s", path);
	while (stat(around, &st) < 0) {
		slash = strrchr(around, '/');
		if (!slash || slash == around)
			return error_set_errno(err, code, "cannot look at %s", path);
		*slash = '\0';
	}
	user_name(st.st_uid, name, sizeof(name));
	/* What --group opens: a socket of mode 0660, a folder of mode 0710. */
	if (st.st_mode & (S_ISSOCK(st.st_mode) ? S_IWGRP : S_IXGRP))
		group_name(st.st_gid, group, sizeof(group));
	if (group[0] && strcmp(group, "root") != 0)
		return error_set(err, code,
			"%s belongs to user %s: run this as %s%s or as a member of group %s", path,
			name, name, st.st_uid ? " or root," : "", group);
	return error_set(err, code,
		"%s belongs to user %s: run this as %s%s, or have its process started with --group "
		"NAME of a group that you are in",
		path, name, name, st.st_uid ? " or root" : "");
}

int client_socket_probe(const char *address, struct error *err)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	cleanup_fd int fd = -1;

	if (strncmp(address, UNIX_PREFIX, strlen(UNIX_PREFIX)) != 0)
		return 0;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", address + strlen(UNIX_PREFIX));
	if (fd >= 0 && connect(fd, (struct sockaddr *)&sun, sizeof(sun)) == 0)
		return 1;
	if (fd >= 0 && (errno == EACCES || errno == EPERM))
		return error_not_ours(sun.sun_path, -EACCES, err);
	return 0;
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
	/* To gRPC all refusals of the kernel are one. */
	if (client_socket_probe(address, err) < 0)
		return -EACCES;
	if (r == -EAGAIN || r == -ETIMEDOUT)
		return error_set(err, -EAGAIN,
			"no master answers at %s: start one with `granary up` or "
			"`granary master`, or name it with --master",
			address);
	return error_set(err, r, "the master at %s: %s", address, why.text);
}

bool client_is_local(const struct client *c)
{
	return strncmp(c->address, UNIX_PREFIX, strlen(UNIX_PREFIX)) == 0;
}

void client_close(struct client *c)
{
	rpc_channel_free(c->channel);
	free(c->address);
	free(c->token);
	*c = (struct client){0};
}

/*
 * How commands find the master and talk to it.
 */
#pragma once

#include "cli/command.h"
#include "common/rpc/rpc.h"

/* Most commands are answered at once; a listing of millions takes as long as it takes. */
#define CLIENT_TIMEOUT_MS 30000
#define CLIENT_IMPORT_TIMEOUT_MS ((int64_t)24 * 3600 * 1000)

struct client {
	struct rpc_channel *channel;
	char *address, *token;
};

/* By --master, GRANARY_MASTER, --state-dir, or the default state directory. -EAGAIN when nobody
 * answers there, with a text that says what to start. */
int client_connect(const struct invocation *inv, struct client *ret, struct error *err);
/* To a known address; does not check that somebody answers. */
int client_open(const char *address, const char *token, struct client *ret, struct error *err);
/* Does somebody listen on this "unix:PATH"? 1 or 0; -EACCES when this user may not ask, with a text
 * that says whose it is. 0 for HOST:PORT. Starts no thread, so that a fork may follow. */
int client_socket_probe(const char *address, struct error *err);
/* Secrets are told over a unix socket only; a master elsewhere uses what its own host gives it. */
bool client_is_local(const struct client *c);
void client_close(struct client *c);

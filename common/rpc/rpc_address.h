/*
 * Addresses: "unix:/path" and "HOST:PORT", where HOST is a name, an IPv4 address, or an IPv6
 * address in brackets.
 */
#pragma once

#include <stdbool.h>
#include <sys/un.h>

#include "common/error.h"

#define RPC_ADDRESS_HOST_BYTES 254 /* of DNS, and the NUL */
#define RPC_ADDRESS_TARGET_BYTES 400

enum rpc_address_kind { RPC_ADDRESS_UNIX, RPC_ADDRESS_IPV4, RPC_ADDRESS_IPV6, RPC_ADDRESS_NAME };

struct rpc_address {
	enum rpc_address_kind kind;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	char host[RPC_ADDRESS_HOST_BYTES]; /* without brackets */
	int port;
};

/* -EINVAL and a text that names the address and what is wrong with it. */
int rpc_address_parse(const char *text, struct rpc_address *ret, struct error *err);

/* As the gRPC library wants it, for a channel and for a listener. */
void rpc_address_target(const struct rpc_address *a, char target[RPC_ADDRESS_TARGET_BYTES]);
void rpc_address_listen_target(const struct rpc_address *a, char target[RPC_ADDRESS_TARGET_BYTES]);

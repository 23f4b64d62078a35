#include "common/rpc/rpc_address.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "common/rpc/rpc.h"

int rpc_address_check(const char *address, struct error *err)
{
	struct address a;

	return address_parse(address, &a, err);
}

/* Targets are URIs: what a URI's path may not hold as it is has to be escaped. */
static void escape_path(const char *path, char *out, size_t room)
{
	size_t at = 0;

	for (const unsigned char *p = (const unsigned char *)path; *p; p++) {
		assert(at + 4 <= room);
		if (isalnum(*p) || strchr("/-._~", *p))
			out[at++] = (char)*p;
		else
			at += (size_t)sprintf(out + at, "%%%02X", *p);
	}
	out[at] = '\0';
}

void rpc_address_target(const struct address *a, char target[RPC_ADDRESS_TARGET_BYTES])
{
	char path[3 * sizeof(a->path) + 1];

	switch (a->kind) {
	case ADDRESS_UNIX:
		escape_path(a->path, path, sizeof(path));
		snprintf(target, RPC_ADDRESS_TARGET_BYTES, "unix:%s", path);
		break;
	case ADDRESS_IPV4:
		snprintf(target, RPC_ADDRESS_TARGET_BYTES, "ipv4:%s:%d", a->host, a->port);
		break;
	case ADDRESS_IPV6:
		snprintf(target, RPC_ADDRESS_TARGET_BYTES, "ipv6:%%5B%s%%5D:%d", a->host, a->port);
		break;
	case ADDRESS_NAME:
		snprintf(target, RPC_ADDRESS_TARGET_BYTES, "dns:///%s:%d", a->host, a->port);
		break;
	}
}

void rpc_address_listen_target(const struct address *a, char target[RPC_ADDRESS_TARGET_BYTES])
{
	if (a->kind == ADDRESS_UNIX)
		rpc_address_target(a, target);
	else
		snprintf(target, RPC_ADDRESS_TARGET_BYTES,
			a->kind == ADDRESS_IPV6 ? "[%s]:%d" : "%s:%d", a->host, a->port);
}

#include "common/rpc/rpc_address.h"

#include <arpa/inet.h>
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/rpc/rpc.h"

static int parse_unix(const char *text, struct rpc_address *ret, struct error *err)
{
	const char *path = text + strlen("unix:");

	if (path[0] != '/')
		return error_set(err, -EINVAL,
			"address \"%s\": the path of a unix socket must be absolute (unix:/path)",
			text);
	if (strlen(path) >= sizeof(ret->path))
		return error_set(err, -EINVAL,
			"address \"%.40s...\": the path of a unix socket has %zu bytes, the "
			"system allows %zu; choose a shorter directory",
			text, strlen(path), sizeof(ret->path) - 1);
	ret->kind = RPC_ADDRESS_UNIX;
	strcpy(ret->path, path);
	return 0;
}

static int parse_port(
	const char *text, const char *port, struct rpc_address *ret, struct error *err)
{
	size_t len = strlen(port);

	if (len < 1 || len > 5 || strspn(port, "0123456789") != len || atoi(port) > 65535)
		return error_set(err, -EINVAL, "address \"%s\": \"%s\" is not a port (0 to 65535)",
			text, port);
	ret->port = atoi(port);
	return 0;
}

static bool is_host_name(const char *host)
{
	if (!isalnum((unsigned char)host[0]))
		return false;
	for (const char *p = host; *p; p++)
		if (!isalnum((unsigned char)*p) && *p != '-' && *p != '.' && *p != '_')
			return false;
	return true;
}

static int classify_host(
	const char *text, bool bracketed, struct rpc_address *ret, struct error *err)
{
	struct in6_addr ip6;
	struct in_addr ip4;

	if (bracketed) {
		if (inet_pton(AF_INET6, ret->host, &ip6) != 1)
			return error_set(err, -EINVAL,
				"address \"%s\": \"%s\" is not an IPv6 address", text, ret->host);
		ret->kind = RPC_ADDRESS_IPV6;
	} else if (inet_pton(AF_INET, ret->host, &ip4) == 1) {
		ret->kind = RPC_ADDRESS_IPV4;
	} else if (is_host_name(ret->host)) {
		ret->kind = RPC_ADDRESS_NAME;
	} else {
		return error_set(err, -EINVAL,
			"address \"%s\": \"%s\" is neither a host name nor an IP address", text,
			ret->host);
	}
	return 0;
}

static int parse_host_port(const char *text, struct rpc_address *ret, struct error *err)
{
	bool bracketed = text[0] == '[';
	const char *host = bracketed ? text + 1 : text;
	const char *end = bracketed ? strchr(host, ']') : strchr(host, ':');
	const char *colon = bracketed && end ? end + 1 : end;

	if (!end || *colon != ':')
		return error_set(err, -EINVAL,
			"address \"%.200s\" is neither unix:/path nor HOST:PORT", text);
	if (!bracketed && strchr(colon + 1, ':'))
		return error_set(err, -EINVAL,
			"address \"%.200s\": write an IPv6 address in brackets, [::1]:PORT", text);
	if (end == host || (size_t)(end - host) >= sizeof(ret->host))
		return error_set(err, -EINVAL, "address \"%.200s\": the host is %s", text,
			end == host ? "missing" : "too long");
	memcpy(ret->host, host, (size_t)(end - host));
	ret->host[end - host] = '\0';
	if (classify_host(text, bracketed, ret, err) < 0)
		return -EINVAL;
	return parse_port(text, colon + 1, ret, err);
}

int rpc_address_parse(const char *text, struct rpc_address *ret, struct error *err)
{
	struct rpc_address a = {.port = -1};
	int r;

	if (!text || !text[0])
		return error_set(
			err, -EINVAL, "the address is empty; it is unix:/path or HOST:PORT");
	if (strncmp(text, "unix:", 5) == 0)
		r = parse_unix(text, &a, err);
	else
		r = parse_host_port(text, &a, err);
	if (r == 0)
		*ret = a;
	return r;
}

int rpc_address_check(const char *address, struct error *err)
{
	struct rpc_address a;

	return rpc_address_parse(address, &a, err);
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

void rpc_address_target(const struct rpc_address *a, char target[RPC_ADDRESS_TARGET_BYTES])
{
	char path[3 * sizeof(a->path) + 1];

	switch (a->kind) {
	case RPC_ADDRESS_UNIX:
		escape_path(a->path, path, sizeof(path));
		snprintf(target, RPC_ADDRESS_TARGET_BYTES, "unix:%s", path);
		break;
	case RPC_ADDRESS_IPV4:
		snprintf(target, RPC_ADDRESS_TARGET_BYTES, "ipv4:%s:%d", a->host, a->port);
		break;
	case RPC_ADDRESS_IPV6:
		snprintf(target, RPC_ADDRESS_TARGET_BYTES, "ipv6:%%5B%s%%5D:%d", a->host, a->port);
		break;
	case RPC_ADDRESS_NAME:
		snprintf(target, RPC_ADDRESS_TARGET_BYTES, "dns:///%s:%d", a->host, a->port);
		break;
	}
}

void rpc_address_listen_target(const struct rpc_address *a, char target[RPC_ADDRESS_TARGET_BYTES])
{
	if (a->kind == RPC_ADDRESS_UNIX)
		rpc_address_target(a, target);
	else
		snprintf(target, RPC_ADDRESS_TARGET_BYTES,
			a->kind == RPC_ADDRESS_IPV6 ? "[%s]:%d" : "%s:%d", a->host, a->port);
}

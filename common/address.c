#include "common/address.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cleanup.h"

#define LISTEN_BACKLOG 64

static int parse_unix(const char *text, struct address *ret, struct error *err)
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
	ret->kind = ADDRESS_UNIX;
	strcpy(ret->path, path);
	return 0;
}

static int parse_port(const char *text, const char *port, struct address *ret, struct error *err)
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

static int classify_host(const char *text, bool bracketed, struct address *ret, struct error *err)
{
	struct in6_addr ip6;
	struct in_addr ip4;

	if (bracketed) {
		if (inet_pton(AF_INET6, ret->host, &ip6) != 1)
			return error_set(err, -EINVAL,
				"address \"%s\": \"%s\" is not an IPv6 address", text, ret->host);
		ret->kind = ADDRESS_IPV6;
	} else if (inet_pton(AF_INET, ret->host, &ip4) == 1) {
		ret->kind = ADDRESS_IPV4;
	} else if (is_host_name(ret->host)) {
		ret->kind = ADDRESS_NAME;
	} else {
		return error_set(err, -EINVAL,
			"address \"%s\": \"%s\" is neither a host name nor an IP address", text,
			ret->host);
	}
	return 0;
}

static int parse_host_port(const char *text, struct address *ret, struct error *err)
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

int address_parse(const char *text, struct address *ret, struct error *err)
{
	struct address a = {.port = -1};
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

static int bind_listening(const struct addrinfo *ai, int *ret_fd)
{
	cleanup_fd int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int one = 1;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0)
		return -errno;
	/* Without listen, two sockets with SO_REUSEADDR may both bind. */
	if (listen(fd, LISTEN_BACKLOG) < 0)
		return -errno;
	if (ret_fd)
		*ret_fd = steal_fd(&fd);
	return 0;
}

int address_listen_tcp(const struct address *a, const char *text, int *ret_fd, struct error *err)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC,
		.ai_socktype = SOCK_STREAM,
		.ai_flags = AI_PASSIVE | AI_NUMERICSERV};
	struct addrinfo *list;
	char port[8];
	int r;

	snprintf(port, sizeof(port), "%d", a->port);
	r = getaddrinfo(a->host, port, &hints, &list);
	if (r != 0)
		return error_set(err, -EINVAL, "cannot listen on %s: %s: %s", text, a->host,
			gai_strerror(r));
	r = bind_listening(list, ret_fd);
	freeaddrinfo(list);
	switch (r) {
	case 0:
		return 0;
	case -EADDRINUSE:
		return error_set(
			err, r, "cannot listen on %s: another program has that port", text);
	case -EADDRNOTAVAIL:
		return error_set(
			err, r, "cannot listen on %s: this machine has no such address", text);
	default:
		return error_set_errno(err, r, "cannot listen on %s", text);
	}
}

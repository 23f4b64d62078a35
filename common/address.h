/*
 * Addresses that people write: "unix:/path" and "HOST:PORT", where HOST is a name, an IPv4 address,
 * or an IPv6 address in brackets.
 */
#pragma once

#include <sys/un.h>

#include "common/error.h"

#define ADDRESS_HOST_BYTES 254 /* of DNS, and the NUL */

enum address_kind { ADDRESS_UNIX, ADDRESS_IPV4, ADDRESS_IPV6, ADDRESS_NAME };

struct address {
	enum address_kind kind;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)]; /* of a unix socket, absolute */
	char host[ADDRESS_HOST_BYTES];				/* without brackets */
	int port;
};

/* -EINVAL and a text that names the address and what is wrong with it. */
int address_parse(const char *text, struct address *ret, struct error *err);

/* Can this address be listened on? The text of a failure says why not; `text` is the address as it
 * was written. With ret_fd (may be NULL) the listening TCP socket is handed out. */
int address_listen_tcp(const struct address *a, const char *text, int *ret_fd, struct error *err);

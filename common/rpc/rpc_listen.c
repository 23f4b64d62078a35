#include <assert.h>
#include <errno.h>
#include <unistd.h>

#include <grpc/grpc_security.h>

#include "common/address.h"
#include "common/cleanup.h"
#include "common/rpc/rpc.h"
#include "common/rpc/rpc_address.h"
#include "common/rpc/rpc_server.h"
#include "common/unix_socket.h"

static int listen_core(struct rpc_server *s, const struct address *a)
{
	char target[RPC_ADDRESS_TARGET_BYTES];
	grpc_server_credentials *creds = grpc_insecure_server_credentials_create();
	int port;

	rpc_address_listen_target(a, target);
	port = grpc_server_add_http2_port(s->core, target, creds);
	grpc_server_credentials_release(creds);
	return port;
}

static int listen_unix(struct rpc_server *s, struct rpc_listener *l, struct error *err)
{
	const char *path = l->address.path;
	int lock, r;
	mode_t old;

	/* The library removes whatever is in the way of a bind, and its path when it closes: the
	 * claim keeps it from taking another process's socket. */
	r = unix_socket_claim(path, &lock, err);
	if (r < 0)
		return r;
	old = unix_socket_private_begin();
	if (listen_core(s, &l->address) == 0)
		r = error_set(err, -EIO, "cannot listen on unix:%s", path);
	unix_socket_private_end(old);
	if (r < 0) {
		unix_socket_release(path, lock);
		return r;
	}
	/* From here on the library removes the path at the end: the lock stays until then. */
	l->lock_fd = lock;
	s->n_listeners++;
	return unix_socket_admit(path, s->socket_group, err);
}

static int listen_tcp(struct rpc_server *s, const struct address *a, const char *text,
	int *ret_port, struct error *err)
{
	int port, r;

	if (!s->token)
		return error_set(err, -EINVAL,
			"%s: a server that listens on TCP needs a token (--token-file)", text);
	/* The library says only that it could not; a bind of our own says why. */
	r = address_listen_tcp(a, text, NULL, err);
	if (r < 0)
		return r;
	port = listen_core(s, a);
	if (port == 0)
		return error_set(err, -EIO, "cannot listen on %s", text);
	s->has_tcp = true;
	if (ret_port)
		*ret_port = port;
	return 0;
}

int rpc_server_listen(struct rpc_server *s, const char *address, int *ret_port, struct error *err)
{
	struct rpc_listener *l = &s->listeners[s->n_listeners];
	int r;

	assert(s->state == RPC_SERVER_NEW);
	if (s->n_listeners == RPC_LISTENERS_MAX)
		return error_set(err, -EINVAL, "%s: a server listens on at most %d addresses",
			address, RPC_LISTENERS_MAX);
	r = address_parse(address, &l->address, err);
	if (r < 0)
		return r;
	if (l->address.kind == ADDRESS_UNIX)
		return listen_unix(s, l, err);
	return listen_tcp(s, &l->address, address, ret_port, err);
}

void rpc_server_unlisten(struct rpc_server *s)
{
	for (unsigned i = 0; i < s->n_listeners; i++) {
		struct rpc_listener *l = &s->listeners[i];

		unix_socket_release(l->address.path, steal_fd(&l->lock_fd));
	}
	s->n_listeners = 0;
}

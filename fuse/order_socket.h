/*
 * Where jobs announce their order: a Unix socket and one thread that hears all of them.
 *
 * Who may connect is decided by the socket's mode, and without a group also by the peer's user. What
 * comes in is validated; whoever breaks the protocol is told, and disconnected. A job that announces
 * more than may wait is not read from until there is room.
 *
 * Bounds: ORDER_CLIENTS_MAX connections with a frame each.
 */
#pragma once

#include "common/error.h"
#include "fuse/loader_pace.h"
#include "fuse/order.h"

#define ORDER_CLIENTS_MAX 64

struct order_socket;

/* In `dir`, with a name that follows from the mount point. `group` may be NULL. */
int order_socket_start(struct order *order, struct loader_pace *loaders, const char *dir,
	const char *mountpoint, const char *group, struct order_socket **ret, struct error *err);
const char *order_socket_path(const struct order_socket *s);
void order_socket_stop(struct order_socket *s); /* NULL is fine */

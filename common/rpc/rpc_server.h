/*
 * The inside of a server, shared by rpc_server.c (life, dispatch), rpc_listen.c (sockets),
 * rpc_call.c (one call) and rpc_health.c.
 *
 * A lane is a queue of new calls and the threads that take them off it and run their handlers
 * inline. The main lane has opts.threads; the control lane has one thread for calls that never
 * block (health), which therefore answer while every handler of the main lane is busy; each bounded
 * method has a lane, so that its calls keep no thread from the others. A lane has as many slots as
 * threads (control: one of each method); further calls wait inside the library, without a thread,
 * until a slot is free, their deadline passes or their client goes.
 *
 * A slot (struct rpc_call) is what one call needs; it is posted to its lane, filled by the library
 * when a call arrives, served, and posted again. A handler may detach its call and end it later
 * from any thread; a fresh slot takes the place of the detached one.
 */
#pragma once

#include <stdatomic.h>

#include <grpc/grpc.h>

#include "common/rpc/rpc.h"
#include "common/rpc/rpc_address.h"
#include "common/sync.h"

#define RPC_METHODS_MAX 128
#define RPC_BOUNDED_MAX 8
#define RPC_LISTENERS_MAX 8
#define RPC_THREADS_MAX 1024

struct rpc_method {
	const char *path;
	rpc_handler *handler;
	void *arg;
	void *registered; /* the library's handle, for methods outside of the main lane */
};

struct rpc_lane {
	grpc_completion_queue *next;
	pthread_t *threads;
	unsigned wanted;
	unsigned started;
	bool quick; /* its few threads wait for no slow peer */
};

struct rpc_listener {
	struct address address;
	int lock_fd; /* held as long as the socket is ours */
};

enum rpc_server_state { RPC_SERVER_NEW, RPC_SERVER_STARTED, RPC_SERVER_STOPPED };

struct rpc_server {
	grpc_server *core;
	char *token;
	char *socket_group;
	struct rpc_lane main;
	struct rpc_lane control;

	/* fixed at start */
	struct rpc_method methods[RPC_METHODS_MAX];
	unsigned n_methods;
	struct rpc_method control_methods[4];
	unsigned n_control_methods;
	struct rpc_method bounded_methods[RPC_BOUNDED_MAX];
	struct rpc_lane bounded[RPC_BOUNDED_MAX]; /* of the method at the same place */
	unsigned n_bounded;
	struct rpc_listener listeners[RPC_LISTENERS_MAX]; /* the unix sockets */
	unsigned n_listeners;
	bool has_tcp;
	void (*on_stop)(void *arg); /* ends the detached calls */
	void *on_stop_arg;

	struct mutex mu;
	struct cond changed;
	/* guarded by mu */
	enum rpc_server_state state;
	bool stopping;
	bool core_down;	  /* the library has finished its shutdown */
	unsigned running; /* calls between arrival and the end of their slot's work */

	atomic_uint loans; /* slices of rpc_call_send_bytes that the transport still holds */
};

/* Before start. The handler must not block; it may detach its call. */
void rpc_server_add_control(
	struct rpc_server *s, const char *path, rpc_handler *handler, void *arg);
/* Releases the sockets' locks; the library has closed and removed the sockets. */
void rpc_server_unlisten(struct rpc_server *s);

bool rpc_server_is_stopping(struct rpc_server *s);

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/rpc/rpc.h"
#include "common/rpc/rpc_call.h"
#include "common/rpc/rpc_server.h"
#include "common/sync.h"

#include "grpc/health/v1/health.pb-c.h"

#define SERVICES_MAX 32
#define SERVICE_NAME_BYTES 128
#define WATCHERS_MAX 64

typedef Grpc__Health__V1__HealthCheckRequest check_request;
typedef Grpc__Health__V1__HealthCheckResponse check_response;

#define UNKNOWN_SERVICE GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN

struct service {
	char name[SERVICE_NAME_BYTES];
	int status;
};

struct watcher {
	struct rpc_call *call;
	char name[SERVICE_NAME_BYTES];
	int told;
};

/*
 * Watchers are detached calls: they cost no thread. Whoever changes a status, or comes with another
 * watch, sends what has to be sent and ends the calls whose clients are gone.
 */
struct rpc_health {
	struct rpc_server *server;
	/* Held across the sends to watchers, the one exception to the rule: their messages have two
	 * bytes, nothing else is locked inside, and order among them is the point. */
	struct mutex mu;
	/* guarded by mu */
	struct service services[SERVICES_MAX];
	unsigned n_services;
	struct watcher watchers[WATCHERS_MAX];
	unsigned n_watchers;
	bool stopped;
};

static struct service *find_locked(struct rpc_health *h, const char *name)
{
	assert(mutex_held(&h->mu));
	for (unsigned i = 0; i < h->n_services; i++)
		if (strcmp(h->services[i].name, name) == 0)
			return &h->services[i];
	return NULL;
}

static int status_locked(struct rpc_health *h, const char *name)
{
	struct service *s = find_locked(h, name);

	return s ? s->status : UNKNOWN_SERVICE;
}

static void drop_watcher_locked(struct rpc_health *h, unsigned i)
{
	rpc_call_fail(h->watchers[i].call, -EAGAIN, "the server stops");
	h->watchers[i] = h->watchers[--h->n_watchers];
}

/* Tells the watchers what they do not know yet, and forgets those that are gone. */
static void tell_watchers_locked(struct rpc_health *h)
{
	for (unsigned i = h->n_watchers; i-- > 0;) {
		struct watcher *w = &h->watchers[i];
		check_response reply = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
		bool gone = rpc_call_cancelled(w->call);

		reply.status = status_locked(h, w->name);
		if (!gone && (int)reply.status != w->told) {
			w->told = reply.status;
			gone = rpc_call_send(w->call, &reply.base) < 0;
		}
		if (gone)
			drop_watcher_locked(h, i);
	}
}

static void check(struct rpc_call *call, void *arg)
{
	struct rpc_health *h = arg;
	const check_request *req = (const check_request *)rpc_call_request(
		call, &grpc__health__v1__health_check_request__descriptor);
	check_response reply = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;

	if (!req)
		return;
	{
		mutex_guard(&h->mu);
		reply.status = status_locked(h, req->service);
	}
	if (reply.status == UNKNOWN_SERVICE)
		rpc_call_fail(call, -ENOENT, "no such service");
	else
		rpc_call_reply(call, &reply.base);
}

static void watch(struct rpc_call *call, void *arg)
{
	struct rpc_health *h = arg;
	const check_request *req = (const check_request *)rpc_call_request(
		call, &grpc__health__v1__health_check_request__descriptor);
	struct watcher w = {.call = call, .told = -1};

	if (!req)
		return;
	if (strlen(req->service) >= sizeof(w.name)) {
		rpc_call_fail(call, -EINVAL, "the service name is too long");
		return;
	}
	strcpy(w.name, req->service);
	mutex_guard(&h->mu);
	tell_watchers_locked(h);
	if (h->stopped) {
		rpc_call_fail(call, -EAGAIN, "the server stops");
	} else if (h->n_watchers == WATCHERS_MAX) {
		rpc_call_fail(call, -ENOSPC, "too many watch already");
	} else {
		rpc_call_detach(call);
		h->watchers[h->n_watchers++] = w;
		tell_watchers_locked(h);
	}
}

/* Clients learn from a last message, then from the end, that the server goes away. */
static void stop(void *arg)
{
	struct rpc_health *h = arg;

	mutex_guard(&h->mu);
	h->stopped = true;
	for (unsigned i = 0; i < h->n_services; i++)
		h->services[i].status =
			GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING;
	tell_watchers_locked(h);
	while (h->n_watchers > 0)
		drop_watcher_locked(h, h->n_watchers - 1);
}

int rpc_health_new(struct rpc_server *s, struct rpc_health **ret, struct error *err)
{
	struct rpc_health *h = calloc(1, sizeof(*h));

	if (!h)
		return error_set(err, -ENOMEM, "out of memory");
	h->server = s;
	mutex_init(&h->mu);
	rpc_server_add_control(s, "/grpc.health.v1.Health/Check", check, h);
	rpc_server_add_control(s, "/grpc.health.v1.Health/Watch", watch, h);
	s->on_stop = stop;
	s->on_stop_arg = h;
	rpc_health_set(h, "", false);
	*ret = h;
	return 0;
}

void rpc_health_set(struct rpc_health *h, const char *service, bool serving)
{
	struct service *s;

	mutex_guard(&h->mu);
	if (h->stopped)
		return;
	s = find_locked(h, service);
	if (!s) {
		assert(h->n_services < SERVICES_MAX && strlen(service) < sizeof(s->name));
		s = &h->services[h->n_services++];
		strcpy(s->name, service);
	}
	s->status = serving ? GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
			    : GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING;
	tell_watchers_locked(h);
}

void rpc_health_free(struct rpc_health *h)
{
	if (!h)
		return;
	assert(h->n_watchers == 0);
	mutex_deinit(&h->mu);
	free(h);
}

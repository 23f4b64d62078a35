#define LOG_SUBSYSTEM "mount"
#include "fuse/master_link.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/sync.h"
#include "fuse/thread.h"

#define OPEN_PATH "/granary.v1.ClusterService/OpenMount"
#define HEARTBEAT_PATH "/granary.v1.ClusterService/MountHeartbeat"
#define CLOSE_PATH "/granary.v1.ClusterService/CloseMount"
#define OPEN_TIMEOUT_MS 15000
#define HEARTBEAT_TIMEOUT_MS 3000
#define CLOSE_TIMEOUT_MS 2000
#define INTERVAL_DEFAULT_MS 1000
#define INTERVAL_MIN_MS 100
#define INTERVAL_MAX_MS 10000
#define HOST_BYTES 256
#define DIRECT_MAX_MS ((int64_t)86400000)

struct master_link {
	struct master_link_options opts; /* its strings are the copies below */
	char *dataset, *mountpoint, *host_id, *mode, *job;
	char host[HOST_BYTES];
	struct rpc_channel *channel;
	pthread_t thread;
	bool started;
	/* owned by the thread, once started */
	uint64_t mount_id, interval_ms;
	int64_t asked_ms; /* when the call began that is answered; 0: nobody knows */
	bool directed;	  /* the last plan came with a direct share: */
	struct master_direct direct;
	void *kept; /* as it was given to opts.keep */
	size_t kept_bytes;
	uint64_t dataset_id; /* of the first plan, and so of all that is shown; 0: none yet */
	bool lost;	     /* the last exchange failed, and that was logged */

	struct mutex mu;
	struct cond wake;
	bool closing; /* guarded by mu */
};

struct rpc_channel *master_link_channel(struct master_link *l)
{
	return l->channel;
}

static void set_interval(struct master_link *l, uint64_t interval_ms)
{
	if (interval_ms == 0)
		interval_ms = INTERVAL_DEFAULT_MS;
	if (interval_ms < INTERVAL_MIN_MS)
		interval_ms = INTERVAL_MIN_MS;
	l->interval_ms = interval_ms < INTERVAL_MAX_MS ? interval_ms : INTERVAL_MAX_MS;
}

/* ---- the three calls ---------------------------------------------------------------------------
 */

static double sane_rate(double bytes_per_s)
{
	return isfinite(bytes_per_s) && bytes_per_s > 0 ? bytes_per_s : 0;
}

static int64_t sane_ms(uint64_t ms)
{
	return ms < DIRECT_MAX_MS ? (int64_t)ms : DIRECT_MAX_MS;
}

/* Counted from when it was asked for: so it ends here before it does with the master. */
static void take_direct(struct master_link *l, const Granary__V1__DirectShare *told)
{
	l->directed = told != NULL;
	if (told)
		l->direct = (struct master_direct){.bytes_per_s = sane_rate(told->bytes_per_s),
			.base_bytes_per_s = sane_rate(told->base_bytes_per_s),
			.until_ms = l->asked_ms + sane_ms(told->lease_ms),
			.base_until_ms = l->asked_ms + sane_ms(told->base_ms)};
}

/* The plan of another dataset, which took the name of the one that is shown, is not for us: neither
 * its snapshots nor its blocks are. (A master that knows dataset_id refuses; an older one does
 * not.) */
static int take_plan(
	struct master_link *l, const Granary__V1__OpenMountReply *told, struct error *err)
{
	const Granary__V1__DatasetPlan *plan = told->plan;

	if (l->dataset_id && plan->dataset_id != l->dataset_id)
		return error_set(err, -ESTALE,
			"the master has another dataset under the name %s: unmount and mount again "
			"to see that one",
			l->dataset);
	l->dataset_id = plan->dataset_id;
	take_direct(l, told->direct);
	l->opts.heard(
		l->opts.arg, plan, told->workers, told->n_workers, l->directed ? &l->direct : NULL);
	return 0;
}

static uint64_t pid(const struct master_link *l)
{
	return l->opts.pid ? l->opts.pid(l->opts.arg) : (uint64_t)getpid();
}

/* Plans seldom change, and a heartbeat brings one each second. */
static void keep(struct master_link *l, const Granary__V1__OpenMountReply *told)
{
	Granary__V1__OpenMountReply all = *told;
	cleanup_free void *packed = NULL;
	size_t bytes;

	if (!l->opts.keep)
		return;
	all.mount_id = l->mount_id;
	all.interval_ms = l->interval_ms;
	bytes = protobuf_c_message_get_packed_size(&all.base);
	packed = malloc(bytes);
	if (!packed)
		return;
	protobuf_c_message_pack(&all.base, packed);
	if (bytes == l->kept_bytes && memcmp(packed, l->kept, bytes) == 0)
		return;
	l->opts.keep(l->opts.arg, packed, bytes);
	free(l->kept);
	l->kept = steal(&packed);
	l->kept_bytes = bytes;
}

static void send_close(struct master_link *l, const Granary__V1__CloseMountRequest *request)
{
	struct error err = ERROR_INIT;
	ProtobufCMessage *reply;

	if (rpc_unary(l->channel, CLOSE_PATH, &request->base,
		    &granary__v1__close_mount_reply__descriptor, &reply,
		    clock_deadline_ms(CLOSE_TIMEOUT_MS), &err) < 0)
		log_warn("%s: the master was not told of the unmount: %s", l->mountpoint, err.text);
	else
		protobuf_c_message_free_unpacked(reply, NULL);
}

static int take_opened(
	struct master_link *l, const Granary__V1__OpenMountReply *reply, struct error *err)
{
	Granary__V1__CloseMountRequest undo = GRANARY__V1__CLOSE_MOUNT_REQUEST__INIT;
	int r;

	if (!reply->plan || reply->plan->n_snapshots == 0)
		return error_set(
			err, -EINVAL, "the master told no snapshot of dataset %s", l->dataset);
	r = take_plan(l, reply, err);
	if (r < 0) {
		undo.mount_id = reply->mount_id;
		send_close(l, &undo);
		return r;
	}
	l->mount_id = reply->mount_id;
	set_interval(l, reply->interval_ms);
	keep(l, reply);
	return 0;
}

static int resume(struct master_link *l, struct error *err)
{
	Granary__V1__OpenMountReply *kept =
		granary__v1__open_mount_reply__unpack(NULL, l->opts.kept_bytes, l->opts.kept);
	int r = kept ? 0 : error_set(err, -EPROTO, "the plan that was kept is damaged");

	if (r == 0)
		r = take_opened(l, kept, err);
	if (kept)
		granary__v1__open_mount_reply__free_unpacked(kept, NULL);
	return r;
}

static int call_open(struct master_link *l, int64_t timeout_ms, struct error *err)
{
	Granary__V1__OpenMountRequest request = GRANARY__V1__OPEN_MOUNT_REQUEST__INIT;
	Granary__V1__OpenMountReply *reply;
	int r;

	request.dataset = l->dataset;
	request.dataset_id = l->dataset_id;
	request.mountpoint = l->mountpoint;
	request.host = l->host;
	request.host_id = l->host_id;
	request.pid = pid(l);
	request.mode = l->mode;
	request.job = l->job;
	l->asked_ms = clock_mono_ms();
	r = rpc_unary(l->channel, OPEN_PATH, &request.base,
		&granary__v1__open_mount_reply__descriptor, (ProtobufCMessage **)&reply,
		clock_deadline_ms(timeout_ms), err);
	if (r < 0)
		return r;
	r = take_opened(l, reply, err);
	protobuf_c_message_free_unpacked(&reply->base, NULL);
	return r;
}

static void fill_report(struct master_link *l, Granary__V1__MountHeartbeatRequest *ret)
{
	granary__v1__mount_heartbeat_request__init(ret);
	ret->mount_id = l->mount_id;
	ret->dataset = l->dataset;
	ret->dataset_id = l->dataset_id;
	ret->mountpoint = l->mountpoint;
	ret->host = l->host;
	ret->host_id = l->host_id;
	ret->pid = pid(l);
	ret->job = l->job;
	if (l->directed && !clock_passed(l->direct.base_until_ms)) {
		ret->direct_base_bytes_per_s = l->direct.base_bytes_per_s;
		ret->direct_bytes_per_s = clock_passed(l->direct.until_ms)
						  ? l->direct.base_bytes_per_s
						  : l->direct.bytes_per_s;
	}
	l->opts.report(l->opts.arg, ret);
}

static int call_heartbeat(struct master_link *l, struct error *err)
{
	Granary__V1__OpenMountReply told = GRANARY__V1__OPEN_MOUNT_REPLY__INIT;
	Granary__V1__MountHeartbeatRequest request;
	Granary__V1__MountHeartbeatReply *reply;
	int r;

	fill_report(l, &request);
	l->asked_ms = clock_mono_ms();
	r = rpc_unary(l->channel, HEARTBEAT_PATH, &request.base,
		&granary__v1__mount_heartbeat_reply__descriptor, (ProtobufCMessage **)&reply,
		clock_deadline_ms(HEARTBEAT_TIMEOUT_MS), err);
	if (r < 0)
		return r;
	set_interval(l, reply->interval_ms);
	if (reply->plan && reply->plan->n_snapshots > 0) {
		told.plan = reply->plan;
		told.workers = reply->workers;
		told.n_workers = reply->n_workers;
		told.direct = reply->direct;
		r = take_plan(l, &told, err);
		if (r == 0)
			keep(l, &told);
	}
	protobuf_c_message_free_unpacked(&reply->base, NULL);
	return r;
}

static void call_close(struct master_link *l)
{
	Granary__V1__CloseMountRequest request = GRANARY__V1__CLOSE_MOUNT_REQUEST__INIT;
	Granary__V1__MountHeartbeatRequest last;

	fill_report(l, &last);
	request.mount_id = l->mount_id;
	request.last = &last;
	send_close(l, &request);
}

/* ---- the thread --------------------------------------------------------------------------------
 */

static void exchange(struct master_link *l)
{
	struct error err = ERROR_INIT;
	int r = call_heartbeat(l, &err);

	/* It forgot us, or another one took its place without its memory. */
	if (r == -ENOENT)
		r = call_open(l, HEARTBEAT_TIMEOUT_MS, &err);
	if (r < 0 && !l->lost)
		log_warn("%s: no plan from the master, the mount goes on without it: %s",
			l->mountpoint, err.text);
	else if (r == 0 && l->lost)
		log_info("%s: the master is back", l->mountpoint);
	l->lost = r < 0;
}

static bool wait_interval(struct master_link *l)
{
	int64_t deadline_ms = clock_deadline_ms((int64_t)l->interval_ms);
	mutex_guard(&l->mu);

	while (!l->closing) {
		if (cond_wait(&l->wake, &l->mu, deadline_ms) == -ETIMEDOUT)
			break;
	}
	return !l->closing;
}

static void *link_main(void *arg)
{
	struct master_link *l = arg;

	while (wait_interval(l))
		exchange(l);
	return NULL;
}

/* ---- begin and end -----------------------------------------------------------------------------
 */

static void link_free(struct master_link *l)
{
	rpc_channel_free(l->channel);
	cond_deinit(&l->wake);
	mutex_deinit(&l->mu);
	free(l->kept);
	free(l->dataset);
	free(l->mountpoint);
	free(l->host_id);
	free(l->mode);
	free(l->job);
	free(l);
}

static int copy_options(struct master_link *l)
{
	l->dataset = strdup(l->opts.dataset);
	l->mountpoint = strdup(l->opts.mountpoint);
	l->host_id = strdup(l->opts.host_id);
	l->mode = strdup(l->opts.mode);
	l->job = strdup(l->opts.job);
	if (!l->dataset || !l->mountpoint || !l->host_id || !l->mode || !l->job)
		return -ENOMEM;
	if (gethostname(l->host, sizeof(l->host) - 1) < 0)
		strcpy(l->host, "?");
	return 0;
}

int master_link_open(
	const struct master_link_options *opts, struct master_link **ret, struct error *err)
{
	struct master_link *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return error_set(err, -ENOMEM, "out of memory");
	l->opts = *opts;
	mutex_init(&l->mu);
	cond_init(&l->wake);
	r = copy_options(l);
	if (r < 0)
		error_set(err, r, "out of memory");
	if (r == 0)
		r = rpc_channel_new(opts->address, opts->token, &l->channel, err);
	if (r == 0 && l->opts.kept) {
		r = resume(l, err);
	} else if (r == 0) {
		r = call_open(l, OPEN_TIMEOUT_MS, err);
		if (r < 0)
			error_prefix(err, r, "master at %s", opts->address);
	}
	if (r < 0) {
		link_free(l);
		return r;
	}
	*ret = l;
	return 0;
}

int master_link_start(struct master_link *l, struct error *err)
{
	int r = thread_start(&l->thread, link_main, l);

	if (r < 0)
		return error_set_errno(err, r, "cannot start a thread");
	l->started = true;
	return 0;
}

void master_link_close(struct master_link *l)
{
	if (!l)
		return;
	mutex_lock(&l->mu);
	l->closing = true;
	cond_signal(&l->wake);
	mutex_unlock(&l->mu);
	if (l->started)
		pthread_join(l->thread, NULL);
	call_close(l);
	link_free(l);
}

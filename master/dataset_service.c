/* DatasetService: see proto/granary/v1/dataset.proto for what each call means. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "master/dataset_add.h"
#include "master/dataset_import.h"
#include "master/master_state.h"
#include "master/messages.h"

#define LOG_SUBSYSTEM "master"
#include "common/log.h"

#define SERVICE "/granary.v1.DatasetService/"
#define PLAN_WAIT_MS 30000 /* for a reply that shows what was granted */
#define PLAN_WAIT_SLICE_MS 100
#define LIST_MAX_BYTES ((size_t)7 << 20)

DEFINE_CLEANUP(struct namespace_batch *, namespace_batch_free)
DEFINE_CLEANUP(struct dataset_config *, dataset_config_unref)
DEFINE_CLEANUP(struct dataset_secrets *, dataset_secrets_unref)

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "the master is out of memory");
}

static struct dataset *find_locked(struct master *m, const char *name, struct error *err)
{
	struct dataset *d = dataset_registry_find(&m->datasets, name);

	if (!d)
		error_set(err, -ENOENT,
			"there is no dataset '%.128s': `granary dataset ls` shows those there are",
			name);
	else if (!d->in_database)
		error_set(err, -ENOENT, "dataset %s is still being added: wait until that ends",
			name);
	return d && d->in_database ? d : NULL;
}

/* Waits for the plan as long as the caller does. */
static void wait_planned(struct master *m, struct rpc_call *call)
{
	int64_t end_ms = clock_deadline_ms(PLAN_WAIT_MS);
	bool planned = false;

	while (!planned && !clock_passed(end_ms) && !rpc_call_cancelled(call)) {
		mutex_guard(&m->mu);
		planned = master_wait_planned_locked(m, clock_deadline_ms(PLAN_WAIT_SLICE_MS));
	}
}

/* The dataset as it is now; NULL and an error when it is gone. */
static Granary__V1__Dataset *current_dataset(struct master *m, const char *name, struct error *err)
{
	Granary__V1__Dataset *msg;
	struct dataset *d;

	mutex_guard(&m->mu);
	d = find_locked(m, name, err);
	msg = d ? message_dataset(d, &m->workers) : NULL;
	if (d && !msg)
		no_memory(err);
	return msg;
}

/* The dataset as it is once the plan is made. */
static Granary__V1__Dataset *planned_dataset(
	struct master *m, struct rpc_call *call, const char *name, struct error *err)
{
	wait_planned(m, call);
	return current_dataset(m, name, err);
}

/* ---- Add and Refresh ------------------------------------------------------------------------- */

static void send_outcome(struct master *m, struct rpc_call *call, const char *name,
	const struct import_outcome *outcome)
{
	Granary__V1__ImportProgress last = GRANARY__V1__IMPORT_PROGRESS__INIT;
	struct error err = ERROR_INIT;

	/* One that was there is not kept waiting: a plan for ten million entries takes seconds. */
	last.dataset =
		outcome ? planned_dataset(m, call, name, &err) : current_dataset(m, name, &err);
	if (!last.dataset) {
		rpc_call_fail(call, -ENOENT, err.text);
		return;
	}
	if (outcome) {
		last.report = import_report_message(outcome->report);
		last.entries = outcome->entries;
		last.bytes = outcome->bytes;
	}
	last.phase = (char *)(!outcome || outcome->unchanged ? "unchanged" : "done");
	rpc_call_send(call, &last.base);
	rpc_call_end(call);
	granary__v1__dataset__free_unpacked(last.dataset, NULL);
	if (last.report)
		granary__v1__import_report__free_unpacked(last.report, NULL);
}

static void on_add(struct rpc_call *call, void *arg)
{
	CLEANUP(dataset_config_unref_ptr) struct dataset_config *config = NULL;
	CLEANUP(dataset_secrets_unref_ptr) struct dataset_secrets *secrets = NULL;
	struct master *m = arg;
	struct import_outcome outcome = {0};
	struct error err = ERROR_INIT;
	const Granary__V1__AddDatasetRequest *request =
		(const Granary__V1__AddDatasetRequest *)rpc_call_request(
			call, &granary__v1__add_dataset_request__descriptor);
	int r;

	if (!request)
		return;
	r = dataset_add_check(call, request, &config, &secrets, &err);
	if (r == 0 && request->exists_ok)
		r = dataset_add_existing(m, config, &secrets, &err);
	if (r == 0)
		r = dataset_import_add(m, call, steal(&config), steal(&secrets),
			request->quota_limited, request->quota_bytes, &outcome, &err);
	if (r < 0) {
		rpc_call_fail(call, r, err.text);
	} else {
		if (r == 0)
			log_info("added dataset %s of %s", request->name, request->origin);
		send_outcome(m, call, request->name, r == DATASET_ADD_THERE ? NULL : &outcome);
	}
	import_outcome_deinit(&outcome);
}

static void on_refresh(struct rpc_call *call, void *arg)
{
	struct master *m = arg;
	struct import_outcome outcome;
	struct error err = ERROR_INIT;
	const Granary__V1__RefreshDatasetRequest *request =
		(const Granary__V1__RefreshDatasetRequest *)rpc_call_request(
			call, &granary__v1__refresh_dataset_request__descriptor);
	int r;

	if (!request)
		return;
	r = dataset_import_refresh(m, call, request->name, request->switch_mounts, &outcome, &err);
	if (r < 0)
		rpc_call_fail(call, r, err.text);
	else
		send_outcome(m, call, request->name, &outcome);
	import_outcome_deinit(&outcome);
}

/* ---- List and Get ---------------------------------------------------------------------------- */

int dataset_list_message(struct master *m, Granary__V1__Dataset ***ret, size_t *ret_count)
{
	struct dataset *d, *next;
	size_t bytes = 0;

	*ret_count = 0;
	{
		mutex_guard(&m->mu);
		*ret = calloc(dataset_registry_count(&m->datasets) + 1, sizeof(**ret));
		if (!*ret)
			return -ENOMEM;
		HASH_ITER (by_name, m->datasets.by_name, d, next) {
			if (!d->in_database)
				continue;
			(*ret)[*ret_count] = message_dataset(d, &m->workers);
			*ret_count += (*ret)[*ret_count] != NULL;
		}
	}
	for (size_t i = 0; i < *ret_count; i++)
		bytes += granary__v1__dataset__get_packed_size((*ret)[i]) + 8;
	for (size_t i = 0; bytes > LIST_MAX_BYTES && i < *ret_count; i++)
		message_dataset_shorten((*ret)[i]);
	return 0;
}

static void on_list(struct rpc_call *call, void *arg)
{
	struct master *m = arg;
	Granary__V1__ListDatasetsReply *reply;

	if (!rpc_call_request(call, &granary__v1__list_datasets_request__descriptor))
		return;
	reply = malloc(sizeof(*reply));
	if (reply)
		granary__v1__list_datasets_reply__init(reply);
	if (!reply || dataset_list_message(m, &reply->datasets, &reply->n_datasets) < 0)
		rpc_call_fail(call, -ENOMEM, "the master is out of memory");
	else
		rpc_call_reply(call, &reply->base);
	granary__v1__list_datasets_reply__free_unpacked(reply, NULL);
}

static void on_get(struct rpc_call *call, void *arg)
{
	struct master *m = arg;
	Granary__V1__Dataset *msg = NULL;
	struct error err = ERROR_INIT;
	const struct dataset *d;
	const Granary__V1__GetDatasetRequest *request =
		(const Granary__V1__GetDatasetRequest *)rpc_call_request(
			call, &granary__v1__get_dataset_request__descriptor);

	if (!request)
		return;
	mutex_lock(&m->mu);
	d = find_locked(m, request->name, &err);
	if (d && !(msg = message_dataset(d, &m->workers)))
		no_memory(&err);
	mutex_unlock(&m->mu);
	if (!msg) {
		rpc_call_fail(call, d ? -ENOMEM : -ENOENT, err.text);
		return;
	}
	/* Without a report, or when it cannot be read, the rest is worth telling. */
	(void)namespace_db_get(m->db, NAMESPACE_REPORT, msg->id, 0,
		&granary__v1__import_report__descriptor, (ProtobufCMessage **)&msg->report, NULL);
	rpc_call_reply(call, &msg->base);
	granary__v1__dataset__free_unpacked(msg, NULL);
}

/* ---- Remove ---------------------------------------------------------------------------------- */

static const struct mount_peer *live_mount_locked(struct master *m, const struct dataset *d)
{
	struct mount_peer *p, *next;

	HASH_ITER (hh, m->mounts.by_id, p, next) {
		if (p->live && p->dataset_id == d->id)
			return p;
	}
	return NULL;
}

static int remove_check_locked(
	struct master *m, const struct dataset *d, bool force, struct error *err)
{
	const struct mount_peer *p = force ? NULL : live_mount_locked(m, d);

	if (d->importing)
		return error_set(err, -ESTALE,
			"the origin of dataset %s is being listed: wait until that ends, or "
			"stop the command that does it",
			d->config->msg->name);
	if (p)
		return error_set(err, -ESTALE,
			"dataset %s is mounted (%zu times, one is %s on %.64s): unmount it "
			"first, or remove it with --force",
			d->config->msg->name, d->live_mounts, p->mountpoint, p->host);
	return 0;
}

/* The digests of the files that go with it, which the caller frees. */
static char (*digests_of(const struct dataset *d))[MANIFEST_DIGEST_TEXT_BYTES]
{
	char(*digests)[MANIFEST_DIGEST_TEXT_BYTES] =
		calloc(d->snapshots_count + 1, sizeof(*digests));

	for (size_t i = 0; digests && i < d->snapshots_count; i++)
		memcpy(digests[i], d->snapshots[i].state->digest, sizeof(*digests));
	return digests;
}

static int remove_dataset(struct master *m, const char *name, bool force, struct error *err)
{
	CLEANUP(namespace_batch_free_ptr) struct namespace_batch *batch = namespace_batch_new();
	cleanup_free char(*digests)[MANIFEST_DIGEST_TEXT_BYTES] = NULL;
	size_t count = 0;
	struct dataset *d;
	int r;

	if (!batch)
		return no_memory(err);
	mutex_guard(&m->state_mu);
	mutex_lock(&m->mu);
	d = find_locked(m, name, err);
	r = d ? remove_check_locked(m, d, force, err) : -ENOENT;
	if (r == 0 && !(digests = digests_of(d)))
		r = no_memory(err);
	if (r == 0) {
		count = d->snapshots_count;
		namespace_batch_delete(batch, NAMESPACE_DATASET, d->id, 0);
		namespace_batch_delete(batch, NAMESPACE_REPORT, d->id, 0);
		namespace_batch_delete(batch, NAMESPACE_TOTALS, d->id, 0);
		for (size_t i = 0; i < count; i++)
			namespace_batch_delete(
				batch, NAMESPACE_SNAPSHOT, d->id, d->snapshots[i].number);
		d->importing = true; /* nobody starts an import between here and its end */
	}
	mutex_unlock(&m->mu);
	if (r < 0)
		return r;
	r = namespace_db_commit(m->db, batch, true, err);
	mutex_lock(&m->mu);
	d->importing = false;
	if (r == 0) {
		/* Its mounts are forgotten by the next round of housekeeping. */
		workers_forget_dataset(&m->workers, d->id);
		dataset_registry_remove(&m->datasets, d);
		master_replan_locked(m);
		master_tell_locked(m);
	}
	mutex_unlock(&m->mu);
	for (size_t i = 0; r == 0 && i < count; i++)
		manifest_store_remove(m->manifests, digests[i]);
	return r;
}

static void on_remove(struct rpc_call *call, void *arg)
{
	Granary__V1__RemoveDatasetReply reply = GRANARY__V1__REMOVE_DATASET_REPLY__INIT;
	struct error err = ERROR_INIT;
	const Granary__V1__RemoveDatasetRequest *request =
		(const Granary__V1__RemoveDatasetRequest *)rpc_call_request(
			call, &granary__v1__remove_dataset_request__descriptor);
	int r;

	if (!request)
		return;
	r = remove_dataset(arg, request->name, request->force, &err);
	if (r < 0) {
		rpc_call_fail(call, r, err.text);
		return;
	}
	log_info("removed dataset %s", request->name);
	rpc_call_reply(call, &reply.base);
}

/* ---- SetQuota and Renew ---------------------------------------------------------------------- */

static int set_quota(
	struct master *m, const Granary__V1__SetQuotaRequest *request, struct error *err)
{
	CLEANUP(namespace_batch_free_ptr) struct namespace_batch *batch = namespace_batch_new();
	uint64_t bytes = request->quota_limited ? request->quota_bytes : 0;
	Granary__State__V1__DatasetState state;
	struct dataset *d;
	int r = -ENOENT;

	if (!batch)
		return no_memory(err);
	mutex_guard(&m->state_mu);
	mutex_lock(&m->mu);
	d = find_locked(m, request->name, err);
	if (d) {
		dataset_state(d, &state);
		state.quota_limited = request->quota_limited;
		state.quota_bytes = bytes;
		r = namespace_batch_put(batch, NAMESPACE_DATASET, d->id, 0, &state.base);
		if (r < 0)
			no_memory(err);
	}
	mutex_unlock(&m->mu);
	if (r == 0)
		r = namespace_db_commit(m->db, batch, true, err);
	if (r < 0)
		return r;
	/* Only holders of state_mu remove datasets: d is still there. */
	mutex_guard(&m->mu);
	d->quota_limited = request->quota_limited;
	d->quota_bytes = bytes;
	master_replan_locked(m);
	return 0;
}

static void on_set_quota(struct rpc_call *call, void *arg)
{
	struct master *m = arg;
	Granary__V1__Dataset *msg = NULL;
	struct error err = ERROR_INIT;
	const Granary__V1__SetQuotaRequest *request =
		(const Granary__V1__SetQuotaRequest *)rpc_call_request(
			call, &granary__v1__set_quota_request__descriptor);
	int r;

	if (!request)
		return;
	r = set_quota(m, request, &err);
	if (r == 0) {
		msg = planned_dataset(m, call, request->name, &err);
		r = msg ? 0 : -ENOENT;
	}
	if (r < 0)
		rpc_call_fail(call, r, err.text);
	else
		rpc_call_reply(call, &msg->base);
	granary__v1__dataset__free_unpacked(msg, NULL);
}

static int renew(struct master *m, const Granary__V1__RenewRequest *request, struct error *err)
{
	CLEANUP(dataset_secrets_unref_ptr) struct dataset_secrets *secrets = NULL;
	struct dataset *d;
	int r = dataset_secrets_new(request->secrets, request->n_secrets, &secrets, err);

	if (r < 0)
		return r;
	mutex_guard(&m->mu);
	d = find_locked(m, request->name, err);
	if (!d)
		return -ENOENT;
	r = dataset_registry_set_secrets(&m->datasets, d, secrets, err);
	if (r < 0)
		return r;
	secrets = NULL;
	master_tell_locked(m);
	return 0;
}

static void on_renew(struct rpc_call *call, void *arg)
{
	Granary__V1__RenewReply reply = GRANARY__V1__RENEW_REPLY__INIT;
	struct error err = ERROR_INIT;
	const Granary__V1__RenewRequest *request =
		(const Granary__V1__RenewRequest *)rpc_call_request(
			call, &granary__v1__renew_request__descriptor);
	int r;

	if (!request)
		return;
	if (!rpc_call_is_local(call))
		r = error_set(&err, -EPERM,
			"credentials are accepted over the master's unix socket only: run this "
			"on the master's host");
	else
		r = renew(arg, request, &err);
	if (r < 0)
		rpc_call_fail(call, r, err.text);
	else
		rpc_call_reply(call, &reply.base);
}

void dataset_service_add(struct master *m, struct rpc_server *server)
{
	rpc_server_add(server, SERVICE "Add", on_add, m);
	rpc_server_add(server, SERVICE "Refresh", on_refresh, m);
	rpc_server_add(server, SERVICE "List", on_list, m);
	rpc_server_add(server, SERVICE "Get", on_get, m);
	rpc_server_add(server, SERVICE "Remove", on_remove, m);
	rpc_server_add(server, SERVICE "SetQuota", on_set_quota, m);
	rpc_server_add(server, SERVICE "Renew", on_renew, m);
}

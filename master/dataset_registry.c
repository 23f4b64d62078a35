#include "master/dataset_registry.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define LOG_SUBSYSTEM "master"
#include "common/log.h"

#define PLAN_ALLOWANCE_BYTES 256 /* of a plan besides config and secrets */

static size_t charge(const struct dataset_config *config, const struct dataset_secrets *secrets)
{
	return config->packed_bytes + (secrets ? secrets->bytes : 0) + PLAN_ALLOWANCE_BYTES;
}

struct dataset *dataset_registry_find(struct dataset_registry *r, const char *name)
{
	struct dataset *d;

	HASH_FIND(by_name, r->by_name, name, strlen(name), d);
	return d;
}

struct dataset *dataset_registry_get(struct dataset_registry *r, uint64_t id)
{
	struct dataset *d;

	HASH_FIND(by_id, r->by_id, &id, sizeof(id), d);
	return d;
}

size_t dataset_registry_count(const struct dataset_registry *r)
{
	return HASH_CNT(by_id, r->by_id);
}

static int full(struct error *err)
{
	return error_set(err, -ENOSPC,
		"the master holds as many datasets as it can (%d, or %zu MiB of their "
		"configuration): remove some",
		DATASETS_MAX, DATASETS_CONFIG_MAX_BYTES >> 20);
}

int dataset_registry_insert(struct dataset_registry *r, struct dataset *d, struct error *err)
{
	const char *name = d->config->msg->name;
	size_t more = charge(d->config, d->secrets);

	assert(!dataset_registry_find(r, name) && !dataset_registry_get(r, d->id));
	if (dataset_registry_count(r) >= DATASETS_MAX ||
		r->config_bytes + more > DATASETS_CONFIG_MAX_BYTES)
		return full(err);
	r->config_bytes += more;
	HASH_ADD(by_id, r->by_id, id, sizeof(d->id), d);
	HASH_ADD_KEYPTR(by_name, r->by_name, name, strlen(name), d);
	return 0;
}

void dataset_registry_remove(struct dataset_registry *r, struct dataset *d)
{
	r->config_bytes -= charge(d->config, d->secrets);
	HASH_DELETE(by_id, r->by_id, d);
	HASH_DELETE(by_name, r->by_name, d);
	dataset_free(d);
}

int dataset_registry_set_secrets(struct dataset_registry *r, struct dataset *d,
	struct dataset_secrets *secrets, struct error *err)
{
	size_t before = charge(d->config, d->secrets), after = charge(d->config, secrets);

	if (r->config_bytes - before + after > DATASETS_CONFIG_MAX_BYTES)
		return full(err);
	r->config_bytes += after - before;
	dataset_secrets_unref(d->secrets);
	d->secrets = secrets;
	return 0;
}

void dataset_registry_deinit(struct dataset_registry *r)
{
	struct dataset *d, *next;

	HASH_ITER (by_id, r->by_id, d, next) {
		dataset_registry_remove(r, d);
	}
}

/* ---- loading --------------------------------------------------------------------------------- */

struct load {
	struct dataset_registry *r;
	int64_t now_ms;
};

static int load_dataset(
	void *arg, uint64_t id, uint64_t b, ProtobufCMessage **message, struct error *err)
{
	struct load *load = arg;
	Granary__State__V1__DatasetState *state = (Granary__State__V1__DatasetState *)*message;
	struct dataset_config *config;
	struct dataset *d;
	int r;

	(void)b;
	if (!state->config || dataset_name_check(state->config->name, NULL) < 0 ||
		dataset_registry_find(load->r, state->config->name))
		return error_set(err, -EIO,
			"the record of dataset %016" PRIx64 " makes no sense: restore the "
			"master's state from a backup",
			id);
	config = dataset_config_new(state->config);
	state->config = NULL; /* taken */
	d = config ? dataset_new(id, config, NULL) : NULL;
	if (!d)
		return error_set(err, -ENOMEM, "no memory for the datasets");
	d->quota_limited = state->quota_limited;
	d->quota_bytes = state->quota_bytes;
	d->current = state->current_snapshot;
	d->last_snapshot = state->last_snapshot;
	d->in_database = true;
	r = dataset_registry_insert(load->r, d, err);
	if (r < 0)
		dataset_free(d);
	return r;
}

static int load_snapshot(
	void *arg, uint64_t id, uint64_t number, ProtobufCMessage **message, struct error *err)
{
	struct load *load = arg;
	Granary__State__V1__SnapshotState *state = (Granary__State__V1__SnapshotState *)*message;
	struct dataset *d = dataset_registry_get(load->r, id);

	if (!d)
		return 0; /* cannot be: both are removed in one batch; harmless if it is */
	*message = NULL;
	if (dataset_add_snapshot(d, number, state, load->now_ms) < 0)
		return error_set(err, -ENOMEM, "no memory for the snapshots");
	if (number > d->last_snapshot)
		d->last_snapshot = number;
	return 0;
}

static int load_totals(
	void *arg, uint64_t id, uint64_t b, ProtobufCMessage **message, struct error *err)
{
	struct load *load = arg;
	const Granary__State__V1__TotalsState *t =
		(const Granary__State__V1__TotalsState *)*message;
	struct dataset *d = dataset_registry_get(load->r, id);

	(void)b;
	(void)err;
	if (d) {
		d->hit_bytes = t->hit_bytes;
		d->miss_bytes = t->miss_bytes;
		d->failed_reads = t->failed_reads;
		d->origin_bytes = t->origin_bytes;
	}
	return 0;
}

/* Repair may have lost a record: the newest snapshot that is left is taken, or the user is told. */
static void check_current(struct dataset *d)
{
	if (dataset_current(d))
		return;
	d->current = d->snapshots_count ? d->snapshots[d->snapshots_count - 1].number : 0;
	if (d->current)
		log_warn("dataset %s lost its current snapshot; it shows number %" PRIu64,
			d->config->msg->name, d->current);
	else
		log_error("dataset %s has lost its snapshots: `granary dataset refresh %s` lists "
			  "the origin again",
			d->config->msg->name, d->config->msg->name);
}

int dataset_registry_load(
	struct dataset_registry *reg, struct namespace_db *db, int64_t now_ms, struct error *err)
{
	struct load load = {.r = reg, .now_ms = now_ms};
	struct dataset *d, *next;
	int r;

	r = namespace_db_scan(db, NAMESPACE_DATASET, &granary__state__v1__dataset_state__descriptor,
		load_dataset, &load, err);
	if (r == 0)
		r = namespace_db_scan(db, NAMESPACE_SNAPSHOT,
			&granary__state__v1__snapshot_state__descriptor, load_snapshot, &load, err);
	if (r == 0)
		r = namespace_db_scan(db, NAMESPACE_TOTALS,
			&granary__state__v1__totals_state__descriptor, load_totals, &load, err);
	if (r < 0)
		return r;
	HASH_ITER (by_id, reg->by_id, d, next) {
		check_current(d);
	}
	return 0;
}

/* DatasetService through the real rpc. */
#include "tests/unit/master_fixture.h"

#include <dirent.h>
#include <pthread.h>

static void put_files(struct fixture *f, int count, uint64_t size)
{
	char name[64];

	for (int i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "d%d/f%03d", i % 3, i);
		mem_store_put_pattern(f->store, name, size, (uint64_t)i);
	}
}

static void add_data(struct fixture *f)
{
	if (call_add(f, "data", "mem://data", NULL) < 0)
		fail_msg("%s", f->err.text);
}

static Granary__V1__Dataset *get_data(struct fixture *f)
{
	Granary__V1__Dataset *d;

	if (call_get(f, "data", &d) < 0)
		fail_msg("%s", f->err.text);
	return d;
}

static size_t list_count(struct fixture *f)
{
	Granary__V1__ListDatasetsRequest request = GRANARY__V1__LIST_DATASETS_REQUEST__INIT;
	Granary__V1__ListDatasetsReply *reply;
	size_t count;

	assert_int_equal(call_unary(f, DATASETS "List", &request.base,
				 &granary__v1__list_datasets_reply__descriptor, &reply),
		0);
	count = reply->n_datasets;
	granary__v1__list_datasets_reply__free_unpacked(reply, NULL);
	return count;
}

static unsigned files_in(struct fixture *f, const char *sub)
{
	char path[256];
	unsigned count = 0;
	DIR *d;

	snprintf(path, sizeof(path), "%s/%s", f->state_dir, sub);
	d = opendir(path);
	assert_non_null(d);
	for (struct dirent *e; (e = readdir(d));)
		count += e->d_name[0] != '.';
	closedir(d);
	return count;
}

/* ---- add, list, get, remove ------------------------------------------------------------------ */

static void a_directory_becomes_a_dataset_that_is_mounted(void **state)
{
	struct fixture *f = *state;
	Granary__V1__ImportProgress *last = NULL;
	Granary__V1__OpenMountReply *mount;
	Granary__V1__MountHeartbeatReply *beat;
	Granary__V1__MountHeartbeatRequest request;
	char tree[128], url[160];
	struct manifest *m;
	struct manifest_entry root;

	snprintf(tree, sizeof(tree), "%s/tree", f->dir);
	assert_int_equal(mkdir(tree, 0755), 0);
	assert_int_equal(chmod(tree, 0751), 0);
	write_file(tree, "a", 10);
	write_file(tree, "b", 20);
	snprintf(url, sizeof(url), "file://%s", tree);
	worker_join(f, 7, 1 << 20);
	if (call_add(f, "data", url, &last) < 0)
		fail_msg("%s", f->err.text);
	assert_string_equal(last->dataset->name, "data");
	assert_string_equal(last->dataset->origin, url);
	assert_string_equal(last->phase, "done");
	assert_int_equal(last->dataset->files, 2);
	assert_int_equal(last->dataset->bytes, 30);
	assert_int_equal(last->dataset->snapshot, 1);
	assert_int_equal(last->dataset->granted_bytes, 30);
	assert_string_equal(last->dataset->guarantee, "inode+ctime");
	assert_int_equal(last->report->added, 2);
	m = open_manifest(f, last->dataset->manifest_digest);
	assert_int_equal(manifest_entry(m, 0, &root), 0);
	assert_int_equal(root.mode, 0751);
	assert_int_equal(root.uid, getuid());
	manifest_unref(m);
	granary__v1__import_progress__free_unpacked(last, NULL);

	assert_int_equal(call_open(f, "data", &mount), 0);
	assert_string_equal(mount->plan->origin, url);
	assert_int_equal(mount->plan->snapshots[0]->snapshot, 1);
	assert_true(mount->plan->threshold == UINT64_MAX);
	assert_int_equal(mount->n_workers, 1);
	assert_string_equal(mount->workers[0]->lease_socket, "/run/lease");
	assert_string_equal(mount->workers[0]->local_address, "unix:/run/socket");
	assert_string_equal(mount->workers[0]->local_identity, "fd01:1234");
	request = mount_beat(mount->mount_id, 1);
	assert_int_equal(call_mount_beat(f, &request, &beat), 0);
	assert_int_equal(beat->plan->snapshots[0]->snapshot, 1);
	granary__v1__mount_heartbeat_reply__free_unpacked(beat, NULL);
	assert_int_equal(call_close(f, mount->mount_id, NULL), 0);
	granary__v1__open_mount_reply__free_unpacked(mount, NULL);
}

static void datasets_survive_a_restart_and_go_when_removed(void **state)
{
	struct fixture *f = *state;
	Granary__V1__Dataset *before, *after;

	put_files(f, 10, 100);
	mem_store_put_other(f->store, "pipe", "a pipe");
	add_data(f);
	assert_int_equal(call_quota(f, "data", true, 12345, &before), 0);
	granary__v1__dataset__free_unpacked(before, NULL);
	before = get_data(f);
	fixture_restart(f);
	after = get_data(f);
	assert_true(after->id == before->id);
	assert_int_equal(after->files, 10);
	assert_int_equal(after->bytes, 1000);
	assert_true(after->quota_limited);
	assert_int_equal(after->quota_bytes, 12345);
	assert_string_equal(after->manifest_digest, before->manifest_digest);
	assert_int_equal(after->report->n_skipped, 1);
	assert_string_equal(after->report->skipped[0]->reason, "a pipe");
	assert_int_equal(after->report->skipped[0]->examples[0].len, 4);
	granary__v1__dataset__free_unpacked(before, NULL);
	granary__v1__dataset__free_unpacked(after, NULL);
	assert_int_equal(files_in(f, "manifests"), 1);

	assert_int_equal(call_remove(f, "data", false), 0);
	assert_int_equal(list_count(f), 0);
	assert_int_equal(files_in(f, "manifests"), 0);
	assert_int_equal(call_get(f, "data", &after), -ENOENT);
	assert_int_equal(call_remove(f, "data", false), -ENOENT);
	fixture_restart(f);
	assert_int_equal(list_count(f), 0);
}

static void bad_requests_are_refused_in_one_line(void **state)
{
	struct fixture *f = *state;
	static const char *const names[] = {"", ".", "..", "a/b", "a b", "\xc3\xa4", "a\n"};
	char long_name[130];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		assert_int_equal(call_add(f, names[i], "mem://data", NULL), -EINVAL);
		assert_non_null(strstr(f->err.text, "name a dataset"));
	}
	memset(long_name, 'a', 129);
	long_name[129] = '\0';
	assert_int_equal(call_add(f, long_name, "mem://data", NULL), -EINVAL);
	long_name[128] = '\0';
	assert_int_equal(call_add(f, long_name, "mem://data", NULL), 0);
	assert_int_equal(call_add(f, "x", "nonsense", NULL), -EINVAL);
	assert_int_equal(call_add(f, "x", "", NULL), -EINVAL);
	assert_int_equal(call_add(f, "x", "http://user:secret@host/dir/", NULL), -EINVAL);
	assert_null(strstr(f->err.text, "secret@"));
	assert_int_equal(call_add(f, "x", "file:///does/not/exist", NULL), -EIO);
	assert_null(strchr(f->err.text, '\n'));
	assert_int_equal(call_refresh(f, "x", false, NULL), -ENOENT);
	assert_int_equal(list_count(f), 1);
}

static void a_name_is_taken_once(void **state)
{
	struct fixture *f = *state;
	Granary__V1__AddDatasetRequest request = GRANARY__V1__ADD_DATASET_REQUEST__INIT;
	Granary__V1__ImportProgress *last = NULL;

	put_files(f, 1, 1);
	add_data(f);
	assert_int_equal(call_add(f, "data", "mem://data", NULL), -EEXIST);
	request.name = (char *)"data";
	request.origin = (char *)"mem://data";
	request.exists_ok = true;
	assert_int_equal(call_import(f, f->channel, DATASETS "Add", &request.base, &last), 0);
	assert_string_equal(last->phase, "unchanged");
	assert_int_equal(last->dataset->snapshot, 1);
	granary__v1__import_progress__free_unpacked(last, NULL);
	request.origin = (char *)"file:///tmp";
	assert_int_equal(call_import(f, f->channel, DATASETS "Add", &request.base, NULL), -EEXIST);
	assert_non_null(strstr(f->err.text, "mem://data"));
	assert_non_null(strstr(f->err.text, "file:///tmp"));
}

static void filters_are_kept_for_every_refresh(void **state)
{
	struct fixture *f = *state;
	Granary__V1__AddDatasetRequest request = GRANARY__V1__ADD_DATASET_REQUEST__INIT;
	char *include[] = {(char *)"*.jpg"}, *exclude[] = {(char *)"old/"};
	Granary__V1__Dataset *d;

	mem_store_put_pattern(f->store, "a.jpg", 1, 1);
	mem_store_put_pattern(f->store, "a.txt", 1, 1);
	mem_store_put_pattern(f->store, "old/b.jpg", 1, 1);
	request.name = (char *)"data";
	request.origin = (char *)"mem://data";
	request.include = include;
	request.exclude = exclude;
	request.n_include = request.n_exclude = 1;
	assert_int_equal(call_import(f, f->channel, DATASETS "Add", &request.base, NULL), 0);
	fixture_restart(f);
	mem_store_put_pattern(f->store, "b.txt", 1, 1);
	assert_int_equal(call_refresh(f, "data", false, NULL), 0);
	d = get_data(f);
	assert_int_equal(d->files, 1);
	assert_int_equal(d->snapshot, 1);
	assert_string_equal(d->include[0], "*.jpg");
	assert_string_equal(d->exclude[0], "old/");
	granary__v1__dataset__free_unpacked(d, NULL);

	exclude[0] = (char *)"a//b";
	request.name = (char *)"other";
	assert_int_equal(call_import(f, f->channel, DATASETS "Add", &request.base, NULL), -EINVAL);
}

/* ---- imports at once ------------------------------------------------------------------------- */

struct adder {
	struct fixture *f;
	pthread_t thread;
	int result;
	struct rpc_stream *stream;
};

static void *add_slowly(void *arg)
{
	struct adder *a = arg;
	struct rpc_message *message;
	struct error err;
	int r;

	while ((r = rpc_stream_next(a->stream, &message, &err)) == 0)
		rpc_message_free(message);
	a->result = r;
	return NULL;
}

static void start_add(struct adder *a, struct fixture *f, const char *name)
{
	Granary__V1__AddDatasetRequest request = GRANARY__V1__ADD_DATASET_REQUEST__INIT;
	struct rpc_message *message;

	request.name = (char *)name;
	request.origin = (char *)"mem://data";
	a->f = f;
	assert_int_equal(rpc_stream_open(f->channel, DATASETS "Add", &request.base,
				 clock_deadline_ms(CALL_MS), &a->stream, &f->err),
		0);
	/* Its first progress says that it is running. */
	assert_int_equal(rpc_stream_next(a->stream, &message, &f->err), 0);
	rpc_message_free(message);
	assert_int_equal(pthread_create(&a->thread, NULL, add_slowly, a), 0);
}

static void one_import_of_a_dataset_at_a_time(void **state)
{
	struct fixture *f = *state;
	struct mem_fault delay = {.kind = MEM_DELAY, .ops = MEM_LIST, .ms = 1500, .count = 1};
	struct adder a;
	Granary__V1__Dataset *d;

	put_files(f, 3, 1);
	mem_store_add_fault(f->store, &delay);
	start_add(&a, f, "data");
	assert_int_equal(call_add(f, "data", "mem://data", NULL), -ESTALE);
	assert_non_null(strstr(f->err.text, "already"));
	assert_int_equal(call_refresh(f, "data", false, NULL), -ESTALE);
	assert_int_equal(call_remove(f, "data", true), -ENOENT);
	assert_int_equal(call_get(f, "data", &d), -ENOENT);
	pthread_join(a.thread, NULL);
	rpc_stream_close(a.stream);
	assert_int_equal(a.result, RPC_STREAM_END);
	assert_int_equal(list_count(f), 1);
}

static void an_import_whose_client_goes_away_leaves_nothing(void **state)
{
	struct fixture *f = *state;
	struct mem_fault stall = {.kind = MEM_STALL, .ops = MEM_LIST};
	int64_t end_ms = clock_deadline_ms(10000);
	struct adder a;

	put_files(f, 3, 1);
	mem_store_add_fault(f->store, &stall);
	start_add(&a, f, "data");
	rpc_stream_cancel(a.stream);
	pthread_join(a.thread, NULL);
	rpc_stream_close(a.stream);
	assert_int_equal(a.result, -ECANCELED);
	mem_store_clear_faults(f->store);
	/* The name is free again as soon as the import has noticed. */
	while (call_add(f, "data", "mem://data", NULL) < 0 && !clock_passed(end_ms))
		usleep(20000);
	assert_int_equal(list_count(f), 1);
	assert_int_equal(files_in(f, "manifests"), 1);
}

/* ---- refresh --------------------------------------------------------------------------------- */

static uint64_t shown_by(struct fixture *f, uint64_t mount_id, uint64_t shows)
{
	Granary__V1__MountHeartbeatRequest request = mount_beat(mount_id, shows);
	Granary__V1__MountHeartbeatReply *reply;
	uint64_t snapshot;

	if (call_mount_beat(f, &request, &reply) < 0)
		fail_msg("%s", f->err.text);
	snapshot = reply->plan->snapshots[0]->snapshot;
	granary__v1__mount_heartbeat_reply__free_unpacked(reply, NULL);
	return snapshot;
}

static void a_refresh_without_changes_makes_no_snapshot(void **state)
{
	struct fixture *f = *state;
	Granary__V1__ImportProgress *last = NULL;

	put_files(f, 10, 100);
	add_data(f);
	assert_int_equal(call_refresh(f, "data", false, &last), 0);
	assert_string_equal(last->phase, "unchanged");
	assert_int_equal(last->dataset->snapshot, 1);
	assert_int_equal(files_in(f, "manifests"), 1);
	granary__v1__import_progress__free_unpacked(last, NULL);
}

static void a_refresh_leaves_live_mounts_where_they_are(void **state)
{
	struct fixture *f = *state;
	Granary__V1__ImportProgress *last = NULL;
	Granary__V1__OpenMountReply *old, *fresh;

	put_files(f, 10, 100);
	add_data(f);
	assert_int_equal(call_open(f, "data", &old), 0);
	mem_store_put_pattern(f->store, "new", 7, 1);
	assert_int_equal(call_refresh(f, "data", false, &last), 0);
	assert_int_equal(last->dataset->snapshot, 2);
	assert_int_equal(last->report->added, 1);
	assert_int_equal(last->report->changed, 0);
	granary__v1__import_progress__free_unpacked(last, NULL);
	assert_int_equal(shown_by(f, old->mount_id, 1), 1);
	assert_int_equal(call_open(f, "data", &fresh), 0);
	assert_int_equal(fresh->plan->snapshots[0]->snapshot, 2);
	assert_int_equal(fresh->plan->n_snapshots, 2);

	/* The old one is still there to be fetched, also after a restart. */
	fixture_restart(f);
	assert_int_equal(shown_by(f, old->mount_id, 1), 1);
	assert_int_equal(files_in(f, "manifests"), 2);
	assert_int_equal(call_refresh(f, "data", true, NULL), 0); /* nothing new, but switches */
	assert_int_equal(shown_by(f, old->mount_id, 1), 2);
	granary__v1__open_mount_reply__free_unpacked(old, NULL);
	granary__v1__open_mount_reply__free_unpacked(fresh, NULL);
}

static void a_switch_is_remembered_over_a_restart(void **state)
{
	struct fixture *f = *state;
	Granary__V1__OpenMountReply *mount;

	put_files(f, 3, 1);
	add_data(f);
	assert_int_equal(call_open(f, "data", &mount), 0);
	mem_store_put_pattern(f->store, "new", 7, 1);
	assert_int_equal(call_refresh(f, "data", true, NULL), 0);
	fixture_restart(f);
	assert_int_equal(shown_by(f, mount->mount_id, 1), 2);
	granary__v1__open_mount_reply__free_unpacked(mount, NULL);
}

static void snapshots_nobody_needs_are_collected_after_a_grace(void **state)
{
	struct fixture *f = *state;
	Granary__V1__OpenMountReply *mount;

	put_files(f, 3, 1);
	add_data(f);
	assert_int_equal(call_open(f, "data", &mount), 0);
	mem_store_put_pattern(f->store, "new", 7, 1);
	assert_int_equal(call_refresh(f, "data", false, NULL), 0);
	assert_int_equal(shown_by(f, mount->mount_id, 1), 1);
	/* A minute later: the mount is lost by then, but its snapshot was named just before. */
	housekeeping_run(f->master, clock_mono_ms() + 59000);
	assert_int_equal(files_in(f, "manifests"), 2);
	housekeeping_run(f->master, clock_mono_ms() + 61000);
	assert_int_equal(files_in(f, "manifests"), 1);
	/* The mount comes back: all that is left to show it is the current one. */
	assert_int_equal(shown_by(f, mount->mount_id, 1), 2);
	fixture_restart(f);
	assert_int_equal(files_in(f, "manifests"), 1);
	granary__v1__open_mount_reply__free_unpacked(mount, NULL);
}

static void a_snapshot_that_a_live_mount_shows_is_kept(void **state)
{
	struct fixture *f = *state;
	Granary__V1__OpenMountReply *mount;

	put_files(f, 3, 1);
	add_data(f);
	assert_int_equal(call_open(f, "data", &mount), 0);
	mem_store_put_pattern(f->store, "new", 7, 1);
	assert_int_equal(call_refresh(f, "data", true, NULL), 0);
	/* It still says that it shows the old one. */
	assert_int_equal(shown_by(f, mount->mount_id, 1), 2);
	mutex_lock(&f->master->mu);
	assert_true(mounts_hold(&f->master->mounts, mount->plan->dataset_id, 1));
	mutex_unlock(&f->master->mu);
	assert_int_equal(shown_by(f, mount->mount_id, 2), 2);
	mutex_lock(&f->master->mu);
	assert_false(mounts_hold(&f->master->mounts, mount->plan->dataset_id, 1));
	mutex_unlock(&f->master->mu);
	granary__v1__open_mount_reply__free_unpacked(mount, NULL);
}

static void a_lost_manifest_is_mended_by_a_refresh(void **state)
{
	struct fixture *f = *state;
	Granary__V1__ImportProgress *last = NULL;
	Granary__V1__Dataset *d;
	char path[256];

	put_files(f, 10, 100);
	worker_join(f, 7, 1 << 20);
	add_data(f);
	d = get_data(f);
	snprintf(path, sizeof(path), "%s/manifests/%s.manifest", f->state_dir, d->manifest_digest);
	assert_int_equal(unlink(path), 0);
	granary__v1__dataset__free_unpacked(d, NULL);
	assert_int_equal(call_quota(f, "data", true, 500, &d), 0);
	assert_true(d->threshold > UINT64_MAX / 4 && d->threshold < UINT64_MAX / 4 * 3);
	granary__v1__dataset__free_unpacked(d, NULL);
	assert_int_equal(call_refresh(f, "data", false, &last), 0);
	assert_int_equal(last->dataset->snapshot, 2);
	assert_int_equal(last->report->added, 10);
	granary__v1__import_progress__free_unpacked(last, NULL);
}

/* ---- remove ---------------------------------------------------------------------------------- */

static void a_mounted_dataset_is_removed_by_force_only(void **state)
{
	struct fixture *f = *state;
	Granary__V1__MountHeartbeatRequest request;
	Granary__V1__MountHeartbeatReply *reply;
	Granary__V1__OpenMountReply *mount;

	put_files(f, 3, 1);
	add_data(f);
	assert_int_equal(call_open(f, "data", &mount), 0);
	assert_int_equal(call_remove(f, "data", false), -ESTALE);
	assert_non_null(strstr(f->err.text, "/mnt/x"));
	assert_int_equal(call_remove(f, "data", true), 0);
	request = mount_beat(mount->mount_id, 1);
	assert_int_equal(call_mount_beat(f, &request, &reply), -ENOENT);
	assert_int_equal(call_close(f, mount->mount_id, NULL), 0);
	granary__v1__open_mount_reply__free_unpacked(mount, NULL);
}

/* ---- secrets --------------------------------------------------------------------------------- */

#define SECRET_TEXT "AKIAVERYSECRETVALUE"

static bool found_secret;

static int grep_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	char *data;
	FILE *file;

	(void)ftw;
	if (type != FTW_F)
		return 0;
	file = fopen(path, "r");
	data = malloc((size_t)st->st_size + 1);
	assert_non_null(file);
	assert_non_null(data);
	if (memmem(data, fread(data, 1, (size_t)st->st_size, file), SECRET_TEXT,
		    strlen(SECRET_TEXT)))
		found_secret = true;
	fclose(file);
	free(data);
	return 0;
}

static int add_with(struct fixture *f, struct rpc_channel *ch, Granary__V1__Option *option,
	Granary__V1__Option *secret, bool exists_ok)
{
	Granary__V1__AddDatasetRequest request = GRANARY__V1__ADD_DATASET_REQUEST__INIT;

	request.name = (char *)"data";
	request.origin = (char *)"mem://data";
	request.options = &option;
	request.n_options = option != NULL;
	request.secrets = &secret;
	request.n_secrets = secret != NULL;
	request.exists_ok = exists_ok;
	return call_import(f, ch, DATASETS "Add", &request.base, NULL);
}

static void secrets_stay_in_memory_and_on_the_socket(void **state)
{
	struct fixture *f = *state;
	Granary__V1__Option secret = GRANARY__V1__OPTION__INIT, region = GRANARY__V1__OPTION__INIT,
			    endpoint = GRANARY__V1__OPTION__INIT;
	Granary__V1__WorkerHeartbeatRequest beat = worker_beat(9, 1000);
	Granary__V1__WorkerHeartbeatReply *reply;
	Granary__V1__RenewRequest renew = GRANARY__V1__RENEW_REQUEST__INIT;
	Granary__V1__Option *list[] = {&secret};
	Granary__V1__RenewReply *renewed;
	Granary__V1__Dataset *d;
	uint8_t packed[4096];

	secret.key = (char *)"secret-access-key";
	secret.value = (char *)SECRET_TEXT;
	region.key = (char *)"region";
	region.value = (char *)"eu-1";
	put_files(f, 3, 1);
	assert_int_equal(add_with(f, f->tcp_channel, NULL, &secret, false), -EPERM);
	assert_int_equal(add_with(f, f->channel, &secret, NULL, false), -EINVAL);
	assert_null(strstr(f->err.text, SECRET_TEXT));
	assert_int_equal(add_with(f, f->channel, NULL, &region, false), -EINVAL);
	endpoint.key = (char *)"endpoint";
	endpoint.value = (char *)"http://me:" SECRET_TEXT "@host";
	assert_int_equal(add_with(f, f->channel, &endpoint, NULL, false), -EINVAL);
	assert_null(strstr(f->err.text, SECRET_TEXT));
	assert_int_equal(add_with(f, f->channel, &region, &secret, false), 0);

	reply = worker_plan(f, &beat);
	assert_int_equal(reply->datasets[0]->n_secrets, 1);
	assert_string_equal(reply->datasets[0]->secrets[0]->value, SECRET_TEXT);
	assert_string_equal(reply->datasets[0]->options[0]->value, "eu-1");
	granary__v1__worker_heartbeat_reply__free_unpacked(reply, NULL);
	assert_int_equal(rpc_unary(f->tcp_channel, CLUSTER "WorkerHeartbeat", &beat.base,
				 &granary__v1__worker_heartbeat_reply__descriptor,
				 (ProtobufCMessage **)&reply, clock_deadline_ms(CALL_MS), &f->err),
		0);
	assert_int_equal(reply->n_datasets, 1);
	assert_int_equal(reply->datasets[0]->n_secrets, 0);
	granary__v1__worker_heartbeat_reply__free_unpacked(reply, NULL);

	d = get_data(f);
	assert_true(granary__v1__dataset__get_packed_size(d) < sizeof(packed));
	assert_null(memmem(
		packed, granary__v1__dataset__pack(d, packed), SECRET_TEXT, strlen(SECRET_TEXT)));
	assert_int_equal(d->n_options, 1);
	granary__v1__dataset__free_unpacked(d, NULL);

	renew.name = (char *)"data";
	renew.secrets = list;
	renew.n_secrets = 1;
	assert_int_equal(
		rpc_unary(f->tcp_channel, DATASETS "Renew", &renew.base,
			&granary__v1__renew_reply__descriptor, (ProtobufCMessage **)&renewed,
			clock_deadline_ms(CALL_MS), &f->err),
		-EPERM);
	fixture_restart(f);
	nftw(f->state_dir, grep_one, 32, FTW_PHYS);
	assert_false(found_secret);
	beat.plan_version = 0;
	reply = worker_plan(f, &beat);
	assert_int_equal(reply->datasets[0]->n_secrets, 0);
	beat.plan_version = reply->plan_version;
	granary__v1__worker_heartbeat_reply__free_unpacked(reply, NULL);
	/* A second `up` brings them again. */
	assert_int_equal(add_with(f, f->channel, &region, &secret, true), 0);
	reply = worker_plan(f, &beat);
	assert_int_equal(reply->datasets[0]->n_secrets, 1);
	beat.plan_version = reply->plan_version;
	granary__v1__worker_heartbeat_reply__free_unpacked(reply, NULL);
	secret.value = (char *)"other";
	assert_int_equal(call_unary(f, DATASETS "Renew", &renew.base,
				 &granary__v1__renew_reply__descriptor, &renewed),
		0);
	granary__v1__renew_reply__free_unpacked(renewed, NULL);
	reply = worker_plan(f, &beat);
	assert_string_equal(reply->datasets[0]->secrets[0]->value, "other");
	granary__v1__worker_heartbeat_reply__free_unpacked(reply, NULL);
}

static void a_refusal_says_that_secrets_were_lost(void **state)
{
	struct fixture *f = *state;
	const struct mem_fault refused = {.kind = MEM_FAIL_CREDENTIALS, .ops = MEM_LIST};
	Granary__V1__Option secret = GRANARY__V1__OPTION__INIT;

	secret.key = (char *)"secret-access-key";
	secret.value = (char *)SECRET_TEXT;
	put_files(f, 3, 10);
	assert_int_equal(add_with(f, f->channel, NULL, &secret, false), 0);
	mem_store_add_fault(f->store, &refused);
	/* It has them, so they are wrong. */
	assert_int_equal(call_refresh(f, "data", false, NULL), -EACCES);
	assert_null(strstr(f->err.text, "no secrets"));
	fixture_restart(f);
	assert_int_equal(call_refresh(f, "data", false, NULL), -EACCES);
	assert_non_null(strstr(f->err.text, "no secrets for dataset data"));
	assert_non_null(strstr(f->err.text, "`granary dataset refresh data`"));
	mem_store_clear_faults(f->store);
	assert_int_equal(call_refresh(f, "data", false, NULL), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_directory_becomes_a_dataset_that_is_mounted),
		TEST(datasets_survive_a_restart_and_go_when_removed),
		TEST(bad_requests_are_refused_in_one_line),
		TEST(a_name_is_taken_once),
		TEST(filters_are_kept_for_every_refresh),
		TEST(one_import_of_a_dataset_at_a_time),
		TEST(an_import_whose_client_goes_away_leaves_nothing),
		TEST(a_refresh_without_changes_makes_no_snapshot),
		TEST(a_refresh_leaves_live_mounts_where_they_are),
		TEST(a_switch_is_remembered_over_a_restart),
		TEST(snapshots_nobody_needs_are_collected_after_a_grace),
		TEST(a_snapshot_that_a_live_mount_shows_is_kept),
		TEST(a_lost_manifest_is_mended_by_a_refresh),
		TEST(a_mounted_dataset_is_removed_by_force_only),
		TEST(secrets_stay_in_memory_and_on_the_socket),
		TEST(a_refusal_says_that_secrets_were_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/daemonize.h"
#include "cli/dataset_client.h"
#include "cli/host.h"
#include "cli/mount_flags.h"
#include "cli/mount_report.h"
#include "cli/origin_argument.h"
#include "cli/signals.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/size.h"
#include "fuse/mountpoint.h"
#include "granary/v1/host.pb-c.h"

#define JUST_LISTED_S 5

struct up {
	struct invocation *inv;
	char *origin; /* owned */
	const char *mountpoint;
	char name[129];
	struct paths paths;
	struct origin_options *options;
	struct dataset_spec spec;
	struct mount_options mount;
	Granary__V1__Dataset *dataset; /* as the master knows it; NULL until then */
};

static bool name_byte(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '.' || c == '_' || c == '-';
}

/* The dataset's name when --name is not given: the last component of the origin. */
static void name_from_origin(const char *origin, char *ret, size_t room)
{
	size_t end = strcspn(origin, "?#"), start, n = 0;

	while (end > 0 && origin[end - 1] == '/')
		end--;
	for (start = end; start > 0 && origin[start - 1] != '/';)
		start--;
	for (size_t i = start; i < end && n + 1 < room; i++)
		ret[n++] = name_byte(origin[i]) ? origin[i] : '-';
	ret[n] = '\0';
	if (n == 0 || strcmp(ret, ".") == 0 || strcmp(ret, "..") == 0)
		snprintf(ret, room, "dataset");
}

static int prepare(struct up *u, struct error *err)
{
	const char *name = inv_text(u->inv, "name"), *quota = inv_text(u->inv, "quota");
	char real[PATH_MAX];
	int r = origin_argument(inv_argument(u->inv, 0), &u->origin, err);

	if (r < 0)
		return r;
	if (name && strlen(name) >= sizeof(u->name))
		return error_set(
			err, -EINVAL, "--name is longer than %zu characters", sizeof(u->name) - 1);
	if (name)
		snprintf(u->name, sizeof(u->name), "%s", name);
	else
		name_from_origin(u->origin, u->name, sizeof(u->name));
	if ((r = paths_find(u->inv, &u->paths, err)) < 0 ||
		(r = dataset_options(u->inv, u->origin, &u->options, err)) < 0 ||
		(r = mount_flags_read(u->inv, u->name, inv_argument(u->inv, 1), &u->mount, err)) <
			0)
		return r;
	u->mountpoint = u->mount.mountpoint;
	/* Said now, rather than after a listing of millions. */
	r = mountpoint_prepare(u->mountpoint, u->mount.allow_other, real, err);
	if (r < 0)
		return r;
	u->spec = (struct dataset_spec){
		.name = u->name,
		.origin = u->origin,
		.options = u->options,
		.exists_ok = true,
	};
	u->spec.includes = inv_list(u->inv, "include", &u->spec.include);
	u->spec.excludes = inv_list(u->inv, "exclude", &u->spec.exclude);
	return quota ? dataset_quota_parse(quota, &u->spec.quota_limited, &u->spec.quota_bytes, err)
		     : 0;
}

static void print_age(const Granary__V1__Dataset *d)
{
	static const struct {
		int64_t from_s, unit_s;
		const char *unit;
	} units[] = {{2 * 86400, 86400, "days"}, {7200, 3600, "hours"}, {120, 60, "minutes"},
		{0, 1, "seconds"}};
	int64_t age_s = clock_wall_s() - d->snapshot_created_s;
	char size[SIZE_TEXT_BYTES];
	int i = 0;

	fprintf(stderr, "dataset %s: %" PRIu64 " files, %s, snapshot %" PRIu64, d->name, d->files,
		size_format(d->bytes, size), d->snapshot);
	if (age_s < JUST_LISTED_S) {
		fputs(", listed now\n", stderr);
		return;
	}
	while (age_s < units[i].from_s)
		i++;
	fprintf(stderr, ", listed %" PRId64 " %s ago (--refresh lists again)\n",
		age_s / units[i].unit_s, units[i].unit);
}

static void report(struct up *u, const char *mountpoint, const char *mode, uint64_t pid)
{
	mount_report_print(&(struct mount_report){
		.dataset = u->name,
		.origin = u->dataset->origin,
		.mountpoint = mountpoint,
		.mode = mode,
		.master = u->paths.socket,
		.snapshot = u->dataset->snapshot,
		.files = u->dataset->files,
		.bytes = u->dataset->bytes,
		.pid = pid,
		.joined = pid != (uint64_t)getpid(),
	});
}

static bool is_known(struct client *c, const char *name)
{
	Granary__V1__Dataset *d = NULL;
	struct error why = ERROR_INIT;
	bool known = dataset_get(c, name, &d, &why) == 0;

	granary__v1__dataset__free_unpacked(d, NULL);
	return known;
}

/* The dataset on a master that runs: known, listed for the first time, or listed again. */
static int bring_dataset(struct up *u, struct client *c, struct error *err)
{
	Granary__V1__Dataset *d = NULL;
	bool again = inv_switch(u->inv, "refresh") && is_known(c, u->name);
	int r = dataset_add(c, &u->spec, &d, err);

	if (r < 0)
		return r;
	r = dataset_renew(c, u->name, u->options, err);
	if (r == 0 && again) {
		granary__v1__dataset__free_unpacked(d, NULL);
		d = NULL;
		r = dataset_refresh(c, u->name, false, &d, err);
	}
	if (r == 0) {
		dataset_print_report(d->report);
		dataset_print_kept(u->inv, &u->spec, d);
	}
	u->dataset = d;
	return r;
}

/* A second `up` with the same state directory: the running process gets dataset and mount. */
static int join_running(struct up *u, struct error *err)
{
	Granary__V1__HostMountRequest q = GRANARY__V1__HOST_MOUNT_REQUEST__INIT;
	Granary__V1__HostMountReply *reply;
	struct client c;
	int r = client_open(u->paths.socket, NULL, &c, err);

	if (r < 0)
		return r;
	r = host_settings_agree(u->inv, &u->paths, &c, err);
	if (r == 0)
		r = bring_dataset(u, &c, err);
	if (r == 0) {
		q.dataset = u->name;
		q.mountpoint = (char *)u->mountpoint;
		q.allow_other = u->mount.allow_other;
		q.uid = u->mount.uid;
		q.gid = u->mount.gid;
		q.no_preload = u->mount.no_preload;
		q.order_memory_bytes = u->mount.order_memory_bytes;
		q.sample_ppm = u->mount.sample_ppm;
		q.no_passthrough = u->mount.no_passthrough;
		q.mode = (char *)inv_text(u->inv, "mode");
		q.job = (char *)(u->mount.job ? u->mount.job : "");
		q.read_timeout_ms = (uint64_t)u->mount.read_timeout_ms;
		r = rpc_unary(c.channel, "/granary.v1.HostService/Mount", &q.base,
			&granary__v1__host_mount_reply__descriptor, (ProtobufCMessage **)&reply,
			clock_deadline_ms(CLIENT_TIMEOUT_MS), err);
	}
	if (r == 0) {
		print_age(u->dataset);
		fprintf(stderr, "mounted %s at %s by the running process %" PRIu64 "\n", u->name,
			u->mountpoint, reply->pid);
		if (inv_json(u->inv))
			report(u, reply->mountpoint, reply->mode, reply->pid);
		granary__v1__host_mount_reply__free_unpacked(reply, NULL);
	}
	client_close(&c);
	return r;
}

static int serve(struct up *u, struct host *h, struct daemonize *d, struct error *err)
{
	struct host_mounted mounted;
	struct client c;
	int r = host_start(h, inv_text(u->inv, "metrics"), err);

	if (r < 0)
		return r;
	r = client_open(host_address(h), NULL, &c, err);
	if (r == 0) {
		r = bring_dataset(u, &c, err);
		client_close(&c);
	}
	if (r == 0)
		r = host_mount(h, &u->mount, &mounted, err);
	if (r < 0)
		return r;
	print_age(u->dataset);
	fprintf(stderr, "mounted %s at %s%s\n", u->name, u->mountpoint,
		d->ready_fd < 0 ? "; Ctrl-C unmounts" : "");
	r = daemonize_prepare(d, err);
	if (r == 0 && inv_json(u->inv))
		report(u, mounted.mountpoint, mounted.mode, (uint64_t)getpid());
	if (r == 0)
		r = daemonize_ready(d, err);
	if (r == 0)
		host_wait(h);
	return r;
}

static int start_here(struct up *u, struct error *err)
{
	struct daemonize d = DAEMONIZE_INIT;
	char log_file[PATH_MAX + 16];
	struct paths_made made = {0};
	cleanup_free char *token = NULL;
	cleanup_free struct host_settings *settings = malloc(sizeof(*settings));
	struct host_options ho = {
		.parts = HOST_MASTER | HOST_WORKER | HOST_MOUNTS,
		.paths = &u->paths,
		.listen = inv_text(u->inv, "listen"),
		.advertise = inv_text(u->inv, "advertise"),
		.socket_group = inv_text(u->inv, "group"),
		.settings = settings,
		.made = &made,
	};
	struct host *h = NULL;
	int r = settings ? paths_read_token(inv_text(u->inv, "token-file"), &token, err)
			 : error_set(err, -ENOMEM, "out of memory");

	if (r < 0)
		return r;
	if (ho.listen && !token)
		return error_set(err, -EINVAL,
			"--listen wants a --token-file, so that not everybody "
			"on the network can use the cache");
	if ((r = sharing_flags(u->inv, &ho.sharing, err)) < 0 ||
		(r = paths_cache_limits(u->inv, u->paths.cache_dir, &ho.limits, err)) < 0 ||
		(r = host_settings_read(u->inv, &u->paths, &ho.limits, settings, err)) < 0)
		return r;
	ho.token = token;
	snprintf(log_file, sizeof(log_file), "%s/granary.log", u->paths.state_dir);
	if (inv_switch(u->inv, "daemon")) {
		ho.log_file = log_file;
		r = daemonize_fork(&d, err);
		if (r < 0)
			return r;
	}
	signals_block();
	r = host_new(&ho, &h, err);
	if (r == 0)
		r = serve(u, h, &d, err);
	host_free(h);
	/* A listing is worth keeping, whatever became of the mount. */
	if (r < 0 && !u->dataset)
		paths_discard(&u->paths, &made);
	return r;
}

int command_up(struct invocation *inv)
{
	struct up u = {.inv = inv};
	struct error err = ERROR_INIT;
	int r = prepare(&u, &err);

	if (r == 0)
		r = client_socket_probe(u.paths.socket, &err);
	if (r >= 0)
		r = r ? join_running(&u, &err) : start_here(&u, &err);
	mount_flags_free(&u.mount);
	origin_options_free(u.options);
	free(u.origin);
	granary__v1__dataset__free_unpacked(u.dataset, NULL);
	return r < 0 ? inv_fail(inv, r, &err) : EXIT_OK;
}

/*
 * What this host has, what each missing thing costs, and how to get it. Features are tried, not
 * guessed from versions.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/dataset_client.h"
#include "cli/origin_argument.h"
#include "cli/output.h"
#include "cli/paths.h"
#include "cli/table.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/large_page.h"
#include "common/size.h"
#include "fuse/passthrough.h"
#include "store/disk.h"

#define CHECKS_MAX 16
#define ORIGIN_TIMEOUT_MS 20000
#define NOFILE_WANTED 4096
#define FREE_WANTED_BYTES ((uint64_t)1 << 30)

enum verdict { VERDICT_OK, VERDICT_SLOWER, VERDICT_MISSING };

struct check {
	const char *name;
	enum verdict verdict;
	char found[160];
	char cost[200]; /* of its absence, and how to get it */
};

struct report {
	struct check checks[CHECKS_MAX];
	size_t count;
};

static struct check *add(struct report *r, const char *name, enum verdict verdict, const char *cost)
{
	struct check *c = &r->checks[r->count];

	if (r->count + 1 < CHECKS_MAX)
		r->count++;
	*c = (struct check){.name = name, .verdict = verdict};
	snprintf(c->cost, sizeof(c->cost), "%s", cost);
	return c;
}

static void check_fuse_device(struct report *r)
{
	cleanup_fd int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	int error = fd < 0 ? errno : 0;
	struct check *c = add(r, "/dev/fuse", fd >= 0 ? VERDICT_OK : VERDICT_MISSING,
		error == EACCES || error == EPERM
			? "nothing can be mounted: chmod 666 /dev/fuse as root, or run as root; in "
			  "a container pass --device /dev/fuse"
			: "nothing can be mounted: load the module (modprobe fuse as root); in a "
			  "container pass --device /dev/fuse");

	snprintf(c->found, sizeof(c->found), "%s", error ? strerror(error) : "opens");
}

/* 1 found and setuid root, 0 found, -ENOENT. */
static int find_helper(const char *program)
{
	const char *path = getenv("PATH");
	char candidate[PATH_MAX];
	struct stat st;

	for (const char *p = path ? path : "/usr/bin:/bin"; *p;) {
		size_t n = strcspn(p, ":");

		snprintf(candidate, sizeof(candidate), "%.*s/%s", (int)n, p, program);
		if (access(candidate, X_OK) == 0 && stat(candidate, &st) == 0)
			return (st.st_mode & S_ISUID) && st.st_uid == 0;
		p += n + (p[n] == ':');
	}
	return -ENOENT;
}

static void check_privileges(struct report *r)
{
	int helper = find_helper("fusermount3");
	struct check *c;

	if (geteuid() == 0) {
		c = add(r, "privileges", VERDICT_OK, "");
		snprintf(c->found, sizeof(c->found), "root");
		return;
	}
	c = add(r, "privileges", helper > 0 ? VERDICT_OK : VERDICT_MISSING,
		helper < 0 ? "users who are not root cannot mount: apt-get install fuse3"
			   : "users who are not root cannot mount: chown root and chmod u+s "
			     "fusermount3");
	snprintf(c->found, sizeof(c->found), "user %u, %s", (unsigned)geteuid(),
		helper < 0   ? "no fusermount3"
		: helper > 0 ? "fusermount3"
			     : "fusermount3 without its setuid bit");
}

static void check_allow_other(struct report *r)
{
	cleanup_file FILE *f = fopen("/etc/fuse.conf", "re");
	bool allowed = geteuid() == 0;
	char line[256];
	struct check *c;

	while (f && !allowed && fgets(line, sizeof(line), f))
		allowed = strncmp(line, "user_allow_other", 16) == 0;
	c = add(r, "allow_other", allowed ? VERDICT_OK : VERDICT_SLOWER,
		"other users cannot read your mounts: put user_allow_other into /etc/fuse.conf");
	snprintf(c->found, sizeof(c->found), "%s", allowed ? "allowed" : "not allowed");
}

/* Not used whatever the kernel says: docs/adr/0020. */
static void check_io_uring(struct report *r)
{
	cleanup_file FILE *f = fopen("/sys/module/fuse/parameters/enable_uring", "re");
	char value = f ? (char)fgetc(f) : 0;
	struct check *c = add(r, "fuse over io_uring", VERDICT_OK, "");

	snprintf(c->found, sizeof(c->found), "not used (%s)",
		!f	       ? "not in this kernel"
		: value == 'Y' ? "on in this kernel"
			       : "off in this kernel");
}

/* Only INIT tells for certain, and that needs a mount. */
static void check_takeover(struct report *r)
{
	unsigned major = 0, minor = 0;
	struct utsname system;
	struct check *c;
	bool can;

	can = uname(&system) == 0 && sscanf(system.release, "%u.%u", &major, &minor) == 2 &&
	      (major > 6 || (major == 6 && minor >= 9));
	c = add(r, "take-over", can ? VERDICT_OK : VERDICT_SLOWER,
		"readers of a `granary mount` whose process dies get ENOTCONN, and it cannot be upgraded "
		"under them: Linux 6.9 can repeat requests");
	snprintf(c->found, sizeof(c->found), "%s",
		can ? "works, for `granary mount`" : "not in this kernel");
}

static void check_files_limit(struct report *r)
{
	struct rlimit limit = {0};
	struct check *c;

	getrlimit(RLIMIT_NOFILE, &limit);
	c = add(r, "open files", limit.rlim_max >= NOFILE_WANTED ? VERDICT_OK : VERDICT_SLOWER,
		"fewer connections and cached files: raise `ulimit -n` to 4096 or more");
	snprintf(c->found, sizeof(c->found), "%llu", (unsigned long long)limit.rlim_max);
}

static void check_disk(struct report *r, const char *name, const char *flag, const char *dir)
{
	char parent[PATH_MAX], text[2][SIZE_TEXT_BYTES];
	struct statvfs vfs = {0};
	struct stat st;
	struct check *c;
	const char *state = "writable";

	paths_existing(dir, parent);
	if (access(parent, W_OK | X_OK) < 0)
		state = "not writable";
	else if (stat(dir, &st) == 0 && st.st_uid != geteuid())
		state = "of another user";
	statvfs(parent, &vfs);
	c = add(r, name, VERDICT_OK, "");
	if (strcmp(state, "writable") != 0) {
		c->verdict = VERDICT_MISSING;
		snprintf(c->cost, sizeof(c->cost),
			"nothing can be kept there: run as its owner, or choose another with %s",
			flag);
	} else if ((uint64_t)vfs.f_bavail * vfs.f_frsize < FREE_WANTED_BYTES) {
		c->verdict = VERDICT_SLOWER;
		snprintf(c->cost, sizeof(c->cost),
			"little can be kept there: make room, or choose a larger disk with %s",
			flag);
	}
	snprintf(c->found, sizeof(c->found), "%.80s: %s, %s free of %s", dir, state,
		size_format((uint64_t)vfs.f_bavail * vfs.f_frsize, text[0]),
		size_format((uint64_t)vfs.f_blocks * vfs.f_frsize, text[1]));
}

static void check_direct_io(struct report *r, const char *dir)
{
	char parent[PATH_MAX];
	cleanup_fd int fd = -1;
	struct check *c;

	paths_existing(dir, parent);
	fd = open(parent, O_TMPFILE | O_RDWR | O_DIRECT | O_CLOEXEC, 0600);
	/* Who cannot write there is told of it by another check. */
	if (fd < 0 && errno != EINVAL)
		return;
	c = add(r, "direct IO", fd >= 0 ? VERDICT_OK : VERDICT_SLOWER,
		"mounts keep small files in two page caches, and the scrubber does not see what "
		"the disk has under a cached page: choose another file system for --cache-dir");
	snprintf(c->found, sizeof(c->found), "%s",
		fd >= 0 ? "works, for small files and the scrubber" : "not on this file system");
}

/* Whether the page at `p` lies in a large one: /proc/PID/smaps, proc_pid_smaps(5). */
static bool in_large_page(const void *p)
{
	cleanup_file FILE *f = fopen("/proc/self/smaps", "re");
	uintptr_t at = (uintptr_t)p;
	unsigned long from = 0, to = 0, kb;
	char line[256];

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			continue;
		if (at >= from && at < to && sscanf(line, "AnonHugePages: %lu", &kb) == 1)
			return kb > 0;
	}
	return false;
}

static void check_large_pages(struct report *r)
{
	cleanup_free char *page = large_page_alloc(LARGE_PAGE_BYTES);
	struct check *c;
	bool have;

	if (!page)
		return;
	memset(page, 1, LARGE_PAGE_BYTES);
	have = in_large_page(page);
	c = add(r, "large pages", have ? VERDICT_OK : VERDICT_SLOWER,
		"small files come out of the cache at half the speed or less in a virtual machine: "
		"write madvise to /sys/kernel/mm/transparent_hugepage/enabled");
	snprintf(c->found, sizeof(c->found), "%s",
		have ? "work, for reads of small files" : "the kernel gave none");
}

static bool on_overlay(const char *dir)
{
	struct statfs fs;

	return statfs(dir, &fs) == 0 && fs.f_type == OVERLAYFS_SUPER_MAGIC;
}

#define THROUGH_THE_MOUNT \
	"cached large files are read through the mount, slower than the disk's own: "

static void check_passthrough(struct report *r, const char *cache_dir)
{
	cleanup_fd int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	const char *lacks = NULL, *cost = "";
	char parent[PATH_MAX];
	struct check *c;

	paths_existing(cache_dir, parent);
	/* Of these other checks tell. */
	if (fuse < 0 || access(parent, W_OK | X_OK) < 0)
		return;
	if (!passthrough_in_kernel(fuse)) {
		lacks = "not in this kernel";
		cost = THROUGH_THE_MOUNT "Linux 6.9 has it";
	} else if (!passthrough_permitted()) {
		lacks = "not without the capability SYS_ADMIN";
		cost = THROUGH_THE_MOUNT "run it as root, in a container with --cap-add SYS_ADMIN";
	} else if (on_overlay(parent)) {
		lacks = "not from an overlay file system";
		cost = THROUGH_THE_MOUNT "put --cache-dir on a disk's own file system";
	} else if (!store_disk_real.tells_use(NULL, parent)) {
		lacks = "not from a file system without leases";
		cost = THROUGH_THE_MOUNT "put --cache-dir on a local file system";
	}
	c = add(r, "passthrough", lacks ? VERDICT_SLOWER : VERDICT_OK, cost);
	snprintf(c->found, sizeof(c->found), "%s", lacks ? lacks : "works, for files over 4 MiB");
}

/* One entry is enough to know that listing works. */
static int first_entry(void *arg, const struct origin_entry *e, struct error *err)
{
	(void)e;
	atomic_store((atomic_bool *)arg, true);
	return error_set(err, -ECANCELED, "enough");
}

static const char *origin_advice(int res)
{
	switch (res) {
	case -EACCES:
	case -EPERM:
		return "datasets there cannot be listed: give credentials, or a user, that may "
		       "list and read it";
	case -ENOENT:
	case -ENOTDIR:
	case -EINVAL:
		return "datasets there cannot be listed: correct the address and the options";
	default:
		return "datasets there cannot be listed: check the address, the network and "
		       "proxies";
	}
}

static int check_origin(
	struct report *r, const struct invocation *inv, const char *url, struct error *err)
{
	struct origin_options *options;
	struct error why = ERROR_INIT;
	struct origin *origin = NULL;
	atomic_bool seen = false;
	struct check *c;
	int64_t started_ms = clock_mono_ms();
	int res = dataset_options(inv, url, &options, err);

	if (res < 0)
		return res;
	res = origin_open(url, options, &origin, &why);
	if (res == 0)
		res = origin_list(origin, first_entry, &seen, NULL,
			clock_deadline_ms(ORIGIN_TIMEOUT_MS), &why);
	if (atomic_load(&seen))
		res = 0;
	c = add(r, "origin", res == 0 ? VERDICT_OK : VERDICT_MISSING, origin_advice(res));
	if (res == 0)
		snprintf(c->found, sizeof(c->found), "%s after %lld ms; bytes proved by %s",
			atomic_load(&seen) ? "lists" : "is empty",
			(long long)(clock_mono_ms() - started_ms), origin_guarantee(origin));
	else
		snprintf(c->found, sizeof(c->found), "%.*s", (int)sizeof(c->found) - 1, why.text);
	origin_free(origin);
	origin_options_free(options);
	return 0;
}

static const char *const verdict_names[] = {"ok", "limited", "missing"};

static void print_report(const struct report *r, bool json)
{
	json_t *array;
	struct table *t;

	if (json) {
		array = json_array();
		for (size_t i = 0; i < r->count; i++)
			json_array_append_new(array,
				json_pack("{s:s, s:s, s:o, s:s}", "check", r->checks[i].name,
					"state", verdict_names[r->checks[i].verdict], "found",
					output_text(r->checks[i].found), "advice",
					r->checks[i].verdict == VERDICT_OK ? ""
									   : r->checks[i].cost));
		output_json(array);
		return;
	}
	t = table_new("CHECK\tSTATE\tFOUND\tWITHOUT IT");
	for (size_t i = 0; i < r->count; i++) {
		table_cell(t, "%s", r->checks[i].name);
		table_cell(t, "%s", verdict_names[r->checks[i].verdict]);
		table_cell(t, "%s", r->checks[i].found);
		table_cell(t, "%s", r->checks[i].verdict == VERDICT_OK ? "" : r->checks[i].cost);
	}
	table_print(t, stdout);
	table_free(t);
}

int command_doctor(struct invocation *inv)
{
	cleanup_free char *url = NULL;
	struct error err = ERROR_INIT;
	struct report report = {0};
	struct paths paths;
	bool missing = false;
	int r = paths_find(inv, &paths, &err);

	if (r < 0)
		return inv_fail(inv, r, &err);
	check_fuse_device(&report);
	check_privileges(&report);
	check_allow_other(&report);
	check_io_uring(&report);
	check_takeover(&report);
	check_files_limit(&report);
	check_disk(&report, "cache", "--cache-dir", paths.cache_dir);
	check_disk(&report, "state", "--state-dir", paths.state_dir);
	check_direct_io(&report, paths.cache_dir);
	check_large_pages(&report);
	check_passthrough(&report, paths.cache_dir);
	if (inv_argument(inv, 0))
		r = origin_argument(inv_argument(inv, 0), &url, &err);
	if (url)
		r = check_origin(&report, inv, url, &err);
	if (r < 0)
		return inv_fail(inv, r, &err);
	print_report(&report, inv_json(inv));
	for (size_t i = 0; i < report.count; i++)
		missing = missing || report.checks[i].verdict == VERDICT_MISSING;
	return missing ? EXIT_FAILED : EXIT_OK;
}

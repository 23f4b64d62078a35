/*
 * Reads a tree as a training loader does: every file once an epoch, in a fresh order each time, by
 * several processes. On a mount of Granary the root's xattrs say where the bytes came from; what
 * the mount was not asked for came from the kernel's page cache.
 */
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/order_client.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/table.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/size.h"

#define READERS_MAX 256
#define READ_BYTES (1u << 20)
#define POLL_US 50000

struct file_list {
	char **paths;
	size_t count, room;
	uint64_t bytes;
};

/* Shared with the readers. */
struct tally {
	_Atomic uint64_t files, bytes, failed;
	_Atomic int first_errno;
};

struct epoch_result {
	uint64_t files, bytes, failed;
	double seconds;
	bool granary; /* the three below are known */
	uint64_t hit_bytes, miss_bytes;
};

static int file_list_add(struct file_list *l, const char *path, uint64_t bytes)
{
	if (l->count == l->room) {
		size_t room = l->room ? l->room * 2 : 1024;
		char **paths = reallocarray(l->paths, room, sizeof(char *));

		if (!paths)
			return -ENOMEM;
		l->paths = paths;
		l->room = room;
	}
	l->paths[l->count] = strdup(path);
	if (!l->paths[l->count])
		return -ENOMEM;
	l->count++;
	l->bytes += bytes;
	return 0;
}

static void file_list_deinit(struct file_list *l)
{
	for (size_t i = 0; i < l->count; i++)
		free(l->paths[i]);
	free(l->paths);
}

static int file_list_walk(struct file_list *l, const char *dir, uint64_t limit, struct error *err)
{
	char *const roots[] = {(char *)dir, NULL};
	FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	int r = 0;

	if (!fts)
		return error_set_errno(err, -errno, "cannot read %s", dir);
	for (FTSENT *e = fts_read(fts); e && r == 0 && l->count < limit; e = fts_read(fts)) {
		if (e->fts_info == FTS_F)
			r = file_list_add(l, e->fts_path, (uint64_t)e->fts_statp->st_size);
		else if (e->fts_info == FTS_DNR || e->fts_info == FTS_ERR || e->fts_info == FTS_NS)
			r = error_set_errno(err, -e->fts_errno, "cannot read %s", e->fts_path);
	}
	fts_close(fts);
	if (r == 0 && l->count == 0)
		r = error_set(err, -ENOENT, "there are no files in %s", dir);
	return r;
}

/* splitmix64: the same seed gives the same orders everywhere. */
static uint64_t next_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static void shuffle(struct file_list *l, uint64_t *state)
{
	for (size_t i = l->count; i > 1; i--) {
		size_t k = next_random(state) % i;
		char *swapped = l->paths[i - 1];

		l->paths[i - 1] = l->paths[k];
		l->paths[k] = swapped;
	}
}

static int read_file(const char *path, char *room, uint64_t *ret_bytes)
{
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	while ((n = read(fd, room, READ_BYTES)) > 0)
		*ret_bytes += (uint64_t)n;
	return n < 0 ? -errno : 0;
}

static void reader_main(const struct file_list *l, size_t first, size_t step, struct tally *tally)
{
	char *room = malloc(READ_BYTES);

	for (size_t i = first; room && i < l->count; i += step) {
		uint64_t bytes = 0;
		int zero = 0, r = read_file(l->paths[i], room, &bytes);

		atomic_fetch_add(&tally->bytes, bytes);
		if (r < 0) {
			atomic_fetch_add(&tally->failed, 1);
			atomic_compare_exchange_strong(&tally->first_errno, &zero, -r);
		} else {
			atomic_fetch_add(&tally->files, 1);
		}
	}
	_exit(0);
}

static bool counter(const char *dir, const char *name, uint64_t *ret)
{
	char text[32];
	ssize_t n = getxattr(dir, name, text, sizeof(text) - 1);

	if (n <= 0)
		return false;
	text[n] = '\0';
	*ret = strtoull(text, NULL, 10);
	return true;
}

static bool counters(const char *dir, uint64_t *ret_hit, uint64_t *ret_miss)
{
	return counter(dir, "user.granary.hit_bytes", ret_hit) &&
	       counter(dir, "user.granary.miss_bytes", ret_miss);
}

/* Waits for the readers, showing how far they are. */
static void follow(
	const pid_t *pids, size_t readers, struct tally *tally, struct progress *progress)
{
	size_t running = readers;
	bool ended[READERS_MAX] = {false};

	while (running > 0) {
		for (size_t i = 0; i < readers; i++) {
			if (!ended[i] && waitpid(pids[i], NULL, WNOHANG) != 0) {
				ended[i] = true;
				running--;
			}
		}
		progress_update(progress, atomic_load(&tally->files), atomic_load(&tally->bytes));
		if (running)
			usleep(POLL_US / 10);
	}
}

/* While the readers have begun: a long list is taken as they read. */
static int announce(const char *dir, const struct file_list *l, struct error *err)
{
	struct order_client *c = malloc(sizeof(*c));
	size_t below = strlen(dir);
	struct order_result result;
	int r;

	if (!c)
		return error_set(err, -ENOMEM, "out of memory");
	r = order_client_open(c, dir, err);
	if (r < 0) {
		free(c);
		return r;
	}
	for (size_t i = 0; r == 0 && i < l->count; i++)
		r = order_client_path(c, l->paths[i] + below, strlen(l->paths[i] + below), err);
	if (r == 0)
		r = order_client_end(c, &result, err);
	order_client_close(c);
	free(c);
	return r;
}

static int run_epoch(const char *dir, const struct file_list *l, size_t readers, bool announced,
	unsigned number, struct epoch_result *ret, struct error *err)
{
	struct tally *tally = mmap(
		NULL, sizeof(*tally), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t hit[2] = {0}, miss[2] = {0};
	struct progress progress;
	pid_t pids[READERS_MAX];
	char label[32];
	int64_t started_ns;
	size_t started;
	int r = 0;

	if (tally == MAP_FAILED)
		return error_set_errno(err, -errno, "out of memory");
	ret->granary = counters(dir, &hit[0], &miss[0]);
	snprintf(label, sizeof(label), "epoch %u", number);
	progress_start(&progress, label, "files", l->count, l->bytes);
	started_ns = clock_mono_ns();
	fflush(NULL);
	for (started = 0; started < readers; started++) {
		pids[started] = fork();
		if (pids[started] == 0)
			reader_main(l, started, readers, tally);
		if (pids[started] < 0)
			break;
	}
	if (announced)
		r = announce(dir, l, err);
	follow(pids, started, tally, &progress);
	ret->seconds = (double)(clock_mono_ns() - started_ns) / 1e9;
	ret->files = atomic_load(&tally->files);
	ret->bytes = atomic_load(&tally->bytes);
	ret->failed = atomic_load(&tally->failed);
	progress_finish(&progress, ret->files, ret->bytes);
	ret->granary = ret->granary && counters(dir, &hit[1], &miss[1]);
	if (ret->granary) {
		ret->hit_bytes = hit[1] - hit[0];
		ret->miss_bytes = miss[1] - miss[0];
	}
	if (ret->failed)
		fprintf(stderr, "granary: %" PRIu64 " files could not be read: %s\n", ret->failed,
			strerror(atomic_load(&tally->first_errno)));
	munmap(tally, sizeof(*tally));
	if (r < 0)
		return r;
	return started == readers ? 0
				  : error_set(err, -EAGAIN, "cannot start %zu readers", readers);
}

/* Everything read that did not come from the origin, over everything read. */
static double hit_ratio(const struct epoch_result *e)
{
	if (!e->bytes || e->miss_bytes >= e->bytes)
		return 0;
	return 1 - (double)e->miss_bytes / (double)e->bytes;
}

static void print_table(const struct epoch_result *epochs, size_t count)
{
	struct table *t = table_new(">EPOCH\t>FILES\t>FILES/S\t>MB/S\t>FROM ORIGIN\t>FROM CACHE\t"
				    ">PAGE CACHE\t>HIT");

	for (size_t i = 0; i < count; i++) {
		const struct epoch_result *e = &epochs[i];
		uint64_t asked = e->hit_bytes + e->miss_bytes;
		char text[SIZE_TEXT_BYTES];

		table_cell(t, "%zu", i + 1);
		table_cell(t, "%" PRIu64, e->files);
		table_cell(t, "%.0f", (double)e->files / e->seconds);
		table_cell(t, "%.1f", (double)e->bytes / e->seconds / 1e6);
		if (!e->granary) {
			for (int k = 0; k < 4; k++)
				table_cell(t, "-");
			continue;
		}
		table_cell(t, "%s", size_format(e->miss_bytes, text));
		table_cell(t, "%s", size_format(e->hit_bytes, text));
		table_cell(t, "%s", size_format(e->bytes > asked ? e->bytes - asked : 0, text));
		table_cell(t, "%.1f %%", 100 * hit_ratio(e));
	}
	table_print(t, stdout);
	table_free(t);
}

static void print_json(const struct epoch_result *epochs, size_t count)
{
	json_t *array = json_array();

	for (size_t i = 0; i < count; i++) {
		const struct epoch_result *e = &epochs[i];
		json_t *o = json_pack("{s:I, s:I, s:I, s:I, s:f}", "epoch", (json_int_t)(i + 1),
			"files", (json_int_t)e->files, "bytes", (json_int_t)e->bytes, "failed",
			(json_int_t)e->failed, "seconds", e->seconds);

		if (e->granary) {
			json_object_set_new(o, "hit_bytes", json_integer((json_int_t)e->hit_bytes));
			json_object_set_new(
				o, "miss_bytes", json_integer((json_int_t)e->miss_bytes));
			json_object_set_new(o, "hit_ratio", json_real(hit_ratio(e)));
		}
		json_array_append_new(array, o);
	}
	output_json(array);
}

int command_epoch(struct invocation *inv)
{
	uint64_t epochs = inv_number(inv, "epochs", 2), readers = inv_number(inv, "readers", 4);
	uint64_t random = inv_number(inv, "seed", 1);
	const char *dir = inv_argument(inv, 0);
	struct epoch_result results[64] = {{0}};
	struct file_list list = {0};
	struct error err = ERROR_INIT;
	uint64_t failed = 0;
	int r = 0;

	if (epochs < 1 || epochs > 64 || readers < 1 || readers > READERS_MAX)
		r = error_set(&err, -EINVAL, "--epochs is 1 to 64, --readers 1 to %d", READERS_MAX);
	if (r == 0)
		r = file_list_walk(&list, dir, inv_number(inv, "limit", UINT64_MAX), &err);
	for (uint64_t i = 0; r == 0 && i < epochs; i++) {
		shuffle(&list, &random);
		r = run_epoch(dir, &list, readers, inv_switch(inv, "announce"), (unsigned)i + 1,
			&results[i], &err);
		failed += results[i].failed;
	}
	if (r == 0 && inv_json(inv))
		print_json(results, epochs);
	else if (r == 0)
		print_table(results, epochs);
	file_list_deinit(&list);
	if (r < 0)
		return inv_fail(inv, r, &err);
	return failed ? EXIT_FAILED : EXIT_OK;
}

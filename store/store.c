#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "store/store_private.h"

#define LOG_SUBSYSTEM "store"
#include "common/log.h"

#define COMMIT_INTERVAL_MS 100
#define MEASURE_MS 1000
#define CORRUPT_LOG_MS 1000
/* Beyond any disk; keeps the scrubber's sums within 64 bits. */
#define SCRUB_RATE_MAX ((uint64_t)1000000000000)
#define MIB ((uint64_t)1 << 20)

static uint64_t clamp(uint64_t v, uint64_t low, uint64_t high)
{
	return v < low ? low : v > high ? high : v;
}

/* ---- open and close ---- */

static void choose_sizes(struct store *s, const struct store_options *opts)
{
	uint64_t capacity = opts->capacity_bytes;

	s->capacity_bytes = capacity;
	s->floor_bytes = opts->free_floor_bytes;
	s->scrub.bytes_per_s = opts->scrub_bytes_per_s;
	if (s->scrub.bytes_per_s != STORE_SCRUB_WEEKLY)
		s->scrub.bytes_per_s = clamp(s->scrub.bytes_per_s, 0, SCRUB_RATE_MAX);
	/* What is charged lags behind what the filesystem takes for itself by at most a commit. */
	s->usable_bytes = capacity - clamp(capacity / 256, MIB / 2, 64 * MIB);
	s->segment_bytes = clamp(capacity / 256 / MIB * MIB, 8 * MIB, 1024 * MIB);
	s->step_bytes = clamp(capacity / 256 / MIB * MIB, MIB, 16 * MIB);
	s->uncommitted_max_bytes = clamp(capacity / 16, 8 * MIB, 128 * MIB);
	s->commit_interval_ms =
		opts->commit_interval_ms ? opts->commit_interval_ms : COMMIT_INTERVAL_MS;
}

static int take_dir(struct store *s, struct error *err)
{
	const struct store_disk *d = s->disk;
	char path[STORE_PATH_BYTES];
	int r;

	if (strlen(s->dir) > STORE_PATH_BYTES - 64)
		return error_set(err, -ENAMETOOLONG, "the cache directory's name is too long");
	r = d->mkdir(d->ctx, s->dir);
	if (r < 0)
		return error_set_errno(err, r, "cannot make the cache directory %s", s->dir);
	snprintf(path, sizeof(path), "%s/lock", s->dir);
	r = d->lock(d->ctx, path, &s->lock_fd);
	if (r == -EBUSY)
		return error_set(err, r, "another process uses the cache directory %s", s->dir);
	if (r < 0)
		return error_set_errno(err, r, "cannot use the cache directory %s", s->dir);
	return 0;
}

static void store_free(struct store *s)
{
	if (s->directory)
		directory_set_closed(s->directory);
	fd_cache_deinit(&s->fds);
	store_state_deinit(s);
	if (s->index)
		s->disk->index->close(s->index);
	if (s->lock_fd >= 0)
		s->disk->close(s->disk->ctx, s->lock_fd);
	cond_deinit(&s->room);
	cond_deinit(&s->work);
	cond_deinit(&s->scrub.changed);
	cond_deinit(&s->ceiling.changed);
	mutex_deinit(&s->mu);
	mutex_deinit(&s->plan_mu);
	free(s->dir);
	free(s);
}

static struct store *store_new(const struct store_options *opts)
{
	struct store *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->disk = opts->disk ? opts->disk : &store_disk_real;
	s->lock_fd = -1;
	s->dir = strdup(opts->dir);
	mutex_init(&s->mu);
	mutex_init(&s->plan_mu);
	cond_init(&s->room);
	cond_init(&s->work);
	cond_init(&s->scrub.changed);
	cond_init(&s->ceiling.changed);
	atomic_store(&s->ceiling.hash, PIN_ALL);
	s->ceiling.tick_ms = opts->tick_ms ? opts->tick_ms : PIN_TICK_MS;
	fd_cache_init(&s->fds, fd_cache_room(STORE_FDS_MAX), &file_fd_ops, s);
	s->reader =
		(struct reader){.files = &s->fds, .preadv = s->disk->preadv, .ctx = s->disk->ctx};
	choose_sizes(s, opts);
	/* So that recovery's clean-up, which takes no room, does not wait for the first look. */
	s->fs_free_bytes = UINT64_MAX;
	s->fs_checked_ms = INT64_MIN / 2;
	return s;
}

/* Those that need commits to get on first. */
static void stop_threads(struct store *s)
{
	pin_ceiling_stop(s);
	scrub_stop(s);
	commit_stop(s);
}

int store_open(const struct store_options *opts, struct store **ret, struct error *err)
{
	char least[SIZE_TEXT_BYTES];
	struct store *s;
	int r;

	if (opts->capacity_bytes < STORE_CAPACITY_MIN_BYTES)
		return error_set(err, -ENOSPC, "the cache needs at least %s",
			size_format(STORE_CAPACITY_MIN_BYTES, least));
	s = store_new(opts);
	if (!s || !s->dir) {
		if (s)
			store_free(s);
		return error_set(err, -ENOMEM, "out of memory");
	}
	r = take_dir(s, err);
	s->tells_use = r == 0 && s->disk->tells_use(s->disk->ctx, s->dir);
	if (r == 0)
		r = store_recover(s, err);
	if (r == 0)
		r = commit_start(s, err);
	if (r == 0) {
		r = pin_ceiling_start(s, err);
		if (r == 0)
			r = scrub_start(s, err);
		if (r < 0)
			stop_threads(s);
	}
	if (r < 0) {
		store_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	stop_threads(s);
	store_free(s);
}

uint64_t store_pin_ceiling(const struct store *s)
{
	return atomic_load(&s->ceiling.hash);
}

uint64_t store_id(const struct store *s)
{
	return s->id;
}

/* ---- state ---- */

void degrade_locked(struct store *s, int code, const char *what)
{
	if (!s->degraded_until_ms)
		log_error("%s: %s (%s): nothing is stored until that works again", s->dir, what,
			strerror(-code));
	snprintf(s->degraded, sizeof(s->degraded), "%s: %s", what, strerror(-code));
	s->degraded_until_ms = clock_deadline_ms(STORE_DEGRADED_MS);
}

void store_degraded(struct store *s, char text[static 128])
{
	char have[SIZE_TEXT_BYTES], floor[SIZE_TEXT_BYTES];

	floor_refresh(s);
	mutex_guard(&s->mu);
	text[0] = '\0';
	if (s->degraded_until_ms)
		snprintf(text, 128, "%s", s->degraded);
	else if (s->floor_low)
		snprintf(text, 128, "only %s free on the filesystem, the floor is %s",
			size_format(s->fs_free_bytes, have), size_format(s->floor_bytes, floor));
}

void store_stat(struct store *s, struct store_stat *ret)
{
	mutex_guard(&s->mu);
	*ret = (struct store_stat){
		.capacity_bytes = s->capacity_bytes,
		.charged_bytes = charged_locked(s),
		.held_bytes = s->held_bytes,
		.blocks = directory_blocks(s->directory),
		.free_floor_bytes = s->floor_bytes,
		.pin_ceiling = atomic_load(&s->ceiling.hash),
		.scrub_bytes_per_s = scrub_rate_locked(s),
		.scrubbed_bytes = s->scrub.read_bytes,
		.scrub_damaged_blocks = s->scrub.damaged_blocks,
		.scrub_passes = s->scrub.passes,
	};
}

void store_measure(struct store *s, bool now)
{
	char path[STORE_PATH_BYTES];
	uint64_t index, dirs = 0;
	struct disk_stat st;
	static const char *const folders[] = {"", "/segments", "/files", "/format", "/lock"};

	mutex_lock(&s->mu);
	if (!now && !clock_passed(s->usage_checked_ms + MEASURE_MS)) {
		mutex_unlock(&s->mu);
		return;
	}
	s->usage_checked_ms = clock_mono_ms();
	mutex_unlock(&s->mu);
	snprintf(path, sizeof(path), "%s/index", s->dir);
	index = disk_usage(s->disk, path);
	snprintf(path, sizeof(path), "%s/index.damaged", s->dir);
	dirs += disk_usage(s->disk, path);
	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
		snprintf(path, sizeof(path), "%s%s", s->dir, folders[i]);
		if (s->disk->stat(s->disk->ctx, path, &st) == 0)
			dirs += st.allocated_bytes;
	}
	mutex_guard(&s->mu);
	s->index_bytes = index;
	s->dirs_bytes = dirs;
}

/* ---- holders in other processes ---- */

static void release_locked(struct store *s, struct store_file *f)
{
	struct commit_op op = {.file = f};

	assert(f->holders > 0);
	if (--f->holders)
		return;
	f->revoked = false;
	if (!f->held_blocks && f->blocks)
		return;
	/* The commit thread looks at the file: there is something to punch, or nothing left. */
	f->pins++;
	commit_add_locked(s, &op);
}

static int open_read_only(struct store *s, uint32_t number, enum file_kind kind, int ret_fds[2])
{
	const struct store_disk *d = s->disk;
	char path[STORE_PATH_BYTES];

	file_path(s, number, kind, false, path);
	ret_fds[1] = -1;
	ret_fds[0] = d->open(d->ctx, path, O_RDONLY);
	if (ret_fds[0] < 0 || kind == FILE_SEGMENT)
		return ret_fds[0] < 0 ? ret_fds[0] : 0;
	file_path(s, number, kind, true, path);
	ret_fds[1] = d->open(d->ctx, path, O_RDONLY);
	if (ret_fds[1] >= 0)
		return 0;
	d->close(d->ctx, ret_fds[0]);
	return ret_fds[1];
}

/* A segment for reads past the page cache; -1 where the file system knows none. */
static int open_direct(struct store *s, uint32_t number)
{
	char path[STORE_PATH_BYTES];
	int fd;

	file_path(s, number, FILE_SEGMENT, false, path);
	fd = s->disk->open(s->disk->ctx, path, O_RDONLY | O_DIRECT);
	return fd < 0 ? -1 : fd;
}

/* A record that is not durable may be gone after a crash, and its place then given to another. */
static int whole_locked(const struct store *s, const struct store_file *f)
{
	if (!s->tells_use)
		return -EOPNOTSUPP;
	if (f->blocks != block_count(f->object_bytes) || f->unsettled || f->broken)
		return -ENODATA;
	return 0;
}

int store_hold(struct store *s, uint32_t number, enum hold_kind hold, int ret_fds[2],
	uint32_t *ret_generation)
{
	enum file_kind kind = hold == HOLD_SEGMENT ? FILE_SEGMENT : FILE_SPARSE;
	struct store_file *f;
	int r;

	{
		mutex_guard(&s->mu);
		f = file_find_locked(s, number);
		if (!f || f->kind != kind || f->retiring)
			return -ENOENT;
		r = hold == HOLD_WHOLE ? whole_locked(s, f) : 0;
		if (r < 0)
			return r;
		*ret_generation = f->generation;
		if (kind == FILE_SPARSE)
			f->holders++;
	}
	r = open_read_only(s, number, kind, ret_fds);
	if (r == 0 && kind == FILE_SEGMENT)
		ret_fds[1] = open_direct(s, number);
	if (r < 0 && kind == FILE_SPARSE)
		store_release(s, number);
	return r;
}

void store_release(struct store *s, uint32_t number)
{
	struct store_file *f;

	mutex_guard(&s->mu);
	/* A held file is not retired, so it is there. */
	f = file_find_locked(s, number);
	assert(f);
	release_locked(s, f);
}

void store_set_revoke(struct store *s, store_revoke_fn *fn, void *arg)
{
	mutex_guard(&s->mu);
	s->revoke = fn;
	s->revoke_arg = arg;
}

/* ---- read ---- */

bool store_has(struct store *s, const struct block_id *id)
{
	struct directory_entry e;

	return directory_lookup(s->directory, id, &e);
}

static uint32_t now_s(void)
{
	return (uint32_t)(clock_mono_ms() / 1000);
}

void store_touch(struct store *s, const struct block_id *id)
{
	struct directory_entry e;
	const struct store_file *f;

	mutex_guard(&s->mu);
	if (!directory_lookup(s->directory, id, &e) || entry_class(&e) != CLASS_ELASTIC)
		return;
	f = file_find_locked(s, e.file);
	assert(f);
	residency_touch(
		&s->residency, e.slot, f->dataset->elastic ? LIST_LRU : LIST_ELASTIC, now_s());
}

static void log_corrupt_locked(struct store *s, const struct directory_entry *e)
{
	if (!clock_passed(s->corrupt_logged_ms + CORRUPT_LOG_MS)) {
		s->corrupt_unlogged++;
		return;
	}
	log_error(
		"%s: block %016lx%016lx in file %u at %lu is damaged: dropped (%lu more since the "
		"last such line)",
		s->dir, (unsigned long)e->id.hi, (unsigned long)e->id.lo, e->file,
		(unsigned long)e->page * STORE_PAGE_BYTES, (unsigned long)s->corrupt_unlogged);
	s->corrupt_logged_ms = clock_mono_ms();
	s->corrupt_unlogged = 0;
}

bool store_drop_damaged(struct store *s, const struct directory_entry *e)
{
	struct directory_entry now;
	struct store_file *f;

	mutex_guard(&s->mu);
	/* Another sequence is another copy, or the same one moved: then the next read tells. */
	if (!directory_lookup(s->directory, &e->id, &now) || now.slot != e->slot ||
		now.seq != e->seq)
		return false;
	f = file_find_locked(s, now.file);
	assert(f);
	f->dataset->corrupt_blocks++;
	log_corrupt_locked(s, &now);
	drop_slot_locked(s, &now);
	return true;
}

int store_read(struct store *s, const struct store_block *b, uint32_t offset, uint32_t len,
	void *dst, struct error *err)
{
	struct directory_entry e;
	int r;

	(void)err;
	r = reader_read(&s->reader, b, offset, len, &(struct reader_target){dst, len}, &e);
	if (r == READER_DAMAGED) {
		store_drop_damaged(s, &e);
		return STORE_MISS;
	}
	if (r == 0 && entry_class(&e) == CLASS_ELASTIC &&
		!residency_recent(&s->residency, e.slot, now_s()))
		store_touch(s, &b->id);
	return r;
}

#define LOG_SUBSYSTEM "mount"
#include "fuse/passthrough.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/io_priority.h"
#include "common/log.h"
#include "fuse/fs.h"
#include "fuse/thread.h"

#define SWEEP_MS 1000

/* linux/fuse.h has them since 6.9; libfuse's own calls want a request, and a file is given back
 * without one. */
struct backing_map {
	int32_t fd;
	uint32_t flags;
	uint64_t padding;
};
#define BACKING_OPEN _IOW(229, 1, struct backing_map)
#define BACKING_CLOSE _IOW(229, 2, uint32_t)

enum { OPENS, VERIFIED_BYTES, METRICS };

static struct metric metrics[METRICS] = {
	[OPENS] = METRIC_COUNTER("granary_client_passthrough_opens_total",
		"Opens whose reads the kernel answers from the store's file by itself; they are "
		"in no other count of the client.",
		"dataset"),
	[VERIFIED_BYTES] = METRIC_COUNTER("granary_client_passthrough_verified_bytes_total",
		"Bytes of the local store verified before a file was passed through.", "dataset"),
};

int passthrough_init(struct passthrough *p, struct fs *fs, struct error *err)
{
	memset(p, 0, sizeof(*p));
	p->verified = calloc(PASSTHROUGH_VERIFIED, sizeof(*p->verified));
	if (!p->verified)
		return error_set(err, -ENOMEM, "out of memory");
	p->fs = fs;
	p->device = -1;
	metrics_register(metrics, METRICS);
	p->opens_series = metric_with(&metrics[OPENS], fs->dataset);
	p->verified_series = metric_with(&metrics[VERIFIED_BYTES], fs->dataset);
	open_files_init(&p->files, OPEN_FILES_MAX);
	open_records_init(&p->records, fs->keep->state);
	p->files.records = &p->records;
	mutex_init(&p->mu);
	cond_init(&p->changed);
	return 0;
}

void passthrough_deinit(struct passthrough *p)
{
	open_files_deinit(&p->files);
	open_records_deinit(&p->records);
	cond_deinit(&p->changed);
	mutex_deinit(&p->mu);
	free(p->verified);
}

/* ---- may we ---------------------------------------------------------------------------------- */

bool passthrough_permitted(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};

	return syscall(SYS_capget, &head, data) == 0 &&
	       (data[CAP_TO_INDEX(CAP_SYS_ADMIN)].effective & CAP_TO_MASK(CAP_SYS_ADMIN));
}

bool passthrough_in_kernel(int fuse)
{
	struct backing_map map = {.fd = -1};

	return ioctl(fuse, BACKING_OPEN, &map) >= 0 || errno != ENOTTY;
}

void passthrough_on(struct passthrough *p)
{
	atomic_store(&p->state, PASSTHROUGH_ON);
}

bool passthrough_is_on(const struct passthrough *p)
{
	return atomic_load_explicit(&p->state, memory_order_relaxed) == PASSTHROUGH_ON;
}

static void refused(struct passthrough *p, int code)
{
	bool for_good = code == -EPERM || code == -ELOOP || code == -EOPNOTSUPP ||
			code == -ENOTTY || code == -EINVAL;

	if (!for_good) {
		log_debug("a file was not passed through: %s", strerror(-code));
		return;
	}
	if (atomic_exchange(&p->state, PASSTHROUGH_REFUSED) == PASSTHROUGH_ON)
		log_warn("no passthrough, large files are read through the mount: %s",
			code == -EPERM ? "the kernel wants CAP_SYS_ADMIN outside of any user "
					 "namespace"
			: code == -ELOOP
				? "the cache directory is on a stacked file system (overlay): "
				  "choose another with --cache-dir"
				: strerror(-code));
}

/* ---- backing files --------------------------------------------------------------------------- */

static int backing_open(struct passthrough *p, int fd)
{
	struct backing_map map = {.fd = fd};
	int id = ioctl(p->device, BACKING_OPEN, &map);

	if (id > 0)
		open_records_backing_seen(&p->records, id);
	return id < 0 ? -errno : id > 0 ? id : -EIO;
}

/* A connection that was aborted has closed it by itself, or does when it is unmounted. */
static void backing_close(struct passthrough *p, uint32_t id)
{
	if (ioctl(p->device, BACKING_CLOSE, &id) < 0)
		log_debug("backing file %u: %s", id, strerror(errno));
}

void passthrough_close(struct passthrough *p, const struct open_backing *gone)
{
	if (!gone->whole)
		return;
	backing_close(p, (uint32_t)gone->id);
	open_records_backing_closed(&p->records, gone->record);
	gone->whole->free(gone->whole);
	atomic_fetch_sub(&p->backings, 1);
}

void passthrough_count_open(struct passthrough *p)
{
	atomic_fetch_add_explicit(&p->opens, 1, memory_order_relaxed);
	metric_add(p->opens_series, 1);
}

/* ---- what was verified ----------------------------------------------------------------------- */

static struct block_whole_key *slot_locked(struct passthrough *p, const struct block_whole_key *key)
{
	uint64_t h = (key->epoch ^ key->version) * 0x9e3779b97f4a7c15u;

	return &p->verified[(h >> 32) % PASSTHROUGH_VERIFIED];
}

static bool same(const struct block_whole_key *a, const struct block_whole_key *b)
{
	return a->epoch == b->epoch && a->version == b->version;
}

static bool was_verified(struct passthrough *p, const struct block_whole *w)
{
	mutex_guard(&p->mu);
	return same(slot_locked(p, &w->key), &w->key);
}

static void remember(struct passthrough *p, const struct block_whole *w)
{
	mutex_guard(&p->mu);
	*slot_locked(p, &w->key) = w->key;
}

static bool verify_now(
	struct passthrough *p, struct block_whole *w, bool (*goes_on)(void *arg), void *arg)
{
	unsigned char *buffer = thread_buffer(THREAD_READS_OTHERS);
	bool past_page_cache = w->bytes > PASSTHROUGH_OPEN_VERIFY_BYTES;

	if (!buffer || w->verify(w, buffer, past_page_cache, goes_on, arg) != 0)
		return false;
	remember(p, w);
	atomic_fetch_add_explicit(&p->verified_bytes, w->bytes, memory_order_relaxed);
	metric_add(p->verified_series, w->bytes);
	return true;
}

/* Takes over the whole. */
static void verify_later(struct passthrough *p, struct block_whole *w)
{
	bool taken = false;

	{
		mutex_guard(&p->mu);
		for (unsigned i = 0; i < p->queued; i++)
			taken |= same(&p->queue[i]->key, &w->key);
		taken = !taken && !p->stopping && p->queued < PASSTHROUGH_QUEUE_MAX;
		if (taken) {
			p->queue[p->queued++] = w;
			cond_signal(&p->changed);
		}
	}
	if (!taken)
		w->free(w);
}

/* ---- the decision ---------------------------------------------------------------------------- */

/* Of one that is not, takes it over. */
static bool is_verified(
	struct passthrough *p, struct block_whole *w, bool (*goes_on)(void *arg), void *arg)
{
	bool small = w->bytes <= PASSTHROUGH_OPEN_VERIFY_BYTES, mine, ok = false;

	if (was_verified(p, w))
		return true;
	mine = atomic_fetch_add(&p->verifiers, 1) < PASSTHROUGH_OPEN_VERIFIERS && small;
	if (mine)
		ok = verify_now(p, w, goes_on, arg);
	atomic_fetch_sub(&p->verifiers, 1);
	if (!mine)
		verify_later(p, w);
	else if (!ok)
		w->free(w);
	return ok;
}

void passthrough_decide(struct passthrough *p, const struct fs_node *node,
	bool (*goes_on)(void *arg), void *arg, struct open_backing *ret)
{
	struct block_file file = {node->manifest, node->index, &node->entry};
	struct block_source *source = p->fs->source;
	struct block_whole *w;
	int id, record;

	*ret = (struct open_backing){0};
	if (!passthrough_is_on(p) || !source->whole || source->whole(source, &file, &w) != 0)
		return;
	if (!is_verified(p, w, goes_on, arg))
		return;
	id = backing_open(p, w->fd);
	if (id < 0) {
		refused(p, id);
		w->free(w);
		return;
	}
	record = open_records_backing_add(&p->records, fs_node_ino(node), id);
	if (record < 0) {
		backing_close(p, (uint32_t)id);
		w->free(w);
		return;
	}
	w->close_fd(w);
	*ret = (struct open_backing){id, w, (uint32_t)record};
	atomic_fetch_add(&p->backings, 1);
	/* The thread, which waits for nothing while there are none, looks after it from now on. */
	mutex_guard(&p->mu);
	cond_signal(&p->changed);
}

/* ---- after another client -------------------------------------------------------------------- */

static bool left_wanted_back(struct block_whole *w)
{
	(void)w;
	return true;
}

static void left_free(struct block_whole *w)
{
	free(w);
}

/* In place of a hold that ended with the client: the file stays as it is for as long as the kernel
 * has it open. */
static struct block_whole *left_new(void)
{
	struct block_whole *w = calloc(1, sizeof(*w));

	if (w)
		*w = (struct block_whole){
			.fd = -1, .wanted_back = left_wanted_back, .free = left_free};
	return w;
}

static void resume_backing(struct passthrough *p, uint32_t place)
{
	const struct mount_state_backing *b = &p->fs->keep->state->backings[place];
	struct open_backing backing = {b->id, NULL, place};

	switch (atomic_load(&b->use)) {
	case BACKING_USED:
		backing.whole = left_new();
		if (backing.whole && open_files_resume(&p->files, b->ino, &backing)) {
			atomic_fetch_add(&p->backings, 1);
			return;
		}
		/* One of two with the same inode was about to be given back. */
		free(backing.whole);
		break;
	case BACKING_CLOSING:
		break;
	default:
		return;
	}
	backing_close(p, (uint32_t)b->id);
	open_records_backing_closed(&p->records, place);
}

/* A client that was killed between the kernel's answer and its record of it. Numbers are given in
 * turn, to as many threads at once as the pool has. */
static void close_unrecorded(struct passthrough *p)
{
	int32_t last = atomic_load(&p->fs->keep->state->last_backing_id);
	int32_t first = last > IO_POOL_THREADS_MAX ? last - IO_POOL_THREADS_MAX : 1;

	for (int32_t id = first; id <= last + IO_POOL_THREADS_MAX; id++) {
		uint32_t number = (uint32_t)id;

		if (!open_records_backing_known(&p->records, id) &&
			ioctl(p->device, BACKING_CLOSE, &number) == 0)
			log_debug("backing file %d was left over", id);
	}
}

void passthrough_resume(struct passthrough *p)
{
	const struct mount_state *state = p->fs->keep->state;
	bool room = !atomic_load(&state->opens_overflown);

	if (!passthrough_is_on(p))
		return;
	for (uint32_t i = 0; i < MOUNT_STATE_BACKINGS; i++)
		resume_backing(p, i);
	close_unrecorded(p);
	for (uint32_t i = 0; i < MOUNT_STATE_OPENS; i++) {
		enum mount_state_open_use use = atomic_load(&state->opens[i].use);

		if (use != OPEN_FREE)
			room &= open_files_resume_open(
				&p->files, state->opens[i].ino, use == OPEN_TRACKED);
	}
	if (room)
		return;
	/* Of some opens nothing is known, so no inode is ever known to be closed. */
	open_files_resume_open(&p->files, 0, false);
	for (uint32_t i = 0; i < MOUNT_STATE_BACKINGS; i++) {
		if (atomic_load(&state->backings[i].use) == BACKING_USED)
			open_files_resume_open(&p->files, state->backings[i].ino, true);
	}
	log_warn("more files were open than are remembered: no other large file is passed through "
		 "until this is mounted anew");
}

/* ---- the thread ------------------------------------------------------------------------------ */

static void sweep(struct passthrough *p, bool all)
{
	struct open_backing gone;

	p->swept_ms = clock_mono_ms();
	while (open_files_collect(&p->files, p->swept_ms - PASSTHROUGH_IDLE_MS, all, &gone))
		passthrough_close(p, &gone);
}

struct verification {
	struct passthrough *p;
	struct block_whole *whole;
};

static bool verification_goes_on(void *arg)
{
	const struct verification *v = arg;
	struct passthrough *p = v->p;

	if (clock_passed(p->swept_ms + SWEEP_MS))
		sweep(p, false);
	if (v->whole->wanted_back(v->whole))
		return false;
	mutex_guard(&p->mu);
	return !p->stopping;
}

/* The next of the queue; NULL when there is none and it was time for a look at the idle ones. */
static struct block_whole *next_job(struct passthrough *p, bool *ret_stopping)
{
	mutex_guard(&p->mu);

	if (!p->stopping && !p->queued)
		cond_wait(&p->changed, &p->mu,
			atomic_load(&p->backings) ? clock_deadline_ms(SWEEP_MS) : CLOCK_NEVER);
	*ret_stopping = p->stopping;
	/* It stays in the queue while it is verified, so that it is not queued twice. */
	return p->queued ? p->queue[0] : NULL;
}

static void job_done(struct passthrough *p, struct block_whole *w)
{
	{
		mutex_guard(&p->mu);
		p->queued--;
		memmove(&p->queue[0], &p->queue[1], p->queued * sizeof(p->queue[0]));
	}
	w->free(w);
}

static void *passthrough_main(void *arg)
{
	struct passthrough *p = arg;
	bool stopping = false;
	int r;

	pthread_setname_np(pthread_self(), "passthrough");
	r = io_priority_idle();
	if (r < 0)
		log_debug("no idle class for verifying: %s", strerror(-r));
	(void)thread_buffer(THREAD_READS_DISK); /* verify_now finds it */
	while (!stopping) {
		struct block_whole *w = next_job(p, &stopping);
		struct verification v = {p, w};

		if (w && !stopping)
			verify_now(p, w, verification_goes_on, &v);
		if (w)
			job_done(p, w);
		sweep(p, false);
	}
	return NULL;
}

void passthrough_attach(struct passthrough *p, int device)
{
	p->device = device;
}

int passthrough_start(struct passthrough *p, struct error *err)
{
	int r;

	if (!passthrough_is_on(p))
		return 0;
	r = thread_start(&p->thread, passthrough_main, p);
	if (r < 0)
		return error_set_errno(err, r, "cannot start a thread");
	p->started = true;
	return 0;
}

void passthrough_stop(struct passthrough *p)
{
	{
		mutex_guard(&p->mu);
		p->stopping = true;
		cond_broadcast(&p->changed);
	}
	if (p->started)
		pthread_join(p->thread, NULL);
	p->started = false;
}

void passthrough_end(struct passthrough *p)
{
	while (p->queued)
		job_done(p, p->queue[0]);
	sweep(p, true);
}

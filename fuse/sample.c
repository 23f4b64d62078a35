#define LOG_SUBSYSTEM "mount"
#include "fuse/sample.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "fuse/fs.h"
#include "fuse/mount_state.h"
#include "fuse/node_id.h"
#include "fuse/ops.h"
#include "fuse/thread.h"

static struct metric metrics[] = {
	METRIC_COUNTER("granary_client_sampled_bytes_total",
		"Bytes that readers asked for of the sample, which the kernel's page cache does not "
		"keep.",
		"dataset", "job"),
};

/* Of UINT64_MAX, which no hash is. */
static uint64_t threshold_at(const struct sample *s, unsigned level)
{
	return UINT64_MAX / SAMPLE_PPM_MAX * s->ppm >> level;
}

static bool has(struct sample *s, const struct object_id *object, uint64_t block)
{
	return block_sample_hash(object, block) <
	       atomic_load_explicit(&s->threshold, memory_order_relaxed);
}

bool sample_has_file(struct sample *s, const struct manifest_entry *file)
{
	return has(s, &file->object, 0);
}

/* ---- how much of the dataset it is ----------------------------------------------------------- */

static void expect(
	const struct sample *s, const struct manifest_info *info, struct sample_size *ret)
{
	for (unsigned level = 0; level < SAMPLE_LEVELS; level++) {
		double share = (double)s->ppm / SAMPLE_PPM_MAX / (1u << level);

		ret[level] = (struct sample_size){share, (uint64_t)(share * (double)info->blocks)};
	}
}

static void count_block(
	const struct sample *s, uint64_t hash, uint64_t bytes, struct sample_size *ret)
{
	for (unsigned level = 0; level < SAMPLE_LEVELS && hash < threshold_at(s, level); level++) {
		ret[level].share += (double)bytes;
		ret[level].blocks++;
	}
}

static void count_all(const struct sample *s, struct manifest *m, struct sample_size *ret)
{
	const struct manifest_info *info = manifest_info(m);
	struct object_id object;
	uint64_t size;

	for (uint32_t i = 0; i < info->entries; i++) {
		if (manifest_file(m, i, &object, &size) != 0)
			continue;
		for (uint64_t b = 0; b < block_count(size); b++)
			count_block(s, block_sample_hash(&object, b), block_len(size, b), ret);
	}
	for (unsigned level = 0; level < SAMPLE_LEVELS && info->bytes > 0; level++)
		ret[level].share /= (double)info->bytes;
}

/* Of what is shown now. */
static void count(struct sample *s)
{
	uint32_t slot = 0;
	struct manifest *m = snapshot_slots_get(&s->fs->slots, NODE_SLOT_CURRENT, &slot);
	const struct manifest_info *info = manifest_info(m);
	struct sample_size sizes[SAMPLE_LEVELS] = {0};

	if (info->entries > SAMPLE_COUNTED_ENTRIES || info->blocks > SAMPLE_COUNTED_BLOCKS)
		expect(s, info, sizes);
	else
		count_all(s, m, sizes);
	manifest_unref(m);
	mutex_guard(&s->mu);
	memcpy(s->sizes, sizes, sizeof(sizes));
	s->slot = slot;
	s->counted = true;
}

/* After a window with so many reads of it. */
static void thin_locked(struct sample *s, uint64_t reads)
{
	unsigned level = s->level;

	for (; reads > SAMPLE_ENOUGH && level + 1 < SAMPLE_LEVELS &&
		s->sizes[level + 1].blocks >= SAMPLE_BLOCKS_LEAST;
		reads /= 2)
		level++;
	s->level = level;
	atomic_store(&s->threshold, threshold_at(s, level));
	atomic_store(&s->fs->keep->state->sample_level, level);
}

/* ---- reads ----------------------------------------------------------------------------------- */

static struct sample_unit *waits_locked(struct sample *s, uint64_t ino, uint64_t block)
{
	for (unsigned i = s->queued; i > 0; i--) {
		struct sample_unit *u = &s->queue[(s->head + i - 1) % SAMPLE_QUEUE_MAX];

		if (u->ino == ino && u->block == block)
			return u;
	}
	return NULL;
}

static void queue_locked(struct sample *s, const struct sample_unit *unit)
{
	if (s->queued == SAMPLE_QUEUE_MAX) {
		if (!s->lost)
			log_warn(
				"%s: too much was read of the sample at once: it says nothing of the "
				"job any more",
				s->fs->dataset);
		s->lost = true;
		return;
	}
	s->queue[(s->head + s->queued++) % SAMPLE_QUEUE_MAX] = *unit;
	if (s->queued == 1 || s->queued == SAMPLE_QUEUE_MAX / 2 + 1)
		cond_signal(&s->work);
}

static void note_block(
	struct sample *s, const struct fs_node *node, uint64_t block, uint32_t len, int64_t now_ms)
{
	struct sample_unit unit = {fs_node_ino(node), block, now_ms + SAMPLE_DROP_MS, false};
	struct sample_unit *before;

	mutex_guard(&s->mu);
	if (s->counted && node->slot > s->slot) {
		s->counted = false; /* another snapshot */
		cond_signal(&s->work);
	}
	if (!s->counted || s->sizes[s->level].share <= 0)
		return;
	metric_add(s->bytes_series, len);
	s->seen.bytes += len / s->sizes[s->level].share;
	s->seen.seen_ms = now_ms;
	before = waits_locked(s, unit.ino, block);
	s->seen.reads += !before;
	if (before) {
		before->due_ms = unit.due_ms;
		before->again = true;
	} else {
		queue_locked(s, &unit);
	}
}

void sample_note(struct sample *s, const struct fs_node *node, uint64_t offset, uint32_t len)
{
	if (!atomic_load_explicit(&s->on, memory_order_relaxed))
		return;
	while (len > 0) {
		uint32_t left = (uint32_t)(BLOCK_BYTES - offset % BLOCK_BYTES);
		uint32_t part = len < left ? len : left;

		if (has(s, &node->entry.object, offset / BLOCK_BYTES))
			note_block(s, node, offset / BLOCK_BYTES, part, clock_mono_ms());
		offset += part;
		len -= part;
	}
}

/* ---- dropping -------------------------------------------------------------------------------- */

/* Those at the head that were asked for again go to the end, where others are due about then. */
static void requeue_locked(struct sample *s)
{
	struct sample_unit *first = &s->queue[s->head];

	while (s->queued > 0 && first->again) {
		first->again = false;
		s->queue[(s->head + s->queued) % SAMPLE_QUEUE_MAX] = *first;
		s->head = (s->head + 1) % SAMPLE_QUEUE_MAX;
		first = &s->queue[s->head];
	}
}

static bool take_locked(struct sample *s, struct sample_unit *ret, int64_t *ret_due_ms)
{
	bool crowded = s->queued > SAMPLE_QUEUE_MAX / 2;
	struct sample_unit *first;

	requeue_locked(s);
	first = &s->queue[s->head];
	*ret_due_ms = s->queued ? first->due_ms : CLOCK_NEVER;
	if (s->queued == 0 || !(crowded || clock_passed(first->due_ms)))
		return false;
	*ret = *first;
	s->head = (s->head + 1) % SAMPLE_QUEUE_MAX;
	s->queued--;
	return true;
}

enum work { WORK_NONE, WORK_COUNT, WORK_DROP };

static enum work await_work(struct sample *s, struct sample_unit *ret)
{
	int64_t due_ms;

	mutex_guard(&s->mu);
	while (!s->stopping) {
		if (!s->counted)
			return WORK_COUNT;
		if (take_locked(s, ret, &due_ms))
			return WORK_DROP;
		cond_wait(&s->work, &s->mu, due_ms);
	}
	return WORK_NONE;
}

static void *sample_main(void *arg)
{
	struct sample *s = arg;
	struct sample_unit unit;
	enum work work;
	int r = 0;

	while (r != -ENODEV && r != -ENOTCONN && (work = await_work(s, &unit)) != WORK_NONE) {
		if (work == WORK_COUNT)
			count(s);
		else if (s->se)
			/* -ENOENT: the kernel has forgotten the file, and its pages. */
			r = fuse_lowlevel_notify_inval_inode(s->se, unit.ino,
				(off_t)(unit.block * BLOCK_BYTES), (off_t)BLOCK_BYTES);
	}
	return NULL;
}

/* ---- what it says ---------------------------------------------------------------------------- */

static bool kernel_reads_by_itself(struct sample *s)
{
	struct passthrough *p = &s->fs->passthrough;
	uint64_t opens = atomic_load(&p->opens);
	bool more = opens != s->passed_opens;

	s->passed_opens = opens;
	return more || atomic_load(&p->backings) > 0;
}

void sample_stat(struct sample *s, struct sample_stat *ret)
{
	bool blind = kernel_reads_by_itself(s);
	uint64_t reads;

	mutex_guard(&s->mu);
	s->seen.blind = blind;
	s->seen.waited_ms = (double)atomic_load(&s->readers.waited_ns) / 1e6;
	s->seen.readers = readers_count(&s->readers, s->seen.seen_ms - s->pace.begin.seen_ms);
	reads = s->seen.reads - s->pace.begin.reads;
	if (sample_pace_tick(&s->pace, &s->seen)) {
		readers_forget(&s->readers);
		thin_locked(s, reads);
	}
	sample_pace_estimate(&s->pace, &ret->estimate);
	if (s->lost)
		ret->estimate.ideal_bytes_per_s = 0;
	ret->consumed_bytes = (uint64_t)s->seen.bytes;
}

/* ---- life ------------------------------------------------------------------------------------ */

void sample_init(
	struct sample *s, struct fs *fs, uint32_t ppm, const char *dataset, const char *job)
{
	memset(s, 0, sizeof(*s));
	s->fs = fs;
	s->ppm = ppm;
	s->level = atomic_load(&fs->keep->state->sample_level) % SAMPLE_LEVELS;
	s->threshold = threshold_at(s, s->level);
	mutex_init(&s->mu);
	cond_init(&s->work);
	metrics_register(metrics, 1);
	s->bytes_series = metric_with(&metrics[0], dataset, job);
}

void sample_deinit(struct sample *s)
{
	free(s->queue);
	cond_deinit(&s->work);
	mutex_deinit(&s->mu);
}

int sample_start(struct sample *s, struct fuse_session *se, struct error *err)
{
	int r;

	if (s->ppm == 0)
		return 0;
	s->se = se;
	s->queue = calloc(SAMPLE_QUEUE_MAX, sizeof(*s->queue));
	if (!s->queue)
		return error_set(err, -ENOMEM, "out of memory");
	r = thread_start(&s->thread, sample_main, s);
	if (r < 0)
		return error_set_errno(err, r, "cannot start a thread");
	s->started = true;
	atomic_store(&s->on, true);
	return 0;
}

void sample_stop(struct sample *s)
{
	atomic_store(&s->on, false);
	mutex_lock(&s->mu);
	s->stopping = true;
	cond_signal(&s->work);
	mutex_unlock(&s->mu);
	if (s->started)
		pthread_join(s->thread, NULL);
	s->started = false;
}

#include "fuse/prefetch.h"

#include <stdlib.h>

#include "common/clock.h"
#include "fuse/node_id.h"

struct prefetch_job {
	struct io_job job;
	struct read_cancel cancel;
	struct fs *fs;
	struct fs_node node;
	/* Of the node's file, or of its snapshot. */
	uint64_t block, end;
	struct record_advice records;
	struct file_sequence_advice files;
};

static bool over(const struct prefetch_job *j)
{
	return clock_passed(j->job.deadline_ms) || atomic_load(&j->cancel.fired);
}

/* Noted first, for the reader may be there before the answer. Requests may overtake each other, so
 * that two streams name a block: the second time it is here, and still was brought. */
static void begin(struct prefetch_job *j, const struct block_file *file, uint64_t block)
{
	const struct block_range range = {.file = file, .block = block};
	struct brought_ahead *brought = &j->fs->brought;
	uint64_t ino = node_id_make(j->node.slot, file->index);

	if (brought_ahead_has(brought, ino, block))
		return;
	brought_ahead_note(brought, ino, block);
	if (!j->fs->source->prefetch(j->fs->source, &range, j->job.deadline_ms))
		brought_ahead_forget(brought, ino, block);
}

/* A record may lie in several blocks. */
static void begin_record(struct prefetch_job *j, const struct block_file *file, uint64_t at)
{
	struct block_source *source = j->fs->source;
	uint64_t end = at + j->records.len, ino = node_id_make(j->node.slot, file->index);
	bool begun = false;

	if (end > file->entry->size)
		end = file->entry->size;
	brought_ahead_note(&j->fs->brought, ino, brought_ahead_record(at));
	for (uint64_t pos = at; pos < end;) {
		uint64_t block = pos / BLOCK_BYTES, upto = (block + 1) * BLOCK_BYTES;
		const struct block_range range = {.file = file,
			.block = block,
			.offset = (uint32_t)(pos % BLOCK_BYTES),
			.len = (uint32_t)((upto < end ? upto : end) - pos)};

		begun |= source->prefetch(source, &range, j->job.deadline_ms);
		pos += range.len;
	}
	if (!begun)
		brought_ahead_forget(&j->fs->brought, ino, brought_ahead_record(at));
}

static void blocks_run(struct io_job *job)
{
	struct prefetch_job *j = (struct prefetch_job *)job;
	const struct block_file file = {j->node.manifest, j->node.index, &j->node.entry};

	for (uint64_t i = j->block; i < j->end && !over(j); i++)
		begin(j, &file, i);
}

static void records_run(struct io_job *job)
{
	struct prefetch_job *j = (struct prefetch_job *)job;
	const struct block_file file = {j->node.manifest, j->node.index, &j->node.entry};

	for (unsigned i = 0; i < j->records.count && !over(j); i++)
		begin_record(j, &file, j->records.at[i]);
}

static void files_run(struct io_job *job)
{
	struct prefetch_job *j = (struct prefetch_job *)job;
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < j->files.count && bytes < PREFETCH_FILES_BYTES && !over(j); i++) {
		struct manifest_entry entry;
		const struct block_file file = {
			j->node.manifest, j->files.first + i * j->files.step, &entry};

		if (manifest_entry(file.manifest, file.index, &entry) < 0)
			break;
		if (entry.type != MANIFEST_FILE || entry.size == 0)
			continue;
		begin(j, &file, 0);
		bytes += block_len(entry.size, 0);
	}
}

static void job_give_up(struct io_job *job, int code)
{
	(void)job;
	(void)code;
}

static void job_free(struct io_job *job)
{
	struct prefetch_job *j = (struct prefetch_job *)job;

	fs_node_put(&j->node);
	read_cancel_deinit(&j->cancel);
	free(j);
}

static struct prefetch_job *make(
	struct fs *fs, const struct fs_node *node, void (*run)(struct io_job *job))
{
	struct prefetch_job *j = fs->source->prefetch ? calloc(1, sizeof(*j)) : NULL;

	if (!j)
		return NULL;
	j->fs = fs;
	j->node = *node;
	manifest_ref(j->node.manifest);
	j->job = (struct io_job){.run = run,
		.give_up = job_give_up,
		.free = job_free,
		.cancel = &j->cancel,
		.deadline_ms = clock_deadline_ms(PREFETCH_PATIENCE_MS)};
	read_cancel_init(&j->cancel);
	return j;
}

static void submit(struct prefetch_job *j)
{
	if (io_pool_submit(&j->fs->pool, &j->job) < 0)
		job_free(&j->job);
}

void prefetch_start(struct fs *fs, const struct fs_node *node, uint64_t block, uint64_t end)
{
	struct prefetch_job *j = block < end ? make(fs, node, blocks_run) : NULL;

	if (!j)
		return;
	j->block = block;
	j->end = end;
	submit(j);
}

void prefetch_records(
	struct fs *fs, const struct fs_node *node, const struct record_advice *records)
{
	struct prefetch_job *j = records->count ? make(fs, node, records_run) : NULL;

	if (!j)
		return;
	j->records = *records;
	submit(j);
}

void prefetch_files(
	struct fs *fs, const struct fs_node *node, const struct file_sequence_advice *files)
{
	struct prefetch_job *j = files->count ? make(fs, node, files_run) : NULL;

	if (!j)
		return;
	j->files = *files;
	submit(j);
}

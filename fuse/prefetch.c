#include "fuse/prefetch.h"

#include <stdlib.h>

#include "common/clock.h"

struct prefetch_job {
	struct io_job job;
	struct read_cancel cancel;
	struct fs *fs;
	struct fs_node node;
	uint64_t block, end;
};

static void job_run(struct io_job *job)
{
	struct prefetch_job *j = (struct prefetch_job *)job;
	struct block_source *source = j->fs->source;
	const struct block_file file = {j->node.manifest, j->node.index, &j->node.entry};

	for (uint64_t i = j->block; i < j->end; i++) {
		if (clock_passed(job->deadline_ms) || atomic_load(&j->cancel.fired))
			break;
		source->prefetch(source, &file, i, job->deadline_ms);
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

void prefetch_start(struct fs *fs, const struct fs_node *node, uint64_t block, uint64_t end)
{
	struct prefetch_job *j;

	if (block >= end || !fs->source->prefetch)
		return;
	j = calloc(1, sizeof(*j));
	if (!j)
		return;
	j->fs = fs;
	j->node = *node;
	manifest_ref(j->node.manifest);
	j->block = block;
	j->end = end;
	j->job = (struct io_job){.run = job_run,
		.give_up = job_give_up,
		.free = job_free,
		.cancel = &j->cancel,
		.deadline_ms = clock_deadline_ms(PREFETCH_PATIENCE_MS)};
	read_cancel_init(&j->cancel);
	if (io_pool_submit(&fs->pool, &j->job) < 0)
		job_free(&j->job);
}

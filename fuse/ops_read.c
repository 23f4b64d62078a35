/*
 * Reading. A request that the local store answers is answered on the thread that took it; every
 * other becomes a job of the pool, which may wait for the network, be interrupted (EINTR) and runs
 * out of time (EIO).
 *
 * A failed read is loud: it is counted, its text goes to the log and to the heartbeat, and no byte
 * of it reaches the reader.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/clock.h"
#include "fuse/ops.h"
#include "fuse/prefetch.h"

/* What is known of the reader from what he asked for before. */
struct read_pattern {
	uint32_t read_ahead; /* bytes that he will want next */
	bool was_named;	     /* the record he is at was, ahead of him, as one that begins there */
	uint64_t named_at;
};

struct read_job {
	struct io_job job;
	struct read_cancel cancel;
	struct fs *fs;
	fuse_req_t req;
	struct fs_node node;
	uint64_t offset;
	uint32_t len;
	struct read_pattern pattern;
	bool announced; /* some of it was, and is here or under way */
	int64_t began_ns;
	/* For what it has waited until `seen`. */
	struct read_waits waits;
	struct read_seen {
		int64_t ns, waited_ms, lost_ms; /* the latter two as the cancel has them */
	} seen;
};

/* What a read got from where; counted only when all of it succeeded. */
struct tally {
	uint64_t bytes[BLOCK_FROM_COUNT];
};

/* The part of [offset, offset+len) that lies in the block of `offset`; `dst` is in a thread's buffer,
 * which ends BLOCK_EXTRA_BYTES behind the request's bytes at the earliest. */
static struct block_range first_range(
	const struct block_file *file, uint64_t offset, uint32_t len, unsigned char *dst)
{
	uint32_t within = (uint32_t)(offset % BLOCK_BYTES);
	uint32_t left = (uint32_t)BLOCK_BYTES - within;

	return (struct block_range){.file = file,
		.block = offset / BLOCK_BYTES,
		.offset = within,
		.len = len < left ? len : left,
		.dst = dst,
		.room = len + BLOCK_EXTRA_BYTES};
}

static int read_local(struct fs *fs, const struct fs_node *node, uint64_t offset, uint32_t len,
	unsigned char *dst)
{
	struct block_file file = {node->manifest, node->index, &node->entry};

	while (len > 0) {
		struct block_range range = first_range(&file, offset, len, dst);
		int r = fs->source->read_local(fs->source, &range);

		if (r != 0)
			return r;
		dst += range.len;
		offset += range.len;
		len -= range.len;
	}
	return 0;
}

/* The part of [offset, offset+len) that lies in one block, from the store or somebody else. */
static int read_part(struct read_job *j, uint64_t offset, uint32_t len, unsigned char *dst,
	uint32_t *ret_len, enum block_from *ret_from, struct error *err)
{
	struct block_source *source = j->fs->source;
	struct block_file file = {j->node.manifest, j->node.index, &j->node.entry};
	struct block_range range = first_range(&file, offset, len, dst);
	int r;

	*ret_from = BLOCK_FROM_LOCAL_STORE;
	*ret_len = range.len;
	r = source->read_local(source, &range);
	/* Only behind the end of the request does the reader's stream go on. */
	if (offset + range.len == j->offset + j->len)
		range.read_ahead = j->pattern.read_ahead;
	if (r == BLOCK_SOURCE_MISS)
		r = source->read(source, &range, j->job.deadline_ms, &j->cancel, ret_from, err);
	return r;
}

/* ---- for what it waited ---------------------------------------------------------------------- */

static enum read_wait cause_of(enum block_from from)
{
	static const enum read_wait causes[BLOCK_FROM_COUNT] = {
		[BLOCK_FROM_LOCAL_STORE] = READ_WAIT_DISK,
		[BLOCK_FROM_PEER_STORE] = READ_WAIT_PEER,
		[BLOCK_FROM_FETCH] = READ_WAIT_ORIGIN,
		[BLOCK_FROM_ORIGIN] = READ_WAIT_ORIGIN,
	};

	return causes[from];
}

/* The time since it was booked last. */
static void book(struct read_job *j, enum read_wait cause)
{
	struct read_seen now = {clock_mono_ns(), atomic_load(&j->cancel.waited_ms),
		atomic_load(&j->cancel.lost_ms)};

	read_waits_add(&j->waits, now.ns - j->seen.ns, now.waited_ms - j->seen.waited_ms,
		now.lost_ms - j->seen.lost_ms, cause);
	j->seen = now;
}

/* Right before the answer, which ends the request. */
static void note_took(struct fs *fs, fuse_req_t req, int64_t took_ns, int64_t now_ns)
{
	counters_read_took(&fs->counters, took_ns);
	sample_took(&fs->sample, (int32_t)fuse_req_ctx(req)->pid, took_ns, now_ns / 1000000);
}

/* Of one that was answered on the thread that took it. */
static void note_at_once(struct fs *fs, fuse_req_t req, int64_t began_ns, enum block_from from)
{
	int64_t now_ns = clock_mono_ns();

	counters_waited(&fs->counters, cause_of(from), now_ns - began_ns);
	note_took(fs, req, now_ns - began_ns, now_ns);
}

static void note_job(struct read_job *j)
{
	for (int i = 0; i < READ_WAIT_COUNT; i++)
		counters_waited(&j->fs->counters, i, j->waits.ns[i]);
	note_took(j->fs, j->req, j->seen.ns - j->began_ns, j->seen.ns);
}

/* ---- reading --------------------------------------------------------------------------------- */

static int read_anywhere(
	struct read_job *j, unsigned char *dst, struct tally *tally, struct error *err)
{
	uint64_t offset = j->offset;
	uint32_t len = j->len;

	while (len > 0) {
		uint32_t part = 0, gap = len;
		enum block_from from;
		int r = 0;

		if (j->announced)
			part = order_part(&j->fs->order, &j->node, offset, len, dst,
				j->job.deadline_ms, &j->cancel, &from, &gap);
		if (part == 0)
			r = read_part(j, offset, gap, dst, &part, &from, err);
		book(j, r < 0 ? READ_WAIT_ORIGIN : cause_of(from));
		if (r < 0)
			return r;
		tally->bytes[from] += part;
		dst += part;
		offset += part;
		len -= part;
	}
	return 0;
}

static void report_failure(struct read_job *j, const char *cause)
{
	cleanup_buf struct buf path = BUF_INIT;
	char shown[ERROR_PATH_BYTES] = "?";
	struct error err = ERROR_INIT;

	if (manifest_path(j->node.manifest, j->node.index, &path) == 0 && path.data)
		error_cut(shown, sizeof(shown), path.data, path.len);
	error_set(&err, -EIO, "read of %s, %" PRIu32 " bytes at %" PRIu64 ", failed: %s", shown,
		j->len, j->offset, cause);
	counters_fail(&j->fs->counters, err.text);
}

/* Ends the request with an error. Everything but an interrupt is EIO: a reader can do nothing about
 * the difference, and a person finds the reason in the log and in `granary status`. */
static void fail(struct read_job *j, const char *cause)
{
	bool interrupted = fuse_req_interrupted(j->req);

	for (int i = 0; i < READ_WAIT_COUNT; i++)
		counters_waited(&j->fs->counters, i, j->waits.ns[i]);
	fuse_req_interrupt_func(j->req, NULL, NULL);
	if (interrupted) {
		atomic_fetch_add(&j->fs->counters.interrupted_reads, 1);
	} else {
		report_failure(j, cause);
		read_failures_note(&j->fs->read_failures, fs_node_ino(&j->node), j->offset,
			j->began_ns / 1000000, clock_mono_ms());
	}
	fuse_reply_err(j->req, interrupted ? EINTR : EIO);
}

static void reply_held(struct fs *fs, fuse_req_t req, struct order_held *held, uint32_t len)
{
	counters_bytes(&fs->counters, held->from, len);
	fuse_reply_buf(req, (const char *)held->bytes, len);
	order_release(&fs->order, held, len);
}

static bool was_brought_ahead(struct fs *fs, const struct fs_node *node, uint64_t offset,
	uint32_t len, const struct read_pattern *pattern)
{
	uint64_t ino = fs_node_ino(node);

	return brought_ahead_read(&fs->brought, ino, offset, len, node->entry.size) ||
	       (pattern->was_named && brought_ahead_has(&fs->brought, ino,
					      brought_ahead_record(pattern->named_at)));
}

/* Who reads records is one thread of a process, to the kernel. */
static uint32_t reader_of(fuse_req_t req)
{
	return (uint32_t)fuse_req_ctx(req)->pid;
}

/* What was read came from the origin, or had been brought from there. */
static void note_miss(struct fs *fs, fuse_req_t req, const struct fs_node *node)
{
	if (node->entry.size > BLOCK_BYTES)
		record_stride_missed(&fs->records, fs_node_ino(node), reader_of(req));
}

static void count_bytes(struct read_job *j, const struct tally *tally)
{
	bool brought = was_brought_ahead(j->fs, &j->node, j->offset, j->len, &j->pattern);

	if (brought || tally->bytes[BLOCK_FROM_FETCH] > 0)
		note_miss(j->fs, j->req, &j->node);
	for (int i = 0; i < BLOCK_FROM_COUNT; i++) {
		bool from_store = i == BLOCK_FROM_LOCAL_STORE || i == BLOCK_FROM_PEER_STORE;

		counters_bytes(&j->fs->counters, brought && from_store ? BLOCK_FROM_FETCH : i,
			tally->bytes[i]);
	}
}

static void job_run(struct io_job *job)
{
	struct read_job *j = (struct read_job *)job;
	unsigned char *buffer = thread_buffer(THREAD_READS_OTHERS);
	struct error err = ERROR_INIT;
	struct tally tally = {0};
	struct order_held held;
	int r;

	book(j, READ_WAIT_QUEUE);
	if (j->announced && order_await(&j->fs->order, &j->node, j->offset, j->len,
				    job->deadline_ms, &j->cancel, &held)) {
		fuse_req_interrupt_func(j->req, NULL, NULL);
		book(j, cause_of(held.from));
		note_job(j);
		reply_held(j->fs, j->req, &held, j->len);
		return;
	}
	if (!buffer)
		r = error_set(&err, -ENOMEM, "out of memory");
	else
		r = read_anywhere(j, buffer, &tally, &err);
	if (r < 0) {
		fail(j, err.text);
		return;
	}
	count_bytes(j, &tally);
	note_job(j);
	fuse_req_interrupt_func(j->req, NULL, NULL);
	fuse_reply_buf(j->req, (const char *)buffer, j->len);
}

static void job_give_up(struct io_job *job, int code)
{
	struct read_job *j = (struct read_job *)job;

	book(j, READ_WAIT_QUEUE);
	fail(j, code == -ETIMEDOUT ? "nothing answered before the deadline, all readers "
				     "were waiting"
				   : "the mount is stopping");
}

static void job_free(struct io_job *job)
{
	struct read_job *j = (struct read_job *)job;

	fs_node_put(&j->node);
	read_cancel_deinit(&j->cancel);
	free(j);
}

/* Called by libfuse from another thread, or from within fuse_req_interrupt_func. */
static void on_interrupt(fuse_req_t req, void *data)
{
	struct read_job *j = data;

	(void)req;
	read_cancel_fire(&j->cancel);
	io_pool_kick(&j->fs->pool);
}

/* Takes over *node; replies, now or later. */
static void submit(struct fs *fs, fuse_req_t req, struct fs_node *node, uint64_t offset,
	uint32_t len, const struct read_pattern *pattern, bool announced, int64_t began_ns)
{
	struct read_job *j;
	int r;

	if (read_failures_recent(
		    &fs->read_failures, fs_node_ino(node), offset, began_ns / 1000000)) {
		counters_fail_again(&fs->counters);
		fs_node_put(node);
		fuse_reply_err(req, EIO);
		return;
	}
	j = calloc(1, sizeof(*j));
	if (!j) {
		fs_node_put(node);
		fuse_reply_err(req, ENOMEM);
		return;
	}
	j->fs = fs;
	j->req = req;
	j->node = *node;
	node->manifest = NULL;
	j->offset = offset;
	j->len = len;
	j->pattern = *pattern;
	j->announced = announced;
	j->began_ns = j->seen.ns = began_ns;
	j->job = (struct io_job){.run = job_run,
		.give_up = job_give_up,
		.free = job_free,
		.cancel = &j->cancel,
		.deadline_ms = clock_deadline_ms(fs->read_timeout_ms)};
	read_cancel_init(&j->cancel);
	j->cancel.throttle = &fs->pool.throttle;
	fuse_req_interrupt_func(req, on_interrupt, j);
	r = io_pool_submit(&fs->pool, &j->job);
	if (r < 0) {
		fail(j, r == -EBUSY ? "too many reads wait already" : "the mount is stopping");
		job_free(&j->job);
	}
}

/* 0 and a node and the length to read, maybe 0 at the end of the file. */
static int prepare(
	struct fs *fs, uint64_t ino, size_t size, off_t off, struct fs_node *ret, uint32_t *ret_len)
{
	uint64_t left;
	int r;

	if (off < 0)
		return -EINVAL;
	/* INIT told the kernel not to ask for more; a short answer would look like the end of file.
	 */
	if (size > READ_MAX_BYTES)
		return -EINVAL;
	r = fs_node_get(fs, ino, ret);
	if (r < 0)
		return r;
	if (ret->entry.type != MANIFEST_FILE)
		return ret->entry.type == MANIFEST_DIR ? -EISDIR : -EINVAL;
	left = (uint64_t)off < ret->entry.size ? ret->entry.size - (uint64_t)off : 0;
	*ret_len = (uint32_t)(size < left ? size : left);
	return 0;
}

/* Finds out how the reader reads, and has begun what he will come to; an announced order says that
 * better. */
static struct read_pattern note_pattern(struct fs *fs, fuse_req_t req, const struct fs_node *node,
	uint64_t offset, uint32_t len, int64_t now_ns)
{
	uint64_t ino = fs_node_ino(node), size = node->entry.size;
	struct read_ahead_advice ahead =
		read_ahead_note(&fs->read_ahead, ino, offset, len, size, now_ns);
	struct read_pattern pattern = {.read_ahead = ahead.bytes};
	struct record_advice records;

	if (ahead.begun)
		kernel_window_file(&fs->window, ahead.whole);
	if (order_is_active(&fs->order))
		return pattern;
	prefetch_start(fs, node, ahead.block, ahead.end);
	if (size <= BLOCK_BYTES)
		return pattern;
	records = record_stride_note(&fs->records, ino, reader_of(req), offset, len, size);
	pattern.was_named = records.was_named;
	pattern.named_at = records.named_at;
	prefetch_records(fs, node, &records);
	prefetch_start(fs, node, records.block, records.end);
	return pattern;
}

/* Of a file's first read. */
static void look_ahead(struct fs *fs, const struct fs_node *node, bool miss)
{
	struct file_sequence_advice files =
		file_sequence_note(&fs->sequence, node->slot, node->index, miss);

	if (!order_is_active(&fs->order))
		prefetch_files(fs, node, &files);
}

/* That one of the sample is read again is no sign of another epoch: it says nothing of the others. */
static void note_preload(
	struct fs *fs, const struct fs_node *node, uint64_t offset, bool from_store)
{
	if (!sample_has_file(&fs->sample, &node->entry))
		preload_note(&fs->preload, node, offset, from_store);
}

void ops_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	cleanup_fs_node struct fs_node node = FS_NODE_INIT;
	struct fs *fs = ops_fs(req);
	int64_t began_ns = clock_mono_ns();
	enum order_answer announced = ORDER_NONE;
	struct order_held held;
	unsigned char *buffer;
	bool brought;
	struct read_pattern pattern;
	uint32_t len;
	int r;

	(void)fi;
	counters_op(&fs->counters, OP_READ);
	r = prepare(fs, ino, size, off, &node, &len);
	if (r < 0) {
		ops_reply_error(req, r);
		return;
	}
	if (len == 0) {
		fuse_reply_buf(req, NULL, 0);
		return;
	}
	sample_note(&fs->sample, &node, (uint64_t)off, len);
	pattern = note_pattern(fs, req, &node, (uint64_t)off, len, began_ns);
	if (order_is_active(&fs->order))
		announced = order_take(&fs->order, &node, (uint64_t)off, len, &held);
	if (announced == ORDER_HAS) {
		note_preload(fs, &node, (uint64_t)off, false);
		note_at_once(fs, req, began_ns, held.from);
		reply_held(fs, req, &held, len);
		return;
	}
	buffer = thread_buffer(THREAD_READS_DISK);
	if (announced == ORDER_NONE && buffer &&
		read_local(fs, &node, (uint64_t)off, len, buffer) == 0) {
		brought = was_brought_ahead(fs, &node, (uint64_t)off, len, &pattern);
		if (brought)
			note_miss(fs, req, &node);
		counters_bytes(
			&fs->counters, brought ? BLOCK_FROM_FETCH : BLOCK_FROM_LOCAL_STORE, len);
		note_at_once(fs, req, began_ns, BLOCK_FROM_LOCAL_STORE);
		note_preload(fs, &node, (uint64_t)off, !brought);
		fuse_reply_buf(req, (const char *)buffer, len);
		if (off == 0)
			look_ahead(fs, &node, false);
		return;
	}
	if (off == 0)
		look_ahead(fs, &node, true);
	read_ahead_waits(&fs->read_ahead, ino, (uint64_t)off, len);
	note_preload(fs, &node, (uint64_t)off, false);
	submit(fs, req, &node, (uint64_t)off, len, &pattern, announced == ORDER_BRINGS, began_ns);
}

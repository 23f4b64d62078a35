/*
 * Opening. In no-open mode the kernel asks once. In open mode a file is opened cached, or passed
 * through where that is on (passthrough.h); who decides that for an inode does it on a thread of the
 * pool, and who opens the inode meanwhile waits for his answer.
 */
#include <errno.h>
#include <stdlib.h>

#include "common/clock.h"
#include "fuse/ops.h"

/* How the release of an open is to be counted. fi->fh is 0, or a handle of open_records.h. When
 * those are used up it says how in its lower half, above all of theirs, and in its upper half which
 * client knows of it: another one ignores it (passthrough_resume). */
enum open_kind { OPEN_PLAIN, OPEN_IN_TABLE, OPEN_BESIDE_TABLE };
#define FH_PLAIN ((uint64_t)0)
#define FH_UNRECORDED ((uint64_t)0xffffff00)

struct open_request {
	struct open_waiter waiter; /* first: a waiter is its request */
	struct io_job job;
	struct read_cancel cancel;
	struct fs *fs;
	fuse_req_t req;
	uint64_t ino, unique;
	struct fs_node node;
	struct fuse_file_info fi;
};

static uint64_t unrecorded(struct fs *fs, enum open_kind kind)
{
	struct mount_state *state = fs->keep->state;

	atomic_store(&state->opens_overflown, 1);
	return atomic_load(&state->takeovers) << 32 | FH_UNRECORDED | kind;
}

static uint64_t record(struct fs *fs, uint64_t ino, uint64_t unique, enum open_kind kind)
{
	uint64_t handle;

	if (kind == OPEN_PLAIN)
		return FH_PLAIN;
	handle = open_records_add(&fs->passthrough.records,
		kind == OPEN_IN_TABLE ? OPEN_TRACKED : OPEN_COUNTED, ino, unique);
	return handle ? handle : unrecorded(fs, kind);
}

static void release(struct fs *fs, uint64_t ino, uint64_t fh)
{
	struct passthrough *p = &fs->passthrough;
	enum mount_state_open_use use;

	if (fh == FH_PLAIN)
		return;
	if ((fh & FH_UNRECORDED) == FH_UNRECORDED) {
		if (fh >> 32 == (uint32_t)atomic_load(&fs->keep->state->takeovers))
			open_files_leave(
				&p->files, ino, (fh & 0xff) == OPEN_IN_TABLE, clock_mono_ms());
		return;
	}
	use = open_records_remove(&p->records, fh, ino);
	if (use != OPEN_FREE)
		open_files_leave(&p->files, ino, use == OPEN_TRACKED, clock_mono_ms());
}

static void answer_open(struct fs *fs, fuse_req_t req, uint64_t ino,
	const struct fuse_file_info *fi, uint64_t fh, int32_t backing_id)
{
	struct fuse_file_info answer = *fi;

	answer.fh = fh;
	answer.noflush = 1;
	/* What the mount's own page cache has of a file that is passed through is of no use. */
	answer.keep_cache = backing_id == 0;
	answer.backing_id = backing_id;
	if (backing_id)
		passthrough_count_open(&fs->passthrough);
	/* -ENOENT: interrupted, there will be no release. */
	if (fuse_reply_open(req, &answer) == -ENOENT)
		release(fs, ino, fh);
}

static void reply(const struct open_request *r, enum open_kind kind, int32_t backing_id)
{
	answer_open(
		r->fs, r->req, r->ino, &r->fi, record(r->fs, r->ino, r->unique, kind), backing_id);
}

/* The client before this one may have counted it already, and the answer did not get through. */
static bool answered_before(struct open_request *r)
{
	struct passthrough *p = &r->fs->passthrough;
	uint64_t fh = open_records_find(&p->records, r->ino, r->unique);

	if (!fh)
		return false;
	answer_open(r->fs, r->req, r->ino, &r->fi, fh, open_files_backing(&p->files, r->ino));
	return true;
}

static void request_free(struct open_request *r)
{
	fs_node_put(&r->node);
	read_cancel_deinit(&r->cancel);
	free(r);
}

/* For the one who decided and all who waited for it; frees the latter. */
static void decided(struct open_request *r, const struct open_backing *backing)
{
	struct open_waiter *w = open_files_decided(&r->fs->passthrough.files, r->ino, backing);

	fuse_req_interrupt_func(r->req, NULL, NULL);
	reply(r, OPEN_IN_TABLE, backing->id);
	while (w) {
		struct open_request *other = (struct open_request *)w;

		w = w->next;
		reply(other, OPEN_IN_TABLE, backing->id);
		request_free(other);
	}
}

static bool goes_on(void *arg)
{
	struct open_request *r = arg;

	return !atomic_load(&r->cancel.fired) && !clock_passed(r->job.deadline_ms);
}

#define REQUEST_OF(job_) \
	((struct open_request *)((char *)(job_) - offsetof(struct open_request, job)))

static void job_run(struct io_job *job)
{
	struct open_request *r = REQUEST_OF(job);
	struct open_backing backing;

	passthrough_decide(&r->fs->passthrough, &r->node, goes_on, r, &backing);
	decided(r, &backing);
}

/* Cached is always right. */
static void job_give_up(struct io_job *job, int code)
{
	struct open_backing none = {0};

	(void)code;
	decided(REQUEST_OF(job), &none);
}

static void job_free(struct io_job *job)
{
	request_free(REQUEST_OF(job));
}

static void on_interrupt(fuse_req_t req, void *data)
{
	struct open_request *r = data;

	(void)req;
	read_cancel_fire(&r->cancel);
	io_pool_kick(&r->fs->pool);
}

/* Takes over the request. */
static void decide(struct open_request *r)
{
	r->job = (struct io_job){.run = job_run,
		.give_up = job_give_up,
		.free = job_free,
		.cancel = &r->cancel,
		.deadline_ms = clock_deadline_ms(r->fs->read_timeout_ms)};
	if (!passthrough_is_on(&r->fs->passthrough)) {
		job_give_up(&r->job, 0);
		job_free(&r->job);
		return;
	}
	fuse_req_interrupt_func(r->req, on_interrupt, r);
	if (io_pool_submit(&r->fs->pool, &r->job) < 0) {
		job_give_up(&r->job, -EBUSY);
		job_free(&r->job);
	}
}

/* Takes over *node. */
static struct open_request *request_new(struct fs *fs, fuse_req_t req, uint64_t ino,
	const struct fuse_file_info *fi, struct fs_node *node)
{
	struct open_request *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->fs = fs;
	r->req = req;
	r->ino = ino;
	r->unique = device_request() & ~DEVICE_UNIQUE_RESEND;
	r->fi = *fi;
	r->node = *node;
	node->manifest = NULL;
	read_cancel_init(&r->cancel);
	return r;
}

/* Only these are ever in one file of the store. */
static bool may_be_passed(struct fs *fs, uint64_t ino, struct fs_node *ret)
{
	return atomic_load_explicit(&fs->passthrough.state, memory_order_relaxed) !=
		       PASSTHROUGH_OFF &&
	       fs_node_get(fs, ino, ret) == 0 && ret->entry.type == MANIFEST_FILE &&
	       ret->entry.size > BLOCK_BYTES;
}

static void open_tracked(struct open_request *r)
{
	struct passthrough *p = &r->fs->passthrough;
	struct open_backing gone;
	int32_t id = 0;
	enum open_step step = open_files_enter(&p->files, r->ino, &r->waiter, &id, &gone);

	/* From OPEN_WAITS on the request is the decider's. */
	if (step == OPEN_DECIDE)
		decide(r);
	else if (step != OPEN_WAITS)
		reply(r, step == OPEN_UNTRACKED ? OPEN_BESIDE_TABLE : OPEN_IN_TABLE, id);
	passthrough_close(p, &gone);
	if (step != OPEN_DECIDE && step != OPEN_WAITS)
		request_free(r);
}

void ops_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	cleanup_fs_node struct fs_node node = FS_NODE_INIT;
	struct fs *fs = ops_fs(req);
	struct open_request *r;

	counters_op(&fs->counters, OP_OPEN);
	if (atomic_load(&fs->mode) == MOUNT_MODE_NO_OPEN) {
		/* Once; from then on the kernel opens by itself and keeps the page cache. */
		fuse_reply_err(req, ENOSYS);
		return;
	}
	if (!may_be_passed(fs, ino, &node)) {
		answer_open(fs, req, ino, fi, FH_PLAIN, 0);
		return;
	}
	r = request_new(fs, req, ino, fi, &node);
	if (!r)
		fuse_reply_err(req, ENOMEM);
	else if ((device_request() & DEVICE_UNIQUE_RESEND) && answered_before(r))
		request_free(r);
	else
		open_tracked(r);
}

void ops_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = ops_fs(req);

	counters_op(&fs->counters, OP_RELEASE);
	release(fs, ino, fi->fh);
	fuse_reply_err(req, 0);
}

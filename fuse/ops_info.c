/*
 * statfs, and the extended attributes that say what a file is to Granary:
 *
 *	user.granary.dataset, .snapshot, .mode, .origin	the mount's
 *	user.granary.cached				fraction of a file's bytes that some store
 *							holds, 0.0000 to 1.0000
 *	user.granary.order				of the root: the socket that takes announced orders
 *	user.granary.hit_bytes, .miss_bytes, .requests	the mount's counters, cumulative
 *
 * They answer to their names and are not listed: `cp -a` and `rsync -X` would copy them along with
 * a file, and they are true of the mount only. The list is empty, not unsupported, of which tar
 * would warn for each file.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "fuse/ops.h"

#define NAME_LEN_MAX 255
#define STATFS_BLOCK_BYTES 4096u
#define XATTR_PREFIX "user.granary."
#define XATTR_VALUE_MAX 4096
#define CACHED_TEXT_BYTES 6 /* "0.1234" */
#define CACHED_TIMEOUT_MS 5000

void ops_statfs(fuse_req_t req, fuse_ino_t ino)
{
	cleanup_fs_node struct fs_node node = FS_NODE_INIT;
	const struct manifest_info *info;
	struct statvfs st = {0};
	int r;

	counters_op(&ops_fs(req)->counters, OP_STATFS);
	r = fs_node_get(ops_fs(req), ino ? ino : FUSE_ROOT_ID, &node);
	if (r < 0) {
		ops_reply_error(req, r);
		return;
	}
	info = manifest_info(node.manifest);
	st.f_bsize = st.f_frsize = STATFS_BLOCK_BYTES;
	st.f_blocks = (info->bytes + STATFS_BLOCK_BYTES - 1) / STATFS_BLOCK_BYTES;
	st.f_files = info->entries;
	st.f_namemax = NAME_LEN_MAX;
	fuse_reply_statfs(req, &st);
}

/* ---- values that need no waiting --------------------------------------------------------------
 */

static int simple_value(struct fs *fs, const struct fs_node *node, const char *name,
	char ret[static XATTR_VALUE_MAX])
{
	int n;

	if (!strcmp(name, "dataset"))
		n = snprintf(ret, XATTR_VALUE_MAX, "%s", fs->dataset);
	else if (!strcmp(name, "snapshot"))
		n = snprintf(
			ret, XATTR_VALUE_MAX, "%" PRIu64, manifest_info(node->manifest)->snapshot);
	else if (!strcmp(name, "mode"))
		n = snprintf(ret, XATTR_VALUE_MAX, "%s", fs_mode_text(fs));
	else if (!strcmp(name, "origin"))
		n = snprintf(ret, XATTR_VALUE_MAX, "%s", fs->origin);
	else if (!strcmp(name, "hit_bytes"))
		n = snprintf(ret, XATTR_VALUE_MAX, "%" PRIu64, counters_hit_bytes(&fs->counters));
	else if (!strcmp(name, "miss_bytes"))
		n = snprintf(ret, XATTR_VALUE_MAX, "%" PRIu64, counters_miss_bytes(&fs->counters));
	else if (!strcmp(name, "requests"))
		n = snprintf(ret, XATTR_VALUE_MAX, "%" PRIu64, counters_requests(&fs->counters));
	else if (!strcmp(name, "order") && node->index == 0 && fs->order_path)
		n = snprintf(ret, XATTR_VALUE_MAX, "%s", fs->order_path);
	else
		return -ENODATA;
	return n < XATTR_VALUE_MAX ? n : -E2BIG;
}

static void reply_value(fuse_req_t req, const char *value, size_t len, size_t size)
{
	if (size == 0)
		fuse_reply_xattr(req, len);
	else if (size < len)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, value, len);
}

/* ---- the cached fraction: may ask workers, so a job of the pool -------------------------------
 */

struct cached_job {
	struct io_job job;
	struct read_cancel cancel;
	struct fs *fs;
	fuse_req_t req;
	struct fs_node node;
};

static void cached_run(struct io_job *job)
{
	struct cached_job *j = (struct cached_job *)job;
	struct block_file file = {j->node.manifest, j->node.index, &j->node.entry};
	struct block_source *source = j->fs->source;
	uint64_t size = j->node.entry.size, cached, parts = 10000;
	char text[32];

	if (size > 0) {
		cached = source->cached(source, &file, job->deadline_ms);
		/* Rounded down, so that 1.0000 means all of it. */
		parts = cached >= size ? 10000 : (uint64_t)((double)cached / (double)size * 10000);
		if (cached < size && parts == 10000)
			parts = 9999;
	}
	snprintf(text, sizeof(text), "%" PRIu64 ".%04" PRIu64, parts / 10000, parts % 10000);
	fuse_reply_buf(j->req, text, CACHED_TEXT_BYTES);
}

static void cached_give_up(struct io_job *job, int code)
{
	struct cached_job *j = (struct cached_job *)job;

	(void)code;
	fuse_reply_err(j->req, EAGAIN);
}

static void cached_free(struct io_job *job)
{
	struct cached_job *j = (struct cached_job *)job;

	fs_node_put(&j->node);
	read_cancel_deinit(&j->cancel);
	free(j);
}

/* Takes over *node; replies, now or later. */
static void cached_submit(struct fs *fs, fuse_req_t req, struct fs_node *node)
{
	struct cached_job *j = calloc(1, sizeof(*j));

	if (!j) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	j->fs = fs;
	j->req = req;
	j->node = *node;
	node->manifest = NULL;
	read_cancel_init(&j->cancel);
	j->job = (struct io_job){.run = cached_run,
		.give_up = cached_give_up,
		.free = cached_free,
		.cancel = &j->cancel,
		.deadline_ms = clock_deadline_ms(CACHED_TIMEOUT_MS)};
	if (io_pool_submit(&fs->pool, &j->job) < 0) {
		cached_give_up(&j->job, 0);
		cached_free(&j->job);
	}
}

/* ---- the operations ---------------------------------------------------------------------------
 */

void ops_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	cleanup_fs_node struct fs_node node = FS_NODE_INIT;
	struct fs *fs = ops_fs(req);
	char value[XATTR_VALUE_MAX];
	int r;

	counters_op(&fs->counters, OP_XATTR);
	if (strncmp(name, XATTR_PREFIX, strlen(XATTR_PREFIX)) != 0) {
		fuse_reply_err(req, ENODATA);
		return;
	}
	name += strlen(XATTR_PREFIX);
	r = fs_node_get(fs, ino, &node);
	if (r == 0 && !strcmp(name, "cached") && node.entry.type == MANIFEST_FILE) {
		if (size >= CACHED_TEXT_BYTES)
			cached_submit(fs, req, &node);
		else
			reply_value(req, value, CACHED_TEXT_BYTES, size);
		return;
	}
	if (r == 0)
		r = simple_value(fs, &node, name, value);
	if (r < 0)
		ops_reply_error(req, r);
	else
		reply_value(req, value, (size_t)r, size);
}

void ops_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	(void)ino;
	counters_op(&ops_fs(req)->counters, OP_XATTR);
	reply_value(req, "", 0, size);
}

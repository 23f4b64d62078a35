#include <errno.h>
#include <string.h>

#include "fuse/node_id.h"
#include "fuse/ops.h"

#define NAME_MAX_BYTES 255
#define TARGET_MAX_BYTES 4095

void ops_reply_error(fuse_req_t req, int code)
{
	if (code == -EIO)
		counters_fail(&ops_fs(req)->counters,
			"a part of the manifest is damaged or cannot be read; mount anew");
	fuse_reply_err(req, -code);
}

void ops_fill_entry(const struct fs *fs, const struct fs_node *n, struct fuse_entry_param *ret)
{
	memset(ret, 0, sizeof(*ret));
	fs_node_stat(fs, n, &ret->attr);
	ret->ino = ret->attr.st_ino;
	/* A node id is never used again for anything else, so one generation does. */
	ret->generation = 1;
	ret->attr_timeout = ops_timeout(n);
	ret->entry_timeout = OPS_TIMEOUT_S;
}

static int lookup(struct fs *fs, uint64_t parent, const char *name, struct fuse_entry_param *ret)
{
	cleanup_fs_node struct fs_node dir = FS_NODE_INIT, node = FS_NODE_INIT;
	size_t len = strlen(name);
	uint32_t index;
	int r;

	if (len > NAME_MAX_BYTES)
		return -ENAMETOOLONG;
	r = fs_node_get(fs, parent, &dir);
	if (r < 0)
		return r;
	/* The kernel asks for these two to find a node again that it forgot (NFS, open_by_handle).
	 */
	if (!strcmp(name, "."))
		index = dir.index;
	else if (!strcmp(name, ".."))
		index = dir.entry.parent;
	else
		r = manifest_lookup(dir.manifest, dir.index, name, len, &index);
	if (r < 0)
		return r;
	r = fs_node_at(&dir, index, &node);
	if (r < 0)
		return r;
	ops_fill_entry(fs, &node, ret);
	return 0;
}

void ops_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry;
	int r;

	counters_op(&ops_fs(req)->counters, OP_LOOKUP);
	listing_habit_looked_up(&ops_fs(req)->listings, fuse_req_ctx(req)->pid);
	r = lookup(ops_fs(req), parent, name, &entry);
	if (r == -ENOENT) {
		/* Node 0 with a timeout: the kernel remembers that there is no such name. */
		memset(&entry, 0, sizeof(entry));
		entry.entry_timeout = OPS_TIMEOUT_S;
		r = 0;
	}
	if (r < 0)
		ops_reply_error(req, r);
	else
		fuse_reply_entry(req, &entry);
}

/* Nodes are stateless: there is nothing to forget. */
void ops_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	(void)ino;
	(void)nlookup;
	counters_op(&ops_fs(req)->counters, OP_FORGET);
	fuse_reply_none(req);
}

void ops_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	(void)count;
	(void)forgets;
	counters_op(&ops_fs(req)->counters, OP_FORGET);
	fuse_reply_none(req);
}

void ops_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	cleanup_fs_node struct fs_node node = FS_NODE_INIT;
	struct stat st;
	int r;

	(void)fi;
	counters_op(&ops_fs(req)->counters, OP_GETATTR);
	r = fs_node_get(ops_fs(req), ino, &node);
	if (r < 0) {
		ops_reply_error(req, r);
		return;
	}
	fs_node_stat(ops_fs(req), &node, &st);
	fuse_reply_attr(req, &st, ops_timeout(&node));
}

static int readlink_target(struct fs *fs, uint64_t ino, char ret[static TARGET_MAX_BYTES + 1])
{
	cleanup_fs_node struct fs_node node = FS_NODE_INIT;
	int r;

	r = fs_node_get(fs, ino, &node);
	if (r < 0)
		return r;
	if (node.entry.type != MANIFEST_SYMLINK)
		return -EINVAL;
	if (node.entry.target_len > TARGET_MAX_BYTES)
		return -EIO;
	memcpy(ret, node.entry.target, node.entry.target_len);
	ret[node.entry.target_len] = '\0';
	return 0;
}

void ops_readlink(fuse_req_t req, fuse_ino_t ino)
{
	char target[TARGET_MAX_BYTES + 1];
	int r;

	counters_op(&ops_fs(req)->counters, OP_READLINK);
	r = readlink_target(ops_fs(req), ino, target);
	if (r < 0)
		ops_reply_error(req, r);
	else
		fuse_reply_readlink(req, target);
}

/*
 * Directories. An offset is the position of the next entry ("." is 0, ".." is 1, child i is i + 2),
 * with the snapshot's slot above it: the root keeps its node id across a switch, and a listing of
 * it that had begun goes on in the snapshot that it began in. The kernel is then given names only
 * and no nodes, so that no name of the older snapshot enters its cache.
 *
 * With READDIRPLUS the kernel takes attributes, and leaves names without a node alone: whether a
 * listing has them is ours to say (listing_habit.h).
 *
 * OPENDIR is answered ENOSYS by libfuse, so the kernel keeps the listing (FOPEN_CACHE_DIR) until a
 * switch invalidates the root's.
 */
#include <errno.h>
#include <string.h>

#include "fuse/node_id.h"
#include "fuse/ops.h"

#define POSITION_FIRST_CHILD 2
#define NAME_ROOM 256

struct listing {
	struct fs *fs;
	fuse_req_t req;
	struct fs_node dir;
	uint64_t position;
	bool plus;	 /* in the form that has attributes */
	bool names_only; /* and leave them out */
	uint32_t names;	 /* that were added */
	char *buf;
	size_t room, len;
};

#define LISTING_FULL 1

/* Adds an entry; `attr` holds what there is to tell of it. */
static int add(struct listing *l, const char *name, const struct fuse_entry_param *entry)
{
	off_t next = (off_t)((uint64_t)l->dir.slot << 32 | (l->position + 1));
	size_t left = l->room - l->len, need;

	if (l->plus)
		need = fuse_add_direntry_plus(l->req, l->buf + l->len, left, name, entry, next);
	else
		need = fuse_add_direntry(l->req, l->buf + l->len, left, name, &entry->attr, next);
	if (need > left)
		return LISTING_FULL;
	l->len += need;
	l->position++;
	return 0;
}

/* "." and "..", which the kernel never makes nodes of. */
static int add_dots(struct listing *l)
{
	struct fuse_entry_param entry = {.attr.st_mode = S_IFDIR};
	int r = 0;

	if (l->position == 0) {
		entry.attr.st_ino = fs_node_ino(&l->dir);
		r = add(l, ".", &entry);
	}
	if (r == 0 && l->position == 1) {
		entry.attr.st_ino = node_id_make(l->dir.slot, l->dir.entry.parent);
		r = add(l, "..", &entry);
	}
	return r;
}

static int add_child(struct listing *l)
{
	uint32_t child = (uint32_t)(l->position - POSITION_FIRST_CHILD);
	cleanup_fs_node struct fs_node node = FS_NODE_INIT;
	struct fuse_entry_param entry;
	char name[NAME_ROOM];
	int r;

	r = fs_node_at(&l->dir, l->dir.entry.first_child + child, &node);
	if (r < 0)
		return r;
	if (node.entry.name_len >= sizeof(name))
		return -EIO;
	memcpy(name, node.entry.name, node.entry.name_len);
	name[node.entry.name_len] = '\0';
	ops_fill_entry(l->fs, &node, &entry);
	if (l->names_only)
		entry.ino = 0;
	r = add(l, name, &entry);
	l->names += r == 0;
	return r;
}

static int fill(struct listing *l)
{
	int r = add_dots(l);

	while (r == 0 && l->position - POSITION_FIRST_CHILD < l->dir.entry.children)
		r = add_child(l);
	/* What was added is delivered; the error comes with the next request. */
	return r < 0 && l->len == 0 ? r : 0;
}

/* Finds the directory as of the listing's beginning. */
static int begin(struct listing *l, uint64_t ino, off_t off)
{
	int r;

	if (off < 0)
		return -EINVAL;
	l->position = (uint32_t)off;
	if (ino == NODE_ROOT && off != 0) {
		uint32_t slot = (uint32_t)((uint64_t)off >> 32), current;
		struct manifest *m = snapshot_slots_get(&l->fs->slots, NODE_SLOT_CURRENT, &current);

		manifest_unref(m);
		l->names_only |= slot != current;
		l->dir.manifest = snapshot_slots_get(&l->fs->slots, slot, &l->dir.slot);
		if (!l->dir.manifest)
			return -ESTALE;
		r = manifest_entry(l->dir.manifest, 0, &l->dir.entry);
	} else {
		r = fs_node_get(l->fs, ino, &l->dir);
	}
	if (r < 0)
		return r;
	return l->dir.entry.type == MANIFEST_DIR ? 0 : -ENOTDIR;
}

static void list(fuse_req_t req, uint64_t ino, size_t size, off_t off, bool plus)
{
	struct listing l = {.fs = ops_fs(req), .req = req, .plus = plus};
	pid_t pid = fuse_req_ctx(req)->pid;
	int r;

	counters_op(&l.fs->counters, OP_READDIR);
	l.names_only = !listing_habit_wants_attributes(&l.fs->listings, pid, off == 0);
	l.buf = (char *)thread_buffer(THREAD_READS_DISK);
	l.room = size < READ_MAX_BYTES ? size : READ_MAX_BYTES;
	r = l.buf ? begin(&l, ino, off) : -ENOMEM;
	if (r == 0)
		r = fill(&l);
	if (r < 0)
		ops_reply_error(req, r);
	else
		fuse_reply_buf(req, l.buf, l.len);
	if (r == 0 && l.names_only)
		listing_habit_listed(&l.fs->listings, pid, l.names);
	fs_node_put(&l.dir);
}

void ops_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)fi;
	list(req, ino, size, off, false);
}

void ops_readdirplus(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)fi;
	list(req, ino, size, off, true);
}

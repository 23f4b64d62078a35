#include "fuse/fs.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "fuse/node_id.h"

#define NS_PER_S 1000000000
#define MODE_UNKNOWN UINT32_MAX
#define ID_UNKNOWN UINT32_MAX
#define BLKSIZE_MIN 4096u
#define BLKSIZE_MAX 131072u

/* Records of several blocks are rare enough in a dataset of small files that the cache kept without
 * OPEN is worth more than what OPEN allows; a mean tells the two kinds apart. */
static enum mount_mode choose_mode(enum mount_mode wanted, const struct manifest_info *info)
{
	if (wanted != MOUNT_MODE_AUTO)
		return wanted;
	if (info->files == 0 || info->bytes / info->files <= BLOCK_BYTES)
		return MOUNT_MODE_NO_OPEN;
	return MOUNT_MODE_OPEN;
}

/* Nobody takes over, so nothing is kept but in memory. */
static int make_keep(struct fs *fs, struct error *err)
{
	int fd, r;

	fs->own_keep = (struct mount_keep){.device = -1};
	for (size_t i = 0; i < SNAPSHOT_SLOTS; i++)
		fs->own_keep.manifests[i] = -1;
	r = mount_state_new(&fs->own_keep.state, &fd, err);
	if (r == 0)
		close(fd);
	fs->keep = &fs->own_keep;
	return r;
}

int fs_init(struct fs *fs, const struct fs_options *opts, struct manifest *first,
	struct block_source *source, struct error *err)
{
	int r;

	memset(fs, 0, sizeof(*fs));
	fs->dataset = strdup(opts->dataset);
	fs->origin = strdup(opts->origin);
	if (!fs->dataset || !fs->origin) {
		free(fs->dataset);
		free(fs->origin);
		return error_set(err, -ENOMEM, "out of memory");
	}
	fs->uid = opts->uid;
	fs->gid = opts->gid;
	fs->read_timeout_ms = opts->read_timeout_ms ? opts->read_timeout_ms : FS_READ_TIMEOUT_MS;
	atomic_init(&fs->mode, choose_mode(opts->mode, manifest_info(first)));
	fs->source = source;
	fs->keep = opts->keep;
	r = fs->keep ? 0 : make_keep(fs, err);
	if (r == 0)
		r = passthrough_init(&fs->passthrough, fs, err);
	if (r == 0) {
		r = io_pool_start(&fs->pool, IO_POOL_THREADS_MAX, err);
		if (r < 0)
			passthrough_deinit(&fs->passthrough);
	}
	if (r < 0) {
		mount_state_unmap(fs->own_keep.state);
		free(fs->dataset);
		free(fs->origin);
		return r;
	}
	device_init(&fs->device, fs->keep->state);
	counters_init(&fs->counters, fs->dataset, opts->job ? opts->job : "");
	if (fs->keep->device >= 0) {
		snapshot_slots_resume(&fs->slots, first, fs->keep->state);
		counters_resume(&fs->counters, &fs->keep->state->counters,
			atomic_load(&fs->keep->state->takeovers));
	} else {
		snapshot_slots_init(&fs->slots, first, fs->keep->state);
	}
	read_ahead_init(&fs->read_ahead);
	kernel_window_init(&fs->window);
	file_sequence_init(&fs->sequence);
	record_stride_init(&fs->records);
	read_failures_init(&fs->read_failures);
	preload_init(&fs->preload, fs);
	sample_init(&fs->sample, fs, opts->sample_ppm, fs->dataset, opts->job ? opts->job : "");
	order_init(&fs->order, fs, opts->order_memory_bytes);
	loader_pace_init(&fs->loaders);
	return 0;
}

void fs_stop(struct fs *fs)
{
	io_pool_stop(&fs->pool);
}

void fs_deinit(struct fs *fs)
{
	order_deinit(&fs->order);
	loader_pace_deinit(&fs->loaders);
	passthrough_deinit(&fs->passthrough);
	preload_deinit(&fs->preload);
	sample_deinit(&fs->sample);
	read_failures_deinit(&fs->read_failures);
	kernel_window_deinit(&fs->window);
	read_ahead_deinit(&fs->read_ahead);
	record_stride_deinit(&fs->records);
	file_sequence_deinit(&fs->sequence);
	counters_deinit(&fs->counters);
	snapshot_slots_deinit(&fs->slots);
	mount_state_unmap(fs->own_keep.state);
	free(fs->order_path);
	free(fs->origin);
	free(fs->dataset);
}

const char *fs_mode_text(const struct fs *fs)
{
	if (atomic_load(&fs->mode) == MOUNT_MODE_NO_OPEN)
		return "no-open";
	return passthrough_is_on(&fs->passthrough) ? "open, passthrough" : "open";
}

/* ---- nodes ----------------------------------------------------------------------------------- */

int fs_node_get(struct fs *fs, uint64_t ino, struct fs_node *ret)
{
	struct node_ref ref;
	int r;

	if (!node_id_parse(ino, &ref))
		return -ESTALE;
	ret->manifest = snapshot_slots_get(&fs->slots, ref.slot, &ret->slot);
	if (!ret->manifest)
		return -ESTALE;
	ret->index = ref.index;
	r = manifest_entry(ret->manifest, ref.index, &ret->entry);
	if (r < 0) {
		fs_node_put(ret);
		return r == -ENOENT ? -ESTALE : r;
	}
	return 0;
}

int fs_node_at(const struct fs_node *n, uint32_t index, struct fs_node *ret)
{
	int r;

	r = manifest_entry(n->manifest, index, &ret->entry);
	if (r < 0)
		return r;
	ret->manifest = manifest_ref(n->manifest);
	ret->slot = n->slot;
	ret->index = index;
	return 0;
}

void fs_node_put(struct fs_node *n)
{
	if (n->manifest)
		n->manifest = manifest_unref(n->manifest);
}

uint64_t fs_node_ino(const struct fs_node *n)
{
	return node_id_make(n->slot, n->index);
}

/* Programs that read through a buffer of st_blksize get a small file in one request; those that
 * seek in a large one are not made to read more than they want. The kernel wants a power of two. */
static uint32_t block_size(uint64_t size)
{
	uint32_t blksize = BLKSIZE_MIN;

	if (size > BLOCK_BYTES)
		return BLKSIZE_MIN;
	while (blksize < size && blksize < BLKSIZE_MAX)
		blksize *= 2;
	return blksize;
}

static uint32_t file_mode(const struct manifest_entry *e)
{
	switch (e->type) {
	case MANIFEST_DIR:
		return S_IFDIR | (e->mode == MODE_UNKNOWN ? 0555 : e->mode & 07777);
	case MANIFEST_SYMLINK:
		return S_IFLNK | 0777;
	case MANIFEST_FILE:
		break;
	}
	return S_IFREG | (e->mode == MODE_UNKNOWN ? 0444 : e->mode & 07777);
}

void fs_node_stat(const struct fs *fs, const struct fs_node *n, struct stat *ret)
{
	const struct manifest_entry *e = &n->entry;
	int64_t ns = e->mtime_ns % NS_PER_S;
	struct timespec mtime;

	if (ns < 0)
		ns += NS_PER_S;
	mtime.tv_sec = (e->mtime_ns - ns) / NS_PER_S;
	mtime.tv_nsec = ns;
	memset(ret, 0, sizeof(*ret));
	ret->st_ino = fs_node_ino(n);
	ret->st_mode = file_mode(e);
	ret->st_nlink = e->type == MANIFEST_DIR ? 2 + (nlink_t)e->subdirs : 1;
	ret->st_uid = e->uid == ID_UNKNOWN ? fs->uid : e->uid;
	ret->st_gid = e->gid == ID_UNKNOWN ? fs->gid : e->gid;
	ret->st_size = (off_t)(e->type == MANIFEST_SYMLINK ? e->target_len : e->size);
	ret->st_blocks = (ret->st_size + 511) / 512;
	ret->st_blksize = (blksize_t)block_size((uint64_t)ret->st_size);
	ret->st_mtim = ret->st_ctim = ret->st_atim = mtime;
}

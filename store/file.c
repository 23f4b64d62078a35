#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include <utlist.h>

#include "store/store_private.h"

/* Beyond the blocks: what the filesystem needs to find them, until file_measure knows better. */
#define FILE_BASE_BYTES ((int64_t)STORE_PAGE_BYTES)

void file_path(const struct store *s, uint32_t number, enum file_kind kind, bool sidecar,
	char path[static STORE_PATH_BYTES])
{
	snprintf(path, STORE_PATH_BYTES, "%s/%s/%u%s", s->dir,
		kind == FILE_SEGMENT ? "segments" : "files", number, sidecar ? ".sum" : "");
}

static int file_init_kind(struct store *s, struct store_file *f)
{
	/* A segment of a time when the capacity was larger keeps its size. */
	uint64_t end = f->size_bytes > s->segment_bytes ? f->size_bytes : s->segment_bytes;
	size_t bytes;

	if (f->kind == FILE_SEGMENT)
		return page_map_init(&f->pages, pages_of(end));
	bytes = block_count(f->object_bytes) / 8 + 1;
	f->present = calloc(3, bytes);
	if (!f->present)
		return -ENOMEM;
	f->held = f->present + bytes;
	f->summed = f->held + bytes;
	return 0;
}

struct store_file *file_new_locked(struct store *s, struct dataset *ds, enum file_kind kind,
	uint32_t number, const struct object_id *object, uint64_t object_bytes, uint64_t size_bytes)
{
	struct store_file *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->number = number;
	f->kind = kind;
	f->dataset = ds;
	f->object_bytes = object_bytes;
	f->size_bytes = size_bytes;
	if (object)
		f->object = *object;
	if (file_init_kind(s, f) < 0) {
		free(f);
		return NULL;
	}
	ds->files++;
	HASH_ADD(by_number, s->files, number, sizeof(f->number), f);
	if (kind == FILE_SEGMENT)
		DL_PREPEND(ds->segments, f);
	else
		HASH_ADD(by_object, s->objects, object, sizeof(f->object), f);
	file_charge_locked(s, f, kind == FILE_SEGMENT ? FILE_BASE_BYTES : 2 * FILE_BASE_BYTES);
	return f;
}

bool file_in_use(struct store *s, struct store_file *f)
{
	struct fd_entry *fd;
	int r;

	if (!s->tells_use)
		return false;
	r = fd_cache_get(&s->fds, f->number, true, &fd);
	if (r < 0)
		return r != -ENOENT;
	r = s->disk->in_use(s->disk->ctx, fd_entry_data(fd));
	fd_cache_put(&s->fds, fd);
	return r != 0;
}

void file_await_locked(struct store *s, struct store_file *f)
{
	if (f->awaited)
		return;
	f->awaited = true;
	DL_PREPEND(s->awaited, f);
}

void file_forget_locked(struct store *s, struct store_file *f)
{
	if (f->awaited)
		DL_DELETE(s->awaited, f);
	f->dataset->files--;
	HASH_DELETE(by_number, s->files, f);
	if (f->kind == FILE_SEGMENT) {
		DL_DELETE(f->dataset->segments, f);
		page_map_deinit(&f->pages);
	} else {
		HASH_DELETE(by_object, s->objects, f);
		free(f->present);
	}
	s->files_charged_bytes -= f->charged_bytes + f->overhead_bytes;
	s->held_bytes -= f->held_bytes;
	free(f);
}

struct store_file *file_find_locked(struct store *s, uint32_t number)
{
	struct store_file *f;

	HASH_FIND(by_number, s->files, &number, sizeof(number), f);
	return f;
}

struct store_file *file_of_object_locked(struct store *s, const struct object_id *object)
{
	struct store_file *f;

	HASH_FIND(by_object, s->objects, object, sizeof(*object), f);
	return f;
}

void file_charge_locked(struct store *s, struct store_file *f, int64_t bytes)
{
	f->charged_bytes += (uint64_t)bytes;
	s->files_charged_bytes += (uint64_t)bytes;
	if (bytes > 0)
		s->fs_free_bytes -=
			s->fs_free_bytes < (uint64_t)bytes ? s->fs_free_bytes : (uint64_t)bytes;
}

void file_unpin_locked(struct store *s, struct store_file *f)
{
	struct commit_op op = {.file = f};

	assert(f->pins > 0);
	if (f->blocks || f->holders)
		f->pins--;
	else
		commit_add_locked(s, &op);
}

uint64_t place_bytes(const struct store_file *f, uint32_t len)
{
	return (uint64_t)(f->kind == FILE_SEGMENT ? slot_pages(len) : pages_of(len)) *
	       STORE_PAGE_BYTES;
}

static int create_one(struct store *s, const char *path, uint64_t size)
{
	const struct store_disk *d = s->disk;
	int fd = d->open(d->ctx, path, O_RDWR | O_CREAT);
	int r;

	if (fd < 0)
		return fd;
	/* Nothing was ever at this number; cutting to zero makes sure. */
	r = d->truncate(d->ctx, fd, 0);
	if (r == 0 && size)
		r = d->truncate(d->ctx, fd, size);
	d->close(d->ctx, fd);
	return r;
}

int file_create(struct store *s, struct store_file *f)
{
	char path[STORE_PATH_BYTES];
	int r;

	file_path(s, f->number, f->kind, false, path);
	r = create_one(s, path, f->object_bytes);
	if (r < 0 || f->kind == FILE_SEGMENT)
		return r;
	file_path(s, f->number, f->kind, true, path);
	return create_one(s, path, block_count(f->object_bytes) * CHECKS_STRIDE);
}

void file_unlink(struct store *s, uint32_t number, enum file_kind kind)
{
	const struct store_disk *d = s->disk;
	char path[STORE_PATH_BYTES];
	int fd;

	file_path(s, number, kind, false, path);
	if (kind == FILE_SEGMENT) {
		/* A reader's descriptor keeps an unlinked file's blocks; an empty one has none. */
		fd = d->open(d->ctx, path, O_RDWR);
		if (fd >= 0) {
			d->truncate(d->ctx, fd, 0);
			d->close(d->ctx, fd);
		}
	}
	d->unlink(d->ctx, path);
	if (kind == FILE_SPARSE) {
		file_path(s, number, kind, true, path);
		d->unlink(d->ctx, path);
	}
}

void file_measure(struct store *s, struct store_file *f)
{
	const struct store_disk *d = s->disk;
	struct disk_stat data = {0}, sums = {0};
	char path[STORE_PATH_BYTES];
	uint64_t allocated, overhead;

	file_path(s, f->number, f->kind, false, path);
	if (d->stat(d->ctx, path, &data) < 0)
		return;
	if (f->kind == FILE_SPARSE) {
		file_path(s, f->number, f->kind, true, path);
		d->stat(d->ctx, path, &sums);
	}
	allocated = data.allocated_bytes + sums.allocated_bytes;
	mutex_guard(&s->mu);
	overhead = allocated > f->charged_bytes ? allocated - f->charged_bytes : 0;
	s->files_charged_bytes += overhead - f->overhead_bytes;
	f->overhead_bytes = overhead;
}

void file_record(const struct store_file *f, bool remove, struct record_bytes *ret)
{
	struct record r = {.kind = RECORD_FILE};

	r.file.number = f->number;
	r.file.kind = (uint32_t)f->kind;
	r.file.dataset_id = f->dataset->id;
	r.file.object = f->object;
	r.file.object_bytes = f->object_bytes;
	record_encode(&r, remove, ret);
}

void queue_new_file_locked(struct store *s, struct store_file *f)
{
	struct record next = {
		.kind = RECORD_STORE, .store = {.id = s->id, .next_file = s->next_file}};
	struct commit_op op = {0};

	record_encode(&next, false, &op.record);
	commit_add_locked(s, &op);
	op = (struct commit_op){.file = f};
	f->pins++;
	file_record(f, false, &op.record);
	commit_add_locked(s, &op);
	s->commit.dirs_dirty = true;
}

void files_deinit(struct store *s)
{
	struct store_file *f, *next;

	HASH_ITER (by_number, s->files, f, next)
		file_forget_locked(s, f);
}

static int fd_open(void *ctx, uint32_t number, bool sparse, int fds[2])
{
	struct store *s = ctx;
	const struct store_disk *d = s->disk;
	char path[STORE_PATH_BYTES];

	fds[1] = -1;
	file_path(s, number, sparse ? FILE_SPARSE : FILE_SEGMENT, false, path);
	fds[0] = d->open(d->ctx, path, O_RDWR);
	if (fds[0] < 0)
		return fds[0];
	if (!sparse)
		return 0;
	file_path(s, number, FILE_SPARSE, true, path);
	fds[1] = d->open(d->ctx, path, O_RDWR);
	if (fds[1] < 0) {
		d->close(d->ctx, fds[0]);
		return fds[1];
	}
	return 0;
}

static void fd_close(void *ctx, uint32_t number, bool sparse, int fds[2])
{
	struct store *s = ctx;

	(void)number;
	s->disk->close(s->disk->ctx, fds[0]);
	if (sparse)
		s->disk->close(s->disk->ctx, fds[1]);
}

const struct fd_cache_ops file_fd_ops = {.open = fd_open, .close = fd_close};

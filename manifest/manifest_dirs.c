#include "manifest/manifest_dirs.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "manifest/manifest_builder.h"
#include "manifest/manifest_temp.h"

#define RECORD_HEAD_BYTES offsetof(struct manifest_dir_record, path)

int manifest_dirs_init(struct manifest_dirs *d, const char *dir)
{
	int r = manifest_temp_stream(dir, d->buffers[0], sizeof(d->buffers[0]), &d->above);

	if (r < 0)
		return r;
	return manifest_temp_stream(dir, d->buffers[1], sizeof(d->buffers[1]), &d->level);
}

void manifest_dirs_deinit(struct manifest_dirs *d)
{
	if (d->above)
		fclose(d->above);
	if (d->level)
		fclose(d->level);
	d->above = d->level = NULL;
}

static int stream_error(void)
{
	return errno ? -errno : -EIO;
}

int manifest_dirs_add(struct manifest_dirs *d, uint32_t index, const char *path, size_t path_len)
{
	uint32_t head[2] = {index, (uint32_t)path_len};

	errno = 0;
	if (fwrite_unlocked(head, sizeof(head), 1, d->level) != 1 ||
		(path_len && fwrite_unlocked(path, path_len, 1, d->level) != 1))
		return stream_error();
	return 0;
}

/* 1: there is a next one, 0: the level has no more. */
static int read_next(struct manifest_dirs *d)
{
	struct manifest_dir_record *n = &d->next;

	errno = 0;
	d->has_next = 0;
	if (fread_unlocked(n, RECORD_HEAD_BYTES, 1, d->above) != 1)
		return ferror(d->above) ? stream_error() : 0;
	if (n->path_len >= sizeof(n->path))
		return -EIO;
	if (n->path_len && fread_unlocked(n->path, n->path_len, 1, d->above) != 1)
		return stream_error();
	d->has_next = 1;
	return 1;
}

int manifest_dirs_descend(struct manifest_dirs *d)
{
	FILE *emptied = d->above;
	int r;

	errno = 0;
	if (fflush(d->level) != 0 || fseeko(d->level, 0, SEEK_SET) != 0 ||
		fseeko(emptied, 0, SEEK_SET) != 0 || ftruncate(fileno(emptied), 0) < 0)
		return stream_error();
	d->above = d->level;
	d->level = emptied;
	r = read_next(d);
	return r < 0 ? r : 0;
}

int manifest_dirs_find(
	struct manifest_dirs *d, const char *path, size_t path_len, uint32_t *ret_index)
{
	while (d->has_next) {
		int order = manifest_path_compare(d->next.path, d->next.path_len, path, path_len);
		int r;

		if (order == 0)
			*ret_index = d->next.index;
		if (order >= 0)
			return order == 0 ? 0 : MANIFEST_DIRS_NONE;
		r = read_next(d);
		if (r < 0)
			return r;
	}
	return MANIFEST_DIRS_NONE;
}

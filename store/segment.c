/*
 * Segments: many small blocks of one dataset in one file.
 *
 *	0 ........... tail ........... room ........... end
 *	 slots and     preallocated,    not there yet
 *	 holes         never used
 *
 * Slots are handed out from the preallocated part first (it is charged already), then from holes
 * that punched slots left (charged again), and only then is more preallocated.
 */
#include <errno.h>
#include <string.h>

#include <utlist.h>

#include "store/store_private.h"

static void place_at(struct store_file *f, uint32_t page, uint32_t len, struct place *ret)
{
	f->pins++;
	*ret = (struct place){.file = f, .page = page, .len = len};
}

int segment_place_locked(struct store *s, struct dataset *ds, uint32_t len, struct place *ret)
{
	uint32_t pages = slot_pages(len);
	uint64_t bytes = (uint64_t)pages * STORE_PAGE_BYTES;
	uint64_t room = room_locked(s);
	struct store_file *f;

	if (room < INDEX_BYTES_PER_BLOCK)
		return PLACE_FULL;
	DL_FOREACH (ds->segments, f) {
		if (f->retiring || f->broken || f->room_page - f->tail_page < pages)
			continue;
		if (!page_map_take(&f->pages, f->tail_page, pages))
			continue;
		place_at(f, f->tail_page, len, ret);
		f->tail_page += pages;
		return 0;
	}
	if (room < bytes + INDEX_BYTES_PER_BLOCK)
		return PLACE_FULL;
	DL_FOREACH (ds->segments, f) {
		uint32_t page;

		if (f->retiring || f->broken)
			continue;
		page = page_map_find(&f->pages, f->tail_page, pages);
		if (page == PAGE_MAP_NONE || !page_map_take(&f->pages, page, pages))
			continue;
		file_charge_locked(s, f, (int64_t)bytes);
		place_at(f, page, len, ret);
		return 0;
	}
	return s->growing ? PLACE_GROWING : PLACE_GROW;
}

/* The segment to grow, a new one where none can take `pages` more; NULL without memory. */
static struct store_file *growable_locked(
	struct store *s, struct dataset *ds, uint32_t pages, bool *ret_new)
{
	struct store_file *f;

	*ret_new = false;
	DL_FOREACH (ds->segments, f) {
		if (!f->retiring && !f->broken && f->pages.pages - f->tail_page >= pages)
			return f;
	}
	*ret_new = true;
	return file_new_locked(s, ds, FILE_SEGMENT, s->next_file++, NULL, 0, 0);
}

static int grow_file(
	struct store *s, struct store_file *f, bool new, uint32_t first, uint32_t pages)
{
	struct fd_entry *fd;
	int r = 0;

	if (new)
		r = file_create(s, f);
	if (r == 0)
		r = fd_cache_get(&s->fds, f->number, false, &fd);
	if (r < 0)
		return r;
	r = s->disk->fallocate(s->disk->ctx, fd_entry_data(fd), (uint64_t)first * STORE_PAGE_BYTES,
		(uint64_t)pages * STORE_PAGE_BYTES);
	fd_cache_put(&s->fds, fd);
	return r;
}

int segment_grow_locked(struct store *s, struct dataset *ds, uint32_t len)
{
	uint32_t pages = slot_pages(len), want, least;
	uint64_t room_pages = room_locked(s) / STORE_PAGE_BYTES;
	struct store_file *f;
	bool new;
	int r;

	f = growable_locked(s, ds, pages, &new);
	if (!f)
		return -ENOMEM;
	least = pages - (f->room_page - f->tail_page);
	want = pages_of(s->step_bytes);
	if (want > room_pages)
		want = (uint32_t)room_pages;
	if (want < least)
		want = least;
	if (want > f->pages.pages - f->room_page)
		want = f->pages.pages - f->room_page;
	file_charge_locked(s, f, (int64_t)want * STORE_PAGE_BYTES);
	s->growing = true;
	f->pins++;
	mutex_unlock(&s->mu);
	r = grow_file(s, f, new, f->room_page, want);
	mutex_lock(&s->mu);
	f->pins--;
	s->growing = false;
	cond_broadcast(&s->room);
	if (r == 0) {
		f->room_page += want;
		if (new)
			queue_new_file_locked(s, f);
		return 0;
	}
	file_charge_locked(s, f, -(int64_t)want * STORE_PAGE_BYTES);
	if (new) {
		fd_cache_drop(&s->fds, f->number);
		file_unlink(s, f->number, f->kind);
		file_forget_locked(s, f);
	}
	return r;
}

int segment_write(struct store *s, const struct place *p, const void *data, const uint8_t *checks)
{
	static const char padding[8];
	struct iovec iov[3];
	struct fd_entry *fd;
	uint32_t pad = checks_offset(p->len) - p->len;
	int count = 0, r;

	r = fd_cache_get(&s->fds, p->file->number, false, &fd);
	if (r < 0)
		return r;
	iov[count++] = (struct iovec){(void *)data, p->len};
	if (pad)
		iov[count++] = (struct iovec){(void *)padding, pad};
	iov[count++] = (struct iovec){(void *)checks, checks_bytes(p->len)};
	r = disk_write_all(
		s->disk, fd_entry_data(fd), iov, count, (uint64_t)p->page * STORE_PAGE_BYTES);
	fd_cache_put(&s->fds, fd);
	return r;
}

bool segment_adopt_locked(struct store *s, struct store_file *f, uint32_t page, uint32_t len)
{
	uint32_t pages = slot_pages(len);
	uint64_t end = (uint64_t)page * STORE_PAGE_BYTES + checks_offset(len) + checks_bytes(len);

	if (len == 0 || len > BLOCK_BYTES || end > f->size_bytes)
		return false;
	if (!page_map_take(&f->pages, page, pages))
		return false;
	file_charge_locked(s, f, (int64_t)pages * STORE_PAGE_BYTES);
	return true;
}

int segment_trim(struct store *s, struct store_file *f)
{
	const struct store_disk *d = s->disk;
	uint32_t first = 0, run;
	struct fd_entry *fd;
	int r;

	f->tail_page = f->room_page = page_map_end(&f->pages);
	r = fd_cache_get(&s->fds, f->number, false, &fd);
	if (r < 0)
		return r;
	if (f->size_bytes > (uint64_t)f->tail_page * STORE_PAGE_BYTES)
		r = d->truncate(
			d->ctx, fd_entry_data(fd), (uint64_t)f->tail_page * STORE_PAGE_BYTES);
	while (r == 0 && (run = page_map_next_free(&f->pages, &first, f->tail_page))) {
		r = d->punch(d->ctx, fd_entry_data(fd), (uint64_t)first * STORE_PAGE_BYTES,
			(uint64_t)run * STORE_PAGE_BYTES);
		first += run;
	}
	fd_cache_put(&s->fds, fd);
	return r;
}

void segment_free(struct store *s, struct store_file *f, uint32_t page, uint32_t pages)
{
	struct fd_entry *fd;
	int r;

	r = fd_cache_get(&s->fds, f->number, false, &fd);
	if (r == 0) {
		r = s->disk->punch(s->disk->ctx, fd_entry_data(fd),
			(uint64_t)page * STORE_PAGE_BYTES, (uint64_t)pages * STORE_PAGE_BYTES);
		fd_cache_put(&s->fds, fd);
	}
	mutex_guard(&s->mu);
	page_map_give(&f->pages, page, pages);
	/* What could not be punched shows in file_measure and stays charged that way. */
	file_charge_locked(s, f, -(int64_t)pages * STORE_PAGE_BYTES);
	if (r < 0)
		degrade_locked(s, r, "a hole could not be punched");
}

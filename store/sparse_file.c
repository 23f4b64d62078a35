/*
 * Sparse files: one object over BLOCK_BYTES each, blocks at the object's own offsets, their checks
 * in the sidecar at index * CHECKS_STRIDE. Four blocks share a page of the sidecar; it is charged
 * with the first of them and stays until the file goes (a page per 16 MiB).
 *
 * A block's bits:
 *	present		placed: being written, in the directory, or dropped but not yet durably so
 *	present held	durably dropped, but a reader has the file: not punched until it lets go
 *	-		a hole
 *
 * Readers that let the kernel read a file (store_hold, HOLD_WHOLE) may let go of it before the kernel
 * does: a map outlives the file that it was made through. So nothing is punched before the file
 * system itself says that nobody has the file open.
 */
#include <errno.h>

#include "store/store_private.h"

#define GROUP (STORE_PAGE_BYTES / CHECKS_STRIDE)
#define BLOCK_PAGES ((uint32_t)(BLOCK_BYTES / STORE_PAGE_BYTES))
/* Offsets are 32 bits of pages. */
#define OBJECT_BYTES_MAX ((uint64_t)1 << 44)

static bool bit_get(const uint8_t *bits, uint32_t i)
{
	return bits[i / 8] >> (i % 8) & 1;
}

static void bit_set(uint8_t *bits, uint32_t i, bool on)
{
	if (on)
		bits[i / 8] |= (uint8_t)(1u << (i % 8));
	else
		bits[i / 8] &= (uint8_t)~(1u << (i % 8));
}

static uint32_t blocks_in(const struct store_file *f)
{
	return (uint32_t)block_count(f->object_bytes);
}

/* What placing the block takes: its pages, and a page of the sidecar with the first of its group.
 */
static int64_t block_charge(const struct store_file *f, uint32_t block)
{
	return ((int64_t)pages_of(block_len(f->object_bytes, block)) +
		       !bit_get(f->summed, block / GROUP)) *
	       STORE_PAGE_BYTES;
}

int sparse_place_locked(
	struct store *s, struct dataset *ds, const struct store_block *b, struct place *ret)
{
	struct store_file *f = file_of_object_locked(s, &b->object);
	uint32_t block = (uint32_t)b->index;
	uint64_t bytes;

	if (b->object_bytes > OBJECT_BYTES_MAX)
		return PLACE_NEVER;
	if (!f) {
		bytes = pages_of(b->len) * (uint64_t)STORE_PAGE_BYTES + 3 * STORE_PAGE_BYTES;
		if (room_locked(s) < bytes + INDEX_BYTES_PER_BLOCK)
			return PLACE_FULL;
		return s->growing ? PLACE_GROWING : PLACE_GROW;
	}
	if (f->object_bytes != b->object_bytes || f->dataset != ds)
		return -EINVAL;
	if (f->retiring)
		return PLACE_GROWING;
	if (f->broken)
		return PLACE_HELD;
	if (bit_get(f->present, block))
		return bit_get(f->held, block) || f->holders ? PLACE_HELD : PLACE_GROWING;
	bytes = (uint64_t)block_charge(f, block);
	if (room_locked(s) < bytes + INDEX_BYTES_PER_BLOCK)
		return PLACE_FULL;
	file_charge_locked(s, f, (int64_t)bytes);
	bit_set(f->present, block, true);
	bit_set(f->summed, block / GROUP, true);
	f->generation++;
	f->pins++;
	*ret = (struct place){.file = f, .page = block * BLOCK_PAGES, .len = b->len};
	return 0;
}

int sparse_create_locked(struct store *s, struct dataset *ds, const struct store_block *b)
{
	struct store_file *f;
	int r;

	f = file_new_locked(s, ds, FILE_SPARSE, s->next_file++, &b->object, b->object_bytes, 0);
	if (!f)
		return -ENOMEM;
	s->growing = true;
	f->retiring = true; /* not usable yet */
	f->pins++;
	mutex_unlock(&s->mu);
	r = file_create(s, f);
	if (r < 0)
		file_unlink(s, f->number, f->kind);
	mutex_lock(&s->mu);
	f->pins--;
	f->retiring = false;
	s->growing = false;
	cond_broadcast(&s->room);
	if (r < 0) {
		file_forget_locked(s, f);
		return r;
	}
	queue_new_file_locked(s, f);
	return 0;
}

int sparse_write(struct store *s, const struct place *p, const void *data, const uint8_t *checks)
{
	uint64_t start = (uint64_t)p->page * STORE_PAGE_BYTES;
	struct iovec bytes = {(void *)data, p->len};
	struct iovec sums = {(void *)checks, checks_bytes(p->len)};
	struct fd_entry *fd;
	int r;

	r = fd_cache_get(&s->fds, p->file->number, true, &fd);
	if (r < 0)
		return r;
	r = disk_write_all(s->disk, fd_entry_data(fd), &bytes, 1, start);
	if (r == 0)
		r = disk_write_all(s->disk, fd_entry_checks(fd), &sums, 1,
			start / BLOCK_BYTES * CHECKS_STRIDE);
	fd_cache_put(&s->fds, fd);
	return r;
}

bool sparse_adopt_locked(struct store *s, struct store_file *f, uint32_t page, uint32_t len)
{
	uint32_t block = page / BLOCK_PAGES;

	if (page % BLOCK_PAGES || block >= blocks_in(f) ||
		len != block_len(f->object_bytes, block) || bit_get(f->present, block) ||
		(uint64_t)page * STORE_PAGE_BYTES + len > f->size_bytes)
		return false;
	file_charge_locked(s, f, block_charge(f, block));
	bit_set(f->present, block, true);
	bit_set(f->summed, block / GROUP, true);
	return true;
}

static int punch_data(struct store *s, const struct store_file *f, const struct fd_entry *fd,
	uint32_t block, uint32_t count)
{
	uint64_t last = block_len(f->object_bytes, block + count - 1);

	return s->disk->punch(s->disk->ctx, fd_entry_data(fd), block * BLOCK_BYTES,
		(count - 1) * BLOCK_BYTES + pages_of(last) * (uint64_t)STORE_PAGE_BYTES);
}

/* Punches the sidecar's pages that no present block has used. */
static int punch_sums(struct store *s, const struct store_file *f, const struct fd_entry *fd)
{
	uint32_t groups = (blocks_in(f) + GROUP - 1) / GROUP, first, end;
	int r = 0;

	for (first = 0; r == 0 && first < groups; first = end) {
		end = first + 1;
		if (bit_get(f->summed, first))
			continue;
		while (end < groups && !bit_get(f->summed, end))
			end++;
		r = s->disk->punch(s->disk->ctx, fd_entry_checks(fd),
			(uint64_t)first * STORE_PAGE_BYTES,
			(uint64_t)(end - first) * STORE_PAGE_BYTES);
	}
	return r;
}

int sparse_trim(struct store *s, struct store_file *f)
{
	const struct store_disk *d = s->disk;
	uint32_t blocks = blocks_in(f), first, end;
	struct fd_entry *fd;
	int r;

	r = fd_cache_get(&s->fds, f->number, true, &fd);
	if (r < 0)
		return r;
	r = d->truncate(d->ctx, fd_entry_data(fd), f->object_bytes);
	if (r == 0)
		r = d->truncate(d->ctx, fd_entry_checks(fd), (uint64_t)blocks * CHECKS_STRIDE);
	for (first = 0; r == 0 && first < blocks; first = end) {
		end = first + 1;
		if (bit_get(f->present, first))
			continue;
		while (end < blocks && !bit_get(f->present, end))
			end++;
		r = punch_data(s, f, fd, first, end - first);
	}
	if (r == 0)
		r = punch_sums(s, f, fd);
	fd_cache_put(&s->fds, fd);
	return r;
}

static void punch_one(struct store *s, struct store_file *f, uint32_t block)
{
	struct fd_entry *fd;
	int r;

	r = fd_cache_get(&s->fds, f->number, true, &fd);
	if (r == 0) {
		r = punch_data(s, f, fd, block, 1);
		fd_cache_put(&s->fds, fd);
	}
	mutex_guard(&s->mu);
	bit_set(f->present, block, false);
	file_charge_locked(s, f, -block_charge(f, block));
	if (r < 0)
		degrade_locked(s, r, "a hole could not be punched");
}

static void hold_locked(struct store *s, struct store_file *f, uint32_t block)
{
	uint64_t bytes = pages_of(block_len(f->object_bytes, block)) * (uint64_t)STORE_PAGE_BYTES;

	bit_set(f->held, block, true);
	f->held_blocks++;
	f->held_bytes += bytes;
	s->held_bytes += bytes;
}

/* Once nobody uses the file, nobody can before its next whole hold, which wants every block. */
void sparse_free(struct store *s, struct store_file *f, uint32_t page)
{
	bool in_use = file_in_use(s, f);

	{
		mutex_guard(&s->mu);
		if (in_use && !f->holders)
			file_await_locked(s, f);
		if (in_use || f->holders) {
			hold_locked(s, f, page / BLOCK_PAGES);
			return;
		}
	}
	punch_one(s, f, page / BLOCK_PAGES);
}

bool sparse_adopt_held(struct store *s, struct store_file *f)
{
	struct fd_entry *fd;
	uint64_t hole = 0;

	if (f->blocks == blocks_in(f) || fd_cache_get(&s->fds, f->number, true, &fd) < 0)
		return false;
	/* What was handed out was whole, and nothing was punched since. */
	if (s->disk->first_hole(s->disk->ctx, fd_entry_data(fd), &hole) < 0)
		hole = f->object_bytes;
	fd_cache_put(&s->fds, fd);
	if (hole < f->object_bytes || !file_in_use(s, f))
		return false;
	mutex_guard(&s->mu);
	for (uint32_t block = 0; block < blocks_in(f); block++) {
		if (bit_get(f->present, block))
			continue;
		file_charge_locked(s, f, block_charge(f, block));
		bit_set(f->present, block, true);
		bit_set(f->summed, block / GROUP, true);
		hold_locked(s, f, block);
	}
	file_await_locked(s, f);
	return true;
}

void sparse_holders_gone(struct store *s, struct store_file *f)
{
	uint64_t bytes;
	bool wanted;

	mutex_lock(&s->mu);
	wanted = f->held_blocks && !f->holders;
	mutex_unlock(&s->mu);
	if (!wanted)
		return;
	if (file_in_use(s, f)) {
		mutex_guard(&s->mu);
		file_await_locked(s, f);
		return;
	}
	for (uint32_t block = 0; block < blocks_in(f); block++) {
		mutex_lock(&s->mu);
		if (f->holders || !f->held_blocks) {
			mutex_unlock(&s->mu);
			return;
		}
		if (!bit_get(f->held, block)) {
			mutex_unlock(&s->mu);
			continue;
		}
		bytes = pages_of(block_len(f->object_bytes, block)) * (uint64_t)STORE_PAGE_BYTES;
		bit_set(f->held, block, false);
		f->held_blocks--;
		f->held_bytes -= bytes;
		s->held_bytes -= bytes;
		mutex_unlock(&s->mu);
		punch_one(s, f, block);
	}
}

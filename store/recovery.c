/*
 * From what is on the disk to a running store, after any end of the process before.
 *
 *	0. where the file system has no room to open the index, files of the store go until it has
 *	1. the format: only a newer one refuses; a missing or torn one is written anew
 *	2. what files there are
 *	3. the index's records, in order: store, datasets, files, blocks. A record without its file,
 *	   or that overlaps another's place, is removed
 *	4. files that no record names are removed, as are those without blocks
 *	5. what no known block uses in the others is given back: punched, cut off
 *	6. under a smaller capacity than before, blocks are dropped until it fits
 *
 * Nothing is read of the blocks: what is damaged shows when it is read.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <utlist.h>

#include "common/cleanup.h"
#include "store/format.h"
#include "store/store_private.h"

#define LOG_SUBSYSTEM "store"
#include "common/log.h"

/* Larger ones are not ours. */
#define SEGMENT_BYTES_MAX ((uint64_t)2 << 30)

/* As are higher numbers: what follows the highest one has to be a number, too. */
#define FILE_NUMBER_MAX (UINT32_MAX / 2)

/* A file as found on the disk. */
struct found {
	uint32_t number;
	enum file_kind kind;
	uint64_t size_bytes, allocated_bytes;
	bool data, sidecar; /* which of its files are there */
	bool known;	    /* a record names it */
	UT_hash_handle hh;
};

struct recovery {
	struct store *s;
	struct found *found;
	uint32_t number_max;
	uint64_t lost_blocks;
	/* while a folder is listed */
	enum file_kind kind;
	const char *folder;
};

static void found_add(
	struct recovery *rec, uint32_t number, bool sidecar, const struct disk_stat *st)
{
	struct found *f;

	HASH_FIND(hh, rec->found, &number, sizeof(number), f);
	if (!f) {
		f = calloc(1, sizeof(*f));
		assert(f);
		f->number = number;
		f->kind = rec->kind;
		HASH_ADD(hh, rec->found, number, sizeof(f->number), f);
	}
	if (sidecar) {
		f->sidecar = true;
	} else {
		f->data = true;
		f->size_bytes = st->size_bytes;
	}
	f->allocated_bytes += st->allocated_bytes;
	if (number > rec->number_max)
		rec->number_max = number;
}

static int found_entry(void *arg, const char *name)
{
	struct recovery *rec = arg;
	const struct store_disk *d = rec->s->disk;
	struct disk_stat st;
	char path[STORE_PATH_BYTES], *end;
	unsigned long number;
	bool sidecar;

	errno = 0;
	number = strtoul(name, &end, 10);
	sidecar = rec->kind == FILE_SPARSE && strcmp(end, ".sum") == 0;
	if ((size_t)snprintf(path, sizeof(path), "%s/%s", rec->folder, name) >= sizeof(path))
		return 0;
	if (errno || !isdigit((unsigned char)name[0]) || (name[0] == '0' && end != name + 1) ||
		(*end && !sidecar) || number > FILE_NUMBER_MAX) {
		log_warn("%s is no file of the store: removed", path);
		d->unlink(d->ctx, path);
		return 0;
	}
	if (d->stat(d->ctx, path, &st) == 0)
		found_add(rec, (uint32_t)number, sidecar, &st);
	return 0;
}

static int find_files(struct recovery *rec, struct error *err)
{
	struct store *s = rec->s;
	char path[STORE_PATH_BYTES];
	int r;

	snprintf(path, sizeof(path), "%s/segments", s->dir);
	rec->folder = path;
	rec->kind = FILE_SEGMENT;
	r = s->disk->list(s->disk->ctx, path, found_entry, rec);
	if (r == 0) {
		snprintf(path, sizeof(path), "%s/files", s->dir);
		rec->kind = FILE_SPARSE;
		r = s->disk->list(s->disk->ctx, path, found_entry, rec);
	}
	return r < 0 ? error_set_errno(err, r, "cannot list %s", path) : 0;
}

static void found_free(struct recovery *rec)
{
	struct found *f, *next;

	HASH_ITER (hh, rec->found, f, next) {
		HASH_DEL(rec->found, f);
		free(f);
	}
}

/* ---- records ---- */

static void remove_record(struct recovery *rec, const void *key, size_t key_len)
{
	struct commit_op op = {0};

	if (key_len == 0 || key_len > sizeof(op.record.key))
		return;
	memcpy(op.record.key, key, key_len);
	op.record.key_len = (uint8_t)key_len;
	mutex_guard(&rec->s->mu);
	commit_add_locked(rec->s, &op);
}

static bool load_dataset_locked(struct store *s, const struct record *r)
{
	struct dataset *ds = dataset_get_locked(s, r->dataset.id);

	if (!ds)
		return false;
	ds->grant_bytes = r->dataset.grant_bytes;
	ds->threshold = r->dataset.threshold;
	return true;
}

static bool load_file_locked(struct recovery *rec, const struct record *r)
{
	struct store *s = rec->s;
	enum file_kind kind = (enum file_kind)r->file.kind;
	struct found *found;
	struct dataset *ds;

	HASH_FIND(hh, rec->found, &r->file.number, sizeof(r->file.number), found);
	if (!found || found->kind != kind || found->known || !found->data ||
		found->sidecar != (kind == FILE_SPARSE))
		return false;
	if (kind == FILE_SEGMENT ? found->size_bytes > SEGMENT_BYTES_MAX
				 : r->file.object_bytes <= BLOCK_BYTES ||
					   file_of_object_locked(s, &r->file.object))
		return false;
	ds = dataset_get_locked(s, r->file.dataset_id);
	if (!ds || !file_new_locked(s, ds, kind, r->file.number, &r->file.object,
			   r->file.object_bytes, found->size_bytes))
		return false;
	found->known = true;
	return true;
}

static bool load_block_locked(struct store *s, const struct record *r)
{
	struct store_file *f = file_find_locked(s, r->block.file);
	struct directory_entry e = {.id = r->block.id,
		.file = r->block.file,
		.page = r->block.page,
		.len = r->block.len,
		.flags = r->block.flags};
	bool ok;

	if (!f || r->block.flags & ~FLAGS_MASK || entry_class(&e) > CLASS_ELASTIC ||
		!(e.flags & FLAG_SPARSE) != (f->kind == FILE_SEGMENT))
		return false;
	if (f->kind == FILE_SEGMENT)
		ok = segment_adopt_locked(s, f, e.page, e.len);
	else
		ok = sparse_adopt_locked(s, f, e.page, e.len);
	/* A full directory leaves the place taken until the file is trimmed at the next open. */
	if (!ok || !publish_locked(s, f, &e, !f->dataset->grant_bytes))
		return false;
	f->dataset->class_bytes[entry_class(&e)] += e.len;
	return true;
}

static bool load_record_locked(struct recovery *rec, const struct record *r)
{
	struct store *s = rec->s;

	switch (r->kind) {
	case RECORD_STORE:
		s->id = r->store.id;
		s->next_file = r->store.next_file;
		return true;
	case RECORD_DATASET:
		return load_dataset_locked(s, r);
	case RECORD_FILE:
		return load_file_locked(rec, r);
	case RECORD_BLOCK:
		return load_block_locked(s, r);
	case RECORD_SCRUB:
		s->scrub.at = r->scrub.at;
		return true;
	}
	return false;
}

static int load_record(
	void *arg, const void *key, size_t key_len, const void *value, size_t value_len)
{
	struct recovery *rec = arg;
	struct record r;
	bool ok = false;

	if (record_decode(key, key_len, value, value_len, &r) == 0) {
		mutex_guard(&rec->s->mu);
		ok = load_record_locked(rec, &r);
	}
	if (!ok) {
		remove_record(rec, key, key_len);
		/* A file's record outlives the file for a moment; a block's never does. */
		rec->lost_blocks += key_len == RECORD_KEY_BYTES;
	}
	return 0;
}

/* ---- what the records leave over ---- */

static void remove_orphans(struct recovery *rec)
{
	struct found *found, *next;
	unsigned count = 0;

	HASH_ITER (hh, rec->found, found, next) {
		if (found->known)
			continue;
		file_unlink(rec->s, found->number, found->kind);
		count++;
	}
	if (count)
		log_info("%s: removed %u files that the index does not name", rec->s->dir, count);
}

static void remove_empty(struct store *s, struct store_file *f)
{
	struct commit_op op = {0};

	file_unlink(s, f->number, f->kind);
	mutex_guard(&s->mu);
	file_record(f, true, &op.record);
	commit_add_locked(s, &op);
	file_forget_locked(s, f);
}

static int trim_file(struct recovery *rec, struct store_file *f)
{
	struct store *s = rec->s;
	struct found *found;
	uint64_t known;
	int r = 0;

	HASH_FIND(hh, rec->found, &f->number, sizeof(f->number), found);
	assert(found);
	if (f->kind == FILE_SEGMENT) {
		known = (uint64_t)f->pages.used_pages * STORE_PAGE_BYTES;
		f->tail_page = f->room_page = page_map_end(&f->pages);
		if (found->allocated_bytes != known ||
			found->size_bytes != (uint64_t)f->tail_page * STORE_PAGE_BYTES)
			r = segment_trim(s, f);
	} else if (found->allocated_bytes > f->charged_bytes ||
		   found->size_bytes != f->object_bytes) {
		r = sparse_trim(s, f);
	}
	file_measure(s, f);
	return r;
}

static void settle(struct recovery *rec)
{
	struct store *s = rec->s;
	struct store_file *f, *next;
	int r;

	remove_orphans(rec);
	HASH_ITER (by_number, s->files, f, next) {
		if (f->kind == FILE_SPARSE && sparse_adopt_held(s, f))
			continue;
		if (!f->blocks) {
			remove_empty(s, f);
			continue;
		}
		r = trim_file(rec, f);
		if (r < 0)
			log_warn("%s: file %u could not be trimmed: %s", s->dir, f->number,
				strerror(-r));
	}
}

/* ---- the whole ---- */

static int state_init(struct store *s, struct error *err)
{
	uint64_t slots = directory_slots_max(s->capacity_bytes), epoch;
	int r;

	s->id = 0;
	s->next_file = 1;
	s->scrub.at = 0;
	if (getrandom(&epoch, sizeof(epoch), 0) != (ssize_t)sizeof(epoch))
		return error_set_errno(err, -errno, "no random numbers");
	r = directory_create(slots, epoch, &s->directory, err);
	if (r < 0)
		return r;
	r = residency_init(&s->residency, slots, LIST_FILLER(STORE_DATASETS_MAX));
	if (r < 0)
		return error_set_errno(err, r, "cannot map the store's notes");
	return 0;
}

void store_state_deinit(struct store *s)
{
	for (size_t i = 0; i < s->commit.count; i++) {
		if (s->commit.ops[i].file)
			s->commit.ops[i].file->pins--;
	}
	free(s->commit.ops);
	s->commit = (struct commit){0};
	files_deinit(s);
	datasets_deinit(s);
	residency_deinit(&s->residency);
	directory_free(steal(&s->directory));
}

/* Loads, repairs when that shows damage, and at last starts empty. */
static int load_index(struct recovery *rec, struct error *err)
{
	struct store *s = rec->s;
	const struct index_ops *ops = s->disk->index;
	struct error why = ERROR_INIT;
	int r;

	for (int attempt = 0;; attempt++) {
		r = state_init(s, err);
		if (r == 0)
			r = find_files(rec, err);
		if (r < 0)
			return r;
		r = ops->load(s->index, load_record, rec, &why);
		if (r == 0)
			return 0;
		if (attempt == 2)
			return error_set(err, r, "%s", why.text);
		log_error("%s", why.text);
		store_state_deinit(s);
		found_free(rec);
		r = ops->repair(s->index, attempt, err);
		if (r < 0)
			return r;
	}
}

static int give_id(struct store *s, struct error *err)
{
	struct record r = {.kind = RECORD_STORE};
	struct commit_op op = {0};

	while (!s->id) {
		if (getrandom(&s->id, sizeof(s->id), 0) != (ssize_t)sizeof(s->id))
			return error_set_errno(err, -errno, "no random numbers");
	}
	directory_set_store_id(s->directory, s->id);
	r.store.id = s->id;
	r.store.next_file = s->next_file;
	record_encode(&r, false, &op.record);
	mutex_guard(&s->mu);
	commit_add_locked(s, &op);
	return 0;
}

static int recover_index(struct recovery *rec, struct error *err)
{
	struct store *s = rec->s;
	int r;

	r = load_index(rec, err);
	if (r < 0)
		return r;
	if (s->next_file <= rec->number_max)
		s->next_file = rec->number_max + 1;
	s->reader.directory = s->directory;
	settle(rec);
	r = give_id(s, err);
	if (r < 0)
		return r;
	if (rec->lost_blocks)
		log_warn("%s: the index named %lu blocks that are not there", s->dir,
			(unsigned long)rec->lost_blocks);
	store_measure(s, true);
	mutex_lock(&s->mu);
	shrink_to_capacity_locked(s);
	mutex_unlock(&s->mu);
	/* A disk that does not take the clean-up is no reason to refuse: it is tried again. */
	if (commit_once(s, err) < 0 && err)
		log_error("%s: %s", s->dir, err->text);
	return 0;
}

/* Which blocks are in which file only the index knows: the newest file goes. -ENOENT: none is left. */
static int give_up_file(struct store *s)
{
	struct recovery rec = {.s = s};
	struct found *f, *next, *newest = NULL;
	int r = find_files(&rec, NULL);

	HASH_ITER (hh, rec.found, f, next) {
		if (f->allocated_bytes && (!newest || f->number > newest->number))
			newest = f;
	}
	if (r == 0 && newest) {
		log_warn("%s: the disk is full: file %u is given up to make room for the index",
			s->dir, newest->number);
		file_unlink(s, newest->number, newest->kind);
	}
	r = r == 0 && !newest ? -ENOENT : r;
	found_free(&rec);
	return r;
}

int store_recover(struct store *s, struct error *err)
{
	struct recovery rec = {.s = s};
	char path[STORE_PATH_BYTES];
	static const char *const folders[] = {"segments", "files"};
	int r;

	r = format_check(s->disk, s->dir, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s", s->dir, folders[i]);
		r = s->disk->mkdir(s->disk->ctx, path);
		if (r < 0)
			return error_set_errno(err, r, "cannot make %s", path);
	}
	r = s->disk->syncdir(s->disk->ctx, s->dir);
	if (r < 0)
		return error_set_errno(err, r, "cannot sync %s", s->dir);
	snprintf(path, sizeof(path), "%s/index", s->dir);
	do {
		r = s->disk->index->open(
			s->disk->index_ctx, path, s->capacity_bytes, &s->index, err);
	} while (r == -ENOSPC && give_up_file(s) == 0);
	if (r == 0)
		r = recover_index(&rec, err);
	found_free(&rec);
	return r;
}

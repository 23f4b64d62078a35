/*
 * A disk and an index in memory for the store's fault tests. They can
 *  - record every operation, so that a power loss can be played at any point of the record,
 *  - fail the nth operation, or every one from the nth on,
 *  - be copied, and have their bits flipped.
 *
 * Files are tables of 4 KiB pages that copies share; a NULL page is a hole.
 */
#pragma once

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <uthash.h>

#include "store/disk.h"

#define MEM_PAGE 4096u
#define MEM_FDS 4096

struct mem_page {
	unsigned refs;
	unsigned char bytes[MEM_PAGE];
};

struct mem_file {
	char path[200];
	uint64_t size;
	struct mem_page **pages;
	size_t page_count;
	UT_hash_handle hh;
};

struct mem_record {
	struct record_bytes bytes;
	UT_hash_handle hh;
};

enum mem_kind {
	MEM_CREATE,
	MEM_WRITE,
	MEM_TRUNCATE,
	MEM_FALLOCATE,
	MEM_PUNCH,
	MEM_DATASYNC,
	MEM_SYNCDIR,
	MEM_UNLINK,
	MEM_INDEX,
};

struct mem_op {
	enum mem_kind kind;
	char path[200];
	uint64_t offset, len;
	unsigned char *data;	      /* of a write */
	struct record_bytes *records; /* of an index batch, len of them */
};

struct mem_disk {
	pthread_mutex_t mu;
	struct mem_file *files;
	struct mem_record *index;
	char *fds[MEM_FDS];
	uint64_t free_bytes;
	bool in_use; /* every file, by somebody else */
	/* recording */
	bool recording;
	struct mem_op *ops;
	size_t op_count, op_room;
	/* failures: the operation that fails next, counted down; -1 never */
	long fail_in;
	bool fail_on; /* all after it too */
	int fail_code;
	unsigned long failed;
	struct store_disk disk;
	struct index_ops index_ops;
};

/* ---- files ---- */

static inline void mem_page_put(struct mem_page *p)
{
	if (p && --p->refs == 0)
		free(p);
}

static inline void mem_file_free(struct mem_file *f)
{
	for (size_t i = 0; i < f->page_count; i++)
		mem_page_put(f->pages[i]);
	free(f->pages);
	free(f);
}

static inline struct mem_file *mem_find(struct mem_file *files, const char *path)
{
	struct mem_file *f;

	HASH_FIND_STR(files, path, f);
	return f;
}

static inline struct mem_file *mem_add(struct mem_file **files, const char *path)
{
	struct mem_file *f = mem_find(*files, path);

	if (f)
		return f;
	f = calloc(1, sizeof(*f));
	assert(f && strlen(path) < sizeof(f->path));
	strcpy(f->path, path);
	HASH_ADD_STR(*files, path, f);
	return f;
}

static inline void mem_remove(struct mem_file **files, const char *path)
{
	struct mem_file *f = mem_find(*files, path);

	if (!f)
		return;
	HASH_DEL(*files, f);
	mem_file_free(f);
}

static inline struct mem_page **mem_page_at(struct mem_file *f, uint64_t page)
{
	if (page >= f->page_count) {
		size_t count = (size_t)page + 64;

		f->pages = realloc(f->pages, count * sizeof(*f->pages));
		assert(f->pages);
		memset(f->pages + f->page_count, 0, (count - f->page_count) * sizeof(*f->pages));
		f->page_count = count;
	}
	return &f->pages[page];
}

/* A page that is this file's own. */
static inline struct mem_page *mem_page_own(struct mem_file *f, uint64_t page)
{
	struct mem_page **at = mem_page_at(f, page), *p;

	if (*at && (*at)->refs == 1)
		return *at;
	p = calloc(1, sizeof(*p));
	assert(p);
	if (*at)
		memcpy(p->bytes, (*at)->bytes, MEM_PAGE);
	p->refs = 1;
	mem_page_put(*at);
	*at = p;
	return p;
}

static inline void mem_put_bytes(
	struct mem_file *f, uint64_t offset, const unsigned char *data, uint64_t len)
{
	if (offset + len > f->size)
		f->size = offset + len;
	while (len) {
		uint64_t in = offset % MEM_PAGE, n = MEM_PAGE - in < len ? MEM_PAGE - in : len;

		memcpy(mem_page_own(f, offset / MEM_PAGE)->bytes + in, data, n);
		offset += n;
		data += n;
		len -= n;
	}
}

static inline void mem_zero(struct mem_file *f, uint64_t offset, uint64_t end)
{
	while (offset < end) {
		uint64_t in = offset % MEM_PAGE;
		uint64_t n = MEM_PAGE - in < end - offset ? MEM_PAGE - in : end - offset;
		uint64_t page = offset / MEM_PAGE;

		if (page >= f->page_count)
			return;
		if (n == MEM_PAGE) {
			mem_page_put(f->pages[page]);
			f->pages[page] = NULL;
		} else if (f->pages[page]) {
			memset(mem_page_own(f, page)->bytes + in, 0, n);
		}
		offset += n;
	}
}

static inline void mem_set_size(struct mem_file *f, uint64_t size)
{
	if (size < f->size)
		mem_zero(f, size, (f->size + MEM_PAGE - 1) / MEM_PAGE * MEM_PAGE);
	f->size = size;
}

/* What an operation does to the bytes of a file. */
static inline void mem_apply(struct mem_file *f, const struct mem_op *op)
{
	switch (op->kind) {
	case MEM_WRITE:
		mem_put_bytes(f, op->offset, op->data, op->len);
		break;
	case MEM_TRUNCATE:
		mem_set_size(f, op->offset);
		break;
	case MEM_FALLOCATE:
		for (uint64_t p = op->offset / MEM_PAGE; p < (op->offset + op->len) / MEM_PAGE; p++)
			if (!*mem_page_at(f, p))
				mem_page_own(f, p);
		if (op->offset + op->len > f->size)
			f->size = op->offset + op->len;
		break;
	case MEM_PUNCH:
		mem_zero(f, op->offset, op->offset + op->len);
		break;
	default:
		break;
	}
}

static inline struct mem_file *mem_files_copy(struct mem_file *from)
{
	struct mem_file *to = NULL, *f, *next;

	HASH_ITER (hh, from, f, next) {
		struct mem_file *copy = mem_add(&to, f->path);

		copy->size = f->size;
		copy->page_count = f->page_count;
		copy->pages = calloc(f->page_count + 1, sizeof(*copy->pages));
		assert(copy->pages);
		for (size_t i = 0; i < f->page_count; i++) {
			copy->pages[i] = f->pages[i];
			if (f->pages[i])
				f->pages[i]->refs++;
		}
	}
	return to;
}

static inline void mem_files_free(struct mem_file **files)
{
	struct mem_file *f, *next;

	HASH_ITER (hh, *files, f, next) {
		HASH_DEL(*files, f);
		mem_file_free(f);
	}
}

static inline uint64_t mem_allocated(const struct mem_file *f)
{
	uint64_t pages = 0;

	for (size_t i = 0; i < f->page_count; i++)
		pages += f->pages[i] != NULL;
	return pages * MEM_PAGE;
}

/* ---- the index's map ---- */

static inline void mem_index_apply(struct mem_record **index, const struct record_bytes *op)
{
	struct mem_record *r;

	HASH_FIND(hh, *index, op->key, op->key_len, r);
	if (r) {
		HASH_DEL(*index, r);
		free(r);
	}
	if (!op->value_len)
		return;
	r = calloc(1, sizeof(*r));
	assert(r);
	r->bytes = *op;
	HASH_ADD_KEYPTR(hh, *index, r->bytes.key, r->bytes.key_len, r);
}

static inline struct mem_record *mem_index_copy(struct mem_record *from)
{
	struct mem_record *to = NULL, *r, *next;

	HASH_ITER (hh, from, r, next)
		mem_index_apply(&to, &r->bytes);
	return to;
}

static inline void mem_index_free(struct mem_record **index)
{
	struct mem_record *r, *next;

	HASH_ITER (hh, *index, r, next) {
		HASH_DEL(*index, r);
		free(r);
	}
}

/* ---- the operations ---- */

static inline void mem_record_op(struct mem_disk *m, struct mem_op op, const char *path)
{
	if (!m->recording)
		return;
	if (m->op_count == m->op_room) {
		m->op_room = m->op_room ? 2 * m->op_room : 1024;
		m->ops = realloc(m->ops, m->op_room * sizeof(*m->ops));
		assert(m->ops);
	}
	snprintf(op.path, sizeof(op.path), "%s", path);
	m->ops[m->op_count++] = op;
}

/* Is this one of those that fail? */
static inline int mem_failure(struct mem_disk *m)
{
	if (m->fail_in < 0)
		return 0;
	if (m->fail_in > 0) {
		m->fail_in--;
		return 0;
	}
	if (!m->fail_on)
		m->fail_in = -1;
	m->failed++;
	return m->fail_code;
}

#define MEM_ENTER(ctx)                                                         \
	struct mem_disk *m = (ctx);                                            \
	__attribute__((cleanup(mem_unlock))) pthread_mutex_t *guard_ = &m->mu; \
	pthread_mutex_lock(guard_)

static inline void mem_unlock(pthread_mutex_t **mu)
{
	pthread_mutex_unlock(*mu);
}

static inline struct mem_file *mem_of_fd(struct mem_disk *m, int fd)
{
	assert(fd >= 0 && fd < MEM_FDS && m->fds[fd]);
	/* Of an unlinked one there is nothing to see. */
	return mem_find(m->files, m->fds[fd]);
}

static inline int mem_open(void *ctx, const char *path, int flags)
{
	MEM_ENTER(ctx);
	int r = mem_failure(m);

	if (r)
		return r;
	if (!mem_find(m->files, path)) {
		if (!(flags & O_CREAT))
			return -ENOENT;
		mem_add(&m->files, path);
		mem_record_op(m, (struct mem_op){.kind = MEM_CREATE}, path);
	}
	for (int fd = 0; fd < MEM_FDS; fd++) {
		if (!m->fds[fd]) {
			m->fds[fd] = strdup(path);
			return fd;
		}
	}
	return -EMFILE;
}

static inline void mem_close(void *ctx, int fd)
{
	MEM_ENTER(ctx);
	assert(m->fds[fd]);
	free(m->fds[fd]);
	m->fds[fd] = NULL;
}

static inline ssize_t mem_pwritev(
	void *ctx, int fd, const struct iovec *iov, int count, uint64_t offset)
{
	struct mem_op op = {.kind = MEM_WRITE, .offset = offset};
	MEM_ENTER(ctx);
	struct mem_file *f = mem_of_fd(m, fd);
	int r = mem_failure(m);

	if (r)
		return r;
	for (int i = 0; i < count; i++)
		op.len += iov[i].iov_len;
	op.data = malloc(op.len + 1);
	assert(op.data);
	op.len = 0;
	for (int i = 0; i < count; i++) {
		memcpy(op.data + op.len, iov[i].iov_base, iov[i].iov_len);
		op.len += iov[i].iov_len;
	}
	if (f)
		mem_apply(f, &op);
	mem_record_op(m, op, m->fds[fd]);
	if (!m->recording)
		free(op.data);
	return (ssize_t)op.len;
}

static inline ssize_t mem_preadv(
	void *ctx, int fd, const struct iovec *iov, int count, uint64_t offset)
{
	MEM_ENTER(ctx);
	struct mem_file *f = mem_of_fd(m, fd);
	ssize_t total = 0;
	int r = mem_failure(m);

	if (r)
		return r;
	for (int i = 0; f && i < count; i++) {
		for (size_t k = 0; k < iov[i].iov_len;) {
			uint64_t page = offset / MEM_PAGE, in = offset % MEM_PAGE;
			size_t n = MEM_PAGE - in;

			if (offset >= f->size)
				return total;
			n = n < iov[i].iov_len - k ? n : iov[i].iov_len - k;
			n = n < f->size - offset ? n : f->size - offset;
			if (page < f->page_count && f->pages[page])
				memcpy((char *)iov[i].iov_base + k, f->pages[page]->bytes + in, n);
			else
				memset((char *)iov[i].iov_base + k, 0, n);
			k += n;
			offset += n;
			total += (ssize_t)n;
		}
	}
	return total;
}

static inline int mem_change(struct mem_disk *m, int fd, struct mem_op op)
{
	struct mem_file *f = mem_of_fd(m, fd);
	int r = mem_failure(m);

	if (r)
		return r;
	if (f)
		mem_apply(f, &op);
	mem_record_op(m, op, m->fds[fd]);
	return 0;
}

static inline int mem_fallocate(void *ctx, int fd, uint64_t offset, uint64_t len)
{
	MEM_ENTER(ctx);
	return mem_change(
		m, fd, (struct mem_op){.kind = MEM_FALLOCATE, .offset = offset, .len = len});
}

static inline int mem_punch(void *ctx, int fd, uint64_t offset, uint64_t len)
{
	MEM_ENTER(ctx);
	return mem_change(m, fd, (struct mem_op){.kind = MEM_PUNCH, .offset = offset, .len = len});
}

static inline int mem_truncate(void *ctx, int fd, uint64_t size)
{
	MEM_ENTER(ctx);
	return mem_change(m, fd, (struct mem_op){.kind = MEM_TRUNCATE, .offset = size});
}

static inline int mem_datasync(void *ctx, int fd)
{
	MEM_ENTER(ctx);
	return mem_change(m, fd, (struct mem_op){.kind = MEM_DATASYNC});
}

static inline int mem_syncdir(void *ctx, const char *path)
{
	MEM_ENTER(ctx);
	int r = mem_failure(m);

	if (!r)
		mem_record_op(m, (struct mem_op){.kind = MEM_SYNCDIR}, path);
	return r;
}

static inline int mem_mkdir(void *ctx, const char *path)
{
	(void)ctx;
	(void)path;
	return 0;
}

static inline int mem_unlink(void *ctx, const char *path)
{
	MEM_ENTER(ctx);
	int r = mem_failure(m);

	if (r)
		return r;
	if (!mem_find(m->files, path))
		return -ENOENT;
	mem_remove(&m->files, path);
	mem_record_op(m, (struct mem_op){.kind = MEM_UNLINK}, path);
	return 0;
}

static inline bool mem_is_in(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	return strncmp(path, dir, n) == 0 && path[n] == '/' && !strchr(path + n + 1, '/');
}

static inline int mem_list(void *ctx, const char *path, disk_list_fn *fn, void *arg)
{
	struct mem_disk *m = ctx;
	struct mem_file *f, *next;
	char *names[4096];
	size_t count = 0;
	int r;

	pthread_mutex_lock(&m->mu);
	r = mem_failure(m);
	HASH_ITER (hh, m->files, f, next) {
		if (r == 0 && mem_is_in(f->path, path)) {
			assert(count < 4096);
			names[count++] = strdup(f->path + strlen(path) + 1);
		}
	}
	pthread_mutex_unlock(&m->mu);
	for (size_t i = 0; i < count; i++) {
		if (r == 0)
			r = fn(arg, names[i]);
		free(names[i]);
	}
	return r;
}

static inline int mem_stat(void *ctx, const char *path, struct disk_stat *ret)
{
	MEM_ENTER(ctx);
	struct mem_file *f = mem_find(m->files, path);
	int r = mem_failure(m);

	if (r)
		return r;
	if (!f)
		return -ENOENT;
	ret->size_bytes = f->size;
	ret->allocated_bytes = mem_allocated(f);
	return 0;
}

static inline int mem_free_bytes(void *ctx, const char *path, uint64_t *ret)
{
	MEM_ENTER(ctx);
	(void)path;
	*ret = m->free_bytes;
	return 0;
}

/* Nobody but the store opens files in memory, unless a test says so. */
static inline bool mem_tells_use(void *ctx, const char *dir)
{
	(void)ctx;
	(void)dir;
	return true;
}

static inline int mem_in_use(void *ctx, int fd)
{
	MEM_ENTER(ctx);
	int r = mem_failure(m);

	(void)fd;
	return r ? r : m->in_use;
}

static inline int mem_first_hole(void *ctx, int fd, uint64_t *ret)
{
	MEM_ENTER(ctx);
	struct mem_file *f = mem_of_fd(m, fd);
	int r = mem_failure(m);

	if (r)
		return r;
	for (*ret = 0; f && *ret < f->size; *ret += MEM_PAGE) {
		if (*ret / MEM_PAGE >= f->page_count || !f->pages[*ret / MEM_PAGE])
			return 0;
	}
	*ret = f ? f->size : 0;
	return 0;
}

static inline int mem_lock(void *ctx, const char *path, int *ret_fd)
{
	*ret_fd = mem_open(ctx, path, O_RDWR | O_CREAT);
	return *ret_fd < 0 ? *ret_fd : 0;
}

/* ---- the index's operations ---- */

static inline int mem_index_open(
	void *ctx, const char *dir, uint64_t capacity, void **ret, struct error *err)
{
	MEM_ENTER(ctx);
	int r = mem_failure(m);

	(void)dir;
	(void)capacity;
	if (r)
		return error_set_errno(err, r, "the index in memory");
	*ret = m;
	return 0;
}

static inline void mem_index_close(void *index)
{
	(void)index;
}

static inline int mem_by_key(struct mem_record *a, struct mem_record *b)
{
	size_t n = a->bytes.key_len < b->bytes.key_len ? a->bytes.key_len : b->bytes.key_len;
	int r = memcmp(a->bytes.key, b->bytes.key, n);

	return r ? r : a->bytes.key_len - b->bytes.key_len;
}

static inline int mem_index_load(void *index, index_load_fn *fn, void *arg, struct error *err)
{
	struct mem_disk *m = index;
	struct mem_record *r, *next;
	int ret;

	pthread_mutex_lock(&m->mu);
	ret = mem_failure(m);
	HASH_SORT(m->index, mem_by_key);
	pthread_mutex_unlock(&m->mu);
	if (ret)
		return error_set_errno(err, ret, "the index in memory");
	/* The store is not running yet: nobody else touches the map. */
	HASH_ITER (hh, m->index, r, next)
		fn(arg, r->bytes.key, r->bytes.key_len, r->bytes.value, r->bytes.value_len);
	return 0;
}

static inline int mem_index_repair(void *index, int attempt, struct error *err)
{
	(void)err;
	if (attempt > 0)
		mem_index_free(&((struct mem_disk *)index)->index);
	return 0;
}

static inline int mem_index_write(
	void *index, const struct record_bytes *ops, size_t count, struct error *err)
{
	MEM_ENTER(index);
	struct mem_op op = {.kind = MEM_INDEX, .len = count};
	int r = mem_failure(m);

	if (r)
		return error_set_errno(err, r, "the index in memory");
	for (size_t i = 0; i < count; i++)
		mem_index_apply(&m->index, &ops[i]);
	if (m->recording) {
		op.records = malloc(count * sizeof(*ops));
		assert(op.records);
		memcpy(op.records, ops, count * sizeof(*ops));
		mem_record_op(m, op, "");
	}
	return 0;
}

static inline struct mem_disk *mem_disk_new(void)
{
	struct mem_disk *m = calloc(1, sizeof(*m));

	assert(m);
	pthread_mutex_init(&m->mu, NULL);
	m->fail_in = -1;
	m->free_bytes = (uint64_t)1 << 50;
	m->index_ops = (struct index_ops){.open = mem_index_open,
		.close = mem_index_close,
		.load = mem_index_load,
		.repair = mem_index_repair,
		.write = mem_index_write};
	m->disk = (struct store_disk){.ctx = m,
		.open = mem_open,
		.close = mem_close,
		.pwritev = mem_pwritev,
		.preadv = mem_preadv,
		.fallocate = mem_fallocate,
		.punch = mem_punch,
		.truncate = mem_truncate,
		.datasync = mem_datasync,
		.syncdir = mem_syncdir,
		.mkdir = mem_mkdir,
		.unlink = mem_unlink,
		.list = mem_list,
		.stat = mem_stat,
		.free_bytes = mem_free_bytes,
		.tells_use = mem_tells_use,
		.in_use = mem_in_use,
		.first_hole = mem_first_hole,
		.lock = mem_lock,
		.index_ctx = m,
		.index = &m->index_ops};
	return m;
}

static inline void mem_disk_free(struct mem_disk *m)
{
	mem_files_free(&m->files);
	mem_index_free(&m->index);
	for (size_t i = 0; i < m->op_count; i++) {
		free(m->ops[i].data);
		free(m->ops[i].records);
	}
	free(m->ops);
	for (int fd = 0; fd < MEM_FDS; fd++)
		free(m->fds[fd]);
	pthread_mutex_destroy(&m->mu);
	free(m);
}

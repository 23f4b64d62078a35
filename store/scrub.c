#include "store/scrub.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/io_priority.h"
#include "common/large_page.h"
#include "store/store_private.h"

#define LOG_SUBSYSTEM "store"
#include "common/log.h"

#define WEEK_S ((uint64_t)7 * 24 * 3600)
#define TICK_MS 1000	 /* how often the rate is looked at: it follows what is stored */
#define EMPTY_MS 10000	 /* between two looks at a store without blocks */
#define SAVE_MS 60000	 /* between two records of where the pass is */
#define BATCH_MAX 32768u /* places found by one walk over the directory: 0.8 MiB */
/* The largest slot of a segment, and the page of a sidecar that holds a block's checks. */
#define SLOT_BYTES_MAX ((size_t)slot_pages((uint32_t)BLOCK_BYTES) * STORE_PAGE_BYTES)

struct target {
	scrub_place place;
	struct block_id id;
};

/* Owned by the thread. */
struct scrubbing {
	struct store *s;
	struct target *batch; /* a heap with the largest place first, then sorted */
	uint32_t count;
	char *data;    /* SLOT_BYTES_MAX, aligned for direct IO, then a page for the sidecar */
	bool buffered; /* the file system has no direct IO */
	/* the file at hand */
	struct store_file *file; /* pinned, or NULL */
	int fds[2];
	/* what may be read now; negative after a block that took more */
	int64_t credit_bytes, credited_ms;
	int64_t saved_ms;
};

uint64_t scrub_rate_locked(const struct store *s)
{
	uint64_t stored = 0;
	struct dataset *ds, *next;

	if (s->scrub.bytes_per_s != STORE_SCRUB_WEEKLY)
		return s->scrub.bytes_per_s;
	HASH_ITER (hh, s->datasets, ds, next)
		stored += ds->class_bytes[CLASS_PINNED] + ds->class_bytes[CLASS_FILLER] +
			  ds->class_bytes[CLASS_ELASTIC];
	return stored / WEEK_S + 1;
}

/* ---- what comes next ------------------------------------------------------------------------- */

static void sift_down(struct target *heap, uint32_t count)
{
	uint32_t at = 0, child;

	while ((child = 2 * at + 1) < count) {
		struct target t = heap[at];

		if (child + 1 < count && heap[child + 1].place > heap[child].place)
			child++;
		if (heap[child].place <= t.place)
			return;
		heap[at] = heap[child];
		heap[child] = t;
		at = child;
	}
}

static void sift_up(struct target *heap, uint32_t at)
{
	while (at > 0 && heap[(at - 1) / 2].place < heap[at].place) {
		struct target t = heap[at];

		heap[at] = heap[(at - 1) / 2];
		heap[(at - 1) / 2] = t;
		at = (at - 1) / 2;
	}
}

static int by_place(const void *a, const void *b)
{
	const struct target *x = a, *y = b;

	return x->place < y->place ? -1 : x->place > y->place;
}

/* The next BATCH_MAX places after `at`. Without the lock: a block that moves meanwhile may be left to
 * the next pass. */
static void batch_find(struct scrubbing *w, scrub_place at)
{
	const struct directory *d = w->s->directory;
	struct directory_entry e;

	w->count = 0;
	for (uint32_t slot = 0; slot < directory_slots(d); slot++) {
		struct target t;

		if (!directory_at(d, slot, &e))
			continue;
		t = (struct target){scrub_place_of(e.file, e.page), e.id};
		if (t.place <= at)
			continue;
		if (w->count < BATCH_MAX) {
			w->batch[w->count] = t;
			sift_up(w->batch, w->count++);
		} else if (t.place < w->batch[0].place) {
			w->batch[0] = t;
			sift_down(w->batch, w->count);
		}
	}
	qsort(w->batch, w->count, sizeof(w->batch[0]), by_place);
}

/* ---- the file at hand ------------------------------------------------------------------------ */

static void file_close(struct scrubbing *w)
{
	struct store *s = w->s;

	if (!w->file)
		return;
	for (int i = 0; i < 2; i++) {
		if (w->fds[i] >= 0)
			s->disk->close(s->disk->ctx, w->fds[i]);
	}
	mutex_guard(&s->mu);
	file_unpin_locked(s, steal(&w->file));
}

static int open_one(struct scrubbing *w, bool sidecar)
{
	const struct store_disk *d = w->s->disk;
	char path[STORE_PATH_BYTES];
	int fd = -EINVAL;

	file_path(w->s, w->file->number, w->file->kind, sidecar, path);
	if (!w->buffered)
		fd = d->open(d->ctx, path, O_RDONLY | O_DIRECT);
	/* Its pages are read once and then the first to go: the page cache bears that. */
	if (fd == -EINVAL) {
		w->buffered = true;
		fd = d->open(d->ctx, path, O_RDONLY);
	}
	return fd;
}

/* Pins and opens; -ENOENT when it is not there. */
static int file_open(struct scrubbing *w, uint32_t number)
{
	struct store *s = w->s;
	struct store_file *f;

	if (w->file && w->file->number == number)
		return 0;
	file_close(w);
	mutex_lock(&s->mu);
	f = file_find_locked(s, number);
	if (f && !f->retiring) {
		f->pins++;
		w->file = f;
	}
	mutex_unlock(&s->mu);
	if (!w->file)
		return -EAGAIN;
	w->fds[1] = -1;
	w->fds[0] = open_one(w, false);
	if (w->fds[0] >= 0 && f->kind == FILE_SPARSE)
		w->fds[1] = open_one(w, true);
	if (w->fds[0] >= 0 && (f->kind == FILE_SEGMENT || w->fds[1] >= 0))
		return 0;
	return w->fds[0] < 0 ? w->fds[0] : w->fds[1];
}

/* ---- one block ------------------------------------------------------------------------------- */

/* At least `need` bytes from an offset on whole pages; -ENODATA where the file ends before. */
static int read_pages(struct scrubbing *w, int fd, char *dst, size_t need, uint64_t offset)
{
	const struct store_disk *d = w->s->disk;
	size_t room = pages_of(need) * (size_t)STORE_PAGE_BYTES, got = 0;

	while (got < need) {
		struct iovec iov = {.iov_base = dst + got, .iov_len = room - got};
		ssize_t n = d->preadv(d->ctx, fd, &iov, 1, offset + got);

		if (n < 0)
			return (int)n;
		got += (size_t)n;
		/* Only at the end of a file is a read not of whole pages. */
		if (got < need && (n == 0 || got % STORE_PAGE_BYTES))
			return -ENODATA;
	}
	return 0;
}

static int read_block(
	struct scrubbing *w, const struct directory_entry *e, const uint8_t **ret_checks)
{
	uint64_t start = (uint64_t)e->page * STORE_PAGE_BYTES;
	uint64_t sums = start / BLOCK_BYTES * CHECKS_STRIDE;
	uint32_t in_page = (uint32_t)(sums % STORE_PAGE_BYTES);
	char *sidecar = w->data + SLOT_BYTES_MAX;
	int r;

	if (!(e->flags & FLAG_SPARSE)) {
		*ret_checks = (uint8_t *)w->data + checks_offset(e->len);
		return read_pages(
			w, w->fds[0], w->data, checks_offset(e->len) + checks_bytes(e->len), start);
	}
	*ret_checks = (uint8_t *)sidecar + in_page;
	r = read_pages(w, w->fds[0], w->data, e->len, start);
	if (r == 0)
		r = read_pages(
			w, w->fds[1], sidecar, in_page + checks_bytes(e->len), sums - in_page);
	return r;
}

/* 0 sound, -EBADMSG damaged; anything else says nothing of the block. */
static int check_block(struct scrubbing *w, const struct directory_entry *e)
{
	const uint8_t *checks;
	int r = file_open(w, e->file);

	if (r == 0) {
		r = read_block(w, e, &checks);
		if (r == -EINVAL && !w->buffered) {
			/* Opened for direct IO, but it cannot be read in this way. */
			w->buffered = true;
			file_close(w);
			r = file_open(w, e->file);
			if (r == 0)
				r = read_block(w, e, &checks);
		}
		if (r == 0)
			return checks_verify(checks, &e->id, w->data, e->len) ? 0 : -EBADMSG;
	} else {
		file_close(w);
	}
	/* As for every reader: what cannot be read at its place is not there. */
	return r == -EIO || r == -ENODATA || r == -ENOENT ? -EBADMSG : r;
}

static void scrub_one(struct scrubbing *w, const struct target *t)
{
	struct store *s = w->s;
	struct directory_entry e;
	bool damaged;

	if (!directory_lookup(s->directory, &t->id, &e) ||
		scrub_place_of(e.file, e.page) != t->place)
		return;
	/* Where the block was dropped or moved while it was read, the bytes mean nothing. */
	damaged = check_block(w, &e) == -EBADMSG && store_drop_damaged(s, &e);
	w->credit_bytes -= e.len;
	mutex_guard(&s->mu);
	s->scrub.read_bytes += e.len;
	s->scrub.damaged_blocks += damaged;
}

/* ---- the pass -------------------------------------------------------------------------------- */

static void save_locked(struct scrubbing *w)
{
	struct store *s = w->s;
	struct record r = {.kind = RECORD_SCRUB, .scrub = {.at = s->scrub.at}};
	struct commit_op op = {0};

	w->saved_ms = clock_mono_ms();
	if (commit_behind_locked(s))
		return;
	record_encode(&r, false, &op.record);
	commit_add_locked(s, &op);
}

static int64_t credit_due_ms(const struct scrubbing *w, uint64_t rate)
{
	int64_t due_ms = (int64_t)((double)-w->credit_bytes * 1000 / (double)rate) + 1;

	return due_ms < TICK_MS ? due_ms : TICK_MS;
}

/* Waits until there is credit; false at the end. */
static bool wait_for_credit(struct scrubbing *w)
{
	struct store *s = w->s;
	int64_t now;

	if (w->credit_bytes < 0)
		file_close(w);
	mutex_guard(&s->mu);
	for (;;) {
		uint64_t rate = scrub_rate_locked(s);

		now = clock_mono_ms();
		w->credit_bytes += (int64_t)((double)rate * (double)(now - w->credited_ms) / 1000);
		w->credited_ms = now;
		/* Time that was not used is lost, so that no burst follows. */
		if (w->credit_bytes > (int64_t)(rate / 10))
			w->credit_bytes = (int64_t)(rate / 10);
		if (s->scrub.stopping || w->credit_bytes >= 0)
			return !s->scrub.stopping;
		cond_wait(&s->scrub.changed, &s->mu, now + credit_due_ms(w, rate));
	}
}

static bool rest(struct scrubbing *w, int64_t ms)
{
	struct store *s = w->s;
	int64_t until = clock_deadline_ms(ms);

	mutex_guard(&s->mu);
	while (!s->scrub.stopping && !clock_passed(until))
		cond_wait(&s->scrub.changed, &s->mu, until);
	return !s->scrub.stopping;
}

static bool scrub_batch(struct scrubbing *w)
{
	struct store *s = w->s;
	bool go_on = true;

	for (uint32_t i = 0; go_on && i < w->count; i++) {
		go_on = wait_for_credit(w);
		if (!go_on)
			break;
		scrub_one(w, &w->batch[i]);
		mutex_guard(&s->mu);
		s->scrub.at = w->batch[i].place;
		if (clock_passed(w->saved_ms + SAVE_MS))
			save_locked(w);
	}
	file_close(w);
	return go_on;
}

/* Begins the next pass; false at the end. */
static bool pass_end(struct scrubbing *w, bool whole)
{
	struct store *s = w->s;

	mutex_lock(&s->mu);
	if (whole) {
		s->scrub.passes++;
		log_debug(
			"%s: scrubbed once more: %lu bytes and %lu damaged blocks since the start",
			s->dir, (unsigned long)s->scrub.read_bytes,
			(unsigned long)s->scrub.damaged_blocks);
	}
	s->scrub.at = 0;
	save_locked(w);
	mutex_unlock(&s->mu);
	return rest(w, whole ? TICK_MS : EMPTY_MS);
}

static void *scrub_main(void *arg)
{
	struct scrubbing w = {.s = arg, .fds = {-1, -1}, .saved_ms = clock_mono_ms()};
	struct store *s = w.s;
	cleanup_free char *data = large_page_alloc(SLOT_BYTES_MAX + STORE_PAGE_BYTES);
	cleanup_free struct target *batch = calloc(BATCH_MAX, sizeof(*batch));
	bool go_on = data && batch;
	int r;

	pthread_setname_np(pthread_self(), "store-scrub");
	r = io_priority_idle();
	if (r < 0)
		log_debug("no idle class for the scrubber's reads: %s", strerror(-r));
	if (!go_on)
		log_error("%s: out of memory: it is not scrubbed until the next start", s->dir);
	w.batch = batch;
	w.data = data;
	w.credited_ms = clock_mono_ms();
	while (go_on) {
		scrub_place at;

		mutex_lock(&s->mu);
		at = s->scrub.at;
		mutex_unlock(&s->mu);
		batch_find(&w, at);
		go_on = w.count ? scrub_batch(&w) : pass_end(&w, at != 0);
	}
	mutex_guard(&s->mu);
	save_locked(&w);
	return NULL;
}

int scrub_start(struct store *s, struct error *err)
{
	int r;

	if (!s->scrub.bytes_per_s)
		return 0;
	r = pthread_create(&s->scrub.thread, NULL, scrub_main, s);
	if (r != 0)
		return error_set_errno(err, -r, "cannot start the store's scrubber");
	s->scrub.started = true;
	return 0;
}

void scrub_stop(struct store *s)
{
	if (!s->scrub.started)
		return;
	mutex_lock(&s->mu);
	s->scrub.stopping = true;
	cond_broadcast(&s->scrub.changed);
	mutex_unlock(&s->mu);
	pthread_join(s->scrub.thread, NULL);
	s->scrub.started = false;
}

#include "fuse/open_files.h"

#include <assert.h>
#include <stdlib.h>

#include <uthash.h>
#include <utlist.h>

#include "fuse/open_records.h"

enum state { DECIDING, CACHED, PASSED };

struct open_file {
	uint64_t ino;
	enum state state;
	uint32_t opens; /* 0: idle */
	struct open_backing backing;
	struct open_waiter *waiters;
	int64_t idle_since_ms;
	struct open_file *prev, *next; /* of the idle ones */
	UT_hash_handle hh;
};

void open_files_init(struct open_files *t, unsigned max)
{
	*t = (struct open_files){.max = max};
	mutex_init(&t->mu);
}

static void forget_locked(struct open_files *t, struct open_file *f)
{
	HASH_DEL(t->by_ino, f);
	t->count--;
	free(f);
}

void open_files_deinit(struct open_files *t)
{
	struct open_file *f, *next;

	HASH_ITER (hh, t->by_ino, f, next) {
		assert(!f->backing.whole);
		forget_locked(t, f);
	}
	mutex_deinit(&t->mu);
}

static void unidle_locked(struct open_files *t, struct open_file *f)
{
	if (f->state == PASSED && f->opens == 0)
		DL_DELETE(t->idle, f);
}

/* Takes an idle one off the table. */
static void give_up_locked(struct open_files *t, struct open_file *f, struct open_backing *ret_gone)
{
	unidle_locked(t, f);
	if (t->records)
		open_records_backing_closing(t->records, f->backing.record);
	*ret_gone = f->backing;
	forget_locked(t, f);
}

static struct open_file *add_locked(struct open_files *t, uint64_t ino)
{
	struct open_file *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->ino = ino;
	f->opens = 1;
	HASH_ADD(hh, t->by_ino, ino, sizeof(f->ino), f);
	t->count++;
	return f;
}

static enum open_step join_locked(
	struct open_files *t, struct open_file *f, struct open_waiter *waiter, int32_t *ret_id)
{
	unidle_locked(t, f);
	f->opens++;
	switch (f->state) {
	case DECIDING:
		waiter->next = f->waiters;
		f->waiters = waiter;
		return OPEN_WAITS;
	case PASSED:
		*ret_id = f->backing.id;
		return OPEN_AS_PASSED;
	case CACHED:
		break;
	}
	return OPEN_AS_CACHED;
}

enum open_step open_files_enter(struct open_files *t, uint64_t ino, struct open_waiter *waiter,
	int32_t *ret_id, struct open_backing *ret_gone)
{
	struct open_file *f;
	mutex_guard(&t->mu);

	*ret_gone = (struct open_backing){0};
	HASH_FIND(hh, t->by_ino, &ino, sizeof(ino), f);
	if (f && f->opens == 0 && f->backing.whole->wanted_back(f->backing.whole)) {
		give_up_locked(t, f, ret_gone);
		f = NULL;
	}
	if (f)
		return join_locked(t, f, waiter, ret_id);
	if (t->count == t->max && t->idle)
		give_up_locked(t, t->idle, ret_gone);
	f = t->count < t->max ? add_locked(t, ino) : NULL;
	if (!f) {
		t->untracked++;
		return OPEN_UNTRACKED;
	}
	f->state = t->untracked ? CACHED : DECIDING;
	return f->state == CACHED ? OPEN_AS_CACHED : OPEN_DECIDE;
}

bool open_files_resume(struct open_files *t, uint64_t ino, const struct open_backing *backing)
{
	struct open_file *f;
	mutex_guard(&t->mu);

	HASH_FIND(hh, t->by_ino, &ino, sizeof(ino), f);
	if (f || t->count == t->max)
		return false;
	f = add_locked(t, ino);
	if (!f)
		return false;
	f->opens = 0;
	f->state = PASSED;
	f->backing = *backing;
	DL_APPEND(t->idle, f);
	return true;
}

bool open_files_resume_open(struct open_files *t, uint64_t ino, bool tracked)
{
	struct open_file *f;
	mutex_guard(&t->mu);

	HASH_FIND(hh, t->by_ino, &ino, sizeof(ino), f);
	if (tracked && f) {
		unidle_locked(t, f);
		f->opens++;
		return true;
	}
	f = tracked && t->count < t->max ? add_locked(t, ino) : NULL;
	if (f)
		f->state = CACHED;
	else
		t->untracked++;
	return f || !tracked;
}

int32_t open_files_backing(struct open_files *t, uint64_t ino)
{
	struct open_file *f;
	mutex_guard(&t->mu);

	HASH_FIND(hh, t->by_ino, &ino, sizeof(ino), f);
	return f && f->state == PASSED ? f->backing.id : 0;
}

struct open_waiter *open_files_decided(
	struct open_files *t, uint64_t ino, const struct open_backing *backing)
{
	struct open_waiter *waiters;
	struct open_file *f;
	mutex_guard(&t->mu);

	HASH_FIND(hh, t->by_ino, &ino, sizeof(ino), f);
	assert(f && f->state == DECIDING && f->opens > 0);
	f->state = backing->id > 0 ? PASSED : CACHED;
	f->backing = *backing;
	waiters = f->waiters;
	f->waiters = NULL;
	return waiters;
}

void open_files_leave(struct open_files *t, uint64_t ino, bool tracked, int64_t now_ms)
{
	struct open_file *f;
	mutex_guard(&t->mu);

	if (!tracked) {
		t->untracked -= t->untracked > 0;
		return;
	}
	HASH_FIND(hh, t->by_ino, &ino, sizeof(ino), f);
	/* Nothing is known any more of what is released after the connection's end. */
	if (!f || f->opens == 0 || --f->opens > 0)
		return;
	if (f->state == CACHED) {
		forget_locked(t, f);
		return;
	}
	f->idle_since_ms = now_ms;
	DL_APPEND(t->idle, f);
}

bool open_files_collect(
	struct open_files *t, int64_t before_ms, bool all, struct open_backing *ret_gone)
{
	struct open_file *f, *next;
	mutex_guard(&t->mu);

	DL_FOREACH (t->idle, f) {
		if (all || f->idle_since_ms < before_ms ||
			f->backing.whole->wanted_back(f->backing.whole)) {
			give_up_locked(t, f, ret_gone);
			return true;
		}
	}
	if (!all)
		return false;
	HASH_ITER (hh, t->by_ino, f, next) {
		if (f->state == PASSED) {
			give_up_locked(t, f, ret_gone);
			return true;
		}
	}
	return false;
}

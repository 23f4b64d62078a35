#include "origin/walk.h"

#include <errno.h>
#include <string.h>

#include "common/buf.h"
#include "common/cleanup.h"
#include "common/sync.h"

#define WALK_SLICE_MS 100

struct walk {
	const struct origin_listing *l;
	walk_visit_fn *visit;
	void *arg;

	struct mutex mu;
	struct cond changed;
	/* guarded by mu */
	struct buf stack; /* items: bytes, then their number as size_t */
	size_t items;
	unsigned visiting;
	int result;
	struct error why;

	struct mutex emit_mu; /* makes the entry function's calls one after the other */
	/* guarded by emit_mu */
	int emit_result; /* once it is negative, the entry function is not called again */
};

static int stopped(const struct origin_listing *l)
{
	if (l->cancel && atomic_load_explicit(l->cancel, memory_order_relaxed))
		return -ECANCELED;
	if (l->retry->env.now_ms(l->retry->env.arg) >= l->deadline_ms)
		return -ETIMEDOUT;
	return 0;
}

int walk_check(struct walk *w, struct error *err)
{
	int r = stopped(w->l);

	if (r < 0)
		return error_set(err, r, "list %s: %s", w->l->url,
			r == -ECANCELED ? "cancelled" : "the deadline has passed");
	mutex_guard(&w->mu);
	if (w->result < 0) {
		/* Another thread has the reason; this text is never shown. */
		return error_set(err, w->result, "list %s: stopped", w->l->url);
	}
	return 0;
}

int walk_push(struct walk *w, const char *item, size_t len, struct error *err)
{
	mutex_guard(&w->mu);
	if (w->stack.len + len + sizeof(len) > WALK_STACK_BYTES ||
		buf_reserve(&w->stack, len + sizeof(len)) < 0)
		return error_set(err, -ENOMEM,
			"list %s: more folders wait than fit in %zu MiB: list parts of it as "
			"datasets of their own",
			w->l->url, WALK_STACK_BYTES >> 20);
	buf_append(&w->stack, item, len);
	buf_append(&w->stack, &len, sizeof(len));
	w->items++;
	cond_signal(&w->changed);
	return 0;
}

size_t walk_pending(struct walk *w)
{
	mutex_guard(&w->mu);
	return w->items + w->visiting;
}

int walk_emit(struct walk *w, const struct origin_entry *e, struct error *err)
{
	mutex_guard(&w->emit_mu);
	if (w->emit_result < 0)
		return error_set(err, w->emit_result, "list %s: stopped", w->l->url);
	w->emit_result = w->l->fn(w->l->arg, e, err);
	return w->emit_result;
}

static void pop_locked(struct walk *w, struct buf *item)
{
	size_t len;

	assert(mutex_held(&w->mu) && w->items > 0);
	memcpy(&len, w->stack.data + w->stack.len - sizeof(len), sizeof(len));
	w->stack.len -= sizeof(len) + len;
	buf_clear(item);
	if (buf_append(item, w->stack.data + w->stack.len, len) < 0 && w->result == 0)
		w->result = error_set(&w->why, -ENOMEM, "list %s: out of memory", w->l->url);
	w->items--;
}

/* Takes the next item; false when the walk is over. */
static bool take(struct walk *w, struct buf *item)
{
	mutex_guard(&w->mu);
	for (;;) {
		int r = stopped(w->l);

		if (r < 0 && w->result == 0)
			w->result = error_set(&w->why, r, "list %s: %s", w->l->url,
				r == -ECANCELED ? "cancelled" : "the deadline has passed");
		if (w->result < 0)
			return false;
		if (w->items > 0) {
			pop_locked(w, item);
			w->visiting++;
			return w->result == 0;
		}
		if (w->visiting == 0)
			return false;
		cond_wait(&w->changed, &w->mu, clock_deadline_ms(WALK_SLICE_MS));
	}
}

static void *work(void *arg)
{
	struct walk *w = arg;
	cleanup_buf struct buf item = BUF_INIT;

	while (take(w, &item)) {
		struct error why = ERROR_INIT;
		int r = w->visit(w->arg, w, item.data ? item.data : "", item.len, &why);

		mutex_guard(&w->mu);
		if (r < 0 && w->result == 0) {
			w->result = r;
			w->why = why;
		}
		w->visiting--;
		cond_broadcast(&w->changed);
	}
	mutex_guard(&w->mu);
	cond_broadcast(&w->changed);
	return NULL;
}

int walk_run(const struct origin_listing *l, const char *item, size_t len, walk_visit_fn *visit,
	void *arg, struct error *err)
{
	struct walk w = {.l = l, .visit = visit, .arg = arg};
	pthread_t threads[WALK_THREADS_MAX];
	unsigned started = 0,
		 wanted = l->threads < WALK_THREADS_MAX ? l->threads : WALK_THREADS_MAX;
	int r;

	mutex_init(&w.mu);
	mutex_init(&w.emit_mu);
	cond_init(&w.changed);
	r = walk_push(&w, item, len, err);
	if (r == 0) {
		while (started + 1 < wanted &&
			pthread_create(&threads[started], NULL, work, &w) == 0)
			started++;
		work(&w);
		while (started > 0)
			pthread_join(threads[--started], NULL);
		r = w.result;
		if (r < 0 && err)
			*err = w.why;
	}
	buf_deinit(&w.stack);
	cond_deinit(&w.changed);
	mutex_deinit(&w.emit_mu);
	mutex_deinit(&w.mu);
	return r;
}

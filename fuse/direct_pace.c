#include "fuse/direct_pace.h"

#include <utlist.h>

#define NS_PER_MS ((int64_t)1000000)
#define CALLED_OFF_CHECK_MS 100

struct direct_wait {
	struct direct_wait *prev, *next;
	int64_t told_ms; /* until when its reader was told that it waits */
};

void direct_pace_init(struct direct_pace *p)
{
	*p = (struct direct_pace){.until_ms = CLOCK_NEVER, .base_until_ms = CLOCK_NEVER};
	mutex_init(&p->mu);
	cond_init(&p->changed);
}

void direct_pace_deinit(struct direct_pace *p)
{
	assert(!p->waiting && !p->window.begun);
	cond_deinit(&p->changed);
	mutex_deinit(&p->mu);
}

void direct_pace_free(struct direct_pace *p)
{
	mutex_guard(&p->mu);

	p->until_ms = p->base_until_ms = CLOCK_NEVER;
	origin_window_set(&p->window, 0);
	cond_broadcast(&p->changed);
}

static double at_least(double bytes_per_s)
{
	return bytes_per_s > ORIGIN_RATE_MIN_BYTES_PER_S ? bytes_per_s
							 : ORIGIN_RATE_MIN_BYTES_PER_S;
}

static void fall_back_locked(struct direct_pace *p)
{
	if (clock_passed(p->until_ms)) {
		p->until_ms = CLOCK_NEVER;
		origin_window_set(&p->window, at_least(p->base_bytes_per_s));
	}
	if (clock_passed(p->base_until_ms)) {
		p->base_until_ms = CLOCK_NEVER;
		origin_window_set(&p->window, ORIGIN_RATE_MIN_BYTES_PER_S);
	}
}

void direct_pace_lease(struct direct_pace *p, double bytes_per_s, int64_t until_ms,
	double base_bytes_per_s, int64_t base_until_ms)
{
	mutex_guard(&p->mu);

	origin_window_set(&p->window, at_least(bytes_per_s));
	p->base_bytes_per_s = base_bytes_per_s;
	p->until_ms = until_ms;
	p->base_until_ms = base_until_ms;
	fall_back_locked(p);
	cond_broadcast(&p->changed);
}

double direct_pace_rate(struct direct_pace *p)
{
	mutex_guard(&p->mu);

	fall_back_locked(p);
	return p->window.bytes_per_s;
}

static uint32_t piece_locked(struct direct_pace *p, uint32_t want, bool whole)
{
	uint32_t piece;

	fall_back_locked(p);
	piece = origin_window_piece(&p->window);
	return whole || want < piece ? want : piece;
}

static void tell_waited(struct direct_wait *w, struct read_cancel *cancel)
{
	int64_t now_ms = clock_mono_ms();

	if (now_ms > w->told_ms)
		read_cancel_waited(cancel, now_ms - w->told_ms);
	w->told_ms = now_ms;
}

/* When the window has room, or the one before it in the queue is served, or to look whether it was
 * called off. */
static int64_t wake_ms_locked(struct direct_pace *p, const struct direct_wait *w, uint32_t piece)
{
	int64_t check_ms = clock_deadline_ms(CALLED_OFF_CHECK_MS), room_ms;

	if (p->waiting != w)
		return check_ms;
	room_ms = (origin_window_wait_ns(&p->window, piece, clock_mono_ns()) + NS_PER_MS - 1) /
		  NS_PER_MS;
	return room_ms < check_ms ? room_ms : check_ms;
}

static uint32_t wait_locked(struct direct_pace *p, struct direct_wait *w, uint32_t want, bool whole,
	struct read_cancel *cancel)
{
	uint32_t piece = piece_locked(p, want, whole);

	while (p->waiting != w || origin_window_wait_ns(&p->window, piece, clock_mono_ns()) > 0) {
		cond_wait(&p->changed, &p->mu, wake_ms_locked(p, w, piece));
		tell_waited(w, cancel);
		if (atomic_load(&cancel->fired))
			return 0;
		piece = piece_locked(p, want, whole);
	}
	return piece;
}

uint32_t direct_pace_begin(struct direct_pace *p, struct origin_pass *pass, uint32_t want,
	bool whole, struct read_cancel *cancel)
{
	struct direct_wait w = {.told_ms = clock_mono_ms()};
	uint32_t piece;

	mutex_guard(&p->mu);
	DL_APPEND(p->waiting, &w);
	piece = wait_locked(p, &w, want, whole, cancel);
	DL_DELETE(p->waiting, &w);
	if (piece > 0)
		origin_window_begin(&p->window, pass, piece, clock_mono_ns());
	if (p->waiting)
		cond_broadcast(&p->changed);
	return piece;
}

void direct_pace_end(struct direct_pace *p, struct origin_pass *pass, uint64_t bytes)
{
	mutex_guard(&p->mu);

	origin_window_end(&p->window, pass, bytes, clock_mono_ns());
	if (p->waiting)
		cond_broadcast(&p->changed);
}

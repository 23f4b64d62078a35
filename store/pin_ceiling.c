#include "store/pin_ceiling.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "store/store_private.h"

#define LOG_SUBSYSTEM "store"
#include "common/log.h"

#define STEP_SHARE 64
#define STEP_MIN_BYTES (2 * BLOCK_BYTES)
#define BACKOFF_MAX 6u
#define BIN_BITS 16
#define BINS ((size_t)1 << BIN_BITS)
#define DROPS_AT_ONCE 4096u
#define LONG_AGO (UINT32_MAX / 2)

struct sums {
	uint64_t pinned_bytes, other_bytes;
	uint64_t threshold; /* the highest of the plan */
};

static struct sums sums_locked(const struct store *s)
{
	struct dataset *ds, *next;
	struct sums sums = {0};

	HASH_ITER (hh, s->datasets, ds, next) {
		sums.pinned_bytes += ds->class_bytes[CLASS_PINNED];
		sums.other_bytes += ds->class_bytes[CLASS_FILLER] + ds->class_bytes[CLASS_ELASTIC];
		if (ds->grant_bytes && ds->threshold > sums.threshold)
			sums.threshold = ds->threshold;
	}
	return sums;
}

static uint64_t step_bytes(const struct store *s)
{
	uint64_t step = s->usable_bytes / STEP_SHARE;

	return step < STEP_MIN_BYTES ? STEP_MIN_BYTES : step;
}

/* Dropped already, and free once it is committed or its readers let go. */
static uint64_t coming_bytes_locked(const struct store *s)
{
	return s->commit.freed_bytes + s->held_bytes;
}

static uint64_t beyond(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

/* How much is charged beyond the capacity, or lacks to the floor, when all that was dropped is free.
 */
static uint64_t shortage_locked(const struct store *s)
{
	uint64_t coming = coming_bytes_locked(s);
	uint64_t over = beyond(charged_locked(s), s->usable_bytes + coming);
	uint64_t under = s->fs_known ? beyond(s->floor_bytes, s->fs_free_bytes + coming) : 0;

	return over > under ? over : under;
}

/* ---- down ------------------------------------------------------------------------------------ */

/* The highest ceiling above which pinned blocks take at least `bytes`. The directory is read without
 * the lock: what comes and goes meanwhile is told by the next look. */
static uint64_t ceiling_for(struct store *s, uint64_t bytes)
{
	cleanup_free uint64_t *bins = calloc(BINS, sizeof(*bins));
	const struct directory *d = s->directory;
	struct directory_entry e;
	size_t bin = BINS;

	if (!bins)
		return atomic_load(&s->ceiling.hash);
	for (uint32_t slot = 0; slot < directory_slots(d); slot++) {
		if (directory_at(d, slot, &e) && entry_class(&e) == CLASS_PINNED)
			bins[block_pin_hash(&e.id) >> (64 - BIN_BITS)] +=
				(uint64_t)pages_of(e.len) * STORE_PAGE_BYTES;
	}
	for (uint64_t found = 0; bin > 0 && found < bytes;)
		found += bins[--bin];
	return bin ? (uint64_t)bin << (64 - BIN_BITS) : 1;
}

static void drop_unpinned(struct store *s, struct dataset *ds, struct directory_entry *e, void *arg)
{
	(void)arg;
	if (entry_class(e) == CLASS_PINNED && block_pin_hash(&e->id) >= threshold_locked(s, ds))
		drop_slot_locked(s, e);
}

static void ceiling_lower(struct store *s, uint64_t bytes, const char *why)
{
	struct pin_ceiling *c = &s->ceiling;
	uint64_t hash = ceiling_for(s, bytes), before = atomic_load(&c->hash);
	struct error err = ERROR_INIT;

	if (hash >= before)
		return;
	/* Before anything is dropped, so that it does not come back meanwhile. */
	mutex_lock(&s->mu);
	atomic_store(&c->hash, hash);
	mutex_unlock(&s->mu);
	log_info("%s: %s: pins blocks up to %.2f %% of the hashes, not %.2f %%", s->dir, why,
		100 * ((double)hash / (double)PIN_ALL), 100 * ((double)before / (double)PIN_ALL));
	if (blocks_walk(s, NULL, drop_unpinned, NULL, &err) < 0)
		log_warn("%s: not everything above the ceiling is dropped yet: %s", s->dir,
			err.text);
	/* Once for each rise. */
	if (c->raised_ticks < 4 * PIN_RAISE_TICKS << c->backoff && c->backoff < BACKOFF_MAX)
		c->backoff++;
	c->raised_ticks = LONG_AGO;
}

/* Elastic blocks and fillers, until what was dropped covers the shortage; what lacks then. */
static uint64_t drop_others(struct store *s)
{
	struct error err = ERROR_INIT;
	uint64_t shortage;
	bool more = true;

	do {
		mutex_guard(&s->mu);
		if (wait_for_commit_locked(s, &err) < 0)
			return 0;
		for (unsigned i = 0; more && i < DROPS_AT_ONCE && shortage_locked(s) > 0; i++)
			more = drop_unpinned_one_locked(s);
		shortage = shortage_locked(s);
		more = more && !s->ceiling.stopping;
	} while (more && shortage > 0);
	return shortage;
}

/* ---- up -------------------------------------------------------------------------------------- */

/* What a ceiling may rise to with so much room; `hash` where it has to stay. Hashes are uniform, so
 * what is pinned below says what there is above. */
static uint64_t raised(uint64_t hash, const struct sums *sums, uint64_t room, uint64_t step)
{
	double pinned = (double)sums->pinned_bytes, least = (double)PIN_ALL / STEP_SHARE;
	double left, to;

	if (sums->threshold <= hash)
		return PIN_ALL;
	left = pinned * ((double)sums->threshold / (double)hash - 1);
	if (pinned > 0 && left + (double)step / 2 < (double)room)
		return PIN_ALL;
	if (room <= 2 * step)
		return hash;
	to = (double)hash * (1 + (pinned > 0 ? (double)(room - step) / 2 / pinned : 1));
	if (to < least)
		to = least;
	return to >= (double)PIN_ALL ? PIN_ALL : (uint64_t)to;
}

static void ceiling_raise(struct store *s, const struct sums *sums, uint64_t room)
{
	struct pin_ceiling *c = &s->ceiling;
	uint64_t before = atomic_load(&c->hash);
	uint64_t hash = raised(before, sums, room, step_bytes(s));
	struct error err = ERROR_INIT;

	if (hash <= before)
		return;
	mutex_lock(&s->mu);
	atomic_store(&c->hash, hash);
	mutex_unlock(&s->mu);
	log_info("%s: there is room: pins blocks up to %.2f %% of the hashes, not %.2f %%", s->dir,
		100 * ((double)hash / (double)PIN_ALL), 100 * ((double)before / (double)PIN_ALL));
	/* What is here as a filler is pinned at once. */
	if (blocks_walk(s, NULL, plan_promote, NULL, &err) < 0)
		log_warn(
			"%s: not everything below the ceiling is pinned yet: %s", s->dir, err.text);
	c->raised_ticks = 0;
}

/* ---- the look -------------------------------------------------------------------------------- */

static void quiet_begin(struct pin_ceiling *c, uint64_t pinned_bytes)
{
	c->quiet_ticks = 0;
	c->quiet_pinned_bytes = pinned_bytes;
}

/* After a quiet time. */
static void consider_raise(struct store *s, const struct sums *sums, uint64_t room)
{
	struct pin_ceiling *c = &s->ceiling;
	uint64_t step = step_bytes(s);
	bool grows = sums->pinned_bytes > c->quiet_pinned_bytes + step / 2;

	if (++c->quiet_ticks < PIN_RAISE_TICKS << c->backoff)
		return;
	if (atomic_load(&c->hash) == PIN_ALL)
		c->backoff = 0;
	else if (!grows)
		ceiling_raise(s, sums, room);
	quiet_begin(c, sums->pinned_bytes);
}

static void look(struct store *s)
{
	struct pin_ceiling *c = &s->ceiling;
	uint64_t shortage, refused, room, coming, committed;
	struct sums sums;
	bool failing, same;

	mutex_lock(&s->mu);
	committed = s->commit.done;
	mutex_unlock(&s->mu);
	floor_look(s);
	mutex_lock(&s->mu);
	/* What a commit freed in between is in neither number. */
	same = committed == s->commit.done;
	failing = s->degraded_until_ms && !clock_passed(s->degraded_until_ms);
	shortage = shortage_locked(s);
	sums = sums_locked(s);
	coming = coming_bytes_locked(s);
	room = room_locked(s) + sums.other_bytes;
	refused = c->refused;
	c->refused = 0;
	mutex_unlock(&s->mu);
	c->raised_ticks += c->raised_ticks < LONG_AGO;
	/* A disk that fails is not full. */
	if (!same || failing)
		return;
	c->short_ticks = shortage ? c->short_ticks + 1 : 0;
	if (c->short_ticks >= PIN_SHORT_TICKS) {
		c->short_ticks = 0;
		shortage = drop_others(s);
		if (shortage)
			ceiling_lower(s, shortage + step_bytes(s) / 2, "the disk is short of room");
		quiet_begin(c, sums.pinned_bytes);
	} else if (refused && room + coming < step_bytes(s)) {
		ceiling_lower(s, step_bytes(s), "what is to be pinned does not fit");
		quiet_begin(c, sums.pinned_bytes);
	} else if (refused || shortage) {
		quiet_begin(c, sums.pinned_bytes);
	} else {
		consider_raise(s, &sums, room);
	}
}

static void *ceiling_main(void *arg)
{
	struct store *s = arg;

	pthread_setname_np(pthread_self(), "store-ceiling");
	mutex_lock(&s->mu);
	while (!s->ceiling.stopping) {
		int64_t next = clock_deadline_ms(s->ceiling.tick_ms);

		while (!s->ceiling.stopping && !clock_passed(next))
			cond_wait(&s->ceiling.changed, &s->mu, next);
		if (s->ceiling.stopping)
			break;
		mutex_unlock(&s->mu);
		look(s);
		mutex_lock(&s->mu);
	}
	mutex_unlock(&s->mu);
	return NULL;
}

int pin_ceiling_start(struct store *s, struct error *err)
{
	int r;

	s->ceiling.raised_ticks = LONG_AGO;
	r = pthread_create(&s->ceiling.thread, NULL, ceiling_main, s);
	if (r != 0)
		return error_set_errno(err, -r, "cannot start a thread of the store");
	s->ceiling.started = true;
	return 0;
}

void pin_ceiling_stop(struct store *s)
{
	if (!s->ceiling.started)
		return;
	mutex_lock(&s->mu);
	s->ceiling.stopping = true;
	cond_broadcast(&s->ceiling.changed);
	mutex_unlock(&s->mu);
	pthread_join(s->ceiling.thread, NULL);
	s->ceiling.started = false;
}

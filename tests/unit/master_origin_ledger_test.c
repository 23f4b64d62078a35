/* Workers, mounts and masters whose messages are late or lost, that are cut off, killed and started
 * anew: at no time do they have more of the limit than there is. By a clock of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "master/origin_ledger.h"

#define LIMIT 1e8
#define WORKERS 5
#define MOUNTS 6
#define HOLDERS (WORKERS + MOUNTS)
#define STEP_MS 20
#define BEAT_MS 1000
#define TIMEOUT_MS 3000
#define BEGIN_MS ((int64_t)1000000)

/* A worker or a mount, with the heartbeat that is under way. All in parts of the limit. */
struct holder {
	struct worker worker;
	struct mount_peer mount;
	bool is_worker, known, dead;
	double part, base;
	int64_t until_ms, base_until_ms; /* by its clock, which is that of all */
	int64_t cut_until_ms;		 /* off from the master */

	bool asked, answered;
	int64_t asked_ms, arrives_ms, returns_ms, next_ms;
	double said, said_base; /* when it asked */
	double told, told_base;
	uint64_t lease_ms, base_ms;
};

struct world {
	struct master m;
	struct dataset d;
	struct holder h[HOLDERS];
	int64_t now_ms;
	unsigned seed;
	bool rough; /* messages are lost, and the rest */
	double most;
};

static unsigned dice(struct world *w, unsigned sides)
{
	return (unsigned)rand_r(&w->seed) % sides;
}

static double in_force(const struct holder *h, int64_t now_ms)
{
	if (h->dead || now_ms >= h->base_until_ms)
		return 0;
	return now_ms >= h->until_ms ? h->base : h->part;
}

static void check(struct world *w)
{
	double sum = 0;

	for (int i = 0; i < HOLDERS; i++)
		sum += in_force(&w->h[i], w->now_ms);
	if (sum > 1 + 1e-9)
		fail_msg("seed %u: %g of the limit after %lld ms", w->seed, sum,
			(long long)(w->now_ms - BEGIN_MS));
	w->most = sum > w->most ? sum : w->most;
}

/* ---- the master ------------------------------------------------------------------------------- */

static void know(struct world *w, struct holder *h)
{
	if (!h->is_worker && !h->mount.live) {
		h->mount.live = true;
		w->m.mounts.live++;
	}
	if (h->known)
		return;
	h->known = true;
	if (h->is_worker) {
		w->m.ledger.summed_ms = 0;
		HASH_ADD(hh, w->m.workers.by_id, id, sizeof(h->worker.id), &h->worker);
		return;
	}
	HASH_ADD(hh, w->m.mounts.by_id, id, sizeof(h->mount.id), &h->mount);
}

static void hear(struct world *w, struct holder *h)
{
	Granary__V1__OriginLease lease;
	Granary__V1__DirectShare direct;
	bool settled;

	know(w, h);
	if (h->is_worker) {
		assert_true(origin_ledger_worker_locked(
			&w->m, &h->worker, h->said, h->said_base, w->now_ms, &lease, &settled));
		h->told = lease.part;
		h->told_base = lease.base_part;
		h->lease_ms = lease.lease_ms;
		h->base_ms = lease.base_ms;
		return;
	}
	assert_true(origin_ledger_direct_locked(&w->m, &h->mount, &w->d, h->said * LIMIT,
		h->said_base * LIMIT, w->now_ms, &direct));
	h->told = direct.bytes_per_s / LIMIT;
	h->told_base = direct.base_bytes_per_s / LIMIT;
	h->lease_ms = direct.lease_ms;
	h->base_ms = direct.base_ms;
}

/* Another master, with what is in the database. */
static void restart_master(struct world *w)
{
	w->m.mounts.live = 0;
	w->m.started_ms = w->now_ms;
	w->m.ledger.summed_ms = 0;
	for (int i = 0; i < HOLDERS; i++) {
		struct holder *h = &w->h[i];
		struct origin_hold *hold = h->is_worker ? &h->worker.origins : &h->mount.direct;

		h->mount.live = false;
		if (h->known)
			*hold = (struct origin_hold){
				.most = hold->most, .base = hold->base, .heard_ms = w->now_ms};
	}
}

/* ---- holders ---------------------------------------------------------------------------------- */

static void ask(struct world *w, struct holder *h)
{
	h->asked = true;
	h->answered = false;
	h->asked_ms = w->now_ms;
	h->arrives_ms = w->now_ms + (w->rough ? dice(w, 1200) : 5);
	h->said = in_force(h, w->now_ms);
	h->said_base = h->base < h->said ? h->base : h->said;
}

static bool reaches(struct world *w, const struct holder *h)
{
	return w->now_ms >= h->cut_until_ms && !(w->rough && dice(w, 8) == 0);
}

static void arrive(struct world *w, struct holder *h)
{
	h->arrives_ms = INT64_MAX;
	if (!reaches(w, h))
		return;
	hear(w, h);
	h->answered = reaches(w, h);
	h->returns_ms = w->now_ms + (w->rough ? dice(w, 1200) : 5);
}

static void take(struct holder *h)
{
	h->asked = false;
	h->next_ms = h->asked_ms + BEAT_MS;
	h->part = h->told;
	h->base = h->told_base;
	h->until_ms = h->asked_ms + (int64_t)h->lease_ms;
	h->base_until_ms = h->asked_ms + (int64_t)h->base_ms;
}

static void act(struct world *w, struct holder *h)
{
	if (h->asked && w->now_ms >= h->arrives_ms)
		arrive(w, h);
	/* Who is dead by now may have been heard. */
	if (h->dead)
		return;
	if (!h->asked && w->now_ms >= h->next_ms)
		ask(w, h);
	else if (h->asked && h->answered && w->now_ms >= h->returns_ms)
		take(h);
	else if (h->asked && w->now_ms >= h->asked_ms + TIMEOUT_MS)
		h->asked = false;
}

static void shake(struct world *w)
{
	struct holder *h = &w->h[dice(w, HOLDERS)];

	switch (dice(w, 150)) {
	case 0:
		h->cut_until_ms = w->now_ms + dice(w, 60000);
		break;
	case 1:
		h->dead = true;
		break;
	case 2:
	case 3:
		/* A new process has nothing, and its predecessor's call is of no use to it. */
		if (h->dead) {
			h->dead = h->asked = false;
			h->part = h->base = 0;
		}
		break;
	case 4:
		if (dice(w, 4) == 0)
			restart_master(w);
		break;
	default:
		break;
	}
}

static void run(struct world *w, int64_t ms)
{
	for (int64_t end_ms = w->now_ms + ms; w->now_ms < end_ms; w->now_ms += STEP_MS) {
		if (w->rough)
			shake(w);
		for (int i = 0; i < HOLDERS; i++) {
			act(w, &w->h[i]);
			check(w);
		}
	}
}

static struct world *world_new(unsigned seed, int workers)
{
	struct world *w = calloc(1, sizeof(*w));

	w->now_ms = w->m.started_ms = BEGIN_MS;
	w->seed = seed;
	w->m.cluster.origins.bytes_per_s = (uint64_t)LIMIT;
	w->m.cluster.other_bytes_per_s = LIMIT;
	w->m.cluster.others = MOUNTS;
	w->d.id = 1;
	HASH_ADD(by_id, w->m.datasets.by_id, id, sizeof(w->d.id), &w->d);
	for (int i = 0; i < HOLDERS; i++) {
		struct holder *h = &w->h[i];

		h->is_worker = i < WORKERS;
		h->dead = h->is_worker && i >= workers;
		h->next_ms = BEGIN_MS + dice(w, BEAT_MS);
		h->worker.id = (uint64_t)i + 1;
		h->worker.capacity_bytes = (uint64_t)(i + 1) << 30;
		h->mount.id = (uint64_t)i + 1;
		h->mount.dataset_id = 1;
	}
	return w;
}

static void world_free(struct world *w)
{
	HASH_CLEAR(hh, w->m.workers.by_id);
	HASH_CLEAR(hh, w->m.mounts.by_id);
	HASH_CLEAR(by_id, w->m.datasets.by_id);
	free(w);
}

static double sum_of(const struct world *w, bool workers)
{
	double sum = 0;

	for (int i = 0; i < HOLDERS; i++)
		if (w->h[i].is_worker == workers)
			sum += in_force(&w->h[i], w->now_ms);
	return sum;
}

/* ---- what holds ------------------------------------------------------------------------------- */

static void the_limit_holds_whatever_happens_and_is_used_again_afterwards(void **state)
{
	double most = 0;

	(void)state;
	for (unsigned seed = 1; seed <= 200; seed++) {
		struct world *w = world_new(seed, (int)(seed % (WORKERS + 1)));

		w->rough = true;
		run(w, 240000);
		most = w->most > most ? w->most : most;
		w->rough = false;
		for (int i = 0; i < HOLDERS; i++) {
			w->h[i].cut_until_ms = 0;
			if (w->h[i].dead) {
				w->h[i].dead = w->h[i].asked = false;
				w->h[i].part = w->h[i].base = 0;
			}
		}
		run(w, 20000);
		if (sum_of(w, true) < 0.98 || sum_of(w, false) < 0.0099)
			fail_msg("seed %u: workers have %g, mounts %g", seed, sum_of(w, true),
				sum_of(w, false));
		world_free(w);
	}
	assert_true(most > 0.98);
}

static void one_that_dies_leaves_half_of_its_part_in_seconds_and_the_rest_later(void **state)
{
	struct world *w = world_new(1, 2);
	double all;

	(void)state;
	run(w, 20000);
	all = w->h[0].part + w->h[1].part;
	assert_true(all > 0.989);
	w->h[1].dead = true;
	run(w, 8000);
	assert_true(w->h[0].part > all - all * 2 / 3 / 2 - 0.001);
	run(w, 600000);
	assert_true(w->h[0].part > 0.989);
	world_free(w);
}

static void the_first_worker_has_its_part_when_mounts_have_less(void **state)
{
	struct world *w = world_new(1, 0);

	(void)state;
	run(w, 20000);
	assert_true(sum_of(w, false) > 0.99);
	w->h[0].dead = false;
	run(w, 5000);
	assert_true(w->h[0].part > 0.989);
	assert_true(sum_of(w, false) > 0.0099 && sum_of(w, false) < 0.0101);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_limit_holds_whatever_happens_and_is_used_again_afterwards),
		cmocka_unit_test(
			one_that_dies_leaves_half_of_its_part_in_seconds_and_the_rest_later),
		cmocka_unit_test(the_first_worker_has_its_part_when_mounts_have_less),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

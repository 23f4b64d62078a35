#include "fuse/peers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"

void peer_set_unref(struct peer_set *set)
{
	if (!set || atomic_fetch_sub(&set->refs, 1) != 1)
		return;
	for (size_t i = 0; i < set->count; i++)
		peer_unref(set->peers[i]);
	free(set->peers);
	free(set->nodes);
	free(set);
}

static struct peer_set *set_new(size_t room)
{
	struct peer_set *set = calloc(1, sizeof(*set));

	if (!set)
		return NULL;
	atomic_init(&set->refs, 1);
	set->peers = calloc(room ? room : 1, sizeof(set->peers[0]));
	set->nodes = calloc(room ? room : 1, sizeof(set->nodes[0]));
	if (!set->peers || !set->nodes) {
		peer_set_unref(set);
		return NULL;
	}
	return set;
}

/* Takes over the reference. */
static void set_add(struct peer_set *set, struct peer *peer, double weight)
{
	set->peers[set->count] = peer;
	set->nodes[set->count] = (struct rendezvous_node){.id = peer->id, .weight = weight};
	set->count++;
}

static bool set_equal(const struct peer_set *a, const struct peer_set *b)
{
	if (a->count != b->count)
		return false;
	for (size_t i = 0; i < a->count; i++) {
		if (a->peers[i] != b->peers[i] || a->nodes[i].weight != b->nodes[i].weight)
			return false;
	}
	return true;
}

/* ---- from one list to the next ----------------------------------------------------------------
 */

/* The known one, or a new one; NULL: out of memory. Lists mostly stay as they are, so the search
 * begins where the worker stood last time. */
static struct peer *find_or_make(
	const struct peers *p, const struct peer_set *old, const struct peer_ref *ref, size_t hint)
{
	bool local = p->host_id[0] && !strcmp(p->host_id, ref->host_id);

	for (size_t i = 0; i < old->count; i++) {
		struct peer *peer = old->peers[(hint + i) % old->count];

		if (peer_is(peer, ref, local))
			return peer_ref(peer);
	}
	return peer_new(ref, local, p->token);
}

/* A worker without capacity is nobody's home, but must have some weight. */
static double weight_of(const struct peer_ref *ref)
{
	return ref->capacity_bytes ? (double)ref->capacity_bytes : 1;
}

static int add_named(const struct peers *p, struct peer_set *set, const struct peer_set *old,
	const struct peer_ref *refs, size_t count, int64_t now_ms)
{
	for (size_t i = 0; i < count; i++) {
		struct peer *peer = find_or_make(p, old, &refs[i], i);

		if (!peer)
			return -ENOMEM;
		peer->listed_ms = now_ms;
		set_add(set, peer, weight_of(&refs[i]));
	}
	return 0;
}

static void add_lingering(struct peer_set *set, const struct peer_set *old, int64_t now_ms)
{
	for (size_t i = 0; i < old->count && set->count < PEERS_MAX; i++) {
		struct peer *peer = old->peers[i];

		/* Whoever was named now has now_ms. */
		if (peer->listed_ms != now_ms && now_ms - peer->listed_ms < PEERS_LINGER_MS &&
			peer_is_good(peer))
			set_add(set, peer_ref(peer), old->nodes[i].weight);
	}
}

static struct peer_set *next_set(const struct peers *p, const struct peer_set *old,
	const struct peer_ref *refs, size_t count)
{
	int64_t now_ms = clock_mono_ms();
	struct peer_set *set;

	/* One more than the last time at least, so that "named now" can be told. */
	for (size_t i = 0; i < old->count; i++) {
		if (old->peers[i]->listed_ms >= now_ms)
			now_ms = old->peers[i]->listed_ms + 1;
	}
	set = set_new(count + old->count);
	if (!set)
		return NULL;
	if (add_named(p, set, old, refs, count, now_ms) < 0) {
		peer_set_unref(set);
		return NULL;
	}
	add_lingering(set, old, now_ms);
	return set;
}

int peers_update(struct peers *p, const struct peer_ref *refs, size_t count)
{
	struct peer_set *old = peers_get(p), *set;

	set = next_set(p, old, refs, count < PEERS_MAX ? count : PEERS_MAX);
	if (!set || set_equal(set, old)) {
		peer_set_unref(old);
		if (!set)
			return -ENOMEM;
		peer_set_unref(set);
		return 0;
	}
	mutex_lock(&p->mu);
	p->set = set;
	mutex_unlock(&p->mu);
	peer_set_unref(old); /* ours */
	peer_set_unref(old); /* the table's */
	return 0;
}

struct peer_set *peers_get(struct peers *p)
{
	mutex_guard(&p->mu);

	atomic_fetch_add(&p->set->refs, 1);
	return p->set;
}

/* ---- begin and end ----------------------------------------------------------------------------
 */

int peers_init(struct peers *p, const char *host_id, const char *token, struct error *err)
{
	memset(p, 0, sizeof(*p));
	strncpy(p->host_id, host_id, sizeof(p->host_id) - 1);
	p->token = token ? strdup(token) : NULL;
	p->set = set_new(0);
	if (!p->set || (token && !p->token)) {
		peer_set_unref(p->set);
		free(p->token);
		return error_set(err, -ENOMEM, "out of memory");
	}
	mutex_init(&p->mu);
	return 0;
}

void peers_deinit(struct peers *p)
{
	peer_set_unref(p->set);
	mutex_deinit(&p->mu);
	free(p->token);
}

#define LOG_SUBSYSTEM "mount"
#include "fuse/peers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"

/* ---- one worker -------------------------------------------------------------------------------
 */

static void peer_unref(struct peer *p)
{
	if (!p || atomic_fetch_sub(&p->refs, 1) != 1)
		return;
	store_view_free(p->view);
	rpc_channel_free(p->channel);
	mutex_deinit(&p->mu);
	free(p->address);
	free(p->lease_socket);
	free(p);
}

static bool is_local(const struct peers *peers, const struct peer_ref *ref)
{
	return peers->host_id[0] && !strcmp(peers->host_id, ref->host_id);
}

static bool same(const struct peers *peers, const struct peer *p, const struct peer_ref *ref)
{
	return p->id == ref->id && p->local == is_local(peers, ref) &&
	       !strcmp(p->address, ref->address) && !strcmp(p->lease_socket, ref->lease_socket);
}

/* One without capacity is nobody's home, but must have some weight. */
static double weight(const struct peer_ref *ref)
{
	return ref->capacity_bytes ? (double)ref->capacity_bytes : 1;
}

static struct peer *peer_new(const struct peers *peers, const struct peer_ref *ref)
{
	struct peer *p = calloc(1, sizeof(*p));
	struct error err = ERROR_INIT;

	if (!p)
		return NULL;
	atomic_init(&p->refs, 1);
	mutex_init(&p->mu);
	p->id = ref->id;
	p->token = peers->token;
	p->local = is_local(peers, ref);
	p->address = strdup(ref->address);
	p->lease_socket = strdup(ref->lease_socket);
	if (!p->address || !p->lease_socket) {
		peer_unref(p);
		return NULL;
	}
	if (p->local && p->lease_socket[0]) {
		struct store_view_options opts = {.socket_path = p->lease_socket};

		/* Without a view everything goes through the worker: slower, and as right. */
		if (store_view_new(&opts, &p->view, &err) < 0) {
			log_warn("no local short circuit to %s: %s", p->lease_socket, err.text);
			p->view = NULL;
		}
	}
	return p;
}

struct rpc_channel *peer_channel(struct peer *p)
{
	struct error err = ERROR_INIT;
	mutex_guard(&p->mu);

	if (!p->channel && rpc_channel_new(p->address, p->token, &p->channel, &err) < 0) {
		log_warn("worker %s: %s", p->address, err.text);
		p->channel = NULL;
	}
	return p->channel;
}

bool peer_aside(struct peer *p)
{
	int64_t until_ms = atomic_load_explicit(&p->aside_until_ms, memory_order_relaxed);

	return until_ms != 0 && clock_mono_ms() < until_ms;
}

void peer_failed(struct peer *p)
{
	unsigned failures = atomic_fetch_add(&p->failures, 1);
	int64_t wait_ms = PEER_BACKOFF_MIN_MS;

	for (; failures > 0 && wait_ms < PEER_BACKOFF_MAX_MS; failures--)
		wait_ms *= 2;
	if (wait_ms > PEER_BACKOFF_MAX_MS)
		wait_ms = PEER_BACKOFF_MAX_MS;
	atomic_store(&p->aside_until_ms, clock_deadline_ms(wait_ms));
}

void peer_answered(struct peer *p)
{
	if (atomic_load_explicit(&p->failures, memory_order_relaxed) == 0)
		return;
	atomic_store(&p->failures, 0);
	atomic_store(&p->aside_until_ms, 0);
}

/* ---- sets -------------------------------------------------------------------------------------
 */

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

static struct peer *carry_over(
	const struct peers *p, const struct peer_set *old, const struct peer_ref *ref)
{
	for (size_t i = 0; i < old->count; i++) {
		if (same(p, old->peers[i], ref)) {
			atomic_fetch_add(&old->peers[i]->refs, 1);
			return old->peers[i];
		}
	}
	return NULL;
}

static bool unchanged(const struct peers *p, const struct peer_set *set,
	const struct peer_ref *refs, size_t count)
{
	if (set->count != count)
		return false;
	for (size_t i = 0; i < count; i++) {
		if (!same(p, set->peers[i], &refs[i]) || set->nodes[i].weight != weight(&refs[i]))
			return false;
	}
	return true;
}

int peers_update(struct peers *p, const struct peer_ref *refs, size_t count)
{
	struct peer_set *old = peers_get(p), *set;
	int r = 0;

	if (count > PEERS_MAX)
		count = PEERS_MAX;
	if (unchanged(p, old, refs, count)) {
		peer_set_unref(old);
		return 0;
	}
	set = set_new(count);
	for (size_t i = 0; set && r == 0 && i < count; i++) {
		struct peer *peer = carry_over(p, old, &refs[i]);

		if (!peer)
			peer = peer_new(p, &refs[i]);
		if (!peer) {
			r = -ENOMEM;
			break;
		}
		set->peers[set->count] = peer;
		set->nodes[set->count] = (struct rendezvous_node){
			.id = peer->id,
			.weight = weight(&refs[i]),
		};
		set->count++;
	}
	peer_set_unref(old);
	if (!set || r < 0) {
		peer_set_unref(set);
		return -ENOMEM;
	}
	mutex_lock(&p->mu);
	old = p->set;
	p->set = set;
	mutex_unlock(&p->mu);
	peer_set_unref(old);
	return 0;
}

struct peer_set *peers_get(struct peers *p)
{
	mutex_guard(&p->mu);

	atomic_fetch_add(&p->set->refs, 1);
	return p->set;
}

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

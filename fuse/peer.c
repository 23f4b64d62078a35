#define LOG_SUBSYSTEM "mount"
#include "fuse/peer.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"

struct peer *peer_ref(struct peer *p)
{
	atomic_fetch_add(&p->refs, 1);
	return p;
}

void peer_unref(struct peer *p)
{
	if (!p || atomic_fetch_sub(&p->refs, 1) != 1)
		return;
	store_view_free(p->view);
	for (size_t i = 0; i < PEER_CHANNELS; i++)
		rpc_channel_free(p->channels[i]);
	mutex_deinit(&p->mu);
	free(p->address);
	free(p->lease_socket);
	free(p);
}

bool peer_is(const struct peer *p, const struct peer_ref *ref, bool local)
{
	return p->id == ref->id && p->local == local && !strcmp(p->address, ref->address) &&
	       !strcmp(p->lease_socket, ref->lease_socket);
}

struct peer *peer_new(const struct peer_ref *ref, bool local, const char *token)
{
	struct peer *p = calloc(1, sizeof(*p));
	struct error err = ERROR_INIT;

	if (!p)
		return NULL;
	atomic_init(&p->refs, 1);
	mutex_init(&p->mu);
	p->id = ref->id;
	p->token = token;
	p->local = local;
	p->address = strdup(ref->address);
	p->lease_socket = strdup(ref->lease_socket);
	if (!p->address || !p->lease_socket) {
		peer_unref(p);
		return NULL;
	}
	if (local && p->lease_socket[0]) {
		struct store_view_options opts = {.socket_path = p->lease_socket};

		/* Without a view everything goes through the worker: slower, and as right. */
		if (store_view_new(&opts, &p->view, &err) < 0) {
			log_warn("no local short circuit to %s: %s", p->lease_socket, err.text);
			p->view = NULL;
		}
	}
	return p;
}

int peer_view_read(
	struct peer *p, const struct store_block *b, uint32_t offset, uint32_t len, void *dst)
{
	int64_t began_ms;
	int r;

	if (!p->view)
		return STORE_MISS;
	began_ms = clock_mono_ms();
	if (began_ms < atomic_load_explicit(&p->view_shunned_ms, memory_order_relaxed))
		return STORE_MISS;
	r = store_view_read(p->view, b, offset, len, dst);
	if (r != 0 && clock_mono_ms() - began_ms >= PEER_VIEW_SLOW_MS)
		atomic_store(&p->view_shunned_ms, clock_deadline_ms(PEER_VIEW_SHUN_MS));
	return r;
}

struct rpc_channel *peer_channel(struct peer *p)
{
	unsigned turn = atomic_fetch_add_explicit(&p->next_channel, 1, memory_order_relaxed);
	struct rpc_channel **channel = &p->channels[turn % PEER_CHANNELS];
	struct error err = ERROR_INIT;
	mutex_guard(&p->mu);

	if (!*channel && rpc_channel_new(p->address, p->token, channel, &err) < 0) {
		log_warn("worker %s: %s", p->address, err.text);
		*channel = NULL;
	}
	return *channel;
}

enum peer_state peer_ask(struct peer *p)
{
	int64_t until_ms = atomic_load_explicit(&p->aside_until_ms, memory_order_relaxed);

	if (until_ms == 0)
		return PEER_GOOD;
	if (!clock_passed(until_ms))
		return PEER_ASIDE;
	/* Whoever moves the time on is the one. Should it be interrupted, the next has its turn. */
	if (atomic_compare_exchange_strong(
		    &p->aside_until_ms, &until_ms, clock_deadline_ms(PEER_PROBE_MS)))
		return PEER_PROBE;
	return PEER_ASIDE;
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

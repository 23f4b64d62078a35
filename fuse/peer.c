#define LOG_SUBSYSTEM "mount"
#include "fuse/peer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/unix_socket.h"

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
	for (size_t i = 0; i < PEER_LINES; i++)
		peer_line_deinit(&p->lines[i]);
	mutex_deinit(&p->mu);
	free(p->address);
	free(p->lease_socket);
	free(p->socket);
	free(p->socket_identity);
	free(p);
}

/* Another container of this host may have a socket of its own at the same path. */
static bool socket_reachable(const struct peer_ref *ref)
{
	char identity[UNIX_SOCKET_IDENTITY_BYTES];
	const char *path;

	if (strncmp(ref->local_address, "unix:", strlen("unix:")) != 0)
		return false;
	path = ref->local_address + strlen("unix:");
	return unix_socket_identity(path, identity) == 0 &&
	       !strcmp(identity, ref->local_identity) &&
	       faccessat(AT_FDCWD, path, R_OK | W_OK, AT_EACCESS) == 0;
}

/* Whether it is reached as one that was made now would be. One that came by a socket goes on doing
 * so while the worker starts anew. */
static bool same_way(const struct peer *p, const struct peer_ref *ref)
{
	if (p->socket[0])
		return !strcmp(p->socket, ref->local_address) &&
		       !strcmp(p->socket_identity, ref->local_identity);
	return !p->local || !socket_reachable(ref);
}

bool peer_is(const struct peer *p, const struct peer_ref *ref, bool local)
{
	return p->id == ref->id && p->local == local && !strcmp(p->address, ref->address) &&
	       !strcmp(p->lease_socket, ref->lease_socket) && same_way(p, ref);
}

const char *peer_address(const struct peer *p)
{
	return p->socket[0] ? p->socket : p->address;
}

struct peer *peer_new(const struct peer_ref *ref, bool local, const char *token)
{
	struct peer *p = calloc(1, sizeof(*p));
	struct error err = ERROR_INIT;
	bool by_socket = local && socket_reachable(ref);

	if (!p)
		return NULL;
	atomic_init(&p->refs, 1);
	mutex_init(&p->mu);
	p->id = ref->id;
	p->token = token;
	p->local = local;
	p->address = strdup(ref->address);
	p->lease_socket = strdup(ref->lease_socket);
	p->socket = strdup(by_socket ? ref->local_address : "");
	p->socket_identity = strdup(by_socket ? ref->local_identity : "");
	if (!p->address || !p->lease_socket || !p->socket || !p->socket_identity) {
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

int peer_view_read(struct peer *p, const struct store_block *b, uint32_t offset, uint32_t len,
	void *dst, size_t room)
{
	int64_t began_ms;
	int r;

	if (!p->view)
		return STORE_MISS;
	began_ms = clock_mono_ms();
	if (began_ms < atomic_load_explicit(&p->view_shunned_ms, memory_order_relaxed))
		return STORE_MISS;
	r = store_view_read(p->view, b, offset, len, dst, room);
	if (r != 0 && clock_mono_ms() - began_ms >= PEER_VIEW_SLOW_MS)
		atomic_store(&p->view_shunned_ms, clock_deadline_ms(PEER_VIEW_SHUN_MS));
	return r;
}

int peer_view_whole(struct peer *p, const struct object_id *object, uint64_t object_bytes,
	struct store_whole **ret)
{
	int64_t began_ms = clock_mono_ms();
	int r;

	if (!p->view || began_ms < atomic_load(&p->view_shunned_ms))
		return STORE_MISS;
	r = store_view_whole(p->view, object, object_bytes, ret);
	if (r != 0 && clock_mono_ms() - began_ms >= PEER_VIEW_SLOW_MS)
		atomic_store(&p->view_shunned_ms, clock_deadline_ms(PEER_VIEW_SHUN_MS));
	if (r == -EOPNOTSUPP && !atomic_exchange(&p->told_no_whole, true))
		log_warn("no passthrough to the store of worker %s: its cache directory is on a "
			 "file system that does not tell who has a file open (no leases)",
			peer_address(p));
	return r;
}

static struct peer_line *line_at(struct peer *p, unsigned i)
{
	struct peer_line *l = &p->lines[i];
	struct error err = ERROR_INIT;
	mutex_guard(&p->mu);

	if (!l->channel && peer_line_init(l, peer_address(p), p->token, &err) < 0) {
		log_warn("worker %s: %s", peer_address(p), err.text);
		return NULL;
	}
	return l;
}

struct peer_line *peer_line(struct peer *p)
{
	unsigned turn = atomic_fetch_add_explicit(&p->next_line, 1, memory_order_relaxed);

	return line_at(p, turn % PEER_LINES);
}

/* ---- a worker that wants a token ---------------------------------------------------------------
 */

bool peer_refuses(struct peer *p)
{
	enum peer_admission was = atomic_load(&p->admission);
	struct peer_line *line;
	int r;

	if (was != PEER_UNKNOWN)
		return was == PEER_REFUSES;
	line = peer_line(p);
	r = line ? peer_line_ask(line) : -EAGAIN;
	if (r == -EAGAIN || r == -ETIMEDOUT)
		return false;
	if (!atomic_compare_exchange_strong(
		    &p->admission, &was, r == -EACCES ? PEER_REFUSES : PEER_ADMITS) ||
		r != -EACCES)
		return r == -EACCES;
	log_warn("the worker at %s refuses this mount, which reads the origin past it, uncached: "
		 "mount with --token-file and the file that the worker has%s",
		p->address,
		p->local ? ", or as the worker's user, who reaches it by its socket" : "");
	return true;
}

/* ---- one that is silent, one that fails --------------------------------------------------------
 */

void peer_went_silent(struct peer *p, const char *why)
{
	atomic_store(&p->silent_since_ms, clock_mono_ms());
	if (!atomic_exchange(&p->silent, true))
		log_warn("worker %s is left aside until it answers: %s", peer_address(p), why);
}

static void speaks(struct peer *p)
{
	if (atomic_exchange(&p->silent, false))
		log_info("worker %s answers again", peer_address(p));
}

static bool still_silent(struct peer *p)
{
	struct peer_line *line;

	if (!atomic_load_explicit(&p->silent, memory_order_relaxed))
		return false;
	line = line_at(p, 0);
	if (!line || peer_line_look(line, atomic_load(&p->silent_since_ms)) != PEER_LINE_ALIVE)
		return true;
	speaks(p);
	return false;
}

enum peer_state peer_ask(struct peer *p)
{
	int64_t until_ms = atomic_load_explicit(&p->aside_until_ms, memory_order_relaxed);

	if (still_silent(p))
		return PEER_ASIDE;
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
	if (atomic_load_explicit(&p->admission, memory_order_relaxed) == PEER_REFUSES)
		atomic_store(&p->admission, PEER_UNKNOWN);
	if (atomic_load_explicit(&p->silent, memory_order_relaxed))
		speaks(p);
	if (atomic_load_explicit(&p->failures, memory_order_relaxed) == 0)
		return;
	atomic_store(&p->failures, 0);
	atomic_store(&p->aside_until_ms, 0);
}

bool peer_is_good(const struct peer *p)
{
	return atomic_load(&p->failures) == 0 && !atomic_load(&p->silent);
}

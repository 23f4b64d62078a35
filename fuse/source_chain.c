#define LOG_SUBSYSTEM "mount"
#include "fuse/source_chain.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "fuse/fs.h"
#include "granary/v1/block.pb-c.h"

#define READ_PATH "/granary.v1.BlockService/Read"
#define PREFETCH_PATH "/granary.v1.BlockService/Prefetch"
#define CACHED_PATH "/granary.v1.BlockService/Cached"
#define CHUNK_DATA_FIELD 2
#define WORKERS_TRIED 3
/* The worker keeps to the deadline by itself; this is for one that does not answer. */
#define DEADLINE_GRACE_MS 300
#define AGAIN_PAUSE_MS 100
#define WAIT_TOLD_MAX_MS 60000u /* at once; a worker tells several times a second */
#define CACHED_ASKED_MAX 64	/* workers asked how much they hold of a large file */

static struct source_chain *chain(struct block_source *s)
{
	return (struct source_chain *)s;
}

/* ---- the store on this host --------------------------------------------------------------------
 */

static struct store_block store_block(const struct block_file *file, uint64_t index)
{
	const struct manifest_entry *e = file->entry;

	return (struct store_block){
		.id = block_id_make(&e->object, index),
		.dataset_id = manifest_info(file->manifest)->dataset_id,
		.object = e->object,
		.object_bytes = e->size,
		.index = index,
		.len = (uint32_t)block_len(e->size, index),
	};
}

static_assert(BLOCK_EXTRA_BYTES >= STORE_VIEW_EXTRA_BYTES, "room for a slot of the store");

static int chain_read_local(struct block_source *s, const struct block_range *range)
{
	struct peer_set *set = peers_get(chain(s)->peers);
	int r = BLOCK_SOURCE_MISS;
	struct store_block block;
	bool made = false;

	for (size_t i = 0; r != 0 && i < set->count; i++) {
		if (!set->peers[i]->view)
			continue;
		if (!made)
			block = store_block(range->file, range->block);
		made = true;
		if (peer_view_read(set->peers[i], &block, range->offset, range->len, range->dst,
			    range->room) == 0)
			r = 0;
	}
	peer_set_unref(set);
	return r;
}

/* ---- a whole file of it ------------------------------------------------------------------------
 */

struct chain_whole {
	struct block_whole whole; /* first */
	struct peer *peer;
	struct store_whole *held;
	uint64_t dataset_id;
	struct object_id object;
};

static struct chain_whole *chain_whole_of(struct block_whole *w)
{
	return (struct chain_whole *)w;
}

/* Has the damaged block read in the common way, which reports it. */
static void report_damage(struct chain_whole *w, uint64_t block, void *buffer)
{
	struct store_block b = {
		.id = block_id_make(&w->object, block),
		.dataset_id = w->dataset_id,
		.object = w->object,
		.object_bytes = w->whole.bytes,
		.index = block,
		.len = (uint32_t)block_len(w->whole.bytes, block),
	};

	log_warn("a large file is not passed through: block %lu of it is damaged in the store",
		(unsigned long)block);
	for (uint32_t at = 0; at < b.len; at += BLOCK_CHECK_BYTES)
		peer_view_read(w->peer, &b, at,
			b.len - at < BLOCK_CHECK_BYTES ? b.len - at : BLOCK_CHECK_BYTES, buffer,
			READ_MAX_BYTES);
}

static int chain_whole_verify(struct block_whole *whole, void *buffer, bool past_page_cache,
	bool (*goes_on)(void *arg), void *arg)
{
	struct chain_whole *w = chain_whole_of(whole);
	struct store_whole_check check = {
		.object = w->object,
		.object_bytes = w->whole.bytes,
		.buffer = buffer,
		.buffer_bytes = READ_MAX_BYTES,
		.past_page_cache = past_page_cache,
		.goes_on = goes_on,
		.arg = arg,
	};
	uint64_t block = 0;
	int r = store_whole_verify(w->held, &check, &block);

	if (r == -EBADMSG)
		report_damage(w, block, buffer);
	return r;
}

static bool chain_whole_wanted_back(struct block_whole *w)
{
	return store_whole_wanted_back(chain_whole_of(w)->held);
}

static void chain_whole_close_fd(struct block_whole *w)
{
	store_whole_close_fds(chain_whole_of(w)->held);
	w->fd = -1;
}

static void chain_whole_free(struct block_whole *whole)
{
	struct chain_whole *w = chain_whole_of(whole);

	store_whole_free(w->held);
	peer_unref(w->peer);
	free(w);
}

static int whole_of_peer(struct peer *p, const struct block_file *file, struct block_whole **ret)
{
	const struct manifest_entry *e = file->entry;
	struct store_whole_key key;
	struct store_whole *held;
	struct chain_whole *w;

	if (peer_view_whole(p, &e->object, e->size, &held) != 0)
		return BLOCK_SOURCE_MISS;
	w = calloc(1, sizeof(*w));
	if (!w) {
		store_whole_free(held);
		return BLOCK_SOURCE_MISS;
	}
	key = store_whole_key(held);
	*w = (struct chain_whole){
		.whole = {.fd = store_whole_fd(held),
			.bytes = e->size,
			.key = {key.epoch, (uint64_t)key.file << 32 | key.generation},
			.verify = chain_whole_verify,
			.wanted_back = chain_whole_wanted_back,
			.close_fd = chain_whole_close_fd,
			.free = chain_whole_free},
		.peer = peer_ref(p),
		.held = held,
		.dataset_id = manifest_info(file->manifest)->dataset_id,
		.object = e->object,
	};
	*ret = &w->whole;
	return 0;
}

static int chain_whole(
	struct block_source *s, const struct block_file *file, struct block_whole **ret)
{
	struct peer_set *set = peers_get(chain(s)->peers);
	int r = BLOCK_SOURCE_MISS;

	for (size_t i = 0; r != 0 && i < set->count; i++) {
		if (set->peers[i]->view)
			r = whole_of_peer(set->peers[i], file, ret);
	}
	peer_set_unref(set);
	return r;
}

/* ---- a worker ----------------------------------------------------------------------------------
 */

/* One worker asked for a range. The deadline is ours, not the call's, since it moves: by what the
 * worker says that the read waits for its job's share of the origins' bandwidth. */
struct attempt {
	const struct block_range *range;
	const char *job;
	int64_t deadline_ms;
	struct read_cancel *cancel;
	uint32_t filled;
	bool fetched;
	/* of the call under way */
	uint64_t waited_us;
	bool again; /* the worker has no place for one who waits now */
};

static void attempt_waited(struct attempt *a, uint64_t ms)
{
	if (ms > WAIT_TOLD_MAX_MS)
		ms = WAIT_TOLD_MAX_MS;
	a->deadline_ms += (int64_t)ms;
	read_cancel_waited(a->cancel, (int64_t)ms);
}

static void take_head(struct attempt *a, const Granary__V1__ReadBlockChunk *head)
{
	if (head->source == GRANARY__V1__READ_BLOCK_CHUNK__SOURCE__SOURCE_ORIGIN)
		a->fetched = true;
	if (head->waited_us >= a->waited_us + 1000) {
		attempt_waited(a, (head->waited_us - a->waited_us) / 1000);
		a->waited_us = head->waited_us;
	}
	a->again = head->again;
}

/* Takes the chunks of one answer into dst. */
static int receive(
	struct attempt *a, struct peer_line *line, struct rpc_stream *stream, struct error *err)
{
	const struct block_range *range = a->range;

	for (;;) {
		Granary__V1__ReadBlockChunk *head = NULL;
		struct rpc_message *message;
		size_t len;
		int r = peer_line_next(
			line, stream, a->deadline_ms + DEADLINE_GRACE_MS, &message, err);

		if (r == RPC_STREAM_END)
			break;
		if (r < 0)
			return r;
		r = rpc_message_bytes(message, CHUNK_DATA_FIELD, range->dst + a->filled,
			range->len - a->filled, &len, &granary__v1__read_block_chunk__descriptor,
			(ProtobufCMessage **)&head);
		rpc_message_free(message);
		if (r < 0)
			return error_set(err, -EPROTO, "the answer makes no sense");
		a->filled += (uint32_t)len;
		take_head(a, head);
		protobuf_c_message_free_unpacked(&head->base, NULL);
	}
	if (a->filled < range->len && !a->again)
		return error_set(err, -EPROTO, "%u bytes came of %u", a->filled, range->len);
	return 0;
}

/* Until all has come, or the worker wants to be asked again. */
static int ask_once(struct attempt *a, struct peer *p, struct error *err)
{
	int64_t left_ms = clock_left_ms(a->deadline_ms);
	const struct block_range *range = a->range;
	const struct manifest_info *info = manifest_info(range->file->manifest);
	Granary__V1__ReadBlockRequest request = GRANARY__V1__READ_BLOCK_REQUEST__INIT;
	struct peer_line *line = peer_line(p);
	struct rpc_stream *stream;
	int r;

	if (!line)
		return error_set(err, -EAGAIN, "no way to reach it");
	if (left_ms == 0)
		return error_set(err, -ETIMEDOUT, "the deadline has passed");
	request.dataset_id = info->dataset_id;
	request.manifest_digest = (char *)info->digest;
	request.entry = range->file->index;
	request.block = range->block;
	request.offset = range->offset + a->filled;
	request.len = range->len - a->filled;
	request.read_ahead = range->read_ahead;
	request.job = (char *)a->job;
	request.timeout_ms = left_ms < UINT32_MAX ? (uint32_t)left_ms : UINT32_MAX;
	a->waited_us = 0;
	a->again = false;
	r = rpc_stream_open(line->channel, READ_PATH, &request.base, CLOCK_NEVER, &stream, err);
	if (r < 0)
		return r;
	r = read_cancel_attach(a->cancel, stream);
	if (r == 0) {
		r = receive(a, line, stream, err);
		read_cancel_detach(a->cancel);
	}
	rpc_stream_close(stream);
	return r;
}

/* It waits for its share, only not there: all of the time since `began_ms` that was not told of, with
 * the ways between here and there, is such a wait. */
static void pause_before_again(struct attempt *a, int64_t began_ms)
{
	const struct timespec pause = {.tv_nsec = AGAIN_PAUSE_MS * 1000000};
	int64_t told_ms = (int64_t)(a->waited_us / 1000), ms;

	nanosleep(&pause, NULL);
	ms = clock_mono_ms() - began_ms - told_ms;
	if (ms > 0)
		attempt_waited(a, (uint64_t)ms);
}

static int ask_peer(struct source_chain *c, struct peer *p, const struct block_range *range,
	int64_t deadline_ms, struct read_cancel *cancel, bool *ret_fetched, struct error *err)
{
	struct attempt a = {
		.range = range, .job = c->job, .deadline_ms = deadline_ms, .cancel = cancel};
	int64_t began_ms = clock_mono_ms();
	int r = ask_once(&a, p, err);

	while (r == 0 && a.filled < range->len && !atomic_load(&cancel->fired)) {
		pause_before_again(&a, began_ms);
		began_ms = clock_mono_ms();
		r = ask_once(&a, p, err);
	}
	*ret_fetched = a.fetched;
	return r == 0 && a.filled < range->len ? error_set(err, -ECANCELED, "called off") : r;
}

/* ---- the worker of this process ---------------------------------------------------------------- */

struct embedded_sink {
	const struct block_range *range;
	struct read_cancel *cancel;
	uint32_t filled;
	bool fetched;
	uint64_t waited_us;
};

static void embedded_take(void *arg, bool from_origin, const void *data, size_t len)
{
	struct embedded_sink *sink = arg;

	assert(len <= sink->range->len - sink->filled);
	memcpy(sink->range->dst + sink->filled, data, len);
	sink->filled += (uint32_t)len;
	sink->fetched |= from_origin;
}

static void embedded_waits(void *arg, uint64_t waited_us)
{
	struct embedded_sink *sink = arg;

	read_cancel_waited(sink->cancel, (int64_t)((waited_us - sink->waited_us) / 1000));
	sink->waited_us = waited_us;
}

static int ask_embedded(struct source_chain *c, const struct block_range *range,
	int64_t deadline_ms, struct read_cancel *cancel, bool *ret_fetched, struct error *err)
{
	const struct manifest_info *info = manifest_info(range->file->manifest);
	struct embedded_sink sink = {.range = range, .cancel = cancel};
	const struct embedded_read read = {
		.dataset_id = info->dataset_id,
		.manifest_digest = info->digest,
		.entry = range->file->index,
		.block = range->block,
		.offset = range->offset,
		.len = range->len,
		.read_ahead = range->read_ahead,
		.job = c->job,
		.deadline_ms = deadline_ms,
		.take = embedded_take,
		.gone = &cancel->fired,
		.waits = embedded_waits,
		.arg = &sink,
	};
	int r = c->embedded->read(c->embedded->arg, &read, err);

	assert(r != 0 || sink.filled == range->len);
	*ret_fetched = sink.fetched;
	return r;
}

/* ---- the workers, one after the other ---------------------------------------------------------- */

/* Half of what is left, so that a worker that lives, but whose reads hang, leaves time for the next
 * source. */
static int64_t attempt_deadline(int64_t deadline_ms, enum peer_state state)
{
	int64_t left_ms = clock_left_ms(deadline_ms) / 2;

	if (state == PEER_PROBE && left_ms > PEER_PROBE_MS)
		left_ms = PEER_PROBE_MS;
	return clock_deadline_ms(left_ms);
}

static int ask_worker(struct source_chain *c, struct peer *p, const struct block_range *range,
	int64_t deadline_ms, struct read_cancel *cancel, bool *ret_fetched, struct error *err)
{
	if (c->embedded && c->embedded->id == p->id)
		return ask_embedded(c, range, deadline_ms, cancel, ret_fetched, err);
	return ask_peer(c, p, range, deadline_ms, cancel, ret_fetched, err);
}

static void note_failure(struct peer *p, int code, struct error *err)
{
	/* What the worker said about the request or the origin is no fault of the worker's. */
	if (code == -EAGAIN)
		peer_went_silent(p, err->text);
	else if (code == -ETIMEDOUT || code == -EPROTO || (code == -EACCES && peer_refuses(p)))
		peer_failed(p);
	log_debug("worker %s: %s", peer_address(p), err->text);
	error_prefix(err, code, "worker %s", peer_address(p));
}

/* Asks one, and tells the cancel what that cost when nothing came of it. */
static int try_worker(struct source_chain *c, struct peer *p, const struct block_range *range,
	int64_t deadline_ms, struct read_cancel *cancel, bool *ret_fetched, struct error *err)
{
	int64_t began_ms = clock_mono_ms(), waited_ms = atomic_load(&cancel->waited_ms);
	int r = ask_worker(c, p, range, deadline_ms, cancel, ret_fetched, err);

	if (r < 0)
		read_cancel_lost(cancel,
			clock_mono_ms() - began_ms - (atomic_load(&cancel->waited_ms) - waited_ms));
	return r;
}

#define ALL_FAILED 1

/* 0; a final error; or ALL_FAILED with the last text in err, "" when nobody was asked. */
static int read_workers(struct source_chain *c, struct peer_set *set,
	const struct block_range *range, int64_t deadline_ms, struct read_cancel *cancel,
	enum block_from *ret_from, struct error *err)
{
	struct block_id id = block_id_make(&range->file->entry->object, range->block);
	int order[WORKERS_TRIED];
	size_t ranked = rendezvous_rank(set->nodes, set->count, &id, order, WORKERS_TRIED);

	for (size_t i = 0; i < ranked; i++) {
		struct peer *p = set->peers[order[i]];
		enum peer_state state = peer_ask(p);
		bool fetched = false;
		int r;

		if (state == PEER_ASIDE)
			continue;
		r = try_worker(c, p, range,
			attempt_deadline(read_cancel_deadline_ms(cancel, deadline_ms), state),
			cancel, &fetched, err);
		if (atomic_load(&cancel->fired))
			return error_set(err, -ECANCELED, "called off");
		if (r == 0) {
			peer_answered(p);
			*ret_from = fetched    ? BLOCK_FROM_FETCH
				    : p->local ? BLOCK_FROM_LOCAL_STORE
					       : BLOCK_FROM_PEER_STORE;
			return 0;
		}
		note_failure(p, r, err);
		if (r == -ESTALE)
			return r;
	}
	return ALL_FAILED;
}

/* What the worker said, as far as it leaves room for what the origin said, which counts. */
static int failed_twice(struct error *err, int code, const struct error *worker)
{
	char said[201];

	error_cut(said, sizeof(said), worker->text, strlen(worker->text));
	return error_prefix(err, code, "%s; past it", said);
}

static int read_origin(struct source_chain *c, const struct block_range *range, int64_t deadline_ms,
	struct read_cancel *cancel, enum block_from *ret_from, struct error *err)
{
	struct error worker = *err;
	int r;

	if (clock_passed(read_cancel_deadline_ms(cancel, deadline_ms)))
		return worker.text[0] ? -ETIMEDOUT
				      : error_set(err, -ETIMEDOUT, "the deadline has passed");
	r = origin_link_read(c->origin, range, deadline_ms, cancel, err);
	if (r == 0)
		*ret_from = BLOCK_FROM_ORIGIN;
	else if (worker.text[0] && !atomic_load(&cancel->fired))
		return failed_twice(err, r, &worker);
	return r;
}

static int chain_read(struct block_source *s, const struct block_range *range, int64_t deadline_ms,
	struct read_cancel *cancel, enum block_from *ret_from, struct error *err)
{
	struct source_chain *c = chain(s);
	struct peer_set *set = peers_get(c->peers);
	int r;

	err->text[0] = '\0';
	r = read_workers(c, set, range, deadline_ms, cancel, ret_from, err);
	peer_set_unref(set);
	if (r == ALL_FAILED)
		r = read_origin(c, range, deadline_ms, cancel, ret_from, err);
	return r;
}

/* ---- before anybody asks ----------------------------------------------------------------------- */

static bool in_a_view(const struct peer_set *set, const struct block_id *id)
{
	for (size_t i = 0; i < set->count; i++) {
		if (set->peers[i]->view && store_view_has(set->peers[i]->view, id))
			return true;
	}
	return false;
}

static int prefetch_embedded(struct source_chain *c, const struct block_range *range,
	int64_t deadline_ms, struct error *err)
{
	const struct manifest_info *info = manifest_info(range->file->manifest);
	const struct embedded_prefetch prefetch = {
		.dataset_id = info->dataset_id,
		.manifest_digest = info->digest,
		.entry = range->file->index,
		.block = range->block,
		.offset = range->offset,
		.len = range->len,
		.job = c->job,
		.deadline_ms = deadline_ms,
	};

	return c->embedded->prefetch(c->embedded->arg, &prefetch, err);
}

static int prefetch_at_peer(struct source_chain *c, struct peer *p, const struct block_range *range,
	int64_t deadline_ms, struct error *err)
{
	const struct manifest_info *info = manifest_info(range->file->manifest);
	Granary__V1__PrefetchRequest request = GRANARY__V1__PREFETCH_REQUEST__INIT;
	struct peer_line *line = peer_line(p);
	ProtobufCMessage *reply;
	int r;

	if (!line)
		return error_set(err, -EAGAIN, "no way to reach it");
	request.dataset_id = info->dataset_id;
	request.manifest_digest = (char *)info->digest;
	request.entry = range->file->index;
	request.block = range->block;
	request.offset = range->offset;
	request.len = range->len;
	request.job = (char *)c->job;
	r = rpc_unary(line->channel, PREFETCH_PATH, &request.base,
		&granary__v1__prefetch_reply__descriptor, &reply, deadline_ms, err);
	if (r == 0) {
		r = ((Granary__V1__PrefetchReply *)reply)->begun;
		protobuf_c_message_free_unpacked(reply, NULL);
	}
	return r;
}

/* Of the block's home alone: should that be away, the readers find another source by themselves. */
static bool chain_prefetch(
	struct block_source *s, const struct block_range *range, int64_t deadline_ms)
{
	struct source_chain *c = chain(s);
	struct peer_set *set = peers_get(c->peers);
	struct block_id id = block_id_make(&range->file->entry->object, range->block);
	struct error err = ERROR_INIT;
	int home, r = 0;

	if (!in_a_view(set, &id) && rendezvous_rank(set->nodes, set->count, &id, &home, 1) == 1) {
		struct peer *p = set->peers[home];

		if (c->embedded && c->embedded->id == p->id)
			r = prefetch_embedded(c, range, deadline_ms, &err);
		else if (peer_is_good(p))
			r = prefetch_at_peer(c, p, range, deadline_ms, &err);
		if (r < 0)
			log_debug("worker %s: prefetch: %s", peer_address(p), err.text);
	}
	peer_set_unref(set);
	return r > 0;
}

/* ---- how much of a file is cached --------------------------------------------------------------
 */

static uint64_t cached_in_view(struct store_view *view, const struct block_file *file)
{
	uint64_t bytes = 0, count = block_count(file->entry->size);

	for (uint64_t i = 0; i < count; i++) {
		struct block_id id = block_id_make(&file->entry->object, i);

		if (store_view_has(view, &id))
			bytes += block_len(file->entry->size, i);
	}
	return bytes;
}

static uint64_t cached_at_worker(struct peer *p, const struct block_file *file, int64_t deadline_ms)
{
	const struct manifest_info *info = manifest_info(file->manifest);
	Granary__V1__CachedRequest request = GRANARY__V1__CACHED_REQUEST__INIT;
	Granary__V1__CachedReply *reply;
	struct peer_line *line;
	uint64_t bytes;

	if (!peer_is_good(p) || !(line = peer_line(p)))
		return 0;
	request.dataset_id = info->dataset_id;
	request.manifest_digest = (char *)info->digest;
	request.entry = file->index;
	if (rpc_unary(line->channel, CACHED_PATH, &request.base,
		    &granary__v1__cached_reply__descriptor, (ProtobufCMessage **)&reply,
		    deadline_ms, NULL) < 0)
		return 0;
	bytes = reply->cached_bytes;
	protobuf_c_message_free_unpacked(&reply->base, NULL);
	return bytes;
}

/* Each block has one home, so the workers' shares add up. For a file of one block its home is
 * asked, and those that stand in for it; for a larger one everybody, within reason. */
static uint64_t chain_cached(
	struct block_source *s, const struct block_file *file, int64_t deadline_ms)
{
	struct peer_set *set = peers_get(chain(s)->peers);
	struct block_id id = block_id_make(&file->entry->object, 0);
	uint64_t bytes = 0;
	size_t want = file->entry->size > BLOCK_BYTES ? CACHED_ASKED_MAX : WORKERS_TRIED;
	int order[CACHED_ASKED_MAX];
	size_t ranked = rendezvous_rank(set->nodes, set->count, &id, order, want);

	for (size_t i = 0; i < ranked; i++) {
		struct peer *p = set->peers[order[i]];

		if (p->view && store_view_connected(p->view))
			bytes += cached_in_view(p->view, file);
		else
			bytes += cached_at_worker(p, file, deadline_ms);
	}
	peer_set_unref(set);
	return bytes < file->entry->size ? bytes : file->entry->size;
}

void source_chain_init(struct source_chain *c, struct peers *peers, struct origin_link *origin,
	const struct embedded_worker *embedded, const char *job)
{
	c->source = (struct block_source){
		.read_local = chain_read_local,
		.read = chain_read,
		.prefetch = chain_prefetch,
		.cached = chain_cached,
		.whole = chain_whole,
	};
	c->peers = peers;
	c->origin = origin;
	c->embedded = embedded;
	c->job = job;
}

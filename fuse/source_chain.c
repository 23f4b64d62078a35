#define LOG_SUBSYSTEM "mount"
#include "fuse/source_chain.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "granary/v1/block.pb-c.h"

#define READ_PATH "/granary.v1.BlockService/Read"
#define CACHED_PATH "/granary.v1.BlockService/Cached"
#define CHUNK_DATA_FIELD 2
#define WORKERS_TRIED 3
#define CACHED_ASKED_MAX 64 /* workers asked how much they hold of a large file */

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
		if (peer_view_read(set->peers[i], &block, range->offset, range->len, range->dst) ==
			0)
			r = 0;
	}
	peer_set_unref(set);
	return r;
}

/* ---- a worker ----------------------------------------------------------------------------------
 */

/* Takes the chunks of one answer into dst. */
static int receive(struct peer_line *line, struct rpc_stream *stream,
	const struct block_range *range, bool *ret_fetched, struct error *err)
{
	uint32_t filled = 0;

	*ret_fetched = false;
	for (;;) {
		Granary__V1__ReadBlockChunk *head = NULL;
		struct rpc_message *message;
		size_t len;
		int r = peer_line_next(line, stream, &message, err);

		if (r == RPC_STREAM_END)
			break;
		if (r < 0)
			return r;
		r = rpc_message_bytes(message, CHUNK_DATA_FIELD, range->dst + filled,
			range->len - filled, &len, &granary__v1__read_block_chunk__descriptor,
			(ProtobufCMessage **)&head);
		rpc_message_free(message);
		if (r < 0)
			return error_set(err, -EPROTO, "the answer makes no sense");
		filled += (uint32_t)len;
		if (head->source == GRANARY__V1__READ_BLOCK_CHUNK__SOURCE__SOURCE_ORIGIN)
			*ret_fetched = true;
		protobuf_c_message_free_unpacked(&head->base, NULL);
	}
	if (filled < range->len)
		return error_set(err, -EPROTO, "%u bytes came of %u", filled, range->len);
	return 0;
}

static int ask_peer(struct peer *p, const struct block_range *range, int64_t deadline_ms,
	struct read_cancel *cancel, bool *ret_fetched, struct error *err)
{
	const struct manifest_info *info = manifest_info(range->file->manifest);
	Granary__V1__ReadBlockRequest request = GRANARY__V1__READ_BLOCK_REQUEST__INIT;
	struct peer_line *line = peer_line(p);
	struct rpc_stream *stream;
	int r;

	if (!line)
		return error_set(err, -EAGAIN, "no way to reach it");
	request.dataset_id = info->dataset_id;
	request.manifest_digest = (char *)info->digest;
	request.entry = range->file->index;
	request.block = range->block;
	request.offset = range->offset;
	request.len = range->len;
	request.read_ahead = range->read_ahead;
	r = rpc_stream_open(line->channel, READ_PATH, &request.base, deadline_ms, &stream, err);
	if (r < 0)
		return r;
	r = read_cancel_attach(cancel, stream);
	if (r == 0) {
		r = receive(line, stream, range, ret_fetched, err);
		read_cancel_detach(cancel);
	}
	rpc_stream_close(stream);
	return r;
}

/* ---- the worker of this process ---------------------------------------------------------------- */

struct embedded_sink {
	const struct block_range *range;
	struct read_cancel *cancel;
	uint32_t filled;
	bool fetched;
};

static void embedded_take(void *arg, bool from_origin, const void *data, size_t len)
{
	struct embedded_sink *sink = arg;

	assert(len <= sink->range->len - sink->filled);
	memcpy(sink->range->dst + sink->filled, data, len);
	sink->filled += (uint32_t)len;
	sink->fetched |= from_origin;
}

static bool embedded_gone(void *arg)
{
	struct embedded_sink *sink = arg;

	return atomic_load(&sink->cancel->fired);
}

static int ask_embedded(const struct embedded_worker *w, const struct block_range *range,
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
		.deadline_ms = deadline_ms,
		.take = embedded_take,
		.gone = embedded_gone,
		.arg = &sink,
	};
	int r = w->read(w->arg, &read, err);

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
		return ask_embedded(c->embedded, range, deadline_ms, cancel, ret_fetched, err);
	return ask_peer(p, range, deadline_ms, cancel, ret_fetched, err);
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
		r = ask_worker(
			c, p, range, attempt_deadline(deadline_ms, state), cancel, &fetched, err);
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

static int read_origin(struct source_chain *c, const struct block_range *range, int64_t deadline_ms,
	struct read_cancel *cancel, enum block_from *ret_from, struct error *err)
{
	struct error worker = *err;
	int r;

	if (clock_passed(deadline_ms))
		return worker.text[0] ? -ETIMEDOUT
				      : error_set(err, -ETIMEDOUT, "the deadline has passed");
	r = origin_link_read(c->origin, range, deadline_ms, cancel, err);
	if (r == 0)
		*ret_from = BLOCK_FROM_ORIGIN;
	else if (worker.text[0] && !atomic_load(&cancel->fired))
		error_prefix(err, r, "%.200s; past it", worker.text);
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
	const struct embedded_worker *embedded)
{
	c->source = (struct block_source){
		.read_local = chain_read_local,
		.read = chain_read,
		.cached = chain_cached,
	};
	c->peers = peers;
	c->origin = origin;
	c->embedded = embedded;
}

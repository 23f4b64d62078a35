#define LOG_SUBSYSTEM "mount"
#include "fuse/preload.h"

#include <errno.h>
#include <string.h>

#include "common/log.h"
#include "common/memory.h"
#include "fuse/fs.h"
#include "fuse/node_id.h"
#include "fuse/ops.h"
#include "fuse/thread.h"

/* The part of the memory that may hold what nobody asked for yet. */
#define WINDOW_SHARE 4

struct candidate {
	struct manifest *manifest; /* a reference */
	uint32_t slot, index;
	struct preload_busy *busy;
};

/* ---- the plan -------------------------------------------------------------------------------- */

static void forget_plan_locked(struct preload *p)
{
	preload_plan_deinit(&p->plan);
	p->manifest = manifest_unref(p->manifest);
}

/* A plan for the node's snapshot, unless there is one already or the node is of an older one. */
static bool plan_for_locked(struct preload *p, const struct fs_node *node)
{
	int r;

	if (p->manifest && node->slot <= p->slot)
		return node->slot == p->slot;
	if (p->manifest)
		forget_plan_locked(p);
	p->manifest = manifest_ref(node->manifest);
	p->slot = node->slot;
	r = preload_plan_init(&p->plan, manifest_info(node->manifest)->entries, p->window_bytes);
	if (r < 0)
		log_info("%s: no preloading: %s", p->fs->dataset, strerror(-r));
	return true;
}

void preload_note(struct preload *p, const struct fs_node *node, uint64_t offset, bool from_store)
{
	if (offset != 0 || node->entry.size > PRELOAD_FILE_MAX_BYTES)
		return;
	mutex_guard(&p->mu);
	if (!p->on || !plan_for_locked(p, node))
		return;
	for (unsigned i = 0; i < PRELOAD_THREADS; i++) {
		struct preload_busy *b = &p->busy[i];

		b->asked |= b->taken && b->index == node->index && b->slot == node->slot;
	}
	preload_plan_read(
		&p->plan, node->index, from_store ? node->entry.size : 0, clock_mono_ms());
	if (from_store)
		cond_signal(&p->work);
}

static bool take(struct preload *p, struct candidate *ret)
{
	mutex_guard(&p->mu);
	while (!p->stopping && !preload_plan_next(&p->plan, &ret->index))
		cond_wait(&p->work, &p->mu, CLOCK_NEVER);
	if (p->stopping)
		return false;
	ret->manifest = manifest_ref(p->manifest);
	ret->slot = p->slot;
	/* There is one for each thread. */
	ret->busy = p->busy;
	while (ret->busy->taken)
		ret->busy++;
	*ret->busy = (struct preload_busy){.taken = true, .slot = ret->slot, .index = ret->index};
	return true;
}

/* ---- giving it to the kernel ----------------------------------------------------------------- */

static int give(struct preload *p, uint64_t ino, unsigned char *bytes, size_t len)
{
	struct fuse_bufvec data = FUSE_BUFVEC_INIT(len);

	data.buf[0].mem = bytes;
	return fuse_lowlevel_notify_store(p->se, ino, 0, &data, 0);
}

static bool read_whole(struct preload *p, const struct candidate *c,
	const struct manifest_entry *entry, unsigned char *dst)
{
	struct block_file file = {c->manifest, c->index, entry};
	struct block_range range = {.file = &file,
		.len = (uint32_t)entry->size,
		.dst = dst,
		.room = THREAD_BUFFER_BYTES};

	return p->fs->source->read_local(p->fs->source, &range) == 0;
}

/* 0, also for what cannot be preloaded, with the bytes given; -ENOENT: the kernel does not know the
 * file; or the connection is gone. */
static int preload_one(struct preload *p, const struct candidate *c, uint64_t *ret_bytes)
{
	uint64_t ino = node_id_make(c->slot, c->index);
	unsigned char *buffer = thread_buffer(THREAD_READS_DISK);
	struct manifest_entry entry;
	int r;

	*ret_bytes = 0;
	if (!buffer || manifest_entry(c->manifest, c->index, &entry) < 0 ||
		entry.type != MANIFEST_FILE || entry.size == 0 ||
		entry.size > PRELOAD_FILE_MAX_BYTES || sample_has_file(&p->fs->sample, &entry))
		return 0;
	/* Its reader is about to come, and counts it as fetched. */
	if (brought_ahead_has(&p->fs->brought, ino, 0))
		return 0;
	/* Nothing at all is stored, but the kernel says whether it could be. */
	r = give(p, ino, buffer, 0);
	if (r < 0 || !read_whole(p, c, &entry, buffer))
		return r;
	r = give(p, ino, buffer, entry.size);
	if (r == 0)
		*ret_bytes = entry.size;
	return r;
}

static void settle(struct preload *p, const struct candidate *c, uint64_t bytes)
{
	mutex_guard(&p->mu);
	if (!c->busy->asked)
		counters_preloaded(&p->fs->counters, bytes);
	c->busy->taken = false;
	if (c->manifest != p->manifest)
		return;
	if (bytes > 0)
		preload_plan_pushed(&p->plan, bytes);
	else
		preload_plan_left(&p->plan, c->index);
}

static void *preload_main(void *arg)
{
	struct preload *p = arg;
	struct candidate c;

	while (take(p, &c)) {
		uint64_t bytes;
		int r = preload_one(p, &c, &bytes);

		settle(p, &c, bytes);
		manifest_unref(c.manifest);
		if (r == -ENODEV || r == -ENOTCONN)
			break;
	}
	return NULL;
}

/* ---- life ------------------------------------------------------------------------------------ */

void preload_init(struct preload *p, struct fs *fs)
{
	memset(p, 0, sizeof(*p));
	p->fs = fs;
	mutex_init(&p->mu);
	cond_init(&p->work);
}

void preload_deinit(struct preload *p)
{
	if (p->manifest)
		forget_plan_locked(p);
	cond_deinit(&p->work);
	mutex_deinit(&p->mu);
}

int preload_start(struct preload *p, struct fuse_session *se, struct error *err)
{
	int r = 0;

	p->se = se;
	p->window_bytes = memory_available_bytes() / WINDOW_SHARE;
	while (r == 0 && p->started < PRELOAD_THREADS) {
		r = thread_start(&p->threads[p->started], preload_main, p);
		if (r == 0)
			p->started++;
	}
	if (p->started == 0)
		return error_set_errno(err, r, "cannot start a thread");
	mutex_guard(&p->mu);
	p->on = true;
	return 0;
}

void preload_stop(struct preload *p)
{
	mutex_lock(&p->mu);
	p->on = false;
	p->stopping = true;
	cond_broadcast(&p->work);
	mutex_unlock(&p->mu);
	for (; p->started > 0; p->started--)
		pthread_join(p->threads[p->started - 1], NULL);
}

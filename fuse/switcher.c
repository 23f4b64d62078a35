#define LOG_SUBSYSTEM "mount"
#include "fuse/switcher.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "fuse/node_id.h"
#include "fuse/thread.h"

#define FETCH_TIMEOUT_MIN_MS 5000 /* a stop waits for it, so it is short at first */
#define FETCH_TIMEOUT_MAX_MS 640000
#define RETRY_MS 1000

/* Before the kernel sees a node of it. Where that fails the file's name is what is left. */
static void keep_file(struct switcher *s, uint32_t number, const struct manifest_info *info)
{
	struct mount_keep *keep = s->fs->keep;
	cleanup_fd int fd = keep->keep ? manifest_cache_file(s->manifests, info->digest) : -1;
	int r = !keep->keep ? 0 : fd < 0 ? fd : keep->keep(keep->arg, number, fd);

	if (r < 0)
		log_warn("dataset %s: snapshot %" PRIu64 " is not kept for another client: %s",
			s->fs->dataset, info->snapshot, strerror(-r));
}

static int show(struct switcher *s, struct manifest *next, struct error *err)
{
	struct mount_state *state = s->fs->keep->state;
	uint32_t slot = 0;
	struct manifest *old = snapshot_slots_get(&s->fs->slots, NODE_SLOT_CURRENT, &slot);
	const struct manifest_info *info = manifest_info(next);
	int r;

	keep_file(s, slot + 1, info);
	atomic_store(&state->invalidating, 1);
	r = snapshot_slots_show(&s->fs->slots, next);

	if (r < 0)
		error_set_errno(err, r, "no more snapshots can be shown: mount anew");
	else
		order_drop_all(&s->fs->order);
	if (r == 0)
		r = session_invalidate(s->session, old, err);
	if (r == 0)
		atomic_store(&state->invalidating, 0);
	manifest_unref(old);
	if (r == 0)
		log_info("dataset %s: now showing snapshot %" PRIu64, s->fs->dataset,
			info->snapshot);
	return r;
}

static bool shown(struct switcher *s, const char *digest)
{
	struct manifest *now = snapshot_slots_get(&s->fs->slots, NODE_SLOT_CURRENT, NULL);
	bool same = !strcmp(manifest_info(now)->digest, digest);

	manifest_unref(now);
	return same;
}

/* True when it is done with that digest. */
static bool bring(struct switcher *s, const char *digest)
{
	struct error err = ERROR_INIT;
	struct manifest *next;
	int r;

	if (shown(s, digest))
		return true;
	r = manifest_cache_get(s->manifests, s->master, digest,
		clock_deadline_ms(s->fetch_timeout_ms), &next, &err);
	if (r == -ETIMEDOUT && s->fetch_timeout_ms < FETCH_TIMEOUT_MAX_MS)
		s->fetch_timeout_ms *= 2;
	if (r == 0) {
		r = show(s, next, &err);
		manifest_unref(next);
	}
	if (r < 0 && !s->lost)
		log_warn("dataset %s: cannot show the new snapshot yet: %s", s->fs->dataset,
			err.text);
	s->lost = r < 0;
	return r == 0;
}

/* A client that was killed between the two may have told the kernel nothing, or a part. */
static void finish_switch(struct switcher *s)
{
	struct mount_state *state = s->fs->keep->state;
	struct manifest *old = NULL;
	struct error err = ERROR_INIT;
	uint32_t slot = 0;

	if (!atomic_load(&state->invalidating))
		return;
	manifest_unref(snapshot_slots_get(&s->fs->slots, NODE_SLOT_CURRENT, &slot));
	if (slot > 0)
		old = snapshot_slots_get(&s->fs->slots, slot - 1, NULL);
	if (session_invalidate(s->session, old, &err) < 0)
		log_warn("dataset %s: %s", s->fs->dataset, err.text);
	else
		atomic_store(&state->invalidating, 0);
	manifest_unref(old);
}

static void *switcher_main(void *arg)
{
	struct switcher *s = arg;
	char digest[MANIFEST_DIGEST_TEXT_BYTES];
	bool done;

	finish_switch(s);
	mutex_lock(&s->mu);
	while (!s->stopping) {
		if (!s->wanted[0]) {
			cond_wait(&s->wake, &s->mu, CLOCK_NEVER);
			continue;
		}
		memcpy(digest, s->wanted, sizeof(digest));
		mutex_unlock(&s->mu);
		done = bring(s, digest);
		mutex_lock(&s->mu);
		if (done && !strcmp(digest, s->wanted))
			s->wanted[0] = '\0';
		else if (!done && !s->stopping)
			cond_wait(&s->wake, &s->mu, clock_deadline_ms(RETRY_MS));
	}
	mutex_unlock(&s->mu);
	return NULL;
}

int switcher_start(struct switcher *s, struct fs *fs, struct session *session,
	struct manifest_cache *manifests, struct rpc_channel *master, struct error *err)
{
	int r;

	memset(s, 0, sizeof(*s));
	s->fs = fs;
	s->session = session;
	s->manifests = manifests;
	s->master = master;
	s->fetch_timeout_ms = FETCH_TIMEOUT_MIN_MS;
	mutex_init(&s->mu);
	cond_init(&s->wake);
	r = thread_start(&s->thread, switcher_main, s);
	if (r < 0) {
		cond_deinit(&s->wake);
		mutex_deinit(&s->mu);
		return error_set_errno(err, r, "cannot start a thread");
	}
	return 0;
}

void switcher_want(struct switcher *s, const char *digest)
{
	mutex_guard(&s->mu);

	if (strlen(digest) >= sizeof(s->wanted) || !strcmp(s->wanted, digest))
		return;
	strcpy(s->wanted, digest);
	cond_signal(&s->wake);
}

void switcher_stop(struct switcher *s)
{
	mutex_lock(&s->mu);
	s->stopping = true;
	cond_signal(&s->wake);
	mutex_unlock(&s->mu);
	pthread_join(s->thread, NULL);
	cond_deinit(&s->wake);
	mutex_deinit(&s->mu);
}

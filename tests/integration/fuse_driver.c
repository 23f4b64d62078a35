/*
 * Mounts a local tree through the FUSE client without master, worker or store: a manifest built
 * from the tree, and a block source that reads the tree's files and can be told to misbehave. For
 * the tests of the client alone (fuse_mount_test.py).
 *
 *	fuse_driver TREE MOUNTPOINT WORKDIR [no-open|open|auto [TIMEOUT_MS [allow-other]]]
 *
 * Says "ready" when the mount answers, then takes commands on stdin, one a line, and answers each
 * with one line:
 *	local on|off	whether the "local store" has everything (on at first)
 *	stall on|off	reads wait for their deadline or an interrupt
 *	fail on|off	reads fail
 *	whole on|off	files may be passed through to those of the tree (off at first)
 *	bad on|off	they do not stand the verification
 *	back on|off	they are wanted back
 *	counters	JSON of what was counted
 *	switch TREE	shows another tree from now on
 *	switch-old TREE	the same, in the way of kernels without epochs
 *	quit		(or end of input) unmounts and ends
 */
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "fuse/mountpoint.h"
#include "fuse/session.h"
#include "manifest/manifest_builder.h"

#define TREES_MAX 16
#define STALL_STEP_US 2000

struct tree {
	struct manifest *manifest;
	char *root;
};

struct fake_source {
	struct block_source source;
	atomic_bool local, stall, fail, whole, bad, back;
	atomic_int wholes; /* alive */
	atomic_int trees_count;
	struct tree trees[TREES_MAX];
};

static const char *workdir;

static void die(const char *what, const char *why)
{
	fprintf(stderr, "fuse_driver: %s: %s\n", what, why);
	exit(1);
}

/* ---- a manifest of a local tree ----------------------------------------------------------------
 */

struct listing {
	struct manifest_builder_entry *entries;
	size_t count, room;
};

static void add_entry(struct listing *l, const struct manifest_builder_entry *e)
{
	if (l->count == l->room) {
		l->room = l->room ? 2 * l->room : 1024;
		l->entries = realloc(l->entries, l->room * sizeof(*e));
		if (!l->entries)
			die("listing", "out of memory");
	}
	l->entries[l->count++] = *e;
}

static bool make_entry(const FTSENT *f, size_t root_len, struct manifest_builder_entry *ret)
{
	const struct stat *st = f->fts_statp;
	const char *path = f->fts_path + root_len + (f->fts_level > 0);

	*ret = (struct manifest_builder_entry){
		.path = strdup(path),
		.path_len = strlen(path),
		.mtime_ns = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec,
		.validator = "",
		.mode = st->st_mode & 07777,
		.uid = st->st_uid,
		.gid = st->st_gid,
	};
	if (f->fts_info == FTS_D) {
		ret->type = MANIFEST_DIR;
	} else if (f->fts_info == FTS_F) {
		ret->type = MANIFEST_FILE;
		ret->size = (uint64_t)st->st_size;
	} else if (f->fts_info == FTS_SL || f->fts_info == FTS_SLNONE) {
		char target[4096];
		ssize_t n = readlink(f->fts_accpath, target, sizeof(target));

		ret->type = MANIFEST_SYMLINK;
		ret->target = n > 0 ? memcpy(malloc((size_t)n), target, (size_t)n) : NULL;
		ret->target_len = n > 0 ? (size_t)n : 0;
	} else {
		return false;
	}
	return true;
}

static int compare(const void *a, const void *b)
{
	const struct manifest_builder_entry *x = a, *y = b;

	return manifest_path_compare(x->path, x->path_len, y->path, y->path_len);
}

static void list_tree(char *root, struct listing *l, struct manifest_builder_entry *ret_root)
{
	char *roots[] = {root, NULL};
	FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	FTSENT *f;

	if (!fts)
		die(root, strerror(errno));
	while ((f = fts_read(fts))) {
		struct manifest_builder_entry e;

		if (f->fts_info == FTS_DP || !make_entry(f, strlen(root), &e))
			continue;
		if (f->fts_level == 0)
			*ret_root = e;
		else
			add_entry(l, &e);
	}
	fts_close(fts);
	if (l->count > 0)
		qsort(l->entries, l->count, sizeof(l->entries[0]), compare);
}

static struct manifest *build(char *root, uint64_t snapshot)
{
	cleanup_free char *path = NULL;
	struct manifest_builder_entry root_entry = {0};
	char digest[MANIFEST_DIGEST_TEXT_BYTES];
	struct error err = ERROR_INIT;
	struct manifest_builder *b;
	struct listing l = {0};
	struct manifest *m;
	int r;

	list_tree(root, &l, &root_entry);
	r = manifest_builder_new(workdir, 42, snapshot, clock_wall_s(), &root_entry, &b, &err);
	for (size_t i = 0; r == 0 && i < l.count; i++)
		r = manifest_builder_add(b, &l.entries[i], &err);
	if (r == 0)
		r = manifest_builder_finish(b, digest, &err);
	if (r < 0 || asprintf(&path, "%s/%s.manifest", workdir, digest) < 0 ||
		manifest_open(path, &m, &err) < 0)
		die(root, err.text);
	manifest_builder_free(b);
	for (size_t i = 0; i < l.count; i++) {
		free((char *)l.entries[i].path);
		free((char *)l.entries[i].target);
	}
	free((char *)root_entry.path);
	free(l.entries);
	return m;
}

/* ---- the source --------------------------------------------------------------------------------
 */

static int open_in_tree(struct fake_source *f, const struct block_file *file)
{
	cleanup_buf struct buf path = BUF_INIT;
	const char *root = NULL;

	for (int i = 0; i < atomic_load(&f->trees_count); i++) {
		if (f->trees[i].manifest == file->manifest)
			root = f->trees[i].root;
	}
	if (!root || buf_printf(&path, "%s/", root) < 0 ||
		manifest_path(file->manifest, file->index, &path) < 0)
		return -EIO;
	return open(path.data, O_RDONLY | O_CLOEXEC);
}

static int read_tree(struct fake_source *f, const struct block_range *range)
{
	cleanup_fd int fd = open_in_tree(f, range->file);
	uint64_t offset = range->block * BLOCK_BYTES + range->offset;
	uint32_t done = 0;

	while (fd >= 0 && done < range->len) {
		ssize_t n = pread(fd, range->dst + done, range->len - done, (off_t)(offset + done));

		if (n <= 0)
			return -EIO;
		done += (uint32_t)n;
	}
	return fd >= 0 ? 0 : -EIO;
}

static int fake_read_local(struct block_source *s, const struct block_range *range)
{
	struct fake_source *f = (struct fake_source *)s;

	if (!atomic_load(&f->local))
		return BLOCK_SOURCE_MISS;
	return read_tree(f, range);
}

static int fake_read(struct block_source *s, const struct block_range *range, int64_t deadline_ms,
	struct read_cancel *cancel, enum block_from *ret_from, struct error *err)
{
	struct fake_source *f = (struct fake_source *)s;

	while (atomic_load(&f->stall)) {
		if (atomic_load(&cancel->fired))
			return error_set(err, -ECANCELED, "called off");
		if (clock_passed(deadline_ms))
			return error_set(err, -ETIMEDOUT, "the stalled source gave no answer");
		usleep(STALL_STEP_US);
	}
	if (atomic_load(&f->fail))
		return error_set(err, -EIO, "the source was told to fail");
	*ret_from = BLOCK_FROM_FETCH;
	return read_tree(f, range);
}

static uint64_t fake_cached(
	struct block_source *s, const struct block_file *file, int64_t deadline_ms)
{
	struct fake_source *f = (struct fake_source *)s;

	(void)deadline_ms;
	return atomic_load(&f->local) ? file->entry->size : file->entry->size / 4;
}

struct fake_whole {
	struct block_whole whole; /* first */
	struct fake_source *source;
};

static int fake_verify(struct block_whole *w, void *buffer, bool past_page_cache,
	bool (*goes_on)(void *arg), void *arg)
{
	struct fake_source *f = ((struct fake_whole *)w)->source;

	(void)buffer;
	(void)past_page_cache;
	while (atomic_load(&f->stall)) {
		if (!goes_on(arg))
			return -ECANCELED;
		usleep(STALL_STEP_US);
	}
	return atomic_load(&f->bad) ? -EBADMSG : 0;
}

static bool fake_wanted_back(struct block_whole *w)
{
	return atomic_load(&((struct fake_whole *)w)->source->back);
}

static void fake_close_fd(struct block_whole *w)
{
	if (w->fd >= 0)
		close(w->fd);
	w->fd = -1;
}

static void fake_free(struct block_whole *w)
{
	fake_close_fd(w);
	atomic_fetch_sub(&((struct fake_whole *)w)->source->wholes, 1);
	free(w);
}

static int fake_whole(
	struct block_source *s, const struct block_file *file, struct block_whole **ret)
{
	struct fake_source *f = (struct fake_source *)s;
	struct fake_whole *w;
	int fd = -1;

	if (atomic_load(&f->whole))
		fd = open_in_tree(f, file);
	if (fd < 0)
		return BLOCK_SOURCE_MISS;
	w = calloc(1, sizeof(*w));
	if (!w)
		die("whole", "out of memory");
	*w = (struct fake_whole){
		.whole = {.fd = fd,
			.bytes = file->entry->size,
			.key = {1 + manifest_info(file->manifest)->snapshot, file->index},
			.verify = fake_verify,
			.wanted_back = fake_wanted_back,
			.close_fd = fake_close_fd,
			.free = fake_free},
		.source = f,
	};
	atomic_fetch_add(&f->wholes, 1);
	*ret = &w->whole;
	return 0;
}

static struct manifest *show_tree(struct fake_source *f, const char *root)
{
	int n = atomic_load(&f->trees_count);

	if (n == TREES_MAX)
		die(root, "too many trees");
	f->trees[n].root = strdup(root);
	f->trees[n].manifest = build(f->trees[n].root, (uint64_t)n + 1);
	atomic_store(&f->trees_count, n + 1);
	return f->trees[n].manifest;
}

/* ---- commands ----------------------------------------------------------------------------------
 */

static void print_counters(struct fake_source *f, struct fs *fs)
{
	struct counters *c = &fs->counters;
	char last_error[ERROR_TEXT_BYTES];

	printf("{");
	for (int i = 0; i < OP_COUNT; i++)
		printf("\"%s\": %" PRIu64 ", ", counters_op_name(i),
			(uint64_t)atomic_load(&c->ops[i]));
	counters_last_error(c, last_error);
	for (char *p = last_error; *p; p++) {
		if (*p == '"' || *p == '\\' || (unsigned char)*p < ' ' || (unsigned char)*p > '~')
			*p = '?';
	}
	printf("\"mode\": \"%s\", \"hit_bytes\": %" PRIu64 ", \"miss_bytes\": %" PRIu64
	       ", \"preloaded_bytes\": %" PRIu64 ", \"failed_reads\": %" PRIu64
	       ", \"interrupted\": %" PRIu64 ", \"passed_opens\": %" PRIu64
	       ", \"verified_bytes\": %" PRIu64 ", \"wholes\": %d, \"last_error\": \"%s\"}\n",
		fs_mode_text(fs), counters_hit_bytes(c), counters_miss_bytes(c),
		(uint64_t)atomic_load(&c->preloaded_bytes), (uint64_t)atomic_load(&c->failed_reads),
		(uint64_t)atomic_load(&c->interrupted_reads),
		(uint64_t)atomic_load(&fs->passthrough.opens),
		(uint64_t)atomic_load(&fs->passthrough.verified_bytes), atomic_load(&f->wholes),
		last_error);
}

static void switch_to(struct fake_source *f, struct fs *fs, struct session *s, const char *root,
	bool without_epochs)
{
	struct manifest *old = snapshot_slots_get(&fs->slots, UINT32_MAX, NULL);
	struct error err = ERROR_INIT;

	int r = snapshot_slots_show(&fs->slots, show_tree(f, root));

	if (r == 0)
		r = without_epochs ? session_forget_root(s, old) : session_invalidate(s, old, &err);
	if (r < 0)
		printf("failed: %s\n", err.text);
	else
		printf("switched\n");
	manifest_unref(old);
}

static void command(struct fake_source *f, struct fs *fs, struct session *s, const char *line)
{
	char word[16] = "";
	int rest = 0;

	sscanf(line, "%15s %n", word, &rest);
	if (!strcmp(word, "counters"))
		print_counters(f, fs);
	else if (!strcmp(word, "switch"))
		switch_to(f, fs, s, line + rest, false);
	else if (!strcmp(word, "switch-old"))
		switch_to(f, fs, s, line + rest, true);
	else {
		bool on = !strcmp(line + rest, "on");

		if (!strcmp(word, "local"))
			atomic_store(&f->local, on);
		else if (!strcmp(word, "stall"))
			atomic_store(&f->stall, on);
		else if (!strcmp(word, "fail"))
			atomic_store(&f->fail, on);
		else if (!strcmp(word, "whole"))
			atomic_store(&f->whole, on);
		else if (!strcmp(word, "bad"))
			atomic_store(&f->bad, on);
		else if (!strcmp(word, "back"))
			atomic_store(&f->back, on);
		printf("ok\n");
	}
	fflush(stdout);
}

int main(int argc, char **argv)
{
	struct fake_source f = {.source = {.read_local = fake_read_local,
					.read = fake_read,
					.cached = fake_cached,
					.whole = fake_whole}};
	struct session_options session_opts = {0};
	struct error err = ERROR_INIT;
	char mountpoint[4096], line[8192];
	struct session *session;
	struct fs fs;

	if (argc < 4)
		die("usage", "TREE MOUNTPOINT WORKDIR [MODE [TIMEOUT_MS [allow-other] [no-preload] "
			     "[no-passthrough]]]");
	workdir = argv[3];
	session_opts.mountpoint = mountpoint;
	for (int i = 6; i < argc; i++) {
		session_opts.allow_other |= !strcmp(argv[i], "allow-other");
		session_opts.no_preload |= !strcmp(argv[i], "no-preload");
		session_opts.no_passthrough |= !strcmp(argv[i], "no-passthrough");
	}
	if (mountpoint_prepare(argv[2], session_opts.allow_other, mountpoint, &err) < 0)
		die("refused", err.text);

	atomic_store(&f.local, true);
	struct fs_options fs_opts = {.dataset = "driven",
		.origin = "file:///driven",
		.uid = 1234,
		.gid = 5678,
		.read_timeout_ms = argc > 5 ? atoi(argv[5]) : 0};

	if (argc > 4 && mount_mode_parse(argv[4], &fs_opts.mode) < 0)
		die("mode", argv[4]);
	if (fs_init(&fs, &fs_opts, show_tree(&f, argv[1]), &f.source, &err) < 0 ||
		session_start(&fs, &session_opts, &session, &err) < 0)
		die("mount", err.text);
	printf("ready\n");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = '\0';
		if (!strcmp(line, "quit"))
			break;
		command(&f, &fs, session, line);
	}
	session_stop(session);
	session_wait(session);
	fs_stop(&fs);
	session_free(session);
	fs_deinit(&fs);
	for (int i = 0; i < atomic_load(&f.trees_count); i++) {
		manifest_unref(f.trees[i].manifest);
		free(f.trees[i].root);
	}
	printf("ended\n");
	return 0;
}

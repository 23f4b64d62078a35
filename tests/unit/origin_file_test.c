#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "origin/beneath.h"
#include "origin/origin_ops.h"

struct seen {
	char path[256];
	char validator[256];
	char target[128];
	char reason[128];
	enum origin_entry_type type;
	uint64_t size;
	uint32_t mode;
};

struct fixture {
	char dir[64];  /* holds root and what is outside of it */
	char root[80]; /* dir/root */
	struct origin *origin;
	struct seen seen[4096];
	unsigned n_seen;
	int root_fd;
};

static void put(struct fixture *f, const char *path, const char *text)
{
	int fd = openat(f->root_fd, path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	char url[128];

	strcpy(f->dir, "/tmp/granary-origin-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->root, sizeof(f->root), "%s/root", f->dir);
	assert_int_equal(mkdir(f->root, 0755), 0);
	f->root_fd = open(f->root, O_RDONLY | O_DIRECTORY);
	snprintf(url, sizeof(url), "file://%s/", f->root);
	assert_int_equal(origin_open(url, NULL, &f->origin, NULL), 0);
	*state = f;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	origin_free(f->origin);
	close(f->root_fd);
	nftw(f->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static int note(void *arg, const struct origin_entry *e, struct error *err)
{
	struct fixture *f = arg;
	struct seen *s = &f->seen[f->n_seen++];

	(void)err;
	assert_true(f->n_seen <= 4096 && e->path_len < sizeof(s->path));
	memset(s, 0, sizeof(*s));
	memcpy(s->path, e->path, e->path_len);
	strcpy(s->validator, e->validator);
	if (e->target)
		memcpy(s->target, e->target, e->target_len);
	if (e->reason)
		strcpy(s->reason, e->reason);
	s->type = e->type;
	s->size = e->size;
	s->mode = e->mode;
	return 0;
}

static void list(struct fixture *f)
{
	struct error err = ERROR_INIT;
	int r;

	f->n_seen = 0;
	r = origin_list(f->origin, note, f, NULL, CLOCK_NEVER, &err);
	if (r < 0)
		fail_msg("%s", err.text);
}

static struct seen *find(struct fixture *f, const char *path)
{
	for (unsigned i = 0; i < f->n_seen; i++) {
		if (strcmp(f->seen[i].path, path) == 0)
			return &f->seen[i];
	}
	fail_msg("%s was not listed", path);
	return NULL;
}

static int get_within(struct fixture *f, const struct seen *s, uint64_t offset, void *dst,
	uint64_t len, int64_t timeout_ms)
{
	const struct origin_get get = {
		.path = s->path,
		.path_len = strlen(s->path),
		.validator = s->validator,
		.object_bytes = s->size,
		.offset = offset,
		.len = len,
		.dst = dst,
		.deadline_ms = clock_deadline_ms(timeout_ms),
	};

	return origin_get(f->origin, &get, NULL);
}

static int get(struct fixture *f, const struct seen *s, uint64_t offset, void *dst, uint64_t len)
{
	return get_within(f, s, offset, dst, len, 5000);
}

static void a_tree_is_listed_with_types_modes_and_sizes(void **state)
{
	struct fixture *f = *state;

	mkdirat(f->root_fd, "empty", 0750);
	mkdirat(f->root_fd, "d", 0755);
	mkdirat(f->root_fd, "d/e", 0755);
	put(f, "d/e/file", "hello");
	put(f, "nothing", "");
	put(f, "d/a \n\xff name", "x");
	fchmodat(f->root_fd, "d/e/file", 0640, 0);
	mkfifoat(f->root_fd, "pipe", 0644);
	list(f);
	assert_int_equal(f->n_seen, 7);
	assert_int_equal(find(f, "empty")->type, ORIGIN_DIR);
	assert_int_equal(find(f, "empty")->mode, 0750);
	assert_int_equal(find(f, "d/e/file")->size, 5);
	assert_int_equal(find(f, "d/e/file")->mode, 0640);
	assert_int_equal(find(f, "nothing")->size, 0);
	assert_int_equal(find(f, "d/a \n\xff name")->type, ORIGIN_FILE);
	assert_int_equal(find(f, "pipe")->type, ORIGIN_OTHER);
	assert_string_equal(find(f, "pipe")->reason, "a pipe");
}

static void symlinks_inside_are_kept_and_those_that_leave_are_reported(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *path, *target;
		bool stays;
	} links[] = {
		{"d/in", "../file", true}, {"d/self", "x", true},
		{"d/dangling", "../not-yet/there", true}, {"out", "../secret", false},
		{"d/out", "../../secret", false}, {"absolute", "/etc/passwd", false},
		{"d/via", "s/../../file", false}, /* d/s/.. is the root, its parent is outside */
		{"d/s", "../top", true}, {"loop", "loop", true},
		{"chain", "out", false}, /* leaves through another link */
	};
	char outside[128];

	mkdirat(f->root_fd, "d", 0755);
	mkdirat(f->root_fd, "top", 0755);
	put(f, "file", "x");
	put(f, "d/x", "x");
	snprintf(outside, sizeof(outside), "%s/secret", f->dir);
	close(open(outside, O_CREAT | O_WRONLY, 0644));
	for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++)
		assert_int_equal(symlinkat(links[i].target, f->root_fd, links[i].path), 0);
	list(f);
	for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++) {
		struct seen *s = find(f, links[i].path);

		assert_string_equal(s->target, links[i].target);
		if (links[i].stays != (s->type == ORIGIN_SYMLINK))
			fail_msg("%s -> %s: %s", s->path, s->target, s->reason);
		if (!links[i].stays)
			assert_non_null(strstr(s->reason, "symlink"));
	}
}

static void ranges_are_read_exactly(void **state)
{
	struct fixture *f = *state;
	char buf[16] = "";

	put(f, "file", "0123456789");
	list(f);
	assert_int_equal(get(f, find(f, "file"), 3, buf, 4), 0);
	assert_string_equal(buf, "3456");
	assert_int_equal(get(f, find(f, "file"), 0, buf, 10), 0);
	assert_string_equal(buf, "0123456789");
	assert_int_equal(origin_bytes_received(f->origin), 14);
}

static void a_large_sparse_file_is_read_as_zeros_with_progress(void **state)
{
	struct fixture *f = *state;
	const uint64_t bytes = 3 << 20;
	unsigned char *dst = malloc(bytes);
	int fd;

	put(f, "sparse", "begin");
	fd = openat(f->root_fd, "sparse", O_WRONLY);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	close(fd);
	list(f);
	memset(dst, 1, bytes);
	assert_int_equal(get(f, find(f, "sparse"), 0, dst, bytes), 0);
	assert_memory_equal(dst, "begin", 5);
	for (uint64_t i = 5; i < bytes; i++)
		assert_int_equal(dst[i], 0);
	free(dst);
}

static void what_changed_since_the_listing_is_never_served(void **state)
{
	struct fixture *f = *state;
	char buf[16];
	int fd;

	put(f, "rewritten", "0123456789");
	put(f, "grown", "0123456789");
	put(f, "replaced", "0123456789");
	put(f, "touched", "0123456789");
	list(f);
	usleep(20000); /* the kernel's clock for ctime ticks every few milliseconds */
	put(f, "rewritten", "9876543210");
	fd = openat(f->root_fd, "grown", O_WRONLY | O_APPEND);
	assert_int_equal(write(fd, "x", 1), 1);
	close(fd);
	put(f, "new", "9876543210");
	renameat(f->root_fd, "new", f->root_fd, "replaced");
	fchmodat(f->root_fd, "touched", 0600, 0);
	assert_int_equal(get(f, find(f, "rewritten"), 0, buf, 10), ORIGIN_CHANGED);
	assert_int_equal(get(f, find(f, "grown"), 0, buf, 10), ORIGIN_CHANGED);
	assert_int_equal(get(f, find(f, "replaced"), 0, buf, 10), ORIGIN_CHANGED);
	assert_int_equal(get(f, find(f, "touched"), 0, buf, 10), ORIGIN_CHANGED);
	assert_int_equal(origin_bytes_received(f->origin), 0);
}

/* Changes the file in the middle of the read: called when the first chunk has arrived. */
static void rename_under_the_reader(void *arg, uint64_t filled)
{
	struct fixture *f = arg;

	if (filled == 1 << 20) {
		usleep(20000);
		renameat(f->root_fd, "new", f->root_fd, "big");
	}
}

static void a_change_during_the_read_is_noticed(void **state)
{
	struct fixture *f = *state;
	const uint64_t bytes = 4 << 20;
	unsigned char *dst = malloc(bytes);
	struct origin_get g = {.path = "big", .path_len = 3, .object_bytes = bytes, .len = bytes};
	int fd = openat(f->root_fd, "big", O_WRONLY | O_CREAT, 0644);

	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	close(fd);
	list(f);
	put(f, "new", "other");
	g.validator = find(f, "big")->validator;
	g.dst = dst;
	g.progress = rename_under_the_reader;
	g.arg = f;
	g.deadline_ms = clock_deadline_ms(5000);
	assert_int_equal(origin_get(f->origin, &g, NULL), ORIGIN_CHANGED);
	assert_int_equal(origin_bytes_received(f->origin), 1 << 20);
	free(dst);
}

static void a_file_that_is_gone_or_became_something_else_is_gone(void **state)
{
	struct fixture *f = *state;
	char buf[16];

	put(f, "deleted", "0123456789");
	put(f, "link", "0123456789");
	put(f, "pipe", "0123456789");
	list(f);
	unlinkat(f->root_fd, "deleted", 0);
	unlinkat(f->root_fd, "link", 0);
	assert_int_equal(symlinkat("/etc/passwd", f->root_fd, "link"), 0);
	unlinkat(f->root_fd, "pipe", 0);
	mkfifoat(f->root_fd, "pipe", 0644);
	assert_int_equal(get(f, find(f, "deleted"), 0, buf, 10), ORIGIN_GONE);
	assert_int_equal(get(f, find(f, "link"), 0, buf, 10), ORIGIN_GONE);
	assert_int_equal(get(f, find(f, "pipe"), 0, buf, 10), ORIGIN_CHANGED);
}

static void no_path_leads_out_of_the_root(void **state)
{
	struct fixture *f = *state;
	static const char *const paths[] = {"../secret", "d/../../secret", "/etc/passwd", "d//x",
		"./d/x", "link/secret", "d/..", ""};
	char outside[128], buf[16];

	mkdirat(f->root_fd, "d", 0755);
	put(f, "d/x", "0123456789");
	snprintf(outside, sizeof(outside), "%s/secret", f->dir);
	close(open(outside, O_CREAT | O_WRONLY, 0644));
	assert_int_equal(symlinkat("..", f->root_fd, "link"), 0);
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		struct seen s = {.size = 10};
		int r;

		strcpy(s.path, paths[i]);
		r = get(f, &s, 0, buf, 10);
		if (r != ORIGIN_GONE && r != ORIGIN_CHANGED)
			fail_msg("%s: %d", paths[i], r);
	}
}

static void paths_longer_than_path_max_work(void **state)
{
	struct fixture *f = *state;
	char name[201], path[5200] = "", buf[4] = "";
	int dir = dup(f->root_fd), fd;
	struct origin_get g = {.object_bytes = 2, .len = 2, .validator = "", .path = path};

	memset(name, 'n', 200);
	name[200] = '\0';
	for (int i = 0; i < 25; i++) {
		int next;

		mkdirat(dir, name, 0755);
		next = openat(dir, name, O_RDONLY | O_DIRECTORY);
		close(dir);
		dir = next;
		strcat(path, name);
		strcat(path, "/");
	}
	fd = openat(dir, "f", O_CREAT | O_WRONLY, 0644);
	assert_int_equal(write(fd, "ok", 2), 2);
	close(fd);
	strcat(path, "f");
	g.path_len = strlen(path);
	g.dst = (unsigned char *)buf;
	g.deadline_ms = clock_deadline_ms(5000);
	assert_int_equal(origin_get(f->origin, &g, NULL), 0);
	assert_string_equal(buf, "ok");
	/* nftw cannot remove it by its full path. */
	unlinkat(dir, "f", 0);
	for (int i = 0; i < 25; i++) {
		int up = openat(dir, "..", O_RDONLY | O_DIRECTORY);

		close(dir);
		dir = up;
		unlinkat(dir, name, AT_REMOVEDIR);
	}
	close(dir);
}

static void a_root_that_is_away_is_a_failure_of_its_own(void **state)
{
	struct fixture *f = *state;
	struct error err = ERROR_INIT;
	char away[128], buf[16];

	put(f, "file", "0123456789");
	list(f);
	snprintf(away, sizeof(away), "%s/away", f->dir);
	assert_int_equal(rename(f->root, away), 0);
	assert_int_equal(get_within(f, find(f, "file"), 0, buf, 10, 200), -ETIMEDOUT);
	assert_int_equal(origin_list(f->origin, note, f, NULL, CLOCK_NEVER, &err), -EIO);
	assert_non_null(strstr(err.text, f->root));
	/* It comes back, and so do the reads. */
	assert_int_equal(rename(away, f->root), 0);
	assert_int_equal(get(f, find(f, "file"), 0, buf, 10), 0);
}

static void what_may_not_be_read_is_a_clear_error(void **state)
{
	struct fixture *f = *state;
	pid_t pid;
	int status;

	put(f, "private", "0123456789");
	mkdirat(f->root_fd, "locked", 0700);
	put(f, "locked/x", "x");
	fchmodat(f->root_fd, "private", 0600, 0);
	chmod(f->dir, 0755);
	list(f);
	if (geteuid() != 0)
		skip();
	pid = fork();
	if (pid == 0) {
		char buf[16];
		int bad = 0;

		if (setgid(65534) < 0 || setuid(65534) < 0)
			_exit(9);
		bad |= get(f, find(f, "private"), 0, buf, 10) != -EACCES;
		f->n_seen = 0;
		bad |= (origin_list(f->origin, note, f, NULL, CLOCK_NEVER, NULL) != 0) << 1;
		bad |= (f->n_seen != 3) << 2; /* the directory, the file, and the report */
		_exit(bad);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void a_wide_tree_is_listed_completely_by_many_threads(void **state)
{
	struct fixture *f = *state;
	char path[64];

	for (int i = 0; i < 60; i++) {
		snprintf(path, sizeof(path), "d%d", i);
		mkdirat(f->root_fd, path, 0755);
		for (int j = 0; j < 50; j++) {
			snprintf(path, sizeof(path), "d%d/f%d", i, j);
			put(f, path, "x");
		}
	}
	list(f);
	assert_int_equal(f->n_seen, 60 + 60 * 50);
	find(f, "d59/f49");
}

static void a_cancelled_listing_ends(void **state)
{
	struct fixture *f = *state;
	atomic_bool cancel = true;

	put(f, "file", "x");
	assert_int_equal(origin_list(f->origin, note, f, &cancel, CLOCK_NEVER, NULL), -ECANCELED);
	assert_int_equal(origin_list(f->origin, note, f, NULL, clock_mono_ms(), NULL), -ETIMEDOUT);
}

static void urls_are_checked_and_decoded(void **state)
{
	static const char *const bad[] = {"file://", "file://dir", "file://host/dir",
		"file:///a%00b", "gopher://x/", "", "nonsense"};
	struct fixture *f = *state;
	struct origin *o;
	char url[128], room[256];
	struct origin_entry e;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(origin_open(bad[i], NULL, &o, NULL), -EINVAL);
	mkdirat(f->root_fd, "with space", 0755);
	put(f, "with space/file", "abc");
	snprintf(url, sizeof(url), "file://localhost%s/with%%20space//", f->root);
	assert_int_equal(origin_open(url, NULL, &o, NULL), 0);
	assert_int_equal(origin_stat(o, "file", 4, &e, room, CLOCK_NEVER, NULL), 0);
	assert_int_equal(e.size, 3);
	assert_int_equal(e.type, ORIGIN_FILE);
	origin_free(o);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(a_tree_is_listed_with_types_modes_and_sizes),
		T(symlinks_inside_are_kept_and_those_that_leave_are_reported),
		T(ranges_are_read_exactly),
		T(a_large_sparse_file_is_read_as_zeros_with_progress),
		T(what_changed_since_the_listing_is_never_served),
		T(a_change_during_the_read_is_noticed),
		T(a_file_that_is_gone_or_became_something_else_is_gone),
		T(no_path_leads_out_of_the_root),
		T(paths_longer_than_path_max_work),
		T(a_root_that_is_away_is_a_failure_of_its_own),
		T(what_may_not_be_read_is_a_clear_error),
		T(a_wide_tree_is_listed_completely_by_many_threads),
		T(a_cancelled_listing_ends),
		T(urls_are_checked_and_decoded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

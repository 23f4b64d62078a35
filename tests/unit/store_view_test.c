#include "store_fixture.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "store/lease_proto.h"
#include "store/store_private.h"
#include "store/store_view.h"

static char socket_path[300];

static struct store_lease_server *serve(struct store *s)
{
	struct store_lease_server *l = NULL;
	struct error err = ERROR_INIT;
	int r;

	snprintf(socket_path, sizeof(socket_path), "%s.sock", fixture_dir);
	r = store_lease_server_start(s, socket_path, NULL, &l, &err);
	if (r < 0)
		fprintf(stderr, "%s\n", err.text);
	assert_int_equal(r, 0);
	return l;
}

static struct store_view *view(void)
{
	struct store_view_options opts = {.socket_path = socket_path};
	struct store_view *v = NULL;

	assert_int_equal(store_view_new(&opts, &v, NULL), 0);
	return v;
}

static int view_read(
	struct store_view *v, const struct store_block *b, uint32_t offset, uint32_t len)
{
	size_t room = ((size_t)len + STORE_VIEW_EXTRA_BYTES + 4095) / 4096 * 4096;
	char *exact = malloc(len), *roomy = aligned_alloc(4096, room);
	int r = store_view_read(v, b, offset, len, exact, len);

	/* However it is read, the bytes are the same. */
	assert_int_equal(store_view_read(v, b, offset, len, roomy, room), r);
	if (r == 0) {
		assert_true(fixture_same(b, exact, offset, len));
		assert_true(fixture_same(b, roomy, offset, len));
	}
	free(exact);
	free(roomy);
	return r;
}

static uint64_t held_bytes(struct store *s)
{
	struct store_stat st;

	store_stat(s, &st);
	return st.held_bytes;
}

static void a_view_reads_what_the_owner_stored(void **state)
{
	struct store *s = fixture_open(256 * MIB);
	struct store_lease_server *l = serve(s);
	struct store_view *v = view();
	struct store_block small = fixture_block(1, 1, 110000, 0);
	struct store_block large = fixture_block(1, 2, 2 * BLOCK_BYTES + 99, 1);

	(void)state;
	assert_true(store_view_connected(v));
	fixture_plan(s, 1, 100 * MIB, UINT64_MAX);
	assert_int_equal(view_read(v, &small, 0, small.len), STORE_MISS);
	assert_int_equal(fixture_put(s, &small, STORE_ADMIT_GRANT), 0);
	assert_int_equal(fixture_put(s, &large, STORE_ADMIT_GRANT), 0);
	assert_true(store_view_has(v, &small.id));
	assert_int_equal(view_read(v, &small, 0, small.len), 0);
	assert_int_equal(view_read(v, &small, 70000, 5), 0);
	assert_int_equal(view_read(v, &large, 0, large.len), 0);
	assert_int_equal(view_read(v, &large, 4000000, 194304), 0);
	store_view_free(v);
	store_lease_server_stop(l);
	store_close(s);
}

/* Bytes of the store's first segment that the page cache has; -1: it cannot be read past it. */
static ssize_t segment_cached(bool drop)
{
	unsigned char resident[1024];
	ssize_t pages = 0;
	char path[300];
	struct stat st;
	void *map;
	int fd;

	snprintf(path, sizeof(path), "%s/segments/1", fixture_dir);
	fd = open(path, O_RDONLY | O_DIRECT);
	if (fd < 0)
		return -1;
	assert_int_equal(fstat(fd, &st), 0);
	assert_true(st.st_size / 4096 <= (off_t)sizeof(resident));
	if (drop)
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	assert_int_equal(mincore(map, (size_t)st.st_size, resident), 0);
	for (off_t i = 0; i < st.st_size / 4096; i++)
		pages += resident[i] & 1;
	munmap(map, (size_t)st.st_size);
	close(fd);
	return pages * 4096;
}

static void a_small_block_is_read_past_the_page_cache(void **state)
{
	struct store *s = fixture_open(256 * MIB);
	struct store_lease_server *l = serve(s);
	struct store_view *v = view();
	struct store_block b = fixture_block(1, 1, 110000, 0);
	size_t room = 112 * 1024 + STORE_VIEW_EXTRA_BYTES;
	char *data = aligned_alloc(4096, room);

	(void)state;
	fixture_plan(s, 1, 100 * MIB, UINT64_MAX);
	assert_int_equal(fixture_put(s, &b, STORE_ADMIT_GRANT), 0);
	assert_int_equal(store_sync(s, NULL), 0);
	if (segment_cached(true) == 0) {
		assert_int_equal(store_view_read(v, &b, 0, b.len, data, room), 0);
		assert_true(fixture_same(&b, data, 0, b.len));
		assert_int_equal(segment_cached(false), 0);
		/* Without room for its checks it is read as before. */
		assert_int_equal(store_view_read(v, &b, 0, b.len, data, b.len), 0);
		assert_true(segment_cached(false) > 0);
	} else {
		print_message("this file system does not read past its page cache\n");
	}
	free(data);
	store_view_free(v);
	store_lease_server_stop(l);
	store_close(s);
}

static void a_view_made_before_the_worker_connects_by_itself(void **state)
{
	struct store_lease_server *l;
	struct store_block b = fixture_block(1, 1, 110000, 0);
	struct store_view *v;
	struct store *s;

	(void)state;
	snprintf(socket_path, sizeof(socket_path), "%s.sock", fixture_dir);
	v = view();
	assert_false(store_view_connected(v));
	assert_int_equal(view_read(v, &b, 0, b.len), STORE_MISS);
	s = fixture_open(64 * MIB);
	l = serve(s);
	assert_int_equal(fixture_put(s, &b, STORE_ADMIT_ELASTIC), 0);
	EVENTUALLY(store_view_connected(v));
	assert_int_equal(view_read(v, &b, 0, b.len), 0);
	store_view_free(v);
	store_lease_server_stop(l);
	store_close(s);
}

static void a_view_survives_its_workers_death_and_finds_the_next_one(void **state)
{
	struct store *s = fixture_open(64 * MIB);
	struct store_lease_server *l = serve(s);
	struct store_view *v = view();
	struct store_block b = fixture_block(1, 1, 110000, 0), c = fixture_block(1, 2, 9000, 0);

	(void)state;
	assert_int_equal(fixture_put(s, &b, STORE_ADMIT_ELASTIC), 0);
	assert_int_equal(view_read(v, &b, 0, b.len), 0);
	store_lease_server_stop(l);
	store_close(s);
	EVENTUALLY(!store_view_connected(v));
	assert_int_equal(view_read(v, &b, 0, b.len), 0);
	s = fixture_open(64 * MIB);
	l = serve(s);
	assert_int_equal(fixture_put(s, &c, STORE_ADMIT_ELASTIC), 0);
	EVENTUALLY(store_view_connected(v));
	assert_int_equal(view_read(v, &b, 0, b.len), 0);
	assert_int_equal(view_read(v, &c, 0, c.len), 0);
	store_view_free(v);
	store_lease_server_stop(l);
	store_close(s);
}

static void dropped_blocks_of_a_file_that_a_view_holds_stay_charged_until_it_lets_go(void **state)
{
	struct store *s = fixture_open(64 * MIB);
	struct store_lease_server *l = serve(s);
	uint64_t bytes = 3 * BLOCK_BYTES;
	struct store_block b = fixture_block(1, 1, bytes, 0), c = fixture_block(1, 1, bytes, 1);
	uint32_t generation;
	int fds[2];

	(void)state;
	fixture_plan(s, 1, 40 * MIB, UINT64_MAX);
	assert_int_equal(fixture_put(s, &b, STORE_ADMIT_GRANT), 0);
	assert_int_equal(fixture_put(s, &c, STORE_ADMIT_GRANT), 0);
	/* As the server does for a view, but one that does not let go when asked. */
	assert_int_equal(store_hold(s, 1, HOLD_SPARSE, fds, &generation), 0);
	assert_int_equal(store_remove_dataset(s, 1, NULL), 0);
	assert_int_equal(store_sync(s, NULL), 0);
	assert_false(store_has(s, &b.id));
	assert_int_equal(held_bytes(s), 2 * BLOCK_BYTES);
	close(fds[0]);
	close(fds[1]);
	store_release(s, 1);
	EVENTUALLY(held_bytes(s) == 0);
	store_lease_server_stop(l);
	store_close(s);
}

static void assert_file_holds(int fd, const struct store_block *b)
{
	void *data = malloc(b->len);

	assert_non_null(data);
	assert_int_equal(pread(fd, data, b->len, (off_t)(b->index * BLOCK_BYTES)), (ssize_t)b->len);
	assert_true(fixture_same(b, data, 0, b->len));
	free(data);
}

static void a_dropped_block_of_a_held_file_is_stored_again_beside_it(void **state)
{
	struct store *s = fixture_open(64 * MIB);
	struct store_block b = fixture_block(1, 1, 3 * BLOCK_BYTES - 5, 1),
			   c = fixture_block(1, 1, 3 * BLOCK_BYTES - 5, 2);
	struct directory_entry e;
	uint32_t generation;
	int fds[2];

	(void)state;
	fixture_plan(s, 1, 40 * MIB, UINT64_MAX);
	assert_int_equal(fixture_put(s, &b, STORE_ADMIT_GRANT), 0);
	assert_int_equal(fixture_put(s, &c, STORE_ADMIT_GRANT), 0);
	assert_int_equal(store_hold(s, 1, HOLD_SPARSE, fds, &generation), 0);
	assert_true(directory_lookup(s->directory, &c.id, &e));
	store_drop_damaged(s, &e);
	assert_int_equal(fixture_put(s, &c, STORE_ADMIT_GRANT), 0);
	assert_int_equal(fixture_read(s, &c), 0);
	assert_true(directory_lookup(s->directory, &c.id, &e));
	assert_int_equal(e.flags & FLAG_SPARSE, 0);
	/* What the reader holds was not touched, and is charged beside the new copy. */
	assert_int_equal(store_sync(s, NULL), 0);
	assert_file_holds(fds[0], &c);
	assert_true(held_bytes(s) >= c.len);
	close(fds[0]);
	close(fds[1]);
	store_release(s, 1);
	EVENTUALLY(held_bytes(s) == 0);
	store_close(s);
	s = fixture_open(64 * MIB);
	assert_int_equal(fixture_read(s, &b), 0);
	assert_int_equal(fixture_read(s, &c), 0);
	/* Its place in the object's file is free for whoever comes next. */
	assert_true(directory_lookup(s->directory, &c.id, &e));
	store_drop_damaged(s, &e);
	assert_int_equal(fixture_put(s, &c, STORE_ADMIT_GRANT), 0);
	assert_true(directory_lookup(s->directory, &c.id, &e));
	assert_int_equal(e.flags & FLAG_SPARSE, FLAG_SPARSE);
	assert_int_equal(fixture_read(s, &c), 0);
	store_close(s);
}

static void a_view_lets_go_when_it_is_asked(void **state)
{
	struct store *s = fixture_open(64 * MIB);
	struct store_lease_server *l = serve(s);
	struct store_view *v = view();
	struct store_block b = fixture_block(1, 1, 3 * BLOCK_BYTES, 0);

	(void)state;
	fixture_plan(s, 1, 40 * MIB, UINT64_MAX);
	assert_int_equal(fixture_put(s, &b, STORE_ADMIT_GRANT), 0);
	assert_int_equal(view_read(v, &b, 0, b.len), 0);
	assert_int_equal(store_remove_dataset(s, 1, NULL), 0);
	assert_int_equal(view_read(v, &b, 0, b.len), STORE_MISS);
	EVENTUALLY(held_bytes(s) == 0);
	EVENTUALLY(fixture_du() < 4 * MIB);
	store_view_free(v);
	store_lease_server_stop(l);
	store_close(s);
}

static void a_view_that_dies_lets_go(void **state)
{
	struct store *s = fixture_open(64 * MIB);
	struct store_lease_server *l = serve(s);
	struct store_block b = fixture_block(1, 1, 3 * BLOCK_BYTES, 0);
	int pipefd[2];
	char ready;
	pid_t pid;

	(void)state;
	fixture_plan(s, 1, 40 * MIB, UINT64_MAX);
	assert_int_equal(fixture_put(s, &b, STORE_ADMIT_GRANT), 0);
	assert_int_equal(pipe(pipefd), 0);
	pid = fork();
	if (pid == 0) {
		struct store_view *v = view();

		if (view_read(v, &b, 0, b.len) != 0 || write(pipefd[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	assert_int_equal(read(pipefd[0], &ready, 1), 1);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(pipefd[0]);
	close(pipefd[1]);
	assert_int_equal(store_remove_dataset(s, 1, NULL), 0);
	EVENTUALLY(held_bytes(s) == 0);
	EVENTUALLY(fixture_du() < 4 * MIB);
	store_lease_server_stop(l);
	store_close(s);
}

static void damage_that_a_view_finds_is_reported_and_dropped(void **state)
{
	struct store *s = fixture_open(64 * MIB);
	struct store_lease_server *l = serve(s);
	struct store_view *v = view();
	struct store_block b = fixture_block(1, 1, 110000, 0);
	char path[400];
	int fd;

	(void)state;
	assert_int_equal(fixture_put(s, &b, STORE_ADMIT_ELASTIC), 0);
	snprintf(path, sizeof(path), "%s/segments/1", fixture_dir);
	fd = open(path, O_WRONLY);
	assert_int_equal(pwrite(fd, "damage", 6, 100), 6);
	close(fd);
	assert_int_equal(view_read(v, &b, 65536, 10), 0);
	assert_int_equal(view_read(v, &b, 0, b.len), STORE_MISS);
	EVENTUALLY(!store_has(s, &b.id));
	assert_int_equal(fixture_stat(s, 1).corrupt_blocks, 1);
	store_view_free(v);
	store_lease_server_stop(l);
	store_close(s);
}

static void send_message(int fd, const struct lease_message *m)
{
	assert_int_equal(lease_send(fd, m, NULL, 0), 0);
}

static void receive_message(int fd, struct lease_message *m)
{
	int fds[2], r = -EAGAIN;

	for (int64_t end = clock_deadline_ms(20000); r == -EAGAIN && !clock_passed(end);) {
		r = lease_receive(fd, m, fds);
		usleep(1000);
	}
	assert_int_equal(r, 0);
	for (int i = 0; i < 2; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
}

/* Once an answer is here, the report has been dealt with. */
static void report(int fd, const struct directory_entry *e)
{
	struct lease_message m = {.magic = LEASE_MAGIC,
		.kind = LEASE_CORRUPT,
		.slot = e->slot,
		.seq = e->seq,
		.count = 1,
		.ids = {e->id}};

	send_message(fd, &m);
	m = (struct lease_message){.magic = LEASE_MAGIC, .kind = LEASE_OPEN, .file = 4711};
	send_message(fd, &m);
	do {
		receive_message(fd, &m);
	} while (m.kind == LEASE_REVOKE);
	assert_int_equal(m.kind, LEASE_OPENED);
}

static void a_late_report_of_damage_does_not_drop_the_copy_that_was_fetched_since(void **state)
{
	struct store *s = fixture_open(64 * MIB);
	struct store_lease_server *l = serve(s);
	struct lease_message m = {.magic = LEASE_MAGIC, .kind = LEASE_HELLO, .file = LEASE_VERSION};
	struct store_block b = fixture_block(1, 1, 110000, 0), other = fixture_block(1, 2, 9000, 0);
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct directory_entry first, second;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

	(void)state;
	strcpy(addr.sun_path, socket_path);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	send_message(fd, &m);
	receive_message(fd, &m);
	assert_int_equal(m.kind, LEASE_WELCOME);
	/* So that the file stays. */
	assert_int_equal(fixture_put(s, &other, STORE_ADMIT_ELASTIC), 0);
	assert_int_equal(fixture_put(s, &b, STORE_ADMIT_ELASTIC), 0);
	assert_true(directory_lookup(s->directory, &b.id, &first));
	report(fd, &first);
	assert_false(store_has(s, &b.id));
	/* Until it has the very place of the first copy. */
	do {
		assert_int_equal(fixture_put(s, &b, STORE_ADMIT_ELASTIC), 0);
		assert_true(directory_lookup(s->directory, &b.id, &second));
		if (second.page != first.page)
			store_drop_damaged(s, &second);
		assert_int_equal(store_sync(s, NULL), 0);
	} while (second.page != first.page);
	assert_int_equal(second.file, first.file);
	report(fd, &first);
	assert_true(store_has(s, &b.id));
	report(fd, &second);
	assert_false(store_has(s, &b.id));
	close(fd);
	store_lease_server_stop(l);
	store_close(s);
}

static void garbage_on_the_socket_disconnects_and_harms_nobody(void **state)
{
	struct store *s = fixture_open(64 * MIB);
	struct store_lease_server *l = serve(s);
	struct store_block b = fixture_block(1, 1, 110000, 0);
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct store_view *v;
	char garbage[5000];

	(void)state;
	strcpy(addr.sun_path, socket_path);
	assert_int_equal(fixture_put(s, &b, STORE_ADMIT_ELASTIC), 0);
	srand(3);
	for (int i = 0; i < 200; i++) {
		int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
		uint32_t head[6] = {0x4c617247u, (uint32_t)rand() % 10, (uint32_t)rand() % 4, 0,
			(uint32_t)rand() % 2, (uint32_t)rand() % 200};
		size_t len = (size_t)rand() % sizeof(garbage);

		for (size_t k = 0; k < sizeof(garbage); k++)
			garbage[k] = (char)rand();
		if (i % 2)
			memcpy(garbage, head, sizeof(head));
		assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
		send(fd, garbage, len, MSG_NOSIGNAL);
		send(fd, garbage, 24, MSG_NOSIGNAL);
		close(fd);
	}
	v = view();
	EVENTUALLY(store_view_connected(v));
	assert_int_equal(view_read(v, &b, 0, b.len), 0);
	store_view_free(v);
	store_lease_server_stop(l);
	store_close(s);
}

static void another_user_cannot_connect(void **state)
{
	struct store *s = fixture_open(64 * MIB);
	struct store_lease_server *l = serve(s);
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct stat st;
	int status;
	pid_t pid;

	(void)state;
	assert_int_equal(stat(socket_path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	if (geteuid() == 0) {
		/* Even where the socket's mode lets everybody in. */
		assert_int_equal(chmod(socket_path, 0666), 0);
		strcpy(addr.sun_path, socket_path);
		pid = fork();
		if (pid == 0) {
			struct store_view *v;

			if (setuid(65534) < 0)
				_exit(2);
			v = view();
			_exit(store_view_connected(v));
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(WEXITSTATUS(status), 0);
		assert_true(WIFEXITED(status));
	}
	store_lease_server_stop(l);
	store_close(s);
}

static void a_view_with_few_descriptors_reads_many_files(void **state)
{
	struct store *s = fixture_open(256 * MIB);
	struct store_lease_server *l = serve(s);
	struct store_view_options opts = {.socket_path = socket_path, .max_files = 2};
	struct store_view *v = NULL;

	(void)state;
	fixture_plan(s, 1, 200 * MIB, UINT64_MAX);
	assert_int_equal(store_view_new(&opts, &v, NULL), 0);
	for (int round = 0; round < 2; round++) {
		for (uint64_t n = 0; n < 12; n++) {
			struct store_block b = fixture_block(1, n, 2 * BLOCK_BYTES, 1);

			if (round == 0)
				assert_int_equal(fixture_put(s, &b, STORE_ADMIT_GRANT), 0);
			assert_int_equal(view_read(v, &b, 1000000, 100000), 0);
		}
	}
	store_view_free(v);
	store_lease_server_stop(l);
	store_close(s);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, fixture_setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_view_reads_what_the_owner_stored),
		TEST(a_small_block_is_read_past_the_page_cache),
		TEST(a_view_made_before_the_worker_connects_by_itself),
		TEST(a_view_survives_its_workers_death_and_finds_the_next_one),
		TEST(dropped_blocks_of_a_file_that_a_view_holds_stay_charged_until_it_lets_go),
		TEST(a_dropped_block_of_a_held_file_is_stored_again_beside_it),
		TEST(a_view_lets_go_when_it_is_asked),
		TEST(a_view_that_dies_lets_go),
		TEST(damage_that_a_view_finds_is_reported_and_dropped),
		TEST(a_late_report_of_damage_does_not_drop_the_copy_that_was_fetched_since),
		TEST(garbage_on_the_socket_disconnects_and_harms_nobody),
		TEST(another_user_cannot_connect),
		TEST(a_view_with_few_descriptors_reads_many_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

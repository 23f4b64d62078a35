#include "tests/unit/rpc_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

static void increment(struct rpc_call *call, void *arg)
{
	fixture_increment(call, arg);
}

static struct rpc_server *new_server(const char *token, const char *group)
{
	struct rpc_server_options opts = {.threads = 2, .token = token, .socket_group = group};
	struct error err = ERROR_INIT;
	struct rpc_server *s;

	assert_int_equal(rpc_server_new(&opts, &s, &err), 0);
	rpc_server_add(s, "/t.T/Inc", increment, NULL);
	return s;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	fixture_dir(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(rmdir(f->dir), 0);
	free(f);
	return 0;
}

static const char *socket_path(struct fixture *f)
{
	return f->address + strlen("unix:");
}

static void addresses_are_checked_with_a_clear_text(void **state)
{
	static const char *const good[] = {"unix:/run/x", "unix:/a b%c/#d", "127.0.0.1:80",
		"[::1]:443", "node-1.example.com:7070", "localhost:0", "0.0.0.0:65535"};
	static const char *const bad[] = {"", "unix:", "unix:relative", "/run/x", "host",
		"host:", ":80", "host:65536", "host:-1", "host:8o", "host:080000", "::1:80",
		"[::1]", "[::1:80", "[::g]:80", "[1.2.3.4]:80", "ho st:80", "-host:80",
		"http://h:80", "h\n:80", "unix-abstract:x"};
	char long_path[300] = "unix:/";
	struct error err;

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_int_equal(rpc_address_check(good[i], NULL), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		err = (struct error)ERROR_INIT;
		if (rpc_address_check(bad[i], &err) != -EINVAL)
			fail_msg("accepted \"%s\"", bad[i]);
		assert_non_null(strstr(err.text, "address"));
	}
	assert_int_equal(rpc_address_check(NULL, NULL), -EINVAL);
	memset(long_path + 6, 'x', 107 - 1);
	assert_int_equal(rpc_address_check(long_path, NULL), 0);
	memset(long_path + 6, 'x', 107);
	assert_int_equal(rpc_address_check(long_path, &err), -EINVAL);
	assert_non_null(strstr(err.text, "shorter"));
}

static void a_channel_refuses_an_address_it_cannot_dial(void **state)
{
	struct error err = ERROR_INIT;
	struct rpc_channel *ch;

	(void)state;
	assert_int_equal(rpc_channel_new("nonsense", NULL, &ch, &err), -EINVAL);
	assert_int_equal(rpc_channel_new("localhost:0", NULL, &ch, &err), -EINVAL);
}

static void the_socket_is_the_owners_alone(void **state)
{
	struct fixture *f = *state;
	struct rpc_server *s = new_server(NULL, NULL);
	mode_t old = umask(0);
	struct stat st;

	assert_int_equal(rpc_server_listen(s, f->address, NULL, NULL), 0);
	assert_int_equal(umask(old), 0);
	assert_int_equal(stat(socket_path(f), &st), 0);
	assert_true(S_ISSOCK(st.st_mode));
	assert_int_equal(st.st_mode & 07777, 0600);
	/* Never started. */
	rpc_server_free(s);
}

static void a_group_may_be_let_in(void **state)
{
	struct fixture *f = *state;
	struct group *g = getgrgid(getgid());
	struct rpc_server *s;
	struct stat st;

	assert_non_null(g);
	s = new_server(NULL, g->gr_name);
	assert_int_equal(rpc_server_listen(s, f->address, NULL, NULL), 0);
	assert_int_equal(stat(socket_path(f), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0660);
	assert_int_equal(st.st_gid, getgid());
	rpc_server_free(s);
}

static void an_unknown_group_is_an_error(void **state)
{
	struct fixture *f = *state;
	struct rpc_server *s = new_server(NULL, "no-such-group-here");
	struct error err = ERROR_INIT;

	assert_int_equal(rpc_server_listen(s, f->address, NULL, &err), -EINVAL);
	assert_non_null(strstr(err.text, "no-such-group-here"));
	rpc_server_free(s);
}

static void a_second_server_on_a_live_socket_is_refused(void **state)
{
	struct fixture *f = *state;
	struct rpc_server *first = new_server(NULL, NULL);
	struct rpc_server *second = new_server(NULL, NULL);
	struct error err = ERROR_INIT;
	struct rpc_channel *ch;

	assert_int_equal(rpc_server_listen(first, f->address, NULL, NULL), 0);
	assert_int_equal(rpc_server_start(first, NULL), 0);
	assert_int_equal(rpc_server_listen(second, f->address, NULL, &err), -EADDRINUSE);
	assert_non_null(strstr(err.text, f->address));
	rpc_server_free(second);
	/* And the first one is none the worse for it. */
	assert_int_equal(rpc_channel_new(f->address, NULL, &ch, NULL), 0);
	assert_int_equal(fixture_call(ch, "/t.T/Inc", 1, 5000, NULL, NULL), 0);
	rpc_channel_free(ch);
	rpc_server_stop(first, 0);
	rpc_server_free(first);
}

static void a_foreign_live_socket_is_left_alone(void **state)
{
	struct fixture *f = *state;
	struct rpc_server *s = new_server(NULL, NULL);
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", socket_path(f));
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(rpc_server_listen(s, f->address, NULL, NULL), -EADDRINUSE);
	assert_int_equal(access(socket_path(f), F_OK), 0);
	rpc_server_free(s);
	close(fd);
	unlink(socket_path(f));
}

static void a_stale_socket_is_replaced(void **state)
{
	struct fixture *f = *state;
	struct rpc_server *s = new_server(NULL, NULL);
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct rpc_channel *ch;
	char lock[160];

	/* What a killed process leaves: a socket and a lock file that nobody holds. */
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", socket_path(f));
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	close(fd);
	snprintf(lock, sizeof(lock), "%s.lock", socket_path(f));
	close(open(lock, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	assert_int_equal(rpc_server_listen(s, f->address, NULL, NULL), 0);
	assert_int_equal(rpc_server_start(s, NULL), 0);
	assert_int_equal(rpc_channel_new(f->address, NULL, &ch, NULL), 0);
	assert_int_equal(fixture_call(ch, "/t.T/Inc", 1, 5000, NULL, NULL), 0);
	rpc_channel_free(ch);
	rpc_server_stop(s, 0);
	rpc_server_free(s);
}

static void a_file_in_the_way_is_not_removed(void **state)
{
	struct fixture *f = *state;
	struct rpc_server *s = new_server(NULL, NULL);
	struct error err = ERROR_INIT;

	close(open(socket_path(f), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	assert_int_equal(rpc_server_listen(s, f->address, NULL, &err), -EEXIST);
	assert_non_null(strstr(err.text, socket_path(f)));
	assert_int_equal(access(socket_path(f), F_OK), 0);
	rpc_server_free(s);
	unlink(socket_path(f));
}

static void a_missing_directory_is_named(void **state)
{
	struct rpc_server *s = new_server(NULL, NULL);
	struct error err = ERROR_INIT;

	(void)state;
	assert_int_equal(rpc_server_listen(s, "unix:/nonexistent/dir/s", NULL, &err), -ENOENT);
	assert_non_null(strstr(err.text, "/nonexistent/dir/s"));
	rpc_server_free(s);
}

static void a_path_of_any_bytes_works(void **state)
{
	struct fixture *f = *state;
	struct rpc_server *s = new_server(NULL, NULL);
	struct rpc_channel *ch;
	char address[160];

	snprintf(address, sizeof(address), "unix:%s/a b%%41?#\xc3\xa9[x]", f->dir);
	assert_int_equal(rpc_server_listen(s, address, NULL, NULL), 0);
	assert_int_equal(access(address + 5, F_OK), 0);
	assert_int_equal(rpc_server_start(s, NULL), 0);
	assert_int_equal(rpc_channel_new(address, NULL, &ch, NULL), 0);
	assert_int_equal(fixture_call(ch, "/t.T/Inc", 1, 5000, NULL, NULL), 0);
	rpc_channel_free(ch);
	rpc_server_stop(s, 0);
	rpc_server_free(s);
}

static void tcp_wants_a_token(void **state)
{
	struct rpc_server *s = new_server(NULL, NULL);
	struct error err = ERROR_INIT;

	(void)state;
	assert_int_equal(rpc_server_listen(s, "127.0.0.1:0", NULL, &err), -EINVAL);
	assert_non_null(strstr(err.text, "token"));
	rpc_server_free(s);
}

static void a_taken_port_and_a_strange_address_are_told_apart(void **state)
{
	struct rpc_server *first = new_server(FIXTURE_TOKEN, NULL);
	struct rpc_server *second = new_server(FIXTURE_TOKEN, NULL);
	struct error err = ERROR_INIT;
	char address[64];
	int port = 0;

	(void)state;
	assert_int_equal(rpc_server_listen(first, "127.0.0.1:0", &port, NULL), 0);
	assert_true(port > 0);
	snprintf(address, sizeof(address), "127.0.0.1:%d", port);
	assert_int_equal(rpc_server_listen(second, address, NULL, &err), -EADDRINUSE);
	assert_non_null(strstr(err.text, address));
	assert_int_equal(rpc_server_listen(second, "192.0.2.1:7070", NULL, &err), -EADDRNOTAVAIL);
	assert_int_equal(rpc_server_listen(second, "no-such-host.invalid:70", NULL, &err), -EINVAL);
	rpc_server_free(second);
	rpc_server_free(first);
}

static void names_and_ipv6_can_be_dialled(void **state)
{
	struct rpc_server *s = new_server(FIXTURE_TOKEN, NULL);
	struct rpc_channel *ch;
	char address[64];
	int port = 0, port6 = 0;

	(void)state;
	assert_int_equal(rpc_server_listen(s, "localhost:0", &port, NULL), 0);
	/* A machine may have no IPv6. */
	rpc_server_listen(s, "[::1]:0", &port6, NULL);
	assert_int_equal(rpc_server_start(s, NULL), 0);
	snprintf(address, sizeof(address), "localhost:%d", port);
	assert_int_equal(rpc_channel_new(address, FIXTURE_TOKEN, &ch, NULL), 0);
	assert_int_equal(fixture_call(ch, "/t.T/Inc", 1, 10000, NULL, NULL), 0);
	rpc_channel_free(ch);
	if (port6 > 0) {
		snprintf(address, sizeof(address), "[::1]:%d", port6);
		assert_int_equal(rpc_channel_new(address, FIXTURE_TOKEN, &ch, NULL), 0);
		assert_int_equal(fixture_call(ch, "/t.T/Inc", 1, 10000, NULL, NULL), 0);
		rpc_channel_free(ch);
	}
	rpc_server_stop(s, 0);
	rpc_server_free(s);
}

static void proxies_of_the_environment_are_not_used(void **state)
{
	struct rpc_server *s = new_server(FIXTURE_TOKEN, NULL);
	struct rpc_channel *ch;
	char address[64];
	int port = 0;

	(void)state;
	setenv("http_proxy", "http://127.0.0.1:1", 1);
	setenv("grpc_proxy", "http://127.0.0.1:1", 1);
	assert_int_equal(rpc_server_listen(s, "127.0.0.1:0", &port, NULL), 0);
	assert_int_equal(rpc_server_start(s, NULL), 0);
	snprintf(address, sizeof(address), "localhost:%d", port);
	assert_int_equal(rpc_channel_new(address, FIXTURE_TOKEN, &ch, NULL), 0);
	assert_int_equal(fixture_call(ch, "/t.T/Inc", 1, 10000, NULL, NULL), 0);
	rpc_channel_free(ch);
	unsetenv("http_proxy");
	unsetenv("grpc_proxy");
	rpc_server_stop(s, 0);
	rpc_server_free(s);
}

#define in_dir(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(addresses_are_checked_with_a_clear_text),
		cmocka_unit_test(a_channel_refuses_an_address_it_cannot_dial),
		in_dir(the_socket_is_the_owners_alone),
		in_dir(a_group_may_be_let_in),
		in_dir(an_unknown_group_is_an_error),
		in_dir(a_second_server_on_a_live_socket_is_refused),
		in_dir(a_foreign_live_socket_is_left_alone),
		in_dir(a_stale_socket_is_replaced),
		in_dir(a_file_in_the_way_is_not_removed),
		cmocka_unit_test(a_missing_directory_is_named),
		in_dir(a_path_of_any_bytes_works),
		cmocka_unit_test(tcp_wants_a_token),
		cmocka_unit_test(a_taken_port_and_a_strange_address_are_told_apart),
		cmocka_unit_test(names_and_ipv6_can_be_dialled),
		cmocka_unit_test(proxies_of_the_environment_are_not_used),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

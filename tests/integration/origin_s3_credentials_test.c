/* Where the S3 origin has its credentials from: files, and stand-ins of the services that hand out
 * temporary ones. */
#include "tests/integration/origin_s3_fault_server.h"

static void open_with_identity(const char *identity)
{
	struct origin_options *opts = options();
	char token[128];

	snprintf(token, sizeof(token), "%s/token", dir);
	write_text(token, identity);
	origin_options_set(opts, "web-identity-token-file", token, NULL);
	origin_options_set(opts, "role-arn", "arn:aws:iam::1:role/r", NULL);
	open_origin(opts, "s3://bkt/");
}

static void web_identity_gives_credentials(void **state)
{
	(void)state;
	open_with_identity("the.token/\n");
	assert_int_equal(get("fine", 0, 10, NULL), 0);
	assert_signed_by("WEBKEY", "webtoken");
	assert_int_equal(get("fine", 0, 10, NULL), 0);
	assert_int_equal(atomic_load(&handed_out), 1);
}

static void a_refused_web_identity_is_a_clear_error(void **state)
{
	struct error err = ERROR_INIT;

	(void)state;
	open_with_identity("wrong-token");
	assert_int_equal(get("fine", 0, 10, &err), -EACCES);
	assert_non_null(strstr(err.text, "web identity: HTTP 400: InvalidIdentityToken"));
	assert_null(strstr(err.text, "wrong-token"));
	assert_int_equal(atomic_load(&server->requests), 1);
}

static void a_token_service_that_repeats_the_token_is_not_quoted(void **state)
{
	struct error err = ERROR_INIT;

	(void)state;
	open_with_identity("echo-0123456789abcdef");
	assert_int_equal(get("fine", 0, 10, &err), -EACCES);
	assert_non_null(strstr(err.text, "HTTP 400: it repeats the token"));
	assert_null(strstr(err.text, "0123"));
}

static void a_token_service_that_cannot_reach_the_provider_is_asked_again(void **state)
{
	struct error err = ERROR_INIT;

	(void)state;
	open_with_identity("busy.token");
	assert_true(get("fine", 0, 10, &err) < 0);
	assert_non_null(strstr(err.text, "IDPCommunicationError"));
	assert_true(atomic_load(&server->requests) > 1);
}

static void a_web_identity_is_not_sent_on_to_another_place(void **state)
{
	struct error err = ERROR_INIT;

	(void)state;
	open_with_identity("moved.token");
	assert_int_equal(get("fine", 0, 10, &err), -EACCES);
	assert_non_null(strstr(err.text, "HTTP 307"));
	assert_int_equal(atomic_load(&server->requests), 1);
}

static void a_container_gives_credentials(void **state)
{
	struct origin_options *opts = options();
	char url[64], token[128];

	(void)state;
	snprintf(url, sizeof(url), "http://127.0.0.1:%d/container", server->port);
	snprintf(token, sizeof(token), "%s/token", dir);
	write_text(token, "con-tok");
	origin_options_set(opts, "container-credentials-url", url, NULL);
	origin_options_set(opts, "container-token-file", token, NULL);
	open_origin(opts, "s3://bkt/");
	assert_int_equal(get("fine", 0, 10, NULL), 0);
	assert_signed_by("CONTAINERKEY", "jsontoken");
}

static void a_containers_token_is_not_sent_into_the_world(void **state)
{
	struct origin_options *opts = options();
	struct error err = ERROR_INIT;

	(void)state;
	origin_options_set(opts, "container-credentials-url", "http://example.com/x", NULL);
	origin_options_set(opts, "container-token", "con-tok", NULL);
	open_origin(opts, "s3://bkt/");
	assert_int_equal(get("fine", 0, 10, &err), -EACCES);
	assert_non_null(strstr(err.text, "neither https nor local"));
}

static void an_instance_gives_credentials_and_renews_them(void **state)
{
	(void)state;
	atomic_store(&lifetime_s, 2);
	open_origin(options(), "s3://bkt/");
	assert_int_equal(get("fine", 0, 10, NULL), 0);
	assert_signed_by("INSTANCEKEY", "jsontoken");
	assert_int_equal(get("fine", 0, 10, NULL), 0);
	assert_int_equal(atomic_load(&handed_out), 1);
	usleep(2200000);
	assert_int_equal(get("fine", 0, 10, NULL), 0);
	assert_int_equal(atomic_load(&handed_out), 2);
}

static void a_long_session_token_of_a_file_arrives_whole(void **state)
{
	struct origin_options *opts = options();
	char token[3001], text[4096];

	(void)state;
	for (int i = 0; i < 3000; i++)
		token[i] = "abcdefghijklmnopqrstuvwxyzABCDEFG/+=0123456789"[i * 7 % 46];
	token[3000] = '\0';
	snprintf(text, sizeof(text),
		"[job]\naws_access_key_id = FILEKEY\naws_session_token = %s\n"
		"aws_secret_access_key = s\n[other]\naws_access_key_id = NOT\n",
		token);
	write_text(path_a, text);
	write_text(path_b, "[profile job]\ns3 =\n  addressing_style = path\nregion = eu-west-9\n");
	origin_options_set(opts, "profile", "job", NULL);
	open_origin(opts, "s3://bkt/");
	assert_int_equal(get("fine", 0, 10, NULL), 0);
	assert_signed_by("FILEKEY", token);
}

static void *rewrite_soon(void *arg)
{
	static const char text[] =
		"[default]\naws_access_key_id = NEWKEY\naws_secret_access_key = s\n";

	(void)arg;
	write_text(path_a, text);
	return NULL;
}

static void expired_credentials_are_read_anew_from_their_file(void **state)
{
	static const char text[] =
		"[default]\naws_access_key_id = OLDKEY\naws_secret_access_key = s\n";
	struct error err = ERROR_INIT;

	(void)state;
	write_text(path_a, text);
	open_origin(options(), "s3://bkt/");
	assert_int_equal(get("fine", 0, 10, &err), -EACCES);
	assert_non_null(strstr(err.text, "ExpiredToken"));
	assert_int_equal(atomic_load(&server->requests), 2);
	rewrite_soon(NULL);
	assert_int_equal(get("fine", 0, 10, NULL), 0);
	assert_signed_by("NEWKEY", NULL);
}

static void profiles_that_cannot_be_used_say_why(void **state)
{
	static const char text[] = "[profile p]\ncredential_process = /bin/x\n"
				   "[profile q]\nrole_arn = a\nsource_profile = p\n";
	static const char *const cases[][2] = {
		{"p", "by a process"}, {"q", "assuming a role"}, {"r", "no profile 'r'"}};

	(void)state;
	write_text(path_b, text);
	for (int i = 0; i < 3; i++) {
		struct origin_options *opts = options();
		struct error err = ERROR_INIT;

		origin_options_set(opts, "profile", cases[i][0], NULL);
		open_origin(opts, "s3://bkt/");
		assert_int_equal(get("fine", 0, 10, &err), -EACCES);
		if (!strstr(err.text, cases[i][1]))
			fail_msg("%s", err.text);
	}
	write_text(path_b, "[default]\nnonsense\n");
	{
		struct error err = ERROR_INIT;

		open_origin(options(), "s3://bkt/");
		assert_true(get("fine", 0, 10, &err) < 0);
		assert_non_null(strstr(err.text, "line 2"));
	}
}

static void *get_fine(void *arg)
{
	const struct origin_get g = {.path = "fine",
		.path_len = 4,
		.validator = "\"good\"",
		.object_bytes = FAULT_BYTES,
		.len = 10,
		.dst = arg,
		.deadline_ms = clock_deadline_ms(20000)};

	return (void *)(intptr_t)origin_get(origin, &g, NULL);
}

static void many_that_need_credentials_ask_for_them_once(void **state)
{
	pthread_t threads[8];
	unsigned char rooms[8][16];

	(void)state;
	open_origin(options(), "s3://bkt/");
	for (int i = 0; i < 8; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, get_fine, rooms[i]), 0);
	for (int i = 0; i < 8; i++) {
		void *result;

		pthread_join(threads[i], &result);
		assert_null(result);
	}
	assert_int_equal(atomic_load(&handed_out), 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(web_identity_gives_credentials),
		T(a_refused_web_identity_is_a_clear_error),
		T(a_token_service_that_repeats_the_token_is_not_quoted),
		T(a_token_service_that_cannot_reach_the_provider_is_asked_again),
		T(a_web_identity_is_not_sent_on_to_another_place),
		T(a_container_gives_credentials),
		T(a_containers_token_is_not_sent_into_the_world),
		T(an_instance_gives_credentials_and_renews_them),
		T(a_long_session_token_of_a_file_arrives_whole),
		T(expired_credentials_are_read_anew_from_their_file),
		T(profiles_that_cannot_be_used_say_why),
		T(many_that_need_credentials_ask_for_them_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

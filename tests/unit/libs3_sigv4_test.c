/*
 * Signature Version 4 of the patched libs3 against the examples that AWS
 * publishes: those of "Authenticating Requests: Using the Authorization Header"
 * in the S3 API reference, and four of the general SigV4 test suite for what
 * the former leave out (sorting, trimming, repeated headers).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <libs3.h>

#define EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define S3_DATE "20130524T000000Z"
#define SUITE_DATE "20150830T123600Z"

static struct S3SignRequest s3_example(const char *method, const char *path, const char *query,
	const struct S3NameValue *headers, int headers_count)
{
	return (struct S3SignRequest){
		.method = method,
		.path = path,
		.query = query,
		.headersCount = headers_count,
		.headers = headers,
		.payloadHash = EMPTY_SHA256,
		.date = S3_DATE,
		.region = "us-east-1",
		.service = "s3",
		.accessKeyId = "AKIAIOSFODNN7EXAMPLE",
		.secretAccessKey = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
	};
}

static struct S3SignRequest suite_example(
	const char *query, const struct S3NameValue *headers, int headers_count)
{
	struct S3SignRequest request = s3_example("GET", "/", query, headers, headers_count);

	request.date = SUITE_DATE;
	request.service = "service";
	request.accessKeyId = "AKIDEXAMPLE";
	request.secretAccessKey = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
	return request;
}

static void assert_signature(const struct S3SignRequest *request, const char *expected)
{
	char authorization[1024];
	const char *signature;

	assert_int_equal(S3_sign_v4(request, sizeof(authorization), authorization), S3StatusOK);
	signature = strstr(authorization, "Signature=");
	assert_non_null(signature);
	assert_string_equal(signature + strlen("Signature="), expected);
}

static const struct S3NameValue read_headers[] = {
	{"host", "examplebucket.s3.amazonaws.com"},
	{"x-amz-content-sha256", EMPTY_SHA256},
	{"x-amz-date", S3_DATE},
};

static void get_object_with_range(void **state)
{
	/* Neither sorted nor in lower case: S3_sign_v4 sees to both. */
	static const struct S3NameValue headers[] = {
		{"x-amz-date", S3_DATE},
		{"Range", "bytes=0-9"},
		{"Host", "examplebucket.s3.amazonaws.com"},
		{"x-amz-content-sha256", EMPTY_SHA256},
	};
	struct S3SignRequest request = s3_example("GET", "/test.txt", NULL, headers, 4);
	char authorization[1024];

	(void)state;
	assert_int_equal(S3_sign_v4(&request, sizeof(authorization), authorization), S3StatusOK);
	assert_string_equal(authorization,
		"AWS4-HMAC-SHA256 "
		"Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
		"SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
		"Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

static void put_object(void **state)
{
	static const char payload[] =
		"44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
	static const struct S3NameValue headers[] = {
		{"Date", "Fri, 24 May 2013 00:00:00 GMT"},
		{"Host", "examplebucket.s3.amazonaws.com"},
		{"x-amz-date", S3_DATE},
		{"x-amz-storage-class", "REDUCED_REDUNDANCY"},
		{"x-amz-content-sha256", payload},
	};
	struct S3SignRequest request = s3_example("PUT", "/test%24file.text", "", headers, 5);

	(void)state;
	request.payloadHash = payload;
	assert_signature(
		&request, "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
}

static void get_bucket_lifecycle_signs_a_parameter_without_value(void **state)
{
	struct S3SignRequest request = s3_example("GET", "/", "lifecycle", read_headers, 3);

	(void)state;
	assert_signature(
		&request, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
}

static void list_objects_sorts_the_query(void **state)
{
	static const char expected[] =
		"34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7";
	struct S3SignRequest request =
		s3_example("GET", "/", "max-keys=2&prefix=J", read_headers, 3);

	(void)state;
	assert_signature(&request, expected);
	request.query = "prefix=J&max-keys=2";
	assert_signature(&request, expected);
}

static void suite_get_vanilla(void **state)
{
	static const struct S3NameValue headers[] = {
		{"Host", "example.amazonaws.com"},
		{"X-Amz-Date", SUITE_DATE},
	};
	struct S3SignRequest request = suite_example(NULL, headers, 2);

	(void)state;
	assert_signature(
		&request, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
}

static void suite_query_is_sorted_by_key(void **state)
{
	static const struct S3NameValue headers[] = {
		{"Host", "example.amazonaws.com"},
		{"X-Amz-Date", SUITE_DATE},
	};
	struct S3SignRequest request = suite_example("Param2=value2&Param1=value1", headers, 2);

	(void)state;
	assert_signature(
		&request, "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500");
}

static void suite_header_values_are_trimmed(void **state)
{
	static const struct S3NameValue headers[] = {
		{"Host", "example.amazonaws.com"},
		{"My-Header1", " value1"},
		{"My-Header2", " \"a   b   c\""},
		{"X-Amz-Date", SUITE_DATE},
	};
	struct S3SignRequest request = suite_example(NULL, headers, 4);

	(void)state;
	assert_signature(
		&request, "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736");
}

static void suite_repeated_headers_are_joined_in_order(void **state)
{
	static const struct S3NameValue headers[] = {
		{"Host", "example.amazonaws.com"},
		{"My-Header1", "value2"},
		{"My-Header1", "value2"},
		{"My-Header1", "value1"},
		{"X-Amz-Date", SUITE_DATE},
	};
	struct S3SignRequest request = suite_example(NULL, headers, 5);

	(void)state;
	assert_signature(
		&request, "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea");
}

static void limits_are_refusals(void **state)
{
	struct S3SignRequest request = s3_example("GET", "/", NULL, read_headers, 3);
	char authorization[1024], many[256] = "";
	int i;

	(void)state;
	assert_int_equal(S3_sign_v4(&request, 64, authorization), S3StatusHeadersTooLong);

	for (i = 0; i < 40; i++)
		strcat(many, "a=b&");
	request.query = many;
	assert_int_equal(S3_sign_v4(&request, sizeof(authorization), authorization),
		S3StatusQueryParamsTooLong);

	request.query = NULL;
	request.date = "20130524";
	assert_int_equal(
		S3_sign_v4(&request, sizeof(authorization), authorization), S3StatusHeadersTooLong);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(get_object_with_range),
		cmocka_unit_test(put_object),
		cmocka_unit_test(get_bucket_lifecycle_signs_a_parameter_without_value),
		cmocka_unit_test(list_objects_sorts_the_query),
		cmocka_unit_test(suite_get_vanilla),
		cmocka_unit_test(suite_query_is_sorted_by_key),
		cmocka_unit_test(suite_header_values_are_trimmed),
		cmocka_unit_test(suite_repeated_headers_are_joined_in_order),
		cmocka_unit_test(limits_are_refusals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

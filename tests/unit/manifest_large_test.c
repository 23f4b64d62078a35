/*
 * Ten million entries: minutes of a slow disk and 1.2 GB of it, so only with GRANARY_TEST_LARGE=1.
 * Says what it measured, and holds it against what the design promises.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/clock.h"
#include "manifest_fixture.h"
#include "manifest_generate.h"
#include "placement/pin.h"

enum { CLASSES = 10000 };

static long rss_anon_kib(void)
{
	FILE *f = fopen("/proc/self/status", "r");
	char line[256];
	long kib = -1;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		sscanf(line, "RssAnon: %ld kB", &kib);
	fclose(f);
	return kib;
}

static double since_s(int64_t begin_ns)
{
	return (double)(clock_mono_ns() - begin_ns) / 1e9;
}

static void build(struct fixture *f)
{
	char digest[MANIFEST_DIGEST_TEXT_BYTES];
	long before_kib = rss_anon_kib(), during_kib;
	int64_t begin = clock_mono_ns();
	struct manifest_builder *b;
	double seconds;

	assert_int_equal(manifest_builder_new(f->dir, 1, 1, 0, &fixture_root, &b, NULL), 0);
	assert_int_equal(generate_all(b, CLASSES, NULL), 0);
	during_kib = rss_anon_kib();
	assert_int_equal(manifest_builder_finish(b, digest, NULL), 0);
	manifest_builder_free(b);
	seconds = since_s(begin);
	printf("build: %.1f s, %.0f entries/s; RssAnon %ld KiB before, %ld KiB with all added\n",
		seconds, CLASSES * 1001.0 / seconds, before_kib, during_kib);
	assert_true(CLASSES * 1001.0 / seconds > 500000);
	assert_true(during_kib - before_kib < 4 << 10);
	snprintf(f->path, sizeof(f->path), "%s/%s.manifest", f->dir, digest);
}

static void ten_million_entries_are_practical(void **state)
{
	struct fixture f;
	struct manifest *m;
	uint64_t threshold, pinned;
	int64_t begin;
	double seconds;

	(void)state;
	fixture_init(&f);
	build(&f);
	begin = clock_mono_ns();
	m = fixture_open(&f);
	seconds = since_s(begin);
	printf("open: %.1f ms, %llu entries, %llu bytes\n", seconds * 1e3,
		(unsigned long long)manifest_info(m)->entries,
		(unsigned long long)manifest_info(m)->file_bytes);
	assert_true(seconds < 0.050);
	begin = clock_mono_ns();
	assert_int_equal(manifest_verify(m, NULL), 0);
	printf("verify: %.2f s\n", since_s(begin));
	begin = clock_mono_ns();
	assert_int_equal(
		pin_threshold(m, manifest_info(m)->bytes / 2, &threshold, &pinned, NULL), 0);
	printf("pin_threshold: %.2f s; RssAnon %ld KiB\n", since_s(begin), rss_anon_kib());
	assert_true(rss_anon_kib() < 16 << 10);
	manifest_unref(m);
	fixture_deinit(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ten_million_entries_are_practical),
	};
	const char *large = getenv("GRANARY_TEST_LARGE");

	if (!large || strcmp(large, "1") != 0) {
		printf("skipped: set GRANARY_TEST_LARGE=1 to build ten million entries\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}

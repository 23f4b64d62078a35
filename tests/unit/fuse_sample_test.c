/* What a mount sees of its sample, and makes of it. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fuse/fs.h"
#include "fuse/node_id.h"
#include "tests/unit/manifest_fixture.h"

#define FILES 2000
#define FILE_BYTES 1000
#define LARGE_BYTES (8 * BLOCK_BYTES + 5)
#define READ_BYTES ((uint32_t)1 << 20)
#define QUARTER_PPM (SAMPLE_PPM_MAX / 4)

static struct block_source no_source;

struct world {
	struct fixture fixture;
	struct manifest *manifest;
	struct fs fs;
};

static void build(struct world *w)
{
	static struct manifest_builder_entry entries[FILES + 1];
	static char names[FILES][16];

	for (int i = 0; i < FILES; i++) {
		snprintf(names[i], sizeof(names[i]), "f%05d", i);
		entries[i] = fixture_file(names[i], FILE_BYTES);
	}
	entries[FILES] = fixture_file("large", LARGE_BYTES);
	fixture_build(&w->fixture, entries, FILES + 1);
	w->manifest = fixture_open(&w->fixture);
}

/* There is no kernel to drop anything. */
static void begin(struct world *w, uint32_t ppm)
{
	struct fs_options opts = {.dataset = "d", .origin = "mem://d", .sample_ppm = ppm};
	struct error err = ERROR_INIT;
	bool counted = ppm == 0;

	memset(w, 0, sizeof(*w));
	fixture_init(&w->fixture);
	build(w);
	assert_int_equal(fs_init(&w->fs, &opts, w->manifest, &no_source, &err), 0);
	assert_int_equal(sample_start(&w->fs.sample, NULL, &err), 0);
	while (!counted) {
		usleep(1000);
		mutex_guard(&w->fs.sample.mu);
		counted = w->fs.sample.counted;
	}
}

static void end(struct world *w)
{
	sample_stop(&w->fs.sample);
	fs_stop(&w->fs);
	fs_deinit(&w->fs);
	manifest_unref(w->manifest);
	fixture_deinit(&w->fixture);
}

/* Every byte of every file, in requests of a mebibyte. */
static void read_all(struct world *w)
{
	for (uint32_t i = 1; i < manifest_info(w->manifest)->entries; i++) {
		struct fs_node node = FS_NODE_INIT;

		assert_int_equal(fs_node_get(&w->fs, node_id_make(0, i), &node), 0);
		for (uint64_t at = 0; at < node.entry.size; at += READ_BYTES) {
			uint64_t left = node.entry.size - at;

			sample_note(&w->fs.sample, &node, at,
				left < READ_BYTES ? (uint32_t)left : READ_BYTES);
		}
		fs_node_put(&node);
	}
}

static void assert_consumed(struct world *w, double bytes)
{
	struct sample_stat st;

	sample_stat(&w->fs.sample, &st);
	if (fabs((double)st.consumed_bytes - bytes) > 2)
		fail_msg("%lu bytes, not %.0f", (unsigned long)st.consumed_bytes, bytes);
}

static void all_of_an_epoch_is_seen_in_a_quarter_of_it(void **state)
{
	struct world w;
	uint64_t reads;

	(void)state;
	begin(&w, QUARTER_PPM);
	read_all(&w);
	assert_consumed(&w, FILES * FILE_BYTES + LARGE_BYTES);
	reads = w.fs.sample.seen.reads;
	/* Four standard deviations. */
	assert_true(reads > FILES / 4 - 80 && reads < FILES / 4 + 80);
	/* Before it is dropped one is read again: by somebody who had not finished. */
	read_all(&w);
	assert_int_equal(w.fs.sample.seen.reads, reads);
	assert_consumed(&w, 2.0 * (FILES * FILE_BYTES + LARGE_BYTES));
	end(&w);
}

static void without_a_sample_nothing_is_seen(void **state)
{
	struct world w;

	(void)state;
	begin(&w, 0);
	read_all(&w);
	assert_consumed(&w, 0);
	end(&w);
}

/* What is not dropped is not seen again. */
static void too_much_to_drop_is_no_estimate(void **state)
{
	struct world w;
	struct sample *s = &w.fs.sample;
	struct sample_unit *last;

	(void)state;
	begin(&w, SAMPLE_PPM_MAX);
	for (unsigned i = s->queued; i < SAMPLE_QUEUE_MAX; i++) {
		mutex_guard(&s->mu);
		last = &s->queue[(s->head + s->queued++) % SAMPLE_QUEUE_MAX];
		*last = (struct sample_unit){.ino = UINT64_MAX - i, .due_ms = CLOCK_NEVER};
	}
	assert_false(s->lost);
	read_all(&w);
	assert_true(s->lost);
	end(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_of_an_epoch_is_seen_in_a_quarter_of_it),
		cmocka_unit_test(without_a_sample_nothing_is_seen),
		cmocka_unit_test(too_much_to_drop_is_no_estimate),
	};

	return cmocka_run_group_tests_name("sample", tests, NULL, NULL);
}

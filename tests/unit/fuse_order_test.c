/* An announced order with its threads, against a source that is slow, fails, or never answers. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fuse/fs.h"
#include "fuse/thread.h"
#include "tests/unit/manifest_fixture.h"

#define FILES 400u
#define FILE_BYTES 20000u
#define READERS 8u
#define FAR_MS 60000

struct source {
	struct block_source source;
	atomic_int reads, at_once, most_at_once;
	atomic_bool fail, hang;
	atomic_int got[FILES + 1]; /* by entry */
};

struct world {
	struct fixture files;
	struct manifest *manifest;
	struct source source;
	struct fs fs;
	uint64_t list;
	uint32_t first; /* entry of the first file */
};

static unsigned char byte_at(uint32_t index, uint64_t offset)
{
	return (unsigned char)(index * 31 + offset * 2654435761u / 65536);
}

static int never_local(struct block_source *s, const struct block_range *range)
{
	(void)s;
	(void)range;
	return BLOCK_SOURCE_MISS;
}

static int slow_read(struct block_source *source, const struct block_range *range,
	int64_t deadline_ms, struct read_cancel *cancel, enum block_from *ret_from,
	struct error *err)
{
	struct source *s = (struct source *)source;
	int at_once = atomic_fetch_add(&s->at_once, 1) + 1;
	int most = atomic_load(&s->most_at_once);

	while (at_once > most && !atomic_compare_exchange_weak(&s->most_at_once, &most, at_once))
		;
	atomic_fetch_add(&s->reads, 1);
	usleep(1000);
	while (atomic_load(&s->hang) && !atomic_load(&cancel->fired) && !clock_passed(deadline_ms))
		usleep(1000);
	atomic_fetch_sub(&s->at_once, 1);
	if (atomic_load(&cancel->fired))
		return error_set(err, -ECANCELED, "called off");
	if (atomic_load(&s->fail))
		return error_set(err, -EIO, "the origin is on fire");
	atomic_fetch_add(&s->got[range->file->index], 1);
	for (uint32_t i = 0; i < range->len; i++)
		range->dst[i] = byte_at(range->file->index, range->offset + i);
	*ret_from = BLOCK_FROM_FETCH;
	return 0;
}

static void setup(struct world *w)
{
	static struct manifest_builder_entry entries[FILES];
	static char names[FILES][16];
	struct fs_options opts = {.dataset = "d",
		.origin = "mem://d",
		.order_memory_bytes = ORDER_MEMORY_LEAST_BYTES};
	struct error err = ERROR_INIT;

	memset(w, 0, sizeof(*w));
	fixture_init(&w->files);
	for (uint32_t i = 0; i < FILES; i++) {
		snprintf(names[i], sizeof(names[i]), "f%06u", i);
		entries[i] = fixture_file(names[i], FILE_BYTES);
	}
	fixture_build(&w->files, entries, FILES);
	w->manifest = fixture_open(&w->files);
	w->source.source = (struct block_source){.read_local = never_local, .read = slow_read};
	assert_int_equal(fs_init(&w->fs, &opts, w->manifest, &w->source.source, &err), 0);
	order_start(&w->fs.order);
	w->first = 1;
}

static void teardown(struct world *w)
{
	order_stop(&w->fs.order);
	fs_stop(&w->fs);
	fs_deinit(&w->fs);
	manifest_unref(w->manifest);
	fixture_deinit(&w->files);
}

static void announce(struct world *w, uint32_t count)
{
	struct manifest *m;

	assert_int_equal(order_begin(&w->fs.order, &w->list, &m), 0);
	manifest_unref(m);
	for (uint32_t i = 0; i < count; i++) {
		struct order_range range = {.index = w->first + i, .len = FILE_BYTES, .ends = 1};

		assert_int_equal(order_add(&w->fs.order, w->list, &range, 1), 0);
	}
	order_seal(&w->fs.order, w->list);
}

/* As ops_read does it; false where the reader had to get it himself. */
static bool read_file(struct world *w, uint32_t index)
{
	struct fs_node node = {.slot = 0, .index = index};
	struct order *o = &w->fs.order;
	struct read_cancel cancel;
	struct order_held held;
	enum order_answer answer = order_take(o, &node, 0, FILE_BYTES, &held);
	bool had = answer == ORDER_HAS;

	read_cancel_init(&cancel);
	if (answer == ORDER_BRINGS)
		had = order_await(
			o, &node, 0, FILE_BYTES, clock_deadline_ms(FAR_MS), &cancel, &held);
	read_cancel_deinit(&cancel);
	if (!had)
		return false;
	for (uint32_t i = 0; i < FILE_BYTES; i += 97)
		assert_int_equal(held.bytes[i], byte_at(index, i));
	order_release(o, &held, FILE_BYTES);
	return true;
}

struct reader {
	struct world *w;
	uint32_t first;
	unsigned had;
	pthread_t thread;
};

static void *reader_main(void *arg)
{
	struct reader *r = arg;

	for (uint32_t i = r->first; i < FILES; i += READERS)
		r->had += read_file(r->w, r->w->first + i);
	return NULL;
}

static unsigned read_all(struct world *w)
{
	struct reader readers[READERS];
	unsigned had = 0;

	for (uint32_t i = 0; i < READERS; i++) {
		readers[i] = (struct reader){.w = w, .first = i};
		assert_int_equal(thread_start(&readers[i].thread, reader_main, &readers[i]), 0);
	}
	for (uint32_t i = 0; i < READERS; i++) {
		pthread_join(readers[i].thread, NULL);
		had += readers[i].had;
	}
	return had;
}

static void many_readers_get_what_was_announced_once(void **state)
{
	struct world w;
	unsigned had;

	(void)state;
	setup(&w);
	announce(&w, FILES);
	while (atomic_load(&w.source.reads) < 50)
		usleep(1000);
	had = read_all(&w);
	assert_true(had >= 50);
	for (uint32_t i = 0; i < FILES; i++)
		assert_true(atomic_load(&w.source.got[w.first + i]) <= 1);
	assert_true(atomic_load(&w.source.most_at_once) > 1);
	assert_true(atomic_load(&w.source.most_at_once) <= ORDER_THREADS_MAX);
	order_tick(&w.fs.order);
	assert_false(order_is_active(&w.fs.order));
	assert_int_equal(counters_miss_bytes(&w.fs.counters), 0);
	teardown(&w);
}

static void a_failure_is_not_the_readers(void **state)
{
	struct order_stat st;
	struct world w;
	int reads;

	(void)state;
	setup(&w);
	atomic_store(&w.source.fail, true);
	announce(&w, FILES);
	while (atomic_load(&w.source.reads) == 0)
		usleep(1000);
	read_file(&w, w.first);
	/* It rests, instead of asking for the others at once. */
	usleep(100000);
	reads = atomic_load(&w.source.reads);
	assert_true(reads <= ORDER_THREADS_MAX);
	atomic_store(&w.source.fail, false);
	order_drop(&w.fs.order, w.list);
	announce(&w, FILES);
	do {
		usleep(10000);
		order_tick(&w.fs.order);
		order_stat(&w.fs.order, 0, &st);
	} while (st.tally.fetched_bytes - st.tally.dropped_bytes < FILES * (uint64_t)FILE_BYTES);
	assert_int_equal(read_all(&w), FILES);
	teardown(&w);
}

static void *await_first(void *arg)
{
	struct world *w = arg;

	assert_false(read_file(w, w->first));
	return NULL;
}

static void a_stop_ends_fetches_and_waiting_reads(void **state)
{
	struct world w;
	pthread_t waits;
	struct manifest *m;

	(void)state;
	setup(&w);
	atomic_store(&w.source.hang, true);
	announce(&w, FILES);
	while (atomic_load(&w.source.at_once) < 2)
		usleep(1000);
	assert_int_equal(thread_start(&waits, await_first, &w), 0);
	usleep(50000);
	order_stop(&w.fs.order);
	pthread_join(waits, NULL);
	assert_int_equal(order_begin(&w.fs.order, &w.list, &m), -ESHUTDOWN);
	assert_false(order_is_active(&w.fs.order));
	fs_stop(&w.fs);
	fs_deinit(&w.fs);
	manifest_unref(w.manifest);
	fixture_deinit(&w.files);
}

static void another_snapshot_drops_what_was_announced(void **state)
{
	struct order_range range = {.index = 1, .len = FILE_BYTES, .ends = 1};
	struct order_stat st;
	struct world w;

	(void)state;
	setup(&w);
	announce(&w, FILES);
	assert_int_equal(snapshot_slots_show(&w.fs.slots, w.manifest), 0);
	order_drop_all(&w.fs.order);
	order_stat(&w.fs.order, 0, &st);
	assert_int_equal(st.lists, 0);
	assert_int_equal(order_add(&w.fs.order, w.list, &range, 1), -ENOENT);
	/* The new one has nodes of its own. */
	announce(&w, FILES);
	assert_false(read_file(&w, w.first));
	teardown(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(many_readers_get_what_was_announced_once),
		cmocka_unit_test(a_failure_is_not_the_readers),
		cmocka_unit_test(a_stop_ends_fetches_and_waiting_reads),
		cmocka_unit_test(another_snapshot_drops_what_was_announced),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

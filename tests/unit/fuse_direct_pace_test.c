/* What a mount reads past every worker: no faster than it may, in order, and called off at once. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fuse/direct_pace.h"

#define NS_PER_S ((int64_t)1000000000)
#define SENT_MAX 100000
#define READERS 4
#define READ_BYTES 200000u

struct world {
	struct direct_pace pace;
	struct mutex mu;
	struct {
		int64_t ns;
		uint32_t bytes;
	} sent[SENT_MAX];
	size_t count;
	atomic_bool stop;
	atomic_int reads[READERS];
};

struct reader {
	struct world *w;
	int number;
	pthread_t thread;
};

static void send(struct world *w, uint32_t bytes)
{
	mutex_guard(&w->mu);

	assert_true(w->count < SENT_MAX);
	w->sent[w->count].ns = clock_mono_ns();
	w->sent[w->count++].bytes = bytes;
}

static void read_once(struct world *w, struct read_cancel *cancel)
{
	struct origin_pass pass;
	uint32_t bytes;

	for (uint32_t left = READ_BYTES; left > 0; left -= bytes) {
		bytes = direct_pace_begin(&w->pace, &pass, left, false, cancel);
		if (bytes == 0)
			return;
		usleep(1000);
		send(w, bytes);
		usleep(1000);
		direct_pace_end(&w->pace, &pass, bytes);
	}
}

static void *reader_main(void *arg)
{
	struct reader *r = arg;
	struct read_cancel cancel;

	read_cancel_init(&cancel);
	while (!r->w->stop) {
		read_once(r->w, &cancel);
		r->w->reads[r->number]++;
	}
	read_cancel_deinit(&cancel);
	return NULL;
}

static void start(struct world *w, struct reader readers[READERS])
{
	for (int i = 0; i < READERS; i++) {
		readers[i] = (struct reader){.w = w, .number = i};
		assert_int_equal(
			pthread_create(&readers[i].thread, NULL, reader_main, &readers[i]), 0);
	}
}

static void stop(struct world *w, struct reader readers[READERS])
{
	w->stop = true;
	direct_pace_free(&w->pace);
	for (int i = 0; i < READERS; i++)
		pthread_join(readers[i].thread, NULL);
}

static uint64_t sent_between(const struct world *w, int64_t from_ns, int64_t until_ns)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < w->count; i++)
		if (w->sent[i].ns >= from_ns && w->sent[i].ns < until_ns)
			sum += w->sent[i].bytes;
	return sum;
}

static uint64_t most_in_a_second(const struct world *w, int64_t from_ns, int64_t until_ns)
{
	uint64_t most = 0, sum;

	for (size_t i = 0; i < w->count; i++) {
		if (w->sent[i].ns < from_ns || w->sent[i].ns + NS_PER_S > until_ns)
			continue;
		sum = sent_between(w, w->sent[i].ns, w->sent[i].ns + NS_PER_S);
		most = sum > most ? sum : most;
	}
	return most;
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	direct_pace_init(&w->pace);
	mutex_init(&w->mu);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	direct_pace_deinit(&w->pace);
	mutex_deinit(&w->mu);
	free(w);
	return 0;
}

static void reads_share_the_rate_alike_and_in_no_second_have_more(void **state)
{
	struct world *w = *state;
	struct reader readers[READERS];
	int64_t from_ns, until_ns;
	int all = 0;

	direct_pace_lease(&w->pace, 2e6, clock_deadline_ms(60000), 2e6, clock_deadline_ms(60000));
	from_ns = clock_mono_ns();
	start(w, readers);
	sleep(3);
	until_ns = clock_mono_ns();
	for (int i = 0; i < READERS; i++)
		all += w->reads[i];
	for (int i = 0; i < READERS; i++)
		assert_in_range(w->reads[i], all / READERS - 1, all / READERS + 1);
	stop(w, readers);
	assert_true((double)most_in_a_second(w, from_ns, until_ns) <= 1.02 * 2e6);
	assert_true(sent_between(w, from_ns, until_ns) > 5000000);
}

static void a_lease_that_is_not_renewed_leaves_the_base_and_then_next_to_nothing(void **state)
{
	struct world *w = *state;
	struct reader readers[READERS];
	int64_t began_ns = clock_mono_ns();

	direct_pace_lease(&w->pace, 4e6, clock_deadline_ms(1000), 0.4e6, clock_deadline_ms(3500));
	start(w, readers);
	sleep(5);
	assert_true(direct_pace_rate(&w->pace) == ORIGIN_RATE_MIN_BYTES_PER_S);
	stop(w, readers);
	assert_true(sent_between(w, began_ns, began_ns + NS_PER_S) > 2500000);
	assert_true((double)most_in_a_second(w, began_ns + NS_PER_S * 11 / 10,
			    began_ns + NS_PER_S * 35 / 10) <= 1.02 * 0.4e6);
	assert_true(sent_between(w, began_ns + NS_PER_S * 37 / 10, began_ns + NS_PER_S * 47 / 10) <=
		    1.02 * ORIGIN_RATE_MIN_BYTES_PER_S);
}

struct called_off {
	struct world *w;
	struct read_cancel cancel;
	uint32_t got;
};

static void *wait_main(void *arg)
{
	struct called_off *c = arg;
	struct origin_pass pass;

	c->got = direct_pace_begin(&c->w->pace, &pass, READ_BYTES, true, &c->cancel);
	return NULL;
}

static void one_that_waits_is_called_off_and_its_wait_moves_its_deadline(void **state)
{
	struct world *w = *state;
	struct called_off c = {.w = w};
	struct origin_pass pass;
	pthread_t thread;
	int64_t began_ms = clock_mono_ms();

	read_cancel_init(&c.cancel);
	direct_pace_lease(&w->pace, 4096, CLOCK_NEVER, 4096, CLOCK_NEVER);
	assert_int_equal(direct_pace_begin(&w->pace, &pass, 4096, false, &c.cancel), 4096);
	direct_pace_end(&w->pace, &pass, 4096);
	assert_int_equal(pthread_create(&thread, NULL, wait_main, &c), 0);
	usleep(600000);
	assert_true(read_cancel_deadline_ms(&c.cancel, began_ms) >= began_ms + 300);
	read_cancel_fire(&c.cancel);
	pthread_join(thread, NULL);
	assert_int_equal(c.got, 0);
	read_cancel_deinit(&c.cancel);
}

static void without_a_limit_all_goes_at_once(void **state)
{
	struct world *w = *state;
	struct read_cancel cancel;
	struct origin_pass pass;

	read_cancel_init(&cancel);
	assert_int_equal(
		direct_pace_begin(&w->pace, &pass, READ_BYTES, false, &cancel), READ_BYTES);
	direct_pace_end(&w->pace, &pass, READ_BYTES);
	read_cancel_deinit(&cancel);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(reads_share_the_rate_alike_and_in_no_second_have_more),
		TEST(a_lease_that_is_not_renewed_leaves_the_base_and_then_next_to_nothing),
		TEST(one_that_waits_is_called_off_and_its_wait_moves_its_deadline),
		TEST(without_a_limit_all_goes_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

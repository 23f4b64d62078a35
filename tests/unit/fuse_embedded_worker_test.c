/* A source chain with a worker of the same process, which is called. */
#include "tests/unit/fuse_chain_fixture.h"

static int embedded_read(void *arg, const struct embedded_read *read, struct error *err)
{
	struct fake_worker *w = arg;
	enum behaviour behaviour = atomic_load(&w->behaviour);
	unsigned char data[CHUNK_BYTES];
	uint32_t len, end = read->offset + read->len;

	atomic_fetch_add(&w->asked, 1);
	while (behaviour == HANGS && !atomic_load(read->gone)) {
		if (clock_passed(read->deadline_ms))
			return error_set(err, -ETIMEDOUT, "too late");
		usleep(1000);
	}
	if (behaviour == HANGS)
		return error_set(err, -ECANCELED, "the reader is gone");
	if (behaviour == FAILS)
		return error_set(err, -EIO, "the disk is on fire");
	if (behaviour == STALE)
		return error_set(err, -ESTALE, "the object has changed");
	for (uint32_t at = read->offset; at < end; at += len) {
		len = end - at < CHUNK_BYTES ? end - at : CHUNK_BYTES;
		for (uint32_t i = 0; i < len; i++)
			data[i] = byte_at(at + i);
		read->take(read->arg, behaviour == SERVES_FETCHED, data, len);
	}
	return 0;
}

/* Stands for the last of the workers, whose socket stays unused; the others fail. */
static void embed(struct world *w, size_t workers, struct fake_worker *f, struct embedded_worker *e)
{
	make_world(w, workers, true);
	for (size_t i = 0; i + 1 < workers; i++)
		atomic_store(&w->workers[i].behaviour, FAILS);
	*e = (struct embedded_worker){.id = 99 + workers, .read = embedded_read, .arg = f};
	w->chain.embedded = e;
}

static int code_of_read(struct world *w, bool cancelled)
{
	struct read_cancel cancel;
	struct error err = ERROR_INIT;
	enum block_from from;
	int r;

	read_cancel_init(&cancel);
	if (cancelled)
		read_cancel_fire(&cancel);
	r = read_some(w, 0, 1000, FAR_MS, &cancel, &from, &err);
	read_cancel_deinit(&cancel);
	return r;
}

static void the_worker_of_this_process_is_called_when_it_is_the_home(void **state)
{
	struct fake_worker here = {.behaviour = SERVES_FETCHED};
	struct embedded_worker e;
	int order[WORKERS_MAX];
	struct world w;

	(void)state;
	embed(&w, 2, &here, &e);
	atomic_store(&w.workers[0].behaviour, SERVES);
	rank(&w, order);
	if (order[0] == 1) {
		read_well(&w, BLOCK_FROM_FETCH);
		atomic_store(&here.behaviour, SERVES);
		read_well(&w, BLOCK_FROM_PEER_STORE);
		assert_int_equal(atomic_load(&here.asked), 2);
		assert_int_equal(atomic_load(&w.workers[0].asked), 0);
	} else {
		read_well(&w, BLOCK_FROM_PEER_STORE);
		assert_int_equal(atomic_load(&here.asked), 0);
		atomic_store(&w.workers[0].behaviour, FAILS);
		read_well(&w, BLOCK_FROM_FETCH);
		assert_int_equal(atomic_load(&here.asked), 1);
	}
	assert_int_equal(atomic_load(&w.workers[1].asked), 0);
	drop_world(&w);
}

static void what_the_worker_of_this_process_says_counts_as_any_workers(void **state)
{
	struct fake_worker here = {.behaviour = FAILS};
	struct embedded_worker e;
	struct world w;

	(void)state;
	embed(&w, 2, &here, &e);
	read_well(&w, BLOCK_FROM_ORIGIN);
	drop_world(&w);

	embed(&w, 2, &here, &e);
	atomic_store(&here.behaviour, STALE);
	assert_int_equal(code_of_read(&w, false), -ESTALE);
	drop_world(&w);
}

static void a_cancel_ends_the_call_of_the_worker_of_this_process(void **state)
{
	struct fake_worker here = {.behaviour = HANGS};
	struct embedded_worker e;
	struct world w;

	(void)state;
	embed(&w, 1, &here, &e);
	assert_int_equal(code_of_read(&w, true), -ECANCELED);
	assert_int_equal(atomic_load(&here.asked), 1);
	drop_world(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_worker_of_this_process_is_called_when_it_is_the_home),
		cmocka_unit_test(what_the_worker_of_this_process_says_counts_as_any_workers),
		cmocka_unit_test(a_cancel_ends_the_call_of_the_worker_of_this_process),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

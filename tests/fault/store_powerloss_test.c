/*
 * Power loss by simulation. A run of the store on a disk in memory is recorded; then, for points
 * all over the record, the state that a disk may have after losing power there is made: what was
 * synced is there, of what was not each operation is there, or not, or (a write) torn at 512 bytes;
 * names likewise until their folder was synced. The store has to open, serve every block that the
 * durable index names, and no other byte than was put.
 */
#include "../unit/store_fixture.h"

#include "common/log.h"
#include "store_memory_disk.h"

#define CAPACITY (64 * MIB)
#define OBJECTS 400u
#define DATASETS 3u

static struct store *open_on(struct mem_disk *m)
{
	struct store_options opts = {.dir = "/mem",
		.capacity_bytes = CAPACITY,
		.disk = &m->disk,
		.commit_interval_ms = 3};
	struct error err = ERROR_INIT;
	struct store *s = NULL;
	int r = store_open(&opts, &s, &err);

	if (r < 0)
		fprintf(stderr, "refused: %s\n", err.text);
	assert_int_equal(r, 0);
	return s;
}

/* Every block that the run may have put. */
static struct store_block block_of(uint64_t dataset, uint64_t n)
{
	static const uint32_t sizes[] = {1, 500, 4000, 4096, 9000, 30000, 65536, 70000};

	if (n >= OBJECTS) /* a few large ones, block by block */
		return fixture_block(dataset, OBJECTS + (n - OBJECTS) / 3, 2 * BLOCK_BYTES + 5000,
			(n - OBJECTS) % 3);
	return fixture_block(dataset, n, sizes[fixture_mix(n) % 8], 0);
}
#define BLOCKS (OBJECTS + 6)

static void run(struct mem_disk *m, unsigned steps)
{
	struct store *s = open_on(m);

	for (uint64_t dataset = 1; dataset <= DATASETS; dataset++)
		fixture_plan(s, dataset, 16 * MIB, UINT64_MAX / 2);
	for (unsigned i = 0; i < steps; i++) {
		uint64_t dataset = 1 + (uint64_t)rand() % DATASETS;
		struct store_block b = block_of(dataset,
			rand() % 60 ? (uint64_t)rand() % OBJECTS : OBJECTS + (uint64_t)rand() % 6);
		unsigned dice = (unsigned)rand() % 200;

		assert_true(fixture_put(s, &b,
				    rand() % 4 ? STORE_ADMIT_GRANT : STORE_ADMIT_ELASTIC) >= 0);
		b = block_of(dataset, (uint64_t)rand() % BLOCKS);
		fixture_read(s, &b);
		if (dice < 6)
			fixture_plan(s, dataset, (uint64_t)rand() % (16 * MIB),
				fixture_mix((uint64_t)rand()));
		else if (dice < 8)
			assert_int_equal(store_remove_dataset(s, dataset, NULL), 0);
		else if (dice < 20)
			assert_int_equal(store_sync(s, NULL), 0);
		else if (dice < 50)
			usleep(1000);
		if (i == steps / 2) {
			store_close(s);
			s = open_on(m);
		}
	}
	store_close(s);
}

/* ---- the disk after a power loss ---- */

/* What is certain so far, and the operations that are not. */
struct survivor {
	struct mem_file *files; /* synced bytes, whether or not the name is certain */
	struct mem_record *index;
	const struct mem_op **loose; /* bytes */
	size_t loose_count;
	const struct mem_op **names; /* creations and removals */
	size_t names_count;
	struct mem_file *named; /* certain names; contents unused */
};

static void drop_loose(struct survivor *v, const char *path, bool apply)
{
	size_t kept = 0;

	for (size_t i = 0; i < v->loose_count; i++) {
		const struct mem_op *op = v->loose[i];

		if (strcmp(op->path, path) != 0)
			v->loose[kept++] = op;
		else if (apply)
			mem_apply(mem_add(&v->files, path), op);
	}
	v->loose_count = kept;
}

static void name_op(struct mem_file **named, const struct mem_op *op)
{
	if (op->kind == MEM_CREATE)
		mem_add(named, op->path);
	else
		mem_remove(named, op->path);
}

static void sync_names(struct survivor *v, const char *dir)
{
	size_t kept = 0;

	for (size_t i = 0; i < v->names_count; i++) {
		if (mem_is_in(v->names[i]->path, dir))
			name_op(&v->named, v->names[i]);
		else
			v->names[kept++] = v->names[i];
	}
	v->names_count = kept;
}

static void survivor_step(struct survivor *v, const struct mem_op *op)
{
	switch (op->kind) {
	case MEM_CREATE:
	case MEM_UNLINK:
		v->names[v->names_count++] = op;
		break;
	case MEM_DATASYNC:
		drop_loose(v, op->path, true);
		break;
	case MEM_SYNCDIR:
		sync_names(v, op->path);
		break;
	case MEM_INDEX:
		for (uint64_t i = 0; i < op->len; i++)
			mem_index_apply(&v->index, &op->records[i]);
		break;
	default:
		v->loose[v->loose_count++] = op;
	}
}

enum luck { LOSE_ALL, KEEP_ALL, ANY };

static void apply_torn(struct mem_file *f, const struct mem_op *op)
{
	for (uint64_t at = 0; at < op->len;) {
		uint64_t n = 512 - (op->offset + at) % 512;

		n = n < op->len - at ? n : op->len - at;
		if (rand() % 2)
			mem_put_bytes(f, op->offset + at, op->data + at, n);
		at += n;
	}
}

static struct mem_disk *disk_after(const struct survivor *v, enum luck luck)
{
	struct mem_disk *m = mem_disk_new();
	struct mem_file *named = mem_files_copy(v->named), *f, *next;

	m->files = mem_files_copy(v->files);
	m->index = mem_index_copy(v->index);
	for (size_t i = 0; i < v->loose_count; i++) {
		const struct mem_op *op = v->loose[i];
		int dice = rand() % 3;

		f = mem_add(&m->files, op->path);
		if (luck == KEEP_ALL || (luck == ANY && dice == 0))
			mem_apply(f, op);
		else if (luck == ANY && dice == 1 && op->kind == MEM_WRITE)
			apply_torn(f, op);
	}
	for (size_t i = 0; i < v->names_count; i++) {
		if (luck == KEEP_ALL || (luck == ANY && rand() % 2))
			name_op(&named, v->names[i]);
	}
	HASH_ITER (hh, m->files, f, next) {
		if (!mem_find(named, f->path))
			mem_remove(&m->files, f->path);
	}
	HASH_ITER (hh, named, f, next)
		mem_add(&m->files, f->path);
	mem_files_free(&named);
	return m;
}

/* ---- what has to hold ---- */

static size_t blocks_in_index(struct mem_record *index)
{
	struct mem_record *r, *next;
	size_t count = 0;

	HASH_ITER (hh, index, r, next)
		count += r->bytes.key[0] == RECORD_BLOCK;
	return count;
}

static void check(struct mem_disk *m)
{
	size_t want = blocks_in_index(m->index), served = 0;
	struct mem_file *f, *next;
	uint64_t allocated = 0;
	struct store *s = open_on(m);

	for (uint64_t dataset = 1; dataset <= DATASETS; dataset++) {
		for (uint64_t n = 0; n < BLOCKS; n++) {
			struct store_block b = block_of(dataset, n);

			/* Compares the bytes of what is served. */
			if (fixture_read(s, &b) == 0)
				served++;
		}
	}
	assert_int_equal(served, want);
	HASH_ITER (hh, m->files, f, next)
		allocated += mem_allocated(f);
	assert_true(allocated <= CAPACITY);
	/* It goes on from there. */
	struct store_block b = fixture_block(9, 1, 5000, 0);

	assert_int_equal(fixture_put(s, &b, STORE_ADMIT_ELASTIC), 0);
	assert_int_equal(fixture_read(s, &b), 0);
	store_close(s);
}

static void after_a_power_loss_anywhere_all_that_was_committed_is_served(void **state)
{
	struct mem_disk *m = mem_disk_new();
	bool all = getenv("GRANARY_TEST_LARGE") != NULL;
	struct survivor v = {0};
	unsigned checked = 0;
	const char *seed = getenv("GRANARY_TEST_SEED");

	(void)state;
	srand(seed ? (unsigned)atoi(seed) : 1);
	log_set_level(LOG_ERROR);
	m->recording = true;
	run(m, all ? 1500 : 500);
	m->recording = false;
	v.loose = calloc(m->op_count, sizeof(*v.loose));
	v.names = calloc(m->op_count, sizeof(*v.names));
	for (size_t i = 0; i < m->op_count; i++) {
		survivor_step(&v, &m->ops[i]);
		if (!all && rand() % (m->op_count / 60 + 1))
			continue;
		for (enum luck luck = LOSE_ALL; luck <= ANY; luck++) {
			struct mem_disk *after = disk_after(&v, luck);

			check(after);
			mem_disk_free(after);
			checked++;
		}
	}
	print_message("%zu operations, %u power losses\n", m->op_count, checked);
	mem_files_free(&v.files);
	mem_files_free(&v.named);
	mem_index_free(&v.index);
	free(v.loose);
	free(v.names);
	mem_disk_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(after_a_power_loss_anywhere_all_that_was_committed_is_served),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

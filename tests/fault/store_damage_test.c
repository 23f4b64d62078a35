/*
 * Damage at rest: bits flipped anywhere in segments, trailers, sparse files, sidecars and index, an
 * index that was cut, overwritten or taken away, files that vanished or changed their length. The
 * store always opens; whatever is damaged is a miss, is counted, and can be stored anew.
 */
#include "../unit/database_damage.h"
#include "../unit/store_fixture.h"

#include <dirent.h>

#include "common/database/database_trial.h"
#include "common/log.h"
#include "store/format.h"
#include "store_memory_disk.h"

#define SMALL_BLOCKS 60u
#define LARGE_BLOCKS 3u
#define BLOCKS (SMALL_BLOCKS + LARGE_BLOCKS)

static struct store_block block_of(uint64_t n)
{
	if (n >= SMALL_BLOCKS)
		return fixture_block(1, 100, 2 * BLOCK_BYTES + 999, n - SMALL_BLOCKS);
	return fixture_block(1, n, 1 + (uint32_t)(fixture_mix(n) % 90000), 0);
}

static struct store *open_on(struct mem_disk *m)
{
	struct store_options opts = {.dir = "/mem", .capacity_bytes = 64 * MIB, .disk = &m->disk};
	struct error err = ERROR_INIT;
	struct store *s = NULL;

	assert_int_equal(store_open(&opts, &s, &err), 0);
	return s;
}

static void put_all(struct store *s)
{
	fixture_plan(s, 1, 50 * MIB, UINT64_MAX);
	for (uint64_t n = 0; n < BLOCKS; n++) {
		struct store_block b = block_of(n);

		assert_true(fixture_put(s, &b, STORE_ADMIT_GRANT) >= 0);
	}
	assert_int_equal(store_sync(s, NULL), 0);
}

static unsigned read_all(struct store *s)
{
	unsigned served = 0;

	for (uint64_t n = 0; n < BLOCKS; n++) {
		struct store_block b = block_of(n);

		served += fixture_read(s, &b) == 0;
	}
	return served;
}

static struct mem_disk *copy_of(struct mem_disk *from)
{
	struct mem_disk *m = mem_disk_new();

	m->files = mem_files_copy(from->files);
	m->index = mem_index_copy(from->index);
	return m;
}

static void flip_in_file(struct mem_file *f)
{
	uint64_t at = fixture_mix((uint64_t)rand()) % f->size;
	struct mem_page *p;

	/* A hole reads as zeros; its flip makes it a page. */
	p = mem_page_own(f, at / MEM_PAGE);
	p->bytes[at % MEM_PAGE] ^= (unsigned char)(1 << rand() % 8);
}

static struct mem_file *some_file(struct mem_disk *m)
{
	for (;;) {
		struct mem_file *f, *next;
		unsigned skip = (unsigned)rand() % HASH_COUNT(m->files);

		HASH_ITER (hh, m->files, f, next) {
			if (skip-- == 0 && f->size)
				return f;
		}
	}
}

static void flip_in_index(struct mem_disk *m)
{
	unsigned skip = (unsigned)rand() % HASH_COUNT(m->index);
	struct mem_record *r = m->index;
	struct record_bytes flipped;
	unsigned char *at;

	while (skip-- > 0)
		r = r->hh.next;
	flipped = r->bytes;
	at = rand() % 3 ? flipped.value + rand() % flipped.value_len
			: flipped.key + rand() % flipped.key_len;
	*at ^= (unsigned char)(1 << rand() % 8);
	HASH_DEL(m->index, r);
	free(r);
	mem_index_apply(&m->index, &flipped);
}

static void check_and_heal(struct mem_disk *m, unsigned least)
{
	struct store *s = open_on(m);
	unsigned served = read_all(s);

	assert_in_range(served, least, BLOCKS);
	put_all(s);
	assert_int_equal(read_all(s), BLOCKS);
	store_close(s);
}

static void a_bit_flipped_anywhere_is_at_most_one_miss(void **state)
{
	struct mem_disk *m = mem_disk_new();
	int rounds = getenv("GRANARY_TEST_LARGE") ? 5000 : 150;
	struct store *s = open_on(m);

	(void)state;
	log_set_level(LOG_ERROR - 1);
	srand(11);
	put_all(s);
	store_close(s);
	for (int i = 0; i < rounds; i++) {
		struct mem_disk *damaged = copy_of(m);

		if (i % 3 == 0) {
			/* The record of a file costs all of its blocks. */
			flip_in_index(damaged);
			check_and_heal(damaged, 0);
		} else {
			flip_in_file(some_file(damaged));
			check_and_heal(damaged, BLOCKS - 1);
		}
		mem_disk_free(damaged);
	}
	log_set_level(LOG_INFO);
	mem_disk_free(m);
}

static void records_that_swap_places_serve_nothing_wrong(void **state)
{
	struct mem_disk *m = mem_disk_new();
	struct store *s = open_on(m);
	struct mem_record *r, *next;
	struct record last = {0}, rec;

	(void)state;
	log_set_level(LOG_ERROR - 1);
	put_all(s);
	store_close(s);
	/* Each small block's record names the place of the one before it, with a valid hash. */
	HASH_ITER (hh, m->index, r, next) {
		struct record moved;

		if (record_decode(r->bytes.key, r->bytes.key_len, r->bytes.value,
			    r->bytes.value_len, &rec) < 0 ||
			rec.kind != RECORD_BLOCK || rec.block.len > 90000)
			continue;
		moved = rec;
		if (last.block.len) {
			moved.block.page = last.block.page;
			record_encode(&moved, false, &r->bytes);
		}
		last = rec;
	}
	s = open_on(m);
	read_all(s);
	put_all(s);
	assert_int_equal(read_all(s), BLOCKS);
	store_close(s);
	log_set_level(LOG_INFO);
	mem_disk_free(m);
}

static void files_that_vanish_or_change_their_length_are_misses(void **state)
{
	struct mem_disk *m = mem_disk_new();
	struct store *s = open_on(m);

	(void)state;
	log_set_level(LOG_ERROR - 1);
	srand(12);
	put_all(s);
	store_close(s);
	for (int i = 0; i < 60; i++) {
		struct mem_disk *damaged = copy_of(m);
		struct mem_file *f = some_file(damaged);

		if (i % 3 == 0)
			mem_remove(&damaged->files, f->path);
		else if (i % 3 == 1)
			mem_set_size(f, (uint64_t)rand() % f->size);
		else
			mem_set_size(f, f->size + (uint64_t)rand() % 100000);
		check_and_heal(damaged, 0);
		mem_disk_free(damaged);
	}
	log_set_level(LOG_INFO);
	mem_disk_free(m);
}

/* ---- the real index ---- */

static void index_file(const char *name, char path[static 512])
{
	snprintf(path, 512, "%s/index/%s", fixture_dir, name);
}

/* Some of its files are removed, cut, changed in one byte, or in many. */
static void damage_index(int how)
{
	char path[512];
	struct dirent *entry;
	DIR *dir;

	index_file("", path);
	dir = opendir(path);
	assert_non_null(dir);
	while ((entry = readdir(dir))) {
		struct stat st;
		int fd;

		index_file(entry->d_name, path);
		if (entry->d_name[0] == '.' || stat(path, &st) < 0 || !S_ISREG(st.st_mode) ||
			rand() % 3 == 0)
			continue;
		switch (how) {
		case 0:
			unlink(path);
			continue;
		case 1:
			assert_int_equal(truncate(path, st.st_size ? rand() % st.st_size : 0), 0);
			continue;
		}
		fd = open(path, O_WRONLY);
		for (int i = 0; st.st_size && i < (how == 2 ? 1 : 40); i++) {
			unsigned char noise = (unsigned char)rand();

			if (pwrite(fd, &noise, 1, rand() % st.st_size) != 1)
				abort();
		}
		close(fd);
	}
	closedir(dir);
}

static void a_damaged_index_never_keeps_the_store_from_opening(void **state)
{
	int rounds = getenv("GRANARY_TEST_LARGE") ? 400 : 24;

	(void)state;
	log_set_level(LOG_ERROR - 1);
	srand(13);
	for (int i = 0; i < rounds; i++) {
		struct store *s = fixture_open(64 * MIB);

		put_all(s);
		assert_int_equal(read_all(s), BLOCKS);
		store_close(s);
		damage_index(i % 4);
		s = fixture_open(64 * MIB);
		read_all(s);
		put_all(s);
		assert_int_equal(read_all(s), BLOCKS);
		assert_true(fixture_du() <= 64 * MIB);
		store_close(s);
	}
	log_set_level(LOG_INFO);
}

static void a_bit_that_rocksdb_dies_of_costs_the_index_only(void **state)
{
	struct error err = ERROR_INIT;
	struct store *s = fixture_open(64 * MIB);
	char path[512];

	(void)state;
	log_set_level(LOG_ERROR - 1);
	put_all(s);
	store_close(s);
	store_close(fixture_open(64 * MIB)); /* the log becomes a table */
	index_file("", path);
	assert_int_equal(database_try(path, &err), 0);
	damage_deadly(path);
	assert_int_equal(database_try(path, &err), -EBADMSG);
	assert_int_equal(database_repair(path, &err), -EBADMSG);
	s = fixture_open(64 * MIB);
	put_all(s);
	assert_int_equal(read_all(s), BLOCKS);
	store_close(s);
	log_set_level(LOG_INFO);
}

static void write_text(const char *name, const char *text)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", fixture_dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void only_a_newer_format_is_refused(void **state)
{
	struct store_options opts = {.dir = fixture_dir, .capacity_bytes = 64 * MIB};
	struct error err = ERROR_INIT;
	struct store *s = fixture_open(64 * MIB);
	char line[FORMAT_LINE_BYTES];

	(void)state;
	log_set_level(LOG_ERROR);
	put_all(s);
	store_close(s);
	format_line(2, line);
	write_text("format", line);
	assert_int_equal(store_open(&opts, &s, &err), -EINVAL);
	assert_non_null(strstr(err.text, "newer"));
	write_text("format", "gran");
	s = fixture_open(64 * MIB);
	assert_int_equal(read_all(s), BLOCKS);
	store_close(s);
	write_text("format", "");
	write_text("segments/notes.txt", "not ours");
	write_text("files/77", "an orphan");
	s = fixture_open(64 * MIB);
	assert_int_equal(read_all(s), BLOCKS);
	store_close(s);
}

int main(int argc, char **argv)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, fixture_setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_bit_flipped_anywhere_is_at_most_one_miss),
		TEST(records_that_swap_places_serve_nothing_wrong),
		TEST(files_that_vanish_or_change_their_length_are_misses),
		TEST(a_damaged_index_never_keeps_the_store_from_opening),
		TEST(a_bit_that_rocksdb_dies_of_costs_the_index_only),
		TEST(only_a_newer_format_is_refused),
	};

	database_trial_main(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Files that are damaged, hostile, of another version, or lose their disk while they are mapped. */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "manifest_fixture.h"
#include "manifest/manifest_format.h"
#include "manifest/manifest_seal.h"

enum { FILES = 5000 };

static int set_up(void **state)
{
	static struct manifest_builder_entry entries[FILES + 1];
	static char names[FILES][16];
	struct fixture *f = calloc(1, sizeof(*f));

	fixture_init(f);
	entries[FILES] = fixture_dir("d");
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(names[i], sizeof(names[i]), "d/f%07u", i);
		entries[i] = fixture_file(names[i], i);
	}
	fixture_build(f, entries, FILES + 1);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	fixture_deinit(*state);
	free(*state);
	return 0;
}

static uint64_t file_bytes(struct fixture *f)
{
	struct stat st;

	assert_int_equal(stat(f->path, &st), 0);
	return (uint64_t)st.st_size;
}

static void flip_byte(struct fixture *f, uint64_t at)
{
	int fd = open(f->path, O_RDWR);
	uint8_t byte;

	assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
	byte ^= 0x10;
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
	close(fd);
}

static int try_open(struct fixture *f, struct error *err)
{
	struct manifest *m = NULL;
	int r;

	err->text[0] = '\0';
	r = manifest_open(f->path, &m, err);
	assert_true(r == 0 || err->text[0] != '\0');
	manifest_unref(m);
	return r;
}

static void write_whole(const char *path, const void *data, size_t len)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(data, 1, len, file), len);
	fclose(file);
}

/* Renames the manifest to a name that promises no digest. */
static void forget_name(struct fixture *f)
{
	char plain[sizeof(f->path)];

	snprintf(plain, sizeof(plain), "%s/plain", f->dir);
	assert_int_equal(rename(f->path, plain), 0);
	strcpy(f->path, plain);
}

/* ---- at open -----------------------------------------------------------------------------------
 */

static void what_is_not_a_manifest_is_refused(void **state)
{
	struct fixture *f = *state;
	struct error err = ERROR_INIT;
	static char text[100000];

	assert_int_equal(unlink(f->path), 0);
	assert_int_equal(try_open(f, &err), -ENOENT);
	write_whole(f->path, "", 0);
	assert_int_equal(try_open(f, &err), -EINVAL);
	memset(text, 'x', sizeof(text));
	write_whole(f->path, text, sizeof(text));
	assert_int_equal(try_open(f, &err), -EINVAL);
	assert_non_null(strstr(err.text, "not a manifest"));
	unlink(f->path);
	assert_int_equal(mkfifo(f->path, 0600), 0);
	assert_int_equal(try_open(f, &err), -EINVAL);
	unlink(f->path);
	assert_int_equal(mkdir(f->path, 0700), 0);
	assert_int_equal(try_open(f, &err), -EINVAL);
	assert_int_equal(rmdir(f->path), 0);
}

static void every_cut_of_the_file_is_refused(void **state)
{
	struct fixture *f = *state;
	struct error err = ERROR_INIT;
	uint64_t bytes = file_bytes(f);

	for (uint64_t cut = bytes - 1; cut > 64; cut -= 1 + cut / 7) {
		assert_int_equal(truncate(f->path, (off_t)cut), 0);
		assert_int_equal(try_open(f, &err), -EINVAL);
	}
	assert_int_equal(truncate(f->path, (off_t)bytes + 1), 0);
	assert_int_equal(try_open(f, &err), -EINVAL);
}

static void a_flipped_bit_in_header_table_or_digest_is_refused_at_open(void **state)
{
	struct fixture *f = *state;
	struct error err = ERROR_INIT;
	uint64_t bytes = file_bytes(f);

	for (uint64_t at = 0; at < MANIFEST_HEADER_BYTES; at++) {
		flip_byte(f, at);
		assert_int_equal(try_open(f, &err), -EINVAL);
		flip_byte(f, at);
	}
	for (uint64_t at = bytes - MANIFEST_DIGEST_BYTES - 8; at < bytes; at++) {
		flip_byte(f, at);
		assert_int_equal(try_open(f, &err), -EINVAL);
		flip_byte(f, at);
	}
	assert_int_equal(try_open(f, &err), 0);
}

static void a_sound_manifest_under_the_name_of_another_is_refused(void **state)
{
	struct fixture *f = *state;
	char other[sizeof(f->path)];
	struct error err = ERROR_INIT;

	snprintf(other, sizeof(other), "%s/00000000000000000000000000000000.manifest", f->dir);
	assert_int_equal(rename(f->path, other), 0);
	strcpy(f->path, other);
	assert_int_equal(try_open(f, &err), -EINVAL);
	assert_non_null(strstr(err.text, "another manifest"));
	forget_name(f);
	assert_int_equal(try_open(f, &err), 0);
}

static void a_newer_version_is_refused_with_the_word(void **state)
{
	struct fixture *f = *state;
	struct error err = ERROR_INIT;
	uint32_t version = htole32(MANIFEST_FORMAT_VERSION + 1);
	int fd = open(f->path, O_RDWR);

	assert_int_equal(pwrite(fd, &version, sizeof(version), 8), sizeof(version));
	close(fd);
	assert_int_equal(try_open(f, &err), -EINVAL);
	assert_non_null(strstr(err.text, "newer"));
}

/* ---- after open --------------------------------------------------------------------------------
 */

/* How many entries answer, are -EIO; nothing else may happen. */
static void count_entries(struct manifest *m, unsigned *ret_good, unsigned *ret_bad)
{
	*ret_good = *ret_bad = 0;
	for (uint32_t i = 0; i < manifest_info(m)->entries; i++) {
		struct manifest_entry e;
		int r = manifest_entry(m, i, &e);

		assert_true(r == 0 || r == -EIO);
		*(r == 0 ? ret_good : ret_bad) += 1;
	}
}

static void a_damaged_chunk_is_an_io_error_for_what_it_covers_only(void **state)
{
	struct fixture *f = *state;
	struct error err = ERROR_INIT;
	unsigned good, bad;
	struct manifest *m;
	uint32_t index;

	flip_byte(f, 2 * MANIFEST_CHUNK_BYTES + 100); /* entries 2046..3069 */
	m = fixture_open(f);
	count_entries(m, &good, &bad);
	assert_int_equal(bad, MANIFEST_CHUNK_BYTES / MANIFEST_ENTRY_BYTES);
	assert_int_equal(good, FILES + 2 - bad);
	assert_int_equal(manifest_verify(m, &err), -EIO);
	assert_non_null(strstr(err.text, "131072"));
	/* The middle of the directory is where every search begins. */
	assert_int_equal(manifest_lookup(m, 1, "f0000000", 8, &index), -EIO);
	assert_int_equal(manifest_lookup(m, 0, "d", 1, &index), 0);
	manifest_unref(m);
}

static void every_flipped_byte_is_noticed_by_verify(void **state)
{
	struct fixture *f = *state;
	uint64_t bytes = file_bytes(f);

	srandom(5);
	for (int i = 0; i < 200; i++) {
		uint64_t at = (uint64_t)random() % bytes;
		struct manifest *m = NULL;

		flip_byte(f, at);
		assert_true(manifest_open(f->path, &m, NULL) < 0 || manifest_verify(m, NULL) < 0);
		manifest_unref(m);
		flip_byte(f, at);
	}
}

static void a_file_cut_under_the_map_is_an_io_error(void **state)
{
	struct fixture *f = *state;
	struct manifest *m = fixture_open(f);
	unsigned good, bad;
	uint32_t index;

	assert_int_equal(truncate(f->path, 2 * MANIFEST_CHUNK_BYTES), 0);
	count_entries(m, &good, &bad);
	assert_int_equal(good, 0); /* the strings are gone */
	assert_int_equal(manifest_lookup(m, 1, "f0000001", 8, &index), -EIO);
	assert_int_equal(manifest_lookup(m, 0, "d", 1, &index), -EIO);
	assert_int_equal(manifest_verify(m, NULL), -EIO);
	manifest_unref(m);
}

/* The chunks were found good before: only the pages' loss can tell. */
static void a_file_cut_after_it_was_read_is_an_io_error(void **state)
{
	struct fixture *f = *state;
	struct manifest *m = fixture_open(f);
	struct object_id object;
	uint64_t size;
	unsigned good, bad;

	assert_int_equal(manifest_verify(m, NULL), 0);
	assert_int_equal(truncate(f->path, MANIFEST_CHUNK_BYTES), 0);
	count_entries(m, &good, &bad);
	assert_int_equal(good, 0);
	assert_int_equal(manifest_file(m, 2, &object, &size), 0); /* in the chunk that is left */
	assert_int_equal(manifest_file(m, 4000, &object, &size), -EIO);
	manifest_unref(m);
}

static void *walk(void *arg)
{
	unsigned *counts = calloc(2, sizeof(*counts));

	count_entries(arg, &counts[0], &counts[1]);
	return counts;
}

static void threads_that_meet_at_unchecked_and_damaged_chunks_agree(void **state)
{
	enum { THREADS = 4 };
	pthread_t threads[THREADS];
	struct manifest *m;

	flip_byte(*state, 2 * MANIFEST_CHUNK_BYTES + 100);
	m = fixture_open(*state);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, walk, m), 0);
	for (int i = 0; i < THREADS; i++) {
		void *counts;

		assert_int_equal(pthread_join(threads[i], &counts), 0);
		assert_int_equal(((unsigned *)counts)[1], 1024);
		free(counts);
	}
	manifest_unref(m);
}

/* The file loses its tail while threads read: an entry that was answered is right, then and later.
 */
static void *walk_until_bad(void *arg)
{
	struct manifest *m = arg;
	unsigned bad = 0;

	while (!bad) {
		for (uint32_t i = 2; i < manifest_info(m)->entries; i++) {
			struct manifest_entry e;
			int r = manifest_entry(m, i, &e);

			assert_true(r == -EIO || (r == 0 && e.size == i - 2 && e.parent == 1));
			bad += r != 0;
		}
	}
	return NULL;
}

static void readers_survive_a_file_that_is_cut_while_they_read(void **state)
{
	enum { THREADS = 4 };
	struct fixture *f = *state;
	struct manifest *m = fixture_open(f);
	pthread_t threads[THREADS];

	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, walk_until_bad, m), 0);
	usleep(20000);
	assert_int_equal(truncate(f->path, 3 * MANIFEST_CHUNK_BYTES + 5), 0);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	manifest_unref(m);
}

static void dropping_the_resident_part_changes_nothing(void **state)
{
	struct manifest *m = fixture_open(*state);
	unsigned good, bad;

	count_entries(m, &good, &bad);
	manifest_drop_resident(m);
	count_entries(m, &good, &bad);
	assert_int_equal(bad, 0);
	manifest_unref(m);
}

/* ---- hostile content under right checksums ------------------------------------------------------
 */

struct patch {
	uint32_t index; /* of the entry */
	size_t at;	/* within it */
	uint64_t value;
	size_t bytes;
};

/* Writes the patch, seals the file anew and opens it under a plain name. */
static struct manifest *open_patched(struct fixture *f, const struct patch *p)
{
	uint64_t place = MANIFEST_HEADER_BYTES + p->index * MANIFEST_ENTRY_BYTES + p->at;
	uint64_t bytes = file_bytes(f), value = htole64(p->value), chunks = 1, body;
	char digest[MANIFEST_DIGEST_TEXT_BYTES];
	int fd;

	while (manifest_chunk_count(bytes - MANIFEST_DIGEST_BYTES - chunks * 8) > chunks)
		chunks++;
	body = bytes - MANIFEST_DIGEST_BYTES - chunks * 8;
	forget_name(f);
	fd = open(f->path, O_RDWR);
	assert_int_equal(manifest_pwrite(fd, &value, p->bytes, place), 0);
	assert_int_equal(manifest_seal(fd, body, digest, NULL), 0);
	close(fd);
	return fixture_open(f);
}

#define FIELD(member) offsetof(struct manifest_disk_entry, member)

static void hostile_entries_are_io_errors(void **state)
{
	static const struct patch patches[] = {
		{10, FIELD(strings_at), UINT64_MAX, 8},
		{10, FIELD(strings_at), 1 << 30, 8},
		{10, FIELD(strings_at), 4,
			8}, /* another's strings, one byte in: the NUL is amiss */
		{10, FIELD(tail_len), 5, 2},
		{10, FIELD(tail_len), 65535, 2},
		{10, FIELD(name_len), 0, 1},
		{10, FIELD(name_len), 255, 1},
		{10, FIELD(parent), 10, 4},
		{10, FIELD(parent), UINT32_MAX, 4},
		{10, FIELD(type), 3, 1},
		{10, FIELD(mode), 010000, 2},
		{10, FIELD(size), ((uint64_t)1 << 50) + 1, 8},
		{1, FIELD(below.first_child), 1, 4},
		{1, FIELD(below.children), FILES + 1, 4},
		{1, FIELD(below.children), UINT32_MAX, 4},
		{1, FIELD(below.subdirs), FILES + 1, 4},
	};

	for (size_t i = 0; i < sizeof(patches) / sizeof(patches[0]); i++) {
		struct manifest_entry e;
		struct manifest *m;

		m = open_patched(*state, &patches[i]);
		assert_int_equal(manifest_entry(m, patches[i].index, &e), -EIO);
		assert_int_equal(manifest_entry(m, 11, &e), 0);
		assert_int_equal(manifest_verify(m, NULL), -EIO);
		manifest_unref(m);
		tear_down(state);
		set_up(state);
	}
}

static void what_contradicts_itself_fails_verify(void **state)
{
	static const struct patch patches[] = {
		{10, FIELD(parent), 0, 4},		  /* not among that one's children */
		{10, FIELD(strings_at), 3, 8},		  /* the name of another */
		{10, FIELD(size), 11, 8},		  /* the header's sum */
		{1, FIELD(below.children), FILES - 1, 4}, /* a child nobody has */
		{1, FIELD(below.subdirs), 1, 4},
	};

	for (size_t i = 0; i < sizeof(patches) / sizeof(patches[0]); i++) {
		struct error err = ERROR_INIT;
		struct manifest *m;

		m = open_patched(*state, &patches[i]);
		assert_int_equal(manifest_verify(m, &err), -EIO);
		assert_true(err.text[0] != '\0');
		manifest_unref(m);
		tear_down(state);
		set_up(state);
	}
}

#define T(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(what_is_not_a_manifest_is_refused),
		T(every_cut_of_the_file_is_refused),
		T(a_flipped_bit_in_header_table_or_digest_is_refused_at_open),
		T(a_sound_manifest_under_the_name_of_another_is_refused),
		T(a_newer_version_is_refused_with_the_word),
		T(a_damaged_chunk_is_an_io_error_for_what_it_covers_only),
		T(every_flipped_byte_is_noticed_by_verify),
		T(a_file_cut_under_the_map_is_an_io_error),
		T(a_file_cut_after_it_was_read_is_an_io_error),
		T(threads_that_meet_at_unchecked_and_damaged_chunks_agree),
		T(readers_survive_a_file_that_is_cut_while_they_read),
		T(dropping_the_resident_part_changes_nothing),
		T(hostile_entries_are_io_errors),
		T(what_contradicts_itself_fails_verify),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

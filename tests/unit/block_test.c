#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "manifest/block.h"

static struct object_id make(const char *path, const char *validator, int64_t mtime_ns)
{
	return object_id_make(1, path, strlen(path), 100, validator, mtime_ns);
}

static int same(struct object_id a, struct object_id b)
{
	return a.hi == b.hi && a.lo == b.lo;
}

static void an_object_is_its_dataset_path_size_and_validator(void **state)
{
	struct object_id id = make("p", "v", 0);

	(void)state;
	assert_true(same(id, make("p", "v", 0)));
	assert_false(same(id, make("q", "v", 0)));
	assert_false(same(id, make("p", "w", 0)));
	assert_false(same(id, object_id_make(2, "p", 1, 100, "v", 0)));
	assert_false(same(id, object_id_make(1, "p", 1, 101, "v", 0)));
}

static void mtime_stands_in_only_where_there_is_no_validator(void **state)
{
	(void)state;
	assert_true(same(make("p", "v", 1), make("p", "v", 2)));
	assert_false(same(make("p", "", 1), make("p", "", 2)));
}

static void bytes_do_not_move_between_path_and_validator(void **state)
{
	static char one[3001], other[3001];

	(void)state;
	assert_false(same(make("ab", "c", 0), make("a", "bc", 0)));
	assert_false(same(make("ab", "", 0), make("a", "b", 0)));
	memset(one, 'x', 3000);
	memset(other, 'x', 2999);
	assert_false(same(make(one, "y", 0), make(other, "xy", 0)));
}

/* The ids are on disk and on the wire: a change of them would silently empty every cache. */
static void ids_and_hashes_are_what_they_were_in_the_first_version(void **state)
{
	static char path[3001];
	struct object_id id = make("train/n01440764/n01440764_10026.JPEG", "\"d41d8\"", 5);
	struct block_id block = block_id_make(&id, 3);

	(void)state;
	assert_int_equal(id.hi, 0x6f965dd2a6d7966a);
	assert_int_equal(id.lo, 0xe880e924b2b8218);
	assert_int_equal(block.hi, 0xcee9feca63de5e64);
	assert_int_equal(block.lo, 0xf110a167c93b1337);
	assert_int_equal(block_pin_hash(&block), 0x5479114efdd3dd6e);
	assert_int_equal(block_home_hash(&block), 0xbf5e3002cb3e2cf6);
	memset(path, 'x', 3000);
	id = make(path, "", 5);
	assert_int_equal(id.hi, 0x492a325381e1b9e5);
}

static void the_last_block_is_what_is_left(void **state)
{
	(void)state;
	assert_int_equal(block_count(0), 0);
	assert_int_equal(block_count(1), 1);
	assert_int_equal(block_count(BLOCK_BYTES), 1);
	assert_int_equal(block_count(BLOCK_BYTES + 1), 2);
	assert_int_equal(block_len(BLOCK_BYTES + 1, 0), BLOCK_BYTES);
	assert_int_equal(block_len(BLOCK_BYTES + 1, 1), 1);
	assert_int_equal(block_len(BLOCK_BYTES, 0), BLOCK_BYTES);
}

/* ---- how even, how independent -----------------------------------------------------------------
 */

enum { CELLS = 1024, BLOCKS = CELLS * 400 };

/* Files that differ in a digit or two, and blocks of one object: what real datasets look like. */
static struct block_id nth_block(unsigned n)
{
	struct object_id id;
	char path[64];

	snprintf(path, sizeof(path), "train/%03u/img_%08u.jpg", n % 1000, n / 8);
	id = object_id_make(9, path, strlen(path), 1 << 20, "", 0);
	return block_id_make(&id, n % 8);
}

/* Chi-square of CELLS equally likely cells: mean CELLS - 1, deviation sqrt(2 (CELLS - 1)). Within
 * five deviations: a good hash fails this once in a million choices of the data, which is fixed. */
static void check_even(const unsigned *cells)
{
	double expected = (double)BLOCKS / CELLS, chi = 0;

	for (int i = 0; i < CELLS; i++)
		chi += (cells[i] - expected) * (cells[i] - expected) / expected;
	if (fabs(chi - (CELLS - 1)) > 5 * sqrt(2.0 * (CELLS - 1)))
		fail_msg("chi-square %.0f of %d cells", chi, CELLS);
}

static void both_hashes_are_even_in_every_part_of_their_bits(void **state)
{
	static const unsigned shifts[] = {54, 40, 20, 0};

	(void)state;
	for (size_t s = 0; s < sizeof(shifts) / sizeof(shifts[0]); s++) {
		static unsigned pin[CELLS], home[CELLS];

		memset(pin, 0, sizeof(pin));
		memset(home, 0, sizeof(home));
		for (unsigned n = 0; n < BLOCKS; n++) {
			struct block_id id = nth_block(n);

			pin[(block_pin_hash(&id) >> shifts[s]) % CELLS]++;
			home[(block_home_hash(&id) >> shifts[s]) % CELLS]++;
		}
		check_even(pin);
		check_even(home);
	}
}

static void who_is_pinned_says_nothing_about_who_is_home(void **state)
{
	static unsigned cells[CELLS];

	(void)state;
	for (unsigned n = 0; n < BLOCKS; n++) {
		struct block_id id = nth_block(n);

		cells[(block_pin_hash(&id) >> 59) * 32 + (block_home_hash(&id) >> 59)]++;
	}
	check_even(cells);
}

/* What pin_threshold(UINT64_MAX) stands on; ids whose hash would be all ones cannot be searched
 * for, so this only shows that the range is used up to its ends. */
static void pin_hashes_use_their_whole_range(void **state)
{
	uint64_t low = UINT64_MAX, high = 0;

	(void)state;
	for (unsigned n = 0; n < BLOCKS; n++) {
		struct block_id id = nth_block(n);
		uint64_t h = block_pin_hash(&id);

		low = h < low ? h : low;
		high = h > high ? h : high;
	}
	assert_true(low < UINT64_MAX / BLOCKS * 20);
	assert_true(high > UINT64_MAX - UINT64_MAX / BLOCKS * 20);
	assert_true(high < UINT64_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_object_is_its_dataset_path_size_and_validator),
		cmocka_unit_test(mtime_stands_in_only_where_there_is_no_validator),
		cmocka_unit_test(bytes_do_not_move_between_path_and_validator),
		cmocka_unit_test(ids_and_hashes_are_what_they_were_in_the_first_version),
		cmocka_unit_test(the_last_block_is_what_is_left),
		cmocka_unit_test(both_hashes_are_even_in_every_part_of_their_bits),
		cmocka_unit_test(who_is_pinned_says_nothing_about_who_is_home),
		cmocka_unit_test(pin_hashes_use_their_whole_range),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

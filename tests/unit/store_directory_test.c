#include <errno.h>

#include "store/directory.h"
#include "store/page_map.h"
#include "store/record.h"
#include "store/residency.h"
#include "store_fixture.h"

static struct directory_entry entry(uint64_t n)
{
	return (struct directory_entry){
		.id = {fixture_mix(n), fixture_mix(n + ((uint64_t)1 << 40))},
		.file = (uint32_t)n,
		.page = (uint32_t)n * 3,
		.len = 1 + (uint32_t)n % BLOCK_BYTES,
		.flags = n % 3};
}

static bool found(const struct directory *d, uint64_t n)
{
	struct directory_entry want = entry(n), e;

	if (!directory_lookup(d, &want.id, &e))
		return false;
	assert_int_equal(e.file, want.file);
	assert_int_equal(e.page, want.page);
	assert_int_equal(e.len, want.len);
	assert_int_equal(e.flags, want.flags);
	assert_true(directory_holds(d, &e));
	return true;
}

static void count_move(void *arg, uint32_t from, uint32_t to)
{
	assert_int_not_equal(from, to);
	++*(uint64_t *)arg;
}

static void all_blocks_are_found_as_it_grows_and_in_any_order_when_it_is_full(void **state)
{
	uint64_t moves = 0, slots = 1 << 15, max = slots / 8 * 7;
	struct directory *d;

	(void)state;
	for (int round = 0; round < 2; round++) {
		assert_int_equal(directory_create(slots, 1, &d, NULL), 0);
		for (uint64_t i = 0; i < max; i++) {
			struct directory_entry e = entry(round ? max - 1 - i : i);

			assert_int_equal(directory_insert(d, &e, count_move, &moves), 0);
			assert_true(directory_holds(d, &e));
		}
		for (uint64_t i = 0; i < max; i++)
			assert_true(found(d, i));
		assert_false(found(d, max));
		struct directory_entry more = entry(max);

		assert_int_equal(directory_insert(d, &more, count_move, &moves), -ENOSPC);
		assert_int_equal(directory_blocks(d), max);
		directory_free(d);
	}
	assert_true(moves > max / 2);
}

static void a_removed_block_is_not_held_any_more_and_its_slot_is_used_again(void **state)
{
	uint64_t moves = 0;
	struct directory *d;

	(void)state;
	assert_int_equal(directory_create(1 << 15, 1, &d, NULL), 0);
	for (uint64_t i = 0; i < 200000; i++) {
		struct directory_entry e = entry(i), seen;

		assert_int_equal(directory_insert(d, &e, count_move, &moves), 0);
		assert_true(directory_lookup(d, &e.id, &seen));
		directory_remove(d, seen.slot);
		assert_false(directory_holds(d, &seen));
		assert_false(directory_lookup(d, &e.id, &seen));
	}
	assert_int_equal(directory_blocks(d), 0);
	directory_free(d);
}

static void readers_elsewhere_see_it_and_cannot_write_it(void **state)
{
	struct directory *d, *mapped;
	struct directory_entry e = entry(1);
	struct error err = ERROR_INIT;
	uint64_t moves = 0;
	int zero;

	(void)state;
	assert_int_equal(directory_create(1 << 15, 77, &d, NULL), 0);
	directory_set_store_id(d, 88);
	assert_int_equal(directory_map(directory_fd(d), &mapped, &err), 0);
	assert_false(found(mapped, 1));
	assert_int_equal(directory_insert(d, &e, count_move, &moves), 0);
	assert_true(found(mapped, 1));
	assert_int_equal(directory_epoch(mapped), 77);
	assert_int_equal(directory_store_id(mapped), 88);
	assert_int_equal(pwrite(directory_fd(d), "x", 1, 0), -1);
	assert_int_equal(ftruncate(directory_fd(d), 0), -1);
	directory_set_closed(d);
	assert_true(directory_is_closed(mapped));
	directory_free(mapped);
	directory_free(d);
	zero = open("/dev/zero", O_RDONLY);
	assert_int_equal(directory_map(zero, &mapped, &err), -EPROTO);
	close(zero);
}

static void runs_of_pages_are_taken_given_and_found(void **state)
{
	struct page_map m;
	unsigned char *model = calloc(1000, 1);

	(void)state;
	srand(4);
	assert_int_equal(page_map_init(&m, 1000), 0);
	for (int i = 0; i < 20000; i++) {
		uint32_t first = (uint32_t)rand() % 1000, count = 1 + (uint32_t)rand() % 40;
		uint32_t at, run = 0;

		if (rand() % 2) {
			bool free_there = first + count <= 1000 && !memchr(model + first, 1, count);

			assert_int_equal(page_map_take(&m, first, count), free_there);
			if (free_there)
				memset(model + first, 1, count);
		} else if (model[first]) {
			for (count = 0; first + count < 1000 && model[first + count] && count < 9;)
				count++;
			page_map_give(&m, first, count);
			memset(model + first, 0, count);
		}
		count = 1 + (uint32_t)rand() % 60;
		at = page_map_find(&m, 900, count);
		for (uint32_t p = 0; p < 900 && run < count; p++)
			run = model[p] ? 0 : run + 1;
		assert_int_equal(at != PAGE_MAP_NONE, run == count);
		if (at != PAGE_MAP_NONE)
			assert_true(at + count <= 900 && !memchr(model + at, 1, count));
	}
	page_map_deinit(&m);
	free(model);
}

static void records_read_back_and_any_changed_bit_shows(void **state)
{
	struct record r = {.kind = RECORD_BLOCK}, back;
	struct record_bytes bytes;

	(void)state;
	r.block.id = (struct block_id){1, 2};
	r.block.file = 3;
	r.block.page = 4;
	r.block.len = 5;
	r.block.flags = 6;
	record_encode(&r, false, &bytes);
	assert_int_equal(
		record_decode(bytes.key, bytes.key_len, bytes.value, bytes.value_len, &back), 0);
	assert_memory_equal(&r.block, &back.block, sizeof(r.block));
	for (unsigned bit = 0; bit < 8u * (bytes.key_len + bytes.value_len); bit++) {
		struct record_bytes bad = bytes;

		if (bit < 8u * bytes.key_len)
			bad.key[bit / 8] ^= (uint8_t)(1 << bit % 8);
		else
			bad.value[bit / 8 - bytes.key_len] ^= (uint8_t)(1 << bit % 8);
		assert_int_equal(
			record_decode(bad.key, bad.key_len, bad.value, bad.value_len, &back),
			-EBADMSG);
	}
	for (size_t cut = 0; cut < bytes.value_len; cut++)
		assert_int_equal(
			record_decode(bytes.key, bytes.key_len, bytes.value, cut, &back), -EBADMSG);
}

static void lists_keep_their_order_and_follow_moves(void **state)
{
	struct residency r;

	(void)state;
	assert_int_equal(residency_init(&r, 1024, 4), 0);
	assert_int_equal(residency_oldest(&r, LIST_ELASTIC), RESIDENCY_NONE);
	for (uint32_t i = 0; i < 10; i++)
		residency_add(&r, i, LIST_ELASTIC);
	residency_touch(&r, 0, LIST_ELASTIC, 5);
	assert_true(residency_recent(&r, 0, 5));
	assert_int_equal(residency_oldest(&r, LIST_ELASTIC), 1);
	residency_moved(&r, 1, 500);
	assert_int_equal(residency_oldest(&r, LIST_ELASTIC), 500);
	residency_remove(&r, 500);
	residency_remove(&r, 500);
	for (uint32_t i = 2; i < 10; i++) {
		assert_int_equal(residency_oldest(&r, LIST_ELASTIC), i);
		residency_remove(&r, i);
	}
	assert_int_equal(residency_oldest(&r, LIST_ELASTIC), 0);
	residency_deinit(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_blocks_are_found_as_it_grows_and_in_any_order_when_it_is_full),
		cmocka_unit_test(a_removed_block_is_not_held_any_more_and_its_slot_is_used_again),
		cmocka_unit_test(readers_elsewhere_see_it_and_cannot_write_it),
		cmocka_unit_test(runs_of_pages_are_taken_given_and_found),
		cmocka_unit_test(records_read_back_and_any_changed_bit_shows),
		cmocka_unit_test(lists_keep_their_order_and_follow_moves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

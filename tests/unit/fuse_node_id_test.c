#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fuse/node_id.h"

static void the_root_is_one_in_every_snapshot(void **state)
{
	struct node_ref ref;

	(void)state;
	assert_int_equal(node_id_make(0, 0), 1);
	assert_int_equal(node_id_make(77, 0), 1);
	assert_true(node_id_parse(1, &ref));
	assert_int_equal(ref.slot, NODE_SLOT_CURRENT);
	assert_int_equal(ref.index, 0);
}

static void an_id_names_its_entry_and_its_snapshot(void **state)
{
	static const uint32_t slots[] = {0, 1, 8, 1000000, NODE_SLOT_MAX};
	static const uint32_t indexes[] = {1, 2, 4095, UINT32_MAX / 2, UINT32_MAX - 1};

	(void)state;
	for (size_t s = 0; s < 5; s++) {
		for (size_t i = 0; i < 5; i++) {
			struct node_ref ref;

			assert_true(node_id_parse(node_id_make(slots[s], indexes[i]), &ref));
			assert_int_equal(ref.slot, slots[s]);
			assert_int_equal(ref.index, indexes[i]);
		}
	}
}

static void ids_of_two_snapshots_never_meet(void **state)
{
	(void)state;
	assert_int_not_equal(node_id_make(0, UINT32_MAX - 1), node_id_make(1, 1));
	assert_int_not_equal(node_id_make(3, 5), node_id_make(4, 5));
}

static void what_was_never_an_id_is_refused(void **state)
{
	static const uint64_t none[] = {0, (uint64_t)1 << 32, ((uint64_t)1 << 32) + 1,
		((uint64_t)NODE_SLOT_MAX + 1) << 32 | 7, UINT64_MAX};
	struct node_ref ref;

	(void)state;
	for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
		assert_false(node_id_parse(none[i], &ref));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_root_is_one_in_every_snapshot),
		cmocka_unit_test(an_id_names_its_entry_and_its_snapshot),
		cmocka_unit_test(ids_of_two_snapshots_never_meet),
		cmocka_unit_test(what_was_never_an_id_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

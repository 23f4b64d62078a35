#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "placement/rendezvous.h"

enum { BLOCKS = 40000 };

static struct block_id nth_block(uint64_t n)
{
	struct object_id object = {.hi = 1, .lo = 2};

	return block_id_make(&object, n);
}

static void nodes_get_shares_by_weight(void **state)
{
	static const struct rendezvous_node nodes[] = {
		{.id = 11, .weight = 1}, {.id = 5, .weight = 2}, {.id = 900, .weight = 7}};
	unsigned got[3] = {0};

	(void)state;
	for (uint64_t n = 0; n < BLOCKS; n++) {
		struct block_id id = nth_block(n);

		got[rendezvous_home(nodes, 3, &id)]++;
	}
	for (int i = 0; i < 3; i++) {
		double p = nodes[i].weight / 10, deviation = sqrt(BLOCKS * p * (1 - p));

		assert_true(fabs(got[i] - BLOCKS * p) < 4 * deviation);
	}
}

static void the_unit_of_the_weights_does_not_matter(void **state)
{
	static const struct rendezvous_node small[] = {
		{.id = 1, .weight = 1}, {.id = 2, .weight = 2}, {.id = 3, .weight = 4}};
	static const struct rendezvous_node large[] = {{.id = 1, .weight = 0x1p40},
		{.id = 2, .weight = 0x1p41}, {.id = 3, .weight = 0x1p42}};

	(void)state;
	for (uint64_t n = 0; n < BLOCKS; n++) {
		struct block_id id = nth_block(n);

		assert_int_equal(rendezvous_home(small, 3, &id), rendezvous_home(large, 3, &id));
	}
}

static void make_nodes(struct rendezvous_node *nodes, size_t count)
{
	for (size_t i = 0; i < count; i++)
		nodes[i] = (struct rendezvous_node){.id = 1000 + i, .weight = 1 + (double)(i % 4)};
}

static void who_leaves_moves_only_its_own_share(void **state)
{
	struct rendezvous_node nodes[10], fewer[9];
	unsigned moved = 0;

	(void)state;
	make_nodes(nodes, 10);
	for (size_t i = 0; i < 9; i++)
		fewer[i] = nodes[i < 4 ? i : i + 1];
	for (uint64_t n = 0; n < BLOCKS; n++) {
		struct block_id id = nth_block(n);
		int before = rendezvous_home(nodes, 10, &id);
		int after = rendezvous_home(fewer, 9, &id);

		if (before == 4)
			moved++;
		else
			assert_int_equal(nodes[before].id, fewer[after].id);
	}
	assert_true(moved > 0);
}

static void more_weight_only_attracts(void **state)
{
	struct rendezvous_node nodes[6], heavier[6];
	unsigned attracted = 0;

	(void)state;
	make_nodes(nodes, 6);
	make_nodes(heavier, 6);
	heavier[2].weight *= 1.5;
	for (uint64_t n = 0; n < BLOCKS; n++) {
		struct block_id id = nth_block(n);
		int before = rendezvous_home(nodes, 6, &id);
		int after = rendezvous_home(heavier, 6, &id);

		assert_true(after == before || after == 2);
		attracted += after != before;
	}
	assert_true(attracted > 0);
}

static void the_order_of_the_array_does_not_matter(void **state)
{
	struct rendezvous_node nodes[7], shuffled[7];

	(void)state;
	make_nodes(nodes, 7);
	for (size_t i = 0; i < 7; i++)
		shuffled[i] = nodes[i * 3 % 7];
	for (uint64_t n = 0; n < BLOCKS / 4; n++) {
		struct block_id id = nth_block(n);
		int a[7], b[7];

		assert_int_equal(rendezvous_rank(nodes, 7, &id, a, 7), 7);
		assert_int_equal(rendezvous_rank(shuffled, 7, &id, b, 7), 7);
		for (size_t i = 0; i < 7; i++)
			assert_int_equal(nodes[a[i]].id, shuffled[b[i]].id);
	}
}

/* The ranking is the homes that come up when the best ones leave one after another, also where it
 * is longer than one pass finds. */
static void the_ranking_is_who_comes_next(void **state)
{
	struct rendezvous_node nodes[40];

	(void)state;
	make_nodes(nodes, 40);
	for (uint64_t n = 0; n < 300; n++) {
		struct block_id id = nth_block(n);
		struct rendezvous_node left[40];
		int order[50], best[3];

		make_nodes(left, 40);
		assert_int_equal(rendezvous_rank(nodes, 40, &id, order, 50), 40);
		assert_int_equal(rendezvous_rank(nodes, 40, &id, best, 3), 3);
		for (size_t i = 0; i < 40; i++) {
			assert_int_equal(rendezvous_home(left, 40, &id), order[i]);
			assert_true(i >= 3 || best[i] == order[i]);
			left[order[i]].weight = 0;
		}
		assert_int_equal(rendezvous_home(left, 40, &id), -1);
	}
}

static void nodes_that_cannot_hold_anything_are_no_homes(void **state)
{
	static const struct rendezvous_node nodes[] = {{.id = 1, .weight = 0},
		{.id = 2, .weight = -1}, {.id = 3, .weight = NAN}, {.id = 4, .weight = INFINITY}};
	struct block_id id = nth_block(0);
	int order[4];

	(void)state;
	assert_int_equal(rendezvous_home(nodes, 4, &id), -1);
	assert_int_equal(rendezvous_home(nodes, 0, &id), -1);
	assert_int_equal(rendezvous_rank(nodes, 4, &id, order, 4), 0);
	assert_int_equal(rendezvous_rank(nodes, 4, &id, order, 0), 0);
}

/* Every node must agree on them, whatever it was compiled with. */
static void homes_are_what_they_were_in_the_first_version(void **state)
{
	struct rendezvous_node nodes[10];
	uint64_t sum = 0;

	(void)state;
	make_nodes(nodes, 10);
	for (uint64_t n = 0; n < BLOCKS; n++) {
		struct block_id id = nth_block(n);

		sum = sum * 31 + (uint64_t)rendezvous_home(nodes, 10, &id);
	}
	assert_int_equal(sum, 0xbc14061edad0e4e4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nodes_get_shares_by_weight),
		cmocka_unit_test(the_unit_of_the_weights_does_not_matter),
		cmocka_unit_test(who_leaves_moves_only_its_own_share),
		cmocka_unit_test(more_weight_only_attracts),
		cmocka_unit_test(the_order_of_the_array_does_not_matter),
		cmocka_unit_test(the_ranking_is_who_comes_next),
		cmocka_unit_test(nodes_that_cannot_hold_anything_are_no_homes),
		cmocka_unit_test(homes_are_what_they_were_in_the_first_version),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

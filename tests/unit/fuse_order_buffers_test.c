#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fuse/order_buffers.h"

#define KIB ((uint32_t)1 << 10)
#define MIB ((uint32_t)1 << 20)

static void the_budget_is_used_to_the_byte(void **state)
{
	enum { COUNT = 4 * 16 + 3 }; /* of 128 KiB: four large pages and a bit */
	unsigned char *pieces[COUNT];
	struct order_buffers b;

	(void)state;
	order_buffers_init(&b, (uint64_t)COUNT * 128 * KIB);
	assert_int_equal(order_buffers_room(110000), 128 * KIB);
	for (int i = 0; i < COUNT; i++) {
		pieces[i] = order_buffers_get(&b, 110000);
		assert_non_null(pieces[i]);
		assert_int_equal((uintptr_t)pieces[i] % 4096, 0);
		memset(pieces[i], i, 128 * KIB);
	}
	assert_null(order_buffers_get(&b, 1));
	for (int i = 0; i < COUNT; i++) {
		assert_int_equal(pieces[i][0], i);
		assert_int_equal(pieces[i][128 * KIB - 1], i);
		order_buffers_put(&b, pieces[i], 110000);
	}
	assert_int_equal(b.used_bytes, 0);
	order_buffers_deinit(&b);
}

/* What was cut into the smallest pieces has room for the largest ones again. */
static void halves_become_whole_again(void **state)
{
	enum { LARGE = 8, SMALL = LARGE * 256 };
	unsigned char *small[SMALL], *large[LARGE];
	struct order_buffers b;

	(void)state;
	order_buffers_init(&b, LARGE * MIB);
	for (int i = 0; i < SMALL; i++)
		assert_non_null(small[i] = order_buffers_get(&b, 1));
	assert_null(order_buffers_get(&b, 1));
	for (int i = 0; i < SMALL; i++)
		order_buffers_put(&b, small[i * 37 % SMALL], 1);
	assert_int_equal(b.kept_pages, LARGE / 2);
	for (int i = 0; i < LARGE; i++)
		assert_non_null(large[i] = order_buffers_get(&b, MIB));
	assert_null(order_buffers_get(&b, 1));
	for (int i = 0; i < LARGE; i++)
		order_buffers_put(&b, large[i], MIB);
	order_buffers_deinit(&b);
}

static void a_trim_gives_free_pages_back(void **state)
{
	struct order_buffers b;
	unsigned char *in_use, *piece;

	(void)state;
	order_buffers_init(&b, 16 * MIB);
	order_buffers_trim(&b); /* before there is anything */
	in_use = order_buffers_get(&b, MIB);
	memset(in_use, 7, MIB);
	piece = order_buffers_get(&b, MIB);
	order_buffers_put(&b, order_buffers_get(&b, MIB), MIB);
	assert_int_equal(b.kept_pages, 1);
	order_buffers_trim(&b);
	assert_int_equal(b.kept_pages, 0);
	assert_int_equal(in_use[MIB - 1], 7);
	order_buffers_put(&b, piece, MIB);
	order_buffers_put(&b, in_use, MIB);
	for (int i = 0; i < 16; i++)
		assert_non_null(order_buffers_get(&b, MIB));
	for (int i = 0; i < 16; i++)
		order_buffers_put(&b, b.memory + (size_t)i * MIB, MIB);
	order_buffers_deinit(&b);
}

struct piece {
	unsigned char *bytes;
	uint32_t len;
	unsigned char mark;
};

static void check(const struct piece *p)
{
	for (uint32_t i = 0; i < p->len; i += 512)
		assert_int_equal(p->bytes[i], p->mark);
	assert_int_equal(p->bytes[p->len - 1], p->mark);
}

static void nobody_gets_what_another_has(void **state)
{
	enum { PIECES = 200, STEPS = 20000 };
	static struct piece pieces[PIECES];
	uint64_t used = 0, budget = 24 * (uint64_t)MIB + 12 * KIB;
	struct order_buffers b;
	struct piece *p;

	(void)state;
	srand(1);
	order_buffers_init(&b, budget);
	for (int step = 0; step < STEPS; step++) {
		p = &pieces[rand() % PIECES];
		if (p->bytes) {
			check(p);
			order_buffers_put(&b, p->bytes, p->len);
			used -= order_buffers_room(p->len);
			p->bytes = NULL;
		} else {
			p->len = 1 + (uint32_t)rand() % (rand() % 4 ? 200 * KIB : MIB);
			p->bytes = order_buffers_get(&b, p->len);
			if (!p->bytes)
				continue;
			used += order_buffers_room(p->len);
			p->mark = (unsigned char)step;
			memset(p->bytes, p->mark, p->len);
		}
		assert_true(used <= budget);
		assert_int_equal(b.used_bytes, used);
		if (step % 1000 == 0)
			order_buffers_trim(&b);
	}
	for (p = pieces; p < pieces + PIECES; p++) {
		if (p->bytes)
			order_buffers_put(&b, p->bytes, p->len);
	}
	assert_int_equal(b.kept_pages, b.page_count);
	order_buffers_deinit(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_budget_is_used_to_the_byte),
		cmocka_unit_test(halves_become_whole_again),
		cmocka_unit_test(a_trim_gives_free_pages_back),
		cmocka_unit_test(nobody_gets_what_another_has),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

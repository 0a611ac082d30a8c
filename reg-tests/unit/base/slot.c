/* Slots: distinct, reused, told apart from other memory. */
#include "mctunnel/base/slot.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void slots_are_distinct_and_whole(void **state)
{
	enum { N = 100 };
	uint8_t *s[N];
	for (int i = 0; i < N; i++) {
		s[i] = slot_get();
		assert_non_null(s[i]);
		assert_int_equal((uintptr_t)s[i] % 4096, 0);
		memset(s[i], i, SLOT_SIZE);
	}
	for (int i = 0; i < N; i++) {
		assert_int_equal(s[i][0], i);
		assert_int_equal(s[i][SLOT_SIZE - 1], i);
	}
	for (int i = 0; i < N; i++)
		slot_put(s[i]);
}

static void what_was_put_is_given_again_empty(void **state)
{
	void *a = slot_get();
	memset(a, 'x', SLOT_SIZE);
	slot_put(a);
	uint8_t *b = slot_get();
	assert_ptr_equal(b, a);
	for (size_t i = 0; i < SLOT_SIZE; i++)
		assert_int_equal(b[i], 0);
	slot_put(b);
}

static void other_memory_is_not_owned(void **state)
{
	void *a = slot_get(), *m = malloc(20000);
	assert_true(slot_owns(a));
	assert_true(slot_owns((uint8_t *)a + SLOT_SIZE - 1));
	assert_int_equal(slot_rest(a), SLOT_SIZE);
	assert_int_equal(slot_rest((uint8_t *)a + SLOT_SIZE - 1), 1);
	assert_false(slot_owns(m));
	assert_false(slot_owns(&a));
	free(m);
	slot_put(a);
}

static void pieces_share_a_slot(void **state)
{
	struct slot_share s = {0};
	uint8_t *a = slot_take(&s, 3001), *b = slot_take(&s, 16400), *c = slot_take(&s, 4096);
	assert_ptr_equal(b, a + 3008);
	assert_true(slot_rest(c) == SLOT_SIZE && c != a);
	assert_null(slot_take(&s, SLOT_SIZE + 1));
	memset(a, 'a', 3001);
	memset(b, 'b', 16400);
	memset(c, 'c', 4096);
	slot_give(&s, b);
	assert_int_equal(a[3000], 'a');
	uint8_t *d = slot_take(&s, 16400); /* its room is not used again before all is given back */
	assert_ptr_not_equal(d, b);
	for (size_t i = 0; i < 16400; i++)
		assert_int_equal(d[i], 0);
	slot_give(&s, d);
	slot_give(&s, c);
	slot_give(&s, a);
	assert_null(s.slot);
	a = slot_take(&s, 100);
	for (size_t i = 0; i < 100; i++)
		assert_int_equal(a[i], 0);
	slot_give(&s, a);
}

static void what_malloc_gives_can_be_emptied(void **state)
{
	size_t size = 65510, kept = 0;
	uint8_t *p = malloc(size);

	memset(p, 'p', size);
	slot_shed(p, size);
	for (size_t i = 0; i < size; i++)
		kept += p[i] == 'p';
	assert_true(kept < 2 * 4096); /* of the pages that it shares with others */
	memset(p, 'p', 100);
	slot_shed(p + 1, 99);
	assert_int_equal(p[50], 'p');
	free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(slots_are_distinct_and_whole),
		cmocka_unit_test(what_was_put_is_given_again_empty),
		cmocka_unit_test(other_memory_is_not_owned),
		cmocka_unit_test(pieces_share_a_slot),
		cmocka_unit_test(what_malloc_gives_can_be_emptied),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

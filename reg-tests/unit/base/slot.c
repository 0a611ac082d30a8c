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

static void what_was_put_is_given_again(void **state)
{
	void *a = slot_get();
	slot_put(a);
	assert_ptr_equal(slot_get(), a);
	slot_put(a);
}

static void other_memory_is_not_owned(void **state)
{
	void *a = slot_get(), *m = malloc(20000);
	assert_true(slot_owns(a));
	assert_false(slot_owns(m));
	assert_false(slot_owns(&a));
	free(m);
	slot_put(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(slots_are_distinct_and_whole),
		cmocka_unit_test(what_was_put_is_given_again),
		cmocka_unit_test(other_memory_is_not_owned),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

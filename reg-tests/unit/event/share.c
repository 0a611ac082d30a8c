/* So much of a turn and no more, also when it is asked again and again. */
#define _GNU_SOURCE
#include "event/share.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void burn(uint64_t us)
{
	uint64_t until = exactly_us() + us;

	while (exactly_us() < until)
		;
}

static void a_turn_has_so_much(void **state)
{
	struct share s = { 0 };

	clock_set_us(1000);
	share_begin(&s);
	assert_true(share_left(&s, UINT64_MAX));
	burn(300);
	assert_true(share_left(&s, UINT64_MAX));
	assert_false(share_left(&s, 300));
	share_begin(&s); /* again in the same turn */
	assert_false(share_left(&s, 300));
	clock_set_us(2000);
	share_begin(&s);
	assert_true(share_left(&s, UINT64_MAX));
	assert_int_equal(s.turn_us, 2000);
}

/* What others do in between is not counted. */
static void only_its_own(void **state)
{
	struct share s = { 0 };
	uint64_t spent;

	clock_set_us(3000);
	share_begin(&s);
	burn(100);
	assert_true(share_left(&s, UINT64_MAX));
	spent = s.spent_us;
	assert_true(spent >= 100);
	burn(100);
	share_begin(&s);
	assert_int_equal(s.spent_us, spent);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_turn_has_so_much),
		cmocka_unit_test(only_its_own),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

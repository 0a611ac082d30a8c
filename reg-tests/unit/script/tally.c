/* Figures of functions: quantiles, results, rest. */
#include "script/tally.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void quantiles(void **state)
{
	struct tally t = { 0 };

	assert_int_equal(tally_quantile_ns(&t, 0.5), 0);
	for (uint64_t i = 1; i <= 1000; i++)
		tally_call(&t, i * 100);
	assert_int_equal(t.calls, 1000);
	assert_int_equal(t.max_ns, 100000);
	assert_in_range(tally_quantile_ns(&t, 0.5), 50000, 62500);
	assert_in_range(tally_quantile_ns(&t, 0.99), 99000, 123750);
	assert_in_range(tally_quantile_ns(&t, 0.01), 1000, 1300);
	for (int i = 0; i < 5000; i++)
		tally_call(&t, 0);
	assert_int_equal(tally_quantile_ns(&t, 0.5), 0);
	tally_call(&t, UINT64_MAX / 2);
}

static void results(void **state)
{
	struct tally t = { 0 };
	const void *cursor = NULL;
	struct series_view v;
	int n = 0;

	tally_result(&t, "f", TALLY_ALLOW);
	tally_result(&t, "f", TALLY_ALLOW);
	tally_result(&t, "f", TALLY_ERROR);
	assert_int_equal(t.errors, 1);
	while (series_next(FAMILY_LUA_CALLS, &cursor, &v))
		n += (int)v.value;
	assert_int_equal(n, 3);
}

static void who_wastes_rests(void **state)
{
	struct tally t = { 0 };
	uint64_t now = budget_now_ns();

	assert_false(tally_rests(&t));
	tally_waste(&t, now, TALLY_WASTE_NS / 2);
	assert_false(tally_rests(&t));
	tally_waste(&t, now, UINT64_C(1000) * TALLY_WASTE_NS);
	assert_true(tally_rests(&t));
	t.waste_at_ns -= t.waste_ns / 2 * TALLY_WASTE_SHARE;
	assert_true(tally_rests(&t));
	t.waste_at_ns -= t.waste_ns * TALLY_WASTE_SHARE;
	assert_false(tally_rests(&t));
	assert_int_equal(t.waste_ns, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(quantiles), cmocka_unit_test(results), cmocka_unit_test(who_wastes_rests) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}

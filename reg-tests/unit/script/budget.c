/* Budgets: instructions, memory, what is final. */
#include "script/budget.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../failing.h"

static struct budget fresh(size_t limit)
{
	struct budget b = { .limit = limit };

	budget_begin(&b, 1);
	return b;
}

static void instructions(void **state)
{
	struct budget b = fresh(1 << 20);

	assert_true(budget_take(&b, BUDGET_PER_MS));
	assert_int_equal(b.left, 0);
	assert_true(budget_take(&b, 0));
	assert_true(budget_take(&b, -5));
	assert_int_equal(b.left, 0);
	assert_false(budget_take(&b, 1));
	assert_string_equal(b.spent, no_instructions);
	assert_false(budget_take(&b, 0));
	assert_false(budget_step(&b, 0));
	budget_begin(&b, 1);
	assert_null(b.spent);
	assert_true(budget_step(&b, 250));
	assert_false(budget_take(&b, INT64_MAX));
}

static void time_is_the_end_in_any_case(void **state)
{
	struct budget b = fresh(1 << 20);
	uint64_t steps = 0;

	while (budget_step(&b, 0))
		steps++;
	assert_string_equal(b.spent, no_time);
	assert_true(steps > 10);
}

static void memory(void **state)
{
	struct budget b = fresh(100000);
	char *p = budget_allocate(&b, NULL, 5, 60000), *q;

	assert_non_null(p);
	assert_int_equal(b.memory, 60000);
	assert_null(budget_allocate(&b, NULL, 0, 50000));
	assert_null(b.spent); /* it may help to collect */
	q = budget_allocate(&b, NULL, 0, 40000);
	assert_non_null(q);
	assert_null(budget_allocate(&b, p, 60000, 60001));
	assert_null(budget_allocate(&b, p, 60000, 60001));
	assert_ptr_equal(b.spent, budget_no_memory);
	assert_true(b.starved);
	p = budget_allocate(&b, p, 60000, 100);
	assert_int_equal(b.memory, 40100);
	assert_int_equal(b.peak, 100000);
	assert_null(budget_allocate(&b, p, 100, 0));
	assert_null(budget_allocate(&b, q, 40000, 0));
	assert_int_equal(b.memory, 0);
}

static void memory_of_the_process(void **state)
{
	struct budget b = fresh(100000);
	char *p = budget_allocate(&b, NULL, 0, 100);

	failing = 1;
	assert_ptr_equal(budget_allocate(&b, p, 100, 50), p);
	assert_true(has_failed());
	assert_int_equal(b.memory, 50); /* as Lua will give it back */
	failing = 1;
	assert_null(budget_allocate(&b, p, 50, 200));
	assert_true(has_failed());
	assert_null(b.spent); /* it may help to collect */
	failing = 1;
	assert_null(budget_allocate(&b, p, 50, 200));
	assert_true(has_failed());
	assert_true(budget_is_starved(&b));
	assert_false(b.starved); /* its own is not used up */
	assert_false(budget_step(&b, 1));
	assert_int_equal(b.memory, 50);
	budget_allocate(&b, p, 50, 0);
}

static void memory_costs_instructions(void **state)
{
	struct budget b = fresh(1 << 30);
	void *p[200];
	int n = 0;

	for (; n < 200 && (p[n] = budget_allocate(&b, NULL, 0, 64 << 10)); n++)
		;
	assert_true(n > 10 && n < 100);
	p[n] = budget_allocate(&b, NULL, 0, 100); /* small pieces go on until the next step */
	assert_non_null(p[n]);
	budget_allocate(&b, p[n], 100, 0);
	assert_null(budget_allocate(&b, NULL, 0, 64 << 10));
	assert_null(budget_allocate(&b, NULL, 0, 64 << 10));
	assert_string_equal(b.spent, no_instructions);
	while (n-- > 0)
		budget_allocate(&b, p[n], 64 << 10, 0);
}

static void large_pieces_are_for_loading(void **state)
{
	struct budget b = fresh(64 << 20);
	void *p;

	assert_null(budget_allocate(&b, NULL, 0, BLOCK_MAX + 1));
	assert_null(budget_allocate(&b, NULL, 0, BLOCK_MAX + 1));
	assert_string_equal(b.spent, no_block);
	assert_false(b.starved);
	budget_begin(&b, 1);
	b.loading = true;
	p = budget_allocate(&b, NULL, 0, BLOCK_MAX + 1);
	assert_non_null(p);
	budget_allocate(&b, p, BLOCK_MAX + 1, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(instructions), cmocka_unit_test(time_is_the_end_in_any_case), cmocka_unit_test(memory),
		cmocka_unit_test(memory_of_the_process), cmocka_unit_test(memory_costs_instructions), cmocka_unit_test(large_pieces_are_for_loading),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

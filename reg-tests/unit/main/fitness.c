/* When the virtual address is to move, and when it may come back, driven through time. */
#include "main/fitness.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define LIMIT 300

static struct fitness f;
static uint64_t now, beats[3];
static struct fitness_facts facts = { .beats = beats, .n = 3 };

static int setup(void **state)
{
	f = (struct fitness){ .looked_at = 0 };
	now = 100000;
	facts.ready = false;
	facts.failures = 0;
	beats[0] = beats[1] = beats[2] = 0;
	return 0;
}

/* ms pass; loops that are not stuck turn all the while. What was said last. */
static bool pass(unsigned ms, unsigned stuck)
{
	bool said = false;

	for (unsigned t = 0; t < ms; t += 50) {
		now += 50;
		for (unsigned i = 0; i < 2 && facts.ready; i++) {
			if (!(stuck & 1u << i))
				beats[i] = now - 20;
		}
		said = fitness_look(&f, &facts, LIMIT, now);
	}
	return said;
}

static void ready(bool yes)
{
	facts.ready = yes;
	beats[0] = beats[1] = yes ? now : 0;
}

static void before_the_first_worker(void **state)
{
	assert_false(pass(5000, 0));
	ready(true);
	assert_true(pass(50, 0)); /* the first time it need not prove itself */
	assert_true(pass(5000, 0));
}

static void a_crash_moves_nothing_when_the_next_is_there_in_time(void **state)
{
	ready(true);
	assert_true(pass(2000, 0));
	ready(false);
	assert_true(pass(250, 0));
	ready(true);
	assert_true(pass(2000, 0));
}

static void gone_for_too_long(void **state)
{
	ready(true);
	assert_true(pass(2000, 0));
	ready(false);
	assert_false(pass(400, 0));
	ready(true);
	assert_false(pass(FITNESS_STABLE_MS, 0));
	assert_true(pass(100, 0));
}

static void one_loop_that_hangs_is_enough(void **state)
{
	ready(true);
	assert_true(pass(2000, 0));
	assert_true(pass(250, 2));
	assert_false(pass(100, 2));
	assert_false(pass(FITNESS_STABLE_MS, 0)); /* it turns again: is that for good? */
	assert_true(pass(100, 0));
}

static void not_well_for_long_enough(void **state)
{
	ready(true);
	pass(2000, 0);
	assert_false(pass(400, 1));
	for (int i = 0; i < 10; i++) {
		assert_false(pass(FITNESS_STABLE_MS - 100, 0));
		assert_false(pass(400, 1));
	}
}

static void a_crash_loop(void **state)
{
	ready(true);
	pass(2000, 0);
	facts.failures = FITNESS_FAILURES;
	assert_false(pass(50, 0));
	facts.failures = 0; /* the caller says so when one was ready for long enough */
	assert_false(pass(500, 0));
	assert_true(pass(FITNESS_STABLE_MS, 0));
}

static void our_own_sleep_is_nobodys_fault(void **state)
{
	ready(true);
	pass(2000, 0);
	now += 60000; /* the machine stood still, and the loops have not turned yet */
	assert_true(fitness_look(&f, &facts, LIMIT, now));
	assert_true(pass(250, 3));
	assert_false(pass(200, 3)); /* but now it was awake to see it */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(before_the_first_worker, setup),
		cmocka_unit_test_setup(a_crash_moves_nothing_when_the_next_is_there_in_time, setup),
		cmocka_unit_test_setup(gone_for_too_long, setup),
		cmocka_unit_test_setup(one_loop_that_hangs_is_enough, setup),
		cmocka_unit_test_setup(not_well_for_long_enough, setup),
		cmocka_unit_test_setup(a_crash_loop, setup),
		cmocka_unit_test_setup(our_own_sleep_is_nobodys_fault, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

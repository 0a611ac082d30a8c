/* Timers: the rules one by one, then random schedules against a plain array of times. */
#include "mctunnel/base/timer.h"

#include "mctunnel/base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static struct timer a, b;
static int a_fired, b_fired;
static uint64_t now_ms;

static void go_to(uint64_t ms)
{
	now_ms = ms;
	clock_set_us(ms * 1000 + 999);
}

static void run_at(uint64_t ms)
{
	go_to(ms);
	timers_run();
}

static void count_a(struct timer *t)
{
	assert_ptr_equal(t, &a);
	assert_false(timer_running(t));
	a_fired++;
}

static void count_b(struct timer *t)
{
	b_fired++;
}

static int fresh(void **state)
{
	go_to(1000003);
	timer_init(&a, count_a);
	timer_init(&b, count_b);
	a_fired = b_fired = 0;
	return 0;
}

static int none_left(void **state)
{
	timer_stop(&a);
	timer_stop(&b);
	assert_int_equal(timers_wait_ms(), -1);
	assert_int_equal(timers_count(), 0);
	return 0;
}

static void test_fires_once_in_time(void **state)
{
	uint64_t start = now_ms;

	assert_false(timer_running(&a));
	timer_start(&a, 100);
	assert_true(timer_running(&a));
	run_at(start + 99);
	assert_int_equal(a_fired, 0);
	run_at(start + 100);
	assert_int_equal(a_fired, 1);
	run_at(start + 1000);
	assert_int_equal(a_fired, 1);
	assert_int_equal(timers_wait_ms(), -1);
}

static void test_each_distance(void **state)
{
	for (int bit = 0; bit < 50; bit++) {
		uint64_t start = now_ms, delay = (UINT64_C(1) << bit) + (unsigned)bit * 7;

		a_fired = 0;
		timer_start(&a, delay);
		run_at(start + delay - 1);
		assert_int_equal(a_fired, 0);
		assert_in_range(timers_wait_ms(), 0, 1);
		run_at(start + delay);
		assert_int_equal(a_fired, 1);
		go_to(1000003 + (unsigned)bit);
	}
}

static void test_restart_and_stop(void **state)
{
	uint64_t start = now_ms;

	timer_start(&a, 10);
	timer_start(&a, 5000);
	timer_start(&b, 10);
	timer_stop(&b);
	timer_stop(&b);
	assert_int_equal(timers_count(), 1);
	run_at(start + 4999);
	assert_int_equal(a_fired + b_fired, 0);
	run_at(start + 5000);
	assert_int_equal(a_fired, 1);
	assert_int_equal(b_fired, 0);
}

static void test_zero_delay_waits_for_run(void **state)
{
	timer_start(&a, 0);
	assert_int_equal(a_fired, 0);
	assert_int_equal(timers_wait_ms(), 0);
	timers_run();
	assert_int_equal(a_fired, 1);
}

static void again_at_once(struct timer *t)
{
	a_fired++;
	timer_start(t, 0);
}

static void test_started_while_firing_waits_for_next_run(void **state)
{
	timer_init(&a, again_at_once);
	timer_start(&a, 0);
	for (int i = 1; i < 5; i++) {
		timers_run();
		assert_int_equal(a_fired, i);
		assert_int_equal(timers_wait_ms(), 0);
	}
}

static void stop_other(struct timer *t)
{
	a_fired++;
	timer_stop(t == &a ? &b : &a);
}

static void test_stop_one_that_is_due_too(void **state)
{
	timer_init(&a, stop_other);
	timer_init(&b, stop_other);
	timer_start(&a, 20);
	timer_start(&b, 21);
	run_at(now_ms + 30);
	assert_int_equal(a_fired, 1);
	assert_false(timer_running(&a) || timer_running(&b));
}

static void free_self(struct timer *t)
{
	a_fired++;
	free(t);
}

static void test_may_free_itself(void **state)
{
	struct timer *t = malloc(sizeof(*t));

	timer_init(t, free_self);
	timer_start(t, 3);
	timer_start(&b, 3);
	run_at(now_ms + 3);
	assert_int_equal(a_fired, 1);
	assert_int_equal(b_fired, 1);
}

static void test_far_ends(void **state)
{
	timer_start(&a, UINT64_MAX);
	timer_start(&b, UINT64_C(1) << 40);
	assert_int_equal(timers_wait_ms(), 60000);
	run_at(now_ms + (UINT64_C(1) << 39));
	assert_int_equal(a_fired + b_fired, 0);
	timer_stop(&a);
	timer_stop(&b);
	assert_int_equal(timers_wait_ms(), -1);
}

/* The wait never passes a timer by, and only few wakings are for nothing. */
static void test_wait_leads_there(void **state)
{
	uint64_t at = now_ms + 1234567;
	int turns = 0;

	timer_start(&a, 1234567);
	for (; !a_fired; turns++) {
		int wait = timers_wait_ms();

		assert_in_range(wait, 0, 60000);
		assert_true(now_ms + (uint64_t)wait <= at);
		run_at(now_ms + (uint64_t)wait);
	}
	assert_int_equal(now_ms, at);
	assert_in_range(turns, 1, 1234567 / 60000 + 8);
}

/* The model: when each of the timers must fire; 0 = not running. */
enum { MANY = 300 };
static struct timer many[MANY];
static uint64_t expected[MANY], last_fired;
static uint32_t seed;
static bool in_run;
static uint64_t run_limit; /* what was started in this run and is due already must wait */
static bool born_in_run[MANY];
static unsigned fired;

static uint32_t chance(uint32_t n)
{
	seed = seed * 1664525u + 1013904223u;
	return (uint32_t)(((uint64_t)seed * n) >> 32);
}

static void model_start(unsigned i)
{
	uint64_t delay = chance(1u << chance(22));

	timer_start(&many[i], delay);
	expected[i] = now_ms + delay;
	born_in_run[i] = in_run;
}

static void model_stop(unsigned i)
{
	timer_stop(&many[i]);
	expected[i] = 0;
}

static void on_model_fire(struct timer *t)
{
	unsigned i = (unsigned)(t - many);

	assert_true(in_run && expected[i] && expected[i] <= run_limit && !born_in_run[i]);
	assert_true(expected[i] >= last_fired);
	last_fired = expected[i];
	expected[i] = 0;
	fired++;
	if (chance(3) == 0)
		model_start(chance(MANY));
	if (chance(3) == 0)
		model_stop(chance(MANY));
}

static uint64_t earliest(void)
{
	uint64_t first = UINT64_MAX;

	for (unsigned i = 0; i < MANY; i++) {
		assert_int_equal(timer_running(&many[i]), expected[i] != 0);
		if (expected[i] && expected[i] < first)
			first = expected[i];
	}
	return first;
}

static void model_run(void)
{
	for (unsigned i = 0; i < MANY; i++)
		born_in_run[i] = false;
	last_fired = 0;
	run_limit = now_ms;
	in_run = true;
	timers_run();
	in_run = false;
	for (unsigned i = 0; i < MANY; i++)
		assert_true(!expected[i] || expected[i] > now_ms || born_in_run[i]);
}

static void model_step(void)
{
	uint64_t first;
	int wait;

	for (uint32_t n = chance(20); n > 0; n--)
		chance(4) ? model_start(chance(MANY)) : model_stop(chance(MANY));
	first = earliest();
	wait = timers_wait_ms();
	if (first == UINT64_MAX)
		assert_int_equal(wait, -1);
	else
		assert_true(wait >= 0 && (now_ms + (uint64_t)wait <= first || wait == 0));
	go_to(now_ms + (chance(2) ? chance(1u << chance(18)) : (uint64_t)(wait > 0 ? wait : 0)));
	if (chance(8))
		model_run();
}

static void test_random_schedules(void **state)
{
	for (unsigned i = 0; i < MANY; i++)
		timer_init(&many[i], on_model_fire);
	for (uint32_t round = 1; round <= 20; round++) {
		seed = round;
		go_to(chance(1u << 31) * (uint64_t)chance(1u << 20));
		fired = 0;
		for (int step = 0; step < 300; step++)
			model_step();
		assert_true(fired > 300);
		for (unsigned i = 0; i < MANY; i++)
			model_stop(i);
		assert_int_equal(timers_wait_ms(), -1);
	}
}

#define RULE(f) cmocka_unit_test_setup_teardown(f, fresh, none_left)

int main(void)
{
	const struct CMUnitTest tests[] = {
		RULE(test_fires_once_in_time),
		RULE(test_each_distance),
		RULE(test_restart_and_stop),
		RULE(test_zero_delay_waits_for_run),
		RULE(test_started_while_firing_waits_for_next_run),
		RULE(test_stop_one_that_is_due_too),
		RULE(test_may_free_itself),
		RULE(test_far_ends),
		RULE(test_wait_leads_there),
		RULE(test_random_schedules),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

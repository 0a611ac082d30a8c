/* The pace of events, with a driven clock. */
#include "mctunnel/base/clock.h"
#include "mctunnel/base/pace.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define SECOND UINT64_C(1000000)

static uint64_t start = 1000 * SECOND;

/* Events in `us` when somebody asks whenever he is told to, and `jitter` microseconds late. */
static unsigned drive(struct pace *p, uint32_t rate, uint64_t us, uint64_t jitter)
{
	uint64_t end = start + us;
	unsigned n = 0;

	while (start < end) {
		uint64_t wait;

		clock_set_us(start);
		while ((wait = pace_take(p, rate)) == 0)
			n++;
		assert_true(wait <= 1000);
		start += wait * 1000 + jitter;
	}
	return n;
}

static void a_second_has_its_rate(void **state)
{
	static const uint32_t rates[] = { 1, 2, 3, 7, 20, 100, 499, 500, 1000, 10000, 1000000 };

	for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
		struct pace p = { 0 };

		for (int k = 0; k < 10; k++) {
			unsigned n = drive(&p, rates[i], SECOND, 0);

			assert_in_range(n, rates[i] - 1 - rates[i] / 500, rates[i] + 1 + rates[i] / 500);
		}
	}
}

static void late_timers_do_not_lower_it(void **state)
{
	struct pace p = { 0 };

	assert_in_range(drive(&p, 100, 10 * SECOND, 4000), 999, 1001);
}

static void nothing_is_saved_up(void **state)
{
	struct pace p = { 0 };

	drive(&p, 50, SECOND, 0);
	start += 3600 * SECOND;
	assert_in_range(drive(&p, 50, SECOND, 0), 50, 51);
}

static void what_is_given_back_can_be_taken(void **state)
{
	struct pace p = { 0 };

	clock_set_us(start);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(pace_take(&p, 5), 0);
		pace_give(&p, 5);
	}
	assert_int_equal(pace_take(&p, 5), 0);
	assert_in_range(pace_take(&p, 5), 1, 200);
}

static void no_rate_is_no_limit(void **state)
{
	struct pace p = { 0 };

	for (int i = 0; i < 1000; i++)
		assert_int_equal(pace_take(&p, 0), 0);
}

static struct pace shared;
static atomic_uint taken;

static void *grab(void *arg)
{
	for (uint64_t us = 0; us < SECOND; us += 100) {
		clock_set_us(2000 * SECOND + us);
		if (pace_take(&shared, 1000) == 0)
			atomic_fetch_add(&taken, 1);
	}
	return NULL;
}

/* Their clocks differ, as those of real threads do within a turn. */
static void threads_share_it(void **state)
{
	pthread_t t[4];

	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, grab, NULL), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	assert_in_range(atomic_load(&taken), 999, 1003);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_second_has_its_rate),
		cmocka_unit_test(late_timers_do_not_lower_it),
		cmocka_unit_test(nothing_is_saved_up),
		cmocka_unit_test(what_is_given_back_can_be_taken),
		cmocka_unit_test(no_rate_is_no_limit),
		cmocka_unit_test(threads_share_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

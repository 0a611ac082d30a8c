/* Time: kept between updates, driven by tests, one a thread. */
#include "mctunnel/base/clock.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

static uint64_t monotonic_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void test_first_call_knows_the_time(void **state)
{
	uint64_t before = monotonic_us(), us = clock_us();

	assert_in_range(us, before, monotonic_us());
}

static void test_kept_until_updated(void **state)
{
	uint64_t us = clock_us();

	while (monotonic_us() <= us + 1000)
		;
	assert_int_equal(clock_us(), us);
	clock_update();
	assert_true(clock_us() > us + 1000);
	assert_int_equal(clock_ms(), clock_us() / 1000);
}

static void *real_time(void *out)
{
	clock_update();
	*(uint64_t *)out = clock_us();
	return NULL;
}

static void test_driven(void **state)
{
	uint64_t elsewhere = 0, before = monotonic_us();
	pthread_t thread;

	clock_set_us(0);
	assert_int_equal(clock_us(), 0);
	clock_set_us(1999);
	clock_update();
	assert_int_equal(clock_us(), 1999);
	assert_int_equal(clock_ms(), 1);
	assert_int_equal(pthread_create(&thread, NULL, real_time, &elsewhere), 0);
	pthread_join(thread, NULL);
	assert_in_range(elsewhere, before, monotonic_us());
}

static void test_wall(void **state)
{
	char buf[32], end;
	struct tm tm = { 0 };
	unsigned ms;
	int seconds;
	time_t then, now = time(NULL);

	clock_wall(buf, sizeof(buf));
	assert_int_equal(sscanf(buf, "%4d-%2d-%2dT%2d:%2d:%2d.%3u%c", &tm.tm_year, &tm.tm_mon, &tm.tm_mday,
				&tm.tm_hour, &tm.tm_min, &seconds, &ms, &end),
			 8);
	assert_int_equal(end, 'Z');
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	tm.tm_sec = seconds;
	then = timegm(&tm);
	assert_in_range(then, now - 1, time(NULL) + 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_first_call_knows_the_time),
		cmocka_unit_test(test_kept_until_updated),
		cmocka_unit_test(test_driven),
		cmocka_unit_test(test_wall),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Counters of scripts, with a driven clock. */
#include "script/counter.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "../failing.h"

static uint64_t now_ms = 1000000;

static void go_on(uint64_t ms)
{
	now_ms += ms;
	clock_set_us(now_ms * 1000);
}

static double rate(struct counter *c, const char *key, uint64_t period)
{
	double r = -1;

	assert_true(counter_rate(c, key, strlen(key), period, &r));
	return r;
}

static int64_t add_bytes(struct counter *c, const char *key, size_t len, int64_t n)
{
	int64_t sum;

	assert_true(counter_add(c, key, len, n, &sum));
	return sum;
}

static int64_t add(struct counter *c, const char *key, int64_t n)
{
	return add_bytes(c, key, strlen(key), n);
}

static void counts(void **state)
{
	struct counter *c = counter_get("counts", 1000, 0);

	assert_int_equal(add(c, "a", 1), 1);
	assert_int_equal(add(c, "a", 5), 6);
	assert_int_equal(add(c, "b", -2), -2);
	assert_int_equal(add(c, "", 3), 3);
	assert_int_equal(counter_value(c, "a", 1), 6);
	assert_int_equal(counter_value(c, "c", 1), 0);
	assert_int_equal(add_bytes(c, "a\0x", 3, 1), 1);
	assert_int_equal(counter_keys(c), 4);
	assert_int_equal(add(c, "a", INT64_MAX), INT64_MAX);
	assert_int_equal(add(c, "b", INT64_MIN), INT64_MIN);
	counter_put(c);
}

static void no_memory_is_no_sum_of_nothing(void **state)
{
	struct counter *c = counter_get("memory", 1000, 0);
	int64_t sum;

	failing = 1;
	assert_false(counter_add(c, "a", 1, 1, &sum));
	assert_true(has_failed());
	assert_int_equal(add(c, "a", 2), 2);
	counter_put(c);
}

static void they_are_known_by_name(void **state)
{
	struct counter *a = counter_get("name", 10, 0), *b = counter_get("name", 20, 0), *c = counter_get("other", 10, 0);

	assert_ptr_equal(a, b);
	assert_ptr_not_equal(a, c);
	add(a, "x", 1);
	counter_put(a);
	assert_int_equal(counter_value(b, "x", 1), 1);
	counter_put(b);
	b = counter_get("name", 10, 0);
	assert_int_equal(counter_value(b, "x", 1), 0);
	counter_put(b);
	counter_put(c);
	assert_null(counters);
}

static void keys_expire(void **state)
{
	struct counter *c = counter_get("expire", 1000, 5000);

	add(c, "a", 1);
	add(c, "b", 1);
	go_on(4999);
	assert_int_equal(add(c, "a", 1), 2);
	go_on(1);
	assert_int_equal(counter_value(c, "b", 1), 0);
	assert_int_equal(counter_value(c, "a", 1), 2);
	go_on(5000);
	assert_int_equal(add(c, "a", 1), 1);
	assert_int_equal(counter_keys(c), 1);
	counter_put(c);
}

/* What was counted longest ago makes room. */
static void the_size_is_a_limit(void **state)
{
	struct counter *c = counter_get("size", 160, 0);
	char key[16];

	for (int i = 0; i < 5000; i++) {
		snprintf(key, sizeof(key), "%d", i);
		add(c, "always", 1);
		add(c, key, 1);
		assert_true(counter_keys(c) <= 160 + PARTS);
	}
	assert_true(counter_keys(c) > 100);
	assert_int_equal(counter_value(c, "always", 6), 5000);
	assert_int_equal(counter_value(c, "4999", 4), 1);
	assert_int_equal(counter_value(c, "0", 1), 0);
	counter_put(c);
}

static void old_keys_go_by_themselves(void **state)
{
	struct counter *c = counter_get("old", 100000, 1000);
	char key[16];

	for (int i = 0; i < 1000; i++) {
		snprintf(key, sizeof(key), "%d", i);
		add(c, key, 1);
	}
	go_on(1000);
	for (int i = 1000; i < 2000; i++) {
		snprintf(key, sizeof(key), "%d", i);
		add(c, key, 1);
	}
	assert_true(counter_keys(c) <= 1000 + PARTS);
	counter_put(c);
}

static void rates(void **state)
{
	struct counter *c = counter_get("rates", 1000, 0);

	assert_true(rate(c, "a", 10000) == 0);
	for (int i = 0; i < 100; i++) {
		add(c, "a", 1);
		go_on(100);
	}
	/* ten a second, for ten seconds */
	for (int i = 0; i < 300; i++) {
		double r;

		add(c, "a", 1);
		r = rate(c, "a", 10000);
		if (r < 95 || r > 105)
			fail_msg("after %d: %f", i, r);
		go_on(100);
	}
	go_on(5000);
	assert_true(rate(c, "a", 10000) > 30 && rate(c, "a", 10000) < 70);
	go_on(20000);
	assert_true(rate(c, "a", 10000) == 0);
	assert_int_equal(counter_value(c, "a", 1), 400);
	counter_put(c);
}

static void several_periods(void **state)
{
	struct counter *c = counter_get("periods", 1000, 0);
	double r;

	for (uint64_t p = 1; p <= COUNTER_PERIODS; p++)
		rate(c, "a", p * 1000);
	assert_false(counter_rate(c, "a", 1, 99000, &r));
	add(c, "a", 3);
	assert_true(rate(c, "a", 1000) == 3);
	go_on(2500);
	assert_true(rate(c, "a", 1000) == 0);
	assert_true(rate(c, "a", 4000) == 3);
	counter_put(c);
}

/* Each thread has its own idea of now. */
static void time_may_go_back(void **state)
{
	struct counter *c = counter_get("back", 1000, 1000);

	rate(c, "a", 10000);
	add(c, "a", 1);
	clock_set_us((now_ms - 500) * 1000);
	assert_int_equal(add(c, "a", 1), 2);
	assert_true(rate(c, "a", 10000) == 2);
	counter_put(c);
}

static void *count_much(void *arg)
{
	char key[16];

	clock_set_us(now_ms * 1000);
	for (int i = 0; i < 20000; i++) {
		snprintf(key, sizeof(key), "%d", i % 100);
		add(arg, key, 1);
	}
	return NULL;
}

static void threads_count_together(void **state)
{
	struct counter *c = counter_get("threads", 1000, 0);
	pthread_t t[4];

	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, count_much, c), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(counter_value(c, "7", 1), 800);
	counter_put(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counts),
		cmocka_unit_test(no_memory_is_no_sum_of_nothing),
		cmocka_unit_test(they_are_known_by_name),
		cmocka_unit_test(keys_expire),
		cmocka_unit_test(the_size_is_a_limit),
		cmocka_unit_test(old_keys_go_by_themselves),
		cmocka_unit_test(rates),
		cmocka_unit_test(several_periods),
		cmocka_unit_test(time_may_go_back),
		cmocka_unit_test(threads_count_together),
	};

	clock_set_us(now_ms * 1000);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

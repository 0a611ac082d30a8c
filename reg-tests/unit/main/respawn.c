/* The rules of supervision, driven through time. */
#include "main/respawn.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void a_stable_worker_returns_at_once_however_often(void **state)
{
	struct respawn r = { 0 };
	uint64_t now = 5;

	for (int i = 0; i < 1000; i++) {
		respawn_started(&r, now);
		respawn_ready(&r, now + 20);
		now += 1020;
		assert_int_equal(respawn_died(&r, now), 0);
	}
	assert_int_equal(r.failures, 0);
}

static void early_deaths_wait_longer_and_longer_then_end(void **state)
{
	static const int expected[] = { 0, 100, 200, 400, 800, 1600, 3200, 5000, 5000, -1 };
	struct respawn r = { 0 };
	uint64_t now = 77;

	for (size_t i = 0; i < 10; i++) {
		respawn_started(&r, now);
		if (i % 2)
			respawn_ready(&r, now + 3);
		now += 900;
		assert_int_equal(respawn_died(&r, now), expected[i]);
	}
}

static void one_stable_run_forgets_the_failures(void **state)
{
	struct respawn r = { 0 };

	for (int i = 0; i < 9; i++) {
		respawn_started(&r, 1);
		assert_true(respawn_died(&r, 2) >= 0);
	}
	respawn_started(&r, 10);
	respawn_ready(&r, 10);
	assert_int_equal(respawn_died(&r, 1010), 0);
	respawn_started(&r, 1010);
	assert_int_equal(respawn_died(&r, 1011), 0);
	respawn_started(&r, 1012);
	assert_int_equal(respawn_died(&r, 1013), 100);
}

static void a_stale_heartbeat_is_a_hang(void **state)
{
	struct respawn r = { 0 };
	uint64_t beats[4] = { 0 }, now = 10000;

	respawn_started(&r, now);
	respawn_ready(&r, now);
	for (int i = 0; i < 20; i++) {
		now += 500;
		beats[0] = beats[1] = now - 400;
		assert_false(respawn_hangs(&r, beats, 4, now));
	}
	for (int i = 0; i < 3; i++) {
		now += 500;
		beats[0] = now;
		assert_false(respawn_hangs(&r, beats, 4, now));
	}
	now += 500;
	beats[0] = now;
	assert_true(respawn_hangs(&r, beats, 4, now));
}

static void heartbeats_of_the_future_are_fresh(void **state)
{
	struct respawn r = { 0 };
	uint64_t beats[1] = { 20000 };

	respawn_started(&r, 10000);
	respawn_ready(&r, 10000);
	r.looked_at = 14900;
	assert_false(respawn_hangs(&r, beats, 1, 15000));
}

static void our_own_sleep_is_not_held_against_the_worker(void **state)
{
	struct respawn r = { 0 };
	uint64_t beats[1] = { 10000 };

	respawn_started(&r, 10000);
	respawn_ready(&r, 10000);
	assert_false(respawn_hangs(&r, beats, 1, 10500));
	assert_false(respawn_hangs(&r, beats, 1, 70000));
	assert_false(respawn_hangs(&r, beats, 1, 71000));
	assert_false(respawn_hangs(&r, beats, 1, 72000));
	assert_true(respawn_hangs(&r, beats, 1, 72500));
}

static void a_start_that_never_ends_is_a_hang(void **state)
{
	struct respawn r = { 0 };
	uint64_t beats[1] = { 0 }, now = 1;

	respawn_started(&r, now);
	for (; now <= 1 + RESPAWN_START_MS; now += 500)
		assert_false(respawn_hangs(&r, beats, 1, now));
	assert_true(respawn_hangs(&r, beats, 1, now));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_stable_worker_returns_at_once_however_often),
		cmocka_unit_test(early_deaths_wait_longer_and_longer_then_end),
		cmocka_unit_test(one_stable_run_forgets_the_failures),
		cmocka_unit_test(a_stale_heartbeat_is_a_hang),
		cmocka_unit_test(heartbeats_of_the_future_are_fresh),
		cmocka_unit_test(our_own_sleep_is_not_held_against_the_worker),
		cmocka_unit_test(a_start_that_never_ends_is_a_hang),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

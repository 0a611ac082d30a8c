/* Counters: summed over living and ended threads, read while they count; names fit for Prometheus. */
#include "mctunnel/base/stat.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { THREADS = 4, ADDS = 20000 };

static void test_add_and_sum(void **state)
{
	assert_int_equal(stat_sum(STAT_SESSIONS), 0);
	stat_add(STAT_SESSIONS, 5);
	stat_add(STAT_SESSIONS, -2);
	stat_add(STAT_BYTES_UP, INT64_C(1) << 40);
	assert_int_equal(stat_sum(STAT_SESSIONS), 3);
	assert_int_equal(stat_sum(STAT_BYTES_UP), INT64_C(1) << 40);
	assert_int_equal(stat_sum(STAT_LINKS), 0);
}

static void *count(void *unused)
{
	for (int i = 0; i < ADDS; i++) {
		stat_add(STAT_LINK_HANDSHAKES, 1);
		stat_add(STAT_QUEUE, i % 2 ? -1 : 1);
	}
	stat_add(STAT_SESSIONS, -1);
	return NULL;
}

static void test_threads(void **state)
{
	pthread_t threads[THREADS];
	int64_t seen = 0;

	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, count, NULL), 0);
	for (int i = 0; i < 100; i++) {
		int64_t now = stat_sum(STAT_LINK_HANDSHAKES);

		assert_true(now >= seen && now <= THREADS * ADDS);
		seen = now;
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(stat_sum(STAT_LINK_HANDSHAKES), THREADS * ADDS);
	assert_int_equal(stat_sum(STAT_QUEUE), 0);
	assert_int_equal(stat_sum(STAT_SESSIONS), 3 - THREADS);
}

static void test_rows(void **state)
{
	for (int i = 0; i < STAT_COUNT; i++) {
		const struct stat_row *row = &stat_rows[i];
		size_t len = strlen(row->name);
		int total = len > 6 && strcmp(row->name + len - 6, "_total") == 0;

		assert_int_equal(strncmp(row->name, "mctunnel_", 9), 0);
		assert_int_equal(strspn(row->name, "abcdefghijklmnopqrstuvwxyz_"), len);
		assert_int_equal(total, row->type == STAT_COUNTER);
		assert_true(row->help[0] != '\0');
		for (int j = 0; j < i; j++)
			assert_string_not_equal(row->name, stat_rows[j].name);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_add_and_sum),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_rows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Series with labels: identity, escaping, the limit, histograms, many threads. */
#include "base/series.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

static uint64_t value_of(enum family f, const char *labels)
{
	struct series_view v;
	const void *at = NULL;
	uint64_t value = UINT64_MAX;

	while (series_next(f, &at, &v)) {
		if (strcmp(v.labels, labels) == 0) {
			assert_int_equal(value, UINT64_MAX); /* once only */
			value = v.value;
		}
	}
	return value;
}

static size_t count(enum family f)
{
	struct series_view v;
	const void *at = NULL;
	size_t n = 0;

	while (series_next(f, &at, &v))
		n++;
	return n;
}

static void same_values_same_series(void **s)
{
	struct series *a = series_of(TARGET_FAILURES, "web", "target_refused");

	series_add(a, 2);
	assert_ptr_equal(a, series_of(TARGET_FAILURES, "web", "target_refused"));
	assert_ptr_not_equal(a, series_of(TARGET_FAILURES, "web", "target_timeout"));
	assert_ptr_not_equal(a, series_of(SERVICE_SESSIONS, "web", "target_refused"));
	assert_ptr_not_equal(series_of(TARGET_FAILURES, "ab", "c"), series_of(TARGET_FAILURES, "a", "bc"));
	assert_int_equal(value_of(FAMILY_TARGET_FAILURES, "service=\"web\",reason=\"target_refused\""), 2);
	assert_int_equal(value_of(FAMILY_TARGET_FAILURES, "service=\"web\",reason=\"target_timeout\""), 0);
	assert_ptr_equal(series_of(TARGET_FAILURES, NULL, "x"), series_of(TARGET_FAILURES, "", "x"));
}

static void no_labels(void **s)
{
	series_add(series_alone(HEALTH_FAILURES), 3);
	assert_int_equal(value_of(FAMILY_HEALTH_FAILURES, ""), 3);
}

static void escaping(void **s)
{
	char text[32];

	series_escape(text, sizeof(text), "a\"b\\c\nd");
	assert_string_equal(text, "a\\\"b\\\\c\\nd");
	series_escape(text, sizeof(text), "caf\xc3\xa9 \xff\xc3!");
	assert_string_equal(text, "caf\xc3\xa9 \xef\xbf\xbd\xef\xbf\xbd!");
	series_escape(text, 4, "abc\"");
	assert_string_equal(text, "abc");
	series_escape(text, 4, "ab\xc3\xa9");
	assert_string_equal(text, "ab");
	series_of(RELOADS, "a\"b");
	assert_int_equal(value_of(FAMILY_RELOADS, "result=\"a\\\"b\""), 0);
}

static void long_values(void **s)
{
	char text[5000];

	memset(text, '"', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	series_add(series_of(BYTES, text, text, text, text), 1);
	assert_int_equal(count(FAMILY_BYTES), 1);
}

static void histograms(void **s)
{
	struct series *h = series_alone(QUEUE);
	struct series_view v;
	const void *at = NULL;

	series_observe_us(h, 0);
	series_observe_us(h, 1000);
	series_observe_us(h, 1001);
	series_observe_us(h, 99000000);
	assert_true(series_next(FAMILY_QUEUE, &at, &v));
	assert_int_equal(v.bucket[0], 2);
	assert_int_equal(v.bucket[1], 1);
	assert_int_equal(v.bucket[SERIES_BUCKETS], 1);
	assert_int_equal(v.value, 4);
	assert_int_equal(v.sum_us, 99002001);
}

static void the_limit(void **s)
{
	char name[32];

	series_limit(10);
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < 100; i++) {
			snprintf(name, sizeof(name), "agent-%d", i);
			series_add(series_of(RECONNECTIONS, "t", name), 1);
		}
	}
	assert_int_equal(count(FAMILY_RECONNECTIONS), 11);
	assert_int_equal(value_of(FAMILY_RECONNECTIONS, "tunnel=\"t\",agent=\"agent-9\""), 2);
	assert_int_equal(value_of(FAMILY_RECONNECTIONS, "tunnel=\"other\",agent=\"other\""), 180);
	assert_in_range(series_dropped(FAMILY_RECONNECTIONS), 85, 90); /* two of them may look alike */
	assert_int_equal(series_dropped(FAMILY_BYTES), 0);
	series_limit(LIMIT_DEFAULT);
}

static void *counts(void *arg)
{
	struct series *kept = arg;

	for (int i = 0; i < 10000; i++) {
		series_add(series_of(SESSIONS, "l", "t", "s", i % 2 ? "done" : "idle"), 1);
		series_add(kept, 1);
	}
	return NULL;
}

static void threads(void **s)
{
	struct series *kept = series_of(SESSIONS, "l", "t", "s", "lost");
	pthread_t id[4];

	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&id[i], NULL, counts, kept), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(id[i], NULL);
	assert_int_equal(value_of(FAMILY_SESSIONS, "listener=\"l\",tunnel=\"t\",service=\"s\",reason=\"done\""), 20000);
	assert_int_equal(value_of(FAMILY_SESSIONS, "listener=\"l\",tunnel=\"t\",service=\"s\",reason=\"idle\""), 20000);
	assert_int_equal(value_of(FAMILY_SESSIONS, "listener=\"l\",tunnel=\"t\",service=\"s\",reason=\"lost\""), 40000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(same_values_same_series),
		cmocka_unit_test(no_labels),
		cmocka_unit_test(escaping),
		cmocka_unit_test(long_values),
		cmocka_unit_test(histograms),
		cmocka_unit_test(the_limit),
		cmocka_unit_test(threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

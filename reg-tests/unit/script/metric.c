/* Metrics of scripts: their names, labels, limits. */
#include "script/metric.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

static char err[200];

static struct metric *get(const char *name, size_t n, const char *const *labels)
{
	return metric_get(name, "help", n, labels, err, sizeof(err));
}

static uint64_t value_of(const struct metric *m, const char *wanted)
{
	const void *cursor = NULL;
	const char *labels;
	uint64_t value;

	while (metric_series(m, &cursor, &labels, &value)) {
		if (strcmp(labels, wanted) == 0)
			return value;
	}
	return UINT64_MAX;
}

static size_t count(const struct metric *m)
{
	const void *cursor = NULL;
	const char *labels;
	uint64_t value;
	size_t n = 0;

	while (metric_series(m, &cursor, &labels, &value))
		n++;
	return n;
}

static bool listed(const struct metric *wanted)
{
	const struct metric *m = NULL;

	while ((m = metric_next(m))) {
		if (m == wanted)
			return true;
	}
	return false;
}

static void names(void **state)
{
	static const char *const bad[] = { "", "9a", "a b", "a-b", "a\n", "\xc3\xa4" };
	char name[200];

	assert_string_equal(metric_name(get("seen", 0, NULL)), "mctunnel_lua_seen_total");
	assert_string_equal(metric_name(get("seen_total", 0, NULL)), "mctunnel_lua_seen_total");
	assert_ptr_equal(get("seen", 0, NULL), get("seen_total", 0, NULL));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_null(get(bad[i], 0, NULL));
	memset(name, 'a', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	assert_null(get(name, 0, NULL));
}

static void labels(void **state)
{
	static const char *const many[] = { "a", "b", "c", "d", "e", "f", "g", "h", "i" };

	assert_non_null(get("many", 8, many));
	assert_null(get("many", 9, many));
	assert_null(get("bad", 1, (const char *const[]){ "__name__" }));
	assert_null(get("bad", 1, (const char *const[]){ "le-x" }));
	assert_null(get("bad", 2, (const char *const[]){ "a", "a" }));
}

static void values(void **state)
{
	struct metric *m = get("values", 2, (const char *const[]){ "a", "b" });

	metric_add(m, (const char *const[]){ "x", "y" }, 2);
	metric_add(m, (const char *const[]){ "x", "y" }, 3);
	metric_add(m, (const char *const[]){ "q\"\\\n", "\xff" }, 1);
	assert_int_equal(value_of(m, "a=\"x\",b=\"y\""), 5);
	assert_int_equal(value_of(m, "a=\"q\\\"\\\\\\n\",b=\"\xef\xbf\xbd\""), 1);
	assert_int_equal(value_of(get("plain", 0, NULL), ""), 0);
}

static void the_number_of_series_is_limited(void **state)
{
	struct metric *m = get("limited", 1, (const char *const[]){ "n" });
	char text[16];

	series_limit(10);
	for (int i = 0; i < 100; i++) {
		snprintf(text, sizeof(text), "%d", i);
		metric_add(m, (const char *const[]){ text }, 1);
	}
	assert_int_equal(count(m), 11);
	assert_int_equal(value_of(m, "n=\"9\""), 1);
	assert_int_equal(value_of(m, "n=\"other\""), 90);
	series_limit(1000);
}

/* A reload may change the labels; only one of that name is shown. */
static void other_labels_replace(void **state)
{
	struct metric *a = get("changing", 1, (const char *const[]){ "a" }), *b = get("changing", 1, (const char *const[]){ "b" });

	assert_ptr_not_equal(a, b);
	assert_true(!listed(a) && listed(b));
	assert_ptr_equal(get("changing", 1, (const char *const[]){ "a" }), a);
	assert_true(listed(a) && !listed(b));
}

static void help_is_one_line(void **state)
{
	assert_string_equal(metric_help(metric_get("help", "a \"b\"\n\\", 0, NULL, err, sizeof(err))), "a \"b\"\\n\\\\");
	assert_string_equal(metric_help(metric_get("helpless", "", 0, NULL, err, sizeof(err))), "Counted by a script");
}

static void *add_much(void *arg)
{
	for (int i = 0; i < 10000; i++)
		metric_add(arg, (const char *const[]){ i % 2 ? "a" : "b" }, 1);
	return NULL;
}

static void threads_count_together(void **state)
{
	struct metric *m = get("threads", 1, (const char *const[]){ "x" });
	pthread_t t[4];

	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, add_much, m), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(value_of(m, "x=\"a\""), 20000);
}

static void the_number_of_metrics_is_limited(void **state)
{
	char name[16];
	bool refused = false;

	for (int i = 0; i <= METRICS_MAX; i++) {
		snprintf(name, sizeof(name), "m%d", i);
		refused |= !get(name, 0, NULL);
	}
	assert_true(refused);
	assert_non_null(strstr(err, "maximum"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),
		cmocka_unit_test(labels),
		cmocka_unit_test(values),
		cmocka_unit_test(the_number_of_series_is_limited),
		cmocka_unit_test(other_labels_replace),
		cmocka_unit_test(help_is_one_line),
		cmocka_unit_test(threads_count_together),
		cmocka_unit_test(the_number_of_metrics_is_limited),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

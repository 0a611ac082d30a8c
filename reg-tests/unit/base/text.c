/* Texts: whole, or known not to be. */
#include "mctunnel/base/text.h"

#include "../failing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_whole(void **state)
{
	struct text t;
	FILE *f = text_open(&t);

	assert_non_null(f);
	assert_int_equal(text_size(&t, f), 0);
	fprintf(f, "%d,", 7);
	assert_int_equal(text_size(&t, f), 2);
	for (int i = 0; i < 100000; i++)
		fputc('x', f);
	fwrite("a\0b", 1, 3, f);
	assert_int_equal(text_size(&t, f), 100005);
	assert_true(text_close(&t, f));
	assert_int_equal(t.len, 100005);
	assert_memory_equal(t.v, "7,xxx", 5);
	assert_memory_equal(t.v + 100002, "a\0b", 4); /* and a NUL */
	free(t.v);
}

static void test_empty(void **state)
{
	struct text t;
	FILE *f = text_open(&t);

	assert_true(text_close(&t, f));
	assert_string_equal(t.v, "");
	free(t.v);
}

/* open_memstream() says of all but the last and the first that all is well. */
static void test_each_allocation(void **state)
{
	unsigned n = 0, whole = 0;
	bool failed;

	do {
		struct text t;
		FILE *f;
		bool ok;

		failing = ++n;
		f = text_open(&t);
		for (int i = 0; f && i < 50000; i++)
			fprintf(f, "%d\n", i % 10);
		ok = text_close(&t, f);
		failed = has_failed();
		if (ok) {
			whole++;
			assert_int_equal(t.len, 100000);
			for (int i = 0; i < 50000; i++)
				assert_true(t.v[2 * i] == '0' + i % 10 && t.v[2 * i + 1] == '\n');
			free(t.v);
		} else {
			assert_true(failed);
			assert_null(t.v);
		}
	} while (failed);
	assert_true(n > 5);
	assert_true(whole >= 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole),
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_each_allocation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

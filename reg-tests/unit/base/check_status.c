/* The words of health checks. */
#include "mctunnel/base/check_status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* The words are HAProxy's, and fit what is sent to hubs. */
static void test_statuses(void **state)
{
	for (int i = 0; i < CHECK_STATUS_COUNT; i++) {
		assert_true(strlen(check_status_word(i)) < 8);
		assert_true(strlen(check_status_text(i)) < 64);
		if (strstr(check_status_word(i), "OK"))
			assert_int_equal(check_status_verdict(i), 1);
		else if (check_status_word(i)[0] == 'L')
			assert_int_equal(check_status_verdict(i), 0);
		else
			assert_int_equal(check_status_verdict(i), -1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_statuses) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}

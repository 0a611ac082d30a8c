/* Reasons: the table is whole, words are unique, wire codes go there and back. */
#include "mctunnel/base/reason.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_every_row_is_filled(void **state)
{
	for (unsigned r = 0; r < REASON_COUNT; r++) {
		const char *word = reason_word((enum reason)r);
		int status = reason_status((enum reason)r);

		assert_true(strlen(word) > 0 && strlen(word) < 32); /* fits hub_hello.reason */
		assert_int_equal(strspn(word, "abcdefghijklmnopqrstuvwxyz_"), strlen(word));
		assert_true(strlen(reason_text((enum reason)r)) > 0);
		assert_true(strchr("-CcSsPIRKDL", reason_letter((enum reason)r)) != NULL);
		assert_true(status == 0 || (status >= 400 && status <= 599));
	}
}

static void test_words_go_there_and_back(void **state)
{
	for (unsigned r = 0; r < REASON_COUNT; r++) {
		enum reason other = r ? REASON_DONE : REASON_LOST;

		assert_int_equal(reason_from_word(reason_word((enum reason)r), other), r);
	}
	assert_int_equal(reason_from_word("nonsense", REASON_LOST), REASON_LOST);
	assert_int_equal(reason_from_word("", REASON_LOST), REASON_LOST);
	assert_int_equal(reason_from_word("done ", REASON_LOST), REASON_LOST);
}

static void test_codes_go_there_and_back(void **state)
{
	for (unsigned r = 0; r < REASON_COUNT; r++) {
		enum reason other = r ? REASON_DONE : REASON_LOST;

		assert_int_equal(reason_code((enum reason)r), REASON_WIRE + r);
		assert_int_equal(reason_from_code(reason_code((enum reason)r), other), r);
	}
}

static void test_foreign_codes_give_the_default(void **state)
{
	assert_int_equal(reason_from_code(0, REASON_CLIENT_RESET), REASON_CLIENT_RESET);
	assert_int_equal(reason_from_code(8, REASON_TARGET_RESET), REASON_TARGET_RESET); /* HTTP/2 CANCEL */
	assert_int_equal(reason_from_code(REASON_WIRE - 1, REASON_LOST), REASON_LOST);
	assert_int_equal(reason_from_code(REASON_WIRE + REASON_COUNT, REASON_LOST), REASON_LOST);
	assert_int_equal(reason_from_code(UINT32_MAX, REASON_LOST), REASON_LOST);
}

/* The order is the wire's: these must never change. */
static void test_order_of_the_wire(void **state)
{
	assert_int_equal(REASON_DONE, 0);
	assert_int_equal(REASON_CLIENT_RESET, 1);
	assert_int_equal(REASON_TARGET_RESET, 2);
	assert_int_equal(REASON_LOST, 13);
	assert_int_equal(REASON_NAME_IN_USE, 22);
	assert_int_equal(REASON_CONNECT_TIMEOUT, 26);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_row_is_filled),
		cmocka_unit_test(test_words_go_there_and_back),
		cmocka_unit_test(test_codes_go_there_and_back),
		cmocka_unit_test(test_foreign_codes_give_the_default),
		cmocka_unit_test(test_order_of_the_wire),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

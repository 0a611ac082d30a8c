/* Choices of patterns: that it makes no difference how many there are, and what covers what. */
#include "mctunnel/base/choice.h"
#include "mctunnel/base/pattern.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char *few[] = { "a.example.com", "*.example.org", "~^(?<site>[a-z]+)\\.net$" };
static char *many[] = { "a.example.com", "*.example.org", "b", "c", "d*", "~^(?<site>[a-z]+)\\.net$", "e*f", "x.net" };

static bool matches(const struct choice *c, const char *text, struct captures *caught)
{
	return choice_match(c, text, strlen(text), caught);
}

static void few_and_many_match_alike(void **state)
{
	for (int round = 0; round < 2; round++) {
		struct choice *c = round ? choice_new(many, 8, true) : choice_new(few, 3, true);
		struct captures caught = { 0 };

		assert_true(matches(c, "A.example.com", NULL));
		assert_true(matches(c, "x.Example.org", NULL));
		assert_false(matches(c, "example.org", NULL));
		assert_true(matches(c, "x.net", &caught)); /* the expression first, because it catches */
		assert_int_equal(caught.n, 1);
		assert_int_equal(matches(c, "e-F", NULL), round);
		assert_int_equal(matches(c, "dd", NULL), round);
		choice_free(c);
	}
}

static void nothing_matches_nothing(void **state)
{
	struct choice *c = choice_new(NULL, 0, false);

	assert_false(matches(c, "", NULL));
	assert_false(choice_covers(c, "x"));
	assert_false(choice_covers(c, "~x"));
	choice_free(c);
}

static void what_covers_what(void **state)
{
	for (int round = 0; round < 2; round++) {
		struct choice *c = round ? choice_new(many, 8, true) : choice_new(few, 3, true);

		assert_true(choice_covers(c, "a.EXAMPLE.com"));
		assert_true(choice_covers(c, "*.example.org"));
		assert_true(choice_covers(c, "*.b.example.org"));
		assert_true(choice_covers(c, "a*.example.org"));
		assert_true(choice_covers(c, "abc.net"));
		assert_true(choice_covers(c, "~^(?<site>[a-z]+)\\.net$"));
		assert_false(choice_covers(c, "*.net")); /* it cannot be told */
		assert_false(choice_covers(c, "~^a$"));
		assert_false(choice_covers(c, "*example.org"));
		assert_false(choice_covers(c, "*"));
		choice_free(c);
	}
}

static void a_star_covers_all(void **state)
{
	char *all[] = { "*", "1", "2", "3", "4", "5" };

	for (size_t n = 1; n <= 6; n += 5) {
		struct choice *c = choice_new(all, n, false);

		assert_true(choice_covers(c, "~anything"));
		assert_true(choice_covers(c, "*"));
		assert_true(choice_covers(c, "**"));
		assert_true(choice_covers(c, "x*"));
		choice_free(c);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(few_and_many_match_alike),
		cmocka_unit_test(nothing_matches_nothing),
		cmocka_unit_test(what_covers_what),
		cmocka_unit_test(a_star_covers_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

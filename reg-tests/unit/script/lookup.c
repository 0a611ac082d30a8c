/* Lists and maps of scripts. */
#include "script/lookup.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

static char err[200];
static int line;

static struct lookup *make(enum lookup_kind kind, const char *text)
{
	return lookup_new(kind, text, strlen(text), &line, err, sizeof(err));
}

static const char *get(const struct lookup *l, const char *word)
{
	return lookup_get(l, word, strlen(word));
}

static bool holds(const struct lookup *l, const char *addr)
{
	struct addr a;

	assert_int_equal(addr_parse(&a, addr), 0);
	return lookup_holds(l, &a);
}

static void maps(void **state)
{
	struct lookup *l = make(LOOKUP_MAP, "# x\n\n a  1 2 3 \r\nb\tx # not this\na 4\nc x#y");

	assert_non_null(l);
	assert_string_equal(get(l, "a"), "4");
	assert_string_equal(get(l, "b"), "x");
	assert_string_equal(get(l, "c"), "x#y");
	assert_null(get(l, "d"));
	assert_int_equal(lookup_count(l), 3);
	assert_non_null(lookup_networks(l));
	assert_false(holds(l, "10.0.0.1:1"));
	lookup_put(l);
}

static void maps_want_values(void **state)
{
	assert_null(make(LOOKUP_MAP, "a 1\n\nb\nc 3\n"));
	assert_int_equal(line, 3);
	assert_non_null(strstr(err, "WORD VALUE"));
}

static void lists(void **state)
{
	struct lookup *l = make(LOOKUP_LIST, "one\n two words \n# x\nthree");

	assert_true(lookup_has(l, "one", 3) && lookup_has(l, "two words", 9) && lookup_has(l, "three", 5) && !lookup_has(l, "two", 3));
	assert_string_equal(get(l, "one"), "");
	assert_int_equal(lookup_count(l), 3);
	assert_non_null(strstr(lookup_networks(l), "line 1"));
	lookup_put(l);
}

static void networks(void **state)
{
	struct lookup *l = make(LOOKUP_LIST, "10.0.0.0/8\n2001:db8::/32 # both\n192.0.2.7\n"), *same = lookup_hold(l);

	assert_null(lookup_networks(l));
	assert_true(holds(l, "10.9.9.9:1") && holds(l, "[2001:db8::5]:1") && holds(l, "192.0.2.7:80") && !holds(l, "192.0.2.8:80"));
	lookup_put(l);
	assert_true(lookup_has(same, "192.0.2.7", 9));
	lookup_put(same);
}

static void nothing(void **state)
{
	struct lookup *l = make(LOOKUP_LIST, "");

	assert_int_equal(lookup_count(l), 0);
	assert_null(lookup_networks(l));
	assert_false(holds(l, "10.0.0.1:1"));
	lookup_put(l);
	lookup_put(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(maps), cmocka_unit_test(maps_want_values), cmocka_unit_test(lists), cmocka_unit_test(networks), cmocka_unit_test(nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

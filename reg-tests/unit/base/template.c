/* Templates: how texts are cut. */
#include "mctunnel/base/template.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* "text|<name>|!": pieces as one line; neighbouring texts are one. */
static const char *cut(const char *template)
{
	static char out[256];
	struct template_piece p;

	out[0] = '\0';
	while (template_next(&template, &p)) {
		size_t len = strlen(out);
		const char *form = p.kind == TEMPLATE_TEXT ? "%.*s" : p.kind == TEMPLATE_NAME ? "<%.*s>" : "!%.*s!";

		assert_true(p.len > 0);
		snprintf(out + len, sizeof(out) - len, form, (int)p.len, p.at);
	}
	return out;
}

static void texts_are_cut(void **state)
{
	assert_string_equal(cut(""), "");
	assert_string_equal(cut("/plain"), "/plain");
	assert_string_equal(cut("${site}/web"), "<site>/web");
	assert_string_equal(cut("a${x}${y_2}b"), "a<x><y_2>b");
	assert_string_equal(cut("${_}"), "<_>");
	assert_string_equal(cut("$"), "$");
	assert_string_equal(cut("$5 $x"), "$5 $x");
	assert_string_equal(cut("$$${x}"), "$${x}");
	assert_string_equal(cut("$${x}"), "${x}");
	assert_string_equal(cut("${x"), "!${!x");
	assert_string_equal(cut("${}"), "!${!}");
	assert_string_equal(cut("${a-b}"), "!${!a-b}");
	assert_string_equal(cut("${1}"), "!${!1}");
	assert_string_equal(cut("${"), "!${!");
	assert_string_equal(cut("${a${b}"), "!${!a<b>");
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(texts_are_cut) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}

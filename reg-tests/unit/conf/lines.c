/* Lists in files: entries, and on which lines they stand. */
#include "mctunnel/conf/lines.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* "1:a 3:b" */
static const char *read(const char *text)
{
	struct lines l = { .text = text, .len = strlen(text) };
	static char out[256];

	out[0] = '\0';
	for (char *e; (e = lines_next(&l));) {
		size_t n = strlen(out);

		snprintf(out + n, sizeof(out) - n, "%s%d:%s", n ? " " : "", l.line, e);
		free(e);
	}
	assert_null(lines_next(&l));
	return out;
}

static void entries_are_found(void **state)
{
	assert_string_equal(read(""), "");
	assert_string_equal(read("\n\n"), "");
	assert_string_equal(read("a"), "1:a");
	assert_string_equal(read("a\n"), "1:a");
	assert_string_equal(read("\n\r\n \t\n a \t\r\nb"), "4:a 5:b");
	assert_string_equal(read("\xef\xbb\xbf" "a\nb"), "1:a 2:b");
	assert_string_equal(read("a b"), "1:a b");
}

static void comments_do_not_count(void **state)
{
	assert_string_equal(read("# x\n#y\n\t# z\na"), "4:a");
	assert_string_equal(read("a # x\nb\t#c # d"), "1:a 2:b");
	assert_string_equal(read("~a#b\n~[#]"), "1:~a#b 2:~[#]");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(entries_are_found),
		cmocka_unit_test(comments_do_not_count),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

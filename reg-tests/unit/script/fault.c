/* Errors of scripts: their place, taken from what Lua says; how many are logged. */
#include "script/fault.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static struct script_fault f;

static void places(void **state)
{
	fault_clear(&f);
	fault_place(&f, "/etc/p.lua", 3);
	fault_said(&f, "p.lua", "p.lua:7: boom: 5: x");
	assert_string_equal(f.text, "boom: 5: x");
	assert_int_equal(f.line, 7);
	fault_said(&f, "p.lua", "other.lua:8: boom");
	assert_string_equal(f.text, "other.lua:8: boom");
	assert_int_equal(f.line, 7);
	fault_said(&f, "p.lua", "p.lua:x: boom");
	assert_string_equal(f.text, "p.lua:x: boom");
	fault_said(&f, "p.lua", "");
	assert_string_equal(f.text, "");
	fault_syntax(&f, "/etc/a:b/very long.lua", "...a:b/very long.lua:12: unexpected symbol near ':'");
	assert_string_equal(f.file, "/etc/a:b/very long.lua");
	assert_string_equal(f.text, "unexpected symbol near ':'");
	assert_int_equal(f.line, 12);
	fault_syntax(&f, "p.lua", "no line at all: x");
	assert_string_equal(f.text, "no line at all: x");
	assert_int_equal(f.line, 0);
}

static void lines_are_limited(void **state)
{
	struct fault_log l = { 0 };
	char file[] = "/tmp/fault-XXXXXX", line[4096], err[100];
	int fd = mkstemp(file), lines = 0;
	FILE *in = fdopen(fd, "r");

	assert_int_equal(log_open(file, LOG_TEXT, LOG_ERROR, err, sizeof(err)), 0);
	fault_clear(&f);
	fault_text(&f, "boom");
	clock_set_us(5000000);
	for (int i = 0; i < 500; i++)
		fault_log(&l, &f, "p", "web", "id");
	clock_set_us(7500000);
	for (int i = 0; i < 500; i++)
		fault_log(&l, &f, "p", NULL, NULL);
	log_close_all();
	while (fgets(line, sizeof(line), in))
		lines += strstr(line, "lua_error") != NULL;
	assert_int_equal(lines, BURST + 2);
	rewind(in);
	assert_non_null(fgets(line, sizeof(line), in));
	assert_non_null(strstr(line, "text=boom listener=web id=id"));
	fclose(in);
	remove(file);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(places), cmocka_unit_test(lines_are_limited) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}

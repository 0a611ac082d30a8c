/* The command line. */
#include "mctunnel/main/options.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static int parse(struct options *o, const char *line, char *copy, size_t size)
{
	static char *argv[32];
	int argc = 0;
	char *save;

	assert_true(strlen(line) < size);
	memcpy(copy, line, strlen(line) + 1);
	argv[argc++] = "mctunnel";
	for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save))
		argv[argc++] = w;
	argv[argc] = NULL;
	return options_parse(o, argc, argv);
}

static void everything_at_once(void **state)
{
	struct options o;
	char copy[256];

	assert_int_equal(parse(&o, "-f a.cfg -D -p x.pid -d -q -c -f dir -- b.cfg -c", copy, sizeof(copy)), 0);
	assert_int_equal(o.paths_n, 4);
	assert_string_equal(o.paths[0], "a.cfg");
	assert_string_equal(o.paths[1], "dir");
	assert_string_equal(o.paths[2], "b.cfg");
	assert_string_equal(o.paths[3], "-c");
	assert_true(o.check && o.quiet && o.debug && o.master.debug && o.master.daemonise && !o.master.no_master);
	assert_string_equal(o.master.pid_file, "x.pid");
	options_fini(&o);
}

static void one_process(void **state)
{
	struct options o;
	char copy[64];

	assert_int_equal(parse(&o, "-1 -f a.cfg", copy, sizeof(copy)), 0);
	assert_true(o.master.no_master && !o.check);
	options_fini(&o);
}

static void questions_need_no_configuration(void **state)
{
	static const char *const lines[] = { "-v", "-vv", "-h", "-dK" };
	struct options o;
	char copy[64];

	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		assert_int_equal(parse(&o, lines[i], copy, sizeof(copy)), 0);
		assert_true(o.version > 0 || o.help || o.reference);
		options_fini(&o);
	}
}

/* The usage goes to stderr. */
static int parse_quietly(struct options *o, const char *line, char *copy, size_t size)
{
	int null = open("/dev/null", O_WRONLY), kept = dup(STDERR_FILENO), rc;

	dup2(null, STDERR_FILENO);
	rc = parse(o, line, copy, size);
	dup2(kept, STDERR_FILENO);
	close(null);
	close(kept);
	return rc;
}

static void mistakes_are_refused(void **state)
{
	static const char *const lines[] = { "", "-x", "-cq -f a", "-f", "-c", "a.cfg", "-f a -p", "--check -f a", "-vvv" };
	struct options o;
	char copy[64];

	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		assert_int_equal(parse_quietly(&o, lines[i], copy, sizeof(copy)), -1);
		options_fini(&o);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(everything_at_once),
		cmocka_unit_test(one_process),
		cmocka_unit_test(questions_need_no_configuration),
		cmocka_unit_test(mistakes_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Times, sizes and numbers at their limits; how they are shown; names and the environment inside of strings. */
#include "mctunnel/conf/value.h"

#include "mctunnel/conf/expand.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct number {
	enum kind kind;
	const char *text;
	int64_t value;     /* -1: refused */
	const char *shown; /* or words of the refusal */
};

static const struct number numbers[] = {
	{ KIND_TIME, "300ms", 300, "300ms" },
	{ KIND_TIME, "5s", 5000, "5s" },
	{ KIND_TIME, "2m", 120000, "2m" },
	{ KIND_TIME, "1h", 3600000, "1h" },
	{ KIND_TIME, "1d", 86400000, "1d" },
	{ KIND_TIME, "1500", 1500, "1500ms" },
	{ KIND_TIME, "60s", 60000, "1m" },
	{ KIND_TIME, "0", 0, "0" },
	{ KIND_TIME, "007s", 7000, "7s" },
	{ KIND_TIME, "4294967295", 4294967295, "4294967295ms" },
	{ KIND_TIME, "4294967296", -1, "too much" },
	{ KIND_TIME, "99999999999999999999999999", -1, "too much" },
	{ KIND_TIME, "18446744073709551615d", -1, "too much" },
	{ KIND_TIME, "s", -1, "begins with no digit" },
	{ KIND_TIME, "5S", -1, "unexpected 'S'" },
	{ KIND_TIME, "+5s", -1, "no digit" },
	{ KIND_TIME, " 5s", -1, "no digit" },
	{ KIND_TIME, "5s ", -1, "unexpected 's'" },
	{ KIND_SIZE, "64k", 65536, "64k" },
	{ KIND_SIZE, "16M", 16 << 20, "16m" },
	{ KIND_SIZE, "1g", 1 << 30, "1g" },
	{ KIND_SIZE, "1025", 1025, "1025" },
	{ KIND_SIZE, "3g", 3221225472, "3g" },
	{ KIND_SIZE, "4g", -1, "the maximum is 4294967295" },
	{ KIND_SIZE, "1t", -1, "unexpected 't'" },
	{ KIND_INT, "12", 12, "12" },
	{ KIND_INT, "60000", 60000, "60000" },
	{ KIND_INT, "1k", -1, "unexpected 'k'" },
	{ KIND_INT, "-1", -1, "negative" },
	{ KIND_INT, "", -1, "empty" },
	{ KIND_INT, "0x10", -1, "unexpected 'x'" },
};

static void test_numbers(void **state)
{
	char err[256], shown[32];

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		const struct number *n = &numbers[i];
		struct row row = { .name = "x", .kind = n->kind, .size = sizeof(uint32_t), .max = UINT32_MAX };
		uint32_t v = 0;
		int rc = value_parse(&row, n->text, "", &v, err, sizeof(err));
		assert_int_equal(rc, n->value < 0 ? -1 : 0);
		if (rc < 0 && !strstr(err, n->shown))
			fail_msg("%s: %s", n->text, err);
		if (rc < 0)
			continue;
		assert_int_equal(v, n->value);
		assert_string_equal(value_show(n->kind, v, shown, sizeof(shown)), n->shown);
	}
}

static void test_wide(void **state)
{
	struct row row = { .name = "x", .kind = KIND_SIZE, .size = sizeof(uint64_t), .max = UINT64_MAX };
	char err[256];
	uint64_t v;

	assert_int_equal(value_parse(&row, "18446744073709551615", "", &v, err, sizeof(err)), 0);
	assert_true(v == UINT64_MAX);
	assert_int_equal(value_parse(&row, "18446744073709551616", "", &v, err, sizeof(err)), -1);
	assert_int_equal(value_parse(&row, "17179869184g", "", &v, err, sizeof(err)), -1);
}

static void test_path(void **state)
{
	struct row row = { .name = "x", .kind = KIND_PATH, .size = sizeof(char *) };
	char err[256], *path;

	assert_int_equal(value_parse(&row, "a.pem", "/etc/x/y.cfg", &path, err, sizeof(err)), 0);
	assert_string_equal(path, "/etc/x/a.pem");
	value_fini(&row, &path);
	assert_int_equal(value_parse(&row, "/a.pem", "/etc/x/y.cfg", &path, err, sizeof(err)), 0);
	assert_string_equal(path, "/a.pem");
	value_fini(&row, &path);
	assert_int_equal(value_parse(&row, "a.pem", "y.cfg", &path, err, sizeof(err)), 0);
	assert_int_equal(path[0], '/');
	value_fini(&row, &path);
}

static void test_name(void **state)
{
	struct row row = { .name = "x", .kind = KIND_NAME, .size = sizeof(char *) };
	char err[256], name[65], *out;

	memset(name, 'a', 64);
	name[63] = '\0';
	assert_int_equal(value_parse(&row, name, "", &out, err, sizeof(err)), 0);
	value_fini(&row, &out);
	name[63] = 'a';
	name[64] = '\0';
	assert_int_equal(value_parse(&row, name, "", &out, err, sizeof(err)), -1);
}

struct env {
	const char *text, *result; /* NULL: refused */
};

static const struct env envs[] = {
	{ "", "" },
	{ "plain $ text $x }", "plain $ text $x }" },
	{ "${VALUE_TEST}", "v" },
	{ "a${VALUE_TEST}b${VALUE_TEST}c", "avbvc" },
	{ "${VALUE_TEST_NOT-}", "" },
	{ "${VALUE_TEST_NOT-a-b}", "a-b" },
	{ "${VALUE_TEST-x}", "v" },
	{ "${VALUE_TEST_EMPTY-x}", "" },
	{ "$${VALUE_TEST}", "${VALUE_TEST}" },
	{ "$$${VALUE_TEST}", "$${VALUE_TEST}" },
	{ "${VALUE_TEST_NOT}", NULL },
	{ "${}", NULL },
	{ "${-x}", NULL },
	{ "${1}", NULL },
	{ "${VALUE_TEST:-x}", NULL },
	{ "${VALUE_TEST", NULL },
	{ "${", NULL },
};

static void test_environment(void **state)
{
	char err[256];

	setenv("VALUE_TEST", "v", 1);
	setenv("VALUE_TEST_EMPTY", "", 1);
	unsetenv("VALUE_TEST_NOT");
	for (size_t i = 0; i < sizeof(envs) / sizeof(envs[0]); i++) {
		char *out = expand_env(envs[i].text, err, sizeof(err));
		if (!out != !envs[i].result || (out && strcmp(out, envs[i].result) != 0))
			fail_msg("%s: %s", envs[i].text, out ? out : err);
		free(out);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbers), cmocka_unit_test(test_wide), cmocka_unit_test(test_path),
		cmocka_unit_test(test_name),    cmocka_unit_test(test_environment),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

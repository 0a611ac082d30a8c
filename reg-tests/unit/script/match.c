/* Patterns: what they find, and how soon they give up. That they are Lua's is tested in lua.c, against the library. */
#include "script/match.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static struct match m;

/* Where it was found, from 0; -1: not; -2: error or out of steps. */
static int find(const char *subject, const char *pattern, long steps)
{
	const char *end, *at;
	bool anchored = *pattern == '^';

	m = (struct match){ .subject = subject, .subject_end = subject + strlen(subject), .pattern = pattern + anchored,
			    .pattern_end = pattern + strlen(pattern), .left = steps };
	at = match_find(&m, subject, anchored, &end);
	if (m.error || m.left < 0)
		return -2;
	return at ? (int)(at - subject) : -1;
}

static void finds(void **state)
{
	assert_int_equal(find("hello world", "o w", 1000), 4);
	assert_int_equal(find("hello", "^e", 1000), -1);
	assert_int_equal(find("/a/bc/d", "/(%w+)/(%w)$", 1000), 2);
	assert_int_equal(m.captures, 2);
	assert_int_equal(m.capture[0].len, 2);
	assert_memory_equal(m.capture[0].at, "bc", 2);
	assert_int_equal(find("x(a(b)c)y", "%b()", 1000), 1);
	assert_int_equal(find("THE (quick) fox", "%f[%a]%a+%f[%A]", 1000), 0);
	assert_int_equal(find("abab", "^(ab)%1$", 1000), 0);
	assert_int_equal(find("abac", "^(ab)%1$", 1000), -1);
	assert_int_equal(find("", "", 1000), 0);
	assert_int_equal(find("abc", "()c", 1000), 2);
	assert_int_equal(m.capture[0].len, MATCH_POSITION);
}

static void malformed(void **state)
{
	static const char *const bad[] = { "%", "[a", "[%", "[^]", "%f", "%fa", "%b", "%bx", "%1", "(%1)", ")", "(a", "[" };

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int found = find("aaa bbb", bad[i], 1000);

		if (found != -2 && !(found == 0 && m.capture[0].len == MATCH_OPEN))
			fail_msg("'%s' was found at %d", bad[i], found);
	}
}

static void steps_are_a_limit(void **state)
{
	static const char *const slow[] = { ".-.-.-.-.-b", "(a*)(a*)(a*)(a*)b", "a-a-a-a-a-a-b", "[ab]*[ab]*[ab]*c", "a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?aaaaaaaaaaaaaaaaaaaaaaaaab" };
	char subject[2001];

	memset(subject, 'a', 2000);
	subject[2000] = '\0';
	for (size_t i = 0; i < sizeof(slow) / sizeof(slow[0]); i++) {
		assert_int_equal(find(subject, slow[i], 100000), -2);
		assert_null(m.error);
		assert_true(m.left < 0 && m.left > -5000);
	}
	assert_int_equal(find(subject, "b", 100000), -1);
	assert_int_equal(find(subject, "^a*$", 100000), 0);
}

static void depth_is_a_limit(void **state)
{
	char pattern[1024] = "";

	for (int i = 0; i < 300; i++)
		strncpy(pattern + i * 2, "a?", 3);
	assert_int_equal(find("", pattern, 1000000), 0);
	memset(pattern, '(', 40);
	pattern[40] = '\0';
	assert_int_equal(find("a", pattern, 1000000), -2);
	assert_string_equal(m.error, "too many captures");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds), cmocka_unit_test(malformed), cmocka_unit_test(steps_are_a_limit), cmocka_unit_test(depth_is_a_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Patterns: what matches, what groups catch, which expressions are refused in which words, and that none takes long. */
#include "mctunnel/base/pattern.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../failing.h"

struct row {
	const char *pattern;
	bool fold;
	const char *text;
	enum pattern_kind kind;
	bool matches;
};

static const struct row rows[] = {
	{ "static.example.com", false, "static.example.com", PATTERN_LITERAL, true },
	{ "static.example.com", false, "static.example.co", PATTERN_LITERAL, false },
	{ "static.example.com", false, "static.example.com.", PATTERN_LITERAL, false },
	{ "static.example.com", false, "staticXexample.com", PATTERN_LITERAL, false },
	{ "Static", false, "static", PATTERN_LITERAL, false },
	{ "Static", true, "sTATIc", PATTERN_LITERAL, true },
	{ "a[b", true, "A{b", PATTERN_LITERAL, false }, /* not a letter, though 32 apart */
	{ "", false, "", PATTERN_LITERAL, true },
	{ "", false, "x", PATTERN_LITERAL, false },
	{ "*.example.com", false, "a.example.com", PATTERN_GLOB, true },
	{ "*.example.com", false, "a.b.example.com", PATTERN_GLOB, true },
	{ "*.example.com", false, ".example.com", PATTERN_GLOB, true },
	{ "*.example.com", false, "example.com", PATTERN_GLOB, false },
	{ "*.Example.com", true, "a.eXample.com", PATTERN_GLOB, true },
	{ "*.Example.com", false, "a.example.com", PATTERN_GLOB, false },
	{ "/api/*", false, "/api/", PATTERN_GLOB, true },
	{ "/api/*", false, "/api", PATTERN_GLOB, false },
	{ "*", false, "", PATTERN_GLOB, true },
	{ "**", false, "x", PATTERN_GLOB, true },
	{ "a*b*c", false, "a-b-b-c", PATTERN_GLOB, true },
	{ "a*b*c", false, "a-c-b", PATTERN_GLOB, false },
	{ "a*a", false, "a", PATTERN_GLOB, false },
	{ "a?c", false, "abc", PATTERN_LITERAL, false },
	{ "~b", false, "abc", PATTERN_REGEX, true },
	{ "~^b", false, "abc", PATTERN_REGEX, false },
	{ "~^abc$", false, "abc", PATTERN_REGEX, true },
	{ "~^abc$", false, "abc\n", PATTERN_REGEX, false },
	{ "~^ABC$", true, "abc", PATTERN_REGEX, true },
	{ "~^ABC$", false, "abc", PATTERN_REGEX, false },
	{ "~*", false, "", PATTERN_REGEX, false }, /* refused */
	{ "~^.$", false, "\xc3\xa9", PATTERN_REGEX, false }, /* bytes */
};

static void rows_match(void **state)
{
	char err[256];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct row *r = &rows[i];
		struct pattern *p = pattern_new(r->pattern, r->fold, err, sizeof(err));

		if (!p) {
			assert_string_equal(r->pattern, "~*");
			continue;
		}
		assert_int_equal(pattern_kind(p), r->kind);
		assert_string_equal(pattern_text(p), r->pattern);
		if (pattern_match(p, r->text, strlen(r->text), NULL) != r->matches)
			fail_msg("\"%s\" and \"%s\"", r->pattern, r->text);
		pattern_free(p);
	}
}

static void the_length_counts_not_a_nul(void **state)
{
	static const char *const patterns[] = { "ab", "a*b", "~^ab$" };
	char err[256];

	for (size_t i = 0; i < 3; i++) {
		struct pattern *p = pattern_new(patterns[i], false, err, sizeof(err));

		assert_true(pattern_match(p, "abXXX", 2, NULL));
		assert_false(pattern_match(p, "ab\0c", 4, NULL));
		assert_false(pattern_match(p, "a", 1, NULL));
		pattern_free(p);
	}
}

static void assert_capture(const struct captures *c, size_t i, const char *name, const char *value)
{
	assert_true(i < c->n);
	assert_string_equal(c->v[i].name, name);
	assert_int_equal(c->v[i].len, strlen(value));
	assert_memory_equal(c->v[i].at, value, c->v[i].len);
}

static void groups_catch(void **state)
{
	char err[256];
	struct captures c = { 0 };
	struct pattern *p = pattern_new("~^/(?<site>[a-z0-9-]+)(/)(?<opt>x)?(?<rest>.*)$", false, err, sizeof(err));
	struct pattern *q = pattern_new("~(?<svc>[^.]+)", true, err, sizeof(err));

	assert_non_null(p);
	assert_string_equal(pattern_capture(p, 0), "site");
	assert_string_equal(pattern_capture(p, 1), "opt");
	assert_string_equal(pattern_capture(p, 2), "rest");
	assert_null(pattern_capture(p, 3));
	assert_true(pattern_match(p, "/site-a/api", 11, &c));
	assert_int_equal(c.n, 3);
	assert_capture(&c, 0, "site", "site-a");
	assert_capture(&c, 1, "opt", ""); /* took no part */
	assert_capture(&c, 2, "rest", "api");
	assert_false(pattern_match(p, "nothing", 7, &c));
	assert_int_equal(c.n, 3);
	assert_true(pattern_match(q, "Web.a", 5, &c)); /* further ones follow */
	assert_capture(&c, 3, "svc", "Web");
	pattern_free(p);
	pattern_free(q);
}

static void captures_have_a_maximum(void **state)
{
	char err[256];
	struct captures c = { 0 };
	struct pattern *p = pattern_new("~^(?<a>.)(?<b>.)(?<c>.)", false, err, sizeof(err));

	for (int i = 0; i < 20; i++)
		assert_true(pattern_match(p, "xyz", 3, &c));
	assert_int_equal(c.n, PATTERN_CAPTURES);
	assert_capture(&c, PATTERN_CAPTURES - 1, "b", "y");
	pattern_free(p);
}

static void backwards_matches_catch_nothing(void **state)
{
	char err[256];
	struct captures c = { 0 };
	struct pattern *p = pattern_new("~(?=a(?<x>b\\K))", false, err, sizeof(err));

	if (p) { /* later versions of PCRE2 refuse it */
		pattern_match(p, "ab", 2, &c);
		pattern_free(p);
	}
}

static void wrong_expressions_are_refused(void **state)
{
	static const struct {
		const char *text, *words;
	} wrong[] = {
		{ "~", "empty" },
		{ "~(", "at its end: missing closing parenthesis" },
		{ "~a[b", "at its end: missing terminating ]" },
		{ "~a)b", "at character 2, before \")b\": unmatched closing parenthesis" },
		{ "~*", "at character 1" },
		{ "~(?<a>x)(?<a>y)", "two named subpatterns have the same name" },
		{ "~(?J)(?<a>x)(?<a>y)", "two groups are called \"a\"" },
		{ "~(?<123>x)", "wrong at" },
		{ "~(*UTF)x", "wrong at" },
		{ "~a\\Cb", "wrong at" },
		{ "~\\p{Foo}", "wrong at" },
	};
	char err[256];

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		err[0] = '\0';
		assert_null(pattern_new(wrong[i].text, false, err, sizeof(err)));
		if (!strstr(err, wrong[i].words))
			fail_msg("%s: \"%s\" does not say \"%s\"", wrong[i].text, err, wrong[i].words);
	}
}

static void too_many_groups_are_refused(void **state)
{
	char text[4096] = "~", err[256];

	for (int i = 0; i < 33; i++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "(?<g%d>.)", i);
	assert_null(pattern_new(text, false, err, sizeof(err)));
	assert_non_null(strstr(err, "too many groups"));
	snprintf(text, sizeof(text), "~");
	for (int i = 0; i < 256; i++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "(.)");
	assert_null(pattern_new(text, false, err, sizeof(err)));
	assert_non_null(strstr(err, "too many groups"));
	text[strlen(text) - 3] = '\0';
	struct pattern *p = pattern_new(text, false, err, sizeof(err));
	assert_non_null(p);
	assert_true(pattern_match(p, text, 255, NULL));
	pattern_free(p);
}

/* Without a limit each of these takes longer than anybody lives. */
static void hostile_texts_cost_a_bounded_time(void **state)
{
	static const char *const slow[] = { "~^(a+)+$", "~^(a|aa)+$", "~(.*)*[xy]", "~(*NO_JIT)^(a+)+$", "~^(?:a?){64}a{64}$" };
	char text[PATTERN_TEXT_MAX], err[256];

	memset(text, 'a', sizeof(text));
	text[sizeof(text) - 1] = 'b';
	for (size_t i = 0; i < sizeof(slow) / sizeof(slow[0]); i++) {
		struct pattern *p = pattern_new(slow[i], false, err, sizeof(err));
		uint64_t before = pattern_overruns();

		assert_non_null(p);
		assert_false(pattern_match(p, text, sizeof(text), NULL));
		if (i != 4)
			assert_true(pattern_overruns() > before);
		assert_false(pattern_match(p, text + sizeof(text) - 40, 40, NULL));
		pattern_free(p);
	}
}

static void longer_texts_are_over_the_limit(void **state)
{
	static char text[PATTERN_TEXT_MAX + 1];
	char err[256];
	struct pattern *p = pattern_new("~^x", false, err, sizeof(err)), *glob = pattern_new("x*", false, err, sizeof(err));
	uint64_t before = pattern_overruns();

	memset(text, 'x', sizeof(text));
	assert_true(pattern_match(p, text, PATTERN_TEXT_MAX, NULL));
	assert_int_equal(pattern_overruns(), before);
	assert_false(pattern_match(p, text, sizeof(text), NULL));
	assert_int_equal(pattern_overruns(), before + 1);
	assert_true(pattern_match(glob, text, sizeof(text), NULL));
	pattern_free(p);
	pattern_free(glob);
}

/* What people write matches the longest of paths, also where there is no JIT. */
static void long_texts_are_no_attack(void **state)
{
	static const char *const usual[] = { "~^(?:/[a-z]+)*$", "~(*NO_JIT)^(?:/[a-z]+)*$", "~^(/(a|b|c))+$", "~(*NO_JIT)^(/(a|b|c))+$", "~^/(?<first>[^/]+)(?<rest>/.*)?$" };
	static char text[8192];
	char err[256];

	for (size_t i = 0; i < sizeof(text); i += 2)
		memcpy(text + i, "/a", 2);
	for (size_t i = 0; i < sizeof(usual) / sizeof(usual[0]); i++) {
		struct pattern *p = pattern_new(usual[i], false, err, sizeof(err));

		assert_non_null(p);
		if (!pattern_match(p, text, sizeof(text), NULL))
			fail_msg("%s", usual[i]);
		pattern_free(p);
	}
}

static struct pattern *shared;

static void *match_often(void *arg)
{
	for (int i = 0; i < 2000; i++) {
		struct captures c = { 0 };
		char text[32];
		int len = snprintf(text, sizeof(text), "/t%d-%d/x", *(int *)arg, i);

		assert_true(pattern_match(shared, text, (size_t)len, &c));
		assert_int_equal(c.v[0].len, len - 3);
		assert_ptr_equal(c.v[0].at, text + 1);
	}
	return NULL;
}

static void threads_match_at_once(void **state)
{
	pthread_t t[4];
	int n[4];
	char err[256];

	shared = pattern_new("~^/(?<site>[a-z0-9-]+)/", false, err, sizeof(err));
	for (int i = 0; i < 4; i++) {
		n[i] = i;
		assert_int_equal(pthread_create(&t[i], NULL, match_often, &n[i]), 0);
	}
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	pattern_free(shared);
}

/* With the Nth allocation failing in a thread that has not matched yet. */
static void *match_without_memory(void *n)
{
	uint64_t overruns = pattern_overruns(), shortages = pattern_shortages();
	bool matches, failed;

	failing = *(unsigned *)n;
	matches = pattern_match(shared, "/a/", 3, NULL);
	failed = has_failed();
	assert_true(matches || failed);
	assert_int_equal(pattern_shortages(), shortages + !matches);
	assert_int_equal(pattern_overruns(), overruns);
	assert_true(pattern_match(shared, "/a/", 3, NULL));
	return failed ? n : NULL;
}

static void no_memory_is_no_mismatch(void **state)
{
	static const char *const texts[] = { "~^/(?<site>[a-z0-9-]+)/", "~(*NO_JIT)^/(?<site>[a-z0-9-]+)/" };
	char err[256];

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		unsigned n = 0;
		void *failed = &n;

		shared = pattern_new(texts[i], false, err, sizeof(err));
		while (failed) {
			pthread_t t;

			n++;
			assert_int_equal(pthread_create(&t, NULL, match_without_memory, &n), 0);
			pthread_join(t, &failed);
		}
		assert_true(n > 3 + i);
		pattern_free(shared);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rows_match),
		cmocka_unit_test(the_length_counts_not_a_nul),
		cmocka_unit_test(groups_catch),
		cmocka_unit_test(captures_have_a_maximum),
		cmocka_unit_test(backwards_matches_catch_nothing),
		cmocka_unit_test(wrong_expressions_are_refused),
		cmocka_unit_test(too_many_groups_are_refused),
		cmocka_unit_test(hostile_texts_cost_a_bounded_time),
		cmocka_unit_test(longer_texts_are_over_the_limit),
		cmocka_unit_test(long_texts_are_no_attack),
		cmocka_unit_test(threads_match_at_once),
		cmocka_unit_test(no_memory_is_no_mismatch),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

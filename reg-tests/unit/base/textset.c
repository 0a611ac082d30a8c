/* Sets of texts: which patterns they take, and that they agree with patterns that are tried one by one. */
#include "mctunnel/base/pattern.h"
#include "mctunnel/base/textset.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void takes_what_can_be_looked_up(void **state)
{
	char long_text[TEXTSET_TEXT_MAX + 2];

	assert_true(textset_takes("static.example.com"));
	assert_true(textset_takes("*.example.com"));
	assert_true(textset_takes("/api/*"));
	assert_true(textset_takes("*"));
	assert_false(textset_takes("**"));
	assert_false(textset_takes("*a*"));
	assert_false(textset_takes("a*b"));
	assert_false(textset_takes("a*b*"));
	assert_false(textset_takes("~x"));
	memset(long_text, 'x', sizeof(long_text));
	long_text[TEXTSET_TEXT_MAX] = '\0';
	assert_true(textset_takes(long_text));
	long_text[TEXTSET_TEXT_MAX] = 'x';
	long_text[TEXTSET_TEXT_MAX + 1] = '\0';
	assert_false(textset_takes(long_text));
}

static bool has(const struct textset *s, const char *text)
{
	return textset_has(s, text, strlen(text));
}

static void finds_by_both_ends(void **state)
{
	struct textset *s = textset_new(false);

	assert_false(has(s, ""));
	assert_false(has(s, "x"));
	textset_add(s, "/a", 1);
	textset_add(s, "/api/*", 2);
	textset_add(s, "*.png", 3);
	assert_true(has(s, "/a"));
	assert_false(has(s, "/A"));
	assert_false(has(s, "/a/"));
	assert_true(has(s, "/api/"));
	assert_true(has(s, "/api/x"));
	assert_false(has(s, "/api"));
	assert_false(has(s, "/apj/x"));
	assert_true(has(s, "/x.png"));
	assert_true(has(s, ".png"));
	assert_false(has(s, "png"));
	assert_false(has(s, ""));
	textset_add(s, "*", 4);
	assert_true(has(s, ""));
	assert_true(has(s, "anything"));
	textset_free(s);
}

static void case_is_folded_on_demand(void **state)
{
	struct textset *s = textset_new(true);

	textset_add(s, "Host.Example.com", 1);
	textset_add(s, "*.Other.COM", 2);
	assert_true(has(s, "hOST.example.COM"));
	assert_true(has(s, "A.OTHER.com"));
	assert_false(has(s, "a.another.com"));
	textset_free(s);
}

static void long_texts_are_looked_up_by_their_ends(void **state)
{
	static char text[5000];

	for (int fold = 0; fold < 2; fold++) {
		struct textset *s = textset_new(fold);

		memset(text, 'x', sizeof(text) - 1);
		textset_add(s, "abc*", 1);
		textset_add(s, "*xyz", 2);
		assert_false(has(s, text));
		memcpy(text, "abc", 3);
		assert_true(has(s, text));
		memcpy(text, "xbc", 3);
		memcpy(text + sizeof(text) - 4, "xyz", 3);
		assert_true(has(s, text));
		textset_free(s);
	}
}

#define PATTERNS 60

struct seen {
	bool v[PATTERNS];
	size_t n, most;
};

static bool see(void *arg, uint32_t value)
{
	struct seen *s = arg;

	assert_false(s->v[value]);
	s->v[value] = true;
	return ++s->n < s->most;
}

static unsigned lot = 7;

static unsigned draw(unsigned n)
{
	lot = lot * 1103515245u + 12345u;
	return (lot >> 16) % n;
}

static const char *word(char *out, bool star)
{
	static const char letters[] = "aAb./";
	size_t n = draw(7), at = 0;

	if (star && draw(3) == 0)
		out[at++] = '*';
	for (size_t i = 0; i < n; i++)
		out[at++] = letters[draw(5)];
	if (star && (at == 0 || out[0] != '*') && draw(3) == 0)
		out[at++] = '*';
	out[at] = '\0';
	return out;
}

static void agrees_with_patterns(void **state)
{
	char err[64], text[16];

	for (int round = 0; round < 200; round++) {
		bool fold = round % 2;
		struct textset *s = textset_new(fold);
		struct pattern *p[PATTERNS] = { 0 };

		for (uint32_t i = 0; i < PATTERNS; i++) {
			word(text, true);
			bool again = false;
			for (uint32_t j = 0; j < i; j++)
				again |= p[j] && (fold ? strcasecmp : strcmp)(pattern_text(p[j]), text) == 0;
			textset_add(s, text, i);
			if (!again)
				p[i] = pattern_new(text, fold, err, sizeof(err));
		}
		for (int k = 0; k < 100; k++) {
			struct seen seen = { .most = PATTERNS + 1 }, some = { .most = 1 };
			size_t len = strlen(word(text, false)), n = 0;

			textset_each(s, text, len, see, &seen);
			for (uint32_t i = 0; i < PATTERNS; i++) {
				bool match = p[i] && pattern_match(p[i], text, len, NULL);
				if (match != seen.v[i])
					fail_msg("\"%s\" and \"%s\"", pattern_text(p[i]), text);
				n += match;
			}
			assert_int_equal(textset_has(s, text, len), n > 0);
			textset_each(s, text, len, see, &some);
			assert_int_equal(some.n, n > 0);
		}
		for (uint32_t i = 0; i < PATTERNS; i++)
			pattern_free(p[i]);
		textset_free(s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(takes_what_can_be_looked_up),
		cmocka_unit_test(finds_by_both_ends),
		cmocka_unit_test(case_is_folded_on_demand),
		cmocka_unit_test(long_texts_are_looked_up_by_their_ends),
		cmocka_unit_test(agrees_with_patterns),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

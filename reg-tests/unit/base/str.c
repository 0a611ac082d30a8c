/* Text helpers: tables of cases, edges of every buffer. */
#include "mctunnel/base/str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static void test_copy(void **state)
{
	char buf[5] = "zzzz";

	assert_true(str_copy(buf, sizeof(buf), "abcd"));
	assert_string_equal(buf, "abcd");
	assert_false(str_copy(buf, sizeof(buf), "vwxyz"));
	assert_string_equal(buf, "vwxy");
	assert_true(str_copy(buf, 1, ""));
	assert_string_equal(buf, "");
	assert_false(str_copy(buf, 1, "a"));
	assert_string_equal(buf, "");
}

static void test_glob(void **state)
{
	static const struct {
		const char *pattern, *text;
		bool match;
	} cases[] = {
		{ "", "", true },
		{ "", "a", false },
		{ "a", "", false },
		{ "*", "", true },
		{ "*", "anything", true },
		{ "**", "x", true },
		{ "abc", "abc", true },
		{ "abc", "abcd", false },
		{ "abc", "ab", false },
		{ "ab*", "abcd", true },
		{ "ab*", "ab", true },
		{ "ab*", "a", false },
		{ "*cd", "abcd", true },
		{ "*cd", "cdcdx", false },
		{ "*cd", "cdxcd", true },
		{ "a*c", "abbbc", true },
		{ "a*c", "ac", true },
		{ "a*c", "acb", false },
		{ "*a*b*", "xxaxxbxx", true },
		{ "*a*b*", "xxbxxaxx", false },
		{ "a*ab", "aaaab", true },
		{ "*.example.org", "www.example.org", true },
		{ "*.example.org", "example.org", false },
		{ "a?c", "abc", false },
		{ "a?c", "a?c", true },
		{ "[a]", "a", false },
		{ "*aab", "aaaaab", true },
	};

	for (size_t i = 0; i < COUNT(cases); i++)
		if (str_glob(cases[i].pattern, cases[i].text) != cases[i].match)
			fail_msg("'%s' on '%s'", cases[i].pattern, cases[i].text);
}

static void test_glob_is_not_exponential(void **state)
{
	char text[2001];

	memset(text, 'a', 2000);
	text[2000] = '\0';
	assert_false(str_glob("*a*a*a*a*a*a*a*a*a*a*a*a*b", text));
}

static void test_distance(void **state)
{
	static const struct {
		const char *a, *b;
		unsigned distance;
	} cases[] = {
		{ "", "", 0 },
		{ "", "abc", 3 },
		{ "same", "same", 0 },
		{ "kitten", "sitting", 3 },
		{ "timeout", "tiemout", 1 },
		{ "ab", "ba", 1 },
		{ "ca", "abc", 3 },
		{ "listen", "listens", 1 },
		{ "listener", "listner", 1 },
		{ "abcd", "badc", 2 },
		{ "frontend", "backend", 5 },
	};
	char a[70], b[70];

	for (size_t i = 0; i < COUNT(cases); i++) {
		assert_int_equal(str_distance(cases[i].a, cases[i].b), cases[i].distance);
		assert_int_equal(str_distance(cases[i].b, cases[i].a), cases[i].distance);
	}
	memset(a, 'x', sizeof(a));
	memset(b, 'x', sizeof(b));
	a[64] = b[63] = '\0';
	assert_int_equal(str_distance(a, b), 1);
	a[64] = 'x';
	a[65] = '\0';
	assert_int_equal(str_distance(a, b), 65);
	assert_int_equal(str_distance(b, a), 65);
	assert_int_equal(str_distance(a, a), 0);
}

static void test_hex(void **state)
{
	const unsigned char bytes[] = { 0x00, 0x1f, 0xa0, 0xff };
	unsigned char back[4];
	char hex[9];

	str_hex(hex, bytes, sizeof(bytes));
	assert_string_equal(hex, "001fa0ff");
	str_hex(hex, bytes, 0);
	assert_string_equal(hex, "");
	assert_true(str_unhex(back, 4, "001fA0Ff"));
	assert_memory_equal(back, bytes, 4);
	assert_true(str_unhex(back, 0, ""));
	assert_false(str_unhex(back, 4, "001fa0f"));
	assert_false(str_unhex(back, 4, "001fa0ff0"));
	assert_false(str_unhex(back, 4, "001fa0fg"));
	assert_false(str_unhex(back, 4, "001fa0 f"));
	assert_false(str_unhex(back, 4, ""));
	assert_false(str_unhex(back, 0, "0"));
}

static void host(const char *name, const char *want)
{
	char out[256];

	assert_int_equal(str_host(out, sizeof(out), name, strlen(name)), want != NULL);
	assert_string_equal(out, want ? want : "");
}

static void test_host(void **state)
{
	static const char *const none[] = { "", ".", "..", ".a", "a..b", "a..", "a b", "a/b", "a:1", "[::1]", "\xc3\xa4.de", "*", "*.a", "a\n", NULL };
	char label[256], out[16];

	host("a", "a");
	host("WWW.Example-1_x.COM.", "www.example-1_x.com");
	host("192.0.2.7", "192.0.2.7");
	for (size_t i = 0; none[i]; i++)
		host(none[i], NULL);
	assert_false(str_host(out, sizeof(out), "a\0b", 3));
	assert_true(str_host(out, sizeof(out), "a.longer", 1));
	assert_string_equal(out, "a");
	assert_true(str_host(out, sizeof(out), "123456789012345", 15));
	assert_false(str_host(out, sizeof(out), "1234567890123456", 16));
	memset(label, 'x', sizeof(label));
	label[255] = '\0';
	host(label, NULL);
	label[63] = '\0';
	host(label, label);
	for (size_t i = 63; i < 255; i += 64)
		label[i] = '.';
	label[253] = '\0';
	host(label, label);
	label[253] = 'x';
	label[254] = '\0';
	host(label, NULL);
}

static void test_u64(void **state)
{
	static const struct {
		const char *text;
		uint64_t max, value;
		bool ok;
	} cases[] = {
		{ "0", 0, 0, true },
		{ "7", 7, 7, true },
		{ "8", 7, 0, false },
		{ "10", 7, 0, false },
		{ "65535", 65535, 65535, true },
		{ "65536", 65535, 0, false },
		{ "655350", 65535, 0, false },
		{ "007", 9, 7, true },
		{ "18446744073709551615", UINT64_MAX, UINT64_MAX, true },
		{ "18446744073709551616", UINT64_MAX, 0, false },
		{ "184467440737095516150", UINT64_MAX, 0, false },
		{ "", 9, 0, false },
		{ "-1", 9, 0, false },
		{ "+1", 9, 0, false },
		{ " 1", 9, 0, false },
		{ "1 ", 9, 0, false },
		{ "1x", 9, 0, false },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		uint64_t value = 4711;
		bool ok = str_u64(cases[i].text, cases[i].max, &value);

		if (ok != cases[i].ok || value != (ok ? cases[i].value : 4711))
			fail_msg("'%s' up to %ju", cases[i].text, (uintmax_t)cases[i].max);
	}
}

static void test_strbuf(void **state)
{
	char text[10];
	struct strbuf b;

	strbuf_init(&b, text, sizeof(text));
	assert_string_equal(text, "");
	strbuf_add(&b, "%s=%d", "ab", 12);
	assert_string_equal(text, "ab=12");
	strbuf_add(&b, "%s", "6789");
	assert_string_equal(text, "ab=126789");
	assert_int_equal(b.len, 9);
	assert_false(b.cut);
	strbuf_add(&b, "%s", "");
	assert_false(b.cut);
	strbuf_add(&b, "x");
	assert_true(b.cut);
	assert_string_equal(text, "ab=126789");
	strbuf_init(&b, text, sizeof(text));
	strbuf_add(&b, "%s", "0123456789abc");
	assert_true(b.cut);
	assert_int_equal(b.len, 9);
	assert_string_equal(text, "012345678");
	strbuf_add(&b, "%s", "");
	assert_int_equal(b.len, 9);
	strbuf_init(&b, text, 1);
	strbuf_add(&b, "a");
	assert_true(b.cut && b.len == 0 && text[0] == '\0');
}

static void paragraph(int indent, const char *words, const char *want)
{
	char text[512] = "";
	FILE *f = fmemopen(text, sizeof(text), "w");

	str_paragraph(f, indent, words);
	fclose(f);
	assert_string_equal(text, want);
}

static void test_paragraph(void **state)
{
	char words[256], want[300];

	paragraph(0, "one", "one\n");
	paragraph(4, "one  two", "    one two\n"); /* blanks are between words only */
	memset(words, 'x', 94);
	strcpy(words + 94, " y z");
	memcpy(want, words, 96);
	strcpy(want + 96, "\nz\n");
	paragraph(0, words, want); /* 96 columns are full */
	memset(words, 'x', 120);
	words[120] = '\0';
	snprintf(want, sizeof(want), "  %s\n  y\n", words);
	strcpy(words + 120, " y");
	paragraph(2, words, want); /* a word is never cut */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_copy),
		cmocka_unit_test(test_glob),
		cmocka_unit_test(test_glob_is_not_exponential),
		cmocka_unit_test(test_distance),
		cmocka_unit_test(test_hex),
		cmocka_unit_test(test_host),
		cmocka_unit_test(test_u64),
		cmocka_unit_test(test_strbuf),
		cmocka_unit_test(test_paragraph),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Addresses: what parses, what is refused and in which words, and that text and back is the same address. */
#include "mctunnel/base/addr.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct good {
	const char *text;
	enum endpoint_use use;
	const char *shown; /* addr_text; NULL: a name */
};

static const struct good goods[] = {
	{ "127.0.0.1:80", ENDPOINT_BIND, "127.0.0.1:80" },
	{ "0.0.0.0:1", ENDPOINT_BIND, "0.0.0.0:1" },
	{ "*:8443", ENDPOINT_BIND, "[::]:8443" },
	{ "127.0.0.1:0", ENDPOINT_BIND, "127.0.0.1:0" },
	{ "[::1]:65535", ENDPOINT_DIAL, "[::1]:65535" },
	{ "[fe80::1%lo]:22", ENDPOINT_DIAL, "[fe80::1%lo]:22" },
	{ "[::ffff:192.0.2.1]:80", ENDPOINT_DIAL, "192.0.2.1:80" },
	{ "unix:/run/x.sock", ENDPOINT_BIND, "unix:/run/x.sock" },
	{ "unix:/run/with:colon", ENDPOINT_DIAL, "unix:/run/with:colon" },
	{ "hub-a.example.com:443", ENDPOINT_DIAL, NULL },
	{ "localhost:1", ENDPOINT_DIAL, NULL },
	{ "my_host:1", ENDPOINT_DIAL, NULL },
	{ "1password.example:1", ENDPOINT_DIAL, NULL },
};

static void test_good(void **state)
{
	char err[256], text[ADDR_TEXT];

	for (size_t i = 0; i < sizeof(goods) / sizeof(goods[0]); i++) {
		struct endpoint e;
		if (endpoint_parse(&e, goods[i].text, goods[i].use, err, sizeof(err)) < 0)
			fail_msg("%s: %s", goods[i].text, err);
		assert_string_equal(e.text, goods[i].text);
		assert_int_equal(e.any, goods[i].text[0] == '*');
		if (goods[i].shown) {
			assert_null(e.host);
			assert_string_equal(addr_text(&e.addr, text, sizeof(text)), goods[i].shown);
		} else {
			assert_non_null(e.host);
			assert_int_equal(e.addr.len, 0);
			assert_true(e.port > 0);
		}
		endpoint_fini(&e);
		assert_null(e.text);
	}
}

struct bad {
	const char *text;
	enum endpoint_use use;
	const char *words;
};

static const struct bad bads[] = {
	{ "", ENDPOINT_BIND, "empty" },
	{ "80", ENDPOINT_BIND, "port is missing" },
	{ ":80", ENDPOINT_BIND, "address is missing" },
	{ "127.0.0.1:", ENDPOINT_BIND, "port is missing" },
	{ "127.0.0.1:65536", ENDPOINT_BIND, "from 1 to 65535" },
	{ "127.0.0.1:-1", ENDPOINT_BIND, "not a port" },
	{ "127.0.0.1:http", ENDPOINT_BIND, "\"http\" is not a port" },
	{ "127.0.0.1: 80", ENDPOINT_BIND, "not a port" },
	{ "127.0.0.1:0", ENDPOINT_DIAL, "port 0" },
	{ "127.0.0.256:80", ENDPOINT_BIND, "not a numeric address" },
	{ "127.0.0.256:80", ENDPOINT_DIAL, "neither an address nor a host name" },
	{ "1.2.3:80", ENDPOINT_DIAL, "neither" },
	{ "host.name:80", ENDPOINT_BIND, "not a numeric address" },
	{ "*:80", ENDPOINT_DIAL, "neither" },
	{ "::1:80", ENDPOINT_BIND, "needs brackets" },
	{ "[::1:80", ENDPOINT_BIND, "']' is missing" },
	{ "[::1]80", ENDPOINT_BIND, "port is missing" },
	{ "[::1]", ENDPOINT_BIND, "port is missing" },
	{ "[::g]:80", ENDPOINT_BIND, "not an IPv6 address" },
	{ "[fe80::1%nosuchif]:80", ENDPOINT_DIAL, "not an IPv6 address" },
	{ "[127.0.0.1]:80", ENDPOINT_DIAL, "not an IPv6 address" },
	{ "a..b:80", ENDPOINT_DIAL, "neither" },
	{ "a b:80", ENDPOINT_DIAL, "neither" },
	{ "http://host:80", ENDPOINT_DIAL, "URL" },
	{ "unix:", ENDPOINT_BIND, "path is missing" },
	{ "unix:run/x", ENDPOINT_BIND, "absolute" },
};

static void test_bad(void **state)
{
	char err[256];

	for (size_t i = 0; i < sizeof(bads) / sizeof(bads[0]); i++) {
		struct endpoint e;
		if (endpoint_parse(&e, bads[i].text, bads[i].use, err, sizeof(err)) == 0)
			fail_msg("%s was taken", bads[i].text);
		if (!strstr(err, bads[i].words))
			fail_msg("%s: \"%s\" lacks \"%s\"", bads[i].text, err, bads[i].words);
		assert_null(e.text);
	}
}

static void test_long(void **state)
{
	char text[400], err[64];
	struct endpoint e;

	memcpy(text, "unix:/", 6);
	memset(text + 6, 'a', 106);
	text[112] = '\0'; /* a path of 107 bytes */
	assert_int_equal(endpoint_parse(&e, text, ENDPOINT_BIND, err, sizeof(err)), 0);
	char shown[ADDR_TEXT];
	assert_string_equal(addr_text(&e.addr, shown, sizeof(shown)), text);
	endpoint_fini(&e);
	text[112] = 'a';
	text[113] = '\0';
	assert_int_equal(endpoint_parse(&e, text, ENDPOINT_BIND, err, sizeof(err)), -1);
	memset(text, 'a', 64);
	memcpy(text + 64, ".x:80", 6);
	assert_int_equal(endpoint_parse(&e, text, ENDPOINT_DIAL, err, sizeof(err)), -1);
	memset(text, 'a', 300);
	for (int i = 60; i < 300; i += 60)
		text[i] = '.';
	memcpy(text + 300, ":80", 4);
	assert_int_equal(endpoint_parse(&e, text, ENDPOINT_DIAL, err, sizeof(err)), -1);
}

static void test_addr(void **state)
{
	char text[ADDR_TEXT];
	struct addr a, b, none = { 0 };

	assert_int_equal(addr_parse(&a, "192.0.2.1:80"), 0);
	assert_int_equal(addr_port(&a), 80);
	assert_string_equal(addr_host_text(&a, text, sizeof(text)), "192.0.2.1");
	assert_int_equal(addr_parse(&b, "192.0.2.1:81"), 0);
	assert_false(addr_equal(&a, &b));
	assert_true(addr_same_host(&a, &b));
	assert_int_equal(addr_parse(&b, "192.0.2.2:80"), 0);
	assert_false(addr_same_host(&a, &b));
	assert_int_equal(addr_parse(&b, "[2001:db8::1]:81"), 0);
	assert_false(addr_same_host(&a, &b));
	assert_false(addr_same_host(&a, &none));
	assert_int_equal(addr_parse(&a, "[2001:db8::1]:80"), 0);
	assert_true(addr_same_host(&a, &b));
	assert_int_equal(addr_parse(&a, "192.0.2.1:80"), 0);
	assert_int_equal(addr_parse(&b, "192.0.2.1:80"), 0);
	assert_true(addr_equal(&a, &b));
	assert_int_equal(addr_parse(&b, "[2001:db8::1]:80"), 0);
	assert_false(addr_equal(&a, &b));
	assert_string_equal(addr_host_text(&b, text, sizeof(text)), "2001:db8::1");
	assert_int_equal(addr_parse(&b, "unix:/x"), 0);
	assert_int_equal(addr_port(&b), 0);
	assert_true(addr_equal(&b, &b));
	assert_string_equal(addr_text(&none, text, sizeof(text)), "-");
	assert_false(addr_equal(&none, &b));
	assert_int_equal(addr_parse(&a, "*:80"), -1);
	assert_int_equal(addr_parse(&a, "name:80"), -1);
	memset(&a, 0, sizeof(a));
	a.u.un.sun_family = AF_UNIX;
	a.len = sizeof(sa_family_t);
	assert_string_equal(addr_text(&a, text, sizeof(text)), "unix:");
	memcpy(a.u.un.sun_path, "\0ab", 3);
	a.len += 3;
	assert_string_equal(addr_text(&a, text, sizeof(text)), "unix:@ab");
}

static void loopback(void **state)
{
	static const struct {
		const char *text;
		bool is;
	} cases[] = { { "127.0.0.1:80", true },  { "127.9.9.9:80", true }, { "[::1]:80", true },   { "[::ffff:127.0.0.1]:80", true }, { "128.0.0.1:80", false },
		      { "[::2]:80", false }, { "0.0.0.0:80", false },  { "[::]:80", false }, { "[::ffff:10.0.0.1]:80", false }, { "unix:/x", false } };
	struct addr a = { 0 };

	assert_false(addr_is_loopback(&a));
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(addr_parse(&a, cases[i].text), 0);
		assert_int_equal(addr_is_loopback(&a), cases[i].is);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(loopback),
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_long),
		cmocka_unit_test(test_addr),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

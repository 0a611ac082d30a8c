/* PROXY headers, byte for byte as proxy-protocol.txt has them. */
#include "mctunnel/proto/proxyhdr.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static struct addr in4(const char *host, uint16_t port)
{
	struct addr a = { .len = sizeof(a.u.in4) };

	a.u.in4.sin_family = AF_INET;
	a.u.in4.sin_port = htons(port);
	assert_int_equal(inet_pton(AF_INET, host, &a.u.in4.sin_addr), 1);
	return a;
}

static struct addr in6(const char *host, uint16_t port)
{
	struct addr a = { .len = sizeof(a.u.in6) };

	a.u.in6.sin6_family = AF_INET6;
	a.u.in6.sin6_port = htons(port);
	assert_int_equal(inet_pton(AF_INET6, host, &a.u.in6.sin6_addr), 1);
	return a;
}

static struct addr un(void)
{
	struct addr a = { .len = sizeof(a.u.un) };

	a.u.un.sun_family = AF_UNIX;
	return a;
}

static void expect_text(const struct addr *src, const struct addr *dst, const char *text)
{
	uint8_t out[PROXYHDR_MAX];
	size_t len = proxyhdr_build(out, 1, src, dst);

	assert_int_equal(len, strlen(text));
	assert_memory_equal(out, text, len);
}

static void expect_bytes(const struct addr *src, const struct addr *dst, const char *bytes, size_t want)
{
	uint8_t out[PROXYHDR_MAX];
	size_t len = proxyhdr_build(out, 2, src, dst);

	assert_int_equal(len, want);
	assert_memory_equal(out, bytes, len);
}

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define EXPECT_BYTES(src, dst, bytes) expect_bytes(src, dst, bytes, sizeof(bytes) - 1)

static void test_v1_ipv4(void **state)
{
	struct addr src = in4("192.0.2.7", 51234), dst = in4("198.51.100.1", 443);

	expect_text(&src, &dst, "PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n");
}

static void test_v1_ipv6(void **state)
{
	struct addr src = in6("2001:db8::1", 65535), dst = in6("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 1);

	expect_text(&src, &dst, "PROXY TCP6 2001:db8::1 2001:db8:ffff:ffff:ffff:ffff:ffff:ffff 65535 1\r\n");
}

static void test_v1_mapped_counts_as_ipv4(void **state)
{
	struct addr src = in6("::ffff:192.0.2.7", 5), mapped = in6("::ffff:198.51.100.1", 6), dst = in4("198.51.100.1", 6);

	expect_text(&src, &mapped, "PROXY TCP4 192.0.2.7 198.51.100.1 5 6\r\n");
	expect_text(&src, &dst, "PROXY TCP4 192.0.2.7 198.51.100.1 5 6\r\n");
}

static void test_v1_unknown(void **state)
{
	struct addr four = in4("192.0.2.7", 5), six = in6("2001:db8::1", 5), local = un(), none = { .len = 0 };

	expect_text(&four, &six, "PROXY UNKNOWN\r\n");
	expect_text(&local, &local, "PROXY UNKNOWN\r\n");
	expect_text(&none, &none, "PROXY UNKNOWN\r\n");
	expect_text(&four, &none, "PROXY UNKNOWN\r\n");
}

static void test_v2_ipv4(void **state)
{
	struct addr src = in4("192.0.2.7", 0x1234), dst = in4("198.51.100.1", 443);

	EXPECT_BYTES(&src, &dst, SIGNATURE "\x21\x11\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\x12\x34\x01\xbb");
}

static void test_v2_ipv6(void **state)
{
	struct addr src = in6("2001:db8::1", 0x1234), dst = in6("2001:db8::2", 443);

	EXPECT_BYTES(&src, &dst,
	             SIGNATURE "\x21\x21\x00\x24"
	                       "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01"
	                       "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02"
	                       "\x12\x34\x01\xbb");
}

static void test_v2_mapped_counts_as_ipv4(void **state)
{
	struct addr src = in6("::ffff:192.0.2.7", 0x1234), dst = in6("::ffff:198.51.100.1", 443);

	EXPECT_BYTES(&src, &dst, SIGNATURE "\x21\x11\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\x12\x34\x01\xbb");
}

static void test_v2_local(void **state)
{
	struct addr four = in4("192.0.2.7", 5), six = in6("2001:db8::1", 5), local = un(), none = { .len = 0 };

	EXPECT_BYTES(&four, &six, SIGNATURE "\x20\x00\x00\x00");
	EXPECT_BYTES(&local, &four, SIGNATURE "\x20\x00\x00\x00");
	EXPECT_BYTES(&none, &none, SIGNATURE "\x20\x00\x00\x00");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_v1_ipv4),
		cmocka_unit_test(test_v1_ipv6),
		cmocka_unit_test(test_v1_mapped_counts_as_ipv4),
		cmocka_unit_test(test_v1_unknown),
		cmocka_unit_test(test_v2_ipv4),
		cmocka_unit_test(test_v2_ipv6),
		cmocka_unit_test(test_v2_mapped_counts_as_ipv4),
		cmocka_unit_test(test_v2_local),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

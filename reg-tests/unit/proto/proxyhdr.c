/* PROXY headers, byte for byte as proxy-protocol.txt has them. */
#include "mctunnel/proto/proxyhdr.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
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

static const struct proxyhdr_about about = { .authority = "www.example.com", .alpn = "h2", .unique_id = "0123456789abcdef" };

static void expect_text(const struct addr *src, const struct addr *dst, const char *text)
{
	uint8_t out[PROXYHDR_MAX];
	size_t len = proxyhdr_build(out, 1, src, dst, &about);

	assert_int_equal(len, strlen(text));
	assert_memory_equal(out, text, len);
}

static void expect_bytes(const struct addr *src, const struct addr *dst, const char *bytes, size_t want)
{
	uint8_t out[PROXYHDR_MAX];
	size_t len = proxyhdr_build(out, 2, src, dst, NULL);

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

static void test_v2_fields(void **state)
{
	struct addr src = in4("192.0.2.7", 0x1234), dst = in4("198.51.100.1", 443), local = un();
	static const char want[] = SIGNATURE "\x21\x11\x00\x36\xc0\x00\x02\x07\xc6\x33\x64\x01\x12\x34\x01\xbb"
					     "\x01\0\x02h2"
					     "\x02\0\x0fwww.example.com"
					     "\x05\0\x10"
					     "0123456789abcdef";
	uint8_t out[PROXYHDR_MAX];
	struct proxyhdr_about none = { .authority = "" };

	assert_int_equal(proxyhdr_build(out, 2, &src, &dst, &about), sizeof(want) - 1);
	assert_memory_equal(out, want, sizeof(want) - 1);
	assert_int_equal(proxyhdr_build(out, 2, &src, &dst, &none), 28);
	assert_int_equal(proxyhdr_build(out, 2, &local, &dst, &about), 16); /* LOCAL says nothing */
}

static void test_v2_longest_fields(void **state)
{
	struct addr src = in6("2001:db8::1", 1), dst = in6("2001:db8::2", 2);
	char name[257];
	struct proxyhdr_about all = { .authority = name, .alpn = name, .unique_id = name };
	uint8_t out[PROXYHDR_MAX];
	struct proxyhdr h;
	size_t len;

	memset(name, 'a', sizeof(name));
	name[256] = '\0';
	assert_int_equal(proxyhdr_build(out, 2, &src, &dst, &all), 52); /* too long: left out */
	name[255] = '\0';
	len = proxyhdr_build(out, 2, &src, &dst, &all);
	assert_int_equal(len, 52 + 3 * 258);
	assert_int_equal(proxyhdr_parse(out, len, &h), PROXYHDR_DONE);
	assert_int_equal(h.len, len);
}

/* ---- reading ---- */

/* Every beginning of a good header wants more, and never asks for more than there is of it. */
static struct proxyhdr read_good(const char *bytes, size_t len)
{
	uint8_t *data;
	struct proxyhdr h;

	for (size_t n = 0; n < len; n++) {
		data = malloc(n ? n : 1);
		memcpy(data, bytes, n);
		assert_int_equal(proxyhdr_parse(data, n, &h), PROXYHDR_MORE);
		assert_true(h.need > n && h.need <= len);
		free(data);
	}
	for (size_t extra = 0; extra < 3; extra++) {
		data = malloc(len + extra);
		memcpy(data, bytes, len);
		memset(data + len, '\n', extra);
		assert_int_equal(proxyhdr_parse(data, len + extra, &h), PROXYHDR_DONE);
		assert_int_equal(h.len, len);
		free(data);
	}
	return h;
}
#define GOOD(bytes) read_good(bytes, sizeof(bytes) - 1)

static void expect_pair(const struct proxyhdr *h, const char *src, const char *dst)
{
	char text[ADDR_TEXT];

	assert_true(h->known);
	assert_string_equal(addr_text(&h->src, text, sizeof(text)), src);
	assert_string_equal(addr_text(&h->dst, text, sizeof(text)), dst);
}

static void test_read_v1(void **state)
{
	struct proxyhdr h = GOOD("PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n");

	assert_int_equal(h.version, 1);
	expect_pair(&h, "192.0.2.7:51234", "198.51.100.1:443");
	h = GOOD("PROXY TCP6 2001:db8::1 ::1 0 65535\r\n");
	expect_pair(&h, "[2001:db8::1]:0", "[::1]:65535");
	h = GOOD("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n");
	expect_pair(&h, "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535");
}

static void test_read_v1_unknown(void **state)
{
	struct proxyhdr h = GOOD("PROXY UNKNOWN\r\n");

	assert_false(h.known);
	h = GOOD("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"); /* the longest: 107 */
	assert_false(h.known);
}

static void test_read_v2(void **state)
{
	struct proxyhdr h = GOOD(SIGNATURE "\x21\x11\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\x12\x34\x01\xbb");

	assert_int_equal(h.version, 2);
	expect_pair(&h, "192.0.2.7:4660", "198.51.100.1:443");
	h = GOOD(SIGNATURE "\x21\x21\x00\x24\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\x12\x34\x01\xbb");
	expect_pair(&h, "[2001:db8::1]:4660", "[2001:db8::2]:443");
}

static void test_read_v2_without_addresses(void **state)
{
	static char unix_pair[16 + 216] = SIGNATURE "\x21\x31\x00\xd8/one";
	struct proxyhdr h = GOOD(SIGNATURE "\x20\x00\x00\x00");

	assert_false(h.known);
	h = GOOD(SIGNATURE "\x20\x11\x00\x02zz"); /* LOCAL: whatever it says */
	assert_false(h.known);
	h = GOOD(SIGNATURE "\x21\x00\x00\x00");
	assert_false(h.known);
	h = GOOD(SIGNATURE "\x21\x00\x00\x04\xe0\0\x01x");
	assert_false(h.known);
	h = GOOD(SIGNATURE "\x21\x12\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\x12\x34\x01\xbb"); /* UDP */
	assert_false(h.known);
	h = read_good(unix_pair, sizeof(unix_pair));
	assert_false(h.known);
}

static void test_read_v2_fields(void **state)
{
	/* as HAProxy sends it with send-proxy-v2 proxy-v2-options crc32c,unique-id */
	struct proxyhdr h = GOOD(SIGNATURE "\x21\x11\0\x16\xc0\x00\x02\x07\xc6\x33\x64\x01\x12\x34\x01\xbb\x03\0\x04" "\x25\x6b\x01\xb3" "\x05\0\0");

	expect_pair(&h, "192.0.2.7:4660", "198.51.100.1:443");
}

static void read_bad(const char *bytes, size_t len, const char *why)
{
	uint8_t *data = malloc(len);
	struct proxyhdr h;

	memcpy(data, bytes, len);
	assert_int_equal(proxyhdr_parse(data, len, &h), PROXYHDR_BAD);
	assert_non_null(strstr(h.why, why));
	free(data);
}
#define BAD(bytes, why) read_bad(bytes, sizeof(bytes) - 1, why)

static void test_read_bad_v1(void **state)
{
	char line[200];

	BAD("GET / HTTP/1.1\r\n", "no PROXY header");
	BAD("PROXX", "no PROXY header");
	BAD("PROXY\r\n", "no PROXY header");
	BAD("PROXY \r\n", "neither");
	BAD("PROXY  TCP4 192.0.2.7 198.51.100.1 1 2\r\n", "neither");
	BAD("PROXY TCP5 192.0.2.7 198.51.100.1 1 2\r\n", "neither");
	BAD("PROXY TCP4\r\n", "address");
	BAD("PROXY TCP4 192.0.2.7\r\n", "address");
	BAD("PROXY TCP4 192.0.2.7  198.51.100.1 1 2\r\n", "address");
	BAD("PROXY TCP4 192.0.2.007 198.51.100.1 1 2\r\n", "address");
	BAD("PROXY TCP4 192.0.2 198.51.100.1 1 2\r\n", "address");
	BAD("PROXY TCP4 ::1 ::1 1 2\r\n", "address");
	BAD("PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n", "address");
	BAD("PROXY TCP4 192.0.2.7 198.51.100.1\r\n", "port");
	BAD("PROXY TCP4 192.0.2.7 198.51.100.1 1\r\n", "port");
	BAD("PROXY TCP4 192.0.2.7 198.51.100.1 1 65536\r\n", "port");
	BAD("PROXY TCP4 192.0.2.7 198.51.100.1 01 2\r\n", "port");
	BAD("PROXY TCP4 192.0.2.7 198.51.100.1 -1 2\r\n", "port");
	BAD("PROXY TCP4 192.0.2.7 198.51.100.1 +1 2\r\n", "port");
	BAD("PROXY TCP4 192.0.2.7 198.51.100.1 0x1 2\r\n", "port");
	BAD("PROXY TCP4 192.0.2.7 198.51.100.1 1 2 \r\n", "port");
	BAD("PROXY TCP4 192.0.2.7 198.51.100.1 1 2 3\r\n", "port");
	BAD("PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n", "CR LF");
	BAD("PROXY TCP4 192.0.2.7 198.51.100.1 1\r 2\r\n", "CR LF");
	BAD("PROXY TCP4 192.0.2.7 198.51.100.1 1 2\0\r\n", "CR LF");
	memset(line, ' ', sizeof(line));
	memcpy(line, "PROXY UNKNOWN", 13);
	memcpy(line + 106, "\r\n", 2);
	read_bad(line, 108, "longer than 107");
	read_bad(line, 107, "longer than 107");
}

static void test_read_bad_v2(void **state)
{
	static const char one[] = SIGNATURE "\x21\x11\0\x14\xc0\x00\x02\x07\xc6\x33\x64\x01\x12\x34\x01\xbb";

	BAD("\r\n\r\n\0\r\nQUIT\r", "no PROXY header");
	BAD("\r\n\r\n\r", "no PROXY header");
	BAD(SIGNATURE "\x11", "version");
	BAD(SIGNATURE "\x22", "version");
	BAD(SIGNATURE "\x21\x41\0\0", "unknown family");
	BAD(SIGNATURE "\x21\x13\0\0", "unknown family");
	BAD(SIGNATURE "\x20\xff\0\0", "unknown family");
	BAD(SIGNATURE "\x21\x11\0\x0b" "01234567890", "too short");
	BAD(SIGNATURE "\x21\x21\0\x0c" "012345678901", "too short");
	for (const char *const *tlvs = (const char *const[]){ "\x01\x01\x01\x01\x01\x01\x01\x01", "\x05\x01\x00\x01\x01\x01\x01\x01", "\x03\x01\x05\x01\x01\x01\x01\x01", NULL };
	     *tlvs; tlvs++) {
		char bytes[64];

		memcpy(bytes, one, sizeof(one) - 1);
		memcpy(bytes + sizeof(one) - 1, *tlvs, 8);
		read_bad(bytes, sizeof(one) - 1 + 8, "malformed");
	}
	BAD(SIGNATURE "\x21\x11\0\x0d\xc0\x00\x02\x07\xc6\x33\x64\x01\x12\x34\x01\xbb\x01", "malformed");
	BAD(SIGNATURE "\x21\x11\0\x0e\xc0\x00\x02\x07\xc6\x33\x64\x01\x12\x34\x01\xbb\x01\0", "malformed");
	BAD(SIGNATURE "\x21\x11\0\x10\xc0\x00\x02\x07\xc6\x33\x64\x01\x12\x34\x01\xbb\x03\0\x01x", "malformed");
	BAD(SIGNATURE "\x21\x11\0\x13\xc0\x00\x02\x07\xc6\x33\x64\x01\x12\x34\x01\xbb\x03\0\x04zzzz", "checksum");
	BAD(SIGNATURE "\x21\x11\0\x1a\xc0\x00\x02\x07\xc6\x33\x64\x01\x12\x34\x01\xbb\x03\0\x04zzzz\x03\0\x04zzzz", "malformed"); /* two of them */
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
		cmocka_unit_test(test_v2_fields),
		cmocka_unit_test(test_v2_longest_fields),
		cmocka_unit_test(test_read_v1),
		cmocka_unit_test(test_read_v1_unknown),
		cmocka_unit_test(test_read_v2),
		cmocka_unit_test(test_read_v2_without_addresses),
		cmocka_unit_test(test_read_v2_fields),
		cmocka_unit_test(test_read_bad_v1),
		cmocka_unit_test(test_read_bad_v2),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* HTTP/1 heads and bodies: what is accepted and what it means, what is refused and at which byte; the same however the bytes are cut. */
#include "mctunnel/proto/http1.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX = 16384 };

/* ---- heads, in any pieces ---- */

struct outcome {
	ssize_t n;
	struct http1_error err;
};

/* On a copy that ends where the bytes end, for ASan's eyes. method NULL: a request. */
static struct outcome parse(const char *bytes, size_t len, size_t max, const char *method, struct http1_head *h)
{
	struct outcome o = { 0 };
	struct http1_head unused;
	char *copy = malloc(len > 0 ? len : 1);

	memcpy(copy, bytes, len);
	o.n = method ? http1_answer(&unused, copy, len, max, method, &o.err) : http1_request(&unused, copy, len, max, &o.err);
	free(copy);
	if (h)
		assert_int_equal(method ? http1_answer(h, bytes, len, max, method, &o.err) : http1_request(h, bytes, len, max, &o.err), o.n);
	return o;
}

/* Every beginning is either not enough or has the outcome of the whole. */
static struct outcome in_pieces(const char *bytes, size_t len, size_t max, const char *method)
{
	struct outcome whole = parse(bytes, len, max, method, NULL), part;

	for (size_t n = 0; n < len; n++) {
		part = parse(bytes, n, max, method, NULL);
		if (part.n == 0)
			continue;
		assert_int_equal(part.n, whole.n);
		if (part.n < 0) {
			assert_int_equal(part.err.status, whole.err.status);
			assert_int_equal(part.err.offset, whole.err.offset);
			assert_string_equal(part.err.text, whole.err.text);
		}
	}
	return whole;
}

static struct http1_head ok(const char *bytes, const char *method)
{
	struct http1_head h;
	struct outcome o = in_pieces(bytes, strlen(bytes), MAX, method);

	if (o.n < 0)
		print_message("%s: %s at %zu\n", bytes, o.err.text, o.err.offset);
	assert_int_equal(o.n, strlen(bytes));
	parse(bytes, strlen(bytes), MAX, method, &h);
	return h;
}

static void is_text(struct http1_text t, const char *want)
{
	if (t.len != strlen(want) || (t.len > 0 && memcmp(t.at, want, t.len) != 0))
		fail_msg("\"%.*s\" instead of \"%s\"", (int)t.len, t.at, want);
}

/* ---- what must be refused ---- */

struct refusal {
	const char *bytes;
	size_t len, offset;
	unsigned status;
};

/* The second text begins with the byte at fault. */
#define AT(before, fault) before fault, sizeof(before fault) - 1, sizeof(before) - 1
#define G "GET / HTTP/1.1\r\nHost: a\r\n"
#define P "POST / HTTP/1.1\r\nHost: a\r\n"
#define X32 "XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX"
#define X256 X32 X32 X32 X32 X32 X32 X32 X32
#define OPTIONS8 "a,b,c,d,e,f,g,h,"

static const struct refusal requests[] = {
	/* the request line */
	{ AT("", "\0GET / HTTP/1.1\r\n\r\n"), 400 },
	{ AT("", " GET / HTTP/1.1\r\n\r\n"), 400 },
	{ AT("", " / HTTP/1.1\r\n\r\n"), 400 },
	{ AT("GET", "\t/ HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ AT("GE", "(T / HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ AT("G", "\303T / HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ AT("GET ", " / HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ AT("GET / ", " HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ AT("GET / ", "HTTP/1.1 \r\nHost: a\r\n\r\n"), 400 },
	{ AT("GET", "\r\n"), 400 },
	{ AT("GET ", "\r\n"), 400 },
	{ AT("GET /", "\r\n"), 400 }, /* 0.9 */
	{ AT("GET / ", "http/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ AT("GET / ", "HTTP/11\r\n\r\n"), 400 },
	{ AT("GET / ", "HTTP/1.01\r\n\r\n"), 400 },
	{ AT("GET / ", "HTTP/1,1\r\n\r\n"), 400 },
	{ AT("GET / ", "HTTP/1.x\r\n\r\n"), 400 },
	{ AT("GET / ", "HTTP/0.9\r\n\r\n"), 505 },
	{ AT("GET / ", "HTTP/1.2\r\n\r\n"), 505 },
	{ AT("PRI * ", "HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505 },
	{ AT(X32, "X / HTTP/1.1\r\nHost: a\r\n\r\n"), 501 },
	{ AT("\r\n\r\n\r\n\r\n", "\r\nGET / HTTP/1.1\r\n"), 400 },
	{ AT("", "\nGET / HTTP/1.1\r\n"), 400 },
	{ AT("", "\026\003\001\002\000\001\000\001"), 400 }, /* TLS */
	/* the target */
	{ AT("GET /", "#x HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ AT("GET /a", "\177 HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ AT("GET /a", "\000b HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ AT("GET /", "\351 HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ AT("GET /a", "\\..\\b HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ AT("GET ", "a HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ AT("GET ", "?a HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ AT("GET ", "* HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ AT("options ", "* HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ AT("OPTIONS ", "*a HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ AT("GET ", "a:80 HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ AT("GET ", "ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ AT("GET ", "http:// HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ AT("GET http://", "/x HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ AT("GET http://", "[::1/ HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ AT("GET http://", "[] HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ AT("GET http://", "[1.2.3.4] HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ AT("GET http://u", "@a/ HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ AT("GET http://a", ":0/ HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ AT("GET http://a", ":65536/ HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ AT("GET http://a", ":080/ HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ AT("GET http://a", ":/ HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ AT("GET http://a/ HTTP/1.1\r\nHost: ", "b\r\n\r\n"), 400 },
	{ AT("GET http://a:81/ HTTP/1.1\r\nHost: ", "a\r\n\r\n"), 400 },
	{ AT("GET https://a/ HTTP/1.1\r\nHost: ", "a:80\r\n\r\n"), 400 },
	{ AT("GET http://a/ HTTP/1.0\r\nHost: ", "b\r\n\r\n"), 400 },
	{ AT("GET http://a/ HTTP/1.1\r\n", "\r\n"), 400 },
	{ AT("CONNECT ", "/ HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ AT("CONNECT ", "a HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ AT("CONNECT http", "://a:1/ HTTP/1.1\r\nHost: a\r\n\r\n"), 400 },
	{ AT("CONNECT a:1 HTTP/1.1\r\nHost: ", "b:1\r\n\r\n"), 400 },
	{ AT("CONNECT a:1 HTTP/1.1\r\nHost: ", "a:2\r\n\r\n"), 400 },
	{ AT("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n", "Content-Length: 1\r\n\r\n"), 400 },
	{ AT("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n", "Transfer-Encoding: chunked\r\n\r\n"), 400 },
	/* Host */
	{ AT("GET / HTTP/1.1\r\n", "\r\n"), 400 },
	{ AT(G, "Host: a\r\n\r\n"), 400 },
	{ AT(G, "hOST: b\r\n\r\n"), 400 },
	{ AT("GET / HTTP/1.0\r\nHost: a\r\n", "Host: a\r\n\r\n"), 400 },
	{ AT("GET / HTTP/1.1\r\nHost:", "\r\n\r\n"), 400 },
	{ AT("GET / HTTP/1.1\r\nHost: ", ":80\r\n\r\n"), 400 },
	{ AT("GET / HTTP/1.1\r\nHost: u", "@a\r\n\r\n"), 400 },
	{ AT("GET / HTTP/1.1\r\nHost: a", "/b\r\n\r\n"), 400 },
	{ AT("GET / HTTP/1.1\r\nHost: a", ", b\r\n\r\n"), 400 },
	{ AT("GET / HTTP/1.1\r\nHost: a", " b\r\n\r\n"), 400 },
	{ AT("GET / HTTP/1.1\r\nHost: a", "%41\r\n\r\n"), 400 },
	{ AT("GET / HTTP/1.1\r\nHost: a", "\303\244\r\n\r\n"), 400 },
	{ AT("GET / HTTP/1.1\r\nHost: a", ":1x\r\n\r\n"), 400 },
	{ AT("GET / HTTP/1.1\r\nHost: [::1]", "a\r\n\r\n"), 400 },
	{ AT("GET / HTTP/1.1\r\nHost: ", "[fe80::1%25eth0]\r\n\r\n"), 400 },
	{ AT("GET / HTTP/1.1\r\nHost: ", X256 "\r\n\r\n"), 400 },
	/* lines and fields */
	{ AT("GET / HTTP/1.1", "\nHost: a\n\n"), 400 },
	{ AT("GET / HTTP/1.1\r\nHost: a", "\n\r\n"), 400 },
	{ AT(G, "\n"), 400 },
	{ AT(G "X: a", "\rb\r\n\r\n"), 400 },
	{ AT(G "X: a", "\r\r\n\r\n"), 400 },
	{ AT(G, "\r\r\n"), 400 },
	{ AT(G "X: a", "\000b\r\n\r\n"), 400 },
	{ AT(G "X: a", "\013b\r\n\r\n"), 400 },
	{ AT(G "X: a", "\177\r\n\r\n"), 400 },
	{ AT(G "X: aaaaaaaaa", "\037aaaaaaaaa\r\n\r\n"), 400 },
	{ AT(G "X: a\r\n", " folded\r\n\r\n"), 400 },
	{ AT(G "X: a\r\n", "\tfolded\r\n\r\n"), 400 },
	{ AT("GET / HTTP/1.1\r\n", " Host: a\r\n\r\n"), 400 },
	{ AT(G, ": a\r\n\r\n"), 400 },
	{ AT(G, ":\r\n\r\n"), 400 },
	{ AT(G "X", " : a\r\n\r\n"), 400 },
	{ AT(G "Content-Length", " : 5\r\n\r\n"), 400 },
	{ AT(G "Content-Length", "\t: 5\r\n\r\n"), 400 },
	{ AT(G "Transfer-Encoding", "\013: chunked\r\n\r\n"), 400 },
	{ AT(G "X", "\r\n\r\n"), 400 },
	{ AT(G "X", "(y: 1\r\n\r\n"), 400 },
	{ AT(G "X", "\"y: 1\r\n\r\n"), 400 },
	{ AT(G "X", "\303\244: 1\r\n\r\n"), 400 },
	{ AT(G "X", "/y: 1\r\n\r\n"), 400 },
	{ AT(G, X256 ": 1\r\n\r\n"), 400 },
	{ AT(G, X256 X256 "Content-Length: 1\r\n\r\n"), 400 },
	/* lengths */
	{ AT(P "Content-Length:", "\r\n\r\n"), 400 },
	{ AT(P "Content-Length: ", "+1\r\n\r\n"), 400 },
	{ AT(P "Content-Length: ", "-1\r\n\r\n"), 400 },
	{ AT(P "Content-Length: 0", "x10\r\n\r\n"), 400 },
	{ AT(P "Content-Length: ", "010\r\n\r\n"), 400 },
	{ AT(P "Content-Length: ", "00\r\n\r\n"), 400 },
	{ AT(P "Content-Length: 1", ",\r\n\r\n"), 400 },
	{ AT(P "Content-Length: 1", ", 1\r\n\r\n"), 400 },
	{ AT(P "Content-Length: 1", " 1\r\n\r\n"), 400 },
	{ AT(P "Content-Length: 1", ".0\r\n\r\n"), 400 },
	{ AT(P "Content-Length: 1", "e3\r\n\r\n"), 400 },
	{ AT(P "Content-Length: 1", ";a=b\r\n\r\n"), 400 },
	{ AT(P "Content-Length: ", "1111111111111111111\r\n\r\n"), 400 },
	{ AT(P "Content-Length: ", "18446744073709551617\r\n\r\n"), 400 },
	{ AT(P "Content-Length: 5\r\n", "Content-Length: 5\r\n\r\nhello"), 400 },
	{ AT(P "Content-Length: 5\r\n", "content-length: 6\r\n\r\nhello"), 400 },
	{ AT(P "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400 },
	{ AT(P "Transfer-Encoding: chunked\r\n", "Content-Length: 5\r\n\r\n0\r\n\r\n"), 400 },
	/* codings */
	{ AT(P "Transfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\n\r\n"), 400 },
	{ AT(P "Transfer-Encoding: ", "identity\r\n\r\n"), 400 },
	{ AT(P "Transfer-Encoding:", "\r\n\r\n"), 400 },
	{ AT(P "Transfer-Encoding: ", "xchunked\r\n\r\n"), 400 },
	{ AT(P "Transfer-Encoding: ", "chunked, identity\r\n\r\n"), 400 },
	{ AT(P "Transfer-Encoding: ", "chunked, chunked\r\n\r\n"), 400 },
	{ AT(P "Transfer-Encoding: ", "gzip, chunked\r\n\r\n"), 400 },
	{ AT(P "Transfer-Encoding: ", "chunked;a=b\r\n\r\n"), 400 },
	{ AT(P "Transfer-Encoding: ", ",chunked\r\n\r\n"), 400 },
	{ AT(P "Transfer-Encoding: ", "\"chunked\"\r\n\r\n"), 400 },
	{ AT(P "Transfer-Encoding: ", "chunk\303\253d\r\n\r\n"), 400 },
	{ AT("POST / HTTP/1.0\r\nHost: a\r\n", "Transfer-Encoding: chunked\r\n\r\n"), 400 },
	/* Connection */
	{ AT(G "Connection: ", "Host\r\n\r\n"), 400 },
	{ AT(G "Connection: close, ", "content-length\r\n\r\n"), 400 },
	{ AT(G "Connection: ", "Transfer-Encoding\r\n\r\n"), 400 },
	{ AT(G "Connection: a", " b\r\n\r\n"), 400 },
	{ AT(G "Connection: a", "=b\r\n\r\n"), 400 },
	{ AT(G "Connection: " OPTIONS8 OPTIONS8 "\r\nConnection: " OPTIONS8 OPTIONS8, "one-more\r\n\r\n"), 400 },
};

static const struct refusal answers[] = {
	{ AT("", "\r\nHTTP/1.1 200 OK\r\n\r\n"), 502 },
	{ AT("", "HTTP/1.1\r\n\r\n"), 502 },
	{ AT("", "ICY 200 OK fine\r\n\r\n"), 502 },
	{ AT("", "http/1.1 200 OK\r\n\r\n"), 502 },
	{ AT("", "HTTP/2.0 200 OK\r\n\r\n"), 502 },
	{ AT("HTTP/1.1 ", " 200 OK\r\n\r\n"), 502 },
	{ AT("HTTP/1.1 ", "2000 OK\r\n\r\n"), 502 },
	{ AT("HTTP/1.1 ", "20x OK\r\n\r\n"), 502 },
	{ AT("HTTP/1.1 ", "099 OK\r\n\r\n"), 502 },
	{ AT("HTTP/1.1 200 O", "\001K\r\n\r\n"), 502 },
	{ AT("HTTP/1.1 200 OK", "\n\n"), 502 },
	{ AT("HTTP/1.1 200 OK\r\nX: a", "\nY: b\r\n\r\n"), 502 },
	{ AT("HTTP/1.1 200 OK\r\nX: a\r\n", " b\r\n\r\n"), 502 },
	{ AT("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n", "Content-Length: 1\r\n\r\n"), 502 },
	{ AT("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n", "Transfer-Encoding: chunked\r\n\r\n"), 502 },
	{ AT("HTTP/1.1 200 OK\r\nTransfer-Encoding: ", "gzip\r\n\r\n"), 502 },
	{ AT("HTTP/1.0 200 OK\r\n", "Transfer-Encoding: chunked\r\n\r\n"), 502 },
	{ AT("HTTP/1.1 204 None\r\n", "Content-Length: 3\r\n\r\n"), 502 },
	{ AT("HTTP/1.1 100 Continue\r\n", "Transfer-Encoding: chunked\r\n\r\n"), 502 },
	{ AT("HTTP/1.1 200 OK\r\nConnection: ", "content-length\r\n\r\n"), 502 },
};

static void refused(const struct refusal *r, const char *method)
{
	struct outcome o = in_pieces(r->bytes, r->len, MAX, method);

	if (o.n != -1 || o.err.status != r->status || o.err.offset != r->offset)
		fail_msg("%s: %zd, status %u, \"%s\" at %zu instead of %u at %zu", r->bytes, o.n, o.err.status, o.n < 0 ? o.err.text : "",
		         o.err.offset, r->status, r->offset);
}

static void test_requests_refused(void **state)
{
	for (size_t i = 0; i < sizeof(requests) / sizeof(*requests); i++)
		refused(&requests[i], NULL);
}

static void test_answers_refused(void **state)
{
	for (size_t i = 0; i < sizeof(answers) / sizeof(*answers); i++)
		refused(&answers[i], "GET");
}

static void test_limits(void **state)
{
	static const char head[] = "GET /aaaaaaaaaaaaaaaaaa HTTP/1.1\r\nHost: aaaaaaaaaaaaaaaaaaaaaa\r\n\r\n";
	size_t len = sizeof(head) - 1;
	struct outcome o;

	for (size_t max = 1; max < len; max++) {
		o = in_pieces(head, len, max, NULL);
		assert_int_equal(o.n, -1);
		assert_int_equal(o.err.status, max < 34 ? 414 : 431);
		assert_int_equal(o.err.offset, max);
	}
	assert_int_equal(in_pieces(head, len, len, NULL).n, len);
	o = in_pieces("HTTP/1.1 200 OK\r\n", 17, 5, "GET");
	assert_int_equal(o.err.status, 502);
}

static void test_number_of_fields(void **state)
{
	char head[2048];
	struct http1_head h;
	struct outcome o;
	int n = snprintf(head, sizeof(head), "GET / HTTP/1.0\r\n"), start;

	for (int i = 0; i < HTTP1_FIELDS_MAX; i++)
		n += snprintf(head + n, sizeof(head) - (size_t)n, "F%d: %d\r\n", i, i);
	start = n;
	snprintf(head + n, sizeof(head) - (size_t)n, "\r\n");
	h = ok(head, NULL);
	assert_int_equal(h.fields_n, HTTP1_FIELDS_MAX);
	is_text(h.fields[99].value, "99");
	snprintf(head + n, sizeof(head) - (size_t)n, "More: 1\r\n\r\n");
	o = in_pieces(head, strlen(head), MAX, NULL);
	assert_int_equal(o.err.status, 431);
	assert_int_equal(o.err.offset, start);
}

/* ---- what is accepted ---- */

static void test_request(void **state)
{
	struct http1_head h = ok("GET /a/b?c=d?e HTTP/1.1\r\nHost: Example.com:8080\r\nX-Empty:\r\nX-Eight: \t\303\244 \"b\tc\" \t\r\nx-eight:2\r\n\r\n", NULL);

	is_text(h.method, "GET");
	is_text(h.target, "/a/b?c=d?e");
	is_text(h.path, "/a/b");
	is_text(h.query, "?c=d?e");
	is_text(h.authority, "Example.com:8080");
	assert_int_equal(h.minor, 1);
	assert_int_equal(h.status, 0);
	assert_int_equal(h.fields_n, 4);
	is_text(h.fields[1].value, "");
	is_text(h.fields[2].value, "\303\244 \"b\tc\"");
	assert_ptr_equal(http1_find(&h, "X-EIGHT"), &h.fields[2]);
	assert_null(http1_find(&h, "X-Eigh"));
	assert_int_equal(h.framing, HTTP1_NONE);
	assert_true(h.keep_alive);
	assert_false(h.expect_continue || h.upgrade);
}

static void test_rest_stays(void **state)
{
	static const char two[] = "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGARBAGE\n\n";
	struct http1_head h;

	assert_int_equal(in_pieces(two, sizeof(two) - 1, MAX, NULL).n, sizeof(two) - 1 - 9);
	assert_int_equal(parse(two, sizeof(two) - 1, MAX, NULL, &h).n, sizeof(two) - 1 - 9);
	assert_int_equal(h.fields_n, 1);
}

static void test_targets(void **state)
{
	struct http1_head h = ok("GET hTTp://[::1]:81/x?y HTTP/1.1\r\nHost: [::1]:81\r\n\r\n", NULL);

	is_text(h.authority, "[::1]:81");
	is_text(h.path, "/x");
	is_text(h.query, "?y");
	h = ok("GET http://a HTTP/1.1\r\nHost: A:80\r\n\r\n", NULL);
	is_text(h.authority, "a");
	is_text(h.path, "/");
	is_text(h.query, "");
	h = ok("GET https://a?q HTTP/1.1\r\nHost: a:443\r\n\r\n", NULL);
	is_text(h.path, "/");
	is_text(h.query, "?q");
	h = ok("GET http://a/ HTTP/1.0\r\n\r\n", NULL);
	is_text(h.authority, "a");
	h = ok("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", NULL);
	is_text(h.path, "*");
	h = ok("CONNECT a:22 HTTP/1.1\r\nHost: a\r\n\r\n", NULL);
	is_text(h.authority, "a:22");
	is_text(h.path, "");
	h = ok("CONNECT a.b:22 HTTP/1.0\r\n\r\n", NULL);
	is_text(h.authority, "a.b:22");
	h = ok("GET / HTTP/1.0\r\n\r\n", NULL);
	is_text(h.authority, "");
	assert_false(h.keep_alive);
	h = ok("GET //a//b HTTP/1.0\r\n\r\n", NULL);
	is_text(h.path, "//a//b");
	h = ok("GET /?\\ HTTP/1.0\r\n\r\n", NULL);
	is_text(h.query, "?\\");
	h = ok(X32 " /!\"$%&'()*+,-.:;<=>?@[]^_`{|}~ HTTP/1.0\r\n\r\n", NULL);
	assert_int_equal(h.method.len, HTTP1_METHOD_MAX);
}

static void test_framing_of_requests(void **state)
{
	struct http1_head h = ok(P "Content-Length: 999999999999999999\r\n\r\n", NULL);

	assert_int_equal(h.framing, HTTP1_LENGTH);
	assert_int_equal(h.length, 999999999999999999);
	h = ok(P "Content-Length: 0\r\n\r\n", NULL);
	assert_int_equal(h.framing, HTTP1_NONE);
	h = ok(P "transfer-encoding: Chunked\r\nExpect: 100-Continue\r\n\r\n", NULL);
	assert_int_equal(h.framing, HTTP1_CHUNKED);
	assert_true(h.expect_continue);
	assert_true(http1_find(&h, "Transfer-Encoding")->hop);
	assert_false(http1_find(&h, "Expect")->hop);
	h = ok("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n", NULL);
	assert_false(h.expect_continue);
}

static void test_framing_of_answers(void **state)
{
	static const struct {
		const char *bytes, *method;
		enum http1_framing framing;
		bool keep_alive;
	} rows[] = {
		{ "HTTP/1.1 200\r\nContent-Length: 3\r\n\r\n", "GET", HTTP1_LENGTH, true },
		{ "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", "GET", HTTP1_NONE, true },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "HEAD", HTTP1_NONE, true },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HEAD", HTTP1_NONE, true },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "GET", HTTP1_CHUNKED, true },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: x, Close\r\n\r\n", "GET", HTTP1_CHUNKED, false },
		{ "HTTP/1.1 200 OK\r\n\r\n", "GET", HTTP1_CLOSE, false },
		{ "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n", "GET", HTTP1_LENGTH, false },
		{ "HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n", "GET", HTTP1_LENGTH, true },
		{ "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", "GET", HTTP1_NONE, true },
		{ "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "GET", HTTP1_NONE, true },
		{ "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", "GET", HTTP1_NONE, true },
		{ "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "GET", HTTP1_TUNNEL, false },
		{ "HTTP/1.1 200 OK\r\n\r\n", "CONNECT", HTTP1_TUNNEL, false },
		{ "HTTP/1.1 404 No\r\nContent-Length: 3\r\n\r\n", "CONNECT", HTTP1_LENGTH, true },
		{ "HTTP/1.1 999 \303\244\r\nHost: a\r\nHost: ,\r\nContent-Length: 3\r\n\r\n", "GET", HTTP1_LENGTH, true },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct http1_head h = ok(rows[i].bytes, rows[i].method);

		assert_int_equal(h.framing, rows[i].framing);
		assert_int_equal(h.keep_alive, rows[i].keep_alive);
		assert_int_not_equal(h.status, 0);
	}
}

static void test_connection(void **state)
{
	struct http1_head h = ok(G "Keep-Alive: 1\r\nX-A: 1\r\nConnection: x-A ,, TE\r\nconnection: close\r\nTE: trailers\r\nX-AB: 1\r\nProxy-Connection: a\r\nHTTP2-Settings: x\r\n"
	                           "x-a: 2\r\n\r\n", NULL);
	static const bool hops[] = { false, true, true, true, true, true, false, true, true, true };

	assert_false(h.keep_alive);
	assert_int_equal(h.fields_n, sizeof(hops));
	for (size_t i = 0; i < sizeof(hops); i++)
		assert_int_equal(h.fields[i].hop, hops[i]);
	h = ok("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", NULL);
	assert_true(h.keep_alive);
}

static void test_upgrade(void **state)
{
	struct http1_head h = ok(G "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n", NULL);

	assert_true(h.upgrade && h.keep_alive);
	assert_true(http1_find(&h, "Upgrade")->hop);
	assert_false(ok(G "Connection: Upgrade\r\n\r\n", NULL).upgrade);
	assert_false(ok(G "Connection: Upgrade\r\nUpgrade: ,\r\n\r\n", NULL).upgrade);
	assert_false(ok(G "Upgrade: websocket\r\n\r\n", NULL).upgrade);
	assert_false(ok(G "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: foo, H2C\r\nHTTP2-Settings: \r\n\r\n", NULL).upgrade);
	assert_false(ok("GET / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", NULL).upgrade);
}

/* ---- bodies ---- */

struct body_outcome {
	bool done;
	size_t taken; /* up to the end, or to the byte at fault */
	unsigned status;
	char content[256];
	size_t content_len;
};

static void feed(struct http1_body *b, const char *in, size_t n, struct body_outcome *o)
{
	struct http1_text data;
	struct http1_error err;
	size_t at = 0;
	char *copy = malloc(n > 0 ? n : 1);

	memcpy(copy, in, n);
	while (at < n && !b->done && o->status == 0) {
		ssize_t took = http1_body_take(b, copy + at, n - at, &data, &err);

		if (took < 0) {
			o->status = err.status;
			o->taken += at + err.offset;
			break;
		}
		assert_in_range(took, 1, n - at);
		at += (size_t)took;
		assert_true(data.len == 0 || data.at + data.len == copy + at);
		assert_true(o->content_len + data.len <= sizeof(o->content));
		memcpy(o->content + o->content_len, data.at, data.len);
		o->content_len += data.len;
	}
	if (o->status == 0)
		o->taken += at;
	o->done = b->done;
	free(copy);
}

static struct body_outcome body(struct http1_head h, const char *in, size_t len)
{
	struct body_outcome whole = { 0 };
	struct http1_body b;

	http1_body_begin(&b, &h);
	feed(&b, in, len, &whole);
	for (size_t cut = 0; cut <= len; cut++) {
		struct body_outcome two = { 0 };

		http1_body_begin(&b, &h);
		feed(&b, in, cut, &two);
		feed(&b, in + cut, len - cut, &two);
		assert_memory_equal(&two, &whole, sizeof(two));
	}

	struct body_outcome bytes = { 0 };
	http1_body_begin(&b, &h);
	for (size_t i = 0; i < len; i++)
		feed(&b, in + i, 1, &bytes);
	assert_memory_equal(&bytes, &whole, sizeof(bytes));
	return whole;
}

static const struct http1_head chunked = { .framing = HTTP1_CHUNKED }, chunked_answer = { .framing = HTTP1_CHUNKED, .status = 200 };

static void body_is(struct http1_head h, const char *in, const char *content, const char *rest)
{
	struct body_outcome o = body(h, in, strlen(in));

	assert_int_equal(o.status, 0);
	assert_int_equal(o.done, rest != NULL);
	assert_int_equal(o.content_len, strlen(content));
	assert_string_equal(o.content, content);
	assert_string_equal(in + o.taken, rest ? rest : "");
}

static void test_bodies(void **state)
{
	body_is((struct http1_head){ .framing = HTTP1_NONE }, "GET", "", "GET");
	body_is((struct http1_head){ .framing = HTTP1_LENGTH, .length = 5 }, "helloGET", "hello", "GET");
	body_is((struct http1_head){ .framing = HTTP1_LENGTH, .length = 9 }, "hello", "hello", NULL);
	body_is((struct http1_head){ .framing = HTTP1_CLOSE }, "hello", "hello", NULL);
	body_is((struct http1_head){ .framing = HTTP1_TUNNEL }, "\r\n", "\r\n", NULL);
	body_is(chunked, "5\r\nhello\r\n0\r\n\r\nGET", "hello", "GET");
	body_is(chunked, "0000000a;a=\"b\tc\";d\r\n0\r\n\r\n0\r\n\r\n\r\nF\r\n123456789012345\r\n0;x\r\n\r\n", "0\r\n\r\n0\r\n\r\n123456789012345", "");
	body_is(chunked, "0\r\nX-Sum: 1\r\nGrpc-Status:\r\nContent-Length-: 3\r\nX-very-long-name-of-a-trailer: \303\244\t\r\n\r\n", "", "");
	body_is(chunked_answer, "fffffffffffffff\r\nabc", "abc", NULL);
}

static void test_trailers_are_found(void **state)
{
	static const char in[] = "3\r\nabc\r\n0;x\r\nX-Sum: 1\r\n\r\nGET";
	struct http1_body b;
	size_t at = 0, found = 0;

	http1_body_begin(&b, &chunked_answer);
	while (!b.done) {
		struct http1_text data;
		struct http1_error err;
		bool trailers = http1_body_at_trailers(&b);
		ssize_t n = http1_body_take(&b, in + at, strlen(in) - at, &data, &err);

		assert_true(n > 0);
		if (trailers)
			assert_memory_equal(in + at, "X-Sum: 1\r\n\r\n", (size_t)n);
		found += trailers ? (size_t)n : 0;
		at += (size_t)n;
	}
	assert_int_equal(found, 12);
	http1_body_begin(&b, &(struct http1_head){ .framing = HTTP1_CLOSE });
	assert_false(http1_body_at_trailers(&b));
}

static const struct refusal chunks[] = {
	{ AT("", "\r\n0\r\n\r\n"), 400 },
	{ AT("", ";a\r\n"), 400 },
	{ AT("", " 5\r\nhello\r\n"), 400 },
	{ AT("5", " \r\nhello\r\n"), 400 },
	{ AT("5", "\t;a\r\nhello\r\n"), 400 },
	{ AT("5", "\nhello\r\n"), 400 },
	{ AT("5\r", "hello\r\n"), 400 },
	{ AT("5\r", "\r\nhello\r\n"), 400 },
	{ AT("", "+5\r\nhello\r\n"), 400 },
	{ AT("", "-5\r\nhello\r\n"), 400 },
	{ AT("0", "x5\r\nhello\r\n"), 400 },
	{ AT("5", "g\r\nhello\r\n"), 400 },
	{ AT("5", "_0\r\nhello\r\n"), 400 },
	{ AT("5;a", "\nhello\r\n"), 400 },
	{ AT("5;a", "\000\r\nhello\r\n"), 400 },
	{ AT("5;a\r", "b\r\nhello\r\n"), 400 },
	{ AT("8000000", "0\r\n"), 400 },
	{ AT("00000000", "5\r\nhello"), 400 },
	{ AT("10000000", "0\r\n"), 400 },
	{ AT("FFFFFFF", "FFFFFFFFA\r\n"), 400 },
	{ AT("5\r\nhello", "X\r\n"), 400 },
	{ AT("5\r\nhello", "\n0\r\n"), 400 },
	{ AT("5\r\nhello\r", "0\r\n\r\n"), 400 },
	{ AT("5\r\nhello\r\n", "\r\n"), 400 },
	{ AT("0\r\n\r", "X"), 400 },
	{ AT("0\r\n", "\n"), 400 },
	{ AT("0\r\n", " X: 1\r\n\r\n"), 400 },
	{ AT("0\r\n", ": 1\r\n\r\n"), 400 },
	{ AT("0\r\nX", " : 1\r\n\r\n"), 400 },
	{ AT("0\r\nX", "\r\n\r\n"), 400 },
	{ AT("0\r\nX: a", "\nY: b\r\n\r\n"), 400 },
	{ AT("0\r\nX: a\r", "Y: b\r\n\r\n"), 400 },
	{ AT("0\r\nX: a", "\000\r\n\r\n"), 400 },
	{ AT("0\r\nX: a\r\n", "\tb\r\n\r\n"), 400 },
	{ AT("0\r\nContent-Length", ": 5\r\n\r\n"), 400 },
	{ AT("0\r\nX: 1\r\ntransfer-encoding", ": chunked\r\n\r\n"), 400 },
	{ AT("0\r\nHOST", ": a\r\n\r\n"), 400 },
	{ AT("0\r\nX-Forwarded-For", ": a\r\n\r\n"), 400 },
	{ AT("0\r\nSet-Cookie", ": a\r\n\r\n"), 400 },
};

static void test_chunks_refused(void **state)
{
	for (size_t i = 0; i < sizeof(chunks) / sizeof(*chunks); i++) {
		struct body_outcome o = body(chunked, chunks[i].bytes, chunks[i].len);

		if (o.status != chunks[i].status || o.taken != chunks[i].offset)
			fail_msg("%s: %u at %zu instead of %u at %zu", chunks[i].bytes, o.status, o.taken, chunks[i].status, chunks[i].offset);
	}
	assert_int_equal(body(chunked_answer, "X", 1).status, 502);
	assert_int_equal(body(chunked_answer, "0000000000000001", 16).status, 502);
}

static size_t endless(const char *start, const char *more, unsigned *status)
{
	struct body_outcome o = { 0 };
	struct http1_body b;

	http1_body_begin(&b, &chunked);
	feed(&b, start, strlen(start), &o);
	for (int i = 0; i < 100000 && o.status == 0; i++)
		feed(&b, more, strlen(more), &o);
	*status = o.status;
	return o.taken;
}

static void test_limits_of_bodies(void **state)
{
	unsigned status;

	assert_int_equal(endless("5;", "x", &status), 2 + HTTP1_EXTENSION_MAX);
	assert_int_equal(status, 400);
	assert_int_equal(endless("0\r\n", "X: 1\r\n", &status), 3 + HTTP1_TRAILERS_MAX);
	assert_int_equal(status, 400);
	assert_int_equal(endless("0\r\n", "X", &status), 3 + HTTP1_TRAILERS_MAX);
	assert_int_equal(status, 400);
}

static void test_extensions_do_not_add_up(void **state)
{
	struct body_outcome o = { 0 };
	struct http1_body b;

	http1_body_begin(&b, &chunked);
	for (int i = 0; i < 100; i++) {
		o.content_len = 0;
		feed(&b, "1;chunk-signature=0123456789abcdef\r\nx\r\n", 39, &o);
	}
	assert_int_equal(o.status, 0);
	assert_int_equal(o.taken, 3900);
}

/* ---- paths ---- */

static void test_normalise(void **state)
{
	static const struct {
		const char *path, *want; /* NULL: refused */
	} rows[] = {
		{ "/", "/" },
		{ "", "" },
		{ "*", "*" },
		{ "/a/b", "/a/b" },
		{ "//a///b//", "/a/b/" },
		{ "/a/./b/.", "/a/b/" },
		{ "/a/../b", "/b" },
		{ "/a/..", "/" },
		{ "/../..", "/" },
		{ "/../../a", "/a" },
		{ "/a/b/../../../c/", "/c/" },
		{ "/a/b/..", "/a/" },
		{ "/a//../b", "/b" },
		{ "/...", "/..." },
		{ "/.a/..b/c.", "/.a/..b/c." },
		{ "/%2e%2E/%2e/a", "/a" },
		{ "/a/%2e%2e%2fb", "/a/..%2Fb" },
		{ "/%41%7e%5F%2d", "/A~_-" },
		{ "/%3a%e4%20", "/%3A%E4%20" },
		{ "/%252e%252e/", "/%252e%252e/" },
		{ "/..;/a", "/..;/a" },
		{ "/%00", NULL },
		{ "/%", NULL },
		{ "/%4", NULL },
		{ "/%4g", NULL },
		{ "/%g4", NULL },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		size_t len = strlen(rows[i].path);
		char *in = malloc(len + 1), *out = malloc(len + 1);
		ssize_t n;

		memcpy(in, rows[i].path, len);
		n = http1_normalise(out, (struct http1_text){ in, (uint32_t)len });
		if (!rows[i].want) {
			assert_int_equal(n, -1);
		} else {
			assert_int_equal(n, strlen(rows[i].want));
			assert_string_equal(out, rows[i].want);
		}
		free(in);
		free(out);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_requests_refused),
		cmocka_unit_test(test_answers_refused),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_number_of_fields),
		cmocka_unit_test(test_request),
		cmocka_unit_test(test_rest_stays),
		cmocka_unit_test(test_targets),
		cmocka_unit_test(test_framing_of_requests),
		cmocka_unit_test(test_framing_of_answers),
		cmocka_unit_test(test_connection),
		cmocka_unit_test(test_upgrade),
		cmocka_unit_test(test_bodies), cmocka_unit_test(test_trailers_are_found),
		cmocka_unit_test(test_chunks_refused),
		cmocka_unit_test(test_limits_of_bodies),
		cmocka_unit_test(test_extensions_do_not_add_up),
		cmocka_unit_test(test_normalise),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

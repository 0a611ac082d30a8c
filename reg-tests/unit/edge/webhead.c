/* Heads as they are rewritten for the other side, and the hub's own answers. */
#include "edge/webhead.c"

#include "mctunnel/edge/weberror.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>

static struct http1_head head;
static char out[8192];

static const char *request(const char *text, int forwarded, const char *path)
{
	struct http1_error err;
	struct webhead_request r = { .head = &head, .forwarded = forwarded, .client = "192.0.2.1", .host = "192.0.2.9:80", .path = path, .id = "the-id" };
	size_t n;

	assert_int_equal(http1_request(&head, text, strlen(text), 8192, &err), strlen(text));
	n = webhead_request(out, sizeof(out), &r);
	assert_true(n > 0);
	out[n] = '\0';
	return out;
}

static const char *answer(const char *text, const char *method, struct webhead_answer a)
{
	struct http1_error err;
	size_t n;

	assert_int_equal(http1_answer(&head, text, strlen(text), 8192, method, &err), strlen(text));
	a.head = &head;
	n = webhead_answer(out, sizeof(out), &a);
	assert_true(n > 0);
	out[n] = '\0';
	return out;
}

#define OURS                                                                                                          \
	"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a.test\r\n"                        \
	"Forwarded: for=192.0.2.1;host=\"a.test\";proto=http\r\nX-Request-ID: the-id\r\n\r\n"

static void what_is_of_one_connection_goes(void **state)
{
	assert_string_equal(request("GET /a?b=c HTTP/1.1\r\nAccept: x\r\nhost: a.test\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\n"
				    "HTTP2-Settings: AAA\r\nUpgrade: h2c\r\n\r\n", FORWARDED_REPLACE, NULL),
			    "GET /a?b=c HTTP/1.1\r\nHost: a.test\r\nAccept: x\r\n" OURS);
	assert_string_equal(request("GET /a HTTP/1.1\r\nHost: a.test\r\nTE: gzip, trailers;q=1\r\nConnection: TE, upgrade\r\nUpgrade: websocket\r\n\r\n", FORWARDED_OFF, NULL),
			    "GET /a HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nTE: trailers\r\nConnection: upgrade, TE\r\n\r\n");
}

static void framing_and_target_are_said_anew(void **state)
{
	assert_string_equal(request("POST http://A.test:81/x?y HTTP/1.1\r\nHost: a.test:81\r\nContent-Length: 5\r\n\r\n", FORWARDED_OFF, "/new"),
			    "POST /new?y HTTP/1.1\r\nHost: A.test:81\r\nContent-Length: 5\r\n\r\n");
	assert_string_equal(request("POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\nHost: a\r\n\r\n", FORWARDED_OFF, NULL),
			    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
	assert_string_equal(request("POST / HTTP/1.1\r\nContent-Length: 0\r\nHost: a\r\n\r\n", FORWARDED_OFF, NULL), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
	assert_string_equal(request("GET / HTTP/1.0\r\n\r\n", FORWARDED_OFF, NULL), "GET / HTTP/1.1\r\nHost: 192.0.2.9:80\r\n\r\n");
	assert_string_equal(request("CONNECT b:1 HTTP/1.1\r\nHost: b:1\r\n\r\n", FORWARDED_OFF, NULL), "CONNECT b:1 HTTP/1.1\r\nHost: b:1\r\n\r\n");
	/* what CGI would take for framing */
	assert_string_equal(request("GET / HTTP/1.1\r\nHost: b\r\nTransfer_Encoding: chunked\r\nContent_Length: 5\r\n\r\n", FORWARDED_OFF, NULL), "GET / HTTP/1.1\r\nHost: b\r\n\r\n");
	assert_string_equal(request("OPTIONS * HTTP/1.1\r\nHost: b\r\n\r\n", FORWARDED_OFF, NULL), "OPTIONS * HTTP/1.1\r\nHost: b\r\n\r\n");
}

#define THEIRS                                                                                                                       \
	"GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 1.1.1.1\r\nx_forwarded_for: 2.2.2.2\r\nX-Forwarded-Proto: https\r\n"      \
	"Forwarded: for=3.3.3.3\r\nX-Forwarded-For: 4.4.4.4\r\nX-Forwarded-User: root\r\nX-Request-Id: theirs\r\n\r\n"

static void clients_may_say_who_they_are_as_configured(void **state)
{
	assert_string_equal(request(THEIRS, FORWARDED_REPLACE, NULL), "GET / HTTP/1.1\r\nHost: a.test\r\n" OURS);
	assert_string_equal(request(THEIRS, FORWARDED_OFF, NULL), "GET / HTTP/1.1\r\nHost: a.test\r\nX-Request-Id: theirs\r\n\r\n");
	assert_string_equal(request(THEIRS, FORWARDED_KEEP, NULL),
			    "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 1.1.1.1\r\nx_forwarded_for: 2.2.2.2\r\nX-Forwarded-Proto: https\r\nForwarded: for=3.3.3.3\r\n"
			    "X-Forwarded-For: 4.4.4.4\r\nX-Forwarded-User: root\r\nX-Request-ID: the-id\r\n\r\n");
	assert_string_equal(request(THEIRS, FORWARDED_APPEND, NULL),
			    "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-Proto: https\r\nX-Forwarded-User: root\r\nX-Forwarded-For: 1.1.1.1, 4.4.4.4, 192.0.2.1\r\n"
			    "X-Forwarded-Host: a.test\r\nForwarded: for=3.3.3.3, for=192.0.2.1;host=\"a.test\";proto=http\r\nX-Request-ID: the-id\r\n\r\n");
}

static void ids_of_clients_are_looked_at(void **state)
{
	static const struct {
		const char *id;
		bool good;
	} ids[] = { { "abc-1._:+/=@", true }, { "a b", false }, { "a\"b", false }, { "", false },
		    { "0123456789012345678901234567890123456789012345678901234567890123", true },
		    { "01234567890123456789012345678901234567890123456789012345678901234", false } };
	char text[256], id[WEBHEAD_ID], other[WEBHEAD_ID];
	struct http1_error err;

	for (size_t i = 0; i < sizeof(ids) / sizeof(*ids); i++) {
		snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: a\r\nX-Request-ID: %s\r\n\r\n", ids[i].id);
		assert_true(http1_request(&head, text, strlen(text), 8192, &err) > 0);
		webhead_id(id, &head, FORWARDED_APPEND);
		assert_int_equal(strcmp(id, ids[i].id) == 0, ids[i].good);
		webhead_id(id, &head, FORWARDED_REPLACE);
		webhead_id(other, &head, FORWARDED_REPLACE);
		assert_int_equal(strlen(id), 32);
		assert_string_not_equal(id, other);
	}
}

static void answers_are_framed_for_the_client(void **state)
{
	assert_string_equal(answer("HTTP/1.0 200 Fine\r\nContent-Length: 3\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\nServer: s\r\n\r\n", "GET", (struct webhead_answer){ 0 }),
			    "HTTP/1.1 200 Fine\r\nServer: s\r\nContent-Length: 3\r\n\r\n");
	assert_string_equal(answer("HTTP/1.1 200\r\n\r\n", "GET", (struct webhead_answer){ .close = true }), "HTTP/1.1 200 \r\nConnection: close\r\n\r\n");
	assert_string_equal(answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n", "GET", (struct webhead_answer){ 0 }),
			    "HTTP/1.1 200 OK\r\nTrailer: X\r\nTransfer-Encoding: chunked\r\n\r\n");
	assert_string_equal(answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n", "GET", (struct webhead_answer){ .close = true, .unchunk = true }),
			    "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
	assert_string_equal(answer("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "HEAD", (struct webhead_answer){ .keep = true }),
			    "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: keep-alive\r\n\r\n");
	assert_string_equal(answer("HTTP/1.1 204 None\r\nContent-Length: 0\r\n\r\n", "GET", (struct webhead_answer){ 0 }), "HTTP/1.1 204 None\r\n\r\n");
	assert_string_equal(answer("HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: x/1\r\n\r\n", "GET", (struct webhead_answer){ 0 }),
			    "HTTP/1.1 101 Go\r\nUpgrade: x/1\r\nConnection: upgrade\r\n\r\n");
	assert_string_equal(answer("HTTP/1.1 426 No\r\nConnection: upgrade\r\nUpgrade: x/1\r\nContent-Length: 0\r\n\r\n", "GET", (struct webhead_answer){ .close = true }),
			    "HTTP/1.1 426 No\r\nContent-Length: 0\r\nUpgrade: x/1\r\nConnection: upgrade, close\r\n\r\n");
}

static void logins_of_the_connection_are_seen(void **state)
{
	answer("HTTP/1.1 401 No\r\nContent-Length: 0\r\nWWW-Authenticate: Basic realm=\"NTLMish\"\r\n\r\n", "GET", (struct webhead_answer){ 0 });
	assert_false(webhead_binds(&head));
	answer("HTTP/1.1 401 No\r\nContent-Length: 0\r\nWWW-Authenticate: Basic realm=\"x\", ntlm\r\n\r\n", "GET", (struct webhead_answer){ 0 });
	assert_true(webhead_binds(&head));
	request("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Negotiate abc\r\n\r\n", FORWARDED_OFF, NULL);
	assert_true(webhead_binds(&head));
	request("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer abc\r\n\r\n", FORWARDED_OFF, NULL);
	assert_false(webhead_binds(&head));
}

static void what_does_not_fit_is_no_head(void **state)
{
	struct webhead_request r = { .head = &head, .forwarded = FORWARDED_REPLACE, .client = "2001:db8::1", .id = "i", .tls = true };
	size_t n;

	request("GET / HTTP/1.1\r\nHost: a.test\r\nX: y\r\n\r\n", FORWARDED_OFF, NULL);
	n = webhead_request(out, sizeof(out), &r);
	out[n] = '\0';
	assert_non_null(strstr(out, "Forwarded: for=\"[2001:db8::1]\";host=\"a.test\";proto=https\r\n"));
	for (size_t size = 0; size < n; size++)
		assert_int_equal(webhead_request(out, size, &r), 0);
	assert_int_equal(webhead_request(out, n, &r), n);
}

static void errors_say_what_the_log_knows(void **state)
{
	static char big[WEBERROR_MAX], location[8192];
	struct weberror e = { .status = 503, .session = "s1", .request = "r1", .close = true };

	assert_true(weberror_make(big, sizeof(big), &e) > 0);
	assert_non_null(strstr(big, "HTTP/1.1 503 Service Unavailable\r\n"));
	assert_non_null(strstr(big, "\r\nRetry-After: 1\r\n"));
	assert_non_null(strstr(big, "\r\nConnection: close\r\n"));
	assert_non_null(strstr(big, "\r\n\r\n503 Nobody can serve this just now; try again later.\nid: s1\nrequest: r1\n"));
	e = (struct weberror){ .status = 302, .head = true, .location = location };
	memset(location, 'x', sizeof(location) - 1);
	assert_true(weberror_make(big, sizeof(big), &e) > sizeof(location));
	assert_string_equal(big + strlen(big) - 4, "\r\n\r\n");
	assert_int_equal(weberror_status(REASON_NO_ROUTE), 404);
	assert_int_equal(weberror_status(REASON_NO_AGENT), 503);
	assert_int_equal(weberror_status(REASON_TARGET_REFUSED), 502);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_of_one_connection_goes),
		cmocka_unit_test(framing_and_target_are_said_anew),
		cmocka_unit_test(clients_may_say_who_they_are_as_configured),
		cmocka_unit_test(ids_of_clients_are_looked_at),
		cmocka_unit_test(answers_are_framed_for_the_client),
		cmocka_unit_test(logins_of_the_connection_are_seen),
		cmocka_unit_test(what_does_not_fit_is_no_head),
		cmocka_unit_test(errors_say_what_the_log_knows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

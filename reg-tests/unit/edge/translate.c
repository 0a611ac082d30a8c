/* Heads between HTTP/2 and HTTP/1.1: what a request becomes, what is refused, and what of an answer goes back. */
#include "mctunnel/edge/translate.h"

#include "mctunnel/proto/http1.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../failing.h"

enum { MAX = 4096 };

static struct translation t;

static int set_up(void **state)
{
	memset(&t, 0, sizeof(t));
	t.max = MAX;
	return 0;
}

static int tear_down(void **state)
{
	translate_free(&t);
	assert_null(t.text);
	return 0;
}

static void say(const char *const (*fields)[2])
{
	for (; (*fields)[0]; fields++)
		translate_field(&t, (*fields)[0], (*fields)[1]);
}

#define SAY(...) say((const char *const[][2]){ __VA_ARGS__, { NULL, NULL } })
#define GET { ":method", "GET" }, { ":scheme", "https" }, { ":path", "/a?b=c" }
#define POST { ":method", "POST" }, { ":scheme", "https" }, { ":path", "/" }, { ":authority", "a.example" }

static void assert_text(const char *text)
{
	assert_int_equal(t.len, strlen(text));
	assert_memory_equal(t.text, text, t.len);
}

static void requests(void **state)
{
	SAY(GET, { ":authority", "a.example:8443" }, { "accept", "*/*" }, { "x", "" });
	assert_int_equal(translate_end(&t, true, false), 0);
	assert_text("GET /a?b=c HTTP/1.1\r\nhost: a.example:8443\r\naccept: */*\r\nx: \r\n\r\n");
	assert_false(t.chunked || t.grpc);
}

static void requests_without_fields(void **state)
{
	SAY(GET, { ":authority", "a.example" });
	assert_int_equal(translate_end(&t, true, false), 0);
	assert_text("GET /a?b=c HTTP/1.1\r\nhost: a.example\r\n\r\n");
}

static void bodies_of_unknown_length_are_chunked(void **state)
{
	SAY(POST, { "x", "y" });
	assert_int_equal(translate_end(&t, false, false), 0);
	assert_true(t.chunked);
	assert_text("POST / HTTP/1.1\r\nhost: a.example\r\nx: y\r\ntransfer-encoding: chunked\r\n\r\n");
}

static void a_length_frames_the_body(void **state)
{
	SAY(POST, { "content-length", "12" }, { "x", "y" });
	assert_int_equal(translate_end(&t, false, false), 0);
	assert_false(t.chunked);
	assert_text("POST / HTTP/1.1\r\nhost: a.example\r\nx: y\r\ncontent-length: 12\r\n\r\n");
}

/* It only says where a stream goes; the body is no message of HTTP/1.1. */
static void bare_heads_have_no_framing(void **state)
{
	SAY(POST, { "content-length", "12" }, { "te", "trailers" }, { "content-type", "application/grpc+proto" });
	assert_int_equal(translate_end(&t, false, true), 0);
	assert_true(t.grpc && t.trailers);
	assert_text("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-type: application/grpc+proto\r\n\r\n");
}

static void types_of_grpc(void **state)
{
	static const struct {
		const char *type;
		bool grpc;
	} rows[] = { { "application/grpc", true }, { "application/grpc;x", true }, { "application/grpc+json", true }, { "application/grpc-web", false }, { "text/plain", false } };

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		translate_free(&t);
		t.max = MAX;
		SAY(POST, { "content-type", rows[i].type });
		assert_int_equal(translate_end(&t, false, false), 0);
		assert_int_equal(t.grpc, rows[i].grpc);
	}
}

static void cookies_come_together(void **state)
{
	SAY(GET, { ":authority", "a" }, { "cookie", "a=b" }, { "x", "y" }, { "cookie", "c=d" }, { "cookie", "e" });
	assert_int_equal(translate_end(&t, true, false), 0);
	assert_text("GET /a?b=c HTTP/1.1\r\nhost: a\r\nx: y\r\ncookie: a=b; c=d; e\r\n\r\n");
}

static void trailers_are_wanted(void **state)
{
	SAY(GET, { ":authority", "a" }, { "te", "trailers" });
	assert_int_equal(translate_end(&t, true, false), 0);
	assert_text("GET /a?b=c HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te\r\n\r\n");
}

static void one_host(void **state)
{
	SAY(GET, { ":authority", "a.example" }, { "host", "A.example" });
	assert_int_equal(translate_end(&t, true, false), 0);
	assert_text("GET /a?b=c HTTP/1.1\r\nhost: a.example\r\n\r\n");
	translate_free(&t);
	t.max = MAX;
	SAY(GET, { "host", "b.example" });
	assert_int_equal(translate_end(&t, true, false), 0);
	assert_text("GET /a?b=c HTTP/1.1\r\nhost: b.example\r\n\r\n");
	translate_free(&t);
	t.max = MAX;
	SAY(GET, { ":authority", "a.example" }, { "host", "b.example" });
	assert_int_equal(translate_end(&t, true, false), 400);
}

static void connect_is_not_for_us(void **state)
{
	SAY({ ":method", "CONNECT" }, { ":authority", "a.example:22" });
	assert_int_equal(translate_end(&t, false, false), 501);
}

static void too_long(void **state)
{
	static const char *const names[] = { ":path", ":authority", "x", "cookie", "content-length" };
	char value[MAX + 2];

	memset(value, 'v', sizeof(value) - 1);
	value[sizeof(value) - 1] = '\0';
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		translate_free(&t);
		t.max = MAX;
		translate_field(&t, ":method", "GET");
		translate_field(&t, names[i], value);
		translate_field(&t, ":path", "/");
		translate_field(&t, "y", "z");
		assert_int_equal(translate_end(&t, true, false), 431);
		assert_true(t.size <= 2 * MAX);
	}
}

static void exactly_long_enough(void **state)
{
	t.max = strlen("GET /a?b=c HTTP/1.1\r\nhost: a\r\n\r\n");
	SAY(GET, { ":authority", "a" });
	assert_int_equal(translate_end(&t, true, false), 0);
	translate_free(&t);
	t.max = strlen("GET /a?b=c HTTP/1.1\r\nhost: a\r\n\r\n") - 1;
	SAY(GET, { ":authority", "a" });
	assert_int_equal(translate_end(&t, true, false), 431);
}

/* ---- answers ---- */

static size_t answer(const char *head, struct h2_field *out, size_t max, size_t size)
{
	static char space[1000];
	static struct http1_head h;
	struct http1_error err;

	assert_true(http1_answer(&h, head, strlen(head), MAX, "GET", &err) > 0);
	return translate_answer(&h, out, max, space, size);
}

static void answers(void **state)
{
	static const char head[] = "HTTP/1.1 204 No Content\r\nServer: X\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nSet-Cookie: A=b\r\nSET-COOKIE: c=D\r\n\r\n";
	struct h2_field f[8];

	assert_int_equal(answer(head, f, 8, 1000), 4);
	assert_string_equal(f[0].name, ":status");
	assert_string_equal(f[0].value, "204");
	assert_string_equal(f[1].name, "server");
	assert_string_equal(f[1].value, "X");
	assert_string_equal(f[2].name, "set-cookie");
	assert_string_equal(f[2].value, "A=b");
	assert_string_equal(f[3].name, "set-cookie");
	assert_string_equal(f[3].value, "c=D");
}

static void answers_that_do_not_fit(void **state)
{
	static const char head[] = "HTTP/1.1 200 OK\r\nA: b\r\nC: d\r\n\r\n";
	struct h2_field f[8];

	assert_int_equal(answer(head, f, 3, 12), 3); /* 200 NUL A NUL b NUL C NUL d NUL */
	assert_int_equal(answer(head, f, 3, 11), 0);
	assert_int_equal(answer(head, f, 2, 1000), 0);
}

static void tell(void *arg, const char *name, const char *value)
{
	char *out = arg;

	snprintf(out + strlen(out), 200 - strlen(out), "%s=%s;", name, value);
}

static void no_memory_is_said(void **state)
{
	unsigned n = 0, result;
	bool failed;

	do {
		tear_down(state);
		set_up(state);
		failing = ++n;
		SAY(POST, { "cookie", "a=b" }, { "x", "y" });
		result = translate_end(&t, false, false);
		failed = has_failed();
		assert_int_equal(result, failed ? 503 : 0);
	} while (failed);
	assert_true(n > 2);
}

static void trailers_of_answers(void **state)
{
	char text[] = "X-Sum: 1\r\nGrpc-Status:\r\nProxy-Connection: a\r\nA:  b : c\t\r\n\r\n", none[] = "\r\n", got[200] = "";

	translate_trailers(text, strlen(text), tell, got);
	assert_string_equal(got, "x-sum=1;grpc-status=;a=b : c;");
	got[0] = '\0';
	translate_trailers(none, 2, tell, got);
	assert_string_equal(got, "");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(requests), T(requests_without_fields), T(bodies_of_unknown_length_are_chunked), T(a_length_frames_the_body), T(bare_heads_have_no_framing),
		T(types_of_grpc), T(cookies_come_together), T(trailers_are_wanted), T(one_host), T(connect_is_not_for_us), T(too_long), T(exactly_long_enough),
		T(answers), T(answers_that_do_not_fit), T(trailers_of_answers), T(no_memory_is_said),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

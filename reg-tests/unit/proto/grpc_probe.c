/* grpc_probe: against our own server of grpc_health.h, in memory; and answers made by hand, whole and byte by byte. */
#include "mctunnel/base/mem.h"
#include "mctunnel/proto/grpc_health.h"
#include "mctunnel/proto/grpc_probe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../failing.h"

static char asked[GRPC_HEALTH_NAME_MAX];
static enum health_status answer;

static enum health_status status(void *owner, const char *service)
{
	memcpy(asked, service, strlen(service) + 1);
	return answer;
}

static void list(void *owner, struct health_list *l)
{
}

static void answered(void *owner, const char *service, enum health_status s)
{
}

static bool watch_begins(void *owner)
{
	return false;
}

static void watch_ends(void *owner)
{
}

static const struct grpc_health_events server_events = { status, list, answered, watch_begins, watch_ends };

/* What the probe makes of the server, in pieces of so many bytes each way. */
static enum grpc_verdict ask(const char *service, size_t piece)
{
	struct grpc_health *server = grpc_health_new(&server_events, NULL);
	struct grpc_probe *p = grpc_probe_new("a.example:80", service, 1000);
	enum grpc_verdict v = GRPC_WAITING;
	uint8_t buf[1000];
	uint32_t code;
	size_t n;

	assert_non_null(server);
	assert_non_null(p);
	do {
		while ((n = grpc_probe_output(p, buf, piece)) > 0)
			grpc_health_input(server, buf, n);
		n = grpc_health_output(server, buf, piece);
		v = grpc_probe_input(p, buf, n);
	} while (n > 0 && v == GRPC_WAITING);
	assert_int_not_equal(v, GRPC_WAITING);
	assert_true(strlen(grpc_probe_text(p, &code)) > 0);
	grpc_probe_free(p);
	grpc_health_free(server);
	return v;
}

static void test_our_server(void **state)
{
	static const char *const names[] = { "", "x", "site-a/web" };
	char longest[129] = "";

	memset(longest, 'n', 128);
	for (size_t piece = 1; piece <= 1000; piece = piece * 3 + 1) {
		answer = HEALTH_SERVING;
		for (size_t i = 0; i < 3; i++) {
			assert_int_equal(ask(names[i], piece), GRPC_SERVING);
			assert_string_equal(asked, names[i]);
		}
		assert_int_equal(ask(longest, piece), GRPC_SERVING);
		assert_string_equal(asked, longest);
		answer = HEALTH_NOT_SERVING;
		assert_int_equal(ask("x", piece), GRPC_OTHER);
		answer = HEALTH_SERVICE_UNKNOWN;
		assert_int_equal(ask("x", piece), GRPC_OTHER);
	}
}

static void test_too_long_a_name(void **state)
{
	char name[130] = "";

	memset(name, 'n', 129);
	assert_null(grpc_probe_new("a", name, 1));
}

/* ---- by hand ---- */

#define SETTINGS "\0\0\0\4\0\0\0\0\0"
#define ANSWER "\0\0\x14\1\4\0\0\0\1\x88\x0f\x10\x10" "application/grpc"
#define TRAILERS "\0\0\x0f\1\5\0\0\0\1\0\x0b" "grpc-status" "\1" "0"

struct bytes {
	const char *at;
	size_t len;
};
#define BYTES(s) { s, sizeof(s) - 1 }

static const struct {
	struct bytes in;
	enum grpc_verdict verdict;
	uint32_t code;
	const char *text;
} rows[] = {
	{ BYTES(SETTINGS ANSWER "\0\0\7\0\0\0\0\0\1\0\0\0\0\2\x08\1" TRAILERS), GRPC_SERVING, 0, "SERVING" },
	{ BYTES(SETTINGS ANSWER "\0\0\3\0\0\0\0\0\1\0\0\0" "\0\0\4\0\0\0\0\0\1\0\2\x08\1" TRAILERS), GRPC_SERVING, 0, "SERVING" },
	{ BYTES(SETTINGS ANSWER "\0\0\7\0\0\0\0\0\1\0\0\0\0\2\x08\2" TRAILERS), GRPC_OTHER, 0, "NOT_SERVING" },
	{ BYTES(SETTINGS ANSWER "\0\0\5\0\0\0\0\0\1\0\0\0\0\0" TRAILERS), GRPC_OTHER, 0, "UNKNOWN" },
	{ BYTES(SETTINGS ANSWER TRAILERS), GRPC_MALFORMED, 0, "no gRPC message" },
	{ BYTES(SETTINGS ANSWER "\0\0\6\0\0\0\0\0\1\0\0\0\0\2\x08" TRAILERS), GRPC_MALFORMED, 0, "malformed gRPC message" },
	{ BYTES(SETTINGS ANSWER "\0\0\6\0\0\0\0\0\1\0\0\0\0\1\x08" TRAILERS), GRPC_MALFORMED, 0, "malformed gRPC message" },
	{ BYTES(SETTINGS ANSWER "\0\0\7\0\0\0\0\0\1\1\0\0\0\2\x08\1" TRAILERS), GRPC_MALFORMED, 0, "malformed gRPC message" },
	{ BYTES(SETTINGS ANSWER "\0\0\7\0\0\0\0\0\1\0\0\1\0\2\x08\1" TRAILERS), GRPC_MALFORMED, 0, "malformed gRPC message" },
	{ BYTES(SETTINGS ANSWER "\0\0\7\0\1\0\0\0\1\0\0\0\0\2\x08\1"), GRPC_MALFORMED, 0, "no grpc-status" },
	{ BYTES(SETTINGS "\0\0\x24\1\5\0\0\0\1\x88\x0f\x10\x10" "application/grpc" "\0\x0b" "grpc-status" "\2" "12"), GRPC_OTHER, 12, "UNIMPLEMENTED" },
	{ BYTES(SETTINGS "\0\0\x25\1\5\0\0\0\1\x88\x0f\x10\x10" "application/grpc" "\0\x0b" "grpc-status" "\3" "123"), GRPC_OTHER, 123,
	  "an unknown grpc-status" },
	{ BYTES(SETTINGS "\0\0\1\1\5\0\0\0\1\x8d"), GRPC_OTHER, 404, "HTTP 404" },
	{ BYTES(SETTINGS "\0\0\1\1\5\0\0\0\1\x88"), GRPC_MALFORMED, 0, "the content type is not gRPC's" },
	{ BYTES(SETTINGS "\0\0\4\3\0\0\0\0\1\0\0\0\2"), GRPC_MALFORMED, 0, "the stream was reset (code 2)" },
	{ BYTES(SETTINGS "\0\0\x08\7\0\0\0\0\0\0\0\0\0\0\0\0\0"), GRPC_MALFORMED, 0, "the stream was reset (code 7)" },
	{ BYTES("HTTP/1.1 200 OK\r\n\r\n"), GRPC_MALFORMED, 0, "what answers does not speak HTTP/2" },
	{ BYTES("220 mail.example ESMTP\r\n"), GRPC_MALFORMED, 0, "what answers does not speak HTTP/2" },
	{ BYTES(SETTINGS ANSWER), GRPC_WAITING, 0, "" },
	{ BYTES(""), GRPC_WAITING, 0, "" },
};

static void drain(struct grpc_probe *p)
{
	uint8_t out[64];

	while (grpc_probe_output(p, out, sizeof(out)) > 0)
		;
}

static void test_answers(void **state)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		for (size_t step = 1; step <= 64; step *= 8) {
			struct grpc_probe *p = grpc_probe_new("a", "", 1000);
			const struct bytes in = rows[i].in;
			enum grpc_verdict v = GRPC_WAITING;
			uint32_t code;

			assert_non_null(p);
			drain(p);
			for (size_t at = 0; at < in.len; at += step) {
				v = grpc_probe_input(p, (const uint8_t *)in.at + at, in.len - at < step ? in.len - at : step);
				drain(p);
			}
			v = grpc_probe_input(p, NULL, 0);
			assert_string_equal(grpc_probe_text(p, &code), rows[i].text);
			assert_int_equal(v, rows[i].verdict);
			assert_int_equal(code, rows[i].code);
			grpc_probe_free(p);
		}
	}
}

/* SERVING, to a probe whose Nth allocation fails. Whether one failed. */
static bool probe_without_memory(unsigned n)
{
	const struct bytes in = rows[0].in;
	enum grpc_verdict v = GRPC_STARVED;
	struct grpc_probe *p;
	uint32_t code;
	bool failed;

	failing = n;
	p = grpc_probe_new("a", "", 1000);
	if (p) {
		drain(p);
		(void)grpc_probe_input(p, (const uint8_t *)in.at, in.len);
		drain(p);
		v = grpc_probe_input(p, NULL, 0);
	}
	failed = has_failed();
	assert_true(v == GRPC_SERVING || (failed && v == GRPC_STARVED));
	if (p && v == GRPC_STARVED)
		assert_string_equal(grpc_probe_text(p, &code), "no memory");
	grpc_probe_free(p);
	return failed;
}

static void test_no_memory_is_no_bad_answer(void **state)
{
	unsigned n = 1;

	while (probe_without_memory(n))
		n++;
	assert_true(n > 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_our_server),
		cmocka_unit_test(test_too_long_a_name),
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_no_memory_is_no_bad_answer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

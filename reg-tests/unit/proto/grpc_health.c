/* grpc_health: a client of nghttp2's own, in memory, against the server; and bytes that no client sends. */
#include "mctunnel/proto/grpc_health.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <string.h>

#define CALLS 64
#define CHECK "/grpc.health.v1.Health/Check"
#define WATCH "/grpc.health.v1.Health/Watch"

struct call { /* what came of it */
	char http[4], code[4], type[32];
	uint8_t body[20000];
	size_t body_len;
	bool closed;
	const uint8_t *out; /* to send */
	size_t out_len;
	bool keep_open;
};

static struct {
	nghttp2_session *client;
	struct grpc_health *h;
	struct call calls[CALLS]; /* by stream id */
	enum health_status web;
	int watches, watch_limit, listed, refused;
	bool list_fails;
	uint32_t goaway;
	size_t piece; /* bytes handed over at once */
} me;

/* ---- the server's owner ---- */

static enum health_status status(void *owner, const char *service)
{
	if (strcmp(service, "web") == 0)
		return me.web;
	return service[0] ? HEALTH_SERVICE_UNKNOWN : HEALTH_SERVING;
}

static void list(void *owner, struct health_list *l)
{
	char name[200] = "";
	if (me.list_fails)
		health_list_fail(l);
	memset(name, 'n', 100);
	for (int i = 0; i < me.listed; i++) {
		snprintf(name + 100, sizeof name - 100, "%03d", i);
		if (!health_list_add(l, name, HEALTH_NOT_SERVING))
			return;
	}
}

static void answered(void *owner, const char *service, enum health_status s)
{
	me.refused += s == HEALTH_UNKNOWN;
}

static bool watch_begins(void *owner)
{
	if (me.watches == me.watch_limit)
		return false;
	me.watches++;
	return true;
}

static void watch_ends(void *owner)
{
	me.watches--;
}

static const struct grpc_health_events events = {status, list, answered, watch_begins, watch_ends};

/* ---- the client ---- */

static int on_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name, size_t namelen, const uint8_t *value, size_t valuelen,
		     uint8_t flags, void *arg)
{
	struct call *c = &me.calls[frame->hd.stream_id];
	if (strcmp((const char *)name, ":status") == 0)
		snprintf(c->http, sizeof c->http, "%s", (const char *)value);
	else if (strcmp((const char *)name, "grpc-status") == 0)
		snprintf(c->code, sizeof c->code, "%s", (const char *)value);
	else if (strcmp((const char *)name, "content-type") == 0)
		snprintf(c->type, sizeof c->type, "%s", (const char *)value);
	return 0;
}

static int on_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *data, size_t len, void *arg)
{
	struct call *c = &me.calls[id];
	assert_true(c->body_len + len <= sizeof c->body);
	memcpy(c->body + c->body_len, data, len);
	c->body_len += len;
	return 0;
}

static int on_close(nghttp2_session *ng, int32_t id, uint32_t code, void *arg)
{
	me.calls[id].closed = true;
	return 0;
}

static int on_frame(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
	if (frame->hd.type == NGHTTP2_GOAWAY)
		me.goaway = frame->goaway.error_code;
	return 0;
}

static ssize_t give_body(nghttp2_session *ng, int32_t id, uint8_t *buf, size_t len, uint32_t *flags, nghttp2_data_source *source, void *arg)
{
	struct call *c = &me.calls[id];
	size_t n = len < c->out_len ? len : c->out_len;
	memcpy(buf, c->out, n);
	c->out += n;
	c->out_len -= n;
	if (c->out_len == 0 && c->keep_open && n == 0)
		return NGHTTP2_ERR_DEFERRED;
	if (c->out_len == 0 && !c->keep_open)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	return (ssize_t)n;
}

static void hand_over(const uint8_t *p, size_t len)
{
	for (size_t n; len > 0; p += n, len -= n) {
		n = me.piece && me.piece < len ? me.piece : len;
		grpc_health_input(me.h, p, n);
	}
}

static void converse(void)
{
	for (bool more = true; more;) {
		const uint8_t *p;
		uint8_t buf[333];
		ssize_t n = nghttp2_session_mem_send(me.client, &p);
		size_t back;
		if (n > 0)
			hand_over(p, (size_t)n);
		more = n > 0;
		while ((back = grpc_health_output(me.h, buf, sizeof buf)) > 0) {
			assert_int_equal(nghttp2_session_mem_recv(me.client, buf, back), back);
			more = true;
		}
	}
}

#define NV(n, v) {(uint8_t *)(n), (uint8_t *)(v), strlen(n), strlen(v), NGHTTP2_NV_FLAG_NONE}

static struct call *begin(const char *path, const char *type, const char *encoding, const void *body, size_t len, bool keep_open)
{
	nghttp2_nv nv[] = {NV(":method", "POST"), NV(":scheme", "http"), NV(":path", path), NV(":authority", "hub"), NV("content-type", type),
			   NV("grpc-encoding", encoding)};
	nghttp2_data_provider source = {.read_callback = give_body};
	int32_t id = nghttp2_submit_request(me.client, NULL, nv, encoding[0] ? 6 : 5, &source, NULL);
	assert_in_range(id, 1, CALLS - 1);
	me.calls[id] = (struct call){.out = body, .out_len = len, .keep_open = keep_open};
	converse();
	return &me.calls[id];
}

static struct call *call(const char *path, const void *body, size_t len)
{
	return begin(path, "application/grpc", "", body, len, false);
}

#define CALL(path, body) call(path, body, sizeof(body) - 1)
#define EMPTY "\0\0\0\0\0"
#define WEB "\0\0\0\0\5\x0a\3web"

static void expect(const struct call *c, const char *code, const char *body, size_t len)
{
	assert_true(c->closed);
	assert_string_equal(c->http, "200");
	assert_string_equal(c->type, "application/grpc");
	assert_string_equal(c->code, code);
	assert_int_equal(c->body_len, len);
	assert_memory_equal(c->body, body, len);
}

static void refused_with(const struct call *c, const char *code)
{
	expect(c, code, "", 0);
}

static int setup(void **state)
{
	nghttp2_session_callbacks *cb;
	memset(&me, 0, sizeof me);
	me.web = HEALTH_SERVING;
	me.watch_limit = 100;
	me.goaway = UINT32_MAX;
	nghttp2_session_callbacks_new(&cb);
	nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_close);
	nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
	nghttp2_session_client_new(&me.client, cb, NULL);
	nghttp2_session_callbacks_del(cb);
	nghttp2_submit_settings(me.client, NGHTTP2_FLAG_NONE, NULL, 0);
	me.h = grpc_health_new(&events, NULL);
	assert_non_null(me.h);
	return 0;
}

static int teardown(void **state)
{
	grpc_health_free(me.h);
	nghttp2_session_del(me.client);
	assert_int_equal(me.watches, 0);
	return 0;
}

/* ---- tests ---- */

static void check(void **state)
{
	expect(CALL(CHECK, EMPTY), "0", "\0\0\0\0\2\x08\1", 7);
	me.web = HEALTH_NOT_SERVING;
	expect(CALL(CHECK, WEB), "0", "\0\0\0\0\2\x08\2", 7);
	me.web = HEALTH_UNKNOWN; /* proto3's default takes no bytes */
	expect(CALL(CHECK, WEB), "0", EMPTY, 5);
	refused_with(CALL(CHECK, "\0\0\0\0\4\x0a\2no"), "5");
	me.web = HEALTH_SERVING; /* other fields are skipped, the last service counts */
	expect(CALL(CHECK, "\0\0\0\0\x1d\x0a\2no\x10\x80\1\x1a\1x\x25\1\2\3\4\x11\1\2\3\4\5\6\7\x08\x0a\3web"), "0", "\0\0\0\0\2\x08\1", 7);
}

static void byte_by_byte(void **state)
{
	me.piece = 1;
	check(state);
}

static void watch(void **state)
{
	struct call *c = CALL(WATCH, WEB), *unknown = CALL(WATCH, "\0\0\0\0\4\x0a\2no");
	assert_int_equal(me.watches, 2);
	assert_memory_equal(unknown->body, "\0\0\0\0\2\x08\3", 7);
	grpc_health_changed(me.h);
	converse();
	assert_int_equal(c->body_len, 7); /* nothing new */
	me.web = HEALTH_NOT_SERVING;
	grpc_health_changed(me.h);
	me.web = HEALTH_SERVING; /* back before anybody could be told */
	grpc_health_changed(me.h);
	converse();
	assert_int_equal(c->body_len, 7);
	me.web = HEALTH_NOT_SERVING;
	grpc_health_changed(me.h);
	converse();
	assert_int_equal(c->body_len, 14);
	assert_memory_equal(c->body + 7, "\0\0\0\0\2\x08\2", 7);
	assert_false(c->closed);
	nghttp2_submit_rst_stream(me.client, NGHTTP2_FLAG_NONE, 1, NGHTTP2_CANCEL);
	converse();
	assert_int_equal(me.watches, 1);
	me.watch_limit = 1;
	refused_with(CALL(WATCH, WEB), "8");
}

static void lists(void **state)
{
	struct call *c;
	me.listed = GRPC_HEALTH_LISTED;
	c = CALL("/grpc.health.v1.Health/List", EMPTY);
	assert_string_equal(c->code, "0");
	assert_int_equal(c->body_len, 5 + 100 * (2 + 2 + 103 + 4));
	assert_memory_equal(c->body + 5, "\x0a\x6d\x0a\x67nnn", 7);
	me.listed++;
	refused_with(CALL("/grpc.health.v1.Health/List", EMPTY), "8");
}

/* A part of them must not look like all. */
static void no_memory_for_the_list(void **state)
{
	me.list_fails = true;
	refused_with(CALL("/grpc.health.v1.Health/List", EMPTY), "8");
	me.list_fails = false;
}

static void bad_calls(void **state)
{
	static uint8_t large[5 + GRPC_HEALTH_MESSAGE + 1] = {0, 0, 0, (GRPC_HEALTH_MESSAGE + 1) >> 8, (GRPC_HEALTH_MESSAGE + 1) & 0xff};
	assert_string_equal(begin(CHECK, "text/html", "", EMPTY, 5, false)->http, "415");
	assert_string_equal(begin(CHECK, "application/grpc-web", "", EMPTY, 5, false)->http, "415");
	refused_with(CALL("/grpc.health.v1.Health/Stop", EMPTY), "12");
	refused_with(CALL("/", EMPTY), "12");
	refused_with(CALL(CHECK, "\1\0\0\0\0"), "13");
	refused_with(begin(CHECK, "application/grpc", "gzip", "\1\0\0\0\0", 5, false), "12");
	expect(begin(CHECK, "application/grpc+proto", "gzip", EMPTY, 5, false), "0", "\0\0\0\0\2\x08\1", 7);
	refused_with(call(CHECK, large, sizeof large), "8");
	refused_with(CALL(CHECK, EMPTY EMPTY), "13");
	refused_with(CALL(CHECK, "\0\0\0\0\5\x0a\3we"), "13");
	refused_with(CALL(CHECK, ""), "13");
	refused_with(CALL(CHECK, "\0\0\0\0\2\x0a\5"), "3");
	refused_with(CALL(CHECK, "\0\0\0\0\1\xff"), "3");
	refused_with(CALL(CHECK, "\0\0\0\0\1\x0b"), "3");
	refused_with(CALL(CHECK, "\0\0\0\0\2\0\0"), "3");
	assert_int_equal(me.refused, 14);
}

static void calls_without_end(void **state)
{
	struct call *c = begin(CHECK, "application/grpc", "", WEB, sizeof WEB - 1, true);
	assert_int_equal(c->http[0], 0);
	for (int i = 1; i < GRPC_HEALTH_STREAMS; i++)
		begin(CHECK, "application/grpc", "", "", 0, true);
	assert_false(grpc_health_over(me.h));
	assert_true(grpc_health_take_frames(me.h) > GRPC_HEALTH_STREAMS);
	assert_int_equal(grpc_health_take_frames(me.h), 0);
}

static void goaway(void **state)
{
	struct call *c = CALL(WATCH, WEB);
	me.web = HEALTH_NOT_SERVING;
	grpc_health_changed(me.h);
	converse();
	assert_int_equal(c->body_len, 14);
	grpc_health_goaway(me.h, false);
	assert_true(grpc_health_over(me.h));
	converse();
	assert_int_equal(me.goaway, NGHTTP2_NO_ERROR);
	assert_false(grpc_health_broken(me.h));
	assert_false(grpc_health_wants_output(me.h));
}

static void broken_protocol(void **state)
{
	uint8_t out[200];
	static const char http1[] = "GET / HTTP/1.1\r\nHost: hub\r\n\r\n";
	grpc_health_input(me.h, (const uint8_t *)http1, sizeof http1 - 1);
	assert_true(grpc_health_over(me.h));
	assert_true(grpc_health_output(me.h, out, sizeof out) > 17); /* SETTINGS, GOAWAY */
	assert_true(grpc_health_broken(me.h));
	grpc_health_input(me.h, (const uint8_t *)http1, sizeof http1 - 1);
	assert_int_equal(grpc_health_output(me.h, out, sizeof out), 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(check), T(byte_by_byte), T(watch), T(lists), T(no_memory_for_the_list), T(bad_calls), T(calls_without_end), T(goaway), T(broken_protocol),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

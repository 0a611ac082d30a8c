/* h2_mux: both roles talk to each other in memory, in pieces of any size; where one of them must misbehave, the bytes are made by hand. */
#include "mctunnel/base/mem.h"
#include "mctunnel/proto/h2_mux.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../failing.h"

enum { STREAMS = 8, BODY = 300000, FIELDS = 2000 };

struct end;

struct stream {
	struct end *end;
	int32_t id;
	size_t to_send, sent, got; /* of bodies: byte i is i % 251 */
	bool hold, trailers, fin, closed;
	uint32_t code;
};

static struct end {
	struct h2_mux *m;
	struct stream streams[STREAMS];
	size_t n, refuse; /* streams so far; from which on they are refused (0: none) */
	bool keep;        /* what comes is not consumed */
	char heard[4096]; /* one word an event */
} client, server;

static void hear(struct end *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void hear(struct end *e, const char *fmt, ...)
{
	size_t len = strlen(e->heard);
	va_list list;

	va_start(list, fmt);
	vsnprintf(e->heard + len, sizeof(e->heard) - len, fmt, list);
	va_end(list);
}

static void *on_stream(void *owner, int32_t id)
{
	struct end *e = owner;

	if (e->refuse && e->n + 1 >= e->refuse)
		return NULL;
	e->streams[e->n] = (struct stream){ .end = e, .id = id };
	return &e->streams[e->n++];
}

static void on_field(void *owner, void *stream, const char *name, const char *value)
{
	hear(owner, "%s=%.20s ", name, value);
}

static void on_block(void *owner, void *stream, enum h2_block what, bool fin)
{
	static const char *const words[] = { "request", "interim", "answer", "trailers" };

	hear(owner, "%s%s ", words[what], fin ? "!" : "");
}

static void on_data(void *owner, void *stream, const uint8_t *data, size_t len)
{
	struct end *e = owner;
	struct stream *s = stream;

	for (size_t i = 0; i < len; i++)
		assert_int_equal(data[i], (s->got + i) % 251);
	s->got += len;
	if (!e->keep)
		h2_mux_consume(e->m, s->id, len);
}

static void on_fin(void *owner, void *stream)
{
	struct stream *s = stream;

	assert_false(s->fin);
	s->fin = true;
}

static void on_closed(void *owner, void *stream, uint32_t code)
{
	struct stream *s = stream;

	assert_false(s->closed);
	s->closed = true;
	s->code = code;
}

static const struct h2_field trailer[] = { { "grpc-status", "0" } };

static size_t pull(void *owner, void *stream, uint8_t *dst, size_t room, bool *fin)
{
	struct stream *s = stream;
	size_t n = s->to_send - s->sent < room ? s->to_send - s->sent : room;

	for (size_t i = 0; i < n; i++)
		dst[i] = (uint8_t)((s->sent + i) % 251);
	s->sent += n;
	*fin = s->sent == s->to_send && !s->hold;
	if (*fin && s->trailers)
		h2_mux_trailers(s->end->m, s->id, trailer, 1);
	return n;
}

static const struct h2_mux_events events = { on_stream, on_field, on_block, on_data, on_fin, on_closed, pull };

static int set_up(void **state)
{
	struct h2_mux_options o = { .max_streams = 3, .max_fields = FIELDS };

	memset(&client, 0, sizeof(client));
	memset(&server, 0, sizeof(server));
	client.m = h2_mux_new(&o, &events, &client);
	o.server = true;
	server.m = h2_mux_new(&o, &events, &server);
	assert_non_null(client.m);
	assert_non_null(server.m);
	return 0;
}

static int tear_down(void **state)
{
	h2_mux_free(client.m);
	h2_mux_free(server.m);
	return 0;
}

static size_t pass(struct end *from, struct end *to, size_t piece)
{
	uint8_t buf[16384];
	size_t n = h2_mux_output(from->m, buf, piece);

	h2_mux_input(to->m, buf, n);
	return n;
}

/* Until both have said all. */
static void talk(size_t piece)
{
	while (pass(&client, &server, piece) + pass(&server, &client, piece) > 0)
		;
	assert_false(h2_mux_wants_output(client.m));
	assert_false(h2_mux_wants_output(server.m));
}

static const struct h2_field get[] = { { ":method", "GET" }, { ":scheme", "http" }, { ":path", "/" }, { ":authority", "a.example" } };
static const struct h2_field ok[] = { { ":status", "200" }, { "x", "y" } };

static struct stream *ask(size_t body)
{
	struct stream *s = &client.streams[client.n++];

	*s = (struct stream){ .end = &client, .to_send = body };
	s->id = h2_mux_open(client.m, s, get, 4, body == 0);
	assert_true(s->id > 0);
	return s;
}

static void assert_ended(const struct stream *s, uint32_t code)
{
	assert_true(s->closed);
	assert_int_equal(s->code, code);
}

static void request_and_answer(void **state)
{
	struct stream *s = ask(0);

	talk(16384);
	assert_string_equal(server.heard, ":method=GET :scheme=http :path=/ :authority=a.example request! ");
	h2_mux_answer(server.m, server.streams[0].id, ok, 2, true);
	talk(16384);
	assert_string_equal(client.heard, ":status=200 x=y answer! ");
	assert_ended(s, 0);
	assert_ended(&server.streams[0], 0);
	assert_false(s->fin); /* the block has said it */
	assert_int_equal(h2_mux_take_glitches(client.m), 2); /* SETTINGS and its acknowledgement */
	assert_false(h2_mux_over(client.m) || h2_mux_over(server.m));
}

static void bodies_in_pieces(void **state)
{
	static const size_t pieces[] = { 1, 9, 1000, 16384 };

	for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
		struct stream *s, *t;

		tear_down(state);
		set_up(state);
		s = ask(BODY);
		talk(pieces[i]);
		t = &server.streams[0];
		assert_int_equal(t->got, BODY);
		assert_true(t->fin);
		t->to_send = BODY + 1;
		h2_mux_answer(server.m, t->id, ok, 1, false);
		talk(pieces[i]);
		assert_int_equal(s->got, BODY + 1);
		assert_true(s->fin);
		assert_ended(s, 0);
		assert_ended(t, 0);
	}
}

static void interim_answers_come_before(void **state)
{
	static const struct h2_field early[] = { { ":status", "103" }, { "link", "</a>" } };

	ask(0);
	talk(16384);
	h2_mux_interim(server.m, 1, early, 2);
	talk(16384);
	h2_mux_interim(server.m, 1, early, 1);
	h2_mux_answer(server.m, 1, ok, 1, true);
	talk(16384);
	assert_string_equal(client.heard, ":status=103 link=</a> interim :status=103 interim :status=200 answer! ");
	assert_ended(&client.streams[0], 0);
}

static void trailers_end_both_ways(void **state)
{
	struct stream *s = ask(10), *t = &server.streams[0];

	s->trailers = true;
	talk(16384);
	assert_non_null(strstr(server.heard, "request grpc-status=0 trailers! "));
	assert_int_equal(t->got, 10);
	t->to_send = 10;
	t->trailers = true;
	h2_mux_answer(server.m, t->id, ok, 1, false);
	talk(16384);
	assert_string_equal(client.heard, ":status=200 answer grpc-status=0 trailers! ");
	assert_int_equal(s->got, 10);
	assert_ended(s, 0);
	assert_ended(t, 0);
}

/* A request and its answer, both with a body and trailers, the Nth allocation failing. Whether one failed. */
static bool exchange_without_memory(void **state, unsigned n)
{
	struct stream *s = &client.streams[0], *t = &server.streams[0];
	bool failed;

	tear_down(state);
	set_up(state);
	client.n = 1;
	*s = (struct stream){ .end = &client, .to_send = BODY, .trailers = true };
	failing = n;
	s->id = h2_mux_open(client.m, s, get, 4, false);
	talk(16384);
	t->to_send = BODY;
	t->trailers = true;
	if (server.n > 0)
		h2_mux_answer(server.m, t->id, ok, 2, false);
	talk(16384);
	failed = has_failed();
	assert_false(h2_mux_broken(client.m) || h2_mux_broken(server.m));
	if (s->closed && s->code == 0) {
		assert_int_equal(s->got, BODY);
		assert_int_equal(t->got, BODY);
		assert_non_null(strstr(server.heard, "request grpc-status=0 trailers! "));
		assert_string_equal(client.heard, ":status=200 x=y answer grpc-status=0 trailers! ");
	} else {
		assert_true(failed);
		assert_true(s->id < 0 || (s->closed && s->code) || h2_mux_starved(client.m) || h2_mux_starved(server.m));
	}
	return failed;
}

static void no_memory_makes_no_whole_of_a_part(void **state)
{
	unsigned n = 1;

	while (exchange_without_memory(state, n))
		n++;
	assert_true(n > 20);
}

static void waits_until_woken(void **state)
{
	struct stream *s = ask(10), *t = &server.streams[0];

	s->hold = true;
	talk(16384);
	assert_int_equal(t->got, 10);
	assert_false(t->fin);
	talk(16384);
	s->to_send = 15;
	h2_mux_wake(client.m, s->id);
	talk(16384);
	assert_int_equal(t->got, 15);
	s->hold = false;
	h2_mux_wake(client.m, s->id);
	talk(16384);
	assert_true(t->fin);
}

static void either_side_resets(void **state)
{
	struct stream *a = ask(0), *b = ask(BODY);

	b->hold = true;
	talk(16384);
	h2_mux_reset(client.m, a->id, H2_CANCEL);
	h2_mux_reset(server.m, b->id, H2_INTERNAL_ERROR);
	talk(16384);
	assert_ended(a, H2_CANCEL);
	assert_ended(b, H2_INTERNAL_ERROR);
	assert_ended(&server.streams[0], H2_CANCEL);
	assert_ended(&server.streams[1], H2_INTERNAL_ERROR);
	assert_false(h2_mux_over(client.m) || h2_mux_over(server.m));
}

static void a_stream_is_refused(void **state)
{
	struct stream *a = ask(0), *b;

	server.refuse = 2;
	b = ask(0);
	talk(16384);
	assert_false(a->closed);
	assert_true(b->closed);
	assert_int_not_equal(b->code, 0);
	assert_int_equal(server.n, 1);
	h2_mux_answer(server.m, a->id, ok, 1, true);
	talk(16384);
	assert_ended(a, 0);
}

/* More than the server allows wait on the client's side. */
static void streams_at_once(void **state)
{
	talk(16384); /* the server's SETTINGS */
	for (int i = 0; i < 5; i++)
		ask(0);
	talk(16384);
	assert_int_equal(server.n, 3);
	h2_mux_answer(server.m, 1, ok, 1, true);
	talk(16384);
	assert_int_equal(server.n, 4);
}

static void credit_by_hand(void **state)
{
	struct stream *t = &server.streams[0];

	server.keep = true;
	ask(BODY);
	talk(16384);
	assert_int_equal(t->got, H2_MUX_WINDOW);
	h2_mux_consume(server.m, t->id, 40000);
	talk(16384);
	assert_int_equal(t->got, H2_MUX_WINDOW + 40000);
	talk(16384);
	assert_int_equal(t->got, H2_MUX_WINDOW + 40000);
	server.keep = false;
	h2_mux_consume(server.m, t->id, t->got - 40000);
	talk(16384);
	assert_int_equal(t->got, BODY);
}

/* One who stops reading holds up nobody else. */
static void one_stream_stalls_alone(void **state)
{
	server.keep = true;
	ask(BODY);
	talk(16384);
	server.keep = false;
	ask(BODY);
	talk(16384);
	assert_in_range(server.streams[0].got, 1, H2_MUX_WINDOW);
	assert_int_equal(server.streams[1].got, BODY);
}

static void too_many_fields(void **state)
{
	struct h2_field f[24];
	char value[100];
	struct stream *s = &client.streams[0];

	memset(value, 'v', sizeof(value) - 1);
	value[sizeof(value) - 1] = '\0';
	memcpy(f, get, sizeof(get));
	for (size_t i = 4; i < 24; i++)
		f[i] = (struct h2_field){ "x", value };
	*s = (struct stream){ .end = &client };
	assert_int_equal(h2_mux_open(client.m, s, f, 24, true), 1);
	talk(16384);
	assert_true(h2_mux_over(server.m) && h2_mux_broken(server.m));
	assert_null(strstr(server.heard, "request"));
	assert_false(h2_mux_broken(client.m));
}

static void fields_that_are_none(void **state)
{
	static const struct h2_field bad[] = { { "connection", "close" }, { "x y", "z" }, { "x", "a\nb" }, { "transfer-encoding", "chunked" }, { ":late", "x" } };

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct h2_field f[5];
		struct stream *s = &client.streams[0];

		tear_down(state);
		set_up(state);
		memcpy(f, get, sizeof(get));
		f[4] = bad[i];
		*s = (struct stream){ .end = &client };
		assert_int_equal(h2_mux_open(client.m, s, f, 5, true), 1);
		talk(16384);
		assert_null(strstr(server.heard, "request"));
		assert_string_equal(server.heard, ":method=GET :scheme=http :path=/ :authority=a.example ");
		assert_true(s->closed);
		assert_int_not_equal(s->code, 0);
	}
}

static void draining(void **state)
{
	struct stream *s = ask(0), *late;

	talk(16384);
	h2_mux_drain(server.m);
	talk(16384);
	assert_false(h2_mux_over(server.m));
	late = &client.streams[client.n++];
	*late = (struct stream){ .end = &client };
	h2_mux_open(client.m, late, get, 4, true);
	talk(16384);
	assert_true(late->closed);
	assert_int_equal(server.n, 1);
	h2_mux_answer(server.m, s->id, ok, 1, true);
	talk(16384);
	assert_ended(s, 0);
	assert_true(h2_mux_over(server.m) && h2_mux_over(client.m));
	assert_false(h2_mux_broken(server.m) || h2_mux_broken(client.m));
}

static void the_end(void **state)
{
	struct stream *s = ask(BODY);

	s->hold = true;
	talk(16384);
	h2_mux_goaway(server.m, H2_NO_ERROR);
	assert_true(h2_mux_over(server.m));
	assert_false(h2_mux_broken(server.m));
	talk(16384);
	h2_mux_input(server.m, (const uint8_t *)"nonsense", 8); /* thrown away */
	assert_int_equal(h2_mux_output(server.m, (uint8_t[16]){ 0 }, 16), 0);
}

static void raw(const char *bytes, size_t len, int times)
{
	while (times-- > 0)
		h2_mux_input(server.m, (const uint8_t *)bytes, len);
}

static void what_moves_nothing_counts(void **state)
{
	static const char preface[] = H2_PREFACE "\0\0\0\4\0\0\0\0";
	char unknown[9 + 16000] = { 0, 0x3e, (char)0x80, 0x6e };

	raw(preface, sizeof(preface), 1);
	assert_int_equal(h2_mux_take_glitches(server.m), 1);
	assert_int_equal(h2_mux_take_glitches(server.m), 0);
	raw("\0\0\x08\6\0\0\0\0\0" "12345678", 17, 100);
	assert_int_equal(h2_mux_take_glitches(server.m), 100);
	raw(unknown, sizeof(unknown), 10);
	assert_in_range(h2_mux_take_glitches(server.m), 10 * 16000 / 32 - 64, 10 * 16009 / 32);
	assert_false(h2_mux_over(server.m));
}

static void other_protocols(void **state)
{
	raw("GET / HTTP/1.1\r\n\r\n", 18, 1);
	assert_true(h2_mux_over(server.m) && h2_mux_broken(server.m));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(request_and_answer), T(bodies_in_pieces), T(interim_answers_come_before), T(trailers_end_both_ways), T(waits_until_woken), T(either_side_resets),
		T(a_stream_is_refused), T(streams_at_once), T(credit_by_hand), T(one_stream_stalls_alone), T(too_many_fields), T(fields_that_are_none), T(draining),
		T(the_end), T(what_moves_nothing_counts), T(other_protocols),
		T(no_memory_makes_no_whole_of_a_part),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

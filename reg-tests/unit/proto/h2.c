/* The layer over nghttp2: header fields, hello frames in pieces, order of what is sent, streams that end in odd moments, limits. */
#include "proto/h2.c"

#include "../failing.h"
#include "../tunnel/pair.h"

static struct side hub, agent;

static int fresh(void **state)
{
	pass_ms(10);
	side_open(&hub, H2_HUB, true, 100);
	side_open(&agent, H2_AGENT, true, 100);
	settle_pair(&hub, &agent);
	return 0;
}

static int over(void **state)
{
	side_close(&hub);
	side_close(&agent);
	return nothing_left(state);
}

static int32_t ask(void)
{
	struct h2_fields f = {.service = "web", .session = "00112233445566778899aabbccddeeff"};
	return h2_connect(hub.raw, &f, &hub);
}

static void opened(void)
{
	struct h2_fields ok = {.status = 200};
	hub.stream = ask();
	settle_pair(&hub, &agent);
	assert_int_equal(agent.stream, hub.stream);
	assert_int_equal(h2_answer(agent.raw, agent.stream, &ok, false), 0);
	settle_pair(&hub, &agent);
	assert_int_equal(hub.answers, 1);
}

static void test_fields_arrive(void **state)
{
	struct h2_fields f = {.service = "web", .session = "00112233445566778899aabbccddeeff", .client = "[2001:db8::1]:80", .local = "/run/x.sock", .listener = "front",
			      .sni = "www.example.com", .alpn = "http/1.1", .resume = true, .epoch = UINT32_MAX, .has_offset = true, .offset = INT64_MAX, .fin = true};
	h2_connect(hub.raw, &f, &hub);
	settle_pair(&hub, &agent);
	assert_memory_equal(&agent.f, &f, sizeof f);
	struct h2_fields a = {.status = 503, .reason = "agent_full", .target = "192.0.2.1:80", .has_offset = true, .offset = 7};
	assert_int_equal(h2_answer(agent.raw, agent.stream, &a, true), 0);
	settle_pair(&hub, &agent);
	assert_memory_equal(&hub.f, &a, sizeof a);
	assert_true(hub.fin);
}

/* A reset queued with a refusal would overtake it; a refused stream is closed on both sides all the same. */
static void test_refusal_comes_before_its_reset(void **state)
{
	hub.stream = ask();
	settle_pair(&hub, &agent);
	struct h2_fields a = {.status = 404, .reason = "no_service"};
	assert_int_equal(h2_answer(agent.raw, agent.stream, &a, true), 0);
	settle_pair(&hub, &agent);
	assert_int_equal(hub.answers, 1);
	assert_int_equal(hub.resets, 1);
	assert_int_equal(hub.reset_code, 0);
	assert_false(h2_stream_open(hub.raw, hub.stream) || h2_stream_open(agent.raw, agent.stream));
}

static void test_long_fields_are_refused(void **state)
{
	struct h2_fields f = {.service = "web"};
	memset(f.client, 'x', sizeof f.client - 1);
	h2_connect(hub.raw, &f, &hub);
	settle_pair(&hub, &agent);
	assert_int_equal(agent.requests, 1);
	char big[300];
	memset(big, 'x', sizeof big - 1);
	big[sizeof big - 1] = 0;
	nghttp2_nv nv[] = {make_nv(":method", "CONNECT", true), make_nv(":authority", "web", true), make_nv("mct-client", big, false)};
	nghttp2_submit_request(hub.raw->ng, NULL, nv, 3, NULL, &hub);
	settle_pair(&hub, &agent);
	assert_int_equal(agent.requests, 1);
	assert_int_equal(hub.reset_code, NGHTTP2_PROTOCOL_ERROR);
}

static void test_bad_numbers_are_refused(void **state)
{
	static const char *const bad[][2] = {{"mct-resume", "-1"}, {"mct-resume", "4294967296"}, {"mct-offset", "9223372036854775808"}, {"mct-offset", ""},
					     {"mct-offset", "1x"}};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		nghttp2_nv nv[] = {make_nv(":method", "CONNECT", true), make_nv(":authority", "web", true), make_nv(bad[i][0], bad[i][1], false)};
		nghttp2_submit_request(hub.raw->ng, NULL, nv, 3, NULL, &hub);
		settle_pair(&hub, &agent);
		assert_int_equal(hub.resets, i + 1);
	}
	assert_int_equal(agent.requests, 0);
}

static void test_other_methods_are_refused(void **state)
{
	nghttp2_nv nv[] = {make_nv(":method", "GET", true), make_nv(":authority", "web", true), make_nv(":scheme", "https", true), make_nv(":path", "/", true)};
	nghttp2_submit_request(hub.raw->ng, NULL, nv, 4, NULL, &hub);
	settle_pair(&hub, &agent);
	assert_int_equal(agent.requests, 0);
	assert_int_equal(hub.resets, 1);
}

/* ---- hello frames ---- */

static void hello_of(size_t len, struct side *from, struct side *to)
{
	char *json = malloc(len + 1);
	for (size_t i = 0; i < len; i++)
		json[i] = (char)('a' + i % 23);
	h2_hello(from->raw, H2_FRAME_AGENT, json, len);
	settle_pair(&hub, &agent);
	assert_int_equal(to->hello_len, len);
	assert_memory_equal(to->hello, json, len);
	free(json);
}

static void test_hello_in_pieces(void **state)
{
	static const size_t sizes[] = {0, 1, 15999, 16000, 16001, 40000, 256 << 10};
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		hello_of(sizes[i], &agent, &hub);
		hello_of(sizes[i], &hub, &agent);
		assert_int_equal(hub.hellos, i + 1);
	}
}

static void test_hello_too_large(void **state)
{
	char *json = calloc(1, (256 << 10) + 1);
	h2_hello(agent.raw, H2_FRAME_AGENT, json, (256 << 10) + 1);
	free(json);
	settle_pair(&hub, &agent);
	assert_int_equal(hub.hellos, 0);
	assert_int_equal(h2_input(hub.raw, (const uint8_t *)"", 0), -1);
	assert_string_equal(h2_error(hub.raw), "hello frame is larger than 256 KiB");
}

/* All that a link does, the Nth allocation failing. Whether one failed. */
static bool exchange_without_memory(unsigned n)
{
	struct h2_fields ok = {.status = 200};
	bool failed;
	hub.send = 40000;
	failing = n;
	h2_hello(agent.raw, H2_FRAME_AGENT, "{}", 2);
	hub.stream = ask();
	settle_pair(&hub, &agent);
	if (agent.requests)
		(void)h2_answer(agent.raw, agent.stream, &ok, false);
	settle_pair(&hub, &agent);
	hub.send = 10;
	h2_wake(hub.raw, hub.stream);
	h2_credit(agent.raw, agent.stream, 40000);
	h2_ping(hub.raw, 1);
	settle_pair(&hub, &agent);
	h2_reset(hub.raw, hub.stream, 1);
	settle_pair(&hub, &agent);
	failed = has_failed();
	for (int i = 0; i < 2; i++) {
		struct h2 *h = i ? agent.raw : hub.raw;
		if (h2_starved(h))
			assert_string_equal(h2_error(h), "out of memory");
		else
			assert_int_equal(h2_input(h, (const uint8_t *)"", 0), 0);
	}
	if (h2_starved(hub.raw) || h2_starved(agent.raw) || hub.stream < 0) {
		assert_true(failed);
		return true;
	}
	assert_int_equal(hub.hellos, 1);
	assert_int_equal(hub.answers, 1);
	assert_int_equal(hub.credit, 40000);
	assert_int_equal(hub.pongs, 1);
	assert_int_equal(agent.got, 40010);
	assert_int_equal(agent.resets, 1);
	return failed;
}

static void test_no_memory_is_not_the_peers_fault(void **state)
{
	unsigned n = 1;
	while (exchange_without_memory(n)) {
		n++;
		over(state);
		fresh(state);
	}
	assert_true(n > 15);
}

static void test_hello_never_sent(void **state)
{
	char *json = calloc(1, 100000);
	h2_hello(agent.raw, H2_FRAME_AGENT, json, 100000); /* freed with the h2 */
	free(json);
	uint8_t out[32768];
	assert_int_equal(h2_flat(agent.raw, out, sizeof out), sizeof out);
}

/* ---- data ---- */

static void test_frames_are_full_and_fit(void **state)
{
	static uint8_t out[40000];
	opened();
	hub.send = 100000;
	h2_wake(hub.raw, hub.stream);
	while (h2_wants_output(hub.raw)) {
		ssize_t n = h2_flat(hub.raw, out, sizeof out); /* two frames; what is left of the room is not filled with a short one */
		assert_true(n == 2 * 16384 || hub.send == 0);
		count_frames(&hub.sent, out, (size_t)n);
		assert_true(side_input(&agent, out, (size_t)n));
	}
	assert_int_equal(hub.sent.longest, H2_DATA_MAX);
	assert_int_equal(hub.sent.n[DATA], (100000 + H2_DATA_MAX - 1) / H2_DATA_MAX);
	assert_int_equal(agent.got, 100000);
}

/* Bytes of the output; *pointed: how many of them stayed where they lay. */
static size_t sum_of(const struct h2_sink *k, size_t *pointed)
{
	size_t sum = 0;
	*pointed = 0;
	for (int i = 0; i < k->n; i++) {
		const uint8_t *at = k->iov[i].iov_base;
		bool copied = at >= k->buf && at < k->buf + k->size;
		assert_true(copied || (at == raw_bytes && k->iov[i].iov_len >= WORTH_POINTING));
		assert_true(k->iov[i].iov_len > 0);
		*pointed += copied ? 0 : k->iov[i].iov_len;
		sum += k->iov[i].iov_len;
	}
	return sum;
}

static void pass_on(const struct h2_sink *k)
{
	for (int i = 0; i < k->n; i++) {
		count_frames(&hub.sent, k->iov[i].iov_base, k->iov[i].iov_len);
		assert_true(side_input(&agent, k->iov[i].iov_base, k->iov[i].iov_len));
	}
}

/* Sends 300000 bytes in outputs of at most so many pieces; returns how many of them stayed where they lay. */
static size_t gather_all(uint32_t row, int max)
{
	static uint8_t out[256 << 10];
	struct iovec iov[32];
	size_t pointed, all = 0;
	hub.send = 300000;
	hub.sent.longest = 0;
	h2_row(hub.raw, row);
	h2_wake(hub.raw, hub.stream);
	while (h2_wants_output(hub.raw)) {
		struct h2_sink k = {.buf = out, .size = sizeof out, .iov = iov, .max = max};
		ssize_t n = h2_output(hub.raw, &k);
		assert_int_equal(sum_of(&k, &pointed), n);
		assert_true(k.n <= max && (size_t)n <= sizeof out);
		all += pointed;
		pass_on(&k);
	}
	assert_int_equal(hub.sent.longest, row);
	settle_pair(&hub, &agent);
	return all;
}

static void test_bytes_stay_where_they_lie(void **state)
{
	opened();
	assert_true(gather_all(H2_BULK_MAX, 32) > 200000);
	assert_int_equal(agent.got, 300000);
	assert_in_range(gather_all(4 * H2_DATA_MAX, 6), 1, 60000); /* few pieces: the others are copied */
	assert_int_equal(gather_all(H2_DATA_MAX, 2), 0);
	assert_int_equal(agent.got, 900000);
}

/* As many full pieces as the windows, the room and the peer's largest frame let pass. */
static void test_length_of_a_frame(void **state)
{
	struct h2 h = {.row = H2_BULK_MAX, .room = 1 << 20};
	assert_int_equal(data_length(NULL, 0, 1, INT32_MAX, INT32_MAX, 1 << 20, &h), H2_BULK_MAX);
	assert_int_equal(data_length(NULL, 0, 1, INT32_MAX, INT32_MAX, 16384, &h), H2_DATA_MAX); /* who has not said that it takes more */
	assert_int_equal(data_length(NULL, 0, 1, INT32_MAX, INT32_MAX, 65536, &h), 4 * H2_DATA_MAX);
	assert_int_equal(data_length(NULL, 0, 1, INT32_MAX, 1000, 1 << 20, &h), 1000);
	assert_int_equal(data_length(NULL, 0, 1, 999, 1000, 1 << 20, &h), 999);
	h.room = 3 * H2_DATA_MAX + 9;
	assert_int_equal(data_length(NULL, 0, 1, INT32_MAX, INT32_MAX, 1 << 20, &h), 3 * H2_DATA_MAX);
	h.room = 10;
	assert_int_equal(data_length(NULL, 0, 1, INT32_MAX, INT32_MAX, 1 << 20, &h), H2_DATA_MAX); /* waits for the next output */
}

static void test_stream_ends_while_output_is_full(void **state)
{
	uint8_t out[32768];
	opened();
	hub.send = 100000;
	h2_wake(hub.raw, hub.stream);
	ssize_t n = h2_flat(hub.raw, out, sizeof out);
	assert_true(side_input(&agent, out, (size_t)n));
	h2_bind(hub.raw, hub.stream, NULL);
	h2_reset(hub.raw, hub.stream, 77);
	settle_pair(&hub, &agent);
	assert_int_equal(agent.reset_code, 77);
	assert_int_equal(agent.resets, 1);
	assert_int_equal(hub.send, 100000 - 2 * H2_DATA_MAX);
}

static void test_window_closes_and_opens(void **state)
{
	opened();
	hub.send = 5 << 20;
	h2_wake(hub.raw, hub.stream);
	settle_pair(&hub, &agent);
	assert_int_equal(agent.got, H2_STREAM_WINDOW);
	h2_credit(agent.raw, agent.stream, 1000);
	settle_pair(&hub, &agent);
	assert_int_equal(agent.got, H2_STREAM_WINDOW + 1000);
	assert_int_equal(hub.credit, 1000);
	h2_credit(agent.raw, agent.stream, H2_STREAM_WINDOW);
	settle_pair(&hub, &agent);
	assert_int_equal(agent.got, 5 << 20);
}

/* Only the stream's own window may close: the connection's is kept open whatever its streams do. */
static void test_connection_window_stays_open(void **state)
{
	opened();
	unsigned before = agent.sent.n[CREDIT];
	for (unsigned i = 0; i < 300; i++) {
		hub.send = H2_STREAM_WINDOW;
		h2_wake(hub.raw, hub.stream);
		settle_pair(&hub, &agent);
		h2_credit(agent.raw, agent.stream, H2_STREAM_WINDOW);
		settle_pair(&hub, &agent);
	}
	assert_int_equal(agent.got, 300ull * H2_STREAM_WINDOW);
	assert_int_equal(agent.sent.n[CREDIT], before + 301); /* half of its 2 GiB was used, and given back */
}

/* ---- odd moments ---- */

static void test_unsent_request_is_cancelled(void **state)
{
	int32_t id = ask();
	h2_bind(hub.raw, id, NULL);
	h2_reset(hub.raw, id, 5);
	settle_pair(&hub, &agent);
	assert_int_equal(agent.requests, 0);
	assert_int_equal(ask(), id + 2);
	settle_pair(&hub, &agent);
	assert_int_equal(agent.requests, 1);
}

static void test_calls_on_closed_streams(void **state)
{
	opened();
	h2_reset(hub.raw, hub.stream, 1);
	settle_pair(&hub, &agent);
	h2_wake(hub.raw, hub.stream);
	h2_credit(hub.raw, hub.stream, 10);
	h2_bind(hub.raw, hub.stream, &hub);
	h2_bind(agent.raw, agent.stream, NULL);
	h2_credit(agent.raw, agent.stream, 10);
	h2_reset(agent.raw, agent.stream, 1);
	struct h2_fields ok = {.status = 200};
	assert_int_equal(h2_answer(agent.raw, agent.stream, &ok, false), -1);
	settle_pair(&hub, &agent);
	assert_false(h2_stream_open(hub.raw, 0));
	assert_int_equal(ask(), hub.stream + 2);
	settle_pair(&hub, &agent);
	assert_int_equal(agent.requests, 2);
}

static void test_resets_are_no_flood(void **state)
{
	for (unsigned i = 0; i < 5000; i++) {
		int32_t id = ask();
		assert_true(id > 0);
		settle_pair(&hub, &agent);
		h2_reset(hub.raw, id, 1);
		settle_pair(&hub, &agent);
	}
	assert_int_equal(agent.resets, 5000);
	assert_int_equal(hub.goaways, 0);
	assert_true(h2_take_glitches(agent.raw) < 5);
}

static void test_glitches_are_counted(void **state)
{
	h2_take_glitches(agent.raw);
	for (unsigned i = 1; i <= 10; i++)
		h2_ping(hub.raw, i);
	settle_pair(&hub, &agent);
	assert_int_equal(hub.pongs, 10);
	assert_int_equal(h2_take_glitches(agent.raw), 10);
	assert_int_equal(h2_take_glitches(agent.raw), 0);
}

static void test_violations_break(void **state)
{
	static const uint8_t data_on_idle[] = {0, 0, 1, 0, 0, 0, 0, 0, 99, 'x'}, too_long[] = {0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1};
	opened();
	(void)side_input(&agent, data_on_idle, sizeof data_on_idle);
	settle_pair(&hub, &agent);
	assert_int_equal(hub.goaways, 1); /* it is told ... */
	uint8_t out[32768];
	assert_int_equal(h2_flat(agent.raw, out, sizeof out), -1); /* ... and then it is over */
	(void)side_input(&hub, too_long, sizeof too_long);
	while (h2_flat(hub.raw, out, sizeof out) > 0)
		;
	assert_int_equal(h2_flat(hub.raw, out, sizeof out), -1);
}

static void test_drain(void **state)
{
	opened();
	h2_drain(agent.raw, "draining");
	settle_pair(&hub, &agent);
	assert_int_equal(hub.goaways, 1);
	assert_int_equal(hub.hellos, 0);
	assert_true(ask() > 0); /* whoever hears it decides */
}

static void test_goaway_lets_streams_end(void **state)
{
	opened();
	h2_goaway(agent.raw, 0, "draining");
	settle_pair(&hub, &agent);
	assert_false(h2_can_connect(hub.raw));
	assert_int_equal(ask(), -1);
	hub.send = 100;
	h2_wake(hub.raw, hub.stream);
	settle_pair(&hub, &agent);
	assert_int_equal(agent.got, 100);
}

static void test_stream_limit(void **state)
{
	assert_int_equal(h2_max_streams(hub.raw), 100);
	while (h2_can_connect(hub.raw) && agent.requests < 100) {
		ask();
		settle_pair(&hub, &agent);
	}
	assert_int_equal(agent.requests, 100);
	assert_int_equal(hub.goaways, 0);
}

static void test_freed_with_streams(void **state)
{
	opened();
	hub.send = 100000;
	h2_wake(hub.raw, hub.stream);
	ask();
}

#define T(f) cmocka_unit_test_setup_teardown(f, fresh, over)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		T(test_fields_arrive),
		T(test_refusal_comes_before_its_reset),
		T(test_long_fields_are_refused),
		T(test_bad_numbers_are_refused),
		T(test_other_methods_are_refused),
		T(test_hello_in_pieces),
		T(test_hello_too_large),
		T(test_hello_never_sent),
		T(test_no_memory_is_not_the_peers_fault),
		T(test_frames_are_full_and_fit),
		T(test_bytes_stay_where_they_lie),
		T(test_length_of_a_frame),
		T(test_stream_ends_while_output_is_full),
		T(test_window_closes_and_opens),
		T(test_connection_window_stays_open),
		T(test_unsent_request_is_cancelled),
		T(test_calls_on_closed_streams),
		T(test_resets_are_no_flood),
		T(test_glitches_are_counted),
		T(test_violations_break),
		T(test_drain),
		T(test_goaway_lets_streams_end),
		T(test_stream_limit),
		T(test_freed_with_streams),
	};
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

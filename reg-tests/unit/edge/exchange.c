/* One request and its answer between a socket and a session made of two buffers, cut in every way. */
#include "edge/exchange.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define ROOM (1u << 20)

/* A session without a link: `up` is what the exchange put in, `down` what it shall pass on, in pieces of `piece` bytes. */
struct session {
	char up[ROOM], down[ROOM];
	size_t up_len, up_max, down_len, down_at, piece;
	bool fin, down_fin;
};

static struct {
	struct session s;
	struct exchange x;
	struct spill in, out;
	int peer; /* the client's end */
	char got[ROOM];
	size_t got_len;
} t;

int session_reserve(struct session *s, struct iovec *iov, int max)
{
	size_t room = s->up_max - s->up_len, first = room < 7 ? room : 7;

	assert_true(max >= 2);
	if (room == 0)
		return 0;
	iov[0] = (struct iovec){ s->up + s->up_len, first };
	iov[1] = (struct iovec){ s->up + s->up_len + first, room - first };
	return room > first ? 2 : 1;
}

void session_commit(struct session *s, size_t n)
{
	s->up_len += n;
	assert_true(s->up_len <= s->up_max);
}

void session_fin(struct session *s)
{
	s->fin = true;
}

int session_peek(const struct session *s, struct iovec *iov, int max)
{
	size_t at = s->down_at;
	int n = 0;

	for (; at < s->down_len && n < max; n++) {
		size_t len = s->down_len - at < s->piece ? s->down_len - at : s->piece;

		iov[n] = (struct iovec){ (char *)(uintptr_t)s->down + at, len };
		at += len;
	}
	return n;
}

void session_consume(struct session *s, size_t n)
{
	s->down_at += n;
	assert_true(s->down_at <= s->down_len);
}

bool session_ended(const struct session *s)
{
	return s->down_fin && s->down_at == s->down_len;
}

static void nobody(struct conn *c)
{
}

/* request: its head, as the client sent it; what the target gets is the same. */
static void begin(const char *request, size_t room)
{
	static struct http1_head head;
	static char method[HTTP1_METHOD_MAX + 1];
	struct http1_error err;
	int fds[2];

	memset(&t, 0, sizeof(t));
	assert_int_equal(http1_request(&head, request, strlen(request), 8192, &err), strlen(request));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	t.peer = fds[1];
	t.s.up_max = room;
	t.s.piece = ROOM;
	memcpy(method, head.method.at, head.method.len);
	method[head.method.len] = '\0';
	t.x = (struct exchange){ .c = conn_tcp(fds[0], nobody, NULL), .in = &t.in, .out = &t.out, .method = method, .keep = head.keep_alive, .old = head.minor == 0,
				 .upgrade = head.upgrade, .head = request, .head_len = (uint32_t)strlen(request), .s = &t.s,
				 .up_series = series_of(BYTES, "l", "t", "s", "up"), .down_series = series_of(BYTES, "l", "t", "s", "down") };
	http1_body_begin(&t.x.body, &head);
	loop_turn(0);
}

static void end(void)
{
	exchange_fini(&t.x);
	spill_drop(&t.in);
	spill_drop(&t.out);
	conn_abort(t.x.c);
	close(t.peer);
	loop_turn(0);
}

static void client_says(const char *text, size_t n)
{
	assert_int_equal(write(t.peer, text, n), n);
	loop_turn(0);
}

static void target_says(const char *text, size_t n)
{
	memcpy(t.s.down + t.s.down_len, text, n);
	t.s.down_len += n;
}

static void client_reads(void)
{
	ssize_t n;

	while ((n = read(t.peer, t.got + t.got_len, sizeof(t.got) - t.got_len - 1)) > 0)
		t.got_len += (size_t)n;
	loop_turn(0);
}

static enum exchange_outcome run(void)
{
	enum exchange_outcome o = exchange_run(&t.x);

	client_reads();
	return o;
}

#define GET "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
#define POST "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
#define CHUNKS "5;x=y\r\nhello\r\na\r\n0123456789\r\n0\r\nX-Sum: 6\r\n\r\n"
#define NEXT "GET /next HTTP/1.1\r\n"
#define OK "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"

static void a_body_ends_where_the_next_request_begins(void **state)
{
	for (size_t cut = 0; cut <= strlen(CHUNKS NEXT); cut++) {
		begin(POST, ROOM);
		client_says(CHUNKS NEXT, cut);
		assert_int_equal(run(), EXCHANGE_WAITS);
		client_says(&CHUNKS NEXT[cut], strlen(CHUNKS NEXT) - cut);
		assert_int_equal(run(), EXCHANGE_WAITS);
		assert_true(t.x.body.done);
		assert_int_equal(t.s.up_len, strlen(POST CHUNKS));
		assert_memory_equal(t.s.up, POST CHUNKS, t.s.up_len);
		if (t.in.buf) /* else it is still in the socket */
			assert_memory_equal(t.in.buf + t.in.at, NEXT, spill_left(&t.in));
		end();
	}
}

static void what_came_along_waits_for_room(void **state)
{
	begin(POST, 0);
	assert_true(spill_keep(&t.in, CHUNKS NEXT, strlen(CHUNKS NEXT)));
	while (!t.x.body.done) {
		t.s.up_max += 3;
		assert_int_equal(run(), EXCHANGE_WAITS);
		assert_true(t.s.up_max < 1000);
	}
	assert_int_equal(t.s.up_len, strlen(POST CHUNKS));
	assert_memory_equal(t.s.up, POST CHUNKS, t.s.up_len);
	assert_int_equal(spill_left(&t.in), strlen(NEXT));
	end();
}

static void a_malformed_body_is_the_clients_fault(void **state)
{
	begin(POST, ROOM);
	client_says("5\r\nhelloX", 9);
	assert_int_equal(run(), EXCHANGE_FAILED);
	assert_int_equal(t.x.why, REASON_BAD_REQUEST);
	assert_int_equal(t.x.refusal, 400);
	end();
	begin(POST, ROOM);
	client_says("5\r\nhel", 6);
	assert_int_equal(run(), EXCHANGE_WAITS);
	shutdown(t.peer, SHUT_WR);
	loop_turn(0);
	assert_int_equal(run(), EXCHANGE_FAILED);
	assert_int_equal(t.x.why, REASON_CLIENT_RESET);
	end();
}

/* The answer in two parts, cut at each byte, and each part in small pieces. */
static void check_answer(const char *text, const char *want, enum exchange_outcome outcome, bool ends)
{
	for (size_t piece = 1; piece < 40; piece = piece * 3 + 1) {
		for (size_t cut = 0; cut <= strlen(text); cut++) {
			enum exchange_outcome o;

			begin(GET, ROOM);
			t.s.piece = piece;
			target_says(text, cut);
			o = run();
			if (o == EXCHANGE_WAITS) {
				target_says(text + cut, strlen(text) - cut);
				t.s.down_fin = ends;
				o = run();
			}
			assert_int_equal(o, outcome);
			t.got[t.got_len] = '\0';
			if (spill_write(&t.out, t.x.c) == 0)
				client_reads();
			if (want)
				assert_string_equal(t.got, want);
			end();
		}
	}
}

static void answers_come_in_any_pieces(void **state)
{
	check_answer(OK "body", OK "body", EXCHANGE_DONE, false);
	check_answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" CHUNKS, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" CHUNKS, EXCHANGE_DONE, false);
	check_answer("HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" OK "body", "HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" OK "body", EXCHANGE_DONE, false);
	check_answer("HTTP/1.1 304 Not\r\nContent-Length: 9\r\n\r\n", "HTTP/1.1 304 Not\r\nContent-Length: 9\r\n\r\n", EXCHANGE_DONE, false);
	check_answer("HTTP/1.1 200 OK\r\n\r\nuntil the end", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end", EXCHANGE_DONE, true);
}

static void answers_that_are_none_fail(void **state)
{
	check_answer("SSH-2.0-x\r\n", NULL, EXCHANGE_FAILED, false);
	check_answer("HTTP/1.1 101 Go\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "", EXCHANGE_FAILED, false);
	check_answer(OK "bod", NULL, EXCHANGE_FAILED, true);
	check_answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX", NULL, EXCHANGE_FAILED, false);
	check_answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", NULL, EXCHANGE_FAILED, true);
}

static void more_than_was_asked_is_not_passed_on(void **state)
{
	begin(GET, ROOM);
	target_says(OK "bodyHTTP/1.1 200 poison", strlen(OK "bodyHTTP/1.1 200 poison"));
	assert_int_equal(run(), EXCHANGE_DONE);
	assert_int_equal(t.got_len, strlen(OK "body"));
	assert_true(exchange_whole(&t.x));
	assert_false(exchange_reusable(&t.x));
	end();
	begin(GET, ROOM);
	target_says(OK "body", strlen(OK "body"));
	assert_int_equal(run(), EXCHANGE_DONE);
	assert_true(exchange_reusable(&t.x));
	end();
}

static void an_answer_before_the_bodys_end_is_the_last(void **state)
{
	begin(POST, ROOM);
	client_says("5\r\nhe", 5);
	target_says(OK "body", strlen(OK "body"));
	assert_int_equal(run(), EXCHANGE_DONE);
	assert_true(t.x.closing && t.x.lingering);
	assert_false(exchange_whole(&t.x));
	assert_non_null(strstr(t.got, "Connection: close\r\n"));
	end();
}

static void old_clients_get_no_chunks(void **state)
{
	for (size_t piece = 1; piece < 60; piece++) {
		begin("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", ROOM);
		t.s.piece = piece;
		target_says("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" CHUNKS,
			    strlen("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" CHUNKS));
		assert_int_equal(run(), EXCHANGE_DONE);
		assert_int_equal(spill_write(&t.out, t.x.c), 0);
		client_reads();
		assert_string_equal(t.got, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello0123456789");
		end();
	}
}

static void a_client_that_does_not_read_holds_the_target_back(void **state)
{
	size_t had = 0;
	enum exchange_outcome o = EXCHANGE_WAITS;

	begin(GET, ROOM);
	t.s.piece = 16384;
	t.s.down_len = (size_t)snprintf(t.s.down, ROOM, "HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n");
	memset(t.s.down + t.s.down_len, 'x', 900000);
	t.s.down_len += 900000;
	assert_int_equal(exchange_run(&t.x), EXCHANGE_WAITS);
	assert_true(t.s.down_at < 900000);
	assert_true(spill_left(&t.out) == 0);
	while (o == EXCHANGE_WAITS) {
		client_reads();
		assert_true(t.got_len > had);
		had = t.got_len;
		o = exchange_run(&t.x);
	}
	client_reads();
	assert_int_equal(o, EXCHANGE_DONE);
	assert_int_equal(t.got_len, t.s.down_len);
	end();
}

static void an_upgrade_is_opaque_until_both_have_ended(void **state)
{
	static const char go[] = "HTTP/1.1 101 Go\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n";

	begin("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", ROOM);
	assert_true(spill_keep(&t.in, "early", 5));
	assert_int_equal(run(), EXCHANGE_WAITS);
	assert_int_equal(t.s.up_len, t.x.head_len); /* not before the answer */
	target_says(go, strlen(go));
	target_says("down", 4);
	client_says("late", 4);
	assert_int_equal(run(), EXCHANGE_WAITS);
	assert_true(exchange_opaque(&t.x));
	assert_int_equal(t.s.up_len, t.x.head_len + 9);
	assert_memory_equal(t.s.up + t.x.head_len, "earlylate", 9);
	assert_string_equal(t.got + strlen(go), "down");
	shutdown(t.peer, SHUT_WR);
	loop_turn(0);
	assert_int_equal(run(), EXCHANGE_WAITS);
	assert_true(t.s.fin && t.x.in_ended);
	t.s.down_fin = true;
	assert_int_equal(run(), EXCHANGE_DONE);
	end();
}

static int set_up(void **state)
{
	loop_init();
	exchange_init();
	return 0;
}

static int tear_down(void **state)
{
	exchange_thread_fini();
	loop_fini();
	mem_drain();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_body_ends_where_the_next_request_begins),
		cmocka_unit_test(what_came_along_waits_for_room),
		cmocka_unit_test(a_malformed_body_is_the_clients_fault),
		cmocka_unit_test(answers_come_in_any_pieces),
		cmocka_unit_test(answers_that_are_none_fail),
		cmocka_unit_test(more_than_was_asked_is_not_passed_on),
		cmocka_unit_test(an_answer_before_the_bodys_end_is_the_last),
		cmocka_unit_test(old_clients_get_no_chunks),
		cmocka_unit_test(a_client_that_does_not_read_holds_the_target_back),
		cmocka_unit_test(an_upgrade_is_opaque_until_both_have_ended),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}

/* The HTTP server over loopback: pages at once and in pieces, and visitors that misbehave. */
#define _GNU_SOURCE
#include "admin/http.c"

#include "mctunnel/base/addr.h"

#include "../failing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static bool is_ready;
static int listener;
static struct addr at;

/* Pages of the test. */

static size_t pieces, piece_size, begun;

static int health_page(FILE *f)
{
	fputs("ok\n", f);
	return 200;
}

static int root_page(FILE *f)
{
	fputs("<h1>mctunnel", f);
	return is_ready ? 200 : 503;
}

static const char *policy(void)
{
	return "default-src 'self'";
}

static void *begin(void)
{
	size_t *left = malloc(sizeof(*left));

	if (!left)
		return NULL;
	*left = pieces;
	begun++;
	return left;
}

static bool more(void *job, FILE *f)
{
	size_t *left = job;

	for (size_t i = 0; i < piece_size; i++)
		fputc('a' + (int)(*left % 26), f);
	return --*left > 0;
}

static void end(void *job)
{
	begun--;
	free(job);
}

static const struct http_page pages[] = {
	{ .path = "/", .type = "text/html; charset=utf-8", .make = root_page, .policy = policy },
	{ .path = "/healthz", .type = "text/plain", .make = health_page },
	{ .path = "/metrics", .type = "text/plain", .begin = begin, .more = more, .end = end },
};

static int set_up(void **s)
{
	struct endpoint e;
	char err[200];

	is_ready = true;
	pieces = 3;
	piece_size = 1000;
	loop_init();
	assert_int_equal(endpoint_parse(&e, "127.0.0.1:0", ENDPOINT_BIND, err, sizeof(err)), 0);
	listener = sock_listen(&e, err, sizeof(err));
	endpoint_fini(&e);
	assert_true(listener >= 0);
	sock_local(listener, &at);
	http_init(pages, sizeof(pages) / sizeof(pages[0]));
	assert_int_equal(http_open(listener), 0);
	return 0;
}

static int tear_down(void **s)
{
	struct mem_usage u;

	http_close();
	assert_int_equal(begun, 0);
	close(listener);
	loop_fini();
	mem_usage(MEM_OTHER, &u);
	assert_int_equal(u.used, 0);
	mem_usage(MEM_CONN, &u);
	assert_int_equal(u.used, 0);
	mem_drain();
	return 0;
}

static int visit(void)
{
	int fd = sock_connect(&at);

	assert_true(fd >= 0);
	return fd;
}

static void say(int fd, const void *data, size_t len)
{
	for (size_t at_byte = 0; at_byte < len;) {
		ssize_t n = send(fd, (const char *)data + at_byte, len - at_byte, MSG_NOSIGNAL);

		assert_true(n > 0 || errno == EAGAIN);
		at_byte += n > 0 ? (size_t)n : 0;
		loop_turn(0);
	}
}

/* Everything that comes until the end, which must be a clean one. */
static char *hear(int fd)
{
	static char text[65536];
	size_t len = 0;

	for (int turns = 0; turns < 1000; turns++) {
		ssize_t n = recv(fd, text + len, sizeof(text) - 1 - len, 0);

		assert_true(n >= 0 || errno == EAGAIN);
		if (n == 0) {
			text[len] = '\0';
			close(fd);
			loop_turn(0);
			return text;
		}
		len += n > 0 ? (size_t)n : 0;
		loop_turn(n > 0 ? 0 : 1);
	}
	fail_msg("no end of the answer");
	return NULL;
}

static char *get(const char *request)
{
	int fd = visit();

	say(fd, request, strlen(request));
	return hear(fd);
}

static void starts_with(const char *text, const char *start)
{
	if (strncmp(text, start, strlen(start)) != 0)
		fail_msg("'%.60s' does not start with '%s'", text, start);
}

static void has(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("'%s' lacks '%s'", text, part);
}

static const char *body(const char *answer)
{
	const char *end = strstr(answer, "\r\n\r\n");

	assert_non_null(end);
	return end + 4;
}

static void wait_for_visits(unsigned n)
{
	for (int i = 0; i < 1000 && web.visits_n != n; i++)
		loop_turn(1);
	assert_int_equal(web.visits_n, n);
}

static void pieces_in_chunks(void **s)
{
	const char *a = get("GET /metrics HTTP/1.1\r\n\r\n"), *b = body(a);

	starts_with(a, "HTTP/1.1 200 OK\r\n");
	has(a, "Transfer-Encoding: chunked\r\n");
	assert_null(strstr(a, "Content-Length"));
	for (int i = 3; i > 0; i--) {
		starts_with(b, "000003e8\r\n");
		assert_int_equal(strspn(b + 10, (char[]){ (char)('a' + i), '\0' }), 1000);
		b += 1010;
		starts_with(b, "\r\n");
		b += 2;
	}
	assert_string_equal(b, "0\r\n\r\n");
	assert_string_equal(body(get("HEAD /metrics HTTP/1.1\r\n\r\n")), "");
	piece_size = 0;
	assert_string_equal(body(get("GET /metrics HTTP/1.1\r\n\r\n")), "0\r\n\r\n");
}

static void pieces_to_the_end(void **s)
{
	const char *a = get("GET /metrics HTTP/1.0\r\n\r\n");

	assert_null(strstr(a, "Transfer-Encoding"));
	assert_int_equal(strlen(body(a)), 3000);
}

/* Others are served between its pieces. */
static void a_long_page_takes_turns(void **s)
{
	int fd = visit();

	pieces = 100000;
	say(fd, "GET /metrics HTTP/1.1\r\n\r\n", 25);
	wait_for_visits(1);
	assert_string_equal(body(get("GET /healthz HTTP/1.1\r\n\r\n")), "ok\n");
	assert_int_equal(begun, 1);
	close(fd);
	wait_for_visits(0);
}

static void visitor_goes_between_pieces(void **s)
{
	int fd = visit();

	pieces = 1000000;
	say(fd, "GET /metrics HTTP/1.1\r\n\r\n", 25);
	for (int i = 0; i < 10; i++)
		loop_turn(1);
	assert_int_equal(begun, 1);
	close(fd); /* RST */
	wait_for_visits(0);
	assert_int_equal(begun, 0);
}

static void policies(void **s)
{
	has(get("GET / HTTP/1.1\r\n\r\n"), "\r\nContent-Security-Policy: default-src 'self'\r\n");
	has(get("GET /metrics HTTP/1.1\r\n\r\n"), "\r\nContent-Security-Policy: default-src 'none'\r\n");
	is_ready = false;
	starts_with(get("GET / HTTP/1.1\r\n\r\n"), "HTTP/1.1 503 ");
}

static void head_has_no_body(void **s)
{
	const char *a = get("HEAD /healthz HTTP/1.1\r\n\r\n");

	starts_with(a, "HTTP/1.1 200 ");
	has(a, "Content-Length: 3\r\n");
	assert_string_equal(body(a), "");
	assert_string_equal(body(get("HEAD /nothing HTTP/1.1\r\n\r\n")), "");
}

static void targets(void **s)
{
	starts_with(get("GET /healthz?now=1 HTTP/1.1\r\n\r\n"), "HTTP/1.1 200 ");
	starts_with(get("GET http://host:9464/healthz HTTP/1.1\r\n\r\n"), "HTTP/1.1 200 ");
	has(get("GET http://host HTTP/1.1\r\n\r\n"), "<h1>mctunnel");
	starts_with(get("GET /healthz HTTP/1.0\n\n"), "HTTP/1.1 200 ");
	starts_with(get("GET /healthz/ HTTP/1.1\r\n\r\n"), "HTTP/1.1 404 ");
	starts_with(get("GET /../etc/passwd HTTP/1.1\r\n\r\n"), "HTTP/1.1 404 ");
}

static void bad_requests(void **s)
{
	const char *a = get("POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc");

	starts_with(a, "HTTP/1.1 405 ");
	has(a, "Allow: GET, HEAD\r\n");
	starts_with(get("GET /metrics HTTP/2.0\r\n\r\n"), "HTTP/1.1 505 ");
	starts_with(get("GET /metrics\r\n\r\n"), "HTTP/1.1 400 ");
	starts_with(get("GET  /metrics HTTP/1.1\r\n\r\n"), "HTTP/1.1 400 ");
	starts_with(get("GET /metrics HTTP/1.1 x\r\n\r\n"), "HTTP/1.1 400 ");
	starts_with(get("\r\n\r\n"), "HTTP/1.1 400 ");
	starts_with(get("\x16\x03\x01\n\n"), "HTTP/1.1 400 ");
	int fd = visit();
	say(fd, "GET /\0 HTTP/1.1\r\n\r\n", 19);
	starts_with(hear(fd), "HTTP/1.1 400 ");
}

static void a_byte_at_a_time(void **s)
{
	const char *request = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
	int fd = visit();

	for (const char *p = request; *p; p++) {
		say(fd, p, 1);
		loop_turn(1);
	}
	assert_string_equal(body(hear(fd)), "ok\n");
}

static void oversize_head(void **s)
{
	char head[3 * HEAD_MAX];
	int fd = visit();

	memset(head, 'a', sizeof(head));
	memcpy(head, "GET /metrics HTTP/1.1\r\nX: ", 26);
	say(fd, head, sizeof(head));
	starts_with(hear(fd), "HTTP/1.1 431 ");
}

static void largest_head(void **s)
{
	char head[HEAD_MAX];
	int fd = visit();

	memset(head, 'a', sizeof(head));
	memcpy(head, "GET /healthz HTTP/1.1\r\nX: ", 26);
	memcpy(head + HEAD_MAX - 4, "\r\n\r\n", 4);
	say(fd, head, sizeof(head));
	starts_with(hear(fd), "HTTP/1.1 200 ");
}

static void pipelined_garbage(void **s)
{
	char garbage[20000] = "GET /healthz HTTP/1.1\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n";
	int fd = visit();

	say(fd, garbage, sizeof(garbage));
	const char *a = hear(fd);
	starts_with(a, "HTTP/1.1 200 ");
	assert_string_equal(body(a), "ok\n");
}

static void comes_and_goes(void **s)
{
	int fd = visit();

	loop_turn(10);
	close(fd); /* RST: linger 0 */
	loop_turn(10);
	fd = visit();
	say(fd, "GET /met", 8);
	sock_orderly(fd);
	close(fd);
	for (int i = 0; i < 10 && web.visits_n; i++)
		loop_turn(10);
	assert_int_equal(web.visits_n, 0);
}

/* Time passes for the timers, not for the test. */
static void pass(uint64_t ms)
{
	uint64_t now = clock_us() + ms * 1000;

	clock_set_us(now);
	loop_turn(0);
	loop_turn(0);
}

static void says_nothing(void **s)
{
	int fd = visit();

	wait_for_visits(1);
	pass(PATIENCE_MS - 100);
	assert_int_equal(web.visits_n, 1);
	pass(200);
	assert_int_equal(web.visits_n, 0);
	close(fd);
}

static void never_reads(void **s)
{
	int small = 1, fd = visit();

	wait_for_visits(1);
	struct visit *v = list_first(&web.visits, struct visit, node);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
	assert_int_equal(setsockopt(conn_fd(v->conn), SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	pieces = 10000;
	piece_size = HTTP_PIECE;
	say(fd, "GET /metrics HTTP/1.1\r\n\r\n", 25);
	for (int i = 0; i < 20; i++)
		loop_turn(1);
	assert_non_null(v->answer.v);
	assert_true(v->answer.len < 2 * HTTP_PIECE);
	pass(PATIENCE_MS - 100);
	assert_int_equal(web.visits_n, 1);
	assert_string_equal(body(get("GET /healthz HTTP/1.1\r\n\r\n")), "ok\n"); /* others are served meanwhile */
	pass(200);
	assert_int_equal(web.visits_n, 0);
	close(fd);
}

/* What came until the end, which may be any. */
static size_t hear_something(int fd, char *text, size_t size)
{
	size_t len = 0;
	ssize_t n = -1;

	for (int turns = 0; turns < 1000 && n != 0 && (n > 0 || errno == EAGAIN); turns++) {
		loop_turn(n > 0 ? 0 : 1);
		n = recv(fd, text + len, size - len, 0);
		len += n > 0 ? (size_t)n : 0;
	}
	close(fd);
	loop_turn(0);
	return len;
}

/* An answer is whole, or can be seen not to be: a part of it comes, and then an end that is none of HTTP. */
static void each_allocation_of(const char *request)
{
	static char want[65536], got[65536];
	size_t want_len, got_len;
	unsigned n = 0, whole = 0;
	bool failed;
	int fd = visit();

	say(fd, request, strlen(request));
	want_len = hear_something(fd, want, sizeof(want));
	assert_true(want_len > 100);
	do {
		fd = visit();
		wait_for_visits(1);
		assert_int_equal(send(fd, request, strlen(request), 0), strlen(request));
		failing = ++n;
		got_len = hear_something(fd, got, sizeof(got));
		failed = has_failed();
		assert_true(got_len <= want_len);
		assert_memory_equal(got, want, got_len);
		assert_true(failed || got_len == want_len);
		whole += got_len == want_len;
		wait_for_visits(0);
	} while (failed);
	assert_true(n > 3);
	assert_true(whole >= 1);
}

/* A piece without memory was taken for an empty one, and a page for whole whose middle was missing. */
static void each_allocation(void **s)
{
	piece_size = 20000;
	each_allocation_of("GET /metrics HTTP/1.1\r\n\r\n");
	each_allocation_of("GET / HTTP/1.1\r\n\r\n");
	each_allocation_of("GET /nothing HTTP/1.1\r\n\r\n");
}

/* Who comes when the place is full waits in the kernel's queue, and is served when somebody leaves. */
static void crowd(void **s)
{
	int fds[VISITS_MAX], late;

	for (int i = 0; i < VISITS_MAX; i++) {
		fds[i] = visit();
		loop_turn(0);
	}
	wait_for_visits(VISITS_MAX);
	late = visit();
	assert_true(send(late, "GET /healthz HTTP/1.1\r\n\r\n", 25, 0) == 25);
	for (int i = 0; i < 5; i++)
		loop_turn(1);
	assert_int_equal(web.visits_n, VISITS_MAX);
	close(fds[0]);
	assert_string_equal(body(hear(late)), "ok\n");
	for (int i = 1; i < VISITS_MAX; i++)
		close(fds[i]);
	wait_for_visits(0);
}

static void closing_breaks_what_is_under_way(void **s)
{
	int fd = visit();

	wait_for_visits(1);
	http_close();
	assert_int_equal(web.visits_n, 0);
	http_close();
	loop_turn(0);
	close(fd);
}

#define test(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(pieces_in_chunks),
		test(pieces_to_the_end),
		test(a_long_page_takes_turns),
		test(visitor_goes_between_pieces),
		test(policies),
		test(head_has_no_body),
		test(targets),
		test(bad_requests),
		test(a_byte_at_a_time),
		test(oversize_head),
		test(largest_head),
		test(pipelined_garbage),
		test(comes_and_goes),
		test(each_allocation),
		test(crowd),
		test(closing_breaks_what_is_under_way),
		test(says_nothing), /* from here on the clock is the test's */
		test(never_reads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

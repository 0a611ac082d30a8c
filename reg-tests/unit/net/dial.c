/* Dialling: races, refusals, timeouts, proxies, cancelling. The resolver is played by the test, and so is an address that
 * never answers: sock_connect() to it gives a socket that never becomes writable. */
#define _GNU_SOURCE
#include "net/dial.c"

#include <setjmp.h>
#include <stdlib.h>

#include <cmocka.h>

/* ---- the parts played ---- */

static struct addr black_hole;
static int black_hole_attempts, black_hole_opens_at; /* from this attempt on it answers; 0: never */
static struct addr real_one;
static struct addr mirror; /* the kernel gives its port to whoever dials it */
static bool slow;          /* nothing is connected at once */

static struct {
	void (*on_done)(void *, const struct resolved *);
	void *arg;
	int cancelled;
} question;

struct resolve *resolve_start(const char *host, uint16_t port, void (*on_done)(void *, const struct resolved *), void *arg)
{
	question.on_done = on_done;
	question.arg = arg;
	return (struct resolve *)&question;
}

void resolve_cancel(struct resolve *r)
{
	question.cancelled++;
}

static int other_ends[8], other_end_count;

static int stuck_socket(void)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	while (send(pair[0], "xxxxxxxx", 8, MSG_NOSIGNAL) > 0)
		;
	assert_true(other_end_count < 8);
	other_ends[other_end_count++] = pair[1];
	return pair[0];
}

int sock_connect(const struct addr *to)
{
	int fd;

	if (addr_equal(to, &black_hole)) {
		black_hole_attempts++;
		if (!black_hole_opens_at || black_hole_attempts < black_hole_opens_at)
			return stuck_socket();
		to = &real_one;
	}
	fd = socket(to->u.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	if (addr_equal(to, &mirror))
		assert_int_equal(bind(fd, &to->u.sa, to->len), 0);
	if (connect(fd, &to->u.sa, to->len) < 0 && errno != EINPROGRESS) {
		int e = errno;

		close(fd);
		errno = e;
		return -1;
	}
	return fd;
}

int sock_connected(int fd, const struct addr *to)
{
	struct sockaddr_storage own;
	socklen_t len = sizeof(own);

	assert_int_equal(getsockname(fd, (struct sockaddr *)&own, &len), 0);
	if (slow || own.ss_family != to->u.sa.sa_family) /* one that is stuck */
		return EINPROGRESS;
	if (connect(fd, &to->u.sa, to->len) == 0 || errno == EISCONN)
		return 0;
	return errno == EALREADY ? EINPROGRESS : errno;
}

/* ---- helpers ---- */

static int listener;
static struct endpoint live, refusing, named, hole;

static struct {
	int calls, fd, error;
	struct addr to;
	char why[WHY_MAX];
} result;

static void on_done(void *arg, struct dial_result *r)
{
	assert_ptr_equal(arg, &result);
	result.calls++;
	result.fd = r->fd;
	result.error = r->error;
	result.to = r->to;
	str_copy(result.why, sizeof(result.why), r->why);
}

static int listen_somewhere(struct endpoint *e, const char *text)
{
	char err[200], where[ADDR_TEXT];
	int s;

	assert_int_equal(endpoint_parse(e, text, ENDPOINT_BIND, err, sizeof(err)), 0);
	s = sock_listen(e, err, sizeof(err));
	assert_true(s >= 0);
	endpoint_fini(e);
	sock_local(s, &e->addr);
	addr_text(&e->addr, where, sizeof(where));
	assert_int_equal(endpoint_parse(e, where, ENDPOINT_DIAL, err, sizeof(err)), 0);
	return s;
}

static int setup(void **state)
{
	char err[200];

	loop_init();
	listener = listen_somewhere(&live, "127.0.0.1:0");
	close(listen_somewhere(&refusing, "127.0.0.1:0"));
	real_one = live.addr;
	assert_int_equal(endpoint_parse(&named, "hub.test:443", ENDPOINT_DIAL, err, sizeof(err)), 0);
	assert_int_equal(endpoint_parse(&hole, "192.0.2.1:80", ENDPOINT_DIAL, err, sizeof(err)), 0);
	black_hole = hole.addr;
	black_hole_attempts = black_hole_opens_at = other_end_count = 0;
	memset(&question, 0, sizeof(question));
	memset(&result, 0, sizeof(result));
	result.fd = -1;
	return 0;
}

static int teardown(void **state)
{
	for (int i = 0; i < other_end_count; i++)
		close(other_ends[i]);
	if (result.fd >= 0)
		close(result.fd);
	close(listener);
	endpoint_fini(&live);
	endpoint_fini(&refusing);
	endpoint_fini(&named);
	endpoint_fini(&hole);
	loop_turn(0);
	loop_fini();
	mem_drain();
	return 0;
}

static struct dial *start(const struct endpoint *e, struct dial_options o)
{
	struct dial *d;

	if (!o.timeout_ms)
		o.timeout_ms = 60000;
	d = dial_start(e, &o, on_done, &result);
	assert_non_null(d);
	assert_int_equal(result.calls, 0);
	return d;
}

static void turn_until_done(void)
{
	for (int i = 0; i < 3000 && !result.calls; i++)
		loop_turn(10);
	assert_int_equal(result.calls, 1);
	loop_turn(0);
	assert_int_equal(result.calls, 1);
}

static void expect_connected(void)
{
	turn_until_done();
	assert_string_equal(result.why, "connected");
	assert_true(result.fd >= 0);
	assert_int_equal(result.error, 0);
}

static void expect_failure(int error, const char *sentence)
{
	turn_until_done();
	assert_int_equal(result.fd, -1);
	assert_int_equal(result.error, error);
	if (!strstr(result.why, sentence))
		fail_msg("\"%s\" is not in \"%s\"", sentence, result.why);
}

/* ---- tests ---- */

static void direct(void **state)
{
	start(&live, (struct dial_options){ 0 });
	expect_connected();
	assert_true(addr_equal(&result.to, &live.addr));
}

static void within_the_host_one_turn_is_enough(void **state)
{
	start(&live, (struct dial_options){ 0 });
	loop_turn(0);
	assert_int_equal(result.calls, 1);
	assert_true(result.fd >= 0);
	assert_int_equal(recv(result.fd, result.why, 1, 0), -1);
	assert_int_equal(errno, EAGAIN);
}

static void refused(void **state)
{
	start(&refusing, (struct dial_options){ .second_attempt = true });
	expect_failure(ECONNREFUSED, refusing.text);
}

static void meets_itself(void **state)
{
	mirror = refusing.addr;
	start(&refusing, (struct dial_options){ 0 });
	expect_failure(ECONNREFUSED, refusing.text);
	memset(&mirror, 0, sizeof(mirror));
}

static void direct_later(void **state)
{
	slow = true;
	direct(state);
	slow = false;
}

static void refused_later(void **state)
{
	slow = true;
	refused(state);
	slow = false;
}

static void meets_itself_later(void **state)
{
	slow = true;
	meets_itself(state);
	slow = false;
}

static void a_cancelled_one_does_not_begin(void **state)
{
	dial_cancel(start(&live, (struct dial_options){ 0 }));
	loop_turn(0);
	loop_turn(0);
	assert_int_equal(result.calls, 0);
}

static void unix_sockets(void **state)
{
	struct endpoint e;
	char err[200], path[64], text[80];
	int s;

	snprintf(path, sizeof(path), "/tmp/mctunnel-dial-%d", (int)getpid());
	snprintf(text, sizeof(text), "unix:%s", path);
	assert_int_equal(endpoint_parse(&e, text, ENDPOINT_DIAL, err, sizeof(err)), 0);
	start(&e, (struct dial_options){ .proxy = &refusing }); /* which is not asked */
	expect_failure(ENOENT, path);
	result.calls = 0;
	s = sock_listen(&e, err, sizeof(err));
	assert_true(s >= 0);
	start(&e, (struct dial_options){ 0 });
	expect_connected();
	close(s);
	unlink(path);
	endpoint_fini(&e);
}

static void timeout(void **state)
{
	start(&hole, (struct dial_options){ .timeout_ms = 60 });
	expect_failure(ETIMEDOUT, "192.0.2.1:80 timed out after 60 ms");
	assert_int_equal(black_hole_attempts, 1);
}

static void second_attempt_wins(void **state)
{
	black_hole_opens_at = 2;
	start(&hole, (struct dial_options){ .second_attempt = true });
	expect_connected();
	assert_int_equal(black_hole_attempts, 2);
	assert_true(addr_equal(&result.to, &hole.addr));
}

static void race(void **state)
{
	struct addr addrs[3] = { hole.addr, refusing.addr, live.addr };

	start(&named, (struct dial_options){ 0 });
	question.on_done(question.arg, &(struct resolved){ addrs, 3, "", false });
	expect_connected();
	assert_true(addr_equal(&result.to, &live.addr));
	assert_int_equal(question.cancelled, 0);
}

static void every_address_fails(void **state)
{
	struct addr addrs[2] = { refusing.addr, refusing.addr };

	start(&named, (struct dial_options){ .second_attempt = true });
	question.on_done(question.arg, &(struct resolved){ addrs, 2, "", false });
	expect_failure(ECONNREFUSED, "connecting to 127.0.0.1:");
}

static void no_such_name(void **state)
{
	start(&named, (struct dial_options){ 0 });
	question.on_done(question.arg, &(struct resolved){ NULL, 0, "name does not exist", false });
	expect_failure(EHOSTUNREACH, "cannot resolve hub.test: name does not exist");
}

static void resolver_too_slow(void **state)
{
	start(&named, (struct dial_options){ .timeout_ms = 30 });
	expect_failure(ETIMEDOUT, "resolving hub.test timed out");
	assert_int_equal(question.cancelled, 1);
}

static void cancelling(void **state)
{
	struct addr addrs[2] = { hole.addr, hole.addr };

	dial_cancel(start(&live, (struct dial_options){ 0 }));
	dial_cancel(start(&named, (struct dial_options){ 0 }));
	assert_int_equal(question.cancelled, 1);
	struct dial *d = start(&named, (struct dial_options){ 0 });
	question.on_done(question.arg, &(struct resolved){ addrs, 2, "", false });
	loop_turn(0);
	dial_cancel(d);
	for (int i = 0; i < 3; i++)
		loop_turn(5);
	assert_int_equal(result.calls, 0);
}

/* Plays the proxy: accepts, reads the request, sends the answer. */
static int proxy_side(const char *request, const char *answer)
{
	char buf[1000];
	size_t got = 0;
	int fd = -1;

	for (int i = 0; i < 3000 && fd < 0; i++) {
		loop_turn(10);
		fd = sock_accept(listener, NULL, NULL);
	}
	assert_true(fd >= 0);
	for (int i = 0; i < 3000 && got < strlen(request); i++) {
		ssize_t n = recv(fd, buf + got, sizeof(buf) - got, 0);

		if (n > 0)
			got += (size_t)n;
		else
			loop_turn(10);
	}
	assert_int_equal(got, strlen(request));
	assert_memory_equal(buf, request, got);
	if (answer)
		assert_int_equal(send(fd, answer, strlen(answer), MSG_NOSIGNAL), strlen(answer));
	return fd;
}

static const char plain_request[] = "CONNECT hub.test:443 HTTP/1.1\r\nHost: hub.test:443\r\n\r\n";

static void proxy_says_yes(void **state)
{
	char buf[16];
	int fd;

	start(&named, (struct dial_options){ .proxy = &live, .proxy_auth = "user:pass" });
	fd = proxy_side("CONNECT hub.test:443 HTTP/1.1\r\nHost: hub.test:443\r\nProxy-Authorization: Basic dXNlcjpwYXNz\r\n\r\n",
			"HTTP/1.1 200 OK\r\nVia: ");
	loop_turn(10);
	assert_int_equal(result.calls, 0);
	assert_int_equal(send(fd, "x\r\n\r\nEARLY", 10, 0), 10);
	expect_connected();
	assert_int_equal(recv(result.fd, buf, sizeof(buf), 0), 5); /* not eaten with the answer */
	assert_memory_equal(buf, "EARLY", 5);
	close(fd);
}

static void proxy_case(const char *answer, bool hang_up, int error, const char *sentence)
{
	int fd;

	result.calls = 0;
	start(&named, (struct dial_options){ .proxy = &live, .timeout_ms = error == ETIMEDOUT ? 1000 : 0 });
	fd = proxy_side(plain_request, answer);
	if (hang_up)
		sock_end(fd, true);
	expect_failure(error, sentence);
	if (!hang_up)
		close(fd);
}

static void proxy_says_no(void **state)
{
	char *long_answer = malloc(9001);

	memset(long_answer, 'x', 9000);
	long_answer[9000] = 0;
	proxy_case("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", false, EPROTO, "proxy answered 407 Proxy Authentication Required");
	proxy_case("HTTP/1.0 503\n\n", false, EPROTO, "proxy answered 503");
	proxy_case("SSH-2.0-x\r\n\r\n", false, EPROTO, "does not answer as an HTTP proxy");
	proxy_case(NULL, true, EPROTO, "closed the connection");
	proxy_case("HTTP/1.1 200 OK\r\n", true, EPROTO, "does not end its answer");
	proxy_case("HTTP/1.1 200 OK\r\n", false, ETIMEDOUT, "waiting for the answer of proxy 127.0.0.1:");
	proxy_case(long_answer, false, EPROTO, "does not end its answer");
	free(long_answer);
}

static void proxy_is_down(void **state)
{
	start(&live, (struct dial_options){ .proxy = &refusing });
	expect_failure(ECONNREFUSED, refusing.text);
}

static void base64_ends(void **state)
{
	char out[16];

	base64(out, sizeof(out), "");
	assert_string_equal(out, "");
	base64(out, sizeof(out), "f");
	assert_string_equal(out, "Zg==");
	base64(out, sizeof(out), "fo");
	assert_string_equal(out, "Zm8=");
	base64(out, sizeof(out), "foo");
	assert_string_equal(out, "Zm9v");
	base64(out, sizeof(out), "\xff\xfe\xfd");
	assert_string_equal(out, "//79");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(direct),
		T(direct_later),
		T(within_the_host_one_turn_is_enough),
		T(refused),
		T(refused_later),
		T(meets_itself),
		T(meets_itself_later),
		T(a_cancelled_one_does_not_begin),
		T(unix_sockets),
		T(timeout),
		T(second_attempt_wins),
		T(race),
		T(every_address_fails),
		T(no_such_name),
		T(resolver_too_slow),
		T(cancelling),
		T(proxy_says_yes),
		T(proxy_says_no),
		T(proxy_is_down),
		T(base64_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

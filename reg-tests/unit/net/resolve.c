/* Names: localhost, the hosts file, a name server played by the test (also one that dies), names that do not exist, cancelling. */
#define _GNU_SOURCE
#include "net/resolve.c"

#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "../failing.h"

static struct {
	int calls;
	size_t n;
	struct addr addrs[ANSWER_MAX];
	char why[100];
	bool starved;
} got;

static void on_done(void *arg, const struct resolved *r)
{
	assert_ptr_equal(arg, &got);
	got.calls++;
	got.n = r->n;
	memcpy(got.addrs, r->addrs, r->n * sizeof(*r->addrs));
	str_copy(got.why, sizeof(got.why), r->why);
	got.starved = r->starved;
}

/* ---- a name server of four names over UDP ---- */

static struct watch server;
static int queries;
static bool silent;

static size_t put_record(uint8_t *at, uint16_t type, const void *data, uint16_t len)
{
	uint8_t head[12] = { 0xc0, 12, (uint8_t)(type >> 8), (uint8_t)type, 0, 1, 0, 0, 0, 60, (uint8_t)(len >> 8), (uint8_t)len };

	memcpy(at, head, sizeof(head));
	memcpy(at + sizeof(head), data, len);
	return sizeof(head) + len;
}

/* "two.test" has two addresses of each family, "v4.test" one, "broken.test" a failing server; nothing else exists. */
static size_t answer_query(uint8_t *m, size_t len)
{
	static const uint8_t v6[2][16] = { { 0x20, 1, 0xd, 0xb8, [15] = 1 }, { 0x20, 1, 0xd, 0xb8, [15] = 2 } };
	static const uint8_t v4[2][4] = { { 192, 0, 2, 1 }, { 192, 0, 2, 2 } };
	size_t end = 12;

	while (m[end])
		end += m[end] + 1u;
	unsigned type = m[end + 2], count = 0;
	bool two = memcmp(m + 13, "two", 3) == 0, one = memcmp(m + 12, "\2v4", 3) == 0, broken = memcmp(m + 13, "broken", 6) == 0;

	len = end + 5; /* drops what follows the question */
	for (unsigned i = 0; i < 2; i++) {
		if (two && type == 28) {
			len += put_record(m + len, 28, v6[i], 16);
			count++;
		} else if ((two || (one && i == 0)) && type == 1) {
			len += put_record(m + len, 1, v4[i], 4);
			count++;
		}
	}
	m[2] = 0x81;
	m[3] = (uint8_t)(0x80 | (broken ? 2 : two || one ? 0 : 3));
	m[7] = (uint8_t)count;
	m[8] = m[9] = m[10] = m[11] = 0;
	return len;
}

static void on_query(struct watch *w, unsigned events)
{
	uint8_t m[1500];
	struct sockaddr_in from;
	socklen_t from_len = sizeof(from);
	ssize_t n;

	while ((n = recvfrom(w->fd, m, 512, MSG_DONTWAIT, (struct sockaddr *)&from, &from_len)) > 12) {
		queries++;
		if (silent)
			continue;
		n = (ssize_t)answer_query(m, (size_t)n);
		assert_int_equal(sendto(w->fd, m, (size_t)n, 0, (struct sockaddr *)&from, from_len), n);
	}
}

static void start_server(void)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(at);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char text[64];

	assert_int_equal(bind(fd, (struct sockaddr *)&at, len), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
	assert_int_equal(loop_watch(&server, fd, on_query), 0);
	snprintf(text, sizeof(text), "127.0.0.1:%u", ntohs(at.sin_port));
	assert_int_equal(ares_set_servers_ports_csv(self->channel, text), ARES_SUCCESS);
}

static void stop_server(void)
{
	int fd = server.fd;

	if (fd < 0)
		return;
	loop_unwatch(&server);
	close(fd);
}

static int setup(void **state)
{
	char err[200] = "";

	loop_init();
	memset(&got, 0, sizeof(got));
	server.fd = -1;
	silent = false;
	queries = 0;
	assert_int_equal(resolve_init(err, sizeof(err)), 0);
	return 0;
}

static int teardown(void **state)
{
	stop_server();
	resolve_fini();
	loop_turn(0);
	loop_fini();
	mem_drain();
	return 0;
}

static void ask(const char *name)
{
	got.calls = 0;
	assert_non_null(resolve_start(name, 443, on_done, &got));
	assert_int_equal(got.calls, 0);
	for (int i = 0; i < 1000 && !got.calls; i++)
		loop_turn(20);
	assert_int_equal(got.calls, 1);
}

static void expect_addr(size_t i, const char *text)
{
	char buf[ADDR_TEXT];

	assert_true(i < got.n);
	assert_string_equal(addr_text(&got.addrs[i], buf, sizeof(buf)), text);
}

static void localhost(void **state)
{
	bool loopback = false;
	char buf[ADDR_TEXT];

	ask("localhost");
	assert_true(got.n > 0);
	for (size_t i = 0; i < got.n; i++) {
		addr_text(&got.addrs[i], buf, sizeof(buf));
		loopback |= strcmp(buf, "127.0.0.1:443") == 0 || strcmp(buf, "[::1]:443") == 0;
	}
	assert_true(loopback);
}

static void hosts_lines(void **state)
{
	char lines[][80] = { "192.0.2.7\tdb  Db.example # the database", "2001:db8::7 db", "# 192.0.2.8 db", "nonsense db", "" };

	forget_hosts(self);
	for (size_t i = 0; i < 5; i++)
		add_hosts_line(self, lines[i]);
	ask("DB");
	assert_int_equal(got.n, 2);
	expect_addr(0, "192.0.2.7:443");
	expect_addr(1, "[2001:db8::7]:443");
	ask("db.example");
	assert_int_equal(got.n, 1);
}

static void families_alternate(void **state)
{
	start_server();
	ask("two.test");
	assert_int_equal(got.n, 4);
	for (size_t i = 1; i < 4; i++)
		assert_int_not_equal(got.addrs[i].u.sa.sa_family, got.addrs[i - 1].u.sa.sa_family);
	assert_int_equal(addr_port(&got.addrs[3]), 443);
	ask("v4.test");
	assert_int_equal(got.n, 1);
	expect_addr(0, "192.0.2.1:443");
}

static void no_such_name(void **state)
{
	start_server();
	ask("nothing.test.");
	assert_int_equal(got.n, 0);
	assert_string_equal(got.why, "name does not exist");
	ask("broken.test.");
	assert_int_equal(got.n, 0);
	assert_true(got.why[0]);
}

static void impossible_names(void **state)
{
	char name[400];

	start_server();
	memset(name, 'a', sizeof(name) - 1);
	name[sizeof(name) - 1] = 0;
	ask(name);
	assert_int_equal(got.n, 0);
	name[100] = 0; /* a label may have 63 */
	ask(name);
	assert_int_equal(got.n, 0);
	ask("192.0.2.9");
	assert_int_equal(got.n, 1);
	expect_addr(0, "192.0.2.9:443");
}

static void last_good_answer(void **state)
{
	start_server();
	ask("v4.test.");
	assert_int_equal(got.n, 1);
	stop_server(); /* the port refuses now */
	ask("v4.test.");
	assert_int_equal(got.n, 1);
	expect_addr(0, "192.0.2.1:443");
	ask("other.test.");
	assert_int_equal(got.n, 0);
	assert_true(got.why[0]);
}

static void an_old_answer_will_do_while_the_server_thinks(void **state)
{
	start_server();
	ask("v4.test.");
	silent = true;
	ask("v4.test.");
	assert_int_equal(got.n, 1);
	expect_addr(0, "192.0.2.1:443");
	silent = false; /* the retry is answered, and heard by nobody */
	for (int i = 0; i < 200 && timer_running(&self->timer); i++)
		loop_turn(20);
	assert_false(timer_running(&self->timer));
	assert_int_equal(got.calls, 1);
}

static void the_cache_is_bounded(void **state)
{
	struct answer a = { .n = 1 };
	char name[32];

	for (int i = 0; i < 3 * CACHE_MAX; i++) {
		snprintf(name, sizeof(name), "name-%d", i % (2 * CACHE_MAX));
		remember(self, name, &a);
	}
	assert_int_equal(self->cached, CACHE_MAX);
	assert_null(last_good(self, "name-64"));
	assert_non_null(last_good(self, "name-0"));
	assert_non_null(last_good(self, "NAME-63"));
}

/* The Nth allocation failing in a question of a resolver that knows no answer yet. */
static void no_memory_is_no_missing_name(void **state)
{
	unsigned n = 0;
	bool failed;

	do {
		teardown(state);
		setup(state);
		start_server();
		failing = ++n;
		if (resolve_start("v4.test.", 443, on_done, &got)) {
			for (int i = 0; i < 1000 && !got.calls; i++)
				loop_turn(20);
			failed = has_failed();
			assert_int_equal(got.calls, 1);
			assert_true(got.n == 1 || (failed && got.starved));
		} else {
			failed = has_failed();
			assert_true(failed);
		}
	} while (failed);
	assert_true(n > 10);
}

static void silence_is_no_hang(void **state)
{
	struct resolve *q;

	start_server();
	silent = true;
	q = resolve_start("v4.test.", 1, on_done, &got);
	assert_true(timer_running(&self->timer));
	while (queries < 2)
		loop_turn(10);
	resolve_cancel(q);
	resolve_cancel(resolve_start("localhost", 1, on_done, &got));
	loop_turn(0);
	assert_int_equal(got.calls, 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(localhost),
		T(hosts_lines),
		T(families_alternate),
		T(no_such_name),
		T(impossible_names),
		T(last_good_answer),
		T(an_old_answer_will_do_while_the_server_thinks),
		T(the_cache_is_bounded),
		T(silence_is_no_hang),
		T(no_memory_is_no_missing_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

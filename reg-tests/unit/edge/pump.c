/* The pump between a real socket and a session made of two buffers: both directions, their ends, RST, stalls, timeouts. */
#include "edge/pump.c"

#include "mctunnel/base/clock.h"

#include "../tcp_pair.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROOM (1u << 20)

/* A session without a link: `up` is what the pump put in, `down` what it shall write. */
struct session {
	uint8_t up[ROOM], down[ROOM];
	size_t up_len, up_max, down_len, down_at;
	bool fin, down_fin, released, aborted;
	enum reason abort_why;
};

static struct {
	struct session s;
	struct pump *p;
	int peer; /* the other end of the conn's socket */
	bool done, reopen;
	int refusals;
	enum reason why;
	uint64_t in, out;
} t;

int session_reserve(struct session *s, struct iovec *iov, int max)
{
	size_t room = s->up_max - s->up_len;

	if (room == 0 || max < 1)
		return 0;
	iov[0].iov_base = s->up + s->up_len;
	iov[0].iov_len = room < 1000 || max < 2 ? room : 1000; /* more than one piece */
	iov[1].iov_base = s->up + s->up_len + iov[0].iov_len;
	iov[1].iov_len = room - iov[0].iov_len;
	return iov[1].iov_len ? 2 : 1;
}

void session_commit(struct session *s, size_t n)
{
	s->up_len += n;
	assert_true(s->up_len <= s->up_max);
}

void session_fin(struct session *s)
{
	assert_false(s->fin);
	s->fin = true;
}

int session_peek(const struct session *s, struct iovec *iov, int max)
{
	if (s->down_at == s->down_len)
		return 0;
	iov[0].iov_base = (uint8_t *)(uintptr_t)s->down + s->down_at;
	iov[0].iov_len = s->down_len - s->down_at;
	return 1;
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

void session_release(struct session *s)
{
	assert_true(s->fin && session_ended(s) && !s->aborted);
	s->released = true;
}

void session_abort(struct session *s, enum reason why)
{
	assert_false(s->released || s->aborted);
	s->aborted = true;
	s->abort_why = why;
}

static void owner_open(void *owner, const char *target)
{
}

static void owner_done(void *owner, enum reason why)
{
	assert_false(t.done);
	t.done = true;
	t.why = why;
	t.in = pump_in(t.p);
	t.out = pump_out(t.p);
}

static bool owner_refused(void *owner, enum reason why)
{
	t.refusals++;
	return t.reopen;
}

static const struct pump_events owner_events = { .on_open = owner_open, .on_done = owner_done, .on_refused = owner_refused };

static void nobody(struct conn *c)
{
}

static void turns(int n)
{
	while (n-- > 0)
		loop_turn(1);
}

static void begin(uint32_t idle_ms, uint32_t half_closed_ms)
{
	struct pump_options o = { .idle_ms = idle_ms, .half_closed_ms = half_closed_ms, .local_reset = REASON_CLIENT_RESET, .client_side = true };
	struct conn *c;
	int fds[2];

	memset(&t, 0, sizeof(t));
	t.s.up_max = ROOM;
	tcp_pair(fds);
	sock_orderly(fds[1]);
	t.peer = fds[1];
	t.p = pump_new(&o, &owner_events, &t);
	assert_non_null(t.p);
	c = conn_tcp(fds[0], nobody, NULL);
	assert_non_null(c);
	pump_start(t.p, &t.s, c);
}

/* What the peer sees: bytes until nothing comes; 0 in *end for a clean end, else -errno (-EAGAIN: still open). */
static size_t peer_reads(int *end)
{
	static char buf[ROOM];
	size_t total = 0;
	ssize_t n;

	while ((n = recv(t.peer, buf, sizeof(buf), MSG_DONTWAIT)) > 0)
		total += (size_t)n;
	*end = n == 0 ? 0 : -errno;
	return total;
}

/* For the timers; from then on only so. */
static void pass(uint64_t ms)
{
	clock_set_us(clock_us() + ms * 1000);
	turns(1);
}

static void wait_done(void)
{
	for (int i = 0; i < 200 && !t.done; i++)
		turns(1);
	assert_true(t.done);
}

static void say(const char *text)
{
	memcpy(t.s.down + t.s.down_len, text, strlen(text));
	t.s.down_len += strlen(text);
	pump_session_events.on_readable(t.p);
}

static void moves_both_ways(void **state)
{
	int end;

	begin(0, 0);
	assert_int_equal(send(t.peer, "hello", 5, 0), 5);
	turns(2);
	assert_int_equal(t.s.up_len, 5);
	assert_memory_equal(t.s.up, "hello", 5);
	say("world!");
	assert_int_equal(peer_reads(&end), 6);
	assert_int_equal(end, -EAGAIN);
	pump_abort(t.p, REASON_KILLED);
	assert_true(t.done);
	assert_int_equal(t.s.abort_why, REASON_KILLED);
	assert_int_equal(t.in, 5);
	assert_int_equal(t.out, 6);
	peer_reads(&end);
	assert_int_equal(end, -ECONNRESET);
	close(t.peer);
	turns(1);
}

static void carries_a_half_close_and_a_late_answer(void **state)
{
	int end;

	begin(0, 0);
	assert_int_equal(send(t.peer, "question", 8, 0), 8);
	shutdown(t.peer, SHUT_WR);
	turns(3);
	assert_true(t.s.fin);
	assert_false(t.done);
	say("late answer");
	t.s.down_fin = true;
	pump_session_events.on_readable(t.p);
	assert_true(t.done);
	assert_int_equal(t.why, REASON_DONE);
	assert_true(t.s.released);
	assert_int_equal(peer_reads(&end), 11);
	assert_int_equal(end, 0);
	close(t.peer);
	turns(1);
}

static void the_other_side_may_end_first(void **state)
{
	int end;

	begin(0, 0);
	turns(1);
	t.s.down_fin = true;
	pump_session_events.on_readable(t.p);
	peer_reads(&end);
	assert_int_equal(end, 0);
	assert_false(t.done);
	assert_int_equal(send(t.peer, "still here", 10, 0), 10);
	turns(2);
	assert_int_equal(t.s.up_len, 10);
	close(t.peer);
	wait_done();
	assert_int_equal(t.why, REASON_DONE);
	assert_true(t.s.fin && t.s.released);
}

static void reset_peer(void)
{
	struct linger l = { .l_onoff = 1 };

	assert_int_equal(setsockopt(t.peer, SOL_SOCKET, SO_LINGER, &l, sizeof(l)), 0);
	close(t.peer);
}

static void a_reset_of_the_peer_aborts(void **state)
{
	begin(0, 0);
	assert_int_equal(send(t.peer, "last words", 10, 0), 10);
	reset_peer();
	wait_done();
	assert_int_equal(t.why, REASON_CLIENT_RESET);
	assert_true(t.s.aborted && !t.s.fin);
	assert_int_equal(t.s.up_len, 10);
}

static void a_reset_after_the_peers_end_aborts(void **state)
{
	begin(0, 0);
	shutdown(t.peer, SHUT_WR);
	turns(2);
	assert_true(t.s.fin);
	reset_peer();
	wait_done();
	assert_int_equal(t.why, REASON_CLIENT_RESET);
	assert_true(t.s.aborted);
}

static void the_end_of_the_session_resets_the_peer(void **state)
{
	int end;

	begin(0, 0);
	turns(1);
	pump_session_events.on_end(t.p, REASON_LOST, false);
	assert_true(t.done);
	assert_int_equal(t.why, REASON_LOST);
	assert_false(t.s.aborted);
	peer_reads(&end);
	assert_int_equal(end, -ECONNRESET);
	close(t.peer);
	turns(1);
}

static void a_refusal_may_be_reopened(void **state)
{
	begin(0, 0);
	t.reopen = true;
	pump_session_events.on_end(t.p, REASON_TARGET_REFUSED, true);
	assert_false(t.done);
	t.reopen = false;
	pump_session_events.on_end(t.p, REASON_TARGET_REFUSED, true);
	assert_true(t.done);
	assert_int_equal(t.refusals, 2);
	close(t.peer);
	turns(1);
}

static void a_full_socket_holds_the_session_back(void **state)
{
	size_t got = 0;
	int small = 16384, end;

	begin(0, 0);
	assert_int_equal(setsockopt(conn_fd(t.p->c), SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	turns(2);
	for (size_t i = 0; i < ROOM; i++)
		t.s.down[i] = (uint8_t)(i * 31);
	t.s.down_len = ROOM;
	t.s.down_fin = true;
	pump_session_events.on_readable(t.p);
	assert_true(t.s.down_at < ROOM);
	for (int i = 0; i < 20000 && got < ROOM; i++) {
		got += peer_reads(&end);
		turns(1);
	}
	assert_int_equal(got, ROOM);
	shutdown(t.peer, SHUT_WR);
	wait_done();
	assert_int_equal(t.why, REASON_DONE);
	assert_int_equal(t.out, ROOM);
	close(t.peer);
}

/* A conn that keeps bytes to itself for a while, as TLS does. */
static struct {
	struct conn_ops ops;
	const struct conn_ops *plain;
	size_t unsent;
	int closes, orderly;
} lazy;

static size_t lazy_unsent(const struct conn *c)
{
	return lazy.unsent;
}

static void lazy_close(struct conn *c, bool orderly)
{
	assert_true(lazy.unsent == 0 || !orderly);
	lazy.closes++;
	lazy.orderly += orderly;
	c->ops = lazy.plain;
	c->ops->close(c, orderly);
}

static void begin_lazily(uint32_t half_closed_ms)
{
	begin(0, half_closed_ms);
	memset(&lazy, 0, sizeof(lazy));
	lazy.plain = t.p->c->ops;
	lazy.ops = *lazy.plain;
	lazy.ops.unsent = lazy_unsent;
	lazy.ops.close = lazy_close;
	t.p->c->ops = &lazy.ops;
	lazy.unsent = 1;
	shutdown(t.peer, SHUT_WR);
	turns(2);
	say("last");
	t.s.down_fin = true;
	pump_session_events.on_readable(t.p);
	turns(3);
	assert_false(t.done);
	assert_false(t.s.released);
}

static void unsent_bytes_are_waited_for(void **state)
{
	int end;

	begin_lazily(0);
	lazy.unsent = 0;
	t.p->c->on_event(t.p->c);
	assert_true(t.done);
	assert_int_equal(t.why, REASON_DONE);
	assert_true(t.s.released);
	assert_int_equal(lazy.orderly, 1);
	assert_int_equal(peer_reads(&end), 4);
	assert_int_equal(end, 0);
	close(t.peer);
	turns(1);
}

static void unsent_bytes_that_are_lost_are_a_reset(void **state)
{
	begin_lazily(0);
	lazy.unsent = 0; /* thrown away */
	t.p->c->error = ECONNRESET;
	t.p->c->on_event(t.p->c);
	assert_true(t.done);
	assert_int_equal(t.why, REASON_CLIENT_RESET);
	assert_true(t.s.aborted);
	assert_int_equal(lazy.closes - lazy.orderly, 1);
	close(t.peer);
	turns(1);
}

static void unsent_bytes_are_not_waited_for_for_ever(void **state)
{
	pass(0);
	begin_lazily(30);
	pass(29);
	assert_false(t.done);
	pass(1);
	assert_true(t.done);
	assert_int_equal(t.why, REASON_HALF_CLOSED);
	assert_int_equal(lazy.closes - lazy.orderly, 1);
	close(t.peer);
	turns(1);
}

static void a_full_session_holds_the_socket_back(void **state)
{
	static char bytes[5000];

	begin(0, 0);
	t.s.up_max = 3000;
	assert_int_equal(send(t.peer, bytes, sizeof(bytes), 0), sizeof(bytes));
	shutdown(t.peer, SHUT_WR);
	turns(3);
	assert_int_equal(t.s.up_len, 3000);
	assert_false(t.s.fin);
	t.s.up_max = ROOM;
	pump_session_events.on_writable(t.p);
	turns(2);
	assert_int_equal(t.s.up_len, sizeof(bytes));
	assert_true(t.s.fin);
	pump_abort(t.p, REASON_STOPPED);
	close(t.peer);
	turns(1);
}

static void a_reset_is_not_held_up_by_a_full_session(void **state)
{
	static char bytes[5000];

	begin(0, 0);
	t.s.up_max = 3000;
	assert_int_equal(send(t.peer, bytes, sizeof(bytes), 0), sizeof(bytes));
	turns(3);
	assert_int_equal(t.s.up_len, 3000);
	reset_peer();
	wait_done();
	assert_int_equal(t.why, REASON_CLIENT_RESET);
	assert_true(t.s.aborted);
}

static void bytes_wait_for_the_target(void **state)
{
	struct pump_options o = { .local_reset = REASON_TARGET_RESET };
	int fds[2], end;

	memset(&t, 0, sizeof(t));
	t.s.up_max = ROOM;
	t.p = pump_new(&o, &owner_events, &t);
	pump_start(t.p, &t.s, NULL);
	say("early");
	assert_int_equal(t.s.down_at, 0);
	tcp_pair(fds);
	t.peer = fds[1];
	pump_conn(t.p, conn_tcp(fds[0], nobody, NULL));
	turns(2);
	assert_int_equal(peer_reads(&end), 5);
	pump_session_events.on_leave(t.p);
	say(" and late");
	pump_session_events.on_arrive(t.p);
	turns(2);
	assert_int_equal(peer_reads(&end), 9);
	pump_abort(t.p, REASON_STOPPED);
	close(t.peer);
	turns(1);
}

static void silence_ends_the_session(void **state)
{
	pass(0);
	begin(30, 1000);
	turns(2);
	pass(29);
	assert_false(t.done);
	pass(1);
	assert_true(t.done);
	assert_int_equal(t.why, REASON_IDLE);
	assert_int_equal(t.s.abort_why, REASON_IDLE);
	close(t.peer);

	begin(10000, 30);
	turns(2);
	shutdown(t.peer, SHUT_WR);
	for (int i = 0; i < 2000 && !pump_half_closed(t.p); i++)
		turns(1);
	pass(29);
	assert_false(t.done);
	pass(1);
	assert_true(t.done);
	assert_int_equal(t.why, REASON_HALF_CLOSED);
	close(t.peer);
	turns(1);
}

static const struct conn_ops *its_own;

static ssize_t no_memory_to_read(struct conn *c, const struct iovec *iov, int n)
{
	c->ops = its_own;
	c->error = ENOMEM;
	return CONN_FAILED;
}

static void no_memory_is_not_the_clients_reset(void **state)
{
	struct conn_ops ops;

	begin(0, 0);
	its_own = t.p->c->ops;
	ops = *its_own;
	ops.readv = no_memory_to_read;
	t.p->c->ops = &ops;
	assert_int_equal(send(t.peer, "x", 1, 0), 1);
	wait_done();
	assert_int_equal(t.why, REASON_RESOURCES);
	assert_int_equal(t.s.abort_why, REASON_RESOURCES);
	close(t.peer);
	turns(1);
}

static void may_be_aborted_soon(void **state)
{
	begin(0, 0);
	pump_abort_soon(t.p);
	assert_false(t.done);
	turns(1);
	assert_true(t.done);
	assert_int_equal(t.why, REASON_RESOURCES);
	close(t.peer);
	turns(1);
}

static int set_up(void **state)
{
	loop_init();
	return 0;
}

static int tear_down(void **state)
{
	struct mem_usage u;

	loop_fini();
	mem_usage(MEM_PUMP, &u);
	assert_int_equal(u.used, 0);
	mem_usage(MEM_CONN, &u);
	assert_int_equal(u.used, 0);
	mem_drain();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(moves_both_ways, set_up, tear_down),
		cmocka_unit_test_setup_teardown(carries_a_half_close_and_a_late_answer, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_other_side_may_end_first, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_reset_of_the_peer_aborts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_reset_after_the_peers_end_aborts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_end_of_the_session_resets_the_peer, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_refusal_may_be_reopened, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_full_socket_holds_the_session_back, set_up, tear_down),
		cmocka_unit_test_setup_teardown(unsent_bytes_are_waited_for, set_up, tear_down),
		cmocka_unit_test_setup_teardown(unsent_bytes_that_are_lost_are_a_reset, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_full_session_holds_the_socket_back, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_reset_is_not_held_up_by_a_full_session, set_up, tear_down),
		cmocka_unit_test_setup_teardown(bytes_wait_for_the_target, set_up, tear_down),
		cmocka_unit_test_setup_teardown(no_memory_is_not_the_clients_reset, set_up, tear_down),
		cmocka_unit_test_setup_teardown(may_be_aborted_soon, set_up, tear_down),
		cmocka_unit_test_setup_teardown(unsent_bytes_are_not_waited_for_for_ever, set_up, tear_down), /* from here on the clock is the test's */
		cmocka_unit_test_setup_teardown(silence_ends_the_session, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

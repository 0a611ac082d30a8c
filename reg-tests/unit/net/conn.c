/* The plain conn: remembered readiness, end of data, half-close, reset, moving off a loop and back. */
#include "mctunnel/net/conn.h"

#include "mctunnel/base/mem.h"

#include "../tcp_pair.h"
#include "get_put.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static int calls;

static void on_event(struct conn *c)
{
	calls++;
}

static void turn_until(const bool *flag)
{
	for (int i = 0; i < 200 && !*flag; i++)
		loop_turn(10);
	assert_true(*flag);
}

static int setup(void **state)
{
	static struct conn *pair[2];
	int fd[2];

	loop_init();
	tcp_pair(fd);
	for (int i = 0; i < 2; i++) {
		pair[i] = conn_tcp(fd[i], on_event, NULL);
		assert_non_null(pair[i]);
		turn_until(&pair[i]->writable);
	}
	*state = pair;
	return 0;
}

static int teardown(void **state)
{
	loop_turn(0);
	loop_fini();
	mem_drain();
	return 0;
}

static void data_and_readiness(void **state)
{
	struct conn **p = *state, *a = p[0], *b = p[1];
	char buf[16];

	assert_int_equal(get(b, buf, 4), CONN_AGAIN);
	assert_false(b->readable);
	assert_int_equal(put(a, "hello"), 5);
	assert_int_equal(conn_unsent(a), 0);
	turn_until(&b->readable);
	assert_int_equal(get(b, buf, 2), 2);
	assert_true(b->readable); /* there is more */
	assert_int_equal(get(b, buf + 2, sizeof(buf) - 2), 3);
	assert_memory_equal(buf, "hello", 5);
	assert_false(b->readable);
	conn_close(a);
	conn_close(b);
}

static void full_and_writable_again(void **state)
{
	struct conn **p = *state, *a = p[0], *b = p[1];
	size_t sent = 0, size = 1 << 16, got = 0;
	char *big = calloc(1, size);
	struct iovec iov = { big, size };
	ssize_t n;

	while (a->writable) {
		n = conn_writev(a, &iov, 1);
		if (n > 0)
			sent += (size_t)n;
		else
			assert_int_equal(n, CONN_AGAIN);
	}
	for (int i = 0; i < 2000 && got < sent; i++) {
		while ((n = get(b, big, size)) > 0)
			got += (size_t)n;
		assert_int_equal(n, CONN_AGAIN);
		loop_turn(10);
	}
	assert_int_equal(got, sent);
	turn_until(&a->writable);
	free(big);
	conn_close(a);
	conn_close(b);
}

static void half_close(void **state)
{
	struct conn **p = *state, *a = p[0], *b = p[1];
	char buf[16];

	assert_int_equal(put(a, "last"), 4);
	assert_int_equal(conn_shut(a), 0);
	turn_until(&b->peer_shut);
	assert_int_equal(get(b, buf, sizeof(buf)), 4);
	assert_true(b->readable); /* the end is still to be read */
	assert_int_equal(get(b, buf, sizeof(buf)), 0);
	assert_false(b->hup);
	assert_int_equal(put(b, "answer"), 6);
	turn_until(&a->readable);
	assert_int_equal(get(a, buf, sizeof(buf)), 6);
	conn_close(b);
	turn_until(&a->hup);
	assert_int_equal(get(a, buf, sizeof(buf)), 0);
	conn_close(a);
}

static void orderly_close_delivers(void **state)
{
	struct conn **p = *state, *a = p[0], *b = p[1];
	char buf[16];

	assert_int_equal(put(b, "unread"), 6);
	turn_until(&a->readable);
	assert_int_equal(put(a, "bye"), 3);
	conn_close(a);
	turn_until(&b->peer_shut);
	assert_int_equal(get(b, buf, sizeof(buf)), 3);
	assert_int_equal(get(b, buf, sizeof(buf)), 0);
	conn_close(b);
}

/* What both sides have ended is not ended again, but nothing of it is lost. */
static void closing_after_both_ends_delivers(void **state)
{
	struct conn **p = *state, *a = p[0], *b = p[1];
	char buf[16];

	assert_int_equal(conn_shut(b), 0);
	turn_until(&a->peer_shut);
	assert_int_equal(get(a, buf, sizeof(buf)), 0);
	assert_int_equal(put(a, "bye"), 3);
	assert_int_equal(conn_shut(a), 0);
	conn_close(a);
	turn_until(&b->peer_shut);
	assert_int_equal(get(b, buf, sizeof(buf)), 3);
	assert_int_equal(get(b, buf, sizeof(buf)), 0);
	conn_close(b);
}

/* Its end is not yet read: what is left there would make an RST of the close. */
static void closing_with_bytes_unread_is_no_reset(void **state)
{
	struct conn **p = *state, *a = p[0], *b = p[1];
	char buf[16];

	assert_int_equal(put(b, "unread"), 6);
	assert_int_equal(conn_shut(b), 0);
	turn_until(&a->peer_shut);
	assert_int_equal(put(a, "bye"), 3);
	assert_int_equal(conn_shut(a), 0);
	conn_close(a);
	turn_until(&b->peer_shut);
	assert_int_equal(get(b, buf, sizeof(buf)), 3);
	assert_int_equal(get(b, buf, sizeof(buf)), 0);
	conn_close(b);
}

static void abort_is_a_reset(void **state)
{
	struct conn **p = *state, *a = p[0], *b = p[1];
	char buf[16];

	conn_abort(a);
	turn_until(&b->hup);
	assert_int_equal(get(b, buf, sizeof(buf)), CONN_FAILED);
	assert_int_equal(b->error, ECONNRESET);
	assert_int_equal(put(b, "x"), CONN_FAILED);
	assert_int_equal(b->error, ECONNRESET); /* the first cause stays */
	conn_abort(b);
}

static void nothing_is_heard_after_the_end(void **state)
{
	struct conn **p = *state, *a = p[0], *b = p[1];

	assert_int_equal(put(a, "x"), 1);
	conn_close(b);
	conn_close(a);
	calls = 0;
	loop_turn(0);
	loop_turn(0);
	assert_int_equal(calls, 0);
}

static void detach_and_attach(void **state)
{
	struct conn **p = *state, *a = p[0], *b = p[1];
	char buf[16];
	int fd = conn_fd(b);

	loop_turn(0);
	conn_detach(b);
	assert_int_equal(conn_fd(b), fd);
	assert_int_equal(put(a, "while away"), 10);
	calls = 0;
	loop_turn(10);
	assert_int_equal(calls, 0);
	assert_int_equal(conn_attach(b), 0);
	turn_until(&b->readable);
	assert_int_equal(get(b, buf, sizeof(buf)), 10);
	conn_close(a);
	conn_detach(b);
	conn_abort(b); /* also while it belongs to no loop */
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(data_and_readiness),	T(full_and_writable_again),	   T(half_close),	 T(orderly_close_delivers),
		T(closing_after_both_ends_delivers), T(closing_with_bytes_unread_is_no_reset),
		T(abort_is_a_reset),	T(nothing_is_heard_after_the_end), T(detach_and_attach),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

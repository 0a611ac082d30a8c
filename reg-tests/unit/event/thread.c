/* Threads and mailboxes: order for each pair of threads, posts to oneself, stopping, signals. */
#include "mctunnel/event/thread.h"

#include "mctunnel/base/clock.h"
#include "mctunnel/event/loop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define THREADS 4
#define BURST 32
#define EACH 8000 /* messages from each thread to each thread: 128,000 in all */

/* What a thread knows; touched by that thread only. */
static struct {
	int sent;          /* to each other thread and itself */
	int from[THREADS]; /* the number of the last message from there */
	int received, wrong;
	struct deferred more;
} peers[THREADS];

static atomic_int finished;

struct numbered {
	struct msg msg;
	int from, number;
};

static void check_done(int me)
{
	if (peers[me].received == THREADS * EACH && atomic_fetch_add(&finished, 1) == THREADS - 1)
		threads_stop();
}

static void receive(struct msg *m)
{
	struct numbered *n = (struct numbered *)m;
	int me = thread_self();

	if (n->number != ++peers[me].from[n->from])
		peers[me].wrong++;
	peers[me].received++;
	free(n);
	check_done(me);
}

static void send_burst(struct deferred *d)
{
	int me = thread_self();

	for (int i = 0; i < BURST && peers[me].sent < EACH; i++) {
		peers[me].sent++;
		for (int to = 0; to < thread_count(); to++) {
			struct numbered *n = malloc(sizeof(*n));

			n->msg.run = receive;
			n->from = me;
			n->number = peers[me].sent;
			thread_post(to, &n->msg);
		}
	}
	if (peers[me].sent < EACH)
		loop_defer(d);
}

static void begin_sending(int me)
{
	deferred_init(&peers[me].more, send_burst);
	loop_defer(&peers[me].more);
}

static void keeps_the_order_of_each_pair(void **state)
{
	volatile uint64_t beats[THREADS] = { 0 };

	memset(peers, 0, sizeof(peers));
	atomic_store(&finished, 0);
	threads_run(THREADS, beats, begin_sending, NULL);
	for (int i = 0; i < THREADS; i++) {
		assert_int_equal(peers[i].received, THREADS * EACH);
		assert_int_equal(peers[i].wrong, 0);
		assert_true(beats[i] > 0);
	}
	assert_int_equal(thread_self(), 0);
	assert_int_equal(thread_count(), 1);
}

static int ran;

static void count_run(struct msg *m)
{
	ran++;
}

static void a_single_thread_posts_to_itself(void **state)
{
	struct msg a = { .run = count_run }, b = { .run = count_run };

	for (int round = 0; round < 2; round++) {
		ran = 0;
		loop_init();
		thread_post(0, &a);
		thread_post(0, &b);
		assert_int_equal(ran, 0);
		loop_turn(-1);
		assert_int_equal(ran, 2);
		loop_fini();
	}
}

static uint64_t posted_us, taken_us;

static void note_time(struct msg *m)
{
	taken_us = clock_us();
}

/* In the middle of a turn, whose time was read before. */
static void post_later(struct deferred *d)
{
	static struct msg m = { .run = note_time };
	struct timespec ts;

	do {
		clock_gettime(CLOCK_MONOTONIC, &ts);
		posted_us = (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
	} while (posted_us <= clock_us());
	thread_post(0, &m);
}

/* Who reads a time in a message must not take it for one of the future. */
static void a_message_is_not_older_than_the_clock(void **state)
{
	struct deferred d;

	loop_init();
	deferred_init(&d, post_later);
	loop_defer(&d);
	loop_turn(0);
	assert_true(taken_us >= posted_us);
	loop_fini();
}

static atomic_int setups, teardowns, masked;

static void setup_stop(int i)
{
	sigset_t now;

	atomic_fetch_add(&setups, 1);
	pthread_sigmask(SIG_SETMASK, NULL, &now);
	if (sigismember(&now, SIGTERM) && !sigismember(&now, SIGSEGV))
		atomic_fetch_add(&masked, 1);
	threads_stop();
}

static void teardown_count(int i)
{
	atomic_fetch_add(&teardowns, 1);
}

static void may_stop_at_once_and_run_again(void **state)
{
	for (int round = 0; round < 20; round++) {
		atomic_store(&setups, 0);
		atomic_store(&teardowns, 0);
		atomic_store(&masked, 0);
		threads_run(3, NULL, setup_stop, teardown_count);
		assert_int_equal(setups, 3);
		assert_int_equal(teardowns, 3);
		assert_int_equal(masked, 2);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_single_thread_posts_to_itself),
		cmocka_unit_test(keeps_the_order_of_each_pair),
		cmocka_unit_test(a_message_is_not_older_than_the_clock),
		cmocka_unit_test(may_stop_at_once_and_run_again),
		cmocka_unit_test(a_single_thread_posts_to_itself),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The thread for work that would hold up a loop: order, results that come back to a loop, what is handed over when there is none, and its end. */
#include "mctunnel/event/aside.h"

#include "mctunnel/base/list.h"
#include "mctunnel/event/thread.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define PIECES 100

struct piece {
	struct aside aside;
	struct msg msg;
	int number, place;
};

static struct piece pieces[PIECES];
static int done, back, on_loop;

static void come_back(struct msg *m)
{
	struct piece *p = container_of(m, struct piece, msg);

	assert_int_equal(thread_self(), 0);
	assert_int_equal(p->number, back++);
	if (back == PIECES)
		threads_stop();
}

static void work(struct aside *a)
{
	struct piece *p = container_of(a, struct piece, aside);

	p->place = done++;
	on_loop += thread_self() >= 0;
	p->msg.run = come_back;
	if (thread_self() < 0)
		thread_post(0, &p->msg);
}

static void begin(void)
{
	done = back = on_loop = 0;
	for (int i = 0; i < PIECES; i++)
		pieces[i] = (struct piece){ .number = i, .place = -1 };
}

static void hand_over(int thread)
{
	aside_open();
	for (int i = 0; i < PIECES; i++)
		aside_run(&pieces[i].aside, work);
}

static void end(int thread)
{
	aside_close();
}

static void test_in_order_and_back(void **state)
{
	begin();
	threads_run(1, NULL, hand_over, end);
	assert_int_equal(back, PIECES);
	assert_int_equal(on_loop, 0);
	for (int i = 0; i < PIECES; i++)
		assert_int_equal(pieces[i].place, i);
}

static void hand_over_and_stop(int thread)
{
	hand_over(thread);
	threads_stop();
}

static void test_end_waits_for_all(void **state)
{
	begin();
	threads_run(1, NULL, hand_over_and_stop, end);
	assert_int_equal(done, PIECES);
	assert_true(aside_closing());
}

static void test_at_once_without_the_thread(void **state)
{
	begin();
	aside_run(&pieces[0].aside, work);
	assert_int_equal(pieces[0].place, 0);
	assert_int_equal(on_loop, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_at_once_without_the_thread),
		cmocka_unit_test(test_in_order_and_back),
		cmocka_unit_test(test_end_waits_for_all),
		cmocka_unit_test(test_at_once_without_the_thread),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

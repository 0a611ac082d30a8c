/* The event loop: edges, unwatching in the middle of a turn, timers, deferred work, heartbeat. */
#include "mctunnel/event/loop.h"

#include "mctunnel/base/clock.h"
#include "mctunnel/base/timer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

struct probe {
	struct watch watch;
	int calls, fd, peer;
	unsigned events;
	struct probe *kills; /* unwatched and freed when this one is called */
};

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static int start(void **state)
{
	loop_init();
	return 0;
}

static int end(void **state)
{
	loop_fini();
	return 0;
}

static void probe_free(struct probe *p)
{
	loop_unwatch(&p->watch);
	close(p->fd);
	close(p->peer);
	free(p);
}

static void on_probe(struct watch *w, unsigned events)
{
	struct probe *p = container_of(w, struct probe, watch);

	p->calls++;
	p->events = events;
	if (p->kills) {
		probe_free(p->kills);
		p->kills = NULL;
	}
}

static struct probe *probe_new(void)
{
	struct probe *p = calloc(1, sizeof(*p));
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
	p->fd = fds[0];
	p->peer = fds[1];
	assert_int_equal(loop_watch(&p->watch, p->fd, on_probe), 0);
	return p;
}

static void reports_edges_once(void **state)
{
	struct probe *p = probe_new();

	assert_true(loop_turn(0));
	assert_int_equal(p->calls, 1);
	assert_int_equal(p->events, LOOP_WRITE);
	loop_turn(0);
	assert_int_equal(p->calls, 1);
	assert_int_equal(write(p->peer, "x", 1), 1);
	loop_turn(0);
	assert_int_equal(p->calls, 2);
	assert_true(p->events & LOOP_READ);
	loop_turn(0);
	assert_int_equal(p->calls, 2);
	probe_free(p);
}

static void tells_half_close_from_close(void **state)
{
	struct probe *p = probe_new();

	loop_turn(0);
	shutdown(p->peer, SHUT_WR);
	loop_turn(0);
	assert_true(p->events & LOOP_PEER_SHUT);
	assert_false(p->events & LOOP_HUP);
	close(p->peer);
	loop_turn(0);
	assert_true(p->events & LOOP_HUP);
	p->peer = -1;
	probe_free(p);
}

static void unwatched_in_the_turn_is_not_called(void **state)
{
	struct probe *a = probe_new(), *b = probe_new();

	/* both are ready, in the order of watching */
	a->kills = b;
	loop_turn(0);
	assert_int_equal(a->calls, 1);
	assert_null(a->kills);
	loop_turn(0);
	assert_int_equal(a->calls, 1);
	probe_free(a);
}

static void probe_forget(struct probe *p)
{
	loop_forget(&p->watch);
	assert_int_equal(p->watch.fd, -1);
	close(p->fd);
	close(p->peer);
	free(p);
}

static void on_killer(struct watch *w, unsigned events)
{
	struct probe *p = container_of(w, struct probe, watch);

	p->calls++;
	if (p->kills)
		probe_forget(p->kills);
	p->kills = NULL;
}

static void forgotten_is_not_called(void **state)
{
	struct probe *a = probe_new(), *b = probe_new(), *c;
	int fd = b->fd;

	a->watch.on_ready = on_killer;
	a->kills = b;
	loop_turn(0);
	assert_int_equal(a->calls, 1);
	c = probe_new(); /* the number is free for another one */
	assert_true(c->fd == fd || c->peer == fd);
	loop_turn(0);
	assert_int_equal(c->calls, 1);
	assert_int_equal(a->calls, 1);
	probe_free(a);
	probe_free(c);
}

static void refuses_what_cannot_be_watched(void **state)
{
	struct watch w = { 0 };

	loop_unwatch(&w); /* a zeroed watch is not watched */
	int fd = dup(0);
	close(fd);
	assert_int_equal(loop_watch(&w, fd, on_probe), -1);
	assert_int_equal(errno, EBADF);
	assert_int_equal(w.fd, -1);
	loop_unwatch(&w);
}

static void listener_is_level_triggered(void **state)
{
	struct probe p = { .calls = 0 };
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	socklen_t len = sizeof(sa_family_t);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&name, len), 0); /* autobind */
	assert_int_equal(listen(fd, 4), 0);
	len = sizeof(name);
	getsockname(fd, (struct sockaddr *)&name, &len);
	assert_int_equal(loop_watch_listener(&p.watch, fd, on_probe), 0);
	loop_turn(0);
	assert_int_equal(p.calls, 0);
	assert_int_equal(connect(client, (struct sockaddr *)&name, len), 0);
	loop_turn(0);
	loop_turn(0);
	assert_int_equal(p.calls, 2);
	assert_int_equal(p.events, LOOP_READ);
	loop_unwatch(&p.watch);
	loop_turn(0);
	assert_int_equal(p.calls, 2);
	close(fd);
	close(client);
}

static int fired;

static void on_fire(struct timer *t)
{
	fired++;
	loop_stop();
}

static void waits_for_the_next_timer(void **state)
{
	struct timer t;
	uint64_t begin = now_ms();

	clock_update(); /* the timer counts from here, not from the setup */
	fired = 0;
	timer_init(&t, on_fire);
	timer_start(&t, 30);
	loop_run();
	assert_int_equal(fired, 1);
	assert_in_range(now_ms() - begin, 29, 5000);
}

static void stop_is_remembered(void **state)
{
	loop_stop();
	assert_false(loop_turn(-1));
	loop_run();
	assert_true(loop_turn(0));
}

static int runs;

static void again(struct deferred *d)
{
	if (++runs < 10)
		loop_defer(d);
}

static void deferred_work_is_bounded_by_turn(void **state)
{
	struct deferred d;

	runs = 0;
	deferred_init(&d, again);
	loop_defer(&d);
	loop_defer(&d);
	loop_turn(0);
	assert_in_range(runs, 2, 5);
	for (int i = 0; i < 10; i++)
		loop_turn(runs < 10 ? -1 : 0); /* does not wait while there is work */
	assert_int_equal(runs, 10);
	loop_defer(&d);
	loop_undefer(&d);
	loop_turn(0);
	assert_int_equal(runs, 10);
}

static struct deferred second;

static void undefer_second(struct deferred *d)
{
	runs++;
	loop_undefer(&second);
}

static void undefer_from_within(void **state)
{
	struct deferred first;

	runs = 0;
	deferred_init(&first, undefer_second);
	deferred_init(&second, again);
	loop_defer(&first);
	loop_defer(&second);
	loop_turn(0);
	assert_int_equal(runs, 1);
}

static void on_alarm(int sig)
{
}

static void beats_and_survives_signals(void **state)
{
	volatile uint64_t beat = 0;
	struct sigaction sa = { .sa_handler = on_alarm };
	timer_t alarm;
	struct sigevent ev = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM };
	struct itimerspec in = { .it_value.tv_nsec = 20 * 1000000, .it_interval.tv_nsec = 20 * 1000000 }; /* one may come before the wait */
	uint64_t begin;

	sigaction(SIGALRM, &sa, NULL);
	assert_int_equal(timer_create(CLOCK_MONOTONIC, &ev, &alarm), 0);
	timer_settime(alarm, 0, &in, NULL);
	assert_true(loop_turn(-1)); /* ended by a signal: there is nothing else to wait for */
	timer_delete(alarm);
	loop_heartbeat(&beat);
	begin = now_ms();
	assert_true(loop_turn(0));
	assert_true(beat >= begin);
	begin = now_ms();
	assert_true(loop_turn(-1)); /* ended by the next beat */
	assert_in_range(beat, begin + 90, begin + 20000);
	loop_heartbeat(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(reports_edges_once, start, end),
		cmocka_unit_test_setup_teardown(tells_half_close_from_close, start, end),
		cmocka_unit_test_setup_teardown(unwatched_in_the_turn_is_not_called, start, end),
		cmocka_unit_test_setup_teardown(forgotten_is_not_called, start, end),
		cmocka_unit_test_setup_teardown(refuses_what_cannot_be_watched, start, end),
		cmocka_unit_test_setup_teardown(listener_is_level_triggered, start, end),
		cmocka_unit_test_setup_teardown(waits_for_the_next_timer, start, end),
		cmocka_unit_test_setup_teardown(stop_is_remembered, start, end),
		cmocka_unit_test_setup_teardown(deferred_work_is_bounded_by_turn, start, end),
		cmocka_unit_test_setup_teardown(undefer_from_within, start, end),
		cmocka_unit_test_setup_teardown(beats_and_survives_signals, start, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

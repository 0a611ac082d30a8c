/* The event loop of a thread, over epoll.
 * Owns the epoll descriptor, the events of the current turn and the list of deferred work. Descriptors,
 * watches and timers belong to others. It does not know what a descriptor is for, and nothing of other
 * threads: their messages arrive through an ordinary watch (thread.c). */
#include "mctunnel/event/loop.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/timer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_MAX 256
#define PASSES_MAX 3 /* over the deferred work in one turn, so that work making work cannot hold up the sockets */
#define HEARTBEAT_MS 100 /* an idle loop beats as often: global.health_timeout is a few times as long */
#define LOAD_US 1000000

struct loop {
	int epfd;
	bool stopped, turning;
	int count, next; /* events of this turn; the first one not yet handled */
	struct list work;
	volatile uint64_t *heartbeat; /* borrowed; may be NULL */
	struct loop_figures figures;
	uint64_t woke_us;               /* when the last wait ended */
	uint64_t window_us, window_busy; /* begin of the time the load is of, and busy_us then */
	struct epoll_event events[EVENTS_MAX];
};

static _Thread_local struct loop *loop;

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* Around the wait: what was work, and what was not. */
static uint64_t note_work(void)
{
	uint64_t now = now_us(), span = now - loop->window_us;
	struct loop_figures *f = &loop->figures;

	f->turns++;
	f->busy_us += now - loop->woke_us;
	if (span >= LOAD_US) {
		f->load = (unsigned)((f->busy_us - loop->window_busy) * 100 / span);
		loop->window_us = now;
		loop->window_busy = f->busy_us;
	}
	return now;
}

static void note_wait(uint64_t since)
{
	loop->woke_us = now_us();
	loop->figures.idle_us += loop->woke_us - since;
}

void loop_figures(struct loop_figures *out)
{
	BUG_ON(!loop);
	*out = loop->figures;
}

void loop_init(void)
{
	BUG_ON(loop);
	loop = xcalloc(1, sizeof(*loop));
	loop->epfd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epfd < 0)
		die("cannot make an event loop: %s", strerror(errno));
	list_init(&loop->work);
	clock_update();
	loop->woke_us = loop->window_us = now_us();
}

void loop_fini(void)
{
	BUG_ON(!loop || loop->turning);
	while (!list_empty(&loop->work))
		list_del(loop->work.next);
	close(loop->epfd);
	free(loop);
	loop = NULL;
}

static int watch_add(struct watch *w, int fd, void (*on_ready)(struct watch *, unsigned), uint32_t events)
{
	struct epoll_event e = { .events = events, .data.ptr = w };

	BUG_ON(!loop || fd < 0 || !on_ready);
	w->fd = -1;
	w->on_ready = on_ready;
	if (epoll_ctl(loop->epfd, EPOLL_CTL_ADD, fd, &e) < 0)
		return -1;
	w->fd = fd;
	return 0;
}

int loop_watch(struct watch *w, int fd, void (*on_ready)(struct watch *, unsigned))
{
	return watch_add(w, fd, on_ready, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
}

int loop_watch_listener(struct watch *w, int fd, void (*on_ready)(struct watch *, unsigned))
{
	return watch_add(w, fd, on_ready, EPOLLIN | EPOLLEXCLUSIVE);
}

/* What this turn has in store for it. */
static void drop_events(const struct watch *w)
{
	for (int i = loop->next; i < loop->count; i++) {
		if (loop->events[i].data.ptr == w)
			loop->events[i].data.ptr = NULL;
	}
}

void loop_unwatch(struct watch *w)
{
	if (w->fd < 0 || !w->on_ready)
		return;
	/* fails only when the descriptor was closed first or belongs to another thread's loop */
	BUG_ON(loop && epoll_ctl(loop->epfd, EPOLL_CTL_DEL, w->fd, NULL) < 0);
	loop_forget(w);
}

void loop_forget(struct watch *w)
{
	if (w->fd < 0 || !w->on_ready)
		return;
	if (loop)
		drop_events(w);
	w->fd = -1;
}

void deferred_init(struct deferred *d, void (*run)(struct deferred *))
{
	list_init(&d->node);
	d->run = run;
}

void loop_defer(struct deferred *d)
{
	BUG_ON(!loop || !d->run);
	if (list_empty(&d->node))
		list_add(&loop->work, &d->node);
}

void loop_undefer(struct deferred *d)
{
	list_del(&d->node);
}

void loop_heartbeat(volatile uint64_t *place)
{
	BUG_ON(!loop);
	loop->heartbeat = place;
}

void loop_stop(void)
{
	BUG_ON(!loop);
	loop->stopped = true;
}

void loop_run(void)
{
	while (loop_turn(-1))
		;
	loop->stopped = false;
}

/* The master compares the beat with its own clock, so this is the system's time and not the thread's. */
static void beat(void)
{
	struct timespec ts;

	if (!loop->heartbeat)
		return;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	*loop->heartbeat = (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* Of two waiting times, -1 meaning for ever, the shorter. */
static int shorter(int a, int b)
{
	if (a < 0)
		return b;
	return b < 0 || a < b ? a : b;
}

static int wait_ms(int max)
{
	if (!list_empty(&loop->work))
		return 0;
	if (loop->heartbeat)
		max = shorter(max, HEARTBEAT_MS);
	return shorter(max, timers_wait_ms());
}

static void wait_ready(int ms)
{
	uint64_t since = note_work();
	int n = epoll_wait(loop->epfd, loop->events, EVENTS_MAX, ms);

	BUG_ON(n < 0 && errno != EINTR); /* interrupted: an empty turn */
	note_wait(since);
	loop->next = 0;
	loop->count = n < 0 ? 0 : n;
}

static unsigned translate(uint32_t e)
{
	return (e & EPOLLIN ? LOOP_READ : 0) | (e & EPOLLOUT ? LOOP_WRITE : 0) |
	       (e & (EPOLLHUP | EPOLLERR) ? LOOP_HUP : 0) | (e & EPOLLRDHUP ? LOOP_PEER_SHUT : 0);
}

static void run_ready(void)
{
	while (loop->next < loop->count) {
		struct epoll_event *e = &loop->events[loop->next++];
		struct watch *w = e->data.ptr;

		if (w)
			w->on_ready(w, translate(e->events));
	}
}

static void run_deferred(void)
{
	struct list batch;

	list_init(&batch);
	for (int pass = 0; pass < PASSES_MAX && !list_empty(&loop->work); pass++) {
		list_splice(&batch, &loop->work);
		while (!list_empty(&batch)) {
			struct deferred *d = list_first(&batch, struct deferred, node);

			list_del(&d->node);
			d->run(d);
		}
	}
}

bool loop_turn(int max_wait_ms)
{
	BUG_ON(!loop || loop->turning);
	if (loop->stopped)
		return false;
	loop->turning = true;
	wait_ready(wait_ms(max_wait_ms));
	clock_update();
	beat();
	run_ready();
	timers_run();
	run_deferred();
	mem_reclaim();
	loop->turning = false;
	return !loop->stopped;
}

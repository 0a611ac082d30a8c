/* The worker's threads and the messages between them.
 * Owns the threads, a mailbox for each (a lock-free stack that its thread empties at once and turns round)
 * and the eventfd that wakes it. It does not know what a message says, nor who owns what it points to. */
#define _GNU_SOURCE
#include "mctunnel/event/thread.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/event/loop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct mailbox {
	_Atomic(struct msg *) newest; /* owned; each points to the one posted before it */
	int fd;                       /* eventfd, while threads run */
	pthread_t id;
	struct watch wakeup;
	struct deferred own; /* delivers what the thread posted to itself, without a trip through the kernel */
	struct msg stop;
	atomic_bool stopping; /* the stop message has been posted */
	uint64_t delivered;   /* messages run; the thread's own */
	struct msg *lost;     /* what nobody ran when the threads last ended */
} __attribute__((aligned(64)));

static struct {
	int count;
	bool running;
	volatile uint64_t *heartbeat;
	void (*setup)(int);
	void (*teardown)(int);
} threads = { .count = 1 };

static struct mailbox boxes[THREAD_MAX];
static _Thread_local int self;

int thread_self(void)
{
	return self;
}

int thread_count(void)
{
	return threads.count;
}

uint64_t thread_delivered(void)
{
	return boxes[self].delivered;
}

static void deliver(struct mailbox *box)
{
	struct msg *m = atomic_exchange_explicit(&box->newest, NULL, memory_order_acquire);
	struct msg *oldest = NULL;

	clock_update(); /* times that messages bring are not later than ours */
	while (m) {
		struct msg *before = m->next;

		m->next = oldest;
		oldest = m;
		m = before;
	}
	while (oldest) {
		m = oldest;
		oldest = m->next;
		box->delivered++;
		m->run(m);
	}
}

static void deliver_own(struct deferred *d)
{
	deliver(container_of(d, struct mailbox, own));
}

/* The eventfd is never read: each write to it is a new edge, and its counter does not fill up in centuries. */
static void on_wakeup(struct watch *w, unsigned events)
{
	deliver(container_of(w, struct mailbox, wakeup));
}

static void wake(struct mailbox *box)
{
	uint64_t one = 1;
	ssize_t n;

	do
		n = write(box->fd, &one, sizeof(one));
	while (n < 0 && errno == EINTR);
	BUG_ON(n != sizeof(one));
}

void thread_post(int thread, struct msg *m)
{
	BUG_ON(thread < 0 || thread >= threads.count || !m->run);

	struct mailbox *box = &boxes[thread];
	struct msg *before = atomic_load_explicit(&box->newest, memory_order_relaxed);

	do
		m->next = before;
	while (!atomic_compare_exchange_weak_explicit(&box->newest, &before, m, memory_order_release, memory_order_relaxed));
	if (thread == self) {
		if (!box->own.run)
			deferred_init(&box->own, deliver_own); /* before threads_run() */
		loop_defer(&box->own);
	} else if (!before) {
		wake(box);
	}
}

static void stop_this(struct msg *m)
{
	loop_stop();
}

void threads_stop(void)
{
	for (int i = 0; i < threads.count; i++) {
		if (!atomic_exchange(&boxes[i].stopping, true))
			thread_post(i, &boxes[i].stop);
	}
}

static void thread_run(int i)
{
	struct mailbox *box = &boxes[i];

	self = i;
	loop_init();
	if (loop_watch(&box->wakeup, box->fd, on_wakeup) < 0)
		die("cannot watch the mailbox of thread %d: %s", i, strerror(errno));
	loop_defer(&box->own); /* posted before there was a loop to wake */
	loop_heartbeat(threads.heartbeat ? threads.heartbeat + i : NULL);
	if (threads.setup)
		threads.setup(i);
	loop_run();
	if (threads.teardown)
		threads.teardown(i);
	loop_unwatch(&box->wakeup);
	loop_fini();
	mem_reclaim();
	mem_drain();
}

static void *thread_main(void *arg)
{
	struct mailbox *box = arg;
	char name[16];

	snprintf(name, sizeof(name), "loop/%d", (int)(box - boxes));
	pthread_setname_np(pthread_self(), name);
	thread_run((int)(box - boxes));
	return NULL;
}

static void box_open(struct mailbox *box)
{
	box->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (box->fd < 0)
		die("cannot make a mailbox: %s", strerror(errno));
	deferred_init(&box->own, deliver_own);
	box->stop.run = stop_this;
	atomic_store(&box->stopping, false);
}

static void box_close(struct mailbox *box)
{
	close(box->fd);
	box->lost = atomic_exchange(&box->newest, NULL);
}

/* Signals are for thread 0 alone, but for those that a thread brings upon itself. */
static void signals_of_others(sigset_t *set)
{
	static const int own[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS };

	sigfillset(set);
	for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
		sigdelset(set, own[i]);
}

static int start(pthread_t *id, void *(*run)(void *), void *arg)
{
	sigset_t blocked, before;
	int error;

	signals_of_others(&blocked);
	pthread_sigmask(SIG_SETMASK, &blocked, &before);
	error = pthread_create(id, NULL, run, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return error;
}

static void start_others(void)
{
	for (int i = 1; i < threads.count; i++) {
		int error = start(&boxes[i].id, thread_main, &boxes[i]);

		if (error)
			die("cannot start thread %d: %s", i, strerror(error));
	}
}

int thread_start(pthread_t *id, void *(*run)(void *))
{
	return start(id, run, NULL);
}

void thread_be_none(void)
{
	self = -1;
}

void threads_run(int count, volatile uint64_t *heartbeat, void (*setup)(int), void (*teardown)(int))
{
	BUG_ON(count < 1 || count > THREAD_MAX || threads.running);
	threads.running = true;
	threads.count = count;
	threads.heartbeat = heartbeat;
	threads.setup = setup;
	threads.teardown = teardown;
	for (int i = 0; i < count; i++)
		box_open(&boxes[i]);
	start_others();
	thread_run(0);
	for (int i = 1; i < count; i++)
		pthread_join(boxes[i].id, NULL);
	for (int i = 0; i < count; i++)
		box_close(&boxes[i]);
	threads.count = 1;
	threads.running = false;
}

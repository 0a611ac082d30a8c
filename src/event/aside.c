/* The thread for work that would hold up a loop. It is started when there is work for the first time, and waits for more until it is closed.
 * Owns the thread and its queue; what the work is, is not known here. The lock is held for a few instructions only, so that a loop that hands
 * something over does not wait for what is under way. */
#define _GNU_SOURCE
#include "mctunnel/event/aside.h"

#include "mctunnel/event/thread.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

static struct {
	pthread_mutex_t lock; /* for all but closing */
	pthread_cond_t more;
	struct aside *first, **last; /* owned; NULL: none waits */
	bool open, started;
	atomic_bool closing;
	pthread_t id;
} here = { .lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER };

/* NULL: none will come. */
static struct aside *next(void)
{
	struct aside *a;

	pthread_mutex_lock(&here.lock);
	while (!here.first && here.open)
		pthread_cond_wait(&here.more, &here.lock);
	a = here.first;
	if (a)
		here.first = a->next;
	pthread_mutex_unlock(&here.lock);
	return a;
}

static void *work(void *arg)
{
	struct aside *a;

	pthread_setname_np(pthread_self(), "aside");
	thread_be_none();
	while ((a = next()))
		a->run(a);
	return NULL;
}

static bool start(void)
{
	here.started = here.started || thread_start(&here.id, work) == 0;
	return here.started;
}

/* Under the lock. */
static bool take(struct aside *a)
{
	if (!here.open || !start())
		return false;
	if (!here.first)
		here.last = &here.first;
	a->next = NULL;
	*here.last = a;
	here.last = &a->next;
	pthread_cond_signal(&here.more);
	return true;
}

void aside_run(struct aside *a, void (*run)(struct aside *a))
{
	bool taken;

	a->run = run;
	pthread_mutex_lock(&here.lock);
	taken = thread_self() >= 0 && take(a);
	pthread_mutex_unlock(&here.lock);
	if (!taken)
		run(a);
}

void aside_open(void)
{
	pthread_mutex_lock(&here.lock);
	here.open = true;
	pthread_mutex_unlock(&here.lock);
	atomic_store(&here.closing, false);
}

void aside_close(void)
{
	bool started;

	atomic_store(&here.closing, true);
	pthread_mutex_lock(&here.lock);
	here.open = false;
	started = here.started;
	here.started = false;
	pthread_cond_signal(&here.more);
	pthread_mutex_unlock(&here.lock);
	if (started)
		pthread_join(here.id, NULL);
}

bool aside_closing(void)
{
	return atomic_load(&here.closing);
}

/* The threads of the worker: each with a loop and a mailbox. Messages are the only thing that passes between them. */
#ifndef MCTUNNEL_EVENT_THREAD_H
#define MCTUNNEL_EVENT_THREAD_H

#include <pthread.h>
#include <stdint.h>

#define THREAD_MAX 64

/* Embed it at the start of a message; run() executes on the receiving thread and owns the message. */
struct msg {
	struct msg *next;
	void (*run)(struct msg *m);
};

/* Makes and runs `count` loops (so no loop_init() before): this thread becomes number 0, the others are started.
 * setup(i) runs on each thread before its loop, teardown(i) after; returns when all loops have stopped.
 * heartbeat: array of `count` places, or NULL. Signals reach thread 0 only. setup and teardown may be NULL. */
void threads_run(int count, volatile uint64_t *heartbeat, void (*setup)(int), void (*teardown)(int));

/* Stops every loop, once it has run what was posted before; may be called on any of the threads. */
void threads_stop(void);

int thread_self(void);  /* 0 before threads_run(), -1 on a thread without a loop */
int thread_count(void); /* 1 before threads_run() */
uint64_t thread_delivered(void); /* messages the calling thread has run */

/* For threads without a loop beside these: with signals blocked but those it brings upon itself. 0 or an errno; to be joined by the caller. It says itself
 * that it is none of those with a loop, and may then post to them. */
int thread_start(pthread_t *id, void *(*run)(void *)) __attribute__((warn_unused_result));
void thread_be_none(void);

/* Hands a message over; a thread runs its messages in the order in which they were posted, whoever posted them, so that one which was
 * posted because of another never overtakes it; never blocks, never fails. To oneself it is run later in the turn
 * or in the next one, not inside this call. Messages posted to a thread that has stopped are run by nobody; their owner is
 * leaked to the end of the process. Before threads_run() there is thread 0 only, and loop_init() must have been called. */
void thread_post(int thread, struct msg *m);

#endif

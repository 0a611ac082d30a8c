/* Timers of a thread: a hierarchical wheel of one-millisecond ticks. Starting and
 * stopping cost O(1), a timer that is not running costs nothing. One wheel a thread;
 * an object that moves to another thread stops its timers before it leaves. */
#ifndef MCTUNNEL_BASE_TIMER_H
#define MCTUNNEL_BASE_TIMER_H

#include "mctunnel/base/list.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct timer {
	struct list node;  /* in the wheel while running */
	uint64_t at_ms;
	void (*on_fire)(struct timer *t);
};

/* Must be called once before any other call on the timer. */
void timer_init(struct timer *t, void (*on_fire)(struct timer *));

/* (Re)starts: fires once, delay_ms after clock_ms(), not before the next timers_run(). */
void timer_start(struct timer *t, uint64_t delay_ms);
void timer_stop(struct timer *t);
bool timer_running(const struct timer *t);

/* Fires what is due at clock_ms(). A timer may start or stop any timer from on_fire. */
void timers_run(void);

/* Milliseconds until the next timer may be due, 0 when one is, -1 when none runs.
 * May be too early (the caller then just asks again), never too late. */
int timers_wait_ms(void);

/* Timers of this thread that run. */
size_t timers_count(void);

#endif

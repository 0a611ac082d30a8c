/* A limit of events a second, shared by all threads: evenly spaced, nothing is saved up while little happens. */
#ifndef MCTUNNEL_BASE_PACE_H
#define MCTUNNEL_BASE_PACE_H

#include <stdatomic.h>
#include <stdint.h>

struct pace { /* zeroes: nothing has been yet */
	atomic_uint_fast64_t next_ns;
};

/* 0: the event may be, and counts; else the milliseconds after which to ask again. rate: events a second, 0: any number. By clock_us(). */
uint64_t pace_take(struct pace *p, uint32_t rate) __attribute__((warn_unused_result));
/* What was taken just now at this rate did not happen. */
void pace_give(struct pace *p, uint32_t rate);

#endif

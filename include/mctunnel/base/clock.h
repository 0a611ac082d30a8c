/* Time as the loop sees it: one monotonic reading a turn, kept for the thread.
 * Timers and the session engine use only this, so that a test can drive it. */
#ifndef MCTUNNEL_BASE_CLOCK_H
#define MCTUNNEL_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

/* The thread's current time in milliseconds / microseconds since an arbitrary start. */
uint64_t clock_ms(void);
uint64_t clock_us(void);

/* Reads CLOCK_MONOTONIC into the thread's current time. */
void clock_update(void);

/* Tests: from now on the thread's time is this; clock_update() then does nothing. */
void clock_set_us(uint64_t us);

/* Wall clock as "2026-11-23T02:19:00.123Z"; buf has room for at least 32 bytes. */
void clock_wall(char *buf, size_t size);

#endif

/* The thread's idea of time: a reading of CLOCK_MONOTONIC taken when asked to, kept until the next.
 * Reading once a turn, and with messages of other threads, makes its decisions agree, and saves the system call. Knows nothing of timers. */
#include "mctunnel/base/clock.h"

#include "mctunnel/base/bug.h"

#include <stdbool.h>
#include <stdio.h>
#include <time.h>

static _Thread_local struct {
	uint64_t us, ms;
	bool known, driven; /* driven: by clock_set_us() */
} now;

static void set(uint64_t us)
{
	now.us = us;
	now.ms = us / 1000;
	now.known = true;
}

void clock_update(void)
{
	struct timespec ts;

	if (now.driven)
		return;
	BUG_ON(clock_gettime(CLOCK_MONOTONIC, &ts) != 0);
	set((uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000);
}

uint64_t clock_ms(void)
{
	if (!now.known)
		clock_update();
	return now.ms;
}

uint64_t clock_us(void)
{
	if (!now.known)
		clock_update();
	return now.us;
}

void clock_set_us(uint64_t us)
{
	now.driven = true;
	set(us);
}

void clock_wall(char *buf, size_t size)
{
	struct timespec ts;
	struct tm tm;
	size_t len;

	BUG_ON(size < 32);
	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	len = strftime(buf, size, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(buf + len, size - len, ".%03uZ", (unsigned)(ts.tv_nsec / 1000000) % 1000);
}

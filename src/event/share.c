/* Shares of a turn. Owns nothing. What the work is, and where it waits, is its caller's. */
#define _GNU_SOURCE
#include "mctunnel/event/share.h"

#include "mctunnel/base/clock.h"

#include <time.h>

/* clock_us() stands still while a turn lasts. */
static uint64_t exactly_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

void share_begin(struct share *s)
{
	if (s->turn_us != clock_us())
		s->spent_us = 0;
	s->turn_us = clock_us();
	s->since_us = exactly_us();
}

bool share_left(struct share *s, uint64_t limit_us)
{
	uint64_t now = exactly_us();

	s->spent_us += now - s->since_us;
	s->since_us = now;
	return s->spent_us < limit_us;
}

/* A share of each turn of the loop, for work that comes in thousands and can wait a little: so much time and no more, however often it is tried in the turn. */
#ifndef MCTUNNEL_EVENT_SHARE_H
#define MCTUNNEL_EVENT_SHARE_H

#include <stdbool.h>
#include <stdint.h>

/* Embedded; zeroed at first. Belongs to one thread. */
struct share {
	uint64_t turn_us;  /* the turn that is looked at */
	uint64_t spent_us; /* in it */
	uint64_t since_us; /* what comes after this is not counted yet */
};

void share_begin(struct share *s); /* before a row of such work */
/* Before each piece of it: what was done since the last call, or since the beginning, is counted. false: enough for this turn. */
bool share_left(struct share *s, uint64_t limit_us);

#endif

/* The rules of supervision, without any process: when a worker is started again, when it hangs, when to give up. */
#ifndef MCTUNNEL_MAIN_RESPAWN_H
#define MCTUNNEL_MAIN_RESPAWN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RESPAWN_STABLE_MS 1000    /* ready for so long: its death is no failure to start */
#define RESPAWN_DELAY_MIN_MS 100  /* after the second failure in a row, then doubling; after the first at once */
#define RESPAWN_DELAY_MAX_MS 5000
#define RESPAWN_FAILURES_MAX 10   /* in a row: give up */
#define RESPAWN_HANG_MS 2000      /* a loop that has not turned for so long hangs */
#define RESPAWN_START_MS 30000    /* neither ready nor dead after so long: hangs as well */

struct respawn {
	uint64_t started_at, ready_at; /* 0: not (yet) */
	uint64_t looked_at;            /* the last look at the heartbeats */
	uint64_t trusted_from;         /* heartbeats older than this may be our own sleep, not the worker's */
	unsigned failures;             /* in a row */
};

/* All times are milliseconds of one monotonic clock. */
void respawn_started(struct respawn *r, uint64_t now);
void respawn_ready(struct respawn *r, uint64_t now);

/* The worker has died: milliseconds until the next may start (0: at once), or -1: give up. */
int respawn_died(struct respawn *r, uint64_t now);

/* To be asked at least twice a second while a worker runs. beats: each thread's last turn, 0 for none. When this process
 * itself was held up between two looks (stopped, starved), the heartbeats get their time anew. */
bool respawn_hangs(struct respawn *r, const volatile uint64_t *beats, size_t n, uint64_t now);

#endif

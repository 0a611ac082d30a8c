/* Whether this host should have the virtual address, as far as its worker goes: numbers only, no process, no file, no clock. */
#ifndef MCTUNNEL_MAIN_FITNESS_H
#define MCTUNNEL_MAIN_FITNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FITNESS_LOOK_MS 50      /* how often fitness_look is to be asked, at most */
#define FITNESS_STABLE_MS 1000  /* once in doubt, a worker must do well for so long */
#define FITNESS_FAILURES 3      /* so many failed starts in a row: in doubt */

struct fitness {
	uint64_t seen_at;    /* until then every loop had turned, as far as is known; 0: no worker has been ready yet */
	uint64_t looked_at;
	uint64_t trusted_from; /* what is older may be our own sleep */
	uint64_t well_from;  /* when in doubt: it has done well since, 0: it does not */
	bool doubted;
};

/* May the address be here? ready: the worker is there and has said that it serves; beats: each thread's last turn, 0 for none; failures: starts that
 * failed in a row; limit: how old (ms) the oldest turn may be, or how long there may be no worker. All times are milliseconds of one monotonic clock.
 * Once the answer was no, it is yes only after FITNESS_STABLE_MS of good behaviour. When this process itself was held up between two looks, nobody is
 * blamed for that time. */
struct fitness_facts {
	bool ready;
	const volatile uint64_t *beats;
	size_t n;
	unsigned failures;
};
bool fitness_look(struct fitness *f, const struct fitness_facts *facts, uint64_t limit, uint64_t now);

#endif

/* What only the worker knows and the pages of the metrics address tell; all of it is called on their thread. */
#ifndef MCTUNNEL_ADMIN_STATE_H
#define MCTUNNEL_ADMIN_STATE_H

#include <stdbool.h>
#include <stdint.h>

struct conf;

struct metrics_state {
	bool (*ready)(void);        /* accepting, not draining */
	uint64_t (*restarts)(void); /* of the worker, by its master */
	struct conf *(*conf)(void); /* the one in force, borrowed */
	const char *(*phase)(void); /* starting, serving, draining, stopping */
};

#endif

/* The address of global.metrics: GET /metrics (Prometheus text), /healthz, /readyz, and a plain status page at /.
 * One request a connection, HTTP/1.0 and 1.1; the answer is made in memory at one moment and written as the socket takes it.
 * All of it lives on one thread. */
#ifndef MCTUNNEL_ADMIN_METRICS_H
#define MCTUNNEL_ADMIN_METRICS_H

#include <stdbool.h>
#include <stdint.h>

/* What only the worker knows. */
struct metrics_state {
	bool (*ready)(void);        /* accepting, not draining */
	uint64_t (*restarts)(void); /* of the worker, by its master */
};

/* Once, before metrics_open and before a chroot (it opens what it needs of /proc). state is borrowed until metrics_close. */
void metrics_init(const struct metrics_state *state);

/* Accepts on a listening socket, on the calling thread's loop. The descriptor is borrowed until metrics_close, and never shut
 * down. -1 with errno when the loop refuses. */
int metrics_open(int fd) __attribute__((warn_unused_result));

/* Stops accepting and breaks what is under way; on the thread of metrics_open, before its loop ends. Without metrics_init it does nothing. */
void metrics_close(void);

#endif

/* The address of global.metrics: GET /metrics (Prometheus text), /healthz, /readyz, the status page at / and what it is made from at /status.json.
 * All of it lives on one thread. */
#ifndef MCTUNNEL_ADMIN_METRICS_H
#define MCTUNNEL_ADMIN_METRICS_H

#include "mctunnel/admin/state.h"

#include <stdbool.h>

/* Once, before metrics_open and before a chroot (it opens what it needs of /proc). state is borrowed until metrics_close. */
void metrics_init(const struct metrics_state *state);

/* Accepts on a listening socket, on the calling thread's loop. The descriptor is borrowed until metrics_close, and never shut
 * down. -1 with errno when the loop refuses. */
int metrics_open(int fd) __attribute__((warn_unused_result));

/* From one listening socket to another (-1: none): what is under way is broken off. On the thread of metrics_open. */
int metrics_move(int fd) __attribute__((warn_unused_result));

/* Stops accepting and breaks what is under way; on the thread of metrics_open, before its loop ends. Without metrics_init it does nothing. */
void metrics_close(void);

/* A reload was done or refused (mctunnel_reloads_total). Any thread. */
void metrics_count_reload(bool done);

#endif

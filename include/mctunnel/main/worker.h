/* The worker: the single forwarding process. Runs hub and agent of a configuration until told to stop. */
#ifndef MCTUNNEL_MAIN_WORKER_H
#define MCTUNNEL_MAIN_WORKER_H

#include "mctunnel/base/ring.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct conf;
struct worker_socket;

/* What a master and its worker share. */
struct worker_shared {
	volatile uint64_t heartbeat[64]; /* each thread's last turn, CLOCK_MONOTONIC ms; 0: not running yet */
	volatile uint32_t restarts;      /* by the master */
	volatile uint32_t draining;      /* by the worker */
	volatile uint32_t vip;           /* by the worker: enum vip_state; kept for the next one */
	volatile uint32_t vip_unanswered; /* by the worker: commands that told it and wait for their answer */
	struct ring_page remains;        /* of the worker that died last: shown by the next one */
	uint8_t ticket_key[80];          /* TLS tickets stay good across restarts of the worker */
};

struct worker_args {
	struct conf *conf;                    /* borrowed */
	const struct worker_socket *sockets;  /* borrowed; descriptors belong to the worker from now on (it never shutdown()s them) */
	size_t sockets_n;
	struct worker_shared *shared;         /* never NULL: private memory when there is no master */
	int control;                          /* Unix socket to the master, see control.h; -1: none. Its end: the master died;
						 * close listening sockets, drain, exit. */
	int health_fd;                        /* to be given to notify_unfit() when the master is gone; -1: none */
	bool debug;                           /* -d: every target of the log at level debug */
	const char *const *paths;             /* borrowed: of the configuration; read again at a reload without a master */
	size_t paths_n;
};

/* Returns the exit code: 0 after a stop that was asked for. Signals USR1 (soft stop), TERM and INT (stop at once) work too. */
int worker_run(const struct worker_args *args);

#endif

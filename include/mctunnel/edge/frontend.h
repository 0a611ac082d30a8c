/* The hub's listeners and the clients that arrive there: accept, route, wait for an agent, hand over to the link's thread, session, log line. */
#ifndef MCTUNNEL_EDGE_FRONTEND_H
#define MCTUNNEL_EDGE_FRONTEND_H

#include "mctunnel/edge/visit.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct conf;
struct conf_listener;
struct generation;
struct tls_site;

/* Each thread: start accepting on a listening socket of listener l (fd is shared by the threads and the master; never closed or shut down here but by frontend_close). */
int frontend_open(struct conf *conf, const struct conf_listener *l, int fd) __attribute__((warn_unused_result));
/* Each thread: stop accepting everywhere (soft stop); sessions go on. Descriptors are not closed here. */
void frontend_close_all(void);
/* Each thread: waiting clients end with `why`. */
void frontend_stop(void);
/* Sessions of clients in the whole process now, waiting ones included. */
uint32_t frontend_sessions(void);

/* ---- reload ---- */

struct frontend_socket {
	int fd;
	size_t listener; /* of conf->listeners */
};

/* What conf means here, on any thread, for that takes its time: counts are carried over by name from what is newest then, which must still be the newest at
 * frontend_prepare(). To be given to that, or to generation_put(). */
struct generation *frontend_make(struct conf *conf, struct tls_site *const *sites);
/* Once (g is taken), then frontend_reload() on every thread: clients that have a session keep the configuration they came under. */
void frontend_prepare(struct generation *g);
/* Each thread: these sockets, sorted by fd, are accepted on from now on, and no others. Clients in the queue follow the new routes. */
void frontend_reload(const struct frontend_socket *sockets, size_t n);

/* ---- for the admin socket ---- */

struct frontend_client { /* good during the visit */
	const char *id; /* of its session, "" when it has none yet */
	const char *listener, *client, *route, *tunnel, *agent, *target; /* the last four may be NULL */
	const char *state;                                               /* queue, connect, open, half-closed, parked */
	uint64_t age_ms, link, up, down;
	int fd; /* its socket, to be asked for addresses only; -1: none */
};

/* The calling thread's clients after *cursor (see visit.h). true: there are no more. */
bool frontend_each(uint64_t *cursor, enum visit (*visit)(void *arg, const struct frontend_client *c), void *arg);

struct frontend_figures { /* of a listener or a tunnel */
	uint32_t sessions, maxconn; /* maxconn 0: no limit of its own */
	uint32_t rate_limit;        /* of a listener; 0: none of its own */
	uint64_t total, failed;     /* sessions that have ended or are there; of these, those that ended with an error */
	uint64_t up, down;          /* bytes of sessions that have ended */
	bool enabled, full;
};
const struct generation *frontend_generation(void); /* of the calling thread; NULL: none. Borrowed for this turn */
const struct conf *frontend_conf(void); /* of the calling thread: what the indices below mean; NULL: none. Borrowed for this turn */
void frontend_listener(size_t index, struct frontend_figures *out); /* of conf->listeners; any thread */
void frontend_tunnel(size_t index, struct frontend_figures *out);   /* of conf->tunnels; any thread; always enabled */
void frontend_clear(void);                                          /* total, failed, up and down begin anew */

/* To be called on every thread: accept there no more (clients wait in the kernel's queue), or again. */
void frontend_enable(size_t listener, bool on);
void frontend_set_maxconn(uint32_t n); /* instead of global.maxconn; any thread */
uint32_t frontend_maxconn(void);

/* Init / end of a thread. sites: one for each listener, NULL where TLS does not end; NULL: nowhere. References are taken. */
void frontend_init(struct conf *conf, struct tls_site *const *sites);
void frontend_fini(void);

#endif

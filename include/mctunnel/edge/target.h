/* The agent's services: a request on a link becomes a connection to the service's target. */
#ifndef MCTUNNEL_EDGE_TARGET_H
#define MCTUNNEL_EDGE_TARGET_H

#include "mctunnel/edge/visit.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct conf;
struct link;
struct h2_fields;

void target_init(struct conf *conf); /* each thread */
void target_fini(void);
/* Reload: prepare once, then every thread follows. Sessions keep the services they began with, counts go on by name. */
void target_prepare(struct conf *conf);
void target_reload(void);
/* Its checks have something new to say of the service: it takes sessions or does not; with check.on_marked_down, this thread's end when it is down. */
void target_checked(const char *service);
/* A new session is asked for on this link: dials the service's target, or refuses with the exact reason. hub: name of the hub, for the log. */
void target_request(struct link *l, int32_t stream, const struct h2_fields *f, const char *hub);

/* For the admin socket: the calling thread's sessions after *cursor (see visit.h). true: there are no more. */
struct target_job { /* good during the visit */
	const char *id, *service, *hub, *client, *listener, *target;
	const char *state; /* connect, open, half-closed, parked */
	uint64_t age_ms, up, down;
};
bool target_each(uint64_t *cursor, enum visit (*visit)(void *arg, const struct target_job *j), void *arg);
const struct conf *target_conf(void);     /* of the calling thread: what the index below means; NULL: none. Borrowed for this turn */
uint32_t target_sessions(size_t service); /* of conf->agent.services; on a thread of target_init */

#endif

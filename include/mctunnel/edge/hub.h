/* The hub's own port: agents arrive, prove who they are, are greeted, and their links join the registry. Who asks for health is handed to health.h. */
#ifndef MCTUNNEL_EDGE_HUB_H
#define MCTUNNEL_EDGE_HUB_H

#include "mctunnel/edge/visit.h"

#include <stdbool.h>
#include <stdint.h>

struct conf;
struct tls;

/* Each thread. tls: one per hub.bind entry, borrowed until hub_fini. ready: does the process take new sessions? */
void hub_init(struct conf *conf, struct tls *const *tls, const uint8_t instance[16], bool (*ready)(void));
/* Each thread: accept on the socket of hub.bind[bind]. */
int hub_open(int fd, unsigned bind) __attribute__((warn_unused_result));
/* Each thread: accept on these sockets, one per hub.bind entry, and on no others; new handshakes with these contexts. Links stay, but what their agents may
 * serve is judged again. conf and tls are borrowed as in hub_init; those of before are no longer used here. */
void hub_reload(struct conf *conf, struct tls *const *tls, const int *fds);
void hub_close_all(void); /* stop accepting; links stay */
void hub_changed(void);   /* each thread: ready() says something else now */
void hub_drain(void);     /* GOAWAY to every agent: no new sessions, agents look elsewhere */
void hub_stop(void);      /* close all links */
void hub_fini(void);

/* For the admin socket: the calling thread's links after *cursor (see visit.h). true: there are no more. Killing closes the link; its sessions go on over
 * others. */
struct hub_link { /* good during the visit */
	uint64_t id, age_ms;
	const char *agent, *tunnel, *addr, *cert, *version;
	uint32_t sessions, rtt_us; /* 0: not measured yet */
	int fd; /* to be asked for addresses only */
};
bool hub_each(uint64_t *cursor, enum visit (*visit)(void *arg, const struct hub_link *l), void *arg);

#endif

/* The agent's links: keeps `links` connections to every hub of the configuration, for ever, with back-off; greets; hands requests to target or registry. */
#ifndef MCTUNNEL_EDGE_DIALER_H
#define MCTUNNEL_EDGE_DIALER_H

#include "mctunnel/edge/visit.h"

#include <stdbool.h>
#include <stdint.h>

struct conf;
struct tls;

/* Each thread: keeps its share of the links (slot i of a hub belongs to thread i mod thread count). tls is borrowed until dialer_fini. */
void dialer_init(struct conf *conf, struct tls *tls, const uint8_t instance[16]);
/* Each thread: links to hubs that are new are dialled, those to hubs that are gone take no new sessions and go when they have none; the others stay, and
 * their hubs hear which services there are now. Both are borrowed (tls) or shared (conf) as in dialer_init. */
void dialer_reload(struct conf *conf, struct tls *tls);
/* This thread's hubs hear, in this turn, what is new about the services. */
void dialer_changed(void);
/* Each thread: tells every hub that this agent is draining (AGENT frame with draining, no new links once one is lost). */
void dialer_drain(void);
/* Each thread: GOAWAY and close everything now. */
void dialer_stop(void);
void dialer_fini(void);
/* Links that are up and accepted, all threads. */
uint32_t dialer_links(void);

/* For the admin socket: the calling thread's links, also those that are not up yet, after *cursor (see visit.h). true: there are no more.
 * Killing breaks a link that is up; another one is dialled, its sessions go on there. */
struct dialer_link { /* good during the visit */
	uint64_t id, age_ms; /* id 0: not up yet */
	const char *hub, *addr, *version; /* version NULL: not known yet */
	const char *state; /* dialling, handshake, greeting, up, retiring, leaving */
	uint32_t sessions, rtt_us;
};
bool dialer_each(uint64_t *cursor, enum visit (*visit)(void *arg, const struct dialer_link *l), void *arg);

#endif

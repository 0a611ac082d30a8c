/* The agent's links: keeps `links` connections to every hub of the configuration, for ever, with back-off; greets; hands requests to target or registry. */
#ifndef MCTUNNEL_EDGE_DIALER_H
#define MCTUNNEL_EDGE_DIALER_H

#include <stdbool.h>
#include <stdint.h>

struct conf;
struct tls;

/* Each thread: keeps its share of the links (slot i of a hub belongs to thread i mod thread count). tls is borrowed until dialer_fini. */
void dialer_init(struct conf *conf, struct tls *tls, const uint8_t instance[16]);
/* Each thread: tells every hub that this agent is draining (AGENT frame with draining, no new links once one is lost). */
void dialer_drain(void);
/* Each thread: GOAWAY and close everything now. */
void dialer_stop(void);
void dialer_fini(void);
/* Links that are up and accepted, all threads. */
uint32_t dialer_links(void);

#endif

/* The agent's services: a request on a link becomes a connection to the service's target. */
#ifndef MCTUNNEL_EDGE_TARGET_H
#define MCTUNNEL_EDGE_TARGET_H

#include <stdint.h>

struct conf;
struct link;
struct h2_fields;

void target_init(struct conf *conf); /* each thread */
void target_fini(void);
/* A new session is asked for on this link: dials the service's target, or refuses with the exact reason. hub: name of the hub, for the log. */
void target_request(struct link *l, int32_t stream, const struct h2_fields *f, const char *hub);

#endif

/* The hub's own port: agents arrive, prove who they are, are greeted, and their links join the registry. */
#ifndef MCTUNNEL_EDGE_HUB_H
#define MCTUNNEL_EDGE_HUB_H

#include <stdint.h>

struct conf;
struct tls;

/* Each thread. tls: one per hub.bind entry, borrowed until hub_fini. */
void hub_init(struct conf *conf, struct tls *const *tls, const uint8_t instance[16]);
/* Each thread: accept on the socket of hub.bind[bind]. */
int hub_open(int fd, unsigned bind) __attribute__((warn_unused_result));
void hub_close_all(void); /* stop accepting; links stay */
void hub_drain(void);     /* GOAWAY to every agent: no new sessions, agents look elsewhere */
void hub_stop(void);      /* close all links */
void hub_fini(void);

#endif

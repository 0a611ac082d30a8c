/* The hub's listeners and the clients that arrive there: accept, route, wait for an agent, hand over to the link's thread, session, log line. */
#ifndef MCTUNNEL_EDGE_FRONTEND_H
#define MCTUNNEL_EDGE_FRONTEND_H

#include <stddef.h>
#include <stdint.h>

struct conf;
struct conf_listener;

/* Each thread: start accepting on a listening socket of listener l (fd is shared by the threads and the master; never closed or shut down here but by frontend_close). */
int frontend_open(struct conf *conf, const struct conf_listener *l, int fd) __attribute__((warn_unused_result));
/* Each thread: stop accepting everywhere (soft stop); sessions go on. Descriptors are not closed here. */
void frontend_close_all(void);
/* Each thread: waiting clients end with `why`. */
void frontend_stop(void);
/* Sessions of clients in the whole process now, waiting ones included. */
uint32_t frontend_sessions(void);
/* Init / end of a thread. */
void frontend_init(struct conf *conf);
void frontend_fini(void);

#endif

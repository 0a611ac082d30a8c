/* Connections to the hub's port that ask for its health by gRPC. They come in plaintext, or over TLS without a certificate, and reach nothing else. */
#ifndef MCTUNNEL_EDGE_HEALTH_H
#define MCTUNNEL_EDGE_HEALTH_H

#include <stdbool.h>

struct conf;
struct conn;

/* Each thread, after registry_init. conf: the place where the thread keeps its configuration (borrowed, read whenever one asks); ready: does the process
 * take new sessions? */
void health_init(struct conf *const *conf, bool (*ready)(void));
/* Takes over a connection of this thread: from the preface of HTTP/2 on, nothing read yet. */
void health_welcome(struct conn *c);
void health_changed(void); /* readiness may have changed: whoever watches is told, on this thread */
void health_stop(void);    /* NOT_SERVING to whoever watches, then the end of all connections */

#endif

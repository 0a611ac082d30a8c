/* The HTTP/2 side of a listener of mode http: each stream of a client becomes a request of its own, which a web serves, on whichever thread its session lives. Targets get HTTP/1.1;
 * those of gRPC (content-type application/grpc) HTTP/2. The client's connection stays on one thread. See doc/internals/http.md. */
#ifndef MCTUNNEL_EDGE_WEB2_H
#define MCTUNNEL_EDGE_WEB2_H

#include "mctunnel/base/reason.h"

#include <stddef.h>

struct conn;
struct web2;
struct web_options;
struct web_view;

struct web2_events {
	void (*on_done)(void *owner, enum reason why); /* once, at the end: the conn is closed, the web2 is freed when this returns */
};

/* Takes over c: a plain conn, or TLS that is up; n bytes have been read from it already. NULL: no memory (c is still the caller's). Events come later, never from within
 * this call. */
struct web2 *web2_new(struct conn *c, const struct web_options *o, const struct web2_events *ev, void *owner) __attribute__((warn_unused_result));
void web2_input(struct web2 *w, const char *bytes, size_t n); /* what was read before, at most once, right after web2_new */
void web2_kill(struct web2 *w, enum reason why); /* ends it now, with RST; on_done is called */
void web2_stop(struct web2 *w);                  /* GOAWAY; it closes when the streams that are there have ended */
/* Bytes of its streams' bodies; requests; state: idle, open, closing. The rest is in the lines of the requests. */
void web2_view(const struct web2 *w, struct web_view *out);
int web2_fd(const struct web2 *w); /* the client's socket, to be looked at only */

#endif

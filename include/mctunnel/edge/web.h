/* The HTTP/1 side of a listener of mode http or connect: requests are read from a client's conn, routed one by one, and carried by sessions to targets; answers come back the same
 * way. The client lives here until its connection ends; from request to request it may go to another thread, to the link of its next session. */
#ifndef MCTUNNEL_EDGE_WEB_H
#define MCTUNNEL_EDGE_WEB_H

#include "mctunnel/base/addr.h"
#include "mctunnel/base/reason.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct conn;
struct generation;
struct place;
struct visitor;
struct web;

struct web_events {
	void (*on_done)(void *owner, enum reason why); /* once, at the end: the conn is closed, the web is freed when this returns */
	/* It goes to another thread, and the owner with it. Both may be NULL. */
	void (*on_leave)(void *owner);
	void (*on_arrive)(void *owner);
	/* Optional (mode http). The client begins HTTP/2 with prior knowledge, with these n bytes: the conn is the owner's now, and the web is gone; on_done is not called. */
	void (*on_preface)(void *owner, struct conn *c, const char *bytes, size_t n);
};

struct web_options {
	struct generation *gen; /* a reference is taken */
	struct place *place;    /* of gen */
	struct addr src, dst;   /* as rules, targets and the log see them */
	bool tls;
	const char *sni, *alpn, *cert; /* copied; NULL: none; alpn: the protocol agreed on */
	uint64_t accepted_ms;   /* the first request's head is waited for from then on; 0: now */
	struct visitor *visitor; /* for quota_again() at each further request; borrowed; NULL: not limited */
	const char *over;        /* the client is over this limit: its first request is answered with 429, and that is all; NULL: it is not. Borrowed for ever */
	const atomic_uint *sessions; /* of the process, for the log; borrowed for ever; NULL: not known */
	bool leads;              /* the one request only says where its stream goes: once the target is reached it is answered with 200 and, after that head, the head the target would
				  * have got; then bytes are opaque */
};

/* Takes over c: a plain conn, or TLS that is up. NULL: no memory (c is still the caller's). Events come later, never from within this call. */
struct web *web_new(struct conn *c, const struct web_options *o, const struct web_events *ev, void *owner) __attribute__((warn_unused_result));
/* Not from within its own events. Both may call on_done. */
void web_kill(struct web *w, enum reason why); /* ends it now, with RST; DONE: opaque bytes that are known to be complete, in good order */
void web_stop(struct web *w);                  /* the request at hand is finished, then it closes (Connection: close); without one at once */

struct web_view { /* good until the web goes on */
	const char *route, *tunnel, *agent, *target, *id, *state; /* state: idle, request, queue, connect, open, upgraded, closing; the others NULL (id "") between requests */
	uint64_t link, up, down, requests;
	int fd; /* the client's socket, to be asked for addresses only */
};
void web_view(const struct web *w, struct web_view *out);
int web_fd(const struct web *w); /* the client's socket, to be looked at only */

/* Each thread. */
void web_init(void);
void web_reload(struct generation *g); /* later requests go by this one, also those of clients who are here already */
void web_close_idle(void);             /* soft stop: every client of the thread is told (web_stop), sessions that wait for requests end */
void web_fini(void);                   /* when no client is left */

#endif

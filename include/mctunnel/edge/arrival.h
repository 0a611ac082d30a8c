/* An arrival: a client between accept and the decision where it goes, where something must be read for that: a PROXY header, the handshake of TLS that ends here, or
 * a ClientHello that is only looked at (mode tls: its bytes stay in the socket). Owns the socket and the time limit (timeouts.client_hello). */
#ifndef MCTUNNEL_EDGE_ARRIVAL_H
#define MCTUNNEL_EDGE_ARRIVAL_H

#include "mctunnel/base/addr.h"
#include "mctunnel/base/reason.h"

#include <stdbool.h>
#include <stdint.h>

struct arrival;
struct conf_listener;
struct conn;
struct netset;
struct tls_site;

#define ARRIVAL_ALPN 8

struct arrived { /* good for the call; strings are the callee's to copy */
	int fd;         /* the socket, unwatched, nothing taken beyond the PROXY header; -1: there is a conn */
	struct conn *c; /* TLS that ends here, up; else NULL. Its owner is to be set */
	struct addr src, dst;
	bool tls;
	const char *sni, *cert;       /* NULL: none. cert: name in the certificate that was checked */
	const char *alpn[ARRIVAL_ALPN]; /* offered (mode tls), or the one agreed on */
	uint32_t alpn_n;
};

struct arrival_events {
	void (*on_ready)(void *owner, struct arrived *a);                      /* takes fd or c */
	void (*on_failed)(void *owner, enum reason why, const char *text);     /* the socket is closed; text: a sentence for the log */
};

struct arrival_options {
	bool proxy;             /* a PROXY header comes first, from whom it may come */
	struct tls_site *tls;   /* borrowed while it lasts (a reference is taken); NULL: TLS does not end here */
	bool hello;             /* mode tls: look at the ClientHello */
	uint32_t timeout_ms;
};

/* Takes over fd (also when NULL is returned: no memory). Events come later, never from within this call. */
struct arrival *arrival_new(int fd, const struct addr *src, const struct addr *dst, const struct arrival_options *o, const struct arrival_events *ev, void *owner)
    __attribute__((warn_unused_result));
void arrival_cancel(struct arrival *a); /* closes the socket with RST; no event */

#endif

/* Dialling an endpoint: resolves its name, races its addresses (RFC 8305: 250 ms between attempts; a single address gets a second attempt after
 * 250 ms too, because a SYN lost while a VIP moves is repeated by the kernel only after a second), optionally through an HTTP CONNECT proxy. */
#ifndef MCTUNNEL_NET_DIAL_H
#define MCTUNNEL_NET_DIAL_H

#include "mctunnel/base/addr.h"

struct dial;

struct dial_result {
	int fd;          /* connected, non-blocking (TCP options as sock_connect); -1: failed; taken by the callee */
	struct addr to;  /* the address reached */
	int error;       /* errno: ECONNREFUSED, ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, ENOENT, EACCES; EPROTO: the proxy refused; ENOMEM, EMFILE, ...: it was us */
	const char *why; /* a sentence for the log */
};

struct dial_options {
	uint32_t timeout_ms;          /* for everything together */
	bool second_attempt;          /* the same address again after 250 ms (hubs; not targets) */
	const struct endpoint *proxy; /* NULL or borrowed until done */
	const char *proxy_auth;       /* "user:password" or NULL */
};

/* A socket that met itself (a local port that nobody listens on, which the kernel gave to the dialler) is refused like any port where nobody listens.
 * on_done is called exactly once, never inside this call, unless cancelled. e is borrowed until then. NULL: no memory. */
struct dial *dial_start(const struct endpoint *e, const struct dial_options *o, void (*on_done)(void *arg, struct dial_result *r), void *arg);
void dial_cancel(struct dial *d);

#endif

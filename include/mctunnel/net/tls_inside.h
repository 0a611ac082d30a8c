/* What net/tls*.c share: the context. Nobody else includes this. OpenSSL's types are opaque here. */
#ifndef MCTUNNEL_NET_TLS_INSIDE_H
#define MCTUNNEL_NET_TLS_INSIDE_H

#include "mctunnel/event/aside.h"
#include "mctunnel/net/tls_session.h"
#include "mctunnel/net/tls_trust.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ssl_ctx_st;
struct ssl_st;

struct tls {
	atomic_int refs;
	struct aside end; /* freed aside */
	struct ssl_ctx_st *ctx;
	bool server;
	bool site;        /* of clients, not of agents */
	bool probe;       /* a client without an interest in who answers */
	bool ask, insist; /* for a certificate; who has none is refused */
	int64_t not_after; /* of its own, in seconds since the epoch */
	long life_s;       /* of what a full handshake has proved */
	struct tls_trust trust;
	uint8_t (*ticket_keys)[TLS_TICKET_KEY]; /* owned; NULL: OpenSSL has its own */
	size_t ticket_keys_n;
	uint8_t *alpn; /* owned, of a site: as on the wire; NULL: whatever clients offer is ignored */
	size_t alpn_len;
	/* Of a site: gives a connection the certificates for the name that its client asks for ("": none). false: it cannot. */
	bool (*on_name)(struct tls *t, struct ssl_st *ssl, const char *name);
	void (*on_free)(struct tls *t); /* frees what is around it; NULL: nothing is */
};

/* In this order: the fields up to insist, init, keys, set, and sessions (servers). Dies where OpenSSL cannot make a context at all; false is for the caller to tell. */
void tls_context_init(struct tls *t);
void tls_context_keys(struct tls *t, const struct tls_ticket_keys *keys); /* copied; NULL: none */
bool tls_context_set(struct tls *t) __attribute__((warn_unused_result));
bool tls_context_sessions(struct tls *t, const unsigned char *id, unsigned len) __attribute__((warn_unused_result)); /* they are resumed only where id is the same */

/* tls.c: lets OpenSSL call the connections of a context. */
bool tls_hook(struct tls *t) __attribute__((warn_unused_result));

#endif

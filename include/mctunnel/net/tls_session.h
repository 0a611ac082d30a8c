/* Tickets: what seals them; and what is in them, a note of the peer's certificate (tls_peer.h) in the place of the certificate itself
 * (doc/internals/tickets.md). What comes after the keys is for net/tls*.c: OpenSSL's types are opaque here. */
#ifndef MCTUNNEL_NET_TLS_SESSION_H
#define MCTUNNEL_NET_TLS_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ssl_session_st;
struct tls_peer;

#define TLS_TICKET_KEY 80 /* bytes: a name of 16, 32 to sign with, 32 to encrypt with */

/* What tickets are sealed with, shared by processes that shall resume each other's sessions: the first seals, all open. */
struct tls_ticket_keys {
	const uint8_t (*v)[TLS_TICKET_KEY]; /* copied */
	size_t n;
};

/* The note in a session, owned by the caller. *some: there is one, also when there is no memory to read it. */
struct tls_peer *tls_session_peer(struct ssl_session_st *s, bool *some) __attribute__((warn_unused_result));

/* Puts the note in and takes the certificate out; where either does not go, the session is as it was. false: it is of no use any more. */
bool tls_session_keep_note(struct ssl_session_st *s, const struct tls_peer *p) __attribute__((warn_unused_result));

/* A ticket made of it is good for what is left of life_s since the certificate was shown, however often it was resumed. */
void tls_session_limit(struct ssl_session_st *s, long life_s);

#endif

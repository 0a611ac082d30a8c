/* TLS 1.3 with mutual certificates for links, over OpenSSL (included by tls.c only). A tls context is immutable and shared by all threads. */
#ifndef MCTUNNEL_NET_TLS_H
#define MCTUNNEL_NET_TLS_H

#include "mctunnel/net/conn.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TLS_ALPN_LINK "mctunnel/1"
#define TLS_ALPN_HEALTH "h2" /* a server grants this too, without asking for a certificate: tls_alpn() tells who is trusted with what */

struct tls; /* reference-counted context: certificate, key, CA, CRL, ALPN */

/* PEM texts, not paths (paths are for messages only). */
struct tls_files {
	const char *cert_path, *cert;
	const char *key_path, *key;
	const char *ca_path, *ca;
	const char *crl_path, *crl; /* NULL: none */
};

#define TLS_TICKET_KEY 80 /* bytes: a name of 16, 32 to sign with, 32 to encrypt with */

/* What tickets are sealed with, shared by processes that shall resume each other's sessions: the first seals, all open. */
struct tls_ticket_keys {
	const uint8_t (*v)[TLS_TICKET_KEY]; /* copied */
	size_t n;
};

/* NULL, with a sentence in err naming the file at fault: unreadable PEM, the key is not the certificate's, encrypted key, expired CRL ...
 * keys: of tickets (server); NULL: a random one. */
struct tls *tls_server(const struct tls_files *f, const struct tls_ticket_keys *keys, char *err, size_t errsize) __attribute__((warn_unused_result));
struct tls *tls_client(const struct tls_files *f, char *err, size_t errsize) __attribute__((warn_unused_result));
/* A client that takes any certificate, any name and every version of TLS, shows no certificate and asks for no protocol: to see whether somebody speaks TLS. */
struct tls *tls_probe(void) __attribute__((returns_nonnull));
struct tls *tls_get(struct tls *t);
void tls_put(struct tls *t);

/* Days and seconds until the certificate ends, negative when it has. */
int64_t tls_cert_expires_in(const struct tls *t);

/* The first certificate of a PEM text, for the admin socket. 0, or -1 when there is none. */
struct tls_described {
	char names[512];   /* SAN DNS, else the CN; divided by commas; cut when there are more */
	char issuer[128];  /* its CN */
	int64_t not_after; /* seconds since the epoch */
};
int tls_describe(const char *pem, struct tls_described *out) __attribute__((warn_unused_result));

/* Checks as tls_server/tls_client would, for -c. 0 or -1 with err. */
int tls_check(const struct tls_files *f, bool server, char *err, size_t errsize) __attribute__((warn_unused_result));

/* What loads, and will be refused all the same, or soon: own certificate expired, not yet valid, not for this side, ending within two weeks;
 * no CRL of the CA. True with a sentence naming the file. */
bool tls_doubt(const struct tls_files *f, bool server, char *text, size_t size);

/* A session ticket kept by the client between connections to the same hub: owned by the caller. */
struct tls_ticket;
void tls_ticket_free(struct tls_ticket *t);

/* The thread's buffers: made at its start, where memory is sure to be; else by the first conn. They go with the thread. */
void tls_thread_init(void);

enum tls_state { TLS_HANDSHAKING, TLS_UP, TLS_FAILED };

/* Wraps a plain conn (takes it over, with its owner's place): returns the TLS conn, or NULL (then plain is still the caller's).
 * The handshake runs by itself; on_event is called when its state changes; until TLS_UP readv/writev answer CONN_AGAIN. */
struct conn *tls_accept(struct tls *t, struct conn *plain, void (*on_event)(struct conn *), void *owner) __attribute__((warn_unused_result));
/* server_name: SNI and the name the hub's certificate must carry (an IP address is matched as such); with a tls_probe NULL for none. ticket: NULL or borrowed. */
struct conn *tls_connect(struct tls *t, struct conn *plain, const char *server_name, const struct tls_ticket *ticket,
			 void (*on_event)(struct conn *), void *owner) __attribute__((warn_unused_result));

enum tls_state tls_state(const struct conn *c);
/* After TLS_FAILED, or CONN_FAILED: a sentence: "certificate has expired (CN=edge-1)", "no client certificate", "not TLS (plaintext)",
 * "peer refused our certificate: alert certificate revoked", "connection reset during handshake" ... */
const char *tls_failure(const struct conn *c);
bool tls_resumed(const struct conn *c);
const char *tls_alpn(const struct conn *c); /* "" when none */

/* Names in the peer's certificate: every SAN DNS, or the CN when it has none. Returns how many there are; name i in buf ("" when i is out of range). */
size_t tls_peer_name(const struct conn *c, size_t i, char *buf, size_t size);
/* For the log even when verification failed: "CN=edge-1" of the peer's certificate, "" when it sent none. */
const char *tls_peer_subject(const struct conn *c);

/* Client: the newest ticket received on this connection, NULL when none; the caller owns it. */
struct tls_ticket *tls_take_ticket(struct conn *c);

#endif

/* TLS 1.3 with mutual certificates for links, over OpenSSL (which only net/tls*.c include). A tls context is immutable and shared by all threads. */
#ifndef MCTUNNEL_NET_TLS_H
#define MCTUNNEL_NET_TLS_H

#include "mctunnel/net/conn.h"
#include "mctunnel/net/tls_files.h"
#include "mctunnel/net/tls_session.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TLS_ALPN_LINK "mctunnel/1"
#define TLS_ALPN_NAME 63 /* bytes of a protocol's name */
#define TLS_ALPN_HEALTH "h2" /* a server grants this too, without asking for a certificate: tls_alpn() tells who is trusted with what */

struct tls; /* reference-counted context: certificate, key, CA, CRL, ALPN */

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

/* Checks as tls_server/tls_client would, for -c. 0 or -1 with err. */
int tls_check(const struct tls_files *f, bool server, char *err, size_t errsize) __attribute__((warn_unused_result));

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
/* The name the client asked for: lower case, without a dot at its end; "" when it asked for none that could be a host's. */
const char *tls_sni(const struct conn *c);

/* Names in the peer's certificate: every SAN DNS, or the CN when it has none. Returns how many there are; name i in buf ("" when i is out of range). */
size_t tls_peer_name(const struct conn *c, size_t i, char *buf, size_t size);
/* For the log even when verification failed: "CN=edge-1" of the peer's certificate, "" when it sent none. */
const char *tls_peer_subject(const struct conn *c);

/* Client: the newest ticket received on this connection, NULL when none; the caller owns it. */
struct tls_ticket *tls_take_ticket(struct conn *c);

#endif

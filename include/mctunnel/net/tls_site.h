/* TLS that ends at a listener: 1.2 and 1.3, several certificates of which the client's server name chooses, clients' certificates on demand.
 * What tls.h says of a conn (state, failure, names, ALPN) holds for these as well. */
#ifndef MCTUNNEL_NET_TLS_SITE_H
#define MCTUNNEL_NET_TLS_SITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct conn;
struct tls_ticket_keys;

struct tls_site; /* immutable, shared by all threads, reference-counted */

struct tls_site_cert { /* PEM texts, not paths (paths are for messages) */
	const char *path, *text;     /* with its chain */
	const char *key_path, *key; /* may be the same */
};

struct tls_site_options {
	const char *name; /* of the listener: tickets are good there only */
	const struct tls_site_cert *certs; /* the first is for clients that ask for none of their names */
	size_t certs_n;
	int min;                   /* 12, 13 */
	const char *ca_path, *ca;  /* of clients' certificates; NULL: none */
	const char *crl_path, *crl; /* NULL: none */
	bool ask, insist;          /* for a client's certificate: check it if there is one; refuse who has none */
	const char *const *alpn;   /* of TLS_ALPN_NAME bytes at most: offered, the best first; none: whatever clients offer is ignored */
	size_t alpn_n;
	const struct tls_ticket_keys *keys; /* NULL: a random one */
};

/* Everything is copied. All findings are told: bad ones (unreadable, the key of another certificate, ...), then NULL is returned; and doubts (expired, soon to
 * expire, a name that two certificates have). Each is a sentence naming the file. tell may be NULL. */
struct tls_site *tls_site_new(const struct tls_site_options *o, void (*tell)(void *arg, bool bad, const char *text), void *arg) __attribute__((warn_unused_result));
struct tls_site *tls_site_get(struct tls_site *s);
void tls_site_put(struct tls_site *s); /* NULL is allowed */

/* Certificate i: its path, seconds until it ends (negative: since it has). NULL: there are no more. */
const char *tls_site_cert(const struct tls_site *s, size_t i, int64_t *expires_in);

/* As tls_accept(). A client whose server name no certificate has gets the first one. */
struct conn *tls_site_accept(struct tls_site *s, struct conn *plain, void (*on_event)(struct conn *), void *owner) __attribute__((warn_unused_result));

#endif

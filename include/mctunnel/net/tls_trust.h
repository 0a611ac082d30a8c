/* Whom one side trusts: authorities, their lists of the revoked, and what follows for a certificate that is here, or of which only a note is left
 * (tls_peer.h). Immutable once it is loaded, and shared by all threads. For net/tls*.c: OpenSSL's types are opaque here. */
#ifndef MCTUNNEL_NET_TLS_TRUST_H
#define MCTUNNEL_NET_TLS_TRUST_H

#include "mctunnel/net/tls_peer.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct X509_VERIFY_PARAM_st;
struct X509_crl_st;
struct stack_st_X509_CRL;
struct x509_st;
struct x509_store_ctx_st;
struct x509_store_st;

struct authority { /* who vouches for peers when they come back */
	uint8_t digest[TLS_PEER_DIGEST];
	struct x509_st *cert;            /* owned */
	struct stack_st_X509_CRL *crls;  /* owned: those it has signed */
	bool odd;                        /* a list that speaks of a part of its certificates only: too subtle for us */
	atomic_llong judged;             /* the second in which it was last looked at, doubled, and 1 when it was found good */
};

struct tls_trust {
	struct x509_store_st *store; /* borrowed */
	struct authority *authorities; /* owned */
	size_t authorities_n;
	bool crl_check;
};

void tls_trust_fini(struct tls_trust *t);

/* Both keep a reference of their own. false: no memory, or OpenSSL does not like it. Lists come after the authorities. */
bool tls_trust_add(struct tls_trust *t, struct x509_st *authority) __attribute__((warn_unused_result));
bool tls_trust_add_crl(struct tls_trust *t, struct X509_crl_st *crl) __attribute__((warn_unused_result));
void tls_trust_check_crls(struct tls_trust *t); /* from now on a certificate without a list of its authority is a bad one */

/* Would the certificate pass today? purpose: "ssl_client", "ssl_server"; name: NULL, or whom it must be for (a host or an address). */
bool tls_trust_passes(const struct tls_trust *t, struct x509_st *cert, const char *purpose, const char *name);
bool tls_trust_set_name(struct X509_VERIFY_PARAM_st *p, const char *name); /* the same for a judgement of OpenSSL's own; false: no memory */

/* The note of a certificate that was found good. x: the judgement, or NULL when it was made elsewhere; then nobody will vouch for it. The caller owns it;
 * NULL: no memory, or its names cannot be read. */
struct tls_peer *tls_trust_note(const struct tls_trust *t, struct x509_st *cert, struct x509_store_ctx_st *x) __attribute__((warn_unused_result));

/* As tls_trust_passes(), of a certificate that was found good life_s ago at most, and is not here any more. What can have changed since is asked anew: the time,
 * the list of the revoked, and whether its authority is trusted still. */
bool tls_trust_vouches(const struct tls_trust *t, const struct tls_peer *p, long life_s);

#endif

/* What a session remembers of the peer, and so a ticket, which is the session, sealed: the note instead of the certificate (doc/internals/tickets.md).
 * Owns nothing. It judges nobody, and does not seal. */
#define _GNU_SOURCE
#include "mctunnel/net/tls_session.h"

#include "mctunnel/net/tls_peer.h"

#include <openssl/asn1.h>
#include <openssl/crypto.h>
#include <openssl/ssl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PEER_TAG (V_ASN1_CONTEXT_SPECIFIC | V_ASN1_CONSTRUCTED | 3) /* where the certificate is in OpenSSL's encoding of a session */

struct tls_peer *tls_session_peer(SSL_SESSION *session, bool *some)
{
	void *packed = NULL;
	size_t len = 0;

	*some = SSL_SESSION_get0_ticket_appdata(session, &packed, &len) == 1 && len > 0;
	return *some ? tls_peer_unpack(packed, len) : NULL;
}

void tls_session_limit(SSL_SESSION *session, long life_s)
{
	bool some;
	struct tls_peer *p = tls_session_peer(session, &some);
	int64_t left = p ? p->proved + life_s - (int64_t)time(NULL) : 0;

	if (p)
		SSL_SESSION_set_timeout(session, (long)(left > 0 ? left : 1));
	free(p);
}

/* The same encoding without the certificate; owned by the caller. NULL: there is none in it, or no memory. */
static uint8_t *cut_certificate(const uint8_t *der, size_t len, size_t *rest)
{
	const uint8_t *at = der, *end = der + len, *body, *item = NULL;
	uint8_t *out = NULL, *p;
	int tag, class;
	long n;

	if (ASN1_get_object(&at, &n, &tag, &class, (long)len) & 0x80 || tag != V_ASN1_SEQUENCE)
		return NULL;
	for (body = at; at < end && !(item && item[0] == PEER_TAG); at += n) {
		item = at;
		if (ASN1_get_object(&at, &n, &tag, &class, end - at) & 0x80)
			return NULL;
	}
	if (!item || item[0] != PEER_TAG)
		return NULL;
	n = (item - body) + (end - at);
	*rest = (size_t)ASN1_object_size(1, (int)n, V_ASN1_SEQUENCE);
	p = out = malloc(*rest);
	if (!out)
		return NULL;
	ASN1_put_object(&p, 1, (int)n, V_ASN1_SEQUENCE, V_ASN1_UNIVERSAL);
	memcpy(p, body, (size_t)(item - body));
	memcpy(p + (item - body), at, (size_t)(end - at));
	return out;
}

/* OpenSSL would put the certificate into the ticket and read it, with its key, twice at every resumption: half a millisecond. There is no call to take it
 * out of a session, but reading an encoding into one replaces all that is in it. */
static bool drop_certificate(SSL_SESSION *session)
{
	size_t len = (size_t)i2d_SSL_SESSION(session, NULL), rest = 0;
	uint8_t *der = malloc(len), *at = der, *lean = NULL;
	SSL_SESSION *read = session;
	const uint8_t *from;

	if (der && i2d_SSL_SESSION(session, &at) == (int)len) {
		from = lean = cut_certificate(der, len, &rest);
		OPENSSL_cleanse(der, len);
	}
	free(der);
	if (lean) {
		read = d2i_SSL_SESSION(&session, &from, (long)rest);
		OPENSSL_cleanse(lean, rest);
		free(lean);
	}
	return read == session; /* else it is half of one and half of the other */
}

bool tls_session_keep_note(SSL_SESSION *session, const struct tls_peer *p)
{
	uint8_t packed[TLS_PEER_PACKED];
	size_t len = tls_peer_pack(p, packed);

	if (len == 0)
		return true;
	return SSL_SESSION_set1_ticket_appdata(session, packed, len) == 1 && drop_certificate(session);
}

/* Who the other side of a TLS connection has proved to be: what a hub remembers of a certificate, in the connection and, packed, in the ticket that
 * resumes it. It is sealed there by whoever makes the ticket; packing hides nothing. */
#ifndef MCTUNNEL_NET_TLS_PEER_H
#define MCTUNNEL_NET_TLS_PEER_H

#include <stddef.h>
#include <stdint.h>

#define TLS_PEER_DIGEST 32
#define TLS_PEER_SERIAL 64   /* bytes; RFC 5280 allows 20, and a head */
#define TLS_PEER_PACKED 1024 /* at most; what is longer is not packed */

/* Times in seconds since the epoch. Owned by one; free() it. */
struct tls_peer {
	int64_t since, until;               /* the certificate is valid */
	int64_t proved;                     /* when it was last shown, with proof that its key is there */
	uint8_t authority[TLS_PEER_DIGEST]; /* of the certificate that signed it */
	uint8_t serial[TLS_PEER_SERIAL];    /* as it stands in the certificate */
	size_t serial_len;
	size_t texts_len;
	char texts[]; /* the subject, then each name; every one with a NUL */
};

/* Room for texts_len bytes of text, for the caller to fill; all else is zero. NULL: no memory. */
struct tls_peer *tls_peer_new(size_t texts_len) __attribute__((warn_unused_result));
struct tls_peer *tls_peer_copy(const struct tls_peer *p) __attribute__((warn_unused_result));

/* i 0: the subject; 1 and so on: the names. NULL: there are no more. */
const char *tls_peer_text(const struct tls_peer *p, size_t i);

/* Returns the length, 0 when it does not fit. */
size_t tls_peer_pack(const struct tls_peer *p, uint8_t out[TLS_PEER_PACKED]);
/* NULL: no memory, or these bytes were not made by tls_peer_pack(). */
struct tls_peer *tls_peer_unpack(const uint8_t *in, size_t len) __attribute__((warn_unused_result));

#endif

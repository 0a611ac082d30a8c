/* What a TLS client says in its first message (ClientHello: RFC 8446, 6066, 7301), looked at without answering. No memory, no I/O. Where the client uses ECH, the name seen is
 * the outer one, that of the server who can decrypt the true one. */
#ifndef MCTUNNEL_PROTO_SNI_H
#define MCTUNNEL_PROTO_SNI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SNI_HELLO_MAX 65536 /* bytes on the wire, headers of records included */
#define SNI_ALPN 8
#define SNI_ALPN_NAME 64
#define SNI_VERSIONS 8

enum sni_result {
	SNI_MORE,    /* good so far */
	SNI_NOT_TLS, /* its first bytes are something else */
	SNI_BAD,     /* TLS, but malformed or longer than SNI_HELLO_MAX */
	SNI_DONE,
};

struct sni_hello {
	size_t need;     /* MORE: nothing more can be learned from fewer bytes than these, at most SNI_HELLO_MAX */
	const char *why; /* NOT_TLS, BAD: a sentence */
	/* DONE: */
	char name[256];  /* lower case, without a dot at its end; "" when none was said */
	bool odd;        /* one was said that no host can have; name is "" */
	char alpn[SNI_ALPN][SNI_ALPN_NAME]; /* offered, in order; names that are not printable or too long, and those beyond SNI_ALPN, are left out */
	size_t alpn_n;
	uint16_t versions[SNI_VERSIONS]; /* offered, as on the wire (0x0304: TLS 1.3), without GREASE */
	size_t versions_n;
};

/* data: all that came from the client so far. To be called again, with more, after MORE; what follows the hello is not looked at. */
enum sni_result sni_parse(const uint8_t *data, size_t len, struct sni_hello *out);

#endif

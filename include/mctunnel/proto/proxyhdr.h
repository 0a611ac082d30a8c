/* The PROXY protocol header, versions 1 and 2 (HAProxy's proxy-protocol.txt): built for targets, read from those who stand before our listeners. No I/O. */
#ifndef MCTUNNEL_PROTO_PROXYHDR_H
#define MCTUNNEL_PROTO_PROXYHDR_H

#include "mctunnel/base/addr.h"

#define PROXYHDR_MAX 1024                /* of one that is built */
#define PROXYHDR_READ_MAX (16 + 65535)   /* of one that is read */

struct proxyhdr_about { /* version 2 says these too, where the addresses are known; NULL or longer than 255 bytes: left out */
	const char *authority; /* the name the client asked for (SNI) */
	const char *alpn;      /* the protocol agreed on */
	const char *unique_id;
};

/* Writes the header for a client's address and the address it connected to; families that differ or Unix sockets give UNKNOWN / LOCAL.
 * IPv4-mapped IPv6 addresses count as IPv4. version is 1 or 2; about may be NULL. Returns the length, at most PROXYHDR_MAX. */
size_t proxyhdr_build(uint8_t *out, int version, const struct addr *src, const struct addr *dst, const struct proxyhdr_about *about);

enum proxyhdr_result { PROXYHDR_MORE, PROXYHDR_BAD, PROXYHDR_DONE };

struct proxyhdr {
	size_t need;          /* MORE: nothing more can be learned from fewer bytes than these, at most PROXYHDR_READ_MAX */
	const char *why;      /* BAD: a sentence */
	size_t len;           /* DONE: bytes of the header; what follows is the client's */
	int version;
	bool known;           /* DONE: src and dst are set; else (UNKNOWN, LOCAL, Unix sockets) those of the connection are the true ones */
	struct addr src, dst;
};

/* data: all that came so far. To be called again, with more, after MORE. */
enum proxyhdr_result proxyhdr_parse(const uint8_t *data, size_t len, struct proxyhdr *out);

#endif

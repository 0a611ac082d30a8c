/* The PROXY protocol header, versions 1 and 2 (HAProxy's proxy-protocol.txt): built for targets. No I/O. */
#ifndef MCTUNNEL_PROTO_PROXYHDR_H
#define MCTUNNEL_PROTO_PROXYHDR_H

#include "mctunnel/base/addr.h"

#define PROXYHDR_MAX 256

/* Writes the header for a client's address and the address it connected to; families that differ or Unix sockets give UNKNOWN / LOCAL.
 * IPv4-mapped IPv6 addresses count as IPv4. version is 1 or 2. Returns the length. */
size_t proxyhdr_build(uint8_t *out, int version, const struct addr *src, const struct addr *dst);

#endif

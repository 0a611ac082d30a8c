/* The PROXY protocol header that tells a target the client's address: version 1 is a line of text,
 * version 2 is binary. Built from two addresses, nothing else; whoever writes it to a socket is elsewhere. */
#include "mctunnel/proto/proxyhdr.h"

#include "mctunnel/base/bug.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

enum { V2_FIXED = 16, V2_LOCAL = 0x20, V2_PROXY = 0x21, V2_TCP4 = 0x11, V2_TCP6 = 0x21 };

/* A pair of one family, in network order. size 0: no pair that the header can tell. */
struct pair {
	uint8_t src[16], dst[16];
	size_t size; /* 4, 16 or 0 */
	uint16_t src_port, dst_port;
};

/* Size of the address put in raw; IPv4 for a mapped one, 0 when it is no Internet address. */
static size_t raw_address(const struct addr *a, uint8_t raw[16], uint16_t *port)
{
	if (a->len == 0)
		return 0;
	if (a->u.sa.sa_family == AF_INET) {
		memcpy(raw, &a->u.in4.sin_addr, 4);
		*port = ntohs(a->u.in4.sin_port);
		return 4;
	}
	if (a->u.sa.sa_family != AF_INET6)
		return 0;
	*port = ntohs(a->u.in6.sin6_port);
	if (IN6_IS_ADDR_V4MAPPED(&a->u.in6.sin6_addr)) {
		memcpy(raw, a->u.in6.sin6_addr.s6_addr + 12, 4);
		return 4;
	}
	memcpy(raw, &a->u.in6.sin6_addr, 16);
	return 16;
}

static struct pair pair_of(const struct addr *src, const struct addr *dst)
{
	struct pair p = { .size = 0 };
	size_t src_size = raw_address(src, p.src, &p.src_port);
	size_t dst_size = raw_address(dst, p.dst, &p.dst_port);

	if (src_size == dst_size)
		p.size = src_size;
	return p;
}

static size_t build_v1(uint8_t *out, const struct pair *p)
{
	char src[INET6_ADDRSTRLEN], dst[INET6_ADDRSTRLEN];
	int family = p->size == 4 ? AF_INET : AF_INET6, n;

	if (p->size == 0)
		n = snprintf((char *)out, PROXYHDR_MAX, "PROXY UNKNOWN\r\n");
	else
		n = snprintf((char *)out, PROXYHDR_MAX, "PROXY TCP%c %s %s %u %u\r\n", p->size == 4 ? '4' : '6',
		             inet_ntop(family, p->src, src, sizeof(src)), inet_ntop(family, p->dst, dst, sizeof(dst)),
		             p->src_port, p->dst_port);
	BUG_ON(n <= 0 || n >= PROXYHDR_MAX);
	return (size_t)n;
}

static uint8_t *put16(uint8_t *at, uint16_t v)
{
	at[0] = (uint8_t)(v >> 8);
	at[1] = (uint8_t)v;
	return at + 2;
}

static uint8_t *put(uint8_t *at, const void *bytes, size_t len)
{
	memcpy(at, bytes, len);
	return at + len;
}

static size_t build_v2(uint8_t *out, const struct pair *p)
{
	uint8_t *at = put(out, "\r\n\r\n\0\r\nQUIT\n", 12);
	bool known = p->size != 0;

	*at++ = known ? V2_PROXY : V2_LOCAL;
	*at++ = !known ? 0 : p->size == 4 ? V2_TCP4 : V2_TCP6;
	at = put16(at, (uint16_t)(known ? 2 * p->size + 4 : 0));
	BUG_ON(at != out + V2_FIXED);
	if (known) {
		at = put(at, p->src, p->size);
		at = put(at, p->dst, p->size);
		at = put16(at, p->src_port);
		at = put16(at, p->dst_port);
	}
	return (size_t)(at - out);
}

size_t proxyhdr_build(uint8_t *out, int version, const struct addr *src, const struct addr *dst)
{
	struct pair p = pair_of(src, dst);

	BUG_ON(version != 1 && version != 2);
	return version == 1 ? build_v1(out, &p) : build_v2(out, &p);
}

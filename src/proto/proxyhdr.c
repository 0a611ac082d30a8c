/* The PROXY protocol header that tells a client's address: version 1 is a line of text, version 2 is binary.
 * Built for targets from two addresses and what else is known; read from whoever stands before a listener, as far as it came. Holds nothing from
 * call to call. Who may send one, and who writes it to a socket, is decided elsewhere. */
#include "mctunnel/proto/proxyhdr.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/str.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

enum { V1_MAX = 107, V2_FIXED = 16, V2_LOCAL = 0x20, V2_PROXY = 0x21, V2_TCP4 = 0x11, V2_TCP6 = 0x21 };
enum { TLV_HEADER = 3, TLV_ALPN = 1, TLV_AUTHORITY = 2, TLV_CRC32C = 3, TLV_UNIQUE_ID = 5, TLV_MAX = 255 };

static const uint8_t v2_signature[12] = "\r\n\r\n\0\r\nQUIT\n";

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

static uint8_t *put_tlv(uint8_t *at, uint8_t type, const char *text)
{
	size_t len = text ? strlen(text) : 0;

	if (len == 0 || len > TLV_MAX)
		return at;
	*at++ = type;
	return put(put16(at, (uint16_t)len), text, len);
}

static size_t build_v2(uint8_t *out, const struct pair *p, const struct proxyhdr_about *about)
{
	uint8_t *at = put(out, v2_signature, sizeof(v2_signature));
	bool known = p->size != 0;

	*at++ = known ? V2_PROXY : V2_LOCAL;
	*at++ = !known ? 0 : p->size == 4 ? V2_TCP4 : V2_TCP6;
	at += 2;
	BUG_ON(at != out + V2_FIXED);
	if (known) {
		at = put(at, p->src, p->size);
		at = put(at, p->dst, p->size);
		at = put16(at, p->src_port);
		at = put16(at, p->dst_port);
	}
	if (known && about) {
		at = put_tlv(at, TLV_ALPN, about->alpn);
		at = put_tlv(at, TLV_AUTHORITY, about->authority);
		at = put_tlv(at, TLV_UNIQUE_ID, about->unique_id);
	}
	put16(out + V2_FIXED - 2, (uint16_t)(at - out - V2_FIXED));
	return (size_t)(at - out);
}

size_t proxyhdr_build(uint8_t *out, int version, const struct addr *src, const struct addr *dst, const struct proxyhdr_about *about)
{
	struct pair p = pair_of(src, dst);

	_Static_assert(V2_FIXED + 36 + 3 * (TLV_HEADER + TLV_MAX) <= PROXYHDR_MAX, "room for everything");
	BUG_ON(version != 1 && version != 2);
	return version == 1 ? build_v1(out, &p) : build_v2(out, &p, about);
}

/* ---- reading ---- */

static enum proxyhdr_result bad(struct proxyhdr *out, const char *why)
{
	out->why = why;
	return PROXYHDR_BAD;
}

static enum proxyhdr_result more(struct proxyhdr *out, size_t need)
{
	out->need = need;
	return PROXYHDR_MORE;
}

static enum proxyhdr_result done(struct proxyhdr *out, int version, size_t len)
{
	out->version = version;
	out->len = len;
	return PROXYHDR_DONE;
}

static void set_addr(struct addr *a, int family, const void *raw, uint16_t port)
{
	*a = (struct addr){ .len = family == AF_INET ? sizeof(a->u.in4) : sizeof(a->u.in6) };
	a->u.sa.sa_family = (sa_family_t)family;
	if (family == AF_INET) {
		memcpy(&a->u.in4.sin_addr, raw, 4);
		a->u.in4.sin_port = htons(port);
	} else {
		memcpy(&a->u.in6.sin6_addr, raw, 16);
		a->u.in6.sin6_port = htons(port);
	}
}

/* The word at *at, up to a blank or the end of the text, which becomes a text of its own; NULL: it is empty, or there is none. */
static char *take_word(char **at)
{
	char *word = *at, *blank = word ? strchr(word, ' ') : NULL;

	if (blank)
		*blank = '\0';
	*at = blank ? blank + 1 : NULL;
	return word && *word ? word : NULL;
}

static bool read_port(const char *text, uint16_t *out)
{
	uint64_t port;

	if (!text || (text[0] == '0' && text[1]) || !str_u64(text, 65535, &port))
		return false;
	*out = (uint16_t)port;
	return true;
}

/* What follows "PROXY ", without the end of the line. */
static const char *read_v1(char *at, struct proxyhdr *out)
{
	const char *family = take_word(&at), *src, *dst;
	uint8_t from[16], to[16];
	uint16_t from_port, to_port;
	int af;

	if (family && strcmp(family, "UNKNOWN") == 0)
		return NULL; /* whatever else it says */
	if (!family || (strcmp(family, "TCP4") != 0 && strcmp(family, "TCP6") != 0))
		return "the PROXY header says neither TCP4, TCP6 nor UNKNOWN";
	af = family[3] == '4' ? AF_INET : AF_INET6;
	src = take_word(&at);
	dst = take_word(&at);
	if (!src || !dst || inet_pton(af, src, from) != 1 || inet_pton(af, dst, to) != 1)
		return "an address in the PROXY header is malformed";
	if (!read_port(take_word(&at), &from_port) || !read_port(take_word(&at), &to_port) || at)
		return "a port in the PROXY header is malformed";
	set_addr(&out->src, af, from, from_port);
	set_addr(&out->dst, af, to, to_port);
	out->known = true;
	return NULL;
}

static enum proxyhdr_result parse_v1(const uint8_t *data, size_t len, struct proxyhdr *out)
{
	size_t seen = len < V1_MAX ? len : V1_MAX;
	const uint8_t *end = memchr(data, '\n', seen);
	char line[V1_MAX + 1];

	if (memcmp(data, "PROXY ", seen < 6 ? seen : 6) != 0)
		return bad(out, "there is no PROXY header");
	if (!end)
		return seen < V1_MAX ? more(out, seen + 1) : bad(out, "the PROXY header is longer than 107 bytes");
	len = (size_t)(end - data) + 1;
	if (data[len - 2] != '\r' || memchr(data, '\r', len - 2) || memchr(data, '\0', len))
		return bad(out, "the line of the PROXY header does not end in CR LF");
	memcpy(line, data, len - 2);
	line[len - 2] = '\0';
	out->why = read_v1(line + 6, out);
	return out->why ? PROXYHDR_BAD : done(out, 1, len);
}

/* Of the header, in which the checksum itself counts as zero. */
static uint32_t crc32c(const uint8_t *data, size_t len, size_t zeros_at)
{
	uint32_t crc = ~0u;

	for (size_t i = 0; i < len; i++) {
		crc ^= i >= zeros_at && i < zeros_at + 4 ? 0 : data[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return ~crc;
}

static uint32_t get16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

static const char *read_tlvs(const uint8_t *data, size_t len, size_t at)
{
	static const char malformed[] = "a field (TLV) of the PROXY header is malformed";
	size_t sum = 0;

	while (at < len) {
		size_t size;

		if (len - at < TLV_HEADER)
			return malformed;
		size = get16(data + at + 1);
		if (size > len - at - TLV_HEADER)
			return malformed;
		if (data[at] == TLV_CRC32C && (sum || size != 4))
			return malformed;
		if (data[at] == TLV_CRC32C)
			sum = at + TLV_HEADER;
		at += TLV_HEADER + size;
	}
	if (sum && crc32c(data, len, sum) != (get16(data + sum) << 16 | get16(data + sum + 2)))
		return "the checksum of the PROXY header is wrong";
	return NULL;
}

static void read_pair(const uint8_t *p, int af, size_t size, struct proxyhdr *out)
{
	set_addr(&out->src, af, p, (uint16_t)get16(p + 2 * size));
	set_addr(&out->dst, af, p + size, (uint16_t)get16(p + 2 * size + 2));
	out->known = true;
}

static const char *read_v2(const uint8_t *data, size_t len, struct proxyhdr *out)
{
	static const uint8_t sizes[] = { 0, 12, 36, 216 }; /* none, IPv4, IPv6, Unix */
	unsigned family = data[13] >> 4, transport = data[13] & 15;

	if (family > 3 || transport > 2)
		return "the PROXY header speaks of an unknown family of addresses";
	if (data[12] == V2_LOCAL)
		return NULL; /* whatever else it says */
	if (len - V2_FIXED < sizes[family])
		return "the PROXY header is too short for its addresses";
	if (data[13] == V2_TCP4)
		read_pair(data + V2_FIXED, AF_INET, 4, out);
	else if (data[13] == V2_TCP6)
		read_pair(data + V2_FIXED, AF_INET6, 16, out);
	return read_tlvs(data, len, V2_FIXED + sizes[family]);
}

static enum proxyhdr_result parse_v2(const uint8_t *data, size_t len, struct proxyhdr *out)
{
	size_t all;

	if (memcmp(data, v2_signature, len < sizeof(v2_signature) ? len : sizeof(v2_signature)) != 0)
		return bad(out, "there is no PROXY header");
	if (len > 12 && data[12] != V2_LOCAL && data[12] != V2_PROXY)
		return bad(out, "the PROXY header has an unknown version or command");
	if (len < V2_FIXED)
		return more(out, V2_FIXED);
	all = V2_FIXED + get16(data + 14);
	if (len < all)
		return more(out, all);
	out->why = read_v2(data, all, out);
	return out->why ? PROXYHDR_BAD : done(out, 2, all);
}

enum proxyhdr_result proxyhdr_parse(const uint8_t *data, size_t len, struct proxyhdr *out)
{
	*out = (struct proxyhdr){ .len = 0 };
	if (len == 0)
		return more(out, 1);
	return data[0] == v2_signature[0] ? parse_v2(data, len, out) : parse_v1(data, len, out);
}

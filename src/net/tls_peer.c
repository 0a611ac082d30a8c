/* What is remembered of a peer's certificate, as bytes and back. Owns nothing. The bytes come from tickets that were sealed with our own key;
 * they are read as if a stranger had written them all the same. It knows neither certificates nor OpenSSL. */
#define _GNU_SOURCE
#include "mctunnel/net/tls_peer.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* version, three times, authority, length and bytes of the serial number, texts to the end */
#define VERSION 1
#define FIXED (1 + 3 * 8 + TLS_PEER_DIGEST + 1)

struct tls_peer *tls_peer_new(size_t texts_len)
{
	struct tls_peer *p = calloc(1, sizeof(*p) + texts_len);

	if (p)
		p->texts_len = texts_len;
	return p;
}

struct tls_peer *tls_peer_copy(const struct tls_peer *p)
{
	struct tls_peer *copy = tls_peer_new(p->texts_len);

	if (copy)
		memcpy(copy, p, sizeof(*p) + p->texts_len);
	return copy;
}

static const char *next_text(const struct tls_peer *p, const char *text)
{
	const char *next = text + strlen(text) + 1;

	return next < p->texts + p->texts_len ? next : NULL;
}

const char *tls_peer_text(const struct tls_peer *p, size_t i)
{
	const char *text = p->texts;

	while (text && i-- > 0)
		text = next_text(p, text);
	return text;
}

static uint8_t *put_time(uint8_t *out, int64_t t)
{
	for (int shift = 56; shift >= 0; shift -= 8)
		*out++ = (uint8_t)((uint64_t)t >> shift);
	return out;
}

static int64_t get_time(const uint8_t *in)
{
	uint64_t t = 0;

	for (int i = 0; i < 8; i++)
		t = t << 8 | in[i];
	return (int64_t)t;
}

size_t tls_peer_pack(const struct tls_peer *p, uint8_t out[TLS_PEER_PACKED])
{
	size_t len = FIXED + p->serial_len + p->texts_len;
	uint8_t *at = out;

	if (len > TLS_PEER_PACKED)
		return 0;
	*at++ = VERSION;
	at = put_time(at, p->since);
	at = put_time(at, p->until);
	at = put_time(at, p->proved);
	memcpy(at, p->authority, TLS_PEER_DIGEST);
	at += TLS_PEER_DIGEST;
	*at++ = (uint8_t)p->serial_len;
	memcpy(at, p->serial, p->serial_len);
	memcpy(at + p->serial_len, p->texts, p->texts_len);
	return len;
}

static bool is_packed(const uint8_t *in, size_t len)
{
	size_t serial_len;

	if (len < FIXED || len > TLS_PEER_PACKED || in[0] != VERSION)
		return false;
	serial_len = in[FIXED - 1];
	/* at least a subject, if an empty one */
	return serial_len > 0 && serial_len <= TLS_PEER_SERIAL && len > FIXED + serial_len && in[len - 1] == 0;
}

struct tls_peer *tls_peer_unpack(const uint8_t *in, size_t len)
{
	struct tls_peer *p;
	size_t serial_len;

	if (!is_packed(in, len))
		return NULL;
	serial_len = in[FIXED - 1];
	p = tls_peer_new(len - FIXED - serial_len);
	if (!p)
		return NULL;
	p->since = get_time(in + 1);
	p->until = get_time(in + 9);
	p->proved = get_time(in + 17);
	memcpy(p->authority, in + 25, TLS_PEER_DIGEST);
	memcpy(p->serial, in + FIXED, serial_len);
	p->serial_len = serial_len;
	memcpy(p->texts, in + FIXED + serial_len, p->texts_len);
	return p;
}

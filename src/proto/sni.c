/* Reads a TLS ClientHello, as far as it tells where a client wants to go: name, protocols, versions.
 * Works on what came so far and holds nothing from call to call: a message may be spread over many records, so its bytes are read by a cursor
 * that steps over the headers of records. What it says it needs grows by what is certain to follow, so that somebody who
 * sends byte by byte causes few readings. It knows neither keys nor sockets, and judges nothing that a TLS server would. */
#include "mctunnel/proto/sni.h"

#include "mctunnel/base/str.h"

enum { RECORD_HEADER = 5, RECORD_MAX = 16384, MESSAGE_HEADER = 4, HANDSHAKE = 22, CLIENT_HELLO = 1, RANDOM = 32 };
enum { EXT_SERVER_NAME = 0, EXT_ALPN = 16, EXT_SUPPORTED_VERSIONS = 43, HOST_NAME = 0 };

/* Over the bytes of the message; what lies between them is stepped over. */
struct cursor {
	const uint8_t *at;
	size_t in_record; /* bytes left of this record */
	size_t left;      /* bytes left of what is being read */
	bool bad;         /* it ended too early; what was read since is 0 */
};

/* ---- is it all there? ---- */

static const char too_long[] = "the ClientHello is longer than 64 KiB";

static enum sni_result refuse(struct sni_hello *out, enum sni_result r, const char *why)
{
	out->why = why;
	return r;
}

static enum sni_result more(struct sni_hello *out, size_t need)
{
	if (need > SNI_HELLO_MAX)
		return refuse(out, SNI_BAD, too_long);
	out->need = need;
	return SNI_MORE;
}

/* A record begins at p, of which n bytes are there (1 at least). */
static enum sni_result check_record(const uint8_t *p, size_t n, bool first, struct sni_hello *out)
{
	size_t len;

	if (p[0] != HANDSHAKE || (n > 1 && p[1] != 3) || (n > 2 && p[2] > 4))
		return first ? refuse(out, SNI_NOT_TLS, "not TLS (plaintext)") : refuse(out, SNI_BAD, "the ClientHello is interrupted by another record");
	if (n < RECORD_HEADER)
		return SNI_DONE;
	len = (size_t)p[3] << 8 | p[4];
	if (len == 0 || len > RECORD_MAX)
		return refuse(out, SNI_BAD, "the length of a TLS record is wrong");
	return SNI_DONE;
}

/* The header of the message may itself be spread over records: *total counts what was seen of it, and is its length once that is known (else 0). */
static enum sni_result note_message(const uint8_t *p, size_t n, size_t seen, size_t *total, struct sni_hello *out)
{
	for (size_t i = 0; i < n && seen + i < MESSAGE_HEADER; i++) {
		if (seen + i == 0 && p[i] != CLIENT_HELLO)
			return refuse(out, SNI_BAD, "the first TLS message is no ClientHello");
		if (seen + i > 0)
			*total = *total << 8 | p[i];
		if (seen + i == MESSAGE_HEADER - 1)
			*total += MESSAGE_HEADER;
	}
	return SNI_DONE;
}

/* Walks over the headers of records until the message is complete; *total becomes its length. */
static enum sni_result complete(const uint8_t *data, size_t len, size_t *total, struct sni_hello *out)
{
	size_t at = 0, seen = 0, want = MESSAGE_HEADER;

	for (*total = 0;;) {
		size_t body, there;
		enum sni_result r;

		if (at == len)
			return more(out, at + RECORD_HEADER + (at ? want - seen : 0));
		r = check_record(data + at, len - at, at == 0, out);
		if (r != SNI_DONE)
			return r;
		if (len - at < RECORD_HEADER)
			return more(out, at + RECORD_HEADER + (at ? want - seen : 0));
		body = (size_t)data[at + 3] << 8 | data[at + 4];
		at += RECORD_HEADER;
		there = body < len - at ? body : len - at;
		r = note_message(data + at, there, seen, total, out);
		if (r != SNI_DONE)
			return r;
		seen += there;
		at += there;
		want = seen >= MESSAGE_HEADER ? *total : MESSAGE_HEADER;
		if (seen >= MESSAGE_HEADER && seen >= want)
			return at - (seen - want) > SNI_HELLO_MAX ? refuse(out, SNI_BAD, too_long) : SNI_DONE;
		if (there < body)
			return more(out, at + want - seen + (want - seen > body - there ? RECORD_HEADER : 0));
	}
}

/* ---- what it says ---- */

static uint8_t get8(struct cursor *c)
{
	if (c->left == 0) {
		c->bad = true;
		return 0;
	}
	if (c->in_record == 0) { /* all of them are there, and none is empty */
		c->in_record = (size_t)c->at[3] << 8 | c->at[4];
		c->at += RECORD_HEADER;
	}
	c->in_record--;
	c->left--;
	return *c->at++;
}

static size_t get16(struct cursor *c)
{
	size_t high = get8(c);

	return high << 8 | get8(c);
}

static void skip(struct cursor *c, size_t n)
{
	for (; n > 0 && !c->bad; n--)
		get8(c);
}

/* The next len bytes, as something to be read by itself; c goes on behind them. */
static struct cursor part(struct cursor *c, size_t len)
{
	struct cursor p = *c;

	if (len > c->left) {
		c->bad = p.bad = true;
		p.left = 0;
		return p;
	}
	p.left = len;
	skip(c, len);
	return p;
}

static bool read_name(struct cursor *c, struct sni_hello *out)
{
	char raw[sizeof(out->name)];
	size_t n = c->left;

	if (n > sizeof(raw))
		return false;
	for (size_t i = 0; i < n; i++)
		raw[i] = (char)get8(c);
	return str_host(out->name, sizeof(out->name), raw, n);
}

static const char *read_server_name(struct cursor *c, struct sni_hello *out)
{
	struct cursor list = part(c, get16(c));
	bool named = false;

	if (list.bad || list.left == 0 || c->left > 0)
		return "the list of server names is malformed";
	while (list.left > 0) {
		uint8_t type = get8(&list);
		struct cursor name = part(&list, get16(&list));

		if (list.bad || (type == HOST_NAME && named))
			return "the list of server names is malformed";
		if (type == HOST_NAME)
			out->odd = !read_name(&name, out);
		named |= type == HOST_NAME;
	}
	return NULL;
}

static bool read_protocol(struct cursor *c, char *out)
{
	size_t n = c->left;

	if (n > SNI_ALPN_NAME - 1)
		return false;
	for (size_t i = 0; i < n; i++) {
		uint8_t ch = get8(c);

		if (ch <= ' ' || ch >= 127)
			return false;
		out[i] = (char)ch;
	}
	out[n] = '\0';
	return true;
}

static const char *read_alpn(struct cursor *c, struct sni_hello *out)
{
	struct cursor list = part(c, get16(c));

	if (list.bad || list.left == 0 || c->left > 0)
		return "the list of protocols (ALPN) is malformed";
	while (list.left > 0) {
		struct cursor name = part(&list, get8(&list));

		if (list.bad || name.left == 0)
			return "the list of protocols (ALPN) is malformed";
		if (out->alpn_n < SNI_ALPN && read_protocol(&name, out->alpn[out->alpn_n]))
			out->alpn_n++;
	}
	return NULL;
}

static bool is_grease(size_t v)
{
	return (v & 0x0f0f) == 0x0a0a && v >> 8 == (v & 0xff);
}

static const char *read_versions(struct cursor *c, struct sni_hello *out)
{
	struct cursor list = part(c, get8(c));

	if (list.bad || list.left < 2 || list.left % 2 || c->left > 0)
		return "the list of TLS versions is malformed";
	out->versions_n = 0; /* instead of the one that stands where old servers look */
	while (list.left > 0) {
		size_t v = get16(&list);

		if (!is_grease(v) && out->versions_n < SNI_VERSIONS)
			out->versions[out->versions_n++] = (uint16_t)v;
	}
	return NULL;
}

static const char *read_extension(size_t type, struct cursor *body, struct sni_hello *out, unsigned *seen)
{
	unsigned bit = type == EXT_SERVER_NAME ? 1 : type == EXT_ALPN ? 2 : type == EXT_SUPPORTED_VERSIONS ? 4 : 0;

	if (*seen & bit)
		return "the ClientHello says the same thing twice";
	*seen |= bit;
	switch (type) {
	case EXT_SERVER_NAME:
		return read_server_name(body, out);
	case EXT_ALPN:
		return read_alpn(body, out);
	case EXT_SUPPORTED_VERSIONS:
		return read_versions(body, out);
	default:
		return NULL;
	}
}

static const char *read_extensions(struct cursor *c, struct sni_hello *out)
{
	struct cursor list = part(c, get16(c));
	unsigned seen = 0;

	while (list.left > 0 && !list.bad) {
		size_t type = get16(&list);
		struct cursor body = part(&list, get16(&list));
		const char *why = list.bad ? NULL : read_extension(type, &body, out, &seen);

		if (why)
			return why;
	}
	c->bad |= list.bad;
	return NULL;
}

static const char *read_hello(struct cursor *c, struct sni_hello *out)
{
	static const char malformed[] = "the ClientHello is malformed";
	size_t n;

	skip(c, MESSAGE_HEADER);
	out->versions[0] = (uint16_t)get16(c);
	out->versions_n = 1;
	skip(c, RANDOM);
	n = get8(c); /* id of a session */
	if (n > 32)
		return malformed;
	skip(c, n);
	n = get16(c); /* ciphers */
	if (n < 2 || n % 2)
		return malformed;
	skip(c, n);
	n = get8(c); /* compression */
	if (n < 1)
		return malformed;
	skip(c, n);
	if (c->left > 0 && !c->bad) {
		const char *why = read_extensions(c, out);

		if (why)
			return why;
	}
	return c->bad || c->left > 0 ? malformed : NULL;
}

enum sni_result sni_parse(const uint8_t *data, size_t len, struct sni_hello *out)
{
	struct cursor c = { .at = data };
	enum sni_result r;

	*out = (struct sni_hello){ .need = RECORD_HEADER };
	r = complete(data, len, &c.left, out);
	if (r != SNI_DONE)
		return r;
	out->why = read_hello(&c, out);
	return out->why ? SNI_BAD : SNI_DONE;
}

/* Rewriting of HTTP heads, field by field, into a buffer of the caller.
 * Fields that belong to one connection are dropped (http1_field.hop), framing is said anew, and a client cannot pass off as ours what tells the target who it
 * is: names are compared as CGI would see them, where '_' and '-' are the same.
 * Knows no connection and no route; what a head may look like is proto/http1's business. */
#include "mctunnel/edge/webhead.h"

#include "mctunnel/base/rnd.h"
#include "mctunnel/base/str.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/proto/http1.h"

#include <string.h>
#include <strings.h>

struct text { /* under construction */
	char *at, *end;
	bool full;
};

static void put(struct text *t, const char *from, size_t n)
{
	if ((size_t)(t->end - t->at) < n) {
		t->full = true;
		t->end = t->at;
		return;
	}
	if (n > 0)
		memcpy(t->at, from, n);
	t->at += n;
}

#define put_literal(t, s) put(t, s, sizeof(s) - 1)

static void put_str(struct text *t, const char *s)
{
	put(t, s, strlen(s));
}

static void put_text(struct text *t, struct http1_text s)
{
	put(t, s.at, s.len);
}

static void put_number(struct text *t, uint64_t n)
{
	char digits[20];
	size_t i = sizeof(digits);

	do
		digits[--i] = (char)('0' + n % 10);
	while (n /= 10);
	put(t, digits + i, sizeof(digits) - i);
}

static void put_field(struct text *t, const struct http1_field *f)
{
	put_text(t, f->name);
	put_literal(t, ": ");
	put_text(t, f->value);
	put_literal(t, "\r\n");
}

/* Fields that are handled by name. */

enum special { ORDINARY, HOST, FRAMING, FORWARDED, REQUEST_ID, TRAILER };

static bool same_name(struct http1_text name, const char *lower, size_t len)
{
	if (name.len < len)
		return false;
	for (size_t i = 0; i < len; i++) {
		char c = name.at[i] == '_' ? '-' : name.at[i];

		if ((c >= 'A' && c <= 'Z' ? c | 0x20 : c) != lower[i])
			return false;
	}
	return true;
}

#define NAMED(name, word) ((name).len == sizeof(word) - 1 && same_name(name, word, sizeof(word) - 1))

static enum special special(struct http1_text name)
{
	if (same_name(name, "x-forwarded-", 12))
		return FORWARDED;
	switch (name.len) {
	case 4: return NAMED(name, "host") ? HOST : ORDINARY;
	case 7: return NAMED(name, "trailer") ? TRAILER : ORDINARY;
	case 9: return NAMED(name, "forwarded") ? FORWARDED : ORDINARY;
	case 12: return NAMED(name, "x-request-id") ? REQUEST_ID : ORDINARY;
	case 14: return NAMED(name, "content-length") ? FRAMING : ORDINARY;
	case 17: return NAMED(name, "transfer-encoding") ? FRAMING : ORDINARY;
	default: return ORDINARY;
	}
}

/* Requests. */

/* Every value of the field, each with ", " behind it. */
static bool put_values(struct text *t, const struct http1_head *h, const char *name)
{
	bool any = false;

	for (size_t i = 0; i < h->fields_n; i++) {
		if (!http1_is(h->fields[i].name, name) || h->fields[i].value.len == 0)
			continue;
		any = true;
		put_text(t, h->fields[i].value);
		put_literal(t, ", ");
	}
	return any;
}

/* RFC 7239: for=192.0.2.1;host="example.com:80";proto=http */
static void put_forwarded(struct text *t, const struct webhead_request *r)
{
	bool ipv6 = strchr(r->client, ':') != NULL;

	put_literal(t, "Forwarded: ");
	if (r->forwarded == FORWARDED_APPEND)
		(void)put_values(t, r->head, "Forwarded");
	put_str(t, ipv6 ? "for=\"[" : "for=");
	put_str(t, r->client);
	put_str(t, ipv6 ? "]\"" : "");
	if (r->head->authority.len > 0) {
		put_literal(t, ";host=\"");
		put_text(t, r->head->authority);
		put_literal(t, "\"");
	}
	put_str(t, r->tls ? ";proto=https\r\n" : ";proto=http\r\n");
}

static bool has(const struct webhead_request *r, const char *name)
{
	return r->forwarded == FORWARDED_APPEND && http1_find(r->head, name);
}

static void put_client(struct text *t, const struct webhead_request *r)
{
	put_literal(t, "X-Forwarded-For: ");
	if (r->forwarded == FORWARDED_APPEND)
		(void)put_values(t, r->head, "X-Forwarded-For");
	put_str(t, r->client);
	put_literal(t, "\r\n");
	if (!has(r, "X-Forwarded-Proto"))
		put_str(t, r->tls ? "X-Forwarded-Proto: https\r\n" : "X-Forwarded-Proto: http\r\n");
	if (r->head->authority.len > 0 && !has(r, "X-Forwarded-Host")) {
		put_literal(t, "X-Forwarded-Host: ");
		put_text(t, r->head->authority);
		put_literal(t, "\r\n");
	}
	put_forwarded(t, r);
}

/* May a field of the client that tells who it is go on as it is? */
static bool trusted(const struct webhead_request *r, struct http1_text name)
{
	if (r->forwarded == FORWARDED_KEEP)
		return true;
	return r->forwarded == FORWARDED_APPEND && !NAMED(name, "x-forwarded-for") && !NAMED(name, "forwarded");
}

static bool goes_on(const struct webhead_request *r, const struct http1_field *f)
{
	if (f->hop)
		return false;
	switch (special(f->name)) {
	case HOST:
	case FRAMING: return false;
	case FORWARDED: return trusted(r, f->name);
	case REQUEST_ID: return r->forwarded == FORWARDED_OFF;
	case TRAILER:
	case ORDINARY: return true;
	}
	return true;
}

static void put_target(struct text *t, const struct webhead_request *r)
{
	const struct http1_head *h = r->head;

	put_text(t, h->method);
	put_literal(t, " ");
	if (r->path)
		put_str(t, r->path);
	else
		put_text(t, h->path.len > 0 ? h->path : h->target); /* CONNECT has no path */
	put_text(t, h->query);
	put_literal(t, " HTTP/1.1\r\nHost: ");
	if (h->authority.len > 0)
		put_text(t, h->authority);
	else
		put_str(t, r->host);
	put_literal(t, "\r\n");
}

static bool list_has(struct http1_text list, const char *word)
{
	size_t len = strlen(word);

	for (uint32_t i = 0; i + len <= list.len; i++) {
		bool begins = i == 0 || strchr(" \t,;", list.at[i - 1]);
		bool ends = i + len == list.len || strchr(" \t,;", list.at[i + len]);

		if (begins && ends && strncasecmp(list.at + i, word, len) == 0)
			return true;
	}
	return false;
}

/* What is said anew of this connection. */
static void put_hop(struct text *t, const struct http1_head *h)
{
	const struct http1_field *te = http1_find(h, "TE"), *up = h->upgrade ? http1_find(h, "Upgrade") : NULL;
	bool trailers = te && list_has(te->value, "trailers");

	if (up)
		put_field(t, up);
	if (trailers)
		put_literal(t, "TE: trailers\r\n");
	if (up && trailers)
		put_literal(t, "Connection: upgrade, TE\r\n");
	else if (up)
		put_literal(t, "Connection: upgrade\r\n");
	else if (trailers)
		put_literal(t, "Connection: TE\r\n");
}

static void put_framing(struct text *t, const struct http1_head *h)
{
	if (h->framing == HTTP1_CHUNKED) {
		put_literal(t, "Transfer-Encoding: chunked\r\n");
	} else if (h->framing == HTTP1_LENGTH) {
		put_literal(t, "Content-Length: ");
		put_number(t, h->length);
		put_literal(t, "\r\n");
	}
}

static size_t length(const struct text *t, const char *start)
{
	return t->full ? 0 : (size_t)(t->at - start);
}

size_t webhead_request(char *out, size_t size, const struct webhead_request *r)
{
	struct text t = { .at = out, .end = out + size };
	const struct http1_head *h = r->head;

	put_target(&t, r);
	for (size_t i = 0; i < h->fields_n; i++) {
		if (goes_on(r, &h->fields[i]))
			put_field(&t, &h->fields[i]);
	}
	put_framing(&t, h);
	/* "Content-Length: 0" says that a body was meant, which some demand of POST */
	if (h->framing == HTTP1_NONE && http1_find(h, "Content-Length"))
		put_literal(&t, "Content-Length: 0\r\n");
	put_hop(&t, h);
	if (r->forwarded == FORWARDED_REPLACE || r->forwarded == FORWARDED_APPEND)
		put_client(&t, r);
	if (r->forwarded != FORWARDED_OFF) {
		put_literal(&t, "X-Request-ID: ");
		put_str(&t, r->id);
		put_literal(&t, "\r\n");
	}
	put_literal(&t, "\r\n");
	return length(&t, out);
}

/* Answers. */

/* A Content-Length is said by put_framing; without a body it stays where it says what there would be (HEAD, 304). */
static bool answer_goes_on(const struct webhead_answer *a, const struct http1_field *f)
{
	const struct http1_head *h = a->head;

	if (f->hop)
		return false;
	if (NAMED(f->name, "content-length"))
		return h->framing == HTTP1_NONE && h->status >= 200 && h->status != 204;
	return !a->unchunk || !NAMED(f->name, "trailer");
}

static void put_connection(struct text *t, const struct webhead_answer *a)
{
	const struct http1_head *h = a->head;
	const struct http1_field *up = h->status == 101 || h->status == 426 ? http1_find(h, "Upgrade") : NULL;

	if (up)
		put_field(t, up);
	if (up && a->close && h->status != 101)
		put_literal(t, "Connection: upgrade, close\r\n");
	else if (up || h->status == 101)
		put_literal(t, "Connection: upgrade\r\n");
	else if (a->close)
		put_literal(t, "Connection: close\r\n");
	else if (a->keep)
		put_literal(t, "Connection: keep-alive\r\n");
}

size_t webhead_answer(char *out, size_t size, const struct webhead_answer *a)
{
	struct text t = { .at = out, .end = out + size };
	const struct http1_head *h = a->head;

	put_literal(&t, "HTTP/1.1 ");
	put_number(&t, h->status);
	put_literal(&t, " ");
	put_text(&t, h->phrase);
	put_literal(&t, "\r\n");
	for (size_t i = 0; i < h->fields_n; i++) {
		if (answer_goes_on(a, &h->fields[i]))
			put_field(&t, &h->fields[i]);
	}
	if (!a->unchunk)
		put_framing(&t, h);
	put_connection(&t, a);
	put_literal(&t, "\r\n");
	return length(&t, out);
}

bool webhead_binds(const struct http1_head *h)
{
	for (size_t i = 0; i < h->fields_n; i++) {
		const struct http1_field *f = &h->fields[i];
		bool about = f->name.len == 16 ? NAMED(f->name, "www-authenticate") : f->name.len == 13 && NAMED(f->name, "authorization");

		if (about && (list_has(f->value, "NTLM") || list_has(f->value, "Negotiate")))
			return true;
	}
	return false;
}

/* Ids. */

static bool harmless(struct http1_text id)
{
	for (uint32_t i = 0; i < id.len; i++) {
		char c = id.at[i];

		if (!(c >= '0' && c <= '9') && !((c | 0x20) >= 'a' && (c | 0x20) <= 'z') && (c == '\0' || !strchr("-._:+/=@", c)))
			return false;
	}
	return id.len > 0 && id.len < WEBHEAD_ID;
}

void webhead_id(char out[WEBHEAD_ID], const struct http1_head *h, int forwarded)
{
	const struct http1_field *f = forwarded == FORWARDED_REPLACE ? NULL : http1_find(h, "X-Request-ID");
	uint64_t random[2];

	if (f && !f->hop && harmless(f->value)) {
		memcpy(out, f->value.at, f->value.len);
		out[f->value.len] = '\0';
		return;
	}
	random[0] = rnd_u64();
	random[1] = rnd_u64();
	str_hex(out, random, sizeof(random));
}

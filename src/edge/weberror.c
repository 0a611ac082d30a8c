/* The hub's own answers to HTTP clients.
 * A table says which status a reason becomes, another what a status means; the text never holds a byte of the client's. Owns nothing, knows no connection. */
#include "mctunnel/edge/weberror.h"

#include "mctunnel/base/str.h"

#include <string.h>

#define RETRY_AFTER "1" /* seconds: agents are back sooner, mostly */

static const struct {
	unsigned status;
	const char *phrase, *text;
} meanings[] = {
	{ 301, "Moved Permanently", "This is elsewhere now." },
	{ 302, "Found", "This is elsewhere." },
	{ 303, "See Other", "This is elsewhere." },
	{ 307, "Temporary Redirect", "This is elsewhere." },
	{ 308, "Permanent Redirect", "This is elsewhere now." },
	{ 400, "Bad Request", "The request is malformed." },
	{ 403, "Forbidden", "This is not allowed." },
	{ 404, "Not Found", "No route leads there." },
	{ 405, "Method Not Allowed", "This method is not served here." },
	{ 407, "Proxy Authentication Required", "Name and password are wanted." },
	{ 408, "Request Timeout", "The request did not come in time." },
	{ 413, "Content Too Large", "The body is too large." },
	{ 414, "URI Too Long", "The request line is too long." },
	{ 421, "Misdirected Request", "Another host was meant when this connection was made." },
	{ 429, "Too Many Requests", "Too many requests; try again later." },
	{ 431, "Request Header Fields Too Large", "The head of the request is too large." },
	{ 501, "Not Implemented", "This is not served here." },
	{ 502, "Bad Gateway", "The target did not answer properly." },
	{ 503, "Service Unavailable", "Nobody can serve this just now; try again later." },
	{ 504, "Gateway Timeout", "The target did not answer in time." },
	{ 505, "HTTP Version Not Supported", "This version of HTTP is not served here." },
};

static const struct {
	enum reason why;
	unsigned status;
} statuses[] = {
	{ REASON_BAD_REQUEST, 400 },
	{ REASON_DENIED, 403 },
	{ REASON_POLICY, 403 },
	{ REASON_IDENTITY, 403 },
	{ REASON_NO_ROUTE, 404 },
	{ REASON_CLIENT_TIMEOUT, 408 },
	{ REASON_RATE, 429 },
	{ REASON_NO_SERVICE, 503 },
	{ REASON_AGENT_FULL, 503 },
	{ REASON_DRAINING, 503 },
	{ REASON_NO_AGENT, 503 },
	{ REASON_LIMIT, 503 },
	{ REASON_RESOURCES, 503 },
	{ REASON_STOPPED, 503 },
	{ REASON_SERVICE_DOWN, 503 },
	{ REASON_TARGET_TIMEOUT, 504 },
	{ REASON_CONNECT_TIMEOUT, 504 },
	{ REASON_ANSWER_TIMEOUT, 504 },
	{ REASON_RESUME_TIMEOUT, 504 },
	{ REASON_IDLE, 504 },
};

unsigned weberror_status(enum reason why)
{
	for (size_t i = 0; i < sizeof(statuses) / sizeof(*statuses); i++) {
		if (statuses[i].why == why)
			return statuses[i].status;
	}
	return 502;
}

static const char *phrase_of(unsigned status, const char **text)
{
	for (size_t i = 0; i < sizeof(meanings) / sizeof(*meanings); i++) {
		if (meanings[i].status == status) {
			*text = meanings[i].text;
			return meanings[i].phrase;
		}
	}
	*text = "This is not served.";
	return "Error";
}

static void make_body(struct strbuf *b, const struct weberror *e, const char *text)
{
	strbuf_add(b, "%u %s\n", e->status, text);
	if (e->session && e->session[0])
		strbuf_add(b, "id: %s\n", e->session);
	if (e->request && e->request[0])
		strbuf_add(b, "request: %s\n", e->request);
}

size_t weberror_make(char *out, size_t size, const struct weberror *e)
{
	char body[1024];
	struct strbuf b, h;
	const char *text, *phrase = phrase_of(e->status, &text);

	strbuf_init(&b, body, sizeof(body));
	make_body(&b, e, e->text ? e->text : text);
	strbuf_init(&h, out, size);
	strbuf_add(&h, "HTTP/1.1 %u %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %zu\r\nCache-Control: no-store\r\n", e->status, phrase, b.len);
	if (e->status == 503 || e->status == 429)
		strbuf_add(&h, "Retry-After: " RETRY_AFTER "\r\n");
	if (e->location)
		strbuf_add(&h, "Location: %s\r\n", e->location);
	if (e->field)
		strbuf_add(&h, "%s\r\n", e->field);
	if (e->close || e->keep)
		strbuf_add(&h, "Connection: %s\r\n", e->close ? "close" : "keep-alive");
	strbuf_add(&h, "\r\n%s", e->head ? "" : body);
	return h.len;
}

/* HTTP/1.0 and 1.1: heads are parsed line by line from the start at each call, bodies are followed byte by byte by a small machine.
 * Owns nothing: what it says about a head points into the caller's buffer. A message that two receivers could read in two ways is refused, not
 * repaired. The checks come strictly in the order of the bytes, and a line is looked at when it is whole (but for control characters), so that the
 * outcome never depends on how the bytes were cut. Knows no socket, no rule and no clock; what to do with a head is the caller's. */
#include "mctunnel/proto/http1.h"

#include "mctunnel/base/bug.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

enum { EMPTY_LINES_MAX = 4, HOST_MAX = 255 };

enum { TOKEN = 1, TARGET = 2, HOST = 4 };

static const uint8_t classes[256] = {
	['!'] = TOKEN | TARGET, ['"'] = TARGET, ['#'] = TOKEN, ['$' ... '\''] = TOKEN | TARGET, ['(' ... ')'] = TARGET, ['*' ... '+'] = TOKEN | TARGET,
	[','] = TARGET, ['-' ... '.'] = TOKEN | TARGET | HOST, ['/'] = TARGET, ['0' ... '9'] = TOKEN | TARGET | HOST, [':' ... '@'] = TARGET,
	['A' ... 'Z'] = TOKEN | TARGET | HOST, ['[' ... ']'] = TARGET, ['^'] = TOKEN | TARGET, ['_'] = TOKEN | TARGET | HOST, ['`'] = TOKEN | TARGET,
	['a' ... 'z'] = TOKEN | TARGET | HOST, ['{'] = TARGET, ['|'] = TOKEN | TARGET, ['}'] = TARGET, ['~'] = TOKEN | TARGET | HOST,
};

/* One head being parsed. */
struct parse {
	struct http1_head *head;
	struct http1_error *err;
	const char *start, *at, *end; /* end: of what may be looked at */
	bool cut;                     /* there is more, beyond the limit */
	bool answer;
	const char *bad;              /* set by checks that return false: the byte at fault, and what it is */
	const char *text;
	const struct http1_field *host, *length, *coding, *connection, *upgrade;
	unsigned options;             /* words of Connection so far */
	bool close, keep, wants_upgrade, names_fields, h2c;
};

static bool is(char c, uint8_t class)
{
	return classes[(uint8_t)c] & class;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static bool is_control(char c)
{
	return (uint8_t)c < 0x20 || c == 0x7f;
}

static bool bad(struct parse *p, const char *at, const char *text)
{
	p->bad = at;
	p->text = text;
	return false;
}

static ssize_t fail(struct parse *p, unsigned status)
{
	p->err->status = p->answer ? 502 : status;
	p->err->offset = (size_t)(p->bad - p->start);
	p->err->text = p->text;
	return -1;
}

static struct http1_text text_of(const char *at, const char *end)
{
	return (struct http1_text){ at, (uint32_t)(end - at) };
}

bool http1_is(struct http1_text t, const char *word)
{
	return t.len == strlen(word) && strncasecmp(t.at, word, t.len) == 0;
}

/* ---- lines ---- */

/* First control character from at on, or end. */
static const char *find_control(const char *at, const char *end)
{
	const uint64_t ones = UINT64_MAX / 255, highs = ones << 7;

	for (; end - at >= 8; at += 8) {
		uint64_t w, del;

		memcpy(&w, at, 8);
		del = w ^ ones * 0x7f;
		if ((((w - ones * 0x20) & ~w) | ((del - ones) & ~del)) & highs)
			break;
	}
	while (at < end && !is_control(*at))
		at++;
	return at;
}

/* Takes a line. 1: *line is it, without its end; 0: it is not whole; -1: p->bad. */
static int take_line(struct parse *p, struct http1_text *line)
{
	const char *c = find_control(p->at, p->end);

	while (c < p->end && *c == '\t')
		c = find_control(c + 1, p->end);
	if (c == p->end || (*c == '\r' && c + 1 == p->end))
		return 0;
	if (*c == '\n')
		bad(p, c, "a line feed without a carriage return");
	else if (*c == '\r' && c[1] != '\n')
		bad(p, c, "a carriage return without a line feed");
	else if (*c != '\r')
		bad(p, c, *c == '\0' ? "a NUL byte" : "a control character");
	else {
		*line = text_of(p->at, c);
		p->at = c + 2;
		return 1;
	}
	return -1;
}

/* ---- lists ---- */

static struct http1_text trimmed(const char *at, const char *end)
{
	while (at < end && is_blank(*at))
		at++;
	while (end > at && is_blank(end[-1]))
		end--;
	return text_of(at, end);
}

/* Takes the next element that is not empty off a list with commas; false: none. */
static bool take_item(struct http1_text *list, struct http1_text *item)
{
	while (list->len > 0) {
		const char *comma = memchr(list->at, ',', list->len), *end = list->at + list->len;

		*item = trimmed(list->at, comma ? comma : end);
		*list = text_of(comma ? comma + 1 : end, end);
		if (item->len > 0)
			return true;
	}
	return false;
}

/* ---- host and port ---- */

static bool port_ok(const char *at, const char *end)
{
	unsigned port = 0;

	if (end - at < 1 || end - at > 5 || *at == '0')
		return false;
	for (; at < end; at++) {
		if (!is_digit(*at))
			return false;
		port = port * 10 + (unsigned)(*at - '0');
	}
	return port <= UINT16_MAX;
}

static bool is_ipv6(const char *at, const char *end)
{
	char text[INET6_ADDRSTRLEN];
	struct in6_addr unused;
	size_t len = (size_t)(end - at);

	if (len >= sizeof(text))
		return false;
	memcpy(text, at, len);
	text[len] = '\0';
	return inet_pton(AF_INET6, text, &unused) == 1;
}

/* Splits host and port (len 0: none). The first is what a name server or a rule could have; anything odd is refused. */
static bool split_authority(struct parse *p, struct http1_text a, struct http1_text *host, struct http1_text *port)
{
	const char *end = a.at + a.len, *c = a.at;

	if (a.len > 0 && *c == '[') {
		c = memchr(c, ']', a.len);
		if (!c || !is_ipv6(a.at + 1, c))
			return bad(p, a.at, "not an IPv6 address in brackets");
		c++;
	} else {
		while (c < end && is(*c, HOST))
			c++;
	}
	*host = text_of(a.at, c);
	if (host->len == 0 || host->len > HOST_MAX)
		return bad(p, a.at, host->len == 0 ? "no host name" : "a host name that is too long");
	if (c < end && *c != ':')
		return bad(p, c, "a character that no host name has");
	*port = text_of(c < end ? c + 1 : end, end);
	if (c < end && !port_ok(port->at, end))
		return bad(p, c, "not a port");
	return true;
}

static bool same(struct http1_text a, struct http1_text b)
{
	return a.len == b.len && strncasecmp(a.at, b.at, a.len) == 0;
}

/* Does the field Host say what the target says? `usual`: the port that may be left out; NULL: any. */
static bool agree(struct parse *p, struct http1_text target, struct http1_text host, const char *usual)
{
	struct http1_text name[2], port[2];

	if (!split_authority(p, target, &name[0], &port[0]) || !split_authority(p, host, &name[1], &port[1]))
		return false;
	for (int i = 0; i < 2; i++)
		if (port[i].len == 0)
			port[i] = usual ? text_of(usual, usual + strlen(usual)) : port[!i];
	if (!same(name[0], name[1]) || !same(port[0], port[1]))
		return bad(p, host.at, "Host contradicts the target");
	return true;
}

/* ---- the request line ---- */

static bool split_path(struct parse *p, struct http1_text whole)
{
	struct http1_head *h = p->head;
	const char *end = whole.at + whole.len, *mark = memchr(whole.at, '?', whole.len), *slash;

	h->path = text_of(whole.at, mark ? mark : end);
	h->query = text_of(mark ? mark : end, end);
	slash = memchr(h->path.at, '\\', h->path.len);
	return !slash || bad(p, slash, "a backslash in the path");
}

static bool parse_absolute(struct parse *p)
{
	struct http1_head *h = p->head;
	const char *at = h->target.at, *end = at + h->target.len, *c;
	struct http1_text host, port;

	if (h->target.len > 8 && strncasecmp(at, "https://", 8) == 0)
		at += 8;
	else if (h->target.len > 7 && strncasecmp(at, "http://", 7) == 0)
		at += 7;
	else
		return bad(p, at, "neither a path nor an http address");
	for (c = at; c < end && *c != '/' && *c != '?'; c++)
		;
	h->authority = text_of(at, c);
	if (!split_authority(p, h->authority, &host, &port) || !split_path(p, text_of(c, end)))
		return false;
	if (h->path.len == 0)
		h->path = text_of(at - 1, at); /* the slash before the host serves */
	return true;
}

static bool parse_target(struct parse *p)
{
	struct http1_head *h = p->head;
	struct http1_text host, port;
	char first = h->target.at[0];

	if (h->method.len == 7 && memcmp(h->method.at, "CONNECT", 7) == 0) {
		h->authority = h->target;
		return split_authority(p, h->target, &host, &port) && (port.len > 0 || bad(p, h->target.at, "CONNECT without a port"));
	}
	if (first == '/')
		return split_path(p, h->target);
	if (first != '*')
		return parse_absolute(p);
	h->path = h->target;
	return (h->target.len == 1 && h->method.len == 7 && memcmp(h->method.at, "OPTIONS", 7) == 0) || bad(p, h->target.at, "not a target of this method");
}

/* "HTTP/1.0" or "HTTP/1.1" at `at`. 0, or the status to refuse with. */
static unsigned parse_version(struct parse *p, const char *at, const char *end)
{
	if (end - at != 8 || memcmp(at, "HTTP/", 5) != 0 || !is_digit(at[5]) || at[6] != '.' || !is_digit(at[7])) {
		bad(p, at, "not an HTTP version");
		return 400;
	}
	if (at[5] != '1' || at[7] > '1') {
		bad(p, at, "an HTTP version that is not served here");
		return 505;
	}
	p->head->minor = (unsigned)(at[7] - '0');
	return 0;
}

/* Behind the line is its CR, which is of no class: loops need no other end. 0, or the status to refuse with. */
static unsigned parse_request_line(struct parse *p, struct http1_text line)
{
	const char *at = line.at, *end = at + line.len;
	struct http1_head *h = p->head;
	unsigned status;

	while (is(*at, TOKEN))
		at++;
	h->method = text_of(line.at, at);
	if (*at != ' ' || h->method.len == 0) {
		bad(p, at, "not a method");
		return 400;
	}
	if (h->method.len > HTTP1_METHOD_MAX) {
		bad(p, line.at + HTTP1_METHOD_MAX, "a method that is too long");
		return 501;
	}
	h->target.at = ++at;
	while (is(*at, TARGET))
		at++;
	h->target = text_of(h->target.at, at);
	if (*at != ' ' || h->target.len == 0) {
		bad(p, at, at == end ? "a request without a version" : "a character that no target has");
		return 400;
	}
	status = parse_version(p, at + 1, end);
	if (status == 0 && !parse_target(p))
		status = 400;
	return status;
}

/* ---- the status line ---- */

static bool parse_status_line(struct parse *p, struct http1_text line)
{
	const char *at = line.at, *end = at + line.len;
	struct http1_head *h = p->head;

	if (line.len < 12 || at[8] != ' ')
		return bad(p, at, "not a status line");
	if (parse_version(p, at, at + 8) != 0)
		return false;
	at += 9;
	if (!is_digit(at[0]) || !is_digit(at[1]) || !is_digit(at[2]) || at[0] == '0' || (line.len > 12 && at[3] != ' '))
		return bad(p, at, "not a status");
	h->status = (unsigned)((at[0] - '0') * 100 + (at[1] - '0') * 10 + (at[2] - '0'));
	h->phrase = text_of(line.len > 12 ? at + 4 : end, end);
	return true;
}

/* ---- fields that matter here ---- */

static bool take_host(struct parse *p, const struct http1_field *f)
{
	struct http1_text host, port;

	if (p->answer)
		return true;
	if (p->host)
		return bad(p, f->name.at, "a second Host");
	p->host = f;
	if (!split_authority(p, f->value, &host, &port))
		return false;
	if (p->head->authority.len == 0)
		p->head->authority = f->value;
	return true;
}

static bool parse_length(struct parse *p, struct http1_text v)
{
	uint64_t n = 0;

	if (v.len == 0)
		return bad(p, v.at, "an empty Content-Length");
	for (uint32_t i = 0; i < v.len; i++) {
		if (!is_digit(v.at[i]))
			return bad(p, v.at + i, "not a Content-Length");
		if (i == 18 || (i == 1 && v.at[0] == '0')) /* a zero in front: octal to some */
			return bad(p, v.at, "a Content-Length out of range");
		n = n * 10 + (uint64_t)(v.at[i] - '0');
	}
	p->head->length = n;
	return true;
}

static bool take_length(struct parse *p, const struct http1_field *f)
{
	if (p->length)
		return bad(p, f->name.at, "a second Content-Length");
	if (p->coding)
		return bad(p, f->name.at, "Content-Length with Transfer-Encoding");
	p->length = f;
	return parse_length(p, f->value);
}

static bool take_coding(struct parse *p, const struct http1_field *f)
{
	if (p->coding)
		return bad(p, f->name.at, "a second Transfer-Encoding");
	if (p->length)
		return bad(p, f->name.at, "Transfer-Encoding with Content-Length");
	if (p->head->minor == 0)
		return bad(p, f->name.at, "Transfer-Encoding in HTTP/1.0");
	if (!http1_is(f->value, "chunked"))
		return bad(p, f->value.at, "a Transfer-Encoding that is not chunked");
	p->coding = f;
	return true;
}

/* Whoever names these wants them lost on the way. */
static bool may_be_named(struct http1_text option)
{
	return !http1_is(option, "Host") && !http1_is(option, "Content-Length") && !http1_is(option, "Transfer-Encoding");
}

static bool take_connection(struct parse *p, const struct http1_field *f)
{
	struct http1_text list = f->value, option;

	if (!p->connection)
		p->connection = f;
	while (take_item(&list, &option)) {
		if (++p->options > HTTP1_OPTIONS_MAX)
			return bad(p, option.at, "too many words in Connection");
		for (uint32_t i = 0; i < option.len; i++)
			if (!is(option.at[i], TOKEN))
				return bad(p, option.at + i, "not a word for Connection");
		if (!may_be_named(option))
			return bad(p, option.at, "Connection names a field that it must not");
		if (http1_is(option, "close"))
			p->close = true;
		else if (http1_is(option, "keep-alive"))
			p->keep = true;
		else if (http1_is(option, "upgrade"))
			p->wants_upgrade = true;
		else
			p->names_fields = true;
	}
	return true;
}

static bool take_upgrade(struct parse *p, const struct http1_field *f)
{
	struct http1_text list = f->value, item;

	while (take_item(&list, &item)) {
		p->upgrade = f;
		p->h2c |= http1_is(item, "h2c");
	}
	return true;
}

static bool take_expect(struct parse *p, const struct http1_field *f)
{
	p->head->expect_continue |= p->head->minor == 1 && http1_is(f->value, "100-continue");
	return true;
}

#define KNOWN(name) name, sizeof(name) - 1
static const struct known {
	const char *name;
	uint32_t len;
	bool hop;
	bool (*take)(struct parse *p, const struct http1_field *f); /* false: p->bad */
} known[] = {
	{ KNOWN("Host"), false, take_host },
	{ KNOWN("Connection"), true, take_connection },
	{ KNOWN("Content-Length"), false, take_length },
	{ KNOWN("Transfer-Encoding"), true, take_coding },
	{ KNOWN("Upgrade"), true, take_upgrade },
	{ KNOWN("Expect"), false, take_expect },
	{ KNOWN("Keep-Alive"), true, NULL },
	{ KNOWN("Proxy-Connection"), true, NULL },
	{ KNOWN("TE"), true, NULL },
	{ KNOWN("HTTP2-Settings"), true, NULL },
};

static const struct known *known_by_name(struct http1_text name)
{
	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (known[i].len == name.len && strncasecmp(name.at, known[i].name, name.len) == 0)
			return &known[i];
	return NULL;
}

/* ---- fields ---- */

static bool parse_field(struct parse *p, struct http1_text line)
{
	const char *c = line.at, *end = c + line.len;
	struct http1_field *f = &p->head->fields[p->head->fields_n];
	const struct known *k;

	if (is_blank(*c))
		return bad(p, c, "a folded line");
	while (is(*c, TOKEN))
		c++;
	if (*c != ':')
		return bad(p, c, is_blank(*c) ? "a blank in or behind a field's name" : c == end ? "a field without a colon" : "a character that no field's name has");
	f->name = text_of(line.at, c);
	if (f->name.len == 0 || f->name.len > HTTP1_NAME_MAX)
		return bad(p, line.at, f->name.len == 0 ? "a field without a name" : "a field's name that is too long");
	f->value = trimmed(c + 1, end);
	k = known_by_name(f->name);
	f->hop = k && k->hop;
	p->head->fields_n++;
	return !k || !k->take || k->take(p, f);
}

/* Marks what the Connection fields name. */
static void mark_named(struct parse *p)
{
	struct http1_head *h = p->head;
	struct http1_text list, option;

	for (const struct http1_field *f = p->connection; f < h->fields + h->fields_n; f++) {
		if (!http1_is(f->name, "Connection"))
			continue;
		list = f->value;
		while (take_item(&list, &option))
			for (size_t i = 0; i < h->fields_n; i++)
				h->fields[i].hop |= same(h->fields[i].name, option);
	}
}

/* ---- the whole head ---- */

static void init(struct parse *p, struct http1_head *out, const char *buf, size_t len, size_t max)
{
	memset(p, 0, sizeof(*p));
	memset(out, 0, offsetof(struct http1_head, fields));
	p->head = out;
	p->start = p->at = buf;
	p->cut = len > max;
	p->end = buf + (p->cut ? max : len);
}

/* The line is not whole: is there room for more of it? */
static ssize_t want_more(struct parse *p, unsigned status)
{
	if (!p->cut)
		return 0;
	bad(p, p->end, status == 414 ? "a request line that is too long" : "a head that is too long");
	return fail(p, status);
}

/* Up to and with the empty line; the head's length, 0 or -1. */
static ssize_t parse_fields(struct parse *p)
{
	struct http1_text line;
	int got;

	while ((got = take_line(p, &line)) > 0 && line.len > 0) {
		if (p->head->fields_n == HTTP1_FIELDS_MAX) {
			bad(p, line.at, "too many fields");
			return fail(p, 431);
		}
		if (!parse_field(p, line))
			return fail(p, 400);
	}
	if (got <= 0)
		return got < 0 ? fail(p, 400) : want_more(p, 431);
	if (p->names_fields)
		mark_named(p);
	p->head->upgrade = p->wants_upgrade && p->upgrade && !p->h2c && p->head->minor == 1;
	p->head->keep_alive = !p->close && (p->head->minor == 1 || p->keep);
	return p->at - p->start;
}

static bool check_request(struct parse *p)
{
	struct http1_head *h = p->head;
	bool connect = h->path.len == 0, tls = h->target.len > 5 && strncasecmp(h->target.at, "https", 5) == 0;
	const char *usual = tls ? "443" : "80";

	if (!p->host && h->minor == 1)
		return bad(p, p->at - 2, "no Host");
	if (p->host && h->authority.at != p->host->value.at && !agree(p, h->authority, p->host->value, connect ? NULL : usual))
		return false;
	if (connect && (p->coding || h->length > 0))
		return bad(p, (p->coding ? p->coding : p->length)->name.at, "CONNECT with a body");
	return true;
}

static void frame_request(struct parse *p)
{
	struct http1_head *h = p->head;

	h->framing = p->coding ? HTTP1_CHUNKED : h->length > 0 ? HTTP1_LENGTH : HTTP1_NONE;
}

ssize_t http1_request(struct http1_head *out, const char *buf, size_t len, size_t max, struct http1_error *err)
{
	struct parse p;
	struct http1_text line;
	unsigned status;
	int got;

	init(&p, out, buf, len, max);
	p.err = err;
	for (int empty = 0; (got = take_line(&p, &line)) > 0 && line.len == 0; empty++)
		if (empty == EMPTY_LINES_MAX) {
			bad(&p, line.at, "empty lines instead of a request");
			return fail(&p, 400);
		}
	if (got <= 0)
		return got < 0 ? fail(&p, 400) : want_more(&p, 414);
	status = parse_request_line(&p, line);
	if (status != 0)
		return fail(&p, status);

	ssize_t n = parse_fields(&p);
	if (n <= 0)
		return n;
	if (!check_request(&p))
		return fail(&p, 400);
	frame_request(&p);
	return n;
}

/* What RFC 9112 section 6.3 says; false: the answer contradicts itself. */
static bool frame_answer(struct parse *p, bool head, bool connect)
{
	struct http1_head *h = p->head;
	bool bare = h->status < 200 || h->status == 204;

	if (h->status == 101 || (connect && h->status / 100 == 2))
		h->framing = HTTP1_TUNNEL;
	else if (bare && (p->coding || h->length > 0))
		return bad(p, (p->coding ? p->coding : p->length)->name.at, "a body where the status allows none");
	else if (bare || head || h->status == 304)
		h->framing = HTTP1_NONE;
	else if (p->coding)
		h->framing = HTTP1_CHUNKED;
	else if (p->length)
		h->framing = h->length > 0 ? HTTP1_LENGTH : HTTP1_NONE;
	else
		h->framing = HTTP1_CLOSE;
	if (h->framing == HTTP1_CLOSE || h->framing == HTTP1_TUNNEL)
		h->keep_alive = false;
	return true;
}

ssize_t http1_answer(struct http1_head *out, const char *buf, size_t len, size_t max, const char *method, struct http1_error *err)
{
	struct parse p;
	struct http1_text line;
	int got;

	init(&p, out, buf, len, max);
	p.err = err;
	p.answer = true;
	got = take_line(&p, &line);
	if (got <= 0)
		return got < 0 ? fail(&p, 502) : want_more(&p, 431);
	if (!parse_status_line(&p, line))
		return fail(&p, 502);

	ssize_t n = parse_fields(&p);
	if (n > 0 && !frame_answer(&p, strcmp(method, "HEAD") == 0, strcmp(method, "CONNECT") == 0))
		return fail(&p, 502);
	return n;
}

const struct http1_field *http1_find(const struct http1_head *h, const char *name)
{
	size_t len = strlen(name);

	for (const struct http1_field *f = h->fields; f < h->fields + h->fields_n; f++)
		if (f->name.len == len && strncasecmp(f->name.at, name, len) == 0)
			return f;
	return NULL;
}

/* ---- bodies ---- */

enum state { SIZE, EXTENSION, SIZE_LF, DATA, DATA_CR, DATA_LF, LINE, NAME, VALUE, VALUE_LF, LAST_LF };

/* In trailers these would frame or route the message, or tell the target who sent it, behind the back of the rules. */
static const char *const no_trailers[] = {
	"authorization", "connection", "content-encoding", "content-length", "content-range", "content-type", "cookie", "expect", "forwarded", "host",
	"keep-alive", "proxy-authorization", "range", "set-cookie", "te", "trailer", "transfer-encoding", "upgrade",
	"x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto", "x-real-ip", "x-request-id",
};

void http1_body_begin(struct http1_body *b, const struct http1_head *h)
{
	memset(b, 0, sizeof(*b));
	b->framing = h->framing;
	b->answer = h->status != 0;
	b->left = h->framing == HTTP1_LENGTH ? h->length : 0;
	b->done = h->framing == HTTP1_NONE;
}

static const char *expect_lf(struct http1_body *b, char c, uint8_t next)
{
	if (c != '\n')
		return "a carriage return without a line feed";
	b->state = next;
	b->digits = 0;
	return NULL;
}

static int hex_value(char c)
{
	if (is_digit(c))
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static const char *size_ended(struct http1_body *b, char c)
{
	if (b->digits == 0)
		return "a chunk without a size";
	if (c != '\r' && c != ';')
		return "not a chunk's size";
	b->state = c == '\r' ? SIZE_LF : EXTENSION;
	b->extra = 0;
	return NULL;
}

static const char *on_size(struct http1_body *b, char c)
{
	int v = hex_value(c);

	if (v < 0)
		return size_ended(b, c);
	if (b->digits++ == 0)
		b->left = 0;
	b->left = b->left << 4 | (unsigned)v;
	if (b->digits > (b->answer ? 15 : 8) || (!b->answer && b->left > INT32_MAX))
		return "a chunk that is too large";
	return NULL;
}

static const char *on_extension(struct http1_body *b, char c)
{
	if (c == '\r')
		b->state = SIZE_LF;
	else if (is_control(c) && c != '\t')
		return "a control character in a chunk's extension";
	else if (++b->extra > HTTP1_EXTENSION_MAX)
		return "a chunk's extension that is too long";
	return NULL;
}

static const char *on_size_lf(struct http1_body *b, char c)
{
	b->extra = 0;
	return expect_lf(b, c, b->left > 0 ? DATA : LINE);
}

static const char *on_data_cr(struct http1_body *b, char c)
{
	b->state = DATA_LF;
	return c == '\r' ? NULL : "a chunk that is longer than its size";
}

static const char *trailer_named(struct http1_body *b)
{
	struct http1_text name = { b->name, b->name_len };

	if (b->name_len == 0)
		return "a field without a name";
	for (size_t i = 0; i < sizeof(no_trailers) / sizeof(*no_trailers); i++)
		if (http1_is(name, no_trailers[i]))
			return "a field that must not be a trailer";
	b->state = VALUE;
	return NULL;
}

/* A name too long for b->name is none of the forbidden ones. */
static const char *on_name(struct http1_body *b, char c)
{
	b->state = NAME;
	if (c == ':')
		return trailer_named(b);
	if (!is(c, TOKEN))
		return "a character that no field's name has";
	if (b->name_len < sizeof(b->name))
		b->name[b->name_len++] = c;
	return NULL;
}

static const char *on_line(struct http1_body *b, char c)
{
	b->name_len = 0;
	if (c != '\r')
		return on_name(b, c);
	b->state = LAST_LF;
	return NULL;
}

static const char *on_value(struct http1_body *b, char c)
{
	if (c == '\r')
		b->state = VALUE_LF;
	else if (is_control(c) && c != '\t')
		return "a control character in a trailer";
	return NULL;
}

static const char *on_last_lf(struct http1_body *b, char c)
{
	b->done = c == '\n';
	return b->done ? NULL : "a carriage return without a line feed";
}

/* One byte that is not content; NULL, or what is wrong with it. */
static const char *on_byte(struct http1_body *b, char c)
{
	if (b->state >= LINE && ++b->extra > HTTP1_TRAILERS_MAX)
		return "trailers that are too long";
	switch ((enum state)b->state) {
	case SIZE: return on_size(b, c);
	case EXTENSION: return on_extension(b, c);
	case SIZE_LF: return on_size_lf(b, c);
	case DATA_CR: return on_data_cr(b, c);
	case DATA_LF: return expect_lf(b, c, SIZE);
	case LINE: return on_line(b, c);
	case NAME: return on_name(b, c);
	case VALUE: return on_value(b, c);
	case VALUE_LF: return expect_lf(b, c, LINE);
	case LAST_LF: return on_last_lf(b, c);
	case DATA: break;
	}
	BUG_ON(true);
}

static uint32_t piece(uint64_t left, size_t n)
{
	uint64_t most = left < n ? left : n;

	return most < UINT32_MAX ? (uint32_t)most : UINT32_MAX;
}

static ssize_t take_chunked(struct http1_body *b, const char *in, size_t n, struct http1_text *data, struct http1_error *err)
{
	size_t i = 0;

	while (i < n && !b->done) {
		const char *text;

		if (b->state == DATA) {
			*data = (struct http1_text){ in + i, piece(b->left, n - i) };
			b->left -= data->len;
			if (b->left == 0)
				b->state = DATA_CR;
			return (ssize_t)(i + data->len);
		}
		text = on_byte(b, in[i]);
		if (text) {
			*err = (struct http1_error){ .status = b->answer ? 502 : 400, .offset = i, .text = text };
			return -1;
		}
		i++;
		if (b->state == LINE && b->extra == 0)
			break;
	}
	return (ssize_t)i;
}

bool http1_body_at_trailers(const struct http1_body *b)
{
	return b->framing == HTTP1_CHUNKED && b->state >= LINE;
}

static ssize_t take(struct http1_body *b, const char *in, size_t n, struct http1_text *data, struct http1_error *err)
{
	if (b->framing == HTTP1_CHUNKED)
		return take_chunked(b, in, n, data, err);
	data->len = piece(b->framing == HTTP1_LENGTH ? b->left : n, n);
	if (b->framing == HTTP1_LENGTH) {
		b->left -= data->len;
		b->done = b->left == 0;
	}
	return data->len;
}

ssize_t http1_body_take(struct http1_body *b, const char *in, size_t n, struct http1_text *data, struct http1_error *err)
{
	ssize_t taken;

	*data = (struct http1_text){ in, 0 };
	if (n == 0 || b->done)
		return 0;
	taken = take(b, in, n, data, err);
	b->content += data->len;
	if (b->max == 0 || b->content <= b->max)
		return taken;
	*err = (struct http1_error){ .status = 413, .text = "the body is longer than max_body" };
	return -1;
}

/* ---- paths ---- */

/* Undoes %XX of unreserved characters, the digits of others in upper case; and one slash for several. */
static ssize_t unescape(char *out, struct http1_text path)
{
	size_t n = 0;

	for (uint32_t i = 0; i < path.len; i++) {
		char c = path.at[i];

		if (c == '%') {
			int high = i + 2 < path.len ? hex_value(path.at[i + 1]) : -1, low = high < 0 ? -1 : hex_value(path.at[i + 2]);

			if (low < 0 || (high == 0 && low == 0))
				return -1;
			c = (char)(high << 4 | low);
			i += 2;
			if (!is(c, HOST)) { /* the unreserved characters, which are the same */
				out[n++] = '%';
				out[n++] = "0123456789ABCDEF"[high];
				out[n++] = "0123456789ABCDEF"[low];
				continue;
			}
		} else if (c == '/' && n > 0 && out[n - 1] == '/') {
			continue;
		}
		out[n++] = c;
	}
	return (ssize_t)n;
}

/* Resolves "." and ".." of a path that begins with a slash, in place; returns its length. */
static size_t resolve_dots(char *path, size_t len)
{
	size_t n = 0, i = 0;

	while (i < len) { /* path[i] is a slash, path[0..n) is done and does not end in one */
		const char *slash = memchr(path + i + 1, '/', len - i - 1);
		size_t next = slash ? (size_t)(slash - path) : len, size = next - i;
		bool dot = size == 2 && path[i + 1] == '.', dots = size == 3 && path[i + 1] == '.' && path[i + 2] == '.';

		if (dots)
			while (n > 0 && path[--n] != '/')
				;
		if (!dot && !dots) {
			memmove(path + n, path + i, size);
			n += size;
		} else if (!slash) {
			path[n++] = '/';
		}
		i = next;
	}
	return n;
}

ssize_t http1_normalise(char *out, struct http1_text path)
{
	ssize_t n = unescape(out, path);

	if (n > 0 && out[0] == '/')
		n = (ssize_t)resolve_dots(out, (size_t)n);
	if (n >= 0)
		out[n] = '\0';
	return n;
}

/* Fuzzes HTTP/1 heads; the first byte says of which kind and within which limit. The outcome must be that of every beginning which has one; what is
 * accepted has one reading only, and means the same when it is written anew. */
#include "mctunnel/proto/http1.h"

#include "mctunnel/base/bug.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PREFIXES = 256 };

struct kind {
	const char *method; /* of the request that is answered; NULL: a request */
	size_t max;
};

static struct kind kind_of(uint8_t first)
{
	static const char *const methods[] = { NULL, "GET", "HEAD", "CONNECT" };

	return (struct kind){ methods[first & 3], first & 4 ? 64 : 16384 };
}

static ssize_t parse(struct kind k, struct http1_head *h, const char *buf, size_t len, struct http1_error *err)
{
	return k.method ? http1_answer(h, buf, len, k.max, k.method, err) : http1_request(h, buf, len, k.max, err);
}

static void check_beginnings(struct kind k, const char *buf, size_t len)
{
	struct http1_head h;
	struct http1_error whole = { 0 }, part = { 0 };
	ssize_t n = parse(k, &h, buf, len, &whole);
	size_t step = len / PREFIXES + 1;

	BUG_ON(n < 0 && (whole.offset > len || whole.status < 400 || !whole.text));
	BUG_ON(n > (ssize_t)len || n > (ssize_t)k.max);
	for (size_t i = 0; i < len; i += step) {
		ssize_t m = parse(k, &h, buf, i, &part);

		BUG_ON(m != 0 && m != n);
		BUG_ON(m < 0 && (part.status != whole.status || part.offset != whole.offset || part.text != whole.text));
	}
}

static void check_inside(struct http1_text t, const char *buf, ssize_t n)
{
	BUG_ON(t.len > 0 && (t.at < buf || t.at + t.len > buf + n));
	BUG_ON(t.len > 0 && (memchr(t.at, '\r', t.len) || memchr(t.at, '\n', t.len) || memchr(t.at, '\0', t.len)));
}

static unsigned count(const struct http1_head *h, const char *name)
{
	unsigned n = 0;

	for (size_t i = 0; i < h->fields_n; i++)
		n += http1_is(h->fields[i].name, name);
	return n;
}

static void check_sense(struct kind k, const struct http1_head *h, const char *buf, ssize_t n)
{
	unsigned lengths = count(h, "Content-Length"), codings = count(h, "Transfer-Encoding");

	check_inside(h->method, buf, n);
	check_inside(h->target, buf, n);
	check_inside(h->authority, buf, n);
	check_inside(h->path, buf, n);
	check_inside(h->query, buf, n);
	check_inside(h->phrase, buf, n);
	for (size_t i = 0; i < h->fields_n; i++) {
		check_inside(h->fields[i].name, buf, n);
		check_inside(h->fields[i].value, buf, n);
		BUG_ON(h->fields[i].name.len == 0);
	}
	BUG_ON(lengths + codings > 1);
	BUG_ON(h->framing == HTTP1_CHUNKED && (codings != 1 || h->minor == 0));
	BUG_ON(h->framing == HTTP1_LENGTH && (lengths != 1 || h->length == 0));
	BUG_ON(!k.method && (h->framing == HTTP1_CLOSE || h->framing == HTTP1_TUNNEL));
	BUG_ON(!k.method && count(h, "Host") != 1 && (h->minor == 1 || count(h, "Host") > 1));
}

static void check_path(struct http1_text path)
{
	char *once = malloc(path.len + 1), *twice = malloc(path.len + 1);
	ssize_t n = http1_normalise(once, path);

	if (n >= 0) {
		BUG_ON(n > (ssize_t)path.len || http1_normalise(twice, (struct http1_text){ once, (uint32_t)n }) != n || strcmp(once, twice) != 0);
		BUG_ON(strstr(once, "//") || strstr(once, "/../") || strstr(once, "/./") || strstr(once, "%2e") || strstr(once, "%2E"));
	}
	free(once);
	free(twice);
}

static size_t put(char *out, size_t at, struct http1_text t, const char *behind)
{
	if (t.len > 0)
		memcpy(out + at, t.at, t.len);
	memcpy(out + at + t.len, behind, strlen(behind));
	return at + t.len + strlen(behind);
}

static size_t write_anew(struct kind k, const struct http1_head *h, char *out)
{
	size_t n;

	if (k.method) {
		n = (size_t)snprintf(out, 16, "HTTP/1.%u %u ", h->minor, h->status);
		n = put(out, n, h->phrase, "\r\n");
	} else {
		n = put(out, 0, h->method, " ");
		n = put(out, n, h->target, h->minor ? " HTTP/1.1\r\n" : " HTTP/1.0\r\n");
	}
	for (size_t i = 0; i < h->fields_n; i++) {
		n = put(out, n, h->fields[i].name, ": ");
		n = put(out, n, h->fields[i].value, "\r\n");
	}
	memcpy(out + n, "\r\n", 2);
	return n + 2;
}

static bool equal(struct http1_text a, struct http1_text b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.at, b.at, a.len) == 0);
}

static void check_anew(struct kind k, const struct http1_head *h, size_t len)
{
	char *out = malloc(len + 4 * HTTP1_FIELDS_MAX + 64);
	size_t n = write_anew(k, h, out);
	struct http1_head again;
	struct http1_error err;

	k.max = n;
	BUG_ON(parse(k, &again, out, n, &err) != (ssize_t)n);
	BUG_ON(!equal(h->method, again.method) || !equal(h->target, again.target) || !equal(h->authority, again.authority));
	BUG_ON(!equal(h->path, again.path) || !equal(h->query, again.query) || !equal(h->phrase, again.phrase));
	BUG_ON(h->status != again.status || h->minor != again.minor || h->fields_n != again.fields_n);
	BUG_ON(h->framing != again.framing || h->length != again.length || h->keep_alive != again.keep_alive);
	BUG_ON(h->expect_continue != again.expect_continue || h->upgrade != again.upgrade);
	for (size_t i = 0; i < h->fields_n; i++)
		BUG_ON(!equal(h->fields[i].name, again.fields[i].name) || !equal(h->fields[i].value, again.fields[i].value) ||
		       h->fields[i].hop != again.fields[i].hop);
	free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct http1_head h;
	struct http1_error err;
	struct kind k;
	ssize_t n;

	if (size == 0)
		return 0;
	k = kind_of(data[0]);
	check_beginnings(k, (const char *)data + 1, size - 1);
	n = parse(k, &h, (const char *)data + 1, size - 1, &err);
	if (n <= 0)
		return 0;
	check_sense(k, &h, (const char *)data + 1, n);
	check_path(h.path);
	check_anew(k, &h, (size_t)n);
	return 0;
}

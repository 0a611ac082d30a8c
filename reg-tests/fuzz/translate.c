/* Fuzzes the way of a request from HTTP/2 to HTTP/1.1. The fields (name NUL value NUL ...) pass an HTTP/2 connection in memory, so that only what h2_mux accepts arrives; what
 * translate_end accepts of it must be, to a parser of HTTP/1.1, refused or exactly this one request: its method, target, host and framing, its fields, and not a byte beyond. */
#include "mctunnel/edge/translate.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/proto/h2_mux.h"
#include "mctunnel/proto/http1.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FIN = 1, BARE = 2, SMALL = 4, MAX = 8192 };

static struct {
	struct translation t;
	const char *method, *path, *authority; /* owned: as they have come */
	size_t plain;                          /* fields that are none of those and no cookie, length, te, host */
	uint8_t how;
	bool seen;
} f;

static struct http1_text text_of(const char *s)
{
	return (struct http1_text){ s, (uint32_t)strlen(s) };
}

static bool equal(struct http1_text t, const char *s)
{
	return t.len == text_of(s).len && memcmp(t.at, s, t.len) == 0;
}

static void keep(const char **place, const char *value)
{
	BUG_ON(*place); /* h2_mux lets no second one pass */
	*place = strdup(value);
}

static void *on_stream(void *owner, int32_t id)
{
	return &f;
}

static void on_field(void *owner, void *stream, const char *name, const char *value)
{
	static const char *const known[] = { "cookie", "te", "host", "content-length" };

	BUG_ON(strpbrk(name, "\r\n ") || strpbrk(value, "\r\n"));
	if (strcmp(name, ":method") == 0)
		keep(&f.method, value);
	else if (strcmp(name, ":path") == 0)
		keep(&f.path, value);
	else if (strcmp(name, ":authority") == 0)
		keep(&f.authority, value);
	else if (name[0] != ':')
		f.plain++;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		f.plain -= strcmp(name, known[i]) == 0;
	translate_field(&f.t, name, value);
}

static size_t count_plain(const struct http1_head *h)
{
	static const char *const ours[] = { "cookie", "te", "host", "content-length", "transfer-encoding" };
	size_t n = h->fields_n;

	for (size_t i = 0; i < h->fields_n; i++)
		for (size_t k = 0; k < sizeof(ours) / sizeof(ours[0]); k++)
			n -= http1_is(h->fields[i].name, ours[k]);
	return n - (f.t.trailers && !(f.how & BARE)); /* Connection */
}

static void check(bool fin)
{
	struct http1_head h;
	struct http1_error err;
	ssize_t n = http1_request(&h, f.t.text, f.t.len, f.t.len, &err);

	BUG_ON(f.t.len > f.t.max || !f.method || !f.path);
	BUG_ON(n == 0); /* the target would wait for ever */
	if (n < 0)
		return;
	BUG_ON((size_t)n != f.t.len);
	BUG_ON(h.minor != 1 || !equal(h.method, f.method) || !equal(h.target, f.path));
	BUG_ON(f.authority && !http1_find(&h, "Host"));
	BUG_ON(f.authority && f.path[0] == '/' && !equal(h.authority, f.authority));
	BUG_ON(count_plain(&h) != f.plain);
	BUG_ON((h.framing == HTTP1_CHUNKED) != f.t.chunked);
	BUG_ON(f.t.chunked && (fin || (f.how & BARE)));
	BUG_ON(h.framing == HTTP1_LENGTH && (!f.t.length || (f.how & BARE)));
}

static void on_block(void *owner, void *stream, enum h2_block what, bool fin)
{
	unsigned refusal;

	if (what != H2_REQUEST)
		return;
	BUG_ON(f.seen);
	f.seen = true;
	refusal = translate_end(&f.t, fin, f.how & BARE);
	BUG_ON(refusal != 0 && (refusal < 400 || refusal > 501));
	if (!refusal)
		check(fin);
}

static void on_data(void *owner, void *stream, const uint8_t *data, size_t len)
{
}

static void on_fin(void *owner, void *stream)
{
}

static void on_closed(void *owner, void *stream, uint32_t code)
{
}

static size_t pull(void *owner, void *stream, uint8_t *dst, size_t room, bool *fin)
{
	return 0;
}

static const struct h2_mux_events events = { on_stream, on_field, on_block, on_data, on_fin, on_closed, pull };

static void pass(struct h2_mux *from, struct h2_mux *to)
{
	uint8_t buf[4096];
	size_t n;

	while ((n = h2_mux_output(from, buf, sizeof(buf))) > 0)
		h2_mux_input(to, buf, n);
}

/* The fields are cut in place: `text` ends with a NUL. */
static size_t cut(struct h2_field *out, char *text, size_t size)
{
	size_t n = 0;

	for (char *at = text; at < text + size && n < H2_MUX_FIELDS; n++) {
		out[n].name = at;
		at += strlen(at) + 1;
		out[n].value = at < text + size ? at : "";
		at += at < text + size ? strlen(at) + 1 : 0;
	}
	return n;
}

static void talk(const struct h2_field *fields, size_t n)
{
	struct h2_mux_options o = { .max_streams = 1, .max_fields = 2 * MAX };
	struct h2_mux *client = h2_mux_new(&o, &events, NULL), *server;

	o.server = true;
	server = h2_mux_new(&o, &events, NULL);
	BUG_ON(h2_mux_open(client, &f, fields, n, f.how & FIN) < 0);
	pass(client, server);
	pass(server, client);
	h2_mux_free(client);
	h2_mux_free(server);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct h2_field fields[H2_MUX_FIELDS];
	char *text;

	if (size == 0 || size > 2 * MAX)
		return 0;
	text = calloc(1, size);
	memcpy(text, data + 1, size - 1);
	memset(&f, 0, sizeof(f));
	f.how = data[0];
	f.t.max = f.how & SMALL ? 64 : MAX;
	talk(fields, cut(fields, text, size - 1));
	translate_free(&f.t);
	free((void *)(uintptr_t)f.method);
	free((void *)(uintptr_t)f.path);
	free((void *)(uintptr_t)f.authority);
	free(text);
	return 0;
}

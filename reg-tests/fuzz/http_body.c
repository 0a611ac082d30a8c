/* Fuzzes HTTP/1 bodies; the first byte says how they are framed and whose they are. Content and end must not depend on how the bytes come, and the
 * content that was found, framed anew, must be found again. */
#include "mctunnel/proto/http1.h"

#include "mctunnel/base/bug.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct outcome {
	struct http1_body body;
	size_t taken, len; /* of the bytes, of the content */
	unsigned status;
	char *content;     /* room for all bytes */
};

/* Feeds at most `step` bytes at a time. */
static void follow(struct outcome *o, const struct http1_head *h, const char *in, size_t n, size_t step)
{
	struct http1_text data;
	struct http1_error err;

	*o = (struct outcome){ .content = malloc(n + 1) };
	http1_body_begin(&o->body, h);
	while (o->taken < n && !o->body.done) {
		size_t some = n - o->taken < step ? n - o->taken : step;
		ssize_t took = http1_body_take(&o->body, in + o->taken, some, &data, &err);

		BUG_ON(took == 0 || took > (ssize_t)some);
		if (took < 0) {
			BUG_ON(err.offset >= some || err.status != (h->status ? 502u : 400u));
			o->taken += err.offset;
			o->status = err.status;
			return;
		}
		o->taken += (size_t)took;
		BUG_ON(data.len > 0 && data.at + data.len != in + o->taken);
		memcpy(o->content + o->len, data.at, data.len);
		o->len += data.len;
	}
}

static void compare(const struct outcome *a, const struct outcome *b)
{
	BUG_ON(a->taken != b->taken || a->len != b->len || a->status != b->status || a->body.done != b->body.done);
	BUG_ON(memcmp(a->content, b->content, a->len) != 0);
}

static void check_anew(const struct outcome *o)
{
	static const struct http1_head chunked = { .framing = HTTP1_CHUNKED };
	char *out = malloc(o->len + 32);
	size_t n = 0;
	struct outcome again;

	if (o->len > 0) {
		n = (size_t)snprintf(out, 16, "%zX\r\n", o->len);
		memcpy(out + n, o->content, o->len);
		memcpy(out + n + o->len, "\r\n", 2);
		n += o->len + 2;
	}
	memcpy(out + n, "0\r\n\r\n", 5);
	follow(&again, &chunked, out, n + 5, n + 5);
	BUG_ON(!again.body.done || again.taken != n + 5 || again.len != o->len || memcmp(again.content, o->content, o->len) != 0);
	free(again.content);
	free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const enum http1_framing framings[] = { HTTP1_CHUNKED, HTTP1_LENGTH, HTTP1_CHUNKED, HTTP1_CLOSE };
	struct http1_head h = { 0 };
	struct outcome whole, part;
	const char *in = (const char *)data + 1;

	if (size < 2)
		return 0;
	h.framing = framings[data[0] & 3];
	h.status = data[0] & 4 ? 200 : 0;
	h.length = (uint64_t)(data[0] >> 3) + 1;
	follow(&whole, &h, in, size - 1, size - 1);
	for (size_t step = 1; step < 8; step += 2) {
		follow(&part, &h, in, size - 1, step);
		compare(&whole, &part);
		free(part.content);
	}
	BUG_ON(h.framing == HTTP1_LENGTH && whole.body.done != (size - 1 >= h.length));
	if (whole.body.done)
		check_anew(&whole);
	free(whole.content);
	return 0;
}

/* Fuzzes what a visitor of the metrics address says, in pieces as the first byte chooses. When the head is whole does not depend on the pieces; what is answered is, to a parser of
 * HTTP/1, one answer with its body and not a byte more, and pages come only to those who ask for them by GET or HEAD. */
#define _GNU_SOURCE
#include "admin/http.c"

#include "mctunnel/proto/http1.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SMALL "small\n"

static struct {
	struct visit v;
	bool ready;
	unsigned made, pieces, begun, ended;
	char *text; /* owned: all that was answered */
	size_t len;
} f;

static int make_small(FILE *out)
{
	f.made++;
	fputs(SMALL, out);
	return 200;
}

static void *begin_long(void)
{
	f.begun++;
	f.pieces = 0;
	return &f;
}

/* The second of three pieces is empty. */
static bool more_of_it(void *job, FILE *out)
{
	BUG_ON(job != &f || f.pieces == 3);
	if (f.pieces != 1)
		fputs(SMALL, out);
	return ++f.pieces < 3;
}

static void end_long(void *job)
{
	f.ended++;
}

static const struct http_page pages[] = {
	{ .path = "/small", .type = "text/plain", .make = make_small },
	{ .path = "/", .type = "text/html", .make = make_small },
	{ .path = "/long", .type = "text/plain", .begin = begin_long, .more = more_of_it, .end = end_long },
};

/* false: neither whole nor too long. */
static bool hear(const uint8_t *data, size_t size, size_t piece)
{
	struct visit *v = &f.v;

	while (size > 0) {
		size_t n = size < piece ? size : piece, before = v->head_len;

		n = n < HEAD_MAX - before ? n : HEAD_MAX - before;
		memcpy(v->head + before, data, n);
		v->head_len += n;
		v->head[v->head_len] = '\0';
		data += n;
		size -= n;
		bool complete = head_complete(v, before);
		BUG_ON(complete != head_complete(v, 0));
		if (!complete && v->head_len < HEAD_MAX)
			continue;
		BUG_ON(!answer(v, complete));
		return true;
	}
	return false;
}

static void keep(void)
{
	size_t n = f.v.answer.len - f.v.sent;

	f.text = xrealloc(f.text, f.len + n);
	memcpy(f.text + f.len, f.v.answer.v + f.v.sent, n);
	f.len += n;
}

static size_t read_body(const struct http1_head *h, const char *at, size_t len)
{
	struct http1_body b = { 0 };
	struct http1_text content;
	struct http1_error error;
	size_t got = 0;

	http1_body_begin(&b, h);
	while (!b.done && len > 0) {
		ssize_t n = http1_body_take(&b, at, len, &content, &error);

		BUG_ON(n <= 0);
		got += content.len;
		at += n;
		len -= (size_t)n;
	}
	BUG_ON(len > 0 || (!b.done && h->framing != HTTP1_CLOSE));
	return got;
}

static void check(bool head_only)
{
	struct http1_head h;
	struct http1_error error;
	ssize_t n = http1_answer(&h, f.text, f.len, f.len, "GET", &error);
	size_t body;

	BUG_ON(n <= 0 || h.keep_alive);
	head_only = head_only && h.status != 400 && h.status != 431; /* no request at all */
	n = http1_answer(&h, f.text, f.len, f.len, head_only ? "HEAD" : "GET", &error);
	BUG_ON(n <= 0 || (f.made + f.begun > 0 && h.status != 200) || (f.made + f.begun == 0 && h.status == 200 && !head_only));
	body = read_body(&h, f.text + n, f.len - (size_t)n);
	BUG_ON(head_only && body > 0);
	BUG_ON(!head_only && f.begun && body != 2 * strlen(SMALL));
	BUG_ON(!head_only && f.made && body != strlen(SMALL));
}

static void prepare(void)
{
	struct visit *v = &f.v;

	if (!f.ready) {
		web.pages = pages;
		web.pages_n = sizeof(pages) / sizeof(pages[0]);
		f.ready = true;
	}
	memset(v, 0, sizeof(*v));
	timer_init(&v->patience, on_patience);
	f.made = f.begun = f.ended = 0;
	f.len = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const size_t pieces[] = { HEAD_MAX, 1, 2, 7 };
	struct visit *v = &f.v;

	if (size == 0)
		return 0;
	prepare();
	bool head_only = size > 5 && memcmp(data + 1, "HEAD ", 5) == 0;
	if (hear(data + 1, size - 1, pieces[data[0] & 3])) {
		keep();
		while (v->job) {
			BUG_ON(!next_piece(v));
			keep();
		}
		check(head_only);
	}
	BUG_ON(f.begun != f.ended);
	timer_stop(&v->patience);
	free(v->answer.v);
	return 0;
}

/* Fuzzes one exchange: a request and what a target answers, between a conn and a session that are memory only, in pieces that the second byte of the input chooses. The first byte
 * is about the client; a line of two 0xff parts request from answer. What the target gets is this one request and not a byte of what follows; what the client gets is, to a parser of
 * HTTP/1, interim answers and one answer, and not a byte of what follows; once both sides have said all and ended, the exchange ends. */
#define _GNU_SOURCE
#include "mctunnel/edge/exchange.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/series.h"
#include "mctunnel/event/loop.h"
#include "mctunnel/net/conn.h"
#include "mctunnel/tunnel/session.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { KEEP = 1, LAST = 2, EARLY = 4 };
enum { INPUT_MAX = 8192, SINK = 65536, TURNS = 100000 };

struct session {
	const char *answer; /* borrowed */
	size_t len, there, at;
	char up[SINK];
	size_t up_len;
	bool full, fin;
};

static struct {
	struct session s;
	struct conn c;
	const char *said; /* borrowed: by the client, behind the head */
	size_t said_len, said_there, said_at;
	char got[SINK];
	size_t got_len;
	uint32_t chance;
} f;

static size_t some(size_t most)
{
	f.chance = f.chance * 1103515245 + 12345;
	return most ? (f.chance >> 16) % most + 1 : 0;
}

/* ---- the session ---- */

int session_reserve(struct session *s, struct iovec *iov, int max)
{
	size_t room = some(400);

	s->full = !s->full && some(4) == 1;
	if (s->full)
		return 0;
	BUG_ON(s->up_len + room > SINK || max < 2);
	iov[0] = (struct iovec){ s->up + s->up_len, room };
	return 1;
}

void session_commit(struct session *s, size_t n)
{
	BUG_ON(n > 400);
	s->up_len += n;
}

void session_fin(struct session *s)
{
	BUG_ON(s->fin);
	s->fin = true;
}

int session_peek(const struct session *s, struct iovec *iov, int max)
{
	size_t left = s->there - s->at, first = left > 20 && max > 1 ? left / 2 : left;

	iov[0] = (struct iovec){ (char *)(uintptr_t)s->answer + s->at, first };
	if (first < left)
		iov[1] = (struct iovec){ (char *)(uintptr_t)s->answer + s->at + first, left - first };
	return left == 0 ? 0 : first < left ? 2 : 1;
}

void session_consume(struct session *s, size_t n)
{
	BUG_ON(n > s->there - s->at);
	s->at += n;
}

bool session_ended(const struct session *s)
{
	return s->at == s->len;
}

/* ---- the conn ---- */

static ssize_t fake_readv(struct conn *c, const struct iovec *iov, int n)
{
	size_t left = f.said_there - f.said_at, sum = 0;

	if (left == 0 && f.said_at < f.said_len) {
		c->readable = false;
		return CONN_AGAIN;
	}
	for (int i = 0; i < n && left > 0; i++) {
		size_t part = iov[i].iov_len < left ? iov[i].iov_len : left;

		memcpy(iov[i].iov_base, f.said + f.said_at, part);
		f.said_at += part;
		left -= part;
		sum += part;
	}
	return (ssize_t)sum;
}

static ssize_t fake_writev(struct conn *c, const struct iovec *iov, int n)
{
	size_t room = some(300), sum = 0;

	if (some(3) == 1) {
		c->writable = false;
		return CONN_AGAIN;
	}
	for (int i = 0; i < n && room > 0; i++) {
		size_t part = iov[i].iov_len < room ? iov[i].iov_len : room;

		BUG_ON(f.got_len + part > SINK);
		memcpy(f.got + f.got_len, iov[i].iov_base, part);
		f.got_len += part;
		room -= part;
		sum += part;
	}
	if (room == 0)
		c->writable = false;
	return (ssize_t)sum;
}

static int fake_shut(struct conn *c)
{
	return 0;
}

static void fake_close(struct conn *c, bool orderly)
{
}

static size_t fake_unsent(const struct conn *c)
{
	return 0;
}

static const struct conn_ops ops = { fake_readv, fake_writev, fake_shut, fake_close, fake_unsent };

/* ---- what must hold ---- */

/* Bytes of the body that belong to the message; the rest is none of its. */
static size_t body_length(const struct http1_head *h, const char *at, size_t n)
{
	struct http1_body b = { 0 };
	struct http1_text data;
	struct http1_error err;
	size_t sum = 0;

	http1_body_begin(&b, h);
	while (sum < n && !b.done) {
		ssize_t taken = http1_body_take(&b, at + sum, n - sum, &data, &err);

		BUG_ON(taken <= 0);
		sum += (size_t)taken;
	}
	return sum;
}

static void check_up(const struct exchange *x, const struct http1_head *request, const char *head)
{
	size_t n = f.s.up_len < x->head_len ? f.s.up_len : x->head_len;

	BUG_ON(memcmp(f.s.up, head, n) != 0);
	if (f.s.up_len > x->head_len && !exchange_opaque(x))
		BUG_ON(body_length(request, f.s.up + n, f.s.up_len - n) != f.s.up_len - n);
}

static void check_down(const struct exchange *x)
{
	static struct http1_head h;
	struct http1_error err;
	size_t at = 0;

	while (at < f.got_len) {
		ssize_t n = http1_answer(&h, f.got + at, f.got_len - at, SINK, x->method, &err);

		if (n < 0 && strcmp(err.text, "too many fields") == 0)
			return; /* the target's were as many as may be, and one of ours came to them */
		BUG_ON(n < 0);
		if (n == 0)
			return;
		at += (size_t)n;
		if (h.status >= 200 || h.status == 101)
			break;
	}
	if (at == 0 || (h.status < 200 && h.status != 101))
		return;
	BUG_ON(h.status != x->status);
	if (exchange_opaque(x) || x->unchunk)
		return;
	BUG_ON(body_length(&h, f.got + at, f.got_len - at) != f.got_len - at);
}

/* ---- the run ---- */

/* More has come, and room was made. */
static void go_on(void)
{
	f.said_there += some(f.said_len - f.said_there);
	f.s.there += some(f.s.len - f.s.there);
	f.c.readable = f.c.writable = true;
}

static void run(struct exchange *x)
{
	enum exchange_outcome o = EXCHANGE_WAITS;
	int turns = 0;

	while (o != EXCHANGE_FAILED && (o != EXCHANGE_DONE || spill_left(x->out) > 0)) {
		BUG_ON(++turns > TURNS); /* it hangs */
		go_on();
		if (o == EXCHANGE_DONE)
			BUG_ON(spill_write(x->out, x->c) != 0);
		else
			o = exchange_run(x);
		BUG_ON(o == EXCHANGE_FAILED && x->why == REASON_DONE);
	}
}

static void exchange(uint8_t how, const char *request, size_t len)
{
	static struct http1_head h;
	static char method[HTTP1_METHOD_MAX + 1];
	struct spill in = { 0 }, out = { 0 };
	struct http1_error err;
	ssize_t n = http1_request(&h, request, len, INPUT_MAX, &err);
	struct exchange x = { .c = &f.c, .in = &in, .out = &out, .method = method, .head = request, .s = &f.s };
	size_t early;

	if (n <= 0)
		return;
	memcpy(method, h.method.at, h.method.len);
	method[h.method.len] = '\0';
	x.old = h.minor == 0;
	x.keep = (how & KEEP) && h.keep_alive;
	x.last = how & LAST;
	x.upgrade = h.upgrade;
	x.head_len = (uint32_t)n;
	x.up_series = series_of(BYTES, "l", "t", "s", "up");
	x.down_series = series_of(BYTES, "l", "t", "s", "down");
	http1_body_begin(&x.body, &h);
	early = (how & EARLY) ? some(len - (size_t)n) : 0;
	BUG_ON(early > 0 && !spill_keep(&in, request + n, early));
	f.said = request + n + early;
	f.said_len = len - (size_t)n - early;
	run(&x);
	check_up(&x, &h, request);
	check_down(&x);
	exchange_fini(&x);
	spill_drop(&in);
	spill_drop(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool ready;
	const uint8_t *end;

	if (size < 4 || size > INPUT_MAX)
		return 0;
	if (!ready) {
		loop_init();
		exchange_init();
		ready = true;
	}
	end = memmem(data + 2, size - 2, "\xff\xff", 2);
	if (!end)
		return 0;
	memset(&f, 0, offsetof(__typeof__(f), chance));
	f.chance = data[1];
	f.c.ops = &ops;
	f.c.fd = -1;
	f.s.answer = (const char *)end + 2;
	f.s.len = size - (size_t)(end + 2 - data);
	exchange(data[0], (const char *)data + 2, (size_t)(end - data) - 2);
	return 0;
}

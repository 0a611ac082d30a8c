/* Clients that speak HTTP/2. Owns the client's conn, its streams, and for each stream one end of a socket pair whose other end a web has for a client: what was said in HTTP/2 is
 * said there in HTTP/1.1, and the answer translated back. So routing, queues, other threads, errors and the log are the web's, and a slow stream stops only itself.
 * A stream of gRPC says over the pair first where it goes (web_options.leads), and then speaks HTTP/2 with its target through it.
 * How a web has ended is told by a message, which alone tells a whole answer from a broken one where only the end of the connection ends it.
 * Does not know rules, sessions or agents. */
#include "mctunnel/edge/web2.h"

#include "mctunnel/base/buf.h"
#include "mctunnel/base/bug.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/list.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/str.h"
#include "mctunnel/base/timer.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/edge/generation.h"
#include "mctunnel/edge/quota.h"
#include "mctunnel/edge/room.h"
#include "mctunnel/edge/translate.h"
#include "mctunnel/edge/web.h"
#include "mctunnel/event/loop.h"
#include "mctunnel/event/thread.h"
#include "mctunnel/net/conn.h"
#include "mctunnel/proto/h2_mux.h"
#include "mctunnel/proto/http1.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define STREAMS_MAX 100      /* at once; whose web goes on after a reset counts, too */
#define PIECE (16u << 10)
#define PIECES 8             /* read in one turn */
#define HEAD_MAX (64u << 10) /* of an answer */
#define BODY_MAX (64u << 10) /* of an answer, read and not asked for yet */
#define GLITCH_BURST 1000u   /* frames that move nothing, at once, and ... */
#define GLITCH_RATE 100u     /* ... a second from then on */
#define GOODBYE_MS 2000
#define INTERIM_MAX (64u << 10) /* bytes of interim answers that wait for a client */

/* A web that serves a stream: its owner. Shared by the two threads; freed by the last. */
struct inner {
	struct msg done, kill;  /* to the stream's thread, to the web's */
	atomic_uint refs;
	atomic_int thread;      /* where the web is; -1: on its way */
	bool over;              /* its thread only: the web is gone */
	int home;               /* the stream's thread */
	struct stream *stream;  /* home only; NULL: gone */
	struct web *web;        /* its thread only */
	enum reason why;        /* once it is over */
	bool told;              /* home only: the message has come */
	bool whole;             /* with kill: the exchange is complete */
};

enum answer_state { HEAD, BODY, ENDED };

struct stream {
	struct list node;
	struct web2 *w;
	int32_t id;
	struct inner *inner;   /* shared; NULL: none */
	struct conn *c;        /* owned: our end; NULL: closed, or none yet */
	struct deferred again, reading;
	struct timer patience; /* while no web looks at the clock */
	struct translation request;
	bool fin;              /* the client's side has ended */
	struct bufq out;       /* for the target: not written yet */
	size_t owed;           /* bytes of the client in there, not credited yet */
	struct bufq in;        /* of the answer's body: not asked for yet */
	char *head;            /* owned: of the answer, so far */
	size_t head_len;
	char *last;            /* owned: of its trailers, so far */
	size_t last_len;
	enum answer_state state;
	struct http1_body body;
	bool eof;              /* our end has come to its end */
	bool answered;
	bool given_up;         /* the client was told so */
	bool counted;          /* in opened */
	/* gRPC */
	struct h2_mux *target; /* owned; NULL: HTTP/1.1 */
	int32_t target_id;
	struct bufq wire;      /* for the target: not written yet; out is what the mux has not asked for yet */
	unsigned status;
	struct h2_field *fields; /* owned: of the block at hand; texts too */
	size_t fields_n;
	bool trailers;         /* fields are the answer's last ones */
	bool trailers_lost;    /* there was no memory for one of them */
};

struct web2 {
	struct conn *c; /* owned */
	const struct web2_events *ev;
	void *owner;
	struct web_options o; /* gen shared, texts owned */
	struct h2_mux *mux;   /* owned */
	struct list streams;
	unsigned streams_n;
	struct bufq unsent;
	struct deferred serve;
	struct timer quiet;
	uint32_t glitches;
	uint64_t glitches_ms;
	uint64_t up, down, requests;
	size_t interim; /* bytes of interim answers since all was written last */
	bool eof, shut, stopping;
	bool starved; /* there was no memory for what is to be written */
};

static atomic_uint opened; /* streams of all threads that have descriptors */

static void serve_later(struct web2 *w)
{
	loop_defer(&w->serve);
}

/* ---- webs ---- */

static void inner_put(struct inner *in)
{
	if (atomic_fetch_sub(&in->refs, 1) == 1)
		free(in);
}

static void stream_run(struct stream *s);
static void on_patience(struct timer *t);

/* A web looks at the clock itself. Before there is one, and when it has said all, the client is waited for: to go on, or to read. */
static void watch(struct stream *s)
{
	uint32_t limit = s->w->o.place->l->timeouts.idle;

	if (s->given_up)
		return;
	if (limit && (!s->inner || s->inner->told))
		timer_start(&s->patience, limit);
	else
		timer_stop(&s->patience);
}

/* Home: the web has ended. */
static void on_told(struct msg *m)
{
	struct inner *in = container_of(m, struct inner, done);

	in->told = true;
	if (in->stream) {
		watch(in->stream);
		stream_run(in->stream);
	}
	inner_put(in);
}

static void on_inner_done(void *owner, enum reason why)
{
	struct inner *in = owner;

	in->over = true;
	in->why = why;
	in->done.run = on_told;
	thread_post(in->home, &in->done); /* takes the web's reference along */
}

static void on_inner_leave(void *owner)
{
	struct inner *in = owner;

	atomic_store(&in->thread, -1);
}

static void on_inner_arrive(void *owner)
{
	struct inner *in = owner;

	atomic_store(&in->thread, thread_self());
}

static const struct web_events inner_events = { .on_done = on_inner_done, .on_leave = on_inner_leave, .on_arrive = on_inner_arrive };

/* Goes after the web until it is found where it lives. */
static void on_kill(struct msg *m)
{
	struct inner *in = container_of(m, struct inner, kill);
	int thread = atomic_load(&in->thread);

	if (thread != thread_self()) {
		thread_post(thread < 0 ? thread_self() : thread, m);
		return;
	}
	if (!in->over)
		web_kill(in->web, in->whole ? REASON_DONE : REASON_CLIENT_RESET);
	inner_put(in);
}

/* The stream has no need of it any more. */
static void inner_leave(struct stream *s)
{
	struct inner *in = s->inner;

	if (!in)
		return;
	s->inner = NULL;
	in->stream = NULL;
	if (in->told) {
		inner_put(in);
		return;
	}
	in->whole = s->target && s->body.done && s->fin && s->in.len == 0;
	in->kill.run = on_kill; /* takes the stream's reference along */
	thread_post(atomic_load(&in->thread) < 0 ? in->home : atomic_load(&in->thread), &in->kill);
}

static void on_stream_conn(struct conn *c)
{
	struct stream *s = c->owner;

	stream_run(s);
}

/* The first request came with the client, further ones are counted here. */
static const char *over_limit(const struct web2 *w)
{
	const struct place *p = w->o.place;
	uint64_t wait_ms;

	if (w->requests < 2 || quota_again(p->score->quota, &p->l->limits, w->o.visitor, &wait_ms) == QUOTA_OK)
		return NULL;
	return "limits.client_rate";
}

/* false: no memory or descriptors. */
static bool give_web(struct stream *s, int fd)
{
	struct web_options o = s->w->o;
	struct inner *in = calloc(1, sizeof(*in));
	struct conn *c = in ? conn_tcp(fd, on_stream_conn, s) : NULL;

	if (!c) {
		close(fd);
		free(in);
		return false;
	}
	o.accepted_ms = 0;
	o.leads = s->request.grpc;
	o.visitor = NULL; /* a web may live longer than the client */
	if (!o.over)
		o.over = over_limit(s->w);
	atomic_init(&in->refs, 2);
	in->home = thread_self();
	in->stream = s;
	atomic_store(&in->thread, thread_self());
	in->web = web_new(c, &o, &inner_events, in);
	if (in->web) {
		s->inner = in;
		return true;
	}
	conn_abort(c);
	free(in);
	return false;
}

/* Streams have a half of the process's descriptors, two each: the rest is for clients and links. */
static bool take_share(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) < 0 || r.rlim_cur < 4)
		return false;
	return count_take(&opened, r.rlim_cur / 4 < UINT32_MAX ? (uint32_t)(r.rlim_cur / 4) : UINT32_MAX);
}

static bool stream_open(struct stream *s)
{
	int fds[2];

	s->counted = take_share();
	if (!s->counted || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0)
		return false;
	s->c = conn_tcp(fds[0], on_stream_conn, s);
	if (!s->c) {
		close(fds[0]);
		close(fds[1]);
		return false;
	}
	return give_web(s, fds[1]);
}

/* ---- streams ---- */

static void forget_fields(struct stream *s)
{
	for (size_t i = 0; i < s->fields_n; i++) {
		free((void *)(uintptr_t)s->fields[i].name);
		free((void *)(uintptr_t)s->fields[i].value);
	}
	s->fields_n = 0;
}

/* The client's side of it is over. */
static void stream_free(struct stream *s)
{
	list_del(&s->node);
	s->w->streams_n--;
	if (s->counted)
		atomic_fetch_sub(&opened, 1);
	loop_undefer(&s->again);
	loop_undefer(&s->reading);
	timer_stop(&s->patience);
	inner_leave(s);
	if (s->c)
		conn_abort(s->c);
	translate_free(&s->request);
	h2_mux_free(s->target);
	forget_fields(s);
	free(s->fields);
	free(s->head);
	free(s->last);
	bufq_clear(&s->out);
	bufq_clear(&s->in);
	bufq_clear(&s->wire);
	serve_later(s->w);
	mem_put(MEM_OTHER, s);
}

static void stream_break(struct stream *s, uint32_t code)
{
	if (s->c)
		conn_abort(s->c);
	s->c = NULL;
	s->state = ENDED;
	h2_mux_reset(s->w->mux, s->id, code);
	serve_later(s->w);
}

/* An answer of our own, where there is no web to give one. */
static void stream_refuse(struct stream *s, unsigned status)
{
	char text[12];
	struct h2_field f = { ":status", text };

	snprintf(text, sizeof(text), "%u", status);
	s->answered = true;
	s->state = ENDED;
	h2_mux_answer(s->w->mux, s->id, &f, 1, true);
	serve_later(s->w);
}

static void put_out(struct stream *s, const void *data, size_t n)
{
	if (bufq_append(&s->out, data, n) < 0)
		stream_break(s, H2_INTERNAL_ERROR);
}

/* Bytes for the target, as HTTP/1.1 has them. */
static void put_body(struct stream *s, const uint8_t *data, size_t n)
{
	char size[20];

	if (s->request.chunked) {
		int len = snprintf(size, sizeof(size), "%zx\r\n", n);

		put_out(s, size, (size_t)len);
	}
	put_out(s, data, n);
	if (s->request.chunked)
		put_out(s, "\r\n", 2);
}

static void end_body(struct stream *s)
{
	s->fin = true;
	if (s->request.chunked && s->state != ENDED)
		put_out(s, "0\r\n\r\n", 5);
}

/* All was written: the client may send more. */
static void credit(struct stream *s)
{
	if (s->owed == 0)
		return;
	h2_mux_consume(s->w->mux, s->id, s->owed);
	s->owed = 0;
	serve_later(s->w);
}

/* ---- an answer of HTTP/1.1 ---- */

static const char *method_of(const struct stream *s)
{
	return s->request.grpc ? "CONNECT" : s->request.method;
}

static bool add_field(struct stream *s, const char *name, const char *value)
{
	char *n, *v;

	if (!s->fields)
		s->fields = calloc(H2_MUX_FIELDS, sizeof(*s->fields));
	if (!s->fields || s->fields_n == H2_MUX_FIELDS)
		return false;
	n = strdup(name);
	v = strdup(value);
	if (!n || !v) {
		free(n);
		free(v);
		return false;
	}
	s->fields[s->fields_n++] = (struct h2_field){ n, v };
	return true;
}

/* What there is no room for the client does without; for want of memory it does not. */
static void on_trailer(void *arg, const char *name, const char *value)
{
	struct stream *s = arg;

	if (s->fields_n == H2_MUX_FIELDS)
		return;
	if (add_field(s, name, value))
		s->trailers = true;
	else
		s->trailers_lost = true;
}

static bool lengthen(char **text, size_t *len, const char *data, size_t n)
{
	char *grown = realloc(*text, *len + n);

	if (!grown)
		return false;
	memcpy(grown + *len, data, n);
	*text = grown;
	*len += n;
	return true;
}

static bool keep_trailers(struct stream *s, const char *data, size_t n)
{
	if (!lengthen(&s->last, &s->last_len, data, n))
		return false;
	if (s->body.done)
		translate_trailers(s->last, s->last_len, on_trailer, s);
	return !s->trailers_lost;
}

static bool keep_body(struct stream *s, const char *data, size_t n, struct http1_error *err)
{
	while (n > 0 && !s->body.done) {
		bool last = http1_body_at_trailers(&s->body);
		struct http1_text piece;
		ssize_t taken = http1_body_take(&s->body, data, n, &piece, err);

		if (taken < 0 || (piece.len > 0 && bufq_append(&s->in, piece.at, piece.len) < 0))
			return false;
		if (last && !keep_trailers(s, data, (size_t)taken))
			return false;
		data += taken;
		n -= (size_t)taken;
	}
	return true;
}

/* They are not subject to the client's credit: what a target says without end must not wait here for a client that does not read. */
static void pass_interim(struct stream *s, const struct h2_field *f, size_t n)
{
	if (s->w->interim > INTERIM_MAX) {
		stream_break(s, H2_INTERNAL_ERROR);
		return;
	}
	for (size_t i = 0; i < n; i++)
		s->w->interim += strlen(f[i].name) + strlen(f[i].value);
	h2_mux_interim(s->w->mux, s->id, f, n);
}

static void answer_client(struct stream *s, const struct http1_head *h, bool fin)
{
	static _Thread_local char space[2 * HEAD_MAX];
	struct h2_field f[H2_MUX_FIELDS];
	size_t n = translate_answer(h, f, H2_MUX_FIELDS, space, sizeof(space));

	if (n == 0) {
		stream_break(s, H2_INTERNAL_ERROR);
	} else if (h->status < 200) {
		pass_interim(s, f, n);
	} else {
		s->answered = true;
		h2_mux_answer(s->w->mux, s->id, f, n, fin);
	}
	serve_later(s->w);
}

static void begin_target(struct stream *s, const char *rest, size_t n);

static void take_answer(struct stream *s, const struct http1_head *h, const char *rest, size_t n)
{
	struct http1_error err;

	if (h->framing == HTTP1_TUNNEL && s->request.grpc) {
		begin_target(s, rest, n);
		return;
	}
	http1_body_begin(&s->body, h);
	s->state = BODY;
	if (!keep_body(s, rest, n, &err))
		stream_break(s, H2_INTERNAL_ERROR);
	else
		answer_client(s, h, s->body.done && s->in.len == 0 && !s->trailers);
}

/* Interim answers, and the head of the real one. */
static void take_head(struct stream *s, const char *data, size_t n)
{
	static _Thread_local struct http1_head h;
	struct http1_error err;
	size_t at = 0;
	ssize_t used = 0;

	if (s->head_len + n > HEAD_MAX + PIECE || !lengthen(&s->head, &s->head_len, data, n)) {
		stream_break(s, H2_INTERNAL_ERROR);
		return;
	}
	while (s->state == HEAD && !s->target && (used = http1_answer(&h, s->head + at, s->head_len - at, HEAD_MAX, method_of(s), &err)) > 0) {
		at += (size_t)used;
		if (h.status < 200 && h.status != 101)
			answer_client(s, &h, false);
		else
			take_answer(s, &h, s->head + at, s->head_len - at);
	}
	if (used < 0) {
		stream_break(s, H2_INTERNAL_ERROR);
	} else if (s->state == HEAD && !s->target) {
		memmove(s->head, s->head + at, s->head_len - at);
		s->head_len -= at;
	} else {
		free(s->head);
		s->head = NULL;
		s->head_len = 0;
	}
}

/* ---- an answer of HTTP/2 (gRPC) ---- */

static void on_target_field(void *owner, void *stream, const char *name, const char *value)
{
	struct stream *s = stream;
	uint64_t status;

	if (strcmp(name, ":status") == 0 && str_u64(value, 999, &status))
		s->status = (unsigned)status;
	if (!add_field(s, name, value))
		stream_break(s, H2_INTERNAL_ERROR);
}

static void on_target_block(void *owner, void *stream, enum h2_block what, bool fin)
{
	struct stream *s = stream;

	if (s->state == ENDED)
		return; /* a part of it is missing */
	if (s->answered) {
		s->trailers = true;
	} else if (s->status < 200) {
		pass_interim(s, s->fields, s->fields_n);
		forget_fields(s);
	} else {
		s->answered = true;
		h2_mux_answer(s->w->mux, s->id, s->fields, s->fields_n, fin);
		forget_fields(s);
	}
	if (fin)
		s->body.done = true;
	h2_mux_wake(s->w->mux, s->id);
	serve_later(s->w);
}

static void on_target_data(void *owner, void *stream, const uint8_t *data, size_t n)
{
	struct stream *s = stream;

	if (s->state == ENDED)
		return;
	if (bufq_append(&s->in, data, n) < 0)
		stream_break(s, H2_INTERNAL_ERROR);
	h2_mux_wake(s->w->mux, s->id);
	serve_later(s->w);
}

static void on_target_fin(void *owner, void *stream)
{
	struct stream *s = stream;

	s->body.done = true;
	h2_mux_wake(s->w->mux, s->id);
	serve_later(s->w);
}

static void on_target_closed(void *owner, void *stream, uint32_t code)
{
	struct stream *s = stream;

	if (!s->body.done)
		stream_break(s, code ? code : H2_INTERNAL_ERROR);
}

/* The client's bytes, for the target. */
static size_t on_target_pull(void *owner, void *stream, uint8_t *dst, size_t room, bool *fin)
{
	struct stream *s = stream;
	struct buf_cursor c = { 0 };
	size_t n = bufq_read(&s->out, &c, dst, room);

	bufq_drop(&s->out, n);
	if (s->out.len == 0) {
		credit(s);
		*fin = s->fin;
	}
	return n;
}

static const struct h2_mux_events target_events = { .on_field = on_target_field,
						    .on_block = on_target_block,
						    .on_data = on_target_data,
						    .on_fin = on_target_fin,
						    .on_closed = on_target_closed,
						    .pull = on_target_pull };

/* From the head that a web has made for the target: where it goes is in there, and what the target is told of the client. */
static bool ask_target(struct stream *s, const struct http1_head *h)
{
	static _Thread_local char space[2 * HEAD_MAX];
	struct h2_field f[H2_MUX_FIELDS + 4], plain[H2_MUX_FIELDS];
	struct http1_head copy = *h;
	size_t n, k = 0;

	copy.status = 200;
	n = translate_answer(&copy, plain, H2_MUX_FIELDS - 5, space, sizeof(space) - HEAD_MAX);
	if (n == 0)
		return false;
	snprintf(space + sizeof(space) - HEAD_MAX, HEAD_MAX, "%.*s", (int)h->target.len, h->target.at);
	f[k++] = (struct h2_field){ ":method", s->request.method };
	f[k++] = (struct h2_field){ ":scheme", "http" };
	f[k++] = (struct h2_field){ ":path", space + sizeof(space) - HEAD_MAX };
	for (size_t i = 1; i < n; i++) {
		if (strcmp(plain[i].name, "host") == 0)
			f[k++] = (struct h2_field){ ":authority", plain[i].value };
	}
	for (size_t i = 1; i < n; i++) {
		if (strcmp(plain[i].name, "host") != 0)
			f[k++] = plain[i];
	}
	if (s->request.trailers)
		f[k++] = (struct h2_field){ "te", "trailers" };
	s->target_id = h2_mux_open(s->target, s, f, k, s->fin && s->out.len == 0);
	return s->target_id > 0;
}

/* The head for the target follows the web's 200, all of it sent at once; behind it the target may have begun to speak. */
static void begin_target(struct stream *s, const char *rest, size_t n)
{
	struct h2_mux_options o = { .server = false, .max_fields = HEAD_MAX };
	static _Thread_local struct http1_head h;
	struct http1_error err;
	ssize_t used = http1_request(&h, rest, n, HEAD_MAX, &err);

	s->target = h2_mux_new(&o, &target_events, s);
	if (!s->target || used <= 0 || !ask_target(s, &h)) {
		stream_break(s, H2_INTERNAL_ERROR);
		return;
	}
	s->state = BODY;
	h2_mux_input(s->target, (const uint8_t *)rest + used, n - (size_t)used);
}

/* false: our end is broken. A target that does not get all of it would wait for ever. */
static bool talk_to_target(struct stream *s)
{
	uint8_t piece[PIECE];

	if (conn_flush(s->c, &s->wire) < 0)
		return false;
	while (s->target && s->state != ENDED && s->wire.len == 0) {
		size_t n = h2_mux_output(s->target, piece, sizeof(piece));

		if (h2_mux_starved(s->target) || (n > 0 && bufq_append(&s->wire, piece, n) < 0)) {
			stream_break(s, H2_INTERNAL_ERROR);
			return true;
		}
		if (n == 0)
			return true;
		if (conn_flush(s->c, &s->wire) < 0)
			return false;
	}
	return true;
}

/* ---- a stream's turn ---- */

static void take_bytes(struct stream *s, const char *data, size_t n)
{
	struct http1_error err;

	if (s->target) {
		h2_mux_input(s->target, (const uint8_t *)data, n);
		if (h2_mux_broken(s->target) && s->state != ENDED)
			stream_break(s, H2_INTERNAL_ERROR);
		return;
	}
	if (s->state == HEAD) {
		take_head(s, data, n);
		return;
	}
	if (!keep_body(s, data, n, &err)) {
		stream_break(s, H2_INTERNAL_ERROR);
		return;
	}
	h2_mux_wake(s->w->mux, s->id);
	serve_later(s->w);
}

/* As much as is to be kept for the client; false: the other end is broken. */
static bool read_in(struct stream *s)
{
	char piece[PIECE];
	struct iovec iov = { piece, sizeof(piece) };

	while (s->c && s->c->readable && !s->eof && s->in.len < BODY_MAX && s->state != ENDED) {
		ssize_t n = conn_readv(s->c, &iov, 1);

		if (n == CONN_AGAIN)
			break;
		if (n == CONN_FAILED)
			return false;
		s->eof = n == 0;
		if (n > 0)
			take_bytes(s, piece, (size_t)n);
	}
	return true;
}

/* Our end has come to its end: is that the answer's? */
static void judge_end(struct stream *s)
{
	if (s->state == ENDED || s->body.done)
		return;
	if (s->state == HEAD || s->target || s->body.framing != HTTP1_CLOSE) {
		stream_break(s, H2_INTERNAL_ERROR);
	} else if (!s->inner || s->inner->told) {
		if (s->inner && s->inner->why != REASON_DONE) {
			stream_break(s, H2_INTERNAL_ERROR);
			return;
		}
		s->body.done = true;
		h2_mux_wake(s->w->mux, s->id);
		serve_later(s->w);
	}
}

static bool write_to(struct stream *s)
{
	if (s->request.grpc)
		return talk_to_target(s);
	if (conn_flush(s->c, &s->out) < 0)
		return false;
	if (s->out.len == 0)
		credit(s);
	return true;
}

static void stream_run(struct stream *s)
{
	if (!s->c || s->state == ENDED)
		return;
	/* a web that has answered may close before it has read all: what it said counts */
	if (!write_to(s))
		bufq_clear(&s->out);
	if (!s->c || s->state == ENDED)
		return;
	if (!read_in(s) && s->state != ENDED)
		stream_break(s, H2_INTERNAL_ERROR);
	else if (s->eof)
		judge_end(s);
	if (s->target && s->state != ENDED)
		loop_defer(&s->again);
}

/* What reading brought about is to be written. */
static void run_again(struct deferred *d)
{
	struct stream *s = container_of(d, struct stream, again);

	if (s->c && s->state != ENDED && !write_to(s))
		stream_break(s, H2_INTERNAL_ERROR);
}

/* The client has taken something: there is room for more. */
static void read_again(struct deferred *d)
{
	stream_run(container_of(d, struct stream, reading));
}

/* ---- events of the client's mux ---- */

static void *on_stream(void *owner, int32_t id)
{
	struct web2 *w = owner;
	struct stream *s = w->streams_n < STREAMS_MAX && !w->stopping ? mem_get(MEM_OTHER, sizeof(*s)) : NULL;

	if (!s)
		return NULL;
	s->w = w;
	s->id = id;
	s->request.max = w->o.place->l->max_head;
	deferred_init(&s->again, run_again);
	deferred_init(&s->reading, read_again);
	timer_init(&s->patience, on_patience);
	timer_start(&s->patience, w->o.place->l->timeouts.http_request);
	list_add(&w->streams, &s->node);
	w->streams_n++;
	w->requests++;
	timer_stop(&w->quiet);
	return s;
}

static void on_field(void *owner, void *stream, const char *name, const char *value)
{
	struct stream *s = stream;

	if (!s->c && s->state == HEAD) /* trailers of a request go nowhere */
		translate_field(&s->request, name, value);
}

static void begin(struct stream *s, bool fin)
{
	unsigned refusal = translate_end(&s->request, fin, s->request.grpc);

	s->fin = fin;
	if (refusal) {
		stream_refuse(s, refusal);
	} else if (!stream_open(s)) {
		stream_refuse(s, 503);
	} else if (bufq_append(s->request.grpc ? &s->wire : &s->out, s->request.text, s->request.len) < 0) {
		stream_break(s, H2_INTERNAL_ERROR);
	} else { /* what follows a head of gRPC waits for the target */
		loop_defer(&s->again);
	}
	watch(s);
}

static void on_block(void *owner, void *stream, enum h2_block what, bool fin)
{
	struct stream *s = stream;

	if (what == H2_REQUEST)
		begin(s, fin);
	else if (fin && s->state != ENDED)
		end_body(s);
	if (s->target)
		h2_mux_wake(s->target, s->target_id);
	loop_defer(&s->again);
}

static void on_data(void *owner, void *stream, const uint8_t *data, size_t n)
{
	struct stream *s = stream;

	s->w->up += n;
	watch(s);
	if (s->state == ENDED || !s->c) {
		h2_mux_consume(s->w->mux, s->id, n);
		return;
	}
	s->owed += n;
	if (s->request.grpc)
		put_out(s, data, n);
	else
		put_body(s, data, n);
	if (s->target)
		h2_mux_wake(s->target, s->target_id);
	loop_defer(&s->again);
}

static void on_fin(void *owner, void *stream)
{
	struct stream *s = stream;

	end_body(s);
	if (s->target)
		h2_mux_wake(s->target, s->target_id);
	loop_defer(&s->again);
}

static void on_closed(void *owner, void *stream, uint32_t code)
{
	stream_free(stream);
}

static size_t pull(void *owner, void *stream, uint8_t *dst, size_t room, bool *fin)
{
	struct stream *s = stream;
	struct buf_cursor c = { 0 };
	size_t n = bufq_read(&s->in, &c, dst, room);

	bufq_drop(&s->in, n);
	s->w->down += n;
	if (n > 0)
		watch(s);
	if (s->target && n > 0)
		h2_mux_consume(s->target, s->target_id, n);
	if (n > 0 && s->c)
		loop_defer(&s->reading);
	if (s->in.len > 0 || !s->body.done)
		return n;
	if (s->trailers)
		h2_mux_trailers(s->w->mux, s->id, s->fields, s->fields_n);
	*fin = true;
	return n;
}

static const struct h2_mux_events mux_events = {
	.on_stream = on_stream, .on_field = on_field, .on_block = on_block, .on_data = on_data, .on_fin = on_fin, .on_closed = on_closed, .pull = pull
};

/* ---- the connection ---- */

static void judge_flood(struct web2 *w)
{
	uint64_t now = clock_ms(), leaked = (now - w->glitches_ms) * GLITCH_RATE / 1000;

	if (leaked > 0) {
		w->glitches = leaked > w->glitches ? 0 : w->glitches - (uint32_t)leaked;
		w->glitches_ms = now;
	}
	w->glitches += h2_mux_take_glitches(w->mux);
	if (w->glitches > GLITCH_BURST)
		h2_mux_goaway(w->mux, H2_ENHANCE_YOUR_CALM);
}

static void input(struct web2 *w, const void *bytes, size_t n)
{
	h2_mux_input(w->mux, bytes, n);
	judge_flood(w);
}

/* false: the connection is broken. */
static bool read_some(struct web2 *w)
{
	char piece[PIECE];
	struct iovec iov = { piece, sizeof(piece) };

	for (int i = 0; i < PIECES && w->c->readable && !w->eof; i++) {
		ssize_t n = conn_readv(w->c, &iov, 1);

		if (n == CONN_FAILED)
			return false;
		w->eof = n == 0;
		if (n > 0)
			input(w, piece, (size_t)n);
	}
	if (w->c->readable && !w->eof)
		serve_later(w);
	return true;
}

static bool write_all(struct web2 *w)
{
	uint8_t piece[PIECE];

	if (conn_flush(w->c, &w->unsent) < 0)
		return false;
	while (w->unsent.len == 0 && conn_unsent(w->c) == 0) {
		size_t n = h2_mux_output(w->mux, piece, sizeof(piece));

		if (n == 0) {
			w->interim = 0;
			return true;
		}
		w->starved = bufq_append(&w->unsent, piece, n) < 0;
		if (w->starved || conn_flush(w->c, &w->unsent) < 0)
			return false;
	}
	return true;
}

static bool all_said(const struct web2 *w)
{
	return w->unsent.len == 0 && conn_unsent(w->c) == 0 && !h2_mux_wants_output(w->mux);
}

static void free_texts(struct web2 *w)
{
	free((void *)(uintptr_t)w->o.sni);
	free((void *)(uintptr_t)w->o.alpn);
	free((void *)(uintptr_t)w->o.cert);
}

static void web2_end(struct web2 *w, enum reason why, bool orderly)
{
	list_for_each_safe(n, &w->streams)
		stream_free(container_of(n, struct stream, node));
	loop_undefer(&w->serve);
	timer_stop(&w->quiet);
	bufq_clear(&w->unsent);
	if (orderly)
		conn_close(w->c);
	else
		conn_abort(w->c);
	w->ev->on_done(w->owner, why);
	h2_mux_free(w->mux);
	generation_put(w->o.gen);
	free_texts(w);
	mem_put(MEM_OTHER, w);
}

/* Time is up: the stream's, and if the client does not even take that, the client's. */
static void on_patience(struct timer *t)
{
	struct stream *s = container_of(t, struct stream, patience);

	if (s->given_up) {
		web2_end(s->w, REASON_CLIENT_TIMEOUT, false);
		return;
	}
	s->given_up = true;
	stream_break(s, H2_CANCEL);
	timer_start(&s->patience, GOODBYE_MS);
}

/* A client that says nothing, and wants nothing. */
static void watch_quiet(struct web2 *w)
{
	if (w->streams_n > 0 || w->shut)
		return;
	if (w->stopping && !h2_mux_over(w->mux))
		h2_mux_goaway(w->mux, H2_NO_ERROR);
	if (!timer_running(&w->quiet))
		timer_start(&w->quiet, w->o.place->l->timeouts.http_request);
}

/* Our end is said first, and what still comes is thrown away until the client's: closing at once could make a RST of the GOAWAY. */
static bool say_end(struct web2 *w)
{
	w->shut = true;
	timer_start(&w->quiet, GOODBYE_MS);
	return conn_shut(w->c) == 0;
}

static enum reason why_over(const struct web2 *w, bool good)
{
	if (w->starved || h2_mux_starved(w->mux))
		return REASON_RESOURCES;
	if (h2_mux_broken(w->mux))
		return REASON_BAD_REQUEST;
	return good && w->streams_n == 0 ? REASON_DONE : conn_reason(w->c, REASON_CLIENT_RESET);
}

/* May free it. */
static void serve(struct web2 *w)
{
	bool good = read_some(w) && (w->shut || write_all(w));

	good = good && !h2_mux_starved(w->mux);
	if (good && !w->eof && !w->shut && h2_mux_over(w->mux) && all_said(w))
		good = say_end(w);
	if (!good || w->eof) {
		web2_end(w, why_over(w, good), good);
		return;
	}
	watch_quiet(w);
}

static void run_serve(struct deferred *d)
{
	serve(container_of(d, struct web2, serve));
}

static void on_conn(struct conn *c)
{
	serve(c->owner);
}

static void on_quiet(struct timer *t)
{
	struct web2 *w = container_of(t, struct web2, quiet);

	if (w->shut || h2_mux_over(w->mux)) {
		web2_end(w, h2_mux_broken(w->mux) ? REASON_BAD_REQUEST : REASON_DONE, false);
		return;
	}
	h2_mux_goaway(w->mux, H2_NO_ERROR);
	timer_start(&w->quiet, GOODBYE_MS);
	serve_later(w);
}

static bool copy_texts(struct web2 *w, const struct web_options *o)
{
	w->o.sni = o->sni ? strdup(o->sni) : NULL;
	w->o.alpn = o->alpn ? strdup(o->alpn) : NULL;
	w->o.cert = o->cert ? strdup(o->cert) : NULL;
	return (w->o.sni || !o->sni) && (w->o.alpn || !o->alpn) && (w->o.cert || !o->cert);
}

struct web2 *web2_new(struct conn *c, const struct web_options *o, const struct web2_events *ev, void *owner)
{
	struct h2_mux_options mo = { .server = true, .max_streams = STREAMS_MAX, .max_fields = o->place->l->max_head };
	struct web2 *w = mem_get(MEM_OTHER, sizeof(*w));

	if (!w)
		return NULL;
	w->o = *o;
	w->mux = copy_texts(w, o) ? h2_mux_new(&mo, &mux_events, w) : NULL;
	if (!w->mux) {
		free_texts(w);
		mem_put(MEM_OTHER, w);
		return NULL;
	}
	generation_get(w->o.gen);
	w->ev = ev;
	w->owner = owner;
	w->c = c;
	c->on_event = on_conn;
	c->owner = w;
	w->glitches_ms = clock_ms();
	list_init(&w->streams);
	timer_init(&w->quiet, on_quiet);
	deferred_init(&w->serve, run_serve);
	watch_quiet(w);
	serve_later(w);
	return w;
}

void web2_input(struct web2 *w, const char *bytes, size_t n)
{
	input(w, bytes, n);
}

void web2_kill(struct web2 *w, enum reason why)
{
	web2_end(w, why, false);
}

void web2_stop(struct web2 *w)
{
	w->stopping = true;
	h2_mux_drain(w->mux);
	serve_later(w);
}

void web2_view(const struct web2 *w, struct web_view *out)
{
	*out = (struct web_view){ .id = "", .state = w->shut || h2_mux_over(w->mux) ? "closing" : w->streams_n ? "open" : "idle", .up = w->up, .down = w->down,
				  .requests = w->requests };
}

int web2_fd(const struct web2 *w)
{
	return conn_fd(w->c);
}

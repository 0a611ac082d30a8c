/* Clients of modes http and connect: their requests, one after the other, and the answers.
 * Owns the client's conn, the request at hand, and the origin that serves it; between two requests the client holds no buffer. Only when an answer is complete is the next
 * request read, and it is routed anew. Bodies go straight from the conn into the session and back, as far as the framing allows; a turn moves a bounded amount.
 * Once a byte of an answer is out, whatever goes wrong is a RST: a client never takes a part for the whole. Before, it is an answer of our own.
 * Any step may end the web or send it to another thread: that happens last, in run(), when nothing of it is looked at any more.
 * Does not know rules (webroute), links and agents (trip, behind origin), nor what heads look like (webhead, proto/http1). See doc/internals/http.md. */
#include "mctunnel/edge/web.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/list.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/series.h"
#include "mctunnel/base/stat.h"
#include "mctunnel/base/str.h"
#include "mctunnel/base/timer.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/edge/generation.h"
#include "mctunnel/edge/origin.h"
#include "mctunnel/edge/record.h"
#include "mctunnel/edge/trip.h"
#include "mctunnel/edge/weberror.h"
#include "mctunnel/edge/webhead.h"
#include "mctunnel/edge/webroute.h"
#include "mctunnel/event/loop.h"
#include "mctunnel/net/conn.h"
#include "mctunnel/net/sock.h"
#include "mctunnel/proto/http1.h"
#include "mctunnel/tunnel/session.h"

#include <stdlib.h>
#include <string.h>

#define PIECES 16
#define READ_MAX (16u << 10)                       /* bytes read at once where more than a message may come */
#define HEAD_MAX (64u << 10)                       /* of an answer; requests: listener.max_head, which is no more */
#define IN_MAX (HEAD_MAX + 2 * READ_MAX)
#define OUT_MAX (2 * HEAD_MAX + (16u << 10))       /* a head with what is added */
#define TURN_MAX (256u << 10)                      /* bytes read in one go, then others have theirs */
#define STEPS_MAX 64                               /* in one go: requests that are answered at once */
#define LINGER_MS 2000
#define INLINE_MAX 1024

enum state {
	IDLE,     /* no request, or a part of its head */
	AWAY,     /* the request waits for its origin */
	EXCHANGE, /* request and answer move */
	FLUSH,    /* the hub's own answer, or the last bytes of another, are being written */
	LINGER,   /* our direction is shut; what still comes is thrown away, so that the client reads what it was told */
	OVER
};

struct request {
	struct http1_body body, answer; /* how far they have come */
	uint64_t began_ms, up, down;
	const char *head;               /* for the target: in space; NULL: none (CONNECT that ends here) */
	uint32_t head_len, head_at;
	const struct origin_route *routes; /* in space; NULL: the listener's */
	size_t routes_n;
	char *space;                    /* own, or on its own */
	char *part;                     /* owned: a part of the answer's head; NULL: none */
	size_t part_len;
	uint64_t checked;               /* of a chunked answer: bytes at the session's front that are good */
	unsigned status;
	bool old;                       /* HTTP/1.0 */
	bool keep;                      /* the client means to go on */
	bool upgrade, safe, connect, personal;
	bool heard;                     /* a byte of the answer has come */
	bool final, begun;              /* its final head has been read; a byte of it is on its way to the client */
	bool target_keeps, unchunk;
	bool reused, retried;           /* over an origin that others had used; and again over a new one */
	bool in_ended, out_ended;       /* opaque: the directions that have ended */
	char method[HTTP1_METHOD_MAX + 1], id[WEBHEAD_ID];
	char host[256], path[512];      /* for the log: cut */
	_Alignas(void *) char own[INLINE_MAX];
};

struct web {
	struct list node; /* in here.webs, or on its way */
	const struct web_events *ev; /* borrowed */
	void *owner;                 /* borrowed */
	struct generation *gen;      /* shared */
	struct place *place;
	struct conn *c;              /* owned */
	struct timer timer;          /* when it fires, it is seen whether time is up */
	struct deferred again;
	char *in, *out;              /* owned: read and not used yet; made and not written yet; NULL: none */
	uint32_t in_at, in_len, out_at, out_len;
	struct request *r;           /* owned; NULL: none */
	struct origin *origin;       /* owned; NULL: none */
	struct origin *kept;         /* in the pool: the last one; set to NULL from there */
	struct origin *setting_out;  /* is origin: to be started when nothing else is to be done */
	const atomic_uint *sessions; /* borrowed */
	const char *over;            /* borrowed: the limit the client is over; NULL: none */
	uint64_t since_ms;           /* from when on the state's time limit counts */
	uint64_t up, down, requests;
	struct addr src, dst;
	char *sni, *cert;            /* owned; NULL: none */
	enum reason why;             /* of the end */
	uint8_t state;
	bool tls, stopping;
	bool closing;                /* after FLUSH: the end */
	bool lingering;              /* and the client may still be sending */
	bool stalled;                /* the session had no room for what can be read */
	bool losing;                 /* within origin_events.on_lost */
	bool homeless;               /* the loop of the new thread refused the conn */
};

static _Thread_local struct {
	struct list webs;
	struct generation *gen; /* shared: newer than those of clients may be; NULL: not known */
	bool running, stopping;
	char *in, *out;         /* owned: IN_MAX, OUT_MAX */
	struct http1_head head;
	struct http1_error err;
} here;

static const struct origin_events origin_events;

/* Time. */

static bool opaque(const struct request *r)
{
	return r && r->body.framing == HTTP1_TUNNEL;
}

/* 0: none. */
static uint32_t limit_of(const struct web *w)
{
	const struct conf_timeouts *t = &w->place->l->timeouts;

	switch ((enum state)w->state) {
	case IDLE:
	case FLUSH: return t->http_request;
	case EXCHANGE: return opaque(w->r) && (w->r->in_ended || w->r->out_ended) && t->half_closed ? t->half_closed : t->idle;
	case LINGER: return LINGER_MS;
	case AWAY: /* its trip looks at the clock */
	case OVER: break;
	}
	return 0;
}

/* A timer that runs already and fires too early is left alone: it looks again then. */
static void watch_time(struct web *w)
{
	uint32_t limit = limit_of(w);
	uint64_t due = w->since_ms + limit, now = clock_ms();

	if (limit && (!timer_running(&w->timer) || w->timer.at_ms > due))
		timer_start(&w->timer, due > now ? due - now : 0);
}

static void set_state(struct web *w, enum state s)
{
	w->state = (uint8_t)s;
	w->since_ms = clock_ms();
	watch_time(w);
}

/* What was read and not used. */

static void drop_in(struct web *w)
{
	free(w->in);
	w->in = NULL;
	w->in_at = w->in_len = 0;
}

/* false: no memory. */
static bool keep_in(struct web *w, const char *from, size_t n)
{
	BUG_ON(w->in);
	if (n == 0)
		return true;
	w->in = malloc(n);
	if (!w->in)
		return false;
	memcpy(w->in, from, n);
	w->in_len = (uint32_t)n;
	return true;
}

static size_t in_left(const struct web *w)
{
	return w->in_len - w->in_at;
}

/* Whatever follows goes through here.in. */
static size_t take_in(struct web *w)
{
	size_t n = in_left(w);

	BUG_ON(n > IN_MAX);
	if (n > 0)
		memcpy(here.in, w->in + w->in_at, n);
	drop_in(w);
	return n;
}

/* What was made and not written. */

static bool keep_out(struct web *w, const char *from, size_t n)
{
	BUG_ON(w->out);
	w->out = malloc(n);
	if (!w->out)
		return false;
	memcpy(w->out, from, n);
	w->out_at = 0;
	w->out_len = (uint32_t)n;
	return true;
}

static void drop_out(struct web *w)
{
	free(w->out);
	w->out = NULL;
	w->out_at = w->out_len = 0;
}

/* false: the conn has failed. */
static bool flush(struct web *w)
{
	while (w->out && w->c->writable) {
		struct iovec iov = { w->out + w->out_at, w->out_len - w->out_at };
		ssize_t n = conn_writev(w->c, &iov, 1);

		if (n == CONN_FAILED)
			return false;
		if (n == CONN_AGAIN)
			break;
		w->out_at += (uint32_t)n;
		w->since_ms = clock_ms();
		if (w->out_at == w->out_len)
			drop_out(w);
	}
	return true;
}

/* The request's end. */

static void request_free(struct web *w)
{
	struct request *r = w->r;

	if (!r)
		return;
	if (r->space != r->own)
		free(r->space);
	free(r->part);
	mem_put(MEM_REQUEST, r);
	w->r = NULL;
}

static void drop_origin(struct web *w, enum reason why)
{
	struct origin *o = w->origin;

	w->origin = w->setting_out = NULL;
	if (o && !w->losing)
		origin_drop(o, why);
}

static char phase_of(const struct web *w, const struct trip_view *v, enum reason why)
{
	const struct request *r = w->r;

	if (why == REASON_DONE)
		return '-';
	if (!r || !w->origin)
		return 'R';
	if (r->final)
		return opaque(r) && (r->in_ended || r->out_ended) ? 'L' : 'D';
	if (w->state == AWAY || v->phase != 'D')
		return v->phase;
	return r->body.done ? 'H' : 'R';
}

static void count(struct web *w, const struct record *rec)
{
	char code[12];
	struct strbuf b;

	if (w->origin && origin_session(w->origin)) {
		series_add(origin_requests(w->origin, rec->status), 1);
		return;
	}
	strbuf_init(&b, code, sizeof(code));
	strbuf_add(&b, "%u", rec->status);
	series_add(series_of(HTTP_REQUESTS, rec->listener, rec->tunnel, rec->service, code), 1);
}

/* The last word about the request at hand, or about a client that has not said one. status: answered; 0: none. */
static void record(struct web *w, enum reason why, unsigned status, const char *text)
{
	const struct request *r = w->r;
	struct record rec = { .listener = w->place->l->name, .why = why, .text = text, .status = status, .queue_ms = -1, .connect_ms = -1, .sni = w->sni, .cert = w->cert };
	struct trip_view v = { .id = NULL };
	char client[ADDR_TEXT];

	if (w->origin) {
		origin_view(w->origin, &v);
		rec.queue_ms = r && r->reused ? 0 : v.queue_ms;
		rec.connect_ms = r && r->reused ? 0 : v.connect_ms;
	}
	rec.client = addr_text(&w->src, client, sizeof(client));
	rec.route = v.route;
	rec.tunnel = v.tunnel;
	rec.service = v.service;
	rec.agent = v.agent;
	rec.target = v.target;
	rec.id = v.id;
	rec.total_ms = (int64_t)(clock_ms() - (r ? r->began_ms : w->since_ms));
	rec.sessions = w->sessions ? atomic_load_explicit(w->sessions, memory_order_relaxed) : 0;
	rec.listener_sessions = atomic_load_explicit(&w->place->score->sessions, memory_order_relaxed);
	rec.phase = phase_of(w, &v, why);
	if (r) {
		rec.up = r->up;
		rec.down = r->down;
		rec.method = r->method;
		rec.host = r->host;
		rec.path = r->path;
		rec.request = r->id;
	}
	if (r || status)
		count(w, &rec);
	record_end(&rec);
}

/* The client's end. The web is freed in run(), or by who called from outside. */

static void over(struct web *w, enum reason why, bool orderly)
{
	if (w->state == OVER)
		return;
	w->why = why;
	w->state = OVER;
	drop_origin(w, why == REASON_DONE ? REASON_CLIENT_RESET : why);
	origin_forget(&w->kept);
	request_free(w);
	drop_in(w);
	drop_out(w);
	timer_stop(&w->timer);
	loop_undefer(&w->again);
	list_del(&w->node);
	if (orderly)
		conn_close(w->c);
	else
		conn_abort(w->c);
	w->c = NULL;
}

/* In the middle of something: RST. */
static void break_off(struct web *w, enum reason why, const char *text)
{
	if (w->r)
		record(w, why, w->r->status, text);
	over(w, why, false);
}

static void web_free(struct web *w)
{
	w->ev->on_done(w->owner, w->why);
	generation_put(w->gen);
	free(w->sni);
	free(w->cert);
	mem_put(MEM_OTHER, w);
}

/* A RST can be seen by its error only, where nothing is read. */
static bool gone(const struct web *w)
{
	return w->c->hup && sock_error(conn_fd(w->c)) != 0;
}

/* Answers of our own. */

struct refusal {
	unsigned status;
	enum reason why;
	const char *text, *field, *location;
};

static bool may_go_on(const struct web *w, const struct refusal *f)
{
	const struct request *r = w->r;

	return r && r->keep && r->body.done && !w->stopping && f->status != 400;
}

/* Also of a client that has no request yet. The request is over. */
static void refuse(struct web *w, const struct refusal *f)
{
	struct request *r = w->r;
	struct trip_view v = { .id = NULL };
	bool keep = may_go_on(w, f);
	struct weberror e = { .status = f->status, .text = f->text, .field = f->field, .location = f->location, .close = !keep };
	size_t n;

	if (w->origin)
		origin_view(w->origin, &v);
	e.session = v.id;
	e.request = r ? r->id : NULL;
	e.head = r && strcmp(r->method, "HEAD") == 0;
	e.keep = keep && r->old;
	n = weberror_make(here.out, OUT_MAX, &e);
	w->closing = !keep;
	w->lingering = true;
	if (r)
		r->down += n;
	w->down += n;
	record(w, f->why, f->status, f->text);
	drop_origin(w, f->why);
	request_free(w);
	if (keep_out(w, here.out, n))
		set_state(w, FLUSH);
	else
		over(w, REASON_RESOURCES, false);
}

/* It cannot be served. */
static void fail(struct web *w, enum reason why, const char *text)
{
	struct refusal f = { .status = weberror_status(why), .why = why };

	if (w->r && w->r->begun)
		break_off(w, why, text);
	else
		refuse(w, &f);
}

static void fail_malformed(struct web *w)
{
	struct refusal f = { .status = here.err.status, .why = REASON_BAD_REQUEST, .text = here.err.text };

	if (w->r && w->r->begun)
		break_off(w, REASON_BAD_REQUEST, here.err.text);
	else
		refuse(w, &f);
}

/* The request begins. */

static void copy(char *out, size_t size, struct http1_text t)
{
	size_t n = t.len < size ? t.len : size - 1;

	memcpy(out, t.at, n);
	out[n] = '\0';
}

/* Methods that change nothing (RFC 9110, 9.2.1). */
static bool is_safe(const char *method)
{
	return strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0 || strcmp(method, "OPTIONS") == 0 || strcmp(method, "TRACE") == 0;
}

static struct request *request_new(struct web *w)
{
	const struct http1_head *h = &here.head;
	struct request *r = mem_get(MEM_REQUEST, sizeof(*r));

	if (!r)
		return NULL;
	r->space = r->own;
	r->began_ms = w->since_ms;
	copy(r->method, sizeof(r->method), h->method);
	copy(r->host, sizeof(r->host), h->authority);
	copy(r->path, sizeof(r->path), h->target);
	webhead_id(r->id, h, w->place->l->forwarded);
	http1_body_begin(&r->body, h);
	r->old = h->minor == 0;
	r->keep = h->keep_alive;
	r->upgrade = h->upgrade;
	r->personal = webhead_binds(h);
	r->safe = is_safe(r->method) && r->body.done;
	return r;
}

/* The newest configuration is the next request's. One whose listener is gone, or another one by now, is the last. */
static void renew(struct web *w)
{
	struct place *p;

	if (!here.gen || here.gen == w->gen)
		return;
	p = generation_place(here.gen, w->place->l->name);
	if (!p || p->score != w->place->score || p->l->mode != w->place->l->mode || !p->l->tls.at.file != !w->place->l->tls.at.file) {
		w->stopping = true;
		return;
	}
	origin_forget(&w->kept);
	generation_put(w->gen);
	w->gen = generation_get(here.gen);
	w->place = p;
}

/* Over an origin that waits, or a new one, for which it sets out when nothing else is to be done. */
static void seek(struct web *w)
{
	struct request *r = w->r;
	struct origin_want want = { .gen = w->gen, .place = w->place, .client = &w->src, .local = &w->dst, .routes = r->routes, .routes_n = r->routes_n,
				    .since_ms = r->began_ms, .safe = r->safe, .kept = &w->kept };
	bool no_route = false;

	if (!r->connect && !r->retried && !r->upgrade)
		w->origin = origin_take(&want, &origin_events, w);
	r->reused = w->origin != NULL;
	if (r->reused) {
		set_state(w, EXCHANGE);
		return;
	}
	w->origin = w->setting_out = origin_new(&want, &origin_events, w, &no_route);
	if (w->origin)
		set_state(w, AWAY);
	else
		fail(w, no_route ? REASON_NO_ROUTE : REASON_RESOURCES, NULL);
}

static const char *add_text(char **at, const char *text)
{
	size_t n = strlen(text) + 1;
	char *copied = memcpy(*at, text, n);

	*at += n;
	return copied;
}

/* Routes and head for as long as the request lasts: it may be asked again. */
static bool keep_way(struct request *r, const struct webroute *way, size_t head_len)
{
	size_t routes = way->routes ? way->routes_n * sizeof(struct origin_route) : 0, need = routes + head_len;
	struct origin_route *copies;
	char *text;

	for (size_t i = 0; way->routes && i < way->routes_n; i++)
		need += strlen(way->routes[i].tunnel) + strlen(way->routes[i].service) + 2;
	if (need > sizeof(r->own)) {
		r->space = malloc(need);
		if (!r->space) {
			r->space = r->own;
			return false;
		}
	}
	copies = (struct origin_route *)(void *)r->space;
	text = r->space + routes;
	for (size_t i = 0; way->routes && i < way->routes_n; i++) {
		copies[i].tunnel = add_text(&text, way->routes[i].tunnel);
		copies[i].service = add_text(&text, way->routes[i].service);
	}
	r->routes = way->routes ? copies : NULL;
	r->routes_n = way->routes_n;
	memcpy(text, here.out, head_len);
	r->head = text;
	r->head_len = (uint32_t)head_len;
	return true;
}

static void reject(struct web *w, enum reason why)
{
	record(w, why, 0, NULL);
	over(w, why, false);
}

/* What rules and policy say. true: it may go there. */
static bool decide(struct web *w, struct webroute *way)
{
	struct webroute_ask ask = { .head = &here.head, .place = w->place, .src = &w->src, .dst = &w->dst, .tls = w->tls, .sni = w->sni, .cert = w->cert, .id = w->r->id };
	struct refusal f;

	webroute(way, &ask);
	if (way->kind == WEBROUTE_GO)
		return true;
	f = (struct refusal){ .status = way->status, .why = way->why, .text = way->text, .location = way->location };
	if (way->kind == WEBROUTE_REJECT)
		reject(w, way->why);
	else
		refuse(w, &f);
	return false;
}

/* HTTP/1.0 knows requests without a host: the target is told the address that was asked. */
static const char *host_text(const struct web *w, char text[ADDR_TEXT])
{
	return w->dst.u.sa.sa_family == AF_UNIX || w->dst.len == 0 ? "localhost" : addr_text(&w->dst, text, ADDR_TEXT);
}

static size_t make_head(struct web *w, const struct webroute *way)
{
	char client[ADDR_TEXT], host[ADDR_TEXT];
	struct webhead_request q = { .head = &here.head, .forwarded = w->place->l->forwarded, .path = way->rewrite, .id = w->r->id, .tls = w->tls };
	bool inet = w->src.len > 0 && w->src.u.sa.sa_family != AF_UNIX;

	q.client = inet ? addr_host_text(&w->src, client, sizeof(client)) : "unknown";
	if (here.head.authority.len == 0)
		q.host = host_text(w, host);
	return webhead_request(here.out, OUT_MAX, &q);
}

static void begin_http(struct web *w)
{
	struct webroute way;
	size_t n;

	if (!decide(w, &way))
		return;
	n = make_head(w, &way);
	if (n == 0)
		refuse(w, &(struct refusal){ .status = 431, .why = REASON_BAD_REQUEST });
	else if (!keep_way(w->r, &way, n))
		fail(w, REASON_RESOURCES, NULL);
	else
		seek(w);
}

/* A proxy's client says where it wants to go, and all that follows is opaque. */
static void begin_connect(struct web *w)
{
	struct request *r = w->r;
	struct webroute way;

	r->connect = true;
	if (strcmp(r->method, "CONNECT") != 0)
		refuse(w, &(struct refusal){ .status = 405, .why = REASON_BAD_REQUEST, .text = "Only CONNECT is served here.", .field = "Allow: CONNECT" });
	else if (!decide(w, &way))
		return;
	else if (!keep_way(r, &way, 0))
		fail(w, REASON_RESOURCES, NULL);
	else
		seek(w);
}

static void refuse_rate(struct web *w)
{
	w->stopping = true;
	refuse(w, &(struct refusal){ .status = 429, .why = REASON_RATE, .text = w->over });
}

static void begin(struct web *w, const char *rest, size_t n)
{
	renew(w);
	w->r = request_new(w);
	w->requests++;
	if (!w->r || !keep_in(w, rest, n))
		over(w, REASON_RESOURCES, false);
	else if (w->over)
		refuse_rate(w);
	else if (w->place->l->mode == MODE_CONNECT)
		begin_connect(w);
	else
		begin_http(w);
}

/* Reading has come to its end, or there is no more for now; n bytes of a head are in here.in. */
static void await_more(struct web *w, size_t n, ssize_t last)
{
	if (last == CONN_FAILED && n == 0) {
		over(w, w->requests ? REASON_DONE : REASON_CLIENT_RESET, false);
	} else if (last == CONN_FAILED) {
		record(w, REASON_CLIENT_RESET, 0, NULL);
		over(w, REASON_CLIENT_RESET, false);
	} else if (last == 0 && n == 0) {
		over(w, REASON_DONE, true);
	} else if (last == 0) {
		refuse(w, &(struct refusal){ .status = 400, .why = REASON_BAD_REQUEST, .text = "The request ends in the middle of its head." });
	} else if (!keep_in(w, here.in, n)) {
		over(w, REASON_RESOURCES, false);
	}
}

/* The time for a head counts from its first byte, that of the first one from the beginning. */
static ssize_t read_head(struct web *w, size_t n)
{
	struct iovec iov = { here.in + n, READ_MAX };
	ssize_t got = w->c->readable ? conn_readv(w->c, &iov, 1) : CONN_AGAIN;

	if (got > 0 && n == 0 && w->requests > 0)
		w->since_ms = clock_ms();
	return got;
}

static bool read_request(struct web *w)
{
	size_t n = take_in(w);
	uint32_t max = w->place->l->max_head;
	ssize_t used = n > 0 ? http1_request(&here.head, here.in, n, max, &here.err) : 0;

	while (used == 0) {
		ssize_t got = read_head(w, n);

		if (got <= 0) {
			await_more(w, n, got);
			return w->state != IDLE;
		}
		n += (size_t)got;
		used = http1_request(&here.head, here.in, n, max, &here.err);
	}
	if (used < 0)
		fail_malformed(w);
	else
		begin(w, here.in + used, n - (size_t)used);
	return true;
}

/* From the client to the target. */

static void moved(struct web *w, uint64_t *sum, uint64_t *own, size_t n)
{
	*sum += n;
	*own += n;
	w->since_ms = clock_ms();
}

static void moved_up(struct web *w, size_t n)
{
	if (n == 0)
		return;
	moved(w, &w->up, &w->r->up, n);
	stat_add(STAT_BYTES_UP, (int64_t)n);
	series_add(origin_up(w->origin), n);
}

static void moved_down(struct web *w, size_t n)
{
	if (n == 0)
		return;
	moved(w, &w->down, &w->r->down, n);
	stat_add(STAT_BYTES_DOWN, (int64_t)n);
	series_add(origin_down(w->origin), n);
}

/* How many of the next n bytes belong to the body; -1: here.err. */
static ssize_t admit(struct http1_body *b, const char *from, size_t n)
{
	size_t sum = 0;

	while (sum < n && !b->done) {
		struct http1_text data;
		ssize_t taken = http1_body_take(b, from + sum, n - sum, &data, &here.err);

		if (taken < 0)
			return -1;
		sum += (size_t)taken;
	}
	return (ssize_t)sum;
}

static size_t total(const struct iovec *iov, int n)
{
	size_t sum = 0;

	for (int i = 0; i < n; i++)
		sum += iov[i].iov_len;
	return sum;
}

/* No more than max bytes; returns the pieces. */
static int trim(struct iovec *iov, int n, uint64_t max)
{
	for (int i = 0; i < n; i++) {
		if (iov[i].iov_len >= max) {
			iov[i].iov_len = (size_t)max;
			return max > 0 ? i + 1 : i;
		}
		max -= iov[i].iov_len;
	}
	return n;
}

static void fill(const struct iovec *iov, const char *from, size_t n)
{
	for (; n > 0; iov++) {
		size_t part = iov->iov_len < n ? iov->iov_len : n;

		memcpy(iov->iov_base, from, part);
		from += part;
		n -= part;
	}
}

/* Room in the session; 0 pieces: none now. */
static int reserve(struct web *w, struct iovec *iov)
{
	int pieces = session_reserve(origin_session(w->origin), iov, PIECES);

	w->stalled = pieces == 0;
	return pieces;
}

static void commit(struct web *w, size_t n)
{
	session_commit(origin_session(w->origin), n);
	moved_up(w, n);
}

static void give_head(struct web *w)
{
	struct request *r = w->r;
	struct iovec iov[PIECES];
	int pieces;

	while (r->head_at < r->head_len && (pieces = reserve(w, iov)) > 0) {
		size_t room = total(iov, pieces), left = r->head_len - r->head_at, n = left < room ? left : room;

		fill(iov, r->head + r->head_at, n);
		commit(w, n);
		r->head_at += (uint32_t)n;
	}
}

/* What came along with the head, or was read too far. false: the request is over. */
static bool give_in(struct web *w)
{
	struct request *r = w->r;
	struct iovec iov[PIECES];
	int pieces;

	while (w->in && !r->body.done && (pieces = reserve(w, iov)) > 0) {
		size_t room = total(iov, pieces), left = in_left(w);
		ssize_t n = admit(&r->body, w->in + w->in_at, left < room ? left : room);

		if (n > 0)
			fill(iov, w->in + w->in_at, (size_t)n);
		commit(w, n > 0 ? (size_t)n : 0);
		if (n < 0) {
			fail_malformed(w);
			return false;
		}
		w->in_at += (uint32_t)n;
		if (in_left(w) == 0)
			drop_in(w);
	}
	return true;
}

/* How many of the n bytes in these pieces belong to the body; -1: here.err. */
static ssize_t admit_pieces(struct http1_body *b, const struct iovec *iov, size_t n)
{
	size_t sum = 0;

	for (; sum < n && !b->done; iov++) {
		ssize_t taken = admit(b, iov->iov_base, iov->iov_len < n - sum ? iov->iov_len : n - sum);

		if (taken < 0)
			return -1;
		sum += (size_t)taken;
	}
	return (ssize_t)sum;
}

/* What follows the body is the next request's. */
static bool keep_rest(struct web *w, const struct iovec *iov, size_t skip, size_t n)
{
	size_t sum = 0;

	for (; n > 0; iov++) {
		size_t part = iov->iov_len < n ? iov->iov_len : n, from = skip < part ? skip : part;

		memcpy(here.in + sum, (char *)iov->iov_base + from, part - from);
		sum += part - from;
		skip -= from;
		n -= part;
	}
	return keep_in(w, here.in, sum);
}

/* Most that may be read at once. */
static uint64_t wanted(const struct http1_body *b)
{
	switch (b->framing) {
	case HTTP1_LENGTH: return b->left;
	case HTTP1_CHUNKED: return READ_MAX;
	default: return UINT64_MAX;
	}
}

/* Reads into the session's memory. Bytes, 0, CONN_AGAIN or CONN_FAILED; *bad: what came is malformed, or could not be kept. */
static ssize_t read_body(struct web *w, bool *bad)
{
	struct request *r = w->r;
	struct iovec iov[PIECES];
	int pieces = reserve(w, iov);
	ssize_t got, taken;

	if (pieces == 0)
		return CONN_AGAIN;
	got = conn_readv(w->c, iov, trim(iov, pieces, wanted(&r->body)));
	taken = got > 0 ? admit_pieces(&r->body, iov, (size_t)got) : 0;
	*bad = taken < 0;
	if (got > taken && !*bad && !keep_rest(w, iov, (size_t)taken, (size_t)got)) {
		here.err = (struct http1_error){ .status = 503, .text = "out of memory" };
		*bad = true;
	}
	commit(w, taken > 0 ? (size_t)taken : 0);
	return got;
}

/* The client has ended its direction, in the middle of a body or where all is opaque. false: the request is over. */
static bool end_in(struct web *w)
{
	if (!opaque(w->r)) {
		break_off(w, REASON_CLIENT_RESET, "The client ended in the middle of a body.");
		return false;
	}
	session_fin(origin_session(w->origin));
	origin_ended(w->origin);
	w->r->in_ended = w->r->body.done = true;
	w->since_ms = clock_ms();
	watch_time(w);
	return true;
}

/* false: the request is over. */
static bool move_up(struct web *w)
{
	struct request *r = w->r;
	size_t sum = 0;

	give_head(w);
	if (r->head_at < r->head_len)
		return true;
	if (!give_in(w))
		return false;
	while (!r->body.done && !w->in && w->c->readable && sum < TURN_MAX) {
		bool bad = false;
		ssize_t got = read_body(w, &bad);

		if (bad) {
			fail_malformed(w);
			return false;
		}
		if (got == CONN_FAILED) {
			break_off(w, REASON_CLIENT_RESET, NULL);
			return false;
		}
		if (got == 0)
			return end_in(w);
		if (got == CONN_AGAIN)
			break;
		sum += (size_t)got;
	}
	if (sum >= TURN_MAX)
		loop_defer(&w->again);
	return true;
}

/* From the target to the client. All return what pass() does: > 0: something was done; 0: nothing more now; -1: the request is over. */

static int fail_answer(struct web *w, const char *text)
{
	fail(w, REASON_BAD_ANSWER, text);
	return -1;
}

/* How many of these bytes may be passed on; -1: here.err. A chunked answer is looked at once, also when the client does not take it at once. */
static ssize_t allowed(struct request *r, const struct iovec *iov, int n)
{
	size_t sum = total(iov, n), skip = r->checked;
	ssize_t taken;

	if (r->answer.framing == HTTP1_LENGTH)
		return (ssize_t)(sum < r->answer.left ? sum : r->answer.left);
	if (r->answer.framing == HTTP1_NONE)
		return 0;
	if (r->answer.framing != HTTP1_CHUNKED)
		return (ssize_t)sum;
	for (; n > 0 && !r->answer.done; iov++, n--) {
		size_t from = skip < iov->iov_len ? skip : iov->iov_len;

		skip -= from;
		taken = admit(&r->answer, (char *)iov->iov_base + from, iov->iov_len - from);
		if (taken < 0)
			return -1;
		r->checked += (size_t)taken;
	}
	return (ssize_t)(r->checked < sum ? r->checked : sum);
}

static void passed(struct web *w, size_t head, size_t body)
{
	struct request *r = w->r;

	if (body > 0)
		session_consume(origin_session(w->origin), body);
	if (r->answer.framing == HTTP1_LENGTH) {
		r->answer.left -= body;
		r->answer.done = r->answer.left == 0;
	} else if (r->answer.framing == HTTP1_CHUNKED) {
		r->checked -= body;
	}
	moved_down(w, head + body);
}

/* Writes a head (of head_len bytes, or none) and as much of the body as there is. */
static int pass(struct web *w, char *head, size_t head_len)
{
	struct request *r = w->r;
	struct iovec iov[PIECES + 1] = { { head, head_len } };
	int first = head_len > 0 ? 1 : 0, n = session_peek(origin_session(w->origin), iov + first, PIECES);
	ssize_t body = allowed(r, iov + first, n), put;

	if (body < 0)
		return fail_answer(w, here.err.text);
	if (head_len + (size_t)body == 0)
		return 0;
	n = trim(iov + first, n, (uint64_t)body);
	put = conn_writev(w->c, iov, first + n);
	if (put == CONN_FAILED) {
		break_off(w, REASON_CLIENT_RESET, NULL);
		return -1;
	}
	if (put == CONN_AGAIN)
		put = 0;
	r->begun = true;
	if ((size_t)put < head_len && !keep_out(w, head + put, head_len - (size_t)put)) {
		break_off(w, REASON_RESOURCES, NULL);
		return -1;
	}
	passed(w, head_len, (size_t)put < head_len ? 0 : (size_t)put - head_len);
	return put > 0;
}

/* The content of chunks alone. */
static int pass_unchunked(struct web *w)
{
	struct request *r = w->r;
	struct session *s = origin_session(w->origin);
	struct iovec iov;
	size_t at = 0, n = 0;

	if (session_peek(s, &iov, 1) == 0 || r->answer.done)
		return 0;
	if (iov.iov_len > READ_MAX)
		iov.iov_len = READ_MAX;
	while (at < iov.iov_len && !r->answer.done) {
		struct http1_text data;
		ssize_t taken = http1_body_take(&r->answer, (char *)iov.iov_base + at, iov.iov_len - at, &data, &here.err);

		if (taken < 0)
			return fail_answer(w, here.err.text);
		memcpy(here.out + n, data.at, data.len);
		n += data.len;
		at += (size_t)taken;
	}
	session_consume(s, at);
	moved_down(w, n);
	if (n == 0 || keep_out(w, here.out, n))
		return 1;
	break_off(w, REASON_RESOURCES, NULL);
	return -1;
}

/* Interim answers (1xx) are passed on to who understands them. */
static int pass_interim(struct web *w, size_t fresh)
{
	struct webhead_answer a = { .head = &here.head };
	size_t n = webhead_answer(here.out, OUT_MAX, &a);

	session_consume(origin_session(w->origin), fresh);
	if (w->r->old)
		return 1;
	if (n == 0)
		return fail_answer(w, "an interim answer that is too long");
	if (!keep_out(w, here.out, n)) {
		break_off(w, REASON_RESOURCES, NULL);
		return -1;
	}
	moved_down(w, n);
	return 1;
}

/* The client's connection ends with this answer: it wants it so, or nobody could say where the answer ends or the next request begins. */
static bool last_answer(const struct web *w)
{
	const struct request *r = w->r;

	return !r->keep || w->stopping || !r->body.done || r->answer.framing == HTTP1_CLOSE || r->answer.framing == HTTP1_TUNNEL || r->unchunk;
}

/* What the answer means to request and connection. */
static void note_answer(struct web *w)
{
	struct request *r = w->r;
	const struct http1_head *h = &here.head;

	r->final = true;
	r->status = h->status;
	http1_body_begin(&r->answer, h);
	r->target_keeps = h->keep_alive;
	r->personal |= webhead_binds(h);
	r->unchunk = r->old && h->framing == HTTP1_CHUNKED;
	w->closing = last_answer(w);
	w->lingering = r->keep || !r->body.done;
	if (h->framing == HTTP1_TUNNEL)
		r->body = (struct http1_body){ .framing = HTTP1_TUNNEL };
}

static bool upgrade_wanted(const struct request *r)
{
	return r->body.done && (r->upgrade || strcmp(r->method, "CONNECT") == 0);
}

static int pass_final(struct web *w, size_t fresh)
{
	struct request *r = w->r;
	struct webhead_answer a = { .head = &here.head };
	size_t n;

	if (here.head.framing == HTTP1_TUNNEL && !upgrade_wanted(r))
		return fail_answer(w, "an upgrade that nobody has asked for");
	note_answer(w);
	if (!opaque(r)) {
		a.close = w->closing;
		a.keep = r->old && !w->closing;
		a.unchunk = r->unchunk;
	}
	n = webhead_answer(here.out, OUT_MAX, &a);
	if (n == 0)
		return fail_answer(w, "a head that is too long");
	session_consume(origin_session(w->origin), fresh);
	if (!r->unchunk)
		return pass(w, here.out, n);
	r->begun = true;
	moved_down(w, n);
	if (keep_out(w, here.out, n))
		return 1;
	break_off(w, REASON_RESOURCES, NULL);
	return -1;
}

/* Part and pieces in one piece, in here.in. */
static size_t gather(struct web *w, const struct iovec *iov, int n)
{
	struct request *r = w->r;
	size_t len = r->part_len;

	if (len > 0)
		memcpy(here.in, r->part, len);
	for (int i = 0; i < n && len < IN_MAX; i++) {
		size_t part = iov[i].iov_len < IN_MAX - len ? iov[i].iov_len : IN_MAX - len;

		memcpy(here.in + len, iov[i].iov_base, part);
		len += part;
	}
	return len;
}

/* The session does not keep more than its window: what there is of a head is taken out of it. */
static int keep_part(struct web *w, size_t len)
{
	struct request *r = w->r;
	char *part = realloc(r->part, len);

	if (!part) {
		fail(w, REASON_RESOURCES, NULL);
		return -1;
	}
	memcpy(part, here.in, len);
	session_consume(origin_session(w->origin), len - r->part_len);
	r->part = part;
	r->part_len = len;
	return 0;
}

/* Length of the head in front of what the session has (used), how much of it is still in the session (*fresh). As http1_answer. */
static ssize_t look_for_head(struct web *w, const struct iovec *iov, int n, size_t *fresh, size_t *len)
{
	struct request *r = w->r;
	ssize_t used = 0;

	if (r->part_len == 0)
		used = http1_answer(&here.head, iov[0].iov_base, iov[0].iov_len, HEAD_MAX, r->method, &here.err);
	if (used == 0) {
		*len = gather(w, iov, n);
		used = http1_answer(&here.head, here.in, *len, HEAD_MAX, r->method, &here.err);
	}
	*fresh = used > 0 ? (size_t)used - r->part_len : 0;
	return used;
}

static int pass_head(struct web *w)
{
	struct request *r = w->r;
	struct iovec iov[PIECES];
	int n = session_peek(origin_session(w->origin), iov, PIECES);
	size_t fresh, len = 0;
	ssize_t used;

	if (n == 0)
		return 0;
	r->heard = true;
	used = look_for_head(w, iov, n, &fresh, &len);
	if (used < 0)
		return fail_answer(w, here.err.text);
	if (used == 0)
		return keep_part(w, len);
	n = here.head.status < 200 && here.head.status != 101 ? pass_interim(w, fresh) : pass_final(w, fresh);
	if (n >= 0) {
		free(r->part);
		r->part = NULL;
		r->part_len = 0;
	}
	return n;
}

static bool answered(const struct request *r)
{
	return r->final && r->answer.done && r->checked == 0;
}

/* The target has ended. false: the request is over. */
static bool end_out(struct web *w)
{
	struct request *r = w->r;

	if (r->final && r->answer.framing == HTTP1_CLOSE) {
		r->answer.done = true;
		return true;
	}
	if (!r->final || r->answer.framing != HTTP1_TUNNEL) {
		fail(w, REASON_TARGET_RESET, "The target ended before its answer.");
		return false;
	}
	if (conn_shut(w->c) == CONN_FAILED) {
		break_off(w, REASON_CLIENT_RESET, NULL);
		return false;
	}
	r->out_ended = r->answer.done = true;
	w->since_ms = clock_ms();
	watch_time(w);
	return true;
}

/* false: the request is over. */
static bool move_down(struct web *w)
{
	struct request *r = w->r;
	int more = 1;

	while (flush(w)) {
		if (w->out || !w->c->writable || answered(r) || more == 0)
			return w->out || answered(r) || !session_ended(origin_session(w->origin)) || end_out(w);
		more = !r->final ? pass_head(w) : r->unchunk ? pass_unchunked(w) : pass(w, NULL, 0);
		if (more < 0)
			return false;
	}
	break_off(w, REASON_CLIENT_RESET, NULL);
	return false;
}

/* Both. */

static void let_go(struct web *w)
{
	struct request *r = w->r;
	struct origin *o = w->origin;
	struct iovec iov;
	bool whole = r->body.done && r->head_at == r->head_len;
	bool quiet = session_peek(origin_session(o), &iov, 1) == 0;

	w->origin = NULL;
	if (whole && quiet && r->target_keeps)
		origin_keep(o, &w->kept, r->personal);
	else if (whole)
		origin_close(o);
	else
		origin_drop(o, REASON_CLIENT_RESET);
}

/* The answer is complete, though the client may not have read it. */
static void complete(struct web *w)
{
	record(w, REASON_DONE, w->r->status, NULL);
	let_go(w);
	request_free(w);
	w->closing |= w->stopping;
	set_state(w, FLUSH);
}

static bool complete_opaque(struct web *w)
{
	struct request *r = w->r;

	if (!r->in_ended || !r->out_ended)
		return false;
	w->lingering = false;
	complete(w);
	return true;
}

/* true: there is a next step. */
static bool exchange(struct web *w)
{
	struct request *r = w->r;
	bool was_opaque = opaque(r);

	if ((w->stalled || r->body.done) && gone(w)) {
		break_off(w, REASON_CLIENT_RESET, NULL);
		return true;
	}
	if (!move_up(w) || !move_down(w))
		return true;
	if (opaque(r))
		return !was_opaque || complete_opaque(w);
	if (!answered(r))
		return false;
	complete(w);
	return true;
}

/* The last bytes are written; then the next request, or the end. true: there is a next step. */
static bool finish(struct web *w)
{
	if (!flush(w)) {
		over(w, REASON_CLIENT_RESET, false);
		return false;
	}
	if (w->out)
		return false;
	if (!w->closing) {
		set_state(w, IDLE);
		return true;
	}
	if (conn_unsent(w->c) > 0)
		return false;
	if (!w->lingering)
		over(w, w->why, true);
	else if (conn_shut(w->c) == CONN_FAILED)
		over(w, REASON_CLIENT_RESET, false);
	else
		set_state(w, LINGER);
	return true;
}

static void drain(struct web *w)
{
	struct iovec iov = { here.in, READ_MAX };
	size_t sum = 0;

	while (w->c->readable && sum < TURN_MAX) {
		ssize_t n = conn_readv(w->c, &iov, 1);

		if (n == CONN_AGAIN)
			return;
		if (n <= 0) {
			over(w, w->why, n == 0);
			return;
		}
		sum += (size_t)n;
	}
	if (w->c->readable)
		loop_defer(&w->again);
}

/* Steps. */

static bool step(struct web *w)
{
	switch ((enum state)w->state) {
	case IDLE: return read_request(w);
	case EXCHANGE: return exchange(w);
	case FLUSH: return finish(w);
	case LINGER: drain(w); return false;
	case AWAY:
		if (gone(w))
			break_off(w, REASON_CLIENT_RESET, NULL);
		return false;
	case OVER: break;
	}
	return false;
}

/* The web may be gone, or on another thread, when this returns. */
static void run(struct web *w)
{
	struct origin *o;

	if (w->homeless)
		break_off(w, REASON_RESOURCES, NULL);
	for (int i = 0; step(w); i++) {
		if (i < STEPS_MAX)
			continue;
		loop_defer(&w->again);
		break;
	}
	if (w->state == OVER) {
		web_free(w);
		return;
	}
	o = w->setting_out;
	w->setting_out = NULL;
	if (o)
		origin_start(o);
}

static void run_again(struct deferred *d)
{
	run(container_of(d, struct web, again));
}

static void on_conn(struct conn *c)
{
	run(c->owner);
}

static void time_out(struct web *w)
{
	const struct request *r = w->r;

	switch ((enum state)w->state) {
	case IDLE:
		if (w->in) {
			refuse(w, &(struct refusal){ .status = 408, .why = REASON_CLIENT_TIMEOUT });
		} else {
			if (w->requests == 0)
				record(w, REASON_CLIENT_TIMEOUT, 0, NULL);
			over(w, w->requests ? REASON_DONE : REASON_CLIENT_TIMEOUT, true);
		}
		break;
	case EXCHANGE:
		if (opaque(r))
			break_off(w, r->in_ended || r->out_ended ? REASON_HALF_CLOSED : REASON_IDLE, NULL);
		else
			fail(w, r->begun ? REASON_IDLE : r->body.done ? REASON_ANSWER_TIMEOUT : REASON_CLIENT_TIMEOUT, NULL);
		break;
	case LINGER: over(w, w->why, true); break;
	case FLUSH: over(w, REASON_CLIENT_TIMEOUT, false); break;
	case AWAY:
	case OVER: break;
	}
}

static void on_timer(struct timer *t)
{
	struct web *w = container_of(t, struct web, timer);
	uint32_t limit = limit_of(w);

	if (limit == 0)
		return;
	if (clock_ms() < w->since_ms + limit) {
		watch_time(w);
		return;
	}
	time_out(w);
	run(w);
}

/* Its origin. */

/* CONNECT, and the target is reached. */
static void begin_opaque(struct web *w)
{
	static const char ok[] = "HTTP/1.1 200 Connection established\r\n\r\n";
	struct request *r = w->r;

	r->status = 200;
	r->final = r->begun = true;
	r->body = r->answer = (struct http1_body){ .framing = HTTP1_TUNNEL };
	w->closing = true;
	if (keep_out(w, ok, sizeof(ok) - 1))
		set_state(w, EXCHANGE);
	else
		break_off(w, REASON_RESOURCES, NULL);
}

static void on_ready(void *user)
{
	struct web *w = user;

	if (!w->r->connect)
		set_state(w, EXCHANGE);
	run(w);
}

static void on_open(void *user)
{
	struct web *w = user;

	if (w->state != AWAY)
		return;
	begin_opaque(w);
	run(w);
}

static void on_readable(void *user)
{
	run(user);
}

static void on_writable(void *user)
{
	struct web *w = user;

	w->stalled = false;
	run(w);
}

/* One that was idle before may have been ended by its target just when the request came: a safe one is asked again. */
static bool repeatable(const struct request *r)
{
	return r->reused && r->safe && !r->heard && !r->retried;
}

static void on_lost(void *user, enum reason why)
{
	struct web *w = user;

	w->losing = true;
	if (repeatable(w->r)) {
		w->origin = NULL;
		w->r->retried = true;
		w->r->head_at = 0;
		seek(w);
	} else {
		fail(w, why, NULL);
	}
	w->losing = false;
	run(w);
}

static void on_leave(void *user)
{
	struct web *w = user;

	timer_stop(&w->timer);
	loop_undefer(&w->again);
	conn_detach(w->c);
	list_del(&w->node);
	origin_forget(&w->kept);
	if (w->ev->on_leave)
		w->ev->on_leave(w->owner);
}

static void on_arrive(void *user)
{
	struct web *w = user;

	list_add(&here.webs, &w->node);
	w->homeless = conn_attach(w->c) < 0;
	w->stopping |= here.stopping;
	watch_time(w);
	loop_defer(&w->again);
	if (w->ev->on_arrive)
		w->ev->on_arrive(w->owner);
}

static const struct origin_events origin_events = {
	.on_ready = on_ready,
	.on_open = on_open,
	.on_readable = on_readable,
	.on_writable = on_writable,
	.on_lost = on_lost,
	.on_leave = on_leave,
	.on_arrive = on_arrive,
};

/* Begin and end. */

static bool copy_text(char **to, const char *text)
{
	if (text)
		*to = strdup(text);
	return !text || *to;
}

struct web *web_new(struct conn *c, const struct web_options *o, const struct web_events *ev, void *owner)
{
	struct web *w = mem_get(MEM_OTHER, sizeof(*w));

	if (!w)
		return NULL;
	if (!copy_text(&w->sni, o->sni) || !copy_text(&w->cert, o->cert)) {
		free(w->sni);
		mem_put(MEM_OTHER, w);
		return NULL;
	}
	w->ev = ev;
	w->owner = owner;
	w->gen = generation_get(o->gen);
	w->place = o->place;
	w->sessions = o->sessions;
	w->over = o->over;
	w->src = o->src;
	w->dst = o->dst;
	w->tls = o->tls;
	w->why = REASON_DONE;
	w->stopping = here.stopping;
	w->c = c;
	c->on_event = on_conn;
	c->owner = w;
	timer_init(&w->timer, on_timer);
	deferred_init(&w->again, run_again);
	list_add(&here.webs, &w->node);
	set_state(w, IDLE);
	if (o->accepted_ms)
		w->since_ms = o->accepted_ms;
	watch_time(w);
	loop_defer(&w->again);
	return w;
}

void web_kill(struct web *w, enum reason why)
{
	break_off(w, why, NULL);
	web_free(w);
}

void web_stop(struct web *w)
{
	w->stopping = true;
	if (w->state != IDLE || w->in)
		return;
	over(w, REASON_DONE, true);
	web_free(w);
}

static const char *state_word(const struct web *w)
{
	switch ((enum state)w->state) {
	case IDLE: return w->in ? "request" : "idle";
	case AWAY: return origin_waiting(w->origin) ? "queue" : "connect";
	case EXCHANGE: return opaque(w->r) ? "upgraded" : origin_open(w->origin) ? "open" : "connect";
	case FLUSH:
	case LINGER:
	case OVER: break;
	}
	return "closing";
}

void web_view(const struct web *w, struct web_view *out)
{
	struct trip_view v = { .id = "" };

	if (w->origin)
		origin_view(w->origin, &v);
	*out = (struct web_view){ .route = v.route, .tunnel = v.tunnel, .agent = v.agent, .target = v.target, .id = v.id, .state = state_word(w), .link = v.link,
				  .up = w->up, .down = w->down, .requests = w->requests };
}

void web_init(void)
{
	list_init(&here.webs);
	here.stopping = false;
	here.in = xmalloc(IN_MAX);
	here.out = xmalloc(OUT_MAX);
	here.running = true;
	origin_init();
}

void web_reload(struct generation *g)
{
	generation_put(here.gen);
	here.gen = generation_get(g);
	origin_renew(g);
}

void web_close_idle(void)
{
	here.stopping = true;
	list_for_each_safe(n, &here.webs)
		web_stop(container_of(n, struct web, node));
	origin_close_idle();
}

void web_fini(void)
{
	if (!here.running)
		return;
	origin_fini();
	generation_put(here.gen);
	free(here.in);
	free(here.out);
	here.gen = NULL;
	here.in = here.out = NULL;
	here.running = false;
}

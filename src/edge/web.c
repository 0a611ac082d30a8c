/* Clients of modes http and connect: their requests, one after the other, and the answers.
 * Owns the client's conn, the request at hand, and the origin that serves it; between two requests the client holds no buffer. Only when an answer is complete is the next
 * request read, and it is routed anew.
 * Once a byte of an answer is out, whatever goes wrong is a RST: a client never takes a part for the whole. Before, it is an answer of our own.
 * Any step may end the web or send it to another thread: that happens last, in run(), when nothing of it is looked at any more.
 * Does not know rules (webroute), links and agents (trip, behind origin), how bytes are moved (exchange), nor
 * what heads look like (webhead, proto/http1). See doc/internals/http.md. */
#include "mctunnel/edge/web.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/list.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/series.h"
#include "mctunnel/base/str.h"
#include "mctunnel/base/timer.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/edge/brake.h"
#include "mctunnel/edge/exchange.h"
#include "mctunnel/edge/generation.h"
#include "mctunnel/edge/origin.h"
#include "mctunnel/edge/quota.h"
#include "mctunnel/edge/record.h"
#include "mctunnel/edge/trip.h"
#include "mctunnel/edge/webauth.h"
#include "mctunnel/edge/weberror.h"
#include "mctunnel/edge/webhead.h"
#include "mctunnel/edge/webroute.h"
#include "mctunnel/event/loop.h"
#include "mctunnel/net/conn.h"
#include "mctunnel/net/sock.h"
#include "mctunnel/proto/h2_server.h"
#include "mctunnel/proto/http1.h"
#include "mctunnel/tunnel/rules.h"

#include <stdlib.h>
#include <string.h>

#define TURN_MAX (256u << 10) /* bytes thrown away in one go */
#define STEPS_MAX 64           /* in one go: requests that are answered at once */
#define LINGER_MS 2000
#define INLINE_MAX 1024

enum state {
	IDLE,     /* no request, or a part of its head */
	DELAYED,  /* one that is there, but too soon for a limit */
	AWAY,     /* the request waits for its origin */
	EXCHANGE, /* request and answer move */
	FLUSH,    /* the hub's own answer, or the last bytes of another, are being written */
	LINGER,   /* our direction is shut; what still comes is thrown away, so that the client reads what it was told */
	OVER
};

struct request {
	struct exchange x;
	uint64_t began_ms;
	uint64_t rate_up, rate_down;       /* what the policy allows, bytes a second; 0: no limit */
	const struct rules_route *routes; /* in space; NULL: the listener's */
	size_t routes_n;
	char *space;                    /* routes, and the head for the target: own, or owned */
	bool connect;                   /* a proxy's: the hub answers it */
	bool safe;                      /* it may be asked twice */
	bool reused, retried;           /* over an origin that others had used; and again over a new one */
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
	struct spill in, out;        /* read and not used yet; made and not written yet */
	struct request *r;           /* owned; NULL: none */
	struct origin *origin;       /* owned; NULL: none */
	struct origin *kept;         /* in the pool: the last one; set to NULL from there */
	struct origin *setting_out;  /* is origin: to be started when nothing else is to be done */
	const atomic_uint *sessions; /* borrowed */
	const char *over;            /* borrowed: the limit the client is over; NULL: none */
	struct visitor *visitor;     /* borrowed; NULL: not limited */
	struct brake *brake;         /* owned; NULL: no limit of bandwidth, or not yet known */
	const struct site *braked;   /* only compared: the tunnel the brake is made for */
	uint64_t asked_ms;           /* when the request that is DELAYED was there */
	uint32_t delay_ms;
	uint64_t since_ms;           /* from when on the state's time limit counts */
	uint64_t up, down, requests;
	struct addr src, dst;
	char *sni, *alpn, *cert;     /* owned; NULL: none */
	char *lead;                  /* owned: the head that a leading request became; NULL: none */
	enum reason why;             /* of the end */
	uint8_t state;
	bool tls, stopping;
	bool leads;                  /* web_options.leads */
	bool given;                  /* the conn was given away: no on_done */
	bool closing;                /* after FLUSH: the end */
	bool lingering;              /* and the client may still be sending */
	bool losing;                 /* within origin_events.on_lost */
	bool homeless;               /* the loop of the new thread refused the conn */
};

static _Thread_local struct {
	struct list webs;
	struct generation *gen; /* shared: newer than those of clients may be; NULL: not known */
	bool running, stopping;
} here;

static const struct origin_events origin_events;

/* Time. */

static bool half_ended(const struct request *r)
{
	return exchange_opaque(&r->x) && (r->x.in_ended || r->x.out_ended);
}

/* The target has all of the request, and has not begun to answer. */
static bool wants_answer(const struct request *r)
{
	return !exchange_opaque(&r->x) && r->x.body.done && !r->x.begun;
}

static uint32_t limit_of_exchange(const struct request *r, const struct conf_timeouts *t)
{
	if (half_ended(r) && t->half_closed)
		return t->half_closed;
	return wants_answer(r) && t->answer && t->answer < t->idle ? t->answer : t->idle;
}

/* 0: none. */
static uint32_t limit_of(const struct web *w)
{
	const struct conf_timeouts *t = &w->place->l->timeouts;

	switch ((enum state)w->state) {
	case IDLE:
	case FLUSH: return t->http_request;
	case EXCHANGE: return limit_of_exchange(w->r, t);
	case LINGER: return LINGER_MS;
	case DELAYED: return w->delay_ms;
	case AWAY: /* its trip looks at the clock */
	case OVER: break;
	}
	return 0;
}

/* When time is up. */
static uint64_t due_ms(const struct web *w)
{
	uint64_t since = w->state == EXCHANGE && w->r->x.moved_ms > w->since_ms ? w->r->x.moved_ms : w->since_ms;

	return since + limit_of(w);
}

/* A timer that runs already and fires too early is left alone: it looks again then. */
static void watch_time(struct web *w)
{
	uint32_t limit = limit_of(w);
	uint64_t due = due_ms(w), now = clock_ms();

	if (limit && (!timer_running(&w->timer) || w->timer.at_ms > due))
		timer_start(&w->timer, due > now ? due - now : 0);
}

static void set_state(struct web *w, enum state s)
{
	w->state = (uint8_t)s;
	w->since_ms = clock_ms();
	watch_time(w);
}

/* What was read and not used goes to where whatever follows is read. */
static size_t take_in(struct web *w)
{
	size_t n = spill_left(&w->in);

	BUG_ON(n > EXCHANGE_IN);
	if (n > 0)
		memcpy(exchange_space()->in, w->in.buf + w->in.at, n);
	spill_drop(&w->in);
	return n;
}

/* The request's end. */

static void request_free(struct web *w)
{
	struct request *r = w->r;

	if (!r)
		return;
	w->up += r->x.up;
	w->down += r->x.down;
	exchange_fini(&r->x);
	if (r->space != r->own)
		free(r->space);
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
	if (r->x.final)
		return half_ended(r) ? 'L' : 'D';
	if (w->state == AWAY || v->phase != 'D')
		return v->phase;
	return r->x.body.done ? 'H' : 'R';
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
		record_trip(&rec, &v);
		if (r && r->reused)
			rec.queue_ms = rec.connect_ms = 0;
	}
	rec.client = addr_text(&w->src, client, sizeof(client));
	rec.total_ms = (int64_t)(clock_ms() - (r ? r->began_ms : w->since_ms));
	rec.sessions = w->sessions ? atomic_load_explicit(w->sessions, memory_order_relaxed) : 0;
	rec.listener_sessions = atomic_load_explicit(&w->place->score->sessions, memory_order_relaxed);
	rec.phase = phase_of(w, &v, why);
	if (r) {
		rec.up = r->x.up;
		rec.down = r->x.down;
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

static void part(struct web *w, enum reason why)
{
	w->why = why;
	w->state = OVER;
	drop_origin(w, why == REASON_DONE ? REASON_CLIENT_RESET : why);
	origin_forget(&w->kept);
	request_free(w);
	spill_drop(&w->in);
	spill_drop(&w->out);
	timer_stop(&w->timer);
	loop_undefer(&w->again);
	brake_free(w->brake);
	w->brake = NULL;
	list_del(&w->node);
}

static void over(struct web *w, enum reason why, bool orderly)
{
	if (w->state == OVER)
		return;
	part(w, why);
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
		record(w, why, w->r->x.status, text);
	over(w, why, false);
}

/* Before there is anything to break off: no answer either. */
static void cut_off(struct web *w, enum reason why)
{
	record(w, why, 0, NULL);
	over(w, why, false);
}

static void free_texts(struct web *w)
{
	free(w->sni);
	free(w->alpn);
	free(w->cert);
}

static void web_free(struct web *w)
{
	if (!w->given)
		w->ev->on_done(w->owner, w->why);
	generation_put(w->gen);
	free(w->lead);
	free_texts(w);
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
	const char *detail; /* for the log only; NULL: as text */
};

static bool may_go_on(const struct web *w, const struct refusal *f)
{
	const struct request *r = w->r;

	return r && r->x.keep && r->x.body.done && !w->stopping && f->status != 400;
}

/* Makes it behind what the client has not read yet of interim answers; bytes of both, 0: no room. */
static size_t put_answer(struct web *w, const struct weberror *e)
{
	char *out = exchange_space()->out;
	size_t before = spill_left(&w->out);

	if (before + WEBERROR_MAX > EXCHANGE_OUT)
		return 0;
	if (before > 0)
		memcpy(out, w->out.buf + w->out.at, before);
	spill_drop(&w->out);
	return before + weberror_make(out + before, EXCHANGE_OUT - before, e);
}

/* Also of a client that has no request yet. The request is over. */
static void refuse(struct web *w, const struct refusal *f)
{
	struct request *r = w->r;
	struct trip_view v = { .id = NULL };
	bool keep = may_go_on(w, f);
	struct weberror e = { .status = f->status, .text = f->text, .field = f->field, .location = f->location, .close = !keep };
	size_t before = spill_left(&w->out), n;

	if (w->origin)
		origin_view(w->origin, &v);
	e.session = v.id;
	e.request = r ? r->id : NULL;
	e.head = r && strcmp(r->method, "HEAD") == 0;
	e.keep = keep && r->x.old;
	n = put_answer(w, &e);
	if (n == 0) {
		break_off(w, f->why, f->detail ? f->detail : f->text);
		return;
	}
	w->closing = !keep;
	w->lingering = true;
	if (r)
		r->x.down += n - before;
	else
		w->down += n;
	record(w, f->why, f->status, f->detail ? f->detail : f->text);
	drop_origin(w, f->why);
	request_free(w);
	if (spill_keep(&w->out, exchange_space()->out, n))
		set_state(w, FLUSH);
	else
		over(w, REASON_RESOURCES, false);
}

/* It cannot be served, for a reason that is not the client's. */
static void fail(struct web *w, enum reason why, const char *text)
{
	if (w->r && w->r->x.begun)
		break_off(w, why, text);
	else
		refuse(w, &(struct refusal){ .status = weberror_status(why), .why = why, .detail = text });
}

static void fail_malformed(struct web *w)
{
	const struct http1_error *err = &exchange_space()->err;
	char text[128];
	struct strbuf b;

	strbuf_init(&b, text, sizeof(text));
	strbuf_add(&b, "%s, at byte %zu", err->text, err->offset);
	refuse(w, &(struct refusal){ .status = err->status, .why = REASON_BAD_REQUEST, .text = text });
}

/* The request begins. */

static void copy(char *out, size_t size, struct http1_text t)
{
	size_t n = t.len < size ? t.len : size - 1;

	if (n > 0)
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
	const struct http1_head *h = &exchange_space()->head;
	struct request *r = mem_get(MEM_REQUEST, sizeof(*r));

	if (!r)
		return NULL;
	r->space = r->own;
	r->began_ms = w->since_ms;
	copy(r->method, sizeof(r->method), h->method);
	copy(r->host, sizeof(r->host), h->authority);
	copy(r->path, sizeof(r->path), h->target);
	webhead_id(r->id, h, w->place->l->forwarded);
	r->x.c = w->c;
	r->x.in = &w->in;
	r->x.out = &w->out;
	r->x.method = r->method;
	r->x.old = h->minor == 0;
	r->x.keep = h->keep_alive;
	r->x.upgrade = h->upgrade;
	r->x.binds = webhead_binds(h);
	http1_body_begin(&r->x.body, h);
	r->x.body.max = w->place->l->max_body;
	r->safe = is_safe(r->method) && r->x.body.done;
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
	w->braked = NULL;
}

static void on_loose(void *owner)
{
	struct web *w = owner;

	loop_defer(&w->again);
}

static void add_limits(struct brake *b, const struct conf_limits *l, struct score *s)
{
	brake_add(b, BRAKE_IN, NULL, l->session_up);
	brake_add(b, BRAKE_OUT, NULL, l->session_down);
	brake_add(b, BRAKE_IN, &s->up, l->up);
	brake_add(b, BRAKE_OUT, &s->down, l->down);
}

static bool limited(const struct conf_limits *l)
{
	return l->session_up || l->session_down || l->up || l->down;
}

/* Limits of bandwidth, of the listener, of the tunnel, of the policy. The brake of the request before goes on where they are the same. false: no memory. */
static bool set_brake(struct web *w)
{
	const struct site *site = origin_site(w->origin);
	const struct request *r = w->r;
	bool by_policy = r->rate_up || r->rate_down;

	if (!by_policy && w->braked == site)
		return true;
	brake_free(w->brake);
	w->brake = NULL;
	w->braked = by_policy ? NULL : site;
	if (!by_policy && !limited(&w->place->l->limits) && !limited(&site->t->limits))
		return true;
	w->brake = brake_new(on_loose, w);
	if (!w->brake)
		return false;
	add_limits(w->brake, &w->place->l->limits, w->place->score);
	add_limits(w->brake, &site->t->limits, site->score);
	brake_add(w->brake, BRAKE_IN, NULL, r->rate_up);
	brake_add(w->brake, BRAKE_OUT, NULL, r->rate_down);
	return true;
}

/* false: no memory, and the request is over. */
static bool begin_exchange(struct web *w)
{
	struct exchange *x = &w->r->x;

	if (!set_brake(w)) {
		fail(w, REASON_RESOURCES, NULL);
		return false;
	}
	x->brake = w->brake;
	x->s = origin_session(w->origin);
	x->up_series = origin_up(w->origin);
	x->down_series = origin_down(w->origin);
	x->moved_ms = 0;
	set_state(w, EXCHANGE);
	return true;
}

/* Rules, a policy or the client's words have made routes that lead nowhere. */
static void fail_nowhere(struct web *w)
{
	const struct request *r = w->r;
	char text[160];
	struct strbuf b;

	strbuf_init(&b, text, sizeof(text));
	if (r->routes_n > 0)
		strbuf_add(&b, "no such route: %s/%s", r->routes[0].tunnel, r->routes[0].service);
	fail(w, REASON_NO_ROUTE, r->routes_n > 0 ? text : NULL);
}

/* Over an origin that waits, or a new one, for which it sets out when nothing else is to be done. */
static void seek(struct web *w)
{
	struct request *r = w->r;
	struct origin_want want = { .gen = w->gen, .place = w->place, .client = &w->src, .local = &w->dst, .sni = w->sni, .routes = r->routes, .routes_n = r->routes_n,
				    .since_ms = r->began_ms, .safe = r->safe && !r->retried && !r->connect && !r->x.upgrade, .kept = &w->kept };
	enum reason why;

	if (!r->connect && !r->retried && !r->x.upgrade)
		w->origin = origin_take(&want, &origin_events, w);
	r->reused = w->origin != NULL;
	if (r->reused) {
		(void)begin_exchange(w);
		return;
	}
	w->origin = w->setting_out = origin_new(&want, &origin_events, w, &why);
	if (w->origin)
		set_state(w, AWAY);
	else if (why == REASON_NO_ROUTE)
		fail_nowhere(w);
	else
		fail(w, why, NULL);
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
	size_t routes = way->routes ? way->routes_n * sizeof(struct rules_route) : 0, need = routes + head_len;
	struct rules_route *copies;
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
	copies = (struct rules_route *)(void *)r->space;
	text = r->space + routes;
	for (size_t i = 0; way->routes && i < way->routes_n; i++) {
		copies[i].tunnel = add_text(&text, way->routes[i].tunnel);
		copies[i].service = add_text(&text, way->routes[i].service);
	}
	r->routes = way->routes ? copies : NULL;
	r->routes_n = way->routes_n;
	memcpy(text, exchange_space()->out, head_len);
	r->rate_up = way->rate_up;
	r->rate_down = way->rate_down;
	r->x.head = text;
	r->x.head_len = (uint32_t)head_len;
	return true;
}

/* What rules and policy say. true: it may go there. */
static bool decide(struct web *w, struct webroute *way)
{
	struct webroute_ask ask = { .head = &exchange_space()->head, .place = w->place, .src = &w->src, .dst = &w->dst, .tls = w->tls, .sni = w->sni,
				   .alpn = w->alpn, .cert = w->cert, .id = w->r->id };
	struct refusal f;

	webroute(way, &ask);
	if (way->kind == WEBROUTE_GO)
		return true;
	f = (struct refusal){ .status = way->status, .why = way->why, .text = way->text, .location = way->location };
	if (way->kind == WEBROUTE_REJECT)
		cut_off(w, way->why);
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
	struct webhead_request q = { .head = &exchange_space()->head, .forwarded = w->place->l->forwarded, .path = way->rewrite, .id = w->r->id, .tls = w->tls };
	bool inet = w->src.len > 0 && w->src.u.sa.sa_family != AF_UNIX;

	q.client = inet ? addr_host_text(&w->src, client, sizeof(client)) : "unknown";
	if (q.head->authority.len == 0)
		q.host = host_text(w, host);
	return webhead_request(exchange_space()->out, EXCHANGE_OUT, &q);
}

static bool too_long(const struct web *w)
{
	const struct http1_body *b = &w->r->x.body;

	return b->framing == HTTP1_LENGTH && b->max && b->left > b->max;
}

static void set_out(struct web *w, const struct webroute *way)
{
	size_t n = make_head(w, way);

	if (n == 0)
		refuse(w, &(struct refusal){ .status = 431, .why = REASON_BAD_REQUEST });
	else if (!keep_way(w->r, way, n))
		fail(w, REASON_RESOURCES, NULL);
	else
		seek(w);
}

static void begin_http(struct web *w)
{
	struct webroute way;

	if (too_long(w))
		refuse(w, &(struct refusal){ .status = 413, .why = REASON_BAD_REQUEST });
	else if (decide(w, &way))
		set_out(w, &way);
}

/* true: it is one of the users, or everybody may. */
static bool authenticate(struct web *w)
{
	const struct conf_strings *users = &w->place->l->users;
	const struct http1_field *f = users->n > 0 ? http1_find(&exchange_space()->head, "Proxy-Authorization") : NULL;
	enum webauth a = users->n == 0 ? WEBAUTH_OK : f ? webauth_check(users, f->value.at, f->value.len) : WEBAUTH_WRONG;

	if (a == WEBAUTH_WRONG)
		refuse(w, &(struct refusal){ .status = 407, .why = REASON_DENIED, .field = "Proxy-Authenticate: Basic realm=\"mctunnel\", charset=\"UTF-8\"",
					     .detail = f ? "wrong name or password" : "no name and password" });
	else if (a == WEBAUTH_LATER)
		refuse(w, &(struct refusal){ .status = 429, .why = REASON_RATE, .detail = "too many passwords to check" });
	else if (a == WEBAUTH_RESOURCES)
		fail(w, REASON_RESOURCES, "no memory to check a password");
	return a == WEBAUTH_OK;
}

/* A proxy's client says where it wants to go, and all that follows is opaque. */
static void begin_connect(struct web *w)
{
	struct request *r = w->r;
	struct webroute way;

	r->connect = true;
	if (strcmp(r->method, "CONNECT") != 0)
		refuse(w, &(struct refusal){ .status = 405, .why = REASON_BAD_REQUEST, .text = "Only CONNECT is served here.", .field = "Allow: CONNECT" });
	else if (!authenticate(w) || !decide(w, &way))
		return;
	else if (!keep_way(r, &way, 0))
		fail(w, REASON_RESOURCES, NULL);
	else
		seek(w);
}

/* The first request only says where its stream goes: it is answered with what the target would have got, and all that follows is opaque. */
static void begin_lead(struct web *w)
{
	struct webroute way;
	size_t n;

	w->r->connect = true;
	if (!decide(w, &way))
		return;
	n = make_head(w, &way);
	w->lead = n ? strndup(exchange_space()->out, n) : NULL;
	if (!w->lead || !keep_way(w->r, &way, 0))
		fail(w, REASON_RESOURCES, NULL);
	else
		seek(w);
}

/* limits.client_sessions, or the rate with the first request: that is all this client gets. */
static void refuse_over(struct web *w)
{
	w->stopping = true;
	refuse(w, &(struct refusal){ .status = 429, .why = REASON_RATE, .detail = w->over });
}

/* limits.client_rate of each further request. true: it may be served; else it is answered, or waits: its bytes, n of them, are in the space for them. */
static bool admit(struct web *w, size_t n)
{
	const struct conf_listener *l = w->place->l;
	uint64_t wait_ms = 0, now = clock_ms();

	if (w->requests == 0 || quota_again(w->place->score->quota, &l->limits, w->visitor, &wait_ms) == QUOTA_OK)
		return true;
	w->asked_ms = w->asked_ms ? w->asked_ms : now;
	if (l->limits.over != OVER_QUEUE || now - w->asked_ms >= l->timeouts.queue)
		return false;
	w->delay_ms = (uint32_t)wait_ms;
	if (spill_keep(&w->in, exchange_space()->in, n))
		set_state(w, DELAYED);
	else
		cut_off(w, REASON_RESOURCES);
	return false;
}

static void refuse_rate(struct web *w)
{
	if (w->place->l->limits.over == OVER_REJECT)
		cut_off(w, REASON_RATE);
	else
		refuse(w, &(struct refusal){ .status = 429, .why = REASON_RATE, .detail = "limits.client_rate" });
}

static void begin(struct web *w, bool admitted, const char *rest, size_t n)
{
	w->r = request_new(w);
	w->requests++;
	w->asked_ms = 0;
	if (!w->r || !spill_keep(&w->in, rest, n))
		cut_off(w, REASON_RESOURCES);
	else if (w->over)
		refuse_over(w);
	else if (!admitted)
		refuse_rate(w);
	else if (w->place->l->mode == MODE_CONNECT)
		begin_connect(w);
	else if (w->leads)
		begin_lead(w);
	else
		begin_http(w);
}

/* Reading has come to its end, or there is no more for now; n bytes of a head are in the space for them. */
static void await_more(struct web *w, size_t n, ssize_t last)
{
	if (last == CONN_FAILED && n == 0) {
		over(w, w->requests ? REASON_DONE : REASON_CLIENT_RESET, false);
	} else if (last == CONN_FAILED) {
		cut_off(w, conn_reason(w->c, REASON_CLIENT_RESET));
	} else if (last == 0 && n == 0) {
		over(w, REASON_DONE, true);
	} else if (last == 0) {
		refuse(w, &(struct refusal){ .status = 400, .why = REASON_BAD_REQUEST, .text = "The request ends in the middle of its head." });
	} else if (!spill_keep(&w->in, exchange_space()->in, n)) {
		cut_off(w, REASON_RESOURCES);
	}
}

/* The time for a head counts from its first byte, that of the first one from the beginning. */
static ssize_t read_head(struct web *w, size_t n)
{
	struct iovec iov = { exchange_space()->in + n, EXCHANGE_READ };
	ssize_t got = w->c->readable ? conn_readv(w->c, &iov, 1) : CONN_AGAIN;

	if (got > 0 && n == 0 && w->requests > 0)
		w->since_ms = clock_ms();
	return got;
}

/* HTTP/2 with prior knowledge is somebody else's to serve. true: the conn is given away. */
static bool give_away(struct web *w, const char *bytes, size_t n)
{
	size_t len = sizeof(H2_PREFACE) - 1;
	struct conn *c = w->c;

	if (w->requests > 0 || !w->ev->on_preface || w->place->l->mode != MODE_HTTP || n < len || memcmp(bytes, H2_PREFACE, len) != 0)
		return false;
	part(w, REASON_DONE);
	w->c = NULL;
	w->given = true;
	w->ev->on_preface(w->owner, c, bytes, n);
	return true;
}

/* Could it become the preface of HTTP/2? */
static bool too_short_to_tell(const struct web *w, const char *bytes, size_t n)
{
	return w->requests == 0 && w->ev->on_preface && n > 0 && n < sizeof(H2_PREFACE) - 1 && memcmp(bytes, H2_PREFACE, n) == 0;
}

static ssize_t parse_request(const struct web *w, struct exchange_space *space, size_t n)
{
	if (n == 0 || too_short_to_tell(w, space->in, n))
		return 0;
	return http1_request(&space->head, space->in, n, w->place->l->max_head, &space->err);
}

static bool read_request(struct web *w)
{
	struct exchange_space *space = exchange_space();
	size_t n = take_in(w);
	bool admitted;
	ssize_t used = parse_request(w, space, n);

	while (used == 0) {
		ssize_t got = read_head(w, n);

		if (got <= 0) {
			await_more(w, n, got);
			return w->state != IDLE;
		}
		n += (size_t)got;
		if (give_away(w, space->in, n))
			return false;
		used = parse_request(w, space, n);
	}
	if (used < 0) {
		fail_malformed(w);
		return true;
	}
	renew(w);
	admitted = admit(w, n);
	if (w->state == IDLE)
		begin(w, admitted, space->in + used, n - (size_t)used);
	return w->state != DELAYED;
}

/* Request and answer. */

static void let_go(struct web *w)
{
	const struct exchange *x = &w->r->x;
	struct origin *o = w->origin;

	w->origin = NULL;
	if (x->in_ended)
		origin_ended(o);
	if (exchange_reusable(x))
		origin_keep(o, &w->kept, x->binds);
	else if (exchange_whole(x))
		origin_close(o);
	else
		origin_drop(o, REASON_CLIENT_RESET);
}

/* The answer is complete, though the client may not have read it. */
static void complete(struct web *w)
{
	const struct exchange *x = &w->r->x;

	record(w, REASON_DONE, x->status, NULL);
	w->closing = x->closing || w->stopping;
	w->lingering = x->lingering && !exchange_opaque(x);
	let_go(w);
	request_free(w);
	set_state(w, FLUSH);
}

/* One that was idle before may have been ended by its target just when the request came: a safe one is asked again. */
static bool repeatable(const struct request *r)
{
	return r->reused && r->safe && !r->x.heard && !r->retried;
}

/* Once more, over a new origin. The old one is gone, or goes. */
static void repeat(struct web *w)
{
	w->origin = NULL;
	w->r->retried = true;
	w->r->x.head_at = 0;
	seek(w);
}

static void exchange_failed(struct web *w)
{
	const struct exchange *x = &w->r->x;

	if (x->why == REASON_TARGET_RESET && repeatable(w->r)) {
		drop_origin(w, REASON_IDLE);
		repeat(w);
	} else if (x->why == REASON_CLIENT_RESET || w->c->error)
		break_off(w, x->why, x->text);
	else if (x->refusal && !x->begun)
		refuse(w, &(struct refusal){ .status = x->refusal, .why = x->why, .text = x->text });
	else
		fail(w, x->why, x->text);
}

/* true: there is a next step. */
static bool move(struct web *w)
{
	struct exchange *x = &w->r->x;
	bool half = half_ended(w->r), wanted = wants_answer(w->r);

	x->last = w->stopping;
	switch (exchange_run(x)) {
	case EXCHANGE_MORE: loop_defer(&w->again); break;
	case EXCHANGE_WAITS: break;
	case EXCHANGE_DONE: complete(w); return true;
	case EXCHANGE_FAILED: exchange_failed(w); return true;
	}
	if (half_ended(w->r) != half || wants_answer(w->r) != wanted)
		watch_time(w);
	return false;
}

/* The last bytes are written; then the next request, or the end. true: there is a next step. */
static bool finish(struct web *w)
{
	if (spill_write(&w->out, w->c) == CONN_FAILED) {
		over(w, conn_reason(w->c, REASON_CLIENT_RESET), false);
		return false;
	}
	if (w->out.buf)
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
	struct iovec iov = { exchange_space()->in, EXCHANGE_READ };
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
	case EXCHANGE: return move(w);
	case FLUSH: return finish(w);
	case LINGER: drain(w); return false;
	case AWAY:
	case DELAYED:
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
		if (w->in.buf) {
			refuse(w, &(struct refusal){ .status = 408, .why = REASON_CLIENT_TIMEOUT });
		} else {
			if (w->requests == 0)
				record(w, REASON_CLIENT_TIMEOUT, 0, NULL);
			over(w, w->requests ? REASON_DONE : REASON_CLIENT_TIMEOUT, true);
		}
		break;
	case EXCHANGE:
		if (exchange_opaque(&r->x))
			break_off(w, half_ended(r) ? REASON_HALF_CLOSED : REASON_IDLE, NULL);
		else
			fail(w, r->x.begun ? REASON_IDLE : r->x.body.done ? REASON_ANSWER_TIMEOUT : REASON_CLIENT_TIMEOUT, NULL);
		break;
	case DELAYED: set_state(w, IDLE); break;
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
	if (clock_ms() < due_ms(w)) {
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
	struct strbuf b;

	if (!begin_exchange(w))
		return;
	exchange_open(&w->r->x, 200);
	strbuf_init(&b, exchange_space()->out, EXCHANGE_OUT);
	strbuf_add(&b, "%s%s", ok, w->lead ? w->lead : "");
	if (!spill_keep(&w->out, b.buf, b.len))
		break_off(w, REASON_RESOURCES, NULL);
}

static void on_ready(void *user)
{
	struct web *w = user;

	if (!w->r->connect)
		(void)begin_exchange(w);
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

static void on_instead(void *user, struct origin *o)
{
	struct web *w = user;

	w->origin = o;
	w->r->reused = true;
	(void)begin_exchange(w);
	run(w);
}

static void on_readable(void *user)
{
	run(user);
}

static void on_writable(void *user)
{
	run(user);
}

static void on_lost(void *user, enum reason why)
{
	struct web *w = user;

	w->losing = true;
	if (repeatable(w->r))
		repeat(w);
	else
		fail(w, why, NULL);
	w->losing = false;
	run(w);
}

static void on_leave(void *user)
{
	struct web *w = user;

	timer_stop(&w->timer);
	loop_undefer(&w->again);
	if (w->brake)
		brake_leave(w->brake);
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
	.on_instead = on_instead,
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
	if (!copy_text(&w->sni, o->sni) || !copy_text(&w->alpn, o->alpn) || !copy_text(&w->cert, o->cert)) {
		free_texts(w);
		mem_put(MEM_OTHER, w);
		return NULL;
	}
	w->ev = ev;
	w->owner = owner;
	w->gen = generation_get(o->gen);
	w->place = o->place;
	w->sessions = o->sessions;
	w->over = o->over;
	w->visitor = o->visitor;
	w->src = o->src;
	w->dst = o->dst;
	w->tls = o->tls;
	w->leads = o->leads;
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

/* Opaque bytes that have come to their end, as whoever made the web knows. */
static void end_opaque(struct web *w)
{
	struct origin *o = w->origin;

	record(w, REASON_DONE, w->r->x.status, NULL);
	w->origin = w->setting_out = NULL;
	if (w->r->x.in_ended) /* who made the web may have closed its end before its word came */
		origin_ended(o);
	origin_close(o);
	over(w, REASON_DONE, true);
}

void web_kill(struct web *w, enum reason why)
{
	if (why == REASON_DONE && w->state == EXCHANGE && exchange_opaque(&w->r->x))
		end_opaque(w);
	else
		break_off(w, why, NULL);
	web_free(w);
}

void web_stop(struct web *w)
{
	w->stopping = true;
	if (w->state != IDLE || w->in.buf)
		return;
	over(w, REASON_DONE, true);
	web_free(w);
}

static const char *state_word(const struct web *w)
{
	switch ((enum state)w->state) {
	case IDLE: return w->in.buf ? "request" : "idle";
	case DELAYED: return "queue";
	case AWAY: return origin_waiting(w->origin) ? "queue" : "connect";
	case EXCHANGE: return exchange_opaque(&w->r->x) ? "upgraded" : origin_open(w->origin) ? "open" : "connect";
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
				  .up = w->up + (w->r ? w->r->x.up : 0), .down = w->down + (w->r ? w->r->x.down : 0), .requests = w->requests,
				  .fd = w->c ? conn_fd(w->c) : -1 };
}

int web_fd(const struct web *w)
{
	return conn_fd(w->c);
}

void web_init(void)
{
	list_init(&here.webs);
	here.stopping = false;
	here.running = true;
	exchange_init();
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
	exchange_thread_fini();
	webauth_thread_fini();
	here.gen = NULL;
	here.running = false;
}

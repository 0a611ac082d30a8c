/* The hub's listeners and their clients, from accept to the line in the log.
 * Owns every client until its connection ends. Who may come in now is the gate's to say; what must be read before it is known where a client goes, an
 * arrival reads; where it goes, rules and policy say; how it comes there is a trip's; how bytes are carried is a pump's, or, for HTTP, a web's. */
#include "mctunnel/edge/frontend.h"

#include "mctunnel/base/addr.h"
#include "mctunnel/base/bug.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/list.h"
#include "mctunnel/base/log.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/series.h"
#include "mctunnel/base/stat.h"
#include "mctunnel/base/str.h"
#include "mctunnel/base/timer.h"
#include "mctunnel/base/netset.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/edge/arrival.h"
#include "mctunnel/edge/gate.h"
#include "mctunnel/edge/generation.h"
#include "mctunnel/edge/policy.h"
#include "mctunnel/edge/pump.h"
#include "mctunnel/edge/quota.h"
#include "mctunnel/edge/record.h"
#include "mctunnel/edge/room.h"
#include "mctunnel/edge/trip.h"
#include "mctunnel/edge/web.h"
#include "mctunnel/edge/web2.h"
#include "mctunnel/event/loop.h"
#include "mctunnel/net/conn.h"
#include "mctunnel/net/sock.h"
#include "mctunnel/tunnel/facts.h"
#include "mctunnel/tunnel/rules.h"
#include "mctunnel/tunnel/session.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Of the process. */
static struct {
	pthread_mutex_t lock; /* for users, and what the first and the last one do */
	unsigned users;
	struct generation *newest; /* shared; threads follow by frontend_reload() */
} all = { .lock = PTHREAD_MUTEX_INITIALIZER };

static _Thread_local struct {
	struct generation *gen; /* shared; NULL before frontend_init */
	struct list clients; /* all that are here and not on their way, by serial */
	uint64_t serial;
} front;

struct known { /* of a client, beyond its address: by an arrival */
	struct addr local; /* where it came to */
	bool tls;
	char *sni, *cert; /* owned; NULL: none */
	char *alpn[ARRIVAL_ALPN]; /* owned */
	size_t alpn_n;
};

struct client {
	struct list member; /* in front.clients, or on its way to another thread's */
	uint64_t serial;
	struct place *place;    /* of gen */
	struct generation *gen; /* shared */
	int fd;                 /* until it is a conn, then -1 */
	struct watch watch;     /* of fd, while it waits */
	struct conn *conn;      /* owned: TLS that ends here, before it is carried; else NULL */
	struct addr peer;
	uint64_t accepted_ms;
	struct known *known;     /* owned; NULL: no more than its address */
	struct arrival *arrival; /* owned; NULL: it has arrived. fd is then the arrival's */
	struct web *web;         /* owned; NULL: other modes, or web2 */
	struct web2 *web2;       /* owned: the client speaks HTTP/2; NULL: it does not */
	struct trip *trip;       /* owned; NULL: it has not set out */
	struct pump *pump;       /* owned; the same */
	bool carried;            /* the pump has begun: it ends by itself, or by pump_abort */
	struct visitor *visitor; /* borrowed from the listener's quota until it ends; NULL: not limited */
	struct delay *delay;     /* owned; NULL: it is not over its limits */
	bool homeless;           /* the loop of its new thread refused the conn */
};

struct delay { /* of a client that is over its limits, and may wait */
	struct timer timer;
	struct client *client; /* borrowed */
};

/* Clients: their end. */

static void enlist(struct client *cl)
{
	cl->serial = ++front.serial;
	list_add(&front.clients, &cl->member);
}

static void tally(struct tally *t, enum reason why, uint64_t up, uint64_t down)
{
	if (why != REASON_DONE)
		atomic_fetch_add(&t->failed, 1);
	atomic_fetch_add(&t->up, up);
	atomic_fetch_add(&t->down, down);
}

static char phase_of(const struct client *cl, const struct trip_view *v, enum reason why)
{
	if (why == REASON_DONE)
		return '-';
	if (!cl->trip || !trip_started(cl->trip))
		return 'R';
	return cl->carried && v->phase == 'D' && pump_half_closed(cl->pump) ? 'L' : v->phase;
}

static void note_end_of(const struct client *cl, enum reason why, const char *text)
{
	struct record r = { .listener = cl->place->l->name, .why = why, .queue_ms = -1, .connect_ms = -1 };
	struct trip_view v = { 0 };
	char peer[ADDR_TEXT];

	if (cl->trip) {
		trip_view(cl->trip, &v);
		record_trip(&r, &v);
	}
	r.client = addr_text(&cl->peer, peer, sizeof(peer));
	r.total_ms = (int64_t)(clock_ms() - cl->accepted_ms);
	r.up = cl->pump ? pump_in(cl->pump) : 0;
	r.down = cl->pump ? pump_out(cl->pump) : 0;
	r.sessions = gate_sessions();
	r.listener_sessions = atomic_load(&cl->place->score->sessions);
	r.phase = phase_of(cl, &v, why);
	r.text = text;
	r.sni = cl->known ? cl->known->sni : NULL;
	r.cert = cl->known ? cl->known->cert : NULL;
	record_end(&r);
}

static void log_start_of(const struct client *cl)
{
	struct log_rec r;
	struct trip_view v;
	char text[ADDR_TEXT];

	if (!log_wants(LOG_DEBUG))
		return;
	trip_view(cl->trip, &v);
	log_begin(&r, LOG_DEBUG, "session_start");
	log_str(&r, "listener", cl->place->l->name);
	log_str(&r, "client", addr_text(&cl->peer, text, sizeof(text)));
	log_str(&r, "route", v.route);
	log_str(&r, "agent", v.agent);
	log_str(&r, "id", v.id);
	log_end(&r);
}

static void forget_known(struct known *k)
{
	if (!k)
		return;
	for (size_t i = 0; i < k->alpn_n; i++)
		free(k->alpn[i]);
	free(k->sni);
	free(k->cert);
	free(k);
}

static void see_web(const struct client *cl, struct web_view *v)
{
	if (cl->web)
		web_view(cl->web, v);
	else
		web2_view(cl->web2, v);
}

static void client_bytes(const struct client *cl, uint64_t *up, uint64_t *down)
{
	struct web_view v;

	*up = *down = 0;
	if (cl->web || cl->web2) {
		see_web(cl, &v);
		*up = v.up;
		*down = v.down;
	} else if (cl->pump) {
		*up = pump_in(cl->pump);
		*down = pump_out(cl->pump);
	}
}

static void close_socket(struct client *cl)
{
	loop_unwatch(&cl->watch);
	if (cl->arrival)
		arrival_cancel(cl->arrival);
	else if (cl->conn)
		conn_abort(cl->conn);
	else if (cl->fd >= 0)
		close(cl->fd); /* linger 0: RST */
}

static void delay_end(struct client *cl)
{
	if (!cl->delay)
		return;
	timer_stop(&cl->delay->timer);
	mem_put(MEM_OTHER, cl->delay);
	cl->delay = NULL;
	stat_add(STAT_QUEUE, -1);
}

/* Its pump or web has ended, or there was none. text: more about why, or NULL. Requests have had lines of their own. */
static void client_end_with(struct client *cl, enum reason why, const char *text)
{
	uint64_t up, down;

	client_bytes(cl, &up, &down);
	list_del(&cl->member);
	tally(&cl->place->score->tally, why, up, down);
	if (!cl->web && !cl->web2)
		note_end_of(cl, why, text);
	close_socket(cl);
	if (cl->trip)
		trip_free(cl->trip, why, up, down);
	if (cl->pump && !cl->carried)
		pump_free(cl->pump);
	gate_give(cl->place);
	quota_leave(cl->place->score->quota, cl->visitor);
	delay_end(cl);
	generation_put(cl->gen);
	forget_known(cl->known);
	mem_put(MEM_OTHER, cl);
}

static void client_end(struct client *cl, enum reason why)
{
	client_end_with(cl, why, NULL);
}

/* Clients: their session. */

static void on_open(void *owner, const char *target)
{
	struct client *cl = owner;

	trip_established(cl->trip, target);
}

static void on_done(void *owner, enum reason why)
{
	client_end(owner, why);
}

static bool on_refused(void *owner, enum reason why)
{
	struct client *cl = owner;

	return trip_refused(cl->trip, why);
}

static void on_pump_leave(void *owner)
{
	struct client *cl = owner;

	trip_leave(cl->trip);
	list_del(&cl->member);
}

static void on_carried(void *owner)
{
	enlist(owner);
}

static const struct pump_events pump_events = {
	.on_open = on_open, .on_done = on_done, .on_refused = on_refused, .on_leave = on_pump_leave, .on_arrive = on_carried
};

static void local_of(const struct client *cl, struct addr *out)
{
	if (cl->known)
		*out = cl->known->local;
	else
		sock_local(cl->conn ? conn_fd(cl->conn) : cl->fd, out);
}

static void describe(void *owner, struct session_about *about)
{
	static _Thread_local char peer[ADDR_TEXT], local[ADDR_TEXT];
	struct client *cl = owner;
	struct addr a;

	local_of(cl, &a);
	about->client = addr_text(&cl->peer, peer, sizeof(peer));
	about->local = addr_text(&a, local, sizeof(local));
	about->sni = cl->known ? cl->known->sni : NULL;
	about->alpn = cl->known && cl->place->l->mode != MODE_TLS && cl->known->alpn_n ? cl->known->alpn[0] : NULL; /* agreed on, not only offered */
}

/* One that has sent its request and its end is still served; one that broke the connection is not. */
static void on_waiting(struct watch *w, unsigned events)
{
	struct client *cl = container_of(w, struct client, watch);

	if ((events & LOOP_HUP) && sock_error(cl->fd) != 0)
		client_end(cl, REASON_CLIENT_RESET);
}

static void on_waiting_conn(struct conn *c)
{
	struct client *cl = c->owner;

	if (c->hup && sock_error(conn_fd(c)) != 0)
		client_end(cl, REASON_CLIENT_RESET);
}

static void on_wait(void *owner)
{
	struct client *cl = owner;

	if (cl->homeless || (!cl->conn && cl->watch.fd < 0 && loop_watch(&cl->watch, cl->fd, on_waiting) < 0))
		client_end(cl, REASON_RESOURCES);
}

static void on_leave(void *owner)
{
	struct client *cl = owner;

	loop_unwatch(&cl->watch);
	if (cl->conn)
		conn_detach(cl->conn);
	list_del(&cl->member);
}

static void on_arrive(void *owner)
{
	struct client *cl = owner;

	enlist(cl);
	cl->homeless = cl->conn && conn_attach(cl->conn) < 0;
}

static void count_bytes(const struct client *cl)
{
	const char *listener = cl->place->l->name;
	struct trip_view v;

	trip_view(cl->trip, &v);
	pump_count(cl->pump, series_of(BYTES, listener, v.tunnel, v.service, "up"), series_of(BYTES, listener, v.tunnel, v.service, "down"));
}

static bool limit(struct pump *p, const struct conf_limits *l, struct score *s)
{
	return pump_limit(p, BRAKE_IN, NULL, l->session_up) && pump_limit(p, BRAKE_OUT, NULL, l->session_down) && pump_limit(p, BRAKE_IN, &s->up, l->up) &&
	       pump_limit(p, BRAKE_OUT, &s->down, l->down);
}

/* Those of its listener and of its tunnel. false: no memory. */
static bool limit_bandwidth(const struct client *cl)
{
	const struct site *site = trip_site(cl->trip);

	return limit(cl->pump, &cl->place->l->limits, cl->place->score) && limit(cl->pump, &site->t->limits, site->score);
}

/* Until pump_start, which follows at once. */
static void not_yet(struct conn *c)
{
}

/* The client's socket as a conn; NULL: no memory, or the loop refuses. */
static struct conn *take_conn(struct client *cl)
{
	struct conn *c = cl->homeless ? NULL : cl->conn;

	loop_unwatch(&cl->watch);
	if (!cl->conn)
		c = conn_tcp(cl->fd, not_yet, NULL);
	if (!c)
		return NULL;
	c->on_event = not_yet;
	cl->conn = NULL;
	cl->fd = -1;
	return c;
}

static void on_session(void *owner, struct session *s)
{
	struct client *cl = owner;
	struct conn *c = limit_bandwidth(cl) ? take_conn(cl) : NULL;

	if (!c) {
		session_abort(s, REASON_RESOURCES);
		client_end(cl, REASON_RESOURCES);
		return;
	}
	cl->carried = true;
	log_start_of(cl);
	count_bytes(cl);
	pump_start(cl->pump, s, c);
}

static void on_failed(void *owner, enum reason why)
{
	struct client *cl = owner;

	if (trip_session(cl->trip))
		pump_abort(cl->pump, why);
	else
		client_end(cl, why);
}

/* Clients: where they go. */

static void gather(const struct client *cl, struct facts *f)
{
	*f = (struct facts){ .listener = cl->place->l->name, .src = cl->peer };
	local_of(cl, &f->dst);
	f->dst_port = addr_port(&f->dst);
	if (!cl->known)
		return;
	f->tls = cl->known->tls;
	f->sni = cl->known->sni;
	f->cert = cl->known->cert;
	f->alpn = (const char *const *)cl->known->alpn;
	f->alpn_n = cl->known->alpn_n;
}

/* DONE: there is a way now, else why not. */
static enum reason obey_rules(struct client *cl, const struct facts *f, char *route, size_t size, char *text)
{
	enum reason why;
	struct verdict v;

	rules_match(trip_place(cl->trip)->rules, f, &v);
	if (v.kind == VERDICT_DENY)
		return REASON_DENIED;
	if (v.kind == VERDICT_RESOURCES)
		return REASON_RESOURCES;
	if (v.kind != VERDICT_ROUTE)
		return v.kind == VERDICT_REJECT ? REASON_REJECTED : REASON_NO_ROUTE;
	why = trip_routes(cl->trip, v.route, v.route_n);
	if (why == REASON_DONE)
		snprintf(route, size, "%s/%s", v.route[0].tunnel, v.route[0].service);
	else if (why == REASON_NO_ROUTE && v.route_n > 0)
		snprintf(text, size, "no such route: %s/%s", v.route[0].tunnel, v.route[0].service);
	return why;
}

static enum reason obey_policy(struct client *cl, const struct facts *f, const char *route, char *text, size_t size)
{
	struct policy_answer a;
	enum reason why;

	policy_ask(trip_place(cl->trip)->l->policy, f, route[0] ? route : NULL, "", &a);
	if (a.kind != POLICY_ALLOW)
		str_copy(text, size, a.reason);
	if (a.starved)
		return REASON_RESOURCES;
	switch (a.kind) {
	case POLICY_DENY:
		return REASON_POLICY;
	case POLICY_REJECT:
		return REASON_REJECTED;
	case POLICY_ROUTE:
		why = trip_routes(cl->trip, &(struct rules_route){ a.tunnel, a.service }, 1);
		if (why == REASON_NO_ROUTE)
			snprintf(text, size, "no such route: %s/%s", a.tunnel, a.service);
		if (why != REASON_DONE)
			return why;
		route = "policy";
		break;
	case POLICY_ALLOW:
		break;
	}
	/* those of the first answer stay */
	if (!trip_started(cl->trip) && (!pump_limit(cl->pump, BRAKE_IN, NULL, a.rate_up) || !pump_limit(cl->pump, BRAKE_OUT, NULL, a.rate_down)))
		return REASON_RESOURCES;
	return route[0] ? REASON_DONE : REASON_NO_ROUTE;
}

/* true: the trip has its routes; else the client has ended. */
static bool decide(struct client *cl)
{
	const struct conf_listener *l = trip_place(cl->trip)->l;
	char route[160] = "", text[160] = "";
	enum reason why = REASON_DONE;
	struct facts f;

	if (l->rules_n == 0 && !l->policy)
		return true;
	gather(cl, &f);
	why = obey_rules(cl, &f, route, sizeof(route), text);
	if (l->policy && (why == REASON_DONE || why == REASON_NO_ROUTE))
		why = obey_policy(cl, &f, route, text, sizeof(text));
	if (why != REASON_DONE)
		client_end_with(cl, why, text);
	return why == REASON_DONE;
}

/* Other rules, while it waits. */
static void on_reload(void *owner)
{
	decide(owner);
}

static const struct trip_events trip_events = { .describe = describe,
						.on_wait = on_wait,
						.on_leave = on_leave,
						.on_arrive = on_arrive,
						.on_session = on_session,
						.on_failed = on_failed,
						.on_reload = on_reload };

static bool prepare(struct client *cl)
{
	const struct conf_timeouts *limits = &cl->place->l->timeouts;
	struct pump_options po = { .idle_ms = limits->idle, .half_closed_ms = limits->half_closed, .local_reset = REASON_CLIENT_RESET, .client_side = true };
	struct trip_options to = {
		.gen = cl->gen, .place = cl->place, .client = &cl->peer, .since_ms = cl->accepted_ms, .session_events = &pump_session_events
	};

	cl->pump = pump_new(&po, &pump_events, cl);
	if (cl->pump)
		cl->trip = trip_new(&to, &trip_events, cl, cl->pump);
	return cl->trip != NULL;
}

static void client_set_out(struct client *cl)
{
	if (!prepare(cl))
		client_end(cl, REASON_RESOURCES);
	else if (decide(cl))
		trip_start(cl->trip);
}

/* Clients of modes http and connect. */

static void on_web_done(void *owner, enum reason why)
{
	client_end(owner, why);
}

/* Requests have lines of their own; who was sent away may have made none. */
static void on_web2_done(void *owner, enum reason why)
{
	if (why == REASON_BAD_REQUEST)
		note_end_of(owner, why, "the client does not keep to HTTP/2, or floods");
	client_end(owner, why);
}

static void on_web_leave(void *owner)
{
	struct client *cl = owner;

	list_del(&cl->member);
}

static const struct web2_events web2_events = { .on_done = on_web2_done };

static void tell_web(const struct client *cl, struct web_options *o)
{
	*o = (struct web_options){ .gen = cl->gen, .place = cl->place, .src = cl->peer, .accepted_ms = cl->accepted_ms, .visitor = cl->visitor, .sessions = gate_count() };
	local_of(cl, &o->dst);
	if (!cl->known)
		return;
	o->tls = cl->known->tls;
	o->sni = cl->known->sni;
	o->alpn = cl->known->alpn_n > 0 ? cl->known->alpn[0] : NULL;
	o->cert = cl->known->cert;
}

/* HTTP/2 with prior knowledge. The address it came to is kept: the web has the socket. */
static void on_preface(void *owner, struct conn *c, const char *bytes, size_t n)
{
	struct client *cl = owner;
	struct web_options o;

	cl->web = NULL;
	cl->conn = c;
	tell_web(cl, &o);
	cl->conn = NULL;
	cl->web2 = web2_new(c, &o, &web2_events, cl);
	if (cl->web2) {
		web2_input(cl->web2, bytes, n);
		return;
	}
	conn_abort(c);
	client_end(cl, REASON_RESOURCES);
}

static const struct web_events web_events = { .on_done = on_web_done, .on_leave = on_web_leave, .on_arrive = on_carried, .on_preface = on_preface };

static bool speaks_h2(const struct client *cl)
{
	return cl->place->l->mode == MODE_HTTP && cl->known && cl->known->alpn_n == 1 && strcmp(cl->known->alpn[0], "h2") == 0;
}

/* over: the limit it is over, so that it gets a 429; NULL: none. */
static void client_serve(struct client *cl, const char *over)
{
	struct web_options o;
	struct conn *c;

	tell_web(cl, &o);
	o.over = over;
	c = take_conn(cl);
	if (c && speaks_h2(cl))
		cl->web2 = web2_new(c, &o, &web2_events, cl);
	else if (c)
		cl->web = web_new(c, &o, &web_events, cl);
	if (cl->web || cl->web2)
		return;
	if (c)
		conn_abort(c);
	client_end(cl, REASON_RESOURCES);
}

/* Clients over the limits of their address. */

#define LOOK_AGAIN_MS 50 /* whether a session of the same address has ended */

static void client_go(struct client *cl);

static void on_delay(struct timer *t)
{
	client_go(container_of(t, struct delay, timer)->client);
}

static bool may_wait(const struct client *cl)
{
	return cl->place->l->limits.over == OVER_QUEUE && clock_ms() - cl->accepted_ms < cl->place->l->timeouts.queue;
}

static void client_delay(struct client *cl, uint64_t wait_ms)
{
	if (!cl->delay) {
		cl->delay = mem_get(MEM_OTHER, sizeof(*cl->delay));
		if (!cl->delay) {
			client_end(cl, REASON_RESOURCES);
			return;
		}
		timer_init(&cl->delay->timer, on_delay);
		cl->delay->client = cl;
		stat_add(STAT_QUEUE, 1);
	}
	timer_start(&cl->delay->timer, wait_ms);
}

/* DENY in modes that can say 429 is the web's to say. */
static void client_over(struct client *cl, enum quota_result result, uint64_t wait_ms)
{
	const char *text = result == QUOTA_SESSIONS ? "limits.client_sessions" : "limits.client_rate";
	int mode = cl->place->l->mode;

	if (may_wait(cl))
		client_delay(cl, result == QUOTA_SESSIONS ? LOOK_AGAIN_MS : wait_ms);
	else if (cl->place->l->limits.over != OVER_REJECT && (mode == MODE_HTTP || mode == MODE_CONNECT))
		client_serve(cl, text);
	else
		client_end_with(cl, REASON_RATE, text);
}

static void client_go(struct client *cl)
{
	const struct conf_listener *l = cl->place->l;
	enum quota_result result;
	uint64_t wait_ms = 0;

	result = quota_enter(cl->place->score->quota, &l->limits, &cl->peer, &cl->visitor, &wait_ms);
	if (result == QUOTA_RESOURCES) {
		client_end(cl, REASON_RESOURCES);
		return;
	}
	if (result != QUOTA_OK) {
		client_over(cl, result, wait_ms);
		return;
	}
	delay_end(cl);
	if (l->mode == MODE_HTTP || l->mode == MODE_CONNECT)
		client_serve(cl, NULL);
	else
		client_set_out(cl);
}

/* Clients that show something before it is known where they go. */

static struct known *keep_known(const struct arrived *a)
{
	struct known *k = calloc(1, sizeof(*k));

	if (!k)
		return NULL;
	k->local = a->dst;
	k->tls = a->tls;
	k->sni = a->sni ? strdup(a->sni) : NULL;
	k->cert = a->cert ? strdup(a->cert) : NULL;
	while (k->alpn_n < a->alpn_n && (k->alpn[k->alpn_n] = strdup(a->alpn[k->alpn_n])))
		k->alpn_n++;
	if ((k->sni || !a->sni) && (k->cert || !a->cert) && k->alpn_n == a->alpn_n)
		return k;
	forget_known(k);
	return NULL;
}

static void on_ready(void *owner, struct arrived *a)
{
	struct client *cl = owner;

	cl->arrival = NULL;
	cl->fd = a->fd;
	cl->conn = a->c;
	cl->peer = a->src;
	if (cl->conn) {
		cl->conn->on_event = on_waiting_conn;
		cl->conn->owner = cl;
	}
	cl->known = keep_known(a);
	if (cl->known)
		client_go(cl);
	else
		client_end(cl, REASON_RESOURCES);
}

static void on_not_ready(void *owner, enum reason why, const char *text)
{
	struct client *cl = owner;

	cl->arrival = NULL;
	cl->fd = -1;
	client_end_with(cl, why, text);
}

static const struct arrival_events arrival_events = { .on_ready = on_ready, .on_failed = on_not_ready };

static void client_receive(struct client *cl)
{
	const struct place *p = cl->place;
	struct arrival_options o = { .proxy = p->proxies != NULL, .tls = p->tls, .hello = p->l->mode == MODE_TLS, .timeout_ms = p->l->timeouts.client_hello };
	struct addr local;

	if (p->proxies && !netset_has(p->proxies, &cl->peer)) {
		client_end_with(cl, REASON_DENIED, "not a proxy of accept_proxy");
		return;
	}
	sock_local(cl->fd, &local);
	cl->arrival = arrival_new(cl->fd, &cl->peer, &local, &o, &arrival_events, cl);
	cl->fd = -1;
	if (!cl->arrival)
		client_end(cl, REASON_RESOURCES);
}

static void client_begin(struct client *cl)
{
	const struct place *p = cl->place;

	if (p->proxies || p->tls || p->l->mode == MODE_TLS)
		client_receive(cl);
	else
		client_go(cl);
}

static struct client *client_new(struct place *p, int fd, const struct addr *peer)
{
	struct client *cl = mem_get(MEM_OTHER, sizeof(*cl));

	if (!cl)
		return NULL;
	cl->watch.fd = -1;
	cl->gen = generation_get(front.gen);
	cl->place = p;
	cl->fd = fd;
	cl->peer = *peer;
	cl->accepted_ms = clock_ms();
	atomic_fetch_add(&p->score->tally.total, 1);
	enlist(cl);
	return cl;
}

/* Accepted, and counted. */
static bool on_client(struct place *p, int fd, const struct addr *peer)
{
	struct client *cl = client_new(p, fd, peer);

	if (cl)
		client_begin(cl);
	return cl != NULL;
}

int frontend_open(struct conf *conf, const struct conf_listener *l, int fd)
{
	BUG_ON(conf != front.gen->conf || l < conf->listeners || l >= conf->listeners + conf->listeners_n);
	return gate_open(&front.gen->places[l - conf->listeners], fd);
}

void frontend_close_all(void)
{
	gate_close_all();
	list_for_each_safe(n, &front.clients) {
		struct client *cl = container_of(n, struct client, member);

		if (cl->web2)
			web2_stop(cl->web2);
	}
	web_close_idle();
}

void frontend_stop(void)
{
	trip_stop();
	list_for_each_safe(n, &front.clients) {
		struct client *cl = container_of(n, struct client, member);

		if (cl->web)
			web_kill(cl->web, REASON_STOPPED);
		else if (cl->web2)
			web2_kill(cl->web2, REASON_STOPPED);
		else if (cl->arrival)
			client_end(cl, REASON_STOPPED);
	}
}

uint32_t frontend_sessions(void)
{
	return gate_sessions();
}

/* For the admin socket. */

static const char *state_word(const struct client *cl, const struct trip_view *v)
{
	const struct session *s = cl->carried ? pump_session(cl->pump) : NULL;

	if (cl->arrival)
		return "request";
	if (!v->opened_ms)
		return "queue";
	if (!v->established_ms)
		return "connect";
	if (s && session_parked(s))
		return "parked";
	return cl->carried && pump_half_closed(cl->pump) ? "half-closed" : "open";
}

static void view_web(struct frontend_client *v, const struct client *cl)
{
	struct web_view w;

	see_web(cl, &w);
	v->id = w.id;
	v->route = w.route;
	v->tunnel = w.tunnel;
	v->agent = w.agent;
	v->target = w.target;
	v->state = w.state;
	v->link = w.link;
	v->fd = w.fd;
}

/* -1 while it arrives, which takes not long; a web's is its own. */
static int socket_of(const struct client *cl)
{
	if (cl->arrival)
		return -1;
	if (cl->web)
		return web_fd(cl->web);
	if (cl->web2)
		return web2_fd(cl->web2);
	if (cl->carried)
		return pump_fd(cl->pump);
	return cl->conn ? conn_fd(cl->conn) : cl->fd;
}

static void view(struct frontend_client *v, const struct client *cl, char *peer)
{
	struct trip_view t = { .id = "" };

	if (cl->trip)
		trip_view(cl->trip, &t);
	*v = (struct frontend_client){ .id = t.id,
				       .listener = cl->place->l->name,
				       .client = addr_text(&cl->peer, peer, ADDR_TEXT),
				       .route = t.route,
				       .tunnel = t.agent ? t.tunnel : NULL,
				       .agent = t.agent,
				       .target = t.target,
				       .state = state_word(cl, &t),
				       .age_ms = clock_ms() - cl->accepted_ms,
				       .link = t.link,
				       .fd = socket_of(cl) };
	client_bytes(cl, &v->up, &v->down);
	if (cl->web || cl->web2)
		view_web(v, cl);
}

static void client_kill(struct client *cl, enum reason why)
{
	if (cl->web)
		web_kill(cl->web, why);
	else if (cl->web2)
		web2_kill(cl->web2, why);
	else if (cl->carried)
		pump_abort(cl->pump, why);
	else
		client_end(cl, why);
}

bool frontend_each(uint64_t *cursor, enum visit (*visit)(void *, const struct frontend_client *), void *arg)
{
	struct frontend_client v;
	char peer[ADDR_TEXT];

	if (!front.gen)
		return true;
	list_for_each_safe(n, &front.clients) {
		struct client *cl = container_of(n, struct client, member);

		if (cl->serial <= *cursor)
			continue;
		*cursor = cl->serial;
		view(&v, cl, peer);
		enum visit next = visit(arg, &v);
		if (next == VISIT_STOP)
			return false;
		if (next == VISIT_KILL || next == VISIT_MOVE)
			client_kill(cl, next == VISIT_MOVE ? REASON_MOVED : REASON_KILLED);
	}
	return true;
}

static void tally_view(struct frontend_figures *out, struct tally *t)
{
	out->total = atomic_load(&t->total);
	out->failed = atomic_load(&t->failed);
	out->up = atomic_load(&t->up);
	out->down = atomic_load(&t->down);
}

const struct generation *frontend_generation(void)
{
	return front.gen;
}

const struct conf *frontend_conf(void)
{
	return front.gen ? front.gen->conf : NULL;
}

void frontend_listener(size_t index, struct frontend_figures *out)
{
	struct place *p = &front.gen->places[index];

	*out = (struct frontend_figures){ .sessions = atomic_load(&p->score->sessions), .maxconn = p->l->maxconn, .rate_limit = p->l->rate_limit,
					 .enabled = !atomic_load(&p->score->disabled) };
	out->full = (out->maxconn && out->sessions >= out->maxconn) || gate_sessions() >= gate_maxconn();
	tally_view(out, &p->score->tally);
}

void frontend_tunnel(size_t index, struct frontend_figures *out)
{
	struct site *s = &front.gen->sites[index];

	*out = (struct frontend_figures){ .sessions = atomic_load(&s->score->sessions), .maxconn = s->t->maxconn, .enabled = true };
	out->full = out->maxconn && out->sessions >= out->maxconn;
	tally_view(out, &s->score->tally);
}

static void score_clear(struct score *s)
{
	atomic_store(&s->tally.total, atomic_load(&s->sessions));
	atomic_store(&s->tally.failed, 0);
	atomic_store(&s->tally.up, 0);
	atomic_store(&s->tally.down, 0);
}

void frontend_clear(void)
{
	const struct generation *g = front.gen;

	for (size_t i = 0; g && i < g->conf->listeners_n; i++)
		score_clear(g->places[i].score);
	for (size_t i = 0; g && i < g->conf->tunnels_n; i++)
		score_clear(g->sites[i].score);
}

void frontend_enable(size_t listener, bool on)
{
	gate_enable(&front.gen->places[listener], on);
}

void frontend_set_maxconn(uint32_t n)
{
	gate_set_maxconn(n);
}

uint32_t frontend_maxconn(void)
{
	return gate_maxconn();
}

/* Reload. */

struct generation *frontend_make(struct conf *conf, struct tls_site *const *sites)
{
	struct generation *old, *g;

	pthread_mutex_lock(&all.lock);
	old = all.newest ? generation_get(all.newest) : NULL;
	pthread_mutex_unlock(&all.lock);
	g = generation_new(conf, sites, old);
	generation_put(old);
	return g;
}

void frontend_prepare(struct generation *g)
{
	struct generation *old;

	pthread_mutex_lock(&all.lock);
	old = all.newest;
	all.newest = g;
	pthread_mutex_unlock(&all.lock);
	generation_put(old);
	gate_set_maxconn(0); /* what the admin socket said lasts until now */
}

void frontend_reload(const struct frontend_socket *sockets, size_t n)
{
	struct generation *old = front.gen;
	struct gate_socket *watched = xcalloc(n, sizeof(*watched));

	pthread_mutex_lock(&all.lock);
	front.gen = generation_get(all.newest);
	pthread_mutex_unlock(&all.lock);
	for (size_t i = 0; i < n; i++)
		watched[i] = (struct gate_socket){ sockets[i].fd, &front.gen->places[sockets[i].listener] };
	gate_renew(front.gen->conf, watched, n);
	trip_reload(front.gen);
	web_reload(front.gen);
	gate_resume();
	generation_put(old);
	free(watched);
}

/* Init and end. */

static void all_enter(struct conf *conf, struct tls_site *const *sites)
{
	pthread_mutex_lock(&all.lock);
	if (all.users++ == 0)
		all.newest = generation_new(conf, sites, NULL);
	front.gen = generation_get(all.newest);
	pthread_mutex_unlock(&all.lock);
}

static void all_leave(void)
{
	pthread_mutex_lock(&all.lock);
	generation_put(front.gen);
	front.gen = NULL;
	if (--all.users == 0) {
		generation_put(all.newest);
		all.newest = NULL;
	}
	pthread_mutex_unlock(&all.lock);
}

void frontend_init(struct conf *conf, struct tls_site *const *sites)
{
	all_enter(conf, sites);
	list_init(&front.clients);
	room_init();
	trip_init(); /* who waits has room before who comes */
	gate_init(front.gen->conf, on_client);
	web_init();
}

void frontend_fini(void)
{
	gate_fini();
	web_fini();
	trip_fini();
	room_fini();
	all_leave();
}

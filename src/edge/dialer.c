/* The agent's links: keeps so many to every hub, for ever. A slot stands for one link that shall be, and remembers how long to
 * wait before the next try; an uplink is one try: dialled, encrypted, greeted, in the registry, and in the end down.
 * A link whose hub says goodbye is replaced first and goes when its sessions are gone.
 * Owns dials, conns and carriers of its thread. Does not know what a session is for: requests go to target or registry. */
#include "mctunnel/edge/dialer.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/list.h"
#include "mctunnel/base/log.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/rnd.h"
#include "mctunnel/base/str.h"
#include "mctunnel/base/timer.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/edge/carrier.h"
#include "mctunnel/edge/check.h"
#include "mctunnel/edge/comeback.h"
#include "mctunnel/edge/target.h"
#include "mctunnel/event/thread.h"
#include "mctunnel/net/dial.h"
#include "mctunnel/net/sock.h"
#include "mctunnel/net/tls.h"
#include "mctunnel/proto/hello.h"
#include "mctunnel/tunnel/registry.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DIAL_MS 10000
#define GREET_MS 10000  /* for handshake and hello together */
#define JITTER_MS 50    /* of the first retry */
#define STABLE_MS 10000 /* a link that was up so long is replaced at once */
#define RETIRE_POLL_MS 100
#define COMPLAIN_MS 60000
#define COMPLAINTS 4

/* What went wrong with a hub, so that a log line is not repeated with every try. */
struct complaint {
	char text[160];
	uint64_t logged_ms; /* 0: never */
	unsigned count;     /* since then */
};

struct account { /* of a hub, by the address as written; the same on all threads */
	struct list node;
	unsigned refs;
	unsigned first; /* thread of its slot 0; the next slots go to the next threads */
	struct complaint complaints[COMPLAINTS];
	char text[];
};

/* Of the process. */
static struct {
	pthread_mutex_t lock; /* for all but links */
	unsigned users;
	struct list accounts; /* owned: of each hub, while some thread knows it */
	unsigned first;       /* of the next account */
	atomic_uint links;
} all = { .lock = PTHREAD_MUTEX_INITIALIZER };

struct hub {
	struct list node;  /* in here.hubs, or in none: no longer in the configuration */
	unsigned refs;     /* by here.hubs and by uplinks */
	struct conf *conf; /* shared: the one it was last part of */
	const struct endpoint *endpoint; /* of conf */
	struct account *account;         /* shared */
	char server_name[256];
	struct tls_ticket *ticket; /* owned, or NULL */
	struct list slots;         /* owned: this thread's */
};

struct slot {
	struct list node;
	struct hub *hub;
	unsigned number;
	struct uplink *up; /* NULL: waits for its timer */
	struct timer retry;
	uint32_t backoff; /* 0: the next retry is at once */
};

enum uplink_state {
	DIALLING,
	HANDSHAKING,
	GREETING, /* AGENT is sent, HUB not here yet */
	CLAIMING, /* HUB said welcome, the registry has not answered yet: requests may come */
	UP,
	RETIRING, /* up, but replaced */
	LEAVING,  /* refused: the connection is being closed */
};

struct uplink {
	struct list node;
	uint64_t serial;
	struct slot *slot; /* NULL: retiring */
	struct hub *hub;   /* shared */
	struct conf *conf; /* shared: what it was dialled under */
	enum uplink_state state;
	struct dial *dial;       /* DIALLING */
	struct conn *conn;       /* HANDSHAKING */
	struct carrier *carrier; /* from GREETING on */
	struct timer deadline;   /* until UP; then for retiring */
	struct list pending;     /* resumptions asked for while CLAIMING; the stream limit bounds them */
	uint64_t id;             /* in the registry; 0: none */
	struct advert *advert;   /* shared */
	uint64_t started_ms, up_ms, retire_ms;
	uint32_t retry_after_ms;
	bool resumed;
	bool asked; /* an AGENT frame is not answered yet: no other is sent before ... */
	bool stale; /* ... though there is a newer one */
	enum reason why; /* LEAVING */
	char text[160];  /* LEAVING: what the log shall say */
	char addr[ADDR_TEXT];
};

struct pending {
	struct list node;
	int32_t stream;
	struct h2_fields f;
};

static _Thread_local struct {
	struct conf *conf; /* shared */
	struct tls *tls;   /* borrowed */
	uint8_t instance[16];
	struct list hubs;  /* owned: those of the configuration */
	struct list uplinks;
	uint64_t serial; /* of the newest */
	char *hello; /* owned: the AGENT frame */
	size_t hello_len;
	bool outdated;          /* it has to be made anew before it is sent */
	struct deferred change; /* somebody may want to hear of it */
	bool draining;
} here;

static void slot_start(struct slot *s);
static void build_hello(void);

/* Words for the log. */

static void log_link(struct log_rec *r, const struct uplink *u, enum log_level level, const char *event)
{
	log_begin(r, level, event);
	log_str(r, "hub", u->advert ? u->advert->name : u->hub->endpoint->text);
	log_str(r, "addr", u->addr[0] ? u->addr : u->hub->endpoint->text);
}

static struct complaint *complaint_of(struct account *a, const char *text)
{
	struct complaint *c = a->complaints, *oldest = c;

	for (int i = 0; i < COMPLAINTS; i++) {
		if (c[i].logged_ms && strcmp(c[i].text, text) == 0)
			return &c[i];
		if (c[i].logged_ms < oldest->logged_ms)
			oldest = &c[i];
	}
	oldest->logged_ms = 0;
	oldest->count = 0;
	str_copy(oldest->text, sizeof(oldest->text), text);
	return oldest;
}

/* How often since it was last said; 0: not to be said again yet. */
static unsigned count_complaint(struct account *a, const char *text)
{
	uint64_t now = clock_ms();
	struct complaint *c;
	unsigned n;

	pthread_mutex_lock(&all.lock);
	c = complaint_of(a, text);
	n = ++c->count;
	if (c->logged_ms && now - c->logged_ms < COMPLAIN_MS) {
		n = 0;
	} else {
		c->logged_ms = now;
		c->count = 0;
	}
	pthread_mutex_unlock(&all.lock);
	return n;
}

static void log_trouble(const struct uplink *u, const char *event, const char *reason, const char *text)
{
	char what[160];
	struct log_rec r;
	unsigned n;

	str_copy(what, sizeof(what), text);
	n = count_complaint(u->hub->account, what);
	if (!log_wants(n ? LOG_WARNING : LOG_DEBUG))
		return;
	log_link(&r, u, n ? LOG_WARNING : LOG_DEBUG, event);
	if (reason)
		log_str(&r, "reason", reason);
	log_str(&r, "text", what);
	if (n)
		log_int(&r, "count", n);
	log_end(&r);
}

static void log_up(const struct uplink *u)
{
	struct log_rec r;

	log_link(&r, u, LOG_NOTICE, "link_up");
	log_str(&r, "agent", here.conf->agent.name);
	log_str(&r, "tunnel", here.conf->agent.tunnel);
	log_str(&r, "resumed", u->resumed ? "yes" : "no");
	log_int(&r, "ms", (int64_t)(clock_ms() - u->started_ms));
	log_end(&r);
}

static void log_down(const struct uplink *u, enum reason why, const char *text)
{
	struct log_rec r;

	log_link(&r, u, why == REASON_DONE || why == REASON_STOPPED || u->state == RETIRING ? LOG_NOTICE : LOG_WARNING, "link_down");
	log_str(&r, "reason", reason_word(why));
	log_str(&r, "text", text);
	log_int(&r, "sessions", (int64_t)link_sessions(carrier_link(u->carrier)));
	log_int(&r, "ms", (int64_t)(clock_ms() - u->up_ms));
	log_end(&r);
}

static void log_retire(const struct uplink *u, enum reason why)
{
	struct log_rec r;

	log_link(&r, u, LOG_NOTICE, "link_goaway");
	log_str(&r, "reason", reason_word(why));
	log_int(&r, "sessions", (int64_t)link_sessions(carrier_link(u->carrier)));
	log_end(&r);
}

/* Hubs. */

static struct account *account_of(const char *text)
{
	list_for_each(n, &all.accounts) {
		struct account *a = container_of(n, struct account, node);

		if (strcmp(a->text, text) == 0)
			return a;
	}
	return NULL;
}

/* All threads ask for new ones in the order of the configuration, so that the first to ask decides for all. */
static struct account *account_get(const char *text, unsigned links)
{
	size_t size = strlen(text) + 1;
	struct account *a;

	pthread_mutex_lock(&all.lock);
	a = account_of(text);
	if (!a) {
		a = xcalloc(1, sizeof(*a) + size);
		memcpy(a->text, text, size);
		a->first = all.first % (unsigned)thread_count();
		all.first += links;
		list_add(&all.accounts, &a->node);
	}
	a->refs++;
	pthread_mutex_unlock(&all.lock);
	return a;
}

static void account_put(struct account *a)
{
	pthread_mutex_lock(&all.lock);
	if (--a->refs == 0) {
		list_del(&a->node);
		free(a);
	}
	pthread_mutex_unlock(&all.lock);
}

static struct hub *hub_get(struct hub *h)
{
	h->refs++;
	return h;
}

static void hub_put(struct hub *h)
{
	if (--h->refs > 0)
		return;
	tls_ticket_free(h->ticket);
	account_put(h->account);
	conf_put(h->conf);
	free(h);
}

/* The end of an uplink. */

static bool is_up(const struct uplink *u)
{
	return u->state == UP || u->state == RETIRING;
}

static void drop_pending(struct uplink *u)
{
	while (!list_empty(&u->pending)) {
		struct pending *p = list_first(&u->pending, struct pending, node);

		list_del(&p->node);
		mem_put(MEM_OTHER, p);
	}
}

static void keep_ticket(struct uplink *u)
{
	struct tls_ticket *t = tls_take_ticket(carrier_conn(u->carrier));

	if (!t)
		return;
	tls_ticket_free(u->hub->ticket);
	u->hub->ticket = t;
}

/* Sessions are parked where others will find them; a link without a place in the registry has none. */
static void carrier_down(struct uplink *u, enum reason why)
{
	struct list none;

	list_init(&none);
	keep_ticket(u);
	link_down(carrier_link(u->carrier), why, u->id ? registry_parking(u->id) : &none);
	BUG_ON(!list_empty(&none));
	if (u->id)
		registry_gone(u->id);
	carrier_free(u->carrier);
}

static void uplink_free(struct uplink *u, enum reason why)
{
	if (is_up(u)) {
		atomic_fetch_sub(&all.links, 1);
		if (!here.conf->hub.set)
			comeback_lost(here.conf->agent.tunnel, here.conf->agent.name);
	}
	timer_stop(&u->deadline);
	drop_pending(u);
	if (u->dial)
		dial_cancel(u->dial);
	if (u->conn)
		conn_abort(u->conn);
	if (u->carrier)
		carrier_down(u, why);
	advert_put(u->advert);
	hub_put(u->hub);
	conf_put(u->conf);
	list_del(&u->node);
	mem_put(MEM_OTHER, u);
}

/* At once with jitter the first time, then the pause grows; full jitter, so that agents do not come in step. */
static uint32_t next_delay(struct slot *s)
{
	const struct conf_agent *a = &here.conf->agent;
	uint32_t low = a->backoff_min / 2, now = s->backoff;

	if (now == 0) {
		s->backoff = a->backoff_min;
		return rnd_below(JITTER_MS + 1);
	}
	s->backoff = now < a->backoff_max / 2 ? now * 2 : a->backoff_max;
	return low + rnd_below(now > low ? now - low + 1 : 1);
}

static void slot_again(struct slot *s, uint32_t hint_ms)
{
	s->up = NULL;
	if (here.draining)
		return;
	timer_start(&s->retry, hint_ms ? hint_ms + rnd_below(hint_ms / 4 + JITTER_MS) : next_delay(s));
}

/* One that was up, be it for a moment, is missed by its sessions: never more than the shortest pause. */
static void forgive(struct slot *s, const struct uplink *u)
{
	if (clock_ms() - u->up_ms >= STABLE_MS)
		s->backoff = 0;
	else if (s->backoff > here.conf->agent.backoff_min)
		s->backoff = here.conf->agent.backoff_min;
}

static void uplink_lost(struct uplink *u, enum reason why, const char *text)
{
	struct slot *s = u->slot;
	uint32_t hint = u->retry_after_ms;

	if (is_up(u))
		log_down(u, why, text);
	else if (u->state == LEAVING)
		log_trouble(u, "link_refused", reason_word(u->why), u->text);
	else
		log_trouble(u, "link_failed", NULL, text);
	if (s && is_up(u))
		forgive(s, u);
	uplink_free(u, why);
	if (s)
		slot_again(s, hint);
}

/* From within the link's own calls: it goes when what was said is sent. */
static void uplink_leave(struct uplink *u, enum reason why, const char *text)
{
	u->state = LEAVING;
	u->why = why;
	str_copy(u->text, sizeof(u->text), text);
	carrier_finish(u->carrier);
}

static void retire_poll(struct uplink *u)
{
	if (link_idle(carrier_link(u->carrier)) || clock_ms() >= u->retire_ms)
		carrier_finish(u->carrier);
	else
		timer_start(&u->deadline, RETIRE_POLL_MS);
}

static void on_deadline(struct timer *t)
{
	struct uplink *u = container_of(t, struct uplink, deadline);

	if (u->state == RETIRING)
		retire_poll(u);
	else
		uplink_lost(u, REASON_LINK_DEAD, u->state == HANDSHAKING ? "no TLS handshake within 10 s" : "no welcome within 10 s");
}

/* Life of a link. */

static void on_down(void *owner, enum reason why, const char *text)
{
	uplink_lost(owner, why, text && text[0] ? text : reason_text(why));
}

/* It carries what it has and takes nothing new. */
static void uplink_retire(struct uplink *u, enum reason why, uint64_t until_ms)
{
	log_retire(u, why);
	registry_retire(u->id);
	u->state = RETIRING;
	u->slot = NULL;
	u->retire_ms = until_ms;
	timer_start(&u->deadline, RETIRE_POLL_MS);
}

static void on_goaway(void *owner, enum reason why)
{
	struct uplink *u = owner;
	struct slot *s = u->slot;

	if (u->state != UP)
		return; /* its end follows */
	/* a hub that drains will end; one that has no place for us any more leaves us the sessions */
	uplink_retire(u, why, why == REASON_IDENTITY ? UINT64_MAX : clock_ms() + here.conf->global.hard_stop_after);
	forgive(s, u);
	slot_again(s, 0);
}

static void on_request(void *owner, int32_t stream, const struct h2_fields *f)
{
	struct uplink *u = owner;
	struct pending *p;

	if (!is_up(u) && u->state != CLAIMING) {
		link_refuse(carrier_link(u->carrier), stream, REASON_PROTOCOL);
	} else if (!f->resume) {
		target_request(carrier_link(u->carrier), stream, f, u->advert->name);
	} else if (is_up(u)) {
		registry_claim_session(u->id, stream, f);
	} else if ((p = mem_get(MEM_OTHER, sizeof(*p)))) {
		p->stream = stream;
		p->f = *f;
		list_add(&u->pending, &p->node);
	} else {
		link_refuse(carrier_link(u->carrier), stream, REASON_RESOURCES);
	}
}

static void answer_pending(struct uplink *u)
{
	list_for_each(n, &u->pending) {
		struct pending *p = container_of(n, struct pending, node);

		registry_claim_session(u->id, p->stream, &p->f);
	}
	drop_pending(u);
}

/* The thread it proposes is ignored: an agent's links stay where their slots are. */
static void on_verdict(void *arg, const struct registry_verdict *v)
{
	struct uplink *u = arg;

	if (u->state != CLAIMING)
		return;
	if (!v->accepted) {
		uplink_leave(u, v->why, reason_text(v->why));
		return;
	}
	u->state = UP;
	u->up_ms = clock_ms();
	timer_stop(&u->deadline);
	atomic_fetch_add(&all.links, 1);
	if (!here.conf->hub.set) /* else the hub of this process counts it */
		comeback_up(here.conf->agent.tunnel, here.conf->agent.name);
	registry_up(u->id, carrier_link(u->carrier), u->advert);
	log_up(u);
	answer_pending(u);
}

static void log_refused(const struct hub_hello *h)
{
	for (size_t i = 0; i < h->refused_n; i++)
		log_warning("hub %s does not allow the service %s", h->name, h->refused[i]);
}

static void welcome(struct uplink *u, const struct hub_hello *h)
{
	struct link *l = carrier_link(u->carrier);

	u->advert = advert_new();
	str_copy(u->advert->name, sizeof(u->advert->name), h->name);
	str_copy(u->advert->addr, sizeof(u->advert->addr), u->addr);
	str_copy(u->advert->version, sizeof(u->advert->version), h->version);
	memcpy(u->advert->instance, h->instance, sizeof(u->advert->instance));
	log_refused(h);
	link_set_peer(l, h->instance); /* for sessions that come before the registry's answer */
	link_heartbeat(l, h->heartbeat_interval_ms, h->heartbeat_timeout_ms);
	sock_user_timeout(conn_fd(carrier_conn(u->carrier)), h->heartbeat_timeout_ms);
	keep_ticket(u);
	u->state = CLAIMING;
	u->id = registry_claim(u->advert, false, UINT32_MAX, on_verdict, u);
}

static void tell(struct uplink *u)
{
	u->stale = u->asked;
	if (u->asked)
		return;
	u->asked = true;
	if (here.outdated)
		build_hello();
	link_hello(carrier_link(u->carrier), H2_FRAME_AGENT, here.hello, here.hello_len);
}

static void answered(struct uplink *u, const struct hub_hello *h)
{
	if (h->accepted) {
		welcome(u, h);
		return;
	}
	u->retry_after_ms = h->retry_after_ms;
	uplink_leave(u, reason_from_word(h->reason, REASON_DENIED), h->text[0] ? h->text : h->reason);
}

static void hear(struct uplink *u, const char *json, size_t len)
{
	struct hub_hello h;
	char err[128];
	int rv = hello_hub_parse(&h, json, len, err, sizeof(err));

	if (rv < 0) {
		if (u->state == GREETING)
			uplink_leave(u, rv == HELLO_STARVED ? REASON_RESOURCES : REASON_PROTOCOL, err);
		return;
	}
	if (u->state == GREETING)
		answered(u, &h);
	else
		log_refused(&h); /* our services or its rules have changed */
	hello_hub_fini(&h);
}

static void on_hello(void *owner, enum h2_frame type, const char *json, size_t len)
{
	struct uplink *u = owner;

	if (type != H2_FRAME_HUB)
		return;
	u->asked = false;
	if (u->state == GREETING || u->state == UP)
		hear(u, json, len);
	if (u->stale && u->state != LEAVING)
		tell(u);
}

static const struct carrier_events carrier_events = {
	.on_hello = on_hello,
	.on_request = on_request,
	.on_goaway = on_goaway,
	.on_down = on_down,
};

/* Birth of a link. */

static void greet(struct uplink *u)
{
	u->resumed = tls_resumed(u->conn);
	u->carrier = carrier_new(H2_AGENT, u->conn, here.conf->global.maxconn, &carrier_events, u);
	if (!u->carrier) {
		uplink_lost(u, REASON_RESOURCES, reason_text(REASON_RESOURCES));
		return;
	}
	u->conn = NULL;
	u->state = GREETING;
	here.outdated = true; /* it says how long things have been as they are */
	tell(u);
}

static void on_tls(struct conn *c)
{
	struct uplink *u = c->owner;

	if (tls_state(c) == TLS_FAILED)
		uplink_lost(u, conn_reason(c, REASON_LINK_CLOSED), tls_failure(c));
	else if (tls_state(c) == TLS_UP && strcmp(tls_alpn(c), TLS_ALPN_LINK) != 0)
		uplink_lost(u, REASON_PROTOCOL, "the other side is no hub: it does not speak " TLS_ALPN_LINK);
	else if (tls_state(c) == TLS_UP)
		greet(u);
}

/* Until the TLS layer takes it over, which follows at once. */
static void not_yet(struct conn *c)
{
}

static bool encrypt(struct uplink *u, int fd)
{
	struct conn *plain = conn_tcp(fd, not_yet, u);

	if (!plain) {
		close(fd);
		return false;
	}
	u->conn = tls_connect(here.tls, plain, u->hub->server_name, u->hub->ticket, on_tls, u);
	if (!u->conn)
		conn_abort(plain);
	return u->conn != NULL;
}

static void on_dialled(void *arg, struct dial_result *r)
{
	struct uplink *u = arg;

	u->dial = NULL;
	if (r->fd < 0) {
		uplink_lost(u, REASON_LINK_CLOSED, r->why);
		return;
	}
	addr_text(&r->to, u->addr, sizeof(u->addr));
	sock_user_timeout(r->fd, here.conf->agent.heartbeat_timeout);
	u->state = HANDSHAKING;
	timer_start(&u->deadline, GREET_MS);
	if (!encrypt(u, r->fd))
		uplink_lost(u, REASON_RESOURCES, reason_text(REASON_RESOURCES));
}

static bool dial_hub(struct uplink *u)
{
	const struct conf_agent *a = &u->conf->agent; /* lent to the dial */
	struct dial_options o = { .timeout_ms = DIAL_MS, .second_attempt = true };

	if (a->proxy.text) {
		o.proxy = &a->proxy;
		o.proxy_auth = a->proxy_auth;
	}
	u->dial = dial_start(u->hub->endpoint, &o, on_dialled, u);
	return u->dial != NULL;
}

static struct uplink *uplink_new(struct slot *s)
{
	struct uplink *u = mem_get(MEM_OTHER, sizeof(*u));

	if (!u)
		return NULL;
	u->slot = s;
	u->hub = hub_get(s->hub);
	u->conf = conf_get(here.conf);
	u->started_ms = clock_ms();
	timer_init(&u->deadline, on_deadline);
	list_init(&u->pending);
	u->serial = ++here.serial;
	list_add(&here.uplinks, &u->node);
	return u;
}

static void slot_start(struct slot *s)
{
	s->up = uplink_new(s);
	if (!s->up)
		slot_again(s, 0);
	else if (!dial_hub(s->up))
		uplink_lost(s->up, REASON_RESOURCES, reason_text(REASON_RESOURCES));
}

static void on_retry(struct timer *t)
{
	slot_start(container_of(t, struct slot, retry));
}

/* Init and end. */

static void describe_check(struct hello_service *s, const struct check_view *v)
{
	s->up = v->up;
	s->weight = (uint16_t)v->weight;
	s->code = v->why.code;
	s->since_ms = clock_ms() - v->since_ms;
	str_copy(s->status, sizeof(s->status), check_status_word(v->why.status));
	str_copy(s->text, sizeof(s->text), v->why.text[0] ? v->why.text : check_status_text(v->why.status));
}

/* For so many services only what counts: up or down. */
static void forget_checks(struct agent_hello *h)
{
	for (size_t i = 0; i < h->services_n; i++)
		h->services[i].status[0] = '\0';
}

static void take_check(void *arg, size_t service, const struct check_view *v)
{
	struct agent_hello *h = arg;

	describe_check(&h->services[service], v);
}

/* All links of the process number the same facts in the same way, so that a hub knows which of them are newer. */
static void describe_services(struct agent_hello *h)
{
	for (size_t i = 0; i < h->services_n; i++) {
		const struct conf_service *conf = &here.conf->agent.services[i];
		struct hello_service *s = &h->services[i];

		str_copy(s->name, sizeof(s->name), conf->name);
		s->weight = (uint16_t)conf->weight;
		s->maxconn = conf->maxconn;
		s->proxy = conf->send_proxy != SEND_PROXY_NONE;
		s->up = true;
	}
	h->serial = 2 * check_survey(here.conf, take_check, h) + h->draining;
}

static void build_hello(void)
{
	const struct conf_agent *a = &here.conf->agent;
	struct agent_hello h = { .protocol = HELLO_PROTOCOL, .draining = here.draining, .services_n = a->services_n };

	h.services = xcalloc(a->services_n, sizeof(*h.services));
	str_copy(h.name, sizeof(h.name), a->name);
	str_copy(h.tunnel, sizeof(h.tunnel), a->tunnel);
	str_copy(h.version, sizeof(h.version), MCTUNNEL_VERSION);
	memcpy(h.instance, here.instance, sizeof(h.instance));
	describe_services(&h);
	here.outdated = false;
	free(here.hello);
	here.hello = hello_agent_build(&h, &here.hello_len);
	if (here.hello && here.hello_len > HELLO_SIZE_MAX) {
		free(here.hello);
		forget_checks(&h);
		here.hello = hello_agent_build(&h, &here.hello_len);
	}
	free(h.services);
	if (!here.hello)
		die("out of memory");
}

static void tell_all(void)
{
	list_for_each(n, &here.uplinks) {
		struct uplink *u = container_of(n, struct uplink, node);

		if (u->carrier && u->state != LEAVING)
			tell(u);
	}
}

static void on_changed(struct deferred *d)
{
	here.outdated = true;
	tell_all();
}

/* Tickets go: what comes next shall be judged by the certificates of now. */
static void hub_set(struct hub *h, const struct endpoint *e)
{
	const struct conf_agent *a = &here.conf->agent;
	struct conf *old = h->conf;

	h->conf = conf_get(here.conf);
	conf_put(old);
	h->endpoint = e;
	tls_ticket_free(h->ticket);
	h->ticket = NULL;
	if (a->server_name)
		str_copy(h->server_name, sizeof(h->server_name), a->server_name);
	else if (e->host)
		str_copy(h->server_name, sizeof(h->server_name), e->host);
	else
		addr_host_text(&e->addr, h->server_name, sizeof(h->server_name));
}

static struct hub *hub_new(const struct endpoint *e)
{
	struct hub *h = xcalloc(1, sizeof(*h));

	h->refs = 1;
	h->account = account_get(e->text, here.conf->agent.links);
	list_init(&h->slots);
	list_add(&here.hubs, &h->node);
	return h;
}

static void slot_new(struct hub *h, unsigned number)
{
	struct slot *s = xcalloc(1, sizeof(*s));

	s->hub = h;
	s->number = number;
	timer_init(&s->retry, on_retry);
	timer_start(&s->retry, 0);
	list_add(&h->slots, &s->node);
}

static bool has_slot(const struct hub *h, unsigned number)
{
	list_for_each(n, &h->slots) {
		if (container_of(n, struct slot, node)->number == number)
			return true;
	}
	return false;
}

static void slot_free(struct slot *s)
{
	timer_stop(&s->retry);
	list_del(&s->node);
	free(s);
}

/* The configuration has it no longer. Its sessions are not hurried. */
static void slot_drop(struct slot *s)
{
	struct uplink *u = s->up;

	if (u && u->state == UP) {
		link_goaway(carrier_link(u->carrier), REASON_DRAINING);
		uplink_retire(u, REASON_DRAINING, UINT64_MAX);
	} else if (u) {
		uplink_free(u, REASON_DRAINING);
	}
	slot_free(s);
}

/* As many slots as this thread shall have. */
static void hub_fill(struct hub *h)
{
	unsigned links = here.conf->agent.links, threads = (unsigned)thread_count();

	list_for_each_safe(n, &h->slots) {
		struct slot *s = container_of(n, struct slot, node);

		if (s->number >= links)
			slot_drop(s);
	}
	for (unsigned i = 0; i < links; i++) {
		if ((h->account->first + i) % threads == (unsigned)thread_self() && !has_slot(h, i))
			slot_new(h, i);
	}
}

static void hub_drop(struct hub *h)
{
	list_for_each_safe(n, &h->slots)
		slot_drop(container_of(n, struct slot, node));
	list_del(&h->node);
	hub_put(h);
}

static struct hub *hub_by_text(struct list *hubs, const char *text)
{
	list_for_each(n, hubs) {
		struct hub *h = container_of(n, struct hub, node);

		if (strcmp(h->account->text, text) == 0)
			return h;
	}
	return NULL;
}

/* From the hubs there are to those of here.conf. */
static void hubs_renew(void)
{
	const struct conf_agent *a = &here.conf->agent;
	struct list olds;

	list_init(&olds);
	list_splice(&olds, &here.hubs);
	for (size_t i = 0; i < a->hubs_n; i++) {
		struct hub *h = hub_by_text(&olds, a->hubs[i].text);

		if (h) {
			list_del(&h->node);
			list_add(&here.hubs, &h->node);
		} else {
			h = hub_new(&a->hubs[i]);
		}
		hub_set(h, &a->hubs[i]);
		hub_fill(h);
	}
	while (!list_empty(&olds))
		hub_drop(list_first(&olds, struct hub, node));
}

static void all_enter(void)
{
	pthread_mutex_lock(&all.lock);
	if (all.users++ == 0) {
		list_init(&all.accounts);
		all.first = 0;
	}
	pthread_mutex_unlock(&all.lock);
}

static void all_leave(void)
{
	pthread_mutex_lock(&all.lock);
	all.users--;
	pthread_mutex_unlock(&all.lock);
}

void dialer_init(struct conf *conf, struct tls *tls, const uint8_t instance[16])
{
	all_enter();
	here.conf = conf_get(conf);
	here.tls = tls;
	here.draining = false;
	memcpy(here.instance, instance, sizeof(here.instance));
	list_init(&here.uplinks);
	list_init(&here.hubs);
	deferred_init(&here.change, on_changed);
	here.outdated = true;
	hubs_renew();
}

/* Whoever waits for its next try does it at once: the reload may be the cure. */
static void retry_all(void)
{
	list_for_each(n, &here.hubs) {
		list_for_each(m, &container_of(n, struct hub, node)->slots) {
			struct slot *s = container_of(m, struct slot, node);

			if (s->up)
				continue;
			s->backoff = 0;
			timer_start(&s->retry, rnd_below(JITTER_MS + 1));
		}
	}
}

void dialer_changed(void)
{
	if (here.conf)
		loop_defer(&here.change);
}

void dialer_reload(struct conf *conf, struct tls *tls)
{
	struct conf *old = here.conf;

	here.conf = conf_get(conf);
	here.tls = tls;
	here.outdated = true;
	hubs_renew();
	conf_put(old);
	tell_all();
	retry_all();
}

static void stop_retrying(void)
{
	list_for_each(n, &here.hubs) {
		list_for_each(m, &container_of(n, struct hub, node)->slots)
			timer_stop(&container_of(m, struct slot, node)->retry);
	}
}

void dialer_drain(void)
{
	here.draining = true;
	here.outdated = true;
	stop_retrying();
	list_for_each_safe(n, &here.uplinks) {
		struct uplink *u = container_of(n, struct uplink, node);

		if (is_up(u)) {
			tell(u);
		} else {
			u->slot->up = NULL;
			uplink_free(u, REASON_DRAINING);
		}
	}
}

static void uplink_stop(struct uplink *u)
{
	if (is_up(u)) {
		log_down(u, REASON_STOPPED, reason_text(REASON_STOPPED));
		link_stop(carrier_link(u->carrier), REASON_STOPPED);
		carrier_farewell(u->carrier);
	}
	if (u->slot)
		u->slot->up = NULL;
	uplink_free(u, REASON_STOPPED);
}

void dialer_stop(void)
{
	here.draining = true;
	stop_retrying();
	loop_undefer(&here.change);
	while (!list_empty(&here.uplinks))
		uplink_stop(list_first(&here.uplinks, struct uplink, node));
}

void dialer_fini(void)
{
	dialer_stop();
	while (!list_empty(&here.hubs))
		hub_drop(list_first(&here.hubs, struct hub, node));
	free(here.hello);
	conf_put(here.conf);
	memset(&here, 0, sizeof(here));
	all_leave();
}

uint32_t dialer_links(void)
{
	return atomic_load(&all.links);
}

/* For the admin socket. */

static struct dialer_link view(const struct uplink *u)
{
	static const char *const states[] = { "dialling", "handshake", "greeting", "greeting", "up", "retiring", "leaving" };
	const struct link *l = u->carrier ? carrier_link(u->carrier) : NULL;

	return (struct dialer_link){ .id = u->id,
				     .age_ms = clock_ms() - (is_up(u) ? u->up_ms : u->started_ms),
				     .hub = u->advert ? u->advert->name : u->hub->endpoint->text,
				     .addr = u->addr[0] ? u->addr : u->hub->endpoint->text,
				     .version = u->advert ? u->advert->version : NULL,
				     .state = states[u->state],
				     .sessions = l ? (uint32_t)link_sessions(l) : 0,
				     .rtt_us = l ? link_rtt_us(l) : 0 };
}

bool dialer_each(uint64_t *cursor, enum visit (*visit)(void *, const struct dialer_link *), void *arg)
{
	if (!here.conf)
		return true;
	list_for_each_safe(n, &here.uplinks) {
		struct uplink *u = container_of(n, struct uplink, node);

		if (u->serial <= *cursor)
			continue;
		*cursor = u->serial;
		struct dialer_link v = view(u);
		enum visit next = visit(arg, &v);
		if (next == VISIT_STOP)
			return false;
		if (next == VISIT_KILL && is_up(u))
			uplink_lost(u, REASON_KILLED, reason_text(REASON_KILLED));
	}
	return true;
}

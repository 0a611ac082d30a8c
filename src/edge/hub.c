/* The hub's own port. A guest is a connection that arrived there: TLS, then the AGENT frame, then (if its certificate entitles it) a claim in the
 * registry, a move to the thread that shall carry it, the HUB frame, and it is a link. Owns the guests of its thread; what the
 * links carry is none of its business. */
#include "mctunnel/edge/hub.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/list.h"
#include "mctunnel/base/log.h"
#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/stat.h"
#include "mctunnel/base/str.h"
#include "mctunnel/base/timer.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/edge/carrier.h"
#include "mctunnel/edge/comeback.h"
#include "mctunnel/edge/health.h"
#include "mctunnel/edge/policy.h"
#include "mctunnel/event/thread.h"
#include "mctunnel/net/conn.h"
#include "mctunnel/net/reserve.h"
#include "mctunnel/net/sock.h"
#include "mctunnel/net/tls.h"
#include "mctunnel/proto/h2_server.h"
#include "mctunnel/proto/hello.h"
#include "mctunnel/tunnel/registry.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ACCEPT_BATCH 32
#define GREET_MS 10000        /* for handshake and AGENT frame together */
#define PAUSE_MS 100          /* after running out of descriptors */
#define MERCY_MS 1000         /* when all handshakes are taken, the oldest is given up, but not before it had this long */
#define UPDATE_MS 10          /* between two AGENT frames of a link, and ... */
#define UPDATE_BYTES 1024     /* ... a millisecond more for each so many bytes: what comes meanwhile replaces what waits */
#define CLAIM_AGAIN_MS 100    /* a name in use may be that of a dying link: ask again until the heartbeat would have told, ... */
#define CLAIM_MOST_MS 5000    /* ... but answer before the agent has given up, which it does GREET_MS after it has dialled */
#define RETRY_NAME_MS 5000
#define RETRY_LIMIT_MS 5000
#define LOG_BURST 50          /* lines about refused connections at once, and ... */
#define LOG_RATE 10           /* ... so many a second from then on */
#define NEWS_BURST 2000       /* the same for lines about services that went up or down */
#define NEWS_RATE 100

enum guest_state { GUEST_ARRIVED, GUEST_HANDSHAKE, GUEST_SILENT, GUEST_CLAIMING, GUEST_UP, GUEST_REFUSED };

struct guest {
	struct list node;
	struct list early;       /* of those whose handshake is not over, the oldest first */
	uint64_t serial;         /* on its thread */
	enum guest_state state;
	struct conn *conn;       /* owned until the carrier has it */
	struct tls *tls;         /* shared */
	struct carrier *carrier; /* owned */
	struct advert *advert;   /* shared */
	struct timer timer;      /* deadline of the greeting; next claim; when an update may be heard */
	uint64_t claim;
	uint64_t began_ms, heard_ms; /* heard: the last AGENT frame was dealt with */
	bool joined;             /* it counts as a link */
	bool goodbye;            /* its GOAWAY came: an end in good order may follow */
	char addr[ADDR_TEXT];
	char **refused;          /* owned: services that the tunnel does not allow */
	size_t refused_n;
	char *said;              /* owned: its last AGENT frame */
	size_t said_len;
	uint64_t judged;         /* the generation of the configuration that let it in */
	bool unheard;            /* said has come since */
	bool unwelcome;          /* no longer entitled: it carries what it has */
};

struct door { /* a listening socket */
	struct list node;
	struct watch watch;
	int fd;
	struct tls *tls;
	bool paused, early; /* early: see sock_accept() */
};

struct bucket { /* of log lines */
	uint32_t level;
	uint64_t ms, suppressed;
};

struct hub {
	struct conf *conf;
	struct map *tunnels;     /* owned: those of conf, by name */
	struct tls *const *tls;
	const uint8_t *instance;
	struct list guests, doors, early;
	uint64_t serial;         /* of the newest guest */
	struct timer resume, mercy;
	unsigned handshakes;
	bool scarce;             /* the last guest got a descriptor of the reserve */
	struct bucket lines, news;
	bool draining;
	uint64_t generation;     /* of conf; the same on all threads */
};

static _Thread_local struct hub hub;

static void guest_free(struct guest *g);

static void enlist(struct guest *g)
{
	g->serial = ++hub.serial;
	list_add(&hub.guests, &g->node);
}

/* ---- log ---- */

static bool bucket_take(struct bucket *b, uint32_t burst, uint32_t rate)
{
	uint64_t now = clock_ms(), leaked = (now - b->ms) * rate / 1000;
	if (leaked) {
		b->level = leaked > b->level ? 0 : b->level - (uint32_t)leaked;
		b->ms = now;
	}
	if (b->level >= burst) {
		b->suppressed++;
		return false;
	}
	b->level++;
	return true;
}

static bool may_log(void)
{
	return bucket_take(&hub.lines, LOG_BURST, LOG_RATE);
}

static void log_guest(enum log_level level, const char *event, const struct guest *g, enum reason why, const char *text)
{
	struct log_rec r;
	struct conn *c = g->carrier ? carrier_conn(g->carrier) : g->conn;
	log_begin(&r, level, event);
	log_str(&r, "agent", g->advert ? g->advert->name : NULL);
	log_str(&r, "tunnel", g->advert ? g->advert->tunnel : NULL);
	log_str(&r, "addr", g->addr);
	log_str(&r, "cert", g->state == GUEST_ARRIVED ? "" : tls_peer_subject(c));
	if (why != REASON_COUNT) {
		log_str(&r, "reason", reason_word(why));
		log_str(&r, "text", text);
	} else {
		log_str(&r, "version", g->advert->version);
		log_str(&r, "resumed", tls_resumed(c) ? "yes" : "no");
		log_int(&r, "services", (int64_t)g->advert->services_n);
		log_int(&r, "ms", (int64_t)(clock_ms() - g->began_ms));
	}
	log_end(&r);
}

static void log_refusal(const struct guest *g, enum reason why, const char *text)
{
	stat_add(STAT_LINK_REFUSED, 1);
	if (!may_log())
		return;
	if (hub.lines.suppressed)
		log_warning("%llu more connections to the hub's port were refused", (unsigned long long)hub.lines.suppressed);
	hub.lines.suppressed = 0;
	log_guest(LOG_WARNING, "link_refused", g, why, text);
}

/* ---- greeting ---- */

static void send_hub_frame(struct guest *g, enum reason why, const char *text, uint32_t retry_ms)
{
	struct hub_hello h = {.protocol = HELLO_PROTOCOL, .accepted = why == REASON_COUNT, .retry_after_ms = retry_ms};
	size_t len;
	str_copy(h.name, sizeof h.name, hub.conf->hub.name);
	str_copy(h.version, sizeof h.version, MCTUNNEL_VERSION);
	memcpy(h.instance, hub.instance, sizeof h.instance);
	h.heartbeat_interval_ms = hub.conf->hub.heartbeat_interval;
	h.heartbeat_timeout_ms = hub.conf->hub.heartbeat_timeout;
	h.resume_ms = hub.conf->defaults.resume;
	if (!h.accepted) {
		str_copy(h.reason, sizeof h.reason, reason_word(why));
		str_copy(h.text, sizeof h.text, text);
	}
	h.refused = xcalloc(g->refused_n + 1, sizeof *h.refused);
	for (; h.refused_n < g->refused_n; h.refused_n++)
		str_copy(h.refused[h.refused_n], HELLO_NAME_MAX, g->refused[h.refused_n]);
	char *json = hello_hub_build(&h, &len);
	if (json)
		link_hello(carrier_link(g->carrier), H2_FRAME_HUB, json, len);
	else
		carrier_fail(g->carrier, REASON_RESOURCES, "no memory to greet the agent"); /* it would wait for this and serve nobody */
	free(json);
	hello_hub_fini(&h);
}

/* One that had joined keeps its place until it is down: that is where its sessions are parked then. */
static void refuse(struct guest *g, enum reason why, const char *text, uint32_t retry_ms)
{
	log_refusal(g, why, text);
	if (g->joined) {
		registry_retire(g->claim);
	} else {
		if (g->claim)
			registry_gone(g->claim);
		g->claim = 0;
	}
	send_hub_frame(g, why, text, retry_ms);
	g->state = GUEST_REFUSED;
	timer_start(&g->timer, GREET_MS);
	carrier_finish(g->carrier);
}

static const struct conf_tunnel *find_tunnel(const char *name)
{
	return map_get_str(hub.tunnels, name);
}

static bool has_name(const struct conn *c, const char *name)
{
	char text[256];
	size_t n = tls_peer_name(c, 0, text, sizeof text);
	for (size_t i = 0; i < n; i++) {
		tls_peer_name(c, i, text, sizeof text);
		if (strcmp(text, name) == 0)
			return true;
	}
	return false;
}

/* The certificate decides, never what the frame says. NULL: entitled. */
static const char *objection(const struct guest *g, const struct agent_hello *h, const struct conf_tunnel *t)
{
	if (h->protocol != HELLO_PROTOCOL)
		return "speaks another version of the link protocol";
	if (!t)
		return "there is no such tunnel here";
	if (!has_name(carrier_conn(g->carrier), h->name))
		return "the agent's name is not in its certificate";
	for (size_t i = 0; i < t->agents.n; i++)
		if (strcmp(t->agents.v[i], h->name) == 0)
			return NULL;
	return "the tunnel does not list this agent";
}

static bool allowed(const struct conf_tunnel *t, const char *service)
{
	for (size_t i = 0; i < t->services.n; i++)
		if (str_glob(t->services.v[i], service))
			return true;
	return false;
}

static void forget_refused(struct guest *g)
{
	for (size_t i = 0; i < g->refused_n; i++)
		free(g->refused[i]);
	free(g->refused);
	g->refused = NULL;
	g->refused_n = 0;
}

static void log_service_refused(const struct guest *g, const char *service, const struct agent_hello *h)
{
	if (may_log()) {
		struct log_rec r;
		log_begin(&r, LOG_WARNING, "service_refused");
		log_str(&r, "agent", h->name);
		log_str(&r, "tunnel", h->tunnel);
		log_str(&r, "service", service);
		log_str(&r, "addr", g->addr);
		log_str(&r, "reason", reason_word(REASON_DENIED));
		log_str(&r, "text", "the tunnel does not allow this service");
		log_end(&r);
	}
}

static void note_refused(struct guest *g, const char *service)
{
	g->refused = xrealloc(g->refused, (g->refused_n + 1) * sizeof *g->refused);
	g->refused[g->refused_n++] = xstrdup(service);
}

static struct advert *make_advert(struct guest *g, const struct agent_hello *h, const struct conf_tunnel *t, bool quietly)
{
	struct advert *a = advert_new();
	str_copy(a->name, sizeof a->name, h->name);
	str_copy(a->tunnel, sizeof a->tunnel, h->tunnel);
	str_copy(a->addr, sizeof a->addr, g->addr);
	str_copy(a->version, sizeof a->version, h->version);
	memcpy(a->instance, h->instance, sizeof a->instance);
	a->draining = h->draining;
	a->serial = h->serial;
	a->heard_ms = g->heard_ms;
	a->services = xcalloc(h->services_n + 1, sizeof *a->services);
	forget_refused(g);
	for (size_t i = 0; i < h->services_n; i++) {
		if (allowed(t, h->services[i].name)) {
			a->services[a->services_n++] = h->services[i];
			continue;
		}
		note_refused(g, h->services[i].name);
		if (!quietly)
			log_service_refused(g, h->services[i].name, h);
	}
	return a;
}

static void log_check(const struct advert *a, const struct hello_service *s)
{
	struct log_rec r;
	if (!bucket_take(&hub.news, NEWS_BURST, NEWS_RATE))
		return;
	if (hub.news.suppressed)
		log_warning("%llu more services went up or down", (unsigned long long)hub.news.suppressed);
	hub.news.suppressed = 0;
	log_begin(&r, s->up ? LOG_NOTICE : LOG_WARNING, "check");
	log_str(&r, "agent", a->name);
	log_str(&r, "tunnel", a->tunnel);
	log_str(&r, "service", s->name);
	log_str(&r, "state", s->up ? "UP" : "DOWN");
	log_str(&r, "status", s->status);
	if (s->code)
		log_int(&r, "code", s->code);
	log_str(&r, "text", s->text);
	log_end(&r);
}

static struct map *services_by_name(const struct advert *a)
{
	struct map *m = map_new();
	for (size_t i = 0; i < a->services_n; i++)
		map_set_str(m, a->services[i].name, &a->services[i]);
	return m;
}

/* One line for each service that went up or down, whichever link said it first. The order of services is mostly the same. */
static void on_news(const struct advert *before, const struct advert *now)
{
	struct map *known = NULL;
	for (size_t i = 0; i < now->services_n; i++) {
		const struct hello_service *s = &now->services[i], *old = i < before->services_n ? &before->services[i] : NULL;
		if (!old || strcmp(old->name, s->name) != 0) {
			known = known ? known : services_by_name(before);
			old = map_get_str(known, s->name);
		}
		if (old && old->up != s->up)
			log_check(now, s);
	}
	map_free(known);
}

static void claim(struct guest *g);

static void update(struct guest *g, const struct agent_hello *h, const struct conf_tunnel *t)
{
	struct advert *a = make_advert(g, h, t, false);
	if (strcmp(a->name, g->advert->name) != 0 || strcmp(a->tunnel, g->advert->tunnel) != 0 ||
	    memcmp(a->instance, g->advert->instance, sizeof a->instance) != 0) {
		advert_put(a);
		refuse(g, REASON_PROTOCOL, "the agent changed its name on a link", 0);
		return;
	}
	advert_put(g->advert);
	g->advert = a;
	registry_update(g->claim, a);
	send_hub_frame(g, REASON_COUNT, "", 0);
}

/* What scripts say of an agent that may come in by its certificate. DONE: it may. */
static enum reason ask_policy(const struct guest *g, const struct agent_hello *h, char *why, size_t size)
{
	struct policy_agent a = {.name = h->name, .tunnel = h->tunnel, .cert = tls_peer_subject(carrier_conn(g->carrier))};
	char host[ADDR_TEXT] = "";
	struct addr addr;
	const char **services = xcalloc(h->services_n + 1, sizeof *services);
	if (addr_parse(&addr, g->addr) == 0)
		addr_host_text(&addr, host, sizeof host);
	for (size_t i = 0; i < h->services_n; i++)
		services[i] = h->services[i].name;
	a.addr = host;
	a.services = services;
	a.services_n = h->services_n;
	enum reason verdict = policy_agent(&a, why, size);
	free(services);
	return verdict;
}

static void greet(struct guest *g, const struct agent_hello *h)
{
	const struct conf_tunnel *t = find_tunnel(h->tunnel);
	const char *why_not = objection(g, h, t);
	g->judged = hub.generation;
	if (why_not) {
		char text[160];
		struct strbuf b;
		strbuf_init(&b, text, sizeof text);
		strbuf_add(&b, "%s (agent %s, tunnel %s)", why_not, h->name, h->tunnel);
		refuse(g, REASON_IDENTITY, text, 0);
		return;
	}
	if (g->state == GUEST_UP) {
		update(g, h, t);
		return;
	}
	char why[128] = "";
	enum reason verdict = ask_policy(g, h, why, sizeof why);
	if (verdict != REASON_DONE) {
		refuse(g, verdict, why, 0);
		return;
	}
	g->advert = make_advert(g, h, t, false);
	timer_stop(&g->timer); /* from now on it is for the next claim */
	g->state = GUEST_CLAIMING;
	g->began_ms = clock_ms();
	claim(g);
}

static void remember(struct guest *g, const char *json, size_t len)
{
	free(g->said);
	g->said = xmalloc(len + 1);
	memcpy(g->said, json, len);
	g->said[len] = 0;
	g->said_len = len;
}

static void hear(struct guest *g)
{
	struct agent_hello h;
	char err[160];
	g->unheard = false;
	g->heard_ms = clock_ms();
	int rv = hello_agent_parse(&h, g->said, g->said_len, err, sizeof err);
	if (rv != 0) {
		refuse(g, rv == HELLO_STARVED ? REASON_RESOURCES : REASON_PROTOCOL, err, 0);
		return;
	}
	greet(g, &h);
	hello_agent_fini(&h);
}

/* An update costs all threads something, and us an answer: not as fast as the agent likes, and not before it took our last answer. */
static void hear_in_time(struct guest *g)
{
	uint64_t due = g->heard_ms + UPDATE_MS + g->said_len / UPDATE_BYTES, now = clock_ms();
	if (!g->unheard || g->unwelcome || timer_running(&g->timer))
		return;
	if (now < due || link_hello_unsent(carrier_link(g->carrier)))
		timer_start(&g->timer, now < due ? due - now : UPDATE_MS);
	else
		hear(g);
}

static void on_hello(void *owner, enum h2_frame type, const char *json, size_t len)
{
	struct guest *g = owner;
	if (type != H2_FRAME_AGENT || g->state < GUEST_SILENT || g->state > GUEST_UP || g->unwelcome)
		return;
	remember(g, json, len);
	g->unheard = true;
	if (g->state == GUEST_UP)
		hear_in_time(g);
	else if (g->state == GUEST_SILENT)
		hear(g);
}

/* ---- a new configuration ---- */

/* No longer entitled: it takes no new sessions, those it has go on. The agent will come again, and be refused. */
static void send_away(struct guest *g, const char *why_not)
{
	g->unwelcome = true;
	log_guest(LOG_WARNING, "link_goaway", g, REASON_IDENTITY, why_not);
	link_goaway(carrier_link(g->carrier), REASON_IDENTITY);
	registry_retire(g->claim);
}

static bool same_services(const struct advert *a, const struct advert *b)
{
	if (a->services_n != b->services_n)
		return false;
	for (size_t i = 0; i < a->services_n; i++)
		if (strcmp(a->services[i].name, b->services[i].name) != 0)
			return false;
	return true;
}

static void take_services(struct guest *g, struct advert *a)
{
	struct log_rec r;
	advert_put(g->advert);
	g->advert = a;
	registry_update(g->claim, a);
	send_hub_frame(g, REASON_COUNT, "", 0);
	log_begin(&r, LOG_NOTICE, "services");
	log_str(&r, "agent", a->name);
	log_str(&r, "tunnel", a->tunnel);
	log_str(&r, "addr", g->addr);
	log_int(&r, "accepted", (int64_t)a->services_n);
	log_int(&r, "refused", (int64_t)g->refused_n);
	log_end(&r);
}

/* What it said last, under the rules of now. */
static void judge_again(struct guest *g)
{
	struct agent_hello h;
	char err[160];
	if (g->unwelcome)
		return;
	if (hello_agent_parse(&h, g->said, g->said_len, err, sizeof err) != 0) { /* it could be read once */
		carrier_fail(g->carrier, REASON_RESOURCES, err);
		return;
	}
	const struct conf_tunnel *t = find_tunnel(h.tunnel);
	const char *why_not = objection(g, &h, t);
	g->judged = hub.generation;
	if (why_not) {
		send_away(g, why_not);
	} else {
		struct advert *a = make_advert(g, &h, t, true);
		if (same_services(a, g->advert))
			advert_put(a);
		else
			take_services(g, a);
	}
	hello_agent_fini(&h);
}

/* ---- joining ---- */

static void join(struct guest *g)
{
	struct link *l = carrier_link(g->carrier);
	timer_stop(&g->timer);
	g->state = GUEST_UP;
	g->joined = true;
	sock_user_timeout(conn_fd(carrier_conn(g->carrier)), hub.conf->hub.heartbeat_timeout);
	link_heartbeat(l, hub.conf->hub.heartbeat_interval, hub.conf->hub.heartbeat_timeout);
	send_hub_frame(g, REASON_COUNT, "", 0);
	comeback_up(g->advert->tunnel, g->advert->name);
	log_guest(LOG_NOTICE, "link_up", g, REASON_COUNT, NULL);
	registry_up(g->claim, l, g->advert);
	stat_add(STAT_LINKS, 1); /* whoever reads this number asks threads that have been told */
	if (g->goodbye)
		registry_retire(g->claim);
	if (hub.draining)
		link_goaway(l, REASON_DRAINING);
	if (g->judged != hub.generation)
		judge_again(g);
	hear_in_time(g);
}

struct move_msg {
	struct msg msg;
	struct guest *guest;
};

static void run_arrive(struct msg *m)
{
	struct move_msg *mm = container_of(m, struct move_msg, msg);
	struct guest *g = mm->guest;
	free(mm);
	enlist(g);
	if (carrier_attach(g->carrier) != 0) {
		log_guest(LOG_ERROR, "link_refused", g, REASON_RESOURCES, strerror(errno));
		guest_free(g);
		return;
	}
	join(g);
}

static void move(struct guest *g, int thread)
{
	struct move_msg *mm = xcalloc(1, sizeof *mm);
	mm->msg.run = run_arrive;
	mm->guest = g;
	timer_stop(&g->timer);
	list_del(&g->node);
	carrier_detach(g->carrier);
	thread_post(thread, &mm->msg);
}

static void on_verdict(void *arg, const struct registry_verdict *v)
{
	struct guest *g = arg;
	uint64_t waited = clock_ms() - g->began_ms;
	if (v->accepted && v->thread == thread_self())
		join(g);
	else if (v->accepted)
		move(g, v->thread);
	else if (v->why == REASON_NAME_IN_USE && waited <= hub.conf->hub.heartbeat_timeout && waited <= CLAIM_MOST_MS)
		timer_start(&g->timer, CLAIM_AGAIN_MS);
	else
		refuse(g, v->why, reason_text(v->why), v->why == REASON_NAME_IN_USE ? RETRY_NAME_MS : RETRY_LIMIT_MS);
}

static void claim(struct guest *g)
{
	g->claim = registry_claim(g->advert, true, hub.conf->hub.max_links, on_verdict, g);
}

static void on_timer(struct timer *t)
{
	struct guest *g = container_of(t, struct guest, timer);
	if (g->state == GUEST_UP) {
		hear_in_time(g);
		return;
	}
	if (g->state == GUEST_CLAIMING) {
		claim(g);
		return;
	}
	if (g->state != GUEST_REFUSED)
		log_refusal(g, REASON_PROTOCOL, "no TLS handshake and AGENT frame within 10 s");
	guest_free(g);
}

/* ---- the carrier's events ---- */

static void on_goaway(void *owner, enum reason why)
{
	struct guest *g = owner;
	g->goodbye = true;
	if (g->state == GUEST_UP)
		registry_retire(g->claim);
}

static void on_strand(void *owner, struct list *node)
{
	struct guest *g = owner;
	registry_strand(g->claim, node);
}

static void on_down(void *owner, enum reason why, const char *text)
{
	struct guest *g = owner;
	if (g->state == GUEST_UP) {
		bool expected = why == REASON_DONE || (why == REASON_LINK_CLOSED && g->goodbye);
		log_guest(expected ? LOG_NOTICE : LOG_WARNING, "link_down", g, why, text);
		if (!expected)
			stat_add(STAT_LINK_BROKEN, 1);
	} else if (g->state != GUEST_REFUSED) {
		log_refusal(g, why, text);
	}
	guest_free(g);
}

static const struct carrier_events guest_events = {
	.on_hello = on_hello,
	.on_goaway = on_goaway,
	.on_strand = on_strand,
	.on_down = on_down,
};

/* ---- arriving ---- */

static void open_doors(void);

static void handshake_over(struct guest *g)
{
	hub.handshakes--;
	list_del(&g->early);
	open_doors();
}

static void guest_free(struct guest *g)
{
	if (g->state <= GUEST_HANDSHAKE)
		handshake_over(g);
	tls_put(g->tls);
	timer_stop(&g->timer);
	list_del(&g->node);
	if (g->joined)
		comeback_lost(g->advert->tunnel, g->advert->name);
	if (g->carrier) {
		link_down(carrier_link(g->carrier), REASON_LINK_CLOSED, registry_parking(g->claim));
		if (g->claim)
			registry_gone(g->claim);
		carrier_free(g->carrier);
	} else if (g->conn) {
		conn_abort(g->conn);
	}
	if (g->joined)
		stat_add(STAT_LINKS, -1);
	advert_put(g->advert);
	forget_refused(g);
	free(g->said);
	mem_put(MEM_OTHER, g);
}

/* No link: whoever speaks HTTP/2 in plaintext, or over TLS without a certificate, may ask for health and nothing else. */
static void hand_to_health(struct guest *g)
{
	struct conn *c = g->conn;
	g->conn = NULL;
	guest_free(g);
	health_welcome(c);
}

static void handshake_done(struct guest *g)
{
	if (strcmp(tls_alpn(g->conn), TLS_ALPN_LINK) != 0) {
		hand_to_health(g);
		return;
	}
	handshake_over(g);
	g->state = GUEST_SILENT;
	stat_add(STAT_LINK_HANDSHAKES, 1);
	if (tls_resumed(g->conn))
		stat_add(STAT_LINK_HANDSHAKES_RESUMED, 1);
	g->carrier = carrier_new(H2_HUB, g->conn, 0, &guest_events, g);
	if (!g->carrier) {
		log_refusal(g, REASON_RESOURCES, reason_text(REASON_RESOURCES));
		guest_free(g);
		return;
	}
	g->conn = NULL;
}

/* Who leaves before anything was said is a port scan, a probe, or an agent's second attempt that lost the race: no refusal. */
static void handshake_failed(struct guest *g)
{
	if (g->conn->error != ECONNRESET)
		log_refusal(g, conn_reason(g->conn, REASON_IDENTITY), tls_failure(g->conn));
	else if (log_wants(LOG_DEBUG) && may_log())
		log_guest(LOG_DEBUG, "link_left", g, REASON_LINK_CLOSED, tls_failure(g->conn));
	guest_free(g);
}

static void on_conn(struct conn *c)
{
	struct guest *g = c->owner;
	switch (tls_state(c)) {
	case TLS_HANDSHAKING: break;
	case TLS_UP: handshake_done(g); break;
	case TLS_FAILED: handshake_failed(g); break;
	}
}

static void begin_tls(struct guest *g)
{
	struct conn *c = tls_accept(g->tls, g->conn, on_conn, g);
	if (!c) {
		log_refusal(g, REASON_RESOURCES, reason_text(REASON_RESOURCES));
		guest_free(g);
		return;
	}
	g->conn = c;
	g->state = GUEST_HANDSHAKE;
}

/* The first bytes tell: those of HTTP/2 are read by nobody until they are whole; everything else is for TLS to like or not. */
static void on_arrived(struct conn *c)
{
	struct guest *g = c->owner;
	char first[sizeof H2_PREFACE - 1];
	ssize_t n = recv(conn_fd(c), first, sizeof first, MSG_PEEK);
	bool preface = n > 0 && memcmp(first, H2_PREFACE, (size_t)n) == 0;
	if (preface && (size_t)n == sizeof first)
		hand_to_health(g);
	else if ((n >= 0 || errno != EAGAIN) && (!preface || c->peer_shut || c->hup))
		begin_tls(g);
}

static void welcome(struct door *d, int fd, const struct addr *from)
{
	struct guest *g = mem_get(MEM_OTHER, sizeof *g);
	if (g)
		g->conn = conn_tcp(fd, on_arrived, g);
	if (!g || !g->conn) {
		mem_put(MEM_OTHER, g);
		close(fd);
		return;
	}
	list_init(&g->node);
	list_init(&g->early);
	g->began_ms = clock_ms();
	timer_init(&g->timer, on_timer);
	addr_text(from, g->addr, sizeof g->addr);
	g->tls = tls_get(d->tls);
	enlist(g);
	hub.handshakes++;
	list_add(&hub.early, &g->early);
	timer_start(&g->timer, GREET_MS);
}

static unsigned handshake_limit(void)
{
	unsigned n = hub.conf->hub.handshakes / (unsigned)thread_count();
	return n ? n : 1;
}

static void pause_door(struct door *d)
{
	if (d->paused)
		return;
	d->paused = true;
	loop_unwatch(&d->watch);
}

/* Who says nothing must not keep out who would: when all handshakes are taken, the oldest is given up. */
static bool may_make_room(void)
{
	if (list_empty(&hub.early))
		return false;
	uint64_t age = clock_ms() - list_first(&hub.early, struct guest, early)->began_ms;
	if (age < MERCY_MS && !timer_running(&hub.mercy))
		timer_start(&hub.mercy, MERCY_MS - age);
	return age >= MERCY_MS;
}

static bool full(void)
{
	return hub.handshakes >= handshake_limit() && !may_make_room();
}

static void make_room(void)
{
	struct guest *g = list_first(&hub.early, struct guest, early);
	if (hub.handshakes < handshake_limit())
		return;
	log_refusal(g, REASON_LIMIT, "too slow while all TLS handshakes were taken");
	guest_free(g);
}

/* The last descriptors are not for those who only knock. */
static int accept_one(struct door *d, struct addr *from)
{
	if (hub.scarce && reserve_only(d->fd)) {
		errno = EMFILE;
		return -1;
	}
	int fd = sock_accept(d->fd, from, &d->early);
	hub.scarce = fd >= 0 && reserve_has(fd);
	return fd;
}

static void on_door(struct watch *w, unsigned events)
{
	struct door *d = container_of(w, struct door, watch);
	for (int i = 0; i < ACCEPT_BATCH; i++) {
		struct addr from;
		if (full()) {
			pause_door(d); /* opened when one is over: the others wait in the kernel's queue */
			return;
		}
		int fd = accept_one(d, &from);
		if (fd >= 0) {
			make_room();
			welcome(d, fd, &from);
		} else if (errno == EAGAIN) {
			return;
		} else {
			stat_add(STAT_ACCEPT_PAUSED, 1);
			pause_door(d);
			timer_start(&hub.resume, PAUSE_MS);
			return;
		}
	}
}

static void open_doors(void)
{
	list_for_each (n, &hub.doors) {
		struct door *d = container_of(n, struct door, node);
		if (!d->paused || full() || timer_running(&hub.resume))
			continue;
		if (loop_watch_listener(&d->watch, d->fd, on_door) == 0)
			d->paused = false;
		else
			timer_start(&hub.resume, PAUSE_MS);
	}
}

static void on_resume(struct timer *t)
{
	open_doors();
}

static struct door *door_new(int fd, unsigned bind)
{
	struct door *d = xcalloc(1, sizeof *d);
	BUG_ON(bind >= hub.conf->hub.bind_n);
	d->fd = fd;
	d->tls = hub.tls[bind];
	d->paused = d->early = true;
	d->watch.fd = -1;
	sock_bequeath(fd);
	list_add(&hub.doors, &d->node);
	return d;
}

static void door_free(struct door *d)
{
	pause_door(d);
	list_del(&d->node);
	free(d);
}

int hub_open(int fd, unsigned bind)
{
	struct door *d = door_new(fd, bind);
	if (loop_watch_listener(&d->watch, fd, on_door) != 0) {
		door_free(d);
		return -1;
	}
	d->paused = false;
	return 0;
}

void hub_close_all(void)
{
	list_for_each_safe (n, &hub.doors)
		door_free(container_of(n, struct door, node));
	timer_stop(&hub.resume);
	timer_stop(&hub.mercy);
}

static void doors_renew(const int *fds)
{
	bool *kept = xcalloc(hub.conf->hub.bind_n, sizeof *kept);
	list_for_each_safe (n, &hub.doors) {
		struct door *d = container_of(n, struct door, node);
		size_t i = 0;
		while (i < hub.conf->hub.bind_n && fds[i] != d->fd)
			i++;
		if (i == hub.conf->hub.bind_n) {
			door_free(d);
			continue;
		}
		kept[i] = true;
		d->tls = hub.tls[i];
	}
	for (unsigned i = 0; i < hub.conf->hub.bind_n; i++)
		if (!kept[i])
			door_new(fds[i], i);
	free(kept);
	open_doors();
}

static void take_conf(struct conf *conf)
{
	hub.conf = conf;
	map_free(hub.tunnels);
	hub.tunnels = map_new();
	for (size_t i = 0; i < conf->tunnels_n; i++)
		map_set_str(hub.tunnels, conf->tunnels[i].name, &conf->tunnels[i]);
}

void hub_reload(struct conf *conf, struct tls *const *tls, const int *fds)
{
	take_conf(conf);
	hub.tls = tls;
	hub.generation++;
	doors_renew(fds);
	list_for_each_safe (n, &hub.guests) {
		struct guest *g = container_of(n, struct guest, node);
		if (g->state == GUEST_UP)
			judge_again(g);
	}
}

void hub_changed(void)
{
	health_changed();
}

void hub_drain(void)
{
	hub.draining = true;
	health_changed();
	list_for_each (n, &hub.guests) {
		struct guest *g = container_of(n, struct guest, node);
		if (g->state == GUEST_UP)
			link_goaway(carrier_link(g->carrier), REASON_DRAINING);
	}
}

static struct hub_link view(const struct guest *g)
{
	const struct link *l = carrier_link(g->carrier);
	return (struct hub_link){.id = g->claim,
				 .age_ms = clock_ms() - g->began_ms,
				 .agent = g->advert->name,
				 .tunnel = g->advert->tunnel,
				 .addr = g->addr,
				 .cert = tls_peer_subject(carrier_conn(g->carrier)),
				 .version = g->advert->version,
				 .sessions = (uint32_t)link_sessions(l),
				 .rtt_us = link_rtt_us(l),
				 .fd = conn_fd(carrier_conn(g->carrier))};
}

static void kill_link(struct guest *g, enum reason why)
{
	log_guest(LOG_NOTICE, "link_down", g, why, reason_text(why));
	guest_free(g);
}

bool hub_each(uint64_t *cursor, enum visit (*visit)(void *, const struct hub_link *), void *arg)
{
	if (!hub.conf)
		return true;
	list_for_each_safe (n, &hub.guests) {
		struct guest *g = container_of(n, struct guest, node);
		if (g->serial <= *cursor || g->state != GUEST_UP)
			continue;
		*cursor = g->serial;
		struct hub_link v = view(g);
		enum visit next = visit(arg, &v);
		if (next == VISIT_STOP)
			return false;
		if (next == VISIT_KILL || next == VISIT_MOVE)
			kill_link(g, next == VISIT_MOVE ? REASON_MOVED : REASON_KILLED);
	}
	return true;
}

void hub_stop(void)
{
	health_stop();
	while (!list_empty(&hub.guests)) {
		struct guest *g = list_first(&hub.guests, struct guest, node);
		if (g->state == GUEST_UP) {
			log_guest(LOG_NOTICE, "link_down", g, REASON_STOPPED, reason_text(REASON_STOPPED));
			link_stop(carrier_link(g->carrier), REASON_STOPPED);
			carrier_farewell(g->carrier);
		}
		guest_free(g);
	}
}

void hub_init(struct conf *conf, struct tls *const *tls, const uint8_t instance[16], bool (*ready)(void))
{
	memset(&hub, 0, sizeof hub);
	take_conf(conf);
	hub.tls = tls;
	hub.instance = instance;
	list_init(&hub.guests);
	list_init(&hub.doors);
	list_init(&hub.early);
	timer_init(&hub.resume, on_resume);
	timer_init(&hub.mercy, on_resume);
	health_init(&hub.conf, ready);
	registry_on_news(on_news);
}

void hub_fini(void)
{
	hub_close_all();
	hub_stop();
	map_free(hub.tunnels);
	hub.tunnels = NULL;
}

/* The agent's services: a request on a link becomes a connection to the service's target, and in the end a line in the log.
 * Owns the job from the request on: the dial while it is under way, then the pump that has session and socket. The
 * session is taken at once, so that the client's first bytes are there when the target is.
 * Does not know how the request came (link, dialer) nor how bytes are carried (pump). */
#include "mctunnel/edge/target.h"

#include "mctunnel/base/addr.h"
#include "mctunnel/base/bug.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/flow.h"
#include "mctunnel/base/list.h"
#include "mctunnel/base/log.h"
#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/series.h"
#include "mctunnel/base/stat.h"
#include "mctunnel/base/str.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/edge/check.h"
#include "mctunnel/edge/pump.h"
#include "mctunnel/edge/room.h"
#include "mctunnel/net/conn.h"
#include "mctunnel/net/dial.h"
#include "mctunnel/net/sock.h"
#include "mctunnel/proto/h2.h"
#include "mctunnel/proto/proxyhdr.h"
#include "mctunnel/tunnel/link.h"
#include "mctunnel/tunnel/session.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct load { /* of a service, by its name: goes from one generation to the next */
	atomic_uint refs, sessions;
	atomic_uint errors; /* sessions in a row that could not be connected */
	atomic_bool down;   /* its checks say so */
	struct flow flow_up, flow_down; /* bytes of all sessions, where they are limited */
};

struct generation { /* what a configuration means here; a job stays with the one it began with */
	atomic_uint refs;
	struct conf *conf;   /* shared */
	struct load **loads; /* owned: shared ones, for each service */
};

/* Of the process. */
static struct {
	pthread_mutex_t lock; /* for users, and what the first and the last one do */
	unsigned users;
	struct generation *newest; /* shared; threads follow by target_reload() */
} all = { .lock = PTHREAD_MUTEX_INITIALIZER };

static _Thread_local struct {
	struct generation *gen; /* shared; NULL before target_init */
	struct map *services;   /* owned: struct conf_service by name */
	struct list jobs;       /* by serial */
	uint64_t serial;        /* of the newest */
} here;

struct job {
	struct list node; /* in here.jobs, or on its way to another thread's */
	uint64_t serial;
	struct generation *gen; /* shared */
	const struct conf_service *service;
	struct pump *pump;
	struct dial *dial; /* NULL: not dialling */
	bool redial;       /* the dial was given up for a move to another thread */
	uint64_t asked_ms, connected_ms;
	char *target;                                /* owned: the address reached */
	char *trouble;                               /* owned: why none was reached */
	const char *hub, *client, *local, *listener; /* in text */
	const char *sni, *alpn;                      /* the same; "" when not known */
	bool counted;                                /* in STAT_SESSIONS */
	char id[33];
	char text[];
};

static struct load *load_of(const struct generation *g, const struct conf_service *s)
{
	return g->loads[s - g->conf->agent.services];
}

static atomic_uint *sessions_of(const struct generation *g, const struct conf_service *s)
{
	return &load_of(g, s)->sessions;
}

static struct load *load_get(struct load *l)
{
	atomic_fetch_add(&l->refs, 1);
	return l;
}

static void load_put(struct load *l)
{
	if (atomic_fetch_sub(&l->refs, 1) == 1)
		free(l);
}

/* Reads how the service stands now. */
static void load_judge(struct load *l, const char *service)
{
	struct check_view v;
	bool down = check_view(service, &v) && !v.up;

	if (atomic_exchange(&l->down, down) && !down)
		atomic_store(&l->errors, 0);
}

static struct generation *generation_new(struct conf *conf, const struct generation *old)
{
	struct generation *g = xcalloc(1, sizeof(*g));
	struct map *olds = map_new();

	for (size_t i = 0; old && i < old->conf->agent.services_n; i++)
		map_set_str(olds, old->conf->agent.services[i].name, old->loads[i]);
	atomic_init(&g->refs, 1);
	g->conf = conf_get(conf);
	g->loads = xcalloc(conf->agent.services_n + 1, sizeof(*g->loads));
	for (size_t i = 0; i < conf->agent.services_n; i++) {
		struct load *l = map_get_str(olds, conf->agent.services[i].name);

		g->loads[i] = load_get(l ? l : xcalloc(1, sizeof(*l)));
		load_judge(g->loads[i], conf->agent.services[i].name);
	}
	map_free(olds);
	return g;
}

static struct generation *generation_get(struct generation *g)
{
	atomic_fetch_add_explicit(&g->refs, 1, memory_order_relaxed);
	return g;
}

static void generation_put(struct generation *g)
{
	if (!g || atomic_fetch_sub_explicit(&g->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (size_t i = 0; i < g->conf->agent.services_n; i++)
		load_put(g->loads[i]);
	free(g->loads);
	conf_put(g->conf);
	free(g);
}

static void enlist(struct job *j)
{
	j->serial = ++here.serial;
	list_add(&here.jobs, &j->node);
}

static void job_free(struct job *j)
{
	BUG_ON(j->dial);
	list_del(&j->node);
	atomic_fetch_sub(sessions_of(j->gen, j->service), 1);
	if (j->counted)
		stat_add(STAT_SESSIONS, -1);
	generation_put(j->gen);
	free(j->target);
	free(j->trouble);
	mem_put(MEM_OTHER, j);
}

static void log_end_of(const struct job *j, enum reason why)
{
	struct log_rec r;
	uint64_t now = clock_ms();
	char end[3] = { reason_letter(why), 'D', '\0' };

	if (!log_wants(LOG_INFO))
		return;
	if (why == REASON_DONE)
		end[1] = '-';
	else if (!j->connected_ms)
		end[1] = 'C';
	else if (pump_half_closed(j->pump))
		end[1] = 'L';
	log_begin(&r, LOG_INFO, "session");
	log_str(&r, "service", j->service->name);
	log_str(&r, "hub", j->hub);
	log_str(&r, "client", j->client);
	log_str(&r, "listener", j->listener);
	log_str(&r, "target", j->target ? j->target : j->service->target.text);
	log_int(&r, "connect", j->connected_ms ? (int64_t)(j->connected_ms - j->asked_ms) : -1);
	log_int(&r, "total", (int64_t)(now - j->asked_ms));
	log_int(&r, "up", (int64_t)pump_out(j->pump));
	log_int(&r, "down", (int64_t)pump_in(j->pump));
	log_str(&r, "end", end);
	log_str(&r, "reason", reason_word(why));
	if (j->trouble)
		log_str(&r, "text", j->trouble);
	log_str(&r, "id", j->id);
	log_end(&r);
}

static void cancel(struct job *j)
{
	if (j->dial)
		dial_cancel(j->dial);
	j->dial = NULL;
}

static void on_open(void *owner, const char *target)
{
}

static void on_done(void *owner, enum reason why)
{
	struct job *j = owner;

	cancel(j);
	log_end_of(j, why);
	series_add(series_of(SERVICE_SESSIONS, j->service->name, reason_word(why)), 1);
	job_free(j);
}

static enum reason reason_of(int error)
{
	switch (error) {
	case ECONNREFUSED:
		return REASON_TARGET_REFUSED;
	case ETIMEDOUT:
		return REASON_TARGET_TIMEOUT;
	default:
		return sock_exhausted(error) ? REASON_RESOURCES : REASON_TARGET_UNREACHABLE;
	}
}

/* One that was connected forgives all that were not; what is wrong with this agent says nothing about the target. */
static void count_error(const struct job *j, enum reason why, const char *text)
{
	struct load *l = load_of(j->gen, j->service);
	uint32_t limit = j->service->check.type == CHECK_NONE ? 0 : j->service->check.error_limit;
	char what[64];
	struct strbuf b;

	if (!limit || why == REASON_RESOURCES || atomic_fetch_add(&l->errors, 1) + 1 < limit)
		return;
	atomic_store(&l->errors, 0);
	strbuf_init(&b, what, sizeof(what));
	strbuf_add(&b, "%u sessions in a row: %s", limit, text);
	check_condemn(j->service->name, why == REASON_TARGET_TIMEOUT ? CHECK_L4TOUT : CHECK_L4CON, what);
}

/* Before everything else on a fresh socket, whose empty buffer takes it whole. */
static bool send_proxy_header(const struct job *j, int fd)
{
	uint8_t header[PROXYHDR_MAX];
	struct proxyhdr_about about = { .authority = j->sni, .alpn = j->alpn, .unique_id = j->id };
	struct addr src = { .len = 0 }, dst = { .len = 0 };
	size_t len;

	if (j->service->send_proxy == SEND_PROXY_NONE)
		return true;
	if (addr_parse(&src, j->client) < 0 || addr_parse(&dst, j->local) < 0)
		src.len = dst.len = 0; /* LOCAL, UNKNOWN */
	len = proxyhdr_build(header, j->service->send_proxy == SEND_PROXY_V1 ? 1 : 2, &src, &dst, &about);
	errno = 0; /* it may be sent in part */
	return send(fd, header, len, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len;
}

/* Until pump_conn, which follows at once. */
static void not_yet(struct conn *c)
{
}

static void connected(struct job *j, int fd)
{
	struct conn *c = send_proxy_header(j, fd) ? conn_tcp(fd, not_yet, NULL) : NULL;

	if (!c) {
		enum reason why = reason_of(errno);

		close(fd);
		pump_abort(j->pump, why);
		return;
	}
	j->connected_ms = clock_ms();
	if (atomic_load_explicit(&load_of(j->gen, j->service)->errors, memory_order_relaxed))
		atomic_store(&load_of(j->gen, j->service)->errors, 0);
	series_observe_us(series_of(TARGET_CONNECT, j->service->name), (j->connected_ms - j->asked_ms) * 1000);
	pump_conn(j->pump, c);
	session_established(pump_session(j->pump), j->target);
}

static void on_dialled(void *arg, struct dial_result *r)
{
	struct job *j = arg;
	char text[ADDR_TEXT];

	j->dial = NULL;
	if (r->fd < 0) {
		j->trouble = strdup(r->why);
		series_add(series_of(TARGET_FAILURES, j->service->name, reason_word(reason_of(r->error))), 1);
		count_error(j, reason_of(r->error), strerror(r->error));
		pump_abort(j->pump, reason_of(r->error));
		return;
	}
	j->target = strdup(addr_text(&r->to, text, sizeof(text)));
	if (j->target) {
		connected(j, r->fd);
	} else {
		close(r->fd);
		pump_abort(j->pump, REASON_RESOURCES);
	}
}

static bool dial(struct job *j)
{
	uint64_t due = j->asked_ms + j->service->timeouts.connect, now = clock_ms();
	struct dial_options o = { .timeout_ms = due > now ? (uint32_t)(due - now) : 1 };

	j->dial = dial_start(&j->service->target, &o, on_dialled, j);
	return j->dial != NULL;
}

/* A dial belongs to its thread; it begins again where the session goes. */
static void on_leave(void *owner)
{
	struct job *j = owner;

	list_del(&j->node);
	j->redial = j->dial != NULL;
	cancel(j);
}

static void on_arrive(void *owner)
{
	struct job *j = owner;

	enlist(j);
	if (j->redial && !dial(j))
		pump_abort_soon(j->pump);
	j->redial = false;
}

static const struct pump_events pump_events = { .on_open = on_open, .on_done = on_done, .on_leave = on_leave, .on_arrive = on_arrive };

static const char *keep(char **at, const char *text)
{
	size_t size = strlen(text) + 1;
	char *copy = memcpy(*at, text, size);

	*at += size;
	return copy;
}

/* Counted already. */
static struct job *job_new(const struct conf_service *s, const struct h2_fields *f, const char *hub)
{
	size_t text = strlen(hub) + strlen(f->client) + strlen(f->local) + strlen(f->listener) + strlen(f->sni) + strlen(f->alpn) + 6;
	struct job *j = mem_get(MEM_OTHER, sizeof(*j) + text);
	char *at;

	if (!j)
		return NULL;
	at = j->text;
	j->hub = keep(&at, hub);
	j->client = keep(&at, f->client);
	j->local = keep(&at, f->local);
	j->listener = keep(&at, f->listener);
	j->sni = keep(&at, f->sni);
	j->alpn = keep(&at, f->alpn);
	memcpy(j->id, f->session, sizeof(j->id));
	j->service = s;
	j->gen = generation_get(here.gen);
	j->asked_ms = clock_ms();
	enlist(j);
	return j;
}

/* false: no memory. */
static bool limit_bandwidth(const struct job *j)
{
	const struct conf_limits *l = &j->service->limits;
	struct load *load = j->gen->loads[j->service - j->gen->conf->agent.services];

	return pump_limit(j->pump, BRAKE_OUT, NULL, l->session_up) && pump_limit(j->pump, BRAKE_IN, NULL, l->session_down) &&
	       pump_limit(j->pump, BRAKE_OUT, &load->flow_up, l->up) && pump_limit(j->pump, BRAKE_IN, &load->flow_down, l->down);
}

static struct session *accept_session(struct job *j, struct link *l, int32_t stream, const struct h2_fields *f)
{
	const struct conf_timeouts *t = &j->service->timeouts;
	struct pump_options o = { .idle_ms = t->idle, .half_closed_ms = t->half_closed, .local_reset = REASON_TARGET_RESET, .target_side = !j->gen->conf->hub.set };
	struct session *s;

	j->pump = pump_new(&o, &pump_events, j);
	if (!j->pump)
		return NULL;
	s = limit_bandwidth(j) ? session_accept(l, stream, f, t->resume, &pump_session_events, j->pump) : NULL;
	if (!s)
		pump_free(j->pump);
	return s;
}

/* A process that is a hub as well counts its sessions there. */
static void count(struct job *j)
{
	j->counted = !j->gen->conf->hub.set;
	if (!j->counted)
		return;
	stat_add(STAT_SESSIONS, 1);
	stat_add(STAT_SESSIONS_OPENED, 1);
}

void target_request(struct link *l, int32_t stream, const struct h2_fields *f, const char *hub)
{
	const struct conf_service *service = map_get_str(here.services, f->service);
	struct session *s;
	struct job *j;

	if (!service || atomic_load_explicit(&load_of(here.gen, service)->down, memory_order_relaxed)) {
		link_refuse(l, stream, service ? REASON_SERVICE_DOWN : REASON_NO_SERVICE);
		return;
	}
	if (!count_take(sessions_of(here.gen, service), service->maxconn)) {
		link_refuse(l, stream, REASON_AGENT_FULL);
		return;
	}
	j = job_new(service, f, hub);
	if (!j)
		atomic_fetch_sub(sessions_of(here.gen, service), 1);
	s = j ? accept_session(j, l, stream, f) : NULL;
	if (!s) {
		link_refuse(l, stream, REASON_RESOURCES);
		if (j)
			job_free(j);
		return;
	}
	count(j);
	pump_start(j->pump, s, NULL);
	if (!dial(j))
		pump_abort(j->pump, REASON_RESOURCES);
}

/* This thread goes over to the newest. */
static void follow(void)
{
	const struct conf_agent *a;

	pthread_mutex_lock(&all.lock);
	here.gen = generation_get(all.newest);
	pthread_mutex_unlock(&all.lock);
	a = &here.gen->conf->agent;
	here.services = map_new();
	for (size_t i = 0; i < a->services_n; i++)
		map_set_str(here.services, a->services[i].name, &a->services[i]);
}

static void let_go(void)
{
	map_free(here.services);
	generation_put(here.gen);
	here.services = NULL;
	here.gen = NULL;
}

void target_prepare(struct conf *conf)
{
	struct generation *old;

	pthread_mutex_lock(&all.lock);
	old = all.newest;
	all.newest = generation_new(conf, old);
	pthread_mutex_unlock(&all.lock);
	generation_put(old);
}

void target_reload(void)
{
	let_go();
	follow();
}

/* Those of older configurations too: their target is as dead. */
static void end_sessions_of(const char *service)
{
	list_for_each_safe(n, &here.jobs) {
		struct job *j = container_of(n, struct job, node);

		if (strcmp(j->service->name, service) == 0)
			pump_abort(j->pump, REASON_SERVICE_DOWN);
	}
}

void target_checked(const char *service)
{
	const struct conf_service *s = here.services ? map_get_str(here.services, service) : NULL;

	if (!s)
		return;
	load_judge(load_of(here.gen, s), service);
	if (s->check.on_marked_down && atomic_load(&load_of(here.gen, s)->down))
		end_sessions_of(service);
}

void target_init(struct conf *conf)
{
	pthread_mutex_lock(&all.lock);
	if (all.users++ == 0)
		all.newest = generation_new(conf, NULL);
	pthread_mutex_unlock(&all.lock);
	list_init(&here.jobs);
	follow();
}

void target_fini(void)
{
	let_go();
	pthread_mutex_lock(&all.lock);
	if (--all.users == 0) {
		generation_put(all.newest);
		all.newest = NULL;
	}
	pthread_mutex_unlock(&all.lock);
}

/* For the admin socket. */

static struct target_job view(const struct job *j)
{
	const struct session *s = pump_session(j->pump);
	const char *state = !j->connected_ms ? "connect" : s && session_parked(s) ? "parked" : pump_half_closed(j->pump) ? "half-closed" : "open";

	return (struct target_job){ .id = j->id,
				    .service = j->service->name,
				    .hub = j->hub,
				    .client = j->client,
				    .listener = j->listener,
				    .target = j->target ? j->target : j->service->target.text,
				    .state = state,
				    .age_ms = clock_ms() - j->asked_ms,
				    .up = pump_out(j->pump),
				    .down = pump_in(j->pump) };
}

bool target_each(uint64_t *cursor, enum visit (*visit)(void *, const struct target_job *), void *arg)
{
	if (!here.gen)
		return true;
	list_for_each_safe(n, &here.jobs) {
		struct job *j = container_of(n, struct job, node);

		if (j->serial <= *cursor)
			continue;
		*cursor = j->serial;
		struct target_job v = view(j);
		enum visit next = visit(arg, &v);
		if (next == VISIT_STOP)
			return false;
		if (next == VISIT_KILL)
			pump_abort(j->pump, REASON_KILLED);
	}
	return true;
}

const struct conf *target_conf(void)
{
	return here.gen ? here.gen->conf : NULL;
}

uint32_t target_sessions(size_t service)
{
	return here.gen ? atomic_load(&here.gen->loads[service]->sessions) : 0;
}

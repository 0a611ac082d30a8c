/* Who and what is carried, as tables of the admin socket: tunnels, agents, links, services, listeners, sessions, and HAProxy's table of statistics.
 * What other threads know is collected by visiting them; what the registry knows, from a snapshot that lives as long as the answer. */
#include "mctunnel/admin/views.h"

#include "mctunnel/admin/answer.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/str.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/edge/check.h"
#include "mctunnel/edge/dialer.h"
#include "mctunnel/edge/frontend.h"
#include "mctunnel/edge/hub.h"
#include "mctunnel/edge/target.h"
#include "mctunnel/tunnel/registry.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define LINKS_A_CALL 1000

/* ---- the snapshot ---- */

struct seen { /* what the links of an agent tell, by visiting threads */
	uint32_t rtt_us;
	uint64_t age_ms;
};

struct people {
	struct registry_agent *agents; /* owned */
	struct seen *seen;             /* owned; one an agent */
	size_t n;
};

static void people_free(void *data)
{
	struct people *p = data;

	registry_snapshot_free(p->agents, p->n);
	free(p->seen);
	free(p);
}

static struct people *people(struct answer *a)
{
	struct people *p = a->data;

	if (p)
		return p;
	p = mem_calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->n = registry_snapshot(&p->agents);
	p->seen = mem_calloc(p->n + 1, sizeof(*p->seen));
	if (!p->agents || !p->seen) {
		people_free(p);
		return NULL;
	}
	a->data = p;
	a->data_free = people_free;
	return p;
}

static bool is_agent(const struct people *p, size_t i, const char *tunnel, const char *name)
{
	return i < p->n && strcmp(p->agents[i].advert->tunnel, tunnel) == 0 && strcmp(p->agents[i].advert->name, name) == 0;
}

/* The first agent of that tunnel and name (others are instances of the same), p->n when there is none. */
static size_t find_agent(const struct people *p, const char *tunnel, const char *name)
{
	size_t low = 0, high = p->n;

	while (low < high) {
		size_t mid = (low + high) / 2;
		const struct advert *x = p->agents[mid].advert;
		int order = strcmp(x->tunnel, tunnel);

		if (order == 0)
			order = strcmp(x->name, name);
		if (order < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return is_agent(p, low, tunnel, name) ? low : p->n;
}

struct collect {
	struct people *people;
	unsigned links;
};

static enum visit see_link(void *arg, const struct hub_link *l)
{
	struct collect *c = arg;
	size_t i = find_agent(c->people, l->tunnel, l->agent);

	if (i < c->people->n) {
		struct seen *s = &c->people->seen[i];

		if (l->rtt_us && (!s->rtt_us || l->rtt_us < s->rtt_us))
			s->rtt_us = l->rtt_us;
		if (l->age_ms > s->age_ms)
			s->age_ms = l->age_ms;
	}
	return ++c->links < LINKS_A_CALL ? VISIT_NEXT : VISIT_STOP;
}

/* Stage 0: the snapshot, and what all threads know. Returns the thread to go on with; the stage is 1 when all have been seen, and the answer is on its way back to
 * thread 0. */
static int see_links(struct answer *a)
{
	struct collect c = { .people = people(a) }; /* made on thread 0 */
	int next;

	if (!c.people)
		return answer_fail(a);
	next = answer_next_thread(a, hub_each(&a->cursor, see_link, &c));
	if (next != ANSWER_DONE)
		return next;
	a->stage = 1;
	return 0;
}

static const char *agent_status(const struct advert *advert)
{
	int mark = registry_marked(MARK_AGENT, advert->name);

	return mark == 2 ? "MAINT" : mark == 1 || advert->draining ? "DRAIN" : "UP";
}

static const char *absent_status(const char *agent)
{
	return registry_marked(MARK_AGENT, agent) == 2 ? "MAINT" : "DOWN";
}

static size_t services_up(const struct advert *advert)
{
	size_t n = 0;

	for (size_t i = 0; i < advert->services_n; i++)
		n += advert->services[i].up;
	return n;
}

static uint32_t sessions_of(const struct advert *advert)
{
	return advert->sessions ? atomic_load(advert->sessions) : 0;
}

/* ---- agents ---- */

static void cell_rtt(struct answer *a, uint32_t us)
{
	if (us)
		answer_float(a, us / 1000.0);
	else
		answer_str(a, NULL);
}

static void agent_row(struct answer *a, const struct people *p, size_t i)
{
	const struct advert *v = p->agents[i].advert;

	answer_str(a, v->tunnel);
	answer_str(a, v->name);
	answer_str(a, agent_status(v));
	answer_int(a, p->agents[i].links);
	answer_int(a, sessions_of(v));
	cell_rtt(a, p->seen[i].rtt_us);
	answer_int(a, (int64_t)services_up(v));
	answer_int(a, (int64_t)v->services_n);
	answer_age(a, p->seen[i].age_ms);
	answer_str(a, v->addr);
	answer_str(a, v->version);
}

static void absent_row(struct answer *a, const char *tunnel, const char *name)
{
	answer_str(a, tunnel);
	answer_str(a, name);
	answer_str(a, absent_status(name));
	answer_int(a, 0);
	answer_int(a, 0);
	answer_str(a, NULL);
	answer_int(a, 0);
	answer_int(a, 0);
	for (int i = 0; i < 3; i++)
		answer_str(a, NULL);
}

/* Those the configuration names, in its order, whether they are there or not. a->index counts tunnels, a->cursor their agents. */
static int agents_of_tunnels(struct answer *a, const struct people *p)
{
	const struct conf *c = a->state->conf();

	for (; a->index < c->tunnels_n; a->index++, a->cursor = 0) {
		const struct conf_tunnel *t = &c->tunnels[a->index];

		for (; a->cursor < t->agents.n; a->cursor++) {
			size_t i = find_agent(p, t->name, t->agents.v[a->cursor]);

			if (answer_full(a))
				return 0;
			if (i == p->n)
				absent_row(a, t->name, t->agents.v[a->cursor]);
			for (; is_agent(p, i, t->name, t->agents.v[a->cursor]); i++)
				agent_row(a, p, i);
		}
	}
	return ANSWER_DONE;
}

int view_agents(struct answer *a)
{
	static const char *const columns[] = { "tunnel", "agent", "status", "links", "sessions", "rtt_ms", "up", "services", "age", "addr", "version", NULL };

	if (a->stage == 0)
		return see_links(a);
	answer_table(a, columns);
	return agents_of_tunnels(a, a->data);
}

/* ---- tunnels ---- */

static const char *balance_word(enum balance b)
{
	static const char *const words[] = { "roundrobin", "leastconn", "random", "source", "first" };

	return words[b];
}

struct strength { /* of a tunnel */
	size_t agents, services, links, draining;
};

static struct strength strength_of(const struct people *p, const struct conf_tunnel *t)
{
	struct strength s = { 0 };

	for (size_t k = 0; k < t->agents.n; k++) {
		for (size_t i = find_agent(p, t->name, t->agents.v[k]); is_agent(p, i, t->name, t->agents.v[k]); i++) {
			s.agents++;
			s.links += p->agents[i].links;
			s.services += services_up(p->agents[i].advert);
			s.draining += strcmp(agent_status(p->agents[i].advert), "UP") != 0;
		}
	}
	return s;
}

static const char *tunnel_status(const struct conf_tunnel *t, const struct strength *s)
{
	if (registry_marked(MARK_TUNNEL, t->name) != MARK_NONE)
		return "MAINT";
	return s->agents > s->draining && s->services ? "UP" : "DOWN";
}

static void cells_totals(struct answer *a, const struct frontend_figures *f)
{
	answer_int(a, (int64_t)f->total);
	answer_int(a, (int64_t)f->failed);
	answer_int(a, (int64_t)f->up);
	answer_int(a, (int64_t)f->down);
}

static void tunnel_row(struct answer *a, const struct people *p, const struct conf *c, size_t i)
{
	const struct conf_tunnel *t = &c->tunnels[i];
	struct strength s = strength_of(p, t);
	struct frontend_figures f;

	frontend_tunnel(i, &f);
	answer_str(a, t->name);
	answer_str(a, tunnel_status(t, &s));
	answer_int(a, (int64_t)s.agents);
	answer_int(a, (int64_t)t->agents.n);
	answer_int(a, (int64_t)s.links);
	answer_int(a, (int64_t)s.services);
	answer_int(a, f.sessions);
	answer_int(a, f.maxconn);
	cells_totals(a, &f);
	answer_str(a, balance_word(t->balance));
}

int view_tunnels(struct answer *a)
{
	static const char *const columns[] = { "tunnel", "status", "up",     "agents", "links", "services", "sessions",
					       "maxconn", "total", "failed", "bytes_up", "bytes_down", "balance", NULL };
	const struct conf *c = a->state->conf();
	struct people *p = people(a);

	if (!p)
		return answer_fail(a);
	answer_table(a, columns);
	for (; a->index < c->tunnels_n; a->index++) {
		if (answer_full(a))
			return 0;
		tunnel_row(a, p, c, a->index);
	}
	return ANSWER_DONE;
}

/* ---- services ---- */

static const char *service_status(const struct advert *v, const struct hello_service *s, const char *path)
{
	const char *status = agent_status(v);

	if (registry_marked(MARK_TUNNEL, v->tunnel) != MARK_NONE || registry_marked(MARK_SERVICE, path) != MARK_NONE)
		return "MAINT";
	if (strcmp(status, "UP") != 0)
		return status;
	return s->up ? "UP" : "DOWN";
}

/* L7STS/503 */
static void check_cell(struct answer *a, const char *status, uint32_t code)
{
	char text[32];

	snprintf(text, sizeof(text), code ? "%.8s/%" PRIu32 : "%.8s", status, code);
	answer_str(a, status[0] ? text : NULL);
}

/* How long it has been as it is. The time of another thread may be a little ahead of ours. */
static uint64_t age_of(const struct advert *v, const struct hello_service *s)
{
	uint64_t now = clock_ms() + s->since_ms;

	return now > v->heard_ms ? now - v->heard_ms : 0;
}

static void offered_row(struct answer *a, const struct advert *v, const struct hello_service *s)
{
	char path[2 * HELLO_NAME_MAX], weight[2 * HELLO_NAME_MAX];
	int said;

	snprintf(path, sizeof(path), "%.63s/%.63s", v->tunnel, s->name);
	snprintf(weight, sizeof(weight), "%.63s/%.63s", v->name, s->name);
	said = registry_marked(MARK_WEIGHT, weight);
	answer_str(a, v->tunnel);
	answer_str(a, s->name);
	answer_str(a, v->name);
	answer_str(a, service_status(v, s, path));
	answer_int(a, said == MARK_NONE ? s->weight : said);
	answer_int(a, s->maxconn);
	answer_str(a, NULL);
	answer_str(a, NULL);
	check_cell(a, s->status, s->code);
	if (s->status[0])
		answer_age(a, age_of(v, s));
	else
		answer_str(a, NULL);
	answer_str(a, NULL);
	answer_str(a, s->status[0] ? s->text : NULL);
}

static void own_check(struct answer *a, const struct check_view *v)
{
	const struct probe_result *r = &v->last;

	check_cell(a, check_status_word(r->status), r->code);
	answer_age(a, clock_ms() - v->since_ms);
	if (v->last_ms)
		answer_float(a, (double)r->took_us / 1000);
	else
		answer_str(a, NULL);
	answer_str(a, r->text[0] ? r->text : check_status_text(r->status));
}

static void own_row(struct answer *a, const struct conf_agent *c, size_t i)
{
	const struct conf_service *s = &c->services[i];
	struct check_view v;
	bool checked = check_view(s->name, &v);

	answer_str(a, c->tunnel);
	answer_str(a, s->name);
	answer_str(a, c->name);
	answer_str(a, checked ? v.words : "UP");
	answer_int(a, checked ? v.weight : s->weight);
	answer_int(a, s->maxconn);
	answer_int(a, target_sessions(i));
	answer_str(a, s->target.text);
	if (checked)
		own_check(a, &v);
	for (int k = 0; !checked && k < 4; k++)
		answer_str(a, NULL);
}

/* a->stage 0: what agents offer, a->index counts them, a->cursor their services. 1: what we offer as an agent. */
int view_services(struct answer *a)
{
	static const char *const columns[] = { "tunnel", "service", "agent", "status", "weight", "maxconn", "sessions", "target", "check", "since", "took_ms", "why", NULL };
	const struct conf *c = a->state->conf();
	struct people *p = people(a);

	if (!p)
		return answer_fail(a);
	answer_table(a, columns);
	for (; a->index < p->n; a->index++, a->cursor = 0) {
		const struct advert *v = p->agents[a->index].advert;

		for (; a->cursor < v->services_n && v->tunnel[0]; a->cursor++) {
			if (answer_full(a))
				return 0;
			offered_row(a, v, &v->services[a->cursor]);
		}
	}
	for (; a->count < c->agent.services_n; a->count++) {
		if (answer_full(a))
			return 0;
		own_row(a, &c->agent, a->count);
	}
	return ANSWER_DONE;
}

/* ---- listeners ---- */

static const char *listener_status(const struct frontend_figures *f)
{
	return !f->enabled ? "STOP" : f->full ? "FULL" : "OPEN";
}

static const char *mode_word(enum listener_mode m)
{
	static const char *const words[] = { "tcp", "tls", "http", "connect" };

	return words[m];
}

static void listener_row(struct answer *a, const struct conf_listener *l, size_t i)
{
	char binds[256], routes[256];
	struct frontend_figures f;
	struct strbuf b, r;

	strbuf_init(&b, binds, sizeof(binds));
	for (size_t k = 0; k < l->bind_n; k++)
		strbuf_add(&b, "%s%s", k ? "," : "", l->bind[k].text);
	strbuf_init(&r, routes, sizeof(routes));
	for (size_t k = 0; k < l->route_n; k++)
		strbuf_add(&r, "%s%s", k ? "," : "", l->route[k].text);
	frontend_listener(i, &f);
	answer_str(a, l->name);
	answer_str(a, listener_status(&f));
	answer_str(a, mode_word(l->mode));
	answer_int(a, f.sessions);
	answer_int(a, f.maxconn);
	answer_int(a, f.rate_limit);
	cells_totals(a, &f);
	answer_str(a, binds);
	answer_str(a, routes);
	answer_int(a, (int64_t)l->rules_n);
	answer_str(a, l->policy);
}

int view_listeners(struct answer *a)
{
	static const char *const columns[] = { "listener", "status", "mode", "sessions", "maxconn", "rate_limit", "total", "failed", "bytes_up", "bytes_down", "bind", "route", "rules", "policy", NULL };
	const struct conf *c = a->state->conf();

	answer_table(a, columns);
	for (; a->index < c->listeners_n; a->index++) {
		if (answer_full(a))
			return 0;
		listener_row(a, &c->listeners[a->index], a->index);
	}
	return ANSWER_DONE;
}

/* ---- links ---- */

struct end { /* of a link: the hub's or the agent's */
	uint64_t id, age_ms;
	const char *side, *peer, *tunnel, *state, *addr, *version, *cert;
	uint32_t sessions, rtt_us;
};

static enum visit end_row(struct answer *a, const struct end *e)
{
	answer_int(a, (int64_t)e->id);
	answer_str(a, e->side);
	answer_str(a, e->peer);
	answer_str(a, e->tunnel);
	answer_str(a, e->state);
	answer_int(a, thread_self());
	answer_int(a, e->sessions);
	cell_rtt(a, e->rtt_us);
	answer_age(a, e->age_ms);
	answer_str(a, e->addr);
	answer_str(a, e->version);
	answer_str(a, e->cert);
	return answer_full(a) ? VISIT_STOP : VISIT_NEXT;
}

static enum visit link_row(void *arg, const struct hub_link *l)
{
	struct end e = { .id = l->id, .side = "hub", .peer = l->agent, .tunnel = l->tunnel, .state = "up", .sessions = l->sessions,
			 .rtt_us = l->rtt_us, .age_ms = l->age_ms, .addr = l->addr, .version = l->version, .cert = l->cert };

	return end_row(arg, &e);
}

static enum visit uplink_row(void *arg, const struct dialer_link *l)
{
	struct end e = { .id = l->id, .side = "agent", .peer = l->hub, .state = l->state, .sessions = l->sessions,
			 .rtt_us = l->rtt_us, .age_ms = l->age_ms, .addr = l->addr, .version = l->version };

	return end_row(arg, &e);
}

int view_links(struct answer *a)
{
	static const char *const columns[] = { "id", "side", "peer", "tunnel", "state", "thread", "sessions", "rtt_ms", "age", "addr", "version", "cert", NULL };

	answer_table(a, columns);
	if (a->stage == 0) {
		if (!hub_each(&a->cursor, link_row, a))
			return thread_self();
		a->stage = 1;
		a->cursor = 0;
	}
	if (!dialer_each(&a->cursor, uplink_row, a))
		return thread_self();
	a->stage = 0;
	return answer_next_thread(a, true);
}

/* ---- sessions ---- */

struct line { /* a session of either side */
	const char *id, *side, *listener, *client, *route, *agent, *target, *state;
	uint64_t age_ms, up, down;
};

static void session_row(struct answer *a, const struct line *l)
{
	answer_str(a, l->id[0] ? l->id : NULL);
	answer_str(a, l->side);
	answer_str(a, l->listener);
	answer_str(a, l->client);
	answer_str(a, l->route);
	answer_str(a, l->agent);
	answer_str(a, l->target);
	answer_str(a, l->state);
	answer_age(a, l->age_ms);
	answer_int(a, (int64_t)l->up);
	answer_int(a, (int64_t)l->down);
	answer_int(a, thread_self());
}

static enum visit one_session(struct answer *a, const struct line *l)
{
	answer_pair(a, "id", l->id);
	answer_pair(a, "side", l->side);
	answer_pair(a, "listener", l->listener);
	answer_pair(a, "client", l->client);
	answer_pair(a, "route", l->route);
	answer_pair(a, "agent", l->agent);
	answer_pair(a, "target", l->target);
	answer_pair(a, "state", l->state);
	answer_pair_int(a, "age_ms", (int64_t)l->age_ms);
	answer_pair_int(a, "up", (int64_t)l->up);
	answer_pair_int(a, "down", (int64_t)l->down);
	answer_pair_int(a, "thread", thread_self());
	a->count = 1;
	return VISIT_STOP;
}

#define LOOKS 5000 /* at sessions in one call, when one is looked for */

static enum visit take_line(struct answer *a, const struct line *l)
{
	if (a->argc == 0) {
		session_row(a, l);
		return answer_full(a) ? VISIT_STOP : VISIT_NEXT;
	}
	if (l->id[0] && strcmp(l->id, a->argv[0]) == 0)
		return one_session(a, l);
	return ++a->index % LOOKS ? VISIT_NEXT : VISIT_STOP;
}

static enum visit client_line(void *arg, const struct frontend_client *c)
{
	struct line l = { .id = c->id, .side = "hub", .listener = c->listener, .client = c->client, .route = c->route, .agent = c->agent,
			  .target = c->target, .state = c->state, .age_ms = c->age_ms, .up = c->up, .down = c->down };

	return take_line(arg, &l);
}

static enum visit job_line(void *arg, const struct target_job *j)
{
	struct line l = { .id = j->id, .side = "agent", .listener = j->listener, .client = j->client, .route = j->service, .agent = j->hub,
			  .target = j->target, .state = j->state, .age_ms = j->age_ms, .up = j->up, .down = j->down };

	return take_line(arg, &l);
}

/* This thread's sessions from the cursor on: true when all of them, of both sides, have been seen. */
static bool sessions_here(struct answer *a)
{
	if (a->stage == 0) {
		if (!frontend_each(&a->cursor, client_line, a))
			return false;
		a->stage = 1;
		a->cursor = 0;
	}
	if (!target_each(&a->cursor, job_line, a))
		return false;
	a->stage = 0;
	return true;
}

int view_sessions(struct answer *a)
{
	static const char *const columns[] = { "id", "side", "listener", "client", "route", "peer", "target", "state", "age", "up", "down", "thread", NULL };
	bool over;
	int next;

	if (a->argc == 0)
		answer_table(a, columns);
	over = sessions_here(a);
	if (a->count)
		return ANSWER_DONE;
	next = answer_next_thread(a, over);
	if (next == ANSWER_DONE && a->argc > 0)
		answer_say(a, true, "There is no session %s.", a->argv[0]);
	return next;
}

/* ---- statistics in HAProxy's columns ---- */

#define STAT_COLUMNS(X)                                                                                                                                     \
	X(pxname) X(svname) X(qcur) X(qmax) X(scur) X(smax) X(slim) X(stot) X(bin) X(bout) X(dreq) X(dresp) X(ereq) X(econ) X(eresp) X(wretr) X(wredis)     \
	X(status) X(weight) X(act) X(bck) X(chkfail) X(chkdown) X(lastchg) X(downtime) X(qlimit) X(pid) X(iid) X(sid) X(throttle) X(lbtot) X(tracked)       \
	X(type) X(rate) X(rate_lim) X(rate_max) X(check_status) X(check_code) X(check_duration) X(hrsp_1xx) X(hrsp_2xx) X(hrsp_3xx) X(hrsp_4xx) X(hrsp_5xx) \
	X(hrsp_other) X(hanafail) X(req_rate) X(req_rate_max) X(req_tot) X(cli_abrt) X(srv_abrt) X(comp_in) X(comp_out) X(comp_byp) X(comp_rsp) X(lastsess) \
	X(last_chk) X(last_agt) X(qtime) X(ctime) X(rtime) X(ttime) X(agent_status) X(agent_code) X(agent_duration) X(check_desc) X(agent_desc)             \
	X(check_rise) X(check_fall) X(check_health) X(agent_rise) X(agent_fall) X(agent_health) X(addr) X(cookie) X(mode) X(algo) X(conn_rate)              \
	X(conn_rate_max) X(conn_tot) X(intercepted) X(dcon) X(dses) X(wrew) X(connect) X(reuse) X(cache_lookups) X(cache_hits) X(srv_icur) X(src_ilim)      \
	X(qtime_max) X(ctime_max) X(rtime_max) X(ttime_max) X(eint) X(links) X(rtt_us) X(failed) X(version)

enum stat_column {
#define STAT_COLUMN_ENUM(name) COL_##name,
	STAT_COLUMNS(STAT_COLUMN_ENUM)
#undef STAT_COLUMN_ENUM
	COLS
};

struct sheet {
	char cell[COLS][72];
};

static void set(struct sheet *s, enum stat_column c, const char *value)
{
	str_copy(s->cell[c], sizeof(s->cell[c]), value ? value : "");
}

static void set_int(struct sheet *s, enum stat_column c, uint64_t value)
{
	snprintf(s->cell[c], sizeof(s->cell[c]), "%" PRIu64, value);
}

static void set_names(struct sheet *s, const char *proxy, const char *server, int type, size_t iid)
{
	memset(s, 0, sizeof(*s));
	set(s, COL_pxname, proxy);
	set(s, COL_svname, server);
	set_int(s, COL_type, (uint64_t)type);
	set_int(s, COL_iid, iid);
	set_int(s, COL_pid, 1);
	set(s, COL_mode, "tcp");
}

static void set_figures(struct sheet *s, const struct frontend_figures *f, uint32_t maxconn)
{
	set_int(s, COL_scur, f->sessions);
	set_int(s, COL_slim, maxconn);
	set_int(s, COL_stot, f->total);
	set_int(s, COL_bin, f->up);
	set_int(s, COL_bout, f->down);
	set_int(s, COL_failed, f->failed);
}

static void put_sheet(struct answer *a, const struct sheet *s)
{
	bool first = true;
	FILE *out;

	if (a->form != FORM_JSON) {
		for (int i = 0; i < COLS; i++)
			answer_str(a, s->cell[i]);
		return;
	}
	out = answer_raw_json(a);
	for (int i = 0; i < COLS; i++) {
		if (!s->cell[i][0])
			continue;
		fprintf(out, "%s\"%s\":", first ? "{" : ",", a->columns[i]);
		if (s->cell[i][strspn(s->cell[i], "0123456789")] == '\0' && i > COL_svname)
			fputs(s->cell[i], out);
		else
			str_json(out, s->cell[i]);
		first = false;
	}
	fputc('}', out);
}

static void stat_listener(struct answer *a, const struct conf *c, size_t i)
{
	struct frontend_figures f;
	struct sheet s;

	frontend_listener(i, &f);
	set_names(&s, c->listeners[i].name, "FRONTEND", 0, i + 1);
	set_figures(&s, &f, f.maxconn ? f.maxconn : frontend_maxconn());
	set(&s, COL_mode, mode_word(c->listeners[i].mode));
	set(&s, COL_status, listener_status(&f));
	set(&s, COL_addr, c->listeners[i].bind_n ? c->listeners[i].bind[0].text : NULL);
	set_int(&s, COL_conn_tot, f.total);
	if (f.rate_limit)
		set_int(&s, COL_rate_lim, f.rate_limit);
	put_sheet(a, &s);
}

static void stat_agent(struct answer *a, const struct people *p, size_t i, size_t iid, size_t sid)
{
	const struct advert *v = p->agents[i].advert;
	struct sheet s;

	set_names(&s, v->tunnel, v->name, 2, iid);
	set_int(&s, COL_sid, sid);
	set_int(&s, COL_scur, sessions_of(v));
	set(&s, COL_status, agent_status(v));
	set_int(&s, COL_act, 1);
	set_int(&s, COL_bck, 0);
	set_int(&s, COL_lastchg, p->seen[i].age_ms / 1000);
	set(&s, COL_addr, v->addr);
	set_int(&s, COL_links, p->agents[i].links);
	if (p->seen[i].rtt_us)
		set_int(&s, COL_rtt_us, p->seen[i].rtt_us);
	set(&s, COL_version, v->version);
	put_sheet(a, &s);
}

static void stat_absent(struct answer *a, const char *tunnel, const char *name, size_t iid, size_t sid)
{
	struct sheet s;

	set_names(&s, tunnel, name, 2, iid);
	set_int(&s, COL_sid, sid);
	set_int(&s, COL_scur, 0);
	set(&s, COL_status, absent_status(name));
	set_int(&s, COL_links, 0);
	put_sheet(a, &s);
}

static void stat_tunnel(struct answer *a, const struct people *p, const struct conf *c, size_t i)
{
	const struct conf_tunnel *t = &c->tunnels[i];
	struct strength strength = strength_of(p, t);
	size_t iid = c->listeners_n + i + 1;
	struct frontend_figures f;
	struct sheet s;

	for (size_t k = 0; k < t->agents.n; k++) {
		size_t at = find_agent(p, t->name, t->agents.v[k]);

		if (at < p->n)
			stat_agent(a, p, at, iid, k + 1);
		else
			stat_absent(a, t->name, t->agents.v[k], iid, k + 1);
	}
	frontend_tunnel(i, &f);
	set_names(&s, t->name, "BACKEND", 1, iid);
	set_figures(&s, &f, f.maxconn);
	set(&s, COL_status, tunnel_status(t, &strength));
	set_int(&s, COL_act, strength.agents);
	set_int(&s, COL_bck, 0);
	set(&s, COL_algo, balance_word(t->balance));
	set_int(&s, COL_links, strength.links);
	put_sheet(a, &s);
}

/* A service is a proxy of its own, "TUNNEL/SERVICE", the agents that offer it are its servers. */
static void set_service(struct sheet *s, const char *tunnel, const char *service, const char *agent, size_t iid)
{
	char path[2 * HELLO_NAME_MAX];

	snprintf(path, sizeof(path), "%.63s/%.63s", tunnel, service);
	set_names(s, path, agent, 2, iid);
	set_int(s, COL_act, 1);
	set_int(s, COL_bck, 0);
}

static void set_check(struct sheet *s, const char *status, uint32_t code, const char *text, uint64_t age_ms)
{
	set(s, COL_check_status, status);
	if (code)
		set_int(s, COL_check_code, code);
	set(s, COL_last_chk, text);
	set(s, COL_check_desc, text);
	set_int(s, COL_lastchg, age_ms / 1000);
}

static void stat_offered(struct answer *a, const struct conf *c, const struct advert *v, size_t i)
{
	const struct hello_service *o = &v->services[i];
	struct sheet s;
	size_t t = 0;

	while (t < c->tunnels_n && strcmp(c->tunnels[t].name, v->tunnel) != 0)
		t++;
	set_service(&s, v->tunnel, o->name, v->name, c->listeners_n + t + 1);
	set_int(&s, COL_sid, HELLO_SERVICES_MAX * (a->count + 1) + i); /* behind those of the tunnel's agents */
	set(&s, COL_status, service_status(v, o, s.cell[COL_pxname]));
	set_int(&s, COL_weight, o->weight);
	if (o->maxconn)
		set_int(&s, COL_slim, o->maxconn);
	if (o->status[0])
		set_check(&s, o->status, o->code, o->text, age_of(v, o));
	put_sheet(a, &s);
}

/* All that HAProxy says of a server's checks. */
static void stat_own(struct answer *a, const struct conf_agent *c, size_t i)
{
	const struct conf_service *conf = &c->services[i];
	struct check_view v;
	bool checked = check_view(conf->name, &v);
	struct sheet s;

	set_service(&s, c->tunnel, conf->name, c->name, i + 1);
	set_int(&s, COL_sid, 1);
	set(&s, COL_status, checked ? v.words : "no check");
	set_int(&s, COL_weight, checked ? v.weight : conf->weight);
	set_int(&s, COL_scur, target_sessions(i));
	if (conf->maxconn)
		set_int(&s, COL_slim, conf->maxconn);
	set(&s, COL_addr, conf->target.text);
	if (checked) {
		const char *text = v.last.text[0] ? v.last.text : check_status_text(v.last.status);

		set_check(&s, check_status_word(v.last.status), v.last.code, text, clock_ms() - v.since_ms);
		set_int(&s, COL_check_duration, v.last.took_us / 1000);
		set_int(&s, COL_chkfail, v.failed);
		set_int(&s, COL_chkdown, v.falls);
		set_int(&s, COL_check_rise, conf->check.rise);
		set_int(&s, COL_check_fall, conf->check.fall);
		set_int(&s, COL_check_health, v.health);
	}
	put_sheet(a, &s);
}

/* a->count counts agents and, beyond them, what we offer ourselves (unless the hub of this process has told it); a->cursor the services of an agent. */
static int stat_services(struct answer *a, const struct conf *c)
{
	const struct people *p = a->data;

	for (; a->count < p->n; a->count++, a->cursor = 0) {
		const struct advert *v = p->agents[a->count].advert;

		for (; a->cursor < v->services_n && v->tunnel[0]; a->cursor++) {
			if (answer_full(a))
				return 0;
			stat_offered(a, c, v, a->cursor);
		}
	}
	for (; !c->hub.set && a->count - p->n < c->agent.services_n; a->count++) {
		if (answer_full(a))
			return 0;
		stat_own(a, &c->agent, a->count - p->n);
	}
	return ANSWER_DONE;
}

int view_stat(struct answer *a)
{
	static const char *const columns[] = {
#define STAT_COLUMN_NAME(name) #name,
		STAT_COLUMNS(STAT_COLUMN_NAME)
#undef STAT_COLUMN_NAME
		NULL
	};
	const struct conf *c = a->state->conf();

	if (a->stage == 0)
		return see_links(a);
	if (a->form == FORM_JSON)
		answer_list(a);
	answer_table(a, columns);
	for (; a->index < c->listeners_n + c->tunnels_n; a->index++) {
		if (answer_full(a))
			return 0;
		if (a->index < c->listeners_n)
			stat_listener(a, c, a->index);
		else
			stat_tunnel(a, a->data, c, a->index - c->listeners_n);
	}
	return stat_services(a, c);
}

/* The page /metrics. A scrape is a list of stages, each of which writes what it has and comes back for more when a piece is full; between two pieces others
 * have their turn. Owns what a scrape remembers: where it is, and who was there when it began. Figures are read where they are kept. */
#include "mctunnel/admin/prometheus.h"

#include "mctunnel/admin/process.h"
#include "mctunnel/admin/state.h"
#include "mctunnel/admin/vip.h"
#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/series.h"
#include "mctunnel/base/stat.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/conf/files.h"
#include "mctunnel/edge/check.h"
#include "mctunnel/edge/dialer.h"
#include "mctunnel/edge/frontend.h"
#include "mctunnel/edge/target.h"
#include "mctunnel/net/tls.h"
#include "mctunnel/script/metric.h"
#include "mctunnel/tunnel/registry.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PIECE_ROWS 400 /* lines of a piece, about: HTTP_PIECE bytes at most, mostly less */
#define VALUE_MAX 512
#define CERTIFICATE_ROWS 10 /* a certificate is read for its row, which takes as long as so many others */

/* Gauges by agent, one family after the other. */
enum gauge { GAUGE_SERVICE_UP, GAUGE_LINK_RTT, GAUGE_AGENT_SESSIONS, GAUGE_HUB_LINKS, GAUGE_HUB_RTT, GAUGE_COUNT };

static const struct {
	const char *name, *help;
} gauges[GAUGE_COUNT] = {
	[GAUGE_SERVICE_UP] = { "mctunnel_service_up", "1: the agent offers the service and it is healthy; 0: it is not, or the agent is draining" },
	[GAUGE_LINK_RTT] = { "mctunnel_link_rtt_seconds", "Round trip to the agent, smoothed, of that of its links that was measured last" },
	[GAUGE_AGENT_SESSIONS] = { "mctunnel_agent_sessions", "Sessions carried for clients by the agent now" },
	[GAUGE_HUB_LINKS] = { "mctunnel_hub_links", "On an agent: links to the hub that are up" },
	[GAUGE_HUB_RTT] = { "mctunnel_hub_rtt_seconds", "On an agent: round trip to the hub, smoothed, of the link that was measured last" },
};

struct scrape {
	size_t stage;
	int rows; /* still free in this piece */
	int item; /* of the stage: which family or gauge */
	size_t agent, service, shown;
	const void *cursor;
	const struct metric *metric;
	struct registry_agent *agents; /* owned: no name twice */
	size_t agents_n;
	size_t omitted[GAUGE_COUNT];
	struct map *certificates; /* owned: those that were written; NULL: none yet */
};

static const struct metrics_state *state;

/* ---- lines ---- */

static void family(struct scrape *s, FILE *f, const char *name, const char *type, const char *help)
{
	fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
	s->rows -= 2;
}

static void sample(struct scrape *s, FILE *f, const char *name, int64_t value)
{
	fprintf(f, "%s %" PRId64 "\n", name, value);
	s->rows--;
}

static void gauge(struct scrape *s, FILE *f, const char *name, const char *help, int64_t value)
{
	if (value < 0)
		return;
	family(s, f, name, "gauge", help);
	sample(s, f, name, value);
}

static void labelled(struct scrape *s, FILE *f, const char *name, const char *label, const char *value, int64_t n)
{
	char text[VALUE_MAX];

	series_escape(text, sizeof(text), value);
	fprintf(f, "%s{%s=\"%s\"} %" PRId64 "\n", name, label, text, n);
	s->rows--;
}

/* ---- stages: true when there is no more ---- */

static const struct conf *conf(void)
{
	return state->conf ? state->conf() : NULL;
}

static bool put_state(struct scrape *s, FILE *f)
{
	family(s, f, "mctunnel_build_info", "gauge", "The program's version; always 1");
	labelled(s, f, "mctunnel_build_info", "version", MCTUNNEL_VERSION, 1);
	gauge(s, f, "mctunnel_ready", "1 when new sessions are accepted, 0 when not", state->ready());
	gauge(s, f, "mctunnel_agents", "Agents with at least one link that is up", (int64_t)registry_agents());
	family(s, f, "mctunnel_vip_state", "gauge", "1 for the role that keepalived told last, 0 for the others");
	for (int v = 0; v < VIP_COUNT; v++)
		labelled(s, f, "mctunnel_vip_state", "state", vip_word((enum vip_state)v), vip_get() == (enum vip_state)v);
	family(s, f, "mctunnel_worker_restarts_total", "counter", "Times the master had to start a worker again");
	sample(s, f, "mctunnel_worker_restarts_total", (int64_t)state->restarts());
	return true;
}

static bool put_counters(struct scrape *s, FILE *f)
{
	bool agent_only = conf() && !conf()->hub.set;

	for (int i = 0; i < STAT_COUNT; i++) {
		const struct stat_row *row = &stat_rows[i];

		family(s, f, row->name, row->type == STAT_COUNTER ? "counter" : "gauge", row->help);
		sample(s, f, row->name, i == STAT_LINKS && agent_only ? (int64_t)dialer_links() : stat_sum((enum stat_id)i));
	}
	return true;
}

static bool put_memory(struct scrape *s, FILE *f)
{
	struct mem_usage u;

	family(s, f, "mctunnel_memory_objects", "gauge", "Pooled objects in use");
	for (int kind = 0; kind < MEM_KIND_COUNT; kind++) {
		mem_usage((enum mem_kind)kind, &u);
		labelled(s, f, "mctunnel_memory_objects", "kind", u.name, (int64_t)u.used);
	}
	family(s, f, "mctunnel_memory_bytes", "gauge", "Memory of pooled objects in use");
	for (int kind = 0; kind < MEM_KIND_COUNT; kind++) {
		mem_usage((enum mem_kind)kind, &u);
		if (kind != MEM_OTHER) /* of many sizes */
			labelled(s, f, "mctunnel_memory_bytes", "kind", u.name, (int64_t)(u.used * u.size));
	}
	return true;
}

static bool put_process(struct scrape *s, FILE *f)
{
	family(s, f, "process_cpu_seconds_total", "counter", "User and system CPU time spent in seconds");
	fprintf(f, "process_cpu_seconds_total %.6f\n", process_cpu_seconds());
	family(s, f, "process_start_time_seconds", "gauge", "Start time of the process since the Unix epoch in seconds");
	fprintf(f, "process_start_time_seconds %.3f\n", process_started());
	gauge(s, f, "process_resident_memory_bytes", "Resident memory size in bytes", process_resident());
	gauge(s, f, "process_open_fds", "Number of open file descriptors", process_descriptors());
	gauge(s, f, "process_max_fds", "Maximum number of open file descriptors", process_descriptors_max());
	return true;
}

static void put_certificate(struct scrape *s, FILE *f, const struct conf *c, const char *path)
{
	struct tls_described d;
	const char *why, *pem;
	size_t len;

	pem = path ? files_read(c->files, path, &len, &why) : NULL;
	if (pem && tls_describe(pem, &d) == 0)
		labelled(s, f, "mctunnel_certificate_expiry_seconds", "cert", path, d.not_after - (int64_t)time(NULL));
}

/* Own certificates in turn; NULL: there are no more. */
static const char *certificate(const struct conf *c, size_t i)
{
	if (i < c->hub.bind_n)
		return c->hub.bind[i].cert;
	i -= c->hub.bind_n;
	for (size_t k = 0; k < c->listeners_n; k++) {
		const struct conf_listener_tls *t = &c->listeners[k].tls;

		if (i < t->pairs_n)
			return t->pairs[i].cert;
		i -= t->pairs_n;
	}
	return i == 0 && c->agent.set ? c->agent.cert : NULL;
}

/* One certificate may serve in several places. */
static bool is_new(struct scrape *s, const char *path)
{
	if (!s->certificates)
		s->certificates = map_new();
	return !map_set_str(s->certificates, path, s);
}

static bool put_certificates(struct scrape *s, FILE *f)
{
	const struct conf *c = conf();
	const char *path;

	if (!c)
		return true;
	if (s->item == 0)
		family(s, f, "mctunnel_certificate_expiry_seconds", "gauge", "Seconds until the certificate expires, negative when it has");
	for (; (path = certificate(c, (size_t)s->item)); s->item++) {
		if (s->rows <= 0 && s->item > 0)
			return false;
		if (!is_new(s, path))
			continue;
		put_certificate(s, f, c, path);
		s->rows -= CERTIFICATE_ROWS;
	}
	return true;
}

/* What the configuration names is bounded by it; so these are written at once. Their own configuration: during a reload it may be another one. */
static bool put_places(struct scrape *s, FILE *f)
{
	const struct conf *c = frontend_conf();
	struct frontend_figures n;

	if (c && c->listeners_n)
		family(s, f, "mctunnel_listener_sessions", "gauge", "Sessions of the listener's clients now, waiting ones included");
	for (size_t i = 0; c && i < c->listeners_n; i++) {
		frontend_listener(i, &n);
		labelled(s, f, "mctunnel_listener_sessions", "listener", c->listeners[i].name, n.sessions);
	}
	if (c && c->tunnels_n)
		family(s, f, "mctunnel_tunnel_sessions", "gauge", "Sessions in the tunnel now");
	for (size_t i = 0; c && i < c->tunnels_n; i++) {
		frontend_tunnel(i, &n);
		labelled(s, f, "mctunnel_tunnel_sessions", "tunnel", c->tunnels[i].name, n.sessions);
	}
	return true;
}

static void put_checks(struct scrape *s, FILE *f, const struct conf *c)
{
	bool first = true;

	for (size_t i = 0; c && c->agent.set && i < c->agent.services_n; i++) {
		struct check_view v;

		if (!check_view(c->agent.services[i].name, &v))
			continue;
		if (first)
			family(s, f, "mctunnel_check_up", "gauge", "On an agent: 1: the service's checks say that it is up; 0: down");
		first = false;
		labelled(s, f, "mctunnel_check_up", "service", c->agent.services[i].name, v.up);
	}
}

static bool put_targets(struct scrape *s, FILE *f)
{
	const struct conf *c = target_conf();

	if (c && c->agent.set)
		family(s, f, "mctunnel_service_sessions", "gauge", "On an agent: sessions of the service now");
	for (size_t i = 0; c && c->agent.set && i < c->agent.services_n; i++)
		labelled(s, f, "mctunnel_service_sessions", "service", c->agent.services[i].name, target_sessions(i));
	put_checks(s, f, c);
	return true;
}

static void put_histogram(struct scrape *s, FILE *f, const char *name, const struct series_view *v)
{
	const char *comma = *v->labels ? "," : "";
	uint64_t n = 0;

	for (int i = 0; i <= SERIES_BUCKETS; i++) {
		n += v->bucket[i];
		if (i < SERIES_BUCKETS)
			fprintf(f, "%s_bucket{%s%sle=\"%g\"} %" PRIu64 "\n", name, v->labels, comma, series_bucket_ms[i] / 1000.0, n);
		else
			fprintf(f, "%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n", name, v->labels, comma, n);
	}
	if (*v->labels) {
		fprintf(f, "%s_sum{%s} %.6f\n%s_count{%s} %" PRIu64 "\n", name, v->labels, (double)v->sum_us / 1e6, name, v->labels, n);
	} else {
		fprintf(f, "%s_sum %.6f\n%s_count %" PRIu64 "\n", name, (double)v->sum_us / 1e6, name, n);
	}
	s->rows -= SERIES_BUCKETS + 3;
}

static void put_one(struct scrape *s, FILE *f, const struct family_row *row, const struct series_view *v)
{
	if (row->type == SERIES_HISTOGRAM)
		put_histogram(s, f, row->name, v);
	else if (*v->labels)
		fprintf(f, "%s{%s} %" PRIu64 "\n", row->name, v->labels, v->value);
	else
		fprintf(f, "%s %" PRIu64 "\n", row->name, v->value);
	s->rows--;
}

/* Families without labels are there from the beginning. */
static bool put_series(struct scrape *s, FILE *f)
{
	static const struct series_view nothing = { .labels = "" };

	for (; s->item < FAMILY_COUNT; s->item++, s->cursor = NULL) {
		const struct family_row *row = &family_rows[s->item];
		struct series_view v;

		for (; series_next((enum family)s->item, &s->cursor, &v); s->shown++) {
			if (s->shown == 0)
				family(s, f, row->name, row->type == SERIES_HISTOGRAM ? "histogram" : "counter", row->help);
			put_one(s, f, row, &v);
			if (s->rows <= 0 && ++s->shown)
				return false;
		}
		if (s->shown == 0 && !*row->labels) {
			family(s, f, row->name, row->type == SERIES_HISTOGRAM ? "histogram" : "counter", row->help);
			put_one(s, f, row, &nothing);
		}
		s->shown = 0;
	}
	return true;
}

/* What scripts count by themselves. */
static bool put_scripts(struct scrape *s, FILE *f)
{
	const char *labels;
	uint64_t value;

	for (;;) {
		if (!s->cursor) {
			s->metric = metric_next(s->metric);
			if (!s->metric)
				return true;
			family(s, f, metric_name(s->metric), "counter", metric_help(s->metric));
		}
		while (metric_series(s->metric, &s->cursor, &labels, &value)) {
			fprintf(f, *labels ? "%s{%s} %" PRIu64 "\n" : "%s%s %" PRIu64 "\n", metric_name(s->metric), labels, value);
			if (--s->rows <= 0)
				return false;
		}
		s->cursor = NULL;
	}
}

/* ---- gauges by agent ---- */

static const char *escaped(const char *name, char *text)
{
	series_escape(text, VALUE_MAX, name);
	return text;
}

static void put_service(struct scrape *s, FILE *f, const struct advert *a, const struct hello_service *o)
{
	char tunnel[VALUE_MAX], name[VALUE_MAX], service[VALUE_MAX];

	if (s->shown >= series_max()) {
		s->omitted[GAUGE_SERVICE_UP]++;
		return;
	}
	fprintf(f, "mctunnel_service_up{tunnel=\"%s\",service=\"%s\",agent=\"%s\"} %d\n", escaped(a->tunnel, tunnel), escaped(o->name, service),
		escaped(a->name, name), o->up && !a->draining);
	s->rows--;
	s->shown++;
}

/* Does the agent (or hub) have that figure? */
static bool has(enum gauge g, const struct advert *a)
{
	bool is_hub = a->tunnel[0] == '\0';

	if (g == GAUGE_LINK_RTT || g == GAUGE_HUB_RTT)
		return (g == GAUGE_HUB_RTT) == is_hub && a->rtt_us && atomic_load_explicit(a->rtt_us, memory_order_relaxed) > 0;
	return (g == GAUGE_HUB_LINKS) == is_hub;
}

static void put_value(FILE *f, enum gauge g, const struct registry_agent *who)
{
	const struct advert *a = who->advert;

	switch (g) {
	case GAUGE_LINK_RTT:
	case GAUGE_HUB_RTT: fprintf(f, "%.6f\n", atomic_load_explicit(a->rtt_us, memory_order_relaxed) / 1e6); break;
	case GAUGE_HUB_LINKS: fprintf(f, "%" PRIu32 "\n", who->links); break;
	default: fprintf(f, "%u\n", a->sessions ? atomic_load_explicit(a->sessions, memory_order_relaxed) : 0); break;
	}
}

static void put_agent(struct scrape *s, FILE *f, enum gauge g, const struct registry_agent *who)
{
	char tunnel[VALUE_MAX], name[VALUE_MAX];
	const struct advert *a = who->advert;

	if (!has(g, a))
		return;
	if (s->shown >= series_max()) {
		s->omitted[g]++;
		return;
	}
	if (s->shown++ == 0)
		family(s, f, gauges[g].name, "gauge", gauges[g].help);
	if (a->tunnel[0])
		fprintf(f, "%s{tunnel=\"%s\",agent=\"%s\"} ", gauges[g].name, escaped(a->tunnel, tunnel), escaped(a->name, name));
	else
		fprintf(f, "%s{hub=\"%s\"} ", gauges[g].name, escaped(a->name, name));
	put_value(f, g, who);
	s->rows--;
}

static bool put_services(struct scrape *s, FILE *f)
{
	for (; s->agent < s->agents_n; s->agent++, s->service = 0) {
		const struct advert *a = s->agents[s->agent].advert;

		for (; s->service < a->services_n; s->service++) {
			if (s->rows <= 0)
				return false;
			if (s->shown == 0)
				family(s, f, gauges[GAUGE_SERVICE_UP].name, "gauge", gauges[GAUGE_SERVICE_UP].help);
			put_service(s, f, a, &a->services[s->service]);
		}
	}
	return true;
}

static bool put_agents(struct scrape *s, FILE *f)
{
	for (; s->item < GAUGE_COUNT; s->item++, s->agent = s->shown = 0) {
		for (; s->item != GAUGE_SERVICE_UP && s->agent < s->agents_n; s->agent++) {
			if (s->rows <= 0)
				return false;
			put_agent(s, f, (enum gauge)s->item, &s->agents[s->agent]);
		}
	}
	return true;
}

static bool put_dropped(struct scrape *s, FILE *f)
{
	static const char name[] = "mctunnel_metrics_series_dropped";

	family(s, f, name, "gauge", "Sets of labels beyond global.metrics.max_series: counted in the series whose labels say other, or left out (gauges)");
	for (int i = 0; i < FAMILY_COUNT; i++) {
		if (*family_rows[i].labels)
			labelled(s, f, name, "family", family_rows[i].name, (int64_t)series_dropped((enum family)i));
	}
	for (int g = 0; g < GAUGE_COUNT; g++)
		labelled(s, f, name, "family", gauges[g].name, (int64_t)s->omitted[g]);
	return true;
}

static bool (*const stages[])(struct scrape *s, FILE *f) = {
	put_state, put_counters, put_memory, put_process, put_certificates, put_places, put_targets, put_series, put_scripts, put_services, put_agents, put_dropped,
};

/* ---- a scrape ---- */

void prometheus_init(const struct metrics_state *s)
{
	state = s;
}

/* An agent that restarts may be there twice for a moment, hubs may have one name: one series for a name. */
static void merge_namesakes(struct scrape *s)
{
	size_t n = 0;

	for (size_t i = 0; i < s->agents_n; i++) {
		struct registry_agent *last = n ? &s->agents[n - 1] : NULL, now = s->agents[i];

		if (!last || strcmp(last->advert->name, now.advert->name) != 0 || strcmp(last->advert->tunnel, now.advert->tunnel) != 0) {
			s->agents[n++] = now;
			continue;
		}
		last->links += now.links;
		if (last->advert->draining) {
			advert_put(last->advert);
			last->advert = now.advert;
		} else {
			advert_put(now.advert);
		}
	}
	s->agents_n = n;
}

void *prometheus_begin(void)
{
	struct scrape *s = mem_calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->agents_n = registry_snapshot(&s->agents);
	if (!s->agents) {
		prometheus_end(s);
		return NULL;
	}
	merge_namesakes(s);
	return s;
}

bool prometheus_more(void *job, FILE *f)
{
	struct scrape *s = job;

	s->rows = PIECE_ROWS;
	while (s->rows > 0 && s->stage < sizeof(stages) / sizeof(stages[0])) {
		if (!stages[s->stage](s, f))
			break;
		s->stage++;
		s->item = 0;
		s->agent = s->service = s->shown = 0;
		s->cursor = NULL;
	}
	return s->stage < sizeof(stages) / sizeof(stages[0]);
}

void prometheus_end(void *job)
{
	struct scrape *s = job;

	registry_snapshot_free(s->agents, s->agents_n);
	map_free(s->certificates);
	free(s);
}

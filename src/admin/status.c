/* The status page at / and the same as JSON. Both are written in one pass over the same figures by the same code (a sheet is a table in either form), so that
 * they cannot disagree. Owns the history of the last minutes; everything else is read where it is kept. Tables have a limit: a page for people. Style and script
 * lie beside this file and become part of it; the script fetches /status.json each second, and learns from the page what goes where. */
#include "mctunnel/admin/status.h"

#include "mctunnel/admin/process.h"
#include "mctunnel/admin/state.h"
#include "mctunnel/admin/vip.h"
#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/ring.h"
#include "mctunnel/base/rnd.h"
#include "mctunnel/base/stat.h"
#include "mctunnel/base/str.h"
#include "mctunnel/base/timer.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/edge/check.h"
#include "mctunnel/edge/dialer.h"
#include "mctunnel/edge/frontend.h"
#include "mctunnel/edge/target.h"
#include "mctunnel/event/thread.h"
#include "mctunnel/tunnel/registry.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define ROWS_MAX 200 /* of a table */
#define EVENTS_MAX 30
#define HISTORY 180
#define SAMPLE_MS 1000

__asm__(".pushsection .rodata\n"
	"status_css: .incbin \"src/admin/status.css\"\n.byte 0\n"
	"status_js: .incbin \"src/admin/status.js\"\n.byte 0\n"
	".popsection");
extern const char status_css[], status_js[];

/* ---- the history ---- */

enum track { TRACK_UP, TRACK_DOWN, TRACK_OPENED, TRACK_SESSIONS, TRACK_COUNT };

static const struct {
	const char *key;
	enum stat_id stat;
	bool rate; /* how much it grew, not what it is */
} tracks[TRACK_COUNT] = {
	[TRACK_UP] = { "up", STAT_BYTES_UP, true },
	[TRACK_DOWN] = { "down", STAT_BYTES_DOWN, true },
	[TRACK_OPENED] = { "opened", STAT_SESSIONS_OPENED, true },
	[TRACK_SESSIONS] = { "sessions", STAT_SESSIONS, false },
};

static struct {
	const struct metrics_state *state; /* borrowed */
	struct timer sample;
	int64_t value[TRACK_COUNT][HISTORY], last[TRACK_COUNT];
	unsigned at; /* the oldest */
	char nonce[33];
} me;

static void take_sample(bool first)
{
	for (int t = 0; t < TRACK_COUNT; t++) {
		int64_t now = stat_sum(tracks[t].stat);

		me.value[t][me.at] = !tracks[t].rate ? now : first ? 0 : now - me.last[t];
		me.last[t] = now;
	}
	me.at = (me.at + 1) % HISTORY;
}

static void on_sample(struct timer *t)
{
	take_sample(false);
	timer_start(t, SAMPLE_MS);
}

static int64_t past(enum track t, unsigned i)
{
	return me.value[t][(me.at + i) % HISTORY];
}

void status_init(const struct metrics_state *state)
{
	memset(&me, 0, sizeof(me));
	me.state = state;
	timer_init(&me.sample, on_sample);
}

void status_start(void)
{
	take_sample(true);
	timer_start(&me.sample, SAMPLE_MS);
}

void status_stop(void)
{
	timer_stop(&me.sample);
}

/* ---- sheets: rows of values, as a table or as an array of objects ---- */

enum kind { TEXT, COUNT, BYTES, MS, STATE };

static const char *const kind_words[] = { "text", "count", "bytes", "ms", "state" };

struct column {
	const char *key, *title;
	enum kind kind;
};

struct sheet {
	FILE *f;
	bool json;
	const struct column *columns;
	size_t columns_n, at, rows, omitted;
};

static void put_html(FILE *f, const char *text)
{
	for (const char *s = text; *s;) {
		size_t len = str_utf8(s);

		switch (*s) {
		case '&': fputs("&amp;", f); break;
		case '<': fputs("&lt;", f); break;
		case '>': fputs("&gt;", f); break;
		case '"': fputs("&quot;", f); break;
		case '\'': fputs("&#39;", f); break;
		default:
			if (len == 0 || (len == 1 && (unsigned char)*s < 0x20))
				fputs("\xef\xbf\xbd", f);
			else
				fwrite(s, 1, len, f);
		}
		s += len ? len : 1;
	}
}

/* As the script does it. */
static void put_bytes(FILE *f, double n)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB" };
	size_t i = 0;

	for (; n >= 1024 && i + 1 < sizeof(units) / sizeof(units[0]); i++)
		n /= 1024;
	fprintf(f, i ? "%.1f %s" : "%.0f %s", n, units[i]);
}

static void put_number(FILE *f, enum kind kind, int64_t n)
{
	if (kind == BYTES)
		put_bytes(f, (double)n);
	else if (kind == MS)
		fprintf(f, "%.2f ms", (double)n / 1000);
	else
		fprintf(f, "%" PRId64, n);
}

static void sheet_begin(struct sheet *s, const char *id, const char *title, const struct column *columns, size_t n)
{
	s->columns = columns;
	s->columns_n = n;
	s->at = s->rows = s->omitted = 0;
	if (s->json) {
		fprintf(s->f, ",\"%s\":[", id);
		return;
	}
	fprintf(s->f, "<section id=\"%s\"><h2>%s</h2><div class=\"wide\"><table><thead><tr>", id, title);
	for (size_t i = 0; i < n; i++)
		fprintf(s->f, "<th data-key=\"%s\" data-kind=\"%s\">%s", columns[i].key, kind_words[columns[i].kind], columns[i].title);
	fputs("</thead><tbody>\n", s->f);
}

/* false: there are enough. */
static bool sheet_row(struct sheet *s)
{
	if (s->rows == ROWS_MAX) {
		s->omitted++;
		return false;
	}
	if (s->json)
		fputs(s->rows ? "},\n{" : "{", s->f);
	else
		fputs("<tr>", s->f);
	s->rows++;
	s->at = 0;
	return true;
}

static const struct column *next_column(struct sheet *s)
{
	const struct column *c = &s->columns[s->at++];

	if (s->json)
		fprintf(s->f, "%s\"%s\":", s->at > 1 ? "," : "", c->key);
	return c;
}

static void sheet_text(struct sheet *s, const char *text)
{
	const struct column *c = next_column(s);

	if (s->json) {
		str_json(s->f, text);
		return;
	}
	fprintf(s->f, "<td class=\"%s", kind_words[c->kind]);
	if (c->kind == STATE)
		fprintf(s->f, " %s", text); /* one of our words */
	fputs("\">", s->f);
	put_html(s->f, text);
}

/* MS: given in microseconds. Negative: not known. */
static void sheet_number(struct sheet *s, int64_t n)
{
	const struct column *c = next_column(s);

	if (!s->json)
		fprintf(s->f, "<td class=\"%s\">", kind_words[c->kind]);
	if (n < 0)
		fputs(s->json ? "null" : "&ndash;", s->f);
	else if (s->json && c->kind == MS)
		fprintf(s->f, "%.3f", (double)n / 1000);
	else if (s->json)
		fprintf(s->f, "%" PRId64, n);
	else
		put_number(s->f, c->kind, n);
}

static void sheet_end(struct sheet *s)
{
	if (s->json) {
		fputs(s->rows ? "}]" : "]", s->f);
		return;
	}
	fputs("</table></div>", s->f);
	if (s->omitted)
		fprintf(s->f, "<p>and %zu more", s->omitted);
	fputs("</section>\n", s->f);
}

/* ---- what there is ---- */

#define SHEET(s, id, title, columns) sheet_begin(s, id, title, columns, sizeof(columns) / sizeof((columns)[0]))

static const char *limit_word(const struct frontend_figures *n)
{
	return !n->enabled ? "disabled" : n->full ? "full" : "up";
}

/* What an operator has said goes before what is. */
static const char *said_of(enum registry_mark what, const char *name, const char *otherwise)
{
	int said = registry_marked(what, name);

	return said == MARK_NONE ? otherwise : what == MARK_AGENT && said == 1 ? "draining" : "disabled";
}

struct offer { /* a service of a tunnel, by all its agents */
	const char *tunnel, *name; /* of an advert */
	size_t up, all;
	const char *ill; /* an agent whose check says that it is down; NULL: none */
	const struct hello_service *why;
};

struct crowd { /* who is there */
	struct registry_agent *agents;
	size_t agents_n, offers_n;
	struct offer *offers;
};

static void count_offer(struct crowd *c, struct map *known, const struct advert *a, const struct hello_service *o)
{
	char key[2 * HELLO_NAME_MAX];
	struct strbuf b;
	struct offer *offer;
	uintptr_t i;

	strbuf_init(&b, key, sizeof(key));
	strbuf_add(&b, "%s/%s", a->tunnel, o->name);
	i = (uintptr_t)map_get_str(known, key);
	if (!i) {
		if (c->offers_n % 64 == 0)
			c->offers = xrealloc(c->offers, (c->offers_n + 64) * sizeof(*c->offers));
		c->offers[c->offers_n++] = (struct offer){ .tunnel = a->tunnel, .name = o->name };
		i = c->offers_n;
		map_set_str(known, key, (void *)i);
	}
	offer = &c->offers[i - 1];
	offer->all++;
	offer->up += o->up && !a->draining;
	if (!o->up && o->status[0] && !offer->ill) {
		offer->ill = a->name;
		offer->why = o;
	}
}

static int by_name(const void *a, const void *b)
{
	const struct offer *x = a, *y = b;
	int order = strcmp(x->tunnel, y->tunnel);

	return order ? order : strcmp(x->name, y->name);
}

/* false: no memory. */
static bool crowd_init(struct crowd *c)
{
	struct map *known;

	memset(c, 0, sizeof(*c));
	c->agents_n = registry_snapshot(&c->agents);
	if (!c->agents)
		return false;
	known = map_new();
	for (size_t i = 0; i < c->agents_n; i++) {
		const struct advert *a = c->agents[i].advert;

		for (size_t k = 0; k < a->services_n; k++)
			count_offer(c, known, a, &a->services[k]);
	}
	map_free(known);
	if (c->offers_n)
		qsort(c->offers, c->offers_n, sizeof(*c->offers), by_name);
	return true;
}

static void crowd_fini(struct crowd *c)
{
	registry_snapshot_free(c->agents, c->agents_n);
	free(c->offers);
}

static size_t agents_of(const struct crowd *c, const char *tunnel)
{
	size_t n = 0;

	for (size_t i = 0; i < c->agents_n; i++)
		n += strcmp(c->agents[i].advert->tunnel, tunnel) == 0;
	return n;
}

static void put_tunnels(struct sheet *s, const struct crowd *c)
{
	const struct conf *conf = frontend_conf();
	static const struct column columns[] = { { "name", "Tunnel", TEXT }, { "state", "State", STATE }, { "agents", "Agents", COUNT },
		{ "sessions", "Sessions", COUNT }, { "total", "Total", COUNT }, { "failed", "Failed", COUNT }, { "up_ended", "Up, ended", BYTES }, { "down_ended", "Down, ended", BYTES } };

	SHEET(s, "tunnels", "Tunnels", columns);
	for (size_t i = 0; conf && i < conf->tunnels_n; i++) {
		struct frontend_figures n;

		if (!sheet_row(s))
			continue;
		frontend_tunnel(i, &n);
		size_t agents = agents_of(c, conf->tunnels[i].name);
		sheet_text(s, conf->tunnels[i].name);
		sheet_text(s, said_of(MARK_TUNNEL, conf->tunnels[i].name, agents ? limit_word(&n) : "down"));
		sheet_number(s, (int64_t)agents);
		sheet_number(s, n.sessions);
		sheet_number(s, (int64_t)n.total);
		sheet_number(s, (int64_t)n.failed);
		sheet_number(s, (int64_t)n.up);
		sheet_number(s, (int64_t)n.down);
	}
	sheet_end(s);
}

static void put_listeners(struct sheet *s)
{
	const struct conf *conf = frontend_conf();
	static const struct column columns[] = { { "name", "Listener", TEXT }, { "state", "State", STATE },
		{ "sessions", "Sessions", COUNT }, { "total", "Total", COUNT }, { "failed", "Failed", COUNT }, { "up_ended", "Up, ended", BYTES }, { "down_ended", "Down, ended", BYTES }, { "bind", "Address", TEXT } };

	SHEET(s, "listeners", "Listeners", columns);
	for (size_t i = 0; conf && i < conf->listeners_n; i++) {
		const struct conf_listener *l = &conf->listeners[i];
		struct frontend_figures n;

		if (!sheet_row(s))
			continue;
		frontend_listener(i, &n);
		sheet_text(s, l->name);
		sheet_text(s, limit_word(&n));
		sheet_number(s, n.sessions);
		sheet_number(s, (int64_t)n.total);
		sheet_number(s, (int64_t)n.failed);
		sheet_number(s, (int64_t)n.up);
		sheet_number(s, (int64_t)n.down);
		sheet_text(s, l->bind_n ? l->bind[0].text : "");
	}
	sheet_end(s);
}

static int64_t rtt_of(const struct advert *a)
{
	unsigned us = a->rtt_us ? atomic_load_explicit(a->rtt_us, memory_order_relaxed) : 0;

	return us ? (int64_t)us : -1;
}

static void put_agents(struct sheet *s, const struct crowd *c)
{
	static const struct column columns[] = { { "tunnel", "Tunnel", TEXT }, { "name", "Agent", TEXT }, { "state", "State", STATE },
		{ "rtt_ms", "RTT", MS }, { "sessions", "Sessions", COUNT }, { "links", "Links", COUNT }, { "addr", "Address", TEXT },
		{ "version", "Version", TEXT } };

	SHEET(s, "agents", "Agents", columns);
	for (size_t i = 0; i < c->agents_n; i++) {
		const struct advert *a = c->agents[i].advert;

		if (!a->tunnel[0] || !sheet_row(s))
			continue;
		sheet_text(s, a->tunnel);
		sheet_text(s, a->name);
		sheet_text(s, said_of(MARK_AGENT, a->name, a->draining ? "draining" : "up"));
		sheet_number(s, rtt_of(a));
		sheet_number(s, a->sessions ? atomic_load_explicit(a->sessions, memory_order_relaxed) : 0);
		sheet_number(s, c->agents[i].links);
		sheet_text(s, a->addr);
		sheet_text(s, a->version);
	}
	sheet_end(s);
}

static const char *offer_state(const struct offer *o)
{
	char name[2 * HELLO_NAME_MAX];
	struct strbuf b;

	strbuf_init(&b, name, sizeof(name));
	strbuf_add(&b, "%s/%s", o->tunnel, o->name);
	return said_of(MARK_SERVICE, name, o->up == o->all ? "up" : o->up ? "partly" : "down");
}

static void put_why(struct sheet *s, const struct offer *o)
{
	char text[2 * HELLO_NAME_MAX + sizeof(o->why->text)];
	struct strbuf b;

	strbuf_init(&b, text, sizeof(text));
	if (o->ill)
		strbuf_add(&b, "%s: %s, %s", o->ill, o->why->status, o->why->text);
	sheet_text(s, b.len ? text : "");
}

static void put_services(struct sheet *s, const struct crowd *c)
{
	static const struct column columns[] = { { "tunnel", "Tunnel", TEXT }, { "name", "Service", TEXT }, { "state", "State", STATE },
		{ "healthy", "Healthy", COUNT }, { "agents", "Offered by", COUNT }, { "why", "Why not", TEXT } };

	SHEET(s, "services", "Services", columns);
	for (size_t i = 0; i < c->offers_n; i++) {
		const struct offer *o = &c->offers[i];

		if (!sheet_row(s))
			continue;
		sheet_text(s, o->tunnel);
		sheet_text(s, o->name);
		sheet_text(s, offer_state(o));
		sheet_number(s, (int64_t)o->up);
		sheet_number(s, (int64_t)o->all);
		put_why(s, o);
	}
	sheet_end(s);
}

static void put_hubs(struct sheet *s, const struct crowd *c)
{
	static const struct column columns[] = { { "name", "Hub", TEXT }, { "addr", "Address", TEXT }, { "links", "Links", COUNT },
		{ "rtt_ms", "RTT", MS }, { "version", "Version", TEXT } };

	SHEET(s, "hubs", "Links to hubs", columns);
	for (size_t i = 0; i < c->agents_n; i++) {
		const struct advert *a = c->agents[i].advert;

		if (a->tunnel[0] || !sheet_row(s))
			continue;
		sheet_text(s, a->name);
		sheet_text(s, a->addr);
		sheet_number(s, c->agents[i].links);
		sheet_number(s, rtt_of(a));
		sheet_text(s, a->version);
	}
	sheet_end(s);
}

static void put_check(struct sheet *s, const char *service)
{
	struct check_view v;
	bool checked = check_view(service, &v);

	sheet_text(s, checked && !v.up ? "down" : "up");
	sheet_text(s, checked ? check_status_word(v.last.status) : "");
	sheet_text(s, !checked ? "" : v.last.text[0] ? v.last.text : check_status_text(v.last.status));
}

static void put_targets(struct sheet *s)
{
	const struct conf *conf = target_conf();
	static const struct column columns[] = { { "name", "Service", TEXT }, { "target", "Target", TEXT }, { "state", "State", STATE },
		{ "check", "Check", TEXT }, { "why", "Found", TEXT }, { "sessions", "Sessions", COUNT } };

	SHEET(s, "targets", "Targets of this agent", columns);
	for (size_t i = 0; conf && i < conf->agent.services_n; i++) {
		if (!sheet_row(s))
			continue;
		sheet_text(s, conf->agent.services[i].name);
		sheet_text(s, conf->agent.services[i].target.text);
		put_check(s, conf->agent.services[i].name);
		sheet_number(s, target_sessions(i));
	}
	sheet_end(s);
}

/* "TIME LEVEL EVENT key=value ...", as the log has it. */
static void put_event(struct sheet *s, char *line)
{
	char *level = line + strcspn(line, " "), *rest;

	level += *level == ' ' ? 1 : 0;
	rest = level + strcspn(level, " ");
	if (!*level || !*rest || !sheet_row(s))
		return;
	level[-1] = *rest = '\0';
	sheet_text(s, line);
	sheet_text(s, level);
	sheet_text(s, rest + 1);
}

/* The newest first. */
static void put_events(struct sheet *s)
{
	static const struct column columns[] = { { "time", "Time", TEXT }, { "level", "Level", STATE }, { "text", "Event", TEXT } };
	static char lines[EVENTS_MAX][400];
	uint64_t seq = 0;
	size_t n = 0;

	while (ring_next(RING_EVENTS, &seq, false, lines[n % EVENTS_MAX], sizeof(lines[0])) > 0)
		n++;
	SHEET(s, "events", "Recent events", columns);
	for (size_t i = 0; i < n && i < EVENTS_MAX; i++)
		put_event(s, lines[(n - 1 - i) % EVENTS_MAX]);
	sheet_end(s);
}

/* false: no memory, and some are missing. */
static bool put_sheets(FILE *f, bool json)
{
	const struct conf *conf = me.state->conf();
	struct sheet s = { .f = f, .json = json };
	struct crowd c;

	if (!crowd_init(&c))
		return false;
	if (conf->hub.set) {
		put_tunnels(&s, &c);
		put_services(&s, &c);
		put_agents(&s, &c);
		put_listeners(&s);
	}
	if (conf->agent.set) {
		put_hubs(&s, &c);
		put_targets(&s);
	}
	put_events(&s);
	crowd_fini(&c);
	return true;
}

/* ---- single figures ---- */

struct figure {
	const char *key, *title;
	enum kind kind;
	int64_t value;
};

#define FIGURES_MAX 16

static int64_t links(const struct conf *conf)
{
	return conf->hub.set ? stat_sum(STAT_LINKS) : (int64_t)dialer_links();
}

static size_t figures(struct figure f[FIGURES_MAX])
{
	const struct conf *conf = me.state->conf();
	const struct figure all[] = {
		{ "sessions", "Sessions", COUNT, stat_sum(STAT_SESSIONS) },
		{ "agents", "Agents", COUNT, (int64_t)registry_agents() },
		{ "links", "Links", COUNT, links(conf) },
		{ "queue", "Waiting clients", COUNT, stat_sum(STAT_QUEUE) },
		{ "up_rate", "Up each second", BYTES, past(TRACK_UP, HISTORY - 1) },
		{ "down_rate", "Down each second", BYTES, past(TRACK_DOWN, HISTORY - 1) },
		{ "opened", "Sessions opened", COUNT, stat_sum(STAT_SESSIONS_OPENED) },
		{ "resumed", "Sessions resumed", COUNT, stat_sum(STAT_SESSIONS_RESUMED) },
		{ "lost", "Sessions lost", COUNT, stat_sum(STAT_SESSIONS_LOST) },
		{ "parked", "Sessions without a link", COUNT, stat_sum(STAT_SESSIONS_PARKED) },
		{ "bytes_up", "Bytes up", BYTES, stat_sum(STAT_BYTES_UP) },
		{ "bytes_down", "Bytes down", BYTES, stat_sum(STAT_BYTES_DOWN) },
		{ "memory", "Resident memory", BYTES, process_resident() },
		{ "restarts", "Worker restarts", COUNT, (int64_t)me.state->restarts() },
	};
	size_t n = sizeof(all) / sizeof(all[0]);

	memcpy(f, all, sizeof(all));
	return n;
}

static const char *own_name(const struct conf *conf)
{
	return conf->hub.set ? conf->hub.name : conf->agent.set ? conf->agent.name : NULL;
}

/* ---- JSON ---- */

static void json_history(FILE *f)
{
	fputs(",\"history\":{", f);
	for (int t = 0; t < TRACK_COUNT; t++) {
		fprintf(f, "%s\"%s\":[", t ? "," : "", tracks[t].key);
		for (unsigned i = 0; i < HISTORY; i++)
			fprintf(f, "%s%" PRId64, i ? "," : "", past((enum track)t, i));
		fputc(']', f);
	}
	fputc('}', f);
}

int status_json(FILE *f)
{
	const struct conf *conf = me.state->conf();
	struct figure all[FIGURES_MAX];
	size_t n = figures(all);

	fputs("{\"name\":", f);
	str_json(f, own_name(conf));
	fprintf(f, ",\"role\":\"%s\",\"version\":\"" MCTUNNEL_VERSION "\",\"phase\":\"%s\",\"ready\":%s,\"vip\":\"%s\",\"uptime\":%.0f,\"threads\":%d",
		conf->hub.set ? "hub" : "agent", me.state->phase(), me.state->ready() ? "true" : "false", vip_word(vip_get()), process_uptime(), thread_count());
	fputs(",\"figures\":{", f);
	for (size_t i = 0; i < n; i++)
		fprintf(f, "%s\"%s\":%" PRId64, i ? "," : "", all[i].key, all[i].value);
	fputc('}', f);
	json_history(f);
	if (!put_sheets(f, true))
		return 0;
	fputs("}\n", f);
	return 200;
}

/* ---- the page ---- */

/* One for each page: what is not ours in it, if anything ever is, does not run. */
const char *status_policy(void)
{
	static char text[320];
	struct strbuf b;

	strbuf_init(&b, text, sizeof(text));
	strbuf_add(&b, "default-src 'none'; style-src 'nonce-%s'; script-src 'nonce-%s'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		   me.nonce, me.nonce);
	return text;
}

static void put_line(FILE *f, enum track t, int64_t top)
{
	fprintf(f, "<polyline class=\"%s\" points=\"", tracks[t].key);
	for (unsigned i = 0; i < HISTORY; i++)
		fprintf(f, "%u,%.2f ", i, 40 - 38.0 * (double)past(t, i) / (double)top);
	fputs("\"/>", f);
}

static void put_plot(FILE *f, const char *title, enum kind kind, enum track a, enum track b)
{
	int64_t top = 1;

	for (unsigned i = 0; i < HISTORY; i++) {
		top = past(a, i) > top ? past(a, i) : top;
		top = past(b, i) > top ? past(b, i) : top;
	}
	fprintf(f, "<figure data-tracks=\"%s %s\" data-kind=\"%s\"><figcaption>%s<span>", tracks[a].key, tracks[b].key, kind_words[kind], title);
	put_number(f, kind, top);
	fprintf(f, "</span></figcaption><svg viewBox=\"0 0 %d 40\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"%s\">", HISTORY - 1, title);
	put_line(f, a, top);
	put_line(f, b, top);
	fprintf(f, "</svg><p class=\"key\"><i class=\"%s\"></i>%s <i class=\"%s\"></i>%s <span>last %d minutes</span></figure>\n", tracks[a].key, tracks[a].key,
		tracks[b].key, tracks[b].key, HISTORY / 60);
}

static void put_top(FILE *f)
{
	const struct conf *conf = me.state->conf();
	bool ready = me.state->ready();

	fputs("<header><h1>", f);
	put_html(f, own_name(conf) ? own_name(conf) : "mctunnel");
	fprintf(f, "</h1><b id=\"phase\" class=\"pill %s\">%s</b>", ready ? "up" : "down", me.state->phase());
	if (conf->hub.set)
		fprintf(f, "<b id=\"vip\" class=\"pill %s\">VIP %s</b>", vip_word(vip_get()), vip_word(vip_get()));
	fprintf(f, "<span>mctunnel " MCTUNNEL_VERSION " &middot; %s &middot; %d threads &middot; up for <span id=\"uptime\">%.0f s</span></span>"
		   "<span id=\"live\">as of now; reload for newer figures</span></header>\n",
		conf->hub.set ? "hub" : "agent", thread_count(), process_uptime());
}

int status_page(FILE *f)
{
	struct figure all[FIGURES_MAX];
	size_t n = figures(all);
	uint8_t random[16];

	rnd_bytes(random, sizeof(random));
	str_hex(me.nonce, random, sizeof(random));
	fputs("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>mctunnel</title>\n"
	      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\">\n"
	      "<link rel=\"icon\" href=\"data:,\">\n", f);
	fprintf(f, "<style nonce=\"%s\">\n%s</style></head><body>\n", me.nonce, status_css);
	put_top(f);
	fputs("<main><div class=\"tiles\">", f);
	for (size_t i = 0; i < n; i++) {
		fprintf(f, "<div><b data-figure=\"%s\" data-kind=\"%s\">", all[i].key, kind_words[all[i].kind]);
		put_number(f, all[i].kind, all[i].value);
		fprintf(f, "</b>%s</div>", all[i].title);
	}
	fputs("</div>\n<div class=\"plots\">", f);
	put_plot(f, "Bytes each second", BYTES, TRACK_UP, TRACK_DOWN);
	put_plot(f, "Sessions, and opened each second", COUNT, TRACK_SESSIONS, TRACK_OPENED);
	fputs("</div>\n", f);
	if (!put_sheets(f, false))
		return 0;
	fputs("</main><footer><a href=\"/metrics\">metrics</a> <a href=\"/status.json\">status.json</a> <a href=\"/healthz\">healthz</a> "
	      "<a href=\"/readyz\">readyz</a></footer>\n", f);
	fprintf(f, "<script nonce=\"%s\">\n%s</script></body></html>\n", me.nonce, status_js);
	return 200;
}

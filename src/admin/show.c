/* What the process says of itself on the admin socket: figures, memory, threads, certificates, configuration, what was logged last.
 * Owns nothing but the figures from which counters are shown after `clear counters`. */
#define _GNU_SOURCE
#include "mctunnel/admin/show.h"

#include "mctunnel/admin/answer.h"
#include "mctunnel/admin/vip.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/ring.h"
#include "mctunnel/base/stat.h"
#include "mctunnel/base/str.h"
#include "mctunnel/base/timer.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/conf/files.h"
#include "mctunnel/conf/show.h"
#include "mctunnel/edge/dialer.h"
#include "mctunnel/edge/frontend.h"
#include "mctunnel/event/loop.h"
#include "mctunnel/net/tls.h"
#include "mctunnel/script/lua.h"
#include "mctunnel/tunnel/registry.h"
#include "mctunnel/tunnel/session.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static int64_t cleared[STAT_COUNT];

static int64_t uptime(void);

void show_clear(void)
{
	(void)uptime(); /* the first call is at the start */
	for (int i = 0; i < STAT_COUNT; i++) {
		if (stat_rows[i].type == STAT_COUNTER)
			cleared[i] = stat_sum((enum stat_id)i);
	}
}

static int64_t counted(enum stat_id id)
{
	return stat_sum(id) - cleared[id];
}

/* ---- info, version ---- */

/* Seconds since the first call. */
static int64_t uptime(void)
{
	static time_t began;
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	if (!began)
		began = now.tv_sec;
	return now.tv_sec - began;
}

static void uptime_text(char *text, size_t size, int64_t s)
{
	snprintf(text, size, "%lldd %lldh%02lldm%02llds", (long long)(s / 86400), (long long)(s / 3600 % 24), (long long)(s / 60 % 60), (long long)(s % 60));
}

static void info_process(struct answer *a, const struct conf *c)
{
	struct rlimit r = { 0 };
	char up[48];

	answer_pair(a, "Name", "mctunnel");
	answer_pair(a, "Version", MCTUNNEL_VERSION);
	answer_pair(a, "Role", c->hub.set && c->agent.set ? "hub,agent" : c->hub.set ? "hub" : "agent");
	answer_pair(a, "Node", c->hub.set ? c->hub.name : c->agent.name);
	answer_pair(a, "State", a->state->phase());
	answer_pair(a, "Vip", vip_word(vip_get()));
	answer_pair_int(a, "Pid", getpid());
	uptime_text(up, sizeof(up), uptime());
	answer_pair(a, "Uptime", up);
	answer_pair_int(a, "Uptime_sec", uptime());
	answer_pair_int(a, "Start_time_sec", time(NULL) - uptime());
	answer_pair_int(a, "Restarts", (int64_t)a->state->restarts());
	answer_pair_int(a, "Nbthread", thread_count());
	getrlimit(RLIMIT_NOFILE, &r);
	answer_pair_int(a, "Ulimit-n", (int64_t)r.rlim_cur);
	answer_pair_int(a, "Memmax_MB", (int64_t)(c->global.memory >> 20));
	answer_pair_int(a, "Stopping", strcmp(a->state->phase(), "serving") != 0);
}

static void info_traffic(struct answer *a, const struct conf *c)
{
	answer_pair_int(a, "Maxconn", frontend_maxconn());
	answer_pair_int(a, "SessRateLimit", c->global.rate_limit);
	answer_pair_int(a, "CurrConns", frontend_sessions());
	answer_pair_int(a, "CumConns", counted(STAT_SESSIONS_OPENED));
	answer_pair_int(a, "Queue", stat_sum(STAT_QUEUE));
	answer_pair_int(a, "SessionsParked", stat_sum(STAT_SESSIONS_PARKED));
	answer_pair_int(a, "SessionsResumed", counted(STAT_SESSIONS_RESUMED));
	answer_pair_int(a, "SessionsLost", counted(STAT_SESSIONS_LOST));
	answer_pair_int(a, "Listeners", (int64_t)c->listeners_n);
	answer_pair_int(a, "Tunnels", (int64_t)c->tunnels_n);
	answer_pair_int(a, "Agents", (int64_t)registry_agents());
	answer_pair_int(a, "Links", c->hub.set ? stat_sum(STAT_LINKS) : dialer_links());
	answer_pair_int(a, "LinksRefused", counted(STAT_LINK_REFUSED));
	answer_pair_int(a, "LinksBroken", counted(STAT_LINK_BROKEN));
	answer_pair_int(a, "TotalBytesUp", counted(STAT_BYTES_UP));
	answer_pair_int(a, "TotalBytesDown", counted(STAT_BYTES_DOWN));
	answer_pair_int(a, "AcceptPaused", counted(STAT_ACCEPT_PAUSED));
	answer_pair_int(a, "DroppedLogs", counted(STAT_LOG_DROPPED));
}

int show_info(struct answer *a)
{
	const struct conf *c = a->state->conf();

	info_process(a, c);
	info_traffic(a, c);
	return ANSWER_DONE;
}

int show_version(struct answer *a)
{
	if (a->form == FORM_JSON)
		answer_pair(a, "version", MCTUNNEL_VERSION);
	else
		fprintf(a->out, "%s\n", MCTUNNEL_VERSION);
	return ANSWER_DONE;
}

static void lua_row(struct answer *a, const char *kind, const char *name)
{
	if (strcmp(kind, "script") == 0)
		answer_str(a, NULL);
	else
		answer_int(a, thread_self());
	answer_str(a, kind);
	answer_str(a, name);
}

static void lua_nothing(struct answer *a, int cells)
{
	while (cells-- > 0)
		answer_str(a, NULL);
}

static void lua_state(struct answer *a, const struct script *s)
{
	struct script_figures f;

	script_figures(s, &f);
	lua_row(a, "state", NULL);
	lua_nothing(a, 6);
	answer_int(a, (int64_t)f.memory);
	answer_int(a, (int64_t)f.memory_peak);
	answer_int(a, (int64_t)f.memory_limit);
	answer_int(a, (int64_t)f.renewals);
}

static void lua_function(struct answer *a, const struct script_hook *h)
{
	lua_row(a, script_kinds[h->kind], h->name);
	answer_int(a, (int64_t)h->calls);
	answer_int(a, (int64_t)h->errors);
	answer_float(a, h->calls ? (double)h->sum_ns / (double)h->calls / 1000 : 0);
	answer_float(a, (double)h->p50_ns / 1000);
	answer_float(a, (double)h->p99_ns / 1000);
	answer_float(a, (double)h->max_ns / 1000);
	lua_nothing(a, 4);
}

static void lua_scripts(struct answer *a)
{
	const struct conf_lua *l = &a->state->conf()->global.lua;

	for (size_t i = 0; i < l->load.n; i++) {
		lua_row(a, "script", l->load.v[i]);
		lua_nothing(a, 10);
	}
}

/* The scripts, then on each thread its state and the functions there. index: of the next function, with the state before the first. */
int show_lua(struct answer *a)
{
	static const char *const columns[] = { "thread", "kind", "name", "calls", "errors", "mean_us", "p50_us", "p99_us", "max_us", "memory", "memory_peak",
		"memory_limit", "renewals", NULL };
	const struct script *s = script_used();
	struct script_hook h;

	answer_table(a, columns);
	if (a->stage++ == 0)
		lua_scripts(a);
	if (s && a->cursor == 0)
		lua_state(a, s);
	for (a->cursor += a->cursor == 0; s && script_hook(s, a->cursor - 1, &h); a->cursor++) {
		if (answer_full(a))
			return answer_next_thread(a, false);
		lua_function(a, &h);
	}
	return answer_next_thread(a, true);
}

int show_env(struct answer *a)
{
	char name[256];

	for (char **e = environ; e && *e; e++) {
		size_t len = strcspn(*e, "=");

		if (a->form == FORM_JSON) {
			snprintf(name, sizeof(name), "%.*s", (int)(len < 255 ? len : 255), *e);
			answer_pair(a, name, (*e)[len] ? *e + len + 1 : "");
		} else {
			answer_list(a);
			answer_raw(a, *e);
		}
	}
	if (a->form == FORM_JSON && !a->pairs)
		fputc('{', a->out);
	a->pairs = true;
	return ANSWER_DONE;
}

/* ---- what was logged ---- */

static int show_ring(struct answer *a, enum ring_id ring)
{
	char line[2100];

	answer_list(a);
	while (!answer_full(a)) {
		if (ring_next(ring, &a->cursor, a->form == FORM_JSON, line, sizeof(line)) == 0)
			return ANSWER_DONE;
		answer_raw(a, line);
	}
	return 0;
}

static void panic_line(struct answer *a, const char *line)
{
	FILE *out;

	if (a->form != FORM_JSON) {
		answer_raw(a, line);
		return;
	}
	out = answer_raw_json(a);
	fputs("{\"level\":\"alert\",\"event\":\"panic\",\"text\":", out);
	str_json(out, line);
	fputc('}', out);
}

/* What the worker before this one left. */
static void panic_lines(struct answer *a)
{
	char all[sizeof(((struct ring_page *)0)->panic) + 1], line[512];

	ring_panic(all, sizeof(all));
	for (const char *at = all; *at;) {
		size_t len = strcspn(at, "\n");

		snprintf(line, sizeof(line), "%.*s", (int)len, at);
		panic_line(a, line);
		at += at[len] ? len + 1 : len;
	}
}

int show_errors(struct answer *a)
{
	answer_list(a);
	if (a->stage++ == 0)
		panic_lines(a);
	return show_ring(a, RING_ERRORS);
}

int show_events(struct answer *a)
{
	return show_ring(a, RING_EVENTS);
}

/* ---- certificates ---- */

static void cert_row(struct answer *a, const struct conf *c, const char *use, const char *path)
{
	struct tls_described d;
	const char *why;
	char when[32] = "";
	size_t len;
	time_t end;
	struct tm tm;

	if (!path || tls_describe(files_read(c->files, path, &len, &why), &d) < 0)
		return;
	end = (time_t)d.not_after;
	if (gmtime_r(&end, &tm))
		strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
	answer_str(a, use);
	answer_str(a, path);
	answer_str(a, d.names);
	answer_str(a, d.issuer);
	answer_str(a, when);
	answer_int(a, (d.not_after - time(NULL)) / 86400);
}

static void listener_rows(struct answer *a, const struct conf *c, const struct conf_listener *l)
{
	char use[96];

	snprintf(use, sizeof(use), "listener %s", l->name);
	for (size_t i = 0; i < l->tls.pairs_n; i++)
		cert_row(a, c, use, l->tls.pairs[i].cert);
	if (!l->tls.client_ca)
		return;
	snprintf(use, sizeof(use), "listener %s client_ca", l->name);
	cert_row(a, c, use, l->tls.client_ca);
}

int show_certs(struct answer *a)
{
	static const char *const columns[] = { "use", "path", "names", "issuer", "not_after", "days", NULL };
	const struct conf *c = a->state->conf();

	answer_table(a, columns);
	for (size_t i = 0; i < c->hub.bind_n; i++) {
		cert_row(a, c, "hub", c->hub.bind[i].cert);
		cert_row(a, c, "hub client_ca", c->hub.bind[i].client_ca);
	}
	for (size_t i = 0; i < c->listeners_n; i++)
		listener_rows(a, c, &c->listeners[i]);
	if (c->agent.set) {
		cert_row(a, c, "agent", c->agent.cert);
		cert_row(a, c, "agent ca", c->agent.ca);
	}
	return ANSWER_DONE;
}

/* ---- configuration, memory, threads ---- */

int show_config(struct answer *a)
{
	conf_show(a->state->conf(), a->out, a->form == FORM_JSON);
	return ANSWER_DONE;
}

int show_memory(struct answer *a)
{
	static const char *const columns[] = { "kind", "used", "limit", "size", "bytes", "failed", "kept", "what", NULL };
	struct mem_usage u;

	answer_table(a, columns);
	for (int kind = 0; kind < MEM_KIND_COUNT; kind++) {
		mem_usage((enum mem_kind)kind, &u);
		answer_str(a, u.name);
		answer_int(a, (int64_t)u.used);
		answer_int(a, (int64_t)u.limit);
		answer_int(a, (int64_t)u.size);
		answer_int(a, (int64_t)(u.used * u.size));
		answer_int(a, (int64_t)u.failed);
		answer_int(a, (int64_t)u.kept);
		answer_str(a, u.help);
	}
	return ANSWER_DONE;
}

int show_threads(struct answer *a)
{
	static const char *const columns[] = { "thread", "load_percent", "turns", "busy_s", "idle_s", "messages", "sessions", "timers", NULL };
	struct loop_figures f;

	answer_table(a, columns);
	loop_figures(&f);
	answer_int(a, thread_self());
	answer_int(a, f.load);
	answer_int(a, (int64_t)f.turns);
	answer_float(a, (double)f.busy_us / 1e6);
	answer_float(a, (double)f.idle_us / 1e6);
	answer_int(a, (int64_t)thread_delivered());
	answer_int(a, (int64_t)session_count());
	answer_int(a, (int64_t)timers_count());
	return answer_next_thread(a, true);
}
